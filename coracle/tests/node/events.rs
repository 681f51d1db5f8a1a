//! What a machine publishes, over real sockets and files: the same everywhere, without a gap, over restarts and snapshots.

use crate::common::*;
use coracle::snapshot::{self, Save};
use coracle::*;
use serde::{Deserialize, Serialize};
use std::io;
use std::time::Duration;
use tokio::time::timeout;

async fn write(cluster: &Cluster, lines: std::ops::Range<u64>) {
    for number in lines {
        cluster.write(&format!("line {number}")).await;
    }
}

fn lines(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|number| format!("line {number}")).collect()
}

/// The next so many commands.
async fn commands(events: &mut Events, count: usize) -> Result<Vec<String>, WatchError> {
    let mut commands = Vec::new();
    while commands.len() < count {
        let event = timeout(PATIENCE, events.next()).await.expect("an event in time")?;
        commands.push(event.command::<Journal>().unwrap());
    }
    Ok(commands)
}

/// Nothing more is published now.
async fn nothing(events: &mut Events) {
    assert!(timeout(Duration::from_millis(50), events.next()).await.is_err());
}

#[tokio::test]
async fn everybody_sees_the_same_commands_in_the_same_places() {
    let cluster = Cluster::founded(3, false, steady).await;
    let mut late = cluster.node(2).events(Position::of_entry(1));
    write(&cluster, 0..200).await;
    let mut places = Vec::new();
    for id in 1..=3 {
        let mut events = cluster.node(id).events(Position::of_entry(1));
        assert_eq!(commands(&mut events, 200).await, Ok(lines(0..200)));
        nothing(&mut events).await;
        places.push(events.position());
    }
    assert_eq!(commands(&mut late, 200).await, Ok(lines(0..200)), "one that began before");
    write(&cluster, 200..203).await;
    assert_eq!(commands(&mut late, 3).await, Ok(lines(200..203)), "and one that has waited");
    places.dedup();
    assert_eq!(places.len(), 1, "{places:?}");
}

/// A command of a session that comes again is published once.
#[tokio::test]
async fn what_takes_effect_once_is_published_once() {
    let mut cluster = Cluster::founded(3, true, |_| {}).await;
    let leader = cluster.leader().await;
    let follower = leader % 3 + 1;
    let session = cluster.node(follower).session();
    let writes: Vec<_> =
        (0..200).map(|number| session.write_within(format!("line {number}"), PATIENCE)).collect();
    let writes = tokio::spawn(async move {
        for write in writes {
            write.await.unwrap();
        }
    });
    cluster.stop(leader).await;
    writes.await.unwrap();
    let mut events = cluster.node(follower).events(Position::of_entry(1));
    assert_eq!(commands(&mut events, 200).await, Ok(lines(0..200)));
    nothing(&mut events).await;
}

/// Whoever watches goes on where it was: at another node, and at one that was started anew.
#[tokio::test]
async fn a_watch_goes_on_at_another_node_and_after_a_restart() {
    let mut cluster = Cluster::founded(3, true, |_| {}).await;
    let leader = cluster.leader().await;
    let mut events = cluster.node(leader).events(Position::of_entry(1));
    write(&cluster, 0..50).await;
    assert_eq!(commands(&mut events, 20).await, Ok(lines(0..20)));
    cluster.stop(leader).await;
    // What it had taken out of the history it still tells.
    while let Ok(event) = events.next().await {
        assert!(event.command::<Journal>().is_ok());
    }
    assert!(matches!(events.next().await, Err(WatchError::Stopped(_))));
    let place = events.position();
    let mut events = cluster.node(leader % 3 + 1).events(place);
    write(&cluster, 50..60).await;
    let all = Cluster::converged(&cluster).await;
    let seen = {
        let mut before = cluster.node(leader % 3 + 1).events(Position::of_entry(1));
        let mut seen = 0;
        while before.position() < place {
            drop(before.next().await.unwrap());
            seen += 1;
        }
        seen
    };
    assert_eq!(commands(&mut events, 60 - seen).await, Ok(all[seen..].to_vec()));
    cluster.restart(leader).await;
    let mut events = cluster.node(leader).events(place);
    assert_eq!(commands(&mut events, 60 - seen).await, Ok(all[seen..].to_vec()), "it publishes again");
}

