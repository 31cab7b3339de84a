//! The flags of `run` and `create`, and the request that they make.

mod environment;
mod flags;
mod gpu;
mod mount;
mod network;
mod port;

use std::collections::BTreeMap;
use std::path::Path;

use ponton_api::Empty;
use ponton_api::container::{
    Config, CreateRequest, DeviceMapping, HealthConfig, HostConfig, LogConfig, RestartPolicy, StringMap,
    ThrottleDevice, Ulimit, WeightDevice,
};

use crate::error::Error;
use crate::flag::Flags;
use crate::value;

pub(crate) use environment::{environment, labels};
pub(crate) use flags::{CREATE, RESOURCES};

/// Turns flags and arguments (image, command) into what is asked of the daemon. `console` is the size of
/// the caller's terminal.
pub(crate) fn resolve(
    flags: &Flags,
    arguments: &[String],
    console: [u32; 2],
) -> Result<CreateRequest, Error> {
    refuse_others(flags)?;
    let config = config(flags, arguments)?;
    let mut host_config = host_config(flags)?;
    host_config.console_size = console;
    let (exposed_ports, port_bindings) = port::ports(flags.all("publish"), flags.all("expose"))?;
    host_config.port_bindings = Some(port_bindings);
    let volumes = mount::volumes(flags, &mut host_config)?;
    let networking_config = network::networks(flags, &mut host_config)?;
    let config = Config { exposed_ports, volumes, ..config };
    if host_config.auto_remove && !matches!(host_config.restart_policy.name.as_str(), "" | "no") {
        return Err(Error::invalid("conflicting options: cannot specify both --restart and --rm"));
    }
    Ok(CreateRequest { config, host_config, networking_config })
}

/// Flags of Windows, and one that isn't built.
fn refuse_others(flags: &Flags) -> Result<(), Error> {
    const WINDOWS: [&str; 4] = ["cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops"];
    if let Some(name) = WINDOWS.into_iter().find(|name| flags.is_set(name)) {
        return Err(Error::invalid(format!(
            "\"--{name}\" requires the Docker daemon to run on windows, but the Docker daemon is running on linux"
        )));
    }
    if flags.on("use-api-socket") {
        return Err(Error::invalid(
            "--use-api-socket is not implemented: give the socket with -v /run/ponton/ponton.sock:/var/run/docker.sock",
        ));
    }
    Ok(())
}

fn config(flags: &Flags, arguments: &[String]) -> Result<Config, Error> {
    let (image, command) =
        arguments.split_first().map_or((String::new(), &[][..]), |(image, rest)| (image.clone(), rest));
    let attach = Attach::from_flags(flags, flags.has("detach") && flags.on("detach"));
    let entrypoint = flags.given("entrypoint").map(|text| vec![text.to_owned()]);
    let stdin = flags.on("interactive");
    Ok(Config {
        hostname: flags.text("hostname").to_owned(),
        domainname: flags.text("domainname").to_owned(),
        user: flags.text("user").to_owned(),
        attach_stdin: attach.stdin,
        attach_stdout: attach.stdout,
        attach_stderr: attach.stderr,
        tty: flags.on("tty"),
        open_stdin: stdin,
        stdin_once: stdin && attach.stdin,
        env: list(environment(flags.all("env"), flags.all("env-file"))?),
        cmd: list(command.to_vec()),
        healthcheck: healthcheck(flags)?,
        image,
        working_dir: flags.text("workdir").to_owned(),
        entrypoint,
        mac_address: flags.text("mac-address").to_owned(),
        labels: Some(labels(flags.all("label"), flags.all("label-file"))?),
        stop_signal: flags.text("stop-signal").to_owned(),
        stop_timeout: flags.given_int("stop-timeout"),
        ..Config::default()
    })
}

/// Which streams the client stays connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attach {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

impl Attach {
    /// `--attach`, or by default output and error, and input with `-i`; none with `-d`.
    pub(crate) fn from_flags(flags: &Flags, detached: bool) -> Self {
        let named = flags.all("attach");
        let has = |name: &str| named.iter().any(|stream| stream.eq_ignore_ascii_case(name));
        if !named.is_empty() {
            return Self { stdin: has("stdin"), stdout: has("stdout"), stderr: has("stderr") };
        }
        let attached = !detached;
        Self { stdin: attached && flags.on("interactive"), stdout: attached, stderr: attached }
    }
}

