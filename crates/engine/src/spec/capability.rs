//! Capabilities: `--cap-add`, `--cap-drop` and `--privileged` to a set.

use crate::error::{Error, Result};

/// All capabilities, in the kernel's order (capabilities(7)).
const ALL: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What a container has if it asks for nothing: Docker's 14.
const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

const EVERY: &str = "ALL";

/// The names of a set that is a mask of bits, as `/proc/PID/status` shows it.
pub(crate) fn names(mask: u64) -> Vec<String> {
    let bits = ALL.iter().enumerate().filter(|(bit, _)| mask & 1 << bit != 0);
    bits.map(|(_, name)| (*name).to_owned()).collect()
}

/// All that this kernel has.
pub(super) fn all(last_capability: u8) -> Vec<String> {
    ALL.iter().take(usize::from(last_capability) + 1).map(|name| (*name).to_owned()).collect()
}

/// The names in full, `CAP_SYS_ADMIN` or `ALL`; `what` they are for is in the error.
pub(super) fn normalize(names: &[String], what: &str) -> Result<Vec<String>> {
    names
        .iter()
        .map(|name| {
            let upper = name.to_ascii_uppercase();
            if upper == EVERY {
                return Ok(upper);
            }
            let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
            if ALL.contains(&full.as_str()) {
                return Ok(full);
            }
            Err(Error::invalid(format!("invalid {what}: unknown capability: {full:?}")))
        })
        .collect()
}

/// The capabilities of a container that is not privileged.
pub(super) fn adjusted(add: &[String], drop: &[String], last_capability: u8) -> Result<Vec<String>> {
    let add = normalize(add, "CapAdd")?;
    let drop = normalize(drop, "CapDrop")?;
    let has = |names: &[String], name: &str| names.iter().any(|known| known == name);
    let mut names = if has(&add, EVERY) {
        all(last_capability)
    } else if has(&drop, EVERY) {
        return Ok(without_duplicates(add));
    } else {
        DEFAULT.iter().map(|name| (*name).to_owned()).collect()
    };
    names.retain(|name| !has(&drop, name));
    names.extend(add.into_iter().filter(|name| name != EVERY));
    Ok(without_duplicates(names))
}

fn without_duplicates(names: Vec<String>) -> Vec<String> {
    let mut unique: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        if !unique.contains(&name) {
            unique.push(name);
        }
    }
    unique
}
