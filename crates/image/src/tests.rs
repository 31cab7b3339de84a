//! Whole ways of images: in, out, and gone. They need root, for owners and devices.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use ponton_archive::header::{Header, Kind};
use ponton_archive::writer::Writer;
use ponton_snapshot::{Driver, Snapshots, Trash};
use ponton_store::Store;

use super::*;

mod commit;
mod exchange;
mod explore;
mod hostile;

pub(crate) const CREATED: &str = "2024-05-06T07:08:09Z";

pub(crate) struct Lab {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) store: Store,
    pub(crate) images: Images,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("data");
        let store = Store::open(&root).unwrap();
        let trash = Trash::open(&store.temporary()).unwrap();
        let overlay = Snapshots::open(&root.join("snapshots/overlay"), Some(Driver::Overlay), trash).unwrap();
        let images = Images::new(store.clone(), Arc::new(overlay));
        Self { directory, store, images }
    }

    pub(crate) fn import(&self, name: &str, tar: &[u8]) -> ImageId {
        let options = ImportOptions {
            reference: Some(Reference::parse(name).unwrap()),
            changes: vec!["CMD [\"sh\"]".to_owned()],
            created: CREATED.to_owned(),
            ..ImportOptions::default()
        };
        self.images.import(&mut &tar[..], &options).unwrap()
    }

    pub(crate) fn load(&self, tar: &[u8]) -> Result<Vec<LoadedImage>> {
        self.images.load(&mut &tar[..], &LoadOptions::default(), &mut |_| {})
    }

    pub(crate) fn save(&self, names: &[&str]) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut out = Vec::new();
        self.images.save(&names, &SaveOptions::default(), &mut out).unwrap();
        out
    }

    pub(crate) fn tree(&self, chain: &ChainId) -> PathBuf {
        let mount = &self.images.snapshotter.layer_mounts(chain).unwrap()[0];
        let layers = mount.options[0].strip_prefix("lowerdir=").unwrap_or(&mount.source);
        layers.split(':').next().unwrap().into()
    }

    /// Numbered directories of the snapshotter.
    pub(crate) fn directories(&self) -> usize {
        std::fs::read_dir(self.directory.path().join("data/snapshots/overlay"))
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().parse::<u64>().is_ok())
            .count()
    }
}

/// A tar from (name, kind, contents or link target).
pub(crate) fn tar(entries: &[(&str, Kind, &str)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (path, kind, text) in entries {
        let mut header =
            Header { path: path.as_bytes().to_vec(), kind: *kind, mode: 0o755, ..Header::default() };
        match kind {
            Kind::Regular => writer.file(&header, text.as_bytes()).unwrap(),
            Kind::Symlink | Kind::HardLink => {
                header.link = text.as_bytes().to_vec();
                writer.header(&header).unwrap();
            }
            _ => writer.header(&header).unwrap(),
        }
    }
    writer.finish().unwrap()
}

fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut data = Vec::new();
        entry.read_to_end(&mut data).unwrap();
        files.insert(name, data);
    }
    files
}

