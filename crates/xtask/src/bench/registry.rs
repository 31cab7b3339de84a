//! `bench DIR registry`: the large image between engines and one docker-registry on loopback, and what else is done
//! with it. `dockerd` 20.10, podman, and skopeo with umoci do what they can do of it, once each, since they take long;
//! Ponton does it several times, and the median counts.
//!
//! Trees of many files are removed at the end only: ext4 looks at recently deleted inodes one by one when it makes
//! others, and so the next measurement would pay for the deletion.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use ponton_testkit::tar::Tar;
use ponton_testkit::{Daemon, Namespace, Peer, Registry, image, wait};
use serde_json::json;

use super::{Client, client, engine_processes, layered, median, timed};

/// Times that Ponton does what takes long.
const TIMES: usize = 3;
/// The image in the registry, with gzip and with zstd layers.
const GZIP: &str = "127.0.0.1:5000/big:gzip";
const ZSTD: &str = "127.0.0.1:5000/big:zstd";
/// The same registry by another name: engines that know where a layer came from would have it copied there.
const OTHER: &str = "localhost:5000";

/// What one did: seconds, and MiB that its daemon grew meanwhile.
#[derive(Clone, Copy)]
struct Cost {
    seconds: f64,
    memory: Option<f64>,
}

/// dockerd, podman, skopeo with umoci.
#[derive(Clone, Copy, Default)]
struct Peers {
    dockerd: Option<Cost>,
    podman: Option<Cost>,
    skopeo: Option<Cost>,
}

fn head() {
    println!(
        "| what, in s | ponton | dockerd 20.10 | podman | skopeo, umoci | fastest peer / ponton | dockerd / ponton | \
         memory over idle, MiB: ponton, dockerd | aim |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |");
}

fn line(what: &str, ours: &[Cost], peers: Peers, aim: &str) {
    let cell =
        |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
    let seconds = |cost: Option<Cost>| cost.map(|cost| cost.seconds);
    let ponton = median(ours.iter().map(|cost| cost.seconds).collect());
    let memory = ours.iter().filter_map(|cost| cost.memory).max_by(f64::total_cmp);
    let [dockerd, podman, skopeo] = [peers.dockerd, peers.podman, peers.skopeo].map(seconds);
    let fastest = [dockerd, podman, skopeo].into_iter().flatten().min_by(f64::total_cmp);
    println!(
        "| {what} | {ponton:.3} | {} | {} | {} | {} | {} | {}, {} | {aim} |",
        cell(dockerd, 3),
        cell(podman, 3),
        cell(skopeo, 3),
        cell(fastest.map(|peer| peer / ponton), 1),
        cell(dockerd.map(|peer| peer / ponton), 1),
        cell(memory, 1),
        cell(peers.dockerd.and_then(|cost| cost.memory), 1),
    );
}

/// A daemon, its client, and its processes.
struct Side<'a> {
    client: Client<'a>,
    processes: Box<dyn Fn() -> Vec<u32> + 'a>,
}

impl Side<'_> {
    fn run(&self, args: &[&str]) {
        timed((self.client)(args));
    }

    /// Time, and the growth of resident memory at its peak, which the kernel keeps.
    fn cost(&self, args: &[&str]) -> Cost {
        let processes = (self.processes)();
        for pid in &processes {
            fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("clear_refs");
        }
        let sum = |field: &str| processes.iter().map(|pid| status(*pid, field)).sum::<f64>();
        let before = sum("VmRSS:");
        let seconds = timed((self.client)(args)) / 1e3;
        Cost { seconds, memory: Some(sum("VmHWM:") - before) }
    }
}

/// MiB of a field of a process's status.
fn status(pid: u32, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// podman with directories of its own.
struct Podman<'a> {
    namespace: &'a Namespace,
    directory: PathBuf,
}

impl Podman<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.namespace.command("podman");
        for name in ["root", "runroot", "tmpdir"] {
            command.arg(format!("--{name}")).arg(self.directory.join(name));
        }
        command.args([
            "--storage-driver",
            "overlay",
            "--cgroup-manager",
            "cgroupfs",
            "--events-backend",
            "file",
        ]);
        command.args(args).env("HOME", &self.directory).env("TMPDIR", &self.directory);
        command
    }

    fn cost(&self, args: &[&str]) -> Cost {
        rest();
        Cost { seconds: timed(self.command(args)) / 1e3, memory: None }
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        let _ = self.command(&["system", "reset", "-f"]).output();
    }
}

