//! A seccomp policy: it is compiled to a program that the kernel would take, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ponton_oci::runtime::Seccomp;
use ponton_runtime::seccomp::{compile, native};

fuzz_target!(|data: &[u8]| {
    let Ok(policy) = serde_json::from_slice::<Seccomp>(data) else { return };
    let Ok(program) = compile(&policy, native()) else { return };
    assert_eq!(program.len() % 8, 0);
    assert!(program.len() / 8 <= 4096, "the kernel takes 4096 instructions");
});
