//! `ponton-runtime exec`

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ponton_cgroup::Cgroup;
use ponton_oci::runtime::{Capabilities, Linux, Process, Status, User};
use ponton_runtime::host::Host;
use ponton_runtime::open::{self, Target};
use ponton_runtime::plan::{ProcessInput, ProcessPlan, plan_process};
use ponton_runtime::state::{self, Record, StateError};
use ponton_runtime::{Error, apply, seccomp};
use ponton_sys::{pidfd, signal};

use super::console::Wanted;
use super::inherit::Inherited;
use super::{Context, Failure, foreground, warn, write_pid_file};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Send the master side of the terminal to whoever listens on this unix socket.
    #[arg(long, value_name = "PATH")]
    console_socket: Option<PathBuf>,
    /// The working directory in the container.
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// An environment variable to add.
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Give the process a terminal.
    #[arg(short, long)]
    tty: bool,
    /// The user, by numbers, or by names of the container.
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// A further group.
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<u32>,
    /// Take the whole process from this file: a `process` as in config.json.
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Do not wait for its end.
    #[arg(short, long)]
    detach: bool,
    /// Write its process id to this file.
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// The SELinux label of the process.
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// The AppArmor profile of the process.
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// Say whether the process may gain privileges by execve.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    no_new_privs: Option<bool>,
    /// A capability to add.
    #[arg(short, long, value_name = "CAP")]
    cap: Vec<String>,
    /// Hand N more descriptors on to the process, after the standard streams and those of LISTEN_FDS.
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Run the process in an existing control group below the container's, of these v1 controllers
    /// or of all.
    #[arg(long, value_name = "[CONTROLLER[,...]:]PATH")]
    cgroup: Vec<String>,
    /// Start it also in a paused container, where it stands still until that goes on.
    #[arg(long)]
    ignore_paused: bool,
    /// The container's id.
    id: String,
    /// The program and its arguments.
    #[arg(required_unless_present = "process", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<ExitCode, Failure> {
    let inherited = Inherited::find(args.preserve_fds)?;
    let directory = context.directory(&args.id)?;
    let record = directory.read()?;
    let host = Host::probe()?;
    let status = directory.status(&record, &host);
    let is_fine = match status {
        Status::Created | Status::Running => true,
        Status::Paused => args.ignore_paused,
        Status::Creating | Status::Stopped => false,
    };
    if !is_fine {
        return Err(StateError::WrongStatus { id: args.id.clone(), status, attempted: "exec" }.into());
    }
    let spec = directory.read_spec()?;
    let mut process = match &args.process {
        Some(path) => read_process(path)?,
        None => process_of(args, spec.process.unwrap_or_default()),
    };
    process.env.extend(inherited.env);
    let wanted = Wanted {
        terminal: process.terminal,
        size: process.console_size,
        socket: args.console_socket.as_deref(),
        detach: args.detach,
    };
    wanted.check()?;
    let linux = spec.linux.unwrap_or_default();
    let name = args.user.as_deref().filter(|user| args.process.is_none() && !is_numbers(user));
    let state = record.state(status);
    let input = ProcessInput {
        user: name,
        preserve_fds: inherited.count,
        state: Some(&state),
        ..ProcessInput::default()
    };
    let plan = plan(context, &process, &linux, &host, input)?;
    warn(context, &plan.warnings);
    start(args, &record, &host, plan, wanted)
}

fn plan(
    context: &Context,
    process: &Process,
    linux: &Linux,
    host: &Host,
    input: ProcessInput<'_>,
) -> Result<ProcessPlan, Failure> {
    let filter = linux
        .seccomp
        .as_ref()
        .map(|policy| seccomp::cache(&state::filters(&context.root), policy))
        .transpose()?;
    let input = ProcessInput { seccomp: filter.as_deref(), ..input.with_linux(linux) };
    Ok(plan_process(process, host, &input).map_err(Error::from)?)
}

fn start(
    args: &Args,
    record: &Record,
    host: &Host,
    plan: ProcessPlan,
    wanted: Wanted<'_>,
) -> Result<ExitCode, Failure> {
    let signals = if args.detach { None } else { Some(signal::block()?) };
    let cgroup = cgroup(record, host, &args.cgroup)?;
    let container = pidfd::open(record.pid)?;
    let target = Target { pid: record.pid, pidfd: container.as_fd(), cgroup: cgroup.as_ref() };
    let opened = open::open_process(plan, target, host)?;
    let console = wanted.open(|| opened.terminal())?;
    let started = console.stdio(|stdio| apply::exec(&opened, stdio))?;
    let told = console.finish().and_then(|master| {
        args.pid_file.as_deref().map_or(Ok(()), |path| write_pid_file(path, started.pid))?;
        Ok(master)
    });
    let master = match told {
        Ok(master) => master,
        Err(error) => {
            // Nobody knows of it.
            pidfd::send_signal(started.pidfd.as_fd(), 9)?;
            return Err(error);
        }
    };
    let Some(signals) = signals else { return Ok(ExitCode::SUCCESS) };
    let exit = foreground::attend(&started, master, None, &signals)?;
    Ok(ExitCode::from(u8::try_from(exit.code()).unwrap_or(u8::MAX)))
}

