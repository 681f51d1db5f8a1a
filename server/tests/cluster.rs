//! Whole processes: three servers on real disks and sockets, and clients that know nothing of Raft.

mod support;

use coracle_server::client::{Client, Value};
use coracle_server::cluster::{REQUEST_LIMIT, free_port, server};
use redis::{Commands, Connection, Value as Redis};
use std::collections::HashMap;
use std::io::BufRead;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::*;

fn redis(address: &str, protocol: &str) -> Connection {
    let client = redis::Client::open(format!("redis://{address}/?protocol={protocol}")).unwrap();
    let connection = client.get_connection().unwrap();
    connection.set_read_timeout(Some(LONG)).unwrap();
    connection
}

#[test]
fn a_redis_client_uses_any_node_in_either_dialect() {
    let (cluster, _directory) = formed(3, STEADY);
    for id in cluster.ids() {
        for protocol in ["resp2", "resp3"] {
            let mut db = redis(&cluster.node(id).place.client_addr, protocol);
            let key = |name: &str| format!("{name}:{id}:{protocol}");
            let () = db.set(key("k"), "v").unwrap();
            let set = |db: &mut Connection, words: &[&str]| {
                redis::cmd("SET").arg(key("k")).arg(words).query::<Redis>(db).unwrap()
            };
            assert_eq!(set(&mut db, &["w", "NX"]), Redis::Nil);
            assert_eq!(set(&mut db, &["w", "XX"]), Redis::Okay);
            assert_eq!(set(&mut db, &["x", "GET"]), Redis::BulkString(b"w".to_vec()));
            assert_eq!(db.get::<_, Option<String>>(key("k")).unwrap(), Some("x".into()));
            assert_eq!(db.get::<_, Option<String>>(key("none")).unwrap(), None);
            assert_eq!(db.append::<_, _, i64>(key("k"), "yz").unwrap(), 3);
            assert_eq!(db.incr::<_, _, i64>(key("n"), 5).unwrap(), 5);
            assert_eq!(redis::cmd("INCR").arg(key("n")).query::<i64>(&mut db).unwrap(), 6);
            let () = db.mset(&[(key("a"), "1"), (key("b"), "2")]).unwrap();
            let values: Vec<Option<String>> = db.mget(&[key("a"), key("none"), key("b")]).unwrap();
            assert_eq!(values, [Some("1".into()), None, Some("2".into())]);
            assert_eq!(db.exists::<_, i64>(&[key("a"), key("none"), key("a")]).unwrap(), 2);
            assert_eq!(db.del::<_, i64>(&[key("a"), key("b"), key("none")]).unwrap(), 2);
            assert_eq!(redis::cmd("ECHO").arg("hi").query::<String>(&mut db).unwrap(), "hi");
            assert_eq!(redis::cmd("PING").query::<String>(&mut db).unwrap(), "PONG");
            let refused = redis::cmd("LPUSH").arg("a").arg("b").query::<Redis>(&mut db).unwrap_err();
            assert!(refused.to_string().contains("lists are not served"), "{refused}");
            let greeting: HashMap<String, Redis> =
                redis::cmd("HELLO").query(&mut db).expect("a map in either dialect");
            assert_eq!(greeting["proto"], Redis::Int(if protocol == "resp3" { 3 } else { 2 }));
        }
    }
    cluster.agree().unwrap();
}

#[test]
fn a_write_is_read_at_once_from_every_other_node() {
    let (cluster, _directory) = formed(3, STEADY);
    let mut clients: Vec<Client> =
        cluster.ids().iter().map(|id| cluster.node(*id).client().unwrap()).collect();
    for round in 0..50 {
        let writer = round % clients.len();
        assert_eq!(ask(&mut clients[writer], &format!("SET k {round}")), Value::Simple("OK".into()));
        for client in &mut clients {
            assert_eq!(ask(client, "GET k"), Value::Bulk(round.to_string().into()));
        }
    }
}

