//! The daemon is killed with -9 at random moments of pull, load, rm and prune. Afterwards the check finds nothing wrong,
//! the work can be done again, and nothing is left of what was cut off.
//!
//! `PONTON_KILLS` sets how often (100 unless told), `PONTON_SEED` the seed.
#![allow(clippy::expect_used, reason = "a test program")]

use std::fs;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use ponton_testkit::random::{Random, number};
use ponton_testkit::{Api, Daemon, Registry, image, tar, wait};
use serde_json::Value;

const IMAGES: u64 = 4;

/// What the workers share.
struct Work {
    api: Api,
    registry: &'static str,
    archive: Vec<u8>,
    /// Held for reading by who works, for writing by who looks whether all is well.
    pause: RwLock<()>,
    is_over: AtomicBool,
    done: [AtomicUsize; 4],
}

/// Pull, load, remove, prune.
const OPERATIONS: [&str; 4] = ["pulled", "loaded", "removed", "pruned"];

impl Work {
    fn name(&self, number: u64) -> String {
        format!("{}/kill{number}:1", self.registry)
    }

    /// Whether it was told that it is done.
    fn perform(&self, operation: usize, number: u64) -> bool {
        let name = self.name(number);
        let request = |method, path: &str| self.api.try_request(method, path, None);
        let answer = match operation {
            0 => request("POST", &format!("/images/create?fromImage={name}")),
            1 => self.load(),
            2 => request("DELETE", &format!("/images/{name}?force=1")),
            _ => request("POST", "/images/prune?filters=%7B%22dangling%22%3A%5B%22false%22%5D%7D"),
        };
        // An error in the middle of a stream has the status of a success.
        answer.is_ok_and(|answer| answer.status == 200 && !answer.text().contains("\"error\""))
    }

    fn load(&self) -> std::io::Result<ponton_testkit::Answer> {
        let headers = "Content-Type: application/x-tar\r\nConnection: close\r\n";
        let mut stream = self.api.open("POST", "/images/load", headers, &self.archive)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        ponton_testkit::Answer::parse(&answer).ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
    }

    /// Whether each operation has come to its end at least once.
    fn has_done_all(&self) -> bool {
        self.done.iter().all(|count| count.load(Ordering::Relaxed) > 0)
    }

    fn until_over(&self, mut random: Random) {
        while !self.is_over.load(Ordering::Relaxed) {
            let _working = self.pause.read().expect("pause");
            let operation = [0, 0, 0, 1, 1, 2, 2, 3][random.next(8) as usize];
            if self.perform(operation, random.next(IMAGES)) {
                self.done[operation].fetch_add(1, Ordering::Relaxed);
            } else {
                // The daemon is being killed, or its successor is not there yet: it shall have the processors.
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

/// An image whose first layer is that of all, whose second is shared with one other, and whose third is its own.
fn archive(number: u64) -> Vec<u8> {
    let layer = |seed: u64, files: u64| {
        let mut random = Random::new(seed + 1);
        let mut layer = tar::Tar::default();
        for file in 0..files {
            let bytes: Vec<u8> = (0..40_000).map(|_| random.next(256) as u8).collect();
            layer = layer.file(&format!("layer{seed}/file{file}"), bytes);
        }
        layer.finish()
    };
    let layers = [layer(1000, 100), layer(2000 + number / 2, 50), layer(3000 + number, 50)];
    image::archive(&format!("kill{number}:1"), &layers)
}

/// The check of the daemon: nothing may be wrong.
#[track_caller]
fn assert_all_is_well(api: &Api, when: &str) {
    let answer = api.request("POST", "/ponton/images/check", None).expect(200);
    let text = answer.text();
    let last: Value = serde_json::from_str(text.lines().last().expect("a report")).expect("JSON");
    let problems = last["aux"]["Problems"].as_array();
    assert!(problems.is_some_and(Vec::is_empty), "{when}: {text}");
}

#[test]
fn killed_at_random_moments_of_work_on_images() {
    let kills = number("PONTON_KILLS", 100);
    let seed = number("PONTON_SEED", 0x5EED);
    let mut daemon = Daemon::start();
    // What a container uses is not pruned.
    daemon.ponton(&["create", "--name", "user", "busybox"]).ok();
    let registry = Registry::open(&daemon.namespace());
    for number in 0..IMAGES {
        let file = daemon.path("kill.tar");
        fs::write(&file, archive(number)).expect("write an archive");
        let to = format!("docker://{}", registry.reference(&format!("kill{number}:1")));
        registry.skopeo(&["copy", &format!("docker-archive:{}", file.display()), &to]).ok();
    }
    let work = Arc::new(Work {
        api: daemon.api(),
        registry: registry.address(),
        archive: archive(IMAGES),
        pause: RwLock::new(()),
        is_over: AtomicBool::new(false),
        done: Default::default(),
    });
    let before = stored(&daemon);
    // A daemon lives as long as four pulls take at most, so that some of the three at a time come to their end.
    let begin = Instant::now();
    assert!(work.perform(0, 0), "a pull without disturbance");
    let window_ms = u64::try_from(4 * begin.elapsed().as_millis()).expect("not long").clamp(100, 8000);
    let workers: Vec<_> = (0..3)
        .map(|worker| {
            let work = work.clone();
            std::thread::spawn(move || work.until_over(Random::new(seed ^ (worker + 1) << 20)))
        })
        .collect();
    let mut random = Random::new(seed);
    let mut kill = 0;
    // On a machine where nothing comes to its end in time, more kills give it the time.
    while kill < kills || (kill < 5 * kills && !work.has_done_all()) {
        kill += 1;
        std::thread::sleep(Duration::from_millis(random.next(window_ms)));
        daemon.kill_and_restart();
        if kill % 20 == 0 {
            let _paused = work.pause.write().expect("pause");
            assert_all_is_well(&work.api, &format!("after {kill} kills"));
        }
    }
    work.is_over.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.join().expect("worker");
    }
    let done = work.done.each_ref().map(|count| count.load(Ordering::Relaxed));
    println!("{kill} kills within {window_ms} ms each; {OPERATIONS:?}: {done:?}");
    assert!(work.has_done_all(), "the load was too light to prove anything: {done:?}");

    // The work can be done again, and its results are whole.
    for number in 0..IMAGES {
        assert!(work.perform(0, number), "pull {number}");
    }
    assert!(work.perform(1, 0), "load");
    assert_all_is_well(&work.api, "after it was done again");
    for number in 0..IMAGES {
        assert!(work.perform(2, number), "remove {number}");
    }
    assert!(work.perform(3, 0), "prune");
    assert_all_is_well(&work.api, "at the end");
    let begin = Instant::now();
    while stored(&daemon) != before && begin.elapsed() < wait::PATIENCE {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(stored(&daemon), before, "left behind, or gone");
    assert_eq!(daemon.ponton(&["run", "--rm", "busybox", "echo", "alive"]).ok(), "alive");
}

/// How many entries each directory of the store has, and which: equal before and after.
fn stored(daemon: &Daemon) -> Vec<String> {
    let mut found = Vec::new();
    for directory in ["content/blobs/sha256", "content/ingest", "snapshots/overlay", "tmp"] {
        let path = daemon.path(&format!("data/{directory}"));
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            // Numbers of snapshots go up; how many there are says enough.
            let is_number = name.chars().all(|c| c.is_ascii_digit());
            found.push(format!("{directory}/{}", if is_number { "n" } else { &name }));
        }
    }
    found.sort();
    found
}
