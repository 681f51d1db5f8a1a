//! Leadership transfer (thesis, section 3.10; hazards LT).

mod common;
use common::*;
use coracle_core::*;

/// All that are up are followers of A, which has had everything committed and applied everywhere.
fn quiet(size: u64) -> Cluster {
    let mut c = Cluster::of(size);
    c.elect(A);
    assert!(c.work_until(20, |_| false).is_none());
    c
}

fn leads(id: u64) -> impl Fn(&Cluster) -> bool {
    move |c: &Cluster| c.is_up(id) && c.role(id) == RoleName::Leader
}

fn end_of(c: &Cluster, id: u64, ticket: Ticket) -> Option<TransferEnd> {
    c.nodes[&id].transfers.iter().find(|(of, _)| *of == ticket).map(|(_, end)| *end)
}

fn holds(c: &Cluster, id: u64) -> bool {
    c.raft(id).holds_proposals()
}

fn timeout_now(term: u64, last: LogId) -> Message {
    Message::TimeoutNow(TimeoutNow { term: Term(term), last })
}

#[test]
fn the_named_voter_leads_the_next_term_without_a_pre_vote() {
    let mut c = quiet(3);
    let term = c.term(A);
    let ticket = c.transfer(A, Some(C));
    assert_eq!(c.raft(A).transferring_to(), Some(NodeId(C)));
    let took = c.work_until(20, leads(C)).expect("C leads");
    assert!(took <= 2, "it took {took} ticks");
    assert_eq!(c.term(C), term + 1);
    assert_eq!(end_of(&c, A, ticket), Some(TransferEnd::Deposed { to: NodeId(C), asked: true }));
    c.work_until(20, |_| false);
    assert_eq!((c.role(A), c.role(B)), (RoleName::Follower, RoleName::Follower));
    c.assert_converged();
}

#[test]
fn without_a_name_the_voter_that_is_furthest_is_chosen() {
    let mut c = quiet(5);
    c.isolate(B);
    c.propose(A, 3);
    c.work_until(5, |_| false);
    c.heal();
    // E is not heard of for long, B lacks entries, and D's machine is behind C's.
    c.isolate(E);
    c.sending = Sending::ByHand;
    c.cut(A, B);
    c.work_until(40, |_| false);
    c.transfer(A, None);
    let to = c.raft(A).transferring_to().unwrap();
    assert!([C, D].contains(&to.0), "{to}");
}

#[test]
fn who_cannot_lead_is_refused_at_once_with_the_reason() {
    let members = [(1, membership(&[A, B], &[], &[C]))];
    let mut c = Cluster::with_memberships(&members, &["1", "1", "1"]);
    c.elect(A);
    c.work_until(10, |_| false);
    for id in [A, C, 9] {
        let ticket = c.transfer(A, Some(id));
        assert_eq!(c.refused(A, ticket), Some(RefusedReason::NotVoter(NodeId(id))));
    }
    let ticket = c.transfer(B, None);
    assert_eq!(c.refused(B, ticket), Some(RefusedReason::NotLeader(Some(NodeId(A)))));
    c.isolate(B);
    c.pass(35);
    let ticket = c.transfer(A, None);
    assert_eq!(c.refused(A, ticket), Some(RefusedReason::NoTarget));
    let mut alone = quiet(1);
    let ticket = alone.transfer(A, None);
    assert_eq!(alone.refused(A, ticket), Some(RefusedReason::NoTarget));
    let mut blank = Cluster::build(Settings::default(), 1, &[], &["-"]);
    let ticket = blank.transfer(A, None);
    assert_eq!(blank.refused(A, ticket), Some(RefusedReason::NotConfigured));
}

/// A member of an older version would never obey: it is refused by name, and nobody chooses it, however far it is.
#[test]
fn who_knows_no_transfers_is_never_told_to_lead() {
    let mut c = quiet(3);
    c.step(A, Input::KnowNoTransfers([peer(C)].into()));
    c.cut(A, B);
    c.propose(A, 1);
    c.work_until(5, |_| false);
    let ticket = c.transfer(A, Some(C));
    assert_eq!(c.refused(A, ticket), Some(RefusedReason::KnowsNoTransfers(NodeId(C))));
    c.transfer(A, None);
    assert_eq!(c.raft(A).transferring_to(), Some(NodeId(B)), "it lacks an entry, and C lacks none");
    let mut c = quiet(3);
    c.step(A, Input::KnowNoTransfers([peer(B), peer(C)].into()));
    let ticket = c.transfer(A, None);
    assert_eq!(c.refused(A, ticket), Some(RefusedReason::NoTarget));
    // They were upgraded.
    c.step(A, Input::KnowNoTransfers([].into()));
    c.transfer(A, Some(C));
    assert!(c.work_until(20, leads(C)).is_some());
}

