//! The key sequence that detaches a client.

/// Looks for the detach keys in what a client types.
#[derive(Debug)]
pub(super) struct DetachKeys {
    sequence: Box<[u8]>,
    matched: usize,
}

impl DetachKeys {
    /// Looks for `sequence`; an empty one is never found.
    pub(super) fn new(sequence: &[u8]) -> Self {
        Self { sequence: sequence.into(), matched: 0 }
    }

    /// Passes `typed` on to `out` up to the sequence; true when it is complete: it, and what
    /// follows it, is not passed on. The beginning of a sequence is held back until it turns out
    /// not to be one.
    pub(super) fn filter(&mut self, typed: &[u8], out: &mut Vec<u8>) -> bool {
        if self.sequence.is_empty() {
            out.extend_from_slice(typed);
            return false;
        }
        for &byte in typed {
            self.step(byte, out);
            if self.matched == self.sequence.len() {
                self.matched = 0;
                return true;
            }
        }
        false
    }

    /// Passes on what is held back: no more will be typed.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.sequence[..self.matched]);
        self.matched = 0;
    }

    /// Takes one byte: what is held back is the longest end of the input that begins the sequence.
    fn step(&mut self, byte: u8, out: &mut Vec<u8>) {
        while self.matched > 0 && self.sequence[self.matched] != byte {
            let held = &self.sequence[..self.matched];
            let shorter = (1..held.len()).find(|&cut| self.sequence.starts_with(&held[cut..]));
            let cut = shorter.unwrap_or(held.len());
            out.extend_from_slice(&held[..cut]);
            self.matched -= cut;
        }
        if self.sequence[self.matched] == byte {
            self.matched += 1;
        } else {
            out.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[u8], pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut detach = DetachKeys::new(keys);
        let mut out = Vec::new();
        for piece in pieces {
            if detach.filter(piece, &mut out) {
                return (out, true);
            }
        }
        detach.end(&mut out);
        (out, false)
    }

    #[test]
    fn the_sequence_is_found_across_reads() {
        assert_eq!(typed(b"\x10\x11", &[b"ls\n\x10", b"\x11rest"]), (b"ls\n".to_vec(), true));
        assert_eq!(typed(b"\x10\x11", &[b"\x10\x11"]), (b"".to_vec(), true));
        assert_eq!(typed(b"q", &[b"abq"]), (b"ab".to_vec(), true));
    }

    #[test]
    fn what_only_began_like_it_is_passed_on() {
        assert_eq!(typed(b"\x10\x11", &[b"\x10", b"x"]), (b"\x10x".to_vec(), false));
        assert_eq!(typed(b"\x10\x11", &[b"\x10\x10", b"\x11"]), (b"\x10".to_vec(), true));
        assert_eq!(typed(b"\x10\x11", &[b"a\x10"]), (b"a\x10".to_vec(), false));
        assert_eq!(typed(b"aab", &[b"aaab"]), (b"a".to_vec(), true));
        assert_eq!(typed(b"abac", &[b"ababac"]), (b"ab".to_vec(), true));
        assert_eq!(typed(b"abac", &[b"abab"]), (b"abab".to_vec(), false));
    }

    #[test]
    fn no_keys_pass_everything() {
        assert_eq!(typed(b"", &[b"\x10\x11"]), (b"\x10\x11".to_vec(), false));
    }
}
