//! Changes of membership over real sockets and files.

use crate::common::*;
use coracle::raft::RoleName;
use coracle::*;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(3600);

fn plain(_: &mut Config) {}

/// Five nodes, of which the first three are a cluster.
async fn three_of_five(durable: bool) -> Cluster {
    let cluster = Cluster::blank(5, durable, plain).await;
    let list = cluster.list().into_iter().take(3);
    cluster.node(1).set_configuration(list).await.unwrap();
    cluster
}

/// Asks whoever leads among these, until it is done, or refused for good.
async fn change(cluster: &Cluster, change: MemberChange) -> Result<Membership, ChangeError> {
    eventually("the change is over", async || {
        for node in cluster.running() {
            match node.change_members(change.clone(), LIMIT).await {
                Err(ChangeError::NotLeader { .. } | ChangeError::NoLeader | ChangeError::Unknown) => {}
                // Blank nodes, and those that have left, know nothing.
                Err(ChangeError::NotConfigured) => {}
                over => return Some(over),
            }
        }
        None
    })
    .await
}

fn voters(membership: &Membership) -> Vec<u64> {
    membership.voters.iter().map(|id| id.0).collect()
}

fn id(id: u64) -> NodeId {
    NodeId(id)
}

/// The address of a node.
fn at(cluster: &Cluster, id: u64) -> String {
    cluster.list()[id as usize - 1].1.clone()
}

/// Writes by whoever takes it.
async fn write(cluster: &Cluster, lines: std::ops::Range<u64>) {
    for number in lines {
        let line = format!("line {number}");
        eventually("the write is done", async || {
            for node in cluster.running() {
                match node.write(line.clone()).await {
                    Ok(_) => return Some(()),
                    Err(WriteError::Unknown(_)) => {
                        let journal = node.read(()).await.ok()?;
                        if journal.contains(&line) {
                            return Some(());
                        }
                    }
                    Err(_) => {}
                }
            }
            None
        })
        .await;
    }
}

fn lines(upto: u64) -> Vec<String> {
    (0..upto).map(|number| format!("line {number}")).collect()
}

#[tokio::test]
async fn a_cluster_grows_to_five_and_shrinks_to_one_and_keeps_every_write() {
    let mut cluster = three_of_five(true).await;
    write(&cluster, 0..20).await;
    let added = change(&cluster, MemberChange::Add(id(4), at(&cluster, 4))).await.unwrap();
    assert_eq!((voters(&added), added.members.len()), (vec![1, 2, 3], 4));
    write(&cluster, 20..30).await;
    assert_eq!(voters(&change(&cluster, MemberChange::Promote(id(4))).await.unwrap()), [1, 2, 3, 4]);
    let all = (1..=5).map(|n| (id(n), at(&cluster, n))).collect();
    assert_eq!(voters(&change(&cluster, MemberChange::Voters(all)).await.unwrap()), [1, 2, 3, 4, 5]);
    write(&cluster, 30..40).await;
    assert_eq!(cluster.converged().await, lines(40));
    // Each of these may be the leader.
    for (gone, left) in [(1, vec![2, 3, 4, 5]), (3, vec![2, 4, 5]), (5, vec![2, 4]), (2, vec![4])] {
        let then = change(&cluster, MemberChange::Remove(id(gone))).await.unwrap();
        assert_eq!(voters(&then), left);
        eventually("the node that left knows it", async || {
            let status = cluster.node(gone).status().await.ok()?.raft;
            (status.role == RoleName::Learner && status.commit >= status.membership_id.index).then_some(())
        })
        .await;
        cluster.stop(gone).await;
        write(&cluster, gone * 100..gone * 100 + 5).await;
    }
    let journal = cluster.converged().await;
    assert_eq!(journal[..40], lines(40));
    assert_eq!(journal.len(), 60, "each once: {journal:?}");
    // And all of it is there after a restart.
    cluster.stop(4).await;
    cluster.restart(4).await;
    assert_eq!(cluster.converged().await, journal);
}

