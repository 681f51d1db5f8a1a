//! The courier against leaders that die, forget and refuse, and the sessions that take what it sends.

use crate::courier::{Courier, To};
use crate::error::{Busy, Cause, SessionError, WriteError};
use crate::proposal::{Numbered, Proposal};
use crate::work::RequestId;
use bytes::Bytes;
use coracle_core::{Broken, Incarnation, NodeId, Peer, Term};

const LIFETIME: u64 = 10_000;

/// A courier, with what it sent that has no answer.
struct Test {
    courier: Courier<RequestId>,
    newest: u64,
    now: u64,
}

type Answer = (u64, Result<Bytes, WriteError>);

/// Session, lane, number, what is acknowledged, and the request.
type Sent = (u64, u32, u64, u64, Option<u64>);

fn peer(id: u64) -> Peer {
    Peer { id: NodeId(id), incarnation: Incarnation(id) }
}

fn leader(id: u64) -> Option<To> {
    Some(To::Peer(peer(id), Term(id)))
}

fn answer(text: &'static str) -> Result<Bytes, WriteError> {
    Ok(Bytes::from_static(text.as_bytes()))
}

fn refused(why: SessionError) -> Result<Bytes, WriteError> {
    Err(WriteError::Session(why))
}

impl Test {
    /// One whose session is open, under this name, at this leader.
    fn open(session: u64, at: u64) -> Test {
        let mut test = Test { courier: Courier::new(LIFETIME, Broken::default()), newest: 0, now: 1 };
        test.take(0, 99);
        let [(flight, Proposal::Open(LIFETIME))] = test.send(leader(at))[..] else { panic!() };
        test.hear(flight, Ok(Bytes::copy_from_slice(&session.to_le_bytes())));
        let first = test.numbered(leader(at));
        assert_eq!(first[0].1, (session, 0, 0, 0, Some(99)));
        assert_eq!(test.hear(first[0].0, answer("")), [(99, answer(""))]);
        test
    }

    fn take(&mut self, lane: u32, request: u64) {
        self.courier.take(lane, Bytes::copy_from_slice(&[request as u8]), RequestId(request));
    }

    fn send(&mut self, to: Option<To>) -> Vec<(u64, Proposal)> {
        self.courier.send(to, self.now, &mut self.newest)
    }

    /// What goes, and by which flight.
    fn numbered(&mut self, to: Option<To>) -> Vec<(u64, Sent)> {
        let sent = self.send(to).into_iter();
        let read = |proposal| match proposal {
            Proposal::Numbered(Numbered { session, lane, number, acknowledged }, command) => {
                (session, lane, number, acknowledged, command.map(|command: Bytes| u64::from(command[0])))
            }
            other => panic!("{other:?}"),
        };
        sent.map(|(flight, proposal)| (flight, read(proposal))).collect()
    }

    fn hear(&mut self, flight: u64, outcome: Result<Bytes, WriteError>) -> Vec<Answer> {
        self.courier.on_answer(flight, outcome, self.now);
        self.heard()
    }

    fn heard(&mut self) -> Vec<Answer> {
        self.courier.heard().answers.into_iter().map(|(request, outcome)| (request.0, outcome)).collect()
    }
}

/// CS-1: whatever has no answer goes to the next leader, under the same numbers and in order.
#[test]
fn cs_1_the_death_of_a_leader_is_a_pause() {
    let mut test = Test::open(7, 2);
    for request in 1..=3 {
        test.take(0, request);
    }
    let sent = test.numbered(leader(2));
    let numbers = |sent: &[(u64, Sent)]| sent.iter().map(|(_, it)| (it.2, it.4)).collect::<Vec<_>>();
    assert_eq!(numbers(&sent), [(1, Some(1)), (2, Some(2)), (3, Some(3))]);
    assert_eq!(test.hear(sent[1].0, answer("two")), [(2, answer("two"))]);
    test.courier.on_disconnected(peer(2), test.now);
    assert_eq!(test.send(None), []);
    let again = test.numbered(leader(3));
    assert_eq!(numbers(&again), [(1, Some(1)), (3, Some(3))], "the second has its answer");
    assert!(again.iter().all(|(_, it)| it.3 == 1), "that of the first is wanted still");
    assert_eq!(test.hear(sent[2].0, answer("late")), [], "who leads no more is not heard");
    assert_eq!(test.hear(again[1].0, answer("three")), [(3, answer("three"))]);
    assert_eq!(test.hear(again[0].0, answer("one")), [(1, answer("one"))]);
    test.take(0, 4);
    assert_eq!(test.numbered(leader(3))[0].1, (7, 0, 4, 4, Some(4)));
    assert_eq!(test.courier.pending(), 1);
}

