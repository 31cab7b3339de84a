mod refusal;

use ponton_api::container::{DeviceMapping, Mount as ApiMount, MountPoint, TmpfsOptions, Ulimit};
use ponton_api::exec::ExecCreateRequest;
use ponton_oci::runtime::{Device, DeviceRule, DeviceType};
use serde_json::Value;

use super::*;
use crate::error::ErrorKind;

fn facts() -> HostFacts {
    HostFacts {
        kernel: (6, 1),
        last_capability: 40,
        apparmor: false,
        cpus: 2,
        cpuset_cpus: "0-1".to_owned(),
        cpuset_mems: "0".to_owned(),
    }
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

/// What a spec is computed from, with owned parts.
#[derive(Clone)]
struct Case {
    config: Config,
    host: HostConfig,
    mounts: Vec<Point>,
    sources: Sources,
    init: Option<&'static str>,
    joined: Joined,
    devices: HostDevices,
    facts: HostFacts,
    ids: Option<IdMaps>,
}

impl Case {
    fn new() -> Self {
        Self {
            config: Config {
                hostname: "4f1c".to_owned(),
                env: Some(words(&["A=1"])),
                cmd: Some(words(&["sh", "-c", "true"])),
                ..Config::default()
            },
            host: HostConfig {
                network_mode: "default".to_owned(),
                ipc_mode: "private".to_owned(),
                cgroupns_mode: "private".to_owned(),
                shm_size: 64 << 20,
                ..HostConfig::default()
            },
            mounts: Vec::new(),
            sources: Sources::new(),
            init: None,
            joined: Joined::default(),
            devices: HostDevices::default(),
            facts: facts(),
            ids: None,
        }
    }

    fn build(&self) -> Result<Spec> {
        build(&SpecInput {
            id: "4f1c",
            config: &self.config,
            host_config: &self.host,
            mounts: &self.mounts,
            sources: &self.sources,
            files: Files {
                hostname: Path::new("/c/hostname"),
                hosts: Path::new("/c/hosts"),
                resolv_conf: Path::new("/c/resolv.conf"),
            },
            init: self.init.map(Path::new),
            joined: &self.joined,
            links: &[],
            devices: &self.devices,
            host: &self.facts,
            ids: self.ids.as_ref(),
        })
    }
}

/// A spec as lines: `path value`, a line for each member of a list of objects, in order.
/// Objects with their members by name, whatever order the serialiser keeps.
fn by_name(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let sorted: std::collections::BTreeMap<_, _> =
                members.into_iter().map(|(name, value)| (name, by_name(value))).collect();
            Value::Object(sorted.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(by_name).collect()),
        other => other,
    }
}

fn lines(spec: &Spec) -> Vec<String> {
    let mut spec = spec.clone();
    let mut lines = Vec::new();
    let linux = spec.linux.as_mut().unwrap();
    // The policy is tested where it is made; here counts that there is one.
    if let Some(policy) = linux.seccomp.take() {
        let rules = policy.syscalls.len();
        lines.push(format!("linux.seccomp {:?}, {rules} rules", policy.default_action));
    }
    let rules = std::mem::take(&mut linux.resources.as_mut().unwrap().devices);
    lines.push(format!(
        "linux.resources.devices {}",
        rules.iter().map(show_rule).collect::<Vec<_>>().join("; ")
    ));
    let sets = spec.process.as_mut().unwrap().capabilities.take().unwrap();
    assert_eq!((&sets.bounding, &sets.bounding), (&sets.effective, &sets.permitted));
    assert!(sets.inheritable.is_empty() && sets.ambient.is_empty());
    lines.push(format!("process.capabilities {}", sets.bounding.join(",").replace("CAP_", "")));
    flatten("", &by_name(serde_json::to_value(&spec).unwrap()), &mut lines);
    lines
}

