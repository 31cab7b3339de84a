//! docker's store of contexts, shared with docker's own command line.
//!
//! ```text
//! <config directory>/contexts/
//!   meta/<sha256 of the name>/meta.json    { Name, Metadata: { Description }, Endpoints: { docker: { Host, … } } }
//!   tls/<sha256 of the name>/docker/…      ca.pem, cert.pem, key.pem: kept and removed, not used
//! ```

use std::fs;
use std::io;
use std::path::PathBuf;

use ponton_oci::digest::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config;
use crate::error::{Error, reason};

/// The context that is not in the store: what the environment says.
pub(crate) const DEFAULT: &str = "default";
/// What docker says of it.
pub(crate) const DEFAULT_DESCRIPTION: &str = "Current DOCKER_HOST based configuration";

/// One `meta.json`. What we don't know of it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Meta {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) metadata: Map<String, Value>,
    #[serde(default)]
    pub(crate) endpoints: Endpoints,
}

/// The endpoints of a context.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Endpoints {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) docker: Option<Endpoint>,
    #[serde(flatten)]
    pub(crate) others: Map<String, Value>,
}

/// Where a daemon is.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    #[serde(rename = "Host", default, skip_serializing_if = "String::is_empty")]
    pub(crate) host: String,
    #[serde(rename = "SkipTLSVerify", default)]
    pub(crate) skip_tls_verify: bool,
}

impl Meta {
    /// A context for one daemon.
    pub(crate) fn new(name: &str, description: &str, host: &str) -> Self {
        let endpoint = Endpoint { host: host.to_owned(), skip_tls_verify: false };
        let mut meta = Self {
            name: name.to_owned(),
            metadata: Map::new(),
            endpoints: Endpoints { docker: Some(endpoint), others: Map::new() },
        };
        meta.describe(description);
        meta
    }

    pub(crate) fn description(&self) -> &str {
        self.metadata.get("Description").and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn describe(&mut self, text: &str) {
        if text.is_empty() {
            self.metadata.remove("Description");
        } else {
            self.metadata.insert("Description".to_owned(), text.into());
        }
    }

    pub(crate) fn host(&self) -> &str {
        self.endpoints.docker.as_ref().map_or("", |endpoint| &endpoint.host)
    }
}

/// The store.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

impl Store {
    /// That of the user.
    pub(crate) fn of_user() -> Self {
        Self { root: config::directory().join("contexts") }
    }

    /// The directory of a context's `meta.json`.
    pub(crate) fn meta_directory(&self, name: &str) -> PathBuf {
        self.root.join("meta").join(Digest::sha256_of(name.as_bytes()).hex())
    }

    /// The directory of a context's keys.
    pub(crate) fn tls_directory(&self, name: &str) -> PathBuf {
        self.root.join("tls").join(Digest::sha256_of(name.as_bytes()).hex())
    }

    /// A context; the error says docker's words.
    pub(crate) fn get(&self, name: &str) -> Result<Meta, Error> {
        let path = self.meta_directory(name).join("meta.json");
        let not_found = |what: String| Error::invalid(format!("context {name:?}: {what}"));
        let bytes = fs::read(&path).map_err(|error| {
            let kind = if error.kind() == io::ErrorKind::NotFound { "context not found: " } else { "" };
            not_found(format!("{kind}open {}: {}", path.display(), reason(&error)))
        })?;
        serde_json::from_slice(&bytes)
            .map_err(|error| not_found(format!("parsing {}: {error}", path.display())))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.meta_directory(name).join("meta.json").exists()
    }

    /// All of them, by name. What can't be read is left out.
    pub(crate) fn all(&self) -> Vec<Meta> {
        let entries = fs::read_dir(self.root.join("meta")).into_iter().flatten().flatten();
        let read = |path: PathBuf| serde_json::from_slice::<Meta>(&fs::read(path).ok()?).ok();
        let mut all: Vec<Meta> = entries.filter_map(|entry| read(entry.path().join("meta.json"))).collect();
        all.sort_by(|left, right| left.name.cmp(&right.name));
        all
    }

    pub(crate) fn put(&self, meta: &Meta) -> Result<(), Error> {
        let text = serde_json::to_string(meta).map_err(|error| Error::invalid(error.to_string()))?;
        config::replace(&self.meta_directory(&meta.name).join("meta.json"), text.as_bytes())
    }

    pub(crate) fn remove(&self, name: &str) -> Result<(), Error> {
        for directory in [self.meta_directory(name), self.tls_directory(name)] {
            match fs::remove_dir_all(&directory) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::file("remove", directory.display().to_string(), source));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether keys are kept for a context.
    pub(crate) fn has_keys(&self, name: &str) -> bool {
        self.tls_directory(name).join("docker").is_dir()
    }
}

/// Refuses what docker takes for no name of a context.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    if name.is_empty() {
        return Err(Error::invalid("context name cannot be empty"));
    }
    if name == DEFAULT {
        return Err(Error::invalid("\"default\" is a reserved context name"));
    }
    let begins = name.starts_with(|letter: char| letter.is_ascii_alphanumeric());
    let rest = name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_.+-".contains(letter));
    if name.len() < 2 || !begins || !rest {
        return Err(Error::invalid(format!(
            "context name {name:?} is invalid, names are validated against regexp \
             \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\""
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_kept_as_docker_keeps_them() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store { root: directory.path().join("contexts") };
        assert!(store.all().is_empty() && !store.has("xx"));
        store.put(&Meta::new("xx", "my d", "unix:///x")).unwrap();
        // The directory's name is what docker makes of "xx".
        let path = store
            .root
            .join("meta/5dde896887f6754c9b15bfe3a441ae4806df2fde94001311e08bf110622e0bbe/meta.json");
        assert_eq!(
            fs::read_to_string(path).unwrap(),
            r#"{"Name":"xx","Metadata":{"Description":"my d"},"Endpoints":{"docker":{"Host":"unix:///x","SkipTLSVerify":false}}}"#
        );
        assert_eq!(store.get("xx").unwrap(), store.all()[0]);
        store.remove("xx").unwrap();
        assert!(store.get("xx").unwrap_err().to_string().contains("context not found: open "));
    }

    #[test]
    fn what_others_wrote_is_kept() {
        let text = r#"{"Name":"a1","Metadata":{"Other":1},"Endpoints":{"kubernetes":{"Host":"k"}}}"#;
        let meta: Meta = serde_json::from_str(text).unwrap();
        assert_eq!((meta.description(), meta.host()), ("", ""));
        assert_eq!(serde_json::to_string(&meta).unwrap(), text);
    }

    #[test]
    fn names() {
        for name in ["", "default", "x", "a b", "-ab", "a/b", "../.."] {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert!(check_name("my-context.1").is_ok());
    }
}
