//! What the daemon is told: flags, and the JSON file that has the same names.

mod containers;
mod images;
mod logs;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ponton_api::container::LogConfig;
use ponton_cli::flag::{self, Flag, Flags};
use serde::Deserialize;

pub(crate) use containers::Containers;
pub(crate) use images::Images;

/// Why the daemon cannot be configured so.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}\n\nUsage:  ponton daemon [OPTIONS]\n\nRun 'ponton daemon --help' for more information")]
    Flag(String),
    #[error("read the configuration file {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("the configuration file {path} is not valid: {source}")]
    Syntax { path: PathBuf, source: serde_json::Error },
    #[error("the configuration file {path} has unknown keys: {keys} (known are: {known})")]
    UnknownKeys { path: PathBuf, keys: String, known: String },
    #[error("given both as a flag and in the configuration file {path}: {keys}")]
    Both { path: PathBuf, keys: String },
    #[error("invalid {key} {value:?}: {reason}")]
    Value { key: &'static str, value: String, reason: &'static str },
    #[error("invalid userns-remap {0:?}: {1}")]
    Remap(String, String),
    #[error("invalid {0}: {1}")]
    Log(&'static str, ponton_engine::Error),
    #[error("find the daemon's own program: {0}")]
    Program(io::Error),
}

const DEFAULT_FILE: &str = "/etc/ponton/daemon.json";

/// The flags of `ponton daemon`, as one table for each part of the configuration.
pub(crate) static FLAGS: &[&[Flag]] = &[GENERAL_FLAGS, &images::FLAGS, &logs::FLAGS, &containers::FLAGS];

static GENERAL_FLAGS: &[Flag] = &[
    Flag::text("bip", "Address and prefix length of the default bridge, e.g. 172.20.0.1/16"),
    Flag::text("bridge", "Name of the default bridge's interface").default("ponton0"),
    Flag::text("config-file", "Configuration file").default(DEFAULT_FILE),
    Flag::text("data-root", "Directory of what lasts").default("/var/lib/ponton"),
    Flag::text("exec-root", "Directory of what lasts until the next boot").default("/run/ponton"),
    Flag::text("group", "Group that may use the sockets, by name or number").short('G'),
    Flag::list("host", "Socket to listen on (default unix://EXEC-ROOT/ponton.sock)").short('H'),
    Flag::list("label", "Label that info shows"),
    Flag::text("log-level", "Least level that is logged: trace, debug, info, warn, error")
        .short('l')
        .default("info"),
    Flag::text("metrics-addr", "Address and port of Prometheus metrics, e.g. 127.0.0.1:9323"),
    Flag::int("mtu", "Largest packet of the default bridge"),
    Flag::switch("new-session", "Leave the session of the caller").hidden(),
    Flag::text("pidfile", "File to write the daemon's process id to"),
    Flag::text("runtime-binary", "The program ponton-runtime (default: beside this program)"),
];

/// The configuration file; every key may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct File {
    bip: Option<String>,
    bridge: Option<String>,
    data_root: Option<String>,
    exec_root: Option<String>,
    group: Option<String>,
    hosts: Option<Vec<String>>,
    labels: Option<Vec<String>>,
    log_level: Option<String>,
    metrics_addr: Option<String>,
    mtu: Option<u32>,
    pidfile: Option<String>,
    runtime_binary: Option<String>,
    #[serde(flatten)]
    images: images::File,
    #[serde(flatten)]
    logs: logs::File,
    #[serde(flatten)]
    containers: containers::File,
}

/// The keys of the file and the flags that say the same.
const GENERAL_KEYS: [(&str, &str); 12] = [
    ("bip", "bip"),
    ("bridge", "bridge"),
    ("data-root", "data-root"),
    ("exec-root", "exec-root"),
    ("group", "group"),
    ("hosts", "host"),
    ("labels", "label"),
    ("log-level", "log-level"),
    ("metrics-addr", "metrics-addr"),
    ("mtu", "mtu"),
    ("pidfile", "pidfile"),
    ("runtime-binary", "runtime-binary"),
];

