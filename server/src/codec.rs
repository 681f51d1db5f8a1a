//! The bytes of commands in the log and of replies between nodes.
//!
//! The first byte is the version of the format (1). Then come the number of items and the items, each a
//! tag and its fields. Numbers are LEB128 varints, signed ones zigzag; a string is its length and its
//! bytes. Decoding shares the strings with the input.
//!
//! Entries outlive programs, so a tag never changes its meaning and an unknown one is an error. Decoding
//! never panics and never believes a length: a string is taken only when its bytes are there, and lists
//! grow item by item while input remains, at least one byte each.

mod operations;
mod outcomes;
mod primitives;

pub use operations::{decode_operations, encode_operations};
pub use outcomes::{decode_outcomes, encode_outcomes};

/// The version of the format.
const VERSION: u8 = 1;

/// The most operations in one batch. An operation takes as little as 3 bytes in the log but about a hundred
/// in memory, so this, and not the length alone, bounds what decoding an entry costs.
pub const MAX_OPERATIONS: usize = 16_384;

/// The most keys in one operation: what fits in one RESP command.
pub const MAX_KEYS: usize = crate::resp::MAX_ARGUMENTS;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Found, Life, Lookup, Only, OnlyLife, Operation, Outcome, Unit, When};
    use crate::users::{By, Hash, MAX_PREFIXES, Refusal, Rights, Role};
    use bytes::Bytes;
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
            Just(Operation::As(By::Cluster)),
            (string(), any::<u64>()).prop_map(|(name, version)| Operation::As(By::User { name, version })),
            (string(), string(), rights()).prop_map(|(name, hash, rights)| Operation::AddUser {
                name,
                hash: Hash(hash),
                rights
            }),
            (string(), rights()).prop_map(|(name, rights)| Operation::Grant { name, rights }),
            (string(), string()).prop_map(|(name, hash)| Operation::GivePassword { name, hash: Hash(hash) }),
            string().prop_map(|name| Operation::RemoveUser { name }),
            third(),
            lookup().prop_map(Operation::Look),
        ]
    }

    fn pairs() -> impl Strategy<Value = Vec<(Bytes, Bytes)>> {
        prop::collection::vec((string(), string()), 0..5)
    }

    fn life() -> impl Strategy<Value = Life> {
        let some = prop_oneof![any::<i64>().prop_map(Life::For), any::<i64>().prop_map(Life::Until)];
        prop_oneof![Just(Life::Forever), Just(Life::Keep), some]
    }

    fn only() -> impl Strategy<Value = Only> {
        prop_oneof![
            Just(Only::Always),
            Just(Only::Absent),
            Just(Only::Present),
            string().prop_map(|value| Only::Equal(Box::new(value))),
            string().prop_map(|value| Only::Different(Box::new(value)))
        ]
    }

    fn third() -> impl Strategy<Value = Operation> {
        let only_life = prop_oneof![
            Just(OnlyLife::Always),
            Just(OnlyLife::Forever),
            Just(OnlyLife::Mortal),
            Just(OnlyLife::Longer),
            Just(OnlyLife::Shorter),
            Just(OnlyLife::MortalShorter)
        ];
        let watched = prop::collection::vec((0u8..16, string(), any::<u64>()), 0..4);
        let strings = prop_oneof![
            (string(), string(), only(), life(), any::<bool>())
                .prop_map(|(key, value, only, life, get)| Operation::Put { key, value, only, life, get }),
            pairs().prop_map(|pairs| Operation::SetAllAbsent { pairs }),
            string().prop_map(|key| Operation::Take { key }),
            (string(), only()).prop_map(|(key, only)| Operation::DeleteIf { key, only }),
            (string(), any::<u64>(), string()).prop_map(|(key, offset, value)| Operation::SetRange {
                key,
                offset,
                value
            }),
            (string(), string()).prop_map(|(key, by)| Operation::AddFraction { key, by }),
            (string(), life()).prop_map(|(key, life)| Operation::Touch { key, life }),
        ];
        let others = prop_oneof![
            (0u8..16).prop_map(Operation::In),
            watched.prop_map(|watched| Operation::Guard { watched }),
            (string(), life(), only_life).prop_map(|(key, life, only)| Operation::Expire { key, life, only }),
            (string(), string(), any::<bool>()).prop_map(|(from, to, absent)| Operation::Rename {
                from,
                to,
                absent
            }),
            (string(), string(), prop::option::of(0u8..16), any::<bool>())
                .prop_map(|(from, to, database, replace)| Operation::Copy { from, to, database, replace }),
            (string(), 0u8..16).prop_map(|(key, database)| Operation::Move { key, database }),
            any::<bool>().prop_map(|all| Operation::Clear { all }),
        ];
        let hashes = prop_oneof![
            (string(), pairs(), any::<bool>()).prop_map(|(key, pairs, absent)| Operation::SetFields {
                key,
                pairs,
                absent
            }),
            (string(), prop::collection::vec(string(), 0..4))
                .prop_map(|(key, fields)| Operation::DeleteFields { key, fields }),
            (string(), string(), any::<i64>()).prop_map(|(key, field, by)| Operation::AddField {
                key,
                field,
                by
            }),
            (string(), string(), string()).prop_map(|(key, field, by)| Operation::AddFieldFraction {
                key,
                field,
                by
            }),
        ];
        prop_oneof![strings, others, hashes]
    }

    fn lookup() -> impl Strategy<Value = Lookup> {
        let unit = prop_oneof![
            Just(Unit::Seconds),
            Just(Unit::Millis),
            Just(Unit::EndSeconds),
            Just(Unit::EndMillis)
        ];
        let list = || prop::collection::vec(string(), 0..4);
        let maybe = || prop::option::of(string().prop_map(Box::new));
        let keys = prop_oneof![
            string().prop_map(Lookup::Get),
            list().prop_map(Lookup::Count),
            list().prop_map(Lookup::GetAll),
            Just(Lookup::As(By::Cluster)),
            (0u8..16).prop_map(Lookup::In),
            (string(), any::<bool>()).prop_map(|(key, fields)| Lookup::Length { key, fields }),
            (string(), any::<i64>(), any::<i64>()).prop_map(|(key, from, to)| Lookup::Range {
                key,
                from,
                to
            }),
            string().prop_map(Lookup::Kind),
            string().prop_map(Lookup::Encoding),
        ];
        prop_oneof![
            keys,
            (string(), unit).prop_map(|(key, unit)| Lookup::Life { key, unit }),
            (any::<u64>(), any::<u64>(), maybe(), maybe())
                .prop_map(|(cursor, count, pattern, kind)| { Lookup::Scan { cursor, count, pattern, kind } }),
            Just(Lookup::Size),
            any::<u64>().prop_map(Lookup::Any),
            (string(), string()).prop_map(|(key, field)| Lookup::Field(key, field)),
            (string(), list()).prop_map(|(key, fields)| Lookup::Fields(key, fields)),
            string().prop_map(Lookup::AllFields),
            list().prop_map(Lookup::Marks),
        ]
    }

    fn found() -> impl Strategy<Value = Found> {
        let value = || string().prop_map(crate::value::Value::from);
        let maybe = move || prop::option::of(value());
        prop_oneof![
            maybe().prop_map(Found::Value),
            any::<i64>().prop_map(Found::Count),
            prop::collection::vec(maybe(), 0..4).prop_map(Found::Values),
            Just(Found::TooLarge),
            (1..=8u8).prop_map(|code| Found::Refused(Refusal::of_code(code).unwrap())),
            Just(Found::WrongKind),
            prop::collection::vec((string(), value()), 0..4).prop_map(Found::Fields),
            (any::<u64>(), prop::collection::vec(string(), 0..4))
                .prop_map(|(next, names)| Found::Page { next, names }),
            prop::collection::vec(any::<u64>(), 0..4).prop_map(Found::Marks),
        ]
    }

    fn rights() -> impl Strategy<Value = Rights> {
        let role = prop_oneof![Just(Role::Read), Just(Role::Write), Just(Role::Admin)];
        let prefixes = prop::collection::vec(string(), 0..=MAX_PREFIXES);
        (role, prefixes).prop_map(|(role, prefixes)| Rights { role, prefixes })
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            Just(Outcome::Done),
            Just(Outcome::Nothing),
            any::<i64>().prop_map(Outcome::Number),
            string().prop_map(|value| Outcome::Value(value.into())),
            Just(Outcome::NotANumber),
            Just(Outcome::Overflow),
            Just(Outcome::TooLong),
            (1..=8u8).prop_map(|code| Outcome::Refused(Refusal::of_code(code).unwrap())),
            prop::sample::select(vec![
                Outcome::WrongKind,
                Outcome::NoKey,
                Outcome::SameKey,
                Outcome::NotAFraction,
                Outcome::NotFinite,
                Outcome::FieldNotANumber,
                Outcome::FieldNotAFraction,
                Outcome::TooManyFields,
            ]),
            found().prop_map(Outcome::Found),
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
        let outcomes =
            [Outcome::Done, Outcome::Number(7), Outcome::Value(b"old"[..].into()), Outcome::TooLong];
        assert_eq!(&encode_outcomes(&outcomes)[..], b"\x01\x04\x01\x03\x0e\x04\x03old\x07");
    }

    #[test]
    fn the_format_of_users_stays_what_it_was() {
        let rights = Rights { role: Role::Write, prefixes: vec!["a:".into(), "b".into()] };
        let batch = [
            Operation::As(By::Cluster),
            Operation::As(By::User { name: "ann".into(), version: 300 }),
            Operation::AddUser { name: "bob".into(), hash: Hash("$h".into()), rights: rights.clone() },
            Operation::Grant {
                name: "bob".into(),
                rights: Rights { role: Role::Admin, prefixes: Vec::new() },
            },
            Operation::GivePassword { name: "bob".into(), hash: Hash("$i".into()) },
            Operation::RemoveUser { name: "bob".into() },
        ];
        let expected = b"\x01\x06\x06\x01\x06\x02\x03ann\xac\x02\x07\x03bob\x02$h\x02\x02\x02a:\x01b\
            \x08\x03bob\x03\x00\x09\x03bob\x02$i\x0a\x03bob";
        assert_eq!(&encode_operations(&batch)[..], expected);
        let outcomes = [Outcome::Refused(Refusal::Nobody), Outcome::Refused(Refusal::Malformed)];
        assert_eq!(&encode_outcomes(&outcomes)[..], b"\x01\x02\x08\x01\x08\x08");
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
