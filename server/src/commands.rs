//! What each command means: from arguments to something to do.
//!
//! One table (`table`) lists the commands with the numbers of arguments that they take; everything else about a
//! command stands where it is parsed. Commands that touch the keys become operations and lookups of the machine,
//! with the [`Phrase`] that their answer takes; those that concern only the connection are left to
//! [`session`](crate::session). The texts of errors are redis's own, since people and programs look for them.

mod hashes;
mod keys;
mod phrases;
mod refused;
mod strings;
mod table;
mod times;

pub(crate) use keys::database;
pub use phrases::{Part, Phrase, answer_read, answer_value, answer_write};
pub use table::{COMMANDS, Known, find, place};

use crate::kv::{Lookup, MAX_KEY, Operation};
use crate::passwords::Login;
use crate::resp::Command;
use crate::secret::Secret;
use bytes::Bytes;

/// What there is to do for a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Change the keys.
    Write(Operation, Phrase),
    /// Look at the keys.
    Read(Lookup, Phrase),
    /// Tell all names that fit.
    Keys(Bytes),
    /// Choose a database.
    Select(u8),
    /// Begin a transaction.
    Multi,
    /// Do it.
    Exec,
    /// Do not do it.
    Discard,
    /// Have the next transaction fail if these change.
    Watch(Vec<Bytes>),
    /// Forget that.
    Unwatch,
    /// Say on how many other nodes all is that was written.
    Wait,
    /// Say who the client is: [`access`](crate::access).
    Login(Login),
    /// Greet: [`session`](crate::session).
    Hello(Command),
    /// Tell who the client is.
    Acl(Command),
    /// Answer from what the connection knows: [`session`](crate::session).
    Session(&'static str, Command),
    /// Ask the node about itself, or tell it something: [`admin`](crate::admin).
    Admin(Command),
    /// Answer with this error, now or with the transaction.
    Refuse(String),
    /// The same, but at once, and a transaction that it belongs to is not done.
    Reject(String),
    /// Answer that it will be done with the transaction.
    Queued,
    /// Answer OK: there is nothing to do.
    Done,
    /// Say goodbye.
    Quit,
}

/// Whether one of its keys is too long: an argument may be longer than that.
fn names_long_key(request: &Request) -> bool {
    match request {
        Request::Write(write, _) => write.keys().any(|key| key.len() > MAX_KEY),
        Request::Read(read, _) => read.keys().iter().any(|key| key.len() > MAX_KEY),
        _ => false,
    }
}

fn long_key() -> String {
    format!("ERR string exceeds maximum allowed size ({MAX_KEY} bytes for a key)")
}

/// Understands a command.
pub fn parse(command: Command) -> Request {
    let place = place(command.argument(0));
    understand(command, place)
}

/// The same of one that is at this [`place`] in the list.
pub(crate) fn understand(mut command: Command, place: Option<usize>) -> Request {
    if let Some(excess) = command.excess() {
        return Request::Reject(format!("ERR {excess}"));
    }
    let Some(known) = place.map(|at| &COMMANDS[at]) else { return Request::Reject(unknown(&command)) };
    let count = command.len() as i64;
    if if known.arity < 0 { count < -known.arity } else { count != known.arity } {
        return Request::Reject(wrong_arity(known.name));
    }
    let long = command.bytes() > MAX_KEY;
    let of_keys = match known.group {
        "string" => strings::parse(known.name, &mut command),
        "hash" => hashes::parse(known.name, &command),
        _ => keys::parse(known.name, &command),
    };
    if let Some(request) = of_keys {
        return if long && names_long_key(&request) { Request::Reject(long_key()) } else { request };
    }
    match known.name {
        "select" => match database(command.argument(1)) {
            Ok(number) => Request::Select(number),
            Err(error) => refuse(error),
        },
        "multi" => Request::Multi,
        "exec" => Request::Exec,
        "discard" => Request::Discard,
        "watch" if long && (1..command.len()).any(|at| command.argument(at).len() > MAX_KEY) => {
            Request::Reject(long_key())
        }
        "watch" => Request::Watch(arguments(&command, 1)),
        "unwatch" => Request::Unwatch,
        "wait" => match (crate::kv::number(command.argument(1)), crate::kv::number(command.argument(2))) {
            (Some(_), Some(0..)) => Request::Wait,
            (Some(_), Some(_)) => refuse("ERR timeout is negative"),
            _ => refuse(NOT_A_NUMBER),
        },
        "auth" => auth(&command),
        "hello" => Request::Hello(command),
        "acl" => Request::Acl(command),
        "coracle" => Request::Admin(command),
        "quit" => Request::Quit,
        name => Request::Session(name, command),
    }
}

