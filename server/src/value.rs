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
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
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

impl Default for Pieces {
    fn default() -> Pieces {
        Pieces::One(Bytes::new())
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
        let mut taken = Vec::with_capacity(range.len());
        for (piece, begin) in self.pieces()[first..=last].iter().zip((first * PIECE..).step_by(PIECE)) {
            let (from, to) = (range.start.max(begin) - begin, (range.end - begin).min(piece.len()));
            taken.extend_from_slice(&piece[from..to]);
        }
        Value::from(Bytes::from(taken))
    }

    /// Becomes these bytes. Where it is as long and nobody else has it they take its memory: that asks for no other, which
    /// would be cold.
    pub(crate) fn become_these(&mut self, bytes: &[u8]) {
        let old = match &mut self.0 {
            Pieces::One(old) if old.len() == bytes.len() => std::mem::take(old),
            _ => Bytes::new(),
        };
        *self = match old.try_into_mut() {
            Ok(mut own) if own.len() == bytes.len() => {
                own.copy_from_slice(bytes);
                Value(Pieces::One(own.freeze()))
            }
            _ => Value::from(bytes),
        };
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

    /// Writes over a part of it, from this byte on; where it is shorter, zeros come between. Copies no more than that part and what
    /// stands beside it in its pieces. The return value turns its [print](Value::print) from what it was into what it is.
    pub(crate) fn overwrite(&mut self, from: usize, part: &[u8], seed: u64) -> u128 {
        static ZEROS: [u8; PIECE] = [0; PIECE];
        let (length, end) = (self.len(), from + part.len());
        // The pieces that change: where it grows the last one does, too.
        let first = if end > length { from.min(length.saturating_sub(1)) } else { from } / PIECE;
        let old = self.pieces().iter().enumerate().skip(first).take_while(|(at, _)| at * PIECE < end);
        let mut change = old.fold(0, |print, (at, piece)| print ^ piece_print(seed, at, piece));
        let count = length.max(end).div_ceil(PIECE).max(1);
        let mut pieces = match std::mem::take(&mut self.0) {
            Pieces::One(piece) => vec![piece],
            // Readers of the value before keep their list.
            Pieces::Many(pieces) => Arc::unwrap_or_clone(pieces),
        };
        pieces.resize(count, Bytes::new());
        for (at, piece) in pieces.iter_mut().enumerate().skip(first).take_while(|(at, _)| at * PIECE < end) {
            let begin = at * PIECE;
            let size = (length.max(end) - begin).min(PIECE);
            let (start, stop) = (from.clamp(begin, begin + size), end.clamp(begin, begin + size));
            if start == stop && piece.is_empty() && size == PIECE {
                *piece = Bytes::from_static(&ZEROS);
            } else {
                let mut bytes = vec![0; size];
                bytes[..piece.len()].copy_from_slice(piece);
                if start < stop {
                    bytes[start - begin..stop - begin].copy_from_slice(&part[start - from..stop - from]);
                }
                *piece = bytes.into();
            }
            change ^= piece_print(seed, at, piece);
        }
        self.0 = match pieces.len() {
            1 => Pieces::One(pieces.remove(0)),
            _ => Pieces::Many(Arc::new(pieces)),
        };
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

    proptest! {
        #[test]
        fn a_value_that_is_written_over_is_its_bytes(
            first in prop_oneof![0..10usize, 0..3 * PIECE],
            parts in prop::collection::vec((0..4 * PIECE, prop_oneof![1..5usize, PIECE - 2..PIECE + 2, 1..3 * PIECE]), 1..5),
        ) {
            let mut bytes: Vec<u8> = (0..first).map(|at| at as u8).collect();
            let mut value = Value::from(&bytes[..]);
            let mut print = value.print(7);
            for (number, (from, length)) in parts.into_iter().enumerate() {
                let part = vec![number as u8 + 1; length];
                let reader = (value.clone(), bytes.clone());
                print ^= value.overwrite(from, &part, 7);
                bytes.resize(bytes.len().max(from + length), 0);
                bytes[from..from + length].copy_from_slice(&part);
                let whole = Value::from(&bytes[..]);
                prop_assert_eq!(&value, &whole);
                prop_assert_eq!(print, whole.print(7));
                prop_assert_eq!(&reader.0.to_bytes()[..], &reader.1[..]);
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

    #[test]
    fn a_value_becomes_other_bytes_whoever_has_it_and_whatever_it_was() {
        let short = [&b""[..], b"a", b"one", b"two"];
        let long = [vec![1; PIECE], vec![2; PIECE], vec![3; PIECE + 1], vec![4; 3 * PIECE]];
        let all = || short.into_iter().chain(long.iter().map(|bytes| &bytes[..]));
        for (from, to) in all().flat_map(|from| all().map(move |to| (from, to))) {
            let mut value = Value::from(from);
            value.become_these(to);
            assert_eq!((&value, value.print(7)), (&Value::from(to), Value::from(to).print(7)));
            let reader = value.clone();
            value.become_these(from);
            assert_eq!((&value.to_bytes()[..], &reader.to_bytes()[..]), (from, to));
        }
        // A part of other bytes, which stay what they are.
        let whole = Bytes::from(vec![1; 8]);
        let mut part = Value::from(whole.slice(2..5));
        part.become_these(b"abc");
        assert_eq!((&part.to_bytes()[..], &whole[..]), (&b"abc"[..], &[1; 8][..]));
    }

    /// The memory of a value that nobody else has is used again.
    #[test]
    fn a_value_as_long_takes_the_memory_of_the_one_before() {
        let mut value = Value::from(&[1; 100][..]);
        let place = value.pieces()[0].as_ptr();
        value.become_these(&[2; 100]);
        assert_eq!(value.pieces()[0].as_ptr(), place);
        let reader = value.clone();
        value.become_these(&[3; 100]);
        assert_ne!(value.pieces()[0].as_ptr(), place);
        drop(reader);
    }

    /// What is written over costs its pieces, and zeros cost nothing, however long the value is.
    #[test]
    fn writing_over_a_part_copies_its_pieces_alone() {
        let mut value = Value::from(&vec![1; 256 * PIECE][..]);
        let before: Vec<*const u8> = value.pieces().iter().map(|piece| piece.as_ptr()).collect();
        value.overwrite(100 * PIECE - 1, b"part", 1);
        let after: Vec<*const u8> = value.pieces().iter().map(|piece| piece.as_ptr()).collect();
        let changed: Vec<usize> = (0..256).filter(|at| before[*at] != after[*at]).collect();
        assert_eq!(changed, [99, 100]);
        value.overwrite(1000 * PIECE, b"end", 1);
        let zeros = &value.pieces()[256..1000];
        assert!(zeros.iter().all(|piece| piece.as_ptr() == zeros[0].as_ptr() && piece.len() == PIECE));
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
