//! Linearizable reads without a log entry (thesis, section 6.4). The box knows what was committed anywhere when a read
//! was asked for, and holds every grant against that (S19); here are the ways in which others got it wrong (hazards RD),
//! and the promise that every read is answered (L4).

mod common;
use common::*;
use coracle_core::*;

fn is_heartbeat(message: &Message) -> bool {
    matches!(message, Message::AppendEntries(append) if append.count() == 0)
}

fn rounds(messages: &[Message]) -> Vec<u64> {
    messages
        .iter()
        .filter_map(|message| match message {
            Message::AppendEntries(append) => Some(append.round.0),
            _ => None,
        })
        .collect()
}

/// A leader with followers that have nothing left to say.
fn quiet(size: u64) -> Cluster {
    let mut c = Cluster::of(size);
    c.elect(A);
    c.pass(10);
    assert!(c.is_silent());
    c
}

/// RD-1: the new leader does not know yet what the old one committed.
#[test]
fn rd_1_a_new_leader_answers_no_read_before_it_commits_in_its_own_term() {
    let mut c = quiet(3);
    c.propose(A, 3);
    c.deliver(A, B);
    c.persist(B);
    c.persist(A);
    c.deliver(B, A);
    c.lose_all();
    assert_eq!((c.commit(A), c.commit(B)), (5, 2));
    c.crash(A);
    c.sending = Sending::ByHand;
    c.elect(B);
    let read = c.read(B);
    c.pass(20);
    assert_eq!((c.granted(B, read), c.commit(B)), (None, 2), "whatever the followers echo");
    c.sent(B, C, 100);
    c.run();
    c.sent(B, C, 100);
    c.run();
    c.pass(10);
    assert_eq!(c.granted(B, read), Some(6), "with the entry that tells");
}

/// RD-2: cut off, a leader cannot tell whether it still leads.
#[test]
fn rd_2_a_deposed_leader_grants_nothing() {
    let mut c = quiet(3);
    c.isolate(A);
    let early = c.read(A);
    c.silence(60);
    c.campaign(B);
    c.run();
    c.propose(B, 1);
    c.run();
    assert_eq!(c.role(A), RoleName::Leader, "so it thinks");
    let late = c.read(A);
    c.tick(A, 1);
    assert_eq!((c.granted(A, early), c.granted(A, late)), (None, None));
    for read in [early, late] {
        assert_eq!(c.refused(A, read), Some(RefusedReason::NotLeader(None)), "an answer, and no lie");
    }
}

/// RD-2: nor do words of the past make it sure.
#[test]
fn rd_2_echoes_of_earlier_rounds_confirm_nothing() {
    let mut c = quiet(3);
    c.tick(A, 5);
    c.deliver(A, B);
    c.deliver(A, C);
    let echoes = [c.take(B, A), c.take(C, A)];
    let read = c.read(A);
    c.lose_all();
    for echo in echoes {
        c.hand(echo.clone());
        c.hand(echo);
    }
    assert_eq!(c.granted(A, read), None, "they speak of a round before the read");
}

/// RD-7 and L4: wherever a read is asked, and whatever happens, somebody answers.
#[test]
fn rd_7_a_read_without_a_leader_is_refused_at_once() {
    let mut c = Cluster::with_logs(&["1", "1", "1", "-"]);
    let follower = c.read(A);
    assert_eq!(c.refused(A, follower), Some(RefusedReason::NotLeader(None)));
    c.campaign(B);
    let candidate = c.read(B);
    assert_eq!(c.refused(B, candidate), Some(RefusedReason::NotLeader(None)));
    let blank = c.read(D);
    assert_eq!(c.refused(D, blank), Some(RefusedReason::NotConfigured));
}

/// RD-7: a leader that cannot commit in its term gives up, and then its readers know.
#[test]
fn rd_7_a_young_leader_that_never_commits_answers_in_the_end() {
    let mut c = Cluster::of(3);
    c.sending = Sending::ByHand;
    c.elect(A);
    let reads: Vec<Ticket> = (0..10).map(|_| c.read(A)).collect();
    let far: Vec<Ticket> = (0..10).map(|_| c.read(B)).collect();
    c.run();
    assert_eq!(c.unanswered_reads(), 20);
    c.isolate(A);
    c.pass(61);
    assert!(reads.iter().all(|read| c.refused(A, *read).is_some()));
    c.pass(60);
    assert!(far.iter().all(|read| c.refused(B, *read).is_some()));
}

