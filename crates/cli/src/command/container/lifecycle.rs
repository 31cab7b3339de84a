//! The short commands that change or ask one thing of one or more containers.

use futures_util::StreamExt;
use ponton_client::Client;

use crate::command::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::flag::Flag;
use crate::output;

/// `ponton stop`.
pub(crate) static STOP: Command = Command::new(
    "stop",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Stop one or more running containers",
    |call| {
        Box::pin(each(call, async |client, call, name| {
            client
                .container_stop(name, call.flags.text("signal"), timeout(call))
                .await
                .map(|()| name.to_owned())
        }))
    },
)
.flags(&[STOP_FLAGS])
.arguments(Arguments::AtLeast(1), Complete::RunningContainers);

static STOP_FLAGS: &[Flag] = &[
    Flag::text("signal", "Signal to send").short('s'),
    Flag::int("timeout", "Seconds to wait before it is killed").short('t'),
    Flag::int("time", "The former name of --timeout").hidden(),
];

fn timeout(call: &Invocation) -> Option<i64> {
    call.flags.given_int("timeout").or_else(|| call.flags.given_int("time"))
}

/// `ponton restart`.
pub(crate) static RESTART: Command =
    Command::new("restart", "[OPTIONS] CONTAINER [CONTAINER...]", "Restart one or more containers", |call| {
        Box::pin(each(call, async |client, call, name| {
            client
                .container_restart(name, call.flags.text("signal"), timeout(call))
                .await
                .map(|()| name.to_owned())
        }))
    })
    .flags(&[STOP_FLAGS])
    .arguments(Arguments::AtLeast(1), Complete::Containers);

/// `ponton kill`.
pub(crate) static KILL: Command = Command::new(
    "kill",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Kill one or more running containers",
    |call| {
        Box::pin(each(call, async |client, call, name| {
            client.container_kill(name, call.flags.text("signal")).await.map(|()| name.to_owned())
        }))
    },
)
.flags(&[&[Flag::text("signal", "Signal to send").short('s')]])
.arguments(Arguments::AtLeast(1), Complete::RunningContainers);

/// `ponton pause`.
pub(crate) static PAUSE: Command = Command::new(
    "pause",
    "CONTAINER [CONTAINER...]",
    "Pause all processes within one or more containers",
    |call| {
        Box::pin(each(call, async |client, _, name| {
            client.container_pause(name).await.map(|()| name.to_owned())
        }))
    },
)
.arguments(Arguments::AtLeast(1), Complete::RunningContainers);

/// `ponton unpause`.
pub(crate) static UNPAUSE: Command = Command::new(
    "unpause",
    "CONTAINER [CONTAINER...]",
    "Unpause all processes within one or more containers",
    |call| {
        Box::pin(each(call, async |client, _, name| {
            client.container_unpause(name).await.map(|()| name.to_owned())
        }))
    },
)
.arguments(Arguments::AtLeast(1), Complete::PausedContainers);

/// `ponton wait`.
pub(crate) static WAIT: Command = Command::new(
    "wait",
    "CONTAINER [CONTAINER...]",
    "Wait until one or more containers stop, then print their exit codes",
    |call| {
        Box::pin(each(call, async |client, _, name| {
            let exit = client.container_wait(name, "not-running").await?.exit().await?;
            Ok(exit.status_code.to_string())
        }))
    },
)
.arguments(Arguments::AtLeast(1), Complete::Containers);

/// `ponton rm`.
pub(crate) static RM: Command =
    Command::new("rm", "[OPTIONS] CONTAINER [CONTAINER...]", "Remove one or more containers", |call| {
        Box::pin(remove(call))
    })
    .flags(&[&[
        Flag::switch("force", "Kill a running container first").short('f'),
        Flag::switch("link", "Remove the link and not the container").short('l'),
        Flag::switch("volumes", "Remove its anonymous volumes too").short('v'),
    ]])
    .arguments(Arguments::AtLeast(1), Complete::Containers);

/// `ponton container rm`.
pub(crate) static CONTAINER_RM: Command = Command { aliases: &["remove"], ..copy(&RM) };