/// A docker-archive as dockerd 20.10 saves it, of layers given as tars.
fn docker_archive(layers: &[Vec<u8>], name: &str) -> Vec<u8> {
    let diff_ids: Vec<String> =
        layers.iter().map(|layer| ponton_oci::Digest::sha256_of(layer).to_string()).collect();
    let config = serde_json::json!({
        "architecture": Platform::host().architecture, "os": "linux", "created": CREATED, "extra": {"kept": 1},
        "config": {"Cmd": ["sh"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": diff_ids.iter().map(|_| serde_json::json!({"created_by": "x"})).collect::<Vec<_>>(),
    })
    .to_string();
    let id = ponton_oci::Digest::sha256_of(config.as_bytes());
    let names: Vec<String> = (0..layers.len()).map(|number| format!("layer{number}/layer.tar")).collect();
    let manifest = serde_json::json!([
        {"Config": format!("{}.json", id.hex()), "RepoTags": [name], "Layers": names}
    ]);
    let mut writer = Writer::new(Vec::new());
    let mut add = |path: &str, data: &[u8]| {
        let header = Header { path: path.as_bytes().to_vec(), mode: 0o644, ..Header::default() };
        writer.file(&header, data).unwrap();
    };
    for (name, layer) in names.iter().zip(layers).rev() {
        add(name, layer);
    }
    add(&format!("{}.json", id.hex()), config.as_bytes());
    add("manifest.json", manifest.to_string().as_bytes());
    writer.finish().unwrap()
}

#[test]
fn an_imported_image_is_listed_tagged_and_removed() {
    let lab = Lab::new();
    let id = lab.import("base", &tar(&[("bin/", Kind::Directory, ""), ("bin/sh", Kind::Regular, "#!")]));
    let image = lab.images.get("base").unwrap();
    assert_eq!(image.id, id);
    assert_eq!(image.size, 2);
    assert_eq!(image.config.config.cmd.as_deref(), Some(&["sh".to_owned()][..]));
    assert_eq!(image.created.as_deref(), Some(CREATED));
    assert_eq!(image.chain.len(), 1);
    assert_eq!(std::fs::read(lab.tree(&image.chain[0]).join("bin/sh")).unwrap(), b"#!");
    assert_eq!(lab.images.get(&id.hex()[..12]).unwrap().id, id);
    lab.images.tag("base", &Reference::parse("other:v1").unwrap(), 1).unwrap();
    assert_eq!(lab.images.summaries().unwrap()[0].references.len(), 2);
    assert_eq!(lab.images.history("base").unwrap()[0].size, 2);

    let none = |_: &ImageId| Vec::new();
    assert_eq!(
        lab.images.remove("base", false, &none).unwrap(),
        [Removed::Untagged("base:latest".to_owned())]
    );
    let running = |_: &ImageId| vec![User { container: "c".repeat(64), running: true }];
    assert!(matches!(lab.images.remove("other:v1", false, &running), Err(Error::Conflict(_))));
    // What runs keeps the image, though not its name.
    assert_eq!(
        lab.images.remove("other:v1", true, &running).unwrap(),
        [Removed::Untagged("other:v1".to_owned())]
    );
    assert!(matches!(lab.images.remove(id.hex(), true, &running), Err(Error::Conflict(_))));
    let removed = lab.images.remove(id.hex(), false, &none).unwrap();
    assert_eq!(removed[0], Removed::Deleted(id.to_string()));
    assert!(matches!(lab.images.get("base"), Err(Error::NotFound(_))));
    assert_eq!(lab.directories(), 0);
    assert!(!lab.store.content().has(id.digest()));
}

#[test]
fn a_forced_removal_leaves_a_stopped_containers_layers() {
    let lab = Lab::new();
    let id = lab.import("base", &tar(&[("f", Kind::Regular, "1")]));
    let chain = lab.images.get("base").unwrap().chain[0].clone();
    lab.images.snapshotter.prepare("c1", Some(&chain)).unwrap();
    let stopped = |_: &ImageId| vec![User { container: "c1".to_owned(), running: false }];
    let error = lab.images.remove("base", false, &stopped).unwrap_err();
    assert!(
        error.to_string().contains("(must force) - container c1 is using its referenced image"),
        "{error}"
    );
    lab.images.remove(id.hex(), true, &stopped).unwrap();
    lab.images.collect().unwrap();
    assert!(lab.tree(&chain).join("f").exists());
    lab.images.snapshotter.remove("c1").unwrap();
    lab.images.collect().unwrap();
    assert!(!lab.images.snapshotter.has_layer(&chain));
    assert_eq!(lab.directories(), 0);
}

#[test]
fn a_saved_image_has_the_bytes_that_came_in() {
    let lab = Lab::new();
    // Replaced entries, whiteouts, hard links and data after the end: all of it must come out.
    let mut layer = tar(&[
        ("a", Kind::Regular, "first"),
        ("d/", Kind::Directory, ""),
        ("d/f", Kind::Regular, "in d"),
        ("h", Kind::HardLink, "a"),
        ("a", Kind::Regular, "second, longer"),
        ("d", Kind::Symlink, "e"),
        ("e/", Kind::Directory, ""),
        ("d/g", Kind::Regular, "through a link"),
        (".wh.gone", Kind::Regular, "ignored contents"),
        ("a", Kind::Regular, "third"),
    ]);
    layer.extend_from_slice(&[0; 5000]);
    layer.extend_from_slice(b"trailing");
    let archive = docker_archive(std::slice::from_ref(&layer), "base:1");
    let loaded = lab.load(&archive).unwrap();
    assert_eq!(loaded[0].references[0].familiar(), "base:1");
    let image = lab.images.get("base:1").unwrap();
    assert_eq!(image.config.rootfs.diff_ids.len(), 1);
    let tree = lab.tree(&image.chain[0]);
    assert_eq!(std::fs::read(tree.join("a")).unwrap(), b"third");
    assert_eq!(std::fs::read(tree.join("h")).unwrap(), b"first");
    assert_eq!(std::fs::read(tree.join("e/g")).unwrap(), b"through a link");
    assert!(tree.join("gone").symlink_metadata().unwrap().file_type().is_char_device());

    let saved = files(&lab.save(&["base:1"]));
    let digest = ponton_oci::Digest::sha256_of(&layer);
    assert_eq!(saved[&format!("blobs/sha256/{}", digest.hex())], layer);
    assert_eq!(saved[&format!("blobs/sha256/{}", image.id.hex())], image.raw);
    assert!(String::from_utf8(image.raw).unwrap().contains("\"kept\":1"));
}

#[test]
fn what_was_saved_loads_again_with_shared_and_repeated_layers() {
    let one = tar(&[("one", Kind::Regular, "1")]);
    let two = tar(&[("two", Kind::Regular, "22")]);
    let lab = Lab::new();
    lab.load(&docker_archive(&[one.clone(), two.clone(), one.clone()], "a:1")).unwrap();
    lab.load(&docker_archive(&[one.clone(), two], "b:1")).unwrap();
    let (a, b) = (lab.images.get("a:1").unwrap(), lab.images.get("b:1").unwrap());
    assert_eq!(a.chain[..2], b.chain[..]);
    assert_eq!(a.size, 4);
    let archive = lab.save(&["a:1", "b:1"]);
    assert_eq!(archive, lab.save(&["a:1", "b:1"]));

    let other = Lab::new();
    let loaded = other.load(&archive).unwrap();
    assert_eq!(loaded.iter().map(|image| &image.id).collect::<Vec<_>>(), [&a.id, &b.id]);
    assert_eq!(other.images.get("a:1").unwrap().chain, a.chain);
    assert_eq!(std::fs::read(other.tree(&a.chain[2]).join("one")).unwrap(), b"1");
    assert_eq!(other.directories(), 3);
    let none = |_: &ImageId| Vec::new();
    other.images.remove("a:1", false, &none).unwrap();
    assert_eq!(other.directories(), 2);
    other.images.remove("b:1", false, &none).unwrap();
    assert_eq!(other.directories(), 0);
}

#[test]
fn the_oci_half_of_an_archive_is_enough() {
    let lab = Lab::new();
    lab.import("base:2", &tar(&[("f", Kind::Regular, "x")]));
    let id = lab.images.get("base:2").unwrap().id;
    let mut writer = Writer::new(Vec::new());
    for (name, data) in files(&lab.save(&["base:2"])) {
        if !matches!(name.as_str(), "manifest.json" | "repositories") && !name.ends_with('/') {
            writer.file(&Header { path: name.into_bytes(), ..Header::default() }, &data).unwrap();
        }
    }
    let other = Lab::new();
    let loaded = other.load(&writer.finish().unwrap()).unwrap();
    assert_eq!(loaded[0].id, id);
    assert_eq!(loaded[0].references[0].familiar(), "base:2");
}

#[test]
fn bad_archives_are_refused_and_leave_nothing() {
    let lab = Lab::new();
    let good = docker_archive(&[tar(&[("f", Kind::Regular, &"x".repeat(2000))])], "a:1");
    let mut corrupt = good.clone();
    let place = corrupt.windows(8).position(|window| window == b"xxxxxxxx").unwrap();
    corrupt[place] = b'y';
    assert!(matches!(lab.load(&corrupt), Err(Error::DigestMismatch { .. })));
    assert!(matches!(lab.load(&good[..1500]), Err(Error::Archive { .. })));
    assert!(matches!(lab.load(b""), Err(Error::Invalid(_))));
    assert!(matches!(lab.load(b"not a tar at all"), Err(Error::Archive { .. })));
    let escape = tar(&[("../../f", Kind::Regular, "x")]);
    assert!(matches!(lab.load(&docker_archive(&[escape], "a:1")), Err(Error::Archive { .. })));
    let garbage: &[u8] = b"garbage";
    let options = ImportOptions { created: CREATED.to_owned(), ..ImportOptions::default() };
    assert!(lab.images.import(&mut &garbage[..], &options).is_err());
    assert!(lab.images.summaries().unwrap().is_empty());
    assert_eq!(lab.directories(), 0);
}

#[test]
fn a_changed_layer_is_noticed_when_it_is_saved() {
    let lab = Lab::new();
    lab.import("base", &tar(&[("f", Kind::Regular, "1")]));
    let chain = lab.images.get("base").unwrap().chain[0].clone();
    std::fs::write(lab.tree(&chain).join("f"), "2").unwrap();
    let error = lab.images.save(&["base".to_owned()], &SaveOptions::default(), &mut Vec::new()).unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
}

#[test]
fn the_overlay_that_a_container_gets_shows_all_layers() {
    let lab = Lab::new();
    let lower =
        tar(&[("d/", Kind::Directory, ""), ("d/old", Kind::Regular, "1"), ("gone", Kind::Regular, "2")]);
    let upper = tar(&[
        ("d/", Kind::Directory, ""),
        ("d/.wh..wh..opq", Kind::Regular, ""),
        ("d/new", Kind::Regular, "3"),
        (".wh.gone", Kind::Regular, ""),
    ]);
    lab.load(&docker_archive(&[lower, upper], "a:1")).unwrap();
    let image = lab.images.get("a:1").unwrap();
    let mounts = lab.images.snapshotter.prepare("c1", image.chain.last()).unwrap();
    let target = lab.directory.path().join("mounted");
    std::fs::create_dir(&target).unwrap();
    mount(&mounts[0], &target);
    let seen = (
        target.join("d/old").exists(),
        target.join("d/new").exists(),
        target.join("gone").exists(),
        target.metadata().unwrap().mode() & 0o7777,
    );
    std::fs::write(target.join("written"), "12345").unwrap();
    rustix::mount::unmount(&target, rustix::mount::UnmountFlags::empty()).unwrap();
    assert_eq!(seen, (false, true, false, 0o755));
    let usage = lab.images.snapshotter.usage("c1").unwrap();
    assert_eq!((usage.bytes, usage.inodes), (5, 1));
}

fn mount(mount: &ponton_snapshot::Mount, target: &Path) {
    let options = std::ffi::CString::new(mount.options.join(",")).unwrap();
    rustix::mount::mount(
        mount.source.as_str(),
        target,
        mount.r#type.as_str(),
        rustix::mount::MountFlags::empty(),
        Some(options.as_c_str()),
    )
    .unwrap();
}
