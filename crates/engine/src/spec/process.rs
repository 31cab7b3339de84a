//! The process: what is run, as whom, with which variables and rights.

use ponton_api::container::{Config, HostConfig, Ulimit};
use ponton_api::exec::ExecCreateRequest;
use ponton_oci::runtime::{Capabilities, ConsoleSize, Process, Rlimit, User};

use super::security::Security;
use super::{HostFacts, SpecInput, capability};
use crate::error::{Error, Result};

/// Where the tiny init program is in a container.
pub(super) const INIT: &str = "/sbin/docker-init";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn process(input: &SpecInput<'_>, security: &Security) -> Result<Process> {
    let SpecInput { config, host_config: host, .. } = input;
    let mut args: Vec<String> = Vec::new();
    if input.init.is_some() {
        args.extend([INIT.to_owned(), "--".to_owned()]);
    }
    args.extend(config.entrypoint.iter().flatten().cloned());
    args.extend(config.cmd.iter().flatten().cloned());
    let size = host.console_size;
    Ok(Process {
        terminal: config.tty,
        console_size: (config.tty && size != [0, 0])
            .then_some(ConsoleSize { height: size[0], width: size[1] }),
        user: user(&config.user, host),
        args,
        env: environment(config, config.tty, input.links, &[]),
        cwd: working_directory(&config.working_dir),
        capabilities: Some(sets(bounding(host, input.host)?)),
        rlimits: rlimits(host)?,
        no_new_privileges: security.no_new_privileges,
        apparmor_profile: match security.apparmor.as_str() {
            profile if input.host.apparmor && !host.privileged => profile.to_owned(),
            _ => String::new(),
        },
        oom_score_adj: Some(i32::try_from(host.oom_score_adj).unwrap_or_default()),
        ..Process::default()
    })
}

/// A further process of a container that was made with `config` and whose first process is
/// `first`.
pub fn exec(
    first: &Process,
    config: &Config,
    links: &[String],
    host: &HostFacts,
    request: &ExecCreateRequest,
) -> Process {
    let mut process = first.clone();
    process.terminal = request.tty;
    process.console_size = request
        .console_size
        .filter(|size| request.tty && *size != [0, 0])
        .map(|[height, width]| ConsoleSize { height, width });
    process.args = request.cmd.clone().unwrap_or_default();
    process.env = environment(config, request.tty, links, request.env.as_deref().unwrap_or_default());
    if !request.working_dir.is_empty() {
        process.cwd = working_directory(&request.working_dir);
    }
    if !request.user.is_empty() {
        let additional_gids = std::mem::take(&mut process.user.additional_gids);
        process.user = User { additional_gids, ..ids(&request.user) };
    }
    if request.privileged {
        process.capabilities = Some(sets(capability::all(host.last_capability)));
    }
    process
}

/// What a process of the container may at most do.
pub(super) fn bounding(host: &HostConfig, facts: &HostFacts) -> Result<Vec<String>> {
    let add = host.cap_add.as_deref().unwrap_or_default();
    let drop = host.cap_drop.as_deref().unwrap_or_default();
    let names = match &host.capabilities {
        Some(exactly) => capability::normalize(exactly, "Capabilities")?,
        None => capability::adjusted(add, drop, facts.last_capability)?,
    };
    Ok(if host.privileged { capability::all(facts.last_capability) } else { names })
}

fn sets(names: Vec<String>) -> Capabilities {
    Capabilities {
        bounding: names.clone(),
        effective: names.clone(),
        permitted: names,
        ..Capabilities::default()
    }
}

/// Variables: Docker's own, those that tell of linked containers, the container's, then further ones. A later one takes an earlier
/// one's place; one without `=` takes it away.
pub(super) fn environment(config: &Config, tty: bool, links: &[String], further: &[String]) -> Vec<String> {
    let mut variables = vec![PATH.to_owned(), format!("HOSTNAME={}", config.hostname)];
    if tty {
        variables.push("TERM=xterm".to_owned());
    }
    variables.extend_from_slice(links);
    for variable in config.env.iter().flatten().chain(further) {
        let at = variables.iter().position(|known| variable_name(known) == variable_name(variable));
        match (at, variable.contains('=')) {
            (Some(at), true) => variables[at].clone_from(variable),
            (Some(at), false) => drop(variables.remove(at)),
            (None, true) => variables.push(variable.clone()),
            (None, false) => {}
        }
    }
    variables
}

fn variable_name(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

fn working_directory(path: &str) -> String {
    if path.is_empty() { "/".to_owned() } else { path.to_owned() }
}

/// Numbers are used as they are; names are looked up by the runtime in the container's own files.
fn user(text: &str, host: &HostConfig) -> User {
    let additional_gids = host.group_add.iter().flatten().filter_map(|group| group.parse().ok()).collect();
    User { additional_gids, ..ids(text) }
}

/// The groups of `--group-add` that are names.
pub fn group_names(host: &HostConfig) -> Vec<String> {
    let is_name = |group: &&String| group.parse::<u32>().is_err();
    host.group_add.iter().flatten().filter(is_name).cloned().collect()
}

fn ids(text: &str) -> User {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let group = if group.is_empty() { Ok(0) } else { group.parse() };
    match (user.parse(), group) {
        (Ok(uid), Ok(gid)) => User { uid, gid, ..User::default() },
        _ => User { username: text.to_owned(), ..User::default() },
    }
}

pub(super) fn rlimits(host: &HostConfig) -> Result<Vec<Rlimit>> {
    host.ulimits.iter().flatten().map(rlimit).collect()
}

fn rlimit(ulimit: &Ulimit) -> Result<Rlimit> {
    ulimit.check().map_err(|error| Error::invalid(error.to_string()))?;
    let Ulimit { name, hard, soft } = ulimit;
    // -1 is no limit, as in the kernel.
    Ok(Rlimit {
        r#type: format!("RLIMIT_{}", name.to_ascii_uppercase()),
        hard: *hard as u64,
        soft: *soft as u64,
    })
}