/// What was written before is not to be written in somebody else's time.
fn rest() {
    let _ = Command::new("sync").status();
}

/// All that take part, and what they share.
struct Bench<'a> {
    ponton: Side<'a>,
    dockerd: Side<'a>,
    trash: PathBuf,
    namespace: Arc<Namespace>,
    /// For files of this run.
    directory: PathBuf,
    cache: PathBuf,
}

pub(super) fn run(binaries: &Path) {
    let cache = image::project().join(".cache/images");
    let [gzip, zstd] = layered::directories(&cache);
    let daemon = Daemon::start_empty(&[]);
    let registry = Registry::open(&daemon.namespace());
    for (directory, name) in [(&gzip, GZIP), (&zstd, ZSTD)] {
        let from = format!("oci:{}", directory.display());
        registry.skopeo(&["copy", "--preserve-digests", &from, &format!("docker://{name}")]).ok();
    }
    let peer = Peer::dockerd_in(daemon.namespace()).expect("dockerd: run scripts/install-deps.sh test");
    let directory = tempfile::Builder::new().prefix("ponton-bench-").tempdir().expect("a directory");
    let bench = Bench {
        ponton: Side {
            client: Box::new(|args| client(&binaries.join("ponton"), &daemon.host(), args)),
            processes: Box::new(|| vec![daemon.pid()]),
        },
        dockerd: Side {
            client: Box::new(|args| client(Path::new("docker"), &peer.host(), args)),
            processes: Box::new(|| engine_processes(&peer.dir(), &["dockerd", "containerd"])),
        },
        trash: daemon.path("data/tmp"),
        namespace: daemon.namespace(),
        directory: directory.path().to_owned(),
        cache,
    };
    head();
    let (podman, podman_zstd) = (bench.podman("podman"), bench.podman("podman-zstd"));
    bench.pull(&podman, &podman_zstd, &gzip);
    bench.files(&podman);
    bench.push(&podman);
    bench.small_changes();
    bench.thousand();
    bench.remove(&podman, binaries);
    println!(
        "\nPonton: the median of {TIMES} times; the others once. Bounds of the pull: {:.2} s to decompress the gzip \
         layers on all processors (zlib-rs), {:.2} s to write what they hold and sync.",
        layered::decompressed(&layered::blobs(&gzip)),
        layered::written(&bench.cache.join("big.tar"), &bench.directory.join("copy"))
    );
}

