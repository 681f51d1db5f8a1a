//! What those who come from Redis expect: its commands, answered as it answers them.

#[path = "redis/sequences.rs"]
mod sequences;
mod support;

use coracle_server::client::{Client, Value};
use coracle_server::cluster::{Cluster, REQUEST_LIMIT, free_port};
use sequences::{Words, sequence};
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::*;

/// How many commands one sequence has, about.
const LENGTH: usize = 24;

/// A redis-server of the distribution, without a disk.
struct Redis {
    child: Child,
    address: String,
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Redis {
    fn start(arguments: &[&str], directory: &std::path::Path) -> Redis {
        let port = free_port().unwrap();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(directory)
            .args(arguments)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is in the package redis-server");
        let redis = Redis { child, address: format!("127.0.0.1:{port}") };
        wait("the start of redis", || Client::connect(&redis.address, REQUEST_LIMIT).ok());
        redis
    }
}

fn client(cluster: &Cluster, id: u64) -> Client {
    Client::connect(&cluster.node(id).place.client_addr, REQUEST_LIMIT).unwrap()
}

fn tell(client: &mut Client, words: &Words) -> Value {
    let words: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
    client.ask(&words).unwrap()
}

fn bulk(text: &str) -> Value {
    Value::Bulk(text.as_bytes().to_vec())
}

/// Replies of which the order says nothing, or that count down, in a form that can be compared.
fn comparable(command: &Words, value: Value) -> Value {
    let by_name = |value: &Value| format!("{value:?}");
    match (command[0].to_uppercase().as_str(), value) {
        ("HKEYS" | "HVALS" | "HRANDFIELD", Value::Array(mut items)) => {
            items.sort_by_key(by_name);
            Value::Array(items)
        }
        ("HGETALL", Value::Array(items)) => {
            let mut pairs: Vec<_> = items.chunks(2).map(<[Value]>::to_vec).collect();
            pairs.sort_by_key(|pair| by_name(&pair[0]));
            Value::Array(pairs.concat())
        }
        (name @ ("SCAN" | "HSCAN"), Value::Array(mut parts)) => {
            if let Some(Value::Array(items)) = parts.get_mut(1) {
                let of = if name == "SCAN" { 1 } else { 2 };
                let mut groups: Vec<_> = items.chunks(of).map(<[Value]>::to_vec).collect();
                groups.sort_by_key(|group| by_name(&group[0]));
                *items = groups.concat();
            }
            Value::Array(parts)
        }
        // Of far away ends, which were said a moment ago.
        ("TTL", Value::Number(left @ 100..)) => Value::Number((left + 50) / 100),
        ("PTTL", Value::Number(left @ 100..)) => Value::Number((left + 50_000) / 100_000),
        ("EXPIRETIME", Value::Number(end)) if end < 3_999_999_999 => Value::Number(end.min(0)),
        ("PEXPIRETIME", Value::Number(end)) if end < 3_999_999_999_000 => Value::Number(end.min(0)),
        (_, other) => other,
    }
}

/// The same in transactions, whose commands are known.
fn compared(commands: &[Words], values: Vec<Value>) -> Vec<Value> {
    let mut queued: Vec<&Words> = Vec::new();
    let mut compared = Vec::new();
    for (command, value) in commands.iter().zip(values) {
        let name = command[0].to_uppercase();
        compared.push(match value {
            Value::Simple(text) if text == "QUEUED" => {
                queued.push(command);
                Value::Simple(text)
            }
            Value::Array(items) if name == "EXEC" => {
                let one = |(command, item): (&&Words, Value)| comparable(command, item);
                Value::Array(queued.iter().zip(items).map(one).collect())
            }
            other => comparable(command, other),
        });
        if matches!(&name[..], "EXEC" | "DISCARD") {
            queued.clear();
        }
    }
    compared
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(default)
}

#[test]
#[ignore = "needs the package redis-server"]
fn random_commands_are_answered_as_redis_answers_them() {
    let directory = tempfile::tempdir().unwrap();
    let redis = Redis::start(&["--appendonly", "no"], directory.path());
    let (cluster, _directory) = formed(1, &["--store", "memory", "--timeout", "60m"]);
    let mut theirs = Client::connect(&redis.address, REQUEST_LIMIT).unwrap();
    let mut ours = client(&cluster, 1);
    let first = number("CORACLE_SEED", 0);
    for seed in first..first + number("CORACLE_SEQUENCES", 500) {
        let commands = sequence(seed, LENGTH);
        let expected: Vec<Value> = commands.iter().map(|command| tell(&mut theirs, command)).collect();
        let answers: Vec<Value> = commands.iter().map(|command| tell(&mut ours, command)).collect();
        let (expected, answers) = (compared(&commands, expected), compared(&commands, answers));
        for (at, command) in commands.iter().enumerate() {
            let before = &commands[..at];
            assert_eq!(
                answers[at], expected[at],
                "seed {seed}, {command:?} after {before:?} (theirs is the right one)"
            );
        }
    }
}

#[test]
#[ignore = "needs the packages redis-server and redis-tools"]
fn what_a_redis_has_appended_to_its_file_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let redis = Redis::start(
        &["--appendonly", "yes", "--aof-use-rdb-preamble", "no", "--appendfsync", "always"],
        directory.path(),
    );
    let mut theirs = Client::connect(&redis.address, REQUEST_LIMIT).unwrap();
    for seed in 0..200 {
        for command in sequence(seed, LENGTH).iter().skip(1).filter(|command| command[0] != "FLUSHDB") {
            tell(&mut theirs, command);
        }
        tell(&mut theirs, &vec!["UNWATCH".to_owned()]);
    }
    let (cluster, _directory) = formed(1, &["--timeout", "60m"]);
    let mut ours = client(&cluster, 1);
    let port = cluster.node(1).place.client_addr.rsplit_once(':').unwrap().1.to_owned();
    let mut pipe =
        Command::new("redis-cli").args(["-p", &port, "--pipe"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = pipe.stdin.take().unwrap();
    let mut files: Vec<_> = std::fs::read_dir(directory.path().join("appendonlydir"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "aof"))
        .collect();
    // The base before what came after it.
    files.sort_by_key(|path| !path.to_string_lossy().contains(".base."));
    for file in files {
        input.write_all(&std::fs::read(file).unwrap()).unwrap();
    }
    drop(input);
    assert!(pipe.wait().unwrap().success());
    let mut keys = 0;
    for database in 0..3 {
        for line in [format!("SELECT {database}"), "DBSIZE".to_owned()] {
            assert_eq!(ask(&mut ours, &line), ask(&mut theirs, &line), "{line}");
        }
        for key in (0..5).map(|number| format!("k{number}")) {
            for name in ["TYPE", "GET", "HGETALL", "PEXPIRETIME"] {
                let command = vec![name.to_owned(), key.clone()];
                let (our, their) = (tell(&mut ours, &command), tell(&mut theirs, &command));
                keys += u64::from(name == "TYPE" && their != Value::Simple("none".into()));
                if name == "PEXPIRETIME" {
                    assert_eq!(our, their, "{command:?}");
                } else {
                    assert_eq!(comparable(&command, our), comparable(&command, their), "{command:?}");
                }
            }
        }
    }
    assert!(keys > 5, "{keys} keys show little");
}

#[test]
fn a_transaction_is_done_whole_or_not_at_all_whichever_nodes_are_asked() {
    let (cluster, _directory) = formed(3, STEADY);
    let (mut first, mut second) = (client(&cluster, 1), client(&cluster, 2));
    assert_eq!(ask(&mut first, "SET k 1"), Value::Simple("OK".into()));
    assert_eq!(ask(&mut first, "WATCH k l"), Value::Simple("OK".into()));
    assert_eq!(ask(&mut first, "MULTI"), Value::Simple("OK".into()));
    for line in ["INCR k", "GET k", "HSET h f v", "PING", "SELECT 1", "SET k other", "GET nothing"] {
        assert_eq!(ask(&mut first, line), Value::Simple("QUEUED".into()), "{line}");
    }
    let done = [
        Value::Number(2),
        bulk("2"),
        Value::Number(1),
        Value::Simple("PONG".into()),
        Value::Simple("OK".into()),
        Value::Simple("OK".into()),
        Value::Null,
    ];
    assert_eq!(ask(&mut first, "EXEC"), Value::Array(done.to_vec()));
    assert_eq!(ask(&mut first, "GET k"), bulk("other"), "the database stays chosen");
    assert_eq!(ask(&mut second, "GET k"), bulk("2"));
    // Another changes it through another node.
    for line in ["SELECT 0", "WATCH k", "MULTI"] {
        ask(&mut first, line);
    }
    ask(&mut second, "APPEND k 5");
    assert_eq!(ask(&mut first, "SET k lost"), Value::Simple("QUEUED".into()));
    assert_eq!(ask(&mut first, "EXEC"), Value::Null);
    assert_eq!(ask(&mut first, "GET k"), bulk("25"));
    // What is wrong on the way.
    for line in ["MULTI", "SET k lost", "SET k"] {
        ask(&mut first, line);
    }
    assert!(error(ask(&mut first, "EXEC")).starts_with("EXECABORT"));
    assert_eq!(ask(&mut first, "GET k"), bulk("25"));
}

#[test]
fn many_transactions_that_read_are_under_way_at_once() {
    let (cluster, _directory) = formed(1, STEADY);
    let mut clients: Vec<Client> = (0..200).map(|_| client(&cluster, 1)).collect();
    let lines = ["MULTI", "INCR n", "GET n", "HGETALL h", "EXEC"];
    let words: Vec<Vec<&[u8]>> =
        lines.iter().map(|line| line.split(' ').map(str::as_bytes).collect()).collect();
    let batch: Vec<&[&[u8]]> = words.iter().map(Vec::as_slice).collect();
    clients.iter_mut().for_each(|client| client.send(&batch).unwrap());
    for client in &mut clients {
        let answers: Vec<Value> = lines.iter().map(|_| client.receive().unwrap()).collect();
        let Value::Array(done) = &answers[4] else { panic!("{answers:?}") };
        let Value::Number(number) = done[0] else { panic!("{answers:?}") };
        assert_eq!(done[1], bulk(&number.to_string()), "it reads what it wrote");
    }
    assert_eq!(ask(&mut clients[0], "GET n"), bulk("200"));
    // One whose answers are larger than was asked for.
    let value = "x".repeat(1 << 20);
    ask(&mut clients[0], &format!("SET k {value}"));
    ask(&mut clients[0], "MULTI");
    (0..25).for_each(|_| assert_eq!(ask(&mut clients[0], "GET k"), Value::Simple("QUEUED".into())));
    let Value::Array(done) = ask(&mut clients[0], "EXEC") else { panic!("no array") };
    assert!(done[..23].iter().all(|item| *item == bulk(&value)));
    assert!(matches!(&done[24], Value::Error(text) if text.contains("too large together")), "over 24 MiB");
}

/// As in redis: `random_commands_are_answered_as_redis_answers_them` compares it.
#[test]
fn a_watched_key_that_came_and_went_ends_the_transaction() {
    let (cluster, _directory) = formed(3, STEADY);
    let (mut one, mut other) = (client(&cluster, 1), client(&cluster, 2));
    for (between, done) in [
        (&["SET k v", "DEL k"][..], false),
        (&["SET k v PX 1"], false),
        (&["HSET k f v", "FLUSHALL"], false),
        (&["SET j v", "DEL j"], true),
        (&["DEL k", "FLUSHALL"], true),
    ] {
        assert_eq!(ask(&mut one, "WATCH k"), Value::Simple("OK".into()));
        for line in between {
            ask(&mut other, line);
        }
        wait("its end", || (ask(&mut other, "EXISTS k") == Value::Number(0)).then_some(()));
        ask(&mut one, "MULTI");
        ask(&mut one, "SET done v");
        let expected = if done { Value::Array(vec![Value::Simple("OK".into())]) } else { Value::Null };
        assert_eq!(ask(&mut one, "EXEC"), expected, "{between:?}");
        assert_eq!(ask(&mut one, "DEL done"), Value::Number(i64::from(done)), "{between:?}");
    }
    cluster.agree().unwrap();
}

#[test]
fn a_key_ends_in_time_though_the_leader_dies_and_all_are_started_again() {
    let (mut cluster, _directory) = formed(3, &["--timeout", "60m"]);
    let (leader, _) = cluster.leader().unwrap();
    let other = if leader == 1 { 2 } else { 1 };
    let mut client = client(&cluster, other);
    let begun = Instant::now();
    assert_eq!(ask(&mut client, "SET k v PX 3000"), Value::Simple("OK".into()));
    assert_eq!(ask(&mut client, "SET l v EX 100000"), Value::Simple("OK".into()));
    cluster.kill(leader);
    wait("the end of the key", || (ask(&mut client, "GET k") == Value::Null).then_some(()));
    // The cluster's clock counts whole milliseconds.
    assert!(begun.elapsed() > Duration::from_millis(2_999), "{:?}: never early", begun.elapsed());
    // It is removed, and not only hidden, with nobody writing.
    wait("its removal", || (ask(&mut client, "DBSIZE") == Value::Number(1)).then_some(()));
    drop(client);
    cluster.kill_all();
    for id in cluster.ids() {
        cluster.restart(id).unwrap();
    }
    cluster.leader().unwrap();
    let mut client = self::client(&cluster, 3);
    let Value::Number(left) = ask(&mut client, "TTL l") else { panic!("no number") };
    assert!((99_000..=100_000).contains(&left), "{left}");
    assert_eq!(ask(&mut client, "EXISTS k l"), Value::Number(1));
}

#[test]
fn what_is_not_served_is_refused_in_words_and_the_connection_goes_on() {
    let (cluster, _directory) = formed(1, STEADY);
    let mut client = client(&cluster, 1);
    for (line, word) in [
        ("LPUSH l 1", "lists"),
        ("ZADD z 1 m", "sorted sets"),
        ("PUBLISH c m", "publish"),
        ("EVAL script 0", "DELEX"),
        ("SHUTDOWN", "SIGTERM"),
        ("CLUSTER INFO", "every node"),
        ("BGSAVE", "majority"),
        ("CONFIG SET maxclients 1", "--max-clients"),
        ("CONFIG SET maxmemory 1 maxclients 1", "--max-clients"),
        ("CONFIG SET maxmemory much", "memory value"),
        ("NOSUCH", "unknown command"),
        ("OBJECT FREQ k", "nothing is evicted"),
    ] {
        let text = error(ask(&mut client, line));
        assert!(text.starts_with("ERR ") && text.contains(word), "{line}: {text}");
    }
    assert_eq!(ask(&mut client, "PING"), Value::Simple("PONG".into()));
    assert_eq!(ask(&mut client, "WAIT 2 100"), Value::Number(0), "it is alone");
}

#[test]
fn a_full_memory_refuses_what_adds_to_it_by_name() {
    let (cluster, _directory) = formed(1, &["--max-memory", "32MiB", "--timeout", "60m"]);
    let mut client = client(&cluster, 1);
    let value = "x".repeat(1 << 20);
    let refused = (0..40).find_map(|number| match ask(&mut client, &format!("SET k{number} {value}")) {
        Value::Error(text) => Some((number, text)),
        _ => None,
    });
    let (number, text) = refused.expect("it is full at last");
    assert!(text.starts_with("OOM command not allowed") && (30..=32).contains(&number), "{number}: {text}");
    assert!(error(ask(&mut client, "INCR n")).starts_with("OOM "));
    for line in ["MULTI", "INCR n"] {
        ask(&mut client, line);
    }
    assert!(error(ask(&mut client, "EXEC")).starts_with("EXECABORT"));
    assert_eq!(ask(&mut client, "GET k0"), bulk(&value));
    assert_eq!(ask(&mut client, "DEL k0 k1"), Value::Number(2));
    assert_eq!(ask(&mut client, "INCR n"), Value::Number(1));
    let Value::Bulk(info) = ask(&mut client, "INFO memory") else { panic!("no text") };
    assert!(String::from_utf8(info).unwrap().contains("maxmemory:33554432\r\n"));
    // It can be changed while the server runs.
    assert_eq!(ask(&mut client, "CONFIG SET maxmemory 1kb"), Value::Simple("OK".into()));
    assert!(error(ask(&mut client, "INCR n")).starts_with("OOM "));
    assert_eq!(ask(&mut client, "CONFIG SET maxmemory 0"), Value::Simple("OK".into()));
    assert_eq!(ask(&mut client, "INCR n"), Value::Number(2));
}

#[test]
fn all_names_are_told_and_whoever_is_connected_can_be_ended() {
    let (cluster, _directory) = formed(1, STEADY);
    let (mut one, mut other) = (client(&cluster, 1), client(&cluster, 1));
    for number in 0..2500 {
        let key = format!("key:{number}");
        one.send(&[&[b"SET", key.as_bytes(), b"v"]]).unwrap();
    }
    (0..2500).for_each(|_| assert_eq!(one.receive().unwrap(), Value::Simple("OK".into())));
    let Value::Array(names) = ask(&mut one, "KEYS key:*") else { panic!("no array") };
    let mut names: Vec<_> = names.into_iter().map(|name| format!("{name:?}")).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 2500);
    assert_eq!(ask(&mut one, "KEYS *9:*"), Value::Array(Vec::new()));
    ask(&mut other, "CLIENT SETNAME other");
    let Value::Number(id) = ask(&mut other, "CLIENT ID") else { panic!("no number") };
    let Value::Bulk(list) = ask(&mut one, "CLIENT LIST") else { panic!("no text") };
    let list = String::from_utf8(list).unwrap();
    assert!(list.lines().any(|line| line.starts_with(&format!("id={id} ")) && line.contains(" name=other ")));
    assert_eq!(ask(&mut one, &format!("CLIENT KILL ID {id}")), Value::Number(1));
    assert!(other.ask(&[b"PING"]).is_err(), "it was ended");
    assert_eq!(ask(&mut one, "PING"), Value::Simple("PONG".into()));
}
