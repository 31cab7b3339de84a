//! Who a client is to a registry: `POST /auth`, and the headers `X-Registry-Auth` and `X-Registry-Config`.
#![expect(missing_docs, reason = "fields are named and documented as in Docker's API reference")]

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::is_default;

/// Credentials for one registry. Its `Debug` shows no secret.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthConfig {
    #[serde(skip_serializing_if = "is_default")]
    pub username: String,
    #[serde(skip_serializing_if = "is_default")]
    pub password: String,
    /// `username:password` in base64.
    #[serde(skip_serializing_if = "is_default")]
    pub auth: String,
    #[serde(skip_serializing_if = "is_default")]
    pub serveraddress: String,
    /// A token that stands for name and password at the server of tokens.
    #[serde(skip_serializing_if = "is_default")]
    pub identitytoken: String,
    /// A token that is sent to the registry as it is.
    #[serde(skip_serializing_if = "is_default")]
    pub registrytoken: String,
}

impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthConfig")
            .field("username", &self.username)
            .field("serveraddress", &self.serveraddress)
            .finish_non_exhaustive()
    }
}

/// `X-Registry-Config`: credentials by registry.
pub type AuthConfigs = BTreeMap<String, AuthConfig>;

/// The answer to `POST /auth`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AuthResponse {
    pub status: String,
    #[serde(skip_serializing_if = "is_default")]
    pub identity_token: String,
}
