//! What a group has used.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ponton_sys::file;

use crate::group::Cgroup;
use crate::meter::Meter;

/// What a control group has used; a number is 0 where the kernel has no such counter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time in nanoseconds.
    pub cpu_total_ns: u64,
    /// CPU time in user mode, in nanoseconds.
    pub cpu_user_ns: u64,
    /// CPU time in the kernel, in nanoseconds.
    pub cpu_system_ns: u64,
    /// CPU time on each CPU in nanoseconds (v1).
    pub cpu_each_ns: Vec<u64>,
    /// How many periods of the CPU quota there were.
    pub throttling_periods: u64,
    /// In how many of them it was used up.
    pub throttled_periods: u64,
    /// How long processes waited for it, in nanoseconds.
    pub throttled_ns: u64,
    /// Memory in bytes, cache included.
    pub memory_usage: u64,
    /// The most memory in bytes (v1, and v2 from kernel 5.19).
    pub memory_max_usage: u64,
    /// The memory limit in bytes; `u64::MAX` for none.
    pub memory_limit: u64,
    /// How often the limit was hit.
    pub memory_fail_count: u64,
    /// The counters of `memory.stat`.
    pub memory_stat: Arc<BTreeMap<String, u64>>,
    /// How many tasks.
    pub pids: u64,
    /// How many tasks there may be; `u64::MAX` for no limit.
    pub pids_limit: u64,
    /// Bytes by device and direction.
    pub block_io_bytes: Vec<BlockIoEntry>,
    /// Operations by device and direction.
    pub block_io_operations: Vec<BlockIoEntry>,
}

/// A counter of a block device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockIoEntry {
    /// The device's major number.
    pub major: u64,
    /// The device's minor number.
    pub minor: u64,
    /// `Read`, `Write`, ….
    pub operation: String,
    /// The count.
    pub value: u64,
}

impl Cgroup {
    /// What the group has used until now. A group that is gone has used nothing.
    pub fn stats(&self) -> Stats {
        Meter::open(self).read(&mut Vec::new())
    }
}

pub(crate) fn read(directory: &Path, name: &str) -> String {
    file::read_text(directory.join(name)).unwrap_or_default()
}

pub(crate) fn number(directory: &Path, file: &str) -> u64 {
    read(directory, file).trim().parse().unwrap_or(0)
}

/// A limit: `max` of v2 and the huge page-rounded number of v1 are no limit.
pub(crate) fn limit(directory: &Path, file: &str) -> u64 {
    parse_limit(&read(directory, file))
}

pub(crate) fn parse_limit(text: &str) -> u64 {
    let value = text.trim().parse().unwrap_or(u64::MAX);
    if value >= 1 << 62 { u64::MAX } else { value }
}

/// Lines of `name number`.
pub(crate) fn table(directory: &Path, file: &str) -> BTreeMap<String, u64> {
    read(directory, file)
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?)))
        .collect()
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Lines of `8:0 Read 4096`.
pub(crate) fn block_io_v1(text: &str) -> Vec<BlockIoEntry> {
    let entry = |line: &str| {
        let mut words = line.split(' ');
        let (major, minor) = device(words.next()?)?;
        let operation = words.next()?.to_owned();
        Some(BlockIoEntry { major, minor, operation, value: words.next()?.parse().ok()? })
    };
    text.lines().filter_map(entry).collect()
}

/// Lines of `8:0 rbytes=4096 wbytes=0 …`.
pub(crate) fn block_io_v2(text: &str, names: [(&str, &str); 2]) -> Vec<BlockIoEntry> {
    let mut entries = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let Some((major, minor)) = words.next().and_then(device) else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let Some((_, operation)) = names.into_iter().find(|(name, _)| *name == key) else { continue };
            let value = value.parse().unwrap_or(0);
            entries.push(BlockIoEntry { major, minor, operation: operation.to_owned(), value });
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_io_of_both_versions() {
        let v1 = block_io_v1("8:0 Read 4096\n8:0 Write 0\nTotal 4096\n");
        let v2 = block_io_v2("8:0 rbytes=4096 wbytes=0 rios=1\n", [("rbytes", "Read"), ("wbytes", "Write")]);
        assert_eq!(v1, v2);
        assert_eq!(v1.len(), 2);
    }
}