/// CS-6: a thousand callers, and the leader steps down: a thousand answers, at a leader and at a follower.
#[test]
fn cs_6_nobody_waits_for_a_leader_that_stepped_down() {
    let mut c = quiet(3);
    c.isolate(A);
    for _ in 0..500 {
        c.read(A);
        c.read(B);
    }
    c.tick(A, 3);
    for _ in 0..500 {
        c.read(A);
        c.read(B);
    }
    assert_eq!(c.unanswered_reads(), 2000);
    c.pass(61);
    assert_eq!(c.unanswered_reads(), 0);
    assert_eq!((c.node(A).refused.len(), c.node(B).refused.len()), (1000, 1000));
    // The same where the end comes from outside.
    let mut c = quiet(3);
    c.isolate(A);
    for _ in 0..1000 {
        c.read(A);
    }
    c.heal();
    c.silence(60);
    let vote =
        RequestVote { campaign: Term(9), pre: false, question: 0, last: LogId::new(9, 9), handed_over: None };
    c.say(C, A, Message::RequestVote(vote));
    assert_eq!(c.node(A).refused.len(), 1000);
}

/// Defect C4 of the seeds: one echo is not a quorum.
#[test]
fn c_4_a_read_needs_a_quorum_of_echoes() {
    let mut c = quiet(5);
    let read = c.read(A);
    for (follower, granted) in [(B, None), (C, Some(2))] {
        c.deliver(A, follower);
        c.deliver(follower, A);
        assert_eq!(c.granted(A, read), granted);
    }
}

/// The same voice twice is one voice.
#[test]
fn c_4_an_echo_repeated_is_one_echo() {
    let mut c = quiet(5);
    let read = c.read(A);
    c.deliver(A, B);
    let echo = c.take(B, A);
    for _ in 0..4 {
        c.hand(echo.clone());
    }
    assert_eq!(c.granted(A, read), None);
}

/// CM-7: of two nodes both must echo, and a learner never counts.
#[test]
fn cm_7_reads_need_the_voters_not_the_learners() {
    let members = membership(&[A, B], &[], &[C, D, E]);
    let mut c = Cluster::with_memberships(&[(1, members)], &["1"; 5]);
    c.elect(A);
    c.pass(10);
    let read = c.read(A);
    for learner in [C, D, E] {
        c.deliver(A, learner);
        c.deliver(learner, A);
    }
    assert_eq!(c.granted(A, read), None);
    c.deliver(A, B);
    c.deliver(B, A);
    assert_eq!(c.granted(A, read), Some(2));
}

/// D5.4.1: a read must not join a round that has left already, for its echoes may be older than the read.
#[test]
fn a_read_joins_only_a_round_that_has_not_left() {
    let mut c = quiet(3);
    let first = c.read(A);
    let left = rounds(&c.mail(A, B));
    assert_eq!(left.len(), 1, "the first read has a round of its own, at once");
    c.deliver(A, B);
    c.propose(A, 1);
    let second = c.read(A);
    let heartbeats = c.mail(A, C).into_iter().filter(is_heartbeat).count();
    assert_eq!(heartbeats, 1, "the second waits: no round leaves while one is under way");
    c.deliver(B, A);
    assert_eq!((c.granted(A, first), c.granted(A, second)), (Some(2), None));
    assert_eq!(rounds(&c.mail(A, B)).pop(), Some(left[0] + 1), "now its round leaves");
    c.deliver(A, B);
    c.deliver(B, A);
    assert!(c.granted(A, second).is_some());
}

/// Many reads share a round.
#[test]
fn reads_that_wait_for_a_round_leave_together() {
    let mut c = quiet(3);
    c.read(A);
    let reads: Vec<Ticket> = (0..100).map(|_| c.read(A)).collect();
    let before = rounds(&c.mail(A, B)).pop().unwrap();
    c.run();
    assert!(reads.iter().all(|read| c.granted(A, *read) == Some(2)));
    c.pass(5);
    c.read(A);
    assert!(rounds(&c.mail(A, B)).pop().unwrap() <= before + 4, "two rounds for a hundred reads");
}

/// A lost round is replaced after a heartbeat, and a later round confirms the earlier ones.
#[test]
fn a_lost_round_costs_a_heartbeat() {
    let mut c = quiet(3);
    let first = c.read(A);
    c.lose_all();
    let second = c.read(A);
    assert!(c.mail(A, B).is_empty());
    c.tick(A, 5);
    c.deliver(A, B);
    c.deliver(B, A);
    assert_eq!((c.granted(A, first), c.granted(A, second)), (Some(2), Some(2)));
}

