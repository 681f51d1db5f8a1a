//! The TCP transport over loopback: who may talk to whom, and what happens when somebody stops talking.
//!
//! Nothing here sleeps to let something happen: each test waits for the event itself, for at most ten
//! seconds. The names of hazards (TR-2 and the like) say which failures of other systems a test is about.

use bytes::Bytes;
use coracle::core::*;
use coracle::transport::tcp::{Local, Tcp, TcpConfig};
use coracle::transport::{Forward, ForwardReply, Inbound, PeerMessage};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

const CLUSTER: ClusterId = ClusterId(0xc0ffee);
const LOOPBACK: &str = "127.0.0.1:0";

fn peer(id: u64) -> Peer {
    Peer { id: NodeId(id), incarnation: Incarnation(1000 + id) }
}

fn local(id: u64, cluster: Option<ClusterId>) -> Local {
    Local { peer: peer(id), boot: Boot(7000 + id), cluster, membership: LogId::ZERO }
}

struct Node {
    tcp: Tcp,
    inbox: mpsc::Receiver<Inbound>,
}

impl Node {
    async fn start(local: Local) -> Node {
        Node::at(LOOPBACK, local, TcpConfig::default()).await
    }

    async fn at(address: &str, local: Local, config: TcpConfig) -> Node {
        let (inbound, inbox) = mpsc::channel(16);
        Node { tcp: Tcp::bind(address, config, local, inbound).await.unwrap(), inbox }
    }

    fn address(&self) -> String {
        self.tcp.local_addr().to_string()
    }

    async fn next(&mut self) -> Inbound {
        timeout(Duration::from_secs(10), self.inbox.recv()).await.expect("in time").expect("open")
    }

    async fn message(&mut self) -> (Peer, ClusterId, PeerMessage) {
        match self.next().await {
            Inbound::Message { from, cluster, message, .. } => (from, cluster, message),
            other => panic!("a message was expected: {other:?}"),
        }
    }

    /// Sends as soon as there is a connection.
    async fn send(&self, to: Peer, message: PeerMessage) {
        until(|| self.tcp.send(to, message.clone())).await;
    }
}

/// Waits until something holds.
async fn until(mut holds: impl FnMut() -> bool) {
    timeout(Duration::from_secs(10), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("in time");
}

fn members(list: &[(u64, &str)]) -> Membership {
    let member = |(id, address): &(u64, &str)| Member {
        id: NodeId(*id),
        incarnation: peer(*id).incarnation,
        address: (*address).to_owned(),
    };
    Membership::of_voters(CLUSTER, list.iter().map(member))
}

fn forward(id: u64) -> PeerMessage {
    let command = Bytes::from_static(b"set x 1");
    PeerMessage::Forward(Forward { id, time_left: 100, session: 2, sequence: 3, command })
}

#[tokio::test]
async fn two_nodes_talk_both_ways() {
    let (mut a, mut b) =
        (Node::start(local(1, Some(CLUSTER))).await, Node::start(local(2, Some(CLUSTER))).await);
    let everyone = members(&[(1, &a.address()), (2, &b.address())]);
    a.tcp.set_membership(LogId::new(1, 1), &everyone);
    b.tcp.set_membership(LogId::new(1, 1), &everyone);
    a.send(peer(2), forward(1)).await;
    assert_eq!(b.message().await, (peer(1), CLUSTER, forward(1)));
    let reply = PeerMessage::ForwardReply(ForwardReply { id: 1, outcome: Ok(Bytes::from_static(b"done")) });
    b.send(peer(1), reply.clone()).await;
    assert_eq!(a.message().await, (peer(2), CLUSTER, reply));
}
