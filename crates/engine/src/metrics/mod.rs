//! What Prometheus scrapes: the engine by the names that dockerd has, its containers by those that cAdvisor
//! has. Everything is read when it is asked for; nothing is kept.

mod container;
mod text;

use std::fs;
use std::sync::Arc;

use crate::engine::{Engine, blocking};
use crate::error::Result;
use crate::lifecycle::State;
use text::{Kind, Labels, Page};

impl Engine {
    /// All metrics, in Prometheus' text format.
    pub async fn metrics(self: &Arc<Self>) -> Result<String> {
        let mut page = Page::default();
        self.count_containers(&mut page);
        self.tell_of_the_host(&mut page).await?;
        self.count_what_was_done(&mut page);
        let engine = Arc::clone(self);
        blocking(move || {
            process(&mut page);
            container::write(&engine, &mut page);
            Ok(page.into_text())
        })
        .await
    }

    fn count_containers(&self, page: &mut Page) {
        let (mut paused, mut running, mut stopped) = (0, 0, 0);
        for container in self.all() {
            match container.view().life.state {
                State::Running { paused: true, .. } => paused += 1,
                State::Running { .. } | State::Restarting { .. } => running += 1,
                _ => stopped += 1,
            }
        }
        let name = "engine_daemon_container_states_containers";
        page.family(name, Kind::Gauge, "The count of containers in various states");
        for (state, count) in [("paused", paused), ("running", running), ("stopped", stopped)] {
            page.sample(name, &Labels::default().with("state", state).0, count);
        }
    }

    async fn tell_of_the_host(self: &Arc<Self>, page: &mut Page) -> Result<()> {
        let info = self.info().await?;
        page.single(
            "engine_daemon_engine_cpus_cpus",
            Kind::Gauge,
            "The number of cpus that the host system of the engine has",
            info.n_cpu,
        );
        page.single(
            "engine_daemon_engine_memory_bytes",
            Kind::Gauge,
            "The number of bytes of memory that the host system of the engine has",
            info.mem_total,
        );
        let name = "engine_daemon_engine_info";
        page.family(name, Kind::Gauge, "The information related to the engine and the OS it is running on");
        let labels = Labels::default()
            .with("architecture", &info.architecture)
            .with("commit", &info.runc_commit.id)
            .with("daemon_id", &info.id)
            .with("graphdriver", &info.driver)
            .with("kernel", &info.kernel_version)
            .with("os", &info.operating_system)
            .with("os_type", &info.os_type)
            .with("os_version", &info.os_version)
            .with("version", &info.server_version);
        page.sample(name, &labels.0, 1);
        page.single("machine_cpu_cores", Kind::Gauge, "Number of logical CPU cores.", info.n_cpu);
        page.single(
            "machine_memory_bytes",
            Kind::Gauge,
            "Amount of memory installed on the machine.",
            info.mem_total,
        );
        Ok(())
    }

    fn count_what_was_done(&self, page: &mut Page) {
        let counts = &self.counts;
        page.timers(
            "engine_daemon_container_actions_seconds",
            "The number of seconds it takes to process each container action",
            "action",
            &[
                ("changes", &counts.changes),
                ("commit", &counts.commit),
                ("create", &counts.create),
                ("delete", &counts.delete),
                ("start", &counts.start),
            ],
        );
        page.timers(
            "engine_daemon_host_info_functions_seconds",
            "The number of seconds it takes to call functions gathering info about the host",
            "function",
            &[("system_info", &counts.system_info), ("system_version", &counts.system_version)],
        );
        for (name, kind, help, value) in [
            (
                "engine_daemon_events_subscribers_total",
                Kind::Gauge,
                "The number of current subscribers to events",
                self.events.listeners() as u64,
            ),
            ("engine_daemon_events_total", Kind::Counter, "The number of events logged", self.events.told()),
            (
                "engine_daemon_health_checks_failed_total",
                Kind::Counter,
                "The total number of failed health checks",
                counts.health_checks_failed.get(),
            ),
            (
                "engine_daemon_health_checks_total",
                Kind::Counter,
                "The total number of health checks",
                counts.health_checks.get(),
            ),
        ] {
            page.single(name, kind, help, value);
        }
    }
}

/// The daemon's own process, as all clients of Prometheus tell of theirs.
fn process(page: &mut Page) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let number = |index: usize| fields.get(index).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    let descriptors = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")).and_then(|time| time.parse().ok());
    let started = boot.unwrap_or(0.0) + number(19) as f64 / ticks;
    let cpu = (number(11) + number(12)) as f64 / ticks;
    let resident = number(21) * rustix::param::page_size() as u64;
    for (name, kind, help, value) in [
        ("process_cpu_seconds_total", Kind::Counter, "Total user and system CPU time spent in seconds.", cpu),
        ("process_max_fds", Kind::Gauge, "Maximum number of open file descriptors.", limit as f64),
        ("process_open_fds", Kind::Gauge, "Number of open file descriptors.", descriptors as f64),
        ("process_resident_memory_bytes", Kind::Gauge, "Resident memory size in bytes.", resident as f64),
        (
            "process_start_time_seconds",
            Kind::Gauge,
            "Start time of the process since unix epoch in seconds.",
            started,
        ),
        ("process_virtual_memory_bytes", Kind::Gauge, "Virtual memory size in bytes.", number(20) as f64),
    ] {
        page.single(name, kind, help, value);
    }
}
