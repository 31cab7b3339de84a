//! What `/proc` tells of processes (proc(5)).

use std::collections::BTreeMap;
use std::fs;

use ponton_api::explain::{Process, Rlimit, Security};

use crate::spec;

/// As many processes are told of.
const MAX_PROCESSES: usize = 1_000;
/// As many bytes of a command are told.
const MAX_COMMAND: usize = 200;

/// Ids, capabilities and what confines a process, from `/proc/PID/status`.
pub(super) fn security(status: &str) -> Security {
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim()
    };
    // Real, effective, saved, file system's.
    let effective = |name| field(name).split_whitespace().nth(1).and_then(|id| id.parse().ok()).unwrap_or(0);
    let capabilities = |name| {
        let mask = u64::from_str_radix(field(name), 16).unwrap_or(0);
        spec::capability_names(mask)
    };
    Security {
        uid: effective("Uid"),
        gid: effective("Gid"),
        groups: field("Groups").split_whitespace().filter_map(|group| group.parse().ok()).collect(),
        effective: capabilities("CapEff"),
        permitted: capabilities("CapPrm"),
        inheritable: capabilities("CapInh"),
        bounding: capabilities("CapBnd"),
        ambient: capabilities("CapAmb"),
        no_new_privileges: field("NoNewPrivs") == "1",
        seccomp: match field("Seccomp") {
            "1" => "strict",
            "2" => "filter",
            _ => "disabled",
        }
        .to_owned(),
        seccomp_filters: field("Seccomp_filters").parse().unwrap_or(0),
        ..Security::default()
    }
}

/// The names of `/proc/PID/limits`, and those of `--ulimit`.
const RLIMITS: [(&str, &str); 16] = [
    ("Max cpu time", "cpu"),
    ("Max file size", "fsize"),
    ("Max data size", "data"),
    ("Max stack size", "stack"),
    ("Max core file size", "core"),
    ("Max resident set", "rss"),
    ("Max processes", "nproc"),
    ("Max open files", "nofile"),
    ("Max locked memory", "memlock"),
    ("Max address space", "as"),
    ("Max file locks", "locks"),
    ("Max pending signals", "sigpending"),
    ("Max msgqueue size", "msgqueue"),
    ("Max nice priority", "nice"),
    ("Max realtime priority", "rtprio"),
    ("Max realtime timeout", "rttime"),
];

/// Limits of a process, from `/proc/PID/limits`.
pub(super) fn rlimits(text: &str) -> Vec<Rlimit> {
    let mut found: Vec<Rlimit> = text
        .lines()
        .filter_map(|line| {
            let (long, name) = RLIMITS.iter().find(|(long, _)| line.starts_with(long))?;
            let mut values = line[long.len()..].split_whitespace();
            let mut value = || values.next().unwrap_or_default().to_owned();
            Some(Rlimit { name: (*name).to_owned(), soft: value(), hard: value() })
        })
        .collect();
    found.sort_by(|left, right| left.name.cmp(&right.name));
    found
}

/// The processes of a container from its first, each behind its parent.
pub(super) fn tree(first: u32, pids: &[u32]) -> Vec<Process> {
    let mut children: BTreeMap<u32, Vec<Process>> = BTreeMap::new();
    let known = |pid: &u32| pids.contains(pid);
    for process in pids.iter().take(MAX_PROCESSES).filter_map(|pid| read(*pid)) {
        // What `exec` started has a parent outside.
        let parent = if process.pid != first && known(&process.parent) { process.parent } else { 0 };
        children.entry(parent).or_default().push(process);
    }
    let mut ordered = Vec::new();
    let mut roots = children.remove(&0).unwrap_or_default();
    roots.sort_by_key(|process| (process.pid != first, process.pid));
    let mut left: Vec<(u32, Process)> = roots.into_iter().rev().map(|process| (0, process)).collect();
    while let Some((depth, process)) = left.pop() {
        let below = children.remove(&process.pid).unwrap_or_default();
        left.extend(below.into_iter().rev().map(|child| (depth + 1, child)));
        ordered.push(Process { depth, ..process });
    }
    ordered
}

/// A process; `None` when it has ended meanwhile.
fn read(pid: u32) -> Option<Process> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(parse(pid, &status, &command))
}

fn parse(pid: u32, status: &str, command: &[u8]) -> Process {
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim()
    };
    let number = |text: Option<&str>| text.and_then(|text| text.parse().ok()).unwrap_or(0);
    // A process writes there what it likes: no control characters reach a terminal.
    let command = &command[..command.len().min(MAX_COMMAND)];
    let text = String::from_utf8_lossy(command).trim_end_matches('\0').replace('\0', " ");
    let text: String = text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect();
    Process {
        pid,
        // The innermost namespace is the last.
        container_pid: number(field("NSpid").split_whitespace().last()),
        parent: number(Some(field("PPid"))),
        depth: 0,
        uid: number(field("Uid").split_whitespace().nth(1)),
        state: field("State").chars().take(1).collect(),
        command: if text.is_empty() { format!("[{}]", field("Name")) } else { text },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tsh\nState:\tS (sleeping)\nPPid:\t7\nUid:\t0\t1000\t0\t0\nGid:\t0\t100\t0\t0\n\
        Groups:\t10 20 \nNSpid:\t4711\t1\nCapInh:\t0\nCapPrm:\t00000000a80425fb\nCapEff:\t0000000000000401\n\
        CapBnd:\t000001ffffffffff\nCapAmb:\t0\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n";

    #[test]
    fn a_status_is_read() {
        let security = security(STATUS);
        assert_eq!((security.uid, security.gid, &security.groups[..]), (1000, 100, &[10, 20][..]));
        assert_eq!(security.effective, ["CAP_CHOWN", "CAP_NET_BIND_SERVICE"]);
        assert_eq!((security.permitted.len(), security.bounding.len(), security.ambient.len()), (14, 41, 0));
        assert!(security.no_new_privileges);
        assert_eq!((security.seccomp.as_str(), security.seccomp_filters), ("filter", 3));
    }

    #[test]
    fn limits_have_the_names_of_ulimit() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
            Max open files            1024                 524288               files     \n\
            Max cpu time              unlimited            unlimited            seconds   \n\
            Max strange thing         1                    2                    things    \n";
        let limits = rlimits(text);
        let shown: Vec<_> =
            limits.iter().map(|l| (l.name.as_str(), l.soft.as_str(), l.hard.as_str())).collect();
        assert_eq!(shown, [("cpu", "unlimited", "unlimited"), ("nofile", "1024", "524288")]);
    }

    #[test]
    fn processes_stand_behind_their_parents() {
        let process = parse(4711, STATUS, b"sh\0-c\0echo \x1b[2J\0");
        assert_eq!((process.container_pid, process.parent, process.uid), (1, 7, 1000));
        assert_eq!((process.state.as_str(), process.command.as_str()), ("S", "sh -c echo ?[2J"));
        assert_eq!(parse(2, STATUS, b"").command, "[sh]");
        assert_eq!(parse(2, STATUS, &[b'x'; 5000]).command.len(), MAX_COMMAND);

        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let own = std::process::id();
        let all = tree(own, &[child.id(), own]);
        child.kill().unwrap();
        child.wait().unwrap();
        let shown: Vec<_> = all.iter().map(|process| (process.pid, process.depth)).collect();
        assert_eq!(shown, [(own, 0), (child.id(), 1)]);
    }
}
