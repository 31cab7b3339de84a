//! The runtime's own file overwritten through `/proc/<pid>/exe` (CVE-2019-5736).

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::StatVfsMountFlags;
use serde_json::json;

use crate::fixture::{Bundle, stderr, until, with_host_programs};

/// Finds a process that executes the runtime, takes its `exe`, lets it end, and writes to it as soon
/// as the kernel lets go of a file that is executed.
const OVERWRITE: &str = r#"
    runs_it() { case $(tr '\0' ' ' < $1/cmdline) in /proc/self/exe*' sleep 1000 ') ;; *) false;; esac; }
    while :; do
        for victim in /proc/[0-9]*; do
            runs_it $victim && head -c 1 $victim/exe > /dev/null && exec 3< $victim/exe && runs_it $victim && break 2
        done
    done 2>/dev/null
    kill -9 ${victim#/proc/}
    while :; do
        message=$( { printf overwritten 1<> /proc/self/fd/3; } 2>&1 ) && exit
        case $message in *busy*) ;; *) echo "$message"; exit;; esac
    done"#;

/// A container with an attacker, and what the runtime needs to run inside of it.
fn attacked() -> Bundle {
    let mut bundle = Bundle::new(|spec| {
        with_host_programs(spec);
        spec["process"]["args"] = json!(["sh", "-c", OVERWRITE]);
    });
    bundle.copy_program();
    bundle
}

/// Starts the attacker, runs the runtime in its container, and looks at the runtime's file.
fn attack(bundle: &Bundle, program: &str) {
    let copy = bundle.path().join("ponton-runtime");
    let before = fs::read(&copy).unwrap();
    let created = bundle.create();
    assert!(created.status.success(), "{created:?}");
    assert!(bundle.command(&["start", &bundle.id]).status.success());
    let exec = ["exec", &bundle.id, program, "init", "--", "sleep", "1000"];
    bundle.command(&exec);
    wait_for(|| bundle.state()["status"] == "stopped" || fs::read(&copy).unwrap() != before);
    assert!(fs::read(&copy).unwrap() == before, "the runtime was overwritten");
    assert!(bundle.written().contains("Read-only file system"), "{}", bundle.written());
}

#[test]
fn the_file_cannot_be_written_by_a_program_that_is_proc_self_exe() {
    attack(&attacked(), "/proc/self/exe");
}

#[test]
fn the_file_cannot_be_written_by_a_script_that_it_interprets() {
    let bundle = attacked();
    let script = bundle.root().join("bin/script");
    fs::write(&script, "#!/proc/self/exe --root\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    attack(&bundle, "/bin/script");
}

#[test]
fn the_first_process_runs_from_where_the_file_cannot_be_written() {
    let bundle = Bundle::new(|spec| {
        with_host_programs(spec);
        spec["process"]["args"] = json!(["/proc/self/exe", "init", "--", "sleep", "1000"]);
    });
    assert!(bundle.create().status.success());
    assert!(bundle.command(&["start", &bundle.id]).status.success());
    let pid = bundle.state()["pid"].as_u64().unwrap();
    wait_for(|| fs::read(format!("/proc/{pid}/cmdline")).unwrap().ends_with(b"sleep\x001000\0"));
    assert_is_read_only(&File::open(format!("/proc/{pid}/exe")).unwrap());
}

#[test]
fn the_shim_runs_from_where_its_file_cannot_be_written() {
    let bundle = attacked();
    let socket = bundle.path().join("socket");
    let mut shim = bundle.prepare(&["shim", "--state-dir", bundle.path_text(), "--socket"]);
    let mut shim = shim.arg(&socket).stdin(Stdio::null()).spawn().unwrap();
    wait_for(|| socket.exists());
    let exe = File::open(format!("/proc/{}/exe", shim.id())).unwrap();
    shim.kill().unwrap();
    shim.wait().unwrap();
    assert_is_read_only(&exe);
    let written = fs::OpenOptions::new().write(true).open("/proc/self/fd/".to_owned() + &number(&exe));
    assert_eq!(written.unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}

#[test]
fn without_the_right_to_mount_it_runs_from_a_sealed_copy() {
    const USER: u32 = 12_345;
    let bundle = attacked();
    let own = |path: &Path| chown(path, Some(USER), Some(USER)).unwrap();
    own(bundle.path());
    own(&bundle.path().join("ponton-runtime"));
    let socket = bundle.path().join("socket");
    let mut shim = bundle.prepare(&["shim", "--state-dir", bundle.path_text(), "--socket"]);
    shim.arg(&socket).stdin(Stdio::null()).stderr(Stdio::null()).uid(USER).gid(USER);
    let mut shim = shim.spawn().unwrap();
    wait_for(|| socket.exists() || shim.try_wait().unwrap().is_some());
    let exe = fs::read_link(format!("/proc/{}/exe", shim.id())).unwrap();
    shim.kill().unwrap();
    shim.wait().unwrap();
    assert!(exe.to_str().unwrap().starts_with("/memfd:ponton-runtime"), "{exe:?}");
}

#[test]
fn it_is_protected_once_and_only_where_it_has_to_be() {
    let bundle = attacked();
    let protections = |inject: &str, args: &[&str]| {
        let mut command = Command::new("strace");
        command.args(["-qq", "-e", "trace=execve,execveat,prctl", "-e", "signal=none", "-e", inject]);
        command.arg(bundle.path().join("ponton-runtime")).arg("--root").arg(bundle.state_root()).args(args);
        let output = bundle.finish(&mut command);
        let text = stderr(&output);
        let count = |call: &str| text.lines().filter(|line| line.contains(call)).count();
        (count("PR_SET_MM_MAP"), count("execve"))
    };
    let (run, none) = (["run", "--bundle", "/nosuch", "x"], "inject=none:error=EPERM");
    assert_eq!(protections(none, &["list"]), (0, 1));
    assert_eq!(protections(none, &run), (1, 1));
    // A kernel that does not let the executed file be exchanged.
    assert_eq!(protections("inject=prctl:error=EINVAL", &run), (1, 2));
}

fn assert_is_read_only(exe: &File) {
    let flags = rustix::fs::fstatvfs(exe).unwrap().f_flag;
    assert!(flags.contains(StatVfsMountFlags::RDONLY), "{flags:?}");
}

fn number(file: &File) -> String {
    use std::os::fd::AsRawFd;
    file.as_raw_fd().to_string()
}

#[track_caller]
fn wait_for(mut condition: impl FnMut() -> bool) {
    until("what another process does", || condition().then_some(()));
}
