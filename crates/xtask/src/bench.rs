//! `make bench`: Ponton beside Debian's dockerd, and its runtime beside others, in one run, as ratios of medians.
//!
//! Both engines run in network namespaces and directories of their own, on the same disk, one after the other for each
//! measurement, so that what else the machine does falls on both alike. Each line is printed when it is known.
//! No test depends on these figures.

mod files;
mod layered;
mod logs;
mod registry;
mod runtime;
mod scale;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use ponton_testkit::{Daemon, Peer, daemon, image, leak, wait};
use serde_json::json;

/// One line of the table.
struct Row {
    what: &'static str,
    unit: &'static str,
    ponton: f64,
    dockerd: f64,
    /// What is aimed at, in words.
    aim: &'static str,
}

/// A client's command with these arguments.
type Client<'a> = Box<dyn Fn(&[&str]) -> Command + Sync + 'a>;

/// One engine, and the client that is measured with it.
struct Engine<'a> {
    client: Client<'a>,
    memory: Box<dyn Fn() -> u64 + Sync + 'a>,
    /// What its processes that run have taken of the CPU, in seconds.
    cpu: Box<dyn Fn() -> f64 + Sync + 'a>,
    /// Where it puts what is to be deleted in the background, if it does.
    trash: Option<PathBuf>,
}

/// The table, printed line by line, and what is to be said below it.
#[derive(Default)]
struct Table {
    has_head: bool,
    notes: Vec<String>,
}

impl Table {
    fn push(&mut self, row: &Row) {
        if !self.has_head {
            println!("| what | unit | ponton | dockerd 20.10 | ratio | aim |");
            println!("| --- | --- | ---: | ---: | ---: | --- |");
            self.has_head = true;
        }
        let Row { what, unit, ponton, dockerd, aim } = row;
        let ratio = dockerd / ponton;
        println!("| {what} | {unit} | {ponton:.3} | {dockerd:.3} | {ratio:.1} | {aim} |");
    }

    fn finish(&self) {
        for note in &self.notes {
            println!("\n{note}");
        }
    }
}

type Benchmark = fn(&Engine, &Engine, &mut Table);

const BENCHMARKS: &[(&str, Benchmark)] = &[
    ("run", run_true),
    ("exec", exec_true),
    ("many", many),
    ("images", images),
    ("logs", logs::run),
    ("files", files::run),
];

pub(crate) fn run(binaries: &str, only: &[&str]) -> ExitCode {
    let binaries = std::fs::canonicalize(binaries).expect("the directory of the binaries");
    let wanted = |name: &str| only.is_empty() || only.contains(&name);
    assert_eq!(
        binaries,
        daemon::binaries().canonicalize().expect("binaries"),
        "set PONTON_BIN_DIR to measure others"
    );
    if wanted("runtime") {
        runtime::leave_hybrid_layout();
        eprintln!("bench: runtime");
        runtime::run(&binaries);
    }
    if wanted("registry") {
        eprintln!("bench: registry");
        registry::run(&binaries);
    }
    if !only.is_empty() && only.iter().all(|name| ["runtime", "registry"].contains(name)) {
        return ExitCode::SUCCESS;
    }
    let mut rows = Table::default();
    {
        let peer = Peer::dockerd().expect("dockerd is installed");
        let ponton = Daemon::start();
        let theirs = Engine {
            client: Box::new(|args| client(Path::new("docker"), &peer.host(), args)),
            memory: Box::new(|| leak::pss_bytes(&engine_processes(&peer.dir(), &["dockerd", "containerd"]))),
            cpu: Box::new(|| cpu(&engine_processes(&peer.dir(), &["dockerd", "containerd"]))),
            trash: None,
        };
        let ours = Engine {
            client: Box::new(|args| client(&binaries.join("ponton"), &ponton.host(), args)),
            memory: Box::new(|| {
                leak::pss_bytes(&engine_processes(&ponton.path("").to_string_lossy(), &["ponton"]))
            }),
            cpu: Box::new(|| cpu(&engine_processes(&ponton.path("").to_string_lossy(), &["ponton"]))),
            trash: Some(ponton.path("data/tmp")),
        };
        for (name, benchmark) in BENCHMARKS {
            if wanted(name) {
                eprintln!("bench: {name}");
                benchmark(&ours, &theirs, &mut rows);
            }
        }
    }
    if wanted("start") {
        eprintln!("bench: start");
        start_up(&mut rows);
    }
    if wanted("scale") {
        eprintln!("bench: scale");
        scale::run(&mut rows);
    }
    rows.finish();
    ExitCode::SUCCESS
}

/// A client's command, started directly: what enters namespaces would be measured too.
fn client(program: &Path, host: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).env("DOCKER_HOST", host).env("PONTON_HOST", host);
    command
}

