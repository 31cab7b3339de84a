//! Flags of a command as a table, parsed by the rules of Go's pflag, which is what users of docker know:
//! `--name x`, `--name=x`, `-n x`, `-nx`, `-it`, `--rm=false`, `--` ends the flags.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::command::Complete;
use crate::value;

/// Says why a value is not one for its flag.
pub type Check = fn(&str) -> Result<(), String>;

/// Names that docker keeps for old scripts.
const OLD_NAMES: [(&str, &str); 3] =
    [("net", "network"), ("net-alias", "network-alias"), ("dns-opt", "dns-option")];

/// One flag of a command.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// `name` of `--name`.
    pub long: &'static str,
    /// `n` of `-n`.
    pub short: Option<char>,
    /// How many values it takes.
    pub kind: Kind,
    /// Shown in the help, e.g. `string`, `bytes`.
    pub value: &'static str,
    /// The value when it is not given.
    pub default: &'static str,
    check: Check,
    /// The values that there are, if they are few; for completion.
    pub choices: &'static [&'static str],
    /// What its value names; for completion.
    pub(crate) complete: Complete,
    /// What it does, in a few words.
    pub help: &'static str,
    /// Left out of the help.
    pub hidden: bool,
}

/// How many values a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Takes a value only after `=`.
    Switch,
    /// The last value counts.
    One,
    /// Every value counts.
    Many,
}

impl Flag {
    const fn new(
        long: &'static str,
        kind: Kind,
        value: &'static str,
        check: Check,
        help: &'static str,
    ) -> Self {
        Self {
            long,
            short: None,
            kind,
            value,
            default: "",
            check,
            choices: &[],
            complete: Complete::Nothing,
            help,
            hidden: false,
        }
    }

    /// A flag that is on or off.
    pub const fn switch(long: &'static str, help: &'static str) -> Self {
        Self::new(long, Kind::Switch, "", value::check_bool, help)
    }

    /// A flag with any text.
    pub const fn text(long: &'static str, help: &'static str) -> Self {
        Self::new(long, Kind::One, "string", |_| Ok(()), help)
    }

    /// A flag that may be given many times.
    pub const fn list(long: &'static str, help: &'static str) -> Self {
        Self::new(long, Kind::Many, "list", |_| Ok(()), help)
    }

    /// A flag with a whole number.
    pub const fn int(long: &'static str, help: &'static str) -> Self {
        Self::new(long, Kind::One, "int", value::check_int, help)
    }

    /// A flag with a size: `64m`.
    pub const fn bytes(long: &'static str, help: &'static str) -> Self {
        Self::new(long, Kind::One, "bytes", value::check_bytes, help)
    }

    /// A flag with a duration: `1m30s`.
    pub const fn duration(long: &'static str, help: &'static str) -> Self {
        Self::new(long, Kind::One, "duration", value::check_duration, help)
    }

    /// With a letter.
    pub const fn short(mut self, letter: char) -> Self {
        self.short = Some(letter);
        self
    }

    /// With a value when it is not given.
    pub const fn default(mut self, text: &'static str) -> Self {
        self.default = text;
        self
    }

    /// With another word for its value in the help.
    pub const fn named(mut self, value: &'static str) -> Self {
        self.value = value;
        self
    }

    /// With a check of the value.
    pub const fn check(mut self, check: Check) -> Self {
        self.check = check;
        self
    }

    /// With few values that there are.
    pub const fn one_of(mut self, choices: &'static [&'static str]) -> Self {
        self.choices = choices;
        self
    }

    /// With names of objects as values.
    pub(crate) const fn complete(mut self, what: Complete) -> Self {
        self.complete = what;
        self
    }

    /// Left out of the help.
    pub const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    fn accept(&self, value: &str) -> Result<(), String> {
        (self.check)(value).map_err(|reason| {
            let name = match self.short {
                Some(letter) => format!("-{letter}, --{}", self.long),
                None => format!("--{}", self.long),
            };
            format!("invalid argument {value:?} for {name:?} flag: {reason}")
        })
    }
}

/// What the user gave.
#[derive(Debug, Default, Clone)]
pub struct Flags {
    given: BTreeMap<&'static str, Vec<String>>,
    table: Vec<&'static [Flag]>,
}

