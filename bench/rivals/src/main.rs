//! Measures Coracle beside other libraries that do the same, in one process and without a disk or a network:
//! the core alone beside raft-rs and omnipaxos, and a cluster beside one of openraft.
//!
//! All take turns, in another order each round. A figure is a median of the rounds; a comparison is the median of the rounds'
//! ratios, with the least and the greatest, so that what slows a whole round down says nothing.

mod core;
mod in_process;
mod report;

use clap::{Parser, Subcommand};
use std::fs;
use std::process::ExitCode;

/// Measure Coracle beside other libraries, in one process
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    what: What,
    /// How often each takes its turn
    #[arg(long, global = true, value_name = "COUNT", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Write the table to this file too, as Markdown
    #[arg(long, global = true, value_name = "FILE")]
    out: Option<String>,
}

#[derive(Subcommand)]
enum What {
    /// The core alone: three nodes whose messages are function calls, and whose logs are in memory
    Core(core::Core),
    /// A cluster of three in this process: logs in memory, and no network
    InProcess(in_process::InProcess),
}

fn main() -> ExitCode {
    let options = Options::parse();
    let measured = match &options.what {
        What::Core(core) => core.measure(options.rounds),
        What::InProcess(in_process) => in_process.measure(options.rounds),
    };
    let written = measured.and_then(|table| {
        print!("{table}");
        let to = options.out.as_ref();
        to.map_or(Ok(()), |out| {
            fs::write(out, &table).map_err(|error| format!("cannot write {out}: {error}"))
        })
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("rivals: {problem}");
            ExitCode::FAILURE
        }
    }
}
