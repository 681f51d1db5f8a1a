//! The membership knows whose certificate is which: those before the newest, and those of nodes that were removed, are
//! nobody's (D5.3.6).

use crate::authority::{Authority, Years};
use crate::common::*;
use coracle::raft::{Boot, Incarnation, LogId, Mark, NodeId, Peer};
use coracle::transport::tcp::{Local, ProbeError, Tcp, TcpConfig};
use coracle::wire::RefusedReason;
use coracle::*;
use std::collections::BTreeMap;
use tokio::sync::mpsc;

/// Certificates of a cluster's nodes. Those of a later year are newer.
fn certificate(authority: &Authority, id: u64, from: i32) -> (TlsFiles, Tls) {
    let years: Years = (from, 2120);
    let name = format!("coracle://east/node/{id}");
    let files = authority.files(&format!("node-{id}-of-{from}"), &[&name], years);
    (files.clone(), Tls::load(files, TlsMode::Require).unwrap())
}

/// Three nodes with certificates, which are a cluster.
async fn three(authority: &Authority) -> (Cluster, BTreeMap<u64, Tls>) {
    let mut cluster = Cluster::blank(3, true, |_| {}).await;
    let mut tls = BTreeMap::new();
    for id in 1..=3 {
        cluster.stop(id).await;
        let mut config = cluster.config(id, &cluster.addresses[id as usize - 1].clone());
        let (_, own) = certificate(authority, id, 2020);
        config.tls = Some(own.clone());
        tls.insert(id, own);
        cluster.nodes[id as usize - 1] = Some(Node::start(config, Journal::default()).await.unwrap());
    }
    cluster.node(1).set_configuration(cluster.list()).await.unwrap();
    (cluster, tls)
}

/// The marks that a node knows to be committed, once they are what is wanted.
async fn marks(
    cluster: &Cluster,
    asked: u64,
    wanted: impl Fn(&BTreeMap<NodeId, Mark>) -> bool,
) -> BTreeMap<NodeId, Mark> {
    eventually("the certificates are known", async || {
        let raft = cluster.node(asked).status().await.ok()?.raft;
        let committed = raft.membership_id.index <= raft.commit;
        (committed && wanted(&raft.membership.marks)).then_some(raft.membership.marks)
    })
    .await
}

