//! Namespaces: which are made, which are joined, what ids mean in them, and what their clocks say.

use std::collections::BTreeMap;

use ponton_oci::runtime::{IdMapping, Linux, NamespaceType, Process, TimeOffset};
use serde::{Deserialize, Serialize};

use super::build::Builder;
use super::{Action, Join, PlanError};

/// The ids of a user namespace, or of a mount, in terms of the runtime's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMaps {
    /// Its user ids.
    pub uid: Vec<IdMapping>,
    /// Its group ids.
    pub gid: Vec<IdMapping>,
}

/// What the kernel takes (user_namespaces(7)).
const RANGES_MAX: usize = 340;

impl IdMaps {
    /// The user and group that set the container up: 0, or the first where 0 is not mapped.
    pub(crate) fn root(&self) -> (u32, u32) {
        let root = |ranges: &[IdMapping]| {
            if contains(ranges, 0) { 0 } else { ranges.first().map_or(0, |range| range.container_id) }
        };
        (root(&self.uid), root(&self.gid))
    }

    /// The same two, as they are outside.
    pub(crate) fn root_outside(&self) -> (u32, u32) {
        let outside = |ranges: &[IdMapping], id: u32| {
            let range = ranges.iter().find(|range| contains(std::slice::from_ref(range), id));
            range.map_or(id, |range| range.host_id + (id - range.container_id))
        };
        let (uid, gid) = self.root();
        (outside(&self.uid, uid), outside(&self.gid, gid))
    }

    /// Whether there are no ranges.
    pub fn is_empty(&self) -> bool {
        self.uid.is_empty() && self.gid.is_empty()
    }

    /// Checks maps that stand at `field`, with `uidMappings` and `gidMappings` below it.
    pub(super) fn checked(uid: &[IdMapping], gid: &[IdMapping], field: &str) -> Result<Self, PlanError> {
        for (ranges, name) in [(uid, "uidMappings"), (gid, "gidMappings")] {
            check_ranges(ranges, &format!("{field}.{name}"))?;
        }
        Ok(Self { uid: uid.to_vec(), gid: gid.to_vec() })
    }

    /// The maps in words, `0:100000:65536`.
    pub(super) fn words(&self) -> String {
        let (uid, gid) = (words(&self.uid), words(&self.gid));
        if uid == gid { format!("ids={uid}") } else { format!("uids={uid} gids={gid}") }
    }
}

/// Ranges in words, `0:100000:65536`.
pub(crate) fn words(ranges: &[IdMapping]) -> String {
    let word = |range: &IdMapping| format!("{}:{}:{}", range.container_id, range.host_id, range.size);
    ranges.iter().map(word).collect::<Vec<_>>().join(",")
}

fn contains(ranges: &[IdMapping], id: u32) -> bool {
    ranges.iter().any(|range| id >= range.container_id && id - range.container_id < range.size)
}

fn check_ranges(ranges: &[IdMapping], field: &str) -> Result<(), PlanError> {
    if ranges.is_empty() {
        return Err(PlanError::invalid(field, "is missing: a user namespace needs its ids mapped"));
    }
    if ranges.len() > RANGES_MAX {
        return Err(PlanError::invalid(field, format!("has more than {RANGES_MAX} ranges")));
    }
    let overlap = |first: u32, other: u32, range: &IdMapping, known: &IdMapping| {
        u64::from(first) < u64::from(other) + u64::from(known.size)
            && u64::from(other) < u64::from(first) + u64::from(range.size)
    };
    for (index, range) in ranges.iter().enumerate() {
        let invalid = |message: &str| Err(PlanError::invalid(format!("{field}[{index}]"), message));
        if range.size == 0 {
            return invalid("a range of no ids");
        }
        // The last id of all stands for none.
        let fits = |first: u32| first.checked_add(range.size).is_some();
        if !fits(range.container_id) || !fits(range.host_id) {
            return invalid("goes past the last id");
        }
        let mut before = ranges.iter().take(index);
        if before.any(|known| {
            overlap(range.container_id, known.container_id, range, known)
                || overlap(range.host_id, known.host_id, range, known)
        }) {
            return invalid("overlaps with a range before it");
        }
    }
    Ok(())
}