#[test]
fn pipelined_commands_are_answered_and_take_effect_in_order() {
    let (cluster, _directory) = formed(3, STEADY);
    for id in cluster.ids() {
        let mut client = cluster.node(id).client().unwrap();
        let (log, counter) = (format!("log{id}"), format!("counter{id}"));
        let mut expected = Vec::new();
        let mut written = String::new();
        for i in 0..300i64 {
            let number = i.to_string();
            written += &number;
            client
                .send(&[
                    &[b"APPEND", log.as_bytes(), number.as_bytes()],
                    &[b"INCR", counter.as_bytes()],
                    &[b"PING", number.as_bytes()],
                    &[b"GET", log.as_bytes()],
                    &[b"INCR", log.as_bytes(), b"wrong"],
                    &[b"EXISTS", log.as_bytes(), b"none"],
                ])
                .unwrap();
            let arity = "ERR wrong number of arguments for 'incr' command";
            expected.extend([
                Value::Number(written.len() as i64),
                Value::Number(i + 1),
                Value::Bulk(number.into()),
                Value::Bulk(written.clone().into()),
                Value::Error(arity.into()),
                Value::Number(1),
            ]);
        }
        for value in expected {
            assert_eq!(client.receive().unwrap(), value);
        }
    }
}

#[test]
fn a_pipeline_of_writes_and_an_mset_cost_one_entry_each() {
    let (cluster, _directory) = formed(1, &[]);
    let node = cluster.node(1);
    let mut client = node.client().unwrap();
    let before = node.report().unwrap().last_index;
    client.send(&[&[&b"INCR"[..], b"n"][..]; 100]).unwrap();
    for i in 1..=100 {
        assert_eq!(client.receive().unwrap(), Value::Number(i));
    }
    assert_eq!(ask(&mut client, "MSET a 1 b 2 c 3"), Value::Simple("OK".into()));
    let after = node.report().unwrap().last_index;
    // The hundred may reach the server in two pieces.
    assert!(after - before <= 3, "{} entries", after - before);
}

#[test]
fn keys_of_a_mebibyte_and_values_of_eight_survive_whatever_bytes_they_have() {
    let (cluster, _directory) = formed(3, STEADY);
    let bytes = |seed: usize, length: usize| -> Vec<u8> {
        (0..length).map(|i| (i * 31 + i / 256 * 7 + seed) as u8).collect()
    };
    let (key, value) = (bytes(1, 1 << 20), bytes(2, 8 << 20));
    let mut one = cluster.node(1).client().unwrap();
    let mut two = cluster.node(2).client().unwrap();
    assert_eq!(one.ask(&[b"SET", &key, &value]).unwrap(), Value::Simple("OK".into()));
    assert!(two.ask(&[b"GET", &key]).unwrap() == Value::Bulk(value.clone()));
    assert_eq!(two.ask(&[b"SET", b"", b""]).unwrap(), Value::Simple("OK".into()));
    let both = Value::Array(vec![Value::Bulk(vec![]), Value::Bulk(value.clone())]);
    assert!(one.ask(&[b"MGET", b"", &key]).unwrap() == both);
    let longer = one.ask(&[b"APPEND", &key, b"x"]).unwrap();
    assert!(error(longer).starts_with("ERR string exceeds maximum allowed size"));
    // Seven values in one entry, through a follower or not.
    let pairs: Vec<Vec<u8>> = (0..7).flat_map(|i| [vec![i as u8], bytes(i, 1 << 20)]).collect();
    let mut command: Vec<&[u8]> = vec![b"MSET"];
    command.extend(pairs.iter().map(Vec::as_slice));
    for client in [&mut one, &mut two] {
        assert_eq!(client.ask(&command).unwrap(), Value::Simple("OK".into()));
    }
    for (key, value) in pairs.chunks(2).map(|pair| (&pair[0], &pair[1])) {
        assert_eq!(two.ask(&[b"GET", key]).unwrap(), Value::Bulk(value.clone()));
    }
    // And as the answers of changes, alone, one after the other, and together.
    for client in [&mut one, &mut two] {
        let keys: Vec<String> = (0..6).map(|number| format!("taken:{number}")).collect();
        for key in &keys {
            assert_eq!(client.ask(&[b"SET", key.as_bytes(), &value]).unwrap(), Value::Simple("OK".into()));
        }
        keys.iter().for_each(|key| client.send(&[&[b"GETDEL", key.as_bytes()]]).unwrap());
        keys.iter().for_each(|_| assert!(client.receive().unwrap() == Value::Bulk(value.clone())));
    }
    for client in [&mut one, &mut two] {
        assert!(client.ask(&[b"SET", &key, &value, b"GET"]).unwrap() == Value::Bulk(value.clone()));
        client.ask(&[b"MULTI"]).unwrap();
        client.ask(&[b"SETRANGE", b"long", b"0", &value]).unwrap();
        client.ask(&[b"COPY", b"long", b"copy", b"REPLACE"]).unwrap();
        client.ask(&[b"GETDEL", b"copy"]).unwrap();
        client.ask(&[b"GET", b"long"]).unwrap();
        let done = match client.ask(&[b"EXEC"]).unwrap() {
            Value::Array(done) => done,
            other => panic!("{other:?}"),
        };
        assert_eq!(done[..2], [Value::Number(8 << 20), Value::Number(1)]);
        assert!(done[2..].iter().all(|item| *item == Value::Bulk(value.clone())));
    }
    cluster.agree().unwrap();
}

