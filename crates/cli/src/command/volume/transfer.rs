//! `ponton volume backup`, `restore` and `clone`.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use ponton_api::unit;
use tokio::io::AsyncWriteExt;

use crate::command::image::chunks;
use crate::command::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::flag::Flag;
use crate::output;

/// How often the progress is drawn.
const DRAWN: Duration = Duration::from_millis(200);

const NO_PAUSE: Flag =
    Flag::switch("no-pause", "Do not freeze the containers that write to the volume meanwhile");

pub(super) static BACKUP: Command = Command::new(
    "backup",
    "[OPTIONS] VOLUME",
    "Write a volume's content to a tar archive\n\nThe running containers that write to the volume are paused meanwhile, so that the\narchive is of one moment.",
    |call| Box::pin(backup(call)),
)
.flags(&[&[
    Flag::text("output", "Write to a file, instead of standard output").short('o'),
    NO_PAUSE,
    Flag::switch("quiet", "Say nothing").short('q'),
]])
.arguments(Arguments::Exactly(1), Complete::Volumes);

async fn backup(call: Invocation) -> Result<u8, Error> {
    let (flags, name) = (&call.flags, &call.arguments[0]);
    let path = flags.text("output");
    if path.is_empty() && io::stdout().is_terminal() {
        return Err(Error::invalid(
            "refusing to write an archive to a terminal: use --output, or redirect standard output",
        ));
    }
    let client = call.context.client().await?;
    let response = client.volume_backup(name, !flags.on("no-pause")).await?;
    let mut progress = Progress::new(flags.on("quiet"));
    let mut stream = response.stream();
    if path.is_empty() {
        let mut stdout = tokio::io::stdout();
        let failed = |source| Error::file("write", "/dev/stdout", source);
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            stdout.write_all(&chunk).await.map_err(failed)?;
            progress.add(chunk.len());
        }
        stdout.flush().await.map_err(failed)?;
    } else {
        // Under its name only when it is whole.
        let temporary = format!("{path}.tmp-{}", std::process::id());
        let written = async {
            let failed = |source| Error::file("write", path, source);
            let mut file = tokio::fs::File::create(&temporary).await.map_err(failed)?;
            while let Some(chunk) = stream.next().await {
                let chunk = chunk?;
                file.write_all(&chunk).await.map_err(failed)?;
                progress.add(chunk.len());
            }
            file.sync_all().await.map_err(failed)?;
            tokio::fs::rename(&temporary, path).await.map_err(|source| Error::file("rename to", path, source))
        };
        if let Err(error) = written.await {
            // What is left of it is worth nothing.
            let _ = tokio::fs::remove_file(&temporary).await;
            return Err(error);
        }
    }
    progress.finish(&format!("Backed up {name}"));
    Ok(0)
}

pub(super) static RESTORE: Command = Command::new(
    "restore",
    "[OPTIONS] VOLUME",
    "Make a tar archive the content of a volume\n\nThe volume is made if it is not there. The archive may be compressed. Either all of it\nbecomes the volume's content, or nothing.",
    |call| Box::pin(restore(call)),
)
.flags(&[&[
    Flag::switch("force", "Replace what the volume has").short('f'),
    Flag::text("input", "Read from a file, instead of standard input").short('i'),
    Flag::switch("quiet", "Say nothing").short('q'),
]])
.arguments(Arguments::Exactly(1), Complete::Volumes);

async fn restore(call: Invocation) -> Result<u8, Error> {
    let (flags, name) = (&call.flags, &call.arguments[0]);
    let path = flags.text("input");
    let client = call.context.client().await?;
    let (quiet, force) = (flags.on("quiet"), flags.on("force"));
    let volume = if path.is_empty() {
        if io::stdin().is_terminal() {
            return Err(Error::invalid(
                "refusing to read an archive from a terminal: use --input, or redirect standard input",
            ));
        }
        client.volume_restore(name, force, counted(chunks(tokio::io::stdin()), quiet)).await?
    } else {
        let file = tokio::fs::File::open(path).await.map_err(|source| Error::file("open", path, source))?;
        client.volume_restore(name, force, counted(chunks(file), quiet)).await?
    };
    output::print_line(&volume.name)?;
    Ok(0)
}

pub(super) static CLONE: Command = Command::new(
    "clone",
    "[OPTIONS] VOLUME NEW",
    "Make a new volume with the content of another\n\nOn a file system that can share blocks no space is taken until one of the two changes.",
    |call| Box::pin(clone(call)),
)
.flags(&[&[NO_PAUSE]])
.arguments(Arguments::Exactly(2), Complete::Volumes);

async fn clone(call: Invocation) -> Result<u8, Error> {
    let client = call.context.client().await?;
    let [name, to] = &call.arguments[..] else { return Ok(1) };
    let volume = client.volume_clone(name, to, !call.flags.on("no-pause")).await?;
    output::print_line(&volume.name)?;
    Ok(0)
}

/// The same chunks, with the progress shown.
fn counted(
    chunks: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    quiet: bool,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let mut progress = Progress::new(quiet);
    chunks.inspect(move |chunk| {
        if let Ok(chunk) = chunk {
            progress.add(chunk.len());
        }
    })
}

/// How many bytes have gone by: drawn over on a terminal, and nowhere else.
struct Progress {
    is_shown: bool,
    is_quiet: bool,
    bytes: i64,
    drawn: Option<Instant>,
}

impl Progress {
    fn new(is_quiet: bool) -> Self {
        Self { is_shown: !is_quiet && io::stderr().is_terminal(), is_quiet, bytes: 0, drawn: None }
    }

    fn add(&mut self, count: usize) {
        self.bytes = self.bytes.saturating_add(i64::try_from(count).unwrap_or(i64::MAX));
        let is_due = self.drawn.is_none_or(|drawn| drawn.elapsed() >= DRAWN);
        if self.is_shown && is_due {
            self.drawn = Some(Instant::now());
            output::complain_raw(&format!("\x1b[2K\r{}\r", unit::human_size_precise(self.bytes, 3)));
        }
    }

    fn finish(&self, what: &str) {
        if !self.is_quiet {
            let clear = if self.drawn.is_some() { "\x1b[2K\r" } else { "" };
            output::complain_raw(&format!("{clear}{what}: {}\n", unit::human_size_precise(self.bytes, 3)));
        }
    }
}
