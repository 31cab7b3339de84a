//! Manifests and indexes: fetched whole, pushed whole.

use bytes::Bytes;
use hyper::Method;
use hyper::header::{self, HeaderValue};
use ponton_oci::descriptor::Descriptor;
use ponton_oci::digest::{Algorithm, Digest};
use ponton_oci::media_type as types;
use serde::Deserialize;

use crate::blob::Hasher;
use crate::endpoint::Session;
use crate::error::{Error, Result};
use crate::repository::{Fetched, TagOrDigest, ask, content_type};
use crate::transport::{Answer, Ask, Payload};
use crate::tries::Tries;

/// Docker's manifests before 2015, whose digest is not that of their bytes.
const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1";
const DOCKER_CONTENT_DIGEST: &str = "docker-content-digest";

/// Fetches one from one server. Asked by `HEAD`, the bytes are empty, unless the registry tells what it has only
/// with the document itself.
pub(crate) async fn fetch(
    session: &Session,
    path: &str,
    name: &str,
    what: &TagOrDigest,
    method: &Method,
) -> Result<Fetched> {
    if method == Method::HEAD
        && let Some(descriptor) = head(session, path, name, what).await?
    {
        return Ok(Fetched { descriptor, bytes: Vec::new() });
    }
    let ask = request(session, path, name, what, Method::GET).await?;
    let limits = &session.transport.limits;
    let mut tries = Tries::new(limits);
    let (answer, bytes) = loop {
        match read(session, &ask).await {
            Ok(read) => break read,
            Err(error) => tries.pause(error).await?,
        }
    };
    let named = named(what, &answer);
    let algorithm = named.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
    let digest = Hasher::digest_of(algorithm, &bytes);
    if named.is_some_and(|named| named != digest) {
        return Err(Error::Digest { what: name.to_owned(), actual: digest });
    }
    let media_type = media_type(name, answer.header(header::CONTENT_TYPE), &bytes)?;
    Ok(Fetched { descriptor: Descriptor::new(&media_type, digest, bytes.len() as u64), bytes })
}

async fn read(session: &Session, ask: &Ask<'_>) -> Result<(Answer, Vec<u8>)> {
    let limits = &session.transport.limits;
    let mut answer = session.send(ask).await?;
    let bytes = answer.whole(ask.what, limits.manifest, limits.answer).await?;
    Ok((answer, bytes))
}

/// Asks one server what it has.
async fn head(session: &Session, path: &str, name: &str, what: &TagOrDigest) -> Result<Option<Descriptor>> {
    let answer = session.persist(&request(session, path, name, what, Method::HEAD).await?).await?;
    let media_type = answer.header(header::CONTENT_TYPE).map(essence).filter(|kind| is_known(kind));
    let told = (named(what, &answer), media_type, answer.content_length());
    let (Some(digest), Some(media_type), Some(size)) = told else { return Ok(None) };
    Ok(Some(Descriptor::new(&media_type, digest, size)))
}

/// The digest that the document must have, if one is known.
fn named(what: &TagOrDigest, answer: &Answer) -> Option<Digest> {
    match what {
        TagOrDigest::Digest(digest) => Some(digest.clone()),
        TagOrDigest::Tag(_) => digest_of(answer),
    }
}

/// Pushes one, and gives its digest.
pub(crate) async fn push(
    session: &Session,
    path: &str,
    name: &str,
    what: &TagOrDigest,
    media_type: &str,
    bytes: Bytes,
) -> Result<Digest> {
    let algorithm = match what {
        TagOrDigest::Digest(digest) => digest.algorithm(),
        TagOrDigest::Tag(_) => Algorithm::Sha256,
    };
    let digest = Hasher::digest_of(algorithm, &bytes);
    if let TagOrDigest::Digest(named) = what
        && *named != digest
    {
        return Err(Error::Digest { what: name.to_owned(), actual: digest });
    }
    let url = session.url(&format!("/v2/{path}/manifests/{}", what.as_path())).await?;
    let ask = Ask {
        headers: vec![content_type(name, media_type)?],
        payload: Payload::Bytes(bytes),
        wait: session.transport.limits.commit,
        ..ask(session, name, Method::PUT, url)
    };
    let answer = session.persist(&ask).await?;
    match digest_of(&answer) {
        Some(actual) if actual.algorithm() == algorithm && actual != digest => {
            Err(Error::Digest { what: name.to_owned(), actual })
        }
        _ => Ok(digest),
    }
}

