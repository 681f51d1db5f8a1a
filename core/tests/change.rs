//! Changes of membership by joint consensus (§6; thesis, chapter 4; hazards MC).

mod common;
use common::*;
use coracle_core::*;

fn voters_of(c: &Cluster, id: u64) -> (Vec<u64>, Vec<u64>) {
    let membership = c.raft(id).membership();
    let list = |ids: Vec<&NodeId>| ids.into_iter().map(|id| id.0).collect();
    (list(membership.voters.iter().collect()), list(membership.outgoing.keys().collect()))
}

/// Three voters, of which A leads, and two blank nodes.
fn three_of_five() -> Cluster {
    let mut c = Cluster::build(Settings::default(), 1, &Cluster::voters(3), &["1", "1", "1", "-", "-"]);
    c.elect(A);
    c.pass(10);
    c
}

/// Time passes until the change that is under way is over.
fn settle(c: &mut Cluster, leader: u64) {
    let over = |c: &Cluster| {
        let raft = c.raft(leader);
        !raft.membership().is_joint() && raft.membership_id().index <= raft.commit()
    };
    assert!(c.pass_until(200, over).is_some(), "{}", c.describe());
}

#[test]
fn learners_come_and_are_made_voters_through_a_joint_membership() {
    let mut c = three_of_five();
    let ticket = c.change(A, membership(&[A, B, C], &[], &[D, E]));
    assert_eq!(voters_of(&c, A), (vec![A, B, C], vec![]), "learners need no joint membership");
    assert!(c.node(A).accepted.iter().any(|(of, _)| *of == ticket));
    settle(&mut c, A);
    c.pass(20);
    assert_eq!((c.role(D), c.commit(D)), (RoleName::Learner, c.commit(A)));
    c.change(A, membership(&[A, D, E], &[], &[]));
    assert_eq!(voters_of(&c, A), (vec![A, D, E], vec![A, B, C]));
    settle(&mut c, A);
    assert_eq!(voters_of(&c, A), (vec![A, D, E], vec![]));
    c.pass(20);
    assert_eq!((c.role(D), c.role(E)), (RoleName::Follower, RoleName::Follower));
    // Those that left know it, and are not dialed any more.
    assert_eq!((c.role(B), c.role(C)), (RoleName::Learner, RoleName::Learner));
    assert_eq!(c.raft(A).leaving(), []);
    c.crash(A);
    assert!(c.pass_until(300, |c| [D, E].iter().any(|id| c.role(*id) == RoleName::Leader)).is_some());
}

/// MC-1: without an entry of its own term committed, a leader changes nothing.
#[test]
fn mc_1_no_change_before_an_entry_of_the_own_term_is_committed() {
    let mut c = Cluster::of(4);
    c.elect_by(A, &[B, C]);
    c.pass(10);
    c.elect_by(B, &[C, D]);
    c.partition(&[&[A], &[B, C, D]]);
    assert_eq!(c.role(B), RoleName::Leader);
    let mut c = Cluster::of(3);
    c.sending = Sending::ByHand;
    c.elect(A);
    assert!(c.commit(A) < c.last(A), "its first entry is on its way");
    let ticket = c.change(A, membership(&[A, B], &[], &[]));
    assert_eq!(c.refused(A, ticket), Some(RefusedReason::NotYet));
}

/// S14b: one change at a time, and each names the membership that it changes.
#[test]
fn one_change_at_a_time_and_only_of_the_membership_that_the_caller_knows() {
    let mut c = three_of_five();
    let known = c.raft(A).membership_id();
    c.partition(&[&[A], &[B, C, D, E]]);
    c.change(A, membership(&[A, B, C], &[], &[D]));
    let ticket = c.change(A, membership(&[A, B, C], &[], &[E]));
    assert_eq!(c.refused(A, ticket), Some(RefusedReason::ChangeUnderWay));
    c.heal();
    settle(&mut c, A);
    let newest = c.raft(A).membership_id();
    let ticket = c.change_from(A, known, membership(&[A, B, C], &[], &[E]));
    assert_eq!(c.refused(A, ticket), Some(RefusedReason::NotCurrent(newest)));
    c.change(A, membership(&[A, B], &[], &[C, D]));
    assert_eq!(voters_of(&c, A), (vec![A, B], vec![A, B, C]));
    let ticket = c.change(A, membership(&[A], &[], &[]));
    assert_eq!(c.refused(A, ticket), Some(RefusedReason::ChangeUnderWay), "it is joint");
}

