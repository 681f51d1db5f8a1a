//! `scripts/bench-log`: the log stores beside another log and a raw file, on the same disk, turn by turn.
//!
//! Each batch is durable before the next is given. At every point of a grid (length of an entry, entries
//! in a batch) each contender gets a short turn in each round, in an order drawn anew; so what disturbs
//! the computer disturbs all alike, and what counts is the ratio within a round, and of all rounds the
//! median. A turn counts only the time inside the calls that write.
//!
//! `contender` is what takes part, and where another store is added; `measure` runs the turns; `opening`
//! measures starts on a large log; `report` and `plot` tell.
#![forbid(unsafe_code)]

mod contender;
mod device;
mod measure;
mod opening;
mod plot;
mod raft_engine;
mod raw;
mod report;
mod store;

use clap::{Parser, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// What goes wrong here ends the run with its message.
type Failure = Box<dyn std::error::Error>;

/// Measure the log stores beside raft-engine and a raw file.
#[derive(Parser)]
struct Options {
    /// Fewer points and rounds: less than a minute
    #[arg(long)]
    quick: bool,
    /// How often every contender gets its turn at every point [default: 9, quick 5]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// How long a turn writes, in milliseconds [default: 300, quick 100]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    turn: Option<u64>,
    /// One part alone
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// A contender to leave out; may be repeated
    #[arg(long, value_name = "NAME")]
    without: Vec<String>,
    /// Where the data is kept meanwhile; it must be on the disk that is to be measured
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Write the plot to this SVG file
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Batches of several lengths
    Writing,
    /// Starts on a large log
    Opening,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("log-bench: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let directory = tempfile::Builder::new().prefix("log-bench-").tempdir_in(&options.dir)?;
    let quick = options.quick;
    if options.only != Some(Part::Opening) {
        let grid = measure::Grid {
            points: measure::points(quick),
            rounds: options.rounds.unwrap_or(if quick { 5 } else { 9 }),
            turn: Duration::from_millis(options.turn.unwrap_or(if quick { 100 } else { 300 })),
        };
        let mut contenders = contender::all(&directory.path().join("writing"))?;
        contenders.retain(|contender| !options.without.iter().any(|name| name == contender.name()));
        let results = measure::run(&grid, contenders, directory.path())?;
        print!("{}", report::text(&results));
        if let Some(file) = &options.plot {
            std::fs::write(file, plot::svg(&results))?;
        }
    }
    if options.only != Some(Part::Writing) {
        let entries = if quick { 100_000 } else { 1_000_000 };
        let rounds = options.rounds.unwrap_or(5);
        print!("{}", opening::run(&directory.path().join("opening"), entries, rounds, quick)?);
    }
    Ok(())
}
