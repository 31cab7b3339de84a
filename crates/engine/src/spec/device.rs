//! Devices: `--device`, `--device-cgroup-rule`, and what every container may use.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use ponton_api::container::{DeviceMapping, HostConfig};
use ponton_oci::runtime::{Device, DeviceRule, DeviceType};

use crate::error::{Error, Result};

/// The devices of the host that a container's settings name, looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostDevices {
    /// Device files for the container, and what may be done with them (`rwm`).
    pub files: Vec<(Device, String)>,
    /// Major and minor numbers of block devices that have limits, by path.
    pub numbers: BTreeMap<String, (i64, i64)>,
}

impl HostDevices {
    /// Looks them up on the host: those of `--device`, for a privileged container all of `/dev`,
    /// and those with limits.
    pub fn look_up(host_config: &HostConfig) -> Result<Self> {
        let mut devices = Self::default();
        if host_config.privileged {
            devices.add_tree(Path::new("/dev"), "/dev", "rwm")?;
        }
        for mapping in host_config.devices.iter().flatten() {
            devices.add(mapping)?;
        }
        for path in limited(host_config) {
            let number = fs::metadata(path)
                .map(|status| numbers(status.rdev()))
                .map_err(|error| gathering(path, &error))?;
            devices.numbers.insert(path.to_owned(), number);
        }
        Ok(devices)
    }

    fn add(&mut self, mapping: &DeviceMapping) -> Result<()> {
        let source = mapping.path_on_host.as_str();
        let target = match mapping.path_in_container.as_str() {
            "" => source,
            target => target,
        };
        let access = match mapping.cgroup_permissions.as_str() {
            "" => "rwm",
            access => access,
        };
        // A symbolic link of the host, /dev/disk/by-id/… say, gives what it leads to.
        let path = fs::canonicalize(source).map_err(|error| gathering(source, &error))?;
        if path.is_dir() {
            return self.add_tree(&path, target, access);
        }
        match read(&path, target) {
            Ok(Some(device)) => self.push(device, access),
            Ok(None) => return Err(gathering(source, &"not a device node")),
            Err(error) => return Err(gathering(source, &error)),
        }
        Ok(())
    }

    /// All device files below a directory, but those that a container has its own of.
    fn add_tree(&mut self, directory: &Path, target: &str, access: &str) -> Result<()> {
        const OWN: [&str; 8] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"];
        let failed = |error: &std::io::Error| gathering(&directory.display().to_string(), error);
        for entry in fs::read_dir(directory).map_err(|error| failed(&error))? {
            let entry = entry.map_err(|error| failed(&error))?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !OWN.contains(name)) else { continue };
            let target = format!("{target}/{name}");
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.add_tree(&entry.path(), &target, access)?;
            } else if let Ok(Some(device)) = read(&entry.path(), &target) {
                // One that has gone meanwhile is not missed.
                self.push(device, access);
            }
        }
        Ok(())
    }

    fn push(&mut self, device: Device, access: &str) {
        self.files.retain(|(known, _)| known.path != device.path);
        self.files.push((device, access.to_owned()));
    }
}

/// The paths of block devices that have weights or limits.
fn limited(host: &HostConfig) -> impl Iterator<Item = &str> {
    let weights = host.blkio_weight_device.iter().flatten().map(|device| device.path.as_str());
    let rates = [
        &host.blkio_device_read_bps,
        &host.blkio_device_write_bps,
        &host.blkio_device_read_iops,
        &host.blkio_device_write_iops,
    ];
    weights.chain(rates.into_iter().flatten().flatten().map(|device| device.path.as_str()))
}

/// A device file of the host as one of the container; none where it is something else.
pub(super) fn read(path: &Path, target: &str) -> std::io::Result<Option<Device>> {
    let status = fs::symlink_metadata(path)?;
    let r#type = match status.file_type() {
        kind if kind.is_char_device() => DeviceType::C,
        kind if kind.is_block_device() => DeviceType::B,
        _ => return Ok(None),
    };
    let (major, minor) = numbers(status.rdev());
    Ok(Some(Device {
        path: target.to_owned(),
        r#type,
        major,
        minor,
        file_mode: Some(status.mode() & 0o7777),
        uid: Some(status.uid()),
        gid: Some(status.gid()),
    }))
}

fn numbers(device: u64) -> (i64, i64) {
    (i64::from(rustix::fs::major(device)), i64::from(rustix::fs::minor(device)))
}

fn gathering(path: &str, cause: &dyn std::fmt::Display) -> Error {
    Error::invalid(format!("error gathering device information while adding custom device {path:?}: {cause}"))
}

/// The rules of a container: nothing, but making device files (which is not using them), the
/// devices that every container has, and its own.
pub(super) fn rules(host: &HostConfig, devices: &HostDevices) -> Result<Vec<DeviceRule>> {
    const EVERYONES: [(i64, Option<i64>); 9] = [
        (1, Some(3)),
        (1, Some(5)),
        (1, Some(7)),
        (1, Some(8)),
        (1, Some(9)),
        (5, Some(0)),
        (5, Some(1)),
        (5, Some(2)),
        (136, None),
    ];
    if host.privileged {
        return Ok(vec![rule(true, DeviceType::A, None, None, "rwm")]);
    }
    let mut rules = vec![
        rule(false, DeviceType::A, None, None, "rwm"),
        rule(true, DeviceType::C, None, None, "m"),
        rule(true, DeviceType::B, None, None, "m"),
    ];
    rules.extend(EVERYONES.map(|(major, minor)| rule(true, DeviceType::C, Some(major), minor, "rwm")));
    for (device, access) in &devices.files {
        let (major, minor) = (Some(device.major), Some(device.minor));
        rules.push(rule(true, device.r#type, major, minor, access));
    }
    for text in host.device_cgroup_rules.iter().flatten() {
        rules.push(
            parse_rule(text)
                .ok_or_else(|| Error::invalid(format!("invalid device cgroup rule format: '{text}'")))?,
        );
    }
    Ok(rules)
}

fn rule(allow: bool, r#type: DeviceType, major: Option<i64>, minor: Option<i64>, access: &str) -> DeviceRule {
    DeviceRule { allow, r#type, major, minor, access: access.to_owned() }
}

/// `c 10:* rw`
pub(super) fn parse_rule(text: &str) -> Option<DeviceRule> {
    let mut words = text.split(' ');
    let (kind, numbers, access) = (words.next()?, words.next()?, words.next()?);
    let r#type = match kind {
        "a" => DeviceType::A,
        "b" => DeviceType::B,
        "c" => DeviceType::C,
        _ => return None,
    };
    let (major, minor) = numbers.split_once(':')?;
    let number = |text: &str| match text {
        "*" => Some(None),
        digits => digits.parse::<u32>().ok().map(|number| Some(i64::from(number))),
    };
    let is_valid = words.next().is_none()
        && (1..=3).contains(&access.len())
        && access.bytes().all(|byte| b"rwm".contains(&byte));
    is_valid.then_some(rule(true, r#type, number(major)?, number(minor)?, access))
}
