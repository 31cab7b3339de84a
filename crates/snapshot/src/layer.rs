//! A layer's tar goes in, and comes out again.

use std::fs::{self, File};
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use ponton_archive::apply::{Applier, Options, Stats, Whiteouts};
use ponton_archive::recipe::{self, Recorder};
use ponton_archive::{Error, Result, erofs};
use ponton_sys::path::Root;
use ponton_sys::verity;

use crate::Trash;
use crate::index::Directories;

/// A layer being filled: invisible until it is committed, discarded when dropped.
#[derive(Debug)]
pub struct LayerWriter {
    pub(crate) number: u64,
    directory: PathBuf,
    is_image: bool,
    trash: Trash,
    pub(crate) committed: bool,
}

impl LayerWriter {
    pub(crate) fn new(directories: &Directories, is_image: bool, trash: Trash) -> crate::Result<Self> {
        let number = directories.next_number();
        directories.create(number, if is_image { &[] } else { &["fs"] })?;
        Ok(Self { number, directory: directories.of(number), is_image, trash, committed: false })
    }

    /// Unpacks the layer's tar, decompressed, to its end. To be called once.
    pub fn unpack(&self, tar: impl BufRead) -> Result<Stats> {
        if self.is_image { write_image(&self.directory, tar) } else { unpack_tree(&self.directory, tar) }
    }

    /// Writes the tar that was unpacked, byte for byte.
    pub fn write_tar(&self, output: &mut dyn Write) -> Result<()> {
        write_tar(&self.directory, self.is_image, output)
    }

    pub(crate) fn is_image(&self) -> bool {
        self.is_image
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

fn write_image(directory: &Path, tar: impl BufRead) -> Result<Stats> {
    let path = directory.join("image");
    let file = File::options().read(true).write(true).create_new(true).open(&path);
    let file = file.map_err(failed("create", &path))?;
    let stats = erofs::write(tar, &file)?;
    drop(file);
    seal(directory, &path).map_err(failed("seal", &path))?;
    Ok(stats)
}

/// Has the disk check the image at each read, where it can.
fn seal(directory: &Path, image: &Path) -> io::Result<()> {
    let file = File::open(image)?;
    if verity::enable(&file).is_err() {
        return Ok(());
    }
    let digest = verity::measure(&file).map_err(|error| error.source)?;
    fs::write(directory.join("verity"), digest)
}

/// Makes sure that a sealed image is the one that was sealed.
pub(crate) fn check_seal(image: &Path) -> io::Result<()> {
    let sealed = match fs::read(image.with_file_name("verity")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        sealed => sealed?,
    };
    let found = verity::measure(File::open(image)?).map_err(|error| error.source)?;
    if sealed == found {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "the image is not the one that was made"))
}

/// Writes the tar of the layer in a directory.
pub(crate) fn write_tar(directory: &Path, is_image: bool, output: &mut dyn Write) -> Result<()> {
    if !is_image {
        return recipe::rebuild(directory, output);
    }
    let path = directory.join("image");
    erofs::write_tar(&File::open(&path).map_err(failed("open", &path))?, output)
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.display().to_string();
    move |source| Error::Io { operation, path, source }
}
