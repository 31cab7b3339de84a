//! Groups made by a user without privileges: in a part of the tree that was given to him, or not at
//! all. The test runs itself again as that user. As root.
#![allow(clippy::unwrap_used, reason = "a test program")]

use std::fs;
use std::io::Read;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ponton_cgroup::{Layout, plan};
use ponton_oci::runtime::{Pids, Resources};

const NOBODY: u32 = 65_534;
const AS_USER: &str = "PONTON_TEST_AS_USER";

fn limited() -> Resources {
    Resources { pids: Some(Pids { limit: Some(7) }), ..Resources::default() }
}

/// What the user sees and does, as text.
fn as_user() -> String {
    // The parent moves this process before it closes the pipe.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    let layout = Layout::detect().unwrap();
    let make = |resources: &Resources, or_none| {
        let plan = plan(&layout, "x", resources).map_err(|error| error.to_string())?;
        let plan = if or_none { plan.or_none() } else { plan };
        let opened = plan.create().map_err(|error| error.to_string())?;
        let exists = opened.cgroup().exists();
        let removed = opened.cgroup().remove();
        Ok::<_, String>(format!("made {exists} {}", removed.is_ok()))
    };
    let word = |made: Result<String, String>| {
        made.unwrap_or_else(|error| if error.contains("denied") { "forbidden".to_owned() } else { error })
    };
    let answers = [
        word(make(&limited(), true)),
        word(make(&Resources::default(), false)),
        word(make(&Resources::default(), true)),
    ];
    format!("privileged {} {}", layout.privileged, answers.join(", "))
}

/// Runs this test again as nobody, in the group `group`.
fn run_as_user(group: Option<&Path>) -> String {
    // Where everybody can execute it.
    let program = std::env::temp_dir().join(format!("ponton-delegation-{}", std::process::id()));
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut child = Command::new(&program)
        .args(["--nocapture", "--exact", "groups_are_made_where_it_is_allowed"])
        .env(AS_USER, "1")
        .uid(NOBODY)
        .gid(NOBODY)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    if let Some(group) = group {
        fs::write(group.join("cgroup.procs"), child.id().to_string()).unwrap();
    }
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    fs::remove_file(program).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .find_map(|line| line.split_once("answer: "))
        .map(|(_, answer)| answer.to_owned())
        .unwrap_or(text)
}

/// A group that belongs to nobody the user, with one below it.
fn delegate(mount: &Path) -> PathBuf {
    let top = mount.join(format!("ponton-delegated-{}", std::process::id()));
    fs::write(mount.join("cgroup.subtree_control"), "+pids").unwrap();
    fs::create_dir_all(top.join("own")).unwrap();
    for file in ["", "cgroup.procs", "cgroup.subtree_control", "own", "own/cgroup.procs"] {
        chown(top.join(file), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    top
}

#[test]
fn groups_are_made_where_it_is_allowed() {
    if std::env::var_os(AS_USER).is_some() {
        println!("answer: {}", as_user());
        return;
    }
    let forbidden = "privileged false forbidden, forbidden, made false true";
    assert_eq!(run_as_user(None), forbidden);
    let layout = Layout::detect().unwrap();
    if let (true, Some(pids)) = (layout.is_v2(), layout.with("pids")) {
        let top = delegate(&pids.mount);
        let answer = run_as_user(Some(&top.join("own")));
        fs::remove_dir(top.join("own")).unwrap();
        fs::remove_dir(top).unwrap();
        assert_eq!(answer, "privileged false made true true, made true true, made true true");
    }
}
