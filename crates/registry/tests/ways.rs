//! Ways to a registry: mirrors, proxies, certificates of both ends.

#![allow(clippy::unwrap_used, missing_docs)]

mod server;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use ponton_oci::reference::Reference;
use ponton_registry::{Blob, Client, Config, Credentials, Error, Kind, Proxy, Search, TagOrDigest};
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use server::{Reply, Request, Server, descriptor, limits, noise, ok, part, read, reply, user};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#;
/// "pu:pw" as a proxy wants to see it.
const PROXY_AUTHORIZATION: &str = "Basic cHU6cHc=";

fn tag() -> TagOrDigest {
    TagOrDigest::Tag("t".to_owned())
}

/// Who signs certificates.
struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn sign(&self, name: &str) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// A server's side of TLS under a name; for clients with certificates of these authorities alone, if given.
    fn acceptor(&self, name: &str, clients: Option<&Self>) -> TlsAcceptor {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(clients.certificate.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let (certificate, key) = self.sign(name);
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()))
    }
}

/// A server with TLS, reached directly or as the end of a tunnel through itself.
struct Encrypted {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    /// Heads of requests for tunnels.
    tunnels: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Encrypted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Encrypted {
    async fn start(
        acceptor: TlsAcceptor,
        is_proxy: bool,
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, tunnels) =
            (Arc::<Mutex<Vec<Request>>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (seen, heads, handler) = (requests.clone(), tunnels.clone(), Arc::new(handler));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let (acceptor, handler) = (acceptor.clone(), handler.clone());
                let (seen, heads) = (seen.clone(), heads.clone());
                connections.spawn(async move {
                    if is_proxy {
                        let mut head = Vec::new();
                        while !head.ends_with(b"\r\n\r\n") {
                            head.push(stream.read_u8().await.unwrap());
                        }
                        heads.lock().unwrap().push(String::from_utf8(head).unwrap());
                        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                    }
                    if let Ok(stream) = acceptor.accept(stream).await {
                        server::serve(stream, handler, seen).await;
                    }
                });
            }
        });
        Self { address, requests, tunnels, task }
    }
}

fn config(certs: &Path, proxy: Proxy) -> Config {
    Config { certs: vec![certs.to_owned()], proxy, limits: limits(), ..Config::default() }
}

