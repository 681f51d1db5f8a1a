//! Clients over real sockets: each write is done once, whatever becomes of leaders, nodes and connections, and what a client
//! says of a write is true.

use crate::common::*;
use coracle::client::{self, Client, ClientConfig};
use coracle::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
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

/// One program for a node, a client, and the sessions of both.
async fn appended_by<A: Access<Machine = Journal>>(journal: &A, line: &str) -> (u64, Vec<String>) {
    let at = journal.write_within(line.to_owned(), PATIENCE).await.unwrap();
    (at, journal.read_within((), PATIENCE).await.unwrap())
}

#[tokio::test]
async fn a_program_may_be_inside_of_the_cluster_or_outside() {
    let cluster = Cluster::founded(1, false, steady).await;
    cluster.leader().await;
    let (node, client) = (cluster.node(1), client_of(&cluster.addresses));
    assert_eq!(appended_by(node, "a").await.0, 1);
    assert_eq!(appended_by(&client, "b").await.0, 2);
    assert_eq!(appended_by(&node.session(), "c").await.0, 3);
    let (at, lines) = appended_by(&client.session(), "d").await;
    assert_eq!((at, lines.concat()), (4, "abcd".to_owned()));
}

/// CS-2: each error says what it is an error of.
#[tokio::test]
async fn cs_2_what_was_sent_to_nobody_is_certainly_not_done() {
    let short = Duration::from_millis(200);
    let nowhere = Client::<Journal>::connect(["127.0.0.1:1"]).unwrap();
    match nowhere.write_within("a".to_owned(), short).await {
        Err(error @ WriteError::Unreachable(_)) => {
            assert!(error.certainly_not_done() && error.to_string().contains("127.0.0.1:1"), "{error}");
        }
        outcome => panic!("nobody is there: {outcome:?}"),
    }
    let read = nowhere.read_within((), short).await;
    assert!(matches!(read, Err(ReadError::Unreachable(_))), "{read:?}");

    let blank = Cluster::blank(1, false, |_| {}).await;
    let client = client_of(&blank.addresses);
    // Until it is connected, which is soon.
    eventually("it says that nobody leads", async || {
        let outcome = client.write_within("a".to_owned(), short).await;
        (outcome == Err(WriteError::NoLeader)).then_some(())
    })
    .await;
    let first = client.write("b".to_owned());
    blank.node(1).set_configuration(blank.list()).await.unwrap();
    assert_eq!(first.await, Ok(1), "it waits for a leader");
    assert_eq!(client.read(()).await.unwrap(), ["b"]);
}

#[tokio::test]
async fn cs_2_what_a_leader_was_told_and_cannot_commit_is_unknown() {
    let mut cluster = Cluster::founded(3, false, steady).await;
    let leader = cluster.leader().await;
    let client = client_of(&cluster.addresses);
    client.write("a".to_owned()).await.unwrap();
    cluster.stop_all_but(leader).await;
    let outcome = client.write_within("b".to_owned(), Duration::from_millis(100)).await;
    assert_eq!(outcome, Err(WriteError::Unknown(Cause::Timeout)));
    let outcome = client.read_within((), Duration::from_millis(100)).await;
    assert!(outcome.is_err(), "{outcome:?}");
}

/// What no node takes is refused by name, here or there, and what comes after it is done.
#[tokio::test]
async fn a_command_that_is_too_large_is_invalid_and_holds_up_nothing() {
    let cluster = Cluster::founded(3, false, |config| {
        steady(config);
        config.max_command_bytes = 1_000;
    })
    .await;
    cluster.leader().await;
    let client = client_of(&cluster.addresses);
    let session = client.session();
    for length in [2_000, 200_000] {
        let (large, small) = (session.write("x".repeat(length)), session.write("small".to_owned()));
        let (large, small) = tokio::join!(large, small);
        assert!(matches!(large, Err(WriteError::Invalid(_))), "{length}: {large:?}");
        assert!(small.is_ok(), "{length}: {small:?}");
    }
    assert_eq!(client.read(()).await.unwrap(), ["small", "small"]);
}

