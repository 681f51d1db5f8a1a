//! Tests of what came with the third version: lives, databases, hashes, transactions and scans.

use super::{
    Datum, FORMER_MAX_VALUE, Found, Kv, Life, Lookup, MAX_FIELDS, Only, OnlyLife, Operation, Outcome, REAPER,
    Unit, When,
};
use crate::figures::Figures;
use bytes::Bytes;
use coracle::raft::LogId;
use coracle::{Context, QueryContext, StateMachine};
use std::collections::BTreeSet;

/// The first second of the wall clock.
const WALL: u64 = 1_000_000;

fn at(kv: &mut Kv, time: u64, batch: Vec<Operation>) -> (Vec<Outcome>, Option<u64>) {
    let mut context = Context::new(LogId::ZERO, time, WALL + time);
    let outcomes = kv.apply(&mut context, batch);
    (outcomes, context.timer(REAPER))
}

fn ask(kv: &Kv, time: u64, lookup: Lookup) -> Found {
    kv.query(&QueryContext::new(LogId::ZERO, time), vec![lookup]).remove(0)
}

fn put(key: &'static str, life: Life) -> Operation {
    Operation::Put { key: key.into(), value: "v".into(), only: Only::Always, life, get: false }
}

fn expire(key: &'static str, life: Life, only: OnlyLife) -> Operation {
    Operation::Expire { key: key.into(), life, only }
}

fn set(key: &'static str) -> Operation {
    Operation::Set { key: key.into(), value: "v".into(), when: When::Always, get: false }
}

fn set_field(key: &'static str, field: &'static str, value: &'static str) -> Operation {
    Operation::SetFields { key: key.into(), pairs: vec![(field.into(), value.into())], absent: false }
}

fn get(key: &'static str) -> Lookup {
    Lookup::Get(key.into())
}

fn value(text: &'static str) -> Found {
    Found::Value(Some(Bytes::from(text).into()))
}

#[test]
fn a_key_is_there_until_its_time_has_come_and_no_longer() {
    let mut kv = Kv::new();
    assert_eq!(at(&mut kv, 100, vec![put("k", Life::For(50))]), (vec![Outcome::Done], Some(150)));
    assert_eq!(ask(&kv, 149, get("k")), value("v"));
    // For those who ask and those who write, before it is removed.
    assert_eq!(ask(&kv, 150, get("k")), Found::Value(None));
    assert_eq!(ask(&kv, 150, Lookup::Count(vec!["k".into()])), Found::Count(0));
    let mut late = kv.clone();
    let append = Operation::Append { key: "k".into(), value: "x".into() };
    assert_eq!(at(&mut late, 150, vec![append.clone()]), (vec![Outcome::Number(1)], None));
    assert_eq!(at(&mut kv, 149, vec![append]), (vec![Outcome::Number(2)], Some(150)), "it lives on");
    let mut context = Context::new(LogId::ZERO, 150, WALL + 150);
    kv.on_timer(&mut context, REAPER);
    assert_eq!((kv.record(b"k"), context.timer(REAPER), kv.revision()), (None, None, 3));
}

#[test]
fn the_timer_is_that_of_the_next_key_and_removes_so_many_at_a_time() {
    let mut kv = Kv::new();
    for number in 0..1500 {
        let key = Bytes::from(format!("k{number}"));
        let put =
            Operation::Put { key, value: "v".into(), only: Only::Always, life: Life::For(10), get: false };
        at(&mut kv, 5, vec![Operation::In(number as u8 % 3), put]);
    }
    assert_eq!(at(&mut kv, 5, vec![put("early", Life::For(3))]).1, Some(8));
    assert_eq!(at(&mut kv, 5, vec![put("early", Life::Forever)]).1, Some(15), "SET lets it live for ever");
    let mut context = Context::new(LogId::ZERO, 15, WALL);
    kv.on_timer(&mut context, REAPER);
    assert_eq!((kv.space.len(), context.timer(REAPER)), (501, Some(15)));
    kv.on_timer(&mut context, REAPER);
    assert_eq!((kv.space.len(), context.timer(REAPER)), (1, None));
}

