//! `--userns-remap`: whose subordinate ids stand for those of containers (subuid(5), subgid(5)).
//!
//! The words are dockerd's: `default`, `user`, `user:group`, `uid` or `uid:gid`. `default` is the user
//! `dockremap`, which has to be there: accounts are the administrator's to make.

use std::fs;

use ponton_oci::runtime::IdMapping;

use crate::spec::idmap::IdMaps;

/// Who `default` is.
const DEFAULT: &str = "dockremap";

/// The host's accounts, as the text of their files.
#[derive(Debug, Default)]
struct Accounts {
    passwd: String,
    group: String,
    subuid: String,
    subgid: String,
}

/// The maps that `text` asks for, by the files of the host; none for `root`, who cannot be mapped onto
/// himself, as with dockerd.
pub fn maps(text: &str) -> Result<Option<IdMaps>, String> {
    // One that is missing has nothing in it.
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (passwd, group) = (read("/etc/passwd"), read("/etc/group"));
    let accounts = Accounts { passwd, group, subuid: read("/etc/subuid"), subgid: read("/etc/subgid") };
    accounts.maps(text)
}

impl Accounts {
    fn maps(&self, text: &str) -> Result<Option<IdMaps>, String> {
        let (user, group) = match text.split(':').collect::<Vec<_>>()[..] {
            [user] => (user, None),
            [user, group] => (user, Some(group)),
            _ => return Err("it is default, USER[:GROUP] or UID[:GID]".to_owned()),
        };
        let wanted = if user == "default" { DEFAULT } else { user };
        let (name, uid) = find(&self.passwd, wanted).ok_or_else(|| match user {
            "default" => format!(
                "there is no user {DEFAULT}: make it and its ranges (useradd --system --user-group {DEFAULT}; a line \
                 {DEFAULT}:100000:65536 in /etc/subuid and in /etc/subgid), or name another"
            ),
            _ => format!("there is no user {user} in /etc/passwd"),
        })?;
        // Without a group it is the one that is called like the user.
        let group = group.unwrap_or(wanted);
        find(&self.group, group).ok_or_else(|| format!("there is no group {group} in /etc/group"))?;
        if name == "root" {
            return Ok(None);
        }
        let ranges = |list: &str, file: &str| match ranges(list, &name, &uid)? {
            ranges if ranges.is_empty() => Err(format!("{file} has no range of ids for the user {name}")),
            ranges => Ok(ranges),
        };
        Ok(Some(IdMaps {
            uids: ranges(&self.subuid, "/etc/subuid")?,
            gids: ranges(&self.subgid, "/etc/subgid")?,
        }))
    }
}

/// Name and number of an account that is called by either (passwd(5), group(5)).
fn find(list: &str, wanted: &str) -> Option<(String, String)> {
    let is_number = wanted.parse::<u32>().is_ok();
    list.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        let is_it = if is_number { number == wanted } else { name == wanted };
        is_it.then(|| (name.to_owned(), number.to_owned()))
    })
}

/// The ranges of a user, the lowest first, one behind the other as seen from inside.
fn ranges(list: &str, name: &str, uid: &str) -> Result<Vec<IdMapping>, String> {
    let lines = list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut found = Vec::new();
    for line in lines {
        let mut fields = line.split(':');
        if !fields.next().is_some_and(|owner| owner == name || owner == uid) {
            continue;
        }
        let mut number = || fields.next()?.parse::<u32>().ok();
        let range = number().zip(number()).filter(|(first, size)| first.checked_add(*size).is_some());
        let (first, size) = range.ok_or_else(|| format!("{line:?} is not USER:FIRST:COUNT"))?;
        if first == 0 {
            return Err(format!("{line:?} would make containers' root the host's"));
        }
        found.extend((size > 0).then_some((first, size)));
    }
    found.sort_unstable();
    found.dedup();
    let mut next = 0u32;
    let mut mapped = Vec::new();
    for (host_id, size) in found {
        mapped.push(IdMapping { container_id: next, host_id, size });
        next = next.checked_add(size).ok_or("the ranges have more ids than there are")?;
    }
    Ok(mapped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0::/:/bin/sh\nanna:x:1000:1000::/:/bin/sh\nben:x:1001:1000::/:/bin/sh\n"
                .to_owned(),
            group: "root:x:0:\nanna:x:1000:\nstaff:x:50:anna\n".to_owned(),
            subuid: "anna:200000:1000\n1000:100000:65536\nother:5:5\n".to_owned(),
            subgid: "# ranges\nanna:300000:65536\n".to_owned(),
        }
    }

    #[test]
    fn ranges_are_put_one_behind_the_other() {
        let mapping = |container_id, host_id, size| IdMapping { container_id, host_id, size };
        for text in ["anna", "1000", "anna:staff", "1000:50", "anna:1000"] {
            let maps = accounts().maps(text).unwrap().unwrap();
            assert_eq!(maps.uids, [mapping(0, 100_000, 65_536), mapping(65_536, 200_000, 1000)], "{text}");
            assert_eq!(maps.gids, [mapping(0, 300_000, 65_536)]);
        }
        assert_eq!(accounts().maps("root").unwrap(), None);
        let with = Accounts {
            passwd: "dockremap:x:99:99::/:/".to_owned(),
            group: "dockremap:x:99:".to_owned(),
            subuid: "dockremap:100000:65536".to_owned(),
            subgid: "dockremap:100000:65536".to_owned(),
        };
        assert_eq!(with.maps("default").unwrap().unwrap().uids, [mapping(0, 100_000, 65_536)]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let said = |text: &str| accounts().maps(text).unwrap_err();
        assert!(said("default").contains("useradd --system --user-group dockremap"));
        assert_eq!(said("carl"), "there is no user carl in /etc/passwd");
        assert_eq!(said("1002"), "there is no user 1002 in /etc/passwd");
        assert_eq!(said("anna:none"), "there is no group none in /etc/group");
        assert_eq!(said("ben"), "there is no group ben in /etc/group");
        assert_eq!(said("ben:staff"), "/etc/subuid has no range of ids for the user ben");
        assert!(said("a:b:c").starts_with("it is default"));
        let broken = |subuid: &str| {
            let subuid = subuid.to_owned();
            Accounts { subuid, ..accounts() }.maps("anna").unwrap_err()
        };
        assert!(broken("anna:x:5").contains("is not USER:FIRST:COUNT"));
        assert!(broken("anna:4294967290:10").contains("is not USER:FIRST:COUNT"));
        assert!(broken("anna:0:10").contains("the host's"));
        assert!(broken("anna:1:0").contains("no range"));
    }
}
