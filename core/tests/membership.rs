//! Who counts: quorums against a brute-force oracle, the first membership, and the memberships that come and go with
//! the log (hazard MC where the core has it, CM-7, §6).

mod common;
use common::*;
use coracle_core::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Quorums, drawn. Each line is a case:
///
/// ```text
/// voters [+ outgoing voters] | what each node has, `_` for nothing | what a quorum has
/// ```
///
/// Nodes that vote in neither set are learners or strangers, and whatever they have changes nothing.
const REACHED: &str = "
    1                   | 1:7                                     | 7
    1                   | 1:_                                     | 0
    1 2                 | 1:7 2:_                                 | 0
    1 2                 | 1:7 2:3                                 | 3
    1 2 3               | 1:7 2:_ 3:_                             | 0
    1 2 3               | 1:7 2:3 3:_                             | 3
    1 2 3               | 1:7 2:3 3:5                             | 5
    1 2 3               | 1:7 2:7 3:5                             | 7
    1 2 3               | 1:1 2:2 3:3 4:9 5:9 6:9                 | 2
    2 3                 | 1:9 2:4 3:6                             | 4
    1 2 3 4             | 1:1 2:2 3:3 4:4                         | 2
    1 2 3 4             | 1:_ 2:_ 3:3 4:4                         | 0
    1 2 3 4 5           | 1:1 2:2 3:3 4:4 5:5                     | 3
    1 2 3 4 5           | 1:_ 2:_ 3:3 4:4 5:5                     | 3
    1 2 3 4 5           | 1:_ 2:_ 3:_ 4:4 5:5                     | 0
    1 2 3 4 5 6         | 1:1 2:2 3:3 4:4 5:5 6:6                 | 3
    1 2 3 4 5 6 7       | 1:1 2:2 3:3 4:4 5:5 6:6 7:7             | 4
    1 2 3 + 1 2 3       | 1:7 2:3 3:5                             | 5
    1 + 2               | 1:9 2:4                                 | 4
    1 + 2               | 1:9 2:_                                 | 0
    1 2 3 + 1           | 1:2 2:9 3:9                             | 2
    1 2 3 + 4 5 6       | 1:9 2:9 3:9 4:1 5:2 6:3                 | 2
    1 2 3 + 3 4 5       | 1:9 2:8 3:7 4:_ 5:_                     | 0
    1 2 3 + 3 4 5       | 1:9 2:8 3:7 4:6 5:_                     | 6
    1 4 5 + 1 2 3       | 1:9 2:_ 3:_ 4:9 5:9                     | 0
    1 4 5 + 1 2 3       | 1:9 2:5 3:_ 4:_ 5:9                     | 5
";

/// Elections, drawn: `y` granted, `n` refused, `_` not answered.
const TALLY: &str = "
    1                   | 1:y                                     | won
    1                   | 1:n                                     | lost
    1                   | 1:_                                     | open
    1 2                 | 1:y 2:_                                 | open
    1 2                 | 1:y 2:n                                 | lost
    1 2                 | 1:y 2:y                                 | won
    1 2 3               | 1:y 2:_ 3:_                             | open
    1 2 3               | 1:y 2:n 3:_                             | open
    1 2 3               | 1:y 2:n 3:n                             | lost
    1 2 3               | 1:y 2:y 3:_                             | won
    1 2 3               | 1:y 2:_ 3:_ 4:y 5:y                     | open
    1 2 3               | 1:y 2:_ 3:_ 4:n 5:n                     | open
    1 2 3 4             | 1:y 2:y 3:_ 4:_                         | open
    1 2 3 4             | 1:y 2:y 3:n 4:n                         | lost
    1 2 3 4             | 1:y 2:y 3:n 4:_                         | open
    1 2 3 4             | 1:y 2:y 3:y 4:n                         | won
    1 2 3 4 5           | 1:y 2:y 3:n 4:n 5:_                     | open
    1 2 3 4 5           | 1:y 2:y 3:n 4:n 5:n                     | lost
    1 2 3 + 3 4 5       | 1:y 2:y 3:_ 4:_ 5:_                     | open
    1 2 3 + 3 4 5       | 1:y 2:y 3:y 4:y 5:_                     | won
    1 2 3 + 3 4 5       | 1:y 2:y 3:y 4:n 5:n                     | lost
    1 2 3 + 3 4 5       | 1:_ 2:_ 3:_ 4:n 5:n                     | lost
    1 + 2 3 4           | 1:y 2:y 3:n 4:_                         | open
