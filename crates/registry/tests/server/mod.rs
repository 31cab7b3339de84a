//! A registry that does what a test tells it, also what no registry may: it writes HTTP by hand.

#![allow(dead_code, clippy::unwrap_used, clippy::needless_pass_by_value, missing_docs, unreachable_pub)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ponton_oci::descriptor::Descriptor;
use ponton_oci::digest::Digest;
use ponton_oci::reference::Reference;
use ponton_registry::{Blob, Client, Config, Credentials, Limits, Proxy, Repository, Result};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A request that came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The first byte that is asked for.
    pub fn range(&self) -> usize {
        let range = self.header("range").and_then(|range| range.strip_prefix("bytes="));
        range.map_or(0, |range| range.trim_end_matches('-').parse().unwrap())
    }
}

/// What a test answers.
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    ending: Ending,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    /// As it should be.
    Whole,
    /// The connection is closed after so many bytes of the body.
    CutAfter(usize),
    /// Nothing more comes after so many bytes of the body.
    HangAfter(usize),
    /// The connection is closed without an answer.
    Lost,
    /// Nothing comes at all.
    Silence,
    /// The body comes without its length before it.
    Chunked,
    /// The same, and it never ends.
    Endless,
    /// A head that never ends.
    EndlessHead,
}

pub fn reply(status: u16) -> Reply {
    Reply { status, headers: Vec::new(), body: Vec::new(), ending: Ending::Whole }
}

pub fn ok(body: impl Into<Vec<u8>>) -> Reply {
    reply(200).body(body)
}

impl Reply {
    pub fn body(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..self }
    }

    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub fn cut_after(self, bytes: usize) -> Self {
        Self { ending: Ending::CutAfter(bytes), ..self }
    }

    pub fn hang_after(self, bytes: usize) -> Self {
        Self { ending: Ending::HangAfter(bytes), ..self }
    }

    pub fn lost(self) -> Self {
        Self { ending: Ending::Lost, ..self }
    }

    pub fn silence(self) -> Self {
        Self { ending: Ending::Silence, ..self }
    }

    pub fn chunked(self) -> Self {
        Self { ending: Ending::Chunked, ..self }
    }

    pub fn endless(self) -> Self {
        Self { ending: Ending::Endless, ..self }
    }

    pub fn endless_head(self) -> Self {
        Self { ending: Ending::EndlessHead, ..self }
    }
}

/// A server on loopback; it ends with the value.
pub struct Server {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Handler = Arc<dyn Fn(&Request) -> Reply + Send + Sync>;

impl Server {
    pub async fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (seen, handler): (_, Handler) = (requests.clone(), Arc::new(handler));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, handler.clone(), seen.clone()));
            }
        });
        Self { address, requests, task }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// How many requests came whose target begins so.
    pub fn count(&self, target: &str) -> usize {
        self.requests().iter().filter(|request| request.target.starts_with(target)).count()
    }

    pub fn repository(&self, client: &Client, credentials: Credentials) -> Repository {
        repository(client, self.address, credentials)
    }

    /// A repository of this server, asked by nobody in particular.
    pub fn anonymous(&self) -> Repository {
        self.repository(&client(limits()), Credentials::Anonymous)
    }
}

pub fn repository(client: &Client, address: SocketAddr, credentials: Credentials) -> Repository {
    client.repository(&Reference::parse(&format!("{address}/a/b")).unwrap(), credentials)
}

/// Bounds that let no test wait long, and no slow machine fail.
pub fn limits() -> Limits {
    Limits { backoff: Duration::from_millis(1), ..Limits::default() }
}

/// For servers that are silent: nothing else is ever waited for.
pub fn impatient() -> Limits {
    Limits { idle: Duration::from_millis(300), ..limits() }
}

pub fn client(limits: Limits) -> Client {
    let config = Config { limits, proxy: Proxy::Direct, certs: Vec::new(), ..Config::default() };
    Client::new(config).unwrap()
}

pub fn user(name: &str, password: &str) -> Credentials {
    Credentials::Basic { username: name.to_owned(), password: password.to_owned() }
}

