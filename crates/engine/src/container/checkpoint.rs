//! Checkpoints of containers, by CRIU. As with dockerd they are experimental.
//!
//! A checkpoint is a directory, `<data-root>/containers/<id>/checkpoints/<name>`, or one below a directory that
//! the client names. Listing and removing them needs nothing; making one, and starting from one, needs a kernel
//! on which `criu check` succeeds.
//!
//! ```text
//!   freeze ──► criu dump into .<name> ──► rename to <name> ──► SIGKILL, if it is to end ──► thaw
//! ```
//!
//! A daemon that is killed meanwhile leaves a container that its successor thaws, and a whole checkpoint or none.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use jiff::Timestamp;
use ponton_api::container::{Checkpoint, CheckpointCreateRequest};
use ponton_runtime::criu::{self, Dump};
use rustix::process::Signal;

use super::Task;
use super::stop::{KILL_TIMEOUT, ended};
use super::task::Run;
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result, chain};
use crate::lifecycle::{self, Event};

/// How long the CRIU of a killed daemon is waited for, and how often it is looked for.
const CRIU_LOOKS: u32 = 6000;
const CRIU_PAUSE: Duration = Duration::from_millis(100);

impl Engine {
    /// Saves a container's processes, and ends them if that is asked for.
    pub async fn checkpoint_create(
        self: &Arc<Self>,
        name: &str,
        request: CheckpointCreateRequest,
    ) -> Result<()> {
        self.check_experimental()?;
        let container = self.find(name)?;
        let directory = self.checkpoints(&container.id, &request.checkpoint_dir);
        let (before, exit, shown) = (container.view().exits, request.exit, name.to_owned());
        let saved = container
            .change(move |task| async move { task.checkpoint(shown, &directory, &request).await }.boxed());
        saved.await?;
        if exit {
            ended(&container, before, Some(KILL_TIMEOUT)).await;
        }
        Ok(())
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
            let names = directories.filter_map(|entry| entry.file_name().into_string().ok());
            // Others are being made.
            let mut names: Vec<String> = names.filter(|name| check_name(name).is_ok()).collect();
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

    /// Starts a container as it was saved. `detach_keys` is for the clients that are attached already.
    pub async fn checkpoint_start(
        self: &Arc<Self>,
        name: &str,
        checkpoint: &str,
        directory: &str,
        detach_keys: Option<&str>,
    ) -> Result<()> {
        if !self.config().experimental {
            return Err(Error::invalid("checkpoint is only supported in experimental mode"));
        }
        let container = self.find(name)?;
        let view = container.view();
        lifecycle::next(&view.life, view.settings.policy(), &Event::Start, Timestamp::now())
            .map_err(|refusal| refusal.into_error(&container.id))?;
        self.refuse_foreign(&view.settings)?;
        let images = self.checkpoints(&container.id, directory).join(check_name(checkpoint)?);
        let missing = Error::not_found(format!(
            "checkpoint {checkpoint} does not exist for container {}",
            container.id
        ));
        let work = self.criu_directory(&container.id);
        let options = blocking(move || {
            if !images.is_dir() {
                return Err(missing);
            }
            crate::shim::make_private(&work)?;
            Ok(criu::Options { work: Some(work), ..criu::Options::new(find_criu()?, images) })
        });
        super::start::start(&container, detach_keys, Some(options.await?)).await
    }

    fn check_experimental(&self) -> Result<()> {
        if self.config().experimental {
            return Ok(());
        }
        Err(Error::not_implemented(
            "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in order to enable it.",
        ))
    }

    /// Another runtime would have to do it.
    fn refuse_foreign(&self, settings: &super::Settings) -> Result<()> {
        match self.foreign(settings)? {
            None => Ok(()),
            Some(_) => {
                let runtime = &settings.host_config.runtime;
                Err(Error::not_implemented(format!(
                    "checkpoints with the runtime {runtime} are not implemented"
                )))
            }
        }
    }

    /// Where CRIU's logs of a container are.
    fn criu_directory(&self, id: &str) -> PathBuf {
        self.container_directory(id).join("criu")
    }

    fn checkpoints(&self, id: &str, directory: &str) -> PathBuf {
        match directory {
            "" => self.container_directory(id).join("checkpoints"),
            directory => Path::new(directory).join(id).join("checkpoints"),
        }
    }
}

impl Task {
    /// Saves the processes into `<directory>/<the checkpoint's name>`; `shown` is the container's name for errors.
    async fn checkpoint(
        &mut self,
        shown: String,
        directory: &Path,
        request: &CheckpointCreateRequest,
    ) -> Result<()> {
        let Some(pid) = self.view.life.pid().and_then(|pid| u32::try_from(pid).ok()) else {
            return Err(Error::not_running(self.id()));
        };
        if self.settings().config.tty {
            return Err(Error::invalid("checkpoint not supported on containers with tty"));
        }
        let checkpoint = check_name(&request.checkpoint_id)?;
        let (whole, half) = (directory.join(checkpoint), directory.join(format!(".{checkpoint}")));
        if whole.exists() {
            return Err(Error::conflict(format!(
                "checkpoint with name {checkpoint} already exists for container {}",
                self.id()
            )));
        }
        self.engine.refuse_foreign(self.settings())?;
        let program = blocking(find_criu).await?;
        let mut around = self.surroundings()?;
        around.mounts = self.engine.find_sources(self.settings())?;
        let plan = self.plan(&around)?.plan;
        criu::refuse(&plan).map_err(|error| cannot_save(&shown, error))?;
        let joined = plan.joined();
        let work = self.engine.criu_directory(self.id());
        let options = criu::Options { work: Some(work), ..criu::Options::new(program, &half) };
        let freezer = self.control_group()?.freezer().map(Path::to_owned);
        let made = half.clone();
        let dump = move || {
            drop_directory(&made)?;
            crate::shim::make_private(&made)?;
            let (joined, freezer) = (joined.as_slice(), freezer.as_deref());
            // Who ends it, if it is to end, does so when the checkpoint is whole.
            let dump = Dump { joined, freezer, leave_running: true, ..Dump::new(&options, pid) };
            let saved = dump.run().map_err(|error| cannot_save(&shown, error)).and_then(|()| {
                fs::rename(&made, &whole)
                    .map_err(|error| Error::failed(format!("make checkpoint {}", whole.display()), error))
            });
            if saved.is_err()
                && let Err(error) = drop_directory(&made)
            {
                tracing::warn!(error = chain(&error), "remove what there is of a checkpoint");
            }
            saved
        };
        self.while_frozen(&half, request.exit, dump).await?;
        self.emit("checkpoint", &[]);
        Ok(())
    }

