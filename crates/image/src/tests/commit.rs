//! Commit and squash, with a real overlay on top of the image.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use ponton_oci::image_config::ContainerConfig;

use super::*;

impl Lab {
    /// Changes an image's files as a container would, and gives the snapshot's key.
    fn change(&self, key: &str, parent: &ChainId, change: impl FnOnce(&Path)) {
        let mounts = self.images.snapshotter.prepare(key, Some(parent)).unwrap();
        self.in_mount(&mounts[0], change);
    }

    fn in_mount<T>(&self, what: &ponton_snapshot::Mount, look: impl FnOnce(&Path) -> T) -> T {
        let target = self.directory.path().join("mounted");
        fs::create_dir_all(&target).unwrap();
        mount(what, &target);
        let seen = look(&target);
        rustix::mount::unmount(&target, rustix::mount::UnmountFlags::empty()).unwrap();
        seen
    }

    /// Paths, modes, owners, links and contents of all that an image has.
    fn listing(&self, image: &str) -> Vec<String> {
        let image = self.images.get(image).unwrap();
        let mounts = self.images.snapshotter.prepare("listing", image.chain.last()).unwrap();
        let listing = self.in_mount(&mounts[0], |root| {
            // How many links directories have differs between overlayfs and others.
            let find = std::process::Command::new("find")
                .arg(root)
                .args(["-mindepth", "1", "(", "-type", "d", "-printf", "%P %y %m %U:%G %T@\\n", ")", "-o"])
                .args(["-printf", "%P %y %m %U:%G %n %l %T@\\n"])
                .output()
                .unwrap();
            let mut lines: Vec<String> =
                String::from_utf8(find.stdout).unwrap().lines().map(str::to_owned).collect();
            lines.sort();
            lines
        });
        self.images.snapshotter.remove("listing").unwrap();
        listing
    }
}

fn base() -> Vec<u8> {
    tar(&[
        ("d/", Kind::Directory, ""),
        ("d/old", Kind::Regular, "old"),
        ("emptied/", Kind::Directory, ""),
        ("emptied/x", Kind::Regular, "x"),
        ("gone", Kind::Regular, "gone"),
        ("kept", Kind::Regular, "kept"),
    ])
}

fn change_much(root: &Path) {
    fs::remove_file(root.join("gone")).unwrap();
    fs::remove_dir_all(root.join("emptied")).unwrap();
    fs::create_dir(root.join("emptied")).unwrap();
    fs::write(root.join("emptied/y"), "y").unwrap();
    fs::write(root.join("d/new"), vec![7; 300_000]).unwrap();
    fs::hard_link(root.join("d/new"), root.join("d/linked")).unwrap();
    chown(root.join("d/new"), Some(5), Some(6)).unwrap();
    fs::set_permissions(root.join("d/new"), fs::Permissions::from_mode(0o4711)).unwrap();
    symlink("../kept", root.join("d/symlink")).unwrap();
    rustix::fs::setxattr(root.join("d/new"), "user.note", b"n", rustix::fs::XattrFlags::empty()).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("null"),
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::from_raw_mode(0o666),
        rustix::fs::makedev(1, 3),
    )
    .unwrap();
    fs::write(root.join(".wh.kept"), "not a whiteout").unwrap();
}

fn options(parent: &ImageId, name: &str) -> CommitOptions {
    CommitOptions {
        parent: Some(parent.clone()),
        config: ContainerConfig { cmd: Some(vec!["sh".to_owned()]), ..ContainerConfig::default() },
        changes: vec!["ENV A=1".to_owned(), "ENTRYPOINT [\"x\"]".to_owned()],
        author: "somebody".to_owned(),
        message: "why".to_owned(),
        created_by: "sh -c true".to_owned(),
        reference: Some(Reference::parse(name).unwrap()),
        created: CREATED.to_owned(),
    }
}

#[test]
fn a_commit_has_what_the_container_saw() {
    let lab = Lab::new();
    let parent = lab.import("base", &base());
    let chain = lab.images.get("base").unwrap().chain[0].clone();
    lab.change("c1", &chain, change_much);
    let id = lab.images.commit_layer("c1", &options(&parent, "new:1")).unwrap();
    let image = lab.images.get("new:1").unwrap();
    assert_eq!((image.id.clone(), image.chain.len()), (id, 2));
    assert_eq!(image.size, 3 + 1 + 4 + 4 + 300_000 + 1 + "../kept".len() as u64);
    let config = &image.config;
    assert_eq!((config.author.as_deref(), config.comment.as_deref()), (Some("somebody"), Some("why")));
    assert_eq!((config.config.cmd.as_ref(), config.config.env[0].as_str()), (None, "A=1"));
    assert_eq!(config.history.len(), 2);
    assert_eq!(config.history[1].created_by.as_deref(), Some("sh -c true"));

    // The container's own tree, but for what only looks like a whiteout.
    let mounts = lab.images.snapshotter.mounts("c1").unwrap();
    lab.in_mount(&mounts[0], |root| fs::remove_file(root.join(".wh.kept")).unwrap());
    let listing = lab.listing("new:1");
    let names: Vec<&str> = listing.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(
        names,
        ["d", "d/linked", "d/new", "d/old", "d/symlink", "emptied", "emptied/y", "kept", "null"]
    );
    assert!(listing[2].starts_with("d/new f 4711 5:6 2 "), "{listing:?}");
    let upper = lab.tree(&image.chain[1]);
    assert!(upper.join("gone").symlink_metadata().unwrap().file_type().is_char_device());
    let mut value = [0; 4];
    let length = rustix::fs::getxattr(upper.join("d/new"), "user.note", &mut value).unwrap();
    assert_eq!(&value[..length], b"n");
    // It is an image like any other.
    let other = Lab::new();
    other.load(&lab.save(&["new:1"])).unwrap();
    assert_eq!(other.listing("new:1"), listing);
    // Twice the same container, twice the same layer.
    lab.images.commit_layer("c1", &options(&parent, "again")).unwrap();
    assert_eq!(lab.images.get("again").unwrap().chain, image.chain);
}

