//! Conflicting operations on one container, asked for by several clients at once, in random rounds: each is answered in
//! time, and answers and state are such as the engine's state machine gives in some order.
//!
//! `PONTON_SECONDS` sets for how long (20 unless told), `PONTON_SEED` the seed: what is asked follows from it alone.
#![allow(clippy::expect_used, reason = "a test program")]

use std::fs;
use std::io::Read;
use std::sync::Barrier;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ponton_testkit::random::{Random, number};
use ponton_testkit::{Answer, Api, Daemon, wait};
use serde_json::json;

#[path = "conflict/model.rs"]
mod model;
use model::{Operation, World};

/// The longest that anything may take.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn operations_at_once_end_in_a_legal_state() {
    let seconds = number("PONTON_SECONDS", 20);
    let seed = number("PONTON_SEED", 0x5EED);
    println!("PONTON_SEED={seed}");
    let daemon = Daemon::start();
    let api = daemon.api();
    let begin = Instant::now();
    let (mut lives, mut rounds) = (0, 0);
    while begin.elapsed() < Duration::from_secs(seconds) || lives < 3 {
        let mut life = ContainersLife::new(&api, lives);
        let mut random = Random::new(seed + (lives << 8));
        while !life.is_over() && life.rounds.len() < 30 {
            let asked = pick(&mut random);
            life.round(&asked);
        }
        rounds += life.rounds.len();
        life.end();
        lives += 1;
    }
    println!("{lives} containers, {rounds} rounds, {} s", begin.elapsed().as_secs());
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

/// Two to four operations; often a start, so that there is something to be in conflict about.
fn pick(random: &mut Random) -> Vec<Operation> {
    let count = 2 + random.next(3);
    (0..count)
        .map(|_| match random.next(27) {
            0..=6 => Operation::Start,
            7..=9 => Operation::Stop,
            10..=11 => Operation::Kill,
            12..=13 => Operation::Restart,
            14..=16 => Operation::Pause,
            17..=19 => Operation::Unpause,
            20 => Operation::Remove { force: true },
            21 => Operation::Remove { force: false },
            22 => Operation::Rename,
            23..=24 => Operation::Exec,
            25 => Operation::Update,
            _ => Operation::Wait,
        })
        .collect()
}

/// One container from its creation on.
struct ContainersLife<'a> {
    api: &'a Api,
    id: String,
    /// All that fit what was seen.
    worlds: Vec<World>,
    rounds: Vec<String>,
    waits: Vec<JoinHandle<Answer>>,
}

impl<'a> ContainersLife<'a> {
    fn new(api: &'a Api, number: u64) -> Self {
        // Every other ends at SIGTERM; the rest, as first processes do, not until it is killed.
        let command = if number.is_multiple_of(2) {
            "trap 'exit 0' TERM; sleep 1000 & wait"
        } else {
            "exec sleep 1000"
        };
        let body =
            json!({"Image": "busybox", "Cmd": ["sh", "-c", command], "HostConfig": {"Memory": 64 << 20}});
        let made = api.post(&format!("/containers/create?name=conflict{number}"), &body).expect(201).json();
        let id = made["Id"].as_str().expect("an id").to_owned();
        Self { api, id, worlds: vec![World::created()], rounds: Vec::new(), waits: Vec::new() }
    }

    fn is_over(&self) -> bool {
        self.worlds.iter().all(|world| world.status() == "gone")
    }

    /// Asks for all at once; fails unless some order explains the answers and the state.
    fn round(&mut self, asked: &[Operation]) {
        let name = format!("renamed{}-{}", &self.id[..12], self.rounds.len());
        let barrier = Barrier::new(asked.len());
        let outcomes: Vec<(Operation, u16)> = std::thread::scope(|scope| {
            let clients: Vec<_> = asked
                .iter()
                .enumerate()
                .map(|(index, operation)| {
                    let (barrier, name) = (&barrier, format!("{name}-{index}"));
                    let (api, id) = (self.api, &self.id);
                    scope.spawn(move || {
                        barrier.wait();
                        if *operation == Operation::Wait { 0 } else { ask(api, id, *operation, &name) }
                    })
                })
                .collect();
            asked
                .iter()
                .copied()
                .zip(clients.into_iter().map(|client| {
                    client.join().unwrap_or_else(|_| panic!("{asked:?} after\n{}", self.rounds.join("\n")))
                }))
                .collect()
        });
        for _ in asked.iter().filter(|operation| **operation == Operation::Wait) {
            self.wait();
        }
        let status = self.settled_status();
        self.rounds.push(format!("{outcomes:?} -> {status}"));
        let worlds: Vec<World> =
            self.worlds.iter().flat_map(|world| world.explanations(&outcomes, &status)).collect();
        let rounds = self.rounds.join("\n");
        assert!(!worlds.is_empty(), "no order explains the last round of {}:\n{rounds}", self.id);
        self.worlds = worlds;
    }

