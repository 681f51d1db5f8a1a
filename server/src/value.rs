//! A value of the store, in pieces.
//!
//! All pieces but the last have the same length, whatever the value was made of, so that equal values are equal
//! piece by piece. An append copies and hashes the last piece and what it adds, never what is there before.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// The length of all pieces but the last, in bytes.
pub const PIECE: usize = 4096;

/// A value. Clones share its bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(from = "Bytes", into = "Bytes")]
pub struct Value(Pieces);

/// One piece stands by itself: most values are short.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Pieces {
    /// Up to [`PIECE`] bytes.
    One(Bytes),
    /// More than that; the last one is not empty.
    Many(Arc<Vec<Bytes>>),
}

impl Default for Value {
    fn default() -> Value {
        Value(Pieces::One(Bytes::new()))
    }
}

impl From<Bytes> for Value {
    /// Shares the bytes.
    fn from(bytes: Bytes) -> Value {
        if bytes.len() <= PIECE {
            return Value(Pieces::One(bytes));
        }
        let mut pieces = Vec::with_capacity(bytes.len().div_ceil(PIECE));
        cut(bytes, &mut pieces);
        Value(Pieces::Many(Arc::new(pieces)))
    }
}

impl From<Value> for Bytes {
    fn from(value: Value) -> Bytes {
        value.to_bytes()
    }
}

impl From<&[u8]> for Value {
    /// Copies the bytes.
    fn from(bytes: &[u8]) -> Value {
        Value::from(Bytes::copy_from_slice(bytes))
    }
}

impl Value {
    /// Its length in bytes.
    pub fn len(&self) -> usize {
        match &self.0 {
            Pieces::One(bytes) => bytes.len(),
            Pieces::Many(pieces) => (pieces.len() - 1) * PIECE + pieces[pieces.len() - 1].len(),
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pieces, in order; an empty value has one, which is empty.
    pub fn pieces(&self) -> &[Bytes] {
        match &self.0 {
            Pieces::One(bytes) => std::slice::from_ref(bytes),
            Pieces::Many(pieces) => pieces,
        }
    }

    /// All bytes at a stretch. Copies a value of several pieces.
    pub fn to_bytes(&self) -> Bytes {
        match self.pieces() {
            [only] => only.clone(),
            pieces => pieces.concat().into(),
        }
    }

    /// Whether it has these bytes.
    pub(crate) fn is(&self, bytes: &[u8]) -> bool {
        self.len() == bytes.len()
            && self.pieces().iter().zip(bytes.chunks(PIECE)).all(|(one, other)| one == other)
    }

    /// A part of it. Copies what it takes from several pieces.
    pub(crate) fn part(&self, range: std::ops::Range<usize>) -> Value {
        let (first, last) = (range.start / PIECE, (range.end.max(1) - 1) / PIECE);
        if first == last {
            let begin = first * PIECE;
            return Value::from(self.pieces()[first].slice(range.start - begin..range.end - begin));
        }
        let taken = self.pieces()[first..=last].concat();
        let begin = first * PIECE;
        Value::from(&taken[range.start - begin..range.end - begin])
    }

    /// Adds bytes at the end. The return value turns its [print](Value::print) from what it was into what it is.
    pub(crate) fn append(&mut self, tail: &[u8], seed: u64) -> u128 {
        let last = self.pieces().len() - 1;
        let old = &self.pieces()[last];
        let mut change = piece_print(seed, last, old);
        let end = Bytes::from([old, tail].concat());
        match &mut self.0 {
            Pieces::One(_) => *self = Value::from(end),
            Pieces::Many(pieces) => {
                // Readers of the value before keep their list.
                let pieces = Arc::make_mut(pieces);
                pieces.pop();
                cut(end, pieces);
            }
        }
        for (number, piece) in self.pieces().iter().enumerate().skip(last) {
            change ^= piece_print(seed, number, piece);
        }
        change
    }

    /// A digest of the bytes and of whose they are, as `seed` says.
    pub(crate) fn print(&self, seed: u64) -> u128 {
        let pieces = self.pieces().iter().enumerate();
        pieces.fold(0, |print, (number, piece)| print ^ piece_print(seed, number, piece))
    }
}

/// Cuts bytes that begin where a piece does.
fn cut(mut bytes: Bytes, pieces: &mut Vec<Bytes>) {
    while bytes.len() > PIECE {
        pieces.push(bytes.split_to(PIECE));
    }
    pieces.push(bytes);
}

/// Tells the same bytes at another place, or of another key, apart.
fn piece_print(seed: u64, number: usize, piece: &[u8]) -> u128 {
    xxh3_128_with_seed(piece, seed.wrapping_add(number as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However it came about, a value is the same.
        #[test]
        fn a_value_is_its_bytes_however_they_were_added(
            first in 0..3 * PIECE,
            tails in prop::collection::vec(prop_oneof![0..5usize, PIECE - 2..PIECE + 2, 0..3 * PIECE], 0..6),
        ) {
            let mut bytes: Vec<u8> = (0..first).map(|at| at as u8).collect();
            let mut value = Value::from(&bytes[..]);
            let mut print = value.print(7);
            for (number, length) in tails.into_iter().enumerate() {
                let tail = vec![number as u8; length];
                print ^= value.append(&tail, 7);
                bytes.extend(tail);
                let whole = Value::from(&bytes[..]);
                prop_assert_eq!(&value, &whole);
                prop_assert_eq!(print, whole.print(7));
                prop_assert_eq!((value.len(), &value.to_bytes()[..]), (bytes.len(), &bytes[..]));
            }
        }
    }

    #[test]
    fn prints_tell_places_and_owners_apart() {
        let one = Value::from(&[1; 2 * PIECE][..]);
        let other = Value::from(&[2; 2 * PIECE][..]);
        let mixed = Value::from(&[[1; PIECE], [2; PIECE]].concat()[..]);
        let turned = Value::from(&[[2; PIECE], [1; PIECE]].concat()[..]);
        let prints = [one.print(1), one.print(2), other.print(1), mixed.print(1), turned.print(1), 0];
        for (at, print) in prints.iter().enumerate() {
            assert!(!prints[at + 1..].contains(print), "{at}");
        }
    }

    /// An append to a long value leaves all but its last piece where they are.
    #[test]
    fn an_append_copies_the_end_alone() {
        let mut value = Value::from(&vec![1; 256 * PIECE - 10][..]);
        let before: Vec<*const u8> = value.pieces().iter().map(|piece| piece.as_ptr()).collect();
        let reader = value.clone();
        value.append(b"tail", 1);
        let after: Vec<*const u8> = value.pieces().iter().map(|piece| piece.as_ptr()).collect();
        assert_eq!(before[..255], after[..255]);
        assert_eq!((reader.len() + 4, after.len()), (value.len(), 256));
    }
}
