//! Answers: JSON, text, nothing, streams.

use std::future::ready;
use std::io;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use ponton_api::version;
use serde::Serialize;

use crate::hijack::Hijack;
use crate::json_array::Array;
use crate::shutdown::Shutdown;
use crate::websocket::WebSocket;

/// The body of an answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What a handler makes of a request.
pub(crate) enum Answer {
    /// An HTTP answer.
    Http(Response<Body>),
    /// The connection leaves HTTP.
    Hijack(Hijack),
    /// The connection becomes a WebSocket.
    WebSocket(WebSocket),
}

impl From<Response<Body>> for Answer {
    fn from(response: Response<Body>) -> Self {
        Self::Http(response)
    }
}

/// The header `Server`.
pub(crate) const SERVER: &str = concat!("Ponton/", env!("CARGO_PKG_VERSION"), " (linux)");

pub(crate) const JSON: &str = "application/json";
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";
pub(crate) const TAR: &str = "application/x-tar";

/// The headers that every answer has.
pub(crate) fn add_common_headers(headers: &mut HeaderMap, experimental: bool) {
    const API_VERSION: HeaderName = HeaderName::from_static("api-version");
    const EXPERIMENTAL: HeaderName = HeaderName::from_static("docker-experimental");
    const OS_TYPE: HeaderName = HeaderName::from_static("ostype");
    if let Ok(version) = HeaderValue::try_from(version::MAX.to_string()) {
        headers.insert(API_VERSION, version);
    }
    let experimental = HeaderValue::from_static(if experimental { "true" } else { "false" });
    headers.insert(EXPERIMENTAL, experimental);
    headers.insert(OS_TYPE, HeaderValue::from_static("linux"));
    headers.insert(hyper::header::SERVER, HeaderValue::from_static(SERVER));
}

fn response(status: StatusCode, content_type: Option<&'static str>, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if let Some(content_type) = content_type {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    response
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A value as JSON, with the line end that Go's encoder writes.
pub(crate) fn json<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(mut text) => {
            text.push(b'\n');
            response(status, Some(JSON), full(text))
        }
        // Only a map with keys that aren't strings gets here, and the API has none.
        Err(error) => response(StatusCode::INTERNAL_SERVER_ERROR, Some(TEXT), full(error.to_string())),
    }
}

/// A value as JSON, with status 200.
pub(crate) fn ok<T: Serialize + ?Sized>(value: &T) -> Response<Body> {
    json(StatusCode::OK, value)
}

/// An array as JSON, with status 200. Of a long one the client gets the begin while the rest is made.
pub(crate) async fn array<T: Serialize + 'static>(
    items: impl Stream<Item = T> + Send + 'static,
) -> Response<Body> {
    let mut array = Array::new(items);
    let first = array.chunk().await;
    let body = match array.is_whole() {
        true => full(first),
        false => {
            let chunks = futures_util::stream::once(ready(first)).chain(array.rest());
            StreamBody::new(chunks.map(|chunk| Ok(Frame::data(chunk)))).boxed_unsync()
        }
    };
    response(StatusCode::OK, Some(JSON), body)
}

/// A status and nothing else.
pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    response(status, None, Empty::new().map_err(|never| match never {}).boxed_unsync())
}

/// Status 204.
pub(crate) fn no_content() -> Response<Body> {
    empty(StatusCode::NO_CONTENT)
}

/// Plain text.
pub(crate) fn text(text: impl Into<Bytes>) -> Response<Body> {
    response(StatusCode::OK, Some(TEXT), full(text))
}

/// Bytes as they come; the head is sent at once. An error cuts the answer off, so that the client
/// can't take it for whole. The stream ends when the daemon does.
pub(crate) fn stream<S, E>(content_type: &'static str, shutdown: Shutdown, stream: S) -> Response<Body>
where
    S: Stream<Item = Result<Bytes, E>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let frames = stream
        .map(|chunk| chunk.map(Frame::data).map_err(io::Error::other))
        .take_until(Box::pin(shutdown.begun()));
    response(StatusCode::OK, Some(content_type), StreamBody::new(frames).boxed_unsync())
}
