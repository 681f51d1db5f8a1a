//! Members that are started at other addresses (D5.3.5), over real sockets and files.

use crate::common::*;
use coracle::*;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(3600);

fn plain(_: &mut Config) {}

/// Starts a node that was stopped at an address that it never had.
async fn restart_elsewhere(cluster: &mut Cluster, id: u64) -> String {
    let old = cluster.addresses[id as usize - 1].clone();
    // Whoever has its port now is no member.
    let taken = std::net::TcpListener::bind(&old).unwrap();
    cluster.addresses[id as usize - 1] = "127.0.0.1:0".to_owned();
    cluster.restart(id).await;
    drop(taken);
    let new = cluster.node(id).peer_addr().to_string();
    assert_ne!(new, old);
    cluster.addresses[id as usize - 1].clone_from(&new);
    new
}

/// Whether the membership of this node says of all what is true.
async fn knows_all(cluster: &Cluster, id: u64) -> Option<()> {
    let status = cluster.node(id).status().await.ok()?;
    let said: Vec<_> = status.members.iter().map(|member| (member.id.0, member.address.clone())).collect();
    (said == cluster.list()).then_some(())
}

#[tokio::test]
async fn of_three_two_move_and_then_the_third_dies_and_the_cluster_elects() {
    for third in 1..=3 {
        let mut cluster = Cluster::founded(3, true, plain).await;
        cluster.write("before").await;
        let moved: Vec<u64> = (1..=3).filter(|id| *id != third).collect();
        for id in &moved {
            cluster.stop(*id).await;
        }
        for id in &moved {
            restart_elsewhere(&mut cluster, *id).await;
        }
        cluster.write("moved").await;
        for id in &moved {
            eventually("the others know that it has moved", async || knows_all(&cluster, *id).await).await;
        }
        cluster.stop(third).await;
        cluster.write("without the third").await;
        // All of it is durable: they find each other again.
        for id in &moved {
            cluster.stop(*id).await;
        }
        for id in &moved {
            cluster.restart(*id).await;
        }
        cluster.write("after a restart").await;
        assert_eq!(cluster.converged().await, ["before", "moved", "without the third", "after a restart"]);
        for id in moved {
            assert!(!cluster.node(id).status().await.unwrap().moved);
        }
    }
}

#[tokio::test]
async fn where_nobody_alive_knows_an_address_one_that_is_named_is_enough() {
    let mut cluster = Cluster::founded(3, true, plain).await;
    cluster.write("before").await;
    for id in 1..=3 {
        cluster.stop(id).await;
    }
    for id in [1, 2] {
        restart_elsewhere(&mut cluster, id).await;
    }
    eventually("each says that it has moved", async || {
        let moved = cluster.node(1).status().await.ok()?.moved && cluster.node(2).status().await.ok()?.moved;
        moved.then_some(())
    })
    .await;
    let other = cluster.addresses[1].clone();
    let met = cluster.node(1).meet(&other).await.unwrap();
    assert_eq!(met, NodeId(2));
    cluster.write("found").await;
    eventually("the membership says where they are", async || {
        let status = cluster.node(2).status().await.ok()?;
        let told = |id: u64| {
            status.members.iter().any(|m| m.id.0 == id && m.address == cluster.addresses[id as usize - 1])
        };
        (told(1) && told(2)).then_some(())
    })
    .await;
    // It moved while nobody that it knows was where it was.
    restart_elsewhere(&mut cluster, 3).await;
    cluster.node(3).meet(&other).await.unwrap();
    eventually("the third is found too", async || knows_all(&cluster, 3).await).await;
    assert_eq!(cluster.converged().await, ["before", "found"]);
}

#[tokio::test]
async fn a_member_is_moved_by_hand_once_it_is_there_and_nobody_else_is_taken_for_it() {
    let mut cluster = Cluster::founded(3, true, plain).await;
    let leader = cluster.leader().await;
    let goes = 1 + leader % 3;
    let stranger = cluster.addresses[(goes % 3) as usize].clone();
    let ask = async |cluster: &Cluster, change: MemberChange| {
        eventually("the change is over", async || {
            for node in cluster.running() {
                match node.change_members(change.clone(), LIMIT).await {
                    Err(ChangeError::NotLeader { .. } | ChangeError::NoLeader | ChangeError::Unknown) => {}
                    over => return Some(over),
                }
            }
            None
        })
        .await
    };
    let refused = ask(&cluster, MemberChange::Move(NodeId(goes), stranger)).await.unwrap_err();
    assert!(matches!(&refused, ChangeError::NotReady { node, .. } if node.0 == goes), "{refused:?}");
    let refused = ask(&cluster, MemberChange::Move(NodeId(9), "127.0.0.1:1".to_owned())).await.unwrap_err();
    assert!(in_full(&refused).contains("node 9 is no member"), "{refused}");
    cluster.stop(goes).await;
    let new = restart_elsewhere(&mut cluster, goes).await;
    for _ in 0..2 {
        let done = ask(&cluster, MemberChange::Move(NodeId(goes), new.clone())).await.unwrap();
        assert_eq!(done.members[&NodeId(goes)].address, new);
    }
    cluster.write("moved").await;
    assert_eq!(cluster.converged().await, ["moved"]);
}

