//! Hostile, odd and random archives.

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use ponton_sys::path::Root;

use crate::apply::{Applier, Options, Stats, Whiteouts};
use crate::create::Creator;
use crate::header::{BLOCK, Block, Header, Kind, Sparse, Time};
use crate::reader::Reader;
use crate::recipe::{self, Recorder};
use crate::writer::Writer;
use crate::{Error, Result, copy};

/// A layer's directory, beside a file that nothing may touch.
struct Lab {
    directory: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("layer/fs")).unwrap();
        fs::create_dir_all(directory.path().join("layer/kept")).unwrap();
        fs::create_dir_all(directory.path().join("outside")).unwrap();
        fs::write(directory.path().join("outside/secret"), "untouched").unwrap();
        Self { directory }
    }

    fn layer(&self) -> PathBuf {
        self.directory.path().join("layer")
    }

    fn tree(&self, path: &str) -> PathBuf {
        self.layer().join("fs").join(path)
    }

    fn outside(&self) -> PathBuf {
        self.directory.path().join("outside")
    }

    fn apply_with(&self, tar: &[u8], options: Options) -> Result<Stats> {
        Applier::new(Root::open(self.tree("")).unwrap(), options)?.apply(tar, None)
    }

    fn apply(&self, tar: &[u8]) -> Result<Stats> {
        self.apply_with(tar, Options { whiteouts: Whiteouts::Overlay, ..Options::default() })
    }

    /// Applies with a recipe, and rebuilds the archive from what is on disk.
    fn apply_and_rebuild(&self, tar: &[u8]) -> Result<Vec<u8>> {
        let kept = fs::File::open(self.layer().join("kept")).unwrap().into();
        let options = Options { whiteouts: Whiteouts::Overlay, kept: Some(kept), ..Options::default() };
        let file: Box<dyn std::io::Write + Send> =
            Box::new(fs::File::create(self.layer().join("recipe")).unwrap());
        let mut recorder = Recorder::new(file)?;
        let root = Root::open(self.tree("")).unwrap();
        Applier::new(root, options)?.apply(tar, Some(&mut recorder))?;
        recorder.finish()?;
        let mut out = Vec::new();
        recipe::rebuild(&self.layer(), &mut out)?;
        Ok(out)
    }

    fn assert_outside_untouched(&self) {
        let names: Vec<_> =
            fs::read_dir(self.outside()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["secret"]);
        assert_eq!(fs::read(self.outside().join("secret")).unwrap(), b"untouched");
        assert_eq!(fs::metadata(self.outside().join("secret")).unwrap().nlink(), 1);
        assert_eq!(fs::read_dir(self.directory.path()).unwrap().count(), 2);
    }
}

fn entry(path: &str, kind: Kind) -> Header {
    let path = path.as_bytes().to_vec();
    Header {
        path,
        kind,
        mode: 0o755,
        mtime: Time { seconds: 1_000_000, nanoseconds: 0 },
        ..Header::default()
    }
}

fn link(path: &str, kind: Kind, target: &str) -> Header {
    Header { link: target.as_bytes().to_vec(), ..entry(path, kind) }
}

