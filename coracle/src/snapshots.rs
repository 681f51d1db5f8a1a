//! When the driver has a snapshot taken, when the log may go, and how a snapshot comes to a follower that lacks what is
//! gone. The files themselves are in [`storage::snapshots`](crate::storage::snapshots), on another thread.
//!
//! The log is purged up to the snapshot *before* the newest one: what lies between the two is the tail for followers
//! that are a little slow, and if the newest file is ever damaged, the one before and the log still make the state.
//!
//! A snapshot is sent in pieces, one at a time to each follower. The answer to a piece says where the next one begins, so
//! a lost piece, a repeated one, and one after a restart of either side are all the same: it goes on from where the
//! follower stands. While one is sent, neither it nor the log after it goes. All that are sent share one limit of bytes in
//! a second, and take turns. A follower whose version knows no snapshots keeps the log from going, up to a limit.

use crate::config::{Config, TICK};
use crate::driver::Driver;
use crate::error::{SnapshotError, StopReason};
use crate::replica::Event;
use crate::status::{SnapshotStatus, SnapshotTransfer, Snapshots as Shown};
use crate::storage::snapshots::{Kept, Meta};
use crate::storage::{Change, WriteBatch};
use crate::transport::PeerMessage;
use crate::wire::decode_membership;
use crate::work::{Order, Waits, Work};
use bytes::Bytes;
use coracle_core::{Index, InstallSnapshot, InstallSnapshotReply, LogId, Message, Peer, RoleName, WriteId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// The least that a write takes in the log, in bytes.
const BLOCK: u64 = 4096;

/// A piece that was not answered for so long is sent again, in ticks; the next time after twice that, up to the most.
const AGAIN: u64 = 20;
const AGAIN_AT_MOST: u64 = 320;

/// Pieces that wait to be stored here at most. More are lost, which is always safe.
const STORING: usize = 4;

/// What has come of a snapshot is forgotten when nothing came for so long, in ticks: ten minutes.
const FORGOTTEN: u64 = 60_000;

/// What may be sent at once after a time without sending: the allowance of so many ticks.
const BURST: u64 = 10;

/// A follower that knows no snapshots keeps the log from going as long as that takes at most so many times what the
/// policy leaves.
const KEPT_FOR_OLD: u64 = 8;

/// A follower to which nothing new came for so long is given up: it holds nothing back any more, in ticks.
const GIVEN_UP: u64 = 1000;

/// Whoever was given up rests before it is sent a snapshot from its beginning, in ticks; the next time for twice as long, up
/// to the most.
const REST: u64 = 500;
const REST_AT_MOST: u64 = 30_000;

/// What is sent, however slowly it is taken, keeps the log from going as long as that takes at most so many times what the
/// policy leaves. Then the newest is sent instead.
const KEPT_FOR_SENT: u64 = 8;

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
    /// Forget what has come so far: nobody sends it any more.
    Forget,
    /// Remove, durably, all snapshots but the newest: the machine that made them is not to be trusted.
    Clear,
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
    /// Somebody wants one that reaches at least so far.
    wanted: Index,
    /// Until then none is begun, since one could not be written.
    not_before: u64,
    /// Bytes written to the log since the newest was kept.
    log_bytes: u64,
    /// For how long the machine has been busy in this boot, with entries of how many bytes; and what it was when the newest was
    /// kept. What a start applies again is in it.
    busy: (Duration, u64),
    busy_before: (Duration, u64),
    /// Bytes of the log that could have gone, but for a follower that knows no snapshots.
    held_bytes: u64,
    /// And but for snapshots that are being sent.
    pinned_bytes: u64,
    /// Those who were given up, until when they rest, and for how long the next time.
    resting: BTreeMap<Peer, (u64, u64)>,
    policy: Policy,
    sending: BTreeMap<Peer, Sending>,
    /// Who waits for the next piece, in the order in which they get it.
    waiting: VecDeque<Peer>,
    allowance: Allowance,
    /// What comes here, and when a piece of it came last.
    receiving: Option<(SnapshotTransfer, u64)>,
    /// Pieces that are being stored.
    storing: usize,
    /// When it was last looked whether what has come is to be forgotten.
    looked: u64,
    /// Members whose version knows no snapshots, as their connections say.
    without: BTreeSet<Peer>,
}

struct Policy {
    bytes: u64,
    entries: u64,
    busy: Duration,
    piece: usize,
}

/// What may be sent now, all followers together.
struct Allowance {
    /// Bytes for each tick. None: there is no limit.
    each: Option<u64>,
    bytes: u64,
    /// The tick up to which it was given.
    given: u64,
}

