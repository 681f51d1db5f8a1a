//! The machine that is replicated: ordered keys with revisions.
//!
//! It knows nothing of RESP. A command is a *batch* of operations of one connection: it takes one entry of
//! the log and is applied whole and in order, so a pipeline of a thousand writes costs one sync, and MSET
//! is seen by others entirely or not at all. A query is a batch too, answered from one state.
//!
//! The machine counts a global **revision**: each operation that changes anything raises it by one. A key
//! remembers the revision that created it, the one that changed it last, and its version (1 when created,
//! one more with each change; a key that is deleted and written again starts anew). RESP shows none of
//! this; other front ends will.
//!
//! The digest is kept as it goes: each key has a 128-bit print over its name, value and numbers, and the
//! machine keeps the XOR of all prints. So an operation costs what it touches, never O(state).
//!
//! Keys and values are copied out of the entry that brought them: a slice would keep the whole entry, up
//! to megabytes of batch, alive for as long as one small key of it lives.

mod state;

pub use crate::operation::{
    Found, Lookup, MAX_ANSWER, MAX_COST, MAX_KEY, MAX_VALUE, Operation, Outcome, When,
};

use crate::codec;
use crate::key::Key;
use crate::value::Value;
use bytes::Bytes;
use coracle::snapshot::Save;
use coracle::{CodecError, Context, QueryContext, StateMachine};
use imbl::OrdMap;
use std::io;
use xxhash_rust::xxh3::xxh3_128;

/// A machine that the server can serve: [`Kv`], or one that wraps it.
pub trait Machine:
    StateMachine<Command = Vec<Operation>, Reply = Vec<Outcome>, Query = Vec<Lookup>, Answer = Vec<Found>>
{
}

impl<M> Machine for M where
    M: StateMachine<Command = Vec<Operation>, Reply = Vec<Outcome>, Query = Vec<Lookup>, Answer = Vec<Found>>
{
}

/// A key's value and history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The value.
    pub value: Value,
    /// The revision in which the key came to be.
    pub created: u64,
    /// The revision that changed it last.
    pub modified: u64,
    /// How many times it was written since it came to be, starting at 1.
    pub version: u64,
    /// The digest of all this and the key.
    pub(crate) print: u128,
}

/// The keys. See the [module](self).
#[derive(Clone, Default, Debug)]
pub struct Kv {
    pub(crate) records: OrdMap<Key, Record>,
    pub(crate) revision: u64,
    pub(crate) prints: u128,
    /// What cannot be written: for tests.
    fails_on: Option<Bytes>,
}

impl Kv {
    /// A machine without keys, at revision 0.
    pub fn new() -> Kv {
        Kv::default()
    }

    /// One that cannot apply a write of this value, for tests of what a cluster does then.
    pub(crate) fn failing_on(self, value: Option<String>) -> Kv {
        Kv { fails_on: value.map(Bytes::from), ..self }
    }

    /// How many operations have changed anything so far.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// A key's record.
    pub fn record(&self, key: &[u8]) -> Option<&Record> {
        self.records.get(key)
    }

    fn operate(&mut self, operation: Operation) -> Outcome {
        match operation {
            Operation::Set { key, value, when, get } => self.set(&key, &value, when, get),
            Operation::Delete { keys } => self.delete(&keys),
            Operation::Append { key, value } => self.append(&key, &value),
            Operation::Add { key, by } => self.add(&key, by),
            Operation::SetAll { pairs } => self.set_all(&pairs),
        }
    }

    fn set(&mut self, key: &[u8], value: &[u8], when: When, get: bool) -> Outcome {
        if value.len() > MAX_VALUE {
            return Outcome::TooLong;
        }
        // The common case looks a key up once.
        let (wanted, before) = if when == When::Always && !get {
            (true, None)
        } else {
            let before = self.records.get(key);
            let wanted = match when {
                When::Always => true,
                When::Absent => before.is_none(),
                When::Present => before.is_some(),
            };
            (wanted, before.filter(|_| get).map(|record| record.value.to_bytes()))
        };
        if wanted {
            self.revision += 1;
            self.put(key, Value::from(value));
        }
        match (get, before) {
            (true, Some(value)) => Outcome::Value(value),
            (true, None) => Outcome::Nothing,
            (false, _) if wanted => Outcome::Done,
            (false, _) => Outcome::Nothing,
        }
    }

