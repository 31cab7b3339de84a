//! What the child and its parent tell each other until the program is executed.
//!
//! ```text
//!   child ──► parent   Step(n)       it waits until the parent has done step n of the plan
//!   child ──► parent   Limits        it waits until the parent has set what it has no rights for
//!   child ──► parent   Listener+fd   its seccomp filter notifies on this descriptor; it waits
//!   child ──► parent   Listener(n)   it notifies on its descriptor n, when it may not send it; it waits
//!   child ◄── parent   go on
//!   child ──► parent   Ready         it stands before its gate; it waits until it is on record
//!   child ◄── parent   go on
//!   child ──► parent   a failure     then it ends
//!   child ──► parent   end of file   it executes its program
//! ```

use std::cell::Cell;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use ponton_sys as sys;
use ponton_sys::socket;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::Error;

/// The parent's end.
pub(super) struct Reader(OwnedFd);

/// The child's end; execve closes it.
pub(super) struct Writer<'a> {
    socket: OwnedFd,
    /// From the gate on, failures are for whoever opens it.
    behind_gate: Cell<Option<BorrowedFd<'a>>>,
}

/// What the child tells.
pub(super) enum Message {
    /// It waits until its parent has done this step.
    Step(usize),
    /// It waits until its limits are set.
    Limits,
    /// It waits until somebody listens here.
    Listener(OwnedFd),
    /// It waits until somebody listens on this descriptor of its own.
    ListenerNumber(i32),
    /// It stands before its gate.
    Ready,
    /// It is ending.
    Failure(Error),
    /// It executes its program, or was killed.
    End,
}

const STEP: u8 = b'P';
const LISTENER: u8 = b'L';
const LISTENER_NUMBER: u8 = b'N';
const LIMITS: u8 = b'M';
const READY: u8 = b'R';
const IMMEDIATELY: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
/// The longest message.
const REPORT_MAX: usize = 4096;

pub(super) fn pair<'a>() -> Result<(Reader, Writer<'a>), sys::Error> {
    let (reader, socket) = socket::seqpacket_pair().map_err(sys::Error::of("socketpair", "report"))?;
    Ok((Reader(reader), Writer { socket, behind_gate: Cell::new(None) }))
}