/// What a node does not remember it says: it was not there, it started from a snapshot, or there was no room.
#[tokio::test]
async fn what_is_not_remembered_is_told_and_never_left_out() {
    let mut cluster = Cluster::founded(3, true, |config| config.snapshot_entries = 20).await;
    write(&cluster, 0..5).await;
    cluster.converged().await;
    cluster.stop(3).await;
    write(&cluster, 5..120).await;
    for id in 1..=2 {
        eventually("the log is purged", async || {
            let status = cluster.node(id).status().await.unwrap();
            (status.raft.purged.index.0 > 20).then_some(())
        })
        .await;
    }
    cluster.restart(3).await;
    assert_eq!(cluster.converged().await, lines(0..120));
    let mut events = cluster.node(3).events(Position::of_entry(1));
    let Err(WatchError::Compacted(upto)) = events.next().await else { panic!("it was not there") };
    let mut events = cluster.node(3).events(Position::of_entry(upto.0 + 1));
    let mut whole = cluster.node(1).events(Position::of_entry(upto.0 + 1));
    loop {
        let (there, here) = (whole.next().await.unwrap(), events.next().await.unwrap());
        assert_eq!(there, here);
        if there.command::<Journal>().unwrap() == "line 119" {
            break;
        }
    }
    let mut all = cluster.node(1).events(Position::of_entry(1));
    assert_eq!(commands(&mut all, 120).await, Ok(lines(0..120)), "who was there all the time remembers all");
}

/// A node that remembers little, and somebody who is slow.
#[tokio::test]
async fn one_who_is_too_slow_is_told() {
    let little = |config: &mut Config| {
        steady(config);
        config.events_bytes = 4096;
    };
    let cluster = Cluster::founded(1, false, little).await;
    let mut slow = cluster.node(1).events(Position::of_entry(1));
    write(&cluster, 0..1).await;
    assert_eq!(commands(&mut slow, 1).await, Ok(lines(0..1)));
    write(&cluster, 1..300).await;
    let told = slow.next().await;
    let Err(WatchError::Compacted(upto)) = told else { panic!("{told:?}") };
    assert!(upto.0 > 100, "{upto}");
    let mut rest = cluster.node(1).events(Position::of_entry(upto.0 + 1));
    let first = rest.next().await.unwrap();
    let number: u64 = first.command::<Journal>().unwrap()[5..].parse().unwrap();
    assert_eq!(commands(&mut rest, 299 - number as usize).await, Ok(lines(number + 1..300)));
    let off = Cluster::founded(1, false, |config| config.events_bytes = 0).await;
    assert_eq!(off.node(1).events(Position::of_entry(1)).next().await, Err(WatchError::Off));
}

/// A list of names that says who came and who went, and nothing where nothing changed.
#[derive(Default)]
struct Guests(Vec<String>);

#[derive(PartialEq, Debug, Serialize, Deserialize)]
enum Change {
    Came(String),
    Left(String),
}

impl StateMachine for Guests {
    type Command = (Vec<String>, Vec<String>);
    type Reply = ();
    type Query = ();
    type Answer = u64;

    const PUBLISHES: Publishes = Publishes::Emitted;

    fn apply(&mut self, context: &mut Context, (come, go): Self::Command) {
        for name in go {
            if let Some(at) = self.0.iter().position(|other| *other == name) {
                self.0.remove(at);
                context.emit(&Change::Left(name)).unwrap();
            }
        }
        for name in come {
            if !self.0.contains(&name) {
                self.0.push(name.clone());
                context.emit(&Change::Came(name)).unwrap();
            }
        }
    }

    fn query(&self, context: &QueryContext, (): ()) -> u64 {
        context.applied.index.0
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save(self.0.clone())
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        snapshot::load(from).map(|names| self.0 = names)
    }
}

/// A machine may publish what it likes: any number of events of an entry, and none. A read says from where to watch on.
#[tokio::test]
async fn a_machine_publishes_events_of_its_own() {
    let node = Node::start(Config::new(1, "127.0.0.1:0", Storage::Memory), Guests::default()).await.unwrap();
    node.set_configuration([(1, node.peer_addr().to_string())]).await.unwrap();
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    node.write((names(&["Ann", "Bob"]), names(&[]))).await.unwrap();
    node.write((names(&["Ann"]), names(&[]))).await.unwrap();
    let read = node.read(()).await.unwrap();
    let mut later = node.events(Position::of_entry(read + 1));
    node.write((names(&["Cid"]), names(&["Ann", "Ann"]))).await.unwrap();
    let mut all = node.events(Position::of_entry(1));
    let [came, left] = [Change::Came, Change::Left].map(|of| move |name: &str| of(name.to_owned()));
    for (number, expected) in [(0, came("Ann")), (1, came("Bob")), (0, left("Ann")), (1, came("Cid"))] {
        let event = all.next().await.unwrap();
        assert_eq!((event.at.number, event.emitted().unwrap()), (number, expected));
    }
    // In the middle of an entry's events, too.
    let first = later.next().await.unwrap();
    assert_eq!(first.emitted::<Change>().unwrap(), left("Ann"));
    assert!(first.at.index.0 > read);
    let second = node.events(first.next()).next().await.unwrap();
    assert_eq!(second.emitted::<Change>().unwrap(), came("Cid"));
    // Several wait at once, and all are told of the end.
    let waiting: Vec<_> = (0..3).map(|_| node.events(second.next())).collect();
    let waiting: Vec<_> =
        waiting.into_iter().map(|mut events| tokio::spawn(async move { events.next().await })).collect();
    node.stop().await;
    for told in waiting {
        assert!(matches!(told.await.unwrap(), Err(WatchError::Stopped(_))));
    }
}
