//! The queue to the machine: what consensus hands over, and who waits for what.
//!
//! One queue carries the entries, those who expect a reply, reads, and the news that leadership was lost, in
//! the order in which consensus learned of them. An answer goes from here to whoever waits. A passive
//! structure, like the [`driver`](crate::driver) on the other side: a thread, a task or a simulator turns it.
//!
//! `W` is whom the reply to a write goes to, `A` whom the answer to a query does.

use crate::beginning::Beginning;
use crate::entry::{Entry, MAX_PAYLOAD};
use crate::error::{Cause, ReadError, StopReason, WriteError};
use crate::events::News;
use crate::pending::Change;
use crate::proposal::Proposal;
use crate::replicated::{Applied, Digest, Replicated, SaveState};
use crate::rulings::Skips;
use crate::state_machine::{CodecError, StateMachine};
use crate::storage::StoreError;
use crate::storage::disk::Disk;
use crate::storage::snapshots::{self, Meta};
use crate::transport::{Forward, ForwardReply};
use crate::work::{Caller, Waits, Work};
use bytes::Bytes;
use coracle_core::{Index, LogId, Peer};
use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

/// How far a machine has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Progress {
    /// The newest entry applied.
    pub(crate) applied: LogId,
    /// The digest of everything up to exactly there.
    pub(crate) digest: Digest,
    /// The newest digest that is compared with other nodes'.
    pub(crate) compared: Option<coracle_core::Digest>,
    /// The bytes of all entries applied since the start.
    pub(crate) bytes: u64,
    /// The newest level of entries that it has applied.
    pub(crate) level: u16,
    /// The newest version of the machine that entries were made for that it has applied.
    pub(crate) version: u16,
    /// How many callers that were handed to the machine got their answer since the start.
    pub(crate) answered: u64,
    /// When the first of its timers is due, by the cluster's clock, and by which entry that was set.
    pub(crate) due: Option<(u64, Index)>,
    /// The newest snapshot from which it was rebuilt in this boot, after it had been given up.
    pub(crate) mended: Option<LogId>,
    /// How long it has been busy since the start, by the processor's time.
    pub(crate) busy: Duration,
}

/// What goes out of the machine.
pub(crate) enum Outcome<S: StateMachine, W, A> {
    /// The command was applied, and this is its reply.
    Reply(W, S::Reply),
    /// What a client asked for was done: its encoded reply, or what its session has to say.
    Encoded(W, Bytes),
    /// The command has no reply.
    Failed(W, WriteError),
    /// The query was answered, from a state that has applied everything up to this entry, or cannot be.
    Answer(A, Result<(S::Answer, LogId), ReadError>),
    /// To another node: the answer to a write that it forwarded.
    Send(Peer, ForwardReply),
    /// Back to consensus: this forwarded command can be applied.
    Checked(Peer, Forward),
    /// Back to consensus: what came of something that the courier sent, under this number.
    Carried(u64, Result<Bytes, WriteError>),
    /// What a snapshot holds, to be written beside the machine. (By a pointer, so that what is common is small.)
    Snapshot(Box<Meta>, SaveState),
    /// A snapshot that was asked for is not taken: the machine is not used any more.
    NoSnapshot,
}

