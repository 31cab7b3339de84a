//! Whether all that is kept is what its digest says.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};

use ponton_oci::digest::{Algorithm, ChainId, DiffId, Digest};
use ponton_oci::reference::Reference;
use ponton_snapshot::FilledLayer;
use ponton_store::{ImageRecord, LayerBlob, LayerRecord};
use sha2::Digest as _;

use crate::list::parse_config;
use crate::{Error, Images, Result};

/// Something to tell the user while a check goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckProgress {
    /// What is being read now.
    pub object: String,
    /// Bytes read so far.
    pub current: u64,
    /// Bytes in all.
    pub total: u64,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Blobs that were read.
    pub blobs: usize,
    /// Layers whose tar was rebuilt and compared.
    pub layers: usize,
    /// Images whose records were compared with their configurations.
    pub images: usize,
    /// Bytes that were read.
    pub bytes: u64,
    /// What is wrong, or was.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which object: `blob sha256:…`, `layer sha256:…`, `image busybox:latest`.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
    /// Whether it is repaired now.
    pub repaired: bool,
    /// What was done about it, or is to be done.
    pub remedy: String,
}

impl Images {
    /// Reads every blob and layer, and compares them with their digests, and every record with what
    /// it names. With `repair` what can be restored is, and what nothing needs is removed. Others may
    /// go on meanwhile.
    pub fn check(&self, repair: bool, progress: &mut dyn FnMut(CheckProgress)) -> Result<Report> {
        let images = self.store.images();
        let blobs = self.store.content().list()?;
        let layers = images.layers()?;
        let total = blobs.iter().map(|(_, size)| size).sum::<u64>()
            + layers.iter().map(|layer| layer.tar_size).sum::<u64>();
        let mut check = Check { images: self, repair, progress, total, report: Report::default() };
        for what in self.store.check_database()? {
            check.report("database".to_owned(), what, false, "restore it from a copy");
        }
        check.blobs(&blobs)?;
        check.missing_blobs()?;
        check.layers(&layers)?;
        check.images()?;
        check.leftovers()?;
        Ok(check.report)
    }
}

/// A check under way.
struct Check<'a> {
    images: &'a Images,
    repair: bool,
    progress: &'a mut dyn FnMut(CheckProgress),
    total: u64,
    report: Report,
}

