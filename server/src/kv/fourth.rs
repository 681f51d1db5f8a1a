//! Tests of what came with the fourth version: values over 1 MiB, and what is known of keys that came and went.

use super::{
    FORMER_MAX_VALUE, Found, Kv, Life, Lookup, MAX_FOUND, MAX_KEY, MAX_VALUE, Only, Operation, Outcome, When,
    gone::SLOTS,
};
use bytes::Bytes;
use coracle::raft::LogId;
use coracle::{Context, QueryContext, StateMachine};

/// An entry of this version of the machine, at this time.
fn made_by(kv: &mut Kv, version: u16, time: u64, batch: Vec<Operation>) -> Vec<Outcome> {
    let mut context = Context::new(LogId::ZERO, time, 1_000_000 + time);
    context.version = version;
    kv.apply(&mut context, batch)
}

fn at(kv: &mut Kv, time: u64, batch: Vec<Operation>) -> Vec<Outcome> {
    made_by(kv, Kv::VERSION, time, batch)
}

fn ask(kv: &Kv, time: u64, lookup: Lookup) -> Found {
    kv.query(&QueryContext::new(LogId::ZERO, time), vec![lookup]).remove(0)
}

fn set(key: impl Into<Bytes>, value: Bytes) -> Operation {
    Operation::Set { key: key.into(), value, when: When::Always, get: false }
}

fn put(key: &'static str, life: Life) -> Operation {
    Operation::Put { key: key.into(), value: "v".into(), only: Only::Always, life, get: false }
}

fn delete(key: impl Into<Bytes>) -> Operation {
    Operation::Delete { keys: vec![key.into()] }
}

fn long(length: usize) -> Bytes {
    (0..length).map(|at| (at / 7) as u8).collect::<Vec<u8>>().into()
}

/// Each way to a value of some length, with keys of its own.
fn ways(length: usize) -> Vec<Vec<Operation>> {
    let value = long(length);
    let pairs = |key: &'static str| vec![(Bytes::from("small"), "v".into()), (key.into(), value.clone())];
    let field = |name: &'static str, value: Bytes| Operation::SetFields {
        key: "hash".into(),
        pairs: vec![(name.into(), value)],
        absent: false,
    };
    vec![
        vec![set("set", value.clone())],
        vec![Operation::Set { key: "get".into(), value: value.clone(), when: When::Absent, get: true }],
        vec![Operation::Put {
            key: "put".into(),
            value: value.clone(),
            only: Only::Always,
            life: Life::Keep,
            get: false,
        }],
        vec![Operation::SetAll { pairs: pairs("all") }],
        vec![Operation::SetAllAbsent { pairs: vec![("absent".into(), value.clone())] }],
        vec![
            Operation::Append { key: "append".into(), value: value.slice(5..) },
            Operation::Append { key: "append".into(), value: value.slice(..5) },
        ],
        vec![Operation::SetRange { key: "range".into(), offset: length as u64 - 3, value: "end".into() }],
        vec![
            set("range-after", "v".into()),
            Operation::SetRange { key: "range-after".into(), offset: length as u64 - 3, value: "end".into() },
        ],
        vec![field("a", value.slice(..length - 3)), field("b", "x".into()), field("b", "x".into())],
    ]
}

#[test]
fn values_have_eight_mebibytes_from_the_first_entry_of_the_fourth_version_on() {
    for (version, most) in [(1, FORMER_MAX_VALUE), (3, FORMER_MAX_VALUE), (4, MAX_VALUE), (5, MAX_VALUE)] {
        let mut kv = Kv::new();
        for way in ways(most) {
            let outcomes = made_by(&mut kv, version, 0, way.clone());
            assert!(!outcomes.contains(&Outcome::TooLong), "{version}: {:?}", way[0].keys().next());
        }
        for way in ways(most + 1) {
            let mut kv = Kv::new();
            let outcomes = made_by(&mut kv, version, 0, way.clone());
            assert_eq!(outcomes.last(), Some(&Outcome::TooLong), "{version}: {:?}", way[0].keys().next());
            assert!(kv.space.databases().all(|(_, all)| all.from(0).all(|(.., it)| it.datum.len() <= most)));
        }
    }
    // Once there was such an entry, its rules hold, whoever makes the next one.
    let mut kv = Kv::new();
    at(&mut kv, 0, vec![]);
    assert_eq!(made_by(&mut kv, 3, 0, vec![set("k", long(MAX_VALUE))]), [Outcome::Done]);
}