fn show_rule(rule: &DeviceRule) -> String {
    let number = |number: Option<i64>| number.map_or("*".to_owned(), |number| number.to_string());
    let verb = if rule.allow { "allow" } else { "deny" };
    let (major, minor) = (number(rule.major), number(rule.minor));
    format!("{verb} {} {major}:{minor} {}", rule.r#type, rule.access)
}

fn flatten(path: &str, value: &Value, lines: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&path, member, lines);
            }
        }
        Value::Array(members) if members.iter().any(Value::is_object) => {
            lines.extend(members.iter().map(|member| format!("{path} {}", short(member))));
        }
        value => lines.push(format!("{path} {}", short(value))),
    }
}

/// A value in few characters: `name=value`s of an object, words of a list.
fn short(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(members) => members.iter().map(short).collect::<Vec<_>>().join(","),
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| format!("{name}={}", short(member)))
            .collect::<Vec<_>>()
            .join(" "),
        other => other.to_string(),
    }
}

/// What is other than in the spec of a container that asks for nothing: `- line`, `+ line`.
fn changes(change: impl FnOnce(&mut Case)) -> Vec<String> {
    let mut case = Case::new();
    let before = lines(&case.build().unwrap());
    change(&mut case);
    let after = lines(&case.build().unwrap());
    let gone = before.iter().filter(|line| !after.contains(line)).map(|line| format!("- {line}"));
    let new = after.iter().filter(|line| !before.contains(line)).map(|line| format!("+ {line}"));
    gone.chain(new).collect()
}

fn host_changes(change: impl FnOnce(&mut HostConfig)) -> Vec<String> {
    changes(|case| change(&mut case.host))
}

const CAPABILITIES: &str = "process.capabilities CHOWN,DAC_OVERRIDE,FSETID,FOWNER,MKNOD,NET_RAW,SETGID,\
    SETUID,SETFCAP,SETPCAP,NET_BIND_SERVICE,SYS_CHROOT,KILL,AUDIT_WRITE";
const DEVICES: &str = "linux.resources.devices deny a *:* rwm; allow c *:* m; allow b *:* m; \
    allow c 1:3 rwm; allow c 1:5 rwm; allow c 1:7 rwm; allow c 1:8 rwm; allow c 1:9 rwm; \
    allow c 5:0 rwm; allow c 5:1 rwm; allow c 5:2 rwm; allow c 136:* rwm";
const MASKED: &str = "linux.maskedPaths /proc/acpi,/proc/asound,/proc/interrupts,/proc/kcore,/proc/keys,\
    /proc/latency_stats,/proc/sched_debug,/proc/scsi,/proc/timer_list,/proc/timer_stats,\
    /sys/devices/virtual/powercap,/sys/firmware";
const READONLY: &str = "linux.readonlyPaths /proc/bus,/proc/fs,/proc/irq,/proc/sys,/proc/sysrq-trigger";
const SECCOMP: &str = "linux.seccomp Errno, 48 rules";
const SYS: &str = "mounts destination=/sys options=nosuid,noexec,nodev,ro source=sysfs type=sysfs";
const CGROUP: &str =
    "mounts destination=/sys/fs/cgroup options=nosuid,noexec,nodev,ro source=cgroup type=cgroup";
const SHM: &str = "mounts destination=/dev/shm options=nosuid,noexec,nodev,mode=1777,size=67108864 \
    source=shm type=tmpfs";
const MQUEUE: &str = "mounts destination=/dev/mqueue options=nosuid,noexec,nodev source=mqueue type=mqueue";
const PORTS: &str = "linux.sysctl.net.ipv4.ip_unprivileged_port_start 0";
const PING: &str = "linux.sysctl.net.ipv4.ping_group_range 0 2147483647";

fn gone(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| format!("- {line}")).collect()
}

fn new(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| format!("+ {line}")).collect()
}

