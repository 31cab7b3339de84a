use ponton_api::container::HealthConfig;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn check() -> Check {
    Check {
        command: vec!["true".into()],
        interval: seconds(30),
        timeout: seconds(10),
        start_period: seconds(60),
        start_interval: seconds(5),
        retries: 2,
    }
}

fn step(health: &Health, event: &Event, now: i64) -> (Health, Vec<Effect>) {
    next(health, &check(), at(0), event, at(now))
}

/// A probe from its begin to its result, a second later.
fn probe(health: &Health, exit_code: i32, now: i64) -> (Health, Vec<Effect>) {
    let (probing, effects) = step(health, &Event::Wake, now);
    assert_eq!(effects, [Effect::WakeAfter(seconds(10)), Effect::Probe]);
    step(&probing, &Event::Probed { exit_code, output: "words".into() }, now + 1)
}

fn begun() -> Health {
    let (health, effects) = step(&Health::default(), &Event::Begin, 0);
    assert_eq!(effects, [Effect::WakeAfter(seconds(5))]);
    assert_eq!(health.status, Status::Starting);
    health
}

#[test]
fn failures_in_the_start_period_do_not_count_until_the_first_success() {
    let (health, effects) = probe(&begun(), 1, 5);
    assert_eq!((health.status, health.failing_streak), (Status::Starting, 0));
    assert_eq!(effects, [Effect::WakeAfter(seconds(5)), Effect::Save]);
    let (health, effects) = probe(&health, 0, 11);
    assert_eq!(
        effects,
        [Effect::WakeAfter(seconds(30)), Effect::Save, Effect::Emit(Status::Healthy)],
        "the interval is the long one from the first success on"
    );
    let (health, _) = probe(&health, 1, 20);
    assert_eq!((health.status, health.failing_streak), (Status::Healthy, 1));
    let (health, effects) = probe(&health, 1, 22);
    assert_eq!(health.status, Status::Unhealthy);
    assert_eq!(
        effects,
        [Effect::WakeAfter(seconds(30)), Effect::Save, Effect::Emit(Status::Unhealthy), Effect::Unhealthy]
    );
    // It is told once, and its life hears it each time.
    let (health, effects) = probe(&health, 7, 60);
    assert_eq!(health.failing_streak, 3);
    assert_eq!(effects, [Effect::WakeAfter(seconds(30)), Effect::Save, Effect::Unhealthy]);
    let (health, effects) = probe(&health, 0, 90);
    assert_eq!((health.status, health.failing_streak), (Status::Healthy, 0));
    assert!(effects.contains(&Effect::Emit(Status::Healthy)));
}

#[test]
fn a_probe_that_began_in_the_start_period_does_not_count() {
    let (probing, _) = step(&begun(), &Event::Wake, 59);
    let (health, effects) = step(&probing, &Event::Probed { exit_code: 1, output: String::new() }, 62);
    assert_eq!(health.failing_streak, 0);
    assert_eq!(effects[0], Effect::WakeAfter(seconds(30)), "the start period is over");
    let (health, _) = probe(&health, 1, 92);
    let (health, _) = probe(&health, 1, 123);
    assert_eq!((health.status, health.failing_streak), (Status::Unhealthy, 2));
}

#[test]
fn a_probe_that_takes_too_long_is_killed_and_has_failed() {
    let (probing, _) = step(&begun(), &Event::Wake, 100);
    let (killing, effects) = step(&probing, &Event::Wake, 110);
    assert_eq!(effects, [Effect::Sleep, Effect::Kill]);
    let (health, _) = step(&killing, &Event::Probed { exit_code: 0, output: "half".into() }, 111);
    let result = health.log.back().unwrap();
    assert_eq!((result.start, result.end, result.exit_code), (at(100), at(111), NOT_RUN));
    assert_eq!(result.output, "Health check exceeded timeout (10s): half");
    assert_eq!(health.failing_streak, 1);
}

#[test]
fn the_last_five_results_are_kept_over_runs() {
    let mut health = begun();
    for number in 0..7 {
        health = probe(&health, number, 100 + i64::from(number)).0;
    }
    let codes = |health: &Health| health.log.iter().map(|probed| probed.exit_code).collect::<Vec<_>>();
    assert_eq!(codes(&health), [2, 3, 4, 5, 6]);
    let (health, _) = step(&health, &Event::Begin, 200);
    assert_eq!((health.status, health.failing_streak, health.was_healthy), (Status::Starting, 0, false));
    assert_eq!(codes(&health), [2, 3, 4, 5, 6]);
}

