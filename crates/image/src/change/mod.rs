//! `--change`: instructions of a Dockerfile that change an image's configuration.

mod word;

use std::collections::BTreeMap;

use ponton_api::unit::parse_duration;
use ponton_oci::image_config::{ContainerConfig, Empty, Healthcheck};

use crate::{Error, Result};

/// Applies instructions as `import` and `commit` take them: `CMD`, `ENTRYPOINT`, `ENV`, `EXPOSE`,
/// `HEALTHCHECK`, `LABEL`, `ONBUILD`, `STOPSIGNAL`, `USER`, `VOLUME` and `WORKDIR`. Together they are
/// read as a Dockerfile, with comments and continued lines. On an error nothing is changed.
pub fn apply(changes: &[String], config: &mut ContainerConfig) -> Result<()> {
    let mut changed = config.clone();
    let mut has_command = false;
    for line in lines(&changes.join("\n")) {
        Instruction::parse(&line).apply(&mut changed, &mut has_command)?;
    }
    *config = changed;
    Ok(())
}

/// Lines without comments; those that end in a backslash go on in the next.
fn lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut current = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with('#') || (!current.is_empty() && line.trim().is_empty()) {
            continue;
        }
        if let Some(start) = line.trim_end().strip_suffix('\\') {
            current.push_str(start);
            continue;
        }
        current.push_str(line);
        lines.push(std::mem::take(&mut current));
    }
    lines.push(current);
    lines.retain(|line| !line.trim().is_empty());
    lines
}

/// One instruction.
struct Instruction<'a> {
    line: &'a str,
    /// In capitals.
    name: String,
    rest: &'a str,
}

impl<'a> Instruction<'a> {
    fn parse(line: &'a str) -> Self {
        let line = line.trim();
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        Self { line, name: name.to_ascii_uppercase(), rest: rest.trim() }
    }

    fn apply(&self, config: &mut ContainerConfig, has_command: &mut bool) -> Result<()> {
        let rest = self.rest;
        if rest.is_empty() && !matches!(self.name.as_str(), "CMD" | "ENTRYPOINT") {
            return Err(self.invalid("requires an argument"));
        }
        match self.name.as_str() {
            "CMD" => {
                config.cmd = Some(self.command(config)?);
                config.args_escaped = false;
                *has_command = true;
            }
            "ENTRYPOINT" => {
                config.entrypoint = Some(self.command(config)?);
                // The command was meant for another entry point.
                if !*has_command {
                    config.cmd = None;
                }
            }
            "ENV" => {
                let variables = self.pairs(&config.env)?;
                for (name, value) in &variables {
                    set_variable(&mut config.env, name, value);
                }
            }
            "LABEL" => config.labels.extend(self.pairs(&config.env)?),
            "EXPOSE" => {
                for port in word::split(rest) {
                    let port = self.expand(&port, config)?;
                    expose(&port, &mut config.exposed_ports)
                        .ok_or_else(|| self.invalid(&format!("invalid port {port:?}")))?;
                }
            }
            "VOLUME" => self.volumes(config)?,
            "USER" => config.user = self.expand(rest, config)?,
            "WORKDIR" => config.working_dir = join(&config.working_dir, &self.expand(rest, config)?),
            "STOPSIGNAL" => {
                let signal = self.expand(rest, config)?;
                if !is_signal(&signal) {
                    return Err(self.invalid(&format!("invalid signal {signal:?}")));
                }
                config.stop_signal = Some(signal);
            }
            "ONBUILD" => {
                let trigger = Instruction::parse(rest).name;
                if matches!(trigger.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
                    return Err(self.invalid(&format!("{trigger} isn't allowed as an ONBUILD trigger")));
                }
                config.on_build.get_or_insert_default().push(rest.to_owned());
            }
            "HEALTHCHECK" => config.healthcheck = Some(self.healthcheck()?),
            other => return Err(Error::Invalid(format!("{other} is not a valid change command"))),
        }
        Ok(())
    }

    fn invalid(&self, why: &str) -> Error {
        Error::Invalid(format!("change {:?}: {why}", self.line))
    }

    fn expand(&self, word: &str, config: &ContainerConfig) -> Result<String> {
        word::expand(word, &config.env).map_err(|why| self.invalid(&why))
    }

    /// JSON's array, or a command for the shell.
    fn command(&self, config: &ContainerConfig) -> Result<Vec<String>> {
        if let Some(words) = self.json_words(self.rest)? {
            return Ok(words);
        }
        if self.rest.is_empty() {
            return Ok(Vec::new());
        }
        let shell = config.shell.clone().unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
        Ok(shell.into_iter().chain([self.rest.to_owned()]).collect())
    }

    /// Of what looks like JSON and is none, the shell makes something.
    fn json_words(&self, text: &str) -> Result<Option<Vec<String>>> {
        let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else { return Ok(None) };
        let words = values.into_iter().map(|value| match value {
            serde_json::Value::String(word) => Ok(word),
            _ => Err(self.invalid("when using JSON array syntax, arrays must be comprised of strings only")),
        });
        words.collect::<Result<_>>().map(Some)
    }

