//! Changes of hashes.

use super::record::Datum;
use super::{At, Kv, digits, number};
use crate::fields::Fields;
use crate::fraction::{self, NoSum};
use crate::operation::{MAX_FIELDS, Outcome};
use crate::value::Value;
use bytes::Bytes;

impl Kv {
    /// A hash to change, which shares what it does not change; one without fields where there is no such key.
    fn fields(&self, at: At, key: &[u8]) -> Result<Fields, Outcome> {
        match self.space.get(at.database, key).map(|record| record.fields()) {
            None => Ok(Fields::default()),
            Some(Some(fields)) => Ok(fields.clone()),
            Some(None) => Err(Outcome::WrongKind),
        }
    }

    /// Has a hash be so, in a revision of its own. One without fields goes.
    fn keep(&mut self, at: At, key: &[u8], fields: Fields) -> Result<(), Outcome> {
        if fields.len() > MAX_FIELDS {
            return Err(Outcome::TooManyFields);
        }
        if fields.bytes() > self.space.max_value() {
            return Err(Outcome::TooLong);
        }
        if fields.is_empty() {
            self.delete_one(at, key);
        } else {
            let deadline = self.deadline(at, key);
            self.space.revision += 1;
            self.space.put(at.database, key, Datum::Fields(fields), deadline);
        }
        Ok(())
    }

    pub(super) fn set_fields(
        &mut self,
        at: At,
        key: &[u8],
        pairs: &[(Bytes, Bytes)],
        absent: bool,
    ) -> Result<i64, Outcome> {
        let mut fields = self.fields(at, key)?;
        if absent && pairs.iter().any(|(field, _)| fields.get(field).is_some()) {
            return Ok(0);
        }
        let new = pairs.iter().filter(|(field, value)| fields.set(field, Value::from(&value[..]))).count();
        self.keep(at, key, fields)?;
        Ok(new as i64)
    }

    pub(super) fn delete_fields(&mut self, at: At, key: &[u8], gone: &[Bytes]) -> Result<i64, Outcome> {
        let mut fields = self.fields(at, key)?;
        let removed = gone.iter().filter(|field| fields.remove(field)).count();
        if removed > 0 {
            self.keep(at, key, fields)?;
        }
        Ok(removed as i64)
    }

    pub(super) fn add_field(&mut self, at: At, key: &[u8], field: &[u8], by: i64) -> Result<i64, Outcome> {
        let mut fields = self.fields(at, key)?;
        let before = match fields.get(field).map(Value::pieces) {
            None => 0,
            // More than a piece is no number of 64 bits.
            Some([digits]) => number(digits).ok_or(Outcome::FieldNotANumber)?,
            Some(_) => return Err(Outcome::FieldNotANumber),
        };
        let sum = before.checked_add(by).ok_or(Outcome::Overflow)?;
        fields.set(field, Value::from(sum.to_string().as_bytes()));
        self.keep(at, key, fields)?;
        Ok(sum)
    }

    pub(super) fn add_field_fraction(
        &mut self,
        at: At,
        key: &[u8],
        field: &[u8],
        by: &[u8],
    ) -> Result<Bytes, Outcome> {
        let mut fields = self.fields(at, key)?;
        let before = fields.get(field).map_or(Bytes::from_static(b"0"), digits);
        let sum = fraction::sum(&before, by).map_err(|why| match why {
            NoSum::NotANumber => Outcome::FieldNotAFraction,
            NoSum::NotFinite => Outcome::NotFinite,
        })?;
        fields.set(field, Value::from(sum.as_bytes()));
        self.keep(at, key, fields)?;
        Ok(sum.into())
    }
}
