use ponton_client::AttachOptions;

use super::run::exit_code;
use super::streams::{End, ProxiedSignals, Resizable, Streams};
use crate::command::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::flag::Flag;
use crate::output;
use crate::terminal::{self, DetachKeys};

/// `ponton start`.
pub(crate) static START: Command = Command::new(
    "start",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Start one or more stopped containers",
    |call| Box::pin(start(call)),
)
.flags(&[FLAGS])
.arguments(Arguments::AtLeast(1), Complete::Containers);

static FLAGS: &[Flag] = &[
    Flag::switch("attach", "Stay connected to its output, and pass signals on").short('a'),
    Flag::text("detach-keys", "Keys that leave the container running"),
    Flag::switch("interactive", "Connect its stdin").short('i'),
];

async fn start(call: Invocation) -> Result<u8, Error> {
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
    for name in &call.arguments {
        match client.container_start(name, call.flags.text("detach-keys")).await {
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

async fn start_attached(call: &Invocation) -> Result<u8, Error> {
    let client = call.context.client().await?;
    let container = client.container_inspect(&call.arguments[0]).await?;
    let (id, tty) = (container.id.as_str(), container.config.tty);
    let stdin = call.flags.on("interactive") && container.config.open_stdin;
    terminal::check_input(stdin, tty)?;
    let signals = ProxiedSignals::catch(!tty)?;
    let keys = call.flags.text("detach-keys");
    let options = AttachOptions {
        stream: true,
        stdin,
        stdout: true,
        stderr: true,
        detach_keys: keys.to_owned(),
        ..AttachOptions::default()
    };
    let condition = if container.host_config.auto_remove { "removed" } else { "next-exit" };
    let work = async {
        let (connection, waiting) =
            tokio::try_join!(client.container_attach(id, &options), client.container_wait(id, condition))?;
        client.container_start(id, keys).await?;
        let streams = Streams { connection, tty, stdin, output: true, detach_keys: DetachKeys::parse(keys)? };
        match streams.interact(client, Resizable::Container(id)).await? {
            End::Output => exit_code(waiting).await,
            End::Detached => Ok(0),
            End::Signal(number) => Err(Error::Exit(128 + number)),
        }
    };
    signals.during(client, id, work).await
}
