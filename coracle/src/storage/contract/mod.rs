//! The contract of a log store, and a suite that tests any store by it.
//!
//! [`LogStore`](super::LogStore) is what a node rests on: it votes, acknowledges and answers by what its
//! store said was done. [`Clause`] has the contract, sentence by sentence. An author of a store writes one
//! test:
//!
//! ```
//! # use coracle::storage::{disk::{DirDisk, Disk}, wal::{self, Wal, WalConfig}, Engine, Identity, LogStore, StoreError};
//! # use std::{path::Path, sync::Arc};
//! # struct MyEngine;
//! # impl Engine for MyEngine {
//! #     fn name(&self) -> &str { "mine" }
//! #     fn exists(&self, dir: &Path) -> Result<bool, StoreError> {
//! #         Ok(dir.exists() && wal::exists(&DirDisk::open(dir)?)?)
//! #     }
//! #     fn open(&self, dir: &Path, identity: Identity) -> Result<Box<dyn LogStore>, StoreError> {
//! #         let disk: Arc<dyn Disk> = Arc::new(DirDisk::open(dir)?);
//! #         let config = WalConfig { segment_bytes: 1 << 20, ..WalConfig::default() };
//! #         Ok(Box::new(Wal::open(disk, identity, config)))
//! #     }
//! # }
//! # let empty = tempfile::tempdir().unwrap();
//! coracle::storage::contract::check(&MyEngine, empty.path()).unwrap_or_else(|broken| panic!("{broken}"));
//! ```
//!
//! What is broken is told by its clause, with the steps that show it.
//!
//! A test of `kill -9` takes a process of its own: it calls [`write_until_killed`], while the test holds it as a
//! [`Victim`] and looks with [`check_killed`] at what it left.
//!
//! # What the suite cannot see
//!
//! It opens, writes, copies files and opens again, so it finds what is kept back in the process. It cannot
//! cut the power: that a store *syncs* what it wrote, and the names of its files, has to be shown by other
//! means (a disk in memory that forgets, as [`MemDisk`](super::mem_disk::MemDisk); a file system that drops
//! unsynced data; a trace of the system calls). Nor can it make a disk fail: after a failed write or
//! sync a store must refuse everything, and never try the sync again.

mod case;
mod files;
mod kill;
mod maintenance;
pub mod model;
mod openings;
mod random;
mod reading;
mod writing;

pub use self::kill::{Victim, check_killed, write_until_killed};

use self::case::Case;
use super::Engine;
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

/// A sentence of the contract.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Clause {
    /// A new store is empty, and a store that was used exists.
    Empty,
    /// The changes of a batch take effect in their order, and batches in the order of the calls.
    Order,
    /// A batch is kept whole or not at all.
    Atomic,
    /// What a store holds when it is dropped is there when it is opened again.
    Durable,
    /// What was written is outside of the process when the call returns: it survives the process's end.
    Killed,
    /// A truncation forgets exactly the entries after its index, for good.
    Truncation,
    /// A purge forgets exactly the entries up to its own, for good; one of the past changes nothing.
    Purge,
    /// A reset forgets every entry, and the log goes on after its own.
    Reset,
    /// The hard state is the newest that was written; neither truncation, purge nor reset touches it.
    HardState,
    /// `load` tells the runs of terms, and the memberships: those the log holds, and the newest purged one.
    Outline,
    /// A write that breaks the contract is `Refused`, changes nothing, and the store goes on.
    Refused,
    /// A read gives entries from its first on, contiguous, as many as fit, at least one; or says `Purged` or
    /// `Missing`, and which of both.
    Reading,
    /// Readers on other threads see each batch whole or not at all, and at the latest when its write
    /// returned.
    Beside,
    /// Entries of the largest size, thousands in a batch, and 64 MiB in a batch are taken.
    Limits,
    /// Whatever is done in whatever order, the store holds what a plain list would.
    Random,
    /// One opening of a directory at a time: a second is `Locked`, until the first is dropped.
    Exclusive,
    /// A store belongs to one node and one incarnation; for another its opening is refused.
    Bound,
    /// An entry whose bytes changed on disk is never given out, and never taken for the end of the log.
    Damage,
}

impl Clause {
    /// All clauses, in the order in which they are tested.
    pub const ALL: [Clause; 18] = [
        Clause::Empty,
        Clause::Durable,
        Clause::Truncation,
        Clause::Purge,
        Clause::Reset,
        Clause::Order,
        Clause::HardState,
        Clause::Outline,
        Clause::Refused,
        Clause::Atomic,
        Clause::Reading,
        Clause::Exclusive,
        Clause::Bound,
        Clause::Killed,
        Clause::Damage,
        Clause::Beside,
        Clause::Random,
        Clause::Limits,
    ];