#[test]
fn one_transfer_at_a_time() {
    let mut c = quiet(3);
    c.lose_all();
    c.cut(A, B);
    c.transfer(A, Some(B));
    let ticket = c.transfer(A, Some(C));
    assert_eq!(c.refused(A, ticket), Some(RefusedReason::HandingOver(NodeId(B))));
}

/// LT-1: the target gets everything first, on its disk, and only then is told to campaign.
#[test]
fn lt_1_a_target_that_lacks_an_entry_or_has_not_flushed_it_is_waited_for() {
    let mut c = quiet(3);
    c.propose(A, 1);
    c.deliver(A, C);
    c.persist(A);
    c.persist(C);
    c.deliver(C, A);
    // Committed by A and C; B has the entry in memory.
    c.deliver(A, B);
    c.apply_all();
    c.transfer(A, Some(B));
    let asked = |c: &mut Cluster| {
        let out = c.step(A, Input::Tick);
        out.send.iter().any(|envelope| matches!(envelope.message, Message::TimeoutNow(_)))
    };
    assert!(!asked(&mut c) && c.writes_under_way(B) > 0);
    // The other machine has not applied what was committed when the transfer began: commands are still taken.
    assert!(!holds(&c, A));
    assert!(c.work_until(20, leads(B)).is_some(), "{}", c.describe());
}

/// LT-1: whoever is asked to lead and lacks what it must hold stays what it is.
#[test]
fn lt_1_the_target_checks_what_is_on_its_own_disk() {
    let mut c = quiet(3);
    let (term, last) = (c.term(A), c.raft(B).last());
    c.propose(A, 1);
    let ahead = c.raft(A).last();
    c.say(A, B, timeout_now(term, ahead));
    assert_eq!(c.nodes[&B].dropped.last(), Some(&Dropped::Lagging), "it does not have it");
    c.deliver(A, B);
    c.say(A, B, timeout_now(term, ahead));
    assert_eq!((c.role(B), c.writes_under_way(B) > 0), (RoleName::Follower, true), "nor on its disk");
    let other = LogId { term: Term(term + 9), ..last };
    c.say(A, B, timeout_now(term + 9, other));
    assert_ne!(c.role(B), RoleName::Candidate, "nor that one");
    let mut c = quiet(3);
    c.say(A, B, timeout_now(term, last));
    assert_eq!(c.role(B), RoleName::Candidate);
}

#[test]
fn an_order_of_an_older_term_or_of_another_node_is_not_obeyed() {
    let mut c = quiet(3);
    let (term, last) = (c.term(A), c.raft(C).last());
    c.say(B, C, timeout_now(term, last));
    assert_eq!(c.nodes[&C].dropped.last(), Some(&Dropped::Unexpected), "B does not lead");
    c.elect(B);
    c.work_until(10, |_| false);
    c.say(A, C, timeout_now(term, last));
    assert_eq!((c.role(C), c.nodes[&C].dropped.last()), (RoleName::Follower, Some(&Dropped::Stale)));
    assert_eq!(c.leader(), Some(B));
}

/// EL-13: neither a learner nor a fenced node takes over, whoever says so.
#[test]
fn el_13_a_learner_and_a_fenced_node_do_not_take_over() {
    let members = [(1, membership(&[A, B], &[], &[C]))];
    let mut c = Cluster::with_memberships(&members, &["1", "1", "1"]);
    c.elect(A);
    c.work_until(10, |_| false);
    let (term, last) = (c.term(A), c.raft(C).last());
    c.say(A, C, timeout_now(term, last));
    assert_eq!((c.role(C), c.term(C)), (RoleName::Learner, term));
    c.step(B, Input::Fence);
    c.say(A, B, timeout_now(term, last));
    assert_eq!((c.role(B), c.term(B)), (RoleName::Follower, term));
    // Once its machine was rebuilt it does.
    c.step(B, Input::Mended);
    c.say(A, B, timeout_now(term, last));
    assert_ne!(c.role(B), RoleName::Follower);
}

