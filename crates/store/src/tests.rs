use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use ponton_oci::{ChainId, DiffId, Digest, ImageConfig, ImageId, Reference, media_type};

use super::*;

fn open() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    (directory, store)
}

fn container(id: &str, name: &str, created_at: i64) -> ContainerRecord {
    ContainerRecord {
        id: id.to_owned(),
        name: name.to_owned(),
        created_at,
        config: "{}".to_owned(),
        state: "{}".to_owned(),
    }
}

/// An image with a configuration blob, and one layer blob for each name, stacked.
fn image(store: &Store, config: &str, layers: &[&str]) -> ImageRecord {
    let id = ImageId(store.content().put(config.as_bytes()).unwrap());
    let mut parent = None;
    let layers = layers
        .iter()
        .map(|layer| {
            let blob = store.content().put(layer.as_bytes()).unwrap();
            let diff_id = DiffId(blob.clone());
            let chain_id = ChainId::next(parent.as_ref(), &diff_id);
            LayerRecord {
                parent: parent.replace(chain_id.clone()),
                chain_id,
                diff_id,
                size: 10,
                tar_size: layer.len() as u64,
            }
        })
        .collect();
    ImageRecord { size: 10, layers, ..ImageRecord::new(id, &ImageConfig::default(), 1, 1) }
}

/// The blobs of an image's layers, which are kept as they are.
fn blobs(image: &ImageRecord) -> Vec<LayerBlob> {
    let blob = |layer: &LayerRecord| LayerBlob {
        diff_id: layer.diff_id.clone(),
        digest: layer.diff_id.0.clone(),
        media_type: media_type::OCI_LAYER.to_owned(),
        size: layer.tar_size,
        kept: true,
        source: Some("example.org/some".to_owned()),
    };
    image.layers.iter().map(blob).collect()
}

fn put(store: &Store, image: &ImageRecord, names: &[Reference], now: i64) {
    store.images().put(image, &blobs(image), names, now).unwrap();
}