impl Reader {
    /// Blocks until the child tells something.
    pub(super) fn receive(&self) -> Message {
        let mut buffer = [0; REPORT_MAX];
        let received = loop {
            match socket::recv_with_fds(&self.0, &mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        // An end that cannot be read is the end.
        let Ok((length, mut fds)) = received else { return Message::End };
        match (&buffer[..length], fds.pop()) {
            ([], _) => Message::End,
            ([READY], _) => Message::Ready,
            ([LIMITS], _) => Message::Limits,
            ([LISTENER], Some(listener)) => Message::Listener(listener),
            (&[STEP, a, b, c, d], _) => Message::Step(u32::from_le_bytes([a, b, c, d]) as usize),
            (&[LISTENER_NUMBER, a, b, c, d], _) => Message::ListenerNumber(i32::from_le_bytes([a, b, c, d])),
            (report, _) => Message::Failure(decode(report)),
        }
    }

    /// Why the go-between has no child.
    pub(super) fn failure_of_go_between(self, writer: Writer<'_>) -> Error {
        drop(writer);
        match self.receive() {
            Message::Failure(error) => error,
            _ => Error::Step {
                step: "clone".to_owned(),
                source: sys::Error::new("clone3", "the go-between ended", Errno::CHILD),
            },
        }
    }

    /// Lets the child go on.
    pub(super) fn go_on(&self) {
        // The child may be gone: the next message tells.
        let _ = socket::send_with_fds(&self.0, b"G", &[]);
    }
}

impl AsFd for Writer<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl<'a> Writer<'a> {
    /// Whether there is still somebody who listens.
    pub(super) fn is_heard(&self) -> bool {
        let mut socket = [PollFd::new(&self.socket, PollFlags::empty())];
        poll(&mut socket, Some(&IMMEDIATELY)).is_ok() && !socket[0].revents().contains(PollFlags::HUP)
    }

    /// Waits until the parent has done a step.
    pub(super) fn wait_for_step(&self, number: usize) -> Result<(), sys::Error> {
        let [a, b, c, d] = (number as u32).to_le_bytes();
        self.ask(&[STEP, a, b, c, d], &[])
    }

    /// Waits until the parent has set the limits.
    pub(super) fn wait_for_limits(&self) -> Result<(), sys::Error> {
        self.ask(&[LIMITS], &[])
    }

    /// Waits until the parent has handed the listener to whoever listens.
    pub(super) fn hand_over_listener(&self, listener: BorrowedFd<'_>) -> Result<(), sys::Error> {
        self.ask(&[LISTENER], &[listener])
    }

    /// As [`hand_over_listener`](Self::hand_over_listener), with nothing but write(2) and read(2): the
    /// parent takes it by its number (pidfd_getfd(2)), for which it needs the right to trace us.
    pub(super) fn tell_listener(&self, listener: BorrowedFd<'_>) -> Result<(), sys::Error> {
        let failed = |errno| sys::Error::new("ask", "the parent process", errno);
        let [a, b, c, d] = listener.as_raw_fd().to_le_bytes();
        rustix::io::write(&self.socket, &[LISTENER_NUMBER, a, b, c, d]).map_err(failed)?;
        self.read_go().map_err(failed)
    }

    fn ask(&self, message: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), sys::Error> {
        let failed = |error| sys::Error::new("ask", "the parent process", error);
        socket::send_with_fds(&self.socket, message, fds).map_err(failed)?;
        loop {
            match socket::recv_with_fds(&self.socket, &mut [0; 8]) {
                Ok((0, _)) => return Err(failed(Errno::PIPE.into())),
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Stands before the gate, and waits until the parent has kept its record: nobody would find one
    /// whose parent was killed before. What fails from here on is told to `behind_gate`.
    pub(super) fn ready(&self, behind_gate: BorrowedFd<'a>) -> Result<(), sys::Error> {
        let failed = |errno| sys::Error::new("wait", "for the parent process", errno);
        rustix::io::write(&self.socket, &[READY]).map_err(failed)?;
        // By read(2), as at the gate: a filter may be loaded already.
        self.read_go().map_err(failed)?;
        self.behind_gate.set(Some(behind_gate));
        Ok(())
    }

    fn read_go(&self) -> Result<(), Errno> {
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.socket, &mut [0; 1]))? {
            0 => Err(Errno::PIPE),
            _ => Ok(()),
        }
    }

    /// Tells a failure.
    pub(super) fn tell(&self, error: &Error) {
        let to = self.behind_gate.get().unwrap_or(self.socket.as_fd());
        // The reader may be gone: nobody to tell.
        let _ = rustix::io::write(to, &encode(error));
    }

    /// Tells a failure and ends.
    pub(super) fn fail_and_exit(&self, error: &Error) -> ! {
        self.tell(error);
        sys::process::exit_now(error.exit_code())
    }
}

/// Reads, from the end of a pipe whose other end the child has behind its gate, why it did not
/// execute its program. Blocks until it has, or could not.
pub fn await_program(report: OwnedFd) -> Result<(), Error> {
    let mut text = Vec::new();
    // What cannot be read was not told.
    let _ = File::from(report).take(REPORT_MAX as u64).read_to_end(&mut text);
    if text.is_empty() { Ok(()) } else { Err(decode(&text)) }
}

/// Class, errno, then the texts, each ended by a null byte.
fn encode(error: &Error) -> Vec<u8> {
    let (class, errno, texts) = match error {
        Error::CommandNotFound { message } => (b'N', 0, vec![message.clone()]),
        Error::CommandNotExecutable { message } => (b'X', 0, vec![message.clone()]),
        Error::NotFound { message } => (b'U', 0, vec![message.clone()]),
        Error::Plan(error) => (b'U', 0, vec![error.to_string()]),
        Error::Hook { hook, message } => (b'H', 0, vec![hook.clone(), message.clone()]),
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
        Some(b'H') => {
            let (hook, message) = (text(), text());
            Error::Hook { hook, message }
        }
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
        let error = Error::Hook { hook: "hooks.createContainer[0] /h".into(), message: "exit".into() };
        assert_eq!(decode(&encode(&error)).to_string(), error.to_string());
    }

    #[test]
    fn a_long_report_is_cut_not_lost() {
        let source = sys::Error::new("open", "x".repeat(10_000), Errno::NAMETOOLONG);
        let report = encode(&Error::Step { step: "s".repeat(10_000), source });
        assert!(report.len() <= REPORT_MAX);
        assert!(matches!(decode(&report), Error::Step { source, .. } if source.errno() == Some(36)));
    }

    #[test]
    fn the_child_is_asked_step_by_step() {
        let (reader, writer) = pair().unwrap();
        reader.go_on();
        writer.wait_for_step(0x0102).unwrap();
        assert!(matches!(reader.receive(), Message::Step(0x0102)));
        reader.go_on();
        writer.wait_for_limits().unwrap();
        assert!(matches!(reader.receive(), Message::Limits));
        reader.go_on();
        writer.hand_over_listener(rustix::stdio::stdin()).unwrap();
        assert!(matches!(reader.receive(), Message::Listener(_)));
        reader.go_on();
        writer.tell_listener(rustix::stdio::stderr()).unwrap();
        assert!(matches!(reader.receive(), Message::ListenerNumber(2)));
        reader.go_on();
        writer.ready(rustix::stdio::stderr()).unwrap();
        assert!(matches!(reader.receive(), Message::Ready));
        drop(writer);
        assert!(matches!(reader.receive(), Message::End));
    }

    #[test]
    fn a_child_without_a_parent_does_not_wait_at_its_gate() {
        let (reader, writer) = pair().unwrap();
        rustix::net::shutdown(&reader.0, rustix::net::Shutdown::Write).unwrap();
        assert!(writer.ready(rustix::stdio::stderr()).is_err());
        assert!(writer.behind_gate.get().is_none());
    }
}