/// A campaign that names the leader overrules stickiness; one that names another leader, or another term, does not.
#[test]
fn only_the_very_leader_that_a_voter_hears_can_give_way() {
    let ask = |by: u64, term: u64| {
        let mut c = quiet(3);
        let (now, last) = (c.term(A), c.raft(B).last());
        assert_eq!(now, 2);
        let handed_over = Some(HandedOver { by: peer(by), term: Term(term) });
        let vote = RequestVote { campaign: Term(now + 1), pre: false, question: 7, last, handed_over };
        c.say(B, C, Message::RequestVote(vote));
        c.persist(C);
        let at_c = c.term(C) > now;
        c.say(B, A, Message::RequestVote(vote));
        (at_c, c.term(A) > now)
    };
    assert_eq!(ask(A, 2), (true, true));
    assert_eq!(ask(B, 2), (false, false), "another leader");
    assert_eq!(ask(A, 1), (false, false), "in an earlier term");
}

#[test]
fn what_is_not_true_of_a_handed_over_campaign_is_dropped() {
    let mut c = quiet(3);
    let last = c.raft(B).last();
    for (pre, of) in [(true, 2), (false, 3), (false, 9)] {
        let handed_over = Some(HandedOver { by: peer(A), term: Term(of) });
        let vote = RequestVote { campaign: Term(3), pre, question: 7, last, handed_over };
        c.say(B, C, Message::RequestVote(vote));
        assert_eq!(c.nodes[&C].dropped.last(), Some(&Dropped::Malformed));
    }
}

/// LT-2: a target that dies is given up, and commands are taken again within an election timeout.
#[test]
fn lt_2_a_target_that_dies_holds_up_nobody_for_longer_than_an_election_timeout() {
    let mut c = quiet(3);
    let ticket = c.transfer(A, Some(B));
    c.crash(B);
    assert!(holds(&c, A));
    let refused = c.propose(A, 1);
    assert_eq!(c.refused(A, refused), Some(RefusedReason::HandingOver(NodeId(B))));
    let limit = c.settings.election_min;
    let free = |c: &Cluster| !holds(c, A);
    assert!(c.work_until(limit, free).is_some());
    assert!(matches!(end_of(&c, A, ticket), Some(TransferEnd::GivenUp { .. })));
    assert_eq!(c.raft(A).transferring_to(), None);
    c.propose(A, 1);
    c.run();
    assert_eq!((c.role(A), c.commit(A)), (RoleName::Leader, c.last(A)));
    // And it takes some before it holds them for another one.
    let soon = c.transfer(A, Some(C));
    assert_eq!(c.refused(A, soon), Some(RefusedReason::HandingOver(NodeId(B))));
    c.work_until(c.settings.heartbeat, |_| false);
    let again = c.transfer(A, Some(C));
    assert!(c.work_until(20, leads(C)).is_some());
    assert!(matches!(end_of(&c, A, again), Some(TransferEnd::Deposed { .. })));
}

/// LT-2: and at once, where it is certain that its process is gone.
#[test]
fn lt_2_a_target_whose_process_is_gone_is_given_up_at_once() {
    let mut c = quiet(3);
    let ticket = c.transfer(A, Some(B));
    c.step(A, Input::LeaderDown(NodeId(C)));
    assert!(holds(&c, A), "another one");
    c.step(A, Input::LeaderDown(NodeId(B)));
    let why = GivenUp::Silent;
    assert_eq!(end_of(&c, A, ticket), Some(TransferEnd::GivenUp { to: NodeId(B), why }));
    assert!(!holds(&c, A));
}

/// LT-2: nothing of a transfer is left when its leader is deposed in the middle of it and leads again.
#[test]
fn lt_2_a_leader_that_was_deposed_in_a_transfer_takes_commands_when_it_leads_again() {
    let mut c = quiet(3);
    c.isolate(B);
    let ticket = c.transfer(A, Some(B));
    assert!(holds(&c, A));
    let newer = ReadIndexReply { term: Term(9), boot: Boot(0), sequence: 0, index: None };
    c.say(C, A, Message::ReadIndexReply(newer));
    assert!(matches!(end_of(&c, A, ticket), Some(TransferEnd::Deposed { .. })));
    c.lose_all();
    c.heal();
    c.elect(A);
    assert!(!holds(&c, A) && c.raft(A).transferring_to().is_none());
    c.propose(A, 1);
    c.run();
    assert_eq!(c.commit(A), c.last(A));
}

