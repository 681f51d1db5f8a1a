//! Transfers of leadership over real sockets and files.

use crate::common::*;
use coracle::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::JoinHandle;

fn plain(_: &mut Config) {}

/// Writes one line after the other at a node, each until it is done, until told to stop. What it wrote, and how often it
/// heard that nobody knows what became of a line.
fn writer(node: &Node<Journal>, name: u64, stop: &Arc<AtomicBool>) -> JoinHandle<(Vec<String>, usize)> {
    let (node, stop) = (node.clone(), Arc::clone(stop));
    tokio::spawn(async move {
        let (mut done, mut unknown) = (Vec::new(), 0);
        while !stop.load(Ordering::Relaxed) {
            let line = format!("{name}: {}", done.len());
            match node.write(line.clone()).await {
                Ok(_) => done.push(line),
                Err(WriteError::Unknown(cause)) => {
                    eprintln!("node {name}: {cause}");
                    unknown += 1;
                    return (done, unknown);
                }
                Err(WriteError::Stopped(_)) => return (done, unknown),
                Err(_) => tokio::task::yield_now().await,
            }
        }
        (done, unknown)
    })
}

/// Each line once, and those of a writer in order; and everything that was acknowledged.
fn holds_all(journal: &[String], written: &[Vec<String>]) {
    let mut seen = std::collections::BTreeSet::new();
    assert!(journal.iter().all(|line| seen.insert(line)), "a line stands there twice");
    for lines in written {
        assert!(lines.iter().all(|line| seen.contains(line)), "an acknowledged line is lost");
    }
}

/// LT-1, LT-2: while leadership goes round, writes everywhere are done once, and nobody is left in doubt.
#[tokio::test]
async fn lt_1_leadership_goes_round_and_no_write_is_lost_doubled_or_in_doubt() {
    let cluster = Cluster::founded(3, true, plain).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (1..=3).map(|id| writer(cluster.node(id), id, &stop)).collect();
    for round in 0..9 {
        let to = NodeId(round % 3 + 1);
        eventually("leadership is handed over", async || {
            let leader = cluster.node(cluster.leader().await);
            // A busy computer may keep a target from being in time.
            leader.transfer_leadership(Some(to)).await.ok()
        })
        .await;
        assert_eq!(cluster.leader().await, to.0);
    }
    stop.store(true, Ordering::Relaxed);
    let mut written = Vec::new();
    for writer in writers {
        let (lines, unknown) = writer.await.unwrap();
        assert_eq!(unknown, 0);
        written.push(lines);
    }
    holds_all(&cluster.converged().await, &written);
}

/// A leader that stops hands over first: whoever wrote through another node is told what became of it.
#[tokio::test]
async fn a_leader_that_stops_hands_over_and_leaves_no_forwarded_write_in_doubt() {
    let mut cluster = Cluster::founded(3, true, plain).await;
    for _ in 0..4 {
        let stop = Arc::new(AtomicBool::new(false));
        let leader = cluster.leader().await;
        let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
        let writers: Vec<_> = others.iter().map(|id| writer(cluster.node(*id), *id + 10, &stop)).collect();
        let term = cluster.node(leader).status().await.unwrap().raft.term;
        cluster.stop(leader).await;
        let next = cluster.leader().await;
        assert_ne!(next, leader);
        assert!(cluster.node(next).status().await.unwrap().raft.term > term);
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            assert_eq!(writer.await.unwrap().1, 0, "a forwarded write is in doubt");
        }
        cluster.restart(leader).await;
        cluster.converged().await;
    }
}

#[tokio::test]
async fn a_transfer_that_cannot_be_is_refused_with_the_reason() {
    let alone = Cluster::founded(1, false, steady).await;
    let node = alone.node(1);
    assert!(matches!(node.transfer_leadership(None).await, Err(TransferError::NoTarget)));
    assert_eq!(node.transfer_leadership(Some(NodeId(1))).await.ok(), Some(NodeId(1)), "it leads already");
    let refused = node.transfer_leadership(Some(NodeId(2))).await;
    assert!(matches!(refused, Err(TransferError::NotVoter(NodeId(2)))), "{refused:?}");
    let blank = Cluster::blank(1, false, steady).await;
    assert!(matches!(blank.node(1).transfer_leadership(None).await, Err(TransferError::NotConfigured)));
    let cluster = Cluster::founded(3, false, steady).await;
    let leader = cluster.leader().await;
    let other = leader % 3 + 1;
    let refused = cluster.node(other).transfer_leadership(None).await;
    assert!(matches!(refused, Err(TransferError::NotLeader { .. })), "{refused:?}");
    // Any node that knows who leads says so.
    assert_eq!(
        cluster.node(other).transfer_leadership(Some(NodeId(leader))).await.ok(),
        Some(NodeId(leader))
    );
}

/// SH-1: a node that is alone, or whose others are gone, stops without waiting for anybody.
#[tokio::test]
async fn sh_1_a_leader_whom_nobody_can_follow_stops() {
    let mut alone = Cluster::founded(1, true, steady).await;
    alone.stop(1).await;
    let mut cluster = Cluster::founded(3, true, plain).await;
    let leader = cluster.leader().await;
    cluster.stop_all_but(leader).await;
    cluster.stop(leader).await;
}
