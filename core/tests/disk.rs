//! What waits for the disk, and what a late, lost or hung disk does: rules D5.1.1 to D5.1.4.

mod common;
use common::*;
use coracle_core::*;

fn append(term: u64, prev: LogId, last: u64) -> AppendEntries {
    AppendEntries {
        term: Term(term),
        prev,
        last: Index(last),
        commit: Index(0),
        round: Round(1),
        lease: 0,
        persisted: Index(0),
        disk_age: 0,
        time: 0,
        agreed: None,
    }
}

fn acknowledged(messages: &[Message]) -> Vec<u64> {
    messages
        .iter()
        .filter_map(|message| match message {
            Message::AppendEntriesReply(reply) => Some(reply.matched.0),
            _ => None,
        })
        .collect()
}

/// D5.1.1: the write of 2.2 to 4.2 is reported after a new leader has put others in their place.
#[test]
fn a_late_completion_does_not_acknowledge_what_was_overwritten() {
    let mut c = Cluster::with_logs(&["1 2 2 2", "1", "1 3 3"]);
    c.give(A, B, append(2, LogId::new(1, 1), 4));
    assert_eq!((c.last(B), c.raft(B).persisted().0), (4, 1));
    let out = c.give(C, B, append(3, LogId::new(1, 1), 3));
    let write = out.write.unwrap();
    assert_eq!((write.truncate, write.append), (Some(Index(1)), Some((Index(2), Index(3)))));
    let late = c.write_one(B).unwrap();
    c.tell_persisted(B, late);
    assert_eq!(c.raft(B).persisted().0, 1, "the first write made nothing safe that is still there");
    assert!(acknowledged(&c.mail(B, C)).is_empty(), "nor is term 3 durable yet");
    c.persist(B);
    assert_eq!(c.raft(B).persisted().0, 3);
    assert_eq!(acknowledged(&c.mail(B, C)).last(), Some(&3));
}

/// D5.1.1 for any number of writes in flight, each overwriting a part of the one before.
#[test]
fn every_write_makes_safe_what_none_after_it_truncated() {
    // (term, from, to): each replaces the log from `from` on; then the index that is safe after each completion.
    type Case<'a> = (&'a [(u64, u64, u64)], &'a [u64]);
    let cases: [Case; 4] = [
        (&[(2, 2, 6), (3, 4, 8), (4, 3, 5)], &[2, 2, 5]),
        (&[(2, 2, 4), (2, 5, 6), (3, 6, 6)], &[4, 5, 6]),
        (&[(2, 2, 9), (3, 2, 2), (4, 3, 4), (5, 4, 9)], &[1, 2, 3, 9]),
        (&[(2, 2, 3), (3, 3, 3), (4, 2, 2)], &[1, 1, 2]),
    ];
    for (writes, safe) in cases {
        for skip in [false, true] {
            let mut c = Cluster::with_logs(&["1", "1"]);
            let mut runs: Vec<u64> = vec![1];
            for (term, from, to) in writes {
                runs.truncate(*from as usize - 1);
                runs.resize(*to as usize, *term);
                let text: Vec<String> = runs.iter().map(u64::to_string).collect();
                let source = Cluster::with_logs(&[&text.join(" ")]);
                let prev = source.node(A).memory.id_at(Index(from - 1)).unwrap();
                let message = append(*term, prev, *to);
                c.give_from(&source, A, B, message);
                assert_eq!(c.log(B), text.join(" "));
            }
            if skip {
                c.persist_at_once(B);
                assert_eq!(c.raft(B).persisted().0, *safe.last().unwrap(), "the newest stands for all");
                continue;
            }
            for safe in safe {
                c.persist_one(B);
                assert_eq!(c.raft(B).persisted().0, *safe, "{writes:?}");
            }
        }
    }
}

/// A report that comes twice, too late, or for a write that was never handed out.
#[test]
fn a_report_of_a_write_counts_once() {
    let mut c = Cluster::of(2);
    c.elect(A);
    for id in [c.raft(A).newest_write(), WriteId(0), WriteId(1)] {
        assert_eq!(c.step(A, Input::Persisted(id)).dropped, Some(Dropped::Stale));
    }
    c.propose(A, 1);
    let never = c.raft(A).newest_write().next();
    let out = c.step(A, Input::Persisted(never));
    assert_eq!((out.dropped, c.raft(A).persisted().0), (Some(Dropped::Stale), 2));
}

