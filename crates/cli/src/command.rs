//! The table of commands, and how words find their command.

mod checkpoint;
pub(crate) mod container;
mod context;
mod image;
mod inspect;
mod manifest;
mod network;
mod prune;
mod registry;
mod system;
mod unbuilt;
mod volume;

#[cfg(test)]
mod parity;

use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;

use crate::config::{self, Config};
use crate::context::{Context, Globals};
use crate::error::Error;
use crate::flag::{self, Flag, Flags};
use crate::{advice, completion, output};

/// One command.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) name: &'static str,
    pub(crate) aliases: &'static [&'static str],
    /// What follows the name in the usage.
    pub(crate) usage: &'static str,
    pub(crate) about: &'static str,
    pub(crate) flags: &'static [&'static [Flag]],
    pub(crate) arguments: Arguments,
    /// Flags may follow arguments.
    pub(crate) interspersed: bool,
    /// What the arguments are, for completion.
    pub(crate) complete: Complete,
    pub(crate) run: Action,
}

/// How many arguments a command takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arguments {
    None,
    Exactly(usize),
    AtLeast(usize),
    Between(usize, usize),
    Any,
}

/// What a command's arguments name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Complete {
    Nothing,
    Containers,
    RunningContainers,
    PausedContainers,
    StoppedContainers,
    Images,
    Networks,
    Volumes,
    Contexts,
    /// Anything that `inspect` finds.
    Objects,
}

pub(crate) type Outcome = Pin<Box<dyn Future<Output = Result<u8, Error>>>>;
pub(crate) type Action = fn(Invocation) -> Outcome;

/// One use of a command.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) context: Context,
    pub(crate) flags: Flags,
    pub(crate) arguments: Vec<String>,
}

/// Commands under one noun: `ponton container …`.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) commands: &'static [&'static Command],
}

impl Command {
    /// A command without flags that takes no arguments.
    pub(crate) const fn new(
        name: &'static str,
        usage: &'static str,
        about: &'static str,
        run: Action,
    ) -> Self {
        Self {
            name,
            aliases: &[],
            usage,
            about,
            flags: &[],
            arguments: Arguments::None,
            interspersed: true,
            complete: Complete::Nothing,
            run,
        }
    }

