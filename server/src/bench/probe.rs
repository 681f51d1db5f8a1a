//! `coracle bench --probe`: a cluster of three beside three bare processes, turn by turn.
//!
//! Computers differ and drift, so nothing here is judged by itself. In each round both get the same load,
//! in the order cluster, bare, bare, cluster and the next time the other way around, so that whatever
//! changes slowly weighs on both alike; what counts is the ratio within a round, and of all rounds the
//! median.

use super::load::{self, Load, Outcome};
use super::raw::{Blocks, Echo, median, sync_together};
use super::runtime;
use crate::cluster::{Cluster, Interrupt, Running, random, server};
use rustix::fs::{FsWord, statfs};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::{fs, io};
use tokio::runtime::Runtime;

/// The numbers of clients that are compared: one waits for each answer, many share syncs.
const CLIENTS: [usize; 3] = [1, 50, 256];

/// The warm-up of each of the four turns of a comparison.
const WARM_UP: Duration = Duration::from_millis(100);

/// Syncs and round trips measured by themselves after each comparison, in so many turns of so many.
const RAW: (usize, usize) = (10, 10);

/// The number of the file system that is no disk (`TMPFS_MAGIC`).
const TMPFS: FsWord = 0x0102_1994;

/// What to compare, and how often.
pub struct Probe {
    /// This program.
    pub program: PathBuf,
    /// Where the data directories are made, and removed at the end.
    pub parent: PathBuf,
    /// The length of a value, in bytes.
    pub value_size: usize,
    /// How long each of the two is measured at each number of clients in each round.
    pub seconds: u32,
    /// How many rounds.
    pub rounds: u32,
    /// Ends everything when it becomes true.
    pub interrupt: Interrupt,
}

/// What came out.
pub struct Comparison {
    value_size: usize,
    seconds: u32,
    rounds: Vec<Round>,
}

/// One round.
struct Round {
    /// For each of [`CLIENTS`].
    loads: Vec<Pair>,
    /// A block's write and sync, alone.
    sync: Duration,
    /// Three at once on three files: the second of them, and the last.
    together: (Duration, Duration),
    /// One byte to another thread and back.
    trip: Duration,
}

/// The same load on both.
struct Pair {
    cluster: Outcome,
    bare: Outcome,
}

impl Probe {
    /// Compares; tells each round's figures as they come. An error is a plain sentence.
    pub fn run(self, tell: &mut dyn FnMut(String)) -> Result<Comparison, String> {
        let directory = self.parent.join(format!("coracle-bench-{:016x}", random()));
        let place = directory.display();
        // The nodes' logs lie beside their directories, in here.
        fs::create_dir_all(directory.join("cluster"))
            .map_err(|error| format!("cannot make {place}: {error}"))?;
        if statfs(&directory).is_ok_and(|found| found.f_type == TMPFS) {
            eprintln!("coracle: {place} is in memory, where a sync costs nothing; name another --dir");
        }
        // Every child is gone when this returns.
        let result = self.compare(&directory, tell);
        let removed =
            fs::remove_dir_all(&directory).map_err(|error| format!("cannot remove {place}: {error}"));
        result.and_then(|comparison| removed.map(|()| comparison))
    }

    fn compare(&self, directory: &Path, tell: &mut dyn FnMut(String)) -> Result<Comparison, String> {
        let cluster = Cluster::start(
            &directory.join("cluster"),
            vec![server(&self.program); 3],
            self.interrupt.clone(),
        )?;
        cluster.form()?;
        cluster.leader()?;
        let nodes = cluster.client_addresses();
        let bare = BareProcesses::start(&self.program, &directory.join("bare"), &self.interrupt)?;
        let mut raw = Raw::new(&directory.join("raw"))?;

        let runtime = runtime()?;
        let mut comparison =
            Comparison { value_size: self.value_size, seconds: self.seconds, rounds: Vec::new() };
        let addresses = [nodes, vec![bare.address.clone()]];
        for number in 0..self.rounds {
            let mut loads = Vec::new();
            for (i, clients) in CLIENTS.into_iter().enumerate() {
                let cluster_first = (number as usize + i).is_multiple_of(2);
                loads.push(self.pair(&runtime, &addresses, clients, cluster_first)?);
                raw.measure().map_err(|error| format!("cannot measure the disk: {error}"))?;
            }
            let round = raw.round(loads);
            tell(format!("round {}: {}", number + 1, round.text()));
            comparison.rounds.push(round);
        }
        // A cluster that was fast because it forgot would fail here.
        cluster.agree()?;
        Ok(comparison)
    }

