//! A machine that differs from a majority is rebuilt from the leader's.

use crate::common::eventually;
use coracle::raft::NodeId;
use coracle::snapshot::{self, Save};
use coracle::{Config, Context, Node, QueryContext, RebuildError, StateMachine, Storage, WriteError};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

const LONG: Duration = Duration::from_secs(60);

/// Adds up. When it is told to, one of its bits changes by itself.
struct Sum {
    sum: u64,
    flips: Arc<AtomicBool>,
    restored: Arc<AtomicU64>,
}

impl StateMachine for Sum {
    type Command = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, _: &mut Context, by: u64) -> u64 {
        self.sum += by;
        if self.flips.swap(false, Ordering::Relaxed) {
            self.sum ^= 1 << 40;
        }
        self.sum
    }

    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.sum
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save(self.sum)
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        self.restored.fetch_add(1, Ordering::Relaxed);
        snapshot::load(from).map(|sum| self.sum = sum)
    }

    fn digest(&self) -> Option<[u8; 16]> {
        Some(u128::from(self.sum).to_le_bytes())
    }
}

/// A node on a directory, how its machine is made wrong, and how often that took another state.
async fn start(id: u64, directory: &Path) -> (Node<Sum>, Arc<AtomicBool>, Arc<AtomicU64>) {
    let mut config = Config::new(id, "127.0.0.1:0", Storage::Dir(directory.join(id.to_string())));
    config.forward = true;
    let (flips, restored) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let machine = Sum { sum: 0, flips: flips.clone(), restored: restored.clone() };
    (Node::start(config, machine).await.unwrap(), flips, restored)
}

async fn write(node: &Node<Sum>, count: u64) {
    let session = Arc::new(node.session());
    let mut written = 0;
    while written < count {
        let mut burst = JoinSet::new();
        for _ in 0..(count - written).min(300) {
            let session = session.clone();
            burst.spawn(async move { session.write_retrying(1, LONG).await.unwrap() });
        }
        written += burst.join_all().await.len() as u64;
    }
}

/// The operator sees the alarm, and has the machine rebuilt by one call, while writes go on: no write is lost, and all
/// machines are alike again, though the log of that node lacked nothing.
#[tokio::test]
async fn a_machine_that_differs_is_rebuilt_while_writes_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let (mut nodes, mut flips, mut restored) = (Vec::new(), Vec::new(), Vec::new());
    for id in 1..=3 {
        let (node, flip, restores) = start(id, directory.path()).await;
        nodes.push(node);
        flips.push(flip);
        restored.push(restores);
    }
    let list: Vec<_> = (1..).zip(&nodes).map(|(id, node)| (id, node.peer_addr().to_string())).collect();
    nodes[0].set_configuration(list).await.unwrap();
    write(&nodes[0], 10).await;
    let leader = nodes[0].status().await.unwrap().raft.leader.unwrap().0;
    let wrong = (leader % 3) as usize;
    // A snapshot of its own that is wrong, too.
    flips[wrong].store(true, Ordering::Relaxed);
    write(&nodes[0], 100).await;
    nodes[wrong].snapshot().await.unwrap();
    let writing = tokio::spawn({
        let node = nodes[leader as usize - 1].clone();
        async move { write(&node, 3000).await }
    });
    eventually("the alarm", || async {
        let mut named = false;
        for node in &nodes {
            named |= node.status().await.unwrap().diverged.contains_key(&NodeId(wrong as u64 + 1));
        }
        named.then_some(())
    })
    .await;
    assert_eq!(nodes[wrong].status().await.unwrap().fenced, None, "links are not authenticated");

    let at = nodes[wrong].rebuild(LONG).await.unwrap();
    assert!(restored[wrong].load(Ordering::Relaxed) > 0 && at.index.0 > 1024, "{at}");
    writing.await.unwrap();
    let all = eventually("machines alike", || async {
        let mut seen = Vec::new();
        for node in &nodes {
            let status = node.status().await.unwrap();
            seen.push((status.applied, status.digest, status.fenced, status.diverged.len()));
        }
        seen.iter().all(|one| *one == seen[0] && one.3 == 0).then_some(seen)
    })
    .await;
    assert_eq!(all[0].2, None);
    assert_eq!(nodes[wrong].read(()).await.unwrap(), 3110);

    // What it holds after a start is right, too.
    nodes[wrong].clone().stop().await;
    drop(nodes.remove(wrong));
    let (back, ..) = start(wrong as u64 + 1, directory.path()).await;
    let sum = eventually("it answers", || async { back.read(()).await.ok() }).await;
    assert_eq!((sum, back.status().await.unwrap().fenced), (3110, None));
}

/// Nothing newer than what it holds comes by itself: the leader sees to it. And a leader gives way first.
#[tokio::test]
async fn an_idle_cluster_has_a_machine_rebuilt_and_a_leader_too() {
    let directory = tempfile::tempdir().unwrap();
    let (mut nodes, mut restored) = (Vec::new(), Vec::new());
    for id in 1..=3 {
        let (node, _, restores) = start(id, directory.path()).await;
        nodes.push(node);
        restored.push(restores);
    }
    assert_eq!(nodes[0].rebuild(LONG).await, Err(RebuildError::NotConfigured));
    let list: Vec<_> = (1..).zip(&nodes).map(|(id, node)| (id, node.peer_addr().to_string())).collect();
    nodes[0].set_configuration(list).await.unwrap();
    write(&nodes[0], 10).await;
    for again in 0..2 {
        for node in 0..3 {
            nodes[node].rebuild(LONG).await.unwrap();
            assert_eq!(restored[node].load(Ordering::Relaxed), again + 1);
            assert_eq!(nodes[node].read(()).await.unwrap(), 10);
        }
    }
}

/// One that has nobody to be rebuilt from says so, and goes on as it was.
#[tokio::test]
async fn a_machine_that_is_alone_is_not_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let (node, ..) = start(1, directory.path()).await;
    node.set_configuration([(1, node.peer_addr().to_string())]).await.unwrap();
    write(&node, 10).await;
    assert_eq!(node.rebuild(LONG).await, Err(RebuildError::Alone));
    assert_eq!((node.read(()).await.unwrap(), node.status().await.unwrap().fenced), (10, None));
    assert_eq!(node.write(1).await, Ok::<u64, WriteError>(11));
}
