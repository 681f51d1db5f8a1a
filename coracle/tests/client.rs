//! Clients over real sockets: each write is done once, whatever becomes of leaders, nodes and connections, and what a client
//! says of a write is true.

mod common;

use common::*;
use coracle::client::{self, Client, ClientConfig};
use coracle::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::JoinSet;

/// A client of these nodes that waits as long as a test may take.
fn client_of(addresses: &[String]) -> Client<Journal> {
    let mut config = ClientConfig::new(addresses);
    config.request_timeout = PATIENCE;
    Client::start(config).unwrap()
}

/// What `count` pipelined writes return, asked for in this order.
async fn pipelined(session: &client::Session<Journal>, count: usize) -> Vec<Result<u64, WriteError>> {
    let mut writes = JoinSet::new();
    for number in 0..count {
        let write = session.write(format!("{number}"));
        writes.spawn(async move { (number, write.await) });
    }
    let mut outcomes = writes.join_all().await;
    outcomes.sort_by_key(|(number, _)| *number);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Given a follower alone, it finds the leader, and its calls are those of a node.
#[tokio::test]
async fn a_client_that_knows_a_follower_writes_and_reads() {
    let cluster = Cluster::founded(3, false, steady).await;
    let follower = (cluster.leader().await % 3) as usize;
    let client = client_of(&cluster.addresses[follower..=follower]);
    assert_eq!(client.write("one".to_owned()).await, Ok(1));
    assert_eq!(client.write("two".to_owned()).await, Ok(2));
    assert_eq!(client.read(()).await, Ok(vec!["one".to_owned(), "two".to_owned()]));
}

/// Many calls are under way at once, and a session keeps their order.
#[tokio::test]
async fn a_session_of_a_client_keeps_the_order_of_the_calls() {
    let cluster = Cluster::founded(3, false, steady).await;
    cluster.leader().await;
    let client = client_of(&cluster.addresses);
    let outcomes = pipelined(&client.session(), 1_000).await;
    assert_eq!(outcomes, (1..=1_000).map(Ok).collect::<Vec<_>>());
    let lines: Vec<_> = (0..1_000).map(|number| number.to_string()).collect();
    assert_eq!(client.read(()).await.unwrap(), lines);
}

/// CS-1: leaders go, one after the other, while clients write: no error, nothing twice, nothing lost.
#[tokio::test]
async fn cs_1_the_death_of_a_leader_is_a_pause_to_clients() {
    let mut cluster = Cluster::founded(3, true, |_| {}).await;
    let acknowledged = Arc::new(AtomicU64::new(0));
    for round in 0..3 {
        let leader = cluster.leader().await;
        let before = acknowledged.load(Ordering::Relaxed);
        let mut all = JoinSet::new();
        for number in 0..4 {
            // Each knows another node.
            let client = client_of(&cluster.addresses[number % 3..=number % 3]);
            let acknowledged = acknowledged.clone();
            all.spawn(async move {
                for write in 0..50 {
                    client.write(format!("{round}.{number}.{write}")).await.unwrap();
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let done = || acknowledged.load(Ordering::Relaxed) - before;
        eventually("some are done", async || (done() >= 8).then_some(())).await;
        cluster.stop(leader).await;
        cluster.restart(leader).await;
        all.join_all().await;
    }
    let mut journal = cluster.converged().await;
    assert_eq!(journal.len() as u64, acknowledged.load(Ordering::Relaxed));
    journal.sort();
    journal.dedup();
    assert_eq!(journal.len() as u64, acknowledged.load(Ordering::Relaxed), "each of them once");
}
