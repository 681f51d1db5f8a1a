//! What a simulated node makes of others, and what others may make of it.

use super::Host;
use crate::wire::{AlarmReason, Facts};
use coracle_core::{LogId, Status};

impl Host {
    /// How it stands, in a few words.
    pub(in crate::sim) fn describe(&self) -> String {
        let id = self.me.id;
        let Some(up) = &self.up else { return format!("node {id} is down") };
        let Status { role, term, leader, commit, persisted, last, .. } = up.raft().status();
        let applied = up.applied();
        let leader = leader.map_or("nobody".to_owned(), |id| format!("node {id}"));
        format!(
            "node {id} is a {role} of term {term} led by {leader}, log up to {last}, durable {persisted}, \
             committed {commit}, applied {applied}"
        )
    }

    /// Whether it waits for its name, and cannot start before.
    pub(in crate::sim) fn is_nameless(&self) -> bool {
        self.asks.as_ref().is_some_and(|asks| asks.nameless)
    }

    /// Whether it is not what it was, and may count for nothing.
    pub(in crate::sim) fn is_spoilt(&self) -> bool {
        self.damaged || self.put_back || self.twin.is_some() || self.rotten.is_some() || self.fenced
    }

    /// Whether its machine rotted, was compared with others since, and is still used.
    pub(in crate::sim) fn is_rot_overlooked(&self) -> bool {
        let compared = self.up.as_ref().and_then(|up| up.applier.progress().compared);
        let since = self.rotten.zip(compared).is_some_and(|(rotten, compared)| compared.index > rotten);
        since && !self.fenced && !self.dead
    }

    /// Whether it goes on with a connection from `other`, as a peer does that keeps what it knows of others durably,
    /// and is sure of whom it talks to (D5.2.10).
    pub(in crate::sim) fn meets(&mut self, other: &Host) -> bool {
        if let Some((run, fine)) = self.met.get(&other.me.id)
            && *run == other.run
        {
            return *fine;
        }
        self.kept.broken = self.broken;
        let facts = Facts {
            protocol: (0, 0),
            required: 0,
            optional: 0,
            levels: (0, 0),
            cluster: None,
            from: other.me,
            boot: other.boots.newest.last().copied().unwrap_or_default(),
            membership: LogId::ZERO,
            max_frame: 0,
            boot_number: other.boots.count,
            boots: other.boots.newest.clone(),
            address: String::new(),
            names: None,
            metadata: bytes::Bytes::new(),
            machine: 0,
        };
        let alarm = self.kept.meet(&facts);
        let fine = alarm.is_none_or(|alarm| alarm.reason != AlarmReason::Copy);
        self.met.insert(other.me.id, (other.run, fine));
        fine
    }

    /// Whether it has met this very run of `other`.
    pub(in crate::sim) fn knows(&self, other: &Host) -> bool {
        self.met.get(&other.me.id).is_some_and(|(run, _)| *run == other.run)
    }
}
