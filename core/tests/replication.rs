//! How the followers' logs become the leader's: §5.3, batches and pipelines, lost and repeated
//! messages (hazards LG), and the limits that the settings promise.

mod common;
use common::*;
use coracle_core::*;

fn append(term: u64, prev: LogId, last: u64, commit: u64) -> AppendEntries {
    AppendEntries {
        term: Term(term),
        prev,
        last: Index(last),
        commit: Index(commit),
        round: Round(1),
        lease: 0,
        persisted: Index(0),
        disk_age: 0,
        time: 0,
        agreed: None,
    }
}

fn carries_entries(message: &Message) -> bool {
    matches!(message, Message::AppendEntries(append) if append.count() > 0)
}

fn counts(messages: &[Message]) -> Vec<u64> {
    messages
        .iter()
        .filter_map(|message| match message {
            Message::AppendEntries(append) if append.count() > 0 => Some(append.count()),
            _ => None,
        })
        .collect()
}

/// The paper's Figure 7: a leader of term 8, and all the ways in which followers' logs can differ from its own.
#[test]
fn figure_7_every_follower_ends_with_the_leaders_log() {
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
    for entries in [1, 2, 1024] {
        let settings = Settings { message_entries: entries, ..Settings::default() };
        let mut c = Cluster::build(settings, 1, &Cluster::voters(7), &logs);
        c.enter(A, 7);
        c.elect_by(A, &[2, 3, 6, 7]);
        c.heal();
        c.pass(20);
        for id in c.ids() {
            assert_eq!(c.log(id), "1 1 1 4 4 5 5 6 6 6 8");
        }
        c.assert_converged();
    }
}

/// LG-1: an AppendEntries that comes late says less than what is known by now. Nothing is cut for it.
#[test]
fn lg_1_an_old_or_repeated_append_does_not_truncate() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.pass(10);
    c.propose(A, 1);
    let first = c.take_first(A, B, carries_entries);
    c.hand(first.clone());
    c.propose(A, 1);
    let second = c.take_first(A, B, carries_entries);
    c.hand(second.clone());
    c.persist(B);
    c.deliver(B, A);
    c.persist(A);
    assert_eq!((c.commit(A), c.log(B)), (4, "1 2 2 2".into()));
    for late in [first, second] {
        let out = c.hand(late);
        assert_eq!((c.log(B), out.write), ("1 2 2 2".into(), None));
    }
    // Every part of the leader's log, in any order, leaves the same log.
    for prev in (0..=4).rev() {
        for last in prev..=4 {
            let prev_id = LogId::new(prev.min(2), prev);
            let prev_id = if prev == 1 { LogId::new(1, 1) } else { prev_id };
            c.give(A, B, append(2, prev_id, last, 0));
            assert_eq!(c.log(B), "1 2 2 2", "prev {prev}, last {last}");
        }
    }
}

/// LG-1: only a real conflict of terms truncates, and only from there on.
#[test]
fn lg_1_a_conflict_truncates_from_its_first_entry_on() {
    let mut c = Cluster::with_logs(&["1 1 3 3", "1 1 2 2 2 2", "1"]);
    c.elect_by(A, &[C]);
    c.heal();
    c.pass(10);
    assert_eq!(c.log(B), "1 1 3 3 4");
    // And in one message: what is equal stays, what differs goes, what is new comes, in a single write.
    let mut c = Cluster::with_logs(&["1 1 3 3", "1 1 2 2 2 2"]);
    let out = c.give(A, B, append(3, LogId::new(1, 1), 4, 0));
    let write = out.write.expect("a write");
    assert_eq!((write.truncate, write.append), (Some(Index(2)), Some((Index(3), Index(4)))));
    assert_eq!(out.tail, [TailChange::Truncate(Index(2)), TailChange::TakeReceived(Index(3))]);
    assert_eq!(c.log(B), "1 1 3 3");
}