#[test]
fn whatever_brings_more_than_a_mebibyte_needs_the_fourth_version() {
    for way in ways(FORMER_MAX_VALUE) {
        assert!(Kv::version_of(&way) < 4, "{:?}", way[0].keys().next());
    }
    // A value that is there grows as the entry's own version lets it.
    let grows = ["append", "hash"];
    for way in ways(FORMER_MAX_VALUE + 10) {
        let key = way[0].keys().last().unwrap().to_vec();
        let expected = if grows.iter().any(|name| name.as_bytes() == key) { 1..=4 } else { 4..=4 };
        assert!(expected.contains(&Kv::version_of(&way)), "{key:?}");
    }
    let append = Operation::Append { key: "k".into(), value: long(FORMER_MAX_VALUE + 1) };
    let field = Operation::SetFields {
        key: "k".into(),
        pairs: vec![("f".into(), long(FORMER_MAX_VALUE + 1))],
        absent: false,
    };
    assert_eq!((append.version(), field.version()), (4, 4));
    let nothing = Operation::SetRange { key: "k".into(), offset: u64::MAX, value: Bytes::new() };
    assert_eq!(nothing.version(), 3, "it changes nothing, wherever");
}

/// What the third version did, with the new program: nodes of both apply the same log.
#[test]
fn what_was_made_for_the_third_version_comes_to_what_it_came_to() {
    let mut kv = Kv::new();
    let Found::Marks(marks) = ask(&kv, 0, Lookup::Marks(vec!["k".into()])) else { panic!() };
    assert_eq!(marks, [0]);
    let guard = Operation::Guard { watched: vec![(0, "k".into(), 0)] };
    let batch = vec![set("k", "v".into()), delete("k"), set("x", long(5000)), put("e", Life::For(5))];
    made_by(&mut kv, 3, 0, batch);
    // Its digest has nothing of this.
    assert_eq!(kv.space.gone_print(), 0);
    assert_eq!(made_by(&mut kv, 3, 0, vec![guard.clone()]), [Outcome::Done], "it was not noticed");
    let looks = vec![Operation::Look(Lookup::AllFields("h".into())); 3];
    let pairs = (0..30).map(|n| (Bytes::from(n.to_string()), long(30_000))).collect();
    made_by(&mut kv, 3, 0, vec![Operation::SetFields { key: "h".into(), pairs, absent: false }]);
    let nine = looks.iter().cycle().take(10).cloned().collect();
    let outcomes = made_by(&mut kv, 3, 0, nine);
    assert_eq!(outcomes[9], Outcome::Found(Found::TooLarge), "over 8 MiB");
    let mut bytes = Vec::new();
    kv.snapshot()(&mut bytes).unwrap();
    assert_eq!(bytes[0], 3, "the format that it reads");
    // A mark of then is good after the upgrade.
    assert_eq!(at(&mut kv.clone(), 0, vec![guard.clone()]), [Outcome::Done]);
    assert_eq!(
        at(&mut kv, 0, vec![set("k", "v".into()), delete("k"), guard]).last(),
        Some(&Outcome::Nothing),
        "and notices what is done from there on"
    );
}

#[test]
fn the_longest_value_can_be_looked_at_in_a_transaction() {
    let mut kv = Kv::new();
    let value = long(MAX_VALUE);
    at(&mut kv, 0, vec![set("k", value.clone())]);
    let get = Operation::Look(Lookup::Get("k".into()));
    let outcomes = at(&mut kv, 0, vec![get.clone(), get.clone(), get]);
    assert_eq!(outcomes[0], Outcome::Found(Found::Value(Some(value.clone().into()))));
    assert_eq!(outcomes[1..], [outcomes[0].clone(), Outcome::Found(Found::TooLarge)]);
    let part = Operation::Look(Lookup::Range { key: "k".into(), from: 0, to: (MAX_FOUND / 4) as i64 - 1000 });
    let found = at(&mut kv, 0, vec![part; 5]);
    let answered = found.iter().filter(|outcome| **outcome != Outcome::Found(Found::TooLarge)).count();
    assert_eq!(answered, 4);
}

/// An answer that is too large for the node that forwarded the batch would be lost, and with it a value that is gone.
#[test]
fn a_change_whose_answer_has_no_room_is_not_done() {
    let mut kv = Kv::new();
    let names = ["a", "b", "c", "d"];
    names.iter().for_each(|key| drop(at(&mut kv, 0, vec![set(*key, long(MAX_VALUE))])));
    at(&mut kv, 0, vec![set("small", "v".into())]);
    let take = |key: &'static str| Operation::Take { key: key.into() };
    let batch = vec![
        take("a"),
        Operation::Look(Lookup::Get("b".into())),
        take("c"),
        take("d"),
        take("none"),
        take("small"),
    ];
    let outcomes = at(&mut kv, 0, batch);
    let too_large = Outcome::Found(Found::TooLarge);
    let done: Vec<bool> = outcomes.iter().map(|outcome| *outcome != too_large).collect();
    assert_eq!(done, [true, true, false, false, true, true]);
    assert!(outcomes.iter().map(Outcome::bytes).sum::<usize>() <= MAX_FOUND);
    assert!(kv.record(b"a").is_none() && kv.record(b"c").is_some() && kv.record(b"d").is_some());
    // Before the fourth version they were done.
    let mut kv = Kv::new();
    let many = (0..12).map(|n| (Bytes::from(format!("{n}")), long(FORMER_MAX_VALUE))).collect();
    made_by(&mut kv, 3, 0, vec![Operation::SetAll { pairs: many }]);
    let takes = (0..12).map(|n| Operation::Take { key: format!("{n}").into() }).collect();
    assert!(made_by(&mut kv, 3, 0, takes).iter().all(|outcome| outcome.bytes() == FORMER_MAX_VALUE));
}