    /// The same load on both, twice each.
    fn pair(
        &self,
        runtime: &Runtime,
        [cluster, bare]: &[Vec<String>; 2],
        clients: usize,
        cluster_first: bool,
    ) -> Result<Pair, String> {
        let turn = |addresses: &Vec<String>| {
            if self.interrupt.load(Ordering::Relaxed) {
                return Err("interrupted".to_owned());
            }
            let load = Load {
                addresses: addresses.clone(),
                clients,
                connections: clients,
                value_size: self.value_size,
                keys: load::KEYS,
                reads: 0,
                warm_up: WARM_UP,
                duration: Duration::from_secs(self.seconds.into()) / 2,
            };
            let outcome = runtime.block_on(load::run(&load))?;
            match outcome.errors.iter().next() {
                Some((kind, count)) => Err(format!("{count} requests failed: {kind}")),
                None if outcome.writes.count() == 0 => Err("no request was answered".into()),
                None => Ok(outcome),
            }
        };
        let (outer, inner) = if cluster_first { (cluster, bare) } else { (bare, cluster) };
        let (mut first, mut second) = (turn(outer)?, turn(inner)?);
        second.add(&turn(inner)?);
        first.add(&turn(outer)?);
        Ok(if cluster_first {
            Pair { cluster: first, bare: second }
        } else {
            Pair { cluster: second, bare: first }
        })
    }
}

/// The three processes, killed when dropped.
struct BareProcesses {
    /// Where the first takes commands.
    address: String,
    _children: Vec<Running>,
}

impl BareProcesses {
    fn start(program: &Path, directory: &Path, interrupt: &Interrupt) -> Result<BareProcesses, String> {
        let mut children = Vec::new();
        let mut start = |name: &str, arguments: &[&str]| {
            let dir = directory.join(name);
            fs::create_dir_all(&dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
            let mut command = Command::new(program);
            command.args(["bench", "--bare"]).args(arguments).arg("--dir").arg(&dir);
            let log = dir.with_extension("log");
            let (child, address) = Running::start(&format!("the bare {name}"), command, &log, interrupt)?;
            children.push(child);
            Ok::<_, String>(address)
        };
        let followers = [start("follower-1", &["follower"])?, start("follower-2", &["follower"])?].join(",");
        let address = start("first", &["first", "--followers", &followers])?;
        Ok(BareProcesses { address, _children: children })
    }
}

/// The disk and the network by themselves.
struct Raw {
    files: Vec<Blocks>,
    echo: Echo,
    /// What was measured in this round.
    syncs: Vec<Duration>,
    second: Vec<Duration>,
    last: Vec<Duration>,
    trips: Vec<Duration>,
}

impl Raw {
    fn new(directory: &Path) -> Result<Raw, String> {
        let file = |i: usize| Blocks::new(&directory.join(i.to_string()), "blocks");
        let files = (0..3).map(file).collect::<Result<_, _>>()?;
        let echo = Echo::start().map_err(|error| error.to_string())?;
        Ok(Raw { files, echo, syncs: Vec::new(), second: Vec::new(), last: Vec::new(), trips: Vec::new() })
    }

    fn measure(&mut self) -> io::Result<()> {
        let (turns, times) = RAW;
        for _ in 0..turns {
            for _ in 0..times {
                self.syncs.push(self.files[0].sync()?);
                self.trips.push(self.echo.round_trip()?);
            }
            for (second, last) in sync_together(&mut self.files, times)? {
                self.second.push(second);
                self.last.push(last);
            }
        }
        Ok(())
    }

    /// The round's figures. The next round starts anew.
    fn round(&mut self, loads: Vec<Pair>) -> Round {
        let middle = |times: &mut Vec<Duration>| median(&mut std::mem::take(times));
        Round {
            loads,
            sync: middle(&mut self.syncs),
            together: (middle(&mut self.second), middle(&mut self.last)),
            trip: middle(&mut self.trips),
        }
    }
}

impl Pair {
    /// How much longer the cluster takes: the ratio of the median latencies.
    fn latency_ratio(&self) -> f64 {
        self.cluster.writes.quantile(0.5) / self.bare.writes.quantile(0.5)
    }

    /// What share of the bare processes' writes the cluster does.
    fn throughput_ratio(&self) -> f64 {
        self.cluster.per_second() / self.bare.per_second()
    }