/// Whether whoever has this certificate of node `id` is let in at node 1, or why not.
async fn knocks(cluster: &Cluster, id: u64, tls: Tls) -> Result<(), String> {
    let me = Peer { id: NodeId(id), incarnation: Incarnation(77) };
    let (inbox, _inbound) = mpsc::channel(64);
    let local = Local::new(me, Boot(9), None, LogId::ZERO);
    let config = TcpConfig { tls: Some(tls), ..TcpConfig::default() };
    let tcp = Tcp::bind("127.0.0.1:0", config, local, inbox).await.unwrap();
    match tcp.probe(&cluster.addresses[0], NodeId(1)).await {
        Ok(_) => Ok(()),
        Err(ProbeError::Refused { reason: RefusedReason::Certificate, text, .. }) => Err(text),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn the_certificate_before_a_renewal_is_nobodys() {
    let authority = Authority::new();
    let (cluster, tls) = three(&authority).await;
    let before = marks(&cluster, 1, |marks| marks.len() == 3).await;
    // Somebody has copied it.
    let (old, renewed) = (Tls::load(tls[&3].files().clone(), TlsMode::Require).unwrap(), &tls[&3]);
    assert_eq!(knocks(&cluster, 3, old.clone()).await, Ok(()));
    let (new, _) = certificate(&authority, 3, 2021);
    std::fs::copy(new.certificate, &renewed.files().certificate).unwrap();
    std::fs::copy(new.key, &renewed.files().key).unwrap();
    renewed.reload().unwrap();
    let after = marks(&cluster, 1, |marks| marks[&NodeId(3)].issued > before[&NodeId(3)].issued).await;
    assert_ne!(after[&NodeId(3)].key, before[&NodeId(3)].key);
    assert_eq!((after[&NodeId(1)], after[&NodeId(2)]), (before[&NodeId(1)], before[&NodeId(2)]));
    let refused = knocks(&cluster, 3, old).await.unwrap_err();
    assert!(refused.contains("was replaced by a newer one"), "{refused}");
    cluster.write("goes on").await;
    assert_eq!(cluster.converged().await, ["goes on"]);
}

#[tokio::test]
async fn the_certificate_of_a_node_that_was_removed_is_nobodys() {
    let authority = Authority::new();
    let (mut cluster, tls) = three(&authority).await;
    marks(&cluster, 1, |marks| marks.len() == 3).await;
    eventually("node 3 is removed", async || {
        for node in cluster.running() {
            if node.change_members(MemberChange::Remove(NodeId(3)), PATIENCE).await.is_ok() {
                return Some(());
            }
        }
        None
    })
    .await;
    marks(&cluster, 1, |marks| marks.len() == 3).await;
    eventually("node 1 knows it", async || {
        let members = cluster.node(1).status().await.ok()?.raft.membership.members;
        (members.len() == 2).then_some(())
    })
    .await;
    let refused = knocks(&cluster, 3, tls[&3].clone()).await.unwrap_err();
    assert!(refused.contains("a node that was removed"), "{refused}");
    // A new node under its name has a new one.
    assert_eq!(knocks(&cluster, 3, certificate(&authority, 3, 2021).1).await, Ok(()));
    cluster.stop(3).await;
    cluster.write("goes on").await;
    assert_eq!(cluster.converged().await, ["goes on"]);
}

/// Somebody has a newer certificate for node 3, and is not node 3: it is not let in, and node 3 goes on. And a node does not take
/// up a certificate that the others would refuse.
#[tokio::test]
async fn a_double_that_is_not_let_in_takes_nobodys_place() {
    let authority = Authority::new();
    let (cluster, tls) = three(&authority).await;
    let before = marks(&cluster, 1, |marks| marks.len() == 3).await;
    let (double, _) = certificate(&authority, 3, 2021);
    for _ in 0..3 {
        assert_eq!(knocks(&cluster, 3, Tls::load(double.clone(), TlsMode::Require).unwrap()).await, Ok(()));
    }
    assert_eq!(knocks(&cluster, 3, tls[&3].clone()).await, Ok(()));
    let (old, _) = certificate(&authority, 2, 2019);
    let renewed = &tls[&2];
    std::fs::copy(old.certificate, &renewed.files().certificate).unwrap();
    std::fs::copy(old.key, &renewed.files().key).unwrap();
    assert!(renewed.reload().unwrap_err().to_string().contains("was replaced by a newer one"));
    cluster.write("goes on").await;
    assert_eq!(cluster.converged().await, ["goes on"]);
    assert_eq!(marks(&cluster, 1, |_| true).await, before);
}

/// Where nobody has a token, the certificate for its name lets a node in.
#[tokio::test]
async fn whoever_has_the_certificate_for_its_name_is_let_in_without_a_token() {
    let authority = Authority::new();
    let (mut cluster, _tls) = three(&authority).await;
    let mut config = cluster.config(4, "127.0.0.1:0");
    (config.tls, config.join) =
        (Some(certificate(&authority, 4, 2020).1), vec![cluster.addresses[0].clone()]);
    let node = Node::start(config, Journal::default()).await.unwrap();
    cluster.addresses.push(node.peer_addr().to_string());
    cluster.nodes.push(Some(node));
    eventually("it votes", async || {
        let raft = cluster.node(1).status().await.ok()?.raft;
        raft.membership.voters.contains(&NodeId(4)).then_some(())
    })
    .await;
    cluster.write("goes on").await;
    assert_eq!(cluster.converged().await, ["goes on"]);
}
