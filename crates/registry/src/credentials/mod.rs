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

use std::fmt;
use std::path::PathBuf;

use crate::error::{Error, Result};

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
    /// `auth.json` files of podman and skopeo, where no other names a registry.
    pub fn of_user() -> Self {
        Self { config: PathBuf::new(), further: Vec::new() }
    }

    /// Those of one `config.json`, which needn't exist.
    pub fn at(config: PathBuf) -> Self {
        Self { config, further: Vec::new() }
    }

    /// The credentials for a registry (`docker.io`, `host:port`); [`Credentials::Anonymous`] if there are none.
    pub fn get(&self, _registry: &str) -> Result<Credentials> {
        let _ = (&self.config, &self.further);
        Err(Error::NotImplemented("credentials"))
    }

    /// All of them, by server as it is written (`https://index.docker.io/v1/`): what `X-Registry-Config` is
    /// made of.
    pub fn all(&self) -> Result<Vec<(String, Credentials)>> {
        Err(Error::NotImplemented("credentials"))
    }

    /// Keeps the credentials for a registry: with the helper that is configured, or in `config.json`.
    /// `username` is kept beside an identity token. True: they are unencrypted in the file, which a user
    /// should be told.
    pub fn store(&self, _registry: &str, _username: &str, _credentials: &Credentials) -> Result<bool> {
        Err(Error::NotImplemented("credentials"))
    }

    /// Forgets the credentials for a registry. False: there were none.
    pub fn erase(&self, _registry: &str) -> Result<bool> {
        Err(Error::NotImplemented("credentials"))
    }

    /// The user's name that is kept for a registry, to be offered at the next login.
    pub fn username(&self, _registry: &str) -> Result<Option<String>> {
        Err(Error::NotImplemented("credentials"))
    }
}

/// The server's name under which docker keeps the credentials of a registry.
pub fn server(registry: &str) -> &str {
    match registry {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => "https://index.docker.io/v1/",
        other => other,
    }
}
