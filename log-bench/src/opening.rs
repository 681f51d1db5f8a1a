//! Starts on a large log, with its files in the page cache.

use crate::Failure;
use crate::contender::Contender;
use crate::measure::{Dice, batch, median};
use crate::raft_engine::RaftEngine;
use crate::report::number;
use crate::store::IDENTITY;
use coracle::storage::LogStore;
use coracle::storage::disk::DirDisk;
use coracle::storage::wal::{Wal, WalConfig};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// The payload of an entry of the first logs, in bytes, and entries in one of their batches. How many these
/// are matters: raft-engine keeps the places of a batch's entries together after them.
const SMALL: [(usize, u64); 2] = [(256, 16), (256, 1024)];

/// The same of the log of a gibibyte.
const LARGE: (usize, u64) = (4096, 256);

/// A gibibyte.
const GIB: u64 = 1 << 30;

/// Measures them, interleaved, and tells.
pub(crate) fn run(directory: &Path, entries: u64, rounds: u32, quick: bool) -> Result<String, Failure> {
    let (wal, engine) = (directory.join("wal"), directory.join("raft-engine"));
    // A start of the log leaves less to read for the next one: so each has a copy of its own.
    let copy = directory.join("copy");
    let mut text = String::from(
        "\n### Opening\n\n| log | wal | raft-engine | wal / raft-engine |\n| --- | --: | --: | --: |\n",
    );
    for shape in SMALL {
        fill_wal(&wal, entries, shape)?;
        fill_engine(&engine, entries, shape)?;
        let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            let (mine, other) = if round % 2 == 0 {
                let mine = open_wal(&wal, &copy, entries)?;
                (mine, open_engine(&engine, entries)?)
            } else {
                let other = open_engine(&engine, entries)?;
                (open_wal(&wal, &copy, entries)?, other)
            };
            ours.push(mine);
            theirs.push(other);
            ratios.push(mine / other);
        }
        let [ours, theirs, ratio] = [ours, theirs, ratios].map(|all| number(median(all)));
        let (payload, batch) = shape;
        text += &format!(
            "| {entries} entries of {payload} bytes, batches of {batch} | {ours} s | {theirs} s | {ratio} |\n"
        );
        fs::remove_dir_all(directory)?;
    }
    if !quick {
        let entries = GIB / LARGE.0 as u64;
        fill_wal(&wal, entries, LARGE)?;
        let times = (0..rounds).map(|_| open_wal(&wal, &copy, entries)).collect::<Result<Vec<_>, _>>()?;
        text +=
            &format!("| 1 GiB: {entries} entries of {} bytes | {} s | | |\n", LARGE.0, number(median(times)));
    }
    Ok(text)
}

fn fill_wal(directory: &Path, entries: u64, (payload, in_batch): (usize, u64)) -> Result<(), Failure> {
    let mut log = Wal::open(Arc::new(DirDisk::open(directory)?), IDENTITY, WalConfig::default());
    log.load(&mut |_| {})?;
    let payload = Dice(1).bytes(payload);
    for first in (1..=entries).step_by(in_batch as usize) {
        log.write(&batch(first, in_batch.min(entries + 1 - first), &payload))?;
    }
    Ok(log.idle()?)
}

fn fill_engine(directory: &Path, entries: u64, (payload, in_batch): (usize, u64)) -> Result<(), Failure> {
    let mut engine = RaftEngine::open(directory)?;
    let payload = Dice(1).bytes(payload);
    for first in (1..=entries).step_by(in_batch as usize) {
        let batch = batch(first, in_batch.min(entries + 1 - first), &payload);
        engine.prepare(&batch);
        engine.write(&batch)?;
    }
    Ok(())
}

/// Seconds until a copy of the log, as it was left when it was filled, can be read and written.
fn open_wal(filled: &Path, copy: &Path, entries: u64) -> Result<f64, Failure> {
    fs::create_dir_all(copy)?;
    for file in fs::read_dir(filled)? {
        let file = file?;
        fs::copy(file.path(), copy.join(file.file_name()))?;
    }
    let start = Instant::now();
    let mut log = Wal::open(Arc::new(DirDisk::open(copy)?), IDENTITY, WalConfig::default());
    let found = log.load(&mut |_| {})?;
    let took = start.elapsed().as_secs_f64();
    drop(log);
    fs::remove_dir_all(copy)?;
    if found.last.index.0 != entries {
        return Err(format!("the log ends at {} and not at {entries}", found.last.index.0).into());
    }
    Ok(took)
}

/// The same of raft-engine.
fn open_engine(directory: &Path, entries: u64) -> Result<f64, Failure> {
    let start = Instant::now();
    let engine = RaftEngine::open(directory)?;
    let took = start.elapsed().as_secs_f64();
    if engine.last_index() != Some(entries) {
        return Err(format!("raft-engine ends at {:?} and not at {entries}", engine.last_index()).into());
    }
    Ok(took)
}
