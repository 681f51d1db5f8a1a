//! Whole clusters over real sockets, in one process: the promises of the library's API.

use crate::common::*;
use coracle::raft::{NodeId, RoleName};
use coracle::*;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::task::JoinSet;

/// A60, A61: three peers, one `set_configuration`, a leader that all agree on, replicated writes.
#[tokio::test]
async fn three_nodes_elect_a_leader_and_replicate() {
    let cluster = Cluster::founded(3, true, steady).await;
    let leader = cluster.leader().await;
    assert_eq!(cluster.node(leader).write("one".into()).await, Ok(1));
    assert_eq!(cluster.node(leader).write("two".into()).await, Ok(2));
    for node in cluster.running() {
        assert_eq!(node.read(()).await.unwrap(), ["one", "two"], "a read on any node sees what was written");
    }
    assert_eq!(cluster.converged().await, ["one", "two"]);
}

/// A62, B45: the leader stops, another one is elected, the old one comes back and catches up.
#[tokio::test]
async fn a_cluster_survives_its_leader_and_the_old_leader_catches_up() {
    let mut cluster = Cluster::founded(3, true, |_| {}).await;
    let first = cluster.leader().await;
    cluster.write("before").await;
    let term = cluster.node(first).status().await.unwrap().raft.term;
    cluster.stop(first).await;
    let second = cluster.leader().await;
    assert_ne!(first, second);
    assert!(cluster.node(second).status().await.unwrap().raft.term > term);
    cluster.write("without it").await;
    cluster.restart(first).await;
    assert_eq!(cluster.converged().await, ["before", "without it"]);
}

/// A9, A10: the configuration succeeds again with the same list, and is refused with another.
#[tokio::test]
async fn the_same_configuration_again_succeeds_and_another_is_refused() {
    let cluster = Cluster::founded(3, true, steady).await;
    let again = cluster.node(1).set_configuration(cluster.list()).await.unwrap();
    assert_eq!(again.voters, BTreeSet::from([NodeId(1), NodeId(2), NodeId(3)]));
    cluster.converged().await;
    let from_another = cluster.node(3).set_configuration(cluster.list()).await.unwrap();
    assert_eq!(again, from_another);
    let shorter = cluster.list().into_iter().take(2);
    let refused = cluster.node(1).set_configuration(shorter).await;
    assert_eq!(refused, Err(ConfigurationError::AlreadyConfigured));
}

/// A10: a list that makes no sense is refused before anybody is asked.
#[tokio::test]
async fn a_wrong_list_of_members_is_refused() {
    let cluster = Cluster::blank(1, false, |_| {}).await;
    let node = cluster.node(1);
    let here = cluster.addresses[0].clone();
    for wrong in [
        vec![],
        vec![(2, here.clone())],
        vec![(1, here.clone()), (1, here.clone())],
        vec![(0, here.clone()), (1, here.clone())],
        vec![(1, "no port".to_owned())],
        vec![(1, format!("{}:1", "x".repeat(2000)))],
    ] {
        let refused = node.set_configuration(wrong.clone()).await;
        assert!(matches!(refused, Err(ConfigurationError::Invalid(_))), "{wrong:?}: {refused:?}");
    }
    assert_eq!(node.status().await.unwrap().raft.role, RoleName::Unconfigured);
}

/// A10: nodes that do not answer, or answer as others, are named; nothing is founded.
#[tokio::test]
async fn silent_nodes_are_named_within_the_time_limit() {
    let cluster = Cluster::blank(2, false, |c| c.bootstrap_timeout = Duration::from_millis(500)).await;
    let mut list = cluster.list();
    list.push((3, "127.0.0.1:1".to_owned()));
    list.push((4, cluster.addresses[1].clone()));
    // On a busy computer one that is there may answer too late as well.
    unless_starved(async || {
        let Err(ConfigurationError::NotReady(missing)) =
            cluster.node(1).set_configuration(list.clone()).await
        else {
            panic!("two of four are not there");
        };
        let names: Vec<u64> = missing.iter().map(|(id, _)| id.0).collect();
        assert!(names.ends_with(&[3, 4]), "{missing:?}");
        if names.len() == 2 { Ok(()) } else { Err(format!("{missing:?}")) }
    })
    .await;
    for node in cluster.running() {
        let status = node.status().await.unwrap();
        assert_eq!((status.raft.role, status.cluster), (RoleName::Unconfigured, None));
    }
    // The question left no trace: the two that are there can still found a cluster.
    cluster.node(2).set_configuration(cluster.list()).await.unwrap();
    cluster.leader().await;
}

