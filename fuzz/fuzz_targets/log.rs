//! Log files: the format `local` at any place, and compressed files.
#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use ponton_runtime::shim::log::{gzip, local};

fuzz_target!(|data: &[u8]| {
    let mut at = 0;
    while let local::Step::Record(record, length) = local::step(&data[at..], at % 2 == 0) {
        assert!(record.text.len() < length);
        at += length;
    }
    for block in data.chunks(local::BLOCK) {
        for (at, record) in local::records(block) {
            assert!(at + local::HEADER + record.text.len() <= block.len());
        }
    }
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(data).expect("write");
    if let Ok(index) = gzip::Index::new(&file) {
        let mut chunk = Vec::new();
        for number in 0..8 {
            let _ = index.read(&file, number, &mut chunk);
            assert!(chunk.len() <= gzip::CHUNK);
        }
    }
});
