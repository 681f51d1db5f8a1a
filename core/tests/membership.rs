//! Who counts: quorums against a brute-force oracle, the first membership, and the memberships that come and
//! go with the log.

mod common;
use common::*;
use coracle_core::*;

#[test]
fn mc_3_the_first_membership_of_a_restarted_node_can_still_be_truncated() {
    // A bootstrapped itself, and so did B's cluster, which won.
    let mut c = Cluster::with_logs(&["1", "1"]);
    let two = membership(&[A, B], &[], &[]);
    let append = Append {
        term: Term(3),
        prev: LogId::ZERO,
        last: Index(1),
        runs: vec![Run::new(1, 2)],
        memberships: vec![(Index(1), two)],
        commit: Index(0),
        round: Round(1),
        lease: 0,
        persisted: Index(0),
        disk_age: 0,
    };
    let mut node = c.raft(A).clone();
    let word = |append: &Append| {
        let message = Message::Append(append.clone());
        Input::Receive(Envelope { from: peer(B), to: peer(A), membership: LogId::ZERO, message })
    };
    node.step(Tick(2000), word(&append));
    assert_eq!(node.membership_id(), LogId::new(2, 1));
    let none = Append { term: Term(4), runs: vec![Run::new(1, 4)], memberships: vec![], ..append };
    node.step(Tick(2001), word(&none));
    assert_eq!(node.role_name(), RoleName::Unconfigured, "as if it had never been told");
    c.heal();
}
