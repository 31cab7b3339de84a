use std::io;

use bytes::Bytes;
use futures_util::Stream;
use ponton_api::image::{DeleteResponseItem, HistoryItem, Inspect, PruneResponse, Summary};
use ponton_api::stream::JsonMessage;

use crate::request::segment;
use crate::{Client, Error, JsonStream, Response};

impl Client {
    /// Lists images.
    pub async fn image_list(&self, all: bool, filters: &str) -> Result<Vec<Summary>, Error> {
        self.get("/images/json")
            .flag("all", all)
            .maybe("filters", (!filters.is_empty()).then_some(filters))
            .fetch()
            .await
    }

    /// All about an image.
    pub async fn image_inspect(&self, name: &str) -> Result<Inspect, Error> {
        self.get(format!("/images/{}/json", segment(name))).fetch().await
    }

    /// All about an image, as the daemon wrote it.
    pub async fn image_inspect_raw(&self, name: &str) -> Result<Bytes, Error> {
        self.get(format!("/images/{}/json", segment(name))).send().await?.bytes().await
    }

    /// How an image came to be.
    pub async fn image_history(&self, name: &str) -> Result<Vec<HistoryItem>, Error> {
        self.get(format!("/images/{}/history", segment(name))).fetch().await
    }

    /// Gives an image another name.
    pub async fn image_tag(&self, name: &str, repository: &str, tag: &str) -> Result<(), Error> {
        self.post(format!("/images/{}/tag", segment(name)))
            .query("repo", repository)
            .query("tag", tag)
            .done()
            .await
    }

    /// Removes a name of an image, and the image with its last name.
    pub async fn image_remove(
        &self,
        name: &str,
        force: bool,
        no_prune: bool,
    ) -> Result<Vec<DeleteResponseItem>, Error> {
        self.delete(format!("/images/{}", segment(name)))
            .flag("force", force)
            .flag("noprune", no_prune)
            .fetch()
            .await
    }

    /// Pulls an image.
    pub async fn image_pull(
        &self,
        name: &str,
        tag: &str,
        platform: &str,
    ) -> Result<JsonStream<JsonMessage>, Error> {
        Ok(self
            .post("/images/create")
            .query("fromImage", name)
            .maybe("tag", (!tag.is_empty()).then_some(tag))
            .maybe("platform", (!platform.is_empty()).then_some(platform))
            .send()
            .await?
            .json_stream())
    }

    /// Makes an image from the tar of a root file system: `tar`, or what is at the URL `source`.
    pub async fn image_import(
        &self,
        query: &[(&str, String)],
        tar: Option<impl Stream<Item = io::Result<Bytes>> + Send + 'static>,
    ) -> Result<JsonStream<JsonMessage>, Error> {
        let mut request = self.post("/images/create");
        for (name, value) in query {
            request = request.query(name, value);
        }
        if let Some(tar) = tar {
            request = request.tar(tar);
        }
        Ok(request.send().await?.json_stream())
    }

    /// Loads the images of an archive.
    pub async fn image_load(
        &self,
        quiet: bool,
        tar: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<JsonStream<JsonMessage>, Error> {
        let request = self.post("/images/load");
        let request = if quiet { request.query("quiet", "1") } else { request.query("quiet", "0") };
        Ok(request.tar(tar).send().await?.json_stream())
    }

    /// Images as an archive.
    pub async fn image_save(&self, names: &[String]) -> Result<Response, Error> {
        let mut request = self.get("/images/get");
        for name in names {
            request = request.query("names", name);
        }
        request.send().await
    }

    /// Removes unused images.
    pub async fn image_prune(&self, filters: &str) -> Result<PruneResponse, Error> {
        self.post("/images/prune").maybe("filters", (!filters.is_empty()).then_some(filters)).fetch().await
    }
}
