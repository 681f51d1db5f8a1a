//! `coracle demo`: a cluster loses its leader under load, and nothing else.
//!
//! The demo is a test that talks. It starts three real server processes on real disks, kills the leader
//! with SIGKILL while a writer runs on, and then holds the cluster to its word: every write that was
//! acknowledged is read back from every node, and all three digests agree. Anything else is an error with
//! a plain sentence. Tests put other programs in a node's place, or a hand into a dead node's directory,
//! and see it fail.

use crate::client::{Client, Value};
use crate::cluster::{Cluster, Interrupt, Place, Program, REQUEST_LIMIT, random, wait};
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Writes acknowledged before the leader is killed, and again after: enough to fill some batches of the
/// log, and done in a few seconds on a slow disk.
const WRITES: usize = 200;

/// How long each half of the writes may take.
const WRITES_LIMIT: Duration = Duration::from_secs(120);

/// How many GETs are under way at once when everything is read back.
const READ_AT_ONCE: usize = 100;

/// What to show, and with what.
pub struct Demo {
    /// The programs of the nodes, usually three times [`server`](crate::cluster::server).
    pub programs: Vec<Program>,
    /// Called with the dead node's place before it is restarted. Tests do damage here.
    pub while_dead: Box<dyn FnOnce(&Place)>,
    /// Keep the cluster running at the end, until interrupted.
    pub keep: bool,
    /// Ends everything when it becomes true.
    pub interrupt: Interrupt,
}

impl Demo {
    /// Shows it. An error is a plain sentence.
    pub fn run(self, out: &mut dyn Write) -> Result<(), String> {
        let directory = std::env::temp_dir().join(format!("coracle-demo-{:016x}", random()));
        fs::create_dir(&directory)
            .map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
        let interrupt = self.interrupt.clone();
        // Every child is gone when the story is.
        let result = self.story(&directory, out);
        let interrupted = interrupt.load(Ordering::Relaxed);
        match result {
            Err(problem) if !interrupted => {
                Err(format!("{problem} (the data and logs are kept in {})", directory.display()))
            }
            result => {
                fs::remove_dir_all(&directory)
                    .map_err(|error| format!("cannot remove {}: {error}", directory.display()))?;
                result
            }
        }
    }

    fn story(self, directory: &Path, out: &mut dyn Write) -> Result<(), String> {
        let mut say = |text: String| writeln!(out, "{text}").map_err(|error| error.to_string());
        let interrupt = self.interrupt;
        let mut cluster = Cluster::start(directory, self.programs, interrupt.clone())?;
        introduce(&cluster, directory, &mut say)?;
        cluster.form()?;
        let (leader, term) = cluster.leader()?;
        say(format!("Made them a cluster. Node {leader} was elected leader of term {term}."))?;

        greet(&cluster, leader)?;
        say("Wrote a key through a follower, which forwarded it, and read it back from every node.".into())?;

        let addresses: Vec<_> = cluster.client_addresses();
        let others: Vec<_> = cluster
            .ids()
            .into_iter()
            .filter(|id| *id != leader)
            .map(|id| Writer::start(vec![cluster.node(id).place.client_addr.clone()], 0))
            .collect();
        let writer = Writer::start(addresses, leader as usize - 1);
        wait("the first half of the writes", WRITES_LIMIT, &interrupt, || {
            Ok((writer.record().acknowledged.len() >= WRITES).then_some(()))
        })?;
        let killed = cluster.kill(leader);
        let before = writer.record().acknowledged.len();
        say(format!(
            "Killed the leader, node {leader}, with SIGKILL, {before} writes into a steady stream of them."
        ))?;

        let next = wait("the second half of the writes", WRITES_LIMIT, &interrupt, || {
            let record = writer.record();
            let next =
                record.acknowledged.iter().find(|write| write.asked > killed).map(|write| write.answered);
            Ok(next.filter(|_| record.acknowledged.len() >= before + WRITES))
        })?;
        let record = writer.stop();
        let others: Vec<Record> = others.into_iter().map(Writer::stop).collect();
        let (new_leader, new_term) = cluster.leader()?;
        say(format!(
            "The next write was accepted {} ms after the kill: node {new_leader} leads in term {new_term}.",
            next.duration_since(killed).as_millis()
        ))?;
        say(format!(
            "Stopped the writer: {} writes acknowledged, {} of unknown outcome, {} refused.",
            record.acknowledged.len(),
            record.unknown,
            record.refused
        ))?;
        say(undisturbed(&others)?)?;

        (self.while_dead)(&cluster.node(leader).place);
        cluster.restart(leader)?;
        say(format!("Restarted node {leader} on the data that it left behind."))?;
        for id in cluster.ids() {
            read_back(&cluster, id, &record.acknowledged)?;
        }
        say(format!("Read all {} acknowledged writes back, from each node.", record.acknowledged.len()))?;
        let (applied, digest) = cluster.agree()?;
        say(format!("All three nodes applied {applied} entries and have the same digest, {digest}."))?;
        say("Everything held: the cluster lost its leader and nothing else.".into())?;

        if self.keep {
            stay(&cluster.node(new_leader).place, &interrupt, out)?;
        }
        Ok(())
    }
}

/// Those who write through a node that lives notice a pause and nothing else.
fn undisturbed(others: &[Record]) -> Result<String, String> {
    let (acknowledged, failed) = others.iter().fold((0, 0), |(done, failed), record| {
        (done + record.acknowledged.len(), failed + record.unknown + record.refused)
    });
    if failed > 0 {
        return Err(format!("{failed} writes through the nodes that live failed, or are in doubt"));
    }
    Ok(format!(
        "Of those who wrote through the other two nodes, {acknowledged} writes were acknowledged, none is of unknown outcome, \
         and none was refused."
    ))
}

