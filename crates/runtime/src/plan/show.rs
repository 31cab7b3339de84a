//! The printed plan: one line a step.

use std::fmt;

use ponton_oci::runtime::TimeOffset;

use super::process::CAPABILITIES;
use super::{Action, IdMapPlan, MountPlan, Plan, ProcessPlan, Propagation, Source, Step};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<_> = self.steps.iter().flat_map(rows).collect();
        let width = rows.len().to_string().len();
        for (number, row) in (1..).zip(&rows) {
            let line = format!(
                "#{number:<width$} {:<8} {:<8} {:<28} {:<34} {}",
                row.verb, row.kind, row.what, row.how, row.cause
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

impl Step {
    /// What the step does, without its details: `mount proc -> /proc (mounts[0])`.
    pub fn name(&self) -> String {
        let row = rows(self).into_iter().last().unwrap_or_default();
        let words = [row.verb, &row.kind, &row.what];
        let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
        format!("{} ({})", words.join(" "), self.cause)
    }
}

/// One printed line.
#[derive(Default)]
struct Row {
    verb: &'static str,
    kind: String,
    what: String,
    how: String,
    cause: String,
}

fn row(verb: &'static str, kind: impl Into<String>, what: impl Into<String>, how: impl Into<String>) -> Row {
    Row { verb, kind: kind.into(), what: what.into(), how: how.into(), cause: String::new() }
}

fn rows(step: &Step) -> Vec<Row> {
    let mut rows = match &step.action {
        Action::Cgroup(plan) => vec![row("cgroup", "create", plan.path(), plan.limits().join(" "))],
        Action::Clone { new, join, ids, clocks, .. } => {
            let names = |kinds: Vec<&'static str>| kinds.join(",");
            let new = names(new.iter().map(|kind| kind.file_name()).collect());
            let joined: Vec<_> = join
                .iter()
                .map(|join| match &join.path {
                    Some(path) => format!(" join={}:{}", join.r#type.file_name(), path.display()),
                    None => format!(" join={}", join.r#type.file_name()),
                })
                .collect();
            let mut how = joined.concat();
            if let Some(ids) = ids {
                how.push(' ');
                how.push_str(&ids.words());
            }
            for (clock, TimeOffset { secs, nanosecs }) in clocks {
                how.push_str(&format!(" {clock}={secs:+}.{nanosecs:09}"));
            }
            vec![row("clone", "init", format!("new={new}"), how.trim_start())]
        }
        Action::Rootfs(mount) => vec![mount_row("rootfs", mount)],
        Action::Mount(mount) => vec![mount_row("mount", mount)],
        Action::Attributes { target, attributes, propagation } => {
            vec![row("attr", "", target, how(attributes.words(), *propagation))]
        }
        Action::Devices { nodes, links, bound } => vec![device_row(nodes, links, *bound)],
        Action::Console => vec![row("mount", "bind", "terminal -> /dev/console", "")],
        Action::Mask { paths } => vec![row("mask", "", paths.join(","), "")],
        Action::ReadOnly { paths } => vec![row("readonly", "", paths.join(","), "")],
        Action::Pivot => vec![row("pivot", "", "", "")],
        Action::MoveRoot => vec![row("move", "", "the root -> /", "")],
        Action::Hostname { hostname, domainname } => {
            let domain = if domainname.is_empty() { String::new() } else { format!("domain={domainname}") };
            vec![row("hostname", "set", hostname, domain)]
        }
        Action::Sysctl { values } => {
            let values: Vec<_> = values.iter().map(|(name, value)| format!("{name}={value}")).collect();
            vec![row("sysctl", "set", values.join(" "), "")]
        }
        Action::NetDevices { devices } => devices
            .iter()
            .map(|device| row("netdev", "move", format!("{} -> {}", device.host, device.name), ""))
            .collect(),
        Action::Rdt(plan) => vec![row("resctrl", "join", &plan.class, plan.schemata.join(" "))],
        Action::Hooks { kind, hooks } => {
            let paths: Vec<_> = hooks.iter().map(|hook| hook.path.as_str()).collect();
            vec![row("hooks", kind.name(), paths.join(" "), "")]
        }
        Action::Exec(process) => process_rows(process),
    };
    for row in &mut rows {
        row.cause.clone_from(&step.cause);
    }
    rows
}

fn how(mut words: Vec<String>, propagation: Option<Propagation>) -> String {
    words.extend(propagation.map(Propagation::word));
    words.join(",")
}

fn mount_row(verb: &'static str, mount: &MountPlan) -> Row {
    let mut words = mount.attributes.words();
    if let Some(IdMapPlan { maps, recursive }) = &mount.id_map {
        words.push(format!("{}idmap {}", if *recursive { "r" } else { "" }, maps.words()));
    }
    if mount.copy_up {
        words.push("tmpcopyup".to_owned());
    }
    let how = how(words, mount.propagation);
    match &mount.source {
        Source::Bind { path, recursive } => {
            let kind = if *recursive { "rbind" } else { "bind" };
            row(verb, kind, format!("{} -> {}", path.display(), mount.target), how)
        }
        Source::Remount { options } => {
            row(verb, "remount", format!("-> {}", mount.target), format!("{how},{}", options.join(",")))
        }
        Source::FileSystem { r#type, options, .. } => {
            let options = options.iter().map(|option| short_option(option)).collect::<Vec<_>>().join(",");
            let comma = if how.is_empty() || options.is_empty() { "" } else { "," };
            row(verb, r#type, format!("-> {}", mount.target), format!("{how}{comma}{options}"))
        }
    }
}

/// An overlay of many layers says how many.
fn short_option(option: &str) -> String {
    match option.split_once('=') {
        Some(("lowerdir", layers)) => format!("lower={}", layers.split(':').count()),
        Some(("upperdir", path)) => format!("upper={path}"),
        Some(("workdir", _)) => "work".to_owned(),
        _ => option.to_owned(),
    }
}

fn device_row(nodes: &[super::DeviceNode], links: &[(String, String)], bound: bool) -> Row {
    let names: Vec<_> = nodes.iter().map(|node| node.path.trim_start_matches("/dev/")).collect();
    let links: Vec<_> = links.iter().map(|(path, _)| path.trim_start_matches("/dev/")).collect();
    row(if bound { "bind" } else { "mknod" }, "/dev", names.join(","), format!("links={}", links.join(",")))
}

fn process_rows(process: &ProcessPlan) -> Vec<Row> {
    let mut rows = Vec::new();
    if let Some(seccomp) = &process.seccomp {
        let key = seccomp.path.file_stem().unwrap_or_default().to_string_lossy();
        let key: String = key.chars().take(12).collect();
        rows.push(row("seccomp", "load", format!("key={key}"), ""));
    }
    let user = match &process.user.name {
        Some(name) => format!("user={name}"),
        None => format!("uid={} gid={}", process.user.uid, process.user.gid),
    };
    let capabilities = process.capabilities.map_or("none".to_owned(), |sets| {
        let count = sets.bounding.count_ones() as usize;
        if count >= CAPABILITIES.len() { "all".to_owned() } else { count.to_string() }
    });
    let mut details = vec![user, format!("caps={capabilities}")];
    if process.no_new_privileges {
        details.push("no_new_privs".to_owned());
    }
    for limit in &process.rlimits {
        details.push(format!(
            "{}={}:{}",
            limit.name.trim_start_matches("RLIMIT_").to_lowercase(),
            limit.soft,
            limit.hard
        ));
    }
    rows.push(row("exec", "", process.args.join(" "), details.join(" ")));
    rows
}
