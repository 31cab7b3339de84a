//! Bodies of requests, read as leniently as Docker does; what was read prints what reads to itself.
#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use ponton_api::json::from_slice;
use ponton_api::{container, exec, volume};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn read<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) {
    let Ok(request) = from_slice::<T>(data) else { return };
    let printed = serde_json::to_vec(&request).unwrap();
    assert_eq!(from_slice::<T>(&printed).unwrap(), request);
}

fuzz_target!(|data: &[u8]| {
    read::<container::CreateRequest>(data);
    read::<container::UpdateRequest>(data);
    read::<exec::ExecCreateRequest>(data);
    read::<exec::ExecStartRequest>(data);
    read::<volume::CreateRequest>(data);
});
