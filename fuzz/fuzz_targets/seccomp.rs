//! A seccomp policy, of config.json or as Docker writes it: compiled to a program that the kernel would
//! take, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ponton_oci::runtime::Seccomp;
use ponton_runtime::seccomp::{Profile, Target, compile, native};

fn check(policy: &Seccomp) {
    let Ok(program) = compile(policy, native()) else { return };
    assert_eq!(program.len() % 8, 0);
    assert!(program.len() / 8 <= 4096, "the kernel takes 4096 instructions");
}

fuzz_target!(|data: &[u8]| {
    if let Ok(policy) = serde_json::from_slice::<Seccomp>(data) {
        check(&policy);
    }
    if let Ok(profile) = Profile::from_slice(data) {
        for capabilities in [&[][..], &["CAP_SYS_ADMIN".to_owned()]] {
            if let Ok(policy) = profile.policy(Target { capabilities, kernel: (6, 1) }) {
                check(&policy);
            }
        }
    }
});
