use bytes::Bytes;
use ponton_api::network::Network;

use crate::request::segment;
use crate::{Client, Error};

impl Client {
    /// Lists networks.
    pub async fn network_list(&self, filters: &str) -> Result<Vec<Network>, Error> {
        self.get("/networks").maybe("filters", (!filters.is_empty()).then_some(filters)).fetch().await
    }

    /// All about a network, as the daemon wrote it.
    pub async fn network_inspect_raw(&self, name: &str, verbose: bool) -> Result<Bytes, Error> {
        self.get(format!("/networks/{}", segment(name))).flag("verbose", verbose).send().await?.bytes().await
    }
}
