//! Times of `--since` and `--until`, read as docker's client reads them; errors have the words of Go's `time.Parse`.

use jiff::civil::Date;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use crate::value::parse_duration;

/// A duration before `now`, a date with or without a time and a zone, or seconds since 1970; as
/// `seconds.nanoseconds`.
pub(crate) fn parse(text: &str, now: Timestamp) -> Result<String, String> {
    if text != "0"
        && let Ok(ago) = parse_duration(text)
    {
        let then = now.checked_sub(SignedDuration::from_nanos(ago));
        return then.map(seconds).map_err(|_| format!("invalid duration {text:?}"));
    }
    match parse_date(text) {
        Ok(time) => Ok(seconds(time)),
        // With a dash it was meant for a date.
        Err(reason) if text.contains('-') => Err(reason),
        Err(_) if is_unix(text) => Ok(text.to_owned()),
        Err(_) => Err(format!("failed to parse value as time or duration: {text:?}")),
    }
}

fn seconds(time: Timestamp) -> String {
    format!("{}.{:09}", time.as_second(), time.subsec_nanosecond())
}

/// Seconds since 1970, with a fraction or without.
fn is_unix(text: &str) -> bool {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    seconds.parse::<i64>().is_ok() && fraction.parse::<i64>().is_ok()
}

/// The layout that a text is to have: as long as the text's own, with a zone if that has one.
fn layout(text: &str) -> (&'static str, bool) {
    let has_zone = text.contains(['z', 'Z', '+']) || text.matches('-').count() == 3;
    let mut colons = text.matches(':').count();
    // That of the zone.
    if has_zone && !text.contains(['z', 'Z']) {
        colons = colons.saturating_sub(1);
    }
    let layout = match colons {
        _ if text.contains('.') => "2006-01-02T15:04:05",
        _ if !text.contains('T') => "2006-01-02",
        0 => "2006-01-02T15",
        1 => "2006-01-02T15:04",
        _ => "2006-01-02T15:04:05",
    };
    (layout, has_zone)
}

struct Reading<'a> {
    text: &'a str,
    /// With the zone.
    layout: String,
    rest: &'a str,
}

impl Reading<'_> {
    fn mismatch(&self, element: &str) -> String {
        format!(
            "parsing time {:?} as {:?}: cannot parse {:?} as {element:?}",
            self.text, self.layout, self.rest
        )
    }

    fn out_of_range(&self, what: &str) -> String {
        format!("parsing time {:?}: {what} out of range", self.text)
    }

    /// A number in the place of `element`: of as many digits, but for the hour, which may have one.
    fn number(&mut self, element: &str) -> Result<u16, String> {
        let bytes = self.rest.as_bytes();
        let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
        let wanted = if element == "15" && is_digit(0) && !is_digit(1) { 1 } else { element.len() };
        if !(0..wanted).all(is_digit) {
            return Err(self.mismatch(element));
        }
        let (digits, rest) = self.rest.split_at(wanted);
        let number = digits.parse().map_err(|_| self.mismatch(element))?;
        self.rest = rest;
        Ok(number)
    }

    /// What stands between the numbers.
    fn mark(&mut self, mark: &str) -> Result<(), String> {
        self.rest = self.rest.strip_prefix(mark).ok_or_else(|| self.mismatch(mark))?;
        Ok(())
    }

    /// Digits after the seconds: nanoseconds.
    fn fraction(&mut self) -> i32 {
        let Some(after) = self.rest.strip_prefix(['.', ',']) else { return 0 };
        let length = after.bytes().take_while(u8::is_ascii_digit).count();
        if length == 0 {
            return 0;
        }
        self.rest = &after[length..];
        format!("{:0<9.9}", &after[..length]).parse().unwrap_or(0)
    }

    fn zone(&mut self) -> Result<TimeZone, String> {
        const ELEMENT: &str = "Z07:00";
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(TimeZone::UTC);
        }
        let bytes = self.rest.as_bytes();
        let (sign, hours, minutes) = match bytes {
            [sign @ (b'+' | b'-'), a, b, b':', c, d, ..]
                if [a, b, c, d].iter().all(|digit| digit.is_ascii_digit()) =>
            {
                let number = |tens: u8, ones: u8| i32::from(tens - b'0') * 10 + i32::from(ones - b'0');
                (if *sign == b'-' { -1 } else { 1 }, number(*a, *b), number(*c, *d))
            }
            _ => return Err(self.mismatch(ELEMENT)),
        };
        let offset =
            (hours <= 24 && minutes < 60).then(|| Offset::from_seconds(sign * (hours * 60 + minutes) * 60));
        let offset = offset.and_then(Result::ok).ok_or_else(|| self.out_of_range("time zone offset"))?;
        self.rest = &self.rest[6..];
        Ok(TimeZone::fixed(offset))
    }
}

