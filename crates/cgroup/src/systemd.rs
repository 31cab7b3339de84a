//! Groups that systemd makes: a transient scope for each container
//! (org.freedesktop.systemd1(5), systemd.scope(5), "Control Group Interfaces" of systemd).
//!
//! systemd makes a scope around a process only. A placeholder is that process until the container's
//! own first process is in the group; the scope ends when its last process has ended. The group is
//! delegated to us: limits are written to its files as well, since systemd does not know them all; it
//! is told those that it knows so that it does not take them back.
#![allow(clippy::case_sensitive_file_extension_comparisons, reason = "names of units are no files")]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use ponton_oci::runtime::{DeviceRule, DeviceType, Resources};
use ponton_sys::clone::{Clone, clone3};
use ponton_sys::{Error, Result, pidfd, process};
use serde::{Deserialize, Serialize};

use crate::dbus::{Connection, Encoder, Object, Value};
use crate::layout::Layout;
use crate::limit::{weight_from_block_io, weight_from_shares};
use crate::plan::{CgroupPlan, PlanError};

/// A scope that is to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scope {
    pub(crate) name: String,
    /// Of the user's own systemd instead of the system's.
    pub(crate) user: bool,
    properties: Vec<(String, Value)>,
}

/// Computes what has to be asked of systemd and to be written for `resources` in a new scope.
/// `path` is `slice:prefix:name`, for the scope `prefix-name.scope`; without a slice it is
/// `system.slice`, or the user's `user.slice` without privileges.
pub fn plan_scope(layout: &Layout, path: &str, resources: &Resources) -> Result<CgroupPlan, PlanError> {
    let invalid = |message: String| PlanError::new("cgroupsPath", message);
    let parts: Vec<&str> = path.split(':').collect();
    let [slice, prefix, name] = parts[..] else {
        return Err(invalid(format!("{path:?} is not slice:prefix:name, as systemd needs it")));
    };
    let default = if layout.privileged { "system.slice" } else { "user.slice" };
    let slice = if slice.is_empty() { default } else { slice };
    let scope = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
    // systemd.unit(5): what a unit's name is made of.
    let plain =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte));
    if name.is_empty() || name.ends_with(".slice") || scope.len() > 255 || !plain(&scope) {
        return Err(invalid(format!("{scope:?} is not the name of a scope")));
    }
    let above = expand_slice(slice).ok_or_else(|| invalid(format!("{slice:?} is not a slice")))?;
    let parts = [layout.manager.as_str(), &above, &scope];
    let group =
        parts.into_iter().filter(|part| !part.is_empty()).fold(String::new(), |path, part| path + "/" + part);
    let mut plan = crate::plan(layout, &group, resources)?;
    plan.track(&layout.tracking);
    plan.scope = Some(Scope {
        name: scope,
        user: !layout.privileged,
        properties: properties(layout, slice, resources)?,
    });
    Ok(plan)
}

/// `a-b.slice` is in `a.slice`; `-.slice` is the root.
fn expand_slice(slice: &str) -> Option<String> {
    let name = slice.strip_suffix(".slice")?;
    if name == "-" {
        return Some(String::new());
    }
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.\\@:".contains(&byte));
    if !plain || name.split('-').any(str::is_empty) {
        return None;
    }
    let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
    Some(ends.map(|end| format!("{}.slice", &name[..end])).collect::<Vec<_>>().join("/"))
}

fn properties(
    layout: &Layout,
    slice: &str,
    resources: &Resources,
) -> Result<Vec<(String, Value)>, PlanError> {
    let mut out: Vec<(String, Value)> = Vec::new();
    let mut set = |name: &str, value| out.push((name.to_owned(), value));
    set("Description", Value::Text("a container of ponton-runtime".to_owned()));
    set("Slice", Value::Text(slice.to_owned()));
    set("Delegate", Value::Bool(true));
    set("DefaultDependencies", Value::Bool(false));
    set("CollectMode", Value::Text("inactive-or-failed".to_owned()));
    for name in ["CPUAccounting", "MemoryAccounting", "TasksAccounting", "IOAccounting"] {
        set(name, Value::Bool(true));
    }
    out.extend(limits(layout, resources)?);
    Ok(out)
}

