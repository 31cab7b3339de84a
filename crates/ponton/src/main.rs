//! The program `ponton`: `ponton daemon` is the engine, everything else is the command line.

mod config;
mod daemon;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    match words.split_first() {
        Some((first, rest)) if first == "daemon" => daemon::main(rest),
        _ => ponton_cli::main(&words),
    }
}
