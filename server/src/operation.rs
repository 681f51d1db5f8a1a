//! What may be done to the keys and the users, and what it comes to.

pub use crate::lookup::{Found, Lookup, Unit};

use crate::lookup::ITEM;
use crate::users::{By, Hash, Refusal, Rights, Role};
use crate::value::{self, Value};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The longest key, in bytes. It travels in one entry with its value.
pub const MAX_KEY: usize = 1 << 20;

/// The longest value, in bytes: large enough for documents, small enough that one value cannot hold up the
/// log for everybody else (8 MiB cross a gigabit network in about 70 ms). All fields of a hash together count as one.
pub const MAX_VALUE: usize = 8 << 20;

/// The longest value of the machine's first three versions.
pub const FORMER_MAX_VALUE: usize = 1 << 20;

/// What an operation counts that may meet a value of any length, as bytes that could be copied meanwhile. The value itself is
/// shared: to digest 8 MiB of it for another key takes less than a millisecond.
const MET: usize = 1 << 20;

/// The most fields of a hash: what goes away in a moment when it is deleted.
pub const MAX_FIELDS: usize = 64 << 10;

/// How many databases there are, as in redis unless it is told otherwise.
pub const DATABASES: u8 = 16;

/// What the operations of one batch may [cost](Operation::cost) together, in bytes. 8 MiB: what a node
/// copies in a moment.
pub const MAX_COST: usize = 8 << 20;

/// The bytes of the values in the answers to one batch of operations, with what finding them takes: of the longest values three. What
/// passes it is not done, so that the answers fit in one message to the node that forwarded the batch. In the machine's third
/// version it was [`MAX_COST`], for questions alone.
pub const MAX_FOUND: usize = 24 << 20;

/// The most bytes of values in the answer to one batch of lookups. Values are shared and not copied, but a
/// client that reads slowly keeps them alive even when they are overwritten meanwhile.
pub const MAX_ANSWER: usize = 64 << 20;

