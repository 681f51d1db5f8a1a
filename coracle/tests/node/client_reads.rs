//! What clients read that need not be linearizable, and what they watch, over real sockets and through the deaths of nodes.

use crate::common::*;
use coracle::client::{Client, ClientConfig};
use coracle::*;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// A client of these nodes that waits so long.
fn client_of(addresses: &[String], patience: Duration) -> Client<Journal> {
    let mut config = ClientConfig::new(addresses);
    config.request_timeout = patience;
    Client::start(config).unwrap()
}

fn lines(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|number| format!("line {number}")).collect()
}

/// The next so many commands, each in a place after the one before.
async fn commands(events: &mut Events, count: usize) -> Result<Vec<String>, WatchError> {
    let (mut commands, mut place) = (Vec::new(), events.position());
    while commands.len() < count {
        let event = timeout(PATIENCE, events.next()).await.expect("an event in time")?;
        assert!(event.at >= place, "{event:?} came after {place:?}");
        place = event.next();
        commands.push(event.command::<Journal>().unwrap());
    }
    Ok(commands)
}

/// Whoever has read may go on from there at any node, and none of them is asked for more than it has.
#[tokio::test]
async fn a_client_reads_on_from_what_it_has_seen() {
    let mut cluster = Cluster::founded(3, true, steady).await;
    let client = client_of(&cluster.addresses, PATIENCE);
    let session = client.session();
    let mut seen = Index(0);
    for number in 0..50 {
        client.write(format!("line {number}")).await.unwrap();
        let newest = client.read_as((), Freshness::Linearizable).await.unwrap();
        assert_eq!(newest.answer, lines(0..number + 1));
        assert!(newest.applied.index > seen && newest.age.is_some());
        seen = newest.applied.index;
        // As many as there are nodes: each is asked.
        for _ in 0..3 {
            let again = session.read_as((), Freshness::AtLeast(seen)).await.unwrap();
            assert_eq!((again.answer, again.age), (lines(0..number + 1), None));
            assert!(again.applied.index >= seen);
        }
    }
    let future = Freshness::AtLeast(Index(seen.0 + 1_000));
    let impatient = client_of(&cluster.addresses, Duration::from_millis(300));
    eventually("a connection", async || impatient.read(()).await.ok()).await;
    let never = impatient.read_as((), future).await;
    assert!(matches!(never, Err(ReadError::Lagging | ReadError::Timeout)), "{never:?}");
    // A node alone answers what it has, and nothing that nobody can confirm.
    cluster.stop_all_but(1).await;
    let alone = client_of(&cluster.addresses[..1], PATIENCE);
    assert_eq!(alone.read_as((), Freshness::AtLeast(seen)).await.unwrap().answer, lines(0..50));
    let newest = impatient.read_as((), Freshness::Linearizable).await;
    assert!(newest.is_err(), "{newest:?}");
}

/// RD-2: an answer within a bound counts its way to the client, and says how old it is.
#[tokio::test]
async fn rd_2_what_a_client_is_told_of_the_age_of_an_answer_is_true() {
    let mut cluster = Cluster::founded(3, true, steady).await;
    let client = client_of(&cluster.addresses, PATIENCE);
    client.write("line 0".to_owned()).await.unwrap();
    let hour = Freshness::Within(Duration::from_secs(3600));
    let began = Instant::now();
    let first = eventually("the write", async || {
        client.read_as((), hour).await.ok().filter(|seen| seen.answer == lines(0..1))
    })
    .await;
    assert!(first.age.unwrap() <= began.elapsed() + Duration::from_millis(40), "{first:?}");
    let alone = client_of(&cluster.addresses[..1], PATIENCE);
    let shown = Instant::now();
    eventually("node 1 has it", async || {
        cluster.node(1).read_as((), hour).await.ok().filter(|seen| seen.answer == lines(0..1))
    })
    .await;
    cluster.stop_all_but(1).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    let old = alone.read_as((), hour).await.unwrap();
    assert_eq!(old.answer, lines(0..1));
    assert!(old.age.unwrap() >= Duration::from_millis(30), "{old:?}");
    assert!(old.age.unwrap() <= shown.elapsed() + began.elapsed() + Duration::from_millis(40), "{old:?}");
    let short = client_of(&cluster.addresses[..1], Duration::from_millis(300));
    let refused = short.read_as((), Freshness::Within(Duration::from_millis(1))).await;
    assert!(refused.is_err(), "{refused:?}");
}

