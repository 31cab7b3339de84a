//! Containers of a user without rights. The tests run as root, the runtime as nobody.
#![allow(clippy::unwrap_used, reason = "a test program")]

mod fixture;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use fixture::{Bundle, stderr, stdout};
use serde_json::{Value, json};

const NOBODY: u32 = 65_534;

/// A bundle of nobody's with what `spec --rootless` writes, changed by a test.
fn bundle(change: impl FnOnce(&mut Value)) -> Bundle {
    let bundle = Bundle::without_config();
    let status = Command::new("chown").args(["-R", "65534:65534"]).arg(bundle.path()).status().unwrap();
    assert!(status.success());
    fs::set_permissions(bundle.path(), fs::Permissions::from_mode(0o755)).unwrap();
    stdout(&as_nobody(&bundle, &["spec", "--rootless", "--bundle", bundle.path_text()]));
    let mut spec = bundle.spec();
    spec["process"]["terminal"] = json!(false);
    change(&mut spec);
    bundle.write_spec(&spec);
    bundle
}

fn as_nobody(bundle: &Bundle, args: &[&str]) -> Output {
    bundle.finish(bundle.prepare(args).uid(NOBODY).gid(NOBODY))
}

fn run(bundle: &Bundle) -> Output {
    let output = as_nobody(bundle, &["run", "--bundle", bundle.path_text(), &bundle.id]);
    bundle.assert_nothing_left();
    output
}

#[test]
fn a_user_runs_a_container() {
    let bundle = bundle(|spec| {
        spec["root"]["readonly"] = json!(false);
        let script = "id; echo $$; touch /tmp/made; stat -c %u:%g /tmp/made /dev/shm /proc/1
            cat /proc/self/uid_map; stat -c %t:%T /dev/null; echo x > /dev/null; touch /sys/x 2>/dev/null || echo ro
            cat /proc/keys; grep -c allow /proc/self/setgroups; ls -d /sys/class/net";
        spec["process"]["args"] = json!(["sh", "-c", script]);
    });
    let output = run(&bundle);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words: Vec<_> = text.split_whitespace().collect();
    let expected = "uid=0(root) gid=0 1 0:0 0:0 0:0 0 65534 1 1:3 ro 0 /sys/class/net";
    let words: Vec<_> = words.into_iter().filter(|word| !word.starts_with("groups=")).collect();
    assert_eq!(words.join(" "), expected, "{output:?}");
    assert_eq!(fs::metadata(bundle.root().join("tmp/made")).unwrap().uid(), NOBODY);
}

#[test]
fn volumes_and_sysfs_are_bound_by_the_child() {
    let bundle = bundle(|spec| {
        let mounts = spec["mounts"].as_array_mut().unwrap();
        for mount in mounts.iter_mut().filter(|mount| mount["destination"] == "/sys") {
            // The network is the host's, and sysfs with it: it is shown as a bind.
            *mount = json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]});
        }
        let options = ["bind", "ro", "nosuid"];
        mounts.push(
            json!({"destination": "/srv/hosts", "type": "bind", "source": "/etc/hosts", "options": options}),
        );
        let script = "test -s /srv/hosts && ls -d /sys/class; echo x 2>/dev/null > /srv/hosts || echo ro";
        spec["process"]["args"] = json!(["sh", "-c", script]);
    });
    assert_eq!(stdout(&run(&bundle)), "/sys/class\nro\n");
}

#[test]
fn a_further_program_runs_in_the_container() {
    let bundle = bundle(|spec| spec["process"]["args"] = json!(["sleep", "1000"]));
    let created = as_nobody(&bundle, &["create", "--bundle", bundle.path_text(), &bundle.id]);
    assert!(created.status.success(), "{}", fs::read_to_string(bundle.path().join(".stderr")).unwrap());
    stdout(&as_nobody(&bundle, &["start", &bundle.id]));
    let script = "id -u; cat /proc/1/cmdline | tr '\\0' ' '";
    assert_eq!(stdout(&as_nobody(&bundle, &["exec", &bundle.id, "sh", "-c", script])), "0\nsleep 1000 ");
    stdout(&as_nobody(&bundle, &["delete", "--force", &bundle.id]));
    bundle.assert_nothing_left();
}

#[test]
fn what_needs_rights_is_told() {
    let limited = bundle(|spec| spec["linux"]["resources"] = json!({"pids": {"limit": 10}}));
    let output = run(&limited);
    assert!(stderr(&output).contains("linux.resources"), "{output:?}");
    let plain = bundle(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "user");
        spec["linux"].as_object_mut().unwrap().retain(|field, _| !field.ends_with("Mappings"));
    });
    let output = run(&plain);
    assert!(stderr(&output).contains("linux.namespaces: a user namespace is needed"), "{output:?}");
    let mapped = bundle(|spec| spec["linux"]["uidMappings"][0]["hostID"] = json!(0));
    let output = run(&mapped);
    assert!(!output.status.success() && stderr(&output).contains("newuidmap"), "{output:?}");
}

#[test]
fn a_control_group_is_made_where_it_may_not_be_missing() {
    let bundle = bundle(|spec| spec["process"]["args"] = json!(["true"]));
    let run = |rootless: &str| {
        as_nobody(&bundle, &["--rootless", rootless, "run", "--bundle", bundle.path_text(), &bundle.id])
    };
    assert!(run("true").status.success());
    let refused = run("false");
    assert!(!refused.status.success() && stderr(&refused).contains("cgroup"), "{refused:?}");
    bundle.assert_nothing_left();
}

#[test]
fn ranges_are_mapped_by_newuidmap() {
    let bundle = bundle(|spec| {
        let mappings = json!([
            {"containerID": 0, "hostID": NOBODY, "size": 1}, {"containerID": 1, "hostID": 200_000, "size": 100},
        ]);
        spec["linux"]["uidMappings"] = mappings.clone();
        spec["linux"]["gidMappings"] = mappings;
        spec["process"]["user"] = json!({"uid": 7, "gid": 8, "additionalGids": [9]});
        spec["process"]["args"] = json!(["sh", "-c", "id; cat /proc/self/uid_map /proc/self/setgroups"]);
    });
    let ranges = bundle.path().join("ranges");
    fs::write(&ranges, "nobody:200000:100\n").unwrap();
    let script =
        "touch /etc/subuid /etc/subgid; mount --bind $0 /etc/subuid && mount --bind $0 /etc/subgid &&
        exec setpriv --reuid 65534 --regid 65534 --clear-groups -- \"$@\"";
    let run = bundle.prepare(&["run", "--bundle", bundle.path_text(), &bundle.id]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(&ranges);
    let output = bundle.finish(command.arg(run.get_program()).args(run.get_args()));
    let words: Vec<String> = stdout(&output).split_whitespace().map(String::from).collect();
    assert_eq!(words.join(" "), "uid=7 gid=8 groups=9 0 65534 1 1 200000 100 allow");
    bundle.assert_nothing_left();
}
