//! `-v` and `--mount`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ponton_api::Empty;
use ponton_api::container::{
    BindOptions, DriverConfig, HostConfig, ImageOptions, Mount, TmpfsOptions, VolumeOptions,
};

use super::member;
use crate::error::Error;
use crate::flag::Flags;
use crate::value;

/// Puts binds and mounts into `host`; gives the anonymous volumes back.
pub(super) fn volumes(
    flags: &Flags,
    host: &mut HostConfig,
) -> Result<Option<BTreeMap<String, Empty>>, Error> {
    let mut anonymous = BTreeMap::new();
    let mut binds = Vec::new();
    for text in flags.all("volume") {
        if text.contains(':') {
            binds.push(absolute_source(text)?);
        } else {
            anonymous.extend([member(text.clone())]);
        }
    }
    host.binds = super::list(binds);
    let mounts = flags.all("mount").iter().map(|text| parse(text));
    let mounts = mounts.collect::<Result<Vec<_>, _>>().map_err(Error::Invalid)?;
    host.mounts = (!mounts.is_empty()).then_some(mounts);
    Ok((!anonymous.is_empty()).then_some(anonymous))
}

/// A source that begins with a dot is relative to the caller's directory.
fn absolute_source(text: &str) -> Result<String, Error> {
    let (source, rest) = text.split_once(':').unwrap_or((text, ""));
    if source == "." || source == ".." || source.starts_with("./") || source.starts_with("../") {
        return Ok(format!("{}:{rest}", absolute(source)?.display()));
    }
    if let Some(below) = source.strip_prefix("~/")
        && let Some(home) = std::env::var_os("HOME")
    {
        return Ok(format!("{}:{rest}", Path::new(&home).join(below).display()));
    }
    Ok(text.to_owned())
}

/// The path from the root, without `.` and `..`.
fn absolute(path: &str) -> Result<PathBuf, Error> {
    let directory = std::env::current_dir().map_err(|source| Error::file("getwd", ".", source))?;
    let mut clean = PathBuf::new();
    for part in directory.join(path).components() {
        match part {
            std::path::Component::ParentDir => {
                clean.pop();
            }
            std::path::Component::CurDir => {}
            part => clean.push(part),
        }
    }
    Ok(clean)
}

pub(super) fn check(text: &str) -> Result<(), String> {
    parse(text).map(drop)
}

/// `type=bind,source=/a,target=/b,readonly`.
fn parse(text: &str) -> Result<Mount, String> {
    let mut mount = Mount { r#type: "volume".to_owned(), ..Mount::default() };
    for field in value::fields(text)? {
        let field = field.as_str();
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.trim().to_ascii_lowercase(), value),
            None => (field.trim().to_ascii_lowercase(), "true"),
        };
        let is_switch = matches!(
            key.as_str(),
            "readonly" | "ro" | "volume-nocopy" | "bind-nonrecursive" | "bind-create-src" | "idmap"
        );
        if !field.contains('=') && !is_switch {
            return Err(format!("invalid field '{field}' must be a key=value pair"));
        }
        set(&mut mount, &key, value, field)?;
    }
    check_whole(&mount)?;
    Ok(mount)
}