/// D5.3.1: nodes that are started after `set_configuration` was called are waited for.
#[tokio::test]
async fn a_late_node_is_waited_for() {
    let mut cluster = Cluster::blank(2, false, |_| {}).await;
    let late = cluster.addresses[1].clone();
    cluster.stop(2).await;
    let (founder, list) = (cluster.node(1).clone(), cluster.list());
    let founding = tokio::spawn(async move { founder.set_configuration(list).await });
    let node = Node::start(cluster.config(2, &late), Journal::default()).await.unwrap();
    cluster.nodes[1] = Some(node);
    founding.await.unwrap().unwrap();
    cluster.write("together").await;
}

/// A node that belongs to a cluster does not take part in founding another.
#[tokio::test]
async fn a_member_of_one_cluster_is_not_taken_into_another() {
    let first = Cluster::founded(2, false, steady).await;
    let second = Cluster::blank(1, false, |c| c.bootstrap_timeout = Duration::from_millis(300)).await;
    let list = vec![(1, second.addresses[0].clone()), (2, first.addresses[1].clone())];
    let Err(ConfigurationError::NotReady(missing)) = second.node(1).set_configuration(list).await else {
        panic!("node 2 is taken");
    };
    assert!(missing.iter().any(|(id, _)| *id == NodeId(2)), "{missing:?}");
    first.write("undisturbed").await;
}

/// A6: each reason for a refusal has its type, and NotLeader says where to go.
#[tokio::test]
async fn a_follower_says_who_leads_and_an_unconfigured_node_what_to_do() {
    let cluster = Cluster::founded(3, false, steady).await;
    let leader = cluster.leader().await;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let refused = cluster.node(follower).write("here?".into()).await;
    let address = cluster.addresses[leader as usize - 1].clone();
    let Err(WriteError::NotLeader { leader: told }) = refused else { panic!("{refused:?}") };
    assert_eq!((told.id, told.address), (NodeId(leader), address));

    let blank = Cluster::blank(1, false, |_| {}).await;
    assert_eq!(blank.node(1).write("?".into()).await, Err(WriteError::NotConfigured));
    assert_eq!(blank.node(1).read(()).await, Err(ReadError::NotConfigured));
}

/// A30: a peer that was never configured waits, however long, and does not campaign.
#[tokio::test]
async fn an_unconfigured_node_never_campaigns() {
    let quick = |c: &mut Config| {
        c.heartbeat = Duration::from_millis(10);
        c.election_timeout = (Duration::from_millis(20), Duration::from_millis(40));
    };
    let blank = Cluster::blank(1, false, quick).await;
    // A cluster beside it elects a leader, and another one, in the time that it waits.
    let mut busy = Cluster::founded(3, true, quick).await;
    let leader = busy.leader().await;
    busy.stop(leader).await;
    busy.leader().await;
    let status = blank.node(1).status().await.unwrap().raft;
    assert_eq!((status.role, status.term.0, status.last.index.0), (RoleName::Unconfigured, 0, 0));
}

/// RD-7, A6: without a leader, writes and reads are answered at once, and truthfully.
#[tokio::test]
async fn rd_7_without_a_leader_requests_are_refused_not_lost() {
    let mut cluster = Cluster::founded(3, true, |_| {}).await;
    let leader = cluster.leader().await;
    let [a, b] = [1, 2, 3].into_iter().filter(|id| *id != leader).collect::<Vec<_>>()[..] else { panic!() };
    cluster.stop(leader).await;
    cluster.stop(a).await;
    eventually("the last node has no leader", async || cluster.node(b).leader().is_none().then_some(()))
        .await;
    assert_eq!(cluster.node(b).write("?".into()).await, Err(WriteError::NoLeader));
    assert_eq!(cluster.node(b).read(()).await, Err(ReadError::NoLeader));
}

