//! `bench DIR registry`: the large image between engines and one docker-registry on loopback, and what else is done
//! with it. dockerd 20.10, podman, skopeo with umoci, and Ponton with layers of many files do it once each; Ponton with
//! EROFS layers, which it removes in no time, several times, and the median counts.
//!
//! Trees of many files are removed at the end only: ext4 looks at recently deleted inodes one by one when it makes
//! others, and so the next measurement would pay for the deletion.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use ponton_testkit::tar::Tar;
use ponton_testkit::{Daemon, Namespace, Peer, Registry, image, wait};
use serde_json::json;

use super::{Client, client, engine_processes, layered, median, timed};

/// The image in the registry, with gzip and with zstd layers.
const GZIP: &str = "127.0.0.1:5000/big:gzip";
const ZSTD: &str = "127.0.0.1:5000/big:zstd";
/// The same registry by another name: engines that know where a layer came from would have it copied there.
const OTHER: &str = "localhost:5000";

/// Who takes part.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Overlay,
    Erofs,
    Dockerd,
    Podman,
    Skopeo,
}

const ALL: [(Who, &str); 5] = [
    (Who::Overlay, "ponton, overlay2"),
    (Who::Erofs, "ponton, erofs"),
    (Who::Dockerd, "dockerd 20.10"),
    (Who::Podman, "podman"),
    (Who::Skopeo, "skopeo, umoci"),
];

/// What is measured, in the order of the table, and what is aimed at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Pull,
    PullZstd,
    PushPulled,
    PushImported,
    PushChanged,
    Save,
    Export,
    Import,
    Commit,
    Images,
    Remove,
}

impl What {
    fn name(self) -> (&'static str, &'static str) {
        match self {
            Self::Pull => ("pull, gzip layers", "2x every peer"),
            Self::PullZstd => ("pull, zstd layers", "3x the peers' gzip"),
            Self::PushPulled => ("push of the pulled image", "5x dockerd"),
            Self::PushImported => ("push of the imported image, compressed on the way", "5x dockerd's above"),
            Self::PushChanged => ("push after one changed file", ""),
            Self::Save => ("save", "4x"),
            Self::Export => ("export", "4x"),
            Self::Import => ("import", "4x"),
            Self::Commit => ("commit of one changed file", "4x"),
            Self::Images => ("images, 1,000 of them", "<= 0.02 s"),
            Self::Remove => ("rmi of the imported image", "10x dockerd, EROFS"),
        }
    }
}

/// What one did: seconds, and MiB that its daemon grew at most meanwhile.
#[derive(Clone, Copy)]
struct Cost {
    seconds: f64,
    memory: Option<f64>,
}

/// All that was measured.
#[derive(Default)]
struct Results(BTreeMap<(What, Who), Vec<Cost>>);

impl Results {
    fn add(&mut self, what: What, who: Who, cost: Cost) {
        let memory = cost.memory.map_or(String::new(), |memory| format!(", {memory:.1} MiB"));
        let name = ALL.iter().find(|(known, _)| *known == who).map_or("", |(_, name)| name);
        eprintln!("bench: {}: {name}: {:.3} s{memory}", what.name().0, cost.seconds);
        self.0.entry((what, who)).or_default().push(cost);
    }

    fn seconds(&self, what: What, who: Who) -> Option<f64> {
        let costs = self.0.get(&(what, who))?;
        Some(median(costs.iter().map(|cost| cost.seconds).collect()))
    }

    fn memory(&self, what: What, who: Who) -> Option<f64> {
        self.0.get(&(what, who))?.iter().filter_map(|cost| cost.memory).max_by(f64::total_cmp)
    }

    fn print(&self) {
        let names = ALL.map(|(_, name)| name).join(" | ");
        println!(
            "| what, in s | {names} | fastest peer / overlay2 | / erofs | dockerd / overlay2 | / erofs | \
             memory over idle, MiB: overlay2, erofs, dockerd | aim |"
        );
        println!("| --- |{} --- | --- |", " ---: |".repeat(ALL.len() + 4));
        let mut whats: Vec<What> = self.0.keys().map(|(what, _)| *what).collect();
        whats.dedup();
        let cell = |value: Option<f64>, digits: usize| {
            value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
        };
        for what in whats {
            let all = ALL.map(|(who, _)| self.seconds(what, who));
            let [overlay, erofs, dockerd, ..] = all;
            let fastest = all[2..].iter().copied().flatten().min_by(f64::total_cmp);
            let ratio = |peer: Option<f64>, ours: Option<f64>| {
                cell(peer.zip(ours).map(|(peer, ours)| peer / ours), 1)
            };
            let memory = [Who::Overlay, Who::Erofs, Who::Dockerd].map(|who| cell(self.memory(what, who), 1));
            println!(
                "| {} | {} | {} | {} | {} | {} | {} | {} |",
                what.name().0,
                all.map(|seconds| cell(seconds, 3)).join(" | "),
                ratio(fastest, overlay),
                ratio(fastest, erofs),
                ratio(dockerd, overlay),
                ratio(dockerd, erofs),
                memory.join(", "),
                what.name().1,
            );
        }
    }
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

fn at_rest(side: &Side, args: &[&str]) -> Cost {
    rest();
    side.cost(args)
}

/// What all of them share.
struct Bench<'a> {
    binaries: &'a Path,
    namespace: Arc<Namespace>,
    /// For files of this run.
    directory: PathBuf,
    big: String,
    archive: String,
}

