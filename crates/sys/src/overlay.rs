//! Mounts of overlayfs, detached, with any number of layers.
//!
//! A parameter's value has at most 255 bytes in fsconfig(2). Kernels from 6.7 take the layers one by
//! one (`lowerdir+`); older ones take a longer list only from mount(2), as one page of text in which
//! the paths can be relative, and attach what they make somewhere. That is done in a mount namespace
//! that lives for a moment and is seen by nobody.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags};

use crate::file_owner::FileOwner;
use crate::mount::{Change, Context, change, clone_tree, map_ids};
use crate::namespace::{self, Kinds};
use crate::{Error, Result};

/// What fsconfig(2) takes as a value, without the null byte.
const VALUE_MAX: usize = 255;
/// What mount(2) takes as options, without the null byte.
const DATA_MAX: usize = 4095;

/// Makes an overlay with these options (`lowerdir=/a:/b`, `index=off`, …) and `MOUNT_ATTR_*` bits.
pub fn mount(source: &str, options: &[String], attributes: u64) -> Result<OwnedFd> {
    let context = Context::new("overlay")?;
    if !source.is_empty() {
        context.set("source", source)?;
    }
    for option in options {
        match option.split_once('=') {
            Some(("lowerdir", layers)) if layers.contains([':', '\\']) => {
                if takes_layers_one_by_one() {
                    for layer in split_layers(layers) {
                        context.set("lowerdir+", &layer)?;
                    }
                } else if options.iter().any(|option| value(option).len() > VALUE_MAX) {
                    return mount_by_name(source, options, attributes);
                } else {
                    context.set("lowerdir", layers)?;
                }
            }
            _ => context.set_option(option)?,
        }
    }
    context.mount(attributes)
}

/// As [`mount`], with the ids of the files of all layers mapped by the maps of `namespace`, of which `owner`
/// is a user and group: as them the file system makes what it needs itself in its upper layer.
///
/// Nothing on the disk is changed, and the next overlay of the same layers can have other maps. The
/// layers are copies of mounts that are attached nowhere: that needs Linux 6.15.
pub fn mount_mapped(
    source: &str,
    options: &[String],
    attributes: u64,
    namespace: BorrowedFd<'_>,
    owner: (u32, u32),
) -> Result<OwnedFd> {
    let mut held = Vec::new();
    let mut map = |path: &Path| -> Result<String> {
        let path = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| Error::new("open_tree", path.display(), Errno::INVAL))?;
        let layer = clone_tree(rustix::fs::CWD, &path, false)?;
        map_ids(layer.as_fd(), namespace, false)?;
        let shown = format!("/proc/self/fd/{}", layer.as_raw_fd());
        held.push(layer);
        Ok(shown)
    };
    let context = Context::new("overlay")?;
    if !source.is_empty() {
        context.set("source", source)?;
    }
    // Upper and working directory have to be on one mount.
    let mut above: Option<(PathBuf, String)> = None;
    for option in options {
        match option.split_once('=') {
            Some(("lowerdir", layers)) => {
                for layer in split_layers(layers) {
                    context.set("lowerdir+", &map(Path::new(&layer))?)?;
                }
            }
            Some((key @ ("upperdir" | "workdir"), path)) => {
                let refused = || Error::new("mount", format_args!("overlay: {option}"), Errno::INVAL);
                let path = Path::new(path);
                let (directory, name) = path.parent().zip(path.file_name()).ok_or_else(refused)?;
                let mapped = match above.take().filter(|(known, _)| known == directory) {
                    Some((_, mapped)) => mapped,
                    None => map(directory)?,
                };
                context.set(key, &format!("{mapped}/{}", name.to_str().ok_or_else(refused)?))?;
                above = Some((directory.to_owned(), mapped));
            }
            _ => context.set_option(option)?,
        }
    }
    let _owner = FileOwner::set(owner.0, owner.1)?;
    context.mount(attributes)
}

/// Whether the kernel knows `lowerdir+`. One before 6.5 takes any word at first, and refuses it when the mount is made.
fn takes_layers_one_by_one() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        Context::new("overlay").is_ok_and(|context| {
            context.set("ponton-no-such-option", "x").is_err() && context.set("lowerdir+", "/").is_ok()
        })
    })
}

