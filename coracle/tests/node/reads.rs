//! Reads of every freshness, over real sockets, and whether they are as fresh as they say.

use crate::common::eventually;
use coracle::snapshot::{self, Save};
use coracle::*;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Counts, and tells the place of each step.
#[derive(Default)]
struct Steps(u64);

impl StateMachine for Steps {
    type Command = ();
    type Reply = (u64, u64);
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, context: &mut Context, (): ()) -> (u64, u64) {
        self.0 += 1;
        (self.0, context.id.index.0)
    }

    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.0
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save(self.0)
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        snapshot::load(from).map(|steps| self.0 = steps)
    }
}

/// A cluster of three whose nodes forward writes, on disk.
async fn start(home: &tempfile::TempDir) -> Vec<Node<Steps>> {
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(start_one(home, id, "127.0.0.1:0").await);
    }
    let list: Vec<_> = (1..).zip(&nodes).map(|(id, node)| (id, node.peer_addr().to_string())).collect();
    nodes[0].set_configuration(list).await.unwrap();
    nodes
}

async fn start_one(home: &tempfile::TempDir, id: u64, address: &str) -> Node<Steps> {
    let mut config = Config::new(id, address, Storage::Dir(home.path().join(id.to_string())));
    config.forward = true;
    config.request_timeout = Duration::from_millis(500);
    Node::start(config, Steps::default()).await.unwrap()
}

/// One's own writes are read anywhere, as soon as they are there, and nobody else is asked.
#[tokio::test]
async fn a_read_from_an_entry_on_waits_for_it_and_asks_nobody() {
    let home = tempfile::tempdir().unwrap();
    let nodes = start(&home).await;
    let mut newest = 0;
    for count in 1..=30 {
        let (step, index) = eventually("a step", async || nodes[0].write(()).await.ok()).await;
        assert!(step >= count);
        newest = index;
        for node in &nodes {
            let seen = eventually("it is applied everywhere", async || {
                node.read_as((), Freshness::AtLeast(Index(index))).await.ok()
            })
            .await;
            assert!(seen.answer >= step && seen.applied.index.0 >= index, "{seen:?}");
            assert_eq!(seen.age, None);
        }
    }
    nodes[0].stop().await;
    nodes[1].stop().await;
    let alone = &nodes[2];
    let seen = eventually("it answers by itself", async || {
        alone.read_as((), Freshness::AtLeast(Index(newest))).await.ok()
    })
    .await;
    assert!(seen.answer >= 30);
    assert!(matches!(alone.read(()).await, Err(ReadError::Timeout | ReadError::NoLeader)));
    // No entry of that place is there.
    let far = Freshness::AtLeast(Index(newest + 1000));
    eventually("it waits in vain", async || {
        let waited = alone.read_as((), far).await;
        assert!(matches!(waited, Err(ReadError::Lagging | ReadError::Timeout)), "{waited:?}");
        (waited == Err(ReadError::Lagging)).then_some(())
    })
    .await;
    let blank = Config::new(1, "127.0.0.1:0", Storage::Memory);
    let blank = Node::start(blank, Steps::default()).await.unwrap();
    let any = Freshness::AtLeast(Index(0));
    assert_eq!(blank.read_as((), any).await, Err(ReadError::NotConfigured));
}

/// A node alone answers from what it knows, for as long as it may, and says how old that is.
#[tokio::test]
async fn a_read_within_a_bound_says_how_old_its_answer_is() {
    let home = tempfile::tempdir().unwrap();
    let nodes = start(&home).await;
    eventually("a step", async || nodes[0].write(()).await.ok()).await;
    let alone = &nodes[2];
    let before = Instant::now();
    let hour = Duration::from_secs(3600);
    let first = eventually("an answer", async || {
        alone.read_as((), Freshness::Within(hour)).await.ok().filter(|seen| seen.answer >= 1)
    })
    .await;
    assert!(first.age.unwrap() <= before.elapsed());
    let shown = Instant::now();
    nodes[0].stop().await;
    nodes[1].stop().await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    let (least, seen) = eventually("an answer of a node alone", async || {
        let least = shown.elapsed();
        alone.read_as((), Freshness::Within(hour)).await.ok().map(|seen| (least, seen))
    })
    .await;
    let age = seen.age.unwrap();
    assert!(least >= Duration::from_millis(30) && age >= least, "{age:?}");
    assert!(age <= before.elapsed(), "{age:?}");
    assert_eq!(seen.answer, first.answer);
    let short = alone.read_as((), Freshness::Within(Duration::from_millis(1))).await;
    assert!(matches!(short, Err(ReadError::Timeout | ReadError::NoLeader)), "{short:?}");
}

/// RD-1, RD-2: everything that was acknowledged before the age of an answer is in it, through the deaths of leaders.
#[tokio::test]
async fn rd_2_no_answer_is_older_than_it_says() {
    let home = tempfile::tempdir().unwrap();
    let mut nodes = start(&home).await;
    let acknowledged = Arc::new(Mutex::new(vec![(Instant::now(), 0)]));
    let mut readers = JoinSet::new();
    let seen = Arc::new(Mutex::new([0_u64; 3]));
    for round in 0..3 {
        let leader = eventually("a leader", async || {
            (0..3).find(|at| nodes[*at].is_leader() && nodes[(at + 1) % 3].leader().is_some())
        })
        .await;
        for node in &nodes {
            for (kind, bound) in [0, 40, 5_000].into_iter().enumerate() {
                let bound = Duration::from_millis(bound);
                let freshness = if kind == 0 { Freshness::Linearizable } else { Freshness::Within(bound) };
                let (node, acknowledged, seen) = (node.clone(), acknowledged.clone(), seen.clone());
                readers.spawn(async move {
                    loop {
                        let called = Instant::now();
                        match node.read_as((), freshness).await {
                            Ok(read) => {
                                let answered = Instant::now();
                                let since =
                                    answered.checked_sub(read.age.unwrap()).unwrap().max(called - bound);
                                let all = acknowledged.lock().unwrap().clone();
                                let least =
                                    all.iter().rfind(|(at, _)| *at < since).map_or(0, |(_, step)| *step);
                                assert!(
                                    read.answer >= least,
                                    "{freshness:?}: {read:?}, but {least} was done"
                                );
                                seen.lock().unwrap()[kind] += 1;
                            }
                            Err(ReadError::Stopped(_)) => return,
                            Err(_) => {}
                        }
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                });
            }
        }
        let writer = nodes[(leader + 1) % 3].clone();
        let session = writer.session();
        for step in 0..60 {
            if step == 20 {
                nodes[leader].stop().await;
            }
            let (count, _) = session.write_within((), Duration::from_secs(120)).await.unwrap();
            acknowledged.lock().unwrap().push((Instant::now(), count));
        }
        let address = nodes[leader].peer_addr().to_string();
        nodes[leader] = start_one(&home, leader as u64 + 1, &address).await;
        assert_eq!(acknowledged.lock().unwrap().last().unwrap().1, 60 * (round + 1));
    }
    eventually("reads of all kinds", async || {
        seen.lock().unwrap().iter().all(|count| *count > 20).then_some(())
    })
    .await;
    for node in &nodes {
        node.stop().await;
    }
    readers.join_all().await;
}
