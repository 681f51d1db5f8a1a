//! One key's value and history, and its digest.

use crate::fields::Fields;
use crate::value::Value;
use std::num::NonZeroU64;
use xxhash_rust::xxh3::{xxh3_128, xxh3_128_with_seed};

/// A key's value and history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The value.
    pub datum: Datum,
    /// When it ends, unless it is for ever.
    pub deadline: Option<Deadline>,
    /// The revision in which the key came to be.
    pub created: u64,
    /// The revision that changed it last.
    pub modified: u64,
    /// How many times it was written since it came to be, starting at 1.
    pub version: u64,
    /// The digest of all this and the key.
    pub(super) print: u128,
}

/// A value of either kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Datum {
    /// A string.
    Text(Value),
    /// A hash.
    Fields(Fields),
}

impl Datum {
    /// How many bytes it has.
    pub fn len(&self) -> usize {
        match self {
            Datum::Text(value) => value.len(),
            Datum::Fields(fields) => fields.bytes(),
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// About the memory that it takes, whatever it shares with others: after a restart it shares nothing.
    pub(super) fn weight(&self) -> usize {
        match self {
            Datum::Text(value) => value.len(),
            Datum::Fields(fields) => fields.weight(),
        }
    }
}

/// What a key is given.
pub(super) enum Given<'a> {
    /// A string of these bytes, which are copied.
    Bytes(&'a [u8]),
    /// A value as it is.
    Datum(Datum),
}

impl<'a> From<&'a [u8]> for Given<'a> {
    fn from(bytes: &'a [u8]) -> Given<'a> {
        Given::Bytes(bytes)
    }
}

impl From<Value> for Given<'_> {
    fn from(value: Value) -> Self {
        Given::Datum(Datum::Text(value))
    }
}

impl From<Datum> for Given<'_> {
    fn from(datum: Datum) -> Self {
        Given::Datum(datum)
    }
}

impl From<Given<'_>> for Datum {
    fn from(given: Given) -> Datum {
        match given {
            Given::Bytes(bytes) => Datum::Text(Value::from(bytes)),
            Given::Datum(datum) => datum,
        }
    }
}

impl Datum {
    /// Becomes what it is given.
    pub(super) fn take(&mut self, given: Given) {
        match (self, given) {
            (Datum::Text(value), Given::Bytes(bytes)) => value.become_these(bytes),
            (datum, given) => *datum = given.into(),
        }
    }
}

/// The end of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deadline {
    /// By the cluster's clock, in milliseconds.
    pub at: NonZeroU64,
    /// The same as whoever asked for it would say, in milliseconds since 1970.
    pub unix: i64,
}

/// Whose record it is, as prints know it.
pub(super) struct Owner(u128);

impl Owner {
    pub(super) fn of(database: u8, key: &[u8]) -> Owner {
        Owner(match database {
            0 => xxh3_128(key),
            other => xxh3_128_with_seed(key, u64::from(other)),
        })
    }

    /// Sets the value's print apart from that of the same bytes elsewhere.
    pub(super) fn seed(&self) -> u64 {
        self.0 as u64
    }
}

impl Record {
    /// The string, if it is one.
    pub fn text(&self) -> Option<&Value> {
        match &self.datum {
            Datum::Text(value) => Some(value),
            Datum::Fields(_) => None,
        }
    }

    /// The hash, if it is one.
    pub fn fields(&self) -> Option<&Fields> {
        match &self.datum {
            Datum::Fields(fields) => Some(fields),
            Datum::Text(_) => None,
        }
    }

    /// Whether it has ended at this time of the cluster's clock.
    pub fn is_over(&self, now: u64) -> bool {
        self.deadline.is_some_and(|deadline| deadline.at.get() <= now)
    }

    /// The digest of the key and all of the record.
    pub(super) fn fresh_print(&self, owner: &Owner) -> u128 {
        let value = self.text().map_or(0, |value| value.print(owner.seed()));
        self.head_print(owner) ^ value
    }

    /// The digest of all but the bytes of a string.
    pub(super) fn head_print(&self, owner: &Owner) -> u128 {
        let mut head = [0; 88];
        head[..16].copy_from_slice(&owner.0.to_le_bytes());
        let (at, unix) = self.deadline.map_or((0, 0), |deadline| (deadline.at.get(), deadline.unix));
        let kind = u64::from(self.fields().is_some());
        let length = self.datum.len() as u64;
        let numbers = [self.created, self.modified, self.version, length, at, unix as u64, kind];
        for (number, place) in numbers.into_iter().zip(head[16..72].chunks_mut(8)) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        if let Some(fields) = self.fields() {
            head[72..].copy_from_slice(&fields.print().to_le_bytes());
        }
        // Of a string that is for ever it is that of the first version, which knows no others.
        xxh3_128(if kind == 0 && at == 0 { &head[..48] } else { &head })
    }
}
