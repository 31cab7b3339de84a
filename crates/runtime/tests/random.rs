//! Random configurations over all fields: each starts and is cleaned up, or is refused by the name of
//! a field. As root.
//!
//! ```text
//! PONTON_RANDOM_COUNT=10000 PONTON_RANDOM_SEED=7 cargo test -p ponton-runtime --test random
//! ```
#![allow(clippy::unwrap_used, reason = "a test program")]

use std::fs;

use fixture::{Bundle, stderr};
use serde_json::{Value, json};

mod fixture;

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True so many times of a hundred.
    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Clone>(&mut self, among: &[T]) -> T {
        among[self.below(among.len() as u64) as usize].clone()
    }

    /// Some of them, in their order.
    fn some<T: Clone>(&mut self, among: &[T], percent: u64) -> Vec<T> {
        among.iter().filter(|_| self.chance(percent)).cloned().collect()
    }
}

const CAPABILITIES: [&str; 12] = [
    "CAP_CHOWN",
    "CAP_KILL",
    "CAP_SETUID",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_NET_RAW",
    "CAP_SYS_CHROOT",
    "CAP_AUDIT_WRITE",
    "CAP_SYS_ADMIN",
    "CAP_MKNOD",
    "CAP_FOWNER",
    "CAP_DAC_OVERRIDE",
];
const PLACES: [&str; 12] = [
    "/srv",
    "/srv/a",
    "/srv/a/b",
    "/tmp",
    "/tmp/x",
    "/data",
    "/etc/hosts",
    "/var/lib/deep/er",
    "/srv/../tmp/y",
    "/dev/made",
    "//srv//z/",
    "/link/inside",
];
const MOUNT_OPTIONS: [&str; 24] = [
    "ro",
    "rw",
    "nosuid",
    "suid",
    "nodev",
    "dev",
    "noexec",
    "noatime",
    "relatime",
    "strictatime",
    "nodiratime",
    "nosymfollow",
    "private",
    "rprivate",
    "slave",
    "rslave",
    "shared",
    "rshared",
    "unbindable",
    "rro",
    "rnosuid",
    "rnodev",
    "rnoatime",
    "defaults",
];

/// A configuration: the usual one, with each of its fields left, taken away or changed.
fn configuration(random: &mut Random, usual: &Value) -> Value {
    let mut spec = usual.clone();
    spec["ociVersion"] = json!(random.pick(&["1.0.0", "1.0.2", "1.1.0", "1.2.0", "1.2.1"]));
    spec["root"]["readonly"] = json!(random.chance(50));
    if random.chance(20) {
        spec["annotations"] = json!({"org.example.one": "1", "two": ""});
    }
    if random.chance(5) {
        spec["x-unknown"] = json!([null, {"a": 1.5}]);
    }
    spec["process"] = process(random);
    mounts(random, &mut spec);
    spec["linux"] = linux(random, &usual["linux"]);
    let namespaces = spec["linux"]["namespaces"].as_array().unwrap();
    let has_names = namespaces.iter().any(|namespace| namespace["type"] == "uts");
    if random.chance(20) || !has_names && random.chance(90) {
        drop(spec.as_object_mut().unwrap().remove("hostname"));
    }
    if has_names && random.chance(20) {
        spec["domainname"] = json!("domain");
    }
    if random.chance(10) {
        let kind = random.pick(&[
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        ]);
        let path = if kind == "startContainer" { "/bin/busybox" } else { "/bin/true" };
        spec["hooks"][kind] = json!([{"path": path, "args": ["true"], "env": ["A=b"], "timeout": 5}]);
    }
    spec
}

