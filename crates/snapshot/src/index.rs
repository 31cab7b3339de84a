//! The directories of layers and snapshots, and the links by which they are known.
//!
//! ```text
//! <root>/<number>/lower       numbers of the layers below, nearest first: "12 9 3"
//! <root>/<number>/fs          the tree of a layer, or what a container wrote over its layers
//!                 recipe kept beside the tree of a layer, what makes its tar again
//!                 image       of a layer that is an image, all of it (ponton_archive::erofs)
//!                 verity      where the disk checks the image (fs-verity), the digest that it has
//!                 full        on btrfs, a layer with all those below: what snapshots are made of
//!                 work        overlayfs's working directory; snapshots that can be written to
//!                 root        of a snapshot that is a copy, all of it
//!                 view        of a copy that cannot be written to; empty
//! <root>/layers/<hex>         symbolic link to ../<number>: a committed layer, by its chain id
//! <root>/keys/<key>           symbolic link to ../<number>: a snapshot
//! ```
//!
//! A directory exists from the moment its link is made, and no longer from the moment the link is
//! removed: each is one system call. Directories without a link are leftovers. Names are numbers
//! because overlayfs takes its layers as one string of paths. What a directory holds says which
//! driver made it.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use ponton_oci::digest::{ChainId, Digest};

use crate::{Error, Result, Trash};

/// What is known without looking at the disk.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) layers: HashMap<ChainId, Layer>,
    pub(crate) snapshots: HashMap<String, Snapshot>,
    /// Numbers of the layers that are images.
    pub(crate) images: HashSet<u64>,
}

#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) number: u64,
    /// Numbers of the layers below, nearest first.
    pub(crate) lower: Vec<u64>,
}

#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) number: u64,
    /// Numbers of the layers below, nearest first.
    pub(crate) lower: Vec<u64>,
    pub(crate) form: Form,
    pub(crate) writable: bool,
}

/// What a snapshot is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// What was written over the layers.
    Overlay,
    /// All its files.
    Copy,
}

impl Index {
    /// The layers that a child of `parent` stands on.
    pub(crate) fn lower_of(&self, parent: Option<&ChainId>) -> Result<Vec<u64>> {
        let Some(parent) = parent else { return Ok(Vec::new()) };
        let layer = self.layers.get(parent).ok_or_else(|| Error::LayerNotFound(parent.clone()))?;
        Ok([&[layer.number], layer.lower.as_slice()].concat())
    }

    /// Whether something stands on a layer.
    pub(crate) fn is_used(&self, number: u64) -> bool {
        self.layers.values().any(|layer| layer.lower.contains(&number))
            || self.snapshots.values().any(|snapshot| snapshot.lower.contains(&number))
    }
}

/// The directory of all.
#[derive(Debug)]
pub(crate) struct Directories {
    root: PathBuf,
    next: AtomicU64,
}

