//! What a connection remembers, and the commands that concern nothing else.
//!
//! Clients greet a server before they use it: redis-cli asks for the COMMAND table and greets with HELLO 3,
//! redis-benchmark asks CONFIG GET, libraries send CLIENT SETINFO. The answers here are enough to content
//! them and say nothing that is not so. No answer needs the cluster.

use crate::budget::Budget;
use crate::commands::{self, COMMANDS, Known, unknown_subcommand, wrong_arity};
use crate::kv;
use crate::resp::{Command, Protocol, Replies};
use std::sync::Arc;

/// The longest name that a client may give its connection, in bytes: it is kept as long as the connection.
const MAX_NAME: usize = 1024;

/// What the commands of this file may say about the server.
#[derive(Debug)]
pub struct About {
    /// The node's id.
    pub node: u64,
    /// Whether its log survives the process.
    pub durable: bool,
    /// The port that clients reach it on.
    pub port: u16,
    /// Clients.
    pub clients: Arc<Budget>,
    /// Memory for unfinished and waiting commands, in bytes.
    pub commands: Arc<Budget>,
    /// Memory for replies that wait to be taken, in bytes.
    pub replies: Arc<Budget>,
}

/// One client's connection, as it sees itself.
#[derive(Debug)]
pub struct Session {
    id: u64,
    name: Vec<u8>,
    about: Arc<About>,
}

impl Session {
    /// A fresh connection with its number.
    pub fn new(id: u64, about: Arc<About>) -> Session {
        Session { id, name: Vec::new(), about }
    }

    /// Answers a command that is in the table with its number of arguments checked.
    pub fn answer(&mut self, name: &str, command: &Command, replies: &mut Replies) {
        match name {
            "ping" => match command.len() {
                1 => replies.simple("PONG"),
                2 => replies.bulk(command.argument(1)),
                _ => replies.error(&wrong_arity("ping")),
            },
            "echo" => replies.bulk(command.argument(1)),
            "hello" => self.hello(command, replies),
            "client" => self.client(command, replies),
            "command" => table(command, replies),
            "config" => self.config(command, replies),
            "select" => match kv::number(command.argument(1)) {
                Some(0) => replies.simple("OK"),
                Some(_) => replies.error("ERR DB index is out of range"),
                None => replies.error("ERR value is not an integer or out of range"),
            },
            "info" => replies.bulk(self.info().as_bytes()),
            "reset" => {
                self.name.clear();
                replies.protocol = Protocol::Resp2;
                replies.simple("RESET");
            }
            other => replies.error(&format!("ERR '{other}' is not served here")),
        }
    }

    /// `HELLO [version [AUTH user password] [SETNAME name]]`.
    fn hello(&mut self, command: &Command, replies: &mut Replies) {
        let mut protocol = replies.protocol;
        let mut name = None;
        if command.len() > 1 {
            protocol = match kv::number(command.argument(1)) {
                Some(2) => Protocol::Resp2,
                Some(3) => Protocol::Resp3,
                Some(_) => return replies.error("NOPROTO unsupported protocol version"),
                None => return replies.error("ERR Protocol version is not an integer or out of range"),
            };
        }
        let mut at = 2;
        while at < command.len() {
            if command.is(at, "setname") && at + 1 < command.len() {
                match checked_name(command.argument(at + 1)) {
                    Ok(text) => name = Some(text),
                    Err(error) => return replies.error(error),
                }
                at += 2;
            } else if command.is(at, "auth") && at + 2 < command.len() {
                return replies.error("ERR AUTH is not supported: this server has no users and no passwords");
            } else {
                return replies.error("ERR syntax error in HELLO");
            }
        }
        if let Some(name) = name {
            self.name = name;
        }
        replies.protocol = protocol;
        replies.map(7);
        replies.bulk(b"server");
        replies.bulk(b"coracle");
        replies.bulk(b"version");
        replies.bulk(env!("CARGO_PKG_VERSION").as_bytes());
        replies.bulk(b"proto");
        replies.number(if protocol == Protocol::Resp3 { 3 } else { 2 });
        replies.bulk(b"id");
        replies.number(self.id as i64);
        // A client need not know about the cluster: it may use any node as if it were the only one.
        replies.bulk(b"mode");
        replies.bulk(b"standalone");
        replies.bulk(b"role");
        replies.bulk(b"master");
        replies.bulk(b"modules");
        replies.array(0);
    }

