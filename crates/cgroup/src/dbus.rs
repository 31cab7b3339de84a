//! As much of D-Bus as systemd is asked with: method calls, their answers, and signals, over a bus on
//! a unix socket (dbus-specification, "Message Protocol"). Messages are little-endian.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A value as `a(sv)` carries it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Value {
    Bool(bool),
    U64(u64),
    Text(String),
    Texts(Vec<String>),
    Numbers(Vec<u32>),
    Bytes(Vec<u8>),
    Pairs(Vec<(String, String)>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Self::Bool(_) => "b",
            Self::U64(_) => "t",
            Self::Text(_) => "s",
            Self::Texts(_) => "as",
            Self::Numbers(_) => "au",
            Self::Bytes(_) => "ay",
            Self::Pairs(_) => "a(ss)",
        }
    }
}

/// What is sent, with each value at the place that its type wants.
#[derive(Clone, Debug, Default)]
pub(crate) struct Encoder(Vec<u8>);

impl Encoder {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    pub(crate) fn number(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn boolean(&mut self, value: bool) {
        self.number(u32::from(value));
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.number(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(signature.len() as u8);
        self.0.extend(signature.as_bytes());
        self.0.push(0);
    }

    /// An array: its length does not count the padding before its first element.
    pub(crate) fn array<T>(&mut self, align: usize, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.number(0);
        let length_at = self.0.len() - 4;
        self.align(align);
        let begin = self.0.len();
        for item in items {
            self.align(align);
            each(self, item);
        }
        let length = (self.0.len() - begin) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        match value {
            Value::Bool(value) => self.boolean(*value),
            Value::U64(value) => {
                self.align(8);
                self.0.extend(value.to_le_bytes());
            }
            Value::Text(text) => self.text(text),
            Value::Texts(texts) => self.array(4, texts, |out, text| out.text(text)),
            Value::Numbers(numbers) => self.array(4, numbers, |out, number| out.number(*number)),
            Value::Bytes(bytes) => self.array(1, bytes, |out, byte| out.0.push(*byte)),
            Value::Pairs(pairs) => self.array(8, pairs, |out, (first, second)| {
                out.text(first);
                out.text(second);
            }),
        }
    }

    /// `a(sv)`
    pub(crate) fn properties(&mut self, properties: &[(String, Value)]) {
        self.array(8, properties, |out, (name, value)| {
            out.text(name);
            out.variant(value);
        });
    }
}

/// A message that came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: u8,
    pub(crate) reply_to: Option<u32>,
    pub(crate) member: String,
    pub(crate) error: String,
    signature: String,
    body: Vec<u8>,
}

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// The fixed part of a header, with the length of its fields.
const FIXED: usize = 16;
/// Far more than systemd answers.
const LONGEST: usize = 1 << 20;

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed D-Bus message: {what}"))
}

/// How long the rest of a message is that begins with `fixed`.
fn rest_length(fixed: &[u8; FIXED]) -> io::Result<usize> {
    if fixed[0] != b'l' || fixed[3] != 1 {
        return Err(malformed("byte order or version"));
    }
    let mut numbers = Decoder { bytes: fixed, at: 4 };
    let (body, _, fields) = (numbers.number()? as usize, numbers.number()?, numbers.number()? as usize);
    let length = fields.next_multiple_of(8).checked_add(body).filter(|length| *length <= LONGEST);
    length.ok_or_else(|| malformed("it is too long"))
}

/// The texts of a whole message: what a fuzz target gives any bytes to.
pub fn read_message(bytes: &[u8]) -> io::Result<Vec<String>> {
    Message::parse(bytes)?.texts()
}

struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Decoder<'a> {
    fn take(&mut self, length: usize) -> io::Result<&'a [u8]> {
        let end = self.at.checked_add(length).ok_or_else(|| malformed("a length"))?;
        let taken = self.bytes.get(self.at..end).ok_or_else(|| malformed("it ends too early"))?;
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn number(&mut self) -> io::Result<u32> {
        self.align(4);
        let bytes = self.take(4)?.try_into().map_err(|_| malformed("a number"))?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn string(&mut self, length: usize) -> io::Result<String> {
        let text = String::from_utf8(self.take(length)?.to_vec()).map_err(|_| malformed("a text"))?;
        self.take(1)?;
        Ok(text)
    }

    fn text(&mut self) -> io::Result<String> {
        let length = self.number()? as usize;
        self.string(length)
    }

    fn signature(&mut self) -> io::Result<String> {
        let length = usize::from(self.take(1)?[0]);
        self.string(length)
    }
}

