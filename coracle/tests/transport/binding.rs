//! What a blank node joins a cluster by (D5.3.4), asked of a whole node, and what a handshake leaves on a link.

use crate::common::Cluster;
use crate::kit::*;
use bytes::Bytes;
use coracle::raft::{
    AppendEntries, ClusterId, Envelope, Incarnation, Index, InstallSnapshot, InstallSnapshotReply, LogId,
    Message, Peer, RequestVote, Round, Term,
};
use coracle::transport::PeerMessage;
use coracle::transport::tcp::{Local, TcpConfig};
use coracle::wire::{self, Hello, Incoming, Purpose};

/// A vote request, or the question before it.
fn vote(from: Peer, to: Peer, pre: bool) -> PeerMessage {
    let message = Message::RequestVote(RequestVote {
        campaign: Term(3),
        pre,
        question: 0,
        last: LogId::new(2, 2),
        handed_over: None,
    });
    PeerMessage::Raft {
        envelope: Envelope { from, to, membership: LogId::new(1, 1), message },
        entries: vec![],
    }
}

fn heartbeat(from: Peer, to: Peer) -> PeerMessage {
    let message = Message::AppendEntries(AppendEntries {
        term: Term(3),
        prev: LogId::ZERO,
        last: Index(0),
        commit: Index(0),
        round: Round(0),
        lease: 0,
        persisted: Index(0),
        disk_age: 0,
        time: 0,
        agreed: None,
    });
    PeerMessage::Raft {
        envelope: Envelope { from, to, membership: LogId::new(1, 1), message },
        entries: vec![],
    }
}

/// The disk of a node, as a probe tells it.
async fn disk_of(address: &str) -> Incarnation {
    let mut probe = hello(9, 1);
    (probe.purpose, probe.to_incarnation) = (Purpose::Probe, None);
    match Stranger::connect(address).await.greet(&probe).await {
        Some(Incoming::Welcome(welcome)) => welcome.facts.from.incarnation,
        other => panic!("{other:?}"),
    }
}

/// Says these messages after this Hello, and returns when the node has been told of all of them: a frame that
/// nobody may say comes last, and the goodbye to it is the answer.
async fn say(address: &str, hello: &Hello, messages: &[PeerMessage]) {
    let mut stranger = Stranger::connect(address).await;
    assert!(matches!(stranger.greet(hello).await, Some(Incoming::Welcome(_))));
    for message in messages {
        stranger.say(&wire::encode(message).to_bytes()).await;
    }
    stranger.say(&hello.encode()).await;
    while !matches!(stranger.hear().await.expect("a goodbye"), Incoming::Close(_)) {}
}

/// Whatever is said to a blank node by one who does not name it, on this disk, or that is neither a vote request
/// nor an AppendEntries, binds it to nothing; each of these does.
#[tokio::test]
async fn a_blank_node_joins_only_whom_names_it_and_only_by_a_vote_request_or_append_entries() {
    for binding in [|a, b| vote(a, b, true), |a, b| vote(a, b, false), heartbeat] {
        let cluster = Cluster::blank(1, true, |_| {}).await;
        let at = cluster.addresses[0].clone();
        let me = Peer { incarnation: disk_of(&at).await, ..peer(1) };
        let bound = async || cluster.node(1).status().await.unwrap().cluster;
        let (from, mut hello) = (peer(2), hello(2, 1));
        hello.to_incarnation = Some(me.incarnation);
        hello.facts.cluster = Some(OTHER);
        let all = [vote(from, me, true), vote(from, me, false), heartbeat(from, me)];
        let reborn = Peer { incarnation: Incarnation(1), ..me };
        for names in [None, Some(reborn), Some(Peer { incarnation: me.incarnation, ..peer(2) })] {
            hello.facts.names = names;
            say(&at, &hello, &all).await;
            assert_eq!(bound().await, None, "{names:?} is not this node");
        }
        hello.facts.names = Some(me);
        say(&at, &hello, &[forward(1, 4), raft(from, me)]).await;
        assert_eq!(bound().await, None, "neither of these binds");
        let elsewhere = [vote(from, reborn, false), vote(peer(3), me, false)];
        say(&at, &hello, &elsewhere).await;
        assert_eq!(bound().await, None, "these are for another node, or of one");
        hello.facts.cluster = Some(CLUSTER);
        say(&at, &hello, &[forward(1, 4), binding(from, me)]).await;
        // It counts as a member once that is on the disk.
        while bound().await.is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(bound().await, Some(CLUSTER));
        cluster.node(1).stop().await;
        let identity = std::fs::read(cluster.dir(1).join("identity")).unwrap();
        assert_eq!(identity[32..48], CLUSTER.0.to_le_bytes(), "and it is written down");
    }
}

/// It answers nothing before that is written down: a node in memory has nothing to write, and answers the first.
#[tokio::test]
async fn a_blank_node_that_is_named_answers_the_first_question() {
    let cluster = Cluster::blank(1, true, |_| {}).await;
    let at = cluster.addresses[0].clone();
    let me = Peer { incarnation: disk_of(&at).await, ..peer(1) };
    let mut hello = hello(2, 1);
    (hello.to_incarnation, hello.facts.names) = (Some(me.incarnation), Some(me));
    let mut stranger = Stranger::connect(&at).await;
    assert!(matches!(stranger.greet(&hello).await, Some(Incoming::Welcome(_))));
    stranger.say(&wire::encode(&vote(peer(2), me, true)).to_bytes()).await;
    let Some(Incoming::Message(PeerMessage::Raft { envelope, .. })) = stranger.hear().await else {
        panic!("an answer was expected")
    };
    assert!(matches!(envelope.message, Message::RequestVoteReply(reply) if reply.pre));
    let identity = std::fs::read(cluster.dir(1).join("identity")).unwrap();
    assert_eq!(identity[32..48], CLUSTER.0.to_le_bytes(), "it was written down before the answer left");
}

