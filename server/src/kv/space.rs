//! The databases: their keys, the orders in which these are looked for, and what is kept of them together.
//!
//! Everything that changes a key passes through here, so that the digest, the deadlines, the order for scans and the
//! count of bytes cannot differ from the keys.

use super::record::{Datum, Deadline, Owner, Record};
use crate::key::Key;
use crate::operation::DATABASES;
use imbl::{OrdMap, OrdSet};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// About the memory that a key takes besides the bytes of its name and value.
const OVERHEAD: u64 = 200;

/// One database.
#[derive(Clone, Default, Debug)]
pub(crate) struct Database {
    /// Each by a pointer, so that a node of the tree is small: it is copied where a snapshot shares it.
    records: OrdMap<Key, Arc<Record>>,
    /// The names in the order of their places, for scans.
    places: OrdSet<(u64, Key)>,
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
    /// All keys in the order of their names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &Record)> {
        self.records.iter().map(|(key, record)| (key, &**record))
    }

    /// The key with the greatest name.
    pub(super) fn last(&self) -> Option<&Key> {
        self.records.get_max().map(|(key, _)| key)
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// How many keys are not for ever.
    pub(super) fn mortal(&self) -> usize {
        self.due.len()
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Record> {
        self.records.get(key).map(|record| &**record)
    }

    /// The names from this place on, with their places.
    pub(super) fn from(&self, place: u64) -> impl Iterator<Item = &(u64, Key)> {
        self.places.range((place, Key::from(&b""[..]))..)
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

    fn insert(&mut self, key: &[u8], record: Record) {
        self.count(key, &Kept::of(key, &record));
        let name = Key::from(key);
        self.places.insert((place(key), name.clone()));
        self.records.insert(name, Arc::new(record));
    }

    fn remove(&mut self, key: &[u8]) -> Option<Record> {
        let (name, record) = self.records.remove_with_key(key)?;
        self.discount(key, &Kept::of(key, &record));
        self.places.remove(&(place(key), name));
        Some(Arc::unwrap_or_clone(record))
    }

    /// Changes the key, if it is there. See [`Space::edit`].
    fn edit(&mut self, owner: &Owner, key: &[u8], at: u64, how: impl FnOnce(&mut Record, u64) -> u128) {
        let Some(record) = self.records.get_mut(key).map(Arc::make_mut) else { return };
        let before = Kept::of(key, record);
        record.print ^= record.head_print(owner);
        let change = how(record, owner.seed());
        record.modified = at;
        record.version += 1;
        record.print ^= change ^ record.head_print(owner);
        let after = Kept::of(key, record);
        if before.deadline == after.deadline {
            self.prints ^= before.print ^ after.print;
            self.bytes = self.bytes - before.weight + after.weight;
            self.hashes = self.hashes - u64::from(before.hash) + u64::from(after.hash);
        } else {
            self.discount(key, &before);
            self.count(key, &after);
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
}

impl Space {
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
        first.hashes == 0 && first.due.is_empty() && others.iter().all(|other| other.records.is_empty())
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
        self.change(database, |database| database.remove(key))
    }

    /// Gives a key its value at the current revision.
    pub(super) fn put(&mut self, number: u8, key: &[u8], datum: Datum, deadline: Option<Deadline>) {
        let mut datum = Some(datum);
        self.edit(number, key, |record, seed| {
            // What is left of it now is that of the old value, if it was a string.
            let before = record.print;
            if let Some(datum) = datum.take() {
                (record.datum, record.deadline) = (datum, deadline);
            }
            before ^ record.text().map_or(0, |value| value.print(seed))
        });
        if let Some(datum) = datum {
            let (created, modified) = (self.revision, self.revision);
            self.insert(number, key, Record { datum, deadline, created, modified, version: 1, print: 0 });
        }
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
        self.change(number, std::mem::take)
    }
}
