//! The bytes of a snapshot of the keys and the users.
//!
//! One byte for the version of the format, which is the oldest that can say it: 1 where there never were users, 2 where all
//! keys are strings of the first database that are for ever, 3, and 4 from the first entry of the machine's fourth version on. In all but the first there follows the version of
//! the users; unless it is 0 their number, and the users in the order of their names: name, hash, role, the version since
//! which it is this one, the number of prefixes, the prefixes. Then, in all, the revision. From version 3 on there follow the number of
//! databases that have keys, and of each its number, all in order; in the others it is the first alone. Of a database the number of
//! its keys, and these in their order: name, from version 3 on what it is, the value, the revisions that created and changed it,
//! its version, and its end if it has one. What it is: a byte, 0 for a string and 1 for a hash, and 2 more if it ends. A hash
//! is the number of its fields and these in their order, each a name and a value; an end is its time by the cluster's clock and
//! that since 1970. At the end of version 4 stand the number of slots that know of keys that are gone, and of each its number and
//! the revision, in order. Values have up to 1 MiB before version 4, and 8 MiB in it.
//!
//! Numbers are LEB128 varints, the time since 1970 zigzag; a
//! string is its length and its bytes. Prints are computed again, so the digest shows what was read and not
//! what was claimed. Lengths are judged by the limits of the machine before anything is allocated, and the
//! checksum is the library's.

use super::Kv;
use super::gone::{Gone, SLOTS};
use super::record::{Datum, Deadline, Record};
use super::space::{Database, Space};
use crate::fields::Fields;
use crate::operation::{DATABASES, FORMER_MAX_VALUE, MAX_FIELDS, MAX_KEY, MAX_VALUE};
use crate::users::{
    Hash, MAX_HASH, MAX_NAME, MAX_PREFIX, MAX_PREFIXES, MAX_USERS, Rights, Role, User, Users,
};
use crate::value::Value;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::num::NonZeroU64;
use std::sync::Arc;

/// The version of the format without users, which programs of the machine's first version read.
const KEYS: u8 = 1;

/// The version of the format in which all keys are strings that are for ever, in one database.
const USERS: u8 = 2;

/// The version of the format of the machine's third version.
const KINDS: u8 = 3;

/// The newest version of the format.
const VERSION: u8 = 4;

/// What a key is.
const IS_FIELDS: u8 = 1;
const ENDS: u8 = 2;

/// Bytes that go to, or come from, the file at a time.
const BUFFER: usize = 64 << 10;

/// Writes the keys and the users.
pub(crate) fn write(kv: &Kv, to: &mut dyn Write) -> io::Result<()> {
    let mut to = BufWriter::with_capacity(BUFFER, to);
    let newest = kv.space.is_of_fourth();
    let (plain, users) = (kv.space.is_plain() && !newest, kv.users.version() > 0);
    let version = match (plain, users) {
        (true, false) => KEYS,
        (true, true) => USERS,
        (false, _) if !newest => KINDS,
        (false, _) => VERSION,
    };
    to.write_all(&[version])?;
    if version != KEYS {
        put_number(&mut to, kv.users.version())?;
        if users {
            put_users(&mut to, &kv.users)?;
        }
    }
    put_number(&mut to, kv.space.revision)?;
    if plain {
        put_database(&mut to, kv.space.database(0), true)?;
        return to.flush();
    }
    let full = || kv.space.databases().filter(|(_, database)| database.len() > 0);
    put_number(&mut to, full().count() as u64)?;
    for (number, database) in full() {
        put_number(&mut to, u64::from(number))?;
        put_database(&mut to, database, false)?;
    }
    if newest {
        put_number(&mut to, kv.space.gone().iter().count() as u64)?;
        for (slot, revision) in kv.space.gone().iter() {
            put_number(&mut to, slot as u64)?;
            put_number(&mut to, revision)?;
        }
    }
    to.flush()
}