    pub(crate) const fn flags(mut self, flags: &'static [&'static [Flag]]) -> Self {
        self.flags = flags;
        self
    }

    pub(crate) const fn aliases(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    pub(crate) const fn arguments(mut self, arguments: Arguments, complete: Complete) -> Self {
        self.arguments = arguments;
        self.complete = complete;
        self
    }

    /// The first argument ends the flags.
    pub(crate) const fn strict(mut self) -> Self {
        self.interspersed = false;
        self
    }

    /// The same command under another name.
    pub(crate) const fn renamed(mut self, name: &'static str, aliases: &'static [&'static str]) -> Self {
        self.name = name;
        self.aliases = aliases;
        self
    }

    fn is_called(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }
}

/// The commands that have a noun.
pub(crate) static GROUPS: &[Group] = &[
    Group { name: "checkpoint", about: "Manage checkpoints", commands: checkpoint::COMMANDS },
    Group { name: "container", about: "Manage containers", commands: container::COMMANDS },
    Group { name: "context", about: "Manage contexts", commands: context::COMMANDS },
    Group { name: "image", about: "Manage images", commands: image::COMMANDS },
    Group {
        name: "manifest",
        about: "Manage manifests and lists of them in registries",
        commands: manifest::COMMANDS,
    },
    Group { name: "network", about: "Manage networks", commands: network::COMMANDS },
    Group { name: "system", about: "Manage the engine", commands: system::COMMANDS },
    Group { name: "volume", about: "Manage volumes", commands: volume::COMMANDS },
];

/// The commands that need no noun.
pub(crate) static COMMANDS: &[&Command] = &[
    &container::ATTACH,
    &container::COMMIT,
    &completion::COMMAND,
    &container::CP,
    &container::CREATE,
    &container::DIFF,
    &system::EVENTS,
    &container::EXEC,
    &container::EXPLAIN,
    &container::EXPORT,
    &image::HISTORY,
    &image::IMAGES,
    &image::IMPORT,
    &system::INFO,
    &inspect::INSPECT,
    &container::KILL,
    &image::LOAD,
    &registry::LOGIN,
    &registry::LOGOUT,
    &container::LOGS,
    &container::PAUSE,
    &container::PORT,
    &container::PS,
    &image::PULL,
    &image::PUSH,
    &container::RENAME,
    &container::RESTART,
    &container::RM,
    &image::RMI,
    &container::RUN,
    &image::SAVE,
    &registry::SEARCH,
    &container::START,
    &container::STATS,
    &container::STOP,
    &image::TAG,
    &container::TOP,
    &container::UNPAUSE,
    &container::UPDATE,
    &system::VERSION,
    &container::WAIT,
];

/// Flags before the command.
pub(crate) static GLOBAL: &[Flag] = &[
    Flag::text("config", "Directory of docker's config.json and contexts (default ~/.docker)"),
    Flag::text("context", "Context that says which daemon is spoken to")
        .short('c')
        .complete(Complete::Contexts),
    Flag::list("host", "Address of the daemon").short('H'),
    Flag::switch("debug", "Accepted for docker's sake; there is nothing to debug in the client").short('D'),
    Flag::text("log-level", "Accepted for docker's sake")
        .short('l')
        .default("info")
        .one_of(&["debug", "info", "warn", "error", "fatal"]),
    Flag::switch("tls", "Speak TLS to the daemon").hidden(),
    Flag::text("tlscacert", "Certificates of authorities to trust").hidden(),
    Flag::text("tlscert", "Certificate to show the daemon").hidden(),
    Flag::text("tlskey", "Key of that certificate").hidden(),
    Flag::switch("tlsverify", "Speak TLS to the daemon, and verify whom it is").hidden(),
    Flag::switch("version", "Print the version and quit").short('v'),
];

/// Finds and runs the command that `words` name.
pub(crate) async fn dispatch(words: &[String]) -> Result<u8, Error> {
    if words.first().is_some_and(|word| word == completion::COMPLETE) {
        return completion::complete(&words[1..]).await;
    }
    let global = flag::parse(&[GLOBAL], words, false).map_err(|reason| Error::Usage {
        text: format!("{reason}\n\nUsage:  ponton [OPTIONS] COMMAND [ARG...]\n\nRun 'ponton --help' for more information"),
        code: 125,
    })?;
    if global.flags.on("version") {
        output::print_line(&format!("Ponton version {}", env!("CARGO_PKG_VERSION")))?;
        return Ok(0);
    }
    let globals = globals(&global.flags)?;
    let mut words = global.arguments.as_slice();
    let mut help = global.help || words.is_empty();
    if words.first().is_some_and(|word| word == "help") {
        help = true;
        words = &words[1..];
    }
    match find(words)? {
        Found::Everything => output::print(&everything_help()).map(|()| 0),
        Found::Group(group) => output::print(&group_help(group)).map(|()| 0),
        Found::Command { path, command, .. } if help => {
            output::print(&command_help(&path, command)).map(|()| 0)
        }
        Found::Command { path, command, rest } => {
            let parsed = flag::parse(command.flags, rest, command.interspersed).map_err(|reason| {
                Error::Usage { text: refusal(&reason, &path, command, "Run"), code: 125 }
            })?;
            if parsed.help {
                return output::print(&command_help(&path, command)).map(|()| 0);
            }
            check_arguments(&path, command, parsed.arguments.len())?;
            let config = Config::load();
            let context = Context::new(globals.clone(), config.clone())?;
            let call = Invocation { context, flags: parsed.flags, arguments: parsed.arguments };
            let result = (command.run)(call).await;
            match result {
                Err(error) => Err(match advice::of(&error, &globals, &config).await {
                    Some(hint) => Error::Advised { source: Box::new(error), hint },
                    None => error,
                }),
                done => done,
            }
        }
    }
}

/// What is said before the command.
fn globals(flags: &Flags) -> Result<Globals, Error> {
    if let Some(name) =
        ["tls", "tlscacert", "tlscert", "tlskey", "tlsverify"].into_iter().find(|name| flags.is_set(name))
    {
        return Err(Error::invalid(format!(
            "--{name} is not implemented: the client speaks no TLS. Reach a distant daemon through \
             ssh -L /path/of/a.sock:/run/ponton/ponton.sock HOST and -H unix:///path/of/a.sock"
        )));
    }
    if let Some(directory) = flags.given("config") {
        config::use_directory(directory);
    }
    let host = match flags.all("host") {
        [] => None,
        [host] => Some(host.clone()),
        _ => return Err(Error::invalid("specify only one -H")),
    };
    let context = flags.given("context").filter(|name| !name.is_empty()).map(str::to_owned);
    if host.is_some() && context.is_some() {
        return Err(Error::invalid("conflicting options: cannot specify both --host and --context"));
    }
    Ok(Globals { host, context })
}

/// What the words name.
pub(crate) enum Found<'a> {
    Everything,
    Group(&'static Group),
    Command { path: String, command: &'static Command, rest: &'a [String] },
}

/// Looks a command up.
pub(crate) fn find(words: &[String]) -> Result<Found<'_>, Error> {
    let Some(first) = words.first() else { return Ok(Found::Everything) };
    if let Some(command) = COMMANDS.iter().find(|command| command.is_called(first)) {
        return Ok(Found::Command { path: command.name.to_owned(), command, rest: &words[1..] });
    }
    if let Some(refusal) = unbuilt::refusal(words) {
        return Err(Error::Usage { text: refusal, code: 1 });
    }
    let Some(group) = GROUPS.iter().find(|group| group.name == first) else {
        return Err(Error::Usage {
            text: format!(
                "ponton: unknown command: ponton {first}\n\nRun 'ponton --help' for more information"
            ),
            code: 1,
        });
    };
    let Some(second) = words.get(1).filter(|word| *word != "--help" && *word != "-h") else {
        return Ok(Found::Group(group));
    };
    match group.commands.iter().find(|command| command.is_called(second)) {
        Some(command) => Ok(Found::Command {
            path: format!("{} {}", group.name, command.name),
            command,
            rest: &words[2..],
        }),
        None => Err(Error::Usage {
            text: format!(
                "ponton: unknown command: ponton {first} {second}\n\nUsage:  ponton {first}\n\nRun 'ponton {first} --help' for more information"
            ),
            code: 1,
        }),
    }
}