    /// `a=b "c"="d e"`, or the old form `name all the rest`. Variables are those from before.
    fn pairs(&self, environment: &[String]) -> Result<BTreeMap<String, String>> {
        let expand = |word: &str| word::expand(word, environment).map_err(|why| self.invalid(&why));
        let words = word::split(self.rest);
        let must = || self.invalid("must be of the form: name=value");
        let is_old = words.first().is_none_or(|first| !first.contains('='));
        let pairs: Vec<(&str, &str)> = if is_old {
            let (name, value) = self.rest.split_once(char::is_whitespace).ok_or_else(must)?;
            vec![(name, value.trim_start())]
        } else {
            words.iter().map(|word| word.split_once('=').ok_or_else(must)).collect::<Result<_>>()?
        };
        let mut result = BTreeMap::new();
        for (name, value) in pairs {
            let name = expand(name)?;
            if name.is_empty() {
                return Err(self.invalid("names can not be blank"));
            }
            result.insert(name, expand(value)?);
        }
        Ok(result)
    }

    fn volumes(&self, config: &mut ContainerConfig) -> Result<()> {
        let words = match self.json_words(self.rest)? {
            Some(words) => words,
            None => word::split(self.rest),
        };
        for word in words {
            let path = self.expand(&word, config)?;
            if path.trim().is_empty() {
                return Err(self.invalid("VOLUME specified can not be an empty string"));
            }
            config.volumes.insert(path, Empty {});
        }
        Ok(())
    }

    fn healthcheck(&self) -> Result<Healthcheck> {
        let mut check = Healthcheck::default();
        let mut rest = self.rest;
        while let Some(option) = rest.strip_prefix("--") {
            let (option, after) = option.split_once(char::is_whitespace).unwrap_or((option, ""));
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            match name {
                "interval" => check.interval = self.time(value)?,
                "timeout" => check.timeout = self.time(value)?,
                "start-period" => check.start_period = self.time(value)?,
                "start-interval" => check.start_interval = self.time(value)?,
                "retries" => {
                    let retries =
                        value.parse().ok().filter(|retries| (0..=i64::from(i32::MAX)).contains(retries));
                    check.retries =
                        retries.ok_or_else(|| self.invalid(&format!("invalid retries {value:?}")))?;
                }
                _ => return Err(self.invalid(&format!("unknown flag --{name}"))),
            }
            rest = after.trim_start();
        }
        let (kind, arguments) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        check.test = match (kind.to_ascii_uppercase().as_str(), arguments.trim()) {
            ("NONE", "") => vec!["NONE".to_owned()],
            ("CMD", "") => return Err(self.invalid("missing command after HEALTHCHECK CMD")),
            ("CMD", arguments) => match self.json_words(arguments)? {
                Some(words) => ["CMD".to_owned()].into_iter().chain(words).collect(),
                None => vec!["CMD-SHELL".to_owned(), arguments.to_owned()],
            },
            _ => return Err(self.invalid("must be NONE or CMD")),
        };
        Ok(check)
    }

