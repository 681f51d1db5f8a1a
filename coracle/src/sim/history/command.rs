//! What is asked of a key, and what is answered.

use bytes::Bytes;

/// What is asked of one key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Command {
    /// What does it hold?
    Get,
    /// Let it hold this.
    Put(Bytes),
    /// Let this follow what it holds; an absent key holds the empty string.
    Append(Bytes),
    /// Let it be absent.
    Delete,
    /// If it holds `from` (`None`: if it is absent), let it hold `to`.
    Cas {
        /// What it must hold.
        from: Option<Bytes>,
        /// What it then holds.
        to: Bytes,
    },
}

/// What a store answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Output {
    /// To a get: `None` if the key is absent.
    Value(Option<Bytes>),
    /// To a put, an append or a delete: it took effect.
    Done,
    /// To a delete: it took effect, and whether the key was there.
    Deleted(bool),
    /// To a compare-and-set: whether the key held `from`.
    Swapped(bool),
}

/// Whether an operation with this answer leaves every state as it is that accepts it.
pub(super) fn is_pure(output: &Output) -> bool {
    matches!(output, Output::Value(_) | Output::Swapped(false) | Output::Deleted(false))
}
