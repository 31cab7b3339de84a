//! CRIU, the program that saves the processes of a container and starts them again, by its command line.
//!
//! ```text
//!   dump     what is the host's is found in /proc  ──►  --external …     criu dump     ──►  images
//!   restore  what is the host's is told by the plan ──►  --external …     criu restore  ◄──  images
//!                                                        --inherit-fd …       └─► our child, in the plan's group
//! ```
//!
//! The images have CRIU's files, and one of ours with what the standard streams were.

mod dump;
mod restore;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ponton_oci::runtime::NamespaceType;
use serde::{Deserialize, Serialize};

use crate::plan::{Action, HookKind, Plan};

pub use dump::Dump;
pub use restore::{Labels, restore};

/// Of the images: what the standard streams were, by CRIU's names (as runc has it).
const DESCRIPTORS: &str = "descriptors.json";
/// The end of a log that an error shows, in lines.
const LOG_LINES: usize = 4;
/// Where programs are when nobody says so.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why processes could not be saved or started again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be used.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// CRIU cannot work here.
    #[error("{} does not work on this kernel: {why}", program.display())]
    Unusable {
        /// CRIU.
        program: PathBuf,
        /// What it says.
        why: String,
    },
    /// CRIU could not do it.
    #[error("{} {attempted}: {why} (more in {})", program.display(), log.display())]
    Failed {
        /// CRIU.
        program: PathBuf,
        /// Its command.
        attempted: &'static str,
        /// What its log says.
        why: String,
        /// Its log.
        log: PathBuf,
    },
    /// Not done here, whatever CRIU could do.
    #[error("{0}: not implemented")]
    Unsupported(String),
    /// What the container is to have could not be opened.
    #[error(transparent)]
    Open(#[from] crate::Error),
    /// The kernel refused something.
    #[error(transparent)]
    System(#[from] ponton_sys::Error),
}

impl Error {
    fn io<'a>(operation: &'static str, path: &'a Path) -> impl Fn(io::Error) -> Self + 'a {
        move |source| Self::Io { operation, path: path.to_owned(), source }
    }
}

/// What CRIU is told alike when it saves and when it restores.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Options {
    /// CRIU: a path, or a name that is looked up in `PATH`.
    pub program: PathBuf,
    /// The directory of the images; a dump makes it.
    pub images: PathBuf,
    /// Where the logs go, if not to the images.
    pub work: Option<PathBuf>,
    /// Established TCP connections may be open.
    #[serde(default)]
    pub tcp_established: bool,
    /// Unix sockets may be connected to the outside.
    #[serde(default)]
    pub ext_unix_sk: bool,
    /// The session and the terminal may be of the outside.
    #[serde(default)]
    pub shell_job: bool,
    /// Files may be locked.
    #[serde(default)]
    pub file_locks: bool,
    /// Each page is kept once.
    #[serde(default)]
    pub auto_dedup: bool,
    /// The network is made empty.
    #[serde(default)]
    pub empty_network: bool,
    /// What to keep of control groups: `soft`, `full`, `strict`.
    pub manage_cgroups: String,
}

impl Options {
    /// The defaults.
    pub fn new(program: impl Into<PathBuf>, images: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            images: images.into(),
            work: None,
            tcp_established: false,
            ext_unix_sk: false,
            shell_job: false,
            file_locks: false,
            auto_dedup: false,
            empty_network: false,
            manage_cgroups: "soft".to_owned(),
        }
    }

    /// Begins a command line.
    fn begin(&self, attempted: &'static str) -> Result<Criu, Error> {
        let images = absolute(&self.images)?;
        let work = self.work.as_deref().map_or_else(|| Ok(images.clone()), absolute)?;
        let log = work.join(format!("{attempted}.log"));
        // One of an earlier attempt must not be taken for this one's.
        let _ = fs::remove_file(&log);
        let mut command = Command::new(&self.program);
        command.env("PATH", search_path());
        command.arg(attempted).arg("-v4").arg(format!("--manage-cgroups={}", self.manage_cgroups));
        command.arg("--images-dir").arg(&images).arg("--work-dir").arg(work).arg("--log-file").arg(&log);
        let flags = [
            (self.tcp_established, "--tcp-established"),
            (self.ext_unix_sk, "--ext-unix-sk"),
            (self.shell_job, "--shell-job"),
            (self.file_locks, "--file-locks"),
            (self.auto_dedup, "--auto-dedup"),
        ];
        command.args(flags.iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag));
        // What runc always asks for.
        command.args(["--link-remap", "--evasive-devices", "--enable-external-masters"]);
        if !has_program("iptables-restore") {
            command.args(["--network-lock", "nftables"]);
        }
        if self.empty_network {
            command.args(["--empty-ns", "net"]);
        }
        Ok(Criu { command, images, attempted, log })
    }
}

