//! The tables of flags of `run`, `create` and `update`.

use super::{gpu, mount};
use crate::command::Complete;
use crate::flag::Flag;
use crate::value;

const RESTART: &[&str] = &["no", "always", "unless-stopped", "on-failure", "on-unhealthy"];

/// Limits that `update` can change too.
pub(crate) static RESOURCES: &[Flag] = &[
    Flag::int("blkio-weight", "Relative weight of block IO, 10 to 1000, or 0")
        .named("uint16")
        .check(value::check_uint16)
        .default("0"),
    Flag::int("cpu-period", "Period of the CPU limit in microseconds"),
    Flag::int("cpu-quota", "CPU time a period in microseconds"),
    Flag::int("cpu-rt-period", "Period of real-time scheduling in microseconds"),
    Flag::int("cpu-rt-runtime", "Real-time CPU time a period in microseconds"),
    Flag::int("cpu-shares", "Relative weight of CPU time").short('c'),
    Flag::text("cpus", "Number of CPUs, e.g. 1.5").named("decimal").check(value::check_cpus),
    Flag::text("cpuset-cpus", "CPUs to run on, e.g. 0-2,4"),
    Flag::text("cpuset-mems", "Memory nodes to use, e.g. 0-1"),
    Flag::bytes("memory", "Limit of memory").short('m'),
    Flag::bytes("memory-reservation", "Soft limit of memory"),
    Flag::bytes("memory-swap", "Limit of memory and swap together, -1 for none").check(value::check_swap),
    Flag::int("pids-limit", "Limit of processes and threads, -1 for none"),
    Flag::text(
        "restart",
        "When to start again: no, always, unless-stopped, on-failure[:times], on-unhealthy[:times]",
    )
    .one_of(RESTART),
];

