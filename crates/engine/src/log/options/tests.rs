use super::*;
use crate::ErrorKind;

fn read(driver: &str, options: &[(&str, &str)]) -> Result<Driver> {
    let config = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    driver_of(driver, config)
}

fn driver_of(driver: &str, config: StringMap) -> Result<Driver> {
    let config = LogConfig { r#type: driver.to_owned(), config };
    check(&config)?;
    super::driver(&config)
}

#[test]
fn what_is_wrong_is_said_in_dockerds_words() {
    for (driver, option, message) in [
        ("nosuch", None, "error looking up logging plugin nosuch: plugin \"nosuch\" not found"),
        ("json-file", Some(("x", "1")), "unknown log opt 'x' for json-file log driver"),
        ("local", Some(("x", "1")), "unknown log opt 'x' for log driver local"),
        ("local", Some(("tag", "1")), "unknown log opt 'tag' for log driver local"),
        ("local", Some(("max-size", "abc")), "invalid value for max-size: abc: invalid size: 'abc'"),
        ("json-file", Some(("max-size", "abc")), "invalid size: 'abc'"),
        ("json-file", Some(("max-size", "-1")), "invalid size: '-1'"),
        ("json-file", Some(("max-file", "x")), "strconv.Atoi: parsing \"x\": invalid syntax"),
        ("json-file", Some(("max-file", "0")), "max-file cannot be less than 1"),
        ("json-file", Some(("compress", "maybe")), "strconv.ParseBool: parsing \"maybe\": invalid syntax"),
        ("json-file", Some(("mode", "foo")), "logger: logging mode not supported: foo"),
        (
            "json-file",
            Some(("max-buffer-size", "1m")),
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        ("json-file", Some(("labels-regex", "(")), "error parsing regexp: "),
        ("json-file", Some(("cache-disabled", "zz")), "invalid value for option cache-disabled: zz"),
        ("syslog", Some(("foo", "1")), "unknown log opt 'foo' for syslog log driver"),
        (
            "syslog",
            Some(("syslog-address", "foo")),
            "syslog-address should be in form proto://address, got foo",
        ),
        (
            "syslog",
            Some(("syslog-address", "http://x")),
            "syslog-address should be in form proto://address, got http://x",
        ),
        ("syslog", Some(("syslog-address", "unix:///nosuch")), "stat /nosuch: no such file or directory"),
        ("syslog", Some(("syslog-facility", "zz")), "invalid syslog facility"),
        ("syslog", Some(("syslog-format", "zz")), "Invalid syslog format"),
        ("journald", Some(("foo", "1")), "unknown log opt 'foo' for journald log driver"),
        ("fluentd", Some(("foo", "1")), "unknown log opt 'foo' for fluentd log driver"),
        ("gelf", None, "gelf-address is a required parameter"),
        ("gelf", Some(("gelf-address", "foo")), "gelf-address should be in form proto://address, got foo"),
        (
            "gelf",
            Some(("gelf-address", "udp://127.0.0.1")),
            "gelf: please provide gelf-address as proto://host:port",
        ),
        ("gelf", Some(("foo", "1")), "unknown log opt \"foo\" for gelf log driver"),
    ] {
        let got = read(driver, option.as_slice()).unwrap_err();
        assert!(got.message.starts_with(message), "{driver} {option:?}: {}", got.message);
        assert_eq!(got.kind, ErrorKind::Invalid);
    }
    let gelf =
        |address, name, value| read("gelf", &[("gelf-address", address), (name, value)]).unwrap_err().message;
    assert_eq!(
        gelf("udp://h:1", "gelf-compression-type", "x"),
        "unknown value \"x\" for log opt \"gelf-compression-type\" for gelf log driver"
    );
    assert_eq!(
        gelf("udp://h:1", "gelf-compression-level", "22"),
        "unknown value \"22\" for log opt \"gelf-compression-level\" for gelf log driver"
    );
    assert_eq!(gelf("tcp://h:1", "gelf-compression-level", "1"), "compression is only supported on UDP");
    assert_eq!(
        gelf("udp://h:1", "gelf-tcp-max-reconnect", "1"),
        "\"gelf-tcp-max-reconnect\" is only valid for TCP"
    );
    assert_eq!(
        read("json-file", &[("compress", "true"), ("max-size", "1m")]).unwrap_err().message,
        "compress cannot be true when max-file is less than 2 or max-size is not set"
    );
}

#[test]
fn what_is_not_built_is_named() {
    for (driver, name, value) in [
        ("syslog", "syslog-address", "tcp+tls://h:1"),
        ("syslog", "syslog-tls-skip-verify", "true"),
        ("fluentd", "fluentd-request-ack", "true"),
        ("fluentd", "fluentd-address", "tls://h:1"),
    ] {
        let error = read(driver, &[(name, value)]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotImplemented);
        assert!(error.message.contains(name), "{}", error.message);
    }
}

#[test]
fn files_have_bounds_of_their_own_accord() {
    let kept = |driver, options: &[(&str, &str)]| {
        let kept = read(driver, options).unwrap().kept.unwrap();
        (kept.max_size_bytes, kept.max_files, kept.compress)
    };
    assert_eq!(kept("local", &[]), (20 << 20, 5, true));
    assert_eq!(kept("local", &[("max-size", "1k"), ("max-file", "1")]), (1000, 1, false));
    assert_eq!(kept("local", &[("max-size", "0"), ("compress", "false")]), (0, 5, false));
    assert_eq!(kept("json-file", &[]), (20 << 20, 5, false));
    assert_eq!(kept("json-file", &[("max-size", "10m")]), (10_000_000, 1, false));
    assert_eq!(
        kept("json-file", &[("max-size", "10m"), ("max-file", "3"), ("compress", "true")]),
        (10_000_000, 3, true)
    );
    assert_eq!(kept("syslog", &[("cache-max-size", "1m"), ("cache-max-file", "2")]), (1_000_000, 2, true));
    assert_eq!(read("syslog", &[("cache-disabled", "true")]).unwrap().kept, None);
    assert_eq!(read("none", &[("anything", "goes")]).unwrap().kept, None);
}

#[test]
fn services_are_where_the_options_say() {
    let peer = |driver, name, value| match read(driver, &[(name, value)]).unwrap().kind {
        Kind::Syslog { peer, .. } | Kind::Fluentd { peer, .. } | Kind::Gelf { peer, .. } => peer,
        _ => panic!("no service"),
    };
    assert_eq!(peer("syslog", "syslog-address", "tcp://[::1]:99"), Peer::Tcp("[::1]:99".into()));
    assert_eq!(peer("syslog", "syslog-address", "udp://host"), Peer::Udp("host:514".into()));
    assert_eq!(peer("syslog", "syslog-facility", "local7"), Peer::Syslog);
    assert_eq!(peer("fluentd", "fluentd-address", ""), Peer::Tcp("127.0.0.1:24224".into()));
    assert_eq!(peer("fluentd", "fluentd-address", "host:1"), Peer::Tcp("host:1".into()));
    assert_eq!(peer("fluentd", "fluentd-address", "::1"), Peer::Tcp("[::1]:24224".into()));
    assert_eq!(peer("fluentd", "fluentd-address", "unix:///s"), Peer::UnixStream("/s".into()));
    assert_eq!(peer("gelf", "gelf-address", "udp://h:12201"), Peer::Udp("h:12201".into()));
    let delivery =
        read("fluentd", &[("fluentd-async", "true"), ("fluentd-retry-wait", "20ms")]).unwrap().delivery;
    assert_eq!((delivery.lossy, delivery.retry_delay), (true, Duration::from_millis(20)));
    let delivery = read("syslog", &[("mode", "non-blocking"), ("max-buffer-size", "4m")]).unwrap().delivery;
    assert_eq!((delivery.lossy, delivery.buffer_max_bytes), (true, 4 << 20));
}

#[test]
fn the_daemons_options_are_for_its_driver_and_for_what_is_kept() {
    let config = |driver: &str, options: &[(&str, &str)]| LogConfig {
        r#type: driver.to_owned(),
        config: options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    };
    let default = config("json-file", &[("max-size", "1m"), ("cache-max-size", "2m")]);
    let filled = |mut config: LogConfig| {
        fill(&mut config, &default);
        config
    };
    assert_eq!(filled(config("", &[])), default);
    assert_eq!(
        filled(config("json-file", &[("max-size", "3m")])),
        config("json-file", &[("max-size", "3m"), ("cache-max-size", "2m")])
    );
    assert_eq!(filled(config("local", &[])), config("local", &[("cache-max-size", "2m")]));
}
