//! That everything is bounded (S22): connections, handshakes, frames, and what waits for the node.

use crate::kit::*;
use coracle::transport::tcp::{Tcp, TcpConfig};
use coracle::wire::{self, Close, CloseReason, Incoming, RefusedReason};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Silent connections hold all places of the handshake, and a peer gets in all the same.
#[tokio::test]
async fn tr_6_silent_connections_do_not_keep_a_peer_out() {
    let config = TcpConfig { max_handshakes: 4, handshake_timeout: PATIENCE * 6, ..TcpConfig::default() };
    let mut node = Node::at(LOOPBACK, local(1, Some(CLUSTER)), config).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(node.address()).await.unwrap());
    }
    let a = Node::start(local(2, Some(CLUSTER))).await;
    a.knows(&[(1, &node.address())]);
    a.send(peer(1), forward(1, 1)).await;
    assert_eq!(node.message().await.0, peer(2));
    // All but the newest were cut off, though the deadline of their handshake is far away.
    let cut_off = async {
        for stream in &mut silent[..46] {
            let read = tokio::io::AsyncReadExt::read(stream, &mut [0; 1]).await;
            assert!(matches!(read, Ok(0) | Err(_)));
        }
    };
    tokio::time::timeout(PATIENCE, cut_off).await.expect("in time");
}

#[tokio::test]
async fn one_connection_too_many_is_refused() {
    let config = TcpConfig { max_connections: 2, ..TcpConfig::default() };
    let node = Node::at(LOOPBACK, local(1, Some(CLUSTER)), config).await;
    let mut strangers = Vec::new();
    for id in 2..4 {
        let mut stranger = Stranger::connect(&node.address()).await;
        assert!(matches!(stranger.greet(&hello(id, 1)).await, Some(Incoming::Welcome(_))));
        strangers.push(stranger);
    }
    let mut stranger = Stranger::connect(&node.address()).await;
    match stranger.greet(&hello(4, 1)).await {
        Some(Incoming::Refused(refused)) => assert_eq!(refused.reason, RefusedReason::Busy),
        other => panic!("{other:?}"),
    }
    strangers.pop();
    until(|| node.tcp.counts().links == 1).await;
    let mut stranger = Stranger::connect(&node.address()).await;
    assert!(matches!(stranger.greet(&hello(4, 1)).await, Some(Incoming::Welcome(_))));
}

#[tokio::test]
async fn tr_3_a_frame_over_the_limit_is_refused_by_its_header_and_never_sent() {
    let config = TcpConfig { max_frame: 50_000, ..TcpConfig::default() };
    let node = Node::at(LOOPBACK, local(1, Some(CLUSTER)), config).await;
    let a = Node::start(local(2, Some(CLUSTER))).await;
    a.knows(&[(1, &node.address())]);
    a.send(peer(1), forward(1, 1)).await;
    assert!(!a.tcp.send(peer(1), forward(1, 50_000)), "the peer said what it takes");
    assert!(a.tcp.send(peer(1), forward(1, 49_000)));
    let mut stranger = Stranger::connect(&node.address()).await;
    stranger.greet(&hello(3, 1)).await;
    // The header alone is enough.
    stranger.say(&wire::encode(&forward(1, 50_000)).head).await;
    match stranger.hear().await {
        Some(Incoming::Close(Close { reason, text })) => {
            assert_eq!(reason, CloseReason::Protocol);
            assert!(text.contains("over the limit of 50000"), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

/// The node does not read its inbox: the peer's writes back up, and what was read stays within the budget.
#[tokio::test]
async fn what_waits_for_the_node_is_bounded_in_bytes() {
    const SIZE: usize = 100 << 10;
    let config = TcpConfig { inbound_bytes: 4 * SIZE + 2000, ..TcpConfig::default() };
    let (inbound, mut inbox) = mpsc::channel(1000);
    let node = Tcp::bind(LOOPBACK, config, local(1, Some(CLUSTER)), inbound).await.unwrap();
    let a = Node::start(local(2, Some(CLUSTER))).await;
    a.knows(&[(1, &node.local_addr().to_string())]);
    a.send(peer(1), forward(0, SIZE)).await;
    for id in 1..100 {
        assert!(a.tcp.send(peer(1), forward(id, SIZE)));
    }
    until(|| node.counts().received == 4).await;
    // Each one that is handled lets in the next, and only the next.
    for handled in 1..=96 {
        drop(inbox.recv().await.unwrap());
        until(|| node.counts().received == 4 + handled).await;
        assert_eq!(inbox.len(), 4);
    }
}

/// A message as large as the whole budget, or larger, still passes: alone.
#[tokio::test]
async fn a_message_larger_than_the_budget_passes_alone() {
    let config = TcpConfig { inbound_bytes: 1000, ..TcpConfig::default() };
    let mut node = Node::at(LOOPBACK, local(1, Some(CLUSTER)), config).await;
    let a = Node::start(local(2, Some(CLUSTER))).await;
    a.knows(&[(1, &node.address())]);
    a.send(peer(1), forward(1, 5000)).await;
    a.send(peer(1), forward(2, 5000)).await;
    assert_eq!(node.message().await.2, forward(1, 5000));
    assert_eq!(node.message().await.2, forward(2, 5000));
}

#[tokio::test]
async fn a_full_outbox_drops_what_is_new() {
    let config = TcpConfig { outbox_messages: 10, ..TcpConfig::default() };
    let a = Node::at(LOOPBACK, local(1, Some(CLUSTER)), config).await;
    let mut b = Node::start(local(2, Some(CLUSTER))).await;
    a.knows(&[(2, &b.address())]);
    a.send(peer(2), forward(0, 1)).await;
    b.message().await;
    // Nothing else runs between these lines: the writer cannot come for them.
    let sent = (1..100).filter(|id| a.tcp.send(peer(2), forward(*id, 1))).count();
    assert!((9..=10).contains(&sent), "{sent}");
    for id in 1..=sent as u64 {
        assert_eq!(b.message().await.2, forward(id, 1), "the oldest were kept");
    }
    assert!(a.tcp.counts().unsent >= 89);
}
