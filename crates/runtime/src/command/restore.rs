//! `ponton-runtime restore`

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use ponton_cgroup::{Cgroup, CgroupPlan};
use ponton_oci::runtime::{Spec, Status};
use ponton_runtime::apply::Started;
use ponton_runtime::host::Host;
use ponton_runtime::plan::{Action, HookKind, MountPlan, Plan, Source};
use ponton_runtime::state::{Directory, Later, Record};
use ponton_sys::namespace::{self, Kinds};
use ponton_sys::path::Root;
use ponton_sys::{pidfd, signal};
use rustix::io::FdFlags;
use rustix::mount::{MountPropagationFlags, UnmountFlags};

use super::create::{self, Prepared};
use super::criu::{self, Criu, Joined};
use super::inherit::Inherited;
use super::{Context, Failure, delete, foreground, warn, write_pid_file};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    criu: criu::Options,
    /// The directory with config.json and the root file system.
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// Send the master side of the terminal to whoever listens on this unix socket (not implemented).
    #[arg(long, value_name = "PATH")]
    console_socket: Option<PathBuf>,
    /// Do not wait for its end.
    #[arg(short, long)]
    detach: bool,
    /// Write the process id of the first process to this file.
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Leave what the container's processes leave behind to process 1 of the host.
    #[arg(long)]
    no_subreaper: bool,
    /// Without effect: CRIU changes the root as it can.
    #[arg(long)]
    no_pivot: bool,
    /// The label of the processes.
    #[arg(long, value_name = "TYPE:NAME")]
    lsm_profile: Option<String>,
    /// The label of the mounts.
    #[arg(long, value_name = "LABEL")]
    lsm_mount_context: Option<String>,
    /// The container's id.
    id: String,
}

/// Starts a container from its images.
pub(crate) fn run(context: &Context, args: &Args) -> Result<ExitCode, Failure> {
    let create = create::Args::of_restore(args.bundle.clone(), args.id.clone());
    let prepared = create::prepare(context, &create, Inherited::default())?;
    refuse(args, &prepared)?;
    let criu = args.criu.begin(&context.criu, "restore")?;
    let signals = if args.detach { None } else { Some(signal::block()?) };
    if !args.detach && !args.no_subreaper {
        let own = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(own))
            .map_err(|errno| format!("become the reaper of what the container leaves: {errno}"))?;
    }
    let (directory, host) = (prepared.directory.clone(), prepared.host.clone());
    let lock = directory.create()?;
    let (record, started) = match build(args, prepared, criu) {
        Ok(built) => built,
        Err(error) => return Err(create::undo(&directory, lock, error)),
    };
    drop(lock);
    warn(context, directory.read_later()?.started(&record.state(Status::Running)));
    let Some(signals) = signals else { return Ok(ExitCode::SUCCESS) };
    let exit = foreground::attend(&started, None, None, &signals)?;
    delete::clean_up(context, &directory, &record, &host)?;
    Ok(ExitCode::from(u8::try_from(exit.code()).unwrap_or(u8::MAX)))
}

/// Says no to what would not be as the spec says.
fn refuse(args: &Args, prepared: &Prepared) -> Result<(), Failure> {
    let plan = &prepared.plan;
    let terminal = args.console_socket.is_some() || plan.process().is_some_and(|process| process.terminal);
    let kinds = [HookKind::Prestart, HookKind::CreateRuntime];
    let hooks = kinds.into_iter().find(|kind| !plan.hooks(*kind).is_empty());
    match hooks {
        _ if terminal => Err("restore of a container with a terminal: not implemented".into()),
        Some(kind) => Err(format!("restore: hooks.{}: not implemented", kind.name()).into()),
        None if plan.rdt().is_some() => Err("restore: linux.intelRdt: not implemented".into()),
        None => Ok(()),
    }
}

fn build(args: &Args, prepared: Prepared, mut criu: Criu) -> Result<(Record, Started), Failure> {
    let mut record = prepared.record();
    let Prepared { directory, json, spec, plan, host, .. } = prepared;
    directory.write_spec(&json)?;
    directory.write_later(&Later::of(&plan))?;
    let group = cgroup_of(&plan).map(CgroupPlan::create).transpose()?;
    let restored = (|| {
        if let Some(group) = &group {
            tell_cgroup(&mut criu, group.cgroup(), &host);
        }
        let root = RootMount::new(&directory, &record.rootfs)?;
        tell_mounts(&mut criu, &plan, &root)?;
        let kept = tell_descriptors(&mut criu, &spec)?;
        let pid_file = directory.path().join("restored.pid");
        // It is our child then, as one that we start ourselves.
        criu.command.args(["--restore-detached", "--restore-sibling", "--pidfile"]).arg(&pid_file);
        for (option, value) in
            [("--lsm-profile", &args.lsm_profile), ("--lsm-mount-context", &args.lsm_mount_context)]
        {
            criu.command.args(value.iter().flat_map(|value| [option, value]));
        }
        // Its standard streams become the container's.
        criu.command.stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit());
        criu.run()?;
        drop((kept, root));
        let pid = fs::read_to_string(&pid_file)?.trim().parse()?;
        let started = Started { pid, pidfd: pidfd::open(pid)? };
        record.begin(pid, &host, &spec.linux.map(|linux| linux.namespaces).unwrap_or_default());
        let told = directory
            .write(&record)
            .map_err(Failure::from)
            .and_then(|()| args.pid_file.as_deref().map_or(Ok(()), |path| write_pid_file(path, pid)));
        told.map_err(|error| create::kill_again(&record, &started, &host, error))?;
        Ok(started)
    })();
    match restored {
        Ok(started) => Ok((record, started)),
        Err(error) => {
            // What failed is told; that an empty group stays says nothing more.
            let _ = group.map(|group| group.cgroup().remove());
            Err(error)
        }
    }
}

