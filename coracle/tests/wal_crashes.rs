//! Every state in which a loss of power can leave the log, and what the next start makes of it.
//!
//! A workload of some hundred operations on files is cut at each of them. What was not synced by then may
//! be there or not, sector by sector and name by name: where there are few such choices, all of their
//! combinations are tried, and otherwise the extremes, each choice against all others, and many at random.
//! Each state must start, must hold everything that was acknowledged, and at most what was under way
//! besides. Some are cut again while they start, and those again, to depth 3.
//!
//! A generator of states proves nothing unless it finds what is wrong: so it must find each of a list of
//! mistakes planted in the log.

mod wal_support;

use coracle::raft::{Broken, Index, LogId};
use coracle::storage::disk::Disk;
use coracle::storage::mem_disk::{MemDisk, Op};
use coracle::storage::{Change, LogStore, StoreError, WriteBatch};
use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use wal_support::*;
use xxhash_rust::xxh3::Xxh3Default;

/// How much is tried.
#[derive(Clone, Copy)]
struct Effort {
    /// Operations on files in the workload.
    operations: u64,
    /// Random choices after each cut.
    random: usize,
    /// One state of so many is cut again while it starts.
    nested: u64,
    /// The fewest different states that must come of it.
    states: usize,
}

const SHORT: Effort = Effort { operations: 500, random: 5, nested: 16, states: 10_000 };
const LONG: Effort = Effort { operations: 1500, random: 100, nested: 8, states: 100_000 };

/// What a process does.
#[derive(Clone)]
enum Deed {
    Step(Step),
    /// The process ends, cleanly or not, and the next one starts.
    Restart,
}

/// What went wrong, and where.
type Complaint = String;

/// A workload, and all that it should come to.
struct Life {
    deeds: Vec<Deed>,
    /// The model before the first deed, and after each.
    states: Vec<Model>,
    operations: u64,
    effort: Effort,
    /// The rule that the log breaks.
    broken: Broken,
}

