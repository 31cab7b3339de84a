//! The engine's calls. (Bodies follow; what is not built says so.)

use std::sync::Arc;

use bytes::Bytes;
use ponton_api::container::{
    Change, CreateRequest, CreateResponse, Inspect, PathStat, PruneResponse, Stats, Summary, TopResponse,
    UpdateRequest, UpdateResponse, WaitResponse,
};
use ponton_api::exec::{ExecCreateRequest, ExecInspect, ExecStartRequest};
use ponton_api::filters::Filters;
use ponton_api::stream::JsonMessage;
use ponton_api::{event, image, network, system, volume};

use crate::config::EngineConfig;
use crate::error::{Error, Result};
use crate::request::{
    AttachConnection, AttachRequest, ByteSource, EventsRequest, ImportRequest, ListOptions, Logs,
    LogsRequest, Pending, PutOptions, RemoveOptions, StopOptions, Stream, StreamInfo, WaitCondition,
};

/// The engine: one for a data root.
pub struct Engine {
    config: EngineConfig,
}

impl Engine {
    /// Opens the engine on its data root, and takes up the containers that run.
    pub async fn open(config: EngineConfig) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { config }))
    }

    /// The settings.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// Ends what the engine does; containers run on.
    pub async fn shutdown(&self) {}
}

/// Containers.
impl Engine {
    /// Makes a container. `name` without or with a leading slash.
    pub async fn create(
        self: &Arc<Self>,
        _name: Option<&str>,
        _platform: Option<&str>,
        _request: CreateRequest,
    ) -> Result<CreateResponse> {
        Err(Error::not_implemented("create is not implemented"))
    }

    /// The runtime plan that a create and start would carry out, as text; nothing is made.
    pub async fn plan_create(
        self: &Arc<Self>,
        _name: Option<&str>,
        _request: CreateRequest,
    ) -> Result<String> {
        Err(Error::not_implemented("plan_create is not implemented"))
    }

    /// A container's runtime plan as text.
    pub async fn plan(self: &Arc<Self>, _name: &str) -> Result<String> {
        Err(Error::not_implemented("plan is not implemented"))
    }

    /// Starts a container. `detach_keys` is for the clients that are attached already.
    pub async fn start(self: &Arc<Self>, _name: &str, _detach_keys: Option<&str>) -> Result<()> {
        Err(Error::not_implemented("start is not implemented"))
    }

    /// What to know before the connection of an attach is taken out of HTTP; fails as the attach would.
    pub async fn attach_info(self: &Arc<Self>, _name: &str, _request: &AttachRequest) -> Result<StreamInfo> {
        Err(Error::not_implemented("attach_info is not implemented"))
    }

    /// Connects a client to a container (also before its start). Returns when the connection was handed over.
    pub async fn attach(
        self: &Arc<Self>,
        _name: &str,
        _request: AttachRequest,
        _connection: AttachConnection,
    ) -> Result<()> {
        Err(Error::not_implemented("attach is not implemented"))
    }

    /// Begins to wait: registered when this returns.
    pub async fn wait(
        self: &Arc<Self>,
        _name: &str,
        _condition: WaitCondition,
    ) -> Result<Pending<WaitResponse>> {
        Err(Error::not_implemented("wait is not implemented"))
    }

    /// Stops a container; NotModified when it does not run.
    pub async fn stop(self: &Arc<Self>, _name: &str, _options: StopOptions) -> Result<()> {
        Err(Error::not_implemented("stop is not implemented"))
    }

    /// Sends a signal: a name with or without SIG, or a number; empty for SIGKILL.
    pub async fn kill(self: &Arc<Self>, _name: &str, _signal: &str) -> Result<()> {
        Err(Error::not_implemented("kill is not implemented"))
    }

    /// Stops a container when it runs, and starts it.
    pub async fn restart(self: &Arc<Self>, _name: &str, _options: StopOptions) -> Result<()> {
        Err(Error::not_implemented("restart is not implemented"))
    }

    /// Removes a container.
    pub async fn remove(self: &Arc<Self>, _name: &str, _options: RemoveOptions) -> Result<()> {
        Err(Error::not_implemented("remove is not implemented"))
    }

    /// The containers.
    pub async fn list(self: &Arc<Self>, _options: ListOptions) -> Result<Vec<Summary>> {
        Err(Error::not_implemented("list is not implemented"))
    }

    /// All about one container.
    pub async fn inspect(self: &Arc<Self>, _name: &str, _size: bool) -> Result<Inspect> {
        Err(Error::not_implemented("inspect is not implemented"))
    }

