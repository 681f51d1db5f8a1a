//! A membership as the payload of an entry.
//!
//! It is small and rare, and it decides who may vote, so decoding is strict: what is out of order, said
//! twice, over a limit or does not fit together is refused, and every membership has exactly one encoding
//! that is accepted from this version.

use super::{WireError, proto};
use bytes::Bytes;
use coracle_core::{ClusterId, Incarnation, Mark, Member, Membership, NodeId};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};

/// The most members of one cluster: far beyond what consensus is useful for, and small enough that looking
/// at all of them is cheap.
pub const MAX_MEMBERS: usize = 1_000;

/// The longest address of a member, in bytes: the longest DNS name (253) with a port, four times over.
pub const MAX_ADDRESS: usize = 1_024;

/// The most certificates that a membership knows of, those of nodes that are members no more included.
pub const MAX_MARKS: usize = 4 * MAX_MEMBERS;

/// The longest encoded membership, in bytes: bounds what decoding one can allocate.
pub const MAX_MEMBERSHIP: usize = 2 << 20;

/// The longest list of members to found a cluster of, in bytes as an encoded membership: a thousand members with
/// addresses of 40 bytes. Any stranger may send one.
pub const MAX_LIST: usize = 64 << 10;

/// Encodes a membership. One that fails [`check_membership`] is encoded too, but nobody will decode it.
pub fn encode_membership(membership: &Membership) -> Bytes {
    let list = |members: &BTreeMap<NodeId, Member>| members.values().map(from_member).collect();
    let message = proto::Membership {
        cluster: Some(membership.cluster.into()),
        members: list(&membership.members),
        voters: membership.voters.iter().map(|id| id.0).collect(),
        outgoing: list(&membership.outgoing),
        marks: membership.marks.iter().map(from_mark).collect(),
    };
    message.encode_to_vec().into()
}

/// Decodes a membership, and refuses one that [`check_membership`] refuses.
pub fn decode_membership(bytes: &[u8]) -> Result<Membership, WireError> {
    if bytes.len() > MAX_MEMBERSHIP {
        return Err(WireError::TooLarge { length: bytes.len() as u64, limit: MAX_MEMBERSHIP as u64 });
    }
    let message = proto::Membership::decode(bytes)?;
    let cluster = message.cluster.ok_or(WireError::Invalid("a membership without a cluster"))?;
    let membership = Membership {
        cluster: cluster.into(),
        members: members(message.members)?,
        voters: names(&message.voters)?,
        outgoing: members(message.outgoing)?,
        marks: marks(message.marks)?,
    };
    check_membership(&membership)?;
    Ok(membership)
}

/// Whether a membership may be written to a log: well formed, and within the limits above.
pub fn check_membership(membership: &Membership) -> Result<(), WireError> {
    let (now, before) = (&membership.members, &membership.outgoing);
    if now.len() > MAX_MEMBERS || before.len() > MAX_MEMBERS {
        return Err(WireError::Invalid("too many members"));
    }
    if now.values().chain(before.values()).any(|member| member.address.len() > MAX_ADDRESS) {
        return Err(WireError::Invalid("the address of a member is too long"));
    }
    if membership.marks.len() > MAX_MARKS || membership.marks.contains_key(&NodeId(0)) {
        return Err(WireError::Invalid("too many certificates, or one of nobody"));
    }
    if !membership.is_well_formed() {
        return Err(WireError::Invalid("the parts of the membership do not fit each other"));
    }
    Ok(())
}

fn from_member(member: &Member) -> proto::Member {
    let Member { id, incarnation, address } = member.clone();
    proto::Member { id: id.0, incarnation: incarnation.0, address }
}

fn members(list: Vec<proto::Member>) -> Result<BTreeMap<NodeId, Member>, WireError> {
    if !list.windows(2).all(|w| w[0].id < w[1].id) {
        return Err(WireError::Invalid("the members are not in order"));
    }
    let member = |m: proto::Member| Member {
        id: NodeId(m.id),
        incarnation: Incarnation(m.incarnation),
        address: m.address,
    };
    Ok(list.into_iter().map(member).map(|member| (member.id, member)).collect())
}

fn from_mark((id, mark): (&NodeId, &Mark)) -> proto::Mark {
    proto::Mark { id: id.0, issued: mark.issued, key: Bytes::copy_from_slice(&mark.key) }
}

fn marks(list: Vec<proto::Mark>) -> Result<BTreeMap<NodeId, Mark>, WireError> {
    if !list.windows(2).all(|w| w[0].id < w[1].id) {
        return Err(WireError::Invalid("the certificates are not in order"));
    }
    let mark = |it: proto::Mark| {
        let key = <[u8; 32]>::try_from(&*it.key);
        let key = key.map_err(|_| WireError::Invalid("the hash of a key has another length"))?;
        Ok((NodeId(it.id), Mark { issued: it.issued, key }))
    };
    list.into_iter().map(mark).collect()
}

fn names(list: &[u64]) -> Result<BTreeSet<NodeId>, WireError> {
    if !list.windows(2).all(|w| w[0] < w[1]) {
        return Err(WireError::Invalid("the voters are not in order"));
    }
    Ok(list.iter().copied().map(NodeId).collect())
}

impl From<ClusterId> for proto::ClusterId {
    fn from(id: ClusterId) -> proto::ClusterId {
        proto::ClusterId { high: (id.0 >> 64) as u64, low: id.0 as u64 }
    }
}

impl From<proto::ClusterId> for ClusterId {
    fn from(id: proto::ClusterId) -> ClusterId {
        ClusterId(u128::from(id.high) << 64 | u128::from(id.low))
    }
}
