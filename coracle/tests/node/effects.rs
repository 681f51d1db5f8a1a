//! Effects, over real sockets and disks: mails that go out, whatever becomes of the leader.

use crate::common::*;
use coracle::snapshot::{self, Save};
use coracle::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Orders, and under which token the mail of each went out.
#[derive(Default, Clone, Serialize, Deserialize)]
struct Orders {
    open: BTreeSet<u64>,
    mailed: BTreeMap<u64, Token>,
    /// How often it was said that something was done that was done already.
    again: u64,
}

#[derive(Serialize, Deserialize)]
enum Ask {
    Order(u64),
    Mailed(Token, u64),
}

impl StateMachine for Orders {
    type Command = Ask;
    type Reply = ();
    type Query = ();
    type Answer = Orders;

    fn apply(&mut self, context: &mut Context, ask: Ask) {
        match ask {
            // Whoever writes it twice, not knowing better, wants one mail.
            Ask::Order(order) if self.open.contains(&order) || self.mailed.contains_key(&order) => {}
            Ask::Order(order) => {
                context.effect(&order).unwrap();
                self.open.insert(order);
            }
            Ask::Mailed(token, order) if context.settle(token) => {
                assert!(self.open.remove(&order));
                assert_eq!(self.mailed.insert(order, token), None);
            }
            Ask::Mailed(..) => self.again += 1,
        }
    }

    fn query(&self, _: &QueryContext, (): ()) -> Orders {
        self.clone()
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save(self.clone())
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        snapshot::load(from).map(|orders| *self = orders)
    }
}

/// The orders whose mails these are, which are there.
async fn some(effects: &mut Effects, count: usize) -> Vec<(Token, u64)> {
    let mut found = Vec::new();
    while found.len() < count {
        let effect = effects.next().await.unwrap();
        found.push((effect.token, effect.given().unwrap()));
    }
    found
}

/// Whether there is none now.
async fn none(effects: &mut Effects) -> bool {
    timeout(Duration::ZERO, effects.next()).await.is_err()
}

/// Only the leader is given them, in order, each once; the next one is given again what is pending, and nothing else.
#[tokio::test]
async fn the_leader_alone_is_given_effects_and_the_next_one_those_that_are_pending() {
    let mut cluster = ClusterOf::<Orders>::founded(3, false, steady).await;
    let first = cluster.leader().await;
    let second = first % 3 + 1;
    let mut effects: Vec<_> = (1..=3).map(|id| cluster.node(id).effects()).collect();
    let of = |id: u64| id as usize - 1;
    for order in 0..20 {
        cluster.node(first).write(Ask::Order(order)).await.unwrap();
    }
    let given = some(&mut effects[of(first)], 20).await;
    assert_eq!(given.iter().map(|(_, order)| *order).collect::<Vec<_>>(), Vec::from_iter(0..20));
    assert!(given.is_sorted() && given[0].0 < given[1].0, "{given:?}");
    cluster.same().await;
    for (id, effects) in (1..).zip(&mut effects) {
        assert!(none(effects).await, "node {id} is given something that it has, or that is not for it");
    }
    for (token, order) in given.iter().filter(|(_, order)| order % 3 == 0) {
        cluster.node(first).write(Ask::Mailed(*token, *order)).await.unwrap();
    }
    let left: Vec<_> = given.into_iter().filter(|(_, order)| order % 3 != 0).collect();
    assert_eq!(some(&mut cluster.node(first).effects(), left.len()).await, left, "who begins anew");
    let mut office = cluster.node(first).office();
    eventually("leadership is handed over", async || {
        cluster.node(first).transfer_leadership(Some(NodeId(second))).await.ok()
    })
    .await;
    assert_eq!(some(&mut effects[of(second)], left.len()).await, left);
    office.wait_for(Option::is_none).await.unwrap();
    for (token, order) in &left {
        // Any node may say so, and more than one.
        for id in [second, first] {
            eventually("it is written", async || {
                let leader = if id == second { id } else { cluster.leader().await };
                cluster.node(leader).write(Ask::Mailed(*token, *order)).await.ok()
            })
            .await;
        }
    }
    cluster.same().await;
    for id in [first, second] {
        assert!(none(&mut effects[of(id)]).await && none(&mut cluster.node(id).effects()).await);
    }
    let orders = cluster.node(second).read(()).await.unwrap();
    assert_eq!((orders.mailed.len(), orders.open.len(), orders.again), (20, 0, left.len() as u64));
    cluster.stop(second).await;
    assert_eq!(effects[of(second)].next().await, Err(StopReason::Requested));
}

