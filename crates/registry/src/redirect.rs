//! Where a registry sends its clients.

use hyper::header;
use hyper::http::uri::{Authority, PathAndQuery};
use hyper::{Method, StatusCode, Uri, header::HeaderValue};

use crate::error::{Error, Result};
use crate::transport::{Answer, Ask, Transport};

/// Sends a request once, and goes where its answer points. `authorization` is for the server of `ask.url`
/// and is shown to no other.
pub(crate) async fn follow(
    transport: &Transport,
    ask: &Ask<'_>,
    authorization: Option<&HeaderValue>,
) -> Result<Answer> {
    let mut url = ask.url.clone();
    for _ in 0..=transport.limits.redirects {
        let authorization = authorization.filter(|_| is_same_origin(&url, &ask.url));
        let answer = transport.send(ask, &url, authorization).await?;
        if !is_redirect(answer.status) {
            return Ok(answer);
        }
        let location = answer.header(header::LOCATION).unwrap_or_default();
        if ask.method != Method::GET && ask.method != Method::HEAD {
            return Err(refused(ask.what, location, "only what is fetched may be elsewhere"));
        }
        url = target(&url, location).map_err(|reason| refused(ask.what, location, reason))?;
    }
    Err(refused(ask.what, &url.to_string(), "there were too many before it"))
}

fn refused(what: &str, location: &str, reason: &'static str) -> Error {
    // What follows the question mark may be a signature, and is as good as a password.
    let location = location.split(['?', '#']).next().unwrap_or_default();
    Error::Redirect { what: what.to_owned(), location: crate::error::printable(location), reason }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301..=303 | 307 | 308)
}

/// What a `Location` means in an answer from `base`, if one may go there.
pub(crate) fn target(base: &Uri, location: &str) -> Result<Uri, &'static str> {
    let url = resolve(base, location).ok_or("it is no URL")?;
    match (base.scheme_str(), url.scheme_str()) {
        (_, Some("https")) | (Some("http"), Some("http")) => {}
        (_, Some("http")) => return Err("it leads from an encrypted connection to one that is not"),
        _ => return Err("it leads out of HTTP"),
    }
    if url.authority().is_none_or(|authority| authority.as_str().contains('@')) {
        return Err("it names a user");
    }
    Ok(url)
}

/// Resolves a reference against the URL that it stood at (RFC 3986, 5.2), without its fragment.
fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or_default();
    if location.is_empty() {
        return None;
    }
    if location.contains("://") && !location.starts_with(['/', '?']) {
        return location.parse().ok();
    }
    let mut parts = base.clone().into_parts();
    let path = match location.strip_prefix("//") {
        Some(rest) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            parts.authority = Some(rest[..end].parse::<Authority>().ok()?);
            if rest[end..].starts_with('/') { rest[end..].to_owned() } else { format!("/{}", &rest[end..]) }
        }
        None if location.starts_with('/') => location.to_owned(),
        None if location.starts_with('?') => format!("{}{location}", base.path()),
        None => {
            let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{folder}/{location}")
        }
    };
    parts.path_and_query = Some(path.parse::<PathAndQuery>().ok()?);
    Uri::from_parts(parts).ok()
}

/// Whether two URLs are of one server: scheme, host and port.
pub(crate) fn is_same_origin(a: &Uri, b: &Uri) -> bool {
    let port = |url: &Uri| {
        url.port_u16().or(match url.scheme_str() {
            Some("https") => Some(443),
            Some("http") => Some(80),
            _ => None,
        })
    };
    let hosts = a.host().zip(b.host());
    a.scheme() == b.scheme() && port(a) == port(b) && hosts.is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_resolved() {
        let base: Uri = "https://r.example:5000/v2/a/blobs/uploads/?x=1".parse().unwrap();
        for (location, expected) in [
            ("https://cdn.example/b?sig=1#top", "https://cdn.example/b?sig=1"),
            ("/v2/up?u=://x", "https://r.example:5000/v2/up?u=://x"),
            ("//cdn.example?q", "https://cdn.example/?q"),
            ("//cdn.example:1/p", "https://cdn.example:1/p"),
            ("id", "https://r.example:5000/v2/a/blobs/uploads/id"),
            ("?y=2", "https://r.example:5000/v2/a/blobs/uploads/?y=2"),
        ] {
            assert_eq!(target(&base, location).unwrap().to_string(), expected, "{location}");
        }
        for location in
            ["", "#", "http://r.example:5000/", "ftp://x/", "https://a@b/", "https://", "\u{1}", "//"]
        {
            assert!(target(&base, location).is_err(), "{location}");
        }
        let plain: Uri = "http://r.example/".parse().unwrap();
        assert!(target(&plain, "http://cdn.example/").is_ok());
        assert!(target(&plain, "https://cdn.example/").is_ok());
    }

    #[test]
    fn origins_differ_by_scheme_host_and_port() {
        let same = |a: &str, b: &str| is_same_origin(&a.parse().unwrap(), &b.parse().unwrap());
        assert!(same("https://a/x", "https://A:443/y"));
        assert!(!same("https://a/", "http://a/"));
        assert!(!same("https://a/", "https://b.a/"));
        assert!(!same("https://a:1/", "https://a:2/"));
        assert!(!same("https://a/", "/"));
    }
}