fn host_config(flags: &Flags) -> Result<HostConfig, Error> {
    let (security_opt, masked_paths, readonly_paths) = security_options(flags.all("security-opt"))?;
    Ok(HostConfig {
        container_id_file: flags.text("cidfile").to_owned(),
        log_config: log_config(flags)?,
        auto_remove: flags.on("rm"),
        volume_driver: flags.text("volume-driver").to_owned(),
        volumes_from: list(flags.all("volumes-from").to_vec()),
        annotations: (!flags.all("annotation").is_empty()).then(|| pairs(flags.all("annotation"))),
        cap_add: list(flags.all("cap-add").to_vec()),
        cap_drop: list(flags.all("cap-drop").to_vec()),
        cgroupns_mode: flags.text("cgroupns").to_owned(),
        dns: Some(flags.all("dns").to_vec()),
        dns_options: Some(flags.all("dns-option").to_vec()),
        dns_search: Some(flags.all("dns-search").to_vec()),
        extra_hosts: list(flags.all("add-host").iter().map(|host| extra_host(host)).collect()),
        group_add: list(flags.all("group-add").to_vec()),
        ipc_mode: flags.text("ipc").to_owned(),
        links: list(flags.all("link").to_vec()),
        oom_score_adj: flags.int("oom-score-adj"),
        pid_mode: namespace_mode(flags.text("pid"), "pid", "PID")?,
        privileged: flags.on("privileged"),
        publish_all_ports: flags.on("publish-all"),
        readonly_rootfs: flags.on("read-only"),
        security_opt,
        masked_paths,
        readonly_paths,
        storage_opt: (!flags.all("storage-opt").is_empty()).then(|| pairs(flags.all("storage-opt"))),
        tmpfs: tmpfs(flags.all("tmpfs")),
        uts_mode: namespace_mode(flags.text("uts"), "uts", "UTS")?,
        userns_mode: namespace_mode(flags.text("userns"), "userns", "USER")?,
        shm_size: flags.bytes("shm-size"),
        sysctls: (!flags.all("sysctl").is_empty()).then(|| pairs(flags.all("sysctl"))),
        runtime: flags.text("runtime").to_owned(),
        isolation: flags.text("isolation").to_owned(),
        cgroup_parent: flags.text("cgroup-parent").to_owned(),
        blkio_weight_device: Some(weight_devices(flags.all("blkio-weight-device"))?),
        blkio_device_read_bps: Some(throttle_devices(flags.all("device-read-bps"))?),
        blkio_device_write_bps: Some(throttle_devices(flags.all("device-write-bps"))?),
        blkio_device_read_iops: Some(throttle_devices(flags.all("device-read-iops"))?),
        blkio_device_write_iops: Some(throttle_devices(flags.all("device-write-iops"))?),
        devices: Some(flags.all("device").iter().map(|text| device(text)).collect::<Result<_, _>>()?),
        device_requests: gpu::requests(flags.all("gpus"))?,
        device_cgroup_rules: list(flags.all("device-cgroup-rule").to_vec()),
        memory_swappiness: Some(flags.int("memory-swappiness")),
        oom_kill_disable: Some(flags.on("oom-kill-disable")),
        init: flags.is_set("init").then(|| flags.on("init")),
        pids_limit: Some(flags.int("pids-limit")),
        ulimits: Some(ulimits(flags.all("ulimit"))?),
        ..limits(flags)?
    })
}

/// What [`RESOURCES`] say: the limits that `update` can change too, and the restart policy.
pub(crate) fn limits(flags: &Flags) -> Result<HostConfig, Error> {
    Ok(HostConfig {
        restart_policy: restart_policy(flags.text("restart"))?,
        cpu_shares: flags.int("cpu-shares"),
        memory: flags.bytes("memory"),
        nano_cpus: flags.given("cpus").map_or(Ok(0), value::parse_nano_cpus).map_err(Error::Invalid)?,
        blkio_weight: flags.int("blkio-weight") as u16,
        cpu_period: flags.int("cpu-period"),
        cpu_quota: flags.int("cpu-quota"),
        cpu_realtime_period: flags.int("cpu-rt-period"),
        cpu_realtime_runtime: flags.int("cpu-rt-runtime"),
        cpuset_cpus: flags.text("cpuset-cpus").to_owned(),
        cpuset_mems: flags.text("cpuset-mems").to_owned(),
        memory_reservation: flags.bytes("memory-reservation"),
        memory_swap: if flags.text("memory-swap") == "-1" { -1 } else { flags.bytes("memory-swap") },
        pids_limit: flags.given_int("pids-limit"),
        ..HostConfig::default()
    })
}

