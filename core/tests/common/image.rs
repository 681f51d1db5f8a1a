//! What a node has: once in memory, once as its disk would give it back.

use super::*;

/// A log with its hard state: once as a node has it in memory, once as its disk would give it back.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Image {
    pub(crate) hard_state: HardState,
    pub(crate) purged: LogId,
    /// The membership in force at `purged`.
    pub(crate) base: Option<(LogId, Membership)>,
    pub(crate) log: Vec<Entry>,
}

impl Image {
    pub(crate) fn last(&self) -> Index {
        Index(self.purged.index.0 + self.log.len() as u64)
    }

    pub(crate) fn get(&self, index: Index) -> Option<&Entry> {
        let at = index.0.checked_sub(self.purged.index.0 + 1)?;
        self.log.get(at as usize)
    }

    pub(crate) fn id_at(&self, index: Index) -> Option<LogId> {
        if index == self.purged.index {
            return Some(self.purged);
        }
        self.get(index).map(|entry| LogId { term: entry.term, index })
    }

    pub(crate) fn last_id(&self) -> LogId {
        self.id_at(self.last()).expect("the last entry")
    }

    /// Forgets the entries up to `upto`, for which a snapshot stands.
    pub(super) fn purge(&mut self, upto: LogId) {
        assert_eq!(self.id_at(upto.index), Some(upto), "what is purged was in the log");
        self.base = self.memberships().into_iter().rfind(|(id, _)| id.index <= upto.index);
        self.log.drain(..(upto.index.0 - self.purged.index.0) as usize);
        self.purged = upto;
    }

    /// Forgets everything: the log goes on after a snapshot.
    pub(super) fn reset(&mut self, snapshot: &Snapshot) {
        self.purged = snapshot.id;
        self.base = Some(snapshot.membership.clone());
        self.log.clear();
    }

    pub(super) fn truncate(&mut self, last: Index) {
        self.log.truncate((last.0 - self.purged.index.0) as usize);
    }

    fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (at, entry) in self.log.iter().enumerate() {
            if runs.last().is_none_or(|run| run.term != entry.term) {
                runs.push(Run { first: Index(self.purged.index.0 + 1 + at as u64), term: entry.term });
            }
        }
        runs
    }

    pub(crate) fn memberships(&self) -> Vec<(LogId, Membership)> {
        let in_log = self.log.iter().enumerate().filter_map(|(at, entry)| {
            let index = Index(self.purged.index.0 + 1 + at as u64);
            entry.membership.as_ref().map(|m| (LogId { term: entry.term, index }, (**m).clone()))
        });
        self.base.iter().cloned().chain(in_log).collect()
    }

    pub(crate) fn restored(&self) -> Restored {
        Restored {
            applied: None,
            hard_state: self.hard_state,
            purged: self.purged,
            snapshot: self.purged,
            runs: self.runs(),
            last: self.last(),
            memberships: self.memberships(),
        }
    }

    /// The terms of the entries, as the scripts write them.
    pub(crate) fn terms(&self) -> String {
        let terms: Vec<String> = self.log.iter().map(|entry| entry.term.to_string()).collect();
        terms.join(" ")
    }

    /// The entries after `last`, in an image that starts there.
    pub(super) fn clone_tail(&self, last: Index) -> Image {
        let purged = self.id_at(last).expect("in the log");
        let skip = (last.0 - self.purged.index.0) as usize;
        Image { hard_state: self.hard_state, purged, base: None, log: self.log[skip..].to_vec() }
    }
}

/// A snapshot, as far as the core knows one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Snapshot {
    pub(crate) id: LogId,
    pub(crate) membership: (LogId, Membership),
}

/// An entry of a log that a script starts with. What it holds follows from its name.
fn given_entry(term: u64, index: u64, members: &BTreeMap<u64, Membership>) -> Entry {
    let membership = members.get(&index).cloned().map(Box::new);
    Entry { term: Term(term), content: 1_000_000_000 * term + index, membership }
}

/// Reads `"1 1 2*3"`: entries of term 1, 1, 2, 2, 2.
pub(crate) fn parse_log(text: &str, memberships: &[(u64, Membership)]) -> Vec<Entry> {
    let members: BTreeMap<u64, Membership> = memberships.iter().cloned().collect();
    let mut log = Vec::new();
    for word in text.split_whitespace() {
        let (term, times) = word.split_once('*').unwrap_or((word, "1"));
        for _ in 0..times.parse().expect("how many") {
            log.push(given_entry(term.parse().expect("a term"), log.len() as u64 + 1, &members));
        }
    }
    log
}