#[test]
fn a_container_that_asks_for_nothing_gets_dockers_defaults() {
    assert_eq!(
        lines(&Case::new().build().unwrap()),
        [
            SECCOMP,
            DEVICES,
            CAPABILITIES,
            "hostname 4f1c",
            "linux.cgroupsPath ponton/4f1c",
            MASKED,
            "linux.namespaces type=mount",
            "linux.namespaces type=network",
            "linux.namespaces type=uts",
            "linux.namespaces type=pid",
            "linux.namespaces type=ipc",
            "linux.namespaces type=cgroup",
            READONLY,
            PORTS,
            PING,
            "mounts destination=/proc options=nosuid,noexec,nodev source=proc type=proc",
            "mounts destination=/dev options=nosuid,strictatime,mode=755,size=65536k source=tmpfs type=tmpfs",
            "mounts destination=/dev/pts options=nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5 \
             source=devpts type=devpts",
            SYS,
            CGROUP,
            MQUEUE,
            SHM,
            "mounts destination=/etc/resolv.conf options=rbind,rprivate source=/c/resolv.conf type=bind",
            "mounts destination=/etc/hostname options=rbind,rprivate source=/c/hostname type=bind",
            "mounts destination=/etc/hosts options=rbind,rprivate source=/c/hosts type=bind",
            "ociVersion 1.2.0",
            "process.args sh,-c,true",
            "process.cwd /",
            "process.env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin,HOSTNAME=4f1c,A=1",
            "process.oomScoreAdj 0",
            "process.user.gid 0",
            "process.user.uid 0",
            "root.path ",
        ]
    );
}

#[test]
fn privileged_opens_everything_and_may_still_be_read_only() {
    let mut expected = gone(&[SECCOMP, DEVICES, CAPABILITIES, MASKED, READONLY, SYS, CGROUP]);
    expected.extend(new(&[
        "linux.resources.devices allow a *:* rwm",
        "process.capabilities CHOWN,DAC_OVERRIDE,DAC_READ_SEARCH,FOWNER,FSETID,KILL,SETGID,SETUID,\
         SETPCAP,LINUX_IMMUTABLE,NET_BIND_SERVICE,NET_BROADCAST,NET_ADMIN,NET_RAW,IPC_LOCK,IPC_OWNER,\
         SYS_MODULE,SYS_RAWIO,SYS_CHROOT,SYS_PTRACE,SYS_PACCT,SYS_ADMIN,SYS_BOOT,SYS_NICE,SYS_RESOURCE,\
         SYS_TIME,SYS_TTY_CONFIG,MKNOD,LEASE,AUDIT_WRITE,AUDIT_CONTROL,SETFCAP,MAC_OVERRIDE,MAC_ADMIN,\
         SYSLOG,WAKE_ALARM,BLOCK_SUSPEND,AUDIT_READ,PERFMON,BPF,CHECKPOINT_RESTORE",
        "mounts destination=/sys options=nosuid,noexec,nodev,rw source=sysfs type=sysfs",
        "mounts destination=/sys/fs/cgroup options=nosuid,noexec,nodev,rw source=cgroup type=cgroup",
    ]));
    assert_eq!(host_changes(|host| host.privileged = true), expected);

    let both = host_changes(|host| {
        host.privileged = true;
        host.readonly_rootfs = true;
        host.security_opt = Some(words(&["seccomp=builtin"]));
    });
    assert!(!both.contains(&format!("- {SYS}")), "{both:?}");
    assert!(both.contains(&"+ root.readonly true".to_owned()));
    assert!(both.iter().any(|line| line.starts_with("+ linux.seccomp Errno")));
}

#[test]
fn a_read_only_root_makes_the_containers_files_read_only() {
    let file = |name: &str, more: &str| {
        format!("mounts destination=/etc/{name} options=rbind,rprivate{more} source=/c/{name} type=bind")
    };
    let names = ["resolv.conf", "hostname", "hosts"];
    let mut expected: Vec<String> = names.iter().map(|name| format!("- {}", file(name, ""))).collect();
    expected.extend(names.iter().map(|name| format!("+ {}", file(name, ",ro"))));
    expected.push("+ root.readonly true".to_owned());
    assert_eq!(host_changes(|host| host.readonly_rootfs = true), expected);
}

