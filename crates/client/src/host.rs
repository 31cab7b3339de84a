use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::Error;

/// Where a daemon listens: `unix:///run/ponton/ponton.sock` or `tcp://127.0.0.1:2375`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// Path of a unix socket.
    Unix(PathBuf),
    /// `host:port`, plain HTTP.
    Tcp(String),
}

impl FromStr for Host {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let error = |reason| Error::Host { host: text.to_owned(), reason };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| error("no scheme"))?;
        match scheme {
            _ if rest.is_empty() => Err(error("no address")),
            "unix" => Ok(Self::Unix(PathBuf::from(rest))),
            "tcp" | "http" => {
                let rest = rest.trim_end_matches('/');
                let port = rest.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
                Ok(Self::Tcp(if port { rest.to_owned() } else { format!("{rest}:2375") }))
            }
            "ssh" | "https" | "npipe" | "fd" => Err(error("this kind of address is not implemented")),
            _ => Err(error("unknown scheme")),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

impl Host {
    pub(crate) async fn dial(&self) -> Result<Socket, Error> {
        let connected = match self {
            Self::Unix(path) => UnixStream::connect(path).await.map(Socket::Unix),
            Self::Tcp(address) => TcpStream::connect(address).await.map(Socket::Tcp),
        };
        connected.map_err(|source| {
            let host = self.to_string();
            match source.kind() {
                io::ErrorKind::PermissionDenied => Error::Permission { host, source },
                _ => Error::Connect { host, source },
            }
        })
    }
}

/// A connected stream socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// A socket as HTTP uses it. A daemon that has its answer ready may take no more of the request: what
/// can't be written then waits for ever, so that the answer is read, which tells more than a broken pipe.
/// If none comes, the end of reading says that the connection broke.
#[derive(Debug)]
pub(crate) struct HttpSocket(pub(crate) Socket);

impl AsyncRead for HttpSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for HttpSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.0).poll_write(cx, buf) {
            Poll::Ready(Err(error)) if is_refusal(&error) => Poll::Pending,
            written => written,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Whether the other end takes no more, though it may have said something.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_and_printed() {
        for (text, printed) in [
            ("unix:///run/ponton/ponton.sock", "unix:///run/ponton/ponton.sock"),
            ("tcp://localhost", "tcp://localhost:2375"),
            ("tcp://10.0.0.1:99", "tcp://10.0.0.1:99"),
        ] {
            assert_eq!(text.parse::<Host>().unwrap().to_string(), printed);
        }
        for text in ["", "/run/x.sock", "unix://", "ssh://root@host", "ftp://x"] {
            assert!(text.parse::<Host>().is_err(), "{text}");
        }
    }
}
