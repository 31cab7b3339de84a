//! Where a logging service listens, and a connection to it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ponton_runtime::shim::protocol::LogAddress;
use tokio::net::{TcpStream, UnixDatagram, UnixStream};

use crate::error::{Error, Result, words};

/// How long a service may take to be reached.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where a syslog daemon of this host listens.
const SYSLOG_SOCKETS: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];
/// Where systemd's journal listens.
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";

/// A logging service, as the options name it.
#[derive(Debug, PartialEq)]
pub(super) enum Peer {
    /// Host and port.
    Udp(String),
    /// Host and port.
    Tcp(String),
    UnixStream(PathBuf),
    UnixDatagram(PathBuf),
    /// The syslog daemon of this host.
    Syslog,
}

impl Peer {
    /// `syslog-address`
    pub(super) fn of_syslog(address: &str) -> Result<Self> {
        if address.is_empty() {
            return Ok(Self::Syslog);
        }
        let form =
            || Error::invalid(format!("syslog-address should be in form proto://address, got {address}"));
        let (scheme, rest) = address.split_once("://").ok_or_else(form)?;
        match scheme {
            "unix" => Ok(Self::UnixStream(rest.into())),
            "unixgram" => Ok(Self::UnixDatagram(rest.into())),
            "tcp" => Ok(Self::Tcp(with_port(rest, 514))),
            "udp" => Ok(Self::Udp(with_port(rest, 514))),
            "tcp+tls" => Err(Error::not_implemented(format!(
                "syslog-address {address}: syslog over TLS is not implemented"
            ))),
            _ => Err(form()),
        }
    }

    /// `fluentd-address`
    pub(super) fn of_fluentd(address: &str) -> Result<Self> {
        let invalid = |why: &str| Error::invalid(format!("invalid fluentd-address {address}: {why}"));
        let (scheme, rest) = address.split_once("://").unwrap_or(("tcp", address));
        match scheme {
            "unix" if rest.is_empty() => Err(invalid("path is empty")),
            "unix" => Ok(Self::UnixStream(rest.into())),
            "tcp" if rest.is_empty() => Ok(Self::Tcp("127.0.0.1:24224".into())),
            "tcp" if rest.contains('/') => Err(invalid("should not contain a path element")),
            "tcp" => Ok(Self::Tcp(with_port(rest, 24224))),
            "tls" => Err(Error::not_implemented(format!(
                "fluentd-address {address}: fluentd over TLS is not implemented"
            ))),
            _ => Err(invalid(&format!("unsupported scheme: '{scheme}'"))),
        }
    }

    /// `gelf-address`
    pub(super) fn of_gelf(address: &str) -> Result<Self> {
        if address.is_empty() {
            return Err(Error::invalid("gelf-address is a required parameter"));
        }
        let (scheme, rest) = address
            .split_once("://")
            .filter(|(scheme, _)| ["tcp", "tcp+tls", "udp", "unix", "unixgram"].contains(scheme))
            .ok_or_else(|| {
                Error::invalid(format!("gelf-address should be in form proto://address, got {address}"))
            })?;
        if !matches!(scheme, "udp" | "tcp") {
            return Err(Error::invalid("gelf: endpoint needs to be TCP or UDP"));
        }
        if with_port(rest, 0) != rest {
            return Err(Error::invalid("gelf: please provide gelf-address as proto://host:port"));
        }
        Ok(if scheme == "udp" { Self::Udp(rest.into()) } else { Self::Tcp(rest.into()) })
    }

    /// Checks that a socket of the host is there.
    pub(super) fn check(&self) -> Result<()> {
        let (Self::UnixStream(path) | Self::UnixDatagram(path)) = self else { return Ok(()) };
        match std::fs::metadata(path) {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::invalid(format!("stat {}: {}", path.display(), words(&error)))),
        }
    }

    /// systemd's journal.
    pub(super) fn journal() -> Self {
        Self::UnixDatagram(JOURNAL_SOCKET.into())
    }

    /// Reaches the service. The answer: what to reach it by again, and a connection that does not block,
    /// unless none is made (`lazy`).
    pub(super) async fn connect(self, lazy: bool) -> Result<(LogAddress, Option<OwnedFd>)> {
        match self {
            Self::Udp(name) => Ok((LogAddress::Udp(resolve("udp", &name).await?), None)),
            Self::Tcp(name) => {
                let address = resolve("tcp", &name).await?;
                if lazy {
                    return Ok((LogAddress::Tcp(address), None));
                }
                let stream = in_time(TcpStream::connect(address)).await;
                let stream = stream.and_then(TcpStream::into_std).map_err(|error| {
                    Error::internal(format!("dial tcp {address}: connect: {}", words(&error)))
                })?;
                Ok((LogAddress::Tcp(address), Some(stream.into())))
            }
            Self::UnixStream(path) if lazy => Ok((LogAddress::UnixStream(path), None)),
            Self::UnixStream(path) => {
                let stream = in_time(UnixStream::connect(&path)).await.and_then(UnixStream::into_std);
                let stream = stream.map_err(|error| dial_unix("unix", &path, &error))?;
                Ok((LogAddress::UnixStream(path), Some(stream.into())))
            }
            Self::UnixDatagram(path) => {
                let socket = datagram(&path).map_err(|error| match path == Path::new(JOURNAL_SOCKET) {
                    true => Error::internal("journald is not enabled on this host"),
                    false => dial_unix("unixgram", &path, &error),
                })?;
                Ok((LogAddress::UnixDatagram(path), Some(socket)))
            }
            Self::Syslog => {
                for path in SYSLOG_SOCKETS {
                    if let Ok(socket) = datagram(Path::new(path)) {
                        return Ok((LogAddress::UnixDatagram(path.into()), Some(socket)));
                    }
                    if let Ok(stream) = UnixStream::connect(path).await.and_then(UnixStream::into_std) {
                        return Ok((LogAddress::UnixStream(path.into()), Some(stream.into())));
                    }
                }
                Err(Error::internal("Unix syslog delivery error"))
            }
        }
    }
}

fn datagram(path: &Path) -> io::Result<OwnedFd> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(socket.into_std()?.into())
}

async fn in_time<T>(connect: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(PATIENCE, connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn resolve(protocol: &str, name: &str) -> Result<SocketAddr> {
    let failed = |why: &str| Error::internal(format!("dial {protocol}: lookup {name}: {why}"));
    // A host that is left out is this one, as Go has it.
    if let Some(port) = name.strip_prefix(':') {
        let port = port.parse().map_err(|_| failed("unknown port"))?;
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    let mut found = in_time(tokio::net::lookup_host(name))
        .await
        .map_err(|error| failed(&words(&error)))?
        .collect::<Vec<_>>();
    // Without a better reason the older protocol, as Go's resolver does.
    found.sort_by_key(SocketAddr::is_ipv6);
    found.first().copied().ok_or_else(|| failed("no such host"))
}

fn dial_unix(kind: &str, path: &Path, error: &io::Error) -> Error {
    Error::internal(format!("dial {kind} {}: connect: {}", path.display(), words(error)))
}

/// Adds a port to a host that has none.
fn with_port(host: &str, port: u16) -> String {
    let is_address = host.parse::<Ipv6Addr>().is_ok();
    let (before, after) = host.rsplit_once(':').unwrap_or((host, ""));
    let has_port =
        !is_address && after.parse::<u16>().is_ok() && (!before.contains(':') || before.ends_with(']'));
    match (has_port, is_address) {
        (true, _) => host.to_owned(),
        (false, true) => format!("[{host}]:{port}"),
        (false, false) => format!("{host}:{port}"),
    }
}
