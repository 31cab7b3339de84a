//! The OCI Runtime Specification, statement by statement, as far as it can be tested here. As root.
//!
//! ```text
//! cargo test -p ponton-runtime --test conformance [-- PART OF A NAME]...    (`resources: `: a chapter)
//! ```
//!
//! Each [`Statement`] is one sentence of the specification (1.2) or one field of config.json whose
//! effect is seen from inside of a container. The last line printed has the counts.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test program")]
#![allow(
    clippy::needless_pass_by_value,
    clippy::type_complexity,
    reason = "rows read best with values in them"
)]

#[path = "../fixture/mod.rs"]
mod fixture;

mod devices;
mod hooks;
mod lifecycle;
mod linux;
mod mounts;
mod namespaces;
mod process;
mod resources;
mod seccomp;

use std::panic::{catch_unwind, panic_any, set_hook};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use fixture::{Bundle, stdout};
use serde_json::{Value, json};

/// A statement of the specification, and what must hold when it is kept to.
struct Statement {
    /// The document and its section.
    part: &'static str,
    /// What it says, shortened.
    says: &'static str,
    /// Panics where it does not hold; [`skip`]s where this host cannot tell.
    check: fn(),
}

/// The statements, by the part of a configuration or of a container's life that they are about.
const CHAPTERS: [(&str, &[Statement]); 9] = [
    ("lifecycle", lifecycle::ALL),
    ("process", process::ALL),
    ("mounts", mounts::ALL),
    ("namespaces", namespaces::ALL),
    ("devices", devices::ALL),
    ("seccomp", seccomp::ALL),
    ("linux", linux::ALL),
    ("resources", resources::ALL),
    ("hooks", hooks::ALL),
];

/// Why a statement is not tested here.
struct Skipped(String);

enum Outcome {
    Passed,
    Skipped(String),
    Failed(String),
}

fn skip(why: impl Into<String>) -> ! {
    panic_any(Skipped(why.into()))
}

/// Runs a script in a container of a changed spec, and gives what it printed.
fn inside(script: &str, change: impl FnOnce(&mut Value)) -> String {
    let bundle = Bundle::new(|spec| {
        spec["process"]["args"] = json!(["sh", "-c", script]);
        change(spec);
    });
    stdout(&bundle.run()).trim_end().to_owned()
}

/// A spec that must be refused, by an error that names a field; nothing may be left of it.
fn refused(field: &str, change: impl FnOnce(&mut Value)) {
    let bundle = Bundle::new(|spec| {
        spec["process"]["args"] = json!(["true"]);
        change(spec);
    });
    let output = bundle.run();
    assert!(!output.status.success(), "it was accepted");
    let told = fixture::stderr(&output);
    assert!(told.contains(field), "{field} is not named in: {told}");
}

/// A container that sleeps, created and started.
fn running(change: impl FnOnce(&mut Value)) -> Bundle {
    let bundle = created(change);
    let started = bundle.command(&["start", &bundle.id]);
    assert!(started.status.success(), "{started:?}");
    bundle
}

fn created(change: impl FnOnce(&mut Value)) -> Bundle {
    let bundle = Bundle::new(|spec| {
        spec["process"]["args"] = json!(["sleep", "1000"]);
        change(spec);
    });
    let created = bundle.create();
    assert!(created.status.success(), "{created:?}");
    bundle
}

/// Waits for what another process does.
#[track_caller]
fn wait_for(mut condition: impl FnMut() -> bool) {
    fixture::until("what another process does", || condition().then_some(()));
}

fn check(statement: &Statement) -> Outcome {
    match catch_unwind(statement.check) {
        Ok(()) => Outcome::Passed,
        Err(cause) => match cause.downcast::<Skipped>() {
            Ok(skipped) => Outcome::Skipped(skipped.0),
            Err(cause) => Outcome::Failed(
                cause
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| cause.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                    .unwrap_or_default(),
            ),
        },
    }
}

fn main() -> ExitCode {
    let filter: Vec<_> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let all: Vec<&Statement> = CHAPTERS
        .iter()
        .flat_map(|(chapter, statements)| statements.iter().map(move |statement| (chapter, statement)))
        .filter(|(chapter, Statement { part, says, .. })| {
            let name = format!("{chapter}: {part}: {says}");
            filter.iter().all(|part| name.contains(part.as_str()))
        })
        .map(|(_, statement)| statement)
        .collect();
    set_hook(Box::new(|_| {}));
    let began = Instant::now();
    let outcomes: Mutex<Vec<(usize, Outcome)>> = Mutex::default();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((index, statement)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, all.get(at)?)))
                {
                    let outcome = check(statement);
                    outcomes.lock().unwrap().push((index, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap();
    outcomes.sort_by_key(|(index, _)| *index);
    report(&all, &outcomes, began)
}

fn report(all: &[&Statement], outcomes: &[(usize, Outcome)], began: Instant) -> ExitCode {
    let (mut skipped, mut failed) = (0, 0);
    for (index, outcome) in outcomes {
        let Statement { part, says, .. } = all[*index];
        match outcome {
            Outcome::Passed => {}
            Outcome::Skipped(why) => {
                skipped += 1;
                println!("skip  {part}: {says} ({why})");
            }
            Outcome::Failed(why) => {
                failed += 1;
                println!("FAIL  {part}: {says}\n      {}", why.replace('\n', "\n      "));
            }
        }
    }
    let passed = outcomes.len() - skipped - failed;
    let seconds = began.elapsed().as_secs_f32();
    println!(
        "conformance: {} statements: {passed} passed, {failed} failed, {skipped} skipped ({seconds:.1} s)",
        outcomes.len()
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
