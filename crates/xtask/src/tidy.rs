//! The floors of the house, checked from `cargo metadata`; and its largest files and functions, so that they are seen.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde_json::Value;

/// The floor of each crate: a crate uses only lower ones, `client`, `compose` and `cli` are a staircase of their own.
const FLOORS: &[(&str, u32)] = &[
    ("oci", 0),
    ("api", 0),
    ("sys", 0),
    ("cgroup", 1),
    ("store", 1),
    ("archive", 1),
    ("client", 1),
    ("runtime", 2),
    ("snapshot", 2),
    ("network", 2),
    ("registry", 2),
    ("compose", 2),
    ("image", 3),
    ("cli", 3),
    ("build", 4),
    ("engine", 5),
    ("cluster", 6),
    ("server", 7),
    ("ponton", 8),
    ("testkit", 9),
    ("xtask", 10),
];

/// What the command line must never see, though it stands higher.
const HIDDEN_FROM_CLIENTS: &[&str] =
    &["engine", "runtime", "store", "snapshot", "network", "image", "cgroup", "sys"];

pub(crate) fn run() -> ExitCode {
    let mut complaints = floors();
    complaints.extend(unsafe_outside_sys());
    largest();
    for complaint in &complaints {
        eprintln!("tidy: {complaint}");
    }
    if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn floors() -> Vec<String> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .output()
        .expect("cargo metadata");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata");
    let floors: BTreeMap<&str, u32> = FLOORS.iter().copied().collect();
    let mut complaints = Vec::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = short(package["name"].as_str().expect("name"));
        let Some(floor) = floors.get(name) else {
            complaints.push(format!(
                "crate {name} has no floor: give it one in xtask/src/tidy.rs and ARCHITECTURE.md"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let used = dependency["name"].as_str().expect("name");
            let Some(used_floor) = used.starts_with("ponton").then(|| floors.get(short(used))).flatten()
            else {
                continue;
            };
            let used = short(used);
            // Tests of any floor may use the harness, which uses none.
            let is_harness = dependency["kind"] == "dev" && used == "testkit";
            if used_floor >= floor && !is_harness {
                complaints.push(format!("{name} (floor {floor}) uses {used} (floor {used_floor})"));
            }
            if ["client", "compose", "cli"].contains(&name) && HIDDEN_FROM_CLIENTS.contains(&used) {
                complaints.push(format!("{name} is a client and uses {used}, which is the daemon's"));
            }
        }
    }
    complaints
}

fn short(name: &str) -> &str {
    name.strip_prefix("ponton-").unwrap_or(name)
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![PathBuf::from("crates")];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found
}

fn unsafe_outside_sys() -> Vec<String> {
    let allows = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.contains("allow(unsafe_code")
            && !path.starts_with("crates/sys")
            && !path.starts_with("crates/xtask")
    };
    sources()
        .iter()
        .filter(|p| allows(p))
        .map(|p| format!("{} allows unsafe code: only sys may", p.display()))
        .collect()
}

fn largest() {
    let mut files: Vec<(usize, PathBuf)> = Vec::new();
    let mut functions: Vec<(usize, String)> = Vec::new();
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap_or_default();
        files.push((text.lines().count(), path.clone()));
        functions.extend(function_lengths(&path, &text));
    }
    files.sort_by(|a, b| b.cmp(a));
    functions.sort_by(|a, b| b.cmp(a));
    println!("largest files");
    for (lines, path) in files.iter().take(8) {
        println!("{lines:6}  {}", path.display());
    }
    println!("longest functions");
    for (lines, name) in functions.iter().take(8) {
        println!("{lines:6}  {name}");
    }
}

/// Functions as rustfmt writes them: from the line of `fn` to the closing brace at the same depth.
fn function_lengths(path: &Path, text: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let Some(position) = line.find("fn ") else { continue };
        if line.trim_start().starts_with("//") || !line[..position].split_whitespace().all(is_qualifier) {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let closing = format!("{}}}", " ".repeat(indent));
        if let Some(length) = lines[number..].iter().position(|l| **l == *closing) {
            let name = line[position + 3..].split(['(', '<']).next().unwrap_or_default();
            found.push((length + 1, format!("{}: {name}", path.display())));
        }
    }
    found
}

fn is_qualifier(word: &str) -> bool {
    word.starts_with("pub") || ["async", "const", "unsafe", "extern"].contains(&word)
}