    /// Nanoseconds; nothing below one millisecond but 0, which is the default.
    fn time(&self, value: &str) -> Result<i64> {
        let time = parse_duration(value).map_err(|error| self.invalid(&error.to_string()))?;
        if time != 0 && time < 1_000_000 {
            return Err(self.invalid(&format!("{value:?} cannot be less than 1ms")));
        }
        Ok(time)
    }
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

/// A number, or a name with or without `SIG`.
fn is_signal(text: &str) -> bool {
    const NAMES: &str = " ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV \
                         STKFLT STOP SYS TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX ";
    if let Ok(number) = text.parse::<u32>() {
        return (1..=64).contains(&number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let real_time = |from: &str, most: u32| {
        name.strip_prefix(from)
            .and_then(|offset| offset.parse().ok())
            .is_some_and(|offset: u32| offset <= most)
    };
    let is_name = !name.is_empty() && !name.contains(' ') && NAMES.contains(&format!(" {name} "));
    is_name || real_time("RTMIN+", 15) || real_time("RTMAX-", 14)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply_lines(lines: &[&str], config: &mut ContainerConfig) -> Result<()> {
        apply(&lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>(), config)
    }

    fn changed(lines: &[&str]) -> ContainerConfig {
        let mut config = ContainerConfig { cmd: Some(vec!["old".to_owned()]), ..ContainerConfig::default() };
        apply_lines(lines, &mut config).unwrap();
        config
    }

    #[test]
    fn commands_in_both_forms() {
        let config = changed(&["entrypoint echo $HOME"]);
        assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "echo $HOME"]);
        assert_eq!(config.cmd, None);
        let config = changed(&["CMD [\"sh\", \"-x\"]", "ENTRYPOINT [\"tini\"]"]);
        assert_eq!(config.cmd.unwrap(), ["sh", "-x"]);
        assert_eq!(changed(&["CMD"]).cmd.unwrap(), [""; 0]);
        assert_eq!(changed(&["CMD [sh]"]).cmd.unwrap(), ["/bin/sh", "-c", "[sh]"]);
    }

    #[test]
    fn variables_labels_and_paths() {
        let config = changed(&[
            "ENV A=1 B=\"two words\"",
            "ENV A 3 4",
            "ENV C=$A:x D='$A'",
            "LABEL a=b c='d e' f=$C",
            "WORKDIR /a/b",
            "WORKDIR ../c",
            "VOLUME /x $C",
            "VOLUME [\"/z\"]",
            "EXPOSE 80 53/udp 8000-8001",
            "USER 1000:1000",
            "STOPSIGNAL sigusr1",
            "ONBUILD  RUN make",
        ]);
        assert_eq!(config.env, ["A=3 4", "B=two words", "C=3 4:x", "D=$A"]);
        assert_eq!((config.labels["c"].as_str(), config.labels["f"].as_str()), ("d e", "3 4:x"));
        assert_eq!(config.working_dir, "/a/c");
        assert_eq!(config.volumes.keys().collect::<Vec<_>>(), ["/x", "/z", "3 4:x"]);
        let ports: Vec<_> = config.exposed_ports.keys().collect();
        assert_eq!(ports, ["53/udp", "80/tcp", "8000/tcp", "8001/tcp"]);
        assert_eq!((config.user.as_str(), config.stop_signal.as_deref()), ("1000:1000", Some("sigusr1")));
        assert_eq!(config.on_build.unwrap(), ["RUN make"]);
    }

    #[test]
    fn lines_are_those_of_a_dockerfile() {
        let config = changed(&["# nothing\nENV A=1 \\\n  # comment\n\n  B=2\n\nUSER x", "", "ENV C=3"]);
        assert_eq!(config.env, ["A=1", "B=2", "C=3"]);
        assert_eq!(config.user, "x");
    }

    #[test]
    fn health_checks() {
        let check = changed(&["HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f x"]).healthcheck.unwrap();
        assert_eq!((check.interval, check.retries), (90_000_000_000, 3));
        assert_eq!(check.test, ["CMD-SHELL", "curl -f x"]);
        let check = changed(&["HEALTHCHECK --timeout=0s CMD [\"a\"]"]).healthcheck.unwrap();
        assert_eq!(check.test, ["CMD", "a"]);
        assert_eq!(changed(&["HEALTHCHECK none"]).healthcheck.unwrap().test, ["NONE"]);
    }

    /// Pieces of instructions in every order: no panic, and what is refused changes nothing.
    #[test]
    fn nonsense_is_refused_whole() {
        const PIECES: &[&str] = &[
            "ENV ",
            "LABEL ",
            "CMD ",
            "EXPOSE ",
            "VOLUME ",
            "HEALTHCHECK ",
            "ONBUILD ",
            "WORKDIR ",
            "A=",
            "$A",
            "${A",
            ":-",
            "}",
            "\"",
            "'",
            "\\",
            "\n",
            " ",
            "[",
            "]",
            ",",
            "--interval=",
            "1s",
            "80-",
            "/udp",
            "x",
            "ä",
            "..",
            "#",
        ];
        let mut state = 1u64;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let (mut taken, mut config) = (0, ContainerConfig::default());
        for _ in 0..20_000 {
            let length = 1 + next(8);
            let text: String = (0..length).map(|_| PIECES[next(PIECES.len())]).collect();
            let before = config.clone();
            match apply(std::slice::from_ref(&text), &mut config) {
                Ok(()) => (taken, config) = (taken + 1, ContainerConfig::default()),
                Err(_) => assert_eq!(config, before, "{text:?}"),
            }
        }
        assert!(taken > 100, "{taken}");
    }

    #[test]
    fn what_is_wrong_is_refused_and_changes_nothing() {
        for line in [
            "RUN ls",
            "FROM x",
            "ENV",
            "ENV =x",
            "ENV A=1 B",
            "ENV A='",
            "LABEL a",
            "CMD [1]",
            "VOLUME [\"\"]",
            "EXPOSE 99999",
            "EXPOSE 80/icmp",
            "STOPSIGNAL SIGNO",
            "STOPSIGNAL 65",
            "HEALTHCHECK x",
            "HEALTHCHECK NONE x",
            "HEALTHCHECK --interval=x CMD y",
            "HEALTHCHECK --interval=1us CMD y",
            "HEALTHCHECK --retries=-1 CMD y",
            "ONBUILD FROM x",
        ] {
            let mut config = ContainerConfig::default();
            assert!(apply_lines(&["ENV A=1", line], &mut config).is_err(), "{line}");
            assert_eq!(config, ContainerConfig::default());
        }
    }
}
