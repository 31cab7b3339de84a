//! A container that the caller stays connected to: `run`, `start --attach` and `attach`.

use ponton_api::container::Inspect;
use ponton_client::{AttachOptions, Client, Waiting};

use super::request::Attach;
use super::streams::{End, ProxiedSignals, Resizable, Streams};
use crate::error::Error;
use crate::flag::Flag;
use crate::terminal::DetachKeys;
use crate::{output, terminal};

/// `--detach-keys`.
pub(super) const DETACH_KEYS: Flag = Flag::text("detach-keys", "Keys that leave the container running");
/// `--sig-proxy`.
pub(super) const SIG_PROXY: Flag =
    Flag::switch("sig-proxy", "Pass signals on to the process").default("true");

/// A container, and how the caller is connected to it.
#[derive(Debug)]
pub(super) struct Foreground<'a> {
    pub(super) client: &'a Client,
    pub(super) id: &'a str,
    pub(super) tty: bool,
    pub(super) attach: Attach,
    /// `--detach-keys`.
    pub(super) keys: &'a str,
    /// Signals to the client go on to the container; with a terminal, its keys do that.
    pub(super) proxies_signals: bool,
}

/// What is done once the caller is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin<'a> {
    /// Nothing: the container runs.
    Running,
    /// It is started, from a checkpoint (its name and directory) if there is one, and removed by the daemon when
    /// it ends if `remove`.
    Start { remove: bool, checkpoint: Option<(&'a str, &'a str)> },
}

impl<'a> Foreground<'a> {
    /// A container that is there already, with its output, and with its input if that is wanted and open.
    pub(super) fn of(
        client: &'a Client,
        container: &'a Inspect,
        wants_stdin: bool,
        keys: &'a str,
        proxies_signals: bool,
    ) -> Result<Self, Error> {
        let tty = container.config.tty;
        let stdin = wants_stdin && container.config.open_stdin;
        terminal::check_input(stdin, tty)?;
        let attach = Attach { stdin, stdout: true, stderr: true };
        Ok(Self { client, id: &container.id, tty, attach, keys, proxies_signals })
    }

    /// Stays until the container ends or the user leaves; the exit code.
    pub(super) async fn stay(self, begin: Begin<'_>) -> Result<u8, Error> {
        let signals = ProxiedSignals::catch(self.proxies_signals && !self.tty)?;
        let (client, id) = (self.client, self.id);
        signals.during(client, id, self.flow(begin)).await
    }

    async fn flow(self, begin: Begin<'_>) -> Result<u8, Error> {
        let Self { client, id, tty, attach, keys, .. } = self;
        let options = AttachOptions {
            stream: true,
            logs: false,
            stdin: attach.stdin,
            stdout: attach.stdout,
            stderr: attach.stderr,
            detach_keys: keys.to_owned(),
        };
        let condition = match begin {
            Begin::Running => "not-running",
            Begin::Start { remove: false, .. } => "next-exit",
            Begin::Start { remove: true, .. } => "removed",
        };
        // Both before the start, so that no output and no exit is missed.
        let (connection, waiting) =
            tokio::try_join!(client.container_attach(id, &options), client.container_wait(id, condition))?;
        let output = attach.stdout || attach.stderr;
        let streams =
            Streams { connection, tty, stdin: attach.stdin, output, detach_keys: DetachKeys::parse(keys)? };
        if let Begin::Start { remove, checkpoint } = begin
            && let Err(error) = client.container_start(id, keys, checkpoint).await
        {
            if remove {
                // The daemon removes what could not be started; the name is free again after this.
                let _ = waiting.exit().await;
            }
            return Err(error.into());
        }
        match streams.interact(client, Resizable::Container(id)).await? {
            End::Output => exit_code(waiting).await,
            End::Detached if begin == Begin::Running => Err(Error::invalid("read escape sequence")),
            End::Detached => Ok(0),
            End::Signal(number) => Err(Error::Exit(128 + number)),
        }
    }
}

/// The exit code that the daemon tells.
async fn exit_code(waiting: Waiting) -> Result<u8, Error> {
    let exit = waiting.exit().await?;
    if let Some(error) = exit.error {
        output::complain(&format!("Error waiting for container: {}", error.message));
        return Ok(125);
    }
    Ok((exit.status_code & 0xff) as u8)
}
