//! `ponton-runtime state`

use std::collections::HashMap;
use std::process::ExitCode;

use ponton_runtime::host::Host;
use ponton_runtime::state::{Directory, StateError, Summary};

use super::{Context, Failure};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The container's id.
    id: String,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<ExitCode, Failure> {
    let state = summary(&context.directory(&args.id)?, &Host::probe()?, &mut Owners::default())?;
    println!("{}", serde_json::to_string_pretty(&state)?);
    Ok(ExitCode::SUCCESS)
}

/// The state of a container.
pub(super) fn summary(
    directory: &Directory,
    host: &Host,
    owners: &mut Owners,
) -> Result<Summary, StateError> {
    let record = directory.read()?;
    let status = directory.status(&record, host);
    let owner = owners.name(record.uid);
    Ok(record.summary(status, owner))
}

/// Names of the host's users.
#[derive(Default)]
pub(super) struct Owners {
    names: Option<HashMap<u32, String>>,
}

impl Owners {
    /// The name of a user, or the number of one that has none.
    fn name(&mut self, uid: u32) -> String {
        let names = self.names.get_or_insert_with(read_names);
        names.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }
}

fn read_names() -> HashMap<u32, String> {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        Some((fields.nth(1)?.parse().ok()?, name))
    };
    // The first line of a number is its name.
    text.lines().rev().filter_map(entry).collect()
}
