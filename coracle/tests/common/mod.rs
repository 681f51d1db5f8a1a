//! What the cluster tests share: a counter, whole clusters in this process, and waiting for the thing
//! itself instead of sleeping.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test file uses its own part")]

pub mod patience;

use coracle::snapshot::{self, Save};
use coracle::{Config, Context, Node, QueryContext, StateMachine, Storage, WriteError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep};

pub use patience::{NEVER, PATIENCE, returns, unless_starved};

/// A log of strings: order and repetition show.
#[derive(Default)]
pub struct Journal {
    lines: Vec<String>,
}

impl StateMachine for Journal {
    type Command = String;
    type Reply = u64;
    type Query = ();
    type Answer = Vec<String>;

    fn apply(&mut self, _: &mut Context, line: String) -> u64 {
        assert_ne!(line, "poison", "the journal does not take poison");
        self.lines.push(line);
        self.lines.len() as u64
    }

    fn query(&self, _: &QueryContext, (): ()) -> Vec<String> {
        self.lines.clone()
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save(self.lines.clone())
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        snapshot::load(from).map(|lines| self.lines = lines)
    }
}

/// Waits until `check` has something, for as long as a test may take.
pub async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        sleep(Duration::from_millis(2)).await;
    }
}

/// A cluster whose nodes all live in this process. Dropping it stops them.
pub type Cluster = ClusterOf<Journal>;

/// The same of another machine.
pub struct ClusterOf<S: StateMachine> {
    pub nodes: Vec<Option<Node<S>>>,
    pub addresses: Vec<String>,
    dirs: Option<tempfile::TempDir>,
    pub configure: fn(&mut Config),
}

/// No leader is lost or elected but by a founding, however late anything comes.
pub fn steady(config: &mut Config) {
    config.election_timeout = (NEVER, 2 * NEVER);
}

impl<S: StateMachine + Default> ClusterOf<S> {
    /// Blank nodes 1 to `size`, on disk if `durable`, on free ports.
    pub async fn blank(size: u64, durable: bool, configure: fn(&mut Config)) -> Self {
        let dirs = durable.then(|| tempfile::tempdir().unwrap());
        let mut cluster = ClusterOf { nodes: Vec::new(), addresses: Vec::new(), dirs, configure };
        for id in 1..=size {
            let node = Node::start(cluster.config(id, "127.0.0.1:0"), S::default()).await.unwrap();
            cluster.addresses.push(node.peer_addr().to_string());
            cluster.nodes.push(Some(node));
        }
        cluster
    }

    /// A cluster that was founded on node 1.
    pub async fn founded(size: u64, durable: bool, configure: fn(&mut Config)) -> Self {
        let cluster = Self::blank(size, durable, configure).await;
        cluster.node(1).set_configuration(cluster.list()).await.unwrap();
        cluster
    }

    pub fn config(&self, id: u64, address: &str) -> Config {
        let storage = match &self.dirs {
            Some(_) => Storage::Dir(self.dir(id)),
            None => Storage::Memory,
        };
        let mut config = Config::new(id, address, storage);
        config.request_timeout = NEVER;
        (self.configure)(&mut config);
        config
    }

    pub fn dir(&self, id: u64) -> PathBuf {
        Path::new(self.dirs.as_ref().expect("a durable cluster").path()).join(format!("node-{id}"))
    }

    pub fn list(&self) -> Vec<(u64, String)> {
        self.addresses.iter().enumerate().map(|(at, address)| (at as u64 + 1, address.clone())).collect()
    }

    pub fn node(&self, id: u64) -> &Node<S> {
        self.nodes[id as usize - 1].as_ref().expect("the node runs")
    }

    pub fn running(&self) -> impl Iterator<Item = &Node<S>> {
        self.nodes.iter().flatten()
    }

    pub async fn stop(&mut self, id: u64) {
        let node = self.nodes[id as usize - 1].take().expect("the node runs");
        node.stop().await;
    }

    /// Stops all but this one.
    pub async fn stop_all_but(&mut self, id: u64) {
        for other in (1..=self.nodes.len() as u64).filter(|other| *other != id) {
            self.stop(other).await;
        }
    }

    pub async fn restart(&mut self, id: u64) {
        let config = self.config(id, &self.addresses[id as usize - 1].clone());
        self.nodes[id as usize - 1] = Some(Node::start(config, S::default()).await.unwrap());
    }

    /// The one node that all running ones hold for the leader, and that agrees.
    pub async fn leader(&self) -> u64 {
        eventually("all nodes agree on a leader", async || {
            let mut leaders: Vec<_> = self.running().map(|node| node.leader().map(|l| l.id.0)).collect();
            leaders.dedup();
            match leaders[..] {
                [Some(id)] if self.nodes[id as usize - 1].is_some() => Some(id),
                _ => None,
            }
        })
        .await
    }

    /// Waits until all running nodes have applied the same.
    pub async fn same(&self) {
        eventually("all nodes agree on applied index and digest", async || {
            let mut states = Vec::new();
            for node in self.running() {
                let status = node.status().await.ok()?;
                if status.applied.index != status.raft.last.index {
                    return None;
                }
                states.push((status.applied, status.digest));
            }
            states.dedup();
            (states.len() == 1).then_some(())
        })
        .await;
    }
}

impl Cluster {
    /// Writes by whichever node leads, once: if a leader is lost with it, the next one knows whether it was done.
    pub async fn write(&self, line: &str) -> u64 {
        let done = |journal: Vec<String>| journal.iter().position(|other| other == line);
        let mut unknown = false;
        eventually("the write is done", async || {
            let node = self.node(self.leader().await);
            if unknown && let Some(at) = done(node.read(()).await.ok()?) {
                return Some(at as u64 + 1);
            }
            match node.write(line.to_owned()).await {
                Ok(at) => return Some(at),
                Err(WriteError::Unknown(_)) => unknown = true,
                Err(_) => {}
            }
            None
        })
        .await
    }

    /// Waits until all running nodes have applied the same, and returns that journal.
    pub async fn converged(&self) -> Vec<String> {
        self.same().await;
        let mut journals = Vec::new();
        for node in self.running() {
            journals.push(node.read(()).await.unwrap());
        }
        journals.dedup();
        assert_eq!(journals.len(), 1, "equal digests, but other journals");
        journals.remove(0)
    }
}
