//! What every driver must do ([`conformance`]), and what is overlayfs's own.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use ponton_oci::digest::{ChainId, Digest};

use super::*;

fn chain(name: &str) -> ChainId {
    ChainId::from(Digest::sha256_of(name.as_bytes()))
}

fn open(root: &Path) -> Overlay {
    Overlay::open(&root.join("overlay"), Trash::open(&root.join("tmp")).unwrap()).unwrap()
}

fn fill(driver: &dyn Snapshotter, name: &str, parent: Option<&str>) -> FilledLayer {
    let writer = driver.begin_layer().unwrap();
    fs::write(writer.directory().join("fs").join(name), name).unwrap();
    FilledLayer { writer, chain: chain(name), parent: parent.map(chain) }
}

fn add_layer(driver: &dyn Snapshotter, name: &str, parent: Option<&str>) {
    driver.commit_layers(vec![fill(driver, name, parent)]).unwrap();
}

/// Numbered directories of the overlay driver.
fn directories(root: &Path) -> usize {
    let names = fs::read_dir(root.join("overlay")).unwrap();
    names.filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().parse::<u64>().is_ok()).count()
}

/// Two drivers on the same disk: the second is what a later process sees.
fn conformance(reopen: &dyn Fn() -> Box<dyn Snapshotter>) {
    let driver = reopen();
    drop(driver.begin_layer().unwrap());
    let (one, two) = (fill(&*driver, "one", None), fill(&*driver, "two", Some("one")));
    assert!(!driver.has_layer(&chain("one")));
    driver.commit_layers(vec![one, two]).unwrap();
    let again = fill(&*driver, "one", None);
    fs::write(again.writer.directory().join("fs").join("new"), "").unwrap();
    driver.commit_layers(vec![again]).unwrap();
    let directory = driver.layer_directory(&chain("one")).unwrap();
    assert!(!directory.join("fs/new").exists(), "the first of two equal layers stays");
    assert_eq!(fs::read(directory.join("fs/one")).unwrap(), b"one");
    let orphan = fill(&*driver, "orphan", Some("missing"));
    assert!(matches!(driver.commit_layers(vec![orphan]), Err(Error::LayerNotFound(_))));

    let mounts = driver.prepare("c1", Some(&chain("two"))).unwrap();
    assert!(matches!(driver.prepare("c1", None), Err(Error::SnapshotExists(_))));
    assert!(matches!(driver.prepare("c2", Some(&chain("no"))), Err(Error::LayerNotFound(_))));
    for key in ["", ".", "..", "a/b", "../x"] {
        assert!(matches!(driver.prepare(key, None), Err(Error::InvalidKey(_))), "{key}");
    }
    assert!(matches!(driver.remove_layer(&chain("one")), Err(Error::LayerInUse(_))));
    assert!(matches!(driver.remove_layer(&chain("two")), Err(Error::LayerInUse(_))));
    drop(driver);

    let driver = reopen();
    driver.recover().unwrap();
    assert_eq!(driver.mounts("c1").unwrap(), mounts);
    assert_eq!(driver.snapshots(), ["c1"]);
    assert_eq!(driver.layers().len(), 2);
    assert_eq!(driver.usage("c1").unwrap(), Usage::default());
    driver.view("v1", &chain("two")).unwrap();
    driver.remove("v1").unwrap();
    driver.remove("c1").unwrap();
    assert!(matches!(driver.remove("c1"), Err(Error::SnapshotNotFound(_))));
    assert!(matches!(driver.mounts("c1"), Err(Error::SnapshotNotFound(_))));
    driver.remove_layer(&chain("two")).unwrap();
    driver.remove_layer(&chain("one")).unwrap();
    assert!(matches!(driver.remove_layer(&chain("one")), Err(Error::LayerNotFound(_))));
    drop(driver);
    let driver = reopen();
    assert!(driver.layers().is_empty() && driver.snapshots().is_empty());
}

#[test]
fn overlay_conforms() {
    let root = tempfile::tempdir().unwrap();
    conformance(&|| Box::new(open(root.path())));
    assert_eq!(directories(root.path()), 0);
}

#[test]
fn mounts_name_the_layers_nearest_first() {
    let root = tempfile::tempdir().unwrap();
    let driver = open(root.path());
    add_layer(&driver, "one", None);
    add_layer(&driver, "two", Some("one"));
    let tree = |name: &str| driver.layer_directory(&chain(name)).unwrap().join("fs").display().to_string();
    let mounts = driver.prepare("c1", Some(&chain("two"))).unwrap();
    assert_eq!(mounts[0].r#type, "overlay");
    assert_eq!(mounts[0].options[0], format!("lowerdir={}:{}", tree("two"), tree("one")));
    assert!(mounts[0].options[1].starts_with("upperdir=") && mounts[0].options[2].starts_with("workdir="));
    let view = driver.view("v1", &chain("one")).unwrap();
    assert_eq!(
        (view[0].r#type.as_str(), &view[0].source, &view[0].options[1][..]),
        ("bind", &tree("one"), "ro")
    );
    let empty = driver.prepare("c2", None).unwrap();
    assert_eq!((empty[0].r#type.as_str(), &empty[0].options[1][..]), ("bind", "rw"));
}

#[test]
fn recovery_removes_what_a_kill_left() {
    let root = tempfile::tempdir().unwrap();
    let driver = open(root.path());
    add_layer(&driver, "one", None);
    driver.prepare("c1", Some(&chain("one"))).unwrap();
    // Killed while a layer was filled, before a link was made, and after its directory went.
    std::mem::forget(fill(&driver, "two", None));
    fs::create_dir_all(root.path().join("overlay/77/fs")).unwrap();
    std::os::unix::fs::symlink("../78", root.path().join("overlay/keys/c2")).unwrap();
    fs::create_dir_all(root.path().join("tmp/trash-5/x")).unwrap();
    drop(driver);

    let driver = open(root.path());
    driver.recover().unwrap();
    assert_eq!(driver.snapshots(), ["c1"]);
    assert_eq!(directories(root.path()), 2);
    assert!(!root.path().join("overlay/keys/c2").is_symlink());
    driver.prepare("c2", None).unwrap();
    wait_until_empty(&root.path().join("tmp"));
}

/// Deleting goes on in the background; nothing else can be waited for.
fn wait_until_empty(directory: &Path) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while fs::read_dir(directory).unwrap().next().is_some() {
        assert!(Instant::now() < deadline, "{} is not emptied", directory.display());
        std::thread::yield_now();
    }
}
