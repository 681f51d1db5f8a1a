//! Founding over real sockets: two lists that share a node, promises that outlive a restart, and the way out of them.

use crate::common::*;
use coracle::raft::{Boot, Incarnation, LogId, Membership, NodeId, Peer};
use coracle::transport::Inbound;
use coracle::transport::tcp::{Local, Tcp, TcpConfig};
use coracle::wire::{Answer, Ask, Step};
use coracle::*;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

fn hasty(config: &mut Config) {
    config.bootstrap_timeout = Duration::from_millis(400);
}

/// Asks a node to found a cluster of these members.
async fn ask(cluster: &Cluster, node: u64, members: &[u64]) -> Result<Membership, ConfigurationError> {
    let list = cluster.list().into_iter().filter(|(id, _)| members.contains(id));
    cluster.node(node).set_configuration(list).await
}

/// A refusal that says which node stands against it.
fn names(refused: &Result<Membership, ConfigurationError>, node: u64) -> bool {
    match refused {
        Err(ConfigurationError::AlreadyConfigured) => true,
        Err(ConfigurationError::NotReady(missing)) => missing.iter().any(|(id, _)| id.0 == node),
        Err(ConfigurationError::PromisedToAnother { node: by, members, .. }) => {
            by.0 == node && members.len() == 3
        }
        _ => false,
    }
}

/// D5.3.1: two lists that share a node, asked at the same time, found one cluster at most; and at last one.
#[tokio::test]
async fn two_lists_that_share_a_node_never_both_found() {
    const LISTS: [[u64; 3]; 2] = [[1, 2, 3], [3, 4, 5]];
    let mut undecided = 0;
    for round in 0..20 {
        let cluster = Cluster::blank(5, true, hasty).await;
        let at = |list: usize| LISTS[list][(round / (1 + 2 * list)) % 3];
        let (one, other) = tokio::join!(ask(&cluster, at(0), &LISTS[0]), ask(&cluster, at(1), &LISTS[1]));
        assert!(one.is_err() || other.is_err(), "both were founded: {one:?}, {other:?}");
        // Whoever was too slow for its time limit asks again, alone.
        let won = match (one.is_ok(), other.is_ok()) {
            (true, _) => 0,
            (_, true) => 1,
            _ => {
                undecided += 1;
                let mut list = round % 2;
                eventually("the only list that is asked for is founded", async || {
                    match ask(&cluster, LISTS[list][1], &LISTS[list]).await {
                        Ok(_) => Some(list),
                        // The other was founded after all, and its caller had gone.
                        Err(_) => {
                            let status = cluster.node(3).status().await.unwrap();
                            let first = status.raft.membership.members.keys().next();
                            list = first.map_or(list, |id| usize::from(id.0 == 3));
                            None
                        }
                    }
                })
                .await
            }
        };
        let lost = if won == 0 { other } else { one };
        assert!(lost.is_err() && names(&lost, 3) || undecided > 0, "{lost:?}");
        // A second answer is no other: the node that both lists share is of a cluster.
        let again = ask(&cluster, LISTS[1 - won][1], &LISTS[1 - won]).await;
        assert!(names(&again, 3), "{again:?}");
        let status = cluster.node(3).status().await.unwrap();
        let members: Vec<u64> = status.raft.membership.members.keys().map(|id| id.0).collect();
        assert_eq!(members, LISTS[won]);
    }
}

/// One that says of itself that it is a blank node, and promises when the test says so.
struct Silent {
    _tcp: Tcp,
    address: String,
    inbound: mpsc::Receiver<Inbound>,
}

impl Silent {
    async fn new(id: u64) -> Silent {
        let me = Peer { id: NodeId(id), incarnation: Incarnation(77) };
        let (inbox, inbound) = mpsc::channel(64);
        let local = Local::new(me, Boot(9), None, LogId::ZERO);
        let tcp = Tcp::bind("127.0.0.1:0", TcpConfig::default(), local, inbox).await.unwrap();
        let address = tcp.local_addr().to_string();
        Silent { _tcp: tcp, address, inbound }
    }

