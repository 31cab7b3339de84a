//! Images from an archive: docker-archive (Docker, podman, skopeo) and oci-archive.
//!
//! The archive is read once, from front to back, and what it is is known only at its end, where the
//! manifests are. So everything that looks like a layer is unpacked as it comes, unless it is here
//! already; small documents are kept, and when the stream ends the images are put together from them.

mod contents;

use std::collections::HashMap;
use std::io::{self, BufReader, Read};

use ponton_archive::compression::{Compression, Decoder, detect};
use ponton_archive::header::{BLOCK, Header, Kind};
use ponton_archive::reader::Reader;
use ponton_oci::digest::{ChainId, DiffId, Digest, ImageId};
use ponton_oci::platform::Platform;
use ponton_store::Lease;

use self::contents::{Contents, Wanted, digest_of_blob, normalise};
use crate::import::nanoseconds;
use crate::layer::{LayerInfo, Stack, Unpacked, check_diff_id};
use crate::list::parse_config;
use crate::pipeline::Hashing;
use crate::{Error, Images, LoadedImage, Progress, Result};

/// Bytes that one document may have.
const MAX_DOCUMENT: u64 = 8 << 20;

/// What of an archive is loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Images for these platforms. If empty for the host's, or, where the archive has none for it,
    /// all. Of images for several platforms with one name, the first platform's has it.
    pub platforms: Vec<Platform>,
    /// When the images get their names, nanoseconds since the epoch.
    pub now: i64,
}

/// A layer of the archive.
enum Layer {
    /// Not in an image yet.
    Unpacked(Unpacked),
    /// In an image that is here.
    Known(LayerInfo),
}

/// An archive that is being read.
struct Loading<'a> {
    images: &'a Images,
    /// Holds the layers that are here already.
    lease: Lease,
    /// What is here already, by the digest of its tar and of the blobs that it came in.
    known: HashMap<Digest, (ChainId, LayerInfo)>,
    contents: Contents,
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
        let lease = self.store.lease();
        let known = self.known_layers()?;
        let mut loading = Loading { images: self, lease, known, contents: Contents::default() };
        loading.read(input, progress)?;
        let mut loaded = Vec::new();
        for image in loading.contents.images(&options.platforms)? {
            if let Some(image) = loading.put_together(image, options)? {
                progress(Progress::Loaded(image.clone()));
                loaded.push(image);
            }
        }
        if loaded.is_empty() {
            return Err(Error::Invalid("the archive has no images for this platform".to_owned()));
        }
        Ok(loaded)
    }

    fn known_layers(&self) -> Result<HashMap<Digest, (ChainId, LayerInfo)>> {
        let mut known = HashMap::new();
        for layer in self.store.images().layers()? {
            let info =
                LayerInfo { diff_id: layer.diff_id.clone(), size: layer.size, tar_size: layer.tar_size };
            known.insert(layer.diff_id.digest().clone(), (layer.chain_id, info));
        }
        for blob in self.store.images().layer_blobs()? {
            if let Some(layer) = known.get(blob.diff_id.digest()).cloned() {
                known.insert(blob.digest, layer);
            }
        }
        Ok(known)
    }
}

