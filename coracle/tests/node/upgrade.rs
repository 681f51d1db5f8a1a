//! A rolling upgrade from one version of a state machine to the next, under load: no write fails, and no node is stopped by
//! what it does not know.

use crate::common::{PATIENCE, eventually};
use coracle::snapshot::{self, Save};
use coracle::*;
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Adds up. Version 1.
#[derive(Default)]
struct Old(u64);

/// The same, and doubles. Version 2, whose snapshots are other ones.
#[derive(Default)]
struct New(u64);

#[derive(Clone, Serialize, Deserialize)]
enum OldChange {
    Add(u64),
}

#[derive(Clone, Serialize, Deserialize)]
enum NewChange {
    Add(u64),
    Double,
}

impl StateMachine for Old {
    type Command = OldChange;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, _: &mut Context, change: OldChange) -> u64 {
        match change {
            OldChange::Add(by) => self.0 += by,
        }
        self.0
    }

    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.0
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save(self.0)
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        snapshot::load(from).map(|sum| self.0 = sum)
    }
}

impl StateMachine for New {
    const VERSION: u16 = 2;
    type Command = NewChange;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn version_of(change: &NewChange) -> u16 {
        match change {
            NewChange::Add(_) => 1,
            NewChange::Double => 2,
        }
    }

    fn apply(&mut self, _: &mut Context, change: NewChange) -> u64 {
        match change {
            NewChange::Add(by) => self.0 += by,
            NewChange::Double => self.0 *= 2,
        }
        self.0
    }

    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.0
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save((self.0, "of version 2"))
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        let new = snapshot::load::<(u64, String)>(&mut &bytes[..]).map(|(sum, _)| sum);
        new.or_else(|_| snapshot::load(&mut &bytes[..])).map(|sum| self.0 = sum)
    }
}

fn config(home: &tempfile::TempDir, id: u64, address: &str) -> Config {
    let mut config = Config::new(id, address, Storage::Dir(home.path().join(id.to_string())));
    config.snapshot_entries = 50;
    config.request_timeout = PATIENCE;
    config
}

async fn old(home: &tempfile::TempDir, id: u64, address: &str) -> Node<Old> {
    Node::start(config(home, id, address), Old::default()).await.unwrap()
}

async fn new(home: &tempfile::TempDir, id: u64, address: &str) -> Node<New> {
    Node::start(config(home, id, address), New::default()).await.unwrap()
}

/// Adds one again and again through a session of this node, until it is told to end. How often that was done.
fn load<S>(node: &Node<S>, add: fn(u64) -> S::Command, end: &Arc<AtomicBool>) -> tokio::task::JoinHandle<u64>
where
    S: StateMachine<Reply = u64>,
{
    let (session, end) = (node.session(), end.clone());
    tokio::spawn(async move {
        let mut done = 0;
        while !end.load(Ordering::Relaxed) {
            session.write_within(add(1), PATIENCE).await.expect("nobody is refused an old command");
            done += 1;
        }
        done
    })
}

/// What the node's machine has after all that was written before.
async fn sum<S: StateMachine<Query = (), Answer = u64>>(node: &Node<S>) -> u64 {
    eventually("a sum", async || node.read(()).await.ok()).await
}

