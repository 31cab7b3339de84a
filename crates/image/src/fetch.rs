//! Layers on their way here from registries. Each is fetched once, however many pulls wait for it.
//!
//! ```text
//! network ──► chunks ──┬──► SHA-256, blob (invisible)
//!                      └──► decompress ──► chunks ──┬──► SHA-256: the diff id
//!                                                   └──► unpack (invisible)
//! ```

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ponton_oci::descriptor::Descriptor;
use ponton_oci::digest::Digest;
use ponton_registry::Cancel;
use ponton_store::Sealed;

use crate::layer::{LayerInfo, Unpacked};
use crate::pipeline::{self, BLOB};
use crate::pull::LayerStatus;
use crate::remote::{Remote, error_of};
use crate::turn::Turns;
use crate::{Error, Images, Result};

/// So often a number of bytes is told.
pub(crate) const NEWS_INTERVAL: Duration = Duration::from_millis(100);
/// So often a thread that waits for its turn looks whether it is still wanted.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What a pull is told of a layer that it waits for.
pub(crate) struct News {
    pub(crate) layer: Digest,
    pub(crate) what: What,
}

pub(crate) enum What {
    Status(LayerStatus),
    /// It is there, or it is not to be had.
    Done,
}

/// All fetches of the daemon.
#[derive(Default)]
pub(crate) struct Fetches {
    running: Mutex<HashMap<Digest, Arc<Fetch>>>,
    turns: Turns,
    tickets: AtomicU64,
}

/// One layer on its way.
struct Fetch {
    descriptor: Descriptor,
    cancel: Cancel,
    state: Mutex<State>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    waiting: Vec<(u64, Sender<News>)>,
    last: Option<LayerStatus>,
    told_at: Option<Instant>,
    outcome: Option<Result<LayerInfo, Option<Error>>>,
    fetched: Option<Fetched>,
}

/// A layer that is here, but not in sight.
pub(crate) struct Fetched {
    pub(crate) unpacked: Unpacked,
    /// Its blob; none if that was here already.
    pub(crate) sealed: Option<Sealed>,
}

/// A pull's claim to a layer. When the last one goes, so does the layer, unless it was taken.
pub(crate) struct Ticket {
    fetches: Arc<Fetches>,
    fetch: Arc<Fetch>,
    number: u64,
    /// Whether the fetch uses this pull's repository.
    is_first: bool,
}

