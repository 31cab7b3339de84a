//! A layer as an image: the kernel shows of it what it shows of the directory that the same tar becomes.
#![no_main]

use std::fs::{File, create_dir};

use libfuzzer_sys::fuzz_target;
use ponton_archive::apply::{Applier, Options, Whiteouts};
use ponton_archive::erofs;
use ponton_sys::path::Root;

#[path = "../../crates/archive/src/erofs/compare.rs"]
mod compare;

fuzz_target!(|data: &[u8]| {
    // Disks take only some access control lists, and change modes by them.
    if data.windows(9).any(|bytes| bytes == b"posix_acl") {
        return;
    }
    // Images can be mounted from a disk only; the directory is where all times can be kept.
    let disk = tempfile::tempdir().unwrap();
    let image = disk.path().join("image");
    let file = File::options().read(true).write(true).create_new(true).open(&image).unwrap();
    let Ok(written) = erofs::write(data, &file) else { return };
    let mut again = Vec::new();
    erofs::write_tar(&file, &mut again).unwrap();
    assert_eq!(again, data);
    let mounted = compare::mount(&image).unwrap();
    let shown = compare::describe(&compare::path_of(&mounted)).unwrap();
    let layer = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = |name| layer.path().join(name);
    create_dir(path("fs")).unwrap();
    // Replaced files are not kept: they would count as links.
    let options = Options { whiteouts: Whiteouts::Overlay, ..Options::default() };
    let mut applier = Applier::new(Root::open(path("fs")).unwrap(), options).unwrap();
    // What a disk has no room for, an image may have.
    if let Ok(applied) = applier.apply(data, None) {
        assert_eq!(applied, written);
        assert_eq!(compare::describe(&path("fs")).unwrap(), shown);
    }
});
