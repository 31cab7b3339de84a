//! What engine calls take and give beside the API's own types.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;

use bytes::Bytes;
use jiff::Timestamp;
use ponton_api::auth::{AuthConfig, AuthConfigs};
use ponton_api::container::Config;
use ponton_api::filters::Filters;

use crate::error::Result;

/// A stream of results that lives on its own.
pub type Stream<T> = Pin<Box<dyn futures_util::Stream<Item = Result<T>> + Send>>;

/// The body of a request.
pub type ByteSource = Pin<Box<dyn futures_util::Stream<Item = io::Result<Bytes>> + Send>>;

/// What will happen, told when it does.
pub type Pending<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// A client's own connection, taken out of HTTP: a connected stream socket.
#[derive(Debug)]
pub struct AttachConnection {
    /// The socket, nonblocking.
    pub fd: OwnedFd,
    /// What the client has sent already.
    pub preamble: Vec<u8>,
}

/// What a client wants of an attach.
#[derive(Clone, Debug, Default)]
pub struct AttachRequest {
    /// Replay what was logged so far.
    pub logs: bool,
    /// Go on with what comes.
    pub stream: bool,
    /// Connect standard input.
    pub stdin: bool,
    /// Connect standard output.
    pub stdout: bool,
    /// Connect standard error.
    pub stderr: bool,
    /// Keys that detach, as `ctrl-p,ctrl-q`; `None` for Docker's default.
    pub detach_keys: Option<String>,
    /// Output is one stream of bytes, without frames, terminal or not.
    pub raw: bool,
}

/// What has to be known before a connection is taken out of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// The process has a terminal: the stream is raw, and not in frames.
    pub tty: bool,
    /// Output may come as soon as the connection is handed over.
    pub writes_at_once: bool,
}

/// What a client waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// The container does not run.
    #[default]
    NotRunning,
    /// Its next run ends.
    NextExit,
    /// It is removed.
    Removed,
}

/// Which containers are listed.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Also those that do not run.
    pub all: bool,
    /// At most this many, newest first; all of them when 0 or less.
    pub limit: i64,
    /// Compute sizes.
    pub size: bool,
    /// Docker's filters.
    pub filters: Filters,
}

/// Which log lines a client wants.
#[derive(Clone, Debug, Default)]
pub struct LogsRequest {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Go on with what comes, until the container ends.
    pub follow: bool,
    /// Only the last lines.
    pub tail: Option<u64>,
    /// Only lines at or after this time.
    pub since: Option<Timestamp>,
    /// Only lines at or before this time.
    pub until: Option<Timestamp>,
    /// Write the time before each line.
    pub timestamps: bool,
    /// Write the attributes of each line before it.
    pub details: bool,
}

/// Log lines: raw with a terminal, else in Docker's frames.
pub struct Logs {
    /// Whether the container has a terminal.
    pub tty: bool,
    /// The bytes to send.
    pub stream: Stream<Bytes>,
}

/// What is stopped how.
#[derive(Clone, Debug, Default)]
pub struct StopOptions {
    /// Seconds until SIGKILL; negative for never; `None` for the container's own, else 10.
    pub timeout: Option<i64>,
    /// The signal; `None` for the container's own, else SIGTERM.
    pub signal: Option<String>,
}

/// How a container is removed.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoveOptions {
    /// Kill it when it runs.
    pub force: bool,
    /// Remove its anonymous volumes.
    pub volumes: bool,
    /// Remove a link, not the container.
    pub link: bool,
}

/// How an archive is unpacked into a container.
#[derive(Clone, Copy, Debug, Default)]
pub struct PutOptions {
    /// Refuse to replace a directory by a file and a file by a directory.
    pub no_overwrite_dir_non_dir: bool,
    /// Keep user and group ids.
    pub copy_uid_gid: bool,
}

/// Which events a client wants.
#[derive(Clone, Debug, Default)]
pub struct EventsRequest {
    /// Begin with those at or after this time.
    pub since: Option<Timestamp>,
    /// End at this time.
    pub until: Option<Timestamp>,
    /// Docker's filters.
    pub filters: Filters,
}

