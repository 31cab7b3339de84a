//! What a test could leave behind on the host: mounts, network namespaces, links, cgroups, rules, processes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Process ids whose command line has `text`, zombies left out.
pub fn processes_naming(text: &str) -> Vec<u32> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).replace('\0', " ").contains(text) {
            pids.push(pid);
        }
    }
    pids
}

/// Mount points of this mount namespace that lie below `dir`, or mount something of it.
pub fn mounts_under(dir: &Path) -> Vec<String> {
    let dir = dir.to_string_lossy();
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    table.lines().filter(|line| line.contains(dir.as_ref())).map(str::to_owned).collect()
}

/// Directories of containers' cgroups in every hierarchy: those whose name starts with one of `ids`.
pub fn cgroups_of(ids: &[String]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            if ids.iter().any(|id| name.contains(id.as_str())) {
                found.push(entry.path());
            }
            left.push(entry.path());
        }
    }
    found
}

/// Links, rules and named network namespaces, as seen from the network namespace of `pid`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Names of links, without the part behind `@`.
    pub links: BTreeSet<String>,
    /// `nft list ruleset`, handles left out.
    pub rules: String,
}

impl Network {
    /// Looks at the network namespace of a process.
    pub fn of(pid: u32) -> Self {
        let inside = |program: &[&str]| {
            let output = Command::new("nsenter")
                .arg(format!("--net=/proc/{pid}/ns/net"))
                .arg("--")
                .args(program)
                .output()
                .expect("nsenter");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let links = inside(&["ip", "-o", "link"])
            .lines()
            .filter_map(|line| line.split(": ").nth(1))
            .map(|name| name.split('@').next().unwrap_or(name).to_owned())
            .collect();
        Self { links, rules: inside(&["nft", "list", "ruleset"]) }
    }
}

/// Proportional set size of processes, in bytes.
pub fn pss_bytes(pids: &[u32]) -> u64 {
    let of = |pid: &u32| -> u64 {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        line.and_then(|rest| rest.split_whitespace().next())
            .and_then(|kib| kib.parse::<u64>().ok())
            .unwrap_or(0)
    };
    pids.iter().map(of).sum::<u64>() * 1024
}
