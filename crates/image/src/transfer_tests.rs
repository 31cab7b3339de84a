//! Pulls from and pushes to a registry in memory, which misbehaves when it is told to.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use bytes::Bytes;
use ponton_archive::header::Kind;
use ponton_oci::descriptor::Descriptor;
use ponton_oci::digest::Digest;
use ponton_oci::media_type;
use ponton_oci::platform::Platform;
use ponton_oci::reference::Reference;
use ponton_registry::{Error as Refusal, Fetched, Source, TagOrDigest};
use serde_json::json;

use super::*;
use crate::tests::{CREATED, Lab, tar};

#[derive(Default)]
struct Contents {
    /// By repository and digest.
    blobs: HashMap<(String, Digest), Vec<u8>>,
    /// By repository and tag or digest.
    manifests: HashMap<(String, String), (String, Vec<u8>)>,
    log: Vec<String>,
}

/// A registry; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Registry {
    contents: Arc<Mutex<Contents>>,
    /// These blobs stop in their middle.
    stopped: Arc<(Mutex<HashSet<Digest>>, Condvar)>,
}

impl Registry {
    pub(crate) fn repository(&self, name: &str) -> Arc<dyn Remote> {
        let name = Reference::parse(name).unwrap().name();
        Arc::new(Repository { registry: self.clone(), name, cancel: Cancel::new() })
    }

    pub(crate) fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.contents.lock().unwrap().log)
    }

    fn stop(&self, digest: &Digest) {
        self.stopped.0.lock().unwrap().insert(digest.clone());
    }

    fn go_on(&self) {
        self.stopped.0.lock().unwrap().clear();
        self.stopped.1.notify_all();
    }

    fn put_blob(&self, name: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256_of(bytes);
        let name = Reference::parse(name).unwrap().name();
        self.contents.lock().unwrap().blobs.insert((name, digest.clone()), bytes.to_vec());
        digest
    }

    fn put_manifest(&self, name: &str, kind: &str, document: &serde_json::Value) -> Descriptor {
        let bytes = document.to_string().into_bytes();
        let digest = Digest::sha256_of(&bytes);
        let descriptor = Descriptor::new(kind, digest.clone(), bytes.len() as u64);
        let reference = Reference::parse(name).unwrap();
        let mut contents = self.contents.lock().unwrap();
        for key in [reference.tag().unwrap().to_owned(), digest.to_string()] {
            contents.manifests.insert((reference.name(), key), (kind.to_owned(), bytes.clone()));
        }
        descriptor
    }

    /// An image of these layers' tars, compressed by gzip, with this platform.
    pub(crate) fn put_image(&self, name: &str, layers: &[Vec<u8>], platform: &Platform) -> Descriptor {
        let blobs: Vec<_> = layers.iter().map(|layer| (layer.clone(), gzip(layer))).collect();
        self.put_image_of(name, &blobs, media_type::OCI_LAYER_GZIP, platform)
    }

    fn put_image_of(
        &self,
        name: &str,
        layers: &[(Vec<u8>, Vec<u8>)],
        kind: &str,
        platform: &Platform,
    ) -> Descriptor {
        let diff_ids: Vec<String> =
            layers.iter().map(|(tar, _)| Digest::sha256_of(tar).to_string()).collect();
        let config = json!({
            "architecture": platform.architecture, "os": platform.os, "created": CREATED,
            "config": {"Labels": {"name": name}}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
        .to_string();
        let id = self.put_blob(name, config.as_bytes());
        let descriptors: Vec<_> = layers
            .iter()
            .map(|(_, blob)| Descriptor::new(kind, self.put_blob(name, blob), blob.len() as u64))
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
            "config": Descriptor::new(media_type::OCI_CONFIG, id, config.len() as u64),
            "layers": descriptors,
        });
        self.put_manifest(name, media_type::OCI_MANIFEST, &manifest)
    }
}

struct Repository {
    registry: Registry,
    name: String,
    cancel: Cancel,
}

impl Repository {
    fn note(&self, what: &str, digest: &Digest) {
        self.registry.contents.lock().unwrap().log.push(format!("{what} {digest}"));
    }
}

