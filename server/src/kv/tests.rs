//! Tests of the machine: its digest, its snapshots and its limits, with every operation.

use super::*;
use coracle::raft::LogId;
use proptest::prelude::*;

fn apply(kv: &mut Kv, batch: Vec<Operation>) -> Vec<Outcome> {
    let mut context = Context::new(LogId::ZERO, 0, 0);
    context.version = Kv::VERSION;
    kv.apply(&mut context, batch)
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
    assert_eq!(apply(&mut kv, vec![Operation::Delete { keys: vec![bytes("x")] }]), vec![Outcome::Number(0)]);
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
    assert_eq!(go("2", When::Absent, true), Outcome::Value(bytes("1").into()));
    assert_eq!(go("3", When::Present, true), Outcome::Value(bytes("1").into()));
    assert_eq!(go("4", When::Always, true), Outcome::Value(bytes("3").into()));
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
    assert_eq!(kv.record(b"k").unwrap().datum.len(), MAX_VALUE);
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
    let mut again = Space::default();
    for (number, database) in kv.space.databases() {
        for (key, record) in database.by_name() {
            again.insert(number, key.as_bytes(), record.clone());
        }
    }
    assert_eq!(again.bytes(), kv.space.bytes());
    assert_eq!(again.next_due(), kv.space.next_due());
    assert_eq!(again.is_plain(), kv.space.is_plain());
    for ((_, again), (_, database)) in again.databases().zip(kv.space.databases()) {
        assert_eq!(again.mortal(), database.mortal());
        assert!(again.from(0).eq(database.from(0)));
    }
    again.prints()
}

fn operation() -> impl Strategy<Value = Operation> {
    let key = || (0u8..5).prop_map(|n| Bytes::from(vec![b'a' + n]));
    let value = || prop_oneof![Just(bytes("7")), Just(bytes("")), Just(bytes("text"))];
    let when = prop_oneof![Just(When::Always), Just(When::Absent), Just(When::Present)];
    let pairs = move || prop::collection::vec((key(), value()), 1..4);
    let keys = move || prop::collection::vec(key(), 1..4);
    let life = || {
        let some = prop_oneof![(-2i64..5).prop_map(Life::For), (-2i64..5).prop_map(Life::Until)];
        prop_oneof![Just(Life::Forever), Just(Life::Keep), some]
    };
    let only = prop_oneof![
        Just(Only::Always),
        Just(Only::Absent),
        Just(Only::Present),
        value().prop_map(|value| Only::Equal(Box::new(value))),
        value().prop_map(|value| Only::Different(Box::new(value)))
    ];
    let old = prop_oneof![
        (key(), value(), when, any::<bool>()).prop_map(|(key, value, when, get)| Operation::Set {
            key,
            value,
            when,
            get
        }),
        keys().prop_map(|keys| Operation::Delete { keys }),
        (key(), value()).prop_map(|(key, value)| Operation::Append { key, value }),
        (key(), -3i64..3).prop_map(|(key, by)| Operation::Add { key, by }),
        pairs().prop_map(|pairs| Operation::SetAll { pairs }),
    ];
    let strings = prop_oneof![
        (key(), value(), only.clone(), life(), any::<bool>())
            .prop_map(|(key, value, only, life, get)| Operation::Put { key, value, only, life, get }),
        pairs().prop_map(|pairs| Operation::SetAllAbsent { pairs }),
        key().prop_map(|key| Operation::Take { key }),
        (key(), only).prop_map(|(key, only)| Operation::DeleteIf { key, only }),
        (key(), 0u64..4, value()).prop_map(|(key, offset, value)| Operation::SetRange { key, offset, value }),
        (key(), value()).prop_map(|(key, by)| Operation::AddFraction { key, by }),
        (key(), life()).prop_map(|(key, life)| Operation::Touch { key, life }),
    ];
    let any_kind = prop_oneof![
        (key(), life()).prop_map(|(key, life)| Operation::Expire { key, life, only: OnlyLife::Always }),
        (key(), key(), any::<bool>()).prop_map(|(from, to, absent)| Operation::Rename { from, to, absent }),
        (key(), key(), prop::option::of(0u8..3), any::<bool>())
            .prop_map(|(from, to, database, replace)| Operation::Copy { from, to, database, replace }),
        (key(), 0u8..3).prop_map(|(key, database)| Operation::Move { key, database }),
        any::<bool>().prop_map(|all| Operation::Clear { all }),
    ];
    let hashes = prop_oneof![
        (key(), pairs(), any::<bool>()).prop_map(|(key, pairs, absent)| Operation::SetFields {
            key,
            pairs,
            absent
        }),
        (key(), keys()).prop_map(|(key, fields)| Operation::DeleteFields { key, fields }),
        (key(), key(), -3i64..3).prop_map(|(key, field, by)| Operation::AddField { key, field, by }),
        (key(), key(), value()).prop_map(|(key, field, by)| Operation::AddFieldFraction { key, field, by }),
    ];
    prop_oneof![4 => old, 3 => strings, 2 => any_kind, 3 => hashes]
}

