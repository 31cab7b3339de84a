use std::io;

use bytes::Bytes;
use futures_util::Stream;
use ponton_api::container::{
    Change, CreateRequest, CreateResponse, Inspect, PruneResponse, Stats, Summary, TopResponse,
    UpdateRequest, UpdateResponse, WaitResponse,
};
use ponton_api::image::IdResponse;

use crate::request::segment;
use crate::{Client, Error, Hijacked, JsonStream, Response};

/// Which streams of a container are attached to.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "named as the API's query parameters")]
pub struct AttachOptions {
    pub logs: bool,
    pub stream: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub detach_keys: String,
}

/// What of a container's log is read.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "named as the API's query parameters")]
pub struct LogsOptions {
    pub stdout: bool,
    pub stderr: bool,
    pub follow: bool,
    pub timestamps: bool,
    pub details: bool,
    pub since: String,
    pub until: String,
    pub tail: String,
}

/// A wait that the daemon has registered: from now on no exit is missed.
#[derive(Debug)]
pub struct Waiting(Response);

impl Waiting {
    /// The exit.
    pub async fn exit(self) -> Result<WaitResponse, Error> {
        self.0.json().await
    }
}

impl Client {
    /// Creates a container.
    pub async fn container_create(
        &self,
        name: &str,
        platform: &str,
        request: &CreateRequest,
    ) -> Result<CreateResponse, Error> {
        self.post("/containers/create")
            .maybe("name", (!name.is_empty()).then_some(name))
            .maybe("platform", (!platform.is_empty()).then_some(platform))
            .json(request)
            .fetch()
            .await
    }

    /// What would be done to start such a container, one line a step.
    pub async fn container_plan(&self, name: &str, request: &CreateRequest) -> Result<Bytes, Error> {
        self.post("/ponton/containers/plan")
            .maybe("name", (!name.is_empty()).then_some(name))
            .json(request)
            .send()
            .await?
            .bytes()
            .await
    }

    /// Starts a container, as it was in a checkpoint (its name and directory) if there is one.
    pub async fn container_start(
        &self,
        id: &str,
        detach_keys: &str,
        checkpoint: Option<(&str, &str)>,
    ) -> Result<(), Error> {
        let (checkpoint, directory) = checkpoint.unwrap_or_default();
        self.post(format!("/containers/{}/start", segment(id)))
            .maybe("detachKeys", (!detach_keys.is_empty()).then_some(detach_keys))
            .maybe("checkpoint", (!checkpoint.is_empty()).then_some(checkpoint))
            .maybe("checkpoint-dir", (!directory.is_empty()).then_some(directory))
            .done()
            .await
    }

    /// Attaches to a container, which need not run yet.
    pub async fn container_attach(&self, id: &str, options: &AttachOptions) -> Result<Hijacked, Error> {
        self.post(format!("/containers/{}/attach", segment(id)))
            .maybe("detachKeys", (!options.detach_keys.is_empty()).then_some(&options.detach_keys))
            .flag("logs", options.logs)
            .flag("stderr", options.stderr)
            .flag("stdin", options.stdin)
            .flag("stdout", options.stdout)
            .flag("stream", options.stream)
            .hijack()
            .await
    }

    /// Registers a wait for `condition` (`not-running`, `next-exit`, `removed`).
    pub async fn container_wait(&self, id: &str, condition: &str) -> Result<Waiting, Error> {
        self.post(format!("/containers/{}/wait", segment(id)))
            .query("condition", condition)
            .send()
            .await
            .map(Waiting)
    }

    /// Stops a container; `timeout` in seconds, -1 for ever.
    pub async fn container_stop(&self, id: &str, signal: &str, timeout: Option<i64>) -> Result<(), Error> {
        self.post(format!("/containers/{}/stop", segment(id)))
            .maybe("signal", (!signal.is_empty()).then_some(signal))
            .maybe("t", timeout.map(|seconds| seconds.to_string()))
            .done()
            .await
    }

    /// Stops and starts a container.
    pub async fn container_restart(&self, id: &str, signal: &str, timeout: Option<i64>) -> Result<(), Error> {
        self.post(format!("/containers/{}/restart", segment(id)))
            .maybe("signal", (!signal.is_empty()).then_some(signal))
            .maybe("t", timeout.map(|seconds| seconds.to_string()))
            .done()
            .await
    }

    /// Sends a signal; empty for SIGKILL.
    pub async fn container_kill(&self, id: &str, signal: &str) -> Result<(), Error> {
        self.post(format!("/containers/{}/kill", segment(id)))
            .maybe("signal", (!signal.is_empty()).then_some(signal))
            .done()
            .await
    }

    /// Removes a container.
    pub async fn container_remove(
        &self,
        id: &str,
        force: bool,
        volumes: bool,
        link: bool,
    ) -> Result<(), Error> {
        self.delete(format!("/containers/{}", segment(id)))
            .flag("force", force)
            .flag("link", link)
            .flag("v", volumes)
            .done()
            .await
    }

    /// Freezes all processes of a container.
    pub async fn container_pause(&self, id: &str) -> Result<(), Error> {
        self.post(format!("/containers/{}/pause", segment(id))).done().await
    }

    /// Thaws all processes of a container.
    pub async fn container_unpause(&self, id: &str) -> Result<(), Error> {
        self.post(format!("/containers/{}/unpause", segment(id))).done().await
    }

