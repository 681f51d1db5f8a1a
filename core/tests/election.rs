//! How a leader comes about, and how none comes about where none should: §5.2, pre-vote,
//! check-quorum and stickiness, and what other implementations got wrong (hazards EL and VT).

mod common;
use common::votes::*;
use common::*;
use coracle_core::*;

#[test]
fn three_nodes_elect_one_leader_and_all_know_it() {
    let mut c = Cluster::of(3);
    let ticks = c.pass_until(600, |c| c.leader().is_some()).expect("a leader");
    assert!(ticks > 30, "nobody campaigns before the shortest timeout is over");
    c.pass(10);
    let leader = c.leader();
    assert!(c.ids().into_iter().all(|id| c.leader_of(id) == leader && c.term(id) == 2));
}

/// Who votes alone waits for nobody: that would only make its clients wait at each start.
#[test]
fn the_only_voter_campaigns_with_its_first_tick() {
    let mut c = Cluster::of(1);
    c.elect(A);
    c.crash(A);
    c.restart(A);
    assert_eq!(c.pass_until(300, |c| c.leader() == Some(A)), Some(1));
    // One of two does not, nor one who will be alone once all agree that it is.
    let joint = [(1, membership(&[A, B], &[], &[])), (2, membership(&[A], &[A, B], &[]))];
    for mut c in [Cluster::of(2), Cluster::with_memberships(&joint, &["1 1", "1 1"])] {
        assert!(c.pass_until(600, |c| c.leader().is_some()).is_some_and(|ticks| ticks > 30));
    }
}

/// B45 of the seeds' rows: the term counts the elections.
#[test]
fn when_the_leader_dies_the_others_elect_another_in_the_next_term() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.crash(A);
    assert!(c.pass_until(300, |c| c.leader().is_some_and(|leader| leader != A)).is_some());
    assert_eq!(c.term(c.leader().unwrap()), 3);
}

/// EL-4: D was removed while it was cut off, and goes on campaigning. Nobody is disturbed.
#[test]
fn el_4_a_removed_node_deposes_nobody() {
    let without = membership(&[A, B, C], &[], &[]);
    let all = membership(&[A, B, C, D], &[], &[]);
    let memberships = [(1, all), (3, without)];
    let mut c = Cluster::with_memberships(&memberships, &["1 1 1", "1 1 1", "1 1 1", "1 1"]);
    c.isolate(D);
    c.elect(A);
    c.pass(3 * c.settings.election_max);
    assert!(c.commit(A) >= 3, "the removal is committed");
    assert_eq!(c.raft(A).leaving(), [], "and D, which does not answer, is told no more");
    c.heal();
    let term = c.term(A);
    c.pass(100 * 60);
    assert_eq!((c.leader(), c.term(A)), (Some(A), term));
    assert_eq!(c.role(D), RoleName::PreCandidate, "it asks for ever");
    assert!(c.node(A).dropped.contains(&Dropped::Removed), "and is turned away");
    // Not even a leader's death makes its voice count.
    c.crash(A);
    assert!(c.pass_until(300, |c| c.leader().is_some_and(|leader| leader != A)).is_some());
    assert_ne!(c.leader(), Some(D));
}

/// EL-5: a node that was alone for long comes back with the term that it left with.
#[test]
fn el_5_a_node_that_comes_back_does_not_raise_the_term() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.isolate(B);
    c.pass(100 * 60);
    let term = c.term(A);
    assert_eq!(c.term(B), term, "its pre-votes raised no term");
    c.propose(A, 5);
    c.heal();
    c.pass(20);
    assert_eq!((c.leader(), c.term(A)), (Some(A), term));
    c.assert_converged();
}

/// EL-6: after failed elections raised the terms of C and D, the old-termed B is still one of three.
#[test]
fn el_6_nodes_of_different_terms_find_a_leader() {
    let mut c = Cluster::of(4);
    c.elect(A);
    c.crash(B);
    c.crash(A);
    // C and D campaign for real in term 5, each in vain.
    for (candidate, campaign) in [(C, 4), (D, 5)] {
        c.silence(60);
        c.say(A, candidate, vote(campaign, 0, 0));
        c.persist(candidate);
    }
    c.lose_all();
    assert_eq!((c.term(C), c.term(D)), (4, 5));
    c.restart(B);
    assert_eq!(c.term(B), 2);
    assert!(c.pass_until(600, |c| c.leader().is_some()).is_some(), "{}", c.describe());
}

