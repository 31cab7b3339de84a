//! What will be written to make a group.

use std::path::{Path, PathBuf};

use ponton_oci::runtime::Resources;
use serde::{Deserialize, Serialize};

use crate::layout::{Hierarchy, Layout, Version};
use crate::limit::{self, Setting};

/// Everything that will be written to make a control group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupPlan {
    path: String,
    pub(crate) groups: Vec<GroupPlan>,
}

/// The group in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupPlan {
    pub(crate) mount: PathBuf,
    pub(crate) version: Version,
    /// The controllers that are used.
    pub(crate) controllers: Vec<String>,
    pub(crate) writes: Vec<Write>,
    /// Device rules of a v2 group, which become a program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) devices: Option<Vec<ponton_oci::runtime::DeviceRule>>,
}

/// One write to a file of the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Write {
    pub(crate) file: String,
    pub(crate) value: String,
}

/// A limit that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct PlanError {
    /// Its path below `linux.resources`.
    pub field: String,
    /// Why not.
    pub message: String,
}

impl PlanError {
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

impl CgroupPlan {
    /// The group's path below each hierarchy's root, without a slash at either end.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The group's directory in each hierarchy, with the hierarchy's name: the last component of its
    /// mount point.
    pub fn directories(&self) -> impl Iterator<Item = (&Path, Version, PathBuf)> {
        self.groups.iter().map(|group| (group.mount.as_path(), group.version, group.mount.join(&self.path)))
    }

    /// What is written, as `file=value`, device rules left out.
    pub fn limits(&self) -> Vec<String> {
        let writes = self.groups.iter().flat_map(|group| &group.writes);
        writes
            .filter(|write| !write.file.starts_with("devices."))
            .map(|write| format!("{}={}", write.file, write.value))
            .collect()
    }
}

/// The controllers that every container is put in, for its stats and its end.
const ALWAYS: [&str; 8] = ["cpu", "cpuacct", "memory", "devices", "freezer", "blkio", "io", "pids"];

/// Computes what has to be written for `resources` in the group `path`, which is relative to the
/// root of each hierarchy.
pub fn plan(layout: &Layout, path: &str, resources: &Resources) -> Result<CgroupPlan, PlanError> {
    let path = path.trim_matches('/');
    if path.is_empty() || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(PlanError::new("cgroupsPath", format!("{path:?} is not a path of names")));
    }
    let settings = limit::settings(resources)?;
    let mut groups: Vec<GroupPlan> = layout.hierarchies.iter().filter_map(always).collect();
    for setting in settings {
        add(layout, &mut groups, setting)?;
    }
    devices(&mut groups, resources);
    Ok(CgroupPlan { path: path.to_owned(), groups })
}

fn always(hierarchy: &Hierarchy) -> Option<GroupPlan> {
    let controllers: Vec<String> =
        hierarchy.controllers.iter().filter(|name| ALWAYS.contains(&name.as_str())).cloned().collect();
    (!controllers.is_empty()).then(|| new_group(hierarchy, controllers))
}

fn new_group(hierarchy: &Hierarchy, controllers: Vec<String>) -> GroupPlan {
    let Hierarchy { mount, version, .. } = hierarchy.clone();
    GroupPlan { mount, version, controllers, writes: Vec::new(), devices: None }
}

/// Adds a setting to the group of the hierarchy that has its controller.
fn add(layout: &Layout, groups: &mut Vec<GroupPlan>, setting: Setting) -> Result<(), PlanError> {
    let hierarchy = [setting.v1.as_ref(), setting.v2.as_ref()]
        .into_iter()
        .flatten()
        .find_map(|file| layout.with(file.controller));
    let Some(hierarchy) = hierarchy else {
        return Err(PlanError::new(setting.field, "the kernel has no controller for it"));
    };
    let file = match hierarchy.version {
        Version::V1 => setting.v1,
        Version::V2 => setting.v2,
    };
    let Some(file) = file else {
        return Err(PlanError::new(
            setting.field,
            format!("cgroup {:?} has nothing for it", hierarchy.version),
        ));
    };
    if file.needs_swap_accounting && !layout.swap_accounting {
        return Ok(());
    }
    let known = groups.iter().position(|group| group.mount == hierarchy.mount);
    let index = known.unwrap_or_else(|| {
        groups.push(new_group(hierarchy, Vec::new()));
        groups.len() - 1
    });
    let group = &mut groups[index];
    if !group.controllers.iter().any(|name| name == file.controller) {
        group.controllers.push(file.controller.to_owned());
    }
    let write = Write { file: file.name, value: file.value };
    // Two fields may be one file of v2.
    if group.writes.last() != Some(&write) {
        group.writes.push(write);
    }
    Ok(())
}

