//! Capabilities, limits, ids, keyrings.

use serde_json::{Value, json};

use crate::fixture::{Bundle, stderr, stdout};
use crate::refusal;

#[test]
fn all_five_capability_sets_are_those_of_the_spec() {
    let bundle = Bundle::new(|spec| {
        spec["process"]["args"] = json!(["grep", "^Cap", "/proc/self/status"]);
        spec["process"]["user"] = json!({"uid": 33, "gid": 34});
        spec["process"]["capabilities"] = json!({
            "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_NET_BIND_SERVICE"],
            "permitted": ["CAP_KILL", "CAP_CHOWN"],
            "effective": ["CAP_KILL"],
            "inheritable": ["CAP_CHOWN"],
            "ambient": ["CAP_CHOWN"],
        });
    });
    // CHOWN is 0, KILL 5, NET_BIND_SERVICE 10. What is ambient is permitted and effective after execve,
    // and nothing else is to a user that is not root (capabilities(7)).
    let expected = "CapInh:\t0000000000000001\nCapPrm:\t0000000000000001\nCapEff:\t0000000000000001\n\
                    CapBnd:\t0000000000000421\nCapAmb:\t0000000000000001\n";
    assert_eq!(stdout(&bundle.run()), expected);
}

#[test]
fn unknown_capabilities_are_warned_of() {
    let bundle = Bundle::new(|spec| {
        spec["process"]["args"] = json!(["grep", "CapBnd", "/proc/self/status"]);
        spec["process"]["capabilities"] = json!({"bounding": ["CAP_KILL", "CAP_FLY", "KILL"]});
    });
    let output = bundle.run();
    assert_eq!(stdout(&output), "CapBnd:\t0000000000000020\n");
    let text = stderr(&output);
    assert!(
        text.contains("warning: process.capabilities.bounding: unknown capability \"CAP_FLY\""),
        "{text}"
    );
    assert!(text.contains("unknown capability \"KILL\""), "{text}");
}

#[test]
fn limits_are_those_of_the_spec() {
    let with = |limits: Value, script: &str| {
        Bundle::new(|spec| {
            spec["process"]["args"] = json!(["sh", "-c", script]);
            spec["process"]["rlimits"] = limits;
        })
    };
    let limits = json!([
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]);
    let script = "ulimit -S -n; ulimit -H -n; ulimit -S -c";
    assert_eq!(stdout(&with(limits, script).run()), "100\n200\n0\n");
    let twice = json!([
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]);
    assert!(refusal(&with(twice, "")).contains("process.rlimits[1]: a second RLIMIT_CORE"));
    let unknown = json!([{"type": "RLIMIT_LUCK", "soft": 0, "hard": 0}]);
    assert!(refusal(&with(unknown, "")).contains("process.rlimits[0]: unknown limit \"RLIMIT_LUCK\""));
    // Above the hard limit that we have: with CAP_SYS_RESOURCE only, and files have the kernel's own.
    let high = json!([{"type": "RLIMIT_NOFILE", "soft": 1_u64 << 40, "hard": 1_u64 << 40}]);
    assert!(refusal(&with(high, "")).contains("set RLIMIT_NOFILE (process.rlimits)"));
}

#[test]
fn the_score_for_a_lack_of_memory_is_the_one_of_the_spec() {
    let score = |value: i32| {
        Bundle::new(|spec| {
            spec["process"]["args"] = json!(["cat", "/proc/self/oom_score_adj"]);
            spec["process"]["oomScoreAdj"] = json!(value);
        })
    };
    assert_eq!(stdout(&score(500).run()), "500\n");
    assert!(refusal(&score(1001)).contains("process.oomScoreAdj"));
    let output = score(-1000).run();
    if output.status.success() {
        assert_eq!(stdout(&output), "-1000\n");
    } else {
        let text = stderr(&output);
        assert!(text.contains("oom_score_adj") && text.contains("ermission"), "{text}");
    }
}

#[test]
fn ids_umask_and_new_privileges_are_those_of_the_spec() {
    let script = "id -u; id -g; id -G; umask; grep NoNewPrivs /proc/self/status";
    let bundle = Bundle::new(|spec| {
        spec["process"]["args"] = json!(["sh", "-c", script]);
        spec["process"]["user"] = json!({"uid": 5, "gid": 6, "umask": 0o27, "additionalGids": [9, 10]});
        spec["process"]["noNewPrivileges"] = json!(false);
    });
    assert_eq!(stdout(&bundle.run()), "5\n6\n6 9 10\n0027\nNoNewPrivs:\t0\n");
}

#[test]
fn the_session_keyring_is_new_unless_it_is_not_to_be() {
    // Its id, by keyctl(2): KEYCTL_GET_KEYRING_ID of KEY_SPEC_SESSION_KEYRING.
    let script = "import ctypes; print(ctypes.CDLL(None).syscall(250, 0, -3, 0))";
    let bundle = || {
        Bundle::new(|spec| {
            crate::fixture::with_host_programs(spec);
            spec["process"]["args"] = json!(["/usr/bin/python3", "-c", script]);
        })
    };
    let keyring = |options: &[&str]| {
        let bundle = bundle();
        let mut args = vec!["run"];
        args.extend(options);
        args.extend(["--bundle", bundle.path_text(), &bundle.id]);
        stdout(&bundle.command(&args))
    };
    let (first, second) = (keyring(&[]), keyring(&[]));
    if first.trim() == "-1" {
        return assert_eq!(second.trim(), "-1", "no keyrings here");
    }
    assert_ne!(first, second, "each has its own");
    assert_eq!(keyring(&["--no-new-keyring"]), keyring(&["--no-new-keyring"]), "the caller's");
}

/// A terminal has the size of the spec; without one the size is ignored.
#[test]
fn a_console_size_needs_a_terminal() {
    let bundle = Bundle::new(|spec| {
        spec["process"]["args"] = json!(["true"]);
        spec["process"]["consoleSize"] = json!({"height": 70000, "width": 80});
    });
    assert!(bundle.run().status.success());
    let bundle = Bundle::new(|spec| {
        spec["process"]["args"] = json!(["stty", "size"]);
        spec["process"]["terminal"] = json!(true);
        spec["process"]["consoleSize"] = json!({"height": 33, "width": 111});
    });
    assert_eq!(stdout(&bundle.run()).trim(), "33 111");
}