#[test]
fn what_makes_no_sense_is_refused_with_the_reason() {
    let mut c = three_of_five();
    let refused = |c: &mut Cluster, to: Membership| {
        let ticket = c.change(A, to);
        c.refused(A, ticket)
    };
    let bad = Some(RefusedReason::BadMembership);
    assert_eq!(refused(&mut c, membership(&[], &[], &[A])), bad, "nobody votes");
    assert_eq!(refused(&mut c, membership(&[A], &[B], &[])), bad, "joint");
    let many: Vec<u64> = (1..=10).collect();
    assert_eq!(refused(&mut c, membership(&many, &[], &[])), bad, "too many");
    let other = Membership { cluster: ClusterId(8), ..membership(&[A, B], &[], &[]) };
    assert_eq!(refused(&mut c, other), bad, "of another cluster");
    let mut own = membership(&[A, B, C], &[], &[]);
    own.members.get_mut(&NodeId(A)).unwrap().incarnation = Incarnation(9);
    assert_eq!(refused(&mut c, own), bad, "the leader under its own name");
    let late = Some(RefusedReason::NotCaughtUp(NodeId(D)));
    assert_eq!(refused(&mut c, membership(&[A, B, C, D], &[], &[])), late, "D is no member yet");
    let ticket = c.change(B, membership(&[A, B], &[], &[]));
    assert_eq!(c.refused(B, ticket), Some(RefusedReason::NotLeader(Some(NodeId(A)))));
    // Of A and B alone no majority would answer.
    c.crash(B);
    c.pass(70);
    assert_eq!(refused(&mut c, membership(&[A, B], &[], &[])), Some(RefusedReason::NoQuorum));
    assert_eq!(refused(&mut c, membership(&[A, C], &[], &[])), None);
}

/// MC-6: the joint membership is in force for its own entry.
#[test]
fn mc_6_one_voter_that_becomes_three_needs_the_new_majority_too() {
    let members = [(1, membership(&[A], &[], &[B, C]))];
    let mut c = Cluster::with_memberships(&members, &["1", "1", "1"]);
    c.elect(A);
    c.pass(10);
    c.isolate(A);
    c.change(A, membership(&[A, B, C], &[], &[]));
    let at = c.raft(A).membership_id().index.0;
    c.run();
    assert!(c.commit(A) < at, "alone it commits nothing any more");
    c.heal();
    settle(&mut c, A);
    assert_eq!(voters_of(&c, C), (vec![A, B, C], vec![]));
}

/// MC-12: the last entry of a change is appended by whoever leads when the joint one is committed.
#[test]
fn mc_12_a_change_is_finished_by_the_next_leader_and_no_other_begins_before() {
    let mut c = three_of_five();
    c.change(A, membership(&[A, B, C], &[], &[D, E]));
    settle(&mut c, A);
    c.pass(20);
    c.change(A, membership(&[B, D, E], &[], &[]));
    for to in [B, C, D, E] {
        c.deliver(A, to);
        c.persist(to);
    }
    c.crash(A);
    c.lose_all();
    let usual = std::mem::replace(&mut c.sending, Sending::ByHand);
    c.elect_by(B, &[C, D, E]);
    assert!(c.raft(B).membership().is_joint() && c.commit(B) < c.raft(B).membership_id().index.0);
    let ticket = c.change(B, membership(&[B, C], &[], &[D, E]));
    assert_eq!(c.refused(B, ticket), Some(RefusedReason::NotYet), "what it inherited is not committed");
    c.sending = usual;
    [C, D, E].iter().for_each(|to| c.sent(B, *to, 10));
    settle(&mut c, B);
    let now = c.leader().unwrap_or(B);
    assert_eq!(voters_of(&c, now), (vec![B, D, E], vec![]));
    c.pass(20);
    let now = c.leader().unwrap();
    let ticket = c.change(now, membership(&[B, D, E], &[], &[C]));
    assert_eq!(c.refused(now, ticket), None, "it is over");
}