/// One change of the keys or the users, as part of a batch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Operation {
    /// Give a key a value, for ever.
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
    /// Give several keys their values, in one revision, for ever.
    SetAll {
        /// Keys and values; of two for one key the later wins.
        pairs: Vec<(Bytes, Bytes)>,
    },
    /// No change: says in whose name those are that follow in the batch. It has no outcome.
    As(By),
    /// Add a user.
    AddUser {
        /// Its name.
        name: Bytes,
        /// Of its password.
        hash: Hash,
        /// What it may do.
        rights: Rights,
    },
    /// Give a user other rights.
    Grant {
        /// Its name.
        name: Bytes,
        /// What it may do from now on.
        rights: Rights,
    },
    /// Give a user another password.
    GivePassword {
        /// Its name.
        name: Bytes,
        /// Of the new one.
        hash: Hash,
    },
    /// Remove a user.
    RemoveUser {
        /// Its name.
        name: Bytes,
    },
    /// No change: says in which database those are that follow in the batch, 0 if none does. It has no outcome.
    In(u8),
    /// No change: whether these keys still have these [marks](Lookup::Marks). If not, nothing that follows in the batch is
    /// done, and this is its last outcome.
    Guard {
        /// Database, key and mark.
        watched: Vec<(u8, Bytes, u64)>,
    },
    /// No change: look at the keys between the changes.
    Look(Lookup),
    /// Give a key a value, under any condition, for any time.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
        /// Whether to do it.
        only: Only,
        /// How long it lives.
        life: Life,
        /// Answer the value before, instead of whether it was done.
        get: bool,
    },
    /// Give several keys their values if none of them is there. Answers 1 if it was done.
    SetAllAbsent {
        /// Keys and values; of two for one key the later wins.
        pairs: Vec<(Bytes, Bytes)>,
    },
    /// Remove a key and answer its value.
    Take {
        /// The key.
        key: Bytes,
    },
    /// Remove a key under a condition. Answers how many were removed.
    DeleteIf {
        /// The key.
        key: Bytes,
        /// Whether to do it.
        only: Only,
    },
    /// Write over a part of a value, which grows as far as it must. Answers the new length.
    SetRange {
        /// The key.
        key: Bytes,
        /// Where the part begins.
        offset: u64,
        /// The part.
        value: Bytes,
    },
    /// Add to a value that is a decimal fraction; a missing key counts as 0. Answers the sum.
    AddFraction {
        /// The key.
        key: Bytes,
        /// What to add, in digits.
        by: Bytes,
    },
    /// Say how long a key lives, and answer its value.
    Touch {
        /// The key.
        key: Bytes,
        /// How long it lives from now on.
        life: Life,
    },
    /// Say how long a key lives. Answers 1 if that was done.
    Expire {
        /// The key.
        key: Bytes,
        /// How long it lives from now on.
        life: Life,
        /// Whether to do it.
        only: OnlyLife,
    },
    /// Give a key the name of another, which goes if it is there. Answers 1 if it was done.
    Rename {
        /// The key.
        from: Bytes,
        /// Its new name.
        to: Bytes,
        /// Do it only if nothing has that name.
        absent: bool,
    },
    /// Copy a key. Answers 1 if it was done.
    Copy {
        /// The key.
        from: Bytes,
        /// The name of the copy.
        to: Bytes,
        /// The database of the copy, if it is another.
        database: Option<u8>,
        /// Replace what has that name.
        replace: bool,
    },
    /// Move a key to another database, if nothing has its name there. Answers 1 if it was done.
    Move {
        /// The key.
        key: Bytes,
        /// The other database.
        database: u8,
    },
    /// Remove all keys of the database.
    Clear {
        /// Of all databases.
        all: bool,
    },
    /// Give fields of a hash their values. Answers how many of them are new.
    SetFields {
        /// The key.
        key: Bytes,
        /// Fields and values; of two for one field the later wins.
        pairs: Vec<(Bytes, Bytes)>,
        /// Do it only if the fields are not there.
        absent: bool,
    },
    /// Remove fields of a hash, and the hash with its last one. Answers how many were there.
    DeleteFields {
        /// The key.
        key: Bytes,
        /// The fields.
        fields: Vec<Bytes>,
    },
    /// Add to a field that is a decimal number; a missing one counts as 0. Answers the sum.
    AddField {
        /// The key.
        key: Bytes,
        /// The field.
        field: Bytes,
        /// What to add.
        by: i64,
    },
    /// Add to a field that is a decimal fraction; a missing one counts as 0. Answers the sum.
    AddFieldFraction {
        /// The key.
        key: Bytes,
        /// The field.
        field: Bytes,
        /// What to add, in digits.
        by: Bytes,
    },
}

/// The key without a name.
static NAMELESS: Bytes = Bytes::new();

/// What an operation is about.
struct Subject<'a> {
    one: Option<&'a Bytes>,
    other: Option<&'a Bytes>,
    many: &'a [Bytes],
    pairs: &'a [(Bytes, Bytes)],
}

impl Operation {
    /// The version of the machine that it needs: users came with the second; databases, hashes, times to live and
    /// transactions with the third; values over 1 MiB with the fourth.
    pub fn version(&self) -> u16 {
        if self.brings() > FORMER_MAX_VALUE as u64 {
            return 4;
        }
        match self {
            Operation::Set { .. }
            | Operation::Delete { .. }
            | Operation::Append { .. }
            | Operation::Add { .. }
            | Operation::SetAll { .. } => 1,
            Operation::As(_)
            | Operation::AddUser { .. }
            | Operation::Grant { .. }
            | Operation::GivePassword { .. }
            | Operation::RemoveUser { .. } => 2,
            _ => 3,
        }
    }

    /// How long the longest value is at least that it brings.
    fn brings(&self) -> u64 {
        let of = |pairs: &[(Bytes, Bytes)]| pairs.iter().map(|(_, value)| value.len()).max().unwrap_or(0);
        let length = match self {
            Operation::Set { value, .. } | Operation::Append { value, .. } | Operation::Put { value, .. } => {
                value.len()
            }
            Operation::SetAll { pairs } | Operation::SetAllAbsent { pairs } => of(pairs),
            Operation::SetFields { pairs, .. } => of(pairs),
            Operation::SetRange { offset, value, .. } if !value.is_empty() => {
                return offset.saturating_add(value.len() as u64);
            }
            _ => 0,
        };
        length as u64
    }

