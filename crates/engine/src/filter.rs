//! Values of filters that several calls understand.

use jiff::Timestamp;

use crate::error::{Error, Result};

/// A time: RFC 3339 or a date, seconds since the epoch, or a Go duration before `now`.
pub(crate) fn time(text: &str, now: Timestamp) -> Result<Timestamp> {
    let invalid = || Error::invalid(format!("invalid value for until: {text:?}"));
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return Timestamp::from_nanosecond((seconds * 1e9) as i128).map_err(|_| invalid());
    }
    if let Ok(time) = text.parse::<jiff::civil::DateTime>() {
        return time
            .to_zoned(jiff::tz::TimeZone::system())
            .map(|time| time.timestamp())
            .map_err(|_| invalid());
    }
    let duration = ponton_api::unit::parse_duration(text).map_err(|_| invalid())?;
    let nanoseconds = now.as_nanosecond() - i128::from(duration);
    Timestamp::from_nanosecond(nanoseconds).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_in_many_forms() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
            ("1767225600", "2026-01-01T00:00:00Z"),
            ("1767225600.5", "2026-01-01T00:00:00.5Z"),
            ("24h", "2026-01-01T00:00:00Z"),
            ("1h30m", "2026-01-01T22:30:00Z"),
        ] {
            assert_eq!(time(text, now).unwrap(), expected.parse().unwrap(), "{text}");
        }
        assert!(time("soon", now).is_err());
    }
}
