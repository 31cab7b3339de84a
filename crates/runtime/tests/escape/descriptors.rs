//! Descriptors of the host, and working directories outside of the root (CVE-2024-21626).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use serde_json::json;

use crate::fixture::{Bundle, stderr, stdout, without_namespace};
use crate::outside;

/// Runs the command with descriptor 7 open on a directory of the host, as a careless caller does.
fn with_leak(bundle: &Bundle, directory: &std::path::Path, args: &[&str]) -> Output {
    let mut command = Command::new("sh");
    command.args(["-c", "exec 7< \"$0\"; exec \"$@\""]).arg(directory);
    let prepared = bundle.prepare(args);
    command.arg(prepared.get_program()).args(prepared.get_args());
    bundle.finish(&mut command)
}

/// A program of the host's that no container has.
fn program_outside() -> tempfile::TempDir {
    let outside = outside();
    let program = outside.path().join("file");
    fs::copy("/bin/busybox", &program).unwrap();
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    outside
}

/// The error is the runtime's, not busybox's that has no such program.
#[track_caller]
fn assert_not_executed(output: &Output) {
    assert!(!output.status.success() && stderr(output).starts_with("ponton-runtime: exec"), "{output:?}");
}

#[test]
fn no_descriptor_of_the_host_is_left_in_the_container() {
    let bundle = Bundle::script("ls /proc/self/fd");
    let outside = outside();
    let output = with_leak(&bundle, outside.path(), &["run", "--bundle", bundle.path_text(), &bundle.id]);
    // The third is the directory that is being read.
    assert_eq!(stdout(&output), "0\n1\n2\n3\n");
    bundle.assert_nothing_left();
}

#[test]
fn no_program_is_taken_through_a_descriptor() {
    let outside = program_outside();
    for number in 3..40 {
        let program = format!("/proc/self/fd/{number}/file");
        let bundle = Bundle::new(|spec| spec["process"]["args"] = json!([program, "true"]));
        let output = with_leak(&bundle, outside.path(), &["run", "--bundle", bundle.path_text(), &bundle.id]);
        assert_not_executed(&output);
        bundle.assert_nothing_left();
    }
}

#[test]
fn no_further_program_is_taken_through_a_descriptor() {
    let outside = program_outside();
    let bundle = Bundle::new(|spec| spec["process"]["args"] = json!(["sleep", "1000"]));
    assert!(bundle.create().status.success());
    assert!(bundle.command(&["start", &bundle.id]).status.success());
    for number in 3..40 {
        let program = format!("/proc/self/fd/{number}/file");
        let output = with_leak(&bundle, outside.path(), &["exec", &bundle.id, &program, "true"]);
        assert_not_executed(&output);
        let directory = format!("/proc/self/fd/{number}");
        let output = with_leak(&bundle, outside.path(), &["exec", "--cwd", &directory, &bundle.id, "true"]);
        assert!(!output.status.success(), "{number}");
    }
}

#[test]
fn a_working_directory_is_not_a_descriptor() {
    let outside = outside();
    for number in 3..40 {
        let bundle = Bundle::new(|spec| spec["process"]["cwd"] = json!(format!("/proc/self/fd/{number}")));
        let output = with_leak(&bundle, outside.path(), &["run", "--bundle", bundle.path_text(), &bundle.id]);
        assert!(!output.status.success(), "{number}");
        assert!(stderr(&output).contains("process.cwd"), "{number}: {output:?}");
        bundle.assert_nothing_left();
    }
}

#[test]
fn a_working_directory_is_inside_of_the_root() {
    // Where the host's processes are seen, their directories have names.
    let directory = outside();
    let bundle = Bundle::new(|spec| {
        without_namespace(spec, "pid");
        spec["process"]["cwd"] =
            json!(format!("/proc/{}/root{}", std::process::id(), directory.path().display()));
        spec["process"]["args"] = json!(["cat", "file"]);
    });
    let output = bundle.run();
    assert!(!output.status.success(), "{output:?}");
    assert!(stderr(&output).contains("process.cwd"), "{output:?}");
}
