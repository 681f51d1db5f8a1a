//! The databases: their keys, the order in which these are looked for, and what is kept of them together.
//!
//! Everything that changes a key passes through here, so that the digest, the deadlines and the
//! count of bytes cannot differ from the keys.
//!
//! A key stands at a place, which is a hash of its name. So the tree of keys is one of numbers that lie side by side, which is
//! searched without a look at any name, and scans go by places, which neither growth nor a restart moves. Names that
//! share a place, which chance never brings about and malice can, have a tree of their own there.

use super::gone::{self, Gone};
use super::record::{Deadline, Given, Owner, Record};
use crate::key::Key;
use crate::operation::{DATABASES, FORMER_MAX_VALUE, MAX_VALUE};
use imbl::{OrdMap, OrdSet};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// About the memory that a key takes besides the bytes of its name and value.
const OVERHEAD: u64 = 200;

/// What stands at one place.
#[derive(Clone, Debug)]
enum Stand {
    /// One key.
    One(Key, Record),
    /// Several. Never fewer than two.
    Many(OrdMap<Key, Record>),
}

impl Stand {
    fn get(&self, key: &[u8]) -> Option<&Record> {
        match self {
            Stand::One(name, record) => (name.as_bytes() == key).then_some(record),
            Stand::Many(records) => records.get(key),
        }
    }

    fn get_mut(&mut self, key: &[u8]) -> Option<&mut Record> {
        match self {
            Stand::One(name, record) => (name.as_bytes() == key).then_some(record),
            Stand::Many(records) => records.get_mut(key),
        }
    }

    /// Adds a key that is not there.
    fn insert(&mut self, key: Key, record: Record) {
        let records = match std::mem::replace(self, Stand::Many(OrdMap::new())) {
            Stand::One(name, other) => OrdMap::unit(name, other),
            Stand::Many(records) => records,
        };
        *self = Stand::Many(records.update(key, record));
    }

    /// What is left without this key, and its record.
    fn without(self, key: &[u8]) -> Option<(Option<Stand>, Record)> {
        let mut records = match self {
            Stand::One(_, record) => return Some((None, record)),
            Stand::Many(records) => records,
        };
        let record = records.remove(key)?;
        let alone = if records.len() == 1 { records.get_min().cloned() } else { None };
        let left = alone.map_or_else(|| Stand::Many(records), |(name, record)| Stand::One(name, record));
        Some((Some(left), record))
    }