/// A committed entry is never truncated, whoever demands it.
#[test]
fn lg_1_what_contradicts_a_committed_entry_is_dropped() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.propose(A, 2);
    c.pass(10);
    assert_eq!((c.log(B), c.commit(B)), ("1 2 2 2".into(), 4));
    let liars = [
        (append(9, LogId::new(1, 1), 2, 0), vec![Run::new(2, 9)]),
        (append(9, LogId::new(9, 4), 4, 0), vec![]),
        (append(9, LogId::new(1, 3), 3, 9), vec![]),
    ];
    for (lie, runs) in liars {
        let out = c.claim(C, B, lie, Carried { runs, memberships: vec![] });
        assert_eq!(out.dropped, Some(Dropped::ContradictsCommitted));
        assert_eq!(c.log(B), "1 2 2 2");
    }
}

/// LG-2: after compaction the beginning of the log is gone, and an old message that starts there fits all the same.
#[test]
fn lg_2_an_append_from_before_the_purged_entry_changes_nothing() {
    let image = |purged: u64| {
        let members = Cluster::voters(2);
        let mut image = Image { log: parse_log("1 1 1 2 2", &members), ..Image::default() };
        image.hard_state.term = Term(2);
        if purged > 0 {
            image.purged = image.id_at(Index(purged)).unwrap();
            image.base = Some((LogId::new(1, 1), members[0].1.clone()));
            image.log.drain(..purged as usize);
        }
        image
    };
    for purged in 1..=5 {
        for prev in 0..=purged {
            for last in prev..=5 {
                let mut c = Cluster::from_images(Settings::default(), 1, vec![image(0), image(purged)]);
                let whole = c.node(A).memory.clone();
                let prev_id = whole.id_at(Index(prev)).unwrap();
                let before = c.log(B);
                let out = c.give(A, B, append(2, prev_id, last, 0));
                assert_eq!((c.log(B), out.dropped), (before, None), "purged {purged}: {prev}..{last}");
                assert_eq!(c.last(B), 5);
            }
        }
    }
    // One that contradicts the purged entry, on the other hand, is of another world.
    let mut c = Cluster::from_images(Settings::default(), 1, vec![image(0), image(4)]);
    let carried = Carried { runs: vec![Run::new(4, 1)], memberships: vec![] };
    let out = c.claim(A, B, append(2, LogId::new(1, 3), 5, 0), carried);
    assert_eq!(out.dropped, Some(Dropped::ContradictsCommitted));
}

/// LG-5: acknowledgements overtake each other; what is matched stays matched.
#[test]
fn lg_5_match_never_goes_back() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.pass(10);
    let mut replies = Vec::new();
    for _ in 0..3 {
        c.propose(A, 1);
        c.deliver(A, B);
        c.persist(B);
        replies.push(c.take(B, A));
    }
    let [one, two, three] = replies.try_into().unwrap();
    for (reply, next) in [(three.clone(), 6), (one, 6), (two.clone(), 6), (two, 6), (three, 6)] {
        c.hand(reply);
        let b = c.progress(A, B);
        assert_eq!((b.matched.0, b.next.0, b.messages_in_flight), (5, next, 0));
    }
}

/// LG-5: an acknowledgement of what the leader does not have is nonsense.
#[test]
fn lg_5_nobody_acknowledges_more_than_there_is() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.pass(10);
    for (matched, round) in [(3, 1), (u64::MAX, 1), (2, 1000), (2, u64::MAX)] {
        let reply = AppendEntriesReply {
            term: Term(2),
            round: Round(round),
            promised: 0,
            matched: Index(matched),
            last: Index(matched),
            conflict: None,
            applied: Index(0),
            disk_age: 0,
            digest: None,
            stop: None,
            wants: None,
        };
        let out = c.say(B, A, Message::AppendEntriesReply(reply));
        assert_eq!(out.dropped, Some(Dropped::Malformed));
        assert_eq!(c.progress(A, B).matched, Index(2));
    }
}

/// LG-7: whatever the limits, each message starts where the one before it ended (the box checks every one).
#[test]
fn lg_7_batches_leave_no_gap_whatever_their_limits() {
    for entries in [1, 2, 3, 7] {
        for bytes in [1, 3, 5] {
            for window in [1, 2, 5] {
                let settings = Settings {
                    message_entries: entries,
                    message_bytes: bytes,
                    inflight_messages: window,
                    ..Settings::default()
                };
                let mut c = Cluster::build(settings, 1, &Cluster::voters(3), &["1 1 2*20 3", "1 1 1 1", "1"]);
                c.elect(A);
                c.propose(A, 10);
                c.pass(20);
                c.assert_converged();
            }
        }
    }
}