/// How a fetch ended.
pub(crate) enum Outcome {
    There(LayerInfo),
    Failed(Error),
    /// With another pull's repository: it is to be tried with one's own.
    FailedForOther,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Images {
    /// Begins to fetch a layer, or joins those who wait for it already.
    pub(crate) fn fetch(
        &self,
        from: &Arc<dyn Remote>,
        descriptor: &Descriptor,
        news: Sender<News>,
    ) -> Result<Ticket> {
        let fetches = &self.fetches;
        let number = fetches.tickets.fetch_add(1, Ordering::Relaxed);
        let mut running = lock(&fetches.running);
        if let Some(fetch) = running.get(&descriptor.digest)
            && fetch.descriptor.size == descriptor.size
            && fetch.join(number, &news)
        {
            let fetch = Arc::clone(fetch);
            return Ok(Ticket { fetches: Arc::clone(fetches), fetch, number, is_first: false });
        }
        let fetch = Arc::new(Fetch {
            descriptor: descriptor.clone(),
            cancel: Cancel::new(),
            state: Mutex::new(State { waiting: vec![(number, news)], ..State::default() }),
            worker: Mutex::default(),
        });
        let worker = {
            let (images, fetch) = (self.clone(), Arc::clone(&fetch));
            let from = from.with_cancel(fetch.cancel.clone());
            move || {
                let outcome = images.fetch_now(&*from, &fetch);
                // Nothing of the store may be held once the pull knows.
                drop(images);
                fetch.end(outcome);
            }
        };
        let worker = thread::Builder::new().name("fetch".to_owned()).spawn(worker);
        *lock(&fetch.worker) = Some(worker.map_err(Error::io("start a thread to fetch a layer"))?);
        running.insert(descriptor.digest.clone(), Arc::clone(&fetch));
        Ok(Ticket { fetches: Arc::clone(fetches), fetch, number, is_first: true })
    }

    fn fetch_now(&self, from: &dyn Remote, fetch: &Fetch) -> Result<Fetched> {
        let waiting = || fetch.tell(LayerStatus::Waiting, true);
        let _turn = self.fetches.turns.wait(self.limits.layers_at_once, &fetch.cancel, waiting)?;
        let Descriptor { digest, size, .. } = &fetch.descriptor;
        let total = *size;
        let here = self.unpack_kept(digest, total, &mut |current| {
            fetch.tell(LayerStatus::Extracting { current: current.min(total), total }, false);
        });
        if let Some(unpacked) = here {
            return Ok(Fetched { unpacked, sealed: None });
        }
        self.fetch_blob(from, fetch)
    }

    /// Unpacks a blob that is here, and is sound: one that is damaged is as good as none, and the
    /// check names it.
    pub(crate) fn unpack_kept(
        &self,
        digest: &Digest,
        size: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Option<Unpacked> {
        let mut blob = self.store.content().reader(digest).ok()?;
        let mut hashing = pipeline::Hashing::new(&mut blob);
        let what = format!("layer {digest}");
        let limit = self.limits.unpacked_max(size);
        let unpacked = self.unpack_bounded(&mut hashing, &what, limit, progress).ok()?;
        io::copy(&mut hashing, &mut io::sink()).ok()?;
        (hashing.finish() == (digest.clone(), size)).then_some(unpacked)
    }

    fn fetch_blob(&self, from: &dyn Remote, fetch: &Fetch) -> Result<Fetched> {
        let descriptor = &fetch.descriptor;
        let what = format!("layer {} of {}", descriptor.digest, from.name());
        let total = descriptor.size;
        let mut blob = self.store.content().writer_with(descriptor.digest.algorithm())?.with_size_max(total);
        let downloaded = AtomicBool::new(false);
        let failure = Mutex::new(None);
        let mut source = Source {
            input: from.blob(descriptor)?,
            fetch,
            current: 0,
            downloaded: &downloaded,
            failure: &failure,
        };
        fetch.tell(LayerStatus::Downloading { current: 0, total }, true);
        let limit = self.limits.unpacked_max(total);
        let mut extracting = |current| {
            if downloaded.load(Ordering::Relaxed) {
                fetch.tell(LayerStatus::Extracting { current, total }, false);
            }
        };
        let (unpacked, sealed, _) = pipeline::split(
            BLOB,
            &mut source,
            &mut extracting,
            move |pieces| {
                pieces.each(|piece| blob.write_all(piece)).map_err(Error::io("write a layer's blob"))?;
                Ok::<_, Error>(blob)
            },
            |chunks| {
                let unpacked = self.unpack_bounded(chunks, &what, limit, &mut |_| {});
                // Also of one that cannot be unpacked: wrong bytes are better called by their name.
                if matches!(unpacked, Ok(_) | Err(Error::Archive { .. })) {
                    io::copy(chunks, &mut io::sink()).map_err(Error::io("read a layer's blob"))?;
                }
                unpacked
            },
        );
        if let Some(error) = lock(&failure).take() {
            return Err(match error_of(error) {
                Ok(error) => error.into(),
                Err(error) => Error::Io { what, source: error },
            });
        }
        let blob = sealed?;
        match (blob.seal(Some((&descriptor.digest, total))), unpacked) {
            (Ok(sealed), Ok(unpacked)) => Ok(Fetched { unpacked, sealed: Some(sealed) }),
            (Err(error), Err(Error::Archive { .. }) | Ok(_)) => Err(match error {
                ponton_store::Error::DigestMismatch { expected, actual } => {
                    Error::DigestMismatch { what, expected, found: actual }
                }
                other => other.into(),
            }),
            (_, Err(error)) => Err(error),
        }
    }
}

#[cfg(test)]
impl Fetches {
    /// How many pulls wait for a layer.
    pub(crate) fn waiting(&self, digest: &Digest) -> usize {
        let running = lock(&self.running);
        running.get(digest).map_or(0, |fetch| lock(&fetch.state).waiting.len())
    }
}

impl Fetch {
    /// False if it failed already.
    fn join(&self, number: u64, news: &Sender<News>) -> bool {
        let mut state = lock(&self.state);
        let what = match (&state.outcome, state.last) {
            (Some(Err(_)), _) => return false,
            (Some(Ok(_)), _) => Some(What::Done),
            (None, last) => last.map(What::Status),
        };
        if let Some(what) = what {
            let _ = news.send(News { layer: self.descriptor.digest.clone(), what });
        }
        state.waiting.push((number, news.clone()));
        true
    }

    /// Tells all who wait; numbers of bytes not too often.
    fn tell(&self, status: LayerStatus, at_once: bool) {
        let mut state = lock(&self.state);
        let now = Instant::now();
        if !at_once && state.told_at.is_some_and(|told_at| now - told_at < NEWS_INTERVAL) {
            return;
        }
        state.told_at = Some(now);
        state.last = Some(status);
        self.send(&state, || What::Status(status));
    }

    fn end(&self, outcome: Result<Fetched>) {
        let mut state = lock(&self.state);
        match outcome {
            Ok(fetched) => {
                state.outcome = Some(Ok(fetched.unpacked.info.clone()));
                state.fetched = Some(fetched);
            }
            Err(error) => state.outcome = Some(Err(Some(error))),
        }
        self.send(&state, || What::Done);
    }

    fn send(&self, state: &State, what: impl Fn() -> What) {
        for (_, news) in &state.waiting {
            // Who does not listen any more gives its ticket back.
            let _ = news.send(News { layer: self.descriptor.digest.clone(), what: what() });
        }
    }
}

impl Ticket {
    /// How it ended, once [`What::Done`] was told.
    pub(crate) fn outcome(&self) -> Outcome {
        match &mut lock(&self.fetch.state).outcome {
            Some(Ok(info)) => Outcome::There(info.clone()),
            Some(Err(error)) if self.is_first => Outcome::Failed(error.take().unwrap_or(Error::Cancelled)),
            Some(Err(_)) | None => Outcome::FailedForOther,
        }
    }

    /// Takes the layer, unless another pull did.
    pub(crate) fn take(&self) -> Option<Fetched> {
        lock(&self.fetch.state).fetched.take()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut running = lock(&self.fetches.running);
        let mut state = lock(&self.fetch.state);
        state.waiting.retain(|(number, _)| *number != self.number);
        if !state.waiting.is_empty() {
            return;
        }
        let digest = &self.fetch.descriptor.digest;
        if running.get(digest).is_some_and(|fetch| Arc::ptr_eq(fetch, &self.fetch)) {
            running.remove(digest);
        }
        drop(state);
        drop(running);
        self.fetch.cancel.cancel();
        // What is under way lets go of its files before the pull is over.
        if let Some(worker) = lock(&self.fetch.worker).take() {
            let _ = worker.join();
        }
        lock(&self.fetch.state).fetched = None;
    }
}

/// The network's end of a fetch. Its error is kept aside, whatever decoders make of it.
struct Source<'a> {
    input: Box<dyn Read + Send>,
    fetch: &'a Fetch,
    current: u64,
    downloaded: &'a AtomicBool,
    failure: &'a Mutex<Option<io::Error>>,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = if self.fetch.cancel.is_cancelled() {
            Err(io::Error::other(ponton_registry::Error::Cancelled))
        } else {
            self.input.read(buffer)
        };
        match read {
            Ok(length) => {
                let total = self.fetch.descriptor.size;
                self.current += length as u64;
                if length == 0 {
                    self.downloaded.store(true, Ordering::Relaxed);
                    self.fetch.tell(LayerStatus::DownloadComplete, true);
                } else {
                    self.fetch.tell(LayerStatus::Downloading { current: self.current, total }, false);
                }
                Ok(length)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                *lock(self.failure) = Some(error);
                Err(kind.into())
            }
        }
    }
}