pub(super) fn run(binaries: &Path) {
    let cache = image::project().join(".cache/images");
    let [gzip, zstd] = layered::directories(&cache);
    let namespace = Namespace::new();
    let registry = Registry::open(&namespace);
    for (directory, name) in [(&gzip, GZIP), (&zstd, ZSTD)] {
        let from = format!("oci:{}", directory.display());
        registry.skopeo(&["copy", "--preserve-digests", &from, &format!("docker://{name}")]).ok();
    }
    let directory = tempfile::Builder::new().prefix("ponton-bench-").tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let archive = path("thousand.tar");
    fs::write(&archive, thousand()).expect("write");
    let bench = Bench {
        binaries,
        namespace: namespace.clone(),
        directory: directory.path().to_owned(),
        big: cache.join("big.tar").to_string_lossy().into_owned(),
        archive,
    };
    let mut results = Results::default();
    let peer = Peer::dockerd_in(namespace).expect("dockerd: run scripts/install-deps.sh test");
    let dockerd = Side {
        client: Box::new(|args| client(Path::new("docker"), &peer.host(), args)),
        processes: Box::new(|| engine_processes(&peer.dir(), &["dockerd", "containerd"])),
    };
    let (podman, podman_zstd) = (bench.podman("podman"), bench.podman("podman-zstd"));
    {
        let [erofs, of_zstd] = [bench.daemon("erofs"), bench.daemon("erofs")];
        bench.ponton(Who::Erofs, &erofs, &of_zstd, 3, &mut results);
    }
    let [overlay, overlay_zstd] = [bench.daemon("overlay2"), bench.daemon("overlay2")];
    bench.ponton(Who::Overlay, &overlay, &overlay_zstd, 1, &mut results);
    bench.dockerd(&dockerd, &mut results);
    bench.podman_all(&podman, &podman_zstd, &mut results);
    results.add(What::Pull, Who::Skopeo, bench.unpacked_by_umoci());
    for (who, side) in [(Who::Overlay, &bench.side(&overlay)), (Who::Dockerd, &dockerd)] {
        results.add(What::Remove, who, at_rest(side, &["rmi", "imported:1"]));
    }
    results.add(What::Remove, Who::Podman, podman.cost(&["rmi", "imported:1"]));
    results.print();
    println!(
        "\nPonton with EROFS layers: the median of several times; the others once. Bounds of the pull: {:.2} s to \
         decompress the gzip layers on all processors (zlib-rs), {:.2} s to write what they hold and sync.",
        layered::decompressed(&layered::blobs(&gzip)),
        layered::written(Path::new(&bench.big), &bench.directory.join("copy"))
    );
}

