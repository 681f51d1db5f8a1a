//! The bytes of commands in the log and of replies between nodes.
//!
//! The first byte is the version of the format (1). Then come the number of items and the items, each a
//! tag and its fields. Numbers are LEB128 varints, signed ones zigzag; a string is its length and its
//! bytes. Decoding shares the strings with the input.
//!
//! Entries outlive programs, so a tag never changes its meaning and an unknown one is an error. Decoding
//! never panics and never believes a length: a string is taken only when its bytes are there, and lists
//! grow item by item while input remains, at least one byte each.

use crate::operation::{Operation, Outcome, When};
use bytes::Bytes;
use coracle::CodecError;

/// The version of the format.
const VERSION: u8 = 1;

/// The most operations in one batch. An operation takes as little as 3 bytes in the log but about a hundred
/// in memory, so this, and not the length alone, bounds what decoding an entry costs.
pub const MAX_OPERATIONS: usize = 16_384;

/// The most keys in one operation: what fits in one RESP command.
pub const MAX_KEYS: usize = crate::resp::MAX_ARGUMENTS;

/// Encodes a batch.
pub fn encode_operations(batch: &[Operation]) -> Bytes {
    let mut out = start(batch.len(), batch.iter().map(room).sum());
    for operation in batch {
        match operation {
            Operation::Set { key, value, when, get } => {
                out.push(1);
                put_string(&mut out, key);
                put_string(&mut out, value);
                let when = match when {
                    When::Always => 0,
                    When::Absent => 1,
                    When::Present => 2,
                };
                out.push(when | u8::from(*get) << 7);
            }
            Operation::Delete { keys } => {
                out.push(2);
                put_number(&mut out, keys.len() as u64);
                keys.iter().for_each(|key| put_string(&mut out, key));
            }
            Operation::Append { key, value } => {
                out.push(3);
                put_string(&mut out, key);
                put_string(&mut out, value);
            }
            Operation::Add { key, by } => {
                out.push(4);
                put_string(&mut out, key);
                put_signed(&mut out, *by);
            }
            Operation::SetAll { pairs } => {
                out.push(5);
                put_number(&mut out, pairs.len() as u64);
                for (key, value) in pairs {
                    put_string(&mut out, key);
                    put_string(&mut out, value);
                }
            }
        }
    }
    out.into()
}

/// Decodes a batch.
pub fn decode_operations(bytes: &Bytes) -> Result<Vec<Operation>, CodecError> {
    Decoder::new(bytes)?.list(MAX_OPERATIONS, |from| {
        Ok(match from.byte()? {
            1 => {
                let (key, value) = (from.string()?, from.string()?);
                let flags = from.byte()?;
                let when = match flags & 0x7f {
                    0 => When::Always,
                    1 => When::Absent,
                    2 => When::Present,
                    other => return Err(wrong(format!("{other} is not a condition"))),
                };
                Operation::Set { key, value, when, get: flags >> 7 == 1 }
            }
            2 => Operation::Delete { keys: from.items(MAX_KEYS, Decoder::string)? },
            3 => Operation::Append { key: from.string()?, value: from.string()? },
            4 => Operation::Add { key: from.string()?, by: from.signed()? },
            5 => {
                let pair = |from: &mut Decoder| Ok((from.string()?, from.string()?));
                Operation::SetAll { pairs: from.items(MAX_KEYS, pair)? }
            }
            other => return Err(wrong(format!("{other} is not an operation"))),
        })
    })
}

/// Encodes the outcomes of a batch.
pub fn encode_outcomes(outcomes: &[Outcome]) -> Bytes {
    let mut out = start(outcomes.len(), outcomes.len());
    for outcome in outcomes {
        match outcome {
            Outcome::Done => out.push(1),
            Outcome::Nothing => out.push(2),
            Outcome::Number(number) => {
                out.push(3);
                put_signed(&mut out, *number);
            }
            Outcome::Value(value) => {
                out.push(4);
                put_string(&mut out, value);
            }
            Outcome::NotANumber => out.push(5),
            Outcome::Overflow => out.push(6),
            Outcome::TooLong => out.push(7),
        }
    }
    out.into()
}

/// Decodes the outcomes of a batch.
pub fn decode_outcomes(bytes: &Bytes) -> Result<Vec<Outcome>, CodecError> {
    Decoder::new(bytes)?.list(MAX_OPERATIONS, |from| {
        Ok(match from.byte()? {
            1 => Outcome::Done,
            2 => Outcome::Nothing,
            3 => Outcome::Number(from.signed()?),
            4 => Outcome::Value(from.string()?),
            5 => Outcome::NotANumber,
            6 => Outcome::Overflow,
            7 => Outcome::TooLong,
            other => return Err(wrong(format!("{other} is not an outcome"))),
        })
    })
}

/// About as many bytes as an operation of the common kind takes; others let the buffer grow.
fn room(operation: &Operation) -> usize {
    match operation {
        Operation::Set { key, value, .. } | Operation::Append { key, value } => key.len() + value.len() + 8,
        _ => 0,
    }
}

/// The start of an encoding, with room for items of so many bytes.
fn start(items: usize, room: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + room);
    out.push(VERSION);
    put_number(&mut out, items as u64);
    out
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_signed(out: &mut Vec<u8>, number: i64) {
    put_number(out, ((number << 1) ^ (number >> 63)) as u64);
}

fn put_string(out: &mut Vec<u8>, string: &[u8]) {
    put_number(out, string.len() as u64);
    out.extend_from_slice(string);
}

