//! What `-v`, `--mount` and an image's volumes come to: a list of mount points.

use std::sync::Arc;

use ponton_api::container::{Config, HostConfig, Mount, MountPoint};
use ponton_api::path::clean;

use super::Settings;
use crate::engine::Engine;
use crate::error::{Error, Result};

impl Engine {
    /// The mount points of a container, sorted by destination so that one below another comes after
    /// it. Anonymous volumes get their names; nothing is made.
    pub(super) fn mount_points(
        self: &Arc<Self>,
        config: &Config,
        host: &HostConfig,
    ) -> Result<Vec<MountPoint>> {
        let mut points: Vec<MountPoint> = Vec::new();
        for other in host.volumes_from.iter().flatten() {
            self.take_from(other, &mut points)?;
        }
        let inherited = points.len();
        for bind in host.binds.iter().flatten() {
            let point = self.bind(bind)?;
            add(&mut points, inherited, point)?;
        }
        for mount in host.mounts.iter().flatten() {
            if let Some(point) = self.mount(mount)? {
                add(&mut points, inherited, point)?;
            }
        }
        for destination in config.volumes.iter().flatten().map(|(path, _)| path) {
            let destination = absolute(destination).map_err(|why| {
                Error::invalid(format!("invalid volume specification: '{destination}': {why}"))
            })?;
            let is_taken = points.iter().any(|point| point.destination == destination)
                || host.tmpfs.iter().flatten().any(|(path, _)| *path == destination);
            if !is_taken {
                points.push(self.volume(crate::id::generate()?, destination, "", true));
            }
        }
        points.sort_by(|one, other| one.destination.cmp(&other.destination));
        Ok(points)
    }

    /// `--volumes-from other[:ro|:rw]`
    fn take_from(&self, spec: &str, points: &mut Vec<MountPoint>) -> Result<()> {
        let (name, mode) = spec.split_once(':').unwrap_or((spec, "rw"));
        if !matches!(mode, "rw" | "ro" | "z" | "Z") {
            return Err(Error::invalid(format!("invalid mode: {mode}")));
        }
        let other = self.find(name).map_err(|error| Error::invalid(error.message))?;
        for point in &other.view().settings.mounts {
            let mut point = point.clone();
            point.rw &= mode != "ro";
            points.retain(|known| known.destination != point.destination);
            points.push(point);
        }
        Ok(())
    }

    /// `source:destination[:mode]`, or only a destination.
    fn bind(&self, spec: &str) -> Result<MountPoint> {
        let parts: Vec<_> = spec.split(':').collect();
        let (source, destination, mode) = match parts[..] {
            [destination] => ("", destination, ""),
            [source, destination] => (source, destination, ""),
            [source, destination, mode] => (source, destination, mode),
            _ => return Err(Error::invalid(format!("invalid volume specification: '{spec}'"))),
        };
        let kind = if source.starts_with('/') { "bind" } else { "volume" };
        let refused = |why: &str| {
            Error::invalid(format!(
                "invalid volume specification: '{spec}': invalid mount config for type \"{kind}\": {why}"
            ))
        };
        let options = Mode::parse(mode)?;
        let destination = absolute(destination).map_err(|why| refused(&why))?;
        if kind == "volume" {
            let name = match source {
                "" => crate::id::generate()?,
                name => check_volume_name(name)?.to_owned(),
            };
            let mode = if mode.is_empty() && !source.is_empty() { "z" } else { mode };
            return Ok(self.volume(name, destination, mode, options.rw));
        }
        Ok(MountPoint {
            r#type: "bind".into(),
            source: clean(source),
            destination,
            mode: mode.to_owned(),
            rw: options.rw,
            propagation: options.propagation.unwrap_or("rprivate").to_owned(),
            ..MountPoint::default()
        })
    }

    /// `--mount`; a tmpfs is no mount point, but a part of the plan.
    fn mount(&self, mount: &Mount) -> Result<Option<MountPoint>> {
        let kind = mount.r#type.as_str();
        let refused = |why: &str| Error::invalid(format!("invalid mount config for type \"{kind}\": {why}"));
        let destination = || match mount.target.as_str() {
            "" => Err(refused("field Target must not be empty")),
            target => absolute(target).map_err(|why| refused(&why)),
        };
        match kind {
            "bind" => {
                if mount.source.is_empty() {
                    return Err(refused("field Source must not be empty"));
                }
                let destination = destination()?;
                let options = mount.bind_options.clone().unwrap_or_default();
                if !options.create_mountpoint && !std::path::Path::new(&mount.source).exists() {
                    return Err(refused(&format!("bind source path does not exist: {}", mount.source)));
                }
                let propagation = match options.propagation.as_str() {
                    "" => "rprivate",
                    other => other,
                };
                Ok(Some(MountPoint {
                    r#type: "bind".into(),
                    source: clean(&mount.source),
                    destination,
                    rw: !mount.read_only,
                    propagation: propagation.to_owned(),
                    ..MountPoint::default()
                }))
            }
            "volume" => {
                let name = match mount.source.as_str() {
                    "" => crate::id::generate()?,
                    name => check_volume_name(name)?.to_owned(),
                };
                Ok(Some(self.volume(name, destination()?, "z", !mount.read_only)))
            }
            "tmpfs" => destination().map(|_| None),
            "image" | "npipe" | "cluster" => {
                Err(Error::not_implemented(format!("mounts of type {kind} are not implemented")))
            }
            _ => Err(refused("mount type unknown")),
        }
    }

