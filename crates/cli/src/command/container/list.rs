use std::collections::BTreeMap;

use ponton_api::container::{Summary, SummaryPort};
use ponton_api::unit;

use super::lifecycle::copy;
use crate::command::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::flag::Flag;
use crate::format::data::Data;
use crate::format::{self, Column, FORMAT, List, Row, ellipsis, label_map, labels, short_id};
use crate::{output, value};

/// `ponton ps`.
pub(crate) static PS: Command =
    Command::new("ps", "[OPTIONS]", "List containers", |call| Box::pin(list(call)))
        .flags(&[FLAGS])
        .arguments(Arguments::None, Complete::Nothing);

/// `ponton container ls`.
pub(crate) static LS: Command = copy(&PS).renamed("ls", &["ps", "list"]);

static FLAGS: &[Flag] = &[
    Flag::switch("all", "Show stopped containers too").short('a'),
    FILTER,
    FORMAT,
    Flag::int("last", "Only so many of the newest, in any state").short('n').default("-1"),
    Flag::switch("latest", "Only the newest, in any state").short('l'),
    Flag::switch("no-trunc", "Do not cut anything off"),
    Flag::switch("quiet", "Only ids").short('q'),
    Flag::switch("size", "Show how much is on disk").short('s'),
];

pub(crate) const COLUMNS: &[Column] = &[
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Labels", "LABELS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Mounts", "MOUNTS"),
    ("Names", "NAMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
    ("Ports", "PORTS"),
    ("RunningFor", "CREATED"),
    ("Size", "SIZE"),
    ("State", "STATE"),
    ("Status", "STATUS"),
];
const TABLE: &str = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";
const TABLE_WITH_SIZE: &str =
    "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}";

async fn list(call: Invocation) -> Result<u8, Error> {
    let flags = &call.flags;
    let limit = if flags.on("latest") { 1 } else { flags.int("last") };
    let format = format::chosen(flags, &call.context.config.ps_format, "");
    let size = flags.on("size") || format.contains(".Size");
    let client = call.context.client().await?;
    let all = flags.on("all") || limit > 0;
    let filters = filters(flags.all("filter"));
    let containers = client.container_list(all, limit, size, &filters).await?;
    let whole = flags.on("no-trunc");
    if flags.on("quiet") && (format.is_empty() || format == "table") {
        let mut text = String::new();
        for container in &containers {
            text.push_str(&if whole { container.id.clone() } else { short_id(&container.id) });
            text.push('\n');
        }
        output::print(&text)?;
        return Ok(0);
    }
    let now = jiff::Timestamp::now().as_second();
    let default = if size { TABLE_WITH_SIZE } else { TABLE };
    let rows = containers.iter().map(|container| row(container, whole, now)).collect();
    output::print(&List { columns: COLUMNS, default, format }.render(rows)?)?;
    Ok(0)
}

/// `--filter` of a list.
pub(crate) const FILTER: Flag = Flag::list("filter", "Only those that match (key=value)")
    .short('f')
    .named("filter")
    .check(value::check_filter);

/// `--filter key=value …` as the API's JSON; empty if there is none.
pub(crate) fn filters(given: &[String]) -> String {
    let mut by_key: BTreeMap<String, BTreeMap<&str, bool>> = BTreeMap::new();
    for (key, value) in given.iter().filter_map(|text| text.split_once('=')) {
        by_key.entry(key.trim().to_ascii_lowercase()).or_default().insert(value.trim(), true);
    }
    if by_key.is_empty() {
        return String::new();
    }
    // Maps of strings always serialise.
    serde_json::to_string(&by_key).unwrap_or_default()
}

pub(crate) fn row(container: &Summary, whole: bool, now: i64) -> Row {
    let command = if whole { container.command.clone() } else { ellipsis(&container.command, 20) };
    let names: Vec<&str> = container
        .names
        .iter()
        .map(|name| name.trim_start_matches('/'))
        // Names with another slash are links of other containers.
        .filter(|name| whole || !name.contains('/'))
        .collect();
    let mounts =
        container.mounts.iter().map(|mount| if mount.name.is_empty() { &mount.source } else { &mount.name });
    let mounts: Vec<String> =
        mounts.map(|name| if whole { name.clone() } else { ellipsis(name, 15) }).collect();
    let volumes = container.mounts.iter().filter(|mount| mount.driver == "local").count();
    let networks: Vec<&str> = container.network_settings.networks.keys().map(String::as_str).collect();
    vec![
        ("Command", Data::String(format!("{command:?}"))),
        ("CreatedAt", crate::format::go_time(container.created).into()),
        ("ID", if whole { container.id.clone() } else { short_id(&container.id) }.into()),
        ("Image", image(container, whole).into()),
        ("Label", label_map(&container.labels)),
        ("Labels", labels(&container.labels).into()),
        ("LocalVolumes", volumes.to_string().into()),
        ("Mounts", mounts.join(",").into()),
        ("Names", names.join(",").into()),
        ("Networks", networks.join(",").into()),
        ("Platform", Data::Null),
        ("Ports", ports(&container.ports).into()),
        ("RunningFor", format!("{} ago", unit::human_duration(now - container.created)).into()),
        ("Size", size(container).into()),
        ("State", container.state.clone().into()),
        ("Status", container.status.clone().into()),
    ]
}

fn image(container: &Summary, whole: bool) -> String {
    let name = container.image.as_str();
    if name.is_empty() {
        return "<no image>".to_owned();
    }
    let bare_id = container.image_id.split_once(':').map_or("", |(_, hex)| hex);
    if !whole && (name == container.image_id || !bare_id.is_empty() && bare_id.starts_with(name)) {
        return short_id(name);
    }
    if whole {
        return name.to_owned();
    }
    // A digest after a name is left out.
    name.split('@').next().unwrap_or(name).to_owned()
}

fn size(container: &Summary) -> String {
    let writable = unit::human_size(container.size_rw.unwrap_or(0));
    match container.size_root_fs {
        Some(whole) if whole > 0 => format!("{writable} (virtual {})", unit::human_size(whole)),
        _ => writable,
    }
}

/// `90-91/udp, 0.0.0.0:80-81->80-81/tcp, 0.0.0.0:8080->80/tcp`: neighbours that have the same port on both
/// sides are joined, those that have different ones come last.
fn ports(ports: &[SummaryPort]) -> String {
    let mut sorted: Vec<&SummaryPort> = ports.iter().collect();
    sorted.sort_by(|left, right| {
        let key =
            |port: &SummaryPort| (port.private_port, port.ip.clone(), port.public_port, port.r#type.clone());
        key(left).cmp(&key(right))
    });
    let mut runs: Vec<(&str, &str, u16, u16)> = Vec::new();
    let (mut texts, mut mapped) = (Vec::new(), Vec::new());
    for port in sorted {
        let here = port.private_port;
        if !port.ip.is_empty() && port.public_port != here {
            mapped.push(format!("{}:{}->{here}/{}", bracketed(&port.ip), port.public_port, port.r#type));
            continue;
        }
        match runs.iter_mut().find(|run| run.0 == port.ip && run.1 == port.r#type) {
            Some(run) if run.3 + 1 == here => run.3 = here,
            Some(run) => {
                texts.push(run_text(*run));
                *run = (run.0, run.1, here, here);
            }
            None => runs.push((&port.ip, &port.r#type, here, here)),
        }
    }
    texts.extend(runs.into_iter().map(run_text));
    texts.extend(mapped);
    texts.join(", ")
}

fn run_text((ip, protocol, first, last): (&str, &str, u16, u16)) -> String {
    let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
    match ip {
        "" => format!("{range}/{protocol}"),
        ip => format!("{}:{range}->{range}/{protocol}", bracketed(ip)),
    }
}

fn bracketed(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container() -> Summary {
        Summary {
            id: "4f1c0123456789abcdef".to_owned(),
            names: vec!["/web".to_owned(), "/other/alias".to_owned()],
            image: "busybox".to_owned(),
            command: "sh -c 'sleep 1000; echo'".to_owned(),
            created: 1_000,
            state: "running".to_owned(),
            status: "Up 3 minutes".to_owned(),
            ..Summary::default()
        }
    }

    #[test]
    fn the_table_is_dockers() {
        let rows = vec![row(&container(), false, 1_240)];
        let text = List { columns: COLUMNS, default: TABLE, format: "" }.render(rows).unwrap();
        assert_eq!(
            text,
            "CONTAINER ID   IMAGE     COMMAND                  CREATED         STATUS         PORTS     NAMES\n\
             4f1c01234567   busybox   \"sh -c 'sleep 1000; …\"   4 minutes ago   Up 3 minutes             web\n"
        );
    }

    #[test]
    fn ports_are_joined() {
        let port = |ip: &str, public: u16, private: u16, kind: &str| SummaryPort {
            ip: ip.to_owned(),
            public_port: public,
            private_port: private,
            r#type: kind.to_owned(),
        };
        assert_eq!(
            ports(&[port("0.0.0.0", 8080, 80, "tcp"), port("", 0, 81, "tcp")]),
            "81/tcp, 0.0.0.0:8080->80/tcp"
        );
        assert_eq!(ports(&[port("", 0, 90, "udp"), port("", 0, 91, "udp")]), "90-91/udp");
        assert_eq!(
            ports(&[port("0.0.0.0", 80, 80, "tcp"), port("::", 80, 80, "tcp")]),
            "0.0.0.0:80->80/tcp, [::]:80->80/tcp"
        );
        assert_eq!(
            ports(&[port("0.0.0.0", 90, 90, "tcp"), port("0.0.0.0", 91, 91, "tcp")]),
            "0.0.0.0:90-91->90-91/tcp"
        );
    }

    #[test]
    fn filters_are_json() {
        assert_eq!(filters(&[]), "");
        assert_eq!(
            filters(&["name=a".into(), "name=b".into(), "label=x=y".into()]),
            r#"{"label":{"x=y":true},"name":{"a":true,"b":true}}"#
        );
    }
}