impl Remote for Repository {
    fn name(&self) -> &str {
        &self.name
    }

    fn with_cancel(&self, cancel: Cancel) -> Arc<dyn Remote> {
        Arc::new(Self { registry: self.registry.clone(), name: self.name.clone(), cancel })
    }

    fn manifest(&self, what: &TagOrDigest) -> Result<Fetched, Refusal> {
        let key = match what {
            TagOrDigest::Tag(tag) => tag.clone(),
            TagOrDigest::Digest(digest) => digest.to_string(),
        };
        let contents = self.registry.contents.lock().unwrap();
        let (kind, bytes) = contents.manifests.get(&(self.name.clone(), key.clone())).ok_or_else(|| {
            Refusal::NotFound { what: format!("{}:{key}", self.name), message: "manifest unknown".to_owned() }
        })?;
        let descriptor = Descriptor::new(kind, Digest::sha256_of(bytes), bytes.len() as u64);
        Ok(Fetched { descriptor, bytes: bytes.clone() })
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, Refusal> {
        self.note("get", &descriptor.digest);
        let contents = self.registry.contents.lock().unwrap();
        let bytes = contents.blobs.get(&(self.name.clone(), descriptor.digest.clone())).ok_or_else(|| {
            Refusal::NotFound { what: descriptor.digest.to_string(), message: "blob unknown".to_owned() }
        })?;
        Ok(Box::new(Body {
            digest: descriptor.digest.clone(),
            bytes: bytes.clone(),
            position: 0,
            stopped: Arc::clone(&self.registry.stopped),
            cancel: self.cancel.clone(),
        }))
    }

    fn has_blob(&self, digest: &Digest) -> Result<bool, Refusal> {
        let contents = self.registry.contents.lock().unwrap();
        Ok(contents.blobs.contains_key(&(self.name.clone(), digest.clone())))
    }

    fn mount_blob(&self, digest: &Digest, from: &str) -> Result<bool, Refusal> {
        self.note("mount", digest);
        let registry = self.name.split_once('/').unwrap().0;
        let mut contents = self.registry.contents.lock().unwrap();
        let bytes = contents.blobs.get(&(format!("{registry}/{from}"), digest.clone())).cloned();
        let is_there = bytes.is_some();
        contents.blobs.extend(bytes.map(|bytes| ((self.name.clone(), digest.clone()), bytes)));
        Ok(is_there)
    }

    fn push_blob(&self, descriptor: &Descriptor, source: &Source<'_>) -> Result<(), Refusal> {
        self.note("put", &descriptor.digest);
        let mut bytes = Vec::new();
        source().unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(Digest::sha256_of(&bytes), descriptor.digest);
        let key = (self.name.clone(), descriptor.digest.clone());
        self.registry.contents.lock().unwrap().blobs.insert(key, bytes);
        Ok(())
    }

    fn upload(&self) -> Result<Box<dyn Upload>, Refusal> {
        Ok(Box::new(Sending { registry: self.registry.clone(), name: self.name.clone(), bytes: Vec::new() }))
    }

    fn push_manifest(&self, what: &TagOrDigest, kind: &str, bytes: &[u8]) -> Result<Digest, Refusal> {
        let digest = Digest::sha256_of(bytes);
        let tag = match what {
            TagOrDigest::Tag(tag) => tag.clone(),
            TagOrDigest::Digest(digest) => digest.to_string(),
        };
        let mut contents = self.registry.contents.lock().unwrap();
        for key in [tag, digest.to_string()] {
            contents.manifests.insert((self.name.clone(), key), (kind.to_owned(), bytes.to_vec()));
        }
        Ok(digest)
    }
}

struct Sending {
    registry: Registry,
    name: String,
    bytes: Vec<u8>,
}

impl Upload for Sending {
    fn write(&mut self, bytes: Bytes) -> Result<(), Refusal> {
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    fn finish(self: Box<Self>, digest: &Digest) -> Result<(), Refusal> {
        assert_eq!(*digest, Digest::sha256_of(&self.bytes));
        let mut contents = self.registry.contents.lock().unwrap();
        contents.log.push(format!("put {digest}"));
        contents.blobs.insert((self.name, digest.clone()), self.bytes);
        Ok(())
    }
}

/// A blob that comes in two halves.
struct Body {
    digest: Digest,
    bytes: Vec<u8>,
    position: usize,
    stopped: Arc<(Mutex<HashSet<Digest>>, Condvar)>,
    cancel: Cancel,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let half = self.bytes.len() / 2;
        if self.position == half {
            let mut stopped = self.stopped.0.lock().unwrap();
            while stopped.contains(&self.digest) {
                if self.cancel.is_cancelled() {
                    return Err(io::Error::other(Refusal::Cancelled));
                }
                let wait = std::time::Duration::from_millis(5);
                stopped = self.stopped.1.wait_timeout(stopped, wait).unwrap().0;
            }
        }
        let end = if self.position < half { half } else { self.bytes.len() };
        let length = (end - self.position).min(buffer.len());
        buffer[..length].copy_from_slice(&self.bytes[self.position..self.position + length]);
        self.position += length;
        Ok(length)
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn layer(name: &str, text: &str) -> Vec<u8> {
    tar(&[(name, Kind::Regular, text)])
}

pub(crate) fn host() -> Platform {
    Platform::host()
}

impl Lab {
    pub(crate) fn pull(&self, registry: &Registry, name: &str) -> Result<Pulled> {
        self.pull_with(registry, name, &PullOptions::default(), &Cancel::new())
    }

