//! MULTI, what follows it, and EXEC: commands that are done together, in one entry of the log, or not at all.
//!
//! What a client watches is kept as a mark of each key, which the machine compares when it applies the entry. So nothing
//! is locked, and it does not matter through which node the keys are changed.
//!
//! A command that there is not, or that the client may not give, is refused at once, and then EXEC refuses the whole, as in
//! redis; one that is wrong in another way has its error among the answers. The same is so for a command
//! that there was no memory for: libraries send MULTI, the commands and EXEC in one go.

use crate::codec::MAX_OPERATIONS;
use crate::commands::{Phrase, Request};
use crate::kv::{MAX_COST, Operation};
use crate::resp::{Command, MAX_COMMAND};
use bytes::Bytes;

/// The memory that a command takes while it waits for EXEC, besides its bytes.
const OVERHEAD: usize = 384;

/// The most keys that a client may watch at a time.
const MAX_WATCHED: usize = 1024;

const NESTED: &str = "ERR MULTI calls can not be nested";
const WATCH_INSIDE: &str = "ERR WATCH inside MULTI is not allowed";
const NO_EXEC: &str = "ERR EXEC without MULTI";
const NO_DISCARD: &str = "ERR DISCARD without MULTI";
const ABORTED: &str = "EXECABORT Transaction discarded because of previous errors.";
const NOT_INSIDE: &str = "ERR Command not allowed inside a transaction";
const TOO_LARGE: &str = "ERR the transaction is too large: 8,189 commands, 10 MiB of them, and 8 MiB that they copy or look for are the most";

/// A connection's transaction.
#[derive(Default, Debug)]
pub(crate) struct Transaction {
    open: Option<Open>,
    /// Database, key and mark.
    watched: Vec<(u8, Bytes, u64)>,
}

/// One between MULTI and EXEC.
#[derive(Default, Debug)]
struct Open {
    items: Vec<Request>,
    /// Something was refused, so all of it is.
    broken: bool,
    bytes: usize,
    cost: usize,
}

/// What EXEC does.
#[derive(Debug)]
pub(crate) struct Planned {
    /// What is written.
    pub(crate) batch: Vec<Operation>,
    /// How many outcomes that has.
    pub(crate) outcomes: usize,
    /// Whether the first outcome is that of what was watched.
    pub(crate) guarded: bool,
    /// What there is to answer, in order.
    pub(crate) items: Vec<Item>,
}

/// What there is to answer for a command.
#[derive(Debug)]
pub(crate) enum Item {
    /// The next outcome, in this phrase.
    Outcome(Phrase),
    /// What the connection itself does.
    Local(Request),
}

impl Transaction {
    /// What there is to do now for a request.
    pub(crate) fn take(&mut self, request: Request) -> Request {
        let refuse = |text: &str| Request::Refuse(text.to_owned());
        let Some(open) = &mut self.open else {
            return match request {
                Request::Multi => {
                    self.open = Some(Open::default());
                    Request::Done
                }
                Request::Discard => refuse(NO_DISCARD),
                Request::Unwatch => {
                    self.watched.clear();
                    Request::Done
                }
                Request::Exec => refuse(NO_EXEC),
                other => self.leave_at_reset(other),
            };
        };
        match request {
            Request::Multi => refuse(NESTED),
            Request::Watch(_) => refuse(WATCH_INSIDE),
            Request::Discard => {
                *self = Transaction::default();
                Request::Done
            }
            Request::Exec if open.broken => {
                *self = Transaction::default();
                refuse(ABORTED)
            }
            Request::Exec => Request::Exec,
            Request::Write(..)
            | Request::Read(..)
            | Request::Select(_)
            | Request::Unwatch
            | Request::Refuse(_)
            | Request::Session(
                "ping" | "echo" | "time" | "info" | "role" | "command" | "config" | "client",
                _,
            ) => open.add(request),
            Request::Reject(error) => {
                open.breaks();
                Request::Reject(error)
            }
            Request::Quit | Request::Session("reset", _) => self.leave_at_reset(request),
            _ => {
                open.breaks();
                Request::Reject(NOT_INSIDE.to_owned())
            }
        }
    }

    /// As in redis, RESET and QUIT leave a transaction without ending it.
    fn leave_at_reset(&mut self, request: Request) -> Request {
        if matches!(request, Request::Quit | Request::Session("reset", _)) {
            *self = Transaction::default();
        }
        request
    }

    /// There was no memory for this command, and that was said.
    pub(crate) fn lose(&mut self, command: &Command) {
        if command.is(0, "exec") || command.is(0, "discard") {
            *self = Transaction::default();
        } else if self.open.is_some() || command.is(0, "multi") {
            self.open.get_or_insert_default().breaks();
        }
    }

    /// The same of one whose name is not known.
    pub(crate) fn lose_some(&mut self) {
        if let Some(open) = &mut self.open {
            open.breaks();
        }
    }