fn put_database(to: &mut impl Write, database: &Database, plain: bool) -> io::Result<()> {
    put_number(to, database.len() as u64)?;
    for (key, record) in database.by_name() {
        put_string(to, key.as_bytes())?;
        if !plain {
            let ends = if record.deadline.is_some() { ENDS } else { 0 };
            to.write_all(&[ends + u8::from(record.fields().is_some())])?;
        }
        match &record.datum {
            Datum::Text(value) => put_value(to, value)?,
            Datum::Fields(fields) => {
                put_number(to, fields.len() as u64)?;
                for (field, value) in fields.iter() {
                    put_string(to, field)?;
                    put_value(to, value)?;
                }
            }
        }
        for number in [record.created, record.modified, record.version] {
            put_number(to, number)?;
        }
        if let Some(Deadline { at, unix }) = record.deadline {
            put_number(to, at.get())?;
            put_number(to, ((unix << 1) ^ (unix >> 63)) as u64)?;
        }
    }
    Ok(())
}

fn put_value(to: &mut impl Write, value: &Value) -> io::Result<()> {
    put_number(to, value.len() as u64)?;
    value.pieces().iter().try_for_each(|piece| to.write_all(piece))
}

fn put_users(to: &mut impl Write, users: &Users) -> io::Result<()> {
    put_number(to, users.iter().len() as u64)?;
    for (name, User { hash, rights, since }) in users.iter() {
        put_string(to, name)?;
        put_string(to, &hash.0)?;
        to.write_all(&[rights.role.code()])?;
        put_number(to, *since)?;
        put_number(to, rights.prefixes.len() as u64)?;
        rights.prefixes.iter().try_for_each(|prefix| put_string(to, prefix))?;
    }
    Ok(())
}

/// Reads what [`write()`] wrote, to the end of the input.
pub(crate) fn read(from: &mut dyn Read) -> io::Result<Kv> {
    let mut from = BufReader::with_capacity(BUFFER, from);
    let version = byte(&mut from)?;
    if !(KEYS..=VERSION).contains(&version) {
        return Err(wrong(format!(
            "the snapshot is of format {version}, and this program knows {VERSION}: upgrade the program"
        )));
    }
    let users = if version == KEYS { Users::default() } else { users(&mut from, version)? };
    let mut kv = Kv { users: Arc::new(users), ..Kv::new() };
    kv.space.revision = number(&mut from)?;
    let databases = if version < KINDS { 1 } else { number(&mut from)? };
    let mut first = 0;
    for _ in 0..databases {
        let database = if version < KINDS { 0 } else { number(&mut from)? };
        if !(first..u64::from(DATABASES)).contains(&database) {
            return Err(wrong(format!("{database} is not the number of the next database")));
        }
        first = database + 1;
        read_database(&mut from, &mut kv.space, database as u8, version)?;
    }
    if version == VERSION {
        let gone = read_gone(&mut from, kv.space.revision)?;
        kv.space.restore_gone(gone);
    }
    if from.read(&mut [0])? > 0 {
        return Err(wrong("the snapshot goes on after its end".to_owned()));
    }
    Ok(kv)
}

fn read_gone(from: &mut impl Read, newest: u64) -> io::Result<Gone> {
    let mut gone = Gone::default();
    let mut first = 0;
    for _ in 0..number(from)? {
        let (slot, revision) = (number(from)?, number(from)?);
        if !(first..SLOTS as u64).contains(&slot) {
            return Err(wrong(format!("{slot} is not the number of the next slot")));
        }
        if !(1..=newest).contains(&revision) {
            return Err(wrong("a key that is gone is newer than the whole".to_owned()));
        }
        gone.raise(slot as usize, revision);
        first = slot + 1;
    }
    Ok(gone)
}

fn read_database(from: &mut impl Read, space: &mut Space, database: u8, version: u8) -> io::Result<()> {
    let most = if version < VERSION { FORMER_MAX_VALUE } else { MAX_VALUE };
    let mut last: Option<Bytes> = None;
    for _ in 0..number(from)? {
        let key = string(from, MAX_KEY, "key")?;
        let kind = if version < KINDS { 0 } else { byte(from)? };
        if kind & !(IS_FIELDS | ENDS) != 0 {
            return Err(wrong(format!("{kind} is not what a key can be")));
        }
        let datum = match kind & IS_FIELDS {
            0 => Datum::Text(string(from, most, "value")?.into()),
            _ => Datum::Fields(fields(from, most)?),
        };
        let (created, modified, version) = (number(from)?, number(from)?, number(from)?);
        if created > modified || modified > space.revision {
            return Err(wrong("a key is newer than the whole".to_owned()));
        }
        let deadline = if kind & ENDS != 0 { Some(deadline(from)?) } else { None };
        if last.as_ref().is_some_and(|last| *last >= key) {
            return Err(wrong("the keys are not in order".to_owned()));
        }
        space.insert(database, &key, Record { datum, deadline, created, modified, version, print: 0 });
        last = Some(key);
    }
    Ok(())
}

