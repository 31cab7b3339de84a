//! Health checks with real containers, and the policies that heed them. Needs root.
#![allow(clippy::unwrap_used, reason = "a test program")]

use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use ponton_api::container::{CreateRequest, Health, HealthConfig, RestartPolicy};
use ponton_engine::Engine;
use ponton_engine::request::{EventsRequest, ListOptions, StopOptions};

mod lab;
use lab::{Lab, PATIENCE, request, shell, wait_for};

const MILLISECOND: i64 = 1_000_000;

/// A container with a check that is run often.
fn checked(request: CreateRequest, test: &str) -> CreateRequest {
    let mut request = request;
    request.config.healthcheck = Some(HealthConfig {
        test: Some(vec!["CMD-SHELL".into(), test.into()]),
        interval: 20 * MILLISECOND,
        retries: 2,
        ..HealthConfig::default()
    });
    request
}

/// Waits until the health is as wanted.
async fn health(engine: &Arc<Engine>, name: &str, wanted: impl Fn(&Health) -> bool) -> Health {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let health = engine.inspect(name, false).await.unwrap().state.health;
        if let Some(health) = health.clone().filter(|health| wanted(health)) {
            return health;
        }
        assert!(tokio::time::Instant::now() < deadline, "{name}: {health:?}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// What happens to containers, as action and reason; without execs.
#[derive(Clone)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    async fn from(engine: &Arc<Engine>) -> Self {
        let heard = Self(Arc::default());
        let mut events = engine.events(EventsRequest::default()).await.unwrap();
        let telling = heard.clone();
        tokio::spawn(async move {
            while let Some(Ok(event)) = events.next().await {
                if event.r#type != "container" || event.action.starts_with("exec") {
                    continue;
                }
                telling.0.lock().unwrap().push(match event.actor.attributes.get("reason") {
                    Some(reason) => format!("{} ({reason})", event.action),
                    None => event.action.clone(),
                });
            }
        });
        heard
    }

    /// All up to the last `wanted`, when there is one.
    async fn until(&self, wanted: &str) -> Vec<String> {
        let mut found = Vec::new();
        wait_for(|| {
            let heard = self.0.lock().unwrap();
            let last = heard.iter().rposition(|event| event == wanted);
            found = heard[..last.map_or(0, |last| last + 1)].to_vec();
            last.is_some()
        })
        .await;
        found
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_gets_unhealthy_and_healthy_again() {
    let lab = Lab::new().await;
    let heard = Heard::from(&lab.engine).await;
    lab.create("web", checked(request(&["sleep", "1000"]), "echo said; test -e /tmp/good")).await;
    assert_eq!(lab.engine.inspect("web", false).await.unwrap().state.health, None);
    lab.engine.start("web", None).await.unwrap();
    let bad = health(&lab.engine, "web", |health| health.status == "unhealthy").await;
    assert!(bad.failing_streak >= 2);
    let log = bad.log.unwrap();
    assert_eq!((log[0].exit_code, log[0].output.as_str()), (1, "said\n"));
    let pid = lab.engine.inspect("web", false).await.unwrap().state.pid;
    std::fs::write(format!("/proc/{pid}/root/tmp/good"), "").unwrap();
    health(&lab.engine, "web", |health| health.status == "healthy" && health.failing_streak == 0).await;
    let healthy = ponton_api::filters::Filters::parse(r#"{"health":["healthy"]}"#).unwrap();
    let listed = lab.list(&ListOptions { filters: healthy, ..ListOptions::default() }).await;
    assert!(listed[0].status.ends_with(" (healthy)"), "{}", listed[0].status);
    // Frozen it is not probed, and counts as unhealthy.
    lab.engine.pause("web").await.unwrap();
    let frozen = health(&lab.engine, "web", |health| health.status == "unhealthy").await;
    lab.engine.unpause("web").await.unwrap();
    health(&lab.engine, "web", |health| health.status == "healthy").await;
    assert!(frozen.log.unwrap().len() <= 5);
    lab.engine.stop("web", StopOptions { timeout: Some(0), signal: None }).await.unwrap();
    assert_eq!(
        heard.until("stop").await,
        [
            "create",
            "start",
            "health_status: unhealthy",
            "health_status: healthy",
            "pause",
            "unpause",
            "health_status: healthy",
            "kill",
            "kill",
            "die",
            "stop"
        ]
    );
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_hangs_is_killed_with_its_children() {
    let lab = Lab::new().await;
    let mut wanted = checked(request(&["sleep", "1000"]), "echo begun; sleep 999; true");
    wanted.config.healthcheck.as_mut().unwrap().timeout = 200 * MILLISECOND;
    lab.create("hung", wanted).await;
    lab.engine.start("hung", None).await.unwrap();
    let health = health(&lab.engine, "hung", |health| health.status == "unhealthy").await;
    let first = &health.log.unwrap()[0];
    assert_eq!(first.exit_code, -1);
    assert!(first.output.starts_with("Health check exceeded timeout (200ms)"), "{}", first.output);
    // At most the probe that runs now has a process left.
    let processes = lab.engine.top("hung", "").await.unwrap().processes;
    let sleeps = processes.iter().filter(|row| row.last().is_some_and(|word| word == "sleep 999")).count();
    assert!(sleeps <= 1, "{processes:?}");
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_cannot_be_run_is_a_failure() {
    let lab = Lab::new().await;
    let mut wanted = checked(request(&["sleep", "1000"]), "");
    wanted.config.healthcheck.as_mut().unwrap().test = Some(vec!["CMD".into(), "nosuch".into()]);
    lab.create("none", wanted).await;
    lab.engine.start("none", None).await.unwrap();
    let health = health(&lab.engine, "none", |health| health.status == "unhealthy").await;
    let first = &health.log.unwrap()[0];
    assert_eq!(first.exit_code, -1);
    assert!(first.output.contains("nosuch"), "{}", first.output);
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_starts_an_unhealthy_container_again() {
    let lab = Lab::new().await;
    let heard = Heard::from(&lab.engine).await;
    let mut wanted = checked(shell("trap 'exit 0' TERM; while :; do sleep 0.02; done"), "exit 1");
    wanted.host_config.restart_policy = RestartPolicy { name: "on-unhealthy".into(), maximum_retry_count: 1 };
    lab.create("sick", wanted).await;
    lab.engine.start("sick", None).await.unwrap();
    assert_eq!(
        heard.until("restart (unhealthy)").await,
        [
            "create",
            "start",
            "health_status: unhealthy",
            "kill (unhealthy)",
            "die",
            "start",
            "restart (unhealthy)"
        ]
    );
    // It was the only restart that the policy has.
    health(&lab.engine, "sick", |health| health.failing_streak > 4).await;
    let state = lab.engine.inspect("sick", false).await.unwrap();
    assert_eq!((state.restart_count, state.state.status.as_str()), (1, "running"));
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probing_goes_on_with_the_next_daemon() {
    let mut lab = Lab::new().await;
    lab.create("web", checked(request(&["sleep", "1000"]), "test -e /tmp/good")).await;
    lab.engine.start("web", None).await.unwrap();
    let before = health(&lab.engine, "web", |health| health.failing_streak > 2).await;
    lab.reopen().await;
    let after = lab.engine.inspect("web", false).await.unwrap().state.health.unwrap();
    assert_eq!(after.status, "unhealthy");
    assert!(after.failing_streak >= before.failing_streak);
    let pid = lab.engine.inspect("web", false).await.unwrap().state.pid;
    std::fs::write(format!("/proc/{pid}/root/tmp/good"), "").unwrap();
    health(&lab.engine, "web", |health| health.status == "healthy").await;
    lab.close().await;
}
