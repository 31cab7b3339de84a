//! Images as the kernel reads them, beside the same tar as a directory.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use ponton_sys::path::Root;

use super::compare::{describe, mount, path_of};
use crate::apply::{Applier, Options, Stats, Whiteouts};
use crate::header::{Block, Header, Kind, Time};
use crate::writer::Writer;
use crate::{Error, Result, erofs};

fn entry(path: &str, kind: Kind) -> Header {
    let mtime = Time { seconds: 1_000_000, nanoseconds: 0 };
    Header { path: path.into(), kind, mode: 0o644, mtime, ..Header::default() }
}

fn link(path: &str, kind: Kind, target: &str) -> Header {
    Header { link: target.into(), ..entry(path, kind) }
}

fn open_image(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap()
}

/// The tree of a directory, and that of an image.
type Trees = [std::collections::BTreeMap<std::path::PathBuf, String>; 2];

/// Both ways of a tar, with an error where one of them has one. `None` where the kernel cannot mount
/// an image that is a file.
fn both(tar: &[u8]) -> Option<Result<Trees>> {
    let directory = tempfile::tempdir().unwrap();
    let path = |name| directory.path().join(name);
    fs::create_dir(path("fs")).unwrap();
    fs::create_dir(path("kept")).unwrap();
    let kept = Some(File::open(path("kept")).unwrap().into());
    let options = Options { whiteouts: Whiteouts::Overlay, kept, ..Options::default() };
    let root = Root::open(path("fs")).unwrap();
    let applied: Result<Stats> = Applier::new(root, options).unwrap().apply(tar, None);
    let file = open_image(&path("image"));
    let written = erofs::write(tar, &file);
    let (applied, written) = match (applied, written) {
        (Ok(applied), Ok(written)) => (applied, written),
        (Err(error), _) | (_, Err(error)) => return Some(Err(error)),
    };
    assert_eq!(applied, written);
    let mut again = Vec::new();
    erofs::write_tar(&file, &mut again).unwrap();
    assert!(again == tar, "the tar comes out as it came in");
    let mounted = match mount(&path("image")) {
        Ok(mounted) => mounted,
        Err(error) => {
            eprintln!("skipped: {error}: Linux 6.12 mounts images that are files");
            return None;
        }
    };
    Some(Ok([describe(&path("fs")).unwrap(), describe(&path_of(&mounted)).unwrap()]))
}

fn assert_same(trees: &Trees, what: &str) {
    for (path, text) in &trees[0] {
        assert_eq!(trees[1].get(path), Some(text), "{what}: {}", path.display());
    }
    assert_eq!(trees[0].len(), trees[1].len(), "{what}");
}

/// A file with holes, in GNU's format 0.1 of PAX.
fn sparse(writer: &mut Writer<Vec<u8>>, path: &str, size: u64, data: &[(u64, Vec<u8>)]) {
    let map: Vec<_> = data.iter().map(|(start, bytes)| format!("{start},{}", bytes.len())).collect();
    let mut records = String::new();
    for (key, value) in [("size", size.to_string()), ("map", map.join(","))] {
        let rest = format!(" GNU.sparse.{key}={value}\n");
        let length =
            (1..10_000).find(|length: &usize| length.to_string().len() + rest.len() == *length).unwrap();
        records += &format!("{length}{rest}");
    }
    let extension = Header { size: records.len() as u64, ..entry("pax", Kind::Regular) };
    writer.stream().extend(Block::new(&extension, b'x').0);
    writer.contents(&extension, records.as_bytes()).unwrap();
    let contents: Vec<u8> = data.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    writer.file(&entry(path, Kind::Regular), &contents).unwrap();
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + length) as u8 | 1).collect()
}

/// One of everything.
fn everything() -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    writer.header(&Header { mode: 0o751, uid: 3, ..entry("./", Kind::Directory) }).unwrap();
    for size in [0, 1, 511, 512, 513, 4095, 4096, 4097, 100_000, 1_000_001] {
        let header = Header { uid: 70_000, gid: u32::MAX - 1, ..entry(&format!("f/{size}"), Kind::Regular) };
        writer.file(&header, &bytes(size)).unwrap();
    }
    let mut header = Header { mode: 0o6755, ..entry("attributed", Kind::Regular) };
    header.mtime = Time { seconds: -5, nanoseconds: 123_456_789 };
    header.xattrs = vec![
        (b"security.capability".to_vec(), [&[1, 0, 0, 2, 0, 4][..], &[0; 14]].concat()),
        (b"user.long".to_vec(), bytes(1000)),
        (b"user.empty".to_vec(), Vec::new()),
        (b"user.empty2".to_vec(), b"x".to_vec()),
        (b"trusted.mine".to_vec(), b"x".to_vec()),
    ];
    writer.file(&header, b"with attributes").unwrap();
    let directory = Header { mode: 0o1777, xattrs: header.xattrs.clone(), ..entry("d", Kind::Directory) };
    writer.header(&Header { xattrs: vec![directory.xattrs[1].clone()], ..directory }).unwrap();
    for number in 0..3000 {
        let name = format!("d/{}{number}", "n".repeat(number % 250));
        writer.header(&entry(&name, Kind::Fifo)).unwrap();
    }
    for length in [1, 300, 435, 436, 448, 449, 512, 513, 4095] {
        writer.header(&link(&format!("links/{length}"), Kind::Symlink, &"x".repeat(length))).unwrap();
    }
    let device = Header { major: 4000, minor: 1_000_000, ..entry("dev/b", Kind::Block) };
    writer.header(&device).unwrap();
    writer
        .header(&Header { kind: Kind::Char, major: 1, minor: 3, path: b"dev/c".to_vec(), ..device })
        .unwrap();
    writer.header(&link("hard", Kind::HardLink, "f/513")).unwrap();
    writer.header(&link("d/hard", Kind::HardLink, "/f/513")).unwrap();
    writer.header(&link("hard-link-to-link", Kind::HardLink, "links/300")).unwrap();
    writer.header(&link("way", Kind::Symlink, "/made/../f")).unwrap();
    writer.header(&entry("made", Kind::Directory)).unwrap();
    writer.file(&entry("way/through", Kind::Regular), b"a link").unwrap();
    writer.file(&entry("f/1", Kind::Regular), b"replaced").unwrap();
    writer.file(&entry("gone/.wh.file", Kind::Regular), b"").unwrap();
    writer.file(&entry("gone/.wh..wh..opq", Kind::Regular), b"").unwrap();
    writer.file(&entry("gone/.wh.directory", Kind::Regular), b"").unwrap();
    writer.header(&entry("gone/directory", Kind::Directory)).unwrap();
    sparse(&mut writer, "sparse/none", 1_000_000, &[(0, Vec::new())]);
    sparse(&mut writer, "sparse/odd", 70_001, &[(3, bytes(5)), (4000, bytes(9000)), (69_999, bytes(2))]);
    sparse(&mut writer, "sparse/large", 20 << 20, &[(4096, bytes(5000)), (19 << 20, bytes(513))]);
    writer.finish().unwrap()
}

