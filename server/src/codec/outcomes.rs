//! The outcomes of a batch.

use super::primitives::{Decoder, put_number, put_signed, put_string, start, wrong};
use super::{MAX_KEYS, MAX_OPERATIONS, VERSION};
use crate::lookup::Found;
use crate::operation::{MAX_FIELDS, Outcome};
use crate::users::Refusal;
use crate::value::Value;
use bytes::Bytes;
use coracle::CodecError;

/// The encoding of what most batches come to.
static DONE: [u8; 3] = [VERSION, 1, 1];

/// Encodes the outcomes of a batch.
pub fn encode_outcomes(outcomes: &[Outcome]) -> Bytes {
    if outcomes == [Outcome::Done] {
        return Bytes::from_static(&DONE);
    }
    // Values are long or short: room for these without growing.
    let mut out = start(outcomes.len(), outcomes.iter().map(|outcome| 12 + outcome.bytes()).sum());
    outcomes.iter().for_each(|outcome| put_outcome(&mut out, outcome));
    out.into()
}

fn put_outcome(out: &mut Vec<u8>, outcome: &Outcome) {
    match outcome {
        Outcome::Done => out.push(1),
        Outcome::Nothing => out.push(2),
        Outcome::Number(number) => {
            out.push(3);
            put_signed(out, *number);
        }
        Outcome::Value(value) => {
            out.push(4);
            put_value(out, value);
        }
        Outcome::NotANumber => out.push(5),
        Outcome::Overflow => out.push(6),
        Outcome::TooLong => out.push(7),
        Outcome::Refused(why) => out.extend([8, why.code()]),
        Outcome::WrongKind => out.push(9),
        Outcome::NoKey => out.push(10),
        Outcome::NotAFraction => out.push(11),
        Outcome::NotFinite => out.push(12),
        Outcome::FieldNotANumber => out.push(13),
        Outcome::FieldNotAFraction => out.push(14),
        Outcome::TooManyFields => out.push(15),
        Outcome::SameKey => out.push(16),
        Outcome::Found(found) => {
            out.push(17);
            put_found(out, found);
        }
    }
}

/// Decodes the outcomes of a batch.
pub fn decode_outcomes(bytes: &Bytes) -> Result<Vec<Outcome>, CodecError> {
    Decoder::new(bytes)?.list(MAX_OPERATIONS, |from| {
        Ok(match from.byte()? {
            1 => Outcome::Done,
            2 => Outcome::Nothing,
            3 => Outcome::Number(from.signed()?),
            4 => Outcome::Value(from.string()?.into()),
            5 => Outcome::NotANumber,
            6 => Outcome::Overflow,
            7 => Outcome::TooLong,
            8 => Outcome::Refused(refusal(from)?),
            9 => Outcome::WrongKind,
            10 => Outcome::NoKey,
            11 => Outcome::NotAFraction,
            12 => Outcome::NotFinite,
            13 => Outcome::FieldNotANumber,
            14 => Outcome::FieldNotAFraction,
            15 => Outcome::TooManyFields,
            16 => Outcome::SameKey,
            17 => Outcome::Found(found(from)?),
            other => return Err(wrong(format!("{other} is not an outcome"))),
        })
    })
}

fn refusal(from: &mut Decoder) -> Result<Refusal, CodecError> {
    let code = from.byte()?;
    Refusal::of_code(code).ok_or_else(|| wrong(format!("{code} is not a refusal")))
}

fn put_found(out: &mut Vec<u8>, found: &Found) {
    match found {
        Found::Value(value) => {
            out.push(1);
            put_maybe(out, value.as_ref());
        }
        Found::Count(count) => {
            out.push(2);
            put_signed(out, *count);
        }
        Found::Values(values) => {
            out.push(3);
            put_number(out, values.len() as u64);
            values.iter().for_each(|value| put_maybe(out, value.as_ref()));
        }
        Found::TooLarge => out.push(4),
        Found::Refused(why) => out.extend([5, why.code()]),
        Found::WrongKind => out.push(6),
        Found::Fields(fields) => {
            out.push(7);
            put_number(out, fields.len() as u64);
            for (field, value) in fields {
                put_string(out, field);
                put_value(out, value);
            }
        }
        Found::Page { next, names } => {
            out.push(8);
            put_number(out, *next);
            put_number(out, names.len() as u64);
            names.iter().for_each(|name| put_string(out, name));
        }
        Found::Marks(marks) => {
            out.push(9);
            put_number(out, marks.len() as u64);
            marks.iter().for_each(|mark| put_number(out, *mark));
        }
    }
}

fn put_maybe(out: &mut Vec<u8>, value: Option<&Value>) {
    out.push(u8::from(value.is_some()));
    value.into_iter().for_each(|value| put_value(out, value));
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    put_number(out, value.len() as u64);
    value.pieces().iter().for_each(|piece| out.extend_from_slice(piece));
}

fn found(from: &mut Decoder) -> Result<Found, CodecError> {
    let maybe = |from: &mut Decoder| Ok(if from.truth()? { Some(Value::from(from.string()?)) } else { None });
    Ok(match from.byte()? {
        1 => Found::Value(maybe(from)?),
        2 => Found::Count(from.signed()?),
        3 => Found::Values(from.items(MAX_KEYS, maybe)?),
        4 => Found::TooLarge,
        5 => Found::Refused(refusal(from)?),
        6 => Found::WrongKind,
        7 => {
            let field = |from: &mut Decoder| Ok((from.string()?, Value::from(from.string()?)));
            Found::Fields(from.items(MAX_FIELDS, field)?)
        }
        8 => Found::Page { next: from.number()?, names: from.items(MAX_FIELDS, Decoder::string)? },
        9 => Found::Marks(from.items(MAX_KEYS, Decoder::number)?),
        other => return Err(wrong(format!("{other} is not what is found"))),
    })
}
