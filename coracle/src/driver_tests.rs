//! What the driver says of a node that cannot take more, or has not come back to where it was.

use super::*;
use crate::config::Storage;
use crate::digests::Finding;
use crate::entry::{Kind, Stamp};
use crate::rulings::{Ruling, Verdict};
use crate::stopped_machines::Found;
use crate::work::RequestId;
use coracle_core::{
    AppendEntries, Boot, ClusterId, Digest, Envelope, HardState, Incarnation, Index, LogId, Member,
    Membership, Message, NodeId, Peer, Raft, ReadIndexReply, RequestVote, RequestVoteReply, Restored,
    RoleName, Round, Run, Term, Tick,
};

const ME: Peer = Peer { id: NodeId(1), incarnation: Incarnation(11) };

/// A node alone in its cluster, restarted on a log of so many entries of term 1.
fn driver(last: u64) -> Driver<RequestId, RequestId> {
    one_of(1, last)
}

/// One of so many.
fn one_of(voters: u64, last: u64) -> Driver<RequestId, RequestId> {
    let mut config = Config::new(1, "127.0.0.1:0", Storage::Memory);
    config.machine = (3, true);
    let member = |id| Member { id: NodeId(id), incarnation: Incarnation(10 + id), address: String::new() };
    let restored = Restored {
        hard_state: HardState { term: Term(1), vote: None, promised: 0 },
        runs: vec![Run::new(1, 1)],
        last: Index(last),
        memberships: vec![(LogId::new(1, 1), Membership::of_voters(ClusterId(1), (1..=voters).map(member)))],
        ..Restored::default()
    };
    let raft = Raft::new(ME, Boot(5), config.core(), 7, restored, Tick(0)).unwrap();
    Driver::new(Replica::new(raft, &config, 0), Some(ClusterId(1)), Boot(5), &config)
}

fn at(tick: u64) -> Moment {
    Moment::new(10 * tick, 0)
}

/// Lets it become the leader, its log durable. What it wants loaded meanwhile.
fn lead(driver: &mut Driver<RequestId, RequestId>) -> Vec<Load> {
    let mut loads = driver.turn(at(1000), true).loads;
    for _ in 0..3 {
        driver.on_persisted(driver.raft().newest_write());
        loads.extend(driver.turn(at(1000), false).loads);
    }
    assert!(driver.raft().is_leader());
    loads
}

/// D5.2.9: a leader whose log has no room refuses writes at once, says why, and takes them again when it has some.
#[test]
fn st_5_a_leader_without_room_refuses_writes_until_there_is_some() {
    let mut driver = driver(1);
    lead(&mut driver);
    driver.on_space(Some("no room in log-2".to_owned()));
    assert_eq!(driver.no_space(), Some("no room in log-2"));
    driver.on_write(Bytes::new(), Duration::ZERO, Way::Once, RequestId(1));
    let actions = driver.turn(at(1001), false);
    assert!(matches!(actions.answers[..], [Answer::Write(RequestId(1), Err(WriteError::Busy(Busy::Space)))]));
    assert!(actions.orders.is_empty(), "nothing is even tried");
    driver.on_read(RequestId(2));
    let actions = driver.turn(at(1001), false);
    assert!(matches!(actions.work[..], [Work::Read(..)]), "reads go on");
    driver.on_space(None);
    driver.on_write(Bytes::new(), Duration::ZERO, Way::Once, RequestId(3));
    let actions = driver.turn(at(1001), false);
    assert!(actions.answers.is_empty() && !actions.orders.is_empty());
}

/// A node has caught up once its machine has applied what the log held at the start, and not when it leads.
#[test]
fn a_restarted_node_has_caught_up_when_its_machine_has() {
    let mut driver = driver(3);
    let loads = lead(&mut driver);
    assert!(!driver.caught_up(), "it leads, but its machine has applied nothing");
    let [load] = &loads[..] else { panic!("{loads:?}") };
    let entry = |index| {
        let kind = if index == 1 { Kind::Membership } else { Kind::Noop };
        Entry::new(LogId::new(1, index), kind, Stamp::default(), &[])
    };
    driver.on_loaded(load.clone(), Ok((1..=3).map(entry).collect()));
    let mut handed = Vec::new();
    for work in driver.turn(at(1001), false).work {
        if let Work::Apply(entries) = work {
            handed.extend(entries);
        }
    }
    let newest = handed.last().expect("the machine gets what was read");
    let bytes = handed.iter().map(|entry| entry.len() as u64).sum();
    assert!(!driver.caught_up(), "it was handed over, and is not applied yet");
    driver.on_progress(Progress { applied: newest.id(), bytes, ..Progress::default() });
    driver.turn(at(1002), false);
    assert!(driver.caught_up());
}

