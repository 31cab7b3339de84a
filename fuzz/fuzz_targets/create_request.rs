//! The body of a create request, read as leniently as Docker does.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ponton_api::container::CreateRequest;

fuzz_target!(|data: &[u8]| {
    let Ok(request) = ponton_api::json::from_slice::<CreateRequest>(data) else { return };
    let printed = serde_json::to_vec(&request).unwrap();
    ponton_api::json::from_slice::<CreateRequest>(&printed).unwrap();
});
