//! The value of a key in three numbers.
//!
//! A search meets very many values, and each is as long as all appends before it. But clients notice a value
//! only in two ways: a get returns it, or a compare-and-set asks for it. So gather these *noticed* values of
//! the whole history and sort them. A value matters only as long as it is a prefix of one of them, since
//! then appends may still make it one; and those it is a prefix of stand side by side. So a live value is
//! the range of the noticed values that begin with it, and its length. All other values are *dead*: they and
//! whatever is appended to them are never noticed, so all dead values are one state. This is exact, not a
//! hash: two values have the same numbers only if they are equal or both dead.
//!
//! (This is why an append's answer tells no length here: that would be a third way to notice a value, and
//! the dead ones would have to be told apart again.)
//!
//! An append is two binary searches over the piece that is appended, however long the value is. And that
//! orders of appends which nobody saw are all one state makes the search much shorter, too.

use std::collections::HashMap;

use bytes::Bytes;

use super::command::{Command, Output, is_pure};
use super::model::Model;
use super::operation::{History, Operation, Outcome};

/// The model of one key for the operations of one history.
pub(super) struct Prefixes {
    /// Sorted, each once.
    noticed: Vec<Bytes>,
    start: Value,
}

/// What the key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Value {
    Absent,
    /// The first `length` bytes of `noticed[low]`, which exactly `noticed[low..high]` begin with.
    Live {
        low: u32,
        high: u32,
        length: usize,
    },
    /// No prefix of any noticed value.
    Dead,
}

/// [`Command`] with values as states.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Asked {
    Get,
    Put(Value),
    Append(Bytes),
    Delete,
    Cas { from: Value, to: Value },
}

/// [`Output`] with values as states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Told {
    Value(Value),
    Done,
    Deleted(bool),
    Swapped(bool),
}

/// The model for the operations of one key, and these in its terms. `empty` tells whether the key holds the
/// empty string at first; otherwise it is absent.
pub(super) fn compile(history: &History<Command, Output>, empty: bool) -> (Prefixes, History<Asked, Told>) {
    let mut prefixes = Prefixes { noticed: Vec::new(), start: Value::Absent };
    for operation in history.operations() {
        if let Command::Cas { from: Some(from), .. } = &operation.input {
            prefixes.noticed.push(from.clone());
        }
        if let Some(Output::Value(Some(value))) = operation.output() {
            prefixes.noticed.push(value.clone());
        }
    }
    prefixes.noticed.sort_unstable();
    prefixes.noticed.dedup();
    if empty {
        prefixes.start = prefixes.value(b"");
    }
    let mut known = HashMap::new();
    let mut value = |bytes: &Bytes| *known.entry(bytes.clone()).or_insert_with(|| prefixes.value(bytes));
    let operations = history.operations().iter().map(|operation| {
        let input = match &operation.input {
            Command::Get => Asked::Get,
            Command::Put(bytes) => Asked::Put(value(bytes)),
            Command::Append(tail) => Asked::Append(tail.clone()),
            Command::Delete => Asked::Delete,
            Command::Cas { from, to } => {
                Asked::Cas { from: from.as_ref().map_or(Value::Absent, &mut value), to: value(to) }
            }
        };
        let outcome = match &operation.outcome {
            Outcome::Unknown => Outcome::Unknown,
            Outcome::Refused => Outcome::Refused,
            Outcome::Returned { at, output } => {
                let output = match output {
                    Output::Value(bytes) => Told::Value(bytes.as_ref().map_or(Value::Absent, &mut value)),
                    Output::Done => Told::Done,
                    Output::Deleted(there) => Told::Deleted(*there),
                    Output::Swapped(held) => Told::Swapped(*held),
                };
                Outcome::Returned { at: *at, output }
            }
        };
        Operation { client: operation.client, input, invoked: operation.invoked, outcome }
    });
    let compiled = History::from_operations(operations.collect());
    (prefixes, compiled)
}

