//! Every command and flag of docker's command line beside ours.
//!
//! `docker-28.txt` is what `docker … --help` says, as `cargo run -p ponton-xtask -- docker-commands` writes it:
//! a line with the command and its usage, then its other names, then its flags with type and default.

use std::collections::BTreeMap;

use super::unbuilt::UNBUILT;
use super::{COMMANDS, Command, GLOBAL, GROUPS, usage_line};
use crate::flag::Flag;

const DOCKER: &str = include_str!("../../docker-28.txt");

/// Flags that docker has and we have not: the command (or `*`), the flag, why.
const LEFT_OUT: &[(&str, &str, &str)] = &[
    ("*", "help", "every command takes it; docker lists it only where -h means something else"),
    ("volume create", "availability", "volumes of a cluster: swarm mode"),
    ("volume create", "group", "volumes of a cluster: swarm mode"),
    ("volume create", "limit-bytes", "volumes of a cluster: swarm mode"),
    ("volume create", "required-bytes", "volumes of a cluster: swarm mode"),
    ("volume create", "scope", "volumes of a cluster: swarm mode"),
    ("volume create", "secret", "volumes of a cluster: swarm mode"),
    ("volume create", "sharing", "volumes of a cluster: swarm mode"),
    ("volume create", "topology-preferred", "volumes of a cluster: swarm mode"),
    ("volume create", "topology-required", "volumes of a cluster: swarm mode"),
    ("volume create", "type", "volumes of a cluster: swarm mode"),
    ("volume ls", "cluster", "volumes of a cluster: swarm mode"),
];

/// Defaults that are shown otherwise: the command, the flag, why.
const OTHER_DEFAULTS: &[(&str, &str, &str)] = &[
    ("", "config", "docker shows the user's own directory"),
    ("", "tlscacert", "docker shows the user's own directory"),
    ("", "tlscert", "docker shows the user's own directory"),
    ("", "tlskey", "docker shows the user's own directory"),
];

/// Usages that are worded otherwise, and why.
const OTHER_USAGES: &[(&str, &str)] = &[];

#[derive(Debug, Default)]
struct Theirs {
    usage: String,
    aliases: Vec<String>,
    /// Name, letter, type, default.
    flags: Vec<(String, Option<char>, String, String)>,
}

fn theirs() -> BTreeMap<String, Theirs> {
    let mut commands: BTreeMap<String, Theirs> = BTreeMap::new();
    let mut path = String::new();
    for line in DOCKER.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let Some(rest) = line.strip_prefix("  ") else {
            let (name, usage) = line.split_once(": ").unwrap_or((line.trim_end_matches(':'), ""));
            path = name.trim_start_matches("docker").trim().to_owned();
            commands.insert(path.clone(), Theirs { usage: usage.to_owned(), ..Theirs::default() });
            continue;
        };
        let command = commands.get_mut(&path).expect("a command stands before its flags");
        if let Some(names) = rest.strip_prefix("= ") {
            command.aliases = names.split(", ").map(str::to_owned).collect();
            continue;
        }
        let mut words = rest.splitn(4, ' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let (name, letter, kind, default) = (word(), word(), word(), word());
        let letter = letter.chars().next().filter(|letter| *letter != '.');
        let kind = if kind == "." { String::new() } else { kind };
        command.flags.push((name, letter, kind, default));
    }
    commands
}

/// Our command of docker's path.
fn ours(path: &str) -> Option<&'static Command> {
    match path.split_once(' ') {
        None => COMMANDS.iter().find(|command| command.is_called(path)).copied(),
        Some((group, name)) => {
            let group = GROUPS.iter().find(|candidate| candidate.name == group)?;
            group.commands.iter().find(|command| command.is_called(name)).copied()
        }
    }
}

fn is_left_out(path: &str, flag: &str) -> bool {
    LEFT_OUT.iter().any(|(of, name, _)| (*of == "*" || *of == path) && *name == flag)
}

/// An empty list is shown as nothing.
fn shown(default: &str) -> &str {
    if matches!(default, "[]" | "map[]") { "" } else { default }
}

