//! Seccomp: actions seen from inside, and the agent that is notified.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::thread;

use serde_json::{Value, json};

use crate::fixture::{Bundle, stderr, stdout, with_host_programs};
use crate::refusal;

#[expect(clippy::needless_pass_by_value, reason = "rules are written where they are used")]
fn policy(spec: &mut Value, rules: Value) {
    spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
}

fn script(script: &str, rules: Value, no_new_privileges: bool) -> Bundle {
    Bundle::new(|spec| {
        with_host_programs(spec);
        spec["process"]["args"] = json!(["/usr/bin/python3", "-c", script]);
        spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
        policy(spec, rules);
    })
}

/// A child makes the call; how that went is printed: `errno n`, `signal n` or `fine`.
const TRY: &str = r#"
import ctypes, os, sys
def attempt(number, *args):
    pid = os.fork()
    if pid == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        result = libc.syscall(number, *args)
        os._exit(0 if result >= 0 else ctypes.get_errno())
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status): return f"signal {os.WTERMSIG(status)}"
    return f"errno {os.WEXITSTATUS(status)}" if os.WEXITSTATUS(status) else "fine"
"#;

#[test]
fn every_action_is_what_the_kernel_then_does() {
    // getppid is 110 here, getpgid 121: nothing else needs them.
    for (action, errno, expected) in [
        ("SCMP_ACT_ALLOW", None, "fine"),
        ("SCMP_ACT_LOG", None, "fine"),
        ("SCMP_ACT_ERRNO", None, "errno 1"),
        ("SCMP_ACT_ERRNO", Some(77), "errno 77"),
        ("SCMP_ACT_KILL", None, "signal 31"),
        ("SCMP_ACT_KILL_THREAD", None, "signal 31"),
        ("SCMP_ACT_KILL_PROCESS", None, "signal 31"),
        ("SCMP_ACT_TRAP", None, "signal 31"),
        // Nobody traces.
        ("SCMP_ACT_TRACE", None, "errno 38"),
    ] {
        let mut rule = json!({"names": ["getpgid", "no_such_call"], "action": action});
        if let Some(errno) = errno {
            rule["errnoRet"] = json!(errno);
        }
        let bundle = script(&format!("{TRY}\nprint(attempt(121, 0))"), json!([rule]), true);
        assert_eq!(stdout(&bundle.run()), format!("{expected}\n"), "{action}");
    }
}

