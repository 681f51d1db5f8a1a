//! What may become of a log in memory: what is dropped, what is added, and what the cluster's clock shows.

use super::{CLOCK_SLACK, Ghost, Verdict, broken};
use crate::entry::Entry;
use crate::storage::{Change, WriteBatch};
use coracle_core::{Index, LogId, Term};

impl Ghost {
    /// A node's log in memory changes. `leads`: it led in this term before, and still does.
    /// `office`: the term in which it leads now. `local`: what its own clock shows, in milliseconds.
    pub(in crate::sim) fn on_queued(
        &mut self,
        node: usize,
        leads: bool,
        office: Option<Term>,
        local: u64,
        batch: &WriteBatch,
    ) -> Verdict {
        let record = &mut self.nodes[node];
        if let Some(state) = batch.hard_state
            && state.term > record.acknowledged.0
        {
            record.acknowledged = (state.term, Index::ZERO);
        }
        for change in &batch.changes {
            match change {
                Change::Truncate(last) => self.on_truncated(node, leads, *last)?,
                Change::Append(entries) => self.on_added(node, office, local, entries)?,
                Change::Reset(to) => self.on_reset(node, leads, *to)?,
            }
            // A node moves to a snapshot when the reset of its log is durable.
            if !matches!(change, Change::Reset(_)) {
                self.nodes[node].log.change(change, &self.committed);
            }
        }
        Ok(())
    }

    /// A node's log is to go on after a snapshot.
    fn on_reset(&self, node: usize, leads: bool, to: LogId) -> Verdict {
        let (id, commit) = (self.ids[node], self.nodes[node].commit);
        let known = self.committed.get((to.index.0 as usize).wrapping_sub(1));
        if known.is_none_or(|entry| entry.term != to.term) {
            return broken("S16", format!("node {id} resets its log to {to}, which is not committed"));
        }
        if to.index <= commit || leads {
            return broken("S16", format!("node {id} resets its log to {to} at commit {commit}"));
        }
        Ok(())
    }

    /// A node drops the entries after `last`.
    fn on_truncated(&self, node: usize, leads: bool, last: Index) -> Verdict {
        let record = &self.nodes[node];
        // Its leader never drops an entry, so what is acknowledged in a term stays as long as that.
        let (term, acknowledged) = record.acknowledged;
        if last < acknowledged {
            let detail = format!(
                "node {} drops what it acknowledged in this very {term}: {acknowledged} down to {last}",
                self.ids[node]
            );
            return broken("S12", detail);
        }
        if leads && last < record.log.last() {
            return broken("S2", format!("leader {} drops entries after {last}", self.ids[node]));
        }
        if last < record.commit {
            let commit = record.commit;
            return broken(
                "S7",
                format!("node {} truncates to {last} below its commit {commit}", self.ids[node]),
            );
        }
        Ok(())
    }

    /// A node takes entries into its log.
    fn on_added(&mut self, node: usize, office: Option<Term>, local: u64, entries: &[Entry]) -> Verdict {
        let record = &self.nodes[node];
        let last = entries.first().and_then(|first| record.log.get(first.index().prev()));
        let mut before = last.map_or(Term::ZERO, |seen| seen.term);
        let mut time = last.map_or(0, |seen| seen.cluster_time);
        for entry in entries {
            let known = self.entry_of.entry((entry.index(), entry.term()));
            let known = *known.or_insert((entry.checksum(), before));
            if known != (entry.checksum(), before) {
                let id = entry.id();
                return broken(
                    "S3",
                    format!("node {} has another entry {id}, or another past of it", self.ids[node]),
                );
            }
            before = entry.term();
            self.on_membership(node, office, entry)?;
            self.judge_clock(node, office, local, entry, time)?;
            time = entry.stamp().cluster_time;
        }
        Ok(())
    }

    /// Judges the cluster's clock as an entry shows it, after it showed `earlier`.
    fn judge_clock(
        &mut self,
        node: usize,
        office: Option<Term>,
        local: u64,
        entry: &Entry,
        earlier: u64,
    ) -> Verdict {
        let record = &mut self.nodes[node];
        let (id, time) = (entry.id(), entry.stamp().cluster_time);
        if time < earlier {
            let detail = format!("the cluster's clock goes back from {earlier} to {time} at {id}");
            return broken("clock", detail);
        }
        if time > self.latest {
            let latest = self.latest;
            let detail = format!("the cluster's clock shows {time} at {id}, {latest} at most is true");
            return broken("clock", detail);
        }
        // By the node's own clock, to the millisecond (D5.5.2): in no role, and at no change of leader, does the cluster's
        // clock stand still.
        let (showed, since) = record.time;
        let goes_on = showed + local.saturating_sub(since.saturating_add(CLOCK_SLACK));
        let own = office == Some(entry.term()) && entry.index() > Index(1);
        if own && time < goes_on {
            let detail =
                format!("the cluster's clock stands still: {time} at {id}, where {goes_on} had to come");
            return broken("clock", detail);
        }
        if time > showed + local.saturating_sub(since) {
            record.time = (time, local);
        }
        Ok(())
    }
}

impl Ghost {
    /// Whether this entry is committed.
    pub(in crate::sim) fn is_committed(&self, id: LogId) -> bool {
        let known = (id.index.0 as usize).checked_sub(1).and_then(|at| self.committed.get(at));
        known.is_some_and(|entry| entry.term == id.term)
    }

    /// Whether a machine has passed this entry, in whatever way.
    pub(in crate::sim) fn passed(&self, index: Index) -> bool {
        self.digests.contains_key(&index)
    }

    /// How far a node's machine has applied.
    pub(in crate::sim) fn applied(&self, node: usize) -> Index {
        self.nodes[node].applied
    }

    /// A machine that has failed goes back.
    pub(in crate::sim) fn on_gone_back(&mut self, node: usize, id: LogId) {
        self.nodes[node].applied = id.index;
    }

    /// Whether this node's log holds this entry.
    pub(in crate::sim) fn holds(&self, node: usize, id: LogId) -> bool {
        self.nodes[node].log.get(id.index).is_some_and(|entry| entry.term == id.term)
    }
}
