//! Device files and links (config-linux.md, "Devices"; runtime-linux.md, "Dev symbolic links").

use ponton_oci::runtime::{Device, DeviceRule, DeviceType, Linux, Spec};

use super::build::{Builder, binds, normal};
use super::{Action, DeviceNode, PlanError};

impl Builder<'_> {
    pub(super) fn devices(&mut self, spec: &Spec, linux: &Linux) -> Result<(), PlanError> {
        if binds(spec, "/dev") {
            return Ok(());
        }
        let mut nodes = Vec::new();
        for (index, device) in linux.devices.iter().enumerate() {
            let node = device_node(device, &format!("linux.devices[{index}]"))?;
            nodes.retain(|known: &DeviceNode| known.path != node.path);
            nodes.push(node);
        }
        for (path, major, minor) in DEFAULT_DEVICES {
            // What is mounted or made there by the spec goes before.
            let is_taken = nodes.iter().any(|node| node.path == path)
                || spec.mounts.iter().any(|mount| normal(&mount.destination) == path);
            if !is_taken {
                let (path, r#type) = (path.to_owned(), DeviceType::C);
                nodes.push(DeviceNode { path, r#type, major, minor, mode: 0o666, uid: 0, gid: 0 });
            }
        }
        let has_core = self.host.has_kcore;
        let links = DEFAULT_LINKS
            .iter()
            .filter(|(path, _)| *path != CORE || has_core)
            .map(|(path, content)| ((*path).to_owned(), (*content).to_owned()))
            .collect();
        let bound = self.in_user_namespace || !self.host.can_mknod;
        self.push("linux.devices", Action::Devices { nodes, links, bound });
        Ok(())
    }
}

fn device_node(device: &Device, field: &str) -> Result<DeviceNode, PlanError> {
    let invalid = |name: &str, message: String| Err(PlanError::invalid(format!("{field}.{name}"), message));
    if !device.path.starts_with('/') || device.path.contains('\0') || normal(&device.path) == "/" {
        return invalid("path", format!("{:?} is not an absolute path of a file", device.path));
    }
    if device.r#type == DeviceType::A {
        return invalid("type", "is none of c, b, u and p".to_owned());
    }
    // The kernel's own limits of a device number (linux/kdev_t.h).
    let is_numbered = device.r#type != DeviceType::P;
    for (name, number, max) in [("major", device.major, 0xfff), ("minor", device.minor, 0xf_ffff)] {
        if is_numbered && !(0..=max).contains(&number) {
            return invalid(name, format!("{number} is not in 0 to {max}"));
        }
    }
    if let Some(mode) = device.file_mode.filter(|mode| mode & !0o17_7777 != 0) {
        return invalid("fileMode", format!("{mode} is no file mode"));
    }
    Ok(DeviceNode {
        path: normal(&device.path),
        r#type: device.r#type,
        major: u32::try_from(device.major).unwrap_or(0),
        minor: u32::try_from(device.minor).unwrap_or(0),
        mode: device.file_mode.unwrap_or(0o666) & 0o7777,
        uid: device.uid.unwrap_or(0),
        gid: device.gid.unwrap_or(0),
    })
}

/// config-linux.md, "Default Devices".
const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// What every container may use, whatever the spec forbids: the default devices, its terminals, and
/// the making of device files (which does not mean that they can be opened).
pub(super) fn default_device_rules() -> impl Iterator<Item = DeviceRule> {
    let rule = |r#type, major, minor, access: &str| DeviceRule {
        allow: true,
        r#type,
        major,
        minor,
        access: access.to_owned(),
    };
    let make = [DeviceType::C, DeviceType::B].map(|kind| rule(kind, None, None, "m"));
    let terminals = [(136, None), (5, Some(2)), (5, Some(1))];
    let terminals = terminals.map(|(major, minor)| rule(DeviceType::C, Some(major), minor, "rwm"));
    let default = DEFAULT_DEVICES
        .map(|(_, major, minor)| rule(DeviceType::C, Some(i64::from(major)), Some(i64::from(minor)), "rwm"));
    make.into_iter().chain(default).chain(terminals)
}

/// Made only where the kernel has what it leads to.
const CORE: &str = "/dev/core";

/// runtime-linux.md, "Dev symbolic links"; and the link that makes pseudo-terminals work.
const DEFAULT_LINKS: [(&str, &str); 6] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    (CORE, "/proc/kcore"),
    ("/dev/ptmx", "pts/ptmx"),
];
