//! What the user has stored for registries, as the daemon is told it. The daemon keeps none of it.

use ponton_api::auth::AuthConfig;
use ponton_registry::Credentials;
use ponton_registry::credentials::{CredentialStore, server};

use crate::{config, output};

/// Where the user's credentials are.
pub(crate) fn store() -> CredentialStore {
    CredentialStore::of_user_in(&config::directory())
}

/// The stored credentials for a registry (`docker.io`, `host:port`); none if they cannot be read, which is said.
pub(crate) fn stored(registry: &str) -> Credentials {
    store().get(registry).unwrap_or_else(|error| {
        output::complain(&format!("WARNING: Error loading credentials of {registry}: {error}"));
        Credentials::Anonymous
    })
}

/// The same for `X-Registry-Auth`.
pub(crate) fn auth_for(registry: &str) -> AuthConfig {
    auth_config(registry, stored(registry))
}

/// Credentials as Docker's API writes them.
pub(crate) fn auth_config(registry: &str, credentials: Credentials) -> AuthConfig {
    let empty = AuthConfig::default();
    let mut auth = match credentials {
        Credentials::Anonymous => return empty,
        Credentials::Basic { username, password } => AuthConfig { username, password, ..empty },
        Credentials::IdentityToken(identitytoken) => AuthConfig { identitytoken, ..empty },
        Credentials::RegistryToken(registrytoken) => AuthConfig { registrytoken, ..empty },
    };
    auth.serveraddress = server(registry).to_owned();
    auth
}