#[test]
fn lives_are_measured_from_the_entry_and_ends_are_told_as_they_were_given() {
    let mut kv = Kv::new();
    let life = |kv: &Kv, time, unit| ask(kv, time, Lookup::Life { key: "k".into(), unit });
    assert_eq!(life(&kv, 0, Unit::Millis), Found::Count(-2));
    at(&mut kv, 100, vec![set("k")]);
    assert_eq!(life(&kv, 100, Unit::Seconds), Found::Count(-1));
    at(&mut kv, 100, vec![expire("k", Life::Until(WALL as i64 + 90_100), OnlyLife::Always)]);
    assert_eq!(kv.record(b"k").unwrap().deadline.unwrap().at.get(), 90_100);
    assert_eq!(life(&kv, 100, Unit::EndMillis), Found::Count(WALL as i64 + 90_100));
    assert_eq!(life(&kv, 100, Unit::EndSeconds), Found::Count((WALL as i64 + 90_100 + 500) / 1000));
    let Found::Count(left) = life(&kv, 100, Unit::Millis) else { panic!() };
    assert!((60_000..=90_000).contains(&left), "{left}");
    // Of an end that has come: the key goes, whichever command says so.
    for gone in [Life::Until(WALL as i64), Life::For(0), Life::For(-5), Life::Until(-1)] {
        let outcome = at(&mut kv.clone(), 100, vec![expire("k", gone, OnlyLife::Always)]);
        assert_eq!(outcome, (vec![Outcome::Number(1)], None));
        let mut kv = kv.clone();
        at(&mut kv, 100, vec![put("k", gone)]);
        assert_eq!(kv.record(b"k"), None, "{gone:?}");
    }
}

#[test]
fn conditions_of_a_life() {
    use OnlyLife::{Always, Forever, Longer, Mortal, MortalShorter, Shorter};
    for (before, only, after, done) in [
        (None, Always, 5, true),
        (None, Forever, 5, true),
        (None, Mortal, 5, false),
        (None, Longer, 5, false),
        (None, Shorter, 5, true),
        (None, MortalShorter, 5, false),
        (Some(10), Forever, 5, false),
        (Some(10), Mortal, 5, true),
        (Some(10), Longer, 5, false),
        (Some(10), Longer, 15, true),
        (Some(10), Longer, 10, false),
        (Some(10), Shorter, 5, true),
        (Some(10), Shorter, 15, false),
        (Some(10), MortalShorter, 5, true),
        (Some(10), Shorter, -5, true),
    ] {
        let mut kv = Kv::new();
        at(&mut kv, 0, vec![put("k", before.map_or(Life::Forever, Life::For))]);
        let outcome = at(&mut kv, 0, vec![expire("k", Life::For(after), only)]).0;
        assert_eq!(outcome, [Outcome::Number(i64::from(done))], "{before:?} {only:?} {after}");
    }
    let mut kv = Kv::new();
    assert_eq!(at(&mut kv, 0, vec![expire("k", Life::For(5), Always)]).0, [Outcome::Number(0)]);
}

