//! Who is sent away, and that nobody else notices.

use crate::kit::*;
use coracle::raft::{Incarnation, NodeId, Peer};
use coracle::wire::{self, CloseReason, Hello, Incoming, Purpose, RefusedReason};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

async fn refusal(node: &Node, hello: &Hello) -> RefusedReason {
    let mut stranger = Stranger::connect(&node.address()).await;
    match stranger.greet(hello).await {
        Some(Incoming::Refused(refused)) => {
            assert_eq!(refused.from, peer(1));
            assert!(stranger.hear().await.is_none(), "and the connection ends");
            refused.reason
        }
        other => panic!("a refusal was expected: {other:?}"),
    }
}

#[tokio::test]
async fn tr_2_whoever_is_wrong_here_is_told_why() {
    let mut node = Node::start(local(1, Some(CLUSTER))).await;
    let refused = async |change: &dyn Fn(&mut Hello)| {
        let mut hello = hello(2, 1);
        change(&mut hello);
        refusal(&node, &hello).await
    };
    assert_eq!(refused(&|h| h.facts.cluster = Some(OTHER)).await, RefusedReason::WrongCluster);
    assert_eq!(refused(&|h| h.facts.cluster = None).await, RefusedReason::Blank);
    assert_eq!(refused(&|h| h.to = NodeId(3)).await, RefusedReason::WrongNode);
    assert_eq!(refused(&|h| h.to_incarnation = Some(Incarnation(1))).await, RefusedReason::WrongNode);
    let itself = local(1, None);
    let own = |h: &mut Hello| (h.facts.from, h.facts.boot) = (itself.peer, itself.boot);
    assert_eq!(refused(&own).await, RefusedReason::OwnName);
    // Of the same name, but not the node that dialed: another process, another disk.
    assert_eq!(refused(&|h| h.facts.from = peer(1)).await, RefusedReason::BadName);
    assert_eq!(refused(&|h| h.facts.from = Peer::default()).await, RefusedReason::BadName);
    assert_eq!(refused(&|h| h.facts.protocol = (3, 9)).await, RefusedReason::Protocol);
    assert_eq!(refused(&|h| h.facts.protocol = (1, 1)).await, RefusedReason::Protocol);
    assert_eq!(refused(&|h| h.facts.required = 1 << 63).await, RefusedReason::Feature);
    assert_eq!(refused(&|h| h.purpose = Purpose::Bulk).await, RefusedReason::Purpose);
    assert_eq!(refused(&|h| h.purpose = Purpose::Other(9)).await, RefusedReason::Purpose);
    assert_eq!(node.tcp.counts().refused, 12);
    assert!(node.inbox.try_recv().is_err(), "the node heard nothing of it");
    let mut fine = hello(2, 1);
    (fine.facts.protocol, fine.facts.optional) = ((0, 9), 1 << 63);
    let mut stranger = Stranger::connect(&node.address()).await;
    assert!(matches!(stranger.greet(&fine).await, Some(Incoming::Welcome(_))), "more than needed is no harm");
}

#[tokio::test]
async fn two_blank_nodes_have_nothing_to_say_to_each_other() {
    let node = Node::start(local(1, None)).await;
    let mut blank = hello(2, 1);
    blank.facts.cluster = None;
    assert_eq!(refusal(&node, &blank).await, RefusedReason::Blank);
}

#[tokio::test]
async fn tr_2_a_wrong_cluster_is_logged_once() {
    let warnings = Warnings::collect();
    let node = Node::start(local(1, Some(CLUSTER))).await;
    let mut wrong = hello(2, 1);
    wrong.facts.cluster = Some(OTHER);
    for _ in 0..5 {
        refusal(&node, &wrong).await;
    }
    wrong.to = NodeId(7);
    refusal(&node, &wrong).await;
    assert_eq!((warnings.with("cluster"), warnings.with("node 7 was dialed")), (1, 1));
}

#[tokio::test]
async fn tr_2_a_dialer_that_finds_another_node_says_so_once_and_goes_on_trying() {
    let warnings = Warnings::collect();
    let a = Node::start(local(1, Some(CLUSTER))).await;
    let wrong = Node::start(local(3, Some(CLUSTER))).await;
    let path = Path::to(&wrong.address()).await;
    a.knows(&[(2, &path.address)]);
    until(|| a.tcp.counts().dials >= 4).await;
    assert_eq!(warnings.with("cannot talk to node 2"), 1);
    assert!(!a.tcp.send(peer(2), forward(1, 1)));
    let mut right = Node::start(local(2, Some(CLUSTER))).await;
    path.lead_to(&right.address());
    a.send(peer(2), forward(1, 1)).await;
    assert_eq!(right.message().await.0, peer(1));
}

