//! Blobs on their way to a registry.
//!
//! ```text
//! POST  /v2/<name>/blobs/uploads/           202 Location: where to go on
//! PUT   <location>?digest=…   whole body    201                        size and digest known
//! PATCH <location>   a chunk                202 Location, Range        unknown: as often as needed, then
//! PUT   <location>?digest=…   no body       201
//! GET   <location>                          204 Range: what is there   after a cut
//! ```

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Uri};
use ponton_oci::descriptor::Descriptor;
use ponton_oci::digest::Digest;

use crate::access::Query;
use crate::config::Cancel;
use crate::endpoint::Session;
use crate::error::{Error, Result};
use crate::redirect::target;
use crate::repository::ask;
use crate::transport::{Answer, Ask, Payload};
use crate::tries::Tries;

/// Opens the bytes of a blob, from the first.
pub type Source<'a> = dyn Fn() -> io::Result<Box<dyn Read + Send>> + Send + Sync + 'a;

/// An attempt that got as many bytes further than any before it has made progress.
const PROGRESS: u64 = 64 << 10;
/// Attempts in all, also with progress: most registries can't resume, and begin again each time.
const RESTARTS_MAX: u32 = 100;
/// Bytes of a chunk, unless the registry wants more; and the most that it may want.
const CHUNK: usize = 8 << 20;
const CHUNK_MAX: usize = 64 << 20;
const OCI_CHUNK_MIN_LENGTH: &str = "oci-chunk-min-length";

/// Takes a blob over from another repository; false if the registry would rather have it sent.
pub(crate) async fn mount(
    session: &Session,
    path: &str,
    what: &str,
    digest: &Digest,
    from: &str,
) -> Result<bool> {
    let mut query = Query(String::new());
    query.add("mount", &digest.to_string());
    query.add("from", from);
    let url = session.url(&format!("/v2/{path}/blobs/uploads/?{}", query.0)).await?;
    let answer = session.persist(&ask(session, what, Method::POST, url)).await?;
    if answer.status.as_u16() == 201 {
        return Ok(true);
    }
    // It has begun an upload instead, which another request begins anew: forget this one, if that can be done.
    if let Ok(location) = location(what, &answer) {
        let forgotten = session.send(&ask(session, what, Method::DELETE, location)).await;
        forgotten.inspect_err(|error| tracing::debug!(%error, "upload is left to the registry")).ok();
    }
    Ok(false)
}

/// Pushes a blob whose size and digest are known.
pub(crate) async fn push(
    session: &Session,
    path: &str,
    what: &str,
    blob: &Descriptor,
    source: &Source<'_>,
) -> Result<()> {
    let mut furthest = 0;
    let mut failed = 0;
    for _ in 0..RESTARTS_MAX {
        let sent = Arc::new(AtomicU64::new(0));
        let Err(error) = push_once(session, path, what, blob, source, &sent).await else { return Ok(()) };
        let sent = sent.load(Ordering::Relaxed);
        if sent >= furthest + PROGRESS {
            (furthest, failed) = (sent, 0);
        }
        Tries::after(&session.transport.limits, failed).pause(error).await?;
        failed += 1;
    }
    let reason = format!("cut {RESTARTS_MAX} times");
    Err(Error::Lost { what: what.to_owned(), reason })
}

async fn push_once(
    session: &Session,
    path: &str,
    what: &str,
    blob: &Descriptor,
    source: &Source<'_>,
    sent: &Arc<AtomicU64>,
) -> Result<()> {
    let (location, _) = begin(session, path, what).await?;
    let ask = Ask {
        headers: vec![octets()],
        payload: Payload::Source { size: blob.size, open: source },
        wait: session.transport.limits.commit,
        sent: sent.clone(),
        ..ask(session, what, Method::PUT, with_digest(what, &location, &blob.digest)?)
    };
    let error = match session.send(&ask).await {
        Ok(answer) => return created(what, &answer, &blob.digest),
        Err(error @ (Error::Lost { .. } | Error::Timeout { .. })) => error,
        Err(error) => return Err(error),
    };
    // The whole of it may have arrived, and only the answer been lost; or some of it, to be completed.
    match resume(session, what, &location, blob, source, sent).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(error),
        Err(resumed) => {
            tracing::debug!(error = %resumed, "upload can't be resumed");
            Err(error)
        }
    }
}

