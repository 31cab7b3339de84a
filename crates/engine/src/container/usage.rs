//! What a container uses at one moment, read from the kernel by files that stay open.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use jiff::Timestamp;
use ponton_api::ZERO_TIME;
use ponton_api::container::{
    BlkioStatEntry, BlkioStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats, Stats,
    ThrottlingData,
};
use ponton_cgroup::{BlockIoEntry, Meter};

use super::{Container, View};
use crate::engine::Engine;
use crate::error::{Error, Result};

/// What all samples of one moment have in common.
pub(super) struct HostNow {
    time: String,
    cpu_ns: u64,
    cpus: u32,
    memory: u64,
}

impl HostNow {
    pub(super) fn read() -> Self {
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let mut lines = stat.lines().take_while(|line| line.starts_with("cpu"));
        let numbers = lines.next().unwrap_or_default().split_whitespace().skip(1).take(7);
        let ticks: u64 = numbers.filter_map(|word| word.parse::<u64>().ok()).sum();
        Self {
            time: Timestamp::now().to_string(),
            cpu_ns: ticks * 10_000_000,
            cpus: lines.count() as u32,
            memory: memory_total(),
        }
    }
}

/// The host's memory in bytes.
pub(crate) fn memory_total() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}

/// The open files of one run of a container.
pub(super) struct Files {
    pid: i32,
    version_2: bool,
    meter: Meter,
    /// The interfaces of its own network namespace.
    interfaces: Option<File>,
}

impl Files {
    /// Those of the present run; `None` when the container does not run.
    pub(super) fn open(engine: &Engine, view: &View) -> Result<Option<Self>> {
        let Some(pid) = view.life.pid() else { return Ok(None) };
        let Some(path) = &view.cgroup else { return Err(Error::not_running(&view.settings.id)) };
        let own_network = view.settings.network() != "host";
        Ok(Some(Self {
            pid,
            version_2: engine.is_cgroup_2()?,
            meter: Meter::open(&engine.control_group(path)?),
            interfaces: File::open(format!("/proc/{pid}/net/dev")).ok().filter(|_| own_network),
        }))
    }

    /// Whether they are those of the present run.
    pub(super) fn are_of(&self, view: &View) -> bool {
        view.life.pid() == Some(self.pid)
    }

    /// A sample, without the part of the sample before. `text` is room to read into.
    pub(super) fn read(
        &mut self,
        container: &Container,
        view: &View,
        now: &HostNow,
        text: &mut Vec<u8>,
    ) -> Stats {
        let used = self.meter.read(text);
        let version_2 = self.version_2;
        Stats {
            read: now.time.clone(),
            pids_stats: PidsStats {
                current: used.pids,
                limit: if used.pids_limit == u64::MAX { 0 } else { used.pids_limit },
            },
            blkio_stats: BlkioStats {
                io_service_bytes_recursive: entries(used.block_io_bytes, version_2),
                io_serviced_recursive: entries(used.block_io_operations, version_2),
                ..none_of(version_2)
            },
            cpu_stats: CpuStats {
                cpu_usage: CpuUsage {
                    total_usage: used.cpu_total_ns,
                    percpu_usage: (!version_2).then_some(used.cpu_each_ns),
                    usage_in_kernelmode: used.cpu_system_ns,
                    usage_in_usermode: used.cpu_user_ns,
                },
                system_cpu_usage: now.cpu_ns,
                online_cpus: now.cpus,
                throttling_data: ThrottlingData {
                    periods: used.throttling_periods,
                    throttled_periods: used.throttled_periods,
                    throttled_time: used.throttled_ns,
                },
            },
            memory_stats: MemoryStats {
                usage: used.memory_usage,
                max_usage: if version_2 { 0 } else { used.memory_max_usage },
                stats: used.memory_stat,
                failcnt: used.memory_fail_count,
                limit: used.memory_limit.min(now.memory),
            },
            networks: self.interfaces.as_ref().and_then(|file| networks(file, text)),
            ..empty(container, view)
        }
    }
}

/// The sample of a container that does not run.
pub(super) fn empty(container: &Container, view: &View) -> Stats {
    Stats {
        id: container.id.clone(),
        name: format!("/{}", view.name),
        read: ZERO_TIME.to_owned(),
        preread: ZERO_TIME.to_owned(),
        ..Stats::default()
    }
}

/// The kinds of block IO that are not counted: `[]` on v1 and `null` on v2, as Docker prints them.
fn none_of(version_2: bool) -> BlkioStats {
    let none = (!version_2).then(Vec::new);
    BlkioStats {
        io_queue_recursive: none.clone(),
        io_service_time_recursive: none.clone(),
        io_wait_time_recursive: none.clone(),
        io_merged_recursive: none.clone(),
        io_time_recursive: none.clone(),
        sectors_recursive: none.clone(),
        ..BlkioStats::default()
    }
}

fn entries(counters: Vec<BlockIoEntry>, version_2: bool) -> Option<Vec<BlkioStatEntry>> {
    let entries: Vec<_> = counters
        .into_iter()
        .map(|BlockIoEntry { major, minor, operation, value }| BlkioStatEntry {
            major,
            minor,
            op: operation,
            value,
        })
        .collect();
    (!(version_2 && entries.is_empty())).then_some(entries)
}

/// The counters of the container's interfaces, without loopback.
fn networks(file: &File, text: &mut Vec<u8>) -> Option<BTreeMap<String, NetworkStats>> {
    text.resize(text.len().max(8 << 10), 0);
    let length = file.read_at(text, 0).ok()?;
    let interfaces: BTreeMap<_, _> = std::str::from_utf8(&text[..length])
        .ok()?
        .lines()
        .skip(2)
        .filter_map(|line| {
            let (name, counters) = line.split_once(':')?;
            let name = name.trim();
            if name == "lo" {
                return None;
            }
            let mut counter = [0; 12];
            let words = counters.split_ascii_whitespace().map(|word| word.parse().unwrap_or(0));
            counter.iter_mut().zip(words).for_each(|(counter, word)| *counter = word);
            let [
                rx_bytes,
                rx_packets,
                rx_errors,
                rx_dropped,
                _,
                _,
                _,
                _,
                tx_bytes,
                tx_packets,
                tx_errors,
                tx_dropped,
            ] = counter;
            let stats = NetworkStats {
                rx_bytes,
                rx_packets,
                rx_errors,
                rx_dropped,
                tx_bytes,
                tx_packets,
                tx_errors,
                tx_dropped,
            };
            Some((name.to_owned(), stats))
        })
        .collect();
    (!interfaces.is_empty()).then_some(interfaces)
}