/// Dropping a call leaves its write done or not, once at most, and everything else as it was.
#[tokio::test]
async fn calls_that_are_dropped_harm_nobody() {
    let cluster = Cluster::founded(3, false, steady).await;
    cluster.leader().await;
    let client = client_of(&cluster.addresses);
    let session = client.session();
    let mut kept = JoinSet::new();
    for number in 0..300 {
        let write = session.write(format!("{number}"));
        if number % 3 == 0 {
            kept.spawn(write);
        } else {
            // Polled once: it is on its way, or soon will be.
            let mut write = Box::pin(write);
            tokio::select! { biased; _ = &mut write => {} () = std::future::ready(()) => {} }
        }
    }
    for outcome in kept.join_all().await {
        outcome.unwrap();
    }
    let journal = client.read(()).await.unwrap();
    let numbers: Vec<u32> = journal.iter().map(|line| line.parse().unwrap()).collect();
    assert!((0..100).all(|number| numbers.contains(&(3 * number))), "{numbers:?}");
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), numbers.len(), "none of them twice: {numbers:?}");
}

/// Nobody keeps a session of a client that is gone, and its last call counts as a handle.
#[tokio::test]
async fn a_client_that_is_dropped_ends_its_session() {
    let cluster = Cluster::founded(1, false, steady).await;
    cluster.leader().await;
    let client = client_of(&cluster.addresses);
    let write = client.write("a".to_owned());
    drop(client);
    assert_eq!(write.await, Ok(1));
    let node = cluster.node(1);
    eventually("the end of the session is in the log", async || {
        let last = node.status().await.unwrap().raft.last.index.0;
        let entry = node.get_entry(last).await.unwrap();
        (entry.kind() == Kind::Session && entry.payload().is_empty()).then_some(())
    })
    .await;
}

/// Connections to a node that go through here, and all end at once whenever that is asked for.
struct Cuts {
    address: String,
    cut: watch::Sender<()>,
}

impl Cuts {
    async fn of(node: String) -> Cuts {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, cut) = (listener.local_addr().unwrap().to_string(), watch::Sender::new(()));
        let subscribe = cut.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let Ok(mut far) = TcpStream::connect(&node).await else { continue };
                let mut cut = subscribe.subscribe();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Cuts { address, cut }
    }
}

/// CS-1: increments by several clients, while connections are cut and leaders go, are as many as were acknowledged.
#[tokio::test]
async fn cs_1_each_acknowledged_increment_counts_once_through_cuts_and_leader_changes() {
    let mut cluster = Cluster::blank(3, true, |_| {}).await;
    let mut cuts = Vec::new();
    for address in &cluster.addresses {
        cuts.push(Cuts::of(address.clone()).await);
    }
    let list = (1..).zip(cuts.iter().map(|cut| cut.address.clone()));
    cluster.node(1).set_configuration(list).await.unwrap();
    let acknowledged = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for number in 0..6 {
        let client = client_of(&[cuts[number % 3].address.clone()]);
        let (acknowledged, over) = (acknowledged.clone(), over.clone());
        writers.spawn(async move {
            let session = client.session();
            let mut write = 0;
            while !over.load(Ordering::Relaxed) {
                let line = format!("{number}.{write}");
                let outcome =
                    if number % 2 == 0 { client.write(line).await } else { session.write(line).await };
                outcome.expect("there is always an answer in the end");
                acknowledged.fetch_add(1, Ordering::Relaxed);
                write += 1;
            }
        });
    }
    let more = async |count: u64| {
        let goal = acknowledged.load(Ordering::Relaxed) + count;
        eventually("more are done", async || (acknowledged.load(Ordering::Relaxed) >= goal).then_some(()))
            .await;
    };
    for round in 0..12 {
        more(30).await;
        if round % 3 == 2 {
            let leader = cluster.leader().await;
            cluster.stop(leader).await;
            more(30).await;
            cluster.restart(leader).await;
        } else {
            cuts[round % 3].cut.send_replace(());
        }
    }
    more(30).await;
    over.store(true, Ordering::Relaxed);
    writers.join_all().await;
    let mut journal = cluster.converged().await;
    assert_eq!(journal.len() as u64, acknowledged.load(Ordering::Relaxed));
    journal.sort();
    journal.dedup();
    assert_eq!(journal.len() as u64, acknowledged.load(Ordering::Relaxed));
}