fn flag_differences(path: &str, theirs: &Theirs, ours: &[Flag]) -> Vec<String> {
    let mut differences = Vec::new();
    for (name, letter, kind, default) in &theirs.flags {
        let Some(flag) = ours.iter().find(|flag| flag.long == name) else {
            if !is_left_out(path, name) {
                differences.push(format!("{path}: --{name} is missing"));
            }
            continue;
        };
        if flag.short != *letter {
            differences.push(format!("{path}: --{name} has {:?}, docker's {letter:?}", flag.short));
        }
        if flag.value != kind {
            differences.push(format!("{path}: --{name} takes {:?}, docker's {kind:?}", flag.value));
        }
        let other = OTHER_DEFAULTS.iter().any(|(of, flag, _)| *of == path && flag == name);
        let default = default.trim_matches('"');
        if shown(flag.default) != shown(default) && !other {
            differences.push(format!("{path}: --{name} is {:?}, docker's {default:?}", flag.default));
        }
    }
    differences
}

#[test]
fn every_command_and_flag_of_dockers_is_there() {
    let mut differences = Vec::new();
    let (mut commands, mut flags) = (0, 0);
    for (path, theirs) in theirs() {
        let words: Vec<String> = path.split(' ').map(str::to_owned).collect();
        if super::unbuilt::refusal(&words).is_some() {
            continue;
        }
        if path.is_empty() {
            differences.extend(flag_differences(&path, &theirs, GLOBAL));
            flags += theirs.flags.len();
            continue;
        }
        if GROUPS.iter().any(|group| group.name == path) {
            continue;
        }
        let Some(command) = ours(&path) else {
            differences.push(format!("{path}: there is no such command"));
            continue;
        };
        commands += 1;
        flags += theirs.flags.len();
        let table: Vec<Flag> = command.flags.iter().flat_map(|flags| flags.iter().copied()).collect();
        differences.extend(flag_differences(&path, &theirs, &table));
        let usage = usage_line("", command);
        let first = usage.lines().next().unwrap_or_default();
        let usage = first.trim_start_matches("Usage:  ponton").trim();
        if usage != theirs.usage && !OTHER_USAGES.iter().any(|(of, _)| *of == path) {
            differences.push(format!("{path}: is used as {usage:?}, docker's as {:?}", theirs.usage));
        }
        for alias in &theirs.aliases {
            let alias = alias.trim_start_matches("docker ");
            if ours(alias).is_none_or(|other| other.run as usize != command.run as usize) {
                differences.push(format!("{path}: {alias} is not another name of it"));
            }
        }
    }
    println!("{commands} commands with {flags} flags compared");
    assert!(commands > 70 && flags > 500, "the list is not whole: {commands} commands, {flags} flags");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn nothing_is_left_out_that_is_there() {
    let theirs = theirs();
    for (words, _) in UNBUILT {
        let path = words.join(" ");
        assert!(ours(&path).is_none() && !GROUPS.iter().any(|group| group.name == path), "{path}");
    }
    for (path, flag, why) in LEFT_OUT.iter().filter(|(path, _, _)| *path != "*") {
        let listed =
            theirs.get(*path).is_some_and(|command| command.flags.iter().any(|(name, ..)| name == flag));
        assert!(listed, "docker has no {path} --{flag} ({why})");
        let built = ours(path).is_some_and(|command| {
            command.flags.iter().any(|flags| flags.iter().any(|candidate| candidate.long == *flag))
        });
        assert!(!built, "{path} --{flag} is built");
    }
}

#[test]
fn what_is_not_built_says_so() {
    for line in ["swarm init", "build .", "compose up -d", "network create x", "plugin ls", "buildx --help"] {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let error = super::find(&words).err().unwrap();
        assert!(error.to_string().contains("' is not implemented: "), "{error}");
        assert_eq!(error.code(), 1);
    }
    assert!(super::find(&["network".to_owned(), "ls".to_owned()]).is_ok());
}
