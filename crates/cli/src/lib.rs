//! The command line of Ponton: docker's commands over the Engine API.
//!
//! One table ([`command`]) says which commands there are and which flags they take; parsing, help and shell
//! completion all read it. A command is a function from [`Invocation`](command::Invocation) to an exit code
//! that speaks to the daemon through the client alone.
//!
//! *Invariant*: nothing here knows how the daemon does its work, and nothing is asked of the daemon that the
//! command does not need: `run` is create, attach, wait, start.

mod advice;
mod command;
mod completion;
mod config;
mod context;
mod credentials;
mod error;
pub mod flag;
mod format;
mod note;
mod output;
mod progress;
mod terminal;
mod time;
mod value;

use std::process::ExitCode;

use error::Error;

pub use context::DEFAULT_HOST;

/// Runs the command line (without the program's name).
pub fn main(words: &[String]) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => {
            output::complain(&format!("start: {source}"));
            return ExitCode::FAILURE;
        }
    };
    let code = match runtime.block_on(command::dispatch(words)) {
        Ok(code) => code,
        Err(error) => {
            if !matches!(error, Error::Exit(_)) {
                output::complain(&error.to_string());
            }
            error.code()
        }
    };
    // A blocked read of the standard input must not hold the program up.
    runtime.shutdown_background();
    ExitCode::from(code)
}
