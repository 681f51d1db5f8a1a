//! How a leader comes about, and how none comes about where none should: §5.2, pre-vote,
//! check-quorum and stickiness, and what other implementations got wrong (hazards EL and VT).

mod common;
use common::*;
use coracle_core::*;

fn vote(campaign: u64, term: u64, index: u64) -> Message {
    let last = LogId::new(term, index);
    Message::RequestVote(RequestVote { campaign: Term(campaign), pre: false, question: 0, last })
}

fn grant(campaign: u64) -> Message {
    let term = Term(campaign);
    Message::RequestVoteReply(RequestVoteReply {
        campaign: term,
        pre: false,
        question: 0,
        term,
        refusal: None,
        leader: None,
    })
}

fn vote_reply(out: &Output) -> RequestVoteReply {
    let mut sent = out.envelopes();
    sent.find_map(|envelope| match envelope.message {
        Message::RequestVoteReply(reply) => Some(reply),
        _ => None,
    })
    .expect("an answer")
}

fn is_vote(message: &Message) -> bool {
    matches!(message, Message::RequestVote(vote) if !vote.pre)
}

/// Ends a pre-vote: `id` campaigns for real, and its requests wait on the links to `others`.
fn start_campaign(c: &mut Cluster, id: u64, helper: u64) {
    c.silence(60);
    c.campaign(id);
    c.run_pre_vote(id, helper);
    c.persist(id);
}

