//! Changes of keys, whatever their values are.

use super::record::{Datum, Deadline, Record};
use super::{At, Kv, Over};
use crate::operation::{DATABASES, Life, OnlyLife, Outcome};
use bytes::Bytes;

/// How many keys that have ended are removed by one firing of the timer.
const REAPED_AT_ONCE: usize = 1000;

impl Kv {
    /// Removes a key, in a revision of its own. False if it was not there.
    pub(super) fn delete_one(&mut self, at: At, key: &[u8]) -> bool {
        let removed = self.space.remove(at.database, key).is_some();
        self.space.revision += u64::from(removed);
        removed
    }

    pub(super) fn delete(&mut self, at: At, keys: &[Bytes]) -> i64 {
        let removed = keys.iter().filter(|key| self.space.remove(at.database, key).is_some()).count();
        self.space.revision += u64::from(removed > 0);
        removed as i64
    }

    /// Removes a key if it has ended.
    pub(super) fn reap(&mut self, at: At, key: &[u8]) {
        // As a rule no key ends, and none is looked up for that.
        if self.space.database(at.database).mortal() == 0 {
            return;
        }
        if self.space.get(at.database, key).is_some_and(|record| record.is_over(at.cluster_time)) {
            self.delete_one(at, key);
        }
    }

    /// Removes keys that have ended, as many as one firing may.
    pub(super) fn reap_some(&mut self, cluster_time: u64) {
        for _ in 0..REAPED_AT_ONCE {
            let Some((database, key)) = self.space.over(cluster_time) else { return };
            self.space.revision += 1;
            self.space.remove(database, key.as_bytes());
        }
    }

    /// Whether it was done.
    pub(super) fn expire(&mut self, at: At, key: &[u8], life: Life, only: OnlyLife) -> bool {
        let Some(record) = self.space.get(at.database, key) else { return false };
        let before = record.deadline;
        let after = at.ends(life, before);
        // In the terms in which they were given.
        let end = |deadline: Option<Deadline>| deadline.map_or(i64::MAX, |deadline| deadline.unix);
        let (old, new) = (end(before), after.as_ref().map_or(i64::MIN, |after| end(*after)));
        let wanted = match only {
            OnlyLife::Always => true,
            OnlyLife::Forever => before.is_none(),
            OnlyLife::Mortal => before.is_some(),
            OnlyLife::Longer => new > old,
            OnlyLife::Shorter => new < old,
            OnlyLife::MortalShorter => before.is_some() && new < old,
        };
        match after {
            _ if !wanted => {}
            Err(Over) => drop(self.delete_one(at, key)),
            Ok(deadline) => {
                self.space.revision += 1;
                self.space.edit(at.database, key, |record, _| {
                    record.deadline = deadline;
                    0
                });
            }
        }
        wanted
    }

    pub(super) fn touch(&mut self, at: At, key: &[u8], life: Life) -> Result<Outcome, Outcome> {
        let Some(record) = self.space.get(at.database, key) else { return Ok(Outcome::Nothing) };
        let value = record.text().ok_or(Outcome::WrongKind)?.clone();
        if life == Life::Forever && record.deadline.is_none() {
            return Ok(Outcome::Value(value));
        }
        self.expire(at, key, life, OnlyLife::Always);
        Ok(Outcome::Value(value))
    }

    pub(super) fn rename(&mut self, at: At, from: &[u8], to: &[u8], absent: bool) -> Result<i64, Outcome> {
        let record = self.space.get(at.database, from).ok_or(Outcome::NoKey)?;
        if absent && self.space.get(at.database, to).is_some() {
            return Ok(0);
        }
        if from != to {
            let Record { datum, deadline, .. } = record.clone();
            self.space.revision += 1;
            self.space.remove(at.database, from);
            self.replace(at.database, to, datum, deadline);
        }
        Ok(1)
    }

    pub(super) fn copy(
        &mut self,
        at: At,
        from: &[u8],
        to: &[u8],
        database: Option<u8>,
        replace: bool,
    ) -> Result<i64, Outcome> {
        let database = database.unwrap_or(at.database);
        if from == to && database == at.database {
            return Err(Outcome::SameKey);
        }
        self.reap(At { database, ..at }, to);
        let Some(record) = self.space.get(at.database, from) else { return Ok(0) };
        if !replace && self.space.get(database, to).is_some() {
            return Ok(0);
        }
        let Record { datum, deadline, .. } = record.clone();
        self.space.revision += 1;
        self.replace(database, to, datum, deadline);
        Ok(1)
    }

    /// A key that comes to be anew, in the place of another if there is one.
    fn replace(&mut self, database: u8, key: &[u8], datum: Datum, deadline: Option<Deadline>) {
        self.space.remove(database, key);
        self.space.put(database, key, datum, deadline);
    }

    pub(super) fn move_to(&mut self, at: At, key: &[u8], database: u8) -> Result<i64, Outcome> {
        let copied = self.copy(at, key, key, Some(database), false)?;
        if copied == 1 {
            self.space.remove(at.database, key);
        }
        Ok(copied)
    }

    pub(super) fn clear(&mut self, at: At, all: bool) {
        self.space.revision += 1;
        let databases = if all { 0..DATABASES } else { at.database..at.database + 1 };
        let gone: Vec<_> = databases.map(|number| self.space.clear(number)).collect();
        // Beside the machine, which has other things to do. Where no thread can be had it is done here.
        let name = "cleared".to_owned();
        drop(std::thread::Builder::new().name(name).spawn(move || drop(gone)));
    }
}