#[test]
fn every_comparison_is_of_the_argument() {
    for (op, value, two, refused) in [
        ("SCMP_CMP_NE", 5, 0, vec![4, 6]),
        ("SCMP_CMP_LT", 5, 0, vec![4]),
        ("SCMP_CMP_LE", 5, 0, vec![4, 5]),
        ("SCMP_CMP_EQ", 5, 0, vec![5]),
        ("SCMP_CMP_GE", 5, 0, vec![5, 6]),
        ("SCMP_CMP_GT", 5, 0, vec![6]),
        ("SCMP_CMP_MASKED_EQ", 1, 1, vec![5]),
    ] {
        let args = json!([{"index": 1, "value": value, "valueTwo": two, "op": op}]);
        let rule = json!({"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99, "args": args});
        let code = format!("{TRY}\nprint([n for n in (4, 5, 6) if attempt(121, 0, n) == 'errno 99'])");
        let output = stdout(&script(&code, json!([rule]), true).run());
        assert_eq!(output.trim(), format!("{refused:?}"), "{op}");
    }
}

#[test]
fn flags_are_taken_or_refused_by_name() {
    let with = |flags: Value| {
        let bundle = Bundle::script("true");
        let mut spec = bundle.spec();
        policy(&mut spec, json!([{"names": ["getpgid"], "action": "SCMP_ACT_ERRNO"}]));
        spec["linux"]["seccomp"]["flags"] = flags;
        bundle.write_spec(&spec);
        bundle
    };
    let all = json!([
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    ]);
    let output = with(all).run();
    assert!(output.status.success(), "{output:?}");
    assert!(refusal(&with(json!(["SECCOMP_FILTER_FLAG_X"]))).contains("linux.seccomp.flags"));
}

#[test]
fn an_error_number_where_none_is_returned_is_refused() {
    for action in ["SCMP_ACT_ALLOW", "SCMP_ACT_KILL", "SCMP_ACT_NOTIFY"] {
        let rule = json!({"names": ["getpgid"], "action": action, "errnoRet": 5});
        assert!(
            refusal(&script("", json!([rule]), true)).contains("does not return an error number"),
            "{action}"
        );
    }
}

#[test]
fn notifications_need_somebody_who_listens() {
    let rules = json!([{"names": ["mkdirat", "mkdir"], "action": "SCMP_ACT_NOTIFY"}]);
    let with = |change: &dyn Fn(&mut Value)| {
        let bundle = script("", rules.clone(), true);
        let mut spec = bundle.spec();
        change(&mut spec["linux"]["seccomp"]);
        bundle.write_spec(&spec);
        refusal(&bundle)
    };
    assert!(with(&|_| {}).contains("linux.seccomp.listenerPath"));
    assert!(
        with(&|policy| policy["listenerMetadata"] = json!("x")).contains("linux.seccomp.listenerMetadata")
    );
    let all = with(&|policy| policy["defaultAction"] = json!("SCMP_ACT_NOTIFY"));
    assert!(all.contains("linux.seccomp.defaultAction"), "{all}");
    let own = with(&|policy| policy["syscalls"][0]["names"] = json!(["sendmsg", "write"]));
    assert!(own.contains("linux.seccomp.syscalls[0]: SCMP_ACT_NOTIFY cannot be for write"), "{own}");
    let nobody = with(&|policy| policy["listenerPath"] = json!("/no/such/socket"));
    assert!(nobody.contains("linux.seccomp.listenerPath") && nobody.contains("/no/such/socket"), "{nobody}");
}

/// Takes one connection: the state, and the listener that came with it.
fn agent(path: &std::path::Path) -> thread::JoinHandle<(Value, OwnedFd)> {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
        let mut buffer = vec![0; 65536];
        let mut slices = [std::io::IoSliceMut::new(&mut buffer)];
        let received =
            rustix::net::recvmsg(&stream, &mut slices, &mut control, rustix::net::RecvFlags::CMSG_CLOEXEC);
        let length = received.unwrap().bytes;
        let mut fds = Vec::new();
        for message in control.drain() {
            if let rustix::net::RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        let mut text = buffer[..length].to_vec();
        stream.read_to_end(&mut text).unwrap();
        assert_eq!(fds.len(), 1);
        (serde_json::from_slice(&text).unwrap(), fds.pop().unwrap())
    })
}

/// Python that answers each notification on the descriptor that it is told with errno 95, until nobody is left.
/// `struct seccomp_notif` has 80 bytes, the answer 24 (seccomp_unotify(2)).
const ANSWER: &str = r"
import fcntl, struct, sys
listener = int(sys.argv[1])
while True:
    try:
        request = fcntl.ioctl(listener, 0xc0502100, bytes(80))
        fcntl.ioctl(listener, 0xc0182101, request[:8] + struct.pack('=qiI', 0, -95, 0))
    except OSError:
        break
";

#[test]
fn the_agent_gets_the_listener_and_the_state() {
    use std::os::fd::AsRawFd;
    // With sendmsg, by which the runtime would have sent the listener.
    let calls = [json!(["mkdir", "mkdirat"]), json!(["mkdir", "sendmsg", "recvmsg"])];
    for (no_new_privileges, calls) in
        [(true, &calls[0]), (false, &calls[0]), (true, &calls[1]), (false, &calls[1])]
    {
        // The call with which the child ends what it was told: made after the filter, by the runtime too.
        let rules = json!([{"names": calls, "action": "SCMP_ACT_NOTIFY"}]);
        let bundle = script(&format!("{TRY}\nprint(attempt(83, b'/tmp/x', 0))"), rules, no_new_privileges);
        let path = bundle.path().join("agent");
        let mut spec = bundle.spec();
        spec["linux"]["seccomp"]["listenerPath"] = json!(path);
        spec["linux"]["seccomp"]["listenerMetadata"] = json!("some words");
        spec["annotations"] = json!({"a": "b"});
        bundle.write_spec(&spec);
        let taken = agent(&path);
        let answering = thread::spawn(move || {
            let (state, listener) = taken.join().unwrap();
            let mut answers = std::process::Command::new("/usr/bin/python3");
            let number = listener.as_raw_fd().to_string();
            rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
            (state, answers.args(["-c", ANSWER, &number]).spawn().unwrap())
        });
        let output = bundle.run();
        assert_eq!(stdout(&output), "errno 95\n", "{}", stderr(&output));
        let (state, mut answers) = answering.join().unwrap();
        answers.kill().unwrap();
        answers.wait().unwrap();
        assert_eq!((&state["fds"], &state["metadata"]), (&json!(["seccompFd"]), &json!("some words")));
        assert_eq!(state["state"]["id"], json!(bundle.id));
        assert_eq!(state["state"]["status"], "creating");
        assert_eq!(state["state"]["annotations"]["a"], "b");
        assert!(state["pid"].as_u64().unwrap() > 1 && state["pid"] == state["state"]["pid"]);
    }
}