/// CS-2, CS-6: a leader that loses its quorum answers every pending write with `Unknown` when it steps down,
/// well before their time limit; what it had appended may still be committed.
#[tokio::test]
async fn cs_2_cs_6_a_leader_that_steps_down_answers_unknown() {
    let mut cluster = Cluster::founded(3, true, |_| {}).await;
    unless_starved(async || {
        let leader = cluster.leader().await;
        cluster.stop_all_but(leader).await;
        let mut writes = JoinSet::new();
        for number in 0..1000 {
            let node = cluster.node(leader).clone();
            writes.spawn(async move { node.write_within(format!("{number}"), NEVER).await });
        }
        let outcomes = tokio::time::timeout(PATIENCE, writes.join_all()).await.expect("all are answered");
        for id in (1..=3).filter(|id| *id != leader) {
            cluster.restart(id).await;
        }
        let unknown = WriteError::Unknown(Cause::LeadershipLost);
        assert!(outcomes.iter().all(|o| *o == Err(unknown.clone()) || *o == Err(WriteError::NoLeader)));
        if !outcomes.contains(&Err(unknown)) {
            return Err("leadership was lost before anything was in the log".to_owned());
        }
        Ok(())
    })
    .await;
    cluster.write("after").await;
    let journal = cluster.converged().await;
    assert_eq!(journal.last().map(String::as_str), Some("after"));
    assert_eq!(journal.iter().collect::<BTreeSet<_>>().len(), journal.len(), "nothing happened twice");
}

/// A11: entries can be looked at on a live node, in memory or on disk.
#[tokio::test]
async fn entries_of_the_log_can_be_looked_at() {
    let mut cluster = Cluster::founded(1, true, |_| {}).await;
    cluster.write("look").await;
    for round in ["from memory", "from disk"] {
        let node = cluster.node(1);
        let kinds = [Kind::Membership, Kind::Noop, Kind::Command];
        for (index, kind) in (1..).zip(kinds) {
            let entry = node.get_entry(index).await.unwrap();
            assert_eq!((entry.index().0, entry.kind()), (index, kind), "{round}");
        }
        let command = node.get_entry(3).await.unwrap().payload();
        assert_eq!(Journal::decode_command(&command).unwrap(), "look");
        assert_eq!(node.get_entry(0).await, Err(EntryLookupError::NotFound));
        assert_eq!(node.get_entry(99).await, Err(EntryLookupError::NotFound));
        cluster.stop(1).await;
        cluster.restart(1).await;
        cluster.leader().await;
    }
}

/// A8: the status tells everything at once; the digest belongs to exactly the applied index.
#[tokio::test]
async fn the_status_shows_role_marks_members_and_digest() {
    let cluster = Cluster::founded(3, true, steady).await;
    cluster.write("x").await;
    cluster.converged().await;
    let leader = cluster.leader().await;
    let status = cluster.node(leader).status().await.unwrap();
    assert_eq!((status.raft.role, status.raft.leader), (RoleName::Leader, Some(NodeId(leader))));
    assert_eq!(status.raft.commit, status.raft.last.index);
    assert_eq!(status.applied, status.raft.last);
    assert_eq!(status.raft.membership.voters.len(), 3);
    assert_eq!(status.raft.peers.len(), 2);
    assert!(status.cluster.is_some());
    let follower = cluster.node((1..=3).find(|id| *id != leader).unwrap()).status().await.unwrap();
    assert_eq!(follower.raft.role, RoleName::Follower);
    assert_eq!((follower.applied, follower.digest), (status.applied, status.digest));
}

/// A42's quieter sister: whoever waits for a leader is told.
#[tokio::test]
async fn a_change_of_leader_is_told() {
    let mut cluster = Cluster::founded(3, true, |_| {}).await;
    let leader = cluster.leader().await;
    let watcher = (1..=3).find(|id| *id != leader).unwrap();
    let mut leaders = cluster.node(watcher).leader_changed();
    cluster.stop(leader).await;
    let new = leaders.wait_for(|l| l.as_ref().is_some_and(|l| l.id.0 != leader));
    let new = tokio::time::timeout(PATIENCE, new).await.unwrap().unwrap().clone().unwrap();
    assert_ne!(new.id.0, leader);
}

/// `Config::forward`: a write on any node reaches the leader and comes back with the machine's reply.
#[tokio::test]
async fn a_forwarded_write_returns_the_machines_reply() {
    let cluster = Cluster::founded(3, true, |c| {
        steady(c);
        c.forward = true;
    })
    .await;
    let leader = cluster.leader().await;
    for (count, id) in (1..).zip((1..=3).filter(|id| *id != leader)) {
        assert_eq!(cluster.node(id).write(format!("{id}")).await, Ok(count));
    }
}

