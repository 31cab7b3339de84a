//! Images into the engine and out of it.

use std::io;
use std::io::IsTerminal;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::pull::platform_json;
use super::split_name;
use crate::command::container::{self, check_target, local};
use crate::command::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::flag::Flag;
use crate::progress::{self, Target};

const PLATFORM: Flag = Flag::text("platform", "Only the image of this platform (os[/arch[/variant]])");

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
    progress::show(client.image_import(&query, tar).await?, Target::Stdout, drop).await?;
    Ok(0)
}

/// `ponton load`.
pub(crate) static LOAD: Command =
    Command::new("load", "[OPTIONS]", "Load an image from a tar archive or STDIN", |call| {
        Box::pin(load(call))
    })
    .flags(&[&[
        Flag::text("input", "Read a file or directory (OCI layout) instead of standard input").short('i'),
        PLATFORM,
        Flag::switch("quiet", "Say nothing of the progress").short('q'),
    ]])
    .arguments(Arguments::None, Complete::Nothing);

async fn load(call: Invocation) -> Result<u8, Error> {
    let path = call.flags.text("input");
    if path.is_empty() && io::stdin().is_terminal() {
        return Err(Error::invalid("requested load from stdin, but stdin is empty"));
    }
    let platform = platform_json(call.flags.text("platform"))?;
    let quiet = call.flags.on("quiet") || !io::stdout().is_terminal();
    let client = call.context.client().await?;
    let messages = if Path::new(path).is_dir() {
        let layout = local::Source::open(&format!("{path}/."), true)?;
        client.image_load(quiet, &platform, local::pack(layout, ".".to_owned(), false).stream).await?
    } else {
        client.image_load(quiet, &platform, open(if path.is_empty() { "-" } else { path }).await?).await?
    };
    progress::show(messages, Target::Stdout, drop).await?;
    Ok(0)
}

/// `ponton save`.
pub(crate) static SAVE: Command = Command::new(
    "save",
    "[OPTIONS] IMAGE [IMAGE...]",
    "Save one or more images to a tar archive (streamed to STDOUT by default)",
    |call| Box::pin(save(call)),
)
.flags(&[&[
    Flag::text(
        "format",
        "docker-archive (which is an OCI layout too), oci-archive, or oci-dir for a directory",
    )
    .default("docker-archive")
    .one_of(&["docker-archive", "oci-archive", "oci-dir"]),
    Flag::text("output", "Write to a file instead of standard output").short('o'),
    PLATFORM,
]])
.arguments(Arguments::AtLeast(1), Complete::Images);

async fn save(call: Invocation) -> Result<u8, Error> {
    let (path, format) = (call.flags.text("output"), call.flags.text("format"));
    let platform = platform_json(call.flags.text("platform"))?;
    if format != "oci-dir" {
        check_target(path, "failed to save image")?;
        let client = call.context.client().await?;
        container::save(client.image_save(&call.arguments, &platform, format).await?, path).await?;
        return Ok(0);
    }
    if path.is_empty() {
        return Err(Error::invalid("a directory is needed for --format oci-dir: name it with --output"));
    }
    let client = call.context.client().await?;
    let archive = client.image_save(&call.arguments, &platform, "oci-archive").await?;
    std::fs::create_dir_all(path).map_err(|source| Error::file("mkdir", path, source))?;
    let mut there = std::fs::read_dir(path).map_err(|source| Error::file("open", path, source))?;
    if there.next().is_some() {
        return Err(Error::invalid(format!("failed to save image: {path} is not empty")));
    }
    local::unpack(archive.stream(), local::Unpack { root: path.into(), rename: None }).await?;
    Ok(0)
}

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
