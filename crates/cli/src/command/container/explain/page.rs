//! The page: sections with a heading each, lines that fit the terminal.

use std::fmt::Write as _;

use ponton_api::explain::{Explanation, Limit, Mount, Namespace, Process, Security};
use ponton_api::unit;

/// Blanks before what belongs to a heading.
const INDENT: usize = 2;
/// The width of the names in a section.
const NAME: usize = 20;

/// The page of a container.
pub(super) fn page(of: &Explanation, width: usize) -> String {
    let mut page = Page { text: String::new(), width };
    let short = of.id.get(..12).unwrap_or(&of.id);
    page.write(0, &format!("{} ({short}), {} of image {}", of.name, of.status, of.image));
    root(&mut page, of);
    if of.pid == 0 {
        page.heading("Kernel");
        page.write(
            INDENT,
            "It does not run: the kernel has nothing of it. What it asked for: ponton inspect",
        );
    } else {
        running(&mut page, of);
    }
    restart(&mut page, of);
    page.text
}

fn running(page: &mut Page, of: &Explanation) {
    page.heading("Processes");
    for process in &of.processes {
        page.line(&process_line(process));
    }
    page.heading("Namespaces");
    for namespace in &of.namespaces {
        page.pair(&namespace.kind, &namespace_text(namespace));
    }
    page.heading(&format!("Control group (v{})", of.cgroup.version));
    page.pair("path", &of.cgroup.path);
    for limit in &of.cgroup.limits {
        page.pair(&limit.name, &limit_text(limit));
    }
    page.heading("Rights");
    rights(page, &of.security);
    page.heading("Resource limits");
    let limits: Vec<String> = of
        .rlimits
        .iter()
        .map(|limit| match limit.soft == limit.hard {
            true => format!("{}={}", limit.name, limit.soft),
            false => format!("{}={}:{}", limit.name, limit.soft, limit.hard),
        })
        .collect();
    page.write(INDENT, &limits.join(" "));
    page.heading("Mounts");
    for mount in &of.mounts {
        page.pair(&mount.destination, &mount_text(mount));
    }
    page.heading("Network");
    network(page, of);
}

fn root(page: &mut Page, of: &Explanation) {
    page.heading("Root file system");
    page.pair("driver", &of.root.driver);
    page.pair("writable", if of.root.read_only { "no (--read-only)" } else { "yes" });
    for (index, layer) in of.root.layers.iter().enumerate() {
        page.pair(if index == 0 { "layers" } else { "" }, layer);
    }
}

fn process_line(process: &Process) -> String {
    format!(
        "{:>7} {:>6} {} {:>6}  {}{}",
        process.pid,
        process.container_pid,
        process.state,
        process.uid,
        "  ".repeat(process.depth.min(20) as usize),
        process.command
    )
}

fn namespace_text(namespace: &Namespace) -> String {
    let whose = match (namespace.host, namespace.shared_with.as_slice()) {
        (true, _) => "the host's".to_owned(),
        (false, []) => "its own".to_owned(),
        (false, names) => format!("shared with {}", names.join(", ")),
    };
    format!("{whose} ({})", namespace.id)
}

/// A file's value as people read it, what is used of it, and what was asked for if the kernel has something else.
fn limit_text(limit: &Limit) -> String {
    let is_size = limit.name.starts_with("memory") && limit.name != "memory-swappiness";
    let shown = |text: &str| match text.parse::<i64>() {
        Ok(bytes) if is_size && !(0..=i64::MAX / 2).contains(&bytes) => "no limit".to_owned(),
        Ok(bytes) if is_size => unit::binary_size(bytes),
        _ => match (limit.name.as_str(), text) {
            (_, "max") | ("cpus", "-1") => "no limit".to_owned(),
            _ => text.replace('\n', "; "),
        },
    };
    let mut text = shown(&limit.value);
    if limit.file == "cpu.max" {
        text = cpus(&limit.value).unwrap_or(text);
    }
    if !limit.used.is_empty() {
        let _ = write!(text, ", {} used", shown(&limit.used));
    }
    let _ = write!(text, " ({})", limit.file);
    if !limit.agrees {
        let _ = write!(text, ": NOT what was asked for, {}", shown(&limit.asked));
    }
    text
}

/// `150000 100000` as `1.5 CPUs`.
fn cpus(value: &str) -> Option<String> {
    let (quota, period) = value.split_once(' ')?;
    if quota == "max" {
        return Some("no limit".to_owned());
    }
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    Some(format!("{} CPUs", quota / period))
}

