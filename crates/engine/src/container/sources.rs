//! Where a start finds what is mounted: the part of a volume, an image's files, and the owners that ids are
//! mapped by.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use ponton_runtime::user;
use ponton_sys::path::Root;
use rustix::fs::{FileType, OFlags};

use super::mounts::volumes;
use super::{Settings, Task};
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result, chain};
use crate::spec::idmap::{self, IdMaps, Owner};
use crate::spec::point::Point;
use crate::spec::{Source, Sources};

/// What was looked up for one start; the paths are good as long as it lives.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) sources: Sources,
    held: Vec<OwnedFd>,
}

impl Found {
    /// A path by which a shim finds what is open here.
    fn hold(&mut self, file: OwnedFd) -> String {
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        self.held.push(file);
        path
    }
}

impl Engine {
    /// Looks up what the mount points of a container leave open.
    pub(super) fn find_sources(&self, settings: &Settings) -> Result<Found> {
        let mut found = Found::default();
        for point in &settings.mounts {
            let mut source = match point.shown.r#type.as_str() {
                "image" => self.image_source(point, &mut found)?,
                "volume" if !point.details.subpath.is_empty() => {
                    let root = Root::open(&point.shown.source)?;
                    Source { path: found.hold(open_below(&root, point)?), ..Source::default() }
                }
                _ => Source::default(),
            };
            if point.details.id_map.is_some() {
                source.id_maps = Some(self.id_maps(settings, point, &source)?);
            }
            if source != Source::default() {
                found.sources.insert(point.shown.destination.clone(), source);
            }
        }
        Ok(found)
    }

    fn image_source(&self, point: &Point, found: &mut Found) -> Result<Source> {
        let image = self.images.get(&point.details.image)?;
        let Some(top) = image.chain.last() else {
            return Err(Error::invalid(format!("image {} has no files to mount", point.shown.name)));
        };
        let mounts = self.snapshotter.layer_mounts(top)?;
        if point.details.subpath.is_empty()
            && let [mount] = &mounts[..]
        {
            let is_overlay = mount.r#type == "overlay";
            return Ok(Source {
                path: if is_overlay { String::new() } else { mount.source.clone() },
                overlay: is_overlay.then(|| mount.options.clone()),
                id_maps: None,
            });
        }
        // A part of an overlay that is attached nowhere cannot be bound.
        let [mount] = &mounts[..] else { return Err(unbuilt(point)) };
        if mount.r#type == "overlay" {
            return Err(unbuilt(point));
        }
        let root = Root::open(&mount.source)?;
        Ok(Source { path: found.hold(open_below(&root, point)?), ..Source::default() })
    }

    /// The maps of a mount whose ids are mapped.
    fn id_maps(&self, settings: &Settings, point: &Point, source: &Source) -> Result<IdMaps> {
        let given = idmap::parse(point.details.id_map.as_deref().unwrap_or_default());
        if let Some(maps) = given.map_err(Error::invalid)? {
            return Ok(maps);
        }
        let path = if source.path.is_empty() { &point.shown.source } else { &source.path };
        let status = rustix::fs::stat(path.as_str())
            .map_err(|errno| Error::failed(format!("stat {path}"), std::io::Error::from(errno)))?;
        Ok(idmap::exchange((status.st_uid, status.st_gid), self.container_user(settings)?))
    }

    /// Who a container's first process is, by the image's files of users and groups.
    fn container_user(&self, settings: &Settings) -> Result<Owner> {
        if settings.config.user.is_empty() {
            return Ok((0, 0));
        }
        let image = self.images.get(&settings.image)?;
        let Some(root) = self.image_root(&image)? else {
            return Err(Error::invalid("idmap: the image has no files to find the user in"));
        };
        let user = user::resolve(&root, &settings.config.user)
            .map_err(|error| Error::invalid(format!("idmap: {}", chain(&error))))?;
        Ok((user.uid, user.gid))
    }
}

fn unbuilt(point: &Point) -> Error {
    let name = &point.shown.name;
    Error::not_implemented(format!(
        "ImageOptions.Subpath of {name}, an image of several layers, is not implemented"
    ))
}

/// The part of a volume or an image that a mount point means. What is in there is a container's.
fn open_below(root: &Root, point: &Point) -> Result<OwnedFd> {
    let subpath = &point.details.subpath;
    let name = &point.shown.name;
    let found = root.open_path(Path::new(subpath), OFlags::PATH).map_err(|error| {
        let kind = &point.shown.r#type;
        Error::invalid(format!("cannot access the subpath '{subpath}' of {kind} {name}: {error}"))
    })?;
    let status = rustix::fs::fstat(&found)
        .map_err(|errno| Error::failed(format!("stat {subpath} of {name}"), std::io::Error::from(errno)))?;
    match FileType::from_raw_mode(status.st_mode) {
        FileType::Directory | FileType::RegularFile => Ok(found),
        _ => Err(Error::invalid(format!("the subpath '{subpath}' of {name} is no directory and no file"))),
    }
}

impl Task {
    /// Mounts the volumes of the run that begins, and looks up what is mounted from where.
    pub(super) async fn take_volumes(&mut self) -> Result<Found> {
        let (engine, settings) = (Arc::clone(&self.engine), Arc::clone(self.settings()));
        if settings.mounts.is_empty() {
            return Ok(Found::default());
        }
        let (volumes, found) = blocking(move || {
            let volumes = engine.use_volumes(&settings, &settings.id)?;
            match engine.find_sources(&settings) {
                Ok(found) => Ok((volumes, found)),
                Err(error) => {
                    volumes.into_iter().for_each(crate::volume::Using::end);
                    Err(error)
                }
            }
        })
        .await?;
        self.volumes = volumes;
        self.emit_volumes("mount");
        Ok(found)
    }

    /// Takes the volumes of a run that an earlier daemon began.
    pub(super) fn keep_volumes(&mut self) {
        match self.engine.use_volumes(self.settings(), self.id()) {
            Ok(volumes) => self.volumes = volumes,
            Err(error) => tracing::warn!(error = chain(&error), container = self.id(), "find its volumes"),
        }
    }

    /// Gives the run's volumes back.
    pub(super) async fn release_volumes(&mut self) {
        let volumes = std::mem::take(&mut self.volumes);
        if volumes.is_empty() {
            return;
        }
        self.volumes_released = true;
        let ended = blocking(move || {
            volumes.into_iter().for_each(crate::volume::Using::end);
            Ok(())
        });
        if let Err(error) = ended.await {
            tracing::error!(error = chain(&error), container = self.id(), "give volumes back");
        }
    }

    /// Tells the event stream that the run's volumes were given back.
    pub(super) fn emit_volumes_released(&mut self) {
        if std::mem::take(&mut self.volumes_released) {
            self.emit_volumes("unmount");
        }
    }

    fn emit_volumes(&self, action: &str) {
        for point in volumes(self.settings()) {
            let shown = &point.shown;
            let access = if shown.rw { "true" } else { "false" };
            let mut attributes = vec![("container", self.id())];
            if action == "mount" {
                attributes.extend([
                    ("destination", shown.destination.as_str()),
                    ("propagation", shown.propagation.as_str()),
                    ("read/write", access),
                ]);
            }
            self.engine.volume_event(action, &shown.name, &attributes);
        }
    }
}
