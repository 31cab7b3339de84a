//! AppArmor profiles and SELinux labels: the effect where the host has the module, the error where not.

use std::path::Path;

use serde_json::json;

use crate::fixture::{Bundle, stderr, stdout};

#[test]
fn an_apparmor_profile_needs_apparmor() {
    let bundle = |profile: &str, args: &[&str]| {
        Bundle::new(|spec| {
            spec["process"]["args"] = json!(args);
            spec["process"]["apparmorProfile"] = json!(profile);
        })
    };
    let show = ["cat", "/proc/self/attr/current"];
    let is_enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|enabled| enabled.starts_with('Y'));
    let output = bundle("no-such-profile", &show).run();
    assert!(!output.status.success(), "{output:?}");
    if is_enabled {
        assert!(stderr(&output).contains("set the label (process)"), "{output:?}");
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