fn check_arguments(path: &str, command: &Command, count: usize) -> Result<(), Error> {
    let plural = |number: usize| if number == 1 { "argument" } else { "arguments" };
    let (reason, verb) = match command.arguments {
        Arguments::None if count > 0 => ("accepts no arguments".to_owned(), "Run"),
        Arguments::Exactly(wanted) if count != wanted => {
            (format!("requires {wanted} {}", plural(wanted)), "Run")
        }
        Arguments::AtLeast(least) if count < least => {
            (format!("requires at least {least} {}", plural(least)), "See")
        }
        Arguments::Between(least, most) if count < least || count > most && least == 0 => {
            (format!("requires at most {most} {}", plural(most)), "See")
        }
        Arguments::Between(least, most) if count > most => {
            (format!("requires at least {least} and at most {most} {}", plural(most)), "See")
        }
        _ => return Ok(()),
    };
    let reason = format!("ponton: 'ponton {path}' {reason}");
    Err(Error::Usage { text: refusal(&reason, path, command, verb), code: 1 })
}

fn refusal(reason: &str, path: &str, command: &Command, verb: &str) -> String {
    format!("{reason}\n\n{}\n\n{verb} 'ponton {path} --help' for more information", usage_line(path, command))
}

fn usage_line(path: &str, command: &Command) -> String {
    format!("Usage:  ponton {path} {}", command.usage).trim_end().to_owned()
}