fn wrong(problem: String) -> CodecError {
    CodecError(problem)
}

/// Walks over the input from front to back.
struct Decoder<'a> {
    input: &'a Bytes,
    /// The bytes before this offset are taken.
    at: usize,
}

impl Decoder<'_> {
    /// Checks the version.
    fn new(input: &Bytes) -> Result<Decoder<'_>, CodecError> {
        let mut decoder = Decoder { input, at: 0 };
        match decoder.byte()? {
            VERSION => Ok(decoder),
            other => Err(wrong(format!("version {other} of the format is not known"))),
        }
    }

    /// All the rest: a list, and nothing after it.
    fn list<T>(
        mut self,
        most: usize,
        item: impl Fn(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Vec<T>, CodecError> {
        let items = self.items(most, item)?;
        match self.left() {
            0 => Ok(items),
            left => Err(wrong(format!("{left} bytes are left over"))),
        }
    }

    fn items<T>(
        &mut self,
        most: usize,
        item: impl Fn(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Vec<T>, CodecError> {
        let count = self.number()?;
        if count > most as u64 {
            return Err(wrong(format!("{count} items are over the limit of {most}")));
        }
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn left(&self) -> usize {
        self.input.len() - self.at
    }

    fn byte(&mut self) -> Result<u8, CodecError> {
        let Some(&byte) = self.input.get(self.at) else { return Err(wrong("the input ends early".into())) };
        self.at += 1;
        Ok(byte)
    }

    fn number(&mut self) -> Result<u64, CodecError> {
        let mut number = 0u64;
        for place in 0..10 {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if place == 9 && bits > 1 {
                break;
            }
            number |= bits << (place * 7);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(wrong("a number is over 64 bits".into()))
    }

    fn signed(&mut self) -> Result<i64, CodecError> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn string(&mut self) -> Result<Bytes, CodecError> {
        let length = self.number()?;
        if length > self.left() as u64 {
            return Err(wrong(format!("a string of {length} bytes where {} are left", self.left())));
        }
        let start = self.at;
        self.at += length as usize;
        Ok(self.input.slice(start..self.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn string() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from)
    }

    fn operation() -> impl Strategy<Value = Operation> {
        let when = prop_oneof![Just(When::Always), Just(When::Absent), Just(When::Present)];
        prop_oneof![
            (string(), string(), when, any::<bool>()).prop_map(|(key, value, when, get)| Operation::Set {
                key,
                value,
                when,
                get
            }),
            prop::collection::vec(string(), 0..5).prop_map(|keys| Operation::Delete { keys }),
            (string(), string()).prop_map(|(key, value)| Operation::Append { key, value }),
            (string(), any::<i64>()).prop_map(|(key, by)| Operation::Add { key, by }),
            prop::collection::vec((string(), string()), 0..5).prop_map(|pairs| Operation::SetAll { pairs }),
        ]
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            Just(Outcome::Done),
            Just(Outcome::Nothing),
            any::<i64>().prop_map(Outcome::Number),
            string().prop_map(Outcome::Value),
            Just(Outcome::NotANumber),
            Just(Outcome::Overflow),
            Just(Outcome::TooLong),
        ]
    }

    proptest! {
        #[test]
        fn batches_and_outcomes_survive_their_encoding(
            operations in prop::collection::vec(operation(), 0..10),
            outcomes in prop::collection::vec(outcome(), 0..10),
        ) {
            prop_assert_eq!(decode_operations(&encode_operations(&operations)).unwrap(), operations);
            prop_assert_eq!(decode_outcomes(&encode_outcomes(&outcomes)).unwrap(), outcomes);
        }

        #[test]
        fn what_is_cut_or_longer_is_an_error(operations in prop::collection::vec(operation(), 0..4)) {
            let whole = encode_operations(&operations);
            for cut in 0..whole.len() {
                prop_assert!(decode_operations(&whole.slice(..cut)).is_err());
            }
            prop_assert!(decode_operations(&[&whole[..], &[0]].concat().into()).is_err());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let bytes = Bytes::from([&[VERSION][..], &bytes].concat());
            let _ = decode_operations(&bytes);
            let _ = decode_outcomes(&bytes);
        }
    }

    #[test]
    fn the_format_stays_what_it_was() {
        let batch = [
            Operation::Set { key: "k".into(), value: "v".into(), when: When::Absent, get: true },
            Operation::Delete { keys: vec!["a".into(), "bc".into()] },
            Operation::Append { key: "k".into(), value: "x".into() },
            Operation::Add { key: "n".into(), by: -300 },
            Operation::SetAll { pairs: vec![("a".into(), "1".into())] },
        ];
        let expected =
            b"\x01\x05\x01\x01k\x01v\x81\x02\x02\x01a\x02bc\x03\x01k\x01x\x04\x01n\xd7\x04\x05\x01\x01a\x011";
        assert_eq!(&encode_operations(&batch)[..], expected);
        let outcomes = [Outcome::Done, Outcome::Number(7), Outcome::Value("old".into()), Outcome::TooLong];
        assert_eq!(&encode_outcomes(&outcomes)[..], b"\x01\x04\x01\x03\x0e\x04\x03old\x07");
    }

    #[test]
    fn a_claimed_length_is_not_believed() {
        for claim in [
            &b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"[..],
            b"\x01\x01\x03\xff\xff\xff\xff\x0f",
            b"\x02\x00",
        ] {
            assert!(decode_operations(&Bytes::copy_from_slice(claim)).is_err());
        }
    }
}
