//! Filling small files on a thread of its own.

use std::io::BufRead;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use crate::header::Header;
use crate::metadata::finish_file;
use crate::reader::Payload;
use crate::{Error, Result};

/// Largest file that is filled elsewhere: its contents are copied once for that.
pub(crate) const MAX_SIZE: u64 = 128 << 10;
/// Bytes and files after which a batch is handed over: waking the other thread for each file would
/// cost as much as filling it.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_FILES: usize = 64;
/// Batches that may wait; with their sizes, the bound of memory and of open files.
const QUEUE: usize = 2;

/// A file that was made, and what belongs into it.
struct Job {
    file: OwnedFd,
    header: Header,
    /// Where its contents end in the batch; they begin where those of the file before end.
    end: usize,
}

/// Files that are handed over together.
#[derive(Default)]
struct Batch {
    jobs: Vec<Job>,
    contents: Vec<u8>,
}

/// The end that makes files.
pub(crate) struct Filler {
    batch: Batch,
    queue: SyncSender<Batch>,
    spare: Receiver<Batch>,
}

/// The end that fills them.
pub(crate) struct Queue {
    batches: Receiver<Batch>,
    spare: Sender<Batch>,
}

impl Filler {
    pub(crate) fn new() -> (Self, Queue) {
        let (queue, batches) = sync_channel(QUEUE);
        let (give_back, spare) = channel();
        (Self { batch: Batch::default(), queue, spare }, Queue { batches, spare: give_back })
    }

    /// Has a file filled with an entry's contents, and its metadata set.
    pub(crate) fn fill<R: BufRead>(
        &mut self,
        file: OwnedFd,
        header: Header,
        payload: &mut Payload<'_, R>,
    ) -> Result<()> {
        loop {
            let bytes = payload.fill()?;
            let length = bytes.len();
            if length == 0 {
                break;
            }
            self.batch.contents.extend_from_slice(bytes);
            payload.consume(length);
        }
        self.batch.jobs.push(Job { file, header, end: self.batch.contents.len() });
        if self.batch.contents.len() >= BATCH_BYTES || self.batch.jobs.len() >= BATCH_FILES {
            self.hand_over()?;
        }
        Ok(())
    }

    /// Hands over the last files, and ends the work.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.hand_over()
    }

    fn hand_over(&mut self) -> Result<()> {
        let batch = std::mem::replace(&mut self.batch, self.spare.try_recv().unwrap_or_default());
        // The worker ended early with an error, which is the one that counts.
        self.queue.send(batch).map_err(|unsent| {
            let path = unsent.0.jobs.first().map_or(&[][..], |job| &job.header.path);
            Error::entry(path, "not written, for an earlier error")
        })
    }
}

impl Queue {
    /// Fills files until there are no more, or until one fails.
    pub(crate) fn work(self, owner: Option<(u32, u32)>) -> Result<()> {
        for mut batch in self.batches {
            let mut start = 0;
            for Job { file, header, end } in batch.jobs.drain(..) {
                let mut rest = &batch.contents[start..end];
                while !rest.is_empty() {
                    let written = rustix::io::retry_on_intr(|| rustix::io::write(&file, rest))
                        .map_err(Error::io("write", &header.path))?;
                    rest = &rest[written..];
                }
                finish_file(&file, &header, owner)?;
                start = end;
            }
            batch.contents.clear();
            // Nobody waits for it at the end.
            let _ = self.spare.send(batch);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ponton_sys::path::Root;

    use crate::apply::{Applier, Options};
    use crate::header::{Header, Kind};
    use crate::writer::Writer;

    /// More files than a batch has, more bytes than a batch has, and files too large for one.
    const SIZES: [usize; 5] = [0, 1, 5000, 100_000, 300_000];

    fn contents(number: usize) -> Vec<u8> {
        (0..SIZES[number % SIZES.len()]).map(|at| (at * 7 + number) as u8).collect()
    }

    fn tar(files: usize) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for number in 0..files {
            let path = format!("{number}").into_bytes();
            let header = Header { path, kind: Kind::Regular, mode: 0o644, ..Header::default() };
            writer.file(&header, &contents(number)).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn every_file_gets_its_own_contents() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(directory.path()).unwrap();
        Applier::new(root, Options::default()).unwrap().apply(tar(300).as_slice(), None).unwrap();
        for number in 0..300 {
            assert!(
                fs::read(directory.path().join(number.to_string())).unwrap() == contents(number),
                "{number}"
            );
        }
    }

    #[test]
    fn files_before_a_truncation_are_whole() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(directory.path()).unwrap();
        let tar = tar(9);
        // In the contents of the last file: three blocks of it are there, and none of the end.
        let end = tar.len() - 1024 - contents(8).len().next_multiple_of(512) + 1536;
        assert!(Applier::new(root, Options::default()).unwrap().apply(&tar[..end], None).is_err());
        for number in 0..8 {
            assert!(
                fs::read(directory.path().join(number.to_string())).unwrap() == contents(number),
                "{number}"
            );
        }
    }
}
