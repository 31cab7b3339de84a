//! `ponton-runtime state`

use std::path::Path;
use std::process::ExitCode;

use ponton_runtime::host::Host;
use ponton_runtime::state::Directory;

use super::Failure;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The container's id.
    id: String,
}

pub(crate) fn run(root: &Path, args: &Args) -> Result<ExitCode, Failure> {
    let state = Directory::new(root, &args.id)?.state(&Host::probe()?)?;
    println!("{}", serde_json::to_string_pretty(&state)?);
    Ok(ExitCode::SUCCESS)
}
