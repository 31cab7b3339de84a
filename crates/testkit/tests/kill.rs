//! The daemon, its shims, or both are killed with -9 at random moments of create, start, exec, stop and rm under load,
//! with volumes, logs and health checks. Afterwards every container is in a true state, no exit code and no line of a log
//! is lost, events told the truth, and nothing is orphaned.
//!
//! `PONTON_KILLS` sets how often, `PONTON_SEED` the seed.
#![allow(clippy::expect_used, reason = "a test program")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ponton_testkit::random::{Random, number};
use ponton_testkit::{Api, Daemon, leak, wait};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

#[path = "kill/check.rs"]
mod check;
#[path = "kill/listener.rs"]
mod listener;

/// Lines that a container that ends by itself writes.
const LINES: usize = 40;

/// What the daemon was asked of one container, and what it has confirmed.
#[derive(Clone, Debug, Default)]
struct Told {
    created: bool,
    id: Option<String>,
    started: bool,
    remove_asked: bool,
    removed: bool,
    /// Ends by itself with this code; `None` for one that sleeps until it is stopped.
    exit_code: Option<i64>,
    /// Execs that were started, and end with 7.
    execs: Vec<String>,
}

/// What the daemon has confirmed of a volume.
#[derive(Clone, Debug, Default)]
struct ToldVolume {
    made: bool,
    remove_asked: bool,
    removed: bool,
}

/// What the workers write down.
#[derive(Debug, Default)]
struct Pages {
    containers: Mutex<BTreeMap<String, Told>>,
    volumes: Mutex<BTreeMap<String, ToldVolume>>,
}

type Book = Arc<Pages>;

/// Who is killed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Victim {
    Daemon,
    Shim,
    Both,
}

#[test]
fn daemons_are_killed_at_random_moments() {
    killed(100, &[Victim::Daemon]);
}

#[test]
fn daemons_and_shims_are_killed_at_random_moments() {
    use Victim::{Both, Daemon, Shim};
    killed(300, &[Daemon, Daemon, Daemon, Daemon, Daemon, Daemon, Shim, Shim, Shim, Both]);
}

/// Both tests want the whole machine.
static ALONE: Mutex<()> = Mutex::new(());

/// Kills that often, one of those at a time.
fn killed(kills: u64, victims: &[Victim]) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let kills = number("PONTON_KILLS", kills);
    let seed = number("PONTON_SEED", 0x5EED);
    let mut daemon = Daemon::start();
    let window_ms = window_ms(&daemon.api());
    // What the measured containers leave goes in the background.
    let is_clean = |state: &Vec<String>| {
        !state.iter().any(|entry| entry.contains("trash-") || entry.starts_with("run/"))
    };
    let clean = wait::until("a clean beginning", || Some(state_of(&daemon)).filter(is_clean));
    let book: Book = Arc::default();
    let stop = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicUsize::new(0));
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let (api, book, stop, count) = (daemon.api(), book.clone(), stop.clone(), count.clone());
            std::thread::spawn(move || {
                work(&api, &book, &stop, &count, Random::new(seed ^ ((worker + 1) << 20)));
            })
        })
        .collect();
    let listener = {
        let (api, stop) = (daemon.api(), stop.clone());
        std::thread::spawn(move || listener::listen(&api, &stop))
    };
    let mut random = Random::new(seed);
    let mut done: BTreeMap<Victim, usize> = BTreeMap::new();
    for _ in 0..kills {
        if random.next(4) == 0 {
            // On a busy machine nothing would ever get as far as a start otherwise.
            await_start(&book);
        }
        std::thread::sleep(Duration::from_millis(5 + random.next(window_ms)));
        let victim = victims[random.next(victims.len() as u64) as usize];
        *done.entry(victim).or_default() += 1;
        if victim != Victim::Daemon {
            kill_shim(&daemon, &mut random);
        }
        if victim != Victim::Shim {
            daemon.kill_and_restart();
        }
    }
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.join().expect("worker");
    }
    let told = book.containers.lock().expect("book").clone();
    let confirmed = |what: fn(&Told) -> bool| told.values().filter(|told| what(told)).count();
    println!(
        "seed {seed}, {kills} kills within {window_ms} ms each ({done:?}), {} operations; {} \
         containers made, {} started, {} removed",
        count.load(Ordering::Relaxed),
        confirmed(|told| told.created),
        confirmed(|told| told.started),
        confirmed(|told| told.removed),
    );
    assert!(confirmed(|told| told.started) > 20, "the load was too light to prove anything");
    // What daemon and shim were holding goes with both: an end that nobody saw has no code, and says so.
    let may_be_unknown = done.contains_key(&Victim::Both);
    check::containers(&daemon.api(), &told, may_be_unknown);
    check::execs(&daemon.api(), &told);
    check::volumes(&daemon.api(), &book.volumes.lock().expect("book"));
    // The daemon's end is the end of the last listening.
    let mut ids = remove_all(&daemon.api());
    daemon.kill_and_restart();
    let events = listener.join().expect("listener");
    check::events(&events, &told, may_be_unknown);
    ids.extend(told.values().filter_map(|told| told.id.clone()));
    let left = || (state_of(&daemon), leak::cgroups_of(&ids));
    let clean = (clean, Vec::new());
    let begin = Instant::now();
    while left() != clean && begin.elapsed() < wait::PATIENCE {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(left(), clean, "left behind, or gone");
    assert_eq!(leak::mounts_under(&daemon.path("")), Vec::<String>::new());
}

