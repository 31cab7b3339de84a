//! `cp`: a container's file system with its volumes, whether it runs or not.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use ponton_api::container::PathStat;
use ponton_archive::compression::Decoder;
use ponton_archive::copy;
use ponton_sys::file_owner::FileOwner;
use ponton_sys::path::Root;
use ponton_sys::user_namespace::Ids;

use super::root::{attach_points, mount_snapshot};
use super::{Container, Settings};
use crate::engine::{Engine, blocking};
use crate::error::{Error, ErrorKind, Result, chain};
use crate::request::{ByteSource, PutOptions, Stream};
use crate::spec::idmap::IdMaps;
use crate::stream;
use crate::volume::Temporary;

impl Engine {
    /// What a path in a container is.
    pub async fn archive_stat(self: &Arc<Self>, name: &str, path: &str) -> Result<PathStat> {
        let container = self.find(name)?;
        let (engine, name, path) = (Arc::clone(self), name.to_owned(), path.to_owned());
        blocking(move || {
            let RootOf { root, volumes: _volumes, .. } = engine.root_of(&container)?;
            let stat = copy::stat(&root, Path::new(&path)).map_err(|error| refused(&name, &path, error))?;
            Ok(api_stat(stat))
        })
        .await
    }

    /// A path of a container as a tar.
    pub async fn archive_get(self: &Arc<Self>, name: &str, path: &str) -> Result<(PathStat, Stream<Bytes>)> {
        let container = self.find(name)?;
        let (id, view) = (container.id.clone(), container.view());
        let (engine, name, path) = (Arc::clone(self), name.to_owned(), path.to_owned());
        let (source, volumes) = blocking(move || {
            let RootOf { root, volumes, ids } = engine.root_of(&container)?;
            let source = copy::get(&root, Path::new(&path)).map_err(|error| refused(&name, &path, error))?;
            Ok((source.in_ids(ids), volumes))
        })
        .await?;
        super::emit(self, &id, &view, "archive-path", &[]);
        let stat = api_stat(source.stat.clone());
        let stream = stream::written(move |writer| {
            let _volumes = volumes;
            source.write(writer).map(|_| ()).map_err(|error| Error::failed("write archive", error))
        });
        Ok((stat, stream))
    }

    /// Unpacks a tar (also compressed) into a directory of a container.
    pub async fn archive_put(
        self: &Arc<Self>,
        name: &str,
        path: &str,
        options: PutOptions,
        body: ByteSource,
    ) -> Result<()> {
        let container = self.find(name)?;
        let view = container.view();
        check_writable(&view.settings, path)?;
        let options = copy::PutOptions {
            no_overwrite_dir_non_dir: options.no_overwrite_dir_non_dir,
            owner: if options.copy_uid_gid { numeric_owner(&view.settings) } else { None },
            ids: None,
        };
        let (engine, name, path) = (Arc::clone(self), name.to_owned(), path.to_owned());
        let reader = stream::reader(body);
        blocking(move || {
            let RootOf { root, volumes: _volumes, ids } = engine.root_of(&container)?;
            // The host's root has no id in a file system whose ids are mapped: the container's makes the files.
            let maker = ids.as_ref().and_then(|ids| ids.outside((0, 0)));
            let _maker = maker.map(|(uid, gid)| FileOwner::set(uid, gid)).transpose()?;
            let options = copy::PutOptions { ids, ..options };
            let failed = |error| refused(&name, &path, error);
            let decoder = Decoder::new(BufReader::new(reader)).map_err(failed)?;
            copy::put(&root, Path::new(&path), BufReader::new(decoder), options).map_err(failed)?;
            super::emit(&engine, &container.id, &container.view(), "extract-to-dir", &[]);
            Ok(())
        })
        .await
    }

    /// The root of a container's file system, with its volumes and binds: that of its process when
    /// it runs, else mounted for as long as what is returned lives.
    fn root_of(&self, container: &Container) -> Result<RootOf> {
        let view = container.view();
        if let Some(pid) = view.life.pid() {
            let path = PathBuf::from(format!("/proc/{pid}/root"));
            match Root::open(&path) {
                Ok(root) => {
                    let ids = view.settings.ids.as_ref().map(IdMaps::to_ids);
                    return Ok(RootOf { root, volumes: Temporary::default(), ids });
                }
                // It ends in this moment, and nobody changes its files any more.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::failed("open the container's root", error)),
            }
        }
        let root = Root::from_fd(mount_snapshot(&self.snapshotter.mounts(&container.id)?)?);
        let user = format!("cp {}", crate::id::generate()?);
        let volumes = Temporary(self.use_volumes(&view.settings, &user)?);
        let found = self.find_sources(&view.settings)?;
        attach_points(&root, &view.settings.mounts, &found.sources)?;
        // As it is on the disk.
        Ok(RootOf { root, volumes, ids: None })
    }
}

/// The root of a container's file system.
struct RootOf {
    root: Root,
    /// What is mounted for this alone.
    volumes: Temporary,
    /// What the owners that it shows are called in the container.
    ids: Option<Ids>,
}

/// A read-only root file system can be written below its volumes only.
fn check_writable(settings: &Settings, path: &str) -> Result<()> {
    let point = settings
        .mounts
        .iter()
        .map(|point| &point.shown)
        .filter(|point| Path::new(path).starts_with(&point.destination))
        .max_by_key(|point| point.destination.len());
    match point {
        Some(point) if !point.rw => Err(Error::forbidden("mounted volume is marked read-only")),
        Some(_) => Ok(()),
        None if settings.host_config.readonly_rootfs => {
            Err(Error::forbidden("container rootfs is marked read-only"))
        }
        None => Ok(()),
    }
}

/// User and group of the container, where it names them by number.
fn numeric_owner(settings: &Settings) -> Option<(u32, u32)> {
    let (user, group) = settings.config.user.split_once(':').unwrap_or((&settings.config.user, ""));
    let uid = if user.is_empty() { 0 } else { user.parse().ok()? };
    Some((uid, if group.is_empty() { uid } else { group.parse().ok()? }))
}

fn refused(container: &str, path: &str, error: ponton_archive::Error) -> Error {
    if copy::is_not_found(&error) {
        return Error::not_found(format!("Could not find the file {path} in container {container}"));
    }
    let kind = if error.is_invalid() { ErrorKind::Invalid } else { ErrorKind::Internal };
    Error { kind, message: chain(&error), source: Some(Box::new(error)) }
}

fn api_stat(stat: copy::PathStat) -> PathStat {
    let nanoseconds = i32::try_from(stat.mtime.nanoseconds).unwrap_or(0);
    let mtime = Timestamp::new(stat.mtime.seconds, nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH);
    PathStat {
        name: stat.name,
        size: stat.size as i64,
        mode: stat.mode,
        mtime: mtime.to_string(),
        link_target: stat.link_target,
    }
}
