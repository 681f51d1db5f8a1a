//! What the handle of a node tells of the cluster.

use crate::common::{Cluster, Journal, PATIENCE, eventually, steady};
use coracle::{Busy, Cause, Config, Node, ReadError, Storage, WriteError};
use serde_json::Value;
use std::time::Duration;

fn named(config: &mut Config) {
    steady(config);
    config.metadata = format!("rack {}", config.id).into_bytes();
}

/// Whoever is sent to the leader learns what the leader's application says of itself, such as where its clients go.
#[tokio::test]
async fn the_leader_and_the_members_carry_what_their_applications_say() {
    let cluster = Cluster::founded(3, false, named).await;
    let leader = cluster.leader().await;
    let follower = cluster.node(if leader == 1 { 2 } else { 1 });
    let rack = format!("rack {leader}");
    for node in [follower, cluster.node(leader)] {
        let told = eventually("the metadata of the leader", async || {
            node.leader().filter(|told| told.id.0 == leader && !told.metadata.is_empty())
        });
        assert_eq!(told.await.metadata, rack);
    }
    let Err(WriteError::NotLeader { leader: told }) = follower.write("here?".into()).await else { panic!() };
    assert_eq!((told.id.0, &told.metadata[..]), (leader, rack.as_bytes()));
    for node in cluster.running() {
        let members = eventually("all members", async || {
            let members = node.status().await.unwrap().members;
            members.iter().all(|member| member.connected && !member.metadata.is_empty()).then_some(members)
        });
        let members = members.await;
        let told: Vec<_> = members.iter().map(|member| (member.id.0, &member.metadata[..])).collect();
        assert_eq!(told, [(1, &b"rack 1"[..]), (2, b"rack 2"), (3, b"rack 3")]);
        assert!(members.iter().all(|member| member.voter && !member.address.is_empty()));
    }
}

/// A member that is gone is known as such, and is still known.
#[tokio::test]
async fn a_member_that_is_gone_is_not_connected() {
    let mut cluster = Cluster::founded(3, false, named).await;
    let leader = cluster.leader().await;
    let gone = if leader == 1 { 2 } else { 1 };
    eventually("all members", async || {
        let members = cluster.node(leader).status().await.unwrap().members;
        members.iter().all(|member| member.connected).then_some(())
    })
    .await;
    cluster.stop(gone).await;
    let member = eventually("one is gone", async || {
        let members = cluster.node(leader).status().await.unwrap().members;
        members.into_iter().find(|member| !member.connected)
    });
    let member = member.await;
    assert_eq!((member.id.0, member.metadata), (gone, format!("rack {gone}").into()));
}

#[tokio::test]
async fn a_status_is_serialized_flat() {
    let cluster = Cluster::founded(3, true, named).await;
    let leader = cluster.leader().await;
    cluster.write("one").await;
    let status = cluster.node(leader).status().await.unwrap();
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["id"], leader);
    assert_eq!(json["role"], "leader");
    assert_eq!(json["leader"], leader);
    assert_eq!(json["term"], status.raft.term.0);
    assert_eq!(json["cluster"], status.cluster.unwrap().to_string());
    assert_eq!(json["applied"]["index"], status.applied.index.0);
    assert_eq!(json["digest"].as_str().map(str::len), Some(32));
    assert_eq!(json["members"][2]["id"], 3);
    assert_eq!(json["members"][leader as usize - 1]["metadata"], format!("rack {leader}"));
    assert_eq!(json["peers"].as_array().map(Vec::len), Some(2));
    assert!(json["peers"][0]["silent_ms"].is_u64() && json["peers"][0]["matched"].is_u64());
    assert_eq!(json["no_space"], Value::Null);
}

/// Few commands can hold much: those that wait for consensus are bounded in bytes as well.
#[tokio::test]
async fn too_many_bytes_of_commands_are_refused_as_busy() {
    let mut config = Config::new(1, "127.0.0.1:0", Storage::Memory);
    config.max_unproposed_bytes = 1000;
    let node = Node::start(config, Journal::default()).await.unwrap();
    node.set_configuration([(1, node.peer_addr().to_string())]).await.unwrap();
    eventually("a leader", async || node.leader()).await;
    assert!(node.write("x".repeat(2000)).await.is_ok(), "a single one may be larger");
    // Consensus may look between the two, by its own tick.
    eventually("a refusal", async || {
        let (one, two) = tokio::join!(node.write("x".repeat(900)), node.write("x".repeat(900)));
        assert!(one.is_ok(), "{one:?}");
        (two == Err(WriteError::Busy(Busy::Requests))).then_some(())
    })
    .await;
}

/// Whatever the root's items return or hold can be named from the root.
#[tokio::test]
async fn what_the_root_returns_has_its_name_at_the_root() {
    let cluster = Cluster::blank(1, false, steady).await;
    let node = cluster.node(1);
    let membership: coracle::Membership = node.set_configuration(cluster.list()).await.unwrap();
    let member: &coracle::Member = &membership.members[&coracle::NodeId(1)];
    let _: coracle::Incarnation = member.incarnation;
    let status: coracle::Status = node.status().await.unwrap();
    let (_, _): (Option<coracle::ClusterId>, coracle::LogId) = (status.cluster, status.applied);
    let (_, _): (coracle::RoleName, coracle::Peer) = (status.raft.role, status.raft.me);
    let (_, _): (coracle::Term, Vec<coracle::PeerStatus>) = (status.raft.term, status.raft.peers);
    let (_, _): (Vec<coracle::Run>, Vec<coracle::MemberStatus>) = (status.raft.runs, status.members);
    let entry: coracle::Entry = node.get_entry(1).await.unwrap();
    let (_, _): (coracle::Kind, coracle::Stamp) = (entry.kind(), entry.stamp());
    let (_, _): (coracle::Index, coracle::Bytes) = (entry.index(), entry.payload());
}

/// What was not done for want of a cluster or a leader is tried again, for as long as it may take, and no longer.
#[tokio::test]
async fn calls_that_are_tried_again_outlast_what_was_not_there_yet() {
    let cluster = Cluster::blank(3, false, steady).await;
    let node = cluster.node(1).clone();
    let (session, lane, short) = (node.session(), node.forwarding_session(), Duration::from_millis(50));
    let early = lane.write_retrying("too early".to_owned(), short).await;
    // Or it was not asked in time.
    let over = Err(WriteError::Unknown(Cause::Timeout));
    assert!(early == Err(WriteError::NotConfigured) || early == over, "{early:?}");
    let early = node.read_retrying((), short).await;
    assert!(early == Err(ReadError::NotConfigured) || early == Err(ReadError::Timeout), "{early:?}");
    let writes = [
        tokio::spawn(session.write_retrying("a line".to_owned(), PATIENCE)),
        tokio::spawn(lane.write_retrying("another".to_owned(), PATIENCE)),
        tokio::spawn(node.write_retrying("and another".to_owned(), PATIENCE)),
    ];
    let (read, backup) = (tokio::spawn(node.read_retrying((), PATIENCE)), async { node.backup().await });
    let founds = async { node.set_configuration(cluster.list()).await };
    let (backup, founded) = tokio::join!(backup, founds);
    founded.unwrap();
    assert!(backup.is_ok(), "{backup:?}");
    for write in writes {
        write.await.unwrap().unwrap();
    }
    read.await.unwrap().unwrap();
    let lines = node.read_retrying((), PATIENCE).await.unwrap();
    for line in ["a line", "another", "and another"] {
        assert_eq!(lines.iter().filter(|other| *other == line).count(), 1, "{lines:?}");
    }
}