fn set(mount: &mut Mount, key: &str, value: &str, field: &str) -> Result<(), String> {
    let switch = || value::parse_bool(value).ok_or_else(|| format!("invalid value for {key}: {value}"));
    match key {
        "type" => mount.r#type = value.to_ascii_lowercase(),
        "source" | "src" => {
            mount.source = if value.starts_with('.') {
                absolute(value).map_err(|error| error.to_string())?.display().to_string()
            } else {
                value.to_owned()
            };
        }
        "target" | "dst" | "destination" => mount.target = value.to_owned(),
        "readonly" | "ro" => mount.read_only = switch()?,
        // Docker's client knows it only behind a colon of -v.
        "idmap" => {
            mount.id_map = Some(if field.contains('=') { value.to_owned() } else { String::new() });
        }
        "consistency" => mount.consistency = value.to_ascii_lowercase(),
        "bind-propagation" => {
            mount.bind_options.get_or_insert_with(BindOptions::default).propagation =
                value.to_ascii_lowercase();
        }
        "bind-nonrecursive" => {
            mount.bind_options.get_or_insert_with(BindOptions::default).non_recursive = switch()?;
        }
        "bind-create-src" => {
            mount.bind_options.get_or_insert_with(BindOptions::default).create_mountpoint = switch()?;
        }
        "bind-recursive" => {
            let options = mount.bind_options.get_or_insert_with(BindOptions::default);
            match value {
                "enabled" => {}
                "disabled" => options.non_recursive = true,
                "writable" => options.read_only_non_recursive = true,
                "readonly" => options.read_only_force_recursive = true,
                _ => {
                    return Err(format!(
                        "invalid value for {key}: {value} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")"
                    ));
                }
            }
        }
        "volume-subpath" => volume(mount).subpath = value.to_owned(),
        "volume-nocopy" => volume(mount).no_copy = switch()?,
        "volume-label" => {
            let (name, value) = value.split_once('=').unwrap_or((value, ""));
            volume(mount).labels.get_or_insert_default().insert(name.to_owned(), value.to_owned());
        }
        "volume-driver" => driver(mount).name = value.to_owned(),
        "volume-opt" => {
            let (name, value) = value.split_once('=').unwrap_or((value, ""));
            driver(mount).options.get_or_insert_default().insert(name.to_owned(), value.to_owned());
        }
        "image-subpath" => {
            mount.image_options.get_or_insert_with(ImageOptions::default).subpath = value.to_owned();
        }
        "tmpfs-size" => {
            mount.tmpfs_options.get_or_insert_with(TmpfsOptions::default).size_bytes =
                value::parse_bytes(value).map_err(|_| format!("invalid value for {key}: {value}"))?;
        }
        "tmpfs-mode" => {
            mount.tmpfs_options.get_or_insert_with(TmpfsOptions::default).mode =
                u32::from_str_radix(value, 8).map_err(|_| format!("invalid value for {key}: {value}"))?;
        }
        _ => return Err(format!("unexpected key '{key}' in '{field}'")),
    }
    Ok(())
}

fn volume(mount: &mut Mount) -> &mut VolumeOptions {
    mount.volume_options.get_or_insert_with(VolumeOptions::default)
}

fn driver(mount: &mut Mount) -> &mut DriverConfig {
    volume(mount).driver_config.get_or_insert_with(DriverConfig::default)
}

fn check_whole(mount: &Mount) -> Result<(), String> {
    let kind = mount.r#type.as_str();
    if kind.is_empty() {
        return Err("type is required".to_owned());
    }
    if mount.target.is_empty() {
        return Err("target is required".to_owned());
    }
    for (options, owner) in [
        (mount.volume_options.is_some(), "volume"),
        (mount.bind_options.is_some(), "bind"),
        (mount.tmpfs_options.is_some(), "tmpfs"),
        (mount.image_options.is_some(), "image"),
    ] {
        if options && kind != owner {
            return Err(format!("cannot mix '{owner}-*' options with mount type '{kind}'"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Result<serde_json::Value, String> {
        parse(text).map(|mount| serde_json::to_value(mount).unwrap())
    }

    #[test]
    fn mounts() {
        assert_eq!(
            json("type=bind,src=/a,dst=/b,ro").unwrap(),
            serde_json::json!({"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true})
        );
        assert_eq!(
            json("target=/t,source=v,volume-opt=type=nfs").unwrap()["VolumeOptions"]["DriverConfig"]["Options"]
                ["type"],
            "nfs"
        );
        assert_eq!(json("type=bind,src=/a,dst=/b,idmap").unwrap()["IDMap"], "");
        let maps = "uids=0-1000-1;gids=0-1000-1";
        assert_eq!(json(&format!("type=volume,src=v1,dst=/b,idmap={maps}")).unwrap()["IDMap"], maps);
        let tmpfs = json("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700").unwrap();
        assert_eq!(tmpfs["TmpfsOptions"], serde_json::json!({"SizeBytes": 1 << 20, "Mode": 0o700}));
    }

    #[test]
    fn refusals() {
        for (text, message) in [
            ("x", "invalid field 'x' must be a key=value pair"),
            ("a=b", "unexpected key 'a' in 'a=b'"),
            ("type=bind,src=/a", "target is required"),
            ("type=bind,dst=/a,tmpfs-size=1m", "cannot mix 'tmpfs-*' options with mount type 'bind'"),
            ("type=bind,dst=/a,ro=x", "invalid value for ro: x"),
        ] {
            assert_eq!(json(text).unwrap_err(), message);
        }
    }

    #[test]
    fn relative_binds_are_made_absolute() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(absolute_source("./x:/y:ro").unwrap(), format!("{}/x:/y:ro", here.display()));
        assert_eq!(absolute_source("name:/y").unwrap(), "name:/y");
    }
}