/// Returns when one more start was confirmed, or after a while.
fn await_start(book: &Book) {
    let started = || book.containers.lock().expect("book").values().filter(|told| told.started).count();
    let (before, begin) = (started(), Instant::now());
    while started() == before && begin.elapsed() < Duration::from_secs(3) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// How long a daemon lives at most, in milliseconds: 120 where a container is made and started in less than 20, else in
/// proportion. On a slow or busy machine nothing would ever get as far as a start otherwise.
fn window_ms(api: &Api) -> u64 {
    let begin = Instant::now();
    let body = json!({"Image": "busybox", "Cmd": ["true"]});
    for number in 0..4 {
        let name = format!("measured{number}");
        api.request("POST", &format!("/containers/create?name={name}"), Some(&body)).expect(201);
        api.request("POST", &format!("/containers/{name}/start"), None).expect(204);
    }
    let average_ms = u64::try_from(begin.elapsed().as_millis() / 4).expect("not long");
    for number in 0..4 {
        api.request("DELETE", &format!("/containers/measured{number}?force=1"), None).expect(204);
    }
    (6 * average_ms).clamp(120, 3000)
}

/// Creates, starts, execs, stops and removes, until told to stop. Errors are of no account: the daemon is being killed.
fn work(api: &Api, book: &Book, stop: &AtomicBool, count: &AtomicUsize, mut random: Random) {
    let mut mine: Vec<String> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        count.fetch_add(1, Ordering::Relaxed);
        let pick = mine.get(random.next(mine.len().max(1) as u64) as usize).cloned();
        match (random.next(8), pick) {
            (0..=2, _) | (_, None) => match create_and_start(api, book, &mut random) {
                Some(name) => mine.push(name),
                // The daemon is being killed, or its successor is not there yet: it shall have the processors.
                None => std::thread::sleep(Duration::from_millis(2)),
            },
            (3, Some(name)) if random.next(2) == 0 => exec(api, book, &name),
            (3, _) => volume(api, book, &mut random),
            (4, Some(name)) if is_sleeper(book, &name) => {
                let _ = api.try_request("POST", &format!("/containers/{name}/stop?t=0"), None);
            }
            (5, Some(name)) if is_sleeper(book, &name) => {
                let _ = api.try_request("POST", &format!("/containers/{name}/restart?t=0"), None);
            }
            (6 | 7, Some(name)) if mine.len() > 4 => {
                mine.retain(|other| *other != name);
                tell(book, &name, |told| told.remove_asked = true);
                let answer = api.try_request("DELETE", &format!("/containers/{name}?force=1&v=1"), None);
                if answer.is_ok_and(|answer| answer.status == 204) {
                    tell(book, &name, |told| told.removed = true);
                }
            }
            _ => {
                let _ = api.try_request("GET", "/containers/json?all=1", None);
            }
        }
    }
}

fn tell(book: &Book, name: &str, change: impl FnOnce(&mut Told)) {
    change(book.containers.lock().expect("book").entry(name.to_owned()).or_default());
}

fn is_sleeper(book: &Book, name: &str) -> bool {
    book.containers.lock().expect("book").get(name).is_some_and(|told| told.exit_code.is_none())
}

/// Nothing when it was not confirmed that it was made; it may be there all the same.
fn create_and_start(api: &Api, book: &Book, random: &mut Random) -> Option<String> {
    let name = format!("k{}", random.next(1 << 30));
    let exit_code = (random.next(3) > 0).then(|| 1 + i64::try_from(random.next(100)).expect("small"));
    let command = match exit_code {
        Some(code) => {
            let pause = random.next(9);
            format!(
                "i=0; while [ $i -lt {LINES} ]; do echo $i; i=$((i+1)); done; sleep 0.0{pause}; exit {code}"
            )
        }
        None => "trap 'exit 0' TERM; sleep 1000 & wait".to_owned(),
    };
    tell(book, &name, |told| told.exit_code = exit_code);
    let body = json!({"Image": "busybox", "Cmd": ["sh", "-c", command], "Volumes": {"/anonymous": {}},
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 100_000_000 << random.next(5)},
        "HostConfig": {"Binds": [format!("shared{}:/data", random.next(3))]}});
    let answer = api.try_request("POST", &format!("/containers/create?name={name}"), Some(&body));
    let id = match answer {
        Ok(answer) if answer.status == 201 => answer.json()["Id"].as_str().map(str::to_owned),
        _ => return None,
    };
    tell(book, &name, |told| (told.created, told.id) = (true, id));
    let answer = api.try_request("POST", &format!("/containers/{name}/start"), None);
    if answer.is_ok_and(|answer| answer.status == 204) {
        tell(book, &name, |told| told.started = true);
    }
    Some(name)
}

