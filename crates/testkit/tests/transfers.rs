//! Pulls and pushes that meet broken connections, mirrors, certificates and a full disk, through docker's client.
#![allow(clippy::expect_used, reason = "a test program")]

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use ponton_testkit::random::Random;
use ponton_testkit::registry::{PASSWORD, USER};
use ponton_testkit::tar::Tar;
use ponton_testkit::{CuttingProxy, Daemon, Namespace, Ran, Registry, daemon, image};
use serde_json::Value;

/// Puts an image into a registry whose layers no compression makes smaller: the sizes in bytes.
fn publish(registry: &Registry, name: &str, layers: &[usize]) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut random = Random::new(7);
    let layer = |(number, size): (usize, &usize)| {
        let noise: Vec<u8> = (0..*size).map(|_| random.next(256) as u8).collect();
        Tar::default().file(&format!("noise{number}"), noise).finish()
    };
    let layers: Vec<Vec<u8>> = layers.iter().enumerate().map(layer).collect();
    let archive = directory.path().join("image.tar");
    fs::write(&archive, image::archive("noise:1", &layers)).expect("write");
    let from = format!("docker-archive:{}", archive.display());
    registry.skopeo(&["copy", &from, &format!("docker://{}", registry.reference(name))]).ok();
}

#[track_caller]
fn refused(ran: &Ran, part: &str) {
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains(part), "{part:?} is not said: {ran:?}");
    assert_eq!(ran.stderr.trim().lines().count(), 1, "one error: {ran:?}");
}

/// Every blob and layer is what it should be, and nothing is there that nobody needs.
#[track_caller]
fn is_sound(daemon: &Daemon) {
    daemon.ponton(&["image", "check"]).ok();
}

#[test]
fn a_pull_goes_on_where_it_was_cut_twenty_times() {
    const CUTS: usize = 20;
    let daemon = Daemon::start_empty(&[]);
    let registry = Registry::open(&daemon.namespace());
    publish(&registry, "noise:1", &[8_000_000, 16_000_000]);
    let proxy = CuttingProxy::start(&daemon.namespace(), registry.address(), CUTS, 500_000);
    let name = format!("{}/noise:1", proxy.address());
    let pulled = daemon.docker(&["pull", &name]).ok();
    assert_eq!(proxy.cuts(), CUTS);
    assert!(pulled.contains(&format!("Digest: {}", registry.digest("noise:1"))), "{pulled}");
    is_sound(&daemon);
}

#[test]
fn mirrors_are_asked_first_and_may_be_away() {
    let namespace = Namespace::new();
    let registry = Registry::open(&namespace);
    publish(&registry, "library/mirrored:1", &[100_000]);
    let mirrors =
        ["--registry-mirror", "http://127.0.0.1:5999", "--registry-mirror", "http://127.0.0.1:5000"];
    let daemon = Daemon::start_in(namespace, &mirrors, None);
    let pulled = daemon.docker(&["pull", "mirrored:1"]).ok();
    assert!(pulled.contains("docker.io/library/mirrored:1"), "{pulled}");
    let digest = registry.digest("library/mirrored:1");
    let digests = daemon.docker(&["inspect", "-f", "{{json .RepoDigests}}", "mirrored:1"]).ok();
    assert_eq!(digests, format!("[\"mirrored@{digest}\"]"));
    let mirrors = daemon.docker(&["info", "-f", "{{json .RegistryConfig.Mirrors}}"]).ok();
    let mirrors: Vec<String> = serde_json::from_str(&mirrors).expect("mirrors");
    assert_eq!(mirrors.len(), 2, "{mirrors:?}");
}

#[test]
fn certificates_are_those_of_certs_d() {
    let namespace = Namespace::new();
    let registry = Registry::locked(&namespace);
    let stranger = Registry::open(&namespace);
    let etc = tempfile::tempdir().expect("a directory");
    let folder = etc.path().join("docker/certs.d").join(registry.address());
    fs::create_dir_all(&folder).expect("mkdir");
    let trust = |certificate: &Path| fs::copy(certificate, folder.join("ca.crt")).expect("copy");
    // /etc as the host has it, but for this folder.
    let mounts = format!("mount -t overlay -o lowerdir={}:/etc none /etc", etc.path().display());
    let start = || Daemon::start_in(namespace.clone(), &[], Some(&mounts));
    let login = |daemon: &Daemon| {
        let args = ["login", "-u", USER, "--password-stdin", registry.address()];
        daemon::run(&mut daemon.client("docker", &args), PASSWORD.as_bytes())
    };

    trust(&stranger.certificate());
    let untrusting = start();
    refused(&login(&untrusting), "certificate");
    drop(untrusting);

    trust(&registry.certificate());
    let daemon = start();
    publish(&registry, "locked:1", &[100_000]);
    let name = registry.reference("locked:1");
    refused(&daemon.docker(&["pull", &name]), "unauthorized");
    assert!(login(&daemon).ok().contains("Login Succeeded"));
    daemon.docker(&["pull", &name]).ok();
    let copy = registry.reference("copy:1");
    daemon.docker(&["tag", &name, &copy]).ok();
    daemon.docker(&["push", &copy]).ok();
    assert_eq!(registry.digest("copy:1"), registry.digest("locked:1"));
    is_sound(&daemon);
}