#[test]
fn a_connections_writes_stay_in_order_through_changes_of_leader() {
    let (mut cluster, _directory) = formed(3, &[]);
    for round in 0..3 {
        let key = format!("log{round}");
        let (leader, _) = cluster.leader().unwrap();
        let follower = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
        let mut client = cluster.node(follower).client().unwrap();
        let mut sent = 0;
        // Sends ten appends at once, and says which were acknowledged.
        let mut turn = |client: &mut Client| -> Vec<u64> {
            let numbers: Vec<String> = (sent..sent + 10).map(|number| format!("{number},")).collect();
            for number in &numbers {
                client.send(&[&[b"APPEND", key.as_bytes(), number.as_bytes()]]).unwrap();
            }
            sent += 10;
            let answers: Vec<Value> = numbers.iter().map(|_| client.receive().unwrap()).collect();
            let done = |value: &Value| match value {
                Value::Number(_) => true,
                Value::Error(error) => {
                    let known =
                        ["UNKNOWN ", "CLUSTERDOWN ", "BUSY "].iter().any(|kind| error.starts_with(kind));
                    assert!(known, "{error}");
                    false
                }
                other => panic!("{other:?}"),
            };
            (sent - 10..sent)
                .zip(&answers)
                .filter(|(_, answer)| done(answer))
                .map(|(number, _)| number)
                .collect()
        };
        let mut acknowledged = Vec::new();
        while acknowledged.len() < 100 {
            acknowledged.extend(turn(&mut client));
        }
        cluster.kill(leader);
        let until = acknowledged.len() + 100;
        while acknowledged.len() < until {
            acknowledged.extend(turn(&mut client));
        }
        let Value::Bulk(log) = client.ask(&[b"GET", key.as_bytes()]).unwrap() else { panic!("no log") };
        let log: Vec<u64> = String::from_utf8(log)
            .unwrap()
            .split_terminator(',')
            .map(|number| number.parse().unwrap())
            .collect();
        assert!(log.is_sorted_by(|a, b| a < b), "in order, and nothing twice: {log:?}");
        assert!(acknowledged.iter().all(|number| log.binary_search(number).is_ok()), "nothing lost");
        cluster.restart(leader).unwrap();
    }
    cluster.agree().unwrap();
}

#[test]
fn without_a_leader_requests_are_refused_in_time_and_status_still_answers() {
    let (mut cluster, _directory) = formed(3, &["--timeout", "600ms"]);
    cluster.kill(2);
    cluster.kill(3);
    let left = cluster.node(1);
    let report =
        wait("losing the leader", || Some(left.report().unwrap()).filter(|report| report.leader.is_none()));
    assert_eq!((report.id, report.members.len()), (1, 3));
    assert!(["candidate", "follower"].contains(&report.role.as_str()), "{}", report.role);
    let mut client = left.client().unwrap();
    for request in ["SET k v", "GET k"] {
        let start = Instant::now();
        let answer = error(ask(&mut client, request));
        // A computer may be late, but never early; a limit that is ignored is never told.
        let limit = "CLUSTERDOWN there was no leader within 600ms";
        assert!(answer.starts_with(limit), "{request}: {answer}");
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(590), "{request}: gave up after {took:?}");
    }
    assert_eq!(ask(&mut client, "PING"), Value::Simple("PONG".into()), "what needs no cluster still works");
    // A request that waits is done as soon as there is a leader again.
    cluster.restart(2).unwrap();
    cluster.leader().unwrap();
    assert_eq!(ask(&mut client, "GET k"), Value::Null, "what was refused was not done");
}

