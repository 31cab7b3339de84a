use std::io;

use bytes::Bytes;
use futures_util::Stream;
use ponton_api::volume::{CreateRequest, ListResponse, PruneResponse, Volume};

use crate::request::segment;
use crate::{Client, Error, Response};

impl Client {
    /// Lists volumes.
    pub async fn volume_list(&self, filters: &str) -> Result<ListResponse, Error> {
        self.get("/volumes").maybe("filters", (!filters.is_empty()).then_some(filters)).fetch().await
    }

    /// Creates a volume.
    pub async fn volume_create(&self, request: &CreateRequest) -> Result<Volume, Error> {
        self.post("/volumes/create").json(request).fetch().await
    }

    /// All about a volume, as the daemon wrote it.
    pub async fn volume_inspect_raw(&self, name: &str) -> Result<Bytes, Error> {
        self.get(format!("/volumes/{}", segment(name))).send().await?.bytes().await
    }

    /// Removes a volume.
    pub async fn volume_remove(&self, name: &str, force: bool) -> Result<(), Error> {
        self.delete(format!("/volumes/{}", segment(name))).flag("force", force).done().await
    }

    /// A volume's content as a tar; those who write to it stand still meanwhile, with `pause`.
    pub async fn volume_backup(&self, name: &str, pause: bool) -> Result<Response, Error> {
        let pause = if pause { "1" } else { "0" };
        self.get(format!("/ponton/volumes/{}/backup", segment(name))).query("pause", pause).send().await
    }

    /// Makes a tar the content of a volume.
    pub async fn volume_restore(
        &self,
        name: &str,
        force: bool,
        tar: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<Volume, Error> {
        self.put(format!("/ponton/volumes/{}/restore", segment(name)))
            .flag("force", force)
            .tar(tar)
            .fetch()
            .await
    }

    /// Makes a new volume with the content of another.
    pub async fn volume_clone(&self, name: &str, to: &str, pause: bool) -> Result<Volume, Error> {
        let pause = if pause { "1" } else { "0" };
        let request = self.post(format!("/ponton/volumes/{}/clone", segment(name)));
        request.query("to", to).query("pause", pause).fetch().await
    }

    /// Removes unused volumes.
    pub async fn volume_prune(&self, filters: &str) -> Result<PruneResponse, Error> {
        self.post("/volumes/prune").maybe("filters", (!filters.is_empty()).then_some(filters)).fetch().await
    }
}