#[test]
fn what_keeps_a_life_and_what_does_not() {
    let keeps = |operation: Operation| {
        let mut kv = Kv::new();
        let put = Operation::Put {
            key: "k".into(),
            value: "1".into(),
            only: Only::Always,
            life: Life::For(9),
            get: false,
        };
        at(&mut kv, 0, vec![put]);
        at(&mut kv, 0, vec![operation]);
        kv.record(b"k").is_some_and(|record| record.deadline.is_some())
    };
    assert!(!keeps(set("k")) && !keeps(put("k", Life::Forever)) && keeps(put("k", Life::Keep)));
    assert!(!keeps(Operation::SetAll { pairs: vec![("k".into(), "v".into())] }));
    assert!(keeps(Operation::Add { key: "k".into(), by: 1 }));
    assert!(keeps(Operation::AddFraction { key: "k".into(), by: "0.5".into() }));
    assert!(keeps(Operation::Append { key: "k".into(), value: "1".into() }));
    assert!(keeps(Operation::SetRange { key: "k".into(), offset: 3, value: "1".into() }));
    assert!(!keeps(expire("k", Life::Forever, OnlyLife::Mortal)));
    // It goes with the key, wherever that goes.
    let mut kv = Kv::new();
    let moved = Operation::Rename { from: "k".into(), to: "l".into(), absent: false };
    let (outcomes, timer) = at(&mut kv, 0, vec![put("k", Life::For(9)), moved]);
    assert_eq!((outcomes, timer), (vec![Outcome::Done, Outcome::Number(1)], Some(9)));
    let moved = Operation::Move { key: "l".into(), database: 2 };
    assert_eq!(at(&mut kv, 0, vec![moved]), (vec![Outcome::Number(1)], Some(9)));
    assert_eq!(kv.space.database(2).mortal(), 1);
    assert_eq!(at(&mut kv, 0, vec![Operation::Clear { all: false }]).1, Some(9), "that is the first one");
    assert_eq!(at(&mut kv, 0, vec![Operation::Clear { all: true }]).1, None);
}

#[test]
fn databases_are_apart() {
    let mut kv = Kv::new();
    let figures = Figures::default();
    kv = kv.counting(figures.clone());
    let in_second = |operation| vec![Operation::In(1), operation];
    at(&mut kv, 0, vec![set("k"), Operation::In(1), put("k", Life::For(5)), Operation::In(0), set("l")]);
    assert_eq!(figures.databases().take(3).collect::<Vec<_>>(), [(2, 0), (1, 1), (0, 0)]);
    assert!(figures.bytes() > 0);
    let digest = kv.digest();
    at(&mut kv, 0, in_second(Operation::Delete { keys: vec!["k".into(), "l".into()] }));
    assert!(kv.record(b"k").is_some() && kv.space.database(1).len() == 0);
    // The same key in two databases is not nothing.
    assert_ne!(kv.digest(), digest);
    let copy = |replace| Operation::Copy { from: "k".into(), to: "k".into(), database: Some(3), replace };
    assert_eq!(
        at(&mut kv, 0, vec![copy(false), copy(false), copy(true)]).0,
        [Outcome::Number(1), Outcome::Number(0), Outcome::Number(1)]
    );
    let same = Operation::Copy { from: "k".into(), to: "k".into(), database: None, replace: true };
    assert_eq!(at(&mut kv, 0, vec![same]).0, [Outcome::SameKey]);
    let batch = vec![Lookup::In(3), get("k"), Lookup::In(4), get("k")];
    assert_eq!(kv.query(&QueryContext::new(LogId::ZERO, 0), batch), [value("v"), Found::Value(None)]);
}

#[test]
fn strings_and_hashes_are_not_taken_for_each_other() {
    let mut kv = Kv::new();
    at(&mut kv, 0, vec![set("s"), set_field("h", "f", "1")]);
    let key = || Bytes::from("h");
    let before = kv.digest();
    for operation in [
        Operation::Append { key: key(), value: "v".into() },
        Operation::Add { key: key(), by: 1 },
        Operation::AddFraction { key: key(), by: "1".into() },
        Operation::SetRange { key: key(), offset: 0, value: "v".into() },
        Operation::Take { key: key() },
        Operation::Touch { key: key(), life: Life::For(5) },
        Operation::DeleteIf { key: key(), only: Only::Equal(Box::new("v".into())) },
        Operation::Set { key: key(), value: "v".into(), when: When::Always, get: true },
        set_field("s", "f", "1"),
        Operation::DeleteFields { key: "s".into(), fields: vec!["f".into()] },
        Operation::AddField { key: "s".into(), field: "f".into(), by: 1 },
        Operation::AddFieldFraction { key: "s".into(), field: "f".into(), by: "1".into() },
    ] {
        let outcome = at(&mut kv, 0, vec![operation.clone()]).0;
        assert_eq!(outcome, [Outcome::WrongKind], "{operation:?}");
    }
    assert_eq!(kv.digest(), before);
    for lookup in [
        get("h"),
        Lookup::Length { key: key(), fields: false },
        Lookup::Range { key: key(), from: 0, to: 1 },
        Lookup::Length { key: "s".into(), fields: true },
        Lookup::Field("s".into(), "f".into()),
        Lookup::Fields("s".into(), vec!["f".into()]),
        Lookup::AllFields("s".into()),
    ] {
        assert_eq!(ask(&kv, 0, lookup.clone()), Found::WrongKind, "{lookup:?}");
    }
    // MGET passes over it, and SET writes over it.
    assert_eq!(ask(&kv, 0, Lookup::GetAll(vec!["h".into()])), Found::Values(vec![None]));
    assert_eq!(at(&mut kv, 0, vec![set("h")]).0, [Outcome::Done]);
    assert_eq!(ask(&kv, 0, get("h")), value("v"));
}