/// TimeoutNow may be lost: it is said again.
#[test]
fn a_lost_order_is_said_again() {
    let mut c = quiet(3);
    c.transfer(A, Some(B));
    c.lose_all();
    let took = c.work_until(30, leads(B));
    assert!(took.is_some_and(|took| took <= c.settings.heartbeat + 2), "{took:?}");
}

/// A target that is far behind is brought up while commands are taken, and given up after an election timeout.
#[test]
fn commands_are_taken_while_the_target_catches_up() {
    let mut c = quiet(3);
    let settings = c.settings.clone();
    c.sending = Sending::ByHand;
    c.propose(A, 3);
    c.sent(A, C, 9);
    c.run();
    c.apply_all();
    assert_eq!(c.commit(A), c.last(A), "by A and C");
    let ticket = c.transfer(A, Some(B));
    let mut ticks = 0;
    while end_of(&c, A, ticket).is_none() {
        assert!(!holds(&c, A));
        c.apply_all();
        c.pass_one();
        ticks += 1;
    }
    let why = GivenUp::Lagging;
    assert_eq!(end_of(&c, A, ticket), Some(TransferEnd::GivenUp { to: NodeId(B), why }));
    assert!(ticks <= settings.election_max, "{ticks}");
    assert_eq!(c.role(A), RoleName::Leader);
}

#[test]
fn a_change_of_membership_waits_for_a_transfer_and_ends_one_to_whom_it_removes() {
    let mut c = quiet(3);
    c.isolate(B);
    c.transfer(A, Some(B));
    let ticket = c.change(A, membership(&[A, C], &[], &[]));
    assert_eq!(c.refused(A, ticket), Some(RefusedReason::HandingOver(NodeId(B))));
    let mut c = quiet(3);
    c.sending = Sending::ByHand;
    c.propose(A, 1);
    c.sent(A, C, 9);
    c.run();
    c.apply_all();
    // B lacks an entry, so that commands, and changes, are taken.
    let ticket = c.transfer(A, Some(B));
    c.change(A, membership(&[A, C], &[], &[]));
    c.step(A, Input::Tick);
    let why = GivenUp::NotVoter;
    assert_eq!(end_of(&c, A, ticket), Some(TransferEnd::GivenUp { to: NodeId(B), why }));
}

/// D5.1.16: a leader that has left hands over at the end of its change, so nobody waits for an election timeout.
#[test]
fn a_leader_that_was_removed_hands_over_when_its_change_is_over() {
    let mut c = quiet(3);
    c.change(A, membership(&[B, C], &[], &[]));
    let next = |c: &Cluster| [B, C].iter().any(|id| c.role(*id) == RoleName::Leader);
    let took = c.work_until(60, next).expect("a leader");
    assert!(took < c.settings.election_min / 2, "{took} ticks");
    assert!(c.work_until(200, |c| c.role(A) != RoleName::Leader).is_some());
}

/// D5.1.10: a leader whose disk hangs hands over, and steps down where nobody takes it.
#[test]
fn a_leader_whose_disk_hangs_hands_over_before_it_gives_up() {
    let mut c = quiet(3);
    c.propose(A, 1);
    let mut ticks = 0;
    while c.leader() == Some(A) || c.leader().is_none() {
        c.tick(A, 1);
        c.tick(B, 1);
        c.tick(C, 1);
        // Everything goes its way but for A's disk.
        for _ in 0..6 {
            for (from, to) in [(A, B), (A, C), (B, A), (C, A), (B, C), (C, B)] {
                c.deliver(from, to);
            }
            c.persist(B);
            c.persist(C);
            c.apply_all();
        }
        ticks += 1;
        assert!(ticks < 2 * c.settings.election_max, "{}", c.describe());
    }
    assert_ne!(c.leader(), Some(A));
    assert!(ticks > c.settings.election_max, "{ticks}");
}