/// The same at some times, each in some database, for the newest version of the machine from some time on.
type Moments = (Vec<(u64, u8, Operation)>, u64);

fn applied(kv: &mut Kv, (batch, newest): &Moments) -> Vec<Outcome> {
    let mut now = 0;
    let one = |(later, database, operation): &(u64, u8, Operation)| {
        now += later;
        let mut context = Context::new(LogId::ZERO, now, now + 1_000_000);
        context.version = if now < *newest { 3 } else { Kv::VERSION };
        kv.apply(&mut context, vec![Operation::In(*database), operation.clone()])
    };
    batch.iter().flat_map(one).collect()
}

fn moments() -> impl Strategy<Value = Moments> {
    let newest = prop_oneof![0..5u64, Just(u64::MAX)];
    (prop::collection::vec((0u64..3, 0u8..3, operation()), 0..40), newest)
}

proptest! {
    #[test]
    fn the_digest_kept_is_the_digest_of_the_state(batch in moments()) {
        let mut kv = Kv::new();
        applied(&mut kv, &batch);
        prop_assert_eq!(kv.space.prints(), digest_from_scratch(&kv));
        let mut gone = gone::Gone::default();
        kv.space.gone().iter().for_each(|(slot, revision)| gone.raise(slot, revision));
        prop_assert_eq!(kv.space.gone_print(), gone.print());
    }

    #[test]
    fn batches_only_group(batch in prop::collection::vec(operation(), 0..40)) {
        let (mut whole, mut cut) = (Kv::new(), Kv::new());
        let outcomes = apply(&mut whole, batch.clone());
        let one_by_one: Vec<_> =
            batch.into_iter().flat_map(|operation| apply(&mut cut, vec![operation])).collect();
        prop_assert_eq!(outcomes, one_by_one);
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
    fn a_snapshot_restores_the_very_state(batch in moments()) {
        let mut kv = Kv::new();
        applied(&mut kv, &batch);
        let bytes = snapshot(&kv);
        let back = restored(&bytes).unwrap();
        let records = |kv: &Kv| -> Vec<(u8, Bytes, Record)> {
            let of = |(number, database): (u8, &space::Database)| {
                let one = move |(key, record): (&crate::key::Key, &Record)| {
                    (number, Bytes::copy_from_slice(key.as_bytes()), record.clone())
                };
                database.by_name().map(one).collect::<Vec<_>>()
            };
            kv.space.databases().flat_map(of).collect()
        };
        prop_assert_eq!(records(&back), records(&kv));
        prop_assert_eq!((back.revision(), back.digest()), (kv.revision(), kv.digest()));
        prop_assert_eq!(digest_from_scratch(&back), back.space.prints());
        for cut in 0..bytes.len() {
            prop_assert!(restored(&bytes[..cut]).is_err(), "cut at {}", cut);
        }
        prop_assert!(restored(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn no_snapshot_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = restored(&bytes);
        let _ = restored(&[&[1][..], &bytes].concat());
        let _ = restored(&[&[2][..], &bytes].concat());
        let _ = restored(&[&[3, 0][..], &bytes].concat());
        let _ = restored(&[&[4, 0][..], &bytes].concat());
        let _ = restored(&[&[4, 0, 9, 0][..], &bytes].concat());
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
    let error = restored(b"\x05\x00\x00").unwrap_err();
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