#[test]
fn a_hash_comes_with_its_first_field_and_goes_with_its_last() {
    let mut kv = Kv::new();
    assert_eq!(
        at(
            &mut kv,
            0,
            vec![
                set_field("h", "a", "1"),
                set_field("h", "a", "2"),
                Operation::AddField { key: "h".into(), field: "n".into(), by: 7 },
                Operation::AddFieldFraction { key: "h".into(), field: "n".into(), by: "0.5".into() },
                Operation::AddField { key: "h".into(), field: "n".into(), by: 1 },
                Operation::SetFields { key: "h".into(), pairs: vec![("a".into(), "3".into())], absent: true },
            ]
        )
        .0,
        [
            Outcome::Number(1),
            Outcome::Number(0),
            Outcome::Number(7),
            Outcome::Value(Bytes::from("7.5").into()),
            Outcome::FieldNotANumber,
            Outcome::Number(0)
        ]
    );
    let record = kv.record(b"h").unwrap();
    assert_eq!((record.created, record.version, record.datum.len()), (1, 4, "a2n7.5".len()));
    at(&mut kv, 0, vec![expire("h", Life::For(9), OnlyLife::Always)]);
    let delete =
        |field: &'static str| Operation::DeleteFields { key: "h".into(), fields: vec![field.into()] };
    assert_eq!(at(&mut kv, 0, vec![delete("x"), delete("a")]).0, [Outcome::Number(0), Outcome::Number(1)]);
    assert!(kv.record(b"h").unwrap().deadline.is_some());
    assert_eq!(at(&mut kv, 0, vec![delete("n")]), (vec![Outcome::Number(1)], None));
    assert_eq!(kv.record(b"h"), None);
}

#[test]
fn a_hash_has_its_limits() {
    let mut kv = Kv::new();
    let large = Bytes::from(vec![b'x'; FORMER_MAX_VALUE - 1]);
    let write = |field: &'static str, value: Bytes| Operation::SetFields {
        key: "h".into(),
        pairs: vec![(field.into(), value)],
        absent: false,
    };
    assert_eq!(at(&mut kv, 0, vec![write("a", large.clone())]).0, [Outcome::Number(1)]);
    assert_eq!(at(&mut kv, 0, vec![write("b", Bytes::new())]).0, [Outcome::TooLong]);
    assert_eq!(at(&mut kv, 0, vec![write("a", large)]).0, [Outcome::Number(0)], "the same is not more");
    let pairs = (0..MAX_FIELDS / 4).map(|n| (Bytes::from(n.to_string()), Bytes::new())).collect();
    at(&mut kv, 0, vec![Operation::SetFields { key: "many".into(), pairs, absent: false }]);
    for part in 1..4 {
        let names = (0..MAX_FIELDS / 4).map(|n| format!("{part}-{n}").into());
        let pairs = names.map(|name| (name, Bytes::new())).collect();
        let set = Operation::SetFields { key: "many".into(), pairs, absent: false };
        assert_eq!(at(&mut kv, 0, vec![set]).0, [Outcome::Number(MAX_FIELDS as i64 / 4)]);
    }
    assert_eq!(at(&mut kv, 0, vec![set_field("many", "one", "")]).0, [Outcome::TooManyFields]);
    let Datum::Fields(fields) = &kv.record(b"many").unwrap().datum else { panic!() };
    assert_eq!(fields.len(), MAX_FIELDS);
}