fn process(random: &mut Random) -> Value {
    let mut process = json!({
        "terminal": false,
        "user": {"uid": 0, "gid": 0},
        "args": random.pick(&[json!(["true"]), json!(["/bin/true"]), json!(["sh", "-c", "exit 0"]), json!(["busybox", "true"])]),
        "env": random.some(&["PATH=/bin:/usr/bin", "A=", "B=two words", "HOME=/tmp", "LANG=ä"], 60),
        "cwd": random.pick(&["/", "/", "/tmp", "/srv", "/new/directory", "/srv/../etc", "/proc/self"]),
        "noNewPrivileges": random.chance(50),
    });
    process["env"].as_array_mut().unwrap().push(json!("PATH=/bin"));
    if random.chance(2) {
        process["args"] = json!(random.pick(&[json!([]), json!(["/nosuch"]), json!(["/etc"])]));
    }
    if random.chance(40) {
        let id = random.pick(&[0_u32, 1, 33, 1000, 65_534, 4_000_000_000]);
        process["user"] = json!({"uid": id, "gid": random.pick(&[0_u32, 5, 70_000]), "additionalGids": random.some(&[1, 2, 99_999], 40)});
        if random.chance(50) {
            process["user"]["umask"] = json!(random.below(0o1000));
        }
    }
    if random.chance(80) {
        let bounding = random.some(&CAPABILITIES, 60);
        for set in ["effective", "permitted", "inheritable", "ambient"] {
            let among = if random.chance(95) { &bounding[..] } else { &CAPABILITIES };
            process["capabilities"][set] = json!(random.some(among, 50));
        }
        process["capabilities"]["bounding"] = json!(bounding);
    }
    if random.chance(30) {
        let soft = 64 + random.below(1000);
        let names = [
            "RLIMIT_NOFILE",
            "RLIMIT_CORE",
            "RLIMIT_MEMLOCK",
            "RLIMIT_SIGPENDING",
            "RLIMIT_LOCKS",
            "RLIMIT_MSGQUEUE",
        ];
        let limit = |name: &&str| json!({"type": name, "soft": soft, "hard": soft + 5});
        process["rlimits"] = random.some(&names, 40).iter().map(limit).collect();
    }
    if random.chance(15) {
        process["oomScoreAdj"] = json!(random.pick(&[0, 100, 1000, -1, -1000]));
    }
    if random.chance(10) {
        let policy = random.pick(&["SCHED_OTHER", "SCHED_BATCH", "SCHED_IDLE", "SCHED_FIFO", "SCHED_RR"]);
        process["scheduler"] = json!({"policy": policy, "nice": random.below(20)});
    }
    if random.chance(10) {
        let class = random.pick(&["IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE", "IOPRIO_CLASS_RT"]);
        process["ioPriority"] = json!({"class": class, "priority": random.below(8)});
    }
    if random.chance(5) {
        process["execCPUAffinity"] = json!({"initial": "0", "final": "0"});
    }
    process
}

fn mounts(random: &mut Random, spec: &mut Value) {
    let mounts = spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|_| !random.chance(5));
    for _ in 0..random.below(6) {
        let place = random.pick(&PLACES);
        let mut options = random.some(&MOUNT_OPTIONS, 10);
        let mount = match random.below(4) {
            0 => {
                options.extend(random.some(&["size=64k", "mode=711", "nr_inodes=50"], 50));
                json!({"destination": place, "type": "tmpfs", "source": "tmpfs", "options": options})
            }
            1 => {
                options.push("rbind");
                json!({"destination": place, "type": "bind", "source": "/usr/share", "options": options})
            }
            2 => {
                options.push("bind");
                // A file has its places, or every second directory would find one in its way.
                let place = place.trim_end_matches('/').to_owned() + ".file";
                json!({"destination": place, "type": "none", "source": "/etc/hostname", "options": options})
            }
            _ => json!({"destination": place, "type": "tmpfs", "source": "x"}),
        };
        mounts.push(mount);
    }
}

