//! `scripts/siege`: a cluster of release binaries with its default limits under hostile load, beside an honest client.
//!
//! The attackers ([`hostile`]) do all that anybody can do who reaches the two ports, from many addresses at once. The honest
//! client ([`honest`]) sets and gets, as it did before they came. Afterwards these held, or the siege has failed:
//!
//! - no node was elected: the term is what it was;
//! - no process took more memory than [`CAP`], or ended;
//! - the honest client saw answers and `BUSY`, nothing else, and kept a [part](KEPT) of its throughput;
//! - `CORACLE STATUS` was answered all the while, once a second, to whoever asked from an address of its own;
//! - soon after the end the honest client is as fast as before, and memory and descriptors are what they were.
//!
//! Beside that there are two questions of time ([`crowds`]): what answers take where ten times as much is asked for as can be done
//! (`--overload`), and beside a client that asks for all that it can get (`--fairness`).
//!
//! A computer that does not run who is ready to run can lose a leader without any attack. So a thread sleeps for 10 ms again
//! and again: if it ever slept for longer than [`PROMISE`], an election shows nothing, and the siege begins anew.

mod crowds;
mod honest;
mod hostile;
mod watch;

use coracle_attacks::in_a_directory;
use coracle_server::cluster::{Cluster, Interrupt, Place, server, wait};
use honest::Honest;
use hostile::{ALL, Hostile};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};
use watch::{Seen, Sizes, Watch};

/// The most memory that a node may take, in MiB: what `docs/operations.md` says of the default limits. Three are below 4 GiB.
const CAP: u64 = 1_280;

/// How many connections the honest client has.
const CONNECTIONS: usize = 8;

/// What the honest client keeps of its throughput.
const KEPT: f64 = 0.2;

/// What it has back of it five seconds after the end.
const BACK: f64 = 0.5;

/// What a thread that sleeps for 10 ms may sleep: more, and the computer does not keep what elections rely on.
const PROMISE: Duration = Duration::from_millis(50);

/// How often a siege is begun that shows nothing.
const ATTEMPTS: u32 = 5;

/// How long the honest client is measured before and after.
const MEASURED: Duration = Duration::from_secs(5);

/// After what time all is well again.
const SOON: Duration = Duration::from_secs(5);

/// How much more memory a node may have afterwards, in MiB: entries and keys that were written, which it caches by its settings
/// (16 MiB), the list of where entries lie, and what the allocator keeps of pages that are not empty.
const LEFT_OVER: u64 = 192;

/// How many more descriptors: segments of the log that are open for reading, of which 64 are kept.
const LEFT_OPEN: u64 = 80;

/// One of the sieges: on a cluster that leads, for so long.
type Siege = fn(&Led, Duration, &Interrupt) -> Result<Outcome, String>;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut program, mut minutes) = (None, Some(1.0));
    let mut siege: Siege = besiege;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--minutes" => minutes = arguments.next().and_then(|number| number.parse().ok()),
            "--program" => program = arguments.next().map(PathBuf::from),
            "--overload" => siege = crowds::overload,
            "--fairness" => siege = crowds::fairness,
            _ => program = None,
        }
    }
    let (Some(program), Some(minutes)) = (program, minutes.filter(|minutes| (0.05..=1e4).contains(minutes)))
    else {
        eprintln!("usage: siege --program PATH [--minutes N] [--overload | --fairness]");
        return ExitCode::FAILURE;
    };
    let limit = getrlimit(Resource::Nofile);
    // Where that fails there are fewer attackers.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let length = Duration::from_secs_f64(minutes * 60.0);
    in_a_directory("siege", &program, |directory, interrupt| {
        run(siege, &program, directory, length, &interrupt)
    })
}

/// A cluster that has a leader.
struct Led {
    cluster: Cluster,
    /// The leader, and its term.
    leader: (u64, u64),
    /// Where its clients reach it.
    address: String,
    /// What the processes take before.
    sizes: Sizes,
}

impl Led {
    fn start(program: &Path, directory: &Path, interrupt: &Interrupt) -> Result<Led, String> {
        let cluster = Cluster::start(directory, vec![server(program); 3], interrupt.clone())?;
        cluster.form()?;
        let leader = cluster.leader()?;
        let place = &cluster.node(leader.0).place;
        hostile::prepare(place)?;
        let (address, sizes) = (place.client_addr.clone(), Sizes::of(&cluster)?);
        Ok(Led { cluster, leader, address, sizes })
    }

    fn places(&self) -> Vec<Place> {
        self.cluster.ids().into_iter().map(|id| self.cluster.node(id).place.clone()).collect()
    }
}

/// What a siege came to.
enum Outcome {
    Held,
    /// The computer was too busy to tell.
    Inconclusive(String),
}

