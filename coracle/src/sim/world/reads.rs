//! Reads of the log: each is planned, waits for the disk, and is done, perhaps in two parts; the log goes on
//! meanwhile, purges, truncates and uses its files again.

use super::{Happening, World};
use crate::entry::Entry;
use crate::replica::{Load, Purpose};
use crate::sim::chance::Kind;
use crate::sim::ghost::Verdict;
use crate::sim::host::Event;
use crate::sim::situations::Rare;
use crate::storage::ReadLogError;
use crate::storage::wal::PlannedRead;

/// A read under way.
pub(in crate::sim) struct Reading {
    load: Load,
    planned: Result<PlannedRead, ReadLogError>,
    entries: Vec<Entry>,
    /// How often the log was purged or truncated when it was last looked at.
    changes: u64,
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.load.fmt(f)
    }
}

impl World {
    /// Begins to read.
    pub(in crate::sim) fn read(&mut self, node: usize, load: Load) {
        let Some(up) = &self.hosts[node].up else { return };
        let (planned, changes) = (up.plan_load(&load), up.changes);
        let reading = Reading { load, planned, entries: Vec::new(), changes };
        self.wait_for_disk(node, reading);
    }

    fn wait_for_disk(&mut self, node: usize, reading: Reading) {
        let run = self.hosts[node].run;
        let delay = self.chance.within(Kind::SlowRead, node, 1, self.plan.load.max(1));
        self.at(delay, Happening::Loaded { node, run, reading: Box::new(reading) });
    }

    pub(in crate::sim) fn on_loaded(&mut self, node: usize, run: u64, mut reading: Box<Reading>) -> Verdict {
        if !self.lives(node, run) {
            return Ok(());
        }
        if let Some(thaw) = self.frozen(node) {
            self.at(thaw, Happening::Loaded { node, run, reading });
            return Ok(());
        }
        let Some(up) = &self.hosts[node].up else { return Ok(()) };
        self.met.count_if(up.changes != reading.changes, Rare::LoadedStale);
        self.met.count_if(up.changes != reading.changes && !reading.entries.is_empty(), Rare::LoadedSplit);
        reading.changes = up.changes;
        let late = match &reading.load.purpose {
            Purpose::Apply => None,
            Purpose::Replicate(replicate) => {
                Some(!up.raft().is_leader() || up.raft().term() != replicate.append.term)
            }
        };
        // Only what has begun is split, and once at most.
        let share = match &reading.planned {
            Ok(_) if reading.entries.is_empty() => self
                .chance
                .happens(Kind::SplitRead, node, self.plan.split)
                .map_or(8, |mut dice| dice.within(1, 7)),
            _ => 8,
        };
        let Reading { load, planned, mut entries, changes } = *reading;
        let result = match planned {
            Ok(mut planned) => match planned.go_on(share as usize, &mut entries) {
                Ok(true) => Ok(entries),
                Ok(false) => {
                    self.wait_for_disk(node, Reading { load, planned: Ok(planned), entries, changes });
                    return Ok(());
                }
                Err(error) => Err(ReadLogError::Store(error)),
            },
            Err(error) => Err(error),
        };
        self.met.count(Rare::Loaded);
        self.met.count_if(late.is_none(), Rare::LoadedApply);
        self.met.count_if(late == Some(true), Rare::LoadedLate);
        self.step(4, node, load.first.0);
        let failed = matches!(result, Err(ReadLogError::Store(_)));
        self.turn(node, Event::Loaded(load, result))?;
        // The node stops at once, as long as the disk is known to be to blame.
        if failed { self.on_turn(node, run) } else { Ok(()) }
    }
}