    fn client(&mut self, command: &Command, replies: &mut Replies) {
        let arity = command.len();
        let wrong = |name: &str| wrong_arity(&format!("client|{name}"));
        if command.is(1, "setname") {
            match (arity, checked_name(command.argument(2))) {
                (3, Ok(name)) => {
                    self.name = name;
                    replies.simple("OK");
                }
                (3, Err(error)) => replies.error(error),
                _ => replies.error(&wrong("setname")),
            }
        } else if command.is(1, "getname") {
            replies.value(Some(&self.name[..]).filter(|name| !name.is_empty()));
        } else if command.is(1, "setinfo") {
            // The client's library and its version: of no use here.
            if arity != 4 {
                replies.error(&wrong("setinfo"));
            } else if command.is(2, "lib-name") || command.is(2, "lib-ver") {
                replies.simple("OK");
            } else {
                replies.error("ERR Unrecognized option for CLIENT SETINFO");
            }
        } else if command.is(1, "id") {
            replies.number(self.id as i64);
        } else if command.is(1, "info") {
            let name = String::from_utf8_lossy(&self.name);
            let protocol = if replies.protocol == Protocol::Resp3 { 3 } else { 2 };
            replies.bulk(format!("id={} name={name} db=0 resp={protocol}\n", self.id).as_bytes());
        } else if command.is(1, "no-evict") || command.is(1, "no-touch") {
            // Nothing is evicted here, and nothing remembers when it was touched.
            replies.simple("OK");
        } else {
            replies.error(&unknown_subcommand(command));
        }
    }

    /// `CONFIG GET pattern…`, for the two settings that redis-benchmark asks about.
    fn config(&self, command: &Command, replies: &mut Replies) {
        if !command.is(1, "get") {
            return replies.error(&unknown_subcommand(command));
        }
        if command.len() < 3 {
            return replies.error(&wrong_arity("config|get"));
        }
        let durable = if self.about.durable { "yes" } else { "no" };
        let settings = [("save", ""), ("appendonly", durable)];
        let asked = |name: &str| (2..command.len()).any(|i| command.is(i, name) || command.is(i, "*"));
        let shown: Vec<_> = settings.into_iter().filter(|(name, _)| asked(name)).collect();
        replies.map(shown.len());
        for (name, value) in shown {
            replies.bulk(name.as_bytes());
            replies.bulk(value.as_bytes());
        }
    }

    fn info(&self) -> String {
        let About { node, port, clients, commands, replies, .. } = &*self.about;
        format!(
            "# Server\r\ncoracle_version:{}\r\ncoracle_node:{node}\r\nprocess_id:{}\r\ntcp_port:{port}\r\n\
             # Clients\r\nconnected_clients:{}\r\nmaxclients:{}\r\n\
             command_bytes:{}\r\nmax_command_bytes:{}\r\nreply_bytes:{}\r\nmax_reply_bytes:{}\r\n\
             # More\r\nsee:CORACLE STATUS\r\n",
            env!("CARGO_PKG_VERSION"),
            std::process::id(),
            clients.held(),
            clients.limit(),
            commands.held(),
            commands.limit(),
            replies.held(),
            replies.limit(),
        )
    }
}

/// Names show up in lists, so they are printable and without spaces, as in redis.
fn checked_name(name: &[u8]) -> Result<Vec<u8>, &'static str> {
    if name.len() > MAX_NAME {
        Err("ERR Client names cannot be longer than 1024 bytes")
    } else if !name.iter().all(u8::is_ascii_graphic) {
        Err("ERR Client names cannot contain spaces, newlines or special characters.")
    } else {
        Ok(name.to_vec())
    }
}

/// `COMMAND`, `COMMAND COUNT`, `COMMAND INFO name…`, `COMMAND LIST` and `COMMAND DOCS`.
fn table(command: &Command, replies: &mut Replies) {
    if command.len() == 1 {
        replies.array(COMMANDS.len());
        COMMANDS.iter().for_each(|known| describe(known, replies));
    } else if command.is(1, "count") {
        replies.number(COMMANDS.len() as i64);
    } else if command.is(1, "list") {
        replies.array(COMMANDS.len());
        COMMANDS.iter().for_each(|known| replies.bulk(known.name.as_bytes()));
    } else if command.is(1, "info") {
        replies.array(command.len() - 2);
        for i in 2..command.len() {
            match commands::find(command.argument(i)) {
                Some(known) => describe(known, replies),
                None => replies.null(),
            }
        }
    } else if command.is(1, "docs") {
        // The manual is elsewhere; an empty map is a true, if short, answer.
        replies.map(0);
    } else {
        replies.error(&unknown_subcommand(command));
    }
}

