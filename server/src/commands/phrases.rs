//! How what came of a command is answered.

use super::{NOT_A_FRACTION, NOT_A_NUMBER};
use crate::glob;
use crate::kv::{self, Found, Outcome};
use crate::resp::{Protocol, Replies};
use crate::value::Value;
use bytes::Bytes;

/// What a client of this command expects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Phrase {
    /// What it came to.
    Plain,
    /// OK, whatever it came to.
    Ok,
    /// 1 if it was done and 0 if not.
    Truth,
    /// A word, as a simple string.
    Word,
    /// 1 if there is such a key.
    Once,
    /// 1 if there is a value and 0 if not.
    There,
    /// The length of the value.
    Length,
    /// Names and values, as a map.
    Map,
    /// Names or values or both, one after the other.
    Parts(Part),
    /// The same after a cursor, of those that fit.
    Scanned {
        /// Which names fit.
        pattern: Option<Box<Bytes>>,
        /// What of them.
        part: Part,
    },
    /// Any name.
    PickOne,
    /// So many different ones; if negative so many that may be the same.
    Pick {
        /// How many.
        count: i64,
        /// What of them.
        part: Part,
    },
}

/// What of a field is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Its name.
    Names,
    /// Its value.
    Values,
    /// Both.
    Both,
}

/// Phrases what a write came to.
pub fn answer_write(outcome: &Outcome, phrase: &Phrase, replies: &mut Replies) {
    match (outcome, phrase) {
        (Outcome::Done | Outcome::Number(_), Phrase::Ok) => replies.simple("OK"),
        (Outcome::Done, Phrase::Truth) => replies.number(1),
        (Outcome::Nothing, Phrase::Truth) => replies.number(0),
        (Outcome::Done, _) => replies.simple("OK"),
        (Outcome::Nothing, _) => replies.null(),
        (Outcome::Number(number), _) => replies.number(*number),
        (Outcome::Value(value), _) => replies.pieces(value.pieces()),
        (Outcome::NotANumber, _) => replies.error(NOT_A_NUMBER),
        (Outcome::Overflow, _) => replies.error("ERR increment or decrement would overflow"),
        (Outcome::TooLong, _) => {
            replies.error(&format!("ERR string exceeds maximum allowed size ({} bytes)", kv::MAX_VALUE));
        }
        (Outcome::Refused(why), _) => replies.error(&why.to_string()),
        (Outcome::WrongKind, _) => replies.error(WRONG_KIND),
        (Outcome::NoKey, _) => replies.error("ERR no such key"),
        (Outcome::SameKey, _) => replies.error("ERR source and destination objects are the same"),
        (Outcome::NotAFraction, _) => replies.error(NOT_A_FRACTION),
        (Outcome::NotFinite, _) => replies.error("ERR increment would produce NaN or Infinity"),
        (Outcome::FieldNotANumber, _) => replies.error("ERR hash value is not an integer"),
        (Outcome::FieldNotAFraction, _) => replies.error("ERR hash value is not a float"),
        (Outcome::TooManyFields, _) => {
            replies.error(&format!("ERR a hash has at most {} fields here", kv::MAX_FIELDS));
        }
        (Outcome::Found(found), phrase) => answer_read(found, phrase, replies),
    }
}

/// How much of the names of a hash is compared with a pattern at most.
const MAX_COMPARED: usize = 4 << 20;

const WRONG_KIND: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";

/// Phrases what a read found.
pub fn answer_read(found: &Found, phrase: &Phrase, replies: &mut Replies) {
    match found {
        Found::Value(value) => answer_value(value.as_ref(), phrase, replies),
        Found::Count(count) => replies.number(*count),
        Found::Values(values) => {
            replies.array(values.len());
            values.iter().for_each(|value| answer_value(value.as_ref(), &Phrase::Plain, replies));
        }
        Found::TooLarge => {
            replies.error("ERR the values are too large together; ask for fewer");
        }
        Found::Refused(why) => replies.error(&why.to_string()),
        Found::WrongKind => replies.error(WRONG_KIND),
        Found::Fields(fields) => answer_fields(fields, phrase, replies),
        Found::Page { next, names } => {
            replies.array(2);
            replies.bulk(next.to_string().as_bytes());
            replies.array(names.len());
            names.iter().for_each(|name| replies.bulk(name));
        }
        // Nobody is shown these.
        Found::Marks(marks) => replies.number(marks.len() as i64),
    }
}