/// All keys.
fn keys() -> impl Iterator<Item = (&'static str, &'static str)> + Clone {
    GENERAL_KEYS.into_iter().chain(images::KEYS).chain(logs::KEYS).chain(containers::KEYS)
}

/// The daemon's configuration, whole.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) data_root: PathBuf,
    pub(crate) exec_root: PathBuf,
    pub(crate) runtime_binary: PathBuf,
    /// Paths of unix sockets.
    pub(crate) sockets: Vec<PathBuf>,
    /// The number of the group that may use the sockets.
    pub(crate) group: Option<u32>,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) pidfile: Option<PathBuf>,
    pub(crate) log_level: tracing::Level,
    pub(crate) bridge: String,
    pub(crate) bridge_address: Option<(Ipv4Addr, u8)>,
    pub(crate) mtu: u32,
    pub(crate) labels: Vec<String>,
    pub(crate) images: Images,
    /// The logging driver of containers that ask for none.
    pub(crate) log: LogConfig,
    pub(crate) containers: Containers,
    pub(crate) new_session: bool,
}

impl Config {
    /// Reads flags and file; `None` if help was asked for.
    pub(crate) fn read(words: &[String]) -> Result<Option<Self>, Error> {
        let parsed = flag::parse(FLAGS, words, true).map_err(Error::Flag)?;
        if parsed.help {
            return Ok(None);
        }
        if let Some(word) = parsed.arguments.first() {
            return Err(Error::Flag(format!("unexpected argument: {word}")));
        }
        let flags = parsed.flags;
        let path = Path::new(flags.text("config-file"));
        let file = match std::fs::read(path) {
            Ok(text) => read_file(path, &text, &flags)?,
            Err(source) if source.kind() == io::ErrorKind::NotFound && !flags.is_set("config-file") => {
                File::default()
            }
            Err(source) => return Err(Error::Read { path: path.to_owned(), source }),
        };
        Self::join(&flags, file).map(Some)
    }

    fn join(flags: &Flags, file: File) -> Result<Self, Error> {
        let text =
            |name: &str, from_file: Option<String>| from_file.unwrap_or_else(|| flags.text(name).to_owned());
        let exec_root = PathBuf::from(text("exec-root", file.exec_root));
        let mut hosts = file.hosts.unwrap_or_else(|| flags.all("host").to_vec());
        if hosts.is_empty() {
            hosts.push(format!("unix://{}", exec_root.join("ponton.sock").display()));
        }
        let runtime_binary = match text("runtime-binary", file.runtime_binary) {
            path if path.is_empty() => {
                std::env::current_exe().map_err(Error::Program)?.with_file_name("ponton-runtime")
            }
            path => PathBuf::from(path),
        };
        let bip = text("bip", file.bip);
        let log_level = text("log-level", file.log_level);
        let pidfile = text("pidfile", file.pidfile);
        let group = text("group", file.group);
        let metrics = text("metrics-addr", file.metrics_addr);
        let mtu = file.mtu.map_or_else(|| u32::try_from(flags.int("mtu")), Ok);
        Ok(Self {
            data_root: absolute("data-root", text("data-root", file.data_root))?,
            exec_root: absolute("exec-root", exec_root.to_string_lossy().into_owned())?,
            runtime_binary,
            sockets: hosts.into_iter().map(socket).collect::<Result<_, _>>()?,
            group: if group.is_empty() { None } else { Some(group_number(group)?) },
            metrics: if metrics.is_empty() { None } else { Some(metrics_address(metrics)?) },
            pidfile: (!pidfile.is_empty()).then(|| PathBuf::from(pidfile)),
            log_level: log_level.parse().map_err(|_| Error::Value {
                key: "log-level",
                value: log_level,
                reason: "it is one of trace, debug, info, warn, error",
            })?,
            bridge: text("bridge", file.bridge),
            bridge_address: if bip.is_empty() { None } else { Some(bridge_address(bip)?) },
            mtu: mtu.map_err(|_| Error::Value {
                key: "mtu",
                value: flags.text("mtu").to_owned(),
                reason: "it is a number of bytes",
            })?,
            labels: file.labels.unwrap_or_else(|| flags.all("label").to_vec()),
            images: Images::join(flags, file.images)?,
            log: logs::join(flags, file.logs)?,
            containers: Containers::join(flags, file.containers)?,
            new_session: flags.on("new-session"),
        })
    }
}

