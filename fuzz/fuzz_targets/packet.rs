//! Packets between daemon and shim: what was read is written as what reads to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ponton_runtime::shim::protocol::{Exit, FromShim, Status, ToShim};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn read<T: Serialize + DeserializeOwned>(data: &[u8]) {
    let Ok(message) = serde_json::from_slice::<T>(data) else { return };
    let written = serde_json::to_vec(&message).unwrap();
    let again: T = serde_json::from_slice(&written).unwrap();
    assert_eq!(serde_json::to_vec(&again).unwrap(), written);
}

fuzz_target!(|data: &[u8]| {
    read::<ToShim>(data);
    read::<FromShim>(data);
    read::<Status>(data);
    read::<Exit>(data);
});