/// Phrases a value, or that there is none.
pub fn answer_value(value: Option<&Value>, phrase: &Phrase, replies: &mut Replies) {
    match (phrase, value) {
        (Phrase::There, value) => replies.number(i64::from(value.is_some())),
        (Phrase::Length, value) => replies.number(value.map_or(0, Value::len) as i64),
        (Phrase::Once, Some(kind)) if &kind.pieces()[0][..] == b"none" => replies.null(),
        (Phrase::Once, _) => replies.number(1),
        (Phrase::Word, Some(word)) => replies.simple(&String::from_utf8_lossy(&word.to_bytes())),
        (_, Some(value)) => replies.pieces(value.pieces()),
        (_, None) => replies.null(),
    }
}

fn answer_fields(fields: &[(Bytes, Value)], phrase: &Phrase, replies: &mut Replies) {
    match phrase {
        Phrase::Parts(part) => tell(fields.iter(), *part, replies),
        Phrase::Scanned { pattern, part } => {
            let mut compared = 0;
            let mut fits = |(name, _): &&(Bytes, Value)| {
                pattern.as_ref().is_none_or(|pattern| {
                    let left = MAX_COMPARED.saturating_sub(compared);
                    let (fits, steps) = if left > 0 { glob::matches(pattern, name) } else { (false, 0) };
                    compared += steps;
                    fits
                })
            };
            let found: Vec<_> = fields.iter().filter(&mut fits).collect();
            if compared > MAX_COMPARED {
                return replies
                    .error("ERR that pattern takes too long for so many fields; use a simpler one");
            }
            replies.array(2);
            replies.bulk(b"0");
            tell(found.into_iter(), *part, replies);
        }
        Phrase::PickOne => match fields.get(fastrand::usize(0..fields.len().max(1))) {
            Some((name, _)) => replies.bulk(name),
            None => replies.null(),
        },
        Phrase::Pick { count, part } => pick(fields, *count, *part, replies),
        _ => {
            replies.map(fields.len());
            fields.iter().for_each(|field| tell_one(field, Part::Both, replies));
        }
    }
}

fn pick(fields: &[(Bytes, Value)], count: i64, part: Part, replies: &mut Replies) {
    let many = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    let picked: Vec<&(Bytes, Value)> = if fields.is_empty() {
        Vec::new()
    } else if count < 0 {
        (0..many).map(|_| &fields[fastrand::usize(0..fields.len())]).collect()
    } else {
        // Those that are not wanted are passed over, all with the same chance.
        let (mut wanted, mut left) = (many.min(fields.len()), fields.len());
        let mut is_picked = || {
            let picked = fastrand::usize(0..left) < wanted;
            left -= 1;
            wanted -= usize::from(picked);
            picked
        };
        fields.iter().filter(|_| is_picked()).collect()
    };
    // A name may come often, and was counted once where the memory for the reply was asked for.
    let bytes = |(name, value): &(Bytes, Value)| name.len() + value.len();
    if picked.iter().copied().map(bytes).sum::<usize>() > 2 * kv::MAX_VALUE {
        return replies.error("ERR the fields are too large together; ask for fewer");
    }
    if part == Part::Both && replies.protocol == Protocol::Resp3 {
        replies.array(picked.len());
        for field in picked {
            replies.array(2);
            tell_one(field, part, replies);
        }
    } else {
        tell(picked.into_iter(), part, replies);
    }
}

fn tell<'a>(fields: impl ExactSizeIterator<Item = &'a (Bytes, Value)>, part: Part, replies: &mut Replies) {
    replies.array(if part == Part::Both { fields.len() * 2 } else { fields.len() });
    fields.for_each(|field| tell_one(field, part, replies));
}

fn tell_one((name, value): &(Bytes, Value), part: Part, replies: &mut Replies) {
    if part != Part::Values {
        replies.bulk(name);
    }
    if part != Part::Names {
        replies.pieces(value.pieces());
    }
}
