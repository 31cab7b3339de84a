//! `bench DIR runtime`: ponton-runtime beside runc, crun and youki on one busybox bundle, and beside
//! the bare floor of clone, mounts and exec (`crates/runtime/examples/bare.rs`).
//!
//! The runtimes take turns, so that what else the machine does falls on all alike.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use ponton_testkit::image;
use serde_json::{Value, json};

use super::{median, timed};

/// One command that runs bundles.
struct Runtime {
    name: &'static str,
    program: PathBuf,
    /// Where it keeps its states: a run that was broken off is not in the way of the next.
    root: PathBuf,
    /// Of the one container at a time.
    id: String,
}

impl Runtime {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).args(args).arg(&self.id);
        command
    }
}

/// crun takes a mounted `/sys/fs/cgroup/unified` for a broken cgroup v2: the bench goes on in a mount
/// namespace without it. Does not come back when there is one to go to.
pub(super) fn leave_hybrid_layout() {
    const UNIFIED: &str = "/sys/fs/cgroup/unified";
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    if !mounts.lines().any(|line| line.split(' ').nth(1) == Some(UNIFIED)) {
        return;
    }
    let own = std::env::current_exe().expect("own path");
    let script = format!("umount {UNIFIED} && exec \"$0\" \"$@\"");
    let error = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .arg(own)
        .args(std::env::args_os().skip(1))
        .exec();
    panic!("unshare: {error}");
}

pub(super) fn run(binaries: &Path) {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let runtimes = runtimes(binaries, scratch.path());
    let bundle = bundle(scratch.path());
    let floor = binaries.join("examples/bare");
    let (mut run, mut steps, mut bare) = (table(&runtimes), table(&runtimes), Vec::new());
    for round in 0..51 {
        let floor = timed(command(&floor, &[&text(&bundle.join("rootfs")), "/bin/true"]));
        // The first of each warms the caches.
        if round > 0 {
            bare.push(floor);
        }
        for (at, runtime) in runtimes.iter().enumerate() {
            let (whole, three) = (run_once(runtime, &bundle), create_start_delete(runtime, &bundle));
            if round > 0 {
                run[at].extend(whole);
                steps[at].extend(three);
            }
        }
    }
    let bare = median(bare);
    println!("| what | unit | floor |{}", cells(&runtimes, |runtime| format!(" {} |", runtime.name)));
    println!("| --- | --- | ---: |{}", cells(&runtimes, |_| " ---: |".to_owned()));
    for (what, values) in [("run true", run), ("create, start, delete", steps)] {
        let medians: Vec<f64> = values.into_iter().map(median).collect();
        let ratio = |value: &f64| format!(" {value:.2} ({:.1}x) |", value / medians[0]);
        println!("| {what} | ms | {bare:.2} |{}", medians.iter().map(ratio).collect::<String>());
    }
    let peaks = cells(&runtimes, |runtime| format!(" {:.2} |", peak_mib(runtime, &bundle)));
    println!("| peak memory of create | MiB | |{peaks}");
    let limits = cells(&runtimes, |runtime| match least_limit_kib(runtime, &bundle) {
        Some(least) => format!(" {least} |"),
        None => " > 32768 |".to_owned(),
    });
    println!("| least memory limit that `true` runs in | KiB | |{limits}");
    let sizes = cells(&runtimes, |runtime| {
        let size = std::fs::metadata(&runtime.program).map_or(0, |status| status.len());
        format!(" {:.2} |", size as f64 / 1024.0 / 1024.0)
    });
    println!("| size of the binary | MiB | |{sizes}");
}

fn table(runtimes: &[Runtime]) -> Vec<Vec<f64>> {
    runtimes.iter().map(|_| Vec::new()).collect()
}

fn cells(runtimes: &[Runtime], cell: impl Fn(&Runtime) -> String) -> String {
    runtimes.iter().map(cell).collect()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Ours first, then those that are installed.
fn runtimes(binaries: &Path, scratch: &Path) -> Vec<Runtime> {
    let youki = image::project().join(".cache/youki/bin/youki");
    let all = [
        ("ponton-runtime", binaries.join("ponton-runtime")),
        ("runc", "/usr/sbin/runc".into()),
        ("crun", "/usr/bin/crun".into()),
        ("youki", youki),
    ];
    let there = |(name, program): (&'static str, PathBuf)| {
        let is_there = program.exists();
        if !is_there {
            eprintln!("bench: {name} is not there ({}), left out", program.display());
        }
        let (root, id) = (scratch.join(name), format!("bench-{}", std::process::id()));
        is_there.then_some(Runtime { name, program, root, id })
    };
    all.into_iter().filter_map(there).collect()
}

/// A bundle of busybox with the configuration that `runc spec` writes, for all of them.
fn bundle(scratch: &Path) -> PathBuf {
    let bundle = scratch.join("bundle");
    let rootfs = bundle.join("rootfs");
    std::fs::create_dir_all(&rootfs).expect("bundle");
    timed(command(Path::new("tar"), &["-xf", &text(&image::busybox()), "-C", &text(&rootfs)]));
    timed(command(Path::new("runc"), &["spec", "-b", &text(&bundle)]));
    change(&bundle, |config| {
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["/bin/true"]);
        // Raising a hard limit is not everybody's right.
        config["process"]["rlimits"] = json!([]);
    });
    bundle
}

