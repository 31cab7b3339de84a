//! Connecting clients to a container's standard streams. The shim does the work: it gets the
//! client's own socket.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use futures_util::{FutureExt, StreamExt};
use ponton_runtime::shim::protocol::{AttachSpec, FdRole, Request};
use tokio::io::unix::AsyncFd;

use super::{Task, View};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::lifecycle::State;
use crate::request::{AttachConnection, AttachRequest, Logs, LogsRequest, StreamInfo};

/// Ctrl-P Ctrl-Q.
const DETACH_KEYS: &[u8] = &[16, 17];

impl Engine {
    /// What to know before the connection of an attach is taken out of HTTP; fails as the attach
    /// would.
    pub async fn attach_info(self: &Arc<Self>, name: &str, request: &AttachRequest) -> Result<StreamInfo> {
        let container = self.find(name)?;
        let view = container.view();
        if view.life.is_paused() {
            return Err(Error::conflict(format!(
                "Container {name} is paused, unpause the container before attach."
            )));
        }
        if matches!(view.life.state, State::Restarting { .. }) {
            return Err(Error::conflict(format!(
                "Container {name} is restarting, wait until the container is running."
            )));
        }
        detach_keys(request.detach_keys.as_deref())?;
        // The log of a run before is written at once.
        let has_log = request.logs && !matches!(view.life.state, State::Created);
        let writes_at_once = view.life.is_running() || has_log;
        Ok(StreamInfo { tty: view.settings.config.tty, writes_at_once })
    }

    /// Connects a client to a container (also before its start). Returns when the connection was
    /// handed over.
    pub async fn attach(
        self: &Arc<Self>,
        name: &str,
        request: AttachRequest,
        connection: AttachConnection,
    ) -> Result<()> {
        self.attach_info(name, &request).await?;
        let container = self.find(name)?;
        let view = container.view();
        let AttachConnection { mut fd, preamble } = connection;
        if request.logs {
            fd = self.replay(name, &request, fd).await?;
        }
        if !request.stream {
            return Ok(());
        }
        let spec = spec(&view, &request, preamble)?;
        container.change(move |task| task.attach(spec, fd).boxed()).await
    }

    /// Log lines.
    pub async fn logs(self: &Arc<Self>, name: &str, request: LogsRequest) -> Result<Logs> {
        if !request.stdout && !request.stderr {
            return Err(Error::invalid("Bad parameters: you must choose at least one stream"));
        }
        let container = self.find(name)?;
        let view = container.view();
        let directory = self.container_directory(&container.id);
        let Some((path, format)) =
            crate::log::kept(&view.settings.host_config.log_config, &container.id, &directory)
        else {
            return Err(Error::not_implemented("configured logging driver does not support reading"));
        };
        let tty = view.settings.config.tty;
        let ended = {
            let (container, exits) = (Arc::clone(&container), view.exits);
            async move {
                let is_over = |view: &View| !view.life.is_running() || view.exits != exits || view.removed;
                let view = container.wait_until(is_over).await;
                // Of one that was started again already, the rest is the next run's.
                let next = view.filter(|view| view.life.is_running());
                Ok(next.and_then(|view| view.life.last.finished_at))
            }
        };
        let stream = crate::log::stream(path, format, request, tty, Box::pin(ended)).await?;
        Ok(Logs { tty, stream })
    }

    /// Writes what was logged so far.
    async fn replay(self: &Arc<Self>, name: &str, request: &AttachRequest, fd: OwnedFd) -> Result<OwnedFd> {
        let wanted = LogsRequest { stdout: request.stdout, stderr: request.stderr, ..LogsRequest::default() };
        let Logs { tty, stream: mut logs } = self.logs(name, wanted).await?;
        let failed = |error: std::io::Error| Error::failed("write to an attached client", error);
        let connection = crate::poll::register(fd, tokio::io::Interest::WRITABLE).map_err(failed)?;
        let mut frames = Vec::new();
        while let Some(bytes) = logs.next().await {
            let mut bytes = bytes?.to_vec();
            if request.raw && !tty {
                frames.append(&mut bytes);
                bytes = without_frames(&mut frames);
            }
            write_all(&connection, &bytes).await.map_err(failed)?;
        }
        Ok(connection.into_inner())
    }
}

