//! What to do about an error that says only what is wrong. A hint follows the error; it never replaces it.

mod port;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ponton_client::Host;

use crate::config::Config;
use crate::context::{Context, DEFAULT_HOST, Globals};
use crate::error::Error;

/// A hint, if there is one.
pub(crate) async fn of(error: &Error, globals: &Globals, config: &Config) -> Option<String> {
    let client = cause(error)?;
    if let Some(hint) = unreachable(client) {
        return Some(hint);
    }
    let text = client.to_string();
    if let Some(taken) = port::taken(&text) {
        let context = Context::new(globals.clone(), config.clone()).ok()?;
        return Some(port::holder(context.client_if_running().await.ok()?, taken).await);
    }
    by_text(&text)
}

/// The client's error in an error.
fn cause(error: &Error) -> Option<&ponton_client::Error> {
    match error {
        Error::Client(error) => Some(error),
        Error::Named { source, .. } => cause(source),
        _ => None,
    }
}

/// No daemon answers, or none for this user.
fn unreachable(error: &ponton_client::Error) -> Option<String> {
    let start = "start it as root with: ponton daemon (a command of root starts it by itself)";
    match error {
        ponton_client::Error::Connect { host, source } => Some(match (host.parse(), source.kind()) {
            (Ok(Host::Unix(path)), std::io::ErrorKind::NotFound) if host == DEFAULT_HOST => {
                format!("There is no socket {}: the daemon does not run; {start}.", path.display())
            }
            (Ok(Host::Unix(path)), std::io::ErrorKind::NotFound) => format!(
                "There is no socket {}. Ponton's own is {DEFAULT_HOST}; what -H, DOCKER_HOST and the context say comes \
                 before it (ponton context ls).",
                path.display()
            ),
            (Ok(Host::Unix(path)), std::io::ErrorKind::ConnectionRefused) => {
                format!("The socket {} is there, but its daemon has ended; {start}.", path.display())
            }
            (Ok(Host::Tcp(address)), _) => format!("Nothing answers at {address}: {source}."),
            _ => return None,
        }),
        ponton_client::Error::Permission { host, .. } => {
            let Ok(Host::Unix(path)) = host.parse() else { return None };
            Some(permission(&path))
        }
        _ => None,
    }
}

/// Who may use the socket, and how to become one of them.
fn permission(socket: &Path) -> String {
    let group = std::fs::metadata(socket).ok().map(|metadata| metadata.gid()).filter(|gid| *gid != 0);
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    match group.map(|gid| group_name(&groups, gid)) {
        Some(name) => format!(
            "The socket {} is for root and the group {name}. Join it with: sudo usermod -aG {name} $USER, and log in \
             again. Its members can become root.",
            socket.display()
        ),
        None => format!(
            "The socket {} is for root alone: use sudo, or give it a group with: ponton daemon --group NAME.",
            socket.display()
        ),
    }
}

/// The name of a group; its number if it has none.
fn group_name(groups: &str, gid: u32) -> String {
    let number = gid.to_string();
    groups
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&number.as_str()))
        .map_or(number.clone(), |fields| fields[0].to_owned())
}

/// What the daemon said, and what helps.
fn by_text(text: &str) -> Option<String> {
    let has = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    if has(&["no space left on device", "No space left on device"]) {
        return Some(
            "The disk is full. What takes space: ponton system df -v; to free what is not used: ponton system prune \
             (-a for all unused images)."
                .to_owned(),
        );
    }
    if let Some((name, id)) = name_in_use(text) {
        return Some(format!(
            "Remove that container with: ponton rm -f {name}; or keep it under another name with: ponton rename {name} \
             {name}-old. It is container {id}."
        ));
    }
    if has(&["pull access denied", "requested access to the resource is denied", "unauthorized:"]) {
        return Some(
            "Is the image's name right (ponton search NAME looks on Docker Hub)? If the repository is private: ponton \
             login [REGISTRY]."
                .to_owned(),
        );
    }
    if has(&["manifest unknown", "manifest for "]) && has(&["not found", "manifest unknown"]) {
        return Some(
            "The repository is there, but it has no such tag or digest; without a tag, latest is meant."
                .to_owned(),
        );
    }
    if has(&["no matching manifest for"]) {
        return Some(
            "The image is not made for this machine: another platform is had with --platform.".to_owned(),
        );
    }
    if has(&["executable file not found"]) {
        return Some(
            "The image has no such program in its PATH. What it has: ponton image explore IMAGE; another way in: \
             --entrypoint."
                .to_owned(),
        );
    }
    None
}

/// The name and the container of `The container name "/web" is already in use by container "4f1c…"`.
fn name_in_use(text: &str) -> Option<(&str, &str)> {
    let (_, rest) = text.split_once("The container name \"/")?;
    let (name, rest) = rest.split_once("\" is already in use by container \"")?;
    Some((name, rest.split('"').next()?.get(..12)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_say_what_to_do() {
        let id = "4f1c".repeat(16);
        for (text, part) in [
            ("write /x: no space left on device", "ponton system prune"),
            (
                &*format!(
                    "Conflict. The container name \"/web\" is already in use by container \"{id}\". You have to"
                ),
                "ponton rename web web-old. It is container 4f1c4f1c4f1c.",
            ),
            (
                "pull access denied for x, repository does not exist or may require 'docker login'",
                "ponton login",
            ),
            ("manifest for busybox:nosuch not found: manifest unknown: x", "no such tag"),
            ("no matching manifest for linux/arm64", "--platform"),
            ("exec: \"x\": executable file not found in $PATH", "--entrypoint"),
        ] {
            let hint = by_text(text).unwrap_or_default();
            assert!(hint.contains(part), "{text}: {hint}");
        }
        assert_eq!(by_text("No such container: x"), None);
        assert_eq!(by_text("No such image: x:latest"), None);
    }

    #[test]
    fn a_socket_has_a_group() {
        let groups = "root:x:0:\ndocker:x:998:me\n";
        assert_eq!(group_name(groups, 998), "docker");
        assert_eq!(group_name(groups, 5), "5");
    }

    #[test]
    fn who_is_not_there_can_be_started() {
        let error = |host: &str, kind: std::io::ErrorKind| ponton_client::Error::Connect {
            host: host.to_owned(),
            source: kind.into(),
        };
        let hint = |host: &str, kind| unreachable(&error(host, kind)).unwrap_or_default();
        assert!(hint(DEFAULT_HOST, std::io::ErrorKind::NotFound).contains("ponton daemon"));
        assert!(hint("unix:///x", std::io::ErrorKind::NotFound).contains("ponton context ls"));
        assert!(hint("unix:///x", std::io::ErrorKind::ConnectionRefused).contains("has ended"));
        assert!(hint("tcp://h:1", std::io::ErrorKind::ConnectionRefused).contains("h:1"));
    }
}
