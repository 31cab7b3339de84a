//! Spec to plan.

use std::path::{Path, PathBuf};

use ponton_cgroup::{CgroupPlan, Version};
use ponton_oci::runtime::{Device, DeviceRule, DeviceType, Hooks, Linux, Mount, NamespaceType, Spec};

use super::mount::parse_options;
use super::{
    Action, Attributes, DeviceNode, Join, MountPlan, Plan, PlanError, PlanInput, Propagation, Source, Step,
    plan_process,
};
use crate::host::Host;

/// Computes what has to be done for `spec` on `host`. Touches nothing.
pub fn plan(spec: &Spec, host: &Host, input: &PlanInput<'_>) -> Result<Plan, PlanError> {
    let default = Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&default);
    refuse_unbuilt(spec, linux)?;
    if input.no_pivot {
        return Err(PlanError::not_implemented("--no-pivot", "a root without pivot_root"));
    }
    let process = spec.process.as_ref().ok_or_else(|| PlanError::invalid("process", "is missing"))?;
    if linux.seccomp.is_some() != input.process.seccomp.is_some() {
        return Err(PlanError::invalid("linux.seccomp", "is given with its compiled filter, or not at all"));
    }

    let mut builder = Builder { steps: Vec::new(), host, input };
    let cgroup = builder.cgroup(linux)?;
    builder.namespaces(linux)?;
    builder.rootfs(spec)?;
    builder.mounts(spec, &cgroup)?;
    builder.devices(spec, linux)?;
    if process.terminal && !binds(spec, "/dev/console") {
        builder.push("process.terminal", Action::Console);
    }
    // Before /proc/sys becomes read-only.
    builder.identity(spec, linux)?;
    builder.finish_root(spec, linux)?;
    let process = plan_process(process, host, &input.process)?;
    builder.push("process", Action::Exec(process));
    Ok(Plan { id: input.id.to_owned(), steps: builder.steps })
}

fn refuse_unbuilt(spec: &Spec, linux: &Linux) -> Result<(), PlanError> {
    let unbuilt = [
        ("hooks", spec.hooks.as_ref().is_some_and(|hooks| *hooks != Hooks::default())),
        ("linux.uidMappings", !linux.uid_mappings.is_empty()),
        ("linux.gidMappings", !linux.gid_mappings.is_empty()),
        ("linux.netDevices", !linux.net_devices.is_empty()),
        ("linux.intelRdt", linux.intel_rdt.is_some()),
        ("linux.memoryPolicy", linux.memory_policy.is_some()),
        ("linux.personality", linux.personality.is_some()),
        ("linux.timeOffsets", !linux.time_offsets.is_empty()),
        ("linux.mountLabel", !linux.mount_label.is_empty()),
    ];
    match unbuilt.into_iter().find(|(_, is_asked)| *is_asked) {
        Some((field, _)) => Err(PlanError::not_implemented(field, "this field")),
        None => Ok(()),
    }
}

/// Whether the user mounts something of the host at this path.
fn binds(spec: &Spec, target: &str) -> bool {
    spec.mounts.iter().any(|mount| {
        normal(&mount.destination) == target
            && (mount.r#type == "bind"
                || mount.options.iter().any(|option| option == "bind" || option == "rbind"))
    })
}

/// An absolute path without doubled, trailing or single-dot parts. `..` stays: only the kernel knows
/// what it means behind a symlink.
fn normal(path: &str) -> String {
    let mut normal = String::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        normal.push('/');
        normal.push_str(part);
    }
    if normal.is_empty() { "/".to_owned() } else { normal }
}

struct Builder<'a> {
    steps: Vec<Step>,
    host: &'a Host,
    input: &'a PlanInput<'a>,
}

