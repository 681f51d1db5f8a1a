//! The one place that touches the user's state machine.
//!
//! It applies committed entries in their order, answers those who wait for them, serves reads once the
//! machine has come far enough, and folds a digest over everything that replicas must agree on. A passive
//! structure, like the [`replica`](crate::replica): a driver turns it.

use crate::entry::{Entry, Kind};
use crate::error::{Cause, StopReason, WriteError};
use crate::replica::RequestId;
use crate::state_machine::{Context, StateMachine};
use bytes::Bytes;
use coracle_core::{Broken, Index, LogId, Term};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use xxhash_rust::xxh3::Xxh3Default;

/// A digest over all that replicas agree on: entries, replies, and the machine's own digest.
pub type Digest = [u8; 16];

/// An answer for a caller.
pub(crate) enum Outcome<S: StateMachine> {
    /// The command was applied.
    Reply(RequestId, S::Reply),
    /// The membership entry took effect.
    Configured(RequestId),
    /// The query was answered.
    Answer(RequestId, S::Answer),
    /// The write has no reply.
    Failed(RequestId, WriteError),
}

/// A state machine with those who wait for it.
pub(crate) struct Applier<S: StateMachine> {
    machine: S,
    applied: LogId,
    digest: Digest,
    /// The cluster's clock, as far as entries have brought it.
    cluster_time: u64,
    /// Who wants the reply of which entry.
    writers: BTreeMap<Index, (Term, RequestId)>,
    /// Who wants to read once the machine has come so far.
    readers: BTreeMap<Index, Vec<(RequestId, S::Query)>>,
    answers: Vec<Outcome<S>>,
    pub(crate) broken: Broken,
}

/// A machine at one moment, and all that its applier knows of how it came there.
#[derive(Clone)]
pub(crate) struct Snapshot<S> {
    pub(crate) machine: S,
    pub(crate) applied: LogId,
    pub(crate) digest: Digest,
    pub(crate) cluster_time: u64,
}

impl<S: StateMachine> Applier<S> {
    /// An applier with a machine that has applied nothing.
    pub(crate) fn new(machine: S) -> Applier<S> {
        let (applied, digest) = (LogId::ZERO, Digest::default());
        Applier::restore(Snapshot { machine, applied, digest, cluster_time: 0 })
    }

    /// An applier that goes on from there.
    pub(crate) fn restore(snapshot: Snapshot<S>) -> Applier<S> {
        let Snapshot { machine, applied, digest, cluster_time } = snapshot;
        Applier {
            machine,
            applied,
            digest,
            cluster_time,
            writers: BTreeMap::new(),
            readers: BTreeMap::new(),
            answers: Vec::new(),
            broken: Broken::default(),
        }
    }

    /// The newest entry applied, and the digest of everything up to it.
    pub(crate) fn applied(&self) -> (LogId, Digest) {
        (self.applied, self.digest)
    }

    /// The machine as it is now.
    #[cfg(feature = "sim")]
    pub(crate) fn snapshot(&self) -> Snapshot<S>
    where
        S: Clone,
    {
        let Applier { applied, digest, cluster_time, .. } = *self;
        Snapshot { machine: self.machine.clone(), applied, digest, cluster_time }
    }

    /// The reply to the entry `id` is for this request.
    pub(crate) fn expect(&mut self, id: LogId, request: RequestId) {
        let index = if self.broken.is("reply-of-next-entry") { id.index.next() } else { id.index };
        self.writers.insert(index, (id.term, request));
    }

    /// Serves the query once everything up to `index` is applied: at once, if it is.
    pub(crate) fn read(
        &mut self,
        index: Index,
        request: RequestId,
        query: S::Query,
    ) -> Result<(), StopReason> {
        if index > self.applied.index && !self.broken.is("read-does-not-wait") {
            self.readers.entry(index).or_default().push((request, query));
            return Ok(());
        }
        self.query(request, query)
    }