/// One that leads, its machine up to date.
fn ready() -> Driver<RequestId, RequestId> {
    let mut driver = driver(1);
    let loads = lead(&mut driver);
    let [load] = &loads[..] else { panic!("{loads:?}") };
    let first = Entry::new(LogId::new(1, 1), Kind::Membership, Stamp::default(), &[]);
    driver.on_loaded(load.clone(), Ok(vec![first]));
    driver.turn(at(1001), true);
    driver
}

/// The machine is woken for those who wait once the core has decided, and not before.
#[test]
fn whoever_waits_for_an_entry_goes_to_the_machine_together_with_it() {
    let mut driver = ready();
    driver.on_write(Bytes::new(), Duration::ZERO, Way::Once, RequestId(3));
    assert!(driver.turn(at(1001), false).work.is_empty(), "it is not committed yet");
    driver.on_persisted(driver.raft().newest_write());
    let work = driver.turn(at(1001), false).work;
    let [Work::Expect(id, Caller::Here(RequestId(3))), Work::Apply(entries)] = &work[..] else { panic!() };
    assert_eq!(entries.last().unwrap().id(), *id);
}

/// Who waits for an entry that is not decided is answered by a stop too.
#[test]
fn a_stop_finds_those_who_wait_for_an_entry_that_is_not_committed() {
    let mut driver = ready();
    driver.on_write(Bytes::new(), Duration::ZERO, Way::Once, RequestId(3));
    driver.turn(at(1001), false);
    let (writes, reads) = driver.stop();
    assert_eq!((writes, reads), (vec![Caller::Here(RequestId(3))], vec![]));
}

fn digest(index: u64, state: u8) -> Digest {
    Digest { index: Index(index), format: 1, version: 1, bytes: [state; 16] }
}

/// The machine looks like this at the index, or like nothing yet.
fn compared(driver: &mut Driver<RequestId, RequestId>, digest: Option<Digest>) {
    let applied = LogId::new(1, digest.map_or(0, |digest| digest.index.0));
    driver.on_progress(Progress { applied, compared: digest, ..Progress::default() });
}

/// A leader of the same cluster says what a majority's machines look like.
fn hear(driver: &mut Driver<RequestId, RequestId>, agreed: Digest) {
    let from = Peer { id: NodeId(2), incarnation: Incarnation(12) };
    let append = AppendEntries {
        term: Term(1),
        prev: LogId::ZERO,
        last: Index(0),
        commit: Index(0),
        round: Round(1),
        lease: 0,
        persisted: Index(0),
        disk_age: 0,
        time: 0,
        agreed: Some(agreed),
    };
    let envelope =
        Envelope { from, to: ME, membership: LogId::new(1, 1), message: Message::AppendEntries(append) };
    driver.on_message(from, ClusterId(1), true, PeerMessage::Raft { envelope, entries: vec![] });
}

/// D5.1.14: it applies, answers and leads no more, whichever of the two is known first, and says so durably.
#[test]
fn a_node_whose_machine_differs_from_a_majoritys_uses_it_no_more() {
    for own_first in [false, true] {
        let mut driver = one_of(3, 4096).authenticated();
        if own_first {
            compared(&mut driver, Some(digest(1024, 2)));
            hear(&mut driver, digest(1024, 1));
        } else {
            hear(&mut driver, digest(1024, 1));
            assert_eq!(driver.fenced(), None, "its machine has not come there");
            compared(&mut driver, Some(digest(1024, 2)));
        }
        driver.on_read(RequestId(4));
        let Actions { orders, work, answers, findings, .. } = driver.turn(at(1), true);
        assert_eq!(driver.fenced(), Some(Index(1024)));
        assert!(matches!(orders[..], [Order::Fence(Index(1024)), ..]), "{orders:?}");
        assert!(matches!(work[..], [Work::Fence]));
        assert_eq!(findings, [Finding::Differs(ME.id, Index(1024))]);
        assert!(matches!(answers[..], [Answer::Read(RequestId(4), ReadError::Diverged)]));
        // Neither patience nor another comparison brings it back, and it is told once.
        hear(&mut driver, digest(2048, 1));
        compared(&mut driver, Some(digest(2048, 2)));
        for tick in 1000..1200 {
            let actions = driver.turn(at(tick), true);
            assert!(actions.work.is_empty() && actions.findings.is_empty());
        }
        assert_eq!(driver.raft().role_name(), RoleName::Follower, "it asks for no vote");
    }
}

