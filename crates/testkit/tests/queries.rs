//! What requests say in their queries and small bodies: signals, sizes of terminals, detach keys, platforms, filters.
#![allow(clippy::expect_used, clippy::too_many_lines, reason = "a test program")]

use std::io::{Read, Write};

use ponton_testkit::tar::Tar;
use ponton_testkit::{Api, Daemon, Registry, wait};
use serde_json::{Value, json};

/// A connection behind the head of its answer.
fn upgraded(api: &Api, path: &str, body: &Value) -> std::os::unix::net::UnixStream {
    let headers = "Content-Type: application/json\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n";
    let mut stream = api.open("POST", path, headers, body.to_string().as_bytes()).expect("a connection");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("the head of the answer");
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{path}: {}", String::from_utf8_lossy(&head));
    stream
}

/// What comes until the connection ends.
fn rest(mut stream: impl Read) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("the rest");
    String::from_utf8_lossy(&bytes).into_owned()
}

fn start(api: &Api, name: &str, body: &Value) {
    api.post(&format!("/containers/create?name={name}"), body).expect(201);
    api.request("POST", &format!("/containers/{name}/start?detachKeys=ctrl-x"), None).expect(204);
}

#[test]
fn terminals_of_execs_have_the_size_that_is_asked_for() {
    let daemon = Daemon::start();
    let api = daemon.api();
    start(&api, "box", &json!({"Image": "busybox", "Cmd": ["sleep", "1000"]}));
    let make = |script: &str, tty: bool, size: Value| {
        let cmd = ["sh", "-c", script];
        let made = api.post(
            "/containers/box/exec",
            &json!({"Tty": tty, "ConsoleSize": size, "Cmd": cmd, "AttachStdout": true, "AttachStderr": true}),
        );
        made.expect(201).json()["Id"].as_str().expect("an id").to_owned()
    };
    let run = |id: &str, body: &Value| rest(upgraded(&api, &format!("/exec/{id}/start"), body));
    let size = make("stty size", true, json!([40, 100]));
    assert_eq!(run(&size, &json!({"Tty": true})), "40 100\r\n");
    let size = make("stty size", true, Value::Null);
    let started = format!("/exec/{size}/start");
    let by_start = upgraded(&api, &started, &json!({"Tty": true, "ConsoleSize": [41, 101]}));
    assert_eq!(rest(by_start), "41 101\r\n");
    // The start says whether the output has frames, as with dockerd.
    let framed = make("echo out", true, Value::Null);
    assert_eq!(run(&framed, &json!({"Tty": false})), "\u{1}\0\0\0\0\0\0\u{5}out\r\n");
    let raw = make("echo out", false, Value::Null);
    assert_eq!(run(&raw, &json!({"Tty": true})), "out\n");

    let waiting =
        make("trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.1; done", true, Value::Null);
    let mut stream = upgraded(&api, &format!("/exec/{waiting}/start"), &json!({"Tty": true}));
    let mut ready = [0; 7];
    stream.read_exact(&mut ready).expect("its word");
    api.request("POST", &format!("/exec/{waiting}/resize?h=30&w=70"), None).expect(200);
    assert_eq!(rest(stream), "30 70\r\n");
    api.request("POST", &format!("/exec/{waiting}/resize?h=30&w=70"), None).expect(409);
    api.request("POST", &format!("/exec/{waiting}/resize?h=x&w=70"), None).expect(400);
}