/// RS-1, MC-13: a wiped disk under its old name is another member, and is led back in.
#[tokio::test]
async fn mc_13_a_node_that_lost_its_disk_is_replaced_under_its_own_name() {
    let mut cluster = Cluster::founded(3, true, plain).await;
    write(&cluster, 0..20).await;
    cluster.stop(3).await;
    std::fs::remove_dir_all(cluster.dir(3)).unwrap();
    cluster.restart(3).await;
    // To add it once more is not to replace it. One that does not answer in time stays what it was.
    eventually("the new disk is noticed", async || {
        let again = change(&cluster, MemberChange::Add(id(3), at(&cluster, 3))).await;
        again.is_err_and(|error| error.to_string().contains("it has another disk there")).then_some(())
    })
    .await;
    let replace = MemberChange::Replace { old: id(3), new: id(3), address: at(&cluster, 3) };
    let then = change(&cluster, replace.clone()).await.unwrap();
    assert_eq!(voters(&then), [1, 2, 3]);
    assert_eq!(change(&cluster, replace).await.unwrap(), then, "once more changes nothing");
    assert_eq!(cluster.converged().await, lines(20));
    let incarnation = cluster.node(3).status().await.unwrap().raft.me.incarnation;
    assert_eq!(then.members[&id(3)].incarnation, incarnation);
}

#[tokio::test]
async fn a_change_after_which_too_few_would_answer_is_refused() {
    let mut cluster = Cluster::founded(3, false, plain).await;
    let down = 1 + cluster.leader().await % 3;
    cluster.stop(down).await;
    eventually("the change is refused", async || {
        let leader = cluster.leader().await;
        let alive = 6 - leader - down;
        let status = cluster.node(leader).status().await.ok()?.raft;
        // Twice an election timeout, in ticks.
        let silent = status.peers.iter().any(|peer| peer.id == id(down) && peer.silent_for > 120);
        if !silent {
            return None;
        }
        match cluster.node(leader).change_members(MemberChange::Remove(id(alive)), LIMIT).await {
            Err(ChangeError::NoQuorum) => Some(()),
            Err(ChangeError::Unknown | ChangeError::NotLeader { .. } | ChangeError::NoLeader) => None,
            other => panic!("{other:?}"),
        }
    })
    .await;
    write(&cluster, 0..3).await;
}

/// MC-13: whoever answers in the leader's name is not the leader for that.
#[tokio::test]
async fn mc_13_another_node_of_the_leaders_name_is_not_taken_for_the_leader() {
    let cluster = Cluster::founded(3, false, plain).await;
    let others = Cluster::blank(3, false, plain).await;
    eventually("both changes are refused", async || {
        let leader = cluster.leader().await;
        let (name, address) = (id(leader), at(&others, leader));
        let replace = MemberChange::Replace { old: name, new: name, address: address.clone() };
        for wrong in [replace, MemberChange::Move(name, address)] {
            match cluster.node(leader).change_members(wrong, LIMIT).await {
                Err(ChangeError::Invalid(why)) => {
                    assert!(why.contains("let another node lead first"), "{why}");
                }
                // It leads no more, or there was no answer in time.
                Err(_) => return None,
                Ok(done) => panic!("{done:?}"),
            }
        }
        Some(())
    })
    .await;
    let membership = cluster.node(1).status().await.unwrap().raft.membership;
    for member in membership.members.values() {
        assert_eq!(member.address, at(&cluster, member.id.0));
    }
}

#[tokio::test]
async fn whoever_cannot_come_is_named_with_the_reason() {
    let cluster = Cluster::founded(3, false, plain).await;
    let other = Cluster::blank(4, false, plain).await;
    let address = at(&other, 4);
    other.node(4).set_configuration([(4, address.clone())]).await.unwrap();
    let silent = change(&cluster, MemberChange::Add(id(4), "127.0.0.1:1".to_owned())).await.unwrap_err();
    assert!(matches!(&silent, ChangeError::NotReady { node, .. } if *node == id(4)), "{silent:?}");
    let stranger = change(&cluster, MemberChange::Add(id(4), address.clone())).await.unwrap_err();
    assert!(stranger.to_string().contains("this node belongs to cluster"), "{stranger}");
    let taken = change(&cluster, MemberChange::Add(id(1), address)).await.unwrap_err();
    let says = format!("the change is not valid: node 1 is a member already, at {}", at(&cluster, 1));
    assert_eq!(taken.to_string(), says);
    let unknown = change(&cluster, MemberChange::Promote(id(9))).await.unwrap_err();
    assert_eq!(unknown.to_string(), "the change is not valid: node 9 is no member");
    let leader = cluster.leader().await;
    let follower = cluster.node(1 + leader % 3);
    let named = follower.change_members(MemberChange::Demote(id(1)), LIMIT).await;
    let names = |error: &ChangeError| match error {
        ChangeError::NotLeader { leader: named } => named.id.0 == leader,
        _ => false,
    };
    assert!(
        named.is_ok() || named.as_ref().is_err_and(|error| names(error) || *error == ChangeError::NoLeader),
        "{named:?}"
    );
}