/// Makes the overlay as kernels before 6.7 want it.
fn mount_by_name(source: &str, options: &[String], attributes: u64) -> Result<OwnedFd> {
    let (directory, data) = relative(options)?;
    let data = CString::new(data).map_err(|_| Error::new("mount", "overlay", Errno::INVAL))?;
    let make = || -> Result<OwnedFd> {
        namespace::unshare(Kinds::MOUNT)?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).map_err(Error::of("make private", "/"))?;
        // By its path: a descriptor from before would lead out of the new namespace.
        rustix::process::chdir(&directory).map_err(Error::of("chdir", directory.display()))?;
        rustix::mount::mount(source, "/", "overlay", MountFlags::empty(), data.as_c_str())
            .map_err(Error::of("mount", "overlay by name"))?;
        // What is mounted over the root is found above it.
        let mount = clone_tree(rustix::fs::CWD, c"/..", false)?;
        change(mount.as_fd(), Change { set: attributes, ..Change::default() }, false)?;
        Ok(mount)
    };
    // A thread of its own, so that the caller stays in its namespace. It has ended when this returns.
    std::thread::scope(|scope| scope.spawn(make).join())
        .unwrap_or_else(|_| Err(Error::new("mount", "overlay: the thread ended", Errno::INTR)))
}

/// The options with paths relative to one directory, as one text.
fn relative(options: &[String]) -> Result<(PathBuf, String)> {
    let refused = |why: &str, errno| Error::new("mount", format_args!("overlay: {why}"), errno);
    let all: Vec<_> = options.iter().flat_map(|option| paths(option)).collect();
    let base = common_directory(&all).ok_or_else(|| refused("a layer's path is relative", Errno::INVAL))?;
    let shorten = |path: &String| {
        let path = Path::new(path).strip_prefix(&base).ok()?.to_str()?;
        (!path.is_empty() && !path.contains([',', ':', '\\'])).then(|| path.to_owned())
    };
    let mut words = Vec::new();
    for option in options {
        let named = paths(option);
        words.push(match option.split_once('=') {
            Some((key, _)) if !named.is_empty() => {
                let short: Option<Vec<_>> = named.iter().map(shorten).collect();
                let short = short.ok_or_else(|| refused("a layer's name has , : or \\", Errno::INVAL))?;
                format!("{key}={}", short.join(":"))
            }
            _ => option.clone(),
        });
    }
    let data = words.join(",");
    if data.len() > DATA_MAX {
        return Err(refused("too many layers", Errno::TOOBIG));
    }
    Ok((base, data))
}

fn value(option: &str) -> &str {
    option.split_once('=').map_or("", |(_, value)| value)
}

/// The paths that an option names.
fn paths(option: &str) -> Vec<String> {
    match option.split_once('=') {
        Some(("lowerdir", layers)) => split_layers(layers),
        Some(("upperdir" | "workdir", path)) => vec![path.to_owned()],
        _ => Vec::new(),
    }
}

/// The deepest directory that is above all of these absolute paths.
fn common_directory(paths: &[String]) -> Option<PathBuf> {
    let mut paths = paths.iter().map(Path::new);
    let mut common: Vec<Component<'_>> = paths.next()?.parent()?.components().collect();
    for path in paths {
        let above = path.parent()?.components();
        let same = common.iter().zip(above).take_while(|(ours, theirs)| *ours == theirs).count();
        common.truncate(same);
    }
    let common: PathBuf = common.into_iter().collect();
    common.is_absolute().then_some(common)
}

