//! `ponton-runtime init`

use std::error::Error;
use std::ffi::OsString;
use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Box<dyn Error>> {
    let Some((program, args)) = args.command.split_first() else { return Err("no program".into()) };
    let code = ponton_runtime::init::run(program, args)?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}
