//! Images to a registry.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use ponton_oci::descriptor::Descriptor;
use ponton_oci::digest::{DiffId, Digest, ImageId, ManifestDigest};
use ponton_oci::manifest::Manifest;
use ponton_oci::media_type;
use ponton_oci::platform::Platform;
use ponton_oci::reference::Reference;
use ponton_registry::{Cancel, Fetched, TagOrDigest};
use ponton_store::{ImageRecord, LayerBlob, LayerRecord, Lease};
use sha2::{Digest as _, Sha256};

use crate::documents::build_manifest;
use crate::fetch::NEWS_INTERVAL;
use crate::remote::Remote;
use crate::{Error, Images, Result, gzip};

/// Layers that are compressed at once, by all pushes together: each has all processors.
const COMPRESSED_AT_ONCE: usize = 2;

/// What of an image is pushed.
#[derive(Debug, Clone, Default)]
pub struct PushOptions {
    /// The image of this platform alone. If none, the index with all that are here, or else the
    /// image.
    pub platform: Option<Platform>,
}

/// News of a layer that is pushed. Layers are named by the first 12 characters of their diff ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushProgress {
    /// Short name.
    pub id: String,
    /// What happens to it.
    pub status: PushStatus,
}

/// How far a layer has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushStatus {
    /// Its turn comes.
    Preparing,
    /// Its turn comes later.
    Waiting,
    /// The repository has it.
    Exists,
    /// The registry took it from this other repository of its own.
    Mounted(String),
    /// Bytes of the layer.
    Pushing {
        /// So far.
        current: u64,
        /// In all.
        total: u64,
    },
    /// The repository has it now.
    Pushed,
}

/// What was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Digest of the manifest or index.
    pub digest: ManifestDigest,
    /// Its bytes.
    pub size: u64,
}

impl Images {
    /// Pushes the image that has the name `reference` to the repository `to`, under that name's tag.
    /// A pulled image goes out as it came in, byte by byte. `now` is as for [`Images::pull`].
    pub fn push(
        &self,
        reference: &Reference,
        to: &dyn Remote,
        options: &PushOptions,
        now: i64,
        cancel: &Cancel,
        progress: &mut dyn FnMut(PushProgress),
    ) -> Result<Pushed> {
        let Some(tag) = reference.tag() else {
            return Err(Error::Invalid("cannot push a digest reference".to_owned()));
        };
        let tag = TagOrDigest::Tag(tag.to_owned());
        let id = self.store.images().resolve(&reference.to_string())?;
        let push =
            Push { images: self, to: to.with_cancel(cancel.clone()), cancel, lease: self.store.lease(), now };
        match self.chosen(&id, options.platform.as_ref())? {
            Chosen::Image(id) => push.image(&id, &tag, progress),
            Chosen::Index { document, images } => {
                for (id, manifest) in images {
                    let pushed = push.image(&id, &TagOrDigest::Digest(manifest.clone()), progress)?;
                    if *pushed.digest.digest() != manifest {
                        return Err(Error::Invalid(format!(
                            "{reference} cannot be pushed as it came: layers of its manifest {manifest} are \
                             not here any more; push the image of one platform"
                        )));
                    }
                }
                let kind = document.descriptor.media_type.clone();
                let digest = push.to.push_manifest(&tag, &kind, &document.bytes)?;
                let by_digest = reference.with_digest(digest.clone());
                self.store.images().tag(&by_digest, &id, now)?;
                Ok(Pushed { digest: digest.into(), size: document.descriptor.size })
            }
        }
    }