    fn pull_with(
        &self,
        registry: &Registry,
        name: &str,
        options: &PullOptions,
        cancel: &Cancel,
    ) -> Result<Pulled> {
        let reference = Reference::parse(name).unwrap();
        self.images.pull(&registry.repository(name), &reference, options, 7, cancel, &mut |_| {})
    }

    pub(crate) fn read(&self, image: &str, file: &str) -> String {
        let chain = self.images.get(image).unwrap().chain;
        let read = |chain| std::fs::read_to_string(self.tree(chain).join(file)).ok();
        chain.iter().rev().find_map(read).unwrap()
    }

    /// That nothing is here, nor half of something.
    pub(crate) fn assert_empty(&self) {
        assert_eq!(self.directories(), 0);
        assert_eq!(self.store.content().list().unwrap(), []);
        assert!(self.images.summaries().unwrap().is_empty());
        let ingest = self.directory.path().join("data/content/ingest");
        assert_eq!(std::fs::read_dir(ingest).unwrap().count(), 0);
    }
}

#[test]
fn a_pulled_image_is_there_with_its_names_and_is_not_fetched_again() {
    let (lab, registry) = (Lab::new(), Registry::default());
    let layers = [layer("a", "base"), layer("b", "top")];
    let manifest = registry.put_image("reg.test/app:1", &layers, &host());
    let pulled = lab.pull(&registry, "reg.test/app:1").unwrap();
    assert_eq!(pulled.digest.digest(), &manifest.digest);
    assert!(pulled.is_new && pulled.other_platform.is_none());
    assert_eq!(registry.log().len(), 3);
    let image = lab.images.get("reg.test/app:1").unwrap();
    let names: Vec<String> = image.references.iter().map(Reference::familiar).collect();
    assert_eq!(names, ["reg.test/app:1".to_owned(), format!("reg.test/app@{}", manifest.digest)]);
    assert_eq!(
        (lab.read("reg.test/app:1", "a"), lab.read("reg.test/app:1", "b")),
        ("base".into(), "top".into())
    );
    let summary = &lab.images.summaries().unwrap()[0];
    assert_eq!((&summary.id, summary.used_at), (&pulled.id, 7));
    assert_eq!(summary.labels["name"], "reg.test/app:1");
    assert_eq!(summary.manifest.as_ref().unwrap().digest(), &manifest.digest);

    let again = lab.pull(&registry, &format!("reg.test/app@{}", manifest.digest)).unwrap();
    assert_eq!(again, Pulled { is_new: false, ..pulled });
    assert_eq!(registry.log(), Vec::<String>::new());
    assert_eq!(lab.store.collect_garbage().unwrap(), 0);
}

#[test]
fn every_compression_is_unpacked_and_equal_layers_are_fetched_once() {
    let (lab, registry) = (Lab::new(), Registry::default());
    let base = layer("a", "base");
    registry.put_image("reg.test/one", &[base.clone(), base.clone(), layer("b", "1")], &host());
    lab.pull(&registry, "reg.test/one").unwrap();
    assert_eq!(registry.log().len(), 3, "configuration and two layers");
    registry.put_image("reg.test/two", &[base.clone(), layer("b", "2")], &host());
    lab.pull(&registry, "reg.test/two").unwrap();
    assert_eq!(registry.log().len(), 2, "configuration and one layer");
    // In another place of the stack it is unpacked from the blob that is here.
    registry.put_image("reg.test/three", &[layer("b", "3"), base], &host());
    lab.pull(&registry, "reg.test/three").unwrap();
    assert_eq!(registry.log().len(), 2);
    for (number, compress) in
        [|tar: &[u8]| tar.to_vec(), |tar: &[u8]| zstd::encode_all(tar, 1).unwrap()].into_iter().enumerate()
    {
        let tar = layer("b", &number.to_string());
        let kind = [media_type::OCI_LAYER, media_type::OCI_LAYER_ZSTD][number];
        registry.put_image_of("reg.test/other", &[(tar.clone(), compress(&tar))], kind, &host());
        lab.pull(&registry, "reg.test/other").unwrap();
        assert_eq!(lab.read("reg.test/other", "b"), number.to_string());
    }
    for (name, text) in [("one", "1"), ("two", "2"), ("three", "3")] {
        assert_eq!(lab.read(&format!("reg.test/{name}"), "b"), text);
    }
}

#[test]
fn pulls_of_the_same_layer_join_and_survive_each_other() {
    let (lab, registry) = (Lab::new(), Registry::default());
    let base = layer("a", "base");
    registry.put_image("reg.test/one", &[base.clone(), layer("b", "1")], &host());
    registry.put_image("reg.test/two", &[base.clone(), layer("b", "2")], &host());
    let digest = Digest::sha256_of(&gzip(&base));
    registry.stop(&digest);
    let (cancel, options) = (Cancel::new(), PullOptions::default());
    thread::scope(|scope| {
        let first = scope.spawn(|| lab.pull_with(&registry, "reg.test/one", &options, &cancel));
        lab.wait_for_waiting(&digest, 1);
        let second = scope.spawn(|| lab.pull(&registry, "reg.test/two"));
        lab.wait_for_waiting(&digest, 2);
        cancel.cancel();
        assert!(matches!(first.join().unwrap(), Err(Error::Cancelled)));
        registry.go_on();
        second.join().unwrap().unwrap();
    });
    let fetched = format!("get {digest}");
    assert_eq!(registry.log().iter().filter(|line| **line == fetched).count(), 1);
    assert_eq!(lab.read("reg.test/two", "a"), "base");
    assert!(lab.images.get("reg.test/one").is_err());
    assert_eq!(lab.directories(), 2);
}

impl Lab {
    fn wait_for_waiting(&self, digest: &Digest, count: usize) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while self.images.fetches.waiting(digest) < count {
            assert!(std::time::Instant::now() < deadline, "nobody waits for {digest}");
            thread::yield_now();
        }
    }
}

#[test]
fn a_cancelled_pull_leaves_nothing() {
    let (lab, registry) = (Lab::new(), Registry::default());
    let base = layer("a", "base");
    registry.put_image("reg.test/one", &[base.clone(), layer("b", "1")], &host());
    let (cancel, digest) = (Cancel::new(), Digest::sha256_of(&gzip(&base)));
    registry.stop(&digest);
    thread::scope(|scope| {
        let pull = scope.spawn(|| lab.pull_with(&registry, "reg.test/one", &PullOptions::default(), &cancel));
        lab.wait_for_waiting(&digest, 1);
        cancel.cancel();
        assert!(matches!(pull.join().unwrap(), Err(Error::Cancelled)));
    });
    lab.assert_empty();
    registry.go_on();
    lab.pull(&registry, "reg.test/one").unwrap();
}

#[test]
fn what_is_not_as_it_was_announced_is_refused_and_leaves_nothing() {
    let (lab, registry) = (Lab::new(), Registry::default());
    let good = layer("a", "base");
    let blob = gzip(&good);
    let digest = Digest::sha256_of(&blob);
    registry.put_image("reg.test/app", std::slice::from_ref(&good), &host());
    let key = ("reg.test/app".to_owned(), digest);
    let replace = |bytes: &[u8]| {
        registry.contents.lock().unwrap().blobs.insert(key.clone(), bytes.to_vec());
        let error = lab.pull(&registry, "reg.test/app").unwrap_err();
        lab.assert_empty();
        error.to_string()
    };
    let mut flipped = blob.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert!(replace(&flipped).contains("digest"), "{}", replace(&flipped));
    let other = gzip(&layer("a", "evil"));
    assert!(replace(&other).contains("expected"), "{}", replace(&other));
    assert!(replace(&blob[..blob.len() - 9]).contains("bytes"));
    assert!(replace(&[&blob[..], b"more"].concat()).contains("layer"));
    replace(b"");
    // The right bytes, but of another layer than the configuration says.
    let wrong = [(good, gzip(&layer("a", "other")))];
    registry.put_image_of("reg.test/app", &wrong, media_type::OCI_LAYER_GZIP, &host());
    let error = lab.pull(&registry, "reg.test/app").unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    lab.assert_empty();
}

#[test]
fn a_layer_that_unpacks_to_too_much_is_refused() {
    let (lab, registry) = (Lab::new(), Registry::default());
    let bomb = tar(&[("zeros", Kind::Regular, &"0".repeat(1 << 20))]);
    registry.put_image("reg.test/bomb", &[bomb], &host());
    let limits = Limits { layer_bytes: 1 << 19, ..Limits::default() };
    let small = Lab { images: lab.images.clone().with_limits(limits), ..lab };
    let error = small.pull(&registry, "reg.test/bomb").unwrap_err();
    assert!(matches!(error, Error::Archive { .. }), "{error}");
    small.assert_empty();
}

#[test]
fn of_an_index_the_hosts_image_is_taken_or_the_one_asked_for_or_all() {
    let (lab, registry) = (Lab::new(), Registry::default());
    let other: Platform =
        if host().architecture == "amd64" { "linux/arm64" } else { "linux/amd64" }.parse().unwrap();
    let mut manifests = Vec::new();
    for (platform, text) in [(&other, "other"), (&host(), "host")] {
        let mut descriptor =
            registry.put_image(&format!("reg.test/app:{text}"), &[layer("a", text)], platform);
        descriptor.platform = Some(platform.clone());
        manifests.push(descriptor);
    }
    let mut attestation = Descriptor::new(media_type::OCI_MANIFEST, Digest::sha256_of(b"?"), 1);
    attestation.platform = Some("unknown/unknown".parse().unwrap());
    manifests.push(attestation);
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests});
    // An index that is in an index that is named twice.
    let inner = registry.put_manifest("reg.test/app:inner", media_type::OCI_INDEX, &index);
    let outer = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [inner, inner]});
    let outer = registry.put_manifest("reg.test/app:1", media_type::OCI_INDEX, &outer);

    let pulled = lab.pull(&registry, "reg.test/app:1").unwrap();
    assert_eq!(pulled.digest.digest(), &outer.digest);
    assert_eq!(lab.read("reg.test/app:1", "a"), "host");
    let options = PullOptions { platform: Some(other.clone()), all_platforms: false };
    lab.pull_with(&registry, "reg.test/app:1", &options, &Cancel::new()).unwrap();
    assert_eq!(lab.read("reg.test/app:1", "a"), "other");
    let options = PullOptions { platform: None, all_platforms: true };
    lab.pull_with(&registry, "reg.test/app:1", &options, &Cancel::new()).unwrap();
    assert_eq!(lab.read("reg.test/app:1", "a"), "host");
    let others = format!("reg.test/app@{}", manifests[0].digest);
    assert_eq!(lab.read(&others, "a"), "other");
    assert_eq!(lab.store.collect_garbage().unwrap(), 0);
    let options = PullOptions { platform: Some("linux/s390x".parse().unwrap()), all_platforms: false };
    let error = lab.pull_with(&registry, "reg.test/app:1", &options, &Cancel::new()).unwrap_err();
    assert!(error.to_string().starts_with("no matching manifest for linux/s390x"), "{error}");
    let error = lab.pull_with(&registry, "reg.test/app:host", &options, &Cancel::new()).unwrap_err();
    assert!(error.to_string().contains("does not match the specified platform"), "{error}");
    let pulled = lab.pull(&registry, "reg.test/app:other").unwrap();
    assert_eq!(pulled.other_platform, Some(other));
}

