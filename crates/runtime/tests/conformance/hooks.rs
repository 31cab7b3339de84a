//! config.md, "POSIX-platform Hooks", and the lifecycle that they are part of.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::fixture::{Bundle, stderr};
use crate::{Statement, refused, wait_for};

const HOOKS: &str = "config.md Hooks";
const LIFECYCLE: &str = "runtime.md Lifecycle";

/// Kinds of hooks that run in the runtime's namespaces.
const OUTSIDE: [&str; 4] = ["prestart", "createRuntime", "poststart", "poststop"];

/// A bundle whose hooks are scripts: `(kind, script)`. They share the directory that `$D` names, which
/// the container has as /srv.
fn hooked(hooks: &[(&str, &str)], program: &str) -> Bundle {
    let bundle = Bundle::new(|spec| spec["process"]["args"] = json!(["sh", "-c", program]));
    let directory = bundle.path().join("shared");
    fs::create_dir(&directory).unwrap();
    let mut spec = bundle.spec();
    crate::fixture::mount(&mut spec, "/srv", "bind", directory.to_str().unwrap(), &["bind"]);
    spec["hooks"] = json!({});
    for (kind, script) in hooks {
        let list = &mut spec["hooks"][kind];
        if list.is_null() {
            *list = json!([]);
        }
        // A start hook is found in the container; the others on the host.
        let (path, shared) = match *kind {
            "startContainer" => ("/bin/sh".to_owned(), "/srv".to_owned()),
            _ => ("/bin/sh".to_owned(), directory.display().to_string()),
        };
        list.as_array_mut().unwrap().push(json!({
            "path": path, "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin", format!("D={shared}")],
        }));
    }
    bundle.write_spec(&spec);
    bundle
}

fn shared(bundle: &Bundle, name: &str) -> PathBuf {
    bundle.path().join("shared").join(name)
}

fn text(bundle: &Bundle, name: &str) -> String {
    fs::read_to_string(shared(bundle, name)).unwrap_or_default()
}

/// Through the whole life of a container.
fn live(bundle: &Bundle) {
    let output = bundle.run();
    assert!(output.status.success(), "{output:?}");
}

/// A kind of hook that fails stops the container with an error, before its program does anything.
fn stops(kind: &str) {
    let bundle = hooked(&[(kind, "exit 3")], "touch /srv/ran; sleep 1000");
    let mut output = bundle.create();
    if output.status.success() {
        output = bundle.command(&["start", &bundle.id]);
    }
    assert!(!output.status.success(), "{kind}");
    assert!(stderr(&output).contains(&format!("hooks.{kind}[0]")), "{output:?}");
    assert!(!shared(&bundle, "ran").exists());
    wait_for(|| bundle.processes().is_empty());
}

