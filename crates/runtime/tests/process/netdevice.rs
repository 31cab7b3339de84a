//! Network devices of the host that are moved into a container. Each test has a host of its own: a
//! network namespace that the command runs in.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::fixture::{Bundle, stderr, stdout};

/// Runs the bundle's container in a new network namespace, after a script there; then another.
fn run_after(bundle: &Bundle, before: &str, after: &str) -> Output {
    let run = bundle.prepare(&["run", "--bundle", bundle.path_text(), &bundle.id]);
    let words: Vec<_> = [run.get_program()].into_iter().chain(run.get_args()).collect();
    let mut command = Command::new("unshare");
    let script = format!("{before}\n\"$@\"; code=$?\n{after}\nexit $code");
    command.args(["--net", "sh", "-c", &script, "sh"]).args(words);
    bundle.finish(&mut command)
}

fn bundle(devices: Value, script: &str) -> Bundle {
    Bundle::new(|spec| {
        spec["process"]["args"] = json!(["sh", "-c", script]);
        spec["linux"]["netDevices"] = devices;
    })
}

#[test]
fn they_are_moved_renamed_and_set_up_with_their_addresses() {
    let before = "ip link add dev1 type veth peer name peer1
        ip address add 192.0.2.7/24 dev dev1
        ip address add 2001:db8::7/64 dev dev1 nodad
        ip address add 127.5.0.1/8 dev dev1 scope host
        ip link set dev1 up; ip link set peer1 up";
    let bundle = bundle(json!({"dev1": {"name": "lan0"}}), "ip -o address show lan0; ip -o link show lan0");
    let output = run_after(&bundle, before, "ip -o link show dev1 2>&1");
    let text = stdout(&output);
    for part in ["192.0.2.7/24", "2001:db8::7/64", "<BROADCAST,MULTICAST,UP,LOWER_UP"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains("127.5.0.1"), "of global scope only: {text}");
    assert!(text.contains("does not exist") || text.contains("can't find"), "gone from the host: {text}");
    bundle.assert_nothing_left();
}

#[test]
fn a_name_may_be_kept_or_be_a_template() {
    let before = "ip link add dev1 type veth peer name peer1; ip link add dev2 type veth peer name peer2";
    let bundle =
        bundle(json!({"dev1": {}, "dev2": {"name": "lan%d"}}), "ip -o link | cut -d: -f2 | cut -d@ -f1");
    let text = stdout(&run_after(&bundle, before, ""));
    let names: Vec<_> = text.split_whitespace().collect();
    assert!(names.contains(&"dev1") && names.iter().any(|name| name.starts_with("lan")), "{text}");
    assert!(!names.contains(&"lan%d"), "{text}");
}

#[test]
fn what_cannot_be_moved_is_said_and_nothing_is_left() {
    let missing = bundle(json!({"dev9": {}}), "true");
    let output = run_after(&missing, "", "");
    let text = stderr(&output);
    assert!(!output.status.success() && text.contains("dev9") && text.contains("linux.netDevices"), "{text}");
    missing.assert_nothing_left();
    // There is a lo in every namespace.
    let taken = bundle(json!({"dev1": {"name": "lo"}}), "true");
    let output = run_after(&taken, "ip link add dev1 type veth peer name peer1", "ip -o link show dev1");
    let text = stderr(&output);
    assert!(!output.status.success() && text.contains("File exists"), "{text}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("dev1"), "it is still the host's");
    let hosts = Bundle::new(|spec| {
        crate::fixture::without_namespace(spec, "network");
        spec["linux"]["netDevices"] = json!({"dev1": {}});
    });
    assert!(crate::refusal(&hosts).contains("linux.netDevices: needs a network namespace"));
}