/// EL-6: the node with the lowest term may be the only one whose log can win.
#[test]
fn el_6_the_longest_log_wins_whatever_its_term() {
    let mut c = Cluster::with_logs(&["1 2 2 2", "1 2", "1 2"]);
    for (node, campaign) in [(B, 8), (C, 9)] {
        c.say(A, node, vote(campaign, 0, 0));
        c.persist(node);
    }
    c.lose_all();
    c.crash(C);
    assert_eq!((c.term(A), c.term(B)), (2, 8));
    assert!(c.pass_until(600, |c| c.leader() == Some(A)).is_some(), "{}", c.describe());
}

/// EL-10: a follower that says no to every AppendEntries still hears its leader.
#[test]
fn el_10_rejected_appends_are_contact_with_the_leader() {
    let stretches =
        |first: u64| (0..200).map(|i| format!("{}*10", first + 2 * i)).collect::<Vec<_>>().join(" ");
    let (stale, leader) = (format!("1 {}", stretches(2)), format!("1 {}", stretches(3)));
    let mut c = Cluster::with_logs(&[&leader, &leader, &stale]);
    c.elect_by(A, &[B]);
    c.heal();
    let term = c.term(A);
    c.latency = 1;
    assert!(c.pass_until(100, |c| c.leader_of(C) == Some(A)).is_some());
    // Each round trip rules out one term of 200, so it lasts much longer than an election timeout.
    let mut ticks = 0;
    while c.commit(C) < c.last(A) {
        c.pass_one();
        assert_ne!(c.role(C), RoleName::PreCandidate);
        ticks += 1;
    }
    assert!(ticks > 300 && ticks < 1000, "{ticks}");
    c.pass(20);
    c.assert_converged();
    assert_eq!(c.term(A), term);
}

/// EL-12 a: A cannot talk to the leader, but both talk to C. The leader stays, since C hears it.
#[test]
fn el_12_a_one_broken_link_deposes_nobody() {
    let mut c = Cluster::of(3);
    c.elect(B);
    c.connect_only(&[(A, C), (B, C)]);
    let term = c.term(B);
    for _ in 0..50 {
        c.propose(B, 1);
        c.pass(60);
    }
    assert_eq!((c.leader(), c.term(B)), (Some(B), term));
    assert_eq!(c.commit(B), c.last(B), "B and C are a quorum");
    // What Raft cannot do: A gets nothing, since followers do not pass entries on.
    assert!(c.last(A) < c.last(B));
}

/// EL-12 b: the leader keeps a link to one node of five, and another node reaches all but the leader. The leader notices
/// that it has no quorum, and the hub takes over.
#[test]
fn el_12_b_a_leader_without_a_quorum_makes_room_for_the_hub() {
    for latency in [0, 1, 2] {
        let mut c = Cluster::of(5);
        c.elect(A);
        c.latency = latency;
        c.connect_only(&[(A, B), (C, B), (C, D), (C, E)]);
        let led = c.pass_until(10 * 60, |c| c.leader() == Some(C));
        assert!(led.is_some(), "latency {latency}\n{}", c.describe());
        c.propose(C, 1);
        c.pass(60);
        assert_eq!(c.commit(C), c.last(C));
        assert_eq!(c.leader(), Some(C), "and stays");
    }
}

/// EL-12 c: only a node with a stale log reaches a quorum. Raft cannot elect it before it has the entries that are
/// committed, and nobody reaches both it and a quorum: there is no leader, and that is all that Raft can do. As soon
/// as the nodes that hold the entries reach it, one of them leads.
#[test]
fn el_12_c_a_stale_hub_cannot_lead_until_the_entries_reach_it() {
    let mut c = Cluster::of(5);
    c.elect_by(A, &[B, D]);
    c.connect_only(&[(A, B), (A, D)]);
    c.propose(A, 3);
    c.run();
    assert_eq!((c.commit(A), c.last(C)), (5, 1));
    // B and D hold what is committed; C, without it, is the only one with links to three others.
    c.crash(A);
    c.connect_only(&[(C, B), (C, D), (C, E)]);
    c.pass(10 * 60);
    assert_eq!(c.leader(), None, "C may not, B and D reach nobody else");
    // Another link, and B reaches a quorum.
    c.connect_only(&[(C, B), (C, D), (C, E), (B, D)]);
    let led = c.pass_until(10 * 60, |c| matches!(c.leader(), Some(B | D)));
    assert!(led.is_some(), "{}", c.describe());
    c.pass(60);
    assert_eq!(c.commit(C), c.last(C));
}

