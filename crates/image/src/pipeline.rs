//! One stream, read on a thread of its own, and consumed twice at once: by a thread that hashes or
//! stores it, and here.
//!
//! ```text
//! input ──read, decompress──► chunks ──┬──► SHA-256, or a blob
//!      or written by us                └──► BufRead (here)
//! ```
//!
//! The chunks are a fixed number of buffers that go round: memory is bounded, and who is slow makes
//! the others wait.

use std::io::{self, BufRead, Read, Write};
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
const TAR: Buffers = Buffers { count: 8, bytes: 512 << 10 };
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
    let read = |mut outlet: Outlet| read_all(input, &mut outlet);
    let (consumed, aside, passed, ()) = flow(buffers, read, progress, aside, consume);
    (consumed, aside, passed)
}

/// As [`run`], on a stream that `produce` writes, on a thread of its own. Of two errors, that is told
/// which came first.
pub(crate) fn run_written<T>(
    produce: impl FnOnce(&mut dyn Write) -> Result<(), ponton_archive::Error> + Send,
    consume: impl FnOnce(&mut Chunks<'_, fn(u64)>) -> Result<T, ponton_archive::Error>,
) -> Result<(T, Passed), ponton_archive::Error> {
    let write = |mut outlet: Outlet| {
        let written =
            produce(&mut outlet).and_then(|()| outlet.flush().map_err(ponton_archive::Error::Write));
        match written {
            // Nobody reads any more, and says why.
            Err(_) if outlet.is_deserted => Ok(()),
            Err(error) => {
                // The consumer must not take this for the end.
                outlet.fail(io::Error::other("the stream broke off"));
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    };
    let mut ignore: fn(u64) = |_| {};
    let (consumed, digest, size, written) = flow(TAR, write, &mut ignore, hash_all, |chunks| {
        let value = consume(chunks)?;
        io::copy(chunks, &mut io::sink()).map_err(ponton_archive::Error::Read)?;
        Ok(value)
    });
    written?;
    Ok((consumed?, Passed { digest, size }))
}

/// Three threads and what goes between them; this one consumes. Says also what the source returned.
fn flow<T, S: Send, R: Send, P: FnMut(u64) + ?Sized>(
    buffers: Buffers,
    source: impl FnOnce(Outlet) -> R + Send,
    progress: &mut P,
    aside: impl FnOnce(&Pieces) -> S + Send,
    consume: impl FnOnce(&mut Chunks<'_, P>) -> T,
) -> (T, S, u64, R) {
    thread::scope(|scope| {
        let (to_consumer, queue) = channel();
        let (to_aside, pieces) = channel();
        let source = scope.spawn(move || source(Outlet::new(buffers, to_consumer, to_aside)));
        let aside = scope.spawn(move || aside(&Pieces(pieces)));
        let mut chunks = Chunks { queue, current: None, position: 0, passed: 0, progress };
        let consumed = consume(&mut chunks);
        let passed = chunks.passed;
        // Nobody listens any more: the source stops, and then the other.
        drop(chunks);
        let aside = aside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let source = source.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (consumed, aside, passed, source)
    })
}

/// The source's end.
struct Outlet {
    bytes: usize,
    home: Sender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
    to_consumer: Sender<io::Result<Arc<Chunk>>>,
    to_aside: Sender<Arc<Chunk>>,
    /// What was written and makes no whole chunk yet.
    data: Vec<u8>,
    length: usize,
    /// Whether nobody reads any more.
    is_deserted: bool,
}

impl Outlet {
    fn new(
        buffers: Buffers,
        to_consumer: Sender<io::Result<Arc<Chunk>>>,
        to_aside: Sender<Arc<Chunk>>,
    ) -> Self {
        let (home, empty) = channel();
        for _ in 0..buffers.count {
            let _ = home.send(Vec::new());
        }
        let (bytes, data) = (buffers.bytes, Vec::new());
        Self { bytes, home, empty, to_consumer, to_aside, data, length: 0, is_deserted: false }
    }

    /// A buffer, when one comes back.
    fn buffer(&self) -> Vec<u8> {
        let mut data = self.empty.recv().unwrap_or_default();
        data.resize(self.bytes, 0);
        data
    }

    /// Passes bytes on; false if nobody reads any more.
    fn send(&mut self, data: Vec<u8>, length: usize) -> bool {
        let chunk = Arc::new(Chunk { data, length, home: self.home.clone() });
        if self.to_aside.send(Arc::clone(&chunk)).is_err() {
            self.fail(io::Error::other("nobody takes the stream any more"));
            self.is_deserted = true;
        } else {
            self.is_deserted = self.to_consumer.send(Ok(chunk)).is_err();
        }
        !self.is_deserted
    }

    fn fail(&mut self, error: io::Error) {
        let _ = self.to_consumer.send(Err(error));
    }
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.data.is_empty() {
            self.data = self.buffer();
        }
        let length = bytes.len().min(self.bytes - self.length);
        self.data[self.length..self.length + length].copy_from_slice(&bytes[..length]);
        self.length += length;
        if self.length == self.bytes {
            self.flush()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.length == 0 {
            return Ok(());
        }
        let (data, length) = (std::mem::take(&mut self.data), std::mem::take(&mut self.length));
        if self.send(data, length) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }
}

fn read_all(input: &mut (dyn Read + Send), outlet: &mut Outlet) {
    loop {
        let mut data = outlet.buffer();
        match fill(input, &mut data) {
            Ok(0) => return,
            Ok(length) if outlet.send(data, length) => {}
            Ok(_) => return,
            Err(error) => return outlet.fail(error),
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

impl<T: Write> Write for Hashing<T> {
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
    fn what_is_written_passes_too() {
        let data: Vec<u8> = (0..9_000_000u32).map(|number| (number % 251) as u8).collect();
        let write = |output: &mut dyn Write| output.write_all(&data).map_err(ponton_archive::Error::Write);
        let (size, passed) = run_written(write, |chunks| {
            io::copy(chunks, &mut io::sink()).map_err(ponton_archive::Error::Read)
        })
        .unwrap();
        assert_eq!((size, passed.size), (9_000_000, 9_000_000));
        assert_eq!(passed.digest, Digest::sha256_of(&data));
    }

    #[test]
    fn who_failed_first_is_told() {
        let write = |output: &mut dyn Write| {
            io::copy(&mut io::repeat(1), output).map_err(ponton_archive::Error::Write).map(|_| ())
        };
        let error = ponton_archive::Error::Compression("consumer");
        let found = run_written(write, |_| Err::<(), _>(error)).err().unwrap();
        assert_eq!(found.to_string(), "unsupported compression consumer");
        let write = |output: &mut dyn Write| {
            output.write_all(b"abc").map_err(ponton_archive::Error::Write)?;
            Err(ponton_archive::Error::Compression("source"))
        };
        let consume = |chunks: &mut Chunks<'_, fn(u64)>| {
            io::copy(chunks, &mut io::sink()).map_err(ponton_archive::Error::Read)
        };
        let found = run_written(write, consume).err().unwrap();
        assert_eq!(found.to_string(), "unsupported compression source");
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
