//! What a container uses.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use jiff::Timestamp;
use ponton_api::ZERO_TIME;
use ponton_api::container::{
    BlkioStatEntry, BlkioStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats, Stats,
    ThrottlingData,
};
use ponton_cgroup::{BlockIoEntry, Cgroup};

use super::Container;
use crate::engine::{Engine, blocking};
use crate::error::Result;
use crate::request::Stream;

/// Between two samples.
const INTERVAL: Duration = Duration::from_secs(1);

struct Sampling {
    engine: Arc<Engine>,
    container: Arc<Container>,
    previous: Option<Stats>,
    streaming: bool,
    ended: bool,
}

impl Engine {
    /// What a container uses: one sample, or one a second. `one_shot` does not wait for a first
    /// sample to compare with.
    pub async fn stats(self: &Arc<Self>, name: &str, stream: bool, one_shot: bool) -> Result<Stream<Stats>> {
        let container = self.find(name)?;
        let mut sampling =
            Sampling { engine: Arc::clone(self), container, previous: None, streaming: stream, ended: false };
        if !stream && !one_shot {
            // The one sample that is told needs one to compare with.
            let first = sampling.sample().await?;
            sampling.previous = Some(first);
        }
        Ok(Box::pin(stream::try_unfold(sampling, Sampling::next)))
    }
}

impl Sampling {
    async fn next(mut self) -> Result<Option<(Stats, Self)>> {
        if self.ended || self.container.view().removed {
            return Ok(None);
        }
        if self.previous.is_some() && self.container.view().life.is_running() {
            tokio::time::sleep(INTERVAL).await;
        } else if self.streaming && self.previous.is_some() {
            // A stopped container has nothing new until it is started.
            let started = self.container.wait_until(|view| view.life.is_running() || view.removed);
            if started.await.is_none_or(|view| view.removed) {
                return Ok(None);
            }
        }
        let stats = self.sample().await?;
        self.previous = Some(stats.clone());
        self.ended = !self.streaming;
        Ok(Some((stats, self)))
    }

    async fn sample(&self) -> Result<Stats> {
        let view = self.container.view();
        let (id, name) = (self.container.id.clone(), format!("/{}", view.name));
        let Some(pid) = view.life.pid() else {
            let (read, preread) = (ZERO_TIME.to_owned(), ZERO_TIME.to_owned());
            return Ok(Stats { id, name, read, preread, ..Stats::default() });
        };
        let group = self.container.change(|task| Box::pin(async move { task.control_group() })).await?;
        let version_2 = self.engine.is_cgroup_2()?;
        let with_network = view.settings.network() != "host";
        let mut stats = blocking(move || Ok(read(&group, pid, version_2, with_network))).await?;
        let (preread, precpu_stats) = match &self.previous {
            Some(previous) => (previous.read.clone(), previous.cpu_stats.clone()),
            None => (ZERO_TIME.to_owned(), CpuStats::default()),
        };
        (stats.id, stats.name, stats.preread, stats.precpu_stats) = (id, name, preread, precpu_stats);
        Ok(stats)
    }
}

fn read(group: &Cgroup, pid: i32, version_2: bool, with_network: bool) -> Stats {
    let used = group.stats();
    let total = memory_total();
    Stats {
        read: Timestamp::now().to_string(),
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
            system_cpu_usage: system_time(),
            online_cpus: std::thread::available_parallelism().map_or(1, |count| count.get() as u32),
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
            limit: used.memory_limit.min(total),
        },
        networks: if with_network { networks(pid) } else { None },
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

/// The host's processor time in nanoseconds.
fn system_time() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = stat.lines().next().unwrap_or_default();
    let ticks: u64 =
        first.split_whitespace().skip(1).take(7).filter_map(|word| word.parse::<u64>().ok()).sum();
    ticks * 10_000_000
}

/// The host's memory in bytes.
pub(crate) fn memory_total() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}

/// The counters of the container's interfaces, without loopback.
fn networks(pid: i32) -> Option<BTreeMap<String, NetworkStats>> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?;
    let interfaces: BTreeMap<_, _> = text
        .lines()
        .skip(2)
        .filter_map(|line| {
            let (name, counters) = line.split_once(':')?;
            let counter: Vec<u64> =
                counters.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let [rx_bytes, rx_packets, rx_errors, rx_dropped, ..] = counter[..] else { return None };
            let [tx_bytes, tx_packets, tx_errors, tx_dropped, ..] = counter.get(8..)? else { return None };
            let stats = NetworkStats {
                rx_bytes,
                rx_packets,
                rx_errors,
                rx_dropped,
                tx_bytes: *tx_bytes,
                tx_packets: *tx_packets,
                tx_errors: *tx_errors,
                tx_dropped: *tx_dropped,
            };
            Some((name.trim().to_owned(), stats))
        })
        .filter(|(name, _)| name != "lo")
        .collect();
    (!interfaces.is_empty()).then_some(interfaces)
}
