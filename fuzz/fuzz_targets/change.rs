//! `--change` of import and commit: instructions of a Dockerfile that change an image's configuration.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ponton_image::change;
use ponton_oci::image_config::ContainerConfig;

fuzz_target!(|text: &str| {
    let mut config = ContainerConfig::default();
    for line in text.split_inclusive("\n\n") {
        let before = config.clone();
        if change::apply(&[line.to_owned()], &mut config).is_err() {
            assert_eq!(config, before, "what is refused changes nothing");
        }
    }
});