impl Loading<'_> {
    fn read(&mut self, input: &mut (dyn Read + Send), progress: &mut dyn FnMut(Progress)) -> Result<()> {
        let failed = |source| Error::Archive { what: "image archive".to_owned(), source };
        let input = Decoder::new(BufReader::with_capacity(1 << 16, input)).map_err(failed)?;
        let mut reader = Reader::new(BufReader::with_capacity(1 << 16, input));
        while let Some(header) = reader.next_entry().map_err(failed)? {
            let Some(name) = normalise(&header.path) else {
                return Err(Error::Invalid(format!(
                    "image archive has an invalid name {:?}",
                    String::from_utf8_lossy(&header.path)
                )));
            };
            match header.kind {
                Kind::Symlink | Kind::HardLink => {
                    self.contents.add_link(name, &String::from_utf8_lossy(&header.link), header.kind)?;
                }
                Kind::Regular if header.sparse.is_none() => {
                    self.read_file(name, &header, &mut reader.payload(), progress)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn read_file(
        &mut self,
        name: String,
        header: &Header,
        payload: &mut (dyn Read + Send),
        progress: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        let read = |error| Error::io(format!("read {name} of the image archive"))(error);
        let mut start = Vec::new();
        payload.take(BLOCK as u64).read_to_end(&mut start).map_err(read)?;
        let blob = digest_of_blob(&name);
        if is_layer(&start) {
            let layer = self.read_layer(&name, blob.as_ref(), header.size, &start, payload, progress)?;
            return self.contents.add_layer(name, layer);
        }
        if header.size > MAX_DOCUMENT {
            return Err(Error::Invalid(format!("{name} of the image archive is neither layer nor document")));
        }
        payload.read_to_end(&mut start).map_err(read)?;
        check_blob(&name, blob.as_ref(), &Digest::sha256_of(&start))?;
        self.contents.add_document(name, start)
    }

    /// Unpacks a layer, or only compares its digest when it is here.
    fn read_layer(
        &self,
        name: &str,
        blob: Option<&Digest>,
        total: u64,
        start: &[u8],
        payload: &mut (dyn Read + Send),
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Layer> {
        let mut input = Hashing::new(start.chain(payload));
        if let Some(blob) = blob
            && let Some((chain, info)) = self.known.get(blob)
        {
            self.lease.hold(chain.digest());
            io::copy(&mut input, &mut io::sink()).map_err(Error::io(name))?;
            check_blob(name, Some(blob), &input.finish().0)?;
            return Ok(Layer::Known(info.clone()));
        }
        let id: String = blob.map_or(name, Digest::hex).chars().take(12).collect();
        let mut progress = |current: u64| {
            progress(Progress::Layer { id: id.clone(), current: total.min(current), total });
        };
        let limit = self.images.limits.unpacked_max(total);
        if blob.is_some() && detect(start) != Compression::None {
            let unpacked = self.images.unpack_bounded(&mut input, name, limit, &mut progress)?;
            io::copy(&mut input, &mut io::sink()).map_err(Error::io(name))?;
            check_blob(name, blob, &input.finish().0)?;
            return Ok(Layer::Unpacked(unpacked));
        }
        let unpacked = self.images.unpack_bounded(input.inner_mut(), name, limit, &mut progress)?;
        check_blob(name, blob, unpacked.info.diff_id.digest())?;
        Ok(Layer::Unpacked(unpacked))
    }

    /// Makes an image of what was read; none if it is for a platform that is not wanted.
    fn put_together(&mut self, wanted: Wanted, options: &LoadOptions) -> Result<Option<LoadedImage>> {
        let raw = self.contents.document(&wanted.config)?.clone();
        let id = ImageId::from(Digest::sha256_of(&raw));
        let config = parse_config(&id, &raw)?;
        let platform = Platform {
            architecture: config.architecture.clone(),
            os: config.os.clone(),
            variant: config.variant.clone().unwrap_or_default(),
            ..Platform::default()
        };
        if !options.platforms.is_empty() && !options.platforms.iter().any(|wanted| wanted.runs(&platform)) {
            return Ok(None);
        }
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != wanted.layers.len() {
            return Err(Error::Invalid(format!(
                "invalid manifest, layers length mismatch: expected {}, got {}",
                diff_ids.len(),
                wanted.layers.len()
            )));
        }
        let max = self.images.limits.layers;
        if diff_ids.len() > max {
            return Err(Error::Invalid(format!(
                "image {id} has {} layers: no more than {max} can be stacked",
                diff_ids.len()
            )));
        }
        let _guard = self.images.exclusive();
        let mut stack = Stack::default();
        for (name, diff_id) in wanted.layers.iter().zip(diff_ids) {
            let name = self.contents.follow(name);
            self.take_layer(&name, diff_id, &mut stack)?;
        }
        let created_at = config.created.as_deref().and_then(nanoseconds).unwrap_or(0);
        let id = self.images.commit(stack, &raw, created_at, &wanted.references, options.now)?;
        Ok(Some(LoadedImage { id, references: wanted.references }))
    }

    /// A layer may stand at several places of several images: the first gets what was unpacked, the
    /// others are unpacked from that.
    fn take_layer(&mut self, name: &str, diff_id: &DiffId, stack: &mut Stack) -> Result<()> {
        let missing = || Error::Invalid(format!("the image archive has no layer {name:?}"));
        let layer = self.contents.layers.get_mut(name).ok_or_else(missing)?;
        let (Layer::Unpacked(Unpacked { info, .. }) | Layer::Known(info)) = &*layer;
        let info = info.clone();
        check_diff_id(&format!("layer {name}"), diff_id, &info.diff_id)?;
        let chain = ChainId::next(stack.top(), diff_id);
        let layer = std::mem::replace(layer, Layer::Known(info.clone()));
        if self.images.snapshotter.has_layer(&chain) || stack.uncommitted(&chain).is_some() {
            stack.push(info, None);
            return Ok(());
        }
        let unpacked = match layer {
            Layer::Unpacked(unpacked) => unpacked,
            Layer::Known(_) => self.images.unpack_from(diff_id, stack)?,
        };
        stack.push(info, Some(unpacked.writer));
        Ok(())
    }
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
