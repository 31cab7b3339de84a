//! Logs on dockerd and on Ponton: what the commands show, and what the API answers, must be equal.
#![allow(clippy::expect_used, reason = "a test program")]

use std::io::Read;
use std::process::{Command, Stdio};

use ponton_testkit::placeholder::{normalised, placeholders};
use ponton_testkit::{Answer, Api, Daemon, Peer, Ran, daemon, wait};
use serde_json::json;

mod log_rows;
use log_rows::{ONCE, PRELUDE, ROWS, Row};

/// Those whose files can be read again.
const DRIVERS: [&str; 2] = ["json-file", "local"];

fn peer() -> Peer {
    Peer::dockerd().unwrap_or_else(|| panic!("dockerd is not installed: run scripts/install-deps.sh test"))
}

/// The scripts of a driver.
fn rows(driver: &str) -> impl Iterator<Item = &'static Row> {
    let once = if driver == DRIVERS[0] { ONCE } else { &[] };
    ROWS.iter().chain(once)
}

/// Runs the scripts with `program`, whose environment `shell` gives, and removes what they made.
fn run_all(program: &str, driver: &str, shell: impl Fn(&[&str]) -> Command) -> Vec<Ran> {
    let run = |script: &str| {
        let script = format!("D='{program}'; L={driver}\n{PRELUDE}\n{script}");
        normalised(&daemon::run(&mut shell(&["-c", &script]), b""))
    };
    let ran = rows(driver).map(|row| run(row.script)).collect();
    run("$D rm -f $($D ps -aq)").ok();
    ran
}

#[test]
fn commands_show_what_dockers_do() {
    let peer = peer();
    let ours = daemon::binaries().join("ponton").to_string_lossy().into_owned();
    // Each client has a daemon of its own: the scripts share names. What a client does, no driver changes.
    let clients = ["docker", &ours].map(|program| (program, Daemon::start()));
    let (mut failures, mut count) = (Vec::new(), 0);
    for (driver, clients) in DRIVERS.iter().zip([&clients[..], &clients[1..]]) {
        let (theirs, mine) = std::thread::scope(|scope| {
            let start = |(program, ponton): &'_ (&'_ str, Daemon)| {
                run_all(program, driver, |args| ponton.client("sh", args))
            };
            let mine: Vec<_> = clients.iter().map(|client| scope.spawn(move || start(client))).collect();
            let theirs = run_all("docker", driver, |args| peer.client("sh", args));
            (theirs, mine.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>())
        });
        for ((program, _), mine) in clients.iter().zip(mine) {
            for ((row, theirs), mine) in rows(driver).zip(&theirs).zip(mine) {
                count += 1;
                let is_same = theirs.code == mine.code
                    && (row.has_other_words || theirs.stderr == mine.stderr)
                    && theirs.stdout == mine.stdout;
                if !is_same {
                    failures.push(format!(
                        "\n--- {program}, {driver}: {}\ndockerd: {theirs:?}\nponton:  {mine:?}",
                        row.script
                    ));
                }
            }
        }
    }
    println!("{count} comparisons of {} scripts", ROWS.len() + ONCE.len());
    assert!(failures.is_empty(), "{} of {count} differ:{}", failures.len(), failures.concat());
}

/// Queries of a log's endpoint.
const QUERIES: &[&str] = &[
    "stdout=1",
    "stdout=true",
    "stderr=1",
    "stdout=1&stderr=1",
    "stdout=1&timestamps=1",
    "stdout=1&details=1",
    "stdout=1&details=1&timestamps=1",
    "stdout=1&follow=1",
    "stderr=1&follow=1&tail=1",
    "stdout=1&tail=0",
    "stdout=1&tail=1",
    "stdout=1&tail=all",
    "stdout=1&tail=",
    "stdout=1&tail=-1",
    "stdout=1&tail=nonsense",
    "stdout=1&tail=1.5",
    "stdout=1&since=0",
    "stdout=1&since=1",
    "stdout=1&since=4102444800",
    "stdout=1&since=1.5",
    "stdout=1&since=-1",
    "stdout=1&since=",
    "stdout=1&since=nonsense",
    "stdout=1&since=1.nonsense",
    "stdout=1&since=1.9999999999999",
    "stdout=1&since=2001-01-01T00:00:00Z",
    "stdout=1&until=0",
    "stdout=1&until=1",
    "stdout=1&until=4102444800",
    "stdout=1&until=",
    "stdout=1&until=nonsense",
    "stdout=1&since=4102444800&until=1",
    "stdout=1&nosuch=1",
    "stdout=nonsense",
    "stdout=1&stderr=nonsense",
    "stdout=0&stderr=false",
    "",
];