#[test]
fn a_commit_without_changes_has_no_layer_more() {
    let lab = Lab::new();
    let parent = lab.import("base", &base());
    let chain = lab.images.get("base").unwrap().chain[0].clone();
    lab.change("c1", &chain, |_| {});
    lab.images.commit_layer("c1", &options(&parent, "same")).unwrap();
    let image = lab.images.get("same").unwrap();
    assert_eq!(image.chain, [chain]);
    assert!(image.config.history[1].empty_layer);
    // Nor one that stands on nothing.
    lab.images.snapshotter.prepare("c2", None).unwrap();
    let options = CommitOptions { created: CREATED.to_owned(), ..CommitOptions::default() };
    let id = lab.images.commit_layer("c2", &options).unwrap();
    assert_eq!(lab.images.get(id.hex()).unwrap().config.rootfs.diff_ids, []);
}

#[test]
fn a_commit_that_fails_leaves_nothing() {
    let lab = Lab::new();
    let parent = lab.import("base", &base());
    let chain = lab.images.get("base").unwrap().chain[0].clone();
    lab.change("c1", &chain, change_much);
    let directories = lab.directories();
    let bad_change = CommitOptions { changes: vec!["RUN x".to_owned()], ..options(&parent, "new") };
    assert!(matches!(lab.images.commit_layer("c1", &bad_change), Err(Error::Invalid(_))));
    assert!(lab.images.commit_layer("none", &options(&parent, "new")).is_err());
    let none =
        CommitOptions { parent: Some(ponton_oci::Digest::sha256_of(b"").into()), ..options(&parent, "new") };
    assert!(matches!(lab.images.commit_layer("c1", &none), Err(Error::NotFound(_))));
    assert_eq!((lab.directories(), lab.images.summaries().unwrap().len()), (directories, 1));
}

#[test]
fn squashed_layers_show_the_same_files() {
    let lab = Lab::new();
    let parent = lab.import("base", &base());
    let chain = lab.images.get("base").unwrap().chain[0].clone();
    lab.change("c1", &chain, change_much);
    let first = lab.images.commit_layer("c1", &options(&parent, "first")).unwrap();
    let chain = lab.images.get("first").unwrap().chain[1].clone();
    lab.change("c2", &chain, |root| {
        fs::remove_dir_all(root.join("d")).unwrap();
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/only"), "1").unwrap();
        fs::write(root.join("gone"), "back").unwrap();
        fs::remove_file(root.join("emptied/y")).unwrap();
    });
    lab.images.commit_layer("c2", &options(&first, "second")).unwrap();
    let squash = |from: Option<&str>, name: &str| {
        let options = SquashOptions {
            from: from.map(str::to_owned),
            reference: Some(Reference::parse(name).unwrap()),
            message: String::new(),
            created: CREATED.to_owned(),
        };
        lab.images.squash("second", &options).unwrap();
        lab.images.get(name).unwrap()
    };
    let one = squash(None, "one");
    assert_eq!(one.chain.len(), 1);
    assert_eq!(lab.listing("one"), lab.listing("second"));
    let two = squash(Some("base"), "two");
    assert_eq!((two.chain.len(), &two.chain[0]), (2, &lab.images.get("base").unwrap().chain[0]));
    assert_eq!(lab.listing("two"), lab.listing("second"));
    let layers = two.config.history.iter().filter(|step| !step.empty_layer).count();
    assert_eq!((layers, two.config.history.len()), (2, 4));
    assert_eq!(two.config.config, lab.images.get("second").unwrap().config.config);
    // The same again is the same layer.
    assert_eq!(squash(None, "again").chain, one.chain);
    let stranger = SquashOptions { from: Some("one".to_owned()), ..SquashOptions::default() };
    let stranger = SquashOptions { created: CREATED.to_owned(), ..stranger };
    assert!(matches!(lab.images.squash("second", &stranger), Err(Error::Invalid(_))));
    let left = fs::read_dir(lab.store.temporary()).unwrap();
    assert_eq!(
        left.filter(|entry| entry.as_ref().unwrap().file_name().as_encoded_bytes().starts_with(b"squash"))
            .count(),
        0
    );
}