    /// What is meant by the name of an image that may have come with others.
    fn chosen(&self, id: &ImageId, platform: Option<&Platform>) -> Result<Chosen> {
        let images = self.store.images().list_without_layers()?;
        let of_manifest = |descriptor: &Descriptor| {
            let manifest = ManifestDigest::from(descriptor.digest.clone());
            images.iter().find(|image| image.manifest.as_ref() == Some(&manifest))
        };
        for (document, index) in self.indexes_of(id)? {
            let found: Vec<_> = index.manifests.iter().map(|entry| (of_manifest(entry), entry)).collect();
            if let Some(platform) = platform {
                let fits = |image: &&ImageRecord| platform.runs(&image.platform);
                if let Some(image) = found.iter().filter_map(|(image, _)| *image).find(fits) {
                    return Ok(Chosen::Image(image.id.clone()));
                }
            } else if let Some(images) = found
                .into_iter()
                .map(|(image, entry)| Some((image?.id.clone(), entry.digest.clone())))
                .collect::<Option<Vec<_>>>()
            {
                return Ok(Chosen::Index { document: Box::new(document), images });
            }
        }
        let known = images.iter().find(|image| image.id == *id);
        if let (Some(platform), Some(image)) = (platform, known)
            && !platform.runs(&image.platform)
        {
            return Err(Error::NotFoundInRegistry(format!(
                "image {id} is for {}, and there is none for {platform}",
                image.platform
            )));
        }
        Ok(Chosen::Image(id.clone()))
    }
}

/// What is pushed.
enum Chosen {
    Image(ImageId),
    /// All images of an index, with their manifests.
    Index {
        document: Box<Fetched>,
        images: Vec<(ImageId, Digest)>,
    },
}

/// One push under way.
struct Push<'a> {
    images: &'a Images,
    to: Arc<dyn Remote>,
    cancel: &'a Cancel,
    /// Holds what is sent.
    lease: Lease,
    now: i64,
}

/// A layer to be sent, in the first of the forms that is to be had.
struct Job {
    layer: LayerRecord,
    forms: Vec<Descriptor>,
}

