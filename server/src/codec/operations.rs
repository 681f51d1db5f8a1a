//! The operations of a batch.

use super::primitives::{
    Decoder, put_list, put_number, put_pairs, put_signed, put_string, put_strings, start, wrong,
};
use super::{MAX_KEYS, MAX_OPERATIONS};
use crate::lookup::{Lookup, Unit};
use crate::operation::{DATABASES, Life, Only, OnlyLife, Operation, When};
use crate::users::{By, Hash, MAX_PREFIXES, Rights, Role};
use bytes::Bytes;
use coracle::CodecError;

/// Encodes a batch.
pub fn encode_operations(batch: &[Operation]) -> Bytes {
    let mut out = start(batch.len(), batch.iter().map(room).sum());
    batch.iter().for_each(|operation| put_operation(&mut out, operation));
    out.into()
}

/// Decodes a batch.
pub fn decode_operations(bytes: &Bytes) -> Result<Vec<Operation>, CodecError> {
    Decoder::new(bytes)?.list(MAX_OPERATIONS, operation)
}

/// About as many bytes as an operation of the common kind takes, or one with much in it; others let the buffer grow.
fn room(operation: &Operation) -> usize {
    match operation {
        Operation::Set { key, value, .. } | Operation::Append { key, value } => key.len() + value.len() + 8,
        other => Some(other.weight()).filter(|weight| *weight > 64 << 10).unwrap_or(0),
    }
}

fn put_operation(out: &mut Vec<u8>, operation: &Operation) {
    match operation {
        Operation::Set { key, value, when, get } => {
            put_strings(out, 1, &[key, value]);
            let when = match when {
                When::Always => 0,
                When::Absent => 1,
                When::Present => 2,
            };
            out.push(when | u8::from(*get) << 7);
        }
        Operation::Delete { keys } => {
            out.push(2);
            put_list(out, keys);
        }
        Operation::Append { key, value } => put_strings(out, 3, &[key, value]),
        Operation::Add { key, by } => {
            put_strings(out, 4, &[key]);
            put_signed(out, *by);
        }
        Operation::SetAll { pairs } => {
            out.push(5);
            put_pairs(out, pairs);
        }
        Operation::As(by) => {
            out.push(6);
            put_by(out, by);
        }
        Operation::AddUser { name, hash, rights } => {
            put_strings(out, 7, &[name, &hash.0]);
            put_rights(out, rights);
        }
        Operation::Grant { name, rights } => {
            put_strings(out, 8, &[name]);
            put_rights(out, rights);
        }
        Operation::GivePassword { name, hash } => put_strings(out, 9, &[name, &hash.0]),
        Operation::RemoveUser { name } => put_strings(out, 10, &[name]),
        Operation::In(database) => out.extend([11, *database]),
        Operation::Guard { watched } => {
            out.push(12);
            put_number(out, watched.len() as u64);
            for (database, key, mark) in watched {
                out.push(*database);
                put_string(out, key);
                put_number(out, *mark);
            }
        }
        Operation::Look(lookup) => {
            out.push(13);
            put_lookup(out, lookup);
        }
        other => put_third(out, other),
    }
}

