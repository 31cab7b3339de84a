//! Attaching by WebSocket: frames written and read by hand, beside what an upgrade gives. And checkpoints, as far as
//! each kernel lets them come.
#![allow(clippy::expect_used, reason = "a test program")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use ponton_testkit::{Api, Daemon};
use serde_json::json;

const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A connection behind the head of its answer.
fn web_socket(api: &Api, path: &str) -> UnixStream {
    let mut stream = api.open("GET", path, HANDSHAKE, b"").expect("a connection");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("the head of the answer");
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    stream
}

/// A short frame of a client, which must be masked.
fn send(stream: &mut UnixStream, opcode: u8, payload: &[u8]) {
    let mask = [1, 2, 3, 4];
    let mut frame = vec![0x80 | opcode, 0x80 | payload.len() as u8];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    stream.write_all(&frame).expect("a frame is sent");
}

/// The opcode and the payload of a short frame.
fn receive(stream: &mut UnixStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).expect("a frame");
    assert!(head[1] < 126, "a short frame");
    let mut payload = vec![0; usize::from(head[1])];
    stream.read_exact(&mut payload).expect("its payload");
    (head[0] & 0x0f, payload)
}

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;

#[test]
fn web_sockets_carry_input_and_output() {
    let daemon = Daemon::start();
    let api = daemon.api();
    let script = "while read line; do echo out $line; echo err $line >&2; done; exit 4";
    let body = json!({"Image": "busybox", "Cmd": ["sh", "-c", script], "OpenStdin": true, "StdinOnce": true});
    api.post("/containers/create?name=box", &body).expect(201);
    // Before the start, as `run` does it.
    let mut socket = web_socket(&api, "/v1.53/containers/box/attach/ws?stream=1&stdin=1&stdout=1&stderr=1");
    let mut errors = web_socket(&api, "/v1.53/containers/box/attach/ws?stream=1&stderr=1");
    api.request("POST", "/containers/box/start", None).expect(204);
    send(&mut socket, TEXT, b"one\n");
    let mut said = Vec::new();
    while said.len() < "out one\nerr one\n".len() {
        let (opcode, payload) = receive(&mut socket);
        assert_eq!(opcode, BINARY);
        said.extend(payload);
    }
    let said = String::from_utf8(said).expect("text");
    assert!(said.contains("out one\n") && said.contains("err one\n"), "{said}");
    assert_eq!(receive(&mut errors), (BINARY, b"err one\n".to_vec()));
    // One that comes later, of old clients: text, and what was logged.
    let mut old = web_socket(&api, "/v1.27/containers/box/attach/ws?stream=1&logs=1");
    let mut logged = String::new();
    while logged.len() < said.len() {
        let (opcode, payload) = receive(&mut old);
        assert_eq!(opcode, TEXT);
        logged.push_str(&String::from_utf8(payload).expect("text"));
    }
    assert!(logged.contains("out one\n") && logged.contains("err one\n"), "{logged}");
    // The end of a client's input is the end of the container's.
    send(&mut socket, CLOSE, b"");
    let ended = api.request("POST", "/containers/box/wait", None).expect(200).json();
    assert_eq!(ended["StatusCode"], 4);
    assert_eq!(receive(&mut old).0, CLOSE);
    // The keys end the connection, and not the container.
    let body = json!({"Image": "busybox", "Cmd": ["cat"], "OpenStdin": true, "Tty": true});
    api.post("/containers/create?name=cat", &body).expect(201);
    api.request("POST", "/containers/cat/start", None).expect(204);
    let keys = "/v1.53/containers/cat/attach/ws?stream=1&stdin=1&stdout=1&detachKeys=ctrl-a,b";
    let mut socket = web_socket(&api, keys);
    send(&mut socket, TEXT, b"\x01b");
    while receive(&mut socket).0 != CLOSE {}
    assert_eq!(api.get("/containers/cat/json").json()["State"]["Running"], true);
    for (path, headers, status) in [
        ("/containers/nosuch/attach/ws", HANDSHAKE, 404),
        ("/containers/box/attach/ws", "Connection: close\r\n", 400),
        ("/containers/box/attach/ws?detachKeys=nosuch", HANDSHAKE, 400),
    ] {
        let mut stream = api.open("GET", path, headers, b"").expect("a connection");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer, format!("HTTP/1.1 {status}").as_bytes(), "{path}");
    }
}

#[test]
fn checkpoints_are_experimental_and_need_criu() {
    let plain = Daemon::start();
    let body = json!({"Image": "busybox", "Cmd": ["sleep", "1000"]});
    let make = json!({"CheckpointID": "first"});
    plain.api().post("/containers/create?name=box", &body).expect(201);
    plain.api().post("/containers/box/checkpoints", &make).expect(501);
    let started = plain.api().request("POST", "/containers/box/start?checkpoint=first", None).expect(400);
    assert!(
        started.text().contains("checkpoint is only supported in experimental mode"),
        "{}",
        started.text()
    );

    let daemon = Daemon::start_empty(&["--experimental"]);
    let tar = ponton_testkit::image::busybox();
    daemon.ponton(&["image", "import", &tar.to_string_lossy(), "busybox"]).ok();
    let api = daemon.api();
    assert!(api.get("/_ping").head.to_lowercase().contains("docker-experimental: true"));
    api.post("/containers/create?name=box", &body).expect(201);
    assert!(api.post("/containers/box/checkpoints", &make).expect(409).text().contains("is not running"));
    api.request("POST", "/containers/box/start", None).expect(204);
    let wrong = api.post("/containers/box/checkpoints", &json!({"CheckpointID": "../x"})).expect(400);
    assert!(wrong.text().contains("Invalid checkpoint ID (../x)"), "{}", wrong.text());
    // Without CRIU it says so; what is with it is told elsewhere.
    let made = api.post("/containers/box/checkpoints", &make);
    let needs = made.status == 503 && made.text().contains("criu");
    assert!(needs || made.status == 201, "{}: {}", made.status, made.text());
    api.request("DELETE", "/containers/box/checkpoints/first", None).expect(if needs { 404 } else { 204 });
    assert_eq!(api.get("/containers/box/checkpoints").expect(200).json(), json!([]));
    api.request("DELETE", "/containers/box/checkpoints/first", None).expect(404);
    api.request("DELETE", "/containers/box/nosuch/first", None).expect(404);
    api.request("POST", "/containers/box/start?checkpoint=first", None).expect(304);
    assert_eq!(api.get("/containers/box/json").json()["State"]["Running"], true);
}
