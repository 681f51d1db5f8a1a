//! A network that repeats, reorders, delays and misdelivers: hazards TR at the level of the core. The random lives in
//! `random.rs` do all of it at once; here each stands alone.

mod common;
use common::*;
use coracle_core::*;

/// TR-1: everything arrives three times.
#[test]
fn tr_1_every_message_three_times() {
    let mut c = Cluster::of(3);
    let mut proposed = 0;
    for tick in 0..300 {
        for id in c.ids() {
            c.tick(id, 1);
        }
        if let Some(leader) = c.leader().filter(|_| tick % 3 == 0) {
            c.propose(leader, 2);
            c.read(leader);
            proposed += 2;
        }
        let mut messages = 0;
        while let Some(mail) = c.take_nth(0) {
            for _ in 0..3 {
                c.hand(mail.clone());
            }
            for id in c.ids() {
                c.persist(id);
            }
            messages += 1;
            assert!(messages < 1000, "no answer breeds answers without end");
        }
    }
    c.pass(20);
    c.assert_converged();
    assert!(proposed > 100 && c.commit(A) > proposed, "{}", c.describe());
}

/// TR-1: the newest message always first, so that everything else is late.
#[test]
fn tr_1_every_message_in_the_wrong_order() {
    let mut c = Cluster::of(3);
    c.elect(A);
    for _ in 0..50 {
        c.propose(A, 1);
        c.tick(A, 5);
        while c.waiting() > 0 {
            let last = c.waiting() - 1;
            let mail = c.take_nth(last).unwrap();
            c.hand(mail);
            for id in c.ids() {
                c.persist(id);
            }
        }
    }
    c.pass(20);
    c.assert_converged();
    assert_eq!(c.term(A), 2, "and nobody was deposed for it");
}

/// TR-1: all that was ever said in one term arrives again in a later one, after all have restarted.
#[test]
fn tr_1_the_words_of_an_old_life_change_nothing_in_a_new_one() {
    let mut c = Cluster::of(3);
    let mut old = Vec::new();
    // A is elected and replicates; each message is copied on its way.
    c.silence(60);
    c.campaign(A);
    c.propose(A, 1);
    for _ in 0..200 {
        for id in c.ids() {
            c.persist(id);
        }
        let Some(mail) = c.take_nth(0) else {
            if c.role(A) == RoleName::Leader && old.len() < 30 {
                c.propose(A, 1);
                c.tick(A, 5);
                c.read(B);
                continue;
            }
            break;
        };
        old.push(mail.clone());
        c.hand(mail);
    }
    assert!(old.len() > 20);
    for id in c.ids() {
        c.crash(id);
        c.restart(id);
    }
    c.elect(B);
    c.propose(B, 2);
    c.pass(10);
    let before: Vec<String> = c.ids().into_iter().map(|id| c.log(id)).collect();
    let term = c.term(B);
    for mail in old.into_iter().rev() {
        c.hand(mail.clone());
        c.hand(mail);
    }
    c.run();
    c.pass(20);
    assert_eq!(before, c.ids().into_iter().map(|id| c.log(id)).collect::<Vec<_>>());
    assert_eq!((c.leader(), c.term(B)), (Some(B), term));
}

/// TR-1: votes that arrive after their candidate restarted elect nobody.
#[test]
fn tr_1_votes_for_an_earlier_life_are_stale() {
    let mut c = Cluster::of(3);
    c.silence(60);
    c.campaign(A);
    c.run_pre_vote(A, B);
    c.persist(A);
    for voter in [B, C] {
        c.deliver(A, voter);
        c.persist(voter);
    }
    c.crash(A);
    c.restart(A);
    c.deliver(B, A);
    c.deliver(C, A);
    assert_eq!((c.role(A), c.term(A)), (RoleName::Follower, 2));
}

