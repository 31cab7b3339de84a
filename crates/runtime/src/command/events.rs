//! `ponton-runtime events`

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ponton_cgroup::{BlockIoEntry, Cgroup, Cpuset, Usage};
use ponton_oci::runtime::Status;
use ponton_runtime::host::Host;
use ponton_runtime::state::StateError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde_json::{Value, json};

use super::{Context, Failure};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The time from one print of the usage to the next, `500ms`, `5s` or `1m`.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = interval)]
    interval: Duration,
    /// Print the usage once.
    #[arg(long)]
    stats: bool,
    /// The container's id.
    id: String,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<ExitCode, Failure> {
    let directory = context.directory(&args.id)?;
    let record = directory.read()?;
    let host = Host::probe()?;
    let status = directory.status(&record, &host);
    if status == Status::Stopped {
        return Err(StateError::WrongStatus { id: args.id.clone(), status, attempted: "events" }.into());
    }
    let path = record.cgroup.ok_or("the container has no control group")?;
    let cgroup = Cgroup::new(&host.cgroup, &path);
    if args.stats {
        print("stats", &args.id, Some(stats(&cgroup)))?;
    } else {
        let container = ponton_sys::pidfd::open(record.pid)?;
        follow(&args.id, &cgroup, &container, args.interval)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints what happens until the container has ended.
fn follow(id: &str, cgroup: &Cgroup, container: &OwnedFd, interval: Duration) -> Result<(), Failure> {
    let oom = cgroup.oom_events()?;
    let mut kills = cgroup.oom_kills()?;
    let mut next = Instant::now() + interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let mut fds = vec![PollFd::new(container, PollFlags::IN)];
        fds.extend(oom.as_ref().map(|oom| PollFd::new(oom, PollFlags::IN)));
        let ready = match poll(&mut fds, Some(&timeout)) {
            Err(Errno::INTR) => continue,
            other => other.map_err(|errno| format!("poll: {errno}"))?,
        };
        let has_ended = !fds.first().is_some_and(|fd| fd.revents().is_empty());
        drop(fds);
        if let Some(oom) = oom.as_ref().filter(|_| ready > 0) {
            // What it says is counted elsewhere; it is read only to be asked again.
            let _ = rustix::io::read(oom, &mut [0; 4096]);
        }
        let now = cgroup.oom_kills()?;
        if now > kills {
            print("oom", id, None)?;
        }
        kills = now;
        if has_ended {
            return Ok(());
        }
        if ready == 0 {
            print("stats", id, Some(stats(cgroup)))?;
            next = Instant::now() + interval;
        }
    }
}

fn print(r#type: &str, id: &str, data: Option<Value>) -> Result<(), Failure> {
    let mut event = json!({"type": r#type, "id": id});
    if let Some(data) = data {
        event["data"] = data;
    }
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{event}").and_then(|()| stdout.flush())?;
    Ok(())
}

/// The usage, with runc's names.
fn stats(cgroup: &Cgroup) -> Value {
    let stats = cgroup.stats();
    let memory = json!({
        "limit": stats.memory_limit, "usage": stats.memory_usage,
        "max": stats.memory_max_usage, "failcnt": stats.memory_fail_count,
    });
    let cache = ["cache", "file"].into_iter().find_map(|name| stats.memory_stat.get(name));
    let entries = |entries: &[BlockIoEntry]| -> Vec<Value> {
        let one = |entry: &BlockIoEntry| json!({"major": entry.major, "minor": entry.minor, "op": entry.operation, "value": entry.value});
        entries.iter().map(one).collect()
    };
    let mut pids = json!({"current": stats.pids});
    if stats.pids_limit != u64::MAX {
        pids["limit"] = stats.pids_limit.into();
    }
    let [kernel, kernel_tcp] = cgroup.kernel_memory().map(entry);
    let huge_pages: BTreeMap<String, Value> = cgroup.huge_pages().into_iter().map(huge_pages).collect();
    json!({
        "cpu": {
            "usage": {
                "total": stats.cpu_total_ns,
                "percpu": stats.cpu_each_ns,
                "kernel": stats.cpu_system_ns,
                "user": stats.cpu_user_ns,
            },
            "throttling": {
                "periods": stats.throttling_periods,
                "throttledPeriods": stats.throttled_periods,
                "throttledTime": stats.throttled_ns,
            },
        },
        "cpuset": cpuset(cgroup),
        "memory": {
            "cache": cache, "usage": memory, "swap": entry(cgroup.swap()),
            "kernel": kernel, "kernelTCP": kernel_tcp, "raw": stats.memory_stat,
        },
        "pids": pids,
        "blkio": {
            "ioServiceBytesRecursive": entries(&stats.block_io_bytes),
            "ioServicedRecursive": entries(&stats.block_io_operations),
        },
        "hugetlb": huge_pages,
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

fn entry(usage: Usage) -> Value {
    let Usage { usage, max_usage, limit, fail_count } = usage;
    json!({"limit": limit, "usage": usage, "max": max_usage, "failcnt": fail_count})
}

fn huge_pages((size, usage): (String, Usage)) -> (String, Value) {
    (size, json!({"usage": usage.usage, "max": usage.max_usage, "failcnt": usage.fail_count}))
}

fn cpuset(cgroup: &Cgroup) -> Value {
    let Cpuset { cpus, mems, numbers } = cgroup.cpuset();
    let mut value = json!(numbers);
    value["cpus"] = json!(cpus);
    value["mems"] = json!(mems);
    value
}

/// `500ms`, `5s`, `1m`, `1h`.
fn interval(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time: 500ms, 5s, 1m");
    let split = text.find(|character: char| !character.is_ascii_digit()).ok_or_else(wrong)?;
    let number: u64 = text[..split].parse().map_err(|_| wrong())?;
    let unit_ms = match &text[split..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    let ms = number.checked_mul(unit_ms).filter(|ms| *ms > 0);
    ms.map(Duration::from_millis).ok_or_else(|| format!("{text:?}: more than nothing is needed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_units() {
        let ms = |text| interval(text).map(|interval| interval.as_millis());
        assert_eq!((ms("500ms"), ms("5s"), ms("2m")), (Ok(500), Ok(5000), Ok(120_000)));
        for bad in ["", "5", "s", "0s", "-1s", "1d", "99999999999999999999s", "99999999999999999h"] {
            assert!(ms(bad).is_err(), "{bad}");
        }
    }
}
