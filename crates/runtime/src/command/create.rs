//! `ponton-runtime create`, and what it has in common with `run`

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ponton_oci::runtime::{Spec, Status};
use ponton_runtime::apply::{self, Gate, Started};
use ponton_runtime::host::Host;
use ponton_runtime::open::{self, Descriptors};
use ponton_runtime::plan::{self, Plan, PlanInput, ProcessInput};
use ponton_runtime::state::{self, Directory, Later, Lock, Record};
use ponton_runtime::{Error, seccomp};

use super::console::Wanted;
use super::inherit::Inherited;
use super::notify::Notify;
use super::{Context, Failure, delete, warn, write_pid_file};

#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// The directory with config.json and the root file system.
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// Send the master side of the terminal to whoever listens on this unix socket.
    #[arg(long, value_name = "PATH")]
    pub(super) console_socket: Option<PathBuf>,
    /// Write the process id of the first process to this file.
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Do not use pivot_root(2): for a root file system on a ramdisk, which cannot be let go.
    #[arg(long)]
    no_pivot: bool,
    /// Do not make a new session keyring: the container shares the caller's.
    #[arg(long)]
    no_new_keyring: bool,
    /// Hand N more descriptors on to the container, after the standard streams and those of LISTEN_FDS.
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    plan: bool,
    /// The container's id.
    id: String,
}

/// How far a container is brought, and who stays with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// It waits for `start`.
    Created,
    /// It runs on its own.
    Detached,
    /// It runs as long as we do.
    Foreground,
}