#[test]
fn a_request_waits_for_the_next_leader() {
    let (mut cluster, _directory) = formed(3, &["--timeout", "60m"]);
    let (leader, _) = cluster.leader().unwrap();
    let follower = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    let mut client = cluster.node(follower).client().unwrap();
    cluster.kill(leader);
    wait("noticing the death", || {
        Some(()).filter(|()| cluster.node(follower).report().unwrap().leader != Some(leader))
    });
    set(&mut client, "k", "v");
    assert_eq!(ask(&mut client, "GET k"), Value::Bulk(b"v".to_vec()));
}

#[test]
fn a_blank_node_says_what_to_do() {
    let (cluster, _directory) = blank(1, &["--timeout", "100ms"]);
    let mut client = cluster.node(1).client().unwrap();
    for request in ["SET k v", "GET k"] {
        let answer = error(ask(&mut client, request));
        assert!(answer.starts_with("CLUSTERDOWN ") && answer.contains("coracle members init"), "{answer}");
    }
    let report = cluster.node(1).report().unwrap();
    assert_eq!((report.role.as_str(), report.leader, report.members.len()), ("unconfigured", None, 0));
}

#[test]
fn what_was_acknowledged_survives_the_death_of_all_nodes() {
    let (mut cluster, _directory) = formed(3, &["--timeout", "60m"]);
    let mut client = cluster.node(1).client().unwrap();
    for i in 0..200 {
        set(&mut client, &format!("key{i}"), &format!("value{i}"));
    }
    for id in cluster.ids() {
        cluster.kill(id);
    }
    for id in cluster.ids() {
        cluster.restart(id).unwrap();
    }
    cluster.leader().unwrap();
    for id in cluster.ids() {
        let mut client = cluster.node(id).client().unwrap();
        for i in 0..200 {
            assert_eq!(ask(&mut client, &format!("GET key{i}")), Value::Bulk(format!("value{i}").into()));
        }
    }
    cluster.agree().unwrap();
}

#[test]
fn a_cluster_in_memory_works_and_survives_one_death() {
    let (mut cluster, _directory) = formed(3, &["--store", "memory", "--timeout", "60m"]);
    let (leader, _) = cluster.leader().unwrap();
    let mut client = cluster.node(leader).client().unwrap();
    set(&mut client, "k", "v");
    cluster.kill(leader);
    let (next, _) = cluster.leader().unwrap();
    let mut client = cluster.node(next).client().unwrap();
    assert_eq!(ask(&mut client, "GET k"), Value::Bulk(b"v".to_vec()));
}

fn run(arguments: &[&str]) -> Output {
    Command::new(CORACLE).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// The one line on standard error.
fn complaint(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "one line: {text}");
    assert!(text.starts_with("coracle: "), "{text}");
    text
}

#[test]
fn members_init_names_silent_nodes_and_accepts_only_its_own_list_again() {
    let (mut cluster, _directory) = blank(3, STEADY);
    let words: Vec<String> =
        cluster.ids().iter().map(|id| format!("{id}={}", cluster.node(*id).place.peer_addr)).collect();
    let to = cluster.node(1).place.client_addr.clone();
    let init = |words: &[String]| {
        let mut arguments = vec!["members", "init", "--to", &to];
        arguments.extend(words.iter().map(String::as_str));
        run(&arguments)
    };

    cluster.kill(3);
    let silent = init(&words);
    assert_eq!(silent.status.code(), Some(1));
    let text = complaint(&silent);
    assert!(text.contains("node 3") && !text.contains("node 2"), "{text}");
    assert_eq!(cluster.node(1).report().unwrap().role, "unconfigured", "nothing happened");

    cluster.restart(3).unwrap();
    assert_eq!(init(&words).status.code(), Some(0));
    let mut client = cluster.node(1).client().unwrap();
    assert_eq!(ask(&mut client, "SET k v"), Value::Simple("OK".into()), "the entry is committed");
    assert_eq!(init(&words).status.code(), Some(0), "the same list again");
    let other = init(&words[..2]);
    assert_eq!(other.status.code(), Some(1), "another list");
    assert!(complaint(&other).contains("already"), "{}", complaint(&other));
    assert_eq!(cluster.node(1).report().unwrap().members.len(), 3);
}

