//! Checks of the house, and benchmarks: `cargo run -p ponton-xtask -- tidy | api | docker-commands | bench DIRECTORY-OF-BINARIES`.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod api;
mod bench;
mod docker_commands;
mod tidy;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["tidy"] => tidy::run(),
        ["api"] => api::run(),
        ["docker-commands"] => docker_commands::run(),
        ["bench", binaries, only @ ..] => bench::run(binaries, only),
        _ => {
            eprintln!(
                "usage: xtask tidy | api | docker-commands | bench DIRECTORY-OF-BINARIES [BENCHMARK...]"
            );
            ExitCode::from(2)
        }
    }
}