fn list(items: Vec<String>) -> Option<Vec<String>> {
    (!items.is_empty()).then_some(items)
}

fn pairs(items: &[String]) -> StringMap {
    items
        .iter()
        .map(|item| item.split_once('=').unwrap_or((item, "")))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn log_config(flags: &Flags) -> Result<LogConfig, Error> {
    let (driver, options) = (flags.text("log-driver"), flags.all("log-opt"));
    if driver == "none" && !options.is_empty() {
        return Err(Error::invalid("invalid logging opts for driver none"));
    }
    Ok(LogConfig { r#type: driver.to_owned(), config: pairs(options) })
}

/// `host=ip` and `host:[ip]` become `host:ip`.
fn extra_host(text: &str) -> String {
    let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).unwrap_or((text, ""));
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    format!("{name}:{bare}")
}

fn namespace_mode(text: &str, flag: &str, name: &str) -> Result<String, Error> {
    match text {
        "" | "host" => Ok(text.to_owned()),
        "private" if flag == "pid" => Ok(String::new()),
        _ if flag == "pid" && text.strip_prefix("container:").is_some_and(|id| !id.is_empty()) => {
            Ok(text.to_owned())
        }
        _ => Err(Error::invalid(format!("--{flag}: invalid {name} mode"))),
    }
}

/// `--restart no|always|unless-stopped|on-failure[:max]`.
fn restart_policy(text: &str) -> Result<RestartPolicy, Error> {
    let (name, count) = match text.split_once(':') {
        Some(("", _)) => {
            return Err(Error::invalid("invalid restart policy format: no policy provided before colon"));
        }
        Some((name, count)) => {
            let count = count.parse().map_err(|_| {
                Error::invalid("invalid restart policy format: maximum retry count must be an integer")
            })?;
            (name, count)
        }
        None => (text, 0),
    };
    Ok(RestartPolicy { name: name.to_owned(), maximum_retry_count: count })
}

type SecurityOptions = (Option<Vec<String>>, Option<Vec<String>>, Option<Vec<String>>);

/// `--security-opt`: a seccomp profile's file is read here; `systempaths=unconfined` unmasks.
fn security_options(given: &[String]) -> Result<SecurityOptions, Error> {
    let mut options = Vec::new();
    let (mut masked, mut readonly) = (None, None);
    for option in given {
        if option == "systempaths=unconfined" {
            masked = Some(Vec::new());
            readonly = Some(Vec::new());
            continue;
        }
        let (key, value) = option.split_once('=').or_else(|| option.split_once(':')).unwrap_or((option, ""));
        if value.is_empty() && key != "no-new-privileges" {
            return Err(Error::invalid(format!("Invalid --security-opt: {option:?}")));
        }
        if key == "seccomp" && !matches!(value, "unconfined" | "builtin") {
            let text = std::fs::read_to_string(value).map_err(|source| {
                Error::invalid(format!(
                    "opening seccomp profile ({value}) failed: {}",
                    Error::file("open", value, source)
                ))
            })?;
            let profile: serde_json::Value = serde_json::from_str(&text).map_err(|source| {
                Error::invalid(format!("compacting json for seccomp profile ({value}) failed: {source}"))
            })?;
            options.push(format!("seccomp={profile}"));
        } else {
            options.push(option.clone());
        }
    }
    Ok((list(options), masked, readonly))
}

fn tmpfs(given: &[String]) -> Option<StringMap> {
    let split = |text: &String| {
        let (path, options) = text.split_once(':').unwrap_or((text, ""));
        (path.to_owned(), options.to_owned())
    };
    (!given.is_empty()).then(|| given.iter().map(split).collect())
}

fn ulimits(given: &[String]) -> Result<Vec<Ulimit>, Error> {
    let mut by_name = BTreeMap::new();
    for text in given {
        let ulimit = value::parse_ulimit(text).map_err(Error::Invalid)?;
        by_name.insert(ulimit.name.clone(), ulimit);
    }
    Ok(by_name.into_values().collect())
}

/// `host[:container[:permissions]]`, or `host:permissions`.
fn device(text: &str) -> Result<DeviceMapping, Error> {
    let is_mode = |part: &str| !part.is_empty() && part.chars().all(|letter| "rwm".contains(letter));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, permissions) = match parts[..] {
        [source] => (source, source, "rwm"),
        [source, mode] if is_mode(mode) => (source, source, mode),
        [source, target] => (source, target, "rwm"),
        [source, target, mode] if is_mode(mode) => (source, target, mode),
        _ => return Err(Error::invalid(format!("invalid device specification: {text}"))),
    };
    if !Path::new(target).is_absolute() {
        return Err(Error::invalid(format!("{target} is not an absolute path")));
    }
    Ok(DeviceMapping {
        path_on_host: source.to_owned(),
        path_in_container: target.to_owned(),
        cgroup_permissions: permissions.to_owned(),
    })
}

fn weight_devices(given: &[String]) -> Result<Vec<WeightDevice>, Error> {
    given
        .iter()
        .map(|text| {
            let (path, weight) = split_device(text)?;
            let weight = weight
                .parse()
                .ok()
                .filter(|weight| *weight == 0 || (10..=1000).contains(weight))
                .ok_or_else(|| Error::invalid(format!("invalid weight for device: {text}")))?;
            Ok(WeightDevice { path: path.to_owned(), weight })
        })
        .collect()
}

fn throttle_devices(given: &[String]) -> Result<Vec<ThrottleDevice>, Error> {
    given
        .iter()
        .map(|text| {
            let (path, rate) = split_device(text)?;
            let rate = value::parse_bytes(rate)
                .map_err(|_| Error::invalid(format!("invalid rate for device: {text}")))?;
            Ok(ThrottleDevice { path: path.to_owned(), rate: rate as u64 })
        })
        .collect()
}

fn split_device(text: &str) -> Result<(&str, &str), Error> {
    match text.split_once(':') {
        Some((path, rest)) if path.starts_with("/dev/") => Ok((path, rest)),
        _ => Err(Error::invalid(format!("bad format for device path: {text}"))),
    }
}

fn healthcheck(flags: &Flags) -> Result<Option<HealthConfig>, Error> {
    const TIMES: [&str; 4] =
        ["health-interval", "health-timeout", "health-start-period", "health-start-interval"];
    let times = TIMES.iter().any(|name| flags.is_set(name));
    let any = times || flags.is_set("health-cmd") || flags.is_set("health-retries");
    if flags.on("no-healthcheck") {
        if any {
            return Err(Error::invalid("--no-healthcheck conflicts with --health-* options"));
        }
        return Ok(Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }));
    }
    if !any {
        return Ok(None);
    }
    if let Some(name) = TIMES.iter().find(|name| flags.duration_ns(name) < 0) {
        return Err(Error::invalid(format!("--{name} cannot be negative")));
    }
    if flags.int("health-retries") < 0 {
        return Err(Error::invalid("--health-retries cannot be negative"));
    }
    let test = flags.given("health-cmd").map(|command| vec!["CMD-SHELL".to_owned(), command.to_owned()]);
    Ok(Some(HealthConfig {
        test,
        interval: flags.duration_ns("health-interval"),
        timeout: flags.duration_ns("health-timeout"),
        start_period: flags.duration_ns("health-start-period"),
        start_interval: flags.duration_ns("health-start-interval"),
        retries: flags.int("health-retries"),
    }))
}