    /// Makes a checkpoint in `half` while the processes stand still, and ends them then if that is wanted.
    async fn while_frozen(
        &mut self,
        half: &Path,
        exit: bool,
        make: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<()> {
        if self.view.life.is_paused() {
            blocking(make).await?;
            return if exit { self.end_saved().await } else { Ok(()) };
        }
        self.engine.mark_frozen(self.id(), Some(half))?;
        let mut done = self.freeze(true).await;
        if done.is_ok() {
            done = blocking(make).await;
        }
        if done.is_ok() && exit {
            done = self.end_saved().await;
        }
        match self.freeze(false).await {
            // What has been killed meanwhile needs it no more.
            Err(error) if !self.run.as_ref().is_some_and(Run::has_ended) => return done.and(Err(error)),
            _ => {}
        }
        self.engine.unmark_frozen(self.id());
        done
    }

    /// Ends what was saved, so that its policy does not start it anew.
    async fn end_saved(&mut self) -> Result<()> {
        self.apply(Event::Stop).await?;
        self.stopping = true;
        self.signal(Signal::KILL.as_raw())?;
        if self.view.life.is_paused() {
            self.apply(Event::Unpause).await?;
        }
        Ok(())
    }
}

/// Removes what a killed daemon left of a checkpoint, when its CRIU has ended: until then that does with the
/// processes what it wants.
pub(crate) async fn drop_half_made(directory: PathBuf) {
    for _ in 0..CRIU_LOOKS {
        let looked_for = directory.clone();
        if !blocking(move || Ok(is_at_work(&looked_for))).await.unwrap_or(false) {
            break;
        }
        tokio::time::sleep(CRIU_PAUSE).await;
    }
    if let Err(error) = blocking(move || drop_directory(&directory)).await {
        tracing::warn!(error = chain(&error), "remove what there is of a checkpoint");
    }
}

/// Whether a process was told of this directory.
fn is_at_work(directory: &Path) -> bool {
    let Ok(directory) = fs::canonicalize(directory) else { return false };
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    let mut commands = processes.flatten().filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    commands.any(|command| {
        command.split(|byte| *byte == 0).any(|argument| argument == directory.as_os_str().as_bytes())
    })
}

fn drop_directory(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::failed(format!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// Why a container cannot be saved, in Docker's words.
fn cannot_save(name: &str, error: criu::Error) -> Error {
    let attempted = format!("Cannot checkpoint container {name}");
    match error {
        criu::Error::Unsupported(_) => Error::not_implemented(format!("{attempted}: {error}")),
        error => Error::failed(attempted, error),
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

/// CRIU, if it can work on this kernel.
fn find_criu() -> Result<PathBuf> {
    let Some(program) = criu::find_program("criu") else {
        return Err(Error::unavailable("checkpoints need the program criu on the host: it is not in PATH"));
    };
    criu::check(&program).map_err(|error| Error::unavailable(error.to_string()))?;
    Ok(program)
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
