//! That everything is bounded (S22): connections, handshakes, frames, and what waits for the node.

use crate::kit::*;
use coracle::transport::Inbound;
use coracle::transport::tcp::{Tcp, TcpConfig};
use coracle::wire::{self, Close, CloseReason, Incoming, RefusedReason};
use tokio::net::{TcpSocket, TcpStream};
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

/// Nodes that the newest membership does not name get so many connections from one address; a member is not counted.
#[tokio::test]
async fn tr_6_one_address_gets_so_many_connections_and_a_member_gets_in() {
    let config = TcpConfig { max_per_address: 2, max_connections: 4, ..TcpConfig::default() };
    let node = Node::at(LOOPBACK, local(1, Some(CLUSTER)), config).await;
    // Nothing listens where the member should be: it comes by itself.
    node.knows(&[(1, &node.address()), (9, "127.0.0.1:1")]);
    let mut strangers = Vec::new();
    for id in 2..4 {
        let mut stranger = Stranger::connect(&node.address()).await;
        assert!(matches!(stranger.greet(&hello(id, 1)).await, Some(Incoming::Welcome(_))));
        strangers.push(stranger);
    }
    let mut stranger = Stranger::connect(&node.address()).await;
    match stranger.greet(&hello(4, 1)).await {
        Some(Incoming::Refused(refused)) => {
            assert_eq!(
                (refused.reason, &refused.text[..]),
                (RefusedReason::Busy, "too many connections from this address")
            );
        }
        other => panic!("{other:?}"),
    }
    let mut member = Stranger::connect(&node.address()).await;
    assert!(matches!(member.greet(&hello(9, 1)).await, Some(Incoming::Welcome(_))));
}

#[tokio::test]
async fn tr_6_a_member_takes_the_place_of_a_stranger_when_all_are_taken() {
    let config = TcpConfig { max_connections: 3, ..TcpConfig::default() };
    let node = Node::at(LOOPBACK, local(1, Some(CLUSTER)), config).await;
    node.knows(&[(1, &node.address()), (8, "127.0.0.1:1"), (9, "127.0.0.1:1")]);
    let mut greeted = Vec::new();
    for id in [8, 2, 3] {
        let mut stranger = Stranger::connect(&node.address()).await;
        assert!(matches!(stranger.greet(&hello(id, 1)).await, Some(Incoming::Welcome(_))));
        greeted.push(stranger);
    }
    let mut member = Stranger::connect(&node.address()).await;
    assert!(matches!(member.greet(&hello(9, 1)).await, Some(Incoming::Welcome(_))));
    let Some(Incoming::Close(close)) = greeted[1].hear().await else { panic!("a goodbye was expected") };
    assert_eq!(close.reason, CloseReason::Unneeded);
    assert!(
        node.tcp.send(peer(8), forward(1, 1)) && node.tcp.send(peer(3), forward(1, 1)),
        "the others stay"
    );
}

/// Somebody says a frame until it has arrived: a busy computer may take longer over it than it may.
async fn arrives(node: &mut Node, from: u64, frame: &[u8]) {
    loop {
        let mut stranger = Stranger::connect(&node.address()).await;
        assert!(matches!(stranger.greet(&hello(from, 1)).await, Some(Incoming::Welcome(_))));
        let _cut_off = tokio::io::AsyncWriteExt::write_all(&mut stranger.stream, frame).await;
        loop {
            match node.next().await {
                Inbound::Message { from: who, .. } => return assert_eq!(who, peer(from)),
                Inbound::Disconnected(who) if who == peer(from) => break,
                _ => {}
            }
        }
    }
}

/// Strangers begin large frames and do not end them: what they make the node hold is bounded over all of them, a
/// member is served all the while, and in the end they are cut off.
#[tokio::test]
async fn tr_3_unfinished_frames_of_strangers_are_bounded_together() {
    const SIZE: usize = 1 << 20;
    let config = TcpConfig {
        unfinished_bytes: 2 * SIZE,
        unfinished_timeout: std::time::Duration::from_millis(500),
        ..TcpConfig::default()
    };
    let mut node = Node::at(LOOPBACK, local(1, Some(CLUSTER)), config).await;
    node.knows(&[(1, &node.address()), (9, "127.0.0.1:1")]);
    let large = wire::encode(&forward(1, SIZE)).to_bytes();
    let start = std::time::Instant::now();
    let mut strangers = Vec::new();
    for id in 2..8 {
        let mut stranger = Stranger::connect(&node.address()).await;
        assert!(matches!(stranger.greet(&hello(id, 1)).await, Some(Incoming::Welcome(_))));
        strangers.push(tokio::spawn({
            let part = large.slice(..SIZE);
            async move {
                // Whoever is not read from cannot say all of it before it is cut off, or its turn comes.
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stranger.stream, &part).await;
                stranger.hear().await
            }
        }));
    }
    arrives(&mut node, 9, &large).await;
    for stranger in strangers {
        let end = tokio::time::timeout(PATIENCE, stranger).await.expect("in time").unwrap();
        assert!(
            matches!(&end, Some(Incoming::Close(close)) if close.text.contains("took too long")),
            "{end:?}"
        );
    }
    assert!(
        start.elapsed() >= std::time::Duration::from_millis(1_500),
        "two at a time, and half a second for each"
    );
    // The room is given back: a large frame that is sent in one go passes.
    arrives(&mut node, 8, &large).await;
}

