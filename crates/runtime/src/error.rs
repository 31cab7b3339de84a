use ponton_sys as sys;

use crate::plan::PlanError;

/// Why a process could not be started. The exit code that Docker gives for it is
/// [`exit_code`](Self::exit_code).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The specification makes no sense, or asks for what is not there.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The program does not exist in the container.
    #[error("{message}")]
    CommandNotFound {
        /// As Docker says it, `exec: "x": executable file not found in $PATH`.
        message: String,
    },
    /// The program is there, but cannot be executed.
    #[error("{message}")]
    CommandNotExecutable {
        /// As Docker says it, `exec: "/etc": is a directory`.
        message: String,
    },
    /// The user or group does not exist in the container, or the container is not there.
    #[error("{message}")]
    NotFound {
        /// As Docker says it, `unable to find user x: no matching entries in passwd file`.
        message: String,
    },
    /// A hook failed.
    #[error("{hook}: {message}")]
    Hook {
        /// Which, `hooks.createRuntime[0] /usr/bin/hook`.
        hook: String,
        /// How it ended, and what it wrote.
        message: String,
    },
    /// The kernel refused a step of the plan.
    #[error("{step}: {source}")]
    Step {
        /// The step, as it is printed in the plan without its details.
        step: String,
        /// The kernel's answer.
        source: sys::Error,
    },
}

impl Error {
    /// The exit code of a command line that failed with this: 127, 126 or 125.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::CommandNotFound { .. } => 127,
            Self::CommandNotExecutable { .. } => 126,
            Self::Plan(_) | Self::NotFound { .. } | Self::Hook { .. } | Self::Step { .. } => 125,
        }
    }

    /// The step of the plan that failed, where it was one.
    pub fn step(&self) -> Option<&str> {
        match self {
            Self::Step { step, .. } => Some(step),
            _ => None,
        }
    }
}
