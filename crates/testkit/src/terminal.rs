//! A program on a terminal, driven as a person would: type, look, type again.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::wait::{self, PATIENCE};

/// A program with a terminal of its own, 80 columns by 24 rows.
pub struct Terminal {
    master: File,
    child: Child,
    output: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    /// Starts a command in a session of its own with the terminal as controlling terminal.
    pub fn spawn(command: &Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("open a pty");
        grantpt(&master).expect("grantpt");
        unlockpt(&master).expect("unlockpt");
        let name = ptsname(&master, Vec::new()).expect("ptsname");
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).expect("set the size");
        let side = || -> Stdio {
            let file = File::options()
                .read(true)
                .write(true)
                .open(name.to_str().expect("a name"))
                .expect("open the pts");
            OwnedFd::from(file).into()
        };
        let mut in_session = Command::new("setsid");
        in_session.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => in_session.env(key, value),
                None => in_session.env_remove(key),
            };
        }
        let child =
            in_session.stdin(side()).stdout(side()).stderr(side()).spawn().expect("spawn on the terminal");
        let master = File::from(master);
        let mut reader = master.try_clone().expect("clone of the master");
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO: nothing has the other side open any more.
            while let Ok(count) = reader.read(&mut buffer) {
                if count == 0 || sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { master, child, output, seen: String::new() }
    }

    /// Types.
    pub fn send(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("write to the terminal");
    }

    /// Changes the size; the program gets SIGWINCH.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.master, size).expect("set the size");
    }

    /// Changes the size again and again until the program answers with `text`: a client that reads the size before
    /// it catches SIGWINCH, as docker's does, never hears of a change in between.
    #[track_caller]
    pub fn resize_until(&mut self, rows: u16, columns: u16, text: &str) {
        let begin = Instant::now();
        loop {
            self.resize(rows + 1, columns);
            self.resize(rows, columns);
            match self.seen_within(text, Duration::from_millis(500)) {
                Ok(()) => return,
                Err(RecvTimeoutError::Timeout) if begin.elapsed() < PATIENCE => {}
                Err(error) => self.missed(text, error),
            }
        }
    }

    /// Waits until the program has printed `text`, and forgets what came up to it.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        if let Err(error) = self.seen_within(text, PATIENCE) {
            self.missed(text, error);
        }
    }

    fn seen_within(&mut self, text: &str, limit: Duration) -> Result<(), RecvTimeoutError> {
        let begin = Instant::now();
        loop {
            if let Some(position) = self.seen.find(text) {
                self.seen.drain(..position + text.len());
                return Ok(());
            }
            let bytes = self.output.recv_timeout(limit.saturating_sub(begin.elapsed()))?;
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    #[track_caller]
    fn missed(&self, text: &str, error: RecvTimeoutError) -> ! {
        let end = if error == RecvTimeoutError::Disconnected { " before the end" } else { "" };
        panic!("{text:?} did not come{end}; seen: {:?}", self.seen)
    }

    /// Waits for the program's end, and gives its exit code.
    #[track_caller]
    pub fn end(mut self) -> i32 {
        let status =
            wait::until("the program on the terminal to end", || self.child.try_wait().expect("wait"));
        status.code().unwrap_or(-1)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
