//! The last step: the child gives its rights away and becomes the program.

use std::convert::Infallible;
use std::os::fd::AsFd;

use ponton_oci::runtime::Status;
use ponton_sys as sys;
use rustix::fs::{FileType, Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets as KernelSets};

use super::Gate;
use super::label::Label;
use super::limits::{self, of_field};
use super::report::Writer;
use crate::open::{Identity, Program};
use crate::plan::{CapabilitySets, HookKind, ListenerPlan, MemoryPolicyPlan, Plan, ProcessPlan};
use crate::{Error, hook};

/// What stands between the child and its program.
pub(super) struct Before<'b, 'a> {
    /// Who the program is, where that could not be looked up before the clone.
    pub(super) identity: Option<&'b Identity>,
    pub(super) report: &'b Writer<'a>,
    pub(super) gate: Option<Gate<'a>>,
    /// The plan with the hooks of the start.
    pub(super) hooks: Option<&'b Plan>,
    pub(super) label: Option<Label>,
    /// Its limits are set by the parent, as it has no rights for them in its user namespace.
    pub(super) by_parent: bool,
}

/// Becomes the program; comes back only with an error.
pub(super) fn execute(program: &Program, before: &Before<'_, '_>) -> Result<Infallible, Error> {
    let Some(identity) = program.identity.as_ref().or(before.identity) else {
        let message = "the user cannot be looked up before the root is mounted".to_owned();
        return Err(Error::NotFound { message });
    };
    let plan = &program.plan;
    let failed = |source| Error::Step { step: "exec (process)".into(), source };
    if !before.by_parent {
        limits::set_own_rlimits(&plan.rlimits)?;
    } else if limits::are_set(plan) {
        before.report.wait_for_limits().map_err(failed)?;
    }
    own_stdio(identity.uid).map_err(failed)?;
    if let Some(label) = &before.label {
        let step = |source| Error::Step { step: "set the label (process)".into(), source };
        label.set().map_err(step)?;
    }
    // Before a path of the container is walked: no name below /proc/self/fd leads out of it. Nothing
    // that owns a descriptor may be dropped from here on.
    let gate = before.gate.map(|gate| [gate.wait, gate.report]);
    let kept: Vec<_> = [before.report.as_fd()].into_iter().chain(gate.into_iter().flatten()).collect();
    sys::process::close_all_but(plan.preserve_fds.saturating_add(3), &kept).map_err(failed)?;
    if !before.report.is_heard() {
        // It was killed: nobody knows of this process, and nobody would supervise it.
        return Err(failed(sys::Error::new("start", "for a parent that has ended", Errno::PIPE)));
    }
    let error = become_program(program, identity, before);
    before.report.fail_and_exit(&error)
}

