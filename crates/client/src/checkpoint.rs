use serde::Deserialize;
use serde_json::json;

use crate::request::segment;
use crate::{Client, Error};

#[derive(Deserialize)]
struct Summary {
    #[serde(rename = "Name")]
    name: String,
}

impl Client {
    /// Writes the processes of a container to disk; they end if `exit`. An empty `directory` is the engine's.
    pub async fn checkpoint_create(
        &self,
        container: &str,
        checkpoint: &str,
        directory: &str,
        exit: bool,
    ) -> Result<(), Error> {
        let request = json!({ "CheckpointID": checkpoint, "CheckpointDir": directory, "Exit": exit });
        self.post(format!("/containers/{}/checkpoints", segment(container))).json(&request).done().await
    }

    /// The names of a container's checkpoints.
    pub async fn checkpoint_list(&self, container: &str, directory: &str) -> Result<Vec<String>, Error> {
        let found: Option<Vec<Summary>> = self
            .get(format!("/containers/{}/checkpoints", segment(container)))
            .maybe("dir", (!directory.is_empty()).then_some(directory))
            .fetch()
            .await?;
        Ok(found.unwrap_or_default().into_iter().map(|summary| summary.name).collect())
    }

    /// Removes a checkpoint.
    pub async fn checkpoint_remove(
        &self,
        container: &str,
        checkpoint: &str,
        directory: &str,
    ) -> Result<(), Error> {
        self.delete(format!("/containers/{}/checkpoints/{}", segment(container), segment(checkpoint)))
            .maybe("dir", (!directory.is_empty()).then_some(directory))
            .done()
            .await
    }
}