impl Allowance {
    fn new(bytes_per_second: u64) -> Allowance {
        let ticks = (Duration::from_secs(1).as_nanos() / TICK.as_nanos()) as u64;
        let each = (bytes_per_second > 0).then(|| (bytes_per_second / ticks).max(1));
        Allowance { each, bytes: 0, given: 0 }
    }

    /// Whether a piece of about so many bytes may be sent now: if so, it is counted. A piece may be more than is allowed
    /// at once.
    fn take(&mut self, ticks: u64, piece: u64) -> bool {
        let Some(each) = self.each else { return true };
        let most = each.saturating_mul(BURST).max(piece);
        self.bytes = self.bytes.saturating_add(each.saturating_mul(ticks - self.given)).min(most);
        self.given = ticks;
        let may = self.bytes >= piece;
        self.bytes -= if may { piece } else { 0 };
        may
    }
}

/// A snapshot on its way to a follower.
struct Sending {
    snapshot: LogId,
    length: u64,
    /// Where the piece begins that is next, or under way.
    offset: u64,
    step: Step,
    /// How far it has come at most, and when it came there. To go back to the beginning again and again is not to come on.
    furthest: u64,
    took: u64,
    /// Whether its last piece was sent.
    whole: bool,
    /// After how many ticks a piece that is not answered is sent again.
    patience: u64,
}

/// What becomes of the next piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// It waits until it may be sent.
    Waits,
    /// It is being read.
    Read,
    /// It was sent, at this tick.
    Sent(u64),
}

impl Sending {
    fn new(of: &Kept, now: u64) -> Sending {
        let (snapshot, length) = (of.meta.id, of.bytes);
        let (offset, furthest, took, patience) = (0, 0, now, AGAIN);
        Sending { snapshot, length, offset, step: Step::Waits, furthest, took, whole: false, patience }
    }
}