impl Directories {
    /// Opens the directory, made if need be (mode 0700), and reads the links; one that leads to
    /// nothing complete is left out, for `recover` to remove.
    pub(crate) fn open(root: &Path) -> Result<(Self, Index)> {
        for directory in [root.to_owned(), root.join("layers"), root.join("keys")] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)
                .map_err(Error::io("create directory", &directory))?;
        }
        spread_children(root);
        let mut directories = Self { root: root.to_owned(), next: AtomicU64::new(1) };
        let highest = directories.numbers()?.into_iter().max().unwrap_or_else(random_start);
        directories.next = AtomicU64::new(highest + 1);
        let index = directories.read()?;
        Ok((directories, index))
    }

    fn read(&self) -> Result<Index> {
        let mut index = Index::default();
        for (name, number) in self.links("layers")? {
            let chain = Digest::from_str(&format!("sha256:{name}")).map(ChainId::from);
            if let (Ok(chain), Some(lower)) = (chain, self.read_lower(number)) {
                if self.image(number).exists() {
                    index.images.insert(number);
                }
                index.layers.insert(chain, Layer { number, lower });
            }
        }
        for (name, number) in self.links("keys")? {
            if let Some(lower) = self.read_lower(number) {
                let has = |name: &str| self.of(number).join(name).exists();
                let (form, writable) = match has("root") {
                    true => (Form::Copy, !has("view")),
                    false => (Form::Overlay, has("work")),
                };
                index.snapshots.insert(name, Snapshot { number, lower, form, writable });
            }
        }
        Ok(index)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn of(&self, number: u64) -> PathBuf {
        self.root.join(number.to_string())
    }

    pub(crate) fn tree(&self, number: u64) -> PathBuf {
        self.of(number).join("fs")
    }

    pub(crate) fn image(&self, number: u64) -> PathBuf {
        self.of(number).join("image")
    }

    pub(crate) fn copy(&self, number: u64) -> PathBuf {
        self.of(number).join("root")
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes a numbered directory with these directories in it: those of a tree with the mode that
    /// the root directory of a container has, others for nobody else.
    pub(crate) fn create(&self, number: u64, names: &[&str]) -> Result<()> {
        let create = |path: &Path, mode| {
            fs::DirBuilder::new().mode(mode).create(path).map_err(Error::io("create directory", path))
        };
        let directory = self.of(number);
        create(&directory, 0o700)?;
        for name in names {
            create(&directory.join(name), if *name == "work" { 0o700 } else { 0o755 })?;
        }
        Ok(())
    }

    pub(crate) fn write_lower(&self, number: u64, lower: &[u64]) -> Result<()> {
        let text: Vec<String> = lower.iter().map(u64::to_string).collect();
        let path = self.of(number).join("lower");
        fs::write(&path, text.join(" ")).map_err(Error::io("write", &path))
    }

    fn read_lower(&self, number: u64) -> Option<Vec<u64>> {
        let text = fs::read_to_string(self.of(number).join("lower")).ok()?;
        text.split_whitespace().map(|number| number.parse().ok()).collect()
    }

    pub(crate) fn link_layer(&self, chain: &ChainId, number: u64) -> Result<()> {
        link(&self.root.join("layers").join(chain.hex()), number)
    }

    pub(crate) fn unlink_layer(&self, chain: &ChainId) -> Result<()> {
        unlink(&self.root.join("layers").join(chain.hex()))
    }

    pub(crate) fn link_snapshot(&self, key: &str, number: u64) -> Result<()> {
        link(&self.root.join("keys").join(key), number)
    }

    pub(crate) fn unlink_snapshot(&self, key: &str) -> Result<()> {
        unlink(&self.root.join("keys").join(key))
    }

    /// Removes what an interrupted operation left: links that `index` does not have, and directories
    /// without a link.
    pub(crate) fn recover(&self, index: &Index, trash: &Trash) -> Result<()> {
        let mut used: HashSet<u64> = index.layers.values().map(|layer| layer.number).collect();
        for (name, number) in self.links("layers")? {
            if !used.contains(&number) {
                unlink(&self.root.join("layers").join(name))?;
            }
        }
        for (name, number) in self.links("keys")? {
            if index.snapshots.contains_key(&name) {
                used.insert(number);
            } else {
                unlink(&self.root.join("keys").join(name))?;
            }
        }
        for number in self.numbers()? {
            if !used.contains(&number) {
                trash.discard(&self.of(number));
            }
        }
        Ok(())
    }

    fn links(&self, kind: &str) -> Result<Vec<(String, u64)>> {
        let directory = self.root.join(kind);
        let mut links = Vec::new();
        for entry in fs::read_dir(&directory).map_err(Error::io("read directory", &directory))? {
            let entry = entry.map_err(Error::io("read directory", &directory))?;
            let path = entry.path();
            let target = fs::read_link(&path).map_err(Error::io("read link", &path))?;
            let number = target.file_name().and_then(|name| name.to_str()?.parse().ok());
            if let (Ok(name), Some(number)) = (entry.file_name().into_string(), number) {
                links.push((name, number));
            }
        }
        Ok(links)
    }

    fn numbers(&self) -> Result<Vec<u64>> {
        let entries = fs::read_dir(&self.root).map_err(Error::io("read directory", &self.root))?;
        let mut numbers = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io("read directory", &self.root))?;
            numbers.extend(entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        Ok(numbers)
    }

    /// Waits until all that was written is on the disk.
    pub(crate) fn sync(&self) -> Result<()> {
        let file = File::open(&self.root).map_err(Error::io("open", &self.root))?;
        rustix::fs::syncfs(&file).map_err(Error::io("sync file system of", &self.root))
    }
}

fn link(path: &Path, number: u64) -> Result<()> {
    symlink(format!("../{number}"), path).map_err(Error::io("create link", path))
}

fn unlink(path: &Path) -> Result<()> {
    fs::remove_file(path).map_err(Error::io("remove link", path))
}

/// The number that an empty store begins after. ext4 chooses the place of a directory here by its name, and
/// takes several times longer to make a file where many were deleted in the last minutes: were 1 always the
/// first, a store made anew would meet all that its predecessor left.
fn random_start() -> u64 {
    RandomState::new().build_hasher().finish() & 0xffff
}

/// Tells ext4 that the directories below have nothing to do with each other, so that each tree gets
/// groups of inodes of its own. Otherwise a new tree is made among the inodes of trees deleted a
/// moment ago, which ext4 looks at one by one before it passes them by: five times slower.
///
/// Other file systems don't know the flag and need nothing.
fn spread_children(directory: &Path) {
    let Ok(file) = File::open(directory) else { return };
    if let Ok(flags) = rustix::fs::ioctl_getflags(&file) {
        let _ = rustix::fs::ioctl_setflags(&file, flags | rustix::fs::IFlags::TOPDIR);
    }
}
