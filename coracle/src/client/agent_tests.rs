use super::*;
use crate::error::Cause;
use crate::freshness::{Freshness, Seen};
use crate::proposal::Numbered;
use crate::wire::Mode;
use coracle_core::{Incarnation, Member, NodeId, Term};
use std::time::Duration;

/// A caller by its number, until a tick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Somebody(u64, u64);

impl Waits for Somebody {
    fn gave_up(&self) -> bool {
        false
    }
}

impl Patient for Somebody {
    fn until(&self) -> u64 {
        self.1
    }
}

type Test = Agent<Somebody, Somebody>;

const LIFETIME: u64 = 60_000;

fn agent() -> Test {
    let limits = Limits { calls: 3, bytes: 100 };
    Agent::new(vec!["seed:1".to_owned()], LIFETIME, limits, 0, Broken::default())
}

fn peer(id: u64) -> Peer {
    Peer { id: NodeId(id), incarnation: Incarnation(10 + id) }
}

fn directory(term: u64, leader: Option<u64>, members: &[u64]) -> Directory {
    let member = |id: &u64| {
        let Peer { id, incarnation } = peer(*id);
        Member { id, incarnation, address: format!("node:{id}") }
    };
    let membership = Membership::of_voters(ClusterId(1), members.iter().map(member));
    let membership = Some((LogId::new(term, 1), membership));
    Directory { term: Term(term), leader: leader.map(peer), membership, machine: 2 }
}

/// Connected to these nodes, each over the connection of its number, of which this one leads.
fn connected(term: u64, leader: u64, nodes: &[u64]) -> Test {
    let mut agent = agent();
    for id in nodes {
        assert!(agent.on_connected(*id, peer(*id), Some(ClusterId(1))));
        agent.on_directory(*id, directory(term, Some(leader), &[1, 2, 3]));
    }
    agent
}

fn wanted(agent: &Test) -> Vec<String> {
    agent.wanted().into_iter().collect()
}

/// What is said of writes: over which connection, under which number, for which term, and what.
fn writes(agent: &mut Test, now: u64) -> Vec<(u64, u64, u64, Proposal)> {
    let said = agent.turn(now).say.into_iter();
    said.filter_map(|(link, say)| match say {
        Say::Write(Forward { id, term, proposal, .. }) => Some((link, id, term.0, proposal)),
        Say::Read(_) => None,
    })
    .collect()
}

/// The session is opened by the leader.
fn open(agent: &mut Test, now: u64) {
    let [(link, id, _, Proposal::Open(LIFETIME))] = writes(agent, now)[..] else {
        panic!("it opens a session")
    };
    let outcome = Ok(Bytes::copy_from_slice(&7u64.to_le_bytes()));
    agent.on_reply(link, ForwardReply { id, outcome }, now);
}