/// Writes are named in order, one per step at most.
#[test]
fn write_ids_only_grow() {
    let mut c = Cluster::of(3);
    let mut newest = WriteId(0);
    c.silence(60);
    c.campaign(A);
    c.run_pre_vote(A, B);
    for step in 0..20 {
        c.persist(A);
        if c.role(A) == RoleName::Leader {
            let ticket = Ticket(900 + step);
            let write = c.step(A, Input::Propose { ticket, count: 1 }).write.unwrap();
            assert!(write.id > newest);
            assert_eq!(write.id, c.raft(A).newest_write());
            newest = write.id;
        }
        c.run();
    }
    assert!(newest > WriteId(5));
}

/// RD-2: a heartbeat that comes late takes no newer round back, or reads would wait for one more.
#[test]
fn rd_2_an_acknowledgement_echoes_the_newest_round_whatever_comes_late() {
    let mut c = Cluster::with_logs(&["1 1 2", "1 1"]);
    c.enter(B, 2);
    let mut newest = append(2, LogId::new(1, 2), 2);
    newest.round = Round(3);
    c.say(A, B, Message::AppendEntries(newest));
    let mut late = append(2, LogId::new(1, 2), 3);
    late.round = Round(2);
    c.give(A, B, late);
    c.persist(B);
    let rounds = c.mail(B, A).into_iter().filter_map(|message| match message {
        Message::AppendEntriesReply(reply) => Some(reply.round.0),
        _ => None,
    });
    assert_eq!(rounds.collect::<Vec<_>>(), [3, 3]);
}

/// D5.1.2: only what is durable *and* verified in this term is acknowledged.
#[test]
fn an_acknowledgement_names_what_is_durable_and_verified() {
    // B holds 1 1 1 2 2, durable, all of it from leaders before.
    let mut c = Cluster::with_logs(&["1 1 1 2 2 2", "1 1 1 2 2"]);
    c.enter(B, 3);
    // Verified, not yet new: a heartbeat in the middle.
    c.say(A, B, Message::AppendEntries(append(3, LogId::new(1, 3), 3)));
    assert_eq!(acknowledged(&c.mail(B, A)), [3], "durable to 5, verified to 3");
    // New, not yet durable.
    c.give(A, B, append(3, LogId::new(2, 5), 6));
    assert_eq!(acknowledged(&c.mail(B, A)), [3], "verified to 6, durable to 5, and nothing to say yet");
    let mut again = append(3, LogId::new(2, 5), 5);
    again.round = Round(2);
    c.say(A, B, Message::AppendEntries(again));
    assert_eq!(acknowledged(&c.mail(B, A)), [3, 5], "a new round is answered at once, with what is safe");
    c.persist(B);
    assert_eq!(acknowledged(&c.mail(B, A)), [3, 5, 6]);
}

/// D5.1.2: what one term verified says nothing in the next.
#[test]
fn a_new_term_verifies_from_nothing() {
    let mut c = Cluster::with_logs(&["1 1 1", "1 1 1", "1"]);
    c.enter(B, 2);
    c.say(A, B, Message::AppendEntries(append(2, LogId::new(1, 3), 3)));
    assert_eq!(acknowledged(&c.mail(B, A)), [3]);
    c.say(C, B, Message::AppendEntries(append(3, LogId::new(1, 1), 1)));
    c.persist(B);
    assert_eq!(acknowledged(&c.mail(B, C)), [1]);
}

/// D5.1.3: votes and grants wait for every write handed out so far, also for those of entries.
#[test]
fn votes_wait_for_every_write_before_them() {
    let mut c = Cluster::with_logs(&["1 1", "1", "1"]);
    c.give(A, B, append(1, LogId::new(1, 1), 2));
    c.silence(60);
    assert_eq!((c.writes_under_way(B), c.node(B).disk.hard_state.term), (1, Term(1)), "entries, no more");
    let pre =
        RequestVote { campaign: Term(2), pre: true, question: 0, last: LogId::new(1, 9), handed_over: None };
    c.say(C, B, Message::RequestVote(pre));
    assert!(c.mail(B, C).is_empty(), "a grant of a pre-vote waits");
    c.campaign(B);
    let asks = |c: &Cluster| c.mail(B, A).iter().any(|message| matches!(message, Message::RequestVote(_)));
    assert!(!asks(&c), "and so does the question, which speaks of the entry");
    c.persist(B);
    assert!(asks(&c) && !c.mail(B, C).is_empty());
}