/// Processes of an engine: those of these names whose command line names its directory.
fn engine_processes(dir: &str, names: &[&str]) -> Vec<u32> {
    let mut pids = leak::processes_naming(dir);
    pids.retain(|pid| {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        names.iter().any(|name| comm.starts_with(name))
    });
    pids
}

/// User and system time of processes, in seconds; the kernel tells hundredths.
fn cpu(pids: &[u32]) -> f64 {
    let ticks = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name may have spaces; utime and stime are the fields 14 and 15.
        let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
        fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>()
    };
    pids.iter().map(ticks).sum::<u64>() as f64 / 100.0
}

fn timed(mut command: Command) -> f64 {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let begin = Instant::now();
    let output = command.output().expect("spawn");
    let elapsed = begin.elapsed();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    elapsed.as_secs_f64() * 1e3
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs both alternately and gives the two medians, in ms.
fn alternate(times: usize, ours: &Engine, theirs: &Engine, args: &[&str]) -> (f64, f64) {
    for engine in [ours, theirs] {
        timed((engine.client)(args));
    }
    let (mut mine, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..times {
        mine.push(timed((ours.client)(args)));
        peer.push(timed((theirs.client)(args)));
    }
    (median(mine), median(peer))
}

fn run_true(ours: &Engine, theirs: &Engine, rows: &mut Table) {
    let (ponton, dockerd) = alternate(30, ours, theirs, &["run", "--rm", "busybox", "true"]);
    rows.push(&Row { what: "run --rm busybox true, bridge", unit: "ms", ponton, dockerd, aim: "15x" });
    let (ponton, dockerd) =
        alternate(30, ours, theirs, &["run", "--rm", "--network", "none", "busybox", "true"]);
    rows.push(&Row { what: "run --rm busybox true, none", unit: "ms", ponton, dockerd, aim: "20x" });
}

fn exec_true(ours: &Engine, theirs: &Engine, rows: &mut Table) {
    for engine in [ours, theirs] {
        timed((engine.client)(&["run", "-d", "--name", "bench-exec", "busybox", "sleep", "100000"]));
    }
    let (ponton, dockerd) = alternate(30, ours, theirs, &["exec", "bench-exec", "true"]);
    rows.push(&Row { what: "exec true", unit: "ms", ponton, dockerd, aim: "10x" });
    for engine in [ours, theirs] {
        timed((engine.client)(&["rm", "-f", "bench-exec"]));
    }
}

/// 200 containers, 8 at a time: started, their memory, removed.
fn many(ours: &Engine, theirs: &Engine, rows: &mut Table) {
    let measure = |engine: &Engine| {
        let before = (engine.memory)();
        let begin = Instant::now();
        eight_at_a_time(|n| {
            timed((engine.client)(&["run", "-d", "--name", &format!("m{n}"), "busybox", "sleep", "100000"]));
        });
        let started = begin.elapsed();
        settle(engine);
        let grown = (engine.memory)().saturating_sub(before);
        let begin = Instant::now();
        eight_at_a_time(|n| {
            timed((engine.client)(&["rm", "-f", &format!("m{n}")]));
        });
        (started.as_secs_f64(), begin.elapsed().as_secs_f64(), grown as f64 / 200.0 / 1024.0 / 1024.0)
    };
    let (mine, peer) = (measure(ours), measure(theirs));
    rows.push(&Row {
        what: "200 containers started, 8 at a time",
        unit: "s",
        ponton: mine.0,
        dockerd: peer.0,
        aim: "15x",
    });
    rows.push(&Row {
        what: "200 containers removed, 8 at a time",
        unit: "s",
        ponton: mine.1,
        dockerd: peer.1,
        aim: "15x",
    });
    rows.push(&Row {
        what: "memory of one more idle container",
        unit: "MiB",
        ponton: mine.2,
        dockerd: peer.2,
        aim: "<= 0.1 MiB",
    });
}

fn eight_at_a_time(work: impl Fn(usize) + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if n >= 200 {
                        return;
                    }
                    work(n);
                }
            });
        }
    });
}

/// Waits until the engine's memory changes by less than 1 % in half a second, five seconds at most.
fn settle(engine: &Engine) {
    let mut last = (engine.memory)();
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(500));
        let now = (engine.memory)();
        if now.abs_diff(last) < last / 100 {
            return;
        }
        last = now;
    }
}

