//! What every store must be good for, with whole nodes: the log goes, a start goes on from what stands for it, and a
//! follower that lacks what is gone is sent a snapshot. Included by the tests of each store.

use coracle::snapshot::{self, Save};
use coracle::{Config, Context, Engine, Node, QueryContext, StateMachine, Storage};
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long anything may take: it only bounds hanging.
const PATIENCE: Duration = Duration::from_secs(120);

/// All that was ever written. To write a number twice changes nothing, so a write whose outcome is unknown is tried again.
#[derive(Default)]
struct Journal(BTreeSet<u64>);

impl StateMachine for Journal {
    type Command = u64;
    type Reply = u64;
    type Query = ();
    type Answer = BTreeSet<u64>;

    fn apply(&mut self, _: &mut Context, number: u64) -> u64 {
        self.0.insert(number);
        self.0.len() as u64
    }

    fn query(&self, _: &QueryContext, (): ()) -> BTreeSet<u64> {
        self.0.clone()
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save(self.0.clone())
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        snapshot::load(from).map(|numbers| self.0 = numbers)
    }
}

async fn start(id: u64, address: &str, home: &Path, engine: &Arc<dyn Engine>) -> Node<Journal> {
    let dir = home.join(id.to_string());
    let mut config = Config::new(id, address, Storage::Engine { dir, engine: engine.clone() });
    config.request_timeout = PATIENCE;
    config.snapshot_entries = 20;
    config.snapshot_piece_bytes = 64;
    Node::start(config, Journal::default()).await.unwrap()
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Writes, on whichever of these leads.
async fn write(nodes: &[&Node<Journal>], numbers: std::ops::Range<u64>) {
    for number in numbers {
        until("the write is done", async || {
            for node in nodes {
                if node.is_leader() && node.write(number).await.is_ok() {
                    return true;
                }
            }
            false
        })
        .await;
    }
}

async fn purged(node: &Node<Journal>, index: u64) {
    until("the log is purged", async || node.status().await.unwrap().raft.purged.index.0 > index).await;
}

async fn holds(node: &Node<Journal>, upto: u64) {
    let all: BTreeSet<u64> = (0..upto).collect();
    until("it has caught up", async || node.read(()).await.is_ok_and(|numbers| numbers == all)).await;
}

/// Three nodes on the engine; one is away while the log goes, and all start again in the end.
pub(crate) async fn a_log_is_compacted_and_a_follower_catches_up(engine: impl Engine + 'static) {
    let (home, engine): (_, Arc<dyn Engine>) = (tempfile::tempdir().unwrap(), Arc::new(engine));
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(start(id, "127.0.0.1:0", home.path(), &engine).await);
    }
    let addresses: Vec<String> = nodes.iter().map(|node| node.peer_addr().to_string()).collect();
    nodes[0].set_configuration((1..).zip(addresses.clone())).await.unwrap();
    write(&nodes.iter().collect::<Vec<_>>(), 0..5).await;
    let away = nodes.pop().unwrap();
    away.stop().await;
    drop(away);
    write(&[&nodes[0], &nodes[1]], 5..150).await;
    for node in &nodes {
        purged(node, 20).await;
    }
    nodes.push(start(3, &addresses[2], home.path(), &engine).await);
    holds(&nodes[2], 150).await;
    assert!(nodes[2].status().await.unwrap().raft.purged.index.0 > 5, "it came by a snapshot");
    for node in nodes.drain(..) {
        node.stop().await;
    }
    for (id, address) in (1..).zip(&addresses) {
        nodes.push(start(id, address, home.path(), &engine).await);
    }
    for node in &nodes {
        assert!(
            node.status().await.unwrap().raft.purged.index.0 > 5,
            "it starts from a snapshot and the tail"
        );
        holds(node, 150).await;
    }
    write(&nodes.iter().collect::<Vec<_>>(), 150..200).await;
    for node in &nodes {
        holds(node, 200).await;
    }
    for node in &nodes {
        node.stop().await;
    }
}