/// All of `create`; `run` has a few more.
pub(crate) static CREATE: &[Flag] = &[
    Flag::list("add-host", "Add a line to /etc/hosts (name:address)").check(value::check_host),
    Flag::list("annotation", "Add an annotation for the runtime").named("map").check(value::check_pair),
    Flag::list("attach", "Stay connected to stdin, stdout or stderr").short('a').check(value::check_stream),
    Flag::int("blkio-weight", "Relative weight of block IO, 10 to 1000, or 0")
        .named("uint16")
        .check(value::check_uint16)
        .default("0"),
    Flag::list("blkio-weight-device", "Weight of a block device (path:weight)"),
    Flag::list("cap-add", "Add a capability"),
    Flag::list("cap-drop", "Drop a capability"),
    Flag::text("cgroup-parent", "Control group to be under"),
    Flag::text("cgroupns", "Namespace of control groups (host or private)"),
    Flag::text("cidfile", "File to write the container's id to"),
    Flag::int("cpu-count", "Number of CPUs (Windows only)").hidden(),
    Flag::int("cpu-percent", "Share of CPU time (Windows only)").hidden(),
    Flag::int("cpu-period", "Period of the CPU limit in microseconds"),
    Flag::int("cpu-quota", "CPU time a period in microseconds"),
    Flag::int("cpu-rt-period", "Period of real-time scheduling in microseconds"),
    Flag::int("cpu-rt-runtime", "Real-time CPU time a period in microseconds"),
    Flag::int("cpu-shares", "Relative weight of CPU time").short('c'),
    Flag::text("cpus", "Number of CPUs, e.g. 1.5").named("decimal").check(value::check_cpus),
    Flag::text("cpuset-cpus", "CPUs to run on, e.g. 0-2,4"),
    Flag::text("cpuset-mems", "Memory nodes to use, e.g. 0-1"),
    Flag::list("device", "Give a device of the host (host[:container[:rwm]])"),
    Flag::list("device-cgroup-rule", "Allow devices by a rule"),
    Flag::list("device-read-bps", "Limit of bytes read a second from a device (path:rate)"),
    Flag::list("device-read-iops", "Limit of reads a second from a device (path:rate)"),
    Flag::list("device-write-bps", "Limit of bytes written a second to a device (path:rate)"),
    Flag::list("device-write-iops", "Limit of writes a second to a device (path:rate)"),
    Flag::switch("disable-content-trust", "Accepted for docker's sake").default("true").hidden(),
    Flag::list("dns", "Use a DNS server").check(value::check_address),
    Flag::list("dns-option", "Set an option of the resolver"),
    Flag::list("dns-search", "Search names in a domain"),
    Flag::text("domainname", "Domain of the container's name"),
    Flag::text("entrypoint", "Run this instead of the image's entrypoint"),
    Flag::list("env", "Set a variable (KEY=VALUE, or KEY for yours)").short('e').check(value::check_env),
    Flag::list("env-file", "Set the variables of a file"),
    Flag::list("expose", "Expose a port or a range of ports"),
    Flag::list("gpus", "Give GPUs (all, a number, or device=…,driver=…,count=…,capabilities=…)")
        .named("gpu-request")
        .check(gpu::check),
    Flag::list("group-add", "Add a supplementary group"),
    Flag::text("health-cmd", "Command that tests the container's health"),
    Flag::duration("health-interval", "Time between two tests").default("0s"),
    Flag::int("health-retries", "Failed tests in a row that make a container unhealthy"),
    Flag::duration("health-start-interval", "Time between two tests while starting").default("0s"),
    Flag::duration("health-start-period", "Time in which failed tests do not count").default("0s"),
    Flag::duration("health-timeout", "Time that one test may take").default("0s"),
    Flag::text("hostname", "Name of the container's host").short('h'),
    Flag::switch("init", "Run a small init as process 1 that forwards signals and reaps zombies"),
    Flag::switch("interactive", "Keep stdin open").short('i'),
    Flag::bytes("io-maxbandwidth", "Limit of bytes a second of the system drive (Windows only)").hidden(),
    Flag::int("io-maxiops", "Limit of operations a second of the system drive (Windows only)")
        .named("uint")
        .hidden(),
    Flag::text("ip", "IPv4 address"),
    Flag::text("ip6", "IPv6 address"),
    Flag::text("ipc", "IPC namespace: private, shareable, host, none, container:NAME"),
    Flag::text("isolation", "Isolation technology").hidden(),
    Flag::bytes("kernel-memory", "Limit of kernel memory").hidden(),
    Flag::list("label", "Set a label (KEY=VALUE)").short('l').check(value::check_label),
    Flag::list("label-file", "Set the labels of a file"),
    Flag::list("link", "Link to another container").complete(Complete::Containers),
    Flag::list("link-local-ip", "Link-local address").check(value::check_address),
    Flag::text("log-driver", "Where the output is logged"),
    Flag::list("log-opt", "Option of the log driver"),
    Flag::text("mac-address", "MAC address"),
    Flag::bytes("memory", "Limit of memory").short('m'),
    Flag::bytes("memory-reservation", "Soft limit of memory"),
    Flag::bytes("memory-swap", "Limit of memory and swap together, -1 for none").check(value::check_swap),
    Flag::int("memory-swappiness", "How readily memory is swapped, 0 to 100").default("-1"),
    Flag::list("mount", "Mount a bind, volume or tmpfs (type=…,source=…,target=…)")
        .named("mount")
        .check(mount::check),
    Flag::text("name", "Name of the container"),
    Flag::list("network", "Network to connect to").named("network").complete(Complete::Networks),
    Flag::list("network-alias", "Another name in the network"),
    Flag::switch("no-healthcheck", "Do not test the container's health"),
    Flag::switch("oom-kill-disable", "Do not kill when memory runs out"),
    Flag::int("oom-score-adj", "Preference of the kernel for killing it, -1000 to 1000"),
    Flag::text("pid", "PID namespace: host, container:NAME"),
    Flag::int("pids-limit", "Limit of processes and threads, -1 for none"),
    Flag::switch("plan", "Print what would be done to start it, and do nothing"),
    Flag::text("platform", "Platform of the image"),
    Flag::switch("privileged", "Give all privileges"),
    Flag::list("publish", "Publish a port ([[address:]port:]port[/protocol])").short('p'),
    Flag::switch("publish-all", "Publish all exposed ports at random ports").short('P'),
    Flag::text("pull", "When to pull the image: always, missing, never")
        .default("missing")
        .one_of(&["always", "missing", "never"]),
    Flag::switch("quiet", "Say nothing of pulling").short('q'),
    Flag::switch("read-only", "Mount the root file system read-only"),
    Flag::text(
        "restart",
        "When to start again: no, always, unless-stopped, on-failure[:times], on-unhealthy[:times]",
    )
    .default("no")
    .one_of(RESTART),
    Flag::switch("rm", "Remove the container and its anonymous volumes when it ends"),
    Flag::text("runtime", "Runtime of the container"),
    Flag::list("security-opt", "Security option"),
    Flag::bytes("shm-size", "Size of /dev/shm"),
    Flag::text("stop-signal", "Signal that stops the container"),
    Flag::int("stop-timeout", "Seconds that stopping may take"),
    Flag::list("storage-opt", "Option of the storage driver"),
    Flag::list("sysctl", "Set a kernel parameter").named("map").check(value::check_pair),
    Flag::list("tmpfs", "Mount a tmpfs (path[:options])"),
    Flag::switch("tty", "Give it a terminal").short('t'),
    Flag::list("ulimit", "Set a resource limit (name=soft[:hard])")
        .named("ulimit")
        .check(value::check_ulimit),
    Flag::switch("use-api-socket", "Give the engine's socket to the container").hidden(),
    Flag::text("user", "User or uid, and group or gid (user[:group])").short('u'),
    Flag::text("userns", "User namespace"),
    Flag::text("uts", "UTS namespace"),
    Flag::list("volume", "Mount a directory or a volume (source:target[:options])")
        .short('v')
        .complete(Complete::Volumes),
    Flag::text("volume-driver", "Driver of volumes"),
    Flag::list("volumes-from", "Mount the volumes of a container").complete(Complete::Containers),
    Flag::text("workdir", "Working directory").short('w'),
];