/// LG-10: what was truncated is not remembered anywhere. (The box compares tail, disk and terms throughout.)
#[test]
fn lg_10_after_truncation_memory_and_disk_tell_the_same_story() {
    for crash in [false, true] {
        let mut c = Cluster::with_logs(&["1*12 3*9", "1*10 2*11", "1"]);
        c.elect_by(A, &[C]);
        c.heal();
        if crash {
            c.tick(A, 10);
            c.deliver(A, B);
            c.deliver(B, A);
            c.deliver(A, B);
            c.crash(B);
            c.restart(B);
        }
        c.pass(100);
        let node = c.node(B);
        assert_eq!((&node.memory.log, &node.disk.log), (&c.node(A).memory.log, &c.node(A).disk.log));
        for at in 0..=c.last(B) {
            assert_eq!(c.raft(B).term_at(Index(at)), c.raft(A).term_at(Index(at)));
        }
    }
}

/// A36 and B19 of the rows: a long conflict costs round trips by its terms, not by its entries.
#[test]
fn a_conflict_of_100_000_entries_takes_round_trips_by_terms_only() {
    for terms in [1, 4, 16] {
        let each = 100_000 / terms;
        let theirs: Vec<String> = (0..terms).map(|term| format!("{}*{each}", 2 + 2 * term)).collect();
        let ours: Vec<String> = (0..terms).map(|term| format!("{}*{each}", 3 + 2 * term)).collect();
        let (ours, theirs) = (format!("1 {}", ours.join(" ")), format!("1 {}", theirs.join(" ")));
        let mut c = Cluster::with_logs(&[&ours, &theirs]);
        c.silence(60);
        c.campaign(A);
        c.run_pre_vote(A, B);
        c.persist(A);
        c.deliver(A, B);
        c.persist(B);
        c.deliver(B, A);
        assert_eq!(c.role(A), RoleName::Leader);
        let mut round_trips = 0;
        while c.progress(A, B).probing {
            c.deliver(A, B);
            c.persist(B);
            c.deliver(B, A);
            round_trips += 1;
            assert!(round_trips <= 2 * terms + 4, "{terms} terms");
        }
        assert!(round_trips >= terms / 2, "and it is no less than what it takes");
    }
}

/// A lost message in the middle of a pipeline is found out by the next one, and a lost last one by the heartbeat.
#[test]
fn a_lost_message_is_sent_again() {
    for lost in 0..4 {
        let mut c = Cluster::of(2);
        c.elect(A);
        c.pass(10);
        for _ in 0..4 {
            c.propose(A, 1);
        }
        let mut pipeline: Vec<Mail> = (0..4).map(|_| c.take_first(A, B, carries_entries)).collect();
        pipeline.remove(lost);
        for mail in pipeline {
            c.hand(mail);
        }
        c.pass(c.settings.heartbeat);
        c.assert_converged();
        assert_eq!(c.commit(A), 6, "within a heartbeat");
    }
}

/// The leader may have missed the acknowledgement: entries that are all here already are acknowledged again, at once.
#[test]
fn entries_that_arrive_again_are_acknowledged_again() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.pass(10);
    c.propose(A, 2);
    let mail = c.take_first(A, B, carries_entries);
    c.hand(mail.clone());
    assert!(c.mail(B, A).is_empty(), "not before they are durable");
    c.hand(mail.clone());
    assert!(c.mail(B, A).is_empty(), "nor when they come again meanwhile");
    c.persist(B);
    assert_eq!(c.mail(B, A).len(), 1);
    c.lose(B, A);
    c.hand(mail);
    let acknowledged =
        |m: &Message| matches!(m, Message::AppendEntriesReply(reply) if reply.matched == Index(4));
    assert!(c.mail(B, A).iter().all(acknowledged) && c.mail(B, A).len() == 1);
}

