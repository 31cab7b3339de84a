//! Images become one archive: an OCI layout that is a docker-archive too, as Docker 25 and later
//! write it, so that everything that loads images loads it.
//!
//! ```text
//! blobs/sha256/<hex>   layers, configurations, manifests
//! index.json  oci-layout          for podman, skopeo, containerd, Docker
//! manifest.json  repositories     for Docker of all versions
//! ```
//!
//! Layers are plain tars, which every Docker reads, and which need no compression again. In an
//! archive for OCI alone, an image whose manifest and compressed layers are here goes out with them,
//! byte for byte.

mod archive;

use std::collections::BTreeMap;
use std::io::Write;

use ponton_oci::digest::{Digest, ImageId};
use ponton_oci::index::Index;
use ponton_oci::manifest::Manifest;
use ponton_oci::platform::Platform;
use ponton_oci::reference::Reference;
use ponton_oci::{Descriptor, media_type};
use ponton_store::ImageRecord;
use serde::Serialize;

use self::archive::{Archive, path_of};
use crate::{Error, Images, Result};

/// What is saved of images, and how.
#[derive(Debug, Clone, Default)]
pub struct SaveOptions {
    /// Only the images for these platforms, of those that are here under the names' indexes; the
    /// images that have the names if empty.
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

/// An image that is saved, and the names that it has in the archive.
struct Chosen {
    record: ImageRecord,
    references: Vec<Reference>,
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
    /// Writes images as one archive. A name puts that name into it, a repository's name without a tag
    /// all its names; an id puts the image in without a name. Layers are rebuilt and verified while
    /// they are written.
    pub fn save(&self, names: &[String], options: &SaveOptions, output: &mut dyn Write) -> Result<()> {
        let groups = self.chosen_images(names, &options.platforms)?;
        let mut archive = Archive::new(output);
        archive.directories()?;
        let mut manifests = Vec::new();
        let mut list = Vec::new();
        let mut repositories = BTreeMap::<String, BTreeMap<String, String>>::new();
        for group in groups {
            let references = group.first().map(|image| image.references.clone()).unwrap_or_default();
            let mut descriptors = Vec::new();
            for Chosen { record, references } in &group {
                let descriptor = self.save_image(record, options.format, &mut archive)?;
                descriptors.push(Descriptor { platform: Some(record.platform.clone()), ..descriptor });
                note_names(record, references, &mut repositories);
                list.push(ArchivedImage {
                    config: path_of(record.id.digest()),
                    repo_tags: (!references.is_empty())
                        .then(|| references.iter().map(Reference::familiar).collect()),
                    layers: record.layers.iter().map(|layer| path_of(layer.diff_id.digest())).collect(),
                });
            }
            let descriptor = match descriptors.len() {
                1 => descriptors.remove(0),
                _ => {
                    let index = json(&index_of(descriptors))?;
                    let digest = archive.blob(&index)?;
                    Descriptor::new(media_type::OCI_INDEX, digest, index.len() as u64)
                }
            };
            manifests.extend(describe(&descriptor, &references));
        }
        archive.file("index.json", &json(&index_of(manifests))?)?;
        if options.format == Format::Docker {
            archive.file("manifest.json", &json(&list)?)?;
        }
        archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        if options.format == Format::Docker && !repositories.is_empty() {
            archive.file("repositories", &json(&repositories)?)?;
        }
        archive.finish()
    }

    /// The images that [`Images::save`] would write. What is not there is an error here, before an
    /// archive begins.
    pub fn saved_images(&self, names: &[String], options: &SaveOptions) -> Result<Vec<ImageId>> {
        let groups = self.chosen_images(names, &options.platforms)?;
        Ok(groups.into_iter().flatten().map(|image| image.record.id).collect())
    }

    /// Writes an image's blobs; gives its manifest's descriptor.
    fn save_image(
        &self,
        record: &ImageRecord,
        format: Format,
        archive: &mut Archive<'_>,
    ) -> Result<Descriptor> {
        let config = self.store.content().read(record.id.digest())?;
        if format == Format::Oci
            && let Some(descriptor) = self.save_as_it_came(record, &config, archive)?
        {
            return Ok(descriptor);
        }
        let mut layers = Vec::new();
        for layer in &record.layers {
            let digest = layer.diff_id.digest();
            archive.blob_written(digest, layer.tar_size, |output| self.write_layer(layer, output))?;
            layers.push(Descriptor::new(media_type::OCI_LAYER, digest.clone(), layer.tar_size));
        }
        let digest = archive.blob(&config)?;
        let manifest = json(&Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config: Descriptor::new(media_type::OCI_CONFIG, digest, config.len() as u64),
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        })?;
        let digest = archive.blob(&manifest)?;
        Ok(Descriptor::new(media_type::OCI_MANIFEST, digest, manifest.len() as u64))
    }

