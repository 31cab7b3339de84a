//! `--security-opt`.

use crate::error::{Error, Result};

/// What the security options of a container say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Security {
    pub(super) no_new_privileges: bool,
    pub(super) seccomp: SeccompChoice,
    /// Empty for the default.
    pub(super) apparmor: String,
    /// No masked and no read-only paths.
    pub(super) system_paths_unconfined: bool,
    /// The container may change its own control groups.
    pub(super) writable_cgroups: bool,
}

/// Which seccomp policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum SeccompChoice {
    /// The default one; none where the container is privileged.
    #[default]
    Default,
    /// The default one, privileged or not.
    Builtin,
    /// None.
    Unconfined,
    /// A profile's JSON.
    Profile(String),
}

impl Security {
    /// Reads `key=value`, Docker's older `key:value`, and `no-new-privileges` alone.
    pub(super) fn parse(options: &[String]) -> Result<Self> {
        let mut security = Self::default();
        for option in options {
            if option == "no-new-privileges" {
                security.no_new_privileges = true;
                continue;
            }
            // SELinux is not used: nothing is labelled, whatever is asked for.
            if option == "disable" {
                continue;
            }
            let Some((key, value)) = option.split_once('=').or_else(|| option.split_once(':')) else {
                return Err(Error::invalid(format!("invalid --security-opt 1: {option:?}")));
            };
            let invalid = || Error::invalid(format!("invalid --security-opt 2: {option:?}"));
            match key {
                "label" => {}
                "apparmor" => value.clone_into(&mut security.apparmor),
                "seccomp" => security.seccomp = SeccompChoice::parse(value),
                "no-new-privileges" => {
                    security.no_new_privileges = parse_bool(value).ok_or_else(invalid)?;
                }
                "writable-cgroups" => {
                    security.writable_cgroups = parse_bool(value).ok_or_else(invalid)?;
                }
                "systempaths" if value == "unconfined" => security.system_paths_unconfined = true,
                _ => return Err(invalid()),
            }
        }
        Ok(security)
    }
}

impl SeccompChoice {
    fn parse(value: &str) -> Self {
        match value {
            "unconfined" => Self::Unconfined,
            "builtin" => Self::Builtin,
            "" => Self::Default,
            profile => Self::Profile(profile.to_owned()),
        }
    }
}

/// Go's forms of a boolean.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
