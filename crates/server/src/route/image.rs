//! `/images/…`, and `/commit`, which makes one.

use futures_util::stream;
use hyper::{Response, StatusCode};
use ponton_api::container::Config;
use ponton_api::image::IdResponse;
use ponton_api::stream::JsonMessage;
use ponton_api::version::ApiVersion;
use ponton_engine::request::{
    ArchiveFormat, CommitRequest, ImageListOptions, ImportRequest, LoadRequest, PullRequest, PushRequest,
    SaveRequest, SquashRequest, Stream,
};

use crate::adapt;
use crate::answer::{self, Body};
use crate::call::Call;
use crate::download::download;
use crate::error::{Error, Result};
use crate::json_lines;
use crate::query::Query;
use crate::router::routes;
use crate::shutdown::Shutdown;

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
    POST "/images/{name*}/push" => push,
    DELETE "/images/{name*}" => remove,
    POST "/commit" => commit,
    GET "/ponton/images/get" => save_as,
    POST "/ponton/images/check" => check,
    GET "/ponton/images/{name*}/explore" => explore,
    POST "/ponton/images/{name*}/squash" => squash,
}

async fn list(call: Call) -> Result<Response<Body>> {
    let query = call.query()?;
    let mut filters = query.filters()?;
    // Before 1.41 a reference was given by itself.
    if let Some(reference) = query.optional("filter").filter(|_| call.version < ApiVersion::new(1, 41)) {
        filters.add("reference", reference);
    }
    let options = ImageListOptions {
        filters,
        shared_size: query.boolean("shared-size"),
        containers: true,
        manifests: query.boolean("manifests") && call.version >= ApiVersion::new(1, 47),
    };
    let mut images = call.engine.image_list(options).await?;
    for image in &mut images {
        adapt::image_summary(image, call.version);
    }
    Ok(answer::ok(&images))
}

async fn inspect(call: Call) -> Result<Response<Body>> {
    let query = call.query()?;
    let manifests = query.boolean("manifests") && call.version >= ApiVersion::new(1, 48);
    let platform = query.platform("platform")?;
    if manifests && platform.is_some() {
        return Err(Error::invalid("conflicting options: manifests and platform options cannot both be set"));
    }
    let image = call.engine.image_inspect(call.name(), platform.as_deref(), manifests).await?;
    Ok(adapt::ok(&image, |value| adapt::image(value, call.version)))
}

async fn history(call: Call) -> Result<Response<Body>> {
    let platform = call.query()?.platform("platform")?;
    Ok(answer::ok(&call.engine.image_history(call.name(), platform.as_deref()).await?))
}

async fn tag(call: Call) -> Result<Response<Body>> {
    let query = call.query()?;
    call.engine.image_tag(call.name(), query.text("repo"), query.text("tag")).await?;
    Ok(answer::empty(StatusCode::CREATED))
}

async fn remove(call: Call) -> Result<Response<Body>> {
    let query = call.query()?;
    if query.optional("platforms").is_some() {
        return Err(Error::not_implemented(
            "platforms: removing one platform of an image is not implemented",
        ));
    }
    let removed =
        call.engine.image_remove(call.name(), query.boolean("force"), query.boolean("noprune")).await?;
    Ok(answer::ok(&removed))
}

async fn prune(call: Call) -> Result<Response<Body>> {
    Ok(answer::ok(&call.engine.image_prune(call.query()?.filters()?).await?))
}

async fn save(call: Call) -> Result<Response<Body>> {
    let names = vec![call.name().to_owned()];
    save_named(call, names, ArchiveFormat::Docker).await
}

async fn save_many(call: Call) -> Result<Response<Body>> {
    let names = names(&call.query()?)?;
    save_named(call, names, ArchiveFormat::Docker).await
}

/// As `save_many`, in the form of the parameter `format`.
async fn save_as(call: Call) -> Result<Response<Body>> {
    let query = call.query()?;
    let format = match query.text("format") {
        "" | "docker-archive" => ArchiveFormat::Docker,
        "oci-archive" => ArchiveFormat::Oci,
        other => {
            return Err(Error::invalid(format!(
                "invalid format {other:?}: it is one of docker-archive, oci-archive"
            )));
        }
    };
    save_named(call, names(&query)?, format).await
}

fn names(query: &Query) -> Result<Vec<String>> {
    let names: Vec<String> = query.all("names").map(str::to_owned).collect();
    if names.is_empty() { Err(Error::invalid("no images are named to save")) } else { Ok(names) }
}

