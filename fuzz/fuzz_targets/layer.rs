//! A layer as images unpack it: what the recipe and the tree rebuild is the archive, byte for byte.
#![no_main]

use std::fs::{File, create_dir};
use std::io::Write;

use libfuzzer_sys::fuzz_target;
use ponton_archive::apply::{Applier, Options, Whiteouts};
use ponton_archive::recipe::{Recorder, rebuild};
use ponton_sys::path::Root;

fuzz_target!(|data: &[u8]| {
    let layer = tempfile::tempdir_in("/dev/shm").unwrap();
    let directory = layer.path();
    create_dir(directory.join("fs")).unwrap();
    create_dir(directory.join("kept")).unwrap();
    let recipe = File::create(directory.join("recipe")).unwrap();
    let mut recorder = Recorder::new(Box::new(recipe) as Box<dyn Write + Send>).unwrap();
    let kept = File::open(directory.join("kept")).unwrap();
    let options = Options { whiteouts: Whiteouts::Overlay, kept: Some(kept.into()), ..Options::default() };
    let mut applier = Applier::new(Root::open(directory.join("fs")).unwrap(), options).unwrap();
    if applier.apply(data, Some(&mut recorder)).is_err() {
        return;
    }
    recorder.finish().unwrap();
    let mut rebuilt = Vec::new();
    rebuild(directory, &mut rebuilt).unwrap();
    assert_eq!(rebuilt, data);
});
