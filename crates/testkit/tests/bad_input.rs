//! Bad input: one clear error, Docker's status and exit code, nothing left behind, and the daemon lives on.

use std::fs;
use std::io::{Read, Write};

use ponton_testkit::{Daemon, Ran, daemon, image};
use serde_json::json;

/// Exactly one line of error that names the object, and the exit code.
#[track_caller]
fn refused(ran: &Ran, code: i32, names: &str) {
    assert_eq!(ran.code, code, "{ran:?}");
    assert!(ran.stderr.contains(names), "{names:?} is not named: {ran:?}");
    assert!(!ran.stderr.contains("panicked"), "{ran:?}");
}

#[test]
fn command_line() {
    let daemon = Daemon::start();
    let run = |args: &[&str]| daemon.ponton(&[&["run", "--rm"], args].concat());
    refused(&run(&["nosuch.invalid/x", "true"]), 125, "nosuch.invalid/x");
    refused(&run(&["--nosuchflag", "busybox"]), 125, "--nosuchflag");
    refused(&run(&["busybox", "nosuchcommand"]), 127, "nosuchcommand");
    refused(&run(&["busybox", "/etc/passwd"]), 126, "/etc/passwd");
    refused(&run(&["busybox", "/etc"]), 126, "/etc");
    refused(&run(&["-m", "1k", "busybox", "true"]), 125, "memory");
    refused(&run(&["-m", "lots", "busybox", "true"]), 125, "lots");
    refused(&run(&["--cpus", "many", "busybox", "true"]), 125, "many");
    refused(&run(&["-p", "99999:80", "busybox", "true"]), 125, "99999");
    refused(&run(&["-v", "relative/x:/x", "busybox", "true"]), 125, "relative/x");
    refused(&run(&["-u", "nosuchuser", "busybox", "true"]), 125, "nosuchuser");
    refused(&run(&["--cap-add", "NOSUCH", "busybox", "true"]), 125, "NOSUCH");
    refused(&run(&["--security-opt", "nosuch=1", "busybox", "true"]), 125, "nosuch");
    refused(&run(&["--sysctl", "kernel.panic=1", "busybox", "true"]), 125, "kernel.panic");
    refused(&run(&["--network", "nosuch", "busybox", "true"]), 125, "nosuch");
    refused(&run(&["--name", "-bad", "busybox", "true"]), 125, "-bad");
    refused(
        &run(&["--mount", "type=bind,source=/nosuch/source,target=/x", "busybox", "true"]),
        125,
        "/nosuch/source",
    );
    daemon.ponton(&["create", "--name", "taken", "busybox"]).ok();
    refused(&run(&["--name", "taken", "busybox", "true"]), 125, "taken");
    daemon.ponton(&["rm", "taken"]).ok();
    assert_eq!(daemon.ponton(&["ps", "-aq"]).ok(), "", "nothing is left of what failed");
    assert_eq!(fs::read_dir(daemon.path("data/containers")).expect("containers").count(), 0);
    assert_eq!(run(&["busybox", "echo", "alive"]).ok(), "alive");
}

#[test]
fn requests() {
    let daemon = Daemon::start();
    let api = daemon.api();
    let raw = |method: &str, path: &str, headers: &str, body: &[u8]| {
        let mut stream =
            api.open(method, path, &format!("{headers}Connection: close\r\n"), body).expect("connect");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("read");
        answer
    };
    let json_type = "Content-Type: application/json\r\n";
    for body in
        [&b"{"[..], b"[]", b"{\"Image\": 5}", b"\xff\xfe", b"{\"HostConfig\": {\"Memory\": \"x\"}}", b"{} {}"]
    {
        let answer = raw("POST", "/containers/create", json_type, body);
        assert!(answer.starts_with("HTTP/1.1 400"), "{:?}: {answer}", String::from_utf8_lossy(body));
        assert!(answer.contains("{\"message\":"), "{answer}");
    }
    let huge = vec![b' '; 64 << 20];
    let mut stream = api.open("POST", "/containers/create", json_type, b"").expect("connect");
    // A body far over the bound: refused, or cut off, and never kept in memory whole.
    let _ = stream.write_all(&huge);
    assert!(raw("POST", "/containers/create", "", b"{}").contains("400"));
    assert!(raw("GET", "/v1.24/../../etc/passwd", "", b"").starts_with("HTTP/1.1 404"));
    assert!(raw("BREW", "/version", "", b"").starts_with("HTTP/1.1 40"));
    api.post("/containers/create", &json!({"Image": "nosuch"})).expect(404);
    api.get("/containers/%00/json").expect(404);
    api.get("/containers/json?filters=notjson").expect(400);
    api.get("/containers/json?limit=x").expect(400);
    api.request("POST", "/build", None).expect(501);
    api.request("POST", "/swarm/init", None).expect(501);
    api.get("/_ping").expect(200);
}

#[test]
fn archives() {
    let daemon = Daemon::start();
    let good = fs::read(image::busybox()).expect("busybox.tar");
    let load = |bytes: &[u8]| daemon::run(&mut daemon.client("ponton", &["load"]), bytes);
    let import = |bytes: &[u8]| daemon::run(&mut daemon.client("ponton", &["import", "-", "bad:1"]), bytes);
    refused(&load(b"junk"), 1, "");
    refused(&load(b""), 1, "");
    refused(&load(&good[..good.len() / 2]), 1, "");
    refused(&import(&good[..good.len() / 2 + 100]), 1, "");
    refused(&import(&[0x1f, 0x8b, 8, 0, 0, 0]), 1, "");
    let images = daemon.ponton(&["images", "-q"]).ok();
    assert_eq!(images.lines().count(), 1, "{images}");
    assert_eq!(fs::read_dir(daemon.path("data/tmp")).expect("tmp").count(), 0);
    assert_eq!(daemon.ponton(&["run", "--rm", "busybox", "echo", "alive"]).ok(), "alive");
}

#[test]
fn a_full_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start_in_small_disk("24m");
    daemon.ponton(&["import", &image::busybox().to_string_lossy(), "busybox:latest"]).ok();
    let filled = daemon.ponton(&[
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "dd if=/dev/zero of=/fill bs=1M count=100 2>&1 | tail -n 1; exit 8",
    ]);
    assert_eq!(filled.code, 8, "{filled:?}");
    let mut tar =
        daemon.client("sh", &["-c", "head -c 60000000 /dev/zero > big; tar -cf - big | $P import - big:1"]);
    tar.current_dir(dir.path()).env("P", daemon::binaries().join("ponton"));
    refused(&daemon::run(&mut tar, b""), 1, "No space left on device");
    assert_eq!(daemon.ponton(&["images", "-q"]).ok().lines().count(), 1);
    assert_eq!(daemon.ponton(&["run", "--rm", "busybox", "echo", "alive"]).ok(), "alive");
}
