//! Increments of one number by many clients of the library, over processes that are killed and frozen: each acknowledged one
//! counts once, and none else does.
//!
//! A million, and fifty leaders: `INCREMENTS=1000000 FALLS=50 cargo test --release -p coracle-server --test increments`.

mod support;

use bytes::Bytes;
use coracle::client::{Client, ClientConfig};
use coracle_server::cluster::Cluster;
use coracle_server::kv::{Found, Kv, Lookup, Operation, Outcome};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::{LONG, formed};
use tokio::task::JoinSet;

const CLIENTS: u64 = 4;
/// Calls of each client that are under way at a time.
const CALLS: u64 = 32;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().expect(name))
}

/// Adds one again and again until all together have done so many.
async fn add(client: Client<Kv>, left: Arc<AtomicU64>, done: Arc<AtomicU64>) {
    let add = || vec![Operation::Add { key: Bytes::from_static(b"number"), by: 1 }];
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        let reply =
            client.write_within(add(), LONG).await.expect("nothing is in doubt, however many leaders fall");
        assert!(matches!(reply[..], [Outcome::Number(_)]), "{reply:?}");
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// One leader after the other is killed, or frozen for longer than an election takes, while increments go on.
fn fell(cluster: &mut Cluster, falls: u64, total: u64, done: &AtomicU64) {
    for fall in 1..=falls {
        // Evenly over all increments.
        let (due, before) = (total * fall / (falls + 1), Instant::now());
        while done.load(Ordering::Relaxed) < due {
            assert!(before.elapsed() < 5 * LONG, "nothing goes on");
            std::thread::sleep(Duration::from_millis(1));
        }
        let (leader, _) = cluster.leader().unwrap();
        if fall % 3 == 0 {
            cluster.freeze(leader, true).unwrap();
            std::thread::sleep(Duration::from_millis(1500));
            cluster.freeze(leader, false).unwrap();
        } else {
            cluster.kill(leader);
            std::thread::sleep(Duration::from_millis(200));
            cluster.restart(leader).unwrap();
        }
    }
}

#[test]
fn cs_1_as_many_increments_are_done_as_are_acknowledged() {
    let (total, falls) = (setting("INCREMENTS", 6000), setting("FALLS", 3));
    let (mut cluster, _directory) = formed(3, &["--library-clients"]);
    let peers: Vec<_> = (1..=3).map(|id| cluster.node(id).place.peer_addr.clone()).collect();
    let (left, done) = (Arc::new(AtomicU64::new(total)), Arc::new(AtomicU64::new(0)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (began, told) = (Instant::now(), done.clone());
    let falling = std::thread::spawn(move || {
        fell(&mut cluster, falls, total, &told);
        cluster
    });
    runtime.block_on(async {
        let mut calls = JoinSet::new();
        for _ in 0..CLIENTS {
            let client = Client::<Kv>::start(ClientConfig::new(peers.clone())).unwrap();
            (0..CALLS).for_each(|_| drop(calls.spawn(add(client.clone(), left.clone(), done.clone()))));
        }
        calls.join_all().await;
    });
    let cluster = falling.join().unwrap();
    let took = began.elapsed();
    assert_eq!(done.load(Ordering::Relaxed), total);
    let answer = runtime.block_on(async {
        let client = Client::<Kv>::connect(peers).unwrap();
        client.read_within(vec![Lookup::Get(Bytes::from_static(b"number"))], LONG).await.unwrap()
    });
    let [Found::Value(Some(number))] = &answer[..] else { panic!("{answer:?}") };
    let number: u64 = String::from_utf8_lossy(&number.to_bytes()).parse().unwrap();
    assert_eq!(number, total, "each acknowledged increment counts once");
    cluster.agree().unwrap();
    println!("{total} increments by {} calls at a time, {falls} leaders fell, {took:.1?}", CLIENTS * CALLS);
}