/// What went out: by whom, and under which token.
type Sent = Arc<Mutex<Vec<(u64, u64, Token)>>>;

/// Sends mails where this node leads; of some it never says so, if it is forgetful.
fn mailer(cluster: &ClusterOf<Orders>, id: u64, forgetful: bool, sent: &Sent) -> JoinHandle<()> {
    let (node, sent) = (cluster.node(id).clone(), sent.clone());
    let mut effects = node.effects();
    tokio::spawn(async move {
        while let Ok(effect) = effects.next().await {
            let order: u64 = effect.given().unwrap();
            sent.lock().unwrap().push((id, order, effect.token));
            if !forgetful || order.is_multiple_of(2) {
                // Where this fails, the next leader does it again.
                drop(node.write(Ask::Mailed(effect.token, order)).await);
            }
        }
    })
}

async fn order(cluster: &ClusterOf<Orders>, orders: std::ops::Range<u64>) {
    for order in orders {
        eventually("it is ordered", async || {
            cluster.node(cluster.leader().await).write(Ask::Order(order)).await.ok()
        })
        .await;
    }
}

/// The leader goes with mails sent of which nobody knows, and then all go, with the log behind a snapshot: every mail goes out,
/// under one token, and is settled once.
#[tokio::test]
async fn every_effect_is_carried_out_though_leaders_go_and_all_are_restarted() {
    let mut cluster = ClusterOf::<Orders>::founded(3, true, |_| {}).await;
    let sent = Sent::default();
    let mailers: Vec<_> = (1..=3).map(|id| mailer(&cluster, id, true, &sent)).collect();
    order(&cluster, 0..30).await;
    let leader = cluster.leader().await;
    eventually("all mails were sent", async || {
        let sent = sent.lock().unwrap().iter().map(|(_, order, _)| *order).collect::<BTreeSet<_>>();
        (sent.len() == 30).then_some(())
    })
    .await;
    cluster.stop(leader).await;
    order(&cluster, 30..40).await;
    let next = cluster.leader().await;
    eventually("the next leader sends again what was never settled", async || {
        let sent = sent.lock().unwrap();
        (0..40)
            .filter(|order| order % 2 == 1)
            .all(|order| sent.iter().any(|it| it.1 == order))
            .then_some(())?;
        (1..30).step_by(2).all(|order| sent.iter().any(|it| it.1 == order && it.0 != leader)).then_some(())
    })
    .await;
    cluster.node(next).snapshot().await.unwrap();
    let running: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    for id in running {
        cluster.stop(id).await;
    }
    for mailer in mailers {
        mailer.await.unwrap();
    }
    for id in 1..=3 {
        cluster.restart(id).await;
    }
    let mailers: Vec<_> = (1..=3).map(|id| mailer(&cluster, id, false, &sent)).collect();
    let orders = eventually("all mails are settled", async || {
        let orders = cluster.node(cluster.leader().await).read(()).await.ok()?;
        (orders.mailed.len() == 40).then_some(orders)
    })
    .await;
    cluster.same().await;
    for id in 1..=3 {
        cluster.stop(id).await;
    }
    for mailer in mailers {
        mailer.await.unwrap();
    }
    assert!(orders.open.is_empty());
    for (_, order, token) in &*sent.lock().unwrap() {
        assert_eq!(orders.mailed[order], *token, "the mail of {order}");
    }
}
