//! The same commands and API calls on dockerd and on Ponton: exit code, output and answers must be equal.
//!
//! Each script runs three times: docker's command line on dockerd, docker's command line on Ponton, and Ponton's own
//! command line on Ponton. What may differ is named in [`COMMANDS`] and [`MAY_DIFFER`], with why.

use std::collections::BTreeSet;
use std::io::Read;
use std::process::Command;

use ponton_testkit::placeholder::{normalised, placeholders};
use ponton_testkit::{Answer, Api, Daemon, Peer, Ran, daemon};
use serde_json::{Value, json};

#[path = "differential/mod.rs"]
mod table;

mod commands;
use commands::{COMMANDS, Compare};

/// Paths of JSON answers that may differ, and why. `*` stands for one array index or key.
const MAY_DIFFER: &[(&str, &str)] = &[
    ("Id", "random, or a digest over the time of creation"),
    ("ID", "random"),
    ("*.Id", "random"),
    ("*.ImageID", "a digest over the time of creation"),
    ("Image", "a digest over the time of creation"),
    ("*.Image", "a digest when the image was untagged"),
    ("Created", "a time"),
    ("*.Created", "a time"),
    ("*.Status", "holds a duration"),
    ("State.Pid", "a process id"),
    ("State.StartedAt", "a time"),
    ("State.FinishedAt", "a time"),
    ("Pid", "a process id"),
    ("ContainerID", "random"),
    ("Mounts.*.Source", "the data root"),
    ("*.Mounts.*.Source", "the data root"),
    ("Mountpoint", "the data root"),
    ("Volumes.*.Mountpoint", "the data root"),
    ("CreatedAt", "a time"),
    ("Volumes.*.CreatedAt", "a time"),
    ("ResolvConfPath", "the data root"),
    ("HostnamePath", "the data root"),
    ("HostsPath", "the data root"),
    ("LogPath", "the data root"),
    ("AppArmorProfile", "dockerd 20.10 says docker-default where AppArmor is on"),
    ("GraphDriver.Data", "paths of the snapshotter"),
    ("GraphDriver.Data.*", "paths of the snapshotter"),
    ("GraphDriver.Name", "dockerd says overlay2 for the kernel's overlayfs"),
    ("Driver", "dockerd says overlay2 for the kernel's overlayfs"),
    ("Config.Hostname", "the random id"),
    (
        "HostConfig.CgroupnsMode",
        "dockerd 20.10 takes the host's cgroup namespace on cgroup v1; ours is always private",
    ),
    ("NetworkSettings.SandboxID", "random"),
    ("NetworkSettings.SandboxKey", "where the namespace is kept: ours is held by descriptor"),
    ("NetworkSettings.EndpointID", "random"),
    ("NetworkSettings.IPAddress", "the next of the pool"),
    ("NetworkSettings.Gateway", "the pool"),
    ("NetworkSettings.MacAddress", "made of the address"),
    ("NetworkSettings.Networks.*.NetworkID", "random"),
    ("NetworkSettings.Networks.*.EndpointID", "random"),
    ("NetworkSettings.Networks.*.IPAddress", "the next of the pool"),
    ("NetworkSettings.Networks.*.Gateway", "the pool"),
    ("NetworkSettings.Networks.*.MacAddress", "made of the address"),
    ("*.NetworkSettings.Networks.*.NetworkID", "random"),
    ("*.NetworkSettings.Networks.*.EndpointID", "random"),
    ("*.NetworkSettings.Networks.*.IPAddress", "the next of the pool"),
    ("*.NetworkSettings.Networks.*.Gateway", "the pool"),
    ("*.NetworkSettings.Networks.*.MacAddress", "made of the address"),
    ("DockerVersion", "the version of the engine"),
    ("ContainerConfig", "20.10 keeps the build container's configuration in an image; later versions do not"),
    (
        "ContainerConfig.*",
        "20.10 keeps the build container's configuration in an image; later versions do not",
    ),
    ("Container", "20.10 names the build container; later versions do not"),
    ("Comment", "names the program that imported"),
    ("*.Comment", "names the program that imported"),
    ("Metadata.LastTagTime", "a time"),
    ("RootFS.Layers.*", "a digest of what was imported"),
    ("Processes.*.*", "process ids and times"),
    ("Warning", "absent in newer versions"),
    ("HostConfig.MaskedPaths", "later versions mask more"),
    ("HostConfig.Runtime", "the runtime's name"),
    ("HostConfig.RestartPolicy.Name", "empty for no until 25.0"),
    ("Error", "null until 23.0 where there was no error in waiting; left out later"),
    ("*.RepoDigests", "null until 25.0 where there is none"),
];