#[test]
fn a_disk_that_fills_up_under_a_pull() {
    let namespace = Namespace::new();
    let registry = Registry::open(&namespace);
    publish(&registry, "large:1", &[1_000_000, 24_000_000]);
    let mounts = "mkdir -p \"$DATA\" && mount -t tmpfs -o size=20m none \"$DATA\"";
    let daemon = Daemon::start_in(namespace, &["--disk-budget", "off"], Some(mounts));
    let name = registry.reference("large:1");
    for _ in 0..2 {
        refused(&daemon.docker(&["pull", "-q", &name]), "No space left on device");
        assert_eq!(daemon.docker(&["images", "-aq"]).ok(), "");
        is_sound(&daemon);
    }
    let data = daemon.path("data").to_string_lossy().into_owned();
    let left = daemon::run(daemon.in_mounts("du").args(["-sm", &data]), b"").ok();
    let left: u64 = left.split_whitespace().next().and_then(|size| size.parse().ok()).expect("a size");
    assert!(left < 5, "{left} MiB are left of what was pulled");
    daemon::run(daemon.in_mounts("mount").args(["-o", "remount,size=120m", &data]), b"").ok();
    daemon.docker(&["pull", "-q", &name]).ok();
    is_sound(&daemon);
}

/// MiB of a field of the daemon's status.
fn status(daemon: &Daemon, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the field");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("a number") / 1024
}

#[test]
fn what_a_slow_client_does_not_read_is_not_kept_in_memory() {
    const MIB: usize = 1 << 20;
    let daemon = Daemon::start_empty(&[]);
    let tar = daemon.path("large.tar");
    fs::write(&tar, Tar::default().file("zeros", vec![0; 200 * MIB]).finish()).expect("write");
    daemon.ponton(&["import", &tar.to_string_lossy(), "large:1"]).ok();
    fs::write(format!("/proc/{}/clear_refs", daemon.pid()), "5").expect("clear_refs");
    let before = status(&daemon, "VmRSS:");
    let headers = "Connection: close\r\n";
    let mut stream = daemon.api().open("GET", "/images/large:1/get", headers, b"").expect("a stream");
    let (mut piece, mut all) = (vec![0; MIB], 0);
    while let Ok(length @ 1..) = stream.read(&mut piece) {
        all += length;
        // The daemon is faster than this client, whatever the machine.
        std::thread::sleep(Duration::from_micros(200));
    }
    assert!(all > 200 * MIB, "{all} bytes came");
    let most = status(&daemon, "VmHWM:");
    assert!(most < before + 64, "it grew from {before} MiB to {most} MiB");
}

#[test]
fn the_tree_of_images_shows_their_platforms() {
    let daemon = Daemon::start();
    for client in ["docker", "ponton"] {
        let tree = daemon::run(&mut daemon.client(client, &["images", "--tree"]), b"").ok();
        let line = |part: &str| tree.lines().position(|line| line.contains(part));
        let image = line("busybox:latest").unwrap_or_else(|| panic!("{client}: {tree}"));
        assert!(line("linux/").is_some_and(|platform| platform > image), "{client}: {tree}");
    }
    let listed = daemon.api().get("/v1.48/images/json?manifests=1").json();
    let manifests: &Vec<Value> = listed[0]["Manifests"].as_array().expect("manifests");
    assert_eq!(manifests[0]["ImageData"]["Platform"]["os"], "linux");
}

#[test]
fn the_name_of_an_image_goes_though_it_runs() {
    let daemon = Daemon::start();
    daemon.docker(&["run", "-d", "--name", "runs", "--network", "none", "busybox", "sleep", "10000"]).ok();
    let id = daemon.docker(&["inspect", "-f", "{{.Id}}", "busybox"]).ok();
    refused(&daemon.docker(&["rmi", "busybox"]), "(must force) - container");
    assert_eq!(daemon.docker(&["rmi", "-f", "busybox"]).ok(), "Untagged: busybox:latest");
    refused(
        &daemon.docker(&["rmi", "-f", &id]),
        "(cannot be forced) - image is being used by running container",
    );
    assert_eq!(daemon.docker(&["exec", "runs", "echo", "runs"]).ok(), "runs");
    assert_eq!(daemon.docker(&["images", "-q", "--no-trunc"]).ok(), id);
    daemon.docker(&["rm", "-f", "runs"]).ok();
    daemon.docker(&["rmi", &id]).ok();
    is_sound(&daemon);
}
