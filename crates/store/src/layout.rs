//! The data root itself: its directories, its lock and its version.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use crate::LAYOUT_VERSION;
use crate::error::{Error, Result};

/// Makes a directory that only its owner can look into, or makes an existing one so.
pub(crate) fn make_private_directory(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::io("mkdir", path))?;
    let mode = fs::metadata(path).map_err(Error::io("stat", path))?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(Error::io("chmod", path))?;
    }
    Ok(())
}

/// Refuses a data root of a layout that is not known; an empty one has none yet.
pub(crate) fn check_version(path: &Path) -> Result<()> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    match text.trim().parse() {
        Ok(1..=LAYOUT_VERSION) => Ok(()),
        _ => Err(Error::Version {
            path: path.to_owned(),
            found: text.trim().chars().take(40).collect(),
            supported: LAYOUT_VERSION,
        }),
    }
}

/// Writes our number, where it is not there.
pub(crate) fn write_version(path: &Path) -> Result<()> {
    let text = format!("{LAYOUT_VERSION}\n");
    if fs::read_to_string(path).is_ok_and(|known| known == text) {
        return Ok(());
    }
    // By rename, so that a kill leaves no empty file that would be refused for ever.
    let new = path.with_extension("new");
    fs::write(&new, text).map_err(Error::io("write", &new))?;
    fs::rename(&new, path).map_err(Error::io("rename", &new))
}

/// The data root's lock (flock(2)); the kernel gives it up when the process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    pub(crate) fn take(path: &Path) -> Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(Error::io("open", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let read = (&mut file).take(20).read_to_string(&mut pid);
                let known = read.is_ok() && !pid.trim().is_empty();
                let pid = if known { pid.trim().to_owned() } else { "unknown".to_owned() };
                return Err(Error::Locked { path: path.to_owned(), pid });
            }
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", path)(error)),
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(Error::io("write", path))?;
        Ok(Self { _file: file })
    }
}
