//! Which system calls a container may make: from a policy to a program that the kernel runs.
//!
//! ```text
//!   default::profile()  ─┐ Profile            policy(capabilities, …)   oci::runtime::Seccomp
//!   --security-opt file ─┴─────────────────────────────────────────────► │ compile
//!                                                                        ▼
//!                              <exec-root>/seccomp/<key>.bpf ◄── cache ── struct sock_filter[]
//! ```
//!
//! A policy means what libseccomp and runc take it to mean, so that a profile written for Docker
//! works unchanged: see [`compile`].

mod arch;
mod compile;
pub mod default;
mod profile;

#[cfg(test)]
mod interpreter;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use ponton_oci::Digest;
use ponton_oci::runtime::{Action, Arch, Seccomp};

pub use arch::native;
pub use compile::compile;
pub use profile::{Conditions, Profile, ProfileError, Target};

/// Goes into the key of a compiled program: counted up when the compiler's output changes.
const COMPILER_VERSION: u32 = 1;
/// Bytes of one `struct sock_filter`.
const INSTRUCTION_SIZE: usize = 8;
/// The kernel takes no longer program (`BPF_MAXINSNS`).
const INSTRUCTIONS_MAX: usize = 4096;

/// The filter is for all threads; the kernel takes it beside a listener only with yet another flag.
pub(crate) const TSYNC: u32 = 1;
/// A notified call is interrupted by fatal signals only; the kernel takes it with a listener only.
pub(crate) const WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Only x86_64 and aarch64 (each with its 32-bit relatives) are known.
    #[error("linux.seccomp: architecture {0:?} is not supported")]
    UnsupportedArch(Arch),
    /// System calls have the arguments 0 to 5.
    #[error("linux.seccomp: {syscall}: argument index {index} is not in 0 to 5")]
    ArgumentIndex {
        /// The system call of the rule.
        syscall: String,
        /// What the rule says.
        index: u32,
    },
    /// A rule is for some system call.
    #[error("linux.seccomp.syscalls[{0}].names: there is none")]
    NoNames(usize),
    /// The error number does not fit.
    #[error("linux.seccomp: error number {0} is not in 0 to 65535")]
    ErrorNumber(u32),
    /// An error number where no error is returned.
    #[error("linux.seccomp: {action:?} does not return an error number, but {errno} is given")]
    ErrorNumberUnused {
        /// What is done instead.
        action: Action,
        /// The number.
        errno: u32,
    },
    /// The flag is not one of the specification's.
    #[error("linux.seccomp: unknown flag {0:?}")]
    Flag(String),
    /// The kernel takes no more than 4096 instructions.
    #[error("linux.seccomp: the policy needs {0} instructions, the kernel takes {INSTRUCTIONS_MAX}")]
    TooLong(usize),
    /// The compiled program could not be kept.
    #[error("linux.seccomp: {operation} {path}")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The flags of seccomp(2) that a policy asks for, `SECCOMP_FILTER_FLAG_*`.
pub fn flags(policy: &Seccomp) -> Result<u32, Error> {
    policy.flags.iter().try_fold(0, |flags, name| {
        let flag = match name.as_str() {
            "SECCOMP_FILTER_FLAG_TSYNC" => TSYNC,
            "SECCOMP_FILTER_FLAG_LOG" => 1 << 1,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => 1 << 2,
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => WAIT_KILLABLE_RECV,
            _ => return Err(Error::Flag(name.clone())),
        };
        Ok(flags | flag)
    })
}

/// The names of the architectures whose system calls are filtered on this machine.
pub fn architectures() -> Vec<ponton_oci::runtime::Arch> {
    let native = native();
    std::iter::once(native).chain(arch::relatives(native).iter().copied()).collect()
}

/// The file of the policy's program for this machine in `directory`, compiled now if it is not
/// there yet. The directory must be the daemon's own: what is in it is trusted.
///
/// The file is there whole or not at all; two that make it at the same time make the same.
pub fn cache(directory: &Path, policy: &Seccomp) -> Result<PathBuf, Error> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let path = directory.join(format!("{}.bpf", key(policy, native()).hex()));
    if fs::metadata(&path).is_ok_and(|status| is_program_size(status.len())) {
        return Ok(path);
    }
    let program = compile(policy, native())?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let temporary = directory.join(format!(".{}-{number}.tmp", std::process::id()));
    let write = || {
        fs::create_dir_all(directory)?;
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&program)?;
        fs::rename(&temporary, &path)
    };
    write().map_err(|source| {
        // What was begun is of no use; the error that is told is the first one.
        let _ = fs::remove_file(&temporary);
        Error::Io { operation: "write", path: path.clone(), source }
    })?;
    Ok(path)
}

fn is_program_size(size: u64) -> bool {
    let instruction = INSTRUCTION_SIZE as u64;
    size > 0 && size.is_multiple_of(instruction) && size <= INSTRUCTIONS_MAX as u64 * instruction
}

/// The digest of all that decides a program; each part has its length before it.
fn key(policy: &Seccomp, arch: Arch) -> Digest {
    // A policy has string keys only, so that it always has a JSON form.
    let policy = serde_json::to_vec(policy).unwrap_or_default();
    let arch = format!("{arch:?}");
    let mut framed = COMPILER_VERSION.to_le_bytes().to_vec();
    for part in [arch.as_bytes(), &policy] {
        framed.extend((part.len() as u64).to_le_bytes());
        framed.extend(part);
    }
    Digest::sha256_of(&framed)
}
