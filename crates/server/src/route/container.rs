//! `/containers/…`: making, changing and showing containers.

use hyper::header::{HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use ponton_api::base64;
use ponton_api::container::{CreateRequest, PathStat, UpdateRequest};
use ponton_api::version::ApiVersion;
use ponton_engine::request::{ListOptions, PutOptions, RemoveOptions, StopOptions};

use crate::adapt;
use crate::answer::{self, Body};
use crate::call::Call;
use crate::error::{Error, Result};
use crate::query::Query;
use crate::router::routes;

routes! {
    GET "/containers/json" => list,
    POST "/containers/create" => create,
    POST "/containers/prune" => prune,
    GET "/containers/{name}/json" => inspect,
    GET "/containers/{name}/top" => top,
    GET "/containers/{name}/changes" => changes,
    POST "/containers/{name}/start" => start,
    POST "/containers/{name}/stop" => stop,
    POST "/containers/{name}/restart" => restart,
    POST "/containers/{name}/kill" => kill,
    POST "/containers/{name}/pause" => pause,
    POST "/containers/{name}/unpause" => unpause,
    POST "/containers/{name}/rename" => rename,
    POST "/containers/{name}/resize" => resize,
    POST "/containers/{name}/update" => update,
    DELETE "/containers/{name}" => remove,
    HEAD "/containers/{name}/archive" => archive_stat,
    GET "/containers/{name}/archive" => archive_get,
    PUT "/containers/{name}/archive" => archive_put,
    GET "/containers/{name}/export" => export,
    POST "/ponton/containers/plan" => plan_create,
    GET "/ponton/containers/{name}/plan" => plan,
    GET "/ponton/containers/{name}/explain" => explain,
}

async fn list(call: Call) -> Result<Response<Body>> {
    let query = call.query()?;
    let options = ListOptions {
        all: query.boolean("all"),
        limit: query.integer("limit")?.unwrap_or_default(),
        size: query.boolean("size"),
        filters: query.filters()?,
    };
    Ok(answer::array(call.engine.list(&options)?).await)
}

async fn create_request(call: &mut Call) -> Result<CreateRequest> {
    let request: CreateRequest = call.json().await?;
    if request == CreateRequest::default() {
        return Err(Error::invalid("config cannot be empty in order to create a container"));
    }
    Ok(request)
}

async fn create(mut call: Call) -> Result<Response<Body>> {
    let request = create_request(&mut call).await?;
    let query = call.query()?;
    let created = call.engine.create(query.optional("name"), query.optional("platform"), request).await?;
    Ok(answer::json(StatusCode::CREATED, &created))
}

async fn plan_create(mut call: Call) -> Result<Response<Body>> {
    let request = create_request(&mut call).await?;
    Ok(answer::text(call.engine.plan_create(call.query()?.optional("name"), request).await?))
}

async fn plan(call: Call) -> Result<Response<Body>> {
    Ok(answer::text(call.engine.plan(call.name()).await?))
}

async fn explain(call: Call) -> Result<Response<Body>> {
    Ok(answer::ok(&call.engine.explain(call.name()).await?))
}

async fn prune(call: Call) -> Result<Response<Body>> {
    Ok(answer::ok(&call.engine.prune(call.query()?.filters()?).await?))
}

async fn inspect(call: Call) -> Result<Response<Body>> {
    let container = call.engine.inspect(call.name(), call.query()?.boolean("size")).await?;
    Ok(adapt::ok(&container, |value| adapt::container(value, call.version)))
}

async fn top(call: Call) -> Result<Response<Body>> {
    Ok(answer::ok(&call.engine.top(call.name(), call.query()?.text("ps_args")).await?))
}

async fn changes(call: Call) -> Result<Response<Body>> {
    Ok(answer::ok(&call.engine.changes(call.name()).await?))
}

/// A body was an old way to give a HostConfig. Clients that send an empty object get away with it.
async fn start(mut call: Call) -> Result<Response<Body>> {
    if call.short_body().await?.len() > "{}\r\n".len() {
        return Err(Error::invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    let query = call.query()?;
    let keys = query.optional("detachKeys");
    match query.optional("checkpoint") {
        Some(checkpoint) => {
            let directory = query.text("checkpoint-dir");
            call.engine.checkpoint_start(call.name(), checkpoint, directory, keys).await?;
        }
        None => call.engine.start(call.name(), keys).await?,
    }
    Ok(answer::no_content())
}

fn stop_options(query: &Query, version: ApiVersion) -> Result<StopOptions> {
    let signal = query.optional("signal").filter(|_| version >= ApiVersion::new(1, 42));
    Ok(StopOptions { timeout: query.integer("t")?, signal: signal.map(str::to_owned) })
}

async fn stop(call: Call) -> Result<Response<Body>> {
    call.engine.stop(call.name(), stop_options(&call.query()?, call.version)?).await?;
    Ok(answer::no_content())
}

async fn restart(call: Call) -> Result<Response<Body>> {
    call.engine.restart(call.name(), stop_options(&call.query()?, call.version)?).await?;
    Ok(answer::no_content())
}

async fn kill(call: Call) -> Result<Response<Body>> {
    call.engine.kill(call.name(), call.query()?.text("signal")).await?;
    Ok(answer::no_content())
}

async fn pause(call: Call) -> Result<Response<Body>> {
    call.engine.pause(call.name()).await?;
    Ok(answer::no_content())
}

async fn unpause(call: Call) -> Result<Response<Body>> {
    call.engine.unpause(call.name()).await?;
    Ok(answer::no_content())
}

async fn rename(call: Call) -> Result<Response<Body>> {
    call.engine.rename(call.name(), call.query()?.text("name")).await?;
    Ok(answer::no_content())
}

async fn resize(call: Call) -> Result<Response<Body>> {
    let query = call.query()?;
    let (rows, cols) = (query.terminal_size("h", "height")?, query.terminal_size("w", "width")?);
    call.engine.resize(call.name(), rows, cols).await?;
    Ok(answer::empty(StatusCode::OK))
}

async fn update(mut call: Call) -> Result<Response<Body>> {
    let request: UpdateRequest = call.json().await?;
    Ok(answer::ok(&call.engine.update(call.name(), request).await?))
}

async fn remove(call: Call) -> Result<Response<Body>> {
    let query = call.query()?;
    let options = RemoveOptions {
        force: query.boolean("force"),
        volumes: query.boolean("v"),
        link: query.boolean("link"),
    };
    call.engine.remove(call.name(), options).await?;
    Ok(answer::no_content())
}

/// The query parameter `path` of the archive calls.
fn archive_path(query: &Query) -> Result<&str> {
    query.optional("path").ok_or_else(|| Error::invalid("bad parameter: path cannot be empty"))
}

fn add_path_stat(response: &mut Response<Body>, stat: &PathStat) -> Result<()> {
    const PATH_STAT: HeaderName = HeaderName::from_static("x-docker-container-path-stat");
    let json = serde_json::to_vec(stat).map_err(|error| Error::internal(error.to_string()))?;
    let value =
        HeaderValue::try_from(base64::encode(&json)).map_err(|error| Error::internal(error.to_string()))?;
    response.headers_mut().insert(PATH_STAT, value);
    Ok(())
}

async fn archive_stat(call: Call) -> Result<Response<Body>> {
    let stat = call.engine.archive_stat(call.name(), archive_path(&call.query()?)?).await?;
    let mut response = answer::empty(StatusCode::OK);
    add_path_stat(&mut response, &stat)?;
    Ok(response)
}

async fn archive_get(call: Call) -> Result<Response<Body>> {
    let (stat, tar) = call.engine.archive_get(call.name(), archive_path(&call.query()?)?).await?;
    let mut response = answer::stream(answer::TAR, call.shutdown, tar);
    add_path_stat(&mut response, &stat)?;
    Ok(response)
}

async fn archive_put(call: Call) -> Result<Response<Body>> {
    let query = call.query()?;
    let path = archive_path(&query)?.to_owned();
    let options = PutOptions {
        no_overwrite_dir_non_dir: query.boolean("noOverwriteDirNonDir"),
        copy_uid_gid: query.boolean("copyUIDGID"),
    };
    let (engine, name) = (call.engine.clone(), call.name().to_owned());
    engine.archive_put(&name, &path, options, call.into_body()).await?;
    Ok(answer::empty(StatusCode::OK))
}

async fn export(call: Call) -> Result<Response<Body>> {
    let tar = call.engine.export(call.name()).await?;
    Ok(answer::stream(answer::TAR, call.shutdown, tar))
}
