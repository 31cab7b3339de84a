//! Copy-on-write root file systems.