/// TR-2: what is not meant for this node, in this life, is not even looked at.
#[test]
fn tr_2_misdelivered_messages_are_dropped() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.pass(10);
    c.tick(A, 5);
    c.propose(A, 1);
    let mails: Vec<Mail> = std::iter::from_fn(|| (c.waiting() > 0).then(|| c.take_nth(0).unwrap())).collect();
    assert!(mails.len() >= 4);
    for mail in mails {
        let to = mail.envelope.to.id.0;
        let wrong = if to == B { C } else { B };
        let before = c.raft(wrong).clone();
        let out = c.hand_to(wrong, mail.clone());
        assert_eq!(out.dropped, Some(Dropped::Misdelivered));
        assert_eq!(out, Output { dropped: out.dropped, ..Output::default() }, "and nothing else");
        assert_eq!((before.term(), before.last()), (c.raft(wrong).term(), c.raft(wrong).last()));
        // The right name, another life of its disk.
        let mut other = mail;
        other.envelope.to.incarnation = Incarnation(5);
        assert_eq!(c.hand_to(to, other).dropped, Some(Dropped::Misdelivered));
    }
    // From itself: a mirror, or somebody who took its name.
    let Message::AppendEntries(heartbeat) = ({
        c.tick(A, 5);
        c.mail(A, B).pop().unwrap()
    }) else {
        panic!("a heartbeat")
    };
    let mirror = Envelope {
        from: peer(B),
        to: peer(B),
        membership: LogId::ZERO,
        message: Message::AppendEntries(heartbeat),
    };
    assert_eq!(c.step(B, Input::Receive(mirror, Carried::default())).dropped, Some(Dropped::Misdelivered));
}

/// TR-2: answers of those who are no members, or not in this life, count for nothing.
#[test]
fn tr_2_answers_of_strangers_do_not_count() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.pass(10);
    c.isolate(A);
    c.propose(A, 1);
    c.persist(A);
    let read = c.read(A);
    let round = Round(1000);
    for (id, incarnation) in [(B, 5), (C, 5), (77, 177)] {
        for round in [Round(1), Round(2), Round(3), round] {
            let reply = AppendEntriesReply {
                term: Term(2),
                round,
                promised: 0,
                matched: Index(3),
                last: Index(3),
                conflict: None,
                applied: Index(3),
                disk_age: 0,
                digest: None,
                stop: None,
                wants: None,
            };
            let from = Peer { id: NodeId(id), incarnation: Incarnation(incarnation) };
            // One that claims to know a newer membership, since the committed one turns the rest away.
            for membership in [LogId::ZERO, LogId::new(9, 9)] {
                let message = Message::AppendEntriesReply(reply);
                let envelope = Envelope { from, to: peer(A), membership, message };
                let why = c.step(A, Input::Receive(envelope, Carried::default())).dropped;
                assert!(matches!(why, Some(Dropped::NotMember | Dropped::Removed)), "{why:?}");
            }
        }
    }
    assert_eq!((c.commit(A), c.granted(A, read)), (2, None));
    // Neither do they keep a leader in office.
    c.tick(A, 61);
    assert_eq!(c.role(A), RoleName::Follower);
}

/// S23: a removed node is told apart from a newcomer by the newest membership that it names.
#[test]
fn tr_2_a_removed_node_is_turned_away_and_a_newcomer_is_not() {
    let with = membership(&[A, B, C, D], &[], &[]);
    let without = membership(&[A, B, C], &[], &[]);
    let mut c = Cluster::with_memberships(&[(1, with), (2, without)], &["1 1", "1 1", "1 1", "1"]);
    c.elect(A);
    c.pass(10);
    assert_eq!(c.raft(A).committed_membership().0, LogId::new(1, 2));
    c.silence(60);
    for (membership, dropped) in
        [(LogId::ZERO, true), (LogId::new(1, 1), true), (LogId::new(1, 2), false), (LogId::new(2, 7), false)]
    {
        let vote = RequestVote {
            campaign: Term(2),
            pre: true,
            question: 0,
            last: LogId::new(9, 9),
            handed_over: None,
        };
        let message = Message::RequestVote(vote);
        let out = c.step(
            B,
            Input::Receive(Envelope { from: peer(D), to: peer(B), membership, message }, Carried::default()),
        );
        assert_eq!(out.dropped == Some(Dropped::Removed), dropped, "D knows {membership}");
    }
}

