//! `--change`: a Dockerfile instruction applied to an image's configuration.

use std::collections::BTreeMap;

use ponton_oci::image_config::{ContainerConfig, Empty, Healthcheck};

use crate::{Error, Result};

/// Applies one instruction: `CMD`, `ENTRYPOINT`, `ENV`, `EXPOSE`, `HEALTHCHECK`, `LABEL`,
/// `ONBUILD`, `STOPSIGNAL`, `USER`, `VOLUME` or `WORKDIR`.
pub fn apply(line: &str, config: &mut ContainerConfig) -> Result<()> {
    let line = line.trim();
    let (instruction, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let instruction = instruction.to_ascii_uppercase();
    if rest.is_empty() && instruction != "CMD" && instruction != "ENTRYPOINT" {
        return Err(invalid(line, "requires an argument"));
    }
    match instruction.as_str() {
        "CMD" => {
            config.cmd = Some(command(rest, config));
            config.args_escaped = false;
        }
        "ENTRYPOINT" => {
            config.entrypoint = Some(command(rest, config));
            // The command was meant for another entry point.
            config.cmd = None;
        }
        "ENV" => {
            for (name, value) in pairs(rest).ok_or_else(|| invalid(line, "must be NAME=value"))? {
                set_variable(&mut config.env, &name, &value);
            }
        }
        "LABEL" => {
            config.labels.extend(pairs(rest).ok_or_else(|| invalid(line, "must be NAME=value"))?);
        }
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                expose(port, &mut config.exposed_ports)
                    .ok_or_else(|| invalid(line, &format!("invalid port {port:?}")))?;
            }
        }
        "VOLUME" => {
            let paths = json_words(rest).unwrap_or_else(|| words(rest));
            if paths.iter().any(String::is_empty) {
                return Err(invalid(line, "a volume's path must not be empty"));
            }
            config.volumes.extend(paths.into_iter().map(|path| (path, Empty {})));
        }
        "USER" => rest.clone_into(&mut config.user),
        "WORKDIR" => config.working_dir = join(&config.working_dir, rest),
        "STOPSIGNAL" => config.stop_signal = Some(rest.to_owned()),
        "ONBUILD" => {
            let trigger = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
            if matches!(trigger.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
                return Err(invalid(line, &format!("{trigger} isn't allowed as an ONBUILD trigger")));
            }
            config.on_build.get_or_insert_default().push(rest.to_owned());
        }
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(line, rest)?),
        other => {
            return Err(Error::Invalid(format!("{other} is not a valid change command")));
        }
    }
    Ok(())
}

fn invalid(line: &str, why: &str) -> Error {
    Error::Invalid(format!("change {line:?}: {why}"))
}

/// JSON's array, or a command for the shell.
fn command(text: &str, config: &ContainerConfig) -> Vec<String> {
    if let Some(words) = json_words(text) {
        return words;
    }
    if text.is_empty() {
        return Vec::new();
    }
    let shell = config.shell.clone().unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
    shell.into_iter().chain([text.to_owned()]).collect()
}

fn json_words(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok())?
}

/// Words between blanks; quotes and backslashes as the Dockerfile has them.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut in_word = false;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None, ' ' | '\t') => {
                if std::mem::take(&mut in_word) {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            (None | Some('"'), '\\') => word.extend(characters.next()),
            _ => word.push(character),
        }
        in_word = true;
    }
    if in_word {
        words.push(word);
    }
    words
}

/// `a=b "c"="d e"`, or the old form `name all the rest`.
fn pairs(text: &str) -> Option<BTreeMap<String, String>> {
    let first = text.split(char::is_whitespace).next().unwrap_or_default();
    if !first.contains('=') {
        let (name, value) = text.split_once(char::is_whitespace)?;
        return Some(BTreeMap::from([(name.to_owned(), value.trim().to_owned())]));
    }
    words(text)
        .into_iter()
        .map(|word| {
            let (name, value) = word.split_once('=')?;
            (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
        })
        .collect()
}

fn set_variable(env: &mut Vec<String>, name: &str, value: &str) {
    let variable = format!("{name}={value}");
    let known = env.iter_mut().find(|known| known.split_once('=').is_some_and(|(known, _)| known == name));
    match known {
        Some(known) => *known = variable,
        None => env.push(variable),
    }
}

/// `80`, `80/udp`, `8000-8010/tcp`.
fn expose(text: &str, ports: &mut BTreeMap<String, Empty>) -> Option<()> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return None;
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    if first == 0 || last < first {
        return None;
    }
    ports.extend((first..=last).map(|port| (format!("{port}/{protocol}"), Empty {})));
    Some(())
}

