use std::fmt::Write as _;
use std::io;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyDataStream, BodyExt, Full, StreamBody};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, StatusCode};
use ponton_api::error::ErrorBody;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::stream::JsonStream;
use crate::{Client, Error, Hijacked};

/// The body of a request or an answer.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Bodies of answers that are read whole are bounded: a daemon's JSON is far smaller.
const MAX_JSON_BYTES: usize = 256 << 20;

pub(crate) fn empty() -> Body {
    full(Bytes::new())
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// One call being put together. Nothing is sent before one of the last methods is awaited.
#[derive(Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct Request<'a> {
    client: &'a Client,
    method: Method,
    path: String,
    query: String,
    content: Content,
    headers: Vec<(&'static str, String)>,
}

#[derive(Debug)]
enum Content {
    Empty,
    Json(Bytes),
    Stream(Body, &'static str),
    /// The body could not be written as JSON; told when the request is sent.
    Broken(String),
}

/// An answer whose head has arrived and whose status is a success.
#[derive(Debug)]
pub struct Response {
    path: String,
    inner: hyper::Response<Body>,
}

impl<'a> Request<'a> {
    pub(crate) fn new(client: &'a Client, method: Method, path: String) -> Self {
        Self { client, method, path, query: String::new(), content: Content::Empty, headers: Vec::new() }
    }

    /// Adds `name=value` to the query.
    pub fn query(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.query.push(if self.query.is_empty() { '?' } else { '&' });
        self.query.push_str(name);
        self.query.push('=');
        encode(value.as_ref(), "", &mut self.query);
        self
    }

    /// Adds `name=1` to the query if `value` holds; Docker's parameters are all false by default.
    pub fn flag(self, name: &str, value: bool) -> Self {
        if value { self.query(name, "1") } else { self }
    }

    /// Adds `name=value` to the query if there is a value.
    pub fn maybe(self, name: &str, value: Option<impl AsRef<str>>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// Adds a header.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sends `value` as JSON.
    pub fn json(mut self, value: &impl Serialize) -> Self {
        self.content = match serde_json::to_vec(value) {
            Ok(bytes) => Content::Json(bytes.into()),
            Err(source) => Content::Broken(source.to_string()),
        };
        self
    }

    /// Sends a tar archive as it comes.
    pub fn tar(mut self, bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        let body = StreamBody::new(bytes.map_ok(hyper::body::Frame::data)).boxed_unsync();
        self.content = Content::Stream(body, "application/x-tar");
        self
    }

    /// Sends the request; an answer of 400 and above is an error with the daemon's message.
    pub async fn send(self) -> Result<Response, Error> {
        let path = self.path.clone();
        let inner = self.send_raw().await?;
        Response { path, inner }.or_error().await
    }

    /// Sends the request and reads the answer's JSON.
    pub async fn fetch<T: DeserializeOwned>(self) -> Result<T, Error> {
        self.send().await?.json().await
    }

    /// Sends the request and throws the answer's body away.
    pub async fn done(self) -> Result<(), Error> {
        self.send().await?.bytes().await.map(drop)
    }

    /// Sends the request and takes over its connection.
    pub async fn hijack(self) -> Result<Hijacked, Error> {
        let response = self.header("connection", "Upgrade").header("upgrade", "tcp").send().await?;
        match response.inner.status() {
            StatusCode::SWITCHING_PROTOCOLS => Hijacked::from_response(response.inner, &response.path).await,
            status => Err(Error::NotUpgraded { status: status.as_u16() }),
        }
    }

    async fn send_raw(self) -> Result<hyper::Response<Body>, Error> {
        let Self { client, method, path, query, content, headers } = self;
        let (replay, mut once, kind) = match content {
            Content::Empty => (Bytes::new(), None, None),
            Content::Json(bytes) => (bytes, None, Some("application/json")),
            Content::Stream(body, kind) => (Bytes::new(), Some(body), Some(kind)),
            Content::Broken(message) => return Err(Error::Request { path, message }),
        };
        // These cannot be repeated, or have no body that would say what is wrong with the version.
        if once.is_some() || method == Method::HEAD {
            client.negotiate().await?;
        }
        loop {
            let version = client.version();
            let mut builder = hyper::Request::builder()
                .method(method.clone())
                .uri(format!("/v{version}{path}{query}"))
                .header(HOST, "api")
                .header(hyper::header::USER_AGENT, concat!("Ponton-Client/", env!("CARGO_PKG_VERSION")));
            for (name, value) in &client.headers {
                builder = builder.header(name, value);
            }
            for (name, value) in &headers {
                builder = builder.header(*name, value);
            }
            if let Some(kind) = kind {
                builder = builder.header(CONTENT_TYPE, kind);
            }
            let body = once.take().unwrap_or_else(|| full(replay.clone()));
            let request = builder
                .body(body)
                .map_err(|source| Error::Request { path: path.clone(), message: source.to_string() })?;
            let response = client.exchange(request).await?;
            let now = client.read_version();
            if response.status() != StatusCode::BAD_REQUEST || now.settled && now.number == version {
                return Ok(response);
            }
            match refused_version(response).await {
                Refusal::TooNew(newest) => client.settle_version(newest),
                Refusal::Other(response) => return Ok(response),
            }
        }
    }
}

enum Refusal {
    TooNew(String),
    Other(hyper::Response<Body>),
}

/// Reads a refused request's answer: was it our version that the daemon does not know?
async fn refused_version(response: hyper::Response<Body>) -> Refusal {
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let newest = text.split_once("Maximum supported API version is ").map(|(_, rest)| {
        rest.chars().take_while(|letter| letter.is_ascii_digit() || *letter == '.').collect::<String>()
    });
    match newest {
        Some(newest) => Refusal::TooNew(newest.trim_end_matches('.').to_owned()),
        None => Refusal::Other(hyper::Response::from_parts(parts, full(bytes))),
    }
}

impl Response {
    async fn or_error(self) -> Result<Self, Error> {
        let status = self.inner.status();
        if status.as_u16() < 400 {
            return Ok(self);
        }
        let body = self.bytes().await?;
        let message = match ponton_api::json::from_slice::<ErrorBody>(&body) {
            Ok(body) => body.message,
            Err(_) if body.is_empty() => status.canonical_reason().unwrap_or("unknown error").to_owned(),
            Err(_) => String::from_utf8_lossy(&body).trim().to_owned(),
        };
        Err(Error::Api { status: status.as_u16(), message })
    }

    /// HTTP status; below 400.
    pub fn status(&self) -> u16 {
        self.inner.status().as_u16()
    }

    /// A header of the answer.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.inner.headers().get(name)?.to_str().ok()
    }

    /// Whether the daemon announced Docker's 8-byte frames (API 1.42 and newer do).
    pub fn is_multiplexed(&self) -> bool {
        crate::hijack::is_multiplexed(self.inner.headers())
    }

    /// The whole body.
    pub async fn bytes(self) -> Result<Bytes, Error> {
        let Self { path, inner } = self;
        http_body_util::Limited::new(inner.into_body(), MAX_JSON_BYTES)
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
            .map_err(|source| Error::Read { path, source: io::Error::other(source) })
    }

    /// The whole body, as JSON.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, Error> {
        let path = self.path.clone();
        let bytes = self.bytes().await?;
        // Daemons write names as they are; what does not fit so, a null for a list say, is read with patience.
        serde_json::from_slice(&bytes)
            .or_else(|_| ponton_api::json::from_slice(&bytes))
            .map_err(|source| Error::Decode { path, source })
    }

    /// The body as it comes.
    pub fn stream(self) -> impl Stream<Item = Result<Bytes, Error>> + Send + Unpin {
        let Self { path, inner } = self;
        BodyDataStream::new(inner.into_body())
            .map(move |chunk| chunk.map_err(|source| Error::Read { path: path.clone(), source }))
    }

    /// The body as a sequence of JSON values.
    pub fn json_stream<T: DeserializeOwned>(self) -> JsonStream<T> {
        let path = self.path.clone();
        JsonStream::new(path, BodyDataStream::new(self.inner.into_body()))
    }
}

/// Percent-encodes `text` into `out`, except for unreserved characters and those in `keep`.
pub(crate) fn encode(text: &str, keep: &str, out: &mut String) {
    for byte in text.bytes() {
        let letter = byte as char;
        if letter.is_ascii_alphanumeric() || "-_.~".contains(letter) || keep.contains(letter) {
            out.push(letter);
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// `text` as one segment of a path (image names keep their slashes and colons).
pub(crate) fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    encode(text, "/:@", &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        let client = Client::new("unix:///x".parse().unwrap(), None);
        let request = client
            .get("/containers/json")
            .flag("all", true)
            .flag("size", false)
            .query("filters", r#"{"name":["a b"]}"#)
            .maybe("limit", None::<&str>);
        assert_eq!(request.query, "?all=1&filters=%7B%22name%22%3A%5B%22a%20b%22%5D%7D");
        assert_eq!(segment("a/b:1@x y"), "a/b:1@x%20y");
    }
}