/// A command line that is ready to be run.
struct Criu {
    command: Command,
    /// Absolute, as everything that it is told.
    images: PathBuf,
    attempted: &'static str,
    log: PathBuf,
}

impl Criu {
    /// What its failure is; `said` is what it wrote beside its log.
    fn failure(&self, said: &[u8]) -> Error {
        // Without a log it is the command line that is wrong.
        let log = fs::read(&self.log).unwrap_or_default();
        let why = errors(if log.is_empty() { said } else { &log });
        let program = PathBuf::from(self.command.get_program());
        Error::Failed { program, attempted: self.attempted, why, log: self.log.clone() }
    }
}

/// What is not started again as its plan says, and so not saved either.
pub fn refuse(plan: &Plan) -> Result<(), Error> {
    let unsupported = |what: String| Err(Error::Unsupported(what));
    if plan.process().is_some_and(|process| process.terminal) {
        return unsupported("checkpoint of a container with a terminal".to_owned());
    }
    let kinds = [HookKind::Prestart, HookKind::CreateRuntime];
    if let Some(kind) = kinds.into_iter().find(|kind| !plan.hooks(*kind).is_empty()) {
        return unsupported(format!("restore: hooks.{}", kind.name()));
    }
    if plan.rdt().is_some() {
        return unsupported("restore: linux.intelRdt".to_owned());
    }
    for step in &plan.steps {
        if let Action::Mount(mount) | Action::Rootfs(mount) = &step.action
            && mount.id_map.is_some()
        {
            return unsupported(format!("restore: the mapped ids of the mount on {}", mount.target));
        }
    }
    plan.joined().into_iter().try_for_each(|kind| external_namespace(kind).map(drop))
}

/// The name that the images have for a joined namespace (as runc has it).
fn external_namespace(kind: NamespaceType) -> Result<&'static str, Error> {
    match kind {
        NamespaceType::Network => Ok("extRootNetNS"),
        NamespaceType::Pid => Ok("extRootPidNS"),
        other => Err(Error::Unsupported(format!("checkpoint of a joined {other} namespace"))),
    }
}

/// Asks CRIU whether it can work on this kernel: to be done before anything else.
pub fn check(program: &Path) -> Result<(), Error> {
    let output = Command::new(program).arg("check").env("PATH", search_path()).stdin(Stdio::null()).output();
    let output = output.map_err(Error::io("run", program))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let why = said.lines().find(|line| line.contains("Error")).unwrap_or("no reason is given");
    Err(Error::Unusable { program: program.to_owned(), why: why.trim().to_owned() })
}

/// A log's first error, which is the cause of the others, and its end.
fn errors(log: &[u8]) -> String {
    let log = String::from_utf8_lossy(log);
    let lines: Vec<&str> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let end = lines.len().saturating_sub(LOG_LINES);
    let first = lines.iter().position(|line| line.contains("Error"));
    let before = first.filter(|first| *first < end).map(|first| lines[first]);
    let told: Vec<&str> = before.into_iter().chain(lines[end..].iter().copied()).collect();
    if told.is_empty() { "no reason is given".to_owned() } else { told.join("; ") }
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    fs::canonicalize(path).map_err(Error::io("find", path))
}

fn search_path() -> OsString {
    std::env::var_os("PATH").unwrap_or_else(|| PATH.into())
}

/// Where a program is in `PATH`.
pub fn find_program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&search_path()).map(|directory| directory.join(name)).find(|path| path.is_file())
}

fn has_program(name: &str) -> bool {
    find_program(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_its_cause_and_the_end_of_the_log() {
        let log =
            b"(0.1) begin\n(0.2) Error (a.c:1): cause\n(0.3) b\n(0.4) c\n(0.5) d\n(0.6) Error: FAILED.\n";
        let told = "(0.2) Error (a.c:1): cause; (0.3) b; (0.4) c; (0.5) d; (0.6) Error: FAILED.";
        assert_eq!(errors(log), told);
        assert_eq!(errors(b"one\n\nError: two\n"), "one; Error: two");
        assert_eq!(errors(b""), "no reason is given");
    }
}
