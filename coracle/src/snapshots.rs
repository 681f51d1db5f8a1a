//! When the driver has a snapshot taken, when the log may go, and how a snapshot comes to a follower that lacks what is
//! gone. The files themselves are in [`storage::snapshots`](crate::storage::snapshots), on another thread.
//!
//! The log is purged up to the snapshot *before* the newest one: what lies between the two is the tail for followers
//! that are a little slow, and if the newest file is ever damaged, the one before and the log still make the state.
//!
//! A snapshot is sent in pieces, one at a time to each follower. The answer to a piece says where the next one begins, so
//! a lost piece, a repeated one, and one after a restart of either side are all the same: it goes on from where the
//! follower stands. While one is sent, neither it nor the log after it goes.

use crate::config::Config;
use crate::driver::Driver;
use crate::error::StopReason;
use crate::replica::Event;
use crate::storage::snapshots::Kept;
use crate::storage::{Change, WriteBatch};
use crate::transport::PeerMessage;
use crate::wire::decode_membership;
use crate::work::{Order, Waits, Work};
use bytes::Bytes;
use coracle_core::{Index, InstallSnapshot, InstallSnapshotReply, LogId, Message, Peer, WriteId};
use std::collections::BTreeMap;

/// The least that a write takes in the log, in bytes.
const BLOCK: u64 = 4096;

/// A piece that was not answered for so long is sent again, in ticks.
const AGAIN: u64 = 20;

/// A follower that has not taken a piece for so long holds nothing back any more, in ticks.
const GIVEN_UP: u64 = 1000;

/// After one that could not be written, for want of space perhaps, the next is begun so much later, in ticks.
const PAUSE: u64 = 1000;

/// What is to be done with the files of snapshots.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum FileOrder {
    /// Read a piece of this snapshot, for this follower.
    Read { to: Peer, snapshot: LogId, offset: u64, most: usize },
    /// Nothing more is read for this follower.
    Close { to: Peer },
    /// Store a piece that came.
    Take { from: Peer, install: InstallSnapshot, bytes: Bytes },
}

/// A piece of a snapshot, as it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    pub(crate) snapshot: LogId,
    pub(crate) file: u64,
    pub(crate) length: u64,
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
}

/// The snapshots of this node, as the driver sees them.
pub(crate) struct Snapshots {
    /// The newest that is durable.
    newest: Option<Kept>,
    /// The one before: up to there the log may go.
    older: Index,
    /// Whether the machine was asked for one that is not durable yet.
    taking: bool,
    /// Whether somebody wants one now.
    wanted: bool,
    /// Until then none is begun, since one could not be written.
    not_before: u64,
    /// Bytes written to the log since the newest was begun.
    log_bytes: u64,
    policy: Policy,
    sending: BTreeMap<Peer, Sending>,
}

struct Policy {
    bytes: u64,
    entries: u64,
    piece: usize,
}

/// A snapshot on its way to a follower.
struct Sending {
    snapshot: LogId,
    length: u64,
    /// Where the piece begins that is under way.
    offset: u64,
    /// When that was asked for, and when the follower last took one.
    asked: u64,
    took: u64,
}

impl Snapshots {
    pub(crate) fn new(config: &Config) -> Snapshots {
        let policy = Policy {
            bytes: config.snapshot_bytes,
            entries: config.snapshot_entries,
            piece: config.snapshot_piece_bytes as usize,
        };
        let sending = BTreeMap::new();
        Snapshots {
            newest: None,
            older: Index::ZERO,
            taking: false,
            wanted: false,
            not_before: 0,
            log_bytes: 0,
            policy,
            sending,
        }
    }

    /// Writes go to the log.
    pub(crate) fn on_writes(&mut self, writes: &[(WriteId, WriteBatch)]) {
        writes.iter().for_each(|(_, batch)| self.on_write(batch));
    }

    fn on_write(&mut self, batch: &WriteBatch) {
        let length = |change: &Change| match change {
            Change::Append(entries) => entries.iter().map(|entry| entry.len() as u64).sum(),
            Change::Reset(_) | Change::Truncate(_) => 0,
        };
        let bytes: u64 = batch.changes.iter().map(length).sum();
        self.log_bytes += bytes.next_multiple_of(BLOCK).max(BLOCK);
    }

    /// The newest that is durable.
    pub(crate) fn newest(&self) -> Option<&Kept> {
        self.newest.as_ref()
    }

    /// Whether it is time for another, the machine having applied up to there.
    fn is_due(&self, applied: Index) -> bool {
        let since = self.newest.as_ref().map_or(Index::ZERO, |kept| kept.meta.id.index);
        let entries = applied.0.saturating_sub(since.0);
        let large = self.newest.as_ref().map_or(0, |kept| 2 * kept.bytes);
        let many = entries >= self.policy.entries || self.log_bytes >= self.policy.bytes;
        !self.taking && entries > 0 && (self.wanted || many && self.log_bytes >= large)
    }

    /// Up to where the log may go: a snapshot that is on its way needs what follows it.
    fn purgeable(&self) -> Index {
        let sent = self.sending.values().map(|sending| sending.snapshot.index).min();
        sent.map_or(self.older, |sent| self.older.min(sent))
    }
}

impl<W: Waits, R: Waits> Driver<W, R> {
    /// It starts from this snapshot, with about so many bytes of log.
    pub(crate) fn starting_from(mut self, newest: Option<Kept>, log_bytes: u64) -> Driver<W, R> {
        (self.snapshots.newest, self.snapshots.log_bytes) = (newest, log_bytes);
        self
    }