/// The paths of a `lowerdir` list, in which `\` takes the meaning from `:`.
fn split_layers(layers: &str) -> Vec<String> {
    let mut paths = vec![String::new()];
    let mut characters = layers.chars();
    while let Some(character) = characters.next() {
        match (character, paths.last_mut()) {
            (':', _) => paths.push(String::new()),
            ('\\', Some(path)) => path.extend(characters.next()),
            (other, Some(path)) => path.push(other),
            (_, None) => {}
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::path::Root;

    #[test]
    fn layers_are_split_at_unescaped_colons() {
        assert_eq!(split_layers("/a:/b\\:c:/d"), ["/a", "/b:c", "/d"]);
    }

    #[test]
    fn paths_become_relative_to_what_they_share() {
        let options = ["lowerdir=/d/s/1/fs:/d/s/12/fs", "upperdir=/d/s/3/fs", "index=off"];
        let (directory, data) = relative(&options.map(str::to_owned)).unwrap();
        assert_eq!(directory, Path::new("/d/s"));
        assert_eq!(data, "lowerdir=1/fs:12/fs,upperdir=3/fs,index=off");
        assert!(relative(&["lowerdir=a:b".to_owned()]).is_err());
        assert!(relative(&["lowerdir=/a,b/c:/d".to_owned()]).is_err());
        let many = format!("lowerdir={}", "/directory/layer:".repeat(1000) + "/directory/layer");
        assert_eq!(relative(&[many]).unwrap_err().errno(), Some(Errno::TOOBIG.raw_os_error()));
    }

    /// Thirty layers with a file each, and a directory to write to.
    fn thirty_layers(directory: &Path) -> Vec<String> {
        let mut layers = Vec::new();
        for number in 0..30 {
            let layer = directory.join(format!("a-layer-{number}")).join("fs");
            fs::create_dir_all(&layer).unwrap();
            fs::write(layer.join(number.to_string()), "below").unwrap();
            layers.push(layer.display().to_string());
        }
        for name in ["upper", "work"] {
            fs::create_dir(directory.join(name)).unwrap();
        }
        let directory = directory.display();
        vec![
            format!("lowerdir={}", layers.join(":")),
            format!("upperdir={directory}/upper"),
            format!("workdir={directory}/work"),
        ]
    }

    #[test]
    fn thirty_layers_become_one_tree_either_way() {
        type Way = fn(&str, &[String], u64) -> Result<OwnedFd>;
        for way in [mount as Way, mount_by_name] {
            let directory = tempfile::tempdir().unwrap();
            let options = thirty_layers(directory.path());
            assert!(options[0].len() > VALUE_MAX);
            let before = fs::read_link("/proc/thread-self/ns/mnt").unwrap();
            let root = Root::from_fd(way("overlay", &options, 0).unwrap());
            for number in 0..30 {
                assert_eq!(root.read(number.to_string(), 100).unwrap(), b"below");
            }
            root.mkdir_all("/made", 0o755).unwrap();
            assert!(directory.path().join("upper/made").is_dir());
            let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
            assert!(!mounts.contains("a-layer-0"), "nobody sees it");
            assert_eq!(fs::read_link("/proc/thread-self/ns/mnt").unwrap(), before);
            let attributes = crate::mount::MOUNT_ATTR_RDONLY;
            drop(root);
            let root = Root::from_fd(way("overlay", &options, attributes).unwrap());
            assert!(root.mkdir_all("/more", 0o755).is_err());
        }
    }
    #[test]
    fn ids_of_layers_are_mapped_and_the_disk_is_as_before() {
        use std::os::unix::fs::{MetadataExt, chown};

        use crate::user_namespace::{Range, Writer};

        let directory = tempfile::tempdir().unwrap();
        let options = thirty_layers(directory.path());
        chown(directory.path().join("a-layer-7/fs/7"), Some(5), Some(6)).unwrap();
        let ranges = [Range { inside: 0, outside: 100_000, size: 1000 }];
        let namespace = crate::user_namespace::new(Writer::Privileged, &ranges, &ranges).unwrap();
        let owner = (100_000, 100_000);
        let root = Root::from_fd(mount_mapped("overlay", &options, 0, namespace.as_fd(), owner).unwrap());
        let status = root.stat("7").unwrap();
        assert_eq!((status.st_uid, status.st_gid), (100_005, 100_006));
        // What needs a file of the overlay's own: a whiteout.
        let shown = root.open_path("/", rustix::fs::OFlags::DIRECTORY).unwrap();
        rustix::fs::unlinkat(&shown, "8", rustix::fs::AtFlags::empty()).unwrap();
        assert!(root.mkdir_all("/made", 0o755).is_err(), "the host's root has no id in there");
        let acting = FileOwner::set(100_003, 100_004).unwrap();
        root.mkdir_all("/made", 0o755).unwrap();
        drop(acting);
        let found =
            |name: &str| fs::metadata(directory.path().join(name)).map(|found| (found.uid(), found.gid()));
        assert_eq!(found("upper/made").unwrap(), (3, 4));
        assert_eq!(found("a-layer-7/fs/7").unwrap(), (5, 6));
    }
}