/// What came with the third version of the machine and changes keys.
fn put_third(out: &mut Vec<u8>, operation: &Operation) {
    match operation {
        Operation::Put { key, value, only, life, get } => {
            put_strings(out, 14, &[key, value]);
            put_only(out, only);
            put_life(out, *life);
            out.push(u8::from(*get));
        }
        Operation::SetAllAbsent { pairs } => {
            out.push(15);
            put_pairs(out, pairs);
        }
        Operation::Take { key } => put_strings(out, 16, &[key]),
        Operation::DeleteIf { key, only } => {
            put_strings(out, 17, &[key]);
            put_only(out, only);
        }
        Operation::SetRange { key, offset, value } => {
            put_strings(out, 18, &[key, value]);
            put_number(out, *offset);
        }
        Operation::AddFraction { key, by } => put_strings(out, 19, &[key, by]),
        Operation::Touch { key, life } => {
            put_strings(out, 20, &[key]);
            put_life(out, *life);
        }
        Operation::Expire { key, life, only } => {
            put_strings(out, 21, &[key]);
            put_life(out, *life);
            out.push(match only {
                OnlyLife::Always => 0,
                OnlyLife::Forever => 1,
                OnlyLife::Mortal => 2,
                OnlyLife::Longer => 3,
                OnlyLife::Shorter => 4,
                OnlyLife::MortalShorter => 5,
            });
        }
        Operation::Rename { from, to, absent } => {
            put_strings(out, 22, &[from, to]);
            out.push(u8::from(*absent));
        }
        Operation::Copy { from, to, database, replace } => {
            put_strings(out, 23, &[from, to]);
            out.extend([database.map_or(0, |database| database + 1), u8::from(*replace)]);
        }
        Operation::Move { key, database } => {
            put_strings(out, 24, &[key]);
            out.push(*database);
        }
        Operation::Clear { all } => out.extend([25, u8::from(*all)]),
        Operation::SetFields { .. }
        | Operation::DeleteFields { .. }
        | Operation::AddField { .. }
        | Operation::AddFieldFraction { .. } => put_of_hash(out, operation),
        Operation::Set { .. }
        | Operation::Delete { .. }
        | Operation::Append { .. }
        | Operation::Add { .. }
        | Operation::SetAll { .. }
        | Operation::As(_)
        | Operation::AddUser { .. }
        | Operation::Grant { .. }
        | Operation::GivePassword { .. }
        | Operation::RemoveUser { .. }
        | Operation::In(_)
        | Operation::Guard { .. }
        | Operation::Look(_) => put_operation(out, operation),
    }
}

/// What changes hashes.
fn put_of_hash(out: &mut Vec<u8>, operation: &Operation) {
    match operation {
        Operation::SetFields { key, pairs, absent } => {
            put_strings(out, 26, &[key]);
            put_pairs(out, pairs);
            out.push(u8::from(*absent));
        }
        Operation::DeleteFields { key, fields } => {
            put_strings(out, 27, &[key]);
            put_list(out, fields);
        }
        Operation::AddField { key, field, by } => {
            put_strings(out, 28, &[key, field]);
            put_signed(out, *by);
        }
        Operation::AddFieldFraction { key, field, by } => put_strings(out, 29, &[key, field, by]),
        other => put_third(out, other),
    }
}

fn operation(from: &mut Decoder) -> Result<Operation, CodecError> {
    Ok(match from.byte()? {
        1 => {
            let (key, value) = (from.string()?, from.string()?);
            let flags = from.byte()?;
            let when = match flags & 0x7f {
                0 => When::Always,
                1 => When::Absent,
                2 => When::Present,
                other => return Err(wrong(format!("{other} is not a condition"))),
            };
            Operation::Set { key, value, when, get: flags >> 7 == 1 }
        }
        2 => Operation::Delete { keys: from.items(MAX_KEYS, Decoder::string)? },
        3 => Operation::Append { key: from.string()?, value: from.string()? },
        4 => Operation::Add { key: from.string()?, by: from.signed()? },
        5 => Operation::SetAll { pairs: from.pairs(MAX_KEYS)? },
        6 => Operation::As(by(from)?),
        7 => Operation::AddUser { name: from.string()?, hash: Hash(from.string()?), rights: rights(from)? },
        8 => Operation::Grant { name: from.string()?, rights: rights(from)? },
        9 => Operation::GivePassword { name: from.string()?, hash: Hash(from.string()?) },
        10 => Operation::RemoveUser { name: from.string()? },
        11 => Operation::In(database(from)?),
        12 => {
            let one = |from: &mut Decoder| Ok((database(from)?, from.string()?, from.number()?));
            Operation::Guard { watched: from.items(MAX_KEYS, one)? }
        }
        13 => Operation::Look(lookup(from)?),
        tag => third(tag, from)?,
    })
}

