//! The drivers' options: which there are, and what their values mean. Errors have dockerd's words.

use std::time::Duration;

use ponton_api::container::{LogConfig, StringMap};
use ponton_api::unit;
use ponton_runtime::shim::protocol::{GelfCompression, LogFile, SyslogFormat};

use super::address::Peer;
use crate::error::{Error, Result};

/// The logging drivers that `info` names; there is `none` beside them.
pub const DRIVERS: [&str; 6] = ["fluentd", "gelf", "journald", "json-file", "local", "syslog"];

/// The driver of those who ask for none.
const DEFAULT: &str = "local";

/// Options of every driver.
const COMMON: [&str; 6] =
    ["mode", "max-buffer-size", "cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"];

/// Options of every driver that tells more about a line than its text.
const ATTRIBUTES: [&str; 5] = ["env", "env-regex", "labels", "labels-regex", "tag"];

/// What may wait for a logging service, in bytes, unless something else is said.
const BUFFER_BYTES: u64 = 1 << 20;

/// A driver with its options, checked.
#[derive(Debug, PartialEq)]
pub(super) struct Driver {
    pub(super) kind: Kind,
    /// Where the output can be read again; none if it can't.
    pub(super) kept: Option<Kept>,
    pub(super) delivery: Delivery,
}

/// What a driver does with a line.
#[derive(Debug, PartialEq)]
pub(super) enum Kind {
    /// Nothing, or nothing more than to keep it.
    Local,
    /// Keeps it with attributes.
    JsonFile,
    Journald,
    Syslog {
        peer: Peer,
        format: SyslogFormat,
        facility: u8,
    },
    Fluentd {
        peer: Peer,
        is_async: bool,
        sub_second: bool,
    },
    Gelf {
        peer: Peer,
        compression: GelfCompression,
        level: u32,
    },
}

/// The bounds of log files.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Kept {
    pub(super) max_size_bytes: u64,
    pub(super) max_files: u32,
    pub(super) compress: bool,
}

/// How lines get to a logging service.
#[derive(Debug, PartialEq)]
pub(super) struct Delivery {
    pub(super) lossy: bool,
    pub(super) buffer_max_bytes: u64,
    pub(super) retry_delay: Duration,
    /// 0 for no end.
    pub(super) retries_max: u32,
}

/// Fills a container's driver and options with the daemon's: its options are those of its driver, and
/// how the output of others is kept.
pub(crate) fn fill(config: &mut LogConfig, default: &LogConfig) {
    if config.r#type.is_empty() {
        config.r#type.clone_from(&default.r#type);
    }
    for (name, value) in &default.config {
        if config.r#type == default.r#type || name.starts_with("cache-") {
            config.config.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
}

/// The driver that a configuration means: where it names none, the default.
pub(crate) fn driver_name(config: &LogConfig) -> &str {
    match config.r#type.as_str() {
        "" => DEFAULT,
        named => named,
    }
}

/// A container's configuration as `inspect` shows it. Where nobody named a driver it is Docker's default:
/// clients take other names to mean that the output cannot be read (docker-py does, and answers nothing).
pub(crate) fn seen(config: &LogConfig) -> LogConfig {
    let mut seen = config.clone();
    if seen.r#type.is_empty() {
        seen.r#type = "json-file".into();
    }
    seen
}

/// Checks a logging driver and its options, as those of a container.
pub fn check(config: &LogConfig) -> Result<()> {
    if let Kind::Syslog { peer, .. } = driver(config)?.kind {
        peer.check()?;
    }
    super::attributes::check(&config.config)
}

