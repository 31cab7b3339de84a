//! The program `ponton-runtime`: the OCI runtime as a command, the shim, and the tiny init.

mod command;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs containers from OCI bundles, and serves the Ponton daemon.
#[derive(Parser)]
#[command(name = "ponton-runtime", version)]
struct Cli {
    /// Where the records of containers are.
    #[arg(long, value_name = "DIR", default_value = "/run/ponton-runtime")]
    root: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create a container, start it, and wait for its end.
    Run(command::run::Args),
    /// Create a container that waits for `start`.
    Create(command::run::Args),
    /// Start a created container.
    Start(command::start::Args),
    /// Run a further program in a running container.
    Exec(command::exec::Args),
    /// Print a container's state.
    State(command::state::Args),
    /// Send a signal to a container.
    Kill(command::kill::Args),
    /// Remove what a container that has ended left.
    Delete(command::delete::Args),
    /// Print the containers.
    List(command::list::Args),
    /// Write a config.json to begin with.
    Spec(command::spec::Args),
    /// Print what this runtime knows.
    Features,
    /// Hold the processes of a daemon's containers.
    Shim(command::shim::Args),
    /// Run a program as process 1 of a container.
    Init(command::init::Args),
}

fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    // The name under which it is mounted into containers.
    if args.first().is_some_and(|name| name.as_encoded_bytes().ends_with(b"docker-init")) {
        args.insert(1, "init".into());
    }
    // Before anything else is done, so that nothing is done twice.
    if starts_processes(&args)
        && let Err(error) = ponton_runtime::protect::protect(args.clone())
    {
        eprintln!("ponton-runtime: {error}");
        return ExitCode::FAILURE;
    }
    let Cli { root, command } = Cli::parse_from(args);
    let result = match command {
        Command::Run(args) => command::run::run(&root, &args),
        Command::Create(args) => command::run::create(&root, &args),
        Command::Start(args) => command::start::run(&root, &args),
        Command::Exec(args) => command::exec::run(&root, args),
        Command::State(args) => command::state::run(&root, &args),
        Command::Kill(args) => command::kill::run(&root, &args),
        Command::Delete(args) => command::delete::run(&root, &args),
        Command::List(args) => command::list::run(&root, &args),
        Command::Spec(args) => command::spec::run(&args),
        Command::Features => command::spec::features(),
        Command::Shim(args) => command::shim::run(args),
        Command::Init(args) => command::init::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("ponton-runtime: {error}");
        let known = error.downcast_ref::<ponton_runtime::Error>();
        ExitCode::from(known.map_or(1, |error| error.exit_code() as u8))
    })
}

/// Whether these may be the arguments of a command that starts processes in containers. A name of
/// one may also be the value of an option: to be protected in vain costs a moment.
fn starts_processes(args: &[OsString]) -> bool {
    const COMMANDS: [&str; 5] = ["run", "create", "exec", "restore", "shim"];
    args.get(1).is_some_and(|first| first != "init")
        && args.iter().any(|arg| COMMANDS.iter().any(|name| arg == name))
}
