//! What the daemon is told about registries, and about the disk space of images.

use std::time::Duration;

use ponton_api::unit;
use ponton_cli::flag::{Flag, Flags};
use ponton_registry::Proxy;
use serde::Deserialize;

use super::Error;

/// Flags of the daemon that are about images.
pub(crate) const FLAGS: [Flag; 11] = [
    Flag::text("disk-budget", "What images may take of the disk, e.g. max=50g,free=10%,unused=24h, or off")
        .default(DEFAULT_BUDGET),
    Flag::text("http-proxy", "URL of the proxy to registries that speak HTTP"),
    Flag::text("https-proxy", "URL of the proxy to registries that speak HTTPS"),
    Flag::list("insecure-registry", "Registry or network whose certificates are not verified"),
    Flag::int("max-concurrent-downloads", "Layers that are downloaded at once"),
    Flag::int("max-concurrent-uploads", "Layers that are uploaded at once by a push"),
    Flag::int("max-download-attempts", "How often a download is tried"),
    Flag::text("max-layer-size", "Largest size that a layer may unpack to, e.g. 100g"),
    Flag::text("no-proxy", "Hosts and networks that are reached without a proxy, separated by commas"),
    Flag::list("registry-mirror", "URL of a mirror of Docker Hub"),
    Flag::text("storage-driver", "How layers are kept (default: what this host can do best)").short('s'),
];

/// Images that came from a registry and were not used for a day go when less than a tenth of the disk is
/// free.
const DEFAULT_BUDGET: &str = "free=10%,unused=24h";

/// Keys of the file that are about images, and the flags that say the same.
pub(crate) const KEYS: [(&str, &str); 11] = [
    ("disk-budget", "disk-budget"),
    ("insecure-registries", "insecure-registry"),
    ("max-concurrent-downloads", "max-concurrent-downloads"),
    ("max-concurrent-uploads", "max-concurrent-uploads"),
    ("max-download-attempts", "max-download-attempts"),
    ("max-layer-size", "max-layer-size"),
    ("proxies", "http-proxy"),
    ("proxies", "https-proxy"),
    ("proxies", "no-proxy"),
    ("registry-mirrors", "registry-mirror"),
    ("storage-driver", "storage-driver"),
];

/// The part of the configuration file that is about images.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct File {
    disk_budget: Option<String>,
    insecure_registries: Option<Vec<String>>,
    max_concurrent_downloads: Option<i64>,
    max_concurrent_uploads: Option<i64>,
    max_download_attempts: Option<i64>,
    max_layer_size: Option<String>,
    proxies: Option<Proxies>,
    registry_mirrors: Option<Vec<String>>,
    storage_driver: Option<String>,
}

#[allow(clippy::struct_field_names, reason = "the file's own names")]
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct Proxies {
    http_proxy: Option<String>,
    https_proxy: Option<String>,
    no_proxy: Option<String>,
}

/// All of it, checked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Images {
    pub(crate) mirrors: Vec<String>,
    pub(crate) insecure: Vec<String>,
    pub(crate) proxy: Proxy,
    pub(crate) attempts: Option<u32>,
    pub(crate) downloads: Option<usize>,
    pub(crate) uploads: Option<usize>,
    pub(crate) layer_bytes_max: Option<u64>,
    pub(crate) storage_driver: Option<String>,
    pub(crate) budget: Option<Budget>,
}

/// What images may take of a disk whose size is not known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    max: Option<Amount>,
    free: Option<Amount>,
    unused: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Amount {
    Bytes(u64),
    Percent(u64),
}

impl Budget {
    /// The budget on a disk of this size.
    pub(crate) fn on(self, disk_bytes: u64) -> ponton_image::Budget {
        let bytes = |amount| match amount {
            Amount::Bytes(bytes) => bytes,
            Amount::Percent(percent) => disk_bytes / 100 * percent,
        };
        ponton_image::Budget {
            images_max: self.max.map_or(u64::MAX, bytes),
            free_min: self.free.map_or(0, bytes),
            unused_min: self.unused,
        }
    }
}

