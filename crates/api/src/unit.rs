//! Sizes and durations as Docker's clients and files write them.

/// The text isn't a size or duration. The words are those of Docker's client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUnit {
    /// Not a size.
    #[error("invalid size: '{0}'")]
    Size(String),
    /// What follows the number of a size is no unit.
    #[error("invalid suffix: '{0}'")]
    Suffix(String),
    /// Not a duration.
    #[error("time: invalid duration {0:?}")]
    Duration(String),
    /// A number of a duration stands without unit.
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    /// A unit that no duration has, and the duration.
    #[error("time: unknown unit {0:?} in duration {1:?}")]
    UnknownUnit(String, String),
}

/// Reads a size in bytes with binary units: `64m`, `1.5g`, `1024`, `2GiB`, `10 KB`.
pub fn parse_size(text: &str) -> Result<i64, InvalidUnit> {
    parse_scaled(text, 1024)
}

/// Reads a size in bytes with decimal units, as those of log files: `10m` is 10,000,000.
pub fn parse_decimal_size(text: &str) -> Result<i64, InvalidUnit> {
    parse_scaled(text, 1000)
}

fn parse_scaled(text: &str, base: i64) -> Result<i64, InvalidUnit> {
    let invalid = || InvalidUnit::Size(text.to_owned());
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.').ok_or_else(invalid)? + 1;
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().map_err(|_| invalid())?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return Err(InvalidUnit::Suffix(unit)),
    };
    let bytes = number * base.pow(power) as f64;
    if (0.0..i64::MAX as f64).contains(&bytes) { Ok(bytes as i64) } else { Err(invalid()) }
}

/// Four significant digits and a unit of `base`, as Go's `%.4g` prints them.
fn scaled(mut size: f64, base: f64, units: &[&str], digits: usize) -> String {
    let mut unit = 0;
    while size >= base && unit + 1 < units.len() {
        size /= base;
        unit += 1;
    }
    format!("{}{}", significant(size, digits), units[unit])
}

/// Go's `%.Ng` of a number in 0..10^N.
fn significant(number: f64, digits: usize) -> String {
    let whole = (number as u64).checked_ilog10().map_or(1, |tens| tens as usize + 1);
    let printed = format!("{number:.*}", digits.saturating_sub(if number < 1.0 { 0 } else { whole }));
    if printed.contains('.') {
        printed.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        printed
    }
}

/// Prints a size with decimal units, as `docker images` does: `1.98MB`.
pub fn human_size(bytes: i64) -> String {
    scaled(bytes as f64, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], 3)
}

/// The same with four digits, as `docker stats` does for IO.
pub fn human_size_precise(bytes: i64, digits: usize) -> String {
    scaled(bytes as f64, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], digits)
}

/// Prints a size with binary units, as `docker stats` does: `580KiB`.
pub fn binary_size(bytes: i64) -> String {
    scaled(bytes as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], 4)
}

/// Reads a duration of Go's in nanoseconds: `1h30m`, `1.5s`, `-10ms`, `0`.
pub fn parse_duration(text: &str) -> Result<i64, InvalidUnit> {
    let invalid = || InvalidUnit::Duration(text.to_owned());
    let (negative, mut rest) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let scale = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            "" => return Err(InvalidUnit::MissingUnit(text.to_owned())),
            _ => return Err(InvalidUnit::UnknownUnit(unit.to_owned(), text.to_owned())),
        };
        total += number * scale;
        rest = tail;
    }
    if total >= i64::MAX as f64 {
        return Err(invalid());
    }
    Ok(if negative { -(total as i64) } else { total as i64 })
}

