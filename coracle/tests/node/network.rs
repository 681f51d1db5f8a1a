//! Clusters in a network in memory: no ports, and links that a test cuts.

use crate::authority::Authority;
use crate::common::{Journal, PATIENCE, eventually, steady};
use coracle::client::{Client, ClientConfig};
use coracle::{Config, MemoryNetwork, Node, RoleName, StartError, Storage, TlsMode, WriteError};
use std::net::SocketAddr;
use std::time::Duration;

/// Where node `id` is.
fn address(id: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, id as u8], 7000))
}

fn config(network: &MemoryNetwork, id: u64) -> Config {
    let mut config = Config::new(id, address(id).to_string(), Storage::Memory);
    config.network = Some(network.clone());
    config
}

/// Nodes 1 to 3, of which one leads.
async fn three(network: &MemoryNetwork, configure: fn(&mut Config)) -> Vec<Node<Journal>> {
    let mut nodes = Vec::new();
    for id in 1..=3 {
        let mut config = config(network, id);
        configure(&mut config);
        nodes.push(Node::start(config, Journal::default()).await.unwrap());
    }
    nodes[0].set_configuration((1..=3).map(|id| (id, address(id).to_string()))).await.unwrap();
    nodes
}

/// Which of these leads, as it says itself.
async fn leader(nodes: &[Node<Journal>]) -> usize {
    eventually("a node leads", async || {
        for (at, node) in nodes.iter().enumerate() {
            if node.status().await.ok()?.raft.role == RoleName::Leader {
                return Some(at);
            }
        }
        None
    })
    .await
}

/// Writes by whichever of these leads.
async fn write(nodes: &[Node<Journal>], line: &str) {
    eventually("a write is done", async || nodes[leader(nodes).await].write(line.to_owned()).await.ok())
        .await;
}

async fn reads(node: &Node<Journal>, line: &str) -> bool {
    node.read(()).await.is_ok_and(|journal| journal.iter().any(|other| other == line))
}

#[tokio::test]
async fn a_follower_that_is_cut_off_its_leader_lags_until_the_link_is_healed() {
    let network = MemoryNetwork::new();
    // Nobody else is elected, however busy the computer is, so what the follower lacks nobody else brings.
    let nodes = three(&network, steady).await;
    let leads = leader(&nodes).await;
    let (leader, cut) = (&nodes[leads], &nodes[(leads + 1) % 3]);
    leader.write_within("before".to_owned(), PATIENCE).await.unwrap();
    eventually("the follower has it", async || reads(cut, "before").await.then_some(())).await;
    network.cut(leader.peer_addr(), cut.peer_addr());
    let had = cut.status().await.unwrap().raft.last;
    leader.write_within("meanwhile".to_owned(), PATIENCE).await.unwrap();
    assert_eq!(cut.status().await.unwrap().raft.last, had, "nothing reaches it");
    network.heal(leader.peer_addr(), cut.peer_addr());
    eventually("the follower has caught up", async || reads(cut, "meanwhile").await.then_some(())).await;
}

#[tokio::test]
async fn a_leader_that_is_isolated_is_replaced_and_comes_back() {
    let network = MemoryNetwork::new();
    let nodes = three(&network, |_| {}).await;
    let old = leader(&nodes).await;
    network.isolate(nodes[old].peer_addr());
    let lost = nodes[old].write_within("lost?".to_owned(), Duration::from_millis(100)).await;
    assert!(lost.is_err(), "nobody else heard it: {lost:?}");
    let others: Vec<_> = [1, 2].map(|after| nodes[(old + after) % 3].clone()).into();
    eventually("the others elect a leader", async || {
        others[0].write("new".into()).await.or(others[1].write("new".into()).await).ok()
    })
    .await;
    network.heal_all();
    eventually("the old leader follows", async || reads(&nodes[old], "new").await.then_some(())).await;
}

#[tokio::test]
async fn a_stopped_node_frees_its_address_and_the_others_go_on() {
    let network = MemoryNetwork::new();
    let mut nodes = three(&network, |_| {}).await;
    let taken = Node::start(config(&network, 1), Journal::default()).await;
    assert!(matches!(taken, Err(StartError::Listen { .. })));
    let leads = leader(&nodes).await;
    nodes.remove(leads).stop().await;
    write(&nodes, "without it").await;
    Node::start(config(&network, leads as u64 + 1), Journal::default()).await.unwrap();
}

#[tokio::test]
async fn a_client_reaches_its_cluster_there() {
    let network = MemoryNetwork::new();
    let nodes = three(&network, |_| {}).await;
    let mut config = ClientConfig::new([address(1).to_string()]);
    config.network = Some(network.clone());
    config.request_timeout = PATIENCE;
    let client = Client::<Journal>::start(config).unwrap();
    assert_eq!(client.write("by a client".to_owned()).await.unwrap(), 1);
    assert!(reads(&nodes[2], "by a client").await);
    let refused = nodes[1].write("x".to_owned()).await;
    assert!(matches!(refused, Ok(2) | Err(WriteError::NotLeader { .. })), "{refused:?}");
}

/// Nobody shows a certificate there, so whoever wants them is told, and not left with connections that never come about.
#[tokio::test]
async fn certificates_have_no_place_there() {
    let mut config = config(&MemoryNetwork::new(), 1);
    config.tls = Some(Authority::new().node(1, TlsMode::Require));
    let refused = Node::start(config, Journal::default()).await;
    assert!(matches!(refused, Err(StartError::Config { setting: "network", .. })));
}
