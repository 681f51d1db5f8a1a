//! What a connection remembers, and the commands that concern nothing else.
//!
//! Clients greet a server before they use it: redis-cli asks for the COMMAND table and greets with HELLO 3,
//! redis-benchmark asks CONFIG GET, libraries send CLIENT SETINFO. The answers here are enough to content
//! them and say nothing that is not so. No answer needs the cluster.

mod info;
mod manual;
mod settings;

use crate::accounts::Account;
use crate::clients::{Clients, Listed, Wanted};
use crate::commands::{unknown_subcommand, wrong_arity};
use crate::figures::Figures;
use crate::kv;
use crate::monitor::Served;
use crate::passwords::Login;
use crate::resp::{Command, Protocol, Replies};
use crate::secret::Secret;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The version of redis whose answers these are, as clients ask for it.
pub const DIALECT: &str = "7.0.15";

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
    /// What all clients hold.
    pub all: Arc<Account>,
    /// What was served.
    pub served: Served,
    /// How many keys the machine has.
    pub figures: Figures,
    /// With how many bytes of keys and values nothing more is taken; 0: never.
    pub max_memory: AtomicU64,
    /// Who is connected.
    pub clients: Arc<Clients>,
    /// How many came.
    pub came: AtomicU64,
    /// When it was started.
    pub since: Instant,
    /// Whether the machine still applies what its log held then.
    pub loading: AtomicBool,
}

impl About {
    /// A server that has just started.
    pub fn new(node: u64, durable: bool, port: u16, all: Arc<Account>) -> About {
        About {
            node,
            durable,
            port,
            all,
            served: Served::default(),
            figures: Figures::default(),
            max_memory: AtomicU64::new(0),
            clients: Arc::default(),
            came: AtomicU64::new(0),
            since: Instant::now(),
            loading: AtomicBool::new(false),
        }
    }

    /// Whether the machine still applies what its log held at the start.
    pub(crate) fn is_loading(&self) -> bool {
        self.loading.load(Ordering::Relaxed)
    }

    /// How much memory the keys and values may have; 0: all.
    pub(crate) fn memory_limit(&self) -> u64 {
        self.max_memory.load(Ordering::Relaxed)
    }

    /// Whether the keys and values have as much memory as they may.
    pub(crate) fn is_full(&self) -> bool {
        let limit = self.memory_limit();
        limit > 0 && self.figures.bytes() >= limit
    }
}

/// A greeting: `HELLO [version [AUTH user password] [SETNAME name]]`.
#[derive(Debug)]
pub(crate) struct Hello {
    protocol: Option<Protocol>,
    /// Who the client says that it is.
    pub(crate) login: Option<Login>,
    name: Option<Vec<u8>>,
}

impl Hello {
    /// All of it is right, or the text of an error.
    pub(crate) fn parse(command: &Command) -> Result<Hello, &'static str> {
        let mut hello = Hello { protocol: None, login: None, name: None };
        if command.len() > 1 {
            hello.protocol = match kv::number(command.argument(1)) {
                Some(2) => Some(Protocol::Resp2),
                Some(3) => Some(Protocol::Resp3),
                Some(_) => return Err("NOPROTO unsupported protocol version"),
                None => return Err("ERR Protocol version is not an integer or out of range"),
            };
        }
        let mut at = 2;
        while at < command.len() {
            if command.is(at, "setname") && at + 1 < command.len() {
                hello.name = Some(checked_name(command.argument(at + 1))?);
                at += 2;
            } else if command.is(at, "auth") && at + 2 < command.len() {
                let (user, password) = (command.share(at + 1), Secret::new(command.argument(at + 2)));
                hello.login = Some(Login { user: Some(user), password });
                at += 3;
            } else {
                return Err("ERR syntax error in HELLO");
            }
        }
        Ok(hello)
    }
}

/// One client's connection, as it sees itself.
#[derive(Debug)]
pub struct Session {
    listed: Listed,
    name: Vec<u8>,
    about: Arc<About>,
    /// The database that it has chosen.
    pub database: u8,
}

impl Session {
    /// A fresh connection.
    pub(crate) fn new(listed: Listed, about: Arc<About>) -> Session {
        Session { listed, name: Vec::new(), about, database: 0 }
    }

    /// Its place in the list of all.
    pub(crate) fn listed(&self) -> &Listed {
        &self.listed
    }

