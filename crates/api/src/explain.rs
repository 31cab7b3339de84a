//! How a container stands with the kernel: `GET /ponton/containers/{name}/explain`.
//!
//! What is here was read from the kernel when it was asked for; what a request asked for stands beside it where the two
//! can differ. Sizes are in bytes.

use serde::{Deserialize, Serialize};

use crate::container::{Health, RestartPolicy};

/// A container, and all that holds it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Explanation {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Without a slash.
    pub name: String,
    /// The image as it was asked for.
    pub image: String,
    /// Docker's word for its state.
    pub status: String,
    /// Process id of the first process, as the engine sees it; 0 unless it runs.
    pub pid: u32,
    /// Where its root file system is, and of which layers it is made.
    pub root: Root,
    /// Its namespaces, by kind; only while it runs, as all that follows up to `network`.
    pub namespaces: Vec<Namespace>,
    /// Its control group.
    pub cgroup: ControlGroup,
    /// What is mounted in it, in the order of mounting.
    pub mounts: Vec<Mount>,
    /// What its first process may do.
    pub security: Security,
    /// Resource limits of its first process (getrlimit(2)).
    pub rlimits: Vec<Rlimit>,
    /// How its packets go.
    pub network: Network,
    /// Its processes, parents before their children; at most 1,000.
    pub processes: Vec<Process>,
    /// Whether and how often it is started again.
    pub restart: Restart,
    /// Its health, if it has a test.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// A root file system.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Root {
    /// The storage driver.
    pub driver: String,
    /// Digests of the image's layers (their tars), lowest first.
    pub layers: Vec<String>,
    /// Whether it was asked for read-only.
    pub read_only: bool,
}

/// One namespace of the first process (namespaces(7)).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Namespace {
    /// `mnt`, `net`, …
    pub kind: String,
    /// The kernel's number of it.
    pub id: u64,
    /// It is the one that the engine itself is in.
    pub host: bool,
    /// Other running containers that are in it.
    pub shared_with: Vec<String>,
}

/// A control group.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ControlGroup {
    /// 1 or 2: the interface of its controllers.
    pub version: u8,
    /// Its path below the root of each hierarchy.
    pub path: String,
    /// The limits that the kernel has for it.
    pub limits: Vec<Limit>,
}

/// One limit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Limit {
    /// What docker's flags call it: `memory`, `cpus`.
    pub name: String,
    /// The kernel's file.
    pub file: String,
    /// What is in the file.
    pub value: String,
    /// What was asked for, in the file's terms; empty if nothing was.
    pub asked: String,
    /// What is used of it now; empty where that is not counted.
    pub used: String,
    /// The kernel's value is what was asked for; true where nothing was.
    pub agrees: bool,
}

/// One mount in the container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Mount {
    /// Where.
    pub destination: String,
    /// The file system: `overlay`, `tmpfs`, `ext4`.
    pub kind: String,
    /// Why it is there: `image`, `volume`, `bind`, `tmpfs`, `engine` (hosts, hostname, …) or `system`.
    pub origin: String,
    /// The volume's name, or the path on the host that was asked for.
    pub source: String,
    /// The path in the source's file system, as the kernel has it.
    pub root: String,
    /// Attributes of the mount: `rw`, `nosuid`, …
    pub options: String,
    /// `private`, `shared`, `slave`, …
    pub propagation: String,
}

/// What a process may do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Security {
    /// Effective user id, in the engine's user namespace.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// `--privileged`.
    pub privileged: bool,
    /// Names of capabilities (capabilities(7)) that it has.
    pub effective: Vec<String>,
    /// Those that it may take.
    pub permitted: Vec<String>,
    /// Those that programs with file capabilities inherit.
    pub inheritable: Vec<String>,
    /// The most that any program in it can get.
    pub bounding: Vec<String>,
    /// Those that programs without file capabilities keep.
    pub ambient: Vec<String>,
    /// Nothing it executes gets more privileges (prctl(2)).
    pub no_new_privileges: bool,
    /// `disabled`, `strict` or `filter`.
    pub seccomp: String,
    /// How many filters are in force; 0 where the kernel doesn't tell.
    pub seccomp_filters: u32,
    /// The profile that was asked for: `default`, `unconfined`, `custom`.
    pub seccomp_profile: String,
    /// The AppArmor profile in force; empty without AppArmor.
    pub apparmor: String,
    /// What the kernel's killer adds for it when memory runs out.
    pub oom_score_adj: i32,
}

/// A limit of a process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Rlimit {
    /// As `--ulimit` has it: `nofile`.
    pub name: String,
    /// In force; a number or `unlimited`.
    pub soft: String,
    /// As far as it may raise it.
    pub hard: String,
}

/// The way of packets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Network {
    /// `bridge`, `host`, `none`, `container:…`.
    pub mode: String,
    /// Links in the container.
    pub interfaces: Vec<Interface>,
    /// The default gateway; empty without one.
    pub gateway: String,
    /// Published ports.
    pub ports: Vec<Port>,
}

/// A link in the container, and what is behind it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Interface {
    /// `eth0`
    pub name: String,
    /// Link-layer address.
    pub mac: String,
    /// Addresses with the lengths of their prefixes.
    pub addresses: Vec<String>,
    /// Most bytes of a packet.
    pub mtu: u32,
    /// It is set up.
    pub up: bool,
    /// The other end of the pair, on the host; empty without one.
    pub peer: String,
    /// The bridge that the other end is a port of.
    pub bridge: String,
}

/// A published port.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Port {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Address on the host.
    pub host_ip: String,
    /// Port on the host.
    pub host_port: u16,
    /// Where packets are sent to.
    pub container_ip: String,
    /// Port in the container.
    pub container_port: u16,
    /// The rule of the firewall that does it.
    pub rule: String,
    /// The kernel has that rule.
    pub in_force: bool,
}

/// A process of the container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Process {
    /// As the engine sees it.
    pub pid: u32,
    /// As the container sees it.
    pub container_pid: u32,
    /// The parent's, as the engine sees it.
    pub parent: u32,
    /// How many parents it has in the container.
    pub depth: u32,
    /// Effective user id.
    pub uid: u32,
    /// One letter, as in ps(1).
    pub state: String,
    /// The program's name and arguments as the process shows them, cut off at 200 bytes.
    pub command: String,
}

/// Starting again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Restart {
    /// What was asked for.
    pub policy: RestartPolicy,
    /// How often that has happened since a user started it.
    pub count: u32,
    /// When it will happen next, RFC 3339; empty if it won't by itself.
    pub next_at: String,
}
