//! Commands of hashes.

use super::phrases::{Part, Phrase};
use super::{NOT_A_FRACTION, NOT_A_NUMBER, Request, SYNTAX, keys, pairs, read, refuse, write, wrong_arity};
use crate::fraction;
use crate::kv::{self, Lookup, Operation};
use crate::resp::Command;

/// Understands a command, whose number of arguments is right.
pub(super) fn parse(name: &'static str, command: &Command) -> Option<Request> {
    let key = || command.share(1);
    let field = || command.share(2);
    let all = |phrase| Request::Read(Lookup::AllFields(key()), phrase);
    Some(match name {
        "hset" | "hmset" if !command.len().is_multiple_of(2) => Request::Refuse(wrong_arity(name)),
        "hset" => write(Operation::SetFields { key: key(), pairs: pairs(command, 2), absent: false }),
        "hmset" => {
            let set = Operation::SetFields { key: key(), pairs: pairs(command, 2), absent: false };
            Request::Write(set, Phrase::Ok)
        }
        "hsetnx" => write(Operation::SetFields { key: key(), pairs: pairs(command, 2), absent: true }),
        "hdel" => write(Operation::DeleteFields { key: key(), fields: super::arguments(command, 2) }),
        "hincrby" => match kv::number(command.argument(3)) {
            Some(by) => write(Operation::AddField { key: key(), field: field(), by }),
            None => refuse(NOT_A_NUMBER),
        },
        "hincrbyfloat" if !fraction::is_one(command.argument(3)) => refuse(NOT_A_FRACTION),
        "hincrbyfloat" => {
            write(Operation::AddFieldFraction { key: key(), field: field(), by: command.share(3) })
        }
        "hget" => read(Lookup::Field(key(), field())),
        "hexists" => Request::Read(Lookup::Field(key(), field()), Phrase::There),
        "hstrlen" => Request::Read(Lookup::Field(key(), field()), Phrase::Length),
        "hmget" => read(Lookup::Fields(key(), super::arguments(command, 2))),
        "hlen" => read(Lookup::Length { key: key(), fields: true }),
        "hgetall" => all(Phrase::Map),
        "hkeys" => all(Phrase::Parts(Part::Names)),
        "hvals" => all(Phrase::Parts(Part::Values)),
        "hscan" => scan(command),
        "hrandfield" => pick(command),
        _ => return None,
    })
}

/// `HSCAN key cursor [MATCH pattern] [COUNT count] [NOVALUES]`. All of a hash comes at once, since it has a limit.
fn scan(command: &Command) -> Request {
    if keys::cursor(command.argument(2)).is_none() {
        return refuse(keys::NO_CURSOR);
    }
    let (mut pattern, mut part) = (None, Part::Both);
    let mut at = 3;
    while at < command.len() {
        if command.is(at, "novalues") {
            part = Part::Names;
            at += 1;
        } else if command.is(at, "match") && at + 1 < command.len() {
            match keys::pattern(command, at + 1) {
                Ok(wanted) => pattern = Some(wanted),
                Err(error) => return refuse(error),
            }
            at += 2;
        } else if command.is(at, "count") && at + 1 < command.len() {
            match kv::number(command.argument(at + 1)) {
                Some(1..) => at += 2,
                Some(_) => return refuse(SYNTAX),
                None => return refuse(NOT_A_NUMBER),
            }
        } else {
            return refuse(SYNTAX);
        }
    }
    Request::Read(
        Lookup::AllFields(command.share(1)),
        Phrase::Scanned { pattern: pattern.map(Box::new), part },
    )
}

/// `HRANDFIELD key [count [WITHVALUES]]`.
fn pick(command: &Command) -> Request {
    let part = match command.len() {
        2 => return Request::Read(Lookup::AllFields(command.share(1)), Phrase::PickOne),
        3 => Part::Names,
        4 if command.is(3, "withvalues") => Part::Both,
        _ => return refuse(SYNTAX),
    };
    match kv::number(command.argument(2)) {
        // With as many as that the reply is no larger than another.
        Some(count @ -65_536..) => {
            Request::Read(Lookup::AllFields(command.share(1)), Phrase::Pick { count, part })
        }
        Some(_) => refuse("ERR value is out of range"),
        None => refuse(NOT_A_NUMBER),
    }
}
