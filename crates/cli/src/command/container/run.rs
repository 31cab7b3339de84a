use super::create::{DETACHED_AND_ATTACHED, add_proxies, create_container, named, print_plan, resolve};
use super::foreground::{Begin, DETACH_KEYS, Foreground, SIG_PROXY};
use super::request::{self, Attach};
use crate::command::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::flag::Flag;
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
    Flag::switch("detach", "Leave the container in the background, and print its id").short('d'),
    DETACH_KEYS,
    SIG_PROXY,
];

async fn run(call: Invocation) -> Result<u8, Error> {
    let flags = &call.flags;
    let mut request = resolve(flags, &call.arguments)?;
    let attach = Attach::from_flags(flags, flags.on("detach"));
    if flags.on("detach") && !flags.all("attach").is_empty() {
        return Err(Error::invalid(DETACHED_AND_ATTACHED));
    }
    terminal::check_input(attach.stdin, request.config.tty)?;
    let keys = call.context.detach_keys(flags.text("detach-keys"));
    DetachKeys::parse(keys)?;
    let client = call.context.client().await?;
    add_proxies(&mut request, &call.context.config, client);
    if flags.on("plan") {
        return print_plan(client, flags, &request).await;
    }
    if !(attach.stdin || attach.stdout || attach.stderr) {
        let id = create_container(client, flags, &request).await?;
        client.container_start(&id, keys, None).await?;
        output::print_line(&id)?;
        return Ok(0);
    }
    // Attach takes the connection of create; wait and start need two more.
    let (id, ()) = tokio::join!(create_container(client, flags, &request), client.connect_ahead(2));
    let id = id?;
    let tty = request.config.tty;
    let proxies_signals = flags.on("sig-proxy");
    let foreground = Foreground { client, id: &id, tty, attach, keys, proxies_signals };
    foreground.stay(Begin::Start { remove: request.host_config.auto_remove, checkpoint: None }).await
}