fn cgroup_of(plan: &Plan) -> Option<&CgroupPlan> {
    plan.steps.iter().find_map(|step| match &step.action {
        Action::Cgroup(plan) => Some(plan),
        _ => None,
    })
}

/// The processes go to the container's own control group, wherever they were.
fn tell_cgroup(criu: &mut Criu, cgroup: &Cgroup, host: &Host) {
    let path = cgroup.path();
    if host.cgroup.is_v2() {
        criu.command.arg("--cgroup-root").arg(format!("/{path}"));
    }
    let controllers = host.cgroup.hierarchies.iter().filter(|_| !host.cgroup.is_v2());
    for controller in controllers.flat_map(|hierarchy| &hierarchy.controllers) {
        criu.command.arg("--cgroup-root").arg(format!("{controller}:/{path}"));
    }
}

/// The root file system as a mount, which CRIU asks for. Nobody else sees it: from here on we have a
/// mount namespace of our own.
struct RootMount {
    path: PathBuf,
}

impl RootMount {
    fn new(directory: &Directory, rootfs: &Path) -> Result<Self, Failure> {
        let path = directory.path().join("root");
        fs::create_dir(&path).map_err(|error| format!("mkdir {}: {error}", path.display()))?;
        namespace::unshare(Kinds::MOUNT)?;
        let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", slave).map_err(|errno| format!("make / a slave: {errno}"))?;
        rustix::mount::mount_bind_recursive(rootfs, &path)
            .map_err(|errno| format!("bind {}: {errno}", rootfs.display()))?;
        Ok(Self { path })
    }
}

impl Drop for RootMount {
    fn drop(&mut self) {
        // It ends with us; until then it is only in the way of who removes the directory.
        let _ = rustix::mount::unmount(&self.path, UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.path);
    }
}

/// Makes all places to mount on, and tells where the host's files are that are mounted there.
fn tell_mounts(criu: &mut Criu, plan: &Plan, root: &RootMount) -> Result<(), Failure> {
    criu.command.arg("--root").arg(&root.path);
    let inside = Root::open(&root.path)?;
    let mut external = |target: &str, source: &Path| {
        criu.command.arg("--external").arg(format!("mnt[{target}]:{}", source.display()));
    };
    let mut above: Vec<&str> = Vec::new();
    for step in &plan.steps {
        match &step.action {
            Action::Mount(MountPlan { target, source, .. }) => {
                let bound = if let Source::Bind { path, .. } = source { Some(path) } else { None };
                // What is mounted on another mount comes with that.
                let is_below = above.iter().any(|above| Path::new(target).starts_with(above));
                match bound {
                    _ if is_below => {}
                    Some(path) if !path.is_dir() => drop(inside.create_file_all(target, 0o644)?),
                    _ => drop(inside.mkdir_all(target, 0o755)?),
                }
                above.push(target);
                if let Some(path) = bound {
                    external(target, path);
                }
            }
            Action::Devices { nodes, bound: true, .. } => {
                for node in nodes {
                    external(&node.path, Path::new(&node.path));
                }
            }
            Action::Mask { paths } => {
                for path in paths {
                    external(path, Path::new("/dev/null"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Gives CRIU what the standard streams and the joined namespaces are now; the descriptors are to be
/// open until it has run.
fn tell_descriptors(criu: &mut Criu, spec: &Spec) -> Result<Vec<OwnedFd>, Failure> {
    for (fd, name) in criu.read_descriptors()?.iter().enumerate() {
        // Others are of the container, which has them in its images.
        if name.starts_with("pipe:[") || name.starts_with("file[") {
            criu.command.arg("--inherit-fd").arg(format!("fd[{fd}]:{name}"));
        }
    }
    let mut kept = Vec::new();
    for Joined { path, name, .. } in criu::joined(spec)? {
        let file = OwnedFd::from(fs::File::open(path).map_err(|error| format!("{path}: {error}"))?);
        rustix::io::fcntl_setfd(&file, FdFlags::empty())?;
        criu.command.arg("--inherit-fd").arg(format!("fd[{}]:{name}", file.as_raw_fd()));
        kept.push(file);
    }
    Ok(kept)
}
