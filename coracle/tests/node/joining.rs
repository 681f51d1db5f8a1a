//! Nodes that find their cluster by themselves: the same settings at every start, no call by anybody.

use crate::common::*;
use coracle::raft::{Boot, ClusterId, Incarnation, LogId, Member, Membership, NodeId, Peer};
use coracle::transport::tcp::{Local, Tcp, TcpConfig};
use coracle::wire::{Answer, Ask, Objection, Step};
use coracle::*;
use std::collections::BTreeSet;
use tokio::sync::mpsc;

const TOKEN: &str = "what they have in common";

/// Blank nodes that were started once, so that they have addresses, and are stopped.
async fn stopped(size: u64) -> Cluster {
    let mut cluster = Cluster::blank(size, true, |_| {}).await;
    for id in 1..=size {
        cluster.stop(id).await;
    }
    cluster
}

/// The settings of one that looks for these.
fn settings(cluster: &Cluster, id: u64, join: &[u64], found: bool) -> Config {
    let address = |id: u64| cluster.addresses[id as usize - 1].clone();
    let mut config = cluster.config(id, &address(id));
    config.join = join.iter().map(|id| address(*id)).collect();
    config.found = found;
    config.join_token = Some(JoinToken::new(TOKEN));
    config
}

async fn start(cluster: &mut Cluster, config: Config) {
    let at = config.id.0 as usize - 1;
    cluster.nodes[at] = Some(Node::start(config, Journal::default()).await.unwrap());
}

/// The voters and all members, once a node holds that much of a committed membership.
async fn members(cluster: &Cluster, id: u64) -> Option<(BTreeSet<u64>, BTreeSet<u64>)> {
    let raft = cluster.node(id).status().await.ok()?.raft;
    let ids = |of: &mut dyn Iterator<Item = NodeId>| of.map(|id| id.0).collect();
    let voters = ids(&mut raft.membership.voters.iter().copied());
    let all = ids(&mut raft.membership.members.keys().copied());
    (raft.membership_id.index <= raft.commit).then_some((voters, all))
}

async fn votes(cluster: &Cluster, asked: u64, voters: &[u64]) {
    let voters: BTreeSet<u64> = voters.iter().copied().collect();
    eventually("all of them vote", async || {
        (members(cluster, asked).await? == (voters.clone(), voters.clone())).then_some(())
    })
    .await;
}

/// Three that are to be all there are, started in any order, and a fourth.
async fn four() -> Cluster {
    let mut cluster = stopped(4).await;
    for id in [3, 1, 2] {
        let config = settings(&cluster, id, &[1, 2, 3], true);
        start(&mut cluster, config).await;
    }
    votes(&cluster, 2, &[1, 2, 3]).await;
    let config = settings(&cluster, 4, &[2, 3], false);
    start(&mut cluster, config).await;
    votes(&cluster, 1, &[1, 2, 3, 4]).await;
    cluster
}

/// Whoever starts when: nobody calls anything, and a restart changes nothing.
#[tokio::test]
async fn a_cluster_founds_itself_and_takes_in_a_fourth_by_the_same_settings_at_every_start() {
    let mut cluster = four().await;
    cluster.write("before").await;
    for id in 1..=4 {
        cluster.stop(id).await;
    }
    for id in [4, 2, 3, 1] {
        let config = settings(&cluster, id, if id == 4 { &[2, 3] } else { &[1, 2, 3] }, id != 4);
        start(&mut cluster, config).await;
    }
    votes(&cluster, 4, &[1, 2, 3, 4]).await;
    cluster.write("after").await;
    assert_eq!(cluster.converged().await, ["before", "after"]);
}

/// RS-1: a disk that was wiped comes back as a learner, and then votes; what it has forgotten counts for nothing.
#[tokio::test]
async fn rs_1_a_wiped_disk_is_led_back_in_by_the_same_settings() {
    let mut cluster = four().await;
    cluster.write("before").await;
    let disk = |cluster: &Cluster| {
        let config = cluster.dir(4);
        std::fs::read(config.join("identity")).unwrap()
    };
    let old = disk(&cluster);
    cluster.stop(4).await;
    std::fs::remove_dir_all(cluster.dir(4)).unwrap();
    let config = settings(&cluster, 4, &[2, 3], false);
    start(&mut cluster, config).await;
    eventually("it votes on its new disk", async || {
        let me = cluster.node(4).status().await.ok()?.raft.me;
        let raft = cluster.node(1).status().await.ok()?.raft;
        let there = raft.membership.members.get(&NodeId(4)).is_some_and(|member| member.peer() == me);
        (there && raft.membership.voters.contains(&NodeId(4))).then_some(())
    })
    .await;
    assert_ne!(old, disk(&cluster));
    cluster.write("after").await;
    assert_eq!(cluster.converged().await, ["before", "after"]);
}

