use bytes::Bytes;
use ponton_api::event::Message;
use ponton_api::system::{DiskUsage, Info, Version};

use crate::{Client, Error, JsonStream};

impl Client {
    /// The daemon's version.
    pub async fn system_version(&self) -> Result<Version, Error> {
        self.get("/version").fetch().await
    }

    /// The daemon's version, as the daemon wrote it.
    pub async fn system_version_raw(&self) -> Result<Bytes, Error> {
        self.get("/version").send().await?.bytes().await
    }

    /// All about the daemon.
    pub async fn system_info(&self) -> Result<Info, Error> {
        self.get("/info").fetch().await
    }

    /// All about the daemon, as it wrote it.
    pub async fn system_info_raw(&self) -> Result<Bytes, Error> {
        self.get("/info").send().await?.bytes().await
    }

    /// What takes space.
    pub async fn system_df(&self) -> Result<DiskUsage, Error> {
        self.get("/system/df").fetch().await
    }

    /// What happens; `since` and `until` are seconds since 1970 or empty.
    pub async fn system_events(
        &self,
        since: &str,
        until: &str,
        filters: &str,
    ) -> Result<JsonStream<Message>, Error> {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Ok(self
            .get("/events")
            .maybe("since", some(since))
            .maybe("until", some(until))
            .maybe("filters", some(filters))
            .send()
            .await?
            .json_stream())
    }
}
