//! Debian's docker-registry: what is pushed comes back, whatever happens to the connections.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod server;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use ponton_oci::descriptor::Descriptor;
use ponton_oci::digest::Digest;
use ponton_oci::media_type;
use ponton_oci::reference::Reference;
use ponton_registry::{Client, Config, Credentials, Error, Fetched, Limits, Proxy, Repository, TagOrDigest};
use ponton_testkit::registry::Process;
use server::{client, descriptor, limits, noise, read, repository, user};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A docker-registry with a store of its own; both end with the value.
struct DockerRegistry {
    address: SocketAddr,
    _process: Process,
    folder: tempfile::TempDir,
}

/// "me" with the password "secret".
const HTPASSWD: &str = "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

impl DockerRegistry {
    fn start() -> Self {
        Self::with(tempfile::tempdir().unwrap(), "")
    }

    /// With TLS, a password, and the authority's certificate in `<folder>/ca.crt`.
    fn encrypted() -> Self {
        Self::with_certificate(|| certificate("127.0.0.1"))
    }

    fn with_certificate(make: impl FnOnce() -> (String, String, String)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (authority, certificate, key) = make();
        fs::write(at("ca.crt"), authority).unwrap();
        fs::write(at("registry.crt"), certificate).unwrap();
        fs::write(at("registry.key"), key).unwrap();
        fs::write(at("htpasswd"), HTPASSWD).unwrap();
        let path = folder.path().display().to_string();
        let more = format!(
            "  tls:\n    certificate: {path}/registry.crt\n    key: {path}/registry.key\n\
             auth:\n  htpasswd:\n    realm: here\n    path: {path}/htpasswd\n"
        );
        Self::with(folder, &more)
    }

    fn with(folder: tempfile::TempDir, more: &str) -> Self {
        let process = Process::start(Command::new("docker-registry"), folder.path(), "127.0.0.1:0", more);
        Self { address: process.address(), _process: process, folder }
    }

    fn repository(&self, client: &Client, name: &str) -> Repository {
        let name = Reference::parse(&format!("{}/{name}", self.address)).unwrap();
        client.repository(&name, Credentials::Anonymous)
    }

    /// A client that trusts the registry's authority by `certs.d`.
    fn trusting_client(&self) -> Client {
        let folder = self.folder.path().join("certs.d").join(self.address.to_string());
        fs::create_dir_all(&folder).unwrap();
        fs::copy(self.folder.path().join("ca.crt"), folder.join("ca.crt")).unwrap();
        with_certificates(&self.folder.path().join("certs.d"))
    }
}

fn with_certificates(folder: &Path) -> Client {
    let certs = vec![folder.to_owned()];
    let config = Config { certs, proxy: Proxy::Direct, limits: limits(), ..Config::default() };
    Client::new(config).unwrap()
}

/// An authority's certificate, a server's, and the server's key.
fn certificate(host: &str) -> (String, String, String) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let authority_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(params, authority_key);
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    (authority, certificate.pem(), key.serialize_pem())
}

/// A way to a registry on which connections break: the first `cuts` of them after so many bytes in the one
/// direction or the other.
struct CuttingProxy {
    address: SocketAddr,
    cut: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for CuttingProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone, Copy)]
enum Way {
    ToClient,
    ToRegistry,
}

impl CuttingProxy {
    /// Lets the bytes of the `n`th cut connection pass up to `after(n)`.
    async fn start(
        registry: SocketAddr,
        way: Way,
        cuts: usize,
        after: impl Fn(usize) -> u64 + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cut = Arc::new(AtomicUsize::new(0));
        let (count, after) = (cut.clone(), Arc::new(after));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (count, after) = (count.clone(), after.clone());
                connections.spawn(async move {
                    let mut registry = TcpStream::connect(registry).await.unwrap();
                    let mut client = client;
                    let (from_client, to_client) = client.split();
                    let (from_registry, to_registry) = registry.split();
                    let cuts = |this: Way| match (this, way) {
                        (Way::ToClient, Way::ToClient) | (Way::ToRegistry, Way::ToRegistry) => cuts,
                        _ => 0,
                    };
                    tokio::select! {
                        () = pass(from_client, to_registry, cuts(Way::ToRegistry), &count, &*after) => {}
                        () = pass(from_registry, to_client, cuts(Way::ToClient), &count, &*after) => {}
                    }
                });
            }
        });
        Self { address, cut, task }
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    cuts: usize,
    count: &AtomicUsize,
    after: &(impl Fn(usize) -> u64 + ?Sized),
) {
    let (mut passed, mut buffer) = (0, vec![0; 64 << 10]);
    while let Ok(size @ 1..) = from.read(&mut buffer).await {
        passed += size as u64;
        let number = count.load(Ordering::SeqCst);
        if number < cuts && passed > after(number) {
            count.fetch_add(1, Ordering::SeqCst);
            return;
        }
        if to.write_all(&buffer[..size]).await.is_err() {
            return;
        }
    }
}

