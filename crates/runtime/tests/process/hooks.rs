//! Hooks: when, where, with what, and how they fail.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::fixture::{Bundle, stderr, stdout};

/// A hook that runs a script of the host's shell.
fn hook(script: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]})
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(String::from).collect()
}

#[test]
fn they_run_in_their_order_with_the_state_of_the_moment() {
    // Each writes its name, and id, status and pid from its standard input.
    let note = |to: &str, name: &str| {
        let script = format!(
            "s=$(cat); f() {{ echo \"$s\" | sed -n \"s/.*\\\"$1\\\":\\\"*\\([^\\\",}}]*\\).*/\\1/p\"; }}
             echo {name} $(f id) $(f status) $(f pid) >> {to}"
        );
        hook(&script)
    };
    let bundle = Bundle::new(|spec| {
        let root = spec["root"]["path"].as_str().unwrap().to_owned();
        let log = format!("{root}/../log");
        spec["process"]["args"] = json!(["sh", "-c", "echo program; cat /tmp/inside"]);
        spec["root"]["readonly"] = json!(false);
        spec["hooks"] = json!({
            "prestart": [note(&log, "prestart")],
            "createRuntime": [note(&log, "createRuntime")],
            "createContainer": [note(&log, "createContainer")],
            "startContainer": [note("/tmp/inside", "startContainer")],
            "poststart": [note(&log, "poststart")],
            "poststop": [note(&log, "poststop")],
        });
    });
    let id = bundle.id.clone();
    let output = bundle.run();
    assert_eq!(stdout(&output), format!("program\nstartContainer {id} created 1\n"));
    let told = lines(&bundle.path().join("log"));
    let pid: u32 = told[0].rsplit(' ').next().unwrap().parse().unwrap();
    let expected = [
        format!("prestart {id} creating {pid}"),
        format!("createRuntime {id} creating {pid}"),
        format!("createContainer {id} creating 1"),
        format!("poststart {id} running {pid}"),
        format!("poststop {id} stopped"),
    ];
    assert_eq!(told, expected);
}

#[test]
fn create_start_and_delete_run_their_own() {
    let bundle = Bundle::new(|spec| {
        let log = format!("{}/../log", spec["root"]["path"].as_str().unwrap());
        let note = |name: &str| hook(&format!("echo {name} >> {log}"));
        spec["process"]["args"] = json!(["sleep", "1000"]);
        spec["root"]["readonly"] = json!(false);
        spec["hooks"] = json!({
            "createRuntime": [note("createRuntime")],
            "startContainer": [hook("echo inside >> /tmp/inside")],
            "poststart": [note("poststart")],
            "poststop": [note("poststop")],
        });
    });
    let log = bundle.path().join("log");
    let inside = bundle.root().join("tmp/inside");
    assert!(bundle.create().status.success());
    assert_eq!(lines(&log), ["createRuntime"]);
    assert!(!inside.exists(), "it is not started yet");
    assert!(bundle.command(&["start", &bundle.id]).status.success());
    assert_eq!((lines(&log), inside.exists()), (vec!["createRuntime".into(), "poststart".into()], true));
    assert!(bundle.command(&["delete", "--force", &bundle.id]).status.success());
    assert_eq!(lines(&log).last().unwrap(), "poststop");
    bundle.assert_nothing_left();
}

#[test]
fn they_have_their_own_environment_and_nothing_of_ours() {
    let bundle = Bundle::new(|spec| {
        let out = format!("{}/../env", spec["root"]["path"].as_str().unwrap());
        spec["process"]["args"] = json!(["true"]);
        let script = format!(
            "import os
env = open('/proc/self/environ').read().replace('\\0', '\\n')
fds = os.listdir('/proc/self/fd')
open({out:?}, 'w').write(f'{{env}}{{len(fds)}}\\n{{os.getcwd()}}\\n')"
        );
        spec["hooks"] = json!({"createRuntime": [{
            "path": "/usr/bin/python3", "args": ["python3", "-c", script], "env": ["A=1", "A=2", "odd"],
        }]});
    });
    let mut command = bundle.prepare(&["run", "--bundle", bundle.path_text(), &bundle.id]);
    command.env("SECRET", "x");
    let output = bundle.finish(&mut command);
    assert!(output.status.success(), "{output:?}");
    let text = fs::read_to_string(bundle.path().join("env")).unwrap();
    // The standard streams, and the directory that is read.
    let directory = fs::canonicalize(bundle.path()).unwrap();
    assert_eq!(text, format!("A=1\nA=2\nodd\n4\n{}\n", directory.display()));
}

#[test]
fn they_see_the_namespaces_that_they_are_for() {
    let bundle = Bundle::new(|spec| {
        let out = format!("{}/../ns", spec["root"]["path"].as_str().unwrap());
        let note = hook(&format!("readlink /proc/self/ns/mnt /proc/self/ns/uts >> {out}"));
        spec["process"]["args"] =
            json!(["sh", "-c", "readlink /proc/self/ns/mnt; readlink /proc/self/ns/uts"]);
        spec["hooks"] = json!({"createRuntime": [note], "createContainer": [note], "poststop": [note]});
    });
    let output = bundle.run();
    let container: Vec<String> = stdout(&output).lines().map(String::from).collect();
    let own = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
    let host = [own("mnt"), own("uts")];
    let told = lines(&bundle.path().join("ns"));
    assert_eq!((&told[0..2], &told[2..4], &told[4..6]), (&host[..], &container[..], &host[..]));
}

