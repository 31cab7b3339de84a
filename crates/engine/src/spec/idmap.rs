//! The option `idmap` of a bind or a volume: as whom the owners of its files are seen.
//!
//! - `idmap`: the owner of the mount's root and the container's user change places, and with them their
//!   groups. What the user makes belongs to the owner on the disk, and what the owner has is the user's.
//! - `idmap=uids=DISK-SEEN-COUNT#…;gids=…`: ids on the disk and what each is in the container. Ids that are
//!   not named belong to nobody, and nobody can make files as one of them. A kind that is left out stays
//!   as it is.

use ponton_oci::runtime::IdMapping;
use ponton_sys::user_namespace::{Ids, Range};
use serde::{Deserialize, Serialize};

/// Maps of user and of group ids: `container_id` on the disk, `host_id` as it is seen. Those of a container
/// with a user namespace: `container_id` in it, and on the disk, and `host_id` for the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMaps {
    /// Of users.
    pub uids: Vec<IdMapping>,
    /// Of groups.
    pub gids: Vec<IdMapping>,
}

impl IdMaps {
    /// These, as the kernel takes them.
    pub fn to_ids(&self) -> Ids {
        let ranges = |list: &[IdMapping]| {
            let range = |mapping: &IdMapping| Range {
                inside: mapping.container_id,
                outside: mapping.host_id,
                size: mapping.size,
            };
            list.iter().map(range).collect()
        };
        Ids { users: ranges(&self.uids), groups: ranges(&self.gids) }
    }

    /// From the disk to what is seen in a container by these maps, and from there to the host by those of
    /// the container. Ids that the container has not belong to nobody.
    pub fn then(&self, container: &Self) -> Self {
        Self { uids: chain(&self.uids, &container.uids), gids: chain(&self.gids, &container.gids) }
    }
}

/// The parts of the ranges that lead from one list into the other.
fn chain(first: &[IdMapping], second: &[IdMapping]) -> Vec<IdMapping> {
    let mut ranges = Vec::new();
    for one in first {
        for other in second {
            let start = one.host_id.max(other.container_id);
            let end = one.host_id.saturating_add(one.size).min(other.container_id.saturating_add(other.size));
            if start < end {
                let disk = one.container_id + (start - one.host_id);
                ranges.push(mapping(disk, other.host_id + (start - other.container_id), end - start));
            }
        }
    }
    ranges
}

/// An owner: user and group.
pub type Owner = (u32, u32);

/// The highest id is `(uid_t) -1`, which stands for none.
const ALL: u32 = u32::MAX;
/// More lines the kernel does not take (user_namespaces(7)).
const LINES_MAX: usize = 340;

/// Reads what comes after `idmap=`: `None` for nothing, which maps the user onto the owner.
pub fn parse(text: &str) -> Result<Option<IdMaps>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let refused = |why: &str| format!("invalid idmap '{text}': {why}");
    let mut maps = IdMaps::default();
    for part in text.split(';') {
        let (list, numbers) = match part.split_once('=') {
            Some(("uids", numbers)) => (&mut maps.uids, numbers),
            Some(("gids", numbers)) => (&mut maps.gids, numbers),
            _ => return Err(refused("it has the form uids=DISK-SEEN-COUNT#…;gids=DISK-SEEN-COUNT#…")),
        };
        if !list.is_empty() {
            return Err(refused("users or groups are given twice"));
        }
        for triple in numbers.split('#') {
            let mapping =
                range(triple).ok_or_else(|| refused(&format!("'{triple}' is not DISK-SEEN-COUNT")))?;
            list.push(mapping);
        }
        if list.len() > LINES_MAX {
            return Err(refused("it has more than 340 ranges"));
        }
        if overlaps(list, |mapping| mapping.container_id) || overlaps(list, |mapping| mapping.host_id) {
            return Err(refused("an id is in two ranges"));
        }
    }
    for list in [&mut maps.uids, &mut maps.gids] {
        if list.is_empty() {
            list.push(mapping(0, 0, ALL));
        }
    }
    Ok(Some(maps))
}

fn range(triple: &str) -> Option<IdMapping> {
    let numbers: Vec<u32> = triple.split('-').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    let [disk, seen, count] = numbers[..] else { return None };
    let fits = count > 0 && disk.checked_add(count).is_some() && seen.checked_add(count).is_some();
    fits.then(|| mapping(disk, seen, count))
}