    fn volume(&self, name: String, destination: String, mode: &str, rw: bool) -> MountPoint {
        MountPoint {
            r#type: "volume".into(),
            source: self.volume_data(&name).display().to_string(),
            name,
            destination,
            driver: "local".into(),
            mode: mode.to_owned(),
            rw,
            propagation: String::new(),
        }
    }

    /// Makes the volumes and the directories on the host that a container's mounts need.
    pub(super) fn make_volumes(&self, settings: &Settings) -> Result<()> {
        for point in &settings.mounts {
            if point.r#type == "volume" {
                self.make_volume(&point.name, is_id(&point.name), None)?;
            } else if settings.host_config.binds.iter().flatten().any(|bind| bind.starts_with(&point.source))
            {
                // `-v` makes a source that is missing; `--mount` was checked.
                std::fs::create_dir_all(&point.source)
                    .or_else(|error| {
                        let is_there = std::path::Path::new(&point.source).exists();
                        if is_there { Ok(()) } else { Err(error) }
                    })
                    .map_err(|error| {
                        Error::failed(
                            format!("error while creating mount source path '{}'", point.source),
                            error,
                        )
                    })?;
            }
        }
        Ok(())
    }
}

/// A name that was made up for an anonymous volume.
fn is_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn add(points: &mut Vec<MountPoint>, inherited: usize, point: MountPoint) -> Result<()> {
    if points[inherited.min(points.len())..].iter().any(|known| known.destination == point.destination) {
        return Err(Error::invalid(format!("Duplicate mount point: {}", point.destination)));
    }
    points.push(point);
    Ok(())
}

/// The options behind a bind's second colon.
struct Mode {
    rw: bool,
    propagation: Option<&'static str>,
}

impl Mode {
    fn parse(text: &str) -> Result<Self> {
        const PROPAGATIONS: &[&str] = &["private", "rprivate", "shared", "rshared", "slave", "rslave"];
        let mut mode = Self { rw: true, propagation: None };
        for word in text.split(',').filter(|_| !text.is_empty()) {
            match word {
                "rw" | "z" | "Z" | "nocopy" | "cached" | "delegated" | "consistent" | "default" => {}
                "ro" | "readonly" => mode.rw = false,
                word => match PROPAGATIONS.iter().find(|known| **known == word) {
                    Some(known) => mode.propagation = Some(known),
                    None => return Err(Error::invalid(format!("invalid mode: {text}"))),
                },
            }
        }
        Ok(mode)
    }
}

/// A destination as a clean absolute path.
fn absolute(path: &str) -> Result<String, String> {
    if !path.starts_with('/') {
        return Err(format!("invalid mount path: '{path}' mount path must be absolute"));
    }
    match clean(path).as_str() {
        "/" => Err("invalid specification: destination can't be '/'".into()),
        path => Ok(path.to_owned()),
    }
}

/// Docker's rule for the names of volumes.
pub(crate) fn check_volume_name(name: &str) -> Result<&str> {
    let mut bytes = name.bytes();
    let valid = bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.len() >= 2
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if valid {
        return Ok(name);
    }
    Err(Error::invalid(format!(
        "create {name}: \"{name}\" includes invalid characters for a local volume name, only \
         \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_cleaned() {
        assert_eq!(absolute("/a/./b/").unwrap(), "/a/b");
        assert!(absolute("/a/..").is_err());
        assert!(absolute("a").is_err());
    }

    #[test]
    fn modes_are_words() {
        assert!(!Mode::parse("ro,z").unwrap().rw);
        assert_eq!(Mode::parse("rslave").unwrap().propagation, Some("rslave"));
        assert_eq!(Mode::parse("bad").err().unwrap().message, "invalid mode: bad");
    }

    #[test]
    fn volume_names_are_checked() {
        assert!(check_volume_name("data-1").is_ok());
        for bad in ["a", "a!", "-a", "a/b"] {
            assert!(check_volume_name(bad).is_err(), "{bad}");
        }
    }
}
