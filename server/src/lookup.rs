//! What may be asked of the keys, and what is answered.

use crate::users::{By, Refusal};
use crate::value::Value;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// One question about the keys, as part of a batch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Lookup {
    /// The value of a key.
    Get(Bytes),
    /// How many of the keys are there, counting one that is named twice twice.
    Count(Vec<Bytes>),
    /// The values of keys; none where that is no string.
    GetAll(Vec<Bytes>),
    /// No question: says in whose name those are that follow in the batch. It has no answer.
    As(By),
    /// No question: says in which database those are that follow in the batch, 0 if none does. It has no answer.
    In(u8),
    /// A key's length in bytes, or its number of fields if it is a hash, as `fields` says.
    Length {
        /// The key.
        key: Bytes,
        /// Whether it is a hash.
        fields: bool,
    },
    /// A part of a value, from one byte to another, both included; negative ones count from its end.
    Range {
        /// The key.
        key: Bytes,
        /// The first byte.
        from: i64,
        /// The last byte.
        to: i64,
    },
    /// What kind of value a key has: a word.
    Kind(Bytes),
    /// How redis would keep the value: a word.
    Encoding(Bytes),
    /// How long a key lives: -2 if it is not there, and -1 if it lives for ever.
    Life {
        /// The key.
        key: Bytes,
        /// In what.
        unit: Unit,
    },
    /// A part of the names, all of which come in some order, as [`Found::Page`].
    Scan {
        /// Where the part begins: 0, or where the one before says.
        cursor: u64,
        /// About how many to look at.
        count: u64,
        /// Which ones to tell. Each lookup has the room of the largest, so what is rare lies apart.
        pattern: Option<Box<Bytes>>,
        /// The kind of their values.
        kind: Option<Box<Bytes>>,
    },
    /// How many keys there are.
    Size,
    /// Any name, which this number chooses.
    Any(u64),
    /// The value of a field.
    Field(Bytes, Bytes),
    /// The values of fields.
    Fields(Bytes, Vec<Bytes>),
    /// All fields with their values.
    AllFields(Bytes),
    /// A mark of each key, which changes with every change of it: what [`Operation::Guard`](crate::kv::Operation::Guard) compares.
    Marks(Vec<Bytes>),
}

/// What a life is measured in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Unit {
    /// The rest of it in seconds, rounded.
    Seconds,
    /// The rest of it in milliseconds.
    Millis,
    /// Its end in seconds since 1970.
    EndSeconds,
    /// Its end in milliseconds since 1970.
    EndMillis,
}

/// About the memory of a key, a field or a value beside its bytes, and about as many bytes as could be copied while it is
/// looked for.
pub(crate) const ITEM: usize = 64;

impl Lookup {
    /// About the memory that it takes.
    pub fn weight(&self) -> usize {
        let of = |strings: &[Bytes]| strings.iter().map(|string| ITEM + string.len()).sum::<usize>();
        of(self.keys())
            + match self {
                Lookup::Field(_, field) => ITEM + field.len(),
                Lookup::Fields(_, fields) => of(fields),
                Lookup::Scan { pattern, kind, .. } => {
                    pattern.iter().chain(kind).map(|word| word.len()).sum::<usize>()
                }
                _ => 0,
            }
    }

    /// What answering it takes for certain, as bytes that could be copied meanwhile: for each key and field that is looked for.
    pub fn cost(&self) -> usize {
        let fields = if let Lookup::Fields(_, fields) = self { fields.len() } else { 1 };
        2 * ITEM * (self.keys().len() + fields)
    }

    /// The keys that it looks at.
    pub fn keys(&self) -> &[Bytes] {
        match self {
            Lookup::Get(key)
            | Lookup::Length { key, .. }
            | Lookup::Range { key, .. }
            | Lookup::Kind(key)
            | Lookup::Encoding(key)
            | Lookup::Life { key, .. }
            | Lookup::Field(key, _)
            | Lookup::Fields(key, _)
            | Lookup::AllFields(key) => std::slice::from_ref(key),
            Lookup::Count(keys) | Lookup::GetAll(keys) | Lookup::Marks(keys) => keys,
            Lookup::As(_) | Lookup::In(_) | Lookup::Scan { .. } | Lookup::Size | Lookup::Any(_) => &[],
        }
    }
}

/// What one lookup found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Found {
    /// The value, if it is there.
    Value(Option<Value>),
    /// How many are there, or how much.
    Count(i64),
    /// The values, in the order of the keys or fields.
    Values(Vec<Option<Value>>),
    /// The values together are over [`MAX_ANSWER`](crate::kv::MAX_ANSWER).
    TooLarge,
    /// Whoever asks may not see it.
    Refused(Refusal),
    /// The key has a value of another kind.
    WrongKind,
    /// Fields with their values.
    Fields(Vec<(Bytes, Value)>),
    /// Some names, and where the next part begins; 0: this was the last one.
    Page {
        /// Where the next part begins.
        next: u64,
        /// The names.
        names: Vec<Bytes>,
    },
    /// A mark of each key.
    Marks(Vec<u64>),
}

impl Found {
    /// About the memory that it takes: the bytes of the values in it, and of what is beside them where there are many.
    pub fn bytes(&self) -> usize {
        match self {
            Found::Value(Some(value)) => value.len(),
            Found::Values(values) => {
                values.len() * ITEM + values.iter().flatten().map(Value::len).sum::<usize>()
            }
            Found::Fields(fields) => {
                let of = |(field, value): &(Bytes, Value)| 2 * ITEM + field.len() + value.len();
                fields.iter().map(of).sum()
            }
            Found::Page { names, .. } => names.iter().map(|name| ITEM + name.len()).sum(),
            Found::Marks(marks) => marks.len() * size_of::<u64>(),
            Found::Value(None) | Found::Count(_) | Found::TooLarge | Found::Refused(_) | Found::WrongKind => {
                0
            }
        }
    }
}
