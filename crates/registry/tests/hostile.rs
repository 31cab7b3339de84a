//! Registries that break, lie, loop, hang or never end: one clear error each, and the next try succeeds.

#![allow(clippy::unwrap_used, missing_docs)]

mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ponton_oci::digest::Digest;
use ponton_registry::{Cancel, Credentials, Error, Kind, TagOrDigest};
use server::{
    Request, Server, client, descriptor, impatient, limits, noise, ok, part, read, reply, repository, user,
};

const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#;

fn tag() -> TagOrDigest {
    TagOrDigest::Tag("t".to_owned())
}

/// Counts calls, from 0.
fn counter() -> impl Fn() -> usize + Send + Sync + 'static {
    let count = AtomicUsize::new(0);
    move || count.fetch_add(1, Ordering::SeqCst)
}

#[tokio::test]
async fn wrong_digests_are_found_before_the_last_bytes_are_given() {
    let blob = noise(300_000);
    let mut wrong = blob.clone();
    wrong[0] ^= 1;
    let (right, calls) = (blob.clone(), counter());
    let server = Server::start(move |_| ok(if calls() == 0 { wrong.clone() } else { right.clone() })).await;
    let repository = server.anonymous();
    let (came, end) = read(repository.blob(&descriptor(&blob), 0).await).await;
    assert!(matches!(end, Err(Error::Digest { .. })), "{end:?}");
    assert!(came.len() < blob.len());
    let (came, end) = read(repository.blob(&descriptor(&blob), 0).await).await;
    end.unwrap();
    assert!(came == blob);
}

#[tokio::test]
async fn wrong_sizes_are_refused() {
    let blob = noise(100_000);
    for (name, answer) in [
        ("announced longer", ok([blob.clone(), vec![0]].concat())),
        ("announced shorter", ok(&blob[1..])),
        ("longer", ok([blob.clone(), vec![0]].concat()).chunked()),
        ("much longer", ok([blob.clone(), blob.clone()].concat()).chunked()),
        ("endless", ok("").endless()),
    ] {
        let server = Server::start(move |_| answer.clone()).await;
        let (_, end) = read(server.anonymous().blob(&descriptor(&blob), 0).await).await;
        assert!(matches!(end, Err(Error::Size { .. })), "{name}: {end:?}");
        assert_eq!(server.count("/"), 1, "{name}");
    }
    let server = Server::start(move |_| ok("")).await;
    let (_, end) = read(server.anonymous().blob(&descriptor(b"x"), 2).await).await;
    assert!(matches!(end, Err(Error::Size { .. })));
    read(server.anonymous().blob(&descriptor(b""), 0).await).await.1.unwrap();
}

#[tokio::test]
async fn truncated_bodies_are_given_up_after_some_attempts() {
    let blob = noise(100_000);
    let short = blob.clone();
    let server = Server::start(move |request| match request.range() {
        0 => ok(&short[..10]).chunked(),
        _ => ok(short.clone()).cut_after(10),
    })
    .await;
    let (came, end) = read(server.anonymous().blob(&descriptor(&blob), 0).await).await;
    assert!(matches!(end, Err(Error::Lost { .. })), "{end:?}");
    assert_eq!(came, blob[..10]);
    assert_eq!(server.count("/"), limits().attempts as usize);
}

#[tokio::test]
async fn cut_transfers_go_on_where_they_were() {
    let blob = noise(3_000_000);
    let whole = blob.clone();
    // Every connection brings 100,000 bytes at most.
    let server = Server::start(move |request| part(request, &whole).cut_after(100_000)).await;
    let (came, end) = read(server.anonymous().blob(&descriptor(&blob), 0).await).await;
    end.unwrap();
    assert!(came == blob);
    assert!(server.count("/") >= 30);
    let (came, end) = read(server.anonymous().blob(&descriptor(&blob), 2_950_000).await).await;
    end.unwrap();
    assert_eq!(came, blob[2_950_000..]);
}

