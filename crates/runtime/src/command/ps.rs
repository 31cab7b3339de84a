//! `ponton-runtime ps`

use std::process::{Command, ExitCode};

use ponton_cgroup::Cgroup;
use ponton_runtime::host::Host;

use super::{Context, Failure};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// `table` or `json`.
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
    /// The container's id.
    id: String,
    /// Options of ps(1) for the table; `-ef` where there are none.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PS OPTIONS")]
    options: Vec<String>,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<ExitCode, Failure> {
    let record = context.directory(&args.id)?.read()?;
    let pids = match &record.cgroup {
        Some(path) => Cgroup::new(&Host::probe()?.cgroup, path).pids()?,
        None => vec![record.pid],
    };
    if args.format == "json" {
        println!("{}", serde_json::to_string(&pids)?);
        return Ok(ExitCode::SUCCESS);
    }
    let default = ["-ef".to_owned()];
    let options: &[String] = if args.options.is_empty() { &default } else { &args.options };
    let output = Command::new("ps").args(options).output().map_err(|error| format!("ps: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("ps {}: {}: {}", options.join(" "), output.status, said.trim()).into());
    }
    print!("{}", rows_of(&String::from_utf8_lossy(&output.stdout), &pids)?);
    Ok(ExitCode::SUCCESS)
}

/// The title and the rows of these processes.
fn rows_of(table: &str, pids: &[u32]) -> Result<String, Failure> {
    let mut lines = table.lines();
    let title = lines.next().unwrap_or_default();
    let column = title.split_whitespace().position(|name| name == "PID");
    let column = column.ok_or("ps prints no column PID")?;
    let mut rows = format!("{title}\n");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            rows.push_str(line);
            rows.push('\n');
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::rows_of;

    #[test]
    fn rows_are_chosen_by_the_column_of_the_pid() {
        let table = "UID        PID  PPID\nroot       498     1\nroot       1     498\n";
        assert_eq!(rows_of(table, &[498]).unwrap(), "UID        PID  PPID\nroot       498     1\n");
        assert!(rows_of("CMD\nsh\n", &[1]).is_err());
    }
}