fn linux(random: &mut Random, usual: &Value) -> Value {
    let mut linux = usual.clone();
    let kinds = ["pid", "network", "ipc", "uts", "cgroup"];
    let mut namespaces: Vec<Value> =
        random.some(&kinds, 90).iter().map(|kind| json!({"type": kind})).collect();
    namespaces.insert(random.below(namespaces.len() as u64 + 1) as usize, json!({"type": "mount"}));
    if random.chance(10) {
        namespaces.push(json!({"type": "time"}));
        linux["timeOffsets"] = json!({"boottime": {"secs": random.below(1000), "nanosecs": 1}});
    }
    if random.chance(15) {
        namespaces.push(json!({"type": "user"}));
        for field in ["uidMappings", "gidMappings"] {
            linux[field] = json!([
                {"containerID": 0, "hostID": 100_000, "size": 70_000},
                {"containerID": 99_999, "hostID": 300_000, "size": 1},
            ]);
        }
    }
    if random.chance(5) {
        namespaces
            .push(json!({"type": random.pick(&["pid", "ipc", "network"]), "path": "/proc/self/ns/uts"}));
    }
    linux["namespaces"] = json!(namespaces);
    linux["resources"] = resources(random);
    if random.chance(20) {
        linux["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.msgmax": "8192"});
    }
    if random.chance(20) {
        linux["devices"] = json!([{
            "path": random.pick(&["/dev/one", "/dev/null", "/srv/device", "/etc/passwd"]),
            "type": random.pick(&["c", "b", "p", "u"]), "major": 1, "minor": random.pick(&[3, 5, 300]),
            "fileMode": random.below(0o1000), "uid": random.below(3), "gid": random.below(3),
        }]);
    }
    if random.chance(20) {
        let rule = json!({
            "names": random.some(&["reboot", "swapon", "keyctl", "nosuch", "mount"], 80),
            "action": random.pick(&["SCMP_ACT_ERRNO", "SCMP_ACT_TRAP", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_LOG"]),
        });
        linux["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
    }
    let words = ["private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable"];
    if random.chance(20) {
        linux["rootfsPropagation"] = json!(random.pick(&words));
    }
    let paths = [
        "/proc/keys",
        "/etc",
        "/srv",
        "/nosuch",
        "/tmp/x",
        "/sys/firmware",
        "/proc/sys",
        "/bin/../etc/passwd",
    ];
    if random.chance(50) {
        linux["maskedPaths"] = json!(random.some(&paths, 30));
    }
    if random.chance(50) {
        linux["readonlyPaths"] = json!(random.some(&paths, 30));
    }
    if random.chance(5) {
        linux["personality"] = json!({"domain": random.pick(&["LINUX", "LINUX32"])});
    }
    if random.chance(5) {
        linux["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0"});
    }
    linux
}

fn resources(random: &mut Random) -> Value {
    let mut resources = json!({});
    if random.chance(60) {
        resources["devices"] = json!([
            {"allow": random.chance(20), "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": random.below(300), "access": random.pick(&["r", "rw", "rwm"])},
        ]);
    }
    if random.chance(30) {
        resources["memory"] = json!({"limit": (16 + random.below(100)) << 20});
        if random.chance(30) {
            resources["memory"]["swap"] = json!((16 + random.below(200)) << 20);
        }
        if random.chance(20) {
            resources["memory"]["swappiness"] = json!(random.below(101));
        }
    }
    if random.chance(30) {
        resources["cpu"] = json!({"shares": 2 + random.below(5000)});
        if random.chance(50) {
            resources["cpu"]["period"] = json!(100_000);
            resources["cpu"]["quota"] = json!(20_000 + random.below(100_000));
        }
        if random.chance(20) {
            resources["cpu"]["cpus"] = json!("0");
        }
    }
    if random.chance(30) {
        resources["pids"] = json!({"limit": 16 + random.below(100)});
    }
    if random.chance(5) {
        resources["hugepageLimits"] = json!([{"pageSize": "2MB", "limit": 4_194_304}]);
    }
    if random.chance(1) {
        resources["network"] = json!({"classID": random.below(1 << 20)});
    }
    if random.chance(1) {
        resources["unified"] = json!({"memory.high": "67108864"});
    }
    resources
}

/// Whether an error says which field it is about.
fn names_a_field(told: &str) -> bool {
    const FIELDS: [&str; 9] =
        ["process", "linux.", "mounts[", "root", "hooks", "hostname", "domainname", "ociVersion", "exec"];
    let errors: Vec<&str> = told.lines().filter(|line| !line.contains(": warning: ")).collect();
    matches!(errors[..], [error] if FIELDS.iter().any(|field| error.contains(field)))
}

#[test]
fn any_configuration_starts_and_goes_or_is_refused_by_the_name_of_a_field() {
    let setting = |name: &str, usual: u64| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
    let (count, seed) = (setting("PONTON_RANDOM_COUNT", 300), setting("PONTON_RANDOM_SEED", 1));
    let started = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for part in 0..2 {
            let started = &started;
            scope.spawn(move || {
                let bundle = Bundle::script("true");
                // The group of a user namespace has to pass the directories above.
                let open = |path: &std::path::Path| {
                    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
                };
                open(bundle.path());
                std::os::unix::fs::symlink("/srv", bundle.root().join("link")).unwrap();
                let usual = bundle.spec();
                for number in (part..count).step_by(2) {
                    let mut random = Random(seed.wrapping_mul(0x0100_0000_01b3) ^ number);
                    let spec = configuration(&mut random, &usual);
                    bundle.write_spec(&spec);
                    let output = bundle.command(&["run", "--bundle", bundle.path_text(), &bundle.id]);
                    let is_started = output.status.success();
                    started.fetch_add(u64::from(is_started), std::sync::atomic::Ordering::Relaxed);
                    if !is_started && std::env::var_os("PONTON_RANDOM_SHOW").is_some() {
                        println!("{number}: {}", stderr(&output).trim());
                    }
                    assert!(
                        is_started || names_a_field(&stderr(&output)),
                        "seed {seed}, number {number}: {output:?}\n{spec}"
                    );
                    assert!(!bundle.state_root().join(&bundle.id).exists(), "number {number}");
                }
                bundle.assert_nothing_left();
            });
        }
    });
    let started = started.into_inner();
    println!("{count} configurations: {started} started, {} refused", count - started);
    // About a half does; of few there may be less.
    assert!(started * 3 > count, "only {started} of {count} started");
}
