use super::foreground::{Begin, DETACH_KEYS, Foreground};
use crate::command::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::flag::Flag;
use crate::output;

/// `ponton start`.
pub(crate) static START: Command = Command::new(
    "start",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Start one or more stopped containers",
    |call| Box::pin(start(call)),
)
.flags(&[FLAGS])
.arguments(Arguments::AtLeast(1), Complete::StoppedContainers);

static FLAGS: &[Flag] = &[
    Flag::switch("attach", "Stay connected to its output, and pass signals on").short('a'),
    Flag::text("checkpoint", "Start it as it was in a checkpoint"),
    Flag::text("checkpoint-dir", "Directory of the checkpoint, if not the engine's"),
    DETACH_KEYS,
    Flag::switch("interactive", "Connect its stdin").short('i'),
];

async fn start(call: Invocation) -> Result<u8, Error> {
    if call.flags.is_set("checkpoint") && call.arguments.len() > 1 {
        return Err(Error::invalid("you cannot restore multiple containers at once"));
    }
    if !call.flags.on("attach") && !call.flags.on("interactive") {
        return start_all(&call).await;
    }
    if call.arguments.len() > 1 {
        return Err(Error::invalid("you cannot start and attach multiple containers at once"));
    }
    start_attached(&call).await
}

async fn start_all(call: &Invocation) -> Result<u8, Error> {
    let client = call.context.client().await?;
    let mut failed = Vec::new();
    let keys = call.context.detach_keys(call.flags.text("detach-keys"));
    for name in &call.arguments {
        match client.container_start(name, keys, checkpoint(call)).await {
            Ok(()) => output::print_line(name)?,
            Err(error) => {
                output::complain(&error.to_string());
                failed.push(name.as_str());
            }
        }
    }
    if failed.is_empty() {
        return Ok(0);
    }
    Err(Error::invalid(format!("Error: failed to start containers: {}", failed.join(", "))))
}

/// `--checkpoint` and `--checkpoint-dir`.
fn checkpoint(call: &Invocation) -> Option<(&str, &str)> {
    call.flags.given("checkpoint").map(|name| (name, call.flags.text("checkpoint-dir")))
}

async fn start_attached(call: &Invocation) -> Result<u8, Error> {
    let client = call.context.client().await?;
    let container = client.container_inspect(&call.arguments[0]).await?;
    let keys = call.context.detach_keys(call.flags.text("detach-keys"));
    let foreground = Foreground::of(client, &container, call.flags.on("interactive"), keys, true)?;
    foreground
        .stay(Begin::Start { remove: container.host_config.auto_remove, checkpoint: checkpoint(call) })
        .await
}