    fn json(&self) -> Value {
        let side = |outcome: &Outcome| json!({ "per_second": outcome.per_second(), "writes": outcome.writes.json() });
        json!({
            "cluster": side(&self.cluster),
            "bare": side(&self.bare),
            "latency_ratio": self.latency_ratio(),
            "throughput_ratio": self.throughput_ratio(),
        })
    }
}

impl Round {
    fn text(&self) -> String {
        let mut text = format!("one client {:.2} times the probe's latency", self.loads[0].latency_ratio());
        for (clients, pair) in CLIENTS.iter().zip(&self.loads).skip(1) {
            text += &format!(", {clients} clients {:.2} of its throughput", pair.throughput_ratio());
        }
        text + &format!(", sync {:.0} us", micros(self.sync))
    }

    fn json(&self) -> Value {
        let loads: serde_json::Map<_, _> = CLIENTS
            .iter()
            .zip(&self.loads)
            .map(|(clients, pair)| (clients.to_string(), pair.json()))
            .collect();
        json!({
            "clients": loads,
            "fdatasync_us": micros(self.sync),
            "fdatasync_of_three_us": { "second": micros(self.together.0), "last": micros(self.together.1) },
            "round_trip_us": micros(self.trip),
        })
    }
}

impl Comparison {
    /// The median of a figure over all rounds, and the least and the greatest.
    fn of(&self, figure: impl Fn(&Round) -> f64) -> Spread {
        let mut all: Vec<f64> = self.rounds.iter().map(figure).collect();
        all.sort_unstable_by(f64::total_cmp);
        let at = |i: usize| all.get(i).copied().unwrap_or(f64::NAN);
        Spread { median: at(all.len() / 2), least: at(0), greatest: at(all.len().saturating_sub(1)) }
    }

    /// For programs: the medians over all rounds, and each round.
    pub fn json(&self) -> Value {
        let clients: serde_json::Map<_, _> = CLIENTS
            .iter()
            .enumerate()
            .map(|(i, clients)| {
                let figures = json!({
                    "latency_ratio": self.of(|round| round.loads[i].latency_ratio()).json(),
                    "throughput_ratio": self.of(|round| round.loads[i].throughput_ratio()).json(),
                });
                (clients.to_string(), figures)
            })
            .collect();
        json!({
            "value_bytes": self.value_size,
            "seconds": self.seconds,
            "medians": {
                "clients": clients,
                "fdatasync_us": self.of(|round| micros(round.sync)).median,
                "fdatasync_of_three_us": {
                    "second": self.of(|round| micros(round.together.0)).median,
                    "last": self.of(|round| micros(round.together.1)).median,
                },
                "round_trip_us": self.of(|round| micros(round.trip)).median,
            },
            "rounds": self.rounds.iter().map(Round::json).collect::<Vec<_>>(),
        })
    }

    /// For people: the medians over all rounds.
    pub fn text(&self) -> String {
        let mut text = format!(
            "medians of {} rounds of {} s each, values of {} bytes (least and greatest of the ratios):\n",
            self.rounds.len(),
            self.seconds,
            self.value_size
        );
        for (i, clients) in CLIENTS.into_iter().enumerate() {
            let side = |side: fn(&Pair) -> &Outcome| {
                let median = self.of(|round| side(&round.loads[i]).writes.quantile(0.5)).median;
                let tail = self.of(|round| side(&round.loads[i]).writes.quantile(0.99)).median;
                let rate = self.of(|round| side(&round.loads[i]).per_second()).median;
                format!("{rate:>7.0} per second, p50 {median:>5.0} us, p99 {tail:>5.0} us")
            };
            let plural = if clients == 1 { "client" } else { "clients" };
            text += &format!("  {clients:>3} {plural:<8} cluster {}\n", side(|pair| &pair.cluster));
            text += &format!("  {:<12} bare    {}\n", "", side(|pair| &pair.bare));
            text += &format!(
                "  {:<12} ratio   throughput {}, median latency {}\n",
                "",
                self.of(|round| round.loads[i].throughput_ratio()).text(),
                self.of(|round| round.loads[i].latency_ratio()).text(),
            );
        }
        text += &format!(
            "  fdatasync of a 4 KiB overwrite {:.0} us; of three files at once {:.0} us until two are done, \
             {:.0} us until all are; loopback round trip {:.0} us\n",
            self.of(|round| micros(round.sync)).median,
            self.of(|round| micros(round.together.0)).median,
            self.of(|round| micros(round.together.1)).median,
            self.of(|round| micros(round.trip)).median,
        );
        text
    }
}

/// A figure over all rounds.
struct Spread {
    median: f64,
    least: f64,
    greatest: f64,
}

impl Spread {
    fn json(&self) -> Value {
        json!({ "median": self.median, "least": self.least, "greatest": self.greatest })
    }

    fn text(&self) -> String {
        format!("{:.2} ({:.2} to {:.2})", self.median, self.least, self.greatest)
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
