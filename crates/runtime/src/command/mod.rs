//! The subcommands: arguments, and the call into the library.

pub(crate) mod init;
pub(crate) mod shim;
