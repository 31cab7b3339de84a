//! The parent's part: the steps that the child waits for, and the seccomp agent.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use ponton_oci::runtime::{State, Status, VERSION};
use ponton_sys as sys;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};
use rustix::process::PidfdGetfdFlags;
use serde::Serialize;

use super::report::{Message, Reader};
use super::{Started, limits};
use crate::open::{Opened, Ready};
use crate::plan::{Action, HookKind, ListenerPlan, Plan, ProcessPlan, SeccompPlan, Step};
use crate::{Error, hook, netdevice};

/// Does what the child asks for, until it executes its program or stands before its gate. A child
/// that fails, or that something fails for, is killed and reaped.
pub(super) fn attend(
    started: &Started,
    reader: &Reader,
    steps: Option<&Opened>,
    process: Option<&ProcessPlan>,
    status: Status,
) -> Result<(), Error> {
    let seccomp = process.and_then(|process| process.seccomp.as_ref());
    let attended = loop {
        let done = match reader.receive() {
            Message::End | Message::Ready => return Ok(()),
            Message::Failure(error) => Err(error),
            Message::Step(number) => steps.map_or(Ok(()), |opened| carry_out(opened, number, started)),
            Message::Limits => process.map_or(Ok(()), |plan| limits::set_of_child(plan, started.pid)),
            Message::ListenerNumber(number) => {
                take(started, number).and_then(|listener| hand_over(&listener, seccomp, started.pid, status))
            }
            Message::Listener(listener) => hand_over(&listener, seccomp, started.pid, status),
        };
        match done {
            Ok(()) => reader.go_on(),
            Err(error) => break error,
        }
    };
    // It may be gone already, and nothing can be done about one that cannot be reaped.
    let _ = sys::pidfd::send_signal(started.pidfd.as_fd(), 9);
    let _ = sys::pidfd::wait(started.pidfd.as_fd());
    Err(attended)
}

fn carry_out(opened: &Opened, number: usize, started: &Started) -> Result<(), Error> {
    let (Some(step), Some(ready)) = (opened.plan.steps.get(number), opened.ready.get(number)) else {
        return Ok(());
    };
    let failed = |source| Error::Step { step: step.name(), source };
    match (&step.action, ready) {
        (Action::Hooks { kind, hooks }, _) => {
            let state = opened.plan.state(Status::Creating, Some(started.pid));
            let directory = hook::bundle_directory(&state.bundle);
            hook::run(*kind, hooks, &state, directory.as_ref().map(AsFd::as_fd))
        }
        (Action::NetDevices { devices }, _) => {
            netdevice::move_all(devices, started.pidfd.as_fd()).map_err(failed)
        }
        (Action::Rdt(plan), Ready::Rdt(resctrl)) => resctrl.join(plan, started.pid).map_err(failed),
        _ => Ok(()),
    }
}

/// What hooks are there for the end, whether or not the container got far.
pub(super) fn undone(plan: &Plan) {
    let state = plan.state(Status::Stopped, None);
    for error in hook::run_all(HookKind::Poststop, plan.hooks(HookKind::Poststop), &state) {
        eprintln!("ponton-runtime: warning: {error}");
    }
}

/// config-linux.md, "The Container Process State".
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessState<'a> {
    oci_version: &'a str,
    fds: [&'a str; 1],
    pid: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: State,
}

/// The child's descriptor of this number.
fn take(child: &Started, number: i32) -> Result<OwnedFd, Error> {
    rustix::process::pidfd_getfd(&child.pidfd, number, PidfdGetfdFlags::empty()).map_err(|errno| {
        Error::Step {
            step: "hand the seccomp listener over (linux.seccomp.listenerPath)".into(),
            source: sys::Error::new(
                "pidfd_getfd",
                "the listener, since sendmsg or recvmsg are notified",
                errno,
            ),
        }
    })
}

/// Gives the listener to the agent: one connection, one state.
fn hand_over(
    listener: &OwnedFd,
    seccomp: Option<&SeccompPlan>,
    pid: u32,
    status: Status,
) -> Result<(), Error> {
    let Some(ListenerPlan { path, metadata, state, .. }) = seccomp.and_then(|plan| plan.listener.as_ref())
    else {
        return Ok(());
    };
    let first = if status == Status::Creating { Some(pid as i32) } else { state.pid };
    let state = ProcessState {
        oci_version: VERSION,
        fds: ["seccompFd"],
        pid,
        metadata,
        state: State { status, pid: first, ..state.clone() },
    };
    let send = || -> std::io::Result<()> {
        let json = serde_json::to_vec(&state)?;
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        let fds = [listener.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let mut sent =
            rustix::net::sendmsg(&socket, &[IoSlice::new(&json)], &mut control, SendFlags::NOSIGNAL)?;
        while sent < json.len() {
            sent += rustix::net::send(&socket, &json[sent..], SendFlags::NOSIGNAL)?;
        }
        Ok(())
    };
    send().map_err(|error| Error::Step {
        step: "hand the seccomp listener over (linux.seccomp.listenerPath)".into(),
        source: sys::Error::new("send to", path.display(), error),
    })
}

/// Removes what the parent's steps left on the host, if the container did not come to life.
pub(super) fn take_back(steps: &[Step], ready: &[Ready]) {
    for (step, ready) in steps.iter().zip(ready) {
        if let (Action::Rdt(plan), Ready::Rdt(resctrl)) = (&step.action, ready) {
            // There is an error on its way already; an empty class costs nobody anything.
            let _ = resctrl.leave(plan);
        }
    }
}
