//! Users, with whole processes: who gets in, who may do what, and what becomes of it over removals, restarts and nodes.

#[path = "users/protected.rs"]
mod protected;
mod support;

use coracle_server::client::{Client, Value};
use coracle_server::cluster::{Cluster, Interrupt, Program, free_port, report};
use rustix::net::{AddressFamily, SocketType};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use support::*;

const SECRETS: [&str; 3] = ["root-sesame", "ann-sesame", "ben-sesame"];

/// Runs a command of the program with these variables in its environment.
fn coracle(words: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(CORACLE);
    command.args(words).envs(environment.iter().copied()).stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn refused(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

const ROOT: [(&str, &str); 2] = [("CORACLE_USER", "root"), ("CORACLE_PASSWORD", SECRETS[0])];

/// Changes users as their administrator.
fn users(to: &str, words: &[&str], password: &str) -> String {
    let words: Vec<&str> = ["users"].into_iter().chain(words.iter().copied()).chain(["--to", to]).collect();
    said(&coracle(&words, &[ROOT[0], ROOT[1], ("CORACLE_NEW_PASSWORD", password)]))
}

/// Makes `root`, who may do everything, `ann`, who writes what begins with `a:`, and `ben`, who reads that.
fn with_users(to: &str) {
    let first = ["users", "add", "root", "--role", "admin", "--to", to];
    assert_eq!(said(&coracle(&first, &[("CORACLE_PASSWORD", SECRETS[0])])), "done: user root was added");
    users(to, &["add", "ann", "--role", "write", "--prefix", "a:"], SECRETS[1]);
    users(to, &["add", "ben", "--role", "read", "--prefix", "a:"], SECRETS[2]);
}

fn connect(address: &str) -> Client {
    Client::connect(address, LONG).unwrap()
}

fn connect_as(address: &str, user: &str, password: &str) -> Client {
    let mut client = connect(address);
    assert_eq!(ask(&mut client, &format!("AUTH {user} {password}")), Value::Simple("OK".into()));
    client
}

/// The first word of an error; nothing of any other answer.
fn kind(value: &Value) -> &str {
    match value {
        Value::Error(error) => error.split(' ').next().unwrap(),
        _ => "",
    }
}

fn word(text: &str) -> Value {
    Value::Bulk(text.into())
}

/// What a command takes.
#[derive(Clone, Copy, PartialEq)]
enum Takes {
    Nothing,
    AnyUser,
    /// Of keys that begin with `a:`.
    Read,
    Write,
    /// An administrator, or a user of other keys.
    More,
}

use Takes::{AnyUser, More, Nothing, Read, Write};

const COMMANDS: &[(Takes, &str)] = &[
    (Nothing, "PING"),
    (Nothing, "HELLO"),
    (Nothing, "HELLO 2"),
    (AnyUser, "ACL WHOAMI"),
    (AnyUser, "ECHO x"),
    (AnyUser, "INFO"),
    (AnyUser, "CLIENT ID"),
    (AnyUser, "COMMAND COUNT"),
    (AnyUser, "CONFIG GET save"),
    (AnyUser, "SELECT 0"),
    (AnyUser, "TIME"),
    (AnyUser, "ROLE"),
    (AnyUser, "WAIT 0 0"),
    (Read, "SCAN 0"),
    (Read, "KEYS *"),
    (Read, "DBSIZE"),
    (Read, "RANDOMKEY"),
    (Read, "TTL a:k"),
    (Read, "TYPE a:k"),
    (Read, "STRLEN a:k"),
    (Read, "HGETALL a:h"),
    (Read, "WATCH a:k"),
    (AnyUser, "UNWATCH"),
    (More, "TTL b:k"),
    (More, "HGETALL b:h"),
    (More, "WATCH b:k"),
    (Write, "SET a:k v EX 1000"),
    (Write, "SETRANGE a:k 0 w"),
    (Write, "EXPIRE a:k 1000"),
    (Write, "HSET a:h f v"),
    (Write, "RENAME a:h a:i"),
    (Write, "COPY a:i a:h DB 3"),
    (More, "HSET b:h f v"),
    (More, "RENAME a:i b:i"),
    (More, "COPY a:i b:i"),
    (More, "EXPIRE b:k 1000"),
    (More, "FLUSHDB"),
    (More, "FLUSHALL"),
    (More, "CLIENT LIST"),
    (More, "CONFIG SET maxmemory 0"),
    (More, "CLIENT KILL ID 99"),
    (AnyUser, "CORACLE HEALTH"),
    (Read, "GET a:k"),
    (Read, "EXISTS a:k a:l"),
    (Read, "MGET a:k a:l"),
    (More, "GET b:k"),
    (More, "MGET a:k b:k"),
    (More, "EXISTS a:k b:k"),
    (Write, "SET a:k v"),
    (Write, "SET a:k v GET"),
    (Write, "APPEND a:k v"),
    (Write, "INCR a:n"),
    (Write, "INCRBY a:n 2"),
    (Write, "DEL a:n a:m"),
    (Write, "MSET a:1 v a:2 v"),
    (More, "SET b:k v"),
    (More, "APPEND b:k v"),
    (More, "INCR b:n"),
    (More, "DEL a:n b:n"),
    (More, "MSET a:1 v b:1 v"),
    (More, "CORACLE STATUS"),
    (More, "CORACLE SNAPSHOT"),
    (More, "CORACLE BACKUP"),
    (More, "CORACLE MEMBERS INIT 9=127.0.0.1:1"),
    (More, "CORACLE MEMBERS REMOVE 9"),
    (More, "CORACLE MEMBERS TRANSFER"),
    (More, "CORACLE ENTRY SKIP 1000.1"),
    (More, "CORACLE REBUILD 1"),
    (More, "CORACLE USERS LIST"),
    (More, "CORACLE USERS REMOVE nobody"),
    (More, "CORACLE USERS GRANT ben read a:"),
];

#[test]
fn each_role_may_do_what_it_may_and_nobody_else() {
    let (cluster, _directory) = formed(1, &[]);
    let to = &cluster.node(1).place.client_addr;
    with_users(to);
    let (mut nobody, mut root) = (connect(to), connect_as(to, "root", SECRETS[0]));
    let (mut ben, mut ann) = (connect_as(to, "ben", SECRETS[2]), connect_as(to, "ann", SECRETS[1]));
    for &(takes, command) in COMMANDS {
        for (client, may, refusal) in [
            (&mut nobody, &[Nothing][..], "NOAUTH"),
            (&mut ben, &[Nothing, AnyUser, Read], "NOPERM"),
            (&mut ann, &[Nothing, AnyUser, Read, Write], "NOPERM"),
            (&mut root, &[Nothing, AnyUser, Read, Write, More], ""),
        ] {
            let answer = ask(client, command);
            match may.contains(&takes) {
                true => assert!(!["NOAUTH", "NOPERM"].contains(&kind(&answer)), "{command}: {answer:?}"),
                false => assert_eq!(kind(&answer), refusal, "{command}: {answer:?}"),
            }
        }
    }
    assert_eq!(ask(&mut root, "GET a:2"), word("v"));
    assert_eq!(ask(&mut ann, "ACL WHOAMI"), word("ann"));
    // In a transaction, too: what may not be asked refuses the whole.
    for (line, answer) in [("MULTI", ""), ("SET a:k w", ""), ("SET b:k w", "NOPERM"), ("EXEC", "EXECABORT")] {
        assert_eq!(kind(&ask(&mut ann, line)), answer, "{line}");
    }
    assert_ne!(ask(&mut ann, "GET a:k"), word("w"));
    assert_eq!(error(ask(&mut nobody, "GET a:k")), "NOAUTH Authentication required.");
    assert_eq!(error(ask(&mut ben, "GET b:k")), "NOPERM No permissions to access a key");
    assert!(
        error(ask(&mut ben, "SET a:k v"))
            .starts_with("NOPERM User ben has no permissions to run this command")
    );
    // A batch stops nowhere: each command of it is answered by itself.
    let batch: Vec<Vec<&[u8]>> = ["SET a:1 x", "SET b:1 x", "GET a:1", "GET b:1", "INCR a:n"]
        .iter()
        .map(|line| line.split(' ').map(str::as_bytes).collect())
        .collect();
    ann.send(&batch.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
    let answers: Vec<Value> = batch.iter().map(|_| ann.receive().unwrap()).collect();
    assert_eq!(answers.iter().map(kind).collect::<Vec<_>>(), ["", "NOPERM", "", "NOPERM", ""]);
    assert_eq!(answers[2], word("x"));
}

#[test]
fn whoever_may_see_some_keys_sees_no_other_names_and_empties_nothing() {
    let (cluster, _directory) = formed(1, &[]);
    let to = &cluster.node(1).place.client_addr;
    with_users(to);
    let (mut root, mut ann) = (connect_as(to, "root", SECRETS[0]), connect_as(to, "ann", SECRETS[1]));
    for key in ["a:1", "b:1", "c"] {
        ask(&mut root, &format!("SET {key} v"));
    }
    assert_eq!(ask(&mut ann, "KEYS *"), Value::Array(vec![word("a:1")]));
    assert_eq!(
        ask(&mut ann, "SCAN 0 COUNT 100"),
        Value::Array(vec![word("0"), Value::Array(vec![word("a:1")])])
    );
    (0..20).for_each(|_| assert_eq!(ask(&mut ann, "RANDOMKEY"), word("a:1")));
    // Not even by an administrator who has some keys alone.
    let grant = ask(&mut root, "CORACLE USERS GRANT ann admin a:");
    assert!(matches!(grant, Value::Simple(_)), "{grant:?}");
    assert_eq!(kind(&ask(&mut ann, "FLUSHALL")), "NOPERM");
    assert_eq!(ask(&mut root, "DBSIZE"), Value::Number(3));
    assert_eq!(ask(&mut root, "FLUSHDB"), Value::Simple("OK".into()));
    assert_eq!(ask(&mut root, "DBSIZE"), Value::Number(0));
}

#[test]
fn whoever_says_who_it_is_is_answered_as_by_redis() {
    let (cluster, directory) = formed(1, &[]);
    let to = &cluster.node(1).place.client_addr;
    let mut client = connect(to);
    let wrong = "WRONGPASS invalid username-password pair or user is disabled.";
    // Without users.
    assert!(
        error(ask(&mut client, "AUTH x"))
            .starts_with("ERR AUTH <password> called without any password configured")
    );
    assert_eq!(ask(&mut client, "AUTH default x"), Value::Simple("OK".into()));
    assert_eq!(error(ask(&mut client, "AUTH ann x")), wrong);
    assert_eq!(ask(&mut client, "ACL WHOAMI"), word("default"));
    with_users(to);
    assert_eq!(kind(&ask(&mut client, "ACL WHOAMI")), "NOAUTH");
    for line in [
        "AUTH ann-sesame",
        "AUTH ann root-sesame",
        "AUTH nobody ann-sesame",
        "AUTH ann ",
        "AUTH ANN ann-sesame",
    ] {
        assert_eq!(error(ask(&mut client, line)), wrong, "{line}");
        assert_eq!(kind(&ask(&mut client, "GET a:k")), "NOAUTH");
    }
    let long = format!("AUTH ann {}", "x".repeat(1025));
    assert_eq!(error(ask(&mut client, &long)), wrong);
    assert_eq!(error(ask(&mut client, "AUTH")), "ERR wrong number of arguments for 'auth' command");
    assert_eq!(error(ask(&mut client, "AUTH a b c")), "ERR syntax error");
    assert_eq!(ask(&mut client, "AUTH ann ann-sesame"), Value::Simple("OK".into()));
    assert_eq!(error(ask(&mut client, "AUTH ann no")), wrong);
    assert_eq!(ask(&mut client, "ACL WHOAMI"), word("ann"), "it is who it was");
    assert_eq!(ask(&mut client, "RESET"), Value::Simple("RESET".into()));
    assert_eq!(kind(&ask(&mut client, "GET a:k")), "NOAUTH");
    // In one go, in the other dialect, and wrongly first.
    let said = last_words(
        to,
        b"HELLO 3 AUTH ben no SETNAME me\r\nHELLO 3 AUTH ben ben-sesame SETNAME me\r\nACL WHOAMI\r\nCLIENT GETNAME\r\nSET a:k v\r\nQUIT\r\n",
    );
    assert!(said.starts_with(&format!("-{wrong}\r\n%7\r\n")), "{said}");
    assert!(said.contains("$3\r\nben\r\n$2\r\nme\r\n-NOPERM") && said.ends_with("+OK\r\n"), "{said}");
    // Whom a password alone means.
    let file = directory.path().join("password");
    fs::write(&file, "of-default\n").unwrap();
    users(to, &["add", "default", "--role", "read", "--new-password-file", file.to_str().unwrap()], "");
    let said = last_words(to, b"AUTH of-default\r\nACL WHOAMI\r\nQUIT\r\n");
    assert_eq!(said, "+OK\r\n$7\r\ndefault\r\n+OK\r\n");
}

/// On every node, while the connection stays.
#[test]
fn whoever_is_removed_or_changed_loses_its_rights_at_its_next_command() {
    let (cluster, _directory) = formed(3, STEADY);
    let addresses = cluster.client_addresses();
    with_users(&addresses[0]);
    // Any node lets in whom another one knows.
    let each = || addresses.iter().map(|to| connect_as(to, "ann", SECRETS[1])).collect::<Vec<_>>();
    let mut clients = each();
    let mut ask_each = |line: &str| clients.iter_mut().map(|client| ask(client, line)).collect::<Vec<_>>();
    let kinds = |answers: Vec<Value>| answers.iter().map(kind).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(kinds(ask_each("SET a:k v")), ["", "", ""]);
    users(&addresses[1], &["grant", "ann", "--role", "read"], "");
    assert_eq!(kinds(ask_each("SET a:k v")), ["NOPERM"; 3]);
    assert_eq!(ask_each("GET a:k"), [word("v"), word("v"), word("v")]);
    users(&addresses[2], &["grant", "ann", "--role", "write", "--prefix", "b:"], "");
    assert_eq!(kinds(ask_each("GET a:k")), ["NOPERM"; 3]);
    assert_eq!(kinds(ask_each("SET b:k v")), ["", "", ""]);
    users(&addresses[0], &["password", "ann"], "another");
    assert_eq!(kinds(ask_each("GET b:k")), ["NOAUTH"; 3]);
    let mut again = connect_as(&addresses[1], "ann", "another");
    assert_eq!(ask(&mut again, "GET b:k"), word("v"));
    users(&addresses[0], &["remove", "ann"], "");
    assert_eq!(kind(&ask(&mut again, "SET b:k v")), "NOAUTH");
    // Another one of that name is another one.
    users(&addresses[0], &["add", "ann", "--role", "admin"], SECRETS[1]);
    assert_eq!(kind(&ask(&mut again, "GET b:k")), "NOAUTH");
    assert_eq!(kinds(ask_each("CORACLE STATUS")), ["NOAUTH"; 3]);
    for mut client in each() {
        assert_eq!(kind(&ask(&mut client, "CORACLE STATUS")), "");
    }
}

#[test]
fn users_are_there_after_restarts_and_in_snapshots() {
    let (mut cluster, _directory) = formed(3, &[]);
    let addresses = cluster.client_addresses();
    with_users(&addresses[0]);
    for address in &addresses {
        let mut root = connect_as(address, "root", SECRETS[0]);
        assert_eq!(kind(&ask(&mut root, "CORACLE SNAPSHOT")), "");
    }
    // After the snapshot, so in the log alone.
    users(&addresses[0], &["add", "eve", "--role", "read"], "eve-sesame");
    for _ in 0..2 {
        cluster.kill_all();
        cluster.ids().into_iter().for_each(|id| cluster.spawn(id).unwrap());
        cluster.ids().into_iter().for_each(|id| cluster.ready(id).unwrap());
        for address in &addresses {
            // From its first moment on a node gives nothing to nobody, whatever it knows.
            let mut nobody = connect(address);
            for line in
                ["GET a:k", "SET a:k v", "CORACLE BACKUP", "CORACLE USERS LIST", "CORACLE MEMBERS REMOVE 3"]
            {
                let answer = ask(&mut nobody, line);
                assert!(["NOAUTH", "CLUSTERDOWN"].contains(&kind(&answer)), "{line}: {answer:?}");
            }
            wait("somebody gets in", || {
                let mut client = connect(address);
                let answer = ask(&mut client, "AUTH eve eve-sesame");
                assert!(matches!(kind(&answer), "" | "CLUSTERDOWN" | "WRONGPASS"), "{answer:?}");
                (kind(&answer).is_empty() && kind(&ask(&mut client, "GET x")).is_empty()).then_some(())
            });
        }
        let listed = users(&addresses[1], &["list"], "");
        assert_eq!(listed, "ann write, a:\nben read, a:\neve read, all keys\nroot admin, all keys");
    }
}

/// Where only the log has them: a node that has just started knows of no users, and takes nobody for an administrator.
#[test]
fn a_node_that_knows_of_no_users_yet_gives_nothing_out() {
    let (mut cluster, _directory) = formed(3, &[]);
    let addresses = cluster.client_addresses();
    with_users(&addresses[0]);
    cluster.kill_all();
    // Alone it has no leader, and learns nothing.
    cluster.restart(1).unwrap();
    let mut nobody = connect(&addresses[0]);
    for line in ["CORACLE BACKUP", "CORACLE USERS LIST", "CORACLE MEMBERS REMOVE 3", "CORACLE REBUILD 1"] {
        let answer = error(ask(&mut nobody, line));
        assert!(answer.starts_with("NOTLEADER ? this node has not heard of a leader"), "{line}: {answer}");
    }
    for line in ["GET a:k", "SET a:k v", "AUTH root root-sesame"] {
        assert_eq!(kind(&ask(&mut nobody, line)), "CLUSTERDOWN", "{line}");
    }
    assert_eq!(kind(&ask(&mut nobody, "CORACLE STATUS")), "", "so that others find it");
    cluster.restart(2).unwrap();
    wait("it knows", || (kind(&ask(&mut nobody, "CORACLE STATUS")) == "NOAUTH").then_some(()));
    assert_eq!(kind(&ask(&mut nobody, "GET a:k")), "NOAUTH");
    assert_eq!(kind(&ask(&mut nobody, "CORACLE BACKUP")), "NOAUTH");
}

#[test]
fn nobody_locks_everybody_out() {
    let (cluster, _directory) = formed(1, &[]);
    let to = &cluster.node(1).place.client_addr;
    let first = |role| {
        coracle(&["users", "add", "root", "--role", role, "--to", to], &[("CORACLE_PASSWORD", SECRETS[0])])
    };
    assert!(refused(&first("write")).contains("there must be a user of the role admin"));
    assert_eq!(users_without_login(to), "there are no users");
    said(&first("admin"));
    users(to, &["add", "ann", "--role", "write"], SECRETS[1]);
    for words in [&["remove", "root"][..], &["grant", "root", "--role", "write"]] {
        let words: Vec<&str> =
            ["users"].into_iter().chain(words.iter().copied()).chain(["--to", to]).collect();
        assert!(refused(&coracle(&words, &ROOT)).contains("make another one admin first"));
    }
    users(to, &["remove", "ann"], "");
    users(to, &["remove", "root"], "");
    assert_eq!(users_without_login(to), "there are no users");
    assert_eq!(ask(&mut connect(to), "SET k v"), Value::Simple("OK".into()));
}

fn users_without_login(to: &str) -> String {
    said(&coracle(&["users", "list", "--to", to], &[]))
}

#[test]
fn every_command_says_who_asks_and_a_wrong_password_is_told_at_once() {
    let (cluster, directory) = formed(1, &[]);
    let to = cluster.node(1).place.client_addr.clone();
    with_users(&to);
    let file = directory.path().join("root.password");
    fs::write(&file, format!("{}\n", SECRETS[0])).unwrap();
    let root = ["--user", "root", "--password-file", file.to_str().unwrap()];
    let backup = directory.path().join("backup");
    let backup = backup.to_str().unwrap();
    let run = |words: &[&str], login: &[&str]| coracle(&[words, &["--to", &to], login].concat(), &[]);
    for words in [
        &["status"][..],
        &["snapshot"],
        &["members", "list"],
        &["members", "transfer", "--to-node", "1"],
        &["users", "list"],
        &["backup", backup],
        &["bench", "--seconds", "1", "--clients", "1"],
    ] {
        let without = run(words, &[]);
        if words[0] == "bench" {
            assert!(String::from_utf8_lossy(&without.stdout).contains("NOAUTH"), "{without:?}");
        } else {
            assert!(refused(&without).contains("NOAUTH Authentication required."), "{words:?}");
        }
        let with = run(words, &root);
        assert!(
            with.status.success() && !String::from_utf8_lossy(&with.stdout).contains("NOAUTH"),
            "{with:?}"
        );
    }
    let wrong =
        coracle(&["members", "demote", "1", "--to", &to, "--user", "root"], &[("CORACLE_PASSWORD", "no")]);
    assert!(refused(&wrong).contains("WRONGPASS invalid username-password pair"), "{wrong:?}");
    assert!(refused(&run(&["status"], &["--user", "root"])).contains("--password-file"));
    // Whoever is no administrator is told how the node is.
    let health = coracle(&["status", "--to", &to, "--user", "ben"], &[("CORACLE_PASSWORD", SECRETS[2])]);
    assert_eq!(said(&health), "node 1 is the leader, and ready; more is for administrators");
}

/// A process that ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Nodes join a cluster with users by what they know: the token, or an administrator's password.
#[test]
fn a_node_joins_a_cluster_with_users_by_the_token_or_as_an_administrator() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    fs::write(&token, "join-sesame\n").unwrap();
    let start = |id: &str, join: &[&str], environment: &[(&str, &str)]| {
        let [clients, peers] = [(); 2].map(|()| format!("127.0.0.1:{}", free_port().unwrap()));
        let mut command = Command::new(CORACLE);
        command.args(["serve", "--id", id, "--client-addr", &clients, "--peer-addr", &peers]).args(join);
        command.arg("--join-token-file").arg(&token).args(STEADY).envs(environment.iter().copied());
        command.arg("--data-dir").arg(directory.path().join(id)).stdout(Stdio::null());
        (Ends(command.spawn().unwrap()), clients, peers)
    };
    let (_one, first, peers) = start("1", &[], &[]);
    wait("the first node answers", || report(&first, LONG).ok());
    let init = |environment: &[(&str, &str)]| {
        coracle(&["members", "init", "--to", &first, &format!("1={peers}")], environment)
    };
    assert!(refused(&init(&[])).contains("has a join token"));
    said(&init(&[("CORACLE_JOIN_TOKEN", "join-sesame")]));
    // Where there is a token, it takes the token to begin.
    let first_user = ["users", "add", "root", "--role", "admin", "--to", &first];
    let password = ("CORACLE_PASSWORD", SECRETS[0]);
    assert!(refused(&coracle(&first_user, &[password])).contains("by whoever gives it"));
    said(&coracle(&first_user, &[password, ("CORACLE_JOIN_TOKEN", "join-sesame")]));
    let votes = |id: u64| {
        wait("the new node votes", || {
            let mut root = connect_as(&first, "root", SECRETS[0]);
            let Value::Bulk(json) = ask(&mut root, "CORACLE STATUS") else { return None };
            let report: coracle_server::report::Report = serde_json::from_slice(&json).unwrap();
            report.members.iter().any(|member| member.id == id && member.voter).then_some(())
        });
    };
    let (_two, second, _) = start("2", &["--join", &first], &[]);
    votes(2);
    // As an administrator, and with no token that anybody knows.
    fs::write(&token, "another\n").unwrap();
    let mut command = Command::new(CORACLE);
    let [clients, peers] = [(); 2].map(|()| format!("127.0.0.1:{}", free_port().unwrap()));
    command.args(["serve", "--id", "3", "--client-addr", &clients, "--peer-addr", &peers, "--join", &second]);
    command.args(STEADY).envs(ROOT).arg("--data-dir").arg(directory.path().join("3")).stdout(Stdio::null());
    let _three = Ends(command.spawn().unwrap());
    votes(3);
    // The token is an administrator's, on any command.
    let mut by_token = connect(&second);
    assert_eq!(
        error(ask(&mut by_token, "CORACLE TOKEN another")),
        "NOAUTH this is not the join token of this cluster"
    );
    assert_eq!(kind(&ask(&mut by_token, "CORACLE STATUS")), "NOAUTH");
    assert_eq!(ask(&mut by_token, "CORACLE TOKEN join-sesame"), Value::Simple("OK".into()));
    assert_eq!(ask(&mut by_token, "ACL WHOAMI"), word("(join token)"));
    assert_eq!(kind(&ask(&mut by_token, "SET k v")), "");
    let saved = coracle(
        &["users", "grant", "root", "--role", "admin", "--to", &second],
        &[("CORACLE_JOIN_TOKEN", "join-sesame")],
    );
    said(&saved);
}

/// A connection from another address of this computer.
fn connect_from(from: [u8; 4], to: &str) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from((from, 0))).unwrap();
    rustix::net::connect(&socket, &to.parse::<SocketAddr>().unwrap()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

/// Whoever guesses keeps only itself waiting: of what it sent before, at most two are looked at before the other's.
#[test]
fn two_hundred_wrong_passwords_from_one_address_keep_another_one_waiting_for_its_turn_alone() {
    let (cluster, _directory) = formed(1, &["--log", "coracle_server::passwords=debug"]);
    let to = &cluster.node(1).place.client_addr;
    with_users(to);
    let log = || fs::read_to_string(cluster.node(1).log()).unwrap();
    let guesses = 200;
    let mut guessers: Vec<TcpStream> = (0..guesses)
        .map(|_| {
            let mut stream = connect_from([127, 0, 0, 3], to);
            stream.write_all(b"AUTH root guess\r\nQUIT\r\n").unwrap();
            stream
        })
        .collect();
    wait("they wait", || {
        (log().matches("a password is to be checked from=127.0.0.3").count() > 50).then_some(())
    });
    let mut other = connect_from([127, 0, 0, 2], to);
    other.write_all(b"AUTH root root-sesame\r\nQUIT\r\n").unwrap();
    let mut said = String::new();
    other.read_to_string(&mut said).unwrap();
    assert_eq!(said, "+OK\r\n+OK\r\n");
    let (mut wrong, mut busy) = (0, 0);
    for guesser in &mut guessers {
        let mut said = String::new();
        guesser.read_to_string(&mut said).unwrap();
        match said.split(' ').next().unwrap() {
            "-WRONGPASS" => wrong += 1,
            "-BUSY" => busy += 1,
            _ => panic!("{said}"),
        }
    }
    assert!(wrong + busy == guesses && busy > 0, "{wrong} were looked at, {busy} not");
    let log = log();
    let between = log.split("a password is to be checked from=127.0.0.2").nth(1).unwrap();
    let between = between.split("checked a password from=127.0.0.2").next().unwrap();
    let before = between.matches("checked a password from=127.0.0.3").count();
    assert!(before <= 2, "{before} others came first");
}

/// Runs a command, and adds what it prints.
fn run(words: &[&str], environment: &[(&str, &str)], printed: &mut String) {
    let output = coracle(words, environment);
    *printed += &String::from_utf8_lossy(&output.stdout);
    *printed += &String::from_utf8_lossy(&output.stderr);
}

/// Everything that a server with known secrets and its clients print, at the most talkative.
#[test]
fn no_secret_is_in_anything_that_is_printed() {
    let token = "join-sesame";
    let plain = server_with(&["--log", "trace", "--join-token", "join-sesame"]);
    let program: Program = Arc::new(move |place| {
        let mut command = plain(place);
        command.env("CORACLE_PASSWORD", "of-the-environment");
        command
    });
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(directory.path(), vec![program], Interrupt::default()).unwrap();
    let place = cluster.node(1).place.clone();
    let to = &place.client_addr;
    let mut printed = String::new();
    let by_token = [("CORACLE_JOIN_TOKEN", token)];
    run(&["members", "init", "--to", to, &format!("1={}", place.peer_addr)], &by_token, &mut printed);
    cluster.leader().unwrap();
    let first = ["users", "add", "root", "--role", "admin", "--to", to];
    run(&first, &[by_token[0], ("CORACLE_PASSWORD", SECRETS[0])], &mut printed);
    run(
        &["users", "add", "ann", "--role", "read", "--to", to],
        &[ROOT[0], ROOT[1], ("CORACLE_NEW_PASSWORD", SECRETS[1])],
        &mut printed,
    );
    for line in ["status --json", "users list", "users list --json", "members list", "snapshot"] {
        let words: Vec<&str> = line.split(' ').chain(["--to", to]).collect();
        run(&words, &ROOT, &mut printed);
    }
    for line in ["--help", "serve --help", "users add --help", "status --help", "status --nonsense"] {
        let words: Vec<&str> = line.split(' ').collect();
        run(&words, &[ROOT[0], ROOT[1], by_token[0], ("CORACLE_NEW_PASSWORD", SECRETS[1])], &mut printed);
    }
    run(&["status", "--to", to], &[ROOT[0], ("CORACLE_PASSWORD", "wrong-sesame")], &mut printed);
    run(
        &["serve", "--id", "x", "--join-token", token, "--peer-addr", "a", "--client-addr", "b"],
        &[],
        &mut printed,
    );
    printed += &last_words(
        to,
        b"AUTH root wrong-sesame\r\nAUTH ann ann-sesame\r\nHELLO 3 AUTH ann wrong-sesame\r\nHELLO 3 AUTH ann ann-sesame X\r\n\
          CORACLE TOKEN wrong-sesame\r\nCORACLE TOKEN join-sesame\r\nCORACLE TOKEN join-sesame x\r\nINFO\r\nCLIENT INFO\r\n\
          ACL WHOAMI\r\nACL LIST\r\nCORACLE USERS LIST\r\nCORACLE USERS ADD eve read nonsense-sesame\r\nCORACLE STATUS\r\nQUIT\r\n",
    );
    run(&["log", "dump", place.directory.to_str().unwrap()], &[], &mut printed);
    run(&["log", "dump", "--json", place.directory.to_str().unwrap()], &[], &mut printed);
    let log = fs::read_to_string(cluster.node(1).log()).unwrap();
    assert!(log.contains("others on this computer can see the words of a command line"), "{log}");
    assert!(
        log.contains("checked a password")
            && printed.contains("user root was added")
            && printed.contains("WRONGPASS"),
        "{printed}"
    );
    for (what, text) in [("its log", &log), ("what was printed", &printed)] {
        let [root, ann, _] = SECRETS;
        for secret in [root, ann, token, "wrong-sesame", "nonsense-sesame", "of-the-environment", "$argon2id"]
        {
            let at = text.find(secret).map(|at| &text[at.saturating_sub(200)..text.len().min(at + 100)]);
            assert_eq!(at, None, "{secret} is in {what}");
        }
    }
}

/// Where the secrets of a command are to come from, and what is said of one that is not there.
#[test]
fn a_secret_that_is_not_there_is_told_by_its_file() {
    let missing = Path::new("/nonexistent/secret").to_str().unwrap();
    let serve = [
        "serve",
        "--id",
        "1",
        "--store",
        "memory",
        "--peer-addr",
        "127.0.0.1:0",
        "--client-addr",
        "127.0.0.1:0",
    ];
    let output = coracle(&[&serve[..], &["--join-token-file", missing]].concat(), &[]);
    assert!(refused(&output).contains("/nonexistent/secret: No such file"), "{output:?}");
    let output = coracle(&["users", "add", "x", "--role", "read", "--to", "127.0.0.1:1"], &[]);
    assert!(refused(&output).contains("no password for the user"), "{output:?}");
}