/// A forwarded write whose leader dies before it answers is unknown, and is never sent twice.
#[tokio::test]
async fn a_forwarded_write_that_loses_its_leader_is_unknown() {
    let mut cluster = Cluster::founded(3, true, |c| c.forward = true).await;
    let leader = cluster.leader().await;
    let [a, b] = [1, 2, 3].into_iter().filter(|id| *id != leader).collect::<Vec<_>>()[..] else { panic!() };
    let mut writes = JoinSet::new();
    for number in 0..500 {
        let node = cluster.node(if number % 2 == 0 { a } else { b }).clone();
        writes.spawn(async move { (number, node.write_within(format!("{number}"), PATIENCE).await) });
    }
    tokio::task::yield_now().await;
    cluster.stop(leader).await;
    let outcomes = writes.join_all().await;
    cluster.restart(leader).await;
    cluster.write("end").await;
    let journal = cluster.converged().await;
    for (number, outcome) in outcomes {
        let times = journal.iter().filter(|line| **line == format!("{number}")).count();
        match outcome {
            Ok(_) => assert_eq!(times, 1, "write {number} was acknowledged"),
            Err(WriteError::Unknown(_)) => assert!(times <= 1, "write {number} happened {times} times"),
            Err(error) => assert_eq!(times, 0, "write {number} certainly failed: {error}"),
        }
    }
}

/// `Config::max_command_bytes`: a larger command is refused before it leaves the caller.
#[tokio::test]
async fn a_command_over_the_limit_is_invalid() {
    let cluster = Cluster::founded(1, false, |c| c.max_command_bytes = 100).await;
    cluster.leader().await;
    assert!(cluster.node(1).write("x".repeat(98)).await.is_ok());
    assert!(matches!(cluster.node(1).write("x".repeat(101)).await, Err(WriteError::Invalid(_))));
}

/// `Config::request_timeout`: A4's time limit, and what it means.
#[tokio::test]
async fn a_write_that_nobody_can_commit_in_time_is_unknown() {
    let mut cluster = Cluster::founded(3, true, |c| {
        steady(c);
        c.request_timeout = Duration::from_millis(30);
    })
    .await;
    let leader = cluster.leader().await;
    cluster.stop_all_but(leader).await;
    let outcome = cluster.node(leader).write("lonely".into()).await;
    assert_eq!(outcome, Err(WriteError::Unknown(Cause::Timeout)));
}

/// `Config::max_pending`: what is over it is refused at once, and what waits is not disturbed.
#[tokio::test]
async fn more_requests_than_may_wait_are_busy() {
    let mut cluster = Cluster::founded(3, true, |c| {
        steady(c);
        c.max_pending = 10;
    })
    .await;
    let leader = cluster.leader().await;
    cluster.stop_all_but(leader).await;
    let mut writes = JoinSet::new();
    for number in 0..100 {
        let node = cluster.node(leader).clone();
        writes.spawn(async move { node.write_within(format!("{number}"), NEVER).await });
    }
    for refused in 0..90 {
        let outcome = tokio::time::timeout(PATIENCE, writes.join_next()).await;
        let outcome = outcome.unwrap_or_else(|_| panic!("{refused} of 100 were refused with room for 10"));
        assert_eq!(outcome.unwrap().unwrap(), Err(WriteError::Busy(Busy::Requests)));
    }
    assert_eq!(cluster.node(leader).status().await.unwrap().pending, 10);
    assert!(writes.try_join_next().is_none(), "what waits is not disturbed");
}

/// Concurrent writers through one leader: every write once, replies in the order of the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_concurrent_writers_each_get_their_own_reply() {
    let cluster = Cluster::founded(3, true, steady).await;
    let leader = cluster.leader().await;
    let mut writes = JoinSet::new();
    for number in 0..1000 {
        let node = cluster.node(leader).clone();
        writes.spawn(async move { (number, node.write(format!("{number}")).await.unwrap()) });
    }
    let outcomes = writes.join_all().await;
    let journal = cluster.converged().await;
    assert_eq!(journal.len(), 1000);
    for (number, place) in outcomes {
        assert_eq!(journal[place as usize - 1], format!("{number}"));
    }
}

