//! Peers that die, and networks that fail: what the node is told, and how it goes on.

use crate::kit::*;
use coracle::raft::{Boot, LogId};
use coracle::transport::Inbound;
use coracle::transport::tcp::{Local, TcpConfig};
use coracle::wire::Incoming;
use std::time::Duration;

/// A node that talks to node 2 over a path.
async fn pair(config: TcpConfig) -> (Node, Node, std::sync::Arc<Path>) {
    let a = Node::at(LOOPBACK, local(1, Some(CLUSTER)), config).await;
    let mut b = Node::start(local(2, Some(CLUSTER))).await;
    let path = Path::to(&b.address()).await;
    a.knows(&[(2, &path.address)]);
    a.send(peer(2), forward(1, 1)).await;
    b.message().await;
    (a, b, path)
}

#[tokio::test]
async fn a_peer_that_says_goodbye_is_down_at_once() {
    let mut a = Node::start(local(1, Some(CLUSTER))).await;
    let b = Node::start(local(2, Some(CLUSTER))).await;
    a.knows(&[(2, &b.address())]);
    b.knows(&[(1, &a.address())]);
    a.send(peer(2), forward(1, 1)).await;
    b.send(peer(1), forward(1, 1)).await;
    until(|| a.tcp.counts().links == 2).await;
    assert_eq!(a.event().await, "message 2");
    b.tcp.close().await;
    assert_eq!([a.event().await, a.event().await], ["down 2", "disconnected 2"], "each of them once");
    until(|| a.tcp.counts().links == 0).await;
    assert!(a.inbox.try_recv().is_err());
}

#[tokio::test]
async fn a_peer_whose_goodbye_came_over_an_accepted_connection_is_down_too() {
    let mut blank = Node::start(local(2, None)).await;
    let a = Node::start(local(1, Some(CLUSTER))).await;
    a.knows(&[(2, &blank.address())]);
    a.send(peer(2), forward(1, 1)).await;
    blank.message().await;
    a.tcp.close().await;
    assert_eq!([blank.event().await, blank.event().await], ["down 1", "disconnected 1"]);
}

#[tokio::test]
async fn a_peer_whose_port_refuses_is_down_and_is_found_again_when_it_is_back() {
    let mut a = Node::start(local(1, Some(CLUSTER))).await;
    let mut b = Node::start(local(2, Some(CLUSTER))).await;
    let at = b.address();
    a.knows(&[(2, &at)]);
    a.send(peer(2), forward(1, 1)).await;
    b.message().await;
    drop(b);
    assert_eq!([a.event().await, a.event().await], ["disconnected 2", "down 2"]);
    let dials = a.tcp.counts().dials;
    until(|| a.tcp.counts().dials > dials + 2).await;
    assert!(a.inbox.try_recv().is_err(), "told once");
    let mut b = Node::at(&at, local(2, Some(CLUSTER)), TcpConfig::default()).await;
    a.send(peer(2), forward(2, 1)).await;
    assert_eq!(b.message().await.2, forward(2, 1));
}

/// A process that is just ending takes one more connection and drops it. That tells nothing, and whoever has dialed in vain for
/// long asks again soon all the same: it was connected a moment ago.
#[tokio::test]
async fn a_peer_that_drops_one_more_connection_while_it_ends_is_down_soon() {
    let ending = tokio::net::TcpListener::bind(LOOPBACK).await.unwrap();
    let address = ending.local_addr().unwrap().to_string();
    let config = TcpConfig { backoff_max: NEVER, ..TcpConfig::default() };
    let mut a = Node::at(LOOPBACK, local(1, Some(CLUSTER)), config).await;
    let drops = tokio::spawn(async move {
        loop {
            drop(ending.accept().await);
        }
    });
    a.knows(&[(2, &address)]);
    // After so many attempts in vain the pauses would be hours.
    for _ in 0..24 {
        let mut two = Stranger::connect(&a.address()).await;
        assert!(matches!(two.greet(&hello(2, 1)).await, Some(Incoming::Welcome(_))));
        let dials = a.tcp.counts().dials;
        drop(two);
        assert_eq!(a.event().await, "disconnected 2");
        until(|| a.tcp.counts().dials > dials).await;
    }
    drops.abort();
    assert_eq!(a.event().await, "down 2");
}

#[tokio::test]
async fn a_peer_that_another_run_answers_for_is_down() {
    let (mut a, _b, path) = pair(TcpConfig::default()).await;
    let reborn = Local { boot: Boot(99), ..local(2, Some(CLUSTER)) };
    let mut reborn = Node::start(reborn).await;
    path.lead_to(&reborn.address());
    path.cut();
    assert_eq!([a.event().await, a.event().await], ["disconnected 2", "down 2"]);
    a.send(peer(2), forward(2, 1)).await;
    assert_eq!(reborn.message().await.2, forward(2, 1));
}

#[tokio::test]
async fn a_peer_at_whose_address_a_stranger_answers_is_down() {
    let (mut a, _b, path) = pair(TcpConfig::default()).await;
    let stranger = Node::start(local(3, Some(CLUSTER))).await;
    path.lead_to(&stranger.address());
    path.cut();
    assert_eq!([a.event().await, a.event().await], ["disconnected 2", "down 2"]);
}