impl Message {
    /// A whole message. Any bytes give a message or an error.
    pub(crate) fn parse(bytes: &[u8]) -> io::Result<Self> {
        let fixed: &[u8; FIXED] = bytes.first_chunk().ok_or_else(|| malformed("it ends too early"))?;
        if bytes.len() != FIXED + rest_length(fixed)? {
            return Err(malformed("its length"));
        }
        let mut message = Self { kind: fixed[1], ..Self::default() };
        let mut header = Decoder { bytes, at: 12 };
        let end = header.number()? as usize + FIXED;
        while header.at < end {
            header.align(8);
            let code = header.take(1)?[0];
            let signature = header.signature()?;
            match (code, signature.as_str()) {
                (3, "s") => message.member = header.text()?,
                (4, "s") => message.error = header.text()?,
                (5, "u") => message.reply_to = Some(header.number()?),
                (8, "g") => message.signature = header.signature()?,
                (_, "s" | "o") => drop(header.text()?),
                (_, "u") => drop(header.number()?),
                (_, "g") => drop(header.signature()?),
                _ => return Err(malformed("a field of its header")),
            }
        }
        header.align(8);
        message.body = bytes.get(header.at..).unwrap_or_default().to_vec();
        Ok(message)
    }

    /// The texts and object paths that the body begins with; numbers between them are left out.
    pub(crate) fn texts(&self) -> io::Result<Vec<String>> {
        let mut body = Decoder { bytes: &self.body, at: 0 };
        let mut texts = Vec::new();
        for kind in self.signature.chars() {
            match kind {
                's' | 'o' => texts.push(body.text()?),
                'u' | 'i' | 'b' => drop(body.number()?),
                _ => break,
            }
        }
        Ok(texts)
    }
}

/// Whom a method is called of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Object {
    pub(crate) destination: &'static str,
    pub(crate) path: &'static str,
    pub(crate) interface: &'static str,
}

const BUS: Object = Object {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};

/// A connection to a bus.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    serial: u32,
    signals: VecDeque<Message>,
}

impl Connection {
    /// Connects to the bus at an address (`unix:path=…`, several with `;` between them).
    pub(crate) fn open(address: &str, patience: Duration) -> io::Result<Self> {
        let paths = address.split(';').filter_map(|one| one.strip_prefix("unix:"));
        let mut paths = paths.filter_map(|one| one.split(',').find_map(|part| part.strip_prefix("path=")));
        let path = paths.next().ok_or_else(|| io::Error::other(format!("{address}: no path of a socket")))?;
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let mut connection = Self { stream, serial: 0, signals: VecDeque::new() };
        connection.authenticate()?;
        connection.call(BUS, "Hello", "", &Encoder::default())?;
        Ok(connection)
    }

    /// SASL's EXTERNAL: the kernel tells the bus who we are; the user id is said in hexadecimal ASCII.
    fn authenticate(&mut self) -> io::Result<()> {
        let user = rustix::process::geteuid().as_raw().to_string();
        let hex: String = user.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.stream.write_all(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes())?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            answer.push(byte[0]);
            if answer.len() > 512 {
                return Err(malformed("the answer to AUTH"));
            }
        }
        if !answer.starts_with(b"OK ") {
            let text = String::from_utf8_lossy(&answer).trim().to_owned();
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("the bus says {text}")));
        }
        self.stream.write_all(b"BEGIN\r\n")
    }

    /// Lets signals through that a rule matches.
    pub(crate) fn add_match(&mut self, rule: &str) -> io::Result<()> {
        let mut body = Encoder::default();
        body.text(rule);
        self.call(BUS, "AddMatch", "s", &body).map(drop)
    }

    /// Calls a method and waits for its answer. What the other side answers as error is one, with its
    /// name and text.
    pub(crate) fn call(
        &mut self,
        object: Object,
        member: &str,
        signature: &str,
        body: &Encoder,
    ) -> io::Result<Message> {
        self.serial += 1;
        self.stream.write_all(&call_message(self.serial, object, member, signature, body))?;
        loop {
            let message = self.receive()?;
            match message.kind {
                METHOD_RETURN | ERROR if message.reply_to == Some(self.serial) => {
                    if message.kind == METHOD_RETURN {
                        return Ok(message);
                    }
                    let text = message.texts()?.into_iter().next().unwrap_or_default();
                    return Err(io::Error::other(format!("{}: {text}", message.error)));
                }
                SIGNAL => self.signals.push_back(message),
                _ => {}
            }
        }
    }

    /// The next signal.
    pub(crate) fn signal(&mut self) -> io::Result<Message> {
        loop {
            if let Some(signal) = self.signals.pop_front() {
                return Ok(signal);
            }
            let message = self.receive()?;
            if message.kind == SIGNAL {
                self.signals.push_back(message);
            }
        }
    }

    fn receive(&mut self) -> io::Result<Message> {
        let mut fixed = [0; FIXED];
        self.stream.read_exact(&mut fixed).map_err(timed_out)?;
        let mut bytes = fixed.to_vec();
        bytes.resize(FIXED + rest_length(&fixed)?, 0);
        self.stream.read_exact(&mut bytes[FIXED..]).map_err(timed_out)?;
        Message::parse(&bytes)
    }
}

fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

fn call_message(serial: u32, object: Object, member: &str, signature: &str, body: &Encoder) -> Vec<u8> {
    let mut out = Encoder(vec![b'l', METHOD_CALL, 0, 1]);
    out.number(body.0.len() as u32);
    out.number(serial);
    let mut fields = vec![
        (1, "o", object.path),
        (2, "s", object.interface),
        (3, "s", member),
        (6, "s", object.destination),
    ];
    if !signature.is_empty() {
        fields.push((8, "g", signature));
    }
    out.array(8, &fields, |out, (code, kind, text)| {
        out.0.push(*code);
        out.signature(kind);
        if *kind == "g" { out.signature(text) } else { out.text(text) }
    });
    out.align(8);
    out.0.extend(&body.0);
    out.0
}

/// What the other side of a test sends.
#[cfg(test)]
pub(crate) mod tests_support {
    use super::*;

    const OBJECT: Object = Object { destination: "a.b", path: "/a", interface: "a.b" };

    fn texts(texts: &[&str]) -> Encoder {
        let mut body = Encoder::default();
        for text in texts {
            body.text(text);
        }
        body
    }

    pub(crate) fn signal(body: &[&str]) -> Vec<u8> {
        let mut bytes = call_message(9, OBJECT, "JobRemoved", "oss", &texts(body));
        bytes[1] = SIGNAL;
        bytes
    }

    pub(crate) fn answer(to: u32, body: &[&str]) -> Vec<u8> {
        let mut out = Encoder(vec![b'l', METHOD_RETURN, 0, 1]);
        let body_bytes = texts(body);
        out.number(body_bytes.0.len() as u32);
        out.number(1);
        out.array(8, &[(5, "u"), (8, "g")], |out, (code, kind)| {
            out.0.push(*code);
            out.signature(kind);
            if *kind == "u" { out.number(to) } else { out.signature(&"o".repeat(body.len())) }
        });
        out.align(8);
        out.0.extend(body_bytes.0);
        out.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANAGER: Object = Object { destination: "a.b", path: "/a", interface: "a.b" };

    fn body() -> Encoder {
        let mut body = Encoder::default();
        body.text("x.scope");
        body.properties(&[
            ("Delegate".into(), Value::Bool(true)),
            ("MemoryMax".into(), Value::U64(7)),
            ("PIDs".into(), Value::Numbers(vec![1])),
            ("DeviceAllow".into(), Value::Pairs(vec![("char-*".into(), "m".into())])),
        ]);
        body
    }

    /// What libdbus made of the same arguments.
    #[test]
    fn arguments_are_encoded_as_others_do() {
        let hex: String = body().0.iter().map(|byte| format!("{byte:02x}")).collect();
        let theirs = "07000000782e73636f706500820000000800000044656c6567617465000162000100000000000000\
             090000004d656d6f72794d6178000174000000000000000007000000000000000400000050494473\
             000261750000000004000000010000000b000000446576696365416c6c6f77000561287373290000\
             120000000000000006000000636861722d2a0000010000006d00";
        assert_eq!(hex, theirs);
    }

    /// A message from a bus: a signal with a number and three texts.
    fn signal() -> Vec<u8> {
        let mut body = Encoder::default();
        body.number(1);
        for text in ["/job/1", "x.scope", "done"] {
            body.text(text);
        }
        let mut bytes = call_message(9, MANAGER, "JobRemoved", "uoss", &body);
        bytes[1] = SIGNAL;
        bytes
    }

    #[test]
    fn what_was_sent_is_read() {
        let message = Message::parse(&signal()).unwrap();
        assert_eq!((message.kind, message.member.as_str()), (SIGNAL, "JobRemoved"));
        assert_eq!(message.texts().unwrap(), ["/job/1", "x.scope", "done"]);
    }

    /// Any bytes are a message or an error: every cut and every single damaged byte of a good one, and
    /// many with several.
    #[test]
    fn damaged_messages_are_errors() {
        let good = signal();
        let read = |bytes: &[u8]| Message::parse(bytes).and_then(|message| message.texts()).is_ok();
        assert!((0..good.len()).all(|length| !read(&good[..length])));
        let mut refused = 0;
        for at in 0..good.len() {
            for value in 0..=u8::MAX {
                let mut bad = good.clone();
                bad[at] = value;
                refused += usize::from(!read(&bad));
            }
        }
        let mut state = 1u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        for _ in 0..50_000 {
            let mut bad = good.clone();
            for _ in 0..=random(6) {
                let at = random(bad.len());
                bad[at] = random(256) as u8;
            }
            refused += usize::from(!read(&bad));
        }
        assert!(refused > 10_000, "{refused}");
    }
}
