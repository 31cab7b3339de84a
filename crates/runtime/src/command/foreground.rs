//! A process in the foreground: signals go on to it, its terminal is relayed, and its end is ours.

use std::io::{IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};

use ponton_runtime::apply::Started;
use ponton_sys::pidfd::{self, Exit};
use ponton_sys::pty;
use ponton_sys::signal::Blocked;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::termios::{OptionalActions, Termios};

use super::Failure;
use super::notify::Notify;

/// What a terminal takes for the end of its input, at the begin of a line.
const END_OF_INPUT: u8 = 4;

/// Waits until the process has ended, and reaps it and whatever it left to us. `signals` were blocked
/// before it was started; `notify` is heard as long as it says nothing.
pub(super) fn attend(
    started: &Started,
    master: Option<OwnedFd>,
    notify: Option<&Notify>,
    signals: &Blocked,
) -> Result<Exit, Failure> {
    let queue = signals.queue()?;
    let mut relay = master.map(Relay::new).transpose()?;
    let exit = loop {
        if let Some(exit) = reap(started.pid) {
            break exit;
        }
        let mut fds = vec![PollFd::new(&queue, PollFlags::IN)];
        fds.extend(
            notify.and_then(Notify::socket).map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::IN)),
        );
        match &mut relay {
            Some(relay) => relay.turn(fds)?,
            None => wait_for(&mut fds)?,
        }
        if let Some(notify) = notify {
            notify.hand_on(started.pid)?;
        }
        while let Some(signal) = queue.take() {
            match &relay {
                Some(relay) if signal == Signal::WINCH.as_raw() => relay.take_size(),
                _ if signal == Signal::CHILD.as_raw() => {}
                // It may be gone already; the next turn tells.
                _ => drop(pidfd::send_signal(started.pidfd.as_fd(), signal)),
            }
        }
    };
    if let Some(relay) = &mut relay {
        relay.show()?;
    }
    Ok(exit)
}

/// Reaps everything that has ended; how the process `pid` did, if it was among it.
fn reap(pid: u32) -> Option<Exit> {
    let mut exit = None;
    while let Ok(Some((ended, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if Some(ended) == Pid::from_raw(pid as i32) {
            let code = status.exit_status().map(Exit::Code);
            exit = code.or_else(|| status.terminating_signal().map(Exit::Signal));
        }
    }
    exit
}

fn wait_for(fds: &mut [PollFd<'_>]) -> Result<(), Failure> {
    match poll(fds, None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(format!("poll: {errno}").into()),
    }
}

/// Our own standard streams, and the terminal of the process.
struct Relay {
    master: OwnedFd,
    /// Nobody has the programs' side open any more.
    is_hung_up: bool,
    /// What was typed and not taken yet.
    typed: Vec<u8>,
    /// There is more to be typed.
    is_reading: bool,
    /// How our own terminal was.
    before: Option<Termios>,
}

impl Relay {
    fn new(master: OwnedFd) -> Result<Self, Failure> {
        let before = make_raw().map_err(|errno| format!("make the terminal raw: {errno}"))?;
        let relay = Self { master, is_hung_up: false, typed: Vec::new(), is_reading: true, before };
        relay.take_size();
        Ok(relay)
    }

    /// Gives the terminal the size of our own, if we have one.
    fn take_size(&self) {
        if let Ok((rows, cols)) = pty::size(std::io::stdin()) {
            // Without it programs draw to the size they have.
            let _ = pty::set_size(&self.master, rows, cols);
        }
    }

    /// Waits for something of this, or of the terminals, and does what it is about with these.
    fn turn(&mut self, others: Vec<PollFd<'_>>) -> Result<(), Failure> {
        let stdin = std::io::stdin();
        let mut fds = others;
        let typing = if self.typed.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        if !self.is_hung_up {
            fds.push(PollFd::new(&self.master, PollFlags::IN | typing));
        }
        let reads = self.is_reading && self.typed.is_empty();
        if reads {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        wait_for(&mut fds)?;
        let is_typed = reads && fds.last().is_some_and(|last| !last.revents().is_empty());
        drop(fds);
        if is_typed {
            self.read_typed();
        }
        self.type_in();
        self.show()
    }

    fn read_typed(&mut self) {
        let mut buffer = [0; 4096];
        match rustix::io::read(std::io::stdin(), &mut buffer) {
            Ok(0) | Err(Errno::IO | Errno::BADF) => {
                self.is_reading = false;
                self.typed.push(END_OF_INPUT);
            }
            Ok(length) => self.typed.extend_from_slice(&buffer[..length]),
            // A signal or another reader was faster.
            Err(_) => {}
        }
    }

    fn type_in(&mut self) {
        while !self.typed.is_empty() {
            match rustix::io::write(&self.master, &self.typed) {
                Ok(length) => drop(self.typed.drain(..length)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // Nobody is there to read it.
                Err(_) => self.typed.clear(),
            }
        }
    }

    /// Shows what the programs have written.
    fn show(&mut self) -> Result<(), Failure> {
        let mut buffer = [0; 16384];
        let mut stdout = std::io::stdout().lock();
        loop {
            match rustix::io::read(&self.master, &mut buffer) {
                Ok(0) | Err(Errno::IO) => self.is_hung_up = true,
                Ok(length) => {
                    stdout.write_all(&buffer[..length]).and_then(|()| stdout.flush())?;
                    continue;
                }
                Err(Errno::INTR) => continue,
                Err(_) => {}
            }
            return Ok(());
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // There is nobody to tell.
            let _ = rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Drain, before);
        }
    }
}

/// Makes our own terminal hand on every key; how it was, if we have one.
fn make_raw() -> rustix::io::Result<Option<Termios>> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Ok(None);
    }
    let before = rustix::termios::tcgetattr(&stdin)?;
    let mut raw = before.clone();
    raw.make_raw();
    rustix::termios::tcsetattr(&stdin, OptionalActions::Drain, &raw)?;
    Ok(Some(before))
}