impl Push<'_> {
    fn image(
        &self,
        id: &ImageId,
        target: &TagOrDigest,
        progress: &mut dyn FnMut(PushProgress),
    ) -> Result<Pushed> {
        let store = &self.images.store;
        let image = store.images().get(id)?.ok_or_else(|| Error::NotFound(id.to_string()))?;
        let known = self.images.manifest_of(&image)?;
        let jobs = self.jobs(&image, known.as_ref().map(|(_, manifest)| manifest))?;
        let mut sent = self.send_all(jobs, progress)?;
        let layers: Vec<Descriptor> = image
            .layers
            .iter()
            .map(|layer| sent.remove(&layer.diff_id).ok_or_else(|| Error::NotFound(id.to_string())))
            .collect::<Result<_>>()?;
        let raw = store.content().read(id.digest())?;
        let manifest = match known {
            Some((document, manifest)) if manifest.layers == layers => document,
            _ => build_manifest(id, &raw, &layers)?,
        };
        self.config(id, &manifest, raw)?;
        let descriptor = &manifest.descriptor;
        let digest = self.to.push_manifest(target, &descriptor.media_type, &manifest.bytes)?;
        if digest != descriptor.digest {
            let what = format!("manifest in {}", self.to.name());
            return Err(Error::DigestMismatch { what, expected: descriptor.digest.clone(), found: digest });
        }
        self.record(&image, &manifest, &layers)?;
        Ok(Pushed { digest: digest.into(), size: descriptor.size })
    }

    /// Each layer once, though it be in several places.
    fn jobs(&self, image: &ImageRecord, manifest: Option<&Manifest>) -> Result<Vec<Job>> {
        let mut jobs: Vec<Job> = Vec::new();
        for (position, layer) in image.layers.iter().enumerate() {
            if jobs.iter().any(|job| job.layer.diff_id == layer.diff_id) {
                continue;
            }
            self.lease.hold(layer.chain_id.digest());
            let mut forms: Vec<Descriptor> =
                manifest.and_then(|manifest| manifest.layers.get(position)).cloned().into_iter().collect();
            for blob in self.images.store.images().blobs_of(&layer.diff_id)? {
                if forms.iter().all(|form| form.digest != blob.digest) {
                    forms.push(Descriptor::new(&blob.media_type, blob.digest, blob.size));
                }
            }
            for form in &forms {
                self.lease.hold(&form.digest);
            }
            jobs.push(Job { layer: layer.clone(), forms });
        }
        Ok(jobs)
    }

    /// Sends layers, several at once; says in which form the repository has each.
    fn send_all(
        &self,
        jobs: Vec<Job>,
        progress: &mut dyn FnMut(PushProgress),
    ) -> Result<BTreeMap<DiffId, Descriptor>> {
        let at_once = self.images.limits.uploads_at_once.min(jobs.len());
        for status in [PushStatus::Preparing, PushStatus::Waiting] {
            let waiting = if status == PushStatus::Waiting { at_once } else { 0 };
            for job in jobs.iter().skip(waiting) {
                progress(PushProgress { id: short(&job.layer), status: status.clone() });
            }
        }
        let queue = Mutex::new(jobs.into_iter());
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let failed = AtomicBool::new(false);
        let work = |news: Sender<PushProgress>| {
            let mut sent = Vec::new();
            while !failed.load(Ordering::Relaxed)
                && let Some(job) = next()
            {
                let form = self.send(&job, &news).inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
                sent.push((job.layer.diff_id, form));
            }
            Ok::<_, Error>(sent)
        };
        let results = thread::scope(|scope| {
            let (news, heard) = channel();
            let workers: Vec<_> = (0..at_once)
                .map(|_| {
                    let news = news.clone();
                    scope.spawn(|| work(news))
                })
                .collect();
            drop(news);
            // Until the last worker is done.
            heard.into_iter().for_each(progress);
            let join = |worker: thread::ScopedJoinHandle<'_, Result<Vec<_>>>| {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            workers.into_iter().map(join).collect::<Result<Vec<_>>>()
        })?;
        Ok(results.into_iter().flatten().collect())
    }

    /// Makes the repository have a layer, as cheaply as it can be done.
    fn send(&self, job: &Job, news: &Sender<PushProgress>) -> Result<Descriptor> {
        let tell = |status| {
            let _ = news.send(PushProgress { id: short(&job.layer), status });
        };
        for form in &job.forms {
            if self.to.has_blob(&form.digest)? {
                tell(PushStatus::Exists);
                return Ok(form.clone());
            }
        }
        for form in &job.forms {
            if let Some(from) = self.mount(&form.digest)? {
                tell(PushStatus::Mounted(from));
                return Ok(form.clone());
            }
        }
        let content = self.images.store.content();
        let kept = job.forms.iter().find(|form| content.size(&form.digest) == Some(form.size));
        let form = match kept {
            Some(form) => {
                let open = || {
                    let file = content.reader(&form.digest).map_err(io::Error::other)?;
                    Ok(Box::new(self.counted(job, form.size, file, news)) as Box<dyn Read + Send>)
                };
                self.to.push_blob(form, &open)?;
                form.clone()
            }
            None => self.compress(job, news)?,
        };
        tell(PushStatus::Pushed);
        Ok(form)
    }

    fn counted<T>(&self, job: &Job, total: u64, inner: T, news: &Sender<PushProgress>) -> Counted<T> {
        Counted {
            inner,
            news: news.clone(),
            cancel: self.cancel.clone(),
            id: short(&job.layer),
            current: 0,
            total,
            told_at: None,
        }
    }

    /// Asks the registry for a blob that is known to be elsewhere in it; says where it was.
    fn mount(&self, digest: &Digest) -> Result<Option<String>> {
        let Some((registry, own)) = self.to.name().split_once('/') else { return Ok(None) };
        for source in self.images.store.images().sources_of(digest)? {
            let Some(other) = source.strip_prefix(registry).and_then(|rest| rest.strip_prefix('/')) else {
                continue;
            };
            if other != own && self.to.mount_blob(digest, other)? {
                return Ok(Some(other.to_owned()));
            }
        }
        Ok(None)
    }

    /// Sends a layer whose blob nobody has: its tar is rebuilt, verified, and compressed on the way.
    fn compress(&self, job: &Job, news: &Sender<PushProgress>) -> Result<Descriptor> {
        let layer = &job.layer;
        let waiting = || drop(news.send(PushProgress { id: short(layer), status: PushStatus::Waiting }));
        let _turn = self.images.compressing.wait(COMPRESSED_AT_ONCE, self.cancel, waiting)?;
        let mut upload = self.to.upload()?;
        let (mut hasher, mut size) = (Sha256::new(), 0);
        let output = |bytes: Vec<u8>| {
            hasher.update(&bytes);
            size += bytes.len() as u64;
            Ok(upload.write(Bytes::from(bytes))?)
        };
        let (written, sent) = gzip::compress(output, |compressor| {
            self.images.write_layer(layer, &mut self.counted(job, layer.tar_size, compressor, news))
        });
        // What could not be sent could not be written either.
        sent?;
        // One that was changed on disk is given up here.
        written?;
        let digest = Digest::from_sha256(hasher.finalize().into());
        upload.finish(&digest)?;
        Ok(Descriptor::new(media_type::DOCKER_LAYER_GZIP, digest, size))
    }

    fn config(&self, id: &ImageId, manifest: &Fetched, raw: Vec<u8>) -> Result<()> {
        if self.to.has_blob(id.digest())? {
            return Ok(());
        }
        let kind = match manifest.descriptor.media_type.as_str() {
            media_type::DOCKER_MANIFEST => media_type::DOCKER_CONFIG,
            _ => media_type::OCI_CONFIG,
        };
        let descriptor = Descriptor::new(kind, id.digest().clone(), raw.len() as u64);
        let raw = Bytes::from(raw);
        let open = || Ok(Box::new(io::Cursor::new(raw.clone())) as Box<dyn Read + Send>);
        Ok(self.to.push_blob(&descriptor, &open)?)
    }

    fn record(&self, image: &ImageRecord, manifest: &Fetched, layers: &[Descriptor]) -> Result<()> {
        let content = self.images.store.content();
        let digest = &manifest.descriptor.digest;
        self.lease.hold(digest);
        if !content.has(digest) {
            content.put(&manifest.bytes)?;
        }
        let blobs: Vec<LayerBlob> = image
            .layers
            .iter()
            .zip(layers)
            .map(|(layer, form)| LayerBlob {
                diff_id: layer.diff_id.clone(),
                digest: form.digest.clone(),
                media_type: form.media_type.clone(),
                size: form.size,
                kept: content.has(&form.digest),
                source: Some(self.to.name().to_owned()),
            })
            .collect();
        let name = Reference::parse_exact(self.to.name())
            .map_err(|error| Error::Invalid(format!("{}: {error}", self.to.name())))?
            .with_digest(digest.clone());
        let digest = ManifestDigest::from(digest.clone());
        Ok(self.images.store.images().pushed(&image.id, &digest, &blobs, &name, self.now)?)
    }
}

/// A stream that tells how much of a layer went through it, and ends when the push is cancelled.
struct Counted<T> {
    inner: T,
    news: Sender<PushProgress>,
    cancel: Cancel,
    id: String,
    current: u64,
    total: u64,
    told_at: Option<Instant>,
}

impl<T> Counted<T> {
    fn count(&mut self, length: usize) -> io::Result<()> {
        self.current += length as u64;
        let now = Instant::now();
        if self.told_at.is_none_or(|told_at| now - told_at >= NEWS_INTERVAL) {
            self.told_at = Some(now);
            let status = PushStatus::Pushing { current: self.current.min(self.total), total: self.total };
            let _ = self.news.send(PushProgress { id: self.id.clone(), status });
        }
        if self.cancel.is_cancelled() {
            return Err(io::Error::other(ponton_registry::Error::Cancelled));
        }
        Ok(())
    }
}

impl<T: Read> Read for Counted<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.count(length)?;
        Ok(length)
    }
}

impl<T: Write> Write for Counted<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(buffer)?;
        self.count(length)?;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn short(layer: &LayerRecord) -> String {
    layer.diff_id.hex().chars().take(12).collect()
}
