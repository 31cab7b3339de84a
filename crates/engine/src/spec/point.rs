//! Mount points as a request says them: `-v`, `--mount` and `--volumes-from`, words to values. Nothing is
//! looked up here.

use std::path::{Component, Path};

use ponton_api::container::{BindOptions, Mount, MountPoint, VolumeOptions};
use ponton_api::path::clean;
use serde::{Deserialize, Serialize};

use super::{idmap, mount};
use crate::error::{Error, Result};

/// A mount point of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// What `inspect` shows of it.
    #[serde(flatten)]
    pub shown: MountPoint,
    /// What else its mount needs.
    #[serde(default)]
    pub details: Details,
}

/// What `inspect` does not show of a mount point.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Details {
    /// What is mounted below the source is left out.
    pub non_recursive: bool,
    /// A read-only mount leaves what is mounted below it as it is.
    pub shallow_read_only: bool,
    /// The part of a volume or an image that is mounted, relative; empty for all of it.
    pub subpath: String,
    /// An empty volume is not filled from the image.
    pub no_copy: bool,
    /// A volume that nobody named.
    pub anonymous: bool,
    /// A directory of the host that is missing is made.
    pub makes_source: bool,
    /// A tmpfs's options.
    pub tmpfs: Vec<String>,
    /// How the ids of its files are mapped, as [`idmap`] reads it; `None` for not at all.
    pub id_map: Option<String>,
    /// The id of the image that is mounted.
    pub image: String,
}

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

impl Point {
    /// `source:destination[:mode]`, or only a destination. An anonymous volume has no name yet.
    pub fn of_bind(text: &str) -> Result<Self> {
        let invalid = || Error::invalid(format!("invalid volume specification: '{text}'"));
        let parts: Vec<_> = text.split(':').collect();
        let (source, target, mode) = match parts[..] {
            ["", ..] => return Err(invalid()),
            [target] => ("", target, ""),
            [_, word] if Mode::parse(word).is_some() => return Err(invalid()),
            [source, target] => (source, target, ""),
            [source, target, mode] => (source, target, mode),
            _ => return Err(invalid()),
        };
        let Some(words) = Mode::parse(mode) else {
            return Err(Error::invalid(format!("invalid mode: {mode}")));
        };
        let propagation = words.propagation.unwrap_or_default().to_owned();
        let asked = Mount {
            r#type: if source.starts_with('/') { "bind" } else { "volume" }.to_owned(),
            source: source.to_owned(),
            target: target.to_owned(),
            read_only: words.read_only && !source.is_empty(),
            bind_options: words.propagation.map(|_| BindOptions {
                propagation,
                create_mountpoint: true,
                ..BindOptions::default()
            }),
            volume_options: words
                .no_copy
                .then(|| VolumeOptions { no_copy: true, ..VolumeOptions::default() }),
            id_map: words.id_map,
            ..Mount::default()
        };
        let mut point = Self::of_mount(&asked).map_err(|error| Error {
            message: format!("invalid volume specification: '{text}': {}", error.message),
            ..error
        })?;
        point.shown.rw = !words.read_only;
        point.details.makes_source = point.shown.r#type == "bind";
        if !mode.is_empty() {
            mode.clone_into(&mut point.shown.mode);
        }
        Ok(point)
    }

