//! The bytes of a snapshot of the keys.
//!
//! One byte for the version of the format (1), then the revision, the number of keys, and the keys in their
//! order: name, value, the revisions that created and changed it, its version. Numbers are LEB128 varints; a
//! string is its length and its bytes. Prints are computed again, so the digest shows what was read and not
//! what was claimed. Lengths are judged by the limits of the machine before anything is allocated, and the
//! checksum is the library's.

use super::{Kv, Record};
use crate::key::Key;
use crate::operation::{MAX_KEY, MAX_VALUE};
use bytes::Bytes;
use std::io::{self, BufReader, BufWriter, Read, Write};

/// The version of the format.
const VERSION: u8 = 1;

/// Bytes that go to, or come from, the file at a time.
const BUFFER: usize = 64 << 10;

/// Writes the keys.
pub(crate) fn write(kv: &Kv, to: &mut dyn Write) -> io::Result<()> {
    let mut to = BufWriter::with_capacity(BUFFER, to);
    to.write_all(&[VERSION])?;
    put_number(&mut to, kv.revision)?;
    put_number(&mut to, kv.records.len() as u64)?;
    for (key, record) in &kv.records {
        put_string(&mut to, key.as_bytes())?;
        put_number(&mut to, record.value.len() as u64)?;
        for piece in record.value.pieces() {
            to.write_all(piece)?;
        }
        for number in [record.created, record.modified, record.version] {
            put_number(&mut to, number)?;
        }
    }
    to.flush()
}

/// Reads keys that [`write()`] wrote, to the end of the input.
pub(crate) fn read(from: &mut dyn Read) -> io::Result<Kv> {
    let mut from = BufReader::with_capacity(BUFFER, from);
    let version = byte(&mut from)?;
    if version != VERSION {
        return Err(wrong(format!(
            "the snapshot is of format {version}, and this program knows {VERSION}: upgrade the program"
        )));
    }
    let (revision, count) = (number(&mut from)?, number(&mut from)?);
    let mut kv = Kv { revision, ..Kv::new() };
    for _ in 0..count {
        let key = Key::from(&string(&mut from, MAX_KEY, "key")?[..]);
        let value = string(&mut from, MAX_VALUE, "value")?.into();
        let (created, modified) = (number(&mut from)?, number(&mut from)?);
        let mut record = Record { value, created, modified, version: number(&mut from)?, print: 0 };
        if record.created > record.modified || record.modified > revision {
            return Err(wrong("a key is newer than the whole".to_owned()));
        }
        if kv.records.get_max().is_some_and(|(last, _)| *last >= key) {
            return Err(wrong("the keys are not in order".to_owned()));
        }
        record.print = record.fresh_print(key.as_bytes());
        kv.prints ^= record.print;
        kv.records.insert(key, record);
    }
    if from.read(&mut [0])? > 0 {
        return Err(wrong("the snapshot goes on after its end".to_owned()));
    }
    Ok(kv)
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
    let mut string = Vec::new();
    from.take(length).read_to_end(&mut string)?;
    if string.len() as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // Without room to spare, since it may stay for long.
    Ok(string.into_boxed_slice().into())
}

fn wrong(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}