/// S1 from the followers' side: whoever claims a term that has a leader already is not believed.
#[test]
fn a_second_leader_of_a_term_is_dropped() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.pass(10);
    c.tick(A, 5);
    let Message::AppendEntries(heartbeat) = c.mail(A, B).pop().unwrap() else { panic!("a heartbeat") };
    for to in [A, B] {
        let out = c.say(C, to, Message::AppendEntries(heartbeat.clone()));
        assert_eq!(out.dropped, Some(Dropped::SecondLeader));
    }
    assert_eq!((c.role(A), c.leader_of(B)), (RoleName::Leader, Some(A)));
}

/// Fields that contradict each other are not taken apart further.
#[test]
fn a_malformed_append_is_dropped_whole() {
    let append = AppendEntries {
        term: Term(3),
        prev: LogId::new(1, 1),
        last: Index(4),
        commit: Index(0),
        round: Round(1),
        lease: 0,
        persisted: Index(0),
        disk_age: 0,
        time: 0,
        agreed: None,
    };
    let carried = Carried { runs: vec![Run::new(2, 1), Run::new(3, 3)], memberships: vec![] };
    assert!(append.is_well_formed(&carried));
    let runs = |runs: &[Run]| Carried { runs: runs.to_vec(), memberships: vec![] };
    let learner_only = Membership { voters: Default::default(), ..membership(&[A, B], &[], &[]) };
    let one = || membership(&[A, B], &[], &[]);
    let memberships = |memberships| Carried { memberships, ..carried.clone() };
    let bad = [
        (AppendEntries { term: Term(0), ..append.clone() }, carried.clone()),
        (AppendEntries { term: Term(2), ..append.clone() }, carried.clone()),
        (AppendEntries { prev: LogId::new(2, 1), ..append.clone() }, carried.clone()),
        (AppendEntries { prev: LogId::new(1, 0), ..append.clone() }, carried.clone()),
        (AppendEntries { prev: LogId::new(0, 1), ..append.clone() }, carried.clone()),
        (AppendEntries { prev: LogId::new(1, 2), ..append.clone() }, carried.clone()),
        (AppendEntries { prev: LogId::new(4, 1), last: Index(1), ..append.clone() }, runs(&[])),
        (AppendEntries { last: Index(2), ..append.clone() }, carried.clone()),
        (AppendEntries { last: Index(0), ..append.clone() }, carried.clone()),
        (AppendEntries { last: Index(u64::MAX), ..append.clone() }, carried.clone()),
        (AppendEntries { last: Index::LIMIT, ..append.clone() }, carried.clone()),
        (append.clone(), runs(&[])),
        (append.clone(), runs(&[Run::new(3, 3)])),
        (append.clone(), runs(&[Run::new(2, 3), Run::new(3, 3)])),
        (append.clone(), runs(&[Run::new(2, 3), Run::new(3, 2)])),
        (append.clone(), runs(&[Run::new(2, 1), Run::new(2, 2)])),
        (AppendEntries { prev: LogId::ZERO, last: Index(1), ..append.clone() }, runs(&[Run::new(1, 0)])),
        (append.clone(), memberships(vec![(Index(1), one())])),
        (append.clone(), memberships(vec![(Index(5), one())])),
        (append.clone(), memberships(vec![(Index(3), one()), (Index(2), one())])),
        (append.clone(), memberships(vec![(Index(2), one()), (Index(2), one())])),
        (append.clone(), memberships(vec![(Index(2), learner_only)])),
    ];
    for (at, (append, carried)) in bad.into_iter().enumerate() {
        let mut c = Cluster::of(2);
        let out = c.claim(A, B, append, carried);
        assert_eq!(out, Output { dropped: Some(Dropped::Malformed), ..Output::default() }, "case {at}");
        assert_eq!((c.term(B), c.leader_of(B)), (1, None));
    }
}