fn run(
    siege: Siege,
    program: &Path,
    directory: &Path,
    length: Duration,
    interrupt: &Interrupt,
) -> Result<(), String> {
    for attempt in 1..=ATTEMPTS {
        let place = directory.join(format!("attempt{attempt}"));
        std::fs::create_dir(&place).map_err(|error| error.to_string())?;
        match siege(&Led::start(program, &place, interrupt)?, length, interrupt)? {
            Outcome::Held => return Ok(()),
            Outcome::Inconclusive(why) => println!("attempt {attempt} of {ATTEMPTS} is inconclusive: {why}"),
        }
    }
    Err(format!("none of {ATTEMPTS} attempts was conclusive: this computer is too busy for a siege"))
}

fn besiege(led: &Led, length: Duration, interrupt: &Interrupt) -> Result<Outcome, String> {
    let Led { cluster, leader, address, .. } = led;
    let honest = Honest::start(address, CONNECTIONS, Duration::ZERO);
    measured(&honest, MEASURED, interrupt)?;
    let before = measured(&honest, MEASURED, interrupt)?;
    let sizes = Sizes::of(cluster)?;
    println!(
        "before: node {} leads in term {}; honest client {before:.0} per second; {sizes}",
        leader.0, leader.1
    );

    let mut watch = Watch::start(cluster);
    let hostile = Hostile::start(led.places(), ALL);
    let start = Instant::now();
    let during = measured(&honest, length, interrupt)?;
    let done = hostile.stop()?;
    println!("{:.0} s of siege: {done}", start.elapsed().as_secs_f64());

    sleep(SOON);
    let after = measured(&honest, MEASURED, interrupt)?;
    let seen = watch.stop();
    let record = honest.stop();
    println!(
        "during: honest client {during:.0} per second, told BUSY {} times; after: {after:.0} per second",
        record.busy
    );
    println!(
        "most: {}; status answered {} times; the probe's 10 ms took {:?} at most",
        seen.most, seen.answered, seen.late
    );

    let mut broken = record.problems;
    if during < before * KEPT {
        broken.push(format!("the honest client was left {during:.0} per second of {before:.0}"));
    }
    if after < before * BACK {
        broken.push(format!(
            "{SOON:?} after the end the honest client has {after:.0} per second of {before:.0}"
        ));
    }
    judge(led, sizes, seen, broken, interrupt)
}

/// What all of it comes to: what is broken beside this, and whether the computer was too busy to tell.
fn judge(
    led: &Led,
    sizes: Sizes,
    seen: Seen,
    mut broken: Vec<String>,
    interrupt: &Interrupt,
) -> Result<Outcome, String> {
    broken.extend(election(&led.cluster, led.leader));
    broken.extend(seen.problems);
    broken.extend(outgrown(&led.cluster, seen.most, sizes, interrupt)?);
    let broken = broken.join("; ");
    if seen.late > PROMISE {
        let what = if broken.is_empty() { "everything held" } else { &broken };
        return Ok(Outcome::Inconclusive(format!("{what}; but 10 ms took {:?}", seen.late)));
    }
    if !broken.is_empty() {
        return Err(broken);
    }
    let (applied, _) = led.cluster.agree()?;
    println!("all nodes applied {applied} entries and have the same digest");
    Ok(Outcome::Held)
}

/// Whether another one leads, or in another term.
fn election(cluster: &Cluster, before: (u64, u64)) -> Option<String> {
    match cluster.leader() {
        Ok(now) if now == before => None,
        other => Some(format!("there was an election: {other:?} after {before:?}")),
    }
}

/// What processes took that they may not, and what they did not give back.
fn outgrown(
    cluster: &Cluster,
    most: Sizes,
    before: Sizes,
    interrupt: &Interrupt,
) -> Result<Vec<String>, String> {
    let mut broken = Vec::new();
    if most.memory > CAP {
        broken.push(format!("a node took {} MiB, and {CAP} is what it may", most.memory));
    }
    let left = wait_for(cluster, &before, interrupt)?;
    println!("left: {left}");
    if left.memory > before.memory + LEFT_OVER || left.descriptors > before.descriptors + LEFT_OPEN {
        broken.push(format!("it left {left}, where there was {before}"));
    }
    Ok(broken)
}

/// What the honest client is answered per second, for so long.
fn measured(honest: &Honest, length: Duration, interrupt: &Interrupt) -> Result<f64, String> {
    let (start, before) = (Instant::now(), honest.answered());
    wait("measuring", length * 2 + Duration::from_secs(60), interrupt, || {
        Ok((start.elapsed() >= length).then_some(()))
    })?;
    Ok((honest.answered() - before) as f64 / start.elapsed().as_secs_f64())
}

/// The sizes once they are what they may be, or after a while what they are.
fn wait_for(cluster: &Cluster, before: &Sizes, interrupt: &Interrupt) -> Result<Sizes, String> {
    let start = Instant::now();
    wait("looking at the sizes", Duration::from_secs(60), interrupt, || {
        let now = Sizes::of(cluster)?;
        let fits =
            now.memory <= before.memory + LEFT_OVER && now.descriptors <= before.descriptors + LEFT_OPEN;
        Ok((fits || start.elapsed() > Duration::from_secs(15)).then_some(now))
    })
}
