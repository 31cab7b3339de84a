//! The caller's terminal: raw mode, its size, detach keys.

use std::io::{self, IsTerminal};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};

use crate::error::Error;
use crate::output;

/// Raw mode of standard input, ended when this is dropped.
#[derive(Debug)]
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Makes standard input raw if it is a terminal.
    pub(crate) fn enter() -> Result<Option<Self>, Error> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let error = |source: rustix::io::Errno| Error::file("set raw mode of", "/dev/stdin", source.into());
        let before = tcgetattr(&stdin).map_err(error)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).map_err(error)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // The terminal may be gone: then there is nothing to restore.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Standard input without echo, until this is dropped.
#[derive(Debug)]
struct Unseen {
    before: Termios,
}

impl Unseen {
    fn enter() -> Result<Self, Error> {
        let error = |source: rustix::io::Errno| Error::file("hide the input of", "/dev/stdin", source.into());
        let before = tcgetattr(io::stdin()).map_err(error)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Now, &silent).map_err(error)?;
        Ok(Self { before })
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        // The terminal may be gone: then there is nothing to restore.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Asks the user for a line; what is typed is shown if `echo`. Ctrl-C leaves the terminal as it was.
pub(crate) async fn ask(prompt: &str, echo: bool) -> Result<String, Error> {
    let unseen = if echo { None } else { Some(Unseen::enter()?) };
    output::print(prompt)?;
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    });
    let line = tokio::select! {
        line = read => line.map_err(io::Error::other).flatten(),
        number = last_signal() => {
            drop(unseen);
            output::print("\n")?;
            return Err(Error::Exit(128 + number));
        }
    };
    if unseen.is_some() {
        output::print("\n")?;
    }
    line.map_err(|source| Error::file("read", "/dev/stdin", source))
}

/// The first of the signals that end a program, while the terminal is not as it was and must be
/// restored.
pub(crate) async fn last_signal() -> u8 {
    let wait = async |kind: SignalKind| match signal(kind) {
        Ok(mut stream) => {
            stream.recv().await;
            kind.as_raw_value() as u8
        }
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        number = wait(SignalKind::hangup()) => number,
        number = wait(SignalKind::interrupt()) => number,
        number = wait(SignalKind::quit()) => number,
        number = wait(SignalKind::terminate()) => number,
    }
}

/// Rows and columns of the terminal, if standard output is one.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

pub(crate) const NO_TTY: &str = "the input device is not a TTY";

/// Refuses `-t` with a standard input that is not a terminal.
pub(crate) fn check_input(attach_stdin: bool, tty: bool) -> Result<(), Error> {
    if attach_stdin && tty && !io::stdin().is_terminal() {
        return Err(Error::invalid(NO_TTY));
    }
    Ok(())
}

/// The keys that leave a container running: `ctrl-p,ctrl-q`, `a`, `ctrl-@`.
#[derive(Debug)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// Parses `text`; empty is the default.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let text = if text.is_empty() { "ctrl-p,ctrl-q" } else { text };
        let keys = text.split(',').map(key).collect::<Option<Vec<u8>>>();
        let keys = keys.ok_or_else(|| Error::invalid(format!("Invalid detach keys ({text}) provided")))?;
        Ok(Self { keys, matched: 0 })
    }

    /// Passes `input` on to `output`, holding back what may become the keys; true once they were pressed.
    pub(crate) fn filter(&mut self, input: &[u8], output: &mut Vec<u8>) -> bool {
        for byte in input {
            if *byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return true;
                }
                continue;
            }
            output.extend_from_slice(&self.keys[..self.matched]);
            self.matched = usize::from(*byte == self.keys[0]);
            if self.matched == 0 {
                output.push(*byte);
            } else if self.keys.len() == 1 {
                return true;
            }
        }
        false
    }
}

fn key(text: &str) -> Option<u8> {
    if let Some(letter) = text.strip_prefix("ctrl-") {
        return match letter.as_bytes() {
            [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
            [b'@'] => Some(0),
            [b'['] => Some(27),
            [b'\\'] => Some(28),
            [b']'] => Some(29),
            [b'^'] => Some(30),
            [b'_'] => Some(31),
            _ => None,
        };
    }
    match text.as_bytes() {
        [letter] => Some(*letter),
        _ if text == "DEL" => Some(127),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(keys: &str, chunks: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut keys = DetachKeys::parse(keys).unwrap();
        let mut output = Vec::new();
        for chunk in chunks {
            if keys.filter(chunk, &mut output) {
                return (output, true);
            }
        }
        (output, false)
    }

    #[test]
    fn detach_keys_are_held_back_until_they_are_whole() {
        assert_eq!(run("", &[b"ab\x10", b"\x11cd"]), (b"ab".to_vec(), true));
        assert_eq!(run("", &[b"\x10", b"x"]), (b"\x10x".to_vec(), false));
        assert_eq!(run("", &[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
        assert_eq!(run("x", &[b"abx"]), (b"ab".to_vec(), true));
        assert!(DetachKeys::parse("ctrl-p,nope").is_err());
    }
}