/// Nobody keeps a connection by a byte now and then: a small frame has its time as a large one has. Members are waited for.
#[tokio::test]
async fn tr_3_a_stranger_who_trickles_is_cut_off() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let config =
        TcpConfig { unfinished_timeout: std::time::Duration::from_millis(200), ..TcpConfig::default() };
    let mut node = Node::at(LOOPBACK, local(1, Some(CLUSTER)), config).await;
    node.knows(&[(1, &node.address()), (9, "127.0.0.1:1")]);
    let frame = wire::encode(&forward(1, 100)).to_bytes();
    let mut trickling = Vec::new();
    for id in [2, 9] {
        let mut someone = Stranger::connect(&node.address()).await;
        assert!(matches!(someone.greet(&hello(id, 1)).await, Some(Incoming::Welcome(_))));
        let (mut reader, mut writer) = someone.stream.into_split();
        let frame = frame.clone();
        trickling.push(tokio::spawn(async move {
            let trickle = async {
                for byte in frame {
                    if writer.write_all(&[byte]).await.is_err() {
                        break;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
                std::future::pending::<()>().await;
            };
            let mut heard = Vec::new();
            tokio::select! {
                _ = reader.read_to_end(&mut heard) => String::from_utf8_lossy(&heard).contains("took too long"),
                () = trickle => false,
            }
        }));
    }
    let member = trickling.pop().unwrap();
    let stranger = tokio::time::timeout(PATIENCE, trickling.remove(0)).await.expect("in time").unwrap();
    assert!(stranger, "it is told why");
    loop {
        match node.next().await {
            Inbound::Message { from, .. } => break assert_eq!(from, peer(9)),
            Inbound::Disconnected(who) => assert_eq!(who, peer(2)),
            _ => {}
        }
    }
    member.abort();
}

/// Who does not read its goodbye does not keep the connection by that.
#[tokio::test]
async fn sh_2_a_closed_link_ends_though_its_goodbye_is_not_read() {
    let config =
        TcpConfig { idle_timeout: PATIENCE * 6, ping_interval: PATIENCE * 6, ..TcpConfig::default() };
    let config = TcpConfig { close_timeout: std::time::Duration::from_millis(10), ..config };
    let node = Node::at(LOOPBACK, local(1, Some(CLUSTER)), config).await;
    let mut deaf = Stranger::connect(&node.address()).await;
    deaf.greet(&hello(2, 1)).await;
    while node.tcp.send(peer(2), forward(1, 1 << 20)) {
        tokio::task::yield_now().await;
    }
    let _second = {
        let mut second = Stranger::connect(&node.address()).await;
        second.greet(&hello(2, 1)).await;
        second
    };
    until(|| node.tcp.counts().links == 1).await;
    drop(deaf);
}

/// What strangers have said to the end still counts as theirs until the node has it, however long that takes.
#[tokio::test]
async fn tr_3_whole_frames_of_strangers_are_bounded_until_the_node_has_them() {
    const SIZE: usize = 30 << 20;
    // Each frame has all that strangers may have, and is more than the system keeps on its way.
    let config = TcpConfig { unfinished_bytes: SIZE, unfinished_timeout: NEVER, ..TcpConfig::default() };
    let config = TcpConfig { ping_interval: NEVER, idle_timeout: NEVER, inbound_bytes: 1, ..config };
    let (inbound, mut inbox) = mpsc::channel(1);
    let node = Tcp::bind(LOOPBACK, config, local(1, Some(CLUSTER)), inbound).await.unwrap();
    let large = wire::encode(&forward(1, SIZE)).to_bytes();
    let mut said = tokio::task::JoinSet::new();
    for id in 2..6 {
        let mut stranger = Stranger::connect(&node.local_addr().to_string()).await;
        assert!(matches!(stranger.greet(&hello(id, 1)).await, Some(Incoming::Welcome(_))));
        let large = large.clone();
        said.spawn(async move {
            stranger.say(&large).await;
            stranger
        });
    }
    // The first is with the node, which does nothing with it, and the second waits for that.
    let mut stay = vec![said.join_next().await.unwrap().unwrap()];
    until(|| node.counts().received >= 1).await;
    stay.push(said.join_next().await.unwrap().unwrap());
    let third = tokio::time::timeout(std::time::Duration::from_millis(500), said.join_next()).await;
    assert!(third.is_err(), "the frame of a third one is held as well");
    for _ in 0..4 {
        tokio::time::timeout(PATIENCE, inbox.recv()).await.expect("in time").expect("a message");
    }
    stay.extend(said.join_all().await);
}

/// Strangers of any number of addresses say what is wrong with them; what is wrong with a member is told all the same.
#[tokio::test]
async fn what_a_member_does_is_told_whatever_strangers_do() {
    let warnings = Warnings::collect();
    let node = Node::start(local(1, Some(CLUSTER))).await;
    node.knows(&[(1, &node.address()), (9, "127.0.0.1:1")]);
    let address = node.tcp.local_addr();
    for source in 0..300u32 {
        let socket = TcpSocket::new_v4().unwrap();
        let [_, _, high, low] = source.to_be_bytes();
        socket.bind(std::net::SocketAddr::from(([127, 9, high, low.max(1)], 0))).unwrap();
        let mut stranger = Stranger::on(socket.connect(address).await.unwrap());
        let mut wrong = hello(u64::from(100 + source), 1);
        wrong.facts.cluster = Some(OTHER);
        assert!(matches!(stranger.greet(&wrong).await, Some(Incoming::Refused(_))));
    }
    assert!(warnings.with("refused node 1") < 100, "strangers are told of now and then");
    let mut member = Stranger::connect(&node.address()).await;
    let mut wrong = hello(9, 1);
    wrong.facts.cluster = Some(OTHER);
    assert!(matches!(member.greet(&wrong).await, Some(Incoming::Refused(_))));
    assert_eq!(warnings.with("refused node 9: "), 1, "{:?}", warnings.all());
}
