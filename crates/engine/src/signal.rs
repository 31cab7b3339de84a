//! Signals by name and number, as Docker takes them.

use crate::error::{Error, Result};

/// Names without SIG; numbers of x86, arm and most others.
const NAMES: &[(&str, i32)] = &[
    ("ABRT", 6),
    ("ALRM", 14),
    ("BUS", 7),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("FPE", 8),
    ("HUP", 1),
    ("ILL", 4),
    ("INT", 2),
    ("IO", 29),
    ("IOT", 6),
    ("KILL", 9),
    ("PIPE", 13),
    ("POLL", 29),
    ("PROF", 27),
    ("PWR", 30),
    ("QUIT", 3),
    ("SEGV", 11),
    ("STKFLT", 16),
    ("STOP", 19),
    ("SYS", 31),
    ("TERM", 15),
    ("TRAP", 5),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("USR1", 10),
    ("USR2", 12),
    ("VTALRM", 26),
    ("WINCH", 28),
    ("XCPU", 24),
    ("XFSZ", 25),
];

/// The first real-time signal that the C library leaves to programs, and the last.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// The number of a signal: `9`, `KILL`, `SIGKILL`, `RTMIN+3`.
pub(crate) fn parse(text: &str) -> Result<i32> {
    let invalid = || Error::invalid(format!("Invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=RTMAX).contains(&number) { Ok(number) } else { Err(invalid()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(*number);
    }
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => Some(RTMIN),
        (Some(offset), _) => {
            offset.strip_prefix('+').and_then(|n| n.parse::<u8>().ok()).map(|n| RTMIN + i32::from(n))
        }
        (_, Some("")) => Some(RTMAX),
        (_, Some(offset)) => {
            offset.strip_prefix('-').and_then(|n| n.parse::<u8>().ok()).map(|n| RTMAX - i32::from(n))
        }
        _ => None,
    };
    number.filter(|number| (RTMIN..=RTMAX).contains(number)).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for text in ["", "0", "-1", "65", "FOO", "RTMIN+40", "RTMIN-1", "SIG", "9x"] {
            assert_eq!(parse(text).unwrap_err().message, format!("Invalid signal: {text}"));
        }
    }
}