#[test]
fn what_is_no_image_of_this_kind_is_refused_by_name() {
    let (lab, registry) = (Lab::new(), Registry::default());
    let refused = |kind: &str, document: &serde_json::Value, why: &str| {
        registry.put_manifest("reg.test/x", kind, document);
        let error = lab.pull(&registry, "reg.test/x").unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        lab.assert_empty();
    };
    let config = br#"{"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let digest = registry.put_blob("reg.test/x", config);
    let manifest = |config_type: &str, layers: serde_json::Value| {
        json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "layers": layers,
            "config": {"mediaType": config_type, "digest": digest, "size": config.len()}})
    };
    let layer = |kind: &str| json!([{"mediaType": kind, "digest": digest, "size": 3}]);
    let image = |layers| manifest(media_type::OCI_CONFIG, layers);
    let oci = media_type::OCI_MANIFEST;
    refused(oci, &image(layer("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")), "foreign");
    refused(oci, &image(layer("application/x-new")), "unknown media type \"application/x-new\"");
    refused(oci, &manifest("application/vnd.cncf.helm.config.v1+json", json!([])), "artifact of type");
    refused(oci, &image(layer(media_type::OCI_LAYER)), "has 1 layers, its configuration 0");
    let many: Vec<_> = (0..3000).map(|_| layer(media_type::OCI_LAYER)[0].clone()).collect();
    refused(oci, &image(json!(many)), "3000 layers");
    refused(
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        &json!({"schemaVersion": 1}),
        "obsolete",
    );
    refused("text/html", &json!({}), "unknown media type \"text/html\"");
    refused(oci, &json!({"schemaVersion": 2, "manifests": []}), "manifest");
    // Indexes that only name indexes, deeper than anybody builds them.
    let mut inner = registry.put_manifest(
        "reg.test/x:0",
        media_type::OCI_INDEX,
        &json!({"schemaVersion": 2, "manifests": []}),
    );
    for level in 1..6 {
        let document = json!({"schemaVersion": 2, "manifests": [inner]});
        inner = registry.put_manifest(&format!("reg.test/x:{level}"), media_type::OCI_INDEX, &document);
    }
    refused(media_type::OCI_INDEX, &json!({"schemaVersion": 2, "manifests": [inner]}), "levels of indexes");
}