/// A status and a message.
type Told = (u16, &'static str);

/// Whole answers where 20.10 is out of date: the call, what 20.10 answers, what ours answers (which is today's).
const OUT_OF_DATE: &[(&str, Told, Told)] = &[
    // A wrong type is the client's fault since 23.0, and the type is named as in today's API.
    (
        "/v1.41/containers/create?name=api2",
        (
            500,
            "json: cannot unmarshal number into Go struct field ContainerConfigWrapper.Image of type string",
        ),
        (400, "invalid JSON: json: cannot unmarshal number into Go struct field Config.Image of type string"),
    ),
    // Error texts begin with a small letter since 23.0.
    (
        "/v1.41/containers/json?filters=%7B%22nosuch%22%3A%5B%22a%22%5D%7D",
        (400, "Invalid filter 'nosuch'"),
        (400, "invalid filter 'nosuch'"),
    ),
    // Said twice until 23.0.
    (
        "/v1.41/images/nosuch/json",
        (404, "no such image: nosuch: No such image: nosuch:latest"),
        (404, "No such image: nosuch:latest"),
    ),
    // The client's fault, and the name is told, since 24.0.
    (
        "/v1.41/images/busybox/tag?repo=UPPER&tag=1",
        (500, "invalid reference format: repository name must be lowercase"),
        (400, "invalid reference format: repository name (library/UPPER) must be lowercase"),
    ),
    // The versions that are served.
    (
        "/v1.99/version",
        (400, "client version 1.99 is too new. Maximum supported API version is 1.41"),
        (400, "client version 1.99 is too new. Maximum supported API version is 1.53"),
    ),
    (
        "/v1.10/version",
        (
            400,
            "client version 1.10 is too old. Minimum supported API version is 1.12, please upgrade your client to a newer version",
        ),
        (
            400,
            "client version 1.10 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version",
        ),
    ),
];

#[test]
fn commands_and_answers_are_dockers() {
    let Some(peer) = Peer::dockerd() else {
        panic!("dockerd is not installed: run scripts/install-deps.sh test");
    };
    let ours = daemon::binaries().join("ponton");
    // Each client has a daemon of its own: the scripts share names and ports.
    let clients = [("docker", "docker".to_owned()), ("ponton", ours.to_string_lossy().into_owned())];
    let clients = clients.map(|(client, program)| (client, program, Daemon::start()));
    let mut failures = Vec::new();
    let mut count = 0;
    for command in COMMANDS {
        let script = |client: &str| format!("D={client}; {}", command.script);
        let theirs = normalised(&run(peer.client("sh", &["-c", &script("docker")])));
        for (client, program, ponton) in &clients {
            if command.compare == Compare::DockerClientOnly && *client == "ponton" {
                continue;
            }
            count += 1;
            let mine = normalised(&run(ponton.client("sh", &["-c", &script(program)])));
            if let Some(difference) = difference(command.compare, &theirs, &mine) {
                failures.push(format!("{client}: {}\n{difference}", command.script));
            }
        }
    }
    println!("{count} comparisons of {} commands", COMMANDS.len());
    let shown: String = failures.iter().map(|f| format!("\n--- {f}")).collect();
    assert!(failures.is_empty(), "{} of {count} differ:{shown}", failures.len());
}

fn run(mut command: Command) -> Ran {
    daemon::run(&mut command, b"from stdin\n")
}

fn difference(compare: Compare, theirs: &Ran, mine: &Ran) -> Option<String> {
    let equal = theirs.code == mine.code
        && (compare == Compare::ExitCode || theirs.stdout == mine.stdout)
        && (compare != Compare::All || theirs.stderr == mine.stderr);
    (!equal).then(|| {
        format!(
            "dockerd: exit {} stdout {:?} stderr {:?}\nponton:  exit {} stdout {:?} stderr {:?}",
            theirs.code, theirs.stdout, theirs.stderr, mine.code, mine.stdout, mine.stderr
        )
    })
}

/// One API call: method, path, body.
type Call = (&'static str, &'static str, Option<Value>);

#[allow(clippy::too_many_lines)]
fn calls() -> Vec<Call> {
    let sleeper = json!({"Image": "busybox", "Cmd": ["sleep", "1000"], "Labels": {"a": "b"}, "HostConfig": {"Memory": 67_108_864, "PidsLimit": 20}});
    vec![
        ("GET", "/_ping", None),
        ("GET", "/v1.41/containers/json?all=1", None),
        ("POST", "/v1.41/containers/create?name=api1", Some(sleeper.clone())),
        ("POST", "/v1.41/containers/create?name=api1", Some(sleeper)),
        ("POST", "/v1.41/containers/create?name=b!d", Some(json!({"Image": "busybox"}))),
        ("POST", "/v1.41/containers/create?name=api2", Some(json!({"Image": "nosuch"}))),
        ("POST", "/v1.41/containers/create?name=api2", Some(json!({"Image": 5}))),
        (
            "POST",
            "/v1.41/containers/create?name=api2",
            Some(json!({"Image": "busybox", "HostConfig": {"Memory": 1024}})),
        ),
        (
            "POST",
            "/v1.41/containers/create?name=api2",
            Some(json!({"Image": "busybox", "HostConfig": {"CapAdd": ["NOSUCH"]}})),
        ),
        (
            "POST",
            "/v1.41/containers/create?name=api2",
            Some(json!({"Image": "busybox", "HostConfig": {"RestartPolicy": {"Name": "sometimes"}}})),
        ),
        ("GET", "/v1.41/containers/api1/json", None),
        ("POST", "/v1.41/containers/api1/start", None),
        ("POST", "/v1.41/containers/api1/start", None),
        ("GET", "/v1.41/containers/api1/json", None),
        ("GET", "/v1.41/containers/json", None),
        ("GET", "/v1.41/containers/json?filters=%7B%22label%22%3A%5B%22a%3Db%22%5D%7D", None),
        ("GET", "/v1.41/containers/json?filters=%7B%22nosuch%22%3A%5B%22a%22%5D%7D", None),
        ("GET", "/v1.41/containers/api1/top", None),
        ("POST", "/v1.41/containers/api1/pause", None),
        ("POST", "/v1.41/containers/api1/pause", None),
        ("GET", "/v1.41/containers/api1/json", None),
        ("POST", "/v1.41/containers/api1/unpause", None),
        ("POST", "/v1.41/containers/api1/exec", Some(json!({"Cmd": ["true"], "AttachStdout": true}))),
        ("POST", "/v1.41/containers/api1/exec", Some(json!({"AttachStdout": true}))),
        ("POST", "/v1.41/containers/nosuch/exec", Some(json!({"Cmd": ["true"]}))),
        ("GET", "/v1.41/exec/nosuch/json", None),
        ("DELETE", "/v1.41/containers/api1", None),
        ("POST", "/v1.41/containers/api1/kill?signal=NOSUCH", None),
        ("POST", "/v1.41/containers/api1/kill?signal=KILL", None),
        ("POST", "/v1.41/containers/api1/wait", None),
        ("POST", "/v1.41/containers/api1/kill?signal=KILL", None),
        ("POST", "/v1.41/containers/api1/stop", None),
        ("POST", "/v1.41/containers/api1/pause", None),
        ("POST", "/v1.41/containers/api1/rename?name=api3", None),
        ("POST", "/v1.41/containers/api3/rename?name=", None),
        ("GET", "/v1.41/containers/api3/json", None),
        ("GET", "/v1.41/containers/nosuch/json", None),
        ("GET", "/v1.41/containers/nosuch/logs?stdout=1", None),
        ("GET", "/v1.41/containers/api3/logs", None),
        ("POST", "/v1.41/containers/nosuch/start", None),
        ("DELETE", "/v1.41/containers/api3", None),
        ("DELETE", "/v1.41/containers/api3", None),
        ("GET", "/v1.41/images/json", None),
        ("GET", "/v1.41/images/busybox/json", None),
        ("GET", "/v1.41/images/nosuch/json", None),
        ("GET", "/v1.41/images/busybox/history", None),
        ("POST", "/v1.41/images/busybox/tag?repo=other&tag=1", None),
        ("POST", "/v1.41/images/busybox/tag?repo=UPPER&tag=1", None),
        ("DELETE", "/v1.41/images/other:1", None),
        ("DELETE", "/v1.41/images/nosuch", None),
        ("GET", "/v1.41/volumes", None),
        ("GET", "/v1.41/volumes/nosuch", None),
        ("GET", "/v1.41/networks/nosuch", None),
        ("GET", "/v1.41/nosuch", None),
        ("GET", "/v1.99/version", None),
        ("GET", "/v1.10/version", None),
    ]
}

#[test]
fn api_answers_have_dockers_shape() {
    let Some(peer) = Peer::dockerd() else {
        panic!("dockerd is not installed: run scripts/install-deps.sh test");
    };
    let ponton = Daemon::start();
    let mut failures = Vec::new();
    let calls = calls();
    for (method, path, body) in &calls {
        let theirs = peer.api().request(method, path, body.as_ref());
        let mine = ponton.api().request(method, path, body.as_ref());
        if is_out_of_date(path, &theirs, &mine) {
            continue;
        }
        let found = answer_differences(&theirs, &mine);
        if !found.is_empty() {
            failures.push(format!(
                "\n--- {method} {path} {}\n{}",
                body.as_ref().map_or(String::new(), Value::to_string),
                found.join("\n")
            ));
        }
    }
    println!("{} calls compared", calls.len());
    assert!(failures.is_empty(), "{} of {} calls differ:{}", failures.len(), calls.len(), failures.concat());
}

fn is_out_of_date(path: &str, theirs: &Answer, mine: &Answer) -> bool {
    let answer = |answer: &Answer| (answer.status, error_text(answer));
    OUT_OF_DATE.iter().any(|(call, old, new)| {
        *call == path
            && answer(theirs) == (old.0, old.1.to_owned())
            && answer(mine) == (new.0, new.1.to_owned())
    })
}

/// The message of an error; as plain text, as before API 1.24, too.
fn error_text(answer: &Answer) -> String {
    let message = |value: Value| value.get("message").and_then(Value::as_str).map(str::to_owned);
    let parsed = serde_json::from_slice(&answer.body).ok().and_then(message);
    parsed.unwrap_or_else(|| answer.text().trim_end().to_owned())
}

fn answer_differences(theirs: &Answer, mine: &Answer) -> Vec<String> {
    if theirs.status != mine.status {
        return vec![format!(
            "status {} ({}) against our {} ({})",
            theirs.status,
            theirs.text(),
            mine.status,
            mine.text()
        )];
    }
    let (Ok(a), Ok(b)) = (serde_json::from_slice(&theirs.body), serde_json::from_slice(&mine.body)) else {
        let (a, b) = (placeholders(&theirs.text()), placeholders(&mine.text()));
        return if a == b { vec![] } else { vec![format!("{a:?} against our {b:?}")] };
    };
    let mut found = Vec::new();
    json_differences(&mut Vec::new(), &a, &b, &mut found);
    found
}

/// Keys that only ours has are what later API versions added; a key that only theirs has is a difference.
fn json_differences(path: &mut Vec<String>, theirs: &Value, mine: &Value, found: &mut Vec<String>) {
    if may_differ(path) {
        return;
    }
    match (theirs, mine) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().collect();
            for key in keys {
                path.push(key.clone());
                match b.get(key) {
                    Some(value) => json_differences(path, &a[key], value, found),
                    None if may_differ(path) => {}
                    None => found.push(format!("{}: {} is missing in ours", path.join("."), a[key])),
                }
                path.pop();
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                path.push(index.to_string());
                json_differences(path, a, b, found);
                path.pop();
            }
        }
        (Value::String(a), Value::String(b)) if placeholders(a) == placeholders(b) => {}
        (a, b) if a == b => {}
        (a, b) => found.push(format!("{}: {a} against our {b}", path.join("."))),
    }
}

