//! `/networks/…`: those that are there by default.
#![expect(clippy::unused_async, reason = "handlers have one type")]

use hyper::Response;
use ponton_api::network::PruneResponse;

use crate::answer::{self, Body};
use crate::call::Call;
use crate::error::{Error, Result};
use crate::router::routes;

routes! {
    GET "/networks" => list,
    GET "/networks/{name}" => inspect,
    POST "/networks/prune" => prune,
}

async fn list(call: Call) -> Result<Response<Body>> {
    Ok(answer::ok(&call.engine.network_list(call.query()?.filters()?).await?))
}

async fn inspect(call: Call) -> Result<Response<Body>> {
    let query = call.query()?;
    Ok(answer::ok(&call.engine.network_inspect(call.name(), query.text("scope")).await?))
}

/// Nothing to do: the networks that there are can't be removed.
async fn prune(call: Call) -> Result<Response<Body>> {
    let filters = call.query()?.filters()?;
    filters.check_known(&["label", "label!", "until"]).map_err(|error| Error::invalid(error.to_string()))?;
    Ok(answer::ok(&PruneResponse::default()))
}
