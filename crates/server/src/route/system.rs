//! The engine itself: `/_ping`, `/version`, `/info`, `/events`, `/system/df`.
#![expect(clippy::unused_async, reason = "handlers have one type")]

use futures_util::StreamExt;
use hyper::Response;
use hyper::header::{ACCEPT, CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue, PRAGMA};
use ponton_api::version::{self, ApiVersion};
use ponton_engine::request::{DiskUsageOptions, EventsRequest};

use crate::adapt;
use crate::answer::{self, Body};
use crate::call::Call;
use crate::error::{Error, Result};
use crate::json_lines::{self, Framing};
use crate::router::routes;

routes! {
    GET "/_ping" => ping,
    HEAD "/_ping" => ping,
    GET "/version" => show_version,
    GET "/info" => info,
    GET "/events" => events,
    GET "/system/df" => disk_usage,
}

/// Doesn't ask the engine: it answers as soon as the daemon listens.
async fn ping(_call: Call) -> Result<Response<Body>> {
    const BUILDER_VERSION: HeaderName = HeaderName::from_static("builder-version");
    const SWARM: HeaderName = HeaderName::from_static("swarm");
    let mut response = answer::text("OK");
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(BUILDER_VERSION, HeaderValue::from_static("1"));
    headers.insert(SWARM, HeaderValue::from_static("inactive"));
    Ok(response)
}

async fn show_version(call: Call) -> Result<Response<Body>> {
    let mut shown = call.engine.version().await?;
    // Which versions are served is this crate's to say.
    shown.api_version = version::MAX.to_string();
    shown.min_api_version = version::MIN.to_string();
    for details in shown.components.iter_mut().filter_map(|component| component.details.as_mut()) {
        for (name, version) in [("ApiVersion", version::MAX), ("MinAPIVersion", version::MIN)] {
            if let Some(value) = details.get_mut(name) {
                *value = version.to_string();
            }
        }
    }
    Ok(answer::ok(&shown))
}

async fn info(call: Call) -> Result<Response<Body>> {
    let info = call.engine.info().await?;
    Ok(adapt::ok(&info, |value| adapt::info(value, call.version)))
}

async fn events(call: Call) -> Result<Response<Body>> {
    let query = call.query()?;
    let request = EventsRequest {
        since: query.timestamp("since")?,
        until: query.timestamp("until")?,
        filters: query.filters()?,
    };
    if let (Some(since), Some(until)) = (request.since, request.until)
        && until < since
    {
        return Err(Error::invalid(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            query.text("since"),
            query.text("until")
        )));
    }
    let version = call.version;
    let (content_type, framing) = event_framing(&call.headers, version);
    let messages = call.engine.events(request).await?.map(move |message| {
        message.map(|message| {
            // What many listen to is printed once for each kind of listener.
            let form =
                usize::from(adapt::is_event_plain(version)) * 2 + usize::from(framing == Framing::Sequence);
            message.printed(form, |message| {
                let value = adapt::value(message, |value| adapt::event(value, version));
                json_lines::encode(&value, framing)
            })
        })
    });
    Ok(answer::stream(content_type, call.shutdown, messages))
}

/// How the client wants events: since 1.52 it may choose.
fn event_framing(headers: &HeaderMap, version: ApiVersion) -> (&'static str, Framing) {
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if version >= ApiVersion::new(1, 52) {
        for media in accepted.split(',').filter_map(|part| part.split(';').next()) {
            match media.trim() {
                "application/json-seq" => return ("application/json-seq", Framing::Sequence),
                "application/x-ndjson" => return ("application/x-ndjson", Framing::Lines),
                "application/jsonl" => return ("application/jsonl", Framing::Lines),
                _ => {}
            }
        }
    }
    (answer::JSON, Framing::Lines)
}

async fn disk_usage(call: Call) -> Result<Response<Body>> {
    let query = call.query()?;
    let kinds: Vec<&str> =
        if call.version < ApiVersion::new(1, 42) { Vec::new() } else { query.all("type").collect() };
    if let Some(kind) =
        kinds.iter().find(|kind| !["container", "image", "volume", "build-cache"].contains(*kind))
    {
        return Err(Error::invalid(format!("unknown object type: {kind}")));
    }
    let wanted = |kind: &str| kinds.is_empty() || kinds.contains(&kind);
    let options = DiskUsageOptions {
        images: wanted("image"),
        containers: wanted("container"),
        volumes: wanted("volume"),
        build_cache: wanted("build-cache"),
    };
    let usage = call.engine.df(options).await?;
    let verbose = query.boolean("verbose");
    Ok(adapt::ok(&usage, |value| adapt::disk_usage(value, &usage, call.version, verbose)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_framed_as_asked_since_1_52() {
        let framing = |accept: &'static str, minor| {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            event_framing(&headers, ApiVersion::new(1, minor)).0
        };
        assert_eq!(framing("text/html, application/json-seq;q=1", 52), "application/json-seq");
        assert_eq!(framing("application/json-seq", 51), "application/json");
        assert_eq!(framing("*/*", 53), "application/json");
    }
}
