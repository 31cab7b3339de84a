//! `ponton-runtime list`

use std::path::Path;
use std::process::ExitCode;

use ponton_oci::runtime::State;
use ponton_runtime::host::Host;
use ponton_runtime::state::{Directory, StateError};

use super::Failure;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// `table` or `json`.
    #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
    format: String,
    /// Print ids only.
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(root: &Path, args: &Args) -> Result<ExitCode, Failure> {
    let host = Host::probe()?;
    let states: Result<Vec<State>, StateError> = Directory::list(root)?
        .iter()
        .map(|id| Directory::new(root, id)?.state(&host))
        // One that was deleted meanwhile is not there.
        .filter(|state| !matches!(state, Err(StateError::NotFound(_))))
        .collect();
    let states = states?;
    if args.quiet {
        for state in &states {
            println!("{}", state.id);
        }
    } else if args.format == "json" {
        println!("{}", serde_json::to_string(&states)?);
    } else {
        println!("{:<24} {:<8} {:<10} BUNDLE", "ID", "PID", "STATUS");
        for state in states {
            let status = format!("{:?}", state.status).to_lowercase();
            println!("{:<24} {:<8} {status:<10} {}", state.id, state.pid.unwrap_or(0), state.bundle);
        }
    }
    Ok(ExitCode::SUCCESS)
}