/// -1 is no limit, which systemd writes as the highest number.
fn limit(value: i64) -> Value {
    Value::U64(u64::try_from(value).unwrap_or(u64::MAX))
}

/// The limits that systemd knows.
fn limits(layout: &Layout, resources: &Resources) -> Result<Vec<(String, Value)>, PlanError> {
    let mut out: Vec<(String, Value)> = Vec::new();
    let v2 = layout.is_v2();
    let mut set = |v1: &str, v2_name: &str, value: Value| {
        let name = if v2 { v2_name } else { v1 };
        if !name.is_empty() {
            out.push((name.to_owned(), value));
        }
    };
    if let Some(memory) = &resources.memory {
        let given = |value: Option<i64>| value.filter(|&value| value != 0);
        if let Some(most) = given(memory.limit) {
            set("MemoryLimit", "MemoryMax", limit(most));
        }
        if let (Some(swap), most) = (given(memory.swap), memory.limit.unwrap_or(0)) {
            set("", "MemorySwapMax", limit(if swap < 0 { swap } else { swap.saturating_sub(most).max(0) }));
        }
        if let Some(reservation) = given(memory.reservation) {
            set("", "MemoryLow", limit(reservation));
        }
    }
    if let Some(cpu) = &resources.cpu {
        if let Some(shares) = cpu.shares.filter(|&shares| shares != 0) {
            let value = if v2 { weight_from_shares(shares) } else { shares };
            set("CPUShares", "CPUWeight", Value::U64(value));
        }
        let period = cpu.period.filter(|&period| period != 0);
        if let Some(period) = period {
            set("CPUQuotaPeriodUSec", "CPUQuotaPeriodUSec", Value::U64(period));
        }
        if let Some(quota) = cpu.quota.filter(|&quota| quota != 0) {
            // A whole percent of a second: systemd knows nothing smaller.
            let each_second = u64::try_from(quota).map_or(u64::MAX, |quota| {
                let exact = u128::from(quota) * 1_000_000 / u128::from(period.unwrap_or(100_000));
                u64::try_from(exact.next_multiple_of(10_000)).unwrap_or(u64::MAX)
            });
            set("CPUQuotaPerSecUSec", "CPUQuotaPerSecUSec", Value::U64(each_second));
        }
        for (field, name, list) in
            [("cpu.cpus", "AllowedCPUs", &cpu.cpus), ("cpu.mems", "AllowedMemoryNodes", &cpu.mems)]
        {
            if !list.is_empty() {
                let mask =
                    mask(list).ok_or_else(|| PlanError::new(field, format!("{list:?} is not a list")))?;
                set("", name, Value::Bytes(mask));
            }
        }
    }
    if let Some(most) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        set("TasksMax", "TasksMax", limit(if most <= 0 { -1 } else { most }));
    }
    if let Some(weight) = resources.block_io.as_ref().and_then(|io| io.weight).filter(|&weight| weight != 0) {
        let value = if v2 { weight_from_block_io(weight) } else { weight.into() };
        set("BlockIOWeight", "IOWeight", Value::U64(value));
    }
    if layout.privileged
        && let Some(allowed) = allowed_devices(&resources.devices)
    {
        set("DevicePolicy", "DevicePolicy", Value::Text("strict".to_owned()));
        set("DeviceAllow", "DeviceAllow", Value::Pairs(allowed));
    }
    Ok(out)
}

/// `0-2,5` as bits, the first CPU in the lowest bit of the first byte.
fn mask(list: &str) -> Option<Vec<u8>> {
    let mut mask = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        // The kernel's own bound is 8192 CPUs.
        if first > last || last >= 8192 {
            return None;
        }
        for bit in first..=last {
            if mask.len() <= bit / 8 {
                mask.resize(bit / 8 + 1, 0);
            }
            mask[bit / 8] |= 1 << (bit % 8);
        }
    }
    (!mask.is_empty()).then_some(mask)
}

