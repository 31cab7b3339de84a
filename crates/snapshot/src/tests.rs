//! What every driver must do ([`conformance`]), what it must do with what another one made, and what
//! is a driver's own.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ponton_archive::header::{Header, Kind};
use ponton_archive::writer::Writer;
use ponton_oci::digest::{ChainId, Digest};
use ponton_sys::mount::MOUNT_ATTR_RDONLY;

use super::*;

fn chain(name: &str) -> ChainId {
    ChainId::from(Digest::sha256_of(name.as_bytes()))
}

fn open(root: &Path, driver: Driver) -> Snapshots {
    let trash = Trash::open(&root.join("tmp")).unwrap();
    Snapshots::open(&root.join("snapshots"), Some(driver), trash).unwrap()
}

/// A tar of (path, contents): a directory where the path ends in a slash, a hard link where the
/// contents begin with `=`.
fn tar(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (path, contents) in entries {
        let header = Header { path: (*path).into(), mode: 0o755, ..Header::default() };
        if path.ends_with('/') {
            writer.header(&Header { kind: Kind::Directory, ..header }).unwrap();
        } else if let Some(target) = contents.strip_prefix('=') {
            writer.header(&Header { kind: Kind::HardLink, link: target.into(), ..header }).unwrap();
        } else {
            writer.file(&header, contents.as_bytes()).unwrap();
        }
    }
    writer.finish().unwrap()
}

const BASE: &[(&str, &str)] = &[
    ("etc/", ""),
    ("etc/passwd", "root"),
    ("etc/shadow", "secret"),
    ("bin/tool", "program"),
    ("bin/alias", "=bin/tool"),
    ("old/a", "a"),
    ("old/sub/b", "b"),
    ("gone/x", "x"),
];
const ABOVE: &[(&str, &str)] = &[
    ("etc/passwd", "root and others"),
    ("etc/.wh.shadow", ""),
    ("old/", ""),
    ("old/.wh..wh..opq", ""),
    ("old/new", "n"),
    (".wh.gone", ""),
];
/// What both together show.
const SHOWN: &[(&str, &str)] =
    &[("bin/alias", "program"), ("bin/tool", "program"), ("etc/passwd", "root and others"), ("old/new", "n")];

fn fill(driver: &dyn Snapshotter, name: &str, parent: Option<&str>, entries: &[(&str, &str)]) -> FilledLayer {
    let writer = driver.begin_layer().unwrap();
    writer.unpack(tar(entries).as_slice()).unwrap();
    FilledLayer { writer, chain: chain(name), parent: parent.map(chain) }
}

fn add_layer(driver: &dyn Snapshotter, name: &str, parent: Option<&str>, entries: &[(&str, &str)]) {
    driver.commit_layers(vec![fill(driver, name, parent, entries)]).unwrap();
}

/// A snapshot as a container's root would be.
struct Root(OwnedFd);

impl Root {
    fn new(mounts: &[Mount]) -> Self {
        let [mount] = mounts else { panic!("{mounts:?}") };
        if mount.r#type != "bind" {
            return Self(ponton_sys::overlay::mount(&mount.source, &mount.options, 0).unwrap());
        }
        let source = std::ffi::CString::new(mount.source.as_str()).unwrap();
        let tree = ponton_sys::mount::clone_tree(rustix::fs::CWD, &source, true).unwrap();
        if mount.options.iter().any(|option| option == "ro") {
            let change = ponton_sys::mount::Change { set: MOUNT_ATTR_RDONLY, ..Default::default() };
            ponton_sys::mount::change(std::os::fd::AsFd::as_fd(&tree), change, true).unwrap();
        }
        Self(tree)
    }

    fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd())).join(path)
    }

    /// All files with their contents.
    fn files(&self) -> Vec<(String, String)> {
        let mut files = Vec::new();
        let mut directories = vec![String::new()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(self.path(&directory).join(".")).unwrap() {
                let entry = entry.unwrap();
                let path = format!("{directory}{}", entry.file_name().to_str().unwrap());
                if entry.file_type().unwrap().is_dir() {
                    directories.push(path + "/");
                } else {
                    let contents = fs::read_to_string(entry.path()).unwrap();
                    files.push((path, contents));
                }
            }
        }
        files.sort();
        files
    }
}