fn rights(page: &mut Page, security: &Security) {
    let groups: Vec<String> = security.groups.iter().map(ToString::to_string).collect();
    let mut user = format!("{}:{}", security.uid, security.gid);
    if !groups.is_empty() {
        let _ = write!(user, ", groups {}", groups.join(" "));
    }
    page.pair("user", &user);
    if security.privileged {
        page.pair("privileged", "yes: it may do nearly all that root of the host may");
    }
    for (name, set) in [
        ("capabilities", &security.effective),
        ("at most", &security.bounding),
        ("inheritable", &security.inheritable),
        ("ambient", &security.ambient),
    ] {
        let is_told = name == "capabilities" || !set.is_empty() && *set != security.effective;
        if is_told {
            page.pair(name, &capabilities(set));
        }
    }
    let filters = match security.seccomp_filters {
        0 => String::new(),
        1 => ", 1 filter".to_owned(),
        count => format!(", {count} filters"),
    };
    page.pair("seccomp", &format!("{}{filters} (profile {})", security.seccomp, security.seccomp_profile));
    page.pair("apparmor", if security.apparmor.is_empty() { "none" } else { &security.apparmor });
    page.pair("no new privileges", if security.no_new_privileges { "yes" } else { "no" });
    page.pair("oom score", &format!("{:+}", security.oom_score_adj));
}

fn capabilities(set: &[String]) -> String {
    let short: Vec<&str> = set.iter().map(|name| name.trim_start_matches("CAP_")).collect();
    match short.len() {
        0 => "none".to_owned(),
        _ => short.join(" ").to_lowercase(),
    }
}

fn mount_text(mount: &Mount) -> String {
    let mut text = match (mount.origin.as_str(), mount.source.as_str()) {
        (origin, "") => origin.to_owned(),
        (origin, source) => format!("{origin} {source}"),
    };
    let _ = write!(text, ", {} {}", mount.kind, mount.options);
    if mount.propagation != "private" {
        let _ = write!(text, ", {}", mount.propagation);
    }
    text
}

fn network(page: &mut Page, of: &Explanation) {
    let network = &of.network;
    page.pair("mode", &network.mode);
    // A container in the host's network has all of the host's links: they are no news.
    let in_host = of.namespaces.iter().any(|namespace| namespace.kind == "net" && namespace.host);
    if in_host {
        page.pair("links", "all of the host's");
        return;
    }
    for link in &network.interfaces {
        let mut text =
            if link.addresses.is_empty() { "no address".to_owned() } else { link.addresses.join(" ") };
        if link.name != "lo" {
            let _ = write!(text, ", {}, MTU {}", link.mac, link.mtu);
        }
        if !link.up {
            text.push_str(", down");
        }
        if !link.peer.is_empty() {
            let _ = write!(text, " <-> {}", link.peer);
        }
        if !link.bridge.is_empty() {
            let _ = write!(text, " on bridge {}", link.bridge);
        }
        page.pair(&link.name, &text);
    }
    if !network.gateway.is_empty() {
        page.pair("gateway", &network.gateway);
    }
    for port in &network.ports {
        let name = format!("{}:{}/{}", port.host_ip, port.host_port, port.protocol);
        let state = if port.in_force { "" } else { ": the kernel does NOT have this rule" };
        page.pair(&name, &format!("{}:{} ({}){state}", port.container_ip, port.container_port, port.rule));
    }
}

fn restart(page: &mut Page, of: &Explanation) {
    page.heading("Restart and health");
    let policy = &of.restart.policy;
    let mut text = if policy.name.is_empty() { "no".to_owned() } else { policy.name.clone() };
    if policy.maximum_retry_count > 0 {
        let _ = write!(text, ", at most {} times", policy.maximum_retry_count);
    }
    let _ = write!(text, "; started again {} times", of.restart.count);
    if !of.restart.next_at.is_empty() {
        let _ = write!(text, "; the next time at {}", of.restart.next_at);
    }
    page.pair("restart", &text);
    let health = of.health.as_ref().map_or_else(
        || "no test".to_owned(),
        |health| format!("{}, {} failures in a row", health.status, health.failing_streak),
    );
    page.pair("health", &health);
}

struct Page {
    text: String,
    width: usize,
}

impl Page {
    fn heading(&mut self, text: &str) {
        let _ = writeln!(self.text, "\n{text}");
    }

    /// A line that is cut off where the terminal ends.
    fn line(&mut self, text: &str) {
        let room = self.width.saturating_sub(INDENT);
        let text = crate::format::ellipsis(text, room);
        let _ = writeln!(self.text, "{:INDENT$}{text}", "");
    }

    /// A name, and what is said of it beside it; below it if the name is long.
    fn pair(&mut self, name: &str, text: &str) {
        let column = INDENT + NAME;
        let name_width = name.chars().count();
        if name_width >= NAME {
            self.write(INDENT, name);
            self.write(column, text);
            return;
        }
        let mut lines = wrap(text, self.width.saturating_sub(column)).into_iter();
        let _ = writeln!(self.text, "{:INDENT$}{name:NAME$}{}", "", lines.next().unwrap_or_default());
        for line in lines {
            let _ = writeln!(self.text, "{:column$}{line}", "");
        }
    }

    /// Text in as many lines as it needs.
    fn write(&mut self, indent: usize, text: &str) {
        for line in wrap(text, self.width.saturating_sub(indent)) {
            let _ = writeln!(self.text, "{:indent$}{line}", "");
        }
    }
}