    /// Applies the next entry.
    pub(crate) fn apply(&mut self, entry: &Entry) -> Result<(), StopReason> {
        let id = entry.id();
        if id.index != self.applied.index.next() {
            let problem = format!("entry {id} came to the machine behind {}", self.applied);
            return Err(StopReason::Invariant(problem));
        }
        let writer = self.writers.remove(&id.index);
        self.cluster_time = self.cluster_time.max(entry.stamp().cluster_time);
        let reply = match entry.kind() {
            Kind::Command => Some(self.command(entry)?),
            Kind::Noop | Kind::Membership => None,
        };
        let encoded = match &reply {
            Some(reply) => S::encode_reply(reply).map_err(|error| apply_failed(id, error.0))?,
            None => Bytes::new(),
        };
        self.fold(entry, &encoded);
        self.applied = id;
        if let Some((term, request)) = writer {
            self.answers.push(match reply {
                // Another leader's entry stands where the writer's was meant to.
                _ if term != id.term => Outcome::Failed(request, WriteError::Unknown(Cause::LeadershipLost)),
                Some(reply) => Outcome::Reply(request, reply),
                None => Outcome::Configured(request),
            });
        }
        while let Some(first) = self.readers.first_entry()
            && *first.key() <= id.index
        {
            for (request, query) in first.remove() {
                self.query(request, query)?;
            }
        }
        Ok(())
    }

    /// Leadership was lost: whoever waits for an entry gets to know now that nobody here can tell.
    pub(crate) fn leadership_lost(&mut self) {
        for (_, (_, request)) in std::mem::take(&mut self.writers) {
            let outcome = match () {
                () if self.broken.is("writers-forgotten") => continue,
                () if self.broken.is("writers-told-no") => WriteError::NoLeader,
                () => WriteError::Unknown(Cause::LeadershipLost),
            };
            self.answers.push(Outcome::Failed(request, outcome));
        }
    }

    /// Forgets reads that nobody waits for any more.
    pub(crate) fn forget_reads(&mut self, gone: impl Fn(RequestId) -> bool) {
        for readers in self.readers.values_mut() {
            readers.retain(|(request, _)| !gone(*request));
        }
        self.readers.retain(|_, readers| !readers.is_empty());
    }

    /// The answers since the last call.
    pub(crate) fn take_answers(&mut self) -> Vec<Outcome<S>> {
        std::mem::take(&mut self.answers)
    }

    fn command(&mut self, entry: &Entry) -> Result<S::Reply, StopReason> {
        let id = entry.id();
        let command = S::decode_command(&entry.payload()).map_err(|error| apply_failed(id, error.0))?;
        let mut context = Context::new(id, self.cluster_time, entry.stamp().wall_time);
        let machine = &mut self.machine;
        if self.broken.is("command-applied-twice") {
            drop(S::decode_command(&entry.payload()).map(|command| machine.apply(&mut context, command)));
        }
        catch_unwind(AssertUnwindSafe(|| machine.apply(&mut context, command)))
            .map_err(|panic| panicked(format!("entry {id}"), &*panic))
    }

    fn query(&mut self, request: RequestId, query: S::Query) -> Result<(), StopReason> {
        let machine = &self.machine;
        let answer = catch_unwind(AssertUnwindSafe(|| machine.query(query)))
            .map_err(|panic| panicked(format!("a query at {}", self.applied), &*panic))?;
        self.answers.push(Outcome::Answer(request, answer));
        Ok(())
    }

    fn fold(&mut self, entry: &Entry, reply: &[u8]) {
        let mut hash = Xxh3Default::new();
        hash.update(&self.digest);
        hash.update(entry.bytes());
        hash.update(reply);
        if let Some(digest) = self.machine.digest() {
            hash.update(&digest);
        }
        self.digest = hash.digest128().to_le_bytes();
    }
}

fn apply_failed(id: LogId, problem: String) -> StopReason {
    StopReason::Apply { id, problem }
}

