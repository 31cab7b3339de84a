//! A layer's archive: nothing that it says leaves the root, and no input makes the applier panic.
//!
//! The root is a directory in a scratch directory that holds one more file; that file must stay as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ponton_archive::apply::{Applier, Options, Whiteouts};
use ponton_archive::compression::Decoder;
use ponton_sys::path::Root;

fuzz_target!(|data: &[u8]| {
    let scratch = tempfile::tempdir_in("/dev/shm").unwrap();
    let outside = scratch.path().join("outside");
    std::fs::write(&outside, "untouched").unwrap();
    let inside = scratch.path().join("root");
    std::fs::create_dir(&inside).unwrap();
    let Ok(decoder) = Decoder::new(data) else { return };
    let options = Options { whiteouts: Whiteouts::Remove, ..Options::default() };
    let mut applier = Applier::new(Root::open(&inside).unwrap(), options).unwrap();
    // A small file may unpack to a large tree: what a fuzzer waits for is bounded here.
    let limited = std::io::Read::take(decoder, 1 << 20);
    let _ = applier.apply(std::io::BufReader::new(limited), None);
    assert_eq!(std::fs::read(&outside).unwrap(), b"untouched");
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 2);
});
