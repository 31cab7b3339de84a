//! How the child tells that it could not become its program.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ponton_sys as sys;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use crate::Error;

/// The parent's end.
pub(super) struct Reader(OwnedFd);
/// The child's end; execve closes it.
pub(super) struct Writer(OwnedFd);

/// The child stands before its gate.
const READY: u8 = b'R';
/// What the kernel writes in one piece (pipe(7), `PIPE_BUF`).
const REPORT_MAX: usize = 4096;

pub(super) fn pipe() -> Result<(Reader, Writer), sys::Error> {
    let (reader, writer) =
        rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(sys::Error::of("pipe2", "report"))?;
    Ok((Reader(reader), Writer(writer)))
}

impl Reader {
    /// Blocks until the child has executed its program, stands before its gate, or has failed.
    pub(super) fn failure(self) -> Option<Error> {
        let mut report = Vec::new();
        let mut buffer = [0; REPORT_MAX];
        loop {
            match rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut buffer)) {
                Ok(0) | Err(_) => break,
                Ok(length) => report.extend_from_slice(&buffer[..length]),
            }
            if report == [READY] {
                return None;
            }
        }
        (!report.is_empty()).then(|| decode(&report))
    }
}

impl AsFd for Writer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Reader {
    /// Why the go-between has no child.
    pub(super) fn failure_of_go_between(self, writer: Writer) -> Error {
        drop(writer);
        self.failure().unwrap_or_else(|| Error::Step {
            step: "clone".to_owned(),
            source: sys::Error::new("clone3", "the go-between ended", Errno::CHILD),
        })
    }
}

impl Writer {
    pub(super) fn ready(&self) {
        // The parent may be gone: nobody to tell.
        let _ = rustix::io::write(&self.0, &[READY]);
    }

    pub(super) fn fail_and_exit(&self, error: &Error) -> ! {
        // The parent may be gone: nobody to tell.
        let _ = rustix::io::write(&self.0, &encode(error));
        sys::process::exit_now(error.exit_code())
    }
}

/// Class, errno, then the texts, each ended by a null byte.
fn encode(error: &Error) -> Vec<u8> {
    let (class, errno, texts) = match error {
        Error::CommandNotFound { message } => (b'N', 0, vec![message.clone()]),
        Error::CommandNotExecutable { message } => (b'X', 0, vec![message.clone()]),
        Error::NotFound { message } => (b'U', 0, vec![message.clone()]),
        Error::Plan(error) => (b'U', 0, vec![error.to_string()]),
        Error::Step { step, source } => {
            let errno = source.errno().unwrap_or(Errno::IO.raw_os_error());
            (b'S', errno, vec![step.clone(), source.operation.to_string(), source.object.clone()])
        }
    };
    let mut report = vec![class];
    report.extend(errno.to_ne_bytes());
    for text in texts {
        report.extend(text.as_bytes().iter().filter(|byte| **byte != 0).take(1200));
        report.push(0);
    }
    report.truncate(REPORT_MAX);
    report
}

fn decode(report: &[u8]) -> Error {
    let (head, texts) = report.split_at(report.len().min(5));
    let mut texts = texts.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
    let mut text = || texts.next().unwrap_or_default();
    let errno = head.get(1..5).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes);
    match head.first() {
        Some(b'N') => Error::CommandNotFound { message: text() },
        Some(b'X') => Error::CommandNotExecutable { message: text() },
        Some(b'U') => Error::NotFound { message: text() },
        _ => {
            let (step, operation, object) = (text(), text(), text());
            let source = sys::Error::new(operation, object, std::io::Error::from_raw_os_error(errno));
            Error::Step { step, source }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_keeps_class_texts_and_errno() {
        let source = sys::Error::new("move_mount", "/proc", Errno::NOENT);
        let error = Error::Step { step: "mount proc -> /proc (mounts[0])".into(), source };
        let told = decode(&encode(&error));
        assert_eq!(told.to_string(), error.to_string());
        assert!(matches!(told, Error::Step { source, .. } if source.errno() == Some(2)));
        let error = Error::CommandNotFound { message: "exec: \"x\": …".into() };
        assert_eq!(decode(&encode(&error)).exit_code(), 127);
    }

    #[test]
    fn a_long_report_is_cut_not_lost() {
        let source = sys::Error::new("open", "x".repeat(10_000), Errno::NAMETOOLONG);
        let report = encode(&Error::Step { step: "s".repeat(10_000), source });
        assert!(report.len() <= REPORT_MAX);
        assert!(matches!(decode(&report), Error::Step { source, .. } if source.errno() == Some(36)));
    }
}
