//! CRIU, the program that saves processes and starts them again: what `checkpoint` and `restore` tell
//! it in common.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ponton_oci::runtime::{NamespaceType, Spec};

use super::Failure;

#[derive(clap::Args)]
#[group(skip)]
pub(super) struct Options {
    /// Where the images are.
    #[arg(long, value_name = "DIR", default_value = "checkpoint")]
    pub(super) image_path: PathBuf,
    /// Where the logs go, if not to the images.
    #[arg(long, value_name = "DIR")]
    work_path: Option<PathBuf>,
    /// Established TCP connections may be open.
    #[arg(long)]
    tcp_established: bool,
    /// Unix sockets may be connected to the outside.
    #[arg(long)]
    ext_unix_sk: bool,
    /// The session and the terminal may be of the outside.
    #[arg(long)]
    shell_job: bool,
    /// Files may be locked.
    #[arg(long)]
    file_locks: bool,
    /// Bring memory as it is asked for (not implemented).
    #[arg(long)]
    lazy_pages: bool,
    /// What to keep of control groups.
    #[arg(long, value_name = "MODE", default_value = "soft", value_parser = ["soft", "full", "strict"])]
    manage_cgroups_mode: String,
    /// Make this kind of namespace empty: network.
    #[arg(long, value_name = "KIND", value_parser = ["network"])]
    empty_ns: Option<String>,
    /// Keep each page once.
    #[arg(long)]
    auto_dedup: bool,
}

/// A command line that is ready to be run.
pub(super) struct Criu {
    pub(super) command: Command,
    /// Absolute, as everything that it is told.
    pub(super) images: PathBuf,
    attempted: &'static str,
    log: PathBuf,
}

/// Of the images: what the standard streams were, by CRIU's names (as runc has it).
const DESCRIPTORS: &str = "descriptors.json";

impl Options {
    /// Begins a command line.
    pub(super) fn begin(&self, program: &Path, attempted: &'static str) -> Result<Criu, Failure> {
        if self.lazy_pages {
            return Err("--lazy-pages: not implemented".into());
        }
        check(program)?;
        for path in [Some(&self.image_path), self.work_path.as_ref()].into_iter().flatten() {
            if attempted != "restore" {
                std::fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))?;
            }
        }
        let images = absolute(&self.image_path)?;
        let work = self.work_path.as_deref().map_or_else(|| Ok(images.clone()), absolute)?;
        let log = work.join(format!("{attempted}.log"));
        let mut command = Command::new(program);
        command.arg(attempted).arg("-v4").arg(format!("--manage-cgroups={}", self.manage_cgroups_mode));
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
        command.args(self.empty_ns.iter().flat_map(|_| ["--empty-ns", "net"]));
        Ok(Criu { command, images, attempted, log })
    }
}

impl Criu {
    /// Runs it to its end.
    pub(super) fn run(mut self) -> Result<(), Failure> {
        let program = self.command.get_program().to_string_lossy().into_owned();
        let output = self.command.output().map_err(|error| format!("{program}: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        // Without a log it is the command line that is wrong.
        let said = std::fs::read(&self.log).unwrap_or(output.stderr);
        let why = first_error(&said);
        Err(format!("{program} {}: {why} (more in {})", self.attempted, self.log.display()).into())
    }

    /// Keeps what the standard streams were.
    pub(super) fn write_descriptors(&self, names: &[String]) -> Result<(), Failure> {
        let path = self.images.join(DESCRIPTORS);
        Ok(std::fs::write(&path, serde_json::to_vec(names)?)
            .map_err(|error| format!("write {}: {error}", path.display()))?)
    }

    /// What the standard streams were.
    pub(super) fn read_descriptors(&self) -> Result<Vec<String>, Failure> {
        let path = self.images.join(DESCRIPTORS);
        let json = ponton_runtime::state::read_file(&path)?;
        Ok(serde_json::from_slice(&json).map_err(|error| format!("{}: {error}", path.display()))?)
    }
}

/// A namespace that a container has joined.
pub(super) struct Joined<'a> {
    pub(super) path: &'a str,
    /// CRIU's word for its kind.
    pub(super) kind: &'static str,
    /// The name that the images have for it (as runc has it).
    pub(super) name: &'static str,
}

/// The namespaces that a container has joined.
pub(super) fn joined(spec: &Spec) -> Result<Vec<Joined<'_>>, Failure> {
    let all = spec.linux.iter().flat_map(|linux| &linux.namespaces);
    let joined = all.filter_map(|namespace| Some((namespace.r#type, namespace.path.as_deref()?)));
    let named = joined.map(|(kind, path)| match kind {
        NamespaceType::Network => Ok(Joined { path, kind: "net", name: "extRootNetNS" }),
        NamespaceType::Pid => Ok(Joined { path, kind: "pid", name: "extRootPidNS" }),
        other => Err(format!("linux.namespaces: a joined {other:?} namespace cannot be saved").into()),
    });
    named.collect()
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::fs::canonicalize(path).map_err(|error| format!("{}: {error}", path.display()).into())
}

fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(name).exists())
}

/// Asks CRIU whether it can work on this kernel.
fn check(criu: &Path) -> Result<(), Failure> {
    let name = criu.display();
    let output = Command::new(criu).arg("check").stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{name} does not work on this kernel: {}", first_error(&output.stderr)).into())
}

/// The first error of a log, which is the cause of the others.
fn first_error(log: &[u8]) -> String {
    let log = String::from_utf8_lossy(log);
    let error = log.lines().find(|line| line.contains("Error"));
    error.unwrap_or("no reason is given").trim().to_owned()
}
