//! What the daemon and a shim say to each other.
//!
//! One message is one packet of a `SOCK_SEQPACKET` unix socket: JSON, with the descriptors that
//! the message's `fds` names, in that order. A payload of more than [`INLINE_MAX`] bytes travels in
//! a memfd: the packet is then [`IN_MEMFD`] and the memfd comes before the named descriptors.
//!
//! ```text
//!   daemon                                       shim
//!     Hello{version}                     ──►
//!                                        ◄──     Welcome{version, pid, capacity}
//!     Start{container, plan, stdio, …}   ──►                         [netns] [log] [port…] [attach…]
//!                                        ◄──     Started{pid}        pidfd [stdin] [stdout] [stderr] [terminal]
//!     Exec{container, exec, process, …}  ──►                         [attach…]
//!                                        ◄──     Started{pid}        as for Start
//!     Attach{container, exec, attach}    ──►                         attach
//!                                        ◄──     Attached
//!     Resize{container, exec, size}      ──►
//!                                        ◄──     Done
//!     Inspect{container}                 ──►
//!                                        ◄──     Status              as for Start (none when exited)
//!     List                               ──►
//!                                        ◄──     List[Status…]
//!     Forget{container, exec}            ──►
//!                                        ◄──     Done
//!     Adopt{status, stdio, log}          ──►                         pidfd [stdin] [stdout] [stderr] [terminal] [port…]
//!                                        ◄──     Adopted
//!     Retire                             ──►
//!                                        ◄──     Done
//!                                        ◄──     Event: Exited, Oom, Detached   (to every connection)
//! ```
//!
//! Every request has one answer with its `id`: a reply or a [`Failure`]. Events have no id.
//!
//! *Invariant*: an `Exited` event comes after all output of the process was read, logged and given
//! to the attached clients' buffers, and after the exit record is on disk.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use ponton_oci::runtime::Process;
use serde::{Deserialize, Serialize};

use crate::criu;
use crate::plan::{Plan, ProcessPlan};
use crate::shim::foreign::{Foreign, ForeignStart};

/// The version of the protocol that this build speaks.
pub const VERSION: u32 = 1;
/// The largest payload that is sent in the packet itself, in bytes (the kernel's default send
/// buffer holds two of them).
pub const INLINE_MAX: usize = 64 << 10;
/// The largest payload at all, in bytes.
pub const PAYLOAD_MAX: usize = 16 << 20;
/// The most descriptors of one message (the kernel's limit is 253).
pub const FDS_MAX: usize = 200;
/// The packet that stands for a payload in a memfd.
pub const IN_MEMFD: &[u8] = b"memfd";

/// A message from the daemon to the shim.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ToShim<R = Request> {
    /// Chosen by the sender; the answer repeats it.
    pub id: u64,
    /// What the message's descriptors are, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fds: Vec<FdRole>,
    /// What is asked; senders borrow it.
    pub request: R,
}

/// A message from the shim to the daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FromShim {
    /// What the message's descriptors are, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fds: Vec<FdRole>,
    /// An answer or an event.
    #[serde(flatten)]
    pub body: Body,
}

/// What a message from the shim is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Body {
    /// The request with this id was carried out.
    Reply {
        /// The request's id.
        id: u64,
        /// The answer.
        reply: Reply,
    },
    /// The request with this id failed, and left nothing behind.
    Error {
        /// The request's id.
        id: u64,
        /// Why.
        error: Failure,
    },
    /// Something happened.
    Event {
        /// What.
        event: Event,
    },
}

/// What a descriptor of a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FdRole {
    /// The network namespace to join.
    Netns,
    /// A reserved host port: held open, and never used, until the container has ended.
    Port,
    /// The client's own stream socket of one [`AttachSpec`].
    Attach,
    /// The process.
    Pidfd,
    /// The write end of its standard input.
    Stdin,
    /// The read end of its standard output.
    Stdout,
    /// The read end of its standard error.
    Stderr,
    /// The master side of its terminal.
    Terminal,
    /// A socket that is connected to the logging service; without it the shim connects by itself.
    Log,
    /// The root file system's mount. Whoever holds it unmounts it, not the last process of the
    /// container: overlayfs writes the host's file system back then.
    Root,
}

