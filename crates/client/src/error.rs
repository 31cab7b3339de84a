use std::io;

/// What can go wrong with a call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is not one that the client understands.
    #[error("unable to parse docker host `{host}`: {reason}")]
    Host {
        /// The address as given.
        host: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Nobody answers at the address.
    #[error("Cannot connect to the Ponton daemon at {host}. Is the ponton daemon running?")]
    Connect {
        /// The address.
        host: String,
        /// The error of `connect(2)`.
        source: io::Error,
    },
    /// The socket exists, but this user may not use it.
    #[error("permission denied while trying to connect to the Ponton daemon at {host}")]
    Permission {
        /// The address.
        host: String,
        /// The error of `connect(2)`.
        source: io::Error,
    },
    /// The daemon answered with an error.
    #[error("Error response from daemon: {message}")]
    Api {
        /// HTTP status.
        status: u16,
        /// The daemon's text.
        message: String,
    },
    /// The request could not be put together.
    #[error("request {path}: {message}")]
    Request {
        /// Path of the request.
        path: String,
        /// What is wrong with it.
        message: String,
    },
    /// The connection broke.
    #[error("error during connect: {path}: {source}")]
    Transport {
        /// Path of the request.
        path: String,
        /// HTTP's error.
        source: hyper::Error,
    },
    /// The answer's body ended early or could not be read.
    #[error("read the answer to {path}: {source}")]
    Read {
        /// Path of the request.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// The answer is not what the API promises.
    #[error("decode the answer to {path}: {source}")]
    Decode {
        /// Path of the request.
        path: String,
        /// Where in the JSON.
        source: ponton_api::json::Error,
    },
    /// The daemon did not hand over the connection.
    #[error("unable to upgrade to tcp, received {status}")]
    NotUpgraded {
        /// HTTP status.
        status: u16,
    },
}

impl Error {
    /// The HTTP status of the daemon's answer, if there was one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Api { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether the daemon said that the object is not there.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// Whether no daemon could be reached.
    pub fn is_connect(&self) -> bool {
        matches!(self, Self::Connect { .. })
    }
}