/// The devices of a list that forbids all and then allows some, as `DeviceAllow` has them. A list that
/// is otherwise is ours alone to enforce.
fn allowed_devices(rules: &[DeviceRule]) -> Option<Vec<(String, String)>> {
    let (first, rest) = rules.split_first()?;
    let all = |rule: &DeviceRule| rule.r#type == DeviceType::A && rule.major.is_none_or(|number| number < 0);
    if first.allow || !all(first) || rest.iter().any(|rule| !rule.allow || all(rule)) {
        return None;
    }
    let entry = |rule: &DeviceRule| {
        let kind = if rule.r#type == DeviceType::B { "block" } else { "char" };
        let known = |number: Option<i64>| number.filter(|number| *number >= 0);
        let access = if rule.access.is_empty() { "rwm" } else { &rule.access };
        let name = match (known(rule.major), known(rule.minor)) {
            (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
            // A number for the driver's name, from systemd 240.
            (Some(major), None) => format!("{kind}-{major}"),
            (None, _) => format!("{kind}-*"),
        };
        (name, access.to_owned())
    };
    Some(rest.iter().map(entry).collect())
}

const MANAGER: Object = Object {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};

/// No job of a scope takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

fn connect(user: bool) -> io::Result<Connection> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let address = if user {
        variable("DBUS_SESSION_BUS_ADDRESS")
            .or_else(|| variable("XDG_RUNTIME_DIR").map(|directory| format!("unix:path={directory}/bus")))
            .ok_or_else(|| io::Error::other("neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set"))?
    } else {
        variable("DBUS_SYSTEM_BUS_ADDRESS")
            .unwrap_or_else(|| "unix:path=/run/dbus/system_bus_socket".to_owned())
    };
    Connection::open(&address, PATIENCE)
}

/// The process that a scope is made around; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Placeholder {
    pid: u32,
    pidfd: OwnedFd,
}

impl Placeholder {
    fn start() -> Result<Self> {
        match clone3(0, None)? {
            Clone::Parent { pid, pidfd } => Ok(Self { pid, pidfd }),
            Clone::Child => {
                let signal = rustix::process::Signal::KILL;
                if rustix::process::set_parent_process_death_signal(Some(signal)).is_ok() {
                    // Nothing ever happens to no descriptors.
                    while rustix::event::poll(&mut [], None).is_err() {}
                }
                process::exit_now(1)
            }
        }
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        if pidfd::send_signal(self.pidfd.as_fd(), 9).is_ok() {
            let _ = pidfd::wait(self.pidfd.as_fd());
        }
    }
}

impl Scope {
    /// Has systemd make the scope; returns when it is there. It stays while the placeholder lives, or
    /// what has joined it by then.
    pub(crate) fn start(&self) -> Result<Placeholder> {
        let placeholder = Placeholder::start()?;
        let failed = Error::of("ask systemd for the scope", &self.name);
        connect(self.user).and_then(|mut bus| self.ask_over(&mut bus, placeholder.pid)).map_err(failed)?;
        Ok(placeholder)
    }

