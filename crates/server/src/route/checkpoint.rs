//! `/containers/{name}/checkpoints`.

use hyper::{Response, StatusCode};
use ponton_api::container::CheckpointCreateRequest;

use crate::answer::{self, Body};
use crate::call::Call;
use crate::error::{Error, Result};
use crate::router::routes;

routes! {
    GET "/containers/{name}/checkpoints" => list,
    POST "/containers/{name}/checkpoints" => create,
    DELETE "/containers/{name*}" => remove,
}

async fn list(call: Call) -> Result<Response<Body>> {
    let query = call.query()?;
    Ok(answer::ok(&call.engine.checkpoint_list(call.name(), query.text("dir")).await?))
}

async fn create(mut call: Call) -> Result<Response<Body>> {
    let request: CheckpointCreateRequest = call.json().await?;
    call.engine.checkpoint_create(call.name(), request).await?;
    Ok(answer::empty(StatusCode::CREATED))
}

/// The path has two names: `/containers/{name}/checkpoints/{checkpoint}`.
async fn remove(call: Call) -> Result<Response<Body>> {
    let Some((name, checkpoint)) = call.name().split_once("/checkpoints/") else {
        return Err(Error::page_not_found());
    };
    let query = call.query()?;
    call.engine.checkpoint_remove(name, checkpoint, query.text("dir")).await?;
    Ok(answer::no_content())
}
