//! Manifests and indexes from outside: no document is both.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ponton_oci::index::Index;
use ponton_oci::manifest::Manifest;

fuzz_target!(|data: &[u8]| {
    let (manifest, index) = (Manifest::from_slice(data), Index::from_slice(data));
    assert!(manifest.is_err() || index.is_err());
    if let Ok(manifest) = manifest {
        assert_eq!(Manifest::from_slice(&serde_json::to_vec(&manifest).unwrap()).unwrap(), manifest);
    }
    if let Ok(index) = index {
        assert_eq!(Index::from_slice(&serde_json::to_vec(&index).unwrap()).unwrap(), index);
    }
});