fn third(tag: u8, from: &mut Decoder) -> Result<Operation, CodecError> {
    Ok(match tag {
        14 => Operation::Put {
            key: from.string()?,
            value: from.string()?,
            only: only(from)?,
            life: life(from)?,
            get: from.truth()?,
        },
        15 => Operation::SetAllAbsent { pairs: from.pairs(MAX_KEYS)? },
        16 => Operation::Take { key: from.string()? },
        17 => Operation::DeleteIf { key: from.string()?, only: only(from)? },
        18 => {
            let (key, value) = (from.string()?, from.string()?);
            Operation::SetRange { key, value, offset: from.number()? }
        }
        19 => Operation::AddFraction { key: from.string()?, by: from.string()? },
        20 => Operation::Touch { key: from.string()?, life: life(from)? },
        21 => Operation::Expire { key: from.string()?, life: life(from)?, only: only_life(from)? },
        22 => Operation::Rename { from: from.string()?, to: from.string()?, absent: from.truth()? },
        23 => Operation::Copy {
            from: from.string()?,
            to: from.string()?,
            database: other_database(from)?,
            replace: from.truth()?,
        },
        24 => Operation::Move { key: from.string()?, database: database(from)? },
        25 => Operation::Clear { all: from.truth()? },
        26 => {
            Operation::SetFields { key: from.string()?, pairs: from.pairs(MAX_KEYS)?, absent: from.truth()? }
        }
        27 => Operation::DeleteFields { key: from.string()?, fields: from.items(MAX_KEYS, Decoder::string)? },
        28 => Operation::AddField { key: from.string()?, field: from.string()?, by: from.signed()? },
        29 => Operation::AddFieldFraction { key: from.string()?, field: from.string()?, by: from.string()? },
        other => return Err(wrong(format!("{other} is not an operation"))),
    })
}

fn put_lookup(out: &mut Vec<u8>, lookup: &Lookup) {
    match lookup {
        Lookup::Get(key) => put_strings(out, 1, &[key]),
        Lookup::Count(keys) => {
            out.push(2);
            put_list(out, keys);
        }
        Lookup::GetAll(keys) => {
            out.push(3);
            put_list(out, keys);
        }
        Lookup::As(by) => {
            out.push(4);
            put_by(out, by);
        }
        Lookup::In(database) => out.extend([5, *database]),
        Lookup::Length { key, fields } => {
            put_strings(out, 6, &[key]);
            out.push(u8::from(*fields));
        }
        Lookup::Range { key, from, to } => {
            put_strings(out, 7, &[key]);
            put_signed(out, *from);
            put_signed(out, *to);
        }
        Lookup::Kind(key) => put_strings(out, 8, &[key]),
        Lookup::Encoding(key) => put_strings(out, 9, &[key]),
        Lookup::Life { key, unit } => {
            put_strings(out, 10, &[key]);
            out.push(match unit {
                Unit::Seconds => 0,
                Unit::Millis => 1,
                Unit::EndSeconds => 2,
                Unit::EndMillis => 3,
            });
        }
        Lookup::Scan { cursor, count, pattern, kind } => {
            out.push(11);
            put_number(out, *cursor);
            put_number(out, *count);
            for word in [pattern, kind] {
                out.push(u8::from(word.is_some()));
                word.iter().for_each(|word| put_string(out, word));
            }
        }
        Lookup::Size => out.push(12),
        Lookup::Any(chosen) => {
            out.push(13);
            put_number(out, *chosen);
        }
        Lookup::Field(key, field) => put_strings(out, 14, &[key, field]),
        Lookup::Fields(key, fields) => {
            put_strings(out, 15, &[key]);
            put_list(out, fields);
        }
        Lookup::AllFields(key) => put_strings(out, 16, &[key]),
        Lookup::Marks(keys) => {
            out.push(17);
            put_list(out, keys);
        }
    }
}

fn lookup(from: &mut Decoder) -> Result<Lookup, CodecError> {
    let keys = |from: &mut Decoder| from.items(MAX_KEYS, Decoder::string);
    Ok(match from.byte()? {
        1 => Lookup::Get(from.string()?),
        2 => Lookup::Count(keys(from)?),
        3 => Lookup::GetAll(keys(from)?),
        4 => Lookup::As(by(from)?),
        5 => Lookup::In(database(from)?),
        6 => Lookup::Length { key: from.string()?, fields: from.truth()? },
        7 => Lookup::Range { key: from.string()?, from: from.signed()?, to: from.signed()? },
        8 => Lookup::Kind(from.string()?),
        9 => Lookup::Encoding(from.string()?),
        10 => Lookup::Life { key: from.string()?, unit: unit(from)? },
        11 => {
            let (cursor, count) = (from.number()?, from.number()?);
            let mut word = || Ok(if from.truth()? { Some(Box::new(from.string()?)) } else { None });
            Lookup::Scan { cursor, count, pattern: word()?, kind: word()? }
        }
        12 => Lookup::Size,
        13 => Lookup::Any(from.number()?),
        14 => Lookup::Field(from.string()?, from.string()?),
        15 => Lookup::Fields(from.string()?, keys(from)?),
        16 => Lookup::AllFields(from.string()?),
        17 => Lookup::Marks(keys(from)?),
        other => return Err(wrong(format!("{other} is not a question"))),
    })
}