/// RS-3's beginning: alone, a leader is its own quorum.
#[test]
fn alone_a_leader_grants_at_once() {
    let mut c = quiet(1);
    let read = c.read(A);
    assert_eq!(c.granted(A, read), Some(2));
    c.crash(A);
    c.restart(A);
    c.tick(A, 60);
    c.persist(A);
    let read = c.read(A);
    assert_eq!(c.granted(A, read), Some(3), "after a restart too, with no new write");
}

/// The commit index counts, not what this node's own disk holds.
#[test]
fn a_read_is_granted_at_the_true_commit_index() {
    let mut c = quiet(3);
    c.propose(A, 1);
    for id in [B, C] {
        c.deliver(A, id);
        c.persist(id);
        c.deliver(id, A);
    }
    assert_eq!((c.commit(A), c.raft(A).persisted().0), (3, 2));
    let read = c.read(A);
    c.deliver(A, B);
    c.deliver(B, A);
    assert_eq!(c.granted(A, read), Some(3));
}

/// A40: a follower asks its leader where to read, and answers from its own machine.
#[test]
fn a_follower_reads_at_an_index_of_its_leader() {
    let mut c = quiet(3);
    c.propose(A, 4);
    c.persist(A);
    c.deliver(A, C);
    c.persist(C);
    c.deliver(C, A);
    c.lose(A, B);
    assert_eq!((c.commit(A), c.commit(B)), (6, 2));
    let read = c.read(B);
    c.deliver(B, A);
    c.deliver(A, C);
    c.deliver(C, A);
    c.deliver(A, B);
    assert_eq!(c.granted(B, read), Some(6), "which it may have to wait for");
}

/// The answer to a follower's read brings the commit index, as far as the follower's log was verified in this
/// term: no read waits for a heartbeat. What was not verified stays uncommitted (S8).
#[test]
fn an_answer_to_a_followers_read_raises_its_commit_to_what_it_has_verified() {
    let mut c = quiet(3);
    c.propose(A, 2);
    c.persist(A);
    c.deliver(A, B);
    c.persist(B);
    c.deliver(B, A);
    c.lose(A, B);
    assert_eq!((c.commit(A), c.commit(B)), (4, 2), "nothing told it yet");
    let read = c.read(B);
    c.propose(A, 1);
    c.persist(A);
    c.lose(A, B);
    c.deliver(A, C);
    c.persist(C);
    c.deliver(C, A);
    assert_eq!(c.commit(A), 5);
    c.lose(A, B);
    c.deliver(B, A);
    c.deliver(A, C);
    c.deliver(C, A);
    let answer = c.take_first(A, B, |message| matches!(message, Message::ReadIndexReply(_)));
    c.hand(answer);
    assert_eq!(c.granted(B, read), Some(5));
    assert_eq!(c.commit(B), 4, "it does not have entry 5");
}

/// A question asked before the read was made does not answer it.
#[test]
fn a_follower_asks_anew_for_reads_that_came_after_its_question() {
    let mut c = quiet(3);
    let first = c.read(B);
    let late = c.read(B);
    assert_eq!(c.mail(B, A).len(), 1, "one question at a time");
    c.deliver(B, A);
    c.deliver(A, C);
    c.deliver(C, A);
    c.deliver(A, B);
    assert_eq!((c.granted(B, first), c.granted(B, late)), (Some(2), None));
    c.run();
    assert_eq!(c.granted(B, late), Some(2));
}

/// L4: lost questions and lost answers are asked again, and an answer that comes twice is taken once.
#[test]
fn a_followers_question_is_repeated_until_it_is_answered() {
    let mut c = quiet(3);
    let read = c.read(B);
    for round in 0..3 {
        assert_eq!(c.mail(B, A).len(), 1, "round {round}");
        c.lose_all();
        c.tick(B, 4);
        assert!(c.mail(B, A).is_empty(), "not before a heartbeat interval");
        c.tick(B, 1);
    }
    c.deliver(B, A);
    c.deliver(A, C);
    c.deliver(C, A);
    let answer = c.take_first(A, B, |message| matches!(message, Message::ReadIndexReply(_)));
    c.hand(answer.clone());
    assert_eq!(c.granted(B, read), Some(2));
    assert_eq!(c.hand(answer).dropped, Some(Dropped::Stale));
}

