use ponton_api::container::{EndpointIpamConfig, EndpointSettings, NetworkingConfig};

use super::*;

/// What is refused at creation, in the words of Docker 20.10 and newer.
#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn what_cannot_be_is_refused_in_dockers_words() {
    type Change = fn(&mut Config, &mut HostConfig);
    let table: &[(&str, Change, &str)] = &[
        (
            "HostConfig.CapAdd",
            |_, h| h.cap_add = Some(words(&["FOO"])),
            "invalid CapAdd: unknown capability: \"CAP_FOO\"",
        ),
        (
            "HostConfig.CapDrop",
            |_, h| h.cap_drop = Some(words(&["foo"])),
            "invalid CapDrop: unknown capability: \"CAP_FOO\"",
        ),
        ("HostConfig.Memory", |_, h| h.memory = 1 << 20, "Minimum memory limit allowed is 6MB"),
        (
            "HostConfig.MemorySwap",
            |_, h| (h.memory, h.memory_swap) = (7 << 20, 6 << 20),
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            "HostConfig.MemorySwap",
            |_, h| h.memory_swap = 100 << 20,
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        (
            "HostConfig.MemoryReservation",
            |_, h| (h.memory, h.memory_reservation) = (100 << 20, 200 << 20),
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
        (
            "HostConfig.MemoryReservation",
            |_, h| h.memory_reservation = 1 << 20,
            "Minimum memory reservation allowed is 6MB",
        ),
        (
            "HostConfig.KernelMemory",
            |_, h| h.kernel_memory = 1 << 20,
            "Minimum kernel memory limit allowed is 6MB",
        ),
        (
            "HostConfig.NanoCpus",
            |_, h| h.nano_cpus = 1000 * 1_000_000_000,
            "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        ),
        (
            "HostConfig.CpuQuota",
            |_, h| (h.nano_cpus, h.cpu_quota) = (1, 1000),
            "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
        ),
        (
            "HostConfig.CpuPeriod",
            |_, h| (h.nano_cpus, h.cpu_period) = (1, 1000),
            "Conflicting options: Nano CPUs and CPU Period cannot both be set",
        ),
        (
            "HostConfig.CpuPeriod",
            |_, h| h.cpu_period = 10,
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ),
        (
            "HostConfig.CpuQuota",
            |_, h| h.cpu_quota = 10,
            "CPU cfs quota can not be less than 1ms (i.e. 1000)",
        ),
        (
            "HostConfig.CpusetCpus",
            |_, h| h.cpuset_cpus = "99".to_owned(),
            "Requested CPUs are not available - requested 99, available: 0-1",
        ),
        (
            "HostConfig.CpusetCpus",
            |_, h| h.cpuset_cpus = "x".to_owned(),
            "Invalid value x for cpuset cpus: invalid format: x",
        ),
        (
            "HostConfig.CpusetMems",
            |_, h| h.cpuset_mems = ",".to_owned(),
            "Invalid value , for cpuset mems: invalid format: ,",
        ),
        (
            "HostConfig.CpusetMems",
            |_, h| h.cpuset_mems = "9".to_owned(),
            "Requested memory nodes are not available - requested 9, available: 0",
        ),
        (
            "HostConfig.MemorySwappiness",
            |_, h| h.memory_swappiness = Some(200),
            "Invalid value: 200, valid memory swappiness range is 0-100",
        ),
        (
            "HostConfig.OomScoreAdj",
            |_, h| h.oom_score_adj = 2000,
            "Invalid value 2000, range for oom score adj is [-1000, 1000]",
        ),
        ("HostConfig.ShmSize", |_, h| h.shm_size = -1, "SHM size can not be less than 0"),
        ("HostConfig.BlkioWeight", |_, h| h.blkio_weight = 5, "Range of blkio weight is from 10 to 1000"),
        (
            "HostConfig.SecurityOpt",
            |_, h| h.security_opt = Some(words(&["foo"])),
            "invalid --security-opt 1: \"foo\"",
        ),
        (
            "HostConfig.SecurityOpt",
            |_, h| h.security_opt = Some(words(&["foo=bar"])),
            "invalid --security-opt 2: \"foo=bar\"",
        ),
        (
            "HostConfig.SecurityOpt",
            |_, h| h.security_opt = Some(words(&["no-new-privileges=x"])),
            "invalid --security-opt 2: \"no-new-privileges=x\"",
        ),
        ("HostConfig.IpcMode", |_, h| h.ipc_mode = "foo".to_owned(), "invalid IPC mode: foo"),
        ("HostConfig.PidMode", |_, h| h.pid_mode = "private".to_owned(), "invalid PID mode: private"),
        ("HostConfig.UTSMode", |_, h| h.uts_mode = "container:x".to_owned(), "invalid UTS mode: container:x"),
        (
            "HostConfig.UTSMode",
            |c, h| (c.hostname, h.uts_mode) = ("x".to_owned(), "host".to_owned()),
            "conflicting options: hostname and the UTS mode",
        ),
        (
            "HostConfig.Isolation",
            |_, h| h.isolation = "foo".to_owned(),
            "Invalid isolation: \"foo\" - linux only supports 'default'",
        ),
        (
            "HostConfig.Tmpfs",
            |_, h| h.tmpfs = Some([("foo".to_owned(), String::new())].into()),
            "invalid mount path: 'foo' mount path must be absolute",
        ),
        (
            "HostConfig.Tmpfs",
            |_, h| h.tmpfs = Some([("/x".to_owned(), "foo".to_owned())].into()),
            "Invalid tmpfs option \"foo\"",
        ),
        (
            "HostConfig.DeviceCgroupRules",
            |_, h| h.device_cgroup_rules = Some(words(&["c 1:2"])),
            "invalid device cgroup rule format: 'c 1:2'",
        ),
        (
            "HostConfig.Ulimits",
            |_, h| h.ulimits = Some(vec![Ulimit { name: "foo".to_owned(), hard: 1, soft: 1 }]),
            "invalid ulimit type: foo",
        ),
        (
            "HostConfig.Ulimits",
            |_, h| h.ulimits = Some(vec![Ulimit { name: "nofile".to_owned(), hard: 5, soft: 10 }]),
            "ulimit soft limit must be less than or equal to hard limit: 10 > 5",
        ),
        ("Config.Env", |c, _| c.env = Some(words(&["=x"])), "invalid environment variable: =x"),
        (
            "Config.Hostname",
            |c, h| (c.hostname, h.network_mode) = ("x".to_owned(), "container:y".to_owned()),
            "conflicting options: hostname and the network mode",
        ),
        (
            "HostConfig.NetworkMode",
            |_, h| h.network_mode = "container:".to_owned(),
            "invalid container format container:<name|id>",
        ),
        (
            "HostConfig.Dns",
            |_, h| (h.network_mode, h.dns) = ("container:y".to_owned(), Some(words(&["1.1.1.1"]))),
            "conflicting options: dns and the network mode",
        ),
        ("HostConfig.Dns", |_, h| h.dns = Some(words(&["one"])), "invalid Dns: \"one\" is not an IP address"),
        (
            "HostConfig.ExtraHosts",
            |_, h| (h.network_mode, h.extra_hosts) = ("container:y".to_owned(), Some(words(&["a:1.1.1.1"]))),
            "conflicting options: custom host-to-IP mapping and the network mode",
        ),
        (
            "HostConfig.ExtraHosts",
            |_, h| h.extra_hosts = Some(words(&["a:b"])),
            "invalid IP address in add-host: \"b\"",
        ),
        (
            "HostConfig.ExtraHosts",
            |_, h| h.extra_hosts = Some(words(&["a"])),
            "bad format for add-host: \"a\"",
        ),
        (
            "HostConfig.Links",
            |_, h| (h.network_mode, h.links) = ("host".to_owned(), Some(words(&["a:b"]))),
            "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
        ),
        (
            "HostConfig.Links",
            |_, h| (h.network_mode, h.links) = ("container:y".to_owned(), Some(words(&["a:b"]))),
            "conflicting options: container type network can't be used with links. This would result in undefined behavior",
        ),
        ("HostConfig.Links", |_, h| h.links = Some(words(&["a:b:c"])), "bad format for links: a:b:c"),
        (
            "Config.MacAddress",
            |c, h| (h.network_mode, c.mac_address) = ("host".to_owned(), "02:42:ac:11:00:02".to_owned()),
            "conflicting options: mac-address and the network mode",
        ),
        (
            "Config.MacAddress",
            |c, _| c.mac_address = "02:42".to_owned(),
            "invalid MacAddress: address 02:42: invalid MAC address",
        ),
        (
            "HostConfig.PublishAllPorts",
            |_, h| (h.network_mode, h.publish_all_ports) = ("container:y".to_owned(), true),
            "conflicting options: port publishing and the container type network mode",
        ),
        (
            "HostConfig.PortBindings",
            |_, h| {
                h.network_mode = "container:y".to_owned();
                h.port_bindings = Some([("80/tcp".to_owned(), None)].into());
            },
            "conflicting options: port publishing and the container type network mode",
        ),
        (
            "Config.ExposedPorts",
            |c, h| {
                h.network_mode = "container:y".to_owned();
                c.exposed_ports = [("80/tcp".to_owned(), ponton_api::Empty {})].into();
            },
            "conflicting options: port exposing and the container type network mode",
        ),
        (
            "HostConfig.Annotations",
            |_, h| h.annotations = Some([(String::new(), String::new())].into()),
            "invalid Annotations: the empty string is not permitted as an annotation key",
        ),
        (
            "HostConfig.IOMaximumIOps",
            |_, h| h.io_maximum_iops = 1,
            "Invalid QoS settings: linux does not support configuration of maximum IOPs",
        ),
        (
            "HostConfig.IOMaximumBandwidth",
            |_, h| h.io_maximum_bandwidth = 1,
            "Invalid QoS settings: linux does not support configuration of maximum bandwidth",
        ),
        (
            "HostConfig.DiskQuota",
            |_, h| h.disk_quota = 1,
            "invalid DiskQuota: StorageOpt has the size of a container's disk",
        ),
        (
            "HostConfig.Cgroup",
            |_, h| h.cgroup = "container:x".to_owned(),
            "invalid Cgroup: the control group of another container cannot be used",
        ),
        (
            "HostConfig.Capabilities",
            |_, h| (h.capabilities, h.cap_add) = (Some(words(&["CHOWN"])), Some(words(&["KILL"]))),
            "conflicting options: Capabilities and CapAdd",
        ),
        (
            "HostConfig.Capabilities",
            |_, h| h.capabilities = Some(words(&["FOO"])),
            "invalid Capabilities: unknown capability: \"CAP_FOO\"",
        ),
    ];
    for (field, change, message) in table {
        let (mut config, mut host) = (Config::default(), HostConfig::default());
        assert_eq!(check(&config, &host, &facts()).unwrap(), Vec::<String>::new());
        change(&mut config, &mut host);
        let error = check_network(&config, &host, &NetworkingConfig::default())
            .and_then(|()| check(&config, &host, &facts()))
            .expect_err(field);
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Invalid, *message), "{field}");
    }
}