/// EL-12 d: a chain. Whoever leads, the middle hears it, and a quorum exists.
#[test]
fn el_12_d_in_a_chain_the_leader_stays_and_commits() {
    for leader in [A, B] {
        let mut c = Cluster::of(3);
        c.elect(leader);
        c.connect_only(&[(A, B), (B, C)]);
        let term = c.term(leader);
        c.pass(20 * 60);
        c.propose(leader, 1);
        c.pass(10);
        assert_eq!((c.leader(), c.term(leader)), (Some(leader), term));
        assert_eq!(c.commit(leader), c.last(leader));
    }
    // And from nothing: at the end of a chain or in its middle, some leader is found.
    let mut c = Cluster::of(3);
    c.connect_only(&[(A, B), (B, C)]);
    assert!(c.pass_until(600, |c| c.leader().is_some()).is_some());
}

/// EL-12, one way only: a node that everybody hears and that hears nobody keeps nobody from leading.
#[test]
fn el_12_a_deaf_node_does_not_hold_the_others_back() {
    let mut c = Cluster::of(3);
    c.latency = 1;
    c.cut(A, C);
    c.cut(B, C);
    assert!(c.pass_until(600, |c| matches!(c.leader(), Some(A | B))).is_some(), "{}", c.describe());
    let (leader, term) = (c.leader(), c.term(c.leader().unwrap()));
    c.pass(20 * 60);
    assert_eq!((c.leader(), c.term(leader.unwrap())), (leader, term), "C's questions change nothing");
}

/// EL-12, the other way: a leader that is not heard of any more leaves, and one that hears nobody does too.
#[test]
fn el_12_a_leader_that_hears_no_quorum_steps_down() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.cut(B, A);
    c.cut(C, A);
    // B and C hear A all the time: only A itself can find out.
    let left = c.pass_until(61, |c| c.role(A) != RoleName::Leader);
    assert!(left.is_some_and(|ticks| ticks >= 50));
    assert!(c.pass_until(300, |c| c.leader().is_some()).is_some());
}

/// EL-13: neither a learner, nor a stranger, nor a node without a cluster ever campaigns.
#[test]
fn el_13_who_has_no_vote_never_campaigns() {
    let learning = membership(&[A, B], &[], &[C]);
    let mut c = Cluster::with_memberships(&[(1, learning)], &["1", "1", "1", "1", "-"]);
    // D has a log in which it does not appear, E has none.
    assert_eq!(
        (c.role(C), c.role(D), c.role(E)),
        (RoleName::Learner, RoleName::Learner, RoleName::Unconfigured)
    );
    for id in [C, D, E] {
        c.tick(id, 500);
        c.campaign(id);
        c.step(id, Input::LeaderDown(NodeId(A)));
        c.tick(id, 500);
        assert!(c.mail(id, A).is_empty() && c.mail(id, B).is_empty(), "node {id} asks nobody");
        assert_eq!(c.term(id), if id == E { 0 } else { 1 });
    }
    // The same where it follows a leader whose end it notices.
    c.elect(A);
    c.pass(10);
    c.step(C, Input::LeaderDown(NodeId(A)));
    c.tick(C, 500);
    assert_eq!((c.role(C), c.leader_of(C)), (RoleName::Learner, None));
}

/// D5.1.14: a node whose machine is wrong steps down, campaigns no more, and goes on storing and voting.
#[test]
fn a_fenced_node_leads_no_more_and_still_votes() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.pass(10);
    let out = c.step(A, Input::Fence);
    assert_eq!(c.role(A), RoleName::Follower);
    assert!(out.send.is_empty() && out.write.is_none(), "it keeps its term and says nothing");
    c.campaign(A);
    c.step(A, Input::LeaderDown(NodeId(B)));
    assert_eq!(c.role(A), RoleName::Follower);
    // B wins by its vote, and commits by its acknowledgement.
    c.crash(C);
    let left = c.pass_until(300, |c| c.role(B) == RoleName::Leader);
    assert!(left.is_some());
    let before = c.commit(B);
    c.propose(B, 1);
    c.pass(20);
    assert_eq!(c.commit(B), before + 1);
}

