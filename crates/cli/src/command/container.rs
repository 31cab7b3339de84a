//! `ponton container …`, and the same commands without the noun.

mod attach;
mod changes;
mod cp;
mod create;
mod exec;
mod explain;
mod foreground;
mod lifecycle;
pub(crate) mod list;
mod logs;
pub(crate) mod request;
mod run;
mod start;
mod stats;
mod streams;
mod top;
mod update;

use super::Command;

pub(crate) use attach::ATTACH;
pub(crate) use changes::{COMMIT, DIFF, EXPORT, check_target, save};
pub(crate) use cp::{CP, local};
pub(crate) use create::CREATE;
pub(crate) use exec::EXEC;
pub(crate) use explain::EXPLAIN;
pub(crate) use lifecycle::{KILL, PAUSE, PORT, RENAME, RESTART, RM, STOP, UNPAUSE, WAIT, copy};
pub(crate) use list::{FILTER, PS, filters};
pub(crate) use logs::LOGS;
pub(crate) use run::RUN;
pub(crate) use start::START;
pub(crate) use stats::STATS;
pub(crate) use top::TOP;
pub(crate) use update::UPDATE;

use super::inspect::CONTAINER_INSPECT;
use super::prune::CONTAINER_PRUNE;

/// The commands of the noun.
pub(crate) static COMMANDS: &[&Command] = &[
    &ATTACH,
    &COMMIT,
    &CP,
    &CREATE,
    &DIFF,
    &EXEC,
    &EXPLAIN,
    &EXPORT,
    &CONTAINER_INSPECT,
    &KILL,
    &LOGS,
    &list::LS,
    &PAUSE,
    &PORT,
    &CONTAINER_PRUNE,
    &RENAME,
    &RESTART,
    &lifecycle::CONTAINER_RM,
    &RUN,
    &START,
    &STATS,
    &STOP,
    &TOP,
    &UNPAUSE,
    &UPDATE,
    &WAIT,
];
