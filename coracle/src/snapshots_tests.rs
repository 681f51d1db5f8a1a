//! The pace at which snapshots are sent, and what they wait for, tick by tick.

use super::*;
use crate::applier::Progress;
use crate::config::Storage;
use crate::replica::{Moment, Replica};
use crate::rulings::{Ruling, Rulings, Verdict};
use crate::storage::snapshots::Meta;
use crate::work::RequestId;
use coracle_core::*;

type Test = Driver<RequestId, RequestId>;

fn peer(id: u64) -> Peer {
    Peer { id: NodeId(id), incarnation: Incarnation(10 + id) }
}

fn kept(index: u64, bytes: u64) -> Kept {
    let meta = Meta {
        id: LogId::new(1, index),
        digest: [7; 16],
        cluster_time: 99,
        machine_version: 0,
        compared: None,
        membership: (LogId::new(1, 1), Bytes::new()),
        level: 0,
        sessions: Bytes::new(),
        timers: Bytes::new(),
        entries_version: 0,
        rulings: Bytes::new(),
        effects: Bytes::new(),
    };
    Kept { meta, file: 5, bytes }
}

fn at(tick: u64) -> Moment {
    Moment::new(10 * tick, 0)
}

/// What a follower answers to this, if its log is empty; nothing to a piece.
fn answer(message: &Message) -> Option<Message> {
    match message {
        Message::RequestVote(ask) => Some(Message::RequestVoteReply(RequestVoteReply {
            campaign: ask.campaign,
            pre: ask.pre,
            question: ask.question,
            term: if ask.pre { Term(1) } else { ask.campaign },
            refusal: None,
            leader: None,
        })),
        Message::AppendEntries(append) => Some(Message::AppendEntriesReply(AppendEntriesReply {
            term: append.term,
            round: append.round,
            promised: 0,
            matched: Index::ZERO,
            last: Index::ZERO,
            conflict: Some(LogId::ZERO),
            applied: Index::ZERO,
            disk_age: 0,
            digest: None,
            stop: None,
            wants: None,
        })),
        _ => None,
    }
}

fn said(driver: &mut Test, from: Peer, message: Message) {
    let envelope = Envelope { from, to: peer(1), membership: LogId::new(1, 1), message };
    driver.on_message(from, ClusterId(1), true, PeerMessage::Raft { envelope, entries: Vec::new() });
}

/// One turn with its tick. Followers answer; what is to be done with files comes back.
fn turn(driver: &mut Test, tick: u64) -> Vec<FileOrder> {
    let actions = driver.turn(at(tick), true);
    for (to, message) in &actions.send {
        if let PeerMessage::Raft { envelope, .. } = message
            && let Some(answer) = answer(&envelope.message)
        {
            said(driver, *to, answer);
        }
    }
    driver.on_persisted(driver.raft().newest_write());
    actions.files
}

/// One that leads three, on a log that begins after 100 with a snapshot of so many bytes: the others lack it. What it
/// wants done with files by then, and the tick.
fn leader(bytes: u64, change: impl FnOnce(&mut Config)) -> (Test, Vec<FileOrder>, u64) {
    let mut config = Config::new(1, "127.0.0.1:0", Storage::Memory);
    config.snapshot_piece_bytes = 1000;
    change(&mut config);
    let member = |id| Member { id: NodeId(id), incarnation: peer(id).incarnation, address: String::new() };
    let snapshot = LogId::new(1, 100);
    let restored = Restored {
        hard_state: HardState { term: Term(1), vote: None, promised: 0 },
        purged: snapshot,
        snapshot,
        last: Index(100),
        memberships: vec![(LogId::new(1, 1), Membership::of_voters(ClusterId(1), (1..=3).map(member)))],
        ..Restored::default()
    };
    let raft = Raft::new(peer(1), Boot(5), config.core(), 7, restored, Tick(0)).unwrap();
    let driver = Driver::new(Replica::new(raft, &config, 0), Some(ClusterId(1)), Boot(5), &config);
    let mut driver = driver.starting_from(Some(kept(100, bytes)), 0);
    for tick in 100.. {
        let files = turn(&mut driver, tick);
        if !files.is_empty() || driver.raft().needs_snapshot().len() == 2 {
            return (driver, files, tick);
        }
        assert!(tick < 500, "it does not lead, or does not see what they lack");
    }
    unreachable!("the loop ends")
}

