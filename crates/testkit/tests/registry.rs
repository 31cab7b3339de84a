//! Images between Ponton, a registry, and the other engines, with clients that users have already.
#![allow(clippy::expect_used, reason = "a test program")]

use std::fs;
use std::process::Command;

use ponton_testkit::registry::{PASSWORD, USER};
use ponton_testkit::{Daemon, Peer, Ran, Registry, daemon, image, tar};
use serde_json::Value;

/// docker's command line and ours, which have to do the same.
const CLIENTS: [&str; 2] = ["docker", "ponton"];

#[track_caller]
fn refused(ran: &Ran, names: &[&str]) {
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(names.iter().any(|name| ran.stderr.contains(name)), "none of {names:?} is said: {ran:?}");
}

#[track_caller]
fn contains(text: &str, part: &str) {
    assert!(text.contains(part), "{part:?} is not in {text}");
}

#[test]
fn images_are_pushed_and_pulled() {
    let daemon = Daemon::start();
    let registry = Registry::open(&daemon.namespace());
    for client in CLIENTS {
        let run = |args: &[&str]| daemon::run(&mut daemon.client(client, args), b"");
        let repository = registry.reference(&format!("{client}/busybox"));
        let (one, two) = (format!("{repository}:1"), format!("{repository}:2"));
        run(&["tag", "busybox", &one]).ok();
        let pushed = run(&["push", &one]).ok();
        let digest = registry.digest(&format!("{client}/busybox:1"));
        contains(&pushed, &format!("The push refers to repository [{repository}]"));
        contains(&pushed, &format!("1: digest: {digest} size: "));
        contains(&run(&["push", &one]).ok(), "Layer already exists");
        run(&["tag", "busybox", &two]).ok();
        run(&["push", &two]).ok();
        assert_eq!(registry.digest(&format!("{client}/busybox:2")), digest, "the same image");
        run(&["rmi", &one, &two]).ok();

        let pulled = run(&["pull", &one]).ok();
        contains(&pulled, &format!("Digest: {digest}"));
        contains(&pulled, &format!("Status: Downloaded newer image for {one}"));
        contains(&run(&["pull", &one]).ok(), &format!("Status: Image is up to date for {one}"));
        assert_eq!(run(&["run", "--rm", &one, "echo", "there"]).ok(), "there");
        let digests = run(&["inspect", "-f", "{{json .RepoDigests}}", &one]).ok();
        contains(&digests, &format!("{repository}@{digest}"));
        run(&["rmi", &one]).ok();
        let by_digest = format!("{repository}@{digest}");
        contains(&run(&["pull", &by_digest]).ok(), &format!("Digest: {digest}"));
        assert_eq!(run(&["run", "--rm", &by_digest, "echo", "by digest"]).ok(), "by digest");
        run(&["rmi", &by_digest]).ok();
        run(&["pull", "-a", &repository]).ok();
        let tags = run(&["images", "--format", "{{.Tag}}", &repository]).ok();
        let mut tags: Vec<_> = tags.lines().collect();
        tags.sort_unstable();
        assert_eq!(tags, ["1", "2"]);
        run(&["rmi", &one, &two]).ok();
        // What is not there is pulled by who needs it.
        assert_eq!(run(&["run", "--rm", &one, "echo", "pulled"]).ok(), "pulled");
        run(&["rmi", &one]).ok();
        refused(&run(&["pull", &registry.reference("nosuch")]), &["nosuch"]);
        refused(&run(&["pull", &format!("{repository}:nosuch")]), &["nosuch"]);
        assert_eq!(run(&["images", "-q"]).ok().lines().count(), 1, "{client}");
    }
}