/// What a machine has just done.
#[derive(Debug)]
pub(crate) enum Done {
    /// It applied this entry, and whether a command took effect. (The simulator asks.)
    Applied(
        #[cfg_attr(not(feature = "sim"), allow(dead_code))] Entry,
        #[cfg_attr(not(feature = "sim"), allow(dead_code))] bool,
    ),
    /// It took the state of this snapshot.
    Restored(#[cfg_attr(not(feature = "sim"), allow(dead_code))] LogId),
    /// It took hold of its state, for a snapshot.
    SnapshotTaken,
    /// It cannot apply this entry, for this reason, and does nothing until it is told what becomes of it (D5.5.5).
    Stopped(LogId, StopReason),
    /// It has applied this entry, which the cluster skips, and does nothing any more.
    Passed(LogId),
}

/// A state machine with those who wait for it.
pub(crate) struct Applier<S: StateMachine, W, A> {
    replicated: Replicated<S>,
    /// Entries that it was handed and has not applied.
    backlog: VecDeque<Entry>,
    /// The snapshot from which the machine is to take its state, before it applies what is in the backlog.
    restoring: Option<LogId>,
    /// Whether a snapshot is to be taken before the next entry.
    snapshot: bool,
    /// Where snapshots are.
    files: Arc<dyn Disk>,
    /// Who wants the reply of which entry, by index.
    writers: VecDeque<(LogId, Caller<W>)>,
    /// Who wants to read once the machine has come so far.
    readers: BTreeMap<Index, Vec<(S::Query, A)>>,
    outcomes: Vec<Outcome<S, W, A>>,
    bytes: u64,
    answered: u64,
    /// Whether the machine differs from that of a majority, and is used no more. The core knows it, too; a machine has a
    /// thread of its own, and is told by [`Work::Fence`], in order with what it is handed.
    fenced: bool,
    /// The snapshot from which it is being rebuilt, and the newest from which it was.
    mending: Option<LogId>,
    mended: Option<LogId>,
    /// The entry that the machine has stopped before, until it is ruled what becomes of it. What it holds is not its state: it
    /// may have done a part of that entry.
    stopped: Option<LogId>,
    /// Whether the machine holds a part of an entry, over the ruling about it too, until it has taken another state: nobody is
    /// told anything of it, and nothing of it is kept.
    spoilt: bool,
    /// Entries that are skipped, or are not to be passed yet.
    skips: Skips,
    /// What it held before it had applied anything.
    beginning: Beginning,
    /// Whether entries were applied since the machine was told to keep what it has.
    unkept: bool,
    /// The newest reply, encoded, for a mutant that gives it to the next writer.
    #[cfg(feature = "mutants")]
    newest_reply: Option<Bytes>,
}

impl<S: StateMachine, W: Waits, A: Waits> Applier<S, W, A> {
    /// `files` is where snapshots are.
    pub(crate) fn new(replicated: Replicated<S>, files: Arc<dyn Disk>) -> Applier<S, W, A> {
        let beginning = replicated.beginning().map_or(Beginning::Unknown, Beginning::Taken);
        Applier {
            replicated,
            backlog: VecDeque::new(),
            restoring: None,
            snapshot: false,
            files,
            writers: VecDeque::new(),
            readers: BTreeMap::new(),
            outcomes: Vec::new(),
            bytes: 0,
            answered: 0,
            fenced: false,
            mending: None,
            mended: None,
            stopped: None,
            spoilt: false,
            skips: Skips::new(),
            beginning,
            unkept: false,
            #[cfg(feature = "mutants")]
            newest_reply: None,
        }
    }

    /// What the machine holds changes by itself.
    #[cfg(feature = "sim")]
    pub(crate) fn rot(&mut self, bits: u64) {
        self.replicated.rot(bits);
    }

    pub(crate) fn progress(&self) -> Progress {
        let (applied, digest) = self.replicated.applied();
        let compared = self.replicated.compared();
        let (level, version) = (self.replicated.level(), self.replicated.version());
        let (bytes, answered, due) = (self.bytes, self.answered, self.replicated.due());
        let mended = self.mended;
        // Whoever turns it knows that.
        let busy = Duration::ZERO;
        Progress { applied, digest, compared, bytes, level, version, answered, due, mended, busy }
    }

    /// Whether there is nothing left to apply.
    pub(crate) fn is_idle(&self) -> bool {
        self.rests() || self.is_held() && self.restoring.is_none() && !self.snapshot
    }

    /// Whether it is to do nothing, for now.
    fn rests(&self) -> bool {
        self.fenced || self.stopped.is_some() || self.spoilt && self.restoring.is_none()
    }

    /// Whether there is no entry that may be applied: what the log holds an uncommitted skip of is not passed.
    fn is_held(&self) -> bool {
        let next = self.backlog.front();
        next.is_none_or(|entry| self.skips.get(&entry.id()) == Some(&None))
    }

