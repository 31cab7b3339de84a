//! Debian's dockerd and podman with `ponton-runtime` as their OCI runtime.

use std::process::Command;

use ponton_testkit::daemon::{binaries, run};
use ponton_testkit::image;

#[test]
fn dockerd_and_podman_work_as_with_runc() {
    let script = image::project().join("scripts/drop-in.sh");
    let ran = run(Command::new(script).arg(binaries().join("ponton-runtime")), b"");
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
}