/// import and load of an image of 1 GB and 75,000 entries. dockerd takes up to minutes for each, so it does each once.
fn images(ours: &Engine, theirs: &Engine, rows: &mut Table) {
    const OURS: usize = 3;
    let cache = image::project().join(".cache/images");
    let tar = cache.join("big.tar").to_string_lossy().into_owned();
    let directory =
        tempfile::Builder::new().prefix("ponton-bench-").tempdir_in(&cache).expect("a temporary directory");
    let archive = directory.path().join("saved.tar").to_string_lossy().into_owned();
    let (mut import, mut load, mut memory) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()), (0, 0));
    for (engine, times, import, load, memory) in [
        (ours, OURS, &mut import.0, &mut load.0, &mut memory.0),
        (theirs, 1, &mut import.1, &mut load.1, &mut memory.1),
    ] {
        for time in 0..times {
            for (args, taken) in
                [(["import", &tar, "big:1"], &mut *import), (["load", "-qi", &archive], &mut *load)]
            {
                let (elapsed, grown) = with_memory(engine, || timed((engine.client)(&args)));
                taken.push(elapsed);
                *memory = grown.max(*memory);
                if time == 0 && !Path::new(&archive).exists() {
                    timed((engine.client)(&["save", "-o", &archive, "big:1"]));
                }
                timed((engine.client)(&["rmi", "big:1"]));
                quiet(engine);
            }
        }
    }
    let s = |values| median(values) / 1e3;
    let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
    for (what, unit, (ponton, dockerd), aim) in [
        ("import of 1 GB, 75,000 entries", "s", (s(import.0), s(import.1)), "3x"),
        ("load of 1 GB, 75,000 entries", "s", (s(load.0), s(load.1)), "3x"),
        ("memory over idle meanwhile (PSS)", "MiB", (mib(memory.0), mib(memory.1)), "<= 64 MiB"),
    ] {
        rows.push(&Row { what, unit, ponton, dockerd, aim });
    }
    rows.notes.push(format!(
        "import and load: the median of {OURS} times for Ponton, one time for dockerd, which takes long. `tar -x` of the \
         same and a sync, without digest and without what rebuilds the tar: {:.3} s.",
        unpacked_by_tar(&tar, directory.path())
    ));
}

/// How long work takes, and how much the engine's memory grows at most meanwhile.
fn with_memory(engine: &Engine, work: impl FnOnce() -> f64) -> (f64, u64) {
    let before = (engine.memory)();
    let (done, ended) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let watcher = scope.spawn(move || {
            let mut most = before;
            while ended.recv_timeout(Duration::from_millis(200)) == Err(RecvTimeoutError::Timeout) {
                most = most.max((engine.memory)());
            }
            most - before
        });
        let elapsed = work();
        drop(done);
        (elapsed, watcher.join().expect("watcher"))
    })
}

/// What was done earlier must not be finished in somebody else's time: the engine's deleting, and the writing of all.
fn quiet(engine: &Engine) {
    if let Some(trash) = &engine.trash {
        wait::within(Duration::from_secs(300), "the end of the deleting", || {
            std::fs::read_dir(trash).expect("trash").next().is_none().then_some(())
        });
    }
    let _ = Command::new("sync").status();
}

/// Seconds that unpacking takes at least, on this disk.
fn unpacked_by_tar(tar: &str, directory: &Path) -> f64 {
    let into = directory.join("tree");
    std::fs::create_dir(&into).expect("mkdir");
    let mut command = Command::new("sh");
    command.args(["-c", "tar -xf \"$0\" -C \"$1\" && sync -f \"$1\"", tar, &into.to_string_lossy()]);
    timed(command) / 1e3
}

/// From exec of the daemon to its first answer with 100 stopped containers, and its idle memory then.
fn start_up(rows: &mut Table) {
    let mut ponton = Daemon::start();
    let mut peer = Peer::dockerd().expect("dockerd");
    for api in [ponton.api(), peer.api()] {
        for n in 0..100 {
            api.post(&format!("/containers/create?name=s{n}"), &json!({"Image": "busybox", "Cmd": ["true"]}))
                .expect(201);
        }
    }
    let (mut mine, mut theirs, mut memory) = (Vec::new(), Vec::new(), (0.0, 0.0));
    for _ in 0..5 {
        ponton.stop();
        peer.stop();
        mine.push(ponton.time_to_first_answer().as_secs_f64() * 1e3);
        theirs.push(peer.time_to_first_answer().as_secs_f64() * 1e3);
    }
    std::thread::sleep(Duration::from_secs(3));
    let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
    memory.0 += mib(leak::pss_bytes(&engine_processes(&ponton.path("").to_string_lossy(), &["ponton"])));
    memory.1 += mib(leak::pss_bytes(&engine_processes(&peer.dir(), &["dockerd", "containerd"])));
    rows.push(&Row {
        what: "daemon to its first answer, 100 stopped containers",
        unit: "ms",
        ponton: median(mine),
        dockerd: median(theirs),
        aim: "<= 20 ms",
    });
    rows.push(&Row {
        what: "idle memory (PSS)",
        unit: "MiB",
        ponton: memory.0,
        dockerd: memory.1,
        aim: "<= 15 MiB",
    });
}