/// Lines of at most `width`, broken at blanks, and inside a word that is wider than a line.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(10);
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let letters: Vec<char> = word.chars().collect();
        if used > 0 && used + 1 + letters.len() > width {
            lines.push(String::new());
            used = 0;
        }
        for (index, chunk) in letters.chunks(width).enumerate() {
            if index > 0 {
                lines.push(String::new());
                used = 0;
            }
            let Some(line) = lines.last_mut() else { continue };
            if used > 0 {
                line.push(' ');
                used += 1;
            }
            line.extend(chunk);
            used += chunk.len();
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use ponton_api::explain::{ControlGroup, Interface, Network, Port, Restart, Rlimit, Root};

    fn explanation() -> Explanation {
        let text = |text: &str| text.to_owned();
        Explanation {
            id: "4f1c".repeat(16),
            name: text("web"),
            image: text("busybox"),
            status: text("running"),
            pid: 4711,
            root: Root {
                driver: text("overlay2"),
                layers: vec![text("sha256:1"), text("sha256:2")],
                read_only: false,
            },
            namespaces: vec![
                Namespace { kind: text("net"), id: 1, host: false, shared_with: vec![text("side")] },
                Namespace { kind: text("user"), id: 2, host: true, shared_with: vec![] },
            ],
            cgroup: ControlGroup {
                version: 2,
                path: text("/ponton/4f1c"),
                limits: vec![
                    Limit {
                        name: text("memory"),
                        file: text("memory.max"),
                        value: text("67108864"),
                        asked: text("134217728"),
                        used: text("1048576"),
                        agrees: false,
                    },
                    Limit {
                        name: text("cpus"),
                        file: text("cpu.max"),
                        value: text("150000 100000"),
                        agrees: true,
                        ..Limit::default()
                    },
                ],
            },
            mounts: vec![Mount {
                destination: text("/a/place/with/a/long/name"),
                kind: text("ext4"),
                origin: text("volume"),
                source: text("data"),
                options: text("rw,nosuid"),
                propagation: text("slave"),
                ..Mount::default()
            }],
            security: Security {
                effective: vec![text("CAP_CHOWN"), text("CAP_NET_RAW")],
                bounding: vec![text("CAP_CHOWN"), text("CAP_NET_RAW")],
                seccomp: text("filter"),
                seccomp_filters: 1,
                seccomp_profile: text("default"),
                ..Security::default()
            },
            rlimits: vec![Rlimit { name: text("nofile"), soft: text("10"), hard: text("20") }],
            network: Network {
                mode: text("bridge"),
                interfaces: vec![Interface {
                    name: text("eth0"),
                    mac: text("02:42:ac:11:00:02"),
                    addresses: vec![text("172.17.0.2/16")],
                    mtu: 1500,
                    up: true,
                    peer: text("veth1"),
                    bridge: text("ponton0"),
                }],
                gateway: text("172.17.0.1"),
                ports: vec![Port {
                    protocol: text("tcp"),
                    host_ip: text("0.0.0.0"),
                    host_port: 8080,
                    container_ip: text("172.17.0.2"),
                    container_port: 80,
                    rule: text("fib daddr type local tcp dport 8080 dnat to 172.17.0.2:80"),
                    in_force: true,
                }],
            },
            processes: vec![Process {
                pid: 4711,
                container_pid: 1,
                state: text("S"),
                command: text("sleep 1000"),
                ..Process::default()
            }],
            restart: Restart::default(),
            health: None,
        }
    }

    #[test]
    fn the_page_says_what_is_and_what_should_be() {
        let text = page(&explanation(), 100);
        for line in [
            "web (4f1c4f1c4f1c), running of image busybox\n",
            "  layers              sha256:1\n                      sha256:2\n",
            "  net                 shared with side (1)\n",
            "  user                the host's (2)\n",
            "  memory              64MiB, 1MiB used (memory.max): NOT what was asked for, 128MiB\n",
            "  cpus                1.5 CPUs (cpu.max)\n",
            "  capabilities        chown net_raw\n",
            "  seccomp             filter, 1 filter (profile default)\n",
            "  /a/place/with/a/long/name\n                      volume data, ext4 rw,nosuid, slave\n",
            "  eth0                172.17.0.2/16, 02:42:ac:11:00:02, MTU 1500 <-> veth1 on bridge ponton0\n",
            "  restart             no; started again 0 times\n",
            "  health              no test\n",
        ] {
            assert!(text.contains(line), "{line}\n---\n{text}");
        }
        assert!(!text.contains("at most"), "what is the same is said once");
    }

    #[test]
    fn the_page_fits_the_terminal() {
        for width in [40, 60, 80, 120] {
            let text = page(&explanation(), width);
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= width, "{widest} > {width}:\n{text}");
        }
        let stopped = Explanation { pid: 0, status: "exited".to_owned(), ..explanation() };
        assert!(page(&stopped, 80).contains("It does not run"));
    }
}
