//! An engine on a directory of its own, with an image.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use ponton_api::container::{CreateRequest, Summary};
use ponton_engine::request::{
    ByteSource, ImportRequest, ListOptions, LogsRequest, RemoveOptions, WaitCondition,
};
use ponton_engine::{Engine, EngineConfig, ErrorKind};

/// Longer than anything here takes; only a hang reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Lab {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) engine: Arc<Engine>,
}

impl Lab {
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let engine = open(directory.path()).await;
        let lab = Self { directory, engine };
        lab.import().await;
        lab
    }

    /// Makes the image `busybox` of the host's static busybox.
    async fn import(&self) {
        let mut tar = tar::Builder::new(Vec::new());
        for directory in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            tar.append_data(&mut header, directory, std::io::empty()).unwrap();
        }
        let busybox = std::fs::read("/bin/busybox").unwrap();
        let mut file = |path: &str, mode: u32, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_mode(mode);
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, path, content).unwrap();
        };
        file("bin/busybox", 0o755, &busybox);
        file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nmail:x:8:8:mail:/var/mail:/bin/sh\n");
        file("etc/group", 0o644, b"root:x:0:\nmail:x:8:\n");
        for applet in [
            "sh", "true", "false", "echo", "cat", "sleep", "id", "kill", "ls", "stty", "hostname", "mount",
            "wc", "test",
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
        }
        let request = ImportRequest { reference: Some("busybox".into()), ..ImportRequest::default() };
        self.engine.image_import(request, body(tar.into_inner().unwrap())).await.unwrap();
    }

    /// Another daemon on the same data, after the first was left as a kill would leave it.
    pub(crate) async fn reopen(&mut self) {
        self.engine.shutdown().await;
        wait_for(|| Arc::strong_count(&self.engine) == 1).await;
        let directory = self.directory.path().to_owned();
        // The old engine's lock goes with its last reference.
        let placeholder = tempfile::tempdir().unwrap();
        let other = open(placeholder.path()).await;
        let old = std::mem::replace(&mut self.engine, other);
        drop(old);
        let new = open(&directory).await;
        let other = std::mem::replace(&mut self.engine, new);
        other.shutdown().await;
    }

    pub(crate) async fn create(&self, name: &str, request: CreateRequest) -> String {
        self.engine.create(Some(name), None, request).await.unwrap().id
    }

    /// Creates, starts, waits; the exit code and what was logged.
    pub(crate) async fn run(&self, name: &str, request: CreateRequest) -> (i64, String) {
        self.create(name, request).await;
        let ended = self.engine.wait(name, WaitCondition::NextExit).await.unwrap();
        self.engine.start(name, None).await.unwrap();
        let code = tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap().status_code;
        (code, self.logs(name).await)
    }

    /// What was logged, without frames.
    pub(crate) async fn logs(&self, name: &str) -> String {
        let request = LogsRequest { stdout: true, stderr: true, ..LogsRequest::default() };
        let logs = self.engine.logs(name, request).await.unwrap();
        let bytes: Vec<Bytes> = logs.stream.map(|chunk| chunk.unwrap()).collect().await;
        let bytes = bytes.concat();
        if logs.tty { String::from_utf8(bytes).unwrap() } else { unframe(&bytes) }
    }

    pub(crate) async fn list(&self, options: &ListOptions) -> Vec<Summary> {
        self.engine.list(options).unwrap().collect().await
    }

    pub(crate) async fn remove(&self, name: &str) {
        let options = RemoveOptions { force: true, volumes: true, link: false };
        self.engine.remove(name, options).await.unwrap();
    }

    /// Ends all; nothing may be left of containers.
    pub(crate) async fn close(self) {
        for container in self.list(&ListOptions { all: true, ..ListOptions::default() }).await {
            self.remove(&container.id).await;
        }
        let containers = self.directory.path().join("data/containers");
        assert_eq!(std::fs::read_dir(&containers).unwrap().count(), 0, "{}", containers.display());
        let shims = self.directory.path().join("exec/containers");
        wait_for(|| std::fs::read_dir(&shims).unwrap().count() == 0).await;
        self.engine.shutdown().await;
    }
}

async fn open(directory: &Path) -> Arc<Engine> {
    let mut config = EngineConfig::new(directory.join("data"), directory.join("exec"), runtime());
    config.bridge = "pontest0".into();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match Engine::open(config.clone()).await {
            // A process that another test is just starting has a copy of the old lock until it executes.
            Err(error) if error.kind == ErrorKind::Unavailable && tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            opened => return opened.unwrap(),
        }
    }
}

/// The runtime's program, built beside this test.
fn runtime() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("ponton-runtime");
    assert!(path.exists(), "build it first: cargo build -p ponton-runtime");
    path
}

/// Polls what no event tells, for as long as a hang could last.
pub(crate) async fn wait_for(mut done: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !done() {
        assert!(tokio::time::Instant::now() < deadline, "nothing happened for {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn body(bytes: Vec<u8>) -> ByteSource {
    Box::pin(futures_util::stream::iter([Ok(Bytes::from(bytes))]))
}

pub(crate) fn unframe(mut bytes: &[u8]) -> String {
    let mut text = Vec::new();
    while let [_, 0, 0, 0, a, b, c, d, rest @ ..] = bytes {
        let (payload, rest) = rest.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        text.extend_from_slice(payload);
        bytes = rest;
    }
    String::from_utf8(text).unwrap()
}

pub(crate) fn request(command: &[&str]) -> CreateRequest {
    let mut request = CreateRequest::default();
    request.config.image = "busybox".into();
    request.config.cmd = Some(command.iter().map(|&word| word.to_owned()).collect());
    request.host_config.network_mode = "none".into();
    request
}

pub(crate) fn shell(script: &str) -> CreateRequest {
    request(&["sh", "-c", script])
}