fn overlaps(list: &[IdMapping], first: impl Fn(&IdMapping) -> u32) -> bool {
    let mut ranges: Vec<_> = list.iter().map(|mapping| (first(mapping), mapping.size)).collect();
    ranges.sort_unstable();
    ranges.windows(2).any(|pair| pair[0].0 + pair[0].1 > pair[1].0)
}

fn mapping(disk: u32, seen: u32, count: u32) -> IdMapping {
    IdMapping { container_id: disk, host_id: seen, size: count }
}

/// Maps by which `owner` on the disk is seen as `user`, and the other way round.
pub fn exchange(owner: Owner, user: Owner) -> IdMaps {
    IdMaps { uids: swap(owner.0, user.0), gids: swap(owner.1, user.1) }
}

fn swap(one: u32, other: u32) -> Vec<IdMapping> {
    let (low, high) = (one.min(other), one.max(other));
    if low == high || high == ALL {
        return vec![mapping(0, 0, ALL)];
    }
    let all = [
        mapping(0, 0, low),
        mapping(low, high, 1),
        mapping(low + 1, low + 1, high - low - 1),
        mapping(high, low, 1),
        mapping(high + 1, high + 1, ALL - high - 1),
    ];
    all.into_iter().filter(|mapping| mapping.size > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(maps: &[IdMapping], disk: u32) -> Option<u32> {
        let range = maps
            .iter()
            .find(|range| (range.container_id..range.container_id + range.size).contains(&disk))?;
        Some(range.host_id + (disk - range.container_id))
    }

    #[test]
    fn owner_and_user_change_places() {
        for (owner, user) in [(1000, 0), (0, 1000), (0, 1), (5, 5), (7, ALL - 1)] {
            let maps = exchange((owner, owner), (user, user));
            assert_eq!(seen(&maps.uids, owner), Some(user));
            assert_eq!(seen(&maps.gids, user), Some(owner));
            assert_eq!(seen(&maps.uids, 3), Some(3));
            assert_eq!(maps.uids.iter().map(|range| u64::from(range.size)).sum::<u64>(), u64::from(ALL));
        }
    }

    #[test]
    fn maps_of_a_mount_lead_into_those_of_the_container() {
        let remap = vec![mapping(0, 100_000, 1000), mapping(1000, 300_000, 10)];
        let container = IdMaps { uids: remap.clone(), gids: remap };
        let maps = parse("uids=5-0-1#7-990-20;gids=0-0-1").unwrap().unwrap().then(&container);
        assert_eq!((seen(&maps.uids, 5), seen(&maps.uids, 6)), (Some(100_000), None));
        assert_eq!((seen(&maps.uids, 7), seen(&maps.uids, 16)), (Some(100_990), Some(100_999)));
        assert_eq!((seen(&maps.uids, 17), seen(&maps.uids, 26)), (Some(300_000), Some(300_009)));
        let all = parse("uids=0-0-1").unwrap().unwrap().then(&container);
        assert_eq!((seen(&all.gids, 999), seen(&all.gids, 1010)), (Some(100_999), None));
    }

    #[test]
    fn ranges_are_read() {
        assert_eq!(parse("").unwrap(), None);
        let maps = parse("uids=0-1000-1#1-2000-5;gids=0-7-1").unwrap().unwrap();
        assert_eq!((seen(&maps.uids, 0), seen(&maps.uids, 3)), (Some(1000), Some(2002)));
        assert_eq!((seen(&maps.uids, 9), seen(&maps.gids, 0)), (None, Some(7)));
        let maps = parse("gids=0-7-1").unwrap().unwrap();
        assert_eq!(seen(&maps.uids, 4711), Some(4711));
        for bad in [
            "x",
            "uids=",
            "uids=1-2",
            "uids=1-2-0",
            "uids=1-2-3-4",
            "uids=0-0-2#1-5-1",
            "uids=a-b-c",
            "uids=0-0-4294967295#4294967295-1-1",
            "uids=0-0-1;uids=1-1-1",
            "uids=-1-0-1",
        ] {
            assert!(parse(bad).unwrap_err().contains(bad), "{bad}");
        }
    }
}
