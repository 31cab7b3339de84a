//! What a group has used, read again and again: the files stay open, since opening one costs several times
//! as much as reading it.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use crate::group::{Cgroup, Directory};
use crate::layout::Version;
use crate::stats::{Stats, block_io_v1, block_io_v2, parse_limit};

/// Most files are shorter than this.
const ROOM: usize = 8 << 10;

/// All files are read in each so many readings, the limits and those of an idle group too.
const WHOLE_EVERY: u32 = 10;

/// The files of one group that tell what it has used. Those that the kernel does not have tell nothing, and so
/// do all of them when the group is gone.
#[derive(Debug)]
pub struct Meter {
    cpu: Cpu,
    /// `cpu.stat` of v1.
    throttling: Option<File>,
    memory: Option<Memory>,
    pids: Option<[File; 2]>,
    block_io: BlockIo,
    /// Until all files are read again.
    readings_left: u32,
    /// What was read last.
    last: Stats,
}

#[derive(Debug)]
enum Cpu {
    None,
    /// A table of user and system time on each CPU, which has it all.
    Table(File),
    /// v1 before Linux 4.7: total, user, system, and each CPU's total.
    Files([File; 4]),
    /// `cpu.stat` of v2.
    Stat(File),
}

#[derive(Debug)]
struct Memory {
    version: Version,
    usage: File,
    most: File,
    limit: File,
    stat: Table,
    failures: File,
}

/// A file of names and numbers, and what it said last: of most containers it says the same again.
#[derive(Debug)]
struct Table {
    file: File,
    text: Box<[u8]>,
    numbers: Arc<BTreeMap<String, u64>>,
}

#[derive(Debug)]
enum BlockIo {
    None,
    /// Bytes and operations, of v1.
    Files([File; 2]),
    /// `io.stat` of v2.
    Stat(File),
}

impl Meter {
    /// Opens the group's files.
    pub fn open(group: &Cgroup) -> Self {
        let [accounting, cpu, memory, pids] =
            ["cpuacct", "cpu", "memory", "pids"].map(|name| group.with(name));
        Self {
            cpu: accounting.or(cpu).map_or(Cpu::None, open_cpu),
            throttling: cpu
                .filter(|directory| directory.version == Version::V1)
                .map(|directory| File::open(&directory.path, "cpu.stat")),
            memory: memory.map(open_memory),
            pids: pids.map(|Directory { path, .. }| {
                ["pids.current", "pids.max"].map(|name| File::open(path, name))
            }),
            block_io: group.with("blkio").or_else(|| group.with("io")).map_or(BlockIo::None, open_block_io),
            readings_left: 0,
            last: Stats::default(),
        }
    }

    /// What the group has used until now. `text` is room to read into; its content means nothing.
    ///
    /// Limits are what somebody sets, not what is used, and a group that took no CPU time and has as much memory as
    /// before did nothing itself: this is as it was at most ten readings ago, so that a group that waits costs two
    /// files and not ten.
    pub fn read(&mut self, text: &mut Vec<u8>) -> Stats {
        let is_whole = self.readings_left == 0;
        self.readings_left = if is_whole { WHOLE_EVERY } else { self.readings_left } - 1;
        let mut stats = Stats::default();
        self.cpu.read(&mut stats, text);
        stats.memory_usage = self.memory.as_ref().map_or(0, |memory| memory.usage.number(text));
        let last = &self.last;
        let is_idle = (stats.cpu_total_ns, stats.memory_usage) == (last.cpu_total_ns, last.memory_usage);
        // Without a CPU controller nothing is known of its idleness.
        if is_idle && !is_whole && stats.cpu_total_ns > 0 {
            return last.clone();
        }
        (stats.memory_limit, stats.pids_limit) = match is_whole {
            true => self.read_limits(text),
            false => (last.memory_limit, last.pids_limit),
        };
        if let Some(file) = &self.throttling {
            throttling(&mut stats, file.read(text));
        }
        if let Some(memory) = &mut self.memory {
            memory.read(&mut stats, text);
        }
        if let Some([current, _]) = &self.pids {
            stats.pids = current.number(text);
        }
        match &self.block_io {
            BlockIo::None => {}
            BlockIo::Files([bytes, operations]) => {
                stats.block_io_bytes = block_io_v1(bytes.read(text));
                stats.block_io_operations = block_io_v1(operations.read(text));
            }
            BlockIo::Stat(file) => {
                let text = file.read(text);
                stats.block_io_bytes = block_io_v2(text, [("rbytes", "read"), ("wbytes", "write")]);
                stats.block_io_operations = block_io_v2(text, [("rios", "read"), ("wios", "write")]);
            }
        }
        self.last.clone_from(&stats);
        stats
    }

    /// Of memory in bytes, and of tasks; `u64::MAX` for none.
    fn read_limits(&self, text: &mut Vec<u8>) -> (u64, u64) {
        let memory = self.memory.as_ref().map_or(u64::MAX, |memory| memory.limit.limit(text));
        let pids = self.pids.as_ref().map_or(u64::MAX, |[_, most]| most.limit(text));
        (memory, pids)
    }
}