#[test]
fn the_hosts_namespaces_are_not_made() {
    let changes = host_changes(|host| {
        host.network_mode = "host".to_owned();
        host.pid_mode = "host".to_owned();
        host.ipc_mode = "host".to_owned();
        host.uts_mode = "host".to_owned();
        host.cgroupns_mode = "host".to_owned();
    });
    let mut expected = gone(&[
        "hostname 4f1c",
        "linux.namespaces type=network",
        "linux.namespaces type=uts",
        "linux.namespaces type=pid",
        "linux.namespaces type=ipc",
        "linux.namespaces type=cgroup",
        PORTS,
        PING,
        SHM,
    ]);
    expected.extend(new(&["mounts destination=/dev/shm options=rbind source=/dev/shm type=bind"]));
    assert_eq!(changes, expected);
    assert_eq!(host_changes(|host| host.ipc_mode = "none".to_owned()), gone(&[MQUEUE, SHM]));
}

#[test]
fn other_containers_namespaces_are_joined() {
    let changes = changes(|case| {
        case.host.network_mode = "container:x".to_owned();
        case.host.pid_mode = "container:x".to_owned();
        case.host.ipc_mode = "container:x".to_owned();
        case.joined = Joined {
            pid: Some("/proc/7/ns/pid".into()),
            ipc: Some("/proc/7/ns/ipc".into()),
            shm: Some("/proc/7/root/dev/shm".into()),
            network: None,
            user: None,
        };
    });
    let mut expected = gone(&["linux.namespaces type=pid", "linux.namespaces type=ipc", PORTS, PING, SHM]);
    expected.extend(new(&[
        "linux.namespaces path=/proc/7/ns/pid type=pid",
        "linux.namespaces path=/proc/7/ns/ipc type=ipc",
        "mounts destination=/dev/shm options=rbind source=/proc/7/root/dev/shm type=bind",
    ]));
    assert_eq!(changes, expected);
}

#[test]
fn the_process_is_what_was_asked_for() {
    let changes = changes(|case| {
        case.init = Some("/bin/ponton-runtime");
        let config = &mut case.config;
        config.tty = true;
        config.entrypoint = Some(words(&["/entry"]));
        config.env = Some(words(&["PATH=/x", "HOSTNAME", "B=2", "TERM=vt100", "B=3"]));
        config.working_dir = "/work".to_owned();
        config.user = "7:8".to_owned();
        config.domainname = "example".to_owned();
        let host = &mut case.host;
        host.console_size = [24, 80];
        host.group_add = Some(words(&["9", "audio"]));
        host.oom_score_adj = 5;
        host.security_opt = Some(words(&["no-new-privileges"]));
        host.ulimits = Some(vec![Ulimit { name: "nofile".to_owned(), hard: -1, soft: 10 }]);
    });
    let mut expected = gone(&[
        "process.args sh,-c,true",
        "process.cwd /",
        "process.env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin,HOSTNAME=4f1c,A=1",
        "process.oomScoreAdj 0",
        "process.user.gid 0",
        "process.user.uid 0",
    ]);
    expected.extend(new(&[
        "domainname example",
        "mounts destination=/sbin/docker-init options=rbind,ro source=/bin/ponton-runtime type=bind",
        "process.args /sbin/docker-init,--,/entry,sh,-c,true",
        "process.consoleSize.height 24",
        "process.consoleSize.width 80",
        "process.cwd /work",
        "process.env PATH=/x,TERM=vt100,B=3",
        "process.noNewPrivileges true",
        "process.oomScoreAdj 5",
        "process.rlimits hard=18446744073709551615 soft=10 type=RLIMIT_NOFILE",
        "process.terminal true",
        "process.user.additionalGids 9",
        "process.user.gid 8",
        "process.user.uid 7",
    ]));
    assert_eq!(changes, expected);
    let named = changes_of_user("www-data:adm");
    assert_eq!(named, ["+ process.user.username www-data:adm"]);
    let mut case = Case::new();
    case.host.group_add = Some(words(&["9", "audio"]));
    assert_eq!(group_names(&case.host), ["audio"]);
}

