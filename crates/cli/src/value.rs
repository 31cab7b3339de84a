//! Values of flags, read as docker reads them: booleans, sizes, durations, decimals, limits.

use ponton_api::container::{InvalidUlimit, Ulimit};
use ponton_api::unit;

/// Go's `strconv.ParseBool`.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

pub(crate) fn check_bool(text: &str) -> Result<(), String> {
    match parse_bool(text) {
        Some(_) => Ok(()),
        None => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

pub(crate) fn parse_int(text: &str) -> Result<i64, String> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    i64::from_str_radix(digits, radix).map_err(|source| {
        let reason = match source.kind() {
            std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.ParseInt: parsing {text:?}: {reason}")
    })
}

pub(crate) fn check_int(text: &str) -> Result<(), String> {
    parse_int(text).map(drop)
}

pub(crate) fn check_uint16(text: &str) -> Result<(), String> {
    text.parse::<u16>().map(drop).map_err(|_| format!("strconv.ParseUint: parsing {text:?}: invalid syntax"))
}

/// A size in bytes, with units of 1024: `512m`, `1.5GiB`, `100`.
pub(crate) fn parse_bytes(text: &str) -> Result<i64, String> {
    unit::parse_size(text).map_err(|error| error.to_string())
}

pub(crate) fn check_bytes(text: &str) -> Result<(), String> {
    parse_bytes(text).map(drop)
}

/// A size, or -1 for "no limit".
pub(crate) fn check_swap(text: &str) -> Result<(), String> {
    if text == "-1" { Ok(()) } else { check_bytes(text) }
}

/// A number of CPUs in billionths: `1.5` is 1500000000.
pub(crate) fn parse_nano_cpus(text: &str) -> Result<i64, String> {
    let invalid = || format!("failed to parse {text} as a rational number");
    let (numerator, denominator) = match text.split_once('/') {
        Some((left, right)) => {
            (left, right.parse::<u32>().ok().filter(|right| *right > 0).ok_or_else(invalid)?)
        }
        None => (text, 1),
    };
    let (whole, fraction) = numerator.split_once('.').unwrap_or((numerator, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains(['+', '-']) {
        return Err(invalid());
    }
    if fraction.trim_end_matches('0').len() > 9 {
        return Err("value is too precise".to_owned());
    }
    let fraction_nano: i64 = format!("{fraction:0<9}")[..9].parse().map_err(|_| invalid())?;
    let whole_value: i64 =
        if whole.is_empty() || whole == "-" { 0 } else { whole.parse().map_err(|_| invalid())? };
    let sign = if whole.starts_with('-') { -1 } else { 1 };
    whole_value
        .checked_mul(1_000_000_000)
        .and_then(|nano| nano.checked_add(sign * fraction_nano))
        .map(|nano| nano / i64::from(denominator))
        .ok_or_else(invalid)
}

pub(crate) fn check_cpus(text: &str) -> Result<(), String> {
    parse_nano_cpus(text).map(drop)
}

/// Go's `time.ParseDuration`, in nanoseconds: `1h30m`, `1.5s`, `100ms`. An empty value is none.
pub(crate) fn parse_duration(text: &str) -> Result<i64, String> {
    if text.is_empty() { Ok(0) } else { unit::parse_duration(text).map_err(|error| error.to_string()) }
}

pub(crate) fn check_duration(text: &str) -> Result<(), String> {
    parse_duration(text).map(drop)
}

/// `name=soft[:hard]`.
pub(crate) fn parse_ulimit(text: &str) -> Result<Ulimit, String> {
    let (name, limits) = text.split_once('=').ok_or_else(|| format!("invalid ulimit argument: {text}"))?;
    let name = name.to_owned();
    if !Ulimit::NAMES.contains(&name.as_str()) {
        return Err(InvalidUlimit::Name(name).to_string());
    }
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let ulimit = Ulimit { name, soft: parse_int(soft)?, hard: parse_int(hard)? };
    ulimit.check().map_err(|error| error.to_string())?;
    Ok(ulimit)
}

pub(crate) fn check_ulimit(text: &str) -> Result<(), String> {
    parse_ulimit(text).map(drop)
}

/// `KEY=VALUE`, or `KEY` to take the caller's value.
pub(crate) fn check_env(text: &str) -> Result<(), String> {
    match text.split_once('=').map_or(text, |(key, _)| key) {
        "" => Err(format!("invalid environment variable: {text}")),
        _ => Ok(()),
    }
}

pub(crate) fn check_label(text: &str) -> Result<(), String> {
    match text.split_once('=').map_or(text, |(key, _)| key) {
        "" => Err(format!("invalid label '{text}': empty name")),
        _ => Ok(()),
    }
}

/// `key=value`.
pub(crate) fn check_pair(text: &str) -> Result<(), String> {
    if text.contains('=') { Ok(()) } else { Err(format!("{text} must be formatted as key=value")) }
}

/// The fields between commas, as Go reads a line of CSV: a field in double quotes may have commas.
pub(crate) fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = (!text.is_empty()).then_some(text);
    while let Some(here) = rest {
        let field;
        (field, rest) = match here.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => plain_field(here)?,
        };
        fields.push(field);
    }
    Ok(fields)
}

/// A field, and what is behind its comma if it has one.
type Field<'a> = (String, Option<&'a str>);

fn plain_field(text: &str) -> Result<Field<'_>, String> {
    let (field, rest) = match text.split_once(',') {
        Some((field, rest)) => (field, Some(rest)),
        None => (text, None),
    };
    if field.contains('"') {
        return Err("parse error on line 1: bare \" in non-quoted field".to_owned());
    }
    Ok((field.to_owned(), rest))
}

