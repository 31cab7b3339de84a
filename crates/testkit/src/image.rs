//! Images: of root file systems that `scripts/make-images.sh` makes of Debian's packages, and by hand.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::json;

use crate::tar::{self, Tar};

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

/// A docker-archive of an image with these layers, the lowest first.
pub fn archive(name: &str, layers: &[Vec<u8>]) -> Vec<u8> {
    let digests: Vec<String> = layers.iter().map(|layer| tar::sha256(layer)).collect();
    let diff_ids: Vec<String> = digests.iter().map(|digest| format!("sha256:{digest}")).collect();
    let config = json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["true"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let names: Vec<String> = digests.iter().map(|digest| format!("{digest}.tar")).collect();
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": names}]);
    let mut archive = Tar::default().file("config.json", config.to_string());
    for (name, layer) in names.iter().zip(layers) {
        archive = archive.file(name, layer);
    }
    archive.file("manifest.json", manifest.to_string()).finish()
}