/// Sends the rest of what the registry has a part of; false if it has none.
async fn resume(
    session: &Session,
    what: &str,
    location: &Uri,
    blob: &Descriptor,
    source: &Source<'_>,
    sent: &Arc<AtomicU64>,
) -> Result<bool> {
    let answer = session.send(&ask(session, what, Method::GET, location.clone())).await?;
    let there = received(&answer).unwrap_or(0);
    if there == 0 || there > blob.size {
        return Ok(false);
    }
    let mut location = next_location(what, &answer, location)?;
    if there < blob.size {
        let rest = || {
            let mut source = source()?;
            io::copy(&mut source.by_ref().take(there), &mut io::sink())?;
            Ok(source)
        };
        let ask = Ask {
            headers: vec![octets(), content_range(there, blob.size)],
            payload: Payload::Source { size: blob.size - there, open: &rest },
            wait: session.transport.limits.commit,
            ..ask(session, what, Method::PATCH, location.clone())
        };
        let patched = session.send(&ask).await;
        sent.store(there + ask.sent.load(Ordering::Relaxed), Ordering::Relaxed);
        location = next_location(what, &patched?, &location)?;
    }
    complete(session, what, &location, &blob.digest, Bytes::new()).await.map(|()| true)
}

/// Begins an upload: where to go on, and how large chunks must be.
async fn begin(session: &Session, path: &str, what: &str) -> Result<(Uri, usize)> {
    let url = session.url(&format!("/v2/{path}/blobs/uploads/")).await?;
    let answer = session.persist(&ask(session, what, Method::POST, url)).await?;
    let least = answer.header(OCI_CHUNK_MIN_LENGTH).and_then(|least| least.parse().ok()).unwrap_or(0);
    if least > CHUNK_MAX {
        let reason = format!("it wants chunks of {least} bytes, {CHUNK_MAX} are the most");
        return Err(Error::Answer { what: what.to_owned(), reason });
    }
    Ok((location(what, &answer)?, least.max(CHUNK)))
}

async fn complete(session: &Session, what: &str, location: &Uri, digest: &Digest, last: Bytes) -> Result<()> {
    let ask = Ask {
        headers: vec![octets()],
        payload: if last.is_empty() { Payload::None } else { Payload::Bytes(last) },
        wait: session.transport.limits.commit,
        ..ask(session, what, Method::PUT, with_digest(what, location, digest)?)
    };
    created(what, &session.send(&ask).await?, digest)
}

/// Checks the answer to a whole blob.
fn created(what: &str, answer: &Answer, digest: &Digest) -> Result<()> {
    let told = answer.header("docker-content-digest").and_then(|told| told.parse::<Digest>().ok());
    match told {
        Some(actual) if actual != *digest && actual.algorithm() == digest.algorithm() => {
            Err(Error::Digest { what: what.to_owned(), actual })
        }
        _ => Ok(()),
    }
}

fn location(what: &str, answer: &Answer) -> Result<Uri> {
    let location = answer.header(header::LOCATION).unwrap_or_default();
    target(&answer.url, location).map_err(|reason| Error::Redirect {
        what: what.to_owned(),
        location: crate::error::printable(location.split('?').next().unwrap_or_default()),
        reason,
    })
}

/// The location in an answer, or the one before it if there is none.
fn next_location(what: &str, answer: &Answer, before: &Uri) -> Result<Uri> {
    match answer.headers.contains_key(header::LOCATION) {
        true => location(what, answer),
        false => Ok(before.clone()),
    }
}

fn with_digest(what: &str, location: &Uri, digest: &Digest) -> Result<Uri> {
    let mut query = Query(location.query().map_or_else(String::new, ToOwned::to_owned));
    query.add("digest", &digest.to_string());
    let mut parts = location.clone().into_parts();
    let nonsense =
        || Error::Answer { what: what.to_owned(), reason: "the place to go on is no URL".to_owned() };
    let path = format!("{}?{}", location.path(), query.0).parse();
    parts.path_and_query = Some(path.map_err(|_| nonsense())?);
    Uri::from_parts(parts).map_err(|_| nonsense())
}

