//! Blobs on their way here.

use std::sync::Arc;

use bytes::Bytes;
use hyper::Method;
use hyper::header::{self, HeaderValue};
use ponton_oci::descriptor::Descriptor;
use ponton_oci::digest::{Algorithm, Digest};
use sha2::Digest as _;

use crate::config::Cancel;
use crate::endpoint::Session;
use crate::error::{Error, Result};
use crate::transport::{Answer, Ask, Payload};
use crate::tries::Tries;

/// A connection that brought as many bytes before it was cut has made progress: the failures before it are
/// forgiven. A registry that cuts sooner each time is given up.
const PROGRESS: u64 = 64 << 10;

/// A blob as a stream, made by [`crate::Repository::blob`].
#[derive(Debug)]
pub struct Blob {
    /// Those who may have it; the first one is being asked.
    sessions: Vec<Session>,
    cancel: Cancel,
    /// The blob's name in errors.
    what: String,
    /// Its URL's path.
    path: String,
    digest: Digest,
    size: u64,
    offset: u64,
    hasher: Option<Hasher>,
    answer: Option<Answer>,
    /// Bytes of this answer, and failures without progress before it.
    gained: u64,
    failed: u32,
    is_over: bool,
}

impl Blob {
    pub(crate) fn new(
        sessions: Vec<Session>,
        cancel: Cancel,
        (what, path): (String, String),
        descriptor: &Descriptor,
        offset: u64,
    ) -> Self {
        Self {
            sessions,
            cancel,
            what,
            path,
            digest: descriptor.digest.clone(),
            size: descriptor.size,
            offset,
            hasher: (offset == 0).then(|| Hasher::new(descriptor.digest.algorithm())),
            answer: None,
            gained: 0,
            failed: 0,
            is_over: false,
        }
    }

