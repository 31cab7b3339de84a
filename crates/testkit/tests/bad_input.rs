//! Bad input: one clear error, Docker's status and exit code, nothing left behind, and the daemon lives on.
#![allow(clippy::expect_used, reason = "a test program")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use ponton_testkit::tar::{self, Tar};
use ponton_testkit::{Daemon, Ran, daemon, image, wait};
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
    // This is refused before its body is read: a client that sends all of it first finds the answer.
    assert!(raw("POST", "/images/create?fromSrc=-&repo=NoSuch", "", &huge).starts_with("HTTP/1.1 400"));
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

/// Feeds archives to a daemon and looks at what they leave.
struct Feeder {
    daemon: Daemon,
    canary: PathBuf,
}

impl Feeder {
    fn new() -> Self {
        let daemon = Daemon::start();
        let canary = daemon.path("canary");
        fs::write(&canary, "alive").expect("canary");
        fs::set_permissions(&canary, fs::Permissions::from_mode(0o640)).expect("chmod");
        Self { daemon, canary }
    }

    fn load(&self, bytes: &[u8]) -> Ran {
        daemon::run(&mut self.daemon.client("ponton", &["load"]), bytes)
    }

    fn import(&self, bytes: &[u8]) -> Ran {
        daemon::run(&mut self.daemon.client("ponton", &["import", "-", "bad:1"]), bytes)
    }

    /// Only the busybox image is there, and nothing else is on the disk; its layer still runs.
    fn nothing_is_left(&self) {
        self.is_untouched();
        let images = self.daemon.ponton(&["images", "-aq"]).ok();
        assert_eq!(images.lines().count(), 1, "{images}");
        // What is discarded is deleted in the background.
        wait::until("the end of deleting", || (entries(&self.daemon.path("data/tmp")) == 0).then_some(()));
        assert_eq!(entries(&self.daemon.path("data/content/ingest")), 0);
        assert_eq!(entries(&self.daemon.path("data/content/blobs/sha256")), 1, "the configuration");
        // Names of layers and of snapshots, and the layer.
        assert_eq!(entries(&self.daemon.path("data/snapshots/overlay")), 3);
        assert_eq!(self.daemon.ponton(&["run", "--rm", "busybox", "echo", "alive"]).ok(), "alive");
    }

    /// The file outside is as it was.
    #[track_caller]
    fn is_untouched(&self) {
        assert_eq!(fs::read_to_string(&self.canary).expect("canary"), "alive");
        let status = fs::symlink_metadata(&self.canary).expect("canary");
        assert_eq!((status.permissions().mode() & 0o7777, status.nlink()), (0o640, 1));
        assert_eq!(fs::read_dir(self.daemon.path("")).expect("list").filter(is_strange).count(), 0);
    }
}

/// What the kernel makes of a client's values is the client's to know, and no failure of the daemon.
#[test]
fn what_the_kernel_refuses() {
    let daemon = Daemon::start_empty(&["--log-level", "debug"]);
    daemon.ponton(&["image", "import", &image::busybox().to_string_lossy(), "busybox"]).ok();
    let api = daemon.api();
    daemon.ponton(&["run", "-d", "--name", "box", "busybox", "sleep", "1000"]).ok();
    for directory in ["/nosuch/directory", "/etc/passwd", "/proc/1/nosuch"] {
        let exec = json!({"Cmd": ["true"], "WorkingDir": directory});
        let id = api.post("/containers/box/exec", &exec).expect(201).json()["Id"].as_str().map(str::to_owned);
        let start = format!("/exec/{}/start", id.expect("an id"));
        let refused = api.post(&start, &json!({"Detach": true})).expect(400).text();
        assert!(refused.contains(&format!("chdir {directory}: ")), "{directory}: {refused}");
    }
    for directory in ["/etc/passwd", "/proc/nosuch"] {
        let create = json!({"Image": "busybox", "Cmd": ["true"], "WorkingDir": directory});
        api.post("/containers/create?name=elsewhere", &create).expect(201);
        let refused = api.request("POST", "/containers/elsewhere/start", None).expect(400).text();
        assert!(refused.contains(directory), "{directory}: {refused}");
        api.request("DELETE", "/containers/elsewhere", None).expect(204);
    }
    // Without time for groups that are above, the kernel has none for the container's.
    if Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
        let refused = api.post("/containers/box/update", &json!({"CpuRealtimeRuntime": 400_000})).expect(400);
        assert!(refused.text().contains("CpuRealtimeRuntime: "), "{}", refused.text());
    }
    if Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
        let host = json!({"CpuRealtimeRuntime": -260});
        let create = json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": host});
        api.post("/containers/create?name=soon", &create).expect(201);
        let refused = api.request("POST", "/containers/soon/start", None).expect(400).text();
        assert!(refused.contains("realtimeRuntime"), "{refused}");
    }
    // A volume where another has a file.
    daemon.ponton(&["run", "--rm", "-v", "data:/data", "busybox", "touch", "/data/x"]).ok();
    let create = json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Binds": ["data:/data", "other:/data/x"]}});
    api.post("/containers/create?name=unfit", &create).expect(201);
    let refused = api.get("/containers/unfit/archive?path=/etc/passwd").expect(400).text();
    assert!(refused.contains("/data/x: Not a directory"), "{refused}");
    // A client that goes away in the middle of what it sends.
    let mut stream = UnixStream::connect(daemon.path("run/ponton.sock")).expect("a connection");
    let head = "PUT /containers/box/archive?path=/tmp HTTP/1.1\r\nHost: d\r\nContent-Length: 100000\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("write");
    stream.write_all(&[b'x'; 700]).expect("write");
    drop(stream);
    wait::until("a word of it", || daemon.log().contains("/containers/box/archive").then_some(()));
    assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
    // What a run with --rm leaves does not keep the next from being mounted.
    daemon.ponton(&["run", "-d", "--rm", "--name", "again", "busybox", "sleep", "1000"]).ok();
    for _ in 0..2 {
        daemon.ponton(&["restart", "-t", "0", "again"]).ok();
    }
    daemon.ponton(&["exec", "again", "true"]).ok();
    assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
}