pub fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor::new("application/octet-stream", Digest::sha256_of(bytes), bytes.len() as u64)
}

/// Bytes that repeat nowhere soon.
pub fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let step = |state: &mut u64| {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 24) as u8
    };
    (0..size).map(|_| step(&mut state)).collect()
}

/// Reads a blob to its end: what came, and how it ended.
pub async fn read(blob: Result<Blob>) -> (Vec<u8>, Result<()>) {
    let mut bytes = Vec::new();
    let mut blob = match blob {
        Ok(blob) => blob,
        Err(error) => return (bytes, Err(error)),
    };
    while let Some(piece) = blob.next().await {
        match piece {
            Ok(piece) => bytes.extend_from_slice(&piece),
            Err(error) => return (bytes, Err(error)),
        }
    }
    (bytes, Ok(()))
}

/// The part of a blob that a request asks for.
pub fn part(request: &Request, blob: &[u8]) -> Reply {
    match request.range() {
        0 => ok(blob),
        begin => {
            let range = format!("bytes {begin}-{}/{}", blob.len() - 1, blob.len());
            reply(206).header("Content-Range", range).body(&blob[begin..])
        }
    }
}

pub async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    handler: Handler,
    seen: Arc<Mutex<Vec<Request>>>,
) {
    let mut buffer = Vec::new();
    while let Some(request) = receive(&mut stream, &mut buffer).await {
        seen.lock().unwrap().push(request.clone());
        let reply = handler(&request);
        if send(&mut stream, &request, &reply).await.is_none() {
            return;
        }
    }
}

/// The next request; `None` if there is none, or it is no HTTP.
async fn receive(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    buffer: &mut Vec<u8>,
) -> Option<Request> {
    let head = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head: Vec<u8> = buffer.drain(..end + 4).collect();
            break String::from_utf8(head).ok()?;
        }
        // The beginning of TLS.
        if buffer.first() == Some(&0x16) {
            let _ = stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").await;
            return None;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let mut request = Request { method, target, headers, body: Vec::new() };
    let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    while buffer.len() < length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    request.body = buffer.drain(..length).collect();
    Some(request)
}

/// Sends an answer; `None` if the connection is over.
async fn send(stream: &mut (impl AsyncWrite + Unpin), request: &Request, reply: &Reply) -> Option<()> {
    let mut head = format!("HTTP/1.1 {} X\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let is_chunked = matches!(reply.ending, Ending::Chunked | Ending::Endless);
    let has_length = reply.headers.iter().any(|(name, _)| name == "Content-Length");
    if is_chunked {
        head += "Transfer-Encoding: chunked\r\n";
    } else if !has_length {
        head += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    match reply.ending {
        Ending::Lost => return None,
        Ending::Silence => return std::future::pending().await,
        Ending::EndlessHead => loop {
            stream.write_all(head.as_bytes()).await.ok()?;
            head = format!("X-More: {}\r\n", "x".repeat(1000));
        },
        _ => {}
    }
    head += "\r\n";
    stream.write_all(head.as_bytes()).await.ok()?;
    if request.method == "HEAD" {
        return Some(());
    }
    match reply.ending {
        Ending::CutAfter(bytes) => {
            stream.write_all(&reply.body[..bytes.min(reply.body.len())]).await.ok()?;
            return None;
        }
        Ending::HangAfter(bytes) => {
            stream.write_all(&reply.body[..bytes]).await.ok()?;
            return std::future::pending().await;
        }
        Ending::Endless => loop {
            stream.write_all(b"10000\r\n").await.ok()?;
            stream.write_all(&vec![b' '; 0x10000]).await.ok()?;
            stream.write_all(b"\r\n").await.ok()?;
        },
        Ending::Chunked => {
            for chunk in reply.body.chunks(10_000) {
                stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await.ok()?;
                stream.write_all(chunk).await.ok()?;
                stream.write_all(b"\r\n").await.ok()?;
            }
            stream.write_all(b"0\r\n\r\n").await.ok()?;
        }
        _ => stream.write_all(&reply.body).await.ok()?,
    }
    stream.flush().await.ok()
}
