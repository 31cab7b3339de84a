//! What containers write: as fast as they can, read back, the last of it, and followed by many.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ponton_testkit::wait;

use super::{Engine, Row, Table, median, timed};

/// Lines of a container that writes as fast as it can, and their length with `\n`.
const LINES: usize = 1_000_000;
const LENGTH: usize = 64;
/// How often the whole is done; it takes long with dockerd.
const TIMES: usize = 3;
const FOLLOWERS: usize = 50;
/// Lines that each follower gets.
const FOLLOWED: usize = 20_000;

/// What one engine takes.
#[derive(Default)]
struct Taken {
    write: Vec<f64>,
    cpu: Vec<f64>,
    read: Vec<f64>,
    tail: Vec<f64>,
    follow: Vec<f64>,
    follow_cpu: Vec<f64>,
}

pub(super) fn run(ours: &Engine, theirs: &Engine, rows: &mut Table) {
    let (mut mine, mut peer) = (Taken::default(), Taken::default());
    for _ in 0..TIMES {
        for (engine, taken) in [(ours, &mut mine), (theirs, &mut peer)] {
            written_and_read(engine, taken);
            followed(engine, taken);
        }
    }
    for (what, unit, mine, peer, aim) in [
        ("1,000,000 lines of 64 bytes, written", "s", mine.write, peer.write, "4x"),
        ("the engine's CPU meanwhile", "s", mine.cpu, peer.cpu, "10x"),
        ("the same read by logs", "s", mine.read, peer.read, "10x"),
        ("logs --tail 10 of it", "ms", mine.tail, peer.tail, "< 5 ms"),
        ("20,000 lines to 50 followers", "s", mine.follow, peer.follow, ""),
        ("the engine's CPU meanwhile", "s", mine.follow_cpu, peer.follow_cpu, ""),
    ] {
        rows.push(&Row { what, unit, ponton: median(mine), dockerd: median(peer), aim });
    }
    rows.notes.push(format!(
        "logs: medians of {TIMES} times, each engine with its default driver. The time of writing is the container's own, \
         by its clock. Ponton compresses the files that were rotated ten seconds later, in a process with the least \
         priority: that is in none of these figures."
    ));
}

/// A container that writes everything, and stays.
fn written_and_read(engine: &Engine, taken: &mut Taken) {
    let line = "x".repeat(LENGTH - 1);
    // They are ready in memory, so that what makes them is not measured. The uptime has hundredths of seconds.
    let script = format!(
        "yes {line} | head -n {LINES} >/dev/shm/lines; read a b </proc/uptime; cat /dev/shm/lines; \
         read c d </proc/uptime; echo took $a $c; exec sleep 100000"
    );
    // Whether something else is being done for earlier containers must not matter.
    std::thread::sleep(Duration::from_secs(1));
    let before = (engine.cpu)();
    timed((engine.client)(&["run", "-d", "--name", "bench-logs", "busybox", "sh", "-c", &script]));
    let last = wait::within(Duration::from_secs(120), "the last line", || {
        std::thread::sleep(Duration::from_millis(100));
        let output = (engine.client)(&["logs", "--tail", "1", "bench-logs"]).output().expect("logs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.starts_with("took").then_some(text)
    });
    taken.cpu.push((engine.cpu)() - before);
    let times: Vec<f64> = last.split_whitespace().skip(1).map(|time| time.parse().expect("uptime")).collect();
    taken.write.push(times[1] - times[0]);
    let begin = Instant::now();
    let output = (engine.client)(&["logs", "bench-logs"]).stderr(Stdio::null()).output().expect("logs");
    taken.read.push(begin.elapsed().as_secs_f64());
    assert!(output.stdout.len() > LINES * LENGTH, "{} bytes", output.stdout.len());
    for _ in 0..10 {
        taken.tail.push(timed((engine.client)(&["logs", "--tail", "10", "bench-logs"])));
    }
    timed((engine.client)(&["rm", "-f", "bench-logs"]));
}

/// A container that is followed by many, and writes when they are there.
fn followed(engine: &Engine, taken: &mut Taken) {
    let line = "x".repeat(LENGTH - 1);
    let script = format!(
        "echo ready; until [ -e /go ]; do sleep 0.05; done; yes {line} | head -n {FOLLOWED}; echo done; exec sleep 100000"
    );
    timed((engine.client)(&["run", "-d", "--name", "bench-follow", "busybox", "sh", "-c", &script]));
    let (ready, all_ready) = mpsc::channel();
    let (done, all_done) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..FOLLOWERS {
            let mut command = (engine.client)(&["logs", "-f", "bench-follow"]);
            let (ready, done) = (ready.clone(), done.clone());
            scope.spawn(move || {
                let mut child =
                    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("logs -f");
                let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
                assert_eq!(lines.next().expect("a line").expect("read"), "ready");
                ready.send(()).expect("told");
                let count = lines.map_while(Result::ok).take_while(|line| line != "done").count();
                assert_eq!(count, FOLLOWED);
                done.send(()).expect("told");
                child.kill().and_then(|()| child.wait()).expect("kill");
            });
        }
        let patience = Duration::from_secs(120);
        for _ in 0..FOLLOWERS {
            all_ready.recv_timeout(patience).expect("a follower that is ready");
        }
        let (begin, before) = (Instant::now(), (engine.cpu)());
        timed((engine.client)(&["exec", "bench-follow", "touch", "/go"]));
        for _ in 0..FOLLOWERS {
            all_done.recv_timeout(patience).expect("a follower that has everything");
        }
        taken.follow.push(begin.elapsed().as_secs_f64());
        taken.follow_cpu.push((engine.cpu)() - before);
    });
    timed((engine.client)(&["rm", "-f", "bench-follow"]));
}
