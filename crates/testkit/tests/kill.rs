//! The daemon is killed with -9 at random moments of create, start, exec, stop and rm under load. Afterwards every
//! container is in a true state, no exit code is lost, and nothing is orphaned.
//!
//! `PONTON_KILLS` sets how often (200 unless told), `PONTON_SEED` the seed.
#![allow(clippy::expect_used, reason = "a test program")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ponton_testkit::random::{Random, number};
use ponton_testkit::{Api, Daemon, leak, wait};
use serde_json::json;

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
}

type Book = Arc<Mutex<BTreeMap<String, Told>>>;

#[test]
fn killed_at_random_moments() {
    let kills = number("PONTON_KILLS", 200);
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
    let mut random = Random::new(seed);
    for _ in 0..kills {
        std::thread::sleep(Duration::from_millis(5 + random.next(window_ms)));
        daemon.kill_and_restart();
    }
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.join().expect("worker");
    }
    let told = book.lock().expect("book").clone();
    let confirmed = |what: fn(&Told) -> bool| told.values().filter(|told| what(told)).count();
    println!(
        "{kills} kills within {window_ms} ms each, {} operations; {} containers made, {} started, {} removed",
        count.load(Ordering::Relaxed),
        confirmed(|told| told.created),
        confirmed(|told| told.started),
        confirmed(|told| told.removed),
    );
    assert!(confirmed(|told| told.started) > 20, "the load was too light to prove anything");
    check_containers(&daemon.api(), &told);
    let mut ids = remove_all(&daemon.api());
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
            (3, Some(name)) => exec(api, &name),
            (4, Some(name)) if is_sleeper(book, &name) => {
                let _ = api.try_request("POST", &format!("/containers/{name}/stop?t=0"), None);
            }
            (5, Some(name)) if is_sleeper(book, &name) => {
                let _ = api.try_request("POST", &format!("/containers/{name}/restart?t=0"), None);
            }
            (6 | 7, Some(name)) if mine.len() > 4 => {
                mine.retain(|other| *other != name);
                tell(book, &name, |told| told.remove_asked = true);
                let answer = api.try_request("DELETE", &format!("/containers/{name}?force=1"), None);
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
    change(book.lock().expect("book").entry(name.to_owned()).or_default());
}

fn is_sleeper(book: &Book, name: &str) -> bool {
    book.lock().expect("book").get(name).is_some_and(|told| told.exit_code.is_none())
}

/// Nothing when it was not confirmed that it was made; it may be there all the same.
fn create_and_start(api: &Api, book: &Book, random: &mut Random) -> Option<String> {
    let name = format!("k{}", random.next(1 << 30));
    let exit_code = (random.next(3) > 0).then(|| 1 + i64::try_from(random.next(100)).expect("small"));
    let command = match exit_code {
        Some(code) => format!("sleep 0.0{}; exit {code}", random.next(9)),
        None => "trap 'exit 0' TERM; sleep 1000 & wait".to_owned(),
    };
    tell(book, &name, |told| told.exit_code = exit_code);
    let body = json!({"Image": "busybox", "Cmd": ["sh", "-c", command]});
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

fn exec(api: &Api, name: &str) {
    let body = json!({"Cmd": ["true"], "AttachStdout": true});
    let Ok(answer) = api.try_request("POST", &format!("/containers/{name}/exec"), Some(&body)) else {
        return;
    };
    if answer.status == 201 {
        let id = answer.json()["Id"].as_str().unwrap_or_default().to_owned();
        let _ = api.try_request("POST", &format!("/exec/{id}/start"), Some(&json!({"Detach": true})));
    }
}

/// What was confirmed holds, and what runs or ended says so truly.
fn check_containers(api: &Api, told: &BTreeMap<String, Told>) {
    for (name, told) in told {
        let inspected = api.get(&format!("/containers/{name}/json"));
        if told.removed {
            assert_eq!(inspected.status, 404, "{name} was removed");
        }
        if told.created && !told.remove_asked {
            assert_eq!(inspected.status, 200, "{name} was created: {told:?}");
        }
        if inspected.status != 200 {
            continue;
        }
        // A forced removal that was cut off may have killed it already.
        if told.started && told.exit_code.is_some() && !told.remove_asked {
            let waited = api.request("POST", &format!("/containers/{name}/wait"), None).expect(200);
            assert_eq!(
                waited.json()["StatusCode"].as_i64(),
                told.exit_code,
                "exit code of {name}, {told:?}: {}",
                inspected.text()
            );
        }
        let state = api.get(&format!("/containers/{name}/json")).expect(200).json()["State"].clone();
        let pid = state["Pid"].as_u64().unwrap_or(0);
        assert_eq!(state["Running"].as_bool() == Some(true), pid != 0, "{name}: {state}");
        if pid != 0 {
            let process = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            assert!(
                !process.is_empty() && !process.contains(") Z "),
                "{name} is said to run as {pid}, which does not live"
            );
        }
    }
}

/// The answer: the ids of those that were left.
fn remove_all(api: &Api) -> Vec<String> {
    let mut ids = Vec::new();
    for container in api.get("/containers/json?all=1").expect(200).json().as_array().expect("a list") {
        let id = container["Id"].as_str().expect("an id");
        let answer = api.request("DELETE", &format!("/containers/{id}?force=1"), None);
        assert_eq!(answer.status, 204, "{}", answer.text());
        ids.push(id.to_owned());
    }
    ids
}

/// What is there of containers: directories, links, rules, container processes. Equal before and after.
fn state_of(daemon: &Daemon) -> Vec<String> {
    let mut state = Vec::new();
    for dir in
        ["data/containers", "run/containers", "data/snapshots/overlay", "data/tmp", "data/content/ingest"]
    {
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