impl Builder<'_> {
    fn push(&mut self, cause: impl Into<String>, action: Action) {
        self.steps.push(Step { action, cause: cause.into() });
    }

    fn cgroup(&mut self, linux: &Linux) -> Result<CgroupPlan, PlanError> {
        let default = format!("ponton/{}", self.input.id);
        let path = if linux.cgroups_path.is_empty() { &default } else { &linux.cgroups_path };
        let mut resources = linux.resources.clone().unwrap_or_default();
        if !resources.devices.is_empty() {
            // What is allowed already, and not denied after that, is not written twice.
            let last_denied = resources.devices.iter().rposition(|rule| !rule.allow);
            let settled = resources.devices.split_off(last_denied.map_or(0, |at| at + 1));
            let missing = default_device_rules().filter(|rule| !settled.contains(rule));
            let missing: Vec<_> = missing.collect();
            resources.devices.extend(settled.into_iter().chain(missing));
        }
        let plan = ponton_cgroup::plan(&self.host.cgroup, path, &resources).map_err(|error| {
            match error.field.as_str() {
                "cgroupsPath" => PlanError::invalid("linux.cgroupsPath", error.message),
                field => PlanError::invalid(format!("linux.resources.{field}"), error.message),
            }
        })?;
        self.push("linux.resources", Action::Cgroup(plan.clone()));
        Ok(plan)
    }

    fn namespaces(&mut self, linux: &Linux) -> Result<(), PlanError> {
        let (mut new, mut join) = (Vec::new(), Vec::new());
        for (index, namespace) in linux.namespaces.iter().enumerate() {
            let field = format!("linux.namespaces[{index}]");
            let kind = namespace.r#type;
            if matches!(kind, NamespaceType::User | NamespaceType::Time) {
                return Err(PlanError::not_implemented(field, format!("{kind} namespaces")));
            }
            if new.contains(&kind) || join.iter().any(|join: &Join| join.r#type == kind) {
                return Err(PlanError::invalid(field, format!("a second {kind} namespace")));
            }
            match &namespace.path {
                _ if kind == NamespaceType::Network && self.input.netns => {
                    join.push(Join { r#type: kind, path: None });
                }
                Some(path) if kind == NamespaceType::Mount => {
                    return Err(PlanError::not_implemented(field, format!("joining {path}")));
                }
                Some(path) => join.push(Join { r#type: kind, path: Some(path.into()) }),
                None => new.push(kind),
            }
        }
        if !new.contains(&NamespaceType::Mount) {
            return Err(PlanError::invalid("linux.namespaces", "a mount namespace is needed"));
        }
        self.push("linux.namespaces", Action::Clone { new, join });
        Ok(())
    }

    fn rootfs(&mut self, spec: &Spec) -> Result<(), PlanError> {
        let Some((first, further)) = self.input.rootfs.split_first() else {
            let root = spec.root.as_ref().filter(|root| !root.path.is_empty());
            let root = root.ok_or_else(|| PlanError::invalid("root.path", "is missing"))?;
            let source = Source::Bind { path: self.host_path(&root.path), recursive: true };
            let (attributes, propagation) = (Attributes::default(), None);
            self.push(
                "root",
                Action::Rootfs(MountPlan { source, target: "/".into(), attributes, propagation }),
            );
            return Ok(());
        };
        let mount = |mount: &super::RootMount, field: &str| {
            let spec = Mount {
                destination: mount.target.clone().unwrap_or_else(|| "/".into()),
                r#type: mount.r#type.clone(),
                source: mount.source.clone(),
                options: mount.options.clone(),
                ..Mount::default()
            };
            self.mount_plan(&spec, field)
        };
        let first = mount(first, "root")?;
        let further = further.iter().map(|further| mount(further, "root")).collect::<Result<Vec<_>, _>>()?;
        self.push("root", Action::Rootfs(first));
        for further in further {
            self.push("root", Action::Mount(further));
        }
        Ok(())
    }

    /// A path of the host, relative ones from the bundle.
    fn host_path(&self, path: &str) -> PathBuf {
        self.input.bundle.unwrap_or(Path::new("/")).join(path)
    }

    fn mount_plan(&self, mount: &Mount, field: &str) -> Result<MountPlan, PlanError> {
        if !mount.destination.starts_with('/') || mount.destination.contains('\0') {
            let message = format!("{:?} is not an absolute path", mount.destination);
            return Err(PlanError::invalid(format!("{field}.destination"), message));
        }
        if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
            return Err(PlanError::not_implemented(format!("{field}.uidMappings"), "mapped mounts"));
        }
        let options = parse_options(&mount.options, &format!("{field}.options"))?;
        let source = if mount.r#type == "bind" || options.bind.is_some() {
            if let Some(unknown) = options.data.first() {
                let message = format!("a bind mount has no option {unknown:?}");
                return Err(PlanError::invalid(format!("{field}.options"), message));
            }
            if mount.source.is_empty() || mount.source.contains('\0') {
                return Err(PlanError::invalid(format!("{field}.source"), "a bind mount needs a source"));
            }
            Source::Bind { path: self.host_path(&mount.source), recursive: options.bind.unwrap_or(true) }
        } else if mount.r#type.is_empty() {
            return Err(PlanError::invalid(format!("{field}.type"), "is missing"));
        } else {
            let (r#type, source) = (mount.r#type.clone(), mount.source.clone());
            Source::FileSystem { r#type, source, options: options.data }
        };
        Ok(MountPlan {
            source,
            target: normal(&mount.destination),
            attributes: options.attributes,
            propagation: options.propagation,
        })
    }

    fn mounts(&mut self, spec: &Spec, cgroup: &CgroupPlan) -> Result<(), PlanError> {
        let mut late = Vec::new();
        for (index, mount) in spec.mounts.iter().enumerate() {
            let cause = format!("mounts[{index}]");
            let mut plan = self.mount_plan(mount, &cause)?;
            let Source::FileSystem { r#type, .. } = &mut plan.source else {
                self.push(cause, Action::Mount(plan));
                continue;
            };
            match r#type.as_str() {
                "cgroup" | "cgroup2" if self.host.cgroup.is_v2() => "cgroup2".clone_into(r#type),
                "cgroup" => {
                    self.cgroup_v1_mount(&cause, &plan, cgroup);
                    continue;
                }
                // Mount points below are made in it before it becomes read-only.
                "tmpfs" if plan.attributes.is_read_only() => {
                    let attributes = std::mem::take(&mut plan.attributes);
                    plan.attributes.set = attributes.set & !Attributes::READ_ONLY.set;
                    late.push((cause.clone(), plan.target.clone()));
                }
                _ => {}
            }
            self.push(cause, Action::Mount(plan));
        }
        for (cause, target) in late {
            self.push(
                cause,
                Action::Attributes { target, attributes: Attributes::READ_ONLY, propagation: None },
            );
        }
        Ok(())
    }

    /// On v1 the container sees its own group of every hierarchy, below a tmpfs.
    fn cgroup_v1_mount(&mut self, cause: &str, mount: &MountPlan, cgroup: &CgroupPlan) {
        let options = vec!["mode=755".to_owned()];
        let (r#type, source) = ("tmpfs".to_owned(), "cgroup".to_owned());
        let read_only = mount.attributes.is_read_only();
        let mut top = mount.clone();
        top.source = Source::FileSystem { r#type, source, options };
        top.attributes.set &= !Attributes::READ_ONLY.set;
        self.push(cause, Action::Mount(top));
        let mut links = Vec::new();
        for (hierarchy, version, directory) in cgroup.directories() {
            let Some(name) = hierarchy.file_name().and_then(|name| name.to_str()) else { continue };
            if version == Version::V2 {
                continue;
            }
            let target = format!("{}/{name}", mount.target);
            let source = Source::Bind { path: directory, recursive: false };
            self.push(cause, Action::Mount(MountPlan { source, target, ..mount.clone() }));
            if name.contains(',') {
                links.extend(
                    name.split(',').map(|part| (format!("{}/{part}", mount.target), name.to_owned())),
                );
            }
        }
        if !links.is_empty() {
            self.push(cause, Action::Devices { nodes: Vec::new(), links });
        }
        if read_only {
            let (target, attributes) = (mount.target.clone(), Attributes::READ_ONLY);
            self.push(cause, Action::Attributes { target, attributes, propagation: None });
        }
    }

    fn devices(&mut self, spec: &Spec, linux: &Linux) -> Result<(), PlanError> {
        if binds(spec, "/dev") {
            return Ok(());
        }
        let mut nodes = Vec::new();
        for (path, major, minor) in DEFAULT_DEVICES {
            let (path, r#type) = (path.to_owned(), DeviceType::C);
            nodes.push(DeviceNode { path, r#type, major, minor, mode: 0o666, uid: 0, gid: 0 });
        }
        for (index, device) in linux.devices.iter().enumerate() {
            let node = device_node(device, &format!("linux.devices[{index}]"))?;
            nodes.retain(|known| known.path != node.path);
            nodes.push(node);
        }
        let has_core = self.host.has_kcore;
        let links = DEFAULT_LINKS
            .iter()
            .filter(|(path, _)| *path != CORE || has_core)
            .map(|(path, content)| ((*path).to_owned(), (*content).to_owned()))
            .collect();
        self.push("linux.devices", Action::Devices { nodes, links });
        Ok(())
    }

    /// What is done to the whole tree once everything is in its place.
    fn finish_root(&mut self, spec: &Spec, linux: &Linux) -> Result<(), PlanError> {
        if !linux.masked_paths.is_empty() {
            let paths = absolute(&linux.masked_paths, "linux.maskedPaths")?;
            self.push("linux.maskedPaths", Action::Mask { paths });
        }
        if !linux.readonly_paths.is_empty() {
            let paths = absolute(&linux.readonly_paths, "linux.readonlyPaths")?;
            self.push("linux.readonlyPaths", Action::ReadOnly { paths });
        }
        let read_only = spec.root.as_ref().is_some_and(|root| root.readonly);
        let propagation = match linux.rootfs_propagation.as_str() {
            "" => None,
            word => Some(Propagation::from_word(word).ok_or_else(|| {
                PlanError::invalid("linux.rootfsPropagation", format!("{word:?} is no kind of propagation"))
            })?),
        };
        self.push("root", Action::Pivot);
        if read_only || propagation.is_some() {
            let attributes = if read_only { Attributes::READ_ONLY } else { Attributes::default() };
            let cause = if read_only { "root.readonly" } else { "linux.rootfsPropagation" };
            self.push(cause, Action::Attributes { target: "/".into(), attributes, propagation });
        }
        Ok(())
    }

    fn identity(&mut self, spec: &Spec, linux: &Linux) -> Result<(), PlanError> {
        let own = |kind| linux.namespaces.iter().any(|namespace| namespace.r#type == kind);
        if !spec.hostname.is_empty() || !spec.domainname.is_empty() {
            if !own(NamespaceType::Uts) {
                return Err(PlanError::invalid("hostname", "needs a uts namespace"));
            }
            let (hostname, domainname) = (spec.hostname.clone(), spec.domainname.clone());
            self.push("hostname", Action::Hostname { hostname, domainname });
        }
        for name in linux.sysctl.keys() {
            let kind = sysctl_namespace(name);
            if !kind.is_some_and(own) {
                let message = match kind {
                    Some(kind) => format!("needs a {kind} namespace"),
                    None => format!("sysctl {name:?} is not in a separate kernel namespace"),
                };
                return Err(PlanError::invalid(format!("linux.sysctl[{name}]"), message));
            }
        }
        if !linux.sysctl.is_empty() {
            self.push("linux.sysctl", Action::Sysctl { values: linux.sysctl.clone() });
        }
        Ok(())
    }
}

/// The namespace that a kernel parameter belongs to; none for those of the whole host.
fn sysctl_namespace(name: &str) -> Option<NamespaceType> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let name = name.replace('/', ".");
    if name.split('.').any(str::is_empty) {
        return None;
    }
    if IPC.contains(&name.as_str()) || name.starts_with("fs.mqueue.") {
        return Some(NamespaceType::Ipc);
    }
    match name.as_str() {
        "kernel.domainname" | "kernel.hostname" => Some(NamespaceType::Uts),
        _ if name.starts_with("net.") => Some(NamespaceType::Network),
        _ => None,
    }
}

fn absolute(paths: &[String], field: &str) -> Result<Vec<String>, PlanError> {
    let is_fine = |path: &String| path.starts_with('/') && !path.contains('\0');
    match paths.iter().find(|path| !is_fine(path)) {
        Some(path) => Err(PlanError::invalid(field, format!("{path:?} is not an absolute path"))),
        None => Ok(paths.iter().map(|path| normal(path)).collect()),
    }
}

fn device_node(device: &Device, field: &str) -> Result<DeviceNode, PlanError> {
    let number = |number: i64, name: &str| {
        u32::try_from(number).map_err(|_| PlanError::invalid(format!("{field}.{name}"), "is out of range"))
    };
    if !device.path.starts_with('/') || device.path.contains('\0') {
        let message = format!("{:?} is not an absolute path", device.path);
        return Err(PlanError::invalid(format!("{field}.path"), message));
    }
    if device.r#type == DeviceType::A {
        return Err(PlanError::invalid(format!("{field}.type"), "is missing"));
    }
    Ok(DeviceNode {
        path: normal(&device.path),
        r#type: device.r#type,
        major: number(device.major, "major")?,
        minor: number(device.minor, "minor")?,
        mode: device.file_mode.unwrap_or(0o666) & 0o7777,
        uid: device.uid.unwrap_or(0),
        gid: device.gid.unwrap_or(0),
    })
}

/// config-linux.md, "Default Devices".
const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// What every container may use, whatever the spec forbids: the default devices, its terminals, and
/// the making of device files (which does not mean that they can be opened).
fn default_device_rules() -> impl Iterator<Item = DeviceRule> {
    let rule = |r#type, major, minor, access: &str| DeviceRule {
        allow: true,
        r#type,
        major,
        minor,
        access: access.to_owned(),
    };
    let make = [DeviceType::C, DeviceType::B].map(|kind| rule(kind, None, None, "m"));
    let terminals = [(136, None), (5, Some(2)), (5, Some(1))];
    let terminals = terminals.map(|(major, minor)| rule(DeviceType::C, Some(major), minor, "rwm"));
    let default = DEFAULT_DEVICES
        .map(|(_, major, minor)| rule(DeviceType::C, Some(i64::from(major)), Some(i64::from(minor)), "rwm"));
    make.into_iter().chain(default).chain(terminals)
}

/// Made only where the kernel has what it leads to.
const CORE: &str = "/dev/core";

/// runtime-linux.md, "Dev symbolic links"; and the link that makes pseudo-terminals work.
const DEFAULT_LINKS: [(&str, &str); 6] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    (CORE, "/proc/kcore"),
    ("/dev/ptmx", "pts/ptmx"),
];