/// One that was removed and runs on is the first that is asked, and says that it knows no leader; and it does not come back by
/// itself.
#[tokio::test]
async fn a_newcomer_asks_on_where_the_first_cannot_help_and_who_was_removed_stays_out() {
    let mut cluster = stopped(5).await;
    for id in [3, 1, 2] {
        let config = settings(&cluster, id, &[1, 2, 3], true);
        start(&mut cluster, config).await;
    }
    votes(&cluster, 2, &[1, 2, 3]).await;
    let config = settings(&cluster, 4, &[1], false);
    start(&mut cluster, config).await;
    votes(&cluster, 1, &[1, 2, 3, 4]).await;
    eventually("node 4 is removed", async || {
        for node in cluster.running() {
            if node.change_members(MemberChange::Remove(NodeId(4)), PATIENCE).await.is_ok() {
                return Some(());
            }
        }
        None
    })
    .await;
    eventually("it knows no leader", async || cluster.node(4).leader().is_none().then_some(())).await;
    // As if it had not voted yet when it was removed.
    cluster.stop(4).await;
    std::fs::write(cluster.dir(4).join("newcomer"), "").unwrap();
    let config = settings(&cluster, 4, &[1], false);
    start(&mut cluster, config).await;
    let config = settings(&cluster, 5, &[4, 2], false);
    start(&mut cluster, config).await;
    votes(&cluster, 1, &[1, 2, 3, 5]).await;
    assert_eq!(members(&cluster, 1).await.unwrap().1, [1, 2, 3, 5].into());
    cluster.stop(4).await;
    cluster.write("after").await;
    assert_eq!(cluster.converged().await, ["after"]);
}

/// What an operator demoted stays so, though the node that was demoted is started with the same settings again.
#[tokio::test]
async fn nobody_promotes_by_itself_what_an_operator_demoted() {
    let mut cluster = four().await;
    eventually("node 4 is demoted", async || {
        for node in cluster.running() {
            if node.change_members(MemberChange::Demote(NodeId(4)), PATIENCE).await.is_ok() {
                return Some(());
            }
        }
        None
    })
    .await;
    cluster.stop(4).await;
    let config = settings(&cluster, 4, &[2, 3], false);
    start(&mut cluster, config).await;
    eventually("node 4 knows its leader again", async || cluster.node(4).leader()).await;
    for line in ["one", "two", "three"] {
        cluster.write(line).await;
    }
    cluster.converged().await;
    let (voters, all) = members(&cluster, 4).await.unwrap();
    assert_eq!((voters, all), ([1, 2, 3].into(), [1, 2, 3, 4].into()));
}

/// Whoever does not show what the nodes of a cluster have in common is not let in, and neither is anybody where they have
/// nothing in common and nobody has a certificate.
#[tokio::test]
async fn nobody_is_let_in_without_the_token_of_the_cluster() {
    let me = Peer { id: NodeId(9), incarnation: Incarnation(77) };
    let (inbox, _inbound) = mpsc::channel(64);
    let local = Local::new(me, Boot(9), None, LogId::ZERO);
    let tcp = Tcp::bind("127.0.0.1:0", TcpConfig::default(), local, inbox).await.unwrap();
    let member = Member { address: tcp.local_addr().to_string(), id: me.id, incarnation: me.incarnation };
    let list = Membership::of_voters(ClusterId(1), [member]);
    let says = async |cluster: &Cluster, token: &'static str| {
        let (address, to) = (&cluster.addresses[0], cluster.node(1).status().await.unwrap().raft.me);
        let ask = Ask { token: token.into(), ..Ask::new(Step::Join, list.clone(), 0) };
        match tcp.ask(address, to, &ask).await.unwrap() {
            Answer::Refused(NodeId(1), Objection::Other(text)) => text,
            other => panic!("{other:?}"),
        }
    };
    let with_token: fn(&mut Config) = |config| config.join_token = Some(JoinToken::new(TOKEN));
    let cluster = Cluster::founded(1, false, with_token).await;
    for other in ["", "another", "what they have in commoN"] {
        assert!(says(&cluster, other).await.contains("another join token"), "{other}");
    }
    let without = Cluster::founded(1, false, |_| {}).await;
    for token in ["", TOKEN] {
        assert!(says(&without, token).await.contains("lets in nobody who asks"), "{token}");
    }
    let open = says(&Cluster::blank(1, false, with_token).await, TOKEN).await;
    assert!(open.contains("not configured"), "{open}");
    for cluster in [&cluster, &without] {
        assert_eq!(members(cluster, 1).await.unwrap().1, [1].into());
    }
}