/// The same, behind the field's first quote.
fn quoted_field(mut text: &str) -> Result<Field<'_>, String> {
    let strange = || "parse error on line 1: extraneous or missing \" in quoted-field".to_owned();
    let mut field = String::new();
    loop {
        let (part, rest) = text.split_once('"').ok_or_else(strange)?;
        field.push_str(part);
        match rest.chars().next() {
            None => return Ok((field, None)),
            Some(',') => return Ok((field, Some(&rest[1..]))),
            Some('"') => field.push('"'),
            Some(_) => return Err(strange()),
        }
        text = &rest[1..];
    }
}

pub(crate) fn check_stream(text: &str) -> Result<(), String> {
    match text.to_ascii_lowercase().as_str() {
        "stdin" | "stdout" | "stderr" => Ok(()),
        _ => Err("valid streams are STDIN, STDOUT and STDERR".to_owned()),
    }
}

pub(crate) fn check_filter(text: &str) -> Result<(), String> {
    if text.is_empty() || text.contains('=') { Ok(()) } else { Err(format!("invalid filter '{text}'")) }
}

/// `host:ip` or `host=ip`.
pub(crate) fn check_host(text: &str) -> Result<(), String> {
    let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).unwrap_or((text, ""));
    if name.is_empty() || address.is_empty() {
        return Err(format!("bad format for add-host: {text:?}"));
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if address == "host-gateway" || bare.parse::<std::net::IpAddr>().is_ok() {
        Ok(())
    } else {
        Err(format!("invalid IP address in add-host: {address:?}"))
    }
}

pub(crate) fn check_address(text: &str) -> Result<(), String> {
    if text.trim().parse::<std::net::IpAddr>().is_ok() {
        Ok(())
    } else {
        Err(format!("{text} is not an ip address"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus() {
        for (text, nano) in [
            ("1", 1_000_000_000),
            ("1.5", 1_500_000_000),
            (".5", 500_000_000),
            ("1/2", 500_000_000),
            ("0.01", 10_000_000),
        ] {
            assert_eq!(parse_nano_cpus(text), Ok(nano), "{text}");
        }
        assert_eq!(parse_nano_cpus("x"), Err("failed to parse x as a rational number".to_owned()));
        assert!(parse_nano_cpus("1.0000000001").is_err());
        assert!(parse_nano_cpus("").is_err());
    }

    #[test]
    fn fields_are_read_as_csv() {
        let fields = |text: &str| fields(text).map(|fields| fields.join("|"));
        for (text, joined) in [
            ("", ""),
            ("a", "a"),
            ("a=1,b", "a=1|b"),
            ("a,,b,", "a||b|"),
            ("\"a=1,2\",c", "a=1,2|c"),
            ("x,\"say \"\"hi\"\"\"", "x|say \"hi\""),
        ] {
            assert_eq!(fields(text).as_deref(), Ok(joined), "{text}");
        }
        for text in ["a\"b", "\"a", "\"a\"b,c"] {
            assert!(fields(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ulimits() {
        let ulimit = |name: &str, soft, hard| Ok(Ulimit { name: name.to_owned(), soft, hard });
        assert_eq!(parse_ulimit("nofile=1024:2048"), ulimit("nofile", 1024, 2048));
        assert_eq!(parse_ulimit("core=-1"), ulimit("core", -1, -1));
        for text in ["x", "nosuch=1", "nofile=2:1", "nofile=a"] {
            assert!(parse_ulimit(text).is_err(), "{text}");
        }
    }
}
