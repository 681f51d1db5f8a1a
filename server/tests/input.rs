//! What a client port may be sent: anything. Each connection pays for itself, and nobody else notices.

mod support;

use coracle_server::client::Value;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};
use support::*;

#[test]
fn malformed_input_ends_its_connection_with_an_error_and_no_other() {
    let (cluster, _directory) = formed(1, &[]);
    let node = cluster.node(1);
    let address = &node.place.client_addr;
    let mut bystander = node.client().unwrap();
    let cases: &[(&[u8], &str)] = &[
        (b"*99999999999999999999\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*1\r\n$99999999999\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        (b"*1\r\n$-1\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        (b"*1\r\n*1\r\n$4\r\nPING\r\n", "-ERR Protocol error: expected '$', got '*'\r\n"),
        (b"$4\r\nPING\r\n", "-ERR Protocol error: expected '*', got '$'\r\n"),
        (b"\x00\x01\x02", "-ERR Protocol error: expected '*', got '\\x00'\r\n"),
        (b"*1\r\n$4\r\nPINGxx", "-ERR Protocol error: expected CRLF after a bulk string\r\n"),
        (b"GET \"k\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n"),
        (b"POST / HTTP/1.1\r\n", "-ERR Protocol error: this port does not speak HTTP\r\n"),
        (b"PING\r\n*x\r\nPING\r\n", "+PONG\r\n-ERR Protocol error: invalid multibulk length\r\n"),
    ];
    for (input, answer) in cases {
        assert_eq!(&last_words(address, input), answer, "{}", input.escape_ascii());
        assert_eq!(ask(&mut bystander, "PING"), Value::Simple("PONG".into()));
    }
    let endless = vec![b'x'; 4 << 20];
    assert_eq!(last_words(address, &endless), "-ERR Protocol error: too big inline request\r\n");
    let mut large = b"*20\r\n".to_vec();
    for _ in 0..20 {
        large.extend_from_slice(b"$1048576\r\n");
        large.resize(large.len() + (1 << 20), b'x');
        large.extend_from_slice(b"\r\n");
    }
    large.extend_from_slice(b"PING\r\nQUIT\r\n");
    let answer = last_words(address, &large);
    assert!(answer.starts_with("-ERR too big command"), "{answer}");
    assert!(answer.ends_with("\r\n+PONG\r\n+OK\r\n"), "{answer}");
}

#[test]
fn what_is_too_large_is_refused_by_name_and_the_connection_goes_on() {
    let (cluster, _directory) = formed(1, &[]);
    let mut client = cluster.node(1).client().unwrap();
    let value = vec![b'v'; (8 << 20) + 1];
    const TOO_LONG: &str = "ERR string exceeds maximum allowed size (8388608 bytes)";
    assert_eq!(error(client.ask(&[b"SET", b"k", &value]).unwrap()), TOO_LONG);
    assert_eq!(client.ask(&[b"SET", b"long", &value[1..]]).unwrap(), Value::Simple("OK".into()));
    for more in [&[b"APPEND", &b"long"[..], b"x"][..], &[b"SETRANGE", b"long", b"8388608", b"x"]] {
        assert_eq!(error(client.ask(more).unwrap()), TOO_LONG);
    }
    assert_eq!(error(client.ask(&[b"HSET", b"h", b"f", &value[1..]]).unwrap()), TOO_LONG, "with its name");
    let key = &value[..(1 << 20) + 1];
    for command in [&[b"GET", key][..], &[b"SET", key, b"v"], &[b"MGET", b"k", key], &[b"WATCH", key]] {
        let answer = error(client.ask(command).unwrap());
        assert_eq!(answer, "ERR string exceeds maximum allowed size (1048576 bytes for a key)");
    }
    let two = error(client.ask(&[b"MSET", b"a", &value[1..], b"b", &value[1..]]).unwrap());
    assert!(two.starts_with("ERR too big command: its arguments are over 10485760 bytes together"), "{two}");
    for name in ["EXISTS", "MGET", "DEL", "MSET"] {
        let mut command: Vec<&[u8]> = vec![name.as_bytes()];
        command.resize(100_001, b"k");
        let answer = error(client.ask(&command).unwrap());
        assert!(answer.starts_with("ERR too many arguments: at most 32769 in one command"), "{answer}");
    }
    assert_eq!(ask(&mut client, "GET k"), Value::Null);
}

#[test]
fn half_of_a_pipelined_transaction_changes_nothing() {
    let (cluster, _directory) = formed(1, &[]);
    let address = &cluster.node(1).place.client_addr;
    let kinds = |lines: &[u8]| -> Vec<String> {
        let answer = last_words(address, lines);
        answer.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };
    // A command that is not there.
    assert_eq!(
        kinds(b"MULTI\r\nSET k 1\r\nLPUSH l 1\r\nINCR n\r\nEXEC\r\nEXISTS k n\r\nQUIT\r\n"),
        ["+OK", "+QUEUED", "-ERR", "+QUEUED", "-EXECABORT", ":0", "+OK"]
    );
    // A client that leaves before EXEC.
    assert_eq!(kinds(b"MULTI\r\nSET k 1\r\nINCR n\r\nQUIT\r\n"), ["+OK", "+QUEUED", "+QUEUED", "+OK"]);
    assert_eq!(kinds(b"EXISTS k n\r\nQUIT\r\n"), [":0", "+OK"]);
}

#[test]
fn wrong_requests_leave_their_connection_as_it_was() {
    let (cluster, _directory) = formed(1, &[]);
    let mut client = cluster.node(1).client().unwrap();
    for (line, answer) in [
        ("FOO", "ERR unknown command 'FOO', with args beginning with: "),
        ("GET", "ERR wrong number of arguments for 'get' command"),
        ("SET k v EX 10 PX 10", "ERR syntax error"),
        ("INCRBY k x", "ERR value is not an integer or out of range"),
        ("CORACLE NONSENSE", "ERR unknown subcommand 'NONSENSE' of 'CORACLE'"),
        ("CORACLE MEMBERS INIT nonsense", "ERR 'nonsense' is not a member: write id=host:port"),
    ] {
        assert_eq!(error(ask(&mut client, line)), answer);
    }
    assert_eq!(ask(&mut client, "QUIT"), Value::Simple("OK".into()));
    assert!(client.receive().is_err(), "QUIT closes");
}

#[test]
fn half_a_command_and_silence_ends_the_connection_but_idling_does_not() {
    let (cluster, _directory) = formed(1, &["--half-command-limit", "200ms"]);
    let address = &cluster.node(1).place.client_addr;
    let mut idle = cluster.node(1).client().unwrap();
    for half in [&b"*"[..], b"*2\r\n$3\r\nGET\r\n", b"*2\r\n$3\r\nGET\r\n$9\r\nhalf", b"PIN"] {
        let start = Instant::now();
        let answer = last_words(address, half);
        assert!(answer.starts_with("-ERR Protocol error: half a command"), "{answer}");
        assert!(start.elapsed() >= Duration::from_millis(190), "not before its time");
    }
    assert_eq!(ask(&mut idle, "PING"), Value::Simple("PONG".into()));
}

/// The memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Hazard TR-3.
#[test]
fn tr_3_claimed_lengths_cost_nothing() {
    let (cluster, _directory) = formed(1, &[]);
    let node = cluster.node(1);
    let pid = node.pid().unwrap();
    let before = resident(pid);
    let claims: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = raw(&node.place.client_addr);
            stream.write_all(b"*1048576\r\n$1048576\r\nx").unwrap();
            stream
        })
        .collect();
    let mut client = node.client().unwrap();
    // A command that comes after theirs is answered after theirs were read, or soon after.
    for _ in 0..100 {
        assert_eq!(ask(&mut client, "PING"), Value::Simple("PONG".into()));
    }
    let grown = resident(pid).saturating_sub(before);
    assert!(grown < 20 * claims.len() as u64, "{grown} KiB for {} connections", claims.len());
}

