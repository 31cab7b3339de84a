//! The command line around its commands: contexts, docker's configuration, hints, what is not built.
#![allow(clippy::expect_used, reason = "a test program")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::process::Command;

use ponton_testkit::{Daemon, Ran, daemon};

/// Runs a client with a configuration directory of its own, and without what the test's caller has in its environment.
fn client(program: &str, config: &std::path::Path, args: &[&str]) -> Ran {
    let path = if program == "ponton" { daemon::binaries().join("ponton") } else { program.into() };
    let mut command = Command::new(path);
    command.args(args).env("DOCKER_CONFIG", config);
    for name in ["DOCKER_HOST", "PONTON_HOST", "DOCKER_CONTEXT", "DOCKER_API_VERSION"] {
        command.env_remove(name);
    }
    daemon::run(&mut command, b"")
}

#[test]
fn contexts_are_shared_with_dockers_client() {
    let daemon = Daemon::start();
    daemon.ponton(&["run", "-d", "--name", "box", "busybox", "sleep", "1000"]).ok();
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path();
    fs::write(config.join("config.json"), "{\"auths\": {\"x\": {}}, \"psFormat\": \"{{.Names}}\"}")
        .expect("write");
    let host = format!("host={}", daemon.host());
    let ours = |args: &[&str]| client("ponton", config, args);
    let theirs = |args: &[&str]| client("docker", config, args);

    assert_eq!(
        ours(&["context", "create", "mine", "--docker", &host, "--description", "a test"]).ok(),
        "mine"
    );
    assert_eq!(theirs(&["context", "create", "his", "--docker", &host]).ok(), "his");
    for run in [&ours as &dyn Fn(&[&str]) -> Ran, &theirs] {
        assert_eq!(run(&["context", "ls", "-q"]).ok(), "default\nhis\nmine");
        assert_eq!(run(&["context", "inspect", "mine", "-f", "{{.Name}}"]).ok(), "mine");
    }
    for args in [&["context", "inspect", "mine"][..], &["context", "inspect", "mine", "his"]] {
        assert_eq!(ours(args).stdout, theirs(args).stdout);
    }
    assert_eq!(ours(&["--context", "his", "ps"]).ok(), "box");
    assert_eq!(ours(&["context", "use", "mine"]).ok(), "mine");
    assert_eq!(theirs(&["context", "show"]).ok(), "mine");
    assert_eq!(theirs(&["ps"]).ok(), "box");
    assert_eq!(ours(&["ps"]).ok(), "box", "the context and the format of config.json");
    assert_eq!(
        ours(&["context", "ls"]).stdout,
        theirs(&["context", "ls"])
            .stdout
            .replace("unix:///var/run/docker.sock       ", "unix:///run/ponton/ponton.sock    ",)
    );
    // What is not ours in the file stays.
    let text = fs::read_to_string(config.join("config.json")).expect("read");
    assert!(text.contains("\"auths\"") && text.contains("\"currentContext\": \"mine\""), "{text}");

    let exported = config.join("mine.tar");
    ours(&["context", "export", "mine", &exported.to_string_lossy()]).ok();
    assert_eq!(theirs(&["context", "import", "again", &exported.to_string_lossy()]).ok(), "again");
    assert_eq!(ours(&["context", "update", "again", "--description", "new"]).ok(), "again");
    let shown = theirs(&["context", "inspect", "again"]).ok();
    assert!(shown.contains("\"Description\": \"new\""), "{shown}");

    for args in [
        &["context", "rm", "mine"][..],
        &["context", "rm", "nosuch"],
        &["context", "use", "nosuch"],
        &["context", "create", "mine"],
        &["context", "create", "default"],
        &["context", "create", "a b"],
        &["context", "create", "new", "--docker", "nosuch=1"],
        &["--context", "nosuch", "ps"],
        &["--context", "mine", "-H", "unix:///x", "ps"],
    ] {
        let (a, b) = (ours(args), theirs(args));
        assert_eq!((a.code, a.stdout), (b.code, b.stdout), "{args:?}");
        assert_eq!(a.stderr, b.stderr.replace("Failed to initialize: ", ""), "{args:?}");
    }
    assert_eq!(ours(&["context", "rm", "-f", "mine", "his", "again"]).ok(), "mine\nhis\nagain");
    assert_eq!(theirs(&["context", "show"]).ok(), "default");
}