#[test]
fn what_is_dangerous_is_warned_of() {
    let host = HostConfig { oom_kill_disable: Some(true), ..HostConfig::default() };
    let warnings = check(&Config::default(), &host, &facts()).unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].starts_with("OOM killer is disabled"));
}

/// What a new container's endpoints may say: the predefined networks give addresses and names themselves.
#[test]
fn endpoints_of_predefined_networks_have_no_choice() {
    type Change = fn(&mut EndpointSettings);
    let strings = || Some(words(&["x"]));
    let table: &[(&str, Change, &str)] = &[
        (
            "NetworkingConfig.EndpointsConfig.IPAMConfig",
            |e| {
                let ipv4_address = "172.17.0.9".to_owned();
                e.ipam_config = Some(EndpointIpamConfig { ipv4_address, ..EndpointIpamConfig::default() });
            },
            "user specified IP address is supported on user defined networks only",
        ),
        (
            "NetworkingConfig.EndpointsConfig.Aliases",
            |e| e.aliases = Some(words(&["x"])),
            "network-scoped alias is supported only for containers in user defined networks",
        ),
        (
            "NetworkingConfig.EndpointsConfig.Links",
            |e| e.links = Some(words(&["x"])),
            "NetworkingConfig.EndpointsConfig.bridge.Links is not implemented",
        ),
        (
            "NetworkingConfig.EndpointsConfig.DriverOpts",
            |e| e.driver_opts = Some([("a".to_owned(), "b".to_owned())].into()),
            "NetworkingConfig.EndpointsConfig.bridge.DriverOpts is not implemented",
        ),
        (
            "NetworkingConfig.EndpointsConfig.MacAddress",
            |e| e.mac_address = "x".to_owned(),
            "invalid EndpointsConfig.MacAddress: address x: invalid MAC address",
        ),
    ];
    let of =
        |name: &str, endpoint| NetworkingConfig { endpoints_config: [(name.to_owned(), endpoint)].into() };
    for (field, change, message) in table {
        let (config, host) = (Config::default(), HostConfig::default());
        let mut endpoint = EndpointSettings::default();
        check_network(&config, &host, &of("bridge", endpoint.clone())).unwrap();
        change(&mut endpoint);
        let error = check_network(&config, &host, &of("bridge", endpoint)).expect_err(field);
        assert_eq!(error.message, *message, "{field}");
    }
    let other = of("other", EndpointSettings { aliases: strings(), ..EndpointSettings::default() });
    let error = check_network(&Config::default(), &HostConfig::default(), &other).unwrap_err();
    assert!(error.message.contains("to network other beside its network mode"), "{}", error.message);
}
