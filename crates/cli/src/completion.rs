//! Shell completion: small scripts that ask the program itself, which answers from the table of commands and
//! from the daemon.

use crate::command::{self, Arguments, COMMANDS, Command, Complete, Found, GLOBAL, GROUPS, Invocation};
use crate::context::Context;
use crate::error::Error;
use crate::flag::{Flag, Kind};
use crate::output;

/// The word by which the scripts ask.
pub(crate) const COMPLETE: &str = "__complete";

/// `ponton completion`.
pub(crate) static COMMAND: Command =
    Command::new("completion", "SHELL", "Print the completion script of bash, zsh or fish", |call| {
        Box::pin(async move { script(&call) })
    })
    .arguments(Arguments::Exactly(1), Complete::Nothing);

const BASH: &str = r#"_ponton() {
    local IFS=$'\n'
    COMPREPLY=($(ponton __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
    if [ ${#COMPREPLY[@]} -eq 0 ]; then
        COMPREPLY=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}"))
    fi
}
complete -F _ponton ponton
"#;
const ZSH: &str = r#"#compdef ponton
_ponton() {
    local -a found
    found=("${(@f)$(ponton __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${found[1]}" ]]; then
        compadd -- "${found[@]}"
    else
        _files
    fi
}
compdef _ponton ponton
"#;
const FISH: &str = r"complete -c ponton -f -a '(ponton __complete (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'
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
    let (host, words) = without_globals(before);
    match command::find(words) {
        Ok(Found::Everything) if typed.starts_with('-') => long_flags(GLOBAL),
        Ok(Found::Everything) => {
            let names =
                COMMANDS.iter().map(|command| command.name).chain(GROUPS.iter().map(|group| group.name));
            names.chain(["daemon", "help"]).map(str::to_owned).collect()
        }
        Ok(Found::Group(group)) => group.commands.iter().map(|command| command.name.to_owned()).collect(),
        Ok(Found::Command { command, rest, .. }) => {
            let flags: Vec<Flag> = command.flags.iter().flat_map(|flags| flags.iter().copied()).collect();
            if typed.starts_with('-') {
                return long_flags(&flags);
            }
            let takes_value = |word: &String| {
                flags.iter().find(|flag| {
                    let is_short = flag.short.is_some_and(|letter| *word == format!("-{letter}"));
                    flag.kind != Kind::Switch && (is_short || *word == format!("--{}", flag.long))
                })
            };
            if let Some(flag) = rest.last().and_then(takes_value) {
                return flag.choices.iter().map(|choice| (*choice).to_owned()).collect();
            }
            if command.name == COMMAND.name {
                return ["bash", "zsh", "fish"].map(str::to_owned).to_vec();
            }
            // A daemon that is not there completes nothing; none is started for it.
            names(command.complete, host).await.unwrap_or_default()
        }
        Err(_) => Vec::new(),
    }
}

/// The host of `-H`, and the words after the flags that stand before a command.
fn without_globals(mut words: &[String]) -> (Option<&str>, &[String]) {
    let mut host = None;
    while let [flag, rest @ ..] = words {
        match (flag.as_str(), rest) {
            ("-H" | "--host", [value, rest @ ..]) => {
                host = Some(value.as_str());
                words = rest;
            }
            (flag, _) if flag.starts_with('-') => words = rest,
            _ => break,
        }
    }
    (host, words)
}

fn long_flags(flags: &[Flag]) -> Vec<String> {
    flags.iter().filter(|flag| !flag.hidden).map(|flag| format!("--{}", flag.long)).collect()
}

async fn names(what: Complete, host: Option<&str>) -> Result<Vec<String>, Error> {
    let context = Context::new(host)?;
    let client = context.client_if_running().await?;
    Ok(match what {
        Complete::Nothing => Vec::new(),
        Complete::Containers | Complete::RunningContainers => {
            let containers = client.container_list(what == Complete::Containers, 0, false, "").await?;
            let names = containers.into_iter().flat_map(|container| container.names);
            names.map(|name| name.trim_start_matches('/').to_owned()).collect()
        }
        Complete::Images => {
            let images = client.image_list(false, false, "").await?;
            images.into_iter().flat_map(|image| image.repo_tags).filter(|name| !name.contains('<')).collect()
        }
        Complete::Networks => {
            client.network_list("").await?.into_iter().map(|network| network.name).collect()
        }
        Complete::Volumes => {
            client.volume_list("").await?.volumes.into_iter().map(|volume| volume.name).collect()
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
        assert_eq!(block_on(&["save", "-o"], ""), [""; 0]);
        assert_eq!(block_on(&["run"], "--cap"), ["--cap-add", "--cap-drop"]);
        assert_eq!(block_on(&["-H", "unix:///x", "container", "ls"], "--fo"), ["--format"]);
    }
}
