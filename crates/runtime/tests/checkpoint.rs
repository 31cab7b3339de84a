//! Containers that are saved and started again by CRIU; where that does not work, the error.
#![allow(clippy::unwrap_used, reason = "a test program")]

mod fixture;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::json;

use fixture::{Bundle, mount, stderr, until};

/// Counts in a file of the root file system.
fn counter() -> Bundle {
    Bundle::new(|spec| {
        let script = "i=0; while :; do i=$((i + 1)); echo $i >/tmp/count; sleep 0.02; done";
        spec["process"]["args"] = json!(["sh", "-c", script]);
        spec["root"]["readonly"] = json!(false);
    })
}

/// Whether CRIU works on this kernel.
fn has_criu() -> bool {
    let check = Command::new("criu").arg("check").stdout(Stdio::null()).stderr(Stdio::null()).status();
    check.is_ok_and(|status| status.success())
}

/// Waits until it has counted further than `from`; how far.
#[track_caller]
fn count_after(bundle: &Bundle, from: u32) -> u32 {
    until(&format!("a count beyond {from}"), || {
        let text = fs::read_to_string(bundle.root().join("tmp/count")).unwrap_or_default();
        text.trim().parse().ok().filter(|count| *count > from)
    })
}

#[track_caller]
fn assert_ok(bundle: &Bundle, args: &[&str]) {
    let output = bundle.command(args);
    assert!(output.status.success(), "{output:?}\n{}", logs(bundle));
}

/// The ends of CRIU's logs.
fn logs(bundle: &Bundle) -> String {
    let log = |name: &str| fs::read_to_string(bundle.path().join("images").join(name)).unwrap_or_default();
    let end = |name| log(name).lines().rev().take(30).map(|line| format!("{line}\n")).collect::<String>();
    ["dump.log", "restore.log"].map(end).join("--\n")
}

#[test]
fn a_counting_shell_counts_on() {
    let bundle = counter();
    let images = bundle.path().join("images");
    let images = images.to_str().unwrap();
    assert!(bundle.create().status.success());
    assert_ok(&bundle, &["start", &bundle.id]);
    let begun = count_after(&bundle, 2);
    let checkpoint = ["checkpoint", "--image-path", images, &bundle.id];
    if !has_criu() {
        let refused = bundle.command(&checkpoint);
        assert!(!refused.status.success() && stderr(&refused).contains("criu"), "{refused:?}");
        count_after(&bundle, begun);
        return;
    }
    let leave = ["checkpoint", "--leave-running", "--image-path", images, &bundle.id];
    assert_ok(&bundle, &leave);
    let saved = count_after(&bundle, count_after(&bundle, begun));
    assert_ok(&bundle, &checkpoint);
    bundle.assert_nothing_left();
    // It does not begin anew: what it counts is in its memory.
    let restore = ["restore", "--detach", "--bundle", bundle.path_text(), "--image-path", images, &bundle.id];
    assert_ok(&bundle, &restore);
    let restored = until("a count that is told", || {
        let text = fs::read_to_string(bundle.root().join("tmp/count")).unwrap_or_default();
        let count: u32 = text.trim().parse().ok()?;
        assert!(count >= saved, "it counts {count} after {saved}");
        (count > saved + 1).then_some(count)
    });
    assert_eq!(bundle.state()["status"], "running");
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", bundle.state()["pid"])).unwrap();
    assert!(cgroup.contains(&format!("/ponton/{}", bundle.id)), "{cgroup}");
    assert_ok(&bundle, &["exec", &bundle.id, "true"]);
    count_after(&bundle, restored);
    assert_ok(&bundle, &["delete", "--force", &bundle.id]);
    bundle.assert_nothing_left();
}