impl Flags {
    fn find(&self, long: &str) -> Option<&'static Flag> {
        self.table.iter().flat_map(|flags| flags.iter()).find(|flag| flag.long == long)
    }

    /// Whether the flag was given at all.
    pub fn is_set(&self, long: &str) -> bool {
        debug_assert!(self.find(long).is_some(), "--{long} is not in the command's table");
        self.given.contains_key(long)
    }

    /// Whether the command has such a flag.
    pub fn has(&self, long: &str) -> bool {
        self.find(long).is_some()
    }

    /// A switch.
    pub fn on(&self, long: &str) -> bool {
        value::parse_bool(self.text(long)).unwrap_or(false)
    }

    /// The value or the default (which is empty unless the table has another).
    pub fn text(&self, long: &str) -> &str {
        match self.given.get(long).and_then(|values| values.last()) {
            Some(value) => value,
            None => self.find(long).map_or("", |flag| flag.default),
        }
    }

    /// The value if the flag was given.
    pub fn given(&self, long: &str) -> Option<&str> {
        self.is_set(long).then(|| self.text(long))
    }

    /// All values, in the order in which they were given.
    pub fn all(&self, long: &str) -> &[String] {
        debug_assert!(self.find(long).is_some(), "--{long} is not in the command's table");
        self.given.get(long).map_or(&[], Vec::as_slice)
    }

    /// A number, checked while parsing; 0 if it was not given and has no default.
    pub fn int(&self, long: &str) -> i64 {
        value::parse_int(self.text(long)).unwrap_or(0)
    }

    /// A number if it was given.
    pub fn given_int(&self, long: &str) -> Option<i64> {
        self.given(long).and_then(|text| value::parse_int(text).ok())
    }

    /// A size, checked while parsing.
    pub fn bytes(&self, long: &str) -> i64 {
        value::parse_bytes(self.text(long)).unwrap_or(0)
    }

    /// Nanoseconds, checked while parsing.
    pub fn duration_ns(&self, long: &str) -> i64 {
        value::parse_duration(self.text(long)).unwrap_or(0)
    }
}

/// Flags and what is left of the command line.
#[derive(Debug, Default)]
pub struct Parsed {
    /// The flags.
    pub flags: Flags,
    /// What is no flag.
    pub arguments: Vec<String>,
    /// `--help` was among them.
    pub help: bool,
}

/// Parses a command line. With `interspersed`, flags may follow arguments; without, the first argument
/// ends them (`run busybox ls -l`).
pub fn parse(table: &[&'static [Flag]], words: &[String], interspersed: bool) -> Result<Parsed, String> {
    let mut parsed = Parsed::default();
    parsed.flags.table = table.to_vec();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            parsed.arguments.extend(words.cloned());
            break;
        }
        if let Some(rest) = word.strip_prefix("--") {
            parse_long(&mut parsed, rest, &mut words)?;
        } else if word.len() > 1 && word.starts_with('-') {
            parse_short(&mut parsed, &word[1..], &mut words)?;
        } else {
            parsed.arguments.push(word.clone());
            if !interspersed {
                parsed.arguments.extend(words.cloned());
                break;
            }
        }
        if parsed.help {
            break;
        }
    }
    Ok(parsed)
}

type Words<'a> = std::slice::Iter<'a, String>;

fn parse_long(parsed: &mut Parsed, rest: &str, words: &mut Words<'_>) -> Result<(), String> {
    let (name, attached) = match rest.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (rest, None),
    };
    if name.is_empty() || name.starts_with('-') {
        return Err(format!("bad flag syntax: --{rest}"));
    }
    let name = OLD_NAMES.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| new);
    let Some(flag) = parsed.flags.find(name) else {
        if name == "help" {
            parsed.help = true;
            return Ok(());
        }
        return Err(format!("unknown flag: --{name}"));
    };
    let value = match (flag.kind, attached) {
        (_, Some(value)) => value,
        (Kind::Switch, None) => "true",
        (_, None) => words.next().ok_or_else(|| format!("flag needs an argument: --{name}"))?,
    };
    keep(parsed, flag, value)
}

