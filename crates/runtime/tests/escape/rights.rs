//! Rights that stay with the program though nobody gave them, or come too late.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::fixture::{Bundle, stderr, stdout, with_host_programs, without_namespace};

/// The command run by another program, as a caller with rights and habits of its own.
fn through(bundle: &Bundle, wrapper: &[&str], args: &[&str]) -> std::process::Output {
    let prepared = bundle.prepare(args);
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(prepared.get_program()).args(prepared.get_args());
    command.env("SECRET", "of the host");
    bundle.finish(&mut command)
}

#[test]
fn groups_of_the_caller_are_given_up() {
    let bundle = Bundle::script("id -G");
    let run = ["run", "--bundle", bundle.path_text(), &bundle.id];
    let output = through(&bundle, &["setpriv", "--groups", "7,8"], &run);
    assert_eq!(stdout(&output), "0\n");
}

#[test]
fn no_capability_is_inheritable_or_ambient_unless_the_spec_says_so() {
    // CVE-2022-29162, and what a caller of ours has.
    const STATUS: &str = "grep -E '^Cap(Inh|Amb)' /proc/self/status";
    const NONE: &str = "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n";
    let wrapper = ["setpriv", "--inh-caps", "+chown,+kill", "--ambient-caps", "+chown,+kill"];
    let bundle = Bundle::script(&format!("{STATUS}; sleep 1000"));
    let (path, id) = (bundle.path_text(), bundle.id.as_str());
    assert!(through(&bundle, &wrapper, &["create", "--bundle", path, id]).status.success());
    assert!(bundle.command(&["start", id]).status.success());
    let output = through(&bundle, &wrapper, &["exec", id, "sh", "-c", STATUS]);
    assert_eq!(stdout(&output), NONE);
    let bundle = Bundle::script(STATUS);
    let run = ["run", "--bundle", bundle.path_text(), &bundle.id];
    assert_eq!(stdout(&through(&bundle, &wrapper, &run)), NONE);
}

#[test]
fn a_user_that_is_not_root_has_no_capability_in_force() {
    let bundle = Bundle::new(|spec| {
        spec["process"]["user"] = json!({"uid": 33, "gid": 33});
        spec["process"]["args"] = json!(["grep", "-E", "^Cap(Prm|Eff)", "/proc/self/status"]);
    });
    assert_eq!(stdout(&bundle.run()), "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n");
}

#[test]
fn the_environment_is_that_of_the_spec() {
    let bundle = Bundle::new(|spec| {
        spec["process"]["env"] = json!(["PATH=/bin", "A=b"]);
        spec["process"]["args"] = json!(["env"]);
    });
    let run = ["run", "--bundle", bundle.path_text(), &bundle.id];
    assert_eq!(stdout(&through(&bundle, &["env"], &run)), "PATH=/bin\nA=b\nHOME=/root\n");
}

#[test]
fn an_id_that_means_no_change_is_refused() {
    for field in ["uid", "gid"] {
        let bundle = Bundle::new(|spec| spec["process"]["user"][field] = json!(u32::MAX));
        let output = bundle.run();
        assert!(!output.status.success());
        assert!(stderr(&output).contains(&format!("process.user.{field}")), "{output:?}");
    }
    let bundle = Bundle::new(|spec| spec["process"]["user"]["additionalGids"] = json!([1, u32::MAX]));
    let output = bundle.run();
    assert!(stderr(&output).contains("process.user.additionalGids[1]"), "{output:?}");
}

#[test]
fn the_filter_is_in_force_for_the_first_instruction_of_the_program() {
    // Whatever the program does first: execve itself is the filter's, with and without no_new_privs.
    for no_new_privileges in [true, false] {
        let bundle = Bundle::new(|spec| {
            spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
            spec["process"]["args"] = json!(["grep", "-E", "^Seccomp:", "/proc/self/status"]);
            spec["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["keyctl"], "action": "SCMP_ACT_ERRNO"}],
            });
        });
        assert_eq!(stdout(&bundle.run()), "Seccomp:\t2\n");
    }
}