#[test]
fn a_transaction_is_void_where_what_was_watched_has_changed() {
    let mut kv = Kv::new();
    at(&mut kv, 0, vec![set("k")]);
    let Found::Marks(marks) = ask(&kv, 0, Lookup::Marks(vec!["k".into(), "none".into()])) else { panic!() };
    let guard = Operation::Guard { watched: vec![(0, "k".into(), marks[0]), (0, "none".into(), marks[1])] };
    let batch = vec![guard.clone(), set("done"), Operation::Look(get("k")), Operation::Look(get("done"))];
    assert_eq!(
        at(&mut kv.clone(), 0, batch.clone()).0,
        [Outcome::Done, Outcome::Done, Outcome::Found(value("v")), Outcome::Found(value("v"))]
    );
    for other in [
        set("k"),
        set("none"),
        Operation::Delete { keys: vec!["k".into()] },
        expire("k", Life::For(5), OnlyLife::Always),
        Operation::Append { key: "k".into(), value: "x".into() },
    ] {
        let mut kv = kv.clone();
        at(&mut kv, 0, vec![other.clone()]);
        let digest = kv.digest();
        assert_eq!(at(&mut kv, 0, batch.clone()).0, [Outcome::Nothing], "{other:?}");
        assert_eq!(kv.digest(), digest, "{other:?}");
    }
    // What changes nothing does not count, and what has ended does.
    at(
        &mut kv,
        0,
        vec![Operation::Set { key: "k".into(), value: "v".into(), when: When::Absent, get: false }],
    );
    assert_eq!(at(&mut kv.clone(), 0, vec![guard]).0, [Outcome::Done]);
    at(&mut kv, 0, vec![put("k", Life::For(5))]);
    let Found::Marks(marks) = ask(&kv, 4, Lookup::Marks(vec!["k".into()])) else { panic!() };
    let guard = Operation::Guard { watched: vec![(0, "k".into(), marks[0])] };
    assert_eq!(at(&mut kv.clone(), 4, vec![guard.clone()]).0, [Outcome::Done]);
    assert_eq!(at(&mut kv, 5, vec![guard]).0, [Outcome::Nothing]);
}

#[test]
fn questions_of_a_transaction_have_a_budget_whatever_they_find() {
    let mut kv = Kv::new();
    let pairs = (0..MAX_FIELDS / 4).map(|n| (Bytes::from(n.to_string()), Bytes::new())).collect();
    at(&mut kv, 0, vec![Operation::SetFields { key: "h".into(), pairs, absent: false }]);
    let many = |lookup: Lookup| vec![Operation::Look(lookup); 300];
    let pattern = Some(Box::new(Bytes::from(format!("*[{}]", "b".repeat(500)))));
    for (lookup, most) in [
        (Lookup::AllFields("h".into()), 4),
        (Lookup::Count(vec!["none".into(); 32_000]), 3),
        (Lookup::Fields("none".into(), vec!["f".into(); 32_000]), 3),
        (Lookup::Scan { cursor: 0, count: u64::MAX, pattern, kind: None }, 6),
    ] {
        let outcomes = at(&mut kv, 0, many(lookup.clone())).0;
        let found = outcomes.iter().filter(|outcome| **outcome != Outcome::Found(Found::TooLarge)).count();
        assert!((1..=most).contains(&found) && outcomes.len() == 300, "{found} of {:?}", lookup.keys().len());
    }
    // Small ones have it, too: thousands of them.
    let outcomes = at(&mut kv, 0, vec![Operation::Look(get("none")); 8000]).0;
    assert_eq!(outcomes.last(), Some(&Outcome::Found(Found::Value(None))));
    // Outside of a transaction the rest is asked for again.
    let context = QueryContext::new(LogId::ZERO, 0);
    let found = kv.query(&context, vec![Lookup::AllFields("h".into()); 300]).len();
    assert!((1..=4).contains(&found), "{found}");
}

