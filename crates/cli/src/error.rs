use std::io;

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The daemon refused, or could not be reached.
    #[error(transparent)]
    Client(#[from] ponton_client::Error),
    /// A local file or stream.
    #[error("{operation} {path}: {}", reason(source))]
    File { operation: &'static str, path: String, source: io::Error },
    /// What the user gave cannot be.
    #[error("{0}")]
    Invalid(String),
    /// Help was printed instead of running, because the words do not fit the command.
    #[error("{text}")]
    Usage { text: String, code: u8 },
    /// An error of `run`, `create`, … which name themselves and have Docker's exit codes.
    #[error("ponton: {source}\n\nRun 'ponton {command} --help' for more information")]
    Named { command: &'static str, source: Box<Error>, code: u8 },
    /// An error, and what to do about it.
    #[error("{source}\n\nHint: {hint}")]
    Advised { source: Box<Error>, hint: String },
    /// Everything there is to say was said.
    #[error("exit code {0}")]
    Exit(u8),
}

impl Error {
    pub(crate) fn file(operation: &'static str, path: impl Into<String>, source: io::Error) -> Self {
        Self::File { operation, path: path.into(), source }
    }

    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid(text.into())
    }

    /// The exit code of the whole program.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Advised { source, .. } => source.code(),
            Self::Usage { code, .. } | Self::Named { code, .. } | Self::Exit(code) => *code,
            _ => 1,
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Client(source) if source.is_not_found())
    }
}

/// The system's reason in its usual words: `no such file or directory`.
pub(crate) fn reason(source: &io::Error) -> String {
    let text = source.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}
