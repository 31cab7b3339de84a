//! A layer's tar becomes a tree of the snapshotter, and the tree the tar again.

use std::io::{self, BufReader, Read, Write};

use ponton_archive::apply::Stats;
use ponton_archive::compression::Decoder;
use ponton_oci::digest::{ChainId, DiffId};
use ponton_snapshot::{FilledLayer, LayerWriter};
use ponton_store::LayerRecord;

use crate::pipeline::{self, Chunks, Passed};
use crate::{Error, Images, Result};

/// A layer that is unpacked but belongs to no image yet; discarded when dropped.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub(crate) writer: LayerWriter,
    pub(crate) info: LayerInfo,
}

/// Names what was unpacked or packed.
pub(crate) fn failed(what: &str) -> impl FnOnce(ponton_archive::Error) -> Error {
    move |source| {
        if source.is_invalid() {
            Error::Archive { what: what.to_owned(), source }
        } else {
            Error::Unpack { what: what.to_owned(), source }
        }
    }
}

impl Images {
    /// Unpacks one layer's tar, compressed or not; `what` names it in errors.
    pub(crate) fn unpack(
        &self,
        input: &mut (dyn Read + Send),
        what: &str,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Unpacked> {
        self.unpack_bounded(input, what, u64::MAX, progress)
    }

    /// Unpacks one layer's tar, whose decompressed bytes may be no more than `limit`.
    pub(crate) fn unpack_bounded(
        &self,
        input: &mut (dyn Read + Send),
        what: &str,
        limit: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Unpacked> {
        let input = Decoder::new(BufReader::with_capacity(1 << 16, input)).map_err(failed(what))?;
        let mut input = Bounded { input, left: limit };
        let writer = self.snapshotter.begin_layer()?;
        let (stats, passed) =
            pipeline::run(&mut input, progress, |chunks| writer.unpack(chunks)).map_err(failed(what))?;
        Ok(unpacked(writer, stats, passed))
    }

    /// Unpacks a layer whose tar we write ourselves.
    pub(crate) fn unpack_written(
        &self,
        what: &str,
        write_tar: impl FnOnce(&mut dyn Write) -> Result<(), ponton_archive::Error> + Send,
    ) -> Result<Unpacked> {
        let writer = self.snapshotter.begin_layer()?;
        let (stats, passed) =
            pipeline::run_written(write_tar, |chunks| writer.unpack(chunks)).map_err(failed(what))?;
        Ok(unpacked(writer, stats, passed))
    }

    /// Unpacks a layer that is there already once more, for another place in a stack; `write_tar`
    /// writes it.
    pub(crate) fn unpack_again(
        &self,
        diff_id: &DiffId,
        write_tar: impl FnOnce(&mut dyn Write) -> Result<(), ponton_archive::Error> + Send,
    ) -> Result<Unpacked> {
        let what = format!("layer {diff_id}");
        let unpacked = self.unpack_written(&what, write_tar)?;
        check_diff_id(&what, diff_id, &unpacked.info.diff_id)?;
        Ok(unpacked)
    }

    /// Unpacks a layer once more that stands elsewhere, here or in a stack that is put together.
    pub(crate) fn unpack_from(&self, diff_id: &DiffId, stack: &Stack) -> Result<Unpacked> {
        if let Some(layer) = stack.records.iter().find(|layer| layer.diff_id == *diff_id)
            && let Some(writer) = stack.uncommitted(&layer.chain_id)
        {
            return self.unpack_again(diff_id, |output| writer.write_tar(output));
        }
        let elsewhere = self.store.images().layers_with(diff_id)?;
        let chains =
            elsewhere.into_iter().chain(stack.records.clone()).filter(|layer| layer.diff_id == *diff_id);
        let chain = chains
            .map(|layer| layer.chain_id)
            .find(|chain| self.snapshotter.has_layer(chain))
            .ok_or_else(|| Error::Invalid(format!("layer {diff_id} is gone")))?;
        self.unpack_again(diff_id, |output| self.snapshotter.write_tar(&chain, output))
    }

    /// Writes a layer's tar, and makes sure that it is the one that was unpacked.
    pub(crate) fn write_layer(&self, layer: &LayerRecord, output: &mut dyn Write) -> Result<()> {
        let what = format!("layer {}", layer.diff_id);
        let rebuild = |output: &mut dyn Write| self.snapshotter.write_tar(&layer.chain_id, output);
        let copy = |chunks: &mut Chunks<'_, fn(u64)>| {
            io::copy(chunks, output).map_err(ponton_archive::Error::Write).map(drop)
        };
        let ((), Passed { digest, size }) = pipeline::run_written(rebuild, copy).map_err(failed(&what))?;
        if size != layer.tar_size {
            return Err(Error::Invalid(format!(
                "{what} was changed on disk: its tar has {size} bytes instead of {}",
                layer.tar_size
            )));
        }
        check_diff_id(&what, &layer.diff_id, &DiffId::from(digest))
    }
}

/// A stream that must end before it has given too much: what is small when it is compressed may
/// otherwise fill the disk.
struct Bounded<R> {
    input: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        self.left = self.left.checked_sub(length as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "it unpacks to more bytes than its size allows")
        })?;
        Ok(length)
    }
}

fn unpacked(writer: LayerWriter, stats: Stats, passed: Passed) -> Unpacked {
    let info = LayerInfo { diff_id: DiffId::from(passed.digest), size: stats.bytes, tar_size: passed.size };
    Unpacked { writer, info }
}

pub(crate) fn check_diff_id(what: &str, expected: &DiffId, found: &DiffId) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    let (expected, found) = (expected.digest().clone(), found.digest().clone());
    Err(Error::DigestMismatch { what: what.to_owned(), expected, found })
}

/// What a layer is, wherever its tree may be.
#[derive(Debug, Clone)]
pub(crate) struct LayerInfo {
    pub(crate) diff_id: DiffId,
    /// Bytes of its files.
    pub(crate) size: u64,
    /// Bytes of its tar.
    pub(crate) tar_size: u64,
}

/// The layers of an image that is being put together.
#[derive(Default)]
pub(crate) struct Stack {
    /// Those that the snapshotter does not have yet.
    pub(crate) filled: Vec<FilledLayer>,
    /// All, base first.
    pub(crate) records: Vec<LayerRecord>,
}

impl Stack {
    /// The layer that the next one will stand on.
    pub(crate) fn top(&self) -> Option<&ChainId> {
        self.records.last().map(|record| &record.chain_id)
    }

    /// Puts a layer on top; `writer` is none if the snapshotter has it.
    pub(crate) fn push(&mut self, layer: LayerInfo, writer: Option<LayerWriter>) {
        let parent = self.top().cloned();
        let chain = ChainId::next(parent.as_ref(), &layer.diff_id);
        self.records.push(LayerRecord {
            chain_id: chain.clone(),
            diff_id: layer.diff_id,
            parent: parent.clone(),
            size: layer.size,
            tar_size: layer.tar_size,
        });
        self.filled.extend(writer.map(|writer| FilledLayer { writer, chain, parent }));
    }

    /// A layer that is not committed yet.
    pub(crate) fn uncommitted(&self, chain: &ChainId) -> Option<&LayerWriter> {
        let layer = self.filled.iter().find(|layer| layer.chain == *chain)?;
        Some(&layer.writer)
    }
}
