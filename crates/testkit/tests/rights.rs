//! What only a machine that gives all rights can show: privileged containers, limits above the daemon's own, AppArmor.
//! Where a right is missing, the error that says so.
#![allow(clippy::expect_used, reason = "a test program")]

use std::fs;
use std::process::Command;

use ponton_testkit::{Daemon, daemon};

/// Whether this process may hand on every capability that the kernel knows.
fn has_all_capabilities() -> bool {
    let last = fs::read_to_string("/proc/sys/kernel/cap_last_cap").expect("cap_last_cap");
    let all = (1_u64 << (last.trim().parse::<u32>().expect("a number") + 1)) - 1;
    bounding() == all
}

fn bounding() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("status");
    let set = status.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).expect("CapBnd");
    u64::from_str_radix(set, 16).expect("a set")
}

/// `CAP_SYS_RESOURCE`.
fn may_raise_limits() -> bool {
    bounding() & (1 << 24) != 0
}

#[test]
fn privileged_containers_have_every_right_that_is_there() {
    let daemon = Daemon::start();
    let own = format!("CapEff:\t{:016x}", bounding());
    let capabilities = ["grep", "CapEff", "/proc/self/status"];
    let run = |args: &[&str]| daemon.ponton(&[&["run", "--rm"], args].concat());
    let privileged = run(&[&["--privileged", "busybox"], &capabilities[..]].concat());
    if !has_all_capabilities() {
        assert!(privileged.code == 125 || privileged.stdout.trim() == own, "{privileged:?}");
        return;
    }
    assert_eq!(privileged.ok(), own);
    let script = "mount -t tmpfs none /mnt && echo mounted; test -c /dev/kmsg && echo kmsg
        grep -c '^Seccomp:.0' /proc/self/status; echo 1 > /proc/sys/net/ipv4/ip_forward && echo written";
    let shown = run(&["--privileged", "-w", "/mnt", "busybox", "sh", "-c", script]).ok();
    assert_eq!(shown, "mounted\nkmsg\n1\nwritten");
    daemon.ponton(&["run", "-d", "--name", "plain", "busybox", "sleep", "1000"]).ok();
    let exec =
        |options: &[&str]| daemon.ponton(&[&["exec"], options, &["plain"], &capabilities[..]].concat());
    assert_eq!(exec(&["--privileged"]).ok(), own);
    assert_ne!(exec(&[]).ok(), own, "an exec is as its container");
}

#[test]
fn limits_above_the_daemons_own_need_the_right_to_raise_them() {
    let daemon = Daemon::start();
    let run = |args: &[&str]| daemon.ponton(&[&["run", "--rm"], args].concat());
    let script = "cat /proc/self/oom_score_adj; ulimit -H -q; ulimit -H -n";
    let high =
        ["--oom-score-adj", "-500", "--ulimit", "msgqueue=1000000000", "--ulimit", "nofile=70000:800000"];
    let raised = run(&[&high[..], &["busybox", "sh", "-c", script]].concat());
    if may_raise_limits() {
        // busybox has no word for queues of messages.
        let lines: Vec<_> = raised.stdout.lines().collect();
        assert_eq!((lines.first(), lines.last()), (Some(&"-500"), Some(&"800000")), "{raised:?}");
        let limits = run(&[&high[..], &["busybox", "grep", "msgqueue", "/proc/self/limits"]].concat()).ok();
        assert!(limits.contains("1000000000"), "{limits}");
    } else {
        assert_eq!(raised.code, 125, "{raised:?}");
        assert!(raised.stderr.contains("oom_score_adj") || raised.stderr.contains("RLIMIT_"), "{raised:?}");
    }
    assert_eq!(run(&["--oom-score-adj", "500", "busybox", "cat", "/proc/self/oom_score_adj"]).ok(), "500");
}

#[test]
fn profiles_of_apparmor_confine_containers_and_execs() {
    let daemon = Daemon::start();
    let has_apparmor =
        fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'));
    let profile = format!("ponton-daemon-{}", std::process::id());
    let option = format!("apparmor={profile}");
    let show = ["cat", "/proc/self/attr/current"];
    let run = |option: &str| {
        daemon.ponton(&[&["run", "--rm", "--security-opt", option, "busybox"], &show[..]].concat())
    };
    if !has_apparmor {
        return;
    }
    let unknown = run("apparmor=no-such-profile");
    assert!(unknown.code == 125 && unknown.stderr.contains("no-such-profile"), "{unknown:?}");
    assert_eq!(daemon.ponton(&["ps", "-aq"]).ok(), "", "nothing is left of it");

    let text = format!(
        "profile {profile} flags=(attach_disconnected,mediate_deleted) {{
            file, capability, network, signal, ptrace, mount, umount, unix,
            deny /etc/group r,
        }}"
    );
    let parser = |operation: &str| {
        daemon::run(Command::new("apparmor_parser").args([operation, "--skip-cache"]), text.as_bytes()).ok();
    };
    parser("--replace");
    let shown = run(&option);
    let options = ["run", "-d", "--name", "confined", "--security-opt", &option, "busybox", "sleep", "1000"];
    let started = daemon.ponton(&options);
    let exec = daemon.ponton(&[&["exec", "confined"], &show[..]].concat());
    let forbidden = daemon.ponton(&["exec", "confined", "cat", "/etc/group"]);
    let inspected = daemon.ponton(&["inspect", "-f", "{{.AppArmorProfile}}", "confined"]);
    daemon.ponton(&["rm", "-f", "confined"]).ok();
    parser("--remove");
    let enforced = format!("{profile} (enforce)");
    assert_eq!(shown.ok(), enforced);
    started.ok();
    assert_eq!(exec.ok(), enforced);
    assert!(forbidden.code == 1 && forbidden.stderr.contains("Permission denied"), "{forbidden:?}");
    assert_eq!(inspected.ok(), profile);
}