";

fn numbers(text: &str) -> Vec<u64> {
    text.split_whitespace().map(|word| word.parse().expect("a node")).collect()
}

/// One drawn line: the membership, the value of each node, the expected result.
fn drawn(line: &str) -> (Membership, BTreeMap<NodeId, String>, String) {
    let [who, values, expected] =
        line.split('|').map(str::trim).collect::<Vec<_>>().try_into().expect("a case");
    let (voters, outgoing) = who.split_once('+').unwrap_or((who, ""));
    let values = values.split_whitespace().map(|pair| pair.split_once(':').expect("node:value"));
    let values = values.map(|(id, value)| (NodeId(id.parse().unwrap()), value.to_string()));
    (
        membership(&numbers(voters), &numbers(outgoing), &[1, 2, 3, 4, 5, 6, 7]),
        values.collect(),
        expected.to_string(),
    )
}

#[test]
fn cm_7_what_a_quorum_has_reached_drawn() {
    for line in REACHED.lines().filter(|line| !line.trim().is_empty()) {
        let (membership, values, expected) = drawn(line);
        let value = |peer: Peer| values.get(&peer.id).and_then(|value| value.parse().ok()).unwrap_or(0u64);
        assert_eq!(membership.reached(value).to_string(), expected, "{line}");
    }
}

#[test]
fn cm_7_how_an_election_stands_drawn() {
    for line in TALLY.lines().filter(|line| !line.trim().is_empty()) {
        let (membership, values, expected) = drawn(line);
        let vote = |peer: Peer| match values.get(&peer.id).map(String::as_str) {
            Some("y") => Some(true),
            Some("n") => Some(false),
            _ => None,
        };
        assert_eq!(format!("{:?}", membership.tally(vote)).to_lowercase(), expected, "{line}");
    }
}

/// The oracle: a quorum is any set of nodes with more than half of each set of voters. All sets are tried.
fn quorums(membership: &Membership) -> Vec<BTreeSet<NodeId>> {
    let all: Vec<NodeId> = membership.members.keys().copied().collect();
    let outgoing = membership.outgoing.keys().copied().collect();
    let sets = (0..1u32 << all.len()).map(|bits| {
        let chosen = all.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1);
        chosen.map(|(_, id)| *id).collect::<BTreeSet<_>>()
    });
    let enough = |set: &BTreeSet<NodeId>, voters: &BTreeSet<NodeId>| {
        voters.is_empty() || 2 * set.intersection(voters).count() > voters.len()
    };
    sets.filter(|set| enough(set, &membership.voters) && enough(set, &outgoing)).collect()
}

/// The largest value that all members of some quorum have reached.
fn reached_by_oracle(membership: &Membership, values: &BTreeMap<NodeId, u64>) -> u64 {
    let of_set = |set: &BTreeSet<NodeId>| set.iter().map(|id| values.get(id).copied().unwrap_or(0)).min();
    quorums(membership).iter().filter_map(of_set).max().unwrap_or(0)
}

/// Won if some quorum said yes; lost if, whatever the silent ones say, none can.
fn tally_by_oracle(membership: &Membership, votes: &BTreeMap<NodeId, bool>) -> Tally {
    let quorums = quorums(membership);
    let all_in = |fits: &dyn Fn(&NodeId) -> bool| quorums.iter().any(|set| set.iter().all(fits));
    if all_in(&|id| votes.get(id) == Some(&true)) {
        Tally::Won
    } else if !all_in(&|id| votes.get(id) != Some(&false)) {
        Tally::Lost
    } else {
        Tally::Open
    }
}

