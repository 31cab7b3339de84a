//! What is asked of registries beside pulling and pushing.

use std::sync::Arc;

use ponton_api::auth::{AuthConfig, AuthResponse};
use ponton_api::distribution::{Descriptor as ApiDescriptor, Inspect, Platform as ApiPlatform};
use ponton_api::image::SearchResult;
use ponton_oci::descriptor::Descriptor;
use ponton_oci::index::Index;
use ponton_oci::manifest::Manifest;
use ponton_oci::platform::Platform;
use ponton_oci::reference::Reference;
use ponton_registry::{Credentials, Kind, Search, TagOrDigest};

use super::list::api_platform;
use super::{parse_reference, truth};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result, chain};
use crate::request::SearchRequest;

/// The longest configuration of an image that is read to learn its platform.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

impl Engine {
    /// Asks a registry whether it accepts credentials.
    pub async fn login(self: &Arc<Self>, auth: AuthConfig) -> Result<AuthResponse> {
        let registry = host(&auth.serveraddress);
        let status = self.registries.login(registry, &credentials(&auth)).await.map_err(|error| {
            let kind = match error.kind() {
                Kind::Unauthorized | Kind::Denied => ErrorKind::Unauthorized,
                kind => error_kind(kind),
            };
            Error { kind, message: chain(&error), source: Some(Box::new(error)) }
        })?;
        Ok(AuthResponse {
            status: "Login Succeeded".into(),
            identity_token: status.identity_token.unwrap_or_default(),
        })
    }

    /// What a name means in its registry.
    pub async fn distribution_inspect(self: &Arc<Self>, name: &str, auth: &AuthConfig) -> Result<Inspect> {
        let reference = parse_reference(name)?;
        let repository = self.registries.repository(&reference, credentials(auth));
        let refused = |error| refused(error, &reference);
        let fetched = repository.manifest(&TagOrDigest::from(&reference)).await.map_err(refused)?;
        let platforms = if fetched.descriptor.media_type.ends_with("list.v2+json")
            || fetched.descriptor.media_type.ends_with("index.v1+json")
        {
            let index: Index = parse(&fetched.bytes, &reference)?;
            index.manifests.into_iter().filter_map(|manifest| manifest.platform).collect()
        } else {
            let manifest: Manifest = parse(&fetched.bytes, &reference)?;
            let config = small_blob(&repository, &manifest.config, &reference).await?;
            // The names of a configuration's fields are those of a platform.
            vec![parse::<Platform>(&config, &reference)?]
        };
        Ok(Inspect {
            descriptor: api_descriptor(&fetched.descriptor),
            platforms: Some(platforms.iter().map(api_platform).collect::<Vec<ApiPlatform>>()),
        })
    }

    /// Searches a registry.
    pub async fn image_search(self: &Arc<Self>, request: SearchRequest) -> Result<Vec<SearchResult>> {
        let filters = &request.filters;
        filters
            .check_known(&["is-automated", "is-official", "stars"])
            .map_err(|error| Error::invalid(error.to_string()))?;
        let stars = filters
            .get("stars")
            .map(|text| text.parse().map_err(|_| Error::invalid(format!("invalid filter 'stars={text}'"))));
        let stars = stars.collect::<Result<Vec<u64>>>()?.into_iter().max();
        let (registry, term) = searched(&request.term);
        let search = Search {
            term: term.to_owned(),
            limit: (request.limit > 0).then_some(request.limit),
            is_official: truth(filters, "is-official")?,
            is_automated: truth(filters, "is-automated")?,
            stars,
        };
        let found = self.registries.search(registry, &credentials(&request.auth), &search).await;
        let found = found.map_err(|error| Error {
            kind: error_kind(error.kind()),
            message: chain(&error),
            source: Some(Box::new(error)),
        })?;
        Ok(found
            .into_iter()
            .map(|result| SearchResult {
                star_count: result.star_count as i64,
                is_official: result.is_official,
                name: result.name,
                is_automated: result.is_automated,
                description: result.description,
            })
            .collect())
    }
}

async fn small_blob(
    repository: &ponton_registry::Repository,
    descriptor: &Descriptor,
    reference: &Reference,
) -> Result<Vec<u8>> {
    if descriptor.size > MAX_CONFIG_BYTES {
        return Err(Error::invalid(format!("the configuration of {} is too large", reference.familiar())));
    }
    let refused = |error| refused(error, reference);
    let mut blob = repository.blob(descriptor, 0).await.map_err(refused)?;
    let mut bytes = Vec::new();
    while let Some(chunk) = blob.next().await {
        bytes.extend_from_slice(&chunk.map_err(refused)?);
    }
    Ok(bytes)
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], reference: &Reference) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::invalid(format!("manifest of {}: {error}", reference.familiar())))
}

