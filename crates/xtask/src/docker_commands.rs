//! What docker's command line says of itself, as the list that `crates/cli` is compared with.
//!
//! Only names, types and defaults are taken from its help; its words are left.

use std::fmt::Write as _;
use std::fs;
use std::process::{Command, ExitCode};

const FILE: &str = "crates/cli/docker-28.txt";

pub(crate) fn run() -> ExitCode {
    let version = Command::new("docker").arg("--version").output().expect("docker --version");
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let version = version.split([' ', ',']).nth(2).unwrap_or_default().to_owned();
    let mut text = format!(
        "# docker {version}: COMMAND: USAGE, then '= OTHER NAMES', then 'FLAG LETTER TYPE DEFAULT'; '.' is none.\n\
         # Written by `cargo run -p ponton-xtask -- docker-commands`.\n"
    );
    walk(&mut Vec::new(), &mut text);
    fs::write(FILE, text).expect(FILE);
    ExitCode::SUCCESS
}

fn walk(path: &mut Vec<String>, text: &mut String) {
    // No daemon is asked: docker would hide what a daemon does not have.
    let output = Command::new("docker")
        .args(path.iter())
        .arg("--help")
        .env("DOCKER_HOST", "unix:///nonexistent")
        .env("DOCKER_HIDE_LEGACY_COMMANDS", "0")
        .env("HOME", "/root")
        .env("COLUMNS", "200")
        .output()
        .expect("docker --help");
    let help = Help::parse(&String::from_utf8_lossy(&output.stdout));
    let _ = writeln!(
        text,
        "{}: {}",
        ["docker"].into_iter().chain(path.iter().map(String::as_str)).collect::<Vec<_>>().join(" "),
        help.usage
    );
    if !help.aliases.is_empty() {
        let _ = writeln!(text, "  = {}", help.aliases.join(", "));
    }
    for flag in &help.flags {
        let or_none = |text: &str| if text.is_empty() { ".".to_owned() } else { text.to_owned() };
        let line =
            format!("  {} {} {} {}", flag.name, or_none(&flag.letter), or_none(&flag.kind), flag.default());
        let _ = writeln!(text, "{}", line.trim_end());
    }
    for command in help.commands {
        path.push(command);
        walk(path, text);
        path.pop();
    }
}

#[derive(Debug, Default)]
struct Help {
    usage: String,
    aliases: Vec<String>,
    commands: Vec<String>,
    flags: Vec<Flag>,
}

#[derive(Debug, Default)]
struct Flag {
    name: String,
    letter: String,
    kind: String,
    about: String,
}

impl Flag {
    /// The last `(default …)`; some texts say in words what a default means.
    fn default(&self) -> &str {
        let about = self.about.trim_end();
        let Some(at) = about.rfind("(default ") else { return "" };
        let default = about[at + "(default ".len()..].trim_end_matches(')');
        if default.contains(' ') && !default.starts_with('"') { "" } else { default }
    }
}

impl Help {
    fn parse(help: &str) -> Self {
        let mut found = Self::default();
        let mut section = String::new();
        for line in help.lines() {
            if let Some(usage) = line.strip_prefix("Usage:  docker") {
                // The words of the command itself are lower case.
                let words = usage
                    .split_whitespace()
                    .skip_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase()));
                found.usage = words.collect::<Vec<_>>().join(" ");
            } else if !line.starts_with(' ') && line.ends_with(':') {
                section = line.trim_end_matches(':').to_owned();
            } else if section.ends_with("Commands") && line.starts_with("  ") {
                let name = line.split_whitespace().next().unwrap_or_default().trim_end_matches('*');
                found.commands.push(name.to_owned());
            } else if section == "Aliases" && line.starts_with("  ") {
                found.aliases = line.trim().split(", ").map(str::to_owned).collect();
            } else if section.ends_with("Options") {
                found.option(line);
            }
        }
        found
    }

    fn option(&mut self, line: &str) {
        let text = line.trim_start();
        let is_flag = text.starts_with("--") || text.get(2..).is_some_and(|rest| rest.starts_with(", --"));
        if !is_flag {
            if let (Some(flag), false) = (self.flags.last_mut(), text.is_empty()) {
                let _ = write!(flag.about, " {text}");
            }
            return;
        }
        let (letter, long) = match text.split_once(", --") {
            Some((letter, long)) if letter.len() == 2 => (letter.trim_start_matches('-'), long),
            _ => ("", text.trim_start_matches("--")),
        };
        let (head, about) = long.split_once("  ").unwrap_or((long, ""));
        let (name, kind) = head.split_once(' ').unwrap_or((head, ""));
        self.flags.push(Flag {
            name: name.to_owned(),
            letter: letter.to_owned(),
            kind: kind.to_owned(),
            about: about.trim().to_owned(),
        });
    }
}
