use bytes::Bytes;
use ponton_api::volume::{CreateRequest, ListResponse, PruneResponse, Volume};

use crate::request::segment;
use crate::{Client, Error};

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

    /// Removes unused volumes.
    pub async fn volume_prune(&self, filters: &str) -> Result<PruneResponse, Error> {
        self.post("/volumes/prune").maybe("filters", (!filters.is_empty()).then_some(filters)).fetch().await
    }
}