    fn delete(&mut self, keys: &[Bytes]) -> Outcome {
        let mut removed = 0;
        for key in keys {
            if let Some(record) = self.records.remove(&key[..]) {
                self.prints ^= record.print;
                removed += 1;
            }
        }
        if removed > 0 {
            self.revision += 1;
        }
        Outcome::Number(removed)
    }

    fn append(&mut self, key: &[u8], tail: &[u8]) -> Outcome {
        let Some(record) = self.records.get_mut(key) else {
            return match self.set(key, tail, When::Always, false) {
                Outcome::Done => Outcome::Number(tail.len() as i64),
                refused => refused,
            };
        };
        let length = record.value.len() + tail.len();
        if length > MAX_VALUE {
            return Outcome::TooLong;
        }
        // As in redis, adding nothing to something is no change.
        if !tail.is_empty() {
            self.revision += 1;
            let owner = Owner::of(key);
            self.prints ^= record.print;
            record.print ^= record.head_print(&owner);
            record.print ^= record.value.append(tail, owner.seed());
            record.modified = self.revision;
            record.version += 1;
            record.print ^= record.head_print(&owner);
            self.prints ^= record.print;
        }
        Outcome::Number(length as i64)
    }

    fn add(&mut self, key: &[u8], by: i64) -> Outcome {
        let before = match self.records.get(key) {
            // More than a piece is no number of 64 bits.
            Some(record) => {
                match number(&record.value.pieces()[0]).filter(|_| record.value.pieces().len() == 1) {
                    Some(number) => number,
                    None => return Outcome::NotANumber,
                }
            }
            None => 0,
        };
        let Some(sum) = before.checked_add(by) else { return Outcome::Overflow };
        self.revision += 1;
        self.put(key, Bytes::from(sum.to_string()).into());
        Outcome::Number(sum)
    }

    fn set_all(&mut self, pairs: &[(Bytes, Bytes)]) -> Outcome {
        if pairs.iter().any(|(_, value)| value.len() > MAX_VALUE) {
            return Outcome::TooLong;
        }
        self.revision += 1;
        for (key, value) in pairs {
            self.put(key, Value::from(&value[..]));
        }
        Outcome::Done
    }

    /// Writes a record at the current revision, and moves the digest from the old print to the new one.
    fn put(&mut self, key: &[u8], value: Value) {
        let modified = self.revision;
        match self.records.get_mut(key) {
            Some(record) => {
                self.prints ^= record.print;
                record.value = value;
                record.modified = modified;
                record.version += 1;
                record.print = record.fresh_print(key);
                self.prints ^= record.print;
            }
            None => {
                let mut record = Record { value, created: modified, modified, version: 1, print: 0 };
                record.print = record.fresh_print(key);
                self.prints ^= record.print;
                self.records.insert(Key::from(key), record);
            }
        }
    }

    fn look_up(&self, lookup: &Lookup) -> Found {
        let value = |key: &Bytes| self.records.get(&key[..]).map(|record| record.value.clone());
        match lookup {
            Lookup::Get(key) => Found::Value(value(key)),
            Lookup::Count(keys) => {
                Found::Count(keys.iter().filter(|key| self.records.contains_key(&key[..])).count() as i64)
            }
            Lookup::GetAll(keys) => {
                let mut bytes = 0;
                let mut values = Vec::new();
                for key in keys {
                    let value = value(key);
                    bytes += value.as_ref().map_or(0, Value::len);
                    if bytes > MAX_ANSWER {
                        return Found::TooLarge;
                    }
                    values.push(value);
                }
                Found::Values(values)
            }
        }
    }
}

/// Whose record it is, as prints know it.
struct Owner(u128);

impl Owner {
    fn of(key: &[u8]) -> Owner {
        Owner(xxh3_128(key))
    }

    /// Sets the value's print apart from that of the same bytes elsewhere.
    fn seed(&self) -> u64 {
        self.0 as u64
    }
}

impl Record {
    /// The digest of the key and all of the record.
    pub(crate) fn fresh_print(&self, key: &[u8]) -> u128 {
        let owner = Owner::of(key);
        self.head_print(&owner) ^ self.value.print(owner.seed())
    }

