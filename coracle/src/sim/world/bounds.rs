//! What waits, and what is under way, is bounded: the judge's view of S22.

use super::World;
use crate::entry::Entry;
use crate::sim::ghost::{Verdict, broken};
use crate::sim::situations::Rare;
use coracle_core::Envelope;

/// An empty entry has at most so many bytes.
const NOOP: u64 = 100;

impl World {
    /// What waits for the disk, and at a leader for a quorum, passes its limit by what came at once at most
    /// (S22).
    pub(in crate::sim) fn watch_room(&mut self, node: usize, added: u64) -> Verdict {
        let Some(up) = &self.hosts[node].up else { return Ok(()) };
        self.network.largest = self.network.largest.max(added);
        // A new leader adds its empty entry, whatever waits, and each has timers fire.
        let more = self.network.largest + 2 * NOOP + self.ghost.change_bytes();
        let (waiting, room) = (self.ghost.unpersisted(node), self.plan.room);
        if waiting > room + more {
            let detail =
                format!("{waiting} bytes wait for the disk of node {}, which has room for {room}", node + 1);
            return broken("S22", detail);
        }
        // What it took over as a follower, it cannot refuse.
        let (waiting, inherited) = self.ghost.uncommitted(node);
        let room = inherited + 2 * room;
        if up.raft().is_leader() && waiting > room + more {
            let detail = format!(
                "{waiting} bytes wait for a quorum at leader {}, which has room for {room}",
                node + 1
            );
            return broken("S22", detail);
        }
        // A machine is handed one entry more than its limit at most.
        let (waiting, room) = (up.backlog(), self.plan.unapplied);
        if waiting > room + more {
            let detail = format!(
                "{waiting} bytes wait for the machine of node {}, which has room for {room}",
                node + 1
            );
            return broken("S22", detail);
        }
        Ok(())
    }

    /// Whether a node has room for another write, as the judge counts: for its disk, for a quorum, and for its
    /// machine. What a leader holds back while it hands over is bounded otherwise.
    pub(in crate::sim) fn has_room(&self, node: usize) -> bool {
        let Some(up) = &self.hosts[node].up else { return false };
        let (raft, room) = (up.raft(), self.plan.room);
        let after = |index| self.ghost.bytes_after(node, index);
        let unapplied = after(up.applied()) - after(raft.commit().max(up.applied()));
        // One that goes back is about to have all of it before it again.
        !up.applier.is_restoring()
            && !raft.holds_proposals()
            && after(raft.persisted()) <= room
            && after(raft.commit()) <= 2 * room
            && unapplied <= self.plan.unapplied
    }

    /// What is under way is bounded (S22).
    pub(in crate::sim) fn watch_window(&mut self, node: usize) -> Verdict {
        let Some(up) = &self.hosts[node].up else { return Ok(()) };
        let (messages, bytes) = up.limits.in_flight;
        if !up.raft().is_leader() {
            return Ok(());
        }
        let peers = up.raft().status().peers;
        self.ghost.on_peers(node, &peers);
        for peer in peers {
            if peer.messages_in_flight > messages || peer.bytes_in_flight > bytes {
                return broken("S22", format!("leader {} has too much under way: {peer:?}", node + 1));
            }
            self.met.count_if(!peer.probing && peer.messages_in_flight == messages, Rare::WindowFull);
        }
        Ok(())
    }

    /// A message carries no more entries, and no more bytes, than it may (S22).
    pub(in crate::sim) fn watch_message(&self, node: usize, entries: &[Entry]) -> Verdict {
        let Some(up) = &self.hosts[node].up else { return Ok(()) };
        let (count, bytes) = up.limits.message;
        let all = entries.iter().map(Entry::len).sum::<usize>() as u64;
        if entries.len() > count || (entries.len() > 1 && all > bytes) {
            let detail = format!("node {} sends {} entries of {all} bytes at once", node + 1, entries.len());
            return broken("S22", detail);
        }
        Ok(())
    }

    /// What left for a follower and was not answered yet is bounded, as the judge counts it (S22). A
    /// member may leave and come back within one turn, unseen by the judge, and is a new one to its leader then: two
    /// messages more are allowed.
    pub(in crate::sim) fn watch_flight(
        &mut self,
        node: usize,
        envelope: &Envelope,
        entries: &[Entry],
    ) -> Verdict {
        let Some(up) = self.hosts[node].up.as_ref().filter(|_| !entries.is_empty()) else { return Ok(()) };
        let bytes = entries.iter().map(Entry::len).sum::<usize>() as u64;
        let (messages, most) = up.limits.in_flight;
        let (count, under_way) = self.ghost.on_entries(node, envelope, bytes);
        if self.counts_flight && (count > messages + 2 || under_way > most + 2 * bytes) {
            let (from, to) = (node + 1, envelope.to.id);
            let detail = format!("{count} messages, {under_way} bytes, are under way from {from} to {to}");
            return broken("S22", detail);
        }
        Ok(())
    }
}