fn changes_of_user(user: &str) -> Vec<String> {
    changes(|case| case.config.user = user.to_owned())
}

#[test]
fn limits_become_resources() {
    let changes = host_changes(|host| {
        host.memory = 512 << 20;
        host.memory_reservation = 256 << 20;
        host.nano_cpus = 1_500_000_000;
        host.cpu_shares = 512;
        host.cpuset_cpus = "0".to_owned();
        host.cpuset_mems = "0".to_owned();
        host.pids_limit = Some(100);
        host.memory_swappiness = Some(10);
        host.oom_kill_disable = Some(true);
        host.blkio_weight = 300;
        host.cgroup_parent = "/outer/inner/".to_owned();
        host.sysctls = Some([("net.core.somaxconn".to_owned(), "9".to_owned())].into());
    });
    let mut expected = gone(&["linux.cgroupsPath ponton/4f1c"]);
    expected.extend(new(&[
        "linux.cgroupsPath outer/inner/4f1c",
        "linux.resources.blockIO.weight 300",
        "linux.resources.cpu.cpus 0",
        "linux.resources.cpu.mems 0",
        "linux.resources.cpu.period 100000",
        "linux.resources.cpu.quota 150000",
        "linux.resources.cpu.shares 512",
        "linux.resources.memory.disableOOMKiller true",
        "linux.resources.memory.limit 536870912",
        "linux.resources.memory.reservation 268435456",
        "linux.resources.memory.swap 1073741824",
        "linux.resources.memory.swappiness 10",
        "linux.resources.pids.limit 100",
        "linux.sysctl.net.core.somaxconn 9",
    ]));
    assert_eq!(changes, expected);
    let unlimited = host_changes(|host| {
        host.memory = 64 << 20;
        host.memory_swap = -1;
        host.pids_limit = Some(-1);
        host.cpu_quota = 50_000;
    });
    assert_eq!(
        unlimited,
        new(&[
            "linux.resources.cpu.quota 50000",
            "linux.resources.memory.limit 67108864",
            "linux.resources.memory.swap -1",
            "linux.resources.pids.limit -1",
        ])
    );
    assert_eq!(host_changes(|host| host.pids_limit = Some(0)), Vec::<String>::new());
}

fn point(kind: &str, source: &str, destination: &str, rw: bool, propagation: &str) -> Point {
    let shown = MountPoint {
        r#type: kind.to_owned(),
        source: source.to_owned(),
        destination: destination.to_owned(),
        rw,
        propagation: propagation.to_owned(),
        ..MountPoint::default()
    };
    Point { shown, ..Point::default() }
}