/// Each side keeps what the other one said: its address, its metadata, and the features that both have.
#[tokio::test]
async fn what_a_handshake_said_is_kept_on_the_link() {
    let config = |features| TcpConfig { features, ..TcpConfig::default() };
    let said = |text: &'static str| Bytes::from_static(text.as_bytes());
    let first = Local { metadata: said("rack 1"), ..local(1, Some(CLUSTER)) };
    let second =
        Local { metadata: said("rack 2"), address: "two.example:7000".to_owned(), ..local(2, Some(CLUSTER)) };
    let a = Node::at(LOOPBACK, first, config(0b0111)).await;
    let mut b = Node::at(LOOPBACK, second, config(0b1110)).await;
    assert!(a.tcp.peer(peer(2)).is_none());
    a.knows(&[(1, &a.address()), (2, &b.address())]);
    a.send(peer(2), forward(1, 1)).await;
    b.message().await;
    let of_b = a.tcp.peer(peer(2)).unwrap();
    assert_eq!((of_b.peer, of_b.features, &of_b.metadata[..]), (peer(2), 0b0110, &b"rack 2"[..]));
    assert_eq!((&of_b.address[..], of_b.names), ("two.example:7000", None), "b has no membership");
    let of_a = b.tcp.peer(peer(1)).unwrap();
    assert_eq!((of_a.peer, of_a.features, &of_a.metadata[..]), (peer(1), 0b0110, &b"rack 1"[..]));
    assert_eq!((of_a.address, of_a.names), (a.address(), Some(peer(2))), "a has one, and it names b");
    assert_eq!(of_a.membership, LogId::new(1, 1));
}

/// A node of an older version would not know what a message about a snapshot is, and end the connection.
#[tokio::test]
async fn a_message_about_a_snapshot_leaves_only_where_both_know_them() {
    let snapshot = LogId::new(1, 9);
    let reply = InstallSnapshotReply { term: Term(1), snapshot, file: 5, next: 0 };
    let install = InstallSnapshot { term: Term(1), snapshot, file: 5, length: 7, offset: 0 };
    let envelope = |message| Envelope { from: peer(1), to: peer(2), membership: LogId::new(1, 1), message };
    let piece = PeerMessage::Piece {
        envelope: envelope(Message::InstallSnapshot(install)),
        bytes: Bytes::from_static(b"a piece"),
    };
    let reply =
        PeerMessage::Raft { envelope: envelope(Message::InstallSnapshotReply(reply)), entries: vec![] };
    for (features, known) in [(0, false), (wire::SNAPSHOTS, true)] {
        let a = Node::start(local(1, Some(CLUSTER))).await;
        let config = TcpConfig { features, ..TcpConfig::default() };
        let mut b = Node::at(LOOPBACK, local(2, Some(CLUSTER)), config).await;
        a.knows(&[(1, &a.address()), (2, &b.address())]);
        a.send(peer(2), forward(1, 1)).await;
        assert_eq!(b.message().await.2, forward(1, 1));
        assert_eq!((a.tcp.send(peer(2), piece.clone()), a.tcp.send(peer(2), reply.clone())), (known, known));
        assert!(a.tcp.send(peer(2), forward(2, 1)), "the connection goes on");
        let mut came = Vec::new();
        for _ in 0..if known { 3 } else { 1 } {
            came.push(b.message().await.2);
        }
        // The piece goes after all else that waits, and so does not come before its time; in what order is not told.
        assert!(came.contains(&forward(2, 1)));
        assert_eq!((came.contains(&piece), came.contains(&reply)), (known, known));
    }
}

/// A dialer of the protocol before is told by name what to do, and so is one that dials such a node.
#[tokio::test]
async fn a_node_of_the_protocol_before_is_refused_by_name() {
    let node = Node::start(local(1, Some(CLUSTER))).await;
    let mut old = hello(2, 1);
    old.facts.protocol = (1, 1);
    let refused = match Stranger::connect(&node.address()).await.greet(&old).await {
        Some(Incoming::Refused(refused)) => refused,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused.reason, wire::RefusedReason::Protocol);
    assert_eq!(refused.text, "node 2 speaks protocol 1, node 1 speaks protocol 2; upgrade node 2");
    let warnings = Warnings::collect();
    let listener = tokio::net::TcpListener::bind(LOOPBACK).await.unwrap();
    node.knows(&[(2, &listener.local_addr().unwrap().to_string())]);
    let mut before = Stranger::on(listener.accept().await.unwrap().0);
    before.hear().await.unwrap();
    let facts = wire::Facts { protocol: (1, 1), cluster: Some(ClusterId(0xc0ffee)), ..hello(2, 1).facts };
    before.say(&wire::Welcome { facts }.encode()).await;
    assert!(before.hear().await.is_none());
    until(|| warnings.with("node 2 speaks protocol 1, node 1 speaks protocol 2; upgrade node 2") == 1).await;
}