impl Bench<'_> {
    fn podman(&self, name: &str) -> Podman<'_> {
        let directory = self.directory.join(name);
        fs::create_dir_all(&directory).expect("mkdir");
        Podman { namespace: &self.namespace, directory }
    }

    fn daemon(&self, driver: &str) -> Daemon {
        Daemon::start_in(self.namespace.clone(), &["-s", driver, "--disk-budget", "off"], None)
    }

    fn side<'a>(&'a self, daemon: &'a Daemon) -> Side<'a> {
        Side {
            client: Box::new(|args| client(&self.binaries.join("ponton"), &daemon.host(), args)),
            processes: Box::new(|| vec![daemon.pid()]),
        }
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).to_string_lossy().into_owned()
    }

    /// All of it with one driver. What is done more than once is undone before.
    fn ponton(&self, who: Who, daemon: &Daemon, of_zstd: &Daemon, times: usize, results: &mut Results) {
        let (side, zstd) = (self.side(daemon), self.side(of_zstd));
        let quiet = |daemon: &Daemon| {
            wait::within(Duration::from_secs(300), "the end of the deleting", || {
                fs::read_dir(daemon.path("data/tmp")).expect("trash").next().is_none().then_some(())
            });
        };
        for time in 0..times {
            if time > 0 {
                zstd.run(&["rmi", ZSTD]);
                quiet(of_zstd);
            }
            results.add(What::PullZstd, who, at_rest(&zstd, &["pull", "-q", ZSTD]));
        }
        for time in 0..times {
            let pushed = format!("{OTHER}/pulled{}-{time}:1", who as u8);
            results.add(What::Pull, who, at_rest(&side, &["pull", "-q", GZIP]));
            side.run(&["tag", GZIP, &pushed]);
            results.add(What::PushPulled, who, at_rest(&side, &["push", "-q", &pushed]));
            if time + 1 < times {
                // What was learnt of the registry is forgotten with the image.
                side.run(&["rmi", GZIP, &pushed]);
                quiet(daemon);
            } else {
                side.run(&["tag", &pushed, "base:1"]);
            }
        }
        self.files(who, &side, times, results);
        self.small_changes(who, &side, &format!("{OTHER}/pulled{}-{}", who as u8, times - 1), results);
        for time in 0..times {
            let pushed = format!("{OTHER}/imported{}-{time}:1", who as u8);
            results.add(What::Import, who, at_rest(&side, &["import", &self.big, "imported:1"]));
            side.run(&["tag", "imported:1", &pushed]);
            results.add(What::PushImported, who, at_rest(&side, &["push", "-q", &pushed]));
            side.run(&["rmi", &pushed]);
            if who == Who::Erofs {
                results.add(What::Remove, who, at_rest(&side, &["rmi", "imported:1"]));
                quiet(daemon);
            }
        }
        self.thousand(who, &side, results);
    }

    fn dockerd(&self, side: &Side, results: &mut Results) {
        let who = Who::Dockerd;
        let pushed = format!("{OTHER}/dockerd:1");
        results.add(What::Pull, who, at_rest(side, &["pull", "-q", GZIP]));
        for name in [&pushed, "base:1"] {
            side.run(&["tag", GZIP, name]);
        }
        results.add(What::PushPulled, who, at_rest(side, &["push", "-q", &pushed]));
        self.files(who, side, 1, results);
        self.small_changes(who, side, &format!("{OTHER}/dockerd"), results);
        results.add(What::Import, who, at_rest(side, &["import", &self.big, "imported:1"]));
        self.thousand(who, side, results);
    }

    /// save and export.
    fn files(&self, who: Who, side: &Side, times: usize, results: &mut Results) {
        let file = self.path("file.tar");
        side.run(&["create", "--network", "none", "--name", "exported", GZIP]);
        for (what, args) in
            [(What::Save, ["save", "-o", &file, GZIP]), (What::Export, ["export", "-o", &file, "exported"])]
        {
            for _ in 0..times {
                results.add(what, who, at_rest(side, &args));
                fs::remove_file(&file).expect("remove");
            }
        }
        side.run(&["rm", "exported"]);
    }

    /// A file is added, committed, and pushed to where the rest of the image is.
    fn small_changes(&self, who: Who, side: &Side, repository: &str, results: &mut Results) {
        let file = self.path("small");
        fs::write(&file, vec![7; 10_000]).expect("write");
        for time in 0..3 {
            let (container, name) = (format!("changed{time}"), format!("{repository}:changed{time}"));
            side.run(&["create", "--network", "none", "--name", &container, "base:1"]);
            side.run(&["cp", &file, &format!("{container}:/small{time}")]);
            results.add(What::Commit, who, at_rest(side, &["commit", &container, &name]));
            results.add(What::PushChanged, who, at_rest(side, &["push", "-q", &name]));
            side.run(&["rm", &container]);
        }
    }

    /// `images` with a thousand of them, for the second time and the next ones.
    fn thousand(&self, who: Who, side: &Side, results: &mut Results) {
        side.run(&["load", "-qi", &self.archive]);
        rest();
        side.run(&["images"]);
        for _ in 0..7 {
            results.add(What::Images, who, side.cost(&["images"]));
        }
    }

    fn podman_all(&self, podman: &Podman, of_zstd: &Podman, results: &mut Results) {
        let who = Who::Podman;
        let file = self.path("podman.tar");
        let pushed = format!("{OTHER}/podman:1");
        results.add(What::PullZstd, who, of_zstd.cost(&["pull", "-q", "--tls-verify=false", ZSTD]));
        results.add(What::Pull, who, podman.cost(&["pull", "-q", "--tls-verify=false", GZIP]));
        timed(podman.command(&["tag", GZIP, &pushed]));
        results.add(What::PushPulled, who, podman.cost(&["push", "-q", "--tls-verify=false", &pushed]));
        results.add(What::Save, who, podman.cost(&["save", "-q", "-o", &file, GZIP]));
        fs::remove_file(&file).expect("remove");
        timed(podman.command(&["create", "--network", "none", "--name", "exported", GZIP]));
        results.add(What::Export, who, podman.cost(&["export", "-o", &file, "exported"]));
        timed(podman.command(&["rm", "exported"]));
        results.add(What::Import, who, podman.cost(&["import", "-q", &self.big, "imported:1"]));
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