#[test]
fn containers_are_attached_to_and_ended_as_the_query_says() {
    let daemon = Daemon::start();
    let api = daemon.api();
    let script = "trap 'echo usr; exit 5' USR1; trap 'echo quit; exit 6' QUIT; echo ready; while :; do sleep 0.1; done";
    start(&api, "box", &json!({"Image": "busybox", "Cmd": ["sh", "-c", script], "StopSignal": "SIGQUIT"}));
    let logged = || daemon.ponton(&["logs", "box"]).ok();
    wait::until("the container", || (logged() == "ready").then_some(()));
    api.request("POST", "/containers/box/restart?signal=SIGUSR1&t=60", None).expect(204);
    wait::until("the next run", || (logged() == "ready\nusr\nready").then_some(()));
    api.request("POST", "/containers/box/stop?signal=SIGUSR1&t=60", None).expect(204);
    assert_eq!(logged(), "ready\nusr\nready\nusr");
    api.request("POST", "/containers/box/start", None).expect(204);
    wait::until("the third run", || logged().ends_with("usr\nready").then_some(()));
    // Older clients have no such word.
    api.request("POST", "/v1.41/containers/box/stop?signal=SIGUSR1&t=60", None).expect(204);
    assert!(logged().ends_with("ready\nquit"), "{}", logged());

    let cat = json!({"Image": "busybox", "Cmd": ["sh", "-c", "echo before; exec cat"], "Tty": true, "OpenStdin": true});
    start(&api, "cat", &cat);
    wait::until("its word", || (daemon.ponton(&["logs", "cat"]).ok() == "before").then_some(()));
    let attach = "/containers/cat/attach?stream=1&stdin=1&stdout=1&logs=1&detachKeys=ctrl-a,b";
    let mut stream =
        api.open("POST", attach, "Connection: Upgrade\r\nUpgrade: tcp\r\n", b"").expect("a connection");
    stream.write_all(b"x\x01b").expect("typed");
    let seen = rest(&stream);
    assert!(seen.starts_with("HTTP/1.1 101 ") && seen.contains("\r\n\r\nbefore\r\n"), "{seen:?}");
    assert_eq!(api.get("/containers/cat/json").json()["State"]["Running"], true);
    api.request("POST", "/containers/cat/attach?detachKeys=nosuch", None).expect(400);

    // Without copyUIDGID files keep their owners; with it they get the container's.
    start(&api, "owned", &json!({"Image": "busybox", "User": "1000:7", "Cmd": ["sleep", "1000"]}));
    for (query, owner) in [("", "0 0"), ("&copyUIDGID=1", "1000 7")] {
        let tar = Tar::default().file("copied", "content").finish();
        let headers = "Content-Type: application/x-tar\r\nConnection: close\r\n";
        let path = format!("/containers/owned/archive?path=/tmp{query}");
        let put = api.open("PUT", &path, headers, &tar).expect("a connection");
        assert!(rest(put).starts_with("HTTP/1.1 200 "), "{path}");
        let shown = daemon.ponton(&["exec", "owned", "stat", "-c", "%u %g", "/tmp/copied"]).ok();
        assert_eq!(shown, owner);
    }

    for (platform, status) in [("linux/amd64", 201), ("linux/s390x", 404)] {
        let path = format!("/containers/create?platform={platform}&name=there");
        let wanted = if cfg!(target_arch = "x86_64") { status } else { 404 };
        api.request("POST", &path, Some(&json!({"Image": "busybox"}))).expect(wanted);
    }
}

