//! The format of Docker's `json-file` driver: one JSON object a line.
//!
//! ```text
//! {"log":"hello\n","stream":"stdout","attrs":{"tag":"web"},"time":"2024-05-06T07:08:09.1234Z"}
//! ```
//!
//! `attrs` is there only if there are some. A piece of a line that was cut has no `\n` at its end.
//! Bytes that are not UTF-8 are replaced, as Go's encoder does.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use jiff::Timestamp;

use super::Stream;

/// How much is looked through at once for the end of the last entry.
const BLOCK: u64 = 64 << 10;

/// Adds the entry of one line or a piece of one, given in two parts.
pub(super) fn put(out: &mut Vec<u8>, tail: &str, [begin, rest]: [&[u8]; 2]) {
    out.extend_from_slice(b"{\"log\":\"");
    if begin.is_empty() {
        escape(rest, out);
    } else {
        // A character may lie on the border.
        escape(&[begin, rest].concat(), out);
    }
    out.extend_from_slice(tail.as_bytes());
}

/// What stands behind the text of an entry.
pub(super) fn tail(stream: Stream, attrs: &str, time: Timestamp) -> String {
    let stream = stream.name();
    if attrs.is_empty() {
        format!("\",\"stream\":\"{stream}\",\"time\":\"{time}\"}}\n")
    } else {
        format!("\",\"stream\":\"{stream}\",\"attrs\":{attrs},\"time\":\"{time}\"}}\n")
    }
}

/// Cuts off what was not written to its end. The answer: the size then.
pub(super) fn repair(file: &File) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let mut end = size;
    let mut block = vec![0; BLOCK.min(size) as usize];
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        let part = &mut block[..(end - start) as usize];
        file.read_exact_at(part, start)?;
        if let Some(at) = memchr::memrchr(b'\n', part) {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if end < size {
        file.set_len(end)?;
    }
    Ok(end)
}

/// Writes the inside of a JSON string as Docker does.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        escape_valid(chunk.valid().as_bytes(), out);
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

/// The bytes that may not stand for themselves; 0xe2 begins U+2028 and U+2029.
const SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table[b'<' as usize] = true;
    table[b'>' as usize] = true;
    table[b'&' as usize] = true;
    table[0xe2] = true;
    table
};

fn escape_valid(mut text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    while let Some(at) = text.iter().position(|&byte| SPECIAL[usize::from(byte)]) {
        out.extend_from_slice(&text[..at]);
        let byte = text[at];
        text = &text[at + 1..];
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0xe2 => match text {
                [0x80, last @ (0xa8 | 0xa9), rest @ ..] => {
                    out.extend_from_slice(b"\\u202");
                    out.push(HEX[usize::from(last & 0xf)]);
                    text = rest;
                }
                _ => out.push(byte),
            },
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
            }
        }
    }
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_as_docker_does() {
        let escaped = |text: &[u8]| {
            let mut out = Vec::new();
            escape(text, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            escaped(b"a\tb\x07<>&\"\\\x7f\r\n\0"),
            r#"a\u0009b\u0007\u003c\u003e\u0026\"\\"#.to_owned() + "\x7f" + r"\r\n\u0000"
        );
        assert_eq!(escaped("é€\u{2028}\u{2029}\u{202a}🦀".as_bytes()), "é€\\u2028\\u2029\u{202a}🦀");
        assert_eq!(escaped(b"\xe2\x82x \xffy\xe2"), r"\ufffd\ufffdx \ufffdy\ufffd");
    }

    #[test]
    fn half_an_entry_is_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let good = "{}\n".repeat(30_000);
        for (content, left) in [
            (good.clone(), good.len()),
            (good.clone() + &"x".repeat(100_000), good.len()),
            (good.clone() + "{", good.len()),
            ("x".repeat(100_000), 0),
            (String::new(), 0),
        ] {
            std::fs::write(&path, content).unwrap();
            let file = File::options().read(true).write(true).open(&path).unwrap();
            assert_eq!(repair(&file).unwrap(), left as u64);
            assert_eq!(std::fs::metadata(&path).unwrap().len(), left as u64);
        }
    }
}