/// Lets it become the leader by the votes of all others. When that was, and what it said then.
fn win(driver: &mut Driver<RequestId, RequestId>) -> (u64, Vec<(Peer, PeerMessage)>) {
    let (mut tick, mut said) = (1000, Vec::new());
    while !driver.raft().is_leader() {
        let mut send = driver.turn(at(tick), true).send;
        driver.on_persisted(driver.raft().newest_write());
        send.extend(driver.turn(at(tick), false).send);
        for (to, message) in &send {
            let to = *to;
            let PeerMessage::Raft { envelope: Envelope { message: Message::RequestVote(vote), .. }, .. } =
                message
            else {
                continue;
            };
            let RequestVote { campaign, pre, question, .. } = *vote;
            let term = if pre { driver.raft().term() } else { campaign };
            let message = Message::RequestVoteReply(RequestVoteReply {
                campaign,
                pre,
                question,
                term,
                refusal: None,
                leader: None,
            });
            let envelope = Envelope { from: to, to: ME, membership: LogId::new(1, 1), message };
            driver.on_message(to, ClusterId(1), true, PeerMessage::Raft { envelope, entries: vec![] });
        }
        said = send;
        tick += 1;
        assert!(tick < 1100, "it is never elected");
    }
    (tick, said)
}

/// A leader is not held for right because it leads.
#[test]
fn a_leader_that_differs_from_all_others_gives_up() {
    let mut driver = one_of(3, 4096).authenticated();
    let peer = |id| Peer { id: NodeId(id), incarnation: Incarnation(10 + id) };
    win(&mut driver);
    compared(&mut driver, Some(digest(1024, 2)));
    driver.on_digest(peer(2), digest(1024, 1));
    assert!(driver.fenced().is_none(), "one against one");
    driver.on_digest(peer(3), digest(1024, 1));
    driver.on_write(Bytes::new(), Duration::ZERO, Way::Once, RequestId(3));
    let Actions { work, answers, findings, .. } = driver.turn(at(1200), false);
    assert_eq!((driver.fenced(), driver.raft().is_leader()), (Some(Index(1024)), false));
    assert!(matches!(work[..], [Work::Fence, Work::Deposed]));
    assert!(matches!(answers[..], [Answer::Write(RequestId(3), Err(WriteError::NoLeader))]));
    assert_eq!(findings, [Finding::Differs(ME.id, Index(1024))]);
}

#[test]
fn a_node_that_was_fenced_in_an_earlier_run_stays_so_and_is_not_caught_up() {
    let mut driver = driver(1).fenced_at(Some(Index(1024)));
    let first = driver.turn(at(1000), true);
    assert!(matches!(first.work[..], [Work::Fence]) && first.orders.is_empty() && first.loads.is_empty());
    for tick in 1001..1200 {
        assert!(driver.turn(at(tick), true).loads.is_empty(), "the machine is fed nothing");
    }
    assert!(!driver.raft().is_leader() && !driver.caught_up());
    assert_eq!(driver.replica().unapplied_bytes(), 0);
}

/// Anyone could say so of anyone: an alarm is all that comes of it.
#[test]
fn what_peers_say_that_are_not_authenticated_fences_nobody() {
    let mut driver = one_of(3, 4096);
    compared(&mut driver, Some(digest(1024, 2)));
    hear(&mut driver, digest(1024, 1));
    let Actions { orders, work, findings, .. } = driver.turn(at(1), true);
    assert!(orders.is_empty() && work.is_empty() && driver.fenced().is_none());
    assert_eq!(findings, [Finding::Differs(ME.id, Index(1024))]);
}