    fn ask_over(&self, bus: &mut Connection, pid: u32) -> io::Result<()> {
        bus.add_match("type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'")?;
        bus.call(MANAGER, "Subscribe", "", &Encoder::default())?;
        let mut properties = self.properties.clone();
        properties.push(("PIDs".to_owned(), Value::Numbers(vec![pid])));
        let mut body = Encoder::default();
        body.text(&self.name);
        body.text("replace");
        body.properties(&properties);
        body.array(8, &[] as &[()], |_, ()| {});
        let deadline = Instant::now() + PATIENCE;
        let answer = loop {
            match bus.call(MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", &body) {
                // The scope of a container of this name that has just ended is still being let go.
                Err(error) if error.to_string().contains(".UnitExists") && Instant::now() < deadline => {
                    let mut unit = Encoder::default();
                    unit.text(&self.name);
                    let _ = bus.call(MANAGER, "ResetFailedUnit", "s", &unit);
                    std::thread::sleep(Duration::from_millis(20));
                }
                answer => break answer?,
            }
        };
        let job = answer.texts()?.into_iter().next().unwrap_or_default();
        while Instant::now() < deadline {
            let signal = bus.signal()?;
            if signal.member != "JobRemoved" {
                continue;
            }
            // (id, job, unit, result)
            match signal.texts()?.as_slice() {
                [path, _, result] if *path == job && result == "done" => return Ok(()),
                [path, _, result] if *path == job => {
                    return Err(io::Error::other(format!("the job ended with {result:?}")));
                }
                _ => {}
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

/// Whether a group was made by systemd: scopes are in slices, or in a manager's own group.
pub(crate) fn scope_of(path: &str) -> Option<&str> {
    let (above, name) = path.rsplit_once('/')?;
    (name.ends_with(".scope") && (above.ends_with(".slice") || above.ends_with(".service"))).then_some(name)
}

/// Tells systemd the new limits of a scope, so that it does not take them back.
pub(crate) fn update(layout: &Layout, scope: &str, resources: &Resources) -> Result<(), crate::UpdateError> {
    let limits = limits(layout, &Resources { devices: Vec::new(), ..resources.clone() })?;
    let ask = || -> io::Result<()> {
        let mut bus = connect(!layout.privileged)?;
        let mut body = Encoder::default();
        body.text(scope);
        // For this run, not for ever.
        body.boolean(true);
        body.properties(&limits);
        bus.call(MANAGER, "SetUnitProperties", "sba(sv)", &body).map(drop)
    };
    if limits.is_empty() {
        return Ok(());
    }
    match ask() {
        // A group can have the name of a scope without being one.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound || error.to_string().contains(".NoSuchUnit") =>
        {
            Ok(())
        }
        done => Ok(done.map_err(Error::of("tell systemd the limits of", scope))?),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    use ponton_oci::runtime::{Cpu, Memory, Pids};

    use super::*;
    use crate::layout::Hierarchy;

    fn layout() -> Layout {
        let controllers = ["cpuset", "cpu", "io", "memory", "pids"].map(String::from).into();
        let hierarchy =
            Hierarchy { mount: "/sys/fs/cgroup".into(), version: crate::Version::V2, controllers };
        Layout { hierarchies: vec![hierarchy], swap_accounting: true, privileged: true, ..Layout::default() }
    }

    #[test]
    fn a_path_names_slice_and_scope() {
        let none = Resources::default();
        let path = |path| plan_scope(&layout(), path, &none).map(|plan| plan.path().to_owned());
        assert_eq!(path("a-b.slice:ponton:x").unwrap(), "a.slice/a-b.slice/ponton-x.scope");
        assert_eq!(path(":ponton:x").unwrap(), "system.slice/ponton-x.scope");
        assert_eq!(path("-.slice::x").unwrap(), "x.scope");
        for wrong in [
            "x",
            "a:b",
            "a:b:c",
            "a.slice:b:c:d",
            "a.slice:b:",
            "../a.slice:b:c",
            "a--b.slice:b:c",
            ".slice:b:c",
            "a.slice:../b:c",
            "a.slice:b:c/d",
            "a.slice:b:c.slice",
        ] {
            assert_eq!(path(wrong).unwrap_err().field, "cgroupsPath", "{wrong}");
        }
        let user = Layout {
            privileged: false,
            manager: "user.slice/user-7.slice/user@7.service".into(),
            ..layout()
        };
        let plan = plan_scope(&user, ":ponton:x", &none).unwrap();
        assert_eq!(plan.path(), "user.slice/user-7.slice/user@7.service/user.slice/ponton-x.scope");
        assert_eq!(scope_of(plan.path()), Some("ponton-x.scope"));
        assert_eq!([scope_of("ponton/x"), scope_of("x.scope"), scope_of("a/x.scope")], [None, None, None]);
    }

    #[test]
    fn systemd_is_told_what_it_knows() {
        let rule =
            |allow, r#type, major, minor| DeviceRule { allow, r#type, major, minor, access: "rw".into() };
        let all = DeviceRule { r#type: DeviceType::A, ..DeviceRule::default() };
        let resources = Resources {
            devices: vec![
                all,
                rule(true, DeviceType::C, Some(1), Some(3)),
                rule(true, DeviceType::B, Some(8), None),
                rule(true, DeviceType::C, None, None),
            ],
            memory: Some(Memory {
                limit: Some(64),
                swap: Some(100),
                reservation: Some(-1),
                ..Memory::default()
            }),
            cpu: Some(Cpu {
                shares: Some(1024),
                quota: Some(33_333),
                period: Some(100_000),
                cpus: "0-2,9".into(),
                ..Cpu::default()
            }),
            pids: Some(Pids { limit: Some(0) }),
            ..Resources::default()
        };
        let number = |name: &str, value| (name.to_owned(), Value::U64(value));
        let pair = |name: &str| (name.to_owned(), "rw".to_owned());
        let expected = [
            number("MemoryMax", 64),
            number("MemorySwapMax", 36),
            number("MemoryLow", u64::MAX),
            number("CPUWeight", 100),
            number("CPUQuotaPeriodUSec", 100_000),
            number("CPUQuotaPerSecUSec", 340_000),
            ("AllowedCPUs".into(), Value::Bytes(vec![0b111, 0b10])),
            number("TasksMax", u64::MAX),
            ("DevicePolicy".into(), Value::Text("strict".into())),
            (
                "DeviceAllow".into(),
                Value::Pairs(vec![pair("/dev/char/1:3"), pair("block-8"), pair("char-*")]),
            ),
        ];
        assert_eq!(limits(&layout(), &resources).unwrap(), expected);
    }

    /// A bus with a systemd on it that answers `StartTransientUnit` with a job and its result.
    fn serve(mut stream: UnixStream, result: &str) -> io::Result<Vec<String>> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let (mut line, mut members) = (String::new(), Vec::new());
        reader.read_line(&mut line)?;
        assert_eq!(line, format!("\0AUTH EXTERNAL {}\r\n", "30"), "root is 0 in hexadecimal ASCII");
        stream.write_all(b"OK 1234\r\n")?;
        line.clear();
        reader.read_line(&mut line)?;
        loop {
            let mut fixed = [0; 16];
            if reader.read_exact(&mut fixed).is_err() {
                return Ok(members);
            }
            let number = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| fixed[at + byte]));
            let mut rest = vec![0; (number(12) as usize).next_multiple_of(8) + number(4) as usize];
            reader.read_exact(&mut rest)?;
            let message = crate::dbus::Message::parse(&[&fixed[..], &rest].concat())?;
            let started = message.member == "StartTransientUnit";
            if started {
                // The job may be over before the answer comes.
                stream.write_all(&crate::dbus::tests_support::signal(&["/job/1", "x.scope", result]))?;
            }
            let texts: &[&str] = if started { &["/job/1"] } else { &[] };
            stream.write_all(&crate::dbus::tests_support::answer(number(8), texts))?;
            members.push(message.member);
        }
    }

    #[test]
    fn a_scope_is_made_when_its_job_is_done() {
        let directory = std::env::temp_dir().join(format!("ponton-bus-{}", std::process::id()));
        let listener = UnixListener::bind(&directory).unwrap();
        let results = ["done", "failed"];
        let server = std::thread::spawn(move || {
            results.map(|result| serve(listener.accept().unwrap().0, result).unwrap())
        });
        let address = format!("unix:path={}", directory.display());
        let scope = Scope { name: "x.scope".into(), user: false, properties: Vec::new() };
        let mut bus = Connection::open(&address, PATIENCE).unwrap();
        scope.ask_over(&mut bus, 1).unwrap();
        drop(bus);
        let mut bus = Connection::open(&address, PATIENCE).unwrap();
        let error = scope.ask_over(&mut bus, 1).unwrap_err();
        assert!(error.to_string().contains("failed"), "{error}");
        drop(bus);
        let members = server.join().unwrap();
        assert_eq!(members[0], ["Hello", "AddMatch", "Subscribe", "StartTransientUnit"]);
        std::fs::remove_file(directory).unwrap();
    }
}
