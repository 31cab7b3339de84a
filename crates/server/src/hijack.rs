//! Taking a connection out of HTTP and giving it to the engine.
//!
//! ```text
//! client                         daemon
//!   POST /containers/x/attach ──►
//!          (Upgrade: tcp)
//!                             ◄── HTTP/1.1 101 UPGRADED     (200 OK if no upgrade was asked for)
//!   raw bytes               ◄──► the container's own stdio, in frames unless it has a terminal
//! ```

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;

use bytes::Bytes;
use hyper::header::{CONNECTION, HeaderMap, HeaderName, UPGRADE};
use ponton_api::version::{self, ApiVersion};
use ponton_engine::request::AttachConnection;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tracing::warn;

use crate::answer;

/// The stream as it is: a terminal's.
pub(crate) const RAW_STREAM: &str = "application/vnd.docker.raw-stream";
/// Standard output and error in frames.
pub(crate) const MULTIPLEXED_STREAM: &str = "application/vnd.docker.multiplexed-stream";

/// Clients since this version are told whether a stream has frames.
const TOLD_OF_FRAMES: ApiVersion = ApiVersion::new(1, 42);

/// What an attach's or a log's stream is called.
pub(crate) fn stream_type(tty: bool, version: ApiVersion) -> &'static str {
    if tty || version < TOLD_OF_FRAMES { RAW_STREAM } else { MULTIPLEXED_STREAM }
}

/// When the client is told that the connection is its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Before the engine gets it: output may follow at once.
    AnswerFirst,
    /// When the engine has it: nothing is written before the client does more, such as to start the
    /// container, and by then the attach must be in place.
    EngineFirst,
}

/// Whether a header that is a list has this word, in any case.
pub(crate) fn has_token(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    let mut values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.any(|value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case(wanted)))
}

/// Gives the connection to the engine.
pub(crate) type HandOver = Box<
    dyn FnOnce(AttachConnection) -> Pin<Box<dyn Future<Output = ponton_engine::Result<()>> + Send>> + Send,
>;

/// A request that takes its connection over.
pub(crate) struct Hijack {
    pub(crate) upgrade: bool,
    pub(crate) content_type: &'static str,
    pub(crate) order: Order,
    pub(crate) hand_over: HandOver,
}

impl Hijack {
    /// The client asked for an upgrade.
    pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
        has_token(headers, &UPGRADE, "tcp") && has_token(headers, &CONNECTION, "upgrade")
    }

    /// Answers, and hands the connection over. `preamble` is what the client sent after its request.
    pub(crate) async fn take_over(self, stream: UnixStream, preamble: Bytes) {
        let head = self.head();
        if let Err(error) = self.hand_over_with(head, stream, preamble).await {
            // The client has its answer or is gone: there is nobody to tell but the log.
            warn!(%error, "hand a client's connection to its container");
        }
    }

    fn head(&self) -> String {
        let (status, upgrade) = if self.upgrade {
            ("101 UPGRADED", "Connection: Upgrade\r\nUpgrade: tcp\r\n")
        } else {
            ("200 OK", "")
        };
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {}\r\n{upgrade}Api-Version: {}\r\nDocker-Experimental: false\r\n\
             Ostype: linux\r\nServer: {}\r\n\r\n",
            self.content_type,
            version::MAX,
            answer::SERVER,
        )
    }

    async fn hand_over_with(self, head: String, mut stream: UnixStream, preamble: Bytes) -> io::Result<()> {
        if self.order == Order::AnswerFirst {
            stream.write_all(head.as_bytes()).await?;
        }
        let stream = stream.into_std()?;
        let own = match self.order {
            Order::AnswerFirst => None,
            Order::EngineFirst => Some(stream.try_clone()?),
        };
        let connection = AttachConnection { fd: OwnedFd::from(stream), preamble: preamble.to_vec() };
        (self.hand_over)(connection).await.map_err(io::Error::other)?;
        if let Some(own) = own {
            UnixStream::from_std(own)?.write_all(head.as_bytes()).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream as StdStream;
    use std::sync::mpsc;

    use hyper::header::HeaderValue;
    use tokio::io::AsyncReadExt;

    use super::*;

    #[test]
    fn an_upgrade_needs_both_headers() {
        let asks = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| {
                (hyper::header::HeaderName::from_static(name), HeaderValue::from_static(value))
            });
            Hijack::is_upgrade(&pairs.collect())
        };
        assert!(asks(&[("upgrade", "tcp"), ("connection", "keep-alive, Upgrade")]));
        assert!(!asks(&[("upgrade", "tcp")]));
        assert!(!asks(&[("upgrade", "h2c"), ("connection", "Upgrade")]));
    }

    #[test]
    fn frames_are_told_of_since_1_42() {
        let named = |tty, minor| stream_type(tty, ApiVersion::new(1, minor));
        assert_eq!(named(false, 42), MULTIPLEXED_STREAM);
        assert_eq!(named(true, 42), RAW_STREAM);
        assert_eq!(named(false, 41), RAW_STREAM);
    }

    /// What the client reads when the engine writes "output" as soon as it has the connection.
    async fn taken_over(upgrade: bool, order: Order) -> (String, Vec<u8>) {
        let (mut client, server) = UnixStream::pair().unwrap();
        let (sender, preambles) = mpsc::channel();
        let hand_over: HandOver = Box::new(move |connection| {
            Box::pin(async move {
                use std::io::Write;
                sender.send(connection.preamble).unwrap();
                StdStream::from(connection.fd).write_all(b"output").unwrap();
                Ok(())
            })
        });
        let hijack = Hijack { upgrade, content_type: RAW_STREAM, order, hand_over };
        hijack.take_over(server, Bytes::from_static(b"early")).await;
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        (answer, preambles.recv().unwrap())
    }

    #[tokio::test]
    async fn output_follows_the_head() {
        let (answer, preamble) = taken_over(true, Order::AnswerFirst).await;
        assert!(answer.starts_with("HTTP/1.1 101 UPGRADED\r\n"), "{answer}");
        assert!(answer.contains("\r\nUpgrade: tcp\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\noutput"), "{answer}");
        assert_eq!(preamble, b"early");
        let (answer, _) = taken_over(false, Order::AnswerFirst).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(!answer.contains("Upgrade"), "{answer}");
    }

    #[tokio::test]
    async fn the_engine_can_come_first() {
        let (answer, _) = taken_over(true, Order::EngineFirst).await;
        assert!(answer.starts_with("outputHTTP/1.1 101 UPGRADED\r\n"), "{answer}");
    }
}
