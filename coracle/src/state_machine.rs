//! What a user writes: the machine that is replicated.
//!
//! Every node runs one. The library feeds the same commands in the same order to all of them, so they
//! stay equal as long as [`apply`](StateMachine::apply) depends on nothing but the machine and the
//! command: no clock, no random numbers, no iteration over a `HashMap` that shows in a reply.

use bytes::Bytes;
use coracle_core::LogId;
use serde::{Serialize, de::DeserializeOwned};

/// A deterministic machine that turns commands into replies, and queries into answers.
pub trait StateMachine: Send + 'static {
    /// What changes the machine. Goes through the log.
    type Command: Serialize + DeserializeOwned + Send + 'static;
    /// What a command returns, delivered to its writer verbatim.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
    /// What asks the machine. Never goes through the log.
    type Query: Send + 'static;
    /// What a query returns.
    type Answer: Send + 'static;

    /// Applies a committed command. Must be deterministic: the same machine and command give the same
    /// machine and reply on every node, today and in a later version of the program.
    ///
    /// A panic here stops the node with [`StopReason::Panicked`](crate::StopReason::Panicked).
    fn apply(&mut self, context: &mut Context, command: Self::Command) -> Self::Reply;

    /// Answers a query from the state as it is.
    fn query(&self, query: Self::Query) -> Self::Answer;

    /// A digest of the whole state, if the machine keeps one. The library folds it into its own digest
    /// after each command, so it must be kept incrementally: never O(state).
    fn digest(&self) -> Option<[u8; 16]> {
        None
    }

    /// A command's bytes in the log: postcard unless overridden.
    fn encode_command(command: &Self::Command) -> Result<Bytes, CodecError> {
        encode(command)
    }

    /// The command that the bytes say.
    fn decode_command(bytes: &Bytes) -> Result<Self::Command, CodecError> {
        decode(bytes)
    }

    /// A reply's bytes, as they go to a node that forwarded the command, and into the digest.
    fn encode_reply(reply: &Self::Reply) -> Result<Bytes, CodecError> {
        encode(reply)
    }

    /// The reply that the bytes say.
    fn decode_reply(bytes: &Bytes) -> Result<Self::Reply, CodecError> {
        decode(bytes)
    }
}

/// What a machine may know of the entry that it applies, the same on every node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Context {
    /// The entry's place in the log.
    pub id: LogId,
    /// The cluster's clock in milliseconds: never runs backwards, on no node, over no change of leader.
    pub cluster_time: u64,
    /// The wall clock of the leader that proposed the command, in milliseconds since 1970. May jump.
    pub wall_time: u64,
}

impl Context {
    /// A context for tests of a machine.
    pub fn new(id: LogId, cluster_time: u64, wall_time: u64) -> Context {
        Context { id, cluster_time, wall_time }
    }
}

/// A command or reply could not be turned into bytes, or back.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(pub String);

fn encode<T: Serialize>(value: &T) -> Result<Bytes, CodecError> {
    postcard::to_stdvec(value).map(Bytes::from).map_err(|error| CodecError(error.to_string()))
}

fn decode<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, CodecError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(CodecError(format!("{} bytes are left over", rest.len()))),
        Err(error) => Err(CodecError(error.to_string())),
    }
}
