//! `ponton volume …`.

mod transfer;

use ponton_api::container::StringMap;
use ponton_api::unit;
use ponton_api::volume::{CreateRequest, Volume};

use super::container::{FILTER, filters};
use super::inspect::VOLUME_INSPECT;
use super::prune::VOLUME_PRUNE;
use super::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::flag::Flag;
use crate::format::{self, Column, FORMAT, List, Row, label_map, labels};
use crate::{output, value};
use transfer::{BACKUP, CLONE, RESTORE};

/// The commands of the noun.
pub(crate) static COMMANDS: &[&Command] =
    &[&BACKUP, &CLONE, &CREATE, &VOLUME_INSPECT, &LS, &VOLUME_PRUNE, &RESTORE, &RM];

static LS: Command = Command::new("ls", "[OPTIONS]", "List volumes", |call| Box::pin(list(call)))
    .aliases(&["list"])
    .flags(&[&[FILTER, FORMAT, Flag::switch("quiet", "Only names").short('q')]])
    .arguments(Arguments::None, Complete::Nothing);

pub(crate) const COLUMNS: &[Column] = &[
    ("Availability", "AVAILABILITY"),
    ("Driver", "DRIVER"),
    ("Group", "GROUP"),
    ("Labels", "LABELS"),
    ("Links", "LINKS"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Name", "VOLUME NAME"),
    ("Scope", "SCOPE"),
    ("Size", "SIZE"),
    ("Status", "STATUS"),
];

/// A volume as a line of a list.
pub(crate) fn row(volume: &Volume) -> Row {
    let usage = volume.usage_data.as_ref();
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "N/A".to_owned());
    vec![
        ("Availability", "N/A".into()),
        ("Driver", volume.driver.clone().into()),
        ("Group", "N/A".into()),
        ("Label", label_map(volume.labels.iter().flatten())),
        ("Labels", labels(volume.labels.iter().flatten()).into()),
        ("Links", or_none(usage.map(|usage| usage.ref_count.to_string())).into()),
        ("Mountpoint", volume.mountpoint.clone().into()),
        ("Name", volume.name.clone().into()),
        ("Scope", volume.scope.clone().into()),
        ("Size", or_none(usage.map(|usage| unit::human_size_precise(usage.size, 4))).into()),
        ("Status", "N/A".into()),
    ]
}

async fn list(call: Invocation) -> Result<u8, Error> {
    let flags = &call.flags;
    let mut volumes = call.context.client().await?.volume_list(&filters(flags.all("filter"))).await?.volumes;
    volumes.sort_by(|left, right| left.name.cmp(&right.name));
    let rows = volumes.iter().map(row);
    let format = format::chosen(flags, &call.context.config.volumes_format, "{{.Name}}");
    output::print(
        &List { columns: COLUMNS, default: "{{.Driver}}\t{{.Name}}", format }.render(rows.collect())?,
    )?;
    Ok(0)
}

static CREATE: Command =
    Command::new("create", "[OPTIONS] [VOLUME]", "Create a volume", |call| Box::pin(create(call)))
        .flags(&[&[
            Flag::text("driver", "Driver of the volume").short('d').default("local"),
            Flag::list("label", "Set a label").check(value::check_label),
            Flag::text("name", "Name of the volume").hidden(),
            Flag::list("opt", "Option of the driver").short('o').named("map"),
        ]])
        .arguments(Arguments::Between(0, 1), Complete::Nothing);

async fn create(call: Invocation) -> Result<u8, Error> {
    let flags = &call.flags;
    if flags.is_set("name") && !call.arguments.is_empty() {
        return Err(Error::invalid(
            "conflicting options: cannot specify a volume-name through both --name and as a positional arg",
        ));
    }
    let pairs = |name: &str| -> StringMap {
        let split = |text: &String| {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            (key.to_owned(), value.to_owned())
        };
        flags.all(name).iter().map(split).collect()
    };
    let request = CreateRequest {
        name: call.arguments.first().map_or(flags.text("name"), String::as_str).to_owned(),
        driver: flags.text("driver").to_owned(),
        driver_opts: Some(pairs("opt")),
        labels: Some(pairs("label")),
        cluster_volume_spec: None,
    };
    let volume = call.context.client().await?.volume_create(&request).await?;
    output::print_line(&volume.name)?;
    Ok(0)
}

static RM: Command = Command::new(
    "rm",
    "[OPTIONS] VOLUME [VOLUME...]",
    "Remove one or more volumes. You cannot remove a volume that is in use by a container.",
    |call| Box::pin(remove(call)),
)
.aliases(&["remove"])
.flags(&[&[Flag::switch("force", "Do not mind volumes that are not there").short('f')]])
.arguments(Arguments::AtLeast(1), Complete::Volumes);

async fn remove(call: Invocation) -> Result<u8, Error> {
    let client = call.context.client().await?;
    let mut errors = Vec::new();
    for name in &call.arguments {
        match client.volume_remove(name, call.flags.on("force")).await {
            Ok(()) => output::print_line(name)?,
            Err(error) => errors.push(error.to_string()),
        }
    }
    if errors.is_empty() { Ok(0) } else { Err(Error::invalid(errors.join("\n"))) }
}