#[test]
fn what_a_hash_takes_is_counted_by_its_fields() {
    let mut kv = Kv::new();
    let figures = Figures::default();
    kv = kv.counting(figures.clone());
    let pairs = (0..10_000).map(|n| (Bytes::from(n.to_string()), Bytes::new())).collect();
    at(&mut kv, 0, vec![Operation::SetFields { key: "h".into(), pairs, absent: false }]);
    let one = figures.bytes();
    assert!(one > 1_000_000, "{one}");
    let copy = Operation::Copy { from: "h".into(), to: "i".into(), database: None, replace: false };
    at(&mut kv, 0, vec![copy]);
    assert_eq!(figures.bytes(), 2 * one, "though they share it until a restart");
}

#[test]
fn a_scan_tells_each_key_that_is_there_all_the_time() {
    let mut kv = Kv::new();
    let keys: BTreeSet<Bytes> = (0..500).map(|n| Bytes::from(format!("key:{n}"))).collect();
    for key in &keys {
        at(&mut kv, 0, vec![Operation::Append { key: key.clone(), value: "v".into() }]);
    }
    at(&mut kv, 0, vec![set_field("key:hash", "f", "v"), put("key:ended", Life::For(1)), set("other")]);
    let (mut seen, mut cursor, mut rounds) = (BTreeSet::new(), 0, 0);
    loop {
        let scan = Lookup::Scan {
            cursor,
            count: 7,
            pattern: Some(Box::new("key:*".into())),
            kind: Some(Box::new("string".into())),
        };
        let Found::Page { next, names } = ask(&kv, 1, scan) else { panic!() };
        seen.extend(names);
        // Others come and go.
        rounds += 1;
        let key = Bytes::from(format!("passing:{rounds}"));
        at(&mut kv, 1, vec![Operation::Append { key: key.clone(), value: "v".into() }]);
        at(
            &mut kv,
            1,
            vec![Operation::Delete { keys: vec![Bytes::from(format!("passing:{}", rounds / 2))] }],
        );
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    assert_eq!(seen, keys);
    assert!((60..120).contains(&rounds), "{rounds}");
    let Found::Value(Some(any)) = ask(&kv, 1, Lookup::Any(fastrand::u64(..))) else { panic!() };
    assert!(kv.record(&any.to_bytes()).is_some());
    assert_eq!(ask(&Kv::new(), 0, Lookup::Any(7)), Found::Value(None));
}

#[test]
fn parts_and_words_of_values() {
    let mut kv = Kv::new();
    let long = "x".repeat(4095) + "yz" + &"w".repeat(5000);
    let text = Operation::Append { key: "long".into(), value: long.clone().into() };
    at(&mut kv, 0, vec![set("k"), text, set_field("h", "f", "v"), Operation::Add { key: "n".into(), by: 5 }]);
    let part = |key: &'static str, from, to| ask(&kv, 0, Lookup::Range { key: key.into(), from, to });
    assert_eq!(part("long", 4094, 4097), value("xyzw"));
    assert_eq!(part("long", -2, -1), value("ww"));
    assert_eq!(part("long", 0, i64::MIN), value("x"), "as in redis");
    assert_eq!(part("long", 0, i64::MAX), Found::Value(Some(Bytes::from(long).into())));
    for nothing in [part("long", 5, 4), part("long", 99_999, -1), part("none", 0, -1), part("k", -1, -2)] {
        assert_eq!(nothing, value(""));
    }
    let word = |lookup: Lookup| match ask(&kv, 0, lookup) {
        Found::Value(word) => word.map(|word| String::from_utf8(word.to_bytes().to_vec()).unwrap()),
        other => panic!("{other:?}"),
    };
    for (key, kind, encoding) in [
        ("k", "string", Some("embstr")),
        ("n", "string", Some("int")),
        ("long", "string", Some("raw")),
        ("h", "hash", Some("listpack")),
        ("none", "none", None),
    ] {
        assert_eq!(word(Lookup::Kind(key.into())).as_deref(), Some(kind));
        assert_eq!(word(Lookup::Encoding(key.into())).as_deref(), encoding);
    }
}