/// Reads a driver and its options.
pub(super) fn driver(config: &LogConfig) -> Result<Driver> {
    let options = Options { driver: driver_name(config), given: &config.config };
    if options.driver == "none" {
        let delivery = Delivery::blocking();
        return Ok(Driver { kind: Kind::Local, kept: None, delivery });
    }
    if !DRIVERS.contains(&options.driver) {
        let driver = options.driver;
        return Err(Error::invalid(format!(
            "error looking up logging plugin {driver}: plugin \"{driver}\" not found"
        )));
    }
    let mut delivery = options.delivery()?;
    let cache = options.cache()?;
    let (kind, kept) = match options.driver {
        "local" => {
            options.allow(&["max-file", "max-size", "compress"], &[])?;
            (Kind::Local, Some(options.local_bounds("")?))
        }
        "json-file" => {
            options.allow(&["max-file", "max-size", "compress"], &ATTRIBUTES)?;
            (Kind::JsonFile, Some(options.json_bounds()?))
        }
        "journald" => {
            options.allow(&[], &ATTRIBUTES)?;
            (Kind::Journald, cache)
        }
        "syslog" => (options.syslog()?, cache),
        "fluentd" => (options.fluentd(&mut delivery)?, cache),
        _ => (options.gelf(&mut delivery)?, cache),
    };
    Ok(Driver { kind, kept, delivery })
}

impl Delivery {
    fn blocking() -> Self {
        let retry_delay = Duration::from_secs(1);
        Self { lossy: false, buffer_max_bytes: BUFFER_BYTES, retry_delay, retries_max: 0 }
    }
}

struct Options<'a> {
    driver: &'a str,
    given: &'a StringMap,
}

