//! What the user has settled for docker's command line: `config.json` in `$DOCKER_CONFIG` or `~/.docker`.
//!
//! Read only here, but for [`set_current_context`]; what it says of registries is `ponton_registry`'s to read.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::Deserialize;

use crate::error::Error;
use crate::output;

/// The directory that `--config` named.
static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();

/// Takes the directory of `--config` for all that follows; only the first call counts.
pub(crate) fn use_directory(path: &str) {
    // The program reads its words once.
    let _ = DIRECTORY.set(PathBuf::from(path));
}

/// Where docker's client keeps what it remembers: `--config`, `$DOCKER_CONFIG` or `~/.docker`.
pub(crate) fn directory() -> PathBuf {
    if let Some(directory) = DIRECTORY.get() {
        return directory.clone();
    }
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    match variable("DOCKER_CONFIG") {
        Some(directory) => directory.into(),
        None => PathBuf::from(variable("HOME").unwrap_or_else(|| "/root".into())).join(".docker"),
    }
}

/// The file itself.
pub(crate) fn file() -> PathBuf {
    directory().join("config.json")
}

/// The settings that commands heed. A name is docker's.
#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Config {
    pub(crate) ps_format: String,
    pub(crate) images_format: String,
    pub(crate) networks_format: String,
    pub(crate) volumes_format: String,
    pub(crate) stats_format: String,
    pub(crate) detach_keys: String,
    pub(crate) current_context: String,
    /// `key=value`, heeded by every prune.
    pub(crate) prune_filters: Vec<String>,
    /// Headers of every request.
    #[serde(rename = "HttpHeaders")]
    pub(crate) http_headers: BTreeMap<String, String>,
    /// Proxies of containers, by the daemon's address or `default`.
    pub(crate) proxies: BTreeMap<String, Proxies>,
}

/// The proxies that containers are told by variables of their environment.
#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Proxies {
    #[serde(rename = "httpProxy")]
    http: String,
    #[serde(rename = "httpsProxy")]
    https: String,
    #[serde(rename = "noProxy")]
    no: String,
    #[serde(rename = "ftpProxy")]
    ftp: String,
    #[serde(rename = "allProxy")]
    all: String,
}

impl Config {
    /// Reads the file; one that isn't there says nothing, and one that can't be read is complained of.
    pub(crate) fn load() -> Self {
        let path = file();
        Self::read(&path).unwrap_or_else(|reason| {
            output::complain(&format!("WARNING: Error loading config file: {}: {reason}", path.display()));
            Self::default()
        })
    }

    fn read(path: &Path) -> Result<Self, String> {
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(crate::error::reason(&error)),
        }
    }

    /// `KEY=VALUE` of the proxies for containers of the daemon at `host`, in both spellings.
    pub(crate) fn proxy_variables(&self, host: &str) -> Vec<String> {
        let Some(proxies) = self.proxies.get(host).or_else(|| self.proxies.get("default")) else {
            return Vec::new();
        };
        [
            ("HTTP_PROXY", &proxies.http),
            ("HTTPS_PROXY", &proxies.https),
            ("NO_PROXY", &proxies.no),
            ("FTP_PROXY", &proxies.ftp),
            ("ALL_PROXY", &proxies.all),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .flat_map(|(name, value)| [format!("{name}={value}"), format!("{}={value}", name.to_lowercase())])
        .collect()
    }
}

/// Writes which context is used from now on; everything else in the file stays as it is.
pub(crate) fn set_current_context(name: &str) -> Result<(), Error> {
    let path = file();
    let shown = path.display().to_string();
    let mut whole: serde_json::Map<String, serde_json::Value> = match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| Error::invalid(format!("read {shown}: {error}")))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => serde_json::Map::new(),
        Err(source) => return Err(Error::file("read", shown, source)),
    };
    if matches!(name, "" | "default") {
        whole.remove("currentContext");
    } else {
        whole.insert("currentContext".to_owned(), name.into());
    }
    let text = serde_json::to_string_pretty(&whole).map_err(|error| Error::invalid(error.to_string()))?;
    replace(&path, text.as_bytes())
}

/// Writes a file whole or not at all, readable by its owner alone, as docker writes its own.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    use std::os::unix::fs::OpenOptionsExt;
    let failed = |source| Error::file("write", path.display().to_string(), source);
    // A file that is a link is written where it points to, as docker does.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = target.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory).map_err(failed)?;
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = directory.join(name);
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| io::Write::write_all(&mut file, bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, &target));
    if written.is_err() {
        // Nobody looks for it.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_commands_heed_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        assert_eq!(Config::read(&path), Ok(Config::default()));
        let text = r#"{"auths": {}, "psFormat": "{{.ID}}", "detachKeys": "ctrl-x", "HttpHeaders": {"A": "b"},
            "proxies": {"default": {"httpProxy": "http://p:1", "noProxy": "local"}, "tcp://x:1": {}}}"#;
        fs::write(&path, text).unwrap();
        let config = Config::read(&path).unwrap();
        assert_eq!((config.ps_format.as_str(), config.detach_keys.as_str()), ("{{.ID}}", "ctrl-x"));
        assert_eq!(config.http_headers["A"], "b");
        assert_eq!(
            config.proxy_variables("unix:///x"),
            ["HTTP_PROXY=http://p:1", "http_proxy=http://p:1", "NO_PROXY=local", "no_proxy=local"]
        );
        assert_eq!(config.proxy_variables("tcp://x:1"), [""; 0]);
        fs::write(&path, "{").unwrap();
        assert!(Config::read(&path).is_err());
    }

    #[test]
    fn a_file_is_replaced_whole_also_behind_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("real"), directory.path().join("link"));
        fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        replace(&link, b"new").unwrap();
        assert_eq!(fs::read_to_string(&real).unwrap(), "new");
        assert!(link.is_symlink());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
