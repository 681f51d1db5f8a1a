//! What each command means: from arguments to something to do.
//!
//! One table lists the commands with the numbers of arguments that they take; everything else about a
//! command stands in [`parse`]. Commands that touch the keys become operations and lookups of the machine;
//! those that concern only the connection are left to [`session`](crate::session). The texts of errors are
//! redis's own, since people and programs look for them.

use crate::kv::{self, Found, Lookup, Operation, Outcome, When};
use crate::resp::{Command, Replies};
use crate::value::Value;

/// A command that the server knows.
pub struct Known {
    /// In lower case.
    pub name: &'static str,
    /// The number of arguments, the name included; negative: at least so many. As in redis.
    pub arity: i64,
    /// What COMMAND says of it.
    pub flags: &'static [&'static str],
    /// The first and last argument that is a key and the step between keys; 0 where there is none.
    pub keys: (i64, i64, i64),
}

/// All commands.
pub const COMMANDS: &[Known] = &[
    known("append", 3, &["write", "denyoom"], (1, 1, 1)),
    known("client", -2, &["loading", "stale"], (0, 0, 0)),
    known("command", -1, &["loading", "stale"], (0, 0, 0)),
    known("config", -2, &["admin", "loading", "stale"], (0, 0, 0)),
    known("coracle", -2, &["admin", "loading", "stale"], (0, 0, 0)),
    known("del", -2, &["write"], (1, -1, 1)),
    known("echo", 2, &["fast", "loading", "stale"], (0, 0, 0)),
    known("exists", -2, &["readonly", "fast"], (1, -1, 1)),
    known("get", 2, &["readonly", "fast"], (1, 1, 1)),
    known("hello", -1, &["fast", "loading", "stale"], (0, 0, 0)),
    known("incr", 2, &["write", "denyoom", "fast"], (1, 1, 1)),
    known("incrby", 3, &["write", "denyoom", "fast"], (1, 1, 1)),
    known("info", -1, &["loading", "stale"], (0, 0, 0)),
    known("mget", -2, &["readonly", "fast"], (1, -1, 1)),
    known("mset", -3, &["write", "denyoom"], (1, -1, 2)),
    known("ping", -1, &["fast", "loading", "stale"], (0, 0, 0)),
    known("quit", -1, &["fast", "loading", "stale"], (0, 0, 0)),
    known("reset", 1, &["fast", "loading", "stale"], (0, 0, 0)),
    known("select", 2, &["fast", "loading", "stale"], (0, 0, 0)),
    known("set", -3, &["write", "denyoom"], (1, 1, 1)),
];

const fn known(
    name: &'static str,
    arity: i64,
    flags: &'static [&'static str],
    keys: (i64, i64, i64),
) -> Known {
    Known { name, arity, flags, keys }
}

/// The command of this name, in whatever case.
pub fn find(name: &[u8]) -> Option<&'static Known> {
    COMMANDS.iter().find(|known| known.name.as_bytes().eq_ignore_ascii_case(name))
}

/// What there is to do for a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Change the keys.
    Write(Operation),
    /// Look at the keys.
    Read(Lookup),
    /// Answer from what the connection knows: [`session`](crate::session).
    Session(&'static str, Command),
    /// Ask the node about itself, or tell it something: [`admin`](crate::admin).
    Admin(Command),
    /// Answer with this error.
    Refuse(String),
    /// Answer OK: there is nothing to do.
    Done,
    /// Say goodbye.
    Quit,
}

/// Understands a command.
pub fn parse(command: Command) -> Request {
    if let Some(excess) = command.excess() {
        return Request::Refuse(format!("ERR {excess}"));
    }
    let Some(known) = find(command.argument(0)) else { return Request::Refuse(unknown(&command)) };
    let count = command.len() as i64;
    if if known.arity < 0 { count < -known.arity } else { count != known.arity } {
        return Request::Refuse(wrong_arity(known.name));
    }
    let keys = || (1..command.len()).map(|i| command.share(i)).collect();
    match known.name {
        "get" => Request::Read(Lookup::Get(command.share(1))),
        "exists" => Request::Read(Lookup::Count(keys())),
        "mget" => Request::Read(Lookup::GetAll(keys())),
        "set" => set(&command),
        "del" => Request::Write(Operation::Delete { keys: keys() }),
        "append" => Request::Write(Operation::Append { key: command.share(1), value: command.share(2) }),
        "incr" => Request::Write(Operation::Add { key: command.share(1), by: 1 }),
        "incrby" => match kv::number(command.argument(2)) {
            Some(by) => Request::Write(Operation::Add { key: command.share(1), by }),
            None => Request::Refuse(NOT_A_NUMBER.into()),
        },
        "mset" if command.len().is_multiple_of(2) => Request::Refuse(wrong_arity("mset")),
        "mset" => {
            let pair = |i| (command.share(i), command.share(i + 1));
            Request::Write(Operation::SetAll { pairs: (1..command.len()).step_by(2).map(pair).collect() })
        }
        "coracle" => Request::Admin(command),
        "quit" => Request::Quit,
        name => Request::Session(name, command),
    }
}

