use super::foreground::{Begin, DETACH_KEYS, Foreground, SIG_PROXY};
use crate::command::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::flag::Flag;

/// `ponton attach`.
pub(crate) static ATTACH: Command = Command::new(
    "attach",
    "[OPTIONS] CONTAINER",
    "Attach your standard input, output and error to a running container",
    |call| Box::pin(attach(call)),
)
.flags(&[FLAGS])
.arguments(Arguments::Exactly(1), Complete::RunningContainers);

static FLAGS: &[Flag] = &[DETACH_KEYS, Flag::switch("no-stdin", "Do not attach standard input"), SIG_PROXY];

async fn attach(call: Invocation) -> Result<u8, Error> {
    let client = call.context.client().await?;
    let name = &call.arguments[0];
    let container = client.container_inspect(name).await?;
    if !container.state.running {
        return Err(Error::invalid("You cannot attach to a stopped container, start it first"));
    }
    if container.state.paused {
        return Err(Error::invalid("You cannot attach to a paused container, unpause it first"));
    }
    if container.state.restarting {
        return Err(Error::invalid("You cannot attach to a restarting container, wait until it is running"));
    }
    let (keys, proxies_signals) =
        (call.context.detach_keys(call.flags.text("detach-keys")), call.flags.on("sig-proxy"));
    let wants_stdin = !call.flags.on("no-stdin");
    Foreground::of(client, &container, wants_stdin, keys, proxies_signals)?.stay(Begin::Running).await
}
