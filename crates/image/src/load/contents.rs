//! What is in an archive of images: documents by name, layers by name, and what of it makes images.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;

use ponton_archive::header::Kind;
use ponton_oci::digest::Digest;
use ponton_oci::index::Index;
use ponton_oci::manifest::Manifest;
use ponton_oci::media_type;
use ponton_oci::platform::Platform;
use ponton_oci::reference::Reference;
use serde::Deserialize;

use super::Layer;
use crate::{Error, Result};

/// Bytes that all documents, names and links may have together.
const MAX_DOCUMENTS: usize = 64 << 20;
/// Layers, images and names that one archive may have.
const MAX_COUNT: usize = 10_000;
/// Levels of indexes in indexes.
const MAX_INDEX_DEPTH: usize = 4;
/// Links that lead to one file.
const MAX_LINKS: usize = 8;

/// One image of a docker-archive's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ArchivedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// What was in the archive, by name.
#[derive(Default)]
pub(super) struct Contents {
    documents: HashMap<String, Vec<u8>>,
    pub(super) layers: HashMap<String, Layer>,
    links: HashMap<String, String>,
    /// Bytes that all of it takes up in memory, about.
    size: usize,
}

/// An image to be put together.
pub(super) struct Wanted {
    /// Name of its configuration in the archive.
    pub(super) config: String,
    /// Names of its layers.
    pub(super) layers: Vec<String>,
    pub(super) references: Vec<Reference>,
    /// What it runs on, if an index says so.
    pub(super) platform: Option<Platform>,
}

/// An image archive that is no good, and why.
fn invalid(why: impl std::fmt::Display) -> Error {
    Error::Invalid(format!("image archive: {why}"))
}

impl Contents {
    /// Keeps a small file.
    pub(super) fn add_document(&mut self, name: String, contents: Vec<u8>) -> Result<()> {
        self.count(name.len() + contents.len())?;
        self.documents.insert(name, contents);
        Ok(())
    }

    /// Keeps a link: a symbolic one counts from its own directory, a hard link from the root.
    pub(super) fn add_link(&mut self, name: String, link: &str, kind: Kind) -> Result<()> {
        let target = match (kind, name.rsplit_once('/')) {
            (Kind::Symlink, Some((directory, _))) => format!("{directory}/{link}"),
            _ => link.to_owned(),
        };
        self.count(name.len() + target.len())?;
        // One that leads out of the archive leads to nothing.
        self.links.extend(normalise(target.as_bytes()).map(|target| (name, target)));
        Ok(())
    }

    pub(super) fn add_layer(&mut self, name: String, layer: Layer) -> Result<()> {
        self.count(name.len())?;
        self.layers.insert(name, layer);
        if self.layers.len() > MAX_COUNT {
            return Err(invalid("it has too many layers"));
        }
        Ok(())
    }

    fn count(&mut self, bytes: usize) -> Result<()> {
        // With what an entry of a map takes.
        self.size += bytes + 100;
        if self.size > MAX_DOCUMENTS { Err(invalid("it has too many documents")) } else { Ok(()) }
    }

    /// The name of the file that a name leads to.
    pub(super) fn follow(&self, name: &str) -> String {
        let mut name = normalise(name.as_bytes()).unwrap_or_else(|| name.to_owned());
        for _ in 0..MAX_LINKS {
            match self.links.get(&name) {
                Some(target) => name.clone_from(target),
                None => break,
            }
        }
        name
    }

    pub(super) fn document(&self, name: &str) -> Result<&Vec<u8>> {
        let name = self.follow(name);
        self.documents
            .get(&name)
            .ok_or_else(|| Error::Invalid(format!("the image archive has no file {name:?}")))
    }

    /// The images for these platforms; if none are given for the host's, or, where the archive has
    /// none for it, all. Of several for one name, the one for the first platform has it.
    pub(super) fn images(&self, platforms: &[Platform]) -> Result<Vec<Wanted>> {
        let has = |name: &str| self.documents.contains_key(&self.follow(name));
        let mut wanted = if has("manifest.json") {
            self.docker_images()?
        } else if has("index.json") {
            let index = Index::from_slice(self.document("index.json")?)
                .map_err(|error| invalid(format!("index.json: {error}")))?;
            let mut search = Search::default();
            self.oci_images(&index, None, 0, &mut search)?;
            search.wanted
        } else {
            return Err(Error::Invalid(
                "the archive is no image archive: it has neither manifest.json nor index.json (use `import` \
                 for a root file system)"
                    .to_owned(),
            ));
        };
        let names: usize = wanted.iter().map(|image| image.references.len()).sum();
        if wanted.len() > MAX_COUNT || names > MAX_COUNT {
            return Err(invalid("it has too many images"));
        }
        let host = [Platform::host()];
        let rank = |image: &Wanted| {
            let platform = image.platform.as_ref();
            let chosen = if platforms.is_empty() { &host[..] } else { platforms };
            platform.map_or(Some(0), |platform| chosen.iter().position(|chosen| chosen.runs(platform)))
        };
        if !platforms.is_empty() || wanted.iter().any(|image| rank(image).is_some()) {
            wanted.retain(|image| rank(image).is_some());
            wanted.sort_by_key(|image| rank(image));
        } else {
            wanted.retain(|image| self.is_complete(image));
        }
        let mut named = HashSet::new();
        for image in &mut wanted {
            image.references.retain(|name| named.insert(name.clone()));
        }
        Ok(wanted)
    }