    /// The next bytes; `None` at the end, when everything is there and verified. After an error, nothing more.
    ///
    /// The last bytes come only after the digest was verified.
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        if self.is_over {
            return None;
        }
        let cancel = self.cancel.clone();
        let next = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Cancelled),
            next = self.advance() => next,
        };
        self.is_over = !matches!(next, Ok(Some(_))) || self.offset == self.size;
        next.transpose()
    }

    /// The byte of the blob that comes next.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Leaves verifying the digest to the caller, who hashes the bytes anyway. What comes from a mirror is
    /// verified all the same: one that gives something wrong must be known, or it would be asked again.
    #[must_use]
    pub fn unverified(self) -> Self {
        let from_mirror = self.sessions.first().is_some_and(|session| session.endpoint.is_mirror);
        Self { hasher: self.hasher.filter(|_| from_mirror), ..self }
    }

    /// Makes sure that there is an answer to read from.
    pub(crate) async fn open(&mut self) -> Result<()> {
        while self.answer.is_none() {
            match self.ask().await {
                Ok(answer) => self.answer = Some(answer),
                Err(error) => self.recover(error).await?,
            }
        }
        Ok(())
    }

    async fn advance(&mut self) -> Result<Option<Bytes>> {
        loop {
            self.open().await?;
            let Some(answer) = &mut self.answer else { continue };
            let error = match answer.next(&self.what).await {
                Some(Ok(bytes)) => return self.accept(bytes).await.map(Some),
                None if self.offset == self.size => return self.verify().map(|()| None),
                None => Error::Lost { what: self.what.clone(), reason: "the body ended too soon".to_owned() },
                Some(Err(error)) => error,
            };
            self.answer = None;
            self.recover(error).await?;
        }
    }

    async fn accept(&mut self, bytes: Bytes) -> Result<Bytes> {
        let length = bytes.len() as u64;
        if length > self.size - self.offset {
            return Err(self.fail(self.too_long(length)));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes);
        }
        self.offset += length;
        self.gained += length;
        if self.offset == self.size {
            // The end is awaited so that the connection can be used again; what else comes is of no interest.
            if let Some(answer) = &mut self.answer
                && let Some(Ok(more)) = answer.next(&self.what).await
            {
                return Err(self.fail(self.too_long(more.len() as u64)));
            }
            self.verify()?;
        }
        Ok(bytes)
    }

    fn too_long(&self, further: u64) -> Error {
        Error::Size { what: self.what.clone(), expected: self.size, actual: self.offset + further }
    }

    fn verify(&mut self) -> Result<()> {
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        let actual = hasher.finish();
        match actual == self.digest {
            true => Ok(()),
            false => Err(self.fail(Error::Digest { what: self.what.clone(), actual })),
        }
    }

    fn fail(&self, error: Error) -> Error {
        if let Some(session) = self.sessions.first() {
            session.endpoint.note(&error);
        }
        error
    }

    /// After a failure: waits, or turns to the next server; gives the error back if there is nothing left to try.
    async fn recover(&mut self, error: Error) -> Result<()> {
        if self.gained >= PROGRESS {
            self.failed = 0;
        }
        self.gained = 0;
        let Some(session) = self.sessions.first() else { return Err(error) };
        let transport = session.transport.clone();
        let mut tries = Tries::after(&transport.limits, self.failed);
        self.failed += 1;
        if let Err(error) = tries.pause(error).await {
            let error = self.fail(error);
            if self.sessions.len() == 1 {
                return Err(error);
            }
            tracing::debug!(%error, "turn to the next server");
            self.sessions.remove(0);
            self.failed = 0;
        }
        Ok(())
    }

    /// Asks for the rest.
    async fn ask(&self) -> Result<Answer> {
        let Some(session) = self.sessions.first() else { return Err(self.too_long(0)) };
        let mut headers = Vec::new();
        if self.offset > 0 {
            let range = HeaderValue::try_from(format!("bytes={}-", self.offset));
            headers.extend(range.map(|range| (header::RANGE, range)));
        }
        let ask = Ask {
            what: &self.what,
            method: Method::GET,
            url: session.url(&self.path).await?,
            headers,
            payload: Payload::None,
            wait: session.transport.limits.idle,
            sent: Arc::default(),
        };
        let mut answer = session.send(&ask).await?;
        let begins = self.begin_of(&answer)?;
        self.skip(&mut answer, self.offset - begins).await?;
        Ok(answer)
    }

    /// The byte at which an answer begins; an error if it isn't one for this blob.
    fn begin_of(&self, answer: &Answer) -> Result<u64> {
        let nonsense = |reason: String| Error::Answer { what: self.what.clone(), reason };
        let begin = match answer.status.as_u16() {
            200 => 0,
            206 => {
                let range = answer.header(header::CONTENT_RANGE).unwrap_or_default();
                let (begin, size) = content_range(range)
                    .ok_or_else(|| nonsense(format!("no range: {:?}", crate::error::printable(range))))?;
                if let Some(actual) = size.filter(|size| *size != self.size) {
                    return Err(Error::Size { what: self.what.clone(), expected: self.size, actual });
                }
                begin
            }
            status => return Err(nonsense(format!("status {status}"))),
        };
        if begin > self.offset || (begin != 0 && begin != self.offset) {
            return Err(nonsense(format!("asked for byte {} it begins with {begin}", self.offset)));
        }
        match answer.content_length() {
            Some(length) if length != self.size - begin => Err(Error::Size {
                what: self.what.clone(),
                expected: self.size,
                actual: begin.saturating_add(length),
            }),
            _ => Ok(begin),
        }
    }

    /// Drops the bytes that were there already: not every registry knows ranges.
    async fn skip(&self, answer: &mut Answer, mut bytes: u64) -> Result<()> {
        while bytes > 0 {
            let piece = answer.next(&self.what).await;
            let reason = || "the body ended too soon".to_owned();
            let piece = piece.ok_or_else(|| Error::Lost { what: self.what.clone(), reason: reason() })??;
            let length = piece.len() as u64;
            if length > bytes {
                answer.unread = piece.slice(bytes as usize..);
            }
            bytes = bytes.saturating_sub(length);
        }
        Ok(())
    }
}

/// First byte and whole size of `bytes 5-9/10` (RFC 9110, 14.4).
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, size) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let begin = range.split_once('-')?.0.trim().parse().ok()?;
    match size.trim() {
        "*" => Some((begin, None)),
        size => Some((begin, Some(size.parse().ok()?))),
    }
}

/// A digest in the making.
#[derive(Debug)]
pub(crate) enum Hasher {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(sha2::Sha512::new()),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> Digest {
        match self {
            Self::Sha256(hasher) => Digest::from_sha256(hasher.finalize().into()),
            Self::Sha512(hasher) => Digest::from_sha512(hasher.finalize().into()),
        }
    }

    pub(crate) fn digest_of(algorithm: Algorithm, bytes: &[u8]) -> Digest {
        let mut hasher = Self::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        for (text, expected) in [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 5-9/*", Some((5, None))),
            ("bytes */10", None),
            ("bytes 5-9", None),
            ("5-9/10", None),
            ("bytes -1-9/10", None),
            ("bytes 5-9/x", None),
        ] {
            assert_eq!(content_range(text), expected, "{text}");
        }
    }
}