    /// Whether it is to take another state before anything else.
    #[cfg(feature = "sim")]
    pub(crate) fn is_restoring(&self) -> bool {
        self.restoring.is_some()
    }

    /// What it was handed and has not applied.
    #[cfg(feature = "sim")]
    pub(crate) fn backlog(&self) -> impl Iterator<Item = &Entry> {
        self.backlog.iter()
    }

    /// Takes what consensus hands over. Entries wait for [`next`](Applier::next).
    pub(crate) fn take(&mut self, work: Work<W, (S::Query, A)>) {
        let broken = self.replicated.broken;
        match work {
            Work::Fence if broken.is("fenced-machine-applies") => {}
            Work::Fence => self.fence(),
            Work::Mend(snapshot) => self.mend(snapshot),
            Work::Skips(skips) => self.skips = skips,
            Work::Stop(at) => self.stop_before(at),
            Work::Resume => self.stopped = None,
            work if self.fenced => self.turn_away(work, &ReadError::Diverged, Cause::LeadershipLost),
            work if self.stopped.is_some() && !(broken.is("stopped-machine-answers") && work.is_read()) => {
                let at = self.stopped.unwrap_or_default();
                self.turn_away(work, &ReadError::MachineStopped(at), Cause::MachineStopped(at));
            }
            #[cfg(feature = "mutants")]
            Work::Expect(_, caller) if broken.is("answer-before-apply") && self.newest_reply.is_some() => {
                let encoded = self.newest_reply.clone().unwrap_or_default();
                match S::decode_reply(&encoded) {
                    Ok(reply) => self.reply(caller, reply, Some(encoded)),
                    Err(_) => self.fail(caller, WriteError::Unknown(Cause::ReplyLost)),
                }
            }
            Work::Expect(id, caller) => {
                let index = if broken.is("reply-of-next-entry") { id.index.next() } else { id.index };
                let at = self.writers.partition_point(|(other, _)| other.index <= index);
                self.writers.insert(at, (LogId { index, ..id }, caller));
            }
            Work::Apply(entries) => self.backlog.extend(entries),
            Work::Read(index, (query, reader)) => {
                // A state that another one is about to take the place of may be wrong.
                let replaced = self.spoilt || self.restoring.is_some();
                let waits = replaced || index > self.replicated.applied().0.index;
                if waits && self.stopped.is_none() && !broken.is("read-does-not-wait") {
                    self.readers.entry(index).or_default().push((query, reader));
                } else {
                    self.query(query, reader);
                }
            }
            Work::Deposed => self.deposed(),
            Work::Snapshot => self.snapshot = true,
            Work::Restore(snapshot) => {
                self.bytes += self.backlog.drain(..).map(|entry| entry.len() as u64).sum::<u64>();
                self.restoring = Some(snapshot);
            }
            Work::Check(from, forward) => {
                let id = forward.id;
                self.outcomes.push(match understand::<S>(forward.proposal) {
                    Ok((proposal, _)) => Outcome::Checked(from, Forward { proposal, ..forward }),
                    Err(error) => Outcome::Send(from, ForwardReply { id, outcome: Err(error.into()) }),
                });
            }
        }
    }

    /// Somebody who was handed over asked nothing, and has the answer.
    pub(crate) fn pass(&mut self) {
        self.answered += 1;
    }

    /// Does the next thing that waits, and answers those who wait for it. None: there is nothing left.
    pub(crate) fn next(&mut self) -> Option<Result<Done, StopReason>> {
        if self.rests() {
            return None;
        }
        if let Some(snapshot) = self.restoring.take() {
            return Some(self.restore(snapshot));
        }
        if mem::take(&mut self.snapshot) && self.replicated.applied().0 != LogId::ZERO {
            // A machine that keeps its own disk is never before a snapshot of it.
            let taken = self.persist().and_then(|()| self.replicated.snapshot());
            return Some(taken.map(|(meta, save)| {
                self.outcomes.push(Outcome::Snapshot(Box::new(meta), save));
                Done::SnapshotTaken
            }));
        }
        self.apply_next()
    }

