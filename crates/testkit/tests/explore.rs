//! `ponton image explore`: the screen, the verdict of CI and the JSON, of an image that wastes.
#![allow(clippy::expect_used, reason = "a test program")]

use ponton_testkit::tar::Tar;
use ponton_testkit::{Daemon, Terminal, daemon, image};

/// An image whose second layer writes a file anew and removes another.
fn with_waste(daemon: &Daemon) {
    let layers = [
        Tar::default().directory("etc").file("etc/big", "x".repeat(6_000)).file("etc/old", "y").finish(),
        Tar::default().file("etc/big", "z".repeat(6_000)).file("etc/.wh.old", "").finish(),
    ];
    let archive = image::archive("waste:1", &layers);
    daemon::run(&mut daemon.client("ponton", &["load"]), &archive).ok();
}

#[test]
fn programs_get_a_verdict_and_json() {
    let daemon = Daemon::start_empty(&[]);
    with_waste(&daemon);
    let judged = daemon.ponton(&["image", "explore", "--ci", "waste:1"]);
    assert_eq!(judged.code, 1, "{}{}", judged.stdout, judged.stderr);
    assert!(judged.stdout.contains("FAIL: highestUserWastedPercent"), "{}", judged.stdout);
    assert!(judged.stdout.contains("/etc/big"), "{}", judged.stdout);
    let rules = daemon.path("rules");
    std::fs::write(
        &rules,
        "rules:\n  lowestEfficiency: 0.1\n  highestUserWastedPercent: disabled\n  highestWastedBytes: 1MB\n",
    )
    .expect("write");
    let rules = rules.to_string_lossy();
    let judged = daemon.ponton(&["image", "explore", "--ci", "--ci-config", &rules, "waste:1"]);
    assert_eq!(judged.code, 0, "{}{}", judged.stdout, judged.stderr);
    assert!(judged.stdout.contains("Result:PASS"), "{}", judged.stdout);

    let json = daemon.ponton(&["image", "explore", "--json", "waste:1"]).ok();
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["image"]["sizeBytes"], 12_001);
    assert_eq!(json["image"]["fileReference"][0]["file"], "/etc/big");
    assert_eq!(json["image"]["fileReference"][0]["sizeBytes"], 12_000);
    assert_eq!(json["layer"].as_array().map(Vec::len), Some(2));
}

#[test]
fn people_walk_through_layers_and_files() {
    let daemon = Daemon::start_empty(&[]);
    with_waste(&daemon);
    let mut client = daemon.client("ponton", &["image", "explore", "waste:1"]);
    client.env_remove("CI");
    let mut terminal = Terminal::spawn(&client);
    terminal.expect("Current Layer Contents");
    terminal.expect("── big");
    // The second layer, and there the removed file.
    terminal.send("\x1b[B");
    terminal.expect("\x1b[31m");
    terminal.expect("── old");
    terminal.send("/big");
    terminal.expect("Filter: big");
    terminal.send("\rq");
    assert_eq!(terminal.end(), 0);
}