fn api_descriptor(descriptor: &Descriptor) -> ApiDescriptor {
    ApiDescriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.to_string(),
        size: descriptor.size as i64,
        annotations: descriptor.annotations.clone(),
        ..ApiDescriptor::default()
    }
}

/// What a client says of itself, as the registries' client takes it.
pub(super) fn credentials(auth: &AuthConfig) -> Credentials {
    if !auth.registrytoken.is_empty() {
        return Credentials::RegistryToken(auth.registrytoken.clone());
    }
    if !auth.identitytoken.is_empty() {
        return Credentials::IdentityToken(auth.identitytoken.clone());
    }
    match auth.name_and_password() {
        (name, _) if name.is_empty() => Credentials::Anonymous,
        (username, password) => Credentials::Basic { username, password },
    }
}

/// The registry that a server's address means: a host with its port, or a URL.
pub(super) fn host(server: &str) -> &str {
    let bare = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
    match bare.split('/').next().unwrap_or_default() {
        "" | "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

/// The registry that is searched, and what for.
fn searched(term: &str) -> (&str, &str) {
    match term.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (self::host(host), rest),
        _ => ("docker.io", term),
    }
}

fn error_kind(kind: Kind) -> ErrorKind {
    match kind {
        Kind::NotFound => ErrorKind::NotFound,
        Kind::Unauthorized => ErrorKind::Unauthorized,
        Kind::Denied => ErrorKind::Forbidden,
        Kind::Invalid => ErrorKind::Invalid,
        Kind::Cancelled => ErrorKind::Cancelled,
        // Docker says 500 for a registry that cannot be reached, and clients tell it from a daemon
        // that is not there.
        Kind::Unavailable | Kind::Untrusted | Kind::Internal => ErrorKind::Internal,
    }
}

/// A registry's refusal to give an image, in Docker's words.
pub(super) fn refused(error: ponton_registry::Error, reference: &Reference) -> Error {
    let (kind, message) = refusal(&error, reference);
    Error { kind, message, source: Some(Box::new(error)) }
}

fn refusal(error: &ponton_registry::Error, reference: &Reference) -> (ErrorKind, String) {
    use ponton_registry::Error as Registry;
    let name = reference.familiar_name();
    match error {
        Registry::Denied { message, .. } | Registry::Unauthorized { message, .. } => (
            ErrorKind::NotFound,
            format!(
                "pull access denied for {name}, repository does not exist or may require 'docker login': {message}"
            ),
        ),
        Registry::NotFound { message, .. } if message.starts_with("name unknown") => {
            (ErrorKind::NotFound, format!("repository {name} not found: {message}"))
        }
        Registry::NotFound { message, .. } => {
            (ErrorKind::NotFound, format!("manifest for {} not found: {message}", reference.familiar()))
        }
        error => (error_kind(error.kind()), chain(error)),
    }
}

/// The same of an error in whose causes a registry's may be.
pub(super) fn refused_image(error: ponton_image::Error, reference: &Reference) -> Error {
    match error {
        ponton_image::Error::Registry(error) => refused(error, reference),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_hosts() {
        for (server, expected) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("", "docker.io"),
            ("http://localhost:5000", "localhost:5000"),
            ("registry.example/v2/", "registry.example"),
        ] {
            assert_eq!(host(server), expected);
        }
        assert_eq!(searched("localhost:5000/a/b"), ("localhost:5000", "a/b"));
        assert_eq!(searched("user/name"), ("docker.io", "user/name"));
    }

    #[test]
    fn refusals_are_dockers() {
        let reference: Reference = "nosuch:1".parse().unwrap();
        let what = "docker.io/library/nosuch".to_owned();
        let message = "denied: requested access to the resource is denied".to_owned();
        let denied = refused(ponton_registry::Error::Denied { what: what.clone(), message }, &reference);
        assert_eq!(denied.kind, ErrorKind::NotFound);
        assert_eq!(
            denied.message,
            "pull access denied for nosuch, repository does not exist or may require 'docker login': denied: \
             requested access to the resource is denied"
        );
        let message = "manifest unknown: manifest unknown".to_owned();
        let unknown = refused(ponton_registry::Error::NotFound { what, message }, &reference);
        assert_eq!(unknown.message, "manifest for nosuch:1 not found: manifest unknown: manifest unknown");
    }
}
