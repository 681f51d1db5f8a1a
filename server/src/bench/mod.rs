//! `coracle bench`: how fast a cluster is, and how fast it could be.
//!
//! `--to` measures a running cluster from the outside. `--probe` starts a cluster of its own beside three
//! bare processes that move and sync the same bytes without Raft, and compares the two, turn by turn on
//! the same computer: what is left between them is the price of consensus and of our code.

mod bare;
mod counting;
mod latency;
pub mod load;
mod probe;
pub mod raw;

use self::counting::Count;
use self::load::{Load, Outcome};
use crate::cluster::Interrupt;
use crate::credentials::Credentials;
use crate::resp::MAX_ARGUMENT;
use clap::{Args, ValueEnum};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;
use tokio::runtime;

pub use self::latency::Latencies;
pub use self::probe::{Comparison, Probe};

/// The longest warm-up; a short measurement takes a fifth of its time.
const WARM_UP: Duration = Duration::from_secs(1);

/// Measure a cluster, or what this computer's disk and network allow at best
#[derive(Args)]
pub struct Bench {
    /// The client address of a node; with several, separated by commas, the one that leads is measured
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', conflicts_with = "probe",
          required_unless_present_any = ["probe", "bare", "count"])]
    to: Vec<String>,
    #[command(flatten)]
    credentials: Credentials,
    /// Compare a new cluster of three with three processes that sync the same bytes without Raft
    #[arg(long)]
    probe: bool,
    /// Be one of these processes
    #[arg(long, hide = true, value_enum, requires = "dir")]
    bare: Option<Bare>,
    /// The bare processes that this one passes its writes on to
    #[arg(long, hide = true, value_name = "HOST:PORT", value_delimiter = ',')]
    followers: Vec<String>,
    /// Do writes in this process alone, to count their instructions
    #[arg(long, hide = true, value_enum, conflicts_with_all = ["to", "probe"])]
    count: Option<Count>,
    /// How many
    #[arg(long, hide = true, default_value_t = 1_000, requires = "count")]
    writes: usize,
    /// Number of requests under way at once
    #[arg(long, value_name = "COUNT", default_value_t = 50, conflicts_with = "probe",
          value_parser = clap::value_parser!(u16).range(1..=10_000))]
    clients: u16,
    /// Connections that the clients share [default: one for each, at most 500]
    #[arg(long, value_name = "COUNT", conflicts_with = "probe",
          value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections: Option<u16>,
    /// The length of a value, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 256,
          value_parser = clap::value_parser!(u32).range(0..=MAX_ARGUMENT as i64))]
    value_size: u32,
    /// How many keys are in play
    #[arg(long, value_name = "COUNT", default_value_t = load::KEYS, conflicts_with = "probe",
          value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    keys: u64,
    /// How long to measure; with --probe, each of the two at each number of clients in each round
    /// [default: 10, with --probe 2]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: Option<u32>,
    /// How many of a hundred requests are GETs; the others are SETs
    #[arg(long, value_name = "PERCENT", default_value_t = 0, conflicts_with = "probe",
          value_parser = clap::value_parser!(u8).range(0..=100))]
    reads: u8,
    /// How often the two of --probe are compared
    #[arg(long, default_value_t = 5, conflicts_with = "to", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Where --probe keeps its data meanwhile [default: the system's place for temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Bare {
    /// Takes commands, writes and syncs them, and passes them on
    First,
    /// Writes and syncs what it is sent
    Follower,
}

impl Bench {
    /// Does what was asked for.
    pub fn run(self, interrupt: Interrupt) -> Result<(), String> {
        if let (Some(role), Some(dir)) = (self.bare, &self.dir) {
            return match role {
                Bare::First => bare::first(dir, &self.followers),
                Bare::Follower => bare::follower(dir),
            };
        }
        if let Some(what) = self.count {
            counting::run(what, self.writes);
            return Ok(());
        }
        if self.probe { self.probe(interrupt) } else { self.measure() }
    }

    fn measure(self) -> Result<(), String> {
        self.credentials.apply()?;
        let clients = usize::from(self.clients);
        let connections = self.connections.map_or(clients.min(500), usize::from);
        if connections > clients {
            return Err(format!("{connections} connections are more than {clients} clients can use"));
        }
        let duration = Duration::from_secs(self.seconds.unwrap_or(10).into());
        let load = Load {
            addresses: self.to,
            clients,
            connections,
            value_size: self.value_size as usize,
            keys: self.keys,
            reads: self.reads,
            warm_up: WARM_UP.min(duration / 5),
            duration,
        };
        let outcome = runtime()?.block_on(load::run(&load))?;
        if self.json {
            println!("{}", outcome_json(&load, &outcome));
        } else {
            print!("{}", outcome_text(&load, &outcome));
        }
        judge(&load, &outcome)
    }

    fn probe(self, interrupt: Interrupt) -> Result<(), String> {
        let program =
            std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
        let probe = Probe {
            program,
            parent: self.dir.unwrap_or_else(std::env::temp_dir),
            value_size: self.value_size as usize,
            seconds: self.seconds.unwrap_or(2),
            rounds: self.rounds,
            interrupt,
        };
        let json = self.json;
        let comparison = probe.run(&mut |line| {
            if !json {
                println!("{line}");
            }
        })?;
        if json {
            println!("{}", comparison.json());
        } else {
            print!("{}", comparison.text());
        }
        Ok(())
    }
}

fn runtime() -> Result<runtime::Runtime, String> {
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))
}

/// Errors are part of the report, and then the reason of a failure too.
fn judge(load: &Load, outcome: &Outcome) -> Result<(), String> {
    let answered = outcome.writes.count() + outcome.reads.count();
    let failed = outcome.failed();
    if answered == 0 {
        let to = load.addresses.join(", ");
        return Err(format!("{to} answered no request in {:?}; {failed} failed", outcome.elapsed));
    }
    if failed > 0 { Err(format!("{failed} requests failed, and {answered} were answered")) } else { Ok(()) }
}

fn outcome_json(load: &Load, outcome: &Outcome) -> serde_json::Value {
    json!({
        "clients": load.clients,
        "connections": load.connections,
        "value_bytes": load.value_size,
        "keys": load.keys,
        "reads_percent": load.reads,
        "seconds": outcome.elapsed.as_secs_f64(),
        "per_second": outcome.per_second(),
        "writes": outcome.writes.json(),
        "reads": outcome.reads.json(),
        "failed": outcome.failed(),
        "errors": outcome.errors,
        "under_way_at_end": outcome.under_way,
        "oldest_under_way_us": outcome.oldest_under_way.as_secs_f64() * 1e6,
    })
}

fn outcome_text(load: &Load, outcome: &Outcome) -> String {
    let Load { clients, connections, value_size, .. } = load;
    let mut text = format!(
        "{:.0} requests per second: {clients} clients on {connections} connections, values of {value_size} \
         bytes, {:?}\n",
        outcome.per_second(),
        outcome.elapsed
    );
    for (name, latencies) in [("writes", &outcome.writes), ("reads", &outcome.reads)] {
        if latencies.count() > 0 {
            text += &format!("  {name:<8}{}\n", latencies.text());
        }
    }
    for (kind, count) in &outcome.errors {
        text += &format!("  failed  {count}: {kind}\n");
    }
    if outcome.oldest_under_way > Duration::from_secs(1) {
        let (count, oldest) = (outcome.under_way, outcome.oldest_under_way);
        text += &format!("  waiting {count} at the end, the oldest for {oldest:.1?}\n");
    }
    text
}
