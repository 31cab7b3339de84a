//! Names of images, digests and platforms: what parses prints what parses to itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ponton_oci::digest::Digest;
use ponton_oci::platform::Platform;
use ponton_oci::reference::Reference;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(reference) = Reference::parse(text) {
        assert_eq!(Reference::parse(&reference.familiar()).unwrap(), reference);
        assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference);
    }
    if let Ok(reference) = Reference::parse_exact(text) {
        assert_eq!(Reference::parse_exact(&reference.to_string()).unwrap(), reference);
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    if let Ok(platform) = text.parse::<Platform>() {
        assert_eq!(platform.to_string().parse::<Platform>().unwrap(), platform);
    }
});
