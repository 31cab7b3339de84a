//! `/images/…`.

use futures_util::stream;
use hyper::{Response, StatusCode};
use ponton_api::stream::JsonMessage;
use ponton_api::version::ApiVersion;
use ponton_engine::request::ImportRequest;

use crate::adapt;
use crate::answer::{self, Body};
use crate::call::Call;
use crate::download::download;
use crate::error::{Error, Result};
use crate::json_lines;
use crate::query::Query;
use crate::router::routes;

routes! {
    GET "/images/json" => list,
    GET "/images/get" => save_many,
    POST "/images/create" => create,
    POST "/images/load" => load,
    POST "/images/prune" => prune,
    GET "/images/{name*}/json" => inspect,
    GET "/images/{name*}/history" => history,
    GET "/images/{name*}/get" => save,
    POST "/images/{name*}/tag" => tag,
    DELETE "/images/{name*}" => remove,
}

async fn list(call: Call) -> Result<Response<Body>> {
    let query = call.query()?;
    let mut filters = query.filters()?;
    // Before 1.41 a reference was given by itself.
    if let Some(reference) = query.optional("filter").filter(|_| call.version < ApiVersion::new(1, 41)) {
        filters.add("reference", reference);
    }
    let images = call.engine.image_list(query.boolean("all"), filters).await?;
    Ok(adapt::ok(&images, |value| adapt::each(value, |image| adapt::image_summary(image, call.version))))
}

async fn inspect(call: Call) -> Result<Response<Body>> {
    let image = call.engine.image_inspect(call.name()).await?;
    Ok(adapt::ok(&image, |value| adapt::image(value, call.version)))
}

async fn history(call: Call) -> Result<Response<Body>> {
    Ok(answer::ok(&call.engine.image_history(call.name()).await?))
}

async fn tag(call: Call) -> Result<Response<Body>> {
    let query = call.query()?;
    call.engine.image_tag(call.name(), query.text("repo"), query.text("tag")).await?;
    Ok(answer::empty(StatusCode::CREATED))
}

async fn remove(call: Call) -> Result<Response<Body>> {
    let query = call.query()?;
    let removed =
        call.engine.image_remove(call.name(), query.boolean("force"), query.boolean("noprune")).await?;
    Ok(answer::ok(&removed))
}

async fn prune(call: Call) -> Result<Response<Body>> {
    Ok(answer::ok(&call.engine.image_prune(call.query()?.filters()?).await?))
}

async fn save(call: Call) -> Result<Response<Body>> {
    let names = vec![call.name().to_owned()];
    save_named(call, names).await
}

async fn save_many(call: Call) -> Result<Response<Body>> {
    let names: Vec<String> = call.query()?.all("names").map(str::to_owned).collect();
    if names.is_empty() {
        return Err(Error::invalid("no images are named to save"));
    }
    save_named(call, names).await
}

async fn save_named(call: Call, names: Vec<String>) -> Result<Response<Body>> {
    let tar = call.engine.image_save(names).await?;
    Ok(answer::stream(answer::TAR, call.shutdown, tar))
}

async fn load(call: Call) -> Result<Response<Body>> {
    let quiet = call.query()?.boolean("quiet");
    let (engine, shutdown) = (call.engine.clone(), call.shutdown.clone());
    let messages = engine.image_load(quiet, call.into_body()).await?;
    Ok(answer::stream(answer::JSON, shutdown, json_lines::lines(messages)))
}

/// A pull, or an import where `fromSrc` is given.
async fn create(call: Call) -> Result<Response<Body>> {
    let query = call.query()?;
    if let Some(image) = query.optional("fromImage") {
        return Err(Error::not_implemented(format!(
            "pulling {image} from a registry is not implemented: bring the image in with load or import"
        )));
    }
    match query.text("fromSrc") {
        "" => Err(Error::invalid("one of fromImage and fromSrc must be given")),
        "-" => {
            let request = import_request(&query)?;
            let (engine, shutdown) = (call.engine.clone(), call.shutdown.clone());
            import(engine.image_import(request, call.into_body()).await, shutdown)
        }
        url => {
            let request = import_request(&query)?;
            let source = download(url).await?;
            import(call.engine.image_import(request, source).await, call.shutdown)
        }
    }
}

fn import_request(query: &Query) -> Result<ImportRequest> {
    let reference = query.optional("repo").map(|repository| match query.optional("tag") {
        Some(digest) if digest.contains(':') => format!("{repository}@{digest}"),
        Some(tag) => format!("{repository}:{tag}"),
        None => repository.to_owned(),
    });
    if reference.as_ref().is_some_and(|reference| reference.contains('@')) {
        return Err(Error::invalid("cannot import digest reference"));
    }
    Ok(ImportRequest {
        reference,
        changes: query.all("changes").map(str::to_owned).collect(),
        message: query.text("message").to_owned(),
        platform: query.optional("platform").map(str::to_owned),
    })
}

fn import(
    imported: ponton_engine::Result<String>,
    shutdown: crate::shutdown::Shutdown,
) -> Result<Response<Body>> {
    let message = JsonMessage { status: imported?, ..JsonMessage::default() };
    let line = stream::iter([Ok::<_, ponton_engine::Error>(message)]);
    Ok(answer::stream(answer::JSON, shutdown, json_lines::lines(line)))
}