impl Lab {
    pub(crate) fn push(&self, registry: &Registry, name: &str) -> Result<Pushed> {
        let reference = Reference::parse(name).unwrap();
        let to = registry.repository(name);
        let options = PushOptions::default();
        self.images.push(&reference, &*to, &options, 9, &Cancel::new(), &mut |_| {})
    }

    pub(crate) fn tag(&self, name: &str, new: &str) {
        self.images.tag(name, &Reference::parse(new).unwrap(), 8).unwrap();
    }
}

fn puts(registry: &Registry) -> usize {
    registry.log().iter().filter(|line| line.starts_with("put ")).count()
}

#[test]
fn a_pulled_image_goes_out_as_it_came() {
    let (lab, registry, second) = (Lab::new(), Registry::default(), Registry::default());
    let layers = [layer("a", "base"), layer("b", "top")];
    let manifest = registry.put_image("reg.test/app:1", &layers, &host());
    lab.pull(&registry, "reg.test/app:1").unwrap();
    // In the same registry no byte travels.
    lab.tag("reg.test/app:1", "reg.test/copy:2");
    registry.log();
    let pushed = lab.push(&registry, "reg.test/copy:2").unwrap();
    assert_eq!((pushed.digest.digest(), pushed.size), (&manifest.digest, manifest.size));
    let log = registry.log();
    assert_eq!(log.iter().filter(|line| line.starts_with("mount ")).count(), 2);
    assert_eq!(log.iter().filter(|line| line.starts_with("put ")).count(), 1, "the configuration");
    // To another registry all of it.
    lab.tag("reg.test/app:1", "other.test/app:1");
    assert_eq!(lab.push(&second, "other.test/app:1").unwrap().digest.digest(), &manifest.digest);
    assert_eq!(puts(&second), 3);
    assert_eq!(lab.push(&second, "other.test/app:1").unwrap().digest.digest(), &manifest.digest);
    assert_eq!(puts(&second), 0);
    let names = lab.images.get("other.test/app:1").unwrap().references;
    assert!(names.contains(&Reference::parse(&format!("other.test/app@{}", manifest.digest)).unwrap()));
    let other = Lab::new();
    other.pull(&second, "other.test/app:1").unwrap();
    assert_eq!(other.read("other.test/app:1", "b"), "top");
}