/// `POST /images/create?fromSrc=`.
#[derive(Clone, Debug, Default)]
pub struct ImportRequest {
    /// Name to give, as `repo:tag`.
    pub reference: Option<String>,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
    /// Comment in the history.
    pub message: String,
    /// As `linux/amd64`.
    pub platform: Option<String>,
}

/// `POST /images/create?fromImage=`.
#[derive(Clone, Debug, Default)]
pub struct PullRequest {
    /// The image's name, with or without a tag.
    pub image: String,
    /// Tag or digest; empty for the name's own, or else for all tags.
    pub tag: String,
    /// As `linux/amd64`; `None` for the host's.
    pub platform: Option<String>,
    /// Who asks.
    pub auth: AuthConfig,
    /// Where `auth` is empty: who asks, by registry.
    pub auths: AuthConfigs,
}

/// `POST /images/{name}/push`.
#[derive(Clone, Debug, Default)]
pub struct PushRequest {
    /// The image's name, without a tag.
    pub image: String,
    /// The tag; empty for all.
    pub tag: String,
    /// As `linux/amd64`: only this one of the image's platforms.
    pub platform: Option<String>,
    /// Who asks.
    pub auth: AuthConfig,
}

/// `POST /commit`.
#[derive(Clone, Debug, Default)]
pub struct CommitRequest {
    /// The container.
    pub container: String,
    /// Name to give, as `repo:tag`.
    pub reference: Option<String>,
    /// Comment in the history.
    pub comment: String,
    /// Author.
    pub author: String,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
    /// Freeze the container meanwhile.
    pub pause: bool,
    /// The image's configuration; what it leaves out is the container's.
    pub config: Option<Config>,
}

/// The form of an archive of images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// An OCI layout that is a docker-archive too: whatever loads images loads it.
    #[default]
    Docker,
    /// An OCI layout alone, with layers as they came.
    Oci,
}

/// `GET /images/get`.
#[derive(Clone, Debug, Default)]
pub struct SaveRequest {
    /// The images.
    pub names: Vec<String>,
    /// Only these platforms, as `linux/amd64`; all that there are when empty.
    pub platforms: Vec<String>,
    /// The form.
    pub format: ArchiveFormat,
}

/// `POST /images/load`.
#[derive(Clone, Debug, Default)]
pub struct LoadRequest {
    /// Leave progress out.
    pub quiet: bool,
    /// Only these platforms, as `linux/amd64`; all that there are when empty.
    pub platforms: Vec<String>,
}

/// `POST /ponton/images/{name}/squash`.
#[derive(Clone, Debug, Default)]
pub struct SquashRequest {
    /// The image.
    pub image: String,
    /// Keep the layers of this image; `None` to make one layer of all.
    pub from: Option<String>,
    /// Name to give, as `repo:tag`.
    pub reference: Option<String>,
}

/// `GET /images/search`.
#[derive(Clone, Debug, Default)]
pub struct SearchRequest {
    /// What is looked for, with a registry before it or without.
    pub term: String,
    /// At most this many; 0 for the registry's own.
    pub limit: u32,
    /// Docker's filters.
    pub filters: Filters,
    /// Who asks.
    pub auth: AuthConfig,
}

/// What of `GET /images/json` costs something.
#[derive(Clone, Debug, Default)]
pub struct ImageListOptions {
    /// Docker's filters.
    pub filters: Filters,
    /// Compute how much of each image others have too.
    pub shared_size: bool,
    /// Count the containers of each image.
    pub containers: bool,
    /// List the manifests of each image's index.
    pub manifests: bool,
}

/// What `GET /system/df` is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskUsageOptions {
    /// Images and their layers.
    pub images: bool,
    /// Containers.
    pub containers: bool,
    /// Volumes.
    pub volumes: bool,
    /// The cache of builds.
    pub build_cache: bool,
}
