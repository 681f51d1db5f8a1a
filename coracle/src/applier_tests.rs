//! Who gets which answer, and when.

use super::*;
use crate::entry::{Kind, Stamp};
use crate::proposal::Proposal;
use crate::rulings::{Ruling, Verdict};
use crate::snapshot::{self, Save};
use crate::state_machine::{Context, QueryContext};
use crate::storage::mem_disk::MemDisk;
use crate::work::RequestId;
use coracle_core::{Incarnation, NodeId, Term};
use std::io;

/// Adds numbers, but for an unlucky one.
#[derive(Default)]
pub(crate) struct Sum(u64);

impl StateMachine for Sum {
    type Command = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, context: &mut Context, command: u64) -> u64 {
        self.0 += command;
        if command == 13 {
            context.fatal("unlucky");
        }
        self.0
    }

    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.0
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save(self.0)
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        snapshot::load(from).map(|sum| self.0 = sum)
    }
}

type Test = Applier<Sum, RequestId, RequestId>;

fn applier() -> Test {
    Applier::new(Replicated::new(Sum::default()), Arc::new(MemDisk::new()))
}

fn entry(term: u64, index: u64, command: u64) -> Entry {
    let payload = Sum::encode_command(&command).unwrap();
    Entry::new(LogId::new(term, index), Kind::Command, Stamp::default(), &payload)
}

fn noop(term: u64, index: u64) -> Entry {
    Entry::new(LogId::new(term, index), Kind::Noop, Stamp::default(), &[])
}

fn expect(applier: &mut Test, id: LogId, request: u64) {
    applier.take(Work::Expect(id, Caller::Here(RequestId(request))));
}

fn apply_all(applier: &mut Test) {
    while let Some(applied) = applier.next() {
        applied.unwrap();
    }
}

/// D5.1.14: whoever waits is told, and nothing comes out of it any more.
#[test]
fn a_fenced_machine_applies_and_answers_nothing() {
    let mut applier = applier();
    applier.take(Work::Apply(vec![noop(1, 1)]));
    apply_all(&mut applier);
    let forward = Forward { id: 5, time_left: 1, term: Term(1), proposal: Proposal::Command(Bytes::new()) };
    let all = |applier: &mut Test| {
        expect(applier, LogId::new(1, 2), 7);
        applier.take(Work::Apply(vec![entry(1, 2, 5)]));
        applier.take(Work::Read(Index(2), ((), RequestId(8))));
    };
    all(&mut applier);
    applier.take(Work::Fence);
    all(&mut applier);
    let peer = Peer { id: NodeId(2), incarnation: Incarnation(12) };
    applier.take(Work::Check(peer, forward));
    apply_all(&mut applier);
    assert!(applier.is_idle() && applier.progress().applied == LogId::new(1, 1));
    let outcomes = applier.outcomes();
    let failed = |outcome: &Outcome<_, _, _>| {
        matches!(outcome, Outcome::Failed(RequestId(7), WriteError::Unknown(Cause::LeadershipLost)))
    };
    let refused = |outcome: &Outcome<_, _, _>| {
        matches!(outcome, Outcome::Answer(RequestId(8), Err(ReadError::Diverged)))
    };
    assert_eq!(outcomes.iter().filter(|outcome| failed(outcome)).count(), 2);
    assert_eq!(outcomes.iter().filter(|outcome| refused(outcome)).count(), 2);
    assert!(matches!(outcomes.last(), Some(Outcome::Send(..))));
    assert_eq!((outcomes.len(), applier.progress().answered), (5, 4));
}

/// Whoever waits for a snapshot, as a rebuild does, hears that there will be none.
#[test]
fn a_snapshot_that_a_fenced_machine_was_to_take_is_said_not_to_come() {
    let mut applier = applier();
    applier.take(Work::Apply(vec![noop(1, 1)]));
    apply_all(&mut applier);
    applier.take(Work::Snapshot);
    applier.take(Work::Fence);
    assert!(matches!(applier.outcomes()[..], [Outcome::NoSnapshot]));
    applier.take(Work::Snapshot);
    assert!(matches!(applier.outcomes()[..], [Outcome::NoSnapshot]));
}

#[test]
fn replies_go_to_those_who_wait_for_that_very_entry() {
    let mut applier = applier();
    expect(&mut applier, LogId::new(1, 2), 7);
    expect(&mut applier, LogId::new(1, 3), 8);
    applier.take(Work::Apply(vec![noop(1, 1), entry(1, 2, 5), entry(2, 3, 6)]));
    apply_all(&mut applier);
    let outcomes = applier.outcomes();
    assert!(matches!(outcomes[0], Outcome::Reply(RequestId(7), 5)));
    assert!(matches!(&outcomes[1], Outcome::Failed(RequestId(8), WriteError::Unknown(_))));
    assert_eq!((outcomes.len(), applier.progress().answered), (2, 2));
}