    /// The digest of all but the bytes of the value.
    fn head_print(&self, owner: &Owner) -> u128 {
        let mut head = [0; 48];
        head[..16].copy_from_slice(&owner.0.to_le_bytes());
        let numbers = [self.created, self.modified, self.version, self.value.len() as u64];
        for (number, place) in numbers.into_iter().zip(head[16..].chunks_mut(8)) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        xxh3_128(&head)
    }
}

impl StateMachine for Kv {
    /// The batches have an encoding of their own.
    const SELF_DESCRIBING: bool = false;
    type Command = Vec<Operation>;
    type Reply = Vec<Outcome>;
    type Query = Vec<Lookup>;
    type Answer = Vec<Found>;

    fn apply(&mut self, context: &mut Context, batch: Vec<Operation>) -> Vec<Outcome> {
        let fails = |operation: &Operation| match operation {
            Operation::Set { value, .. } => self.fails_on.as_ref() == Some(value),
            _ => false,
        };
        if batch.iter().any(fails) {
            context.fatal("it was told not to apply that");
            return Vec::new();
        }
        batch.into_iter().map(|operation| self.operate(operation)).collect()
    }

    /// May answer fewer lookups than were asked, but at least one: it stops where the values pass
    /// [`MAX_ANSWER`], and the caller asks again for the rest.
    fn query(&self, _: &QueryContext, batch: Vec<Lookup>) -> Vec<Found> {
        let mut answers = Vec::new();
        let mut bytes = 0;
        for lookup in &batch {
            let found = self.look_up(lookup);
            bytes += found.bytes();
            if bytes > MAX_ANSWER && !answers.is_empty() {
                break;
            }
            answers.push(found);
        }
        answers
    }

    fn snapshot(&self) -> impl Save {
        let taken = self.clone();
        move |to: &mut dyn io::Write| state::write(&taken, to)
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        state::read(from).map(|kv| *self = Kv { fails_on: self.fails_on.take(), ..kv })
    }

    fn digest(&self) -> Option<[u8; 16]> {
        let mut state = [0; 32];
        state[..16].copy_from_slice(&self.prints.to_le_bytes());
        state[16..24].copy_from_slice(&self.revision.to_le_bytes());
        state[24..].copy_from_slice(&(self.records.len() as u64).to_le_bytes());
        Some(xxh3_128(&state).to_le_bytes())
    }

    fn encode_command(command: &Vec<Operation>) -> Result<Bytes, CodecError> {
        Ok(codec::encode_operations(command))
    }

    fn decode_command(bytes: &Bytes) -> Result<Vec<Operation>, CodecError> {
        codec::decode_operations(bytes)
    }

    fn encode_reply(reply: &Vec<Outcome>) -> Result<Bytes, CodecError> {
        Ok(codec::encode_outcomes(reply))
    }

    fn decode_reply(bytes: &Bytes) -> Result<Vec<Outcome>, CodecError> {
        codec::decode_outcomes(bytes)
    }
}