/// What the daemon asks of a shim.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// The first message of a connection.
    Hello {
        /// The sender's [`VERSION`].
        version: u32,
    },
    /// Start a container.
    Start(Box<Start>),
    /// Run a further process in a running container.
    Exec(Box<Exec>),
    /// Connect a client to a running process.
    Attach {
        /// The container's id.
        container: String,
        /// The exec's id, or the container's first process.
        #[serde(default)]
        exec: Option<String>,
        /// How; the socket comes with the message.
        attach: AttachSpec,
    },
    /// Set the size of a terminal.
    Resize {
        /// The container's id.
        container: String,
        /// The exec's id, or the container's first process.
        #[serde(default)]
        exec: Option<String>,
        /// The new size.
        size: Size,
    },
    /// Tell about a container, with its descriptors again.
    Inspect {
        /// The container's id.
        container: String,
    },
    /// Tell about all containers.
    List,
    /// Drop the record of an ended process, in memory and on disk. Not for one that still runs.
    Forget {
        /// The container's id.
        container: String,
        /// The exec's id, or the container as a whole.
        #[serde(default)]
        exec: Option<String>,
    },
    /// Take over a container whose shim is gone.
    Adopt(Box<Adopt>),
    /// Exit when the last container is forgotten.
    Retire,
}

/// See [`Request::Start`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Start {
    /// The container's id.
    pub container: String,
    /// What to carry out.
    pub plan: Plan,
    /// Its standard streams.
    pub stdio: Stdio,
    /// Where its output is logged; nowhere by default.
    #[serde(default)]
    pub log: Option<LogTarget>,
    /// The clients that are attached from the first byte on: one `attach` descriptor each.
    #[serde(default)]
    pub attach: Vec<AttachSpec>,
    /// Another runtime is to do it; of the plan counts then what is not the runtime's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<ForeignStart>,
    /// It is to go on as CRIU has saved it, not to begin anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<criu::Options>,
}

/// See [`Request::Exec`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exec {
    /// The id of the running container.
    pub container: String,
    /// The new process's id.
    pub exec: String,
    /// What to carry out.
    pub process: ProcessPlan,
    /// Its standard streams.
    pub stdio: Stdio,
    /// The clients that are attached from the first byte on: one `attach` descriptor each.
    #[serde(default)]
    pub attach: Vec<AttachSpec>,
    /// What the daemon wants to find again in [`ExecStatus`]; the shim does not look into it.
    #[serde(default)]
    pub note: String,
    /// The process as another runtime is told it; to be given where the container is of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<Box<Process>>,
}

/// See [`Request::Adopt`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Adopt {
    /// What the dead shim knew: the content of its `shim.json`. Execs are not taken over.
    pub status: Status,
    /// The container's standard streams.
    pub stdio: Stdio,
    /// Where its output is logged.
    #[serde(default)]
    pub log: Option<LogTarget>,
}

/// The standard streams of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stdio {
    /// One terminal for all three.
    pub terminal: bool,
    /// The terminal's first size.
    pub size: Option<Size>,
    /// Standard input stays open for clients; else it is `/dev/null`.
    pub stdin: bool,
    /// Standard input is closed when the first client that is attached to it ends its side. No
    /// dup of the write end is given to the daemon then: it would keep the pipe open.
    pub stdin_once: bool,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Height.
    pub rows: u16,
    /// Width.
    pub cols: u16,
}

/// Where output is logged: in a file that can be read again, at a logging service, or both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogTarget {
    /// The file.
    pub file: Option<LogFile>,
    /// The logging service.
    pub remote: Option<Box<LogRemote>>,
}

impl From<LogFile> for LogTarget {
    fn from(file: LogFile) -> Self {
        Self { file: Some(file), remote: None }
    }
}

/// A log file that is rotated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFile {
    /// The file; its directory exists. Older files are `<path>.1`, `<path>.2`, …, with `.gz` behind
    /// when they are compressed.
    pub path: PathBuf,
    /// What stands in it.
    pub format: LogFormat,
    /// The size in bytes after which a new file is begun; 0 for no limit.
    pub max_size_bytes: u64,
    /// How many files are kept, the current one included; at least 1.
    pub max_files: u32,
    /// Files that are not written any more are compressed after a while.
    pub compress: bool,
}

impl LogFile {
    /// Bounds that nobody has to think about, as those of Docker's `local` driver.
    pub const MAX_SIZE_BYTES: u64 = 20 << 20;
    /// See [`LogFile::MAX_SIZE_BYTES`].
    pub const MAX_FILES: u32 = 5;

    /// A log with the default bounds, not compressed.
    pub fn new(path: impl Into<PathBuf>, format: LogFormat) -> Self {
        let (max_size_bytes, max_files) = (Self::MAX_SIZE_BYTES, Self::MAX_FILES);
        Self { path: path.into(), format, max_size_bytes, max_files, compress: false }
    }
}