    /// A batch of applies is over: a machine that keeps its own disk commits what it has.
    pub(crate) fn persist(&mut self) -> Result<(), StopReason> {
        let rests = self.rests() || self.spoilt;
        if mem::take(&mut self.unkept) && !rests { self.replicated.persist() } else { Ok(()) }
    }

    fn restore(&mut self, snapshot: LogId) -> Result<Done, StopReason> {
        let unreadable = |error: StoreError| StopReason::Storage(Arc::new(error));
        if snapshot == LogId::ZERO {
            let state = self.beginning.state()?;
            self.replicated.begin_anew(&state)?;
            (self.unkept, self.spoilt) = (false, false);
            self.answer_readers(Index::ZERO);
            return Ok(Done::Restored(snapshot));
        }
        self.replicated.restore(snapshots::open(&*self.files, snapshot).map_err(unreadable)?)?;
        (self.unkept, self.spoilt) = (false, false);
        self.mended = self.mending.take().or(self.mended);
        let index = snapshot.index;
        while self.writers.front().is_some_and(|(other, _)| other.index <= index) {
            let Some((_, caller)) = self.writers.pop_front() else { break };
            self.fail(caller, WriteError::Unknown(Cause::LeadershipLost));
        }
        self.answer_readers(index);
        Ok(Done::Restored(snapshot))
    }

    fn apply_next(&mut self) -> Option<Result<Done, StopReason>> {
        if self.is_held() {
            return None;
        }
        let entry = self.backlog.pop_front()?;
        let id = entry.id();
        let applied = match self.skips.get(&id).copied().flatten() {
            Some(ruled) => self.replicated.skip(&entry, ruled).map(|()| Applied::Nothing),
            None => self.replicated.apply(&entry),
        };
        let mut applied = match applied {
            Ok(Applied::Passed(passed)) => {
                self.fence();
                return Some(Ok(Done::Passed(passed)));
            }
            Ok(applied) => applied,
            // A newer version may well apply it, and an invariant is not the entry's fault.
            Err(reason @ StopReason::Invariant(_)) => return Some(Err(reason)),
            Err(reason) if entry.stamp().version > S::VERSION => return Some(Err(reason)),
            Err(reason) => {
                self.bytes += entry.len() as u64;
                self.spoilt = !self.replicated.broken.is("failed-state-kept");
                self.stop_before(id);
                return Some(Ok(Done::Stopped(id, reason)));
            }
        };
        self.unkept = true;
        self.bytes += entry.len() as u64;
        let took_effect = matches!(applied, Applied::Replied(..));
        #[cfg(feature = "mutants")]
        if let Applied::Replied(_, encoded) = &applied {
            self.newest_reply.clone_from(encoded);
        }
        let any_term = self.replicated.broken.is("reply-to-another-leaders-entry");
        while self.writers.front().is_some_and(|(other, _)| other.index <= id.index) {
            let Some((expected, caller)) = self.writers.pop_front() else { break };
            let ours = expected == id || any_term;
            match if ours { mem::take(&mut applied) } else { Applied::Nothing } {
                Applied::Replied(reply, encoded) => self.reply(caller, reply, encoded),
                Applied::Told(told) => self.tell(caller, told),
                // Another leader's entry stands where the writer's was meant to.
                Applied::Nothing | Applied::Passed(_) => {
                    self.fail(caller, WriteError::Unknown(Cause::LeadershipLost));
                }
            }
        }
        self.answer_readers(id.index);
        Some(Ok(Done::Applied(entry, took_effect)))
    }

    fn answer_readers(&mut self, applied: Index) {
        while let Some(first) = self.readers.first_entry()
            && *first.key() <= applied
        {
            for (query, reader) in first.remove() {
                self.query(query, reader);
            }
        }
    }

    /// What went out since the last call.
    pub(crate) fn outcomes(&mut self) -> Vec<Outcome<S, W, A>> {
        mem::take(&mut self.outcomes)
    }

    /// What the machine published since the last call.
    pub(crate) fn news(&mut self) -> News {
        self.replicated.news()
    }

