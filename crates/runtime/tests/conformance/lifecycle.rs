//! runtime.md, bundle.md and runtime-linux.md.

use serde_json::json;

use crate::fixture::{Bundle, stderr, without_namespace};
use crate::{Statement, created, inside, running, skip, wait_for};

fn wait_until_stopped(bundle: &Bundle) {
    wait_for(|| bundle.state()["status"] == "stopped");
}

/// An operation that must fail and leave the container's status.
fn fails(bundle: &Bundle, args: &[&str]) {
    let before = bundle.state()["status"].clone();
    let output = bundle.command(args);
    assert!(!output.status.success(), "{args:?} went well");
    assert!(!stderr(&output).is_empty(), "{args:?} says nothing");
    assert_eq!(bundle.state()["status"], before);
}

const STATE: &str = "runtime.md State";
const CREATE: &str = "runtime.md Create";
const START: &str = "runtime.md Start";
const KILL: &str = "runtime.md Kill";
const DELETE: &str = "runtime.md Delete";

pub(crate) const ALL: &[Statement] = &[
    Statement {
        part: STATE,
        says: "ociVersion is the version that the state complies with",
        check: || {
            let version = created(|_| {}).state()["ociVersion"].as_str().unwrap().to_owned();
            assert_eq!(version.split('.').count(), 3, "{version}");
        },
    },
    Statement {
        part: STATE,
        says: "id is the container's id",
        check: || {
            let bundle = created(|_| {});
            assert_eq!(bundle.state()["id"], json!(bundle.id));
        },
    },
    Statement {
        part: STATE,
        says: "status is created, running, stopped",
        check: || {
            let bundle = created(|_| {});
            assert_eq!(bundle.state()["status"], "created");
            assert!(bundle.command(&["start", &bundle.id]).status.success());
            assert_eq!(bundle.state()["status"], "running");
            assert!(bundle.command(&["kill", &bundle.id, "KILL"]).status.success());
            wait_until_stopped(&bundle);
        },
    },
    Statement {
        part: STATE,
        says: "pid is the id of the process as seen by the host, when created or running",
        check: || {
            let bundle = created(|_| {});
            let pid = bundle.state()["pid"].as_u64().unwrap();
            assert!(bundle.command(&["start", &bundle.id]).status.success());
            assert_eq!(bundle.state()["pid"].as_u64().unwrap(), pid);
            wait_for(|| bundle.processes() == [pid as u32]);
        },
    },
    Statement {
        part: STATE,
        says: "bundle is the absolute path of the bundle's directory",
        check: || {
            let bundle = Bundle::new(|spec| spec["process"]["args"] = json!(["true"]));
            let mut create = bundle.prepare(&["create", &bundle.id]);
            assert!(bundle.finish(create.current_dir(bundle.path())).status.success());
            assert_eq!(bundle.state()["bundle"], json!(bundle.path()));
        },
    },
    Statement {
        part: STATE,
        says: "annotations are those of the container",
        check: || {
            let bundle =
                created(|spec| spec["annotations"] = json!({"org.example.key": "value", "empty": ""}));
            assert_eq!(bundle.state()["annotations"], json!({"org.example.key": "value", "empty": ""}));
        },
    },
    Statement {
        part: "runtime.md Query State",
        says: "without an id it is an error",
        check: || {
            assert!(!Bundle::without_config().command(&["state"]).status.success());
        },
    },
    Statement {
        part: "runtime.md Query State",
        says: "of a container that does not exist it is an error",
        check: || {
            let output = Bundle::without_config().command(&["state", "nosuch"]);
            assert!(!output.status.success() && stderr(&output).contains("does not exist"), "{output:?}");
        },
    },
    Statement {
        part: CREATE,
        says: "without an id it is an error",
        check: || {
            let bundle = Bundle::new(|_| {});
            assert!(!bundle.command(&["create", "--bundle", bundle.path_text()]).status.success());
        },
    },
    Statement {
        part: CREATE,
        says: "an id that is not unique is an error, and no container is made",
        check: || {
            let bundle = created(|_| {});
            let pid = bundle.state()["pid"].clone();
            assert!(!bundle.create().status.success());
            assert_eq!(bundle.state()["pid"], pid);
            assert_eq!(bundle.state()["status"], "created");
        },
    },
    Statement {
        part: CREATE,
        says: "an id that is not valid is an error, and no container is made",
        check: || {
            let bundle = Bundle::new(|_| {});
            for id in ["", ".", "..", "a/b", "../x", "ä", "a b"] {
                let output = bundle.command(&["create", "--bundle", bundle.path_text(), id]);
                assert!(!output.status.success(), "{id:?}");
            }
            assert!(bundle.processes().is_empty());
        },
    },
    Statement {
        part: CREATE,
        says: "the program is not run",
        check: || {
            let bundle = Bundle::new(|spec| {
                spec["root"]["readonly"] = json!(false);
                spec["process"]["args"] = json!(["sh", "-c", "touch /srv/ran; sleep 1000"]);
            });
            assert!(bundle.create().status.success());
            assert!(!bundle.root().join("srv/ran").exists());
            assert!(bundle.processes().is_empty());
            assert!(bundle.command(&["start", &bundle.id]).status.success());
            wait_for(|| bundle.root().join("srv/ran").exists());
        },
    },
    Statement {
        part: CREATE,
        says: "changes to config.json after it have no effect",
        check: || {
            let bundle = Bundle::new(|spec| spec["process"]["args"] = json!(["sh", "-c", "echo before"]));
            assert!(bundle.create().status.success());
            let mut spec = bundle.spec();
            spec["process"]["args"] = json!(["sh", "-c", "echo after"]);
            spec["hostname"] = json!("after");
            bundle.write_spec(&spec);
            assert!(bundle.command(&["start", &bundle.id]).status.success());
            wait_until_stopped(&bundle);
            assert_eq!(bundle.written(), "before\n");
        },
    },
    Statement {
        part: CREATE,
        says: "an environment that cannot be made is an error, and leaves nothing",
        check: || {
            let bundle = Bundle::new(|spec| {
                crate::fixture::mount(spec, "/srv/a", "bind", "/nosuch/source", &["bind"]);
            });
            let output = bundle.create();
            assert!(!output.status.success());
            assert!(stderr(&output).contains("/nosuch/source"), "{output:?}");
            bundle.assert_nothing_left();
        },
    },
    Statement {
        part: START,
        says: "without an id it is an error",
        check: || {
            assert!(!Bundle::without_config().command(&["start"]).status.success());
        },
    },
    Statement {
        part: START,
        says: "of a container that does not exist it is an error",
        check: || {
            let output = Bundle::without_config().command(&["start", "nosuch"]);
            assert!(!output.status.success() && stderr(&output).contains("does not exist"), "{output:?}");
        },
    },
    Statement {
        part: START,
        says: "of a container that is running it is an error without effect",
        check: || {
            let bundle = running(|_| {});
            fails(&bundle, &["start", &bundle.id]);
        },
    },
    Statement {
        part: START,
        says: "of a container that is stopped it is an error without effect",
        check: || {
            let bundle = running(|spec| spec["process"]["args"] = json!(["true"]));
            wait_until_stopped(&bundle);
            fails(&bundle, &["start", &bundle.id]);
        },
    },
    Statement {
        part: START,
        says: "the program is run",
        check: || {
            assert_eq!(inside("echo ran", |_| {}), "ran");
        },
    },
    Statement {
        part: START,
        says: "a config without process is an error at start",
        check: || {
            let bundle = Bundle::new(|spec| {
                spec.as_object_mut().unwrap().remove("process");
            });
            let made = bundle.create();
            // An earlier error is as good: nothing can be done with such a container.
            let output = if made.status.success() { bundle.command(&["start", &bundle.id]) } else { made };
            assert!(!output.status.success() && stderr(&output).contains("process"), "{output:?}");
        },
    },
    Statement {
        part: KILL,
        says: "without an id it is an error",
        check: || {
            assert!(!Bundle::without_config().command(&["kill"]).status.success());
        },
    },
    Statement {
        part: KILL,
        says: "of a container that does not exist it is an error",
        check: || {
            assert!(!Bundle::without_config().command(&["kill", "nosuch", "KILL"]).status.success());
        },
    },
    Statement {
        part: KILL,
        says: "of a container that is stopped it is an error without effect",
        check: || {
            let bundle = running(|spec| spec["process"]["args"] = json!(["true"]));
            wait_until_stopped(&bundle);
            fails(&bundle, &["kill", &bundle.id, "KILL"]);
        },
    },
    Statement {
        part: KILL,
        says: "of a container that is created the signal is sent",
        check: || {
            let bundle = created(|_| {});
            assert!(bundle.command(&["kill", &bundle.id, "KILL"]).status.success());
            wait_until_stopped(&bundle);
        },
    },
    Statement {
        part: KILL,
        says: "the signal is sent, by name or number",
        check: || {
            for (signal, name) in [("USR1", "USR1"), ("SIGUSR2", "USR2"), ("1", "HUP"), ("term", "TERM")] {
                let script = format!("trap 'exit 0' {name}; echo ready; while :; do sleep 0.01; done");
                let bundle = Bundle::new(|spec| spec["process"]["args"] = json!(["sh", "-c", script]));
                assert!(bundle.create().status.success());
                assert!(bundle.command(&["start", &bundle.id]).status.success());
                wait_for(|| bundle.written() == "ready\n");
                assert!(bundle.command(&["kill", &bundle.id, signal]).status.success(), "{signal}");
                wait_until_stopped(&bundle);
            }
        },
    },
    Statement {
        part: KILL,
        says: "what is no signal is an error without effect",
        check: || {
            let bundle = running(|_| {});
            for signal in ["NOSUCH", "-1", "65", "1x"] {
                fails(&bundle, &["kill", &bundle.id, "--", signal]);
            }
        },
    },
    Statement {
        part: DELETE,
        says: "without an id it is an error",
        check: || {
            assert!(!Bundle::without_config().command(&["delete"]).status.success());
        },
    },
    Statement {
        part: DELETE,
        says: "of a container that does not exist it is an error",
        check: || {
            let output = Bundle::without_config().command(&["delete", "nosuch"]);
            assert!(!output.status.success() && stderr(&output).contains("does not exist"), "{output:?}");
        },
    },
    Statement {
        part: DELETE,
        says: "of a container that is running it is an error without effect",
        check: || {
            let bundle = running(|_| {});
            fails(&bundle, &["delete", &bundle.id]);
        },
    },
    Statement {
        part: DELETE,
        says: "of a container that is created it is an error",
        check: || {
            skip("as with runc, a container that was never started is killed and deleted");
        },
    },
    Statement {
        part: DELETE,
        says: "what create made is deleted",
        check: || {
            let bundle = running(|spec| spec["process"]["args"] = json!(["true"]));
            wait_until_stopped(&bundle);
            assert!(bundle.command(&["delete", &bundle.id]).status.success());
            bundle.assert_nothing_left();
        },
    },
    Statement {
        part: DELETE,
        says: "what create did not make is not deleted",
        check: || {
            let one = running(|_| {});
            let pid = one.state()["pid"].as_u64().unwrap();
            let other = running(|spec| {
                for namespace in spec["linux"]["namespaces"].as_array_mut().unwrap() {
                    if namespace["type"] == "network" {
                        namespace["path"] = json!(format!("/proc/{pid}/ns/net"));
                    }
                }
            });
            assert!(other.command(&["delete", "--force", &other.id]).status.success());
            other.assert_nothing_left();
            assert!(other.root().join("bin/busybox").exists());
            assert_eq!(one.state()["status"], "running");
        },
    },
    Statement {
        part: DELETE,
        says: "the id can be used again",
        check: || {
            let bundle = created(|_| {});
            assert!(bundle.command(&["delete", "--force", &bundle.id]).status.success());
            assert!(bundle.create().status.success());
        },
    },
    Statement {
        part: "bundle.md",
        says: "config.json has to be there",
        check: || {
            let bundle = Bundle::without_config();
            let output = bundle.run();
            assert!(!output.status.success() && stderr(&output).contains("config.json"), "{output:?}");
        },
    },
    Statement {
        part: "bundle.md",
        says: "a bundle that is not there is an error",
        check: || {
            let bundle = Bundle::new(|_| {});
            let output = bundle.command(&["create", "--bundle", "/nosuch/bundle", &bundle.id]);
            assert!(!output.status.success() && stderr(&output).contains("/nosuch/bundle"), "{output:?}");
        },
    },
    Statement {
        part: "runtime-linux.md File descriptors",
        says: "only the standard streams are open",
        check: || {
            assert_eq!(inside("ls /proc/self/fd", |_| {}), "0\n1\n2\n3");
        },
    },
    Statement {
        part: "runtime-linux.md Dev symbolic links",
        says: "/dev/fd and the standard streams are links",
        check: || {
            let script = "for name in fd stdin stdout stderr; do readlink /dev/$name; done";
            let links = "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2";
            assert_eq!(inside(script, |_| {}), links);
        },
    },
    Statement {
        part: "runtime-linux.md",
        says: "a process of the host's pid namespace ends with kill and delete",
        check: || {
            let bundle = running(|spec| without_namespace(spec, "pid"));
            assert!(bundle.command(&["delete", "--force", &bundle.id]).status.success());
            bundle.assert_nothing_left();
        },
    },
];
