//! What the daemon is told of containers: their defaults, and further runtimes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ponton_api::container::Ulimit;
use ponton_api::unit;
use ponton_cli::flag::{Flag, Flags};
use ponton_engine::{BUILT_IN, Defaults, Runtime, remap};
use serde::Deserialize;

use super::Error;

/// Flags of the daemon that are about containers.
pub(crate) const FLAGS: [Flag; 17] = [
    Flag::list("add-runtime", "A further OCI runtime, as NAME=PATH"),
    Flag::list("cdi-spec-dir", "Directory of CDI files (default /etc/cdi and /var/run/cdi)"),
    Flag::text("cgroup-parent", "Control group in which those of containers are made"),
    Flag::text("default-cgroupns-mode", "Namespace of control groups: private or host").default("private"),
    Flag::text("default-ipc-mode", "Shared memory of containers: private or shareable").default("private"),
    Flag::text("default-runtime", "OCI runtime of containers that name none").default(BUILT_IN),
    Flag::text("default-shm-size", "Size of /dev/shm").default("64MiB"),
    Flag::list("default-ulimit", "Limit of containers' processes, as NAME=SOFT[:HARD]"),
    Flag::list("dns", "Name server of containers"),
    Flag::list("dns-opt", "Option of containers' resolvers"),
    Flag::list("dns-search", "Domain in which containers look up names"),
    Flag::switch("experimental", "Take part in what may change: checkpoints"),
    Flag::list("host-gateway-ip", "Address that host-gateway means (default: the default bridge's)"),
    Flag::switch("init", "Run an init program in containers"),
    Flag::switch("no-new-privileges", "Let no process of a container gain rights by what it executes"),
    Flag::text("seccomp-profile", "File of the seccomp profile, builtin, or unconfined").default("builtin"),
    Flag::text("userns-remap", "User whose subordinate ids stand for those of containers, or default"),
];

/// Keys of the file that are about containers, and the flags that say the same.
pub(crate) const KEYS: [(&str, &str); 19] = [
    ("runtimes", "add-runtime"),
    ("cdi-spec-dirs", "cdi-spec-dir"),
    ("cgroup-parent", "cgroup-parent"),
    ("default-cgroupns-mode", "default-cgroupns-mode"),
    ("default-ipc-mode", "default-ipc-mode"),
    ("default-runtime", "default-runtime"),
    ("default-shm-size", "default-shm-size"),
    ("default-ulimits", "default-ulimit"),
    ("dns", "dns"),
    ("dns-opts", "dns-opt"),
    ("dns-search", "dns-search"),
    ("experimental", "experimental"),
    ("host-gateway-ip", "host-gateway-ip"),
    ("host-gateway-ips", "host-gateway-ip"),
    ("init", "init"),
    ("live-restore", ""),
    ("no-new-privileges", "no-new-privileges"),
    ("seccomp-profile", "seccomp-profile"),
    ("userns-remap", "userns-remap"),
];

/// The part of the configuration file that is about containers.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct File {
    runtimes: Option<BTreeMap<String, RuntimeEntry>>,
    cdi_spec_dirs: Option<Vec<PathBuf>>,
    cgroup_parent: Option<String>,
    default_cgroupns_mode: Option<String>,
    default_ipc_mode: Option<String>,
    default_runtime: Option<String>,
    default_shm_size: Option<Size>,
    default_ulimits: Option<BTreeMap<String, UlimitEntry>>,
    dns: Option<Vec<String>>,
    dns_opts: Option<Vec<String>>,
    dns_search: Option<Vec<String>>,
    experimental: Option<bool>,
    host_gateway_ip: Option<String>,
    host_gateway_ips: Option<Vec<String>>,
    init: Option<bool>,
    /// Containers always live on without their daemon.
    live_restore: Option<bool>,
    no_new_privileges: Option<bool>,
    seccomp_profile: Option<String>,
    userns_remap: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuntimeEntry {
    path: PathBuf,
    #[serde(default)]
    runtime_args: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct UlimitEntry {
    #[serde(default)]
    name: String,
    hard: i64,
    soft: i64,
}

/// Bytes, or a size in words.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Size {
    Bytes(i64),
    Text(String),
}

/// All of it, checked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Containers {
    pub(crate) defaults: Defaults,
    pub(crate) cdi_spec_dirs: Option<Vec<PathBuf>>,
    pub(crate) experimental: bool,
}

