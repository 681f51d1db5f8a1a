//! Commands of keys, whatever their values are.

use super::phrases::Phrase;
use super::times::Times;
use super::{NO_DATABASE, NOT_A_NUMBER, Request, SYNTAX, arguments, read, refuse, unknown_subcommand, write};
use crate::glob::MAX_PATTERN;
use crate::kv::{self, DATABASES, Life, Lookup, OnlyLife, Operation, Unit};
use crate::resp::Command;
use bytes::Bytes;

/// Understands a command, whose number of arguments is right.
pub(super) fn parse(name: &'static str, command: &Command) -> Option<Request> {
    let key = || command.share(1);
    let life = |unit| read(Lookup::Life { key: key(), unit });
    Some(match name {
        "exists" | "touch" => read(Lookup::Count(arguments(command, 1))),
        "del" | "unlink" => write(Operation::Delete { keys: arguments(command, 1) }),
        "expire" => expire(command, "expire", Times::Seconds),
        "pexpire" => expire(command, "pexpire", Times::Millis),
        "expireat" => expire(command, "expireat", Times::AtSecond),
        "pexpireat" => expire(command, "pexpireat", Times::AtMilli),
        "persist" => write(Operation::Expire { key: key(), life: Life::Forever, only: OnlyLife::Mortal }),
        "ttl" => life(Unit::Seconds),
        "pttl" => life(Unit::Millis),
        "expiretime" => life(Unit::EndSeconds),
        "pexpiretime" => life(Unit::EndMillis),
        "type" => Request::Read(Lookup::Kind(key()), Phrase::Word),
        "object" => object(command),
        "rename" => {
            let rename = Operation::Rename { from: key(), to: command.share(2), absent: false };
            Request::Write(rename, Phrase::Ok)
        }
        "renamenx" => write(Operation::Rename { from: key(), to: command.share(2), absent: true }),
        "copy" => copy(command),
        "move" => match database(command.argument(2)) {
            Ok(database) => write(Operation::Move { key: key(), database }),
            Err(error) => refuse(error),
        },
        "scan" => scan(command),
        "keys" => match pattern(command, 1) {
            Ok(pattern) => Request::Keys(pattern),
            Err(error) => refuse(error),
        },
        "dbsize" => read(Lookup::Size),
        "randomkey" => read(Lookup::Any(fastrand::u64(..))),
        "flushdb" => clear(command, false),
        "flushall" => clear(command, true),
        _ => return None,
    })
}

/// The number of a database, or the text of an error.
pub(crate) fn database(digits: &[u8]) -> Result<u8, &'static str> {
    let number = kv::number(digits).ok_or(NOT_A_NUMBER)?;
    u8::try_from(number).ok().filter(|number| *number < DATABASES).ok_or(NO_DATABASE)
}

/// `EXPIRE key time [NX | XX | GT | LT]` and its like.
fn expire(command: &Command, name: &str, times: Times) -> Request {
    let mut only = OnlyLife::Always;
    for at in 3..command.len() {
        let Some(word) = ["nx", "xx", "gt", "lt"].into_iter().find(|word| command.is(at, word)) else {
            return Request::Refuse(format!("ERR Unsupported option {}", super::shown(command, at)));
        };
        only = match narrowed(only, word) {
            Ok(only) => only,
            Err(error) => return refuse(error),
        };
    }
    match times.any_life(command.argument(2), name) {
        Ok(life) => write(Operation::Expire { key: command.share(1), life, only }),
        Err(error) => Request::Refuse(error),
    }
}

/// A condition and one more.
fn narrowed(only: OnlyLife, word: &str) -> Result<OnlyLife, &'static str> {
    use OnlyLife::{Always, Forever, Longer, Mortal, MortalShorter, Shorter};
    match (only, word) {
        (Always | Forever, "nx") => Ok(Forever),
        (Always | Mortal, "xx") => Ok(Mortal),
        // What has no end cannot live longer, so XX says nothing more.
        (Always | Mortal | Longer, "gt") | (Longer, "xx") => Ok(Longer),
        (Always | Shorter, "lt") => Ok(Shorter),
        (Mortal | MortalShorter, "lt") | (Shorter | MortalShorter, "xx") => Ok(MortalShorter),
        (Longer, "lt") | (Shorter | MortalShorter, "gt") => {
            Err("ERR GT and LT options at the same time are not compatible")
        }
        _ => Err("ERR NX and XX, GT or LT options at the same time are not compatible"),
    }
}

/// `OBJECT ENCODING key` and `OBJECT REFCOUNT key`.
fn object(command: &Command) -> Request {
    if command.len() == 3 && command.is(1, "encoding") {
        read(Lookup::Encoding(command.share(2)))
    } else if command.len() == 3 && command.is(1, "refcount") {
        Request::Read(Lookup::Kind(command.share(2)), Phrase::Once)
    } else if command.is(1, "freq") || command.is(1, "idletime") {
        refuse("ERR it is not kept when and how often keys are used: nothing is evicted here")
    } else {
        Request::Refuse(unknown_subcommand(command))
    }
}

/// `COPY from to [DB number] [REPLACE]`.
fn copy(command: &Command) -> Request {
    let (mut to, mut replace) = (None, false);
    let mut at = 3;
    while at < command.len() {
        if command.is(at, "replace") {
            replace = true;
            at += 1;
        } else if command.is(at, "db") && at + 1 < command.len() {
            match database(command.argument(at + 1)) {
                Ok(number) => to = Some(number),
                Err(error) => return refuse(error),
            }
            at += 2;
        } else {
            return refuse(SYNTAX);
        }
    }
    write(Operation::Copy { from: command.share(1), to: command.share(2), database: to, replace })
}

/// `SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]`.
fn scan(command: &Command) -> Request {
    let Some(cursor) = cursor(command.argument(1)) else { return refuse(NO_CURSOR) };
    let (mut count, mut wanted, mut kind) = (10, None, None);
    let mut at = 2;
    while at < command.len() {
        if at + 1 == command.len() {
            return refuse(SYNTAX);
        }
        if command.is(at, "match") {
            match pattern(command, at + 1) {
                Ok(pattern) => wanted = Some(pattern),
                Err(error) => return refuse(error),
            }
        } else if command.is(at, "count") {
            match kv::number(command.argument(at + 1)) {
                Some(number @ 1..) => count = number as u64,
                Some(_) => return refuse(SYNTAX),
                None => return refuse(NOT_A_NUMBER),
            }
        } else if command.is(at, "type") {
            kind = Some(command.share(at + 1));
        } else {
            return refuse(SYNTAX);
        }
        at += 2;
    }
    read(Lookup::Scan { cursor, count, pattern: wanted.map(Box::new), kind: kind.map(Box::new) })
}

/// What a cursor that is none is answered.
pub(super) const NO_CURSOR: &str = "ERR invalid cursor";

/// The place that a cursor says.
pub(super) fn cursor(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok()?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// A pattern, which is not too long.
pub(super) fn pattern(command: &Command, at: usize) -> Result<Bytes, &'static str> {
    if command.argument(at).len() > MAX_PATTERN {
        return Err("ERR a pattern is at most 512 bytes long here");
    }
    Ok(command.share(at))
}

/// `FLUSHDB [ASYNC | SYNC]`, which is the same here.
fn clear(command: &Command, all: bool) -> Request {
    match command.len() {
        1 => write(Operation::Clear { all }),
        2 if command.is(1, "async") || command.is(1, "sync") => write(Operation::Clear { all }),
        _ => refuse(SYNTAX),
    }
}
