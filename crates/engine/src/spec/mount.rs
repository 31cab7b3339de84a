//! Mounts: the ones that every container has, its files, binds, volumes and tmpfs.

use std::collections::BTreeMap;
use std::path::Path;

use ponton_api::container::{HostConfig, Mount as ApiMount};
use ponton_oci::runtime::Mount;

use super::SpecInput;
use super::idmap::IdMaps;
use super::point::{Point, check_target};
use super::security::Security;
use crate::error::{Error, Result};

/// Bytes of `/dev/shm` where nothing else is said.
const SHM_SIZE: i64 = 64 << 20;
const SHM: &str = "/dev/shm";
const MQUEUE: &str = "/dev/mqueue";

/// Where mounts come from that were looked up for one start, by destination.
pub type Sources = BTreeMap<String, Source>;

/// What a start found a mount point to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The path that is bound; empty for the mount point's own.
    pub path: String,
    /// The options of an overlay, where it is one that is mounted and not a path.
    pub overlay: Option<Vec<String>>,
    /// How the ids of its files are mapped.
    pub id_maps: Option<IdMaps>,
}

/// All mounts of a container, in the order in which they are made.
pub(super) fn mounts(input: &SpecInput<'_>, security: &Security) -> Result<Vec<Mount>> {
    let host = input.host_config;
    let mut own = files(input);
    for point in input.mounts {
        own.push(match point.shown.r#type.as_str() {
            "tmpfs" => new_tmpfs(&point.shown.destination, &point.details.tmpfs)?,
            _ => bind(point, input.sources.get(&point.shown.destination), input.ids),
        });
    }
    own.extend(tmpfs(host)?);
    own.extend(input.init.map(init));
    // One below another comes after it.
    own.sort_by_key(|mount| mount.destination.split('/').filter(|part| !part.is_empty()).count());
    let is_taken = |destination: &str| {
        own.iter().any(|mount| {
            mount.destination == destination
                || (mount.destination == "/dev" && destination.starts_with("/dev/"))
        })
    };
    let mut mounts = defaults(input, security);
    mounts.retain(|mount| !is_taken(&mount.destination));
    mounts.extend(own);
    Ok(mounts)
}

fn defaults(input: &SpecInput<'_>, security: &Security) -> Vec<Mount> {
    let host = input.host_config;
    let read_only = |writable: bool| if writable { "rw" } else { "ro" };
    let sys = read_only(host.privileged && !host.readonly_rootfs);
    let cgroup = read_only(host.privileged || security.writable_cgroups);
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", sys]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", cgroup]),
    ];
    mounts.extend(ipc(host, input.joined.shm.as_deref(), input.ids));
    mounts
}

/// Message queues and shared memory, which go with the IPC namespace.
fn ipc(host: &HostConfig, joined: Option<&Path>, ids: Option<&IdMaps>) -> Vec<Mount> {
    let size = format!("size={}", if host.shm_size > 0 { host.shm_size } else { SHM_SIZE });
    let mqueue = mount(MQUEUE, "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]);
    match host.ipc_mode.as_str() {
        "none" => Vec::new(),
        // The queues are those of the namespace, which is the host's.
        "host" => vec![mqueue, host_bind(SHM, SHM, &[])],
        _ => {
            let shm = match joined {
                // The host's own is not shared with those whose ids are mapped.
                Some(path) if path == Path::new(SHM) => host_bind(SHM, SHM, &[]),
                Some(path) => host_bind(&path.display().to_string(), SHM, mapped(ids)),
                None => mount(SHM, "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &size]),
            };
            vec![mqueue, shm]
        }
    }
}

/// The files that are made for each container.
fn files(input: &SpecInput<'_>) -> Vec<Mount> {
    let mut options = vec!["rprivate"];
    options.extend(input.host_config.readonly_rootfs.then_some("ro"));
    options.extend(mapped(input.ids));
    [
        (input.files.resolv_conf, "/etc/resolv.conf"),
        (input.files.hostname, "/etc/hostname"),
        (input.files.hosts, "/etc/hosts"),
    ]
    .into_iter()
    // What the user mounts there goes before.
    .filter(|(_, target)| !input.mounts.iter().any(|point| point.shown.destination == *target))
    .map(|(source, target)| host_bind(&source.display().to_string(), target, &options))
    .collect()
}

/// The option of what is the container's own, or shared by containers: on the disk its owners are as the
/// container calls them.
fn mapped(ids: Option<&IdMaps>) -> &'static [&'static str] {
    if ids.is_some() { &["idmap"] } else { &[] }
}

/// A bind mount, a volume or an image. What is bound of the host keeps its owners, unless it is asked for.
fn bind(point: &Point, found: Option<&Source>, ids: Option<&IdMaps>) -> Mount {
    let Point { shown, details } = point;
    if let Some(options) = found.and_then(|found| found.overlay.as_ref()) {
        let mut words: Vec<&str> = options.iter().map(String::as_str).collect();
        words.push("ro");
        words.extend(mapped(ids));
        return mount(&shown.destination, "overlay", "overlay", &words);
    }
    let mut words = vec![if details.non_recursive { "bind" } else { "rbind" }];
    if !shown.rw {
        let only_itself = details.non_recursive || details.shallow_read_only;
        words.push(if only_itself { "ro" } else { "rro" });
    }
    if !shown.propagation.is_empty() {
        words.push(&shown.propagation);
    }
    let source = match found {
        Some(found) if !found.path.is_empty() => found.path.clone(),
        _ if details.subpath.is_empty() => shown.source.clone(),
        _ => format!("{}/{}", shown.source, details.subpath),
    };
    let mut mount = mount(&shown.destination, "bind", &source, &words);
    if let Some(maps) = found.and_then(|found| found.id_maps.as_ref()) {
        let maps = ids.map_or_else(|| maps.clone(), |ids| maps.then(ids));
        mount.options.push("idmap".to_owned());
        mount.uid_mappings = maps.uids;
        mount.gid_mappings = maps.gids;
    } else if shown.r#type != "bind" {
        mount.options.extend(mapped(ids).iter().map(|word| (*word).to_owned()));
    }
    mount
}