    /// The state, and that it is true.
    fn settled_status(&self) -> String {
        wait::within(LIMIT, "a state that is true", || {
            let answer = self.api.get(&format!("/containers/{}/json", self.id));
            if answer.status == 404 {
                return Some("gone".to_owned());
            }
            let state = answer.expect(200).json()["State"].clone();
            let status = state["Status"].as_str().expect("a status").to_owned();
            let pid = state["Pid"].as_u64().expect("a pid");
            let is_running = matches!(status.as_str(), "running" | "paused");
            assert_eq!(is_running, pid != 0, "{state}");
            assert_eq!(state["Paused"], status == "paused", "{state}");
            // A process that has ended just now is told of soon.
            let process = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            (!is_running || !(process.is_empty() || process.contains(") Z "))).then_some(status)
        })
    }

    /// Somebody waits for the next end, whenever it comes.
    fn wait(&mut self) {
        let path = format!("/containers/{}/wait?condition=next-exit", self.id);
        let Ok(mut stream) = self.api.open("POST", &path, "Connection: close\r\n", b"") else {
            panic!("no connection for wait");
        };
        stream.set_read_timeout(Some(Duration::from_secs(600))).expect("set a timeout");
        self.waits.push(std::thread::spawn(move || {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).expect("an answer to wait");
            Answer::parse(&all).expect("a whole answer to wait")
        }));
    }

    /// Removes it; all who wait are told.
    fn end(self) {
        let begin = Instant::now();
        let status = self.api.request("DELETE", &format!("/containers/{}?force=1", self.id), None).status;
        let wanted = if self.is_over() { 404 } else { 204 };
        assert_eq!(status, wanted, "the removal of {}:\n{}", self.id, self.rounds.join("\n"));
        for waiting in self.waits {
            let answer = waiting.join().expect("wait");
            assert!(matches!(answer.status, 200 | 404), "{}", answer.text());
        }
        assert!(begin.elapsed() < LIMIT, "the end of {} took {:?}", self.id, begin.elapsed());
    }
}

/// The status of an operation, which must come within the limit.
fn ask(api: &Api, id: &str, operation: Operation, name: &str) -> u16 {
    let begin = Instant::now();
    let post = |what: &str| api.request("POST", &format!("/containers/{id}/{what}"), None).status;
    let status = match operation {
        Operation::Start => post("start"),
        Operation::Stop => post("stop?t=0"),
        Operation::Kill => post("kill"),
        Operation::Restart => post("restart?t=0"),
        Operation::Pause => post("pause"),
        Operation::Unpause => post("unpause"),
        Operation::Rename => post(&format!("rename?name={name}")),
        Operation::Remove { force } => {
            api.request("DELETE", &format!("/containers/{id}?force={force}"), None).status
        }
        Operation::Update => {
            let body = json!({"Memory": 48 << 20, "MemorySwap": 96 << 20});
            api.post(&format!("/containers/{id}/update"), &body).status
        }
        Operation::Exec => exec(api, id),
        Operation::Wait => 0,
    };
    assert!(begin.elapsed() < LIMIT, "{operation:?} of {id} took {:?}", begin.elapsed());
    status
}

/// Makes an exec and starts it. Of the start no more is known than that it is answered: the container may have ended.
fn exec(api: &Api, id: &str) -> u16 {
    let made = api.post(&format!("/containers/{id}/exec"), &json!({"Cmd": ["true"]}));
    if made.status == 201 {
        let exec = made.json()["Id"].as_str().expect("an id").to_owned();
        let started = api.post(&format!("/exec/{exec}/start"), &json!({"Detach": true}));
        assert!(
            matches!(started.status, 200 | 404 | 409),
            "start of an exec: {} {}",
            started.status,
            started.text()
        );
    }
    made.status
}