/// With what stands in for CRIU where that does not work: what it is told is what counts.
#[test]
fn a_stand_in_for_criu_is_told_of_the_container() {
    let bundle = Bundle::new(|spec| {
        spec["process"]["args"] = json!(["sh", "/data/program", "0"]);
        spec["root"]["readonly"] = json!(false);
        let data = std::path::PathBuf::from(spec["root"]["path"].as_str().unwrap()).with_file_name("data");
        fs::create_dir(&data).unwrap();
        let script = "i=$1; while [ ! -e /data/go ]; do i=$((i + 1)); echo $i >/data/next; mv /data/next /data/count; \
            sleep 0.02; done; cat /etc/hostname; exit 7";
        fs::write(data.join("program"), script).unwrap();
        fs::write(data.join("hostname"), "bound\n").unwrap();
        mount(spec, "/data", "bind", data.to_str().unwrap(), &["rbind", "rw"]);
        mount(spec, "/etc/hostname", "bind", data.join("hostname").to_str().unwrap(), &["bind", "ro"]);
    });
    let criu = bundle.path().join("criu");
    let stand_in = concat!(env!("CARGO_MANIFEST_DIR"), "/../testkit/tests/checkpoint/criu.sh");
    fs::copy(stand_in, &criu).unwrap();
    fs::set_permissions(&criu, fs::Permissions::from_mode(0o755)).unwrap();
    let criu = criu.to_str().unwrap();
    let images = bundle.path().join("images");
    let images = images.to_str().unwrap();
    let count = |what: &str| {
        until(what, || {
            let text = fs::read_to_string(bundle.path().join("data/count")).ok()?;
            text.trim().parse::<u32>().ok()
        })
    };
    assert!(bundle.create().status.success());
    assert_ok(&bundle, &["start", &bundle.id]);
    count("a count");
    let broken = bundle.path().join("broken");
    fs::write(&broken, "").unwrap();
    let checkpoint = ["--criu", criu, "checkpoint", "--image-path", images, &bundle.id];
    let restore =
        ["--criu", criu, "restore", "--bundle", bundle.path_text(), "--image-path", images, &bundle.id];
    let refused = bundle.command(&checkpoint);
    assert!(stderr(&refused).contains("Error (stand-in.c:1): the cause"), "{refused:?}");
    assert_eq!(bundle.state()["status"], "running");
    fs::remove_file(&broken).unwrap();
    assert_ok(&bundle, &checkpoint);
    bundle.assert_nothing_left();
    let saved = count("what was saved");
    fs::write(&broken, "").unwrap();
    let refused = bundle.command(&restore);
    assert!(stderr(&refused).contains("Error (stand-in.c:1): the cause"), "{refused:?}");
    bundle.assert_nothing_left();
    fs::remove_file(&broken).unwrap();
    fs::write(bundle.path().join("data/go"), "").unwrap();
    let ended = bundle.command(&restore);
    assert_eq!(ended.status.code(), Some(7), "{ended:?}");
    assert_eq!(String::from_utf8(ended.stdout).unwrap(), "bound\n");
    assert_eq!(count("the same"), saved);
    bundle.assert_nothing_left();
    fs::remove_file(bundle.path().join("data/go")).unwrap();
    let mut detached = restore.to_vec();
    detached.insert(3, "--detach");
    assert_ok(&bundle, &detached);
    until("it goes on", || (count("it goes on") > saved).then_some(()));
    assert_ok(&bundle, &["exec", &bundle.id, "true"]);
    assert_ok(&bundle, &["delete", "--force", &bundle.id]);
    bundle.assert_nothing_left();
}

#[test]
fn a_container_in_the_foreground_is_as_it_was() {
    let bundle = Bundle::new(|spec| {
        let script = "echo $$ >/data/pid; while [ ! -e /data/go ]; do echo 1 >/tmp/count; sleep 0.02; done; \
            cat /proc/self/status | grep Seccomp_filters; cat /etc/hostname; exit 7";
        spec["process"]["args"] = json!(["sh", "-c", script]);
        spec["root"]["readonly"] = json!(false);
        spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["ptrace"], "action": "SCMP_ACT_ERRNO"}]});
        let data = std::path::PathBuf::from(spec["root"]["path"].as_str().unwrap()).with_file_name("data");
        fs::create_dir(&data).unwrap();
        fs::write(data.join("hostname"), "bound\n").unwrap();
        mount(spec, "/data", "bind", data.to_str().unwrap(), &["rbind", "rw"]);
        mount(spec, "/etc/hostname", "bind", data.join("hostname").to_str().unwrap(), &["bind", "ro"]);
    });
    if !has_criu() {
        // The other test looks at the error.
        return;
    }
    let images = bundle.path().join("images");
    let images = images.to_str().unwrap();
    assert!(bundle.create().status.success());
    assert_ok(&bundle, &["start", &bundle.id]);
    count_after(&bundle, 0);
    // First its memory only, then what has changed since.
    let before = bundle.path().join("images/before");
    assert_ok(&bundle, &["checkpoint", "--pre-dump", "--image-path", before.to_str().unwrap(), &bundle.id]);
    assert_eq!(bundle.state()["status"], "running");
    assert_ok(&bundle, &["checkpoint", "--parent-path", "before", "--image-path", images, &bundle.id]);
    bundle.assert_nothing_left();
    fs::write(bundle.path().join("data/go"), "").unwrap();
    let restore = ["restore", "--bundle", bundle.path_text(), "--image-path", images, &bundle.id];
    let ended = bundle.command(&restore);
    assert_eq!(ended.status.code(), Some(7), "{ended:?}\n{}", logs(&bundle));
    assert_eq!(String::from_utf8(ended.stdout).unwrap(), "Seccomp_filters:\t1\nbound\n");
    assert_eq!(fs::read_to_string(bundle.path().join("data/pid")).unwrap(), "1\n");
    bundle.assert_nothing_left();
}