fn fields(from: &mut impl Read, most: usize) -> io::Result<Fields> {
    let count = number(from)?;
    if !(1..=MAX_FIELDS as u64).contains(&count) {
        return Err(wrong(format!("a hash of {count} fields: it has from 1 to {MAX_FIELDS}")));
    }
    let mut fields = Fields::default();
    let mut last: Option<Bytes> = None;
    for _ in 0..count {
        let (field, value) = (string(from, most, "field")?, string(from, most, "value")?);
        if last.as_ref().is_some_and(|last| *last >= field) {
            return Err(wrong("the fields are not in order".to_owned()));
        }
        fields.set(&field, value.into());
        last = Some(field);
        if fields.bytes() > most {
            return Err(wrong(format!("a hash is over the limit of {most} bytes")));
        }
    }
    Ok(fields)
}

fn deadline(from: &mut impl Read) -> io::Result<Deadline> {
    let (at, unix) = (number(from)?, number(from)?);
    let at = NonZeroU64::new(at).ok_or_else(|| wrong("a key ends before all time".to_owned()))?;
    Ok(Deadline { at, unix: (unix >> 1) as i64 ^ -((unix & 1) as i64) })
}

fn users(from: &mut impl Read, format: u8) -> io::Result<Users> {
    let version = number(from)?;
    if version == 0 && format >= KINDS {
        return Ok(Users::default());
    }
    let count = number(from)?;
    if count > MAX_USERS as u64 {
        return Err(wrong(format!("{count} users are over the limit of {MAX_USERS}")));
    }
    let mut users = BTreeMap::new();
    for _ in 0..count {
        let name = string(from, MAX_NAME, "name")?;
        let hash = Hash(string(from, MAX_HASH, "hash")?);
        let code = byte(from)?;
        let role = Role::of_code(code).ok_or_else(|| wrong(format!("{code} is not a role")))?;
        let (since, prefixes) = (number(from)?, number(from)?);
        if prefixes > MAX_PREFIXES as u64 {
            return Err(wrong(format!("{prefixes} prefixes are over the limit of {MAX_PREFIXES}")));
        }
        let prefixes = (0..prefixes).map(|_| string(from, MAX_PREFIX, "prefix")).collect::<Result<_, _>>()?;
        if users.last_key_value().is_some_and(|(last, _)| *last >= name) {
            return Err(wrong("the users are not in order".to_owned()));
        }
        users.insert(name, User { hash, rights: Rights { role, prefixes }, since });
    }
    Users::restored(users, version).ok_or_else(|| wrong("a user is not as it must be".to_owned()))
}

fn put_number(to: &mut impl Write, mut number: u64) -> io::Result<()> {
    let mut bytes = [0; 10];
    let mut length = 0;
    loop {
        bytes[length] = number as u8 & 0x7f;
        number >>= 7;
        length += 1;
        if number == 0 {
            return to.write_all(&bytes[..length]);
        }
        bytes[length - 1] |= 0x80;
    }
}

fn put_string(to: &mut impl Write, string: &[u8]) -> io::Result<()> {
    put_number(to, string.len() as u64)?;
    to.write_all(string)
}

fn byte(from: &mut impl Read) -> io::Result<u8> {
    let mut byte = [0];
    from.read_exact(&mut byte)?;
    Ok(byte[0])
}

fn number(from: &mut impl Read) -> io::Result<u64> {
    let mut number = 0u64;
    for place in 0..10 {
        let byte = byte(from)?;
        let bits = u64::from(byte & 0x7f);
        if place == 9 && bits > 1 {
            break;
        }
        number |= bits << (place * 7);
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(wrong("a number is over 64 bits".to_owned()))
}

fn string(from: &mut impl Read, most: usize, what: &str) -> io::Result<Bytes> {
    let length = number(from)?;
    if length > most as u64 {
        return Err(wrong(format!("a {what} of {length} bytes is over the limit of {most}")));
    }
    // Without room to spare, since it may stay for long; its length is within a limit.
    let mut string = vec![0; length as usize].into_boxed_slice();
    from.read_exact(&mut string)?;
    Ok(string.into())
}

fn wrong(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}
