//! Bytes as text in headers (RFC 4648).

use base64::Engine as _;
use base64::alphabet::URL_SAFE as URL_ALPHABET;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};

/// Clients write the last digits with padding or without, and bits that mean nothing.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_ALPHABET,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The standard alphabet, with padding.
pub fn encode(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// The alphabet for URLs, with padding: how credentials are written in `X-Registry-Auth`.
pub fn encode_url(bytes: &[u8]) -> String {
    BASE64_URL_SAFE.encode(bytes)
}

/// Reads both alphabets, with padding or without; `None` for what is neither.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    LENIENT.decode(text.replace('+', "-").replace('/', "_")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_and_both_alphabets() {
        for (plain, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob>?", "Zm9vYj4/")]
        {
            assert_eq!(encode(plain.as_bytes()), encoded);
            assert_eq!(decode(encoded).as_deref(), Some(plain.as_bytes()));
            assert_eq!(decode(&encode_url(plain.as_bytes())).as_deref(), Some(plain.as_bytes()));
        }
        assert_eq!(decode("Zm8").as_deref(), Some(&b"fo"[..]));
        for nonsense in ["Z", "Zm9v!", "Zg==Zg=="] {
            assert_eq!(decode(nonsense), None, "{nonsense}");
        }
    }
}
