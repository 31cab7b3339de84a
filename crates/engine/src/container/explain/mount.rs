//! `/proc/PID/mountinfo` (proc_pid_mountinfo(5)), and why each mount is there.

use std::path::Path;

use ponton_api::container::MountPoint;
use ponton_api::explain::Mount;

/// What a container asked for.
pub(super) struct Asked<'a> {
    pub(super) image: &'a str,
    /// Volumes and binds.
    pub(super) points: &'a [MountPoint],
    /// Where a tmpfs is wanted.
    pub(super) tmpfs: Vec<&'a str>,
    /// The directory of the engine's own files for it; it has the container's id.
    pub(super) directory: &'a Path,
}

/// The mounts of a process, in the order of mounting.
pub(super) fn parse(table: &str) -> Vec<Mount> {
    table.lines().filter_map(line).collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn line(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let fields: Vec<&str> = left.split(' ').collect();
    let mut right = right.split(' ');
    let tags = fields.get(6..).unwrap_or_default();
    let has = |tag: &str| tags.iter().any(|given| given.starts_with(tag));
    let propagation = match (has("shared:"), has("master:"), has("unbindable")) {
        (true, true, _) => "shared,slave",
        (true, false, _) => "shared",
        (false, true, _) => "slave",
        (false, false, true) => "unbindable",
        (false, false, false) => "private",
    };
    Some(Mount {
        root: unescape(fields.get(3)?),
        destination: unescape(fields.get(4)?),
        options: (*fields.get(5)?).to_owned(),
        kind: right.next()?.to_owned(),
        propagation: propagation.to_owned(),
        ..Mount::default()
    })
}

/// Blanks and the like are written in octal.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\');
        let byte = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match byte {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    // What a container mounts may have any name: no control characters reach a terminal.
    let text = String::from_utf8_lossy(&bytes);
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

/// Says of each mount why it is there. The last at a place is the one that was asked for.
pub(super) fn name(mounts: &mut [Mount], asked: &Asked<'_>) {
    let id = asked.directory.file_name().unwrap_or_default().to_string_lossy();
    for mount in mounts {
        let point = asked.points.iter().find(|point| point.destination == mount.destination);
        let (origin, source) = match point {
            Some(point) if point.name.is_empty() => (point.r#type.as_str(), point.source.as_str()),
            Some(point) => (point.r#type.as_str(), point.name.as_str()),
            None if mount.destination == "/" => ("image", asked.image),
            None if asked.tmpfs.contains(&mount.destination.as_str()) => ("tmpfs", ""),
            None if mount.root.contains(&format!("/{id}/")) => ("engine", ""),
            None => ("system", ""),
        };
        origin.clone_into(&mut mount.origin);
        source.clone_into(&mut mount.source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read() {
        let table = "36 35 0:99 / / rw,relatime - overlay none rw,lowerdir=/a\n\
            37 36 98:0 /my\\040dir /mnt\\0402 ro,nosuid shared:2 master:1 - ext4 /dev/vda1 rw\n\
            38 36 0:5 /null /proc/\\033x rw,nosuid master:7 - devtmpfs devtmpfs rw\n\
            broken line\n";
        let mounts = parse(table);
        assert_eq!(mounts.len(), 3);
        assert_eq!((mounts[0].destination.as_str(), mounts[0].kind.as_str()), ("/", "overlay"));
        assert_eq!(mounts[0].propagation, "private");
        assert_eq!((mounts[1].root.as_str(), mounts[1].destination.as_str()), ("/my dir", "/mnt 2"));
        assert_eq!(
            (mounts[1].options.as_str(), mounts[1].propagation.as_str()),
            ("ro,nosuid", "shared,slave")
        );
        assert_eq!((mounts[2].destination.as_str(), mounts[2].propagation.as_str()), ("/proc/?x", "slave"));
    }

    #[test]
    fn each_has_its_origin() {
        let points = [MountPoint {
            r#type: "volume".to_owned(),
            name: "data".to_owned(),
            source: "/var/lib/x".to_owned(),
            destination: "/data".to_owned(),
            ..MountPoint::default()
        }];
        let directory = Path::new("/var/containers/4f1c");
        let asked = Asked { image: "busybox", points: &points, tmpfs: vec!["/run"], directory };
        let at = |destination: &str, root: &str| Mount {
            destination: destination.to_owned(),
            root: root.to_owned(),
            ..Mount::default()
        };
        let mut mounts = [
            at("/", "/"),
            at("/data", "/x"),
            at("/etc/hosts", "/var/containers/4f1c/hosts"),
            at("/run", "/"),
            at("/proc", "/"),
        ];
        name(&mut mounts, &asked);
        let origins: Vec<_> =
            mounts.iter().map(|mount| (mount.origin.as_str(), mount.source.as_str())).collect();
        assert_eq!(
            origins,
            [("image", "busybox"), ("volume", "data"), ("engine", ""), ("tmpfs", ""), ("system", "")]
        );
    }
}
