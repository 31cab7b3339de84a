//! Errors of a request, and the one table of HTTP statuses.

use hyper::{Method, Response, StatusCode};
use ponton_api::error::ErrorBody;
use ponton_api::filters::InvalidFilters;
use ponton_engine::ErrorKind;
use tracing::{debug, error};

use crate::answer::{self, Body};

/// Why a request failed, with Docker's status.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Error {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// No route has this method and path.
    pub(crate) fn page_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "page not found")
    }

    /// The one log line of a failed request: what the daemon is to blame for as an error.
    pub(crate) fn log(&self, method: &Method, path: &str) {
        if self.status == StatusCode::INTERNAL_SERVER_ERROR {
            error!(%method, path, message = self.message, "request failed");
        } else {
            debug!(%method, path, status = self.status.as_u16(), message = self.message, "request refused");
        }
    }

    /// The answer. A HEAD request has no body to say why.
    pub(crate) fn response(&self, method: Option<&Method>) -> Response<Body> {
        if self.status == StatusCode::NOT_MODIFIED || method == Some(&Method::HEAD) {
            return answer::empty(self.status);
        }
        answer::json(self.status, &ErrorBody { message: self.message.clone() })
    }
}

/// Kinds of errors to statuses: what Docker's clients act on.
fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::NotModified => StatusCode::NOT_MODIFIED,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Cancelled | ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<ponton_engine::Error> for Error {
    fn from(error: ponton_engine::Error) -> Self {
        Self::new(status(error.kind), error.message)
    }
}

impl From<InvalidFilters> for Error {
    fn from(error: InvalidFilters) -> Self {
        Self::invalid(error.to_string())
    }
}