#[test]
fn who_is_like_the_majority_or_cannot_be_compared_with_it_goes_on() {
    let other = Digest { version: 2, ..digest(1024, 1) };
    for (own, agreed) in
        [(digest(1024, 1), digest(1024, 1)), (digest(1024, 2), other), (digest(2048, 2), digest(1024, 1))]
    {
        let mut driver = one_of(3, 4096).authenticated();
        compared(&mut driver, Some(own));
        hear(&mut driver, agreed);
        let Actions { findings, .. } = driver.turn(at(1), true);
        assert!(driver.fenced().is_none() && findings.is_empty(), "{own:?} {agreed:?}");
    }
}

/// Whoever connects may say so; it must neither take memory nor outlast what is true.
#[test]
fn digests_of_strangers_and_of_what_is_not_in_the_log_are_not_kept() {
    let mut driver = one_of(3, 4096).authenticated();
    hear(&mut driver, digest(u64::MAX, 1));
    assert_eq!(driver.digests().agreed(), None);
    hear(&mut driver, digest(1024, 1));
    assert_eq!(driver.digests().agreed(), Some(digest(1024, 1)));
    for stranger in 4..100 {
        let stranger = Peer { id: NodeId(stranger), incarnation: Incarnation(1) };
        driver.on_digest(stranger, digest(1024, 1));
        assert_eq!(driver.digests().newest(stranger), None);
    }
    let member = Peer { id: NodeId(3), incarnation: Incarnation(13) };
    driver.on_digest(member, digest(1024, 1));
    assert_eq!(driver.digests().newest(member), Some(digest(1024, 1)));
}

/// This node leads in this term.
fn follow(driver: &mut Driver<RequestId, RequestId>, leader: Peer, term: u64) {
    let append = AppendEntries {
        term: Term(term),
        prev: LogId::ZERO,
        last: Index(0),
        commit: Index(0),
        round: Round(1),
        lease: 0,
        persisted: Index(0),
        disk_age: 0,
        time: 0,
        agreed: None,
    };
    let message = Message::AppendEntries(append);
    let envelope = Envelope { from: leader, to: ME, membership: LogId::new(1, 1), message };
    driver.on_message(leader, ClusterId(1), true, PeerMessage::Raft { envelope, entries: vec![] });
}

/// The writes that are handed on, to whom, and in which order.
fn handed_on(actions: &Actions<RequestId, RequestId>) -> Vec<(u64, u64, Bytes)> {
    let forwards = actions.send.iter().filter_map(|(to, message)| match message {
        PeerMessage::Forward(forward) => {
            Some((to.id.0, forward.id, forward.proposal.command().cloned().unwrap_or_default()))
        }
        _ => None,
    });
    forwards.collect()
}

/// Writes that their leader sent back go to the next one in the order in which they came, and that once.
#[test]
fn writes_that_are_sent_back_go_to_the_next_leader_in_their_order_and_once() {
    let mut driver = one_of(3, 1);
    driver.forward = true;
    let peer = |id| Peer { id: NodeId(id), incarnation: Incarnation(10 + id) };
    let back = |driver: &mut Driver<RequestId, RequestId>, from, id| {
        let reply = ForwardReply { id, outcome: Err(WriteError::NoLeader) };
        driver.on_message(from, ClusterId(1), true, PeerMessage::ForwardReply(reply));
    };
    follow(&mut driver, peer(2), 1);
    driver.turn(at(1), true);
    let commands = [b"one", b"two", b"six"].map(|command| Bytes::from_static(command));
    for (number, command) in (1..).zip(&commands) {
        driver.on_write(command.clone(), Duration::from_secs(9), Way::Once, RequestId(number));
    }
    let sent = handed_on(&driver.turn(at(2), false));
    assert!(sent.iter().map(|(to, _, command)| (*to, command)).eq(commands.iter().map(|it| (2, it))));
    // Each in a turn of its own, as they may come.
    for (_, id, _) in &sent {
        back(&mut driver, peer(2), *id);
        let actions = driver.turn(at(3), false);
        assert!(handed_on(&actions).is_empty() && actions.answers.is_empty(), "that one has just refused it");
    }
    follow(&mut driver, peer(3), 2);
    let actions = driver.turn(at(4), false);
    driver.on_persisted(driver.raft().newest_write());
    let mut sent = handed_on(&actions);
    sent.extend(handed_on(&driver.turn(at(5), false)));
    assert!(sent.iter().map(|(to, _, command)| (*to, command)).eq(commands.iter().map(|it| (3, it))));
    for (_, id, _) in &sent {
        back(&mut driver, peer(3), *id);
    }
    let Actions { answers, .. } = driver.turn(at(6), false);
    let told: Vec<u64> = answers
        .iter()
        .map(|answer| match answer {
            Answer::Write(RequestId(number), Err(WriteError::NoLeader)) => *number,
            _ => panic!("another answer"),
        })
        .collect();
    assert_eq!(told, [1, 2, 3], "sent back a second time it is over, and certainly not done");
}

