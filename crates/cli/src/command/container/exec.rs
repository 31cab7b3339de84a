use ponton_api::exec::{ExecCreateRequest, ExecStartRequest};

use super::request::environment;
use super::streams::{End, Resizable, Streams};
use crate::command::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::flag::Flag;
use crate::terminal::{self, DetachKeys};
use crate::{output, value};

/// `ponton exec`.
pub(crate) static EXEC: Command = Command::new(
    "exec",
    "[OPTIONS] CONTAINER COMMAND [ARG...]",
    "Execute a command in a running container",
    |call| Box::pin(exec(call)),
)
.flags(&[FLAGS])
.arguments(Arguments::AtLeast(2), Complete::RunningContainers)
.strict();

static FLAGS: &[Flag] = &[
    Flag::switch("detach", "Leave the command in the background").short('d'),
    Flag::text("detach-keys", "Keys that leave the command running"),
    Flag::list("env", "Set a variable").short('e').check(value::check_env),
    Flag::list("env-file", "Set the variables of a file"),
    Flag::switch("interactive", "Keep stdin open").short('i'),
    Flag::switch("privileged", "Give all privileges"),
    Flag::switch("tty", "Give it a terminal").short('t'),
    Flag::text("user", "User or uid, and group or gid (user[:group])").short('u'),
    Flag::text("workdir", "Working directory").short('w'),
];

async fn exec(call: Invocation) -> Result<u8, Error> {
    let flags = &call.flags;
    let (detach, tty) = (flags.on("detach"), flags.on("tty"));
    let stdin = flags.on("interactive") && !detach;
    let env = environment(flags.all("env"), flags.all("env-file"))?;
    terminal::check_input(stdin, tty)?;
    let keys = call.context.detach_keys(flags.text("detach-keys"));
    let detach_keys = DetachKeys::parse(keys)?;
    let console_size =
        terminal::size().filter(|_| tty && !detach).map(|(rows, columns)| [rows.into(), columns.into()]);
    let client = call.context.client().await?;
    let request = ExecCreateRequest {
        user: flags.text("user").to_owned(),
        privileged: flags.on("privileged"),
        tty,
        console_size,
        attach_stdin: stdin,
        attach_stdout: !detach,
        attach_stderr: !detach,
        detach_keys: keys.to_owned(),
        env: (!env.is_empty()).then_some(env),
        working_dir: flags.text("workdir").to_owned(),
        cmd: Some(call.arguments[1..].to_vec()),
    };
    let id = client.exec_create(&call.arguments[0], &request).await?;
    let start = ExecStartRequest { detach, tty, console_size };
    if detach {
        client.exec_start_detached(&id, &start).await?;
        return Ok(0);
    }
    let connection = match client.exec_start(&id, &start).await {
        Ok(connection) => connection,
        Err(error) => {
            // The daemon tells a command that cannot be run by its exit code.
            output::complain(&error.to_string());
            let exit = client.exec_inspect(&id).await.ok().and_then(|exec| exec.exit_code);
            return Err(Error::Exit(exit.filter(|code| *code != 0).map_or(1, |code| code as u8)));
        }
    };
    let streams = Streams { connection, tty, stdin, output: true, detach_keys };
    match streams.interact(client, Resizable::Exec(&id)).await? {
        End::Output => {
            let exec = client.exec_inspect(&id).await?;
            Ok((exec.exit_code.unwrap_or(0) & 0xff) as u8)
        }
        End::Detached => Err(Error::invalid("read escape sequence")),
        End::Signal(number) => Err(Error::Exit(128 + number)),
    }
}