impl Snapshots {
    pub(crate) fn new(config: &Config) -> Snapshots {
        let policy = Policy {
            bytes: config.snapshot_bytes,
            entries: config.snapshot_entries,
            busy: config.snapshot_busy,
            piece: config.snapshot_piece_bytes as usize,
        };
        Snapshots {
            newest: None,
            older: Index::ZERO,
            taking: false,
            wanted: Index::ZERO,
            not_before: 0,
            log_bytes: 0,
            busy: (Duration::ZERO, 0),
            busy_before: (Duration::ZERO, 0),
            held_bytes: 0,
            pinned_bytes: 0,
            resting: BTreeMap::new(),
            policy,
            sending: BTreeMap::new(),
            waiting: VecDeque::new(),
            allowance: Allowance::new(config.snapshot_bytes_per_second),
            receiving: None,
            storing: 0,
            looked: 0,
            without: BTreeSet::new(),
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

    /// For so long the machine has been busy in this boot, with entries of so many bytes.
    pub(crate) fn on_busy(&mut self, busy: Duration, bytes: u64) {
        self.busy = (busy, bytes);
    }

    /// One is to be taken that reaches at least so far. After one that could not be written the pause is kept.
    pub(crate) fn want(&mut self, reaches: Index) {
        self.wanted = self.wanted.max(reaches);
    }

    /// The newest that is durable.
    pub(crate) fn newest(&self) -> Option<SnapshotStatus> {
        self.newest.as_ref().map(|kept| SnapshotStatus { last: kept.meta.id, bytes: kept.bytes })
    }

    /// What it says besides the machine's state.
    pub(crate) fn newest_meta(&self) -> Option<&Meta> {
        self.newest.as_ref().map(|kept| &kept.meta)
    }

    /// Whether one of this node's machine is being written.
    pub(crate) fn is_taking(&self) -> bool {
        self.taking
    }

    /// How all of it stands.
    pub(crate) fn shown(&self) -> Shown {
        let sent = |(to, it): (&Peer, &Sending)| SnapshotTransfer {
            peer: to.id,
            last: it.snapshot,
            done: it.offset,
            bytes: it.length,
        };
        Shown {
            newest: self.newest(),
            taking: self.taking,
            sending: self.sending.iter().map(sent).collect(),
            receiving: self.receiving.as_ref().map(|(it, _)| *it),
            unknown_to: self.without.iter().map(|peer| peer.id).collect(),
        }
    }

    /// Whether it is time for another, the machine having applied up to there.
    fn is_due(&self, applied: Index) -> bool {
        let since = self.newest.as_ref().map_or(Index::ZERO, |kept| kept.meta.id.index);
        let entries = applied.0.saturating_sub(since.0);
        let large = self.newest.as_ref().map_or(0, |kept| 2 * kept.bytes);
        let many = entries >= self.policy.entries || self.log_bytes >= self.policy.bytes;
        let busy = self.busy.0.saturating_sub(self.busy_before.0);
        let bytes = self.busy.1.saturating_sub(self.busy_before.1);
        let due = many && self.log_bytes >= large
            || busy >= self.policy.busy && self.log_bytes.max(bytes) >= large
            || self.wanted > since;
        !self.taking && entries > 0 && due
    }

    /// Sends nothing to this one for a while, and then the newest from its beginning.
    fn give_up(&mut self, to: Peer, now: u64, files: &mut Vec<FileOrder>) {
        self.sending.remove(&to);
        files.push(FileOrder::Close { to });
        rest(&mut self.resting, to, now);
    }

    /// A newer one is about to be kept. What is sent has kept the log from going for long enough, perhaps.
    fn let_go_of_what_is_pinned(&mut self, now: u64, files: &mut Vec<FileOrder>) {
        let older = self.newest.as_ref().map_or(Index::ZERO, |newest| newest.meta.id.index);
        let pinning = self.sending.iter().filter(|(_, it)| it.snapshot.index < older).map(|(to, _)| *to);
        let pinning: Vec<Peer> = pinning.collect();
        self.pinned_bytes = if pinning.is_empty() { 0 } else { self.pinned_bytes + self.log_bytes };
        if self.pinned_bytes > KEPT_FOR_SENT.saturating_mul(self.policy.bytes) {
            self.pinned_bytes = 0;
            pinning.into_iter().for_each(|to| self.give_up(to, now, files));
        }
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

    /// Somebody wants a snapshot taken now, whatever the policy says. Up to where the one must reach that is then kept.
    pub(crate) fn want_snapshot(&mut self) -> Result<Index, SnapshotError> {
        let applied = self.machine_applied();
        if let Some(why) = self.unsaved() {
            return Err(why);
        }
        // What was handed over is applied before the snapshot is taken, if it is not yet.
        let since = self.snapshots.newest.as_ref().map_or(Index::ZERO, |kept| kept.meta.id.index);
        let fed = Some(self.replica.fed()).filter(|fed| *fed > since);
        let reaches = Some(applied).filter(|applied| *applied > Index::ZERO).or(fed);
        let Some(reaches) = reaches else { return Err(SnapshotError::NothingApplied) };
        self.snapshots.wanted = self.snapshots.wanted.max(reaches);
        self.snapshots.not_before = 0;
        Ok(reaches)
    }

    /// These members have said by their connections that they know no snapshots.
    pub(crate) fn without_snapshots(&mut self, without: BTreeSet<Peer>) {
        self.snapshots.without = without;
    }

    /// A snapshot of this node's machine is durable and was read back; or it could not be written.
    pub(crate) fn on_saved(&mut self, saved: Option<Kept>) {
        self.snapshots.taking = false;
        match saved {
            Some(kept) => self.keep(kept),
            None => {
                self.snapshots.not_before = self.ticks + PAUSE;
                // Whoever wants one is told that there is none.
                self.snapshots.wanted = Index::ZERO;
            }
        }
    }

    /// What was asked for of a snapshot that is sent: none if it cannot be read.
    pub(crate) fn on_piece(&mut self, to: Peer, piece: Option<Piece>) {
        let (term, ticks) = (self.replica.raft().term(), self.ticks);
        let Some(sending) = self.snapshots.sending.get_mut(&to) else { return };
        let Some(Piece { snapshot, file, length, offset, bytes }) = piece else {
            // It goes on from another snapshot, once it is found that this one is gone.
            self.snapshots.give_up(to, ticks, &mut self.actions.files);
            return;
        };
        let wanted = sending.step == Step::Read && (sending.snapshot, sending.offset) == (snapshot, offset);
        if !wanted || !self.replica.raft().is_leader() {
            return;
        }
        (sending.length, sending.step) = (length, Step::Sent(ticks));
        sending.whole |= offset + bytes.len() as u64 >= length;
        let install = InstallSnapshot { term, snapshot, file, length, offset };
        let envelope = self.replica.raft().envelope_of(to, Message::InstallSnapshot(install));
        self.actions.send.push((to, PeerMessage::Piece { envelope, bytes }));
    }

    /// A piece that came was stored, or was not wanted: so is answered.
    pub(crate) fn on_stored(&mut self, from: Peer, reply: InstallSnapshotReply) {
        self.snapshots.storing = self.snapshots.storing.saturating_sub(1);
        if let Some((coming, _)) = &mut self.snapshots.receiving
            && coming.last == reply.snapshot
        {
            coming.done = reply.next;
        }
        self.events.push(Event::PieceTaken(from, reply));
    }

    /// A piece that came was not stored.
    pub(crate) fn on_no_room(&mut self) {
        self.snapshots.storing = self.snapshots.storing.saturating_sub(1);
    }

    /// A snapshot from a leader is here as a whole.
    pub(crate) fn on_received(&mut self, kept: Kept) {
        self.snapshots.receiving = None;
        let (id, payload) = &kept.meta.membership;
        match decode_membership(payload) {
            Ok(mut membership) => {
                if self.replica.raft().broken().is("certificates-not-in-snapshots") {
                    membership.marks.clear();
                }
                let (snapshot, time) = (kept.meta.id, kept.meta.cluster_time);
                self.events.push(Event::SnapshotReceived(snapshot, (*id, membership), time));
                self.keep(kept);
                self.on_state_here(snapshot);
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
        for (from, install, bytes) in pieces {
            self.receive_piece(from, install, bytes);
        }
        for (from, reply) in taken {
            self.on_piece_taken(from, &reply);
        }
    }

    fn receive_piece(&mut self, from: Peer, install: InstallSnapshot, bytes: Bytes) {
        let snapshots = &mut self.snapshots;
        // A disk that is slow is not sent more than it can take, and memory is bounded.
        if snapshots.storing >= STORING {
            return;
        }
        snapshots.storing += 1;
        let InstallSnapshot { snapshot, length, offset, .. } = install;
        let coming = SnapshotTransfer { peer: from.id, last: snapshot, done: offset, bytes: length };
        snapshots.receiving = Some((coming, self.ticks));
        self.actions.files.push(FileOrder::Take { from, install, bytes });
    }

    /// A follower says what it has of the snapshot that it is sent.
    fn on_piece_taken(&mut self, from: Peer, reply: &InstallSnapshotReply) {
        let ticks = self.ticks;
        let Some(sending) = self.snapshots.sending.get_mut(&from) else { return };
        if sending.snapshot != reply.snapshot {
            return;
        }
        // An answer that came twice, or to a piece that was sent twice, says nothing new: what it asks for is on its way.
        if sending.offset == reply.next {
            return;
        }
        if sending.whole && reply.next < sending.offset {
            return self.on_spoiled(from, reply.snapshot);
        }
        (sending.offset, sending.patience) = (reply.next, AGAIN);
        if reply.next > sending.furthest {
            (sending.furthest, sending.took) = (reply.next, ticks);
        }
        if reply.next >= sending.length {
            // It is there. Unless the follower says more soon, it is asked what became of it.
            sending.step = Step::Sent(ticks);
        } else if sending.step != Step::Waits {
            sending.step = Step::Waits;
            queue(&mut self.snapshots.waiting, from);
        }
    }

    /// All of it was sent, and it is wanted from its beginning: what was written here is not what came there. Another is
    /// taken.
    fn on_spoiled(&mut self, to: Peer, snapshot: LogId) {
        tracing::warn!(
            to = to.id.0,
            "the snapshot up to {snapshot} did not come whole, and another is taken: check the disks of both nodes"
        );
        self.snapshots.give_up(to, self.ticks, &mut self.actions.files);
        if self.machine_applied() > snapshot.index {
            // A machine that may take none says so where it can be seen.
            drop(self.want_snapshot());
        }
    }

    fn keep(&mut self, kept: Kept) {
        let id = kept.meta.id;
        let snapshots = &mut self.snapshots;
        if snapshots.newest.as_ref().is_some_and(|newest| newest.meta.id.index >= id.index) {
            return;
        }
        snapshots.older = snapshots.newest.as_ref().map_or(Index::ZERO, |newest| newest.meta.id.index);
        snapshots.held_bytes += snapshots.log_bytes;
        snapshots.let_go_of_what_is_pinned(self.ticks, &mut self.actions.files);
        (snapshots.newest, snapshots.log_bytes) = (Some(kept), 0);
        snapshots.busy_before = snapshots.busy;
        let upto = self.held_back(self.snapshots.purgeable());
        self.events.push(Event::SnapshotSaved(id, upto));
    }

    /// Up to where the log may go, where it may go up to `upto` but for members that know no snapshots: what those lack is
    /// kept for them, within a limit. A follower does not know what that is, and may lead next.
    fn held_back(&mut self, upto: Index) -> Index {
        let snapshots = &mut self.snapshots;
        let status = self.replica.raft().status();
        let old =
            status.peers.iter().filter(|peer| snapshots.without.iter().any(|other| other.id == peer.id));
        let held = match status.role {
            RoleName::Leader => old.map(|peer| peer.matched).min(),
            _ => (!snapshots.without.is_empty()).then_some(Index::ZERO),
        };
        let held = held.map_or(upto, |held| held.max(status.purged.index).min(upto));
        let (bytes, entries) = (snapshots.held_bytes, upto.0 - held.0);
        let room = bytes <= KEPT_FOR_OLD.saturating_mul(snapshots.policy.bytes);
        if held < upto && room && entries <= KEPT_FOR_OLD.saturating_mul(snapshots.policy.entries) {
            return held;
        }
        snapshots.held_bytes = 0;
        upto
    }

    /// Has a snapshot taken when it is time, and sent to whoever lacks what is gone.
    pub(crate) fn look_after_snapshots(&mut self) {
        let applied = self.machine_applied();
        let may = self.ticks >= self.snapshots.not_before && self.caught_up();
        if may && self.snapshots.is_due(applied) {
            self.snapshots.taking = true;
            self.actions.work.push(Work::Snapshot);
        }
        self.forget_what_came();
        let wanting = self.wanting();
        let ticks = self.ticks;
        let wanted = self.mending.wanted();
        let Snapshots { sending, waiting, newest, without, resting, .. } = &mut self.snapshots;
        let files = &mut self.actions.files;
        sending.retain(|to, it| {
            let old = wanted.get(to).is_some_and(|after| it.snapshot.index <= *after);
            let stays = wanting.contains(to) && !without.contains(to) && !old;
            let given_up = stays && ticks - it.took >= GIVEN_UP;
            if given_up {
                rest(resting, *to, ticks);
            }
            if given_up || !stays {
                files.push(FileOrder::Close { to: *to });
            }
            stays && !given_up
        });
        resting.retain(|to, _| wanting.contains(to));
        for to in wanting {
            let rests = resting.get(&to).is_some_and(|(until, _)| ticks < *until);
            let Some(newest) = newest.as_ref().filter(|_| !without.contains(&to) && !rests) else { continue };
            let Some(sending) = sending.get_mut(&to) else {
                sending.insert(to, Sending::new(newest, ticks));
                queue(waiting, to);
                continue;
            };
            if matches!(sending.step, Step::Sent(at) if ticks - at >= sending.patience) {
                (sending.step, sending.patience) = (Step::Waits, (2 * sending.patience).min(AGAIN_AT_MOST));
                queue(waiting, to);
            }
        }
        self.read_pieces();
    }

    /// Has the next pieces read for those who wait, as far as they may be sent now.
    fn read_pieces(&mut self) {
        let (ticks, most) = (self.ticks, self.snapshots.policy.piece);
        let Snapshots { sending, waiting, allowance, .. } = &mut self.snapshots;
        while let Some(to) = waiting.front().copied() {
            let next = sending.get_mut(&to).filter(|sending| sending.step == Step::Waits);
            if let Some(sending) = next {
                if !allowance.take(ticks, (most as u64).min(sending.length.saturating_sub(sending.offset))) {
                    return;
                }
                sending.step = Step::Read;
                let (snapshot, offset) = (sending.snapshot, sending.offset);
                self.actions.files.push(FileOrder::Read { to, snapshot, offset, most });
            }
            waiting.pop_front();
        }
    }

    /// What has come of a snapshot is forgotten once nobody sends it any more: it takes room.
    fn forget_what_came(&mut self) {
        let snapshots = &mut self.snapshots;
        if snapshots.receiving.as_ref().is_some_and(|(_, came)| self.ticks - came >= GIVEN_UP) {
            snapshots.receiving = None;
        }
        if snapshots.receiving.is_some() || snapshots.storing > 0 {
            snapshots.looked = self.ticks;
        } else if self.ticks - snapshots.looked >= FORGOTTEN {
            snapshots.looked = self.ticks;
            self.actions.files.push(FileOrder::Forget);
        }
    }
}

/// Each time for twice as long.
fn rest(resting: &mut BTreeMap<Peer, (u64, u64)>, to: Peer, now: u64) {
    let (until, next) = resting.entry(to).or_insert((0, REST));
    *until = now + *next;
    *next = (2 * *next).min(REST_AT_MOST);
}

/// Waits after all others, and once.
fn queue(waiting: &mut VecDeque<Peer>, to: Peer) {
    if !waiting.contains(&to) {
        waiting.push_back(to);
    }
}

#[cfg(test)]
#[path = "snapshots_tests.rs"]
mod tests;
