//! Files that the kernel writes as they are read.

use std::io;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

/// Most files of procfs and sysfs fit.
const SIZE: usize = 4096;

/// Reads a file whole. Unlike `std::fs::read` it asks for no size, which such files don't have, and
/// reads in large pieces: each costs the kernel a walk through its own tables.
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let file = rustix::fs::openat(CWD, path.as_ref(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut content = Vec::with_capacity(SIZE);
    loop {
        if content.capacity() == content.len() {
            content.reserve(content.len());
        }
        match rustix::io::read(&file, rustix::buffer::spare_capacity(&mut content)) {
            Ok(0) => return Ok(content),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// As [`read`], of a file that is text.
pub fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_whatever_its_size() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for size in [0, 1, SIZE, 3 * SIZE + 7] {
            let content: Vec<u8> = (0..size).map(|at| at as u8).collect();
            std::fs::write(&path, &content).unwrap();
            assert_eq!(read(&path).unwrap(), content);
        }
        assert!(read_text("/proc/self/stat").unwrap().ends_with('\n'));
        assert_eq!(read(directory.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
