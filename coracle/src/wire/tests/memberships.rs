//! Memberships as the payload of an entry: what is refused of them.

use super::{marked, member, membership};
use crate::wire::{
    MAX_ADDRESS, MAX_MARKS, MAX_MEMBERS, MAX_MEMBERSHIP, check_membership, decode_membership,
    encode_membership, proto,
};
use bytes::Bytes;
use coracle_core::{ClusterId, Mark, Member, Membership, NodeId};

#[test]
fn a_membership_that_does_not_fit_together_is_refused() {
    let refused = |change: &dyn Fn(&mut Membership)| {
        let mut changed = membership();
        change(&mut changed);
        check_membership(&changed).is_err() && decode_membership(&encode_membership(&changed)).is_err()
    };
    assert!(!refused(&|_| {}));
    assert!(refused(&|m| m.voters.clear()), "nobody votes");
    assert!(refused(&|m| _ = m.voters.insert(NodeId(9))), "a voter who is no member");
    assert!(refused(&|m| _ = m.outgoing.insert(NodeId(0), member(0))), "or was one named 0");
    assert!(refused(&|m| _ = m.members.insert(NodeId(0), member(0))), "a member named 0");
    assert!(refused(&|m| m.members.get_mut(&NodeId(1)).unwrap().address = "x".repeat(MAX_ADDRESS + 1)));
    assert!(refused(&|m| m.members.extend((10..1_100).map(|id| (NodeId(id), member(id))))), "too many");
    let mark = Mark { issued: 1, key: [1; 32] };
    assert!(refused(&|m| m.marks.extend((1..=MAX_MARKS as u64 + 1).map(|id| (NodeId(id), mark)))));
    assert!(refused(&|m| _ = m.marks.insert(NodeId(0), mark)), "the certificate of nobody");
    assert!(decode_membership(&[]).is_err(), "nothing at all");
    assert!(decode_membership(&vec![0; MAX_MEMBERSHIP + 1]).is_err());
    let largest = (1..=MAX_MEMBERS as u64)
        .map(|id| Member { address: "x".repeat(MAX_ADDRESS), ..member(id) })
        .collect::<Vec<_>>();
    let largest = Membership::of_voters(ClusterId(1), largest);
    assert_eq!(decode_membership(&encode_membership(&largest)), Ok(largest), "the limits fit each other");
}

#[test]
fn members_or_voters_named_twice_or_out_of_order_are_refused() {
    use prost::Message as _;
    let good = proto::Membership::decode(encode_membership(&marked())).unwrap();
    let twice =
        proto::Membership { members: [good.members.clone(), good.members.clone()].concat(), ..good.clone() };
    let voters = proto::Membership { voters: vec![3, 2], ..good.clone() };
    let lost = proto::Membership { cluster: None, ..good.clone() };
    let marks = proto::Membership { marks: good.marks.iter().rev().cloned().collect(), ..good.clone() };
    let mut short = good.clone();
    short.marks[0].key = Bytes::from_static(&[7; 31]);
    assert_eq!(decode_membership(&good.encode_to_vec()), Ok(marked()));
    for bad in [twice, voters, lost, marks, short] {
        assert!(decode_membership(&bad.encode_to_vec()).is_err());
    }
}
