use super::*;

/// What is refused at creation, in the words of Docker 20.10 and newer.
#[test]
fn what_cannot_be_is_refused_in_dockers_words() {
    type Change = fn(&mut Config, &mut HostConfig);
    let table: &[(Change, &str)] = &[
        (|_, h| h.cap_add = Some(words(&["FOO"])), "invalid CapAdd: unknown capability: \"CAP_FOO\""),
        (|_, h| h.cap_drop = Some(words(&["foo"])), "invalid CapDrop: unknown capability: \"CAP_FOO\""),
        (|_, h| h.memory = 1 << 20, "Minimum memory limit allowed is 6MB"),
        (
            |_, h| (h.memory, h.memory_swap) = (7 << 20, 6 << 20),
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            |_, h| h.memory_swap = 100 << 20,
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        (
            |_, h| (h.memory, h.memory_reservation) = (100 << 20, 200 << 20),
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
        (|_, h| h.memory_reservation = 1 << 20, "Minimum memory reservation allowed is 6MB"),
        (|_, h| h.kernel_memory = 1 << 20, "Minimum kernel memory limit allowed is 6MB"),
        (
            |_, h| h.nano_cpus = 1000 * 1_000_000_000,
            "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        ),
        (
            |_, h| (h.nano_cpus, h.cpu_quota) = (1, 1000),
            "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
        ),
        (
            |_, h| (h.nano_cpus, h.cpu_period) = (1, 1000),
            "Conflicting options: Nano CPUs and CPU Period cannot both be set",
        ),
        (
            |_, h| h.cpu_period = 10,
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ),
        (|_, h| h.cpu_quota = 10, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
        (
            |_, h| h.cpuset_cpus = "99".to_owned(),
            "Requested CPUs are not available - requested 99, available: 0-1",
        ),
        (|_, h| h.cpuset_cpus = "x".to_owned(), "Invalid value x for cpuset cpus: invalid format: x"),
        (
            |_, h| h.cpuset_mems = "9".to_owned(),
            "Requested memory nodes are not available - requested 9, available: 0",
        ),
        (
            |_, h| h.memory_swappiness = Some(200),
            "Invalid value: 200, valid memory swappiness range is 0-100",
        ),
        (|_, h| h.oom_score_adj = 2000, "Invalid value 2000, range for oom score adj is [-1000, 1000]"),
        (|_, h| h.shm_size = -1, "SHM size can not be less than 0"),
        (|_, h| h.blkio_weight = 5, "Range of blkio weight is from 10 to 1000"),
        (|_, h| h.security_opt = Some(words(&["foo"])), "invalid --security-opt 1: \"foo\""),
        (|_, h| h.security_opt = Some(words(&["foo=bar"])), "invalid --security-opt 2: \"foo=bar\""),
        (
            |_, h| h.security_opt = Some(words(&["no-new-privileges=x"])),
            "invalid --security-opt 2: \"no-new-privileges=x\"",
        ),
        (|_, h| h.ipc_mode = "foo".to_owned(), "invalid IPC mode: foo"),
        (|_, h| h.pid_mode = "private".to_owned(), "invalid PID mode: private"),
        (|_, h| h.uts_mode = "container:x".to_owned(), "invalid UTS mode: container:x"),
        (
            |c, h| (c.hostname, h.uts_mode) = ("x".to_owned(), "host".to_owned()),
            "conflicting options: hostname and the UTS mode",
        ),
        (
            |c, h| (c.hostname, h.network_mode) = ("x".to_owned(), "container:y".to_owned()),
            "conflicting options: hostname and the network mode",
        ),
        (|_, h| h.isolation = "foo".to_owned(), "Invalid isolation: \"foo\" - linux only supports 'default'"),
        (
            |_, h| h.tmpfs = Some([("foo".to_owned(), String::new())].into()),
            "invalid mount path: 'foo' mount path must be absolute",
        ),
        (|_, h| h.tmpfs = Some([("/x".to_owned(), "foo".to_owned())].into()), "Invalid tmpfs option \"foo\""),
        (
            |_, h| h.device_cgroup_rules = Some(words(&["c 1:2"])),
            "invalid device cgroup rule format: 'c 1:2'",
        ),
        (
            |_, h| h.ulimits = Some(vec![Ulimit { name: "foo".to_owned(), hard: 1, soft: 1 }]),
            "invalid ulimit type: foo",
        ),
        (
            |_, h| h.ulimits = Some(vec![Ulimit { name: "nofile".to_owned(), hard: 5, soft: 10 }]),
            "ulimit soft limit must be less than or equal to hard limit: 10 > 5",
        ),
        (|c, _| c.env = Some(words(&["=x"])), "invalid environment variable: =x"),
    ];
    for (change, message) in table {
        let (mut config, mut host) = (Config::default(), HostConfig::default());
        assert_eq!(check(&config, &host, &facts()).unwrap(), Vec::<String>::new());
        change(&mut config, &mut host);
        let error = check(&config, &host, &facts()).unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Invalid, *message));
    }
}

#[test]
fn what_is_dangerous_is_warned_of() {
    let host = HostConfig { oom_kill_disable: Some(true), ..HostConfig::default() };
    let warnings = check(&Config::default(), &host, &facts()).unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].starts_with("OOM killer is disabled"));
}