/// What stands in a log file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Docker's `json-file`: one JSON object a line.
    Json {
        /// What each entry has as its `attrs`, as JSON; empty for nothing.
        attrs: String,
    },
    /// Output as it is, in records: see [`log::local`](super::log::local).
    Local,
}

/// A logging service, and what it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRemote {
    /// Where it listens.
    pub address: LogAddress,
    /// What a line becomes.
    pub message: LogMessage,
    /// How many bytes may wait for it.
    pub buffer_max_bytes: u64,
    /// What does not fit into the buffer is lost; else the container waits, as long as the service
    /// is connected.
    pub lossy: bool,
    /// How long a new connection is not tried after one failed, in milliseconds.
    pub retry_delay_ms: u64,
    /// After how many vain tries what waits is given up; 0 for never.
    pub retries_max: u32,
}

/// Where a logging service listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogAddress {
    /// One datagram a message.
    Udp(SocketAddr),
    /// A stream.
    Tcp(SocketAddr),
    /// One datagram a message, through a unix socket.
    UnixDatagram(PathBuf),
    /// A stream, through a unix socket.
    UnixStream(PathBuf),
}

/// What a line of output becomes for a logging service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogMessage {
    /// systemd's native protocol.
    Journald {
        /// Fields of every entry: names in journald's alphabet, with their values.
        fields: Vec<(String, String)>,
    },
    /// syslog.
    Syslog {
        /// How the head of a message is written.
        format: SyslogFormat,
        /// The facility's number, 0 to 23.
        facility: u8,
        /// The name of this host.
        hostname: String,
        /// The container's name there.
        tag: String,
    },
    /// Fluentd's forward protocol.
    Fluentd {
        /// The events' tag.
        tag: String,
        /// What every record has beside the line.
        record: Vec<(String, String)>,
        /// Times have nanoseconds.
        sub_second: bool,
    },
    /// Graylog's extended format, version 1.1.
    Gelf {
        /// The name of this host.
        hostname: String,
        /// Additional fields, as JSON: their names begin with `_`.
        fields: serde_json::Map<String, serde_json::Value>,
        /// How a datagram is compressed.
        compression: GelfCompression,
        /// The compression's level, 0 to 9.
        level: u32,
    },
}

/// How the head of a syslog message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyslogFormat {
    /// As to a local daemon: without the host's name.
    Unix,
    /// RFC 3164.
    Rfc3164,
    /// RFC 5424.
    Rfc5424,
    /// RFC 5424, with microseconds.
    Rfc5424Micro,
}

/// How a GELF datagram is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GelfCompression {
    /// Not at all; always so in a stream.
    None,
    /// gzip.
    Gzip,
    /// zlib.
    Zlib,
}

/// How a client is connected to a process. Its descriptor is a connected stream socket that nobody
/// else reads or writes from now on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AttachSpec {
    /// What the client sends goes to standard input.
    pub stdin: bool,
    /// The client gets standard output (with a terminal: everything).
    pub stdout: bool,
    /// The client gets standard error.
    pub stderr: bool,
    /// Output comes in frames with Docker's header of 8 bytes; else raw.
    pub multiplexed: bool,
    /// The key sequence that detaches the client; empty for none.
    pub detach_keys: Vec<u8>,
    /// What the client has sent already.
    pub preamble: Vec<u8>,
}

/// The shim's answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To `Hello`.
    Welcome {
        /// The shim's [`VERSION`]; the older of the two is spoken.
        version: u32,
        /// The shim's process id.
        pid: u32,
        /// How many more containers it takes.
        capacity: u32,
    },
    /// To `Start` and `Exec`: the program was executed.
    Started {
        /// The process id, in the shim's pid namespace.
        pid: u32,
        /// When, in nanoseconds since the epoch.
        started_at_ns: u64,
    },
    /// To `Attach`.
    Attached,
    /// To `Inspect`.
    Status(Box<Status>),
    /// To `List`.
    List(Vec<Status>),
    /// To `Adopt`.
    Adopted,
    /// To `Resize`, `Forget` and `Retire`.
    Done,
}

/// What a shim knows of a container; also the content of its `shim.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The container's id.
    pub container: String,
    /// The process id, in the shim's pid namespace.
    pub pid: u32,
    /// When it was started, in nanoseconds since the epoch.
    pub started_at_ns: u64,
    /// Its standard streams.
    pub stdio: Stdio,
    /// Where its output is logged.
    #[serde(default)]
    pub log: Option<LogTarget>,
    /// The path of its control group, as in the plan.
    #[serde(default)]
    pub cgroup: Option<String>,
    /// It has a pid namespace of its own, so that nothing of it outlives its first process.
    #[serde(default)]
    pub own_pid_namespace: bool,
    /// The runtime that started it, if it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<Foreign>,
    /// How it ended, when it has.
    #[serde(default)]
    pub exited: Option<Exit>,
    /// Its further processes.
    #[serde(default)]
    pub execs: Vec<ExecStatus>,
}

