//! Changes of strings.

use super::record::{Datum, Deadline, Given};
use super::{At, Kv, Over, digits, number};
use crate::fraction::{self, NoSum};
use crate::operation::{Life, Only, Outcome, When};
use crate::value::Value;
use bytes::Bytes;

impl Kv {
    /// A string, or nothing, where there must be no hash.
    fn text(&self, at: At, key: &[u8]) -> Result<Option<&Value>, Outcome> {
        match self.space.get(at.database, key).map(|record| record.text()) {
            None => Ok(None),
            Some(Some(value)) => Ok(Some(value)),
            Some(None) => Err(Outcome::WrongKind),
        }
    }

    pub(super) fn deadline(&self, at: At, key: &[u8]) -> Option<Deadline> {
        self.space.get(at.database, key).and_then(|record| record.deadline)
    }

    /// Gives a key a string, in a revision of its own.
    fn write<'a>(&mut self, at: At, key: &[u8], value: impl Into<Given<'a>>, deadline: Option<Deadline>) {
        self.space.revision += 1;
        self.space.put(at.database, key, value, deadline);
    }

    /// The same, and the key lives as long as it would have.
    fn rewrite(&mut self, at: At, key: &[u8], value: Value) {
        self.write(at, key, value, self.deadline(at, key));
    }

    /// A key is written that is over before it begins.
    fn come_and_go(&mut self, at: At, key: &[u8]) {
        if !self.delete_one(at, key) && self.space.is_of_fourth() {
            self.space.revision += 1;
            self.space.note_gone(at.database, key);
        }
    }

    pub(super) fn set(
        &mut self,
        at: At,
        key: &[u8],
        value: &[u8],
        when: When,
        get: bool,
    ) -> Result<Outcome, Outcome> {
        let only = match when {
            // The common case looks a key up once.
            When::Always if !get && value.len() <= self.space.max_value() => {
                self.write(at, key, value, None);
                return Ok(Outcome::Done);
            }
            When::Always => Only::Always,
            When::Absent => Only::Absent,
            When::Present => Only::Present,
        };
        self.set_if(at, key, value, &only, Life::Forever, get)
    }

    pub(super) fn set_if(
        &mut self,
        at: At,
        key: &[u8],
        value: &[u8],
        only: &Only,
        life: Life,
        get: bool,
    ) -> Result<Outcome, Outcome> {
        if value.len() > self.space.max_value() {
            return Err(Outcome::TooLong);
        }
        let before = match self.text(at, key) {
            Ok(before) => before,
            // A hash has no value to be answered, or compared with.
            Err(refusal) if get || matches!(only, Only::Equal(_) | Only::Different(_)) => {
                return Err(refusal);
            }
            Err(_) => None,
        };
        let is = |value: &Bytes| before.is_some_and(|before| before.is(value));
        let wanted = match only {
            Only::Always => true,
            Only::Absent => self.space.get(at.database, key).is_none(),
            Only::Present => self.space.get(at.database, key).is_some(),
            Only::Equal(value) => is(value),
            Only::Different(value) => !is(value),
        };
        let before = before.filter(|_| get).cloned();
        if wanted {
            match at.ends(life, self.deadline(at, key)) {
                Ok(deadline) => self.write(at, key, value, deadline),
                Err(Over) => self.come_and_go(at, key),
            }
        }
        Ok(match before {
            Some(before) => Outcome::Value(before),
            _ if wanted && !get => Outcome::Done,
            _ => Outcome::Nothing,
        })
    }

    pub(super) fn append(&mut self, at: At, key: &[u8], tail: &[u8]) -> Result<i64, Outcome> {
        let before = self.text(at, key)?.map(Value::len);
        let length = before.unwrap_or(0) + tail.len();
        if length > self.space.max_value() {
            return Err(Outcome::TooLong);
        }
        if before.is_none() {
            self.write(at, key, tail, None);
        // As in redis, adding nothing to something is no change.
        } else if !tail.is_empty() {
            self.space.revision += 1;
            self.space.edit(at.database, key, |record, seed| match &mut record.datum {
                Datum::Text(value) => value.append(tail, seed),
                Datum::Fields(_) => 0,
            });
        }
        Ok(length as i64)
    }

    pub(super) fn add(&mut self, at: At, key: &[u8], by: i64) -> Result<i64, Outcome> {
        let before = match self.text(at, key)?.map(Value::pieces) {
            None => 0,
            // More than a piece is no number of 64 bits.
            Some([digits]) => number(digits).ok_or(Outcome::NotANumber)?,
            Some(_) => return Err(Outcome::NotANumber),
        };
        let sum = before.checked_add(by).ok_or(Outcome::Overflow)?;
        self.rewrite(at, key, Bytes::from(sum.to_string()).into());
        Ok(sum)
    }

    pub(super) fn add_fraction(&mut self, at: At, key: &[u8], by: &[u8]) -> Result<Bytes, Outcome> {
        let before = self.text(at, key)?.map_or(Bytes::from_static(b"0"), digits);
        let sum = fraction::sum(&before, by).map_err(|why| match why {
            NoSum::NotANumber => Outcome::NotAFraction,
            NoSum::NotFinite => Outcome::NotFinite,
        })?;
        let sum = Bytes::from(sum);
        self.rewrite(at, key, sum.clone().into());
        Ok(sum)
    }

    pub(super) fn set_all(&mut self, at: At, pairs: &[(Bytes, Bytes)]) -> Result<(), Outcome> {
        let most = self.space.max_value();
        if pairs.iter().any(|(_, value)| value.len() > most) {
            return Err(Outcome::TooLong);
        }
        self.space.revision += 1;
        for (key, value) in pairs {
            self.space.put(at.database, key, &value[..], None);
        }
        Ok(())
    }

    pub(super) fn set_all_absent(&mut self, at: At, pairs: &[(Bytes, Bytes)]) -> Result<i64, Outcome> {
        if pairs.iter().any(|(key, _)| self.space.get(at.database, key).is_some()) {
            return Ok(0);
        }
        self.set_all(at, pairs).map(|()| 1)
    }

    pub(super) fn take(&mut self, at: At, key: &[u8]) -> Result<Outcome, Outcome> {
        let Some(value) = self.text(at, key)?.cloned() else { return Ok(Outcome::Nothing) };
        self.delete_one(at, key);
        Ok(Outcome::Value(value))
    }

    pub(super) fn delete_if(&mut self, at: At, key: &[u8], only: &Only) -> Result<i64, Outcome> {
        let is = |value: &Bytes| Ok(self.text(at, key)?.is_some_and(|text| text.is(value)));
        let holds = match only {
            Only::Always | Only::Present => true,
            Only::Absent => false,
            Only::Equal(value) => is(value)?,
            Only::Different(value) => !is(value)?,
        };
        Ok(i64::from(holds && self.delete_one(at, key)))
    }

    pub(super) fn set_range(&mut self, at: At, key: &[u8], offset: u64, part: &[u8]) -> Result<i64, Outcome> {
        let before = self.text(at, key)?;
        // As in redis, nothing is no change, wherever it is to go.
        if part.is_empty() {
            return Ok(before.map_or(0, Value::len) as i64);
        }
        if offset.saturating_add(part.len() as u64) > self.space.max_value() as u64 {
            return Err(Outcome::TooLong);
        }
        let (offset, end) = (offset as usize, offset as usize + part.len());
        let before = before.map(Value::len);
        if before.is_none() {
            let mut value = Value::default();
            value.overwrite(offset, part, 0);
            self.write(at, key, value, None);
        } else {
            self.space.revision += 1;
            self.space.edit(at.database, key, |record, seed| match &mut record.datum {
                Datum::Text(value) => value.overwrite(offset, part, seed),
                Datum::Fields(_) => 0,
            });
        }
        Ok(before.unwrap_or(0).max(end) as i64)
    }
}