fn may_differ(path: &[String]) -> bool {
    MAY_DIFFER.iter().any(|(pattern, _)| {
        let parts: Vec<&str> = pattern.split('.').collect();
        parts.len() == path.len() && parts.iter().zip(path).all(|(p, k)| *p == "*" || p == k)
    })
}

/// What of the answers to one call differs without a reason.
fn call_differences(call: &table::Call, theirs: &Answer, mine: &Answer) -> Vec<String> {
    let told = |answer: &Answer| format!("{} {}", answer.status, placeholders(&error_text(answer)));
    let differ = |why: &str| vec![format!("{why}\ndockerd: {}\nponton:  {}", told(theirs), told(mine))];
    // Later versions say of many an error that it is the client's fault, as it is.
    let is_blamed = theirs.status == 500 && (400..500).contains(&mine.status);
    if mine.status >= 500 || (theirs.status != mine.status && !is_blamed && !call.may_differ) {
        return differ("status");
    }
    if mine.status >= 400 && call.method != "HEAD" {
        let message = |answer: &Answer| placeholders(&error_text(answer)).trim().to_ascii_lowercase();
        if message(mine).is_empty() {
            return differ("no message");
        }
        let is_same =
            is_blamed || call.has_other_words || call.may_differ || message(theirs) == message(mine);
        return if is_same { Vec::new() } else { differ("message") };
    }
    if call.may_differ {
        return Vec::new();
    }
    answer_differences(theirs, mine)
}

