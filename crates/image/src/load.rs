//! Images from an archive: docker-archive (Docker, podman, skopeo) and oci-archive.
//!
//! The archive is read once, from front to back, and what it is is known only at its end, where the
//! manifests are. So everything that looks like a layer is unpacked as it comes, small documents
//! are kept, and when the stream ends the images are put together from them.

use std::collections::HashMap;
use std::io::{BufReader, Read};
use std::str::FromStr;

use ponton_archive::compression::{Compression, Decoder, detect};
use ponton_archive::header::{BLOCK, Header, Kind};
use ponton_archive::reader::Reader;
use ponton_oci::digest::{ChainId, DiffId, Digest, ImageId};
use ponton_oci::index::Index;
use ponton_oci::manifest::Manifest;
use ponton_oci::media_type;
use ponton_oci::platform::Platform;
use ponton_oci::reference::Reference;
use serde::Deserialize;

use crate::import::nanoseconds;
use crate::layer::{LayerInfo, Stack, Unpacked, check_diff_id};
use crate::list::parse_config;
use crate::pipeline::Hashing;
use crate::{Error, Images, LoadedImage, Progress, Result};

/// Bytes that one document may have, and all together.
const MAX_DOCUMENT: u64 = 8 << 20;
const MAX_DOCUMENTS: u64 = 64 << 20;
/// Levels of indexes in indexes.
const MAX_INDEX_DEPTH: usize = 4;

/// What of an archive is loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Images for these platforms; for the host's if empty.
    pub platforms: Vec<Platform>,
    /// When the images get their names, nanoseconds since the epoch.
    pub now: i64,
}

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
struct Contents {
    documents: HashMap<String, Vec<u8>>,
    documents_size: u64,
    layers: HashMap<String, Layer>,
    links: HashMap<String, String>,
}

/// A layer of the archive, as far as it has been used.
enum Layer {
    Unpacked(Unpacked),
    /// Part of an image, under this chain id.
    Used(ChainId, LayerInfo),
}

/// An image to be put together.
struct Wanted {
    /// Name of its configuration in the archive.
    config: String,
    /// Names of its layers.
    layers: Vec<String>,
    references: Vec<Reference>,
}

