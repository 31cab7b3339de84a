//! The API under requests by the thousand, made from its published definition (`scripts/fuzz-api/fuzz.py`): no status
//! over 499 but 501, no stuck request, no panic, and nothing is left in the daemon or on the host.
//!
//! `scripts/fuzz-api.sh` runs it, for as long as it is told.
#![allow(clippy::expect_used, reason = "a test program")]

use std::fs;
use std::path::Path;
use std::process::Command;

use ponton_testkit::random::number;
use ponton_testkit::{Daemon, image, leak, wait};

/// Debian's package golang-github-docker-docker-dev.
const DEFINITION: &str = "/usr/share/gocode/src/github.com/docker/docker/api/swagger.yaml";

#[test]
#[ignore = "scripts/fuzz-api.sh runs it"]
fn requests_made_from_the_definition() {
    let seconds = number("PONTON_FUZZ_SECONDS", 60);
    let seed = number("PONTON_SEED", 0x5EED);
    println!("seed {seed}");
    let definition = std::env::var("PONTON_DEFINITION").unwrap_or_else(|_| DEFINITION.to_owned());
    let project = image::project();
    let python = project.join(".cache/clients/schemathesis/bin/python");
    assert!(python.exists() && Path::new(&definition).exists(), "run scripts/install-deps.sh fuzz-api");
    let mut daemon = Daemon::start();
    let fuzz = |seconds: u64| {
        let mut command = Command::new(&python);
        command
            .arg(project.join("scripts/fuzz-api/fuzz.py"))
            .arg(daemon.path("run/ponton.sock"))
            .arg(&definition);
        // What schemathesis and hypothesis keep goes with the test's directory.
        command.args([seconds.to_string(), seed.to_string()]).current_dir(daemon.path(""));
        command.output().expect("fuzz.py")
    };
    // What is made once (pools, caches) is no leak.
    fuzz(seconds.min(20));
    remove_all(&daemon);
    let before = held(&daemon);
    let ran = fuzz(seconds);
    let told = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
    println!("{told}");
    let ids = remove_all(&daemon);
    println!("before: {before:?}, after: {:?}", held(&daemon));
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    wait::until("descriptors to be closed", || {
        (held(&daemon).descriptors <= before.descriptors + 32).then_some(())
    });
    let after = held(&daemon);
    assert!(after.pss < before.pss + (48 << 20), "memory: {before:?}, {after:?}");
    assert!(after.tasks <= before.tasks + 32, "threads: {before:?}, {after:?}");
    wait::until("cgroups to be gone", || leak::cgroups_of(&ids).is_empty().then_some(()));
    assert_eq!(leak::mounts_under(&daemon.path("")), Vec::<String>::new());
    let holder = daemon.namespace_pid();
    daemon.stop();
    wait::until("processes to be gone", || {
        daemon.processes().into_iter().all(|pid| pid == holder).then_some(())
    });
    wait::until("links to be gone", || {
        leak::Network::of(holder).links.iter().all(|link| link == "lo").then_some(())
    });
    assert_eq!(leak::Network::of(holder).rules, "");
    assert!(ran.status.success(), "{told}");
}

/// What a daemon holds.
#[derive(Debug)]
struct Held {
    pss: u64,
    descriptors: usize,
    tasks: usize,
}

fn held(daemon: &Daemon) -> Held {
    let pid = daemon.pid();
    let entries = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).expect(what).count();
    Held { pss: leak::pss_bytes(&[pid]), descriptors: entries("fd"), tasks: entries("task") }
}

/// Removes containers, volumes, and images of commits. The answer: ids of the containers.
fn remove_all(daemon: &Daemon) -> Vec<String> {
    let api = daemon.api();
    let listed = api.get("/containers/json?all=1").expect(200).json();
    let ids =
        listed.as_array().expect("a list").iter().filter_map(|one| one["Id"].as_str().map(str::to_owned));
    let ids: Vec<String> = ids.collect();
    for id in &ids {
        api.request("DELETE", &format!("/containers/{id}?force=1&v=1"), None).expect(204);
    }
    api.request("POST", "/volumes/prune?filters=%7B%22all%22%3A%5B%22true%22%5D%7D", None).expect(200);
    api.request("POST", "/images/prune", None).expect(200);
    ids
}
