//! Three nodes of Coracle with its defaults and its memory store, over its network in memory or over TCP.

use super::Cluster;
use coracle::snapshot::{self, Save};
use coracle::{Config, Context, MemoryNetwork, Node, QueryContext, RoleName, StateMachine, Storage};
use std::io;
use std::time::Duration;

#[derive(Default)]
struct Sum(u64);

impl StateMachine for Sum {
    type Command = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, _: &mut Context, number: u64) -> u64 {
        self.0 += number;
        self.0
    }

    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.0
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save(self.0)
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        snapshot::load(from).map(|saved| self.0 = saved)
    }
}

/// How its nodes reach each other.
#[derive(Clone, Copy)]
pub(super) enum Network {
    Memory,
    Tcp,
}

struct Nodes {
    all: Vec<Node<Sum>>,
    leader: Node<Sum>,
}

/// Starts three nodes, and waits for a leader.
pub(super) async fn three(network: Network) -> Result<impl Cluster, String> {
    let memory = MemoryNetwork::new();
    let mut all = Vec::new();
    for id in 1..=3 {
        let mut config = Config::new(id, "127.0.0.1:0", Storage::Memory);
        if let Network::Memory = network {
            config.network = Some(memory.clone());
        }
        all.push(Node::start(config, Sum::default()).await.map_err(|error| error.to_string())?);
    }
    let members = (1..).zip(all.iter().map(|node| node.peer_addr().to_string()));
    all[0].set_configuration(members).await.map_err(|error| error.to_string())?;
    loop {
        for node in &all {
            let status = node.status().await.map_err(|error| error.to_string())?;
            if status.raft.role == RoleName::Leader {
                return Ok(Nodes { leader: node.clone(), all });
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Cluster for Nodes {
    async fn add(&self, number: u64) -> Result<u64, String> {
        self.leader.write(number).await.map_err(|error| error.to_string())
    }

    async fn stop(self) {
        for node in self.all {
            node.stop().await;
        }
    }
}
