//! One request, as a handler sees it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use http_body_util::{BodyExt, BodyStream, LengthLimitError, Limited};
use hyper::StatusCode;
use hyper::body::Body;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::http::request::Parts;
use ponton_api::version::ApiVersion;
use ponton_api::{auth, json};
use ponton_engine::Engine;
use ponton_engine::request::ByteSource;
use serde::de::DeserializeOwned;

use crate::body::RequestBody;
use crate::error::{Error, Result};
use crate::query::Query;
use crate::shutdown::Shutdown;

/// The longest JSON that is read.
const MAX_JSON_BYTES: usize = 8 << 20;
/// How long a client may take to send them.
const BODY_TIMEOUT: Duration = Duration::from_secs(120);

/// A request with all that is known of it.
pub(crate) struct Call {
    pub(crate) engine: Arc<Engine>,
    pub(crate) shutdown: Shutdown,
    pub(crate) version: ApiVersion,
    pub(crate) headers: HeaderMap,
    name: String,
    query: Option<String>,
    body: RequestBody,
}

impl Call {
    pub(crate) fn new(
        engine: Arc<Engine>,
        shutdown: Shutdown,
        version: ApiVersion,
        name: String,
        head: Parts,
        body: RequestBody,
    ) -> Self {
        let query = head.uri.query().map(str::to_owned);
        Self { engine, shutdown, version, headers: head.headers, name, query, body }
    }

    /// The name or id in the path.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn query(&self) -> Result<Query> {
        Query::parse(self.query.as_deref())
    }

    /// Who the client is to a registry, by a header that is JSON in base64; what cannot be read counts as
    /// nothing, as with dockerd.
    pub(crate) fn credentials<T: DeserializeOwned + Default>(&self, header: &str) -> T {
        let value = self.headers.get(header).and_then(|value| value.to_str().ok());
        value.map(auth::decode_header).unwrap_or_default()
    }

    /// The body as JSON; it must be called JSON, so that no web page can send it unasked.
    /// No body at all is the default.
    pub(crate) async fn json<T: DeserializeOwned + Default>(&mut self) -> Result<T> {
        let text = self.json_text().await?;
        if text.is_empty() {
            return Ok(T::default());
        }
        json::from_slice(&text).map_err(|error| match error {
            json::Error::Truncated("EOF") => {
                Error::invalid("invalid JSON: got EOF while reading request body")
            }
            json::Error::Trailing => Error::invalid(error.to_string()),
            error => Error::invalid(format!("invalid JSON: {error}")),
        })
    }

    async fn json_text(&mut self) -> Result<bytes::Bytes> {
        if self.body.is_end_stream() {
            return Ok(bytes::Bytes::new());
        }
        let content_type =
            self.headers.get(CONTENT_TYPE).map_or("", |value| value.to_str().unwrap_or("not text"));
        if content_type.split(';').next().unwrap_or_default().trim() != "application/json" {
            return Err(Error::invalid(format!(
                "unsupported Content-Type header ({content_type}): must be 'application/json'"
            )));
        }
        self.short_body().await
    }

    /// The whole body, whatever it is called.
    pub(crate) async fn short_body(&mut self) -> Result<bytes::Bytes> {
        let too_long = || {
            let message = format!("request body is longer than {MAX_JSON_BYTES} bytes");
            Error::new(StatusCode::PAYLOAD_TOO_LARGE, message)
        };
        if self.body.size_hint().lower() > MAX_JSON_BYTES as u64 {
            return Err(too_long());
        }
        let whole = Limited::new(&mut self.body, MAX_JSON_BYTES).collect();
        let Ok(whole) = tokio::time::timeout(BODY_TIMEOUT, whole).await else {
            return Err(Error::new(StatusCode::REQUEST_TIMEOUT, "the request's body did not come in time"));
        };
        match whole {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(too_long()),
            Err(error) => Err(Error::invalid(format!("read request body: {error}"))),
        }
    }

    /// The body as a stream, read no faster than it is used.
    pub(crate) fn into_body(self) -> ByteSource {
        let chunks = BodyStream::new(self.body).filter_map(|frame| async {
            match frame {
                Ok(frame) => frame.into_data().ok().map(Ok),
                Err(error) => Some(Err(io::Error::other(error))),
            }
        });
        Box::pin(chunks)
    }
}
