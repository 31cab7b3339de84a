//! What registries want to be shown: nothing is made up, and every text comes to an end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ponton_registry::challenge;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let challenges = challenge::parse(text);
    let parts = challenges.iter().flat_map(|challenge| {
        let parameters = challenge.parameters.iter().map(|(name, value)| name.len() + value.len());
        parameters.chain([challenge.scheme.len()])
    });
    assert!(parts.sum::<usize>() <= text.len());
    assert!(challenges.iter().all(|challenge| !challenge.scheme.is_empty()));
});