/// All that was under way is lost, for every number of messages that a window holds.
#[test]
fn a_lost_window_is_sent_again() {
    let settings = Settings { inflight_messages: 3, ..Settings::default() };
    for proposals in 1..6 {
        for acknowledgements_only in [false, true] {
            let mut c = Cluster::with_settings(2, settings.clone());
            c.elect(A);
            c.pass(10);
            for _ in 0..proposals {
                c.propose(A, 1);
            }
            if acknowledgements_only {
                c.deliver(A, B);
                c.persist(B);
            }
            c.lose_all();
            c.pass(2 * c.settings.heartbeat);
            c.assert_converged();
        }
    }
}

/// L5: what could not be sent is tried again after a pause, also where a constant stream of reads sends rounds so often
/// that no heartbeat is ever due.
#[test]
fn a_follower_that_could_not_be_reached_is_tried_again_under_constant_reads() {
    let mut c = Cluster::of(3);
    c.sending = Sending::Connected;
    c.elect(A);
    c.pass(10);
    c.isolate(C);
    c.propose(A, 1);
    c.run();
    c.heal();
    for _ in 0..10 {
        for _ in 0..3 {
            c.read(A);
            c.run();
        }
        c.pass_one();
    }
    assert_eq!(c.last(C), 3);
}

/// And until then it is left alone.
#[test]
fn a_follower_that_cannot_be_reached_is_tried_once_per_heartbeat() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.pass(10);
    c.sending = Sending::ByHand;
    c.propose(A, 1);
    c.unsent(A, C);
    assert!(c.node(A).open.iter().all(|open| open.to != peer(C)));
    for _ in 0..4 {
        c.propose(A, 1);
        c.tick(A, 1);
        assert!(c.node(A).open.iter().all(|open| open.to != peer(C)));
    }
    c.tick(A, 1);
    let to_c: Vec<_> = c.node(A).open.iter().filter(|open| open.to == peer(C)).collect();
    assert_eq!(to_c.len(), 1);
    assert_eq!((to_c[0].append.prev.index.0, to_c[0].last.0), (2, 7));
}

/// One request is open at a time, and only its report moves `next`.
#[test]
fn what_is_sent_is_what_the_driver_says_was_sent() {
    let mut c = Cluster::of(2);
    c.elect(A);
    c.pass(10);
    c.sending = Sending::ByHand;
    c.propose(A, 5);
    c.propose(A, 5);
    assert_eq!(c.node(A).open.len(), 1);
    assert_eq!(c.progress(A, B).next.0, 3);
    // A report of another term, of another place, or of nothing does not count.
    let (to, prev) = (peer(B), LogId::new(2, 2));
    c.step(A, Input::Sent { to, term: Term(1), prev, last: Index(7), bytes: 5 });
    c.step(A, Input::Unsent { to, term: Term(1), prev });
    assert_eq!((c.progress(A, B).next.0, c.node(A).open.len()), (3, 1));
    // The driver cut the message after two entries; the core asks for the rest.
    c.sent(A, B, 2);
    assert_eq!((c.progress(A, B).next.0, c.node(A).open.len()), (5, 1));
    assert_eq!(c.node(A).open[0].last.0, 12);
    c.sent(A, B, 1000);
    assert_eq!((c.progress(A, B).next.0, c.node(A).open.len()), (13, 0));
    c.run();
    c.pass(1);
    c.assert_converged();
}

/// The follower asked to go back while a request was open: what leaves late is a harmless extra.
#[test]
fn a_conflict_while_a_request_is_open_is_not_forgotten() {
    let mut c = Cluster::with_logs(&["1 3 3", "1 2"]);
    c.sending = Sending::ByHand;
    c.elect(A);
    assert_eq!(c.progress(A, B).next.0, 2, "the heartbeats have found the place");
    assert_eq!(c.node(A).open[0].append.prev.index.0, 3, "the open request has not");
    c.sent(A, B, 10);
    assert_eq!(c.progress(A, B).next.0, 2);
    c.sent(A, B, 10);
    assert_eq!(c.progress(A, B).next.0, 5);
    c.run();
    c.pass(1);
    c.assert_converged();
}

