//! Docker's form of a policy: rules with conditions on what the container has.

use ponton_oci::runtime::{Action, Arch, Seccomp, SeccompArg, SeccompSyscall};
use serde::{Deserialize, Deserializer};

use super::native;

/// A profile as `--security-opt seccomp=<file>` takes it
/// (<https://docs.docker.com/engine/security/seccomp/>). An OCI policy is one too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Profile {
    /// What is done with what no rule is for.
    pub default_action: Action,
    /// The error number of that.
    pub default_errno_ret: Option<u32>,
    /// The architectures.
    #[serde(deserialize_with = "null_as_default")]
    pub architectures: Vec<Arch>,
    /// Instead of them: the relatives of each machine's architecture.
    #[serde(deserialize_with = "null_as_default")]
    pub arch_map: Vec<ArchMap>,
    /// Flags of seccomp(2).
    #[serde(deserialize_with = "null_as_default")]
    pub flags: Vec<String>,
    /// Where a listener of notifications is.
    pub listener_path: String,
    /// What it is told.
    pub listener_metadata: String,
    /// The rules.
    #[serde(deserialize_with = "null_as_default")]
    pub syscalls: Vec<Rule>,
}

/// An architecture and those whose programs its machines run too.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchMap {
    /// The machine's.
    pub architecture: Arch,
    /// Its relatives.
    #[serde(default, deserialize_with = "null_as_default")]
    pub sub_architectures: Vec<Arch>,
}

/// A rule that counts only under conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// One system call (the old form).
    pub name: String,
    /// The system calls.
    #[serde(deserialize_with = "null_as_default")]
    pub names: Vec<String>,
    /// What is done with them.
    pub action: Action,
    /// The error number of that.
    pub errno_ret: Option<u32>,
    /// Comparisons that must hold.
    #[serde(deserialize_with = "null_as_default")]
    pub args: Vec<SeccompArg>,
    /// The rule counts if all of this is so.
    #[serde(deserialize_with = "null_as_default")]
    pub includes: Conditions,
    /// The rule does not count if any of this is so.
    #[serde(deserialize_with = "null_as_default")]
    pub excludes: Conditions,
}

/// What a rule can depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Conditions {
    /// Capabilities, `CAP_SYS_ADMIN`.
    #[serde(deserialize_with = "null_as_default")]
    pub caps: Vec<String>,
    /// Machines, in Docker's names: `amd64`, `arm64`.
    #[serde(deserialize_with = "null_as_default")]
    pub arches: Vec<String>,
    /// The kernel's version or a later one, `4.8`.
    #[serde(deserialize_with = "kernel_version")]
    pub min_kernel: Option<(u32, u32)>,
}

/// What a profile is resolved for.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The capabilities that the container can have, `CAP_SYS_ADMIN`.
    pub capabilities: &'a [String],
    /// The kernel's version.
    pub kernel: (u32, u32),
}

/// Why a profile cannot be used. The texts are Docker's.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// It is not the JSON that is wanted.
    #[error("decoding seccomp profile failed: {0}")]
    Json(#[from] serde_json::Error),
    /// Two ways of naming architectures.
    #[error(
        "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or 'archMap'"
    )]
    ArchitecturesTwice,
    /// Two ways of naming system calls.
    #[error("both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'")]
    NamesTwice,
}

impl Profile {
    /// Parses a profile.
    pub fn from_slice(json: &[u8]) -> Result<Self, ProfileError> {
        Ok(serde_json::from_slice(json)?)
    }

    /// The policy for a container: the rules whose conditions hold.
    pub fn policy(&self, target: Target<'_>) -> Result<Seccomp, ProfileError> {
        if !self.architectures.is_empty() && !self.arch_map.is_empty() {
            return Err(ProfileError::ArchitecturesTwice);
        }
        let mut architectures = self.architectures.clone();
        for entry in self.arch_map.iter().filter(|entry| entry.architecture == native()) {
            architectures.push(entry.architecture);
            architectures.extend(&entry.sub_architectures);
        }
        let mut syscalls = Vec::new();
        for rule in &self.syscalls {
            if !rule.name.is_empty() && !rule.names.is_empty() {
                return Err(ProfileError::NamesTwice);
            }
            if rule.includes.all_hold(target) && !rule.excludes.any_holds(target) {
                syscalls.push(rule.to_syscall());
            }
        }
        Ok(Seccomp {
            default_action: self.default_action,
            default_errno_ret: self.default_errno_ret,
            architectures,
            flags: self.flags.clone(),
            listener_path: self.listener_path.clone(),
            listener_metadata: self.listener_metadata.clone(),
            syscalls,
        })
    }
}

impl Rule {
    fn to_syscall(&self) -> SeccompSyscall {
        let names = if self.name.is_empty() { self.names.clone() } else { vec![self.name.clone()] };
        SeccompSyscall { names, action: self.action, errno_ret: self.errno_ret, args: self.args.clone() }
    }
}

impl Conditions {
    fn all_hold(&self, target: Target<'_>) -> bool {
        self.caps.iter().all(|capability| target.capabilities.contains(capability))
            && (self.arches.is_empty() || self.arches.iter().any(|arch| arch == machine()))
            && self.min_kernel.is_none_or(|version| target.kernel >= version)
    }

    fn any_holds(&self, target: Target<'_>) -> bool {
        self.caps.iter().any(|capability| target.capabilities.contains(capability))
            || self.arches.iter().any(|arch| arch == machine())
            || self.min_kernel.is_some_and(|version| target.kernel >= version)
    }
}

/// The machine's name in conditions.
fn machine() -> &'static str {
    match native() {
        Arch::Aarch64 => "arm64",
        _ => "amd64",
    }
}

fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn kernel_version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<(u32, u32)>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let parse = || {
        let (major, minor) = text.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    parse().map(Some).ok_or_else(|| serde::de::Error::custom(format!("invalid kernel version: {text:?}")))
}