#[test]
fn mounts_come_after_what_they_are_in_and_replace_defaults() {
    let changes = changes(|case| {
        case.mounts = vec![
            point("volume", "/v/_data", "/data/deep", true, ""),
            point("bind", "/s", "/data", false, "rslave"),
            point("bind", "/h", "/etc/hosts", true, "rprivate"),
            point("bind", "/n", "/n", false, "private"),
        ];
        case.mounts[3].details.non_recursive = true;
        let tmpfs_options = TmpfsOptions { size_bytes: 4096, mode: 0o700, options: None };
        let tmpfs = ApiMount {
            r#type: "tmpfs".to_owned(),
            target: "/t2".to_owned(),
            read_only: true,
            tmpfs_options: Some(tmpfs_options),
            ..ApiMount::default()
        };
        case.mounts.push(Point::of_mount(&tmpfs).unwrap());
        let tmpfs = [("/t", "exec,size=1m,size=2m,rw"), ("/dev/shm", "")];
        case.host.tmpfs = Some(tmpfs.map(|(path, options)| (path.to_owned(), options.to_owned())).into());
    });
    let mut expected =
        gone(&[SHM, "mounts destination=/etc/hosts options=rbind,rprivate source=/c/hosts type=bind"]);
    expected.extend(new(&[
        "mounts destination=/data options=rbind,rro,rslave source=/s type=bind",
        "mounts destination=/n options=bind,ro,private source=/n type=bind",
        "mounts destination=/t2 options=noexec,nosuid,nodev,ro,mode=700,size=4096 source=tmpfs type=tmpfs",
        "mounts destination=/t options=nosuid,nodev,exec,size=2m,rw source=tmpfs type=tmpfs",
        "mounts destination=/data/deep options=rbind source=/v/_data type=bind",
        "mounts destination=/etc/hosts options=rbind,rprivate source=/h type=bind",
        "mounts destination=/dev/shm options=noexec,nosuid,nodev source=tmpfs type=tmpfs",
    ]));
    assert_eq!(changes, expected);
    let mut case = Case::new();
    case.mounts = vec![point("bind", "/dev", "/dev", true, "rprivate")];
    let spec = case.build().unwrap();
    let below: Vec<&str> = spec.mounts.iter().map(|mount| mount.destination.as_str()).collect();
    assert!(!below.iter().any(|path| path.starts_with("/dev/")), "{below:?}");
}

#[test]
fn security_options_are_followed() {
    let changes = host_changes(|host| {
        host.security_opt = Some(words(&[
            "seccomp=unconfined",
            "systempaths=unconfined",
            "label=disable",
            "apparmor:unconfined",
            "writable-cgroups=true",
            "no-new-privileges:false",
        ]));
        host.cap_add = Some(words(&["net_admin", "CAP_SYS_TIME", "KILL"]));
        host.cap_drop = Some(words(&["MKNOD"]));
    });
    let mut expected = gone(&[SECCOMP, CAPABILITIES, MASKED, READONLY, CGROUP]);
    expected.extend(new(&[
        "process.capabilities CHOWN,DAC_OVERRIDE,FSETID,FOWNER,NET_RAW,SETGID,SETUID,SETFCAP,SETPCAP,\
         NET_BIND_SERVICE,SYS_CHROOT,KILL,AUDIT_WRITE,NET_ADMIN,SYS_TIME",
        "mounts destination=/sys/fs/cgroup options=nosuid,noexec,nodev,rw source=cgroup type=cgroup",
    ]));
    assert_eq!(changes, expected);

    let profile =
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"chmod","action":"SCMP_ACT_ERRNO"}]}"#;
    let custom = host_changes(|host| host.security_opt = Some(vec![format!("seccomp={profile}")]));
    assert_eq!(custom, [format!("- {SECCOMP}"), "+ linux.seccomp Allow, 1 rules".to_owned()]);
    let mut case = Case::new();
    case.host.security_opt = Some(words(&["seccomp={"]));
    assert!(case.build().unwrap_err().message.starts_with("decoding seccomp profile failed"));
}

#[test]
fn capabilities_are_added_and_dropped_as_docker_does() {
    for (add, drop, expected) in [
        (&[][..], &["ALL"][..], ""),
        (&["CHOWN"], &["all"], "CHOWN"),
        (
            &[],
            &[
                "CHOWN",
                "KILL",
                "MKNOD",
                "NET_RAW",
                "SETGID",
                "SETUID",
                "SETFCAP",
                "SETPCAP",
                "FOWNER",
                "FSETID",
                "AUDIT_WRITE",
                "SYS_CHROOT",
                "DAC_OVERRIDE",
            ],
            "NET_BIND_SERVICE",
        ),
    ] {
        let names = capability::adjusted(&words(add), &words(drop), 40).unwrap();
        assert_eq!(names.join(",").replace("CAP_", ""), expected, "{add:?} {drop:?}");
    }
    // As in Docker, what is added goes before what is dropped where both are ALL.
    let all = capability::adjusted(&words(&["ALL"]), &words(&["ALL"]), 40).unwrap();
    assert_eq!(all.len(), 41);
    let all = capability::adjusted(&words(&["ALL"]), &words(&["SYS_ADMIN"]), 37).unwrap();
    assert_eq!(all.len(), 37);
    assert!(!all.contains(&"CAP_SYS_ADMIN".to_owned()));
}

