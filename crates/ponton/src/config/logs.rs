//! The logging driver of containers that ask for none.

use std::collections::BTreeMap;

use ponton_api::container::LogConfig;
use ponton_cli::flag::{Flag, Flags};
use serde::Deserialize;

use super::Error;

/// Flags of the daemon that are about logs.
pub(crate) const FLAGS: [Flag; 2] = [
    Flag::text("log-driver", "Logging driver of containers that ask for none").default("local"),
    Flag::list("log-opt", "Option of that logging driver, e.g. max-size=10m"),
];

/// Keys of the file that are about logs, and the flags that say the same.
pub(crate) const KEYS: [(&str, &str); 2] = [("log-driver", "log-driver"), ("log-opts", "log-opt")];

/// The part of the configuration file that is about logs.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct File {
    log_driver: Option<String>,
    log_opts: Option<BTreeMap<String, String>>,
}

/// Driver and options, checked.
pub(crate) fn join(flags: &Flags, file: File) -> Result<LogConfig, Error> {
    let config = match file.log_opts {
        Some(options) => options,
        None => flags.all("log-opt").iter().map(|option| split(option)).collect::<Result<_, _>>()?,
    };
    // That nobody named one is told apart from the default's name.
    let named =
        || if flags.is_set("log-driver") { flags.text("log-driver").to_owned() } else { String::new() };
    let driver = file.log_driver.unwrap_or_else(named);
    let checked = |config: &LogConfig, key| {
        ponton_engine::check_log_config(config).map_err(|error| Error::Log(key, error))
    };
    let log = LogConfig { r#type: driver, config: BTreeMap::new() };
    // What is wrong with the driver alone; some need options.
    if !ponton_engine::LOG_DRIVERS.contains(&log.r#type.as_str()) {
        checked(&log, "log-driver")?;
    }
    let log = LogConfig { config, ..log };
    checked(&log, "log-opts")?;
    Ok(log)
}

fn split(option: &str) -> Result<(String, String), Error> {
    match option.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(Error::Value {
            key: "log-opt",
            value: option.to_owned(),
            reason: "it is a name and a value, e.g. max-size=10m",
        }),
    }
}
