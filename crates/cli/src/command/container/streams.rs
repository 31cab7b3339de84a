//! What flows between the caller's terminal or pipes and a container.

use std::convert::Infallible;
use std::future::pending;

use bytes::{Buf, BytesMut};
use ponton_api::stream::{FrameHeader, StreamKind};
use ponton_client::{Client, Hijacked};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, WriteHalf};
use tokio::signal::unix::{SignalKind, signal};

use crate::error::Error;
use crate::terminal::{self, DetachKeys, RawMode};

const CHUNK_BYTES: usize = 64 << 10;
/// Longer frames are not what the daemon writes.
const MAX_FRAME_BYTES: usize = 64 << 20;

/// Why the flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The other side has no more to say.
    Output,
    /// The user pressed the detach keys.
    Detached,
    /// A signal told the client to go.
    Signal(u8),
}

/// A connection to a container's or a command's streams.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) connection: Hijacked,
    pub(crate) tty: bool,
    pub(crate) stdin: bool,
    /// Output is wanted (standard output or error).
    pub(crate) output: bool,
    pub(crate) detach_keys: DetachKeys,
}

impl Streams {
    /// Pumps until the output ends, the user detaches, or (with a raw terminal) a signal comes; a terminal's
    /// size is followed meanwhile.
    pub(crate) async fn interact(self, client: &Client, what: Resizable<'_>) -> Result<End, Error> {
        if !self.tty {
            return self.pump().await;
        }
        tokio::select! {
            end = self.pump() => end,
            never = follow_size(client, what) => match never {},
        }
    }

    async fn pump(self) -> Result<End, Error> {
        let raw = if self.tty && self.stdin { RawMode::enter()? } else { None };
        let is_raw = raw.is_some();
        let (mut reader, writer) = tokio::io::split(self.connection);
        let keys = self.tty.then_some(self.detach_keys);
        let input = async {
            let end = if self.stdin { send_input(writer, keys).await } else { pending().await };
            // The end of the input is the end of all only if there is no output to wait for.
            if end == End::Detached || !self.output { end } else { pending().await }
        };
        let output =
            async { if self.tty { copy_raw(&mut reader).await } else { copy_frames(&mut reader).await } };
        tokio::select! {
            biased;
            result = output => result.map(|()| End::Output),
            end = input => Ok(end),
            number = terminal::last_signal(), if is_raw => Ok(End::Signal(number)),
        }
    }
}

/// Standard input to the container; the end of it closes the container's.
async fn send_input(mut writer: WriteHalf<Hijacked>, mut keys: Option<DetachKeys>) -> End {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut filtered = Vec::new();
    loop {
        let count = stdin.read(&mut buffer).await.unwrap_or(0);
        if count == 0 {
            // The container may be gone already, which the output will tell.
            let _ = writer.shutdown().await;
            return End::Output;
        }
        let mut detached = false;
        let bytes = match &mut keys {
            Some(keys) => {
                filtered.clear();
                detached = keys.filter(&buffer[..count], &mut filtered);
                &filtered[..]
            }
            None => &buffer[..count],
        };
        if writer.write_all(bytes).await.is_err() {
            return End::Output;
        }
        if detached {
            return End::Detached;
        }
    }
}

fn broken(source: std::io::Error) -> Error {
    match source.kind() {
        // The daemon resets the connection of a container that left our input unread.
        std::io::ErrorKind::ConnectionReset => Error::Exit(0),
        std::io::ErrorKind::BrokenPipe => Error::Exit(1),
        _ => Error::file("read", "the container's streams", source),
    }
}

/// Raw bytes to standard output.
pub(crate) async fn copy_raw(reader: &mut (impl AsyncRead + Unpin)) -> Result<(), Error> {
    let mut stdout = tokio::io::stdout();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = match reader.read(&mut buffer).await {
            Ok(0) => return Ok(()),
            Err(source) if source.kind() == std::io::ErrorKind::ConnectionReset => return Ok(()),
            Ok(count) => count,
            Err(source) => return Err(broken(source)),
        };
        write(&mut stdout, &buffer[..count]).await?;
    }
}

async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), Error> {
    to.write_all(bytes).await.map_err(broken)?;
    to.flush().await.map_err(broken)
}

/// Docker's frames to standard output and standard error.
async fn copy_frames(reader: &mut (impl AsyncRead + Unpin)) -> Result<(), Error> {
    let mut demultiplexer = Demultiplexer::default();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) => return Ok(()),
            Err(source) if source.kind() == std::io::ErrorKind::ConnectionReset => return Ok(()),
            Ok(count) => demultiplexer.feed(&buffer[..count]),
            Err(source) => return Err(broken(source)),
        }
        while let Some((kind, text)) = demultiplexer.run()? {
            match kind {
                StreamKind::Stderr => write(&mut tokio::io::stderr(), &text).await?,
                _ => write(&mut tokio::io::stdout(), &text).await?,
            }
        }
    }
}

/// Takes frames apart, wherever their bytes are cut.
#[derive(Debug, Default)]
pub(crate) struct Demultiplexer {
    pending: BytesMut,
}

