//! Questions about the keys.

use super::record::{Datum, Deadline, Record};
use super::space::{Database, place};
use super::{Kv, number};
use crate::glob;
use crate::lookup::ITEM;
use crate::operation::{Found, Lookup, MAX_ANSWER, Unit};
use crate::users::{By, Role};
use crate::value::Value;
use bytes::Bytes;
use std::time::Duration;

/// The most names that one scan looks at, however many it was asked for.
const MAX_SCANNED: u64 = 10_000;

/// How much is compared with a pattern before a scan leaves the rest to the next one.
const MAX_COMPARED: usize = 256 << 10;

/// What a scan takes that was asked for so many names, as bytes that could be copied meanwhile.
pub(super) fn worth_of_scan(count: u64) -> usize {
    2 * ITEM * count.min(MAX_SCANNED) as usize + 2 * MAX_COMPARED
}

/// The longest string, and the most fields, and the longest of these, that redis keeps in a short form.
const EMBEDDED: usize = 44;
const LISTED: usize = 128;
const LISTED_BYTES: usize = 64;

/// In whose name, where and when it is asked.
#[derive(Clone, Copy)]
pub(super) struct From<'a> {
    pub(super) by: Option<&'a By>,
    pub(super) database: u8,
    /// The cluster's clock: what has ended by then is not there.
    pub(super) cluster_time: u64,
    /// How long ago it was that, as far as is known here.
    pub(super) since: Duration,
}

impl Kv {
    pub(super) fn look_up(&self, from: From, lookup: &Lookup) -> Found {
        let keys = lookup.keys().iter().map(|key| &key[..]);
        if let Err(why) = self.users.judge(from.by, Role::Read, keys) {
            return Found::Refused(why);
        }
        let database = self.space.database(from.database);
        let live = |key: &[u8]| database.get(key).filter(|record| !record.is_over(from.cluster_time));
        match lookup {
            Lookup::As(_) | Lookup::In(_) => Found::Count(0),
            Lookup::Get(key) => text(live(key), |value| Found::Value(value.cloned())),
            Lookup::Count(keys) => Found::Count(keys.iter().filter(|key| live(key).is_some()).count() as i64),
            Lookup::GetAll(keys) => values(keys, |key| live(key).and_then(Record::text)),
            Lookup::Length { key, fields: false } => {
                text(live(key), |value| Found::Count(value.map_or(0, Value::len) as i64))
            }
            Lookup::Length { key, fields: true } => match live(key).map(|record| &record.datum) {
                None => Found::Count(0),
                Some(Datum::Fields(fields)) => Found::Count(fields.len() as i64),
                Some(Datum::Text(_)) => Found::WrongKind,
            },
            Lookup::Range { key, from, to } => text(live(key), |value| {
                Found::Value(Some(value.map_or(Value::default(), |value| part(value, *from, *to))))
            }),
            Lookup::Kind(key) => word(live(key).map_or("none", kind)),
            Lookup::Encoding(key) => live(key).map_or(Found::Value(None), |record| word(encoding(record))),
            Lookup::Life { key, unit } => Found::Count(match live(key).map(|record| record.deadline) {
                None => -2,
                Some(None) => -1,
                Some(Some(deadline)) => left(deadline, from, *unit),
            }),
            Lookup::Scan { cursor, count, pattern, kind } => self.scan(
                from,
                database,
                *cursor,
                *count,
                pattern.as_deref().map(|word| &word[..]),
                kind.as_deref().map(|word| &word[..]),
            ),
            Lookup::Size => Found::Count(database.len() as i64),
            Lookup::Any(chosen) => self.any(from, database, *chosen),
            Lookup::Field(key, field) => match live(key).map(|record| &record.datum) {
                None => Found::Value(None),
                Some(Datum::Fields(fields)) => Found::Value(fields.get(field).cloned()),
                Some(Datum::Text(_)) => Found::WrongKind,
            },
            Lookup::Fields(key, names) => match live(key).map(|record| &record.datum) {
                None => values(names, |_| None),
                Some(Datum::Fields(fields)) => values(names, |name| fields.get(name)),
                Some(Datum::Text(_)) => Found::WrongKind,
            },
            Lookup::AllFields(key) => match live(key).map(|record| &record.datum) {
                None => Found::Fields(Vec::new()),
                Some(Datum::Fields(fields)) => {
                    let pair = |(name, value): (&[u8], &Value)| (Bytes::copy_from_slice(name), value.clone());
                    Found::Fields(fields.iter().map(pair).collect())
                }
                Some(Datum::Text(_)) => Found::WrongKind,
            },
            Lookup::Marks(keys) => Found::Marks(keys.iter().map(|key| self.space.mark(live(key))).collect()),
        }
    }