fn shared(disk: &MemDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

impl Life {
    /// A life of appends, truncations, votes, purges, seals and restarts.
    fn new(effort: Effort) -> Life {
        let (broken, states) = (Broken::default(), vec![Model::default()]);
        let mut life = Life { deeds: Vec::new(), states, operations: 0, effort, broken };
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        let disk = MemDisk::new();
        let mut wal = life.start(&disk).expect("an empty disk");
        while disk.operations() < effort.operations {
            let deed = life.next(&mut dice);
            let mut next = life.states[life.states.len() - 1].clone();
            match &deed {
                Deed::Restart => wal = life.start(&disk).expect("a healthy disk"),
                Deed::Step(step) => {
                    next.apply(step);
                    step.run(&mut *wal).expect("a healthy disk");
                }
            }
            life.deeds.push(deed);
            life.states.push(next);
        }
        let trace = disk.trace();
        for op in [Op::Create, Op::Write, Op::Sync, Op::SetLen, Op::Rename, Op::Remove, Op::SyncDir] {
            let count = trace.iter().filter(|other| **other == op).count();
            assert!(count > 3, "{op:?} is rare: {count}");
        }
        life.operations = disk.operations();
        life
    }

    fn next(&self, dice: &mut Dice) -> Deed {
        let model = &self.states[self.states.len() - 1];
        let (last, state) = (model.last(), model.hard_state);
        let at = last.index.0;
        let size = |dice: &mut Dice| [1, 100, 600, 3000, 5000][dice.roll() as usize % 5];
        let append = |dice: &mut Dice, term: u64, after: u64| {
            let count = dice.roll() % 4;
            let size = size(dice);
            match dice.roll() % 8 {
                0 => Change::Append(vec![membership(term, after + 1)]),
                _ => append(term, after + 1..=after + 1 + count, size),
            }
        };
        let term = state.term.0.max(1);
        let write = |hard_state, changes| Deed::Step(Step::Write(WriteBatch { hard_state, changes }));
        match dice.roll() % 20 {
            0..=7 => write(None, vec![append(dice, term, at)]),
            8 | 9 => write(hard_state(term + 1, Some(dice.roll() % 3 + 1)), vec![]),
            10 => write(hard_state(term + 1, None), vec![append(dice, term + 1, at)]),
            11 | 12 if at > model.purged.index.0 => {
                let keep = at - dice.roll() % (at - model.purged.index.0 + 1);
                let changes = vec![Change::Truncate(Index(keep)), append(dice, term + 1, keep)];
                write(hard_state(term + 1, Some(1)), changes)
            }
            13..=15 if at > model.purged.index.0 + 2 => {
                let upto = &model.entries[model.entries.len() - 1 - (dice.roll() % 3) as usize];
                Deed::Step(Step::Purge(upto.id()))
            }
            16 if dice.roll().is_multiple_of(3) => {
                let to = at + 1 + dice.roll() % 5;
                write(hard_state(term, None), vec![Change::Reset(LogId::new(term, to))])
            }
            17 | 19 => Deed::Restart,
            18 => Deed::Step(Step::Idle),
            _ => write(None, vec![append(dice, term, at)]),
        }
    }

    /// The numbers of the operations of these kinds, in a life in which nothing fails.
    fn numbers(&self, wanted: impl Fn(Op) -> bool) -> Vec<u64> {
        let disk = MemDisk::new();
        assert_eq!(self.run(&disk), self.deeds.len());
        (0..).zip(disk.trace()).filter(|(_, op)| wanted(*op)).map(|(number, _)| number).collect()
    }

    fn start(&self, disk: &MemDisk) -> Result<Box<dyn LogStore>, StoreError> {
        let (wal, _) = start_broken(&shared(disk), config(), self.broken)?;
        Ok(Box::new(wal))
    }

    /// Lives on the disk until something fails; how many deeds were done.
    fn run(&self, disk: &MemDisk) -> usize {
        let Ok(mut wal) = self.start(disk) else { return 0 };
        let mut done = 0;
        for deed in &self.deeds {
            let result = match deed {
                Deed::Step(step) => step.run(&mut *wal),
                Deed::Restart => self.start(disk).map(|next| wal = next),
            };
            if result.is_err() {
                break;
            }
            done += 1;
        }
        done
    }

    /// Starts, and says which of the states that it may have it has.
    fn judge(&self, disk: &MemDisk, done: usize) -> Result<usize, Complaint> {
        let read = || {
            let (wal, recovered) = start_broken(&shared(disk), config(), self.broken)?;
            Ok::<_, StoreError>(held(&recovered, &*wal.reader()))
        };
        // A start that panics says as little as one that fails.
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read))
            .map_err(|_| format!("after {done} deeds: a panic"))?
            .map_err(|error| format!("after {done} deeds: {error}"))?;
        let may = done..self.states.len().min(done + 2);
        may.clone().find(|at| self.states[*at] == found).ok_or_else(|| {
            let (found, wanted) = (brief(&found), brief(&self.states[done]));
            format!("after {done} deeds: found {found}, instead of {wanted} or the next")
        })
    }

    /// Tries the states after one cut, and what comes of some of them when they are cut again.
    fn cut(&self, at: u64, seen: &mut HashSet<u64>) -> Result<(), Complaint> {
        let mut dice = Dice((at + 1).wrapping_mul(0x2545_f491_4f6c_dd1d));
        let disk = MemDisk::new();
        disk.fail_from(at);
        let done = self.run(&disk);
        for image in images(&disk, &mut dice, self.effort.random) {
            if !seen.insert(hash(&image)) {
                continue;
            }
            let nested = dice.roll().is_multiple_of(self.effort.nested).then(|| image.copy());
            let promised = self.judge(&image, done).map_err(|wrong| format!("cut at {at}: {wrong}"))?;
            if let Some(image) = nested {
                let may = (done, promised);
                self.cut_starts(&image, may, 2, seen, &mut dice)
                    .map_err(|wrong| format!("cut at {at}, and again: {wrong}"))?;
            }
        }
        Ok(())
    }

    /// Cuts the start on this image at every operation, `depth` times nested. What one whole start finds, all
    /// later ones must.
    fn cut_starts(
        &self,
        image: &MemDisk,
        (done, promised): (usize, usize),
        depth: u32,
        seen: &mut HashSet<u64>,
        dice: &mut Dice,
    ) -> Result<(), Complaint> {
        for again in 0.. {
            let disk = image.copy();
            disk.fail_from(again);
            let started = self.start(&disk).is_ok();
            let odds = dice.roll() % 4;
            let left = disk.power_cut(512, || dice.roll() % 4 < odds);
            if seen.insert(hash(&left)) {
                let next = (depth > 1 && dice.roll().is_multiple_of(4)).then(|| left.copy());
                let found = self.judge(&left, done)?;
                if started && found != promised {
                    return Err(format!("a start told state {promised}, and the next one {found}"));
                }
                if let Some(image) = next {
                    self.cut_starts(&image, (done, found), depth - 1, seen, dice)?;
                }
            }
            if started {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Tries everything, on all cores. The number of different states, or the first complaint of each core.
    fn try_all(&self) -> Result<usize, Vec<Complaint>> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let work = |core| {
            let mut seen = HashSet::new();
            (core..self.operations).step_by(cores as usize).try_for_each(|at| self.cut(at, &mut seen))?;
            Ok(seen)
        };
        let results: Vec<Result<HashSet<u64>, Complaint>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..cores).map(|core| scope.spawn(move || work(core))).collect();
            workers.into_iter().map(|worker| worker.join().expect("a worker")).collect()
        });
        let mut all = HashSet::new();
        let mut complaints = Vec::new();
        for result in results {
            match result {
                Ok(seen) => all.extend(seen),
                Err(complaint) => complaints.push(complaint),
            }
        }
        if complaints.is_empty() { Ok(all.len()) } else { Err(complaints) }
    }
}

