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

mod blob;
mod client;
mod config;
mod error;
mod repository;
mod search;
mod upload;

pub use blob::Blob;
pub use client::{Client, LoginStatus};
pub use config::{Cancel, Config, Limits, Proxy};
pub use credentials::Credentials;
pub use error::{Error, Kind, Result};
pub use repository::{Fetched, Repository, TagOrDigest};
pub use search::{Search, SearchResult};
pub use upload::{Source, Upload};