#[test]
fn a_snapshot_is_taken_by_command_and_shows_in_the_status() {
    let (cluster, _directory) = formed(3, STEADY);
    let mut client = cluster.node(1).client().unwrap();
    for round in 1..=2 {
        for key in 0..20 {
            ask(&mut client, &format!("SET k{key} {round}"));
        }
        let (applied, _) = cluster.agree().unwrap();
        for id in cluster.ids() {
            let node = cluster.node(id);
            let before = node.report().unwrap();
            let output = run(&["snapshot", "--to", &node.place.client_addr, "--json"]);
            assert!(output.status.success(), "{}", complaint(&output));
            let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert!(
                json["index"].as_u64().unwrap() >= applied && json["bytes"].as_u64().unwrap() > 0,
                "{json}"
            );
            let report = node.report().unwrap();
            let taken = report.snapshot.unwrap();
            assert!(taken.index >= applied && !report.taking_snapshot);
            if let Some(older) = before.snapshot {
                let purged =
                    || Some(node.report().unwrap().first_index).filter(|first| *first == older.index + 1);
                wait("the log to go up to the snapshot before", purged);
            }
        }
    }
    let output = run(&["snapshot", "--to", &cluster.node(2).place.client_addr]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("a snapshot is on disk: up to "), "{said}");
    let nobody = format!("127.0.0.1:{}", free_port().unwrap());
    let output = run(&["snapshot", "--to", &nobody]);
    assert_eq!(output.status.code(), Some(1));
    assert!(complaint(&output).contains(&nobody));
}

#[test]
fn status_has_its_keys_as_json_and_a_table_for_people() {
    let (cluster, _directory) = formed(3, STEADY);
    let mut client = cluster.node(1).client().unwrap();
    ask(&mut client, "SET k v");
    let (applied, digest) = cluster.agree().unwrap();
    let to = &cluster.node(2).place.client_addr;
    let output = run(&["status", "--to", to, "--json"]);
    assert!(output.status.success());
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["id"], 2);
    assert!(["leader", "follower"].contains(&json["role"].as_str().unwrap()));
    assert!(json["term"].as_u64().unwrap() >= 1);
    assert!((1..=3).contains(&json["leader"].as_u64().unwrap()));
    assert_eq!(json["commit"], applied);
    assert_eq!(json["applied"], applied);
    assert_eq!(json["last_index"], applied);
    assert_eq!(json["digest"], digest);
    for (id, member) in (1..).zip(json["members"].as_array().unwrap()) {
        assert_eq!((&member["id"], &member["voter"]), (&id.into(), &true.into()));
        assert_eq!(member["address"], cluster.node(id).place.peer_addr);
    }
    let (leader, _) = cluster.leader().unwrap();
    let at_leader = wait("all peers", || {
        let report = cluster.node(leader).report().unwrap();
        let settled = report.peers.iter().all(|peer| (peer.state.as_str(), peer.lag) == ("replicate", 0));
        let connected = report.members.iter().all(|member| member.reachable);
        Some(report).filter(|_| settled && connected)
    });
    assert_eq!(at_leader.peers.len(), 2, "the leader says how the others stand");
    assert!(at_leader.ready && at_leader.members.iter().all(|member| member.matched == Some(applied)));
    let table = String::from_utf8(run(&["status", "--to", to]).stdout).unwrap();
    assert!(
        table.starts_with("node 2 ") && table.contains(" in term ") && table.contains(&digest),
        "{table}"
    );

    let nobody = format!("127.0.0.1:{}", free_port().unwrap());
    let output = run(&["status", "--to", &nobody]);
    assert_eq!(output.status.code(), Some(1));
    assert!(complaint(&output).contains(&nobody));
}

