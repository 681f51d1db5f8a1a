//! Machines that become unlike each other are noticed, and named.

use crate::common::eventually;
use coracle::raft::NodeId;
use coracle::snapshot::{self, Save};
use coracle::{Config, Context, Node, QueryContext, StateMachine, Status, Storage};
use std::io;
use tokio::task::JoinSet;

/// Adds up, and on some nodes something that no command says. It keeps no digest, and its replies say nothing.
struct Sum {
    sum: u64,
    bias: u64,
    keeps_digest: bool,
}

impl StateMachine for Sum {
    type Command = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, _: &mut Context, by: u64) -> u64 {
        self.sum += by + self.bias;
        if self.keeps_digest { 0 } else { self.sum }
    }

    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.sum
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save(self.sum)
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        snapshot::load(from).map(|sum| self.sum = sum)
    }

    fn digest(&self) -> Option<[u8; 16]> {
        self.keeps_digest.then(|| u128::from(self.sum).to_le_bytes())
    }
}

/// Three nodes with these biases.
async fn start(biases: [u64; 3], keeps_digest: bool) -> Vec<Node<Sum>> {
    let mut nodes = Vec::new();
    for (id, bias) in (1..).zip(biases) {
        let config = Config::new(id, "127.0.0.1:0", Storage::Memory);
        nodes.push(Node::start(config, Sum { sum: 0, bias, keeps_digest }).await.unwrap());
    }
    let list: Vec<_> = (1..).zip(&nodes).map(|(id, node)| (id, node.peer_addr().to_string())).collect();
    nodes[0].set_configuration(list).await.unwrap();
    nodes
}

/// Writes past the first index at which machines are compared, and how the leader stands when it has heard of all.
async fn after_the_first_comparison(nodes: &[Node<Sum>]) -> Status {
    let mut written = 0;
    while written < 1100 {
        let mut burst = JoinSet::new();
        for node in nodes.iter().cycle().take(300) {
            let node = node.clone();
            burst.spawn(async move { node.write(1).await.is_ok() });
        }
        written += burst.join_all().await.into_iter().filter(|done| *done).count();
    }
    eventually("a leader whose followers' machines have come as far", || async {
        for node in nodes {
            let status = node.status().await.unwrap();
            let peers = &status.raft.peers;
            if peers.len() == 2
                && peers.iter().all(|peer| peer.applied.0 > 1024)
                && status.applied.index.0 > 1024
            {
                return Some(status);
            }
        }
        None
    })
    .await
}

/// `apply` is not the same everywhere. By its own digest, or by its replies where it keeps none.
#[tokio::test]
async fn a_machine_that_differs_from_a_majority_is_named_by_the_leader() {
    for keeps_digest in [true, false] {
        for odd in 0..3 {
            let mut biases = [0; 3];
            biases[odd] = 1;
            let nodes = start(biases, keeps_digest).await;
            let named = NodeId(odd as u64 + 1);
            let status = after_the_first_comparison(&nodes).await;
            let diverged = eventually("a verdict", || async {
                for node in &nodes {
                    let status = node.status().await.unwrap();
                    if !status.diverged.is_empty() {
                        return Some(status.diverged);
                    }
                }
                None
            })
            .await;
            assert_eq!(diverged.keys().collect::<Vec<_>>(), [&named], "at {}", status.raft.me.id);
            for node in nodes {
                node.stop().await;
            }
        }
    }
}

#[tokio::test]
async fn machines_that_are_alike_are_not_accused() {
    let nodes = start([0; 3], true).await;
    let status = after_the_first_comparison(&nodes).await;
    assert!(status.diverged.is_empty());
}