impl Builder<'_> {
    /// Plans the clone. `self.ids` and `self.in_user_namespace` are known after it.
    pub(super) fn namespaces(&mut self, linux: &Linux) -> Result<(), PlanError> {
        let (mut new, mut join) = (Vec::new(), Vec::new());
        for (index, namespace) in linux.namespaces.iter().enumerate() {
            let field = format!("linux.namespaces[{index}]");
            let kind = namespace.r#type;
            if new.contains(&kind) || join.iter().any(|join: &Join| join.r#type == kind) {
                return Err(PlanError::invalid(field, format!("a second {kind} namespace")));
            }
            match namespace.path.as_deref().filter(|path| !path.is_empty()) {
                _ if kind == NamespaceType::Network && self.input.netns => {
                    join.push(Join { r#type: kind, path: None });
                }
                Some(path) if !path.starts_with('/') || path.contains('\0') => {
                    let message = format!("{path:?} is not an absolute path");
                    return Err(PlanError::invalid(format!("{field}.path"), message));
                }
                Some(path) => join.push(Join { r#type: kind, path: Some(path.into()) }),
                None => new.push(kind),
            }
        }
        let is_joined = |kind| join.iter().any(|join| join.r#type == kind);
        if !new.contains(&NamespaceType::Mount) && !is_joined(NamespaceType::Mount) {
            return Err(PlanError::invalid("linux.namespaces", "a mount namespace is needed"));
        }
        let joins_user = is_joined(NamespaceType::User);
        self.in_user_namespace = joins_user || new.contains(&NamespaceType::User);
        if !self.in_user_namespace && !self.host.can_mount {
            let message = "a user namespace is needed, since we may not mount (CAP_SYS_ADMIN)";
            return Err(PlanError::invalid("linux.namespaces", message));
        }
        if joins_user && is_joined(NamespaceType::Mount) && !self.host.can_mount {
            let message = "a mount namespace of another is joined with privileges only";
            return Err(PlanError::invalid("linux.namespaces", message));
        }
        self.ids = ids(linux, new.contains(&NamespaceType::User), joins_user)?;
        let joined_ids = if joins_user { joined_ids(linux) } else { IdMaps::default() };
        self.joined_ids = (!joined_ids.is_empty()).then(|| joined_ids.clone());
        let clocks = clocks(linux, new.contains(&NamespaceType::Time))?;
        let ids = self.ids.clone();
        self.push("linux.namespaces", Action::Clone { new, join, ids, joined_ids, clocks });
        Ok(())
    }

    /// Refuses a user that has no id outside.
    pub(super) fn check_user(&self, process: &Process) -> Result<(), PlanError> {
        let Some(ids) = self.ids.as_ref().filter(|_| self.input.process.user.is_none()) else {
            return Ok(());
        };
        let user = &process.user;
        let mut checked = vec![("uid", "uid", &ids.uid, user.uid), ("gid", "gid", &ids.gid, user.gid)];
        let groups = user.additional_gids.iter();
        checked.extend(groups.map(|gid| ("additionalGids", "gid", &ids.gid, *gid)));
        match checked.into_iter().find(|(_, _, ranges, id)| !contains(ranges, *id)) {
            Some((field, kind, _, id)) => Err(PlanError::invalid(
                format!("process.user.{field}"),
                format!("{id} is not mapped by linux.{kind}Mappings"),
            )),
            None => Ok(()),
        }
    }
}

/// What is said beside a user namespace that is joined. It has its own maps, and what is said has to
/// be the same (containerd writes it), unless it is the dummy that podman writes there.
fn joined_ids(linux: &Linux) -> IdMaps {
    const DUMMY: [IdMapping; 1] = [IdMapping { container_id: 0, host_id: 0, size: 1 }];
    let said = |ranges: &[IdMapping]| if ranges == DUMMY { Vec::new() } else { ranges.to_vec() };
    IdMaps { uid: said(&linux.uid_mappings), gid: said(&linux.gid_mappings) }
}

/// The maps of a user namespace that is made.
fn ids(linux: &Linux, is_new: bool, is_joined: bool) -> Result<Option<IdMaps>, PlanError> {
    if is_new {
        return IdMaps::checked(&linux.uid_mappings, &linux.gid_mappings, "linux").map(Some);
    }
    let given = [("linux.uidMappings", &linux.uid_mappings), ("linux.gidMappings", &linux.gid_mappings)];
    match given.into_iter().find(|(_, ranges)| !ranges.is_empty() && !is_joined) {
        Some((field, _)) => Err(PlanError::invalid(field, "needs a user namespace")),
        None => Ok(None),
    }
}

fn clocks(linux: &Linux, is_new: bool) -> Result<BTreeMap<String, TimeOffset>, PlanError> {
    for (clock, offset) in &linux.time_offsets {
        let invalid = |message: &str| Err(PlanError::invalid(format!("linux.timeOffsets.{clock}"), message));
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return invalid("is no clock that can be set: monotonic and boottime can");
        }
        if !is_new {
            return invalid("needs a new time namespace");
        }
        if offset.nanosecs >= 1_000_000_000 {
            return invalid("nanosecs has a second or more");
        }
    }
    Ok(linux.time_offsets.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(container_id: u32, host_id: u32, size: u32) -> IdMapping {
        IdMapping { container_id, host_id, size }
    }

    #[test]
    fn ranges_are_checked_as_the_kernel_would() {
        let said = |ranges: &[IdMapping]| check_ranges(ranges, "f").map_err(|error| error.to_string());
        assert_eq!(said(&[range(0, 1000, 1), range(1, 100_000, 65_536)]), Ok(()));
        assert_eq!(said(&[range(0, 0, u32::MAX)]), Ok(()));
        assert!(said(&[]).unwrap_err().starts_with("f: is missing"));
        assert_eq!(said(&[range(0, 1, 0)]).unwrap_err(), "f[0]: a range of no ids");
        assert_eq!(said(&[range(1, 0, u32::MAX)]).unwrap_err(), "f[0]: goes past the last id");
        let overlapping = "f[1]: overlaps with a range before it";
        assert_eq!(said(&[range(0, 0, 10), range(9, 100, 1)]).unwrap_err(), overlapping);
        assert_eq!(said(&[range(0, 0, 10), range(10, 5, 1)]).unwrap_err(), overlapping);
        assert_eq!(said(&[range(0, 0, 10), range(10, 10, 1)]), Ok(()));
    }

    #[test]
    fn the_first_id_sets_up_where_there_is_no_root() {
        let maps = |first: u32| IdMaps { uid: vec![range(first, 9, 5)], gid: vec![range(0, 9, 5)] };
        assert_eq!(maps(0).root(), (0, 0));
        assert_eq!(maps(7).root(), (7, 0));
        assert_eq!(maps(0).root_outside(), (9, 9));
        assert_eq!(maps(7).root_outside(), (9, 9));
    }
}
