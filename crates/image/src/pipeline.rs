//! One stream, read on a thread of its own, and consumed twice at once: by a thread that hashes or
//! stores it, and here.
//!
//! ```text
//! input ──read, decompress──► chunks ──┬──► SHA-256, or a blob
//!                                      └──► BufRead (here)
//! ```
//!
//! The chunks are a fixed number of buffers that go round: memory is bounded, and who is slow makes
//! the others wait.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use ponton_oci::digest::Digest;
use sha2::{Digest as _, Sha256};

/// How many buffers go round, of how many bytes.
#[derive(Clone, Copy)]
pub(crate) struct Buffers {
    count: usize,
    bytes: usize,
}

/// For a layer's tar: the files' contents go to the disk in large pieces.
const TAR: Buffers = Buffers { count: 12, bytes: 512 << 10 };
/// For what comes over the network.
pub(crate) const BLOB: Buffers = Buffers { count: 16, bytes: 128 << 10 };

/// A piece of the stream; its buffer goes back when all are done with it.
struct Chunk {
    data: Vec<u8>,
    length: usize,
    home: Sender<Vec<u8>>,
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // Fails when nobody reads any more, and then the buffer is not needed.
        let _ = self.home.send(std::mem::take(&mut self.data));
    }
}

/// The consumer's end.
pub(crate) struct Chunks<'a, P: ?Sized> {
    queue: Receiver<io::Result<Arc<Chunk>>>,
    current: Option<Arc<Chunk>>,
    position: usize,
    passed: u64,
    progress: &'a mut P,
}

impl<P: FnMut(u64) + ?Sized> BufRead for Chunks<'_, P> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.as_ref().is_none_or(|chunk| self.position >= chunk.length) {
            self.current = None;
            self.position = 0;
            match self.queue.recv() {
                Ok(chunk) => {
                    let chunk = chunk?;
                    self.passed += chunk.length as u64;
                    (self.progress)(self.passed);
                    self.current = Some(chunk);
                }
                Err(_) => return Ok(&[]),
            }
        }
        Ok(self.current.as_ref().map_or(&[], |chunk| &chunk.data[self.position..chunk.length]))
    }

    fn consume(&mut self, amount: usize) {
        self.position += amount;
    }
}

impl<P: FnMut(u64) + ?Sized> Read for Chunks<'_, P> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}

/// What went through a pipeline.
pub(crate) struct Passed {
    /// Digest of the stream as the consumer saw it.
    pub(crate) digest: Digest,
    /// Its bytes.
    pub(crate) size: u64,
}