/// What changes a part of a long value, or gives it to another key, shares the rest.
#[test]
fn long_values_are_shared_and_not_copied() {
    let mut kv = Kv::new();
    at(&mut kv, 0, vec![set("k", long(MAX_VALUE))]);
    let place =
        |kv: &Kv, key: &str| kv.record(key.as_bytes()).unwrap().text().unwrap().pieces()[1000].as_ptr();
    let first = place(&kv, "k");
    let get = Operation::Put {
        key: "copy".into(),
        value: "v".into(),
        only: Only::Always,
        life: Life::Forever,
        get: true,
    };
    at(
        &mut kv,
        0,
        vec![
            Operation::Copy { from: "k".into(), to: "copy".into(), database: None, replace: false },
            Operation::SetRange { key: "k".into(), offset: 0, value: "part".into() },
            Operation::Rename { from: "k".into(), to: "l".into(), absent: false },
        ],
    );
    assert_eq!((place(&kv, "copy"), place(&kv, "l")), (first, first));
    let [Outcome::Value(before)] = &at(&mut kv, 0, vec![get])[..] else { panic!() };
    assert_eq!(before.pieces()[1000].as_ptr(), first, "and so is an answer");
}

#[test]
fn a_key_has_a_mebibyte_at_most() {
    let mut kv = Kv::new();
    at(&mut kv, 0, vec![set(long(MAX_KEY), "v".into())]);
    let before = kv.digest();
    for operation in [
        set(long(MAX_KEY + 1), "v".into()),
        Operation::Rename { from: long(MAX_KEY), to: long(MAX_KEY + 1), absent: false },
        Operation::SetAll { pairs: vec![("a".into(), "v".into()), (long(MAX_KEY + 1), "v".into())] },
    ] {
        assert_eq!(at(&mut kv, 0, vec![operation]), [Outcome::TooLong]);
        assert_eq!(kv.digest(), before);
    }
}