    /// Somebody wants a snapshot taken now, whatever the policy says.
    pub(crate) fn want_snapshot(&mut self) {
        self.snapshots.wanted = true;
    }

    /// A snapshot of the own machine is durable and was read back; or it could not be written.
    pub(crate) fn on_saved(&mut self, saved: Option<Kept>) {
        self.snapshots.taking = false;
        match saved {
            Some(kept) => self.keep(kept),
            None => self.snapshots.not_before = self.ticks + PAUSE,
        }
    }

    /// What was asked for of a snapshot that is sent: none if it cannot be read.
    pub(crate) fn on_piece(&mut self, to: Peer, piece: Option<Piece>) {
        let term = self.replica.raft().term();
        let Some(sending) = self.snapshots.sending.get_mut(&to) else { return };
        let Some(Piece { snapshot, file, length, offset, bytes }) = piece else {
            // It goes on from another snapshot, once it is found that this one is gone.
            self.snapshots.sending.remove(&to);
            return;
        };
        if (sending.snapshot, sending.offset) != (snapshot, offset) || !self.replica.raft().is_leader() {
            return;
        }
        sending.length = length;
        let install = InstallSnapshot { term, snapshot, file, length, offset };
        let envelope = self.replica.raft().envelope_of(to, Message::InstallSnapshot(install));
        self.actions.send.push((to, PeerMessage::Piece { envelope, bytes }));
    }

    /// A piece that came was stored, or was not wanted: so is answered.
    pub(crate) fn on_stored(&mut self, from: Peer, reply: InstallSnapshotReply) {
        self.events.push(Event::PieceTaken(from, reply));
    }

    /// A snapshot from a leader is here as a whole.
    pub(crate) fn on_received(&mut self, kept: Kept) {
        let (id, payload) = &kept.meta.membership;
        match decode_membership(payload) {
            Ok(membership) => {
                let (snapshot, time) = (kept.meta.id, kept.meta.cluster_time);
                self.events.push(Event::SnapshotReceived(snapshot, (*id, membership), time));
                self.keep(kept);
            }
            Err(error) => {
                let problem = format!("the membership in the snapshot up to {}: {error}", kept.meta.id);
                self.actions.fatal.get_or_insert(StopReason::Invariant(problem));
            }
        }
    }

    /// Carries over what the replica wants of snapshots.
    pub(crate) fn absorb_snapshots(
        &mut self,
        purge: Option<LogId>,
        pieces: Vec<(Peer, InstallSnapshot, Bytes)>,
        taken: Vec<(Peer, InstallSnapshotReply)>,
    ) {
        self.actions.orders.extend(purge.map(Order::Purge));
        let take = |(from, install, bytes)| FileOrder::Take { from, install, bytes };
        self.actions.files.extend(pieces.into_iter().map(take));
        for (from, reply) in taken {
            self.on_piece_taken(from, &reply);
        }
    }

    /// A follower says what it has of the snapshot that it is sent.
    fn on_piece_taken(&mut self, from: Peer, reply: &InstallSnapshotReply) {
        let (ticks, most) = (self.ticks, self.snapshots.policy.piece);
        let Some(sending) = self.snapshots.sending.get_mut(&from) else { return };
        if sending.snapshot != reply.snapshot {
            return;
        }
        (sending.offset, sending.asked, sending.took) = (reply.next, ticks, ticks);
        if reply.next < sending.length {
            let (snapshot, offset) = (sending.snapshot, sending.offset);
            self.actions.files.push(FileOrder::Read { to: from, snapshot, offset, most });
        }
    }

    fn keep(&mut self, kept: Kept) {
        let id = kept.meta.id;
        let snapshots = &mut self.snapshots;
        if snapshots.newest.as_ref().is_some_and(|newest| newest.meta.id.index >= id.index) {
            return;
        }
        snapshots.older = snapshots.newest.as_ref().map_or(Index::ZERO, |newest| newest.meta.id.index);
        (snapshots.newest, snapshots.log_bytes) = (Some(kept), 0);
        self.events.push(Event::SnapshotSaved(id, snapshots.purgeable()));
    }

    /// Has a snapshot taken when it is time, and sent to whoever lacks what is gone.
    pub(crate) fn look_after_snapshots(&mut self) {
        let applied = self.machine_applied();
        let may = self.ticks >= self.snapshots.not_before && self.caught_up();
        if may && self.snapshots.is_due(applied) {
            (self.snapshots.taking, self.snapshots.wanted) = (true, false);
            self.actions.work.push(Work::Snapshot);
        }
        let wanting = self.replica.raft().needs_snapshot();
        let (ticks, most) = (self.ticks, self.snapshots.policy.piece);
        let Snapshots { sending, newest, .. } = &mut self.snapshots;
        let files = &mut self.actions.files;
        sending.retain(|to, it| {
            let stays = wanting.contains(to) && ticks - it.took < GIVEN_UP;
            if !stays {
                files.push(FileOrder::Close { to: *to });
            }
            stays
        });
        for to in wanting {
            let Some(newest) = newest else { continue };
            let (snapshot, length) = (newest.meta.id, newest.bytes);
            let begin = Sending { snapshot, length, offset: 0, asked: ticks, took: ticks };
            let known = sending.contains_key(&to);
            let sending = sending.entry(to).or_insert(begin);
            if !known || ticks - sending.asked >= AGAIN {
                sending.asked = ticks;
                let (snapshot, offset) = (sending.snapshot, sending.offset);
                files.push(FileOrder::Read { to, snapshot, offset, most });
            }
        }
    }
}