fn change(bundle: &Path, change: impl FnOnce(&mut Value)) {
    let path = bundle.join("config.json");
    let mut config = serde_json::from_slice(&std::fs::read(&path).expect("config.json")).expect("JSON");
    change(&mut config);
    std::fs::write(&path, config.to_string()).expect("config.json");
}

fn command(program: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

fn run_once(runtime: &Runtime, bundle: &Path) -> Option<f64> {
    let elapsed = bounded(runtime.command(&["run", "-b", &text(bundle)]));
    if elapsed.is_none() {
        eprintln!("bench: {} run did not end", runtime.name);
        let _ = runtime.command(&["delete", "--force"]).output();
    }
    elapsed
}

/// The three commands one after another; the container has ended when it is deleted, as engines do it.
fn create_start_delete(runtime: &Runtime, bundle: &Path) -> Option<f64> {
    let created = bounded(runtime.command(&["create", "-b", &text(bundle)]))?;
    let started = bounded(runtime.command(&["start"]))?;
    wait_stopped(runtime);
    Some(created + started + bounded(runtime.command(&["delete"]))?)
}

/// The command's time in ms; none if it failed or did not end in five seconds. What it leaves running
/// may keep its standard streams: their end is not its end.
fn bounded(mut command: Command) -> Option<f64> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begin = Instant::now();
    let mut child = command.spawn().expect("spawn");
    let (ended, end) = std::sync::mpsc::channel::<()>();
    let pid = child.id().to_string();
    let watch = std::thread::spawn(move || {
        if end.recv_timeout(Duration::from_secs(5)) == Err(RecvTimeoutError::Timeout) {
            let _ = Command::new("kill").args(["-KILL", &pid]).status();
        }
    });
    let status = child.wait().expect("wait");
    let elapsed = begin.elapsed();
    drop(ended);
    watch.join().expect("the watch");
    status.success().then_some(elapsed.as_secs_f64() * 1e3)
}

fn wait_stopped(runtime: &Runtime) {
    for _ in 0..1000 {
        let state = runtime.command(&["state"]).output().expect("state");
        let state: Value = serde_json::from_slice(&state.stdout).unwrap_or_default();
        if state["status"] == "stopped" {
            return;
        }
    }
    panic!("{} did not stop", runtime.name);
}

/// The largest resident set of `create` and what it waits for. busybox stands between, since a child's
/// maximum begins with what its parent had.
fn peak_mib(runtime: &Runtime, bundle: &Path) -> f64 {
    let mut command = command(Path::new("busybox"), &["time", "-f", "peak %M"]);
    let create = runtime.command(&["create", "-b", &text(bundle)]);
    command.arg(create.get_program()).args(create.get_args());
    let errors = bundle.join("errors");
    let file = std::fs::File::create(&errors).expect("a file");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
    assert!(command.status().expect("busybox").success(), "{command:?}");
    timed(runtime.command(&["delete", "--force"]));
    let said = std::fs::read_to_string(errors).expect("a file");
    let peak = said.lines().find_map(|line| line.strip_prefix("peak ")).expect("busybox's time");
    // busybox counts a kernel's KiB as pages of four.
    peak.trim().parse::<f64>().expect("KiB") / 4.0 / 1024.0
}

/// The least power of two that `true` still runs in.
fn least_limit_kib(runtime: &Runtime, bundle: &Path) -> Option<u64> {
    let mut least = None;
    for kib in (7..=15).rev().map(|power| 1_u64 << power) {
        change(bundle, |config| config["linux"]["resources"]["memory"] = json!({"limit": kib * 1024}));
        if bounded(runtime.command(&["run", "-b", &text(bundle)])).is_none() {
            let _ = runtime.command(&["delete", "--force"]).output();
            break;
        }
        least = Some(kib);
    }
    change(bundle, |config| {
        config["linux"]["resources"].as_object_mut().map(|resources| resources.remove("memory"));
    });
    least
}