    fn sentence(self) -> &'static str {
        match self {
            Clause::Empty => "a new store is empty, and a store that was used exists",
            Clause::Order => "changes take effect in their order",
            Clause::Atomic => "a batch is kept whole or not at all",
            Clause::Durable => "what a store holds is there when it is opened again",
            Clause::Killed => "what was written survives the process's end",
            Clause::Truncation => "a truncation forgets exactly the entries after its index, for good",
            Clause::Purge => "a purge forgets exactly the entries up to its own, for good",
            Clause::Reset => "a reset forgets every entry, and the log goes on after its own",
            Clause::HardState => "neither truncation, purge nor reset touches the hard state",
            Clause::Outline => "load tells the runs of terms and the memberships",
            Clause::Refused => "a write that breaks the contract is refused and changes nothing",
            Clause::Reading => "a read gives contiguous entries, as many as fit, or says why not",
            Clause::Beside => "readers on other threads see each batch whole, once its write returned",
            Clause::Limits => "the largest entries and batches are taken",
            Clause::Random => "the store holds what a plain list would",
            Clause::Exclusive => "one opening of a directory at a time",
            Clause::Bound => "a store belongs to one node and one incarnation",
            Clause::Damage => "changed bytes are never given out, nor taken for the end of the log",
        }
    }
}

/// How a store breaks the contract.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Violation {
    /// The engine's name.
    pub engine: String,
    /// The broken clause.
    pub clause: Clause,
    /// What was expected and what came.
    pub detail: String,
    /// What was done to the store, in order; the last step showed it.
    pub steps: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { engine, clause, detail, steps } = self;
        writeln!(f, "the store {engine} breaks {clause:?}: {}", clause.sentence())?;
        write!(f, "{detail}, after")?;
        (1..).zip(steps).try_for_each(|(number, step)| write!(f, "\n{number:>4}. {step}"))
    }
}

impl std::error::Error for Violation {}

/// Tests all clauses on stores in new directories below `dir`, and removes them.
pub fn check(engine: &dyn Engine, dir: &Path) -> Result<(), Violation> {
    Contract::new(engine, dir).check()
}

/// The suite, with its settings.
pub struct Contract<'a> {
    engine: &'a dyn Engine,
    dir: &'a Path,
    skipped: BTreeSet<Clause>,
    sequences: u64,
    seed: u64,
}

impl<'a> Contract<'a> {
    /// All clauses, on stores in new directories below `dir`.
    pub fn new(engine: &'a dyn Engine, dir: &'a Path) -> Contract<'a> {
        Contract { engine, dir, skipped: BTreeSet::new(), sequences: 20, seed: 1 }
    }

    /// Leaves out a clause that this store does not promise.
    pub fn without(mut self, clause: Clause) -> Contract<'a> {
        self.skipped.insert(clause);
        self
    }

    /// How many random sequences of 30 steps are played; 20 unless told.
    pub fn sequences(mut self, count: u64) -> Contract<'a> {
        self.sequences = count;
        self
    }

    /// Where the random sequences begin; 1 unless told.
    pub fn seed(mut self, seed: u64) -> Contract<'a> {
        self.seed = seed;
        self
    }

    /// Tests the clauses in the order of [`Clause::ALL`], up to the first that is broken.
    pub fn check(&self) -> Result<(), Violation> {
        Clause::ALL.iter().filter(|clause| !self.skipped.contains(clause)).try_for_each(|c| self.clause(*c))
    }

    /// Tests one clause.
    pub fn clause(&self, clause: Clause) -> Result<(), Violation> {
        let mut case = Case::new(self.engine, self.dir, clause);
        match clause {
            Clause::Empty => writing::empty(&mut case),
            Clause::Order => writing::order(&mut case),
            Clause::Durable => writing::durable(&mut case),
            Clause::Refused => writing::refused(&mut case),
            Clause::Atomic => writing::atomic(&mut case),
            Clause::Limits => writing::limits(&mut case),
            Clause::Truncation => maintenance::truncation(&mut case),
            Clause::Purge => maintenance::purge(&mut case),
            Clause::Reset => maintenance::reset(&mut case),
            Clause::HardState => maintenance::hard_state(&mut case),
            Clause::Outline => maintenance::outline(&mut case),
            Clause::Reading => reading::reading(&mut case),
            Clause::Beside => reading::beside(&mut case),
            Clause::Exclusive => openings::exclusive(&mut case),
            Clause::Bound => openings::bound(&mut case),
            Clause::Killed => openings::killed(&mut case),
            Clause::Damage => openings::damage(&mut case),
            Clause::Random => {
                for seed in self.seed..self.seed.saturating_add(self.sequences) {
                    random::sequence(&mut Case::new(self.engine, self.dir, clause), seed)?;
                }
                Ok(())
            }
        }
    }
}