impl Images {
    /// Takes in the images of an archive, compressed or not. On an error, images that were complete
    /// stay.
    pub fn load(
        &self,
        input: &mut (dyn Read + Send),
        options: &LoadOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<LoadedImage>> {
        let mut contents = self.read_archive(input, progress)?;
        let wanted = contents.images()?;
        if wanted.is_empty() {
            return Err(Error::Invalid("the archive has no images for this platform".to_owned()));
        }
        let mut loaded = Vec::new();
        for image in wanted {
            let image = self.put_together(&mut contents, image, options.now)?;
            progress(Progress::Loaded(image.clone()));
            loaded.push(image);
        }
        Ok(loaded)
    }

    fn read_archive(
        &self,
        input: &mut (dyn Read + Send),
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Contents> {
        let failed = |source| Error::Archive { what: "image archive".to_owned(), source };
        let input = Decoder::new(BufReader::with_capacity(1 << 16, input)).map_err(failed)?;
        let mut reader = Reader::new(BufReader::with_capacity(1 << 16, input));
        let mut contents = Contents::default();
        while let Some(header) = reader.next_entry().map_err(failed)? {
            let Some(name) = normalise(&header.path) else {
                return Err(Error::Invalid(format!(
                    "image archive has an invalid name {:?}",
                    String::from_utf8_lossy(&header.path)
                )));
            };
            match header.kind {
                Kind::Symlink | Kind::HardLink => {
                    let link = String::from_utf8_lossy(&header.link).into_owned();
                    contents.links.insert(name.clone(), resolve_link(&name, &link, header.kind));
                }
                Kind::Regular if header.sparse.is_none() => {
                    self.read_file(name, &header, &mut reader.payload(), &mut contents, progress)?;
                }
                _ => {}
            }
        }
        Ok(contents)
    }

    fn read_file(
        &self,
        name: String,
        header: &Header,
        payload: &mut (dyn Read + Send),
        contents: &mut Contents,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        let read = Error::io(format!("read {name} of the image archive"));
        let mut start = Vec::new();
        payload.take(BLOCK as u64).read_to_end(&mut start).map_err(read)?;
        let blob = digest_of_blob(&name);
        if is_layer(&start) {
            let mut input = Hashing::new(start.as_slice().chain(payload));
            let id: String = blob.as_ref().map_or(name.as_str(), Digest::hex).chars().take(12).collect();
            let total = header.size;
            let is_compressed = detect(&start) != Compression::None;
            let unpacked = {
                let mut progress = |current| {
                    progress(Progress::Layer { id: id.clone(), current: total.min(current), total });
                };
                if is_compressed && blob.is_some() {
                    let unpacked = self.unpack(&mut input, &name, &mut progress)?;
                    std::io::copy(&mut input, &mut std::io::sink()).map_err(Error::io(name.clone()))?;
                    check_blob(&name, blob.as_ref(), &input.finish().0)?;
                    unpacked
                } else {
                    let unpacked = self.unpack(input.inner_mut(), &name, &mut progress)?;
                    check_blob(
                        &name,
                        blob.as_ref().filter(|_| !is_compressed),
                        unpacked.info.diff_id.digest(),
                    )?;
                    unpacked
                }
            };
            contents.layers.insert(name, Layer::Unpacked(unpacked));
            return Ok(());
        }
        if header.size > MAX_DOCUMENT {
            return Err(Error::Invalid(format!("{name} of the image archive is neither layer nor document")));
        }
        let read = Error::io(format!("read {name} of the image archive"));
        payload.read_to_end(&mut start).map_err(read)?;
        contents.documents_size += start.len() as u64;
        if contents.documents_size > MAX_DOCUMENTS {
            return Err(Error::Invalid("the image archive has too many documents".to_owned()));
        }
        check_blob(&name, blob.as_ref(), &Digest::sha256_of(&start))?;
        contents.documents.insert(name, start);
        Ok(())
    }

    fn put_together(&self, contents: &mut Contents, wanted: Wanted, now: i64) -> Result<LoadedImage> {
        let raw = contents.document(&wanted.config)?.clone();
        let id = ImageId::from(Digest::sha256_of(&raw));
        let config = parse_config(&id, &raw)?;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != wanted.layers.len() {
            return Err(Error::Invalid(format!(
                "invalid manifest, layers length mismatch: expected {}, got {}",
                diff_ids.len(),
                wanted.layers.len()
            )));
        }
        let _guard = self.exclusive();
        let mut stack = Stack::default();
        for (name, diff_id) in wanted.layers.iter().zip(diff_ids) {
            let name = contents.follow(name);
            self.take_layer(contents, &name, diff_id, &mut stack)?;
        }
        let created_at = config.created.as_deref().and_then(nanoseconds).unwrap_or(0);
        let id = self.commit(stack, &raw, created_at, &wanted.references, now)?;
        Ok(LoadedImage { id, references: wanted.references })
    }

    /// A layer may stand at several places of several images: the first gets what was unpacked, the
    /// others are unpacked from that.
    fn take_layer(
        &self,
        contents: &mut Contents,
        name: &str,
        diff_id: &DiffId,
        stack: &mut Stack,
    ) -> Result<()> {
        let missing = || Error::Invalid(format!("the image archive has no layer {name:?}"));
        let layer = contents.layers.get_mut(name).ok_or_else(missing)?;
        let (Layer::Unpacked(Unpacked { info, .. }) | Layer::Used(_, info)) = &*layer;
        let info = info.clone();
        check_diff_id(&format!("layer {name}"), diff_id, &info.diff_id)?;
        let chain = ChainId::next(stack.top(), diff_id);
        if self.snapshotter.has_layer(&chain) || stack.uncommitted(&chain).is_some() {
            *layer = Layer::Used(chain, info.clone());
            stack.push(info, None);
            return Ok(());
        }
        let writer = match std::mem::replace(layer, Layer::Used(chain, info.clone())) {
            Layer::Unpacked(unpacked) => unpacked.writer,
            Layer::Used(first, _) => {
                let again = match stack.uncommitted(&first) {
                    Some(first) => self.unpack_again(diff_id, |output| first.write_tar(output)),
                    None => self.unpack_again(diff_id, |output| self.snapshotter.write_tar(&first, output)),
                };
                again?.writer
            }
        };
        stack.push(info, Some(writer));
        Ok(())
    }
}

impl Contents {
    fn follow(&self, name: &str) -> String {
        let mut name = normalise(name.as_bytes()).unwrap_or_else(|| name.to_owned());
        for _ in 0..8 {
            match self.links.get(&name) {
                Some(target) => name.clone_from(target),
                None => break,
            }
        }
        name
    }

    fn document(&self, name: &str) -> Result<&Vec<u8>> {
        let name = self.follow(name);
        self.documents
            .get(&name)
            .ok_or_else(|| Error::Invalid(format!("the image archive has no file {name:?}")))
    }

    fn images(&self) -> Result<Vec<Wanted>> {
        if self.documents.contains_key("manifest.json") {
            return self.docker_images();
        }
        if self.documents.contains_key("index.json") {
            let mut wanted = Vec::new();
            let index = Index::from_slice(self.document("index.json")?)
                .map_err(|error| Error::Invalid(format!("index.json of the image archive: {error}")))?;
            self.oci_images(&index, &[], 0, &mut wanted)?;
            return Ok(wanted);
        }
        Err(Error::Invalid(
            "the archive is no image archive: it has neither manifest.json nor index.json (use `import` for \
             a root file system)"
                .to_owned(),
        ))
    }

    fn docker_images(&self) -> Result<Vec<Wanted>> {
        let images: Vec<ArchivedImage> = serde_json::from_slice(self.document("manifest.json")?)
            .map_err(|error| Error::Invalid(format!("manifest.json of the image archive: {error}")))?;
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
                Ok(Wanted { config: image.config, layers: image.layers.unwrap_or_default(), references })
            })
            .collect()
    }