/// Nobody waits for ever, however late the machine hears of who waits.
#[test]
fn whoever_expects_an_entry_that_was_passed_is_told() {
    let mut applier = applier();
    applier.take(Work::Apply(vec![noop(1, 1), entry(1, 2, 5)]));
    apply_all(&mut applier);
    expect(&mut applier, LogId::new(1, 2), 7);
    expect(&mut applier, LogId::new(1, 3), 8);
    applier.take(Work::Apply(vec![entry(1, 3, 5)]));
    apply_all(&mut applier);
    let outcomes = applier.outcomes();
    let lost = WriteError::Unknown(Cause::LeadershipLost);
    assert!(matches!(&outcomes[0], Outcome::Failed(RequestId(7), error) if *error == lost));
    assert!(matches!(outcomes[1..], [Outcome::Reply(RequestId(8), 10)]));
}

#[test]
fn a_read_waits_for_its_index_and_is_answered_before_anything_later() {
    let mut applier = applier();
    applier.take(Work::Apply(vec![noop(1, 1)]));
    apply_all(&mut applier);
    applier.take(Work::Read(Index(2), ((), RequestId(1))));
    applier.take(Work::Read(Index(1), ((), RequestId(2))));
    assert!(matches!(applier.outcomes()[..], [Outcome::Answer(RequestId(2), Ok((0, _)))]));
    applier.take(Work::Apply(vec![entry(1, 2, 5), entry(1, 3, 5)]));
    apply_all(&mut applier);
    assert!(matches!(applier.outcomes()[..], [Outcome::Answer(RequestId(1), Ok((5, _)))]));
}

/// CS-2, CS-6: with leadership goes what is not known to be committed, and nothing else.
#[test]
fn cs_6_the_loss_of_leadership_is_told_to_those_whose_entries_are_not_committed() {
    let mut applier = applier();
    expect(&mut applier, LogId::new(1, 1), 1);
    expect(&mut applier, LogId::new(1, 2), 2);
    applier.take(Work::Apply(vec![entry(1, 1, 5)]));
    applier.take(Work::Deposed);
    let lost = Err::<(), _>(WriteError::Unknown(Cause::LeadershipLost));
    let outcomes = applier.outcomes();
    let [Outcome::Failed(RequestId(2), error)] = &outcomes[..] else { panic!() };
    assert_eq!(Err::<(), _>(error.clone()), lost);
    apply_all(&mut applier);
    assert!(matches!(applier.outcomes()[..], [Outcome::Reply(RequestId(1), 5)]));
}

#[test]
fn a_reply_without_an_encoding_is_lost_to_whoever_forwarded_and_to_nobody_else() {
    let mut applier = applier();
    let peer = Peer { id: NodeId(2), incarnation: Incarnation(2) };
    for (caller, value) in [(Caller::Forwarded(peer, 7), 1), (Caller::Here(RequestId(8)), 2)] {
        applier.reply(caller, value, None);
    }
    let outcomes = applier.outcomes();
    let [Outcome::Send(to, lost), Outcome::Reply(RequestId(8), 2)] = &outcomes[..] else { panic!() };
    assert_eq!((*to, lost.id), (peer, 7));
    assert_eq!(lost.outcome, Err(WriteError::Unknown(Cause::ReplyLost)));
}

#[test]
fn a_forwarded_command_that_cannot_be_applied_is_sent_back() {
    let mut applier = applier();
    let peer = Peer { id: NodeId(2), incarnation: Incarnation(2) };
    let forward = |command: &[u8]| Forward {
        id: 4,
        time_left: 1,
        term: Term(1),
        proposal: Proposal::Command(Bytes::copy_from_slice(command)),
    };
    applier.take(Work::Check(peer, forward(&Sum::encode_command(&1).unwrap())));
    applier.take(Work::Check(peer, forward(&[])));
    let outcomes = applier.outcomes();
    let [Outcome::Checked(..), Outcome::Send(to, reply)] = &outcomes[..] else { panic!() };
    assert_eq!((*to, reply.id), (peer, 4));
    assert!(matches!(reply.outcome, Err(WriteError::Invalid(_))));
}

/// Of two versions of a machine, the older may lead: what it does not understand of a command, it does not
/// replicate either, so that no newer node applies more than it does.
#[test]
fn a_forwarded_command_is_replicated_as_the_leaders_machine_understands_it() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Old {
        amount: u64,
    }
    #[derive(serde::Serialize)]
    struct New {
        amount: u64,
        note: &'static str,
    }
    #[derive(Default)]
    struct Older;
    impl StateMachine for Older {
        type Command = Old;
        type Reply = ();
        type Query = ();
        type Answer = ();
        fn apply(&mut self, _: &mut Context, _: Old) {}
        fn query(&self, _: &QueryContext, (): ()) {}
        fn snapshot(&self) -> impl Save {
            snapshot::save(())
        }
        fn restore(&mut self, _: &mut dyn io::Read) -> io::Result<()> {
            Ok(())
        }
    }
    let mut applier: Applier<Older, RequestId, RequestId> =
        Applier::new(Replicated::new(Older), Arc::new(MemDisk::new()));
    let peer = Peer { id: NodeId(2), incarnation: Incarnation(2) };
    let command = crate::codec::message_pack::encode(&New { amount: 3, note: "new" }).unwrap();
    let proposal = Proposal::Command(command);
    let forward = Forward { id: 4, time_left: 1, term: Term(1), proposal };
    applier.take(Work::Check(peer, forward));
    let outcomes = applier.outcomes();
    let [Outcome::Checked(_, forward)] = &outcomes[..] else { panic!() };
    let understood = Older::encode_command(&Old { amount: 3 }).unwrap();
    assert_eq!(forward.proposal, Proposal::Command(understood));
}

