//! The subcommands: arguments, and the call into the library.

mod checkpoint;
mod console;
mod create;
mod criu;
mod delete;
mod events;
mod exec;
mod features;
mod foreground;
mod inherit;
mod init;
mod kill;
mod list;
mod notify;
mod pause;
mod ps;
mod restore;
mod run;
mod shim;
mod spec;
mod start;
mod state;
mod update;

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgMatches, Args, FromArgMatches};
use ponton_oci::runtime::Status;
use ponton_runtime::apply::Stdio;
use ponton_runtime::host::Host;
use ponton_runtime::state::{Directory, Lock, Record, StateError};

use crate::log::Log;

/// What commands fail with; it is printed.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// A subcommand.
pub(crate) struct Command {
    pub(crate) name: &'static str,
    about: &'static str,
    arguments: fn(clap::Command) -> clap::Command,
    pub(crate) run: fn(&Context, &ArgMatches) -> Result<ExitCode, Failure>,
}

const fn command<A: Args>(
    name: &'static str,
    about: &'static str,
    run: fn(&Context, &ArgMatches) -> Result<ExitCode, Failure>,
) -> Command {
    Command { name, about, arguments: A::augment_args, run }
}

/// The subcommands.
pub(crate) const COMMANDS: [Command; 19] = [
    command::<checkpoint::Args>("checkpoint", "Save the processes of a container", |context, args| {
        checkpoint::run(context, &of(args)?)
    }),
    command::<create::Args>("create", "Create a container that waits for `start`", |context, args| {
        create::run(context, &of(args)?)
    }),
    command::<delete::Args>("delete", "Remove what a container that has ended left", |context, args| {
        delete::run(context, &of(args)?)
    }),
    command::<events::Args>(
        "events",
        "Print a container's use of resources, and what happens to it, as JSON lines",
        |context, args| events::run(context, &of(args)?),
    ),
    command::<exec::Args>("exec", "Run a further program in a running container", |context, args| {
        exec::run(context, &of(args)?)
    }),
    command::<features::Args>("features", "Print what this runtime knows", |_, _| features::run()),
    command::<kill::Args>("kill", "Send a signal to a container", |context, args| {
        kill::run(context, &of(args)?)
    }),
    command::<list::Args>("list", "Print the containers", |context, args| list::run(context, &of(args)?)),
    command::<pause::Args>("pause", "Stop all processes of a container", |context, args| {
        pause::pause(context, &of(args)?)
    }),
    command::<ps::Args>("ps", "Print the processes of a container", |context, args| {
        ps::run(context, &of(args)?)
    }),
    command::<restore::Args>("restore", "Start a container from a checkpoint", |context, args| {
        restore::run(context, &of(args)?)
    }),
    command::<pause::Args>("resume", "Let the processes of a paused container go on", |context, args| {
        pause::resume(context, &of(args)?)
    }),
    command::<run::Args>("run", "Create a container, start it, and wait for its end", |context, args| {
        run::run(context, &of(args)?)
    }),
    command::<spec::Args>("spec", "Write a config.json to begin with", |_, args| spec::run(&of(args)?)),
    command::<start::Args>("start", "Start a created container", |context, args| {
        start::run(context, &of(args)?)
    }),
    command::<state::Args>("state", "Print a container's state", |context, args| {
        state::run(context, &of(args)?)
    }),
    command::<update::Args>("update", "Change the limits of a container", |context, args| {
        update::run(context, &of(args)?)
    }),
    command::<shim::Args>("shim", "Hold the processes of a daemon's containers", |_, args| {
        shim::run(of(args)?)
    }),
    command::<init::Args>("init", "Run a program as process 1 of a container", |_, args| {
        init::run(&of(args)?)
    }),
];

/// The arguments of a command, as they were given.
fn of<A: FromArgMatches>(args: &ArgMatches) -> Result<A, clap::Error> {
    A::from_arg_matches(args)
}

/// The subcommand of this name.
pub(crate) fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name)
}

impl Command {
    /// For help, and to be parsed.
    pub(crate) fn describe(&self) -> clap::Command {
        clap::Command::new(self.name).about(self.about).defer(self.arguments)
    }
}

/// What the options before the subcommand say.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// Where the records of containers are.
    pub(crate) root: PathBuf,
    /// Control groups are made by systemd.
    pub(crate) systemd_cgroup: bool,
    /// A control group that nobody asks for may be missing; none to find out.
    pub(crate) rootless: Option<bool>,
    /// The program that makes and restores checkpoints.
    pub(crate) criu: PathBuf,
    /// Where errors are told.
    pub(crate) log: Log,
}

impl Context {
    /// The directory of a container, which may not exist.
    pub(crate) fn directory(&self, id: &str) -> Result<Directory, StateError> {
        Directory::new(&self.root, id)
    }
}

/// A container that no other command changes meanwhile.
struct Held {
    directory: Directory,
    record: Record,
    host: Host,
    lock: Lock,
}

impl Context {
    /// Holds a container to do what is `attempted`, which only one in one of these states can have done
    /// to it.
    fn hold(&self, id: &str, attempted: &'static str, states: &[Status]) -> Result<Held, Failure> {
        let directory = self.directory(id)?;
        let lock = directory.lock()?;
        let record = directory.read()?;
        let host = Host::probe()?;
        let status = directory.status(&record, &host);
        if !states.contains(&status) {
            return Err(StateError::WrongStatus { id: id.to_owned(), status, attempted }.into());
        }
        Ok(Held { directory, record, host, lock })
    }
}

/// Tells what went wrong and does not end the command.
fn warn<T: std::fmt::Display>(context: &Context, warnings: impl IntoIterator<Item = T>) {
    for warning in warnings {
        context.log.warning(&warning.to_string());
    }
}

/// Gives the container our own standard streams.
fn own_stdio<T>(with: impl FnOnce(&Stdio<'_>) -> T) -> T {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    with(&Stdio { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd() })
}

/// Writes a process id, whole or not at all.
fn write_pid_file(path: &Path, pid: u32) -> Result<(), Failure> {
    let failed = |error| format!("write {}: {error}", path.display());
    let name = path.file_name().ok_or_else(|| format!("{} is no name of a file", path.display()))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    let temporary = path.with_file_name(hidden);
    std::fs::write(&temporary, pid.to_string()).map_err(failed)?;
    Ok(std::fs::rename(&temporary, path).map_err(failed)?)
}