    fn iter(&self) -> impl Iterator<Item = (&Key, &Record)> {
        let (one, many) = match self {
            Stand::One(name, record) => (Some((name, record)), None),
            Stand::Many(records) => (None, Some(records)),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

/// One database.
#[derive(Clone, Default, Debug)]
pub(crate) struct Database {
    /// What stands at each place. By a pointer, so that a node of the tree is small: it is copied where a snapshot shares it.
    places: OrdMap<u64, Arc<Stand>>,
    /// How many keys there are.
    keys: usize,
    /// When keys end, by the cluster's clock.
    due: OrdSet<(u64, Key)>,
    /// The digests of all keys, together.
    prints: u128,
    /// About the memory of all keys.
    bytes: u64,
    /// How many keys are hashes.
    hashes: u64,
}

impl Database {
    /// All keys in the order of their names. That is made when it is asked for: nothing but snapshots goes by it.
    pub(super) fn by_name(&self) -> impl Iterator<Item = (&Key, &Record)> {
        let mut all: Vec<_> = self.from(0).map(|(_, key, record)| (key, record)).collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all.into_iter()
    }

    pub(super) fn len(&self) -> usize {
        self.keys
    }

    /// How many keys are not for ever.
    pub(super) fn mortal(&self) -> usize {
        self.due.len()
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Record> {
        self.places.get(&place(key))?.get(key)
    }

    /// The keys from this place on, with their places, in the order of these.
    pub(super) fn from(&self, place: u64) -> impl Iterator<Item = (u64, &Key, &Record)> {
        let stands = self.places.range(place..);
        stands.flat_map(|(place, stand)| stand.iter().map(|(key, record)| (*place, key, record)))
    }

    /// When the next key ends.
    fn next_due(&self) -> Option<u64> {
        self.due.get_min().map(|(at, _)| *at)
    }

    /// What is kept of a key beside it, which is about to change or go, goes.
    fn discount(&mut self, key: &[u8], kept: &Kept) {
        self.prints ^= kept.print;
        self.bytes -= kept.weight;
        self.hashes -= u64::from(kept.hash);
        if let Some(deadline) = kept.deadline {
            self.due.remove(&(deadline.at.get(), Key::from(key)));
        }
    }

    /// What is kept of a key beside it, which is new or has changed, comes.
    fn count(&mut self, key: &[u8], kept: &Kept) {
        self.prints ^= kept.print;
        self.bytes += kept.weight;
        self.hashes += u64::from(kept.hash);
        if let Some(deadline) = kept.deadline {
            self.due.insert((deadline.at.get(), Key::from(key)));
        }
    }

    /// Adds a key that is not there.
    fn insert(&mut self, key: &[u8], record: Record) {
        self.count(key, &Kept::of(key, &record));
        self.keys += 1;
        let (place, name) = (place(key), Key::from(key));
        match self.places.get_mut(&place) {
            Some(stand) => Arc::make_mut(stand).insert(name, record),
            None => drop(self.places.insert(place, Arc::new(Stand::One(name, record)))),
        }
    }

    fn remove(&mut self, key: &[u8]) -> Option<Record> {
        self.get(key)?;
        let place = place(key);
        let (left, record) = Arc::unwrap_or_clone(self.places.remove(&place)?).without(key)?;
        if let Some(left) = left {
            self.places.insert(place, Arc::new(left));
        }
        self.keys -= 1;
        self.discount(key, &Kept::of(key, &record));
        Some(record)
    }

    /// Changes the key, if it is there. See [`Space::edit`].
    fn edit(&mut self, owner: &Owner, key: &[u8], at: u64, how: impl FnOnce(&mut Record, u64) -> u128) {
        let Some(stand) = self.places.get_mut(&place(key)) else { return };
        let Some(record) = Arc::make_mut(stand).get_mut(key) else { return };
        let before = Kept::of(key, record);
        record.print ^= record.head_print(owner);
        let change = how(record, owner.seed());
        record.modified = at;
        record.version += 1;
        record.print ^= change ^ record.head_print(owner);
        let after = Kept::of(key, record);
        self.recount(key, &before, &after);
    }

    /// Gives a key its value, whatever it was. See [`Space::put`].
    fn put(&mut self, owner: &Owner, key: &[u8], at: u64, given: Given, deadline: Option<Deadline>) {
        let stand = self.places.get_mut(&place(key));
        let Some(record) = stand.and_then(|stand| Arc::make_mut(stand).get_mut(key)) else {
            let (datum, created, modified) = (given.into(), at, at);
            let mut record = Record { datum, deadline, created, modified, version: 1, print: 0 };
            record.print = record.fresh_print(owner);
            return self.insert(key, record);
        };
        let before = Kept::of(key, record);
        record.datum.take(given);
        (record.deadline, record.modified, record.version) = (deadline, at, record.version + 1);
        record.print = record.fresh_print(owner);
        let after = Kept::of(key, record);
        self.recount(key, &before, &after);
    }

    /// What is kept of a key beside it has changed.
    fn recount(&mut self, key: &[u8], before: &Kept, after: &Kept) {
        if before.deadline == after.deadline {
            self.prints ^= before.print ^ after.print;
            self.bytes = self.bytes - before.weight + after.weight;
            self.hashes = self.hashes - u64::from(before.hash) + u64::from(after.hash);
        } else {
            self.discount(key, before);
            self.count(key, after);
        }
    }

    fn sum(&self) -> Sum {
        Sum { keys: self.len(), mortal: self.mortal(), prints: self.prints, bytes: self.bytes }
    }
}

/// What is asked of all keys together with each entry.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Sum {
    keys: usize,
    mortal: usize,
    prints: u128,
    bytes: u64,
}

/// What is kept of a key beside it.
#[derive(PartialEq, Eq)]
struct Kept {
    print: u128,
    weight: u64,
    hash: bool,
    deadline: Option<Deadline>,
}

impl Kept {
    fn of(key: &[u8], record: &Record) -> Kept {
        Kept {
            print: record.print,
            weight: OVERHEAD + (key.len() + record.datum.weight()) as u64,
            hash: record.fields().is_some(),
            deadline: record.deadline,
        }
    }
}

/// Where a name stands in the order of scans: the same on every node, and for as long as there is such a name. Below 2^53,
/// which all languages' numbers hold.
pub(super) fn place(key: &[u8]) -> u64 {
    xxh3_64(key) >> 11
}

/// All databases.
#[derive(Clone, Default, Debug)]
pub(crate) struct Space {
    databases: [Database; DATABASES as usize],
    all: Sum,
    /// The databases that have changed since somebody asked, a bit for each.
    changed: u16,
    /// How many operations have changed anything so far.
    pub(super) revision: u64,
    /// Whether an entry of the machine's fourth version was applied. From there on its rules hold.
    of_fourth: bool,
    /// What is known of keys that went since then.
    gone: Gone,
}

impl Space {
    /// An entry of this version comes, or later ones do.
    pub(super) fn is_made_by(&mut self, version: u16) {
        self.of_fourth |= version >= 4;
    }

    /// Whether the rules of the machine's fourth version hold.
    pub(super) fn is_of_fourth(&self) -> bool {
        self.of_fourth
    }

    /// The longest value that is taken.
    pub(super) fn max_value(&self) -> usize {
        if self.of_fourth { MAX_VALUE } else { FORMER_MAX_VALUE }
    }

    /// The mark of a key that is so, or of one that is not there: it [stays](Space::stayed) what it is as long as nothing happens to
    /// the key.
    pub(super) fn mark(&self, record: Option<&Record>) -> u64 {
        match record {
            Some(record) => record.modified,
            None if self.of_fourth => gone::ABSENT | self.revision,
            None => 0,
        }
    }

    /// Whether nothing has happened to the key since it had this mark.
    pub(super) fn stayed(&self, database: u8, key: &[u8], mark: u64) -> bool {
        match self.get(database, key) {
            Some(record) => record.modified == mark,
            None if mark == 0 || mark & gone::ABSENT != 0 => {
                self.gone.newest(database, place(key)) <= mark & !gone::ABSENT
            }
            None => false,
        }
    }

    /// A key was there for no longer than the current revision.
    pub(super) fn note_gone(&mut self, database: u8, key: &[u8]) {
        self.gone.note(database, place(key), self.revision);
    }

    /// What is known of keys that went.
    pub(super) fn gone(&self) -> &Gone {
        &self.gone
    }

    /// The same of a snapshot, which knows the rules of the fourth version.
    pub(super) fn restore_gone(&mut self, gone: Gone) {
        (self.of_fourth, self.gone) = (true, gone);
    }

    /// The digest of that.
    pub(super) fn gone_print(&self) -> u128 {
        self.gone.print()
    }

    pub(super) fn database(&self, number: u8) -> &Database {
        &self.databases[usize::from(number)]
    }

    pub(super) fn databases(&self) -> impl Iterator<Item = (u8, &Database)> {
        (0..).zip(&self.databases)
    }

    pub(super) fn get(&self, database: u8, key: &[u8]) -> Option<&Record> {
        self.database(database).get(key)
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.all.keys
    }

    /// The digests of all keys, together.
    pub(super) fn prints(&self) -> u128 {
        self.all.prints
    }

    /// About the memory of all keys.
    pub(super) fn bytes(&self) -> u64 {
        self.all.bytes
    }

    /// The databases that have changed since this was asked before.
    pub(super) fn take_changed(&mut self) -> impl Iterator<Item = u8> + use<> {
        let changed = std::mem::take(&mut self.changed);
        (0..DATABASES).filter(move |number| changed & 1 << number != 0)
    }

    /// Any of them may have.
    pub(super) fn all_changed(&mut self) {
        self.changed = u16::MAX;
    }

    /// Does something to a database.
    fn change<T>(&mut self, number: u8, how: impl FnOnce(&mut Database) -> T) -> T {
        let database = &mut self.databases[usize::from(number)];
        let before = database.sum();
        let done = how(database);
        let (after, all) = (database.sum(), &mut self.all);
        all.keys = all.keys - before.keys + after.keys;
        all.mortal = all.mortal - before.mortal + after.mortal;
        all.prints ^= before.prints ^ after.prints;
        all.bytes = all.bytes - before.bytes + after.bytes;
        self.changed |= 1 << number;
        done
    }

    /// Whether programs of the first version could have made it.
    pub(super) fn is_plain(&self) -> bool {
        let [first, others @ ..] = &self.databases;
        first.hashes == 0 && first.due.is_empty() && others.iter().all(|other| other.keys == 0)
    }

    /// When the next key ends, by the cluster's clock.
    pub(super) fn next_due(&self) -> Option<u64> {
        if self.all.mortal == 0 {
            return None;
        }
        self.databases.iter().filter_map(Database::next_due).min()
    }

    /// A key that has ended at this time.
    pub(super) fn over(&self, now: u64) -> Option<(u8, Key)> {
        let over = |(number, database): (u8, &Database)| {
            database.due.get_min().filter(|(at, _)| *at <= now).map(|(_, key)| (number, key.clone()))
        };
        self.databases().find_map(over)
    }

    /// Removes a key.
    pub(super) fn remove(&mut self, database: u8, key: &[u8]) -> Option<Record> {
        let removed = self.change(database, |database| database.remove(key))?;
        if self.of_fourth {
            self.gone.note(database, place(key), removed.modified);
        }
        Some(removed)
    }

    /// Gives a key its value at the current revision.
    pub(super) fn put<'a>(
        &mut self,
        number: u8,
        key: &[u8],
        given: impl Into<Given<'a>>,
        deadline: Option<Deadline>,
    ) {
        let (owner, at, given) = (Owner::of(number, key), self.revision, given.into());
        self.change(number, |database| database.put(&owner, key, at, given, deadline));
    }

    /// Adds a key that is not there.
    pub(super) fn insert(&mut self, number: u8, key: &[u8], mut record: Record) {
        record.print = record.fresh_print(&Owner::of(number, key));
        self.change(number, |database| database.insert(key, record));
    }

    /// Changes a key at the current revision, if it is there. `how` gets the seed for prints of values, and returns how the
    /// print of a string changes; that of the string is all that the record's print is meanwhile.
    pub(super) fn edit(&mut self, number: u8, key: &[u8], how: impl FnOnce(&mut Record, u64) -> u128) {
        let (owner, at) = (Owner::of(number, key), self.revision);
        self.change(number, |database| database.edit(&owner, key, at, how));
    }

    /// Removes all keys of a database, and returns them: to let go of many takes time.
    pub(super) fn clear(&mut self, number: u8) -> Database {
        if self.of_fourth {
            if self.database(number).len() > gone::SLOTS {
                self.gone.note_all(self.revision);
            } else {
                let Space { databases, gone, .. } = self;
                let keys = databases[usize::from(number)].from(0);
                keys.for_each(|(place, _, record)| gone.note(number, place, record.modified));
            }
        }
        self.change(number, std::mem::take)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;
    use bytes::Bytes;

    /// Three names of one place, as somebody could choose them who knows the hash: its algorithm for 16 bytes, with terms
    /// that cancel out.
    fn of_one_place(number: u64) -> [[u8; 16]; 3] {
        let flips: [u64; 2] =
            [0x1f67_b3b7_a4a4_4072 ^ 0x78e5_c0cc_4ee6_79cb, 0x2172_ffcc_7dd0_5a82 ^ 0x8e24_43f7_7446_08b8];
        let sum = 2 * number;
        let halved = sum.wrapping_sub(1 << 56) / 2;
        [(0, sum), (sum.swap_bytes(), 0), (1, halved)].map(|(low, high): (u64, u64)| {
            let mut name = [0; 16];
            name[..8].copy_from_slice(&(low ^ flips[0]).to_le_bytes());
            name[8..].copy_from_slice(&(high ^ flips[1]).to_le_bytes());
            name
        })
    }

    fn put(space: &mut Space, key: &[u8], value: &[u8]) {
        space.revision += 1;
        space.put(0, key, value, None);
    }

    #[test]
    fn names_that_share_a_place_are_keys_like_others() {
        let mut space = Space::default();
        put(&mut space, b"another", b"value");
        let alone = (space.prints(), space.bytes());
        for number in [1 << 40, 77 << 41] {
            let names = of_one_place(number);
            assert!(names.iter().all(|name| place(name) == place(&names[0])), "they share a place");
            for (at, name) in names.iter().enumerate() {
                assert_eq!(space.get(0, name), None);
                put(&mut space, name, &[at as u8]);
                assert_eq!(space.len(), at + 2);
            }
            let snapshot = space.clone();
            put(&mut space, &names[1], b"changed");
            let text = |space: &Space, name: &[u8]| space.get(0, name)?.text().map(Value::to_bytes);
            for (at, name) in names.iter().enumerate() {
                let now = if at == 1 { Bytes::from_static(b"changed") } else { Bytes::from(vec![at as u8]) };
                assert_eq!(text(&space, name), Some(now));
                assert_eq!(text(&snapshot, name), Some(Bytes::from(vec![at as u8])));
            }
            let mut sorted: Vec<&[u8]> =
                names.iter().map(|name| &name[..]).chain([&b"another"[..]]).collect();
            sorted.sort_unstable();
            let database = space.database(0);
            assert!(database.by_name().map(|(key, _)| key.as_bytes()).eq(sorted));
            let there = database.from(place(&names[0])).take_while(|(at, ..)| *at == place(&names[0]));
            assert_eq!(there.count(), 3, "a scan finds them all where it begins at their place");
            for (at, name) in names.iter().enumerate() {
                assert_eq!(space.remove(0, name).map(|record| record.version), Some(1 + u64::from(at == 1)));
                assert_eq!(space.remove(0, name), None);
                assert_eq!(space.len(), 3 - at);
            }
            assert_eq!((space.prints(), space.bytes()), alone, "nothing of them is left");
            assert_eq!(snapshot.len(), 4);
        }
    }
}
