//! Between streams of the async side and readers and writers of the blocking side: bounded channels,
//! so that neither side runs ahead.

use std::io::{self, Read, Write};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::request::{ByteSource, Stream};

/// Chunks that may wait between the two sides.
const CHUNKS: usize = 8;
/// How much a writer collects before it sends.
const CHUNK: usize = 64 << 10;

/// A request's body for blocking code.
pub(crate) struct Reader {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

/// Turns a body into a reader; the body is read only as fast as the reader goes, and no further
/// when the reader is dropped.
pub(crate) fn reader(mut body: ByteSource) -> Reader {
    let (sender, chunks) = mpsc::channel(CHUNKS);
    tokio::spawn(async move {
        while let Some(chunk) = body.next().await {
            if sender.send(chunk).await.is_err() {
                break;
            }
        }
    });
    Reader { chunks, current: Bytes::new() }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.current = chunk?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

/// Where blocking code writes a response's body to.
pub(crate) struct Writer {
    chunks: mpsc::Sender<Result<Bytes>>,
    current: Vec<u8>,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // No more than there is room for: a chunk that grows is memory that the kernel has to clear.
        let taken = bytes.len().min(CHUNK - self.current.len());
        self.current.extend_from_slice(&bytes[..taken]);
        if self.current.len() == CHUNK {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.current.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.current, Vec::with_capacity(CHUNK)).into();
        self.chunks.blocking_send(Ok(chunk)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// What `work` writes, as a stream; its failure ends the stream. What it hands back, the client does not wait for the
/// end of.
pub(crate) fn written<T>(work: impl FnOnce(&mut Writer) -> Result<T> + Send + 'static) -> Stream<Bytes> {
    let (chunks, receiver) = mpsc::channel(CHUNKS);
    let mut writer = Writer { chunks, current: Vec::with_capacity(CHUNK) };
    tokio::task::spawn_blocking(move || {
        let done = work(&mut writer).and_then(|rest| {
            writer.flush().map_err(|error| Error::failed("send to the client", error))?;
            Ok(rest)
        });
        match done {
            Ok(rest) => {
                drop(writer);
                drop(rest);
            }
            Err(error) => {
                // A client that has gone needs no error.
                let _ = writer.chunks.blocking_send(Err(error));
            }
        }
    });
    from_channel(receiver)
}

/// A channel's messages as a stream.
pub(crate) fn from_channel<T: Send + 'static>(receiver: mpsc::Receiver<Result<T>>) -> Stream<T> {
    Box::pin(stream::unfold(receiver, |mut receiver| async move {
        let item = receiver.recv().await?;
        Some((item, receiver))
    }))
}

/// A stream once it has something to say: what fails before its first item is an error at once.
pub(crate) async fn begun<T: Send + 'static>(mut items: Stream<T>) -> Result<Stream<T>> {
    match items.next().await {
        Some(Ok(first)) => Ok(Box::pin(stream::once(async { Ok(first) }).chain(items))),
        Some(Err(error)) => Err(error),
        None => Ok(items),
    }
}

/// A stream that keeps `guard` until it has ended or is dropped.
pub(crate) fn with_guard<T: Send + 'static>(items: Stream<T>, guard: impl Send + 'static) -> Stream<T> {
    Box::pin(stream::unfold((items, guard), |(mut items, guard)| async move {
        let item = items.next().await?;
        Some((item, (items, guard)))
    }))
}
