//! Completion, by the shells themselves: bash, zsh and fish, those that are installed.
#![allow(clippy::expect_used, reason = "a test program")]

use std::process::Command;

use ponton_testkit::{Daemon, Terminal, daemon};

/// A shell's script, with what it is to complete in `$1`; prints the candidates, one a line.
const BASH: &str = r#"
source <(ponton completion bash)
compopt() { :; }
COMP_LINE=$1 COMP_POINT=${#1}
read -r -a COMP_WORDS <<< "$1"
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_ponton
printf '%s\n' "${COMPREPLY[@]}"
"#;
const ZSH: &str = r#"
compdef() { :; }
_files() { :; }
compadd() { shift; print -rl -- "$@"; }
source <(ponton completion zsh)
words=(${(z)1})
[[ $1 == *" " ]] && words+=("")
CURRENT=$#words
_ponton
"#;
const FISH: &str = "ponton completion fish | source\ncomplete -C $argv[1]\n";

fn complete(daemon: &Daemon, shell: &str, line: &str) -> Vec<String> {
    let mut command = match shell {
        "bash" => daemon.client("bash", &["--norc", "-c", BASH, "bash", line]),
        "zsh" => daemon.client("zsh", &["-f", "-c", ZSH, "zsh", line]),
        _ => daemon.client("fish", &["--no-config", "-c", FISH, line]),
    };
    find_ponton(&mut command);
    let shown = daemon::run(&mut command, b"");
    let mut lines: Vec<String> =
        shown.stdout.lines().filter(|line| !line.is_empty()).map(|line| line.trim_end().to_owned()).collect();
    lines.sort();
    lines
}

fn find_ponton(command: &mut Command) {
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", daemon::binaries().display()));
}

/// Whether there is a shell to test with; if not, says so.
fn is_installed(shell: &str) -> bool {
    let found = Command::new(shell).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        println!("not tested: {shell} is not installed (scripts/install-deps.sh test)");
    }
    found
}

#[test]
fn shells_complete_commands_flags_and_names() {
    let daemon = Daemon::start();
    for (name, state) in [("runs-1", "run"), ("runs-2", "run"), ("rests", "create")] {
        let detach: &[&str] = if state == "run" { &["-d"] } else { &[] };
        daemon.ponton(&[&[state], detach, &["--name", name, "busybox", "sleep", "1000"]].concat()).ok();
    }
    daemon.ponton(&["pause", "runs-2"]).ok();
    daemon.ponton(&["volume", "create", "my-volume"]).ok();
    daemon.ponton(&["tag", "busybox", "host:5000/own:v1"]).ok();
    let cases: [(&str, &[&str]); 15] = [
        ("ponton ren", &["rename"]),
        ("ponton container pru", &["prune"]),
        ("ponton run --cap-d", &["--cap-drop"]),
        ("ponton stop ", &["runs-1"]),
        ("ponton container start r", &["rests"]),
        ("ponton unpause ", &["runs-2"]),
        ("ponton rm r", &["rests", "runs-1", "runs-2"]),
        ("ponton rm runs-1 run", &["runs-2"]),
        ("ponton run --network h", &["host"]),
        ("ponton run --restart un", &["unless-stopped"]),
        ("ponton volume rm my", &["my-volume"]),
        ("ponton kill -s SIGW", &["SIGWINCH"]),
        ("ponton run bus", &["busybox", "busybox:latest"]),
        ("ponton context use def", &["default"]),
        ("ponton completion z", &["zsh"]),
    ];
    let mut shells = vec!["bash"];
    shells.extend(["zsh", "fish"].into_iter().filter(|shell| is_installed(shell)));
    for shell in &shells {
        for (line, expected) in &cases {
            assert_eq!(complete(&daemon, shell, line), *expected, "{shell}: {line}");
        }
    }
    // bash takes what follows a colon or an equals sign for a word of its own.
    assert_eq!(complete(&daemon, "bash", "ponton rmi host:5000/own:"), ["v1"]);
    assert_eq!(complete(&daemon, "bash", "ponton run --pull=n"), ["never"]);
    println!("completed by {}", shells.join(", "));
}

/// The test above calls zsh's function itself; this one presses the tabulator where zsh's own completion is loaded.
#[test]
fn zsh_completes_what_is_typed() {
    if !is_installed("zsh") {
        return;
    }
    let daemon = Daemon::start();
    daemon.ponton(&["run", "-d", "--name", "runs-1", "busybox", "sleep", "1000"]).ok();
    let mut command = daemon.client("zsh", &["-f", "-i"]);
    find_ponton(&mut command);
    command.env("TERM", "dumb");
    let mut terminal = Terminal::spawn(&command);
    // ^X shows the line that was typed, and takes it away.
    for line in [
        "shown() { print -r -- \"<$BUFFER>\"; BUFFER=; }; zle -N shown; bindkey '^X' shown",
        "autoload -Uz compinit; compinit -D -u; source <(ponton completion zsh); print loa''ded",
    ] {
        terminal.send(&format!("{line}\n"));
    }
    terminal.expect("loaded");
    for (typed, completed) in [
        ("ponton ren", "<ponton rename >"),
        ("ponton run --cap-d", "<ponton run --cap-drop >"),
        ("ponton stop r", "<ponton stop runs-1 >"),
        ("ponton run --restart un", "<ponton run --restart unless-stopped >"),
    ] {
        terminal.send(&format!("{typed}\t\x18"));
        terminal.expect(completed);
    }
    terminal.send("exit\n");
    assert_eq!(terminal.end(), 0);
}

#[test]
fn a_daemon_that_is_not_there_completes_nothing_and_is_not_started() {
    let mut daemon = Daemon::start();
    daemon.stop();
    assert_eq!(complete(&daemon, "bash", "ponton stop "), [""; 0]);
    assert_eq!(complete(&daemon, "bash", "ponton ren"), ["rename"]);
    assert!(
        !daemon.path("run/ponton.sock").exists() || daemon.api().try_request("GET", "/_ping", None).is_err()
    );
}