/// Containers with a log of each kind.
fn prepare(api: &Api) {
    for (name, driver, tty) in [
        ("json", "json-file", false),
        ("local", "local", false),
        ("both", "local", false),
        ("tty", "json-file", true),
        ("none", "none", false),
    ] {
        let errors = if name == "both" || tty { "echo err >&2;" } else { "" };
        let script = format!("echo out; {errors} echo out2; printf part");
        let body = json!({"Image": "busybox", "Cmd": ["sh", "-c", script], "Tty": tty,
            "Labels": {"a": "1"}, "HostConfig": {"LogConfig": {"Type": driver}}});
        api.post(&format!("/v1.41/containers/create?name={name}"), &body).expect(201);
        api.request("POST", &format!("/v1.41/containers/{name}/start"), None).expect(204);
        api.request("POST", &format!("/v1.41/containers/{name}/wait"), None).expect(200);
    }
}

/// What an answer is: its status, the type of its content, and the frames sorted by their stream.
type Seen = (u16, String, Vec<String>);

fn seen(answer: &Answer, is_framed: bool) -> Seen {
    let kind = answer.head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-type").then(|| value.trim().to_owned())
    });
    let mut shown = Vec::new();
    let mut rest = answer.body.as_slice();
    while is_framed && answer.status == 200 && !rest.is_empty() {
        let [stream, 0, 0, 0, length @ ..] = rest else { panic!("no frame: {rest:?}") };
        let (length, body) = length.split_at(4);
        let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
        let (text, after) = body.split_at(length);
        shown.push(format!("{stream}: {}", placeholders(&String::from_utf8_lossy(text))));
        rest = after;
    }
    shown.sort_by_key(|line| line.as_bytes()[0]);
    shown.push(placeholders(&String::from_utf8_lossy(rest)));
    (answer.status, kind.unwrap_or_default(), shown)
}

#[test]
fn answers_are_framed_and_refused_as_dockers_are() {
    let (peer, ponton) = (peer(), Daemon::start());
    let (theirs, mine) = (peer.api(), ponton.api());
    prepare(&theirs);
    prepare(&mine);
    let (mut failures, mut count) = (Vec::new(), 0);
    for name in ["json", "local", "both", "tty", "none", "nosuch"] {
        // Which of two streams comes last is nobody's to say.
        for query in QUERIES.iter().filter(|query| name != "both" || !query.contains("tail")) {
            let path = format!("/v1.41/containers/{name}/logs?{query}");
            let [theirs, mine] = [&theirs, &mine].map(|api| seen(&api.get(&path), name != "tty"));
            count += 1;
            if !is_answered_alike(theirs.clone(), &mine) {
                failures.push(format!("\n--- {path}\ndockerd: {theirs:?}\nponton:  {mine:?}"));
            }
        }
    }
    println!("{count} answers compared");
    assert!(failures.is_empty(), "{} of {count} differ:{}", failures.len(), failures.concat());
}

/// 20.10 tells no type of a log's content, which is of one type until 1.42; and takes a time that is none for a fault of
/// its own, after it has looked for the container.
fn is_answered_alike(mut theirs: Seen, mine: &Seen) -> bool {
    if mine.2[0].contains("is not a Unix timestamp") {
        return mine.0 == 400 && theirs.0 >= 400;
    }
    if theirs.0 == 200 && theirs.1.is_empty() {
        theirs.1 = "application/vnd.docker.raw-stream".to_owned();
    }
    theirs == *mine
}