fn entries(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())).count()
}

/// What an archive that left its root would have made beside the canary.
fn is_strange(entry: &std::io::Result<fs::DirEntry>) -> bool {
    entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("escaped"))
}

#[test]
fn corrupt_archives() {
    let feeder = Feeder::new();
    let good = fs::read(image::busybox()).expect("busybox.tar");
    refused(&feeder.load(b"junk"), 1, "");
    refused(&feeder.load(b""), 1, "");
    refused(&feeder.load(&good[..good.len() / 2]), 1, "");
    refused(&feeder.load(&good), 1, "manifest");
    refused(&feeder.import(&good[..good.len() / 2 + 100]), 1, "");
    refused(&feeder.import(&[0x1f, 0x8b, 8, 0, 0, 0]), 1, "");
    refused(&feeder.import(&vec![7; 5000]), 1, "");
    let compressed = tar::gzip(&good);
    refused(&feeder.import(&compressed[..compressed.len() / 2]), 1, "");
    // The checksum at the end is wrong: all that came before was good.
    let mut wrong = compressed;
    let at = wrong.len() - 6;
    wrong[at] ^= 0xff;
    refused(&feeder.import(&wrong), 1, "");
    feeder.nothing_is_left();
}

/// A docker-archive of one layer; `diff_id` is what the configuration says of it.
fn docker_archive(layer: &[u8], diff_id: &str, layer_name: &str) -> Vec<u8> {
    let config = json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff_id}")]}});
    let manifest = json!([{"Config": "config.json", "RepoTags": ["bad:1"], "Layers": [layer_name]}]);
    Tar::default()
        .file("config.json", config.to_string())
        .file("layer.tar", layer)
        .file("manifest.json", manifest.to_string())
        .finish()
}

/// An oci-archive of one layer, whose bytes under its digest are `layer`.
fn oci_archive(layer: &[u8], layer_digest: &str) -> Vec<u8> {
    let config = json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_digest}")]}})
    .to_string();
    let descriptor = |kind: &str, digest: &str, size: usize| {
        let media_type = format!("application/vnd.oci.image.{kind}");
        json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size})
    };
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", &tar::sha256(config.as_bytes()), config.len()),
        "layers": [descriptor("layer.v1.tar", layer_digest, layer.len())]})
    .to_string();
    let manifest_digest = tar::sha256(manifest.as_bytes());
    let mut named = descriptor("manifest.v1+json", &manifest_digest, manifest.len());
    named["annotations"] = json!({"io.containerd.image.name": "docker.io/library/bad:1"});
    let index = json!({"schemaVersion": 2, "manifests": [named]});
    Tar::default()
        .file("oci-layout", json!({"imageLayoutVersion": "1.0.0"}).to_string())
        .file("index.json", index.to_string())
        .file(&format!("blobs/sha256/{manifest_digest}"), manifest)
        .file(&format!("blobs/sha256/{}", tar::sha256(config.as_bytes())), config)
        .file(&format!("blobs/sha256/{layer_digest}"), layer)
        .finish()
}

