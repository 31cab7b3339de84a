//! The client: what all repositories share.

use std::sync::Arc;

use ponton_oci::reference::Reference;

use crate::config::Config;
use crate::credentials::Credentials;
use crate::error::{Error, Result};
use crate::repository::Repository;
use crate::search::{Search, SearchResult};

/// A client of registries. Clones share connections and tokens; one is enough for a program.
#[derive(Clone, Debug)]
pub struct Client {
    config: Arc<Config>,
}

/// What became of a login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginStatus {
    /// What the registry wants to get instead of the password from now on, if it gave such a token.
    pub identity_token: Option<String>,
}

impl Client {
    /// A client; nothing is connected yet.
    pub fn new(config: Config) -> Result<Self> {
        Ok(Self { config: Arc::new(config) })
    }

    /// The repository of a name; its tag and digest don't matter. Nothing is asked yet.
    pub fn repository(&self, name: &Reference, credentials: Credentials) -> Repository {
        Repository::new(self.config.clone(), name, credentials)
    }

    /// Asks a registry (`docker.io`, `host:port`) whether it accepts the credentials.
    pub async fn login(&self, _registry: &str, _credentials: &Credentials) -> Result<LoginStatus> {
        Err(Error::NotImplemented("login"))
    }

    /// Searches a registry's repositories (`GET /v1/search`), as Docker's daemon does.
    pub async fn search(
        &self,
        _registry: &str,
        _credentials: &Credentials,
        _search: &Search,
    ) -> Result<Vec<SearchResult>> {
        Err(Error::NotImplemented("search"))
    }
}
