//! The snapshotter: one store of layers and snapshots, whichever driver made each of them.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use ponton_archive::create;
use ponton_archive::recipe::Outline;
use ponton_oci::digest::ChainId;
use ponton_sys::path::Root;
use rustix::fs::{Mode, OFlags};

use crate::change::{self, Change, ChangeKind, Deletions};
use crate::index::{Directories, Form, Index, Layer, Snapshot};
use crate::merged::Merged;
use crate::mounted::Mounted;
use crate::{Driver, Error, FilledLayer, LayerWriter, Mount, Result, Snapshotter, Trash, Usage, copy, layer};

/// Layers and snapshots in one directory.
#[derive(Debug)]
pub struct Snapshots {
    directories: Directories,
    driver: Driver,
    index: Mutex<Index>,
    mounted: Mounted,
    trash: Trash,
    /// Held while the tree that copies are made of is made.
    merging: Mutex<()>,
    /// `index=off` where the kernel knows the option: two containers may share a lower layer.
    index_option: bool,
    drivers: OnceLock<Vec<DriverStatus>>,
    /// Paths that are nobody's changes.
    ignored: &'static [&'static str],
}

/// Whether a driver can be used.
#[derive(Debug)]
pub struct DriverStatus {
    /// The driver.
    pub driver: Driver,
    /// Whether new layers and snapshots are made by it.
    pub is_default: bool,
    /// Why it cannot be used here.
    pub unavailable: Option<Error>,
}

impl Snapshots {
    /// Opens a directory, made if need be (mode 0700); `trash` must be on the same file system.
    /// What is new is made by `driver`, or by the first one that can be used here.
    pub fn open(root: &Path, driver: Option<Driver>, trash: Trash) -> Result<Self> {
        let (directories, index) = Directories::open(root)?;
        let driver = match driver {
            Some(driver) => driver
                .probe(root)
                .map(|()| driver)
                .map_err(|source| Error::Unavailable { driver, source: Box::new(source) })?,
            None => {
                let usable = Driver::ALL.into_iter().find(|driver| driver.probe(root).is_ok());
                usable.unwrap_or(Driver::Copy)
            }
        };
        Ok(Self {
            directories,
            driver,
            index: Mutex::new(index),
            mounted: Mounted::default(),
            trash,
            merging: Mutex::default(),
            index_option: Path::new("/sys/module/overlay/parameters/index").exists(),
            drivers: OnceLock::new(),
            ignored: &[],
        })
    }