#[test]
fn an_image_made_here_is_compressed_once_and_only_what_changed_travels() {
    let (lab, registry) = (Lab::new(), Registry::default());
    lab.import("reg.test/made:1", &layer("a", "base"));
    let first = lab.push(&registry, "reg.test/made:1").unwrap();
    assert_eq!(puts(&registry), 2);
    assert_eq!(lab.push(&registry, "reg.test/made:1").unwrap(), first);
    assert_eq!(puts(&registry), 0);
    // What was pushed is not kept compressed, and is mounted all the same.
    lab.tag("reg.test/made:1", "reg.test/other:1");
    assert_eq!(lab.push(&registry, "reg.test/other:1").unwrap(), first);
    assert_eq!(puts(&registry), 1, "the configuration");
    let other = Lab::new();
    let pulled = other.pull(&registry, "reg.test/made:1").unwrap();
    assert_eq!(pulled.digest, first.digest);
    assert_eq!(other.read("reg.test/made:1", "a"), "base");
    assert_eq!(pulled.id, lab.images.get("reg.test/made:1").unwrap().id);
}

#[test]
fn a_changed_layer_is_not_pushed() {
    let (lab, registry) = (Lab::new(), Registry::default());
    lab.import("reg.test/made:1", &layer("a", "base"));
    let chain = lab.images.get("reg.test/made:1").unwrap().chain[0].clone();
    std::fs::write(lab.tree(&chain).join("a"), "evil").unwrap();
    let error = lab.push(&registry, "reg.test/made:1").unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    assert_eq!(registry.contents.lock().unwrap().blobs.len(), 0);
}

