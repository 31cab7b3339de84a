//! Waiting for many descriptors at once (epoll(7)), and for signals as one of them.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec};

pub use rustix::event::epoll::EventFlags as Interest;

/// One ready descriptor.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    /// The token it was added with.
    pub token: u64,
    /// What it is ready for; errors and hang-ups are told without being asked for.
    pub events: Interest,
}

/// A set of descriptors to wait for, level-triggered.
///
/// A descriptor must be taken out before it is closed if another process may hold a dup of it: the
/// kernel goes on reporting it otherwise.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
}

impl Epoll {
    /// An empty set, close-on-exec.
    pub fn new() -> io::Result<Self> {
        Ok(Self { fd: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    /// Adds a descriptor.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.fd, fd, EventData::new_u64(token), interest)?)
    }

    /// Changes what a descriptor is waited for.
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.fd, fd, EventData::new_u64(token), interest)?)
    }

    /// Takes a descriptor out.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.fd, fd)?)
    }

    /// Waits until something is ready or the time is over, and puts it into `ready` (emptied
    /// first), at most its capacity at once. A signal ends the wait with nothing.
    pub fn wait(&self, ready: &mut Vec<Ready>, timeout: Option<Duration>) -> io::Result<()> {
        const EMPTY: epoll::Event = epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
        ready.clear();
        let mut events = [EMPTY; 64];
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        let limit = ready.capacity().clamp(1, events.len());
        match epoll::wait(&self.fd, &mut events[..limit], timeout.as_ref()) {
            Ok(count) => {
                ready.extend(
                    events[..count]
                        .iter()
                        .map(|event| Ready { token: event.data.u64(), events: event.flags }),
                );
                Ok(())
            }
            Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Signals as a readable descriptor.
///
/// They are caught, not blocked and not ignored: what this process starts finds default
/// dispositions and an empty mask after `execve`, without anybody having to restore them.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

/// The eventfd that the handler writes to; it lives as long as the process.
static NOTIFY: AtomicI32 = AtomicI32::new(-1);

extern "C" fn notify(_signal: libc::c_int) {
    let one = 1u64;
    // SAFETY: write(2) is async-signal-safe, and the pointer is to 8 readable bytes. errno is
    // restored, because the interrupted code may be about to read it.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(NOTIFY.load(Ordering::Relaxed), (&raw const one).cast(), size_of::<u64>());
        *libc::__errno_location() = errno;
    }
}

extern "C" fn nothing(_signal: libc::c_int) {}

impl Signals {
    /// Catches the signals `wanted`: the descriptor becomes readable when one arrives. Catches
    /// those of `dropped` without telling. May be called once per process.
    pub fn catch(wanted: &[i32], dropped: &[i32]) -> io::Result<Self> {
        let fd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // The handler's own dup: it must never be left with a number that somebody else got.
        let kept = rustix::io::fcntl_dupfd_cloexec(&fd, 3)?;
        let number = kept.as_raw_fd();
        if NOTIFY.compare_exchange(-1, number, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        std::mem::forget(kept);
        for &signal in wanted {
            set_handler(signal, notify)?;
        }
        for &signal in dropped {
            set_handler(signal, nothing)?;
        }
        Ok(Self { fd })
    }

    /// Makes the descriptor unreadable until the next signal.
    pub fn clear(&self) {
        // Nothing to read is as good as having read.
        let _ = rustix::io::read(&self.fd, &mut [0; 8]);
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn set_handler(signal: i32, handler: extern "C" fn(libc::c_int)) -> io::Result<()> {
    // SAFETY: all-zero is a valid sigaction; the handler is a function of the right type that only
    // makes async-signal-safe calls.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_RESTART | libc::SA_NOCLDSTOP;
        libc::sigaction(signal, &raw const action, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_carries_the_token() {
        let epoll = Epoll::new().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        epoll.add(&reader, 42, Interest::IN).unwrap();
        let mut ready = Vec::with_capacity(8);
        epoll.wait(&mut ready, Some(Duration::ZERO)).unwrap();
        assert!(ready.is_empty());
        rustix::io::write(&writer, b"x").unwrap();
        epoll.wait(&mut ready, None).unwrap();
        assert_eq!((ready.len(), ready[0].token), (1, 42));
        epoll.remove(&reader).unwrap();
        epoll.wait(&mut ready, Some(Duration::ZERO)).unwrap();
        assert!(ready.is_empty());
    }

    #[test]
    fn a_caught_signal_is_readable_until_it_is_cleared() {
        let signals = Signals::catch(&[libc::SIGUSR1], &[libc::SIGUSR2]).unwrap();
        let epoll = Epoll::new().unwrap();
        epoll.add(&signals, 1, Interest::IN).unwrap();
        let mut ready = Vec::with_capacity(8);
        let own = rustix::process::getpid();
        rustix::process::kill_process(own, rustix::process::Signal::USR2).unwrap();
        epoll.wait(&mut ready, Some(Duration::ZERO)).unwrap();
        assert!(ready.is_empty());
        rustix::process::kill_process(own, rustix::process::Signal::USR1).unwrap();
        while ready.is_empty() {
            epoll.wait(&mut ready, Some(Duration::from_secs(5))).unwrap();
        }
        signals.clear();
        epoll.wait(&mut ready, Some(Duration::ZERO)).unwrap();
        assert!(ready.is_empty());
    }
}