#[test]
fn an_image_shows_what_the_directory_shows() {
    if let Some(trees) = both(&everything()) {
        assert_same(&trees.unwrap(), "everything");
    }
}

#[test]
fn an_empty_tar_is_an_empty_root() {
    for tar in [&[][..], &[0; 1024]] {
        if let Some(trees) = both(tar) {
            assert_same(&trees.unwrap(), "nothing");
        }
    }
}

#[test]
fn what_stands_behind_a_file_is_not_in_its_last_page() {
    let mut writer = Writer::new(Vec::new());
    writer.file(&entry("a", Kind::Regular), b"contents").unwrap();
    let mut tar = writer.finish().unwrap();
    tar[600] = b'x';
    let directory = tempfile::tempdir().unwrap();
    let file = open_image(&directory.path().join("image"));
    erofs::write(tar.as_slice(), &file).unwrap();
    let mut again = Vec::new();
    erofs::write_tar(&file, &mut again).unwrap();
    assert!(again == tar);
    // Where its inode says that it is, zeros follow to the end of the block.
    let mut image = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut image, 0).unwrap();
    let whole = [b"contents".as_slice(), &[0; 504]].concat();
    assert!(image[4096 + tar.len()..].chunks(512).any(|block| block == whole));
    if let Some(trees) = both(&tar) {
        assert_same(&trees.unwrap(), "padding");
    }
}

#[test]
fn what_no_tree_can_hold_is_refused() {
    let refused = [
        entry("../a", Kind::Directory),
        entry(&"n".repeat(256), Kind::Directory),
        entry(&format!("{}/a", "n".repeat(256)), Kind::Directory),
        entry(&"d/".repeat(1030), Kind::Directory),
        link("a", Kind::Symlink, ""),
        link("a", Kind::Symlink, &"x".repeat(4096)),
        link("a", Kind::HardLink, "none"),
        link("a", Kind::HardLink, "../x"),
        link("a", Kind::HardLink, "/"),
        Header { major: 4096, ..entry("a", Kind::Char) },
        entry(".wh.", Kind::Fifo),
    ];
    let directory = tempfile::tempdir().unwrap();
    for header in refused {
        let mut writer = Writer::new(Vec::new());
        writer.header(&header).unwrap();
        let file = open_image(&directory.path().join("image"));
        let error = erofs::write(writer.finish().unwrap().as_slice(), &file).unwrap_err();
        assert!(error.is_invalid(), "{error}");
    }
}

#[test]
fn a_disk_that_fails_is_not_the_archives_fault() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("image"), "").unwrap();
    let read_only = File::open(directory.path().join("image")).unwrap();
    let error = erofs::write(everything().as_slice(), &read_only).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

#[test]
fn random_archives_are_the_same_either_way() {
    let mut compared = 0;
    for seed in 1..=400 {
        let tar = crate::tests::Random(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15)).archive();
        match both(&tar) {
            None => return,
            Some(Ok(trees)) => {
                assert_same(&trees, &format!("seed {seed}"));
                compared += 1;
            }
            Some(Err(_)) => {}
        }
    }
    assert!(compared > 40, "only {compared} archives were compared");
}

#[test]
fn damaged_archives_make_images_that_the_kernel_reads() {
    let Some(Ok(_)) = both(&[]) else { return };
    let mut random = crate::tests::Random(7);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    for _ in 0..300 {
        let mut tar = random.archive();
        for _ in 0..=random.below(3) {
            let place = random.below(tar.len() as u64) as usize;
            tar[place] = random.below(256) as u8;
        }
        let file = open_image(&path);
        if erofs::write(tar.as_slice(), &file).is_ok() {
            describe(&path_of(&mount(&path).unwrap())).unwrap();
        }
    }
}