#[tokio::test]
async fn a_rolling_upgrade_refuses_no_old_command_and_takes_new_ones_when_all_can() {
    let home = tempfile::tempdir().unwrap();
    let mut olds = Vec::new();
    for id in 1..=3 {
        olds.push(old(&home, id, "127.0.0.1:0").await);
    }
    let addresses: Vec<_> = olds.iter().map(|node| node.peer_addr().to_string()).collect();
    olds[0].set_configuration((1..).zip(addresses.clone())).await.unwrap();
    let mut done = 0;
    let mut news: Vec<Node<New>> = Vec::new();
    for at in 0..3 {
        // Whoever is not being upgraded writes on, the old ones and the new ones.
        let end = Arc::new(AtomicBool::new(false));
        let mut loads: Vec<_> = olds[1..].iter().map(|node| load(node, OldChange::Add, &end)).collect();
        loads.extend(news.iter().map(|node| load(node, NewChange::Add, &end)));
        let upgraded = olds.remove(0);
        upgraded.stop().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let node = new(&home, at as u64 + 1, &addresses[at]).await;
        if at < 2 {
            for node in news.iter().chain([&node]) {
                let refused = node.write(NewChange::Double).await;
                assert_eq!(refused, Err(WriteError::NotYet { needs: 2, all_have: 1 }));
                assert!(refused.unwrap_err().certainly_not_done());
            }
        }
        news.push(node);
        let at_least = sum(&news[at]).await + 60;
        eventually("more is written", async || (sum(&news[at]).await > at_least).then_some(())).await;
        end.store(true, Ordering::Relaxed);
        for load in loads {
            done += load.await.unwrap();
        }
        assert_eq!(sum(&news[at]).await, done);
    }
    for node in &news {
        eventually("all are known to have it", async || {
            (node.status().await.unwrap().machine_version == 2).then_some(())
        })
        .await;
        let session = node.session();
        done *= 2;
        assert_eq!(session.write(NewChange::Double).await, Ok(done));
        assert_eq!(sum(node).await, done);
    }
    // There is no way back for a directory with a snapshot of the new version.
    for node in &news {
        node.stop().await;
    }
    let back = Node::start(config(&home, 1, &addresses[0]), Old::default()).await;
    let refused = in_full(&back.expect_err("its snapshot is of version 2"));
    assert!(refused.contains("upgrade the program"), "{refused}");
    // Once it is in the log, a node that has not met all since its start knows as well.
    let others = [new(&home, 2, &addresses[1]).await, new(&home, 3, &addresses[2]).await];
    let session = others[0].session();
    assert_eq!(session.write_within(NewChange::Double, PATIENCE).await, Ok(2 * done));
}

/// What members have is heard of after they are connected: whoever waits for a leader waits for that as well.
#[tokio::test]
async fn a_new_command_waits_until_all_are_known_to_take_it_and_no_longer() {
    let home = tempfile::tempdir().unwrap();
    let mut nodes = Vec::new();
    for id in 1..=2 {
        nodes.push(new(&home, id, "127.0.0.1:0").await);
    }
    let aged = old(&home, 3, "127.0.0.1:0").await;
    let third = aged.peer_addr().to_string();
    let mut list: Vec<_> = (1..).zip(nodes.iter().map(|node| node.peer_addr().to_string())).collect();
    list.push((3, third.clone()));
    nodes[0].set_configuration(list).await.unwrap();
    let (begun, limit) = (Instant::now(), Duration::from_millis(200));
    let refused = nodes[0].write_retrying(NewChange::Double, limit).await;
    assert_eq!(refused, Err(WriteError::NotYet { needs: 2, all_have: 1 }));
    assert!(begun.elapsed() >= limit);
    let waiting = tokio::spawn(nodes[0].write_retrying(NewChange::Double, PATIENCE));
    aged.stop().await;
    let _upgraded = new(&home, 3, &third).await;
    assert_eq!(waiting.await.unwrap(), Ok(0));
}

/// A follower of an older version is sent no snapshot of a newer one, which it could not read: it would stop.
#[tokio::test]
async fn an_older_machine_is_sent_no_snapshot_of_a_newer_one() {
    let home = tempfile::tempdir().unwrap();
    let slow = old(&home, 3, "127.0.0.1:0").await;
    let third = slow.peer_addr().to_string();
    let news = [new(&home, 1, "127.0.0.1:0").await, new(&home, 2, "127.0.0.1:0").await];
    let list =
        [(1, news[0].peer_addr().to_string()), (2, news[1].peer_addr().to_string()), (3, third.clone())];
    news[0].set_configuration(list).await.unwrap();
    let written = AtomicU64::new(0);
    let write = async || {
        let session = news[0].session();
        for _ in 0..120 {
            session.write_within(NewChange::Add(1), PATIENCE).await.unwrap();
            written.fetch_add(1, Ordering::Relaxed);
        }
    };
    write().await;
    slow.stop().await;
    write().await;
    let slow = old(&home, 3, &third).await;
    write().await;
    let all = written.load(Ordering::Relaxed);
    eventually("it catches up by the log", async || (slow.read(()).await.ok()? == all).then_some(())).await;
    let leader = if news[0].is_leader() { &news[0] } else { &news[1] };
    if leader.is_leader() {
        let snapshots = leader.status().await.unwrap().snapshots;
        assert_eq!(snapshots.unknown_to.len(), 1, "{snapshots:?}");
    }
}