/// CM-7, all of it: every size from 1 to 7, every way to vote, with two learners and a leader that does not vote.
#[test]
fn cm_7_every_election_of_every_size_against_brute_force() {
    for size in 1..=7u64 {
        let voters: Vec<u64> = (1..=size).collect();
        for (outgoing, others) in [(vec![], vec![8, 9]), ((size / 2 + 1..=size + 1).collect(), vec![])] {
            let m = membership(&voters, &outgoing, &others);
            let all: Vec<NodeId> = m.members.keys().copied().take(8).collect();
            let cases = 3u32.pow(all.len() as u32);
            for case in 0..cases {
                let answer = |at: usize| case / 3u32.pow(at as u32) % 3;
                let votes: BTreeMap<NodeId, bool> = all
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| answer(*at) < 2)
                    .map(|(at, id)| (*id, answer(at) == 1))
                    .collect();
                // The oracle tries all sets, so of the big sizes it judges a part.
                if cases > 800 && case % 29 != 0 {
                    continue;
                }
                let tally = m.tally(|peer| votes.get(&peer.id).copied());
                assert_eq!(tally, tally_by_oracle(&m, &votes), "{voters:?} + {outgoing:?}: {votes:?}");
            }
        }
    }
}

fn node_set() -> impl Strategy<Value = Vec<u64>> {
    proptest::collection::btree_set(1..=7u64, 0..=7).prop_map(|set| set.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// A64 and CM-7: even and odd, joint and not, leader in or out, learners.
    #[test]
    fn cm_7_what_a_quorum_has_reached_against_brute_force(
        voters in node_set(),
        outgoing in node_set(),
        joint in any::<bool>(),
        values in proptest::collection::btree_map(1..=7u64, 0..6u64, 0..8),
    ) {
        prop_assume!(!voters.is_empty());
        let outgoing = if joint { outgoing } else { vec![] };
        let m = membership(&voters, &outgoing, &[1, 2, 3, 4, 5, 6, 7]);
        let values: BTreeMap<NodeId, u64> = values.into_iter().map(|(id, value)| (NodeId(id), value)).collect();
        let reached = m.reached(|peer| values.get(&peer.id).copied().unwrap_or(0));
        prop_assert_eq!(reached, reached_by_oracle(&m, &values));
        let votes: BTreeMap<NodeId, bool> = values.iter().map(|(id, value)| (*id, value % 2 == 0)).collect();
        prop_assert_eq!(m.tally(|peer| votes.get(&peer.id).copied()), tally_by_oracle(&m, &votes));
    }

    /// S14c: any two quorums of one membership share a node, and so do those of a joint one and of each of its halves.
    #[test]
    fn mc_7_quorums_that_can_meet_intersect(voters in node_set(), outgoing in node_set()) {
        prop_assume!(!voters.is_empty() && !outgoing.is_empty());
        let joint = membership(&voters, &outgoing, &[]);
        for half in [&voters, &outgoing] {
            let half = membership(half, &[], &[]);
            for of_joint in quorums(&joint) {
                for of_half in quorums(&half) {
                    prop_assert!(!of_joint.is_disjoint(&of_half));
                }
            }
        }
    }
}

/// Nobody votes: nobody reaches anything, and nobody is ever elected.
#[test]
fn an_empty_membership_has_no_quorum() {
    let empty = Membership::default();
    assert_eq!(empty.reached(|_| 9u64), 0);
    assert_eq!(empty.tally(|_| Some(true)), Tally::Open);
    assert!(empty.is_empty() && !empty.is_well_formed());
}

/// B15: what a membership must be.
#[test]
fn a_membership_that_contradicts_itself_is_not_well_formed() {
    let good = membership(&[A, B], &[B, C], &[D]);
    assert!(good.is_well_formed() && good.is_joint());
    let stranger_votes = Membership { voters: ids(&[A, 9]), ..good.clone() };
    let stranger_voted = Membership { outgoing: [(NodeId(9), member(8))].into(), ..good.clone() };
    let nobody_votes = Membership { voters: ids(&[]), ..good.clone() };
    let mut misnamed = good.clone();
    misnamed.members.get_mut(&NodeId(A)).unwrap().id = NodeId(B);
    let zero = membership(&[0, A], &[], &[]);
    for bad in [stranger_votes, stranger_voted, nobody_votes, misnamed, zero] {
        assert!(!bad.is_well_formed(), "{bad:?}");
    }
}

/// A9 and A10 of the rows at the level of the core: the first membership, given to one blank node, makes the cluster.
#[test]
fn the_first_membership_on_one_node_makes_a_cluster_of_all() {
    let mut c = Cluster::with_logs(&["-", "-", "-"]);
    assert!(c.ids().into_iter().all(|id| c.role(id) == RoleName::Unconfigured));
    c.pass(200);
    assert!(c.is_silent(), "A30: without a membership nobody campaigns");
    let ticket = c.bootstrap(A, membership(&[A, B, C], &[], &[]));
    assert_eq!(c.node(A).accepted[0], (ticket, LogId::new(1, 1)));
    assert_eq!(
        c.node(A).members.as_ref().map(|m| m.all().count()),
        Some(3),
        "the driver learns whom to know"
    );
    let led = c.pass_until(5, |c| c.leader() == Some(A));
    assert!(led.is_some(), "at once");
    c.pass(10);
    c.assert_converged();
    assert!(c.commit(C) >= 2);
    assert_eq!(c.raft(C).membership(), c.raft(A).membership());
    assert_eq!(c.node(C).members.as_ref().map(|m| m.all().count()), Some(3));
}

/// A10: every other way to begin is refused, with the reason.
#[test]
fn a_first_membership_that_makes_no_sense_is_refused() {
    let mut c = Cluster::with_logs(&["-", "1"]);
    let good = membership(&[A, B], &[], &[]);
    let without_me = membership(&[B, C], &[], &[]);
    let only_learning = membership(&[B], &[], &[A]);
    let joint = membership(&[A], &[A, B], &[]);
    let empty = Membership::default();
    let mut other_life = good.clone();
    other_life.members.get_mut(&NodeId(A)).unwrap().incarnation = Incarnation(5);
    for bad in [without_me, only_learning, joint, empty, other_life] {
        let ticket = c.bootstrap(A, bad);
        assert_eq!(c.refused(A, ticket), Some(RefusedReason::BadMembership));
        assert_eq!((c.last(A), c.term(A)), (0, 0), "without a trace");
    }
    let ticket = c.bootstrap(B, good.clone());
    assert_eq!(c.refused(B, ticket), Some(RefusedReason::AlreadyConfigured));
    // A blank node that has voted, or entered a term, belongs to somebody already.
    c.enter(A, 3);
    let ticket = c.bootstrap(A, good);
    assert_eq!(c.refused(A, ticket), Some(RefusedReason::AlreadyConfigured));
}

/// MC-3 and S14a: truncation takes memberships back, one, several at once, or all, also across a restart.
#[test]
fn mc_3_truncation_puts_the_membership_before_it_back_in_force() {
    let one = membership(&[A, B], &[], &[]);
    let two = membership(&[A, B, C], &[], &[]);
    let three = membership(&[A, B, C, D], &[], &[]);
    let members = [(1, one), (5, two), (7, three)];
    for (cut, expected) in [(8, 7), (7, 5), (6, 5), (5, 1), (4, 1), (2, 1)] {
        for restart in [false, true] {
            let mut c = Cluster::with_memberships(&members, &["1 1 1 1 2 2 2 2", "1 1 1 1 2 2 2 2"]);
            assert_eq!(c.raft(B).membership_id().index.0, 7);
            let prev = c.node(B).memory.id_at(Index(cut - 1)).unwrap();
            let message = AppendEntries {
                term: Term(3),
                prev,
                last: Index(cut),
                commit: Index(0),
                round: Round(1),
                lease: 0,
                persisted: Index(0),
                disk_age: 0,
                time: 0,
                agreed: None,
            };
            let entry = "3 ".repeat(cut as usize);
            let source = Cluster::with_logs(&[&entry]);
            c.give_from(&source, A, B, message);
            if restart {
                c.persist(B);
                c.crash(B);
                c.restart(B);
            }
            assert_eq!(c.raft(B).membership_id().index.0, expected, "cut at {cut}");
            assert_eq!(c.raft(B).membership(), &members.iter().find(|(at, _)| *at == expected).unwrap().1);
            let known = c.node(B).members.as_ref().map(|m| m.all().count());
            assert!(restart || known == Some(c.raft(B).membership().all().count()), "and the driver knows");
        }
    }
}

/// MC-3's beginning: a bootstrapped node restarts, and another's first membership wins. The box would call this a breach
/// of S3, since the two entries share a name; a bare node must survive it all the same.
#[test]
fn mc_3_the_first_membership_of_a_restarted_node_can_still_be_truncated() {
    let c = Cluster::with_logs(&["1", "1"]);
    let mut node = c.raft(A).clone();
    let word = |term: u64, memberships| {
        let message = Message::AppendEntries(AppendEntries {
            term: Term(term),
            prev: LogId::ZERO,
            last: Index(1),
            commit: Index(0),
            round: Round(1),
            lease: 0,
            persisted: Index(0),
            disk_age: 0,
            time: 0,
            agreed: None,
        });
        let envelope = Envelope { from: peer(B), to: peer(A), membership: LogId::ZERO, message };
        Input::Receive(envelope, Carried { runs: vec![Run::new(1, term)], memberships })
    };
    node.step(Tick(2000), word(2, vec![(Index(1), membership(&[A, B], &[], &[]))]));
    assert_eq!(node.membership_id(), LogId::new(2, 1));
    node.step(Tick(2001), word(3, vec![]));
    assert_eq!(node.role_name(), RoleName::Unconfigured, "as if it had never been told");
}

/// An entry that a restarted node has, and does not yet know to be committed, turns nobody away.
#[test]
fn a_membership_not_known_to_be_committed_removes_nobody() {
    let members = [(1, membership(&[A, B, C], &[], &[])), (2, membership(&[A, B], &[], &[]))];
    let mut c = Cluster::with_memberships(&members, &["1 1", "1 1", "1"]);
    let vote =
        RequestVote { campaign: Term(2), pre: true, question: 0, last: LogId::new(9, 9), handed_over: None };
    let (from, to, message) = (peer(C), peer(A), Message::RequestVote(vote));
    let out = c.step(
        A,
        Input::Receive(Envelope { from, to, membership: LogId::new(1, 1), message }, Carried::default()),
    );
    assert_eq!(out.dropped, None);
    let mut alone = Cluster::with_logs(&["1"]);
    let stranger = Peer { id: NodeId(9), incarnation: Incarnation(9) };
    let message = Message::RequestVote(RequestVote {
        campaign: Term(2),
        pre: true,
        question: 0,
        last: LogId::new(9, 9),
        handed_over: None,
    });
    let ask = Envelope { from: stranger, to: peer(A), membership: LogId::ZERO, message };
    assert_eq!(alone.step(A, Input::Receive(ask, Carried::default())).dropped, None);
}

/// MC-2 and S14a: the membership in force is the newest in the log, committed or not.
#[test]
fn mc_2_elections_go_by_the_newest_membership_in_the_log() {
    // B and C hold the entry that leaves A as the only voter, and nobody has committed it.
    let members = [(1, membership(&[A, B, C], &[], &[])), (2, membership(&[A], &[], &[B, C]))];
    let mut c = Cluster::with_memberships(&members, &["1", "1 1", "1 1"]);
    c.partition(&[&[A], &[B, C]]);
    c.pass(600);
    // They may ask, until they know that entry committed (D5.1.16), and nobody can grant it but A.
    assert_eq!((c.role(B), c.role(C), c.leader()), (RoleName::PreCandidate, RoleName::PreCandidate, None));
    c.heal();
    assert_eq!(c.role(A), RoleName::PreCandidate, "A goes by the membership that it knows");
}

/// MC-5 and S14e: all restart while the membership is joint. It still is, and both majorities decide.
#[test]
fn mc_5_a_joint_membership_survives_restarts_and_needs_both_majorities() {
    let members = [(1, membership(&[A, B, C], &[], &[])), (2, membership(&[A, D, E], &[A, B, C], &[]))];
    let start = || Cluster::with_memberships(&members, &["1 1"; 5]);
    let mut c = start();
    for id in c.ids() {
        c.crash(id);
        c.restart(id);
        assert!(c.raft(id).membership().is_joint());
    }
    c.elect(A);
    c.pass(10);
    assert!(!c.raft(A).membership().is_joint(), "and the change is brought to its end");
    // Commits and reads: the new majority alone, the old majority alone, both.
    for (group, enough) in
        [(vec![A, D, E], false), (vec![A, B, C], false), (vec![A, B, D], true), (vec![A, C, E], true)]
    {
        let mut c = start();
        c.sending = Sending::ByHand;
        c.elect(A);
        // Nobody has got anything yet, so it is joint still.
        [B, C, D, E].into_iter().for_each(|to| c.unsent(A, to));
        c.sending = Sending::AtOnce;
        c.partition(&[&group]);
        c.propose(A, 1);
        let read = c.read(A);
        c.pass(10);
        assert_eq!(c.commit(A) == c.last(A), enough, "{group:?}");
        assert_eq!(c.granted(A, read).is_some(), enough, "{group:?}");
        // And check-quorum.
        c.pass(70);
        assert_eq!(c.role(A) == RoleName::Leader, enough, "{group:?}");
        // Elections.
        let mut c = start();
        c.partition(&[&group]);
        c.silence(60);
        c.campaign(A);
        c.run();
        assert_eq!(c.role(A) == RoleName::Leader, enough, "{group:?}");
    }
}

/// MC-6: the one voter of before does not commit the entry that adds two more by itself.
#[test]
fn mc_6_the_entry_that_changes_the_quorum_needs_the_new_one_too() {
    let members = [(1, membership(&[A], &[], &[])), (2, membership(&[A, B, C], &[A], &[]))];
    let mut c = Cluster::with_memberships(&members, &["1 1", "-", "-"]);
    c.tick(A, 120);
    c.persist(A);
    assert_eq!((c.role(A), c.commit(A)), (RoleName::PreCandidate, 0), "A alone is not even elected");
    c.run();
    c.pass(130);
    assert_eq!(c.leader(), Some(A));
    c.assert_converged();
}

/// MC-9: a promoted learner that does not know of it yet votes when it is asked.
#[test]
fn mc_9_who_does_not_know_that_it_votes_votes_all_the_same() {
    let members = [(1, membership(&[A, B, C], &[], &[D, E])), (2, membership(&[A, B, C, D, E], &[], &[]))];
    let mut c = Cluster::with_memberships(&members, &["1 1", "1 1", "1 1", "1", "1 1"]);
    assert_eq!(c.role(D), RoleName::Learner);
    c.crash(A);
    c.crash(B);
    assert!(c.pass_until(600, |c| matches!(c.leader(), Some(C | E))).is_some(), "{}", c.describe());
    c.pass(20);
    assert_eq!(c.role(D), RoleName::Follower);
}

/// Learners get the log and count for nothing.
#[test]
fn learners_receive_the_log_and_commit_nothing() {
    let members = [(1, membership(&[A, B], &[], &[C, D, E]))];
    let mut c = Cluster::with_memberships(&members, &["1"; 5]);
    c.elect(A);
    c.pass(10);
    c.isolate(B);
    c.propose(A, 1);
    c.run();
    assert_eq!((c.last(E), c.commit(A)), (3, 2));
    c.heal();
    c.pass(10);
    c.assert_converged();
}

/// MC-9, D5.1.15: `replace 2 by a new disk`: the new disk counts in the new set and the old one in the old set.
/// Were the sets names alone, the new disk would count in both majorities, and two commits could follow.
#[test]
fn mc_9_a_replaced_disk_counts_only_in_the_set_that_names_it_against_brute_force() {
    for size in 1..=7u64 {
        let voters: Vec<u64> = (1..=size).collect();
        let mut m = membership(&voters, &voters, &[]);
        // The disks with even names are replaced.
        let old: Vec<Peer> = voters
            .iter()
            .map(|id| {
                let member = m.outgoing.get_mut(&NodeId(*id)).unwrap();
                member.incarnation.0 += 1_000 * (1 - id % 2);
                member.peer()
            })
            .collect();
        let new: Vec<Peer> = voters.iter().map(|id| peer(*id)).collect();
        assert!(m.is_well_formed());
        let all: BTreeSet<Peer> = old.iter().chain(&new).copied().collect();
        assert_eq!(m.all().map(Member::peer).collect::<BTreeSet<_>>(), all);
        assert!(all.iter().all(|peer| m.is_voter(*peer)));
        let all: Vec<Peer> = all.into_iter().collect();
        for bits in 0..1u32 << all.len() {
            let says_yes =
                |peer: Peer| all.iter().position(|at| *at == peer).is_some_and(|at| bits >> at & 1 == 1);
            let majority = |set: &[Peer]| 2 * set.iter().filter(|peer| says_yes(**peer)).count() > set.len();
            let expected = majority(&old) && majority(&new);
            assert_eq!(m.tally(|peer| Some(says_yes(peer))) == Tally::Won, expected, "{bits:b} of {all:?}");
            assert_eq!(m.reached(|peer| u64::from(says_yes(peer))) == 1, expected, "{bits:b} of {all:?}");
        }
    }
}

/// D5.1.15, D5.3.2: whom the newest membership names is asked, so its answers count, though the committed
/// membership does not know it yet. Dropped as one who was removed, they would elect nobody for ever.
#[test]
fn mc_9_answers_count_by_the_newest_membership_and_requests_by_the_committed_one() {
    let restored = Restored {
        hard_state: HardState { term: Term(1), vote: None, promised: 0 },
        runs: vec![Run::new(1, 1)],
        last: Index(2),
        memberships: vec![
            (LogId::new(1, 1), membership(&[A], &[], &[])),
            (LogId::new(1, 2), membership(&[A, B], &[A], &[])),
        ],
        ..Restored::default()
    };
    let mut node = Raft::new(peer(A), Boot(1), Settings::default(), 1, restored, Tick(0)).unwrap();
    let word = |from, message| {
        Input::Receive(
            Envelope { from: peer(from), to: peer(A), membership: LogId::ZERO, message },
            Carried::default(),
        )
    };
    let heartbeat = AppendEntries {
        term: Term(1),
        prev: LogId::new(1, 1),
        last: Index(1),
        commit: Index(1),
        round: Round(1),
        lease: 0,
        persisted: Index(1),
        disk_age: 0,
        time: 0,
        agreed: None,
    };
    let leader = Envelope {
        from: peer(C),
        to: peer(A),
        membership: LogId::new(1, 2),
        message: Message::AppendEntries(heartbeat),
    };
    node.step(Tick(1), Input::Receive(leader, Carried::default()));
    assert_eq!(node.committed_membership().0, LogId::new(1, 1));
    // B has no log, and names no membership.
    for pre in [true, false] {
        let out = if pre { node.step(Tick(100), Input::Campaign) } else { Output::default() };
        let asked = out.envelopes().find(|e| e.to == peer(B));
        let question = match asked.map(|envelope| &envelope.message) {
            Some(Message::RequestVote(vote)) => vote.question,
            // The second candidacy is the one after the first.
            _ => (1 << 32) + 2,
        };
        let (campaign, term) = (Term(2), if pre { Term(1) } else { Term(2) });
        let request =
            RequestVote { campaign, pre: true, question: 0, last: LogId::new(9, 9), handed_over: None };
        let out = node.step(Tick(100), word(B, Message::RequestVote(request)));
        assert_eq!(out.dropped, Some(Dropped::Removed), "a request of one who knows no membership");
        let reply = RequestVoteReply { campaign, pre, question, term, refusal: None, leader: None };
        let stranger = node.step(Tick(100), word(C, Message::RequestVoteReply(reply)));
        assert_eq!(stranger.dropped, Some(Dropped::Removed), "an answer of one whom nobody asked");
        assert_eq!(node.step(Tick(100), word(B, Message::RequestVoteReply(reply))).dropped, None);
        node.step(Tick(100), Input::Persisted(node.newest_write()));
    }
    assert_eq!(node.role_name(), RoleName::Leader);
}
