//! Manifest lists that are being put together, where docker's client keeps its own, in its form:
//!
//! ```text
//! ~/.docker/manifests/docker.io_library_app-latest/docker.io_library_app-amd64
//!                     the list                     one of its manifests: { Ref, Descriptor, Raw, … }
//! ```

use std::fs;
use std::io;
use std::path::PathBuf;

use ponton_api::base64;
use ponton_oci::descriptor::Descriptor;
use ponton_oci::media_type::OCI_MANIFEST;
use ponton_oci::reference::Reference;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config;
use crate::error::Error;

/// One manifest of a list.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// Full name of the image.
    pub(super) name: String,
    /// With the platform.
    pub(super) descriptor: Descriptor,
    /// The manifest, byte for byte.
    pub(super) raw: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Stored {
    r#ref: String,
    descriptor: Descriptor,
    raw: String,
}

impl Entry {
    /// As docker's client writes it, to files and with `inspect --verbose`.
    pub(super) fn to_json(&self) -> Value {
        let kind =
            if self.descriptor.media_type == OCI_MANIFEST { "OCIManifest" } else { "SchemaV2Manifest" };
        let mut value =
            json!({ "Ref": self.name, "Descriptor": self.descriptor, "Raw": base64::encode(&self.raw) });
        value[kind] = serde_json::from_slice(&self.raw).unwrap_or_default();
        value
    }
}

/// The lists of a user.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
}

impl Store {
    pub(super) fn of_user() -> Self {
        Self { directory: config::directory().join("manifests") }
    }

    fn path(&self, list: &Reference) -> PathBuf {
        self.directory.join(file_name(list))
    }

    /// The manifests of a list, in the order of their names; none if there is no such list.
    pub(super) fn list(&self, list: &Reference) -> Result<Vec<Entry>, Error> {
        let directory = self.path(list);
        let error = |source| Error::file("open", directory.display().to_string(), source);
        let entries = match fs::read_dir(&directory) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(error)?,
        };
        let mut paths = Vec::new();
        for entry in entries {
            let entry = entry.map_err(error)?;
            if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                paths.push(entry.path());
            }
        }
        paths.sort();
        paths.into_iter().filter_map(|path| read(path).transpose()).collect()
    }

    /// The same; an error if there is none.
    pub(super) fn existing(&self, list: &Reference) -> Result<Vec<Entry>, Error> {
        match self.list(list)? {
            entries if entries.is_empty() => {
                Err(Error::invalid(format!("No such manifest: {}", list.familiar())))
            }
            entries => Ok(entries),
        }
    }

    /// The manifest of an image in a list.
    pub(super) fn get(&self, list: &Reference, image: &Reference) -> Result<Option<Entry>, Error> {
        read(self.path(list).join(file_name(image)))
    }

    /// Adds a manifest to a list, which is made if it is not there.
    pub(super) fn save(&self, list: &Reference, entry: &Entry) -> Result<(), Error> {
        let image = Reference::parse(&entry.name).map_err(|error| Error::invalid(error.to_string()))?;
        let directory = self.path(list);
        let path = directory.join(file_name(&image));
        let error = |source| Error::file("write", path.display().to_string(), source);
        fs::create_dir_all(&directory).map_err(error)?;
        let temporary = directory.join(format!(".tmp-{}", std::process::id()));
        let text = serde_json::to_vec(&entry.to_json()).map_err(io::Error::other);
        let written = text.and_then(|text| fs::write(&temporary, text));
        let written = written.and_then(|()| fs::rename(&temporary, &path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written.map_err(error)
    }

    /// Forgets a list.
    pub(super) fn remove(&self, list: &Reference) -> Result<(), Error> {
        let directory = self.path(list);
        fs::remove_dir_all(&directory)
            .map_err(|source| Error::file("remove", directory.display().to_string(), source))
    }
}

fn file_name(reference: &Reference) -> String {
    reference.to_string().replace(':', "-").replace('/', "_")
}

fn read(path: PathBuf) -> Result<Option<Entry>, Error> {
    let shown = path.display().to_string();
    let bytes = match fs::read(path) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|source| Error::file("read", &*shown, source))?,
    };
    let broken = |reason: String| Error::invalid(format!("decode {shown}: {reason}"));
    let stored: Stored = serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
    let raw = base64::decode(&stored.raw).ok_or_else(|| broken("Raw is not base64".to_owned()))?;
    Ok(Some(Entry { name: stored.r#ref, descriptor: stored.descriptor, raw }))
}

#[cfg(test)]
mod tests {
    use ponton_oci::digest::Digest;
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn lists_are_kept_and_forgotten() {
        let directory = TempDir::new().unwrap();
        let store = Store { directory: directory.path().join("manifests") };
        let list = Reference::parse("h:5000/app").unwrap();
        assert!(store.list(&list).unwrap().is_empty());
        assert_eq!(store.existing(&list).unwrap_err().to_string(), "No such manifest: h:5000/app:latest");
        let raw = b"{\"schemaVersion\":2}".to_vec();
        let descriptor = Descriptor::new(OCI_MANIFEST, Digest::sha256_of(&raw), raw.len() as u64);
        let entry = Entry { name: "h:5000/app:amd64".to_owned(), descriptor, raw };
        store.save(&list, &entry).unwrap();
        let image = Reference::parse("h:5000/app:amd64").unwrap();
        assert_eq!(store.get(&list, &image).unwrap(), Some(entry.clone()));
        assert_eq!(store.existing(&list).unwrap(), [entry]);
        assert!(directory.path().join("manifests/h-5000_app-latest/h-5000_app-amd64").is_file());
        store.remove(&list).unwrap();
        assert!(store.list(&list).unwrap().is_empty());
    }
}