/// A command's table entry again, for another name.
pub(crate) const fn copy(command: &Command) -> Command {
    Command {
        name: command.name,
        aliases: command.aliases,
        usage: command.usage,
        about: command.about,
        flags: command.flags,
        arguments: command.arguments,
        interspersed: command.interspersed,
        complete: command.complete,
        run: command.run,
    }
}

async fn remove(call: Invocation) -> Result<u8, Error> {
    let force = call.flags.on("force");
    let result = each(call, async move |client, call, name| {
        let name = name.trim_matches('/');
        let removed =
            client.container_remove(name, force, call.flags.on("volumes"), call.flags.on("link")).await;
        match removed {
            // What is not there is removed already, which is all that --force asks for.
            Err(error) if force && error.is_not_found() => {
                output::complain(&error.to_string());
                Ok(String::new())
            }
            other => other.map(|()| name.to_owned()),
        }
    });
    result.await
}

/// Does one thing to each argument at the same time; prints the results and errors in order.
async fn each<F>(call: Invocation, act: F) -> Result<u8, Error>
where
    F: AsyncFn(&Client, &Invocation, &str) -> Result<String, ponton_client::Error>,
{
    /// As many containers as docker handles at once.
    const AT_ONCE: usize = 50;
    let client = call.context.client().await?;
    let mut results =
        futures_util::stream::iter(&call.arguments).map(|name| act(client, &call, name)).buffered(AT_ONCE);
    let mut errors = Vec::new();
    while let Some(result) = results.next().await {
        match result {
            Ok(text) if text.is_empty() => {}
            Ok(text) => output::print_line(&text)?,
            Err(error) => errors.push(error.to_string()),
        }
    }
    if errors.is_empty() { Ok(0) } else { Err(Error::invalid(errors.join("\n"))) }
}

/// `ponton rename`.
pub(crate) static RENAME: Command =
    Command::new("rename", "CONTAINER NEW_NAME", "Rename a container", |call| {
        Box::pin(async move {
            let (old, new) = (call.arguments[0].trim(), call.arguments[1].trim());
            if old.is_empty() || new.is_empty() {
                return Err(Error::invalid("Error: Neither old nor new names may be empty"));
            }
            if let Err(error) = call.context.client().await?.container_rename(old, new).await {
                output::complain(&error.to_string());
                return Err(Error::invalid(format!("Error: failed to rename container named {old}")));
            }
            Ok(0)
        })
    })
    .arguments(Arguments::Exactly(2), Complete::Containers);

/// `ponton port`.
pub(crate) static PORT: Command = Command::new(
    "port",
    "CONTAINER [PRIVATE_PORT[/PROTO]]",
    "List port mappings or a specific mapping for the container",
    |call| Box::pin(port(call)),
)
.arguments(Arguments::Between(1, 2), Complete::RunningContainers);

async fn port(call: Invocation) -> Result<u8, Error> {
    let container = call.context.client().await?.container_inspect(&call.arguments[0]).await?;
    let ports = &container.network_settings.ports;
    let address = |ip: &str, port: &str| {
        if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
    };
    if let Some(wanted) = call.arguments.get(1) {
        let (number, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
        if number.parse::<u16>().is_err() {
            return Err(Error::invalid(format!("Error: invalid port ({number})")));
        }
        let bindings = ports.get(&format!("{number}/{protocol}")).cloned().flatten();
        let bindings = bindings.filter(|bindings| !bindings.is_empty()).ok_or_else(|| {
            Error::invalid(format!("Error: No public port '{wanted}' published for {}", call.arguments[0]))
        })?;
        for binding in bindings {
            output::print_line(&address(&binding.host_ip, &binding.host_port))?;
        }
        return Ok(0);
    }
    let number = |port: &str| port.split('/').next().and_then(|number| number.parse::<u16>().ok());
    let mut sorted: Vec<_> = ports.iter().collect();
    sorted.sort_by_key(|(port, _)| (number(port), (*port).clone()));
    for (port, bindings) in sorted {
        for binding in bindings.iter().flatten() {
            output::print_line(&format!("{port} -> {}", address(&binding.host_ip, &binding.host_port)))?;
        }
    }
    Ok(0)
}
