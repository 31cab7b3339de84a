//! Spec to plan.

use std::path::{Path, PathBuf};

use ponton_cgroup::{CgroupPlan, Version};
use ponton_oci::runtime::{Linux, Mount, NamespaceType, Spec, State, Status, VERSION};

use super::mount::{Options, parse_options};
use super::node::default_device_rules;
use super::{
    Action, Attributes, HookKind, IdMapPlan, IdMaps, MountPlan, Plan, PlanError, PlanInput, ProcessInput,
    Propagation, Source, Step, device, hook, plan_process, version,
};
use crate::host::Host;

/// Computes what has to be done for `spec` on `host`. Touches nothing.
pub fn plan(spec: &Spec, host: &Host, input: &PlanInput<'_>) -> Result<Plan, PlanError> {
    let default = Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&default);
    version::check(spec)?;
    let process = spec.process.as_ref().ok_or_else(|| PlanError::invalid("process", "is missing"))?;
    if linux.seccomp.is_some() != input.process.seccomp.is_some() {
        return Err(PlanError::invalid("linux.seccomp", "is given with its compiled filter, or not at all"));
    }

    if !linux.mount_label.is_empty() && !host.has_selinux {
        return Err(PlanError::invalid("linux.mountLabel", "SELinux is not enabled on this host"));
    }
    let mut builder = Builder {
        steps: Vec::new(),
        host,
        input,
        mount_label: &linux.mount_label,
        ids: None,
        joined_ids: None,
        in_user_namespace: false,
    };
    let cgroup = builder.cgroup(linux)?;
    builder.namespaces(linux)?;
    builder.check_user(process)?;
    builder.rootfs(spec, linux)?;
    builder.mounts(spec, &cgroup)?;
    builder.devices(spec, linux)?;
    if process.terminal && !binds(spec, "/dev/console") {
        builder.push("process.terminal", Action::Console);
    }
    // With all mounts in place, and the host's root not yet gone.
    builder.devices_of_parent(linux)?;
    builder.hooks(spec, &[HookKind::Prestart, HookKind::CreateRuntime, HookKind::CreateContainer])?;
    // Before /proc/sys becomes read-only.
    builder.identity(spec, linux)?;
    builder.finish_root(spec, linux)?;
    builder.hooks(spec, &[HookKind::StartContainer])?;
    let state = builder.state(spec);
    let known = ProcessInput { state: Some(&state), ..input.process.with_linux(linux) };
    let process = plan_process(process, host, &known)?;
    builder.push("process", Action::Exec(process));
    builder.hooks(spec, &[HookKind::Poststart, HookKind::Poststop])?;
    let State { id, bundle, annotations, .. } = state;
    Ok(Plan { id, bundle, annotations, steps: builder.steps })
}

/// Whether the user mounts something of the host at this path.
pub(super) fn binds(spec: &Spec, target: &str) -> bool {
    spec.mounts.iter().any(|mount| {
        normal(&mount.destination) == target
            && (mount.r#type == "bind"
                || mount.options.iter().any(|option| option == "bind" || option == "rbind"))
    })
}

/// An absolute path without doubled, trailing or single-dot parts. `..` stays: only the kernel knows
/// what it means behind a symlink.
pub(super) fn normal(path: &str) -> String {
    let mut normal = String::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        normal.push('/');
        normal.push_str(part);
    }
    if normal.is_empty() { "/".to_owned() } else { normal }
}

pub(super) struct Builder<'a> {
    steps: Vec<Step>,
    pub(super) host: &'a Host,
    pub(super) input: &'a PlanInput<'a>,
    /// The SELinux label of what is mounted; empty is none.
    mount_label: &'a str,
    /// The maps of the user namespace that is made.
    pub(super) ids: Option<IdMaps>,
    /// The maps of the user namespace that is joined, where they are said.
    pub(super) joined_ids: Option<IdMaps>,
    /// Whether the container is in a user namespace of its own, made or joined.
    pub(super) in_user_namespace: bool,
}