    /// An entry of `HostConfig.Mounts`. An anonymous volume has no name yet.
    pub fn of_mount(asked: &Mount) -> Result<Self> {
        let kind = asked.r#type.as_str();
        check_mount(asked).map_err(|why| match why.strip_prefix(NOT_HERE) {
            Some(why) => Error::not_implemented(why),
            None => Error::invalid(format!("invalid mount config for type \"{kind}\": {why}")),
        })?;
        let mut point = Self {
            shown: MountPoint {
                r#type: kind.to_owned(),
                destination: clean(&asked.target),
                rw: !asked.read_only,
                ..MountPoint::default()
            },
            details: Details { id_map: asked.id_map.clone(), ..Details::default() },
        };
        let Self { shown, details } = &mut point;
        match kind {
            "bind" => {
                let options = asked.bind_options.clone().unwrap_or_default();
                shown.source = clean(&asked.source);
                shown.propagation = match options.propagation.as_str() {
                    "" => "rprivate".to_owned(),
                    _ => options.propagation,
                };
                details.non_recursive = options.non_recursive;
                details.shallow_read_only = options.read_only_non_recursive;
                details.makes_source = options.create_mountpoint;
            }
            "volume" => {
                let options = asked.volume_options.clone().unwrap_or_default();
                shown.name.clone_from(&asked.source);
                "local".clone_into(&mut shown.driver);
                // Docker's word for a label that the volume's content is given with SELinux.
                "z".clone_into(&mut shown.mode);
                details.subpath = options.subpath;
                details.no_copy = options.no_copy;
            }
            "tmpfs" => details.tmpfs = mount::tmpfs_words(asked)?,
            _ => {
                let options = asked.image_options.clone().unwrap_or_default();
                shown.name.clone_from(&asked.source);
                shown.rw = false;
                details.subpath = options.subpath;
            }
        }
        Ok(point)
    }

    /// `name[:mode]` of another container whose mounts are taken: its name, and whether they become
    /// read-only.
    pub fn of_other(text: &str) -> Result<(&str, bool)> {
        if text.is_empty() {
            return Err(Error::invalid("volumes-from specification cannot be an empty string"));
        }
        let (name, word) = text.split_once(':').unwrap_or((text, ""));
        match Mode::parse(word) {
            Some(Mode { read_only, propagation: None, no_copy: false, id_map: None }) => {
                Ok((name, read_only))
            }
            _ => Err(Error::invalid(format!("invalid mode: {word}"))),
        }
    }
}

/// The destination of a mount, clean.
pub fn check_target(target: &str) -> Result<String, String> {
    if target.is_empty() {
        return Err("field Target must not be empty".to_owned());
    }
    if target.contains('\0') {
        return Err("field Target must not contain a null byte".to_owned());
    }
    let clean = clean(target);
    if clean == "/" {
        return Err("invalid specification: destination can't be '/'".to_owned());
    }
    check_absolute(target).map(|()| clean)
}

fn check_absolute(path: &str) -> Result<(), String> {
    if path.starts_with('/') {
        return Ok(());
    }
    Err(format!("invalid mount path: '{path}' mount path must be absolute"))
}

/// Begins a refusal of what is known and not built.
const NOT_HERE: &str = "\0";

fn check_mount(asked: &Mount) -> Result<(), String> {
    let kind = asked.r#type.as_str();
    match kind {
        "bind" | "volume" | "tmpfs" | "image" => {}
        "npipe" | "cluster" => {
            return Err(format!("{NOT_HERE}mounts of type {kind} are not implemented"));
        }
        _ => return Err("mount type unknown".to_owned()),
    }
    check_target(&asked.target)?;
    let others = [
        ("BindOptions", asked.bind_options.is_some(), "bind"),
        ("VolumeOptions", asked.volume_options.is_some(), "volume"),
        ("ImageOptions", asked.image_options.is_some(), "image"),
        ("TmpfsOptions", asked.tmpfs_options.is_some(), "tmpfs"),
        ("ClusterOptions", asked.cluster_options.is_some(), "cluster"),
    ];
    let source_is_missing = asked.source.is_empty() && matches!(kind, "bind" | "image");
    if source_is_missing {
        return Err("field Source must not be empty".to_owned());
    }
    if let Some((name, ..)) = others.iter().find(|(_, is_given, owner)| *is_given && *owner != kind) {
        return Err(format!("field {name} must not be specified"));
    }
    if let Some(map) = &asked.id_map {
        if !matches!(kind, "bind" | "volume") {
            return Err("field IDMap must not be specified".to_owned());
        }
        idmap::parse(map)?;
    }
    if let Some(options) = &asked.bind_options {
        check_bind_options(options, asked.read_only)?;
    }
    match kind {
        "bind" => check_absolute(&asked.source),
        "tmpfs" if !asked.source.is_empty() => Err("field Source must not be specified".to_owned()),
        "tmpfs" => mount::tmpfs_words(asked).map(drop).map_err(|error| error.message),
        "image" => check_subpath(asked.image_options.as_ref().map_or("", |options| &options.subpath)),
        _ => {
            let subpath = asked.volume_options.as_ref().map_or("", |options| &options.subpath);
            if !subpath.is_empty() && asked.source.is_empty() {
                return Err("must not set Subpath when using anonymous volumes".to_owned());
            }
            if asked.read_only && asked.source.is_empty() {
                return Err("must not set ReadOnly mode when using anonymous volumes".to_owned());
            }
            check_subpath(subpath)
        }
    }
}

