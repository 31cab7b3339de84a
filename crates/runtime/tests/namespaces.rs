//! Namespaces: new ones, ones that are joined, and what ids and clocks mean in them. As root.
#![allow(clippy::unwrap_used, reason = "a test program")]

mod fixture;

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::process::{Child, Command, Stdio};

use fixture::{Bundle, mount, stderr, stdout, without_namespace};
use serde_json::{Value, json};

/// The id outside that the container's root is.
const OUTSIDE: u32 = 100_000;

/// A user namespace of several ranges, in a bundle whose root file system belongs to its root.
fn with_user_namespace(spec: &mut Value) {
    let ranges = json!([
        {"containerID": 0, "hostID": OUTSIDE, "size": 1000},
        {"containerID": 1000, "hostID": 300_000, "size": 10},
    ]);
    spec["linux"]["uidMappings"] = ranges.clone();
    spec["linux"]["gidMappings"] = ranges;
    add_namespace(spec, json!({"type": "user"}));
}

fn add_namespace(spec: &mut Value, namespace: Value) {
    let kind = namespace["type"].as_str().unwrap().to_owned();
    without_namespace(spec, &kind);
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(namespace);
}

fn owned_bundle(change: impl FnOnce(&mut Value)) -> Bundle {
    let bundle = Bundle::new(change);
    own(&bundle, OUTSIDE);
    bundle
}

fn own(bundle: &Bundle, id: u32) {
    for directory in [bundle.root(), bundle.root().join("tmp"), bundle.root().join("srv")] {
        chown(directory, Some(id), Some(id)).unwrap();
    }
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(bundle.path(), open).unwrap();
}

/// A process that holds namespaces; it ends with this.
struct Holder(Child);

