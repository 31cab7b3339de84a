//! Connections: directly or through a proxy, encrypted or not.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{BoxFuture, Ready, ready};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Uri, header::HeaderValue};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::Error as TlsError;
use tokio_rustls::rustls::pki_types::ServerName;
use tower_service::Service;

use crate::config::Proxy;
use crate::error::causes;
use crate::trust::{Trust, is_loopback};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("connect: {0}")]
    Tcp(String),
    #[error("proxy {0}: {1}")]
    Proxy(String, String),
    #[error("certificates: {0}")]
    Trust(String),
    #[error("the server's certificate is not accepted: {0}")]
    Certificate(TlsError),
    #[error("TLS: {0}")]
    Tls(String),
    #[error("no connection within {} s", .0.as_secs_f32())]
    Timeout(Duration),
}

/// Makes connections.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    tcp: HttpConnector,
    trust: Arc<Trust>,
    proxies: Option<Arc<Matcher>>,
    timeout: Duration,
}

impl Connector {
    pub(crate) fn new(trust: Arc<Trust>, proxy: &Proxy, timeout: Duration) -> Result<Self, crate::Error> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        let proxies = match proxy {
            Proxy::Direct => None,
            Proxy::Environment => Some(Matcher::from_env()),
            Proxy::These { http, https, no_proxy } => {
                check_proxy(http)?;
                check_proxy(https)?;
                Some(
                    Matcher::builder()
                        .http(http.as_str())
                        .https(https.as_str())
                        .no(no_proxy.as_str())
                        .build(),
                )
            }
        };
        Ok(Self { tcp, trust, proxies: proxies.map(Arc::new), timeout })
    }

    /// What the proxy for a URL wants to see in requests that aren't tunnelled.
    pub(crate) fn proxy_authorization(&self, url: &Uri) -> Option<HeaderValue> {
        (url.scheme_str() == Some("http")).then_some(())?;
        self.proxy(url)?.1
    }

    /// A proxy's URL and authorization. This host itself is never reached through one.
    fn proxy(&self, url: &Uri) -> Option<(Uri, Option<HeaderValue>)> {
        if url.host().is_none_or(is_loopback) {
            return None;
        }
        let proxy = self.proxies.as_ref()?.intercept(url)?;
        Some((proxy.uri().clone(), proxy.basic_auth().cloned()))
    }

    /// A connection to the server of a URL.
    pub(crate) async fn connect(&self, url: &Uri) -> Result<Stream, Error> {
        let connect = Box::pin(self.connect_unbounded(url));
        tokio::time::timeout(self.timeout, connect).await.map_err(|_| Error::Timeout(self.timeout))?
    }

    async fn connect_unbounded(&self, url: &Uri) -> Result<Stream, Error> {
        let https = url.scheme_str() == Some("https");
        match self.proxy(url) {
            None => self.dial(url).await,
            Some((proxy, _)) if !matches!(proxy.scheme_str(), Some("http" | "https")) => {
                Err(Error::Proxy(proxy.to_string(), "it is no proxy of HTTP".to_owned()))
            }
            Some((proxy, _)) if !https => Ok(Stream { proxied: true, ..self.dial(&proxy).await? }),
            Some((proxy, authorization)) => {
                let tunnel = Tunnel::new(proxy.clone(), Given(Some(self.dial(&proxy).await?)));
                let mut tunnel = match authorization {
                    Some(authorization) => tunnel.with_auth(authorization),
                    None => tunnel,
                };
                let stream = tunnel.call(url.clone()).await;
                let stream = stream.map_err(|error| Error::Proxy(proxy.to_string(), causes(&error)))?;
                self.encrypt(url, stream.io).await
            }
        }
    }

    /// A connection to the server of a URL with nothing between.
    async fn dial(&self, url: &Uri) -> Result<Stream, Error> {
        let tcp = self.tcp.clone().call(url.clone()).await.map_err(|error| Error::Tcp(causes(&error)))?;
        let io: Box<dyn Io> = Box::new(tcp.into_inner());
        match url.scheme_str() {
            Some("https") => self.encrypt(url, TokioIo::new(io)).await,
            _ => Ok(Stream { io: TokioIo::new(io), proxied: false }),
        }
    }

    async fn encrypt(&self, url: &Uri, io: TokioIo<Box<dyn Io>>) -> Result<Stream, Error> {
        let config = self.trust.config(url).await.map_err(Error::Trust)?;
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(|error| Error::Tls(error.to_string()))?;
        let tls = TlsConnector::from(config).connect(name, io.into_inner()).await;
        let tls = tls.map_err(|error| match error.get_ref().and_then(|cause| cause.downcast_ref()) {
            Some(cause @ TlsError::InvalidCertificate(_)) => Error::Certificate(cause.clone()),
            _ => Error::Tls(causes(&error)),
        })?;
        Ok(Stream { io: TokioIo::new(Box::new(tls)), proxied: false })
    }
}

/// Refuses what the matcher would pass over: nobody who names a proxy wants to be connected directly.
fn check_proxy(url: &str) -> Result<(), crate::Error> {
    let is_usable =
        |url: Uri| url.authority().is_some() && matches!(url.scheme_str(), None | Some("http" | "https"));
    match url.is_empty() || url.parse().is_ok_and(is_usable) {
        true => Ok(()),
        false => {
            let reason = "is no URL of a proxy for HTTP".to_owned();
            Err(crate::Error::Config { what: format!("proxy {:?}", without_user(url)), reason })
        }
    }
}

/// A URL without name and password, to be shown.
fn without_user(url: &str) -> &str {
    url.rsplit_once('@').map_or(url, |(_, host)| host)
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Stream, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { this.connect(&url).await })
    }
}

/// A service that gives the connection that is there already: the tunnel is built in it.
struct Given(Option<Stream>);

impl Service<Uri> for Given {
    type Response = Stream;
    type Error = Error;
    type Future = Ready<Result<Stream, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().ok_or_else(|| Error::Tcp("connection used twice".to_owned())))
    }
}

pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection.
pub(crate) struct Stream {
    io: TokioIo<Box<dyn Io>>,
    proxied: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.proxied)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, buffers)
    }
}