    /// Archives may be partial: what they don't have was not for the platform of who wrote them.
    fn is_complete(&self, image: &Wanted) -> bool {
        self.document(&image.config).is_ok()
            && image.layers.iter().all(|layer| self.layers.contains_key(&self.follow(layer)))
    }

    fn docker_images(&self) -> Result<Vec<Wanted>> {
        let images: Vec<ArchivedImage> = serde_json::from_slice(self.document("manifest.json")?)
            .map_err(|error| invalid(format!("manifest.json: {error}")))?;
        images
            .into_iter()
            .map(|image| {
                let tags = image.repo_tags.unwrap_or_default();
                let references = tags
                    .iter()
                    .map(|tag| {
                        Reference::parse(tag).map_err(|error| Error::Invalid(format!("{tag}: {error}")))
                    })
                    .collect::<Result<_>>()?;
                let layers = image.layers.unwrap_or_default();
                Ok(Wanted { config: image.config, layers, references, platform: None })
            })
            .collect()
    }

    fn oci_images(
        &self,
        index: &Index,
        inherited: Option<&Reference>,
        depth: usize,
        search: &mut Search,
    ) -> Result<()> {
        if depth > MAX_INDEX_DEPTH {
            return Err(invalid("it has too many levels of indexes"));
        }
        for descriptor in &index.manifests {
            let annotation = |key: &str| descriptor.annotations.get(key);
            let name = annotation("io.containerd.image.name").or_else(|| {
                annotation("org.opencontainers.image.ref.name").filter(|name| name.contains([':', '/']))
            });
            let name = name.and_then(|name| Reference::parse(name).ok());
            let name = name.as_ref().or(inherited);
            let is_artifact = descriptor.platform.as_ref().is_some_and(|platform| platform.os == "unknown");
            // The same may be there under several names, but not again and again under the same.
            if is_artifact || !search.seen.insert((descriptor.digest.clone(), name.cloned())) {
                continue;
            }
            if search.seen.len() > MAX_COUNT {
                return Err(invalid("it has too many manifests"));
            }
            let path = path_of(&descriptor.digest);
            let Some(bytes) = self.documents.get(&self.follow(&path)) else { continue };
            let failed = |error| invalid(format!("{path}: {error}"));
            if media_type::is_index(&descriptor.media_type) {
                let index = Index::from_slice(bytes).map_err(failed)?;
                self.oci_images(&index, name, depth + 1, search)?;
            } else if media_type::is_manifest(&descriptor.media_type) {
                let manifest = Manifest::from_slice(bytes).map_err(failed)?;
                search.add(&manifest, descriptor.platform.clone(), name.cloned());
            }
        }
        Ok(())
    }
}

/// What was found in indexes so far.
#[derive(Default)]
struct Search {
    wanted: Vec<Wanted>,
    /// Places in `wanted`, by the configuration's digest.
    places: HashMap<Digest, usize>,
    seen: HashSet<(Digest, Option<Reference>)>,
}

impl Search {
    fn add(&mut self, manifest: &Manifest, platform: Option<Platform>, name: Option<Reference>) {
        let place = *self.places.entry(manifest.config.digest.clone()).or_insert(self.wanted.len());
        // The same image under another name.
        if let Some(known) = self.wanted.get_mut(place) {
            known.references.extend(name);
            return;
        }
        let config = path_of(&manifest.config.digest);
        let layers = manifest.layers.iter().map(|layer| path_of(&layer.digest)).collect();
        self.wanted.push(Wanted { config, layers, references: name.into_iter().collect(), platform });
    }
}

pub(super) fn path_of(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// The digest that a file's name promises.
pub(super) fn digest_of_blob(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.strip_prefix("blobs/")?.split_once('/')?;
    Digest::from_str(&format!("{algorithm}:{hex}")).ok().filter(|_| algorithm == "sha256")
}

/// A clean relative name; `None` if it leads out of the archive.
pub(super) fn normalise(path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok()?;
    let mut components = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => drop(components.pop()?),
            name => components.push(name),
        }
    }
    Some(components.join("/"))
}