/// `AUTH [user] password`.
fn auth(command: &Command) -> Request {
    let secret = |at| Secret::new(command.argument(at));
    match command.len() {
        2 => Request::Login(Login { user: None, password: secret(1) }),
        3 => Request::Login(Login { user: Some(command.share(1)), password: secret(2) }),
        _ => refuse(SYNTAX),
    }
}

const SYNTAX: &str = "ERR syntax error";
const NOT_A_NUMBER: &str = "ERR value is not an integer or out of range";
const NOT_A_FRACTION: &str = "ERR value is not a valid float";
const NO_DATABASE: &str = "ERR DB index is out of range";

fn write(operation: Operation) -> Request {
    Request::Write(operation, Phrase::Plain)
}

fn read(lookup: Lookup) -> Request {
    Request::Read(lookup, Phrase::Plain)
}

fn refuse(error: &str) -> Request {
    Request::Refuse(error.to_owned())
}

/// The arguments from this one on.
fn arguments(command: &Command, first: usize) -> Vec<Bytes> {
    (first..command.len()).map(|at| command.share(at)).collect()
}

/// The same two by two.
fn pairs(command: &Command, first: usize) -> Vec<(Bytes, Bytes)> {
    (first..command.len()).step_by(2).map(|at| (command.share(at), command.share(at + 1))).collect()
}

/// The error for a wrong number of arguments.
pub fn wrong_arity(name: &str) -> String {
    format!("ERR wrong number of arguments for '{name}' command")
}

/// The error for a subcommand that there is not.
pub fn unknown_subcommand(command: &Command) -> String {
    format!("ERR unknown subcommand '{}' of '{}'", shown(command, 1), shown(command, 0))
}

fn unknown(command: &Command) -> String {
    if let Some(why) = refused::why(command.argument(0)) {
        return why.to_owned();
    }
    // As much of the arguments as helps, and no more.
    let arguments: Vec<_> = (1..command.len().min(4)).map(|i| format!("'{}' ", shown(command, i))).collect();
    format!("ERR unknown command '{}', with args beginning with: {}", shown(command, 0), arguments.concat())
}

