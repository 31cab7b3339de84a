//! What containers use, as clients and Prometheus are told. Needs root.
#![allow(clippy::unwrap_used, reason = "a test program")]

use std::sync::Arc;

use futures_util::StreamExt;
use ponton_api::ZERO_TIME;
use ponton_api::container::Stats;
use ponton_engine::ErrorKind;
use ponton_engine::request::{StopOptions, Stream};

mod lab;
use lab::{Lab, PATIENCE, request, shell};

async fn next(stats: &mut Stream<Arc<Stats>>) -> Option<Arc<Stats>> {
    tokio::time::timeout(PATIENCE, stats.next()).await.unwrap().map(|sample| sample.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_follow_each_other_for_all_who_watch() {
    let lab = Lab::new().await;
    lab.create("busy", shell("while :; do :; done")).await;
    lab.engine.start("busy", None).await.unwrap();
    let mut watched = lab.engine.stats("busy", true, false).await.unwrap();
    let first = next(&mut watched).await.unwrap();
    assert_eq!((first.name.as_str(), first.preread.as_str()), ("/busy", ZERO_TIME));
    assert!(first.pids_stats.current >= 1 && first.memory_stats.limit > 0);
    let second = next(&mut watched).await.unwrap();
    assert_eq!(second.preread, first.read);
    assert_eq!(second.precpu_stats, first.cpu_stats);
    assert!(second.cpu_stats.cpu_usage.total_usage > first.cpu_stats.cpu_usage.total_usage);
    assert!(second.cpu_stats.system_cpu_usage > first.cpu_stats.system_cpu_usage);
    // Another gets the samples that there are.
    let mut other = lab.engine.stats("busy", true, false).await.unwrap();
    assert_ne!(next(&mut other).await.unwrap().preread, ZERO_TIME);
    let one = next(&mut lab.engine.stats("busy", false, true).await.unwrap()).await.unwrap();
    assert_eq!(one.preread, ZERO_TIME);
    let mut compared = lab.engine.stats("busy", false, false).await.unwrap();
    assert_ne!(next(&mut compared).await.unwrap().preread, ZERO_TIME);
    assert!(next(&mut compared).await.is_none());
    let both = lab.engine.stats("busy", true, true).await.err().unwrap();
    assert_eq!(both.kind, ErrorKind::Invalid);
    lab.engine.stop("busy", StopOptions { timeout: Some(0), signal: None }).await.unwrap();
    while next(&mut watched).await.unwrap().read != ZERO_TIME {}
    lab.remove("busy").await;
    assert!(next(&mut watched).await.is_none());
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_is_told_of_engine_and_containers() {
    let lab = Lab::new().await;
    let mut wanted = request(&["sleep", "1000"]);
    let labels = [("com.example/x", "a\"b"), ("com.example-x", "z")];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
    wanted.config.labels = Some(labels.into());
    wanted.host_config.memory = 64 << 20;
    let id = lab.create("told", wanted).await;
    lab.engine.start("told", None).await.unwrap();
    let page = lab.engine.metrics().await.unwrap();
    let line = |start: &str| page.lines().find(|line| line.starts_with(start)).unwrap_or_default();
    assert_eq!(
        line("engine_daemon_container_states_containers{state=\"running\"}").split(' ').nth(1),
        Some("1")
    );
    assert!(line("engine_daemon_container_actions_seconds_count{action=\"start\"}").ends_with(" 1"));
    assert!(line("engine_daemon_engine_info{").contains("os_type=\"linux\""));
    assert!(line("process_open_fds ").len() > "process_open_fds ".len());
    let memory = line("container_spec_memory_limit_bytes{");
    assert!(memory.ends_with(" 67108864"), "{memory}");
    for label in ["image=\"busybox\"", "name=\"told\"", "container_label_com_example_x=\"a\\\"b\"", &id] {
        assert!(memory.contains(label), "{memory}");
    }
    assert!(line("container_cpu_usage_seconds_total{").contains("cpu=\"total\""));
    assert!(line("container_start_time_seconds{").len() > 30);
    // Each family has one head, and stands together.
    let heads: Vec<_> = page.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    let mut names = heads.clone();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), heads.len());
    lab.engine.stop("told", StopOptions { timeout: Some(0), signal: None }).await.unwrap();
    assert!(!lab.engine.metrics().await.unwrap().contains("name=\"told\""));
    lab.close().await;
}