/// Followers that take whatever is read for them at once; how many bytes each was sent, at each tick.
fn send_for(driver: &mut Test, mut files: Vec<FileOrder>, ticks: std::ops::Range<u64>) -> Vec<[u64; 2]> {
    let mut sent = Vec::new();
    for tick in ticks {
        let mut now = [0, 0];
        for order in files {
            let FileOrder::Read { to, snapshot, offset, most } = order else { continue };
            let length = driver.snapshots.sending[&to].length;
            let bytes = (length - offset).min(most as u64);
            now[to.id.0 as usize - 2] += bytes;
            let bytes = Bytes::from(vec![0; bytes as usize]);
            let next = offset + bytes.len() as u64;
            driver.on_piece(to, Some(Piece { snapshot, file: 5, length, offset, bytes }));
            let term = driver.raft().term();
            said(
                driver,
                to,
                Message::InstallSnapshotReply(InstallSnapshotReply { term, snapshot, file: 5, next }),
            );
        }
        sent.push(now);
        files = turn(driver, tick);
    }
    sent
}

/// All followers together get no more than the limit, over any time, and each its share.
#[test]
fn snapshots_are_sent_as_fast_as_the_limit_allows_and_by_turns() {
    let (mut driver, files, from) = leader(10_000_000, |config| config.snapshot_bytes_per_second = 50_000);
    let sent = send_for(&mut driver, files, from + 1..from + 1001);
    let sum = |some: &[[u64; 2]]| some.iter().flatten().sum::<u64>();
    let total = sum(&sent);
    assert!((495_000..=505_000).contains(&total), "{total} bytes in 10 s");
    for window in sent.windows(100) {
        assert!(sum(window) <= 50_000 + 5_000 + 1_000, "{} bytes in 1 s", sum(window));
    }
    let each = [0, 1].map(|to| sent.iter().map(|now| now[to]).sum::<u64>());
    assert!(each[0].abs_diff(each[1]) <= 2_000, "{each:?}");
}

/// A piece that is larger than what is allowed in a tick leaves when it is its time.
#[test]
fn a_piece_larger_than_the_allowance_is_sent_all_the_same() {
    let (mut driver, files, from) = leader(10_000_000, |config| config.snapshot_bytes_per_second = 1_000);
    let sent = send_for(&mut driver, files, from + 1..from + 1001);
    let total: u64 = sent.iter().flatten().sum();
    assert!((9_000..=11_000).contains(&total), "{total} bytes in 10 s");
}

#[test]
fn without_a_limit_a_snapshot_is_sent_as_fast_as_it_is_taken() {
    let (mut driver, files, from) = leader(100_000, |config| config.snapshot_bytes_per_second = 0);
    let sent = send_for(&mut driver, files, from + 1..from + 300);
    assert_eq!([0, 1].map(|to| sent.iter().map(|now| now[to]).sum::<u64>()), [100_000; 2]);
}

/// Memory is bounded while a disk or a link stands still: one piece is read for a follower, and it is sent again less and
/// less often.
#[test]
fn a_piece_that_nobody_answers_is_read_once_and_sent_again_ever_more_rarely() {
    let (mut driver, files, from) = leader(100_000, |_| {});
    let mut orders = files;
    for tick in from + 1..from + 100 {
        orders.extend(turn(&mut driver, tick));
    }
    let reads = |orders: &[FileOrder]| {
        orders.iter().filter(|order| matches!(order, FileOrder::Read { to, .. } if to.id.0 == 2)).count()
    };
    assert_eq!(reads(&orders), 1, "the disk has not answered");
    let mut again = 0;
    for tick in from + 100..from + 800 {
        let (length, bytes) = (100_000, Bytes::from_static(&[0; 1000]));
        let piece = Piece { snapshot: LogId::new(1, 100), file: 5, length, offset: 0, bytes };
        driver.on_piece(peer(2), Some(piece));
        again += reads(&turn(&mut driver, tick));
    }
    assert!((4..=7).contains(&again), "sent {again} times in 7 s");
}