/// The root file system is where the bundle has it, for those that mount into it.
#[test]
fn what_they_mount_in_the_bundles_root_is_there() {
    let bundle = Bundle::new(|spec| {
        let root = spec["root"]["path"].as_str().unwrap().to_owned();
        spec["process"]["args"] = json!(["cat", "/srv/file"]);
        let script = format!("mount -t tmpfs none {root}/srv && echo mounted > {root}/srv/file");
        spec["hooks"] = json!({"createContainer": [hook(&script)]});
    });
    assert_eq!(stdout(&bundle.run()), "mounted\n");
    assert!(!bundle.root().join("srv/file").exists());
}

#[test]
fn one_that_fails_undoes_the_container() {
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer"] {
        let bundle = Bundle::new(|spec| {
            let out = format!("{}/../out", spec["root"]["path"].as_str().unwrap());
            spec["process"]["args"] = json!(["echo", "program"]);
            spec["hooks"] = json!({
                "poststop": [hook(&format!("echo gone >> {out}"))],
            });
            spec["hooks"][kind] = json!([hook("true"), hook("echo it broke >&2; exit 3"), hook("exit 4")]);
        });
        let output = bundle.run();
        let text = stderr(&output);
        assert!(!output.status.success() && output.stdout.is_empty(), "{kind}: {output:?}");
        let expected = format!("hooks.{kind}[1] /bin/sh: exit status 3: it broke");
        assert!(text.contains(&expected), "{text}");
        assert_eq!(lines(&bundle.path().join("out")), ["gone"], "{kind}");
    }
}

#[test]
fn one_that_fails_behind_the_gate_is_told_by_start() {
    let bundle = Bundle::new(|spec| {
        spec["process"]["args"] = json!(["sleep", "1000"]);
        spec["hooks"] = json!({"startContainer": [hook("echo no >&2; exit 7")]});
    });
    assert!(bundle.create().status.success());
    let output = bundle.command(&["start", &bundle.id]);
    assert!(stderr(&output).contains("hooks.startContainer[0] /bin/sh: exit status 7: no"), "{output:?}");
    assert_eq!(bundle.state()["status"], "stopped");
    assert!(bundle.command(&["delete", &bundle.id]).status.success());
    bundle.assert_nothing_left();
}

#[test]
fn those_after_the_start_are_only_told() {
    let bundle = Bundle::new(|spec| {
        let out = format!("{}/../out", spec["root"]["path"].as_str().unwrap());
        spec["process"]["args"] = json!(["echo", "program"]);
        let hooks = json!([hook("exit 5"), hook(&format!("echo ran >> {out}"))]);
        spec["hooks"] = json!({"poststart": hooks, "poststop": hooks});
    });
    let output = bundle.run();
    assert_eq!(stdout(&output), "program\n");
    let text = stderr(&output);
    assert!(text.contains("warning: hooks.poststart[0] /bin/sh: exit status 5"), "{text}");
    assert!(text.contains("warning: hooks.poststop[0] /bin/sh: exit status 5"), "{text}");
    assert_eq!(lines(&bundle.path().join("out")), ["ran", "ran"]);
}

#[test]
fn one_that_hangs_is_killed_with_all_that_it_started() {
    let bundle = Bundle::new(|spec| {
        let out = format!("{}/../pid", spec["root"]["path"].as_str().unwrap());
        let script = format!("sleep 1000 & echo $! > {out}; wait");
        spec["hooks"] = json!({"createRuntime": [hook(&script)]});
        spec["hooks"]["createRuntime"][0]["timeout"] = json!(1);
    });
    let text = stderr(&bundle.run());
    assert!(text.contains("hooks.createRuntime[0] /bin/sh: killed: not done within 1 s"), "{text}");
    let pid: u32 = lines(&bundle.path().join("pid"))[0].parse().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    assert!(status.is_empty() || status.contains("State:\tZ"), "its child: {status}");
}

#[test]
fn what_cannot_be_run_is_said() {
    let text =
        |hook: Value| crate::refusal(&Bundle::new(|spec| spec["hooks"] = json!({"createRuntime": [hook]})));
    assert!(
        text(json!({"path": "/no/such"}))
            .contains("hooks.createRuntime[0] /no/such: exit status 127: exec: No such file")
    );
    assert!(
        text(json!({"path": "sh"})).contains("hooks.createRuntime[0].path: \"sh\" is not an absolute path")
    );
    assert!(
        text(json!({"path": "/bin/true", "timeout": 0}))
            .contains("hooks.createRuntime[0].timeout: must be greater than zero")
    );
    assert!(
        text(json!({"path": "/bin/sh", "args": ["sh", "-c", "kill -9 $$"]})).contains("killed by signal 9")
    );
}

/// A program of the container, as the container's user, before its program.
#[test]
fn those_of_the_container_are_its_own_programs() {
    let bundle = Bundle::new(|spec| {
        spec["process"]["args"] = json!(["cat", "/tmp/who"]);
        spec["process"]["user"] = json!({"uid": 33, "gid": 34});
        spec["root"]["readonly"] = json!(false);
        let script = "id -u > /tmp/who; grep CapEff /proc/self/status >> /tmp/who; hostname >> /tmp/who";
        spec["hooks"] = json!({"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"]}]});
    });
    fs::set_permissions(bundle.root().join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    assert_eq!(stdout(&bundle.run()), "33\nCapEff:\t0000000000000000\nponton\n");
}