/// One watch sees everything once and in order, whichever nodes die and come back, and nothing of it twice.
#[tokio::test]
async fn a_watch_from_outside_goes_on_through_the_deaths_of_nodes() {
    let mut cluster = Cluster::founded(3, true, |_| {}).await;
    let client = client_of(&cluster.addresses, PATIENCE);
    let mut watches: Vec<Events> = (0..3).map(|_| client.events(Position::of_entry(1))).collect();
    let session = client.session();
    for round in 0..3 {
        let victim = cluster.leader().await;
        for number in 0..100 {
            if number == 50 {
                cluster.stop(victim).await;
            }
            session.write(format!("line {}", round * 100 + number)).await.unwrap();
        }
        for events in &mut watches {
            let seen = commands(events, 100).await;
            assert_eq!(seen, Ok(lines(round * 100..round * 100 + 100)), "round {round}");
        }
        cluster.restart(victim).await;
    }
    // From the middle on, and from a place that is not there yet.
    let place = watches[0].position();
    let mut late = client_of(&cluster.addresses, PATIENCE).events(place);
    assert!(timeout(Duration::from_millis(50), late.next()).await.is_err(), "dropped while it waits");
    session.write("line 300".to_owned()).await.unwrap();
    assert_eq!(commands(&mut late, 1).await, Ok(lines(300..301)));
}

/// What one node does not remember another may; what none remembers is told.
#[tokio::test]
async fn a_watch_from_outside_is_told_only_what_no_node_remembers() {
    let mut cluster = Cluster::founded(3, true, |config| config.snapshot_entries = 20).await;
    let client = client_of(&cluster.addresses, PATIENCE);
    let session = client.session();
    for line in lines(0..5) {
        session.write(line).await.unwrap();
    }
    cluster.converged().await;
    cluster.stop(3).await;
    for line in lines(5..120) {
        session.write(line).await.unwrap();
    }
    for id in 1..=2 {
        eventually("the log is purged", async || {
            let status = cluster.node(id).status().await.unwrap();
            (status.raft.purged.index.0 > 20).then_some(())
        })
        .await;
    }
    cluster.restart(3).await;
    cluster.converged().await;
    // Three of them: each begins at another node.
    for _ in 0..3 {
        let mut events = client.events(Position::of_entry(1));
        assert_eq!(commands(&mut events, 120).await, Ok(lines(0..120)));
    }
    let alone = client_of(&cluster.addresses[2..], PATIENCE);
    cluster.stop(1).await;
    cluster.stop(2).await;
    let mut events = alone.events(Position::of_entry(1));
    let told = timeout(PATIENCE, events.next()).await.expect("an answer in time");
    let Err(WatchError::Compacted(upto)) = told else { panic!("{told:?}") };
    let mut rest = alone.events(Position::of_entry(upto.0 + 1));
    assert!(commands(&mut rest, 1).await.is_ok());
    cluster.stop(3).await;
    let gone =
        client_of(&cluster.addresses, Duration::from_millis(100)).events(Position::of_entry(1)).next().await;
    assert!(matches!(gone, Err(WatchError::Unreachable(_))), "{gone:?}");
    let off = Cluster::founded(1, false, |config| config.events_bytes = 0).await;
    let mut events = client_of(&off.addresses, PATIENCE).events(Position::of_entry(1));
    assert_eq!(timeout(PATIENCE, events.next()).await, Ok(Err(WatchError::Off)));
}