#[test]
fn nothing_is_typed_into_the_terminal_of_the_caller() {
    // `script` runs the command on a terminal of its own, which the container gets as its streams.
    let bundle = Bundle::new(|spec| {
        with_host_programs(spec);
        // ioctl(0, TIOCSTI, "x")
        let attack = "open T, '+<&', 0; print ioctl(T, 0x5412, my $x = 'x') ? 'typed' : 'refused'";
        spec["process"]["args"] = json!(["perl", "-e", attack]);
    });
    let prepared = bundle.prepare(&["run", "--bundle", bundle.path_text(), &bundle.id]);
    let words = std::iter::once(prepared.get_program()).chain(prepared.get_args());
    let line = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect::<Vec<_>>().join(" ");
    let mut command = Command::new("script");
    command.args(["--quiet", "--command", &line, "/dev/null"]);
    assert_eq!(stdout(&bundle.finish(&mut command)), "refused");
}

#[test]
fn keys_of_the_caller_are_not_shared() {
    let id = "perl -e 'printf \"%x\", syscall(250, 0, -3, 0)'";
    let bundle = Bundle::new(|spec| {
        with_host_programs(spec);
        spec["process"]["args"] = json!(["sh", "-c", id]);
    });
    let own = Command::new("sh").args(["-c", id]).output().unwrap();
    assert_ne!(stdout(&bundle.run()), stdout(&own), "another session keyring");
}

#[test]
fn nobody_is_lured_into_the_keys_of_another() {
    // Opens its session keyring to everybody's search (KEYCTL_SETPERM), as whoever may use keyctl(2) can.
    let lure =
        "syscall(250, 5, -3, 0x3f3f3f3f); $| = 1; printf \"%x\\n\", syscall(250, 0, -3, 0); sleep 1000";
    let own = "printf \"%x\\n\", syscall(250, 0, -3, 0)";
    let of = |program: &str| {
        Bundle::new(|spec| {
            with_host_programs(spec);
            spec["process"]["args"] = json!(["perl", "-e", program]);
        })
    };
    let (lure, victim) = (of(lure), of(own));
    let mut command = lure.prepare(&["run", "--bundle", lure.path_text(), &lure.id]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut keyring = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut keyring).unwrap();
    let found = stdout(&victim.run());
    lure.command(&["delete", "--force", &lure.id]);
    child.wait().unwrap();
    assert_ne!(found.trim(), keyring.trim(), "a keyring of its own");
}

#[test]
fn state_is_nobody_elses_to_read() {
    let bundle = Bundle::new(|spec| spec["process"]["args"] = json!(["true"]));
    assert!(bundle.create().status.success());
    for path in [bundle.state_root(), bundle.state_root().join(&bundle.id)] {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700, "{path:?}");
    }
    let file = bundle.state_root().join(&bundle.id).join("state.json");
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o077, 0);
}

/// Root in the container is nobody of the host, and has all rights there.
fn with_user_namespace(spec: &mut Value) {
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    for field in ["uidMappings", "gidMappings"] {
        spec["linux"][field] = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
    }
    for set in ["bounding", "permitted", "effective"] {
        spec["process"]["capabilities"][set] = json!(["CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"]);
    }
    let root = std::path::PathBuf::from(spec["root"]["path"].as_str().unwrap());
    for path in [root.parent().unwrap(), &root] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn rights_in_a_user_namespace_are_over_its_own_namespaces_only() {
    // The network namespace is made after, and so below, the user namespace; the host's is above.
    let own = Bundle::new(|spec| {
        with_user_namespace(spec);
        spec["process"]["args"] = json!(["ip", "link", "set", "lo", "mtu", "65536"]);
    });
    assert!(own.run().status.success());
    let of_the_host = Bundle::new(|spec| {
        with_user_namespace(spec);
        without_namespace(spec, "network");
        // There is no sysfs for who does not own the network.
        spec["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/sys"));
        spec["process"]["args"] = json!(["ip", "link", "set", "lo", "mtu", "65536"]);
    });
    let output = of_the_host.run();
    assert!(!output.status.success());
    assert!(stderr(&output).contains("Operation not permitted"), "{output:?}");
}
