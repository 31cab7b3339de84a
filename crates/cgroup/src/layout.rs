//! Where the host's hierarchies are.

use std::path::{Path, PathBuf};

use ponton_sys::{Error, Result, file, user_namespace};

/// Which kernel interface a hierarchy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Version {
    /// One hierarchy for one or some controllers (cgroup-v1/cgroups.rst).
    V1,
    /// One hierarchy for all (cgroup-v2.rst).
    V2,
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Its interface.
    pub version: Version,
    /// Its controllers.
    pub controllers: Vec<String>,
}

/// The hierarchies that containers are put in. Hybrid hosts have v1 hierarchies with controllers
/// and a v2 one without: that one is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The hierarchies, each with at least one controller.
    pub hierarchies: Vec<Hierarchy>,
    /// The kernel accounts swap, so that it can be limited.
    pub swap_accounting: bool,
    /// The caller rules over all groups, and over devices: root in the host's user namespace.
    pub privileged: bool,
    /// The group that the caller makes groups in, without slashes at its ends: the root (empty) with
    /// privileges; else the group above its own, since one with processes can pass no controller on.
    pub base: String,
    /// The group of the systemd that the caller may ask: of the system's the root (empty), of the
    /// user's own that of its service.
    pub manager: String,
    /// Hierarchies without controllers, by which systemd knows what belongs to a unit.
    pub tracking: Vec<Hierarchy>,
}

impl Layout {
    /// Reads it from the mount table of the calling process.
    pub fn detect() -> Result<Self> {
        let path = "/proc/self/mountinfo";
        let table = file::read_text(path).map_err(Error::of("read", path))?;
        let mut layout = Self::from_mountinfo(&table, |mount| {
            file::read_text(mount.join("cgroup.controllers")).unwrap_or_default()
        });
        layout.swap_accounting = layout.with("memory").is_some_and(|memory| match memory.version {
            Version::V1 => memory.mount.join("memory.memsw.limit_in_bytes").exists(),
            Version::V2 => Path::new("/proc/swaps").exists(),
        });
        layout.privileged = rustix::process::geteuid().is_root() && user_namespace::is_initial()?;
        if !layout.privileged && layout.is_v2() {
            let path = "/proc/self/cgroup";
            let own = file::read_text(path).map_err(Error::of("read", path))?;
            layout.base = above_own(&own).to_owned();
            layout.manager = manager_of(&own, rustix::process::geteuid().as_raw());
        }
        Ok(layout)
    }

    /// The layout that a mount table shows; `controllers` reads those of a v2 hierarchy.
    fn from_mountinfo(table: &str, controllers: impl Fn(&Path) -> String) -> Self {
        let (mut hierarchies, mut tracking): (Vec<Hierarchy>, Vec<Hierarchy>) = Default::default();
        for line in table.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(mount) = left.split(' ').nth(4).map(PathBuf::from) else { continue };
            let mut right = right.split(' ');
            let (version, names) = match right.next() {
                Some("cgroup") => (Version::V1, right.nth(1).unwrap_or_default().replace(',', " ")),
                Some("cgroup2") => (Version::V2, controllers(&mount)),
                _ => continue,
            };
            let named = names.split_whitespace().any(|name| name == "name=systemd");
            let controllers: Vec<String> = names
                .split_whitespace()
                .filter(|name| CONTROLLERS.contains(name))
                .map(String::from)
                .collect();
            let known = |hierarchy: &Hierarchy| hierarchy.controllers == controllers;
            if controllers.is_empty() && (named || version == Version::V2) {
                tracking.push(Hierarchy { mount, version, controllers });
            } else if !controllers.is_empty() && !hierarchies.iter().any(known) {
                hierarchies.push(Hierarchy { mount, version, controllers });
            }
        }
        Self { hierarchies, tracking, ..Self::default() }
    }

    /// The hierarchy with this controller, if the kernel has it.
    pub fn with(&self, controller: &str) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|hierarchy| hierarchy.controllers.iter().any(|name| name == controller))
    }

    /// Whether all controllers are in one v2 hierarchy.
    pub fn is_v2(&self) -> bool {
        self.hierarchies.iter().all(|hierarchy| hierarchy.version == Version::V2)
    }
}

/// The group of the user's systemd: the one that we are in, or where logind starts it.
fn manager_of(table: &str, user: u32) -> String {
    let service = format!("user@{user}.service");
    let own = table.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    match own.split_once(&service) {
        Some((above, _)) => format!("{above}{service}"),
        None => format!("user.slice/user-{user}.slice/{service}"),
    }
}

/// The v2 group above that which /proc/PID/cgroup shows.
fn above_own(table: &str) -> &str {
    let own = table.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    own.rsplit_once('/').map_or("", |(above, _)| above)
}

/// The controllers that are used.
const CONTROLLERS: [&str; 14] = [
    "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "io", "pids", "hugetlb", "net_cls",
    "net_prio", "rdma", "misc",
];

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:3 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn hybrid_uses_the_v1_hierarchies_that_have_controllers() {
        let layout = Layout::from_mountinfo(HYBRID, |_| String::new());
        let mounts: Vec<_> = layout.hierarchies.iter().map(|h| h.mount.to_str().unwrap()).collect();
        assert_eq!(mounts, ["/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/memory"]);
        assert_eq!(layout.with("cpuacct").unwrap().version, Version::V1);
        assert!(!layout.is_v2());
        let tracking: Vec<_> = layout.tracking.iter().map(|h| h.mount.to_str().unwrap()).collect();
        assert_eq!(tracking, ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"]);
    }

    #[test]
    fn the_group_above_ones_own_is_found() {
        assert_eq!(above_own("1:name=systemd:/x\n0::/user.slice/a.scope\n"), "user.slice");
        let own = "0::/user.slice/user-7.slice/user@7.service/app.slice/x.scope\n";
        assert_eq!(manager_of(own, 7), "user.slice/user-7.slice/user@7.service");
        assert_eq!(manager_of("0::/x\n", 7), "user.slice/user-7.slice/user@7.service");
        assert_eq!([above_own("0::/a"), above_own("0::/"), above_own("")], ["", "", ""]);
    }

    #[test]
    fn v2_has_one_hierarchy() {
        let table = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let layout = Layout::from_mountinfo(table, |_| "cpuset cpu io memory pids".into());
        assert!(layout.is_v2());
        assert_eq!(layout.with("memory").unwrap().mount, Path::new("/sys/fs/cgroup"));
    }
}
