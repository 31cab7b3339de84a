use std::collections::BTreeMap;
use std::io::Read;

use serde_json::json;

use super::*;

fn line(text: &[u8]) -> Line<'_> {
    let time = "2026-03-04T05:06:07.000890123Z".parse().unwrap();
    Line { stream: Stream::Stdout, time, text, piece: None }
}

fn one(message: &LogMessage, line: &Line<'_>, is_datagram: bool) -> Vec<u8> {
    let mut messages = Vec::new();
    put(message, line, is_datagram, &mut messages);
    assert_eq!(messages.len(), 1);
    messages.remove(0)
}

fn syslog_message(format: SyslogFormat) -> LogMessage {
    LogMessage::Syslog { format, facility: 3, hostname: "host".into(), tag: "web".into() }
}

#[test]
fn syslog_heads_are_those_of_their_formats() {
    let get = |format, line: &Line<'_>| {
        let text = String::from_utf8(one(&syslog_message(format), line, false)).unwrap();
        text.replace(&std::process::id().to_string(), "PID")
    };
    let stderr = Line { stream: Stream::Stderr, ..line(b"oops") };
    // The zone is the host's.
    let local = line(b"").time.to_zoned(TimeZone::system());
    let stamp = local.strftime("%b %e %H:%M:%S").to_string();
    assert_eq!(get(SyslogFormat::Unix, &line(b"hello")), format!("<30>{stamp} web[PID]: hello\n"));
    assert_eq!(get(SyslogFormat::Rfc3164, &stderr), format!("<27>{stamp} host web[PID]: oops\n"));
    let zone = if local.offset().is_zero() { "Z".into() } else { local.strftime("%:z").to_string() };
    let stamp = local.strftime("%Y-%m-%dT%H:%M:%S").to_string();
    assert_eq!(
        get(SyslogFormat::Rfc5424, &line(b"hello")),
        format!("<30>1 {stamp}{zone} host web PID web - hello\n")
    );
    assert_eq!(
        get(SyslogFormat::Rfc5424Micro, &line(b"hello")),
        format!("<30>1 {stamp}.000890{zone} host web PID web - hello\n")
    );
}

/// The fields of a message in systemd's native protocol.
fn journal_fields(mut message: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut fields = BTreeMap::new();
    while !message.is_empty() {
        let end = message.iter().position(|byte| matches!(byte, b'=' | b'\n')).unwrap();
        let name = String::from_utf8(message[..end].to_vec()).unwrap();
        let value;
        if message[end] == b'=' {
            let length = message[end..].iter().position(|byte| *byte == b'\n').unwrap();
            value = message[end + 1..end + length].to_vec();
            message = &message[end + length + 1..];
        } else {
            let (length, rest) = message[end + 1..].split_first_chunk::<8>().unwrap();
            let length = u64::from_le_bytes(*length) as usize;
            value = rest[..length].to_vec();
            assert_eq!(rest[length], b'\n');
            message = &rest[length + 1..];
        }
        assert!(fields.insert(name, value).is_none());
    }
    fields
}

#[test]
fn journald_gets_fields_whatever_is_in_them() {
    let fields = vec![("CONTAINER_NAME".into(), "web".into()), ("TEXT".into(), "two\nlines=".into())];
    let message = LogMessage::Journald { fields };
    let time = line(b"").time;
    let piece = Some(Piece { time, ordinal: 2, is_last: false });
    let got = journal_fields(&one(&message, &Line { piece, ..line(b"a=b\xff\0") }, true));
    assert_eq!(got["MESSAGE"], b"a=b\xff\0");
    assert_eq!(got["PRIORITY"], b"6");
    assert_eq!(got["CONTAINER_NAME"], b"web");
    assert_eq!(got["TEXT"], b"two\nlines=");
    assert_eq!(got["CONTAINER_PARTIAL_MESSAGE"], b"true");
    assert_eq!(got["CONTAINER_PARTIAL_ORDINAL"], b"2");
    let got = journal_fields(&one(&message, &Line { stream: Stream::Stderr, ..line(b"x") }, true));
    assert_eq!(got["PRIORITY"], b"3");
    assert!(!got.contains_key("CONTAINER_PARTIAL_MESSAGE"));
}

