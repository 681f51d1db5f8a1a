//! Each thing that can be found, from the answers that show it.

use super::*;
use crate::report::{ReportedStop, ReportedTransfer};

const NOW: u64 = 1_000_000_000;

fn member(id: u64) -> ReportedMember {
    ReportedMember {
        id,
        address: format!("host{id}:7100"),
        voter: true,
        reachable: true,
        encrypted: false,
        matched: None,
        incarnation: "a".to_owned(),
    }
}

/// A node of a cluster of three that is well, led by the first.
fn node(id: u64) -> Report {
    let peer = |id| ReportedPeer {
        id,
        matched: 100,
        lag: 0,
        applied: 100,
        state: "replicate".to_owned(),
        silent_ms: 10,
    };
    let json = serde_json::json!({
        "id": id, "role": if id == 1 { "leader" } else { "follower" }, "term": 3, "leader": 1, "commit": 100, "applied": 100,
        "last_index": 100, "members": [], "digest": "d", "ready": true,
    });
    let mut report: Report = serde_json::from_value(json).unwrap();
    report.members = (1..=3).map(member).collect();
    if id == 1 {
        report.peers = vec![peer(2), peer(3)];
    }
    report
}

/// The names of what is found of these nodes, after they were changed.
fn found(change: impl FnOnce(&mut [Report; 3])) -> Vec<&'static str> {
    let mut nodes = [node(1), node(2), node(3)];
    change(&mut nodes);
    let answers: Vec<Answer> = nodes.into_iter().map(|node| (format!("host{}", node.id), Ok(node))).collect();
    names(&answers)
}

fn names(answers: &[Answer]) -> Vec<&'static str> {
    examine(answers, NOW).into_iter().map(|finding| finding.name).collect()
}

#[test]
fn a_cluster_that_is_well_has_nothing() {
    assert_eq!(found(|_| {}), [""; 0]);
}

#[test]
fn whoever_says_nothing_is_told_apart_from_whoever_may_not_be_asked() {
    let silent = |why: &str| -> Answer { ("host3".to_owned(), Err(why.to_owned())) };
    let well = || -> Vec<Answer> { (1..=2).map(|id| (format!("host{id}"), Ok(node(id)))).collect() };
    assert_eq!(names(&[well(), vec![silent("connection refused")]].concat()), ["no-answer"]);
    assert_eq!(names(&[well(), vec![silent("NOPERM for administrators")]].concat()), ["not-permitted"]);
    let findings = examine(&[silent("connection refused")], NOW);
    assert!(findings[0].text.contains("host3") && findings[0].weight == Weight::Now, "{findings:?}");
}

#[test]
fn why_there_is_no_leader() {
    let none = |report: &mut Report| {
        (report.role, report.leader, report.peers) = ("candidate".to_owned(), None, Vec::new());
    };
    // One of three runs.
    let mut alone = node(1);
    none(&mut alone);
    alone.members.iter_mut().skip(1).for_each(|member| member.reachable = false);
    let findings = examine(&[("host1".to_owned(), Ok(alone))], NOW);
    assert_eq!(findings[0].name, "no-majority");
    assert!(
        findings[0].text.contains("1 of 3 voters") && findings[0].text.contains("start nodes 2, 3"),
        "{findings:?}"
    );
    // All run, and are connected.
    assert_eq!(found(|nodes| nodes.iter_mut().for_each(none)), ["election"]);
    // All run, and are not.
    let cut = found(|nodes| {
        nodes.iter_mut().for_each(none);
        for node in nodes {
            let id = node.id;
            node.members
                .iter_mut()
                .filter(|member| member.id != id)
                .for_each(|member| member.reachable = false);
        }
    });
    assert_eq!((cut[0], cut.iter().filter(|name| **name == "unreachable").count()), ("voters-cut-off", 6));
    assert_eq!(
        found(|nodes| {
            (nodes[2].role, nodes[2].leader) = ("unconfigured".to_owned(), None);
            nodes[2].members.clear();
        }),
        ["no-cluster"]
    );
    assert_eq!(found(|nodes| (nodes[2].leader, nodes[2].term) = (Some(3), 2)), ["two-leaders-named"]);
}

