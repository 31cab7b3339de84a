//! Namespaces that are joined.

use std::os::fd::{AsFd, OwnedFd};

use ponton_oci::runtime::IdMapping;
use ponton_sys as sys;
use ponton_sys::user_namespace::{self, Range};

use crate::Error;
use crate::plan::{IdMaps, PlanError, Step, words};

/// Refuses a user namespace whose ids mean something else than `said`; no ranges are any.
pub(super) fn check_maps(joined: &OwnedFd, said: &IdMaps, step: &Step) -> Result<(), Error> {
    let failed = |source: sys::Error| Error::Step { step: step.name(), source };
    let (uids, gids) = user_namespace::maps_of(joined.as_fd()).map_err(failed)?;
    let fields = [("linux.uidMappings", &said.uid, uids), ("linux.gidMappings", &said.gid, gids)];
    for (field, said, own) in fields {
        let own = sorted(own.into_iter().map(mapping));
        if !said.is_empty() && sorted(said.iter().copied()) != own {
            let message = format!("{} is not what the joined namespace maps: {}", words(said), words(&own));
            return Err(PlanError::invalid(field, message).into());
        }
    }
    Ok(())
}

fn mapping(Range { inside, outside, size }: Range) -> IdMapping {
    IdMapping { container_id: inside, host_id: outside, size }
}

/// The kernel sorts many ranges.
fn sorted(ranges: impl Iterator<Item = IdMapping>) -> Vec<IdMapping> {
    let mut ranges: Vec<_> = ranges.collect();
    ranges.sort_by_key(|range| range.container_id);
    ranges
}
