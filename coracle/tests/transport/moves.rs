//! Members that are not where the membership says (D5.3.5): who is looked for where, and who is believed.

use crate::kit::*;
use coracle::raft::Boot;
use coracle::transport::tcp::{Local, TcpConfig};
use coracle::wire::{self, Incoming, Place};

/// An address at which nobody ever listens.
const NOWHERE: &str = "127.0.0.1:1";

/// A node of the cluster, at a free port.
async fn node(id: u64) -> Node {
    Node::start(local(id, Some(CLUSTER))).await
}

#[tokio::test]
async fn two_that_have_moved_find_each_other_by_one_that_has_not() {
    let (mut one, two, three) = (node(1).await, node(2).await, node(3).await);
    let stays = three.address();
    let as_it_was = [(1, NOWHERE), (2, NOWHERE), (3, &*stays)];
    three.knows(&as_it_was);
    one.knows(&as_it_was);
    two.knows(&as_it_was);
    two.send(peer(1), forward(1, 1)).await;
    assert_eq!(one.message().await.0, peer(2));
    until(|| one.tcp.places().iter().any(|place| place.peer == peer(2))).await;
    let places = one.tcp.places();
    assert_eq!(places, [Place { peer: peer(2), boot: Boot(7002), address: two.address() }]);
    // Without the one that has not moved, what was found is kept over a restart.
    three.tcp.close().await;
    one.tcp.close().await;
    let again = Local { boot: Boot(8001), places, ..local(1, Some(CLUSTER)) };
    let one = Node::at(LOOPBACK, again, TcpConfig::default()).await;
    one.knows(&as_it_was);
    one.send(peer(2), forward(2, 1)).await;
}

#[tokio::test]
async fn a_stranger_cannot_point_a_member_elsewhere() {
    let mut two = node(2).await;
    let home = two.address();
    let other = node(3).await;
    let one = node(1).await;
    // Others answer there: another node, and nobody.
    let lies = [other.address(), NOWHERE.to_owned()];
    for lie in &lies {
        let mut hello = hello(2, 1);
        hello.facts.address.clone_from(lie);
        one.knows(&[(2, NOWHERE)]);
        let mut stranger = Stranger::connect(&one.address()).await;
        assert!(stranger.greet(&hello).await.is_some());
        let before = one.tcp.counts().dials;
        until(|| one.tcp.counts().dials > before + 4).await;
        assert_eq!(one.tcp.places(), []);
        one.knows(&[(2, &home)]);
        one.send(peer(2), forward(1, 1)).await;
        until(|| one.tcp.peer(peer(2)).is_some_and(|met| met.address == home)).await;
        one.knows(&[]);
        until(|| one.tcp.counts().links <= 1).await;
        drop(stranger);
        until(|| one.tcp.counts().links == 0).await;
    }
    while let Ok(Some(event)) = tokio::time::timeout(std::time::Duration::ZERO, two.inbox.recv()).await {
        drop(event);
    }
}

/// A place that was believed once is not the only one that is tried.
#[tokio::test]
async fn a_member_is_found_at_home_whatever_was_believed_of_it() {
    for wrong in [NOWHERE.to_owned(), node(3).await.address()] {
        let two = node(2).await;
        let places = vec![Place { peer: peer(2), boot: Boot(7002), address: wrong }];
        let believes = Local { places, ..local(1, Some(CLUSTER)) };
        let one = Node::at(LOOPBACK, believes, TcpConfig::default()).await;
        one.knows(&[(2, &two.address())]);
        one.send(peer(2), forward(1, 1)).await;
        until(|| one.tcp.places().is_empty()).await;
        assert_eq!(one.tcp.claims(), [], "it is at home");
    }
}