/// Prints a duration as Go does: `1h0m30s`, `1.5s`, `10ms`, `0s`.
pub fn go_duration(duration: std::time::Duration) -> String {
    let nanoseconds = duration.as_nanos();
    let fraction = |scale: u32, unit: &str| {
        let text = format!(
            "{}.{:0width$}",
            nanoseconds / 10_u128.pow(scale),
            nanoseconds % 10_u128.pow(scale),
            width = scale as usize
        );
        format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    match nanoseconds {
        0 => return "0s".into(),
        1..1_000 => return format!("{nanoseconds}ns"),
        1_000..1_000_000 => return fraction(3, "µs"),
        1_000_000..1_000_000_000 => return fraction(6, "ms"),
        _ => {}
    }
    let seconds = duration.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let rest = std::time::Duration::new(seconds % 60, duration.subsec_nanos());
    let text = format!("{}.{:09}", rest.as_secs(), rest.subsec_nanos());
    let rest = format!("{}s", text.trim_end_matches('0').trim_end_matches('.'));
    match (hours, minutes) {
        (0, 0) => rest,
        (0, _) => format!("{minutes}m{rest}"),
        _ => format!("{hours}h{minutes}m{rest}"),
    }
}

/// Prints a span of time in seconds as `docker ps` does: `About a minute`, `3 hours`.
pub fn human_duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds as f64 / 3600.0).round() as i64);
    match seconds {
        ..1 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".into(),
        120..3600 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".into(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_binary_units() {
        let cases = [
            ("32", 32),
            ("32b", 32),
            ("32B", 32),
            ("32k", 32 << 10),
            ("32KiB", 32 << 10),
            ("32kb", 32 << 10),
            ("32 mb", 32 << 20),
            ("1.5g", 3 << 29),
            ("1 KiB", 1 << 10),
            ("1B", 1),
            ("100", 100),
            ("0.5t", 1 << 39),
            ("1p", 1 << 50),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in [
            "", "abc", "-1", "1x", "1kx", "hello", "-32", ".3.kB", " 32", "32 m b", "32m b", "22x", "32bb",
            "9999999p", "1é",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert_eq!(parse_size("1é").unwrap_err().to_string(), "invalid suffix: 'é'");
        assert_eq!(parse_size("m").unwrap_err().to_string(), "invalid size: 'm'");
    }

    #[test]
    fn durations_are_printed_as_go_does() {
        for (nanoseconds, expected) in [
            (0, "0s"),
            (7, "7ns"),
            (1_500, "1.5µs"),
            (10_000_000, "10ms"),
            (2_000_000_000, "2s"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (3_661_020_000_000, "1h1m1.02s"),
        ] {
            assert_eq!(go_duration(std::time::Duration::from_nanos(nanoseconds)), expected);
        }
    }

    #[test]
    fn sizes_are_printed() {
        assert_eq!(human_size(0), "0B");
        assert_eq!(human_size(999), "999B");
        assert_eq!(human_size(1_984_230), "1.98MB");
        assert_eq!(human_size(10_000_000), "10MB");
        assert_eq!(binary_size(593_920), "580KiB");
        assert_eq!(binary_size(25_274_793_984), "23.54GiB");
        assert_eq!(binary_size(64 << 20), "64MiB");
    }

    #[test]
    fn durations_are_gos() {
        let cases = [
            ("0", 0),
            ("1h30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            ("100ms", 100_000_000),
            ("-1s", -1_000_000_000),
            ("-10ms", -10_000_000),
            ("3us", 3000),
        ];
        for (text, nanoseconds) in cases {
            assert_eq!(parse_duration(text), Ok(nanoseconds), "{text}");
        }
        for text in ["", "3", "5", "1x", "s", "-", "1d", "1s2", "--1s", "."] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(parse_duration("5").unwrap_err().to_string(), "time: missing unit in duration \"5\"");
        assert_eq!(
            parse_duration("1x").unwrap_err().to_string(),
            "time: unknown unit \"x\" in duration \"1x\""
        );
    }

    #[test]
    fn spans_read_as_dockers() {
        let cases = [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (120, "2 minutes"),
            (3600, "About an hour"),
            (5399, "About an hour"),
            (5400, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (14 * 86400, "2 weeks"),
            (60 * 86400, "2 months"),
            (730 * 86400, "2 years"),
        ];
        for (seconds, text) in cases {
            assert_eq!(human_duration(seconds), text);
        }
    }
}
