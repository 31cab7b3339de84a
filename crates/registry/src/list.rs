//! What registries list: tags, and manifests that refer to another.

use hyper::header::{self, HeaderValue};
use hyper::{Method, Uri};
use ponton_oci::descriptor::Descriptor;
use ponton_oci::digest::Digest;
use ponton_oci::index::Index;
use ponton_oci::media_type;
use serde::Deserialize;

use crate::access::Query;
use crate::endpoint::Session;
use crate::error::{Error, Result};
use crate::manifest;
use crate::redirect::{is_same_origin, target};
use crate::repository::{TagOrDigest, ask};
use crate::transport::{Answer, Ask};

/// Bytes of one page, and items of all pages.
const PAGE_MAX: u64 = 8 << 20;
const ITEMS_MAX: usize = 200_000;
/// Pages of one list: also an empty page may have a next one.
const PAGES_MAX: usize = 10_000;
const PAGE_SIZE: u32 = 1000;

pub(crate) async fn tags(session: &Session, path: &str, name: &str) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Tags {
        tags: Option<Vec<String>>,
    }
    let first = format!("/v2/{path}/tags/list?n={PAGE_SIZE}");
    let mut tags = Vec::new();
    let mut pages = Pages::new(session, name, &first, None).await?;
    while let Some((_, page)) = pages.next().await? {
        let page: Tags = parse(name, &page)?;
        tags.extend(page.tags.unwrap_or_default());
        bounded(name, tags.len())?;
    }
    Ok(tags)
}

pub(crate) async fn referrers(
    session: &Session,
    path: &str,
    name: &str,
    digest: &Digest,
    artifact_type: Option<&str>,
) -> Result<Vec<Descriptor>> {
    let mut query = Query(String::new());
    if let Some(artifact_type) = artifact_type {
        query.add("artifactType", artifact_type);
    }
    let mut first = format!("/v2/{path}/referrers/{digest}");
    if !query.0.is_empty() {
        first = format!("{first}?{}", query.0);
    }
    let mut found = match indexed(session, name, &first).await {
        Err(Error::NotFound { .. }) => tagged(session, path, name, digest).await?,
        found => found?,
    };
    // The registry needn't filter, and the tag never does.
    if let Some(wanted) = artifact_type {
        found.retain(|descriptor| descriptor.artifact_type.as_deref() == Some(wanted));
    }
    Ok(found)
}

async fn indexed(session: &Session, name: &str, first: &str) -> Result<Vec<Descriptor>> {
    let mut found = Vec::new();
    let mut pages = Pages::new(session, name, first, Some(media_type::OCI_INDEX)).await?;
    while let Some((answer, page)) = pages.next().await? {
        // A registry that doesn't know referrers may answer with anything, even with success.
        let told = answer.header(header::CONTENT_TYPE).unwrap_or_default();
        if !told.starts_with(media_type::OCI_INDEX) {
            return Err(Error::NotFound { what: name.to_owned(), message: "no referrers".to_owned() });
        }
        found.extend(index(name, &page)?);
        bounded(name, found.len())?;
    }
    Ok(found)
}

/// The referrers where the registry doesn't know of them: under a tag made of the digest (distribution-spec,
/// "Referrers Tag Schema").
async fn tagged(session: &Session, path: &str, name: &str, digest: &Digest) -> Result<Vec<Descriptor>> {
    // Algorithm and digits are cut to what fits in a tag.
    let hex = &digest.hex()[..digest.hex().len().min(64)];
    let tag = TagOrDigest::Tag(format!("{}-{hex}", digest.algorithm()));
    match manifest::fetch(session, path, name, &tag, &Method::GET).await {
        Ok(fetched) => index(name, &fetched.bytes),
        Err(Error::NotFound { .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn index(name: &str, bytes: &[u8]) -> Result<Vec<Descriptor>> {
    let index = Index::from_slice(bytes);
    let index = index.map_err(|error| Error::Answer { what: name.to_owned(), reason: error.to_string() })?;
    Ok(index.manifests)
}

fn parse<'a, T: Deserialize<'a>>(name: &str, bytes: &'a [u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::Answer { what: name.to_owned(), reason: error.to_string() })
}

fn bounded(name: &str, items: usize) -> Result<()> {
    match items > ITEMS_MAX {
        true => {
            Err(Error::Answer { what: name.to_owned(), reason: format!("a list of more than {ITEMS_MAX}") })
        }
        false => Ok(()),
    }
}

/// A list in pages, each naming the next (distribution-spec, "Listing Tags").
struct Pages<'a> {
    session: &'a Session,
    name: &'a str,
    accept: Option<&'static str>,
    next: Option<Uri>,
    left: usize,
}

impl<'a> Pages<'a> {
    async fn new(
        session: &'a Session,
        name: &'a str,
        first: &str,
        accept: Option<&'static str>,
    ) -> Result<Pages<'a>> {
        let next = Some(session.url(first).await?);
        Ok(Self { session, name, accept, next, left: PAGES_MAX })
    }

    async fn next(&mut self) -> Result<Option<(Answer, Vec<u8>)>> {
        let Some(url) = self.next.take() else { return Ok(None) };
        let nonsense = |reason: &str| Error::Answer { what: self.name.to_owned(), reason: reason.to_owned() };
        self.left = self.left.checked_sub(1).ok_or_else(|| nonsense("a list without an end"))?;
        let accept = self.accept.map(|kind| (header::ACCEPT, HeaderValue::from_static(kind)));
        let ask = Ask {
            headers: accept.into_iter().collect(),
            ..ask(self.session, self.name, Method::GET, url.clone())
        };
        let mut answer = self.session.persist(&ask).await?;
        let page = answer.whole(self.name, PAGE_MAX, self.session.transport.limits.answer).await?;
        if let Some(link) = answer.header(header::LINK).and_then(next_link) {
            let next = target(&url, link).map_err(nonsense)?;
            if !is_same_origin(&next, &url) {
                return Err(nonsense("the next page of a list is somewhere else"));
            }
            self.next = (next != url).then_some(next);
        }
        Ok(Some((answer, page)))
    }
}

/// The target of `<…>; rel="next"` (RFC 8288).
fn next_link(header: &str) -> Option<&str> {
    let (link, parameters) = header.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = parameters.split(';').any(|parameter| {
        parameter.trim().split_once('=').is_some_and(|(name, value)| {
            name.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"') == "next"
        })
    });
    is_next.then_some(link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_next_pages() {
        for (header, expected) in [
            (r#"</v2/a/tags/list?n=1&last=b>; rel="next""#, Some("/v2/a/tags/list?n=1&last=b")),
            ("<x>;rel=next", Some("x")),
            ("<x>; rel=\"prev\"", None),
            ("x; rel=next", None),
            ("<x", None),
        ] {
            assert_eq!(next_link(header), expected, "{header}");
        }
    }
}
