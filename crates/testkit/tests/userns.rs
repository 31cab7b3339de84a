//! Containers whose users are not the host's (`--userns-remap`): what they see, what the host sees of them, and what
//! they cannot have.
#![allow(clippy::expect_used, reason = "a test program")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use ponton_testkit::{Daemon, Namespace, daemon, image, leak};

/// The first of the ids that stand for those of containers.
const FIRST: u32 = 100_000;

/// A daemon that sees ranges of ids for a user who is everywhere.
fn remapped() -> Daemon {
    let ranges = format!(
        "mkdir -p \"$DATA\" && echo daemon:{FIRST}:65536 > \"$DATA/ranges\" && touch /etc/subuid /etc/subgid && \
         mount --bind \"$DATA/ranges\" /etc/subuid && mount --bind \"$DATA/ranges\" /etc/subgid"
    );
    let daemon = Daemon::start_in(Namespace::new(), &["--userns-remap", "daemon"], Some(&ranges));
    daemon.ponton(&["image", "import", &image::busybox().to_string_lossy(), "busybox"]).ok();
    daemon
}

fn owner(path: &Path) -> (u32, u32) {
    let status = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (status.uid(), status.gid())
}

#[test]
fn root_inside_is_nobody_of_the_host() {
    let daemon = remapped();
    let run = |args: &[&str]| daemon.docker(&[&["run", "--rm"], args].concat()).ok();
    let maps = "cat /proc/self/uid_map; id -u; stat -c '%u %g' /bin/busybox /etc/hosts";
    let seen = run(&["busybox", "sh", "-c", maps]);
    let words: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!(words, ["0", &FIRST.to_string(), "65536", "0", "0", "0", "0", "0"]);
    // What is bound of the host is whose it was.
    let host = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(host.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
    let secret = host.path().join("secret");
    fs::write(&secret, "of the host").expect("write");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("chmod");
    let bind = format!("{}:/host", host.path().display());
    let tried = "touch /host/made; cat /host/secret 2>&1; chown 0 /host/secret 2>&1; mknod /tmp/n b 7 0 2>&1";
    let said = daemon.docker(&["run", "--rm", "-v", &bind, "busybox", "sh", "-c", tried]).stdout;
    assert!(!said.contains("of the host"), "{said}");
    assert_eq!(said.matches("ermission denied").count() + said.matches("not permitted").count(), 3, "{said}");
    assert_eq!(owner(&host.path().join("made")), (FIRST, FIRST));
    assert_eq!(owner(&secret), (0, 0));
    assert!(daemon.docker(&["info", "-f", "{{.SecurityOptions}}"]).ok().contains("name=userns"));
    // The process is another's for the host, too.
    daemon.docker(&["run", "-d", "--name", "life", "busybox", "sleep", "1000"]).ok();
    let pid = daemon.docker(&["inspect", "-f", "{{.State.Pid}}", "life"]).ok();
    assert_eq!(owner(Path::new(&format!("/proc/{}", pid.trim()))), (FIRST, FIRST));
    // Beside it, one that has the host's ids, of the same layers.
    let own = run(&["--userns", "host", "--privileged", "busybox", "sh", "-c", maps]);
    assert_eq!(own.split_whitespace().collect::<Vec<_>>(), ["0", "0", "4294967295", "0", "0", "0", "0", "0"]);
}

#[test]
fn all_the_rest_is_as_without() {
    let mut daemon = remapped();
    let ok = |daemon: &Daemon, args: &[&str]| daemon.docker(args).ok().trim().to_owned();
    let start = ["run", "-d", "--name", "life", "-v", "vol:/v", "--tmpfs", "/t", "-p", "18090:80"];
    ok(&daemon, &[&start[..], &["busybox", "sleep", "1000"]].concat());
    let exec = |daemon: &Daemon, args: &[&str]| ok(daemon, &[&["exec"], args].concat());
    assert_eq!(exec(&daemon, &["life", "sh", "-c", "touch /v/f /t/f && stat -c %u /v/f /t/f"]), "0\n0");
    // On the disk volumes are as the container has them: whoever has the host's ids can use them as well.
    assert_eq!(owner(&daemon.path("data/volumes/vol/_data/f")), (0, 0));
    let other = ["run", "--rm", "--userns", "host", "-v", "vol:/v", "busybox", "stat", "-c", "%u", "/v/f"];
    assert_eq!(ok(&daemon, &other), "0");
    let user =
        ["-u", "1000:1000", "life", "sh", "-c", "echo out > /dev/stdout; touch /t/u; stat -c %u:%g /t/u"];
    assert_eq!(exec(&daemon, &user), "out\n1000:1000");
    // Files come and go with the owners of the container.
    let host = tempfile::tempdir().expect("a temporary directory");
    let file = host.path().join("file");
    fs::write(&file, "copied").expect("write");
    ok(&daemon, &["cp", &file.to_string_lossy(), "life:/file"]);
    assert_eq!(exec(&daemon, &["life", "stat", "-c", "%u %g", "/file"]), "0 0");
    exec(&daemon, &["life", "chown", "7:8", "/file"]);
    let list = "docker cp life:/file - | tar -tv --numeric-owner";
    let listed = daemon::run(&mut daemon.client("sh", &["-c", list]), b"").ok();
    assert!(listed.contains(" 7/8 "), "{listed}");
    assert!(ok(&daemon, &["diff", "life"]).contains("A /file"));
    ok(&daemon, &["commit", "life", "made"]);
    assert_eq!(ok(&daemon, &["run", "--rm", "made", "stat", "-c", "%u %g", "/file"]), "7 8");
    // The container outlives its daemon, and is stopped and started by the next one.
    daemon.kill_and_restart();
    assert_eq!(exec(&daemon, &["life", "id", "-u"]), "0");
    ok(&daemon, &["stop", "-t", "0", "life"]);
    ok(&daemon, &["cp", &file.to_string_lossy(), "life:/second"]);
    ok(&daemon, &["start", "life"]);
    assert_eq!(exec(&daemon, &["life", "stat", "-c", "%u %g", "/second", "/file"]), "0 0\n7 8");
    // Who joins its network joins its user namespace.
    let joined = ["run", "--rm", "--network", "container:life", "--pid", "container:life", "busybox"];
    assert!(ok(&daemon, &[&joined[..], &["ps"]].concat()).contains("sleep 1000"));
    ok(&daemon, &["rm", "-f", "life"]);
    assert_eq!(leak::mounts_under(&daemon.path("data")), Vec::<String>::new());
}

/// In dockerd's words, where it refuses as well.
#[test]
fn what_cannot_be_mapped_is_refused() {
    let daemon = remapped();
    daemon.docker(&["run", "-d", "--name", "life", "busybox", "sleep", "1000"]).ok();
    daemon.docker(&["run", "-d", "--name", "plain", "--userns", "host", "busybox", "sleep", "1000"]).ok();
    for (flags, said) in [
        (
            &["--privileged"][..],
            "privileged mode is incompatible with user namespaces.  You must run the container in",
        ),
        (
            &["--network", "host"],
            "cannot share the host's network namespace when user namespaces are enabled",
        ),
        (&["--pid", "host"], "cannot share the host PID namespace when user namespaces are enabled"),
        (&["--ipc", "host"], "IpcMode host is not implemented"),
        (
            &["--mount", "type=volume,src=vol,dst=/v,volume-subpath=x"],
            "Subpath (mount at /v) is not implemented",
        ),
        (&["--pid", "container:life"], "joining PID of container"),
        (&["--network", "container:plain"], "cannot join network of container"),
        (&["--user", "70000"], "user 70000, not mapped in the container's user namespace"),
        (&["--user", "0:70000"], "70000, not mapped in the container's user namespace"),
        (&["--group-add", "70000"], "groups 0, 70000, not all mapped in the container's user namespace"),
    ] {
        let ran = daemon.docker(&[&["run", "--rm"], flags, &["busybox", "true"]].concat());
        assert!(ran.code == 125 && ran.stderr.contains(said), "{flags:?}: {} {}", ran.code, ran.stderr);
    }
}