/// Takes the whole frames out, and gives what is in them.
fn without_frames(frames: &mut Vec<u8>) -> Vec<u8> {
    let mut content = Vec::new();
    let mut at = 0;
    while let Some([_, _, _, _, a, b, c, d, rest @ ..]) = frames.get(at..) {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let Some(payload) = rest.get(..length) else { break };
        content.extend_from_slice(payload);
        at += 8 + length;
    }
    frames.drain(..at);
    content
}

/// Writes to a nonblocking socket.
pub(crate) async fn write_all(socket: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let mut guard = socket.writable().await?;
        let flags = rustix::net::SendFlags::NOSIGNAL;
        match guard.try_io(|socket| Ok(rustix::net::send(socket.get_ref(), bytes, flags)?)) {
            Ok(written) => bytes = &bytes[written?..],
            Err(_would_block) => {}
        }
    }
    Ok(())
}

fn spec(view: &View, request: &AttachRequest, preamble: Vec<u8>) -> Result<AttachSpec> {
    let config = &view.settings.config;
    let keys = detach_keys(request.detach_keys.as_deref())?;
    Ok(AttachSpec {
        stdin: request.stdin && config.open_stdin,
        stdout: request.stdout,
        stderr: request.stderr,
        multiplexed: !config.tty && !request.raw,
        detach_keys: if config.tty { keys } else { Vec::new() },
        preamble,
    })
}

impl Task {
    async fn attach(&mut self, spec: AttachSpec, fd: OwnedFd) -> Result<()> {
        self.emit("attach", &[]);
        let Some(run) = &self.run else {
            self.attaches.push((spec, fd));
            return Ok(());
        };
        let request = Request::Attach { container: self.id().to_owned(), exec: None, attach: spec };
        match run.shim.call(&request, &[(FdRole::Attach, fd.as_fd())]).await {
            Ok(_) => Ok(()),
            Err(failure) => Err(Error::failed(format!("attach to container {}", self.id()), failure)),
        }
    }

    /// The keys with which the clients that wait for the start detach.
    pub(super) fn set_detach_keys(&mut self, keys: &[u8]) {
        for (spec, _) in &mut self.attaches {
            if !spec.detach_keys.is_empty() {
                keys.clone_into(&mut spec.detach_keys);
            }
        }
    }
}

/// The bytes of a client's detach keys, or of Docker's.
pub(crate) fn detach_keys(keys: Option<&str>) -> Result<Vec<u8>> {
    match keys {
        None | Some("") => Ok(DETACH_KEYS.to_vec()),
        Some(keys) => parse_detach_keys(keys),
    }
}

/// The bytes of keys such as `ctrl-p,q`.
pub(super) fn parse_detach_keys(keys: &str) -> Result<Vec<u8>> {
    keys.split(',')
        .map(key)
        .collect::<Option<_>>()
        .ok_or_else(|| Error::invalid(format!("Invalid detach keys ({keys}) provided")))
}

fn key(key: &str) -> Option<u8> {
    match key.as_bytes() {
        [single] => Some(*single),
        bytes => match bytes.strip_prefix(b"ctrl-")? {
            [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
            [control @ (b'@' | b'['..=b'_')] => Some(control - b'@'),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_may_come_in_pieces() {
        let mut frames = vec![1, 0, 0, 0, 0, 0, 0, 2, b'a', b'b', 2, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(without_frames(&mut frames), b"ab");
        frames.push(b'c');
        assert_eq!(without_frames(&mut frames), b"c");
        assert_eq!(frames, b"");
    }

    #[test]
    fn detach_keys_are_dockers() {
        assert_eq!(detach_keys(None).unwrap(), [16, 17]);
        assert_eq!(detach_keys(Some("ctrl-a,x,ctrl-],ctrl-@")).unwrap(), [1, b'x', 29, 0]);
        for bad in ["ctrl-", "ctrl-A", "ab", "a,,b", "ctrl-1"] {
            let error = detach_keys(Some(bad)).unwrap_err();
            assert_eq!(error.message, format!("Invalid detach keys ({bad}) provided"));
        }
    }
}
