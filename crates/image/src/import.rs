//! An image from a root file system.

use std::io::Read;

use ponton_oci::digest::ImageId;
use ponton_oci::image_config::{History, ImageConfig};
use ponton_oci::platform::Platform;

use crate::commit::{created_at, to_json};
use crate::layer::Stack;
use crate::{Images, ImportOptions, Result, change};

impl Images {
    /// Makes an image of one layer from a root file system's tar, compressed or not. On an error
    /// nothing stays behind.
    pub fn import(&self, input: &mut (dyn Read + Send), options: &ImportOptions) -> Result<ImageId> {
        // What is wrong with the request is said before the stream is read.
        let mut config = ImageConfig::default();
        change::apply(&options.changes, &mut config.config)?;
        let created_at = created_at(&options.created)?;
        let layer = self.unpack(input, "root file system", &mut |_| {})?;
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        let comment = (!options.message.is_empty()).then(|| options.message.clone());
        config.created = Some(options.created.clone());
        config.architecture = platform.architecture;
        config.os = platform.os;
        config.variant = (!platform.variant.is_empty()).then_some(platform.variant);
        config.comment.clone_from(&comment);
        config.rootfs.diff_ids.push(layer.info.diff_id.clone());
        config.history.push(History { created: config.created.clone(), comment, ..History::default() });
        let raw = to_json(&config)?;
        let mut stack = Stack::default();
        stack.push(layer.info, Some(layer.writer));
        let references: Vec<_> = options.reference.iter().cloned().collect();
        let _guard = self.exclusive();
        self.commit(stack, &raw, created_at, &references, created_at)
    }
}

/// RFC 3339 as nanoseconds since the epoch.
pub(crate) fn nanoseconds(time: &str) -> Option<i64> {
    let timestamp: jiff::Timestamp = time.parse().ok()?;
    i64::try_from(timestamp.as_nanosecond()).ok()
}