/// Two of four elect nobody who could put anything into the membership.
#[tokio::test]
async fn where_members_were_found_outlives_restarts_before_the_membership_says_so() {
    let mut cluster = Cluster::founded(4, true, plain).await;
    cluster.write("before").await;
    cluster.converged().await;
    for id in 1..=4 {
        cluster.stop(id).await;
    }
    cluster.restart(1).await;
    let kept = cluster.dir(1).join("moved");
    assert!(!kept.exists());
    restart_elsewhere(&mut cluster, 2).await;
    eventually("it is written down where the other is", async || kept.exists().then_some(())).await;
    cluster.stop(1).await;
    cluster.stop(2).await;
    // Now only this one knows where the other is.
    restart_elsewhere(&mut cluster, 1).await;
    cluster.restart(2).await;
    eventually("they find each other", async || {
        let status = cluster.node(2).status().await.ok()?;
        status.members.iter().any(|member| member.id.0 == 1 && member.connected).then_some(())
    })
    .await;
    cluster.restart(3).await;
    cluster.write("after").await;
    assert_eq!(cluster.converged().await, ["before", "after"]);
}

/// Another disk under the name of a member is no member that has moved.
#[tokio::test]
async fn a_member_on_another_disk_is_not_moved_by_hand() {
    let mut cluster = Cluster::founded(3, true, plain).await;
    cluster.write("before").await;
    let leader = cluster.leader().await;
    let goes = 1 + leader % 3;
    cluster.stop(goes).await;
    std::fs::remove_dir_all(cluster.dir(goes)).unwrap();
    let new = restart_elsewhere(&mut cluster, goes).await;
    let refused = eventually("an answer of the leader", async || {
        for node in cluster.running() {
            match node.change_members(MemberChange::Move(NodeId(goes), new.clone()), LIMIT).await {
                Err(ChangeError::NotLeader { .. } | ChangeError::NoLeader | ChangeError::NotConfigured) => {}
                over => return Some(over.unwrap_err()),
            }
        }
        None
    })
    .await;
    assert!(in_full(&refused).contains("another disk"), "{refused}");
}

/// The port as it is, under another name of this computer.
fn by_another_name(config: &mut Config) {
    if let Some(port) = config.peer_addr.strip_prefix("127.0.0.1:").filter(|port| *port != "0") {
        config.advertised = format!("localhost:{port}");
    }
}

/// Two names of one place are no move: a node that is found at home, in this very boot, stays in the membership as it is. One
/// that has moved meanwhile, beside it, is noticed.
#[tokio::test]
async fn another_name_of_the_same_place_is_no_move() {
    let mut named = Cluster::founded(1, true, by_another_name).await;
    let mut moved = Cluster::founded(1, true, plain).await;
    named.stop(1).await;
    named.restart(1).await;
    let home = named.addresses[0].clone();
    assert_eq!(named.node(1).status().await.unwrap().address, home.replace("127.0.0.1", "localhost"));
    for _ in 0..3 {
        moved.stop(1).await;
        restart_elsewhere(&mut moved, 1).await;
        eventually("the membership says where it is", async || knows_all(&moved, 1).await).await;
    }
    let status = named.node(1).status().await.unwrap();
    assert!(!status.moved && status.members[0].address == home, "{status:?}");
}

fn impatient(config: &mut Config) {
    config.forward = true;
    config.replace_dead_after = Some(2 * config.election_timeout.1);
}

#[tokio::test]
async fn a_voter_that_stays_silent_is_replaced_by_a_learner_that_has_caught_up_and_by_nobody_else() {
    let mut cluster = Cluster::blank(4, false, impatient).await;
    let list = cluster.list().into_iter().take(3);
    cluster.node(1).set_configuration(list).await.unwrap();
    let voters = async |cluster: &Cluster, wanted: Vec<u64>| {
        eventually("these vote", async || {
            let leader = cluster.running().find(|node| node.is_leader())?;
            let status = leader.status().await.ok()?.raft;
            let voters: Vec<u64> = status.membership.voters.iter().map(|id| id.0).collect();
            let silent = status.peers.iter().map(|peer| peer.silent_for).max()?;
            (voters == wanted && !status.membership.is_joint()).then_some((leader.peer_addr(), silent))
        })
        .await
    };
    // Node 4 is blank, and agrees on no leader.
    eventually("the write is done", async || cluster.node(1).write("before".to_owned()).await.ok()).await;
    cluster.stop(3).await;
    // While no learner stands ready nobody is replaced, however long it is silent.
    eventually("it was silent for twice as long", async || {
        let (_, silent) = voters(&cluster, vec![1, 2, 3]).await;
        (silent > 240).then_some(())
    })
    .await;
    let address = cluster.addresses[3].clone();
    eventually("a learner stands ready", async || {
        for node in cluster.running().take(2) {
            match node.change_members(MemberChange::Add(NodeId(4), address.clone()), LIMIT).await {
                Ok(_) => return Some(()),
                Err(_) => continue,
            }
        }
        None
    })
    .await;
    voters(&cluster, vec![1, 2, 4]).await;
    cluster.write("after").await;
    // The one that is gone is no member any more, and two of the three are enough.
    cluster.stop(1).await;
    cluster.write("two are enough").await;
    assert_eq!(cluster.converged().await, ["before", "after", "two are enough"]);
}
