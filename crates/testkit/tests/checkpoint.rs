//! Checkpoints of the daemon's containers: with a stand-in for CRIU, which works on few kernels; and with CRIU
//! itself, where it does.
#![allow(clippy::expect_used, reason = "a test program")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use ponton_testkit::{Api, Daemon, Namespace, image, leak, wait};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Counts on from its argument, in its output and in a file; ends with the code that it is told.
const PROGRAM: &str = "i=$1
while :; do
    i=$((i + 1))
    echo line $i
    echo $i >/data/next
    mv /data/next /data/count
    [ ! -e /data/end ] || { code=$(cat /data/end); rm /data/end; exit $code; }
    sleep 0.02
done
";

/// A daemon whose CRIU is the stand-in, and a container `box` that counts.
struct Counting {
    daemon: Daemon,
    directory: TempDir,
}

impl Counting {
    fn new(restart: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("ponton-criu-").tempdir().expect("a directory");
        let stand_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoint/criu.sh");
        let criu = directory.path().join("criu");
        fs::copy(stand_in, &criu).expect("the stand-in");
        fs::set_permissions(&criu, fs::Permissions::from_mode(0o755)).expect("chmod");
        let script = format!("export PATH=\"{}:$PATH\"", directory.path().display());
        Self::with(directory, restart, Some(&script))
    }

    fn with(directory: TempDir, restart: &str, script: Option<&str>) -> Self {
        let data = directory.path().join("data");
        fs::create_dir(&data).expect("mkdir");
        fs::write(data.join("program"), PROGRAM).expect("write");
        let daemon = Daemon::start_in(Namespace::new(), &["--experimental"], script);
        daemon.ponton(&["image", "import", &image::busybox().to_string_lossy(), "busybox"]).ok();
        let bind = format!("{}:/data", data.display());
        let host = json!({"Binds": [bind], "RestartPolicy": {"Name": restart}});
        let body = json!({"Image": "busybox", "Cmd": ["sh", "/data/program", "0"], "HostConfig": host});
        daemon.api().post("/containers/create?name=box", &body).expect(201);
        let counting = Self { daemon, directory };
        counting.start("").expect(204);
        counting.count_after(2);
        counting
    }

    fn api(&self) -> Api {
        self.daemon.api()
    }

    fn start(&self, query: &str) -> ponton_testkit::Answer {
        self.api().request("POST", &format!("/containers/box/start{query}"), None)
    }

    fn save(&self, name: &str, exit: bool) -> ponton_testkit::Answer {
        self.api().post("/containers/box/checkpoints", &json!({"CheckpointID": name, "Exit": exit}))
    }

    fn data(&self, name: &str) -> PathBuf {
        self.directory.path().join("data").join(name)
    }

    /// A file that tells the stand-in what to do.
    fn tell(&self, name: &str) {
        fs::write(self.directory.path().join(name), "").expect("write");
    }

    fn tell_no_more(&self, name: &str) {
        fs::remove_file(self.directory.path().join(name)).expect("remove");
    }

    /// Waits until it has counted further than `from`; how far.
    #[track_caller]
    fn count_after(&self, from: u32) -> u32 {
        wait::until(&format!("a count beyond {from}"), || {
            let text = fs::read_to_string(self.data("count")).unwrap_or_default();
            text.trim().parse().ok().filter(|count| *count > from)
        })
    }

    fn inspect(&self) -> Value {
        self.api().get("/containers/box/json").expect(200).json()
    }

    /// Waits until it is in this state.
    #[track_caller]
    fn until_state(&self, status: &str) -> Value {
        wait::until(status, || Some(self.inspect()).filter(|shown| shown["State"]["Status"] == status))
    }

    fn checkpoints(&self) -> Value {
        self.api().get("/containers/box/checkpoints").expect(200).json()
    }

    /// Where they are.
    fn directory_of_checkpoints(&self) -> PathBuf {
        let id = self.inspect()["Id"].as_str().expect("an id").to_owned();
        self.daemon.path("data").join("containers").join(id).join("checkpoints")
    }

    /// What is there, listed or not.
    fn on_disk(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory_of_checkpoints()).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// The numbers of the lines that it has logged.
    fn lines(&self) -> Vec<u32> {
        let logs = self.daemon.ponton(&["logs", "box"]).ok();
        let numbers = logs.lines().filter_map(|line| line.strip_prefix("line "));
        numbers.filter_map(|number| number.parse().ok()).collect()
    }
}

/// The actions of a container's events.
fn actions(api: &Api) -> Vec<String> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time");
    let until = format!("{}.{:09}", now.as_secs(), now.subsec_nanos());
    let events =
        api.get(&format!("/events?since=0&until={until}&filters=%7B%22type%22:%5B%22container%22%5D%7D"));
    let events = events.expect(200).text();
    let parsed = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    parsed.filter_map(|event| event["Action"].as_str().map(str::to_owned)).collect()
}