/// The container's control group, or where `--cgroup` says those below it.
fn cgroup(record: &Record, host: &Host, options: &[String]) -> Result<Option<Cgroup>, Failure> {
    let Some(own) = &record.cgroup else {
        let none = if options.is_empty() { Ok(None) } else { Err("--cgroup: the container has none") };
        return Ok(none?);
    };
    let mut cgroup = Cgroup::new(&host.cgroup, own);
    let mut said = Vec::new();
    for option in options {
        let wrong = |why: &str| Failure::from(format!("--cgroup: {option:?}: {why}"));
        let (controllers, path) = match option.split_once(':') {
            Some((controllers, path)) => (controllers.split(',').map(Some).collect(), path),
            None if options.len() > 1 => return Err(wrong("of several each names its controllers")),
            None => (vec![None], option.as_str()),
        };
        let path = path.trim_matches('/');
        if path.split('/').any(|part| part == "..") || path.contains(':') {
            return Err(wrong("is not a path below the container's control group"));
        }
        for controller in controllers {
            if said.contains(&controller) {
                return Err(wrong("the controller has been named before"));
            }
            said.push(controller);
            cgroup = cgroup.below(controller, path).ok_or_else(|| wrong("there is no such control group"))?;
        }
    }
    Ok(Some(cgroup))
}

fn read_process(path: &Path) -> Result<Process, Failure> {
    let json = state::read_file(path)?;
    let mut deserializer = serde_json::Deserializer::from_slice(&json);
    let parsed = serde_path_to_error::deserialize(&mut deserializer);
    Ok(parsed.map_err(|error| format!("{}: {error}", path.display()))?)
}

/// The container's own process, changed by the options.
fn process_of(args: &Args, own: Process) -> Process {
    let mut process = own;
    process.args.clone_from(&args.command);
    process.terminal = args.tty;
    process.env.extend(args.env.iter().cloned());
    if let Some(cwd) = &args.cwd {
        process.cwd.clone_from(cwd);
    }
    if let Some(user) = &args.user {
        set_user(&mut process.user, user);
    }
    process.user.additional_gids.extend(&args.additional_gids);
    if let Some(label) = &args.process_label {
        process.selinux_label.clone_from(label);
    }
    if let Some(profile) = &args.apparmor {
        process.apparmor_profile.clone_from(profile);
    }
    process.no_new_privileges = args.no_new_privs.unwrap_or(process.no_new_privileges);
    if !args.cap.is_empty() {
        let sets = process.capabilities.get_or_insert_with(Capabilities::default);
        // A capability is ambient only where it is inheritable; a program that is given one by hand
        // is to have it whatever user it runs as.
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.extend(args.cap.iter().cloned());
        }
    }
    process
}

/// Whether a user is given as `uid[:gid]`, for which nothing is looked up.
fn is_numbers(text: &str) -> bool {
    text.split(':').all(|part| part.parse::<u32>().is_ok())
}

/// Sets `uid[:gid]`; a uid alone leaves the group.
fn set_user(user: &mut User, text: &str) {
    let mut numbers = text.split(':').map_while(|part| part.parse().ok());
    user.uid = numbers.next().unwrap_or(user.uid);
    user.gid = numbers.next().unwrap_or(user.gid);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers() {
        let mut user = User { uid: 1, gid: 2, ..User::default() };
        set_user(&mut user, "5");
        assert_eq!((user.uid, user.gid), (5, 2));
        set_user(&mut user, "6:7");
        assert_eq!((user.uid, user.gid), (6, 7));
        assert_eq!(["5", "6:7", "www", "6:", "6:www"].map(is_numbers), [true, true, false, false, false]);
    }

    #[test]
    fn a_group_outside_is_refused() {
        let record = Record { cgroup: Some("ponton/x".into()), ..Record::default() };
        let host = Host::probe().unwrap();
        let options = |options: &[&str]| -> Vec<String> { options.iter().map(ToString::to_string).collect() };
        let wrong: [&[&str]; 6] =
            [&[".."], &["a/../.."], &["nosuch"], &["nosuch:/"], &["memory:../.."], &["/", "/"]];
        for wrong in wrong {
            assert!(cgroup(&record, &host, &options(wrong)).is_err(), "{wrong:?}");
        }
        assert_eq!(cgroup(&record, &host, &[]).unwrap().unwrap().path(), "ponton/x");
    }
}
