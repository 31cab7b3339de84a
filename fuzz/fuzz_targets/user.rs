//! `USER` of an image, and the passwd and group files that it is looked up in.
//!
//! The input is the three, with zero bytes between.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use ponton_runtime::user::{home, resolve};
use ponton_sys::path::Root;

const ID_MAX: u32 = i32::MAX as u32;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let (Some(spec), Some(passwd), Some(group)) = (parts.next(), parts.next(), parts.next()) else { return };
    let Ok(spec) = std::str::from_utf8(spec) else { return };
    let scratch = tempfile::tempdir_in("/dev/shm").unwrap();
    let etc = scratch.path().join("etc");
    fs::create_dir(&etc).unwrap();
    fs::write(etc.join("passwd"), passwd).unwrap();
    fs::write(etc.join("group"), group).unwrap();
    let root = Root::open(scratch.path()).unwrap();
    let Ok(user) = resolve(&root, spec) else { return };
    assert!(user.uid <= ID_MAX && user.gid <= ID_MAX);
    assert!(user.additional_gids.iter().all(|gid| *gid <= ID_MAX));
    assert!(!user.home.is_empty());
    assert!(!home(&root, user.uid).unwrap().is_empty());
});
