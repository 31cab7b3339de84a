//! `/volumes/…`.

use hyper::{Response, StatusCode};
use ponton_api::version::ApiVersion;
use ponton_api::volume::CreateRequest;

use crate::answer::{self, Body};
use crate::call::Call;
use crate::error::{Error, Result};
use crate::router::routes;

routes! {
    GET "/volumes" => list,
    POST "/volumes/create" => create,
    POST "/volumes/prune" => prune,
    GET "/volumes/{name}" => inspect,
    PUT "/volumes/{name}" => update,
    DELETE "/volumes/{name}" => remove,
    GET "/ponton/volumes/{name}/backup" => backup,
    PUT "/ponton/volumes/{name}/restore" => restore,
    POST "/ponton/volumes/{name}/clone" => clone,
}

async fn list(call: Call) -> Result<Response<Body>> {
    Ok(answer::ok(&call.engine.volume_list(call.query()?.filters()?).await?))
}

async fn inspect(call: Call) -> Result<Response<Body>> {
    Ok(answer::ok(&call.engine.volume_inspect(call.name()).await?))
}

async fn create(mut call: Call) -> Result<Response<Body>> {
    let request: CreateRequest = call.json().await?;
    Ok(answer::json(StatusCode::CREATED, &call.engine.volume_create(request).await?))
}

async fn remove(call: Call) -> Result<Response<Body>> {
    call.engine.volume_remove(call.name(), call.query()?.boolean("force")).await?;
    Ok(answer::no_content())
}

/// Docker updates volumes of a cluster only, which there is none of.
#[expect(clippy::unused_async, reason = "handlers have one type")]
async fn update(_call: Call) -> Result<Response<Body>> {
    let message = "volume update only valid for cluster volumes, but swarm is unavailable";
    Err(Error::new(StatusCode::SERVICE_UNAVAILABLE, message))
}

async fn backup(call: Call) -> Result<Response<Body>> {
    let pause = call.query()?.optional("pause") != Some("0");
    let tar = call.engine.volume_backup(call.name(), pause).await?;
    Ok(answer::stream(answer::TAR, call.shutdown, tar))
}

async fn restore(call: Call) -> Result<Response<Body>> {
    let force = call.query()?.boolean("force");
    let (engine, name) = (call.engine.clone(), call.name().to_owned());
    Ok(answer::ok(&engine.volume_restore(&name, force, call.into_body()).await?))
}

async fn clone(call: Call) -> Result<Response<Body>> {
    let query = call.query()?;
    let pause = query.optional("pause") != Some("0");
    let to = query.optional("to").unwrap_or_default();
    Ok(answer::json(StatusCode::CREATED, &call.engine.volume_clone(call.name(), to, pause).await?))
}

async fn prune(call: Call) -> Result<Response<Body>> {
    let mut filters = call.query()?.filters()?;
    // Before 1.42 named volumes were pruned too.
    if call.version < ApiVersion::new(1, 42) {
        filters.add("all", "true");
    }
    Ok(answer::ok(&call.engine.volume_prune(filters).await?))
}
