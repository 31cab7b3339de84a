//! Plain data of the Open Container Initiative's specifications: digests, references, descriptors,
//! manifests, image configurations and the runtime specification.
//!
//! *Invariant*: nothing here reads or writes anything; values are parsed from bytes that others
//! have read, and printed to bytes that others will write.

pub mod descriptor;
pub mod digest;
pub mod image_config;
pub mod index;
pub mod manifest;
pub mod media_type;
pub mod platform;
pub mod reference;
pub mod runtime;

pub use descriptor::Descriptor;
pub use digest::{ChainId, DiffId, Digest, ImageId, ManifestDigest};
pub use image_config::ImageConfig;
pub use index::Index;
pub use manifest::Manifest;
pub use platform::Platform;
pub use reference::Reference;

/// Reads JSON's `null` as the type's default, as Go's decoder does.
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + serde::Deserialize<'de>,
{
    Ok(<Option<T> as serde::Deserialize>::deserialize(deserializer)?.unwrap_or_default())
}