    /// Log lines.
    pub async fn logs(self: &Arc<Self>, _name: &str, _request: LogsRequest) -> Result<Logs> {
        Err(Error::not_implemented("logs is not implemented"))
    }

    /// Gives another name.
    pub async fn rename(self: &Arc<Self>, _name: &str, _to: &str) -> Result<()> {
        Err(Error::not_implemented("rename is not implemented"))
    }

    /// Freezes the processes.
    pub async fn pause(self: &Arc<Self>, _name: &str) -> Result<()> {
        Err(Error::not_implemented("pause is not implemented"))
    }

    /// Thaws them.
    pub async fn unpause(self: &Arc<Self>, _name: &str) -> Result<()> {
        Err(Error::not_implemented("unpause is not implemented"))
    }

    /// The processes. `ps_args` as for ps(1); empty for `-ef`.
    pub async fn top(self: &Arc<Self>, _name: &str, _ps_args: &str) -> Result<TopResponse> {
        Err(Error::not_implemented("top is not implemented"))
    }

    /// Sets the size of the container's terminal.
    pub async fn resize(self: &Arc<Self>, _name: &str, _rows: u16, _cols: u16) -> Result<()> {
        Err(Error::not_implemented("resize is not implemented"))
    }

    /// What a container uses: one sample, or one a second. `one_shot` does not wait for a first sample to compare with.
    pub async fn stats(
        self: &Arc<Self>,
        _name: &str,
        _stream: bool,
        _one_shot: bool,
    ) -> Result<Stream<Stats>> {
        Err(Error::not_implemented("stats is not implemented"))
    }

    /// What changed in the file system.
    pub async fn changes(self: &Arc<Self>, _name: &str) -> Result<Vec<Change>> {
        Err(Error::not_implemented("changes is not implemented"))
    }

    /// Removes the containers that do not run.
    pub async fn prune(self: &Arc<Self>, _filters: Filters) -> Result<PruneResponse> {
        Err(Error::not_implemented("prune is not implemented"))
    }

    /// What a path in a container is.
    pub async fn archive_stat(self: &Arc<Self>, _name: &str, _path: &str) -> Result<PathStat> {
        Err(Error::not_implemented("archive_stat is not implemented"))
    }

    /// A path of a container as a tar.
    pub async fn archive_get(
        self: &Arc<Self>,
        _name: &str,
        _path: &str,
    ) -> Result<(PathStat, Stream<Bytes>)> {
        Err(Error::not_implemented("archive_get is not implemented"))
    }

    /// Unpacks a tar (also compressed) into a directory of a container.
    pub async fn archive_put(
        self: &Arc<Self>,
        _name: &str,
        _path: &str,
        _options: PutOptions,
        _body: ByteSource,
    ) -> Result<()> {
        Err(Error::not_implemented("archive_put is not implemented"))
    }

    /// Changes limits and restart policy.
    pub async fn update(self: &Arc<Self>, _name: &str, _request: UpdateRequest) -> Result<UpdateResponse> {
        Err(Error::not_implemented("update is not implemented"))
    }

    /// The whole file system as a tar.
    pub async fn export(self: &Arc<Self>, _name: &str) -> Result<Stream<Bytes>> {
        Err(Error::not_implemented("export is not implemented"))
    }
}

/// Execs.
impl Engine {
    /// Makes an exec; answers its id.
    pub async fn exec_create(self: &Arc<Self>, _name: &str, _request: ExecCreateRequest) -> Result<String> {
        Err(Error::not_implemented("exec_create is not implemented"))
    }

    /// What to know before the connection of an exec is taken out of HTTP; fails as the start would.
    pub async fn exec_info(self: &Arc<Self>, _id: &str, _request: &ExecStartRequest) -> Result<StreamInfo> {
        Err(Error::not_implemented("exec_info is not implemented"))
    }

    /// Starts an exec. With a connection a failure to start is written to it, and the answer is Ok.
    pub async fn exec_start(
        self: &Arc<Self>,
        _id: &str,
        _request: ExecStartRequest,
        _connection: Option<AttachConnection>,
    ) -> Result<()> {
        Err(Error::not_implemented("exec_start is not implemented"))
    }

    /// All about an exec.
    pub async fn exec_inspect(self: &Arc<Self>, _id: &str) -> Result<ExecInspect> {
        Err(Error::not_implemented("exec_inspect is not implemented"))
    }

    /// Sets the size of an exec's terminal.
    pub async fn exec_resize(self: &Arc<Self>, _id: &str, _rows: u16, _cols: u16) -> Result<()> {
        Err(Error::not_implemented("exec_resize is not implemented"))
    }
}