/// D5.1.13: entries that the transport refused are sent again after a heartbeat interval, without a word of the follower.
#[test]
fn entries_that_the_transport_refused_are_sent_again() {
    let mut driver = one_of(2, 1);
    let entries = |sent: Vec<(Peer, PeerMessage)>| -> Vec<Unsent> {
        let sent = sent.iter().map(|(_, message)| Unsent::of(message));
        sent.filter(|what| matches!(what, Unsent::Entries(..))).collect()
    };
    let (won, said) = win(&mut driver);
    let first = entries(said);
    let [what @ Unsent::Entries(to, term, prev)] = first[..] else { panic!("{first:?}") };
    assert_eq!((to.id, term, prev), (NodeId(2), driver.raft().term(), LogId::new(1, 1)));
    assert_eq!(entries(driver.turn(at(won + 1), true).send), [], "one probe is under way");
    driver.unsent(what);
    assert_eq!(
        entries(driver.turn(at(won + 2), true).send),
        [],
        "not at once: there is no connection, perhaps"
    );
    assert_eq!(entries(driver.turn(at(won + 10), true).send), first);
}

/// The newest entry that it has applied, and when the first timer is due.
fn stands(driver: &mut Driver<RequestId, RequestId>, term: u64, index: u64, due: Option<u64>) {
    let applied = LogId::new(term, index);
    let due = due.map(|due| (due, Index(1)));
    driver.on_progress(Progress { applied, due, ..Progress::default() });
}

/// The entries by which timers fire that this turn, at a tick, wants written.
fn fires(driver: &mut Driver<RequestId, RequestId>, tick: u64) -> Vec<Entry> {
    let mut entries = Vec::new();
    for order in driver.turn(at(tick), true).orders {
        let Order::Write(_, batch) = order else { continue };
        for change in batch.changes {
            let crate::storage::Change::Append(appended) = change else { continue };
            entries.extend(appended.into_iter().filter(|entry| entry.kind() == Kind::Timer));
        }
    }
    entries
}

/// D5.5.2: an entry when the clock has come so far, of that time and of this machine's version; no second one before the
/// machine has applied it; and at once the next one where more is due.
#[test]
fn a_leader_has_timers_fire_when_they_are_due_by_one_entry_at_a_time() {
    let mut driver = ready();
    let (term, last) = (driver.raft().term().0, driver.raft().last().index.0);
    let time = driver.replica().cluster_time(at(1002));
    stands(&mut driver, term, last, Some(time + 20));
    assert!(
        fires(&mut driver, 1002).is_empty() && fires(&mut driver, 1003).is_empty(),
        "not before its time"
    );
    let fired = fires(&mut driver, 1004);
    let [entry] = &fired[..] else { panic!("{fired:?}") };
    let Stamp { cluster_time, version, self_describing, .. } = entry.stamp();
    assert_eq!((cluster_time, version, self_describing), (time + 20, 3, false));
    assert!(entry.payload().is_empty());
    assert_eq!(entry.id(), LogId::new(term, last + 1));
    assert!((1005..1050).all(|tick| fires(&mut driver, tick).is_empty()), "one is under way");
    // Something else is applied, and it still is.
    stands(&mut driver, term, last, Some(time));
    assert!(fires(&mut driver, 1051).is_empty());
    stands(&mut driver, term, last + 1, Some(time + 20));
    assert_eq!(fires(&mut driver, 1052).len(), 1, "there were more than one entry may have fire");
    stands(&mut driver, term, last + 2, None);
    assert!(fires(&mut driver, 1053).is_empty());
}

