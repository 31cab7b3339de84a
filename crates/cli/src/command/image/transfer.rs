//! Images into the engine and out of it.

use std::io;
use std::io::IsTerminal;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use ponton_api::stream::JsonMessage;
use ponton_client::{Client, JsonStream};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::split_name;
use crate::command::container::{check_target, save};
use crate::command::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::flag::Flag;
use crate::output;

/// `ponton pull`.
pub(crate) static PULL: Command =
    Command::new("pull", "[OPTIONS] NAME[:TAG|@DIGEST]", "Download an image from a registry", |call| {
        Box::pin(async move {
            let client = call.context.client().await?;
            let name = &call.arguments[0];
            let quiet = call.flags.on("quiet");
            pull(client, name, call.flags.text("platform"), quiet, false).await?;
            if quiet {
                output::print_line(name)?;
            }
            Ok(0)
        })
    })
    .flags(&[&[
        Flag::text("platform", "Platform of the image"),
        Flag::switch("quiet", "Say nothing of the progress").short('q'),
    ]])
    .arguments(Arguments::Exactly(1), Complete::Images);

/// Pulls an image and shows the progress, on standard error if `on_stderr`.
pub(crate) async fn pull(
    client: &Client,
    name: &str,
    platform: &str,
    quiet: bool,
    on_stderr: bool,
) -> Result<(), Error> {
    let reference: ponton_oci::reference::Reference =
        name.parse().map_err(|error| Error::invalid(format!("invalid reference format: {error}")))?;
    let (repository, tag) = match reference.digest() {
        Some(digest) => (name.split('@').next().unwrap_or(name).to_owned(), digest.to_string()),
        None => split_name(name),
    };
    let tag = if tag.is_empty() { "latest".to_owned() } else { tag };
    let messages = client.image_pull(&repository, &tag, platform).await?;
    show(messages, quiet, on_stderr).await
}

/// `ponton import`.
pub(crate) static IMPORT: Command = Command::new(
    "import",
    "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    "Import the contents from a tarball to create a filesystem image",
    |call| Box::pin(import(call)),
)
.flags(&[&[
    Flag::list("change", "Apply an instruction of a Dockerfile").short('c'),
    Flag::text("message", "Message of the commit").short('m'),
    Flag::text("platform", "Platform of the image"),
]])
.arguments(Arguments::Between(1, 2), Complete::Nothing);

async fn import(call: Invocation) -> Result<u8, Error> {
    let source = call.arguments[0].as_str();
    let (repository, tag) = call.arguments.get(1).map(|name| split_name(name)).unwrap_or_default();
    let is_url = source.starts_with("http://") || source.starts_with("https://");
    let mut query = vec![
        ("fromSrc", if is_url { source.to_owned() } else { "-".to_owned() }),
        ("message", call.flags.text("message").to_owned()),
        ("platform", call.flags.text("platform").to_owned()),
        ("repo", repository),
        ("tag", tag),
    ];
    query.extend(call.flags.all("change").iter().map(|change| ("changes", change.clone())));
    let tar = if is_url { None } else { Some(open(source).await?) };
    let client = call.context.client().await?;
    show(client.image_import(&query, tar).await?, false, false).await?;
    Ok(0)
}

/// `ponton load`.
pub(crate) static LOAD: Command =
    Command::new("load", "[OPTIONS]", "Load an image from a tar archive or STDIN", |call| {
        Box::pin(load(call))
    })
    .flags(&[&[
        Flag::text("input", "Read a file instead of standard input").short('i'),
        Flag::switch("quiet", "Say nothing of the progress").short('q'),
    ]])
    .arguments(Arguments::None, Complete::Nothing);

async fn load(call: Invocation) -> Result<u8, Error> {
    let path = call.flags.text("input");
    if path.is_empty() && io::stdin().is_terminal() {
        return Err(Error::invalid("requested load from stdin, but stdin is empty"));
    }
    let tar = open(if path.is_empty() { "-" } else { path }).await?;
    let client = call.context.client().await?;
    let quiet = call.flags.on("quiet") || !io::stdout().is_terminal();
    show(client.image_load(quiet, tar).await?, false, false).await?;
    Ok(0)
}

/// `ponton save`.
pub(crate) static SAVE: Command = Command::new(
    "save",
    "[OPTIONS] IMAGE [IMAGE...]",
    "Save one or more images to a tar archive (streamed to STDOUT by default)",
    |call| {
        Box::pin(async move {
            let path = call.flags.text("output");
            check_target(path, "cowardly refusing to save to a terminal. Use the -o flag or redirect")?;
            let client = call.context.client().await?;
            save(client.image_save(&call.arguments).await?, path).await?;
            Ok(0)
        })
    },
)
.flags(&[&[Flag::text("output", "Write to a file instead of standard output").short('o')]])
.arguments(Arguments::AtLeast(1), Complete::Images);