fn open_cpu(Directory { path, version, .. }: &Directory) -> Cpu {
    if *version == Version::V2 {
        return Cpu::Stat(File::open(path, "cpu.stat"));
    }
    match File::open(path, "cpuacct.usage_all") {
        table @ File(Some(_)) => Cpu::Table(table),
        File(None) => Cpu::Files(
            ["usage", "usage_user", "usage_sys", "usage_percpu"]
                .map(|name| File::open(path, &format!("cpuacct.{name}"))),
        ),
    }
}

fn open_memory(Directory { path, version, .. }: &Directory) -> Memory {
    let [usage, most, limit, failures] = match version {
        Version::V1 => ["usage_in_bytes", "max_usage_in_bytes", "limit_in_bytes", "failcnt"],
        Version::V2 => ["current", "peak", "max", "events"],
    }
    .map(|name| File::open(path, &format!("memory.{name}")));
    Memory { version: *version, usage, most, limit, stat: Table::open(path, "memory.stat"), failures }
}

fn open_block_io(Directory { path, version, .. }: &Directory) -> BlockIo {
    match version {
        // CFQ's files count what the throttle layer's do where there are any.
        Version::V1 => BlockIo::Files(
            ["io_service_bytes_recursive", "io_serviced_recursive"]
                .map(|name| File::open(path, &format!("blkio.throttle.{name}"))),
        ),
        Version::V2 => BlockIo::Stat(File::open(path, "io.stat")),
    }
}

impl Cpu {
    fn read(&self, stats: &mut Stats, text: &mut Vec<u8>) {
        match self {
            Self::None => {}
            Self::Table(file) => {
                // A line of titles, then number, user and system time of each CPU.
                for line in file.read(text).lines().skip(1) {
                    let mut numbers = line.split(' ').skip(1).map(|word| word.parse().unwrap_or(0));
                    let (user, system) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
                    stats.cpu_user_ns += user;
                    stats.cpu_system_ns += system;
                    stats.cpu_each_ns.push(user + system);
                }
                stats.cpu_total_ns = stats.cpu_user_ns + stats.cpu_system_ns;
            }
            Self::Files([total, user, system, each]) => {
                stats.cpu_total_ns = total.number(text);
                stats.cpu_user_ns = user.number(text);
                stats.cpu_system_ns = system.number(text);
                let each = each.read(text).split_whitespace();
                stats.cpu_each_ns = each.filter_map(|value| value.parse().ok()).collect();
            }
            Self::Stat(file) => {
                let text = file.read(text);
                for (name, value) in lines(text) {
                    match name {
                        "usage_usec" => stats.cpu_total_ns = value * 1000,
                        "user_usec" => stats.cpu_user_ns = value * 1000,
                        "system_usec" => stats.cpu_system_ns = value * 1000,
                        _ => {}
                    }
                }
                throttling(stats, text);
            }
        }
    }
}

/// `cpu.stat` of both versions.
fn throttling(stats: &mut Stats, text: &str) {
    for (name, value) in lines(text) {
        match name {
            "nr_periods" => stats.throttling_periods = value,
            "nr_throttled" => stats.throttled_periods = value,
            "throttled_time" => stats.throttled_ns = value,
            "throttled_usec" => stats.throttled_ns = value * 1000,
            _ => {}
        }
    }
}

impl Memory {
    /// All but its use.
    fn read(&mut self, stats: &mut Stats, text: &mut Vec<u8>) {
        stats.memory_max_usage = self.most.number(text);
        stats.memory_stat = self.stat.read(text);
        stats.memory_fail_count = match self.version {
            Version::V1 => self.failures.number(text),
            Version::V2 => {
                lines(self.failures.read(text)).find(|(name, _)| *name == "max").map_or(0, |(_, count)| count)
            }
        };
    }
}

impl Table {
    fn open(directory: &Path, name: &str) -> Self {
        Self { file: File::open(directory, name), text: Box::default(), numbers: Arc::default() }
    }

    fn read(&mut self, text: &mut Vec<u8>) -> Arc<BTreeMap<String, u64>> {
        let text = self.file.read(text);
        if text.as_bytes() != &*self.text {
            self.text = text.as_bytes().into();
            self.numbers = Arc::new(lines(text).map(|(name, value)| (name.to_owned(), value)).collect());
        }
        Arc::clone(&self.numbers)
    }
}

/// Lines of `name number`.
fn lines(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
}

/// An open file of a control group, or one that there is not.
#[derive(Debug)]
struct File(Option<OwnedFd>);

impl File {
    fn open(directory: &Path, name: &str) -> Self {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Self(rustix::fs::open(directory.join(name), flags, Mode::empty()).ok())
    }

