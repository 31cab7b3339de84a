//! Images become one archive: an OCI layout that is a docker-archive too, as Docker 25 and later
//! write it, so that everything that loads images loads it.
//!
//! ```text
//! blobs/sha256/<hex>   layers (plain tars), configurations, manifests
//! index.json  oci-layout          for podman, skopeo, containerd, Docker
//! manifest.json  repositories     for Docker of all versions
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufWriter, Write};

use ponton_archive::header::{Header, Kind};
use ponton_archive::writer::Writer;
use ponton_oci::digest::{Digest, ImageId};
use ponton_oci::index::Index;
use ponton_oci::manifest::Manifest;
use ponton_oci::platform::Platform;
use ponton_oci::reference::Reference;
use ponton_oci::{Descriptor, media_type};
use ponton_store::ImageRecord;
use serde::Serialize;

use crate::{Error, Images, Result};

/// What is saved of images, and how.
#[derive(Debug, Clone, Default)]
pub struct SaveOptions {
    /// Only the images for these platforms; all if empty.
    pub platforms: Vec<Platform>,
    /// The archive's form.
    pub format: Format,
}

/// The form of an archive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// An OCI layout that is a docker-archive too.
    #[default]
    Docker,
    /// An OCI layout alone (oci-archive).
    Oci,
}

/// One image of `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ArchivedImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Images {
    /// Writes images as one archive. A name puts that name into it; an id puts the image in without
    /// a name. Layers are rebuilt and verified while they are written.
    pub fn save(&self, names: &[String], _options: &SaveOptions, output: &mut dyn Write) -> Result<()> {
        let images = self.named_images(names)?;
        let mut archive = Archive::new(output);
        archive.directories()?;
        let mut index = Index {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            artifact_type: None,
            manifests: Vec::new(),
            subject: None,
            annotations: BTreeMap::new(),
        };
        let mut list = Vec::new();
        let mut repositories = BTreeMap::<String, BTreeMap<String, String>>::new();
        for (record, references) in images {
            let config = self.store.content().read(record.id.digest())?;
            let mut manifest = Manifest {
                schema_version: 2,
                media_type: Some(media_type::OCI_MANIFEST.to_owned()),
                artifact_type: None,
                config: Descriptor::new(
                    media_type::OCI_CONFIG,
                    record.id.digest().clone(),
                    config.len() as u64,
                ),
                layers: Vec::new(),
                subject: None,
                annotations: BTreeMap::new(),
            };
            for layer in &record.layers {
                let digest = layer.diff_id.digest();
                if archive.begin_blob(digest, layer.tar_size)? {
                    self.write_layer(layer, archive.writer.stream())?;
                    archive.end_blob(layer.tar_size)?;
                }
                manifest.layers.push(Descriptor::new(media_type::OCI_LAYER, digest.clone(), layer.tar_size));
            }
            archive.blob(&config)?;
            let manifest = json(&manifest)?;
            let digest = archive.blob(&manifest)?;
            let descriptor = Descriptor::new(media_type::OCI_MANIFEST, digest, manifest.len() as u64);
            index.manifests.extend(describe(&descriptor, &references));
            for reference in &references {
                let top = record.layers.last().map(|layer| layer.diff_id.hex().to_owned());
                let tags = repositories.entry(reference.familiar_name()).or_default();
                tags.insert(reference.tag().unwrap_or_default().to_owned(), top.unwrap_or_default());
            }
            list.push(ArchivedImage {
                config: path_of(record.id.digest()),
                repo_tags: (!references.is_empty())
                    .then(|| references.iter().map(Reference::familiar).collect()),
                layers: record.layers.iter().map(|layer| path_of(layer.diff_id.digest())).collect(),
            });
        }
        archive.file("index.json", &json(&index)?)?;
        archive.file("manifest.json", &json(&list)?)?;
        archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        if !repositories.is_empty() {
            archive.file("repositories", &json(&repositories)?)?;
        }
        archive.finish()
    }

    /// The images that are meant, each once, with the names under which they were asked for.
    fn named_images(&self, names: &[String]) -> Result<Vec<(ImageRecord, Vec<Reference>)>> {
        let known = self.store.images().references()?;
        let mut images: Vec<(ImageRecord, Vec<Reference>)> = Vec::new();
        for name in names {
            let id: ImageId = self.store.images().resolve(name)?;
            let reference = Reference::parse(name).ok().filter(|name| known.get(name) == Some(&id));
            if let Some((_, references)) = images.iter_mut().find(|(record, _)| record.id == id) {
                references.extend(reference.filter(|reference| !references.contains(reference)));
            } else {
                let record = self.store.images().get(&id)?;
                let record = record.ok_or_else(|| Error::NotFound(name.clone()))?;
                images.push((record, reference.into_iter().collect()));
            }
        }
        Ok(images)
    }
}

/// One descriptor for each name, or one without a name.
fn describe(descriptor: &Descriptor, references: &[Reference]) -> Vec<Descriptor> {
    if references.is_empty() {
        return vec![descriptor.clone()];
    }
    let describe = |reference: &Reference| {
        let mut descriptor = descriptor.clone();
        descriptor.annotations.insert("io.containerd.image.name".to_owned(), reference.to_string());
        let tag = reference.tag().unwrap_or_default().to_owned();
        descriptor.annotations.insert("org.opencontainers.image.ref.name".to_owned(), tag);
        descriptor
    };
    references.iter().map(describe).collect()
}

fn path_of(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::Invalid(format!("write archive: {error}")))
}

fn failed(source: ponton_archive::Error) -> Error {
    Error::Unpack { what: "write image archive".to_owned(), source }
}

/// The archive under way. Its bytes depend on the images alone: no time, no owner.
struct Archive<'a> {
    writer: Writer<BufWriter<&'a mut dyn Write>>,
    written: BTreeSet<Digest>,
}

impl<'a> Archive<'a> {
    fn new(output: &'a mut dyn Write) -> Self {
        Self { writer: Writer::new(BufWriter::with_capacity(1 << 18, output)), written: BTreeSet::new() }
    }

    fn directories(&mut self) -> Result<()> {
        for path in ["blobs/", "blobs/sha256/"] {
            let path = path.as_bytes().to_vec();
            let header = Header { path, kind: Kind::Directory, mode: 0o755, ..Header::default() };
            self.writer.header(&header).map_err(failed)?;
        }
        Ok(())
    }

    fn file(&mut self, path: &str, contents: &[u8]) -> Result<()> {
        let header = Header { path: path.as_bytes().to_vec(), mode: 0o644, ..Header::default() };
        self.writer.file(&header, contents).map_err(failed)
    }

    fn blob(&mut self, contents: &[u8]) -> Result<Digest> {
        let digest = Digest::sha256_of(contents);
        if self.begin_blob(&digest, contents.len() as u64)? {
            self.writer.stream().write_all(contents).map_err(Error::io("write image archive"))?;
            self.end_blob(contents.len() as u64)?;
        }
        Ok(digest)
    }

    /// False if the blob is in the archive already.
    fn begin_blob(&mut self, digest: &Digest, size: u64) -> Result<bool> {
        if !self.written.insert(digest.clone()) {
            return Ok(false);
        }
        let path = path_of(digest).into_bytes();
        self.writer.header(&Header { path, mode: 0o644, size, ..Header::default() }).map_err(failed)?;
        Ok(true)
    }

    fn end_blob(&mut self, size: u64) -> Result<()> {
        self.writer.pad(size).map_err(failed)
    }

    fn finish(self) -> Result<()> {
        self.writer.finish().map_err(failed)?;
        Ok(())
    }
}
