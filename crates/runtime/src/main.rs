//! The program `ponton-runtime`: the OCI runtime as a command, the shim, and the tiny init.

mod command;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs containers from OCI bundles, and serves the Ponton daemon.
#[derive(Parser)]
#[command(name = "ponton-runtime", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
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
    let result = match Cli::parse_from(args).command {
        Command::Shim(args) => command::shim::run(args),
        Command::Init(args) => command::init::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("ponton-runtime: {error}");
        ExitCode::FAILURE
    })
}
