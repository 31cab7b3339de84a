//! What a shim leaves on disk, so that nothing is lost with it:
//!
//! ```text
//! <state dir>/<container>/shim.json               Status, as of the start: enough for a successor
//! <state dir>/<container>/exit.json               Exit of the container's first process
//! <state dir>/<container>/exec-<exec>.exit.json   Exit of an exec
//! ```

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::shim::protocol::{Exit, Status};

const STATUS: &str = "shim.json";
const EXIT: &str = "exit.json";

/// The directory with one directory for each container.
#[derive(Debug)]
pub(super) struct Records {
    directory: PathBuf,
}

impl Records {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// The directory of a container's records; it may not be there yet.
    pub(super) fn directory_of(&self, container: &str) -> PathBuf {
        self.directory.join(container)
    }

    /// Writes what a successor needs.
    pub(super) fn write_status(&self, status: &Status) -> io::Result<()> {
        self.write(&status.container, STATUS, status)
    }

    /// Writes how a process ended.
    pub(super) fn write_exit(&self, container: &str, exec: Option<&str>, exit: &Exit) -> io::Result<()> {
        match exec {
            None => self.write(container, EXIT, exit),
            Some(exec) => self.write(container, &exec_file(exec), exit),
        }
    }

    /// Removes the record of an exec.
    pub(super) fn forget_exec(&self, container: &str, exec: &str) -> io::Result<()> {
        remove(&self.directory.join(container).join(exec_file(exec)))
    }

    /// Removes the records of a container; its directory too, if nothing else is in it.
    pub(super) fn forget(&self, container: &str, execs: impl Iterator<Item = String>) -> io::Result<()> {
        let directory = self.directory.join(container);
        for exec in execs {
            remove(&directory.join(exec_file(&exec)))?;
        }
        remove(&directory.join(STATUS))?;
        remove(&directory.join(EXIT))?;
        // Not empty is fine: the daemon keeps its own files there.
        let _ = std::fs::remove_dir(directory);
        Ok(())
    }

    /// A reader sees the whole record or none.
    fn write(&self, container: &str, name: &str, record: &impl Serialize) -> io::Result<()> {
        let directory = self.directory.join(container);
        let bytes = serde_json::to_vec(record)?;
        let temporary = directory.join(format!(".{name}"));
        match std::fs::write(&temporary, &bytes) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
                std::fs::write(&temporary, &bytes)?;
            }
            result => result?,
        }
        std::fs::rename(temporary, directory.join(name))
    }
}

/// Whether an id can be a file's name.
pub(super) fn is_valid_id(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=128).contains(&id.len()) && id.bytes().all(allowed) && !id.starts_with('.')
}

fn exec_file(exec: &str) -> String {
    format!("exec-{exec}.exit.json")
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_and_go() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::new(directory.path().join("containers"));
        let exit = Exit { pid: 7, exit_code: Some(3), exited_at_ns: 9, oom_killed: false };
        records.write_exit("c1", None, &exit).unwrap();
        records.write_exit("c1", Some("e1"), &exit).unwrap();
        let path = directory.path().join("containers/c1");
        let read: Exit = serde_json::from_slice(&std::fs::read(path.join("exit.json")).unwrap()).unwrap();
        assert_eq!(read, exit);
        records.forget_exec("c1", "e1").unwrap();
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1);
        records.forget("c1", ["e1".to_owned()].into_iter()).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn an_id_is_a_file_name_and_nothing_else() {
        assert!(is_valid_id("4f1c0a") && is_valid_id("a_b-c.d"));
        assert!(!["", ".", "..", "a/b", "a\0", ".a"].iter().any(|id| is_valid_id(id)));
    }
}
