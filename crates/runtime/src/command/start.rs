//! `ponton-runtime start`

use std::path::Path;
use std::process::ExitCode;

use ponton_oci::runtime::Status;
use ponton_runtime::host::Host;
use ponton_runtime::state::{Directory, StateError};

use super::Failure;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The container's id.
    id: String,
}

pub(crate) fn run(root: &Path, args: &Args) -> Result<ExitCode, Failure> {
    let directory = Directory::new(root, &args.id)?;
    let record = directory.read()?;
    let status = directory.status(&record, &Host::probe()?);
    if status != Status::Created {
        return Err(StateError::WrongStatus { id: args.id.clone(), status }.into());
    }
    directory.open_gate()?;
    Ok(ExitCode::SUCCESS)
}
