//! What a container made of its image: `diff`, `export`, `commit`; and archives to files.

use std::io::IsTerminal;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use futures_util::StreamExt;
use ponton_client::Response;
use ponton_oci::reference::Reference;
use tokio::io::AsyncWriteExt;

use crate::command::{Arguments, Command, Complete, Invocation};
use crate::error::{Error, reason};
use crate::flag::Flag;
use crate::output;

/// `ponton diff`.
pub(crate) static DIFF: Command = Command::new(
    "diff",
    "CONTAINER",
    "Inspect changes to files or directories on a container's filesystem",
    |call| {
        Box::pin(async move {
            if call.arguments[0].is_empty() {
                return Err(Error::invalid("Container name cannot be empty"));
            }
            let changes = call.context.client().await?.container_changes(&call.arguments[0]).await?;
            let mut text = String::new();
            for change in changes.unwrap_or_default() {
                let kind = match change.kind {
                    0 => 'C',
                    1 => 'A',
                    _ => 'D',
                };
                text.push_str(&format!("{kind} {}\n", change.path));
            }
            output::print(&text)?;
            Ok(0)
        })
    },
)
.arguments(Arguments::Exactly(1), Complete::Containers);

/// `ponton export`.
pub(crate) static EXPORT: Command = Command::new(
    "export",
    "[OPTIONS] CONTAINER",
    "Export a container's filesystem as a tar archive",
    |call| {
        Box::pin(async move {
            let path = call.flags.text("output");
            check_target(path, "failed to export container")?;
            let client = call.context.client().await?;
            save(client.container_export(&call.arguments[0]).await?, path).await?;
            Ok(0)
        })
    },
)
.flags(&[&[Flag::text("output", "Write to a file instead of standard output").short('o')]])
.arguments(Arguments::Exactly(1), Complete::Containers);

/// Refuses an archive on a terminal, and in what is no file.
pub(crate) fn check_target(path: &str, what: &str) -> Result<(), Error> {
    if path.is_empty() {
        return match std::io::stdout().is_terminal() {
            true => {
                Err(Error::invalid("cowardly refusing to save to a terminal. Use the -o flag or redirect"))
            }
            false => Ok(()),
        };
    }
    let directory = Path::new(path).parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(Err(source)) = directory.map(std::fs::metadata) {
        let directory = directory.map(|directory| directory.display().to_string()).unwrap_or_default();
        let reason = reason(&source);
        return Err(Error::invalid(format!("{what}: invalid output path: stat {directory}: {reason}")));
    }
    let Ok(found) = std::fs::metadata(path) else { return Ok(()) };
    let kind = match found.file_type() {
        kind if kind.is_dir() => "directory",
        kind if kind.is_char_device() => "character device file",
        kind if kind.is_block_device() => "device",
        _ => return Ok(()),
    };
    Err(Error::invalid(format!("{what}: cannot write to a {kind}")))
}

/// Writes an answer to a file, which is complete or not there; or to standard output if `path` is empty.
pub(crate) async fn save(response: Response, path: &str) -> Result<(), Error> {
    let mut stream = response.stream();
    if path.is_empty() {
        let mut stdout = tokio::io::stdout();
        while let Some(chunk) = stream.next().await {
            let written = async {
                stdout.write_all(&chunk?).await.map_err(|source| Error::file("write", "/dev/stdout", source))
            };
            written.await?;
        }
        return stdout.flush().await.map_err(|source| Error::file("write", "/dev/stdout", source));
    }
    let temporary = format!("{path}.tmp-{}", std::process::id());
    let work = async {
        let error = |source| Error::file("write", path, source);
        let mut file =
            tokio::fs::File::create(&temporary).await.map_err(|source| Error::file("open", path, source))?;
        while let Some(chunk) = stream.next().await {
            file.write_all(&chunk?).await.map_err(error)?;
        }
        file.flush().await.map_err(error)?;
        tokio::fs::rename(&temporary, path).await.map_err(|source| Error::file("rename", path, source))
    };
    let result = work.await;
    if result.is_err() {
        let _ = tokio::fs::remove_file(&temporary).await;
    }
    result
}

/// `ponton commit`.
pub(crate) static COMMIT: Command = Command::new(
    "commit",
    "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    "Create a new image from a container's changes",
    |call| Box::pin(commit(call)),
)
.flags(&[&[
    Flag::text("author", "Author of the image").short('a'),
    Flag::list("change", "Apply an instruction of a Dockerfile").short('c'),
    Flag::text("message", "Message of the commit").short('m'),
    Flag::switch("pause", "Pause the container meanwhile").short('p').default("true"),
]])
.arguments(Arguments::Between(1, 2), Complete::Containers);

async fn commit(call: Invocation) -> Result<u8, Error> {
    let flags = &call.flags;
    let (mut repository, mut tag) = (String::new(), String::new());
    if let Some(name) = call.arguments.get(1).filter(|name| !name.is_empty()) {
        let reference = Reference::parse_exact(name).map_err(|error| Error::invalid(error.to_string()))?;
        if reference.digest().is_some() {
            return Err(Error::invalid("refusing to create a tag with a digest reference"));
        }
        repository = reference.name();
        tag = reference.tag().unwrap_or_default().to_owned();
    }
    let mut query = vec![
        ("author", flags.text("author").to_owned()),
        ("comment", flags.text("message").to_owned()),
        ("container", call.arguments[0].clone()),
        ("repo", repository),
        ("tag", tag),
    ];
    if !flags.on("pause") {
        query.push(("pause", "0".to_owned()));
    }
    query.extend(flags.all("change").iter().map(|change| ("changes", change.clone())));
    let image = call.context.client().await?.container_commit(&query).await?;
    output::print_line(&image.id)?;
    Ok(0)
}