fn panicked(at: String, panic: &(dyn std::any::Any + Send)) -> StopReason {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let message = text.or_else(|| panic.downcast_ref::<String>().cloned());
    StopReason::Panicked { at, message: message.unwrap_or_else(|| "no message".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Stamp;

    /// Adds up; panics when told 13.
    #[derive(Default)]
    struct Sum {
        sum: u64,
        lies: bool,
    }

    impl StateMachine for Sum {
        type Command = u64;
        type Reply = u64;
        type Query = ();
        type Answer = u64;

        fn apply(&mut self, _: &mut Context, command: u64) -> u64 {
            assert_ne!(command, 13, "unlucky");
            self.sum += if self.lies { command + 1 } else { command };
            self.sum
        }

        fn query(&self, (): ()) -> u64 {
            self.sum
        }
    }

    fn entry(term: u64, index: u64, command: u64) -> Entry {
        let payload = Sum::encode_command(&command).unwrap();
        Entry::new(LogId::new(term, index), Kind::Command, Stamp::default(), &payload)
    }

    fn noop(term: u64, index: u64) -> Entry {
        Entry::new(LogId::new(term, index), Kind::Noop, Stamp::default(), &[])
    }

    #[test]
    fn replies_go_to_those_who_wait_for_that_very_entry() {
        let mut applier = Applier::new(Sum::default());
        applier.expect(LogId::new(1, 2), RequestId(7));
        applier.expect(LogId::new(1, 3), RequestId(8));
        applier.apply(&noop(1, 1)).unwrap();
        applier.apply(&entry(1, 2, 5)).unwrap();
        applier.apply(&entry(2, 3, 6)).unwrap();
        let answers = applier.take_answers();
        assert!(matches!(answers[0], Outcome::Reply(RequestId(7), 5)));
        let overwritten = &answers[1];
        assert!(matches!(overwritten, Outcome::Failed(RequestId(8), WriteError::Unknown(_))));
        assert_eq!(answers.len(), 2);
    }

    #[test]
    fn a_read_waits_for_its_index_and_is_answered_before_anything_later() {
        let mut applier = Applier::new(Sum::default());
        applier.apply(&noop(1, 1)).unwrap();
        applier.read(Index(2), RequestId(1), ()).unwrap();
        applier.read(Index(1), RequestId(2), ()).unwrap();
        assert!(matches!(applier.take_answers()[..], [Outcome::Answer(RequestId(2), 0)]));
        applier.apply(&entry(1, 2, 5)).unwrap();
        applier.apply(&entry(1, 3, 5)).unwrap();
        assert!(matches!(applier.take_answers()[..], [Outcome::Answer(RequestId(1), 5)]));
    }

    #[test]
    fn a_gap_or_a_repetition_stops_the_node() {
        let mut applier = Applier::new(Sum::default());
        applier.apply(&noop(1, 1)).unwrap();
        assert!(matches!(applier.apply(&noop(1, 1)), Err(StopReason::Invariant(_))));
        assert!(matches!(applier.apply(&noop(1, 3)), Err(StopReason::Invariant(_))));
    }

    #[test]
    fn a_panic_is_a_reason_to_stop_and_says_where() {
        let mut applier = Applier::new(Sum::default());
        let Err(StopReason::Panicked { at, message }) = applier.apply(&entry(1, 1, 13)) else { panic!() };
        assert_eq!(at, "entry 1.1");
        assert!(message.contains("unlucky"), "{message}");
    }

    #[test]
    fn the_digest_sees_entries_and_replies() {
        let run = |lies, commands: [u64; 2]| {
            let mut applier = Applier::new(Sum { lies, ..Sum::default() });
            for (at, command) in commands.into_iter().enumerate() {
                applier.apply(&entry(1, at as u64 + 1, command)).unwrap();
            }
            applier.applied().1
        };
        assert_eq!(run(false, [1, 2]), run(false, [1, 2]));
        assert_ne!(run(false, [1, 2]), run(false, [2, 1]));
        assert_ne!(run(false, [1, 2]), run(true, [1, 2]));
    }
}
