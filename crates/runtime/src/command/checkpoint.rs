//! `ponton-runtime checkpoint` and `restore`

use std::path::Path;
use std::process::{Command, ExitCode};

use super::{Context, Failure};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Options as runc has them, and the container's id.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS AND ID")]
    rest: Vec<String>,
}

/// Saves a container's processes by CRIU, or starts some that were saved: told to be missing, with
/// what CRIU says of this kernel.
pub(crate) fn run(context: &Context, attempted: &str, args: &Args) -> Result<ExitCode, Failure> {
    let id = args.rest.last().ok_or_else(|| format!("{attempted}: a container's id is needed"))?;
    if attempted == "checkpoint" {
        context.directory(id)?.read()?;
    }
    check(&context.criu).map_err(|error| format!("{attempted} container {id:?}: {error}"))?;
    Err(format!("{attempted} container {id:?}: not implemented").into())
}

/// Asks CRIU whether it can work on this kernel.
fn check(criu: &Path) -> Result<(), Failure> {
    let name = criu.display();
    let output = Command::new(criu).arg("check").output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let why = said.lines().find(|line| line.contains("Error")).unwrap_or("no reason is given");
    Err(format!("{name} does not work on this kernel: {}", why.trim()).into())
}