/// SN-4: an answer that comes twice brings one piece, or there would be two streams of pieces for good.
#[test]
fn sn_4_an_answer_that_comes_twice_brings_one_piece() {
    let (mut driver, mut files, mut tick) = leader(20_000, |config| config.snapshot_bytes_per_second = 0);
    let mut next_turn = |driver: &mut Test| {
        tick += 1;
        turn(driver, tick).into_iter().filter(|order| matches!(order, FileOrder::Read { .. })).collect()
    };
    if files.is_empty() {
        files = next_turn(&mut driver);
    }
    let (mut reads, mut again) = (Vec::new(), None);
    for _ in 0..19 {
        let first = files.iter().find(|order| matches!(order, FileOrder::Read { to, .. } if *to == peer(2)));
        let Some(FileOrder::Read { to, snapshot, offset, most }) = first.cloned() else {
            panic!("no piece is read: {files:?}, after {reads:?}")
        };
        reads.push(offset);
        let bytes = Bytes::from(vec![0; most]);
        driver.on_piece(to, Some(Piece { snapshot, file: 5, length: 20_000, offset, bytes }));
        // The answer to the piece before comes once more.
        if let Some(again) = again.take() {
            said(&mut driver, to, again);
        }
        assert_eq!(next_turn(&mut driver), [], "what it asks for is on its way");
        let (term, next) = (driver.raft().term(), offset + most as u64);
        let reply = Message::InstallSnapshotReply(InstallSnapshotReply { term, snapshot, file: 5, next });
        said(&mut driver, to, reply.clone());
        again = Some(reply);
        files = next_turn(&mut driver);
    }
    assert_eq!(reads, (0..19).map(|piece| piece * 1000).collect::<Vec<u64>>());
}

/// And a disk that does not keep up with what comes loses pieces, which come again.
#[test]
fn pieces_that_come_faster_than_they_can_be_stored_are_lost() {
    let (mut driver, _, tick) = leader(100, |_| {});
    let install = |offset| InstallSnapshot {
        term: Term(9),
        snapshot: LogId::new(1, 500),
        file: 6,
        length: 1 << 30,
        offset,
    };
    let mut takes = 0;
    for number in 0..20 {
        let message = Message::InstallSnapshot(install(number * 1000));
        let envelope = Envelope { from: peer(2), to: peer(1), membership: LogId::new(1, 1), message };
        let bytes = Bytes::from_static(&[0; 1000]);
        driver.on_message(peer(2), ClusterId(1), true, PeerMessage::Piece { envelope, bytes });
        let files = driver.turn(at(tick + 1), false).files;
        takes += files.iter().filter(|order| matches!(order, FileOrder::Take { .. })).count();
        driver.on_persisted(driver.raft().newest_write());
    }
    assert_eq!(takes, STORING);
    let coming = driver.snapshots.shown().receiving.expect("one comes");
    assert_eq!((coming.peer, coming.last.index, coming.bytes), (NodeId(2), Index(500), 1 << 30));
    // What has come is forgotten when nothing comes any more: it takes room on the disk.
    for _ in 0..STORING {
        let reply = InstallSnapshotReply { term: Term(9), snapshot: LogId::new(1, 500), file: 6, next: 4000 };
        driver.on_stored(peer(2), reply);
    }
    assert_eq!(driver.snapshots.shown().receiving.map(|coming| coming.done), Some(4000));
    let mut forgot = None;
    for later in 1..=FORGOTTEN + GIVEN_UP + 1 {
        if driver.turn(at(tick + 1), true).files.contains(&FileOrder::Forget) {
            forgot = Some(later);
        }
    }
    assert!(forgot.is_some_and(|after| after > FORGOTTEN), "{forgot:?}");
    assert_eq!(driver.snapshots.shown().receiving, None);
}

