//! Programs that are run at points of a container's life (config.md, "POSIX-platform Hooks").

use std::fmt;

use ponton_oci::runtime::{Hook, Hooks};
use serde::{Deserialize, Serialize};

use super::PlanError;

/// When hooks are run, and where.
///
/// ```text
///   create   prestart, createRuntime   of the runtime; namespaces and mounts are there
///            createContainer           in the container's namespaces, before pivot_root
///   start    startContainer            in the container, before its program
///            poststart                 of the runtime; the program runs
///   delete   poststop                  of the runtime; nothing of the container is left
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HookKind {
    /// As [`CreateRuntime`](Self::CreateRuntime), and before it.
    Prestart,
    /// In the runtime's namespaces.
    CreateRuntime,
    /// A program of the host, in the container's namespaces.
    CreateContainer,
    /// A program of the container.
    StartContainer,
    /// In the runtime's namespaces; a failure is only told.
    Poststart,
    /// In the runtime's namespaces; a failure is only told.
    Poststop,
}

impl HookKind {
    /// All, in the order of a container's life.
    pub const ALL: [Self; 6] = [
        Self::Prestart,
        Self::CreateRuntime,
        Self::CreateContainer,
        Self::StartContainer,
        Self::Poststart,
        Self::Poststop,
    ];

    /// Its name in the specification.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }
}

impl fmt::Display for HookKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The hooks of a kind, checked.
pub(super) fn check(hooks: &Hooks, kind: HookKind) -> Result<Vec<Hook>, PlanError> {
    let hooks = match kind {
        HookKind::Prestart => &hooks.prestart,
        HookKind::CreateRuntime => &hooks.create_runtime,
        HookKind::CreateContainer => &hooks.create_container,
        HookKind::StartContainer => &hooks.start_container,
        HookKind::Poststart => &hooks.poststart,
        HookKind::Poststop => &hooks.poststop,
    };
    for (index, hook) in hooks.iter().enumerate() {
        let invalid = |field: &str, message: &str| {
            Err(PlanError::invalid(format!("hooks.{kind}[{index}].{field}"), message))
        };
        if !hook.path.starts_with('/') || hook.path.contains('\0') {
            return invalid("path", &format!("{:?} is not an absolute path", hook.path));
        }
        if hook.args.iter().any(|arg| arg.contains('\0')) {
            return invalid("args", "an argument contains a null byte");
        }
        if hook.env.iter().any(|variable| variable.contains('\0')) {
            return invalid("env", "a variable contains a null byte");
        }
        if hook.timeout.is_some_and(|timeout| timeout <= 0) {
            return invalid("timeout", "must be greater than zero");
        }
    }
    Ok(hooks.clone())
}