/// Tells which processes there are, and where to reach them.
fn introduce(
    cluster: &Cluster,
    directory: &Path,
    say: &mut dyn FnMut(String) -> Result<(), String>,
) -> Result<(), String> {
    say(format!("Started three server processes, with their data in {}:", directory.display()))?;
    for id in cluster.ids() {
        let place = &cluster.node(id).place;
        say(format!("  node {id}: clients on {}, peers on {}", place.client_addr, place.peer_addr))?;
    }
    Ok(())
}

/// Lets the cluster run until it is interrupted, and tells how to talk to it.
fn stay(place: &Place, interrupt: &Interrupt, out: &mut dyn Write) -> Result<(), String> {
    let (host, port) = place.client_addr.rsplit_once(':').unwrap_or_default();
    let text = format!(
        "\nThe cluster goes on running until you press Ctrl-C. In another terminal, try:\n  \
         redis-cli -h {host} -p {port}\n  coracle status --to {}",
        place.client_addr
    );
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| error.to_string())?;
    while !interrupt.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// One write through a follower, read from everywhere.
fn greet(cluster: &Cluster, leader: u64) -> Result<(), String> {
    let follower = cluster.ids().into_iter().find(|id| *id != leader).unwrap_or(leader);
    let failed = |id: u64| move |error: io::Error| format!("node {id} does not answer: {error}");
    let mut client = cluster.node(follower).client().map_err(failed(follower))?;
    match client.ask(&[b"SET", b"greeting", b"hello"]).map_err(failed(follower))? {
        Value::Simple(_) => {}
        other => return Err(format!("a write through node {follower} failed: {other:?}")),
    }
    for id in cluster.ids() {
        let mut client = cluster.node(id).client().map_err(failed(id))?;
        match client.ask(&[b"GET", b"greeting"]).map_err(failed(id))? {
            Value::Bulk(value) if value == b"hello" => {}
            other => return Err(format!("node {id} answers {other:?} for a key that holds 'hello'")),
        }
    }
    Ok(())
}

/// Reads every acknowledged write from one node.
pub fn read_back(cluster: &Cluster, id: u64, writes: &[Acknowledged]) -> Result<(), String> {
    let failed = |error: io::Error| format!("node {id} does not answer: {error}");
    let mut client = cluster.node(id).client().map_err(failed)?;
    for chunk in writes.chunks(READ_AT_ONCE) {
        for write in chunk {
            client.send(&[&[b"GET", write.key.as_bytes()]]).map_err(failed)?;
        }
        for Acknowledged { key, value, .. } in chunk {
            match client.receive().map_err(failed)? {
                Value::Bulk(found) if found == value.as_bytes() => {}
                Value::Null => {
                    return Err(format!(
                        "the acknowledged write of {key} is lost: node {id} has no such key"
                    ));
                }
                Value::Bulk(found) => {
                    let found = String::from_utf8_lossy(&found).into_owned();
                    return Err(format!(
                        "node {id} answers '{found}' for {key}, where '{value}' was acknowledged"
                    ));
                }
                other => return Err(format!("node {id} cannot read {key} back: {other:?}")),
            }
        }
    }
    Ok(())
}

/// A write that was acknowledged.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    /// What was written; each key is written once.
    pub key: String,
    /// Its value.
    pub value: String,
    /// When it was sent.
    pub asked: Instant,
    /// When its acknowledgement came.
    pub answered: Instant,
}

/// What became of a writer's writes.
#[derive(Clone, Default, Debug)]
pub struct Record {
    /// Those that were acknowledged, in order.
    pub acknowledged: Vec<Acknowledged>,
    /// How many may or may not have happened.
    pub unknown: usize,
    /// How many certainly did not.
    pub refused: usize,
}

/// A thread that writes one key after the other, and turns to the next node when one fails it.
pub struct Writer {
    record: Arc<Mutex<Record>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts writing, at first to the node at place `first` of the addresses.
    pub fn start(addresses: Vec<String>, first: usize) -> Writer {
        let record = Arc::new(Mutex::new(Record::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (record, stop) = (record.clone(), stop.clone());
            move || write_on(&addresses, first, &record, &stop)
        });
        Writer { record, stop, thread: Some(thread) }
    }

    /// What became of the writes so far.
    pub fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Stops writing, after the write that is under way.
    pub fn stop(mut self) -> Record {
        self.halt();
        self.record().clone()
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the writer shows in its record: nothing new is acknowledged.
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.halt();
    }
}

fn write_on(addresses: &[String], first: usize, record: &Mutex<Record>, stop: &AtomicBool) {
    let run = random();
    let mut client: Option<Client> = None;
    let (mut at, mut number) = (first, 0u64);
    while !stop.load(Ordering::Relaxed) {
        let Some(connected) = &mut client else {
            client = Client::connect(&addresses[at % addresses.len()], REQUEST_LIMIT).ok();
            if client.is_none() {
                at += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            continue;
        };
        number += 1;
        let (key, value) = (format!("demo:{run:016x}:{number}"), format!("value {number} of {run:016x}"));
        let asked = Instant::now();
        let answer = connected.ask(&[b"SET", key.as_bytes(), value.as_bytes()]);
        let mut record = record.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match answer {
            Ok(Value::Simple(_)) => {
                record.acknowledged.push(Acknowledged { key, value, asked, answered: Instant::now() });
                continue;
            }
            Ok(Value::Error(error)) if !error.starts_with("UNKNOWN") => record.refused += 1,
            // Without an answer nobody knows, either.
            Ok(_) | Err(_) => record.unknown += 1,
        }
        client = None;
        at += 1;
    }
}