fn read_file(path: &Path, text: &[u8], flags: &Flags) -> Result<File, Error> {
    let syntax = |source| Error::Syntax { path: path.to_owned(), source };
    let given: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(text).map_err(syntax)?;
    let quoted = |names: Vec<&str>| names.join(", ");
    let unknown: Vec<&str> =
        given.keys().map(String::as_str).filter(|key| keys().all(|(known, _)| known != *key)).collect();
    if !unknown.is_empty() {
        let mut known: Vec<&str> = keys().map(|(key, _)| key).collect();
        known.dedup();
        let known = quoted(known);
        return Err(Error::UnknownKeys { path: path.to_owned(), keys: quoted(unknown), known });
    }
    let both: Vec<&str> = keys()
        .filter(|(key, flag)| given.contains_key(*key) && !flag.is_empty() && flags.is_set(flag))
        .map(|(key, _)| key)
        .collect();
    if !both.is_empty() {
        return Err(Error::Both { path: path.to_owned(), keys: quoted(both) });
    }
    serde_json::from_slice(text).map_err(syntax)
}

fn absolute(key: &'static str, value: String) -> Result<PathBuf, Error> {
    if Path::new(&value).is_absolute() {
        return Ok(PathBuf::from(value));
    }
    Err(Error::Value { key, value, reason: "it is not an absolute path" })
}

fn socket(host: String) -> Result<PathBuf, Error> {
    let reason = match host.split_once("://") {
        Some(("unix", path)) if Path::new(path).is_absolute() => return Ok(PathBuf::from(path)),
        Some(("unix", _)) => "it is not an absolute path",
        Some(("tcp", _)) => "listening on TCP is not implemented",
        _ => "only unix:///path is implemented",
    };
    Err(Error::Value { key: "host", value: host, reason })
}

/// The number of a group of this host.
fn group_number(group: String) -> Result<u32, Error> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let found = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == group).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    found.ok_or(Error::Value {
        key: "group",
        value: group,
        reason: "it is no group of /etc/group, and no number",
    })
}

fn metrics_address(text: String) -> Result<SocketAddr, Error> {
    text.parse().map_err(|_| Error::Value {
        key: "metrics-addr",
        value: text,
        reason: "it is an address with a port, e.g. 127.0.0.1:9323",
    })
}