fn join(base: &str, path: &str) -> String {
    let joined = if path.starts_with('/') { path.to_owned() } else { format!("/{base}/{path}") };
    let mut components = Vec::new();
    for component in joined.split('/') {
        match component {
            "" | "." => {}
            ".." => drop(components.pop()),
            name => components.push(name),
        }
    }
    format!("/{}", components.join("/"))
}

fn healthcheck(line: &str, text: &str) -> Result<Healthcheck> {
    let mut check = Healthcheck::default();
    let mut rest = text;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option.split_once(char::is_whitespace).unwrap_or((option, ""));
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let time = || duration(value).ok_or_else(|| invalid(line, &format!("invalid duration {value:?}")));
        match name {
            "interval" => check.interval = time()?,
            "timeout" => check.timeout = time()?,
            "start-period" => check.start_period = time()?,
            "start-interval" => check.start_interval = time()?,
            "retries" => {
                check.retries =
                    value.parse().map_err(|_| invalid(line, &format!("invalid number {value:?}")))?;
            }
            _ => return Err(invalid(line, &format!("unknown flag --{name}"))),
        }
        rest = after.trim_start();
    }
    let (kind, arguments) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    check.test = match (kind.to_ascii_uppercase().as_str(), arguments.trim()) {
        ("NONE", "") => vec!["NONE".to_owned()],
        ("CMD", "") => return Err(invalid(line, "missing command after HEALTHCHECK CMD")),
        ("CMD", arguments) => match json_words(arguments) {
            Some(words) => ["CMD".to_owned()].into_iter().chain(words).collect(),
            None => vec!["CMD-SHELL".to_owned(), arguments.to_owned()],
        },
        _ => return Err(invalid(line, "must be NONE or CMD")),
    };
    Ok(check)
}

/// Go's durations, `1m30s`, in nanoseconds.
fn duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit() && character != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let units = rest[digits..]
            .find(|character: char| character.is_ascii_digit())
            .map_or(rest.len(), |end| digits + end);
        let unit = match &rest[digits..units] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[units..];
    }
    (!text.is_empty() && total < 1e18).then_some(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(lines: &[&str]) -> ContainerConfig {
        let mut config = ContainerConfig::default();
        for line in lines {
            apply(line, &mut config).unwrap();
        }
        config
    }

    #[test]
    fn commands_in_both_forms() {
        let config = changed(&["CMD [\"sh\", \"-x\"]", "entrypoint echo $HOME"]);
        assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "echo $HOME"]);
        assert_eq!(config.cmd, None);
        assert_eq!(changed(&["CMD [\"sh\", \"-x\"]"]).cmd.unwrap(), ["sh", "-x"]);
    }

    #[test]
    fn variables_labels_and_paths() {
        let config = changed(&[
            "ENV A=1 B=\"two words\"",
            "ENV A 3 4",
            "LABEL a=b c='d e'",
            "WORKDIR /a/b",
            "WORKDIR ../c",
            "VOLUME /x /y",
            "VOLUME [\"/z\"]",
            "EXPOSE 80 53/udp 8000-8001",
            "USER 1000:1000",
        ]);
        assert_eq!(config.env, ["A=3 4", "B=two words"]);
        assert_eq!(config.labels["c"], "d e");
        assert_eq!(config.working_dir, "/a/c");
        assert_eq!(config.volumes.keys().collect::<Vec<_>>(), ["/x", "/y", "/z"]);
        let ports: Vec<_> = config.exposed_ports.keys().collect();
        assert_eq!(ports, ["53/udp", "80/tcp", "8000/tcp", "8001/tcp"]);
        assert_eq!(config.user, "1000:1000");
    }

    #[test]
    fn health_checks() {
        let check = changed(&["HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f x"]).healthcheck.unwrap();
        assert_eq!((check.interval, check.retries), (90_000_000_000, 3));
        assert_eq!(check.test, ["CMD-SHELL", "curl -f x"]);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for line in [
            "",
            "RUN ls",
            "FROM x",
            "ENV",
            "ENV =x",
            "EXPOSE 99999",
            "EXPOSE 80/icmp",
            "HEALTHCHECK x",
            "HEALTHCHECK --interval=x CMD y",
            "ONBUILD FROM x",
        ] {
            assert!(apply(line, &mut ContainerConfig::default()).is_err(), "{line}");
        }
    }
}