impl Images {
    pub(crate) fn join(flags: &Flags, file: File) -> Result<Self, Error> {
        let text =
            |name: &str, from_file: Option<String>| from_file.unwrap_or_else(|| flags.text(name).to_owned());
        let list = |name: &str, from_file: Option<Vec<String>>| {
            from_file.unwrap_or_else(|| flags.all(name).to_vec())
        };
        let count = |name: &'static str, from_file: Option<i64>| {
            from_file.or_else(|| flags.given_int(name)).map(|count| positive(name, count)).transpose()
        };
        let proxies = file.proxies.unwrap_or_default();
        let proxy = proxy(
            text("http-proxy", proxies.http_proxy),
            text("https-proxy", proxies.https_proxy),
            text("no-proxy", proxies.no_proxy),
        )?;
        let storage_driver = text("storage-driver", file.storage_driver);
        let layer_size = text("max-layer-size", file.max_layer_size);
        let budget = text("disk-budget", file.disk_budget);
        Ok(Self {
            mirrors: checked("registry-mirrors", list("registry-mirror", file.registry_mirrors), mirror)?,
            insecure: checked(
                "insecure-registries",
                list("insecure-registry", file.insecure_registries),
                insecure,
            )?,
            proxy,
            attempts: count("max-download-attempts", file.max_download_attempts)?,
            downloads: count("max-concurrent-downloads", file.max_concurrent_downloads)?
                .map(|count| count as usize),
            uploads: count("max-concurrent-uploads", file.max_concurrent_uploads)?
                .map(|count| count as usize),
            layer_bytes_max: match layer_size.as_str() {
                "" => None,
                text => Some(
                    size(text).ok_or_else(|| invalid("max-layer-size", text, "it is a size, e.g. 100g"))?,
                ),
            },
            storage_driver: (!storage_driver.is_empty()).then_some(storage_driver),
            budget: self::budget(&budget)?,
        })
    }
}

fn invalid(key: &'static str, value: &str, reason: &'static str) -> Error {
    Error::Value { key, value: value.to_owned(), reason }
}

fn positive(key: &'static str, count: i64) -> Result<u32, Error> {
    let checked = u32::try_from(count).ok().filter(|count| *count > 0);
    checked.ok_or_else(|| invalid(key, &count.to_string(), "it is a number above 0"))
}

/// Refuses a list in which one value is wrong.
fn checked(
    key: &'static str,
    values: Vec<String>,
    wrong: impl Fn(&str) -> Option<&'static str>,
) -> Result<Vec<String>, Error> {
    match values.iter().find_map(|value| Some((value, wrong(value)?))) {
        Some((value, reason)) => Err(invalid(key, value, reason)),
        None => Ok(values),
    }
}

/// What is wrong with a mirror's URL.
fn mirror(url: &str) -> Option<&'static str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let Some(rest) = rest else { return Some("it is no URL that begins with https:// or http://") };
    let host = rest.trim_end_matches('/');
    (host.is_empty() || host.contains(['?', '#', '@', ' ']))
        .then_some("it is a URL of a host, without a user, a query and a fragment")
}

/// What is wrong with a registry or network that is not verified.
fn insecure(registry: &str) -> Option<&'static str> {
    if registry.contains("://") {
        return Some("it is a host, with its port or without, or a network, and no URL");
    }
    let wrong = match registry.split_once('/') {
        None => registry.is_empty() || registry.contains(char::is_whitespace),
        Some((address, length)) => {
            let longest = match address.parse() {
                Ok(std::net::IpAddr::V4(_)) => 32,
                Ok(std::net::IpAddr::V6(_)) => 128,
                Err(_) => {
                    return Some("it is a host, with its port or without, or a network like 10.0.0.0/8");
                }
            };
            !length.parse::<u8>().is_ok_and(|length| length <= longest)
        }
    };
    wrong.then_some("it is a host, with its port or without, or a network like 10.0.0.0/8")
}