/// How many bytes the registry has: `Range: 0-<last>`. An empty upload is `0-0` or has no range.
fn received(answer: &Answer) -> Option<u64> {
    let range = answer.header(header::RANGE)?;
    let (begin, last) = range.trim().trim_start_matches("bytes=").split_once('-')?;
    let last: u64 = last.trim().parse().ok()?;
    (begin.trim() == "0" && last > 0).then_some(last.checked_add(1)?)
}

fn octets() -> (HeaderName, HeaderValue) {
    (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
}

/// First and last byte of a chunk, as distribution-spec writes it; the chunk is not empty.
fn content_range(begin: u64, end: u64) -> (HeaderName, HeaderValue) {
    let range = format!("{begin}-{}", end.saturating_sub(1));
    (header::CONTENT_RANGE, HeaderValue::try_from(range).unwrap_or(HeaderValue::from_static("0-0")))
}

/// The upload of a blob of unknown size, made by [`crate::Repository::upload`]. Dropped unfinished, the
/// registry forgets it in its own time. Some megabytes of it are held in memory, to be sent again after a cut.
#[derive(Debug)]
pub struct Upload {
    session: Session,
    cancel: Cancel,
    what: String,
    location: Uri,
    /// Bytes that the registry has.
    there: u64,
    chunk: BytesMut,
    chunk_size: usize,
}

impl Upload {
    pub(crate) async fn begin(session: Session, cancel: Cancel, path: &str, what: String) -> Result<Self> {
        let (location, chunk_size) = begin(&session, path, &what).await?;
        Ok(Self { session, cancel, what, location, there: 0, chunk: BytesMut::new(), chunk_size })
    }

    /// Sends the next bytes.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            let room = self.chunk_size - self.chunk.len();
            self.chunk.extend_from_slice(&bytes.split_to(room.min(bytes.len())));
            if self.chunk.len() == self.chunk_size {
                let cancel = self.cancel.clone();
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => return Err(Error::Cancelled),
                    sent = self.send_chunk() => sent?,
                }
            }
        }
        Ok(())
    }

    /// Ends the blob, which must have this digest.
    pub async fn finish(mut self, digest: &Digest) -> Result<()> {
        let cancel = self.cancel.clone();
        let finish = async {
            self.send_chunk().await?;
            complete(&self.session, &self.what, &self.location, digest, Bytes::new()).await
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Cancelled),
            done = finish => done,
        }
    }

    async fn send_chunk(&mut self) -> Result<()> {
        let chunk = self.chunk.split().freeze();
        let end = self.there + chunk.len() as u64;
        let transport = self.session.transport.clone();
        let mut tries = Tries::new(&transport.limits);
        while self.there < end {
            let rest = chunk.slice(chunk.len() - (end - self.there) as usize..);
            let ask = Ask {
                headers: vec![octets(), content_range(self.there, end)],
                payload: Payload::Bytes(rest),
                ..ask(&self.session, &self.what, Method::PATCH, self.location.clone())
            };
            match self.session.send(&ask).await {
                Ok(answer) => {
                    self.location = next_location(&self.what, &answer, &self.location)?;
                    self.there = end;
                }
                Err(error) => {
                    tries.pause(error).await?;
                    self.look(end).await?;
                }
            }
        }
        Ok(())
    }

    /// Finds out how much of a chunk arrived; an error if it can't be gone on with.
    async fn look(&mut self, end: u64) -> Result<()> {
        let asked = ask(&self.session, &self.what, Method::GET, self.location.clone());
        let answer = self.session.persist(&asked).await?;
        let there = received(&answer).unwrap_or(0);
        if there < self.there || there > end {
            let reason = format!("the registry has {there} bytes, and not {} to {end}", self.there);
            return Err(Error::Lost { what: self.what.clone(), reason });
        }
        self.location = next_location(&self.what, &answer, &self.location)?;
        self.there = there;
        Ok(())
    }
}