async fn request<'a>(
    session: &Session,
    path: &str,
    name: &'a str,
    what: &TagOrDigest,
    method: Method,
) -> Result<Ask<'a>> {
    let url = session.url(&format!("/v2/{path}/manifests/{}", what.as_path())).await?;
    let accepted =
        [types::OCI_MANIFEST, types::OCI_INDEX, types::DOCKER_MANIFEST, types::DOCKER_MANIFEST_LIST, "*/*"];
    let headers = accepted.map(|kind| (header::ACCEPT, HeaderValue::from_static(kind)));
    Ok(Ask { headers: headers.into(), ..ask(session, name, method, url) })
}

fn digest_of(answer: &Answer) -> Option<Digest> {
    answer.header(DOCKER_CONTENT_DIGEST)?.parse().ok()
}

/// A media type without its parameters.
fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn is_known(media_type: &str) -> bool {
    types::is_manifest(media_type) || types::is_index(media_type)
}

/// The type of a document: what it says of itself, else what the registry says, else what it looks like.
fn media_type(name: &str, content_type: Option<&str>, bytes: &[u8]) -> Result<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Members {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
        schema_version: Option<u64>,
    }
    let nonsense = |reason: String| Error::Answer { what: name.to_owned(), reason };
    let members: Members =
        serde_json::from_slice(bytes).map_err(|error| nonsense(format!("no manifest: {error}")))?;
    let told = content_type.map(essence).filter(|kind| is_known(kind) || kind.starts_with(SCHEMA_1));
    let media_type = members.media_type.filter(|kind| !kind.is_empty()).or(told);
    if members.schema_version == Some(1)
        || media_type.as_deref().is_some_and(|kind| kind.starts_with(SCHEMA_1))
    {
        return Err(nonsense(
            "the manifest has Docker's schema 1, which is not supported any more".to_owned(),
        ));
    }
    match media_type {
        Some(media_type) if is_known(&media_type) => Ok(media_type),
        Some(other) => {
            Err(nonsense(format!("unknown type of manifest: {}", crate::error::printable(&other))))
        }
        None if members.manifests.is_some() => Ok(types::OCI_INDEX.to_owned()),
        None => Ok(types::OCI_MANIFEST.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_manifests() {
        let kind = |told: Option<&str>, text: &str| media_type("x", told, text.as_bytes());
        for (told, text, expected) in [
            (Some("application/json; charset=utf-8"), r#"{"layers":[]}"#, types::OCI_MANIFEST),
            (None, r#"{"manifests":[]}"#, types::OCI_INDEX),
            (Some(types::DOCKER_MANIFEST), r#"{"schemaVersion":2}"#, types::DOCKER_MANIFEST),
            (
                Some("text/plain"),
                r#"{"mediaType":"application/vnd.oci.image.index.v1+json"}"#,
                types::OCI_INDEX,
            ),
        ] {
            assert_eq!(kind(told, text).unwrap(), expected, "{text}");
        }
        for (told, text) in [
            (None, "<html>"),
            (None, r#"{"schemaVersion":1}"#),
            (Some("application/vnd.docker.distribution.manifest.v1+prettyjws"), "{}"),
            (None, r#"{"mediaType":"application/x-evil"}"#),
        ] {
            assert!(kind(told, text).is_err(), "{text}");
        }
    }
}
