use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Error;
use crate::host::{HttpSocket, Socket};

/// Whether an answer announces Docker's 8-byte frames.
pub(crate) fn is_multiplexed(headers: &hyper::HeaderMap) -> bool {
    let kind = headers.get(hyper::header::CONTENT_TYPE);
    kind.is_some_and(|value| value.as_bytes() == b"application/vnd.docker.multiplexed-stream")
}

/// A connection that the daemon handed over after `101 UPGRADED`: what is read comes from the container,
/// what is written goes to its standard input; shutting it down for writing is the end of that input.
#[derive(Debug)]
pub struct Hijacked {
    socket: Socket,
    /// Bytes that arrived together with the answer's head.
    early: Bytes,
    multiplexed: bool,
}

impl Hijacked {
    pub(crate) async fn from_response<B>(response: hyper::Response<B>, path: &str) -> Result<Self, Error> {
        let multiplexed = is_multiplexed(response.headers());
        let status = response.status().as_u16();
        let upgraded = hyper::upgrade::on(response)
            .await
            .map_err(|source| Error::Transport { path: path.to_owned(), source })?;
        let parts = upgraded.downcast::<TokioIo<HttpSocket>>().map_err(|_| Error::NotUpgraded { status })?;
        Ok(Self { socket: parts.io.into_inner().0, early: parts.read_buf, multiplexed })
    }

    /// Whether the daemon announced Docker's 8-byte frames (API 1.42 and newer do).
    pub fn is_multiplexed(&self) -> bool {
        self.multiplexed
    }
}

impl AsyncRead for Hijacked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.has_remaining() {
            let count = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early[..count]);
            self.early.advance(count);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Hijacked {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
