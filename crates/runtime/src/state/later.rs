//! What is left to be done when a container is started, and when it is gone.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use ponton_oci::runtime::{Hook, State};
use ponton_sys as sys;
use serde::{Deserialize, Serialize};

use super::StateError;
use crate::plan::{HookKind, Plan, RdtPlan};
use crate::rdt::Resctrl;
use crate::{Error, hook};

/// What is to be done at a container's start and at its end, by whoever brings that about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Later {
    /// Hooks.
    pub poststart: Vec<Hook>,
    /// Hooks.
    pub poststop: Vec<Hook>,
    /// The class of cache and memory bandwidth.
    pub rdt: Option<RdtPlan>,
}

const FILE: &str = "later.json";

impl Later {
    /// What a plan leaves for later.
    pub fn of(plan: &Plan) -> Self {
        Self {
            poststart: plan.hooks(HookKind::Poststart).to_vec(),
            poststop: plan.hooks(HookKind::Poststop).to_vec(),
            rdt: plan.rdt().cloned(),
        }
    }

    /// Runs the hooks of a container that has been started; those that failed.
    pub fn started(&self, state: &State) -> Vec<Error> {
        hook::run_all(HookKind::Poststart, &self.poststart, state)
    }

    /// Takes back what the container had of the host, then runs the hooks of one that is gone; what
    /// failed.
    pub fn stopped(&self, state: &State) -> Vec<Error> {
        let left = self.leave().err();
        left.into_iter().chain(hook::run_all(HookKind::Poststop, &self.poststop, state)).collect()
    }

    /// Takes back what the container had of the host.
    pub(crate) fn leave(&self) -> Result<(), Error> {
        let Some(plan) = &self.rdt else { return Ok(()) };
        let left = Resctrl::mounted().and_then(|resctrl| resctrl.leave(plan));
        left.map_err(|source| Error::Step { step: "leave (linux.intelRdt)".into(), source })
    }

    /// Keeps it in the directory of a container; nothing if there is nothing to be done.
    pub(super) fn write(&self, directory: &Path) -> Result<(), StateError> {
        if *self == Self::default() {
            return Ok(());
        }
        let path = directory.join(FILE);
        let failed = |error: std::io::Error| sys::Error::new("write", path.display(), error);
        let json = serde_json::to_vec(self).map_err(|error| failed(error.into()))?;
        Ok(fs::write(&path, json).map_err(failed)?)
    }

    /// Reads it again.
    pub(super) fn read(directory: &Path) -> Result<Self, StateError> {
        let path = directory.join(FILE);
        match fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json)
                .map_err(|error| StateError::Parse { path, message: error.to_string() }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(sys::Error::new("read", path.display(), error).into()),
        }
    }
}