/// A JSON value in a query.
fn encoded(value: &Value) -> String {
    value.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn images_are_asked_for_by_platform() {
    let daemon = Daemon::start();
    let registry = Registry::open(&daemon.namespace());
    let api = daemon.api();
    let own = api.get("/images/busybox/json").expect(200).json()["Architecture"].take();
    let platform = |architecture: &Value| encoded(&json!({"os": "linux", "architecture": architecture}));
    let (own, other) = (platform(&own), platform(&json!("s390x")));
    let name = registry.reference("busybox:1");
    daemon.ponton(&["tag", "busybox", &name]).ok();
    let saved = api.get(&format!("/images/busybox/get?platform={own}")).expect(200).body;
    for (wanted, is_there) in [(&own, true), (&other, false)] {
        let status = if is_there { 200 } else { 404 };
        api.get(&format!("/images/busybox/json?platform={wanted}")).expect(status);
        api.get(&format!("/images/busybox/history?platform={wanted}")).expect(status);
        api.get(&format!("/images/busybox/get?platform={wanted}")).expect(status);
        api.get(&format!("/images/get?names=busybox&platform={wanted}")).expect(status);
        let path = format!("/images/load?quiet=1&platform={wanted}");
        let headers = "Content-Type: application/x-tar\r\nConnection: close\r\n";
        let loaded = rest(api.open("POST", &path, headers, &saved).expect("a connection"));
        assert_eq!(loaded.contains("Loaded image: busybox:latest"), is_there, "{loaded}");
        let path = format!("/images/{name}/push?platform={wanted}");
        let headers = "X-Registry-Auth: e30=\r\nConnection: close\r\n";
        let pushed = rest(api.open("POST", &path, headers, b"").expect("a connection"));
        assert_eq!(pushed.contains("1: digest: sha256:"), is_there, "{pushed}");
    }
    api.get("/images/busybox/json?platform=%7B").expect(400);
    let there = api.get(&format!("/distribution/{name}/json")).expect(200).json();
    assert_eq!(there["Descriptor"]["digest"], registry.digest("busybox:1"), "{there}");
    assert_eq!(there["Platforms"][0]["os"], "linux", "{there}");
    api.get(&format!("/distribution/{}/json", registry.reference("nosuch"))).expect(404);

    let inspected = api.get("/images/busybox/json?manifests=1").expect(200).json();
    assert_eq!(inspected["Manifests"][0]["Kind"], "image", "{inspected}");
    let path = format!("/images/busybox/json?manifests=1&platform={own}");
    api.get(&path).expect(400);
    // Two images share the layer; one of them has no name, and is listed all the same.
    api.post("/containers/create?name=maker", &json!({"Image": "busybox", "Cmd": ["true"]})).expect(201);
    api.post("/commit?container=maker&comment=second", &json!({})).expect(201);
    let images = api.get("/images/json?shared-size=1&all=1").expect(200).json();
    let images = images.as_array().expect("a list");
    assert_eq!(images.len(), 2, "{images:?}");
    assert!(images.iter().all(|image| image["SharedSize"] == image["Size"]), "{images:?}");
    assert_eq!(api.get("/images/json").expect(200).json()[0]["SharedSize"], -1);
    // With noprune nothing goes but the image itself: its parent stays, which lost its name.
    api.post("/commit?container=maker&repo=parent", &json!({"Cmd": ["one"]})).expect(201);
    let parent = api.get("/images/parent/json").json()["Id"].as_str().expect("an id").to_owned();
    api.post("/containers/create?name=child", &json!({"Image": "parent"})).expect(201);
    api.post("/commit?container=child&repo=parent", &json!({"Cmd": ["two"]})).expect(201);
    api.request("DELETE", "/containers/child", None).expect(204);
    let removed = api.request("DELETE", "/images/parent?noprune=1", None).expect(200).json();
    assert_eq!(removed.as_array().map(Vec::len), Some(2), "{removed}");
    api.get(&format!("/images/{parent}/json")).expect(200);

    let used = |query: &str| api.get(&format!("/v1.53/system/df?{query}")).expect(200).json();
    let one = used("type=container");
    assert!(one["ContainerUsage"]["TotalCount"] == 1 && one["ImageUsage"] == Value::Null, "{one}");
    let all = api.get("/v1.53/system/df?verbose=1").expect(200).json();
    assert!(all["ImageUsage"]["Items"].is_array() && all["VolumeUsage"]["Items"].is_array(), "{all}");
    api.get("/v1.53/system/df?type=nosuch").expect(400);
}

/// A registry that knows only how to be searched: what it is asked is in its answer.
fn answer_searches(daemon: &Daemon) {
    let (ready, is_ready) = std::sync::mpsc::channel();
    daemon.namespace().spawn(move || {
        let listener = std::net::TcpListener::bind("127.0.0.1:5001").expect("a port");
        ready.send(()).expect("the test waits");
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read_exact(&mut byte).is_err() {
                    break;
                }
                request.push(byte[0]);
                // It knows no TLS, and ends what begins with it.
                if request[0] != b'G' {
                    break;
                }
            }
            if request.first() != Some(&b'G') {
                continue;
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            let target = request.split(' ').nth(1).unwrap_or_default();
            let body = json!({"num_results": 2, "results": [
                {"name": "one", "description": target, "star_count": 7, "is_official": true},
                {"name": "two", "description": "", "star_count": 1, "is_official": false}]})
            .to_string();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    is_ready.recv().expect("the registry");
}

#[test]
fn lists_and_searches_heed_their_filters() {
    let daemon = Daemon::start();
    let api = daemon.api();
    answer_searches(&daemon);
    let found = api.get("/images/search?term=127.0.0.1:5001/box&limit=5").expect(200).json();
    let asked = found[0]["description"].as_str().unwrap_or_default().to_owned();
    assert!(asked.contains("q=box") && asked.contains("n=5"), "{found}");
    let popular = encoded(&json!({"stars": ["3"]}));
    let path = format!("/images/search?term=127.0.0.1:5001/box&filters={popular}");
    let found = api.get(&path).expect(200).json();
    assert_eq!((found.as_array().map(Vec::len), &found[0]["name"]), (Some(1), &json!("one")), "{found}");
    api.get("/images/search?term=x&limit=500").expect(400);

    let unknown = encoded(&json!({"nosuch": ["x"]}));
    let host = encoded(&json!({"driver": ["host"]}));
    let networks = api.get(&format!("/networks?filters={host}")).expect(200).json();
    assert_eq!((networks.as_array().map(Vec::len), &networks[0]["Name"]), (Some(1), &json!("host")));
    api.get(&format!("/networks?filters={unknown}")).expect(400);
    let bridge = api.get("/networks/bridge?verbose=1&scope=local").expect(200).json();
    assert_eq!(bridge["Driver"], "bridge");
    api.get("/networks/bridge?scope=swarm").expect(404);
    let old = encoded(&json!({"until": ["1h"]}));
    let pruned = api.request("POST", &format!("/networks/prune?filters={old}"), None).expect(200).json();
    assert_eq!(pruned["NetworksDeleted"], Value::Null);
    api.request("POST", &format!("/networks/prune?filters={unknown}"), None).expect(400);

    let enabled = encoded(&json!({"enabled": ["true"]}));
    assert_eq!(api.get(&format!("/plugins?filters={enabled}")).expect(200).json(), json!([]));
    api.get(&format!("/plugins?filters={unknown}")).expect(400);
    api.get("/plugins/own/json").expect(404);

    api.post("/volumes/create", &json!({"Name": "kept", "Driver": "local"})).expect(201);
    api.post("/volumes/create", &json!({"Name": "other", "Driver": "own"})).expect(404);
    let of_cluster = json!({"Name": "clustered", "Driver": "local", "ClusterVolumeSpec": {"Group": "some"}});
    let answer = api.post("/volumes/create", &of_cluster).expect(501);
    assert!(answer.text().contains("ClusterVolumeSpec"), "{}", answer.text());
    // It forgives that there is none, and nothing else.
    let body = json!({"Image": "busybox", "HostConfig": {"Binds": ["kept:/data"]}});
    api.post("/containers/create?name=user", &body).expect(201);
    api.request("DELETE", "/volumes/kept?force=1", None).expect(409);
    api.request("DELETE", "/containers/user", None).expect(204);
    api.request("DELETE", "/volumes/kept?force=1", None).expect(204);
    api.request("DELETE", "/volumes/kept?force=1", None).expect(204);
    api.request("DELETE", "/volumes/kept", None).expect(404);
}
