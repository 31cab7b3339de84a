//! Images from a registry.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::mpsc::channel;

use ponton_oci::descriptor::Descriptor;
use ponton_oci::digest::{ChainId, DiffId, Digest, ImageId, ManifestDigest};
use ponton_oci::platform::Platform;
use ponton_oci::reference::Reference;
use ponton_registry::{Cancel, TagOrDigest};
use ponton_store::{LayerBlob, Lease, Sealed};

use crate::fetch::{Fetched, LOOK_INTERVAL, News, Outcome, Ticket, What};
use crate::import::nanoseconds;
use crate::layer::{LayerInfo, Stack, check_diff_id};
use crate::record::NewImage;
use crate::remote::Remote;
use crate::resolve::{Resolved, platform_of};
use crate::{Error, Images, Result};

/// What of an image is pulled.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// The platform; the host's if none, and then another one is taken where the registry has only
    /// that.
    pub platform: Option<Platform>,
    /// The images of all platforms of an index.
    pub all_platforms: bool,
}

/// Something to tell the user while a pull goes on. Layers are named by the first 12 characters of
/// their blobs' digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullProgress {
    /// What the name means is known: digest of the manifest or index.
    Resolved(ManifestDigest),
    /// News of a layer.
    Layer {
        /// Short name.
        id: String,
        /// What happens to it.
        status: LayerStatus,
    },
}

/// How far a layer has come. Unpacking begins with the first bytes: [`LayerStatus::Extracting`] is
/// told of what is left when all bytes are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerStatus {
    /// Docker's "Pulling fs layer".
    Pending,
    /// It is there already.
    AlreadyExists,
    /// Its turn comes later.
    Waiting,
    /// Compressed bytes.
    Downloading {
        /// So far.
        current: u64,
        /// In all.
        total: u64,
    },
    /// All bytes are there, and are what the digest says.
    DownloadComplete,
    /// Compressed bytes.
    Extracting {
        /// So far.
        current: u64,
        /// In all.
        total: u64,
    },
    /// Unpacked and verified.
    PullComplete,
}

/// What was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The image for the platform asked for.
    pub id: ImageId,
    /// Digest of the manifest or index that the name means.
    pub digest: ManifestDigest,
    /// Whether the name means something else than before.
    pub is_new: bool,
    /// The image's platform, where it is neither the host's nor was asked for.
    pub other_platform: Option<Platform>,
}

impl Images {
    /// Pulls the image that `reference` names from the repository `from`, unpacks it, and gives it
    /// its names: the reference, and the repository with the digest. `now`, in nanoseconds since the
    /// epoch, is when it got them.
    ///
    /// On an error, and when cancelled, nothing stays behind but what other pulls wait for.
    pub fn pull(
        &self,
        from: &Arc<dyn Remote>,
        reference: &Reference,
        options: &PullOptions,
        now: i64,
        cancel: &Cancel,
        progress: &mut dyn FnMut(PullProgress),
    ) -> Result<Pulled> {
        let lease = self.store.lease();
        let pull = Pull { images: self, from: from.with_cancel(cancel.clone()), lease: &lease, cancel };
        let pulled = pull.run(reference, options, now, progress);
        if pulled.is_err() {
            drop(lease);
            self.collect_leftovers();
        }
        pulled
    }
}

/// One pull under way.
struct Pull<'a> {
    images: &'a Images,
    from: Arc<dyn Remote>,
    /// Holds all that the images' records are going to name.
    lease: &'a Lease,
    cancel: &'a Cancel,
}

/// Where a layer comes from.
enum Place {
    /// It is in its place already.
    Here(LayerInfo),
    /// From the fetch of its blob.
    Fetched,
}

/// One image under way.
struct Planned {
    resolved: Resolved,
    layers: Vec<Place>,
}