fn tar(entries: &[(Header, &str)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (header, contents) in entries {
        if header.kind == Kind::Regular {
            writer.file(header, contents.as_bytes()).unwrap();
        } else {
            writer.header(header).unwrap();
        }
    }
    writer.finish().unwrap()
}

fn file(path: &str) -> (Header, &'static str) {
    (entry(path, Kind::Regular), "contents")
}

fn other(header: Header) -> (Header, &'static str) {
    (header, "")
}

#[test]
fn nothing_leaves_the_root() {
    let lab = Lab::new();
    let outside = lab.outside();
    let outside = outside.to_str().unwrap();
    let secret = format!("{outside}/secret");
    let attacks: Vec<Vec<(Header, &str)>> = vec![
        vec![file("../outside/new")],
        vec![file("a/../../outside/new")],
        vec![file(&secret[1..])],
        vec![file(&secret)],
        vec![other(link("out", Kind::Symlink, outside)), file("out/new")],
        vec![other(link("out", Kind::Symlink, "../../outside")), file("out/secret")],
        vec![
            other(link("up", Kind::Symlink, "..")),
            other(link("up/up2", Kind::Symlink, "..")),
            file("up/up2/up/x"),
        ],
        vec![other(link("hard", Kind::HardLink, &secret))],
        vec![other(link("hard", Kind::HardLink, "../../outside/secret"))],
        vec![
            other(link("l", Kind::Symlink, &secret)),
            other(link("hard", Kind::HardLink, "l")),
            file("hard"),
        ],
        vec![other(link("l", Kind::Symlink, outside)), other(link("h", Kind::HardLink, "l/secret"))],
        vec![other(link("l", Kind::Symlink, outside)), other(entry("l", Kind::Directory))],
        vec![other(link("l", Kind::Symlink, outside)), other(entry("l/secret", Kind::Fifo))],
        vec![other(link("l", Kind::Symlink, &secret)), file("l")],
        vec![other(link("l", Kind::Symlink, outside)), file("l/.wh.secret")],
        vec![other(link("l", Kind::Symlink, outside)), file("l/.wh..wh..opq")],
        vec![file(".wh...")],
        vec![file(".wh..")],
        vec![file(".wh.")],
        vec![file("a/.wh.../x")],
        vec![other(link("root", Kind::Symlink, "/proc/self/root")), file("root/tmp/ponton-escaped")],
        vec![other(link(".", Kind::Symlink, outside)), file("new")],
        vec![file("..")],
    ];
    for (number, attack) in attacks.iter().enumerate() {
        for whiteouts in [Whiteouts::Overlay, Whiteouts::Remove, Whiteouts::Plain] {
            let _ = fs::remove_dir_all(lab.tree(""));
            fs::create_dir(lab.tree("")).unwrap();
            let _ = lab.apply_with(&tar(attack), Options { whiteouts, ..Options::default() });
            lab.assert_outside_untouched();
            assert!(!Path::new("/tmp/ponton-escaped").exists(), "attack {number}");
        }
    }
}

#[test]
fn metadata_of_all_kinds_are_kept() {
    let lab = Lab::new();
    let setuid = Header { mode: 0o4755, uid: 12345, gid: 4_000_000_000, ..entry("su", Kind::Regular) };
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    let xattrs = vec![
        (b"security.capability".to_vec(), capability.clone()),
        (b"user.note".to_vec(), b"a\0b\n=".to_vec()),
        (b"trusted.overlay.redirect".to_vec(), b"/etc".to_vec()),
    ];
    let capable = Header { xattrs, ..entry("capable", Kind::Regular) };
    let device = Header { major: 1, minor: 3, mode: 0o666, ..entry("null", Kind::Char) };
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(250));
    let precise =
        Header { mtime: Time { seconds: -5, nanoseconds: 123_456_789 }, ..entry("old", Kind::Regular) };
    let dir = Header { mode: 0o1777, ..entry("tmp/", Kind::Directory) };
    let lab_tar = tar(&[
        (setuid, "x"),
        (capable, "x"),
        other(device),
        other(entry("fifo", Kind::Fifo)),
        file(&long),
        (precise, "x"),
        other(link("dangling", Kind::Symlink, "/no/where")),
        other(dir),
        file("tmp/inside"),
        file("näme"),
    ]);
    let stats = lab.apply(&lab_tar).unwrap();
    // The contents of the files, and the nine bytes that the symlink says: Docker counts them as well.
    assert_eq!((stats.entries, stats.bytes), (10, 27 + 9));
    let status = |path: &str| fs::symlink_metadata(lab.tree(path)).unwrap();
    assert_eq!(
        (status("su").mode() & 0o7777, status("su").uid(), status("su").gid()),
        (0o4755, 12345, 4_000_000_000)
    );
    let mut value = [0; 64];
    let length = rustix::fs::getxattr(lab.tree("capable"), "security.capability", &mut value).unwrap();
    assert_eq!(value[..length], capability);
    assert!(rustix::fs::getxattr(lab.tree("capable"), "trusted.overlay.redirect", &mut value).is_err());
    assert_eq!((status("null").rdev(), status("null").mode() & 0o777), (0x103, 0o666));
    assert!(status("fifo").file_type().is_fifo());
    assert_eq!(fs::read(lab.tree(&long)).unwrap(), b"contents");
    assert_eq!((status("old").mtime(), status("old").mtime_nsec()), (-5, 123_456_789));
    assert_eq!((status("dangling").mtime(), status("tmp").mtime()), (1_000_000, 1_000_000));
    assert_eq!(status("tmp").permissions().mode() & 0o7777, 0o1777);

    // Out again, and in again: the same.
    let mut creator = Creator::new(Vec::new());
    creator.add_children(fs::File::open(lab.tree("")).unwrap().as_fd(), b"").unwrap();
    let again = Lab::new();
    again.apply(&creator.finish().unwrap()).unwrap();
    for path in ["su", "capable", "null", "fifo", "dangling", "tmp", "tmp/inside", "näme", &long] {
        let (one, two) = (status(path), fs::symlink_metadata(again.tree(path)).unwrap());
        let all = |status: &fs::Metadata| {
            (status.mode(), status.uid(), status.gid(), status.rdev(), status.mtime())
        };
        assert_eq!(all(&one), all(&two), "{path}");
    }
    assert_eq!(rustix::fs::getxattr(again.tree("capable"), "user.note", &mut value).unwrap(), 5);
}