    /// What has changed since the last call among the effects that are pending.
    pub(crate) fn changed_effects(&mut self) -> Vec<Change> {
        self.replicated.changed_effects()
    }

    /// Forgets reads that nobody waits for any more.
    pub(crate) fn sweep(&mut self) {
        for readers in self.readers.values_mut() {
            let before = readers.len();
            readers.retain(|(_, reader)| !reader.gave_up());
            self.answered += (before - readers.len()) as u64;
        }
        self.readers.retain(|_, readers| !readers.is_empty());
    }

    /// The machine stops: whoever waits hears why.
    pub(crate) fn stop(&mut self, reason: &StopReason) {
        for (_, caller) in mem::take(&mut self.writers) {
            self.fail(caller, WriteError::Unknown(Cause::Stopped(reason.clone())));
        }
        for (_, reader) in mem::take(&mut self.readers).into_values().flatten() {
            self.refuse(reader, ReadError::Stopped(reason.clone()));
        }
    }

    /// The machine is not to be trusted: what it has not applied it never will, and nobody gets an answer from it.
    fn fence(&mut self) {
        self.fenced = true;
        if mem::take(&mut self.snapshot) {
            self.outcomes.push(Outcome::NoSnapshot);
        }
        self.rest(&ReadError::Diverged, &Cause::LeadershipLost);
    }

    /// The machine takes a state that is right, and forgets the one that is not.
    fn mend(&mut self, snapshot: LogId) {
        (self.fenced, self.stopped) = (false, None);
        if self.replicated.broken.is("fence-lifted-before-restore") {
            self.mended = Some(snapshot);
            return;
        }
        (self.mending, self.restoring) = (Some(snapshot), Some(snapshot));
    }

    /// The machine does nothing until it is ruled what becomes of this entry. Whoever waits is told: what they wrote may yet
    /// be done.
    fn stop_before(&mut self, at: LogId) {
        self.stopped = Some(at);
        self.rest(&ReadError::MachineStopped(at), &Cause::MachineStopped(at));
    }

    /// What was to be done is not done.
    fn rest(&mut self, why: &ReadError, cause: &Cause) {
        self.bytes += self.backlog.drain(..).map(|entry| entry.len() as u64).sum::<u64>();
        for (_, caller) in mem::take(&mut self.writers) {
            self.fail(caller, WriteError::Unknown(cause.clone()));
        }
        for (_, reader) in mem::take(&mut self.readers).into_values().flatten() {
            self.refuse(reader, why.clone());
        }
    }

    /// What still comes to a machine that is not used.
    fn turn_away(&mut self, work: Work<W, (S::Query, A)>, why: &ReadError, cause: Cause) {
        match work {
            Work::Expect(_, caller) => self.fail(caller, WriteError::Unknown(cause)),
            Work::Read(_, (_, reader)) => self.refuse(reader, why.clone()),
            Work::Check(from, forward) => {
                self.outcomes.push(Outcome::Send(
                    from,
                    ForwardReply { id: forward.id, outcome: Err(WriteError::NoLeader) },
                ));
            }
            Work::Apply(entries) => self.bytes += entries.iter().map(|entry| entry.len() as u64).sum::<u64>(),
            Work::Snapshot if self.fenced => self.outcomes.push(Outcome::NoSnapshot),
            // It is taken once the machine goes on.
            Work::Snapshot => self.snapshot = true,
            Work::Deposed | Work::Fence | Work::Restore(_) => {}
            Work::Mend(_) | Work::Stop(_) | Work::Skips(_) | Work::Resume => {}
        }
    }

    /// Leadership was lost: whoever waits for an entry gets to know now that nobody here can tell, unless the
    /// entry at its place was handed over already, and so is committed.
    fn deposed(&mut self) {
        let broken = self.replicated.broken;
        if broken.is("reply-to-another-leaders-entry") {
            return;
        }
        let known = self.backlog.back().map_or(self.replicated.applied().0.index, Entry::index);
        let first = self.writers.partition_point(|(other, _)| other.index <= known);
        for (_, caller) in self.writers.split_off(first) {
            if broken.is("writers-told-no") {
                self.fail(caller, WriteError::NoLeader);
            } else if !broken.is("writers-forgotten") {
                self.fail(caller, WriteError::Unknown(Cause::LeadershipLost));
            }
        }
    }

