//! `ponton-runtime kill`

use std::os::fd::AsFd;
use std::process::ExitCode;

use ponton_cgroup::Cgroup;
use ponton_runtime::host::Host;
use ponton_runtime::state;
use ponton_sys::pidfd;
use rustix::io::Errno;

use super::{Context, Failure};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Send it to all processes of the container.
    #[arg(short, long)]
    all: bool,
    /// The container's id.
    id: String,
    /// The signal, by name or number.
    #[arg(default_value = "TERM")]
    signal: String,
}

const KILL: i32 = 9;

pub(crate) fn run(context: &Context, args: &Args) -> Result<ExitCode, Failure> {
    let signal = number(&args.signal).ok_or_else(|| format!("unknown signal {:?}", args.signal))?;
    let record = context.directory(&args.id)?.read()?;
    let host = Host::probe()?;
    let cgroup = record.cgroup.as_deref().map(|path| Cgroup::new(&host.cgroup, path));
    match &cgroup {
        Some(cgroup) if args.all => kill_all(cgroup, signal)?,
        _ => state::kill(&record, signal)?,
    }
    if let Some(cgroup) = cgroup.filter(|_| signal == KILL) {
        // On v1 a stopped process does not even end before it goes on.
        if cgroup.is_frozen()? {
            cgroup.thaw()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends a signal to every process of the group.
fn kill_all(cgroup: &Cgroup, signal: i32) -> Result<(), Failure> {
    if signal == KILL {
        return Ok(cgroup.kill_all()?);
    }
    for pid in cgroup.pids()? {
        let sent = pidfd::open(pid).and_then(|process| pidfd::send_signal(process.as_fd(), signal));
        match sent {
            // It has ended by itself.
            Err(error) if error.errno() == Some(Errno::SRCH.raw_os_error()) => {}
            other => other?,
        }
    }
    Ok(())
}

/// `TERM`, `SIGTERM` or `15`; `RTMIN+1` or `SIGRTMAX-2`.
fn number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let name = text.to_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        return realtime(RTMIN, offset);
    }
    if let Some(offset) = name.strip_prefix("RTMAX") {
        return realtime(RTMAX, offset);
    }
    let other_names = [("IOT", 6), ("CLD", 17), ("POLL", 29)];
    let other = other_names.into_iter().find(|(known, _)| *known == name).map(|(_, number)| number);
    other.or_else(|| NAMES.iter().position(|known| *known == name).map(|index| index as i32 + 1))
}

/// As glibc numbers them: the kernel's first two are its own.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

fn realtime(from: i32, offset: &str) -> Option<i32> {
    let offset: i32 = if offset.is_empty() { 0 } else { offset.parse().ok()? };
    Some(from.checked_add(offset)?).filter(|number| (RTMIN..=RTMAX).contains(number))
}

/// The classic signals by number, from 1 (signal(7)).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn signals_have_names_and_numbers() {
        assert_eq!(["TERM", "SIGTERM", "sigterm", "15"].map(number), [Some(15); 4]);
        assert_eq!(
            [number("RTMIN"), number("SIGRTMIN+3"), number("RTMAX-1")],
            [Some(34), Some(37), Some(63)]
        );
        assert_eq!(["0", "65", "-1", "FOO", "", "RTMAX+1", "RTMIN+x", "SIG"].map(number), [None; 8]);
    }
}
