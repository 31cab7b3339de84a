//! A reference that parses prints what parses to itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ponton_oci::reference::Reference;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(reference) = Reference::parse(text) else { return };
    assert_eq!(Reference::parse(&reference.familiar()).unwrap(), reference);
    assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference);
});