    /// The same, for which these absolute paths are no changes: the mount points that are made in every
    /// snapshot, whatever its layers have.
    #[must_use]
    pub fn ignoring(self, paths: &'static [&'static str]) -> Self {
        Self { ignored: paths, ..self }
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn layer(&self, chain: &ChainId) -> Result<Layer> {
        let layer = self.index().layers.get(chain).cloned();
        layer.ok_or_else(|| Error::LayerNotFound(chain.clone()))
    }

    fn snapshot(&self, key: &str) -> Result<Snapshot> {
        let snapshot = self.index().snapshots.get(key).cloned();
        snapshot.ok_or_else(|| Error::SnapshotNotFound(key.to_owned()))
    }

    fn create(&self, key: &str, parent: Option<&ChainId>, writable: bool) -> Result<Vec<Mount>> {
        if key.is_empty() || key == "." || key == ".." || key.contains(['/', '\0']) {
            return Err(Error::InvalidKey(key.to_owned()));
        }
        // The snapshot is entered first, so that the layers below cannot be removed meanwhile.
        let number = self.directories.next_number();
        let form = if self.driver.makes_copies() { Form::Copy } else { Form::Overlay };
        let snapshot = {
            let mut index = self.index();
            let lower = index.lower_of(parent)?;
            if index.snapshots.contains_key(key) {
                return Err(Error::SnapshotExists(key.to_owned()));
            }
            let snapshot = Snapshot { number, lower, form, writable };
            index.snapshots.insert(key.to_owned(), snapshot.clone());
            snapshot
        };
        let made = self
            .fill(&snapshot)
            .and_then(|()| self.directories.write_lower(number, &snapshot.lower))
            .and_then(|()| self.directories.link_snapshot(key, number))
            .and_then(|()| self.mounts_of(&snapshot));
        if made.is_err() {
            self.index().snapshots.remove(key);
            let _ = self.directories.unlink_snapshot(key);
            self.trash.discard(&self.directories.of(number));
        }
        made
    }

    fn fill(&self, snapshot: &Snapshot) -> Result<()> {
        let number = snapshot.number;
        match (snapshot.form, snapshot.writable) {
            (Form::Overlay, true) => self.directories.create(number, &["fs", "work"]),
            (Form::Overlay, false) => self.directories.create(number, &["fs"]),
            (Form::Copy, writable) => {
                self.directories.create(number, if writable { &[] } else { &["view"] })?;
                self.copy_layers(snapshot)
            }
        }
    }

    fn copy_layers(&self, snapshot: &Snapshot) -> Result<()> {
        let directory = self.directories.of(snapshot.number);
        let merged = || self.merged(&snapshot.lower);
        if self.driver != Driver::Btrfs {
            return copy::make(&directory, "root", &merged()?);
        }
        let Some(&top) = snapshot.lower.first() else {
            return copy::make_subvolume(&directory, "root", &merged()?);
        };
        let _merging = self.merging.lock().unwrap_or_else(PoisonError::into_inner);
        copy::snapshot(&self.directories.of(top), merged, &directory)
    }

    /// The path at which a layer's own files are.
    fn root_of(&self, number: u64) -> Result<String> {
        if self.index().images.contains(&number) {
            return self.mounted.path(number, &self.directories.image(number));
        }
        Ok(self.directories.tree(number).to_string_lossy().into_owned())
    }

    fn merged(&self, lower: &[u64]) -> Result<Merged> {
        let roots = lower.iter().map(|number| open(Path::new(&self.root_of(*number)?)));
        Ok(Merged::new(roots.collect::<Result<_>>()?))
    }

    fn mounts_of(&self, snapshot: &Snapshot) -> Result<Vec<Mount>> {
        let Snapshot { number, lower, form, writable } = snapshot;
        if *form == Form::Copy {
            return Ok(bind(&self.directories.copy(*number).to_string_lossy(), *writable));
        }
        let tree = self.directories.tree(*number);
        match (lower.as_slice(), writable) {
            ([], _) => return Ok(bind(&tree.to_string_lossy(), *writable)),
            (_, false) => return self.view_of(lower),
            _ => {}
        }
        let work = self.directories.of(*number).join("work");
        let options = vec![format!("upperdir={}", tree.display()), format!("workdir={}", work.display())];
        self.overlay(lower, options)
    }

    /// Layers without anything to write to.
    fn view_of(&self, lower: &[u64]) -> Result<Vec<Mount>> {
        match lower {
            [only] => Ok(bind(&self.root_of(*only)?, false)),
            _ => self.overlay(lower, vec!["ro".into()]),
        }
    }

    fn overlay(&self, lower: &[u64], further: Vec<String>) -> Result<Vec<Mount>> {
        let lower: Vec<String> = lower.iter().map(|number| self.root_of(*number)).collect::<Result<_>>()?;
        let mut options = vec![format!("lowerdir={}", lower.join(":"))];
        options.extend(further);
        if self.index_option {
            options.push("index=off".into());
        }
        Ok(vec![Mount { r#type: "overlay".into(), source: "overlay".into(), target: None, options }])
    }
}

impl Snapshotter for Snapshots {
    fn name(&self) -> &'static str {
        self.driver.name()
    }

    fn drivers(&self) -> &[DriverStatus] {
        let status = |driver: Driver| DriverStatus {
            driver,
            is_default: driver == self.driver,
            unavailable: driver.probe(self.directories.root()).err(),
        };
        self.drivers.get_or_init(|| Driver::ALL.into_iter().map(status).collect())
    }

    fn prepare(&self, key: &str, parent: Option<&ChainId>) -> Result<Vec<Mount>> {
        self.create(key, parent, true)
    }

    fn view(&self, key: &str, parent: &ChainId) -> Result<Vec<Mount>> {
        self.create(key, Some(parent), false)
    }

    fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        let snapshot = self.snapshot(key)?;
        if snapshot.form == Form::Overlay {
            // What a mount with the option `volatile` leaves, and without whose removal there is no
            // second mount.
            let work = self.directories.of(snapshot.number).join("work/work/incompat");
            let _ = fs::remove_file(work.join("volatile/dirty"));
            let _ = fs::remove_dir(work.join("volatile"));
            let _ = fs::remove_dir(work);
        }
        self.mounts_of(&snapshot)
    }

    fn remove(&self, key: &str) -> Result<()> {
        let snapshot = self.index().snapshots.remove(key);
        let snapshot = snapshot.ok_or_else(|| Error::SnapshotNotFound(key.to_owned()))?;
        self.directories.unlink_snapshot(key)?;
        self.trash.discard(&self.directories.of(snapshot.number));
        Ok(())
    }

    fn usage(&self, key: &str) -> Result<Usage> {
        let snapshot = self.snapshot(key)?;
        tree_usage(&self.own_files(&snapshot))
    }

    fn diff(&self, key: &str) -> Result<Vec<Change>> {
        let snapshot = self.snapshot(key)?;
        let path = self.own_files(&snapshot);
        let deletions = match snapshot.form {
            Form::Overlay => Deletions::Marked,
            Form::Copy => Deletions::Missing,
        };
        change::compare(&open(&path)?, &self.merged(&snapshot.lower)?, deletions, self.ignored)
            .map_err(Error::io("compare with its layers", &path))
    }

    fn write_changes(&self, key: &str, output: &mut dyn Write) -> Result<(), ponton_archive::Error> {
        let failed = |error: Error| ponton_archive::Error::Io {
            operation: "read the changes of",
            path: key.to_owned(),
            source: io::Error::other(error),
        };
        let snapshot = self.snapshot(key).map_err(failed)?;
        let path = self.own_files(&snapshot);
        let own = open(&path).map_err(failed)?;
        if snapshot.form == Form::Overlay && self.ignored.is_empty() {
            return create::layer_of_overlay(own.as_fd(), output).map(drop);
        }
        let changes = self.diff(key).map_err(failed)?;
        let changes = changes.iter().map(|change| create::Change {
            path: change.path.as_os_str().as_bytes().strip_prefix(b"/").unwrap_or_default(),
            is_deleted: change.kind == ChangeKind::Deleted,
        });
        create::layer_of_changes(&Root::from_fd(own), changes, output).map(drop)
    }

    fn begin_layer(&self) -> Result<LayerWriter> {
        LayerWriter::new(&self.directories, self.driver.makes_images(), self.trash.clone())
    }

    fn commit_layers(&self, layers: Vec<FilledLayer>) -> Result<()> {
        let mut stacks: HashMap<ChainId, Vec<u64>> = HashMap::new();
        let mut new = Vec::new();
        for filled in layers {
            if self.has_layer(&filled.chain) || stacks.contains_key(&filled.chain) {
                continue;
            }
            let lower = match filled.parent.as_ref().and_then(|parent| stacks.get(parent)) {
                Some(stack) => stack.clone(),
                None => self.index().lower_of(filled.parent.as_ref())?,
            };
            let number = filled.writer.number;
            self.directories.write_lower(number, &lower)?;
            stacks.insert(filled.chain.clone(), [&[number], lower.as_slice()].concat());
            new.push((filled, Layer { number, lower }));
        }
        if new.is_empty() {
            return Ok(());
        }
        self.directories.sync()?;
        for (mut filled, layer) in new {
            let mut index = self.index();
            if index.layers.contains_key(&filled.chain) {
                continue;
            }
            self.directories.link_layer(&filled.chain, layer.number)?;
            filled.writer.committed = true;
            if filled.writer.is_image() {
                index.images.insert(layer.number);
            }
            index.layers.insert(filled.chain, layer);
        }
        Ok(())
    }

    fn has_layer(&self, chain: &ChainId) -> bool {
        self.index().layers.contains_key(chain)
    }

    fn write_tar(&self, chain: &ChainId, output: &mut dyn Write) -> Result<(), ponton_archive::Error> {
        let (number, is_image) = self.form_of(chain)?;
        layer::write_tar(&self.directories.of(number), is_image, output)
    }

    fn outline(&self, chain: &ChainId) -> Result<Option<Outline>, ponton_archive::Error> {
        let (number, is_image) = self.form_of(chain)?;
        (!is_image).then(|| Outline::open(&self.directories.of(number))).transpose()
    }

    fn layer_mounts(&self, chain: &ChainId) -> Result<Vec<Mount>> {
        let Layer { number, lower } = self.layer(chain)?;
        self.view_of(&[&[number], lower.as_slice()].concat())
    }

    fn remove_layer(&self, chain: &ChainId) -> Result<()> {
        let mut index = self.index();
        let layer = index.layers.get(chain).ok_or_else(|| Error::LayerNotFound(chain.clone()))?;
        let number = layer.number;
        if index.is_used(number) {
            return Err(Error::LayerInUse(chain.clone()));
        }
        self.directories.unlink_layer(chain)?;
        index.layers.remove(chain);
        index.images.remove(&number);
        drop(index);
        if let Some(mount) = self.mounted.remove(number) {
            self.trash.close(mount);
        }
        self.trash.discard(&self.directories.of(number));
        Ok(())
    }

    fn layers(&self) -> Vec<ChainId> {
        self.index().layers.keys().cloned().collect()
    }

    fn snapshots(&self) -> Vec<String> {
        self.index().snapshots.keys().cloned().collect()
    }

    fn recover(&self) -> Result<()> {
        self.directories.recover(&self.index(), &self.trash)
    }
}

impl Snapshots {
    /// A layer's number, and whether it is one image.
    fn form_of(&self, chain: &ChainId) -> Result<(u64, bool), ponton_archive::Error> {
        let not_found = |error| ponton_archive::Error::Read(io::Error::new(io::ErrorKind::NotFound, error));
        let number = self.layer(chain).map_err(not_found)?.number;
        let is_image = self.index().images.contains(&number);
        Ok((number, is_image))
    }

    /// Where a snapshot's own files are.
    fn own_files(&self, snapshot: &Snapshot) -> std::path::PathBuf {
        match snapshot.form {
            Form::Overlay => self.directories.tree(snapshot.number),
            Form::Copy => self.directories.copy(snapshot.number),
        }
    }
}

fn open(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::io("open directory", path))
}

fn bind(source: &str, writable: bool) -> Vec<Mount> {
    let options = vec!["rbind".into(), if writable { "rw" } else { "ro" }.into()];
    vec![Mount { r#type: "bind".into(), source: source.to_owned(), target: None, options }]
}

fn tree_usage(root: &Path) -> Result<Usage> {
    let mut usage = Usage::default();
    let mut linked = std::collections::HashSet::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            // A running container may remove it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
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
