//! Whole containers through the command, from a bundle with busybox. As root.
#![allow(clippy::unwrap_used, reason = "a test program")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Output;

use fixture::{Bundle, stdout};
use serde_json::{Value, json};
use tempfile::TempDir;

mod fixture;

#[test]
fn the_program_is_alone_in_its_namespaces() {
    let output = Bundle::script("echo $$; hostname; ls /proc/self/fd | grep -v 3; cat /proc/1/cgroup").run();
    let text = stdout(&output);
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("1"));
    assert_eq!(lines.next(), Some("ponton"));
    assert_eq!([lines.next(), lines.next(), lines.next()], [Some("0"), Some("1"), Some("2")]);
    assert!(lines.all(|line| line.ends_with(":/")), "a cgroup namespace of its own: {text}");
}

#[test]
fn rights_are_what_the_spec_gives() {
    let status = stdout(&Bundle::script("grep -E '^(Cap|NoNewPrivs)' /proc/self/status").run());
    // AUDIT_WRITE, KILL and NET_BIND_SERVICE are 29, 5 and 10.
    let expected = "CapInh:\t0000000000000000\nCapPrm:\t0000000020000420\nCapEff:\t0000000020000420\n\
                    CapBnd:\t0000000020000420\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n";
    assert_eq!(status, expected);
}

#[test]
fn what_is_masked_or_read_only_stays_so() {
    let script = "test -z \"$(cat /proc/keys)\" && test -z \"$(ls /sys/firmware)\" || exit 1
        echo x > /proc/sys/kernel/domainname && exit 2
        echo x > /etc/x && exit 3
        mknod /tmp/sda b 8 0 && exit 4
        test \"$(stat -c %t:%T /dev/null)\" = 1:3 || exit 5
        echo x > /dev/null && echo x > /dev/shm/x || exit 6
        exit 0";
    let output = Bundle::script(script).run();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn users_get_their_ids_and_home() {
    let bundle = Bundle::new(|spec| {
        spec["process"]["args"] = json!(["sh", "-c", "id; echo $HOME; pwd"]);
        spec["process"]["user"] = json!({"uid": 33, "gid": 34, "additionalGids": [7, 8]});
        spec["process"]["cwd"] = json!("/tmp");
    });
    assert_eq!(stdout(&bundle.run()), "uid=33(www) gid=34 groups=7,8\n/srv\n/tmp\n");
}

#[test]
fn a_seccomp_policy_is_in_force() {
    let bundle = Bundle::new(|spec| {
        spec["process"]["args"] = json!(["hostname"]);
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["uname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
        });
    });
    assert_eq!(stdout(&bundle.run()), "?\n", "the name of the host cannot be asked for");
}

#[test]
fn exit_codes_are_those_of_docker() {
    let code = |args: Value| {
        let output = Bundle::new(|spec| spec["process"]["args"] = args).run();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(code(json!(["sh", "-c", "exit 42"])).0, Some(42));
    assert_eq!(code(json!(["sh", "-c", "kill -9 $$"])).0, Some(0), "process 1 cannot kill itself");
    let (status, text) = code(json!(["nosuch"]));
    assert_eq!(status, Some(127));
    assert!(text.contains("exec: \"nosuch\": executable file not found in $PATH"), "{text}");
    let (status, text) = code(json!(["/nosuch"]));
    assert_eq!(status, Some(127));
    assert!(text.contains("exec: \"/nosuch\": stat /nosuch: no such file or directory"), "{text}");
    let (status, text) = code(json!(["/etc"]));
    assert_eq!(status, Some(126));
    assert!(text.contains("exec: \"/etc\": is a directory"), "{text}");
    let (status, text) = code(json!(["/etc/passwd"]));
    assert_eq!(status, Some(126));
    assert!(text.contains("exec: \"/etc/passwd\": permission denied"), "{text}");
}

/// The directory that a hostile image points to must not be touched.
fn hostile(prepare: impl FnOnce(&Path, &Path), change: impl FnOnce(&mut Value, &Path)) -> (Output, TempDir) {
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("file"), "outside").unwrap();
    let bundle = Bundle::new(|spec| {
        spec["root"]["readonly"] = json!(false);
        spec["process"]["args"] = json!(["true"]);
        change(spec, outside.path());
    });
    prepare(&bundle.root(), outside.path());
    (bundle.run(), outside)
}

fn assert_untouched(outside: &TempDir) {
    let names: Vec<_> =
        fs::read_dir(outside.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["file"]);
    assert_eq!(fs::read_to_string(outside.path().join("file")).unwrap(), "outside");
}

#[test]
fn links_in_the_image_do_not_lead_out() {
    for name in ["dev", "srv"] {
        let prepare = |root: &Path, outside: &Path| {
            fs::remove_dir(root.join(name)).unwrap();
            symlink(outside, root.join(name)).unwrap();
        };
        let bind = |spec: &mut Value, outside: &Path| {
            let source = outside.join("file").display().to_string();
            let mount =
                json!({"destination": "/srv/a/b", "type": "bind", "source": source, "options": ["bind"]});
            spec["mounts"].as_array_mut().unwrap().push(mount);
        };
        let (output, outside) = hostile(prepare, bind);
        assert!(output.status.success(), "{name}: {output:?}");
        assert_untouched(&outside);
    }
}

#[test]
fn proc_and_sys_that_are_links_are_refused() {
    for name in ["proc", "sys"] {
        let prepare = |root: &Path, outside: &Path| {
            fs::remove_dir(root.join(name)).unwrap();
            symlink(outside, root.join(name)).unwrap();
        };
        let (output, outside) = hostile(prepare, |_, _| {});
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        assert_untouched(&outside);
    }
}

#[test]
fn a_container_is_created_started_entered_and_deleted() {
    let bundle = Bundle::new(|spec| spec["process"]["args"] = json!(["sleep", "1000"]));
    let (path, id) = (bundle.path().to_str().unwrap(), bundle.id.as_str());
    let status = || -> Value { serde_json::from_slice(&bundle.command(&["state", id]).stdout).unwrap() };
    assert!(bundle.command(&["create", "--bundle", path, id]).status.success());
    assert_eq!(status()["status"], "created");
    assert!(!bundle.command(&["delete", "other"]).status.success());
    assert!(bundle.command(&["start", id]).status.success());
    assert_eq!(status()["status"], "running");
    let inside = bundle.command(&[
        "exec",
        "--user",
        "www",
        id,
        "sh",
        "-c",
        "id -u; cat /proc/1/comm; ls /proc/self/fd",
    ]);
    assert_eq!(stdout(&inside), "33\nsleep\n0\n1\n2\n3\n");
    assert_eq!(bundle.command(&["exec", id, "sh", "-c", "exit 5"]).status.code(), Some(5));
    assert_eq!(bundle.command(&["exec", id, "nosuch"]).status.code(), Some(127));
    assert!(!bundle.command(&["delete", id]).status.success(), "it runs");
    assert!(bundle.command(&["delete", "--force", id]).status.success());
    bundle.assert_nothing_left();
}

#[test]
fn a_plan_is_printed_and_nothing_is_done() {
    let bundle = Bundle::script("true");
    let plan = bundle.command(&["run", "--plan", "--bundle", bundle.path().to_str().unwrap(), &bundle.id]);
    let plan = stdout(&plan);
    for part in ["clone    init     new=pid,net,ipc,uts,mnt,cgroup", "-> /proc", "pivot", "linux.maskedPaths"]
    {
        assert!(plan.contains(part), "{part} in {plan}");
    }
    bundle.assert_nothing_left();
}