/// What docs/performance.md states that a small key takes, with its entry in the log's index.
#[test]
fn a_small_key_takes_no_more_memory_than_is_stated() {
    const KEYS: u64 = 200_000;
    const STATED: u64 = 300;
    let (cluster, _directory) = formed(1, &[]);
    let node = cluster.node(1);
    let pid = node.pid().unwrap();
    let mut client = node.client().unwrap();
    let mut fill = |keys: std::ops::Range<u64>| {
        for first in keys.step_by(1000) {
            let pairs: Vec<String> = (first..first + 1000)
                .flat_map(|key| [format!("key:{key:09}"), format!("{key:08}")])
                .collect();
            let command: Vec<&[u8]> =
                [&b"MSET"[..]].into_iter().chain(pairs.iter().map(String::as_bytes)).collect();
            assert_eq!(client.ask(&command).unwrap(), Value::Simple("OK".into()));
        }
    };
    // What the first ones need is there from then on: buffers, threads.
    fill(0..20_000);
    let before = resident(pid);
    fill(20_000..20_000 + KEYS);
    let each = || resident(pid).saturating_sub(before) * 1024 / KEYS;
    // While a snapshot is under way, what is changed is there twice.
    let each = wait("the memory that a key takes", || Some(each()).filter(|each| *each <= STATED));
    // Its name and value are 20 bytes, so far less would say that this measures nothing.
    assert!(each >= 100, "a key takes {each} bytes");
}

