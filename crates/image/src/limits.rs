//! Bounds of what comes from registries.

/// Bounds of pulls and pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Layers that are fetched at once, by all pulls together.
    pub layers_at_once: usize,
    /// Layers that one push sends at once.
    pub uploads_at_once: usize,
    /// Layers that an image may have; the kernel stacks no more than 500.
    pub layers: usize,
    /// Bytes that one layer may unpack to, whatever its size.
    pub layer_bytes: u64,
    /// How many times larger than its blob a layer may unpack to, beyond the first GiB.
    pub expansion: u64,
    /// Bytes of a configuration.
    pub config_bytes: u64,
    /// Manifests and indexes that one pull may read.
    pub documents: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            layers_at_once: 4,
            uploads_at_once: 5,
            layers: 500,
            layer_bytes: 256 << 30,
            expansion: 200,
            config_bytes: 8 << 20,
            documents: 200,
        }
    }
}

impl Limits {
    /// Bytes that a blob of this size may unpack to.
    pub(crate) fn unpacked_max(&self, blob_size: u64) -> u64 {
        blob_size.saturating_mul(self.expansion).max(1 << 30).min(self.layer_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_blobs_may_grow_and_large_ones_not_without_end() {
        let limits = Limits::default();
        assert_eq!(limits.unpacked_max(1), 1 << 30);
        assert_eq!(limits.unpacked_max(1 << 30), 200 << 30);
        assert_eq!(limits.unpacked_max(u64::MAX), 256 << 30);
    }
}