impl Pull<'_> {
    fn run(
        &self,
        reference: &Reference,
        options: &PullOptions,
        now: i64,
        progress: &mut dyn FnMut(PullProgress),
    ) -> Result<Pulled> {
        let top = self.from.manifest(&TagOrDigest::from(reference))?;
        let digest = ManifestDigest::from(top.descriptor.digest.clone());
        progress(PullProgress::Resolved(digest.clone()));
        let resolved = self.images.resolve_images(&*self.from, &top, options)?;
        let images: Vec<Planned> =
            resolved.into_iter().map(|image| self.plan(image)).collect::<Result<_>>()?;
        let tickets = self.fetch(&images, progress)?;
        self.cancel_check()?;

        let by_digest = reference.with_digest(digest.digest().clone());
        let name = if reference.digest().is_some() { &by_digest } else { reference };
        let before = self.images.store.images().references()?;
        let mut pulled: Option<Pulled> = None;
        for image in images {
            let platform = platform_of(&image.resolved.config);
            let names = if pulled.is_none() {
                BTreeSet::from([name.clone(), by_digest.clone()])
            } else {
                // The others of an index are named by their own manifests.
                BTreeSet::from([reference.with_digest(image.resolved.document.descriptor.digest.clone())])
            };
            let id = self.commit(image, &top, &names, &tickets, now)?;
            pulled.get_or_insert_with(|| Pulled {
                is_new: names.iter().any(|name| before.get(name) != Some(&id)),
                id,
                digest: digest.clone(),
                other_platform: Some(platform)
                    .filter(|platform| options.platform.is_none() && !Platform::host().runs(platform)),
            });
        }
        pulled.ok_or_else(|| Error::Invalid(format!("{reference} names no image")))
    }

    fn cancel_check(&self) -> Result<()> {
        if self.cancel.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Finds out which layers are here, and holds them.
    fn plan(&self, resolved: Resolved) -> Result<Planned> {
        let _guard = self.images.exclusive();
        let mut parent = None;
        let mut layers = Vec::new();
        for diff_id in &resolved.config.rootfs.diff_ids {
            let chain = ChainId::next(parent.as_ref(), diff_id);
            self.lease.hold(chain.digest());
            let record = self.images.store.images().layer(&chain)?;
            let record = record.filter(|_| self.images.snapshotter.has_layer(&chain));
            layers.push(record.map_or(Place::Fetched, |record| {
                Place::Here(LayerInfo {
                    diff_id: record.diff_id,
                    size: record.size,
                    tar_size: record.tar_size,
                })
            }));
            parent = Some(chain);
        }
        for layer in &resolved.manifest.layers {
            self.lease.hold(&layer.digest);
        }
        Ok(Planned { resolved, layers })
    }

    /// Fetches the layers that are not here, the largest first.
    fn fetch(
        &self,
        images: &[Planned],
        progress: &mut dyn FnMut(PullProgress),
    ) -> Result<HashMap<Digest, Ticket>> {
        let mut wanted: Vec<&Descriptor> = Vec::new();
        for (layer, place) in images.iter().flat_map(Planned::layers) {
            let status = match place {
                Place::Here(_) => LayerStatus::AlreadyExists,
                Place::Fetched if wanted.iter().any(|known| known.digest == layer.digest) => continue,
                Place::Fetched => {
                    wanted.push(layer);
                    LayerStatus::Pending
                }
            };
            progress(PullProgress::Layer { id: short(&layer.digest), status });
        }
        wanted.sort_by_key(|layer| layer.size);
        let (news, heard) = channel();
        let mut tickets: HashMap<Digest, Ticket> = HashMap::new();
        let mut open = 0;
        while open > 0 || !wanted.is_empty() {
            while open < self.images.limits.layers_at_once
                && let Some(layer) = wanted.pop()
            {
                tickets.insert(layer.digest.clone(), self.images.fetch(&self.from, layer, news.clone())?);
                open += 1;
            }
            self.cancel_check()?;
            let Ok(News { layer, what }) = heard.recv_timeout(LOOK_INTERVAL) else { continue };
            let id = short(&layer);
            match what {
                What::Status(status) => progress(PullProgress::Layer { id, status }),
                What::Done => {
                    let Some(ticket) = tickets.get(&layer) else { continue };
                    match ticket.outcome() {
                        Outcome::There(_) => {
                            progress(PullProgress::Layer { id, status: LayerStatus::PullComplete });
                        }
                        Outcome::Failed(error) => return Err(error),
                        Outcome::FailedForOther => {
                            tickets.remove(&layer);
                            let again = images.iter().flat_map(Planned::layers);
                            wanted.extend(again.map(|(layer, _)| layer).find(|known| known.digest == layer));
                        }
                    }
                    open -= 1;
                }
            }
        }
        Ok(tickets)
    }

    /// Puts an image together, and makes it visible.
    fn commit(
        &self,
        image: Planned,
        top: &ponton_registry::Fetched,
        names: &BTreeSet<Reference>,
        tickets: &HashMap<Digest, Ticket>,
        now: i64,
    ) -> Result<ImageId> {
        let Planned { resolved, layers } = image;
        let content = self.images.store.content();
        let _guard = self.images.exclusive();
        let mut stack = Stack::default();
        let (mut sealed, mut blobs) = (Vec::new(), Vec::new());
        let diff_ids = &resolved.config.rootfs.diff_ids;
        for ((descriptor, diff_id), place) in resolved.manifest.layers.iter().zip(diff_ids).zip(layers) {
            let fetched = match place {
                Place::Here(info) => {
                    stack.push(info, None);
                    None
                }
                Place::Fetched => self.place(descriptor, diff_id, tickets, &mut stack)?,
            };
            sealed.extend(fetched);
            blobs.push(LayerBlob {
                diff_id: diff_id.clone(),
                digest: descriptor.digest.clone(),
                media_type: descriptor.media_type.clone(),
                size: descriptor.size,
                kept: false,
                source: Some(self.from.name().to_owned()),
            });
        }
        for blob in &mut blobs {
            blob.kept = content.has(&blob.digest) || sealed.iter().any(|new| new.digest() == &blob.digest);
        }
        for document in [&resolved.document, top] {
            let digest = &document.descriptor.digest;
            self.lease.hold(digest);
            if !content.has(digest) && !sealed.iter().any(|new| new.digest() == digest) {
                sealed.push(content.seal_with(digest.algorithm(), &document.bytes)?);
            }
        }
        let created_at = resolved.config.created.as_deref().and_then(nanoseconds).unwrap_or(0);
        let references: Vec<Reference> = names.iter().cloned().collect();
        let new = NewImage {
            raw: &resolved.raw,
            stack,
            created_at,
            manifest: Some(resolved.document.descriptor.digest.into()),
            blobs,
            sealed,
            references: &references,
            now,
        };
        self.images.commit_image(self.lease, new)
    }

    /// Puts a fetched layer on the stack; gives its blob, if that is new.
    fn place(
        &self,
        descriptor: &Descriptor,
        diff_id: &DiffId,
        tickets: &HashMap<Digest, Ticket>,
        stack: &mut Stack,
    ) -> Result<Option<Sealed>> {
        let what = format!("layer {} of {}", descriptor.digest, self.from.name());
        let ticket = tickets.get(&descriptor.digest);
        let Some((ticket, Outcome::There(info))) = ticket.map(|ticket| (ticket, ticket.outcome())) else {
            return Err(Error::Invalid(format!("{what} was not fetched")));
        };
        check_diff_id(&what, diff_id, &info.diff_id)?;
        let chain = ChainId::next(stack.top(), diff_id);
        let (writer, sealed) = match ticket.take() {
            Some(Fetched { unpacked, sealed }) => (Some(unpacked.writer), sealed),
            None => (None, None),
        };
        if self.images.snapshotter.has_layer(&chain) || stack.uncommitted(&chain).is_some() {
            stack.push(info, None);
            return Ok(sealed);
        }
        let writer = match writer {
            Some(writer) => writer,
            // It went to another place of a stack, here or in another pull.
            None => self.images.unpack_from(diff_id, stack)?.writer,
        };
        stack.push(info, Some(writer));
        Ok(sealed)
    }
}

impl Planned {
    fn layers(&self) -> impl Iterator<Item = (&Descriptor, &Place)> {
        self.resolved.manifest.layers.iter().zip(&self.layers)
    }
}

/// As Docker's clients show a layer.
fn short(digest: &Digest) -> String {
    digest.hex().chars().take(12).collect()
}