/// D5.3.3: a disk that forgot what it had acknowledged is reported and not counted.
#[test]
fn a_follower_that_lost_what_it_acknowledged_is_reported_and_counts_no_more() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.propose(A, 3);
    c.pass(10);
    c.isolate(C);
    let short = |round| AppendEntriesReply {
        term: Term(2),
        round: Round(round),
        promised: 0,
        matched: Index(0),
        last: Index(2),
        conflict: None,
        applied: Index(0),
        disk_age: 0,
        digest: None,
        stop: None,
        wants: None,
    };
    // An old answer, from before the acknowledgement, is no such report.
    c.say(B, A, Message::AppendEntriesReply(short(0)));
    assert!(c.node(A).alarms.is_empty());
    let round = c.mail(A, B).len() as u64;
    assert_eq!(round, 0);
    c.tick(A, 5);
    let Message::AppendEntries(heartbeat) = c.mail(A, B).pop().unwrap() else { panic!() };
    c.say(B, A, Message::AppendEntriesReply(short(heartbeat.round.0)));
    let (follower, acknowledged, last) = (NodeId(B), Index(5), Index(2));
    assert_eq!(c.node(A).alarms, [Alarm::LostEntries { follower, acknowledged, last }]);
    let progress = c.progress(A, B);
    assert!(progress.lost_entries && progress.matched == Index(0), "nothing it said of its disk counts");
    let resent =
        c.mail(A, B).iter().any(|m| matches!(m, Message::AppendEntries(a) if a.prev.index == Index(2)));
    assert!(resent, "it is brought up from where its log ends");
    c.lose_all();
    c.propose(A, 1);
    c.run();
    assert_eq!(c.commit(A), 5, "A alone is no quorum, and B's word is not counted");
    c.heal();
    c.pass(10);
    assert_eq!((c.commit(A), c.commit(B)), (6, 6), "with C it is one, and B catches up");
    c.crash(C);
    c.pass(70);
    assert_ne!(c.leader(), Some(A), "without C, A cannot commit, and so does not stay in that term");
    c.pass(300);
    let leader = c.leader().expect("two are a quorum of three");
    c.propose(leader, 1);
    c.run();
    assert!(c.commit(A) > 6, "a new term trusts B anew");
}

/// D5.3.3: also where rounds leave faster than they are answered, as they do under reads.
#[test]
fn a_follower_that_lost_entries_is_noticed_though_newer_rounds_have_left() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.propose(A, 3);
    c.pass(10);
    c.isolate(C);
    c.tick(A, 5);
    let Message::AppendEntries(first) = c.mail(A, B).pop().unwrap() else { panic!() };
    c.tick(A, 5);
    let Message::AppendEntries(second) = c.mail(A, B).pop().unwrap() else { panic!() };
    assert!(second.round > first.round);
    let short = AppendEntriesReply {
        term: Term(2),
        round: first.round,
        promised: 0,
        matched: Index(0),
        last: Index(2),
        conflict: None,
        applied: Index(0),
        disk_age: 0,
        digest: None,
        stop: None,
        wants: None,
    };
    c.say(B, A, Message::AppendEntriesReply(short));
    let (follower, acknowledged, last) = (NodeId(B), Index(5), Index(2));
    assert_eq!(c.node(A).alarms, [Alarm::LostEntries { follower, acknowledged, last }]);
}

/// `message_entries`: no AppendEntries asks for more.
#[test]
fn setting_message_entries_bounds_a_message() {
    for limit in [1, 3, 10, u64::MAX] {
        let settings = Settings { message_entries: limit, ..Settings::default() };
        let mut c = Cluster::with_settings(2, settings);
        c.elect(A);
        c.pass(10);
        c.propose(A, 10);
        let counts = counts(&c.mail(A, B));
        assert_eq!(counts.iter().sum::<u64>(), 10);
        assert_eq!(counts.iter().max(), Some(&limit.min(10)));
    }
}

