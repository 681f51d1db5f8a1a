//! Taking and losing office, and single writes that outlive a leader.

use crate::common::*;
use coracle::*;
use std::time::Duration;

fn plain(_: &mut Config) {}

/// Whoever takes office has applied all that was acknowledged before, and whoever handed over is out of it.
#[tokio::test]
async fn office_is_taken_with_all_that_was_decided_and_lost_with_leadership() {
    let mut cluster = Cluster::founded(3, true, steady).await;
    let mut newest = Term(0);
    for round in 0..6u64 {
        let leader = cluster.leader().await;
        let mut out = cluster.node(leader).office();
        let term = out.wait_for(Option::is_some).await.unwrap().unwrap();
        assert!(term > newest || round == 0, "terms of office only grow");
        newest = term;
        cluster.write(&format!("before {round}")).await;
        let reached = cluster.node(leader).status().await.unwrap().applied;
        let to = leader % 3 + 1;
        let mut next = cluster.node(to).office();
        assert_eq!(*next.borrow(), None, "only one is in office, as long as none is lost");
        eventually("leadership is handed over", async || {
            let leader = cluster.node(cluster.leader().await);
            leader.transfer_leadership(Some(NodeId(to))).await.ok()
        })
        .await;
        let later = next.wait_for(Option::is_some).await.unwrap().unwrap();
        assert!(later > term);
        let applied = cluster.node(to).status().await.unwrap().applied;
        assert!(applied > reached, "it took office before its machine had caught up");
        out.wait_for(Option::is_none).await.unwrap();
    }
    let leader = cluster.leader().await;
    let mut office = cluster.node(leader).office();
    office.wait_for(Option::is_some).await.unwrap();
    cluster.stop(leader).await;
    assert_eq!(*office.borrow(), None, "a node that stops is out of office");
    assert!(office.changed().await.is_ok() && office.changed().await.is_err(), "and that is the last of it");
}

/// No leader is heard of for a while, and then another one: the write is done, once, and nobody is in doubt.
#[tokio::test]
async fn a_single_write_that_is_retried_outlives_the_leader() {
    let mut cluster = Cluster::founded(3, true, plain).await;
    for round in 0..4u64 {
        let leader = cluster.leader().await;
        let asked = leader % 3 + 1;
        let writes: Vec<_> = (0..8)
            .map(|n| tokio::spawn(cluster.node(asked).write_retrying(format!("{round}-{n}"), NEVER)))
            .collect();
        cluster.stop(leader).await;
        for write in writes {
            write.await.unwrap().unwrap();
        }
        cluster.restart(leader).await;
    }
    let journal = cluster.converged().await;
    let mut lines = journal.clone();
    lines.sort();
    lines.dedup();
    assert_eq!((journal.len(), lines.len()), (32, 32), "{journal:?}");
}

/// Where nobody can decide it, it ends in its time, and says what is true.
#[tokio::test]
async fn a_single_write_ends_in_its_time() {
    let mut cluster = Cluster::founded(3, true, plain).await;
    let left = cluster.leader().await;
    cluster.stop_all_but(left).await;
    let write = cluster.node(left).write_retrying("nobody hears it".into(), Duration::from_millis(300));
    assert!(write.await.is_err());
}