#[test]
fn calls_of_containers_and_volumes() {
    let Some(peer) = Peer::dockerd() else {
        panic!("dockerd is not installed: run scripts/install-deps.sh test");
    };
    let ponton = Daemon::start();
    let ask = |api: &Api, call: &table::Call| {
        let headers = format!("{}Connection: close\r\n", call.headers);
        let mut stream = api.open(&call.method, &call.path, &headers, &call.body).expect("a connection");
        let mut all = Vec::new();
        let read = stream.read_to_end(&mut all);
        // A connection that is closed with unread bytes breaks after the answer.
        assert!(read.is_ok() || !all.is_empty(), "{} {}: {read:?}", call.method, call.path);
        if call.method == "HEAD" {
            // Its length is that of a body that doesn't come.
            let end = all.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
            let head =
                String::from_utf8_lossy(&all[..end]).to_ascii_lowercase().replace("content-length", "length");
            all = format!("{head}\r\n\r\n").into_bytes();
        }
        Answer::parse(&all)
            .unwrap_or_else(|| panic!("{} {}: {:?}", call.method, call.path, String::from_utf8_lossy(&all)))
    };
    let (mut failures, mut unbuilt) = (Vec::new(), 0);
    let calls = table::calls();
    for call in &calls {
        let (theirs, mine) = (ask(&peer.api(), call), ask(&ponton.api(), call));
        // What one takes and the other doesn't is in nobody's way afterwards.
        for api in [peer.api(), ponton.api()] {
            let _ = api.try_request("DELETE", "/containers/bad?force=1", None);
        }
        if mine.status == 501 {
            unbuilt += 1;
            continue;
        }
        let found = call_differences(call, &theirs, &mine);
        if !found.is_empty() {
            let body = String::from_utf8_lossy(&call.body);
            failures.push(format!("\n--- {} {} {body}\n{}", call.method, call.path, found.join("\n")));
        }
    }
    println!("{} calls compared, {unbuilt} of them not built yet", calls.len());
    assert!(failures.is_empty(), "{} of {} calls differ:{}", failures.len(), calls.len(), failures.concat());
}