impl Builder<'_> {
    pub(super) fn push(&mut self, cause: impl Into<String>, action: Action) {
        self.steps.push(Step { action, cause: cause.into() });
    }

    /// The container's state as far as it is known.
    fn state(&self, spec: &Spec) -> State {
        State {
            oci_version: VERSION.to_owned(),
            id: self.input.id.to_owned(),
            status: Status::Creating,
            pid: None,
            bundle: self.input.bundle.map(|path| path.display().to_string()).unwrap_or_default(),
            annotations: spec.annotations.clone(),
        }
    }

    fn devices_of_parent(&mut self, linux: &Linux) -> Result<(), PlanError> {
        let devices = device::net_devices(linux)?;
        if !devices.is_empty() {
            self.push("linux.netDevices", Action::NetDevices { devices });
        }
        if let Some(spec) = &linux.intel_rdt {
            self.push("linux.intelRdt", Action::Rdt(device::rdt(spec, self.input.id)?));
        }
        Ok(())
    }

    fn hooks(&mut self, spec: &Spec, kinds: &[HookKind]) -> Result<(), PlanError> {
        let Some(all) = &spec.hooks else { return Ok(()) };
        for &kind in kinds {
            let hooks = hook::check(all, kind)?;
            if !hooks.is_empty() {
                self.push(format!("hooks.{kind}"), Action::Hooks { kind, hooks });
            }
        }
        Ok(())
    }

    fn cgroup(&mut self, linux: &Linux) -> Result<CgroupPlan, PlanError> {
        let (prefix, separator) = if self.input.systemd_cgroup { (":ponton", ':') } else { ("ponton", '/') };
        let default = format!("{prefix}{separator}{}", self.input.id);
        let path = if linux.cgroups_path.is_empty() { &default } else { &linux.cgroups_path };
        let mut resources = linux.resources.clone().unwrap_or_default();
        if !self.host.can_mount {
            // Only the privileged can restrict devices. The others cannot make any, either.
            resources.devices.clear();
        }
        if !resources.devices.is_empty() {
            // What is allowed already, and not denied after that, is not written twice.
            let last_denied = resources.devices.iter().rposition(|rule| !rule.allow);
            let settled = resources.devices.split_off(last_denied.map_or(0, |at| at + 1));
            let missing = default_device_rules().filter(|rule| !settled.contains(rule));
            let missing: Vec<_> = missing.collect();
            resources.devices.extend(settled.into_iter().chain(missing));
        }
        let plan = if self.input.systemd_cgroup { ponton_cgroup::plan_scope } else { ponton_cgroup::plan };
        let plan = plan(&self.host.cgroup, path, &resources).map_err(|error| match error.field.as_str() {
            "cgroupsPath" => PlanError::invalid("linux.cgroupsPath", error.message),
            field => PlanError::invalid(format!("linux.resources.{field}"), error.message),
        })?;
        // An unprivileged caller who asks for no group and no limits needs none; one who may not even
        // mount has no part of the tree that a group with a name could be in.
        let may_be_missing =
            linux.cgroups_path.is_empty() && !self.host.cgroup.privileged || !self.host.can_mount;
        let plan = if self.input.rootless.unwrap_or(may_be_missing) { plan.or_none() } else { plan };
        self.push("linux.resources", Action::Cgroup(plan.clone()));
        Ok(plan)
    }

    fn rootfs(&mut self, spec: &Spec, linux: &Linux) -> Result<(), PlanError> {
        // Mounts of the host reach a root that is to be a slave or shared; what is mounted in it must
        // never reach the host.
        let spreads = matches!(linux.rootfs_propagation.as_str(), "slave" | "rslave" | "shared" | "rshared");
        let propagation = if spreads { Propagation::from_word("rslave") } else { None };
        let Some((first, further)) = self.input.rootfs.split_first() else {
            let root = spec.root.as_ref().filter(|root| !root.path.is_empty());
            let root = root.ok_or_else(|| PlanError::invalid("root.path", "is missing"))?;
            let source = Source::Bind { path: self.host_path(&root.path), recursive: true };
            self.push("root", Action::Rootfs(MountPlan { propagation, ..MountPlan::new(source, "/") }));
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
        // One that is relative starts from the root too (config.md, "Mounts"): as old tools write it.
        if mount.destination.is_empty() || mount.destination.contains('\0') {
            let message = format!("{:?} is not a path", mount.destination);
            return Err(PlanError::invalid(format!("{field}.destination"), message));
        }
        let mut options = parse_options(&mount.options, &format!("{field}.options"))?;
        let id_map = self.id_map(mount, &options, field)?;
        let is_bind = mount.r#type == "bind" || options.bind.is_some();
        let source = if options.remount {
            Source::Remount { options: std::mem::take(&mut options.data) }
        } else if is_bind {
            self.bind_source(mount, &options, field)?
        } else if mount.r#type.is_empty() {
            return Err(PlanError::invalid(format!("{field}.type"), "is missing"));
        } else {
            // An overlay is mapped by its layers.
            if id_map.is_some() && mount.r#type != "overlay" {
                let message = "ids are mapped on bind mounts and overlays only";
                return Err(PlanError::invalid(format!("{field}.uidMappings"), message));
            }
            let (r#type, source) = (mount.r#type.clone(), mount.source.clone());
            let mut data = std::mem::take(&mut options.data);
            if !self.mount_label.is_empty() && !UNLABELLED.contains(&r#type.as_str()) {
                data.push(format!("context={}", self.mount_label));
            }
            Source::FileSystem { r#type, source, options: data }
        };
        if options.copy_up && !matches!(&source, Source::FileSystem { r#type, .. } if r#type == "tmpfs") {
            let message = "tmpcopyup is for a tmpfs only";
            return Err(PlanError::invalid(format!("{field}.options"), message));
        }
        Ok(MountPlan {
            attributes: options.attributes,
            propagation: options.propagation,
            id_map,
            copy_up: options.copy_up,
            ..MountPlan::new(source, normal(&mount.destination))
        })
    }

    fn bind_source(&self, mount: &Mount, options: &Options, field: &str) -> Result<Source, PlanError> {
        // What a new mount is anyway need not be said.
        let mut unknown = options.data.iter();
        if let Some(unknown) =
            unknown.find(|option| !matches!(option.as_str(), "async" | "nomand" | "nolazytime"))
        {
            let message = format!("a bind mount has no option {unknown:?}");
            return Err(PlanError::invalid(format!("{field}.options"), message));
        }
        if mount.source.is_empty() || mount.source.contains('\0') {
            return Err(PlanError::invalid(format!("{field}.source"), "a bind mount needs a source"));
        }
        Ok(Source::Bind { path: self.host_path(&mount.source), recursive: options.bind.unwrap_or(true) })
    }

    /// How the ids of a mount are mapped: as it says itself, or as the container's are.
    fn id_map(&self, mount: &Mount, options: &Options, field: &str) -> Result<Option<IdMapPlan>, PlanError> {
        let is_mapped = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
        if !is_mapped && options.id_map.is_none() {
            return Ok(None);
        }
        if !self.host.can_mount {
            let message = "ids of a mount can be mapped with privileges only (CAP_SYS_ADMIN)";
            return Err(PlanError::invalid(format!("{field}.uidMappings"), message));
        }
        let recursive = options.id_map.unwrap_or(false);
        let maps = if is_mapped {
            IdMaps::checked(&mount.uid_mappings, &mount.gid_mappings, field)?
        } else {
            self.ids.as_ref().or(self.joined_ids.as_ref()).cloned().ok_or_else(|| {
                let message = "there are no mappings, of the mount or of the container, to map ids by";
                PlanError::invalid(format!("{field}.options"), message)
            })?
        };
        Ok(Some(IdMapPlan { maps, recursive }))
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
                    let read_only = Attributes::READ_ONLY.set;
                    plan.attributes = Attributes {
                        set: attributes.set & !read_only,
                        set_recursive: attributes.set_recursive & !read_only,
                        ..attributes
                    };
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
            // Without privileges there is no group of the container's own; the host's can be seen.
            let path = if self.host.can_mount { directory } else { hierarchy.to_owned() };
            let source = Source::Bind { path, recursive: false };
            self.push(cause, Action::Mount(MountPlan { source, target, ..mount.clone() }));
            if name.contains(',') {
                links.extend(
                    name.split(',').map(|part| (format!("{}/{part}", mount.target), name.to_owned())),
                );
            }
        }
        if !links.is_empty() {
            self.push(cause, Action::Devices { nodes: Vec::new(), links, bound: false });
        }
        if read_only {
            let (target, attributes) = (mount.target.clone(), Attributes::READ_ONLY);
            self.push(cause, Action::Attributes { target, attributes, propagation: None });
        }
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
        self.push("root", if self.input.no_pivot { Action::MoveRoot } else { Action::Pivot });
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

/// File systems that take no label, or whose content has labels of its own.
const UNLABELLED: [&str; 5] = ["proc", "sysfs", "cgroup", "cgroup2", "mqueue"];

/// The namespace that a kernel parameter belongs to; none for those of the whole host.
pub(crate) fn sysctl_namespace(name: &str) -> Option<NamespaceType> {
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
