//! `ponton-runtime kill`

use std::path::Path;
use std::process::ExitCode;

use ponton_cgroup::Cgroup;
use ponton_runtime::host::Host;
use ponton_runtime::state::{self, Directory};

use super::Failure;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kill all processes of the container; only with KILL.
    #[arg(short, long)]
    all: bool,
    /// The container's id.
    id: String,
    /// The signal, by name or number.
    #[arg(default_value = "TERM")]
    signal: String,
}

pub(crate) fn run(root: &Path, args: &Args) -> Result<ExitCode, Failure> {
    let signal = number(&args.signal).ok_or_else(|| format!("{:?} is no signal", args.signal))?;
    let record = Directory::new(root, &args.id)?.read()?;
    match &record.cgroup {
        Some(path) if args.all && signal == 9 => Cgroup::new(&Host::probe()?.cgroup, path).kill_all()?,
        _ if args.all => return Err("kill --all: not implemented for signals other than KILL".into()),
        _ => state::kill(&record, signal)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `TERM`, `SIGTERM` or `15`.
fn number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = text.to_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let index = NAMES.iter().position(|known| *known == name)?;
    Some(index as i32 + 1)
}

/// The classic signals by number, from 1 (signal(7)).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