/// A follower whose version knows no snapshots is sent none, and what it lacks is kept for it, up to a limit.
#[test]
fn a_follower_without_snapshots_keeps_the_log_from_going_up_to_a_limit() {
    let (mut driver, _, mut tick) = leader(100, |config| {
        config.snapshot_entries = 10;
        config.snapshot_bytes = 1 << 20;
    });
    driver.without_snapshots(BTreeSet::from([peer(2)]));
    assert_eq!(driver.snapshots.shown().unknown_to, [NodeId(2)]);
    for _ in 0..50 {
        tick += 1;
        let files = turn(&mut driver, tick);
        let old = |order: &FileOrder| matches!(order, FileOrder::Read { to, .. } if to.id.0 == 2);
        assert!(!files.iter().any(old), "it would not know what that is");
    }
    assert!(driver.snapshots.sending.keys().all(|to| to.id.0 == 3));
    // It holds nothing, and the log begins after 100: 80 entries are kept for it, and if there are more, none.
    driver.snapshots.held_bytes = 0;
    assert_eq!(driver.held_back(Index(180)), Index(100));
    assert_eq!(driver.held_back(Index(181)), Index(181));
    driver.snapshots.held_bytes = (8 << 20) + 1;
    assert_eq!(driver.held_back(Index(180)), Index(180), "that is more bytes than are kept");
    assert_eq!(driver.held_back(Index(180)), Index(100), "and the count begins anew");
    // A follower does not know what that node holds, and may lead next.
    let ask = RequestVote {
        campaign: Term(9),
        pre: false,
        question: 1,
        last: LogId::new(8, 500),
        handed_over: None,
    };
    said(&mut driver, peer(3), Message::RequestVote(ask));
    for later in 1..100 {
        driver.turn(at(tick + later), true);
    }
    assert!(!driver.raft().is_leader());
    assert_eq!(driver.held_back(Index(180)), Index(100));
    driver.without_snapshots(BTreeSet::new());
    assert_eq!(driver.held_back(Index(180)), Index(180));
}

/// A snapshot by command: one that reaches what was applied at the call, however recently another was begun.
#[test]
fn a_snapshot_that_is_wanted_is_taken_whatever_the_policy_says() {
    let (mut driver, _, tick) = leader(100, |_| {});
    assert_eq!(driver.want_snapshot(), Err(SnapshotError::NothingApplied));
    let applied = |index| Progress { applied: LogId::new(1, index), ..Progress::default() };
    let taken = |driver: &mut Test| {
        let work = driver.turn(at(tick + 1), false).work;
        work.iter().filter(|work| matches!(work, Work::Snapshot)).count()
    };
    driver.on_progress(applied(100));
    assert_eq!(driver.want_snapshot(), Ok(Index(100)));
    assert_eq!(taken(&mut driver), 0, "there is one up to there");
    driver.on_progress(applied(120));
    assert_eq!(taken(&mut driver), 0, "the policy wants none");
    assert_eq!(driver.want_snapshot(), Ok(Index(120)));
    assert_eq!(taken(&mut driver), 1);
    assert!(driver.snapshots.shown().taking);
    driver.on_progress(applied(130));
    assert_eq!(driver.want_snapshot(), Ok(Index(130)));
    assert_eq!(taken(&mut driver), 0, "one is being taken");
    driver.on_saved(Some(kept(120, 100)));
    assert_eq!(taken(&mut driver), 1, "that was begun before");
    driver.on_saved(None);
    assert_eq!(taken(&mut driver), 0, "it failed, and whoever wanted it was told");
    assert_eq!(driver.want_snapshot(), Ok(Index(130)));
    assert_eq!(taken(&mut driver), 1, "whoever wants it now does not wait for the pause");
    driver.on_saved(Some(kept(130, 100)));
    assert_eq!(taken(&mut driver), 0);
    driver.fenced = Some(Index(130));
    assert_eq!(driver.want_snapshot(), Err(SnapshotError::Diverged));
}

