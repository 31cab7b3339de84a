//! The terminal of the explorer: raw keys in, whole frames out.

use std::io::IsTerminal;

use ponton_api::explore::Exploration;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

use super::frame::frame;
use super::view::{Key, View};
use crate::error::Error;
use crate::output;
use crate::terminal::{self, RawMode};

/// The other screen, without cursor, until this is dropped.
struct OtherScreen;

impl OtherScreen {
    fn enter() -> Result<Self, Error> {
        output::print("\x1b[?1049h\x1b[?25l")?;
        Ok(Self)
    }
}

impl Drop for OtherScreen {
    fn drop(&mut self) {
        // The terminal may be gone: then there is nothing to restore.
        let _ = output::print("\x1b[?25h\x1b[?1049l");
    }
}

/// Whether there is a terminal to explore on.
pub(super) fn is_available() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Shows an image until the user quits.
pub(super) async fn explore(image: Exploration) -> Result<u8, Error> {
    let mut view = View::new(image);
    let error = |source| Error::file("catch", "signals", source);
    let mut resized = signal(SignalKind::window_change()).map_err(error)?;
    let _raw = RawMode::enter()?;
    let _screen = OtherScreen::enter()?;
    let mut stdin = tokio::io::stdin();
    let mut buffer = [0; 256];
    loop {
        draw(&view)?;
        tokio::select! {
            count = stdin.read(&mut buffer) => {
                let count = count.map_err(|source| Error::file("read", "/dev/stdin", source))?;
                if count == 0 || !keys(&buffer[..count]).into_iter().all(|key| view.press(key)) {
                    return Ok(0);
                }
            }
            _ = resized.recv() => {}
            number = terminal::last_signal() => return Err(Error::Exit(128 + number)),
        }
    }
}

fn draw(view: &View) -> Result<(), Error> {
    let (rows, columns) = terminal::size().unwrap_or((24, 80));
    let lines = frame(view, usize::from(rows), usize::from(columns));
    output::print(&format!("\x1b[H{}\x1b[J", lines.join("\r\n")))
}

/// The keys in what a terminal sent at once.
fn keys(bytes: &[u8]) -> Vec<Key> {
    const SEQUENCES: [(&str, Key); 20] = [
        ("\x1b[A", Key::Up),
        ("\x1bOA", Key::Up),
        ("\x1b[B", Key::Down),
        ("\x1bOB", Key::Down),
        ("\x1b[C", Key::Right),
        ("\x1bOC", Key::Right),
        ("\x1b[D", Key::Left),
        ("\x1bOD", Key::Left),
        ("\x1b[H", Key::Home),
        ("\x1bOH", Key::Home),
        ("\x1b[1~", Key::Home),
        ("\x1b[F", Key::End),
        ("\x1bOF", Key::End),
        ("\x1b[4~", Key::End),
        ("\x1b[5~", Key::PageUp),
        ("\x1b[6~", Key::PageDown),
        ("\t", Key::Tab),
        ("\r", Key::Enter),
        ("\x7f", Key::Backspace),
        ("\x08", Key::Backspace),
    ];
    let text = String::from_utf8_lossy(bytes);
    let mut rest: &str = &text;
    let mut keys = Vec::new();
    while let Some(letter) = rest.chars().next() {
        if let Some((sequence, key)) = SEQUENCES.iter().find(|(sequence, _)| rest.starts_with(sequence)) {
            keys.push(*key);
            rest = &rest[sequence.len()..];
            continue;
        }
        rest = &rest[letter.len_utf8()..];
        match letter {
            // A sequence of another key.
            '\x1b' if rest.starts_with(['[', 'O']) => {
                let end = rest[1..].find(|letter: char| letter.is_ascii_alphabetic() || letter == '~');
                rest = end.map_or("", |end| &rest[end + 2..]);
            }
            '\x1b' => keys.push(Key::Escape),
            '\0' => keys.push(Key::Ctrl(' ')),
            '\x01'..='\x1a' => keys.push(Key::Ctrl(char::from(letter as u8 - 1 + b'a'))),
            letter if letter.is_control() => {}
            letter => keys.push(Key::Char(letter)),
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_terminals_send_them() {
        assert_eq!(
            keys(b"\x1b[A\x1bOBj\x1b[5~\t\x01\x1b[1;5Cq\x1b"),
            [
                Key::Up,
                Key::Down,
                Key::Char('j'),
                Key::PageUp,
                Key::Tab,
                Key::Ctrl('a'),
                Key::Char('q'),
                Key::Escape
            ]
        );
        assert_eq!(keys("ä\0\r".as_bytes()), [Key::Char('ä'), Key::Ctrl(' '), Key::Enter]);
        assert_eq!(keys(b"\x1b["), []);
    }
}