    /// The next question about a founding.
    async fn asked(&mut self) -> (Ask, oneshot::Sender<Answer>) {
        loop {
            if let Inbound::Founding { ask, answer, .. } = self.inbound.recv().await.unwrap() {
                return (*ask, answer);
            }
        }
    }
}

/// Nodes 1 and 2, bound to a list with a third that says nothing, and that list.
async fn bound() -> (Cluster, Silent, Vec<(u64, String)>) {
    let cluster = Cluster::blank(4, true, hasty).await;
    let mut third = Silent::new(3).await;
    let mut list = cluster.list();
    list[2].1 = third.address.clone();
    list.truncate(3);
    let asked = tokio::spawn({
        let (node, list) = (cluster.node(2).clone(), list.clone());
        async move { node.set_configuration(list).await }
    });
    let (question, answer) = third.asked().await;
    assert_eq!((question.step, question.list.members.len()), (Step::Promise, 3));
    let refused = asked.await.unwrap();
    assert!(matches!(refused, Err(ConfigurationError::NotReady(_))), "{refused:?}");
    drop(answer);
    (cluster, third, list)
}

/// The error of node 2, once it is bound to this list.
async fn bound_to(cluster: &Cluster, list: &[(u64, String)]) {
    eventually("node 2 names the list that it is bound to", async || match ask(cluster, 2, &[2, 4]).await {
        Err(error @ ConfigurationError::PromisedToAnother { .. }) => {
            let text = error.to_string();
            let ConfigurationError::PromisedToAnother { node, members, .. } = error else { unreachable!() };
            let named: Vec<(u64, String)> = members.into_iter().map(|(id, at)| (id.0, at)).collect();
            assert_eq!((node, &named[..]), (NodeId(2), list));
            assert!(text.contains("node 2 has promised itself to another list: 1="), "{text}");
            assert!(text.contains("empty its directory"), "{text}");
            Some(())
        }
        refused => {
            assert!(matches!(refused, Err(ConfigurationError::NotReady(_))), "{refused:?}");
            None
        }
    })
    .await;
}

/// D5.3.1: a promise outlives restarts, and ends by the word of its founder.
#[tokio::test]
async fn a_promise_is_kept_over_restarts_until_its_founder_gives_up() {
    let (mut cluster, _third, list) = bound().await;
    cluster.stop(1).await;
    bound_to(&cluster, &list).await;
    cluster.stop(2).await;
    cluster.restart(2).await;
    bound_to(&cluster, &list).await;
    // The founder comes back without an attempt, and so has given up.
    cluster.restart(1).await;
    eventually("node 2 is free for another list", async || ask(&cluster, 4, &[2, 4]).await.ok()).await;
    let status = cluster.node(2).status().await.unwrap();
    assert_eq!(status.raft.membership.members.keys().map(|id| id.0).collect::<Vec<_>>(), [2, 4]);
    let refused = cluster.node(1).set_configuration(list).await;
    assert!(names(&refused, 2), "{refused:?}");
}

/// D5.3.1: the same list succeeds, though the founder and another were restarted between promise and founding.
#[tokio::test]
async fn the_same_list_succeeds_after_restarts_between_promise_and_founding() {
    let (mut cluster, mut third, list) = bound().await;
    for node in [1, 2] {
        cluster.stop(node).await;
        cluster.restart(node).await;
    }
    let promises = tokio::spawn(async move {
        loop {
            let (ask, answer) = third.asked().await;
            if ask.step == Step::Promise {
                drop(answer.send(Answer::Promised));
            }
        }
    });
    let founded = eventually("the list is founded", async || {
        cluster.node(2).set_configuration(list.clone()).await.ok()
    })
    .await;
    assert_eq!(founded.members.len(), 3);
    promises.abort();
}

/// The documented way out where a founder is gone for good: a blank node's directory holds nothing but its promise.
#[tokio::test]
async fn an_emptied_directory_is_bound_to_nothing() {
    let (mut cluster, _third, list) = bound().await;
    cluster.stop(1).await;
    bound_to(&cluster, &list).await;
    cluster.stop(2).await;
    std::fs::remove_dir_all(cluster.dir(2)).unwrap();
    cluster.restart(2).await;
    eventually("it is free for another list", async || ask(&cluster, 2, &[2, 4]).await.ok()).await;
}
