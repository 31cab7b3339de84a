//! What a line becomes for a logging service: one message.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use super::{Piece, Stream};
use crate::shim::protocol::{GelfCompression, LogMessage, SyslogFormat};

/// The most bytes of a GELF datagram; a longer message is sent in chunks.
const GELF_CHUNK: usize = 1420;
/// The most chunks of a GELF message; a longer one cannot be sent.
const GELF_CHUNKS_MAX: usize = 128;
/// syslog's severities, which are also journald's priorities.
const ERROR: u8 = 3;
const INFO: u8 = 6;

/// One line, as it is sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    pub(super) stream: Stream,
    pub(super) time: Timestamp,
    /// Without its `\n`.
    pub(super) text: &'a [u8],
    pub(super) piece: Option<Piece>,
}

/// Adds the messages of a line: one, or several datagrams. `is_datagram`: the transport keeps them
/// apart.
pub(super) fn put(message: &LogMessage, line: &Line<'_>, is_datagram: bool, messages: &mut Vec<Vec<u8>>) {
    match message {
        LogMessage::Journald { fields } => messages.push(journald(fields, line)),
        LogMessage::Syslog { format, facility, hostname, tag } => {
            messages.push(syslog(*format, *facility, [hostname, tag], line));
        }
        LogMessage::Fluentd { tag, record, sub_second } => {
            messages.push(fluentd(tag, record, *sub_second, line));
        }
        LogMessage::Gelf { hostname, fields, compression, level } => {
            let json = gelf(hostname, fields, line);
            if is_datagram {
                gelf_datagrams(&compressed(json, *compression, *level), messages);
            } else {
                messages.push([json, vec![0]].concat());
            }
        }
    }
}

impl Line<'_> {
    fn severity(&self) -> u8 {
        if self.stream == Stream::Stderr { ERROR } else { INFO }
    }

    fn is_partial(&self) -> bool {
        self.piece.is_some_and(|piece| !piece.is_last)
    }
}

/// systemd's native protocol: `NAME=value` lines, or for values with line breaks the name alone, the
/// length, and the value.
fn journald(fields: &[(String, String)], line: &Line<'_>) -> Vec<u8> {
    let mut message = Vec::with_capacity(512 + line.text.len());
    let mut put = |name: &str, value: &[u8]| {
        message.extend_from_slice(name.as_bytes());
        if value.contains(&b'\n') {
            message.push(b'\n');
            message.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            message.push(b'=');
        }
        message.extend_from_slice(value);
        message.push(b'\n');
    };
    put("MESSAGE", line.text);
    put("PRIORITY", line.severity().to_string().as_bytes());
    for (name, value) in fields {
        put(name, value.as_bytes());
    }
    if line.is_partial() {
        put("CONTAINER_PARTIAL_MESSAGE", b"true");
    }
    if let Some(piece) = line.piece {
        put("CONTAINER_PARTIAL_ID", piece.id().as_bytes());
        put("CONTAINER_PARTIAL_ORDINAL", piece.ordinal.to_string().as_bytes());
        put("CONTAINER_PARTIAL_LAST", piece.is_last.to_string().as_bytes());
    }
    message
}

fn syslog(format: SyslogFormat, facility: u8, [hostname, tag]: [&str; 2], line: &Line<'_>) -> Vec<u8> {
    let priority = facility * 8 + line.severity();
    let time = line.time.to_zoned(TimeZone::system());
    let pid = std::process::id();
    // As in RFC 3164: the day without a zero.
    let old = || time.strftime("%b %e %H:%M:%S");
    let new = |pattern: &str| {
        let zone = if time.offset().is_zero() { "Z".into() } else { time.strftime("%:z").to_string() };
        let time = time.strftime(pattern).to_string();
        format!("<{priority}>1 {time}{zone} {hostname} {tag} {pid} {tag} - ")
    };
    let head = match format {
        SyslogFormat::Unix => format!("<{priority}>{} {tag}[{pid}]: ", old()),
        SyslogFormat::Rfc3164 => format!("<{priority}>{} {hostname} {tag}[{pid}]: ", old()),
        SyslogFormat::Rfc5424 => new("%Y-%m-%dT%H:%M:%S"),
        SyslogFormat::Rfc5424Micro => new("%Y-%m-%dT%H:%M:%S.%6f"),
    };
    [head.as_bytes(), line.text, b"\n"].concat()
}

