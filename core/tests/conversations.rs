//! Raft as it is spoken: each script's messages, writes and decisions, word for word, in `conversations/`.
//!
//! Read one of those files beside the paper; nodes are 1 to 7, an entry is written `index.term`. Whoever changes what
//! is said runs the scripts with `BLESS=1` in the environment, which rewrites the files, and reviews the difference.

mod common;
use common::*;
use coracle_core::*;

/// A quiet cluster that `A` leads, all of it committed everywhere and written down from here on.
fn quiet(size: u64, heading: &str) -> Cluster {
    let mut c = Cluster::of(size);
    c.elect(A);
    c.pass(10);
    c.write_down(heading);
    c
}

/// §5.2.
#[test]
fn an_election() {
    let mut c = Cluster::of(3);
    c.write_down("Three nodes that follow nobody elect one of them (§5.2; thesis, section 9.6).");
    c.time_out(A);
    c.run();
    c.compare("election");
}

/// §5.3, without any fault.
#[test]
fn a_write() {
    let mut c = quiet(3, "A command is written, and everybody learns that it is committed (§5.3).");
    c.propose(A, 1);
    c.run();
    c.remark("The next message tells the followers of the commit index: at the leader's next tick.");
    c.tick(A, 1);
    c.run();
    c.compare("write");
}

/// Thesis, section 3.10.
#[test]
fn a_transfer_of_leadership() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.work_until(10, |_| false);
    c.write_down("1 hands its leadership over to 3, and 2 helps, though it hears 1 (thesis, section 3.10).");
    c.transfer(A, Some(C));
    c.run();
    c.compare("transfer");
}

/// Figure 7: a leader of term 8 and six followers whose logs differ from its own in every way.
#[test]
fn figure_7() {
    let leader = "1 1 1 4 4 5 5 6 6 6";
    let followers = [
        "1 1 1 4 4 5 5 6 6",
        "1 1 1 4",
        "1 1 1 4 4 5 5 6 6 6 6",
        "1 1 1 4 4 5 5 6 6 6 7 7",
        "1 1 1 4 4 4 4",
        "1 1 1 2 2 2 3 3 3 3 3",
    ];
    let mut logs = vec![leader];
    logs.extend(followers);
    let mut c = Cluster::with_logs(&logs);
    c.enter(A, 7);
    c.elect_by(A, &[2, 3, 6, 7]);
    c.lose_all();
    c.write_down(
        "Figure 7: 1 was just elected in term 8, by 2, 3, 6 and 7; 2 to 7 are the figure's (a) to (f).",
    );
    c.tick(A, 5);
    c.run();
    c.remark("The commit index comes with the leader's next tick.");
    c.tick(A, 1);
    c.run();
    c.compare("figure-7");
    c.assert_converged();
}

/// Figure 8, and both of its ends.
#[test]
fn figure_8() {
    for (name, own_term_first) in [("figure-8-d", false), ("figure-8-e", true)] {
        let mut c = Cluster::of(5);
        c.sending = Sending::ByHand;
        c.write_down(
            "Figure 8: an entry of an older term on a majority is not committed by counting (§5.4.2).",
        );
        c.remark("(a) 1 leads term 2; its entry reaches 2 only.");
        c.elect_by(A, &[B, C]);
        c.sent(A, B, 1);
        c.run();
        c.remark("(b) 1 crashes; 5 leads term 3 by the votes of 3 and 4, and keeps its entry to itself.");
        c.crash(A);
        c.elect_by(E, &[C, D]);
        c.remark("(c) 5 crashes; 1 is back, leads term 4, and brings the entry of term 2 to 3.");
        c.crash(E);
        c.restart(A);
        c.elect_by(A, &[B, C]);
        c.lose_all();
        c.sent(A, C, 1);
        c.run();
        c.sent(A, C, 1);
        c.run();
        assert_eq!((c.log(B), c.log(C), c.commit(A)), ("1 2".into(), "1 2".into(), 0));
        if own_term_first {
            c.remark(
                "(e) An entry of its own term reaches a majority first: it commits the older one as well.",
            );
            c.sent(A, B, 1);
            c.sent(A, C, 1);
            c.run();
            assert_eq!(c.commit(A), 3);
            c.remark("5 comes back and cannot win any more.");
            c.crash(A);
            c.restart(E);
            c.silence(60);
            c.campaign(E);
            c.run();
            assert_ne!(c.role(E), RoleName::Leader);
        } else {
            c.remark("(d) 1 crashes once more; 5 leads term 5 and overwrites the entry.");
            c.crash(A);
            c.restart(E);
            c.sending = Sending::AtOnce;
            c.elect(E);
            c.tick(E, 1);
            c.run();
            assert_eq!(c.log(B), "1 3 5");
        }
        c.compare(name);
    }
}

