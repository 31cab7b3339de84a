//! Who listens to the events of containers, and comes back when the daemon was killed.

use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ponton_testkit::Api;
use serde_json::Value;

/// One event of a container.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) action: String,
    pub(crate) id: String,
    pub(crate) name: String,
    /// Of `die`.
    pub(crate) exit_code: Option<i64>,
}

/// Listens until it is told to stop and the connection ends.
pub(crate) fn listen(api: &Api, stop: &AtomicBool) -> Vec<Heard> {
    let mut heard = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let Ok(stream) = api.open("GET", "/events", "", b"") else {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        // Heads, and the lengths of chunks, are no objects.
        let lines = BufReader::new(stream).lines().map_while(Result::ok);
        heard.extend(lines.filter(|line| line.starts_with('{')).filter_map(|line| parse(&line)));
    }
    heard
}

/// A line that a kill has cut is no event.
fn parse(line: &str) -> Option<Heard> {
    let event: Value = serde_json::from_str(line).ok()?;
    if event["Type"] != "container" {
        return None;
    }
    let attributes = &event["Actor"]["Attributes"];
    Some(Heard {
        action: event["Action"].as_str()?.to_owned(),
        id: event["Actor"]["ID"].as_str()?.to_owned(),
        name: attributes["name"].as_str()?.to_owned(),
        exit_code: attributes["exitCode"].as_str().and_then(|code| code.parse().ok()),
    })
}