#[tokio::test]
async fn a_cut_to_a_peer_that_lives_is_mended_and_nobody_is_down() {
    let (mut a, mut b, path) = pair(TcpConfig::default()).await;
    for round in 2..6 {
        path.cut();
        assert_eq!(a.event().await, "disconnected 2");
        assert_eq!(b.event().await, "disconnected 1");
        a.send(peer(2), forward(round, 1)).await;
        assert_eq!(b.message().await.2, forward(round, 1));
        b.send(peer(1), forward(round, 1)).await;
        assert_eq!(a.message().await.2, forward(round, 1), "and nothing before it");
    }
}

#[tokio::test]
async fn tr_4_a_half_open_connection_is_given_up_and_replaced() {
    let (mut patient, _other, longer) = pair(patient()).await;
    let (mut a, mut b, path) = pair(hasty()).await;
    longer.freeze();
    path.freeze();
    assert_eq!(a.event().await, "disconnected 2");
    assert!(patient.inbox.try_recv().is_err(), "by the settings: the system would take hours");
    a.send(peer(2), forward(2, 1)).await;
    assert_eq!(b.message().await.2, forward(2, 1), "the old connection was replaced, not lost");
    b.send(peer(1), forward(3, 1)).await;
    assert_eq!(a.message().await.2, forward(3, 1), "and the peer uses the new one");
}

/// The peer takes the connection and reads nothing: what is queued stays queued, and the link is given up.
#[tokio::test]
async fn tr_4_a_peer_that_does_not_read_is_given_up_and_fills_its_outbox_only() {
    let listener = tokio::net::TcpListener::bind(LOOPBACK).await.unwrap();
    let config = TcpConfig { outbox_bytes: 1 << 20, ..hasty() };
    let mut a = Node::at(LOOPBACK, local(1, Some(CLUSTER)), config).await;
    a.knows(&[(2, &listener.local_addr().unwrap().to_string())]);
    let mut deaf = Stranger::on(listener.accept().await.unwrap().0);
    deaf.hear().await.unwrap();
    let facts = hello(2, 1).facts;
    deaf.say(&coracle::wire::Welcome { facts }.encode()).await;
    a.send(peer(2), forward(0, 100 << 10)).await;
    // It goes on speaking, so only the writes betray it.
    let speaker = async {
        loop {
            deaf.say(&coracle::wire::encode(&forward(9, 1)).to_bytes()).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let filler = async {
        loop {
            returns("a send", || while a.tcp.send(peer(2), forward(1, 100 << 10)) {});
            match a.inbox.try_recv() {
                Ok(Inbound::Disconnected(_)) => break,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, async {
        tokio::select! { () = speaker => {}, () = filler => {} }
    })
    .await
    .expect("given up in time");
    let counts = a.tcp.counts();
    assert!(counts.unsent > 0, "{counts:?}");
    assert!(counts.sent * (100 << 10) < 32 << 20, "what sockets hold, and one outbox: {counts:?}");
}

/// Beside it, links that are silent are given up, one after the other, by the same settings.
#[tokio::test]
async fn a_healthy_link_that_is_idle_stays() {
    unless_starved(async || {
        let (mut a, mut b, path) = pair(hasty()).await;
        let mut c = Node::start(local(3, Some(CLUSTER))).await;
        let silent = Path::to(&c.address()).await;
        let both = members(&[(2, &path.address), (3, &silent.address)]);
        a.tcp.set_membership(LogId::new(1, 2), &both, &[]);
        for round in 1..=3 {
            a.send(peer(3), forward(round, 1)).await;
            while !matches!(c.next().await, Inbound::Message { message, .. } if message == forward(round, 1))
            {
            }
            silent.freeze();
            let event = a.event().await;
            if event != "disconnected 3" {
                return Err(format!("{event}, in round {round}"));
            }
        }
        b.send(peer(1), forward(2, 1)).await;
        assert_eq!(a.message().await.2, forward(2, 1));
        a.send(peer(2), forward(3, 1)).await;
        assert_eq!(b.message().await.2, forward(3, 1));
        Ok(())
    })
    .await;
}

/// The links and dials of a node run on the thread that sends: what waited for one of them would wait for ever.
#[tokio::test]
async fn a_dead_peer_never_blocks_a_send() {
    let a = Node::at(LOOPBACK, local(1, Some(CLUSTER)), patient()).await;
    // Nothing listens at the first, the second takes connections and never answers, the third is no address.
    let silent = std::net::TcpListener::bind(LOOPBACK).unwrap();
    a.knows(&[(2, "127.0.0.1:1"), (3, &silent.local_addr().unwrap().to_string()), (4, "127.0.0.1:none")]);
    until(|| a.tcp.counts().dials >= 6).await;
    returns("100,000 sends", || {
        for _ in 0..50_000 {
            assert!(!a.tcp.send(peer(2), forward(1, 1)) && !a.tcp.send(peer(3), forward(1, 1)));
        }
    });
    // By the settings the dial of the second goes on for ever.
    tokio::time::timeout(PATIENCE, a.tcp.close()).await.expect("nor a close");
}