#[test]
fn an_index_that_is_here_whole_goes_out_whole() {
    let (lab, registry, second) = (Lab::new(), Registry::default(), Registry::default());
    let mut manifests = Vec::new();
    for platform in ["linux/amd64", "linux/arm64"] {
        let platform: Platform = platform.parse().unwrap();
        let mut descriptor =
            registry.put_image("reg.test/app:x", &[layer("a", &platform.to_string())], &platform);
        descriptor.platform = Some(platform);
        manifests.push(descriptor);
    }
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests});
    let index = registry.put_manifest("reg.test/app:1", media_type::OCI_INDEX, &index);
    lab.pull(&registry, "reg.test/app:1").unwrap();
    lab.tag("reg.test/app:1", "other.test/app:1");
    let one = lab.push(&second, "other.test/app:1").unwrap();
    assert!(manifests.iter().any(|manifest| manifest.digest == *one.digest.digest()));
    let options = PullOptions { platform: None, all_platforms: true };
    lab.pull_with(&registry, "reg.test/app:1", &options, &Cancel::new()).unwrap();
    let all = lab.push(&second, "other.test/app:1").unwrap();
    assert_eq!(all.digest.digest(), &index.digest);
    let other = Lab::new();
    let pulled = other.pull_with(&second, "other.test/app:1", &options, &Cancel::new()).unwrap();
    assert_eq!(pulled.digest, all.digest);
    assert_eq!(other.images.summaries().unwrap().len(), 2);
}
