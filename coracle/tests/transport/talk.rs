//! Healthy nodes: messages, blank nodes, probes, and stopping.

use crate::kit::*;
use bytes::Bytes;
use coracle::entry::{Entry, Kind, Stamp};
use coracle::raft::{AppendEntries, Envelope, Index, LogId, Message, NodeId, Round, Term};
use coracle::transport::tcp::{ProbeError, Tcp, TcpConfig};
use coracle::transport::{ForwardReply, PeerMessage};
use coracle::wire::RefusedReason;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

#[tokio::test]
async fn two_nodes_talk_both_ways() {
    let mut a = Node::start(local(1, Some(CLUSTER))).await;
    let mut b = Node::start(local(2, Some(CLUSTER))).await;
    let (at_a, at_b) = (a.address(), b.address());
    a.knows(&[(1, &at_a), (2, &at_b)]);
    b.knows(&[(1, &at_a), (2, &at_b)]);
    a.send(peer(2), forward(1, 10)).await;
    assert_eq!(b.message().await, (peer(1), CLUSTER, forward(1, 10)));
    let reply = PeerMessage::ForwardReply(ForwardReply { id: 1, outcome: Ok(Bytes::from_static(b"done")) });
    b.send(peer(1), reply.clone()).await;
    assert_eq!(a.message().await, (peer(2), CLUSTER, reply));
    assert_eq!((a.tcp.counts().received, b.tcp.counts().received), (1, 1));
}

/// Several megabytes in hundreds of pieces: the socket takes them in parts, and they arrive whole and in order.
#[tokio::test]
async fn entries_arrive_as_they_were_however_the_socket_cuts_them() {
    let a = Node::start(local(1, Some(CLUSTER))).await;
    let mut b = Node::start(local(2, Some(CLUSTER))).await;
    a.knows(&[(1, &a.address()), (2, &b.address())]);
    let entries: Vec<Entry> = (1..=600)
        .map(|index| {
            let payload = vec![index as u8; if index % 100 == 0 { 1 << 20 } else { index as usize }];
            Entry::new(LogId::new(1, index), Kind::Command, Stamp::default(), &payload)
        })
        .collect();
    let append = AppendEntries {
        term: Term(1),
        prev: LogId::ZERO,
        last: Index(600),
        commit: Index(0),
        round: Round(0),
        lease: 0,
        persisted: Index(0),
        disk_age: 0,
        time: 0,
        agreed: None,
    };
    let message = Message::AppendEntries(append);
    let envelope = Envelope { from: peer(1), to: peer(2), membership: LogId::ZERO, message };
    let message = PeerMessage::Raft { envelope, entries };
    a.send(peer(2), message.clone()).await;
    for id in 0..200 {
        assert!(a.tcp.send(peer(2), forward(id, 5)));
    }
    assert_eq!(b.message().await.2, message);
    for id in 0..200 {
        assert_eq!(b.message().await.2, forward(id, 5));
    }
}

#[tokio::test]
async fn a_blank_node_answers_whoever_talks_to_it() {
    let mut a = Node::start(local(1, Some(CLUSTER))).await;
    let mut blank = Node::start(local(2, None)).await;
    a.knows(&[(1, &a.address()), (2, &blank.address())]);
    a.send(peer(2), forward(1, 1)).await;
    assert_eq!(blank.message().await, (peer(1), CLUSTER, forward(1, 1)));
    assert!(blank.tcp.send(peer(1), forward(2, 1)), "over the accepted connection");
    assert_eq!(a.message().await, (peer(2), CLUSTER, forward(2, 1)));
}

#[tokio::test]
async fn a_node_that_joins_a_cluster_is_done_with_others() {
    let mut mine = Node::start(local(1, Some(CLUSTER))).await;
    let mut other = Node::start(local(3, Some(OTHER))).await;
    let mut blank = Node::start(local(2, None)).await;
    for node in [&mine, &other] {
        node.knows(&[(2, &blank.address())]);
        node.send(peer(2), forward(1, 1)).await;
        blank.message().await;
    }
    blank.tcp.set_cluster(CLUSTER);
    assert_eq!(blank.event().await, "disconnected 3");
    assert_eq!(other.event().await, "disconnected 2");
    assert!(blank.tcp.send(peer(1), forward(2, 1)));
    assert_eq!(mine.message().await.0, peer(2));
}

#[tokio::test]
async fn nobody_is_dialed_before_there_is_a_cluster() {
    let mut a = Node::start(local(1, Some(CLUSTER))).await;
    let blank = Node::start(local(2, None)).await;
    blank.knows(&[(1, &a.address()), (2, &blank.address())]);
    tokio::task::yield_now().await;
    assert_eq!(blank.tcp.counts().dials, 0);
    blank.tcp.set_cluster(CLUSTER);
    blank.send(peer(1), forward(1, 1)).await;
    assert_eq!(a.message().await.0, peer(2));
}

