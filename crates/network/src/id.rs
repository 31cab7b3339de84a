//! Random ids.

use std::fmt::Write as _;

/// 64 hex digits, as Docker's ids have.
pub(crate) fn random() -> String {
    bytes::<32>().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// One random byte.
pub(crate) fn byte() -> u8 {
    bytes::<1>()[0]
}

fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        let flags = rustix::rand::GetRandomFlags::empty();
        // Only a signal interrupts it.
        filled += rustix::rand::getrandom(&mut bytes[filled..], flags).unwrap_or(0);
    }
    bytes
}