#[test]
fn a_prefix_of_two_ids_is_ambiguous() {
    let Some(peer) = Peer::dockerd() else {
        panic!("dockerd is not installed: run scripts/install-deps.sh test");
    };
    let ponton = Daemon::start();
    let told = |api: &Api| {
        // Of seventeen, two begin with the same digit.
        let ids = (0..17).map(|_| {
            let made = api.post("/v1.41/containers/create", &json!({"Image": "busybox", "Cmd": ["true"]}));
            made.expect(201).json()["Id"].as_str().expect("an id").to_owned()
        });
        let ids: Vec<String> = ids.collect();
        let shared = ids
            .iter()
            .map(|id| &id[..1])
            .find(|digit| ids.iter().filter(|id| id.starts_with(digit)).count() > 1);
        let prefix = shared.expect("two of seventeen").to_owned();
        let paths = [
            ("GET", "json"),
            ("POST", "start"),
            ("POST", "stop"),
            ("GET", "logs?stdout=1"),
            ("POST", "wait"),
            ("GET", "top"),
        ];
        let told = paths.map(|(method, path)| {
            let answer = api.request(method, &format!("/v1.41/containers/{prefix}/{path}"), None);
            (path, answer.status, error_text(&answer).replace(&prefix, "PREFIX"))
        });
        let whole = api.get(&format!("/v1.41/containers/{}/json", &ids[0][..12])).status;
        (told, whole)
    };
    let mine = told(&ponton.api());
    println!("{mine:?}");
    assert!(
        mine.0.iter().all(|(_, status, message)| *status == 400 && message.contains("PREFIX")),
        "{mine:?}"
    );
    assert_eq!(mine.1, 200);
    println!("dockerd: {:?}", told(&peer.api()));
}
