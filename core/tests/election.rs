//! How a leader comes about, and how none comes about where none should.

mod common;
use common::*;
use coracle_core::*;

#[test]
fn smoke() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.propose(A, 3);
    c.run();
    c.pass(10);
    c.assert_converged();
    assert_eq!(c.log(B), "1 2 2 2 2");
}
