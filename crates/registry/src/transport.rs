//! One exchange of HTTP: a request, its answer, and the bounds of time around both.

use std::io::{self, Read};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::mpsc;

use crate::config::Limits;
use crate::connect::{self, Connector};
use crate::error::{Error, Result, causes};

/// Bytes that are read from a source at once, and pieces of it that may wait for the network.
const PIECE: usize = 256 << 10;
const PIECES: usize = 3;
/// Connections that are kept for later, and for how long.
const IDLE_CONNECTIONS: usize = 16;
const IDLE_CONNECTION: Duration = Duration::from_secs(30);

/// What could not be read while it was sent.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SourceError(io::Error);

type Outgoing = UnsyncBoxBody<Bytes, SourceError>;

/// What a request carries.
pub(crate) enum Payload<'a> {
    None,
    Bytes(Bytes),
    /// That many bytes of a source, which is opened anew for each attempt.
    Source {
        size: u64,
        open: &'a (dyn Fn() -> io::Result<Box<dyn Read + Send>> + Send + Sync + 'a),
    },
}

impl std::fmt::Debug for Payload<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Payload({} bytes)", self.size())
    }
}

impl Payload<'_> {
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Source { size, .. } => *size,
        }
    }

    fn open(&self, sent: &Arc<AtomicU64>) -> io::Result<Outgoing> {
        Ok(match self {
            Self::None => Empty::new().map_err(|never| match never {}).boxed_unsync(),
            Self::Bytes(bytes) => Full::new(bytes.clone()).map_err(|never| match never {}).boxed_unsync(),
            Self::Source { size, open } => Sending::begin(open()?, *size, sent.clone()).boxed_unsync(),
        })
    }
}

/// A request, to be sent as often as needed.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    /// What is asked for, in errors.
    pub(crate) what: &'a str,
    pub(crate) method: Method,
    pub(crate) url: Uri,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) payload: Payload<'a>,
    /// How long the answer may take once everything is sent.
    pub(crate) wait: Duration,
    /// How many bytes of the payload were handed to the network in the latest attempt.
    pub(crate) sent: Arc<AtomicU64>,
}

/// The head of an answer, and its body to be read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// Where it came from, after redirects.
    pub(crate) url: Uri,
    body: Incoming,
    /// Bytes that come before those of `body`.
    pub(crate) unread: Bytes,
    idle: Duration,
}

/// Sends requests; connections are kept and shared.
#[derive(Debug)]
pub(crate) struct Transport {
    http: legacy::Client<Connector, Outgoing>,
    connector: Connector,
    user_agent: HeaderValue,
    pub(crate) limits: Limits,
}

impl Transport {
    pub(crate) fn new(connector: Connector, user_agent: HeaderValue, limits: Limits) -> Self {
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .http1_max_buf_size(512 << 10)
            .build(connector.clone());
        Self { http, connector, user_agent, limits }
    }

    /// Whether the server of a URL speaks TLS; an error if there is no connection at all.
    pub(crate) async fn speaks_tls(&self, url: &Uri) -> Result<bool> {
        match self.connector.connect(url).await {
            Ok(_) | Err(connect::Error::Certificate(_) | connect::Error::Trust(_)) => Ok(true),
            Err(connect::Error::Tls(_)) => Ok(false),
            Err(error) => Err(no_connection(url, &error)),
        }
    }

    /// Sends a request once, without following redirects.
    pub(crate) async fn send(
        &self,
        ask: &Ask<'_>,
        url: &Uri,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer> {
        ask.sent.store(0, Ordering::Relaxed);
        let source_error = |source| Error::Source { what: ask.what.to_owned(), source };
        let mut request = Request::new(ask.payload.open(&ask.sent).map_err(source_error)?);
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = url.clone();
        let headers = request.headers_mut();
        headers.extend(ask.headers.iter().cloned());
        headers.insert(header::USER_AGENT, self.user_agent.clone());
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if matches!(ask.payload, Payload::None) && ask.method != Method::GET && ask.method != Method::HEAD {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        if let Some(authorization) = authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        if let Some(authorization) = self.connector.proxy_authorization(url) {
            headers.insert(header::PROXY_AUTHORIZATION, authorization);
        }
        let response = self.watch(ask, self.http.request(request)).await?;
        let response = response.map_err(|error| failure(ask.what, url, &error))?;
        let (head, body) = response.into_parts();
        let idle = self.limits.idle;
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            url: url.clone(),
            body,
            unread: Bytes::new(),
            idle,
        })
    }