/// `SET key value [NX | XX] [GET]`.
fn set(command: &Command) -> Request {
    let (mut when, mut get) = (When::Always, false);
    for i in 3..command.len() {
        if command.is(i, "nx") && when != When::Present {
            when = When::Absent;
        } else if command.is(i, "xx") && when != When::Absent {
            when = When::Present;
        } else if command.is(i, "get") {
            get = true;
        } else {
            return Request::Refuse("ERR syntax error".into());
        }
    }
    Request::Write(Operation::Set { key: command.share(1), value: command.share(2), when, get })
}

const NOT_A_NUMBER: &str = "ERR value is not an integer or out of range";

/// The error for a wrong number of arguments.
pub fn wrong_arity(name: &str) -> String {
    format!("ERR wrong number of arguments for '{name}' command")
}

/// The error for a subcommand that there is not.
pub fn unknown_subcommand(command: &Command) -> String {
    format!("ERR unknown subcommand '{}' of '{}'", shown(command, 1), shown(command, 0))
}

fn unknown(command: &Command) -> String {
    // As much of the arguments as helps, and no more.
    let arguments: Vec<_> = (1..command.len().min(4)).map(|i| format!("'{}' ", shown(command, i))).collect();
    format!("ERR unknown command '{}', with args beginning with: {}", shown(command, 0), arguments.concat())
}

/// An argument for an error: at most 128 bytes of it, printable.
fn shown(command: &Command, i: usize) -> String {
    let argument = command.argument(i);
    argument[..argument.len().min(128)].escape_ascii().to_string()
}

/// Phrases what a write came to.
pub fn answer_write(outcome: &Outcome, replies: &mut Replies) {
    match outcome {
        Outcome::Done => replies.simple("OK"),
        Outcome::Nothing => replies.null(),
        Outcome::Number(number) => replies.number(*number),
        Outcome::Value(value) => replies.bulk(value),
        Outcome::NotANumber => replies.error(NOT_A_NUMBER),
        Outcome::Overflow => replies.error("ERR increment or decrement would overflow"),
        Outcome::TooLong => {
            replies.error(&format!("ERR string exceeds maximum allowed size ({} bytes)", kv::MAX_VALUE));
        }
    }
}

/// Phrases a value, or that there is none.
pub fn answer_value(value: Option<&Value>, replies: &mut Replies) {
    match value {
        Some(value) => replies.pieces(value.pieces()),
        None => replies.null(),
    }
}

/// Phrases what a read found; the values of a [`Found::Values`] follow one by one.
pub fn answer_read(found: &Found, replies: &mut Replies) {
    match found {
        Found::Value(value) => answer_value(value.as_ref(), replies),
        Found::Count(count) => replies.number(*count),
        Found::Values(values) => {
            replies.array(values.len());
            values.iter().for_each(|value| answer_value(value.as_ref(), replies));
        }
        Found::TooLarge => {
            replies
                .error(&format!("ERR the values are over {} bytes together; ask for fewer", kv::MAX_ANSWER));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::Parser;

    fn request(line: &str) -> Request {
        let line = format!("{line}\n");
        parse(Parser::new().next(&mut line.as_bytes()).unwrap().unwrap())
    }

    fn refusal(line: &str) -> String {
        match request(line) {
            Request::Refuse(text) => text,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn set_takes_its_conditions_in_any_order_and_case() {
        let set =
            |when, get| Request::Write(Operation::Set { key: "k".into(), value: "v".into(), when, get });
        assert_eq!(request("SET k v"), set(When::Always, false));
        assert_eq!(request("set k v nx GET"), set(When::Absent, true));
        assert_eq!(request("Set k v get XX"), set(When::Present, true));
        for wrong in ["SET k v NX XX", "SET k v EX 10", "SET k v PX 10", "SET k v KEEPTTL", "SET k v foo"] {
            assert_eq!(refusal(wrong), "ERR syntax error", "{wrong}");
        }
    }

    #[test]
    fn errors_are_those_of_redis() {
        assert_eq!(refusal("GET"), "ERR wrong number of arguments for 'get' command");
        assert_eq!(refusal("gEt a b"), "ERR wrong number of arguments for 'get' command");
        assert_eq!(refusal("MSET a b c"), "ERR wrong number of arguments for 'mset' command");
        assert_eq!(refusal("INCRBY n x"), "ERR value is not an integer or out of range");
        assert_eq!(refusal("INCRBY n 9223372036854775808"), "ERR value is not an integer or out of range");
        assert_eq!(refusal("FOO"), "ERR unknown command 'FOO', with args beginning with: ");
        assert_eq!(refusal("FOO a b"), "ERR unknown command 'FOO', with args beginning with: 'a' 'b' ");
    }

    #[test]
    fn the_table_has_no_command_twice_and_each_one_is_understood() {
        for (i, known) in COMMANDS.iter().enumerate() {
            assert!(COMMANDS[i + 1..].iter().all(|other| other.name != known.name));
            let line = format!("{}{}", known.name, " 1".repeat(known.arity.unsigned_abs() as usize - 1));
            assert!(!matches!(request(&line), Request::Refuse(_)), "{line}");
        }
    }
}
