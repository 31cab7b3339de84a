//! Recognising and undoing compression, in this process: no program is run for it.

use std::io::{self, BufRead, Read};

use crate::{Error, Result};

/// How a stream is compressed, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all (or in a way that is not known).
    None,
    /// gzip, RFC 1952.
    Gzip,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
    /// Zstandard, RFC 8878.
    Zstd,
}

/// Memory that an xz stream may ask for: `xz -9` needs 65 MiB.
const MAX_XZ_MEMORY: u64 = 256 << 20;
/// log2 of the window that a zstd stream may ask for: `zstd --long` needs 27.
const MAX_ZSTD_WINDOW_LOG: u32 = 27;

/// Recognises the compression of a stream that begins with `start`; 6 bytes are enough.
pub fn detect(start: &[u8]) -> Compression {
    let magics: [(&[u8], Compression); 4] = [
        (b"\x1f\x8b\x08", Compression::Gzip),
        (b"BZh", Compression::Bzip2),
        (b"\xfd7zXZ\0", Compression::Xz),
        (b"\x28\xb5\x2f\xfd", Compression::Zstd),
    ];
    let found = magics.iter().find(|(magic, _)| start.starts_with(magic));
    // A skippable frame may come first in zstd.
    let skippable = start.len() >= 4 && start[0] & 0xf0 == 0x50 && start[1..4] == [0x2a, 0x4d, 0x18];
    found.map_or(if skippable { Compression::Zstd } else { Compression::None }, |(_, kind)| *kind)
}

/// A decompressed stream. Several compressed streams after one another are one.
pub enum Decoder<'a, R: BufRead> {
    /// As it came.
    None(Start<R>),
    /// gzip.
    Gzip(Box<flate2::bufread::MultiGzDecoder<Start<R>>>),
    /// bzip2.
    Bzip2(Box<bzip2::bufread::MultiBzDecoder<Start<R>>>),
    /// xz.
    Xz(Box<liblzma::bufread::XzDecoder<Start<R>>>),
    /// Zstandard.
    Zstd(Box<zstd::Decoder<'a, Start<R>>>),
}

/// The bytes that were looked at, and the stream after them.
type Start<R> = io::Chain<io::Cursor<Vec<u8>>, R>;

impl<R: BufRead> Decoder<'_, R> {
    /// Looks at the first bytes of a stream and undoes its compression.
    pub fn new(mut input: R) -> Result<Self> {
        let mut start = Vec::new();
        (&mut input).take(6).read_to_end(&mut start).map_err(Error::Read)?;
        let kind = detect(&start);
        let input = io::Cursor::new(start).chain(input);
        Ok(match kind {
            Compression::None => Self::None(input),
            Compression::Gzip => Self::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(input))),
            Compression::Bzip2 => Self::Bzip2(Box::new(bzip2::bufread::MultiBzDecoder::new(input))),
            Compression::Xz => {
                let stream =
                    liblzma::stream::Stream::new_stream_decoder(MAX_XZ_MEMORY, liblzma::stream::CONCATENATED)
                        .map_err(|_| Error::Compression("xz"))?;
                Self::Xz(Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream)))
            }
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(input).map_err(Error::Read)?;
                decoder.window_log_max(MAX_ZSTD_WINDOW_LOG).map_err(Error::Read)?;
                Self::Zstd(Box::new(decoder))
            }
        })
    }

    /// How the stream is compressed.
    pub fn compression(&self) -> Compression {
        match self {
            Self::None(_) => Compression::None,
            Self::Gzip(_) => Compression::Gzip,
            Self::Bzip2(_) => Compression::Bzip2,
            Self::Xz(_) => Compression::Xz,
            Self::Zstd(_) => Compression::Zstd,
        }
    }
}

impl<R: BufRead> Read for Decoder<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::None(input) => input.read(buffer),
            Self::Gzip(input) => input.read(buffer),
            Self::Bzip2(input) => input.read(buffer),
            Self::Xz(input) => input.read(buffer),
            Self::Zstd(input) => input.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn compress(kind: Compression, data: &[u8]) -> Vec<u8> {
        match kind {
            Compression::None => data.to_vec(),
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Bzip2 => {
                let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Xz => {
                let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Zstd => zstd::encode_all(data, 1).unwrap(),
        }
    }

    const ALL: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Bzip2, Compression::Xz, Compression::Zstd];

    #[test]
    fn every_compression_is_recognised_and_undone_also_in_pieces() {
        for kind in ALL {
            let data = [compress(kind, b"first "), compress(kind, b"second")].concat();
            let mut decoder = Decoder::new(data.as_slice()).unwrap();
            assert_eq!(decoder.compression(), kind);
            let mut out = Vec::new();
            decoder.read_to_end(&mut out).unwrap();
            assert_eq!(out, b"first second", "{kind:?}");
        }
    }

    #[test]
    fn a_truncated_stream_is_an_error() {
        let data: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        for kind in ALL.into_iter().filter(|kind| *kind != Compression::None) {
            let compressed = compress(kind, &data);
            let mut decoder = Decoder::new(&compressed[..compressed.len() / 2]).unwrap();
            assert!(decoder.read_to_end(&mut Vec::new()).is_err(), "{kind:?}");
        }
    }
}