/// EL-15: five nodes that start at the same moment, a thousand times.
#[test]
fn el_15_equal_starts_do_not_tie_elections() {
    for latency in [0, 2] {
        let mut ticks: Vec<u64> = (0..1000)
            .map(|seed| {
                let mut c = Cluster::build(Settings::default(), seed, &Cluster::voters(5), &["1"; 5]);
                c.latency = latency;
                c.pass_until(3000, |c| c.leader().is_some()).expect("L1: a leader")
            })
            .collect();
        ticks.sort_unstable();
        let (median, p99, worst) = (ticks[500], ticks[990], ticks[999]);
        assert!(p99 <= 5 * 60, "median {median}, p99 {p99}, worst {worst} ticks, latency {latency}");
        assert!(median <= 60, "usually the first to time out wins: median {median}");
    }
}

/// EL-15: a patience is drawn anew each time, from (min, max], and differs from node to node. A63 of the rows.
#[test]
fn el_15_timeouts_lie_between_the_bounds_and_are_drawn_anew() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let mut c = Cluster::build(Settings::default(), seed, &Cluster::voters(3), &["1"; 3]);
        for id in [A, B, C] {
            for round in 0..2 {
                let start = c.node(id).clock;
                let mut ticks = 0;
                while c.role(id) != RoleName::PreCandidate || (round == 1 && ticks == 0) {
                    c.tick(id, 1);
                    ticks = c.node(id).clock - start;
                    assert!(ticks <= 60, "no timeout is longer than the maximum");
                }
                assert!(round == 1 || ticks > 30, "every timeout is longer than the minimum");
                if round == 0 {
                    seen.insert(ticks);
                }
            }
        }
    }
    assert_eq!(seen.len(), 30, "all of 31 to 60 are drawn: {seen:?}");
}

/// Defect C2 of the seeds: only a granted vote buys time.
#[test]
fn c_2_a_refused_vote_does_not_put_off_the_own_campaign() {
    let mut c = Cluster::with_logs(&["1", "1 2 2"]);
    for tick in 0..61 {
        c.tick(B, 1);
        if c.role(B) == RoleName::PreCandidate {
            assert!(tick >= 30);
            return;
        }
        c.say(A, B, vote(2, 1, 1));
    }
    panic!("B was kept waiting by a node that cannot win");
}

/// Nor does it where each request is of a newer term than the one before.
#[test]
fn c_2_a_newer_term_alone_does_not_put_off_the_own_campaign() {
    let mut c = Cluster::with_logs(&["1", "1 2 2"]);
    for term in 3..64 {
        c.tick(B, 1);
        if c.role(B) == RoleName::PreCandidate {
            return;
        }
        c.say(A, B, vote(term, 1, 1));
        assert_eq!(c.term(B), term);
    }
    panic!("B was kept waiting by a node that cannot win");
}

/// The other side of it: a granted vote does.
#[test]
fn a_granted_vote_buys_its_candidate_the_time_of_a_timeout() {
    let mut c = Cluster::of(2);
    c.tick(B, 30);
    c.say(A, B, vote(2, 1, 1));
    c.tick(B, 30);
    assert_eq!((c.role(B), c.vote(B)), (RoleName::Follower, Some(A)));
}

/// Defect C3 of the seeds: a leader without followers learns from a request that its time is over.
#[test]
fn c_3_a_stale_leader_hears_of_a_newer_term_from_requests() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.isolate(A);
    c.silence(60);
    c.campaign(B);
    c.run();
    assert_eq!((c.leader(), c.role(A)), (Some(B), RoleName::Leader), "two leaders, in two terms");
    c.heal();
    // From an AppendEntries ...
    let mut other = AppendEntries { term: Term(3), ..heartbeat_of(&c) };
    other.round = Round(77);
    c.say(B, A, Message::AppendEntries(other));
    assert_eq!((c.role(A), c.term(A), c.leader_of(A)), (RoleName::Follower, 3, Some(B)));
    // ... and, where no quorum follows any more, from a vote request.
    let mut c = Cluster::of(3);
    c.elect(A);
    c.silence(40);
    c.say(B, A, vote(9, 9, 9));
    assert_eq!((c.role(A), c.term(A), c.vote(A)), (RoleName::Follower, 9, Some(B)));
}

