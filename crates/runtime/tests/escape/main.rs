//! The known ways out of a container, each tried for real. As root.
//!
//! `docs/security.md` says for each test which defence it is for; each was seen to fail without it.
#![allow(clippy::unwrap_used, reason = "a test program")]
#![allow(clippy::type_complexity, reason = "rows read best with values in them")]

#[path = "../fixture/mod.rs"]
mod fixture;

mod binary;
mod descriptors;
mod kernel;
mod paths;
mod rights;
mod terminals;
mod windows;

use std::fs;
use std::path::Path;

use tempfile::TempDir;

/// A directory of the host that nothing must reach, with one file.
fn outside() -> TempDir {
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("file"), "outside").unwrap();
    outside
}

#[track_caller]
fn assert_untouched(outside: &Path) {
    let names: Vec<_> = fs::read_dir(outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["file"]);
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "outside");
}
