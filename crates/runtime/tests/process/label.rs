//! AppArmor profiles and SELinux labels: the effect where the host has the module, the error where not.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::fixture::{Bundle, stderr, stdout};

fn has_apparmor() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

/// A profile that allows all but to read one file; it goes with the value.
struct Profile {
    name: String,
    text: String,
}

impl Profile {
    fn load(name: &str) -> Self {
        let name = format!("ponton-{name}-{}", std::process::id());
        let text = format!(
            "profile {name} flags=(attach_disconnected,mediate_deleted) {{
                file, capability, network, signal, ptrace, mount, umount, unix, dbus,
                deny /srv/forbidden r,
            }}"
        );
        let profile = Self { name, text };
        assert!(profile.parser("--replace"), "apparmor_parser refuses the profile");
        profile
    }

    fn parser(&self, operation: &str) -> bool {
        let mut parser = Command::new("apparmor_parser");
        let mut parser = parser.args([operation, "--skip-cache"]).stdin(Stdio::piped()).spawn().unwrap();
        parser.stdin.take().unwrap().write_all(self.text.as_bytes()).unwrap();
        parser.wait().unwrap().success()
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        assert!(self.parser("--remove") || std::thread::panicking());
    }
}

/// Says which profile it runs under, and what it reads of two files.
const LOOK: &str = "cat /proc/self/attr/current; cat /srv/allowed /srv/forbidden 2>/dev/null";

/// A bundle with the two files of [`LOOK`].
fn confined(profile: &str, args: &[&str]) -> Bundle {
    let bundle = Bundle::new(|spec| {
        spec["process"]["args"] = json!(args);
        spec["process"]["apparmorProfile"] = json!(profile);
    });
    for name in ["allowed", "forbidden"] {
        fs::write(bundle.root().join("srv").join(name), format!("{name}\n")).unwrap();
    }
    bundle
}

#[test]
fn a_profile_is_in_force_for_the_program_and_for_further_ones() {
    if !has_apparmor() {
        // The next test looks at the error.
        return;
    }
    let profile = Profile::load("label");
    let looked = confined(&profile.name, &["sh", "-c", LOOK]).run();
    let expected = format!("{} (enforce)\nallowed\n", profile.name);
    assert_eq!(String::from_utf8_lossy(&looked.stdout), expected, "{looked:?}");
    let free = confined("unconfined", &["sh", "-c", LOOK]).run();
    assert_eq!(stdout(&free), "unconfined\nallowed\nforbidden\n", "it is the profile that forbids");

    let bundle = confined(&profile.name, &["sleep", "1000"]);
    assert!(bundle.create().status.success());
    assert!(bundle.command(&["start", &bundle.id]).status.success());
    let exec =
        |options: &[&str]| bundle.command(&[&["exec"], options, &[&bundle.id, "sh", "-c", LOOK]].concat());
    assert_eq!(String::from_utf8_lossy(&exec(&[]).stdout), expected);
    let other = Profile::load("other");
    let as_other = exec(&["--apparmor", &other.name]);
    assert!(String::from_utf8_lossy(&as_other.stdout).starts_with(&other.name), "{as_other:?}");
    let unknown = exec(&["--apparmor", "no-such-profile"]);
    assert!(!unknown.status.success() && stderr(&unknown).contains("no-such-profile"), "{unknown:?}");
    assert_eq!(bundle.state()["status"], "running");
}

#[test]
fn an_apparmor_profile_needs_apparmor() {
    let bundle = |profile: &str, args: &[&str]| {
        Bundle::new(|spec| {
            spec["process"]["args"] = json!(args);
            spec["process"]["apparmorProfile"] = json!(profile);
        })
    };
    let show = ["cat", "/proc/self/attr/current"];
    let output = bundle("no-such-profile", &show).run();
    assert!(!output.status.success(), "{output:?}");
    if has_apparmor() {
        let text = stderr(&output);
        assert!(text.contains("set the label (process)") && text.contains("no-such-profile"), "{text}");
        assert_eq!(stdout(&bundle("unconfined", &show).run()).trim(), "unconfined");
    } else {
        let text = stderr(&output);
        assert!(
            text.contains("process.apparmorProfile: \"no-such-profile\": AppArmor is not enabled"),
            "{text}"
        );
        let output = bundle("unconfined", &["true"]).run();
        assert!(output.status.success(), "it is what a process is without AppArmor: {output:?}");
    }
}

#[test]
fn an_selinux_label_needs_selinux() {
    let bundle = Bundle::new(|spec| {
        spec["process"]["args"] = json!(["true"]);
        spec["process"]["selinuxLabel"] = json!("system_u:system_r:no_such_t:s0");
    });
    let output = bundle.run();
    assert!(!output.status.success(), "{output:?}");
    let text = stderr(&output);
    if Path::new("/sys/fs/selinux/enforce").exists() {
        assert!(text.contains("set the label (process)"), "{text}");
    } else {
        assert!(text.contains("process.selinuxLabel: ") && text.contains("SELinux is not enabled"), "{text}");
    }
}

#[test]
fn classes_of_cache_need_a_resctrl_file_system() {
    let bundle = Bundle::new(|spec| {
        spec["process"]["args"] = json!(["true"]);
        spec["linux"]["intelRdt"] = json!({"closID": "no-such-class"});
    });
    let output = bundle.run();
    assert!(!output.status.success(), "{output:?}");
    let text = stderr(&output);
    assert!(text.contains("linux.intelRdt"), "{text}");
    if !Path::new("/sys/fs/resctrl/schemata").exists() {
        assert!(text.contains("find a resctrl file system at /sys/fs/resctrl"), "{text}");
    }
}
