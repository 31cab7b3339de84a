//! What holds after all the kills.
#![allow(clippy::expect_used, reason = "a test program")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use ponton_testkit::{Api, wait};

use super::listener::Heard;
use super::{LINES, Told, ToldVolume};

/// What was confirmed holds, and what runs or ended says so truly.
pub(crate) fn containers(api: &Api, told: &BTreeMap<String, Told>, may_be_unknown: bool) {
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
            let code = waited.json()["StatusCode"].as_i64();
            let inspected = api.get(&format!("/containers/{name}/json")).expect(200);
            let is_said =
                inspected.json()["State"]["Error"].as_str().is_some_and(|text| text.contains("was lost"));
            let is_unknown = may_be_unknown && code == Some(255) && is_said;
            assert!(
                code == told.exit_code || is_unknown,
                "{code:?} of {name}, {told:?}: {}",
                inspected.text()
            );
            log(api, name, may_be_unknown);
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

/// Each line once and in order; where nobody was there to read the end, a part of them from the beginning.
fn log(api: &Api, name: &str, may_be_short: bool) {
    let answer = api.get(&format!("/containers/{name}/logs?stdout=1")).expect(200);
    // Each line has a header of eight bytes.
    let mut rest = answer.body.as_slice();
    let mut text = String::new();
    while rest.len() >= 8 {
        let length = u32::from_be_bytes([rest[4], rest[5], rest[6], rest[7]]) as usize;
        text.push_str(&String::from_utf8_lossy(&rest[8..8 + length]));
        rest = &rest[8 + length..];
    }
    let lines: Vec<usize> = text.lines().map(|line| line.parse().expect("a number")).collect();
    let is_in_order = lines.iter().enumerate().all(|(index, line)| index == *line);
    let is_whole = lines.len() == LINES || (may_be_short && lines.len() < LINES);
    assert!(is_in_order && is_whole, "the log of {name}: {lines:?}");
}

/// An exec of a container that is there has ended, with its code or without one.
pub(crate) fn execs(api: &Api, told: &BTreeMap<String, Told>) {
    for (name, id) in told.iter().flat_map(|(name, told)| told.execs.iter().map(move |id| (name, id))) {
        wait::until(&format!("the end of exec {id} of {name}"), || {
            let answer = api.get(&format!("/exec/{id}/json"));
            let state = if answer.status == 200 { answer.json() } else { return Some(()) };
            let code = state["ExitCode"].as_i64();
            assert!(!matches!(code, Some(0..=6 | 8..=124)), "exec {id} of {name}: {state}");
            (state["Running"] == false).then_some(())
        });
    }
}

pub(crate) fn volumes(api: &Api, told: &BTreeMap<String, ToldVolume>) {
    for (name, told) in told {
        let status = api.get(&format!("/volumes/{name}")).status;
        assert!(!told.removed || status == 404, "{name} was removed");
        assert!(!told.made || told.remove_asked || status == 200, "{name} was made: {told:?}");
    }
    println!(
        "{} volumes made and {} removed",
        told.values().filter(|told| told.made).count(),
        told.values().filter(|told| told.removed).count()
    );
}

/// What the event stream told of each container is what happened, and once.
pub(crate) fn events(events: &[Heard], told: &BTreeMap<String, Told>, may_be_unknown: bool) {
    let mut once = BTreeSet::new();
    let mut gone = BTreeSet::new();
    for event in events {
        let Heard { action, id, name, exit_code } = event;
        assert!(!gone.contains(id), "{event:?} after its removal");
        if matches!(action.as_str(), "create" | "destroy") {
            assert!(once.insert((action, id)), "{event:?} comes twice");
        }
        if action == "destroy" {
            gone.insert(id);
        }
        let Some(told) = told.get(name) else { continue };
        if let ("die", Some(wanted), false) = (action.as_str(), told.exit_code, told.remove_asked) {
            let is_unknown = may_be_unknown && *exit_code == Some(255);
            assert!(*exit_code == Some(wanted) || is_unknown, "{event:?}, {told:?}");
        }
    }
    println!(
        "{} events heard, {} of them ends",
        events.len(),
        events.iter().filter(|event| event.action == "die").count()
    );
}