/// What docs/performance.md states that a connection takes at which nothing happens.
#[test]
fn an_idle_connection_takes_no_more_memory_than_is_stated() {
    const STATED: u64 = 8 << 10;
    // The system gives memory in pieces of so much, and the last of them may be used by little.
    const LUMP: u64 = 2 << 20;
    let (cluster, _directory) = formed(1, &[]);
    let node = cluster.node(1);
    let pid = node.pid().unwrap();
    let come_in = |writes: usize| {
        let mut client = node.client().unwrap();
        for _ in 0..writes {
            assert_eq!(ask(&mut client, "SET k v"), Value::Simple("OK".into()));
        }
        client
    };
    // Besides themselves, the first ones bring what is there once for all, such as the newest entries.
    let _first: Vec<_> = (0..300).map(|_| come_in(5)).collect();
    let before = resident(pid);
    let others: Vec<_> = (0..500).map(|_| come_in(1)).collect();
    let grown = resident(pid).saturating_sub(before) * 1024;
    // The allocator may give back what others had meanwhile, so there is no telling from below.
    let stated = others.len() as u64 * STATED;
    assert!(grown <= stated + LUMP, "500 connections take {grown} bytes, and {stated} is what is stated");
}

#[test]
fn clients_over_the_limit_are_told_and_others_come_in_when_some_leave() {
    let (cluster, _directory) = formed(1, &["--max-clients", "20", "--max-clients-per-address", "20"]);
    let node = cluster.node(1);
    // The connections that formed the cluster may still be on their way out.
    let come_in = || {
        let mut client = node.client().unwrap();
        matches!(client.ask(&[b"PING"]), Ok(Value::Simple(_))).then_some(client)
    };
    let mut inside: Vec<_> = (0..20).map(|_| wait("coming in", come_in)).collect();
    let mut outside = raw(&node.place.client_addr);
    let mut answer = String::new();
    outside.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "-ERR max number of clients reached\r\n");
    inside.clear();
    wait("coming in again", come_in);
}

/// The plan for descriptors does not let it come so far; but somebody may take them away while it runs.
#[test]
fn a_server_without_file_descriptors_goes_on_when_it_has_some_again() {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    let (cluster, _directory) = formed(1, &[]);
    let node = cluster.node(1);
    let pid = node.pid().and_then(|pid| Pid::from_raw(pid as i32));
    let mut first = node.client().unwrap();
    assert_eq!(ask(&mut first, "PING"), Value::Simple("PONG".into()));
    let few = Rlimit { current: Some(40), ..getrlimit(Resource::Nofile) };
    prlimit(pid, Resource::Nofile, few).unwrap();
    let crowd: Vec<_> = (0..60).map(|_| raw(&node.place.client_addr)).collect();
    wait("running out", || {
        let log = std::fs::read_to_string(node.log()).unwrap();
        log.contains("cannot accept a client").then_some(())
    });
    assert_eq!(ask(&mut first, "SET k v"), Value::Simple("OK".into()), "those inside are served");
    drop(crowd);
    let mut late = node.client().unwrap();
    assert_eq!(ask(&mut late, "GET k"), Value::Bulk(b"v".to_vec()));
}

#[test]
fn clients_that_vanish_leave_nothing_after() {
    let (cluster, _directory) = formed(1, &["--max-clients", "50", "--max-clients-per-address", "50"]);
    let node = cluster.node(1);
    // Far more than the limit, each gone in the middle of something.
    for i in 0..300 {
        let mut stream = raw(&node.place.client_addr);
        let _ = stream.write_all([&b"*2\r\n$3\r\nGET\r\n$5\r\nhal"[..], b"INCR n\r\n", b"*", b""][i % 4]);
        if i % 3 == 0 {
            let _ = stream.shutdown(Shutdown::Write);
        }
    }
    wait("all places being free", || {
        let mut clients: Vec<_> = (0..50).map(|_| node.client().unwrap()).collect();
        clients.iter_mut().all(|client| matches!(client.ask(&[b"PING"]), Ok(Value::Simple(_)))).then_some(())
    });
}

#[test]
fn a_large_answer_leaves_in_pieces_and_a_huge_one_is_refused() {
    let (cluster, _directory) = formed(1, &[]);
    let mut client = cluster.node(1).client().unwrap();
    for length in [8 << 20, 1 << 20] {
        let value = vec![b'v'; length];
        assert_eq!(client.ask(&[b"SET", b"k", &value]).unwrap(), Value::Simple("OK".into()));
        let times = (100 << 20) / length;
        for _ in 0..times {
            client.send(&[&[b"GET", b"k"]]).unwrap();
        }
        for _ in 0..times {
            assert!(client.receive().unwrap() == Value::Bulk(value.clone()));
        }
    }
    let mut command: Vec<&[u8]> = vec![b"MGET"];
    command.resize(100, b"k");
    assert!(error(client.ask(&command).unwrap()).starts_with("ERR the values are too large together"));
}

/// Rules can be broken in builds with the feature `mutants` only.
#[cfg(not(feature = "mutants"))]
#[test]
fn the_published_program_keeps_all_its_rules() {
    let arguments = ["serve", "--id", "1", "--peer-addr", "127.0.0.1:0", "--client-addr", "127.0.0.1:0"];
    let mut command = std::process::Command::new(CORACLE);
    let output = command.args(arguments).args(["--mutant", "batch-not-synced"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("unexpected argument '--mutant'"), "{said}");
}
