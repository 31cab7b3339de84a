//! Credentials, and where docker keeps them: `config.json`, credential helpers, `auth.json`.
//!
//! ```text
//! $DOCKER_CONFIG/config.json, ~/.docker/config.json
//!   auths        { "<server>": { auth: base64("user:password"), identitytoken, registrytoken } }
//!   credsStore   "<name>"                 docker-credential-<name> holds all
//!   credHelpers  { "<server>": "<name>" } … holds those of one registry
//! $REGISTRY_AUTH_FILE, $XDG_RUNTIME_DIR/containers/auth.json, ~/.config/containers/auth.json
//!   the same `auths`, read only
//! ```
//!
//! The server of Docker Hub is written `https://index.docker.io/v1/` there, any other by its host.

mod file;
mod helper;

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use file::{Entry, File};
use helper::Helper;

/// Who asks a registry.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub enum Credentials {
    /// Nobody.
    #[default]
    Anonymous,
    /// A user with a password, or with what the registry takes as one.
    Basic {
        /// Name.
        username: String,
        /// Secret.
        password: String,
    },
    /// What a registry gave at a login instead of the password: tokens are had for it.
    IdentityToken(String),
    /// A token that is shown as it is.
    RegistryToken(String),
}

impl fmt::Debug for Credentials {
    /// Without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Basic { username, .. } => write!(f, "Basic({username:?})"),
            Self::IdentityToken(_) => f.write_str("IdentityToken"),
            Self::RegistryToken(_) => f.write_str("RegistryToken"),
        }
    }
}

/// The stored credentials of a user.
#[derive(Clone, Debug)]
pub struct CredentialStore {
    /// docker's `config.json`, which is written as well.
    config: PathBuf,
    /// Files that are only read.
    further: Vec<PathBuf>,
}

impl CredentialStore {
    /// Those of the user whose environment this process has: `$DOCKER_CONFIG` or `~/.docker`, and the
    /// `auth.json` files of podman and skopeo for what isn't there.
    pub fn of_user() -> Self {
        let home = env::home_dir().unwrap_or_default();
        Self::of_user_in(&variable("DOCKER_CONFIG").unwrap_or_else(|| home.join(".docker")))
    }

    /// The same, with docker's `config.json` in another directory.
    pub fn of_user_in(directory: &Path) -> Self {
        let set = variable;
        let home = env::home_dir().unwrap_or_default();
        let config = directory.join("config.json");
        let user = set("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config"));
        let further = [set("XDG_RUNTIME_DIR"), Some(user)].into_iter().flatten();
        let further = further.map(|at| at.join("containers/auth.json"));
        Self { config, further: set("REGISTRY_AUTH_FILE").into_iter().chain(further).collect() }
    }

    /// Those of one `config.json`, which needn't exist.
    pub fn at(config: PathBuf) -> Self {
        Self { config, further: Vec::new() }
    }

    /// The credentials for a registry (`docker.io`, `host:port`); [`Credentials::Anonymous`] if there are none.
    pub fn get(&self, registry: &str) -> Result<Credentials> {
        let file = File::read(&self.config)?;
        let found = match file.helper(server(registry)) {
            Some(helper) => Helper::new(helper)?.get(server(registry))?,
            None => file.entry(registry)?.map(|entry| entry.credentials).unwrap_or_default(),
        };
        if found != Credentials::Anonymous {
            return Ok(found);
        }
        for further in &self.further {
            if let Some(entry) = File::read(further)?.entry(registry)? {
                return Ok(entry.credentials);
            }
        }
        Ok(Credentials::Anonymous)
    }

    /// All of them, by server as it is written (`https://index.docker.io/v1/`): what `X-Registry-Config` is
    /// made of.
    pub fn all(&self) -> Result<Vec<(String, Credentials)>> {
        let file = File::read(&self.config)?;
        let mut servers = file.servers();
        if let Some(helper) = file.store() {
            servers.extend(Helper::new(helper)?.list()?);
        }
        servers.extend(file.helped().map(ToOwned::to_owned));
        servers.sort();
        servers.dedup();
        let credentials = |server: String| self.get(&server).map(|found| (server, found));
        let mut all = servers.into_iter().map(credentials).collect::<Result<Vec<_>>>()?;
        all.retain(|(_, credentials)| *credentials != Credentials::Anonymous);
        Ok(all)
    }

    /// Keeps the credentials for a registry: with the helper that is configured, or in `config.json`.
    /// `username` is kept beside an identity token. True: they are unencrypted in the file, which a user
    /// should be told.
    pub fn store(&self, registry: &str, username: &str, credentials: &Credentials) -> Result<bool> {
        let mut file = File::read(&self.config)?;
        let server = server(registry);
        let helper = file.helper(server).map(Helper::new).transpose()?;
        if let Some(helper) = &helper {
            helper.store(server, credentials)?;
            file.set(server, &Entry::default());
        } else {
            let username = Some(username.to_owned()).filter(|name| !name.is_empty());
            file.set(server, &Entry { username, credentials: credentials.clone() });
        }
        file.write()?;
        Ok(helper.is_none())
    }

    /// Forgets the credentials for a registry. False: there were none.
    pub fn erase(&self, registry: &str) -> Result<bool> {
        let mut file = File::read(&self.config)?;
        let server = server(registry);
        let mut is_known = file.remove(registry);
        if is_known {
            file.write()?;
        }
        if let Some(helper) = file.helper(server) {
            let helper = Helper::new(helper)?;
            is_known |= helper.get(server)? != Credentials::Anonymous;
            helper.erase(server)?;
        }
        Ok(is_known)
    }

    /// The user's name that is kept for a registry, to be offered at the next login.
    pub fn username(&self, registry: &str) -> Result<Option<String>> {
        if let Credentials::Basic { username, .. } = self.get(registry)? {
            return Ok(Some(username));
        }
        Ok(File::read(&self.config)?.entry(registry)?.and_then(|entry| entry.username))
    }
}

fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The server's name under which docker keeps the credentials of a registry.
pub fn server(registry: &str) -> &str {
    match registry {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => "https://index.docker.io/v1/",
        other => other,
    }
}

fn error(what: impl fmt::Display, reason: impl fmt::Display) -> Error {
    Error::Credentials { what: what.to_string(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests;
