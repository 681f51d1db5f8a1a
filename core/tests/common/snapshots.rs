//! Snapshots in the box. One is a single piece: whoever gets it has the whole of it, durably.

use super::*;

impl Cluster {
    /// The node's machine has applied all that is committed, and a snapshot of it becomes durable. Of the log the newest
    /// `keep` entries before it stay.
    pub(crate) fn snapshot(&mut self, id: u64, keep: u64) {
        let at = self.begin_snapshot(id);
        self.end_snapshot(id, at, keep);
    }

    /// The same, but it is not durable yet.
    pub(crate) fn begin_snapshot(&mut self, id: u64) -> Snapshot {
        let raft = self.raft(id);
        let commit = raft.commit().min(raft.persisted());
        let memory = &self.nodes[&id].memory;
        let membership = memory.memberships().into_iter().rfind(|(at, _)| at.index <= commit);
        let snapshot = Snapshot { id: memory.id_at(commit).unwrap(), membership: membership.unwrap() };
        self.step(id, Input::Applied(commit));
        snapshot
    }

    pub(crate) fn end_snapshot(&mut self, id: u64, snapshot: Snapshot, keep: u64) {
        let purge = Index(snapshot.id.index.0.saturating_sub(keep));
        let at = snapshot.id;
        let node = self.nodes.get_mut(&id).unwrap();
        if node.snapshot.as_ref().is_none_or(|newest| newest.id.index < at.index) {
            node.snapshot = Some(snapshot);
        }
        self.step(id, Input::SnapshotSaved { snapshot: at, purge });
    }

    /// A leader sends its snapshot to a follower.
    pub(crate) fn send_snapshot(&mut self, from: u64, to: u64) {
        let envelope = self.install(from, to);
        self.post(from, Mail { envelope, entries: Vec::new(), posted: 0 });
    }

    /// The message that brings the snapshot of a leader.
    pub(crate) fn install(&self, from: u64, to: u64) -> Envelope {
        let raft = self.raft(from);
        let snapshot = self.nodes[&from].snapshot.as_ref().expect("it has one").id;
        let (term, file) = (raft.term(), from);
        let install = InstallSnapshot { term, snapshot, file, length: 1, offset: 0 };
        let message = Message::InstallSnapshot(install);
        Envelope { from: peer(from), to: peer(to), membership: raft.membership_id(), message }
    }

    /// Keeps what came of snapshots, and forgets what they stand for.
    pub(super) fn keep_snapshots(
        &mut self,
        id: u64,
        pieces: &[(Peer, InstallSnapshot)],
        purge: Option<LogId>,
    ) -> Vec<Input> {
        if let Some(upto) = purge {
            let node = self.nodes.get_mut(&id).unwrap();
            let stands = node.snapshot.as_ref().is_some_and(|snapshot| snapshot.id.index >= upto.index);
            assert!(stands, "S15: {id} purges {upto}, and no snapshot stands for it");
            node.memory.purge(upto);
            node.disk.purge(upto);
        }
        let mut follow_ups = Vec::new();
        for (from, piece) in pieces {
            let snapshot = self.nodes[&from.id.0].snapshot.clone().expect("whoever sends one has it");
            assert_eq!(snapshot.id, piece.snapshot);
            let reply = InstallSnapshotReply {
                term: piece.term,
                snapshot: piece.snapshot,
                file: piece.file,
                next: piece.length,
            };
            follow_ups.push(Input::PieceTaken { from: *from, reply });
            let Snapshot { id: at, membership } = snapshot.clone();
            follow_ups.push(Input::SnapshotReceived { snapshot: at, membership });
            self.nodes.get_mut(&id).unwrap().snapshot = Some(snapshot);
        }
        follow_ups
    }
}