#[test]
fn a_container_goes_on_where_it_was_saved() {
    let counting = Counting::new("always");
    counting.save("first", true).expect(201);
    // Its policy does not start it: it was ended on purpose.
    let ended = counting.until_state("exited");
    assert_eq!((&ended["State"]["ExitCode"], &ended["RestartCount"]), (&json!(137), &json!(0)));
    assert_eq!(counting.checkpoints(), json!([{"Name": "first"}]));
    assert_eq!(counting.on_disk(), ["first"]);
    let calls = fs::read_to_string(counting.directory.path().join("calls")).expect("calls");
    let dump = calls.lines().find(|call| call.starts_with("dump ")).expect("a dump");
    for told in
        ["--leave-running", "--external net[", "]:extRootNetNS", "--freeze-cgroup ", "mnt[/data]:/data"]
    {
        assert!(dump.contains(told), "{told}: {dump}");
    }
    assert!(counting.save("second", true).expect(409).text().contains("is not running"));
    counting.start("?checkpoint=nosuch").expect(404);

    let saved = counting.count_after(0);
    counting.daemon.ponton(&["start", "--checkpoint", "first", "box"]).ok();
    counting.count_after(saved + 1);
    // It is one of ours like any other.
    let shown = counting.until_state("running");
    let address =
        shown["NetworkSettings"]["Networks"]["bridge"]["IPAddress"].as_str().expect("an address").to_owned();
    let seen = counting.daemon.ponton(&["exec", "box", "ip", "address", "show", "eth0"]).ok();
    assert!(!address.is_empty() && seen.contains(&address), "{address}: {seen}");
    let id = shown["Id"].as_str().expect("an id");
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", shown["State"]["Pid"])).expect("cgroup");
    assert!(groups.contains(id), "{groups}");
    counting.start("?checkpoint=first").expect(304);
    counting.daemon.ponton(&["pause", "box"]).ok();
    counting.daemon.ponton(&["unpause", "box"]).ok();
    assert!(counting.save("first", false).expect(409).text().contains("already exists"));

    // Its end is seen, and its policy starts it anew.
    let before = counting.count_after(saved);
    fs::write(counting.data("end"), "7").expect("write");
    wait::until("a restart", || Some(()).filter(|()| counting.inspect()["RestartCount"] == 1));
    wait::until("a count from the beginning", || {
        let text = fs::read_to_string(counting.data("count")).unwrap_or_default();
        text.trim().parse().ok().filter(|count: &u32| *count < before)
    });
    counting.daemon.ponton(&["stop", "-t", "0", "box"]).ok();
    let lines = counting.lines();
    let falls: Vec<&[u32]> = lines.windows(2).filter(|pair| pair[1] != pair[0] + 1).collect();
    // The restore repeats at most the line that was being counted; the restart begins anew.
    let (again, anew): (Vec<&[u32]>, Vec<&[u32]>) = falls.iter().partition(|pair| pair[1] == pair[0]);
    assert!(again.len() <= 1 && anew.len() == 1 && anew[0][1] == 1, "{falls:?}");
    let events = actions(&counting.api());
    let count = |action: &str| events.iter().filter(|other| *other == action).count();
    assert_eq!((count("checkpoint"), count("start"), count("die")), (1, 3, 3), "{events:?}");
    assert_eq!((count("pause"), count("unpause")), (1, 1), "{events:?}");

    counting.daemon.ponton(&["checkpoint", "rm", "box", "first"]).ok();
    assert_eq!(counting.checkpoints(), json!([]));
    assert!(counting.on_disk().is_empty());
    counting.start("?checkpoint=first").expect(404);
}

#[test]
fn a_checkpoint_may_be_elsewhere_and_leave_its_container_running() {
    let counting = Counting::new("no");
    let elsewhere = counting.directory.path().join("elsewhere");
    let elsewhere = elsewhere.to_str().expect("text");
    let create = ["checkpoint", "create", "--leave-running", "--checkpoint-dir", elsewhere, "box", "first"];
    assert_eq!(counting.daemon.ponton(&create).ok(), "first");
    counting.count_after(counting.count_after(0));
    // One that a user has frozen is saved as it stands, and stays so.
    counting.daemon.ponton(&["pause", "box"]).ok();
    counting.save("paused", false).expect(201);
    assert_eq!(counting.inspect()["State"]["Status"], "paused");
    counting.save("ended", true).expect(201);
    assert_eq!(counting.until_state("exited")["State"]["ExitCode"], 137);
    assert_eq!(counting.checkpoints(), json!([{"Name": "ended"}, {"Name": "paused"}]));
    let list = counting.daemon.ponton(&["checkpoint", "ls", "--checkpoint-dir", elsewhere, "box"]).ok();
    assert_eq!(list, "CHECKPOINT NAME\nfirst");
    let start = ["start", "--checkpoint", "first", "--checkpoint-dir", elsewhere, "box"];
    let saved = counting.count_after(0);
    counting.daemon.ponton(&start).ok();
    counting.count_after(saved + 1);
    // docker's command line knows them too.
    assert_eq!(counting.daemon.docker(&["checkpoint", "create", "box", "third"]).ok(), "third");
    let list = counting.daemon.docker(&["checkpoint", "ls", "box"]).ok();
    assert_eq!(list, "CHECKPOINT NAME\nended\npaused\nthird");
    counting.until_state("exited");
    counting.daemon.docker(&["start", "--checkpoint", "third", "box"]).ok();
    counting.daemon.docker(&["checkpoint", "rm", "box", "third"]).ok();
    assert_eq!(counting.until_state("running")["State"]["ExitCode"], 0);
}