impl Check<'_> {
    fn report(&mut self, object: String, what: impl Into<String>, repaired: bool, remedy: impl Into<String>) {
        let problem = Problem { object, what: what.into(), repaired, remedy: remedy.into() };
        tracing::warn!(object = problem.object, repaired, "image check: {}", problem.what);
        self.report.problems.push(problem);
    }

    fn tell(&mut self, object: String) {
        let (current, total) = (self.report.bytes.min(self.total), self.total);
        (self.progress)(CheckProgress { object, current, total });
    }

    fn blobs(&mut self, blobs: &[(Digest, u64)]) -> Result<()> {
        let of_layers: HashSet<Digest> =
            self.images.store.images().layer_blobs()?.into_iter().map(|blob| blob.digest).collect();
        for (digest, size) in blobs {
            self.tell(format!("blob {digest}"));
            let content = self.images.store.content();
            // Removed meanwhile.
            let Ok(mut file) = content.reader(digest) else { continue };
            let found = hash(digest.algorithm(), &mut file);
            self.report.blobs += 1;
            self.report.bytes += size;
            let what = match found {
                Ok(found) if found == *digest => continue,
                Ok(found) => format!("its content has digest {found}"),
                Err(error) => format!("it cannot be read: {error}"),
            };
            let remedy = match (of_layers.contains(digest), self.repair) {
                (true, true) => "removed: the unpacked layer is used, and a pull fetches the blob again",
                (false, true) => "removed: pull the images that need it again",
                (_, false) => "repair removes it",
            };
            if self.repair {
                content.remove(digest)?;
                self.images.store.images().forget_content(digest)?;
            }
            let repaired = self.repair && of_layers.contains(digest);
            self.report(format!("blob {digest}"), what, repaired, remedy);
        }
        Ok(())
    }

    /// Blobs of layers that are said to be kept, and are not.
    fn missing_blobs(&mut self) -> Result<()> {
        for blob in self.images.store.images().layer_blobs()? {
            if blob.kept && !self.images.store.content().has(&blob.digest) {
                if self.repair {
                    self.images.store.images().forget_content(&blob.digest)?;
                }
                let remedy = "the unpacked layer is used, and a pull fetches the blob again";
                self.report(format!("blob {}", blob.digest), "it is missing", self.repair, remedy);
            }
        }
        Ok(())
    }

    fn layers(&mut self, layers: &[LayerRecord]) -> Result<()> {
        for layer in layers {
            let object = format!("layer {}", layer.diff_id);
            self.tell(object.clone());
            let has_layer = self.images.snapshotter.has_layer(&layer.chain_id);
            let what = match self.images.write_layer(layer, &mut io::sink()) {
                Ok(()) => None,
                // Removed meanwhile.
                Err(_) if self.images.store.images().layer(&layer.chain_id)?.is_none() => continue,
                Err(_) if !has_layer => Some("it is missing".to_owned()),
                Err(error) => Some(chain(&error)),
            };
            self.report.layers += 1;
            self.report.bytes += layer.tar_size;
            let Some(what) = what else { continue };
            let restored = if self.repair { self.restore(layer, layers)? } else { Err("repair tries it") };
            match restored {
                Ok(()) => self.report(object, what, true, "unpacked again from its blob"),
                Err(why) => {
                    let images = self.names_of(layer)?;
                    let remedy = format!("{why}; pull or load again: {images}");
                    self.report(object, what, false, remedy);
                }
            }
        }
        Ok(())
    }

    /// Unpacks a damaged layer again from its blob; with it go those that stand on it, which are
    /// unpacked again from themselves. Says why that cannot be.
    fn restore(&self, layer: &LayerRecord, layers: &[LayerRecord]) -> Result<Result<(), &'static str>> {
        let (images, snapshotter) = (self.images, &self.images.snapshotter);
        let _guard = images.exclusive();
        let forms = images.store.images().blobs_of(&layer.diff_id)?;
        let unpack = |blob: &LayerBlob| images.unpack_kept(&blob.digest, blob.size, &mut |_| {});
        let Some(restored) =
            forms.iter().find_map(unpack).filter(|unpacked| unpacked.info.diff_id == layer.diff_id)
        else {
            return Ok(Err("its blob is not kept"));
        };
        let mut filled = vec![FilledLayer {
            writer: restored.writer,
            chain: layer.chain_id.clone(),
            parent: layer.parent.clone(),
        }];
        for above in above(&layer.chain_id, layers) {
            if !snapshotter.has_layer(&above.chain_id) {
                continue;
            }
            let rebuilt =
                images.unpack_again(&above.diff_id, |output| snapshotter.write_tar(&above.chain_id, output));
            let Ok(rebuilt) = rebuilt else { return Ok(Err("a layer that stands on it is damaged, too")) };
            filled.push(FilledLayer {
                writer: rebuilt.writer,
                chain: above.chain_id.clone(),
                parent: above.parent.clone(),
            });
        }
        let mut outcome = Ok(());
        for layer in filled.iter().rev() {
            match snapshotter.remove_layer(&layer.chain) {
                Ok(()) | Err(ponton_snapshot::Error::LayerNotFound(_)) => {}
                Err(ponton_snapshot::Error::LayerInUse(_)) => {
                    outcome = Err("a container stands on it: remove that first");
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        // Those that are still there are kept as they are.
        snapshotter.commit_layers(filled)?;
        Ok(outcome)
    }

    /// The images that have a layer, as users call them.
    fn names_of(&self, layer: &LayerRecord) -> Result<String> {
        let images = self.images.store.images();
        let mut names = Vec::new();
        for id in images.images_with_layer(&layer.chain_id)? {
            let references = images.references_of(&id)?;
            names.push(references.first().map_or_else(|| id.to_string(), Reference::familiar));
        }
        Ok(names.join(", "))
    }

    fn images(&mut self) -> Result<()> {
        for image in self.images.store.images().list()? {
            let references = self.images.store.images().references_of(&image.id)?;
            let name = references.first().map_or_else(|| image.id.to_string(), Reference::familiar);
            self.tell(format!("image {name}"));
            self.report.images += 1;
            if let Err(what) = self.image(&image) {
                // Removed meanwhile.
                if self.images.store.images().get(&image.id)?.is_some() {
                    self.report(format!("image {name}"), what, false, "remove it, and pull or load it again");
                }
            }
        }
        Ok(())
    }

    /// Says what is wrong with an image's record.
    fn image(&self, image: &ImageRecord) -> Result<(), String> {
        let content = self.images.store.content();
        let raw = content
            .read(image.id.digest())
            .map_err(|_| format!("its configuration {} is missing", image.id))?;
        let config = parse_config(&image.id, &raw).map_err(|error| error.to_string())?;
        let recorded: Vec<DiffId> = image.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        if recorded != config.rootfs.diff_ids {
            return Err("its layers are not those of its configuration".to_owned());
        }
        let mut parent = None;
        for layer in &image.layers {
            if layer.parent != parent || layer.chain_id != ChainId::next(parent.as_ref(), &layer.diff_id) {
                return Err(format!("its layer {} does not stand where it belongs", layer.diff_id));
            }
            parent = Some(layer.chain_id.clone());
        }
        match &image.manifest {
            Some(manifest) if !content.has(manifest.digest()) => {
                Err(format!("its manifest {manifest} is missing"))
            }
            _ => Ok(()),
        }
    }

    /// What an interrupted operation left: nothing is wrong with it, but nobody needs it.
    fn leftovers(&mut self) -> Result<()> {
        let images = self.images;
        let guard = images.exclusive();
        let named = images.store.images().blobs()?;
        let known: HashSet<ChainId> =
            images.store.images().layers()?.into_iter().map(|layer| layer.chain_id).collect();
        let mut left = Vec::new();
        for (digest, _) in images.store.content().list()? {
            if !named.contains(&digest) && !images.store.is_held(&digest) {
                left.push(format!("blob {digest}"));
            }
        }
        let is_left = |chain: &ChainId| !known.contains(chain) && !images.store.is_held(chain.digest());
        left.extend(
            images
                .snapshotter
                .layers()
                .iter()
                .filter(|chain| is_left(chain))
                .map(|chain| format!("layer {chain}")),
        );
        drop(guard);
        if self.repair && !left.is_empty() {
            images.collect()?;
            images.store.collect_garbage()?;
        }
        for object in left {
            let remedy = if self.repair { "removed" } else { "repair removes it" };
            self.report(object, "no image needs it", self.repair, remedy);
        }
        Ok(())
    }
}

/// The layers that stand on one, each after the one that it stands on.
fn above<'a>(chain: &ChainId, layers: &'a [LayerRecord]) -> Vec<&'a LayerRecord> {
    let mut children: HashMap<&ChainId, Vec<&LayerRecord>> = HashMap::new();
    for layer in layers {
        if let Some(parent) = &layer.parent {
            children.entry(parent).or_default().push(layer);
        }
    }
    let mut found: Vec<&LayerRecord> = children.get(chain).cloned().unwrap_or_default();
    let mut next = 0;
    while let Some(layer) = found.get(next) {
        found.extend(children.get(&layer.chain_id).into_iter().flatten());
        next += 1;
    }
    found
}

/// An error with its causes.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn hash(algorithm: Algorithm, input: &mut impl Read) -> io::Result<Digest> {
    Ok(match algorithm {
        Algorithm::Sha256 => Digest::from_sha256(hash_with(sha2::Sha256::new(), input)?.into()),
        Algorithm::Sha512 => Digest::from_sha512(hash_with(sha2::Sha512::new(), input)?.into()),
    })
}

fn hash_with<H: sha2::Digest>(mut hasher: H, input: &mut impl Read) -> io::Result<sha2::digest::Output<H>> {
    let mut buffer = vec![0; 1 << 18];
    loop {
        match input.read(&mut buffer)? {
            0 => return Ok(hasher.finalize()),
            length => hasher.update(&buffer[..length]),
        }
    }
}