/// Thesis, section 9.6, and what this core adds: of two that ask at once, one goes on.
#[test]
fn a_pre_vote_duel() {
    let mut c = Cluster::with_logs(&["1 1", "1", "1"]);
    c.write_down(
        "Two nodes ask for pre-votes at once. The one with the longer log goes on, the other waits for it.",
    );
    c.silence(60);
    c.campaign(A);
    c.campaign(B);
    c.run();
    assert_eq!(c.leader(), Some(A));
    c.compare("pre-vote-duel");
}

/// §5.4.1, and §5.2: votes that split elect nobody.
#[test]
fn a_split_vote() {
    let mut c = Cluster::of(4);
    c.write_down("Two of four campaign in the same term and get two votes each (§5.2).");
    c.silence(60);
    c.campaign(A);
    c.campaign(B);
    c.remark("3 and 4 grant pre-votes to both; what 1 and 2 ask of each other is lost.");
    for (candidate, voters) in [(A, [C, D]), (B, [C, D])] {
        for voter in voters {
            c.deliver(candidate, voter);
            c.persist(voter);
        }
    }
    c.lose(A, B);
    c.lose(B, A);
    for candidate in [A, B] {
        c.deliver(C, candidate);
        c.deliver(D, candidate);
        c.persist(candidate);
    }
    c.remark("Both are in term 2 now, and 3 and 4 can only vote for one each.");
    c.deliver(A, C);
    c.deliver(B, D);
    c.run();
    assert_eq!(c.leader(), None);
    c.compare("split-vote");
}

/// The end of §5.3: the conflicting term is skipped whole, at both sides.
#[test]
fn a_conflict_by_terms() {
    let mut c = Cluster::with_logs(&["1 1 3 3 3", "1 1 2 2 2 2", "1 1 3 3 3"]);
    c.elect_by(A, &[C]);
    c.lose_all();
    c.heal();
    c.write_down(
        "1 leads term 4. The log of 2 parts from it after entry 2: it goes back by whole terms (§5.3).",
    );
    c.tick(A, 5);
    c.run();
    c.compare("conflict-by-terms");
    assert_eq!(c.log(B), c.log(A));
}

/// Thesis, section 6.2: check-quorum.
#[test]
fn an_isolated_leader() {
    let mut c =
        quiet(3, "The leader is cut off. It steps down, and tells its caller that the read got no answer.");
    c.isolate(A);
    c.propose(A, 1);
    c.persist(A);
    c.read(A);
    for _ in 0..c.settings.election_max {
        c.tick(A, 1);
    }
    assert_eq!(c.role(A), RoleName::Follower);
    c.compare("isolated-leader");
}

/// A deposed leader comes back, with an entry that was never committed.
#[test]
fn a_deposed_leader() {
    let mut c =
        quiet(3, "1 is cut off with an entry that nobody else has; 2 is elected meanwhile; 1 comes back.");
    c.isolate(A);
    c.propose(A, 1);
    c.persist(A);
    c.remark("2 loses its patience; the vote of 3 is enough.");
    c.silence(60);
    c.campaign(B);
    c.run();
    assert_eq!(c.role(B), RoleName::Leader);
    c.remark("1 is connected again, and says what it believes.");
    c.heal();
    c.read(A);
    c.run();
    c.remark("2 goes on as ever.");
    c.tick(B, 5);
    c.run();
    c.tick(B, 1);
    c.run();
    c.compare("deposed-leader");
    c.assert_converged();
}