#[test]
fn criu_that_fails_changes_nothing() {
    let counting = Counting::new("no");
    counting.save("good", false).expect(201);
    counting.tell("broken");
    let refused = counting.save("bad", true).expect(500).text();
    for told in
        ["Cannot checkpoint container box", "Error (stand-in.c:1): the cause", "Error: FAILED.", "dump.log"]
    {
        assert!(refused.contains(told), "{told}: {refused}");
    }
    let begun = counting.count_after(0);
    counting.count_after(begun + 1);
    assert_eq!(counting.on_disk(), ["good"]);

    counting.daemon.ponton(&["stop", "-t", "0", "box"]).ok();
    let refused = counting.start("?checkpoint=good").expect(500).text();
    for told in
        ["OCI runtime restore failed", "Error (stand-in.c:1): the cause", "Error: FAILED.", "restore.log"]
    {
        assert!(refused.contains(told), "{told}: {refused}");
    }
    let shown = counting.inspect();
    assert_eq!((&shown["State"]["Status"], &shown["State"]["ExitCode"]), (&json!("exited"), &json!(128)));
    assert!(shown["State"]["Error"].as_str().is_some_and(|error| error.contains("the cause")), "{shown}");
    assert_eq!(shown["NetworkSettings"]["Networks"]["bridge"]["IPAddress"], "");
    let id = shown["Id"].as_str().expect("an id").to_owned();
    wait::until("no control group", || {
        Some(()).filter(|()| leak::cgroups_of(std::slice::from_ref(&id)).is_empty())
    });
    assert_eq!(leak::mounts_under(&counting.daemon.path("run")), Vec::<String>::new());
    counting.tell_no_more("broken");

    counting.tell("unusable");
    let refused = counting.start("?checkpoint=good").expect(503).text();
    assert!(
        refused.contains("does not work on this kernel: Error (stand-in.c:2): nothing works"),
        "{refused}"
    );
    counting.tell_no_more("unusable");
    counting.start("?checkpoint=good").expect(204);
    counting.count_after(begun);
}

#[test]
fn a_daemon_that_is_killed_leaves_no_half_checkpoint() {
    let mut counting = Counting::new("no");
    counting.tell("hold");
    let mut save = counting.daemon.client("ponton", &["checkpoint", "create", "box", "half"]);
    let mut save = save.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("spawn");
    let held = counting.directory.path().join("held");
    wait::until("a dump at work", || held.exists().then_some(()));
    counting.daemon.kill();
    save.wait().expect("wait");
    counting.daemon.spawn();
    assert_eq!(counting.checkpoints(), json!([]));
    // The old CRIU does with the processes what it wants until it has ended; then they go on.
    let before = counting.count_after(0);
    counting.tell_no_more("hold");
    counting.count_after(before + 1);
    counting.until_state("running");
    wait::until("an empty directory", || counting.on_disk().is_empty().then_some(()));
    counting.save("half", true).expect(201);
    counting.until_state("exited");
    counting.start("?checkpoint=half").expect(204);
    counting.count_after(before);
}

#[test]
fn criu_itself_saves_and_restores() {
    let check = Command::new("criu").arg("check").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !check.is_ok_and(|status| status.success()) {
        eprintln!("criu does not work on this kernel: the stand-in's tests have to do");
        return;
    }
    let directory = tempfile::Builder::new().prefix("ponton-criu-").tempdir().expect("a directory");
    let counting = Counting::with(directory, "no", None);
    counting.save("running", false).expect(201);
    counting.count_after(counting.count_after(0));
    counting.save("first", true).expect(201);
    counting.until_state("exited");
    let saved = counting.count_after(0);
    counting.start("?checkpoint=first").expect(204);
    counting.count_after(saved + 1);
    fs::write(counting.data("end"), "7").expect("write");
    assert_eq!(counting.until_state("exited")["State"]["ExitCode"], 7);
    let lines = counting.lines();
    assert!(lines.windows(2).all(|pair| pair[1] == pair[0] + 1), "{lines:?}");
}