/// `message_bytes`: the driver is told how many bytes one message may carry.
#[test]
fn setting_message_bytes_bounds_a_message() {
    for limit in [1, 4] {
        let settings = Settings { message_bytes: limit, ..Settings::default() };
        let mut c = Cluster::with_settings(2, settings);
        c.elect(A);
        c.pass(10);
        c.propose(A, 10);
        assert!(c.node(A).out.replicate.iter().all(|replicate| replicate.max_bytes == limit));
        assert_eq!(counts(&c.mail(A, B)).into_iter().max(), Some(limit), "an entry is a byte here");
    }
}

/// `inflight_messages`: so many are under way, and no more.
#[test]
fn setting_inflight_messages_bounds_the_pipeline() {
    for limit in [1, 3, 5] {
        let settings = Settings { inflight_messages: limit, ..Settings::default() };
        let mut c = Cluster::with_settings(2, settings);
        c.elect(A);
        c.pass(10);
        for _ in 0..8 {
            c.propose(A, 1);
        }
        assert_eq!(counts(&c.mail(A, B)).len(), limit);
        assert_eq!(c.progress(A, B).messages_in_flight, limit);
    }
}

/// `inflight_bytes`: likewise in bytes, over all messages under way, and in the last of them.
#[test]
fn setting_inflight_bytes_bounds_the_pipeline() {
    let settings = Settings { inflight_bytes: 5, message_bytes: 3, ..Settings::default() };
    let mut c = Cluster::with_settings(2, settings);
    c.elect(A);
    c.pass(10);
    for _ in 0..8 {
        c.propose(A, 1);
    }
    assert_eq!(c.progress(A, B).bytes_in_flight, 5);
    c.lose_all();
    c.pass(20);
    c.propose(A, 20);
    assert_eq!(counts(&c.mail(A, B)), [3, 2], "the second gets what is left");
    c.run();
    c.pass(1);
    c.assert_converged();
}

/// While the logs are being matched, one message at a time is enough.
#[test]
fn a_new_leader_sends_one_message_until_it_is_answered() {
    let mut c = Cluster::of(2);
    c.silence(60);
    c.campaign(A);
    c.run_pre_vote(A, B);
    c.persist(A);
    c.deliver(A, B);
    c.persist(B);
    c.deliver(B, A);
    for _ in 0..5 {
        c.propose(A, 1);
    }
    assert_eq!(counts(&c.mail(A, B)), [1], "the empty entry of the term");
    c.deliver(A, B);
    c.persist(B);
    c.deliver(B, A);
    assert_eq!(counts(&c.mail(A, B)), [5]);
}

/// `heartbeat`: the pause between two heartbeats of an idle leader.
#[test]
fn setting_heartbeat_is_the_pause_between_heartbeats() {
    for heartbeat in [1, 5, 12] {
        let settings = Settings { heartbeat, ..Settings::default() };
        let mut c = Cluster::with_settings(3, settings);
        c.elect(A);
        c.pass(40);
        let mut last = None;
        for tick in 0..60u64 {
            c.tick(A, 1);
            if !c.mail(A, B).is_empty() {
                assert!(last.is_none_or(|last| tick - last == heartbeat), "{heartbeat} ticks apart");
                last = Some(tick);
            }
            c.run();
        }
        assert!(last.is_some());
    }
}

/// `election_min` and `election_max` decide about patience, stickiness and check-quorum.
#[test]
fn setting_election_min_and_max_bound_every_patience() {
    let settings = Settings { heartbeat: 2, election_min: 7, election_max: 9, ..Settings::default() };
    for seed in 0..20 {
        let mut c = Cluster::build(settings.clone(), seed, &Cluster::voters(3), &["1"; 3]);
        c.tick(A, 7);
        assert_eq!(c.role(A), RoleName::Follower);
        c.tick(A, 2);
        assert_eq!(c.role(A), RoleName::PreCandidate);
        c.lose_all();
        c.elect(B);
        c.tick(B, 8);
        assert_eq!(c.role(B), RoleName::Leader);
        c.lose_all();
        c.tick(B, 1);
        assert_eq!(c.role(B), RoleName::Follower, "no quorum for a whole maximum");
    }
}
