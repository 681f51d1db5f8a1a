//! `scripts/failover`: what a cluster of release binaries does when its leader dies, stalls or just works.
//!
//! Four parts on one cluster of three: a benchmark that must not disturb the leader; the leader killed
//! again and again under a steady writer; the leader frozen and thawed under readers that know how new
//! their answers must be at least; and the latency of one client's writes beside what disk and network
//! alone take at the same time. It prints figures, and fails where a promise is broken.

use coracle_attacks::in_a_directory;
use coracle_server::bench::raw::{Blocks, Echo, median};
use coracle_server::client::{Client, Value};
use coracle_server::cluster::{Cluster, Interrupt, REQUEST_LIMIT, report, server, wait};
use coracle_server::demo::{Writer, read_back};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

/// Twice the maximum election timeout that servers have by default: the longest time without a leader.
const GAP: Duration = Duration::from_millis(1200);

/// Writes between two kills: the cluster is whole and at work when the next leader dies.
const WRITES: usize = 200;

/// How long the writer may take for them.
const WRITES_LIMIT: Duration = Duration::from_secs(60);

/// Requests of each kind in the benchmark.
const BENCHMARK: &str = "100000";

/// Connections that wait for a frozen leader: fewer than the 128 that small systems queue for a listener.
const QUESTIONS: u32 = 100;

/// Latencies measured of each kind.
const LATENCIES: usize = 1000;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut program, mut short) = (None, false);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--short" => short = true,
            "--program" => program = arguments.next().map(PathBuf::from),
            _ => program = None,
        }
    }
    let Some(program) = program else {
        eprintln!("usage: failover --program PATH [--short]");
        return ExitCode::FAILURE;
    };
    in_a_directory("failover", &program, |directory, interrupt| run(&program, directory, short, interrupt))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn run(program: &Path, directory: &Path, short: bool, interrupt: Interrupt) -> Result<(), String> {
    let mut cluster = Cluster::start(directory, vec![server(program); 3], interrupt.clone())?;
    cluster.form()?;
    latency(&cluster, directory)?;
    benchmark(&cluster)?;
    kills(&mut cluster, if short { 5 } else { 20 }, &interrupt)?;
    freeze(&cluster, Duration::from_secs(if short { 2 } else { 5 }), &interrupt)?;
    let (applied, _) = cluster.agree()?;
    println!("all nodes applied {applied} entries and have the same digest");
    Ok(())
}