fn owned(files: &[(&str, &str)]) -> Vec<(String, String)> {
    files.iter().map(|(path, contents)| ((*path).to_owned(), (*contents).to_owned())).collect()
}

fn changes(driver: &dyn Snapshotter, key: &str) -> Vec<String> {
    let letter = |kind| match kind {
        ChangeKind::Modified => 'C',
        ChangeKind::Added => 'A',
        ChangeKind::Deleted => 'D',
    };
    let changes = driver.diff(key).unwrap();
    changes.iter().map(|change| format!("{} {}", letter(change.kind), change.path.display())).collect()
}

/// Numbered directories.
fn directories(root: &Path) -> usize {
    let names = fs::read_dir(root.join("snapshots")).unwrap();
    names.filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().parse::<u64>().is_ok()).count()
}

fn conformance(root: &Path, driver: Driver) {
    let reopen = || open(root, driver);
    layers(&reopen);
    snapshots(&reopen);
    let driver = reopen();
    for name in ["above", "base"] {
        driver.remove_layer(&chain(name)).unwrap();
        assert!(matches!(driver.remove_layer(&chain(name)), Err(Error::LayerNotFound(_))));
    }
    drop(driver);
    let driver = reopen();
    assert!(driver.layers().is_empty() && driver.snapshots().is_empty());
    assert_eq!(directories(root), 0);
}

/// Layers are there when they are committed, once, and give their tar back.
fn layers(reopen: &dyn Fn() -> Snapshots) {
    let driver = reopen();
    drop(driver.begin_layer().unwrap());
    let (base, above) = (fill(&driver, "base", None, BASE), fill(&driver, "above", Some("base"), ABOVE));
    assert!(!driver.has_layer(&chain("base")));
    let mut again = Vec::new();
    base.writer.write_tar(&mut again).unwrap();
    assert!(again == tar(BASE), "before it is committed");
    driver.commit_layers(vec![base, above]).unwrap();
    let other = fill(&driver, "base", None, &[("other", "")]);
    driver.commit_layers(vec![other]).unwrap();
    let orphan = fill(&driver, "orphan", Some("missing"), BASE);
    assert!(matches!(driver.commit_layers(vec![orphan]), Err(Error::LayerNotFound(_))));
    drop(driver);
    let driver = reopen();
    driver.recover().unwrap();
    assert_eq!(driver.layers().len(), 2);
    for (name, entries) in [("base", BASE), ("above", ABOVE)] {
        let mut again = Vec::new();
        driver.write_tar(&chain(name), &mut again).unwrap();
        assert!(again == tar(entries), "{name}");
    }
    assert!(driver.write_tar(&chain("none"), &mut Vec::new()).is_err());
    assert!(matches!(driver.layer_mounts(&chain("none")), Err(Error::LayerNotFound(_))));
}