    /// Of an index with several platforms, those that this host runs are wanted.
    fn oci_images(
        &self,
        index: &Index,
        inherited: &[Reference],
        depth: usize,
        wanted: &mut Vec<Wanted>,
    ) -> Result<()> {
        if depth > MAX_INDEX_DEPTH {
            return Err(Error::Invalid("the image archive has too many levels of indexes".to_owned()));
        }
        let host = Platform::host();
        for descriptor in &index.manifests {
            if descriptor.platform.as_ref().is_some_and(|platform| !host.runs(platform)) {
                continue;
            }
            let mut references = inherited.to_vec();
            let annotation = |key: &str| descriptor.annotations.get(key);
            let name = annotation("io.containerd.image.name").or_else(|| {
                annotation("org.opencontainers.image.ref.name").filter(|name| name.contains([':', '/']))
            });
            references.extend(name.and_then(|name| Reference::parse(name).ok()));
            let path = format!("blobs/{}/{}", descriptor.digest.algorithm(), descriptor.digest.hex());
            // Archives may be partial: what they don't have is not for this platform.
            let Some(bytes) = self.documents.get(&path) else { continue };
            let failed = |error| Error::Invalid(format!("{path} of the image archive: {error}"));
            if media_type::is_index(&descriptor.media_type) {
                let index = Index::from_slice(bytes).map_err(failed)?;
                self.oci_images(&index, &references, depth + 1, wanted)?;
            } else if media_type::is_manifest(&descriptor.media_type) {
                let manifest = Manifest::from_slice(bytes).map_err(failed)?;
                push_image(&manifest, references, wanted);
            }
        }
        Ok(())
    }
}

/// Adds the image of an OCI manifest.
fn push_image(manifest: &Manifest, references: Vec<Reference>, wanted: &mut Vec<Wanted>) {
    let path = |digest: &Digest| format!("blobs/{}/{}", digest.algorithm(), digest.hex());
    let config = path(&manifest.config.digest);
    let layers: Vec<String> = manifest.layers.iter().map(|layer| path(&layer.digest)).collect();
    // The same image under another name.
    if let Some(known) = wanted.iter_mut().find(|known| known.config == config && known.layers == layers) {
        known.references.extend(references);
    } else {
        wanted.push(Wanted { config, layers, references });
    }
}

/// A clean relative name; `None` if it leads out of the archive.
fn normalise(path: &[u8]) -> Option<String> {
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

/// A symbolic link counts from its own directory, a hard link from the root.
fn resolve_link(name: &str, link: &str, kind: Kind) -> String {
    let joined = match (kind, name.rsplit_once('/')) {
        (Kind::Symlink, Some((directory, _))) => format!("{directory}/{link}"),
        _ => link.to_owned(),
    };
    normalise(joined.as_bytes()).unwrap_or(joined)
}

fn digest_of_blob(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.strip_prefix("blobs/")?.split_once('/')?;
    Digest::from_str(&format!("{algorithm}:{hex}")).ok().filter(|_| algorithm == "sha256")
}

fn check_blob(name: &str, expected: Option<&Digest>, found: &Digest) -> Result<()> {
    match expected {
        Some(expected) if expected != found => Err(Error::DigestMismatch {
            what: name.to_owned(),
            expected: expected.clone(),
            found: found.clone(),
        }),
        _ => Ok(()),
    }
}

/// Whether a file begins like a tar, an empty one included, or is compressed.
fn is_layer(start: &[u8]) -> bool {
    if detect(start) != Compression::None {
        return true;
    }
    start.len() == BLOCK && (start[257..].starts_with(b"ustar") || start.iter().all(|byte| *byte == 0))
}
