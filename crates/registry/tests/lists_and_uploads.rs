//! Lists in pages, referrers, and uploads that are resumed where the registry can.

#![allow(clippy::unwrap_used, missing_docs)]

mod server;

use std::io::Read;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use ponton_oci::digest::Digest;
use ponton_oci::media_type::OCI_INDEX;
use ponton_registry::{Error, Kind};
use server::{Request, Server, descriptor, noise, ok, reply};

#[tokio::test]
async fn tags_come_in_pages() {
    let server = Server::start(|request| match request.target.split_once("last=") {
        None => ok(r#"{"name":"a/b","tags":["1","2"]}"#)
            .header("Link", r#"</v2/a/b/tags/list?n=2&last=2>; rel="next""#),
        Some((_, "2")) => ok(r#"{"tags":["3"]}"#).header("Link", r#"<list?last=3>; rel="next""#),
        Some(_) => ok(r#"{"tags":null}"#),
    })
    .await;
    assert_eq!(server.anonymous().tags().await.unwrap(), ["1", "2", "3"]);
    for (name, link) in
        [("elsewhere", "<https://elsewhere.example/x>; rel=\"next\""), ("out", "<file:///x>; rel=\"next\"")]
    {
        let server = Server::start(move |_| ok(r#"{"tags":[]}"#).header("Link", link)).await;
        let error = server.anonymous().tags().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Untrusted, "{name}: {error}");
    }
    // A page that names itself is the last.
    let server = Server::start(|request| {
        ok(r#"{"tags":["1"]}"#).header("Link", format!("<{}>; rel=next", request.target))
    })
    .await;
    assert_eq!(server.anonymous().tags().await.unwrap(), ["1"]);
    let server = Server::start(|_| ok("").endless()).await;
    assert_eq!(server.anonymous().tags().await.unwrap_err().kind(), Kind::Untrusted);
}

#[tokio::test]
async fn referrers_are_listed_or_found_under_a_tag() {
    let subject = Digest::sha256_of(b"subject");
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[
            {{"mediaType":"m","digest":"{0}","size":1,"artifactType":"a/x"}},
            {{"mediaType":"m","digest":"{0}","size":2,"artifactType":"a/y"}}]}}"#,
        Digest::sha256_of(b"")
    );
    let of_type = index.clone();
    let listing = Server::start(move |_| ok(of_type.clone()).header("Content-Type", OCI_INDEX)).await;
    let tag = format!("/v2/a/b/manifests/sha256-{}", subject.hex());
    let tagging = move |request: &Request| match request.target == tag {
        true => ok(index.clone()),
        false => reply(404),
    };
    let tagging = Server::start(tagging).await;
    let unknowing = Server::start(|request| match request.target.contains("referrers") {
        true => ok("<html>").header("Content-Type", "text/html"),
        false => reply(404),
    })
    .await;
    for (name, server, all, some) in
        [("listing", &listing, 2, 1), ("tagging", &tagging, 2, 1), ("unknowing", &unknowing, 0, 0)]
    {
        let repository = server.anonymous();
        assert_eq!(repository.referrers(&subject, None).await.unwrap().len(), all, "{name}");
        let found = repository.referrers(&subject, Some("a/y")).await.unwrap();
        assert_eq!(found.len(), some, "{name}");
        assert!(found.iter().all(|found| found.size == 2), "{name}");
    }
    assert_eq!(listing.count(&format!("/v2/a/b/referrers/{subject}?artifactType=a%2Fy")), 1);
}

/// A registry that keeps what it got of an upload, and stops an answer short of it.
struct Uploads {
    there: Mutex<Vec<u8>>,
    /// Bytes of the first bodies that it takes before it loses the connection.
    losses: Mutex<Vec<usize>>,
}

impl Uploads {
    async fn start(losses: &[usize]) -> (Server, Arc<Self>) {
        let this = Arc::new(Self { there: Mutex::default(), losses: Mutex::new(losses.to_vec()) });
        let uploads = this.clone();
        (Server::start(move |request| uploads.answer(request)).await, this)
    }

    fn answer(&self, request: &Request) -> server::Reply {
        let mut there = self.there.lock().unwrap();
        let at = "/upload?state=1";
        let range = |there: &[u8]| format!("0-{}", there.len().saturating_sub(1));
        if let Some(range) = request.header("content-range") {
            let begin: usize = range.split('-').next().unwrap().parse().unwrap();
            if begin != there.len() {
                return reply(416);
            }
        }
        let mut losses = self.losses.lock().unwrap();
        if !request.body.is_empty() && !losses.is_empty() {
            let taken = losses.remove(0);
            there.extend_from_slice(&request.body[..taken]);
            return reply(201).lost();
        }
        there.extend_from_slice(&request.body);
        match request.method.as_str() {
            "POST" => {
                there.clear();
                reply(202).header("Location", at)
            }
            "PATCH" => reply(202).header("Location", at).header("Range", range(&there)),
            "GET" => reply(204).header("Location", at).header("Range", range(&there)),
            "PUT" => {
                let expected = format!("/upload?state=1&digest=sha256%3A{}", Digest::sha256_of(&there).hex());
                reply(if request.target == expected { 201 } else { 400 })
            }
            _ => reply(405),
        }
    }
}

#[tokio::test]
async fn what_arrived_is_not_sent_again() {
    let blob = noise(1_000_000);
    for (name, losses, posts, sent) in [
        ("nothing is lost", vec![], 1, 1_000_000),
        ("a part arrived", vec![600_000], 1, 1_400_000),
        ("all of it arrived", vec![1_000_000], 1, 1_000_000),
        ("nothing arrived", vec![0], 2, 2_000_000),
    ] {
        let (server, uploads) = Uploads::start(&losses).await;
        let bytes = Bytes::from(blob.clone());
        let source = || {
            use bytes::Buf as _;
            Ok(Box::new(bytes.clone().reader()) as Box<dyn Read + Send>)
        };
        server.anonymous().push_blob(&descriptor(&blob), &source).await.unwrap();
        assert!(*uploads.there.lock().unwrap() == blob, "{name}");
        assert_eq!(server.count("/v2/a/b/blobs/uploads/"), posts, "{name}");
        let bodies: usize = server.requests().iter().map(|request| request.body.len()).sum();
        assert_eq!(bodies, sent, "{name}");
    }
}

#[tokio::test]
async fn chunks_are_resumed() {
    let blob = noise(20_000_000);
    let (server, uploads) = Uploads::start(&[3_000_000, 0, 2_000_000]).await;
    let mut upload = server.anonymous().upload().await.unwrap();
    for piece in blob.chunks(7_000_000) {
        upload.write(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    upload.finish(&Digest::sha256_of(&blob)).await.unwrap();
    assert!(*uploads.there.lock().unwrap() == blob);
    assert_eq!(server.count("/v2/a/b/blobs/uploads/"), 1);
}

#[tokio::test]
async fn odd_places_to_go_on_are_refused() {
    for location in ["", "ftp://x/", "http://u:p@h/"] {
        let server = Server::start(move |_| reply(202).header("Location", location)).await;
        let pushed = server.anonymous().push_blob(&descriptor(b"x"), &|| Ok(Box::new(&b"x"[..]))).await;
        assert!(matches!(pushed, Err(Error::Redirect { .. })), "{location}: {pushed:?}");
    }
    let server =
        Server::start(|_| reply(202).header("Location", "/u").header("OCI-Chunk-Min-Length", 1_u64 << 40))
            .await;
    assert!(matches!(server.anonymous().upload().await, Err(Error::Answer { .. })));
}