/// Fluentd's forward protocol: `[tag, time, record, option]` in msgpack.
fn fluentd(tag: &str, record: &[(String, String)], sub_second: bool, line: &Line<'_>) -> Vec<u8> {
    let mut pairs: Vec<(&str, &[u8])> =
        record.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    pairs.push(("source", line.stream.name().as_bytes()));
    pairs.push(("log", line.text));
    let (id, ordinal, is_last);
    if let Some(piece) = line.piece {
        (id, ordinal, is_last) = (piece.id(), piece.ordinal.to_string(), piece.is_last.to_string());
        pairs.push(("partial_message", b"true"));
        pairs.push(("partial_id", id.as_bytes()));
        pairs.push(("partial_ordinal", ordinal.as_bytes()));
        pairs.push(("partial_last", is_last.as_bytes()));
    }
    let mut message = vec![0x94];
    msgpack_text(&mut message, tag.as_bytes());
    let second = u32::try_from(line.time.as_second()).unwrap_or(0);
    if sub_second {
        // EventTime: an extension of type 0 with 8 bytes.
        message.extend_from_slice(&[0xd7, 0]);
        message.extend_from_slice(&second.to_be_bytes());
        message.extend_from_slice(&line.time.subsec_nanosecond().unsigned_abs().to_be_bytes());
    } else {
        message.push(0xce);
        message.extend_from_slice(&second.to_be_bytes());
    }
    message.push(0xde);
    message.extend_from_slice(&(pairs.len() as u16).to_be_bytes());
    for (name, value) in pairs {
        msgpack_text(&mut message, name.as_bytes());
        msgpack_text(&mut message, value);
    }
    // No options.
    message.push(0x80);
    message
}

fn msgpack_text(message: &mut Vec<u8>, text: &[u8]) {
    match text.len() {
        length @ 0..32 => message.push(0xa0 | length as u8),
        length @ 32..=0xff => message.extend_from_slice(&[0xd9, length as u8]),
        length @ 0x100..=0xffff => {
            message.push(0xda);
            message.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            message.push(0xdb);
            message.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
    message.extend_from_slice(text);
}

fn gelf(hostname: &str, fields: &Map<String, Value>, line: &Line<'_>) -> Vec<u8> {
    let seconds = line.time.as_millisecond() as f64 / 1e3;
    let mut message = Map::new();
    message.insert("version".into(), "1.1".into());
    message.insert("host".into(), hostname.into());
    message.insert("short_message".into(), String::from_utf8_lossy(line.text).into());
    message.insert("timestamp".into(), seconds.into());
    message.insert("level".into(), line.severity().into());
    message.extend(fields.iter().map(|(name, value)| (name.clone(), value.clone())));
    if let Some(piece) = line.piece {
        message.insert("_partial_message".into(), "true".into());
        message.insert("_partial_id".into(), piece.id().into());
        message.insert("_partial_ordinal".into(), piece.ordinal.to_string().into());
        message.insert("_partial_last".into(), piece.is_last.to_string().into());
    }
    Value::Object(message).to_string().into_bytes()
}

fn compressed(json: Vec<u8>, compression: GelfCompression, level: u32) -> Vec<u8> {
    let level = Compression::new(level);
    let packed = match compression {
        GelfCompression::None => return json,
        GelfCompression::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), level);
            encoder.write_all(&json).and_then(|()| encoder.finish())
        }
        GelfCompression::Zlib => {
            let mut encoder = ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(&json).and_then(|()| encoder.finish())
        }
    };
    // A vector takes everything; and graylog takes what is not compressed.
    packed.unwrap_or(json)
}

/// Chunks have a head: magic, id of the message, number, count.
fn gelf_datagrams(message: &[u8], messages: &mut Vec<Vec<u8>>) {
    if message.len() <= GELF_CHUNK {
        return messages.push(message.to_vec());
    }
    let mut id = [0; 8];
    // Another id than that of any other message of these seconds is all that is asked for.
    if rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty()).is_err() {
        id = Timestamp::now().as_nanosecond().to_le_bytes().first_chunk().copied().unwrap_or_default();
    }
    let chunks: Vec<_> = message.chunks(GELF_CHUNK - 12).collect();
    if chunks.len() > GELF_CHUNKS_MAX {
        return;
    }
    for (number, chunk) in chunks.iter().enumerate() {
        messages.push([&[0x1e, 0x0f], &id[..], &[number as u8, chunks.len() as u8], chunk].concat());
    }
}

#[cfg(test)]
mod tests;
