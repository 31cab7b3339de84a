//! `ponton-runtime list`

use std::process::ExitCode;

use ponton_runtime::host::Host;
use ponton_runtime::state::{Directory, StateError, Summary};

use super::state::{Owners, summary};
use super::{Context, Failure};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// `table` or `json`.
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
    /// Print ids only.
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<ExitCode, Failure> {
    let host = Host::probe()?;
    let mut owners = Owners::default();
    let states: Result<Vec<Summary>, StateError> = Directory::list(&context.root)?
        .iter()
        .map(|id| summary(&context.directory(id)?, &host, &mut owners))
        // One that was deleted meanwhile is not there.
        .filter(|state| !matches!(state, Err(StateError::NotFound(_))))
        .collect();
    let states = states?;
    if args.quiet {
        for state in &states {
            println!("{}", state.id);
        }
    } else if args.format == "json" {
        println!("{}", serde_json::to_string(&states)?);
    } else {
        print_table(&states);
    }
    Ok(ExitCode::SUCCESS)
}

fn print_table(states: &[Summary]) {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from)];
    rows.extend(states.iter().map(|state| {
        [
            state.id.clone(),
            state.pid.to_string(),
            format!("{:?}", state.status).to_lowercase(),
            state.bundle.display().to_string(),
            state.created.clone(),
            state.owner.clone(),
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(9);
    let widths: Vec<usize> = (0..6).map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        println!("{}", cells.collect::<Vec<_>>().join("   ").trim_end());
    }
}