/// An argument for an error: at most 128 bytes of it, printable.
fn shown(command: &Command, i: usize) -> String {
    let argument = command.argument(i);
    argument[..argument.len().min(128)].escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Life, Only, OnlyLife, When};
    use crate::resp::Parser;

    fn request(line: &str) -> Request {
        let line = format!("{line}\n");
        parse(Parser::new().next(&mut line.as_bytes()).unwrap().unwrap())
    }

    fn refusal(line: &str) -> String {
        match request(line) {
            Request::Refuse(text) | Request::Reject(text) => text,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn operation(line: &str) -> Operation {
        match request(line) {
            Request::Write(operation, _) => operation,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn set_takes_its_conditions_in_any_order_and_case() {
        let set = |when, get| Operation::Set { key: "k".into(), value: "v".into(), when, get };
        assert_eq!(operation("SET k v"), set(When::Always, false));
        assert_eq!(operation("set k v nx GET"), set(When::Absent, true));
        assert_eq!(operation("Set k v get XX"), set(When::Present, true));
        let put = |only, life, get| Operation::Put { key: "k".into(), value: "v".into(), only, life, get };
        assert_eq!(operation("SET k v EX 10"), put(Only::Always, Life::For(10_000), false));
        assert_eq!(operation("SET k v px 10 nx"), put(Only::Absent, Life::For(10), false));
        assert_eq!(operation("SET k v EXAT 10 GET"), put(Only::Always, Life::Until(10_000), true));
        assert_eq!(operation("SET k v PXAT 10"), put(Only::Always, Life::Until(10), false));
        assert_eq!(operation("SET k v XX KEEPTTL xx keepttl"), put(Only::Present, Life::Keep, false));
        assert_eq!(operation("SET k v IFEQ w"), put(Only::Equal(Box::new("w".into())), Life::Forever, false));
        for wrong in [
            "SET k v NX XX",
            "SET k v EX",
            "SET k v EX 1 PX 1",
            "SET k v KEEPTTL EX 1",
            "SET k v foo",
            "SET k v IFEQ",
            "SET k v NX IFEQ w",
        ] {
            assert_eq!(refusal(wrong), "ERR syntax error", "{wrong}");
        }
        for wrong in ["SET k v EX 0", "SET k v PX -1", "SETEX k 0 v", "SET k v EX 9223372036854775807"] {
            assert!(refusal(wrong).starts_with("ERR invalid expire time in 'set"), "{wrong}");
        }
    }

    #[test]
    fn conditions_of_a_life_go_together_or_not() {
        let only = |line: &str| match operation(line) {
            Operation::Expire { only, .. } => only,
            other => panic!("{other:?}"),
        };
        assert_eq!(only("EXPIRE k 1"), OnlyLife::Always);
        assert_eq!(only("EXPIRE k 1 NX"), OnlyLife::Forever);
        assert_eq!(only("EXPIRE k 1 XX GT"), OnlyLife::Longer);
        assert_eq!(only("EXPIRE k 1 LT XX"), OnlyLife::MortalShorter);
        assert!(refusal("EXPIRE k 1 GT LT").starts_with("ERR GT and LT"));
        assert!(refusal("EXPIRE k 1 NX GT").starts_with("ERR NX and XX, GT or LT"));
        assert_eq!(refusal("EXPIRE k 1 foo"), "ERR Unsupported option foo");
    }

    #[test]
    fn errors_are_those_of_redis() {
        assert_eq!(refusal("GET"), "ERR wrong number of arguments for 'get' command");
        assert_eq!(refusal("gEt a b"), "ERR wrong number of arguments for 'get' command");
        assert_eq!(refusal("MSET a b c"), "ERR wrong number of arguments for 'mset' command");
        assert_eq!(refusal("HSET h a b c"), "ERR wrong number of arguments for 'hset' command");
        assert_eq!(refusal("INCRBY n x"), "ERR value is not an integer or out of range");
        assert_eq!(refusal("INCRBY n 9223372036854775808"), "ERR value is not an integer or out of range");
        assert_eq!(refusal("DECRBY n -9223372036854775808"), "ERR decrement would overflow");
        assert_eq!(refusal("SELECT 16"), "ERR DB index is out of range");
        assert_eq!(refusal("SCAN x"), "ERR invalid cursor");
        assert_eq!(refusal("SCAN -1"), "ERR invalid cursor");
        assert_eq!(refusal("FOO"), "ERR unknown command 'FOO', with args beginning with: ");
        assert_eq!(refusal("FOO a b"), "ERR unknown command 'FOO', with args beginning with: 'a' 'b' ");
    }

    #[test]
    fn each_command_of_the_table_is_understood() {
        for known in COMMANDS {
            let arguments = " 1".repeat(known.arity.unsigned_abs() as usize - 1);
            let line = match known.name {
                "object" => "object encoding 1".to_owned(),
                name => format!("{name}{arguments}"),
            };
            let understood = !matches!(request(&line), Request::Refuse(_) | Request::Reject(_));
            assert!(understood, "{line}: {:?}", request(&line));
        }
    }
}
