//! From a method and path to a handler: `/v1.41/containers/{name}/json`.
//!
//! A pattern has at most one name. `{name}` is one segment of the path; `{name*}` is one or more, for
//! the names of images. The first route that fits wins, so fixed words stand before names.

use std::pin::Pin;

use hyper::Method;
use ponton_api::version::{self, ApiVersion};

use crate::answer::Answer;
use crate::call::Call;
use crate::error::{Error, Result};
use crate::query;
use crate::route;

/// Makes an answer of a request.
pub(crate) type Handler = fn(Call) -> Pin<Box<dyn Future<Output = Result<Answer>> + Send>>;

/// A line of a route table.
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) pattern: &'static str,
    pub(crate) handler: Handler,
}

/// A table of routes: `routes! { GET "/containers/json" => list, … }`.
macro_rules! routes {
    ($($method:ident $pattern:literal => $handler:expr,)*) => {
        /// This noun's routes.
        pub(crate) const ROUTES: &[$crate::router::Route] = &[$(
            $crate::router::Route {
                method: hyper::Method::$method,
                pattern: $pattern,
                handler: |call| Box::pin(async move { $handler(call).await.map(Into::into) }),
            },
        )*];
    };
}
pub(crate) use routes;

/// The route of a request.
pub(crate) struct Routed {
    pub(crate) version: ApiVersion,
    pub(crate) handler: Handler,
    /// Whether the handler ends with its client although it changes something.
    pub(crate) ends_with_client: bool,
    /// What stands where the pattern has its name; empty without one.
    pub(crate) name: String,
}

impl std::fmt::Debug for Routed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Routed({}, {:?})", self.version, self.name)
    }
}

/// Finds the route of a request. A path without a version means the newest.
pub(crate) fn route(method: &Method, path: &str) -> Result<Routed> {
    let (version, rest) = match split_version(path) {
        Some((version, rest)) => (Some(version), rest),
        None => (None, path),
    };
    let segments: Vec<&str> = rest.trim_start_matches('/').split('/').collect();
    for route in route::routes().filter(|route| route.method == *method) {
        if let Some(name) = matches(route.pattern, &segments) {
            let name = query::decode(&name, false)?;
            let ends_with_client = route::ENDING_WITH_CLIENT.contains(&route.pattern);
            return Ok(Routed {
                version: negotiate(version)?,
                handler: route.handler,
                ends_with_client,
                name,
            });
        }
    }
    Err(Error::page_not_found())
}

/// `/v1.41/info` as `1.41` and `/info`.
fn split_version(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix("/v")?;
    let (version, _) = rest.split_once('/')?;
    let is_version = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    is_version.then(|| rest.split_at(version.len()))
}

fn negotiate(version: Option<&str>) -> Result<ApiVersion> {
    let Some(text) = version else { return Ok(version::MAX) };
    let version: ApiVersion =
        text.parse().map_err(|_| Error::invalid(format!("invalid API version {text:?}")))?;
    if version > version::MAX {
        return Err(Error::invalid(format!(
            "client version {version} is too new. Maximum supported API version is {}",
            version::MAX
        )));
    }
    if version < version::MIN {
        return Err(Error::invalid(format!(
            "client version {version} is too old. Minimum supported API version is {}, please upgrade your \
             client to a newer version",
            version::MIN
        )));
    }
    Ok(version)
}

/// The name in the path if the pattern fits it.
fn matches(pattern: &str, segments: &[&str]) -> Option<String> {
    let mut pattern = pattern.trim_start_matches('/').split('/');
    let mut rest = segments;
    let mut name = "";
    while let Some(part) = pattern.next() {
        if part == "{name*}" {
            let after: Vec<&str> = pattern.collect();
            let taken = rest.len().checked_sub(after.len()).filter(|taken| *taken > 0)?;
            let (own, tail) = rest.split_at(taken);
            return (tail == after && own.iter().all(|segment| !segment.is_empty())).then(|| own.join("/"));
        }
        let (segment, tail) = rest.split_first()?;
        match part {
            "{name}" if !segment.is_empty() => name = segment,
            fixed if fixed == *segment => {}
            _ => return None,
        }
        rest = tail;
    }
    rest.is_empty().then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(pattern: &str, path: &str) -> Option<String> {
        matches(pattern, &path.trim_start_matches('/').split('/').collect::<Vec<_>>())
    }

    #[test]
    fn names_of_images_span_segments() {
        assert_eq!(name("/images/{name*}/json", "/images/a/b/c:1/json").as_deref(), Some("a/b/c:1"));
        assert_eq!(name("/images/{name*}", "/images/localhost:5000/a").as_deref(), Some("localhost:5000/a"));
        assert_eq!(name("/images/{name*}/json", "/images/json"), None);
        assert_eq!(name("/images/{name*}/json", "/images//json"), None);
        assert_eq!(name("/containers/{name}/json", "/containers/a/b/json"), None);
        assert_eq!(name("/containers/{name}/json", "/containers/a/json").as_deref(), Some("a"));
        assert_eq!(name("/containers/{name}", "/containers/"), None);
        assert_eq!(name("/info", "/info/"), None);
    }

    fn error(method: &Method, path: &str) -> (u16, String) {
        let error = route(method, path).unwrap_err();
        (error.status.as_u16(), error.message)
    }

    #[test]
    fn versions_are_negotiated() {
        assert_eq!(route(&Method::GET, "/v1.24/info").unwrap().version, version::MIN);
        assert_eq!(route(&Method::GET, "/v1.53/containers/json").unwrap().version, version::MAX);
        assert_eq!(route(&Method::GET, "/info").unwrap().version, version::MAX);
        assert_eq!(
            error(&Method::GET, "/v1.99/info"),
            (400, "client version 1.99 is too new. Maximum supported API version is 1.53".into())
        );
        assert_eq!(
            error(&Method::GET, "/v1.12/info"),
            (
                400,
                "client version 1.12 is too old. Minimum supported API version is 1.24, please upgrade your \
                 client to a newer version"
                    .into()
            )
        );
        assert_eq!(error(&Method::GET, "/v1.2.3/info").0, 400);
    }

    #[test]
    fn what_is_nowhere_is_not_found() {
        for (method, path) in [
            (&Method::GET, "/nosuch"),
            (&Method::PUT, "/info"),
            (&Method::GET, "/"),
            (&Method::GET, "/v1.41"),
            (&Method::GET, "/volumes/"),
        ] {
            assert_eq!(error(method, path), (404, "page not found".into()), "{path}");
        }
    }

    #[test]
    fn fixed_words_win_over_names() {
        let handler = |path: &str| route(&Method::GET, path).unwrap();
        assert_eq!(handler("/images/json").name, "");
        assert_eq!(handler("/images/get").name, "");
        assert_eq!(handler("/images/a/get/json").name, "a/get");
        assert_eq!(handler("/containers/%2Fa%20b/json").name, "/a b");
    }

    #[test]
    fn every_pattern_can_be_reached() {
        for (at, route) in route::routes().enumerate() {
            let path = route.pattern.replace("{name*}", "na/me").replace("{name}", "name");
            let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
            let first = route::routes().position(|other| {
                other.method == route.method && matches(other.pattern, &segments).is_some()
            });
            assert_eq!(first, Some(at), "{} {}", route.method, route.pattern);
        }
    }
}
