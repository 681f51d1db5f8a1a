//! What the driver says of a node that cannot take more, or has not come back to where it was.

use super::*;
use crate::config::Storage;
use crate::entry::{Kind, Stamp};

const ME: Peer = Peer { id: NodeId(1), incarnation: Incarnation(11) };

/// A node alone in its cluster, restarted on a log of so many entries of term 1.
fn driver(last: u64) -> Driver<RequestId, RequestId> {
    let config = Config::new(1, "127.0.0.1:0", Storage::Memory);
    let member = Member { id: ME.id, incarnation: ME.incarnation, address: String::new() };
    let restored = Restored {
        hard_state: HardState { term: Term(1), vote: None },
        runs: vec![Run::new(1, 1)],
        last: Index(last),
        memberships: vec![(LogId::new(1, 1), Membership::of_voters(ClusterId(1), [member]))],
        ..Restored::default()
    };
    let raft = Raft::new(ME, Boot(5), config.core(), 7, restored, Tick(0)).unwrap();
    Driver::new(Replica::new(raft, &config, 0), Some(ClusterId(1)), Boot(5), &config)
}

fn at(tick: u64) -> Moment {
    Moment { tick: Tick(tick), wall: 0 }
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

/// 5.2.9: a leader whose log has no room refuses writes at once, says why, and takes them again when it has some.
#[test]
fn st_10_a_leader_without_room_refuses_writes_until_there_is_some() {
    let mut driver = driver(1);
    lead(&mut driver);
    driver.on_space(Some("no room in log-2".to_owned()));
    assert_eq!(driver.no_space(), Some("no room in log-2"));
    driver.on_write(Bytes::new(), Duration::ZERO, RequestId(1));
    let actions = driver.turn(at(1001), false);
    assert!(matches!(actions.answers[..], [Answer::Write(RequestId(1), Err(WriteError::Busy))]));
    assert!(actions.orders.is_empty(), "nothing is even tried");
    driver.on_read(RequestId(2));
    let actions = driver.turn(at(1001), false);
    assert!(matches!(actions.work[..], [Work::Read(..)]), "reads go on");
    driver.on_space(None);
    driver.on_write(Bytes::new(), Duration::ZERO, RequestId(3));
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
    driver.on_write(Bytes::new(), Duration::ZERO, RequestId(3));
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
    driver.on_write(Bytes::new(), Duration::ZERO, RequestId(3));
    driver.turn(at(1001), false);
    let (writes, reads) = driver.stop();
    assert_eq!((writes, reads), (vec![Caller::Here(RequestId(3))], vec![]));
}