async fn save_named(call: Call, names: Vec<String>, format: ArchiveFormat) -> Result<Response<Body>> {
    let platforms = call.query()?.platforms("platform")?;
    let tar = call.engine.image_save(SaveRequest { names, platforms, format }).await?;
    Ok(answer::stream(answer::TAR, call.shutdown, tar))
}

async fn load(call: Call) -> Result<Response<Body>> {
    let query = call.query()?;
    let request = LoadRequest { quiet: query.boolean("quiet"), platforms: query.platforms("platform")? };
    let (engine, shutdown) = (call.engine.clone(), call.shutdown.clone());
    let messages = engine.image_load(request, call.into_body()).await?;
    Ok(progress(shutdown, messages))
}

/// A pull, or an import where `fromSrc` is given.
async fn create(call: Call) -> Result<Response<Body>> {
    let query = call.query()?;
    if let Some(image) = query.optional("fromImage") {
        return pull(&call, &query, image).await;
    }
    match query.text("fromSrc") {
        "" => Err(Error::invalid("one of fromImage and fromSrc must be given")),
        source => {
            let request = import_request(&query)?;
            let (engine, shutdown) = (call.engine.clone(), call.shutdown.clone());
            let body = match source {
                "-" => call.into_body(),
                url => download(url).await?,
            };
            // Carried through without the client, unlike a pull.
            let imported = tokio::spawn(async move { engine.image_import(request, body).await });
            import(imported.await.map_err(|error| Error::internal(error.to_string()))?, shutdown)
        }
    }
}

async fn pull(call: &Call, query: &Query, image: &str) -> Result<Response<Body>> {
    let request = PullRequest {
        image: image.to_owned(),
        tag: query.text("tag").to_owned(),
        platform: query.platform("platform")?,
        auth: call.credentials("x-registry-auth"),
        auths: call.credentials("x-registry-config"),
    };
    Ok(progress(call.shutdown.clone(), call.engine.image_pull(request).await?))
}

async fn push(call: Call) -> Result<Response<Body>> {
    let query = call.query()?;
    let request = PushRequest {
        image: call.name().to_owned(),
        tag: query.text("tag").to_owned(),
        platform: query.platform("platform")?,
        auth: call.credentials("x-registry-auth"),
    };
    Ok(progress(call.shutdown.clone(), call.engine.image_push(request).await?))
}

async fn commit(mut call: Call) -> Result<Response<Body>> {
    let query = call.query()?;
    let config: Option<Config> = call.json().await?;
    let request = CommitRequest {
        container: query.text("container").to_owned(),
        reference: target(&query),
        comment: query.text("comment").to_owned(),
        author: query.text("author").to_owned(),
        changes: query.all("changes").map(str::to_owned).collect(),
        pause: query.boolean_or("pause", true),
        config,
    };
    let id = call.engine.commit(request).await?;
    Ok(answer::json(StatusCode::CREATED, &IdResponse { id }))
}

async fn explore(call: Call) -> Result<Response<Body>> {
    let files = call.query()?.boolean("files");
    Ok(answer::ok(&call.engine.image_explore(call.name(), files).await?))
}

async fn squash(call: Call) -> Result<Response<Body>> {
    let query = call.query()?;
    let request = SquashRequest {
        image: call.name().to_owned(),
        from: query.optional("from").map(str::to_owned),
        reference: target(&query),
    };
    let id = call.engine.image_squash(request).await?;
    Ok(answer::json(StatusCode::CREATED, &IdResponse { id }))
}

async fn check(call: Call) -> Result<Response<Body>> {
    let messages = call.engine.image_check(call.query()?.boolean("repair")).await?;
    Ok(progress(call.shutdown, messages))
}

/// Messages as they come.
fn progress(shutdown: Shutdown, messages: Stream<JsonMessage>) -> Response<Body> {
    answer::stream(answer::JSON, shutdown, json_lines::lines(messages))
}

/// The name that a new image is to get: `repo` and `tag`, or a digest in its place.
fn target(query: &Query) -> Option<String> {
    query.optional("repo").map(|repository| match query.optional("tag") {
        Some(digest) if digest.contains(':') => format!("{repository}@{digest}"),
        Some(tag) => format!("{repository}:{tag}"),
        None => repository.to_owned(),
    })
}

fn import_request(query: &Query) -> Result<ImportRequest> {
    let reference = target(query);
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

fn import(imported: ponton_engine::Result<String>, shutdown: Shutdown) -> Result<Response<Body>> {
    let message = JsonMessage { status: imported?, ..JsonMessage::default() };
    let line = stream::iter([Ok::<_, ponton_engine::Error>(message)]);
    Ok(answer::stream(answer::JSON, shutdown, json_lines::lines(line)))
}
