//! The moments between clone and execve, in which a process is neither the host's nor the container's.

use serde_json::json;

use crate::fixture::{Bundle, stdout};

#[test]
fn a_process_that_is_not_the_program_yet_cannot_be_looked_into() {
    // One container that stands before its gate, and one that joins its pid namespace with the same
    // rights: what it may see of the other's first process is decided by that process alone.
    let waiting = Bundle::new(|spec| spec["process"]["args"] = json!(["sleep", "1000"]));
    assert!(waiting.create().status.success());
    let pid = waiting.state()["pid"].as_u64().unwrap();
    let script = "cd /proc/1 || exit 1
        grep -q ponton comm || exit 2
        for name in exe cwd root fd/*; do readlink $name && exit 3; done
        cat maps environ mem 2>/dev/null | grep . && exit 5
        exit 0";
    let looking = Bundle::new(|spec| {
        for namespace in spec["linux"]["namespaces"].as_array_mut().unwrap() {
            if namespace["type"] == "pid" {
                namespace["path"] = json!(format!("/proc/{pid}/ns/pid"));
            }
        }
        spec["process"]["args"] = json!(["sh", "-c", script]);
    });
    let output = looking.run();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(stdout(&output), "");
}
