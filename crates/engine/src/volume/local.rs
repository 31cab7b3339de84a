//! The driver `local`: what a volume may be called, its options, and the file systems that they mount.
//!
//! Options are mount(8)'s: `type`, `device` and `o`. Such a volume is mounted on its `_data` directory when
//! the first container that uses it starts, and unmounted after the last.

use std::ffi::CString;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

use ponton_api::container::StringMap;
use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use crate::error::{Error, Result};

/// Docker's rule for the names of volumes.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if name.len() == 1 {
        return Err(Error::invalid(format!(
            "create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )));
    }
    let mut bytes = name.bytes();
    let valid = bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.len() <= 255
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if valid {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "create {name}: \"{name}\" includes invalid characters for a local volume name, only \
         \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )))
}

/// Checks the options of a volume that is to be made.
pub(crate) fn check_options(name: &str, options: &StringMap) -> Result<()> {
    let refused = |why: String| Error::invalid(format!("create {name}: {why}"));
    if let Some(unknown) = options.keys().find(|key| !["type", "o", "device", "size"].contains(&key.as_str()))
    {
        return Err(refused(format!("invalid option: {unknown:?}")));
    }
    if let Some(size) = options.get("size") {
        match ponton_api::unit::parse_size(size) {
            Err(_) => return Err(refused(format!("invalid size: '{size}'"))),
            Ok(size) if size > 0 => {
                return Err(refused("quota size requested but no quota support".into()));
            }
            Ok(_) => {}
        }
    }
    for (key, needed) in [("device", &["type"][..]), ("type", &["device"]), ("o", &["device", "type"])] {
        if options.contains_key(key)
            && let Some(missing) = needed.iter().find(|needed| !options.contains_key(**needed))
        {
            return Err(refused(format!("missing required option: {missing:?}")));
        }
    }
    Ok(())
}

/// Whether a volume with these options is a file system of its own.
pub(crate) fn is_mounted_volume(options: &StringMap) -> bool {
    options.contains_key("device")
}

/// Whether something is mounted at a directory.
pub(crate) fn is_mount_point(path: &Path) -> bool {
    let status = rustix::fs::statx(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty());
    status.is_ok_and(|status| status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Mounts a volume's file system.
pub(crate) fn mount(options: &StringMap, target: &Path) -> Result<()> {
    let option = |key: &str| options.get(key).map_or("", String::as_str);
    let (kind, device) = (option("type"), option("device"));
    let words = resolved(kind, device, option("o"))?;
    let words = Words::parse(&words);
    let failed = |errno: rustix::io::Errno| {
        let mut shown = words.data.join(",");
        if let Some(password) = words.data.iter().find_map(|word| word.strip_prefix("password=")) {
            shown = shown.replace(&format!("password={password}"), "password=********");
        }
        let (target, why) = (target.display(), crate::error::words(&errno.into()));
        Error::internal(format!(
            "error while mounting volume '{target}': failed to mount local volume: mount {device}:{target}, \
             flags: {:#x}, data: {shown}: {why}",
            words.flags.bits()
        ))
    };
    let data = CString::new(words.data.join(",")).map_err(|_| failed(rustix::io::Errno::INVAL))?;
    if words.flags.contains(MountFlags::BIND) {
        let mounted = if words.recursive {
            rustix::mount::mount_bind_recursive(device, target)
        } else {
            rustix::mount::mount_bind(device, target)
        };
        mounted.map_err(failed)?;
        let attributes = words.flags - MountFlags::BIND;
        let finished = if attributes.is_empty() {
            Ok(())
        } else {
            rustix::mount::mount_remount(target, MountFlags::BIND | attributes, c"")
        };
        let finished = finished.and_then(|()| propagate(target, words.propagation));
        return finished.map_err(|errno| {
            // Not a half of what was asked for.
            let _ = rustix::mount::unmount(target, UnmountFlags::DETACH);
            failed(errno)
        });
    }
    rustix::mount::mount(device, target, kind, words.flags, data.as_c_str()).map_err(failed)?;
    propagate(target, words.propagation).map_err(failed)
}

fn propagate(target: &Path, propagation: Option<MountPropagationFlags>) -> Result<(), rustix::io::Errno> {
    propagation.map_or(Ok(()), |flags| rustix::mount::mount_change(target, flags))
}

/// Unmounts all that is mounted at a volume's directory.
pub(crate) fn unmount(target: &Path) -> Result<()> {
    while is_mount_point(target) {
        rustix::mount::unmount(target, UnmountFlags::DETACH).map_err(|errno| {
            Error::failed(format!("unmount volume {}", target.display()), std::io::Error::from(errno))
        })?;
    }
    Ok(())
}

/// The options with the host's name that `addr=` has, or the device of CIFS, as an address: the kernel
/// resolves none.
fn resolved(kind: &str, device: &str, words: &str) -> Result<String> {
    if !matches!(kind, "nfs" | "nfs4" | "cifs" | "smb3") {
        return Ok(words.to_owned());
    }
    if let Some(name) = words.split(',').find_map(|word| word.strip_prefix("addr=")) {
        if name.is_empty() || name.parse::<IpAddr>().is_ok() {
            return Ok(words.to_owned());
        }
        let address = resolve(name)?;
        return Ok(words.replacen(&format!("addr={name}"), &format!("addr={address}"), 1));
    }
    let host = device.strip_prefix("//").and_then(|rest| rest.split('/').next()).unwrap_or_default();
    if !matches!(kind, "cifs" | "smb3") || host.is_empty() || host.parse::<IpAddr>().is_ok() {
        return Ok(words.to_owned());
    }
    let address = resolve(host)?;
    Ok(if words.is_empty() { format!("addr={address}") } else { format!("{words},addr={address}") })
}

fn resolve(name: &str) -> Result<IpAddr> {
    let failed = |error: std::io::Error| {
        Error::internal(format!("error resolving passed in network volume address: {name}: {error}"))
    };
    let missing = || std::io::ErrorKind::NotFound.into();
    (name, 0)
        .to_socket_addrs()
        .map_err(failed)?
        .map(|address| address.ip())
        .next()
        .ok_or_else(missing)
        .map_err(failed)
}

/// mount(8)'s words as mount(2) takes them.
struct Words {
    flags: MountFlags,
    recursive: bool,
    propagation: Option<MountPropagationFlags>,
    /// What is the file system's business.
    data: Vec<String>,
}

impl Words {
    fn parse(text: &str) -> Self {
        const SET: [(&str, MountFlags); 10] = [
            ("ro", MountFlags::RDONLY),
            ("nosuid", MountFlags::NOSUID),
            ("nodev", MountFlags::NODEV),
            ("noexec", MountFlags::NOEXEC),
            ("sync", MountFlags::SYNCHRONOUS),
            ("dirsync", MountFlags::DIRSYNC),
            ("noatime", MountFlags::NOATIME),
            ("nodiratime", MountFlags::NODIRATIME),
            ("relatime", MountFlags::RELATIME),
            ("strictatime", MountFlags::STRICTATIME),
        ];
        const CLEAR: [(&str, MountFlags); 7] = [
            ("rw", MountFlags::RDONLY),
            ("suid", MountFlags::NOSUID),
            ("dev", MountFlags::NODEV),
            ("exec", MountFlags::NOEXEC),
            ("async", MountFlags::SYNCHRONOUS),
            ("atime", MountFlags::NOATIME),
            ("diratime", MountFlags::NODIRATIME),
        ];
        let mut words =
            Self { flags: MountFlags::empty(), recursive: false, propagation: None, data: Vec::new() };
        for word in text.split(',').filter(|word| !word.is_empty() && *word != "defaults") {
            let find = |table: &[(&str, MountFlags)]| {
                table.iter().find(|(known, _)| *known == word).map(|(_, flag)| *flag)
            };
            if let Some(flag) = find(&SET) {
                words.flags |= flag;
            } else if let Some(flag) = find(&CLEAR) {
                words.flags -= flag;
            } else if word == "bind" || word == "rbind" {
                words.flags |= MountFlags::BIND;
                words.recursive |= word == "rbind";
            } else if let Some(flags) = propagation(word) {
                words.propagation = Some(flags);
            } else {
                words.data.push(word.to_owned());
            }
        }
        words
    }
}

fn propagation(word: &str) -> Option<MountPropagationFlags> {
    let (name, recursive) = match word.strip_prefix('r') {
        Some(rest @ ("private" | "slave" | "shared" | "unbindable")) => (rest, MountPropagationFlags::REC),
        _ => (word, MountPropagationFlags::empty()),
    };
    let flag = match name {
        "private" => MountPropagationFlags::PRIVATE,
        "slave" => MountPropagationFlags::DOWNSTREAM,
        "shared" => MountPropagationFlags::SHARED,
        "unbindable" => MountPropagationFlags::UNBINDABLE,
        _ => return None,
    };
    Some(flag | recursive)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> StringMap {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn names_are_checked() {
        assert!(check_name("data-1").is_ok());
        assert!(check_name("a").unwrap_err().message.contains("too short"));
        for bad in ["", "a!", "-a", "a/b", "..", ".a", &"a".repeat(256)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn options_are_checked_in_dockers_words() {
        let why = |pairs: &[(&str, &str)]| check_options("v1", &options(pairs)).unwrap_err().message;
        assert_eq!(why(&[("bad", "x")]), "create v1: invalid option: \"bad\"");
        assert_eq!(why(&[("type", "tmpfs")]), "create v1: missing required option: \"device\"");
        assert_eq!(why(&[("device", "tmpfs")]), "create v1: missing required option: \"type\"");
        assert_eq!(why(&[("o", "ro")]), "create v1: missing required option: \"device\"");
        assert_eq!(why(&[("size", "bad")]), "create v1: invalid size: 'bad'");
        assert_eq!(why(&[("size", "1m")]), "create v1: quota size requested but no quota support");
        assert!(check_options("v1", &options(&[("type", "nfs"), ("device", ":/x"), ("size", "0")])).is_ok());
    }

    #[test]
    fn words_become_flags_and_data() {
        let words = Words::parse("ro,rw,noexec,size=1m,rbind,rslave,uid=7,defaults");
        assert_eq!(words.flags, MountFlags::NOEXEC | MountFlags::BIND);
        assert!(words.recursive && words.propagation.is_some());
        assert_eq!(words.data, ["size=1m", "uid=7"]);
    }

    #[test]
    fn hosts_become_addresses() {
        assert_eq!(resolved("nfs", ":/x", "addr=127.0.0.1,rw").unwrap(), "addr=127.0.0.1,rw");
        assert_eq!(resolved("tmpfs", "//localhost/x", "addr=localhost").unwrap(), "addr=localhost");
        let by_name = resolved("nfs", ":/x", "rw,addr=localhost").unwrap();
        assert!(["rw,addr=127.0.0.1", "rw,addr=::1"].contains(&by_name.as_str()), "{by_name}");
        let by_device = resolved("cifs", "//localhost/share", "user=u").unwrap();
        assert!(by_device.starts_with("user=u,addr="), "{by_device}");
        assert!(resolved("nfs", ":/x", "addr=no.such.host.invalid").is_err());
    }
}