#[test]
fn a_locked_registry_is_opened_by_login_alone() {
    const UNAUTHORIZED: [&str; 2] = ["no basic auth credentials", "unauthorized"];
    let daemon = Daemon::start();
    let registry = Registry::locked(&daemon.namespace());
    for client in CLIENTS {
        let run =
            |args: &[&str], input: &str| daemon::run(&mut daemon.client(client, args), input.as_bytes());
        let name = registry.reference(&format!("{client}/busybox:1"));
        run(&["tag", "busybox", &name], "").ok();
        refused(&run(&["push", &name], ""), &UNAUTHORIZED);
        let login = ["login", "-u", USER, "--password-stdin", registry.address()];
        refused(&run(&login, "wrong"), &["unauthorized"]);
        refused(&run(&["push", &name], ""), &UNAUTHORIZED);
        contains(&run(&login, PASSWORD).ok(), "Login Succeeded");
        run(&["push", &name], "").ok();
        run(&["rmi", &name], "").ok();
        run(&["pull", &name], "").ok();
        run(&["rmi", &name], "").ok();
        contains(&run(&["logout", registry.address()], "").ok(), registry.address());
        refused(&run(&["pull", &name], ""), &UNAUTHORIZED);
    }
    assert!(!daemon.log().contains(PASSWORD), "the log has the password");
}

#[test]
fn images_are_made_saved_loaded_and_tidied_up() {
    let daemon = Daemon::start();
    for client in CLIENTS {
        let run = |args: &[&str]| daemon::run(&mut daemon.client(client, args), b"");
        let shell = |script: &str| {
            let script = format!(
                "D='{}'; {script}",
                daemon.client(client, &[]).get_args().last().expect("a program").display()
            );
            daemon::run(daemon.client("sh", &["-c", &script]).current_dir(daemon.path("")), b"").ok()
        };
        run(&["run", "--name", "maker", "busybox", "sh", "-c", "echo made > /made; rm /etc/group"]).ok();
        let changes = run(&["diff", "maker"]).ok();
        let mut changes: Vec<_> = changes.lines().collect();
        changes.sort_unstable();
        assert_eq!(changes, ["A /made", "C /etc", "D /etc/group"]);
        let commit = |message: &str| {
            let change = "CMD [\"cat\", \"/made\"]";
            run(&[
                "commit", "-a", "A U Thor", "-m", message, "-c", change, "-c", "ENV X=y", "maker", "made:1",
            ])
            .ok()
        };
        let first = commit("the first");
        assert!(first.starts_with("sha256:"), "{first}");
        assert_eq!(run(&["run", "--rm", "made:1"]).ok(), "made");
        assert_eq!(
            run(&["run", "--rm", "made:1", "sh", "-c", "echo $X; ls /etc"]).ok(),
            "y\nhosts\nhostname\npasswd\nresolv.conf".replace("hosts\nhostname", "hostname\nhosts")
        );
        assert_eq!(
            run(&["inspect", "-f", "{{.Author}} {{len .RootFS.Layers}}", "made:1"]).ok(),
            "A U Thor 2"
        );
        let history = run(&["history", "--no-trunc", "--format", "{{.ID}} {{.Comment}}", "made:1"]).ok();
        assert!(history.starts_with(&format!("{first} the first\n<missing>")), "{history}");

        run(&["save", "-o", &daemon.path("saved.tar").to_string_lossy(), "made:1", "busybox"]).ok();
        run(&["rmi", "made:1"]).ok();
        contains(
            &run(&["load", "-i", &daemon.path("saved.tar").to_string_lossy()]).ok(),
            "Loaded image: made:1",
        );
        assert_eq!(run(&["inspect", "-f", "{{.Id}}", "made:1"]).ok(), first, "the same image");
        contains(
            &shell("$D save made:1 | gzip > made.tgz && $D rmi made:1 && $D load < made.tgz"),
            "Loaded image: made:1",
        );
        assert_eq!(run(&["run", "--rm", "made:1"]).ok(), "made");
        shell("$D export maker | $D import -c 'CMD [\"cat\", \"/made\"]' -m flattened - flat:1");
        assert_eq!(run(&["run", "--rm", "flat:1"]).ok(), "made");
        assert_eq!(run(&["inspect", "-f", "{{len .RootFS.Layers}}", "flat:1"]).ok(), "1");

        // The name goes over to another image, and the first has none.
        assert_ne!(commit("the second"), first);
        let dangling = || run(&["images", "-q", "--no-trunc", "-f", "dangling=true"]).ok();
        assert_eq!(dangling(), first);
        let usage = run(&["system", "df", "--format", "{{.Type}} {{.TotalCount}}"]).ok();
        contains(&usage, "Images 4");
        contains(&usage, "Containers 1");
        contains(&run(&["system", "df", "-v"]).ok(), "made");
        let pruned = run(&["image", "prune", "-f"]).ok();
        contains(&pruned, &format!("deleted: {first}"));
        contains(&pruned, "Total reclaimed space");
        assert_eq!(dangling(), "");
        run(&["rm", "maker"]).ok();
        run(&["rmi", "made:1", "flat:1"]).ok();
        assert_eq!(run(&["images", "-q"]).ok().lines().count(), 1, "{client}");
    }
}