impl Prefixes {
    /// The state in which the key holds `bytes`.
    fn value(&self, bytes: &[u8]) -> Value {
        self.within(0, self.noticed.len(), 0, bytes)
    }

    /// The state in which the key holds the first `length` bytes of `noticed[low..high]`, which these share,
    /// followed by `tail`.
    fn within(&self, low: usize, high: usize, length: usize, tail: &[u8]) -> Value {
        let range = &self.noticed[low..high];
        let before = range.partition_point(|noticed| &noticed[length..] < tail);
        let begin = range[before..].partition_point(|noticed| noticed[length..].starts_with(tail));
        if begin == 0 {
            return Value::Dead;
        }
        let (low, length) = (low + before, length + tail.len());
        Value::Live { low: low as u32, high: (low + begin) as u32, length }
    }

    fn append(&self, value: Value, tail: &[u8]) -> Value {
        match value {
            Value::Absent => self.value(tail),
            Value::Live { low, high, length } => self.within(low as usize, high as usize, length, tail),
            Value::Dead => Value::Dead,
        }
    }
}

impl Model for Prefixes {
    type State = Value;
    type Input = Asked;
    type Output = Told;

    fn start(&self) -> Value {
        self.start
    }

    fn step(&self, state: &Value, input: &Asked, output: Option<&Told>) -> Option<Value> {
        match (input, output) {
            (Asked::Get, None) => Some(*state),
            (Asked::Get, Some(Told::Value(value))) => (value == state).then_some(*state),
            (Asked::Put(value), None | Some(Told::Done)) => Some(*value),
            (Asked::Append(tail), None | Some(Told::Done)) => Some(self.append(*state, tail)),
            (Asked::Delete, None | Some(Told::Done)) => Some(Value::Absent),
            (Asked::Delete, Some(Told::Deleted(there))) => {
                (*there == (*state != Value::Absent)).then_some(Value::Absent)
            }
            (Asked::Cas { from, to }, None) => Some(if from == state { *to } else { *state }),
            (Asked::Cas { from, to }, Some(Told::Swapped(true))) => (from == state).then_some(*to),
            (Asked::Cas { from, .. }, Some(Told::Swapped(false))) => (from != state).then_some(*state),
            _ => None, // an answer to another question
        }
    }

    fn is_pure(&self, _: &Asked, output: &Told) -> bool {
        match output {
            Told::Value(_) => true,
            Told::Done => false,
            Told::Deleted(there) => is_pure(&Output::Deleted(*there)),
            Told::Swapped(held) => is_pure(&Output::Swapped(*held)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(noticed: &[&'static str]) -> Prefixes {
        let mut noticed: Vec<Bytes> = noticed.iter().map(|&text| Bytes::from(text)).collect();
        noticed.sort_unstable();
        Prefixes { noticed, start: Value::Absent }
    }

    #[test]
    fn the_way_to_a_value_does_not_matter() {
        let prefixes = prefixes(&["ab", "abc", "abd", "b", ""]);
        for text in ["", "a", "ab", "abc", "abd", "abe", "b", "bb", "c"] {
            for cut in 0..=text.len() {
                let (front, tail) = text.split_at(cut);
                let whole = prefixes.value(text.as_bytes());
                assert_eq!(
                    prefixes.append(prefixes.value(front.as_bytes()), tail.as_bytes()),
                    whole,
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn different_values_are_different_states_unless_both_are_dead() {
        let prefixes = prefixes(&["abab", "abb", "ba"]);
        let texts = ["", "a", "ab", "aba", "abab", "ababa", "abb", "b", "ba", "bab"];
        for left in texts {
            for right in texts {
                let (a, b) = (prefixes.value(left.as_bytes()), prefixes.value(right.as_bytes()));
                let dead = a == Value::Dead;
                assert_eq!(a == b, left == right || dead && b == Value::Dead, "{left} {right}");
            }
        }
    }
}
