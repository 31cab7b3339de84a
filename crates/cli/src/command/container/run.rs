use ponton_client::{AttachOptions, Client, Waiting};

use super::create::{DETACHED_AND_ATTACHED, create_container, named, print_plan, resolve};
use super::request::{self, Attach};
use super::streams::{End, ProxiedSignals, Resizable, Streams};
use crate::command::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::flag::{Flag, Flags};
use crate::terminal::DetachKeys;
use crate::{output, terminal};

/// `ponton run`.
pub(crate) static RUN: Command = Command::new(
    "run",
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create and run a new container from an image",
    |call| Box::pin(async move { run(call).await.map_err(|error| named("run", error)) }),
)
.flags(&[request::CREATE, FLAGS])
.arguments(Arguments::AtLeast(1), Complete::Images)
.strict();

static FLAGS: &[Flag] = &[
    Flag::text("detach-keys", "Keys that leave the container running"),
    Flag::switch("sig-proxy", "Pass signals on to the process").default("true"),
];

async fn run(call: Invocation) -> Result<u8, Error> {
    let flags = &call.flags;
    let request = resolve(flags, &call.arguments)?;
    let attach = Attach::from_flags(flags);
    if flags.on("detach") && !flags.all("attach").is_empty() {
        return Err(Error::invalid(DETACHED_AND_ATTACHED));
    }
    terminal::check_input(attach.stdin, request.config.tty)?;
    let keys = DetachKeys::parse(flags.text("detach-keys"))?;
    let client = call.context.client().await?;
    if flags.on("plan") {
        return print_plan(client, flags, &request).await;
    }
    let id = create_container(client, flags, &request).await?;
    if !(attach.stdin || attach.stdout || attach.stderr) {
        client.container_start(&id, flags.text("detach-keys")).await?;
        output::print_line(&id)?;
        return Ok(0);
    }
    let foreground = Foreground {
        client,
        id: &id,
        tty: request.config.tty,
        attach,
        remove: request.host_config.auto_remove,
        flags,
    };
    foreground.run(keys).await
}

/// A container that the caller waits for.
struct Foreground<'a> {
    client: &'a Client,
    id: &'a str,
    tty: bool,
    attach: Attach,
    remove: bool,
    flags: &'a Flags,
}

impl Foreground<'_> {
    async fn run(self, keys: DetachKeys) -> Result<u8, Error> {
        let Self { client, id, tty, attach, remove, flags } = self;
        let detach_keys = flags.text("detach-keys");
        let signals = ProxiedSignals::catch(flags.on("sig-proxy") && !tty)?;
        let options = AttachOptions {
            stream: true,
            logs: false,
            stdin: attach.stdin,
            stdout: attach.stdout,
            stderr: attach.stderr,
            detach_keys: detach_keys.to_owned(),
        };
        let work = async {
            // Both before the start, so that no output and no exit is missed.
            let (connection, waiting) = tokio::try_join!(
                client.container_attach(id, &options),
                client.container_wait(id, if remove { "removed" } else { "next-exit" }),
            )?;
            let streams = Streams {
                connection,
                tty,
                stdin: attach.stdin,
                output: attach.stdout || attach.stderr,
                detach_keys: keys,
            };
            if let Err(error) = client.container_start(id, detach_keys).await {
                if remove {
                    // The daemon removes what could not be started; the name is free again after this.
                    let _ = waiting.exit().await;
                }
                return Err(error.into());
            }
            match streams.interact(client, Resizable::Container(id)).await? {
                End::Output => exit_code(waiting).await,
                End::Detached => Ok(0),
                End::Signal(number) => Err(Error::Exit(128 + number)),
            }
        };
        signals.during(client, id, work).await
    }
}

/// The exit code that the daemon tells.
pub(super) async fn exit_code(waiting: Waiting) -> Result<u8, Error> {
    let exit = waiting.exit().await?;
    if let Some(error) = exit.error {
        output::complain(&format!("Error waiting for container: {}", error.message));
        return Ok(125);
    }
    Ok((exit.status_code & 0xff) as u8)
}