fn snapshot(kv: &Kv) -> Vec<u8> {
    let mut bytes = Vec::new();
    kv.snapshot()(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_snapshot_holds_long_values_and_what_is_known_of_keys_that_went() {
    let mut kv = Kv::new();
    at(&mut kv, 0, vec![put("gone", Life::Forever), delete("gone"), put("ended", Life::For(5))]);
    ways(MAX_VALUE).into_iter().for_each(|way| drop(at(&mut kv, 6, way)));
    let bytes = snapshot(&kv);
    assert_eq!(bytes[0], 4);
    let mut back = Kv::new();
    back.restore(&mut &bytes[..]).unwrap();
    assert_eq!((back.digest(), back.revision()), (kv.digest(), kv.revision()));
    for kv in [&mut kv, &mut back] {
        let guard = |key: &'static str, mark| Operation::Guard { watched: vec![(0, key.into(), mark)] };
        assert_eq!(at(kv, 6, vec![guard("gone", 0)]), [Outcome::Nothing]);
        assert_eq!(at(kv, 6, vec![guard("ended", 0)]), [Outcome::Nothing]);
        assert_eq!(at(kv, 6, vec![guard("other", 0)]), [Outcome::Done]);
    }
    // In the format of before, a value of this length is none.
    let mut former = bytes.clone();
    former[0] = 3;
    let error = Kv::new().restore(&mut &former[..]).unwrap_err().to_string();
    assert!(error.contains("over the limit of 1048576"), "{error}");
    let empty = Kv::new();
    assert_eq!(snapshot(&empty)[0], 1);
}

#[test]
fn a_snapshot_whose_slots_are_wrong_is_refused() {
    let mut kv = Kv::new();
    at(&mut kv, 0, vec![put("k", Life::Forever), delete("k")]);
    let good = snapshot(&kv);
    // Version, no users, revision 2, no databases, one slot, its number, revision 1.
    assert_eq!((&good[..5], good.last()), (&[4, 0, 2, 0, 1][..], Some(&1)));
    let head = [4, 0, 2, 0];
    for slots in
        [&[1, 5, 3][..], &[1, 5, 0], &[2, 5, 1, 5, 1], &[2, 5, 1, 4, 1], &[1, 0x80, 0x80, 1, 1], &[1, 5]]
    {
        assert!(Kv::new().restore(&mut &[&head, slots].concat()[..]).is_err(), "{slots:?}");
    }
    assert!(Kv::new().restore(&mut &[&head[..], &[2, 4, 1, 5, 2]].concat()[..]).is_ok());
}

/// What redis 7 notices, and what it does not.
#[test]
fn a_transaction_is_void_where_what_was_watched_came_and_went() {
    let rename = |from: &'static str, to: &'static str| Operation::Rename {
        from: from.into(),
        to: to.into(),
        absent: false,
    };
    let field =
        Operation::SetFields { key: "k".into(), pairs: vec![("f".into(), "v".into())], absent: false };
    let fields = Operation::DeleteFields { key: "k".into(), fields: vec!["f".into()] };
    let new = || put("k", Life::Forever);
    let void: Vec<Vec<Operation>> = vec![
        vec![new(), delete("k")],
        vec![new(), delete("k"), new(), delete("k")],
        vec![new(), rename("k", "j")],
        vec![new(), Operation::Move { key: "k".into(), database: 3 }],
        vec![new(), Operation::Clear { all: false }],
        vec![new(), Operation::Clear { all: true }],
        vec![field, fields],
        vec![new(), Operation::Take { key: "k".into() }],
        vec![put("k", Life::Until(1))],
        vec![put("k", Life::For(2))],
        vec![new(), put("k", Life::Until(1))],
        vec![rename("other", "k"), delete("k")],
    ];
    let stays: Vec<Vec<Operation>> = vec![
        vec![],
        vec![put("j", Life::Forever), delete("j")],
        vec![delete("k")],
        vec![Operation::Clear { all: true }],
        vec![delete("other")],
        vec![Operation::In(1), new(), delete("k")],
        vec![Operation::Put {
            key: "k".into(),
            value: "v".into(),
            only: Only::Present,
            life: Life::Forever,
            get: false,
        }],
    ];
    // One that is over and still there is not there, when it is watched and afterwards.
    for before in [vec![], vec![new(), delete("k")], vec![put("k", Life::For(1))]] {
        let mut kv = Kv::new();
        at(&mut kv, 0, vec![put("other", Life::Forever)]);
        at(&mut kv, 0, before);
        let Found::Marks(marks) = ask(&kv, 1, Lookup::Marks(vec!["k".into()])) else { panic!() };
        let guard = Operation::Guard { watched: vec![(0, "k".into(), marks[0])] };
        for (cases, expected) in [(&void, Outcome::Nothing), (&stays, Outcome::Done)] {
            for case in cases {
                let mut kv = kv.clone();
                at(&mut kv, 1, case.clone());
                let after = at(&mut kv, 3, vec![guard.clone()]);
                assert_eq!(after, std::slice::from_ref(&expected), "{case:?}");
            }
        }
    }
}

#[test]
fn what_is_known_of_keys_that_went_is_bounded_and_seldom_wrong() {
    let mut kv = Kv::new();
    let keys = |name: &str, count: usize| -> Vec<Bytes> {
        (0..count).map(|number| Bytes::from(format!("{name}:{number}"))).collect()
    };
    let live = |kv: &mut Kv, keys: &[Bytes]| {
        keys.iter().for_each(|key| drop(at(kv, 0, vec![set(key.clone(), "v".into())])));
    };
    let old = keys("old", 3 * SLOTS);
    live(&mut kv, &old);
    let watched = keys("watched", 1000);
    let Found::Marks(marks) = ask(&kv, 0, Lookup::Marks(watched.clone())) else { panic!() };
    let void = |kv: &mut Kv| {
        let guard = |(key, mark): (&Bytes, &u64)| Operation::Guard { watched: vec![(0, key.clone(), *mark)] };
        let guards = watched.iter().zip(&marks).map(guard);
        guards.filter(|guard| at(kv, 0, vec![guard.clone()]) == [Outcome::Nothing]).count()
    };
    // However many keys go that were there before, nobody is disturbed.
    at(&mut kv, 0, vec![Operation::Delete { keys: old }]);
    assert_eq!(void(&mut kv), 0);
    let passing = keys("passing", SLOTS / 16);
    live(&mut kv, &passing);
    at(&mut kv, 0, vec![Operation::Delete { keys: passing }]);
    let disturbed = void(&mut kv);
    assert!((20..120).contains(&disturbed), "{disturbed} of 1000, where a sixteenth was expected");
    let many = keys("many", SLOTS + 1);
    live(&mut kv, &many);
    at(&mut kv, 0, vec![Operation::Clear { all: false }]);
    assert_eq!(void(&mut kv), 1000, "too many to be told apart");
    assert_eq!(kv.space.gone().iter().count(), SLOTS);
    assert!(snapshot(&kv).len() < SLOTS * 8);
}
