//! Timers, over real sockets and disks: a lease that expires, whatever becomes of the leader.

use crate::common::*;
use coracle::snapshot::{self, Save};
use coracle::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;

/// Leases that end by themselves, and the story of what became of them.
#[derive(Default, Clone, Serialize, Deserialize)]
struct Leases {
    holders: BTreeMap<u64, String>,
    story: Vec<(String, u64)>,
}

#[derive(Serialize, Deserialize)]
enum Ask {
    /// Take or renew a lease, for so many milliseconds. A reply of true: it is this one's.
    Take(u64, String, u64),
    /// Give it back.
    Give(u64),
}

impl StateMachine for Leases {
    type Command = Ask;
    type Reply = bool;
    type Query = ();
    type Answer = (Leases, u64);

    fn apply(&mut self, context: &mut Context, ask: Ask) -> bool {
        let now = context.cluster_time;
        match ask {
            Ask::Take(lease, who, _) if self.holders.get(&lease).is_some_and(|holder| *holder != who) => {
                false
            }
            Ask::Take(lease, who, millis) => {
                self.story.push((format!("{who} has {lease}"), now));
                self.holders.insert(lease, who);
                context.set_timer(lease, now + millis).is_ok()
            }
            Ask::Give(lease) => self.holders.remove(&lease).is_some() && context.cancel_timer(lease),
        }
    }

    fn on_timer(&mut self, context: &mut Context, lease: u64) {
        self.holders.remove(&lease);
        self.story.push((format!("{lease} is over"), context.cluster_time));
    }

    fn query(&self, context: &QueryContext, (): ()) -> (Leases, u64) {
        (self.clone(), context.cluster_time)
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save(self.clone())
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        snapshot::load(from).map(|leases| *self = leases)
    }
}

const HOUR: u64 = 60 * 60 * 1000;

fn take(lease: u64, who: &str, millis: u64) -> Ask {
    Ask::Take(lease, who.to_owned(), millis)
}

/// Asks whoever leads, until it has been done. Whoever takes a lease twice has it.
async fn ask(cluster: &ClusterOf<Leases>, ask: impl Fn() -> Ask) -> bool {
    eventually("it is done", async || cluster.node(cluster.leader().await).write(ask()).await.ok()).await
}

/// What a node knows, whether it leads or not.
async fn known(cluster: &ClusterOf<Leases>, id: u64) -> Leases {
    cluster.node(id).read(()).await.unwrap().0
}

/// Waits until some node's machine has seen this, and says at which time of the cluster.
async fn told(cluster: &ClusterOf<Leases>, what: &str) -> u64 {
    eventually(what, async || {
        let leader = cluster.leader().await;
        let (leases, _) = cluster.node(leader).read(()).await.ok()?;
        leases.story.iter().rfind(|(told, _)| told == what).map(|(_, at)| *at)
    })
    .await
}

#[tokio::test]
async fn a_lease_ends_by_itself_unless_it_is_given_back() {
    let cluster = ClusterOf::<Leases>::founded(3, false, steady).await;
    for lease in 1..=3 {
        assert!(ask(&cluster, || take(lease, "ann", HOUR)).await);
        assert!(!ask(&cluster, || take(lease, "bob", HOUR)).await, "it is taken");
    }
    assert!(ask(&cluster, || Ask::Give(2)).await);
    assert!(!ask(&cluster, || Ask::Give(2)).await);
    // For less time than it had: it is another timer now.
    assert!(ask(&cluster, || take(1, "ann", 300)).await);
    let (began, ended) = (told(&cluster, "ann has 1").await, told(&cluster, "1 is over").await);
    assert!(ended >= began + 300 && ended < began + HOUR, "it lasted from {began} to {ended}");
    assert!(ask(&cluster, || take(1, "bob", HOUR)).await);
    cluster.same().await;
    for id in 1..=3 {
        let leases = known(&cluster, id).await;
        assert_eq!(leases.holders, BTreeMap::from([(1, "bob".to_owned()), (3, "ann".to_owned())]));
        assert_eq!(leases.story.iter().filter(|(told, _)| told.ends_with("over")).count(), 1);
    }
}

/// The leader that took it goes; the others end it in time. Then all go, and it ends when they are back: the table of
/// timers is in the log, and in snapshots.
#[tokio::test]
async fn a_lease_ends_though_the_leader_is_gone_and_after_a_restart_of_all() {
    let mut cluster = ClusterOf::<Leases>::founded(3, true, |_| {}).await;
    let leader = cluster.leader().await;
    assert!(ask(&cluster, || take(1, "ann", 800)).await);
    assert!(ask(&cluster, || take(2, "ann", 3_000)).await);
    cluster.stop(leader).await;
    let (began, ended) = (told(&cluster, "ann has 1").await, told(&cluster, "1 is over").await);
    assert!(ended >= began + 800, "it lasted from {began} to {ended}");
    cluster.restart(leader).await;
    cluster.same().await;
    // One begins with a snapshot, the others with their logs.
    cluster.node(leader).snapshot().await.unwrap();
    for id in 1..=3 {
        cluster.stop(id).await;
    }
    for id in 1..=3 {
        cluster.restart(id).await;
    }
    let (began, ended) = (told(&cluster, "ann has 2").await, told(&cluster, "2 is over").await);
    assert!(ended >= began + 3_000, "it lasted from {began} to {ended}");
    cluster.same().await;
    let story = known(&cluster, leader).await.story;
    let ends: Vec<_> =
        story.iter().filter(|(told, _)| told.ends_with("over")).map(|(told, _)| told).collect();
    assert_eq!(ends, ["1 is over", "2 is over"], "each once, on every node");
}

/// Thousands that are due at once fire in their order, however many entries that takes.
#[tokio::test]
async fn a_burst_fires_in_order() {
    let cluster = ClusterOf::<Leases>::founded(3, false, steady).await;
    let leader = cluster.node(cluster.leader().await);
    let writes = (0..3000).map(|lease| leader.write(take(lease, "ann", 400)));
    let mut done = tokio::task::JoinSet::new();
    for write in writes.collect::<Vec<_>>() {
        done.spawn(write);
    }
    assert!(done.join_all().await.into_iter().all(|taken| taken.unwrap()));
    let story = eventually("all are over", async || {
        let (leases, _) = leader.read(()).await.ok()?;
        leases.holders.is_empty().then_some(leases.story)
    })
    .await;
    let (mut taken, mut over) = (Vec::new(), Vec::new());
    for (told, at) in story {
        match told.strip_suffix(" is over") {
            Some(lease) => over.push(lease.to_owned()),
            None => taken.push((at, told.strip_prefix("ann has ").unwrap().to_owned())),
        }
    }
    taken.sort_by_key(|(at, _)| *at);
    assert_eq!(over, taken.into_iter().map(|(_, lease)| lease).collect::<Vec<_>>());
    cluster.same().await;
}
