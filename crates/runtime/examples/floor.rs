//! What starting a container costs: `true` from an overlay of busybox, many times.
//!
//! `cargo run --release --example floor -- DIR [COUNT]`, as root; DIR is on a disk that overlayfs can
//! have its upper directory on. Prints the median time of plan, open, start and end in microseconds.
//! With COUNT 0 it prints the plan instead.

use std::error::Error;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use ponton_oci::runtime::Spec;
use ponton_runtime::host::Host;
use ponton_runtime::open::{self, Descriptors};
use ponton_runtime::plan::{PlanInput, ProcessInput, RootMount, plan};
use ponton_runtime::{apply, seccomp};
use ponton_sys::pidfd;
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let directory = args.next().ok_or("usage: floor DIR [COUNT]")?;
    let count: usize = args.next().map_or(Ok(200), |count| count.parse())?;
    let root = make_root(Path::new(&directory))?;
    let (spec, host) = (spec()?, Host::probe()?);
    let policy = spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
    let filter = policy.map(|policy| seccomp::cache(&Path::new(&directory).join("seccomp"), policy));
    let filter = filter.transpose()?;
    let rootfs = [root];
    let process = ProcessInput { seccomp: filter.as_deref(), ..ProcessInput::default() };
    let input = PlanInput { id: "floor", rootfs: &rootfs, process, ..PlanInput::default() };
    if count == 0 {
        print!("{}", plan(&spec, &host, &input)?);
        return Ok(());
    }
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    let out = std::io::stdout();
    let mut times: [Vec<u128>; 4] = Default::default();
    for _ in 0..count {
        let begin = Instant::now();
        let plan = plan(&spec, &host, &input)?;
        let planned = Instant::now();
        let cgroup = plan.cgroup().map(|path| ponton_cgroup::Cgroup::new(&host.cgroup, path));
        let opened = open::open(plan, Descriptors::default(), &host)?;
        let open = Instant::now();
        let stdio = apply::Stdio { stdin: null.as_fd(), stdout: out.as_fd(), stderr: out.as_fd() };
        let started = apply::start(opened, &stdio)?;
        let start = Instant::now();
        let exit = pidfd::wait(started.pidfd.as_fd())?;
        let end = Instant::now();
        if exit != pidfd::Exit::Code(0) {
            return Err(format!("ended with {exit:?}").into());
        }
        if let Some(cgroup) = cgroup {
            cgroup.remove()?;
        }
        let steps = [planned - begin, open - planned, start - open, end - start];
        times.iter_mut().zip(steps).for_each(|(times, step)| times.push(step.as_micros()));
    }
    for (name, times) in ["plan", "open", "start", "end"].iter().zip(&mut times) {
        times.sort_unstable();
        println!("{name:<6} {:>6} us", times[times.len() / 2]);
    }
    Ok(())
}

/// Two layers, of which one has busybox.
fn make_root(directory: &Path) -> Result<RootMount, Box<dyn Error>> {
    let of = |name: &str| directory.join(name);
    for name in ["lower1/bin", "lower2/proc", "lower2/sys", "lower2/dev", "lower2/etc", "upper", "work"] {
        std::fs::create_dir_all(of(name))?;
    }
    std::fs::copy("/bin/busybox", of("lower1/bin/true"))?;
    let option = |key: &str, name: &str| format!("{key}={}", of(name).display());
    let lower = format!("lowerdir={}:{}", of("lower1").display(), of("lower2").display());
    Ok(RootMount {
        r#type: "overlay".into(),
        source: "overlay".into(),
        target: None,
        options: vec![lower, option("upperdir", "upper"), option("workdir", "work")],
    })
}

/// What a container of the daemon has.
fn spec() -> Result<Spec, serde_json::Error> {
    let mount = |destination: &str, r#type: &str, options: &[&str]| json!({"destination": destination, "type": r#type, "source": r#type, "options": options});
    let capabilities = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_NET_BIND_SERVICE"];
    serde_json::from_value(json!({
        "process": {
            "args": ["true"], "cwd": "/", "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "hostname": "floor",
        "mounts": [
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}], "pids": {"limit": 100}},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "cgroup"},
            ],
            "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["reboot", "init_module"], "action": "SCMP_ACT_ERRNO"},
            ]},
            "maskedPaths": [
                "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys",
                "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
                "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }))
}