/// The number that the bytes say, in its one canonical form: no plus sign, no leading zeros, no spaces.
pub fn number(bytes: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(bytes).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == bytes).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle::raft::LogId;
    use proptest::prelude::*;

    fn apply(kv: &mut Kv, batch: Vec<Operation>) -> Vec<Outcome> {
        kv.apply(&mut Context::new(LogId::ZERO, 0, 0), batch)
    }

    fn set(key: &str, value: &str) -> Operation {
        Operation::Set {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::copy_from_slice(value.as_bytes()),
            when: When::Always,
            get: false,
        }
    }

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn history(kv: &Kv, key: &str) -> (u64, u64, u64) {
        let record = kv.record(key.as_bytes()).unwrap();
        (record.created, record.modified, record.version)
    }

    #[test]
    fn each_change_raises_the_revision_and_the_keys_remember_theirs() {
        let mut kv = Kv::new();
        apply(&mut kv, vec![set("a", "1"), set("b", "1"), set("a", "2")]);
        assert_eq!(kv.revision(), 3);
        assert_eq!(history(&kv, "a"), (1, 3, 2));
        assert_eq!(history(&kv, "b"), (2, 2, 1));
        let pairs = vec![(bytes("a"), bytes("3")), (bytes("c"), bytes("3"))];
        apply(&mut kv, vec![Operation::SetAll { pairs }]);
        assert_eq!(kv.revision(), 4, "a SetAll is one revision");
        assert_eq!(history(&kv, "a"), (1, 4, 3));
        assert_eq!(history(&kv, "c"), (4, 4, 1));
        let gone = apply(&mut kv, vec![Operation::Delete { keys: vec![bytes("a"), bytes("a"), bytes("x")] }]);
        assert_eq!((gone, kv.revision()), (vec![Outcome::Number(1)], 5));
        assert_eq!(
            apply(&mut kv, vec![Operation::Delete { keys: vec![bytes("x")] }]),
            vec![Outcome::Number(0)]
        );
        assert_eq!(kv.revision(), 5, "what changes nothing has no revision");
        apply(&mut kv, vec![set("a", "4")]);
        assert_eq!(history(&kv, "a"), (6, 6, 1), "a key that is written again starts anew");
    }

    #[test]
    fn conditions_and_get_answer_as_redis_does() {
        let mut kv = Kv::new();
        let mut go = |value: &str, when, get| {
            let op = Operation::Set { key: bytes("k"), value: bytes(value), when, get };
            apply(&mut kv, vec![op]).remove(0)
        };
        assert_eq!(go("1", When::Present, false), Outcome::Nothing);
        assert_eq!(go("1", When::Absent, true), Outcome::Nothing, "set, and there was none before");
        assert_eq!(go("2", When::Absent, false), Outcome::Nothing);
        assert_eq!(go("2", When::Absent, true), Outcome::Value(bytes("1")));
        assert_eq!(go("3", When::Present, true), Outcome::Value(bytes("1")));
        assert_eq!(go("4", When::Always, true), Outcome::Value(bytes("3")));
    }

    #[test]
    fn numbers_are_strict_and_sums_do_not_overflow() {
        for wrong in ["", "+1", "01", " 1", "1 ", "-0", "1.0", "9223372036854775808", "x"] {
            assert_eq!(number(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!(number(b"-9223372036854775808"), Some(i64::MIN));
        let mut kv = Kv::new();
        let add = |by| Operation::Add { key: bytes("n"), by };
        assert_eq!(
            apply(&mut kv, vec![add(i64::MAX), add(1), add(i64::MIN), set("n", "x"), add(1)]),
            vec![
                Outcome::Number(i64::MAX),
                Outcome::Overflow,
                Outcome::Number(-1),
                Outcome::Done,
                Outcome::NotANumber
            ]
        );
        assert_eq!(kv.revision(), 3, "refusals change nothing");
    }

    #[test]
    fn an_append_stops_at_the_largest_value() {
        let mut kv = Kv::new();
        let append =
            |length: usize| Operation::Append { key: bytes("k"), value: Bytes::from(vec![b'x'; length]) };
        assert_eq!(apply(&mut kv, vec![append(MAX_VALUE)]), vec![Outcome::Number(MAX_VALUE as i64)]);
        let before = kv.digest();
        assert_eq!(apply(&mut kv, vec![append(1), append(0)])[0], Outcome::TooLong);
        assert_eq!(kv.digest(), before);
        assert_eq!(kv.record(b"k").unwrap().value.len(), MAX_VALUE);
    }

    #[test]
    fn an_answer_stops_at_its_limit_and_goes_on_with_the_next_query() {
        let mut kv = Kv::new();
        let value = "x".repeat(MAX_VALUE);
        apply(&mut kv, vec![set("k", &value)]);
        let fits = MAX_ANSWER / MAX_VALUE;
        let context = QueryContext::new(LogId::ZERO, 0);
        assert_eq!(kv.query(&context, vec![Lookup::Get(bytes("k")); fits + 3]).len(), fits);
        let keys = vec![bytes("k"); fits + 1];
        assert_eq!(kv.query(&context, vec![Lookup::GetAll(keys)]), vec![Found::TooLarge]);
    }

    /// The digest as its definition has it: over everything, from nothing.
    fn digest_from_scratch(kv: &Kv) -> u128 {
        kv.records.iter().fold(0, |sum, (key, record)| sum ^ record.fresh_print(key.as_bytes()))
    }

    fn operation() -> impl Strategy<Value = Operation> {
        let key = || (0u8..5).prop_map(|n| Bytes::from(vec![b'a' + n]));
        let value = || prop_oneof![Just(bytes("7")), Just(bytes("")), Just(bytes("text"))];
        let when = prop_oneof![Just(When::Always), Just(When::Absent), Just(When::Present)];
        prop_oneof![
            (key(), value(), when, any::<bool>()).prop_map(|(key, value, when, get)| Operation::Set {
                key,
                value,
                when,
                get
            }),
            prop::collection::vec(key(), 1..4).prop_map(|keys| Operation::Delete { keys }),
            (key(), value()).prop_map(|(key, value)| Operation::Append { key, value }),
            (key(), -3i64..3).prop_map(|(key, by)| Operation::Add { key, by }),
            prop::collection::vec((key(), value()), 1..4).prop_map(|pairs| Operation::SetAll { pairs }),
        ]
    }

    proptest! {
        #[test]
        fn the_digest_kept_is_the_digest_of_the_state(batch in prop::collection::vec(operation(), 0..40)) {
            let (mut whole, mut cut) = (Kv::new(), Kv::new());
            let outcomes = apply(&mut whole, batch.clone());
            let one_by_one: Vec<_> =
                batch.into_iter().flat_map(|operation| apply(&mut cut, vec![operation])).collect();
            prop_assert_eq!(outcomes, one_by_one, "batches only group");
            prop_assert_eq!(whole.prints, digest_from_scratch(&whole));
            prop_assert_eq!(whole.digest(), cut.digest());
        }
    }

    fn snapshot(kv: &Kv) -> Vec<u8> {
        let mut bytes = Vec::new();
        kv.snapshot()(&mut bytes).unwrap();
        bytes
    }

    fn restored(bytes: &[u8]) -> io::Result<Kv> {
        let mut kv = Kv::new();
        apply(&mut kv, vec![set("what was there before", "goes")]);
        kv.restore(&mut &bytes[..]).map(|()| kv)
    }

    proptest! {
        #[test]
        fn a_snapshot_restores_the_very_state(batch in prop::collection::vec(operation(), 0..40)) {
            let mut kv = Kv::new();
            apply(&mut kv, batch);
            let bytes = snapshot(&kv);
            let back = restored(&bytes).unwrap();
            prop_assert_eq!(&back.records, &kv.records);
            prop_assert_eq!((back.revision, back.prints, back.digest()), (kv.revision, kv.prints, kv.digest()));
            for cut in 0..bytes.len() {
                prop_assert!(restored(&bytes[..cut]).is_err(), "cut at {}", cut);
            }
            prop_assert!(restored(&[&bytes[..], &[0]].concat()).is_err());
        }

        #[test]
        fn no_snapshot_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = restored(&bytes);
            let _ = restored(&[&[1][..], &bytes].concat());
        }
    }

    #[test]
    fn a_snapshot_is_of_the_moment_in_which_it_was_taken() {
        let mut kv = Kv::new();
        apply(&mut kv, vec![set("k", "before")]);
        let digest = kv.digest();
        let save = kv.snapshot();
        apply(&mut kv, vec![set("k", "after")]);
        let mut bytes = Vec::new();
        std::thread::spawn(move || save(&mut bytes).map(|()| bytes))
            .join()
            .unwrap()
            .map(|bytes| assert_eq!(restored(&bytes).unwrap().digest(), digest))
            .unwrap();
    }

    #[test]
    fn a_length_in_a_snapshot_is_judged_before_it_is_believed() {
        let huge = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        for start in [&b"\x01\x05"[..], b"\x01\x05\x01", b"\x01\x05\x01\x01k"] {
            assert!(restored(&[start, huge].concat()).is_err());
        }
        let error = restored(b"\x02\x00\x00").unwrap_err();
        assert!(error.to_string().contains("upgrade"), "{error}");
    }

    #[test]
    fn the_digest_tells_states_apart() {
        let digest = |batch: Vec<Operation>| {
            let mut kv = Kv::new();
            apply(&mut kv, batch);
            kv.digest()
        };
        let all = [
            digest(vec![]),
            digest(vec![set("a", "b")]),
            digest(vec![set("ab", "")]),
            digest(vec![set("a", "b"), set("a", "b")]),
            digest(vec![set("a", "b"), Operation::Delete { keys: vec![bytes("a")] }]),
            digest(vec![set("x", ""), set("a", "b"), Operation::Delete { keys: vec![bytes("x")] }]),
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|other| other != one), "state {i}");
        }
    }
}