/// Snapshots show their layers, and keep what is written.
fn snapshots(reopen: &dyn Fn() -> Snapshots) {
    let driver = reopen();
    let root = Root::new(&driver.prepare("c1", Some(&chain("above"))).unwrap());
    assert!(matches!(driver.prepare("c1", None), Err(Error::SnapshotExists(_))));
    assert!(matches!(driver.prepare("c2", Some(&chain("no"))), Err(Error::LayerNotFound(_))));
    for key in ["", ".", "..", "a/b", "../x"] {
        assert!(matches!(driver.prepare(key, None), Err(Error::InvalidKey(_))), "{key}");
    }
    assert!(matches!(driver.remove_layer(&chain("base")), Err(Error::LayerInUse(_))));
    assert!(matches!(driver.remove_layer(&chain("above")), Err(Error::LayerInUse(_))));
    assert_eq!(root.files(), owned(SHOWN));
    assert_eq!(fs::metadata(root.path(".")).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(changes(&driver, "c1"), Vec::<String>::new());
    change(&root);
    let expected = [
        "C /bin",
        "D /bin/alias",
        "C /etc",
        "C /etc/passwd",
        "A /made",
        "A /made/deep",
        "A /made/deep/file",
        "C /old",
        "D /old/new",
        "A /old/newer",
    ];
    assert_eq!(changes(&driver, "c1"), expected);
    drop((root, driver));

    let driver = reopen();
    driver.recover().unwrap();
    assert_eq!(driver.snapshots(), ["c1"]);
    let root = Root::new(&driver.mounts("c1").unwrap());
    let changed =
        [("bin/tool", "program"), ("etc/passwd", "changed"), ("made/deep/file", "12345"), ("old/newer", "")];
    assert_eq!(root.files(), owned(&changed));
    assert_eq!(changes(&driver, "c1"), expected);
    assert!(driver.usage("c1").unwrap().bytes >= 12);
    drop(root);
    what_changed_is_a_layer(&driver, &changed);

    let view = Root::new(&driver.view("v1", &chain("base")).unwrap());
    assert_eq!(fs::read(view.path("etc/shadow")).unwrap(), b"secret");
    let links = ["bin/tool", "bin/alias"].map(|path| fs::metadata(view.path(path)).unwrap().ino());
    assert_eq!(links[0], links[1]);
    assert!(fs::write(view.path("etc/shadow"), "").is_err());
    assert_eq!(Root::new(&driver.layer_mounts(&chain("above")).unwrap()).files(), owned(SHOWN));
    drop(view);
    let empty = Root::new(&driver.prepare("c2", None).unwrap());
    fs::write(empty.path("first"), "").unwrap();
    assert_eq!(changes(&driver, "c2"), ["A /first"]);
    drop(empty);
    for key in ["v1", "c2", "c1"] {
        driver.remove(key).unwrap();
        assert!(matches!(driver.remove(key), Err(Error::SnapshotNotFound(_))));
        assert!(matches!(driver.mounts(key), Err(Error::SnapshotNotFound(_))));
    }
}

fn change(root: &Root) {
    fs::create_dir_all(root.path("made/deep")).unwrap();
    fs::write(root.path("made/deep/file"), "12345").unwrap();
    fs::write(root.path("etc/passwd"), "changed").unwrap();
    fs::remove_file(root.path("bin/alias")).unwrap();
    // Made anew, it hides what is below.
    fs::remove_dir_all(root.path("old")).unwrap();
    fs::create_dir(root.path("old")).unwrap();
    fs::set_permissions(root.path("old"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(root.path("old/newer"), "").unwrap();
}

fn what_changed_is_a_layer(driver: &Snapshots, shown: &[(&str, &str)]) {
    let mut changes = Vec::new();
    driver.write_changes("c1", &mut changes).unwrap();
    let writer = driver.begin_layer().unwrap();
    writer.unpack(changes.as_slice()).unwrap();
    let (name, parent) = (chain("committed"), Some(chain("above")));
    driver.commit_layers(vec![FilledLayer { writer, chain: name.clone(), parent }]).unwrap();
    assert_eq!(Root::new(&driver.prepare("c3", Some(&name)).unwrap()).files(), owned(shown));
    driver.remove("c3").unwrap();
    driver.remove_layer(&name).unwrap();
}

/// A directory on a file system that a driver can use; none where the kernel or the tools for it are
/// missing.
struct Place {
    directory: tempfile::TempDir,
    is_mounted: bool,
}

impl Place {
    fn of(driver: Driver) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mut place = Self { directory, is_mounted: false };
        if driver == Driver::Btrfs && !place.mount("mkfs.btrfs", 160 << 20) {
            eprintln!("skipped: there is no btrfs here");
            return None;
        }
        if let Err(error) = driver.probe(place.path()) {
            assert_ne!(driver, Driver::Overlay);
            eprintln!("skipped: {error}: {:?}", std::error::Error::source(&error).map(ToString::to_string));
            return None;
        }
        Some(place)
    }

    /// Makes a file system in a file.
    fn mount(&mut self, make: &str, size: u64) -> bool {
        let image = self.directory.path().join("disk");
        fs::File::create(&image).unwrap().set_len(size).unwrap();
        fs::create_dir(self.directory.path().join("mounted")).unwrap();
        let run = |program: &str, arguments: &[&Path]| {
            Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
        };
        let mounted = self.directory.path().join("mounted");
        self.is_mounted = run(make, &[Path::new("-q"), &image])
            && run("mount", &[Path::new("-o"), Path::new("loop"), &image, &mounted]);
        self.is_mounted
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// What the driver may use.
    fn root(&self) -> PathBuf {
        if self.is_mounted { self.path().join("mounted") } else { self.path().to_owned() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_mounted {
            // What is deleted in the background may still be open.
            let flags = rustix::mount::UnmountFlags::DETACH;
            let _ = rustix::mount::unmount(self.root(), flags);
        }
    }
}

#[test]
fn overlay_conforms() {
    conformance(&Place::of(Driver::Overlay).unwrap().root(), Driver::Overlay);
}

#[test]
fn erofs_conforms() {
    if let Some(place) = Place::of(Driver::Erofs) {
        conformance(&place.root(), Driver::Erofs);
    }
}

#[test]
fn copy_conforms() {
    conformance(&Place::of(Driver::Copy).unwrap().root(), Driver::Copy);
}

#[test]
fn btrfs_conforms() {
    if let Some(place) = Place::of(Driver::Btrfs) {
        conformance(&place.root(), Driver::Btrfs);
        conformance(&place.root(), Driver::Copy);
    }
}

#[test]
fn each_driver_goes_on_with_what_another_made() {
    let Some(place) = Place::of(Driver::Btrfs).or_else(|| Place::of(Driver::Overlay)) else { return };
    let root = place.root();
    let usable: Vec<_> = Driver::ALL.into_iter().filter(|driver| driver.probe(&root).is_ok()).collect();
    assert!(usable.contains(&Driver::Overlay) && usable.contains(&Driver::Copy), "{usable:?}");
    for first in &usable {
        for second in &usable {
            let made = open(&root, *first);
            add_layer(&made, "base", None, BASE);
            fs::write(Root::new(&made.prepare("c1", Some(&chain("base"))).unwrap()).path("mine"), "1")
                .unwrap();
            drop(made);
            let driver = open(&root, *second);
            add_layer(&driver, "above", Some("base"), ABOVE);
            let what = format!("{first} then {second}");
            let root = Root::new(&driver.prepare("c2", Some(&chain("above"))).unwrap());
            assert_eq!(root.files(), owned(SHOWN), "{what}");
            assert_eq!(changes(&driver, "c1"), ["A /mine"], "{what}");
            let old = Root::new(&driver.mounts("c1").unwrap());
            assert_eq!(fs::read(old.path("etc/shadow")).unwrap(), b"secret", "{what}");
            drop((root, old));
            for key in ["c1", "c2"] {
                driver.remove(key).unwrap();
            }
            for name in ["above", "base"] {
                driver.remove_layer(&chain(name)).unwrap();
            }
        }
    }
}

#[test]
fn mounts_name_the_layers_nearest_first() {
    let root = tempfile::tempdir().unwrap();
    let driver = open(root.path(), Driver::Overlay);
    add_layer(&driver, "one", None, BASE);
    add_layer(&driver, "two", Some("one"), ABOVE);
    let mounts = driver.prepare("c1", Some(&chain("two"))).unwrap();
    assert_eq!(mounts[0].r#type, "overlay");
    let one = driver.layer_mounts(&chain("one")).unwrap();
    let lower = mounts[0].options[0].strip_prefix("lowerdir=").unwrap();
    assert!(lower.ends_with(&format!(":{}", one[0].source)), "{lower}");
    assert!(mounts[0].options[1].starts_with("upperdir=") && mounts[0].options[2].starts_with("workdir="));
    let view = driver.view("v1", &chain("one")).unwrap();
    assert_eq!(view, one);
    assert_eq!((view[0].r#type.as_str(), view[0].options[1].as_str()), ("bind", "ro"));
    let empty = driver.prepare("c2", None).unwrap();
    assert_eq!((empty[0].r#type.as_str(), empty[0].options[1].as_str()), ("bind", "rw"));
}

#[test]
fn what_was_mounted_volatile_is_mounted_again() {
    let Some(place) = Place::of(Driver::Overlay) else { return };
    let driver = open(&place.root(), Driver::Overlay);
    add_layer(&driver, "one", None, BASE);
    driver.prepare("c1", Some(&chain("one"))).unwrap();
    for _ in 0..3 {
        let mounts = driver.mounts("c1").unwrap();
        let mut options = mounts[0].options.clone();
        options.push("volatile".into());
        drop(ponton_sys::overlay::mount("overlay", &options, 0).unwrap());
    }
}

#[test]
fn an_image_is_one_file_and_is_mounted_once() {
    let Some(place) = Place::of(Driver::Erofs) else { return };
    let driver = open(&place.root(), Driver::Erofs);
    add_layer(&driver, "base", None, BASE);
    let mounts = [driver.prepare("c1", Some(&chain("base"))), driver.prepare("c2", Some(&chain("base")))];
    let [one, two] = mounts.map(|mounts| mounts.unwrap()[0].options[0].clone());
    assert_eq!(one, two, "their caches are shared");
    let (one, two) = (driver.mounts("c1").unwrap(), driver.mounts("c2").unwrap());
    let (one, two) = (Root::new(&one), Root::new(&two));
    // The overlays keep what they need when the process that mounted the layer is gone.
    drop(driver);
    assert_eq!(fs::read(one.path("etc/shadow")).unwrap(), fs::read(two.path("etc/shadow")).unwrap());
    let seen = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!seen.contains(&*place.root().to_string_lossy()) || place.is_mounted, "nobody sees them");
}

#[test]
fn drivers_have_names_and_say_why_they_cannot_be_used() {
    let root = tempfile::tempdir().unwrap();
    let driver = open(root.path(), Driver::Copy);
    assert_eq!(driver.name(), "copy");
    let status = |name: &str| driver.drivers().iter().find(|status| status.driver.name() == name).unwrap();
    assert!(status("copy").is_default && status("copy").unavailable.is_none());
    assert!(status("overlay2").unavailable.is_none() && !status("overlay2").is_default);
    assert_eq!("vfs".parse::<Driver>().unwrap(), Driver::Copy);
    assert!(matches!("zfs".parse::<Driver>(), Err(Error::UnknownDriver(_))));
    if status("btrfs").unavailable.is_some() {
        let trash = Trash::open(&root.path().join("tmp")).unwrap();
        let refused = Snapshots::open(&root.path().join("snapshots"), Some(Driver::Btrfs), trash);
        assert!(matches!(refused, Err(Error::Unavailable { driver: Driver::Btrfs, .. })));
    }
}

#[test]
fn recovery_removes_what_a_kill_left() {
    let root = tempfile::tempdir().unwrap();
    let driver = open(root.path(), Driver::Overlay);
    add_layer(&driver, "one", None, BASE);
    driver.prepare("c1", Some(&chain("one"))).unwrap();
    // Killed while a layer was filled, before a link was made, and after its directory went.
    std::mem::forget(fill(&driver, "two", None, BASE));
    fs::create_dir_all(root.path().join("snapshots/77/fs")).unwrap();
    std::os::unix::fs::symlink("../78", root.path().join("snapshots/keys/c2")).unwrap();
    fs::create_dir_all(root.path().join("tmp/trash-5/x")).unwrap();
    drop(driver);

    let driver = open(root.path(), Driver::Overlay);
    driver.recover().unwrap();
    assert_eq!(driver.snapshots(), ["c1"]);
    assert_eq!(directories(root.path()), 2);
    assert!(!root.path().join("snapshots/keys/c2").is_symlink());
    driver.prepare("c2", None).unwrap();
    wait_until_empty(&root.path().join("tmp"));
}

/// Deleting goes on in the background; nothing else can be waited for.
fn wait_until_empty(directory: &Path) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while fs::read_dir(directory).unwrap().next().is_some() {
        assert!(Instant::now() < deadline, "{} is not emptied", directory.display());
        std::thread::yield_now();
    }
}