    /// All of it, as it is now; nothing when it can't be read.
    fn read<'a>(&self, text: &'a mut Vec<u8>) -> &'a str {
        let Some(file) = &self.0 else { return "" };
        if text.is_empty() {
            text.resize(ROOM, 0);
        }
        let mut length = 0;
        // The kernel fills what it is given; what is as long as that may go on.
        while let Ok(count @ 1..) = rustix::io::pread(file, &mut text[length..], length as u64) {
            length += count;
            if length < text.len() {
                break;
            }
            text.resize(text.len() * 2, 0);
        }
        std::str::from_utf8(&text[..length]).unwrap_or_default()
    }

    fn number(&self, text: &mut Vec<u8>) -> u64 {
        self.read(text).trim_end().parse().unwrap_or(0)
    }

    fn limit(&self, text: &mut Vec<u8>) -> u64 {
        parse_limit(self.read(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A group of these files.
    fn group(version: Version, controllers: &[&str], files: &[(&str, &str)]) -> (tempfile::TempDir, Cgroup) {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        let controllers = controllers.iter().map(|&name| name.to_owned()).collect();
        let (path, mount) = (directory.path().to_owned(), directory.path().to_owned());
        let group = Cgroup::in_directories(vec![Directory { path, mount, version, controllers }]);
        (directory, group)
    }

    #[test]
    fn version_1_is_read_again_and_again() {
        let (directory, group) = group(
            Version::V1,
            &["cpu", "cpuacct", "memory", "pids", "blkio"],
            &[
                ("cpuacct.usage_all", "cpu user system\n0 10 1\n1 20 2\n"),
                ("cpu.stat", "nr_periods 4\nnr_throttled 3\nthrottled_time 2\n"),
                ("memory.usage_in_bytes", "4096\n"),
                ("memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory.stat", "cache 7\nrss 8\n"),
                ("memory.failcnt", "5\n"),
                ("pids.current", "1\n"),
                ("pids.max", "max\n"),
                ("blkio.throttle.io_service_bytes_recursive", "8:0 Read 4096\nTotal 4096\n"),
            ],
        );
        let (mut meter, mut text) = (Meter::open(&group), Vec::new());
        let stats = meter.read(&mut text);
        assert_eq!((stats.cpu_total_ns, stats.cpu_user_ns, stats.cpu_system_ns), (33, 30, 3));
        assert_eq!(stats.cpu_each_ns, [11, 22]);
        assert_eq!((stats.throttling_periods, stats.throttled_periods, stats.throttled_ns), (4, 3, 2));
        assert_eq!((stats.memory_usage, stats.memory_limit, stats.memory_fail_count), (4096, u64::MAX, 5));
        assert_eq!(stats.memory_stat["rss"], 8);
        assert_eq!((stats.pids, stats.pids_limit), (1, u64::MAX));
        assert_eq!((stats.block_io_bytes.len(), stats.block_io_operations.len()), (1, 0));
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        write("cpuacct.usage_all", "cpu user system\n0 10 1\n1 21 2\n");
        write("pids.current", "22");
        write("pids.max", "30");
        write("memory.stat", "cache 7\nrss 9");
        let next = meter.read(&mut text);
        assert_eq!((next.pids, next.memory_stat["rss"], next.pids_limit), (22, 9, u64::MAX));
        // As if it were idle.
        write("pids.current", "23");
        let later: Vec<_> = (0..9).map(|_| meter.read(&mut text)).collect();
        let of_pids = |stats: &Stats| (stats.pids, stats.pids_limit);
        assert_eq!(
            (of_pids(&later[7]), of_pids(&later[8])),
            ((22, u64::MAX), (23, 30)),
            "the tenth is whole"
        );
        // Not idle, by its memory.
        write("pids.current", "24");
        write("memory.usage_in_bytes", "8192\n");
        assert_eq!(meter.read(&mut text).pids, 24);
    }

    #[test]
    fn version_2_has_one_file_for_each_thing() {
        let (_directory, group) = group(
            Version::V2,
            &["cpu", "memory", "io"],
            &[
                ("cpu.stat", "usage_usec 3\nuser_usec 2\nsystem_usec 1\nnr_periods 9\nthrottled_usec 6\n"),
                ("memory.max", "max\n"),
                ("memory.current", "100\n"),
                ("memory.events", "low 0\nmax 8\noom 1\n"),
                ("io.stat", "8:0 rbytes=4096 wbytes=0 rios=1 wios=0\n"),
            ],
        );
        let stats = Meter::open(&group).read(&mut Vec::new());
        assert_eq!((stats.cpu_total_ns, stats.throttling_periods, stats.throttled_ns), (3000, 9, 6000));
        assert_eq!((stats.memory_usage, stats.memory_limit, stats.memory_fail_count), (100, u64::MAX, 8));
        assert_eq!((stats.block_io_bytes.len(), stats.block_io_operations.len()), (2, 2));
        assert_eq!((stats.pids, stats.pids_limit), (0, u64::MAX));
    }
}
