//! A node on a disk that fails or hangs.

use super::*;
use crate::Storage;
use crate::error::Cause;
use crate::error::in_full;
use crate::snapshot::{self, Save};
use crate::state_machine::{Context, QueryContext};
use crate::storage::identity::Boots;
use crate::storage::memory::MemoryStore;
use crate::storage::{LogReader, LogStore, Recovered, StoreError, WriteBatch};
use coracle_core::{Boot, Incarnation, LogId};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Instant;
use tokio::time::{sleep, timeout};

#[path = "../tests/common/patience.rs"]
mod patience;
use patience::{NEVER, PATIENCE};

struct Count(u64);

impl StateMachine for Count {
    type Command = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, _: &mut Context, by: u64) -> u64 {
        self.0 += by;
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

/// A store whose disk can be told to fail, or to hang until it is let go.
#[derive(Clone, Default)]
struct Moody {
    store: MemoryStore,
    fails: Arc<AtomicBool>,
    hangs: Arc<(Mutex<bool>, Condvar)>,
}

impl Moody {
    fn hang(&self, hangs: bool) {
        *self.hangs.0.lock().unwrap() = hangs;
        self.hangs.1.notify_all();
    }
}

impl LogStore for Moody {
    fn load(&mut self, progress: &mut dyn FnMut(f32)) -> Result<Recovered, StoreError> {
        self.store.load(progress)
    }

    fn write(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        let (hangs, changed) = &*self.hangs;
        drop(changed.wait_while(hangs.lock().unwrap(), |hangs| *hangs).unwrap());
        if self.fails.load(Ordering::Relaxed) {
            let source = io::Error::from_raw_os_error(5);
            return Err(StoreError::Io { action: "sync", path: "log-7".into(), source });
        }
        self.store.write(batch)
    }

    fn purge(&mut self, upto: LogId) -> Result<(), StoreError> {
        self.store.purge(upto)
    }

    fn reader(&self) -> Box<dyn LogReader> {
        self.store.reader()
    }
}

async fn start(id: u64, store: Moody) -> Node<Count> {
    start_with(id, store, |_| {}).await
}

async fn start_with(id: u64, mut store: Moody, change: impl Fn(&mut Config)) -> Node<Count> {
    let mut config = Config::new(id, "127.0.0.1:0", Storage::Memory);
    config.request_timeout = NEVER;
    change(&mut config);
    let recovered = store.load(&mut |_| {}).unwrap();
    let incarnation = Incarnation(id);
    let boots = Boots { count: 1, newest: vec![Boot(1)] };
    let (store, disk, cluster, fenced, promise, met) = (Box::new(store), None, None, None, None, Vec::new());
    let (files, snapshot, places) = (Arc::new(crate::storage::mem_disk::MemDisk::new()), None, Vec::new());
    let opened = Opened {
        store,
        recovered,
        disk,
        incarnation,
        cluster,
        boots,
        fenced,
        found: crate::stopped_machines::Found::default(),
        met,
        places,
        promise,
        files,
        snapshot,
        stands: None,
    };
    Node::launch(config, Count(0), opened).await.unwrap()
}

async fn cluster(stores: &[Moody]) -> (Vec<Node<Count>>, Node<Count>) {
    let mut nodes = Vec::new();
    for (id, store) in (1..).zip(stores) {
        nodes.push(start(id, store.clone()).await);
    }
    let members = (1..).zip(nodes.iter().map(|node| node.peer_addr().to_string()));
    nodes[0].set_configuration(members).await.unwrap();
    let leader = nodes[0].leader_changed().wait_for(Option::is_some).await.unwrap().clone().unwrap();
    let leader = nodes[leader.id.0 as usize - 1].clone();
    (nodes, leader)
}

/// ST-4: a failed sync stops the node with the reason. Nothing is acknowledged after it.
#[tokio::test]
async fn st_4_a_failed_sync_stops_the_node_with_the_reason() {
    let store = Moody::default();
    let (_nodes, leader) = cluster(std::slice::from_ref(&store)).await;
    assert_eq!(leader.write(1).await, Ok(1));
    store.fails.store(true, Ordering::Relaxed);
    let outcome = leader.write(1).await;
    let reason = leader.stopped().await;
    assert_eq!(outcome, Err(WriteError::Unknown(Cause::Stopped(reason.clone()))));
    let StopReason::Storage(error) = &reason else { panic!("{reason:?}") };
    let StoreError::Io { source, .. } = &**error else { panic!("{error:?}") };
    assert_eq!(source.raw_os_error(), Some(5), "the error is kept");
    let text = in_full(&reason);
    assert!(text.contains("cannot sync log-7: ") && text.contains("os error 5"), "{text}");
    assert_eq!(leader.write(1).await, Err(WriteError::Stopped(reason)));
}

/// ST-4: the others go on without the node whose disk failed.
#[tokio::test]
async fn st_4_the_cluster_goes_on_without_the_failed_leader() {
    let stores = [Moody::default(), Moody::default(), Moody::default()];
    let (nodes, leader) = cluster(&stores).await;
    leader.write(1).await.unwrap();
    let id = leader.leader().unwrap().id;
    stores[id.0 as usize - 1].fails.store(true, Ordering::Relaxed);
    drop(leader.write(1).await);
    leader.stopped().await;
    let other = nodes.iter().find(|node| node.inner.me.id != id).unwrap();
    let next =
        other.leader_changed().wait_for(|l| l.as_ref().is_some_and(|l| l.id != id)).await.unwrap().clone();
    let next = &nodes[next.unwrap().id.0 as usize - 1];
    let sum = next.write(1).await.unwrap();
    assert!(sum == 2 || sum == 3, "the unknown write took effect once or not at all, but the sum is {sum}");
}

/// OV-4: a leader whose disk hangs, though its process lives, hands over within a bound; SH-1: it can be
/// stopped, and everybody is answered.
#[tokio::test]
async fn ov_4_sh_1_a_leader_with_a_hung_disk_gives_up_and_can_be_stopped() {
    let stores = [Moody::default(), Moody::default(), Moody::default()];
    let (nodes, leader) = cluster(&stores).await;
    leader.write(1).await.unwrap();
    let id = leader.leader().unwrap().id;
    let hung = &stores[id.0 as usize - 1];
    hung.hang(true);
    // The others commit it, but this machine does not run ahead of its own disk, so nobody is told.
    assert_eq!(leader.write(1).await, Err(WriteError::Unknown(Cause::LeadershipLost)));
    let other = nodes.iter().find(|node| node.inner.me.id != id).unwrap();
    let mut leaders = other.leader_changed();
    let handed_over = leaders.wait_for(|l| l.as_ref().is_some_and(|l| l.id != id));
    let next = timeout(PATIENCE, handed_over).await.expect("it gives up").unwrap().clone();
    assert_eq!(nodes[next.unwrap().id.0 as usize - 1].write(1).await, Ok(3));
    timeout(PATIENCE, leader.stop()).await.expect("a hung disk does not hang the stop");
    hung.hang(false);
}

/// A member that offers no transfers in its handshake is handed none: it is refused by name, and there is no other.
#[tokio::test]
async fn leadership_is_not_handed_to_a_member_of_an_older_version() {
    let mut nodes = Vec::new();
    for id in [1, 2] {
        let older = |config: &mut Config| config.features = crate::wire::FEATURES & !crate::wire::TRANSFERS;
        nodes.push(
            start_with(id, Moody::default(), |config| {
                if id == 2 {
                    older(config);
                }
            })
            .await,
        );
    }
    let members = (1..).zip(nodes.iter().map(|node| node.peer_addr().to_string()));
    nodes[0].set_configuration(members).await.unwrap();
    let leader = nodes[0].leader_changed().wait_for(Option::is_some).await.unwrap().clone().unwrap();
    // What either may ask of the other is what both know.
    let (leads, other) = (&nodes[leader.id.0 as usize - 1], NodeId(3 - leader.id.0));
    let mut refused = false;
    for _ in 0..5 {
        match leads.transfer_leadership(Some(other)).await {
            Err(TransferError::KnowsNoTransfers(id)) => refused = id == other,
            // It is looked at once in a tick, and what is given up takes many.
            Err(TransferError::GivenUp { .. } | TransferError::NoTarget | TransferError::UnderWay(_)) => {}
            told => panic!("{told:?}"),
        }
    }
    assert!(refused, "it is asked to lead again and again, and cannot be told so");
    let best = leads.transfer_leadership(None).await;
    assert!(matches!(best, Err(TransferError::NoTarget)), "{best:?}");
    assert_eq!(leads.write(5).await, Ok(5), "it leads on");
}

/// A leader alone in its cluster, of which a write is under way to a disk that hangs.
async fn hung() -> (Moody, Node<Count>) {
    let store = Moody::default();
    let (mut nodes, leader) = cluster(std::slice::from_ref(&store)).await;
    nodes.clear();
    store.hang(true);
    drop(tokio::spawn(leader.write(1)));
    while leader.status().await.unwrap().raft.writes_under_way == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    (store, leader)
}

/// Whoever stops taking requests hears of it while the node still works on its end.
#[tokio::test]
async fn a_node_says_that_it_stops_before_it_has_stopped() {
    for _ in 0..5 {
        let (store, node) = hung().await;
        let began = Instant::now();
        drop(tokio::spawn(node.stop()));
        let both = tokio::select! {
            biased;
            _ = node.stopped() => true,
            reason = node.stopping() => {
                assert_eq!(reason, StopReason::Requested);
                false
            }
        };
        let took = began.elapsed();
        store.hang(false);
        assert_eq!(node.stopped().await, StopReason::Requested);
        if !both {
            return;
        }
        // The disk holds it for so long, unless this test was held up itself.
        assert!(took >= crate::runtime::DISK_PATIENCE, "it had stopped already, after {took:?}");
    }
    panic!("it never said that it stops before it had");
}

/// What waits for an answer is no handle.
#[tokio::test]
async fn a_node_stops_with_its_last_handle_though_its_futures_wait() {
    let (store, node) = hung().await;
    let write = tokio::spawn(node.clone().write(2));
    let (stopping, stopped) = (tokio::spawn(node.clone().stopping()), tokio::spawn(node.stopped()));
    // One more write that nobody has polled.
    let late = node.write(3);
    while node.status().await.unwrap().pending < 2 {
        sleep(Duration::from_millis(1)).await;
    }
    let other = node.clone();
    drop(node);
    assert!(other.status().await.is_ok(), "one handle is left");
    drop(other);
    assert_eq!(timeout(PATIENCE, stopping).await.unwrap().unwrap(), StopReason::Requested);
    store.hang(false);
    assert_eq!(timeout(PATIENCE, stopped).await.unwrap().unwrap(), StopReason::Requested);
    let unknown = WriteError::Unknown(Cause::Stopped(StopReason::Requested));
    assert_eq!(write.await.unwrap(), Err(unknown));
    assert_eq!(late.await, Err(WriteError::Stopped(StopReason::Requested)));
}
