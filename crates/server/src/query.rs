//! The query of a request, and values in Docker's forms.

use jiff::Timestamp;
use ponton_api::distribution::Platform;
use ponton_api::filters::Filters;
use ponton_api::json;

use crate::error::{Error, Result};

/// Names and values in the order of the request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Result<Self> {
        query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Ok((decode(name, true)?, decode(value, true)?))
            })
            .collect::<Result<_>>()
            .map(Self)
    }

    /// The first value; empty if there is none.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.first(name).unwrap_or_default()
    }

    fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The first value, unless it is empty.
    pub(crate) fn optional(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|value| !value.is_empty())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.first(name).is_some()
    }

    /// All values of a name that may be repeated.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Docker's truth: everything but empty, `0`, `no`, `false` and `none`.
    pub(crate) fn boolean(&self, name: &str) -> bool {
        !["", "0", "no", "false", "none"].contains(&self.text(name).trim().to_ascii_lowercase().as_str())
    }

    /// The same, `default` if it isn't given.
    pub(crate) fn boolean_or(&self, name: &str, default: bool) -> bool {
        if self.has(name) { self.boolean(name) } else { default }
    }

    /// The platforms of a parameter that may be repeated: `linux/arm64/v8`, or since 1.48 a JSON object.
    pub(crate) fn platforms(&self, name: &str) -> Result<Vec<String>> {
        let given = self.all(name).filter(|text| !text.is_empty());
        given
            .map(|text| {
                if !text.starts_with('{') {
                    return Ok(text.to_owned());
                }
                let platform: Platform = json::from_slice(text.as_bytes())
                    .map_err(|error| Error::invalid(format!("invalid {name}: {error}")))?;
                if platform.os.is_empty() || platform.architecture.is_empty() {
                    return Err(Error::invalid("both OS and Architecture must be provided"));
                }
                let parts = [&platform.os, &platform.architecture, &platform.variant];
                let parts: Vec<&str> =
                    parts.into_iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
                Ok(parts.join("/"))
            })
            .collect()
    }

    /// The platform of a parameter that may be given once.
    pub(crate) fn platform(&self, name: &str) -> Result<Option<String>> {
        let mut platforms = self.platforms(name)?;
        if platforms.len() > 1 {
            return Err(Error::invalid(format!("only one {name} may be given")));
        }
        Ok(platforms.pop())
    }

    /// A number; `None` if it isn't given.
    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>> {
        let parse = |text: &str| {
            text.parse().map_err(|_| Error::invalid(format!("invalid {name}: {text:?} is not an integer")))
        };
        self.optional(name).map(parse).transpose()
    }

    /// Rows or columns of a terminal.
    pub(crate) fn terminal_size(&self, name: &str, what: &str) -> Result<u16> {
        let text = self.text(name);
        text.parse().map_err(|_| {
            Error::invalid(format!("invalid resize {what} {text:?}: not a number from 0 to 65535"))
        })
    }

    pub(crate) fn filters(&self) -> Result<Filters> {
        Ok(Filters::parse(self.text("filters"))?)
    }

    /// Seconds since the epoch, with a fraction or without; `None` if it isn't given.
    pub(crate) fn timestamp(&self, name: &str) -> Result<Option<Timestamp>> {
        match self.optional(name) {
            None => Ok(None),
            Some(text) => parse_timestamp(text).map(Some).ok_or_else(|| {
                Error::invalid(format!("invalid value for {name:?}: {text:?} is not a Unix timestamp"))
            }),
        }
    }
}

fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(fraction) {
        return None;
    }
    let nanoseconds: i32 = format!("{fraction:0<9.9}").parse().ok()?;
    let negative = seconds.starts_with('-');
    Timestamp::new(seconds.parse().ok()?, if negative { -nanoseconds } else { nanoseconds }).ok()
}

/// Undoes percent-encoding; `plus` is a space in queries, and itself in paths.
pub(crate) fn decode(text: &str, plus_is_space: bool) -> Result<String> {
    if !text.contains(['%', '+']) {
        return Ok(text.to_owned());
    }
    let malformed = || Error::invalid(format!("invalid URL escape in {text:?}"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' if plus_is_space => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
                let (high, low) = (digit().ok_or_else(malformed)?, digit().ok_or_else(malformed)?);
                (high << 4 | low) as u8
            }
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| malformed())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(Some(text)).unwrap()
    }

    #[test]
    fn booleans_are_dockers() {
        for text in ["a=1", "a=true", "a=True", "a=t", "a=yes", "a=%20x"] {
            assert!(query(text).boolean("a"), "{text}");
        }
        for text in ["", "a", "a=", "a=0", "a=False", "a=no", "a=none", "b=1"] {
            assert!(!query(text).boolean("a"), "{text}");
        }
        assert!(query("").boolean_or("a", true));
        assert!(!query("a=0").boolean_or("a", true));
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(query("a=b%20c+d%2Fe&a=2").all("a").collect::<Vec<_>>(), ["b c d/e", "2"]);
        assert_eq!(decode("a+b%2B", false).unwrap(), "a+b+");
        for text in ["%", "%2", "%zz", "%ff"] {
            assert!(decode(text, true).is_err(), "{text}");
        }
    }

    #[test]
    fn timestamps_have_fractions() {
        let at = |text: &str| query(text).timestamp("since");
        assert_eq!(at("since=12.5").unwrap(), Some(Timestamp::new(12, 500_000_000).unwrap()));
        assert_eq!(at("since=12.000000001").unwrap(), Some(Timestamp::new(12, 1).unwrap()));
        assert_eq!(at("since=12.0000000019").unwrap(), Some(Timestamp::new(12, 1).unwrap()));
        assert_eq!(at("since=0").unwrap(), Some(Timestamp::UNIX_EPOCH));
        assert_eq!(at("").unwrap(), None);
        for text in ["since=x", "since=1.x", "since=.5", "since=99999999999999999"] {
            assert!(at(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_checked() {
        assert_eq!(query("t=-1").integer("t").unwrap(), Some(-1));
        assert_eq!(query("t=").integer("t").unwrap(), None);
        assert!(query("t=1s").integer("t").is_err());
        assert!(query("h=70000").terminal_size("h", "height").is_err());
    }
}