    /// The role that whoever asks for it must have.
    pub fn role(&self) -> Role {
        match self {
            Operation::As(_)
            | Operation::AddUser { .. }
            | Operation::Grant { .. }
            | Operation::GivePassword { .. }
            | Operation::RemoveUser { .. }
            | Operation::Clear { .. } => Role::Admin,
            Operation::Look(_) | Operation::Guard { .. } | Operation::In(_) => Role::Read,
            _ => Role::Write,
        }
    }

    /// The keys that it touches.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let Subject { one, other, many, pairs } = self.subject();
        let pairs = pairs.iter().map(|(key, _)| key);
        one.into_iter().chain(other).chain(many).chain(pairs).map(|key| &key[..])
    }

    fn subject(&self) -> Subject<'_> {
        let mut subject = Subject { one: None, other: None, many: &[], pairs: &[] };
        match self {
            Operation::Set { key, .. }
            | Operation::Append { key, .. }
            | Operation::Add { key, .. }
            | Operation::Put { key, .. }
            | Operation::Take { key }
            | Operation::DeleteIf { key, .. }
            | Operation::SetRange { key, .. }
            | Operation::AddFraction { key, .. }
            | Operation::Touch { key, .. }
            | Operation::Expire { key, .. }
            | Operation::Move { key, .. }
            | Operation::SetFields { key, .. }
            | Operation::DeleteFields { key, .. }
            | Operation::AddField { key, .. }
            | Operation::AddFieldFraction { key, .. } => subject.one = Some(key),
            Operation::Rename { from, to, .. } | Operation::Copy { from, to, .. } => {
                (subject.one, subject.other) = (Some(from), Some(to));
            }
            Operation::Delete { keys } => subject.many = keys,
            Operation::Look(lookup) => subject.many = lookup.keys(),
            Operation::SetAll { pairs } | Operation::SetAllAbsent { pairs } => subject.pairs = pairs,
            // All keys, also those without a name: nobody has these who has some prefix.
            Operation::Clear { .. } => subject.one = Some(&NAMELESS),
            Operation::As(_)
            | Operation::In(_)
            | Operation::Guard { .. }
            | Operation::AddUser { .. }
            | Operation::Grant { .. }
            | Operation::GivePassword { .. }
            | Operation::RemoveUser { .. } => {}
        }
        subject
    }

    /// The bytes that doing or answering it may touch beyond its own: a small command can ask for a whole
    /// value, or have one copied. What is looked for counts as some, too.
    pub fn cost(&self) -> usize {
        2 * ITEM * self.items()
            + match self {
                Operation::Look(lookup) => lookup.cost(),
                other => other.touched(),
            }
    }

    /// How many keys and fields it names.
    fn items(&self) -> usize {
        let more = match self {
            Operation::SetFields { pairs, .. } => pairs.len(),
            Operation::DeleteFields { fields, .. } => fields.len(),
            Operation::Guard { watched } => watched.len(),
            // They count by themselves.
            Operation::Look(_) => return 0,
            _ => 0,
        };
        self.keys().count() + more
    }

    /// The bytes of values that it may copy.
    fn touched(&self) -> usize {
        match self {
            Operation::Append { .. } => value::PIECE,
            Operation::SetRange { .. }
            | Operation::Rename { .. }
            | Operation::Copy { .. }
            | Operation::Move { .. } => MET,
            _ => self.reply(),
        }
    }

    /// Whether there may be more of keys and values after it.
    pub fn adds(&self) -> bool {
        matches!(
            self,
            Operation::Set { .. }
                | Operation::Append { .. }
                | Operation::Add { .. }
                | Operation::SetAll { .. }
                | Operation::Put { .. }
                | Operation::SetAllAbsent { .. }
                | Operation::SetRange { .. }
                | Operation::AddFraction { .. }
                | Operation::Copy { .. }
                | Operation::SetFields { .. }
                | Operation::AddField { .. }
                | Operation::AddFieldFraction { .. }
        )
    }

    /// About the bytes that it takes on its way, without those of its answer.
    pub fn weight(&self) -> usize {
        if let Operation::Look(lookup) = self {
            return lookup.weight();
        }
        let keys = self.keys().map(<[u8]>::len).sum::<usize>() + ITEM * self.items();
        let of = |pairs: &[(Bytes, Bytes)]| -> usize { pairs.iter().map(|(_, value)| value.len()).sum() };
        keys + match self {
            Operation::Set { value, .. }
            | Operation::Append { value, .. }
            | Operation::SetRange { value, .. } => value.len(),
            Operation::Put { value, only, .. } => value.len() + only.weight(),
            Operation::DeleteIf { only, .. } => only.weight(),
            Operation::SetAll { pairs } | Operation::SetAllAbsent { pairs } => of(pairs),
            Operation::SetFields { pairs, .. } => {
                of(pairs) + pairs.iter().map(|(field, _)| field.len()).sum::<usize>()
            }
            Operation::DeleteFields { fields, .. } => fields.iter().map(Bytes::len).sum(),
            Operation::AddField { field, .. } | Operation::AddFieldFraction { field, .. } => field.len(),
            Operation::Guard { watched } => watched.iter().map(|(_, key, _)| key.len() + 8).sum(),
            // Users are small, and few.
            _ => 0,
        }
    }

    /// For how many bytes of a value in its answer there has to be memory before it is done. It may carry more, up to
    /// [`MAX_VALUE`], but then few are as long, and those were in memory before.
    pub fn reply(&self) -> usize {
        match self {
            Operation::Set { get: true, .. }
            | Operation::Put { get: true, .. }
            | Operation::Take { .. }
            | Operation::Touch { .. } => MET,
            _ => 0,
        }
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

/// The condition of [`Operation::Put`] and [`Operation::DeleteIf`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Only {
    /// In any case.
    Always,
    /// Only if the key is not there.
    Absent,
    /// Only if the key is there.
    Present,
    /// Only if the key has this value. Each operation has the room of the largest, so what is rare lies apart.
    Equal(Box<Bytes>),
    /// Only if the key does not have this value.
    Different(Box<Bytes>),
}

