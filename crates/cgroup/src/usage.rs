//! What a group has used of things that few ask for.

use std::collections::BTreeMap;
use std::path::Path;

use crate::group::{Cgroup, Directory};
use crate::layout::Version;
use crate::stats::{limit, number, read, table};

/// What was used of one thing, in bytes; a number is 0 where the kernel has no such counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Now.
    pub usage: u64,
    /// The most so far.
    pub max_usage: u64,
    /// The limit; `u64::MAX` for none.
    pub limit: u64,
    /// How often the limit was hit.
    pub fail_count: u64,
}

/// The CPUs and memory nodes of a group (cgroup-v1/cpusets.rst).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpuset {
    /// The CPUs.
    pub cpus: Vec<u16>,
    /// The memory nodes.
    pub mems: Vec<u16>,
    /// The kernel's other numbers by the names of their files (`mem_hardwall`).
    pub numbers: BTreeMap<String, i64>,
}

impl Cgroup {
    /// Memory and swap together.
    pub fn swap(&self) -> Usage {
        let Some(Directory { path, version, .. }) = self.with("memory") else { return Usage::default() };
        if *version == Version::V1 {
            return usage_v1(path, "memory.memsw");
        }
        let memory = limit(path, "memory.max");
        Usage {
            usage: number(path, "memory.current") + number(path, "memory.swap.current"),
            max_usage: number(path, "memory.swap.peak"),
            limit: memory.saturating_add(limit(path, "memory.swap.max")),
            fail_count: table(path, "memory.swap.events").get("max").copied().unwrap_or(0),
        }
    }

    /// The kernel's own memory, and that of its TCP buffers (v1).
    pub fn kernel_memory(&self) -> [Usage; 2] {
        match self.with("memory") {
            Some(Directory { path, version: Version::V1, .. }) => {
                ["memory.kmem", "memory.kmem.tcp"].map(|what| usage_v1(path, what))
            }
            _ => [Usage::default(); 2],
        }
    }

    /// Huge pages by their size (`2MB`).
    pub fn huge_pages(&self) -> BTreeMap<String, Usage> {
        let Some(Directory { path, version, .. }) = self.with("hugetlb") else { return BTreeMap::new() };
        let suffix = match version {
            Version::V1 => ".usage_in_bytes",
            Version::V2 => ".current",
        };
        let names = std::fs::read_dir(path).into_iter().flatten().flatten();
        let sizes = names.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let size = name.strip_prefix("hugetlb.")?.strip_suffix(suffix)?.to_owned();
            // What is reserved counts as another size, and is used up with it.
            (!size.contains('.')).then_some(size)
        });
        let usage = |size: String| {
            let what = format!("hugetlb.{size}");
            let usage = match version {
                Version::V1 => usage_v1(path, &what),
                Version::V2 => Usage {
                    usage: number(path, &format!("{what}.current")),
                    limit: limit(path, &format!("{what}.max")),
                    fail_count: table(path, &format!("{what}.events")).get("max").copied().unwrap_or(0),
                    ..Usage::default()
                },
            };
            (size, usage)
        };
        sizes.map(usage).collect()
    }

    /// Where it runs (v1); nothing where it has no cpuset.
    pub fn cpuset(&self) -> Cpuset {
        let Some(Directory { path, version: Version::V1, .. }) = self.with("cpuset") else {
            return Cpuset::default();
        };
        let flags = [
            "cpu_exclusive",
            "mem_hardwall",
            "mem_exclusive",
            "memory_migrate",
            "memory_spread_page",
            "memory_spread_slab",
            "memory_pressure",
            "sched_load_balance",
            "sched_relax_domain_level",
        ];
        let value = |name: &str| read(path, &format!("cpuset.{name}")).trim().parse().ok();
        Cpuset {
            cpus: list(&read(path, "cpuset.cpus")),
            mems: list(&read(path, "cpuset.mems")),
            numbers: flags.iter().filter_map(|name| Some(((*name).to_owned(), value(name)?))).collect(),
        }
    }
}

fn usage_v1(directory: &Path, what: &str) -> Usage {
    Usage {
        usage: number(directory, &format!("{what}.usage_in_bytes")),
        max_usage: number(directory, &format!("{what}.max_usage_in_bytes")),
        limit: limit(directory, &format!("{what}.limit_in_bytes")),
        fail_count: number(directory, &format!("{what}.failcnt")),
    }
}

/// `0-2,5`.
fn list(text: &str) -> Vec<u16> {
    let ranges = text.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse::<u16>().ok()?..=last.parse().ok()?)
    });
    ranges.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_ranges() {
        assert_eq!(list("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!((list(""), list("7")), (vec![], vec![7]));
    }

    #[test]
    fn files_of_both_versions_are_read() {
        let scratch = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| std::fs::write(scratch.path().join(file), text).unwrap();
        for (file, text) in [
            ("memory.memsw.usage_in_bytes", "5\n"),
            ("memory.memsw.limit_in_bytes", "9223372036854771712\n"),
            ("memory.memsw.failcnt", "2\n"),
            ("hugetlb.2MB.usage_in_bytes", "6\n"),
            ("hugetlb.2MB.rsvd.usage_in_bytes", "6\n"),
            ("memory.current", "10\n"),
            ("memory.swap.current", "3\n"),
            ("memory.max", "100\n"),
            ("memory.swap.max", "max\n"),
            ("memory.swap.events", "high 0\nmax 4\n"),
            ("hugetlb.1GB.current", "7\n"),
            ("hugetlb.1GB.max", "8\n"),
        ] {
            write(file, text);
        }
        let group = |version| {
            let controllers = ["memory", "hugetlb"].map(String::from).into();
            let (path, mount) = (scratch.path().to_owned(), scratch.path().to_owned());
            Cgroup::in_directories(vec![Directory { path, mount, version, controllers }])
        };
        let (v1, v2) = (group(Version::V1), group(Version::V2));
        assert_eq!(v1.swap(), Usage { usage: 5, limit: u64::MAX, fail_count: 2, ..Usage::default() });
        assert_eq!(v2.swap(), Usage { usage: 13, limit: u64::MAX, fail_count: 4, ..Usage::default() });
        let huge = |size: &str, usage, limit| {
            BTreeMap::from([(size.to_owned(), Usage { usage, limit, ..Usage::default() })])
        };
        assert_eq!(v1.huge_pages(), huge("2MB", 6, u64::MAX));
        assert_eq!(v2.huge_pages(), huge("1GB", 7, 8));
    }
}
