//! docker's `config.json` and podman's `auth.json`.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_STANDARD;
use serde::Serialize as _;
use serde_json::{Map, Value, json};

use super::{Credentials, error};
use crate::client::registry_of;
use crate::error::Result;

/// Bytes of a file that are read.
const FILE_MAX: u64 = 16 << 20;
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A file of credentials, and whatever else is in it.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    members: Map<String, Value>,
}

/// What a file has for one server.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) username: Option<String>,
    pub(super) credentials: Credentials,
}

impl File {
    /// Reads a file; one that isn't there is empty.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        let mut text = String::new();
        match fs::File::open(&path).and_then(|file| file.take(FILE_MAX).read_to_string(&mut text)) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => {}
            read => {
                read.map_err(|failure| error(path.display(), failure))?;
            }
        }
        let members = match text.trim().is_empty() {
            true => Map::new(),
            false => serde_json::from_str(&text).map_err(|failure| error(path.display(), failure))?,
        };
        Ok(Self { path, members })
    }

    fn member(&self, name: &str) -> Option<&Map<String, Value>> {
        self.members.get(name)?.as_object()
    }

    /// The helper that has the credentials of a server.
    pub(super) fn helper(&self, server: &str) -> Option<&str> {
        let helpers = self.member("credHelpers");
        let own = helpers.and_then(|helpers| {
            let mut names = helpers.iter().filter(|(name, _)| is_same_server(name, server));
            names.find_map(|(_, helper)| helper.as_str())
        });
        own.or(self.store()).filter(|name| !name.is_empty())
    }

    /// The helper that has those of all servers without one of their own.
    pub(super) fn store(&self) -> Option<&str> {
        self.members.get("credsStore")?.as_str().filter(|name| !name.is_empty())
    }

    /// Servers with helpers of their own.
    pub(super) fn helped(&self) -> impl Iterator<Item = &String> {
        self.member("credHelpers").into_iter().flat_map(Map::keys)
    }

    /// Servers with an entry.
    pub(super) fn servers(&self) -> Vec<String> {
        self.member("auths").into_iter().flat_map(Map::keys).cloned().collect()
    }

    /// The entry of a server, written as it is here or in any other way.
    pub(super) fn entry(&self, registry: &str) -> Result<Option<Entry>> {
        let Some(auths) = self.member("auths") else { return Ok(None) };
        let exact = auths.get(super::server(registry)).or(auths.get(registry));
        let similar = || auths.iter().find(|(name, _)| is_same_server(name, registry)).map(|(_, auth)| auth);
        let Some(auth) = exact.or_else(similar) else { return Ok(None) };
        let entry = Entry::parse(auth);
        entry
            .ok_or_else(|| {
                error(self.path.display(), format!("the credentials for {registry} can't be read"))
            })
            .map(Some)
    }

    pub(super) fn set(&mut self, server: &str, entry: &Entry) {
        self.remove(server);
        let auths = self.members.entry("auths").or_insert_with(|| json!({}));
        if !auths.is_object() {
            *auths = json!({});
        }
        if let Some(auths) = auths.as_object_mut() {
            auths.insert(server.to_owned(), entry.to_value());
        }
    }

    /// Removes all entries of a server; false if there are none.
    pub(super) fn remove(&mut self, registry: &str) -> bool {
        let Some(auths) = self.members.get_mut("auths").and_then(Value::as_object_mut) else { return false };
        let before = auths.len();
        auths.retain(|name, _| !is_same_server(name, registry));
        auths.len() < before
    }

    /// Writes the file whole, or leaves it as it was. It is the user's alone.
    pub(super) fn write(&self) -> Result<()> {
        self.replace().map_err(|failure| error(self.path.display(), failure))
    }

    fn replace(&self) -> io::Result<()> {
        // Who keeps the file elsewhere and has a link to it here keeps the link.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let new = path.with_file_name(format!(".config.json.{}", std::process::id()));
        let mut bytes = Vec::new();
        let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        self.members.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, tabs))?;
        let written = (|| {
            let _ = fs::remove_file(&new);
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&new, &path)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written
    }
}

impl Entry {
    fn parse(auth: &Value) -> Option<Self> {
        let text = |name: &str| auth.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let mut username = text("username").map(ToOwned::to_owned);
        let mut password = text("password").map(ToOwned::to_owned);
        if let Some(encoded) = text("auth") {
            let decoded = String::from_utf8(LENIENT.decode(encoded.trim()).ok()?).ok()?;
            let (name, secret) = decoded.split_once(':')?;
            username = Some(name.to_owned()).filter(|name| !name.is_empty());
            password = Some(secret.trim_matches('\0').to_owned());
        }
        let credentials = match (text("identitytoken"), text("registrytoken"), &username) {
            (Some(token), _, _) => Credentials::IdentityToken(token.to_owned()),
            (None, Some(token), _) => Credentials::RegistryToken(token.to_owned()),
            (None, None, Some(username)) => {
                Credentials::Basic { username: username.clone(), password: password.unwrap_or_default() }
            }
            (None, None, None) => Credentials::Anonymous,
        };
        Some(Self { username, credentials })
    }

    fn to_value(&self) -> Value {
        let auth = |name: &str, password: &str| BASE64_STANDARD.encode(format!("{name}:{password}"));
        let name = self.username.as_deref();
        match (&self.credentials, name) {
            (Credentials::Anonymous, _) => json!({}),
            (Credentials::Basic { username, password }, _) => json!({ "auth": auth(username, password) }),
            (Credentials::IdentityToken(token), Some(name)) => {
                json!({ "auth": auth(name, ""), "identitytoken": token })
            }
            (Credentials::IdentityToken(token), None) => json!({ "identitytoken": token }),
            (Credentials::RegistryToken(token), _) => json!({ "registrytoken": token }),
        }
    }
}

/// Whether two spellings mean one server.
fn is_same_server(a: &str, b: &str) -> bool {
    registry_of(a) == registry_of(b)
}
