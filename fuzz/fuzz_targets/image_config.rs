//! The configuration of an image from outside.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ponton_oci::image_config::ImageConfig;

fuzz_target!(|data: &[u8]| {
    let Ok(config) = serde_json::from_slice::<ImageConfig>(data) else { return };
    let printed = serde_json::to_vec(&config).unwrap();
    serde_json::from_slice::<ImageConfig>(&printed).unwrap();
});