/// An answer may be lost with a connection that is not the last one to its node, or for want of room.
#[test]
fn what_has_no_answer_for_long_goes_again() {
    let mut test = Test::open(7, 2);
    test.take(0, 1);
    test.take(0, 2);
    assert_eq!(test.numbered(leader(2)).len(), 2);
    test.now += 200;
    assert_eq!(test.send(leader(2)), []);
    test.now += 1;
    let again = test.numbered(leader(2));
    assert_eq!(again.iter().map(|(_, it)| it.2).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(test.hear(again[0].0, answer("one")), [(1, answer("one"))]);
    assert_eq!(test.courier.pending(), 1);

    let mut test = Test { courier: Courier::new(LIFETIME, Broken::default()), newest: 0, now: 1 };
    test.take(0, 1);
    assert_eq!(test.send(leader(2)).len(), 1);
    test.now += 201;
    assert!(matches!(test.send(leader(2))[..], [(_, Proposal::Open(_))]), "so does the opening");
    test.now += 201;
    assert_eq!(test.send(leader(2)), [], "after twice as long");
}

/// However slow a leader is: the answer to any copy is the answer, and the next copy waits longer.
#[test]
fn an_answer_that_comes_after_its_command_went_again_counts() {
    let mut test = Test::open(7, 2);
    test.take(0, 1);
    let first = test.numbered(leader(2));
    test.now += 201;
    let second = test.numbered(leader(2));
    test.now += 201;
    assert_eq!(test.send(leader(2)), [], "twice as long");
    assert_eq!(
        test.hear(first[0].0, refused(SessionError::Gap)),
        [],
        "a refusal of an older copy says nothing"
    );
    assert_eq!(test.send(leader(2)), []);
    assert_eq!(second.len(), 1);

    test.take(0, 2);
    let third = test.numbered(leader(2));
    test.now += 600;
    let again = test.numbered(leader(2));
    assert_eq!(test.hear(third[0].0, answer("two")), [(2, answer("two"))]);
    assert_eq!(test.hear(again[1].0, answer("other")), [], "it has its answer");
    assert_eq!(test.hear(second[0].0, answer("one")), [(1, answer("one"))]);
    assert_eq!(test.courier.pending(), 0);
}

#[test]
fn what_is_refused_goes_again_after_a_pause_that_grows() {
    let mut test = Test::open(7, 2);
    test.take(0, 1);
    test.take(0, 2);
    let mut sent = test.numbered(leader(2));
    assert_eq!(sent.len(), 2);
    test.hear(sent[1].0, refused(SessionError::Gap));
    let mut pauses = Vec::new();
    for _ in 0..8 {
        test.hear(sent[0].0, Err(WriteError::Busy(Busy::Disk)));
        let began = test.now;
        loop {
            sent = test.numbered(leader(2));
            if !sent.is_empty() {
                break;
            }
            test.now += 1;
        }
        pauses.push(test.now - began);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 32, 32]);
    assert_eq!(
        sent.iter().map(|(_, it)| it.2).collect::<Vec<_>>(),
        [1],
        "one at a time, until one is answered"
    );
    let sent = test.numbered(leader(3));
    assert_eq!(sent.len(), 1, "another leader is asked at once");
    test.hear(sent[0].0, answer("one"));
    assert_eq!(test.numbered(leader(3)).len(), 1);
}

/// A connection that is gone while its node leads on is no reason to send in every turn.
#[test]
fn nothing_goes_at_once_where_a_connection_has_just_ended() {
    let mut test = Test::open(7, 2);
    test.take(0, 1);
    for pause in [1, 2, 4] {
        assert_eq!(test.numbered(leader(2)).len(), 1);
        test.courier.on_disconnected(peer(2), test.now);
        test.now += pause - 1;
        assert_eq!(test.send(leader(2)), []);
        test.now += 1;
    }
}

