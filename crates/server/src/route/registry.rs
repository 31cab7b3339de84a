//! What is asked of registries: `/auth`, `/images/search`, `/distribution/…`.

use hyper::Response;
use ponton_api::auth::AuthConfig;
use ponton_engine::request::SearchRequest;

use crate::answer::{self, Body};
use crate::call::Call;
use crate::error::{Error, Result};
use crate::router::routes;

routes! {
    POST "/auth" => auth,
    GET "/images/search" => search,
    GET "/distribution/{name*}/json" => distribution,
}

async fn auth(mut call: Call) -> Result<Response<Body>> {
    let auth: AuthConfig = call.json().await?;
    Ok(answer::ok(&call.engine.login(auth).await?))
}

async fn search(call: Call) -> Result<Response<Body>> {
    let query = call.query()?;
    let limit = query.integer("limit")?.unwrap_or_default();
    if !(0..=100).contains(&limit) {
        return Err(Error::invalid(format!("limit {limit} is outside the range of [1, 100]")));
    }
    let request = SearchRequest {
        term: query.text("term").to_owned(),
        limit: u32::try_from(limit).unwrap_or_default(),
        filters: query.filters()?,
        auth: call.credentials("x-registry-auth"),
    };
    Ok(answer::ok(&call.engine.image_search(request).await?))
}

async fn distribution(call: Call) -> Result<Response<Body>> {
    let auth = call.credentials("x-registry-auth");
    Ok(answer::ok(&call.engine.distribution_inspect(call.name(), &auth).await?))
}
