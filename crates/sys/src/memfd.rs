//! Sealed memory files (memfd_create(2)).

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::{Error, Result};

/// A copy of `source`, from its start, that nobody can change any more: a program that is executed
/// from it cannot be overwritten through `/proc/self/exe`.
// Inlined, its buffer would lie on the stack of whoever may call it.
#[inline(never)]
pub fn sealed_copy(source: &mut File, name: &str) -> Result<OwnedFd> {
    let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::EXEC)
        .or_else(|_| memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING))
        .map_err(Error::of("memfd_create", name))?;
    let mut file = File::from(fd);
    source.seek(SeekFrom::Start(0)).map_err(Error::of("seek", name))?;
    std::io::copy(source, &mut file).map_err(Error::of("copy into memfd", name))?;
    file.seek(SeekFrom::Start(0)).map_err(Error::of("seek", name))?;
    fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)
        .map_err(Error::of("seal", name))?;
    Ok(file.into())
}

/// Whether a file is a memory file that nobody can write to any more.
pub fn is_sealed(file: impl std::os::fd::AsFd) -> bool {
    rustix::fs::fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SealFlags::WRITE))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_sealed_copy_is_equal_and_cannot_be_written() {
        let mut source = tempfile();
        source.write_all(b"program").unwrap();
        assert!(!is_sealed(&source));
        let mut copy = File::from(sealed_copy(&mut source, "test").unwrap());
        let mut text = String::new();
        copy.read_to_string(&mut text).unwrap();
        assert_eq!(text, "program");
        assert!(is_sealed(&copy));
        assert_eq!(copy.write(b"x").unwrap_err().raw_os_error(), Some(libc::EPERM));
    }

    fn tempfile() -> File {
        File::from(memfd_create("source", MemfdFlags::CLOEXEC).unwrap())
    }
}
