//! Writing to standard output and error. A reader that went away ends the program quietly.

use std::io::{self, Write};

use crate::error::Error;

/// Writes to standard output.
pub(crate) fn print(text: &str) -> Result<(), Error> {
    print_bytes(text.as_bytes())
}

/// Writes a line to standard output.
pub(crate) fn print_line(text: &str) -> Result<(), Error> {
    print(&format!("{text}\n"))
}

/// Writes bytes to standard output.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Error> {
    write(io::stdout().lock(), "/dev/stdout", bytes)
}

/// Writes bytes that are the answer, too, to standard error.
pub(crate) fn complain_bytes(bytes: &[u8]) -> Result<(), Error> {
    write(io::stderr().lock(), "/dev/stderr", bytes)
}

fn write(mut to: impl Write, name: &str, bytes: &[u8]) -> Result<(), Error> {
    to.write_all(bytes).and_then(|()| to.flush()).map_err(|source| match source.kind() {
        io::ErrorKind::BrokenPipe => Error::Exit(1),
        _ => Error::file("write", name, source),
    })
}

/// Writes a line to standard error.
pub(crate) fn complain(text: &str) {
    // There is nowhere left to say that standard error is gone.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Asks the user on the terminal; anything but yes is no.
pub(crate) fn confirm(question: &str) -> Result<bool, Error> {
    print(&format!("{question} [y/N] "))?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|source| Error::file("read", "/dev/stdin", source))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Writes to standard error as it is.
pub(crate) fn complain_raw(text: &str) {
    // As above.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
