//! `/containers/{name}/attach/ws`: an attach by WebSocket (RFC 6455).
//!
//! ```text
//! client ◄── frames ──► daemon ◄── bytes, a socket pair ──► shim: the container's own stdio
//! ```
//!
//! The shim knows bytes only, so the daemon stays between: such a client loses its connection with the
//! daemon, and the container does not notice.

use std::io;
use std::os::unix::net::UnixStream as StdStream;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::header::{CONNECTION, HeaderMap, HeaderName, UPGRADE};
use ponton_engine::request::AttachConnection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use tracing::{debug, warn};

use crate::error::{Error, Result};
use crate::hijack::{HandOver, has_token};

/// The longest message that a client may send, in bytes.
const MESSAGE_MAX: usize = 1 << 20;
/// How much output is one frame at most.
const FRAME_MAX: usize = 32 << 10;

/// A request that makes its connection a WebSocket.
pub(crate) struct WebSocket {
    accept: String,
    /// Output comes in binary frames; in text for clients before 1.28.
    binary: bool,
    hand_over: HandOver,
}

impl WebSocket {
    /// Checks the client's half of the handshake.
    pub(crate) fn new(headers: &HeaderMap, binary: bool, hand_over: HandOver) -> Result<Self> {
        const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
        const VERSION: HeaderName = HeaderName::from_static("sec-websocket-version");
        if !has_token(headers, &UPGRADE, "websocket") || !has_token(headers, &CONNECTION, "upgrade") {
            return Err(Error::invalid(
                "the client does not ask for a WebSocket (header Upgrade: websocket)",
            ));
        }
        if headers.get(VERSION).is_none_or(|version| version != "13") {
            return Err(Error::invalid("the only version of WebSocket is 13 (header Sec-WebSocket-Version)"));
        }
        let Some(key) = headers.get(KEY).filter(|key| key.len() == 24) else {
            return Err(Error::invalid("the WebSocket has no key of 16 bytes (header Sec-WebSocket-Key)"));
        };
        Ok(Self { accept: derive_accept_key(key.as_bytes()), binary, hand_over })
    }

    /// Answers, and carries messages until one side ends. `early` is what the client sent after its request.
    pub(crate) async fn take_over(self, stream: UnixStream, early: Bytes) {
        if let Err(error) = self.carry(stream, early).await {
            debug!(%error, "attach by WebSocket");
        }
    }

    async fn carry(self, mut stream: UnixStream, early: Bytes) -> io::Result<()> {
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            self.accept
        );
        let (own, containers) = StdStream::pair()?;
        own.set_nonblocking(true)?;
        containers.set_nonblocking(true)?;
        let connection = AttachConnection { fd: containers.into(), preamble: Vec::new() };
        // Before the answer: a client may start the container as soon as it has it.
        let refused = (self.hand_over)(connection).await.err();
        stream.write_all(head.as_bytes()).await?;
        let config =
            WebSocketConfig::default().max_message_size(Some(MESSAGE_MAX)).max_frame_size(Some(MESSAGE_MAX));
        let mut socket =
            WebSocketStream::from_partially_read(stream, early.to_vec(), Role::Server, Some(config)).await;
        if let Some(error) = refused {
            warn!(%error, "hand a client's connection to its container");
            let text = Message::text(error.to_string());
            let _ = socket.send(text).await;
            return socket.close(None).await.map_err(io::Error::other);
        }
        pump(socket, UnixStream::from_std(own)?, self.binary).await
    }
}

/// Carries messages to the container's input and its output to messages. At the end of the output the client
/// is told; a client that has gone takes its connection along.
async fn pump(socket: WebSocketStream<UnixStream>, own: UnixStream, binary: bool) -> io::Result<()> {
    let (mut to_client, mut from_client) = socket.split();
    let (mut output, mut input) = own.into_split();
    let inward = async {
        while let Some(message) = from_client.next().await {
            match message.map_err(closed)? {
                Message::Binary(bytes) => input.write_all(&bytes).await?,
                Message::Text(text) => input.write_all(text.as_bytes()).await?,
                Message::Close(_) => break,
                // Pings are answered by the library.
                _ => {}
            }
        }
        io::Result::Ok(())
    };
    let outward = async {
        let mut buffer = vec![0; FRAME_MAX];
        // Text has to be whole characters; what is none becomes U+FFFD, as with Go.
        let mut rest = Vec::new();
        loop {
            let read = output.read(&mut buffer).await?;
            if read == 0 {
                break;
            }
            let message = if binary {
                Message::binary(buffer[..read].to_vec())
            } else {
                rest.extend_from_slice(&buffer[..read]);
                let whole = whole_characters(&rest);
                let text = String::from_utf8_lossy(&rest[..whole]).into_owned();
                rest.drain(..whole);
                Message::text(text)
            };
            to_client.send(message).await.map_err(closed)?;
        }
        to_client.close().await.map_err(closed)
    };
    // The end of either is the end: a client that closes wants no more output.
    tokio::select! {
        done = inward => done,
        done = outward => done,
    }
}

/// How much of a text has no character that is cut off at its end.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    }
}

fn closed(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        error => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    /// An engine that answers each line of input in capitals.
    fn shouting() -> HandOver {
        Box::new(|connection| {
            Box::pin(async move {
                let stream = UnixStream::from_std(StdStream::from(connection.fd)).unwrap();
                tokio::spawn(async move {
                    let (mut output, mut input) = stream.into_split();
                    let mut buffer = [0; 64];
                    let read = output.read(&mut buffer).await.unwrap();
                    input.write_all(&buffer[..read].to_ascii_uppercase()).await.unwrap();
                });
                Ok(())
            })
        })
    }

    #[test]
    fn a_handshake_needs_all_its_headers() {
        let all = [
            ("upgrade", "websocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let accepted = WebSocket::new(&headers(&all), true, shouting()).map_err(|error| error.message);
        // The example of the RFC.
        assert_eq!(accepted.map(|socket| socket.accept).as_deref(), Ok("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        for missing in 0..all.len() {
            let mut some = all.to_vec();
            some.remove(missing);
            assert!(WebSocket::new(&headers(&some), true, shouting()).is_err(), "{some:?}");
        }
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(whole_characters("aé".as_bytes()), 3);
        assert_eq!(whole_characters(b"a\xc3"), 1);
        assert_eq!(whole_characters(b"a\xff\xc3\xa9"), 4, "what is no text is not waited for");
    }

    #[tokio::test]
    async fn messages_are_input_and_output_is_messages() {
        for (binary, expected) in
            [(true, Message::binary(b"HELLO".to_vec())), (false, Message::text("HELLO"))]
        {
            let (client, server) = UnixStream::pair().unwrap();
            let socket = WebSocket { accept: String::new(), binary, hand_over: shouting() };
            let served = tokio::spawn(socket.take_over(server, Bytes::new()));
            let mut client = client;
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            assert!(head.starts_with(b"HTTP/1.1 101 "));
            let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
            client.send(Message::text("hello")).await.unwrap();
            assert_eq!(client.next().await.unwrap().unwrap(), expected);
            assert!(client.next().await.unwrap().unwrap().is_close());
            drop(client);
            served.await.unwrap();
        }
    }
}
