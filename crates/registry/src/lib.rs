//! The client end of the distribution protocol (OCI distribution 1.1, Docker's registry API v2): how images
//! come from registries and go to them.
//!
//! ```text
//! Client ──repository()──► Repository ──► endpoints: mirrors first (pull only), then the registry itself
//!                              │              each: transport (TLS, proxy, pool) + access (tokens)
//!                              ├─ manifest, head_manifest, tags, referrers     small, bounded, verified
//!                              ├─ blob ──► Blob      a stream: resumed with Range, verified as it flows
//!                              └─ push_blob, upload, mount_blob, push_manifest
//! ```
//!
//! A registry is not trusted: each answer has a bound of size and of idle time, redirects and retries are
//! counted, and content is accepted by its digest alone. What a registry is told is bounded too: credentials
//! go to the registry that they are for, and to the server of tokens that it names, and to nobody else
//! wherever a redirect may point.
//!
//! Not for storing: what is fetched is handed on.

pub mod blocking;
pub mod credentials;

pub mod challenge;

mod access;
mod blob;
mod client;
mod config;
mod connect;
mod endpoint;
mod error;
mod list;
mod manifest;
mod redirect;
mod repository;
mod search;
mod transport;
mod tries;
mod trust;
mod upload;

pub use blob::Blob;
pub use client::{Client, LoginStatus};
pub use config::{Cancel, Config, Limits, Proxy};
pub use credentials::Credentials;
pub use error::{Error, Kind, Result};
pub use repository::{Fetched, Repository, TagOrDigest};
pub use search::{Search, SearchResult};
pub use upload::{Source, Upload};

#[cfg(test)]
mod tests {
    use super::*;

    /// What is waited for may be waited for by a task of its own.
    #[expect(dead_code, reason = "compiled, not run")]
    fn tasks(client: &Client, repository: &Repository, mut blob: Blob, mut upload: Upload) {
        fn is_send(_: impl Send) {}
        let tag = TagOrDigest::Tag(String::new());
        let digest = ponton_oci::digest::Digest::sha256_of(b"");
        let descriptor = ponton_oci::descriptor::Descriptor::new("", digest.clone(), 0);
        is_send(client.login("", &Credentials::Anonymous));
        is_send(client.search("", &Credentials::Anonymous, &Search::default()));
        is_send(repository.manifest(&tag));
        is_send(repository.head_manifest(&tag));
        is_send(repository.blob(&descriptor, 0));
        is_send(repository.push_blob(&descriptor, &|| Ok(Box::new(std::io::empty()))));
        is_send(repository.push_manifest(&tag, "", bytes::Bytes::new()));
        is_send(repository.mount_blob(&digest, ""));
        is_send(repository.referrers(&digest, None));
        is_send(repository.tags());
        is_send(blob.next());
        is_send(upload.write(bytes::Bytes::new()));
        is_send(upload.finish(&digest));
    }
}