#[test]
fn a_session_that_expired_leaves_in_doubt_what_may_have_been_done_and_nothing_else() {
    let mut test = Test::open(7, 2);
    test.take(0, 1);
    test.take(1, 2);
    test.numbered(leader(2));
    test.take(1, 3);
    let again = test.numbered(leader(3));
    assert_eq!(again.len(), 3);
    for (flight, _) in &again {
        test.hear(*flight, refused(SessionError::Expired));
    }
    let [(open, Proposal::Open(_))] = test.send(leader(3))[..] else { panic!() };
    let expired = Err(WriteError::Unknown(Cause::SessionExpired));
    assert_eq!(test.heard(), [(1, expired.clone()), (2, expired)], "they went twice");
    test.hear(open, Ok(Bytes::copy_from_slice(&9u64.to_le_bytes())));
    assert_eq!(test.numbered(leader(3))[0].1, (9, 1, 0, 0, Some(3)), "one copy of it was refused");
}

/// What waits for its answer is not sent again in another session while that answer may come.
#[test]
fn a_new_session_waits_for_the_answers_of_the_old_one() {
    let mut test = Test::open(7, 2);
    test.take(0, 1);
    test.take(1, 2);
    let sent = test.numbered(leader(2));
    test.hear(sent[0].0, refused(SessionError::Expired));
    assert_eq!(test.send(leader(2)), []);
    assert_eq!(test.hear(sent[1].0, answer("done")), [(2, answer("done"))]);
    assert!(matches!(test.send(leader(2))[..], [(_, Proposal::Open(_))]));
}

#[test]
fn a_session_that_was_not_heard_for_long_is_not_relied_on() {
    let mut test = Test::open(7, 2);
    test.now += LIFETIME / 10 / 2 + 2;
    test.take(0, 1);
    assert!(matches!(test.send(leader(2))[..], [(_, Proposal::Open(_))]));
}

/// A number that was given up is taken by nothing, so that those after it can be.
#[test]
fn what_cannot_be_done_leaves_no_gap() {
    let mut test = Test::open(7, 2);
    test.take(0, 1);
    test.take(0, 2);
    let sent = test.numbered(leader(2));
    let wrong = WriteError::Invalid("wrong".into());
    assert_eq!(test.hear(sent[0].0, Err(wrong.clone())), [(1, Err(wrong))]);
    let again = test.numbered(leader(2));
    assert_eq!(again.iter().map(|(_, it)| (it.2, it.4)).collect::<Vec<_>>(), [(1, None), (2, Some(2))]);
    assert_eq!(test.hear(again[0].0, answer("")), []);
    assert_eq!(test.hear(again[1].0, answer("two")), [(2, answer("two"))]);
}

#[test]
fn where_nobody_knows_sessions_all_is_given_back() {
    let mut test = Test { courier: Courier::new(LIFETIME, Broken::default()), newest: 0, now: 1 };
    test.take(3, 1);
    test.take(3, 2);
    // They may be met yet.
    let sent = test.send(leader(2));
    test.courier.on_answer(sent[0].0, refused(SessionError::Unsupported), test.now);
    assert_eq!((test.courier.heard().back.len(), test.courier.pending()), (0, 2));
    test.now += 100;
    let sent = test.send(leader(2));
    test.courier.on_answer(sent[0].0, refused(SessionError::Unsupported), test.now);
    let back = test.courier.heard().back;
    assert_eq!(back.iter().map(|(request, _)| request.0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(test.courier.pending(), 0);
}

/// A client outside of the cluster has no other way: a member that was not met yet may be met in time.
#[test]
fn where_there_is_no_other_way_it_is_waited_for_that_all_know_sessions() {
    let courier = Courier::new(LIFETIME, Broken::default()).only_way();
    let mut test = Test { courier, newest: 0, now: 1 };
    test.take(3, 1);
    for _ in 0..3 {
        let sent = test.send(leader(2));
        test.courier.on_answer(sent[0].0, refused(SessionError::Unsupported), test.now);
        assert_eq!((test.courier.heard().back.len(), test.courier.pending()), (0, 1));
        test.now += 100;
    }
    let sent = test.send(leader(2));
    assert_eq!(test.hear(sent[0].0, Ok(Bytes::copy_from_slice(&7u64.to_le_bytes()))), []);
    assert_eq!(test.numbered(leader(2)).len(), 1);
}
