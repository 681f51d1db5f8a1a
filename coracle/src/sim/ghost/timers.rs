//! The judge's own table of timers: from the committed entries alone it knows which have to fire by each of them (S30).

use super::{Ghost, Verdict, broken};
use crate::entry::{Entry, Kind};
use crate::sim::machine::{Ask, Asks, Kv};
use coracle_core::Index;
use std::collections::BTreeMap;

/// What is committed, as far as any machine has applied it.
pub(in crate::sim) struct Timers {
    /// How far ahead timers are set at most; 0: none are.
    most: u64,
    /// By name: the time, and at which entry and as the how manieth of that it was set.
    set: BTreeMap<u64, (u64, u64, u64)>,
    time: u64,
    /// What fired by each entry.
    fired: Vec<Vec<u64>>,
    /// How many were set in all.
    settings: u64,
}

impl Timers {
    pub(in crate::sim) fn new(most: u64) -> Timers {
        Timers { most, set: BTreeMap::new(), time: 0, fired: Vec::new(), settings: 0 }
    }

    /// Whether none is set.
    pub(in crate::sim) fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// A machine was given the next entry, a command of which took effect if `command` says it, and these timers fired.
    pub(in crate::sim) fn on_applied(
        &mut self,
        node: usize,
        entry: &Entry,
        command: Option<&Ask>,
        fired: &[u64],
    ) -> Verdict {
        let index = entry.index().0;
        if index == self.fired.len() as u64 + 1 {
            let expected = self.next(entry, command);
            self.fired.push(expected);
        }
        let Some(expected) = self.fired.get(index as usize - 1) else {
            return broken(
                "S30",
                format!("node {} applies {index}, and nobody applied what is before", node + 1),
            );
        };
        if expected == fired {
            return Ok(());
        }
        let id = entry.id();
        broken("S30", format!("at {id} timers {fired:?} fire on node {}, and {expected:?} should", node + 1))
    }

    /// What fires by the next of all entries.
    fn next(&mut self, entry: &Entry, command: Option<&Ask>) -> Vec<u64> {
        self.time = self.time.max(entry.stamp().cluster_time);
        let (index, time) = (entry.index(), self.time);
        if let Some(ask) = command {
            self.obey(index, Kv::asks(ask, self.most, time));
        }
        if entry.kind() != Kind::Timer {
            return Vec::new();
        }
        let mut due: Vec<_> = self.set.iter().map(|(name, set)| (*set, *name)).collect();
        due.retain(|((due, ..), _)| *due <= time);
        due.sort_unstable();
        let mut fired = Vec::new();
        for (set, name) in due {
            if self.set.get(&name) == Some(&set) {
                self.set.remove(&name);
                fired.push(name);
                self.obey(index, Kv::asks_when_fired(name, index, time));
            }
        }
        fired
    }

    fn obey(&mut self, index: Index, asks: Option<Asks>) {
        match asks {
            Some(Asks::Set(name, due)) => {
                self.settings += 1;
                self.set.insert(name, (due, index.0, self.settings));
            }
            Some(Asks::Cancel(name)) => drop(self.set.remove(&name)),
            None => {}
        }
    }
}

impl Ghost {
    /// Whether an entry after this one in a node's log has timers fire.
    pub(in crate::sim) fn has_timer_after(&self, node: usize, index: Index) -> bool {
        self.nodes[node].log.entries.iter().skip(index.0 as usize).any(|entry| entry.timer)
    }
}
