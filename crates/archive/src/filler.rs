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
/// Files that may wait; with the size, the bound of memory.
const QUEUE: usize = 64;

/// A file that was made, and what belongs into it.
struct Job {
    file: OwnedFd,
    header: Header,
    contents: Vec<u8>,
}

/// The end that makes files. Dropping it ends the work.
pub(crate) struct Filler {
    jobs: SyncSender<Job>,
    spare: Receiver<Vec<u8>>,
}

/// The end that fills them.
pub(crate) struct Queue {
    jobs: Receiver<Job>,
    spare: Sender<Vec<u8>>,
}

impl Filler {
    pub(crate) fn new() -> (Self, Queue) {
        let (jobs, queue) = sync_channel(QUEUE);
        let (give_back, spare) = channel();
        (Self { jobs, spare }, Queue { jobs: queue, spare: give_back })
    }

    /// Has a file filled with an entry's contents, and its metadata set.
    pub(crate) fn fill<R: BufRead>(
        &self,
        file: OwnedFd,
        header: Header,
        payload: &mut Payload<'_, R>,
    ) -> Result<()> {
        let mut contents = self.spare.try_recv().unwrap_or_default();
        contents.clear();
        loop {
            let bytes = payload.fill()?;
            let length = bytes.len();
            if length == 0 {
                break;
            }
            contents.extend_from_slice(bytes);
            payload.consume(length);
        }
        // The worker ended early with an error, which is the one that counts.
        self.jobs
            .send(Job { file, header, contents })
            .map_err(|unsent| Error::entry(&unsent.0.header.path, "not written, for an earlier error"))
    }
}

impl Queue {
    /// Fills files until there are no more, or until one fails.
    pub(crate) fn work(self, owner: Option<(u32, u32)>) -> Result<()> {
        for Job { file, header, contents } in self.jobs {
            let mut rest = contents.as_slice();
            while !rest.is_empty() {
                let written = rustix::io::retry_on_intr(|| rustix::io::write(&file, rest))
                    .map_err(Error::io("write", &header.path))?;
                rest = &rest[written..];
            }
            finish_file(&file, &header, owner)?;
            // Nobody waits for it at the end.
            let _ = self.spare.send(contents);
        }
        Ok(())
    }
}