/// What the office before had fire, its machine may not know yet.
#[test]
fn a_leader_whose_machine_has_not_come_to_its_office_has_nothing_fire() {
    let mut driver = ready();
    let (term, last) = (driver.raft().term().0, driver.raft().last().index.0);
    stands(&mut driver, term - 1, last - 1, Some(0));
    assert!(fires(&mut driver, 1002).is_empty());
    stands(&mut driver, term, last, Some(0));
    driver.on_space(Some("no room in log-2".to_owned()));
    assert!(fires(&mut driver, 1003).is_empty(), "nor where its log has no room");
    driver.on_space(None);
    assert_eq!(fires(&mut driver, 1004).len(), 1);
}

/// D5.6.1: users' commands wait for the disk, more than may, and are refused.
#[test]
fn what_fires_timers_is_never_refused_as_busy() {
    let mut driver = ready();
    let (term, last) = (driver.raft().term().0, driver.raft().last().index.0);
    let large = Bytes::from(vec![0; 16 << 20]);
    let mut busy = 0;
    for request in 0..20 {
        driver.on_write(large.clone(), Duration::ZERO, Way::Once, RequestId(request));
        busy += driver.turn(at(1002), false).answers.len();
    }
    assert!(busy > 0 && driver.replica().busy().is_some());
    stands(&mut driver, term, last, Some(0));
    assert_eq!(fires(&mut driver, 1003).len(), 1);
}

/// D5.5.1: a member that was not met, or is of an older version, would stop at such an entry.
#[test]
fn timers_wait_until_all_members_are_known_to_know_them() {
    let mut driver = one_of(3, 1);
    let others = [2, 3].map(|id| Peer { id: NodeId(id), incarnation: Incarnation(10 + id) });
    for (levels, know) in
        [([None, Some(2)], 0), ([Some(0), Some(2)], 0), ([Some(1), Some(2)], 1), ([Some(2); 2], 2)]
    {
        let known = others.into_iter().zip(levels).filter_map(|(peer, level)| Some((peer, level?)));
        driver.knowing = Knowing::These(known.collect());
        for level in 1..=3 {
            assert_eq!(driver.all_know(level), level <= know, "{levels:?}");
        }
    }
    driver.knowing = Knowing::These(BTreeMap::new());
    driver.machine.level = 2;
    assert!(driver.all_know(2), "there is one in the log already");
}

/// D5.5.5: a new member that lacks a skip is not told that the entry is committed which it would apply.
#[test]
fn whoever_lacks_a_skip_is_not_told_that_the_entry_is_committed() {
    let skip = Ruling { entry: LogId::new(1, 5), verdict: Verdict::Skip };
    let retry = Ruling { entry: LogId::new(1, 2), verdict: Verdict::Retry };
    let ruled = BTreeMap::from([(Index(7), retry), (Index(9), skip)]);
    let driver = driver(9).knowing_rulings(Found { ruled, ..Found::default() });
    for (prev, entries, commit) in [(3, 0, 4), (3, 5, 4), (3, 6, 8), (9, 0, 8), (4, 1, 4)] {
        let mut append = AppendEntries {
            term: Term(1),
            prev: LogId::new(1, prev),
            last: Index(prev),
            commit: Index(8),
            round: Round(1),
            lease: 0,
            persisted: Index(9),
            disk_age: 0,
            time: 0,
            agreed: None,
        };
        driver.hold_back_commit(&mut append, entries);
        assert_eq!(append.commit, Index(commit), "after {prev}, with {entries} entries");
    }
    // Nor by the answer to a read. Of this one nothing is known, so that it may lack all.
    let to = Peer { id: NodeId(2), incarnation: Incarnation(12) };
    for (asked, told) in [(4, Some(4)), (5, None), (8, None)] {
        let (boot, index) = (Boot(1), Some(Index(asked)));
        let mut reply = ReadIndexReply { term: Term(1), boot, sequence: 1, index };
        driver.hold_back_read(to, &mut reply);
        assert_eq!(reply.index, told.map(Index), "asked at {asked}");
    }
}