/// podman with directories of its own in the namespace of the daemon.
struct Podman<'a> {
    daemon: &'a Daemon,
    dir: tempfile::TempDir,
}

impl<'a> Podman<'a> {
    fn new(daemon: &'a Daemon) -> Self {
        Self { daemon, dir: tempfile::tempdir().expect("a directory") }
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> String {
        let path = |name: &str| self.dir.path().join(name).to_string_lossy().into_owned();
        let mut podman = self.daemon.in_namespace("podman".as_ref());
        podman.args(["--root", &path("root"), "--runroot", &path("run"), "--tmpdir", &path("tmp")]);
        podman.args([
            "--storage-driver",
            "overlay",
            "--cgroup-manager",
            "cgroupfs",
            "--events-backend",
            "file",
        ]);
        daemon::run(podman.args(args).env("HOME", self.dir.path()), b"").ok()
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        let path = |name: &str| self.dir.path().join(name).to_string_lossy().into_owned();
        let mut reset = Command::new("podman");
        reset.args(["--root", &path("root"), "--runroot", &path("run"), "--tmpdir", &path("tmp")]);
        let _ = daemon::run(reset.args(["system", "reset", "-f"]), b"");
    }
}

/// The digest of the configuration, which is the image's id, by its manifest in the registry.
#[track_caller]
fn id_of(registry: &Registry, name: &str) -> String {
    let manifest: Value = serde_json::from_slice(&registry.manifest(name)).expect("a manifest");
    manifest["config"]["digest"].as_str().expect("a configuration").to_owned()
}

#[test]
fn images_go_to_other_engines_and_keep_their_digests() {
    let daemon = Daemon::start();
    let registry = Registry::open(&daemon.namespace());
    let name = registry.reference("ours:1");
    daemon.ponton(&["run", "--name", "maker", "busybox", "sh", "-c", "echo made > /made"]).ok();
    daemon.ponton(&["commit", "maker", &name]).ok();
    daemon.ponton(&["push", &name]).ok();
    let (digest, id) = (registry.digest("ours:1"), id_of(&registry, "ours:1"));
    assert_eq!(daemon.ponton(&["inspect", "-f", "{{.Id}}", &name]).ok(), id);
    let saved = daemon.path("ours.tar");
    let saved = saved.to_string_lossy();
    daemon.ponton(&["save", "-o", &saved, &name]).ok();

    let peer = Peer::dockerd_in(daemon.namespace()).expect("dockerd: run scripts/install-deps.sh test");
    peer.docker(&["pull", &name]).ok();
    let seen = peer.docker(&["inspect", "-f", "{{.Id}} {{json .RepoDigests}}", &name]).ok();
    assert!(seen.starts_with(&id) && seen.contains(&digest), "{seen}");
    peer.docker(&["rmi", &name]).ok();
    contains(&peer.docker(&["load", "-i", &saved]).ok(), &format!("Loaded image: {name}"));
    assert_eq!(peer.docker(&["inspect", "-f", "{{.Id}}", &name]).ok(), id);

    let podman = Podman::new(&daemon);
    podman.run(&["pull", "--tls-verify=false", &name]);
    let seen = podman.run(&["image", "inspect", "--format", "sha256:{{.Id}} {{.Digest}}", &name]);
    assert_eq!(seen, format!("{id} {digest}"));
    podman.run(&["rmi", &name]);
    podman.run(&["load", "-i", &saved]);
    assert_eq!(podman.run(&["image", "inspect", "--format", "sha256:{{.Id}}", &name]), id);

    let docker = |name: &str| format!("docker://{}", registry.reference(name));
    registry.skopeo(&["copy", "--preserve-digests", &docker("ours:1"), &docker("copied:1")]).ok();
    assert_eq!(registry.digest("copied:1"), digest);
    registry.skopeo(&["copy", &format!("docker-archive:{saved}"), &docker("unpacked:1")]).ok();
    assert_eq!(id_of(&registry, "unpacked:1"), id);
}

#[test]
fn images_come_from_other_engines_and_keep_their_digests() {
    let daemon = Daemon::start_empty(&[]);
    let registry = Registry::open(&daemon.namespace());
    let path = |name: &str| daemon.path(name).to_string_lossy().into_owned();
    let docker = |name: &str| format!("docker://{}", registry.reference(name));

    let peer = Peer::dockerd_in(daemon.namespace()).expect("dockerd: run scripts/install-deps.sh test");
    let by_dockerd = registry.reference("dockerd:1");
    peer.docker(&["create", "--network", "none", "--name", "maker", "busybox"]).ok();
    peer.docker(&["cp", "/etc/debian_version", "maker:/made"]).ok();
    peer.docker(&["commit", "maker", &by_dockerd]).ok();
    peer.docker(&["push", &by_dockerd]).ok();
    peer.docker(&["save", "-o", &path("dockerd.tar"), &by_dockerd]).ok();

    let podman = Podman::new(&daemon);
    let by_podman = registry.reference("podman:1");
    podman.run(&["import", "-q", &image::busybox().to_string_lossy(), &by_podman]);
    podman.run(&["push", "--tls-verify=false", &by_podman]);
    podman.run(&["save", "-q", "-o", &path("podman.tar"), &by_podman]);
    podman.run(&["save", "-q", "--format", "oci-archive", "-o", &path("podman-oci.tar"), &by_podman]);

    // skopeo makes an OCI image of it, with zstd layers.
    let layers =
        [fs::read(image::busybox()).expect("busybox.tar"), tar::Tar::default().file("made", "made").finish()];
    fs::write(daemon.path("made.tar"), image::archive("made:1", &layers)).expect("write");
    let from = format!("docker-archive:{}", path("made.tar"));
    registry
        .skopeo(&["copy", "--format", "oci", "--dest-compress-format", "zstd", &from, &docker("skopeo:1")])
        .ok();
    registry.skopeo(&["copy", &from, &format!("oci-archive:{}:made", path("skopeo-oci.tar"))]).ok();

    for maker in ["dockerd", "podman", "skopeo"] {
        let name = registry.reference(&format!("{maker}:1"));
        let (digest, id) = (registry.digest(&format!("{maker}:1")), id_of(&registry, &format!("{maker}:1")));
        contains(&daemon.ponton(&["pull", &name]).ok(), &format!("Digest: {digest}"));
        let seen = daemon.ponton(&["inspect", "-f", "{{.Id}} {{json .RepoDigests}}", &name]).ok();
        assert!(seen.starts_with(&id) && seen.contains(&digest), "{maker}: {seen}");
        assert_eq!(daemon.ponton(&["run", "--rm", &name, "echo", "runs"]).ok(), "runs");
        // What goes out again is what came in, byte by byte.
        let again = registry.reference(&format!("again-{maker}:1"));
        daemon.ponton(&["tag", &name, &again]).ok();
        daemon.ponton(&["push", &again]).ok();
        assert_eq!(registry.digest(&format!("again-{maker}:1")), digest, "{maker}");
        let manifests =
            [format!("{maker}:1"), format!("again-{maker}:1")].map(|name| registry.manifest(&name));
        assert_eq!(manifests[0], manifests[1], "{maker}");
        daemon.ponton(&["rmi", &name, &again]).ok();
    }
    for (archive, maker) in
        [("dockerd.tar", "dockerd"), ("podman.tar", "podman"), ("podman-oci.tar", "podman")]
    {
        let id = id_of(&registry, &format!("{maker}:1"));
        daemon.ponton(&["load", "-i", &path(archive)]).ok();
        assert_eq!(daemon.ponton(&["images", "-q", "--no-trunc"]).ok(), id, "{archive}");
        daemon.ponton(&["rmi", &id]).ok();
    }
    daemon.ponton(&["load", "-i", &path("skopeo-oci.tar")]).ok();
    assert_eq!(daemon.ponton(&["images", "-q"]).ok().lines().count(), 1);
}