/// The proxies: those that are given here, and the environment's for those that are not.
fn proxy(http: String, https: String, no_proxy: String) -> Result<Proxy, Error> {
    if [&http, &https, &no_proxy].iter().all(|text| text.is_empty()) {
        return Ok(Proxy::Environment);
    }
    for (key, url) in [("http-proxy", &http), ("https-proxy", &https)] {
        if !url.is_empty() && !url.starts_with("http://") && !url.starts_with("https://") {
            // A URL may hold a password, which no message should.
            return Err(invalid(key, "", "it is no URL that begins with http:// or https://"));
        }
    }
    let or_environment = |given: String, name: &str| {
        if !given.is_empty() {
            return given;
        }
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        variable(name).or_else(|| variable(&name.to_lowercase())).unwrap_or_default()
    };
    Ok(Proxy::These {
        http: or_environment(http, "HTTP_PROXY"),
        https: or_environment(https, "HTTPS_PROXY"),
        no_proxy: or_environment(no_proxy, "NO_PROXY"),
    })
}

fn size(text: &str) -> Option<u64> {
    unit::parse_size(text).ok().and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0)
}

fn amount(text: &str) -> Option<Amount> {
    match text.strip_suffix('%') {
        Some(percent) => percent.parse().ok().filter(|percent| *percent <= 100).map(Amount::Percent),
        None => size(text).map(Amount::Bytes),
    }
}

fn budget(text: &str) -> Result<Option<Budget>, Error> {
    if matches!(text, "off" | "none") {
        return Ok(None);
    }
    let reason = "it is off, or max=SIZE, free=SIZE and unused=DURATION, separated by commas, where a size \
                  may be a percentage of the disk";
    let mut budget = Budget { max: None, free: None, unused: Duration::from_secs(24 * 3600) };
    for part in text.split(',') {
        let understood = part.trim().split_once('=').and_then(|(name, value)| {
            match name {
                "max" => budget.max = Some(amount(value)?),
                "free" => budget.free = Some(amount(value)?),
                "unused" => {
                    let nanoseconds = unit::parse_duration(value).ok()?;
                    budget.unused = Duration::from_nanos(u64::try_from(nanoseconds).ok()?);
                }
                _ => return None,
            }
            Some(())
        });
        understood.ok_or_else(|| invalid("disk-budget", text, reason))?;
    }
    Ok(Some(budget))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_read() {
        let on = |text: &str| budget(text).unwrap().unwrap().on(1000 << 30);
        let default = on(DEFAULT_BUDGET);
        assert_eq!((default.images_max, default.free_min), (u64::MAX, 100 << 30));
        assert_eq!(default.unused_min, Duration::from_secs(86400));
        let own = on("max=50g, free=1g,unused=1h30m");
        assert_eq!((own.images_max, own.free_min), (50 << 30, 1 << 30));
        assert_eq!(own.unused_min, Duration::from_secs(5400));
        assert_eq!(budget("off").unwrap(), None);
        for wrong in ["", "max", "max=", "max=-1g", "free=101%", "unused=x", "other=1"] {
            assert!(budget(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn registries_are_checked() {
        for right in ["https://mirror.example", "http://localhost:5000/", "https://a/b"] {
            assert_eq!(mirror(right), None, "{right}");
        }
        for wrong in ["mirror.example", "ftp://a", "https://", "https://u:p@a", "https://a?b"] {
            assert!(mirror(wrong).is_some(), "{wrong}");
        }
        for right in ["a.example", "localhost:5000", "10.0.0.0/8", "fd00::/8"] {
            assert_eq!(insecure(right), None, "{right}");
        }
        for wrong in ["", "http://a", "10.0.0.0/33", "a/b", "10.0.0.0/x"] {
            assert!(insecure(wrong).is_some(), "{wrong}");
        }
    }
}