#[test]
fn a_type_tells_of_frames_since_1_42() {
    let ponton = Daemon::start();
    prepare(&ponton.api());
    for (version, name, kind) in [
        ("1.41", "json", "raw"),
        ("1.41", "tty", "raw"),
        ("1.42", "json", "multiplexed"),
        ("1.42", "local", "multiplexed"),
        ("1.42", "tty", "raw"),
    ] {
        let answer = ponton.api().get(&format!("/v{version}/containers/{name}/logs?stdout=1")).expect(200);
        let expected = format!("application/vnd.docker.{kind}-stream");
        assert_eq!(seen(&answer, name != "tty").1, expected, "{version} {name}");
    }
}

/// What the next daemon is asked about the logs that the one before had kept.
const AFTERWARDS: &[&str] = &[
    "$D logs lines",
    "$D logs --tail 3 lines",
    "$D logs -f --tail 1 rotated",
    "$D logs --tail 150 rotated | md5sum",
    "$D logs --since 1h rotated | tail -n 1",
    "$D logs unended; $D start -a unended; $D logs unended",
    "$D logs none",
];

#[test]
fn the_next_daemon_shows_the_same() {
    let (mut peer, mut ponton) = (peer(), Daemon::start());
    let prepare = "run --name lines busybox seq 5
        run --name rotated --log-opt max-size=10k --log-opt max-file=3 busybox seq 10000 19999
        run --name unended busybox printf part
        $D run --name none --log-driver none busybox echo x";
    for driver in DRIVERS {
        let script = |script: &str| format!("D=docker; L={driver}\n{PRELUDE}\n{script}");
        let run = |command: &mut Command| normalised(&daemon::run(command, b""));
        let theirs = |peer: &Peer, text: &str| run(&mut peer.client("sh", &["-c", &script(text)]));
        let mine = |ponton: &Daemon, text: &str| run(&mut ponton.client("sh", &["-c", &script(text)]));
        theirs(&peer, prepare).ok();
        mine(&ponton, prepare).ok();
        let whole = "$D logs -t rotated; $D logs -t lines";
        let exactly = |ponton: &Daemon| daemon::run(&mut ponton.client("sh", &["-c", &script(whole)]), b"");
        let before = exactly(&ponton);
        peer.stop();
        peer.time_to_first_answer();
        ponton.kill_and_restart();
        assert_eq!(exactly(&ponton), before, "{driver}");
        for text in AFTERWARDS {
            assert_eq!(mine(&ponton, text), theirs(&peer, text), "{driver}: {text}");
        }
        let remove = "$D rm -f $($D ps -aq) >/dev/null";
        assert_eq!(mine(&ponton, remove), theirs(&peer, remove));
    }
}

#[test]
fn a_follower_ends_with_the_daemon_and_the_next_one_misses_nothing() {
    let mut ponton = Daemon::start();
    // Over some files: those of 20.10 are shown twice here and there.
    let script = "echo 0; until [ -e /go ]; do usleep 5000; done; seq 500; usleep 10000; seq 501 2000";
    for driver in DRIVERS {
        let log = ["--log-driver", driver, "--log-opt", "max-size=30k", "--log-opt", "max-file=9"];
        let container = ["busybox", "sh", "-c", script];
        ponton.ponton(&[&["run", "-d", "--name", driver], &log[..], &container].concat()).ok();
        let mut follower = ponton.client("ponton", &["logs", "-f", driver]);
        let mut follower = follower.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("a follower");
        let mut output = follower.stdout.take().expect("its output");
        let mut first = [0; 2];
        output.read_exact(&mut first).expect("a line");
        assert_eq!(&first, b"0\n");
        ponton.stop();
        wait::until("the follower's end", || follower.try_wait().expect("wait"));
        ponton.spawn();
        let mut next = ponton.client("ponton", &["logs", "-f", driver]);
        let mut next = next.stdout(Stdio::piped()).spawn().expect("the next follower");
        next.stdout.as_mut().expect("its output").read_exact(&mut first).expect("a line");
        ponton.ponton(&["exec", driver, "touch", "/go"]).ok();
        let seen = next.wait_with_output().expect("its end");
        let expected: String = (1..=2000).map(|number| format!("{number}\n")).collect();
        assert_eq!(
            (seen.status.code(), String::from_utf8_lossy(&seen.stdout).into_owned()),
            (Some(0), expected)
        );
    }
}
