use ponton_client::AttachOptions;

use super::run::exit_code;
use super::streams::{End, ProxiedSignals, Resizable, Streams};
use crate::command::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::flag::Flag;
use crate::terminal::{self, DetachKeys};

/// `ponton attach`.
pub(crate) static ATTACH: Command = Command::new(
    "attach",
    "[OPTIONS] CONTAINER",
    "Attach your standard input, output and error to a running container",
    |call| Box::pin(attach(call)),
)
.flags(&[FLAGS])
.arguments(Arguments::Exactly(1), Complete::RunningContainers);

static FLAGS: &[Flag] = &[
    Flag::text("detach-keys", "Keys that leave the container running"),
    Flag::switch("no-stdin", "Do not attach standard input"),
    Flag::switch("sig-proxy", "Pass signals on to the process").default("true"),
];

async fn attach(call: Invocation) -> Result<u8, Error> {
    let client = call.context.client().await?;
    let name = &call.arguments[0];
    let container = client.container_inspect(name).await?;
    let id = container.id.as_str();
    if !container.state.running {
        return Err(Error::invalid("You cannot attach to a stopped container, start it first"));
    }
    if container.state.paused {
        return Err(Error::invalid("You cannot attach to a paused container, unpause it first"));
    }
    if container.state.restarting {
        return Err(Error::invalid("You cannot attach to a restarting container, wait until it is running"));
    }
    let tty = container.config.tty;
    let stdin = !call.flags.on("no-stdin") && container.config.open_stdin;
    terminal::check_input(stdin, tty)?;
    let keys = call.flags.text("detach-keys");
    let signals = ProxiedSignals::catch(call.flags.on("sig-proxy") && !tty)?;
    let options = AttachOptions {
        stream: true,
        stdin,
        stdout: true,
        stderr: true,
        detach_keys: keys.to_owned(),
        ..AttachOptions::default()
    };
    let work = async {
        let (connection, waiting) = tokio::try_join!(
            client.container_attach(id, &options),
            client.container_wait(id, "not-running")
        )?;
        let streams = Streams { connection, tty, stdin, output: true, detach_keys: DetachKeys::parse(keys)? };
        match streams.interact(client, Resizable::Container(id)).await? {
            End::Output => exit_code(waiting).await,
            End::Detached => Err(Error::invalid("read escape sequence")),
            End::Signal(number) => Err(Error::Exit(128 + number)),
        }
    };
    signals.during(client, id, work).await
}
