mod verbose;

use ponton_api::system::DiskUsage;
use ponton_api::unit;

use crate::command::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::flag::Flag;
use crate::format::{Column, FORMAT, List, Row};
use crate::output;

/// `ponton system df`.
pub(crate) static DF: Command =
    Command::new("df", "[OPTIONS]", "Show what takes space on disk", |call| Box::pin(df(call)))
        .flags(&[&[FORMAT, Flag::switch("verbose", "Show each image, container and volume").short('v')]])
        .arguments(Arguments::None, Complete::Nothing);

const COLUMNS: &[Column] = &[
    ("Active", "ACTIVE"),
    ("Reclaimable", "RECLAIMABLE"),
    ("Size", "SIZE"),
    ("TotalCount", "TOTAL"),
    ("Type", "TYPE"),
];

async fn df(call: Invocation) -> Result<u8, Error> {
    let usage = call.context.client().await?.system_df().await?;
    let format = call.flags.text("format");
    if call.flags.on("verbose") {
        output::print(&verbose::render(&usage, format, jiff::Timestamp::now().as_second())?)?;
        return Ok(0);
    }
    let default = "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}";
    output::print(&List { columns: COLUMNS, default, format }.render(rows(&usage))?)?;
    Ok(0)
}

fn rows(usage: &DiskUsage) -> Vec<Row> {
    let images = usage.images.as_deref().unwrap_or_default();
    let containers = usage.containers.as_deref().unwrap_or_default();
    let volumes = usage.volumes.as_deref().unwrap_or_default();
    let in_use = images.iter().filter(|image| image.containers > 0);
    let used_bytes: i64 = in_use
        .clone()
        .filter(|image| image.size > 0 && image.shared_size >= 0)
        .map(|image| image.size - image.shared_size)
        .sum();
    let running = |state: &str| matches!(state, "running" | "paused" | "restarting");
    let written = |all: bool| -> i64 {
        let chosen = containers.iter().filter(|container| all || !running(&container.state));
        chosen.map(|container| container.size_rw.unwrap_or(0)).sum()
    };
    let held = |all: bool| -> i64 {
        let usages = volumes.iter().filter_map(|volume| volume.usage_data.as_ref());
        usages.filter(|usage| usage.size >= 0 && (all || usage.ref_count == 0)).map(|usage| usage.size).sum()
    };
    let active_volumes =
        volumes.iter().filter(|volume| volume.usage_data.as_ref().is_some_and(|usage| usage.ref_count > 0));
    let active_containers = containers.iter().filter(|container| running(&container.state)).count();
    vec![
        row("Images", images.len(), in_use.count(), usage.layers_size, usage.layers_size - used_bytes),
        row("Containers", containers.len(), active_containers, written(true), written(false)),
        row("Local Volumes", volumes.len(), active_volumes.count(), held(true), held(false)),
        row("Build Cache", usage.build_cache.as_deref().unwrap_or_default().len(), 0, 0, 0),
    ]
}

fn row(kind: &str, total: usize, active: usize, size: i64, reclaimable: i64) -> Row {
    let share = match size {
        0 => String::new(),
        size => format!(" ({}%)", (reclaimable as f64 / size as f64 * 100.0) as i64),
    };
    let print = |bytes| unit::human_size_precise(bytes, 4);
    vec![
        ("Active", active.to_string().into()),
        ("Reclaimable", format!("{}{share}", print(reclaimable)).into()),
        ("Size", print(size).into()),
        ("TotalCount", total.to_string().into()),
        ("Type", kind.into()),
    ]
}