/// A file, or standard input for `-`, as a stream.
async fn open(path: &str) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static, Error> {
    let reader: Box<dyn AsyncRead + Send + Unpin> = if path == "-" {
        Box::new(tokio::io::stdin())
    } else {
        Box::new(tokio::fs::File::open(path).await.map_err(|source| Error::file("open", path, source))?)
    };
    Ok(chunks(reader))
}

/// What a reader gives, in chunks.
pub(crate) fn chunks(
    reader: impl AsyncRead + Send + Unpin + 'static,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    const CHUNK_BYTES: usize = 256 << 10;
    futures_util::stream::try_unfold(reader, async |mut reader| {
        let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
        let count = reader.read_buf(&mut buffer).await?;
        Ok((count > 0).then(|| (buffer.freeze(), reader)))
    })
}

/// Prints the messages of a pull, load or import; the daemon's last one may be an error.
async fn show(mut messages: JsonStream<JsonMessage>, quiet: bool, on_stderr: bool) -> Result<(), Error> {
    let terminal = if on_stderr { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
    let mut progress = Progress::default();
    while let Some(message) = messages.next().await? {
        if let Some(detail) = message.error_detail {
            return Err(Error::invalid(detail.message));
        }
        if !message.error.is_empty() {
            return Err(Error::invalid(message.error));
        }
        if quiet {
            continue;
        }
        let text = if terminal { progress.draw(&message) } else { plain(&message) };
        if on_stderr {
            output::complain_raw(&text);
        } else {
            output::print(&text)?;
        }
    }
    Ok(())
}

/// A message on a line of its own; how far something is, is not said on what is no terminal.
fn plain(message: &JsonMessage) -> String {
    if !message.stream.is_empty() {
        return message.stream.clone();
    }
    let counts =
        message.progress_detail.as_ref().is_some_and(|detail| detail.current > 0 || detail.total > 0);
    if counts || message.status.is_empty() {
        return String::new();
    }
    match message.id.as_str() {
        "" => format!("{}\n", message.status),
        id => format!("{id}: {}\n", message.status),
    }
}

/// Lines of a terminal that are drawn over.
#[derive(Debug, Default)]
struct Progress {
    ids: Vec<String>,
}

impl Progress {
    fn draw(&mut self, message: &JsonMessage) -> String {
        if message.id.is_empty() || !message.stream.is_empty() {
            self.ids.clear();
            return plain(message);
        }
        let mut text = String::new();
        let line = self.ids.iter().position(|id| *id == message.id).unwrap_or_else(|| {
            self.ids.push(message.id.clone());
            text.push('\n');
            self.ids.len() - 1
        });
        let up = self.ids.len() - line;
        let bar = message.progress_detail.as_ref().map(bar).unwrap_or_default();
        text.push_str(&format!("\x1b[{up}A\x1b[2K\r{}: {} {bar}\r\x1b[{up}B", message.id, message.status));
        text
    }
}

/// `[=====>    ]  1.5MB/3MB`.
fn bar(detail: &ponton_api::stream::ProgressDetail) -> String {
    const WIDTH: i64 = 50;
    let size = ponton_api::unit::human_size;
    match (detail.current, detail.total) {
        (0, 0) => String::new(),
        (current, total) if total > 0 && current <= total => {
            let done = (current * WIDTH / total) as usize;
            let rest = WIDTH as usize - done;
            format!("[{}>{}]  {}/{}", "=".repeat(done), " ".repeat(rest), size(current), size(total))
        }
        (current, _) => size(current),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_get_plain_lines() {
        let message = |stream: &str, status: &str, id: &str, current: i64| JsonMessage {
            stream: stream.to_owned(),
            status: status.to_owned(),
            id: id.to_owned(),
            progress_detail: Some(ponton_api::stream::ProgressDetail {
                current,
                total: current,
                ..Default::default()
            }),
            ..JsonMessage::default()
        };
        assert_eq!(plain(&message("Loaded image: a\n", "", "", 0)), "Loaded image: a\n");
        assert_eq!(plain(&message("", "Done", "abc", 0)), "abc: Done\n");
        assert_eq!(plain(&message("", "Loading", "abc", 5)), "");
        assert_eq!(plain(&message("", "sha256:1", "", 0)), "sha256:1\n");
    }
}
