//! The program `ponton-runtime`: the OCI runtime as a command, the shim, and the tiny init.

mod command;
mod log;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser};

use command::{COMMANDS, Context};
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
    let matches = match command_line(&args).try_get_matches_from(args) {
        Ok(matches) => matches,
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
    run(&matches)
}

fn run(matches: &ArgMatches) -> ExitCode {
    let named = matches.subcommand().and_then(|(name, args)| Some((command::find(name)?, args)));
    let (Ok(cli), Some((command, args))) = (Cli::from_arg_matches(matches), named) else {
        eprintln!("ponton-runtime: the command line was not understood");
        return ExitCode::FAILURE;
    };
    let log = Log { file: cli.log, is_json: cli.log_format == "json", debug: cli.debug };
    let context = Context {
        root: cli.root,
        systemd_cgroup: cli.systemd_cgroup,
        rootless: cli.rootless.parse().ok(),
        criu: cli.criu,
        log,
    };
    let failed = if command.name == "exec" { EXEC_FAILED } else { 1 };
    (command.run)(&context, args).unwrap_or_else(|error| {
        context.log.error(&error.to_string());
        let known = error.downcast_ref::<ponton_runtime::Error>();
        ExitCode::from(known.map_or(failed, |error| error.exit_code() as u8))
    })
}

/// What may be on the command line. Only the commands that these arguments may mean are put together:
/// that of all costs more than many a command.
fn command_line(args: &[OsString]) -> clap::Command {
    let is_there = |name: &str| args.iter().any(|arg| arg == name);
    let is_meant = |command: &&command::Command| is_there(command.name);
    let all =
        ["help", "--help", "-h"].into_iter().any(is_there) || !COMMANDS.iter().any(|one| is_meant(&one));
    let commands = COMMANDS.iter().filter(|command| all || is_meant(command));
    Cli::command()
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(commands.map(command::Command::describe))
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