#[test]
fn whiteouts_become_overlayfs_ones() {
    let lab = Lab::new();
    lab.apply(&tar(&[
        file(".wh.gone"),
        file("d/.wh..wh..opq"),
        file("d/new"),
        file(".wh.back"),
        other(entry("back", Kind::Directory)),
        file(".wh..wh.plnk"),
    ]))
    .unwrap();
    let gone = fs::symlink_metadata(lab.tree("gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let mut value = [0; 4];
    for directory in ["d", "back"] {
        let length = rustix::fs::getxattr(lab.tree(directory), "trusted.overlay.opaque", &mut value).unwrap();
        assert_eq!(value[..length], *b"y", "{directory}");
    }
    assert!(!lab.tree(".wh..wh.plnk").exists());
}

#[test]
fn files_and_directories_replace_each_other() {
    let lab = Lab::new();
    let archive = tar(&[
        file("a"),
        other(entry("a", Kind::Directory)),
        file("a/b/c"),
        (entry("a", Kind::Regular), "file again"),
        other(link("self", Kind::HardLink, "a")),
        other(link("a", Kind::HardLink, "a")),
    ]);
    assert_eq!(lab.apply_and_rebuild(&archive).unwrap(), archive);
    assert_eq!(fs::read(lab.tree("self")).unwrap(), b"file again");

    let options = || Options { refuse_replacing_directories: true, ..Options::default() };
    let error = lab.apply_with(&tar(&[other(entry("a", Kind::Directory))]), options()).unwrap_err();
    assert!(error.to_string().contains("cannot overwrite non-directory with directory"), "{error}");
}

#[test]
fn a_hard_link_to_what_cannot_have_one_is_the_archives_fault() {
    for target in ["dir", "nosuch", "/"] {
        let lab = Lab::new();
        let archive =
            tar(&[other(entry("dir", Kind::Directory)), other(link("hard", Kind::HardLink, target))]);
        let error = lab.apply_with(&archive, Options::default()).unwrap_err();
        assert!(error.is_invalid(), "{target}: {error}");
        assert!(error.to_string().contains("hard link to"), "{error}");
    }
}

/// An archive of an old GNU sparse file, whose map needs a second block.
fn gnu_sparse(pieces: u64) -> (Vec<u8>, Vec<u8>) {
    let mut expected = vec![0; (pieces * 8192) as usize];
    let mut data = Vec::new();
    let mut map = Vec::new();
    for piece in 0..pieces {
        let text = format!("piece {piece:03}");
        expected[(piece * 8192) as usize..][..text.len()].copy_from_slice(text.as_bytes());
        data.extend_from_slice(text.as_bytes());
        map.extend_from_slice(format!("{:011o}\0{:011o}\0", piece * 8192, text.len()).as_bytes());
    }
    let header = Header { size: data.len() as u64, ..entry("sparse", Kind::Regular) };
    let mut block = Block::new(&header, b'S').0;
    block[257..265].copy_from_slice(b"ustar  \0");
    block[345..].fill(0);
    block[386..482].copy_from_slice(&map[..96]);
    block[482] = 1;
    block[483..495].copy_from_slice(format!("{:011o}\0", expected.len()).as_bytes());
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = block.to_vec();
    let blocks: Vec<&[u8]> = map[96..].chunks(504).collect();
    for (number, pairs) in blocks.iter().enumerate() {
        let mut block = [0; BLOCK];
        block[..pairs.len()].copy_from_slice(pairs);
        block[504] = u8::from(number + 1 < blocks.len());
        archive.extend_from_slice(&block);
    }
    archive.extend_from_slice(&data);
    archive.resize(archive.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    (archive, expected)
}

#[test]
fn sparse_files_have_their_holes() {
    let lab = Lab::new();
    let (archive, expected) = gnu_sparse(50);
    assert_eq!(lab.apply_and_rebuild(&archive).unwrap(), archive);
    assert_eq!(fs::read(lab.tree("sparse")).unwrap(), expected);

    // PAX 1.0, as GNU tar writes it today: the map is at the start of the contents.
    let mut contents = b"2\n4\n3\n100000\n2\n".to_vec();
    contents.resize(BLOCK, 0);
    contents.extend_from_slice(b"abcde");
    let mut writer = Writer::new(Vec::new());
    let keys = [("major", "1"), ("minor", "0"), ("name", "real"), ("realsize", "200000")];
    let records: String = keys
        .iter()
        .map(|(key, value)| {
            let rest = format!(" GNU.sparse.{key}={value}\n");
            format!("{}{rest}", rest.len() + 2)
        })
        .collect();
    writer.stream().extend_from_slice(
        &Block::new(&Header { size: records.len() as u64, ..entry("x", Kind::Regular) }, b'x').0,
    );
    writer.stream().extend_from_slice(records.as_bytes());
    writer.pad(records.len() as u64).unwrap();
    writer.file(&entry("GNUSparseFile.1/real", Kind::Regular), &contents).unwrap();
    lab.apply(&writer.finish().unwrap()).unwrap();
    let real = fs::read(lab.tree("real")).unwrap();
    assert_eq!(real.len(), 200_000);
    assert_eq!((&real[4..7], &real[100_000..100_002]), (&b"abc"[..], &b"de"[..]));
    assert_eq!(Sparse::default().size, 0);
}

#[test]
fn headers_that_ask_for_too_much_are_refused() {
    let long_name = Header { size: 1 << 30, ..entry("././@LongLink", Kind::Regular) };
    let mut negative = Block::new(&entry("x", Kind::Regular), b'0').0;
    negative[124..136].fill(0xff);
    let mut uid = Block::new(&entry("x", Kind::Regular), b'0').0;
    uid[108..116].copy_from_slice(&[0x80, 0, 0, 1, 0, 0, 0, 0]);
    for block in [&mut negative, &mut uid] {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    for archive in [
        Block::new(&long_name, b'L').0.to_vec(),
        Block::new(&long_name, b'x').0.to_vec(),
        negative.to_vec(),
        uid.to_vec(),
        Block::new(&entry("x", Kind::Regular), b'!').0.to_vec(),
        vec![b'x'; BLOCK],
    ] {
        let error = Lab::new().apply(&archive).unwrap_err();
        assert!(matches!(error, Error::Header { .. }), "{error}");
        assert!(error.is_invalid());
    }
}

#[test]
fn every_truncation_is_noticed_or_ends_between_entries() {
    let archive = tar(&[file("a"), other(entry("d", Kind::Directory)), file(&"n".repeat(150))]);
    let end_mark = 2 * BLOCK;
    let lab = Lab::new();
    for length in (0..archive.len() - end_mark).step_by(37) {
        let result = lab.apply(&archive[..length]);
        if length % BLOCK != 0 {
            assert!(matches!(result, Err(Error::Truncated { .. })), "{length}");
        }
    }
}

/// A small generator (xorshift), so that a failure can be repeated.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn path(&mut self) -> String {
        let parts = ["a", "b", "c", "..", ".", "l", ".wh.a", ".wh..wh..opq", "outside", "secret"];
        let count = 1 + self.below(4);
        let path: Vec<&str> = (0..count).map(|_| parts[self.below(parts.len() as u64) as usize]).collect();
        let slash = if self.below(8) == 0 { "/" } else { "" };
        format!("{slash}{}", path.join("/"))
    }

    pub(crate) fn archive(&mut self) -> Vec<u8> {
        let kinds = [Kind::Regular, Kind::Directory, Kind::Symlink, Kind::HardLink, Kind::Fifo, Kind::Char];
        let mut writer = Writer::new(Vec::new());
        for _ in 0..=self.below(12) {
            let kind = kinds[self.below(kinds.len() as u64) as usize];
            let mut header = entry(&self.path(), kind);
            let target = match self.below(3) {
                0 => format!("../../{}", self.path()),
                1 => format!("/{}", self.path()),
                _ => self.path(),
            };
            if matches!(kind, Kind::Symlink | Kind::HardLink) {
                header.link = target.into_bytes();
            }
            if kind == Kind::Regular {
                let contents = vec![b'x'; self.below(1500) as usize];
                writer.file(&header, &contents).unwrap();
            } else {
                writer.header(&header).unwrap();
            }
        }
        writer.finish().unwrap()
    }
}

#[test]
fn random_archives_stay_inside_and_are_rebuilt() {
    let mut rebuilt = 0;
    for seed in 1..=600 {
        let archive = Random(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15)).archive();
        let lab = Lab::new();
        if let Ok(again) = lab.apply_and_rebuild(&archive) {
            assert_eq!(again, archive, "seed {seed}");
            rebuilt += 1;
        }
        lab.assert_outside_untouched();
    }
    assert!(rebuilt > 50, "only {rebuilt} archives were applied");
}

#[test]
fn random_damage_never_panics() {
    let mut random = Random(42);
    for _ in 0..2000 {
        let mut archive = random.archive();
        for _ in 0..=random.below(6) {
            let place = random.below(archive.len() as u64) as usize;
            archive[place] = random.below(256) as u8;
        }
        let mut reader = Reader::new(archive.as_slice());
        while let Ok(Some(_)) = reader.next_entry() {}
    }
}

#[test]
fn copies_follow_links_inside_and_keep_their_names() {
    let lab = Lab::new();
    fs::create_dir_all(lab.tree("data/sub")).unwrap();
    fs::write(lab.tree("data/sub/f"), "12").unwrap();
    symlink("/data", lab.tree("link")).unwrap();
    symlink("../../../outside/secret", lab.tree("out")).unwrap();
    let root = Root::open(lab.tree("")).unwrap();
    let stat = |path: &str| copy::stat(&root, Path::new(path));
    let link = stat("/link").unwrap();
    assert_eq!((link.name.as_str(), link.link_target.as_str(), link.mode >> 27), ("link", "/data", 1));
    assert_eq!(stat("/link/").unwrap().mode, 1 << 31 | 0o755);
    assert_eq!(stat("/out").unwrap().link_target, "/outside/secret");
    assert_eq!((stat("/link/sub/f").unwrap().size, stat("/").unwrap().name.as_str()), (2, "/"));
    assert!(copy::is_not_found(&stat("/none").unwrap_err()));
    assert!(copy::is_not_found(&stat("/data/sub/f/x").unwrap_err()));
    let names = |path: &str| {
        let tar = copy::get(&root, Path::new(path)).unwrap().write(Vec::new()).unwrap();
        let mut names = Vec::new();
        for entry in tar::Archive::new(tar.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut contents = String::new();
            entry.read_to_string(&mut contents).unwrap();
            names.push(format!("{}{}", entry.path().unwrap().display(), contents));
        }
        names
    };
    assert_eq!(names("/data"), ["data/", "data/sub/", "data/sub/f12"]);
    assert_eq!(names("/link/"), ["link/", "link/sub/", "link/sub/f12"]);
    assert_eq!(names("/data/."), ["./", "./sub/", "./sub/f12"]);
    assert_eq!(names("/link/sub/f"), ["f12"]);
    assert_eq!(names("/link"), ["link"]);
}

#[test]
fn what_is_put_stays_inside() {
    let lab = Lab::new();
    fs::create_dir(lab.tree("data")).unwrap();
    symlink("/data", lab.tree("link")).unwrap();
    symlink("../../../../outside", lab.tree("data/out")).unwrap();
    let root = Root::open(lab.tree("")).unwrap();
    let put = |path: &str, tar: &[u8]| {
        let options = copy::PutOptions { owner: Some((7, 8)), ..Default::default() };
        copy::put(&root, Path::new(path), tar, options)
    };
    put("/link", &tar(&[file(".wh.kept"), file("out/new")])).unwrap();
    assert_eq!(fs::metadata(lab.tree("data/.wh.kept")).unwrap().uid(), 7);
    lab.assert_outside_untouched();
    let error = put("/data/.wh.kept", &tar(&[])).unwrap_err();
    assert!(error.to_string().contains("not a directory"), "{error}");
    assert!(copy::is_not_found(&put("/none", &tar(&[])).unwrap_err()));
}
