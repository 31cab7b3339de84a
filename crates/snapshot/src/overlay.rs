//! The overlayfs driver.
//!
//! ```text
//! <root>/<number>/fs          the tree: of a layer, or what a container wrote
//! <root>/<number>/work        overlayfs's working directory; snapshots only
//! <root>/<number>/lower       numbers of the layers below, nearest first; "12 9 3"
//! <root>/layers/<hex>         symbolic link to ../<number>: a committed layer, by its chain id
//! <root>/keys/<key>           symbolic link to ../<number>: a snapshot
//! ```
//!
//! A directory exists for the driver from the moment its link is made, and no longer from the
//! moment the link is removed: each is one system call. Directories without a link are leftovers.
//! Names are numbers because overlayfs takes its layers as one string of paths.

use std::collections::HashMap;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ponton_oci::digest::{ChainId, Digest};

use crate::{Change, Error, FilledLayer, LayerWriter, Mount, Result, Snapshotter, Trash, Usage};

/// Snapshots by overlayfs.
#[derive(Debug)]
pub struct Overlay {
    root: PathBuf,
    trash: Trash,
    next: AtomicU64,
    index: Mutex<Index>,
    /// `index=off` where the kernel knows the option: two containers may share a lower layer.
    index_option: bool,
}

#[derive(Debug, Default)]
struct Index {
    layers: HashMap<ChainId, Entry>,
    snapshots: HashMap<String, Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    number: u64,
    /// Numbers of the layers below, nearest first.
    lower: Vec<u64>,
}