/// A forwarded write is for one leader in one term: a leader that slept must not do later what its sender
/// has given up.
#[tokio::test]
async fn a_forwarded_write_of_another_term_is_refused() {
    use coracle::raft::{Boot, Term};
    use coracle::transport::tcp::{Local, Tcp, TcpConfig};
    use coracle::transport::{Forward, ForwardReply, Inbound, PeerMessage};
    let mut cluster = Cluster::founded(3, false, steady).await;
    let leader = cluster.leader().await;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    cluster.stop(follower).await;
    // In the follower's place stands one that says what it likes.
    let status = cluster.node(leader).status().await.unwrap();
    let member = |id| status.raft.membership.members[&NodeId(id)].peer();
    let membership = status.raft.membership_id;
    let local = Local::new(member(follower), Boot(9), status.cluster, membership);
    let (inbox, mut inbound) = tokio::sync::mpsc::channel(64);
    let tcp = Tcp::bind("127.0.0.1:0", TcpConfig::default(), local, inbox).await.unwrap();
    tcp.set_membership(membership, &status.raft.membership, &[]);
    let (command, current) = (Journal::encode_command(&"forwarded".to_owned()).unwrap(), status.raft.term);
    for (id, term) in [(1, Term(current.0 - 1)), (2, current)] {
        let forward = Forward { id, time_left: 1000, term, proposal: Proposal::Command(command.clone()) };
        eventually("the leader can be reached", async || {
            tcp.send(member(leader), PeerMessage::Forward(forward.clone())).then_some(())
        })
        .await;
        let outcome = loop {
            match inbound.recv().await.unwrap() {
                Inbound::Message {
                    message: PeerMessage::ForwardReply(ForwardReply { id: answered, outcome }),
                    ..
                } => {
                    assert_eq!(answered, id);
                    break outcome;
                }
                _ => continue,
            }
        };
        assert_eq!(outcome.is_ok(), term == current, "{outcome:?}");
    }
    let leader = cluster.leader().await;
    assert_eq!(cluster.node(leader).read(()).await.unwrap(), ["forwarded"], "once, and in its own term");
}

/// Two that are asked at once, with the same list, found one cluster and not two halves of none.
#[tokio::test]
async fn founders_that_are_asked_at_once_found_one_cluster() {
    for _ in 0..10 {
        let cluster = Cluster::blank(3, true, |_| {}).await;
        let ask = |id| cluster.node(id).set_configuration(cluster.list());
        let (one, two, three) = tokio::join!(ask(1), ask(2), ask(3));
        let (one, two, three) = (one.unwrap(), two.unwrap(), three.unwrap());
        assert!(one == two && two == three);
        cluster.write("together").await;
        assert_eq!(cluster.converged().await, ["together"]);
    }
}

/// The own address is what others will dial, so it is tried too.
#[tokio::test]
async fn a_founder_whose_own_address_is_wrong_is_named() {
    let cluster = Cluster::blank(2, false, |c| c.bootstrap_timeout = Duration::from_millis(300)).await;
    let mut list = cluster.list();
    list[0].1 = "127.0.0.1:1".to_owned();
    let Err(ConfigurationError::NotReady(missing)) = cluster.node(1).set_configuration(list).await else {
        panic!("nobody listens at node 1's address");
    };
    assert_eq!(missing[0].0, NodeId(1), "{missing:?}");
}

/// Requests whose callers have given up make room for others.
#[tokio::test]
async fn abandoned_writes_do_not_fill_the_node_for_ever() {
    let mut cluster = Cluster::founded(3, true, |c| {
        steady(c);
        c.max_pending = 10;
    })
    .await;
    let leader = cluster.leader().await;
    cluster.stop_all_but(leader).await;
    let node = cluster.node(leader);
    let mut writes = JoinSet::new();
    // What comes together with a question may be refused although there is room.
    eventually("ten of them wait", async || {
        let node = node.clone();
        let full = node.status().await.unwrap().pending == 10;
        writes.spawn(async move { node.write_within("w".into(), NEVER).await });
        full.then_some(())
    })
    .await;
    assert_eq!(node.write("w".into()).await, Err(WriteError::Busy(Busy::Requests)));
    writes.shutdown().await;
    eventually("there is room again", async || {
        let outcome = node.write_within("w".into(), Duration::from_millis(10)).await;
        assert!(
            [WriteError::Busy(Busy::Requests), WriteError::Unknown(Cause::Timeout)]
                .contains(outcome.as_ref().unwrap_err())
        );
        (outcome != Err(WriteError::Busy(Busy::Requests))).then_some(())
    })
    .await;
}
