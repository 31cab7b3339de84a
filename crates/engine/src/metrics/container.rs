//! The series of containers that cAdvisor's users know, with its labels.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use ponton_api::container::{BlkioStatEntry, NetworkStats, Stats};

use super::text::{Kind, Labels, Page, label_name};
use crate::container::{View, sample};
use crate::engine::Engine;
use crate::health::Status;
use crate::lifecycle::State;

/// A container that runs.
struct Measured {
    labels: Labels,
    view: Arc<View>,
    stats: Stats,
}

/// A family that has one sample of each container, or none where it does not apply.
type Single = (&'static str, Kind, &'static str, fn(&Measured) -> Option<f64>);

const NANOSECOND: f64 = 1e-9;

const SINGLES: &[Single] = &[
    ("container_last_seen", Kind::Gauge, "Last time a container was seen by the exporter", |_| {
        Some(Timestamp::now().as_second() as f64)
    }),
    (
        "container_start_time_seconds",
        Kind::Gauge,
        "Start time of the container since unix epoch in seconds.",
        |container| match container.view.life.state {
            State::Running { started_at, .. } => Some(started_at.as_millisecond() as f64 / 1000.0),
            _ => None,
        },
    ),
    ("container_health_state", Kind::Gauge, "The result of the container's health check", |container| {
        let health = container.view.health.as_ref()?;
        Some(if health.status == Status::Healthy { 1.0 } else { 0.0 })
    }),
    (
        "container_cpu_user_seconds_total",
        Kind::Counter,
        "Cumulative user cpu time consumed in seconds.",
        |container| Some(container.stats.cpu_stats.cpu_usage.usage_in_usermode as f64 * NANOSECOND),
    ),
    (
        "container_cpu_system_seconds_total",
        Kind::Counter,
        "Cumulative system cpu time consumed in seconds.",
        |container| Some(container.stats.cpu_stats.cpu_usage.usage_in_kernelmode as f64 * NANOSECOND),
    ),
    (
        "container_cpu_cfs_periods_total",
        Kind::Counter,
        "Number of elapsed enforcement period intervals.",
        |container| has_quota(container).then_some(container.stats.cpu_stats.throttling_data.periods as f64),
    ),
    (
        "container_cpu_cfs_throttled_periods_total",
        Kind::Counter,
        "Number of throttled period intervals.",
        |container| {
            has_quota(container).then_some(container.stats.cpu_stats.throttling_data.throttled_periods as f64)
        },
    ),
    (
        "container_cpu_cfs_throttled_seconds_total",
        Kind::Counter,
        "Total time duration the container has been throttled.",
        |container| {
            has_quota(container)
                .then_some(container.stats.cpu_stats.throttling_data.throttled_time as f64 * NANOSECOND)
        },
    ),
    (
        "container_memory_usage_bytes",
        Kind::Gauge,
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        |container| Some(container.stats.memory_stats.usage as f64),
    ),
    ("container_memory_working_set_bytes", Kind::Gauge, "Current working set in bytes.", |container| {
        let inactive = memory(container, &["total_inactive_file", "inactive_file"]);
        Some(container.stats.memory_stats.usage.saturating_sub(inactive) as f64)
    }),
    ("container_memory_rss", Kind::Gauge, "Size of RSS in bytes.", |container| {
        Some(memory(container, &["total_rss", "anon"]) as f64)
    }),
    ("container_memory_cache", Kind::Gauge, "Number of bytes of page cache memory.", |container| {
        Some(memory(container, &["total_cache", "file"]) as f64)
    }),
    ("container_memory_mapped_file", Kind::Gauge, "Size of memory mapped files in bytes.", |container| {
        Some(memory(container, &["total_mapped_file", "file_mapped"]) as f64)
    }),
    ("container_memory_swap", Kind::Gauge, "Container swap usage in bytes.", |container| {
        Some(memory(container, &["total_swap"]) as f64)
    }),
    (
        "container_memory_max_usage_bytes",
        Kind::Gauge,
        "Maximum memory usage recorded in bytes",
        |container| Some(container.stats.memory_stats.max_usage as f64),
    ),
    ("container_memory_failcnt", Kind::Counter, "Number of memory usage hits limits", |container| {
        Some(container.stats.memory_stats.failcnt as f64)
    }),
    ("container_threads", Kind::Gauge, "Number of threads running inside the container", |container| {
        Some(container.stats.pids_stats.current as f64)
    }),
    (
        "container_threads_max",
        Kind::Gauge,
        "Maximum number of threads allowed inside the container, infinity if value is zero",
        |container| Some(container.stats.pids_stats.limit as f64),
    ),
    ("container_spec_cpu_shares", Kind::Gauge, "CPU share of the container.", |container| {
        let shares = container.view.settings.host_config.cpu_shares;
        Some(if shares == 0 { 1024 } else { shares } as f64)
    }),
    ("container_spec_cpu_period", Kind::Gauge, "CPU period of the container.", |container| {
        let host = &container.view.settings.host_config;
        Some(if host.cpu_period == 0 { 100_000 } else { host.cpu_period } as f64)
    }),
    ("container_spec_cpu_quota", Kind::Gauge, "CPU quota of the container.", |container| {
        let host = &container.view.settings.host_config;
        // Of a whole CPU's period of 100 ms.
        let quota = if host.nano_cpus == 0 { host.cpu_quota } else { host.nano_cpus / 10_000 };
        has_quota(container).then_some(quota as f64)
    }),
    ("container_spec_memory_limit_bytes", Kind::Gauge, "Memory limit for the container.", |container| {
        Some(container.view.settings.host_config.memory.max(0) as f64)
    }),
    (
        "container_spec_memory_reservation_limit_bytes",
        Kind::Gauge,
        "Memory reservation limit for the container.",
        |container| Some(container.view.settings.host_config.memory_reservation.max(0) as f64),
    ),
    (
        "container_spec_memory_swap_limit_bytes",
        Kind::Gauge,
        "Memory swap limit for the container.",
        |container| Some(container.view.settings.host_config.memory_swap.max(0) as f64),
    ),
];