impl<'a> Options<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        self.given.get(name).map(String::as_str)
    }

    /// Refuses options that are none.
    fn allow(&self, own: &[&str], more: &[&str]) -> Result<()> {
        let known = |name: &&String| [own, more, &COMMON].iter().any(|names| names.contains(&name.as_str()));
        let Some(name) = self.given.keys().find(|name| !known(name)) else { return Ok(()) };
        let driver = self.driver;
        Err(Error::invalid(match driver {
            "local" => format!("unknown log opt '{name}' for log driver local"),
            "gelf" => format!("unknown log opt \"{name}\" for gelf log driver"),
            _ => format!("unknown log opt '{name}' for {driver} log driver"),
        }))
    }

    fn delivery(&self) -> Result<Delivery> {
        let lossy = match self.get("mode") {
            None | Some("" | "blocking") => false,
            Some("non-blocking") => true,
            Some(mode) => {
                return Err(Error::invalid(format!("logger: logging mode not supported: {mode}")));
            }
        };
        let mut delivery = Delivery { lossy, ..Delivery::blocking() };
        if let Some(size) = self.get("max-buffer-size") {
            if !lossy {
                return Err(Error::invalid(
                    "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
                ));
            }
            delivery.buffer_max_bytes = unit::parse_size(size)
                .map_err(|error| Error::invalid(format!("error parsing option max-buffer-size: {error}")))?
                as u64;
        }
        Ok(delivery)
    }

    /// How output is kept beside a logging service.
    fn cache(&self) -> Result<Option<Kept>> {
        let is_disabled = match self.get("cache-disabled") {
            None => false,
            Some(text) => parse_bool(text)
                .ok_or_else(|| Error::invalid(format!("invalid value for option cache-disabled: {text}")))?,
        };
        let kept = self.local_bounds("cache-")?;
        Ok((!is_disabled).then_some(kept))
    }

    fn local_bounds(&self, prefix: &str) -> Result<Kept> {
        let named = |name: &str| format!("{prefix}{name}");
        let wrong = |name: &str, value: &str, error: String| {
            Error::invalid(format!("invalid value for {}: {value}: {error}", named(name)))
        };
        let mut kept =
            Kept { max_size_bytes: LogFile::MAX_SIZE_BYTES, max_files: LogFile::MAX_FILES, compress: true };
        if let Some(size) = self.get(&named("max-size")) {
            kept.max_size_bytes = parse_decimal_size(size).map_err(|error| wrong("max-size", size, error))?;
        }
        if let Some(count) = self.get(&named("max-file")) {
            kept.max_files = parse_count(count).map_err(|error| wrong("max-file", count, error))?;
            kept.compress = kept.max_files > 1;
        }
        if let Some(text) = self.get(&named("compress")) {
            let compress = parse_bool(text).ok_or_else(|| wrong("compress", text, not_bool(text)))?;
            if compress && kept.max_files < 2 {
                return Err(Error::invalid("compression cannot be enabled when max file count is 1"));
            }
            kept.compress = compress;
        }
        Ok(kept)
    }

    /// Docker keeps one file of no end unless it is told otherwise; here it has bounds.
    fn json_bounds(&self) -> Result<Kept> {
        let size = self.get("max-size").map(parse_decimal_size).transpose().map_err(Error::invalid)?;
        let files = self.get("max-file").map(parse_count).transpose().map_err(Error::invalid)?;
        let compress = match self.get("compress") {
            None => false,
            Some(text) => parse_bool(text).ok_or_else(|| Error::invalid(not_bool(text)))?,
        };
        let max_files = files.unwrap_or(if size.is_some() { 1 } else { LogFile::MAX_FILES });
        if compress && max_files < 2 {
            return Err(Error::invalid(
                "compress cannot be true when max-file is less than 2 or max-size is not set",
            ));
        }
        Ok(Kept { max_size_bytes: size.unwrap_or(LogFile::MAX_SIZE_BYTES), max_files, compress })
    }

    fn syslog(&self) -> Result<Kind> {
        const TLS: [&str; 4] =
            ["syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key", "syslog-tls-skip-verify"];
        let own = [&["syslog-address", "syslog-facility", "syslog-format"][..], &TLS].concat();
        self.allow(&own, &ATTRIBUTES)?;
        let peer = Peer::of_syslog(self.get("syslog-address").unwrap_or_default())?;
        if let Some(name) = TLS.iter().find(|name| self.get(name).is_some()) {
            return Err(Error::not_implemented(format!(
                "log opt {name}: syslog over TLS is not implemented"
            )));
        }
        let format = match self.get("syslog-format").unwrap_or_default() {
            "" => SyslogFormat::Unix,
            "rfc3164" => SyslogFormat::Rfc3164,
            "rfc5424" => SyslogFormat::Rfc5424,
            "rfc5424micro" => SyslogFormat::Rfc5424Micro,
            _ => return Err(Error::invalid("Invalid syslog format")),
        };
        let facility = match self.get("syslog-facility").unwrap_or_default() {
            "" => Some(3),
            name => FACILITIES
                .iter()
                .position(|known| *known == name)
                .map(|number| number as u8)
                .or_else(|| name.parse().ok().filter(|number| *number <= 23)),
        };
        let facility = facility.ok_or_else(|| Error::invalid("invalid syslog facility"))?;
        Ok(Kind::Syslog { peer, format, facility })
    }

    fn fluentd(&self, delivery: &mut Delivery) -> Result<Kind> {
        let own = [
            "fluentd-address",
            "fluentd-async",
            "fluentd-async-connect",
            "fluentd-async-reconnect-interval",
            "fluentd-buffer-limit",
            "fluentd-max-retries",
            "fluentd-request-ack",
            "fluentd-retry-wait",
            "fluentd-sub-second-precision",
        ];
        self.allow(&own, &ATTRIBUTES)?;
        let peer = Peer::of_fluentd(self.get("fluentd-address").unwrap_or_default())?;
        let flag = |name: &str| match self.get(name) {
            None => Ok(false),
            Some(text) => parse_bool(text).ok_or_else(|| Error::invalid(not_bool(text))),
        };
        let is_async = flag("fluentd-async")? || flag("fluentd-async-connect")?;
        if flag("fluentd-request-ack")? {
            return Err(Error::not_implemented("log opt fluentd-request-ack is not implemented"));
        }
        if let Some(limit) = self.get("fluentd-buffer-limit") {
            delivery.buffer_max_bytes =
                unit::parse_size(limit).map_err(|error| Error::invalid(error.to_string()))? as u64;
        }
        if let Some(retries) = self.get("fluentd-max-retries") {
            delivery.retries_max = retries.parse().map_err(|_| {
                Error::invalid(format!("strconv.ParseUint: parsing {retries:?}: invalid syntax"))
            })?;
        }
        for name in ["fluentd-retry-wait", "fluentd-async-reconnect-interval"] {
            if let Some(wait) = self.get(name) {
                let wait = unit::parse_duration(wait).map_err(|error| Error::invalid(error.to_string()))?;
                delivery.retry_delay = Duration::from_nanos(u64::try_from(wait).unwrap_or(0));
            }
        }
        // What can't be sent is lost then, as with Docker.
        delivery.lossy |= is_async;
        Ok(Kind::Fluentd { peer, is_async, sub_second: flag("fluentd-sub-second-precision")? })
    }

    fn gelf(&self, delivery: &mut Delivery) -> Result<Kind> {
        let compressed = ["gelf-compression-level", "gelf-compression-type"];
        let tcp_only = ["gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay"];
        let own = [&["gelf-address"][..], &compressed, &tcp_only].concat();
        self.allow(&own, &ATTRIBUTES)?;
        let peer = Peer::of_gelf(self.get("gelf-address").unwrap_or_default())?;
        let is_tcp = matches!(peer, Peer::Tcp(_));
        if is_tcp && compressed.iter().any(|name| self.get(name).is_some()) {
            return Err(Error::invalid("compression is only supported on UDP"));
        }
        if let Some(name) = tcp_only.iter().find(|name| !is_tcp && self.get(name).is_some()) {
            return Err(Error::invalid(format!("{name:?} is only valid for TCP")));
        }
        let unknown = |name: &str, value: &str| {
            Error::invalid(format!("unknown value {value:?} for log opt {name:?} for gelf log driver"))
        };
        let number = |name: &str, default: u32| match self.get(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| unknown(name, text)),
        };
        let compression = match self.get("gelf-compression-type") {
            _ if is_tcp => GelfCompression::None,
            None | Some("gzip") => GelfCompression::Gzip,
            Some("zlib") => GelfCompression::Zlib,
            Some("none") => GelfCompression::None,
            Some(other) => return Err(unknown("gelf-compression-type", other)),
        };
        let level = match self.get("gelf-compression-level") {
            None | Some("-1") => 1,
            Some(text) => text
                .parse()
                .ok()
                .filter(|level| *level <= 9)
                .ok_or_else(|| unknown("gelf-compression-level", text))?,
        };
        if is_tcp {
            delivery.retries_max = number("gelf-tcp-max-reconnect", 3)?;
            delivery.retry_delay = Duration::from_secs(number("gelf-tcp-reconnect-delay", 1)?.into());
        }
        Ok(Kind::Gelf { peer, compression, level })
    }
}

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "",
    "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

/// Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn not_bool(text: &str) -> String {
    format!("strconv.ParseBool: parsing {text:?}: invalid syntax")
}

fn parse_count(text: &str) -> Result<u32, String> {
    let count: i64 = text.parse().map_err(|_| format!("strconv.Atoi: parsing {text:?}: invalid syntax"))?;
    u32::try_from(count).ok().filter(|count| *count > 0).ok_or("max-file cannot be less than 1".into())
}

/// A size with decimal units, as Docker has them for log files; 0 for no bound.
fn parse_decimal_size(text: &str) -> Result<u64, String> {
    let bytes = unit::parse_decimal_size(text).map_err(|error| error.to_string())?;
    u64::try_from(bytes).map_err(|_| format!("invalid size: '{text}'"))
}

#[cfg(test)]
mod tests;
