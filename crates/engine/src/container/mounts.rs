//! What `-v`, `--mount`, `--volumes-from` and an image's volumes come to: a list of mount points.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ponton_api::container::{Config, HostConfig, Mount, MountPoint};
use ponton_api::path::clean;
use ponton_image::Image;

use super::Settings;
use crate::engine::Engine;
use crate::error::{Error, Result, chain};
use crate::spec::point::{Point, check_target};
use crate::volume::{Asked, Hold, Using};

impl Engine {
    /// The mount points of a container, sorted by destination so that one below another comes after
    /// it. Anonymous volumes get their names; nothing is made.
    pub(super) fn mount_points(self: &Arc<Self>, config: &Config, host: &HostConfig) -> Result<Vec<Point>> {
        let mut points: Vec<Point> = Vec::new();
        for other in host.volumes_from.iter().flatten() {
            self.take_from(other, &mut points)?;
        }
        let mut own = Vec::new();
        for bind in host.binds.iter().flatten() {
            own.push(Point::of_bind(bind)?);
        }
        for mount in host.mounts.iter().flatten() {
            own.push(Point::of_mount(mount)?);
        }
        for (index, point) in own.iter().enumerate() {
            let is_taken = |path: &String| clean(path) == point.shown.destination;
            let before = &own[..index];
            if before.iter().any(|known| known.shown.destination == point.shown.destination)
                || host.tmpfs.iter().flatten().any(|(path, _)| is_taken(path))
            {
                return Err(Error::invalid(format!("Duplicate mount point: {}", point.shown.destination)));
            }
        }
        for mut point in own {
            self.complete(&mut point, host)?;
            points.retain(|known| known.shown.destination != point.shown.destination);
            points.push(point);
        }
        for destination in config.volumes.iter().flatten().map(|(path, _)| path) {
            let refused =
                |why| Error::invalid(format!("invalid volume specification: '{destination}': {why}"));
            let destination = check_target(&format!("/{destination}")).map_err(refused)?;
            let is_taken = points.iter().any(|point| point.shown.destination == destination)
                || host.tmpfs.iter().flatten().any(|(path, _)| clean(path) == destination);
            if !is_taken {
                let shown =
                    MountPoint { r#type: "volume".into(), destination, rw: true, ..MountPoint::default() };
                let mut point = Point { shown, ..Point::default() };
                self.complete(&mut point, host)?;
                points.push(point);
            }
        }
        points.sort_by(|one, other| one.shown.destination.cmp(&other.shown.destination));
        Ok(points)
    }

    /// Takes the mount points of another container.
    fn take_from(&self, text: &str, points: &mut Vec<Point>) -> Result<()> {
        let (name, read_only) = Point::of_other(text)?;
        let other = self.find(name).map_err(|error| Error::invalid(error.message))?;
        for point in &other.view().settings.mounts {
            let mut point = point.clone();
            point.shown.rw &= !read_only;
            point.shown.mode.clear();
            point.details.no_copy = true;
            points.retain(|known| known.shown.destination != point.shown.destination);
            points.push(point);
        }
        Ok(())
    }

    /// Finds out what only the engine knows: a volume's name and place, an image's id.
    fn complete(&self, point: &mut Point, host: &HostConfig) -> Result<()> {
        let shown = &mut point.shown;
        match shown.r#type.as_str() {
            "volume" => {
                let wanted = asked(&shown.name, &shown.destination, host);
                self.check_volume(&wanted)?;
                if shown.name.is_empty() {
                    shown.name = crate::id::generate()?;
                    point.details.anonymous = true;
                }
                "local".clone_into(&mut shown.driver);
                shown.source = self.volume_data(&shown.name).display().to_string();
            }
            "bind" if !point.details.makes_source && !Path::new(&shown.source).exists() => {
                let source = &shown.source;
                return Err(Error::invalid(format!(
                    "invalid mount config for type \"bind\": bind source path does not exist: {source}"
                )));
            }
            "image" => {
                let image = self.images.get(&shown.name)?;
                point.details.image = image.id.to_string();
                shown.source.clone_from(&point.details.image);
            }
            _ => {}
        }
        Ok(())
    }

    /// Removes the anonymous volumes of a container that could not be made.
    pub(super) fn unmake_volumes(&self, settings: &Settings) {
        for point in volumes(settings).filter(|point| point.details.anonymous) {
            if let Err(error) = self.remove_volume_if_anonymous(&point.shown.name, &settings.id) {
                tracing::warn!(error = chain(&error), volume = point.shown.name, "remove volume");
            }
        }
    }

    /// Keeps the volumes of a container that is being made from being removed.
    pub(super) fn hold_volumes(&self, settings: &Settings) -> Vec<Hold> {
        volumes(settings).map(|point| self.volumes.hold(&point.shown.name)).collect()
    }

    /// Makes the volumes and the directories on the host that a container's mounts need, and fills
    /// volumes that are empty with what the image has there.
    pub(super) fn make_volumes(&self, settings: &Settings, image: &Image) -> Result<()> {
        let mut unfilled = Vec::new();
        for point in &settings.mounts {
            match point.shown.r#type.as_str() {
                "volume" => {
                    let wanted = asked(&point.shown.name, &point.shown.destination, &settings.host_config);
                    self.make_volume(&wanted, point.details.anonymous)?;
                    if !point.details.no_copy && point.details.subpath.is_empty() {
                        unfilled.push(point);
                    }
                }
                "bind" if point.details.makes_source => make_source(&point.shown.source)?,
                _ => {}
            }
        }
        if unfilled.is_empty() { Ok(()) } else { self.fill_volumes(settings, image, &unfilled) }
    }

    /// Mounts the volumes that are file systems of their own, for as long as what is returned lives.
    pub(super) fn use_volumes(&self, settings: &Settings, user: &str) -> Result<Vec<Using>> {
        let mut using = Vec::new();
        let mut names = BTreeMap::new();
        for point in volumes(settings) {
            if names.insert(&point.shown.name, ()).is_none() {
                using.push(self.use_volume(&point.shown.name, user)?);
            }
        }
        Ok(using)
    }
}

/// What a request says of the volume that it mounts at `destination`.
fn asked(name: &str, destination: &str, host: &HostConfig) -> Asked {
    let mount = host.mounts.iter().flatten().find(|mount: &&Mount| clean(&mount.target) == destination);
    let options = mount.and_then(|mount| mount.volume_options.clone()).unwrap_or_default();
    let driver = options.driver_config.unwrap_or_default();
    Asked {
        name: name.to_owned(),
        driver: if mount.is_some() { driver.name } else { host.volume_driver.clone() },
        options: driver.options.filter(|options| !options.is_empty()),
        labels: options.labels,
    }
}

/// The mount points that are volumes.
pub(crate) fn volumes(settings: &Settings) -> impl Iterator<Item = &Point> {
    settings.mounts.iter().filter(|point| point.shown.r#type == "volume")
}

fn make_source(source: &str) -> Result<()> {
    match std::fs::create_dir_all(source) {
        Err(error) if !Path::new(source).exists() => {
            Err(Error::failed(format!("error while creating mount source path '{source}'"), error))
        }
        _ => Ok(()),
    }
}