#[tokio::test]
async fn registries_without_ranges_are_read_from_the_beginning_again() {
    let blob = noise(1_000_000);
    let (whole, calls) = (blob.clone(), counter());
    let server = Server::start(move |_| ok(whole.clone()).cut_after(200_000 + 150_000 * calls())).await;
    let (came, end) = read(server.anonymous().blob(&descriptor(&blob), 0).await).await;
    end.unwrap();
    assert!(came == blob);
}

#[tokio::test]
async fn wrong_ranges_are_refused() {
    let blob = noise(200_000);
    for range in ["bytes 5-9/10", "bytes 100001-199999/200000", "bytes 100000-199999/300000", "x", ""] {
        let whole = blob.clone();
        let server = Server::start(move |request| match request.range() {
            0 => ok(whole.clone()).cut_after(100_000),
            begin => reply(206).header("Content-Range", range).body(&whole[begin..]),
        })
        .await;
        let (_, end) = read(server.anonymous().blob(&descriptor(&blob), 0).await).await;
        assert!(matches!(end, Err(Error::Answer { .. } | Error::Size { .. })), "{range}: {end:?}");
    }
}

#[tokio::test]
async fn manifests_are_bounded_and_verified() {
    let digest = Digest::sha256_of(MANIFEST.as_bytes());
    let wrong = Digest::sha256_of(b"");
    let by_digest = TagOrDigest::Digest(wrong.clone());
    for (name, what, answer, kind) in [
        ("endless", tag(), ok("").endless(), Kind::Untrusted),
        ("large", tag(), ok("{}").header("Content-Length", 1_u64 << 40), Kind::Untrusted),
        ("endless head", tag(), ok("").endless_head(), Kind::Unavailable),
        ("other digest", by_digest, ok(MANIFEST), Kind::Untrusted),
        ("other digest told", tag(), ok(MANIFEST).header("Docker-Content-Digest", &wrong), Kind::Untrusted),
        ("no JSON", tag(), ok("<html>"), Kind::Untrusted),
        ("schema 1", tag(), ok(r#"{"schemaVersion":1}"#), Kind::Untrusted),
        ("missing", tag(), reply(404), Kind::NotFound),
        ("forbidden", tag(), reply(403), Kind::Denied),
        ("cut", tag(), ok(MANIFEST).cut_after(5), Kind::Unavailable),
    ] {
        let server = Server::start(move |_| answer.clone()).await;
        let error = server.anonymous().manifest(&what).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{name}: {error}");
        assert!(error.to_string().contains(&server.address.to_string()), "{name}: {error}");
    }
    let calls = counter();
    let server = Server::start(move |_| match calls() {
        0 => ok(MANIFEST).cut_after(5),
        _ => ok(MANIFEST).header("Docker-Content-Digest", Digest::sha256_of(MANIFEST.as_bytes())),
    })
    .await;
    let fetched = server.anonymous().manifest(&tag()).await.unwrap();
    assert_eq!((fetched.descriptor.digest, fetched.bytes.as_slice()), (digest.clone(), MANIFEST.as_bytes()));
    // HEAD of a registry that tells nothing but the length.
    assert_eq!(server.anonymous().head_manifest(&tag()).await.unwrap().digest, digest);
}

#[tokio::test]
async fn overloaded_registries_are_given_time() {
    for status in [429, 500, 502, 503, 504, 408] {
        let calls = counter();
        let server = Server::start(move |_| match calls() {
            0 => reply(status),
            1 => reply(status).header("Retry-After", 0),
            _ => ok(MANIFEST),
        })
        .await;
        server.anonymous().manifest(&tag()).await.unwrap();
        assert_eq!(server.count("/"), 3, "{status}");
    }
    let server = Server::start(|_| reply(429).header("Retry-After", 3600)).await;
    let error = server.anonymous().manifest(&tag()).await.unwrap_err();
    assert!(matches!(error, Error::TooManyRequests { retry_after: Some(_), .. }), "{error}");
    assert_eq!(server.count("/"), 1, "an hour is not waited for");
    let server = Server::start(|_| reply(503)).await;
    let error = server.anonymous().manifest(&tag()).await.unwrap_err();
    assert!(matches!(error, Error::Status { status: 503, .. }), "{error}");
    assert_eq!(server.count("/"), limits().attempts as usize);
    let server = Server::start(|_| reply(501)).await;
    assert!(server.anonymous().manifest(&tag()).await.is_err());
    assert_eq!(server.count("/"), 1, "what isn't built will not be on the next try");
}

#[tokio::test]
async fn silence_is_bounded() {
    let server = Server::start(|_| reply(200).silence()).await;
    let client = client(impatient());
    let repository = server.repository(&client, Credentials::Anonymous);
    let error = repository.manifest(&tag()).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    let blob = noise(1000);
    let part = blob.clone();
    let server = Server::start(move |_| ok(part.clone()).hang_after(10)).await;
    let repository = server.repository(&client, Credentials::Anonymous);
    let (_, end) = read(repository.blob(&descriptor(&blob), 0).await).await;
    assert!(matches!(end, Err(Error::Timeout { .. })), "{end:?}");
    let server = Server::start(|request| match request.method.as_str() {
        "POST" => reply(202).header("Location", "/upload"),
        _ => reply(201).silence(),
    })
    .await;
    let limits = ponton_registry::Limits { commit: impatient().idle, ..impatient() };
    let repository = server.repository(&server::client(limits), Credentials::Anonymous);
    let pushed = repository.push_blob(&descriptor(b"x"), &|| Ok(Box::new(&b"x"[..]))).await;
    assert!(matches!(pushed, Err(Error::Timeout { .. })), "{pushed:?}");
}

#[tokio::test]
async fn whoever_waits_can_be_cancelled() {
    let server = Server::start(|_| ok("x".repeat(10)).hang_after(5)).await;
    let cancel = Cancel::new();
    let repository = server.anonymous().with_cancel(cancel.clone());
    let mut blob = repository.blob(&descriptor(b"0123456789"), 0).await.unwrap();
    blob.next().await.unwrap().unwrap();
    let waits = tokio::spawn(async move { blob.next().await });
    cancel.cancel();
    assert!(matches!(waits.await.unwrap(), Some(Err(Error::Cancelled))));
    assert!(matches!(repository.manifest(&tag()).await, Err(Error::Cancelled)));
}

#[tokio::test]
async fn redirects_are_followed_counted_and_never_lead_out() {
    let server = Server::start(|request| match request.target.rsplit_once("/hop") {
        None => reply(307).header("Location", "/hop1"),
        Some((_, "3")) => ok(MANIFEST),
        Some((_, hop)) => reply(302).header("Location", format!("hop{}", hop.parse::<u32>().unwrap() + 1)),
    })
    .await;
    server.anonymous().manifest(&tag()).await.unwrap();
    for location in ["/v2/loop", "file:///etc/passwd", "https://u:p@h/", "", "http://[", "gopher://x/"] {
        let server = Server::start(move |_| reply(301).header("Location", location)).await;
        let error = server.anonymous().manifest(&tag()).await.unwrap_err();
        assert!(matches!(error, Error::Redirect { .. }), "{location}: {error}");
        assert!(server.count("/") <= 11, "{location}");
    }
}

/// A server of tokens, which are its number of calls; good for those that `is_good` accepts.
fn with_tokens(
    is_good: impl Fn(&str) -> bool + Send + Sync + 'static,
    answer: impl Fn(&Request) -> server::Reply + Send + Sync + 'static,
) -> impl Fn(&Request) -> server::Reply + Send + Sync + 'static {
    let calls = counter();
    move |request| {
        let host = request.header("host").unwrap();
        if request.target.starts_with("/token") {
            return ok(format!(r#"{{"token":"t{}","expires_in":300}}"#, calls()));
        }
        let shown = request.header("authorization").and_then(|shown| shown.strip_prefix("Bearer "));
        if shown.is_some_and(&is_good) {
            return answer(request);
        }
        let challenge =
            format!(r#"Bearer realm="http://{host}/token",service="s",scope="repository:a/b:pull""#);
        reply(401)
            .header("WWW-Authenticate", challenge)
            .body(r#"{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}"#)
    }
}

#[tokio::test]
async fn refusals_for_ever_are_believed() {
    let server = Server::start(with_tokens(|_| false, |_| ok(MANIFEST))).await;
    let error = server.anonymous().manifest(&tag()).await.unwrap_err();
    assert!(
        matches!(&error, Error::Unauthorized { message, .. } if message == "unauthorized: no"),
        "{error}"
    );
    assert_eq!((server.count("/v2/"), server.count("/token")), (3, 2));
    for challenge in
        ["Basic realm=x", "Bearer", "Digest x=y", "\"", "Bearer realm=\"ftp://x\"", "Bearer realm=\"\""]
    {
        let server = Server::start(move |_| reply(401).header("WWW-Authenticate", challenge)).await;
        let repository = server.repository(&client(limits()), user("me", "secret"));
        let error = repository.manifest(&tag()).await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. } | Error::Answer { .. }), "{challenge}: {error}");
        assert!(server.count("/") <= 3, "{challenge}");
    }
}

#[tokio::test]
async fn odd_servers_of_tokens_are_errors() {
    for (name, answer) in [
        ("no token", ok("{}")),
        ("no JSON", ok("x")),
        ("no header", ok(r#"{"token":"a\nb"}"#)),
        ("endless", ok("").endless()),
        ("refusal", reply(401).body(r#"{"details":"incorrect username or password"}"#)),
        ("broken", reply(500)),
    ] {
        let server = Server::start(move |request| match request.target.starts_with("/token") {
            true => answer.clone(),
            false => {
                let realm = format!("Bearer realm=http://{}/token", request.header("host").unwrap());
                reply(401).header("WWW-Authenticate", realm)
            }
        })
        .await;
        let error = server.anonymous().manifest(&tag()).await.unwrap_err();
        assert_ne!(error.kind(), Kind::Internal, "{name}: {error}");
        assert!(server.count("/token") <= limits().attempts as usize, "{name}");
    }
}

#[tokio::test]
async fn one_token_serves_all_transfers_and_is_renewed_amid_them() {
    let blob = noise(400_000);
    let whole = blob.clone();
    let first_is_over = Arc::new(AtomicUsize::new(0));
    let over = first_is_over.clone();
    let answer = move |request: &Request| {
        // The first token ends with the first connections.
        over.store(1, Ordering::SeqCst);
        part(request, &whole).cut_after(250_000)
    };
    let is_good =
        move |token: &str| token == "t0" && first_is_over.load(Ordering::SeqCst) == 0 || token == "t1";
    let server = Server::start(with_tokens(is_good, answer)).await;
    let repository = server.anonymous();
    let (came, end) = read(repository.blob(&descriptor(&blob), 0).await).await;
    end.unwrap();
    assert!(came == blob);
    assert_eq!(server.count("/token"), 2);
    let transfers = (0..8).map(|_| {
        let (repository, descriptor) = (repository.clone(), descriptor(&blob));
        tokio::spawn(async move { read(repository.blob(&descriptor, 0).await).await.1 })
    });
    for transfer in transfers.collect::<Vec<_>>() {
        transfer.await.unwrap().unwrap();
    }
    assert_eq!(server.count("/token"), 2);
}

#[tokio::test]
async fn what_is_shown_to_a_registry_is_shown_to_nobody_else() {
    let blob = noise(1000);
    let elsewhere = blob.clone();
    // It begs for credentials, too.
    let calls = counter();
    let other = Server::start(move |_| match calls() {
        0 => ok(elsewhere.clone()),
        _ => reply(401).header("WWW-Authenticate", "Basic realm=x"),
    })
    .await;
    let (by_digest, by_upload) = (other.url("/blob"), other.url("/upload"));
    let answer = move |request: &Request| match request.method.as_str() {
        "GET" => reply(307).header("Location", &by_digest),
        _ => reply(202).header("Location", &by_upload),
    };
    let server = Server::start(with_tokens(|_| true, answer)).await;
    let repository = server.repository(&client(limits()), user("me", "secret"));
    read(repository.blob(&descriptor(&blob), 0).await).await.1.unwrap();
    let error = read(repository.blob(&descriptor(&blob), 0).await).await.1.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    let pushed = repository.push_blob(&descriptor(b"x"), &|| Ok(Box::new(&b"x"[..]))).await;
    assert!(matches!(pushed, Err(Error::Unauthorized { .. })), "{pushed:?}");
    assert_eq!(other.requests().len(), 3);
    for request in other.requests() {
        assert_eq!(request.header("authorization"), None, "{request:?}");
    }
    // The server of tokens sees the password, a server that it points to doesn't.
    let target = other.url("/token");
    let tokens = Server::start(move |_| reply(302).header("Location", &target)).await;
    let realm = format!("Bearer realm={}", tokens.url("/token"));
    let server = Server::start(move |_| reply(401).header("WWW-Authenticate", &realm)).await;
    let error =
        server.repository(&client(limits()), user("me", "secret")).manifest(&tag()).await.unwrap_err();
    assert!(!error.to_string().contains("secret"));
    assert!(tokens.requests().iter().all(|request| request.header("authorization").is_some()));
    assert!(other.requests().iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test]
async fn identity_tokens_are_exchanged_and_given_at_logins() {
    let server = Server::start(|request| {
        let realm = format!("Bearer realm=http://{}/token,service=s", request.header("host").unwrap());
        let shown = request.header("authorization");
        match (request.method.as_str(), request.target.starts_with("/token"), shown) {
            ("POST", true, None) => {
                assert!(
                    String::from_utf8_lossy(&request.body)
                        .contains("grant_type=refresh_token&refresh_token=id")
                );
                ok(r#"{"access_token":"good"}"#)
            }
            ("GET", true, Some("Basic bWU6c2VjcmV0")) if request.target.contains("offline_token=true") => {
                ok(r#"{"token":"good","refresh_token":"id"}"#)
            }
            (_, true, _) => reply(401).body(r#"{"details":"incorrect username or password"}"#),
            (_, false, Some("Bearer good")) => ok(MANIFEST),
            _ => reply(401).header("WWW-Authenticate", realm),
        }
    })
    .await;
    let client = client(limits());
    let registry = server.address.to_string();
    let status = client.login(&registry, &user("me", "secret")).await.unwrap();
    assert_eq!(status.identity_token.as_deref(), Some("id"));
    let error = client.login(&registry, &user("me", "wrong")).await.unwrap_err();
    assert!(
        matches!(&error, Error::Unauthorized { message, .. } if message.contains("incorrect")),
        "{error}"
    );
    for credentials in [Credentials::IdentityToken("id".into()), Credentials::RegistryToken("good".into())] {
        server.repository(&client, credentials).manifest(&tag()).await.unwrap();
    }
    let refused = server.repository(&client, Credentials::RegistryToken("bad".into()));
    assert!(matches!(refused.manifest(&tag()).await, Err(Error::Unauthorized { .. })));
}

#[tokio::test]
async fn names_reach_the_registry_as_they_are_and_nobody_listens_is_an_error() {
    let gone = Server::start(|_| ok("")).await.address;
    let error =
        repository(&client(limits()), gone, Credentials::Anonymous).manifest(&tag()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    let odd = TagOrDigest::Tag("../../x y".to_owned());
    let server = Server::start(|_| ok(MANIFEST)).await;
    assert!(server.anonymous().manifest(&odd).await.is_err());
    assert_eq!(server.count("/"), 0);
}