fn unit(from: &mut Decoder) -> Result<Unit, CodecError> {
    Ok(match from.byte()? {
        0 => Unit::Seconds,
        1 => Unit::Millis,
        2 => Unit::EndSeconds,
        3 => Unit::EndMillis,
        other => return Err(wrong(format!("{other} is not a unit of time"))),
    })
}

fn database(from: &mut Decoder) -> Result<u8, CodecError> {
    match from.byte()? {
        number if number < DATABASES => Ok(number),
        other => Err(wrong(format!("{other} is not a database"))),
    }
}

/// One that may be the same.
fn other_database(from: &mut Decoder) -> Result<Option<u8>, CodecError> {
    match from.byte()? {
        0 => Ok(None),
        next if next <= DATABASES => Ok(Some(next - 1)),
        other => Err(wrong(format!("{other} is not one more than a database"))),
    }
}

fn put_only(out: &mut Vec<u8>, only: &Only) {
    match only {
        Only::Always => out.push(0),
        Only::Absent => out.push(1),
        Only::Present => out.push(2),
        Only::Equal(value) => put_strings(out, 3, &[value]),
        Only::Different(value) => put_strings(out, 4, &[value]),
    }
}

fn only(from: &mut Decoder) -> Result<Only, CodecError> {
    Ok(match from.byte()? {
        0 => Only::Always,
        1 => Only::Absent,
        2 => Only::Present,
        3 => Only::Equal(Box::new(from.string()?)),
        4 => Only::Different(Box::new(from.string()?)),
        other => return Err(wrong(format!("{other} is not a condition"))),
    })
}

fn only_life(from: &mut Decoder) -> Result<OnlyLife, CodecError> {
    Ok(match from.byte()? {
        0 => OnlyLife::Always,
        1 => OnlyLife::Forever,
        2 => OnlyLife::Mortal,
        3 => OnlyLife::Longer,
        4 => OnlyLife::Shorter,
        5 => OnlyLife::MortalShorter,
        other => return Err(wrong(format!("{other} is not a condition of a life"))),
    })
}

fn put_life(out: &mut Vec<u8>, life: Life) {
    match life {
        Life::Forever => out.push(0),
        Life::Keep => out.push(1),
        Life::For(left) => {
            out.push(2);
            put_signed(out, left);
        }
        Life::Until(end) => {
            out.push(3);
            put_signed(out, end);
        }
    }
}

fn life(from: &mut Decoder) -> Result<Life, CodecError> {
    Ok(match from.byte()? {
        0 => Life::Forever,
        1 => Life::Keep,
        2 => Life::For(from.signed()?),
        3 => Life::Until(from.signed()?),
        other => return Err(wrong(format!("{other} is not a life"))),
    })
}

fn put_by(out: &mut Vec<u8>, by: &By) {
    match by {
        By::Cluster => out.push(1),
        By::User { name, version } => {
            put_strings(out, 2, &[name]);
            put_number(out, *version);
        }
    }
}

fn by(from: &mut Decoder) -> Result<By, CodecError> {
    match from.byte()? {
        1 => Ok(By::Cluster),
        2 => Ok(By::User { name: from.string()?, version: from.number()? }),
        other => Err(wrong(format!("{other} says not in whose name"))),
    }
}

fn put_rights(out: &mut Vec<u8>, rights: &Rights) {
    out.push(rights.role.code());
    put_list(out, &rights.prefixes);
}

fn rights(from: &mut Decoder) -> Result<Rights, CodecError> {
    let code = from.byte()?;
    let role = Role::of_code(code).ok_or_else(|| wrong(format!("{code} is not a role")))?;
    Ok(Rights { role, prefixes: from.items(MAX_PREFIXES, Decoder::string)? })
}