/// A container that is made, and what is known of it.
pub(super) struct Made {
    pub(super) directory: Directory,
    pub(super) record: Record,
    pub(super) host: Host,
    pub(super) started: Started,
    /// The master side of its terminal, if that is ours.
    pub(super) master: Option<OwnedFd>,
    pub(super) notify: Option<Notify>,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<ExitCode, Failure> {
    if let Some(made) = make(context, args, Until::Created)? {
        drop(made);
    }
    Ok(ExitCode::SUCCESS)
}

/// What is read and computed before anything is made.
pub(super) struct Prepared {
    pub(super) directory: Directory,
    bundle: PathBuf,
    /// The bundle's config.json, as it was read.
    pub(super) json: Vec<u8>,
    pub(super) spec: Spec,
    pub(super) plan: Plan,
    pub(super) host: Host,
    notify: Option<Notify>,
}

impl Prepared {
    /// What is known of the container before it has a process.
    pub(super) fn record(&self) -> Record {
        let root = self.spec.root.as_ref();
        Record {
            id: self.directory.id().to_owned(),
            created: jiff::Timestamp::now().to_string(),
            rootfs: root.map_or_else(|| self.bundle.clone(), |root| self.bundle.join(&root.path)),
            bundle: self.bundle.clone(),
            uid: rustix::process::getuid().as_raw(),
            cgroup: self.plan.cgroup().map(String::from),
            own_pid_namespace: self.plan.own_pid_namespace(),
            annotations: self.spec.annotations.clone(),
            ..Record::default()
        }
    }
}

impl Args {
    /// The part that `restore` has in common with it.
    pub(super) fn of_restore(bundle: PathBuf, id: String) -> Self {
        Self {
            bundle,
            console_socket: None,
            pid_file: None,
            no_pivot: false,
            no_new_keyring: false,
            preserve_fds: 0,
            plan: false,
            id,
        }
    }
}

/// Makes a container; none where its plan was to be printed only. On an error nothing is left.
pub(super) fn make(context: &Context, args: &Args, until: Until) -> Result<Option<Made>, Failure> {
    // Before any descriptor of our own takes a number.
    let inherited = Inherited::find(args.preserve_fds)?;
    let prepared = prepare(context, args, inherited)?;
    if args.plan {
        print!("{}", prepared.plan);
        return Ok(None);
    }
    let process = prepared.spec.process.as_ref();
    let wanted = Wanted {
        terminal: process.is_some_and(|process| process.terminal),
        size: process.and_then(|process| process.console_size),
        socket: args.console_socket.as_deref(),
        detach: until != Until::Foreground,
    };
    wanted.check()?;
    warn(context, prepared.plan.process().into_iter().flat_map(|process| process.warnings.clone()));
    let lock = prepared.directory.create()?;
    let directory = prepared.directory.clone();
    match build(prepared, wanted, args.pid_file.as_deref(), until == Until::Created) {
        Ok(made) => {
            drop(lock);
            if until != Until::Created {
                warn(context, made.directory.read_later()?.started(&made.record.state(Status::Running)));
            }
            Ok(Some(made))
        }
        Err(error) => Err(undo(&directory, lock, error)),
    }
}

/// Removes the directory of a container that could not be made.
pub(super) fn undo(directory: &Directory, lock: Lock, error: Failure) -> Failure {
    let removed = directory.remove();
    drop(lock);
    match removed {
        Ok(()) => error,
        Err(removal) => format!("{error}; and then: {removal}").into(),
    }
}

pub(super) fn prepare(context: &Context, args: &Args, inherited: Inherited) -> Result<Prepared, Failure> {
    let directory = context.directory(&args.id)?;
    let bundle = std::fs::canonicalize(&args.bundle)
        .map_err(|error| format!("bundle {}: {error}", args.bundle.display()))?;
    let file = bundle.join("config.json");
    let mut json = state::read_file(&file)?;
    let mut spec = state::parse_spec(&file, &json)?;
    let preserved = inherited.count;
    let notify = Notify::from_environment(&directory);
    if let Some(notify) = &notify {
        notify.add_to(&mut spec);
    }
    if let Some(process) = &mut spec.process {
        process.env.extend(inherited.env);
    }
    if notify.is_some() || preserved > 0 {
        json = serde_json::to_vec(&spec)?;
    }
    let host = Host::probe()?;
    delete::remove_remains(&directory, &host)?;
    let plan = plan(context, args, &spec, &bundle, &host, preserved)?;
    context.log.debug(&plan);
    Ok(Prepared { directory, bundle, json, spec, plan, host, notify })
}

fn plan(
    context: &Context,
    args: &Args,
    spec: &Spec,
    bundle: &Path,
    host: &Host,
    preserve_fds: u32,
) -> Result<Plan, Failure> {
    let policy = spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
    let filter = policy.map(|policy| seccomp::cache(&state::filters(&context.root), policy)).transpose()?;
    let process = ProcessInput {
        seccomp: filter.as_deref(),
        preserve_fds,
        no_new_keyring: args.no_new_keyring,
        ..ProcessInput::default()
    };
    let input = PlanInput {
        id: &args.id,
        bundle: Some(bundle),
        no_pivot: args.no_pivot,
        systemd_cgroup: context.systemd_cgroup,
        rootless: context.rootless,
        process,
        ..PlanInput::default()
    };
    Ok(plan::plan(spec, host, &input).map_err(Error::from)?)
}

fn build(
    prepared: Prepared,
    wanted: Wanted<'_>,
    pid_file: Option<&Path>,
    gated: bool,
) -> Result<Made, Failure> {
    let mut record = prepared.record();
    let Prepared { directory, json, spec, plan, host, notify, .. } = prepared;
    directory.write_spec(&json)?;
    let later = Later::of(&plan);
    directory.write_later(&later)?;
    let gate = gated.then(|| directory.make_gate()).transpose()?;
    if let Some(notify) = &notify {
        notify.listen()?;
    }
    let opened = open::open(plan, Descriptors::default(), &host)?;
    let console = wanted.open(|| opened.terminal())?;
    let gate = gate.as_ref().map(|(wait, report)| Gate { wait: wait.as_fd(), report: report.as_fd() });
    let created = console.stdio(|stdio| apply::create(opened, stdio, gate))?;
    let namespaces = spec.linux.map(|linux| linux.namespaces).unwrap_or_default();
    record.begin(created.started.pid, &host, &namespaces);
    let told = (|| {
        directory.write(&record)?;
        let master = console.finish()?;
        if let Some(path) = pid_file {
            write_pid_file(path, record.pid)?;
        }
        Ok(master)
    })();
    match told {
        Ok(master) => Ok(Made { directory, record, host, started: created.keep(), master, notify }),
        Err(error) => Err(kill_again(&record, &created.started, &host, error)),
    }
}

/// Ends a container that was made, but that nobody could be told of.
pub(super) fn kill_again(record: &Record, started: &Started, host: &Host, error: Failure) -> Failure {
    let ended = delete::kill(record, host).and_then(|()| {
        ponton_sys::pidfd::wait(started.pidfd.as_fd())?;
        delete::remove_cgroup(record, host)
    });
    match ended {
        Ok(()) => error,
        Err(ending) => format!("{error}; and then: {ending}").into(),
    }
}
