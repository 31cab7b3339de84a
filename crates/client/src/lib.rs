//! Client of the Docker Engine API over a unix socket or TCP.
//!
//! [`Client`] owns the host's address, the API version and the idle keep-alive connections;
//! [`Request`] is one call being put together; the modules named after the API's nouns hold the typed
//! calls. No call is made that the caller did not ask for: our own daemon takes our version, and only a
//! daemon that answers "client version … is too new" makes the client fall back to that daemon's version.
//!
//! Not here: retries, starting a daemon, printing.

mod auth;
mod checkpoint;
mod container;
mod error;
mod exec;
mod hijack;
mod host;
mod image;
mod network;
mod request;
mod stream;
mod system;
mod volume;

pub use container::{AttachOptions, LogsOptions, Waiting};
pub use error::Error;
pub use hijack::Hijacked;
pub use host::Host;
pub use request::{Body, Request, Response};
pub use stream::JsonStream;

use std::collections::BTreeMap;
use std::sync::Mutex;

use http_body_util::BodyExt;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{HeaderName, HeaderValue};
use hyper_util::rt::TokioIo;

use crate::host::HttpSocket;

/// The newest version of the API that this client speaks.
pub const API_VERSION: &str = "1.53";

/// A client of one daemon. Connections are opened when first needed and kept for the next request.
#[derive(Debug)]
pub struct Client {
    host: Host,
    version: Mutex<Version>,
    headers: Vec<(HeaderName, HeaderValue)>,
    idle: Mutex<Vec<SendRequest<Body>>>,
}

#[derive(Debug, Clone)]
struct Version {
    number: String,
    /// The daemon has accepted it, or the user demanded it.
    settled: bool,
}

impl Client {
    /// A client of the daemon at `host`, which is not contacted yet. `version` (`DOCKER_API_VERSION`)
    /// switches the fall-back off.
    pub fn new(host: Host, version: Option<String>) -> Self {
        let settled = version.is_some();
        let number = version.unwrap_or_else(|| API_VERSION.to_owned());
        Self {
            host,
            version: Mutex::new(Version { number, settled }),
            headers: Vec::new(),
            idle: Mutex::new(Vec::new()),
        }
    }

    /// Sends headers with every request. The error says which can't be one.
    pub fn with_headers(mut self, headers: &BTreeMap<String, String>) -> Result<Self, String> {
        for (name, value) in headers {
            let header = (HeaderName::try_from(name), HeaderValue::try_from(value));
            let (Ok(name), Ok(value)) = header else {
                return Err(format!("HttpHeaders: {name}: {value:?} is no HTTP header"));
            };
            self.headers.push((name, value));
        }
        Ok(self)
    }

    /// Where the daemon is.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The API version in use, e.g. `1.53`.
    pub fn version(&self) -> String {
        self.read_version().number
    }

    /// Opens a connection if none is idle, so that "is anybody there" can be asked without a request.
    pub async fn connect(&self) -> Result<(), Error> {
        let sender = self.checkout().await?;
        self.give_back(sender);
        Ok(())
    }

    /// Opens `count` connections beside those that are in use, for calls that will follow at the same time.
    /// What cannot be connected is told by those calls.
    pub async fn connect_ahead(&self, count: usize) {
        for _ in 0..count {
            if let Ok(sender) = self.dial().await {
                self.give_back(sender);
            }
        }
    }

    /// A GET request to `path` (without the version), e.g. `/containers/json`.
    pub fn get(&self, path: impl Into<String>) -> Request<'_> {
        Request::new(self, hyper::Method::GET, path.into())
    }

    /// A POST request.
    pub fn post(&self, path: impl Into<String>) -> Request<'_> {
        Request::new(self, hyper::Method::POST, path.into())
    }

    /// A PUT request.
    pub fn put(&self, path: impl Into<String>) -> Request<'_> {
        Request::new(self, hyper::Method::PUT, path.into())
    }

    /// A HEAD request.
    pub fn head(&self, path: impl Into<String>) -> Request<'_> {
        Request::new(self, hyper::Method::HEAD, path.into())
    }

    /// A DELETE request.
    pub fn delete(&self, path: impl Into<String>) -> Request<'_> {
        Request::new(self, hyper::Method::DELETE, path.into())
    }

    fn read_version(&self) -> Version {
        self.version.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn settle_version(&self, number: String) {
        *self.version.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
            Version { number, settled: true };
    }

    /// Makes sure that the version is one that the daemon takes, for requests that cannot be repeated.
    async fn negotiate(&self) -> Result<(), Error> {
        if self.read_version().settled {
            return Ok(());
        }
        let request = hyper::Request::head("/_ping")
            .header(hyper::header::HOST, "api")
            .body(request::empty())
            .map_err(|source| Error::Request { path: "/_ping".to_owned(), message: source.to_string() })?;
        let response = self.exchange(request).await?;
        let newest = response.headers().get("api-version").and_then(|value| value.to_str().ok());
        match newest {
            Some(newest) if is_older(newest, API_VERSION) => self.settle_version(newest.to_owned()),
            _ => self.settle_version(API_VERSION.to_owned()),
        }
        Ok(())
    }

    /// Sends one request over an idle or a new connection. The connection is taken again once the body
    /// was read to its end.
    async fn exchange(&self, request: hyper::Request<Body>) -> Result<hyper::Response<Body>, Error> {
        let path = request.uri().path().to_owned();
        let mut sender = self.checkout().await?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|source| Error::Transport { path, source })?
            .map(|body| body.map_err(std::io::Error::other).boxed_unsync());
        self.give_back(sender);
        Ok(response)
    }

    async fn checkout(&self) -> Result<SendRequest<Body>, Error> {
        match self.take_idle().await {
            Some(sender) => Ok(sender),
            None => self.dial().await,
        }
    }

    async fn dial(&self) -> Result<SendRequest<Body>, Error> {
        let stream = self.host.dial().await?;
        let (sender, connection) = handshake(TokioIo::new(HttpSocket(stream)))
            .await
            .map_err(|source| Error::Transport { path: self.host.to_string(), source })?;
        tokio::spawn(async move {
            // A connection that breaks shows itself in the request that was using it.
            let _ = connection.with_upgrades().await;
        });
        Ok(sender)
    }

    /// A connection that can take a request; those that are still answering one stay.
    async fn take_idle(&self) -> Option<SendRequest<Body>> {
        // A connection whose answer was just read becomes ready when its task has run.
        for _ in 0..2 {
            {
                let mut idle = self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                idle.retain(|sender| !sender.is_closed());
                if idle.is_empty() {
                    return None;
                }
                if let Some(ready) = idle.iter().position(SendRequest::is_ready) {
                    return Some(idle.swap_remove(ready));
                }
            }
            tokio::task::yield_now().await;
        }
        None
    }

    fn give_back(&self, sender: SendRequest<Body>) {
        if !sender.is_closed() {
            self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(sender);
        }
    }
}

/// Whether API version `left` is older than `right`; what cannot be read counts as newer.
fn is_older(left: &str, right: &str) -> bool {
    let parse = |text: &str| -> Option<(u32, u32)> {
        let (major, minor) = text.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    match (parse(left), parse(right)) {
        (Some(left), Some(right)) => left < right,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_older;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(is_older("1.9", "1.24"));
        assert!(is_older("1.41", "1.53"));
        assert!(!is_older("1.53", "1.53"));
        assert!(!is_older("odd", "1.53"));
    }
}
