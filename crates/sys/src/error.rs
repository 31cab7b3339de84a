use std::borrow::Cow;
use std::fmt::Display;
use std::io;

/// A call to the kernel that failed: what was attempted, on which object, and the kernel's answer.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {object}: {source}")]
pub struct Error {
    /// The system call or what it was for, `openat2` say.
    pub operation: Cow<'static, str>,
    /// The path, id or name that it was done to.
    pub object: String,
    /// The kernel's answer; it keeps the errno.
    pub source: io::Error,
}

/// The result of a call to the kernel.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `operation` on `object`.
    pub fn new(
        operation: impl Into<Cow<'static, str>>,
        object: impl Display,
        source: impl Into<io::Error>,
    ) -> Self {
        Self { operation: operation.into(), object: object.to_string(), source: source.into() }
    }

    /// For `map_err`: names what was attempted.
    pub fn of<E: Into<io::Error>>(
        operation: impl Into<Cow<'static, str>>,
        object: impl Display,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::new(operation, object, source)
    }

    /// The kernel's error number, if the error came from the kernel.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// The class of the error.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}
