//! Numbers, strings and lists, written and read.

use super::VERSION;
use bytes::Bytes;
use coracle::CodecError;

/// For so many items there is room before they are seen.
const BELIEVED: u64 = 64;

/// The start of an encoding, with room for items of so many bytes.
pub(super) fn start(items: usize, room: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + room);
    out.push(VERSION);
    put_number(&mut out, items as u64);
    out
}

pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(super) fn put_signed(out: &mut Vec<u8>, number: i64) {
    put_number(out, ((number << 1) ^ (number >> 63)) as u64);
}

pub(super) fn put_string(out: &mut Vec<u8>, string: &[u8]) {
    put_number(out, string.len() as u64);
    out.extend_from_slice(string);
}

pub(super) fn put_strings(out: &mut Vec<u8>, tag: u8, strings: &[&[u8]]) {
    out.push(tag);
    strings.iter().for_each(|string| put_string(out, string));
}

pub(super) fn put_list(out: &mut Vec<u8>, strings: &[Bytes]) {
    put_number(out, strings.len() as u64);
    strings.iter().for_each(|string| put_string(out, string));
}

pub(super) fn put_pairs(out: &mut Vec<u8>, pairs: &[(Bytes, Bytes)]) {
    put_number(out, pairs.len() as u64);
    for (one, other) in pairs {
        put_string(out, one);
        put_string(out, other);
    }
}

pub(super) fn wrong(problem: String) -> CodecError {
    CodecError(problem)
}

/// Walks over the input from front to back.
pub(super) struct Decoder<'a> {
    input: &'a Bytes,
    /// The bytes before this offset are taken.
    at: usize,
}

impl Decoder<'_> {
    /// Checks the version.
    pub(super) fn new(input: &Bytes) -> Result<Decoder<'_>, CodecError> {
        let mut decoder = Decoder { input, at: 0 };
        match decoder.byte()? {
            VERSION => Ok(decoder),
            other => Err(wrong(format!("version {other} of the format is not known"))),
        }
    }

    /// All the rest: a list, and nothing after it.
    pub(super) fn list<T>(
        mut self,
        most: usize,
        item: impl Fn(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Vec<T>, CodecError> {
        let items = self.items(most, item)?;
        match self.left() {
            0 => Ok(items),
            left => Err(wrong(format!("{left} bytes are left over"))),
        }
    }

    pub(super) fn items<T>(
        &mut self,
        most: usize,
        item: impl Fn(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Vec<T>, CodecError> {
        let count = self.number()?;
        if count > most as u64 {
            return Err(wrong(format!("{count} items are over the limit of {most}")));
        }
        let mut items = Vec::with_capacity(count.min(BELIEVED) as usize);
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn left(&self) -> usize {
        self.input.len() - self.at
    }

    pub(super) fn byte(&mut self) -> Result<u8, CodecError> {
        let Some(&byte) = self.input.get(self.at) else { return Err(wrong("the input ends early".into())) };
        self.at += 1;
        Ok(byte)
    }

    pub(super) fn number(&mut self) -> Result<u64, CodecError> {
        let mut number = 0u64;
        for place in 0..10 {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if place == 9 && bits > 1 {
                break;
            }
            number |= bits << (place * 7);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(wrong("a number is over 64 bits".into()))
    }

    pub(super) fn signed(&mut self) -> Result<i64, CodecError> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// Several strings, each with another.
    pub(super) fn pairs(&mut self, most: usize) -> Result<Vec<(Bytes, Bytes)>, CodecError> {
        self.items(most, |from| Ok((from.string()?, from.string()?)))
    }

    /// A byte that is 0 or 1.
    pub(super) fn truth(&mut self) -> Result<bool, CodecError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(wrong(format!("{other} is neither yes nor no"))),
        }
    }

    pub(super) fn string(&mut self) -> Result<Bytes, CodecError> {
        let length = self.number()?;
        if length > self.left() as u64 {
            return Err(wrong(format!("a string of {length} bytes where {} are left", self.left())));
        }
        let start = self.at;
        self.at += length as usize;
        Ok(self.input.slice(start..self.at))
    }
}
