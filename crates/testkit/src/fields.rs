//! Fields of requests, each shown on Ponton and on another engine beside it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

/// What a row is to show on Ponton.
#[derive(Clone, Copy, Debug)]
pub enum Expected {
    /// What the other engine shows.
    Same,
    /// This; the other engine has not the field, or shows something else (and why).
    Ours(&'static str),
}

/// One field of a request.
#[derive(Clone, Debug)]
pub struct Row<L> {
    /// Its name in the API's reference, by which `docs/api.md` finds its test.
    pub field: &'static str,
    /// The request, or what is put into one.
    pub body: Value,
    /// What is looked at.
    pub look: L,
    /// What it is to show.
    pub expected: Expected,
}

/// A [`Row`].
pub fn row<L>(field: &'static str, body: Value, look: L, expected: Expected) -> Row<L> {
    Row { field, body, look, expected }
}

/// As many rows are looked at side by side: most of the time goes by waiting.
const WORKERS: usize = 4;

/// Compares what `ours` shows of each row with what is expected of it, which may be what `theirs` shows. Both are
/// given a name that is the row's alone; `told` takes from what is shown what needs not be alike.
pub fn compare<L: Sync>(
    rows: &[Row<L>],
    ours: impl Fn(&Row<L>, &str) -> String + Sync,
    theirs: impl Fn(&Row<L>, &str) -> String + Sync,
    told: impl Fn(&Row<L>, &str) -> String + Sync,
) {
    let failures = Mutex::new(String::new());
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(row) = rows.get(number) else { return };
            let name = format!("row{number}");
            let shown = ours(row, &name);
            let expected = match row.expected {
                Expected::Same => theirs(row, &name),
                Expected::Ours(text) => text.to_owned(),
            };
            if told(row, &shown) != told(row, &expected) {
                let failure =
                    format!("\n--- {} {}\nexpected {expected:?}\nponton   {shown:?}", row.field, row.body);
                failures.lock().expect("the failures").push_str(&failure);
            }
        }
    };
    std::thread::scope(|scope| (0..WORKERS).for_each(|_| drop(scope.spawn(work))));
    println!("{} rows", rows.len());
    let failures = failures.into_inner().expect("the failures");
    assert!(failures.is_empty(), "{failures}");
}