/// Docker Hub as this test has it: behind a proxy, its certificate from an authority in `certs.d`.
async fn docker_hub(
    folder: &Path,
    handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> (Encrypted, Config) {
    let authority = Authority::new();
    let hub = Encrypted::start(authority.acceptor("registry-1.docker.io", None), true, handler).await;
    let certificates = folder.join("registry-1.docker.io");
    fs::create_dir_all(&certificates).unwrap();
    fs::write(certificates.join("ca.crt"), authority.certificate.pem()).unwrap();
    let https = format!("http://pu:pw@{}", hub.address);
    let proxy = Proxy::These { http: String::new(), https, no_proxy: "other.example".to_owned() };
    (hub, config(folder, proxy))
}

#[tokio::test]
async fn mirrors_come_first_and_broken_ones_are_passed_over() {
    let blob = noise(500_000);
    let mut damaged = blob.clone();
    damaged[499_999] ^= 1;
    let folder = tempfile::tempdir().unwrap();
    let whole = blob.clone();
    let answer = move |request: &Request| match request.target.contains("/blobs/") {
        true => part(request, &whole),
        false => ok(MANIFEST),
    };
    let (hub, config) = docker_hub(folder.path(), answer).await;
    let name = Reference::parse("busybox").unwrap();
    let whole = blob.clone();
    let cut = move |request: &Request| match request.target.contains("/blobs/") {
        true if request.range() == 0 => part(request, &whole).cut_after(200_000),
        true => reply(500),
        false => ok(MANIFEST),
    };
    let gone = Server::start(|_| ok("")).await.url("");
    // What the mirror does, how many requests Docker Hub gets, and whether the blob comes whole.
    for (what, mirror, hub_requests, comes) in [
        ("nothing", Server::start(|_| reply(404)).await, 2, true),
        ("forbidden", Server::start(|_| reply(403)).await, 2, true),
        ("broken", Server::start(|_| reply(500)).await, 2, true),
        ("nonsense", Server::start(|_| ok("<html>")).await, 2, true),
        ("cut for good", Server::start(cut).await, 1, true),
        (
            "damaged",
            Server::start(move |request| match request.target.contains("/blobs/") {
                true => ok(damaged.clone()),
                false => ok(MANIFEST),
            })
            .await,
            0,
            false,
        ),
    ] {
        hub.requests.lock().unwrap().clear();
        let mirrors = vec![gone.clone(), mirror.url("")];
        let client = Client::new(Config { mirrors, ..config.clone() }).unwrap();
        let repository = client.repository(&name, user("me", "secret"));
        repository.manifest(&tag()).await.unwrap();
        // Nobody else looks at the digest here: mirrors are watched also for those who do.
        let (came, end) = read(repository.blob(&descriptor(&blob), 0).await.map(Blob::unverified)).await;
        assert_eq!(end.is_ok() && came == blob, comes, "{what}: {end:?}");
        assert_eq!(hub.requests.lock().unwrap().len(), hub_requests, "{what}");
        assert!(mirror.count("/v2/library/busybox/") >= 1, "{what}");
        // A mirror that gave something wrong is not asked again soon.
        read(repository.blob(&descriptor(&blob), 0).await).await.1.unwrap();
    }
    let tunnels = hub.tunnels.lock().unwrap();
    assert!(tunnels.iter().all(|head| head.starts_with("CONNECT registry-1.docker.io:443 ")), "{tunnels:?}");
    assert!(tunnels.iter().all(|head| head.to_lowercase().contains(&PROXY_AUTHORIZATION.to_lowercase())));
}

#[tokio::test]
async fn mirrors_see_no_credentials_and_nothing_that_is_pushed() {
    let folder = tempfile::tempdir().unwrap();
    let (hub, config) = docker_hub(folder.path(), |request| match request.method.as_str() {
        "PUT" => reply(201),
        _ if request.header("authorization").is_none() => {
            reply(401).header("WWW-Authenticate", "Basic realm=x")
        }
        _ => ok(MANIFEST),
    })
    .await;
    let mirror = Server::start(|_| reply(401).header("WWW-Authenticate", "Basic realm=x")).await;
    let client = Client::new(Config { mirrors: vec![mirror.url("/")], ..config }).unwrap();
    let repository = client.repository(&Reference::parse("busybox").unwrap(), user("me", "secret"));
    repository.manifest(&tag()).await.unwrap();
    assert!(mirror.requests().iter().all(|request| request.header("authorization").is_none()));
    let seen = mirror.requests().len();
    repository.push_manifest(&tag(), "application/json", "{}".into()).await.unwrap();
    assert_eq!(mirror.requests().len(), seen);
    let shown = hub.requests.lock().unwrap().iter().filter(|r| r.header("authorization").is_some()).count();
    assert!(shown >= 1);
    // Another registry has nothing to do with mirrors.
    let other = Server::start(|_| ok(MANIFEST)).await;
    other.repository(&client, Credentials::Anonymous).manifest(&tag()).await.unwrap();
    assert_eq!(mirror.requests().len(), seen);
}

#[tokio::test]
async fn plain_requests_go_to_their_proxy() {
    let proxy = Server::start(|_| ok(MANIFEST)).await;
    let http = proxy.url("").replace("http://", "http://pu:pw@");
    let proxy_config = Proxy::These { http, https: String::new(), no_proxy: String::new() };
    let folder = tempfile::tempdir().unwrap();
    let mirrors = vec!["http://mirror.example:8080".to_owned()];
    let client = Client::new(Config { mirrors, ..config(folder.path(), proxy_config) }).unwrap();
    client
        .repository(&Reference::parse("a").unwrap(), Credentials::Anonymous)
        .manifest(&tag())
        .await
        .unwrap();
    let request = proxy.requests().remove(0);
    assert_eq!(request.target, "http://mirror.example:8080/v2/library/a/manifests/t");
    assert_eq!(request.header("proxy-authorization"), Some(PROXY_AUTHORIZATION));
    for url in ["socks5://h:1", "no url", "ftp://x"] {
        let proxy = Proxy::These { http: String::new(), https: url.to_owned(), no_proxy: String::new() };
        let error = Client::new(config(folder.path(), proxy)).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{url}: {error}");
    }
}

#[tokio::test]
async fn clients_have_certificates_too() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let acceptor = authority.acceptor("127.0.0.1", Some(&clients));
    let registry = Encrypted::start(acceptor, false, |_| ok(MANIFEST)).await;
    let folder = tempfile::tempdir().unwrap();
    let certificates = folder.path().join(registry.address.to_string());
    fs::create_dir(&certificates).unwrap();
    fs::write(certificates.join("ca.crt"), authority.certificate.pem()).unwrap();
    let ask = || async {
        let client = Client::new(config(folder.path(), Proxy::Direct)).unwrap();
        server::repository(&client, registry.address, Credentials::Anonymous).manifest(&tag()).await
    };
    ask().await.unwrap_err();
    let (certificate, key) = clients.sign("me");
    fs::write(certificates.join("client.cert"), certificate.pem()).unwrap();
    let error = ask().await.unwrap_err();
    assert!(matches!(&error, Error::Certificate { reason, .. } if reason.contains("client.key")), "{error}");
    fs::write(certificates.join("client.key"), key.serialize_pem()).unwrap();
    ask().await.unwrap();
    fs::write(certificates.join("other.crt"), "-----BEGIN CERTIFICATE-----\n!").unwrap();
    let error = ask().await.unwrap_err();
    assert!(matches!(&error, Error::Certificate { reason, .. } if reason.contains("other.crt")), "{error}");
}

#[tokio::test]
async fn searches_are_filtered() {
    let server = Server::start(|request| {
        assert_eq!(request.target, "/v1/search?q=a%20b%2F%26&n=7");
        ok(r#"{"num_results":3,"results":[
            {"name":"one","description":"d","star_count":5,"is_official":true,"is_automated":false},
            {"name":"two","star_count":1},{"name":"three","star_count":9,"extra":null}]}"#)
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let client = Client::new(config(folder.path(), Proxy::Direct)).unwrap();
    let registry = server.address.to_string();
    let search = Search { term: "a b/&".to_owned(), limit: Some(7), ..Search::default() };
    for (search, expected) in [
        (search.clone(), vec!["one", "two", "three"]),
        (Search { stars: Some(5), ..search.clone() }, vec!["one", "three"]),
        (Search { is_official: Some(false), stars: Some(2), ..search.clone() }, vec!["three"]),
    ] {
        let found = client.search(&registry, &Credentials::Anonymous, &search).await.unwrap();
        assert_eq!(found.iter().map(|result| result.name.as_str()).collect::<Vec<_>>(), expected);
    }
    let search = Search { limit: Some(101), ..search };
    let error = client.search(&registry, &Credentials::Anonymous, &search).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
}