pub(crate) const ALL: &[Statement] = &[
    Statement {
        part: LIFECYCLE,
        says: "the hooks run in order, each at its time",
        check: || {
            let kinds =
                ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
            let scripts: Vec<String> = kinds.iter().map(|kind| format!("echo {kind} >> $D/log")).collect();
            let hooks: Vec<_> =
                kinds.iter().zip(&scripts).map(|(kind, script)| (*kind, script.as_str())).collect();
            let program = "until grep -q poststart /srv/log; do sleep 0.01; done; echo program >> /srv/log";
            let bundle = hooked(&hooks, program);
            assert!(bundle.create().status.success());
            assert_eq!(text(&bundle, "log"), "prestart\ncreateRuntime\ncreateContainer\n");
            assert!(bundle.command(&["start", &bundle.id]).status.success());
            wait_for(|| bundle.state()["status"] == "stopped");
            assert!(bundle.command(&["delete", &bundle.id]).status.success());
            let expected =
                "prestart\ncreateRuntime\ncreateContainer\nstartContainer\npoststart\nprogram\npoststop\n";
            assert_eq!(text(&bundle, "log"), expected);
            bundle.assert_nothing_left();
        },
    },
    Statement {
        part: HOOKS,
        says: "hooks of one kind run in the listed order",
        check: || {
            let bundle = hooked(
                &[
                    ("createRuntime", "sleep 0.05; echo 1 >> $D/log"),
                    ("createRuntime", "echo 2 >> $D/log"),
                    ("createRuntime", "echo 3 >> $D/log"),
                ],
                "true",
            );
            live(&bundle);
            assert_eq!(text(&bundle, "log"), "1\n2\n3\n");
        },
    },
    Statement {
        part: HOOKS,
        says: "the state is on standard input",
        check: || {
            for (kind, status) in [
                ("prestart", "creating"),
                ("createRuntime", "creating"),
                ("createContainer", "creating"),
                ("startContainer", "created"),
                ("poststart", "running"),
                ("poststop", "stopped"),
            ] {
                // The program of a container that is looked at while it lives waits for that.
                let program =
                    if kind == "poststop" { "true" } else { "until test -s /srv/state; do sleep 0.01; done" };
                let bundle = hooked(&[(kind, "cat > $D/new; mv $D/new $D/state")], program);
                live(&bundle);
                let state: Value = serde_json::from_str(&text(&bundle, "state"))
                    .unwrap_or_else(|error| panic!("{kind}: {error}: {}", text(&bundle, "state")));
                assert_eq!(state["id"], json!(bundle.id), "{kind}");
                assert_eq!(state["bundle"], json!(bundle.path()), "{kind}");
                assert_eq!(state["status"], status, "{kind}");
                assert!(kind == "poststop" || state["pid"].as_u64().is_some(), "{kind}: {state}");
            }
        },
    },
    Statement {
        part: HOOKS,
        says: "the environment is that of the hook, and nothing else",
        check: || {
            let bundle = hooked(
                &[("createRuntime", "exec env > $D/env"), ("startContainer", "exec env > $D/inside")],
                "true",
            );
            let mut run = bundle.prepare(&["run", "--bundle", bundle.path_text(), &bundle.id]);
            run.env("SECRET", "of the host");
            assert!(bundle.finish(&mut run).status.success());
            for name in ["env", "inside"] {
                let env = text(&bundle, name);
                let mut names: Vec<&str> =
                    env.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
                names.retain(|name| !["PWD", "SHLVL", "_", "OLDPWD"].contains(name));
                names.sort_unstable();
                assert_eq!(names, ["D", "PATH"], "{env}");
            }
        },
    },
    Statement {
        part: HOOKS,
        says: "args are those of execv: the first is the name",
        check: || {
            let bundle = hooked(&[], "true");
            let script = bundle.path().join("hook");
            fs::write(&script, "#!/bin/sh\necho \"$0 $# $1\" > \"$D/args\"\n").unwrap();
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
            let mut spec = bundle.spec();
            let d = format!("D={}", bundle.path().join("shared").display());
            spec["hooks"]["createRuntime"] =
                json!([{"path": script, "args": ["name", "one"], "env": [d, "PATH=/bin"]}]);
            bundle.write_spec(&spec);
            live(&bundle);
            assert_eq!(text(&bundle, "args"), format!("{} 1 one\n", script.display()));
        },
    },
    Statement {
        part: HOOKS,
        says: "prestart, createRuntime, poststart and poststop run in the runtime's namespaces",
        check: || {
            for kind in OUTSIDE {
                let bundle =
                    hooked(&[(kind, "readlink /proc/self/ns/mnt > $D/ns; hostname >> $D/ns")], "true");
                live(&bundle);
                let own = fs::read_link("/proc/self/ns/mnt").unwrap();
                let text = text(&bundle, "ns");
                assert_eq!(text.lines().next().unwrap(), own.to_str().unwrap(), "{kind}");
                assert_ne!(text.lines().nth(1), Some("ponton"), "{kind}");
            }
        },
    },
    Statement {
        part: HOOKS,
        says: "createContainer runs in the container's namespaces, by a path of the host",
        check: || {
            let bundle = hooked(
                &[(
                    "createContainer",
                    "readlink /proc/self/ns/uts > $D/ns; test -e /usr/bin/perl && echo host >> $D/ns",
                )],
                "readlink /proc/self/ns/uts >> /srv/ns",
            );
            live(&bundle);
            let text = text(&bundle, "ns");
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines.len(), 3, "{text}");
            assert_eq!((lines[0], lines[1]), (lines[2], "host"));
        },
    },
    Statement {
        part: HOOKS,
        says: "startContainer runs in the container, by a path of the container",
        check: || {
            let bundle = hooked(
                &[(
                    "startContainer",
                    "hostname > /srv/name; test ! -e /usr/bin/perl && echo inside >> /srv/name",
                )],
                "true",
            );
            live(&bundle);
            assert_eq!(text(&bundle, "name"), "ponton\ninside\n");
        },
    },
    Statement {
        part: HOOKS,
        says: "createRuntime runs after the namespaces are made and before pivot_root",
        check: || {
            let script =
                "pid=$(sed 's/.*\"pid\":[ ]*\\([0-9]*\\).*/\\1/'); readlink /proc/$pid/ns/net > $D/ns";
            let bundle = hooked(&[("createRuntime", script)], "readlink /proc/self/ns/net >> /srv/ns");
            live(&bundle);
            let text = text(&bundle, "ns");
            let lines: Vec<&str> = text.lines().collect();
            assert!(lines.len() == 2 && lines[0] == lines[1], "{text}");
        },
    },
    Statement {
        part: LIFECYCLE,
        says: "a prestart hook that fails is an error, and the container is stopped",
        check: || stops("prestart"),
    },
    Statement {
        part: LIFECYCLE,
        says: "a createRuntime hook that fails is an error, and the container is stopped",
        check: || stops("createRuntime"),
    },
    Statement {
        part: LIFECYCLE,
        says: "a createContainer hook that fails is an error, and the container is stopped",
        check: || stops("createContainer"),
    },
    Statement {
        part: LIFECYCLE,
        says: "a startContainer hook that fails is an error, and the container is stopped",
        check: || stops("startContainer"),
    },
    Statement {
        part: LIFECYCLE,
        says: "a poststart hook that fails is told: as a warning (1.2.0), or as an error with the container stopped",
        check: || {
            let bundle = hooked(&[("poststart", "exit 3")], "sleep 1000");
            assert!(bundle.create().status.success());
            let output = bundle.command(&["start", &bundle.id]);
            assert!(stderr(&output).contains("hooks.poststart[0]"), "{output:?}");
            if !output.status.success() {
                wait_for(|| bundle.processes().is_empty());
            }
        },
    },
    Statement {
        part: LIFECYCLE,
        says: "a poststop hook that fails is a warning, and the others run",
        check: || {
            let bundle = hooked(&[("poststop", "exit 3"), ("poststop", "touch $D/second")], "true");
            let output = bundle.run();
            assert!(output.status.success(), "{output:?}");
            assert!(stderr(&output).contains("hooks.poststop[0]"), "{output:?}");
            assert!(shared(&bundle, "second").exists());
        },
    },
    Statement {
        part: HOOKS,
        says: "path is absolute",
        check: || {
            refused("hooks.createRuntime[0]", |spec| {
                spec["hooks"] = json!({"createRuntime": [{"path": "bin/true"}]});
            });
        },
    },
    Statement {
        part: HOOKS,
        says: "a hook that is not there is an error",
        check: || {
            refused("hooks.createRuntime[0]", |spec| {
                spec["hooks"] = json!({"createRuntime": [{"path": "/nosuch/hook"}]});
            });
        },
    },
    Statement {
        part: HOOKS,
        says: "timeout: seconds after which the hook is ended",
        check: || {
            for kind in ["prestart", "createRuntime", "createContainer"] {
                refused(&format!("hooks.{kind}[0]"), |spec| {
                    spec["hooks"] = json!({});
                    spec["hooks"][kind] =
                        json!([{"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}]);
                });
            }
        },
    },
    Statement {
        part: HOOKS,
        says: "timeout is greater than zero",
        check: || {
            refused("hooks.createRuntime[0].timeout", |spec| {
                spec["hooks"] = json!({"createRuntime": [{"path": "/bin/true", "timeout": 0}]});
            });
            refused("hooks.createRuntime[0].timeout", |spec| {
                spec["hooks"] = json!({"createRuntime": [{"path": "/bin/true", "timeout": -1}]});
            });
        },
    },
];
