//! A layer's tar becomes a gzip blob: on all processors, in pieces that are complete gzip streams of
//! their own (RFC 1952: streams after one another are one). The same tar gives the same blob,
//! however many processors there are.
//!
//! ```text
//! written ──► pieces ──┬──► gzip ──┬──► output, in order
//!                      ├──► gzip ──┤
//!                      └──► gzip ──┘
//! ```

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use libdeflater::{CompressionLvl, Compressor as Deflate};

use crate::{Error, Result};

/// Bytes that are compressed by themselves: enough to lose nothing worth mentioning.
const PIECE: usize = 512 << 10;
/// Above it, time grows faster than blobs shrink.
const LEVEL: i32 = 3;
/// Pieces that are compressed at once, however many processors there are: memory is bounded.
const WORKERS_MAX: usize = 8;
/// Pieces beyond those, that wait to be compressed or to be handed on.
const WAITING: usize = 2;

/// A piece, compressed.
type Compressed = io::Result<Vec<u8>>;

/// Compresses what `produce` writes, and hands it on to `output` in order, on another thread. Once
/// that fails, so does writing. Says what both returned.
pub(crate) fn compress<T>(
    mut output: impl FnMut(Vec<u8>) -> Result<()> + Send,
    produce: impl FnOnce(&mut Compressor) -> T,
) -> (T, Result<()>) {
    let workers = thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX);
    let (jobs, waiting) = channel::<Job>();
    let waiting = Mutex::new(waiting);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| work(&waiting));
        }
        let (order, pieces) = sync_channel::<Receiver<Compressed>>(workers + WAITING);
        let handed_on = scope.spawn(move || {
            pieces.iter().try_for_each(|piece| {
                let lost = |_| Err(io::Error::other("it was lost"));
                output(piece.recv().unwrap_or_else(lost).map_err(Error::io("compress a piece of a layer"))?)
            })
        });
        let mut compressor = Compressor { piece: Vec::new(), jobs, order };
        let produced = produce(&mut compressor);
        // If nobody takes it any more, that is what `output` tells.
        let _ = compressor.send();
        drop(compressor);
        (produced, handed_on.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

struct Job {
    piece: Vec<u8>,
    done: Sender<Compressed>,
}

fn work(waiting: &Mutex<Receiver<Job>>) {
    let mut deflate = Deflate::new(CompressionLvl::new(LEVEL).unwrap_or_default());
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { piece, done }) = job else { return };
        // Fails when the output has failed, and then nobody needs it.
        let _ = done.send(gzip(&mut deflate, &piece));
    }
}

/// The end that is written to.
pub(crate) struct Compressor {
    piece: Vec<u8>,
    jobs: Sender<Job>,
    order: SyncSender<Receiver<Compressed>>,
}

impl Compressor {
    /// Gives the piece away, as soon as there is room for one more.
    fn send(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let (done, compressed) = channel();
        let deserted = || io::Error::from(io::ErrorKind::BrokenPipe);
        self.order.send(compressed).map_err(|_| deserted())?;
        self.jobs.send(Job { piece: std::mem::take(&mut self.piece), done }).map_err(|_| deserted())
    }
}

impl Write for Compressor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() == PIECE {
            self.send()?;
        }
        if self.piece.is_empty() {
            self.piece.reserve_exact(PIECE);
        }
        let length = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn gzip(deflate: &mut Deflate, piece: &[u8]) -> Compressed {
    let mut out = vec![0; deflate.gzip_compress_bound(piece.len())];
    let length = deflate.gzip_compress(piece, &mut out).map_err(io::Error::other)?;
    out.truncate(length);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn pieces_are_one_stream_that_is_always_the_same() {
        let data: Vec<u8> = (0..20_000_000u32).map(|number| (number / 97 % 251) as u8).collect();
        let compressed = || {
            let mut blob = Vec::new();
            let output = |bytes: Vec<u8>| {
                blob.extend(bytes);
                Ok(())
            };
            let (written, handed_on) = compress(output, |compressor| compressor.write_all(&data));
            written.and(handed_on.map_err(io::Error::other)).unwrap();
            blob
        };
        let blob = compressed();
        assert!(blob == compressed());
        let mut out = Vec::new();
        flate2::read::MultiGzDecoder::new(&blob[..]).read_to_end(&mut out).unwrap();
        assert!(out == data);
    }

    #[test]
    fn who_writes_learns_that_nobody_takes_it() {
        let (written, handed_on) =
            compress(|_| Err(Error::Cancelled), |compressor| io::copy(&mut io::repeat(1), compressor));
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(matches!(handed_on, Err(Error::Cancelled)));
    }
}
