//! From a container's settings to where the shim logs its output.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use ponton_api::container::LogConfig;
use ponton_runtime::shim::protocol::{LogFile, LogFormat, LogMessage, LogRemote, LogTarget};
use serde_json::{Map, Value};

use super::Format;
use super::address::Peer;
use super::attributes::Facts;
use super::options::{self, Driver, Kept, Kind};
use crate::container::Settings;
use crate::error::{Error, Result};

/// What every failure begins with.
const FAILED: &str = "failed to initialize logging driver: ";

/// Where a container's output can be read again: its current file, below the container's directory.
pub(crate) fn kept(config: &LogConfig, id: &str, directory: &Path) -> Option<(PathBuf, Format)> {
    let driver = options::driver(config).ok()?;
    driver.kept.map(|_| place(&driver.kind, id, directory))
}

/// The file that `inspect` shows: of a driver whose files are anybody's to read.
pub(crate) fn shown(config: &LogConfig, id: &str, directory: &Path) -> Option<PathBuf> {
    kept(config, id, directory).filter(|(_, format)| *format == Format::Json).map(|(path, _)| path)
}

fn place(kind: &Kind, id: &str, directory: &Path) -> (PathBuf, Format) {
    match kind {
        Kind::JsonFile => (directory.join(format!("log/{id}-json.log")), Format::Json),
        _ => (directory.join("log/container.log"), Format::Local),
    }
}

/// Prepares the log of a container that is to be started: connects to its logging service. Nowhere with
/// the driver `none`.
pub(crate) async fn open(
    settings: &Settings,
    name: &str,
    directory: &Path,
) -> Result<Option<(LogTarget, Option<OwnedFd>)>> {
    let opened = prepare(settings, name, directory).await;
    opened.map_err(|error| Error { message: format!("{FAILED}{}", error.message), ..error })
}

async fn prepare(
    settings: &Settings,
    name: &str,
    directory: &Path,
) -> Result<Option<(LogTarget, Option<OwnedFd>)>> {
    let driver = options::driver(&settings.host_config.log_config)?;
    let uname = rustix::system::uname();
    let hostname = uname.nodename().to_string_lossy();
    let facts = Facts { settings, name, hostname: &hostname };
    let file = file(&driver, &facts, directory)?;
    let is_lazy = matches!(driver.kind, Kind::Fluentd { is_async: true, .. });
    let Some((peer, message)) = remote(driver.kind, &facts)? else {
        return Ok(file.map(|file| (file.into(), None)));
    };
    let is_gelf = matches!(message, LogMessage::Gelf { .. });
    let (address, socket) = peer.connect(is_lazy).await.map_err(|error| match is_gelf {
        true => {
            Error { message: format!("gelf: cannot connect to GELF endpoint: {}", error.message), ..error }
        }
        false => error,
    })?;
    let delivery = driver.delivery;
    let remote = LogRemote {
        address,
        message,
        buffer_max_bytes: delivery.buffer_max_bytes,
        lossy: delivery.lossy,
        retry_delay_ms: delivery.retry_delay.as_millis() as u64,
        retries_max: delivery.retries_max,
    };
    Ok(Some((LogTarget { file, remote: Some(Box::new(remote)) }, socket)))
}

/// The log of a container without its logging service: for one that runs, when nobody knows any more how
/// that is reached.
pub(crate) fn local(settings: &Settings, name: &str, directory: &Path) -> Option<LogTarget> {
    let driver = options::driver(&settings.host_config.log_config).ok()?;
    let facts = Facts { settings, name, hostname: "" };
    file(&driver, &facts, directory).ok().flatten().map(LogTarget::from)
}

fn file(driver: &Driver, facts: &Facts<'_>, directory: &Path) -> Result<Option<LogFile>> {
    let Some(Kept { max_size_bytes, max_files, compress }) = driver.kept else { return Ok(None) };
    let settings = facts.settings;
    let (path, _) = place(&driver.kind, &settings.id, directory);
    let format = match driver.kind {
        Kind::JsonFile => LogFormat::Json { attrs: facts.json(&settings.host_config.log_config.config)? },
        _ => LogFormat::Local,
    };
    Ok(Some(LogFile { path, format, max_size_bytes, max_files, compress }))
}

/// The service of a driver that has one, and what a line becomes for it.
fn remote(kind: Kind, facts: &Facts<'_>) -> Result<Option<(Peer, LogMessage)>> {
    let settings = facts.settings;
    let given = &settings.host_config.log_config.config;
    let hostname = facts.hostname.to_owned();
    let tag = facts.tag(given)?;
    Ok(Some(match kind {
        Kind::Local | Kind::JsonFile => return Ok(None),
        Kind::Journald => {
            let mut fields = vec![
                ("CONTAINER_ID".to_owned(), facts.short_id().to_owned()),
                ("CONTAINER_ID_FULL".to_owned(), settings.id.clone()),
                ("CONTAINER_NAME".to_owned(), facts.name.to_owned()),
                ("CONTAINER_TAG".to_owned(), tag.clone()),
                ("IMAGE_NAME".to_owned(), settings.config.image.clone()),
                ("SYSLOG_IDENTIFIER".to_owned(), tag),
            ];
            for (name, value) in facts.chosen(given)? {
                fields.push((journal_field(&name), value));
            }
            fields.retain(|(name, _)| !name.is_empty());
            (Peer::journal(), LogMessage::Journald { fields })
        }
        Kind::Syslog { peer, format, facility } => {
            (peer, LogMessage::Syslog { format, facility, hostname, tag })
        }
        Kind::Fluentd { peer, sub_second, .. } => {
            let mut record = vec![
                ("container_id".to_owned(), settings.id.clone()),
                ("container_name".to_owned(), format!("/{}", facts.name)),
            ];
            record.extend(facts.chosen(given)?);
            (peer, LogMessage::Fluentd { tag, record, sub_second })
        }
        Kind::Gelf { peer, compression, level } => {
            let mut fields: Map<String, Value> = [
                ("_command", facts.command()),
                ("_container_id", settings.id.clone()),
                ("_container_name", facts.name.to_owned()),
                ("_created", settings.created.to_string()),
                ("_image_id", settings.image.clone()),
                ("_image_name", settings.config.image.clone()),
                ("_tag", tag),
            ]
            .into_iter()
            .map(|(name, value)| (name.to_owned(), Value::String(value)))
            .collect();
            for (name, value) in facts.chosen(given)? {
                let name = if name.starts_with('_') { name } else { format!("_{name}") };
                fields.insert(name, Value::String(value));
            }
            (peer, LogMessage::Gelf { hostname, fields, compression, level })
        }
    }))
}

/// A name in journald's alphabet.
fn journal_field(name: &str) -> String {
    let name: String = name
        .chars()
        .map(|character| if character.is_ascii_alphanumeric() { character.to_ascii_uppercase() } else { '_' })
        .collect();
    name.trim_start_matches('_').to_owned()
}