    /// Waits for an answer as long as something is sent, and then as long as is right.
    async fn watch<T>(&self, ask: &Ask<'_>, answer: impl Future<Output = T>) -> Result<T> {
        let mut answer = pin!(answer);
        let mut sent = 0;
        loop {
            let wait = if sent == ask.payload.size() { ask.wait } else { self.limits.idle };
            if let Ok(answer) = tokio::time::timeout(wait, &mut answer).await {
                return Ok(answer);
            }
            let now = match ask.payload {
                Payload::Source { .. } => ask.sent.load(Ordering::Relaxed),
                _ => ask.payload.size(),
            };
            if now == sent {
                return Err(Error::Timeout { what: ask.what.to_owned(), after: wait });
            }
            sent = now;
        }
    }
}

impl Answer {
    /// The next bytes of the body; `None` at its end.
    pub(crate) async fn next(&mut self, what: &str) -> Option<Result<Bytes>> {
        if !self.unread.is_empty() {
            return Some(Ok(std::mem::take(&mut self.unread)));
        }
        loop {
            let Ok(frame) = tokio::time::timeout(self.idle, self.body.frame()).await else {
                return Some(Err(Error::Timeout { what: what.to_owned(), after: self.idle }));
            };
            match frame?.map(Frame::into_data) {
                Ok(Ok(bytes)) if bytes.is_empty() => {}
                Ok(Ok(bytes)) => return Some(Ok(bytes)),
                // Trailers.
                Ok(Err(_)) => {}
                Err(error) => {
                    return Some(Err(Error::Lost { what: what.to_owned(), reason: causes(&error) }));
                }
            }
        }
    }

    /// The whole body, if it is no longer than `max`.
    pub(crate) async fn whole(&mut self, what: &str, max: u64, within: Duration) -> Result<Vec<u8>> {
        let too_large = || Error::TooLarge { what: what.to_owned(), max };
        if self.content_length().is_some_and(|length| length > max) {
            return Err(too_large());
        }
        let read = async {
            let mut whole = Vec::new();
            while let Some(bytes) = self.next(what).await {
                let bytes = bytes?;
                if (whole.len() + bytes.len()) as u64 > max {
                    return Err(too_large());
                }
                whole.extend_from_slice(&bytes);
            }
            Ok(whole)
        };
        let whole = tokio::time::timeout(within, read).await;
        whole.map_err(|_| Error::Timeout { what: what.to_owned(), after: within })?
    }

    /// A header that is text.
    pub(crate) fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn content_length(&self) -> Option<u64> {
        self.header(header::CONTENT_LENGTH)?.parse().ok()
    }
}

/// What a failed exchange means.
fn failure(what: &str, url: &Uri, error: &legacy::Error) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<connect::Error>() {
            return no_connection(url, error);
        }
        if let Some(SourceError(error)) = error.downcast_ref::<SourceError>() {
            let source = io::Error::new(error.kind(), error.to_string());
            return Error::Source { what: what.to_owned(), source };
        }
        cause = error.source();
    }
    Error::Lost { what: what.to_owned(), reason: causes(error) }
}

fn no_connection(url: &Uri, error: &connect::Error) -> Error {
    let host = url.authority().map(ToString::to_string).unwrap_or_default();
    match error {
        connect::Error::Timeout(after) => Error::Timeout { what: host, after: *after },
        connect::Error::Certificate(_) | connect::Error::Trust(_) => {
            Error::Certificate { host, reason: error.to_string() }
        }
        _ => Error::Connect { host, reason: error.to_string() },
    }
}

/// A body that is read from a source on a thread of its own.
struct Sending {
    pieces: mpsc::Receiver<Result<Bytes, SourceError>>,
    left: u64,
    sent: Arc<AtomicU64>,
}

impl Sending {
    fn begin(source: Box<dyn Read + Send>, size: u64, sent: Arc<AtomicU64>) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES);
        tokio::task::spawn_blocking(move || read(source, size, &sender));
        Self { pieces, left: size, sent }
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = SourceError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SourceError>>> {
        self.pieces.poll_recv(context).map(|piece| {
            Some(piece?.map(|bytes| {
                self.left = self.left.saturating_sub(bytes.len() as u64);
                self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                Frame::data(bytes)
            }))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Reads exactly `size` bytes, after which there must be none. The last piece goes out only when that is known:
/// a registry never gets the whole of something longer.
fn read(mut source: Box<dyn Read + Send>, size: u64, to: &mpsc::Sender<Result<Bytes, SourceError>>) {
    let mut left = size;
    while left > 0 {
        let piece = read_piece(&mut source, left);
        left -= piece.as_ref().map_or(left, |bytes| bytes.len() as u64);
        if to.blocking_send(piece.map_err(SourceError)).is_err() {
            return;
        }
    }
}

fn read_piece(source: &mut dyn Read, left: u64) -> io::Result<Bytes> {
    let size = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
    let mut piece = vec![0; size];
    source.read_exact(&mut piece)?;
    if size as u64 == left && source.read(&mut [0])? != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is longer than its descriptor says"));
    }
    Ok(piece.into())
}