fn exec(api: &Api, book: &Book, name: &str) {
    let body = json!({"Cmd": ["sh", "-c", "exit 7"], "AttachStdout": true});
    let Ok(answer) = api.try_request("POST", &format!("/containers/{name}/exec"), Some(&body)) else {
        return;
    };
    if answer.status == 201 {
        let id = answer.json()["Id"].as_str().unwrap_or_default().to_owned();
        let started = api.try_request("POST", &format!("/exec/{id}/start"), Some(&json!({"Detach": true})));
        if started.is_ok_and(|answer| answer.status == 200) {
            tell(book, name, |told| told.execs.push(id));
        }
    }
}

/// Makes a volume, or removes one.
fn volume(api: &Api, book: &Book, random: &mut Random) {
    let tell = |name: &str, change: fn(&mut ToldVolume)| {
        change(book.volumes.lock().expect("book").entry(name.to_owned()).or_default());
    };
    let made = |told: &ToldVolume| told.made && !told.remove_asked;
    let old =
        book.volumes.lock().expect("book").iter().find(|(_, told)| made(told)).map(|(name, _)| name.clone());
    match old.filter(|_| random.next(2) == 0) {
        Some(name) => {
            tell(&name, |told| told.remove_asked = true);
            let answer = api.try_request("DELETE", &format!("/volumes/{name}"), None);
            if answer.is_ok_and(|answer| answer.status == 204) {
                tell(&name, |told| told.removed = true);
            }
        }
        None => {
            let name = format!("volume{}", random.next(1 << 30));
            let answer = api.try_request("POST", "/volumes/create", Some(&json!({"Name": name})));
            if answer.is_ok_and(|answer| answer.status == 201) {
                tell(&name, |told| told.made = true);
            }
        }
    }
}

/// Kills a shim, if there is one: a process of ours that is in no pid namespace of a container.
fn kill_shim(daemon: &Daemon, random: &mut Random) {
    let mut shims = daemon.processes();
    shims.retain(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let is_ours = status.starts_with("Name:\tponton-shim");
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        is_ours && ids.is_some_and(|ids| ids.split_whitespace().count() == 1)
    });
    if let Some(pid) = shims.get(random.next(shims.len().max(1) as u64) as usize) {
        // It may have ended by itself.
        let _ = kill_process(Pid::from_raw(pid.cast_signed()).expect("a pid"), Signal::KILL);
    }
}

/// The answer: the ids of those that were left.
fn remove_all(api: &Api) -> Vec<String> {
    let mut ids = Vec::new();
    for container in api.get("/containers/json?all=1").expect(200).json().as_array().expect("a list") {
        let id = container["Id"].as_str().expect("an id");
        let answer = api.request("DELETE", &format!("/containers/{id}?force=1&v=1"), None);
        assert_eq!(answer.status, 204, "{}", answer.text());
        ids.push(id.to_owned());
    }
    let named = "/volumes/prune?filters=%7B%22all%22%3A%5B%22true%22%5D%7D";
    api.request("POST", named, None).expect(200);
    ids
}

/// What is there of containers: directories, links, rules, container processes. Equal before and after.
fn state_of(daemon: &Daemon) -> Vec<String> {
    let mut state = Vec::new();
    let dirs = [
        "data/containers",
        "run/containers",
        "data/snapshots/overlay",
        "data/volumes",
        "data/tmp",
        "data/content/ingest",
    ];
    for dir in dirs {
        for entry in fs::read_dir(daemon.path(dir)).into_iter().flatten().flatten() {
            state.push(format!("{dir}/{}", entry.file_name().to_string_lossy()));
        }
    }
    state.sort();
    // How many prepared links there are at one moment is nobody's business; rules have none of them.
    state.push(leak::Network::of(daemon.namespace_pid()).rules);
    let processes = leak::processes_naming(&daemon.path("").to_string_lossy());
    for pid in processes {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if Path::new(&format!("/proc/{pid}")).exists()
            && comm.starts_with("ponton-shim")
            && !children.trim().is_empty()
        {
            state.push(format!("children of a shim: {children}"));
        }
    }
    state
}
