//! Many containers: what the API takes with them, what is heard of them, and what they cost.
//!
//! dockerd gets 200 where Ponton gets 1,000, since it takes minutes for more; where that matters, its row says so.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use ponton_testkit::{Api, Daemon, Peer, leak, wait};
use serde_json::json;

use super::{Row, Table, engine_processes, median};

const OURS: usize = 1000;
const THEIRS: usize = 200;
/// Containers whose stats are streamed.
const STREAMED: usize = 200;
const LISTENERS: usize = 100;
/// Events that each listener hears.
const EVENTS: usize = 100;

/// What was measured of one engine.
struct Measured {
    list: f64,
    inspect: f64,
    events: f64,
    stats: f64,
    memory: f64,
    slowdown: f64,
}

pub(super) fn run(rows: &mut Table) {
    let peer = {
        let peer = Peer::dockerd().expect("dockerd is installed");
        let processes = || engine_processes(&peer.dir(), &["dockerd", "containerd"]);
        measure(&peer.api(), THEIRS, &processes)
    };
    let ours = {
        let daemon = Daemon::start();
        let directory = daemon.path("").to_string_lossy().into_owned();
        measure(&daemon.api(), OURS, &|| engine_processes(&directory, &["ponton"]))
    };
    for (what, unit, ponton, dockerd, aim) in [
        ("GET /containers/json, 1,000 running (dockerd: 200)", "ms", ours.list, peer.list, "<= 10 ms"),
        ("inspect among 1,000 (dockerd: 200)", "ms", ours.inspect, peer.inspect, "<= 1 ms"),
        ("100 events to 100 listeners", "ms", ours.events, peer.events, ""),
        ("streamed stats of 200 containers", "% of a core", ours.stats, peer.stats, "< 2 %"),
        (
            "memory of 1,000 idle containers (dockerd: 200), all processes",
            "MiB",
            ours.memory,
            peer.memory,
            "< 120 MiB",
        ),
        ("last start against first of 1,000 (dockerd: 200)", "times", ours.slowdown, peer.slowdown, "<= 1.5"),
    ] {
        rows.push(&Row { what, unit, ponton, dockerd, aim });
    }
}

fn measure(api: &Api, count: usize, processes: &dyn Fn() -> Vec<u32>) -> Measured {
    let mut starts = Vec::new();
    for number in 0..count {
        let body = json!({"Image": "busybox", "Cmd": ["sleep", "100000"], "StopSignal": "SIGKILL"});
        api.post(&format!("/v1.41/containers/create?name=scale{number}"), &body).expect(201);
        let begin = Instant::now();
        api.request("POST", &format!("/v1.41/containers/scale{number}/start"), None).expect(204);
        starts.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    // One start is chance: fifty at each end.
    let slowdown = median(starts[count - 50..].to_vec()) / median(starts[..50].to_vec());
    let list = times(20, || {
        let answer = api.get("/v1.41/containers/json").expect(200);
        assert!(answer.body.len() > 100 * count, "all of them");
    });
    let middle = format!("/v1.41/containers/scale{}/json", count / 2);
    let inspect = times(50, || {
        api.get(&middle).expect(200);
    });
    let events = events(api);
    let stats = stats(api, processes);
    std::thread::sleep(Duration::from_secs(2));
    let memory = leak::pss_bytes(&processes()) as f64 / 1024.0 / 1024.0;
    remove(api, count);
    Measured { list, inspect, events, stats, memory, slowdown }
}

/// The median of some calls, in ms.
fn times(count: usize, call: impl Fn()) -> f64 {
    call();
    let taken = (0..count).map(|_| {
        let begin = Instant::now();
        call();
        begin.elapsed().as_secs_f64() * 1e3
    });
    median(taken.collect())
}

/// From the first of some events until each of many listeners has heard all, in ms.
fn events(api: &Api) -> f64 {
    let path = "/v1.41/events?filters=%7B%22event%22%3A%5B%22rename%22%5D%7D";
    let listeners: Vec<_> =
        (0..LISTENERS).map(|_| api.open("GET", path, "", b"").expect("a listener")).collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = listeners
            .into_iter()
            .map(|stream| {
                scope.spawn(move || {
                    let lines = BufReader::new(stream).lines().map(|line| line.expect("an event"));
                    assert_eq!(lines.filter(|line| line.starts_with('{')).take(EVENTS).count(), EVENTS);
                })
            })
            .collect();
        // dockerd answers before it listens; whoever misses an event waits for it in vain.
        std::thread::sleep(Duration::from_secs(1));
        let begin = Instant::now();
        for _ in 0..EVENTS / 2 {
            for (from, to) in [("scale0", "other"), ("other", "scale0")] {
                let path = format!("/v1.41/containers/{from}/rename?name={to}");
                api.request("POST", &path, None).expect(204);
            }
        }
        for thread in threads {
            thread.join().expect("listener");
        }
        begin.elapsed().as_secs_f64() * 1e3
    })
}

/// CPU time that the engine takes while the stats of many containers are streamed, in % of a core.
fn stats(api: &Api, processes: &dyn Fn() -> Vec<u32>) -> f64 {
    const SECONDS: u64 = 10;
    let streams: Vec<_> = (0..STREAMED)
        .map(|number| {
            let path = format!("/v1.41/containers/scale{number}/stats");
            BufReader::new(api.open("GET", &path, "", b"").expect("a stream"))
        })
        .collect();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for mut stream in streams {
            stream.get_ref().set_read_timeout(Some(Duration::from_secs(3))).expect("set a timeout");
            let is_over = &is_over;
            scope.spawn(move || {
                let mut line = Vec::new();
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    line.clear();
                    if stream.read_until(b'\n', &mut line).unwrap_or(0) == 0 {
                        return;
                    }
                }
            });
        }
        std::thread::sleep(Duration::from_secs(3));
        let before = cpu_ticks(&processes());
        std::thread::sleep(Duration::from_secs(SECONDS));
        let used = cpu_ticks(&processes()) - before;
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        // A tick is 10 ms.
        used as f64 / SECONDS as f64
    })
}

/// Time on the processor, of all threads, in hundredths of a second.
fn cpu_ticks(pids: &[u32]) -> u64 {
    let of = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let fields: Vec<u64> =
            after_name.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
        fields.get(11).unwrap_or(&0) + fields.get(12).unwrap_or(&0)
    };
    pids.iter().map(of).sum()
}

/// Removes them, eight at a time.
fn remove(api: &Api, count: usize) {
    std::thread::scope(|scope| {
        for first in 0..8 {
            scope.spawn(move || {
                for number in (first..count).step_by(8) {
                    let path = format!("/v1.41/containers/scale{number}?force=1");
                    let answer = wait::within(Duration::from_secs(60), "a removal", || {
                        Some(api.request("DELETE", &path, None)).filter(|answer| answer.status != 500)
                    });
                    assert!(matches!(answer.status, 204 | 404), "{}", answer.text());
                }
            });
        }
    });
}
