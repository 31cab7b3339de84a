//! Saving: what of the container is the host's is found in `/proc`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ponton_oci::runtime::NamespaceType;

use super::{Criu, DESCRIPTORS, Error, Options, external_namespace};

/// What is saved, and what becomes of it.
#[derive(Clone, Copy, Debug)]
pub struct Dump<'a> {
    /// The options that a restore is to be given again.
    pub options: &'a Options,
    /// The container's first process.
    pub pid: u32,
    /// The namespaces that it has joined.
    pub joined: &'a [NamespaceType],
    /// The directory of its control group, by which it is frozen.
    pub freezer: Option<&'a Path>,
    /// Let it go on (frozen, if it was).
    pub leave_running: bool,
    /// Save the memory only, and let the container go on: a dump that follows has less to do.
    pub pre_dump: bool,
    /// The images of the dump before, as a path from those of this one.
    pub parent: Option<&'a Path>,
    /// A descriptor that CRIU writes a zero to when it takes requests.
    pub status_fd: Option<u32>,
    /// The address and port of the server that pages are sent to.
    pub page_server: Option<(&'a str, &'a str)>,
}

impl<'a> Dump<'a> {
    /// A dump of the process and what it has started, after which they are killed.
    pub fn new(options: &'a Options, pid: u32) -> Self {
        Self {
            options,
            pid,
            joined: &[],
            freezer: None,
            leave_running: false,
            pre_dump: false,
            parent: None,
            status_fd: None,
            page_server: None,
        }
    }

    /// Has it done. On an error the processes go on; the directories that were made for it stay.
    pub fn run(&self) -> Result<(), Error> {
        for path in [Some(&self.options.images), self.options.work.as_ref()].into_iter().flatten() {
            fs::create_dir_all(path).map_err(Error::io("make directory", path))?;
        }
        let mut criu = self.options.begin(if self.pre_dump { "pre-dump" } else { "dump" })?;
        self.tell_options(&mut criu)?;
        for kind in self.joined {
            let path = PathBuf::from(format!("/proc/{}/ns/{}", self.pid, kind.file_name()));
            let inode = fs::metadata(&path).map_err(Error::io("stat", &path))?.ino();
            let name = external_namespace(*kind)?;
            criu.command.arg("--external").arg(format!("{}[{inode}]:{name}", kind.file_name()));
        }
        criu.command
            .args(self.freezer.iter().flat_map(|path| ["--freeze-cgroup".as_ref(), path.as_os_str()]));
        criu.command.arg("--tree").arg(self.pid.to_string());
        self.tell_outside(&mut criu)?;
        let program = PathBuf::from(criu.command.get_program());
        let output = criu.command.output().map_err(Error::io("run", &program))?;
        if output.status.success() { Ok(()) } else { Err(criu.failure(&output.stderr)) }
    }

    fn tell_options(&self, criu: &mut Criu) -> Result<(), Error> {
        if self.leave_running {
            criu.command.arg("--leave-running");
        }
        if let Some(parent) = self.parent {
            if parent.is_absolute() || !criu.images.join(parent).is_dir() {
                let none = std::io::Error::new(std::io::ErrorKind::NotFound, "no directory below the images");
                return Err(Error::io("use the parent", parent)(none));
            }
            criu.command.arg("--prev-images-dir").arg(parent);
        }
        if self.parent.is_some() || self.pre_dump {
            criu.command.arg("--track-mem");
        }
        if let Some((address, port)) = self.page_server {
            criu.command.args(["--page-server", "--address", address, "--port", port]);
        }
        criu.command.args(self.status_fd.iter().flat_map(|fd| ["--status-fd".to_owned(), fd.to_string()]));
        Ok(())
    }

    /// Tells CRIU what the container has of the host, which is not to be saved: mounts and the standard
    /// streams.
    fn tell_outside(&self, criu: &mut Criu) -> Result<(), Error> {
        let (own, host) = (mounts(&self.pid.to_string())?, mounts("self")?);
        let whole: BTreeSet<_> =
            own.iter().filter(|mount| mount.root == "/").map(|mount| &mount.device).collect();
        let of_host: BTreeSet<_> = host.iter().map(|mount| &mount.device).collect();
        for mount in own.iter().filter(|mount| mount.target != "/" && mount.r#type != "cgroup2") {
            // A file system of which the container sees a part only cannot be made again.
            if of_host.contains(&mount.device) || !whole.contains(&mount.device) {
                let target = &mount.target;
                criu.command.arg("--external").arg(format!("mnt[{target}]:{target}"));
            }
        }
        let mut descriptors = Vec::new();
        for fd in 0..3 {
            let (name, is_outside) = descriptor(self.pid, fd, &own)?;
            if is_outside {
                criu.command.arg("--external").arg(&name);
            }
            descriptors.push(name);
        }
        let path = criu.images.join(DESCRIPTORS);
        let json =
            serde_json::to_vec(&descriptors).map_err(|error| Error::io("write", &path)(error.into()))?;
        fs::write(&path, json).map_err(Error::io("write", &path))
    }
}

/// CRIU's name for a descriptor of a process, and whether it is a file that the container cannot see.
fn descriptor(pid: u32, fd: u32, mounts: &[Mount]) -> Result<(String, bool), Error> {
    let process = Path::new("/proc").join(pid.to_string());
    let link = process.join("fd").join(fd.to_string());
    // It may have been closed.
    let Ok(target) = fs::read_link(&link) else { return Ok((String::new(), false)) };
    let target = target.to_string_lossy().into_owned();
    if !target.starts_with('/') {
        return Ok((target, false));
    }
    let path = process.join("fdinfo").join(fd.to_string());
    let info = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok()).unwrap_or(0);
    if mounts.iter().any(|own| own.id == mount) {
        return Ok((target, false));
    }
    let inode = fs::metadata(&link).map_err(Error::io("stat", &link))?.ino();
    Ok((format!("file[{mount:x}:{inode:x}]"), true))
}

/// A line of `/proc/<pid>/mountinfo` (proc(5)).
struct Mount {
    id: u64,
    /// Major and minor number of its file system.
    device: String,
    /// What of the file system is shown.
    root: String,
    target: String,
    r#type: String,
}

fn mounts(pid: &str) -> Result<Vec<Mount>, Error> {
    let path = Path::new("/proc").join(pid).join("mountinfo");
    let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    Ok(text.lines().filter_map(parse_mount).collect())
}

fn parse_mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let words: Vec<&str> = before.split(' ').collect();
    let [id, _, device, root, target, ..] = words[..] else { return None };
    let own = |text: &str| text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
    let r#type = after.split(' ').next()?.to_owned();
    Some(Mount {
        id: id.parse().ok()?,
        device: device.to_owned(),
        root: own(root),
        target: own(target),
        r#type,
    })
}

#[cfg(test)]
mod tests {
    use super::parse_mount;

    #[test]
    fn mounts_are_read() {
        let line = r"93 80 8:1 /srv/a\040b /data rw,nosuid shared:1 master:2 - ext4 /dev/sda1 rw";
        let mount = parse_mount(line).unwrap();
        assert_eq!((mount.id, mount.device.as_str(), mount.root.as_str()), (93, "8:1", "/srv/a b"));
        assert_eq!((mount.target.as_str(), mount.r#type.as_str()), ("/data", "ext4"));
        assert!(parse_mount("93 80").is_none());
    }
}
