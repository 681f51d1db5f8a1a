//! What sessions, clients and watches cost, as ratios to plain writes on the leader's node, interleaved. A measurement, not a test:
//! `cargo test --release -p coracle --test node -- --ignored --nocapture what_`

use crate::common::*;
use coracle::client::Client;
use coracle::snapshot::{self, Save};
use coracle::*;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How many write at once, and for how long each time.
const WRITERS: usize = 64;
const TURN: Duration = Duration::from_secs(2);
const ROUNDS: usize = 7;

/// Counts what it is given, and publishes it.
#[derive(Default)]
struct Counter(u64);

impl StateMachine for Counter {
    type Command = String;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, _: &mut Context, _: String) -> u64 {
        self.0 += 1;
        self.0
    }

    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.0
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save(self.0)
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        snapshot::load(from).map(|count| self.0 = count)
    }
}

/// Writes a second through these, of 256 bytes each.
async fn pace<A: Access<Machine = Counter> + 'static>(through: Vec<A>) -> f64 {
    let (done, end) = (Arc::new(AtomicU64::new(0)), Instant::now() + TURN);
    let mut writers = JoinSet::new();
    for access in through {
        let done = done.clone();
        writers.spawn(async move {
            while Instant::now() < end {
                access.write_within("x".repeat(256), PATIENCE).await.unwrap();
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    writers.join_all().await;
    done.load(Ordering::Relaxed) as f64 / TURN.as_secs_f64()
}

/// So many watch all that happens while this goes on.
async fn watched(nodes: &[Node<Counter>], client: Option<&Client<Counter>>, count: usize) -> JoinSet<()> {
    let mut watchers = JoinSet::new();
    let from = Position::of_entry(nodes[0].status().await.unwrap().raft.last.index.0 + 1);
    for number in 0..count {
        let mut events = match client {
            Some(client) => client.events(from),
            None => nodes[number % nodes.len()].events(from),
        };
        watchers.spawn(async move { while events.next().await.is_ok() {} });
    }
    watchers
}

#[ignore = "a measurement"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_sessions_clients_and_watches_cost() {
    let cluster = ClusterOf::<Counter>::founded(3, true, steady).await;
    let leader = cluster.leader().await;
    let node = cluster.node(leader);
    let nodes: Vec<_> = cluster.running().cloned().collect();
    let client = Client::<Counter>::connect(cluster.addresses.clone()).unwrap();
    let kinds = ["session", "client", "client's sessions", "10 watch", "10 watch by client"];
    let mut ratios = vec![Vec::new(); kinds.len()];
    for round in 0..=ROUNDS {
        let plain = || async { pace(vec![node.clone(); WRITERS]).await };
        let mut base = plain().await;
        for (kind, ratios) in ratios.iter_mut().enumerate() {
            let speed = match kind {
                0 => pace((0..WRITERS).map(|_| node.session()).collect()).await,
                1 => pace(vec![client.clone(); WRITERS]).await,
                2 => pace((0..WRITERS).map(|_| client.session()).collect()).await,
                watch => {
                    let watchers = watched(&nodes, (watch == 4).then_some(&client), 10).await;
                    let speed = plain().await;
                    drop(watchers);
                    speed
                }
            };
            let after = plain().await;
            // The first round warms up.
            if round > 0 {
                ratios.push(speed * 2.0 / (base + after));
            }
            base = after;
        }
    }
    for (kind, mut ratios) in kinds.into_iter().zip(ratios) {
        ratios.sort_by(f64::total_cmp);
        let [least, median, most] = [0, ratios.len() / 2, ratios.len() - 1].map(|at| ratios[at]);
        println!(
            "{kind}: {median:.2} ({least:.2} to {most:.2}) of the throughput of {WRITERS} plain writers"
        );
    }
}