fn bridge_address(text: String) -> Result<(Ipv4Addr, u8), Error> {
    let parsed = text.split_once('/').and_then(|(address, length)| {
        Some((address.parse().ok()?, length.parse().ok().filter(|length| (1..=30).contains(length))?))
    });
    parsed.ok_or(Error::Value {
        key: "bip",
        value: text,
        reason: "it is an address with a prefix length, e.g. 172.20.0.1/16",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(line: &str, file: &str) -> Result<Config, String> {
        let mut named = tempfile::NamedTempFile::new().unwrap();
        named.write_all(file.as_bytes()).unwrap();
        let path = named.path().display().to_string();
        let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        words.push(format!("--config-file={path}"));
        match Config::read(&words) {
            Ok(config) => Ok(config.unwrap()),
            Err(error) => Err(error.to_string().replace(&path, "FILE")),
        }
    }

    #[test]
    fn flags_and_file_are_joined() {
        let config =
            read("--data-root /d --mtu 1400", r#"{"exec-root": "/e", "bip": "172.20.0.1/16"}"#).unwrap();
        assert_eq!(config.data_root, Path::new("/d"));
        assert_eq!(config.sockets, [PathBuf::from("/e/ponton.sock")]);
        assert_eq!(config.bridge_address, Some((Ipv4Addr::new(172, 20, 0, 1), 16)));
        assert_eq!((config.mtu, config.bridge.as_str()), (1400, "ponton0"));
        assert_eq!((config.group, config.metrics), (None, None));
        let config = read("-G root", r#"{"metrics-addr": "127.0.0.1:9323"}"#).unwrap();
        assert_eq!((config.group, config.metrics), (Some(0), "127.0.0.1:9323".parse().ok()));
        assert_eq!(config.runtime_binary.file_name().unwrap(), "ponton-runtime");
    }

    #[test]
    fn images_have_keys_and_flags() {
        let config = read(
            "--insecure-registry 10.0.0.0/8 --max-concurrent-uploads 2",
            r#"{"registry-mirrors": ["https://m.example"], "max-concurrent-downloads": 7,
                "proxies": {"http-proxy": "http://p", "https-proxy": "http://q", "no-proxy": "a,b"},
                "storage-driver": "btrfs", "disk-budget": "off", "max-layer-size": "1g"}"#,
        );
        let images = config.unwrap().images;
        assert_eq!(images.mirrors, ["https://m.example"]);
        assert_eq!(images.insecure, ["10.0.0.0/8"]);
        assert_eq!((images.downloads, images.uploads, images.attempts), (Some(7), Some(2), None));
        let (http, https, no_proxy) = ("http://p".into(), "http://q".into(), "a,b".into());
        assert_eq!(images.proxy, ponton_registry::Proxy::These { http, https, no_proxy });
        assert_eq!((images.storage_driver.as_deref(), images.budget), (Some("btrfs"), None));
        assert_eq!(images.layer_bytes_max, Some(1 << 30));
        assert_eq!(read("", "{}").unwrap().images.proxy, ponton_registry::Proxy::Environment);
    }

    #[test]
    fn logs_have_keys_and_flags() {
        let file = r#"{"log-driver": "json-file", "log-opts": {"max-size": "10m"}}"#;
        let log = read("", file).unwrap().log;
        assert_eq!((log.r#type.as_str(), log.config["max-size"].as_str()), ("json-file", "10m"));
        let log = read("--log-driver syslog --log-opt tag=a=b --log-opt mode=blocking", "{}").unwrap().log;
        assert_eq!((log.r#type.as_str(), log.config["tag"].as_str(), log.config.len()), ("syslog", "a=b", 2));
        assert_eq!(read("", "{}").unwrap().log.r#type, "");
        assert_eq!(read("--log-driver local", "{}").unwrap().log.r#type, "local");
    }

    #[test]
    fn containers_have_defaults() {
        let config = read(
            "--add-runtime crun=/usr/bin/crun --default-ulimit nofile=5:9 --init",
            r#"{"default-runtime": "crun", "default-shm-size": "8m", "dns": ["192.0.2.1"],
                "host-gateway-ip": "192.0.2.9", "cdi-spec-dirs": ["/c"], "experimental": true}"#,
        );
        let containers = config.unwrap().containers;
        let defaults = containers.defaults;
        assert_eq!(defaults.runtimes["crun"].program, Path::new("/usr/bin/crun"));
        assert_eq!((defaults.runtime.as_str(), defaults.shm_size, defaults.init), ("crun", 8 << 20, true));
        assert_eq!((defaults.ulimits[0].soft, defaults.ulimits[0].hard), (5, 9));
        assert_eq!((containers.cdi_spec_dirs, containers.experimental), (Some(vec!["/c".into()]), true));
        let file = r#"{"runtimes": {"r": {"path": "r", "runtimeArgs": ["-x"]}},
            "default-ulimits": {"core": {"Name": "core", "Hard": 0, "Soft": 0}}}"#;
        let defaults = read("", file).unwrap().containers.defaults;
        assert_eq!((defaults.runtimes["r"].args.len(), defaults.ulimits.len()), (1, 1));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, file, message) in [
            (
                "",
                r#"{"nosuch": 1, "data-root": "/d", "other": 2}"#,
                "the configuration file FILE has unknown keys: nosuch, other",
            ),
            (
                "--data-root /d",
                r#"{"data-root": "/e"}"#,
                "given both as a flag and in the configuration file FILE: data-root",
            ),
            ("", "{", "the configuration file FILE is not valid"),
            ("", r#"{"mtu": "x"}"#, "the configuration file FILE is not valid: invalid type: string \"x\""),
            ("--nosuch", "{}", "unknown flag: --nosuch"),
            (
                "-H tcp://0.0.0.0:1",
                "{}",
                "invalid host \"tcp://0.0.0.0:1\": listening on TCP is not implemented",
            ),
            ("--bip 1.2.3.4", "{}", "invalid bip \"1.2.3.4\""),
            ("--group nosuchgroup", "{}", "invalid group \"nosuchgroup\": it is no group"),
            ("--metrics-addr 9323", "{}", "invalid metrics-addr \"9323\": it is an address with a port"),
            ("--log-level loud", "{}", "invalid log-level \"loud\""),
            ("--data-root d", "{}", "invalid data-root \"d\": it is not an absolute path"),
            ("more", "{}", "unexpected argument: more"),
            (
                "",
                r#"{"registry-mirrors": ["mirror"]}"#,
                "invalid registry-mirrors \"mirror\": it is no URL that begins with https:// or http://",
            ),
            ("", r#"{"max-concurrent-downloads": 0}"#, "invalid max-concurrent-downloads \"0\""),
            ("--max-download-attempts -1", "{}", "invalid max-download-attempts \"-1\""),
            (
                "",
                r#"{"proxies": {"ftp-proxy": "x"}}"#,
                "the configuration file FILE is not valid: unknown field",
            ),
            (
                "--http-proxy http://p",
                r#"{"proxies": {"https-proxy": "http://q"}}"#,
                "given both as a flag and in the configuration file FILE: proxies",
            ),
            ("--log-opt nosuch=1", "{}", "invalid log-opts: unknown log opt 'nosuch' for log driver local"),
            ("--log-opt tag", "{}", "invalid log-opt \"tag\": it is a name and a value, e.g. max-size=10m"),
            ("", r#"{"log-driver": "nosuch"}"#, "invalid log-driver: error looking up logging plugin nosuch"),
            ("--default-runtime x", "{}", "invalid default-runtime \"x\": no runtime of this name"),
            ("--add-runtime x", "{}", "invalid add-runtime \"x\": it is NAME=PATH"),
            ("--default-ulimit x=1", "{}", "invalid default-ulimits \"x\""),
            ("", r#"{"default-shm-size": "x"}"#, "invalid default-shm-size \"x\": it is a size"),
            ("", r#"{"default-ipc-mode": "x"}"#, "invalid default-ipc-mode \"x\": there is no such mode"),
            ("", r#"{"dns": ["x"]}"#, "invalid dns \"x\": it is no IP address"),
            (
                "",
                r#"{"userns-remap": "a:b:c"}"#,
                "invalid userns-remap \"a:b:c\": it is default, USER[:GROUP] or UID",
            ),
            (
                "--userns-remap nosuchuser",
                "{}",
                "invalid userns-remap \"nosuchuser\": there is no user nosuchuser",
            ),
            ("", r#"{"live-restore": false}"#, "invalid live-restore \"false\": containers always live on"),
            ("--seccomp-profile /nosuch", "{}", "read the configuration file /nosuch"),
            ("--disk-budget much", "{}", "invalid disk-budget \"much\": it is off, or max=SIZE"),
        ] {
            let got = read(line, file).unwrap_err();
            assert!(got.starts_with(message), "{got}");
        }
    }
}