    /// Gives a container another name.
    pub async fn container_rename(&self, id: &str, name: &str) -> Result<(), Error> {
        self.post(format!("/containers/{}/rename", segment(id))).query("name", name).done().await
    }

    /// Lists containers. `limit` 0 is no limit; `filters` is JSON or empty.
    pub async fn container_list(
        &self,
        all: bool,
        limit: i64,
        size: bool,
        filters: &str,
    ) -> Result<Vec<Summary>, Error> {
        self.get("/containers/json")
            .flag("all", all)
            .maybe("limit", (limit > 0).then(|| limit.to_string()))
            .flag("size", size)
            .maybe("filters", (!filters.is_empty()).then_some(filters))
            .fetch()
            .await
    }

    /// All about a container.
    pub async fn container_inspect(&self, id: &str) -> Result<Inspect, Error> {
        self.get(format!("/containers/{}/json", segment(id))).fetch().await
    }

    /// All about a container, as the daemon wrote it.
    pub async fn container_inspect_raw(&self, id: &str, size: bool) -> Result<Bytes, Error> {
        self.get(format!("/containers/{}/json", segment(id))).flag("size", size).send().await?.bytes().await
    }

    /// How a container stands with the kernel, as the daemon wrote it.
    pub async fn container_explain_raw(&self, id: &str) -> Result<Bytes, Error> {
        self.get(format!("/ponton/containers/{}/explain", segment(id))).send().await?.bytes().await
    }

    /// A container's log: frames, or raw bytes if the container has a terminal.
    pub async fn container_logs(&self, id: &str, options: &LogsOptions) -> Result<Response, Error> {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        self.get(format!("/containers/{}/logs", segment(id)))
            .flag("stdout", options.stdout)
            .flag("stderr", options.stderr)
            .maybe("since", some(&options.since))
            .maybe("until", some(&options.until))
            .flag("timestamps", options.timestamps)
            .flag("details", options.details)
            .flag("follow", options.follow)
            .maybe("tail", some(&options.tail))
            .send()
            .await
    }

    /// The processes of a container.
    pub async fn container_top(&self, id: &str, ps_args: &str) -> Result<TopResponse, Error> {
        self.get(format!("/containers/{}/top", segment(id)))
            .maybe("ps_args", (!ps_args.is_empty()).then_some(ps_args))
            .fetch()
            .await
    }

    /// Sets the size of a container's terminal.
    pub async fn container_resize(&self, id: &str, rows: u16, columns: u16) -> Result<(), Error> {
        self.post(format!("/containers/{}/resize", segment(id)))
            .query("h", rows.to_string())
            .query("w", columns.to_string())
            .done()
            .await
    }

    /// Samples of what a container uses, one a second with `stream`.
    pub async fn container_stats(&self, id: &str, stream: bool) -> Result<JsonStream<Stats>, Error> {
        let request = self.get(format!("/containers/{}/stats", segment(id)));
        let request = if stream { request.query("stream", "1") } else { request.query("stream", "0") };
        Ok(request.send().await?.json_stream())
    }

    /// Changes limits and the restart policy of a container.
    pub async fn container_update(&self, id: &str, request: &UpdateRequest) -> Result<UpdateResponse, Error> {
        self.post(format!("/containers/{}/update", segment(id))).json(request).fetch().await
    }

    /// What a container changed in its root file system.
    pub async fn container_changes(&self, id: &str) -> Result<Option<Vec<Change>>, Error> {
        self.get(format!("/containers/{}/changes", segment(id))).fetch().await
    }

    /// A container's root file system as tar.
    pub async fn container_export(&self, id: &str) -> Result<Response, Error> {
        self.get(format!("/containers/{}/export", segment(id))).send().await
    }

    /// Removes stopped containers.
    pub async fn container_prune(&self, filters: &str) -> Result<PruneResponse, Error> {
        self.post("/containers/prune")
            .maybe("filters", (!filters.is_empty()).then_some(filters))
            .fetch()
            .await
    }

    /// What is at `path` in a container: base64 of the JSON of a `PathStat`.
    pub async fn container_archive_stat(&self, id: &str, path: &str) -> Result<Response, Error> {
        self.head(format!("/containers/{}/archive", segment(id))).query("path", path).send().await
    }

    /// A file or directory of a container as tar; the header tells what it is.
    pub async fn container_archive_get(&self, id: &str, path: &str) -> Result<Response, Error> {
        self.get(format!("/containers/{}/archive", segment(id))).query("path", path).send().await
    }

    /// Unpacks a tar archive into a directory of a container.
    pub async fn container_archive_put(
        &self,
        id: &str,
        path: &str,
        copy_ownership: bool,
        tar: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), Error> {
        self.put(format!("/containers/{}/archive", segment(id)))
            .flag("copyUIDGID", copy_ownership)
            .query("noOverwriteDirNonDir", "true")
            .query("path", path)
            .tar(tar)
            .done()
            .await
    }

    /// Makes an image from a container.
    pub async fn container_commit(&self, query: &[(&str, String)]) -> Result<IdResponse, Error> {
        let mut request = self.post("/commit");
        for (name, value) in query {
            request = request.query(name, value);
        }
        request.fetch().await
    }
}