impl Containers {
    pub(crate) fn join(flags: &Flags, file: File) -> Result<Self, Error> {
        let text =
            |name: &str, from_file: Option<String>| from_file.unwrap_or_else(|| flags.text(name).to_owned());
        let list = |name: &str, from_file: Option<Vec<String>>| {
            from_file.unwrap_or_else(|| flags.all(name).to_vec())
        };
        let remapped = text("userns-remap", file.userns_remap);
        let remap = match remapped.as_str() {
            "" => None,
            text => remap::maps(text).map_err(|why| Error::Remap(remapped.clone(), why))?,
        };
        if file.live_restore == Some(false) {
            return Err(invalid("live-restore", "false", "containers always live on without their daemon"));
        }
        let runtimes = runtimes(flags.all("add-runtime"), file.runtimes)?;
        let runtime = text("default-runtime", file.default_runtime);
        if runtime != BUILT_IN && !runtimes.contains_key(&runtime) {
            return Err(invalid("default-runtime", &runtime, "no runtime of this name is registered"));
        }
        let gateways = match (file.host_gateway_ip, file.host_gateway_ips) {
            (Some(one), None) => vec![one],
            (_, list) => list.unwrap_or_else(|| flags.all("host-gateway-ip").to_vec()),
        };
        let gateway = gateways.first().map(|address| {
            address.parse().map_err(|_| invalid("host-gateway-ip", address, "it is no IP address"))
        });
        let directories = file
            .cdi_spec_dirs
            .unwrap_or_else(|| flags.all("cdi-spec-dir").iter().map(PathBuf::from).collect());
        let dns = list("dns", file.dns);
        if let Some(wrong) = dns.iter().find(|server| server.parse::<std::net::IpAddr>().is_err()) {
            return Err(invalid("dns", wrong, "it is no IP address"));
        }
        let defaults = Defaults {
            runtimes,
            runtime,
            cgroup_parent: text("cgroup-parent", file.cgroup_parent),
            cgroupns_mode: one_of(
                "default-cgroupns-mode",
                text("default-cgroupns-mode", file.default_cgroupns_mode),
                ["private", "host"],
            )?,
            ipc_mode: one_of(
                "default-ipc-mode",
                text("default-ipc-mode", file.default_ipc_mode),
                ["private", "shareable"],
            )?,
            shm_size: shm_size(flags, file.default_shm_size)?,
            init: file.init.unwrap_or_else(|| flags.on("init")),
            no_new_privileges: file.no_new_privileges.unwrap_or_else(|| flags.on("no-new-privileges")),
            seccomp: seccomp(&text("seccomp-profile", file.seccomp_profile))?,
            ulimits: ulimits(flags.all("default-ulimit"), file.default_ulimits)?,
            dns,
            dns_options: list("dns-opt", file.dns_opts),
            dns_search: list("dns-search", file.dns_search),
            host_gateway: gateway.transpose()?,
            remap,
        };
        Ok(Self {
            defaults,
            cdi_spec_dirs: (!directories.is_empty()).then_some(directories),
            experimental: file.experimental.unwrap_or_else(|| flags.on("experimental")),
        })
    }
}

fn invalid(key: &'static str, value: &str, reason: &'static str) -> Error {
    Error::Value { key, value: value.to_owned(), reason }
}

fn one_of(key: &'static str, value: String, known: [&str; 2]) -> Result<String, Error> {
    if known.contains(&value.as_str()) {
        return Ok(value);
    }
    Err(invalid(key, &value, "there is no such mode"))
}

fn runtimes(
    flags: &[String],
    file: Option<BTreeMap<String, RuntimeEntry>>,
) -> Result<BTreeMap<String, Runtime>, Error> {
    let mut runtimes = BTreeMap::new();
    for flag in flags {
        let Some((name, path)) = flag.split_once('=') else {
            return Err(invalid("add-runtime", flag, "it is NAME=PATH"));
        };
        runtimes.insert(name.to_owned(), Runtime { program: path.into(), args: Vec::new() });
    }
    for (name, entry) in file.into_iter().flatten() {
        runtimes.insert(name, Runtime { program: entry.path, args: entry.runtime_args });
    }
    let is_name = |name: &String| {
        name != BUILT_IN
            && name.starts_with(|first: char| first.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
    };
    match runtimes.keys().find(|name| !is_name(name)) {
        Some(name) => Err(invalid("runtimes", name, "a runtime cannot have this name")),
        None => Ok(runtimes),
    }
}

fn shm_size(flags: &Flags, file: Option<Size>) -> Result<i64, Error> {
    let text = match file {
        Some(Size::Bytes(bytes)) => bytes.to_string(),
        Some(Size::Text(text)) => text,
        None => flags.text("default-shm-size").to_owned(),
    };
    let bytes = unit::parse_size(&text).ok().filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| invalid("default-shm-size", &text, "it is a size, e.g. 64m"))
}

fn ulimits(flags: &[String], file: Option<BTreeMap<String, UlimitEntry>>) -> Result<Vec<Ulimit>, Error> {
    let wrong =
        |text: &str| invalid("default-ulimits", text, "it is NAME=SOFT[:HARD] of a limit that there is");
    let mut ulimits = Vec::new();
    for flag in flags {
        let (name, limits) = flag.split_once('=').ok_or_else(|| wrong(flag))?;
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let (soft, hard) = (soft.parse().map_err(|_| wrong(flag))?, hard.parse().map_err(|_| wrong(flag))?);
        ulimits.push(Ulimit { name: name.to_owned(), hard, soft });
    }
    for (key, entry) in file.into_iter().flatten() {
        let name = if entry.name.is_empty() { key } else { entry.name };
        ulimits.push(Ulimit { name, hard: entry.hard, soft: entry.soft });
    }
    match ulimits.iter().find(|ulimit| ulimit.check().is_err()) {
        Some(ulimit) => Err(wrong(&ulimit.name)),
        None => Ok(ulimits),
    }
}

/// The profile's text; none for the built-in one.
fn seccomp(profile: &str) -> Result<Option<String>, Error> {
    match profile {
        "" | "builtin" => Ok(None),
        "unconfined" => Ok(Some(profile.to_owned())),
        path => match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(source) => Err(Error::Read { path: path.into(), source }),
        },
    }
}