/// Images.
impl Engine {
    /// Makes an image of a root file system tar; answers its id.
    pub async fn image_import(
        self: &Arc<Self>,
        _request: ImportRequest,
        _body: ByteSource,
    ) -> Result<String> {
        Err(Error::not_implemented("image_import is not implemented"))
    }

    /// Loads images from a docker-archive or oci-archive; progress as it comes. `quiet` leaves the progress out.
    pub async fn image_load(
        self: &Arc<Self>,
        _quiet: bool,
        _body: ByteSource,
    ) -> Result<Stream<JsonMessage>> {
        Err(Error::not_implemented("image_load is not implemented"))
    }

    /// Images as one tar.
    pub async fn image_save(self: &Arc<Self>, _names: Vec<String>) -> Result<Stream<Bytes>> {
        Err(Error::not_implemented("image_save is not implemented"))
    }

    /// The images.
    pub async fn image_list(self: &Arc<Self>, _all: bool, _filters: Filters) -> Result<Vec<image::Summary>> {
        Err(Error::not_implemented("image_list is not implemented"))
    }

    /// All about one image.
    pub async fn image_inspect(self: &Arc<Self>, _name: &str) -> Result<image::Inspect> {
        Err(Error::not_implemented("image_inspect is not implemented"))
    }

    /// How an image came to be.
    pub async fn image_history(self: &Arc<Self>, _name: &str) -> Result<Vec<image::HistoryItem>> {
        Err(Error::not_implemented("image_history is not implemented"))
    }

    /// Gives an image another name.
    pub async fn image_tag(self: &Arc<Self>, _name: &str, _repository: &str, _tag: &str) -> Result<()> {
        Err(Error::not_implemented("image_tag is not implemented"))
    }

    /// Removes a name, and the image with its last name.
    pub async fn image_remove(
        self: &Arc<Self>,
        _name: &str,
        _force: bool,
        _no_prune: bool,
    ) -> Result<Vec<image::DeleteResponseItem>> {
        Err(Error::not_implemented("image_remove is not implemented"))
    }

    /// Removes images that nothing uses.
    pub async fn image_prune(self: &Arc<Self>, _filters: Filters) -> Result<image::PruneResponse> {
        Err(Error::not_implemented("image_prune is not implemented"))
    }
}

/// System.
impl Engine {
    /// The engine and its host.
    pub async fn info(self: &Arc<Self>) -> Result<system::Info> {
        Err(Error::not_implemented("info is not implemented"))
    }

    /// Versions.
    pub async fn version(self: &Arc<Self>) -> Result<system::Version> {
        Err(Error::not_implemented("version is not implemented"))
    }

    /// Disk usage.
    pub async fn df(self: &Arc<Self>) -> Result<system::DiskUsage> {
        Err(Error::not_implemented("df is not implemented"))
    }

    /// What happens, and what happened lately.
    pub async fn events(self: &Arc<Self>, _request: EventsRequest) -> Result<Stream<event::Message>> {
        Err(Error::not_implemented("events is not implemented"))
    }
}

/// Networks and volumes.
impl Engine {
    /// The networks.
    pub async fn network_list(self: &Arc<Self>, _filters: Filters) -> Result<Vec<network::Network>> {
        Err(Error::not_implemented("network_list is not implemented"))
    }

    /// All about one network.
    pub async fn network_inspect(self: &Arc<Self>, _name: &str) -> Result<network::Network> {
        Err(Error::not_implemented("network_inspect is not implemented"))
    }

    /// The volumes.
    pub async fn volume_list(self: &Arc<Self>, _filters: Filters) -> Result<volume::ListResponse> {
        Err(Error::not_implemented("volume_list is not implemented"))
    }

    /// All about one volume.
    pub async fn volume_inspect(self: &Arc<Self>, _name: &str) -> Result<volume::Volume> {
        Err(Error::not_implemented("volume_inspect is not implemented"))
    }

    /// Makes a volume, or answers the one that is there.
    pub async fn volume_create(self: &Arc<Self>, _request: volume::CreateRequest) -> Result<volume::Volume> {
        Err(Error::not_implemented("volume_create is not implemented"))
    }

    /// Removes a volume that no container uses.
    pub async fn volume_remove(self: &Arc<Self>, _name: &str, _force: bool) -> Result<()> {
        Err(Error::not_implemented("volume_remove is not implemented"))
    }

    /// Removes volumes that no container uses.
    pub async fn volume_prune(self: &Arc<Self>, _filters: Filters) -> Result<volume::PruneResponse> {
        Err(Error::not_implemented("volume_prune is not implemented"))
    }
}
