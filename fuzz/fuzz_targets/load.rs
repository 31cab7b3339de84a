//! A docker-archive or oci-archive: its images are taken in, and can be explored, saved and loaded again,
//! or it is refused and leaves nothing behind.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use ponton_image::{Images, LoadOptions, SaveOptions};
use ponton_snapshot::{Driver, Snapshots, Trash};
use ponton_store::Store;

fn images(directory: &Path) -> Images {
    let store = Store::open(directory).unwrap();
    let trash = Trash::open(&store.temporary()).unwrap();
    let snapshots = Snapshots::open(&directory.join("snapshots"), Some(Driver::Overlay), trash).unwrap();
    Images::new(store, Arc::new(snapshots))
}

fuzz_target!(|data: &[u8]| {
    let scratch = tempfile::tempdir_in("/dev/shm").unwrap();
    let first = images(&scratch.path().join("first"));
    let options = LoadOptions::default();
    let Ok(loaded) = first.load(&mut &data[..], &options, &mut |_| {}) else {
        // Images that were complete before the error stay, and nothing else does.
        if first.list().unwrap().is_empty() {
            assert!(first.snapshotter().layers().is_empty());
        }
        return;
    };
    let names: Vec<String> = loaded.iter().map(|image| image.id.to_string()).collect();
    for name in &names {
        let _ = first.explore(name, true);
    }
    let mut saved = Vec::new();
    first.save(&names, &SaveOptions::default(), &mut saved).unwrap();
    let second = images(&scratch.path().join("second"));
    let again = second.load(&mut saved.as_slice(), &options, &mut |_| {}).unwrap();
    assert!(loaded.iter().all(|image| again.iter().any(|other| other.id == image.id)));
});