/// What may be left after a loss of power: all combinations where there are few, otherwise the extremes, each
/// choice alone and each missing alone, and `random` more.
fn images(disk: &MemDisk, dice: &mut Dice, random: usize) -> Vec<MemDisk> {
    let mut images = Vec::new();
    for sector in [4096, 512] {
        let mut choices = 0u64;
        images.push(disk.power_cut(sector, || {
            choices += 1;
            false
        }));
        images.push(disk.power_cut(sector, || true));
        if choices <= 8 {
            for bits in 0u64..1 << choices {
                let mut at = 0;
                images.push(disk.power_cut(sector, || {
                    at += 1;
                    bits >> (at - 1) & 1 == 1
                }));
            }
            continue;
        }
        for alone in 0..choices.min(64) {
            for kept in [false, true] {
                let mut at = 0;
                images.push(disk.power_cut(sector, || {
                    at += 1;
                    (at - 1 == alone) == kept
                }));
            }
        }
        for _ in 0..random {
            let odds = dice.roll() % 15 + 1;
            images.push(disk.power_cut(sector, || dice.roll() % 16 < odds));
        }
    }
    images
}

fn hash(disk: &MemDisk) -> u64 {
    let mut hash = Xxh3Default::new();
    for name in disk.list().expect("a healthy disk") {
        hash.update(name.as_bytes());
        hash.update(&disk.contents(&name).expect("just listed"));
    }
    hash.digest()
}

fn try_all(effort: Effort) {
    let life = Life::new(effort);
    let states = life.try_all().unwrap_or_else(|complaints| panic!("{complaints:#?}"));
    println!("{states} states of {} operations, {} deeds", life.operations, life.deeds.len());
    assert!(states >= effort.states, "{states} states only");
}

/// ST-1, ST-3, ST-6, ST-7, ST-8, ST-12.
#[test]
fn st_7_what_a_loss_of_power_may_leave_starts_and_holds_what_was_acknowledged() {
    try_all(SHORT);
}

#[test]
#[ignore = "a minute; .ci/long runs it"]
fn st_7_a_hundred_thousand_states_start_and_hold_what_was_acknowledged() {
    try_all(LONG);
}

/// ST-4: each of the first 500 syncs fails, which stops the log; nothing that was acknowledged is lost, by the
/// end of the process alone or by a loss of power.
#[test]
fn st_4_after_each_of_500_failing_syncs_the_next_start_holds() {
    let life = Life::new(Effort { operations: 2000, ..SHORT });
    let syncs = life.numbers(|op| matches!(op, Op::Sync | Op::SyncDir));
    assert!(syncs.len() >= 500, "{} syncs", syncs.len());
    for at in &syncs[..500] {
        let disk = MemDisk::new();
        disk.fail_at(*at, io::ErrorKind::Other);
        let done = life.run(&disk);
        assert!(done < life.deeds.len(), "sync {at} failed, and nobody noticed");
        for image in [disk.power_cut(512, || false), disk.power_cut(512, || true), disk] {
            life.judge(&image, done).unwrap_or_else(|wrong| panic!("sync {at}: {wrong}"));
        }
    }
}

/// ST-5: the disk is full at each of 200 writes, and stays so. The log stops or goes on, a start on the full
/// disk is refused or succeeds, and once there is room everything that was acknowledged is there.
#[test]
fn st_5_after_each_of_200_writes_to_a_full_disk_the_next_start_holds() {
    let life = Life::new(Effort { operations: 2000, ..SHORT });
    let writes = life.numbers(|op| op == Op::Write);
    let mut refused = 0;
    for at in writes.iter().skip(writes.len() % 7).step_by(writes.len() / 200).take(200) {
        let disk = MemDisk::new();
        disk.fail_at(*at, io::ErrorKind::StorageFull);
        let done = life.run(&disk);
        disk.set_full(true);
        match start_broken(&shared(&disk), config(), life.broken) {
            Ok(_) => {}
            Err(StoreError::Io { source, .. } | StoreError::NoSpace { source, .. })
                if source.kind() == io::ErrorKind::StorageFull =>
            {
                refused += 1;
            }
            Err(other) => panic!("write {at}: {other}"),
        }
        disk.clear_faults();
        life.judge(&disk, done).unwrap_or_else(|wrong| panic!("write {at}: {wrong}"));
    }
    assert!(refused > 50, "{refused} starts refused");
}

/// The generator is worth something: it finds each of these.
#[test]
fn planted_mistakes_are_found() {
    for rule in [
        "batch-not-synced",
        "checkpoint-not-synced",
        "directory-not-synced",
        "batch-attests-itself",
        "unattested-tail-not-rewritten",
        "truncation-not-recorded",
        "checkpoint-forgets-vote",
        "earlier-life-accepted",
        "old-name-refused",
    ] {
        // The workload is that of the log without a mistake.
        let life = Life { broken: Broken::rule(Some(rule)), ..Life::new(SHORT) };
        let found = life.try_all().expect_err(rule);
        println!("{rule}: {}", found[0]);
    }
}
