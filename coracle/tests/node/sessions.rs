//! Writes through sessions, over real sockets: done once and in order, whatever becomes of the leader.

use crate::common::*;
use coracle::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

const LIMIT: Duration = Duration::from_secs(60);

/// What `count` pipelined writes through one session return, asked for in this order.
async fn pipelined(session: &Session<Journal>, count: usize) -> Vec<Result<u64, WriteError>> {
    let mut writes = JoinSet::new();
    for number in 0..count {
        let write = session.write_within(format!("{number}"), LIMIT);
        writes.spawn(async move { (number, write.await) });
    }
    let mut outcomes = writes.join_all().await;
    outcomes.sort_by_key(|(number, _)| *number);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

/// D5.6.2: the leader goes while hundreds of writes are under way to it, and again and again.
#[tokio::test]
async fn a_leader_that_goes_is_a_pause_to_those_who_write_in_sessions() {
    let mut cluster = Cluster::founded(3, true, |_| {}).await;
    let mut done = Vec::new();
    for round in 0..3 {
        let leader = cluster.leader().await;
        let follower = (1..=3).find(|id| *id != leader).unwrap();
        let sessions: Vec<_> = (0..4).map(|_| cluster.node(follower).session()).collect();
        let mut all = JoinSet::new();
        let acknowledged = Arc::new(AtomicUsize::new(0));
        for (lane, session) in sessions.into_iter().enumerate() {
            let acknowledged = acknowledged.clone();
            all.spawn(async move {
                for number in 0..50 {
                    session.write_within(format!("{round}.{lane}.{number}"), LIMIT).await.unwrap();
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        done.extend((0..4).flat_map(|lane| (0..50).map(move |number| format!("{round}.{lane}.{number}"))));
        eventually("some are done", async || (acknowledged.load(Ordering::Relaxed) >= 8).then_some(())).await;
        cluster.stop(leader).await;
        all.join_all().await;
        cluster.restart(leader).await;
    }
    let mut journal = cluster.converged().await;
    for lane in 0..4 {
        let of = |line: &&String| line.split('.').nth(1) == Some(&lane.to_string());
        let lines: Vec<_> = journal.iter().filter(of).cloned().collect();
        let expected: Vec<_> = done.iter().filter(of).cloned().collect();
        assert_eq!(lines, expected, "lane {lane} has each of its writes once, and in their order");
    }
    journal.sort();
    done.sort();
    assert_eq!(journal, done);
}

/// Commands that are asked for one after the other, and not waited for, are done in that order, on every node.
#[tokio::test]
async fn a_session_keeps_the_order_of_the_calls() {
    let cluster = Cluster::founded(3, false, steady).await;
    let leader = cluster.leader().await;
    for (at, id) in [leader, leader % 3 + 1].into_iter().enumerate() {
        let session = cluster.node(id).session();
        let outcomes = pipelined(&session, 300).await;
        let first = 300 * at as u64;
        assert_eq!(outcomes, (1..=300).map(|number| Ok(first + number)).collect::<Vec<_>>());
    }
    assert_eq!(cluster.converged().await, [numbers(300), numbers(300)].concat());
}

/// The lane of one that was dropped is used again, with the numbers that come next.
#[tokio::test]
async fn sessions_that_come_and_go_share_their_lanes() {
    let forwarding = |config: &mut Config| {
        steady(config);
        config.forward = true;
    };
    let cluster = Cluster::founded(3, true, forwarding).await;
    for id in 1..=3 {
        for number in 0..20 {
            let session = cluster.node(id).forwarding_session();
            session.write(format!("{id}.{number}")).await.unwrap();
        }
    }
    assert_eq!(cluster.converged().await.len(), 60);
}
