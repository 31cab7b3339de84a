//! Where errors are told: one line on the standard error, and runc's log that engines read.

use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

/// What the options say about the log.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    /// The file; without one, the standard error.
    pub(crate) file: Option<PathBuf>,
    /// JSON lines instead of text.
    pub(crate) is_json: bool,
    /// What is done is told too.
    pub(crate) debug: bool,
}

impl Log {
    /// Tells why the command failed.
    pub(crate) fn error(&self, message: &str) {
        match &self.file {
            Some(_) => {
                self.write("error", message);
                eprintln!("ponton-runtime: {message}");
            }
            None if self.is_json => self.write("error", message),
            None => eprintln!("ponton-runtime: {message}"),
        }
    }

    /// Tells what went wrong and does not end the command.
    pub(crate) fn warning(&self, message: &str) {
        match (&self.file, self.is_json) {
            (None, false) => eprintln!("ponton-runtime: warning: {message}"),
            _ => self.write("warning", message),
        }
    }

    /// Tells what is done, line by line, if that is wanted.
    pub(crate) fn debug(&self, what: &impl std::fmt::Display) {
        if self.debug {
            what.to_string().lines().for_each(|line| self.write("debug", line));
        }
    }

    fn write(&self, level: &str, message: &str) {
        let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let line = match self.is_json {
            true => json!({"level": level, "msg": message, "time": time}).to_string(),
            false => format!("time={time:?} level={level} msg={message:?}"),
        };
        let written = match &self.file {
            None => writeln!(std::io::stderr(), "{line}"),
            Some(path) => {
                let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
                file.and_then(|mut file| writeln!(file, "{line}"))
            }
        };
        if let (Err(error), Some(path)) = (written, &self.file) {
            eprintln!("ponton-runtime: write the log {}: {error}", path.display());
        }
    }
}
