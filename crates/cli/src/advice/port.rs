//! Who has a port of this host.

use std::fs;

use ponton_client::{Client, Host};

/// A port that is not free.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    port: u16,
}

/// The port of `Bind for 0.0.0.0:8080 failed: port is already allocated` and of
/// `listen tcp4 0.0.0.0:8080: bind: address already in use`.
pub(super) fn taken(text: &str) -> Option<Taken> {
    let before =
        text.split(" failed: port is already allocated").next().filter(|before| before.len() < text.len());
    let before = before
        .or_else(|| text.split(": bind: address already in use").next().filter(|b| b.len() < text.len()))?;
    let port = before.rsplit(':').next()?.parse().ok()?;
    Some(Taken { port })
}

/// What has it, and what to do.
pub(super) async fn holder(client: &Client, taken: Taken) -> String {
    let port = taken.port;
    let other = "or publish another port of the host";
    let containers = client.container_list(false, 0, false, "").await.unwrap_or_default();
    let publishes = |container: &&ponton_api::container::Summary| {
        container.ports.iter().any(|published| published.public_port == port)
    };
    if let Some(container) = containers.iter().find(publishes) {
        let name =
            container.names.first().map_or(container.id.as_str(), String::as_str).trim_start_matches('/');
        return format!("Port {port} is published by container {name}: ponton stop {name}, {other}.");
    }
    // Of another host's processes nothing can be said.
    let local = matches!(client.host(), Host::Unix(_));
    match inode(port).filter(|_| local).and_then(process) {
        Some((pid, name)) => {
            format!(
                "Port {port} is used by process {pid} ({name}), which is no container's: stop it, {other}."
            )
        }
        None => {
            format!("Who uses port {port} is told by: sudo ss -lntup 'sport = :{port}'. Stop it, {other}.")
        }
    }
}

/// The socket that listens on a port.
fn inode(port: u16) -> Option<u64> {
    let tables = ["tcp", "tcp6", "udp", "udp6"].map(|table| fs::read_to_string(format!("/proc/net/{table}")));
    tables.into_iter().flatten().find_map(|table| find(&table, port))
}

/// `sl local_address rem_address st … inode`: listening TCP has state 0A, UDP 07.
fn find(table: &str, port: u16) -> Option<u64> {
    let port = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listens = matches!(*fields.get(3)?, "0A" | "07");
        if listens && fields.get(1)?.ends_with(&port) { fields.get(9)?.parse().ok() } else { None }
    })
}

/// The process that has a socket. Those of other users are seen by root alone.
fn process(inode: u64) -> Option<(u32, String)> {
    let socket = format!("socket:[{inode}]");
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let mut files = fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
        let has = files
            .any(|file| fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == socket.as_str()));
        if has {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            return Some((pid, name.trim().to_owned()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_from_errors() {
        let port = |text: &str| taken(text).map(|taken| taken.port);
        assert_eq!(port("x (4f): Bind for 0.0.0.0:8080 failed: port is already allocated"), Some(8080));
        assert_eq!(port("listen tcp4 127.0.0.1:80: bind: address already in use"), Some(80));
        assert_eq!(port("something else: port"), None);
    }

    #[test]
    fn the_process_of_a_port_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (pid, _) = inode(port).and_then(process).unwrap();
        assert_eq!(pid, std::process::id());
        assert_eq!(find("header\n", port), None);
    }
}
