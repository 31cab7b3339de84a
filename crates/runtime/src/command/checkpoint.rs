//! `ponton-runtime checkpoint`

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ponton_oci::runtime::Status;

use super::criu::{self, Criu, Joined};
use super::{Context, Failure, Held, delete};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    criu: criu::Options,
    /// The images of the dump before, as a path from those of this one.
    #[arg(long, value_name = "DIR")]
    parent_path: Option<PathBuf>,
    /// Let the container go on.
    #[arg(short = 'R', long)]
    leave_running: bool,
    /// A descriptor that CRIU writes a zero to when it takes requests.
    #[arg(long, value_name = "FD")]
    status_fd: Option<u32>,
    /// The server that pages are sent to.
    #[arg(long, value_name = "ADDRESS:PORT")]
    page_server: Option<String>,
    /// Save the memory only, and let the container go on: a dump that follows has less to do.
    #[arg(long)]
    pre_dump: bool,
    /// The container's id.
    id: String,
}

/// Saves the container's processes, and deletes it if it is not to go on.
pub(crate) fn run(context: &Context, args: &Args) -> Result<ExitCode, Failure> {
    let held = context.hold(&args.id, "checkpoint", &[Status::Running, Status::Paused])?;
    let Held { directory, record, host, .. } = &held;
    let spec = directory.read_spec()?;
    let mut criu = args.criu.begin(&context.criu, if args.pre_dump { "pre-dump" } else { "dump" })?;
    if spec.process.as_ref().is_some_and(|process| process.terminal) {
        return Err("checkpoint of a container with a terminal: not implemented".into());
    }
    tell(&mut criu, args)?;
    for Joined { path, kind, name } in criu::joined(&spec)? {
        let inode = fs::metadata(path).map_err(|error| format!("{path}: {error}"))?.ino();
        criu.command.arg("--external").arg(format!("{kind}[{inode}]:{name}"));
    }
    let freezer = record.cgroup_paths.get("freezer").or_else(|| record.cgroup_paths.get(""));
    criu.command.args(freezer.into_iter().flat_map(|path| ["--freeze-cgroup".as_ref(), path.as_os_str()]));
    criu.command.arg("--tree").arg(record.pid.to_string());
    tell_outside(&mut criu, record.pid)?;
    criu.run()?;
    if !args.leave_running && !args.pre_dump {
        delete::clean_up(context, directory, record, host)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells CRIU what the options say.
fn tell(criu: &mut Criu, args: &Args) -> Result<(), Failure> {
    if args.leave_running {
        criu.command.arg("--leave-running");
    }
    if let Some(parent) = &args.parent_path {
        if parent.is_absolute() || !criu.images.join(parent).is_dir() {
            return Err(format!("--parent-path: {} is no path from --image-path", parent.display()).into());
        }
        criu.command.arg("--prev-images-dir").arg(parent);
    }
    if args.parent_path.is_some() || args.pre_dump {
        criu.command.arg("--track-mem");
    }
    if let Some(server) = &args.page_server {
        let (address, port) = server.rsplit_once(':').ok_or("--page-server: ADDRESS:PORT is needed")?;
        criu.command.args(["--page-server", "--address", address, "--port", port]);
    }
    criu.command.args(args.status_fd.iter().flat_map(|fd| ["--status-fd".to_owned(), fd.to_string()]));
    Ok(())
}

/// Tells CRIU what the container has of the host, which is not to be saved: mounts and the standard
/// streams.
fn tell_outside(criu: &mut Criu, pid: u32) -> Result<(), Failure> {
    let (own, host) = (mounts(&pid.to_string())?, mounts("self")?);
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
        let (name, is_outside) = descriptor(pid, fd, &own)?;
        if is_outside {
            criu.command.arg("--external").arg(&name);
        }
        descriptors.push(name);
    }
    criu.write_descriptors(&descriptors)
}

/// CRIU's name for a descriptor of a process, and whether it is a file that the container cannot see.
fn descriptor(pid: u32, fd: u32, mounts: &[Mount]) -> Result<(String, bool), Failure> {
    let process = Path::new("/proc").join(pid.to_string());
    let link = process.join("fd").join(fd.to_string());
    // It may have been closed.
    let Ok(target) = fs::read_link(&link) else { return Ok((String::new(), false)) };
    let target = target.to_string_lossy().into_owned();
    if !target.starts_with('/') {
        return Ok((target, false));
    }
    let info = fs::read_to_string(process.join("fdinfo").join(fd.to_string()))?;
    let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok()).unwrap_or(0);
    if mounts.iter().any(|own| own.id == mount) {
        return Ok((target, false));
    }
    Ok((format!("file[{mount:x}:{:x}]", fs::metadata(&link)?.ino()), true))
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

fn mounts(pid: &str) -> Result<Vec<Mount>, Failure> {
    let path = Path::new("/proc").join(pid).join("mountinfo");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
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