/// A counter of each of a container's interfaces.
type OfInterface = (&'static str, &'static str, fn(&NetworkStats) -> u64);

const OF_INTERFACES: &[OfInterface] = &[
    ("container_network_receive_bytes_total", "Cumulative count of bytes received", |of| of.rx_bytes),
    ("container_network_receive_packets_total", "Cumulative count of packets received", |of| of.rx_packets),
    (
        "container_network_receive_errors_total",
        "Cumulative count of errors encountered while receiving",
        |of| of.rx_errors,
    ),
    (
        "container_network_receive_packets_dropped_total",
        "Cumulative count of packets dropped while receiving",
        |of| of.rx_dropped,
    ),
    ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |of| of.tx_bytes),
    ("container_network_transmit_packets_total", "Cumulative count of packets transmitted", |of| {
        of.tx_packets
    }),
    (
        "container_network_transmit_errors_total",
        "Cumulative count of errors encountered while transmitting",
        |of| of.tx_errors,
    ),
    (
        "container_network_transmit_packets_dropped_total",
        "Cumulative count of packets dropped while transmitting",
        |of| of.tx_dropped,
    ),
];

/// The direction of block IO, and whether its bytes or its operations are counted.
const OF_DEVICES: &[(&str, &str, &str, bool)] = &[
    ("container_fs_reads_bytes_total", "Cumulative count of bytes read", "read", true),
    ("container_fs_reads_total", "Cumulative count of reads completed", "read", false),
    ("container_fs_writes_bytes_total", "Cumulative count of bytes written", "write", true),
    ("container_fs_writes_total", "Cumulative count of writes completed", "write", false),
];

pub(super) fn write(engine: &Engine, page: &mut Page) {
    let containers = measure(engine);
    for (name, kind, help, value) in SINGLES {
        page.family(name, *kind, help);
        for container in &containers {
            if let Some(value) = value(container) {
                page.sample(name, &container.labels.0, value);
            }
        }
    }
    let name = "container_cpu_usage_seconds_total";
    page.family(name, Kind::Counter, "Cumulative cpu time consumed in seconds.");
    for container in &containers {
        let seconds = container.stats.cpu_stats.cpu_usage.total_usage as f64 * NANOSECOND;
        page.sample(name, &container.labels.clone().with("cpu", "total").0, seconds);
    }
    let name = "container_memory_failures_total";
    page.family(name, Kind::Counter, "Cumulative count of memory allocation failures.");
    for container in &containers {
        for (kind, fields) in
            [("pgfault", ["total_pgfault", "pgfault"]), ("pgmajfault", ["total_pgmajfault", "pgmajfault"])]
        {
            let labels = container.labels.clone().with("failure_type", kind).with("scope", "hierarchy");
            page.sample(name, &labels.0, memory(container, &fields));
        }
    }
    for (name, help, value) in OF_INTERFACES {
        page.family(name, Kind::Counter, help);
        for container in &containers {
            for (interface, stats) in container.stats.networks.iter().flatten() {
                page.sample(name, &container.labels.clone().with("interface", interface).0, value(stats));
            }
        }
    }
    for (name, help, direction, bytes) in OF_DEVICES {
        page.family(name, Kind::Counter, help);
        for container in &containers {
            let counters = &container.stats.blkio_stats;
            let entries = match bytes {
                true => &counters.io_service_bytes_recursive,
                false => &counters.io_serviced_recursive,
            };
            for BlkioStatEntry { major, minor, op, value } in entries.iter().flatten() {
                if op.eq_ignore_ascii_case(direction) {
                    let device = device_name(*major, *minor);
                    page.sample(name, &container.labels.clone().with("device", &device).0, value);
                }
            }
        }
    }
}

/// All that run, with what they use now.
fn measure(engine: &Engine) -> Vec<Measured> {
    let mut sample = sample(engine);
    engine
        .all()
        .iter()
        .filter_map(|container| {
            let view = container.view();
            let stats = sample(container, &view)?;
            let settings = &view.settings;
            let mut labels = Labels::default()
                .with("id", &format!("/{}", view.cgroup.as_deref().unwrap_or(&container.id)))
                .with("image", &settings.config.image)
                .with("name", &view.name);
            // Two labels may have one name here, which Prometheus refuses: the last one counts.
            let own: BTreeMap<_, _> = settings
                .config
                .labels
                .iter()
                .flatten()
                .map(|(key, value)| (label_name("container_label_", key), value))
                .collect();
            for (name, value) in own {
                labels = labels.with(&name, value);
            }
            Some(Measured { labels, view, stats })
        })
        .collect()
}

fn has_quota(container: &Measured) -> bool {
    let host = &container.view.settings.host_config;
    host.cpu_quota > 0 || host.nano_cpus > 0
}

/// A counter of `memory.stat`, by the first of its names that there is.
fn memory(container: &Measured, names: &[&str]) -> u64 {
    names.iter().find_map(|name| container.stats.memory_stats.stats.get(*name)).copied().unwrap_or(0)
}

/// `/dev/vda`, or the numbers of a device that has no name.
fn device_name(major: u64, minor: u64) -> String {
    let link = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}"));
    let name = link.ok().and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
    name.map_or_else(|| format!("{major}:{minor}"), |name| format!("/dev/{name}"))
}