/// However small the entries are, a start is not to take much longer than `snapshot_busy` to apply them again.
#[test]
fn a_snapshot_is_due_once_the_machine_was_busy_for_so_long() {
    let busy = |millis| Progress {
        applied: LogId::new(1, 101),
        busy: Duration::from_millis(millis),
        ..Progress::default()
    };
    let (mut driver, _, _) = leader(5_000, |config| config.snapshot_busy = Duration::from_millis(20));
    driver.snapshots.log_bytes = 10_000;
    driver.on_progress(busy(19));
    assert!(!driver.snapshots.is_due(Index(101)));
    driver.on_progress(busy(20));
    assert!(driver.snapshots.is_due(Index(101)));
    driver.snapshots.log_bytes = 9_999;
    assert!(!driver.snapshots.is_due(Index(101)), "the newest is half as large as that");
    // Of a log that was there at the start it is known only what was applied of it again.
    driver.snapshots.log_bytes = 0;
    driver.on_progress(Progress { bytes: 9_999, ..busy(20) });
    assert!(!driver.snapshots.is_due(Index(101)));
    driver.on_progress(Progress { bytes: 10_000, ..busy(20) });
    assert!(driver.snapshots.is_due(Index(101)));
    driver.keep(kept(101, 5_000));
    driver.snapshots.log_bytes = 10_000;
    driver.on_progress(Progress { bytes: 10_000, ..busy(39) });
    assert!(!driver.snapshots.is_due(Index(102)), "it counts since the newest");
    driver.on_progress(Progress { bytes: 10_000, ..busy(40) });
    assert!(driver.snapshots.is_due(Index(102)));
}

/// What a ruling says is in the snapshot alone once the log is purged behind it. A follower that gets that snapshot may have the
/// entry and not the ruling, and would apply it.
#[test]
fn whoever_lacks_a_ruling_that_is_purged_is_not_told_that_the_entry_is_committed() {
    let (mut driver, _, _) = leader(100, |_| {});
    let mut rulings = Rulings::default();
    rulings.heed(Ruling { entry: LogId::new(1, 50), verdict: Verdict::Skip }, Index(90));
    let mut newest = kept(110, 100);
    newest.meta.rulings = rulings.encode();
    driver.keep(newest);
    for (prev, commit) in [(60, 49), (89, 49), (90, 99)] {
        let mut append = AppendEntries {
            term: Term(1),
            prev: LogId::new(1, prev),
            last: Index(prev),
            commit: Index(99),
            round: Round(1),
            lease: 0,
            persisted: Index(110),
            disk_age: 0,
            time: 0,
            agreed: None,
        };
        driver.hold_back_commit(&mut append, 0);
        assert_eq!(append.commit, Index(commit), "after {prev}");
    }
    for (asked, told) in [(49, Some(49)), (50, None), (99, None)] {
        let (boot, index) = (Boot(1), Some(Index(asked)));
        let mut reply = ReadIndexReply { term: Term(1), boot, sequence: 1, index };
        driver.hold_back_read(peer(7), &mut reply);
        assert_eq!(reply.index, told.map(Index), "asked at {asked}");
    }
}

/// A snapshot that could not be written, for want of space perhaps, is not begun again and again.
#[test]
fn after_a_snapshot_that_failed_the_next_one_waits() {
    let (mut driver, _, from) = leader(100, |config| {
        config.snapshot_entries = 10;
        config.snapshot_bytes = 1;
    });
    driver.on_progress(Progress { applied: LogId::new(1, 120), ..Progress::default() });
    let mut begun = Vec::new();
    for tick in from + 1..from + 2999 {
        let work = driver.turn(at(tick), true).work;
        if work.iter().any(|work| matches!(work, Work::Snapshot)) {
            begun.push(tick);
            driver.on_saved(None);
        }
    }
    assert!(begun.len() == 3 && begun.windows(2).all(|pair| pair[1] - pair[0] >= 1000), "{begun:?}");
}

/// A driver that leads, with a snapshot of 5,000 bytes on its way to node 2, and the tick.
fn sends_to_two() -> (Test, Vec<FileOrder>, u64) {
    leader(5000, |config| config.snapshot_bytes_per_second = 0)
}

