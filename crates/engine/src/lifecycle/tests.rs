use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn running(started: i64) -> Life {
    Life { state: State::Running { pid: 7, started_at: at(started), paused: false }, ..Life::default() }
}

fn policy(restart: Restart) -> Policy {
    Policy { restart, ..Policy::default() }
}

fn exit(code: i32, seconds: i64) -> Event {
    Event::Exited { exit_code: Some(code), at: at(seconds), oom_killed: false }
}

#[test]
fn a_run_goes_from_created_to_exited() {
    let life = Life::default();
    let (life, effects) = next(&life, Policy::default(), &Event::Start, at(0)).unwrap();
    assert_eq!(effects, [Effect::Launch]);
    let started = Event::Started { pid: 9, at: at(1) };
    let (life, effects) = next(&life, Policy::default(), &started, at(1)).unwrap();
    assert_eq!(effects, [Effect::Save, Effect::Emit("start")]);
    assert_eq!((life.pid(), life.status()), (Some(9), "running"));
    let (life, effects) = next(&life, Policy::default(), &exit(3, 2), at(2)).unwrap();
    assert_eq!(effects, [Effect::Release, Effect::Save, Effect::Emit("die"), Effect::EmitReleased]);
    assert_eq!(life.status(), "exited");
    assert_eq!(life.last.exit_code, 3);
    assert_eq!(life.last.started_at, Some(at(1)));
    assert_eq!(life.last.finished_at, Some(at(2)));
}

#[test]
fn delays_double_up_to_a_minute_and_begin_anew_after_ten_seconds() {
    let mut life = running(0);
    let mut delays = Vec::new();
    for _ in 0..12 {
        let (after, effects) = next(&life, policy(Restart::Always), &exit(0, 1), at(1)).unwrap();
        let Some(Effect::RestartAfter(delay)) = effects.last() else { panic!("{effects:?}") };
        delays.push(delay.as_millis());
        let started = Event::Started { pid: 7, at: at(0) };
        life = next(&after, Policy::default(), &started, at(0)).unwrap().0;
    }
    assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
    let (life, _) = next(&life, policy(Restart::Always), &exit(0, 10), at(10)).unwrap();
    assert_eq!((life.delay_ms, life.restarts), (100, 13));
}

#[test]
fn policies_decide_on_exit() {
    let cases = [
        (Restart::No, 1, false, "exited"),
        (Restart::OnFailure { max: 0 }, 0, false, "exited"),
        (Restart::OnFailure { max: 0 }, 1, false, "restarting"),
        (Restart::OnFailure { max: 2 }, 1, false, "restarting"),
        (Restart::Always, 0, false, "restarting"),
        (Restart::Always, 0, true, "exited"),
        (Restart::UnlessStopped, 0, false, "restarting"),
        (Restart::UnlessStopped, 1, true, "exited"),
    ];
    for (restart, code, stopped, expected) in cases {
        let mut life = running(0);
        if stopped {
            life = next(&life, policy(restart), &Event::Stop, at(0)).unwrap().0;
        }
        let (life, _) = next(&life, policy(restart), &exit(code, 1), at(1)).unwrap();
        assert_eq!(life.status(), expected, "{restart:?} {code} {stopped}");
    }
    let tired = Life { restarts: 2, ..running(0) };
    let (life, _) = next(&tired, policy(Restart::OnFailure { max: 2 }), &exit(1, 1), at(1)).unwrap();
    assert_eq!(life.status(), "exited");
}

#[test]
fn a_stopped_container_restarts_with_the_daemon_only_under_always() {
    for (restart, stopped, expected) in [
        (Restart::Always, true, "restarting"),
        (Restart::UnlessStopped, true, "exited"),
        (Restart::UnlessStopped, false, "restarting"),
        (Restart::No, false, "exited"),
    ] {
        let life = Life { state: State::Exited, manually_stopped: stopped, ..Life::default() };
        let (life, _) = next(&life, policy(restart), &Event::Recovered, at(0)).unwrap();
        assert_eq!(life.status(), expected, "{restart:?} {stopped}");
    }
}

