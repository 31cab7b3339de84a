use std::io::IsTerminal;

use futures_util::StreamExt;
use ponton_api::container::Stats;
use ponton_api::unit;
use ponton_client::Client;

use super::list::filters;
use crate::command::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::flag::Flag;
use crate::format::{self, Column, FORMAT, List, Row, short_id};
use crate::output;

/// `ponton stats`.
pub(crate) static STATS: Command = Command::new(
    "stats",
    "[OPTIONS] [CONTAINER...]",
    "Display a live stream of container(s) resource usage statistics",
    |call| Box::pin(stats(call)),
)
.flags(&[&[
    Flag::switch("all", "Stopped containers too").short('a'),
    FORMAT,
    Flag::switch("no-stream", "Only one sample"),
    Flag::switch("no-trunc", "Do not cut ids off"),
]])
.arguments(Arguments::Any, Complete::RunningContainers);

const COLUMNS: &[Column] = &[
    ("BlockIO", "BLOCK I/O"),
    ("CPUPerc", "CPU %"),
    ("Container", "CONTAINER"),
    ("ID", "CONTAINER ID"),
    ("MemPerc", "MEM %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("Name", "NAME"),
    ("NetIO", "NET I/O"),
    ("PIDs", "PIDS"),
];
const TABLE: &str =
    "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}";

async fn stats(call: Invocation) -> Result<u8, Error> {
    let client = call.context.client().await?;
    let once = call.flags.on("no-stream");
    let format = format::chosen(&call.flags, &call.context.config.stats_format, "");
    let screen = std::io::stdout().is_terminal() && !once && format != "json";
    loop {
        let names = names(&call, client).await?;
        // The daemon takes a second for each sample; all are taken at the same time.
        let samples = names.iter().map(|name| sample(client, name));
        let samples: Vec<(String, Option<Stats>)> = futures_util::stream::iter(samples)
            .buffered(usize::MAX)
            .collect::<Vec<_>>()
            .await
            .into_iter()
            .collect::<Result<_, Error>>()?;
        let rows = samples
            .iter()
            .map(|(name, stats)| row(name, stats.as_ref(), call.flags.on("no-trunc")))
            .collect();
        let text = List { columns: COLUMNS, default: TABLE, format }.render(rows)?;
        output::print(&if screen { on_screen(&text) } else { text })?;
        if once {
            return Ok(0);
        }
        if names.is_empty() {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    }
}

/// The text in place of what is on the terminal: each line wipes what was right of it, the last what is below.
/// Nothing is cleared first, so that nothing flickers.
fn on_screen(text: &str) -> String {
    format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
}

async fn names(call: &Invocation, client: &Client) -> Result<Vec<String>, Error> {
    if !call.arguments.is_empty() {
        return Ok(call.arguments.clone());
    }
    let containers = client.container_list(call.flags.on("all"), 0, false, &filters(&[])).await?;
    Ok(containers.into_iter().map(|container| container.id).collect())
}

async fn sample(client: &Client, name: &str) -> Result<(String, Option<Stats>), Error> {
    let mut stream = client.container_stats(name, false).await?;
    Ok((name.to_owned(), stream.next().await?))
}

fn row(asked: &str, stats: Option<&Stats>, whole: bool) -> Row {
    let Some(stats) = stats.filter(|stats| !stats.id.is_empty()) else {
        let empty = |name| (name, "--".into());
        let mut row: Row = COLUMNS.iter().map(|(name, _)| empty(*name)).collect();
        row[2].1 = asked.into();
        return row;
    };
    let id = if whole { stats.id.clone() } else { short_id(&stats.id) };
    let (read, written) = block_io(stats);
    let networks = stats.networks.iter().flat_map(|networks| networks.values());
    let (received, sent) = networks.fold((0, 0), |sum, one| (sum.0 + one.rx_bytes, sum.1 + one.tx_bytes));
    let used = memory_used(stats);
    let limit = stats.memory_stats.limit;
    let percent = if limit == 0 { 0.0 } else { used as f64 / limit as f64 * 100.0 };
    let io = |bytes: u64| unit::human_size_precise(bytes as i64, 3);
    vec![
        ("BlockIO", format!("{} / {}", io(read), io(written)).into()),
        ("CPUPerc", format!("{:.2}%", cpu_percent(stats)).into()),
        ("Container", asked.into()),
        ("ID", id.into()),
        ("MemPerc", format!("{percent:.2}%").into()),
        (
            "MemUsage",
            format!("{} / {}", unit::binary_size(used as i64), unit::binary_size(limit as i64)).into(),
        ),
        ("Name", stats.name.trim_start_matches('/').into()),
        ("NetIO", format!("{} / {}", io(received), io(sent)).into()),
        ("PIDs", stats.pids_stats.current.to_string().into()),
    ]
}

fn cpu_percent(stats: &Stats) -> f64 {
    let (now, before) = (&stats.cpu_stats, &stats.precpu_stats);
    let container = now.cpu_usage.total_usage as f64 - before.cpu_usage.total_usage as f64;
    let system = now.system_cpu_usage as f64 - before.system_cpu_usage as f64;
    let cpus = match now.online_cpus {
        0 => now.cpu_usage.percpu_usage.as_ref().map_or(1, Vec::len) as f64,
        cpus => f64::from(cpus),
    };
    if container > 0.0 && system > 0.0 { container / system * cpus * 100.0 } else { 0.0 }
}

/// Memory without the file cache that the kernel can drop at once.
fn memory_used(stats: &Stats) -> u64 {
    let memory = &stats.memory_stats;
    let cache = memory.stats.get("total_inactive_file").or_else(|| memory.stats.get("inactive_file"));
    match cache {
        Some(cache) if *cache < memory.usage => memory.usage - cache,
        _ => memory.usage,
    }
}

fn block_io(stats: &Stats) -> (u64, u64) {
    let entries = stats.blkio_stats.io_service_bytes_recursive.iter().flatten();
    entries.fold((0, 0), |(read, written), entry| match entry.op.to_ascii_lowercase().as_str() {
        "read" => (read + entry.value, written),
        "write" => (read, written + entry.value),
        _ => (read, written),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_becomes_a_line() {
        let json = r#"{"name":"/web","id":"4f1c0123456789abcdef","pids_stats":{"current":2},
            "cpu_stats":{"cpu_usage":{"total_usage":300},"system_cpu_usage":2000,"online_cpus":2},
            "precpu_stats":{"cpu_usage":{"total_usage":100},"system_cpu_usage":1000},
            "memory_stats":{"usage":2097152,"limit":104857600,"stats":{"inactive_file":1048576}},
            "networks":{"eth0":{"rx_bytes":486,"tx_bytes":0}}}"#;
        let stats: Stats = serde_json::from_str(json).unwrap();
        let text = List { columns: COLUMNS, default: TABLE, format: "" }
            .render(vec![row("web", Some(&stats), false)])
            .unwrap();
        assert_eq!(
            text,
            "CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT   MEM %     NET I/O     BLOCK I/O   PIDS\n\
             4f1c01234567   web       40.00%    1MiB / 100MiB       1.00%     486B / 0B   0B / 0B     2\n"
        );
    }
}