/// What a shim knows of an exec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecStatus {
    /// The exec's id.
    pub exec: String,
    /// The process id, in the shim's pid namespace.
    pub pid: u32,
    /// When it was started, in nanoseconds since the epoch.
    pub started_at_ns: u64,
    /// It has a terminal.
    pub terminal: bool,
    /// How it ended, when it has.
    #[serde(default)]
    pub exited: Option<Exit>,
    /// [`Exec::note`].
    #[serde(default)]
    pub note: String,
}

/// How a process ended; also the content of `exit.json` and `exec-<id>.exit.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The process id.
    pub pid: u32,
    /// The exit status; 128 + n for signal n; none when the kernel could not tell.
    pub exit_code: Option<i32>,
    /// When, in nanoseconds since the epoch.
    pub exited_at_ns: u64,
    /// The kernel killed a process of the container for its memory limit.
    pub oom_killed: bool,
}

/// What happens without being asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A process ended.
    Exited {
        /// The container's id.
        container: String,
        /// The exec's id, or the container's first process.
        #[serde(default)]
        exec: Option<String>,
        /// How.
        #[serde(flatten)]
        exit: Exit,
    },
    /// The kernel killed a process for the container's memory limit.
    Oom {
        /// The container's id.
        container: String,
    },
    /// A client sent its detach keys.
    Detached {
        /// The container's id.
        container: String,
        /// The exec's id, or the container's first process.
        #[serde(default)]
        exec: Option<String>,
    },
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The class, for the exit code and the HTTP status.
    pub kind: FailureKind,
    /// The step of the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// What was attempted, and why it failed.
    pub message: String,
}

/// The classes of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The program does not exist (exit code 127).
    CommandNotFound,
    /// The program cannot be executed (exit code 126).
    CommandNotExecutable,
    /// No such container or exec.
    NotFound,
    /// The request makes no sense, or not now.
    Invalid,
    /// The kernel refused a step of the plan.
    StartFailed,
    /// Anything else.
    Internal,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.step {
            Some(step) => write!(f, "{step}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Reads what a sender of this version writes, and writes it again.
    fn assert_wire<T: Serialize + for<'de> Deserialize<'de>>(wire: &serde_json::Value) {
        let message: T = serde_json::from_value(wire.clone()).unwrap();
        assert_eq!(&serde_json::to_value(message).unwrap(), wire);
    }

    #[test]
    fn requests_keep_their_shape() {
        assert_wire::<ToShim>(&json!({"id": 1, "request": {"hello": {"version": 1}}}));
        assert_wire::<ToShim>(&json!({"id": 2, "request": "list"}));
        let size = json!({"rows": 24, "cols": 80});
        let resize = json!({"container": "c", "exec": "e", "size": size});
        assert_wire::<ToShim>(&json!({"id": 3, "request": {"resize": resize}}));
        let attach = json!({"stdin": true, "stdout": true, "stderr": false, "multiplexed": false,
                            "detach_keys": [16, 17], "preamble": []});
        let attach = json!({"container": "c", "exec": null, "attach": attach});
        assert_wire::<ToShim>(&json!({"id": 4, "fds": ["attach"], "request": {"attach": attach}}));
    }

    #[test]
    fn answers_and_events_keep_their_shape() {
        let started = json!({"started": {"pid": 7, "started_at_ns": 8}});
        assert_wire::<FromShim>(&json!({"id": 1, "fds": ["pidfd", "stdout"], "reply": started}));
        let failure = json!({"kind": "command_not_found", "step": "#9 exec", "message": "m"});
        assert_wire::<FromShim>(&json!({"id": 2, "error": failure}));
        let exited = json!({"container": "c", "exec": null, "pid": 7, "exit_code": null,
                            "exited_at_ns": 1_700_000_000_000_000_000_u64, "oom_killed": true});
        assert_wire::<FromShim>(&json!({"event": {"exited": exited}}));
    }

    #[test]
    fn what_an_older_sender_does_not_say_has_a_default() {
        let stdio: Stdio = serde_json::from_value(json!({})).unwrap();
        assert_eq!(stdio, Stdio::default());
        let log: LogTarget = serde_json::from_value(json!({})).unwrap();
        assert_eq!(log, LogTarget::default());
    }
}