/// The tiny init program; it knows by its name what it is.
fn init(program: &Path) -> Mount {
    host_bind(&program.display().to_string(), super::process::INIT, &["ro"])
}

/// `--tmpfs`.
pub(super) fn tmpfs(host: &HostConfig) -> Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    for (destination, options) in host.tmpfs.iter().flatten() {
        let destination = check_target(destination).map_err(Error::invalid)?;
        let words: Vec<String> = options.split(',').map(str::to_owned).collect();
        mounts.push(new_tmpfs(&destination, &words)?);
    }
    Ok(mounts)
}

/// The options of `--mount type=tmpfs`, checked.
pub(super) fn tmpfs_words(asked: &ApiMount) -> Result<Vec<String>> {
    let options = asked.tmpfs_options.clone().unwrap_or_default();
    let mut words = Vec::new();
    if asked.read_only {
        words.push("ro".to_owned());
    }
    if options.mode != 0 {
        words.push(format!("mode={:o}", options.mode));
    }
    if options.size_bytes < 0 {
        let target = &asked.target;
        return Err(Error::invalid(format!("invalid tmpfs size {} of {target}", options.size_bytes)));
    }
    if options.size_bytes > 0 {
        words.push(format!("size={}", options.size_bytes));
    }
    for option in options.options.iter().flatten() {
        match &option[..] {
            [] => return Err(Error::invalid("invalid option array length")),
            [name, ..] if name != "exec" && name != "noexec" => {
                return Err(Error::invalid(format!("invalid option: {name}")));
            }
            [word] => words.push(word.clone()),
            _ => return Err(Error::invalid("invalid option array length")),
        }
    }
    Ok(words)
}

fn new_tmpfs(destination: &str, words: &[String]) -> Result<Mount> {
    let mut options: Vec<String> = ["noexec", "nosuid", "nodev"].map(str::to_owned).into();
    for word in words.iter().filter(|word| !word.is_empty()) {
        let opposite = check_tmpfs_option(word)?;
        // The last word of a kind wins, and only it is left.
        let key = word.split_once('=').map(|(key, _)| key);
        options.retain(|known| {
            let is_same_key = key.is_some() && known.split_once('=').map(|(key, _)| key) == key;
            known != word && Some(known.as_str()) != opposite.as_deref() && !is_same_key
        });
        options.push(word.clone());
    }
    Ok(Mount {
        destination: destination.to_owned(),
        r#type: "tmpfs".to_owned(),
        source: "tmpfs".to_owned(),
        options,
        ..Mount::default()
    })
}

/// Refuses what a tmpfs cannot have; says which option is the opposite, if there is one.
fn check_tmpfs_option(word: &str) -> Result<Option<String>> {
    const FLAGS: [&str; 8] = ["exec", "suid", "dev", "atime", "diratime", "relatime", "strictatime", "mand"];
    const VALUES: [&str; 7] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"];
    const PROPAGATIONS: [&str; 8] =
        ["private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"];
    let opposite = match word {
        "ro" => Some("rw".to_owned()),
        "rw" => Some("ro".to_owned()),
        flag if FLAGS.contains(&flag) => Some(format!("no{flag}")),
        flag => flag.strip_prefix("no").filter(|flag| FLAGS.contains(flag)).map(str::to_owned),
    };
    let is_valid = opposite.is_some()
        || matches!(word, "defaults" | "sync" | "async" | "dirsync")
        || PROPAGATIONS.contains(&word)
        || word.split_once('=').is_some_and(|(key, _)| VALUES.contains(&key));
    if is_valid {
        return Ok(opposite);
    }
    Err(Error::invalid(format!("Invalid tmpfs option {word:?}")))
}

fn host_bind(source: &str, destination: &str, further: &[&str]) -> Mount {
    let mut options = vec!["rbind"];
    options.extend(further);
    mount(destination, "bind", source, &options)
}

fn mount(destination: &str, r#type: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.to_owned(),
        r#type: r#type.to_owned(),
        source: source.to_owned(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    }
}
