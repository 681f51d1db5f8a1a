//! Tests of the machine with users: rights are looked at where a write is applied, whatever was so when it was proposed.

use super::{Found, Kv, Lookup, Operation, Outcome, When};
use crate::roster::Roster;
use crate::users::{By, Hash, Refusal, Rights, Role};
use bytes::Bytes;
use coracle::raft::LogId;
use coracle::{Context, QueryContext, StateMachine};

fn apply(kv: &mut Kv, batch: Vec<Operation>) -> Vec<Outcome> {
    kv.apply(&mut Context::new(LogId::ZERO, 0, 0), batch)
}

fn query(kv: &Kv, batch: Vec<Lookup>) -> Vec<Found> {
    kv.query(&QueryContext::new(LogId::ZERO, 0), batch)
}

fn rights(role: Role, prefix: Option<&'static str>) -> Rights {
    Rights { role, prefixes: prefix.into_iter().map(Bytes::from).collect() }
}

fn add(name: &'static str, role: Role, prefix: Option<&'static str>) -> Operation {
    Operation::AddUser { name: name.into(), hash: Hash("hash".into()), rights: rights(role, prefix) }
}

fn set(key: &'static str) -> Operation {
    Operation::Set { key: key.into(), value: "v".into(), when: When::Always, get: false }
}

fn by(kv: &Kv, name: &'static str) -> By {
    By::User { name: name.into(), version: kv.users.version() }
}

/// A machine with an administrator and a user who writes what begins with `a:`.
fn machine() -> Kv {
    let mut kv = Kv::new();
    assert_eq!(apply(&mut kv, vec![add("root", Role::Admin, None)]), [Outcome::Done]);
    let root = by(&kv, "root");
    let batch = vec![Operation::As(root), add("ann", Role::Write, Some("a:"))];
    assert_eq!(apply(&mut kv, batch), [Outcome::Done]);
    kv
}

#[test]
fn what_was_under_way_when_the_first_user_came_is_refused() {
    let mut kv = Kv::new();
    assert_eq!(
        apply(&mut kv, vec![set("k"), add("root", Role::Admin, None), set("k")])[2],
        Outcome::Refused(Refusal::Nobody)
    );
    // Two that were added at once, each as the first one.
    assert_eq!(apply(&mut kv, vec![add("ann", Role::Admin, None)]), [Outcome::Refused(Refusal::Nobody)]);
    assert_eq!(query(&kv, vec![Lookup::Get("k".into())]), [Found::Refused(Refusal::Nobody)]);
    assert_eq!(kv.record(b"k").unwrap().version, 1);
}

#[test]
fn a_user_who_was_removed_or_changed_meanwhile_is_judged_by_what_holds_now() {
    let mut kv = machine();
    let (ann, root) = (by(&kv, "ann"), by(&kv, "root"));
    let write = |kv: &mut Kv, key| apply(kv, vec![Operation::As(ann.clone()), set(key)]).remove(0);
    assert_eq!(write(&mut kv, "a:1"), Outcome::Done);
    assert_eq!(write(&mut kv, "b:1"), Outcome::Refused(Refusal::Key));
    let grant = |role, prefix| Operation::Grant { name: "ann".into(), rights: rights(role, prefix) };
    apply(&mut kv, vec![Operation::As(root.clone()), grant(Role::Write, Some("b:"))]);
    assert_eq!(write(&mut kv, "a:1"), Outcome::Refused(Refusal::Key));
    assert_eq!(write(&mut kv, "b:1"), Outcome::Done);
    apply(&mut kv, vec![Operation::As(root.clone()), grant(Role::Read, None)]);
    assert_eq!(write(&mut kv, "b:1"), Outcome::Refused(Refusal::Role));
    apply(&mut kv, vec![Operation::As(root.clone()), Operation::RemoveUser { name: "ann".into() }]);
    assert_eq!(write(&mut kv, "b:1"), Outcome::Refused(Refusal::Nobody));
    // Another one of the same name.
    apply(&mut kv, vec![Operation::As(root), add("ann", Role::Write, None)]);
    assert_eq!(write(&mut kv, "b:1"), Outcome::Refused(Refusal::Nobody));
    let ann = by(&kv, "ann");
    assert_eq!(apply(&mut kv, vec![Operation::As(ann), set("b:1")]), [Outcome::Done]);
}

