//! Reads by a leader's lease (D5.4.3), over real sockets: there without a majority for as long as the lease lasts, and no
//! longer.

use crate::common::{NEVER, eventually};
use coracle::snapshot::{self, Save};
use coracle::*;
use std::time::Duration;

type Nodes = Vec<Node<Count>>;

/// Counts.
#[derive(Default)]
struct Count(u64);

impl StateMachine for Count {
    type Command = ();
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, _: &mut Context, (): ()) -> u64 {
        self.0 += 1;
        self.0
    }

    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.0
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save(self.0)
    }

    fn restore(&mut self, from: &mut dyn std::io::Read) -> std::io::Result<()> {
        snapshot::load(from).map(|count| self.0 = count)
    }
}

/// Three nodes, the first of them the leader, that has written once: so its followers have promised it this lease.
async fn start(lease: Duration, longest: Duration) -> Nodes {
    let mut nodes = Vec::new();
    for id in 1..=3 {
        let mut config = Config::new(id, "127.0.0.1:0", Storage::Memory);
        config.election_timeout.1 = longest;
        config.request_timeout = Duration::from_millis(500);
        config.lease = Some(Lease { duration: lease, max_clock_drift: 100 });
        nodes.push(Node::start(config, Count::default()).await.unwrap());
    }
    let list: Vec<_> = (1..).zip(&nodes).map(|(id, node)| (id, node.peer_addr().to_string())).collect();
    nodes[0].set_configuration(list).await.unwrap();
    let leader = eventually("one writes", async || {
        for (at, node) in nodes.iter().enumerate() {
            if node.write(()).await.is_ok() {
                return Some(at);
            }
        }
        None
    })
    .await;
    nodes.swap(0, leader);
    nodes
}

/// Its followers are gone, and have promised: nobody else can have committed anything, so it need not ask.
#[tokio::test]
async fn a_leader_alone_answers_by_its_lease() {
    let nodes = start(NEVER, NEVER).await;
    let written = nodes[0].read(()).await.unwrap();
    assert!(written >= 1);
    nodes[1].stop().await;
    nodes[2].stop().await;
    for _ in 0..100 {
        assert_eq!(nodes[0].read(()).await, Ok(written));
    }
}

/// RD-3: by its own clock the lease is over soon, and then it has to ask, however long it goes on to lead.
#[tokio::test]
async fn rd_3_a_lease_ends_where_nobody_promises_it_anew() {
    let nodes = start(Duration::from_millis(300), NEVER).await;
    nodes[1].stop().await;
    nodes[2].stop().await;
    eventually("it does not answer", async || {
        let read = nodes[0].read(()).await;
        assert!(matches!(read, Ok(1..) | Err(ReadError::Timeout | ReadError::NoLeader)), "{read:?}");
        read.err()
    })
    .await;
}
