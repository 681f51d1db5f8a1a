//! Members that are not where the membership says (D5.3.5): who is looked for where, and who is believed.

use crate::kit::*;
use coracle::raft::Boot;
use coracle::transport::tcp::{Local, TcpConfig};
use coracle::wire::Place;

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
