//! Log lines as a stream: what is there, and what comes.

mod address;
mod attributes;
mod format;
mod options;
mod reader;
mod source;
mod target;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::stream;
use jiff::Timestamp;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

use crate::error::{Error, Result};
use crate::request::{LogsRequest, Pending, Stream};
pub(crate) use format::Format;
pub use options::{DRIVERS, check};
pub(crate) use options::{driver_name, fill, seen};
use reader::Reader;
pub(crate) use target::{kept, local, open, shown};

/// What wakes a follower.
struct Follow {
    changes: AsyncFd<OwnedFd>,
    /// Resolves when nothing more will be written, or nothing after a time that belongs to it.
    ended: Pending<Option<Timestamp>>,
}

/// Why a follower woke up.
enum Woken {
    /// There may be more to read.
    Changed,
    /// There will be no more; what is later than this is another run's.
    Ended(Option<Timestamp>),
}

struct Tailing {
    reader: Option<Reader>,
    path: PathBuf,
    follow: Option<Follow>,
}

/// The lines of the log at `path`. With `request.follow` the stream goes on until `ended` resolves,
/// which has to be after the last line was written.
pub(crate) async fn stream(
    path: PathBuf,
    format: Format,
    request: LogsRequest,
    raw: bool,
    ended: Pending<Option<Timestamp>>,
) -> Result<Stream<Bytes>> {
    let follow = if request.follow {
        let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
        Some(Follow { changes: watch(&directory)?, ended: until(ended, &request) })
    } else {
        None
    };
    let opened = path.clone();
    let reader = blocking(&path, move || Reader::open(&opened, format, request, raw)).await?;
    let tailing = Tailing { reader: Some(reader), path, follow };
    Ok(Box::pin(stream::try_unfold(tailing, next)))
}

/// `ended`, or the time when nothing that comes is wanted any more.
fn until(ended: Pending<Option<Timestamp>>, request: &LogsRequest) -> Pending<Option<Timestamp>> {
    let Some(until) = request.until else { return ended };
    let left = until.duration_since(Timestamp::now());
    let left = std::time::Duration::try_from(left).unwrap_or_default();
    Box::pin(async move { tokio::time::timeout(left, ended).await.unwrap_or(Ok(None)) })
}

async fn next(mut tailing: Tailing) -> Result<Option<(Bytes, Tailing)>> {
    loop {
        let Some(mut reader) = tailing.reader.take() else { return Ok(None) };
        let (reader, batch) = blocking(&tailing.path, move || {
            let batch = reader.next_batch()?;
            Ok((reader, batch))
        })
        .await?;
        let finished = reader.is_past_end();
        tailing.reader = Some(reader);
        match batch {
            Some(batch) if batch.is_empty() => {}
            Some(batch) => return Ok(Some((batch.into(), tailing))),
            None if finished => return Ok(None),
            None => match &mut tailing.follow {
                None => return Ok(None),
                Some(follow) => {
                    // After the end everything that was written is read once more.
                    if let Woken::Ended(at) = follow.wait().await? {
                        tailing.follow = None;
                        if let (Some(reader), Some(at)) = (&mut tailing.reader, at) {
                            reader.end_at(at);
                        }
                    }
                }
            },
        }
    }
}

impl Follow {
    /// Waits until there may be more to read, or nothing will be written any more.
    async fn wait(&mut self) -> Result<Woken> {
        tokio::select! {
            biased;
            ended = &mut self.ended => Ok(Woken::Ended(ended.unwrap_or_default())),
            ready = self.changes.readable() => {
                let mut guard = ready.map_err(|error| Error::failed("wait for log lines", error))?;
                drain(guard.get_inner())?;
                guard.clear_ready();
                Ok(Woken::Changed)
            }
        }
    }
}

/// Reads the notifications away: that there were some is all that matters.
fn drain(fd: &OwnedFd) -> Result<()> {
    let mut buffer = [0u8; 4096];
    loop {
        match rustix::io::read(fd, &mut buffer) {
            Ok(0) | Err(rustix::io::Errno::AGAIN) => return Ok(()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Error::failed("read inotify events", error)),
        }
    }
}

fn watch(directory: &Path) -> Result<AsyncFd<OwnedFd>> {
    let failed = |error: rustix::io::Errno| {
        Error::failed(format!("watch log directory {}", directory.display()), error)
    };
    let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).map_err(failed)?;
    let wanted = inotify::WatchFlags::MODIFY
        | inotify::WatchFlags::CREATE
        | inotify::WatchFlags::MOVED_TO
        | inotify::WatchFlags::DELETE_SELF;
    inotify::add_watch(&fd, directory, wanted).map_err(failed)?;
    crate::poll::register(fd, tokio::io::Interest::READABLE)
        .map_err(|error| Error::failed("watch log directory", error))
}

async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T> {
    let attempted = || format!("read log {}", path.display());
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| Error::failed(attempted(), error)),
        Err(error) => Err(Error::failed(attempted(), error)),
    }
}