fn name(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

#[test]
fn a_second_daemon_is_refused_and_told_who_is_first() {
    let (directory, store) = open();
    match Store::open(directory.path()) {
        Err(Error::Locked { pid, .. }) => assert_eq!(pid, std::process::id().to_string()),
        other => panic!("{other:?}"),
    }
    drop(store);
    Store::open(directory.path()).unwrap();
}

#[test]
fn another_layout_is_refused() {
    let (directory, store) = open();
    drop(store);
    fs::write(directory.path().join("version"), "3\n").unwrap();
    assert!(matches!(Store::open(directory.path()), Err(Error::Version { .. })));
}

#[test]
fn directories_are_private() {
    let (directory, store) = open();
    drop(store);
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let _store = Store::open(directory.path()).unwrap();
    for path in ["", "tmp", "content", "content/blobs/sha256", "content/ingest"] {
        let mode = fs::metadata(directory.path().join(path)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{path}");
    }
}

#[test]
fn blobs_are_invisible_until_committed() {
    let (_directory, store) = open();
    let content = store.content();
    let digest = Digest::sha256_of(b"hello");
    let mut ingest = content.writer().unwrap();
    ingest.write_all(b"hel").unwrap();
    ingest.write_all(b"lo").unwrap();
    assert!(!content.has(&digest));
    let sealed = ingest.seal(Some((&digest, 5))).unwrap();
    assert_eq!(std::io::read_to_string(sealed.reader().unwrap()).unwrap(), "hello");
    assert!(!content.has(&digest));
    content.commit(vec![sealed]).unwrap();
    assert_eq!(content.read(&digest).unwrap(), b"hello");
    assert_eq!(content.list().unwrap(), [(digest.clone(), 5)]);
    assert_eq!(content.put(b"hello").unwrap(), digest);
    content.remove(&digest).unwrap();
    content.remove(&digest).unwrap();
    assert!(matches!(content.reader(&digest), Err(Error::NotFound { .. })));
}

#[test]
fn several_blobs_are_committed_together() {
    let (_directory, store) = open();
    let content = store.content();
    let mut sha512 = content.writer_with(ponton_oci::digest::Algorithm::Sha512).unwrap();
    sha512.write_all(b"a").unwrap();
    let mut sha256 = content.writer().unwrap();
    sha256.write_all(b"b").unwrap();
    let blobs = vec![sha512.seal(None).unwrap(), sha256.seal(None).unwrap()];
    let digests: Vec<Digest> = blobs.iter().map(|blob| blob.digest().clone()).collect();
    content.commit(blobs).unwrap();
    assert!(digests.iter().all(|digest| content.has(digest)));
}

#[test]
fn what_was_not_announced_is_refused_and_leaves_nothing() {
    let (directory, store) = open();
    let content = store.content();
    let other = Digest::sha256_of(b"other");
    let write = |bytes: &[u8]| {
        let mut ingest = content.writer().unwrap();
        ingest.write_all(bytes).unwrap();
        ingest
    };
    let digest = Digest::sha256_of(b"hello");
    let short = write(b"hel").commit(Some((&digest, 5)));
    assert!(matches!(short, Err(Error::SizeMismatch { actual: 3, .. })));
    let wrong = write(b"hello").commit(Some((&other, 5)));
    assert!(matches!(wrong, Err(Error::DigestMismatch { .. })));
    let mut limited = content.writer().unwrap().with_size_max(4);
    let error = limited.write_all(b"hello").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::FileTooLarge);
    drop(limited);
    assert_eq!(content.list().unwrap(), []);
    assert!(fs::read_dir(directory.path().join("content/ingest")).unwrap().next().is_none());
}

#[test]
fn containers_are_kept_over_a_restart() {
    let (directory, store) = open();
    let containers = store.containers();
    containers.insert(&container("1", "one", 1)).unwrap();
    containers.insert(&container("2", "two", 2)).unwrap();
    match containers.insert(&container("3", "one", 3)) {
        Err(Error::NameInUse { name, holder }) => assert_eq!((&*name, &*holder), ("one", "1")),
        other => panic!("{other:?}"),
    }
    assert!(matches!(containers.rename("2", "one"), Err(Error::NameInUse { .. })));
    containers.rename("2", "second").unwrap();
    containers.update_state("2", "{\"a\":1}").unwrap();
    containers.update_config("2", "{\"b\":1}").unwrap();
    assert!(matches!(containers.update_state("3", "{}"), Err(Error::NotFound { .. })));
    drop(store);

    let store = Store::open(directory.path()).unwrap();
    let containers = store.containers();
    let two = ContainerRecord {
        config: "{\"b\":1}".to_owned(),
        state: "{\"a\":1}".to_owned(),
        ..container("2", "second", 2)
    };
    assert_eq!(containers.list().unwrap(), [two.clone(), container("1", "one", 1)]);
    assert_eq!(containers.get("2").unwrap(), Some(two));
    assert!(containers.remove("2").unwrap());
    assert!(!containers.remove("2").unwrap());
    assert_eq!(containers.get("2").unwrap(), None);
}

#[test]
fn volumes_are_kept_once() {
    let (_directory, store) = open();
    let volumes = store.volumes();
    let data = VolumeRecord {
        name: "data".to_owned(),
        driver: "local".to_owned(),
        created_at: 1,
        anonymous: false,
        record: "{}".to_owned(),
    };
    assert!(volumes.insert(&data).unwrap());
    assert!(!volumes.insert(&VolumeRecord { created_at: 2, ..data.clone() }).unwrap());
    assert_eq!(volumes.get("data").unwrap(), Some(data.clone()));
    assert_eq!(volumes.list().unwrap(), [data]);
    assert!(volumes.remove("data").unwrap());
    assert!(!volumes.remove("data").unwrap());
}

#[test]
fn images_are_found_as_users_name_them() {
    let (_directory, store) = open();
    let images = store.images();
    let (a, b) = (image(&store, "a", &["1", "2"]), image(&store, "b", &["1", "3"]));
    put(&store, &a, &[name("busybox")], 5);
    put(&store, &b, &[name("me/app:2")], 6);
    for text in [
        "busybox",
        "busybox:latest",
        "docker.io/library/busybox",
        &a.id.to_string(),
        a.id.hex(),
        &a.id.hex()[..12],
        &format!("busybox@{}", a.id),
    ] {
        assert_eq!(images.resolve(text).unwrap(), a.id, "{text}");
    }
    for text in ["nosuch", "me/app", "Busybox", "", &format!("me/app@{}", a.id)] {
        assert!(matches!(images.resolve(text), Err(Error::NotFound { .. })), "{text}");
    }
    assert_eq!(images.get(&a.id).unwrap(), Some(a.clone()));
    assert_eq!(images.list().unwrap().len(), 2);
    assert_eq!(images.tag(&name("busybox"), &b.id, 9).unwrap(), Some(a.id.clone()));
    assert_eq!(images.resolve("busybox").unwrap(), b.id);
    assert_eq!(images.references_of(&b.id).unwrap(), [name("busybox"), name("me/app:2")]);
    assert_eq!(images.tagged_at(&b.id).unwrap(), Some(9));
    assert_eq!(images.tagged_at(&a.id).unwrap(), None);
    assert_eq!(images.untag(&name("busybox")).unwrap(), Some(b.id.clone()));
    assert_eq!(images.untag(&name("busybox")).unwrap(), None);
    let missing = ImageId(Digest::sha256_of(b"missing"));
    assert!(matches!(images.tag(&name("x"), &missing, 1), Err(Error::NotFound { .. })));
}

#[test]
fn an_ambiguous_beginning_of_an_id_is_refused() {
    let (_directory, store) = open();
    let mut first_digits = std::collections::BTreeMap::new();
    for number in 0..17 {
        let image = image(&store, &number.to_string(), &[]);
        put(&store, &image, &[], 1);
        *first_digits.entry(image.id.hex()[..1].to_owned()).or_insert(0) += 1;
    }
    for (digit, count) in first_digits {
        let found = store.images().resolve(&digit);
        assert_eq!(matches!(found, Err(Error::Ambiguous { .. })), count > 1, "{digit}");
    }
}

#[test]
fn removing_an_image_leaves_what_others_have() {
    let (_directory, store) = open();
    let images = store.images();
    let (a, b) = (image(&store, "a", &["1", "2"]), image(&store, "b", &["1", "3"]));
    put(&store, &a, &[name("a"), name("a:2")], 5);
    put(&store, &b, &[name("b")], 6);
    let removed = images.remove(&a.id).unwrap();
    assert_eq!(removed.references, [name("a:2"), name("a")]);
    assert_eq!(removed.layers, [a.layers[1].clone()]);
    assert_eq!(removed.blobs, [a.id.0.clone(), Digest::sha256_of(b"2")]);
    assert!(matches!(images.remove(&a.id), Err(Error::NotFound { .. })));
    assert_eq!(images.get(&b.id).unwrap(), Some(b.clone()));
    let removed = images.remove(&b.id).unwrap();
    assert_eq!(removed.layers, [b.layers[1].clone(), b.layers[0].clone()]);
    assert_eq!(images.layers().unwrap(), []);
    assert_eq!(images.blobs().unwrap().len(), 0);
}

#[test]
fn garbage_is_what_no_record_names_and_no_lease_holds() {
    let (_directory, store) = open();
    let a = image(&store, "a", &["1"]);
    put(&store, &a, &[], 1);
    let orphan = store.content().put(b"orphan").unwrap();
    let held = store.content().put(b"held").unwrap();
    let lease = store.lease();
    lease.hold(&held);
    let second = store.lease();
    second.hold(&held);
    assert_eq!(store.collect_garbage().unwrap(), 6);
    assert!(!store.content().has(&orphan));
    drop(second);
    assert!(store.is_held(&held));
    assert_eq!(store.remove_unnamed(&[held.clone(), a.id.0.clone()]).unwrap(), 0);
    drop(lease);
    assert_eq!(store.remove_unnamed(&[held.clone(), a.id.0.clone()]).unwrap(), 4);
    assert_eq!(store.content().list().unwrap().len(), 2);
}

#[test]
fn a_name_by_digest_keeps_its_manifest() {
    let (_directory, store) = open();
    let a = image(&store, "a", &["1"]);
    let index = store.content().put(b"index").unwrap();
    let by_digest = name("a").with_digest(index.clone());
    put(&store, &a, &[name("a"), by_digest.clone()], 1);
    assert_eq!(store.collect_garbage().unwrap(), 0);
    assert_eq!(store.images().resolve(&by_digest.to_string()).unwrap(), a.id);
    store.images().untag(&by_digest).unwrap();
    assert_eq!(store.collect_garbage().unwrap(), 5);
    assert!(!store.content().has(&index));
}

#[test]
fn what_a_pull_and_a_push_tell_of_an_image_is_kept() {
    let (_directory, store) = open();
    let images = store.images();
    let mut a = image(&store, "a", &["1"]);
    put(&store, &a, &[], 5);
    assert_eq!(images.get(&a.id).unwrap().unwrap().used_at, 1);
    a.manifest = Some(store.content().put(b"manifest").unwrap().into());
    a.used_at = 7;
    let mut forms = blobs(&a);
    forms[0].kept = false;
    images.put(&a, &forms, &[], 7).unwrap();
    assert_eq!(images.get(&a.id).unwrap(), Some(a.clone()));
    let known = images.blobs_of(&a.layers[0].diff_id).unwrap();
    assert!(known[0].kept, "what was kept stays kept");
    forms[0].source = Some("example.org/other".to_owned());
    let name = name("example.org/other").with_digest(a.manifest.clone().unwrap().into());
    images.pushed(&a.id, a.manifest.as_ref().unwrap(), &forms, &name, 9).unwrap();
    images.touch(&[(a.id.clone(), 8)]).unwrap();
    assert_eq!(images.get(&a.id).unwrap().unwrap().used_at, 9);
    assert_eq!(images.sources_of(&forms[0].digest).unwrap(), ["example.org/other", "example.org/some"]);
    assert_eq!(images.references_of(&a.id).unwrap(), [name]);
    images.forget_content(&forms[0].digest).unwrap();
    assert_eq!(store.collect_garbage().unwrap(), 1);
    images.remove(&a.id).unwrap();
    assert!(
        images.layer_blobs().unwrap().is_empty() && images.sources_of(&forms[0].digest).unwrap().is_empty()
    );
}

/// The schema of layout 1, as its daemons made it.
const SCHEMA_1: &str = "
CREATE TABLE images (id TEXT PRIMARY KEY, manifest TEXT, size INTEGER NOT NULL, created_at INTEGER NOT NULL)
    STRICT, WITHOUT ROWID;
CREATE TABLE image_references (name TEXT PRIMARY KEY,
    image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE, tagged_at INTEGER NOT NULL)
    STRICT, WITHOUT ROWID;
CREATE INDEX image_references_by_image ON image_references(image);
CREATE TABLE layers (chain_id TEXT PRIMARY KEY, diff_id TEXT NOT NULL, parent TEXT REFERENCES layers(chain_id),
    blob TEXT, media_type TEXT NOT NULL, blob_size INTEGER NOT NULL, size INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX layers_by_parent ON layers(parent);
CREATE INDEX layers_by_blob ON layers(blob);
CREATE TABLE image_layers (image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE, position INTEGER NOT NULL,
    chain_id TEXT NOT NULL REFERENCES layers(chain_id), PRIMARY KEY (image, position)) STRICT, WITHOUT ROWID;
CREATE INDEX image_layers_by_chain_id ON image_layers(chain_id);
CREATE TABLE containers (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, created_at INTEGER NOT NULL,
    config TEXT NOT NULL, state TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE volumes (name TEXT PRIMARY KEY, driver TEXT NOT NULL, created_at INTEGER NOT NULL,
    anonymous INTEGER NOT NULL, record TEXT NOT NULL) STRICT, WITHOUT ROWID;
PRAGMA user_version = 1;
";

#[test]
fn a_store_of_layout_1_is_read_on() {
    let (directory, store) = open();
    let config = r#"{"architecture":"arm64","os":"linux","config":{"Labels":{"a":"b"}}}"#;
    let id = store.content().put(config.as_bytes()).unwrap();
    drop(store);
    for file in ["meta.db", "meta.db-wal", "meta.db-shm"] {
        let _ = fs::remove_file(directory.path().join(file));
    }
    fs::write(directory.path().join("version"), "1\n").unwrap();
    let layer = Digest::sha256_of(b"layer");
    let old = rusqlite::Connection::open(directory.path().join("meta.db")).unwrap();
    old.execute_batch(SCHEMA_1).unwrap();
    old.execute_batch(&format!(
        "INSERT INTO images VALUES ('{id}', NULL, 12, 3);
         INSERT INTO image_references VALUES ('docker.io/library/a:latest', '{id}', 5);
         INSERT INTO layers VALUES ('{layer}', '{layer}', NULL, NULL, 'x', 2048, 12);
         INSERT INTO image_layers VALUES ('{id}', 0, '{layer}');"
    ))
    .unwrap();
    drop(old);

    let store = Store::open(directory.path()).unwrap();
    let image = store.images().get(&store.images().resolve("a").unwrap()).unwrap().unwrap();
    assert_eq!((image.size, image.created_at, image.used_at), (12, 3, 5));
    assert_eq!(image.platform.to_string(), "linux/arm64");
    assert_eq!(image.labels["a"], "b");
    assert_eq!((image.layers[0].size, image.layers[0].tar_size), (12, 2048));
    assert_eq!(store.check_database().unwrap(), Vec::<String>::new());
    // New images are written beside the old ones.
    let other = super::tests::image(&store, "other", &["1"]);
    put(&store, &other, &[name("other")], 1);
    assert_eq!(store.images().list().unwrap().len(), 2);
    assert_eq!(fs::read_to_string(directory.path().join("version")).unwrap(), "2\n");
}

#[test]
fn many_changes_keep_the_journal_short() {
    let (directory, store) = open();
    store.containers().insert(&container("1", "one", 1)).unwrap();
    let mut longest = 0;
    let is_cut = (0..200_000).any(|number| {
        let state = format!("{number:04000}");
        store.containers().update_state("1", &state).unwrap();
        let length = fs::metadata(directory.path().join("meta.db-wal")).unwrap().len();
        longest = longest.max(length);
        length < longest
    });
    assert!(is_cut, "{longest}");
}