impl Demultiplexer {
    /// Takes in what came.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// What whole frames follow each other on one stream: there is one for each line of a log, and many are
    /// written at once.
    pub(crate) fn run(&mut self) -> Result<Option<(StreamKind, BytesMut)>, Error> {
        let mut run: Option<(StreamKind, BytesMut)> = None;
        while let Some(header) = self.whole()? {
            if run.as_ref().is_some_and(|(kind, _)| *kind != header.kind) {
                break;
            }
            self.pending.advance(FrameHeader::LENGTH);
            let frame = self.pending.split_to(header.length as usize);
            match &mut run {
                Some((_, text)) => text.extend_from_slice(&frame),
                None => run = Some((header.kind, frame)),
            }
        }
        match run {
            Some((StreamKind::SystemError, text)) => {
                let text = String::from_utf8_lossy(&text);
                Err(Error::invalid(format!("error from daemon in stream: {text}")))
            }
            run => Ok(run),
        }
    }

    /// The header of the next frame, if the frame is whole.
    fn whole(&self) -> Result<Option<FrameHeader>, Error> {
        let Some(head) = self.pending.first_chunk::<{ FrameHeader::LENGTH }>() else { return Ok(None) };
        let header = FrameHeader::decode(*head).map_err(|error| Error::invalid(error.to_string()))?;
        let length = header.length as usize;
        if length > MAX_FRAME_BYTES {
            return Err(Error::invalid(format!("frame of {length} bytes in the container's streams")));
        }
        Ok((self.pending.len() >= FrameHeader::LENGTH + length).then_some(header))
    }
}

/// What a terminal's size is told to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Resizable<'a> {
    Container(&'a str),
    Exec(&'a str),
}

/// Tells the size of the terminal now and whenever it changes; never ends.
async fn follow_size(client: &Client, what: Resizable<'_>) -> Infallible {
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return pending().await };
    loop {
        if let Some((rows, columns)) = terminal::size() {
            // A size that comes too early or too late does no harm.
            let _ = match what {
                Resizable::Container(id) => client.container_resize(id, rows, columns).await,
                Resizable::Exec(id) => client.exec_resize(id, rows, columns).await,
            };
        }
        changes.recv().await;
    }
}

/// The signals that are passed on to a container, caught from the moment this is made; none if they are not
/// to be passed on.
#[derive(Debug)]
pub(crate) struct ProxiedSignals(Vec<(&'static str, tokio::signal::unix::Signal)>);

impl ProxiedSignals {
    /// Catches them if `wanted`.
    pub(crate) fn catch(wanted: bool) -> Result<Self, Error> {
        if !wanted {
            return Ok(Self(Vec::new()));
        }
        let kinds = [
            ("HUP", SignalKind::hangup()),
            ("INT", SignalKind::interrupt()),
            ("QUIT", SignalKind::quit()),
            ("USR1", SignalKind::user_defined1()),
            ("USR2", SignalKind::user_defined2()),
            ("ALRM", SignalKind::alarm()),
            ("TERM", SignalKind::terminate()),
        ];
        let caught = kinds.into_iter().map(|(name, kind)| signal(kind).map(|stream| (name, stream)));
        let caught = caught.collect::<std::io::Result<Vec<_>>>();
        caught.map(Self).map_err(|source| Error::file("catch", "signals", source))
    }

    /// Does `work`, passing signals on to the container meanwhile.
    pub(crate) async fn during<T>(self, client: &Client, id: &str, work: impl Future<Output = T>) -> T {
        tokio::select! {
            result = work => result,
            never = self.forward(client, id) => match never {},
        }
    }

    async fn forward(mut self, client: &Client, id: &str) -> Infallible {
        loop {
            let name = std::future::poll_fn(|cx| {
                let ready = self
                    .0
                    .iter_mut()
                    .find_map(|(name, stream)| stream.poll_recv(cx).is_ready().then_some(*name));
                ready.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
            });
            let name = name.await;
            // The container may have ended meanwhile.
            let _ = client.container_kill(id, name).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_wherever_they_are_cut() {
        let mut bytes = Vec::new();
        for (kind, text) in
            [(StreamKind::Stdout, "out"), (StreamKind::Stderr, "error"), (StreamKind::Stdout, "")]
        {
            bytes.extend_from_slice(&FrameHeader { kind, length: text.len() as u32 }.encode());
            bytes.extend_from_slice(text.as_bytes());
        }
        for cut in 0..bytes.len() {
            let mut demultiplexer = Demultiplexer::default();
            let mut frames = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                demultiplexer.feed(part);
                while let Some((kind, frame)) = demultiplexer.run().unwrap() {
                    frames.push((kind, String::from_utf8(frame.to_vec()).unwrap()));
                }
            }
            assert_eq!(
                frames,
                [
                    (StreamKind::Stdout, "out".to_owned()),
                    (StreamKind::Stderr, "error".to_owned()),
                    (StreamKind::Stdout, String::new())
                ]
            );
        }
    }
    #[test]
    fn lines_of_one_stream_are_one_run() {
        let mut demultiplexer = Demultiplexer::default();
        let lines = [
            (StreamKind::Stdout, "a"),
            (StreamKind::Stdout, "b"),
            (StreamKind::Stderr, "c"),
            (StreamKind::SystemError, "no"),
        ];
        for (kind, text) in lines {
            demultiplexer.feed(&FrameHeader { kind, length: text.len() as u32 }.encode());
            demultiplexer.feed(text.as_bytes());
        }
        assert_eq!(demultiplexer.run().unwrap(), Some((StreamKind::Stdout, "ab".into())));
        assert_eq!(demultiplexer.run().unwrap(), Some((StreamKind::Stderr, "c".into())));
        assert_eq!(demultiplexer.run().unwrap_err().to_string(), "error from daemon in stream: no");
    }
}