    fn query(&mut self, query: S::Query, reader: A) {
        self.answered += 1;
        // The work is not done for whoever has given up.
        if !reader.gave_up() {
            let applied = self.replicated.applied().0;
            let answer = self.replicated.query(query).map(|answer| (answer, applied));
            self.outcomes.push(Outcome::Answer(reader, answer));
        }
    }

    fn refuse(&mut self, reader: A, why: ReadError) {
        self.answered += 1;
        self.outcomes.push(Outcome::Answer(reader, Err(why)));
    }

    fn reply(&mut self, caller: Caller<W>, value: S::Reply, encoded: Option<Bytes>) {
        self.answered += 1;
        self.outcomes.push(match caller {
            Caller::Here(writer) => Outcome::Reply(writer, value),
            Caller::Client(writer) => match carried(encoded) {
                Ok(bytes) => Outcome::Encoded(writer, bytes),
                Err(error) => Outcome::Failed(writer, error),
            },
            Caller::Forwarded(peer, id) => {
                Outcome::Send(peer, ForwardReply { id, outcome: carried(encoded) })
            }
            Caller::Carried(flight) => Outcome::Carried(flight, carried(encoded)),
        });
    }

    /// Tells a caller what a session has to say.
    fn tell(&mut self, caller: Caller<W>, told: Result<Bytes, WriteError>) {
        match (caller, told) {
            (caller, Err(error)) => self.fail(caller, error),
            // Nobody asks anything of a session without a number.
            (caller @ Caller::Here(_), Ok(_)) => self.fail(caller, WriteError::Unknown(Cause::ReplyLost)),
            (Caller::Client(writer), Ok(told)) => {
                self.answered += 1;
                self.outcomes.push(Outcome::Encoded(writer, told));
            }
            (Caller::Forwarded(peer, id), told) => {
                self.answered += 1;
                self.outcomes.push(Outcome::Send(peer, ForwardReply { id, outcome: told }));
            }
            (Caller::Carried(flight), told) => {
                self.answered += 1;
                self.outcomes.push(Outcome::Carried(flight, told));
            }
        }
    }

    fn fail(&mut self, caller: Caller<W>, error: WriteError) {
        self.answered += 1;
        self.outcomes.push(match caller {
            Caller::Here(writer) | Caller::Client(writer) => Outcome::Failed(writer, error),
            Caller::Forwarded(peer, id) => Outcome::Send(peer, ForwardReply { id, outcome: Err(error) }),
            Caller::Carried(flight) => Outcome::Carried(flight, Err(error)),
        });
    }
}

/// What a peer or a client sends becomes an entry only as this machine understands it: all nodes can apply that, and apply
/// the same, whatever version of the machine encoded the command. And which version of the machine the command needs.
pub(crate) fn understand<S: StateMachine>(proposal: Proposal) -> Result<(Proposal, u16), CodecError> {
    let (proposal, needs) = match proposal.command() {
        None => (proposal, 0),
        Some(command) => {
            let command = S::decode_command(command)?;
            let needs = S::version_of(&command);
            (proposal.with_command(S::encode_command(&command)?), needs)
        }
    };
    match proposal.len() {
        0..=MAX_PAYLOAD => Ok((proposal, needs)),
        length => Err(CodecError(format!("the command takes {length} bytes here"))),
    }
}

/// A reply as it goes to another node.
fn carried(encoded: Option<Bytes>) -> Result<Bytes, WriteError> {
    let carried = encoded.filter(|bytes| bytes.len() <= MAX_PAYLOAD);
    carried.ok_or(WriteError::Unknown(Cause::ReplyLost))
}

#[cfg(test)]
#[path = "applier_tests.rs"]
pub(crate) mod tests;
