//! What may be done to the keys, and asked of them; and what is answered.

use crate::value::{self, Value};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The longest key, in bytes. It travels in one entry with its value and in one RESP string.
pub const MAX_KEY: usize = 1 << 20;

/// The longest value, in bytes: large enough for documents, small enough that one value cannot hold up the
/// log for everybody else (1 MiB crosses a gigabit network in about 8 ms).
pub const MAX_VALUE: usize = 1 << 20;

/// What the operations of one batch may [cost](Operation::cost) together, in bytes. 8 MiB: what a node
/// copies in a moment, and a reply that holds up nobody's heartbeats on its way to a node that forwarded.
pub const MAX_COST: usize = 8 << 20;

/// The most bytes of values in the answer to one batch of lookups. Values are shared and not copied, but a
/// client that reads slowly keeps them alive even when they are overwritten meanwhile.
pub const MAX_ANSWER: usize = 64 << 20;

/// One change of the keys, as part of a batch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Operation {
    /// Give a key a value.
    Set {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
        /// Whether to do it.
        when: When,
        /// Answer the value before, instead of whether it was done.
        get: bool,
    },
    /// Remove keys. Answers how many were there.
    Delete {
        /// The keys.
        keys: Vec<Bytes>,
    },
    /// Add bytes to the end of a value; a missing key counts as empty. Answers the new length.
    Append {
        /// The key.
        key: Bytes,
        /// What to add.
        value: Bytes,
    },
    /// Add to a value that is a decimal number; a missing key counts as 0. Answers the sum.
    Add {
        /// The key.
        key: Bytes,
        /// What to add.
        by: i64,
    },
    /// Give several keys their values, in one revision.
    SetAll {
        /// Keys and values; of two for one key the later wins.
        pairs: Vec<(Bytes, Bytes)>,
    },
}

impl Operation {
    /// The bytes that doing or answering it may touch beyond its own: a small command can ask for a whole
    /// value, or have one copied.
    pub fn cost(&self) -> usize {
        match self {
            Operation::Append { .. } => value::PIECE,
            _ => self.reply(),
        }
    }

    /// The most bytes of a value that its answer carries.
    pub fn reply(&self) -> usize {
        if let Operation::Set { get: true, .. } = self { MAX_VALUE } else { 0 }
    }
}

/// The condition of [`Operation::Set`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum When {
    /// In any case.
    Always,
    /// Only if the key is not there.
    Absent,
    /// Only if the key is there.
    Present,
}

/// What one operation came to. The refusals change nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// Done.
    Done,
    /// Not done, since the condition did not hold; or, for a `get`, there was no value before.
    Nothing,
    /// A count, a length or a sum.
    Number(i64),
    /// The value before.
    Value(Bytes),
    /// Refused: the value is not a decimal number of 64 bits.
    NotANumber,
    /// Refused: the sum does not fit in 64 bits.
    Overflow,
    /// Refused: the value would be longer than [`MAX_VALUE`].
    TooLong,
}

/// One question about the keys, as part of a batch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Lookup {
    /// The value of a key.
    Get(Bytes),
    /// How many of the keys are there, counting one that is named twice twice.
    Count(Vec<Bytes>),
    /// The values of keys.
    GetAll(Vec<Bytes>),
}

/// What one lookup found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Found {
    /// The value, if the key is there.
    Value(Option<Value>),
    /// How many are there.
    Count(i64),
    /// The values, in the order of the keys.
    Values(Vec<Option<Value>>),
    /// The values together are over [`MAX_ANSWER`].
    TooLarge,
}

impl Found {
    /// The bytes of the values in it.
    pub fn bytes(&self) -> usize {
        match self {
            Found::Value(Some(value)) => value.len(),
            Found::Values(values) => values.iter().flatten().map(Value::len).sum(),
            Found::Value(None) | Found::Count(_) | Found::TooLarge => 0,
        }
    }
}