/// The first membership of a cluster is its first entry.
#[test]
fn a_founding() {
    let mut c = Cluster::build(Settings::default(), 1, &[], &["-", "-", "-"]);
    c.write_down("Three blank nodes. 1 is told the first membership, elects itself by the votes of the others, who learn of it.");
    c.bootstrap(A, membership(&[A, B, C], &[], &[]));
    c.run();
    c.tick(A, 1);
    c.run();
    c.tick(A, 1);
    c.run();
    c.compare("founding");
}

/// Thesis, section 6.4.
#[test]
fn a_read() {
    let mut c = quiet(3, "A read at the leader, and one at a follower (thesis, section 6.4).");
    c.remark("At the leader: it waits for a round of heartbeats.");
    c.read(A);
    c.run();
    c.remark("At a follower, which asks the leader for the index.");
    c.read(B);
    c.run();
    c.compare("read");
}

/// A young leader does not know yet what is committed.
#[test]
fn a_read_at_a_young_leader() {
    let mut c = Cluster::of(3);
    c.write_down("A leader answers no read before it has committed an entry of its own term (§8).");
    c.silence(60);
    c.campaign(A);
    c.run_pre_vote(A, B);
    c.persist(A);
    c.deliver(A, B);
    c.persist(B);
    c.deliver(B, A);
    assert_eq!(c.role(A), RoleName::Leader);
    c.read(A);
    c.run();
    c.compare("read-at-a-young-leader");
}

/// What is said waits for what is durable.
#[test]
fn a_slow_disk() {
    let mut c = quiet(
        3,
        "The disk of 2 is slow: the entry is committed by 1 and 3, and 2 acknowledges it when it is durable.",
    );
    c.propose(A, 1);
    c.persist(A);
    c.deliver(A, B);
    c.deliver(A, C);
    c.remark("A heartbeat is answered meanwhile.");
    c.tick(A, 5);
    c.deliver(A, B);
    c.deliver(B, A);
    c.remark("3 is done first.");
    c.persist(C);
    c.deliver(C, A);
    assert_eq!(c.commit(A), 3);
    c.remark("And then 2.");
    c.persist(B);
    c.deliver(B, A);
    c.compare("slow-disk");
}

/// §5.3: "followers may crash or run slowly, or packets may be lost".
#[test]
fn a_lost_append() {
    let mut c = quiet(
        3,
        "The message with the first entry is lost; the next one does not fit, and both are sent again.",
    );
    c.propose(A, 1);
    c.lose(A, B);
    c.propose(A, 1);
    c.run();
    c.compare("lost-append");
    assert_eq!(c.log(B), c.log(A));
}

/// "If RPC request or response contains term T > currentTerm".
#[test]
fn a_leader_steps_down() {
    let mut c =
        quiet(3, "The leader hears of a newer term, from one that nobody else heard of: it steps down.");
    c.isolate(B);
    c.remark("2 was cut off for long, and its process restarted in a newer term.");
    c.crash(B);
    let node = c.nodes.get_mut(&B).expect("node 2");
    node.disk.hard_state = HardState { term: Term(5), vote: Some(peer(B)), promised: 0 };
    c.restart(B);
    c.heal();
    c.tick(A, 5);
    c.run();
    assert_eq!((c.term(A), c.role(A)), (5, RoleName::Follower));
    c.compare("leader-steps-down");
}

/// What a node forgets when its power fails, and what it does not.
#[test]
fn a_crash() {
    let mut c =
        quiet(3, "The power of 2 fails before its entry is durable, and before it said anything about it.");
    c.propose(A, 1);
    c.deliver(A, B);
    c.crash(B);
    c.persist(A);
    c.deliver(A, C);
    c.persist(C);
    c.deliver(C, A);
    c.remark("2 is back without it, and says so.");
    c.restart(B);
    c.tick(A, 5);
    c.run();
    c.tick(A, 5);
    c.run();
    assert_eq!(c.log(B), c.log(A));
    c.compare("crash");
}

/// Every file there is one of a script here.
#[test]
fn no_conversation_is_left_over() {
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conversations");
    let scripts = include_str!("conversations.rs");
    for file in std::fs::read_dir(here).expect("the conversations") {
        let file = file.expect("a file").path();
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        assert!(scripts.contains(&format!("\"{name}\"")), "{} is of no script", file.display());
    }
}
