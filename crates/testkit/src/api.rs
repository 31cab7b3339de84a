//! A bare HTTP/1.1 client for the Engine API on a unix socket: one request a connection.
//!
//! It shares no code with the product's client, so that a mistake in one cannot hide in the other.

use serde_json::Value;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::wait::PATIENCE;

/// The Engine API behind one socket.
#[derive(Clone, Debug)]
pub struct Api {
    socket: PathBuf,
}

/// A status and a body.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status code.
    pub status: u16,
    /// Header lines, as they came.
    pub head: String,
    /// The body, with the chunked encoding taken off.
    pub body: Vec<u8>,
}

impl Answer {
    /// Parses what came on a connection until its end; `None` if that is not whole.
    pub fn parse(all: &[u8]) -> Option<Self> {
        let end = all.windows(4).position(|w| w == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&all[..end]).into_owned();
        let status = head.split_whitespace().nth(1)?.parse().ok()?;
        let lower = head.to_ascii_lowercase();
        let rest = &all[end + 4..];
        let body = if lower.contains("transfer-encoding: chunked") {
            unchunk(rest)?
        } else if let Some(length) = lower.lines().find_map(|l| l.strip_prefix("content-length: ")) {
            let length: usize = length.trim().parse().ok()?;
            if rest.len() < length {
                return None;
            }
            rest[..length].to_vec()
        } else {
            rest.to_vec()
        };
        Some(Self { status, head, body })
    }

    /// The body as JSON; [`Value::Null`] when it is empty.
    pub fn json(&self) -> Value {
        if self.body.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Asserts the status, showing the body when it is another.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

impl Api {
    /// The API on this socket.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// A connection with the request written, for streams.
    pub fn open(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: d\r\n{headers}Content-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        match stream.write_all(body) {
            // It has answered, and reads no more.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {}
            written => written?,
        }
        Ok(stream)
    }

    /// One request; an error when the daemon is not there, or dies before it has answered whole.
    pub fn try_request(&self, method: &str, path: &str, body: Option<&Value>) -> io::Result<Answer> {
        let (headers, bytes) = match body {
            Some(value) => ("Content-Type: application/json\r\nConnection: close\r\n", value.to_string()),
            None => ("Connection: close\r\n", String::new()),
        };
        let mut stream = self.open(method, path, headers, bytes.as_bytes())?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        Answer::parse(&all)
            .ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "the answer is not whole"))
    }

    /// One request that must be answered.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.try_request(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// GET.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, None)
    }

    /// POST of JSON.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.request("POST", path, Some(body))
    }
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?.trim(), 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Some(body);
        }
        if rest.len() < size + 2 {
            return None;
        }
        body.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_answer_is_no_answer() {
        assert!(Answer::parse(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab").is_none());
        assert!(Answer::parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n").is_none());
        let answer =
            Answer::parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n")
                .unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "ab"));
    }
}
