//! What the kernel shows of a tree, to compare an image with a directory. Used by tests, and by the
//! fuzz target of images.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use ponton_sys::mount::{Context, MOUNT_ATTR_RDONLY};

/// Mounts an image, seen by nobody.
pub(crate) fn mount(image: &Path) -> Result<OwnedFd, ponton_sys::Error> {
    let context = Context::new("erofs")?;
    context.set("source", image.to_str().expect("a path in UTF-8"))?;
    context.set_flag("ro")?;
    context.mount(MOUNT_ATTR_RDONLY)
}

/// The path of something that is open.
pub(crate) fn path_of(file: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}/.", file.as_raw_fd()).into()
}

/// All paths of a tree with all that can be known of each, but for the times of directories and of
/// whiteouts, which an archive need not say.
pub(crate) fn describe(root: &Path) -> io::Result<BTreeMap<PathBuf, String>> {
    let mut all = BTreeMap::new();
    let mut first_names = BTreeMap::new();
    let mut directories = vec![PathBuf::new()];
    all.insert(PathBuf::new(), describe_one(root, &mut first_names, Path::new(""))?);
    while let Some(directory) = directories.pop() {
        let mut entries: Vec<_> =
            fs::read_dir(root.join(&directory))?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
        entries.sort();
        for path in entries {
            let name = directory.join(path.file_name().unwrap_or_default());
            if fs::symlink_metadata(&path)?.is_dir() {
                directories.push(name.clone());
            }
            all.insert(name.clone(), describe_one(&path, &mut first_names, &name)?);
        }
    }
    Ok(all)
}

fn describe_one(path: &Path, first_names: &mut BTreeMap<u64, PathBuf>, name: &Path) -> io::Result<String> {
    let metadata = fs::symlink_metadata(path)?;
    let r#type = metadata.file_type();
    let mut text = format!("{:o} {}:{}", metadata.mode(), metadata.uid(), metadata.gid());
    let is_whiteout = r#type.is_char_device() && metadata.rdev() == 0;
    if !r#type.is_dir() {
        let first = first_names.entry(metadata.ino()).or_insert_with(|| name.to_owned());
        text += &format!(" {} links, as {}", metadata.nlink(), first.display());
    }
    if !r#type.is_dir() && !is_whiteout {
        text += &format!(" at {}.{}", metadata.mtime(), metadata.mtime_nsec());
    }
    if r#type.is_file() {
        let contents = read(path, metadata.len())?;
        let sum = contents.iter().fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
        text += &format!(" {} {} {sum:x}", metadata.len(), contents.len());
    } else if r#type.is_symlink() {
        text += &format!(" {} {}", metadata.len(), fs::read_link(path)?.display());
    } else if r#type.is_char_device() || r#type.is_block_device() {
        text += &format!(" {:x}", metadata.rdev());
    }
    for (name, value) in xattrs(path)? {
        text += &format!(" {}={:x?}", OsStr::from_bytes(&name).display(), value);
    }
    Ok(text)
}

/// A file's contents; of a large one only both ends, for it may be a hole of any size.
fn read(path: &Path, size: u64) -> io::Result<Vec<u8>> {
    const END: u64 = 4 << 20;
    let mut file = fs::File::open(path)?;
    let mut contents = Vec::new();
    (&mut file).take(END).read_to_end(&mut contents)?;
    file.seek(SeekFrom::Start((contents.len() as u64).max(size.saturating_sub(END))))?;
    file.take(END).read_to_end(&mut contents)?;
    Ok(contents)
}

fn xattrs(path: &Path) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut names = vec![0u8; 1 << 16];
    let length = rustix::fs::llistxattr(path, &mut names)?;
    let mut all = BTreeMap::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0u8; 1 << 16];
        let length = rustix::fs::lgetxattr(path, std::ffi::OsString::from_vec(name.to_vec()), &mut value)?;
        value.truncate(length);
        all.insert(name.to_vec(), value);
    }
    Ok(all)
}