/// A leader that is not to vote leads to the end of the change, does not count itself, and leaves.
#[test]
fn a_leader_outside_the_new_voters_leads_until_the_change_is_committed_and_then_leaves() {
    let mut c = three_of_five();
    c.partition(&[&[A, B], &[C, D, E]]);
    c.change(A, membership(&[B, C], &[], &[]));
    c.pass(20);
    assert_eq!(voters_of(&c, A), (vec![B, C], vec![A, B, C]));
    assert!(c.commit(A) < c.raft(A).membership_id().index.0, "A counts in the old majority only");
    c.heal();
    let left = c.pass_until(100, |c| c.role(A) == RoleName::Learner);
    assert!(left.is_some(), "{}", c.describe());
    assert!(c.pass_until(300, |c| c.leader().is_some_and(|leader| leader != A)).is_some());
    c.pass(100 * 60);
    assert_eq!(c.role(A), RoleName::Learner, "S14f: it campaigns no more");
}

/// MC-8: two voters, of which the leader is removed, and what would make the other one the only voter is lost on its way: the
/// leader stays until that has arrived, or nobody could ever lead again.
#[test]
fn mc_8_a_removed_leader_stays_until_its_successor_can_commit() {
    let members = [(1, membership(&[A, B], &[], &[]))];
    let mut c = Cluster::with_memberships(&members, &["1", "1"]);
    c.elect(A);
    c.pass(10);
    c.change(A, membership(&[B], &[], &[]));
    c.persist(A);
    c.deliver(A, B);
    c.persist(B);
    c.deliver(B, A);
    assert_eq!(voters_of(&c, A), (vec![B], vec![]), "the last entry is on its way");
    let last = c.last(A);
    c.lose_all();
    c.isolate(B);
    c.pass(20);
    assert_eq!((c.role(A), c.last(B)), (RoleName::Leader, last - 1));
    assert!(c.commit(A) < last, "A does not count itself");
    c.heal();
    assert!(c.pass_until(400, |c| c.leader() == Some(B) && c.commit(B) > last).is_some(), "{}", c.describe());
    assert_eq!(c.role(A), RoleName::Learner);
}

/// D5.1.16: two voters, of which the leader is removed; it loses office between the append of the last entry and its
/// commit, and B has not got that entry. Without A nobody could ever lead again.
#[test]
fn mc_9_a_voter_that_leaves_campaigns_until_it_knows_that_it_has_left() {
    let members = [
        (1, membership(&[A, B], &[], &[])),
        (2, membership(&[B], &[A, B], &[])),
        (3, membership(&[B], &[], &[])),
    ];
    let mut c = Cluster::with_memberships(&members, &["1 1 1", "1 1"]);
    assert_eq!(voters_of(&c, A), (vec![B], vec![]));
    assert!(
        c.pass_until(400, |c| c.role(B) == RoleName::Leader || c.commit(B) >= 3).is_some(),
        "{}",
        c.describe()
    );
    // B alone could not: it needs A's vote in the joint membership, and its log is the shorter one.
    assert_eq!(c.log(B).split(' ').take(3).collect::<Vec<_>>(), ["1", "1", "1"]);
    assert!(c.pass_until(400, |c| c.leader() == Some(B)).is_some(), "{}", c.describe());
    assert_eq!(c.role(A), RoleName::Learner);
}

/// D5.1.16: A was asked to let D vote too, and that is not committed. C led after it, its entry reached D alone, and C is
/// gone for good. A needs three of A, B, C and D, and D's log is newer; B's log is older than both; and D does not vote by
/// any membership that it knows. So D has to lead, by the votes of A and B, for as long as it takes.
#[test]
fn mc_9_a_learner_without_whose_vote_nobody_can_be_elected_campaigns_itself() {
    let members = [(1, membership(&[A, B, C], &[], &[D])), (3, membership(&[A, B, C, D], &[A, B, C], &[]))];
    let mut c = Cluster::with_memberships(&members, &["1 1 1", "1", "1 2", "1 2"]);
    c.crash(C);
    assert!(c.pass_until(600, |c| c.leader() == Some(D)).is_some(), "{}", c.describe());
    assert!(c.pass_until(600, |c| matches!(c.leader(), Some(A | B))).is_some(), "{}", c.describe());
    c.pass(20);
    assert_eq!(c.role(D), RoleName::Learner, "it leads no longer than it has to");
    assert!(c.commit(A) >= 3 && c.log(A) == c.log(D), "{}", c.describe());
}