fn command(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[test]
fn it_looks_for_the_members_that_a_node_tells_of_and_for_seeds_when_nobody_is_left() {
    let mut agent = agent();
    assert_eq!(wanted(&agent), ["seed:1"]);
    assert!(agent.on_connected(8, peer(1), None));
    assert_eq!(wanted(&agent), [""; 0], "it waits for what the node says");
    agent.on_directory(8, directory(3, Some(2), &[1, 2, 3]));
    assert_eq!(wanted(&agent), ["node:2", "node:3"], "whichever address the first was found at");
    assert!(agent.on_connected(9, peer(2), Some(ClusterId(1))));
    assert!(!agent.on_connected(10, peer(2), Some(ClusterId(1))), "one connection is enough");
    assert!(!agent.on_connected(10, peer(3), Some(ClusterId(2))), "that is another cluster");
    // An older membership changes nothing, a newer one does.
    agent.on_directory(9, directory(2, Some(1), &[1]));
    assert_eq!(wanted(&agent), ["node:3"]);
    agent.on_directory(9, directory(4, Some(2), &[2, 4]));
    assert_eq!(wanted(&agent), ["node:4"]);
    assert!(agent.is_over(8) && !agent.is_over(9));
    agent.on_disconnected(8, "cut".to_owned(), 0);
    agent.on_disconnected(9, "cut".to_owned(), 0);
    assert_eq!(wanted(&agent), ["node:2", "node:4", "seed:1"]);
}

/// Of two that say so, the one of the newer term leads; and what a node says of another is hearsay.
#[test]
fn writes_go_to_the_node_that_says_that_it_leads() {
    let mut agent = connected(3, 2, &[1, 2]);
    agent.write(0, 1, command("a"), Somebody(1, 900));
    open(&mut agent, 0);
    let place = Numbered { session: 7, lane: 0, number: 0, acknowledged: 0 };
    let sent = writes(&mut agent, 0);
    assert!(matches!(&sent[..], [(2, _, 3, Proposal::Numbered(at, Some(_)))] if *at == place), "{sent:?}");
    // The first one leads now, and the second has not heard of it.
    agent.on_directory(1, directory(4, Some(1), &[1, 2, 3]));
    let again = writes(&mut agent, 1);
    assert!(matches!(&again[..], [(1, _, 4, Proposal::Numbered(at, Some(_)))] if *at == place), "{again:?}");
    let late = ForwardReply { id: sent[0].1, outcome: Ok(command("late")) };
    agent.on_reply(2, late, 1);
    assert!(agent.turn(1).writes.is_empty(), "who leads no more is not heard");
    agent.on_directory(1, directory(5, Some(3), &[1, 2, 3]));
    assert_eq!(writes(&mut agent, 2).len(), 1, "who is left that says so may be right");
    agent.on_directory(2, directory(5, Some(3), &[1, 2, 3]));
    agent.on_disconnected(2, "cut".to_owned(), 2);
    assert_eq!(writes(&mut agent, 100), [], "the new leader was not met yet");
}

/// CS-2: what was never sent is certainly not done, and what was may be.
#[test]
fn cs_2_at_its_end_a_write_is_unknown_only_if_it_was_sent() {
    let mut agent = agent();
    agent.write(0, 1, command("a"), Somebody(1, 100));
    agent.on_unreachable("nobody there".to_owned());
    assert!(agent.turn(99).writes.is_empty());
    let told = agent.turn(100).writes;
    assert_eq!(told, [(Somebody(1, 100), Err(WriteError::Unreachable("nobody there".to_owned())))]);

    let mut agent = connected(3, 3, &[1, 2]);
    agent.write(0, 1, command("a"), Somebody(2, 100));
    assert_eq!(agent.turn(100).writes, [(Somebody(2, 100), Err(WriteError::NoLeader))]);

    let mut agent = connected(3, 2, &[1, 2]);
    agent.write(0, 1, command("a"), Somebody(3, 200));
    open(&mut agent, 100);
    let sent = writes(&mut agent, 100);
    let full = ForwardReply { id: sent[0].1, outcome: Err(WriteError::Busy(Busy::Space)) };
    agent.on_reply(2, full, 100);
    agent.write(0, 1, command("b"), Somebody(4, 201));
    let told = agent.turn(200).writes;
    assert_eq!(told, [(Somebody(3, 200), Err(WriteError::Busy(Busy::Space)))], "it says best why");
    agent.on_directory(1, directory(3, None, &[1, 2, 3]));
    let told = agent.turn(201).writes;
    assert_eq!(told, [(Somebody(4, 201), Err(WriteError::Busy(Busy::Space)))]);

    let mut agent = connected(3, 2, &[1, 2]);
    agent.write(0, 1, command("c"), Somebody(5, 400));
    open(&mut agent, 300);
    assert_eq!(writes(&mut agent, 300).len(), 1);
    assert_eq!(agent.turn(400).writes, [(Somebody(5, 400), Err(WriteError::Unknown(Cause::Timeout)))]);
    // Its number is taken by nothing, or was taken by it.
    agent.on_disconnected(2, "cut".to_owned(), 400);
    assert!(agent.on_connected(12, peer(2), Some(ClusterId(1))));
    agent.on_directory(12, directory(3, Some(2), &[1, 2, 3]));
    let again = writes(&mut agent, 500);
    assert!(matches!(&again[..], [(12, _, 3, Proposal::Numbered(_, None))]), "{again:?}");
}

/// A node of the first version would not understand what needs the second: nothing of that is sent before it is known that no
/// member is, and what came after it waits too.
#[test]
fn what_needs_a_newer_machine_waits_until_all_are_known_to_have_it() {
    let told = |machine| Directory { machine, ..directory(3, Some(2), &[1, 2]) };
    let refused = Err(WriteError::NotYet { needs: 2, all_have: 1 });
    for machine in [1, 2] {
        let mut early = agent();
        early.write(0, 2, command("new"), Somebody(1, 900));
        early.write(0, 1, command("old"), Somebody(2, 900));
        assert!(early.on_connected(2, peer(2), Some(ClusterId(1))));
        early.on_directory(2, told(0));
        let nothing = early.turn(0);
        assert!(nothing.writes.is_empty() && nothing.say.is_empty());
        early.on_directory(2, told(machine));
        open(&mut early, 0);
        let now = early.turn(1);
        assert_eq!(now.say.len(), usize::from(machine), "what all know is sent");
        early.write(0, 2, command("newer"), Somebody(3, 900));
        let told = early.turn(1).writes;
        assert_eq!(told == [(Somebody(3, 900), refused.clone())], machine == 1, "at once, by now");
    }
    let mut full = agent();
    full.write(0, 2, vec![0; 101].into(), Somebody(1, 900));
    assert!(full.turn(0).writes.is_empty());
    full.write(0, 2, command("new"), Somebody(2, 900));
    assert_eq!(full.turn(0).writes, [(Somebody(2, 900), Err(WriteError::Busy(Busy::Requests)))]);
    let mut nobody = agent();
    nobody.write(0, 2, command("new"), Somebody(1, 900));
    assert!(!nobody.is_idle() && nobody.turn(899).writes.is_empty());
    let told = nobody.turn(900).writes;
    assert!(matches!(&told[..], [(Somebody(1, 900), Err(WriteError::Unreachable(_)))]), "{told:?}");
    assert!(nobody.is_idle());
}

fn question() -> Question {
    Question { mode: Mode::Read(Freshness::Linearizable), query: command("q"), first: 0 }
}

/// An answer that was this old when it left, in milliseconds.
fn seen(answer: &str, age: Option<u64>) -> Seen<Bytes> {
    Seen { answer: command(answer), applied: LogId::ZERO, age: age.map(Duration::from_millis) }
}

#[test]
fn what_has_no_room_is_refused_at_once() {
    let mut agent = agent();
    agent.write(0, 1, vec![0; 101].into(), Somebody(1, 900));
    agent.write(0, 1, command("a"), Somebody(2, 900));
    agent.read(question(), Somebody(3, 900));
    agent.read(question(), Somebody(4, 900));
    agent.read(question(), Somebody(5, 900));
    let told = agent.turn(0);
    assert_eq!(told.writes, [(Somebody(2, 900), Err(WriteError::Busy(Busy::Requests)))]);
    assert_eq!(told.reads, [(Somebody(5, 900), Err(ReadError::Busy(Busy::Requests)))]);
}

fn reads(agent: &mut Test, now: u64) -> Vec<(u64, u64, u64)> {
    let said = agent.turn(now).say.into_iter();
    said.filter_map(|(link, say)| match say {
        Say::Read(Query { id, time_left, .. }) => Some((link, id, time_left)),
        Say::Write(_) => None,
    })
    .collect()
}

/// A read goes to the leader first, and on to the others where it fails, is late, or the connection ends.
#[test]
fn a_read_is_asked_of_one_node_after_the_other_until_its_time_is_over() {
    let mut agent = connected(3, 2, &[1, 2, 3]);
    agent.read(question(), Somebody(1, 1_000));
    let [(2, first, 1_000)] = reads(&mut agent, 0)[..] else { panic!("the leader is asked, for a second") };
    agent.on_answer(QueryReply { id: first, outcome: Err(ReadError::NoLeader) }, 0);
    assert_eq!(reads(&mut agent, 0), [], "after a pause");
    let [(1, second, 2_000)] = reads(&mut agent, 1)[..] else { panic!("the next, for twice as long") };
    assert_eq!(reads(&mut agent, 250), []);
    let [(3, third, 4_000)] = reads(&mut agent, 251)[..] else { panic!("the answer is late") };
    agent.on_answer(QueryReply { id: second, outcome: Ok(seen("late", None)) }, 251);
    agent.on_disconnected(3, "cut".to_owned(), 300);
    let [(1, fourth, _)] = reads(&mut agent, 300)[..] else { panic!("who is left is asked") };
    agent.on_answer(QueryReply { id: third, outcome: Ok(seen("late", None)) }, 300);
    agent.on_answer(QueryReply { id: fourth, outcome: Ok(seen("a", None)) }, 300);
    assert_eq!(agent.turn(300).reads, [(Somebody(1, 1_000), Ok(seen("a", None)))]);

    agent.read(question(), Somebody(2, 400));
    let [(_, asked, 1_000)] = reads(&mut agent, 300)[..] else { panic!("for as long as is left") };
    agent.on_answer(QueryReply { id: asked, outcome: Err(ReadError::Lagging) }, 399);
    assert_eq!(agent.turn(400).reads, [(Somebody(2, 400), Err(ReadError::Lagging))], "what was heard last");
    agent.read(question(), Somebody(3, 500));
    let [(_, asked, _)] = reads(&mut agent, 400)[..] else { panic!() };
    let wrong = Err(ReadError::Invalid("no".to_owned()));
    agent.on_answer(QueryReply { id: asked, outcome: wrong.clone() }, 400);
    assert_eq!(agent.turn(400).reads, [(Somebody(3, 500), wrong)], "it does no better elsewhere");
    assert!(agent.is_idle());
}

/// What any node may answer is spread over them, from one on; and the way here makes an answer older.
#[test]
fn a_read_that_any_node_may_answer_begins_where_it_is_told() {
    let mut agent = connected(3, 2, &[1, 2, 3]);
    for (first, link) in [(0, 2), (1, 1), (2, 3), (3, 2), (u32::MAX, 2)] {
        agent.read(Question { first, ..question() }, Somebody(1, 1_000));
        let [(at, asked, _)] = reads(&mut agent, 0)[..] else { panic!() };
        assert_eq!(at, link, "{first}");
        agent.on_answer(QueryReply { id: asked, outcome: Ok(seen("a", Some(5))) }, 3);
        assert_eq!(agent.turn(3).reads, [(Somebody(1, 1_000), Ok(seen("a", Some(45))))]);
    }
}

#[test]
fn a_session_ends_with_its_client_if_nothing_is_under_way() {
    let mut agent = connected(3, 2, &[1, 2]);
    assert_eq!(agent.end(), None);
    agent.write(0, 1, command("a"), Somebody(1, 900));
    open(&mut agent, 0);
    let sent = writes(&mut agent, 0);
    assert_eq!(agent.end(), None);
    agent.on_reply(2, ForwardReply { id: sent[0].1, outcome: Ok(command("done")) }, 0);
    assert!(matches!(agent.end(), Some((2, Say::Write(Forward { proposal: Proposal::Close(7), .. })))));
}
