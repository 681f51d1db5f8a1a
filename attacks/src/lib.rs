//! What the programs of this crate share.
#![forbid(unsafe_code)]

pub mod dice;

use coracle_server::cluster::{Interrupt, random};
use std::fs;
use std::path::Path;
use std::process::ExitCode;

/// Runs a part of `scripts/` in a new directory, which goes if everything held and is kept otherwise.
pub fn in_a_directory(
    name: &str,
    program: &Path,
    run: impl FnOnce(&Path, Interrupt) -> Result<(), String>,
) -> ExitCode {
    let interrupt = Interrupt::default();
    // Beside the program and not in a temporary directory, which may have no disk under it.
    let directory = program.parent().unwrap_or(Path::new("")).join(format!("{name}-{:016x}", random()));
    let result = coracle_server::cli::watch_signals(interrupt.clone())
        .and_then(|()| fs::create_dir(&directory).map_err(|error| error.to_string()))
        .and_then(|()| run(&directory, interrupt));
    match result {
        Ok(()) => {
            // What is left lies in a build's directory.
            let _ = fs::remove_dir_all(&directory);
            println!("everything held");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("{name}: {problem} (the data and logs are kept in {})", directory.display());
            ExitCode::FAILURE
        }
    }
}