impl Only {
    fn weight(&self) -> usize {
        match self {
            Only::Equal(value) | Only::Different(value) => value.len(),
            Only::Always | Only::Absent | Only::Present => 0,
        }
    }
}

/// How long a key lives, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Life {
    /// For ever.
    Forever,
    /// As long as it would have.
    Keep,
    /// So long, by the cluster's clock, from where the operation stands in the log. It ends at once if that is not more
    /// than 0.
    For(i64),
    /// Until this time since 1970, as the leader's clock had it where the operation stands in the log.
    Until(i64),
}

/// The condition of [`Operation::Expire`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum OnlyLife {
    /// In any case.
    Always,
    /// Only if the key would live for ever.
    Forever,
    /// Only if it would not.
    Mortal,
    /// Only if the key then lives longer than it would have.
    Longer,
    /// Only if the key then lives for less long than it would have.
    Shorter,
    /// The same, and only if it would not live for ever.
    MortalShorter,
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
    /// The value before, or a sum with a fraction.
    Value(Value),
    /// Refused: the value is not a decimal number of 64 bits.
    NotANumber,
    /// Refused: the sum does not fit in 64 bits.
    Overflow,
    /// Refused: the value would be longer than [`MAX_VALUE`], or the key than [`MAX_KEY`].
    TooLong,
    /// Refused by what there is of users.
    Refused(Refusal),
    /// Refused: the key has a value of another kind.
    WrongKind,
    /// Refused: there is no such key.
    NoKey,
    /// Refused: the key and where it is to go are the same.
    SameKey,
    /// Refused: the value is not a decimal fraction.
    NotAFraction,
    /// Refused: the sum is not finite.
    NotFinite,
    /// Refused: the field is not a decimal number of 64 bits.
    FieldNotANumber,
    /// Refused: the field is not a decimal fraction.
    FieldNotAFraction,
    /// Refused: the hash would have more than [`MAX_FIELDS`].
    TooManyFields,
    /// What a [look](Operation::Look) found.
    Found(Found),
}

impl Outcome {
    /// The bytes of the values in it.
    pub fn bytes(&self) -> usize {
        match self {
            Outcome::Value(value) => value.len(),
            Outcome::Found(found) => found.bytes(),
            _ => 0,
        }
    }
}
