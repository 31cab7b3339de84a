//! A layer's tar becomes a gzip blob: on all processors, in pieces that are complete gzip streams of
//! their own (RFC 1952: streams after one another are one). The same tar gives the same blob.

use std::io::{self, Write};
use std::thread;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Bytes that are compressed by themselves: enough to lose nothing worth mentioning.
const PIECE: usize = 1 << 20;
/// Above it, time grows faster than blobs shrink.
const LEVEL: u32 = 5;
/// Pieces at once, however many processors there are: memory is bounded.
const PIECES_MAX: usize = 8;

/// Compresses what is written to it, and hands it on in order.
pub(crate) struct Compressor<F> {
    output: F,
    pieces: Vec<Vec<u8>>,
    at_once: usize,
}

impl<F: FnMut(Vec<u8>) -> io::Result<()>> Compressor<F> {
    pub(crate) fn new(output: F) -> Self {
        let at_once = thread::available_parallelism().map_or(1, usize::from).min(PIECES_MAX);
        Self { output, pieces: Vec::new(), at_once }
    }

    /// Compresses the rest.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.compress()
    }

    fn compress(&mut self) -> io::Result<()> {
        let compressed = thread::scope(|scope| {
            let Some((first, others)) = self.pieces.split_first() else { return Ok(Vec::new()) };
            let others: Vec<_> = others.iter().map(|piece| scope.spawn(|| gzip(piece))).collect();
            let mut compressed = vec![gzip(first)?];
            for other in others {
                compressed.push(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            Ok::<_, io::Error>(compressed)
        })?;
        self.pieces.clear();
        compressed.into_iter().try_for_each(&mut self.output)
    }
}

impl<F: FnMut(Vec<u8>) -> io::Result<()>> Write for Compressor<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.pieces.last().is_none_or(|piece| piece.len() == PIECE) {
            if self.pieces.len() == self.at_once {
                self.compress()?;
            }
            self.pieces.push(Vec::with_capacity(PIECE));
        }
        let Some(piece) = self.pieces.last_mut() else { return Ok(0) };
        let length = bytes.len().min(PIECE - piece.len());
        piece.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn gzip(piece: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(piece.len() / 2), Compression::new(LEVEL));
    encoder.write_all(piece)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn pieces_are_one_stream_that_is_always_the_same() {
        let data: Vec<u8> = (0..20_000_000u32).map(|number| (number / 97 % 251) as u8).collect();
        let compress = || {
            let mut blob = Vec::new();
            let mut compressor = Compressor::new(|bytes: Vec<u8>| {
                blob.extend(bytes);
                Ok(())
            });
            compressor.write_all(&data).unwrap();
            compressor.finish().unwrap();
            blob
        };
        let blob = compress();
        assert!(blob == compress());
        let mut out = Vec::new();
        flate2::read::MultiGzDecoder::new(&blob[..]).read_to_end(&mut out).unwrap();
        assert!(out == data);
    }
}
