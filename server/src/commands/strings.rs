//! Commands of strings.

use super::phrases::Phrase;
use super::times::Times;
use super::{NOT_A_NUMBER, Request, SYNTAX, read, refuse, write, wrong_arity};
use crate::kv::{self, Life, Lookup, Only, Operation, When};
use crate::resp::Command;

/// Understands a command, whose number of arguments is right.
pub(super) fn parse(name: &'static str, command: &mut Command) -> Option<Request> {
    if name == "get" {
        return Some(read(Lookup::Get(command.take_last())));
    }
    let command = &*command;
    let key = || command.share(1);
    let value = || command.share(2);
    Some(match name {
        "set" => set(command),
        "setnx" => Request::Write(
            Operation::Set { key: key(), value: value(), when: When::Absent, get: false },
            Phrase::Truth,
        ),
        "getset" => write(Operation::Set { key: key(), value: value(), when: When::Always, get: true }),
        "setex" => set_for(command, "setex", Times::Seconds),
        "psetex" => set_for(command, "psetex", Times::Millis),
        "getdel" => write(Operation::Take { key: key() }),
        "getex" => getex(command),
        "delex" => delex(command),
        "append" => write(Operation::Append { key: key(), value: value() }),
        "strlen" => read(Lookup::Length { key: key(), fields: false }),
        "getrange" | "substr" => range(command),
        "setrange" => set_range(command),
        "incr" => write(Operation::Add { key: key(), by: 1 }),
        "decr" => write(Operation::Add { key: key(), by: -1 }),
        "incrby" => add(command, Some),
        "decrby" => add(command, i64::checked_neg),
        "incrbyfloat" => write(Operation::AddFraction { key: key(), by: value() }),
        "mget" => read(Lookup::GetAll(super::arguments(command, 1))),
        "mset" | "msetnx" if command.len().is_multiple_of(2) => Request::Refuse(wrong_arity(name)),
        "mset" => write(Operation::SetAll { pairs: super::pairs(command, 1) }),
        "msetnx" => write(Operation::SetAllAbsent { pairs: super::pairs(command, 1) }),
        _ => return None,
    })
}

/// `SET key value [NX | XX | IFEQ value | IFNE value] [GET] [KEEPTTL | EX s | PX ms | EXAT s | PXAT ms]`.
fn set(command: &Command) -> Request {
    let (mut only, mut keeps, mut times, mut get) = (None, false, None, false);
    let mut at = 3;
    while at < command.len() {
        let word = |word: &str| command.is(at, word);
        let next = || command.share(at + 1);
        let follows = at + 1 < command.len();
        // As in redis, the same may be said twice.
        let taken = if word("nx") && matches!(only, None | Some(Only::Absent)) {
            only = Some(Only::Absent);
            1
        } else if word("xx") && matches!(only, None | Some(Only::Present)) {
            only = Some(Only::Present);
            1
        } else if word("ifeq") && only.is_none() && follows {
            only = Some(Only::Equal(Box::new(next())));
            2
        } else if word("ifne") && only.is_none() && follows {
            only = Some(Only::Different(Box::new(next())));
            2
        } else if word("get") {
            get = true;
            1
        } else if word("keepttl") && times.is_none() {
            keeps = true;
            1
        } else if let Some(named) = Times::named(command, at)
            && times.is_none_or(|(times, _)| times == named)
            && !keeps
            && follows
        {
            times = Some((named, at + 1));
            2
        } else {
            return refuse(SYNTAX);
        };
        at += taken;
    }
    let life = match times.map(|(times, at)| times.life(command.argument(at), "set")) {
        Some(Ok(life)) => Some(life),
        Some(Err(error)) => return Request::Refuse(error),
        None => keeps.then_some(Life::Keep),
    };
    let (key, value) = (command.share(1), command.share(2));
    let when = match &only {
        None => When::Always,
        Some(Only::Absent) => When::Absent,
        Some(Only::Present) => When::Present,
        Some(_) => return put(command, only, life, get),
    };
    match life {
        // What there always was is said as it always was.
        None => write(Operation::Set { key, value, when, get }),
        Some(_) => put(command, only, life, get),
    }
}

fn put(command: &Command, only: Option<Only>, life: Option<Life>, get: bool) -> Request {
    let (only, life) = (only.unwrap_or(Only::Always), life.unwrap_or(Life::Forever));
    write(Operation::Put { key: command.share(1), value: command.share(2), only, life, get })
}

/// `SETEX key seconds value` and `PSETEX key milliseconds value`.
fn set_for(command: &Command, name: &str, times: Times) -> Request {
    match times.life(command.argument(2), name) {
        Ok(life) => {
            let (key, value) = (command.share(1), command.share(3));
            write(Operation::Put { key, value, only: Only::Always, life, get: false })
        }
        Err(error) => Request::Refuse(error),
    }
}

/// `GETEX key [PERSIST | EX s | PX ms | EXAT s | PXAT ms]`.
fn getex(command: &Command) -> Request {
    let key = command.share(1);
    let life = match command.len() {
        2 => return read(Lookup::Get(key)),
        3 if command.is(2, "persist") => Life::Forever,
        4 => match Times::named(command, 2) {
            Some(times) => match times.life(command.argument(3), "getex") {
                Ok(life) => life,
                Err(error) => return Request::Refuse(error),
            },
            None => return refuse(SYNTAX),
        },
        _ => return refuse(SYNTAX),
    };
    write(Operation::Touch { key, life })
}

/// `DELEX key [IFEQ value | IFNE value]`.
fn delex(command: &Command) -> Request {
    let only = match command.len() {
        2 => Only::Always,
        4 if command.is(2, "ifeq") => Only::Equal(Box::new(command.share(3))),
        4 if command.is(2, "ifne") => Only::Different(Box::new(command.share(3))),
        _ => return refuse(SYNTAX),
    };
    write(Operation::DeleteIf { key: command.share(1), only })
}

fn range(command: &Command) -> Request {
    match (kv::number(command.argument(2)), kv::number(command.argument(3))) {
        (Some(from), Some(to)) => read(Lookup::Range { key: command.share(1), from, to }),
        _ => refuse(NOT_A_NUMBER),
    }
}

fn set_range(command: &Command) -> Request {
    match kv::number(command.argument(2)).map(u64::try_from) {
        None => refuse(NOT_A_NUMBER),
        Some(Err(_)) => refuse("ERR offset is out of range"),
        Some(Ok(offset)) => {
            write(Operation::SetRange { key: command.share(1), offset, value: command.share(3) })
        }
    }
}

fn add(command: &Command, sign: fn(i64) -> Option<i64>) -> Request {
    match kv::number(command.argument(2)).map(sign) {
        Some(Some(by)) => write(Operation::Add { key: command.share(1), by }),
        Some(None) => refuse("ERR decrement would overflow"),
        None => refuse(NOT_A_NUMBER),
    }
}
