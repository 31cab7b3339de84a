//! `ponton network …`.

use super::container::{FILTER, filters};
use super::inspect::NETWORK_INSPECT;
use super::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::flag::Flag;
use crate::format::{self, Column, FORMAT, List, Row, label_map, labels, short_id};
use crate::output;

/// The commands of the noun.
pub(crate) static COMMANDS: &[&Command] = &[&NETWORK_INSPECT, &LS];

static LS: Command = Command::new("ls", "[OPTIONS]", "List networks", |call| Box::pin(list(call)))
    .aliases(&["list"])
    .flags(&[&[
        FILTER,
        FORMAT,
        Flag::switch("no-trunc", "Do not cut ids off"),
        Flag::switch("quiet", "Only ids").short('q'),
    ]])
    .arguments(Arguments::None, Complete::Nothing);

const COLUMNS: &[Column] = &[
    ("CreatedAt", "CREATED AT"),
    ("Driver", "DRIVER"),
    ("ID", "NETWORK ID"),
    ("IPv4", "IPV4"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Labels", "LABELS"),
    ("Name", "NAME"),
    ("Scope", "SCOPE"),
];

async fn list(call: Invocation) -> Result<u8, Error> {
    let flags = &call.flags;
    let mut networks = call.context.client().await?.network_list(&filters(flags.all("filter"))).await?;
    networks.sort_by(|left, right| left.name.cmp(&right.name));
    let whole = flags.on("no-trunc");
    let id = |id: &str| if whole { id.to_owned() } else { short_id(id) };
    let rows = networks.iter().map(|network| -> Row {
        vec![
            ("CreatedAt", created(&network.created).into()),
            ("Driver", network.driver.clone().into()),
            ("ID", id(&network.id).into()),
            ("IPv4", network.enable_ipv4.to_string().into()),
            ("IPv6", network.enable_ipv6.to_string().into()),
            ("Internal", network.internal.to_string().into()),
            ("Label", label_map(&network.labels)),
            ("Labels", labels(&network.labels).into()),
            ("Name", network.name.clone().into()),
            ("Scope", network.scope.clone().into()),
        ]
    });
    let format = format::chosen(flags, &call.context.config.networks_format, "{{.ID}}");
    let default = "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}";
    output::print(&List { columns: COLUMNS, default, format }.render(rows.collect())?)?;
    Ok(0)
}

/// The daemon's time as Go prints one.
fn created(text: &str) -> String {
    text.parse::<jiff::Timestamp>()
        .map(|instant| {
            let zoned = instant.to_zoned(jiff::tz::TimeZone::system());
            zoned.strftime("%Y-%m-%d %H:%M:%S%.f %z %Z").to_string()
        })
        .unwrap_or_default()
}