/// A committed address at which a member was found already keeps the connection.
#[tokio::test]
async fn a_connection_stays_when_the_membership_says_where_it_was_found() {
    let (one, two) = (node(1).await, node(2).await);
    one.knows(&[(2, NOWHERE)]);
    let place = Place { peer: peer(2), boot: Boot(1), address: two.address() };
    assert!(one.tcp.look_for(place.clone()));
    assert!(!one.tcp.look_for(Place { peer: peer(9), ..place }), "a stranger is not looked for");
    one.send(peer(2), forward(1, 1)).await;
    assert_eq!(one.tcp.claims().len(), 1);
    let dials = one.tcp.counts().dials;
    one.knows(&[(2, &two.address())]);
    assert!(one.tcp.send(peer(2), forward(2, 1)));
    assert_eq!((one.tcp.counts().dials, one.tcp.claims()), (dials, vec![]));
    assert_eq!(one.tcp.places(), []);
}

/// Who has found a member tells those who are connected then, and whoever comes later.
#[tokio::test]
async fn what_was_found_is_told_to_who_is_there_and_to_who_comes() {
    let (mut one, three, four) = (node(1).await, node(3).await, node(4).await);
    one.knows(&[(1, &one.address()), (2, NOWHERE), (3, &three.address())]);
    three.knows(&[(1, &one.address()), (2, NOWHERE), (3, &three.address())]);
    three.send(peer(1), forward(1, 1)).await;
    assert_eq!(one.message().await.0, peer(3));
    // It speaks to nobody but one of them.
    let two = node(2).await;
    two.knows(&[(1, &one.address())]);
    let place = Place { peer: peer(2), boot: Boot(7002), address: two.address() };
    until(|| three.tcp.places() == [place.clone()]).await;
    four.knows(&[(1, &one.address()), (2, NOWHERE), (4, &four.address())]);
    until(|| four.tcp.places() == [place.clone()]).await;
}

/// What somebody says who is no member is not even tried.
#[tokio::test]
async fn only_members_are_heard_of_where_others_are() {
    let two = node(2).await;
    let mut one = node(1).await;
    let place = Place { peer: peer(2), boot: Boot(7002), address: two.address() };
    let says = |id: u64| Local { places: vec![place.clone()], ..local(id, Some(CLUSTER)) };
    let members = [(2, NOWHERE), (3, NOWHERE)];
    one.knows(&members);
    let stranger = Node::start(says(9)).await;
    stranger.knows(&[(1, &one.address()), (2, NOWHERE)]);
    stranger.send(peer(1), forward(1, 1)).await;
    // What it says of places came before.
    assert_eq!(one.message().await.0, peer(9));
    let dials = one.tcp.counts().dials;
    until(|| one.tcp.counts().dials > dials + 6).await;
    assert_eq!(one.tcp.places(), []);
    let member = Node::start(says(3)).await;
    member.knows(&[(1, &one.address()), (2, NOWHERE)]);
    until(|| one.tcp.places().contains(&place)).await;
}

/// A node of a version that does not know what that is would end the connection.
#[tokio::test]
async fn who_does_not_know_of_places_is_told_none() {
    let two = node(2).await;
    let place = Place { peer: peer(2), boot: Boot(7002), address: two.address() };
    let one = Node::start(Local { places: vec![place], ..local(1, Some(CLUSTER)) }).await;
    one.knows(&[(2, NOWHERE), (3, NOWHERE)]);
    for (optional, told) in [(0, false), (wire::MOVES, true)] {
        let mut hello = hello(3, 1);
        hello.facts.optional = optional;
        let mut stranger = Stranger::connect(&one.address()).await;
        assert!(matches!(stranger.greet(&hello).await, Some(Incoming::Welcome(_))));
        one.send(peer(3), forward(1, 1)).await;
        let first = stranger.hear().await;
        assert_eq!(matches!(first, Some(Incoming::Places(_))), told, "{first:?}");
    }
}

/// That nobody is where a member was says nothing of it while it was met elsewhere.
#[tokio::test]
async fn nobody_at_the_old_address_does_not_mean_that_a_member_is_gone() {
    let two = node(2).await;
    let path = Path::to(&two.address()).await;
    let mut one = node(1).await;
    one.knows(&[(2, NOWHERE)]);
    assert!(one.tcp.look_for(Place { peer: peer(2), boot: Boot(7002), address: path.address.clone() }));
    for _ in 0..6 {
        one.send(peer(2), forward(1, 1)).await;
        path.cut();
        assert_eq!(one.event().await, "disconnected 2");
    }
    drop(path);
    two.tcp.close().await;
}