fn check_bind_options(options: &BindOptions, read_only: bool) -> Result<(), String> {
    let propagation = options.propagation.as_str();
    if !propagation.is_empty() && !PROPAGATIONS.contains(&propagation) {
        return Err(format!("invalid propagation mode: {propagation}"));
    }
    if (options.read_only_non_recursive || options.read_only_force_recursive) && !read_only {
        return Err("mount is not read-only, and cannot be read-only in one way or the other".to_owned());
    }
    if options.read_only_force_recursive && options.read_only_non_recursive {
        return Err("field ReadOnlyForceRecursive must not be specified".to_owned());
    }
    Ok(())
}

fn check_subpath(subpath: &str) -> Result<(), String> {
    let mut depth = 0_i32;
    for component in Path::new(subpath).components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir => depth -= 1,
            _ => depth = -1,
        }
        if depth < 0 {
            return Err("subpath must be a relative path within the volume".to_owned());
        }
    }
    Ok(())
}

/// The options behind a bind's second colon.
#[derive(Debug, Default, PartialEq, Eq)]
struct Mode {
    read_only: bool,
    propagation: Option<&'static str>,
    no_copy: bool,
    id_map: Option<String>,
}

impl Mode {
    /// Words with commas between, one of each kind.
    fn parse(text: &str) -> Option<Self> {
        let mut mode = Self::default();
        let mut kinds = Vec::new();
        for word in text.split(',').filter(|_| !text.is_empty()) {
            let kind = match word {
                "ro" | "rw" => {
                    mode.read_only = word == "ro";
                    "access"
                }
                "z" | "Z" => "label",
                "nocopy" => {
                    mode.no_copy = true;
                    "copy"
                }
                // What Docker's machines for other systems once read.
                "consistent" | "cached" | "delegated" => "consistency",
                word => match word.strip_prefix("idmap") {
                    Some(map) if map.is_empty() || map.starts_with('=') => {
                        mode.id_map = Some(map.strip_prefix('=').unwrap_or_default().to_owned());
                        "idmap"
                    }
                    _ => {
                        mode.propagation = Some(PROPAGATIONS.iter().find(|known| **known == word)?);
                        "propagation"
                    }
                },
            };
            if kinds.contains(&kind) {
                return None;
            }
            kinds.push(kind);
        }
        Some(mode)
    }
}

#[cfg(test)]
mod tests {
    use ponton_api::container::TmpfsOptions;

    use super::*;

    fn refused(text: &str) -> String {
        Point::of_bind(text).unwrap_err().message
    }