async fn push(repository: &Repository, bytes: &[u8]) -> Result<Descriptor, Error> {
    let (descriptor, bytes) = (descriptor(bytes), Bytes::copy_from_slice(bytes));
    let source = || {
        use bytes::Buf as _;
        Ok(Box::new(bytes.clone().reader()) as Box<dyn std::io::Read + Send>)
    };
    repository.push_blob(&descriptor, &source).await.map(|()| descriptor)
}

fn manifest(config: &Descriptor, layers: &[Descriptor]) -> Bytes {
    let text = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": config,
        "layers": layers,
    });
    text.to_string().into()
}

/// Pushes an image of two layers, fetches it again, and compares every byte.
async fn round_trip(repository: &Repository) {
    let (layer, other, config) = (noise(3_000_000), noise(17), b"{}".to_vec());
    let mut blobs = Vec::new();
    for bytes in [&layer, &other, &config] {
        assert!(!repository.has_blob(&Digest::sha256_of(bytes)).await.unwrap());
        blobs.push(push(repository, bytes).await.unwrap());
        assert!(repository.has_blob(&Digest::sha256_of(bytes)).await.unwrap());
    }
    let bytes = manifest(&blobs[2], &blobs[..2]);
    let tag = TagOrDigest::Tag("v1".to_owned());
    let digest = repository.push_manifest(&tag, media_type::OCI_MANIFEST, bytes.clone()).await.unwrap();
    assert_eq!(digest, Digest::sha256_of(&bytes));
    for what in [tag, TagOrDigest::Digest(digest.clone())] {
        let Fetched { descriptor, bytes: fetched } = repository.manifest(&what).await.unwrap();
        assert_eq!(fetched, bytes);
        assert_eq!((&descriptor.digest, descriptor.media_type.as_str()), (&digest, media_type::OCI_MANIFEST));
        assert_eq!(repository.head_manifest(&what).await.unwrap(), descriptor);
    }
    for (descriptor, bytes) in blobs.iter().zip([&layer, &other, &config]) {
        let (came, end) = read(repository.blob(descriptor, 0).await).await;
        end.unwrap();
        assert!(came == *bytes);
    }
    let (came, end) = read(repository.blob(&blobs[0], 2_999_000).await).await;
    end.unwrap();
    assert!(came == layer[2_999_000..]);
    assert_eq!(repository.tags().await.unwrap(), ["v1"]);
    assert_eq!(repository.referrers(&digest, None).await.unwrap(), []);
}

#[tokio::test]
async fn what_is_pushed_comes_back() {
    let registry = DockerRegistry::start();
    round_trip(&registry.repository(&client(limits()), "a/b")).await;
}

#[tokio::test]
async fn what_is_pushed_comes_back_encrypted_and_with_a_password() {
    let registry = DockerRegistry::encrypted();
    let name = registry.address.to_string();
    let client = registry.trusting_client();
    let login = client.login(&name, &user("me", "secret")).await.unwrap();
    assert_eq!(login.identity_token, None);
    for credentials in [user("me", "wrong"), user("you", "secret"), Credentials::Anonymous] {
        let error = client.login(&name, &credentials).await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{credentials:?}: {error}");
        let repository = repository(&client, registry.address, credentials);
        assert!(matches!(push(&repository, b"x").await, Err(Error::Unauthorized { .. })));
    }
    round_trip(&repository(&client, registry.address, user("me", "secret"))).await;
}

/// `openssl req -x509` makes such, and calls them authorities.
#[tokio::test]
async fn a_server_may_be_its_own_authority() {
    for (host, expected) in [("127.0.0.1", true), ("elsewhere.example", false)] {
        let registry = DockerRegistry::with_certificate(|| {
            use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let certificate = params.self_signed(&key).unwrap().pem();
            (certificate.clone(), certificate, key.serialize_pem())
        });
        let name = registry.address.to_string();
        let login = registry.trusting_client().login(&name, &user("me", "secret")).await;
        match expected {
            true => drop(login.unwrap()),
            false => assert!(matches!(login, Err(Error::Certificate { .. })), "{login:?}"),
        }
    }
}

#[tokio::test]
async fn strangers_are_not_trusted() {
    let registry = DockerRegistry::encrypted();
    let name = registry.address.to_string();
    // Loopback is insecure by itself: any certificate will do, until an authority is named.
    client(limits()).login(&name, &user("me", "secret")).await.unwrap();
    let (stranger, ..) = certificate("127.0.0.1");
    let folder = registry.folder.path().join("strangers");
    fs::create_dir_all(folder.join(&name)).unwrap();
    fs::write(folder.join(&name).join("ca.crt"), stranger).unwrap();
    let error = with_certificates(&folder).login(&name, &user("me", "secret")).await.unwrap_err();
    assert!(matches!(error, Error::Certificate { .. }), "{error}");
}

