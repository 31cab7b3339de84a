//! What `cp` does with a path and an archive from outside: nothing beside the root is made or changed.
//!
//! The input is a path, a zero byte, and an archive. The root has links that lead out of it.
#![no_main]

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use ponton_archive::copy::{self, PutOptions};
use ponton_sys::path::Root;

fuzz_target!(|data: &[u8]| {
    let Some(end) = data.iter().position(|byte| *byte == 0) else { return };
    let path = Path::new(std::ffi::OsStr::from_bytes(&data[..end]));
    let scratch = tempfile::tempdir_in("/dev/shm").unwrap();
    let outside = scratch.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "untouched").unwrap();
    let inside = scratch.path().join("root");
    fs::create_dir_all(inside.join("a/b")).unwrap();
    fs::write(inside.join("a/file"), "contents").unwrap();
    symlink("../../outside", inside.join("a/out")).unwrap();
    symlink(&outside, inside.join("whole")).unwrap();

    let root = Root::open(&inside).unwrap();
    let _ = copy::stat(&root, path);
    if let Ok(source) = copy::get(&root, path) {
        let tar = source.write(Vec::new()).unwrap();
        assert!(!tar.windows(9).any(|bytes| bytes == b"untouched"));
    }
    let options = PutOptions { no_overwrite_dir_non_dir: data.len() % 2 == 0, owner: None };
    let _ = copy::put(&root, path, &data[end + 1..], options);

    assert_eq!(fs::read(outside.join("file")).unwrap(), b"untouched");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 2);
});