    /// Whether whoever asks may see this name.
    fn shows(&self, from: From, key: &[u8]) -> bool {
        self.users.judge(from.by, Role::Read, std::iter::once(key)).is_ok()
    }

    fn scan(
        &self,
        from: From,
        database: &Database,
        cursor: u64,
        count: u64,
        pattern: Option<&[u8]>,
        wanted: Option<&[u8]>,
    ) -> Found {
        let (mut names, mut looked_at, mut compared, mut last) = (Vec::new(), 0, 0, None);
        for (place, key, record) in database.from(cursor) {
            // Those at one place come together: the next part begins at a place.
            let enough = looked_at >= count.clamp(1, MAX_SCANNED) || compared > MAX_COMPARED;
            if enough && last != Some(place) {
                return Found::Page { next: place, names };
            }
            (looked_at, last) = (looked_at + 1, Some(place));
            let key = key.as_bytes();
            compared += key.len();
            let fits = pattern.is_none_or(|pattern| {
                let (fits, steps) = glob::matches(pattern, key);
                compared += steps;
                fits
            });
            let of_kind = || wanted.is_none_or(|wanted| wanted.eq_ignore_ascii_case(kind(record).as_bytes()));
            if fits && !record.is_over(from.cluster_time) && of_kind() && self.shows(from, key) {
                names.push(Bytes::copy_from_slice(key));
            }
        }
        Found::Page { next: 0, names }
    }

    /// A name that this number chooses, among the first of those that may be seen from there on.
    fn any(&self, from: From, database: &Database, chosen: u64) -> Found {
        let start = place(&chosen.to_le_bytes());
        let keys = database.from(start).chain(database.from(0)).take(MAX_SCANNED as usize);
        let mut shown = keys.filter(|(_, key, record)| {
            !record.is_over(from.cluster_time) && self.shows(from, key.as_bytes())
        });
        Found::Value(shown.next().map(|(_, key, _)| Value::from(key.as_bytes())))
    }
}

fn text(record: Option<&Record>, found: impl FnOnce(Option<&Value>) -> Found) -> Found {
    match record.map(|record| &record.datum) {
        None => found(None),
        Some(Datum::Text(value)) => found(Some(value)),
        Some(Datum::Fields(_)) => Found::WrongKind,
    }
}

fn values<'a>(names: &[Bytes], value: impl Fn(&[u8]) -> Option<&'a Value>) -> Found {
    let mut bytes = 0;
    let mut values = Vec::new();
    for name in names {
        let value = value(name).cloned();
        bytes += value.as_ref().map_or(0, Value::len);
        if bytes > MAX_ANSWER {
            return Found::TooLarge;
        }
        values.push(value);
    }
    Found::Values(values)
}

fn word(word: &'static str) -> Found {
    Found::Value(Some(Bytes::from_static(word.as_bytes()).into()))
}

fn kind(record: &Record) -> &'static str {
    match record.datum {
        Datum::Text(_) => "string",
        Datum::Fields(_) => "hash",
    }
}

fn encoding(record: &Record) -> &'static str {
    match &record.datum {
        Datum::Text(value) => match value.pieces() {
            [digits] if number(digits).is_some() => "int",
            _ if value.len() <= EMBEDDED => "embstr",
            _ => "raw",
        },
        Datum::Fields(fields) => {
            let short = |(name, value): (&[u8], &Value)| name.len().max(value.len()) <= LISTED_BYTES;
            if fields.len() <= LISTED && fields.iter().all(short) { "listpack" } else { "hashtable" }
        }
    }
}

/// From one byte to another, both included; negative ones count from the end, and one that is before the first byte is that.
fn part(value: &Value, from: i64, to: i64) -> Value {
    let length = value.len() as i64;
    let at = |place: i64| if place < 0 { place.saturating_add(length).max(0) } else { place };
    let nothing = from < 0 && to < 0 && from > to;
    let (from, to) = (at(from), at(to).min(length - 1));
    if nothing || from > to {
        return Value::default();
    }
    value.part(from as usize..to as usize + 1)
}

fn left(deadline: Deadline, from: From, unit: Unit) -> i64 {
    // As exact as it can be told here; a key that is there has not ended.
    let now = from.cluster_time.saturating_add(from.since.as_millis() as u64);
    let left = i64::try_from(deadline.at.get().saturating_sub(now)).unwrap_or(i64::MAX);
    match unit {
        Unit::Seconds => left.saturating_add(500) / 1000,
        Unit::Millis => left,
        Unit::EndSeconds => deadline.unix.saturating_add(500) / 1000,
        Unit::EndMillis => deadline.unix,
    }
}
