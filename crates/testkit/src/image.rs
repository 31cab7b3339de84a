//! Root file systems that `scripts/make-images.sh` makes of Debian's packages.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The project's folder.
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the project's folder")
}

/// The tar of a busybox root file system.
pub fn busybox() -> PathBuf {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let script = project().join("scripts/make-images.sh");
        let status = Command::new(script).arg("busybox").status().expect("run make-images.sh");
        assert!(status.success(), "make-images.sh busybox: {status}");
        project().join(".cache/images/busybox.tar")
    })
    .clone()
}