#[tokio::test]
async fn tr_2_a_message_for_somebody_else_or_in_another_name_is_dropped() {
    let mut node = Node::start(local(1, Some(CLUSTER))).await;
    let mut stranger = Stranger::connect(&node.address()).await;
    assert!(matches!(stranger.greet(&hello(2, 1)).await, Some(Incoming::Welcome(_))));
    let reborn = Peer { incarnation: Incarnation(5), ..peer(1) };
    for (from, to) in [(3, peer(1)), (2, peer(3)), (2, reborn), (2, peer(1))] {
        stranger.say(&wire::encode(&raft(peer(from), to)).to_bytes()).await;
    }
    assert_eq!(node.message().await, (peer(2), CLUSTER, raft(peer(2), peer(1))));
    assert_eq!(node.tcp.counts().misaddressed, 3);
}

/// Each of these ends its own connection with a typed goodbye, and the neighbour goes on.
#[tokio::test]
async fn garbage_ends_its_own_connection_only() {
    let warnings = Warnings::collect();
    let mut node = Node::start(local(1, Some(CLUSTER))).await;
    let mut good = Stranger::connect(&node.address()).await;
    assert!(matches!(good.greet(&hello(2, 1)).await, Some(Incoming::Welcome(_))));
    let mut damaged = hello(3, 1).encode().to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let early = wire::encode(&forward(1, 1)).to_bytes();
    let http = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for garbage in [&http[..], &[0; 64], &[0xff; 4096], &damaged, &early] {
        for _ in 0..3 {
            let mut stranger = Stranger::connect(&node.address()).await;
            stranger.say(garbage).await;
            match stranger.hear().await {
                Some(Incoming::Close(close)) => assert_eq!(close.reason, CloseReason::Protocol),
                other => panic!("a goodbye was expected: {other:?}"),
            }
        }
    }
    assert_eq!(warnings.with("refused a connection"), 1);
    // Some just go away, at once or in the middle of a frame.
    for length in 0..damaged.len() {
        let mut stranger = Stranger::connect(&node.address()).await;
        stranger.say(&damaged[..length]).await;
    }
    good.say(&wire::encode(&forward(1, 1)).to_bytes()).await;
    assert_eq!(node.message().await.2, forward(1, 1));
}

#[tokio::test]
async fn damage_within_a_conversation_ends_it() {
    let mut node = Node::start(local(1, Some(CLUSTER))).await;
    let mut stranger = Stranger::connect(&node.address()).await;
    stranger.greet(&hello(2, 1)).await;
    let mut bytes = wire::encode(&forward(1, 100)).to_bytes().to_vec();
    bytes[100] ^= 4;
    stranger.say(&bytes).await;
    let Some(Incoming::Close(close)) = stranger.hear().await else { panic!("a goodbye was expected") };
    assert_eq!(
        (close.reason, &close.text[..]),
        (CloseReason::Protocol, "the checksum of a frame's body is wrong")
    );
    assert!(stranger.hear().await.is_none());
    drop(stranger);
    assert_eq!(node.event().await, "disconnected 2");
}

#[tokio::test]
async fn a_second_connection_of_the_same_node_takes_the_place_of_the_first() {
    let mut node = Node::start(local(1, Some(CLUSTER))).await;
    let mut first = Stranger::connect(&node.address()).await;
    first.greet(&hello(2, 1)).await;
    let mut second = Stranger::connect(&node.address()).await;
    second.greet(&hello(2, 1)).await;
    let Some(Incoming::Close(close)) = first.hear().await else { panic!("a goodbye was expected") };
    assert_eq!(close.reason, CloseReason::Replaced);
    drop(first);
    until(|| node.tcp.counts().links == 1).await;
    assert!(node.inbox.try_recv().is_err(), "the peer is still connected");
    assert!(node.tcp.send(peer(2), forward(1, 1)));
    assert_eq!(second.hear().await, Some(Incoming::Message(forward(1, 1))));
}

/// TR-6: a connection that says nothing, or stops in the middle, is ended by the deadline of the handshake.
#[tokio::test]
async fn tr_6_who_does_not_shake_hands_in_time_is_cut_off() {
    let node = Node::at(LOOPBACK, local(1, Some(CLUSTER)), curt()).await;
    let start = hello(2, 1).encode();
    for length in [0, 1, 31, 32, start.len() - 1] {
        let mut stream = TcpStream::connect(node.address()).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, &start[..length]).await.unwrap();
        let mut rest = Vec::new();
        let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("in time");
        assert!(rest.is_empty(), "{length}: {end:?}");
    }
    assert_eq!(node.tcp.counts().links, 0);
}