#[test]
fn auto_remove_follows_an_exit_and_a_failed_start() {
    let policy = Policy { auto_remove: true, ..Policy::default() };
    let (life, effects) = next(&running(0), policy, &exit(0, 1), at(1)).unwrap();
    assert_eq!(life.state, State::Removing);
    assert_eq!(
        effects,
        [Effect::Release, Effect::Show, Effect::Emit("die"), Effect::EmitReleased, Effect::Remove]
    );
    let failed = Event::StartFailed { exit_code: 127, error: "no such file".into() };
    let (life, effects) = next(&Life::default(), policy, &failed, at(1)).unwrap();
    assert_eq!(life.last.exit_code, 127);
    assert_eq!(effects, [Effect::Release, Effect::Save, Effect::EmitReleased, Effect::Remove]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let paused = next(&running(0), Policy::default(), &Event::Pause, at(0)).unwrap().0;
    let exited = Life { state: State::Exited, ..Life::default() };
    let removing = Life { state: State::Removing, ..Life::default() };
    let cases = [
        (&running(0), Event::Start, Refusal::AlreadyStarted),
        (&paused, Event::Start, Refusal::StartPaused),
        (&removing, Event::Start, Refusal::MarkedForRemoval),
        (&exited, Event::Stop, Refusal::NotRunning),
        (&exited, Event::Pause, Refusal::NotRunning),
        (&paused, Event::Pause, Refusal::AlreadyPaused),
        (&running(0), Event::Unpause, Refusal::NotPaused),
        (&running(0), Event::Remove { force: false }, Refusal::RemoveRunning),
        (&paused, Event::Remove { force: false }, Refusal::RemovePaused),
        (&removing, Event::Remove { force: true }, Refusal::RemovalInProgress),
    ];
    for (life, event, refusal) in cases {
        assert_eq!(next(life, Policy::default(), &event, at(0)).unwrap_err(), refusal, "{event:?}");
    }
}

#[test]
fn an_exit_code_that_was_lost_is_said_to_be() {
    let event = Event::Exited { exit_code: None, at: at(1), oom_killed: false };
    let (life, _) = next(&running(0), Policy::default(), &event, at(1)).unwrap();
    assert_eq!(life.last.exit_code, UNKNOWN_EXIT_CODE);
    assert!(life.last.error.contains("lost"));
}

#[test]
fn an_unhealthy_container_is_ended_and_started_again_where_its_policy_says_so() {
    let wants = Policy { restart: Restart::OnFailure { max: 1 }, on_unhealthy: true, auto_remove: false };
    let sick = Event::Unhealthy { was_healthy: false };
    for restart in [Restart::No, Restart::OnFailure { max: 0 }, Restart::Always] {
        assert_eq!(next(&running(0), policy(restart), &sick, at(9)).unwrap(), (running(0), vec![]));
    }
    let (life, effects) = next(&running(0), wants, &sick, at(9)).unwrap();
    assert_eq!(effects, [Effect::Save, Effect::EndUnhealthy]);
    // The next probe may find it unhealthy while it ends.
    assert_eq!(next(&life, wants, &sick, at(9)).unwrap(), (life.clone(), vec![]));
    let (ended, effects) = next(&life, wants, &exit(0, 20), at(20)).unwrap();
    assert_eq!((ended.status(), ended.restarts), ("restarting", 1));
    assert!(matches!(effects.last(), Some(Effect::RestartAfter(_))), "{effects:?}");
    let started = Event::Started { pid: 8, at: at(21) };
    let (again, effects) = next(&ended, wants, &started, at(21)).unwrap();
    assert_eq!(effects, [Effect::Save, Effect::Emit("start"), Effect::EmitRestart]);
    // It was the only restart that the policy has.
    assert_eq!(next(&again, wants, &sick, at(30)).unwrap().1, []);
    // Whoever stops it meanwhile gets it stopped.
    let stopped = next(&life, wants, &Event::Stop, at(10)).unwrap().0;
    let (stopped, _) = next(&stopped, wants, &exit(143, 11), at(11)).unwrap();
    assert_eq!((stopped.status(), stopped.unhealthy), ("exited", None));
}

#[test]
fn delays_grow_while_a_container_never_gets_healthy() {
    let wants = Policy { restart: Restart::Always, on_unhealthy: true, auto_remove: false };
    for (was_healthy, expected) in [(false, [100, 200, 400]), (true, [100, 100, 100])] {
        let mut life = running(0);
        for delay in expected {
            let sick = next(&life, wants, &Event::Unhealthy { was_healthy }, at(90)).unwrap().0;
            let ended = next(&sick, wants, &exit(143, 95), at(95)).unwrap().0;
            assert_eq!(ended.delay_ms, delay, "{was_healthy}");
            life = next(&ended, wants, &Event::Started { pid: 8, at: at(0) }, at(0)).unwrap().0;
        }
    }
}

#[test]
fn a_frozen_container_is_thawed_to_be_killed() {
    let frozen = next(&running(0), Policy::default(), &Event::Pause, at(0)).unwrap().0;
    let (life, effects) = next(&frozen, Policy::default(), &Event::Remove { force: true }, at(1)).unwrap();
    assert_eq!(effects, [Effect::Save, Effect::KillAndRemove, Effect::Thaw, Effect::Emit("unpause")]);
    assert!(!life.is_paused());
    let (_, effects) = next(&running(0), Policy::default(), &Event::Remove { force: true }, at(1)).unwrap();
    assert_eq!(effects, [Effect::Save, Effect::KillAndRemove]);
}
