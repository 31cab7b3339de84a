use ponton_api::exec::{ExecCreateRequest, ExecCreateResponse, ExecInspect, ExecStartRequest};

use crate::request::segment;
use crate::{Client, Error, Hijacked};

impl Client {
    /// Prepares a command in a running container.
    pub async fn exec_create(&self, container: &str, request: &ExecCreateRequest) -> Result<String, Error> {
        let response: ExecCreateResponse =
            self.post(format!("/containers/{}/exec", segment(container))).json(request).fetch().await?;
        Ok(response.id)
    }

    /// Starts a prepared command and takes over its streams.
    pub async fn exec_start(&self, id: &str, request: &ExecStartRequest) -> Result<Hijacked, Error> {
        self.post(format!("/exec/{}/start", segment(id))).json(request).hijack().await
    }

    /// Starts a prepared command and leaves it alone.
    pub async fn exec_start_detached(&self, id: &str, request: &ExecStartRequest) -> Result<(), Error> {
        self.post(format!("/exec/{}/start", segment(id))).json(request).done().await
    }

    /// The state of a command.
    pub async fn exec_inspect(&self, id: &str) -> Result<ExecInspect, Error> {
        self.get(format!("/exec/{}/json", segment(id))).fetch().await
    }

    /// Sets the size of a command's terminal.
    pub async fn exec_resize(&self, id: &str, rows: u16, columns: u16) -> Result<(), Error> {
        self.post(format!("/exec/{}/resize", segment(id)))
            .query("h", rows.to_string())
            .query("w", columns.to_string())
            .done()
            .await
    }
}