    /// Writes the manifest and the blobs that an image was pulled with, if all of them are kept.
    fn save_as_it_came(
        &self,
        record: &ImageRecord,
        config: &[u8],
        archive: &mut Archive<'_>,
    ) -> Result<Option<Descriptor>> {
        let content = self.store.content();
        let Some(digest) = record.manifest.as_ref().map(ponton_oci::ManifestDigest::digest) else {
            return Ok(None);
        };
        let Ok(bytes) = content.read(digest) else { return Ok(None) };
        let Ok(manifest) = Manifest::from_slice(&bytes) else { return Ok(None) };
        let is_whole = manifest.layers.iter().all(|layer| content.size(&layer.digest) == Some(layer.size));
        if !is_whole || manifest.config.digest != *record.id.digest() || Digest::sha256_of(&bytes) != *digest
        {
            return Ok(None);
        }
        for layer in &manifest.layers {
            archive.blob_read(&layer.digest, layer.size, content.reader(&layer.digest)?)?;
        }
        archive.blob(config)?;
        archive.blob(&bytes)?;
        let kind = manifest.media_type.as_deref().unwrap_or(media_type::OCI_MANIFEST);
        Ok(Some(Descriptor::new(kind, digest.clone(), bytes.len() as u64)))
    }

    /// The images that are meant, those for several platforms of one name together, each group once,
    /// with the names under which they were asked for.
    fn chosen_images(&self, names: &[String], platforms: &[Platform]) -> Result<Vec<Vec<Chosen>>> {
        let known = self.store.images().references()?;
        let mut wanted: Vec<(ImageId, Vec<Reference>)> = Vec::new();
        let mut want = |id: &ImageId, name: Option<&Reference>| {
            let name = name.filter(|name| name.tag().is_some());
            if let Some((_, names)) = wanted.iter_mut().find(|(known, _)| known == id) {
                names.extend(name.filter(|name| !names.contains(name)).cloned());
            } else {
                wanted.push((id.clone(), name.into_iter().cloned().collect()));
            }
        };
        for name in names {
            let exact = Reference::parse_exact(name).ok();
            let is_repository = exact.filter(|name| name.tag().is_none() && name.digest().is_none());
            let tags = known.iter().filter(|(known, _)| {
                known.tag().is_some()
                    && is_repository.as_ref().is_some_and(|name| name.name() == known.name())
            });
            let tags: Vec<_> = tags.collect();
            for (name, id) in &tags {
                want(id, Some(name));
            }
            if tags.is_empty() {
                let id = self.store.images().resolve(name)?;
                want(&id, Reference::parse(name).ok().filter(|name| known.get(name) == Some(&id)).as_ref());
            }
        }
        wanted.into_iter().map(|(id, names)| self.group(&id, names, platforms, &known)).collect()
    }

    /// An image, or those for the wanted platforms of an index that it came with.
    fn group(
        &self,
        id: &ImageId,
        references: Vec<Reference>,
        platforms: &[Platform],
        known: &BTreeMap<Reference, ImageId>,
    ) -> Result<Vec<Chosen>> {
        let not_found = || Error::NotFound(id.to_string());
        let record = self.store.images().get(id)?.ok_or_else(not_found)?;
        if platforms.is_empty() {
            return Ok(vec![Chosen { record, references }]);
        }
        let siblings = self.siblings(&record, known)?;
        let mut group: Vec<Chosen> = Vec::new();
        for found in
            platforms.iter().filter_map(|wanted| siblings.iter().find(|image| wanted.runs(&image.platform)))
        {
            if !group.iter().any(|image| image.record.id == found.id) {
                let references = if group.is_empty() { references.clone() } else { Vec::new() };
                group.push(Chosen { record: found.clone(), references });
            }
        }
        if group.is_empty() {
            let name = references.first().map_or_else(|| id.to_string(), Reference::familiar);
            let platforms: Vec<String> = platforms.iter().map(ToString::to_string).collect();
            return Err(Error::NoPlatform { name, platforms: platforms.join(", ") });
        }
        Ok(group)
    }

    /// An image, and those that were pulled with the same index.
    fn siblings(
        &self,
        record: &ImageRecord,
        known: &BTreeMap<Reference, ImageId>,
    ) -> Result<Vec<ImageRecord>> {
        let mut siblings = vec![record.clone()];
        let digests = known.iter().filter(|(_, id)| **id == record.id).filter_map(|(name, _)| name.digest());
        for digest in digests {
            let Ok(bytes) = self.store.content().read(digest) else { continue };
            let Ok(index) = Index::from_slice(&bytes) else { continue };
            for id in known.values() {
                if siblings.iter().any(|sibling| sibling.id == *id) {
                    continue;
                }
                let image = self.store.images().get(id)?;
                siblings.extend(image.filter(|image| {
                    let manifest = image.manifest.as_ref().map(ponton_oci::ManifestDigest::digest);
                    index.manifests.iter().any(|descriptor| Some(&descriptor.digest) == manifest)
                }));
            }
        }
        Ok(siblings)
    }
}

/// What Docker before 1.10 looked for.
fn note_names(
    record: &ImageRecord,
    references: &[Reference],
    repositories: &mut BTreeMap<String, BTreeMap<String, String>>,
) {
    let top = record.layers.last().map(|layer| layer.diff_id.hex().to_owned()).unwrap_or_default();
    for reference in references {
        let tags = repositories.entry(reference.familiar_name()).or_default();
        tags.insert(reference.tag().unwrap_or_default().to_owned(), top.clone());
    }
}

fn index_of(manifests: Vec<Descriptor>) -> Index {
    Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        artifact_type: None,
        manifests,
        subject: None,
        annotations: BTreeMap::new(),
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

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::Invalid(format!("write archive: {error}")))
}