#[tokio::test]
async fn blobs_are_taken_over_from_another_repository() {
    let registry = DockerRegistry::start();
    let client = client(limits());
    let (from, to) = (registry.repository(&client, "from/x"), registry.repository(&client, "to/y"));
    let blob = push(&from, b"shared").await.unwrap();
    assert!(!to.has_blob(&blob.digest).await.unwrap());
    assert!(to.mount_blob(&blob.digest, "from/x").await.unwrap());
    assert!(to.has_blob(&blob.digest).await.unwrap());
    let unknown = Digest::sha256_of(b"unknown");
    assert!(!to.mount_blob(&unknown, "from/x").await.unwrap());
}

#[tokio::test]
async fn blobs_of_unknown_size_go_in_chunks() {
    let registry = DockerRegistry::start();
    let repository = registry.repository(&client(limits()), "a");
    for size in [0, 10, 20_000_000] {
        let blob = noise(size);
        let mut upload = repository.upload().await.unwrap();
        for piece in blob.chunks(1_000_003) {
            upload.write(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        let descriptor = descriptor(&blob);
        upload.finish(&descriptor.digest).await.unwrap();
        let (came, end) = read(repository.blob(&descriptor, 0).await).await;
        end.unwrap();
        assert!(came == blob, "{size}");
    }
    let mut upload = repository.upload().await.unwrap();
    upload.write(Bytes::from_static(b"x")).await.unwrap();
    let refused = upload.finish(&Digest::sha256_of(b"y")).await;
    assert!(matches!(refused, Err(Error::Status { status: 400, .. })), "{refused:?}");
}

#[tokio::test]
async fn what_is_not_what_it_says_is_not_pushed() {
    let registry = DockerRegistry::start();
    let repository = registry.repository(&client(limits()), "a");
    for (name, given) in [("shorter", &b"ab"[..]), ("longer", b"abcd")] {
        let pushed = repository.push_blob(&descriptor(b"abc"), &|| Ok(Box::new(given))).await;
        assert!(matches!(pushed, Err(Error::Source { .. })), "{name}: {pushed:?}");
    }
    let pushed = repository.push_blob(&descriptor(b"abc"), &|| Ok(Box::new(&b"xyz"[..]))).await;
    assert!(matches!(pushed, Err(Error::Status { status: 400, .. })), "{pushed:?}");
    assert!(!repository.has_blob(&Digest::sha256_of(b"abc")).await.unwrap());
    let layer = descriptor(b"nowhere");
    let what = TagOrDigest::Tag("t".to_owned());
    let pushed = repository.push_manifest(&what, media_type::OCI_MANIFEST, manifest(&layer, &[])).await;
    assert!(matches!(pushed, Err(Error::Status { status: 400, .. } | Error::NotFound { .. })), "{pushed:?}");
    push(&repository, b"abc").await.unwrap();
}

#[tokio::test]
async fn a_pull_survives_twenty_cuts() {
    const CUTS: usize = 20;
    let registry = DockerRegistry::start();
    let blob = noise(30_000_000);
    let descriptor = push(&registry.repository(&client(limits()), "a/b"), &blob).await.unwrap();
    let proxy = CuttingProxy::start(registry.address, Way::ToClient, CUTS, |_| 1_000_000).await;
    let repository = repository(&client(limits()), proxy.address, Credentials::Anonymous);
    let (came, end) = read(repository.blob(&descriptor, 0).await).await;
    end.unwrap();
    assert!(came == blob);
    assert_eq!(proxy.cut.load(Ordering::SeqCst), CUTS);
}

#[tokio::test]
async fn a_push_begins_anew_after_each_of_twenty_cuts() {
    const CUTS: usize = 20;
    let registry = DockerRegistry::start();
    let blob = noise(10_000_000);
    let proxy =
        CuttingProxy::start(registry.address, Way::ToRegistry, CUTS, |n| 100_000 * n as u64 + 50_000).await;
    // docker-registry can't go on with a part of a blob: as many attempts as cuts are needed.
    let patient = Limits { attempts: CUTS as u32 + 1, ..limits() };
    let descriptor = {
        let repository = repository(&client(patient), proxy.address, Credentials::Anonymous);
        push(&repository, &blob).await.unwrap()
    };
    assert_eq!(proxy.cut.load(Ordering::SeqCst), CUTS);
    let repository = repository(&client(limits()), registry.address, Credentials::Anonymous);
    let (came, end) = read(repository.blob(&descriptor, 0).await).await;
    end.unwrap();
    assert!(came == blob);
}

#[test]
fn threads_that_block_read_and_write_as_well() {
    use std::io::Read as _;
    let registry = DockerRegistry::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let repository = registry.repository(&client(limits()), "a").blocking(runtime.handle().clone());
    let blob = noise(1_000_000);
    let descriptor = descriptor(&blob);
    let source = || Ok(Box::new(std::io::Cursor::new(noise(1_000_000))) as Box<dyn std::io::Read + Send>);
    repository.push_blob(&descriptor, &source).unwrap();
    let mut came = Vec::new();
    let mut stream = repository.blob(&descriptor, 0).unwrap();
    let mut first = [0; 10];
    stream.read_exact(&mut first).unwrap();
    came.extend_from_slice(&first);
    came.extend_from_slice(&stream.next().unwrap().unwrap());
    stream.read_to_end(&mut came).unwrap();
    assert!(came == blob);
}
