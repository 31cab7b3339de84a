//! `ponton-runtime run`

use std::process::ExitCode;

use ponton_sys::signal;

use super::create::{self, Made, Until};
use super::{Context, Failure, delete, foreground};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Do not wait for its end.
    #[arg(short, long)]
    detach: bool,
    /// Do not delete the container when it has ended.
    #[arg(long)]
    keep: bool,
    /// Leave what the container's processes leave behind to process 1 of the host.
    #[arg(long)]
    no_subreaper: bool,
    #[command(flatten)]
    create: create::Args,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<ExitCode, Failure> {
    if args.detach {
        if let Some(made) = create::make(context, &args.create, Until::Detached)? {
            let Made { record, notify, .. } = made;
            notify.map_or(Ok(()), |notify| notify.wait_until_ready(&record))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    // Before the program starts, so that no signal is lost.
    let signals = signal::block()?;
    if !args.no_subreaper {
        let own = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(own))
            .map_err(|errno| format!("become the reaper of what the container leaves: {errno}"))?;
    }
    let Some(made) = create::make(context, &args.create, Until::Foreground)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let Made { directory, record, host, started, master, notify } = made;
    let exit = foreground::attend(&started, master, notify.as_ref(), &signals)?;
    if !args.keep {
        delete::clean_up(context, &directory, &record, &host)?;
    }
    Ok(ExitCode::from(u8::try_from(exit.code()).unwrap_or(u8::MAX)))
}