impl Overlay {
    /// Opens the driver's directory, made if need be (mode 0700); `trash` must be on the same file
    /// system.
    pub fn open(root: &Path, trash: Trash) -> Result<Self> {
        for directory in [root.to_owned(), root.join("layers"), root.join("keys")] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)
                .map_err(Error::io("create directory", &directory))?;
        }
        spread_children(root);
        let mut overlay = Self {
            root: root.to_owned(),
            trash,
            next: AtomicU64::new(1),
            index: Mutex::default(),
            index_option: Path::new("/sys/module/overlay/parameters/index").exists(),
        };
        overlay.load()?;
        Ok(overlay)
    }

    /// Reads the links; one that leads to nothing complete is left out, for `recover` to remove.
    fn load(&mut self) -> Result<()> {
        let mut index = Index::default();
        for (name, number) in self.links("layers")? {
            let chain = Digest::from_str(&format!("sha256:{name}")).map(ChainId::from);
            if let (Ok(chain), Some(lower)) = (chain, self.read_lower(number)) {
                index.layers.insert(chain, Entry { number, lower });
            }
        }
        for (name, number) in self.links("keys")? {
            if let Some(lower) = self.read_lower(number) {
                index.snapshots.insert(name, Entry { number, lower });
            }
        }
        let highest = self.numbers()?.into_iter().max().unwrap_or_else(random_start);
        self.next = AtomicU64::new(highest + 1);
        self.index = Mutex::new(index);
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

    fn read_lower(&self, number: u64) -> Option<Vec<u64>> {
        let text = fs::read_to_string(self.directory(number).join("lower")).ok()?;
        text.split_whitespace().map(|number| number.parse().ok()).collect()
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn directory(&self, number: u64) -> PathBuf {
        self.root.join(number.to_string())
    }

    fn tree(&self, number: u64) -> PathBuf {
        self.directory(number).join("fs")
    }

    fn link_of_layer(&self, chain: &ChainId) -> PathBuf {
        self.root.join("layers").join(chain.hex())
    }

    fn link_of_snapshot(&self, key: &str) -> PathBuf {
        self.root.join("keys").join(key)
    }

    /// Makes a numbered directory with `fs` and `lower`, and `work` for a writable snapshot. The
    /// tree has the mode that the root directory of a container has.
    fn create_directory(&self, number: u64, lower: &[u64], writable: bool) -> Result<()> {
        let directory = self.directory(number);
        let create = |path: &Path, mode| {
            fs::DirBuilder::new().mode(mode).create(path).map_err(Error::io("create directory", path))
        };
        create(&directory, 0o700)?;
        create(&directory.join("fs"), 0o755)?;
        if writable {
            create(&directory.join("work"), 0o700)?;
        }
        write_lower(&directory, lower)
    }

    fn create_snapshot(&self, key: &str, parent: Option<&ChainId>, writable: bool) -> Result<Vec<Mount>> {
        if key.is_empty() || key == "." || key == ".." || key.contains(['/', '\0']) {
            return Err(Error::InvalidKey(key.to_owned()));
        }
        // The snapshot is entered first, so that the layers below cannot be removed meanwhile.
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let entry = {
            let mut index = self.index();
            let lower = lower_of(&index, parent)?;
            if index.snapshots.contains_key(key) {
                return Err(Error::SnapshotExists(key.to_owned()));
            }
            let entry = Entry { number, lower };
            index.snapshots.insert(key.to_owned(), entry.clone());
            entry
        };
        let link = self.link_of_snapshot(key);
        let made = self
            .create_directory(number, &entry.lower, writable)
            .and_then(|()| symlink(format!("../{number}"), &link).map_err(Error::io("create link", &link)));
        if let Err(error) = made {
            self.index().snapshots.remove(key);
            self.trash.discard(&self.directory(number));
            return Err(error);
        }
        Ok(self.mounts_of(&entry, writable))
    }

    fn mounts_of(&self, entry: &Entry, writable: bool) -> Vec<Mount> {
        let bind = |number, mode: &str| Mount {
            r#type: "bind".into(),
            source: self.tree(number).to_string_lossy().into_owned(),
            target: None,
            options: vec!["rbind".into(), mode.into()],
        };
        match (entry.lower.as_slice(), writable) {
            ([], true) => return vec![bind(entry.number, "rw")],
            ([], false) => return vec![bind(entry.number, "ro")],
            ([only], false) => return vec![bind(*only, "ro")],
            _ => {}
        }
        let lower: Vec<String> =
            entry.lower.iter().map(|number| self.tree(*number).to_string_lossy().into_owned()).collect();
        let mut options = vec![format!("lowerdir={}", lower.join(":"))];
        if writable {
            options.push(format!("upperdir={}", self.tree(entry.number).display()));
            options.push(format!("workdir={}", self.directory(entry.number).join("work").display()));
        } else {
            options.push("ro".into());
        }
        if self.index_option {
            options.push("index=off".into());
        }
        vec![Mount { r#type: "overlay".into(), source: "overlay".into(), target: None, options }]
    }
}

impl Snapshotter for Overlay {
    /// Docker's clients look for this name.
    fn name(&self) -> &'static str {
        "overlay2"
    }

    fn prepare(&self, key: &str, parent: Option<&ChainId>) -> Result<Vec<Mount>> {
        self.create_snapshot(key, parent, true)
    }

    fn view(&self, key: &str, parent: &ChainId) -> Result<Vec<Mount>> {
        self.create_snapshot(key, Some(parent), false)
    }

    fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        let entry = self.index().snapshots.get(key).cloned();
        let entry = entry.ok_or_else(|| Error::SnapshotNotFound(key.to_owned()))?;
        let work = self.directory(entry.number).join("work");
        // What a mount with the option `volatile` leaves, and without whose removal there is no
        // second mount.
        let _ = fs::remove_dir(work.join("work/incompat/volatile"));
        let _ = fs::remove_dir(work.join("work/incompat"));
        Ok(self.mounts_of(&entry, work.exists()))
    }

    fn remove(&self, key: &str) -> Result<()> {
        let entry = self.index().snapshots.remove(key);
        let entry = entry.ok_or_else(|| Error::SnapshotNotFound(key.to_owned()))?;
        let link = self.link_of_snapshot(key);
        fs::remove_file(&link).map_err(Error::io("remove link", &link))?;
        self.trash.discard(&self.directory(entry.number));
        Ok(())
    }

    fn usage(&self, key: &str) -> Result<Usage> {
        let entry = self.index().snapshots.get(key).cloned();
        let entry = entry.ok_or_else(|| Error::SnapshotNotFound(key.to_owned()))?;
        tree_usage(&self.tree(entry.number))
    }

    fn diff(&self, key: &str) -> Result<Vec<Change>> {
        let path = self.root.join("keys").join(key);
        Err(Error::io("compare", &path)(rustix::io::Errno::NOSYS))
    }

    fn write_changes(&self, key: &str, output: &mut dyn Write) -> Result<(), ponton_archive::Error> {
        let entry = self.index().snapshots.get(key).cloned();
        let read = |source| ponton_archive::Error::Io { operation: "open", path: key.to_owned(), source };
        let entry = entry.ok_or_else(|| {
            let missing = Error::SnapshotNotFound(key.to_owned());
            read(std::io::Error::new(std::io::ErrorKind::NotFound, missing))
        })?;
        let upper = File::open(self.tree(entry.number)).map_err(read)?;
        ponton_archive::create::layer_of_overlay(upper.as_fd(), output)?;
        Ok(())
    }

    fn begin_layer(&self) -> Result<LayerWriter> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.create_directory(number, &[], false)?;
        Ok(LayerWriter { directory: self.directory(number), trash: self.trash.clone(), committed: false })
    }

    fn commit_layers(&self, layers: Vec<FilledLayer>) -> Result<()> {
        let mut numbers: HashMap<ChainId, Vec<u64>> = HashMap::new();
        let mut new = Vec::new();
        for layer in layers {
            if self.has_layer(&layer.chain) || numbers.contains_key(&layer.chain) {
                continue;
            }
            let lower = match layer.parent.as_ref().and_then(|parent| numbers.get(parent)) {
                Some(below) => below.clone(),
                None => lower_of(&self.index(), layer.parent.as_ref())?,
            };
            let directory = &layer.writer.directory;
            let number = directory.file_name().and_then(|name| name.to_str()?.parse().ok());
            let number = number.ok_or_else(|| Error::LayerNotFound(layer.chain.clone()))?;
            write_lower(directory, &lower)?;
            numbers.insert(layer.chain.clone(), [&[number], lower.as_slice()].concat());
            new.push((layer, Entry { number, lower }));
        }
        if new.is_empty() {
            return Ok(());
        }
        sync_file_system(&self.root)?;
        for (mut layer, entry) in new {
            let link = self.link_of_layer(&layer.chain);
            let mut index = self.index();
            if index.layers.contains_key(&layer.chain) {
                continue;
            }
            symlink(format!("../{}", entry.number), &link).map_err(Error::io("create link", &link))?;
            layer.writer.committed = true;
            index.layers.insert(layer.chain, entry);
        }
        Ok(())
    }

    fn has_layer(&self, chain: &ChainId) -> bool {
        self.index().layers.contains_key(chain)
    }

    fn write_tar(&self, chain: &ChainId, output: &mut dyn Write) -> Result<(), ponton_archive::Error> {
        let entry = self.index().layers.get(chain).cloned();
        let entry = entry.ok_or_else(|| ponton_archive::Error::Read(not_found(chain)))?;
        ponton_archive::recipe::rebuild(&self.directory(entry.number), output)
    }

    fn layer_directory(&self, chain: &ChainId) -> Result<PathBuf> {
        let index = self.index();
        let entry = index.layers.get(chain).ok_or_else(|| Error::LayerNotFound(chain.clone()))?;
        Ok(self.directory(entry.number))
    }

    fn remove_layer(&self, chain: &ChainId) -> Result<()> {
        let mut index = self.index();
        let entry = index.layers.get(chain).ok_or_else(|| Error::LayerNotFound(chain.clone()))?;
        let number = entry.number;
        if index.layers.values().chain(index.snapshots.values()).any(|other| other.lower.contains(&number)) {
            return Err(Error::LayerInUse(chain.clone()));
        }
        let link = self.link_of_layer(chain);
        fs::remove_file(&link).map_err(Error::io("remove link", &link))?;
        index.layers.remove(chain);
        drop(index);
        self.trash.discard(&self.directory(number));
        Ok(())
    }

    fn layers(&self) -> Vec<ChainId> {
        self.index().layers.keys().cloned().collect()
    }

    fn snapshots(&self) -> Vec<String> {
        self.index().snapshots.keys().cloned().collect()
    }

    fn recover(&self) -> Result<()> {
        let mut used = Vec::new();
        for (kind, complete) in [("layers", true), ("keys", false)] {
            for (name, number) in self.links(kind)? {
                let index = self.index();
                let known = if complete {
                    index.layers.values().any(|entry| entry.number == number)
                } else {
                    index.snapshots.contains_key(&name)
                };
                if known {
                    used.push(number);
                } else {
                    let link = self.root.join(kind).join(name);
                    fs::remove_file(&link).map_err(Error::io("remove link", &link))?;
                }
            }
        }
        used.sort_unstable();
        for number in self.numbers()? {
            if used.binary_search(&number).is_err() {
                self.trash.discard(&self.directory(number));
            }
        }
        Ok(())
    }
}

