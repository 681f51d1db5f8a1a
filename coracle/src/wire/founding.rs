//! What nodes ask each other before they have a cluster in common: one question and one answer on a connection of its own.
//!
//! The list of members is the bulk of both: in the question the one that it is about, in the answer the one that
//! stands against it.

use super::convert::cut;
use super::frame::{Frame, Raw, Type, seal_piece};
use super::membership::{MAX_LIST, decode_membership, encode_membership};
use super::{WireError, proto};
use crate::token::MAX_TOKEN;
use bytes::Bytes;
use coracle_core::{ClusterId, Membership, NodeId};
use prost::Message;

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Of a list's lowest node: found the cluster of this list.
    Found,
    /// Of every node of the list, by the lowest: promise yourself to this list, durably.
    Promise,
    /// Of a list's lowest node, by one that has promised itself: are you still at it?
    Pending,
    /// Of a cluster's leader, by a node that is alone in the list: let me learn, and vote once I have caught up.
    Join,
}

/// A question about a list of members.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ask {
    /// What is asked.
    pub step: Step,
    /// The members, and the cluster that they would found.
    pub list: Membership,
    /// The lowest node's number of its attempt: with [`Step::Promise`], and with [`Step::Pending`] the one in which
    /// the promise was given.
    pub round: u64,
    /// What the nodes of a cluster have in common, if anything: with [`Step::Join`].
    pub token: Bytes,
}

/// The answer to an [`Ask`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The cluster of this list is there: its first entry is durable.
    Founded,
    /// The node has promised itself, durably.
    Promised,
    /// The lowest node may still found this list, or has.
    Pending,
    /// The lowest node has given up every attempt that it began so far: promises given in them bind nobody.
    GivenUp,
    /// The node is a member, and votes.
    Joined,
    /// No, for this reason of this node.
    Refused(NodeId, Objection),
}

/// Why a node does not do what it was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Objection {
    /// It belongs to a cluster.
    Cluster(ClusterId),
    /// It has promised itself to this list.
    Promised(Membership),
    /// The named node leads, and is at this address.
    NotLeader(String),
    /// Something else, which may pass.
    Other(String),
}

mod code {
    pub(super) const FOUNDED: u32 = 1;
    pub(super) const PROMISED: u32 = 2;
    pub(super) const PENDING: u32 = 3;
    pub(super) const GIVEN_UP: u32 = 4;
    pub(super) const OF_A_CLUSTER: u32 = 5;
    pub(super) const PROMISED_TO_ANOTHER: u32 = 6;
    pub(super) const OTHER: u32 = 7;
    pub(super) const JOINED: u32 = 8;
    pub(super) const NOT_LEADER: u32 = 9;
}

impl Ask {
    /// A question of a founding.
    pub fn new(step: Step, list: Membership, round: u64) -> Ask {
        Ask { step, list, round, token: Bytes::new() }
    }

    /// Encodes it as a frame.
    pub fn encode(&self) -> Frame {
        let step = match self.step {
            Step::Found => 1,
            Step::Promise => 2,
            Step::Pending => 3,
            Step::Join => 4,
        };
        let meta = proto::FoundingAsk { step, round: self.round, token: self.token.clone() };
        seal_piece(Type::FoundingAsk, &meta, &encode_membership(&self.list))
    }

    pub(super) fn open(raw: Raw) -> Result<Ask, WireError> {
        let (meta, bulk) = raw.piece()?;
        let meta = proto::FoundingAsk::decode(meta)?;
        let step = match meta.step {
            1 => Step::Found,
            2 => Step::Promise,
            3 => Step::Pending,
            4 => Step::Join,
            _ => return Err(WireError::Invalid("a question about a founding that is not known")),
        };
        if meta.token.len() > MAX_TOKEN {
            return Err(WireError::TooLarge { length: meta.token.len() as u64, limit: MAX_TOKEN as u64 });
        }
        Ok(Ask { step, list: list(&bulk)?, round: meta.round, token: meta.token })
    }
}

impl Answer {
    /// Encodes it as a frame.
    pub fn encode(&self) -> Frame {
        let mut meta = proto::FoundingAnswer::default();
        let mut bulk = Bytes::new();
        meta.outcome = match self {
            Answer::Founded => code::FOUNDED,
            Answer::Promised => code::PROMISED,
            Answer::Pending => code::PENDING,
            Answer::GivenUp => code::GIVEN_UP,
            Answer::Joined => code::JOINED,
            Answer::Refused(node, objection) => {
                meta.node = node.0;
                match objection {
                    Objection::Cluster(cluster) => {
                        meta.cluster = Some((*cluster).into());
                        code::OF_A_CLUSTER
                    }
                    Objection::Promised(list) => {
                        bulk = encode_membership(list);
                        code::PROMISED_TO_ANOTHER
                    }
                    Objection::NotLeader(address) => {
                        meta.text = cut(address);
                        code::NOT_LEADER
                    }
                    Objection::Other(text) => {
                        meta.text = cut(text);
                        code::OTHER
                    }
                }
            }
        };
        seal_piece(Type::FoundingAnswer, &meta, &bulk)
    }

    pub(super) fn open(raw: Raw) -> Result<Answer, WireError> {
        let (meta, bulk) = raw.piece()?;
        let meta = proto::FoundingAnswer::decode(meta)?;
        if meta.outcome != code::PROMISED_TO_ANOTHER && !bulk.is_empty() {
            return Err(WireError::Invalid("a list where none belongs"));
        }
        let objection = match meta.outcome {
            code::FOUNDED => return Ok(Answer::Founded),
            code::PROMISED => return Ok(Answer::Promised),
            code::PENDING => return Ok(Answer::Pending),
            code::GIVEN_UP => return Ok(Answer::GivenUp),
            code::JOINED => return Ok(Answer::Joined),
            code::OF_A_CLUSTER => {
                let cluster = meta.cluster.ok_or(WireError::Invalid("a refusal without its cluster"))?;
                Objection::Cluster(cluster.into())
            }
            code::PROMISED_TO_ANOTHER => Objection::Promised(list(&bulk)?),
            code::NOT_LEADER => Objection::NotLeader(meta.text),
            code::OTHER => Objection::Other(meta.text),
            _ => return Err(WireError::Invalid("an answer about a founding that is not known")),
        };
        Ok(Answer::Refused(NodeId(meta.node), objection))
    }
}

fn list(bytes: &Bytes) -> Result<Membership, WireError> {
    if bytes.len() > MAX_LIST {
        return Err(WireError::TooLarge { length: bytes.len() as u64, limit: MAX_LIST as u64 });
    }
    decode_membership(bytes)
}
