//! What will be written to make a group.

use std::path::{Path, PathBuf};

use ponton_oci::runtime::{DeviceRule, Resources};
use serde::{Deserialize, Serialize};

use crate::layout::{Hierarchy, Layout, Version};
use crate::limit::{self, File, Setting};
use crate::systemd::Scope;

/// Everything that will be written to make a control group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupPlan {
    path: String,
    pub(crate) groups: Vec<GroupPlan>,
    /// Where the caller may not make the group, the container does without.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) dispensable: bool,
    /// systemd makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scope: Option<Scope>,
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
    /// Why: the field below `linux.resources`.
    pub(crate) field: String,
    pub(crate) file: String,
    pub(crate) value: String,
    /// File and value where the kernel has no `file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) otherwise: Option<(String, String)>,
    /// Nothing is lost where the kernel has no such file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) optional: bool,
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

    /// A caller who may not make the group goes on without one, if it was given no name and no limits.
    #[must_use]
    pub fn or_none(self) -> Self {
        let dispensable = self.groups.iter().all(|group| group.writes.is_empty());
        Self { dispensable, ..self }
    }

    /// The container is in these hierarchies too.
    pub(crate) fn track(&mut self, hierarchies: &[Hierarchy]) {
        let known = |hierarchy: &&Hierarchy| self.groups.iter().all(|group| group.mount != hierarchy.mount);
        let more: Vec<_> =
            hierarchies.iter().filter(known).map(|hierarchy| new_group(hierarchy, Vec::new())).collect();
        self.groups.extend(more);
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

/// Computes what has to be written for `resources` in the group `path`: absolute from the root of
/// each hierarchy, relative from the group that the caller may make groups in ([`Layout::base`]).
pub fn plan(layout: &Layout, path: &str, resources: &Resources) -> Result<CgroupPlan, PlanError> {
    let path = resolve(layout, path)?;
    let settings = limit::settings(resources)?;
    let mut groups: Vec<GroupPlan> = layout.hierarchies.iter().filter_map(always).collect();
    for setting in settings {
        add(layout, &mut groups, setting)?;
    }
    let rules = limit::device_rules(&resources.devices)?;
    // Who has no privileges cannot make rules for devices, and needs none: what he may open in a
    // container is what he may open outside, since device files of his own making do not work.
    if layout.privileged {
        devices(&mut groups, &rules);
    }
    Ok(CgroupPlan { path, groups, dispensable: false, scope: None })
}

/// The path from the root of a hierarchy, without slashes at its ends.
fn resolve(layout: &Layout, path: &str) -> Result<String, PlanError> {
    let base = if path.starts_with('/') { "" } else { layout.base.as_str() };
    let own = path.trim_matches('/');
    if own.split('/').any(|part| matches!(part, "" | "." | "..")) || own.contains('\0') {
        return Err(PlanError::new("cgroupsPath", format!("{path:?} is not a path of names")));
    }
    let parts: Vec<&str> = base.split('/').chain(own.split('/')).filter(|part| !part.is_empty()).collect();
    Ok(parts.join("/"))
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
    let core = |file: &File| file.controller == "cgroup";
    let unified = || layout.hierarchies.iter().find(|hierarchy| hierarchy.version == Version::V2);
    let hierarchy =
        hierarchy.or_else(|| setting.v2.as_ref().filter(|file| core(file)).and_then(|_| unified()));
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
        return Err(PlanError::new(setting.field, "the kernel does not account swap"));
    }
    if file.name.is_empty() {
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
    let File { name, value, otherwise, optional, .. } = file;
    // Two fields may be one file of v2.
    if !group.writes.last().is_some_and(|last| last.file == name && last.value == value) {
        group.writes.push(Write { field: setting.field, file: name, value, otherwise, optional });
    }
    Ok(())
}

/// Device rules: a list of writes on v1, a program on v2.
fn devices(groups: &mut [GroupPlan], rules: &[DeviceRule]) {
    if rules.is_empty() {
        return;
    }
    // Of a hybrid host the v1 controller decides.
    let has_v1 = |group: &GroupPlan| group.controllers.iter().any(|name| name == "devices");
    if let Some(group) = groups.iter_mut().find(|group| has_v1(group)) {
        group.writes.extend(rules.iter().map(|rule| Write {
            field: "devices".to_owned(),
            file: if rule.allow { "devices.allow" } else { "devices.deny" }.to_owned(),
            value: limit::device_rule(rule),
            otherwise: None,
            optional: false,
        }));
    } else if let Some(group) = groups.iter_mut().find(|group| group.version == Version::V2) {
        group.devices = Some(rules.to_vec());
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
            privileged: true,
            ..Layout::default()
        }
    }

    fn v2() -> Layout {
        let controllers = ["cpuset", "cpu", "io", "memory", "pids"].map(String::from).into();
        let hierarchy = Hierarchy { mount: "/sys/fs/cgroup".into(), version: Version::V2, controllers };
        Layout { hierarchies: vec![hierarchy], swap_accounting: true, privileged: true, ..Layout::default() }
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
                "cpu.weight=59",
                "cpu.max=50000 100000",
                "pids.max=100",
            ]
        );
        assert_eq!(plan.groups[0].devices.as_ref().unwrap().len(), 2);
    }

    #[test]
    fn paths_cannot_leave_the_hierarchy() {
        for path in ["", "/", "../a", "a/../b", "a/..", "/..", ".", "a//b", "a/./b"] {
            assert!(plan(&v1(), path, &Resources::default()).is_err(), "{path}");
        }
    }

    #[test]
    fn a_relative_path_is_in_the_group_that_was_delegated() {
        let layout = Layout { base: "user.slice/app.slice".into(), privileged: false, ..v2() };
        let path = |path| plan(&layout, path, &Resources::default()).map(|plan| plan.path);
        assert_eq!(path("a/b/"), Ok("user.slice/app.slice/a/b".into()));
        assert_eq!(path("/a/b"), Ok("a/b".into()));
        assert!(path("../b").is_err());
    }

    #[test]
    fn what_a_version_does_not_have_is_refused_by_its_name() {
        let memory = |memory| Resources { memory: Some(memory), ..Resources::default() };
        let cases = [
            (memory(Memory { swappiness: Some(7), ..Memory::default() }), "memory.swappiness"),
            (
                memory(Memory { disable_oom_killer: Some(true), ..Memory::default() }),
                "memory.disableOOMKiller",
            ),
            (memory(Memory { use_hierarchy: Some(false), ..Memory::default() }), "memory.useHierarchy"),
            (memory(Memory { kernel: Some(1 << 20), ..Memory::default() }), "memory.kernel"),
            (memory(Memory { kernel_tcp: Some(1 << 20), ..Memory::default() }), "memory.kernelTCP"),
        ];
        for (resources, field) in cases {
            assert_eq!(plan(&v2(), "a", &resources).unwrap_err().field, field);
            assert!(plan(&v1(), "a", &resources).is_ok(), "{field}");
        }
        let unified =
            |name: &str| Resources { unified: [(name.into(), "1".into())].into(), ..Resources::default() };
        assert_eq!(plan(&v1(), "a", &unified("pids.max")).unwrap_err().field, "unified[pids.max]");
        assert!(plan(&v2(), "a", &unified("cgroup.max.depth")).is_ok());
        for name in ["cgroup.procs", "pids", "../pids.max", "pids./../../x", "nosuch.max", "cgroup.kill", ""]
        {
            assert_eq!(plan(&v2(), "a", &unified(name)).unwrap_err().field, format!("unified[{name}]"));
        }
        let always = memory(Memory { use_hierarchy: Some(true), ..Memory::default() });
        assert!(plan(&v2(), "a", &always).unwrap().limits().is_empty());
    }

    #[test]
    fn swap_that_is_not_accounted_cannot_be_limited() {
        let layout = Layout { swap_accounting: false, ..v1() };
        let swap = |swap| {
            let memory = Memory { limit: Some(100), swap: Some(swap), ..Memory::default() };
            plan(&layout, "a", &Resources { memory: Some(memory), ..Resources::default() })
        };
        assert_eq!(swap(150).unwrap_err().field, "memory.swap");
        assert!(swap(100).is_ok() && swap(-1).is_ok());
    }

    #[test]
    fn rules_for_devices_are_what_they_say() {
        let rule = |r#type, major, access: &str| DeviceRule {
            allow: true,
            r#type,
            major,
            access: access.into(),
            ..DeviceRule::default()
        };
        let lines = |rule| {
            let resources = Resources { devices: vec![rule], ..Resources::default() };
            let plan = plan(&v1(), "a", &resources).map_err(|error| error.field)?;
            let writes = plan.groups.into_iter().flat_map(|group| group.writes);
            Ok::<_, String>(writes.map(|write| write.value).collect::<Vec<_>>())
        };
        assert_eq!(lines(rule(DeviceType::A, None, "")).unwrap(), ["a *:* rwm"]);
        assert_eq!(lines(rule(DeviceType::A, Some(1), "r")).unwrap(), ["b 1:* r", "c 1:* r"]);
        assert_eq!(lines(rule(DeviceType::P, None, "r")).unwrap_err(), "devices[0].type");
        assert_eq!(lines(rule(DeviceType::C, Some(1), "rx")).unwrap_err(), "devices[0].access");
        assert_eq!(lines(rule(DeviceType::C, Some(-7), "r")).unwrap_err(), "devices[0].major");
    }

    #[test]
    fn sizes_of_pages_are_no_paths() {
        for size in ["2", "MB", "2mb", "../2MB", "2MB/..", "2TB", "B", "2MMB"] {
            let huge = ponton_oci::runtime::HugepageLimit { page_size: size.into(), limit: 0 };
            let resources = Resources { hugepage_limits: vec![huge], ..Resources::default() };
            assert_eq!(
                plan(&v1(), "a", &resources).unwrap_err().field,
                "hugepageLimits[0].pageSize",
                "{size}"
            );
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
