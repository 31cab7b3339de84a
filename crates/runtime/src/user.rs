//! Users and groups by the container's own passwd and group files (passwd(5), group(5)).
//!
//! The files are untrusted: they are read through the container's root, bounded in size, and lines
//! that are not understood are passed over.

use ponton_sys::path::Root;

use crate::Error;

/// Who a process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// The groups that the group file lists the user in.
    pub additional_gids: Vec<u32>,
    /// The home directory, `/` where the passwd file has none.
    pub home: String,
}

/// The largest file that is read, in bytes.
const FILE_MAX: u64 = 4 << 20;
/// Ids above this are refused, as Docker does: they are negative for too many programs.
const ID_MAX: u32 = i32::MAX as u32;

/// Looks `spec` up in the files below `root`: `name`, `uid`, either with `:group` or `:gid`, or
/// empty for root. Numbers need no entry.
pub fn resolve(root: &Root, spec: &str) -> Result<User, Error> {
    let group_file = || read(root, "etc/group");
    resolve_in(&read(root, "etc/passwd")?, group_file, spec)
}

/// The ids of these groups; numbers need no entry.
pub fn resolve_groups(root: &Root, names: &[String]) -> Result<Vec<u32>, Error> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let text = read(root, "etc/group")?;
    names.iter().map(|name| find_gid(&text, name)).collect()
}

/// The home directory of a user id, `/` where there is none.
pub fn home(root: &Root, uid: u32) -> Result<String, Error> {
    let passwd = read(root, "etc/passwd")?;
    Ok(users(&passwd).find(|user| user.uid == uid).map_or("/".to_owned(), |user| user.home_or_root()))
}

fn read(root: &Root, path: &str) -> Result<String, Error> {
    match root.read(path, FILE_MAX) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        // No file is as good as an empty one; so is a directory or a device in its place.
        Err(error)
            if matches!(
                error.errno(),
                Some(libc_errno::ENOENT | libc_errno::ENOTDIR | libc_errno::EINVAL)
            ) =>
        {
            Ok(String::new())
        }
        Err(source) => Err(Error::Step { step: format!("read /{path} of the container"), source }),
    }
}

/// The numbers of errno(3) that are told apart here.
mod libc_errno {
    use rustix::io::Errno;

    pub(super) const ENOENT: i32 = Errno::NOENT.raw_os_error();
    pub(super) const ENOTDIR: i32 = Errno::NOTDIR.raw_os_error();
    pub(super) const EINVAL: i32 = Errno::INVAL.raw_os_error();
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl PasswdEntry<'_> {
    fn home_or_root(&self) -> String {
        if self.home.is_empty() { "/".to_owned() } else { self.home.to_owned() }
    }
}

fn users(passwd: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(PasswdEntry { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
    })
}

/// Name, id and members.
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

fn resolve_in(
    passwd: &str,
    group_file: impl Fn() -> Result<String, Error>,
    spec: &str,
) -> Result<User, Error> {
    let (name, group) = spec.split_once(':').unwrap_or((spec, ""));
    let number = name.parse::<u32>().ok();
    let entry = users(passwd).find(|user| {
        if name.is_empty() { user.uid == 0 } else { user.name == name || number == Some(user.uid) }
    });
    let mut user = match (&entry, number) {
        (Some(entry), _) => {
            User { uid: entry.uid, gid: entry.gid, additional_gids: Vec::new(), home: entry.home_or_root() }
        }
        (None, Some(uid)) => User { uid, home: "/".to_owned(), ..User::default() },
        (None, None) if name.is_empty() => User { home: "/".to_owned(), ..User::default() },
        (None, None) => return Err(not_found("user", name, "passwd")),
    };
    if !group.is_empty() {
        user.gid = find_gid(&group_file()?, group)?;
    } else if let Some(entry) = &entry {
        let text = group_file()?;
        let is_member = |members: &str| members.split(',').any(|member| member == entry.name);
        user.additional_gids =
            groups(&text).filter(|(_, _, members)| is_member(members)).map(|(_, gid, _)| gid).collect();
    }
    let ids = [user.uid, user.gid].into_iter().chain(user.additional_gids.iter().copied());
    if ids.into_iter().any(|id| id > ID_MAX) {
        return Err(Error::NotFound { message: format!("uids and gids must be in range 0-{ID_MAX}") });
    }
    Ok(user)
}

fn find_gid(text: &str, group: &str) -> Result<u32, Error> {
    let number = group.parse::<u32>().ok();
    let found = groups(text).find(|&(name, gid, _)| name == group || number == Some(gid));
    found.map(|(_, gid, _)| gid).or(number).ok_or_else(|| not_found("group", group, "group"))
}

fn not_found(kind: &str, name: &str, file: &str) -> Error {
    Error::NotFound { message: format!("unable to find {kind} {name}: no matching entries in {file} file") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbroken\nwww:x:33:34::/var/www:/bin/sh\nhuge:x:4294967295:0::/:\n";
    const GROUP: &str = "root:x:0:\naudio:x:29:www,other\nweb:x:34:\nvideo:x:44:www\n";

    fn find(spec: &str) -> Result<User, String> {
        resolve_in(PASSWD, || Ok(GROUP.to_owned()), spec).map_err(|error| error.to_string())
    }

    #[expect(clippy::unnecessary_wraps, reason = "compared with what may fail")]
    fn user(uid: u32, gid: u32, additional_gids: &[u32], home: &str) -> Result<User, String> {
        Ok(User { uid, gid, additional_gids: additional_gids.to_vec(), home: home.to_owned() })
    }

    #[test]
    fn names_and_numbers_are_looked_up() {
        assert_eq!(find(""), user(0, 0, &[], "/root"));
        assert_eq!(find("www"), user(33, 34, &[29, 44], "/var/www"));
        assert_eq!(find("33"), user(33, 34, &[29, 44], "/var/www"));
        assert_eq!(find("www:audio"), user(33, 29, &[], "/var/www"));
        assert_eq!(find("1000:1001"), user(1000, 1001, &[], "/"));
        assert_eq!(find("1000"), user(1000, 0, &[], "/"));
        assert_eq!(find(":audio"), user(0, 29, &[], "/root"));
    }

    #[test]
    fn what_is_not_there_is_said_as_docker_says_it() {
        assert_eq!(
            find("nobody").unwrap_err(),
            "unable to find user nobody: no matching entries in passwd file"
        );
        assert_eq!(find("www:x").unwrap_err(), "unable to find group x: no matching entries in group file");
        assert_eq!(find_gid(GROUP, "video").unwrap(), 44);
        for spec in ["huge", "4294967295", "2147483648", "0:2147483648"] {
            assert_eq!(find(spec).unwrap_err(), "uids and gids must be in range 0-2147483647", "{spec}");
        }
        assert!(find("4294967296").is_err());
        assert!(find("-1").is_err());
    }

    #[test]
    fn an_empty_image_has_root() {
        let user = resolve_in("", || Ok(String::new()), "").unwrap();
        assert_eq!((user.uid, user.gid, user.home.as_str()), (0, 0, "/"));
    }
}