impl Bench<'_> {
    fn podman(&self, name: &str) -> Podman<'_> {
        let directory = self.directory.join(name);
        fs::create_dir_all(&directory).expect("mkdir");
        Podman { namespace: &self.namespace, directory }
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).to_string_lossy().into_owned()
    }

    /// What Ponton's command costs, several times, each undone by another but the last.
    fn ours(&self, args: &[&str], undo: &[&str]) -> Vec<Cost> {
        let time = |time| {
            self.quiet();
            let cost = self.ponton.cost(args);
            if time + 1 < TIMES && !undo.is_empty() {
                self.ponton.run(undo);
            }
            cost
        };
        (0..TIMES).map(time).collect()
    }

    fn theirs(&self, args: &[&str]) -> Cost {
        rest();
        self.dockerd.cost(args)
    }

    /// Until Ponton has removed, in the background, what it was told to.
    fn quiet(&self) {
        wait::within(Duration::from_secs(300), "the end of the deleting", || {
            fs::read_dir(&self.trash).expect("trash").next().is_none().then_some(())
        });
        rest();
    }

    fn pull(&self, podman: &Podman, podman_zstd: &Podman, gzip: &Path) {
        let dockerd = Some(self.theirs(&["pull", "-q", GZIP]));
        let size: u64 = layered::blobs(gzip).iter().map(|blob| fs::metadata(blob).expect("blob").len()).sum();
        let zstd = self.ours(&["pull", "-q", ZSTD], &["rmi", ZSTD]);
        self.ponton.run(&["rmi", ZSTD]);
        let podman_zstd = Some(podman_zstd.cost(&["pull", "-q", "--tls-verify=false", ZSTD]));
        let ours = self.ours(&["pull", "-q", GZIP], &["rmi", GZIP]);
        let peers = Peers {
            dockerd,
            podman: Some(podman.cost(&["pull", "-q", "--tls-verify=false", GZIP])),
            skopeo: Some(self.unpacked_by_umoci()),
        };
        let what = format!("pull, {} gzip layers, {} MB", layered::LAYERS, size / 1_000_000);
        line(&what, &ours, peers, "2x every peer");
        let peers = Peers { dockerd, podman: podman_zstd, skopeo: None };
        line("pull, zstd layers (dockerd: gzip)", &zstd, peers, "3x the peers' gzip");
    }

    fn unpacked_by_umoci(&self) -> Cost {
        rest();
        let (layout, bundle) = (self.path("layout"), self.path("bundle"));
        let mut copy = self.namespace.command("skopeo");
        copy.args(["--insecure-policy", "copy", "-q", "--src-tls-verify=false", &format!("docker://{GZIP}")]);
        copy.arg(format!("oci:{layout}:big"));
        let mut unpack = Command::new("umoci");
        unpack.args(["unpack", "--image", &format!("{layout}:big"), &bundle]);
        Cost { seconds: (timed(copy) + timed(unpack)) / 1e3, memory: None }
    }

    /// save, export and import.
    fn files(&self, podman: &Podman) {
        let (saved, exported) = (self.path("saved.tar"), self.path("exported.tar"));
        let big = self.cache.join("big.tar").to_string_lossy().into_owned();
        let ours = self.ours(&["save", "-o", &saved, GZIP], &[]);
        let theirs = self.path("theirs.tar");
        let peers = Peers {
            dockerd: Some(self.theirs(&["save", "-o", &theirs, GZIP])),
            podman: Some(podman.cost(&["save", "-q", "-o", &self.path("podman.tar"), GZIP])),
            skopeo: None,
        };
        line("save", &ours, peers, "4x");
        for side in [&self.ponton, &self.dockerd] {
            side.run(&["create", "--network", "none", "--name", "exported", GZIP]);
        }
        timed(podman.command(&["create", "--network", "none", "--name", "exported", GZIP]));
        let ours = self.ours(&["export", "-o", &exported, "exported"], &[]);
        let peers = Peers {
            dockerd: Some(self.theirs(&["export", "-o", &theirs, "exported"])),
            podman: Some(podman.cost(&["export", "-o", &self.path("podman-exported.tar"), "exported"])),
            skopeo: None,
        };
        line("export", &ours, peers, "4x");
        for side in [&self.ponton, &self.dockerd] {
            side.run(&["rm", "exported"]);
        }
        timed(podman.command(&["rm", "exported"]));
        let ours = self.ours(&["import", &big, "imported:1"], &["rmi", "imported:1"]);
        let peers = Peers {
            dockerd: Some(self.theirs(&["import", &big, "imported:1"])),
            podman: Some(podman.cost(&["import", "-q", &big, "imported:1"])),
            skopeo: None,
        };
        line("import, one layer", &ours, peers, "4x");
    }

    fn push(&self, podman: &Podman) {
        let name = |repository: &str| format!("{OTHER}/{repository}:1");
        self.dockerd.run(&["tag", GZIP, &name("dockerd")]);
        timed(podman.command(&["tag", GZIP, &name("podman")]));
        let peers = Peers {
            dockerd: Some(self.theirs(&["push", "-q", &name("dockerd")])),
            podman: Some(podman.cost(&["push", "-q", "--tls-verify=false", &name("podman")])),
            skopeo: None,
        };
        let saved = self.path("saved.tar");
        for (from, get, what) in [
            ("kept", ["pull", "-q", GZIP], "push of the pulled image"),
            ("made", ["load", "-qi", &saved], "push of the loaded image, compressed on the way"),
        ] {
            let mut ours = Vec::new();
            let mut last = name("none");
            for time in 0..TIMES {
                // What was learnt of the registry by the push before is forgotten with the image.
                for name in [GZIP, &last] {
                    let _ = (self.ponton.client)(&["rmi", "-f", name]).output();
                }
                self.ponton.run(&get);
                last = name(&format!("{from}{time}"));
                self.ponton.run(&["tag", GZIP, &last]);
                self.quiet();
                ours.push(self.ponton.cost(&["push", "-q", &last]));
            }
            line(what, &ours, peers, "5x dockerd");
            let _ = (self.ponton.client)(&["rmi", "-f", &last]).output();
        }
        self.ponton.run(&["tag", GZIP, &name("ponton")]);
        self.ponton.run(&["push", "-q", &name("ponton")]);
    }

    /// A file is added, committed, and pushed.
    fn small_changes(&self) {
        let file = self.path("small");
        fs::write(&file, vec![7; 10_000]).expect("write");
        let mut costs = [(Vec::new(), Vec::new()), (Vec::new(), Vec::new())];
        let sides = [(&self.ponton, "ponton"), (&self.dockerd, "dockerd")];
        for ((side, repository), (commits, pushes)) in sides.into_iter().zip(&mut costs) {
            for time in 0..TIMES {
                let container = format!("changed{time}");
                let name = format!("{OTHER}/{repository}:changed{time}");
                let base = format!("{OTHER}/{repository}:1");
                side.run(&["create", "--network", "none", "--name", &container, &base]);
                side.run(&["cp", &file, &format!("{container}:/small{time}")]);
                rest();
                commits.push(side.cost(&["commit", &container, &name]));
                rest();
                pushes.push(side.cost(&["push", "-q", &name]));
                side.run(&["rm", &container]);
            }
        }
        let [ours, theirs] = costs;
        let middle = |mut costs: Vec<Cost>| {
            costs.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
            Some(costs[TIMES / 2])
        };
        let peers = |costs| Peers { dockerd: middle(costs), ..Peers::default() };
        line("commit of one changed file", &ours.0, peers(theirs.0), "4x");
        line("push after one changed file", &ours.1, peers(theirs.1), "");
    }

    /// `images` with a thousand of them.
    fn thousand(&self) {
        let archive = self.path("thousand.tar");
        fs::write(&archive, thousand()).expect("write");
        let mut costs = [Vec::new(), Vec::new()];
        for (side, costs) in [&self.ponton, &self.dockerd].into_iter().zip(&mut costs) {
            side.run(&["load", "-qi", &archive]);
            rest();
            costs.extend((0..=10).map(|_| side.cost(&["images"])).skip(1));
        }
        let [ours, theirs] = costs;
        let dockerd = Cost { seconds: median(theirs.iter().map(|cost| cost.seconds).collect()), ..theirs[0] };
        line(
            "images, 1,000 of them",
            &ours,
            Peers { dockerd: Some(dockerd), ..Peers::default() },
            "<= 0.02 s",
        );
    }

    fn remove(&self, podman: &Podman, binaries: &Path) {
        let overlay = Daemon::start_empty(&["-s", "overlay2"]);
        let on_overlay = Side {
            client: Box::new(|args| client(&binaries.join("ponton"), &overlay.host(), args)),
            processes: Box::new(|| vec![overlay.pid()]),
        };
        on_overlay.run(&["import", &self.cache.join("big.tar").to_string_lossy(), "imported:1"]);
        rest();
        let overlaid = [on_overlay.cost(&["rmi", "imported:1"])];
        let mut ours = Vec::new();
        for time in 0..TIMES {
            self.quiet();
            ours.push(self.ponton.cost(&["rmi", "imported:1"]));
            if time + 1 < TIMES {
                self.ponton.run(&["import", &self.cache.join("big.tar").to_string_lossy(), "imported:1"]);
            }
        }
        let peers = Peers {
            dockerd: Some(self.theirs(&["rmi", "imported:1"])),
            podman: Some(podman.cost(&["rmi", "imported:1"])),
            skopeo: None,
        };
        line("rmi", &ours, peers, "10x dockerd");
        line("rmi, overlay2 layers", &overlaid, peers, "");
    }
}

/// A docker-archive of a thousand images of one small layer.
fn thousand() -> Vec<u8> {
    let layer = Tar::default().file("hello", "hello\n").finish();
    let diff_id = format!("sha256:{}", ponton_testkit::tar::sha256(&layer));
    let mut archive = Tar::default().file("layer.tar", &layer);
    let mut manifest = Vec::new();
    for number in 0..1000 {
        let config = json!({"architecture": "amd64", "os": "linux", "created": "2024-05-06T07:08:09Z",
            "config": {"Cmd": ["true"], "Labels": {"number": number.to_string()}},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]}});
        let name = format!("{number}.json");
        archive = archive.file(&name, config.to_string());
        manifest.push(
            json!({"Config": name, "RepoTags": [format!("many/image{number}:1")], "Layers": ["layer.tar"]}),
        );
    }
    archive.file("manifest.json", json!(manifest).to_string()).finish()
}
