//! What was served to clients, and what was refused.

use coracle::Histogram;
use std::sync::atomic::{AtomicU64, Ordering};

/// What was served to clients. Commands that came together and went through the log, or were asked of the machine, as one
/// batch count once.
#[derive(Debug)]
pub struct Served {
    /// Batches of writes, from when they were read to their outcome.
    pub writes: Histogram,
    /// Batches of reads.
    pub reads: Histogram,
    /// Batches of either that were not done, or of which that is unknown.
    pub failures: AtomicU64,
    /// Commands, of whichever kind.
    pub commands: AtomicU64,
    /// Questions for keys that were there, and for keys that were not.
    pub hits: AtomicU64,
    pub misses: AtomicU64,
    /// What was refused.
    refused: [AtomicU64; Refused::ALL.len()],
}

/// Why something was refused before it was asked of the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// There were as many connections as there may be.
    Connection,
    /// Too much is under way.
    Busy,
    /// The memory for commands, or for replies, is used up.
    Memory,
    /// The keys have all the memory that they may.
    Full,
    /// Whoever asks may not do that.
    Rights,
}

impl Refused {
    /// All of them, and what they are called.
    pub(crate) const ALL: [(Refused, &'static str); 5] = [
        (Refused::Connection, "connection"),
        (Refused::Busy, "busy"),
        (Refused::Memory, "memory"),
        (Refused::Full, "full"),
        (Refused::Rights, "rights"),
    ];
}

impl Default for Served {
    fn default() -> Served {
        Served {
            writes: Histogram::of_times(),
            reads: Histogram::of_times(),
            failures: AtomicU64::new(0),
            commands: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            refused: Default::default(),
        }
    }
}

impl Served {
    pub(crate) fn asked(&self, commands: usize) {
        self.commands.fetch_add(commands as u64, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refuse(&self, why: Refused) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often something was refused, by the reason.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Refused::ALL.iter().map(|(why, name)| (*name, self.refused[*why as usize].load(Ordering::Relaxed)))
    }

    /// So many keys were looked for, and so many found.
    pub(crate) fn looked(&self, all: usize, found: usize) {
        self.hits.fetch_add(found as u64, Ordering::Relaxed);
        self.misses.fetch_add((all - found) as u64, Ordering::Relaxed);
    }
}
