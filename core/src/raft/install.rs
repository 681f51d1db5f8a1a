//! Snapshots in the core (§7): the log is compacted once one is durable, and reset to one that a leader sent.
//!
//! The core knows a snapshot as the entry up to which it stands for the log, no more. The shell keeps the files, sends
//! them in pieces, and says when one is whole. What the core decides is who needs one, when the log may go, and that
//! nothing is said of a snapshot before the log that it replaces is durably gone (D5.1.9).

use super::{Raft, Role};
use crate::shared::Transition;
use crate::{Dropped, Index, InstallSnapshot, InstallSnapshotReply, LogId, Membership, Message, Peer};

impl Raft {
    pub(crate) fn on_snapshot_saved(&mut self, snapshot: LogId, purge: Index) -> Transition {
        let shared = &mut self.shared;
        // One that was begun before a newer one came from a leader says nothing any more (SN-2).
        let known = shared.log.term_at(snapshot.index) == Some(snapshot.term);
        if !known || snapshot.index > shared.applied || shared.installing.is_some() {
            return shared.drop_input(Dropped::Stale);
        }
        let upto = purge.min(snapshot.index).min(shared.disk.persisted());
        shared.out.purge = shared.log.compact(upto);
        Transition::Stay
    }

    pub(crate) fn on_install_snapshot(&mut self, from: Peer, install: InstallSnapshot) -> Transition {
        if self.shared.rules.is_old_append(install.term, self.shared.term()) {
            return self.on_old_append(from, install.term);
        }
        if matches!(self.role, Role::Candidate(_)) {
            self.change_role(Transition::Follow);
        }
        match &mut self.role {
            Role::Follower(follower) => follower.on_install(&mut self.shared, from, install),
            _ => self.shared.drop_input(Dropped::SecondLeader),
        }
    }

    pub(crate) fn on_install_snapshot_reply(
        &mut self,
        from: Peer,
        reply: InstallSnapshotReply,
    ) -> Transition {
        match &mut self.role {
            Role::Leader(_) if self.shared.rules.is_old_reply(reply.term, self.shared.term()) => {
                self.shared.drop_input(Dropped::Stale)
            }
            Role::Leader(leader) => leader.on_install_reply(&mut self.shared, from, reply),
            _ => self.shared.drop_input(Dropped::Unexpected),
        }
    }

    pub(crate) fn on_piece_taken(&mut self, from: Peer, reply: InstallSnapshotReply) -> Transition {
        match &self.role {
            Role::Follower(follower) if reply.term == self.shared.term() && follower.leader == Some(from) => {
                self.shared.send(from, Message::InstallSnapshotReply(reply));
                Transition::Stay
            }
            _ => self.shared.drop_input(Dropped::Stale),
        }
    }

    /// A snapshot is whole. Whoever sent it may be deposed by now: what it stands for is committed for good.
    pub(crate) fn on_snapshot_received(
        &mut self,
        snapshot: LogId,
        membership: (LogId, Membership),
    ) -> Transition {
        // A machine that is rebuilt takes its state from a snapshot, and its log stays as it is (D5.1.9).
        let drops = self.shared.wants_state.is_some() && self.broken().is("rebuilt-log-suffix-dropped");
        let shared = &mut self.shared;
        if shared.installing.is_some() || snapshot.index <= shared.log.commit() && !drops {
            return shared.drop_input(Dropped::Stale);
        }
        if !drops && shared.rules.keeps_suffix(shared.log.term_at(snapshot.index), snapshot) {
            // "If existing log entry has same index and term as snapshot's last included entry, retain log entries
            // following it" (Figure 13, rule 6).
            shared.commit_to(snapshot.index);
            return Transition::Stay;
        }
        shared.write_reset(snapshot, membership);
        match &self.role {
            // What it asks for names a log that is about to go.
            Role::Candidate(_) => Transition::Follow,
            Role::Follower(_) | Role::Leader(_) => Transition::Stay,
        }
    }
}