impl Holder {
    /// Namespaces of its own by unshare(1); with `user` it maps ids as [`with_user_namespace`].
    fn new(flags: &[&str]) -> Self {
        let mut command = Command::new("unshare");
        command.args(flags).args(["sh", "-c", "echo; exec sleep 1000"]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = [0; 1];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        let holder = Self(child);
        if flags.contains(&"--user") {
            for map in ["uid_map", "gid_map"] {
                fs::write(format!("/proc/{}/{map}", holder.0.id()), format!("0 {OUTSIDE} 1000")).unwrap();
            }
        }
        holder
    }

    fn path(&self, name: &str) -> String {
        format!("/proc/{}/ns/{name}", self.0.id())
    }

    fn link(&self, name: &str) -> String {
        fs::read_link(self.path(name)).unwrap().to_str().unwrap().to_owned()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn ids_are_mapped_by_several_ranges() {
    let bundle = owned_bundle(|spec| {
        with_user_namespace(spec);
        spec["root"]["readonly"] = json!(false);
        spec["process"]["user"] = json!({"uid": 1005, "gid": 7, "additionalGids": [1009]});
        spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/tmp");
        mount(spec, "/tmp", "tmpfs", "tmpfs", &["mode=1777"]);
        let script = "id; cat /proc/self/uid_map; touch /tmp/x; stat -c %u:%g /tmp/x / /dev/pts /dev/shm";
        spec["process"]["args"] = json!(["sh", "-c", script]);
    });
    let text = stdout(&bundle.run());
    let words: Vec<_> = text.split_whitespace().collect();
    let expected = [
        "uid=1005",
        "gid=7",
        "groups=1009",
        "0",
        "100000",
        "1000",
        "1000",
        "300000",
        "10",
        "1005:7",
        "0:0",
        "0:0",
        "0:0",
    ];
    assert_eq!(words, expected, "{text}");
}

#[test]
fn the_container_owns_its_namespaces_and_devices_are_bound() {
    let bundle = owned_bundle(|spec| {
        with_user_namespace(spec);
        spec["process"]["capabilities"] = json!({
            "bounding": ["CAP_SYS_ADMIN", "CAP_NET_ADMIN"], "effective": ["CAP_SYS_ADMIN", "CAP_NET_ADMIN"],
            "permitted": ["CAP_SYS_ADMIN", "CAP_NET_ADMIN"],
        });
        spec["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
        let script = "ip link set lo up && hostname other && hostname && cat /proc/sys/net/ipv4/ip_forward
            stat -c %t:%T /dev/null /dev/tty && echo x > /dev/null && mknod /dev/x c 1 3 2>&1
            cat /proc/1/cgroup | head -1; cat /proc/keys; ls /proc/acpi";
        spec["process"]["args"] = json!(["sh", "-c", script]);
    });
    let text = stdout(&bundle.run());
    assert!(text.starts_with("other\n1\n1:3\n5:0\nmknod: /dev/x: Operation not permitted\n"), "{text}");
    assert_eq!(text.lines().count(), 6, "{text}");
    assert!(text.trim_end().ends_with(":/"), "{text}");
}

#[test]
fn an_exec_enters_the_user_namespace() {
    let bundle = owned_bundle(|spec| {
        with_user_namespace(spec);
        add_namespace(spec, json!({"type": "time"}));
        spec["process"]["args"] = json!(["sleep", "1000"]);
    });
    assert!(bundle.create().status.success());
    assert!(bundle.command(&["start", &bundle.id]).status.success());
    let pid = bundle.state()["pid"].as_u64().unwrap();
    let script = "id -u; readlink /proc/self/ns/user; readlink /proc/self/ns/pid; readlink /proc/self/ns/time
        echo x > /dev/shm/x; stat -c %u /dev/shm/x; grep CapEff /proc/self/status; test -d /proc/1 && echo $PPID";
    let output = bundle.command(&["exec", &bundle.id, "sh", "-c", script]);
    let text = stdout(&output);
    let link = |name: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap().display().to_string();
    let expected =
        format!("0\n{}\n{}\n{}\n0\nCapEff:\t0000000020000420\n0\n", link("user"), link("pid"), link("time"));
    assert_eq!(text, expected);
    assert!(bundle.command(&["delete", "--force", &bundle.id]).status.success());
    bundle.assert_nothing_left();
}

#[test]
fn a_user_namespace_is_joined_with_those_that_it_owns() {
    let holder = Holder::new(&["--user", "--net", "--ipc"]);
    let bundle = owned_bundle(|spec| {
        for (kind, name) in [("ipc", "ipc"), ("network", "net"), ("user", "user")] {
            add_namespace(spec, json!({"type": kind, "path": holder.path(name)}));
        }
        let script = "for name in user net ipc; do readlink /proc/self/ns/$name; done; id -u; echo $$
            touch /dev/shm/x && stat -c %u /dev/shm/x";
        spec["process"]["args"] = json!(["sh", "-c", script]);
    });
    let text = stdout(&bundle.run());
    let links = ["user", "net", "ipc"].map(|name| holder.link(name)).join("\n");
    assert_eq!(text, format!("{links}\n0\n1\n0\n"));
}

#[test]
fn a_new_user_namespace_goes_with_a_network_of_the_host() {
    let holder = Holder::new(&["--net"]);
    let bundle = owned_bundle(|spec| {
        with_user_namespace(spec);
        add_namespace(spec, json!({"type": "network", "path": holder.path("net")}));
        let script = "readlink /proc/self/ns/net; id -u; echo $$; ls -d /sys/class/net";
        spec["process"]["args"] = json!(["sh", "-c", script]);
    });
    assert_eq!(stdout(&bundle.run()), format!("{}\n0\n1\n/sys/class/net\n", holder.link("net")));
}

#[test]
fn mount_and_pid_namespaces_are_joined() {
    let holder = Holder::new(&["--mount", "--uts"]);
    let bundle = Bundle::new(|spec| {
        add_namespace(spec, json!({"type": "mount", "path": holder.path("mnt")}));
        add_namespace(spec, json!({"type": "uts", "path": holder.path("uts")}));
        spec["process"]["args"] =
            json!(["sh", "-c", "readlink /proc/self/ns/mnt /proc/self/ns/uts; ls -d /bin/sh"]);
        spec["process"]["args"][2] =
            json!("readlink /proc/self/ns/mnt; readlink /proc/self/ns/uts; ls -d /bin/sh /home");
    });
    let output = bundle.run();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, format!("{}\n{}\n/bin/sh\n", holder.link("mnt"), holder.link("uts")));
}

#[test]
fn the_terminal_belongs_to_the_container() {
    let bundle = owned_bundle(|spec| {
        with_user_namespace(spec);
        spec["process"]["terminal"] = json!(true);
        let script = "stat -c %u:%g /dev/console && echo told > /dev/console";
        spec["process"]["args"] = json!(["sh", "-c", script]);
    });
    // A terminal for the command itself, by script(1).
    let run = format!(
        "{} --root {} run --bundle {} {}",
        env!("CARGO_BIN_EXE_ponton-runtime"),
        bundle.state_root().display(),
        bundle.path_text(),
        bundle.id
    );
    let output = bundle.finish(Command::new("script").args(["-qec", &run, "/dev/null"]));
    bundle.assert_nothing_left();
    // script(1) tells the end of its own input to the terminal, which may show it anywhere.
    let text = stdout(&output).replace("^@", "");
    assert!(text.contains("0:0\r\ntold\r\n"), "{output:?}");
}

#[test]
fn clocks_have_their_offsets() {
    let bundle = owned_bundle(|spec| {
        with_user_namespace(spec);
        add_namespace(spec, json!({"type": "time"}));
        spec["linux"]["timeOffsets"] =
            json!({"monotonic": {"secs": 7, "nanosecs": 5}, "boottime": {"secs": 1_000_000_000}});
        let script = "awk '{ print ($1 > 1000000000) }' /proc/uptime; cat /proc/self/timens_offsets";
        spec["process"]["args"] = json!(["sh", "-c", script]);
    });
    let text = stdout(&bundle.run());
    let words: Vec<_> = text.split_whitespace().collect();
    assert_eq!(words, ["1", "monotonic", "7", "5", "boottime", "1000000000", "0"]);
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let refused = |change: fn(&mut Value)| {
        let output = Bundle::new(change).run();
        assert!(!output.status.success());
        stderr(&output)
    };
    let offsets = |spec: &mut Value| spec["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 1}});
    assert!(refused(offsets).contains("linux.timeOffsets.monotonic: needs a new time namespace"));
    let unmapped = |spec: &mut Value| add_namespace(spec, json!({"type": "user"}));
    assert!(refused(unmapped).contains("linux.uidMappings: is missing"));
    let user = |spec: &mut Value| {
        with_user_namespace(spec);
        spec["process"]["user"]["uid"] = json!(1010);
    };
    assert!(refused(user).contains("process.user.uid: 1010 is not mapped by linux.uidMappings"));
    let mappings = |spec: &mut Value| {
        spec["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
    };
    assert!(refused(mappings).contains("linux.gidMappings: needs a user namespace"));
    let wrong = |spec: &mut Value| {
        add_namespace(spec, json!({"type": "ipc", "path": "/proc/self/ns/net"}));
    };
    assert!(refused(wrong).contains("setns"));
}

#[test]
fn a_volume_is_shown_with_the_containers_ids() {
    let volume = tempfile::tempdir().unwrap();
    fs::write(volume.path().join("file"), "").unwrap();
    let bundle = owned_bundle(|spec| {
        with_user_namespace(spec);
        mount(spec, "/srv", "bind", volume.path().to_str().unwrap(), &["bind", "idmap"]);
        spec["process"]["args"] = json!(["sh", "-c", "stat -c %u:%g /srv/file; touch /srv/made"]);
    });
    assert_eq!(stdout(&bundle.run()), "0:0\n");
    assert_eq!(fs::metadata(volume.path().join("made")).unwrap().uid(), 0, "root's own on the host");
}

/// A directory of the host that is a mount of its own; it is unmounted with this.
struct HostMount(std::path::PathBuf);

impl HostMount {
    /// Binds `directory` over itself, with options that forbid something.
    fn new(directory: &std::path::Path, options: &str) -> Self {
        let run = |args: &[&str]| {
            let status = Command::new("mount").args(args).arg(directory).status().unwrap();
            assert!(status.success(), "mount {args:?}");
        };
        run(&["--bind", directory.to_str().unwrap()]);
        let mounted = Self(directory.to_owned());
        run(&["-o", &format!("remount,bind,{options}")]);
        mounted
    }
}

impl Drop for HostMount {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(&self.0).status().unwrap();
        assert!(status.success(), "umount {}", self.0.display());
    }
}

/// The container's root may mount, and tries to undo what the host's mounts forbid.
fn may_mount(spec: &mut Value) {
    let all = json!(["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
    spec["process"]["capabilities"] = json!({"bounding": all, "effective": all, "permitted": all});
    spec["root"]["readonly"] = json!(false);
}

#[test]
fn what_the_hosts_mounts_forbid_stays_forbidden() {
    let volume = tempfile::tempdir().unwrap();
    let _mounted = HostMount::new(volume.path(), "ro,nosuid,nodev,noexec");
    let script =
        "mount -o remount,bind,rw,nosuid,nodev,noexec /srv; mount -o remount,bind,ro,suid,dev,exec /srv
        mount -o remount,bind,rw,suid,dev,exec /srv; touch /srv/made; grep ' /srv ' /proc/mounts";
    let run = |join: Option<&Holder>| {
        let bundle = owned_bundle(|spec| {
            match join {
                Some(holder) => add_namespace(spec, json!({"type": "user", "path": holder.path("user")})),
                None => with_user_namespace(spec),
            }
            may_mount(spec);
            mount(spec, "/srv", "bind", volume.path().to_str().unwrap(), &["rbind"]);
            spec["process"]["args"] = json!(["sh", "-c", script]);
        });
        let output = bundle.run();
        let (said, told) = (stderr(&output), stdout(&output));
        assert_eq!(said.matches("mount: ").count(), 3, "{said}");
        let options = told.split_whitespace().nth(3).unwrap();
        assert!(options.starts_with("ro,nosuid,nodev,noexec"), "{told}");
        assert!(!volume.path().join("made").exists());
    };
    run(None);
    run(Some(&Holder::new(&["--user"])));
}

#[test]
fn a_root_file_system_that_the_host_has_read_only_stays_so() {
    let bundle = owned_bundle(|spec| {
        with_user_namespace(spec);
        may_mount(spec);
        let script = "mount -o remount,bind,rw / && echo got; touch /made; id -u";
        spec["process"]["args"] = json!(["sh", "-c", script]);
    });
    for name in ["dev/pts", "dev/shm", "dev/mqueue", "sys/fs/cgroup"] {
        fs::create_dir_all(bundle.root().join(name)).unwrap();
    }
    let root = bundle.root();
    let output = {
        let _mounted = HostMount::new(&root, "ro");
        bundle.command(&["run", "--bundle", bundle.path_text(), &bundle.id])
    };
    bundle.assert_nothing_left();
    assert_eq!(stdout(&output), "0\n", "{output:?}");
    assert!(!root.join("made").exists());
}

#[test]
fn a_source_that_only_the_hosts_root_reaches_is_bound() {
    let directory = tempfile::tempdir().unwrap();
    let volume = directory.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "content").unwrap();
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(directory.path(), closed).unwrap();
    // Neither the root's of the host nor anybody's in the container.
    chown(directory.path(), Some(77), Some(77)).unwrap();
    let bundle = owned_bundle(|spec| {
        with_user_namespace(spec);
        mount(spec, "/srv", "bind", volume.to_str().unwrap(), &["rbind"]);
        mount(spec, "/tmp/one", "bind", volume.join("file").to_str().unwrap(), &["bind", "ro"]);
        spec["process"]["args"] = json!(["cat", "/srv/file", "/tmp/one"]);
    });
    assert_eq!(stdout(&bundle.run()), "contentcontent");
    let bundle = owned_bundle(|spec| {
        with_user_namespace(spec);
        mount(spec, "/srv", "bind", volume.join("gone").to_str().unwrap(), &["rbind"]);
    });
    let said = stderr(&bundle.run());
    assert!(said.contains("mounts[") && said.contains("gone") && said.contains("No such file"), "{said}");
}

#[test]
fn limits_are_set_with_the_hosts_rights() {
    const RESOURCE: u64 = 1 << 24;
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    let has_resource = u64::from_str_radix(capabilities.trim(), 16).unwrap() & RESOURCE != 0;
    let most_files: u64 = fs::read_to_string("/proc/sys/fs/nr_open").unwrap().trim().parse().unwrap();
    let limits = |spec: &mut Value| {
        spec["process"]["scheduler"] = json!({"policy": "SCHED_OTHER", "nice": -5});
        spec["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_RT", "priority": 3});
        // More needs a right that not every host's root has.
        let (nofile, score) = if has_resource { (most_files, -7) } else { (300, 7) };
        spec["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 299, "hard": nofile}]);
        spec["process"]["oomScoreAdj"] = json!(score);
    };
    let show = "awk '{ print $19 }' /proc/self/stat; ionice -p $$; ulimit -n; ulimit -Hn
        cat /proc/self/oom_score_adj";
    let (nofile, score) = if has_resource { (most_files, -7) } else { (300, 7) };
    let expected = format!("-5\nrealtime: prio 3\n299\n{nofile}\n{score}\n");
    let bundle = owned_bundle(|spec| {
        with_user_namespace(spec);
        limits(spec);
        spec["process"]["args"] = json!(["sh", "-c", show]);
    });
    assert_eq!(stdout(&bundle.run()), expected);

    let bundle = owned_bundle(|spec| {
        with_user_namespace(spec);
        spec["process"]["args"] = json!(["sleep", "1000"]);
    });
    assert!(bundle.create().status.success());
    assert!(bundle.command(&["start", &bundle.id]).status.success());
    let mut spec = bundle.spec();
    limits(&mut spec);
    spec["process"]["args"] = json!(["sh", "-c", show]);
    let process = bundle.path().join("process.json");
    fs::write(&process, spec["process"].to_string()).unwrap();
    let output = bundle.command(&["exec", "--process", process.to_str().unwrap(), &bundle.id]);
    assert_eq!(stdout(&output), expected);
    spec["process"]["scheduler"] = json!({"policy": "SCHED_DEADLINE"});
    fs::write(&process, spec["process"].to_string()).unwrap();
    let output = bundle.command(&["exec", "--process", process.to_str().unwrap(), &bundle.id]);
    assert!(stderr(&output).contains("process.scheduler: sched_setattr"), "{output:?}");
    assert!(bundle.command(&["delete", "--force", &bundle.id]).status.success());
    bundle.assert_nothing_left();
}

#[test]
fn mappings_beside_a_joined_namespace_are_its_own_or_a_dummy() {
    let holder = Holder::new(&["--user"]);
    let run = |uid: Value, gid: Value| {
        let bundle = owned_bundle(|spec| {
            add_namespace(spec, json!({"type": "user", "path": holder.path("user")}));
            spec["linux"]["uidMappings"] = json!([uid]);
            spec["linux"]["gidMappings"] = json!([gid]);
            spec["process"]["args"] = json!(["id", "-u"]);
        });
        bundle.run()
    };
    let own = json!({"containerID": 0, "hostID": OUTSIDE, "size": 1000});
    let dummy = json!({"containerID": 0, "hostID": 0, "size": 1});
    let other = json!({"containerID": 0, "hostID": OUTSIDE, "size": 999});
    assert_eq!(stdout(&run(own.clone(), own.clone())), "0\n");
    assert_eq!(stdout(&run(dummy.clone(), dummy)), "0\n");
    let refused =
        |field: &str| format!("{field}: 0:100000:999 is not what the joined namespace maps: 0:100000:1000\n");
    let said = stderr(&run(other.clone(), own.clone()));
    assert!(said.ends_with(&refused("linux.uidMappings")), "{said}");
    let said = stderr(&run(own, other));
    assert!(said.ends_with(&refused("linux.gidMappings")), "{said}");
}