/// The value of a set member.
fn member(name: impl Into<String>) -> (String, Empty) {
    (name.into(), Empty {})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flag::{self, Flag};

    /// What `run` has beside [`CREATE`].
    const DETACH: &[Flag] = &[Flag::switch("detach", "").short('d')];

    fn request(line: &str) -> Result<serde_json::Value, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let parsed = flag::parse(&[CREATE, DETACH], &words, false)?;
        let request = resolve(&parsed.flags, &parsed.arguments, [0, 0]).map_err(|error| error.to_string())?;
        Ok(serde_json::to_value(request).unwrap())
    }

    fn json(line: &str, path: &str) -> serde_json::Value {
        request(line).unwrap().pointer(path).cloned().unwrap_or_default()
    }

    #[test]
    fn plain_run() {
        let value = request("busybox echo hi").unwrap();
        assert_eq!(value["Image"], "busybox");
        assert_eq!(value["Cmd"], serde_json::json!(["echo", "hi"]));
        assert_eq!(value["AttachStdout"], true);
        assert_eq!(value["AttachStdin"], false);
        assert_eq!(value["HostConfig"]["NetworkMode"], "default");
        assert_eq!(
            value["HostConfig"]["RestartPolicy"],
            serde_json::json!({"Name": "no", "MaximumRetryCount": 0})
        );
        assert_eq!(value["HostConfig"]["MemorySwappiness"], -1);
    }

    #[test]
    fn streams() {
        let value = request("-it busybox").unwrap();
        for name in ["AttachStdin", "OpenStdin", "StdinOnce", "Tty"] {
            assert_eq!(value[name], true, "{name}");
        }
        let value = request("-di busybox").unwrap();
        assert_eq!((&value["OpenStdin"], &value["StdinOnce"]), (&true.into(), &false.into()));
        let value = request("-a stdout busybox").unwrap();
        assert_eq!((&value["AttachStdout"], &value["AttachStderr"]), (&true.into(), &false.into()));
    }

    #[test]
    fn resources() {
        assert_eq!(json("-m 512m x", "/HostConfig/Memory"), 512 << 20);
        assert_eq!(json("--memory-swap -1 x", "/HostConfig/MemorySwap"), -1);
        assert_eq!(json("--cpus 1.5 x", "/HostConfig/NanoCpus"), 1_500_000_000);
        assert_eq!(json("--pids-limit 7 x", "/HostConfig/PidsLimit"), 7);
        assert_eq!(
            json("--ulimit nofile=1024:2048 x", "/HostConfig/Ulimits"),
            serde_json::json!([{"Name": "nofile", "Hard": 2048, "Soft": 1024}])
        );
        assert_eq!(
            json("--device /dev/null:/dev/x:r x", "/HostConfig/Devices/0"),
            serde_json::json!({"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "r"})
        );
    }

    #[test]
    fn labels_and_names() {
        assert_eq!(json("-l a=b -l c x", "/Labels"), serde_json::json!({"a": "b", "c": ""}));
        assert_eq!(
            json("--add-host h=1.2.3.4 x", "/HostConfig/ExtraHosts"),
            serde_json::json!(["h:1.2.3.4"])
        );
        assert_eq!(json("--tmpfs /t:size=1m x", "/HostConfig/Tmpfs"), serde_json::json!({"/t": "size=1m"}));
        assert_eq!(json("--entrypoint sh x -c y", "/Cmd"), serde_json::json!(["-c", "y"]));
        assert_eq!(
            json("--restart on-failure:3 x", "/HostConfig/RestartPolicy"),
            serde_json::json!({"Name": "on-failure", "MaximumRetryCount": 3})
        );
        assert_eq!(
            json("--health-cmd true --health-interval 5s x", "/Healthcheck/Interval"),
            5_000_000_000_i64
        );
    }

    #[test]
    fn refusals() {
        for (line, message) in [
            ("--rm --restart always x", "conflicting options: cannot specify both --restart and --rm"),
            ("--ulimit x y", "invalid argument \"x\" for \"--ulimit\" flag: invalid ulimit argument: x"),
            ("-e =x y", "invalid argument \"=x\" for \"-e, --env\" flag: invalid environment variable: =x"),
            (
                "--cpus x y",
                "invalid argument \"x\" for \"--cpus\" flag: failed to parse x as a rational number",
            ),
            (
                "-a foo y",
                "invalid argument \"foo\" for \"-a, --attach\" flag: valid streams are STDIN, STDOUT and STDERR",
            ),
            ("--env-file /nonexistent/file y", "open /nonexistent/file: no such file or directory"),
            (
                "--mount x y",
                "invalid argument \"x\" for \"--mount\" flag: invalid field 'x' must be a key=value pair",
            ),
            ("-p abc y", "invalid containerPort: abc"),
            ("--pid x y", "--pid: invalid PID mode"),
        ] {
            assert_eq!(request(line).unwrap_err(), message, "{line}");
        }
    }
}