/// A follower's reads end with its leader: the next leader knows nothing of them.
#[test]
fn a_follower_refuses_its_reads_when_it_loses_its_leader() {
    let mut c = quiet(3);
    c.isolate(A);
    let read = c.read(B);
    c.step(B, Input::LeaderDown(NodeId(A)));
    assert_eq!(c.refused(B, read), Some(RefusedReason::NotLeader(None)));
    let mut c = quiet(3);
    let read = c.read(B);
    c.step(A, Input::Campaign);
    c.crash(A);
    c.restart(A);
    c.run();
    c.tick(B, 6);
    c.run();
    assert_eq!(c.refused(B, read), Some(RefusedReason::NotLeader(None)), "A does not lead any more");
}

/// An answer counts only for the very question, in the very boot, from the very leader.
#[test]
fn an_answer_to_another_question_is_dropped() {
    let mut c = quiet(3);
    let read = c.read(B);
    let Message::ReadIndex(ask) = c.mail(B, A).pop().unwrap() else { panic!("a question") };
    let good =
        ReadIndexReply { term: ask.term, boot: ask.boot, sequence: ask.sequence, index: Some(Index(2)) };
    let wrong = [
        (A, ReadIndexReply { boot: Boot(ask.boot.0 + 1), ..good }, Dropped::Unexpected),
        (A, ReadIndexReply { sequence: ask.sequence + 1, ..good }, Dropped::Stale),
        (A, ReadIndexReply { term: Term(1), ..good }, Dropped::Stale),
        (C, good, Dropped::Unexpected),
    ];
    for (from, reply, why) in wrong {
        let out = c.say(from, B, Message::ReadIndexReply(reply));
        assert_eq!((out.dropped, c.granted(B, read)), (Some(why), None));
    }
    c.say(A, B, Message::ReadIndexReply(good));
    assert_eq!(c.granted(B, read), Some(2));
}

/// S22: what peers ask is bounded: the newest question of each member, and none of strangers.
#[test]
fn questions_of_peers_do_not_pile_up() {
    let mut c = quiet(3);
    c.read(A);
    c.lose_all();
    for sequence in 1..=1000 {
        let ask = ReadIndex { term: Term(2), boot: Boot(5), sequence };
        c.say(B, A, Message::ReadIndex(ask));
    }
    let ask = Message::ReadIndex(ReadIndex { term: Term(2), boot: Boot(5), sequence: 1 });
    let stranger = Peer { id: NodeId(77), incarnation: Incarnation(1) };
    let membership = LogId::new(9, 9);
    let out = c.step(
        A,
        Input::Receive(
            Envelope { from: stranger, to: peer(A), membership, message: ask },
            Carried::default(),
        ),
    );
    assert_eq!(out.dropped, Some(Dropped::NotMember));
    c.tick(A, 5);
    c.deliver(A, C);
    c.deliver(C, A);
    let answers = c.mail(A, B).into_iter().filter(|message| matches!(message, Message::ReadIndexReply(_)));
    assert_eq!(answers.count(), 1);
}

/// A burst of reads costs work in proportion, not squared.
#[test]
fn a_hundred_thousand_reads_join_a_round_in_no_time() {
    let c = quiet(3);
    let mut leader = c.raft(A).clone();
    let now = Tick(c.node(A).clock);
    for ticket in 0..100_000 {
        let out = leader.step(now, Input::Read { ticket: Ticket(ticket) });
        assert!(out.reads.is_empty() && out.refused.is_empty());
    }
    let end = leader.step(now.after(100), Input::Tick);
    assert_eq!(end.refused.len(), 100_000);
}

/// A leader that cannot commit keeps reads for as long as somebody waits for them, and no longer.
#[test]
fn a_leader_forgets_reads_that_nobody_waits_for() {
    let mut c = quiet(3);
    let (gone, stays) = (c.read(A), c.read(A));
    c.lose_all();
    c.step(A, Input::Forget([gone].into()));
    c.pass(10);
    assert_eq!((c.granted(A, gone), c.granted(A, stays).is_some()), (None, true));
}

/// Nobody waits for the answer: the question is not asked again.
#[test]
fn a_follower_forgets_reads_that_nobody_waits_for_and_their_question() {
    let mut c = quiet(3);
    let read = c.read(B);
    c.lose_all();
    c.step(B, Input::Forget([read].into()));
    c.tick(B, 10);
    assert!(c.mail(B, A).is_empty());
    let next = c.read(B);
    c.run();
    assert_eq!((c.granted(B, read), c.granted(B, next)), (None, Some(2)));
}