#[test]
fn nothing_is_probed_while_halted() {
    let healthy = probe(&begun(), 0, 5).0;
    let (halted, effects) = step(&healthy, &Event::Halt, 10);
    assert_eq!(effects, [Effect::Sleep]);
    assert_eq!((halted.status, halted.monitor), (Status::Unhealthy, Monitor::Off));
    assert_eq!(step(&halted, &Event::Wake, 11).1, [Effect::Sleep]);
    assert_eq!(step(&halted, &Event::Halt, 11), (halted.clone(), vec![]));
    // The result of a probe that was under way is not wanted any more.
    let (probing, _) = step(&healthy, &Event::Wake, 40);
    let (gone, effects) = step(&probing, &Event::Halt, 41);
    assert_eq!(effects, [Effect::Sleep, Effect::Abandon]);
    let late = Event::Probed { exit_code: 0, output: String::new() };
    assert_eq!(step(&gone, &late, 42), (gone.clone(), vec![]));
    let (resumed, effects) = step(&gone, &Event::Resume, 50);
    assert_eq!(effects, [Effect::WakeAfter(seconds(30))]);
    assert_eq!(step(&resumed, &Event::Resume, 51).1, []);
}

#[test]
fn what_is_saved_is_resumed_by_the_next_daemon() {
    let (probing, _) = step(&probe(&begun(), 0, 5).0, &Event::Wake, 40);
    let saved = serde_json::to_string(&probing).unwrap();
    let found: Health = serde_json::from_str(&saved).unwrap();
    assert_eq!((found.status, found.monitor), (Status::Healthy, Monitor::Off));
    assert_eq!(found.log, probing.log);
    assert_eq!(step(&found, &Event::Resume, 50).1, [Effect::WakeAfter(seconds(30))]);
}

fn config(test: &[&str]) -> Config {
    let test = Some(test.iter().map(|word| (*word).to_owned()).collect());
    let healthcheck = Some(HealthConfig { test, ..HealthConfig::default() });
    Config { healthcheck, ..Config::default() }
}

#[test]
fn checks_are_read_as_docker_reads_them() {
    for test in [&[][..], &["NONE"], &["OTHER", "x"]] {
        assert_eq!(Check::of(&config(test)), None, "{test:?}");
    }
    assert_eq!(Check::of(&Config::default()), None);
    let check = Check::of(&config(&["CMD", "a", "b"])).unwrap();
    assert_eq!(check.command, ["a", "b"]);
    assert_eq!((check.interval, check.timeout, check.retries), (seconds(30), seconds(30), 3));
    assert_eq!((check.start_period, check.start_interval), (seconds(0), seconds(5)));
    let mut shell = config(&["CMD-SHELL", "a || b"]);
    assert_eq!(Check::of(&shell).unwrap().command, ["/bin/sh", "-c", "a || b"]);
    shell.shell = Some(vec!["/bin/bash".into(), "-ec".into()]);
    assert_eq!(Check::of(&shell).unwrap().command, ["/bin/bash", "-ec", "a || b"]);
}

#[test]
fn times_that_are_too_short_are_refused() {
    let refused = |change: fn(&mut HealthConfig)| {
        let mut config = config(&["CMD", "a"]);
        change(config.healthcheck.as_mut().unwrap());
        super::check(&config).map_err(|error| error.message)
    };
    assert_eq!(refused(|check| check.interval = 1_000_000), Ok(()));
    let too_short = "Timeout in Healthcheck cannot be less than 1ms";
    assert_eq!(refused(|check| check.timeout = 999_999), Err(too_short.into()));
    assert_eq!(refused(|check| check.start_period = -1).unwrap_err().split(' ').next(), Some("StartPeriod"));
    assert_eq!(refused(|check| check.retries = -1), Err("Retries in Healthcheck cannot be negative".into()));
}

#[test]
fn output_is_bounded() {
    let mut output = Output::new();
    output.push(&[b'x'; OUTPUT_MAX - 1]);
    output.push("é".as_bytes());
    output.push(b"more");
    let text = output.into_text();
    assert_eq!(text, format!("{}...", "x".repeat(OUTPUT_MAX - 1)));
    let mut whole = Output::new();
    whole.push(b"ok\n");
    assert_eq!(whole.into_text(), "ok\n");
}
