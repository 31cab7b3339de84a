//! Identifiers: 64 hexadecimal digits of kernel randomness, as Docker's.

use crate::error::{Error, Result};

/// Length of the short form that people type and hosts are named by.
pub(crate) const SHORT: usize = 12;

/// A fresh identifier. Docker never hands out one whose short form is all digits (a host name made
/// of digits confuses DNS libraries), and neither does this.
pub(crate) fn generate() -> Result<String> {
    loop {
        let mut bytes = [0u8; 32];
        let mut filled = 0;
        while filled < bytes.len() {
            filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
                .map_err(|error| Error::failed("read random bytes", error))?;
        }
        let id = hex(&bytes);
        if !short(&id).bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(id);
        }
    }
}

/// The first twelve digits.
pub(crate) fn short(id: &str) -> &str {
    id.get(..SHORT).unwrap_or(id)
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|nibble| char::from(DIGITS[usize::from(nibble)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_64_hex_digits_and_differ() {
        let one = generate().unwrap();
        let two = generate().unwrap();
        assert_eq!(one.len(), 64);
        assert!(one.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(one, two);
        assert_eq!(short(&one), &one[..12]);
    }
}
