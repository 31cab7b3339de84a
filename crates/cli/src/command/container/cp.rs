//! `ponton cp`: files between a container and this host, as tar through the API.
//!
//! The meaning of a path is docker's: a source that ends in `/.` stands for what is in the directory; a
//! destination that is a directory takes the source under its own name; one that is not there takes the
//! source's content under the new name.

pub(crate) mod local;
mod path;

use std::io::IsTerminal;
use std::path::Path;

use ponton_api::container::PathStat;
use ponton_client::Client;

use crate::command::image::chunks;
use crate::command::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::flag::Flag;
use crate::output;
use path::{Place, container_absolute, ends_in_dot, ends_in_separator, file_name, follow_link};

/// `ponton cp`.
pub(crate) static CP: Command = Command::new(
    "cp",
    "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tponton cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    "Copy files/folders between a container and the local filesystem\n\n'-' as the source reads a tar archive from standard input and unpacks it in a\ndirectory of the container; '-' as the destination writes a tar archive of the\nsource to standard output.",
    |call| Box::pin(copy(call)),
)
.flags(&[&[
    Flag::switch("archive", "Keep owners and groups").short('a'),
    Flag::switch("follow-link", "Copy what a link at the source's end points to").short('L'),
    Flag::switch("quiet", "Say nothing").short('q'),
]])
.arguments(Arguments::Exactly(2), Complete::Containers);

const IS_DIRECTORY: u32 = 1 << 31;
const IS_LINK: u32 = 1 << 27;

async fn copy(call: Invocation) -> Result<u8, Error> {
    let (source, target) = (&call.arguments[0], &call.arguments[1]);
    if source.is_empty() {
        return Err(Error::invalid("source can not be empty"));
    }
    if target.is_empty() {
        return Err(Error::invalid("destination can not be empty"));
    }
    match (Place::parse(source), Place::parse(target)) {
        (Place::Container { .. }, Place::Container { .. }) => {
            Err(Error::invalid("copying between containers is not supported"))
        }
        (Place::Local(_), Place::Local(_)) => {
            Err(Error::invalid("must specify at least one container source"))
        }
        (Place::Container { name, path }, Place::Local(to)) => from_container(&call, &name, &path, &to).await,
        (Place::Local(from), Place::Container { name, path }) => {
            to_container(&call, &from, &name, &path).await
        }
    }
}

async fn from_container(call: &Invocation, name: &str, source: &str, target: &str) -> Result<u8, Error> {
    let client = call.context.client().await?;
    let mut source = container_absolute(source);
    if call.flags.on("follow-link")
        && let Ok(stat) = stat(client, name, &source).await
        && stat.mode & IS_LINK != 0
    {
        source = follow_link(&source, &stat.link_target);
    }
    if target == "-" {
        if std::io::stdout().is_terminal() {
            return Err(Error::invalid(
                "refusing to copy an archive to a terminal: redirect standard output",
            ));
        }
        let response = client.container_archive_get(name, &source).await?;
        super::save(response, "").await?;
        return Ok(0);
    }
    let target = std::path::absolute(target).map_err(|error| Error::file("resolve", target, error))?;
    if let Some(parent) = target.parent()
        && !parent.is_dir()
    {
        return Err(Error::invalid(format!(
            "invalid output path: directory {:?} does not exist",
            parent.display().to_string()
        )));
    }
    let response = client.container_archive_get(name, &source).await?;
    let stat = decode_stat(response.header("X-Docker-Container-Path-Stat").unwrap_or_default())?;
    let is_directory = stat.mode & IS_DIRECTORY != 0;
    let given_directory = ends_in_separator(&call.arguments[1]);
    let plan = local::Unpack::plan(&source, is_directory, &target, given_directory)?;
    let bytes = local::unpack(response.stream(), plan).await?;
    tell(call, bytes, &format!("to {}", target.display()));
    Ok(0)
}

async fn to_container(call: &Invocation, source: &str, name: &str, target: &str) -> Result<u8, Error> {
    let client = call.context.client().await?;
    let given_target = target;
    let mut target = container_absolute(target);
    let mut found = stat(client, name, &target).await;
    if let Ok(link) = &found
        && link.mode & IS_LINK != 0
    {
        target = follow_link(&target, &link.link_target);
        found = stat(client, name, &target).await;
    }
    let found = match found {
        Ok(stat) => Some(stat),
        Err(error) if error.is_not_found() => {
            // A missing path is fine, which the answer to HEAD does not tell from a missing container.
            client.container_inspect(name).await?;
            None
        }
        Err(error) => return Err(error),
    };
    let into_directory = found.as_ref().is_some_and(|stat| stat.mode & IS_DIRECTORY != 0);
    let keep_owner = call.flags.on("archive");
    if source == "-" {
        if !into_directory {
            return Err(Error::invalid(format!("destination \"{name}:{given_target}\" must be a directory")));
        }
        client.container_archive_put(name, &target, keep_owner, chunks(tokio::io::stdin())).await?;
        return Ok(0);
    }
    let local = local::Source::open(source, call.flags.on("follow-link"))?;
    let (directory, rename) = destination(&local, &target, given_target, found.as_ref())?;
    let copied = local::pack(local, rename, keep_owner);
    client.container_archive_put(name, &directory, keep_owner, copied.stream).await?;
    let bytes = copied.bytes.load(std::sync::atomic::Ordering::Relaxed);
    tell(call, bytes, &format!("to {name}:{given_target}"));
    Ok(0)
}

/// The directory of the container that the archive is unpacked in, and the name of the source in it.
fn destination(
    source: &local::Source,
    target: &str,
    given: &str,
    found: Option<&PathStat>,
) -> Result<(String, String), Error> {
    let parent = || {
        let parent = Path::new(target).parent().unwrap_or(Path::new("/"));
        parent.to_string_lossy().into_owned()
    };
    let is_directory = found.map(|stat| stat.mode & IS_DIRECTORY != 0);
    match (source.is_directory, is_directory) {
        // What is in the directory, right into the other.
        (true, Some(true)) if source.contents_only => Ok((target.to_owned(), ".".to_owned())),
        (_, Some(true)) => Ok((target.to_owned(), source.name.clone())),
        (true, Some(false)) => Err(Error::invalid("cannot copy directory")),
        (false, None) if ends_in_separator(given) || ends_in_dot(given) => {
            Err(Error::invalid("no such directory"))
        }
        _ => Ok((parent(), file_name(target))),
    }
}

async fn stat(client: &Client, name: &str, path: &str) -> Result<PathStat, Error> {
    let response = client.container_archive_stat(name, path).await?;
    decode_stat(response.header("X-Docker-Container-Path-Stat").unwrap_or_default())
}

fn decode_stat(header: &str) -> Result<PathStat, Error> {
    let json = ponton_api::base64::decode(header)
        .ok_or_else(|| Error::invalid("unable to decode container path stat header"))?;
    ponton_api::json::from_slice(&json)
        .map_err(|error| Error::invalid(format!("unable to decode container path stat header: {error}")))
}

/// What was copied, on a terminal only.
fn tell(call: &Invocation, bytes: u64, whither: &str) {
    if !call.flags.on("quiet") && std::io::stderr().is_terminal() {
        output::complain(&format!(
            "Successfully copied {} {whither}",
            ponton_api::unit::human_size(bytes as i64)
        ));
    }
}