/// The layers that a child of `parent` stands on.
fn lower_of(index: &Index, parent: Option<&ChainId>) -> Result<Vec<u64>> {
    let Some(parent) = parent else { return Ok(Vec::new()) };
    let entry = index.layers.get(parent).ok_or_else(|| Error::LayerNotFound(parent.clone()))?;
    Ok([&[entry.number], entry.lower.as_slice()].concat())
}

fn not_found(chain: &ChainId) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::NotFound, Error::LayerNotFound(chain.clone()))
}

fn write_lower(directory: &Path, lower: &[u64]) -> Result<()> {
    let text: Vec<String> = lower.iter().map(u64::to_string).collect();
    let path = directory.join("lower");
    fs::write(&path, text.join(" ")).map_err(Error::io("write", &path))
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

fn sync_file_system(directory: &Path) -> Result<()> {
    let file = File::open(directory).map_err(Error::io("open", directory))?;
    rustix::fs::syncfs(&file).map_err(Error::io("sync file system of", directory))
}

fn tree_usage(root: &Path) -> Result<Usage> {
    let mut usage = Usage::default();
    let mut linked = std::collections::HashSet::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            // A running container may remove it meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("read directory", &directory)(error)),
        };
        for entry in entries {
            let entry = entry.map_err(Error::io("read directory", &directory))?;
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                directories.push(entry.path());
            } else if metadata.nlink() > 1 && !linked.insert(metadata.ino()) {
                continue;
            }
            usage.inodes += 1;
            if metadata.is_file() {
                usage.bytes += metadata.size();
            }
        }
    }
    Ok(usage)
}
