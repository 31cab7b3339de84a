//! Images to and from Debian's docker-registry.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::process::Command;
use std::sync::Arc;

use ponton_archive::header::{Header, Kind};
use ponton_archive::writer::Writer;
use ponton_image::{
    Cancel, Images, ImportOptions, PullOptions, Pulled, PushOptions, PushStatus, Pushed, Remote,
};
use ponton_oci::reference::Reference;
use ponton_registry::{Client, Config, Credentials, Proxy};
use ponton_snapshot::{Driver, Snapshots, Trash};
use ponton_store::Store;
use ponton_testkit::registry::Process;
use tokio::runtime::Runtime;

/// A docker-registry with a store of its own; both end with the value.
struct Registry {
    process: Process,
    runtime: Runtime,
    _folder: tempfile::TempDir,
}

impl Registry {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(Command::new("docker-registry"), folder.path(), "127.0.0.1:0", "");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Self { process, runtime: runtime.unwrap(), _folder: folder }
    }

    fn reference(&self, name: &str) -> Reference {
        Reference::parse(&format!("{}/{name}", self.process.address())).unwrap()
    }

    fn repository(&self, reference: &Reference) -> Arc<dyn Remote> {
        let client = Client::new(Config { proxy: Proxy::Direct, ..Config::default() }).unwrap();
        let repository = client.repository(reference, Credentials::Anonymous);
        Arc::new(repository.blocking(self.runtime.handle().clone()))
    }
}

struct Lab {
    images: Images,
    root: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let trash = Trash::open(&store.temporary()).unwrap();
        let driver = Some(Driver::Overlay).filter(|_| std::env::var_os("PONTON_BENCH_IMAGE").is_none());
        let snapshots = Snapshots::open(&root.path().join("snapshots/overlay"), driver, trash).unwrap();
        Self { images: Images::new(store, Arc::new(snapshots)), root }
    }

    fn import(&self, reference: &Reference, tar: &[u8]) {
        let options = ImportOptions {
            reference: Some(reference.clone()),
            created: "2024-05-06T07:08:09Z".to_owned(),
            ..ImportOptions::default()
        };
        self.images.import(&mut &*tar, &options).unwrap();
    }

    fn push(&self, registry: &Registry, reference: &Reference) -> (Pushed, Vec<PushStatus>) {
        let mut last = std::collections::BTreeMap::new();
        let to = registry.repository(reference);
        let mut tell = |news: ponton_image::PushProgress| drop(last.insert(news.id, news.status));
        let options = PushOptions::default();
        let pushed = self.images.push(reference, &*to, &options, 2, &Cancel::new(), &mut tell).unwrap();
        (pushed, last.into_values().collect())
    }

    fn pull(&self, registry: &Registry, reference: &Reference) -> Pulled {
        let from = registry.repository(reference);
        let options = PullOptions::default();
        self.images.pull(&from, reference, &options, 1, &Cancel::new(), &mut |_| {}).unwrap()
    }
}

/// A tar of some megabytes that gzip cannot make small.
fn tar(seed: u64) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    let mut state = seed | 1;
    for number in 0..40 {
        let mut data = vec![0; 100_000];
        for byte in &mut data {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state as u8;
        }
        let path = format!("file{number}").into_bytes();
        let header = Header { path, kind: Kind::Regular, mode: 0o644, ..Header::default() };
        writer.file(&header, &data).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn an_image_goes_there_and_back_with_the_same_digests() {
    let (registry, here, there) = (Registry::start(), Lab::new(), Lab::new());
    let made = registry.reference("some/made:1");
    here.import(&made, &tar(7));
    let (first, statuses) = here.push(&registry, &made);
    assert_eq!(statuses, [PushStatus::Pushed]);

    let pulled = there.pull(&registry, &made);
    assert_eq!((&pulled.digest, pulled.is_new), (&first.digest, true));
    assert_eq!(pulled.id, here.images.get(&made.to_string()).unwrap().id);
    assert!(!there.pull(&registry, &made).is_new);

    // Pushed on, it is the same, and nothing travels that the registry has.
    let (again, statuses) = there.push(&registry, &made);
    assert_eq!((again, statuses), (first.clone(), vec![PushStatus::Exists]));
    let other = registry.reference("other:1");
    there.images.tag(&made.to_string(), &other, 3).unwrap();
    let (moved, statuses) = there.push(&registry, &other);
    assert_eq!((moved, statuses), (first.clone(), vec![PushStatus::Mounted("some/made".to_owned())]));
    let second = Registry::start();
    let elsewhere = second.reference("x/y:1");
    there.images.tag(&made.to_string(), &elsewhere, 3).unwrap();
    assert_eq!(there.push(&second, &elsewhere), (first, vec![PushStatus::Pushed]));

    for lab in [&here, &there] {
        assert_eq!(lab.images.check(false, &mut |_| {}).unwrap().problems, []);
        assert!(fs::read_dir(lab.root.path().join("content/ingest")).unwrap().next().is_none());
    }
}

/// `PONTON_BENCH_IMAGE` names an image in a registry on loopback, which is pulled and pushed back.
#[test]
#[ignore = "measures: run it in release, with an image"]
fn a_real_image_is_pulled_and_pushed() {
    let registry = Registry::start();
    let name = std::env::var("PONTON_BENCH_IMAGE").unwrap();
    let reference = Reference::parse(&name).unwrap();
    let lab = Lab::new();
    let begin = std::time::Instant::now();
    let pulled = lab.pull(&registry, &reference);
    println!("pull: {:?}", begin.elapsed());
    let copy = registry.reference("copy:1");
    lab.images.tag(&name, &copy, 3).unwrap();
    let begin = std::time::Instant::now();
    let (pushed, _) = lab.push(&registry, &copy);
    println!("push: {:?}", begin.elapsed());
    assert!(pushed.digest == pulled.digest || !pulled.is_new);
    let begin = std::time::Instant::now();
    assert_eq!(lab.images.check(false, &mut |_| {}).unwrap().problems, []);
    println!("check: {:?}", begin.elapsed());
}