/// Device rules: a list of writes on v1, a program on v2.
fn devices(groups: &mut [GroupPlan], resources: &Resources) {
    if resources.devices.is_empty() {
        return;
    }
    for group in groups {
        if group.version == Version::V2 {
            group.devices = Some(resources.devices.clone());
        } else if group.controllers.iter().any(|name| name == "devices") {
            group.writes.extend(resources.devices.iter().map(|rule| Write {
                file: if rule.allow { "devices.allow" } else { "devices.deny" }.to_owned(),
                value: limit::device_rule(rule),
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use ponton_oci::runtime::{Cpu, DeviceRule, DeviceType, Memory, Pids};

    use super::*;

    fn v1() -> Layout {
        let hierarchy = |name: &str| Hierarchy {
            mount: format!("/sys/fs/cgroup/{name}").into(),
            version: Version::V1,
            controllers: name.split(',').map(String::from).collect(),
        };
        Layout {
            hierarchies: ["cpu,cpuacct", "cpuset", "memory", "devices", "pids"].map(hierarchy).into(),
            swap_accounting: true,
        }
    }

    fn v2() -> Layout {
        let controllers = ["cpuset", "cpu", "io", "memory", "pids"].map(String::from).into();
        let hierarchy = Hierarchy { mount: "/sys/fs/cgroup".into(), version: Version::V2, controllers };
        Layout { hierarchies: vec![hierarchy], swap_accounting: true }
    }

    fn resources() -> Resources {
        let allow = DeviceRule {
            allow: true,
            r#type: DeviceType::C,
            major: Some(1),
            minor: None,
            access: "rwm".into(),
        };
        Resources {
            devices: vec![DeviceRule { access: "rwm".into(), ..Default::default() }, allow],
            memory: Some(Memory { limit: Some(64 << 20), swap: Some(128 << 20), ..Default::default() }),
            cpu: Some(Cpu {
                shares: Some(512),
                quota: Some(50_000),
                period: Some(100_000),
                ..Default::default()
            }),
            pids: Some(Pids { limit: Some(100) }),
            ..Default::default()
        }
    }

    #[test]
    fn one_table_gives_v1_files() {
        let plan = plan(&v1(), "/ponton/a", &resources()).unwrap();
        assert_eq!(
            plan.limits(),
            [
                "cpu.shares=512",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "memory.limit_in_bytes=67108864",
                "memory.memsw.limit_in_bytes=134217728",
                "pids.max=100",
            ]
        );
        let devices = plan.groups.iter().find(|group| group.mount.ends_with("devices")).unwrap();
        let lines: Vec<_> = devices.writes.iter().map(|w| format!("{} {}", w.file, w.value)).collect();
        assert_eq!(lines, ["devices.deny a *:* rwm", "devices.allow c 1:* rwm"]);
        assert!(!plan.groups.iter().any(|group| group.mount.ends_with("cpuset")), "not without limits");
    }

    #[test]
    fn one_table_gives_v2_files() {
        let plan = plan(&v2(), "ponton/a", &resources()).unwrap();
        assert_eq!(
            plan.limits(),
            [
                "memory.max=67108864",
                "memory.swap.max=67108864",
                "cpu.weight=20",
                "cpu.max=50000 100000",
                "pids.max=100",
            ]
        );
        assert_eq!(plan.groups[0].devices.as_ref().unwrap().len(), 2);
    }

    #[test]
    fn paths_cannot_leave_the_hierarchy() {
        for path in ["", "/", "../a", "a/../b", "a//b", "a/./b"] {
            assert!(plan(&v1(), path, &Resources::default()).is_err(), "{path}");
        }
    }

    #[test]
    fn a_limit_without_its_controller_is_refused() {
        let mut layout = v1();
        layout.hierarchies.retain(|hierarchy| !hierarchy.controllers.contains(&"pids".into()));
        let error = plan(&layout, "a", &resources()).unwrap_err();
        assert_eq!(error.field, "pids.limit");
    }
}
