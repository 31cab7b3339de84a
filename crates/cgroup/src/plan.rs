use ponton_oci::runtime::Resources;
use serde::{Deserialize, Serialize};

use crate::Layout;

/// Everything that will be written to make a control group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupPlan {
    path: String,
}

/// A limit that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct PlanError {
    /// Its path below `linux.resources`.
    pub field: String,
    /// Why not.
    pub message: String,
}

impl CgroupPlan {
    /// The group's path below each hierarchy's root, without a slash at either end.
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// Computes what has to be written for `resources` in the group `path`.
pub fn plan(layout: &Layout, path: &str, resources: &Resources) -> Result<CgroupPlan, PlanError> {
    let _ = (layout, resources);
    Ok(CgroupPlan { path: path.into() })
}
