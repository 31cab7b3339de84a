use super::foreground::{Begin, DETACH_KEYS, Foreground, SIG_PROXY};
use super::request::Attach;
use crate::command::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::flag::Flag;
use crate::terminal;

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
    let foreground = Foreground {
        client,
        id,
        tty,
        attach: Attach { stdin, stdout: true, stderr: true },
        keys: call.flags.text("detach-keys"),
        proxies_signals: call.flags.on("sig-proxy"),
    };
    foreground.stay(Begin::Running).await
}