#[test]
fn three_nodes_elect_one_leader_and_all_know_it() {
    let mut c = Cluster::of(3);
    let ticks = c.pass_until(600, |c| c.leader().is_some()).expect("a leader");
    assert!(ticks > 30, "nobody campaigns before the shortest timeout is over");
    c.pass(10);
    let leader = c.leader();
    assert!(c.ids().into_iter().all(|id| c.leader_of(id) == leader && c.term(id) == 2));
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

/// EL-1: B's grant for term 2 must not make A the leader of term 3.
#[test]
fn el_1_vote_reply_of_an_older_term_is_not_counted() {
    let mut c = Cluster::of(3);
    start_campaign(&mut c, A, B);
    c.deliver(A, B);
    c.persist(B);
    let late = c.take_first(B, A, |m| matches!(m, Message::RequestVoteReply(reply) if !reply.pre));
    c.lose_all();
    // A gives up on term 2, and campaigns in term 3 with C's help.
    c.time_out(A);
    c.run_pre_vote(A, C);
    c.persist(A);
    assert_eq!((c.role(A), c.term(A)), (RoleName::Candidate, 3));
    c.hand(late);
    assert_eq!(c.role(A), RoleName::Candidate, "a vote of term 2 elects nobody in term 3");
    assert_eq!(c.node(A).out.dropped, Some(Dropped::Stale));
    c.deliver(A, C);
    c.persist(C);
    c.deliver(C, A);
    assert_eq!(c.role(A), RoleName::Leader, "C's vote of term 3 does");
}

/// EL-1 once more, for all that an answer can be late for.
#[test]
fn el_1_every_answer_to_another_question_is_stale() {
    let mut c = Cluster::of(3);
    start_campaign(&mut c, A, B);
    let (now, term) = (Term(2), c.term(A));
    assert_eq!(term, 2);
    for (campaign, pre) in [(1, false), (2, true), (3, true), (3, false), (1, true)] {
        let reply = RequestVoteReply {
            campaign: Term(campaign),
            pre,
            question: 0,
            term: now,
            refusal: None,
            leader: None,
        };
        for from in [B, C] {
            let out = c.say(from, A, Message::RequestVoteReply(reply));
            assert_eq!(out.dropped, Some(Dropped::Stale), "campaign {campaign}, pre {pre}");
        }
        assert_eq!(c.role(A), RoleName::Candidate);
    }
}

/// EL-2: one voter counts once, however often its grant arrives.
#[test]
fn el_2_a_vote_that_arrives_three_times_is_one_vote() {
    let mut c = Cluster::of(5);
    c.silence(60);
    c.campaign(A);
    for voter in [B, B, B] {
        let pre = RequestVoteReply {
            campaign: Term(2),
            pre: true,
            question: 0,
            term: Term(1),
            refusal: None,
            leader: None,
        };
        c.say(voter, A, Message::RequestVoteReply(pre));
    }
    assert_eq!(c.role(A), RoleName::PreCandidate, "two of five");
    c.deliver(A, C);
    c.deliver(C, A);
    c.persist(A);
    assert_eq!(c.role(A), RoleName::Candidate, "three of five");
    for voter in [B, B, B] {
        c.deliver(A, voter);
        c.persist(voter);
        let reply = c.take_first(voter, A, |_| true);
        c.hand(reply.clone());
        c.hand(reply.clone());
        c.hand(reply);
        if voter == B {
            break;
        }
    }
    assert_eq!(c.role(A), RoleName::Candidate, "still two of five");
}

/// EL-2: a campaign starts counting from nothing, and a refusal is not a vote.
#[test]
fn el_2_each_campaign_counts_from_nothing() {
    let mut c = Cluster::of(3);
    for term in [2, 3] {
        start_campaign(&mut c, A, B);
        assert_eq!((c.term(A), c.role(A)), (term, RoleName::Candidate));
        c.lose_all();
    }
    let refusal = RequestVoteReply {
        campaign: Term(3),
        pre: false,
        question: 0,
        term: Term(3),
        refusal: Some(Refusal::Voted),
        leader: None,
    };
    c.say(B, A, Message::RequestVoteReply(refusal));
    assert_eq!(c.role(A), RoleName::Candidate, "its own votes of two campaigns are not two votes");
}

/// A refusal that was overtaken takes no grant back, and a lost election ends.
#[test]
fn el_2_a_refused_candidate_gives_up_and_a_late_refusal_changes_nothing() {
    let mut c = Cluster::of(5);
    start_campaign_of_five(&mut c);
    let refuse = |c: &mut Cluster, from| {
        let refusal = Some(Refusal::Voted);
        let reply = RequestVoteReply {
            campaign: Term(2),
            pre: false,
            question: 0,
            term: Term(2),
            refusal,
            leader: None,
        };
        c.say(from, A, Message::RequestVoteReply(reply));
    };
    refuse(&mut c, B);
    refuse(&mut c, C);
    assert_eq!(c.role(A), RoleName::Candidate);
    c.deliver(A, D);
    c.persist(D);
    c.deliver(D, A);
    refuse(&mut c, D);
    assert_eq!(c.role(A), RoleName::Candidate, "D's grant stands");
    refuse(&mut c, E);
    assert_eq!(c.role(A), RoleName::Follower, "three of five said no");
}

fn start_campaign_of_five(c: &mut Cluster) {
    c.silence(60);
    c.campaign(A);
    for voter in [B, C] {
        c.deliver(A, voter);
        c.deliver(voter, A);
    }
    c.persist(A);
    assert_eq!(c.role(A), RoleName::Candidate);
}

/// EL-3, A65 and defect C1 of the seeds: the last entry's term decides, then its index. All nine orderings.
#[test]
fn el_3_only_a_log_at_least_as_up_to_date_gets_the_vote() {
    // (candidate's last term, index), whether a voter whose last entry is 5.3 (index 5, term 3) grants.
    let table = [
        (2, 4, false),
        (2, 5, false),
        (2, 6, false),
        (2, 600, false),
        (3, 4, false),
        (3, 5, true),
        (3, 6, true),
        (4, 4, true),
        (4, 5, true),
        (4, 6, true),
        (4, 1, true),
    ];
    for pre in [false, true] {
        for (term, index, granted) in table {
            let mut c = Cluster::with_logs(&["1", "1 1 2 2 3"]);
            let last = LogId::new(term, index);
            let out =
                c.say(A, B, Message::RequestVote(RequestVote { campaign: Term(9), pre, question: 0, last }));
            let reply = vote_reply(&out);
            assert_eq!(reply.refusal.is_none(), granted, "{last} against 5.3");
            assert_eq!(reply.refusal.is_some(), reply.refusal == Some(Refusal::Log));
        }
    }
}

/// EL-4: D was removed while it was cut off, and goes on campaigning. Nobody is disturbed.
#[test]
fn el_4_a_removed_node_deposes_nobody() {
    let without = membership(&[A, B, C], &[], &[]);
    let all = membership(&[A, B, C, D], &[], &[]);
    let memberships = [(1, all), (3, without)];
    let mut c = Cluster::with_memberships(&memberships, &["1 1 1", "1 1 1", "1 1 1", "1 1"]);
    c.elect(A);
    c.pass(10);
    assert!(c.commit(A) >= 3, "the removal is committed");
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

/// EL-13: a member in another life is a stranger.
#[test]
fn el_13_another_incarnation_has_no_vote() {
    let mut other = membership(&[A, B, C], &[], &[]);
    other.members.get_mut(&NodeId(A)).unwrap().incarnation = Incarnation(999);
    let mut c = Cluster::with_memberships(&[(1, other)], &["1", "1", "1"]);
    c.tick(A, 200);
    c.campaign(A);
    assert_eq!(c.role(A), RoleName::Learner);
    // Nor do its answers count.
    start_campaign(&mut c, B, C);
    let out = c.say(A, B, grant(2));
    assert_eq!((out.dropped, c.role(B)), (Some(Dropped::NotMember), RoleName::Candidate));
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

/// VT-1: B loses power at every point of granting its vote to A, and C asks for the same term afterwards.
#[test]
fn vt_1_a_vote_that_was_heard_is_never_given_twice() {
    for point in ["before the write", "after the write", "after the answer"] {
        let mut c = Cluster::of(3);
        start_campaign(&mut c, A, C);
        let request = c.take_first(A, B, is_vote);
        c.hand(request);
        assert!(c.mail(B, A).is_empty(), "the grant waits for the disk");
        match point {
            "before the write" => {}
            "after the write" => drop(c.write_one(B)),
            _ => c.persist(B),
        }
        c.crash(B);
        c.restart(B);
        let forgotten = point == "before the write";
        assert_eq!(c.vote(B), (!forgotten).then_some(A), "{point}");
        let out = c.say(C, B, vote(2, 9, 9));
        let refusal = vote_reply(&out).refusal;
        assert_eq!(refusal, if forgotten { None } else { Some(Refusal::Voted) }, "{point}");
    }
}

/// VT-2: A voted for itself, then followed B in the same term. Its vote stays cast.
#[test]
fn vt_2_following_a_leader_does_not_give_the_vote_back() {
    let mut c = Cluster::of(3);
    start_campaign(&mut c, A, B);
    c.lose_all();
    // B wins the same term with C's vote.
    let term = Term(2);
    let heartbeat = AppendEntries {
        term,
        prev: LogId::new(1, 1),
        last: Index(1),
        runs: vec![],
        memberships: vec![],
        commit: Index(0),
        round: Round(1),
        persisted: Index(1),
        disk_age: 0,
        time: 0,
        agreed: None,
    };
    c.say(B, A, Message::AppendEntries(heartbeat));
    assert_eq!((c.role(A), c.leader_of(A), c.vote(A)), (RoleName::Follower, Some(B), Some(A)));
    c.silence(60);
    let out = c.say(C, A, vote(2, 9, 9));
    assert_eq!(vote_reply(&out).refusal, Some(Refusal::Voted));
}

/// VT-4: a term learned from an answer is as binding as one from a request.
#[test]
fn vt_4_a_term_learned_from_an_answer_is_durable_before_anything_is_said_in_it() {
    let mut c = Cluster::of(3);
    c.elect(A);
    let reply = AppendEntriesReply {
        term: Term(5),
        round: Round(0),
        matched: Index(0),
        last: Index(0),
        conflict: None,
        applied: Index(0),
        disk_age: 0,
        digest: None,
    };
    let out = c.say(B, A, Message::AppendEntriesReply(reply));
    assert_eq!((c.role(A), c.term(A)), (RoleName::Follower, 5));
    assert_eq!(out.write.and_then(|write| write.hard_state).map(|hard| hard.term), Some(Term(5)));
    // Even a harmless answer waits: it would be the first word in term 5.
    let old = AppendEntries { term: Term(2), ..heartbeat_of(&c) };
    c.say(B, A, Message::AppendEntries(old));
    assert!(c.mail(A, B).iter().all(|message| message.term() <= Term(2)), "nothing in term 5 yet");
    c.persist(A);
    assert!(c.mail(A, B).iter().any(|message| message.term() == Term(5)));
    c.crash(A);
    c.restart(A);
    assert_eq!(c.term(A), 5);
}

fn heartbeat_of(c: &Cluster) -> AppendEntries {
    AppendEntries {
        term: Term(c.term(A)),
        prev: LogId::new(1, 1),
        last: Index(1),
        runs: vec![],
        memberships: vec![],
        commit: Index(0),
        round: Round(1),
        persisted: Index(1),
        disk_age: 0,
        time: 0,
        agreed: None,
    }
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
        let request = RequestVote { campaign: Term(7), pre, question: 0, last };
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

/// A hung disk elects nobody, and nobody on a hung disk is elected.
#[test]
fn a_candidate_asks_nobody_before_its_own_vote_is_durable() {
    let mut c = Cluster::of(3);
    c.silence(60);
    c.campaign(A);
    c.run_pre_vote(A, B);
    c.lose_all();
    assert_eq!((c.role(A), c.writes_under_way(A)), (RoleName::Candidate, 1));
    c.tick(A, 20);
    assert!(c.mail(A, B).is_empty() && c.mail(A, C).is_empty());
    c.persist(A);
    assert_eq!(c.mail(A, B).len(), 5, "the question and its reminders were held");
}

/// What nobody asked for elects nobody: a made-up vote cannot hurry a leader past its own disk.
#[test]
fn a_candidate_does_not_lead_before_its_own_vote_is_durable() {
    let mut c = Cluster::of(3);
    c.silence(60);
    c.campaign(A);
    c.run_pre_vote(A, B);
    c.say(B, A, grant(2));
    c.say(C, A, grant(2));
    assert_eq!(c.role(A), RoleName::Candidate);
}

/// A single node needs nobody but its disk.
#[test]
fn alone_a_node_leads_as_soon_as_its_vote_is_durable() {
    let mut c = Cluster::of(1);
    c.campaign(A);
    assert_eq!(c.role(A), RoleName::Candidate);
    c.persist_one(A);
    assert_eq!((c.role(A), c.commit(A)), (RoleName::Leader, 0));
    c.persist_one(A);
    assert_eq!(c.commit(A), 2);
}

/// TR-2's cousin: a term that nothing could follow is refused, so it cannot wedge the next election.
#[test]
fn a_term_at_the_end_of_all_terms_is_refused() {
    for term in [u64::MAX, u64::MAX - 1, Term::LIMIT.0] {
        let mut c = Cluster::of(3);
        let before = c.term(B);
        let out = c.say(A, B, vote(term, 9, 9));
        assert_eq!((out.dropped, c.term(B)), (Some(Dropped::Malformed), before));
        let out = c.say(A, B, grant(term));
        assert_eq!((out.dropped, c.term(B)), (Some(Dropped::Malformed), before));
        let append = AppendEntries { term: Term(term), ..heartbeat_of(&c) };
        let out = c.say(A, B, Message::AppendEntries(append));
        assert_eq!((out.dropped, c.term(B)), (Some(Dropped::Malformed), before));
        c.elect(B);
    }
    let mut c = Cluster::of(3);
    let out = c.say(A, B, vote(0, 9, 9));
    assert_eq!(out.dropped, Some(Dropped::Malformed), "nor does anybody campaign for term zero");
}

/// D5.1.13: a pre-vote binds nobody, so a grant given to an earlier candidacy says nothing of now, though the
/// term that it was asked for is still the next one.
#[test]
fn el_6_an_old_grant_of_the_same_campaign_term_is_dropped() {
    let mut c = Cluster::of(3);
    c.silence(60);
    c.campaign(A);
    let grants = [B, C].map(|voter| {
        c.deliver(A, voter);
        c.take_first(voter, A, |_| true)
    });
    // The grants are on their way while A gives up and asks anew, five seconds later.
    c.lose_all();
    c.tick(A, 500);
    assert_eq!((c.role(A), c.term(A)), (RoleName::PreCandidate, 1), "the same campaign term");
    for grant in grants {
        let out = c.hand(grant);
        assert_eq!(out.dropped, Some(Dropped::Stale));
    }
    assert_eq!((c.role(A), c.term(A)), (RoleName::PreCandidate, 1));
    c.lose_all();
    c.tick(A, 5);
    for voter in [B, C] {
        c.deliver(A, voter);
        c.deliver(voter, A);
    }
    assert_eq!(c.role(A), RoleName::Candidate, "an answer to the new question counts");
}

/// D5.1.11: one message with the last term that is believed at all does not end elections: the term rises by a
/// bounded amount, durably, and the cluster goes on.
#[test]
fn tr_1_a_term_far_ahead_is_believed_in_part_and_the_cluster_goes_on() {
    let mut c = Cluster::of(3);
    c.elect(A);
    for hostile in 0..20 {
        let term = Term(Term::LIMIT.0 - 1);
        for (to, claims) in [(B, C), (A, C)] {
            let reply = ReadIndexReply { term, boot: Boot(1), sequence: hostile, index: None };
            let out = c.say(claims, to, Message::ReadIndexReply(reply));
            assert_eq!(out.dropped, Some(Dropped::TermTooFar));
            assert_eq!(out.alarms, [Alarm::TermTooFar { from: NodeId(claims), term }]);
            c.persist(to);
            assert!(c.node(to).disk.hard_state.term >= Term(1 << 31), "durably");
            assert!(c.term(to) < 1 << 32, "all messages of one time together");
        }
    }
    let settled = |c: &Cluster| {
        c.leader().is_some_and(|leader| c.ids().iter().all(|id| c.leader_of(*id) == Some(leader)))
    };
    assert!(c.pass_until(2_000, settled).is_some(), "it elects");
    let leader = c.leader().unwrap();
    c.propose(leader, 1);
    c.pass(50);
    assert_eq!(c.commit(A), c.last(leader));
    // However far nodes were pushed apart, they meet: each further time brings the rest closer.
    let (ahead, late) = (c.term(leader) + (1 << 33), C);
    for _ in 0..5 {
        c.silence(60);
        let reply = ReadIndexReply { term: Term(ahead), boot: Boot(1), sequence: 0, index: None };
        c.say(B, late, Message::ReadIndexReply(reply));
        c.persist(late);
    }
    assert_eq!(c.term(late), ahead);
}