#[test]
fn devices_are_made_and_allowed() {
    let changes = changes(|case| {
        let device = Device {
            path: "/dev/x".to_owned(),
            r#type: DeviceType::C,
            major: 10,
            minor: 229,
            file_mode: Some(0o600),
            uid: Some(0),
            gid: Some(0),
        };
        case.devices.files.push((device, "rw".to_owned()));
        case.host.device_cgroup_rules = Some(words(&["b 8:* r"]));
    });
    let rules = format!("{DEVICES}; allow c 10:229 rw; allow b 8:* r");
    let mut expected = gone(&[DEVICES]);
    expected.extend(new(&[
        &rules,
        "linux.devices fileMode=384 gid=0 major=10 minor=229 path=/dev/x type=c uid=0",
    ]));
    assert_eq!(changes, expected);
}

#[test]
fn devices_are_looked_up_on_the_host() {
    let mapping = |path: &str, target: &str| DeviceMapping {
        path_on_host: path.to_owned(),
        path_in_container: target.to_owned(),
        cgroup_permissions: "r".to_owned(),
    };
    let look_up = |mapping| {
        let devices = Some(vec![mapping]);
        HostDevices::look_up(&HostConfig { devices, ..HostConfig::default() })
    };
    let found = look_up(mapping("/dev/null", "/dev/nothing")).unwrap();
    let (device, access) = &found.files[0];
    assert_eq!((device.path.as_str(), device.major, device.minor), ("/dev/nothing", 1, 3));
    assert_eq!(access, "r");
    for path in ["/nosuch", "/etc/passwd"] {
        let error = look_up(mapping(path, "")).unwrap_err();
        let wanted = format!("error gathering device information while adding custom device \"{path}\":");
        assert!(error.message.starts_with(&wanted), "{}", error.message);
    }
    let privileged = HostConfig { privileged: true, ..HostConfig::default() };
    let all = HostDevices::look_up(&privileged).unwrap();
    assert!(all.files.iter().any(|(device, _)| device.path == "/dev/null"));
    assert!(!all.files.iter().any(|(device, _)| device.path.starts_with("/dev/pts/")));
}

#[test]
fn a_further_process_inherits_from_the_first() {
    let mut case = Case::new();
    case.config.tty = true;
    case.config.user = "7".to_owned();
    case.host.security_opt = Some(words(&["no-new-privileges"]));
    let first = case.build().unwrap().process.unwrap();
    let request = ExecCreateRequest {
        cmd: Some(words(&["id"])),
        env: Some(words(&["A=2", "C=3"])),
        ..ExecCreateRequest::default()
    };
    let process = exec(&first, &case.config, &[], &facts(), &request);
    assert_eq!(process.args, ["id"]);
    assert_eq!(process.env[1..], ["HOSTNAME=4f1c", "A=2", "C=3"]);
    assert!(!process.terminal && process.no_new_privileges);
    assert_eq!((process.user.uid, process.cwd.as_str()), (7, "/"));
    assert_eq!(process.capabilities, first.capabilities);
    let request = ExecCreateRequest {
        privileged: true,
        tty: true,
        user: "0:5".to_owned(),
        working_dir: "/tmp".to_owned(),
        console_size: Some([10, 20]),
        ..request
    };
    let process = exec(&first, &case.config, &[], &facts(), &request);
    assert_eq!(process.capabilities.unwrap().bounding.len(), 41);
    assert_eq!((process.user.uid, process.user.gid, process.cwd.as_str()), (0, 5, "/tmp"));
    assert_eq!(process.console_size.map(|size| (size.height, size.width)), Some((10, 20)));
    assert!(process.env.contains(&"TERM=xterm".to_owned()));
}
