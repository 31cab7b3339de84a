//! Checkpoints of containers, by CRIU. As with dockerd they are experimental.
//!
//! A checkpoint is a directory, `<data-root>/containers/<id>/checkpoints/<name>`, or one below a directory that
//! the client names. Listing and removing them needs nothing; making one, and starting from one, needs a kernel
//! on which `criu check` succeeds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use ponton_api::container::{Checkpoint, CheckpointCreateRequest};

use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};

impl Engine {
    /// Saves a container's processes.
    pub async fn checkpoint_create(
        self: &Arc<Self>,
        name: &str,
        request: CheckpointCreateRequest,
    ) -> Result<()> {
        self.check_experimental()?;
        let container = self.find(name)?;
        let view = container.view();
        if !view.life.is_running() {
            return Err(Error::conflict(format!("Container {} is not running", container.id)));
        }
        if view.settings.config.tty {
            return Err(Error::invalid("checkpoint not supported on containers with tty"));
        }
        let checkpoint = check_name(&request.checkpoint_id)?.to_owned();
        let directory = self.checkpoints(&container.id, &request.checkpoint_dir);
        blocking(move || {
            if directory.join(&checkpoint).exists() {
                return Err(Error::conflict(format!(
                    "checkpoint with name {checkpoint} already exists for container {}",
                    container.id
                )));
            }
            check_criu()?;
            Err(Error::not_implemented("saving containers of the daemon by CRIU is not implemented"))
        })
        .await
    }

    /// The checkpoints of a container.
    pub async fn checkpoint_list(self: &Arc<Self>, name: &str, directory: &str) -> Result<Vec<Checkpoint>> {
        self.check_experimental()?;
        let container = self.find(name)?;
        let directory = self.checkpoints(&container.id, directory);
        blocking(move || {
            // None was made yet where there is no directory.
            let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
            let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            let mut names: Vec<String> =
                directories.filter_map(|entry| entry.file_name().into_string().ok()).collect();
            names.sort();
            Ok(names.into_iter().map(|name| Checkpoint { name }).collect())
        })
        .await
    }

    /// Removes a checkpoint.
    pub async fn checkpoint_remove(
        self: &Arc<Self>,
        name: &str,
        checkpoint: &str,
        directory: &str,
    ) -> Result<()> {
        self.check_experimental()?;
        let container = self.find(name)?;
        let path = self.checkpoints(&container.id, directory).join(check_name(checkpoint)?);
        let missing = Error::not_found(format!(
            "checkpoint {checkpoint} does not exist for container {}",
            container.id
        ));
        blocking(move || match fs::remove_dir_all(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(missing),
            Err(error) => Err(Error::failed(format!("remove {}", path.display()), error)),
        })
        .await
    }

    /// Why a container cannot be started from a checkpoint.
    pub async fn checkpoint_start(
        self: &Arc<Self>,
        name: &str,
        checkpoint: &str,
        directory: &str,
    ) -> Result<()> {
        if !self.config().experimental {
            return Err(Error::invalid("checkpoint is only supported in experimental mode"));
        }
        let container = self.find(name)?;
        let path = self.checkpoints(&container.id, directory).join(check_name(checkpoint)?);
        let missing = Error::not_found(format!(
            "checkpoint {checkpoint} does not exist for container {}",
            container.id
        ));
        blocking(move || {
            if !path.is_dir() {
                return Err(missing);
            }
            check_criu()?;
            Err(Error::not_implemented("starting containers from a checkpoint is not implemented"))
        })
        .await
    }

    fn check_experimental(&self) -> Result<()> {
        if self.config().experimental {
            return Ok(());
        }
        Err(Error::not_implemented(
            "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in order to enable it.",
        ))
    }

    fn checkpoints(&self, id: &str, directory: &str) -> PathBuf {
        match directory {
            "" => self.container_directory(id).join("checkpoints"),
            directory => Path::new(directory).join(id).join("checkpoints"),
        }
    }
}

/// Docker's rule for the names of checkpoints: they become directories.
fn check_name(name: &str) -> Result<&str> {
    let is_valid = name.len() > 1
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    if is_valid {
        return Ok(name);
    }
    Err(Error::invalid(format!("Invalid checkpoint ID ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")))
}

/// Asks CRIU whether it can work on this kernel.
fn check_criu() -> Result<()> {
    let output = Command::new("criu").arg("check").stdin(Stdio::null()).output();
    let output = output.map_err(|error| {
        Error::unavailable(format!("checkpoints need the program criu on the host: {error}"))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let why = said.lines().find(|line| line.contains("Error")).unwrap_or("no reason is given").trim();
    Err(Error::unavailable(format!("criu does not work on this kernel: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_checkpoints_are_those_of_files() {
        assert_eq!(check_name("first.1").unwrap(), "first.1");
        for bad in ["", "a", "../x", ".hidden", "a/b"] {
            let error = check_name(bad).unwrap_err();
            assert!(error.message.starts_with("Invalid checkpoint ID ("), "{}", error.message);
        }
    }
}