fn width() -> usize {
    rustix::termios::tcgetwinsize(std::io::stdout())
        .map_or(80, |size| usize::from(size.ws_col).clamp(60, 120))
}

/// The ways to call a command, if there is more than one.
fn spellings(command: &Command) -> Vec<String> {
    let mut names = Vec::new();
    for group in GROUPS {
        for candidate in
            group.commands.iter().filter(|candidate| candidate.run as usize == command.run as usize)
        {
            names.push(format!("ponton {} {}", group.name, candidate.name));
            names.extend(candidate.aliases.iter().map(|alias| format!("ponton {} {alias}", group.name)));
        }
    }
    for candidate in COMMANDS.iter().filter(|candidate| candidate.run as usize == command.run as usize) {
        names.push(format!("ponton {}", candidate.name));
    }
    names
}

fn command_help(path: &str, command: &Command) -> String {
    let mut text = format!("{}\n\n{}\n", usage_line(path, command), command.about);
    let names = spellings(command);
    if names.len() > 1 {
        let _ = write!(text, "\nAliases:\n  {}\n", names.join(", "));
    }
    let flags: Vec<Flag> = command.flags.iter().flat_map(|flags| flags.iter().copied()).collect();
    if !flags.is_empty() {
        let _ = write!(text, "\nOptions:\n{}", flag::help(&flags, width()));
    }
    text
}

fn group_help(group: &Group) -> String {
    let mut text = format!("Usage:  ponton {} COMMAND\n\n{}\n\nCommands:\n", group.name, group.about);
    for command in group.commands {
        let _ = writeln!(text, "  {:<12}{}", command.name, first_line(command.about));
    }
    let _ = write!(text, "\nRun 'ponton {} COMMAND --help' for more information on a command.\n", group.name);
    text
}

fn everything_help() -> String {
    let mut text =
        "Usage:  ponton [OPTIONS] COMMAND\n\nA container engine\n\nManagement Commands:\n".to_owned();
    for group in GROUPS {
        let _ = writeln!(text, "  {:<12}{}", group.name, group.about);
    }
    let _ = writeln!(text, "\nCommands:\n  {:<12}Run the engine", "daemon");
    for command in COMMANDS {
        let _ = writeln!(text, "  {:<12}{}", command.name, first_line(command.about));
    }
    let _ = write!(
        text,
        "\nGlobal Options:\n{}\nRun 'ponton COMMAND --help' for more information on a command.\n",
        flag::help(GLOBAL, width())
    );
    text
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn commands_are_found_with_and_without_their_noun() {
        for line in ["ps -a", "container ls -a", "container ps -a", "container list -a"] {
            let words = words(line);
            let Found::Command { command, rest, .. } = find(&words).unwrap() else { panic!("{line}") };
            assert_eq!(command.usage, container::PS.usage);
            assert_eq!(rest, ["-a"]);
        }
        assert!(matches!(find(&words("container")).unwrap(), Found::Group(_)));
        let error = find(&words("nosuch")).err().unwrap();
        assert_eq!(
            error.to_string(),
            "ponton: unknown command: ponton nosuch\n\nRun 'ponton --help' for more information"
        );
    }

    #[test]
    fn no_command_has_two_flags_of_one_name() {
        let all = GROUPS.iter().flat_map(|group| group.commands.iter()).chain(COMMANDS);
        for command in all {
            let mut names: Vec<String> = Vec::new();
            for flag in command.flags.iter().flat_map(|flags| flags.iter()) {
                names.push(flag.long.to_owned());
                names.extend(flag.short.map(|letter| letter.to_string()));
            }
            let count = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), count, "{}", command.name);
        }
    }
}
