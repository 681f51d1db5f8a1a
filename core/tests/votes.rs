//! What a vote is worth: whom it is given to, that it is given once, for which question it counts, and what is durable
//! before anybody hears of it. §5.2 and 5.4.1 of the paper, and hazards EL and VT.

mod common;
use common::votes::*;
use common::*;
use coracle_core::*;

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
            let out = c.say(
                A,
                B,
                Message::RequestVote(RequestVote {
                    campaign: Term(9),
                    pre,
                    question: 0,
                    last,
                    handed_over: None,
                }),
            );
            let reply = vote_reply(&out);
            assert_eq!(reply.refusal.is_none(), granted, "{last} against 5.3");
            assert_eq!(reply.refusal.is_some(), reply.refusal == Some(Refusal::Log));
        }
    }
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
        commit: Index(0),
        round: Round(1),
        lease: 0,
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
        promised: 0,
        matched: Index(0),
        last: Index(0),
        conflict: None,
        applied: Index(0),
        disk_age: 0,
        digest: None,
        stop: None,
        wants: None,
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
