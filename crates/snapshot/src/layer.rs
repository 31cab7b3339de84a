//! A layer's tar goes in, and comes out again.

use std::fs::{self, File};
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use ponton_archive::apply::{Applier, Options, Stats, Whiteouts};
use ponton_archive::recipe::{self, Recorder};
use ponton_archive::{Error, Result};
use ponton_sys::path::Root;

use crate::Trash;

/// A layer being filled: invisible until it is committed, discarded when dropped.
#[derive(Debug)]
pub struct LayerWriter {
    pub(crate) directory: PathBuf,
    pub(crate) trash: Trash,
    pub(crate) committed: bool,
}

impl LayerWriter {
    /// Unpacks the layer's tar, decompressed, to its end. To be called once.
    pub fn unpack(&self, tar: impl BufRead) -> Result<Stats> {
        unpack_tree(&self.directory, tar)
    }

    /// Writes the tar that was unpacked, byte for byte.
    pub fn write_tar(&self, output: &mut dyn Write) -> Result<()> {
        recipe::rebuild(&self.directory, output)
    }

    /// The directory that holds the tree as `fs`; what belongs to the layer without being part of
    /// the tree may stand beside it, and lives as long as the layer.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for LayerWriter {
    fn drop(&mut self) {
        if !self.committed {
            self.trash.discard(&self.directory);
        }
    }
}

/// A tree of files, and beside it the recipe that makes the tar of it again.
fn unpack_tree(directory: &Path, tar: impl BufRead) -> Result<Stats> {
    let failed = |operation, path: &Path| {
        let path = path.display().to_string();
        move |source| Error::Io { operation, path, source }
    };
    let tree = directory.join("fs");
    let root = Root::open(&tree).map_err(|error| failed("open tree", &tree)(error.source))?;
    let kept_path = directory.join("kept");
    fs::create_dir(&kept_path).map_err(failed("create directory", &kept_path))?;
    let kept = File::open(&kept_path).map_err(failed("open directory", &kept_path))?;
    let recipe = directory.join("recipe");
    let file = File::create(&recipe).map_err(failed("create", &recipe))?;
    let options = Options { whiteouts: Whiteouts::Overlay, kept: Some(kept.into()), ..Options::default() };
    let mut recorder = Recorder::new(Box::new(file) as Box<dyn Write + Send>)?;
    let stats = Applier::new(root, options)?.apply(tar, Some(&mut recorder))?;
    recorder.finish()?;
    // It stays where something is in it.
    let _ = fs::remove_dir(&kept_path);
    Ok(stats)
}