/// The sum, if it can be asked for.
fn sum(applier: &mut Test) -> Result<u64, ReadError> {
    applier.take(Work::Read(Index::ZERO, ((), RequestId(99))));
    match applier.outcomes().pop() {
        Some(Outcome::Answer(RequestId(99), answer)) => answer.map(|(sum, _)| sum),
        _ => panic!("an answer was expected"),
    }
}

/// D5.5.5: what a log holds an uncommitted skip of is not passed; and in the place of what is skipped nothing is done.
#[test]
fn what_may_be_skipped_is_waited_for_and_what_is_skipped_does_nothing() {
    let mut applier = applier();
    let second = LogId::new(1, 2);
    applier.take(Work::Skips(Skips::from([(second, None)])));
    applier.take(Work::Apply(vec![noop(1, 1), entry(1, 2, 5), entry(1, 3, 7)]));
    apply_all(&mut applier);
    assert_eq!(applier.progress().applied, LogId::new(1, 1));
    assert!(applier.is_idle(), "there is nothing that it may do");
    applier.take(Work::Skips(Skips::from([(second, Some(Index(4)))])));
    assert!(!applier.is_idle());
    apply_all(&mut applier);
    assert_eq!((applier.progress().applied, sum(&mut applier)), (LogId::new(1, 3), Ok(7)));
    let ruling = Ruling { entry: second, verdict: Verdict::Skip };
    let ruled = |index| Entry::new(LogId::new(1, index), Kind::Ruling, Stamp::default(), &ruling.encode());
    applier.take(Work::Apply(vec![ruled(4)]));
    assert!(matches!(applier.next(), Some(Ok(Done::Applied(..)))), "it has skipped that");

    let mut other = self::applier();
    other.take(Work::Apply(vec![noop(1, 1), entry(1, 2, 5), noop(1, 3), ruled(4), entry(1, 5, 1)]));
    let done: Vec<_> = std::iter::from_fn(|| other.next()).collect();
    assert!(matches!(done[..], [.., Ok(Done::Applied(..)), Ok(Done::Passed(passed))] if passed == second));
    assert_eq!(sum(&mut other), Err(ReadError::Diverged));
}

/// D5.5.5: a machine that has failed answers nobody, and goes on from what it held before.
#[test]
fn a_machine_that_has_failed_goes_on_from_where_it_began() {
    let mut applier = applier();
    let (at, all) = (LogId::new(1, 3), vec![noop(1, 1), entry(1, 2, 5), entry(1, 3, 13), entry(1, 4, 2)]);
    expect(&mut applier, at, 1);
    applier.take(Work::Read(Index(4), ((), RequestId(2))));
    applier.take(Work::Apply(all.clone()));
    let done: Vec<_> = std::iter::from_fn(|| applier.next()).collect();
    assert!(matches!(&done[..], [Ok(_), Ok(_), Ok(Done::Stopped(id, _))] if *id == at), "{done:?}");
    let told = Cause::MachineStopped(at);
    assert!(matches!(&applier.outcomes()[..], [
        Outcome::Failed(RequestId(1), WriteError::Unknown(cause)),
        Outcome::Answer(RequestId(2), Err(ReadError::MachineStopped(id))),
    ] if (cause, *id) == (&told, at)));
    assert_eq!(
        (sum(&mut applier), applier.progress().applied),
        (Err(ReadError::MachineStopped(at)), LogId::new(1, 2))
    );
    let handed: u64 = all.iter().map(|entry| entry.len() as u64).sum();
    assert_eq!(applier.progress().bytes, handed, "nothing of it waits any more");
    applier.take(Work::Skips(Skips::from([(at, Some(Index(5)))])));
    applier.take(Work::Resume);
    // Half of the entry is in it still: nobody is told of that, and no snapshot holds it.
    applier.take(Work::Read(Index(2), ((), RequestId(3))));
    applier.take(Work::Snapshot);
    assert!(applier.next().is_none() && applier.outcomes().is_empty());
    applier.take(Work::Restore(LogId::ZERO));
    applier.take(Work::Read(Index(2), ((), RequestId(4))));
    assert!(applier.outcomes().is_empty());
    applier.take(Work::Apply(all));
    apply_all(&mut applier);
    let answered = |outcome: &Outcome<Sum, _, _>| match outcome {
        Outcome::Answer(RequestId(who), Ok((answer, _))) => Some((*who, *answer)),
        _ => None,
    };
    let answers: Vec<_> = applier.outcomes().iter().filter_map(answered).collect();
    assert_eq!(answers, [(3, 5), (4, 5)], "what stood there after entry 2");
    assert_eq!((sum(&mut applier), applier.progress().applied), (Ok(7), LogId::new(1, 4)));
}