/// As much of msgpack as is in a message: the value, and what is behind it.
fn msgpack(bytes: &[u8]) -> (serde_json::Value, &[u8]) {
    let (first, rest) = bytes.split_first().unwrap();
    let be =
        |length: usize| rest[..length].iter().fold(0_usize, |number, byte| number << 8 | usize::from(*byte));
    let text = |skip: usize, length: usize| {
        let text = String::from_utf8_lossy(&rest[skip..skip + length]).into_owned();
        (text.into(), &rest[skip + length..])
    };
    match first {
        0x80..=0x8f => msgpack_map(usize::from(first & 0xf), rest),
        0x90..=0x9f => {
            let mut array = Vec::new();
            let mut rest = rest;
            for _ in 0..first & 0xf {
                let (value, next) = msgpack(rest);
                array.push(value);
                rest = next;
            }
            (array.into(), rest)
        }
        0xa0..=0xbf => text(0, usize::from(first & 0x1f)),
        0xd9 => text(1, be(1)),
        0xda => text(2, be(2)),
        0xdb => text(4, be(4)),
        0xce => (be(4).into(), &rest[4..]),
        // An extension of type 0: seconds and nanoseconds.
        0xd7 => (json!({"seconds": be(5), "nanoseconds": be(9) & 0xffff_ffff}), &rest[9..]),
        0xde => msgpack_map(be(2), &rest[2..]),
        other => panic!("msgpack {other:#x}"),
    }
}

fn msgpack_map(length: usize, mut rest: &[u8]) -> (serde_json::Value, &[u8]) {
    let mut map = Map::new();
    for _ in 0..length {
        let (name, next) = msgpack(rest);
        let (value, next) = msgpack(next);
        map.insert(name.as_str().unwrap().to_owned(), value);
        rest = next;
    }
    (map.into(), rest)
}

#[test]
fn fluentd_gets_events() {
    let record =
        vec![("container_id".to_owned(), "i".repeat(64)), ("container_name".to_owned(), "/web".to_owned())];
    let message =
        |sub_second| LogMessage::Fluentd { tag: "docker.web".into(), record: record.clone(), sub_second };
    let text = "x".repeat(300);
    let bytes = one(&message(false), &line(text.as_bytes()), false);
    let (event, rest) = msgpack(&bytes);
    assert!(rest.is_empty());
    let record =
        json!({"container_id": "i".repeat(64), "container_name": "/web", "source": "stdout", "log": text});
    assert_eq!(event, json!(["docker.web", 1_772_600_767, record, {}]));
    let piece = Some(Piece { time: line(b"").time, ordinal: 1, is_last: false });
    let bytes = one(&message(true), &Line { stream: Stream::Stderr, piece, ..line(b"") }, false);
    let (event, _) = msgpack(&bytes);
    assert_eq!(event[1], json!({"seconds": 1_772_600_767, "nanoseconds": 890_123}));
    assert_eq!(event[2]["source"], "stderr");
    assert_eq!(event[2]["partial_ordinal"], "1");
    assert_eq!(event[2]["partial_last"], "false");
}

fn gelf_message(compression: GelfCompression) -> LogMessage {
    let fields = Map::from_iter([("_container_name".to_owned(), "web".into())]);
    LogMessage::Gelf { hostname: "host".into(), fields, compression, level: 1 }
}

#[test]
fn gelf_is_json_of_its_version() {
    let bytes = one(&gelf_message(GelfCompression::Gzip), &line(b"hello"), false);
    let (end, json) = bytes.split_last().unwrap();
    assert_eq!(*end, 0);
    let got: Value = serde_json::from_slice(json).unwrap();
    let expected = json!({"version": "1.1", "host": "host", "short_message": "hello",
                          "timestamp": 1_772_600_767.0, "level": 6, "_container_name": "web"});
    assert_eq!(got, expected);
}

#[test]
fn gelf_datagrams_are_compressed_and_cut() {
    let text: Vec<u8> = (0..12_000_u32).map(|n| b' ' + (n * n % 89) as u8).collect();
    for compression in [GelfCompression::Gzip, GelfCompression::Zlib, GelfCompression::None] {
        let mut messages = Vec::new();
        put(&gelf_message(compression), &line(&text), true, &mut messages);
        assert!(messages.iter().all(|message| message.len() <= GELF_CHUNK));
        let packed = if messages.len() == 1 { messages.remove(0) } else { joined(&messages) };
        let mut json = Vec::new();
        let mut plain: Box<dyn Read> = match compression {
            GelfCompression::Gzip => Box::new(flate2::read::GzDecoder::new(&packed[..])),
            GelfCompression::Zlib => Box::new(flate2::read::ZlibDecoder::new(&packed[..])),
            GelfCompression::None => Box::new(&packed[..]),
        };
        plain.read_to_end(&mut json).unwrap();
        let got: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(got["short_message"].as_str().unwrap().as_bytes(), text);
    }
}

fn joined(messages: &[Vec<u8>]) -> Vec<u8> {
    assert!(messages.len() > 1);
    let mut whole = Vec::new();
    for (number, message) in messages.iter().enumerate() {
        assert_eq!(message[..2], [0x1e, 0x0f]);
        assert_eq!(message[2..10], messages[0][2..10]);
        assert_eq!(message[10..12], [number as u8, messages.len() as u8]);
        whole.extend_from_slice(&message[12..]);
    }
    whole
}
