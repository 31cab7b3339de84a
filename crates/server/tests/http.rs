//! The API over a real socket: what a client sees of HTTP itself, whatever the engine answers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ponton_engine::{Engine, EngineConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A server on a socket of its own, until it is dropped.
struct Server {
    root: tempfile::TempDir,
    end: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let config = EngineConfig::new(root.path().join("data"), root.path().join("exec"), "/bin/false");
        let engine: Arc<Engine> = Engine::open(config).await.unwrap();
        let listener = UnixListener::bind(root.path().join("sock")).unwrap();
        let (end, ended) = oneshot::channel::<()>();
        let task = tokio::spawn(ponton_server::serve(listener, engine, async {
            let _ = ended.await;
        }));
        Self { root, end: Some(end), task }
    }

    fn socket(&self) -> PathBuf {
        self.root.path().join("sock")
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.socket()).await.unwrap()
    }

    /// Sends a request, and reads until the server closes the connection.
    async fn send(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await;
        read.expect("the server closes the connection").unwrap();
        String::from_utf8(answer).unwrap()
    }

    async fn get(&self, path: &str) -> String {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")).await
    }

    async fn post(&self, path: &str, content_type: &str, body: &str) -> String {
        self.send(&format!(
            "POST {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n{content_type}Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await
    }
}

const IS_JSON: &str = "Content-Type: application/json\r\n";

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap_or_default().1
}

#[tokio::test]
async fn ping_tells_what_can_be_negotiated() {
    let server = Server::start().await;
    let answer = server.get("/_ping").await;
    assert_eq!((status(&answer), body(&answer)), ("200", "OK"));
    let head = answer.to_ascii_lowercase();
    for header in [
        "api-version: 1.53",
        "ostype: linux",
        "docker-experimental: false",
        "swarm: inactive",
        "server: ponton/",
    ] {
        assert!(head.contains(header), "{answer}");
    }
    let answer = server.send("HEAD /v1.24/_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n").await;
    assert_eq!((status(&answer), body(&answer)), ("200", ""));
}

#[tokio::test]
async fn errors_are_json_with_dockers_status() {
    let server = Server::start().await;
    let cases = [
        (server.get("/nosuch").await, "404", "page not found"),
        (
            server.get("/v1.99/info").await,
            "400",
            "client version 1.99 is too new. Maximum supported API version is 1.53",
        ),
        (server.get("/containers/json?filters=x").await, "400", "invalid filter"),
        (server.get("/containers/json?limit=x").await, "400", r#"invalid limit: \"x\" is not an integer"#),
        (
            server.get("/containers/x/logs").await,
            "400",
            "Bad parameters: you must choose at least one stream",
        ),
        (server.get("/swarm").await, "501", "swarm mode is not implemented"),
        (server.post("/containers/create", IS_JSON, "{").await, "400", "invalid JSON: unexpected EOF"),
        (
            server.post("/containers/create", IS_JSON, "").await,
            "400",
            "config cannot be empty in order to create a container",
        ),
        (server.post("/containers/create", IS_JSON, "{} x").await, "400", "unexpected content after JSON"),
        (
            server.post("/containers/create", "Content-Type: text/plain\r\n", "{}").await,
            "400",
            "unsupported Content-Type header (text/plain): must be 'application/json'",
        ),
        (
            server.post("/containers/create", IS_JSON, r#"{"Image":3}"#).await,
            "400",
            "invalid JSON: json: cannot unmarshal number into Go struct field Config.Image of type string",
        ),
        (
            server.post("/containers/x/resize?h=a&w=1", "", "").await,
            "400",
            r#"invalid resize height \"a\": not a number from 0 to 65535"#,
        ),
    ];
    for (answer, code, message) in cases {
        assert_eq!(status(&answer), code, "{answer}");
        assert_eq!(body(&answer), format!("{{\"message\":\"{message}\"}}\n"));
    }
}

#[tokio::test]
async fn names_that_no_registry_has_are_refused_before_it_is_asked() {
    let server = Server::start().await;
    for (path, status_wanted, message) in [
        ("/images/create?fromImage=UPPER&tag=1", "400", "must be lowercase"),
        ("/images/create?fromImage=a&tag=no%20tag", "400", "invalid reference format"),
        ("/images/create?fromImage=a&tag=1&platform=a%2Fb%2Fc%2Fd", "400", "is an invalid platform"),
        ("/images/a@sha256:00/push", "400", "invalid"),
        ("/commit?container=nosuch", "404", "No such container: nosuch"),
        ("/images/nosuch/push?tag=1", "200", "An image does not exist locally with the tag: nosuch"),
    ] {
        let answer = server.post(path, "", "").await;
        assert_eq!(status(&answer), status_wanted, "{answer}");
        assert!(body(&answer).contains(message), "{answer}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused() {
    let server = Server::start().await;
    let mut stream = server.connect().await;
    let head =
        format!("POST /containers/create HTTP/1.1\r\nHost: d\r\n{IS_JSON}Content-Length: 99999999\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // The length that is announced is enough: nothing has to be sent.
    let mut answer = vec![0; 4096];
    let read = tokio::time::timeout(Duration::from_secs(60), stream.read(&mut answer)).await;
    let length = read.expect("an answer without the body").unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    assert_eq!(status(&answer), "413", "{answer}");
}

#[tokio::test]
async fn requests_share_a_connection() {
    let server = Server::start().await;
    let request = "GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n";
    let last = "GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n";
    let answer = server.send(&format!("{request}{request}{last}")).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3, "{answer}");
}

#[tokio::test]
async fn a_shutdown_closes_idle_connections() {
    let mut server = Server::start().await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").await.unwrap();
    let mut answer = [0; 1024];
    assert!(idle.read(&mut answer).await.unwrap() > 0);
    server.end.take().unwrap().send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(3), &mut server.task)
        .await
        .expect("ends before the grace is over")
        .unwrap();
    assert_eq!(idle.read(&mut answer).await.unwrap(), 0);
    assert!(UnixStream::connect(server.socket()).await.is_err());
}
