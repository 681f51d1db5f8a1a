//! The same over a network in memory.

use crate::kit::*;
use coracle::MemoryNetwork;
use coracle::raft::NodeId;
use coracle::transport::PeerMessage;
use coracle::transport::tcp::{ProbeError, TcpConfig};
use std::collections::BTreeSet;

/// Nodes 1 and 2, which know each other, in this network.
async fn two(network: &MemoryNetwork, config: TcpConfig) -> (Node, Node) {
    let config = TcpConfig { network: Some(network.clone()), ..config };
    let a = Node::at("10.0.0.1:0", local(1, Some(CLUSTER)), config.clone()).await;
    let b = Node::at("10.0.0.2:0", local(2, Some(CLUSTER)), config).await;
    let (at_a, at_b) = (a.address(), b.address());
    a.knows(&[(1, &at_a), (2, &at_b)]);
    b.knows(&[(1, &at_a), (2, &at_b)]);
    (a, b)
}

/// Sends until such a message passed as it is, which no frame of that size would: both ends know of each other by then.
async fn meet(a: &Node, b: &mut Node, id: u64, large: usize) {
    a.send(peer(2), forward(id, large)).await;
    assert_eq!(b.message().await, (peer(1), CLUSTER, forward(id, large)));
}

/// What is handed over is not encoded, and so does not have to fit into a frame.
#[tokio::test]
async fn a_message_is_handed_over_as_it_is() {
    let max_frame = 8 << 10;
    let (mut a, mut b) = two(&MemoryNetwork::new(), TcpConfig { max_frame, ..TcpConfig::default() }).await;
    meet(&a, &mut b, 1, 2 * max_frame).await;
    b.send(peer(1), forward(2, 2 * max_frame)).await;
    assert_eq!(a.message().await, (peer(2), CLUSTER, forward(2, 2 * max_frame)));
    assert_eq!((a.tcp.counts().received, b.tcp.counts().received), (1, 1));
    assert!(b.tcp.send(peer(1), raft(peer(3), peer(1))));
    assert!(b.tcp.send(peer(1), raft(peer(2), peer(1))));
    assert_eq!(a.message().await.2, raft(peer(2), peer(1)), "and the misaddressed one was dropped");
    assert_eq!(a.tcp.counts().misaddressed, 1);
}

/// The node has room for 16; what comes meanwhile waits in the stream, and all of it arrives, whatever overtakes what.
#[tokio::test]
async fn what_finds_no_room_arrives_by_the_stream() {
    let (a, mut b) = two(&MemoryNetwork::new(), TcpConfig::default()).await;
    meet(&a, &mut b, 0, 1).await;
    let unsent = a.tcp.counts().unsent;
    for id in 1..=500 {
        assert!(a.tcp.send(peer(2), forward(id, 100)));
    }
    let mut missing: BTreeSet<u64> = (1..=500).collect();
    while !missing.is_empty() {
        let PeerMessage::Forward(heard) = b.message().await.2 else { panic!("a forward was expected") };
        assert!(missing.remove(&heard.id), "{} came twice", heard.id);
    }
    assert_eq!(a.tcp.counts().unsent, unsent);
}

/// A cut says nothing of the other's life; that nobody listens says it is dead.
#[tokio::test]
async fn a_cut_is_not_taken_for_a_death() {
    let network = MemoryNetwork::new();
    let (mut a, mut b) = two(&network, TcpConfig::default()).await;
    meet(&a, &mut b, 1, 1).await;
    until(|| a.tcp.peer(peer(2)).is_some() && b.tcp.peer(peer(1)).is_some()).await;
    network.cut(a.tcp.local_addr(), b.tcp.local_addr());
    assert_eq!(a.event().await, "disconnected 2");
    assert_eq!(b.event().await, "disconnected 1");
    assert!(!a.tcp.send(peer(2), forward(2, 1)));
    let probe = a.tcp.probe(&b.address(), NodeId(2)).await;
    assert!(matches!(probe, Err(ProbeError::Unreachable { .. })), "{probe:?}");
    network.heal(b.tcp.local_addr(), a.tcp.local_addr());
    meet(&a, &mut b, 3, 1).await;
    let address = b.address();
    drop(b);
    let mut events = BTreeSet::from([a.event().await]);
    events.insert(a.event().await);
    assert_eq!(events, BTreeSet::from(["disconnected 2".to_owned(), "down 2".to_owned()]));
    let probe = a.tcp.probe(&address, NodeId(2)).await;
    assert!(matches!(probe, Err(ProbeError::Nobody(_))), "{probe:?}");
}