    #[test]
    fn binds_are_read_as_docker_reads_them() {
        let bind = Point::of_bind("/a/../b//:/c/./d/:ro,rslave").unwrap();
        assert_eq!((bind.shown.source.as_str(), bind.shown.destination.as_str()), ("/b", "/c/d"));
        assert_eq!((bind.shown.rw, bind.shown.propagation.as_str()), (false, "rslave"));
        assert_eq!(bind.shown.mode, "ro,rslave");
        assert!(bind.details.makes_source);
        let volume = Point::of_bind("data:/x").unwrap();
        assert_eq!((volume.shown.name.as_str(), volume.shown.mode.as_str()), ("data", "z"));
        assert!(Point::of_bind("data:/x:nocopy").unwrap().details.no_copy);
        assert_eq!(Point::of_bind("/x").unwrap().shown.r#type, "volume");
        assert_eq!(Point::of_bind("/a:/x:idmap").unwrap().details.id_map.as_deref(), Some(""));
        let map = "uids=0-1000-1;gids=0-1000-1";
        assert_eq!(Point::of_bind(&format!("/a:/x:ro,idmap={map}")).unwrap().details.id_map.unwrap(), map);
    }

    #[test]
    fn binds_are_refused_in_dockers_words() {
        for text in ["", ":", ":/x", "/x:ro", "/a:/b:ro:/d", "/etc:"] {
            assert_eq!(refused(text), format!("invalid volume specification: '{text}'"));
        }
        for mode in
            ["bad", "ro,rw", "z,Z", "ro,", "copy", "readonly", "unbindable", "default", "rshared,slave"]
        {
            assert_eq!(refused(&format!("/etc:/x:{mode}")), format!("invalid mode: {mode}"));
        }
        for (text, kind, why) in [
            ("/etc::ro", "bind", "field Target must not be empty"),
            ("/etc:x", "bind", "invalid mount path: 'x' mount path must be absolute"),
            ("/etc:/a/../", "bind", "invalid specification: destination can't be '/'"),
            ("/etc:/x:nocopy", "bind", "field VolumeOptions must not be specified"),
            ("data:/x:rslave", "volume", "field BindOptions must not be specified"),
        ] {
            let expected = format!(
                "invalid volume specification: '{text}': invalid mount config for type \"{kind}\": {why}"
            );
            assert_eq!(refused(text), expected);
        }
    }

    #[test]
    fn mounts_are_checked_by_type() {
        let mount = |kind: &str, source: &str| Mount {
            r#type: kind.to_owned(),
            source: source.to_owned(),
            target: "/x".to_owned(),
            ..Mount::default()
        };
        let why = |mount: Mount| Point::of_mount(&mount).unwrap_err().message;
        assert!(why(mount("npipe", "a")).contains("npipe"));
        assert!(why(mount("", "a")).ends_with("mount type unknown"));
        assert!(why(mount("tmpfs", "a")).ends_with("field Source must not be specified"));
        assert!(why(mount("bind", "etc")).contains("must be absolute"));
        let subpath = |source: &str, subpath: &str| Mount {
            volume_options: Some(VolumeOptions { subpath: subpath.to_owned(), ..VolumeOptions::default() }),
            ..mount("volume", source)
        };
        assert!(why(subpath("", "a")).ends_with("must not set Subpath when using anonymous volumes"));
        for outside in ["/a", "..", "a/../.."] {
            assert!(
                why(subpath("v1", outside)).ends_with("subpath must be a relative path within the volume")
            );
        }
        assert_eq!(Point::of_mount(&subpath("v1", "a/b")).unwrap().details.subpath, "a/b");
        let tmpfs =
            TmpfsOptions { size_bytes: 1 << 20, mode: 0o700, options: Some(vec![vec!["exec".into()]]) };
        let tmpfs = Mount { tmpfs_options: Some(tmpfs), read_only: true, ..mount("tmpfs", "") };
        assert_eq!(
            Point::of_mount(&tmpfs).unwrap().details.tmpfs,
            ["ro", "mode=700", "size=1048576", "exec"]
        );
        let bad = TmpfsOptions { options: Some(vec![vec!["suid".into()]]), ..TmpfsOptions::default() };
        assert!(
            why(Mount { tmpfs_options: Some(bad), ..mount("tmpfs", "") }).ends_with("invalid option: suid")
        );
    }

    #[test]
    fn mounts_of_others_take_a_mode() {
        assert_eq!(Point::of_other("a").unwrap(), ("a", false));
        assert_eq!(Point::of_other("a:ro,z").unwrap(), ("a", true));
        for mode in ["bad", "nocopy", "rslave", "idmap"] {
            assert_eq!(
                Point::of_other(&format!("a:{mode}")).unwrap_err().message,
                format!("invalid mode: {mode}")
            );
        }
    }

    #[test]
    fn what_was_written_before_there_were_details_is_read() {
        let old = r#"{"Type":"bind","Source":"/a","Destination":"/b","Mode":"","RW":true,"Propagation":"rprivate"}"#;
        let point: Point = serde_json::from_str(old).unwrap();
        assert_eq!(point.shown.source, "/a");
        let text = serde_json::to_string(&point).unwrap();
        assert_eq!(serde_json::from_str::<Point>(&text).unwrap(), point);
    }
}