#[tokio::test]
async fn a_member_that_moves_is_dialed_where_it_is_and_one_that_left_no_more() {
    let a = Node::start(local(1, Some(CLUSTER))).await;
    let mut old = Node::start(local(2, Some(CLUSTER))).await;
    a.knows(&[(2, &old.address())]);
    a.send(peer(2), forward(1, 1)).await;
    old.message().await;
    let mut new = Node::start(local(2, Some(CLUSTER))).await;
    a.knows(&[(2, &new.address())]);
    assert_eq!(old.event().await, "disconnected 1");
    a.send(peer(2), forward(2, 1)).await;
    assert_eq!(new.message().await.2, forward(2, 1));
    a.knows(&[]);
    assert_eq!(new.event().await, "disconnected 1");
    until(|| a.tcp.counts().links == 0).await;
    assert!(!a.tcp.send(peer(2), forward(3, 1)));
}

#[tokio::test]
async fn when_one_connection_is_being_closed_the_other_is_used() {
    let a = Node::start(local(1, Some(CLUSTER))).await;
    let mut b = Node::start(local(2, Some(CLUSTER))).await;
    a.knows(&[(2, &b.address())]);
    b.knows(&[(1, &a.address())]);
    until(|| a.tcp.counts().links == 2 && b.tcp.counts().links == 2).await;
    a.knows(&[]);
    // Nothing ran in between: the goodbye on the dialed one is still in its outbox.
    assert!(a.tcp.send(peer(2), forward(1, 1)));
    assert_eq!(b.message().await.2, forward(1, 1));
}

#[tokio::test]
async fn a_probe_introduces_and_leaves_no_trace() {
    let blank = Node::start(local(1, None)).await;
    let mut other_blank = Node::start(local(2, None)).await;
    let mut member = Node::start(local(3, Some(CLUSTER))).await;
    let who = blank.tcp.probe(&other_blank.address(), NodeId(2)).await.unwrap();
    assert!(who.is_blank());
    assert_eq!((who.peer, who.boot), (peer(2), local(2, None).boot));
    let who = blank.tcp.probe(&member.address(), NodeId(3)).await.unwrap();
    assert_eq!((who.is_blank(), who.cluster), (false, Some(CLUSTER)));
    until(|| other_blank.tcp.counts().links + member.tcp.counts().links == 0).await;
    assert!(other_blank.inbox.try_recv().is_err() && member.inbox.try_recv().is_err());
}

#[tokio::test]
async fn a_probe_says_what_it_found_instead() {
    let node = Node::at(LOOPBACK, local(1, Some(CLUSTER)), patient()).await;
    let probe = async |address: &str, id| node.tcp.probe(address, NodeId(id)).await.unwrap_err();
    let wrong = Node::start(local(2, None)).await;
    let error = probe(&wrong.address(), 3).await;
    assert_eq!(error.to_string(), format!("node 2 is at {}, not node 3", wrong.address()));
    let elsewhere = Node::start(local(3, Some(OTHER))).await;
    let error = probe(&elsewhere.address(), 3).await;
    assert!(matches!(error, ProbeError::Refused { reason: RefusedReason::WrongCluster, .. }), "{error}");
    let error = probe(&node.address(), 1).await;
    assert!(matches!(error, ProbeError::Refused { reason: RefusedReason::OwnName, .. }), "{error}");
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let curt = Node::at(LOOPBACK, local(1, Some(CLUSTER)), curt()).await;
    let error = curt.tcp.probe(&at, NodeId(2)).await.unwrap_err();
    assert!(matches!(error, ProbeError::Timeout { .. }), "it never answers: {error}");
    let http = tokio::spawn(async move {
        // The first in line is the probe that gave up.
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        }
    });
    let error = probe(&at, 2).await;
    assert!(matches!(error, ProbeError::NotANode { .. }), "{error}");
    http.abort();
    let _ = http.await;
    assert_eq!(probe(&at, 2).await, ProbeError::Nobody(at));
    let error = probe("no port", 2).await;
    assert!(matches!(error, ProbeError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn closing_ends_every_task_and_frees_the_port() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let a = Node::start(local(1, Some(CLUSTER))).await;
    let b = Node::start(local(2, Some(CLUSTER))).await;
    a.knows(&[(2, &b.address()), (3, "127.0.0.1:1")]);
    b.knows(&[(1, &a.address())]);
    a.send(peer(2), forward(1, 1)).await;
    b.send(peer(1), forward(1, 1)).await;
    let silent = TcpStream::connect(a.tcp.local_addr()).await.unwrap();
    let at = a.address();
    a.tcp.close().await;
    assert!(!a.tcp.send(peer(2), forward(2, 1)));
    a.tcp.close().await;
    // The very same address, while the old transport still exists.
    let again = Node::at(&at, local(1, Some(CLUSTER)), TcpConfig::default()).await;
    again.tcp.close().await;
    b.tcp.close().await;
    drop(silent);
    until(|| tasks() == 0).await;
}

#[tokio::test]
async fn dropping_frees_the_port_too() {
    let a = Node::start(local(1, Some(CLUSTER))).await;
    let at = a.address();
    drop(a);
    let (inbound, _inbox) = mpsc::channel(1);
    let bound = async {
        while Tcp::bind(&at, TcpConfig::default(), local(1, None), inbound.clone()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, bound).await.expect("in time");
}

#[tokio::test]
async fn an_address_in_use_is_an_error() {
    let a = Node::start(local(1, None)).await;
    assert_ne!(a.tcp.local_addr().port(), 0);
    let (inbound, _inbox) = mpsc::channel(1);
    assert!(Tcp::bind(&a.address(), TcpConfig::default(), local(2, None), inbound).await.is_err());
}