    /// Answers a command that is in the table with its number of arguments checked.
    pub fn answer(&mut self, name: &'static str, command: &Command, replies: &mut Replies) {
        match name {
            "ping" => match command.len() {
                1 => replies.simple("PONG"),
                2 => replies.bulk(command.argument(1)),
                _ => replies.error(&wrong_arity("ping")),
            },
            "echo" => replies.bulk(command.argument(1)),
            "client" => self.client(command, replies),
            "command" => manual::answer(command, replies),
            "config" => settings::answer(&self.about, command, replies),
            "info" => {
                let asked: Vec<_> = (1..command.len().min(17))
                    .map(|at| String::from_utf8_lossy(command.argument(at)).to_lowercase())
                    .collect();
                replies.verbatim(&info::text(&self.about, &asked));
            }
            "time" => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                replies.array(2);
                replies.bulk(now.as_secs().to_string().as_bytes());
                replies.bulk(now.subsec_micros().to_string().as_bytes());
            }
            // Every node takes writes, and nobody follows it in redis's way.
            "role" => {
                replies.array(3);
                replies.bulk(b"master");
                replies.number(0);
                replies.array(0);
            }
            "reset" => {
                self.call(Vec::new());
                self.database = 0;
                replies.protocol = Protocol::Resp2;
                replies.simple("RESET");
            }
            other => replies.error(&format!("ERR '{other}' is not served here")),
        }
    }

    fn call(&mut self, name: Vec<u8>) {
        self.listed.named(&name);
        self.name = name;
    }

    /// Answers a greeting, and from now on in the dialect that it asks for.
    pub(crate) fn greet(&mut self, hello: Hello, replies: &mut Replies) {
        if let Some(name) = hello.name {
            self.call(name);
        }
        let protocol = hello.protocol.unwrap_or(replies.protocol);
        replies.protocol = protocol;
        replies.map(7);
        replies.bulk(b"server");
        replies.bulk(b"coracle");
        replies.bulk(b"version");
        replies.bulk(DIALECT.as_bytes());
        replies.bulk(b"proto");
        replies.number(if protocol == Protocol::Resp3 { 3 } else { 2 });
        replies.bulk(b"id");
        replies.number(self.listed.id as i64);
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
                    self.call(name);
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
        } else if (command.is(1, "id") || command.is(1, "info")) && arity != 2 {
            replies.error(&wrong(if command.is(1, "id") { "id" } else { "info" }));
        } else if command.is(1, "id") {
            replies.number(self.listed.id as i64);
        } else if command.is(1, "info") {
            let protocol = if replies.protocol == Protocol::Resp3 { 3 } else { 2 };
            replies.verbatim(&format!("{} resp={protocol}\n", self.listed.line()));
        } else if command.is(1, "list") {
            match arity {
                2 => replies.verbatim(&self.about.clients.lines()),
                // All are of the usual kind.
                4 if command.is(2, "type") && command.is(3, "normal") => {
                    replies.verbatim(&self.about.clients.lines());
                }
                _ => replies.error("ERR syntax error: CLIENT LIST [TYPE normal] is served here"),
            }
        } else if command.is(1, "kill") && arity == 2 {
            replies.error(&wrong("kill"));
        } else if command.is(1, "kill") {
            self.kill(command, replies);
        } else if command.is(1, "no-evict") || command.is(1, "no-touch") {
            // Nothing is evicted here, and nothing remembers when it was touched.
            replies.simple("OK");
        } else {
            replies.error(&unknown_subcommand(command));
        }
    }

    /// `CLIENT KILL address`, and `CLIENT KILL [ID number] [ADDR address] [USER name] [SKIPME yes | no]`.
    fn kill(&self, command: &Command, replies: &mut Replies) {
        let text = |at: usize| String::from_utf8_lossy(command.argument(at)).into_owned();
        if command.len() == 3 {
            let from = text(2).parse().ok();
            let killed = from
                .map_or(0, |from| self.about.clients.kill(&Wanted { from: Some(from), ..Wanted::default() }));
            return if killed > 0 { replies.simple("OK") } else { replies.error("ERR No such client") };
        }
        let mut wanted = Wanted { but: Some(self.listed.id), ..Wanted::default() };
        for at in (2..command.len()).step_by(2) {
            let understood = if at + 1 == command.len() {
                false
            } else if command.is(at, "id") {
                wanted.id = text(at + 1).parse().ok();
                wanted.id.is_some()
            } else if command.is(at, "addr") {
                wanted.from = text(at + 1).parse().ok();
                wanted.from.is_some()
            } else if command.is(at, "user") {
                wanted.user = Some(text(at + 1));
                true
            } else if command.is(at, "skipme") && command.is(at + 1, "no") {
                wanted.but = None;
                true
            } else {
                command.is(at, "skipme") && command.is(at + 1, "yes")
            };
            if !understood {
                return replies.error("ERR syntax error");
            }
        }
        replies.number(self.about.clients.kill(&wanted) as i64);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::{COMMANDS, Request, parse};
    use crate::resp::Parser;

    fn session() -> Session {
        let about = Arc::new(About::new(1, true, 6401, Arc::new(Account::new(10, 10, 10))));
        Session::new(about.clients.enter(7, "127.0.0.1:1000".parse().unwrap()), about)
    }

    /// What comes back for a command on a connection that goes on.
    fn ask(session: &mut Session, replies: &mut Replies, line: &str) -> String {
        let line = format!("{line}\n");
        match parse(Parser::new().next(&mut line.as_bytes()).unwrap().unwrap()) {
            Request::Session(name, command) => session.answer(name, &command, replies),
            Request::Hello(command) => match Hello::parse(&command) {
                Ok(hello) => {
                    assert_eq!(hello.login.is_some(), line.contains("AUTH"));
                    session.greet(hello, replies);
                }
                Err(error) => replies.error(error),
            },
            Request::Refuse(error) | Request::Reject(error) => replies.error(&error),
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
        assert!(ask("HELLO 2 AUTH user secret SETNAME you").starts_with("*14"));
        assert!(ask("HELLO 3 AUTH user").starts_with("-ERR syntax error"));
        assert!(ask("HELLO 3 SETNAME").starts_with("-ERR syntax error"));
        assert_eq!(ask("CLIENT GETNAME"), "$3\r\nyou\r\n");
        assert_eq!(ask("RESET"), "+RESET\r\n");
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
        assert_eq!(ask("CLIENT KILL x"), "-ERR No such client\r\n");
        assert_eq!(ask("CLIENT KILL ID 7"), ":0\r\n", "not itself");
        assert_eq!(ask("CLIENT KILL ID 7 SKIPME no"), ":1\r\n");
        assert_eq!(ask("CLIENT KILL ID 7 USER"), "-ERR syntax error\r\n");
        assert_eq!(ask("CLIENT KILL"), "-ERR wrong number of arguments for 'client|kill' command\r\n");
        assert!(ask("CLIENT LIST ID 99").starts_with("-ERR syntax error"));
        assert!(ask("CLIENT LIST TYPE normal").contains("id=7 "));
        assert_eq!(ask("CLIENT ID x"), "-ERR wrong number of arguments for 'client|id' command\r\n");
        assert_eq!(ask("CONFIG GET save"), "*2\r\n$4\r\nsave\r\n$0\r\n\r\n");
        assert_eq!(ask("CONFIG GET appendonly"), "*2\r\n$10\r\nappendonly\r\n$3\r\nyes\r\n");
        assert_eq!(ask("CONFIG GET maxmemory"), "*2\r\n$9\r\nmaxmemory\r\n$1\r\n0\r\n");
        assert_eq!(ask("CONFIG GET nosuch"), "*0\r\n");
        assert!(ask("CONFIG GET *max*").starts_with("*8\r\n"));
        assert!(ask("CONFIG SET maxclients 1").contains("set by --max-clients"));
        assert_eq!(ask("CONFIG SET maxmemory 1mb"), "+OK\r\n");
        assert_eq!(ask("CONFIG GET maxmemory"), "*2\r\n$9\r\nmaxmemory\r\n$7\r\n1048576\r\n");
        assert!(ask("COMMAND DOCS get nosuch").starts_with("*2\r\n$3\r\nget\r\n*4\r\n$7\r\nsummary\r\n"));
        assert_eq!(ask("COMMAND GETKEYS MSET a 1 b 2"), "*2\r\n$1\r\na\r\n$1\r\nb\r\n");
        assert_eq!(ask("COMMAND GETKEYS PING"), "-ERR The command has no key arguments\r\n");
        assert_eq!(ask("COMMAND COUNT"), format!(":{}\r\n", COMMANDS.len()));
        assert!(ask("COMMAND").starts_with(&format!("*{}\r\n*10\r\n", COMMANDS.len())));
        assert!(ask("COMMAND INFO get nosuch").ends_with("*0\r\n*0\r\n*0\r\n$-1\r\n"));
    }
}