/// D5.1.3: a heartbeat's answer, which says nothing new, waits for no entry.
#[test]
fn answers_to_heartbeats_do_not_wait_for_entries() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.pass(10);
    c.propose(A, 3);
    c.deliver(A, B);
    assert_eq!(c.writes_under_way(B), 1);
    c.tick(A, 5);
    c.deliver(A, B);
    assert_eq!(acknowledged(&c.mail(B, A)), [2], "at once, though the disk is busy");
    let read = c.read(A);
    c.run();
    assert!(c.granted(A, read).is_some());
}

/// D5.1.4: a new term empties what the old one wanted to say.
#[test]
fn held_messages_of_an_old_term_never_leave() {
    let mut c = Cluster::of(3);
    c.silence(60);
    c.campaign(A);
    c.run_pre_vote(A, B);
    c.lose_all();
    assert_eq!((c.term(A), c.writes_under_way(A)), (2, 1), "its request for term 2 is held");
    let newer =
        RequestVote { campaign: Term(3), pre: false, question: 0, last: LogId::new(9, 9), handed_over: None };
    c.say(C, A, Message::RequestVote(newer));
    c.persist(A);
    for to in [B, C] {
        assert!(c.mail(A, to).iter().all(|message| message.term() == Term(3)), "{:?}", c.mail(A, to));
    }
    assert_eq!(c.mail(A, B), []);
}

/// A power loss takes back what was not durable, and nothing else.
#[test]
fn after_a_power_loss_a_node_is_as_its_disk_is() {
    for durable in 0..=3 {
        let mut c = Cluster::of(3);
        c.elect(A);
        c.pass(10);
        for _ in 0..3 {
            c.propose(A, 2);
        }
        for _ in 0..durable {
            c.write_one(A);
        }
        c.crash(A);
        c.restart(A);
        assert_eq!((c.last(A), c.commit(A), c.term(A)), (2 + 2 * durable, 0, 2));
        assert_eq!(c.raft(A).persisted(), c.raft(A).last().index);
        c.pass(200);
        c.assert_converged();
    }
}

/// OV-4: a leader whose disk hangs gives up, though its heartbeats go on.
#[test]
fn ov_4_a_leader_with_a_hung_disk_steps_down() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.pass(10);
    c.propose(A, 1);
    let mut ticks = 0;
    while c.role(A) == RoleName::Leader {
        // Time passes, and only A's disk does nothing.
        for id in [A, B, C] {
            c.tick(id, 1);
        }
        for _ in 0..3 {
            for id in [B, C] {
                c.persist(id);
            }
            for (from, to) in [(A, B), (A, C), (B, A), (C, A)] {
                c.deliver(from, to);
            }
        }
        ticks += 1;
        assert!(ticks <= 125, "two maximum election timeouts");
    }
    assert!(ticks > 120);
    assert_eq!(c.commit(B), 3, "until then two disks of three were a quorum");
    assert!(matches!(c.node(A).alarms[..], [Alarm::DiskStalled { ticks: 121 }]));
    // The others go on without it, and it stays out of their way: all that it could say waits for its disk.
    for _ in 0..300 {
        for id in [A, B, C] {
            c.tick(id, 1);
        }
        for _ in 0..4 {
            for id in [B, C] {
                c.persist(id);
            }
            for from in [A, B, C] {
                for to in [A, B, C] {
                    c.deliver(from, to);
                }
            }
        }
    }
    assert!(matches!(c.leader(), Some(B | C)), "{}", c.describe());
    assert!(c.commit(B) > 3);
}

/// OV-4: alone, there is nobody to make room for.
#[test]
fn ov_4_a_single_leader_waits_for_its_disk() {
    let mut c = Cluster::of(1);
    c.elect(A);
    c.propose(A, 1);
    c.tick(A, 1000);
    assert_eq!((c.role(A), c.commit(A)), (RoleName::Leader, 2));
    c.persist(A);
    assert_eq!(c.commit(A), 3);
}

/// OV-4: a follower with a hung disk slows nobody, and does not campaign for it.
#[test]
fn ov_4_a_follower_with_a_hung_disk_slows_nobody() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.pass(10);
    for round in 0..50 {
        c.propose(A, 1);
        for id in [A, B, C] {
            c.tick(id, 5);
        }
        for _ in 0..4 {
            for id in [A, B] {
                c.persist(id);
            }
            for (from, to) in [(A, B), (A, C), (B, A), (C, A)] {
                c.deliver(from, to);
            }
        }
        assert_eq!(c.commit(A), 3 + round);
    }
    assert_eq!((c.role(C), c.term(C)), (RoleName::Follower, 2));
    let stuck = c.progress(A, C);
    assert!(stuck.matched.0 == 2 && stuck.messages_in_flight <= 64);
    c.pass(20);
    c.assert_converged();
}