#[test]
fn dockers_configuration_is_obeyed() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("config.json");
    let settled =
        r#"{"HttpHeaders": {"X-Own": "mine"}, "imagesFormat": "{{.ID}}", "detachKeys": "nonsense,keys"}"#;
    fs::write(&config, settled).expect("write");
    let socket = directory.path().join("socket");
    let listener = UnixListener::bind(&socket).expect("listen");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        while !request.windows(4).any(|window| window == b"\r\n\r\n") {
            let count = stream.read(&mut buffer).expect("read");
            request.extend_from_slice(&buffer[..count]);
        }
        let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]";
        stream.write_all(answer.as_bytes()).expect("write");
        String::from_utf8_lossy(&request).into_owned()
    });
    let host = format!("unix://{}", socket.display());
    assert_eq!(client("ponton", directory.path(), &["-H", &host, "images"]).ok(), "");
    let request = server.join().expect("the server").to_lowercase();
    assert!(request.contains("x-own: mine\r\n"), "{request}");

    let keys = client("ponton", directory.path(), &["-H", &host, "run", "busybox"]);
    assert_eq!(keys.code, 125);
    assert!(keys.stderr.contains("Invalid detach keys (nonsense,keys) provided"), "{}", keys.stderr);
    fs::write(&config, "{").expect("write");
    let broken = client("ponton", directory.path(), &["context", "show"]);
    assert_eq!((broken.code, broken.stdout.as_str()), (0, "default\n"));
    assert!(broken.stderr.starts_with("WARNING: Error loading config file: "), "{}", broken.stderr);
}

#[test]
fn proxies_are_told_to_containers() {
    let daemon = Daemon::start();
    let directory = tempfile::tempdir().expect("a directory");
    let proxies = r#"{"proxies": {"default": {"httpProxy": "http://p:1", "noProxy": "local"}}}"#;
    fs::write(directory.path().join("config.json"), proxies).expect("write");
    let script = "env | grep -i proxy | sort";
    let mut outputs = ["ponton", "docker"].map(|program| {
        let args = ["run", "--rm", "-e", "no_proxy=own", "busybox", "sh", "-c", script];
        let mut command = daemon.client(program, &args);
        command.env("DOCKER_CONFIG", directory.path());
        daemon::run(&mut command, b"").ok()
    });
    outputs.sort();
    assert_eq!(outputs[0], outputs[1]);
    assert_eq!(outputs[0], "HTTP_PROXY=http://p:1\nNO_PROXY=local\nhttp_proxy=http://p:1\nno_proxy=own");
}

#[test]
fn errors_are_followed_by_what_to_do() {
    let daemon = Daemon::start();
    daemon.ponton(&["run", "-d", "--name", "web", "-p", "18080:80", "busybox", "sleep", "1000"]).ok();
    let hint = |args: &[&str], code: i32, part: &str| {
        let ran = daemon.ponton(args);
        assert_eq!(ran.code, code, "{args:?}: {}", ran.stderr);
        let (_, hint) =
            ran.stderr.split_once("\nHint: ").unwrap_or_else(|| panic!("no hint: {}", ran.stderr));
        assert!(hint.contains(part), "{args:?}: {hint}");
    };
    hint(
        &["run", "--rm", "-p", "18080:80", "busybox", "true"],
        125,
        "Port 18080 is published by container web",
    );
    hint(&["run", "-d", "--name", "web", "busybox", "true"], 125, "ponton rename web web-old");
    hint(&["run", "--rm", "busybox", "nosuchprogram"], 127, "--entrypoint");
    hint(&["-H", "unix:///nonexistent/socket", "ps"], 1, "ponton context ls");
    // A port of a process that is no container's.
    let mut child =
        daemon.in_namespace("busybox".as_ref()).args(["nc", "-ll", "-p", "18099"]).spawn().expect("nc");
    let publish = "127.0.0.1:18099:80";
    let pid = daemon.namespace_pid();
    let is_taken = |table: &str| {
        let sockets = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        sockets.contains(&format!(":{:04X} ", 18099))
    };
    ponton_testkit::wait::until("the port to be taken", || {
        (is_taken("tcp") || is_taken("tcp6")).then_some(())
    });
    hint(&["run", "--rm", "-p", publish, "busybox", "true"], 125, "which is no container's");
    child.kill().expect("kill");
    child.wait().expect("wait");
    // What succeeds, and what is plain enough, has none.
    for args in [&["ps"][..], &["rm", "nosuch"], &["run", "--nosuchflag", "busybox"]] {
        assert!(!daemon.ponton(args).stderr.contains("Hint:"), "{args:?}");
    }
}

#[test]
fn what_is_not_built_is_not_unknown() {
    let directory = tempfile::tempdir().expect("a directory");
    let run = |args: &[&str]| client("ponton", directory.path(), args);
    for (args, named) in [
        (&["swarm", "init"][..], "ponton swarm init"),
        (&["build", "."], "ponton build"),
        (&["compose", "up", "-d"], "ponton compose up"),
        (&["network", "create", "x"], "ponton network create"),
        (&["plugin", "ls"], "ponton plugin ls"),
    ] {
        let ran = run(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{args:?}");
        assert!(ran.stderr.starts_with(&format!("ponton: '{named}")), "{}", ran.stderr);
        assert!(ran.stderr.contains("is not implemented: "), "{}", ran.stderr);
    }
    let windows = run(&["create", "--cpu-count", "2", "busybox"]);
    assert_eq!(windows.code, 125);
    assert!(windows.stderr.contains("requires the Docker daemon to run on windows"), "{}", windows.stderr);
}