#[test]
fn each_key_of_a_command_and_each_command_of_a_batch_is_looked_at() {
    let mut kv = machine();
    let ann = by(&kv, "ann");
    let pair = |key: &'static str| (Bytes::from(key), Bytes::from("v"));
    let batch = vec![
        Operation::As(ann.clone()),
        Operation::SetAll { pairs: vec![pair("a:1"), pair("b:1")] },
        Operation::SetAll { pairs: vec![pair("a:1"), pair("a:2")] },
        Operation::Delete { keys: vec!["a:1".into(), "b".into()] },
        Operation::Append { key: "b".into(), value: "v".into() },
        Operation::Add { key: "a:n".into(), by: 1 },
        Operation::RemoveUser { name: "ann".into() },
        Operation::As(By::Cluster),
        set("anything"),
    ];
    let refused = Outcome::Refused;
    assert_eq!(
        apply(&mut kv, batch),
        [
            refused(Refusal::Key),
            Outcome::Done,
            refused(Refusal::Key),
            refused(Refusal::Key),
            Outcome::Number(1),
            refused(Refusal::Role),
            Outcome::Done
        ]
    );
    assert!(kv.record(b"b:1").is_none() && kv.record(b"a:2").is_some());
    let lookups = vec![
        Lookup::As(ann),
        Lookup::GetAll(vec!["a:1".into(), "anything".into()]),
        Lookup::Count(vec!["a:1".into()]),
        Lookup::Get("anything".into()),
    ];
    let hidden = Found::Refused(Refusal::Key);
    assert_eq!(query(&kv, lookups), [hidden.clone(), Found::Count(1), hidden]);
}

#[test]
fn users_are_in_snapshots_and_in_the_digest_and_without_them_both_are_those_of_the_first_version() {
    let save = |kv: &Kv| {
        let mut bytes = Vec::new();
        kv.snapshot()(&mut bytes).unwrap();
        bytes
    };
    let mut plain = Kv::new();
    apply(&mut plain, vec![set("k")]);
    assert_eq!(save(&plain), b"\x01\x01\x01\x01k\x01v\x01\x01\x01");
    let mut kv = machine();
    apply(&mut kv, vec![Operation::As(By::Cluster), set("k")]);
    assert_eq!(
        save(&kv),
        b"\x02\x02\x02\x03ann\x04hash\x02\x02\x01\x02a:\x04root\x04hash\x03\x01\x00\x01\x01\x01k\x01v\x01\x01\x01"
    );
    assert_ne!(kv.digest(), plain.digest());
    let bytes = save(&kv);
    let roster = Roster::default();
    let mut back = Kv::new().publishing(roster.clone());
    back.restore(&mut &bytes[..]).unwrap();
    assert_eq!((&back.users, back.digest()), (&kv.users, kv.digest()));
    assert_eq!(roster.users(), kv.users);
    for cut in 0..bytes.len() {
        assert!(Kv::new().restore(&mut &bytes[..cut]).is_err(), "cut at {cut}");
    }
    for (at, wrong) in [(2, 200), (1, 0), (3, 65), (12, 9), (13, 3), (14, 17)] {
        let mut bytes = bytes.clone();
        bytes[at] = wrong;
        assert!(Kv::new().restore(&mut &bytes[..]).is_err(), "{wrong} at {at}");
    }
    // Also where all of them went.
    let remove = |name: &'static str| Operation::RemoveUser { name: name.into() };
    apply(&mut kv, vec![Operation::As(By::Cluster), remove("ann"), remove("root")]);
    assert!(kv.users.is_empty());
    back.restore(&mut &save(&kv)[..]).unwrap();
    assert_eq!((back.digest(), roster.users().version()), (kv.digest(), 4));
}

#[test]
fn only_what_concerns_users_needs_the_second_version() {
    assert_eq!(Kv::version_of(&vec![set("a"), Operation::Add { key: "n".into(), by: 1 }]), 1);
    assert_eq!(Kv::version_of(&vec![Operation::As(By::Cluster), set("a")]), 2);
    assert_eq!(Kv::version_of(&vec![set("a"), add("root", Role::Admin, None)]), 2);
    assert_eq!(Kv::version_of(&Vec::new()), 1);
}

#[test]
fn what_is_published_is_what_was_applied_and_nothing_where_there_are_no_users() {
    let roster = Roster::default();
    let mut kv = Kv::new().publishing(roster.clone());
    let empty = {
        let mut bytes = Vec::new();
        kv.snapshot()(&mut bytes).unwrap();
        bytes
    };
    apply(&mut kv, vec![set("k"), add("ann", Role::Read, None)]);
    kv.restore(&mut &empty[..]).unwrap();
    assert_eq!(roster.edition(), 0);
    apply(&mut kv, vec![add("root", Role::Admin, None), add("ann", Role::Read, None)]);
    assert_eq!((roster.edition(), roster.users().iter().len()), (1, 1), "a refusal publishes nothing");
    // An older snapshot takes them away again.
    kv.restore(&mut &empty[..]).unwrap();
    assert!(roster.edition() == 2 && roster.users().is_empty());
}
