//! Shell completion: small scripts that ask the program itself, which answers from the table of commands and
//! from the daemon.

use crate::command::{self, Arguments, COMMANDS, Command, Complete, Found, GLOBAL, GROUPS, Invocation};
use ponton_client::Client;

use crate::command::container::filters;
use crate::config::{self, Config};
use crate::context::store::{DEFAULT, Store};
use crate::context::{Context, Globals};
use crate::error::Error;
use crate::flag::{self, Flag, Kind};
use crate::output;

/// The word by which the scripts ask.
pub(crate) const COMPLETE: &str = "__complete";

/// `ponton completion`.
pub(crate) static COMMAND: Command =
    Command::new("completion", "SHELL", "Print the completion script of bash, zsh or fish", |call| {
        Box::pin(async move { script(&call) })
    })
    .arguments(Arguments::Exactly(1), Complete::Nothing);

/// bash cuts words at `:` and `=` too; names of images have the one and flags the other, so the line is cut anew at
/// blanks, and of each answer only what bash takes for the last word is given.
const BASH: &str = r#"_ponton() {
    local IFS=$' \t\n' line=${COMP_LINE:0:COMP_POINT} words last
    read -r -a words <<< "$line"
    last=${words[${#words[@]}-1]}
    case $line in *[[:blank:]]) words+=(""); last= ;; esac
    local cut=
    case $last in *[:=]*) case $COMP_WORDBREAKS in *:*) cut=${last%"${last##*[:=]}"} ;; esac ;; esac
    local found
    COMPREPLY=()
    while IFS= read -r found; do
        COMPREPLY+=("${found#"$cut"}")
    done < <("${words[0]}" __complete "${words[@]:1}" 2>/dev/null)
    if [ ${#COMPREPLY[@]} -eq 0 ]; then
        compopt -o default 2>/dev/null
    elif [ ${#COMPREPLY[@]} -eq 1 ]; then
        case ${COMPREPLY[0]} in *[=:/]) compopt -o nospace 2>/dev/null ;; esac
    fi
}
complete -F _ponton ponton
"#;
const ZSH: &str = r#"#compdef ponton
_ponton() {
    local -a found
    found=("${(@f)$(${words[1]} __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${found[1]}" ]]; then
        compadd -- "${found[@]}"
    else
        _files
    fi
}
compdef _ponton ponton
"#;
const FISH: &str = r"function __ponton_complete
    set -l words (commandline -opc)
    $words[1] __complete $words[2..] (commandline -ct) 2>/dev/null
end
complete -c ponton -f -a '(__ponton_complete)'
";

fn script(call: &Invocation) -> Result<u8, Error> {
    let text = match call.arguments[0].as_str() {
        "bash" => BASH,
        "zsh" => ZSH,
        "fish" => FISH,
        other => {
            return Err(Error::invalid(format!(
                "no completion for shell {other:?}: bash, zsh and fish have one"
            )));
        }
    };
    output::print(text)?;
    Ok(0)
}

/// Prints what the last of `words` may become, one a line.
pub(crate) async fn complete(words: &[String]) -> Result<u8, Error> {
    let (typed, before) = words.split_last().map_or(("", words), |(last, before)| (last.as_str(), before));
    let mut found = candidates(before, typed).await;
    found.retain(|candidate| candidate.starts_with(typed));
    found.sort();
    found.dedup();
    output::print(&found.iter().map(|candidate| format!("{candidate}\n")).collect::<String>())?;
    Ok(0)
}

async fn candidates(before: &[String], typed: &str) -> Vec<String> {
    let Ok(global) = flag::parse(&[GLOBAL], before, false) else {
        return value_of(GLOBAL, before, &Globals::default()).await.unwrap_or_default();
    };
    if let Some(directory) = global.flags.given("config") {
        config::use_directory(directory);
    }
    let globals = Globals {
        host: global.flags.given("host").map(str::to_owned),
        context: global.flags.given("context").map(str::to_owned),
    };
    match command::find(&global.arguments) {
        Ok(Found::Everything) if typed.starts_with('-') => long_flags(GLOBAL),
        Ok(Found::Everything) => {
            let names =
                COMMANDS.iter().map(|command| command.name).chain(GROUPS.iter().map(|group| group.name));
            names.chain(["daemon", "help"]).map(str::to_owned).collect()
        }
        Ok(Found::Group(group)) => group.commands.iter().map(|command| command.name.to_owned()).collect(),
        Ok(Found::Command { command, rest, .. }) => of_command(command, rest, typed, &globals).await,
        Err(_) => Vec::new(),
    }
}

async fn of_command(
    command: &'static Command,
    rest: &[String],
    typed: &str,
    globals: &Globals,
) -> Vec<String> {
    let flags: Vec<Flag> = command.flags.iter().flat_map(|flags| flags.iter().copied()).collect();
    // `--flag=value` is one word.
    if let Some((name, _)) = typed.split_once('=').filter(|_| typed.starts_with("--")) {
        let values = value_of(&flags, &[name.to_owned()], globals).await.unwrap_or_default();
        return values.into_iter().map(|value| format!("{name}={value}")).collect();
    }
    if let Some(values) = value_of(&flags, rest, globals).await {
        return values;
    }
    let parsed = flag::parse(command.flags, rest, command.interspersed);
    let arguments = parsed.as_ref().map_or(0, |parsed| parsed.arguments.len());
    if typed.starts_with('-') && (command.interspersed || arguments == 0) {
        return long_flags(&flags);
    }
    if command.name == COMMAND.name {
        return ["bash", "zsh", "fish"].map(str::to_owned).to_vec();
    }
    let most = match command.arguments {
        Arguments::None => 0,
        Arguments::Exactly(count) | Arguments::Between(_, count) => count,
        Arguments::AtLeast(_) | Arguments::Any if command.interspersed => usize::MAX,
        // What follows the first argument is a command for the container.
        Arguments::AtLeast(_) | Arguments::Any => 1,
    };
    if arguments >= most {
        return Vec::new();
    }
    let given = parsed.map(|parsed| parsed.arguments).unwrap_or_default();
    let mut names = names(command.complete, globals).await.unwrap_or_default();
    names.retain(|name| !given.contains(name));
    names
}

/// What the last of `words` takes, if it is a flag that waits for its value; `None` if it isn't one.
async fn value_of(flags: &[Flag], words: &[String], globals: &Globals) -> Option<Vec<String>> {
    let word = words.last()?;
    let flag = flags.iter().find(|flag| {
        let is_short = flag
            .short
            .is_some_and(|letter| word.starts_with('-') && !word.starts_with("--") && word.ends_with(letter));
        flag.kind != Kind::Switch && (is_short || *word == format!("--{}", flag.long))
    })?;
    if flag.complete != Complete::Nothing {
        return Some(names(flag.complete, globals).await.unwrap_or_default());
    }
    let fixed = match (flag.long, flag.choices) {
        ("format", []) => &["json", "table"],
        ("signal" | "stop-signal", []) => SIGNALS,
        ("cap-add" | "cap-drop", []) => CAPABILITIES,
        (_, choices) => choices,
    };
    Some(fixed.iter().map(|choice| (*choice).to_owned()).collect())
}

const SIGNALS: &[&str] = &[
    "SIGABRT", "SIGALRM", "SIGCONT", "SIGHUP", "SIGINT", "SIGKILL", "SIGQUIT", "SIGSTOP", "SIGTERM",
    "SIGUSR1", "SIGUSR2", "SIGWINCH",
];

const CAPABILITIES: &[&str] = &[
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

fn long_flags(flags: &[Flag]) -> Vec<String> {
    flags.iter().filter(|flag| !flag.hidden).map(|flag| format!("--{}", flag.long)).collect()
}

/// The names of objects. A daemon that is not there has none; it isn't started for that.
async fn names(what: Complete, globals: &Globals) -> Result<Vec<String>, Error> {
    match what {
        Complete::Nothing => return Ok(Vec::new()),
        Complete::Contexts => {
            let all = Store::of_user().all().into_iter().map(|meta| meta.name);
            return Ok([DEFAULT.to_owned()].into_iter().chain(all).collect());
        }
        _ => {}
    }
    let context = Context::new(globals.clone(), Config::load())?;
    let client = context.client_if_running().await?;
    of_daemon(what, client).await
}

async fn of_daemon(what: Complete, client: &Client) -> Result<Vec<String>, Error> {
    let states: &[&str] = match what {
        Complete::RunningContainers => &["running"],
        Complete::PausedContainers => &["paused"],
        Complete::StoppedContainers => &["created", "exited"],
        _ => &[],
    };
    Ok(match what {
        Complete::Nothing | Complete::Contexts => Vec::new(),
        Complete::Containers
        | Complete::RunningContainers
        | Complete::PausedContainers
        | Complete::StoppedContainers => {
            let given: Vec<String> = states.iter().map(|state| format!("status={state}")).collect();
            let containers = client.container_list(true, 0, false, &filters(&given)).await?;
            let names = containers.into_iter().flat_map(|container| container.names);
            // Names with another slash are links of other containers.
            names
                .map(|name| name.trim_start_matches('/').to_owned())
                .filter(|name| !name.contains('/'))
                .collect()
        }
        Complete::Images => {
            let images = client.image_list(false, false, "").await?;
            let tags = images.into_iter().flat_map(|image| image.repo_tags);
            let tags = tags.filter(|name| !name.contains('<'));
            // The tag that is meant where none is said needn't be typed.
            tags.flat_map(|name| {
                let bare = name.strip_suffix(":latest").map(str::to_owned);
                [name].into_iter().chain(bare)
            })
            .collect()
        }
        Complete::Networks => {
            client.network_list("").await?.into_iter().map(|network| network.name).collect()
        }
        Complete::Volumes => {
            client.volume_list("").await?.volumes.into_iter().map(|volume| volume.name).collect()
        }
        Complete::Objects => {
            let mut all = Vec::new();
            for kind in [Complete::Containers, Complete::Images, Complete::Networks, Complete::Volumes] {
                all.extend(Box::pin(of_daemon(kind, client)).await?);
            }
            all
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on(words: &[&str], typed: &str) -> Vec<String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut found = runtime.block_on(candidates(&words, typed));
        found.retain(|candidate| candidate.starts_with(typed));
        found.sort();
        found
    }

    #[test]
    fn commands_and_flags_complete() {
        assert_eq!(block_on(&[], "re"), ["rename", "restart"]);
        assert_eq!(block_on(&["image"], "im"), ["import"]);
        assert_eq!(block_on(&["run", "--pull"], ""), ["always", "missing", "never"]);
        assert_eq!(block_on(&["run"], "--pull=n"), ["--pull=never"]);
        assert_eq!(block_on(&["run", "-it", "--restart"], "un"), ["unless-stopped"]);
        assert_eq!(block_on(&["kill", "-s"], "SIGW"), ["SIGWINCH"]);
        assert_eq!(block_on(&["ps", "--format"], ""), ["json", "table"]);
        assert_eq!(block_on(&["-l"], "d"), ["debug"]);
        assert_eq!(block_on(&["run", "busybox"], "--ca"), [""; 0]);
        assert_eq!(block_on(&["save", "-o"], ""), [""; 0]);
        assert_eq!(block_on(&["run"], "--cap"), ["--cap-add", "--cap-drop"]);
        assert_eq!(block_on(&["-H", "unix:///x", "container", "ls"], "--fo"), ["--format"]);
    }
}