    /// From now on these keys are watched; of those that are already it is the older mark that counts.
    pub(crate) fn watch(&mut self, database: u8, keys: Vec<Bytes>, marks: Vec<u64>) {
        for (key, mark) in keys.into_iter().zip(marks) {
            if !self.watched.iter().any(|(number, known, _)| *number == database && *known == key) {
                self.watched.push((database, key, mark));
            }
        }
    }

    /// Whether so many more keys can be watched.
    pub(crate) fn can_watch(&self, more: usize) -> bool {
        self.watched.len() + more <= MAX_WATCHED
    }

    /// The memory that it holds, in bytes.
    pub(crate) fn held(&self) -> usize {
        let watched: usize = self.watched.iter().map(|(_, key, _)| key.len() + 64).sum();
        watched + self.open.as_ref().map_or(0, |open| open.bytes)
    }

    /// What EXEC does, for a connection that has chosen this database. There is no transaction any more then.
    pub(crate) fn plan(&mut self, mut database: u8) -> Planned {
        let Transaction { open, watched } = std::mem::take(self);
        let guarded = !watched.is_empty();
        let mut planned =
            Planned { batch: Vec::new(), outcomes: usize::from(guarded), guarded, items: Vec::new() };
        if guarded {
            planned.batch.push(Operation::Guard { watched });
        }
        // The first database is the one of those that name none.
        let mut last = 0;
        for item in open.unwrap_or_default().items {
            let (operation, phrase) = match item {
                Request::Write(operation, phrase) => (operation, phrase),
                Request::Read(lookup, phrase) => (Operation::Look(lookup), phrase),
                other => {
                    if let Request::Select(number) = other {
                        database = number;
                    }
                    planned.items.push(Item::Local(other));
                    continue;
                }
            };
            if last != database {
                planned.batch.push(Operation::In(database));
                last = database;
            }
            planned.batch.push(operation);
            planned.outcomes += 1;
            planned.items.push(Item::Outcome(phrase));
        }
        planned
    }
}

impl Open {
    /// Nothing that waits will be done.
    fn breaks(&mut self) {
        *self = Open { broken: true, ..Open::default() };
    }