/// S14f: the same learner leads, can hand over to nobody, and is asked to remove itself. It has decided what it was elected
/// for and leaves: with an entry of its own that removes it, it would lead on and campaign as no member at all.
#[test]
fn mc_9_a_learner_that_leads_takes_no_change() {
    let members = [(1, membership(&[A, B, C], &[], &[D])), (3, membership(&[A, B, C, D], &[A, B, C], &[]))];
    let mut c = Cluster::with_memberships(&members, &["1 1 1", "1", "1 2", "1 2"]);
    c.crash(C);
    let led = |c: &Cluster| c.role(D) == RoleName::Leader && c.commit(D) == c.last(D);
    assert!(c.pass_until(600, led).is_some(), "{}", c.describe());
    c.lose_all();
    c.isolate(D);
    let ticket = c.change(D, membership(&[A, B, C], &[], &[]));
    assert_eq!(c.refused(D, ticket), Some(RefusedReason::NotLeader(None)));
    assert!(c.pass_until(60, |c| c.role(D) == RoleName::Learner).is_some(), "{}", c.describe());
}

/// D5.1.16: who loses its vote gets the last entry only when that is committed.
#[test]
fn who_loses_its_vote_hears_of_it_when_it_is_committed() {
    let mut c = three_of_five();
    c.change(A, membership(&[A, B], &[], &[C]));
    // The joint entry is committed by all, and the last one goes to B alone.
    c.run();
    let last = c.raft(A).membership_id().index.0;
    assert_eq!(voters_of(&c, A), (vec![A, B], vec![]));
    c.pass(20);
    assert!(c.commit(A) >= last && c.last(C) >= last);
    let mut c = three_of_five();
    c.change(A, membership(&[A, B], &[], &[C]));
    c.persist(A);
    for id in [B, C] {
        c.deliver(A, id);
        c.persist(id);
        c.deliver(id, A);
    }
    let joint = c.commit(A);
    assert_eq!(
        (voters_of(&c, A), c.last(A)),
        ((vec![A, B], vec![]), joint + 1),
        "the joint one is committed"
    );
    c.isolate(B);
    c.pass(20);
    assert_eq!(c.last(C), joint, "C still votes");
    assert!(c.commit(A) < c.last(A));
    c.heal();
    c.pass(20);
    assert_eq!((c.last(C), c.role(C)), (c.last(A), RoleName::Learner));
}

/// S14f, EL-13: nothing makes a learner campaign.
#[test]
fn el_13_a_learner_never_campaigns() {
    let mut c = three_of_five();
    c.change(A, membership(&[A, B, C], &[], &[D]));
    settle(&mut c, A);
    c.pass(10);
    c.crash(A);
    c.crash(B);
    for _ in 0..5 {
        c.campaign(D);
        c.step(D, Input::LeaderDown(NodeId(A)));
        c.pass(100);
        assert_eq!(c.role(D), RoleName::Learner);
    }
}

/// A trap: progress that is made at the election alone leaves a new voter without one, so that its leader believes to
/// have lost the quorum, and a voter who comes back is sent the log from where the leader knows it.
#[test]
fn progress_comes_and_goes_with_the_newest_membership() {
    let mut c = three_of_five();
    c.change(A, membership(&[A, B, C], &[], &[D, E]));
    settle(&mut c, A);
    c.pass(20);
    c.change(A, membership(&[A, D, E], &[], &[]));
    settle(&mut c, A);
    c.pass(100 * 60);
    assert_eq!(c.role(A), RoleName::Leader);
    assert_eq!(c.raft(A).status().peers.len(), 2);
    c.change(A, membership(&[A, D, E], &[], &[B]));
    settle(&mut c, A);
    c.propose(A, 3);
    c.pass(20);
    assert_eq!((c.role(B), c.last(B)), (RoleName::Learner, c.last(A)));
}

/// A leader that has just taken office has heard nothing yet of a voter that is dead. It must not take a change that needs
/// that voter: it could neither commit it nor take it back.
#[test]
fn a_new_leader_takes_no_change_before_those_it_needs_have_answered() {
    let mut c = Cluster::of(3);
    c.crash(C);
    c.elect(A);
    let refused = |c: &mut Cluster, to: Membership| {
        let ticket = c.change(A, to);
        c.refused(A, ticket)
    };
    assert_eq!(refused(&mut c, membership(&[A, C], &[], &[])), Some(RefusedReason::NotYet));
    c.pass(70);
    assert_eq!(refused(&mut c, membership(&[A, C], &[], &[])), Some(RefusedReason::NoQuorum));
    assert_eq!(refused(&mut c, membership(&[A, B], &[], &[])), None);
}
