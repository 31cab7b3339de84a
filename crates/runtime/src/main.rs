//! The program `ponton-runtime`: the OCI runtime as a command, the shim, and the tiny init.

mod command;
mod log;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use command::{Context, Failure};
use log::Log;

/// Runs containers from OCI bundles, and serves the Ponton daemon.
#[derive(Parser)]
#[command(name = "ponton-runtime", version)]
struct Cli {
    /// Where the records of containers are; should be on a tmpfs. Without root's rights it is below
    /// XDG_RUNTIME_DIR.
    #[arg(long, value_name = "DIR", default_value_os_t = default_root())]
    root: PathBuf,
    /// Write what fails to this file too.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// The format of the log.
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    log_format: String,
    /// Write to the log what is done, too.
    #[arg(long)]
    debug: bool,
    /// The program that makes and restores checkpoints.
    #[arg(long, value_name = "PROGRAM", default_value = "criu")]
    criu: PathBuf,
    /// Have control groups made by systemd: cgroupsPath is slice:prefix:name then.
    #[arg(long)]
    systemd_cgroup: bool,
    /// Whether a control group that nobody asks for may be missing where it cannot be made: true,
    /// false, or auto for whether we have no privileges.
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = ["true", "false", "auto"])]
    rootless: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Save the processes of a container.
    Checkpoint(command::checkpoint::Args),
    /// Create a container that waits for `start`.
    Create(command::create::Args),
    /// Remove what a container that has ended left.
    Delete(command::delete::Args),
    /// Print a container's use of resources, and what happens to it, as JSON lines.
    Events(command::events::Args),
    /// Run a further program in a running container.
    Exec(command::exec::Args),
    /// Print what this runtime knows.
    Features,
    /// Send a signal to a container.
    Kill(command::kill::Args),
    /// Print the containers.
    List(command::list::Args),
    /// Stop all processes of a container.
    Pause(command::pause::Args),
    /// Print the processes of a container.
    Ps(command::ps::Args),
    /// Start a container from a checkpoint.
    Restore(command::restore::Args),
    /// Let the processes of a paused container go on.
    Resume(command::pause::Args),
    /// Create a container, start it, and wait for its end.
    Run(command::run::Args),
    /// Write a config.json to begin with.
    Spec(command::spec::Args),
    /// Start a created container.
    Start(command::start::Args),
    /// Print a container's state.
    State(command::state::Args),
    /// Change the limits of a container.
    Update(command::update::Args),
    /// Hold the processes of a daemon's containers.
    Shim(command::shim::Args),
    /// Run a program as process 1 of a container.
    Init(command::init::Args),
}

/// Where records are kept by default: where nobody else can write, and gone after a boot.
fn default_root() -> PathBuf {
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| !rustix::process::geteuid().is_root());
    own.map_or_else(|| "/run/ponton-runtime".into(), |own| PathBuf::from(own).join("ponton-runtime"))
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
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            if error.use_stderr() {
                eprintln!("ponton-runtime: {}", usage(&error));
                return ExitCode::FAILURE;
            }
            // Help or the version; nobody may be there to read it.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
    };
    let log = Log { file: cli.log, is_json: cli.log_format == "json", debug: cli.debug };
    let context = Context {
        root: cli.root,
        systemd_cgroup: cli.systemd_cgroup,
        rootless: cli.rootless.parse().ok(),
        criu: cli.criu,
        log,
    };
    let failed = if matches!(cli.command, Command::Exec(_)) { EXEC_FAILED } else { 1 };
    run(&context, cli.command).unwrap_or_else(|error| {
        context.log.error(&error.to_string());
        let known = error.downcast_ref::<ponton_runtime::Error>();
        ExitCode::from(known.map_or(failed, |error| error.exit_code() as u8))
    })
}

/// Whether these may be the arguments of a command that starts processes in containers. A name of
/// one may also be the value of an option: to be protected in vain costs a moment.
fn starts_processes(args: &[OsString]) -> bool {
    const COMMANDS: [&str; 5] = ["run", "create", "exec", "restore", "shim"];
    args.get(1).is_some_and(|first| first != "init")
        && args.iter().any(|arg| COMMANDS.iter().any(|name| arg == name))
}

/// What is wrong with a command line, in one line.
fn usage(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let what = text.split("\n\n").next().unwrap_or_default();
    let what: Vec<&str> = what.trim_start_matches("error:").split_whitespace().collect();
    format!("{} (--help tells more)", what.join(" "))
}

/// What `exec` ends with when it was not to be, as runc.
const EXEC_FAILED: u8 = 255;

fn run(context: &Context, command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Checkpoint(args) => command::checkpoint::run(context, &args),
        Command::Create(args) => command::create::run(context, &args),
        Command::Delete(args) => command::delete::run(context, &args),
        Command::Events(args) => command::events::run(context, &args),
        Command::Exec(args) => command::exec::run(context, &args),
        Command::Features => command::features::run(),
        Command::Kill(args) => command::kill::run(context, &args),
        Command::List(args) => command::list::run(context, &args),
        Command::Pause(args) => command::pause::pause(context, &args),
        Command::Ps(args) => command::ps::run(context, &args),
        Command::Restore(args) => command::restore::run(context, &args),
        Command::Resume(args) => command::pause::resume(context, &args),
        Command::Run(args) => command::run::run(context, &args),
        Command::Spec(args) => command::spec::run(&args),
        Command::Start(args) => command::start::run(context, &args),
        Command::State(args) => command::state::run(context, &args),
        Command::Update(args) => command::update::run(context, &args),
        Command::Shim(args) => command::shim::run(args),
        Command::Init(args) => command::init::run(&args),
    }
}