/// Stickiness: whoever hears a leader does not even take over a candidate's term.
#[test]
fn nobody_who_hears_a_leader_helps_to_depose_it() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.pass(10);
    for (id, pre) in [(A, true), (A, false), (B, true), (B, false)] {
        let last = LogId::new(9, 9);
        let request = RequestVote { campaign: Term(7), pre, question: 0, last, handed_over: None };
        let out = c.say(C, id, Message::RequestVote(request));
        assert_eq!(vote_reply(&out).refusal, Some(Refusal::Leader));
        assert_eq!(vote_reply(&out).leader, Some(NodeId(A)));
        assert_eq!(c.term(id), 2);
    }
    c.silence(29);
    let out = c.say(C, B, vote(7, 9, 9));
    assert_eq!(vote_reply(&out).refusal, Some(Refusal::Leader), "until a whole minimum has passed");
    c.silence(1);
    let out = c.say(C, B, vote(7, 9, 9));
    assert_eq!(vote_reply(&out).refusal, None);
}

/// A leader that is certainly gone is replaced at once, without waiting for patience to run out.
#[test]
fn a_leader_that_is_known_to_be_dead_is_replaced_at_once() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.pass(10);
    c.crash(A);
    c.step(B, Input::LeaderDown(NodeId(A)));
    c.step(C, Input::LeaderDown(NodeId(A)));
    c.run();
    assert_eq!(c.leader(), Some(C), "of two equals the one with the greater name goes on");
    assert_eq!(c.term(C), 3);
}

/// The rumour reaches one node only: it asks, is refused, and asks again until the other notices.
#[test]
fn a_false_or_lonely_rumour_of_a_dead_leader_elects_nobody() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.pass(10);
    c.step(B, Input::LeaderDown(NodeId(A)));
    c.run();
    assert_eq!(c.role(B), RoleName::PreCandidate);
    c.pass(20);
    assert_eq!((c.leader(), c.term(A), c.leader_of(B)), (Some(A), 2, Some(A)), "A is alive after all");
    c.step(B, Input::LeaderDown(NodeId(C)));
    assert_eq!(c.role(B), RoleName::Follower, "nobody follows C");
}

/// Two ask at the same moment: exactly one goes on, whichever question arrives first.
#[test]
fn of_two_that_ask_at_once_the_better_log_goes_on() {
    for (b_log, c_log, winner) in [("1 1", "1", B), ("1", "1 1", C), ("1", "1", C), ("1 2", "1 1 1", B)] {
        for b_first in [true, false] {
            let mut c = Cluster::with_logs(&["1", b_log, c_log]);
            c.crash(A);
            c.campaign(B);
            c.campaign(C);
            let order = if b_first { [(B, C), (C, B)] } else { [(C, B), (B, C)] };
            for (from, to) in order {
                c.deliver(from, to);
            }
            c.run();
            assert_eq!(c.leader(), Some(winner), "{b_log} against {c_log}");
        }
    }
}

/// The better one asks first, and is refused since the other still hears the leader. When that one asks a
/// moment later, it tells with this that it hears it no more: the better one leads without another pause.
#[test]
fn a_rival_that_still_heard_the_leader_is_asked_again_at_once() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.pass(10);
    c.crash(A);
    c.step(C, Input::LeaderDown(NodeId(A)));
    c.run();
    assert_eq!((c.leader(), c.role(C)), (None, RoleName::PreCandidate), "B still hears A");
    c.step(B, Input::LeaderDown(NodeId(A)));
    c.run();
    assert_eq!(c.leader(), Some(C));
}

/// The precedence lasts for a moment only, since the better one may not reach a quorum.
#[test]
fn a_better_log_that_gets_nowhere_stops_standing_in_the_way() {
    let mut c = Cluster::of(5);
    // E, the greatest name, reaches D alone; D reaches everybody.
    c.connect_only(&[(E, D), (D, C), (D, B)]);
    c.crash(A);
    c.latency = 1;
    let led = c.pass_until(600, |c| c.leader() == Some(D));
    assert!(led.is_some(), "{}", c.describe());
}