/// Many clients at once are no reason to lose a leader.
fn benchmark(cluster: &Cluster) -> Result<(), String> {
    let (leader, term) = cluster.leader()?;
    let port = cluster.node(leader).place.client_addr.rsplit_once(':').unwrap_or_default().1.to_owned();
    let arguments = ["-p", &port, "-t", "set,get", "-n", BENCHMARK, "-c", "50", "-q"];
    let output = Command::new("redis-benchmark")
        .args(arguments)
        .output()
        .map_err(|error| format!("cannot run redis-benchmark (it is in the package redis-tools): {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    // Progress is overwritten by carriage returns; the last piece of a line is the result.
    for line in said.lines().filter_map(|line| line.rsplit('\r').find(|piece| !piece.trim().is_empty())) {
        println!("redis-benchmark {}: {}", arguments[2..].join(" "), line.trim());
    }
    if !output.status.success() || said.to_lowercase().contains("err") {
        return Err(format!("redis-benchmark failed ({}): {said}", output.status));
    }
    let after = cluster.leader()?;
    if after != (leader, term) {
        return Err(format!("the benchmark cost a leader: {after:?} after {:?}", (leader, term)));
    }
    println!("after it node {leader} still leads in term {term}");
    Ok(())
}

/// Kills the leader again and again. No acknowledged write is lost, and the next is never far.
fn kills(cluster: &mut Cluster, times: usize, interrupt: &Interrupt) -> Result<(), String> {
    let addresses = cluster.client_addresses();
    let writer = Writer::start(addresses, 0);
    let mut gaps = Vec::new();
    for _ in 0..times {
        let until = writer.record().acknowledged.len() + WRITES;
        wait("writing between two kills", WRITES_LIMIT, interrupt, || {
            Ok((writer.record().acknowledged.len() >= until).then_some(()))
        })?;
        let (leader, _) = cluster.leader()?;
        let killed = cluster.kill(leader);
        let next = wait("the first write after a kill", WRITES_LIMIT, interrupt, || {
            let record = writer.record();
            let newest = record.acknowledged.iter().rev().take_while(|write| write.asked > killed);
            Ok(newest.last().map(|write| write.answered))
        })?;
        gaps.push(next.duration_since(killed));
        cluster.restart(leader)?;
        cluster.leader()?;
    }
    let record = writer.stop();
    println!(
        "{times} leaders killed: next write accepted after min {:?}, median {:?}, max {:?}; {} writes \
         acknowledged, {} of unknown outcome, {} refused",
        round(gaps.iter().min()),
        round(Some(&median(&mut gaps))),
        round(gaps.iter().max()),
        record.acknowledged.len(),
        record.unknown,
        record.refused
    );
    for id in cluster.ids() {
        read_back(cluster, id, &record.acknowledged)?;
    }
    println!("no acknowledged write was lost on any node");
    match gaps.iter().max() {
        Some(longest) if *longest > GAP => {
            Err(format!("{longest:?} without a leader, where {GAP:?} are allowed"))
        }
        _ => Ok(()),
    }
}

/// A leader that slept must not answer from memory.
fn freeze(cluster: &Cluster, duration: Duration, interrupt: &Interrupt) -> Result<(), String> {
    let (leader, term) = cluster.leader()?;
    let address = |id: u64| cluster.node(id).place.client_addr.clone();
    let others: Vec<_> = cluster.ids().into_iter().filter(|id| *id != leader).map(address).collect();
    let stop = Arc::new(AtomicBool::new(false));
    // The newest value that was acknowledged: no read that starts later may answer less.
    let newest = Arc::new(AtomicU64::new(0));
    let counter = {
        let (others, stop, newest) = (others.clone(), stop.clone(), newest.clone());
        std::thread::spawn(move || count_up(&others, &stop, &newest))
    };
    let readers: Vec<JoinHandle<Result<u64, String>>> = cluster
        .ids()
        .into_iter()
        .map(|id| {
            let (address, stop, newest) = (address(id), stop.clone(), newest.clone());
            std::thread::spawn(move || read_on(id, &address, &stop, &newest))
        })
        .collect();
    let moved = |by: u64| {
        let until = newest.load(Ordering::SeqCst) + by;
        wait("counting up", WRITES_LIMIT, interrupt, || {
            Ok((newest.load(Ordering::SeqCst) >= until).then_some(()))
        })
    };
    moved(50)?;
    cluster.freeze(leader, true)?;
    let questions = ask_the_frozen(&address(leader), leader, &others[0], duration, &newest)?;
    let counted = newest.load(Ordering::SeqCst);
    cluster.freeze(leader, false)?;
    let (asked, first_floor) = (questions.len(), questions.first().map_or(0, |(floor, _)| *floor));
    let mut answered = 0u64;
    for (floor, mut client) in questions {
        answered += u64::from(check(leader, floor, &client.receive().map_err(text)?)?);
    }
    moved(50)?;
    stop.store(true, Ordering::SeqCst);
    counter.join().map_err(|_| "the counting thread failed")?;
    let mut reads = 0;
    for reader in readers {
        reads += reader.join().map_err(|_| "a reading thread failed")??;
    }
    let (_, new_term) = cluster.leader()?;
    if new_term == term || counted <= first_floor {
        return Err(format!(
            "the cluster did not go on without its frozen leader: terms {term} and {new_term}, the counter \
             at {first_floor} and {counted}"
        ));
    }
    println!(
        "leader frozen for {duration:?}: no stale value in {reads} reads, and none in {asked} that waited for \
         its awakening ({answered} answered, the rest refused); meanwhile {} writes went on",
        counted - first_floor
    );
    Ok(())
}

/// Asks the frozen leader, all the time, what it will find when it wakes up, while the counting goes on elsewhere. Each
/// question comes with the least that it may be answered by then.
fn ask_the_frozen(
    frozen: &str,
    leader: u64,
    other: &str,
    duration: Duration,
    newest: &AtomicU64,
) -> Result<Vec<(u64, Client)>, String> {
    let thaw = Instant::now() + duration;
    let mut questions = Vec::new();
    // Writes that were under way wait for their time limit; this connection has none of those.
    let mut fresh = Client::connect(other, REQUEST_LIMIT).map_err(text)?;
    while Instant::now() < thaw {
        if report(other, REQUEST_LIMIT)?.leader.is_some_and(|id| id != leader)
            && let Value::Number(number) = fresh.ask(&[b"INCR", b"counter"]).map_err(text)?
        {
            newest.fetch_max(number as u64, Ordering::SeqCst);
        }
        let mut client = Client::connect(frozen, REQUEST_LIMIT).map_err(text)?;
        let floor = newest.load(Ordering::SeqCst);
        client.send(&[&[b"GET", b"counter"]]).map_err(text)?;
        questions.push((floor, client));
        sleep(duration / QUESTIONS);
    }
    Ok(questions)
}

fn count_up(addresses: &[String], stop: &AtomicBool, newest: &AtomicU64) {
    for address in addresses.iter().cycle() {
        let Ok(mut client) = Client::connect(address, REQUEST_LIMIT) else { continue };
        while !stop.load(Ordering::SeqCst) {
            // An increment whose outcome is unknown may come later: the counter still only rises.
            match client.ask(&[b"INCR", b"counter"]) {
                Ok(Value::Number(number)) => drop(newest.fetch_max(number as u64, Ordering::SeqCst)),
                Ok(_) => sleep(Duration::from_millis(1)),
                Err(_) => break,
            }
        }
        if stop.load(Ordering::SeqCst) {
            break;
        }
    }
}

fn read_on(id: u64, address: &str, stop: &AtomicBool, newest: &AtomicU64) -> Result<u64, String> {
    let mut client = Client::connect(address, REQUEST_LIMIT).map_err(text)?;
    let mut reads = 0;
    while !stop.load(Ordering::SeqCst) {
        let floor = newest.load(Ordering::SeqCst);
        reads += u64::from(check(id, floor, &client.ask(&[b"GET", b"counter"]).map_err(text)?)?);
    }
    Ok(reads)
}

/// Whether there was an answer; an error if it is too old.
fn check(id: u64, floor: u64, answer: &Value) -> Result<bool, String> {
    let number = match answer {
        Value::Bulk(number) => String::from_utf8_lossy(number).parse().unwrap_or(0),
        Value::Null => 0,
        Value::Error(error) if error.starts_with("CLUSTERDOWN") || error.starts_with("BUSY") => {
            return Ok(false);
        }
        other => return Err(format!("node {id} answered {other:?}")),
    };
    if number < floor {
        return Err(format!(
            "node {id} answered {number} to a question that was asked after {floor} was acknowledged"
        ));
    }
    Ok(true)
}

/// One client's writes beside what they are made of. The three take turns, so they see the same computer.
fn latency(cluster: &Cluster, directory: &Path) -> Result<(), String> {
    let (leader, _) = cluster.leader()?;
    let mut client = cluster.node(leader).client().map_err(text)?;
    let mut blocks = Blocks::new(&directory.join("raw"), "blocks")?;
    let mut echo = Echo::start().map_err(text)?;
    let (mut sets, mut syncs, mut trips) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..LATENCIES {
        let start = Instant::now();
        match client.ask(&[b"SET", b"latency", i.to_string().as_bytes()]).map_err(text)? {
            Value::Simple(_) => sets.push(start.elapsed()),
            other => return Err(format!("a SET failed: {other:?}")),
        }
        syncs.push(blocks.sync().map_err(text)?);
        trips.push(echo.round_trip().map_err(text)?);
    }
    println!(
        "medians of {LATENCIES}: SET {:?}, fdatasync of a 4 KiB overwrite {:?}, loopback round trip {:?}",
        median(&mut sets),
        median(&mut syncs),
        median(&mut trips)
    );
    Ok(())
}

fn round(time: Option<&Duration>) -> Duration {
    Duration::from_millis(time.map_or(0, |time| time.as_millis() as u64))
}