#[test]
fn a_start_that_cannot_work_ends_with_one_line() {
    let (cluster, directory) = formed(1, &[]);
    let place = &cluster.node(1).place;
    let directory_of = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let serve = |id: &str, data: &str, peer: &str, client: &str| {
        let output =
            run(&["serve", "--id", id, "--data-dir", data, "--peer-addr", peer, "--client-addr", client]);
        assert_eq!(output.status.code(), Some(1));
        complaint(&output)
    };
    let any = "127.0.0.1:0";
    let text = serve("1", &directory_of("node1"), any, any);
    assert!(text.contains("in use by another process"), "{text}");
    let text = serve("2", &directory_of("node2"), any, &place.client_addr);
    assert!(text.contains("cannot listen for clients") && text.contains(&place.client_addr), "{text}");
    let text = serve("2", &directory_of("node2"), &place.peer_addr, any);
    assert!(text.contains(&place.peer_addr), "{text}");
    let text = serve("0", &directory_of("node3"), any, any);
    assert!(text.contains("id"), "{text}");
    std::fs::write(directory_of("file"), "").unwrap();
    let text = serve("2", &directory_of("file"), any, any);
    assert!(text.contains("file"), "{text}");
    drop(cluster);
    let text = serve("2", &directory_of("node1"), any, any);
    assert!(text.contains("node1"), "another node's directory: {text}");
    // One that joins without a name would be given it at an address at which nobody finds it.
    for nowhere in ["0.0.0.0:7101", "[::]:7101", any] {
        let (join, data) = (["serve", "--join", any, "--data-dir"], directory_of("node4"));
        let output = run(&[&join[..], &[&data, "--peer-addr", nowhere, "--client-addr", any]].concat());
        assert_eq!(output.status.code(), Some(1));
        assert!(complaint(&output).contains("--advertise HOST:PORT"), "{output:?}");
    }
}

#[test]
fn a_server_stops_cleanly_on_sigterm_and_when_its_parent_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    for way in ["SIGTERM", "pipe"] {
        let place = coracle_server::cluster::Place {
            id: 1,
            directory: directory.path().join("node1"),
            peer_addr: "127.0.0.1:0".into(),
            client_addr: "127.0.0.1:0".into(),
        };
        let mut child = server(CORACLE)(&place).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address =
            line.trim().strip_prefix("node 1 ready: clients on ").unwrap().split(',').next().unwrap();
        let mut client = Client::connect(address, REQUEST_LIMIT).unwrap();
        assert_eq!(ask(&mut client, "PING"), Value::Simple("PONG".into()));
        if way == "SIGTERM" {
            let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        } else {
            drop(child.stdin.take());
        }
        let status = wait("stopping", || child.try_wait().unwrap());
        assert_eq!(status.code(), Some(0), "{way}");
        assert!(client.ask(&[b"PING"]).is_err(), "its connections are closed");
    }
}

/// A small command can ask for a whole value: many of them in a pipeline are done in portions, so that no
/// entry makes a reply that nobody can carry, or that takes a node away from its heartbeats.
#[test]
fn a_pipeline_that_asks_for_large_values_is_done_in_portions() {
    use std::io::{Read, Write};
    let (cluster, _directory) = formed(3, STEADY);
    for id in cluster.ids() {
        let mut stream = raw(&cluster.node(id).place.client_addr);
        stream.set_read_timeout(Some(LONG)).unwrap();
        let value = vec![b'v'; 1 << 20];
        let set = [b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1048576\r\n", &value[..], b"\r\n"].concat();
        stream.write_all(&set).unwrap();
        stream.write_all(&b"SET k v NX GET\n".repeat(100)).unwrap();
        let mut got = vec![0; 5 + 100 * (b"$1048576\r\n".len() + (1 << 20) + 2)];
        stream.read_exact(&mut got).expect("all hundred values come");
        assert!(got.starts_with(b"+OK\r\n$1048576\r\nvvv"));
    }
    cluster.agree().unwrap();
}