    fn add(&mut self, item: Request) -> Request {
        if self.broken {
            return Request::Queued;
        }
        let (weight, cost) = match &item {
            Request::Write(write, _) => (write.weight(), write.cost()),
            Request::Read(read, _) => (read.weight(), read.cost()),
            Request::Session(_, command) => (command.bytes(), 0),
            Request::Refuse(error) => (error.len(), 0),
            _ => (0, 0),
        };
        self.bytes += weight + OVERHEAD;
        self.cost += cost;
        let bytes = self.bytes - self.items.len() * OVERHEAD;
        // Each may need a word on its database, too.
        if self.items.len() >= MAX_OPERATIONS / 2 - 2 || bytes > MAX_COMMAND || self.cost > MAX_COST {
            self.breaks();
            return Request::Reject(TOO_LARGE.to_owned());
        }
        self.items.push(item);
        Request::Queued
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands;
    use crate::resp::Parser;

    fn command(line: &str) -> Command {
        let line = format!("{line}\n");
        Parser::new().next(&mut line.as_bytes()).unwrap().unwrap()
    }

    /// What becomes of these lines, one after the other: the text of a refusal, or what is done.
    fn fates(transaction: &mut Transaction, lines: &[&str]) -> Vec<String> {
        let fate = |line: &&str| match transaction.take(commands::parse(command(line))) {
            Request::Refuse(text) | Request::Reject(text) => text,
            Request::Write(..) | Request::Read(..) => "carried out".into(),
            Request::Done => "OK".into(),
            Request::Queued => "QUEUED".into(),
            Request::Exec => {
                let planned = transaction.plan(0);
                format!("{} of {}", planned.outcomes, planned.batch.len())
            }
            _ => "answered".into(),
        };
        lines.iter().map(fate).collect()
    }

    #[test]
    fn what_follows_multi_waits_for_exec() {
        let mut transaction = Transaction::default();
        assert_eq!(
            fates(
                &mut transaction,
                &[
                    "MULTI", "SET k 1", "GET k", "PING", "MULTI", "WATCH k", "SELECT 2", "INCR n", "Exec",
                    "EXEC"
                ]
            ),
            [
                "OK",
                "QUEUED",
                "QUEUED",
                "QUEUED",
                NESTED,
                WATCH_INSIDE,
                "QUEUED",
                "QUEUED",
                // One word on the second database.
                "3 of 4",
                NO_EXEC
            ]
        );
        assert_eq!(
            fates(&mut transaction, &["MULTI", "SET k 1", "DISCARD", "DISCARD"])[2..],
            ["OK", NO_DISCARD]
        );
        assert_eq!(fates(&mut transaction, &["MULTI", "RESET", "SET k 1"])[1..], ["answered", "carried out"]);
        assert_eq!(fates(&mut transaction, &["MULTI", "QUIT", "EXEC"])[1..], ["answered", NO_EXEC]);
    }

    #[test]
    fn what_is_refused_on_the_way_refuses_the_whole() {
        for wrong in ["NONSENSE", "SET k", "LPUSH l 1", "AUTH secret", "HELLO 3", "KEYS *", "CORACLE STATUS"]
        {
            let fates =
                fates(&mut Transaction::default(), &["MULTI", "SET k 1", wrong, "SET k 2", "EXEC", "GET k"]);
            assert!(fates[2].starts_with("ERR "), "{wrong}: {}", fates[2]);
            assert_eq!(fates[3..], ["QUEUED", ABORTED, "carried out"], "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_in_itself_is_one_of_the_answers() {
        let mut transaction = Transaction::default();
        let fates = fates(&mut transaction, &["MULTI", "SET k 1 NX XX", "INCRBY k x", "INCR k", "EXEC"]);
        assert_eq!(fates, ["OK", "QUEUED", "QUEUED", "QUEUED", "1 of 1"]);
    }

    #[test]
    fn what_there_is_no_memory_for_refuses_the_whole_also_where_it_is_multi_itself() {
        let mut transaction = Transaction::default();
        transaction.lose(&command("MULTI"));
        assert_eq!(
            fates(&mut transaction, &["SET k 1", "EXEC", "SET k 1"]),
            ["QUEUED", ABORTED, "carried out"]
        );
        fates(&mut transaction, &["MULTI", "SET k 1"]);
        transaction.lose(&command("SET k 2"));
        assert_eq!(fates(&mut transaction, &["EXEC"]), [ABORTED]);
        fates(&mut transaction, &["MULTI", "SET k 1"]);
        transaction.lose_some();
        assert_eq!((transaction.held(), fates(&mut transaction, &["EXEC"])), (0, vec![ABORTED.to_owned()]));
        fates(&mut transaction, &["MULTI"]);
        transaction.lose(&command("EXEC"));
        assert_eq!(fates(&mut transaction, &["SET k 1"]), ["carried out"]);
        transaction.lose(&command("SET k 1"));
        assert_eq!(fates(&mut transaction, &["SET k 1"]), ["carried out"], "there is none");
    }

    #[test]
    fn a_transaction_has_its_limits() {
        let mut transaction = Transaction::default();
        fates(&mut transaction, &["MULTI"]);
        let copies = vec!["SETRANGE k 0 x"; 9];
        let fates_of_copies = fates(&mut transaction, &copies);
        assert_eq!(fates_of_copies[6..8], ["QUEUED", TOO_LARGE]);
        assert_eq!(fates(&mut transaction, &["EXEC"]), [ABORTED]);
        fates(&mut transaction, &["MULTI"]);
        let many = vec!["INCR n"; MAX_OPERATIONS / 2 - 1];
        assert_eq!(fates(&mut transaction, &many).last().unwrap(), TOO_LARGE);
    }

    #[test]
    fn what_waits_is_counted_with_all_its_arguments() {
        let mut transaction = Transaction::default();
        fates(&mut transaction, &["MULTI"]);
        let before = transaction.held();
        let long = "x".repeat(10_000);
        for line in
            [format!("HGET k {long}"), format!("HMGET k {long}"), format!("SCAN 0 MATCH {}", &long[..500])]
        {
            fates(&mut transaction, &[&line]);
        }
        assert!(transaction.held() - before > 20_500, "{}", transaction.held());
        let many = format!("EXISTS{}", " k".repeat(30_000));
        let before = transaction.held();
        fates(&mut transaction, &[&many]);
        assert!(transaction.held() - before > 30_000 * 60);
        assert_eq!(fates(&mut transaction, &[&many, &many])[1], TOO_LARGE);
    }

    #[test]
    fn what_is_watched_first_counts_and_goes_with_exec() {
        let mut transaction = Transaction::default();
        transaction.watch(0, vec!["a".into(), "b".into()], vec![1, 2]);
        transaction.watch(0, vec!["a".into()], vec![3]);
        transaction.watch(1, vec!["a".into()], vec![4]);
        assert_eq!(transaction.watched.len(), 3);
        assert!(transaction.can_watch(MAX_WATCHED - 3) && !transaction.can_watch(MAX_WATCHED - 2));
        fates(&mut transaction, &["MULTI", "SET k 1"]);
        let planned = transaction.plan(0);
        assert_eq!(
            planned.batch[0],
            Operation::Guard { watched: vec![(0, "a".into(), 1), (0, "b".into(), 2), (1, "a".into(), 4)] }
        );
        assert!(planned.guarded && planned.outcomes == 2 && transaction.watched.is_empty());
        transaction.watch(0, vec!["a".into()], vec![1]);
        fates(&mut transaction, &["UNWATCH", "MULTI"]);
        assert!(!transaction.plan(0).guarded);
    }
}