/// Runs `consume` on a stream that other threads read and hash. The digest is that of the whole
/// stream, provided that `consume` succeeded and read all of it; what it left is read now.
pub(crate) fn run<T, P: FnMut(u64) + ?Sized>(
    input: &mut (dyn Read + Send),
    progress: &mut P,
    consume: impl FnOnce(&mut Chunks<'_, P>) -> Result<T, ponton_archive::Error>,
) -> Result<(T, Passed), ponton_archive::Error> {
    let (consumed, digest, size) = split(TAR, input, progress, hash_all, |chunks| {
        let value = consume(chunks)?;
        io::copy(chunks, &mut io::sink()).map_err(ponton_archive::Error::Read)?;
        Ok(value)
    });
    Ok((consumed?, Passed { digest, size }))
}

/// Runs `consume` here, and `aside` on a thread of its own, on the same stream, which a third thread
/// reads. When `consume` returns before the stream's end, it ends for `aside` too; when `aside`
/// does, the stream fails for `consume`. Says what both returned, and how many bytes `consume` got.
pub(crate) fn split<T, S: Send, P: FnMut(u64) + ?Sized>(
    buffers: Buffers,
    input: &mut (dyn Read + Send),
    progress: &mut P,
    aside: impl FnOnce(&Pieces) -> S + Send,
    consume: impl FnOnce(&mut Chunks<'_, P>) -> T,
) -> (T, S, u64) {
    thread::scope(|scope| {
        let (home, empty) = channel();
        let (to_consumer, queue) = channel();
        let (to_aside, pieces) = channel();
        for _ in 0..buffers.count {
            let _ = home.send(vec![0; buffers.bytes]);
        }
        scope.spawn(move || read_all(input, &home, &empty, &to_consumer, &to_aside));
        let aside = scope.spawn(move || aside(&Pieces(pieces)));
        let mut chunks = Chunks { queue, current: None, position: 0, passed: 0, progress };
        let consumed = consume(&mut chunks);
        let passed = chunks.passed;
        // Nobody listens any more: the reader stops, and then the other.
        drop(chunks);
        let aside = aside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (consumed, aside, passed)
    })
}

fn read_all(
    input: &mut (dyn Read + Send),
    home: &Sender<Vec<u8>>,
    empty: &Receiver<Vec<u8>>,
    to_consumer: &Sender<io::Result<Arc<Chunk>>>,
    to_aside: &Sender<Arc<Chunk>>,
) {
    while let Ok(mut data) = empty.recv() {
        match fill(input, &mut data) {
            Ok(0) => return,
            Ok(length) => {
                let chunk = Arc::new(Chunk { data, length, home: home.clone() });
                if to_aside.send(Arc::clone(&chunk)).is_err() {
                    let _ = to_consumer.send(Err(io::Error::other("nobody takes the stream any more")));
                    return;
                }
                if to_consumer.send(Ok(chunk)).is_err() {
                    return;
                }
            }
            Err(error) => {
                let _ = to_consumer.send(Err(error));
                return;
            }
        }
    }
}

/// Reads until the buffer is full or the stream ends.
fn fill(input: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The stream as the thread aside sees it.
pub(crate) struct Pieces(Receiver<Arc<Chunk>>);

impl Pieces {
    /// Gives every piece to `take`, until that fails.
    pub(crate) fn each<E>(&self, mut take: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        self.0.iter().try_for_each(|chunk| take(&chunk.data[..chunk.length]))
    }
}

fn hash_all(pieces: &Pieces) -> Digest {
    let mut hasher = Sha256::new();
    let hashed: Result<(), std::convert::Infallible> = pieces.each(|piece| {
        hasher.update(piece);
        Ok(())
    });
    match hashed {
        Ok(()) => Digest::from_sha256(hasher.finalize().into()),
    }
}

/// A stream whose bytes are hashed on the way.
pub(crate) struct Hashing<T> {
    inner: T,
    hasher: Sha256,
    size: u64,
}

impl<T> Hashing<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, hasher: Sha256::new(), size: 0 }
    }

    pub(crate) fn inner_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    pub(crate) fn finish(self) -> (Digest, u64) {
        (Digest::from_sha256(self.hasher.finalize().into()), self.size)
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        self.size += length as u64;
        Ok(length)
    }
}

impl<T: io::Write> io::Write for Hashing<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..length]);
        self.size += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_pass_and_are_hashed() {
        let data: Vec<u8> = (0..9_000_000u32).map(|number| (number % 251) as u8).collect();
        let mut seen = 0;
        let (out, passed) = run(&mut data.as_slice(), &mut |bytes| seen = bytes, |chunks| {
            let mut out = Vec::new();
            chunks.take(7_000_000).read_to_end(&mut out).map_err(ponton_archive::Error::Read)?;
            Ok(out)
        })
        .unwrap();
        assert_eq!(out, data[..7_000_000]);
        assert_eq!((passed.size, seen), (9_000_000, 9_000_000));
        assert_eq!(passed.digest, Digest::sha256_of(&data));
    }

    #[test]
    fn an_early_end_of_the_consumer_stops_the_reader() {
        let error = ponton_archive::Error::Compression("x");
        assert!(run(&mut io::repeat(1), &mut |_| {}, |_| Err::<(), _>(error)).is_err());
    }

    #[test]
    fn an_error_of_the_input_arrives() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
        }
        let result = run(&mut Broken, &mut |_| {}, |chunks| {
            io::copy(chunks, &mut io::sink()).map_err(ponton_archive::Error::Read)
        });
        assert!(matches!(result, Err(ponton_archive::Error::Read(error)) if error.to_string() == "broken"));
    }
}