fn describe(known: &Known, replies: &mut Replies) {
    replies.array(6);
    replies.bulk(known.name.as_bytes());
    replies.number(known.arity);
    replies.array(known.flags.len());
    known.flags.iter().for_each(|flag| replies.simple(flag));
    replies.number(known.keys.0);
    replies.number(known.keys.1);
    replies.number(known.keys.2);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::{Request, parse};
    use crate::resp::Parser;

    fn session() -> Session {
        let budget = || Budget::new(10);
        let (clients, commands, replies) = (budget(), budget(), budget());
        Session::new(7, Arc::new(About { node: 1, durable: true, port: 6401, clients, commands, replies }))
    }

    /// What comes back for a command on a connection that goes on.
    fn ask(session: &mut Session, replies: &mut Replies, line: &str) -> String {
        let line = format!("{line}\n");
        match parse(Parser::new().next(&mut line.as_bytes()).unwrap().unwrap()) {
            Request::Session(name, command) => session.answer(name, &command, replies),
            Request::Refuse(error) => replies.error(&error),
            other => panic!("{other:?}"),
        }
        String::from_utf8(std::mem::take(&mut replies.bytes)).unwrap()
    }

    #[test]
    fn hello_changes_the_dialect_only_when_all_of_it_is_right() {
        let (mut session, mut replies) = (session(), Replies::default());
        let mut ask = |line: &str| ask(&mut session, &mut replies, line);
        assert!(ask("HELLO").starts_with("*14\r\n$6\r\nserver\r\n"));
        assert_eq!(ask("HELLO 4"), "-NOPROTO unsupported protocol version\r\n");
        assert!(ask("HELLO 3 AUTH user secret").starts_with("-ERR AUTH is not supported"));
        assert!(ask("HELLO 3 SETNAME").starts_with("-ERR syntax error"));
        assert_eq!(ask("CLIENT GETNAME"), "$-1\r\n", "still RESP2");
        assert!(ask("HELLO 3 SETNAME me").starts_with("%7\r\n"));
        assert_eq!(ask("CLIENT GETNAME"), "$2\r\nme\r\n");
        assert_eq!(ask("RESET"), "+RESET\r\n");
        assert_eq!(ask("CLIENT GETNAME"), "$-1\r\n", "RESP2 again, without a name");
    }

    #[test]
    fn greetings_of_common_clients_are_answered() {
        let (mut session, mut replies) = (session(), Replies::default());
        let mut ask = |line: &str| ask(&mut session, &mut replies, line);
        assert_eq!(ask("PING"), "+PONG\r\n");
        assert_eq!(ask("PING hi"), "$2\r\nhi\r\n");
        assert_eq!(ask("PING a b"), "-ERR wrong number of arguments for 'ping' command\r\n");
        assert_eq!(ask("CLIENT SETINFO LIB-NAME redis-rs"), "+OK\r\n");
        assert_eq!(ask("CLIENT ID"), ":7\r\n");
        assert!(ask("CLIENT KILL x").starts_with("-ERR unknown subcommand 'KILL'"));
        assert_eq!(ask("CONFIG GET save"), "*2\r\n$4\r\nsave\r\n$0\r\n\r\n");
        assert_eq!(ask("CONFIG GET appendonly"), "*2\r\n$10\r\nappendonly\r\n$3\r\nyes\r\n");
        assert_eq!(ask("CONFIG GET maxmemory"), "*0\r\n");
        assert_eq!(ask("COMMAND DOCS"), "*0\r\n");
        assert_eq!(ask("COMMAND COUNT"), format!(":{}\r\n", COMMANDS.len()));
        assert!(ask("COMMAND").starts_with(&format!("*{}\r\n*6\r\n", COMMANDS.len())));
        assert!(ask("COMMAND INFO get nosuch").ends_with(":1\r\n:1\r\n:1\r\n$-1\r\n"));
        assert_eq!(ask("SELECT 0"), "+OK\r\n");
        assert_eq!(ask("SELECT 1"), "-ERR DB index is out of range\r\n");
    }
}