#[test]
fn who_cannot_reach_whom() {
    assert_eq!(found(|nodes| nodes[1].members[2].reachable = false), ["one-way"]);
    assert_eq!(
        found(|nodes| {
            nodes[1].members[2].reachable = false;
            nodes[2].members[1].reachable = false;
        }),
        ["unreachable", "unreachable"]
    );
    let mut first = node(1);
    first.members[2].reachable = false;
    let answers: Vec<Answer> = vec![("host1".to_owned(), Ok(first)), ("host2".to_owned(), Ok(node(2)))];
    assert_eq!(names(&answers), ["member-away"]);
    assert_eq!(
        found(|nodes| nodes[0].members[1].encrypted = true),
        ["plain-link"],
        "the connection to the third is plain"
    );
}

#[test]
fn what_is_left_if_one_more_fails() {
    assert_eq!(found(|nodes| nodes[0].peers[1].silent_ms = 5000), ["no-spare", "silent"]);
    let mut one = node(1);
    (one.members, one.peers) = (vec![member(1)], Vec::new());
    assert_eq!(names(&[("host1".to_owned(), Ok(one))]), ["alone"]);
    let even = found(|nodes| {
        nodes[0].members.push(member(4));
        let fourth = ReportedPeer { id: 4, ..nodes[0].peers[0].clone() };
        nodes[0].peers.push(fourth);
    });
    assert_eq!(even, ["even"]);
    assert_eq!(found(|nodes| nodes[0].snapshots_unknown_to = vec![2]), ["old-version"]);
}

#[test]
fn machines_that_are_not_as_they_should_be() {
    let stop = || Some(ReportedStop { entry: "7.1".to_owned(), why: "it panicked".to_owned() });
    assert_eq!(found(|nodes| nodes[1].machine_stopped = stop()), ["machine-stopped"]);
    assert_eq!(found(|nodes| nodes[1].fenced = Some(7)), ["fenced"]);
    assert_eq!(found(|nodes| nodes[0].diverged = vec![2]), ["diverged"]);
    assert_eq!(found(|nodes| nodes[1].rebuilding = Some("asks".to_owned())), ["rebuilding"]);
    assert_eq!(found(|nodes| nodes[1].ready = false), ["loading"]);
    assert_eq!(found(|nodes| nodes[1].unapplied_bytes = 5 << 20), ["slow-machine"]);
    assert_eq!(found(|nodes| nodes[1].digest = "e".to_owned()), ["unlike", "unlike"]);
    assert_eq!(
        found(|nodes| (nodes[1].digest, nodes[1].applied) = ("e".to_owned(), 99)),
        [""; 0],
        "it has applied less"
    );
}

#[test]
fn disks_addresses_certificates_and_members_that_lag() {
    assert_eq!(found(|nodes| nodes[1].no_space = Some("a file".to_owned())), ["no-space"]);
    assert_eq!(found(|nodes| nodes[1].moved = true), ["moved"]);
    let transfer = ReportedTransfer { peer: 1, index: 50, done: 1, bytes: 2 };
    assert_eq!(found(|nodes| nodes[1].receiving_snapshot = Some(transfer)), ["catching-up"]);
    assert_eq!(found(|nodes| nodes[1].certificate_expires = Some(NOW)), ["certificate-over"]);
    assert_eq!(found(|nodes| nodes[1].certificate_expires = Some(NOW + 86_400 * 29)), ["certificate-ends"]);
    assert_eq!(found(|nodes| nodes[1].certificate_expires = Some(NOW + 86_400 * 31)), [""; 0]);
    assert_eq!(found(|nodes| nodes[0].peers[0].state = "distrusted".to_owned()), ["lost-entries"]);
    assert_eq!(found(|nodes| nodes[0].peers[0].state = "snapshot".to_owned()), ["sent-a-snapshot"]);
    assert_eq!(found(|nodes| nodes[0].peers[0].lag = 20_000), ["lags"]);
    let twice: Vec<Answer> = [1, 2, 3, 2].map(|id| (format!("host{id}"), Ok(node(id)))).into();
    assert_eq!(names(&twice), ["asked-twice"]);
}

#[test]
fn the_worst_comes_first() {
    let findings = found(|nodes| {
        nodes[0].peers[0].lag = 20_000;
        nodes[1].no_space = Some("a file".to_owned());
        nodes[1].rebuilding = Some("asks".to_owned());
    });
    assert_eq!(findings, ["no-space", "lags", "rebuilding"]);
}
