//! Leases (thesis, section 6.4.1; D5.4.3): who promises what, for how long, and for how long a leader counts on it. The box
//! holds every grant against what was committed anywhere when the read was asked for (S19).

mod common;
use common::*;
use coracle_core::*;

/// A lease as long as the longest election timeout, so that it is the promise alone that holds its followers back.
fn leased() -> Settings {
    Settings { lease: 60, clock_drift: 100, ..Settings::default() }
}

/// A leader that holds a lease: A.
fn led(size: u64) -> Cluster {
    let mut c = Cluster::with_settings(size, leased());
    c.elect(A);
    c.pass(10);
    assert!(c.is_silent() && c.raft(A).status().lease > 40, "{}", c.describe());
    c
}

/// How much of its lease is left to A.
fn left(c: &Cluster) -> u64 {
    c.raft(A).lease_left_at(Tick(c.node(A).clock))
}

fn promised(c: &Cluster, id: u64) -> u64 {
    c.node(id).disk.hard_state.promised
}

#[test]
fn a_leader_with_a_lease_answers_at_once_its_followers_too_and_asks_nobody() {
    let mut c = led(3);
    let read = c.read(A);
    assert_eq!(c.granted(A, read), Some(2));
    assert!(c.is_silent(), "no round has left");
    let read = c.read(B);
    c.deliver(B, A);
    assert!(c.mail(A, C).is_empty(), "nor for a follower's read");
    c.deliver(A, B);
    assert_eq!(c.granted(B, read), Some(2));
}

#[test]
fn without_the_setting_nothing_is_asked_for_and_nothing_promised() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.pass(10);
    assert_eq!((left(&c), promised(&c, B)), (0, 0));
    let read = c.read(A);
    assert_eq!(c.granted(A, read), None, "it asks the others first");
}

/// RD-1: what earlier leaders committed it does not know before an entry of its own term is committed.
#[test]
fn rd_1_there_is_no_lease_before_an_entry_of_the_own_term_is_committed() {
    let mut c = Cluster::with_settings(3, leased());
    c.sending = Sending::ByHand;
    c.elect(A);
    c.pass(10);
    assert!(c.raft(A).is_leader());
    assert_eq!(promised(&c, B), 60);
    assert_eq!((left(&c), c.commit(A)), (0, 0));
    c.sent(A, B, 100);
    c.run();
    assert!(left(&c) > 0 && c.commit(A) == 2);
}

/// RD-3: the leader counts from when the round left, by its own clock, less what that may be slower.
#[test]
fn rd_3_a_lease_counts_from_the_sending_of_the_round_that_was_answered_less_drift_and_two_ticks() {
    let mut c = led(3);
    c.silence(10);
    // A round leaves, and is answered twenty ticks later.
    c.tick(A, 1);
    c.silence(20);
    c.run();
    assert_eq!(left(&c), 60 * 9 / 10 - 2 - 20);
    let read = c.read(A);
    assert!(c.granted(A, read).is_some());
    // Cut off, it asks from when that is over on.
    c.isolate(A);
    c.silence(31);
    let read = c.read(A);
    assert!(c.granted(A, read).is_some(), "one tick before");
    c.silence(1);
    let read = c.read(A);
    assert_eq!((left(&c), c.granted(A, read)), (0, None));
}

/// RD-3: for so long its followers depose nobody, whatever they believe of it.
#[test]
fn rd_3_who_has_promised_neither_campaigns_nor_votes_until_that_is_over() {
    let mut c = led(3);
    c.isolate(A);
    let term = c.term(B);
    for id in [B, C] {
        c.step(id, Input::LeaderDown(NodeId(A)));
        c.campaign(id);
    }
    c.pass(40);
    assert_eq!((c.role(B), c.role(C), c.term(B)), (RoleName::Follower, RoleName::Follower, term));
    // Nor for a candidate of a later term, whose term it does not even take over.
    let vote =
        RequestVote { campaign: Term(9), pre: false, question: 1, last: LogId::new(8, 9), handed_over: None };
    c.say(C, B, Message::RequestVote(vote));
    assert_eq!((c.term(B), c.vote(B)), (term, Some(A)));
    let took = c.pass_until(120, |c| c.leader().is_some_and(|id| id != A)).expect("and then they elect one");
    assert!(took > 0 && left(&c) == 0);
}

#[test]
fn a_promise_is_durable_before_it_is_given_and_a_start_is_bound_by_the_longest() {
    let mut c = Cluster::with_settings(3, leased());
    c.elect(A);
    c.crash(B);
    c.restart(B);
    c.pass(10);
    assert_eq!((promised(&c, B), promised(&c, C)), (60, 60));
    c.lose_all();
    c.isolate(A);
    for id in [B, C] {
        c.crash(id);
        c.restart(id);
    }
    c.campaign(B);
    assert_eq!(c.role(B), RoleName::Follower, "it may have promised it a moment ago");
    c.silence(60);
    c.campaign(B);
    assert_eq!(c.role(B), RoleName::PreCandidate);
}

/// RD-4: who was told to take over is elected within the lease, so there is none from then on.
#[test]
fn rd_4_a_leader_that_hands_over_reads_no_more_by_its_lease_in_its_term() {
    let mut c = led(3);
    let before = c.term(A);
    assert!(left(&c) > 40);
    c.transfer(A, Some(B));
    c.apply_all();
    let told = |message: &Message| matches!(message, Message::TimeoutNow(_));
    assert!(c.work_until(20, |c| c.mail(A, B).iter().any(told) || c.term(B) > before).is_some());
    assert_eq!(left(&c), 0, "the order has left");
    c.isolate(A);
    let read = c.read(A);
    assert_eq!(c.granted(A, read), None);
}

/// But for whom that leader gave way: its voters need not wait.
#[test]
fn who_takes_over_is_elected_within_the_promise_to_its_leader() {
    let mut c = led(3);
    c.transfer(A, Some(B));
    let took = c.work_until(20, |c| c.leader_of(C) == Some(B));
    assert!(took.is_some(), "{}", c.describe());
}
