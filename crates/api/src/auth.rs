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

impl AuthConfig {
    /// The name and the password, also those that are given together in `auth`.
    pub fn name_and_password(&self) -> (String, String) {
        if !self.username.is_empty() || self.auth.is_empty() {
            return (self.username.clone(), self.password.clone());
        }
        let text = crate::base64::decode(&self.auth).and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.unwrap_or_default();
        let (name, password) = text.split_once(':').unwrap_or((&text, ""));
        (name.to_owned(), password.trim_end_matches('\0').to_owned())
    }
}

/// Reads the header `X-Registry-Auth` or `X-Registry-Config`: JSON in base64. What cannot be read counts
/// as nothing, as with dockerd.
pub fn decode_header<T: serde::de::DeserializeOwned + Default>(header: &str) -> T {
    let bytes = crate::base64::decode(header.trim()).unwrap_or_default();
    crate::json::from_slice(&bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read() {
        let text =
            crate::base64::encode_url(br#"{"username":"u","password":"p>?","serveraddress":"h:5000"}"#);
        let auth: AuthConfig = decode_header(&text);
        assert_eq!(auth.name_and_password(), ("u".to_owned(), "p>?".to_owned()));
        assert!(!format!("{auth:?}").contains("p>?"));
        let auth = AuthConfig { auth: crate::base64::encode(b"a:b:c"), ..AuthConfig::default() };
        assert_eq!(auth.name_and_password(), ("a".to_owned(), "b:c".to_owned()));
        assert_eq!(decode_header::<AuthConfig>("no JSON"), AuthConfig::default());
    }
}
