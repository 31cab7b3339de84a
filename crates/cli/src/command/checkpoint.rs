//! `ponton checkpoint …`: the processes of a container on disk.

use super::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::flag::Flag;
use crate::format::{Column, FORMAT, List};
use crate::output;

/// The commands of the noun.
pub(crate) static COMMANDS: &[&Command] = &[&CREATE, &LS, &RM];

const DIRECTORY: Flag = Flag::text("checkpoint-dir", "Directory of the checkpoints, if not the engine's");

static CREATE: Command = Command::new(
    "create",
    "[OPTIONS] CONTAINER CHECKPOINT",
    "Create a checkpoint from a running container",
    |call| Box::pin(create(call)),
)
.flags(&[&[DIRECTORY, Flag::switch("leave-running", "Leave the container running")]])
.arguments(Arguments::Exactly(2), Complete::RunningContainers);

async fn create(call: Invocation) -> Result<u8, Error> {
    let (container, checkpoint) = (call.arguments[0].as_str(), call.arguments[1].as_str());
    let (directory, exit) = (call.flags.text("checkpoint-dir"), !call.flags.on("leave-running"));
    call.context.client().await?.checkpoint_create(container, checkpoint, directory, exit).await?;
    output::print_line(checkpoint)?;
    Ok(0)
}

static LS: Command = Command::new("ls", "[OPTIONS] CONTAINER", "List checkpoints for a container", |call| {
    Box::pin(list(call))
})
.aliases(&["list"])
.flags(&[&[DIRECTORY, FORMAT.hidden()]])
.arguments(Arguments::Exactly(1), Complete::Containers);

const COLUMNS: &[Column] = &[("Name", "CHECKPOINT NAME")];

async fn list(call: Invocation) -> Result<u8, Error> {
    let directory = call.flags.text("checkpoint-dir");
    let checkpoints = call.context.client().await?.checkpoint_list(&call.arguments[0], directory).await?;
    let rows = checkpoints.into_iter().map(|name| vec![("Name", name.into())]).collect();
    let format = call.flags.text("format");
    output::print(&List { columns: COLUMNS, default: "{{.Name}}", format }.render(rows)?)?;
    Ok(0)
}

static RM: Command = Command::new("rm", "[OPTIONS] CONTAINER CHECKPOINT", "Remove a checkpoint", |call| {
    Box::pin(remove(call))
})
.aliases(&["remove"])
.flags(&[&[DIRECTORY]])
.arguments(Arguments::Exactly(2), Complete::Containers);

async fn remove(call: Invocation) -> Result<u8, Error> {
    let directory = call.flags.text("checkpoint-dir");
    call.context.client().await?.checkpoint_remove(&call.arguments[0], &call.arguments[1], directory).await?;
    Ok(0)
}