/// What is left to do when the process has only its standard streams, and a way to tell of failure.
fn become_program(program: &Program, identity: &Identity, before: &Before<'_, '_>) -> Error {
    let steps = || -> Result<Infallible, Error> {
        let plan = &program.plan;
        let failed = |source| Error::Step { step: "exec (process)".into(), source };
        let entered = enter_directory(&plan.cwd);
        let mode = plan.user.umask.unwrap_or(0o022);
        rustix::process::umask(Mode::from_raw_mode(mode));

        // A filter needs a privilege that is about to go, unless no_new_privs is there instead.
        if !plan.no_new_privileges {
            load_filter(program, before.report)?;
        }
        let capabilities = plan.capabilities.unwrap_or_default();
        become_user(identity.uid, identity.gid, &identity.additional_gids, &capabilities).map_err(failed)?;
        // Some directories only their owner may enter, and root not (NFS, FUSE).
        entered.or_else(|_| enter_directory(&plan.cwd))?;
        if let Some(gate) = before.gate {
            look_for(program)?;
            before.report.ready(gate.report).map_err(failed)?;
            rustix::io::retry_on_intr(|| rustix::io::read(gate.wait, &mut [0; 1]))
                .map_err(|errno| failed(sys::Error::new("read", "the gate", errno)))?;
        }
        if let Some(plan) = before.hooks {
            let state = plan.state(Status::Created, Some(std::process::id()));
            hook::run(HookKind::StartContainer, plan.hooks(HookKind::StartContainer), &state, None)?;
        }
        if plan.no_new_privileges {
            rustix::thread::set_no_new_privs(true)
                .map_err(|errno| failed(sys::Error::new("prctl", "PR_SET_NO_NEW_PRIVS", errno)))?;
            load_filter(program, before.report)?;
        }
        Err(try_candidates(program, &identity.env))
    };
    match steps() {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// How the kernel runs the process, from its start in the container's control group on. What of it
/// needs rights is left to the parent where `by_parent`.
pub(super) fn schedule(plan: &ProcessPlan, by_parent: bool) -> Result<(), sys::Error> {
    if !by_parent {
        limits::schedule_own(plan)?;
    }
    if let Some(domain) = plan.personality {
        sys::task::set_personality(domain).map_err(of_field("linux.personality"))?;
    }
    if let Some(MemoryPolicyPlan { mode, nodes }) = &plan.memory_policy {
        sys::task::set_memory_policy(*mode, nodes).map_err(of_field("linux.memoryPolicy"))?;
    }
    Ok(())
}

fn load_filter(program: &Program, report: &Writer<'_>) -> Result<(), Error> {
    let (Some(filter), Some(plan)) = (&program.filter, &program.plan.seccomp) else { return Ok(()) };
    let step = |source| Error::Step { step: "seccomp load (linux.seccomp)".into(), source };
    let Some(ListenerPlan { by_number, .. }) = plan.listener else {
        return filter.load(plan.flags).map_err(step);
    };
    let listener = filter.load_with_listener(plan.flags).map_err(step)?;
    let hand_over = if by_number { Writer::tell_listener } else { Writer::hand_over_listener };
    hand_over(report, listener.as_fd()).map_err(step)
}

/// Gives the standard streams to the user, so that `/dev/stdout` can be opened by name.
fn own_stdio(uid: u32) -> Result<(), sys::Error> {
    let null = rustix::fs::makedev(1, 3);
    let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    for stream in streams {
        let status = rustix::fs::fstat(stream).map_err(sys::Error::of("fstat", "standard stream"))?;
        let is_null =
            FileType::from_raw_mode(status.st_mode) == FileType::CharacterDevice && status.st_rdev == null;
        if is_null || status.st_uid == uid {
            continue;
        }
        match rustix::fs::fchown(stream, Some(Uid::from_raw(uid)), None) {
            // Sockets of other namespaces and read-only files stay as they are.
            Ok(()) | Err(Errno::INVAL | Errno::PERM | Errno::ROFS) => {}
            Err(errno) => return Err(sys::Error::new("fchown", "standard stream", errno)),
        }
    }
    Ok(())
}

/// Enters the working directory, and checks that it is inside of the root.
fn enter_directory(path: &str) -> Result<(), Error> {
    let step = |errno| Error::Step {
        step: "exec (process.cwd)".into(),
        source: sys::Error::new("chdir", path, errno),
    };
    rustix::process::chdir(path).map_err(step)?;
    let is_inside = rustix::process::getcwd(Vec::new()).map_err(step)?.as_bytes().starts_with(b"/");
    if is_inside { Ok(()) } else { Err(step(Errno::NOENT)) }
}

/// Changes to the user, and to exactly these capabilities of those that the runtime has itself.
fn become_user(uid: u32, gid: u32, groups: &[u32], sets: &CapabilitySets) -> Result<(), sys::Error> {
    let failed = |what: &'static str| move |errno: Errno| sys::Error::new("set", what, errno);
    let own = rustix::thread::capabilities(None).map_err(failed("capabilities"))?.permitted.bits();
    for number in 0..63 {
        let bit = CapabilitySet::from_bits_retain(1 << number);
        if sets.bounding & 1 << number == 0 {
            match rustix::thread::remove_capability_from_bounding_set(bit) {
                Ok(()) => {}
                // Past the last one that the kernel knows.
                Err(Errno::INVAL) => break,
                Err(errno) => return Err(failed("bounding set")(errno)),
            }
        }
    }
    rustix::thread::set_keep_capabilities(true).map_err(failed("PR_SET_KEEPCAPS"))?;
    let gids: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    match rustix::thread::set_thread_groups(&gids) {
        // In a user namespace that maps its maker's group alone nobody can change groups, lest one be
        // dropped that keeps from something (user_namespaces(7)). Who has the capability is refused
        // for nothing else.
        Err(Errno::PERM) if groups.is_empty() && own & CapabilitySet::SETGID.bits() != 0 => {}
        done => done.map_err(|errno| not_set("groups", groups, errno))?,
    }
    rustix::thread::set_thread_gid(Gid::from_raw(gid)).map_err(|errno| not_set("group", &[gid], errno))?;
    rustix::thread::set_thread_uid(Uid::from_raw(uid)).map_err(|errno| not_set("user", &[uid], errno))?;
    let set = |bits: u64| CapabilitySet::from_bits_retain(bits & own);
    let kernel_sets = KernelSets {
        effective: set(sets.effective),
        permitted: set(sets.permitted),
        inheritable: set(sets.inheritable),
    };
    rustix::thread::set_capabilities(None, kernel_sets).map_err(failed("capabilities"))?;
    for number in (0..64).filter(|number| sets.ambient & own & 1 << number != 0) {
        let bit = CapabilitySet::from_bits_retain(1 << number);
        rustix::thread::configure_capability_in_ambient_set(bit, true).map_err(failed("ambient set"))?;
    }
    Ok(())
}

/// Why ids can't be taken: the kernel calls those invalid that the user namespace has no map for.
fn not_set(what: &str, ids: &[u32], errno: Errno) -> sys::Error {
    let why = match errno {
        Errno::INVAL if ids.len() > 1 => ", not all mapped in the container's user namespace",
        Errno::INVAL => ", not mapped in the container's user namespace",
        _ => "",
    };
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    sys::Error::new("set", format_args!("{what} {}{why}", ids.join(", ")), errno)
}

/// Whether the program is there, before the container counts as made.
fn look_for(program: &Program) -> Result<(), Error> {
    let mut errnos =
        program.candidates.iter().map(|path| rustix::fs::access(path, rustix::fs::Access::EXEC_OK));
    let name = program.plan.args.first().map_or("", String::as_str);
    if errnos.clone().any(|found| found.is_ok()) {
        return Ok(());
    }
    let errno = errnos.find_map(Result::err).unwrap_or(Errno::NOENT);
    Err(not_executed(name, program.candidates.first().map(AsRef::as_ref), errno))
}

/// Executes the first candidate that there is.
fn try_candidates(program: &Program, env: &sys::process::CStrings) -> Error {
    let name = program.plan.args.first().map_or("", String::as_str);
    for path in &program.candidates {
        let errno = sys::process::execve(path, &program.args, env);
        let goes_on = match errno {
            Errno::NOENT | Errno::NOTDIR => true,
            Errno::ACCESS => !is_program(path),
            _ => false,
        };
        if name.contains('/') || !goes_on {
            return not_executed(name, Some(path), errno);
        }
    }
    not_executed(name, None, Errno::NOENT)
}

/// A file that is meant to be executed by somebody.
fn is_program(path: &std::ffi::CStr) -> bool {
    rustix::fs::stat(path).is_ok_and(|status| {
        FileType::from_raw_mode(status.st_mode) == FileType::RegularFile && status.st_mode & 0o111 != 0
    })
}

/// Docker's words; its client takes the exit code from them.
fn not_executed(name: &str, path: Option<&std::ffi::CStr>, errno: Errno) -> Error {
    let found = path.map(rustix::fs::stat);
    let is_directory = found.is_some_and(|found| {
        found.is_ok_and(|status| FileType::from_raw_mode(status.st_mode) == FileType::Directory)
    });
    let exists = found.is_some_and(|found| found.is_ok());
    match errno {
        _ if is_directory => {
            Error::CommandNotExecutable { message: format!("exec: {name:?}: is a directory") }
        }
        Errno::NOENT if !name.contains('/') && !exists => {
            Error::CommandNotFound { message: format!("exec: {name:?}: executable file not found in $PATH") }
        }
        // The file is there, its interpreter is not.
        Errno::NOENT if exists => {
            Error::CommandNotFound { message: format!("exec {name}: no such file or directory") }
        }
        Errno::NOENT => Error::CommandNotFound {
            message: format!("exec: {name:?}: stat {name}: no such file or directory"),
        },
        Errno::NOTDIR => {
            Error::CommandNotExecutable { message: format!("exec: {name:?}: stat {name}: not a directory") }
        }
        Errno::ACCESS | Errno::PERM => {
            Error::CommandNotExecutable { message: format!("exec: {name:?}: permission denied") }
        }
        Errno::NOEXEC => Error::CommandNotExecutable { message: format!("exec {name}: exec format error") },
        errno => Error::CommandNotExecutable { message: format!("exec {name}: {errno}") },
    }
}