fn parse_date(text: &str) -> Result<Timestamp, String> {
    let (layout, has_zone) = layout(text);
    let suffix = if has_zone { "Z07:00" } else { "" };
    let mut reading = Reading { text, layout: format!("{layout}{suffix}"), rest: text };
    let (mut numbers, mut nanoseconds) = ([0u16, 1, 1, 0, 0, 0], 0);
    let elements = [("", "2006"), ("-", "01"), ("-", "02"), ("T", "15"), (":", "04"), (":", "05")];
    let bounds = [("", 9999), ("month", 12), ("day", 31), ("hour", 23), ("minute", 59), ("second", 59)];
    for (index, (mark, element)) in elements.into_iter().enumerate() {
        if !layout.contains(element) {
            break;
        }
        reading.mark(mark)?;
        let number = reading.number(element)?;
        let (name, most) = bounds[index];
        // A day's bound depends on its month, which stands before it.
        if number > most && name != "day" || name == "month" && number == 0 {
            return Err(reading.out_of_range(name));
        }
        numbers[index] = number;
        if element == "05" {
            nanoseconds = reading.fraction();
        }
    }
    let zone = if has_zone { reading.zone()? } else { TimeZone::system() };
    if !reading.rest.is_empty() {
        return Err(format!("parsing time {text:?}: extra text: {:?}", reading.rest));
    }
    let [_, month, day, hour, minute, second] = numbers.map(|number| i8::try_from(number).unwrap_or(0));
    let date = Date::new(i16::try_from(numbers[0]).unwrap_or(0), month, day);
    let date = date.map_err(|_| reading.out_of_range("day"))?;
    let zoned = date.at(hour, minute, second, nanoseconds).to_zoned(zone);
    zoned.map(|zoned| zoned.timestamp()).map_err(|_| reading.out_of_range("year"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:10Z".parse().unwrap()
    }

    #[test]
    fn times() {
        for (text, expected) in [
            ("10s", "1767225600.000000000"),
            ("-10s", "1767225620.000000000"),
            ("0", "0"),
            ("1767225600", "1767225600"),
            ("1767225600.5", "1767225600.5"),
            ("2026-01-01T00:00:00.5Z", "1767225600.500000000"),
            ("2026-01-01T00:00:00.1234567891Z", "1767225600.123456789"),
            ("2026-01-01T00:00Z", "1767225600.000000000"),
            ("2026-01-01Z", "1767225600.000000000"),
            ("2026-01-01+01:00", "1767222000.000000000"),
            ("2026-01-01T02:30:00-01:30", "1767240000.000000000"),
            ("2025-12-31T9Z", "1767171600.000000000"),
        ] {
            assert_eq!(parse(text, now()).as_deref(), Ok(expected), "{text}");
        }
        assert!(parse("2026-01-01T00:00:00", now()).is_ok());
    }

    #[test]
    fn errors_are_gos() {
        for (text, expected) in [
            ("yesterday", "failed to parse value as time or duration: \"yesterday\""),
            ("25:00", "failed to parse value as time or duration: \"25:00\""),
            ("2001-13-01", "parsing time \"2001-13-01\": month out of range"),
            ("2001-02-30", "parsing time \"2001-02-30\": day out of range"),
            ("2001-02-00", "parsing time \"2001-02-00\": day out of range"),
            ("2001-01-01T99:00:00", "parsing time \"2001-01-01T99:00:00\": hour out of range"),
            ("2001-1-1", "parsing time \"2001-1-1\" as \"2006-01-02\": cannot parse \"1-1\" as \"01\""),
            ("2001-01-01x", "parsing time \"2001-01-01x\": extra text: \"x\""),
            (
                "a-b-c+d",
                "parsing time \"a-b-c+d\" as \"2006-01-02Z07:00\": cannot parse \"a-b-c+d\" as \"2006\"",
            ),
            ("2001-01-01 10:00", "parsing time \"2001-01-01 10:00\": extra text: \" 10:00\""),
        ] {
            assert_eq!(parse(text, now()), Err(expected.to_owned()), "{text}");
        }
    }
}