/// What node 2 says to have of the snapshot that ends at 100.
fn has(driver: &mut Test, next: u64) {
    let reply =
        InstallSnapshotReply { term: driver.raft().term(), snapshot: LogId::new(1, 100), file: 5, next };
    driver.on_piece_taken(peer(2), &reply);
}

/// Reads what is to be read for node 2. Where.
fn read_for_two(driver: &mut Test, files: &[FileOrder]) -> Option<u64> {
    let order = files.iter().rev().find_map(|order| match order {
        FileOrder::Read { to, snapshot, offset, .. } if *to == peer(2) => Some((*snapshot, *offset)),
        _ => None,
    });
    let (snapshot, offset) = order?;
    let bytes = Bytes::from(vec![0; 1000.min(5000 - offset as usize)]);
    driver.on_piece(peer(2), Some(Piece { snapshot, file: 5, length: 5000, offset, bytes }));
    Some(offset)
}

/// A follower whose disk has room for a part takes that part again and again. It must not keep the log from going for ever,
/// and costs ever less.
#[test]
fn a_follower_that_never_comes_further_is_given_up_and_tried_again_ever_more_rarely() {
    let (mut driver, mut files, began) = sends_to_two();
    let mut begins = Vec::new();
    for tick in began + 1..began + 12_000 {
        match read_for_two(&mut driver, &files) {
            Some(0) => {
                begins.push(tick - began);
                has(&mut driver, 1000);
            }
            // There is no room for the second: what has come is forgotten.
            Some(_) => has(&mut driver, 0),
            None => {}
        }
        files = turn(&mut driver, tick);
    }
    let pauses: Vec<u64> =
        begins.windows(2).map(|two| two[1] - two[0]).filter(|pause| *pause > 100).collect();
    assert!(pauses.len() >= 3, "{pauses:?}");
    assert!(pauses.windows(2).all(|two| two[1] > two[0] + two[0] / 2), "{pauses:?}");
}

/// What was sent as a whole and is wanted from its beginning was not the same there: sent again it would not be either.
#[test]
fn a_snapshot_that_did_not_come_whole_is_not_sent_again_at_once_and_another_is_taken() {
    let (mut driver, mut files, began) = sends_to_two();
    for tick in began + 1..began + 20 {
        match read_for_two(&mut driver, &files) {
            Some(4000) => has(&mut driver, 0),
            Some(offset) => has(&mut driver, offset + 1000),
            None => {}
        }
        files = turn(&mut driver, tick);
    }
    assert!(!driver.snapshots.sending.contains_key(&peer(2)), "it rests");
    assert!(driver.snapshots.resting.contains_key(&peer(2)));
}

/// A file that cannot be read is not asked for again in the next turn.
#[test]
fn a_snapshot_that_cannot_be_read_is_read_again_only_after_a_pause() {
    let (mut driver, mut files, began) = sends_to_two();
    let mut reads = 0;
    for tick in began + 1..began + 400 {
        for order in &files {
            if let FileOrder::Read { to, .. } = order {
                reads += 1;
                driver.on_piece(*to, None);
            }
        }
        files = turn(&mut driver, tick);
    }
    assert_eq!(reads, 2, "one for each follower");
}

/// Slowly taken pieces are progress, and yet the log does not wait for them without bound.
#[test]
fn what_is_sent_pins_the_log_up_to_a_limit() {
    let (mut driver, files, began) = sends_to_two();
    read_for_two(&mut driver, &files);
    has(&mut driver, 1000);
    turn(&mut driver, began + 1);
    let keep = |driver: &mut Test, index: u64| {
        driver.snapshots.log_bytes = driver.snapshots.policy.bytes;
        driver.keep(kept(index, 5000));
        driver.snapshots.purgeable().0
    };
    assert_eq!(keep(&mut driver, 200), 100);
    for index in 3..=KEPT_FOR_SENT + 2 {
        assert_eq!(keep(&mut driver, 100 * index), 100, "it is held for those to whom it is sent");
    }
    let last = 100 * (KEPT_FOR_SENT + 3);
    assert_eq!(keep(&mut driver, last), last - 100, "and then not any more");
}