#[test]
fn archives_that_lie() {
    let feeder = Feeder::new();
    let layer = Tar::default().file("hello", "hello").finish();
    let digest = tar::sha256(&layer);
    let other = Tar::default().file("hello", "HELLO").finish();
    let other_digest = tar::sha256(&other);
    refused(&feeder.load(&docker_archive(&layer, &other_digest, "layer.tar")), 1, &digest);
    refused(&feeder.load(&docker_archive(&layer, &digest, "missing.tar")), 1, "missing.tar");
    refused(&feeder.load(&docker_archive(&layer, "nonsense", "layer.tar")), 1, "");
    refused(&feeder.load(&oci_archive(&other, &digest)), 1, &digest);
    let manifests = [
        &b"{"[..],
        b"[]",
        b"[{}]",
        b"[{\"Config\": \"../../etc/passwd\", \"Layers\": []}]",
        b"[{\"Config\": 1}]",
    ];
    for manifest in manifests {
        refused(&feeder.load(&Tar::default().file("manifest.json", manifest).finish()), 1, "");
    }
    feeder.nothing_is_left();
    // The same archives without the lie are taken: it was the lie that was refused.
    feeder.load(&docker_archive(&layer, &digest, "layer.tar")).ok();
    feeder.daemon.ponton(&["rmi", "bad:1"]).ok();
    feeder.load(&oci_archive(&layer, &digest)).ok();
    feeder.daemon.ponton(&["rmi", "bad:1"]).ok();
    feeder.nothing_is_left();
}

#[test]
fn hostile_archives() {
    let feeder = Feeder::new();
    let outside = feeder.daemon.path("");
    let outside = outside.to_string_lossy();
    let outside = outside.trim_end_matches('/');
    let canary = format!("{outside}/canary");
    let up = format!("{}{}", "../".repeat(12), canary.trim_start_matches('/'));
    let tar = Tar::default;
    // Refused, or done inside of the root: either is right, and nothing outside may change.
    let hostile = [
        tar().file(&up, "dead"),
        tar().file(&canary, "dead"),
        tar().symlink("x", outside).file("x/canary", "dead").file("x/escaped", "dead"),
        tar().symlink("x", &canary).file("x", "dead"),
        tar().symlink("x", &up).hard_link("y", "x").file("y", "dead"),
        tar().hard_link("x", &canary).file("x", "dead"),
        tar().hard_link("x", &up).file("x", "dead"),
        tar().symlink("x", outside).hard_link("y", "x/canary").file("y", "dead"),
        tar().symlink("x", outside).directory("x/escaped"),
        tar().symlink("x", outside).symlink("x/escaped", "/"),
        tar().symlink("x", outside).entry("x/escaped", b'3', "", b""),
        tar().symlink("x", outside).entry("x/.wh.canary", b'0', "", b""),
        tar().symlink("x", outside).file("x/.wh..wh..opq", ""),
        tar().symlink("x", outside).directory("x").file("x/canary", "dead"),
        tar().file(&format!(".wh.{up}"), ""),
        tar().symlink("a", "..").symlink("a/b", "..").file(&format!("a/b{canary}"), "dead"),
        tar().file("..", "dead").directory("../escaped"),
        tar().file("x/.wh...", "").file(".wh..", ""),
        tar().entry("sda", b'4', "", b"").file("sda", "dead"),
        tar().entry("null", b'3', "", b"").file("null", "dead"),
    ];
    for (number, archive) in hostile.into_iter().enumerate() {
        let layer = archive.finish();
        let digest = tar::sha256(&layer);
        let ways: [&dyn Fn() -> Ran; 3] = [
            &|| feeder.import(&layer),
            &|| feeder.load(&docker_archive(&layer, &digest, "layer.tar")),
            &|| feeder.load(&oci_archive(&layer, &digest)),
        ];
        for way in ways {
            let ran = way();
            assert!(ran.code == 0 || ran.code == 1, "{number}: {ran:?}");
            assert!(!ran.stderr.contains("panicked"), "{number}: {ran:?}");
            feeder.is_untouched();
            if ran.code == 0 {
                let removed = feeder.daemon.ponton(&["rmi", "bad:1"]);
                assert_eq!(removed.code, 0, "{number}: {ran:?} {removed:?}");
            }
        }
    }
    // The archives themselves may have such names, too.
    for name in [up.as_str(), canary.as_str(), "../escaped", "/escaped"] {
        let layer = tar().finish();
        let archive = docker_archive(&layer, &tar::sha256(&layer), name);
        refused(&feeder.load(&archive), 1, "");
        let ran = feeder.load(&tar().file(name, "dead").finish());
        refused(&ran, 1, "");
        feeder.is_untouched();
    }
    feeder.nothing_is_left();
    assert!(!feeder.daemon.log().contains("panicked"), "{}", feeder.daemon.log());
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
    fs::write(dir.path().join("big"), vec![0; 60_000_000]).expect("a big file");
    // The error comes while the client still sends: it must be read all the same, whoever the client is.
    let clients = [daemon::binaries().join("ponton"), PathBuf::from("docker")];
    // The emulated machine has no Docker.
    for client in clients.into_iter().filter(|client| Command::new(client).arg("--version").output().is_ok())
    {
        let mut import = daemon.client("sh", &["-c", "tar -cf - big | \"$CLIENT\" import - big:1"]);
        import.current_dir(dir.path()).env("CLIENT", &client);
        refused(&daemon::run(&mut import, b""), 1, "No space left on device");
    }
    assert_eq!(daemon.ponton(&["images", "-q"]).ok().lines().count(), 1);
    assert_eq!(daemon.ponton(&["run", "--rm", "busybox", "echo", "alive"]).ok(), "alive");
}