fn parse_short(parsed: &mut Parsed, cluster: &str, words: &mut Words<'_>) -> Result<(), String> {
    let mut rest = cluster;
    while let Some(letter) = rest.chars().next() {
        let after = &rest[letter.len_utf8()..];
        let found =
            parsed.flags.table.iter().flat_map(|flags| flags.iter()).find(|flag| flag.short == Some(letter));
        let Some(flag) = found else {
            if letter == 'h' {
                parsed.help = true;
                return Ok(());
            }
            return Err(format!("unknown shorthand flag: '{letter}' in -{rest}"));
        };
        if let Some(value) = after.strip_prefix('=') {
            return keep(parsed, flag, value);
        }
        if flag.kind == Kind::Switch {
            keep(parsed, flag, "true")?;
            rest = after;
            continue;
        }
        if !after.is_empty() {
            return keep(parsed, flag, after);
        }
        let value = words.next().ok_or_else(|| format!("flag needs an argument: '{letter}' in -{rest}"))?;
        return keep(parsed, flag, value);
    }
    Ok(())
}

fn keep(parsed: &mut Parsed, flag: &'static Flag, value: &str) -> Result<(), String> {
    flag.accept(value)?;
    parsed.flags.given.entry(flag.long).or_default().push(value.to_owned());
    Ok(())
}

/// The table as the help shows it, sorted by name, in columns of at most `width`.
pub fn help(table: &[Flag], width: usize) -> String {
    let mut flags: Vec<&Flag> = table.iter().filter(|flag| !flag.hidden).collect();
    flags.sort_by_key(|flag| flag.long);
    let left = |flag: &Flag| {
        let mut left = match flag.short {
            Some(letter) => format!("  -{letter}, --{}", flag.long),
            None => format!("      --{}", flag.long),
        };
        if !flag.value.is_empty() {
            left.push(' ');
            left.push_str(flag.value);
        }
        left
    };
    let column = flags.iter().map(|flag| left(flag).len()).max().unwrap_or(0) + 3;
    let room = width.saturating_sub(column).max(24);
    let mut text = String::new();
    for flag in flags {
        let mut help = flag.help.to_owned();
        match (flag.kind, flag.default) {
            (_, "") => {}
            (Kind::One, default) if flag.value == "string" => {
                let _ = write!(help, " (default {default:?})");
            }
            (_, default) => {
                let _ = write!(help, " (default {default})");
            }
        }
        let mut lines = wrap(&help, room).into_iter();
        let _ = writeln!(text, "{:column$}{}", left(flag), lines.next().unwrap_or_default());
        for line in lines {
            let _ = writeln!(text, "{:column$}{line}", "");
        }
    }
    text
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        let line = &mut lines[last];
        if !line.is_empty() && line.len() + 1 + word.len() > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Flag] = &[
        Flag::switch("detach", "").short('d'),
        Flag::switch("interactive", "").short('i'),
        Flag::switch("sig-proxy", "").default("true"),
        Flag::switch("tty", "").short('t'),
        Flag::text("name", "").short('n'),
        Flag::list("env", "").short('e'),
        Flag::int("last", "").default("-1"),
    ];

    fn parsed(line: &str) -> Result<Parsed, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&[TABLE], &words, false)
    }

    #[test]
    fn flags_are_read_as_pflag_does() {
        let parsed = parsed("-itd=false --name x -ea=1 -e b -nboth --last=3 image ls -l --env").unwrap();
        assert!(parsed.flags.on("interactive") && parsed.flags.on("tty") && !parsed.flags.on("detach"));
        assert!(parsed.flags.on("sig-proxy"));
        assert_eq!(parsed.flags.text("name"), "both");
        assert_eq!(parsed.flags.all("env"), ["a=1", "b"]);
        assert_eq!(parsed.flags.int("last"), 3);
        assert_eq!(parsed.arguments, ["image", "ls", "-l", "--env"]);
    }

    #[test]
    fn errors_are_worded_as_pflag_does() {
        for (line, message) in [
            ("--nosuch x", "unknown flag: --nosuch"),
            ("-Z x", "unknown shorthand flag: 'Z' in -Z"),
            ("-iZ x", "unknown shorthand flag: 'Z' in -Z"),
            ("--name", "flag needs an argument: --name"),
            ("-n", "flag needs an argument: 'n' in -n"),
            (
                "--detach=x i",
                "invalid argument \"x\" for \"-d, --detach\" flag: strconv.ParseBool: parsing \"x\": invalid syntax",
            ),
            (
                "--last x",
                "invalid argument \"x\" for \"--last\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
        ] {
            assert_eq!(parsed(line).unwrap_err(), message);
        }
    }
}
