//! What a cluster does when more is asked for than it can do, and when clients hold all that they may.

mod support;

use coracle_server::client::{Client, Value};
use coracle_server::cluster::{Cluster, Interrupt, Program, report, server};
use std::io::{BufRead, Read, Write};
use std::sync::Arc;
use support::*;

/// The server where so many files may be open.
fn with_files(files: u32) -> Program {
    let plain = server(CORACLE);
    Arc::new(move |place| {
        let inner = plain(place);
        let mut command = std::process::Command::new("sh");
        let limited = format!("ulimit -n {files}; exec \"$0\" \"$@\"");
        command.args(["-c", &limited]).arg(inner.get_program()).args(inner.get_args());
        command
    })
}

#[test]
fn where_too_few_files_may_be_open_a_server_says_so_and_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let problem =
        Cluster::start(directory.path(), vec![with_files(255)], Interrupt::default()).err().unwrap();
    assert!(
        problem.contains("only 255 files may be open, and a server needs 256: raise `ulimit -n`"),
        "{problem}"
    );
}

#[test]
fn the_plan_for_descriptors_is_printed_at_the_start() {
    let arguments = "serve --id 1 --store memory --peer-addr 127.0.0.1:0 --client-addr 127.0.0.1:0";
    let mut server = std::process::Command::new(CORACLE)
        .args(arguments.split(' '))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(server.stdout.take().unwrap()).lines();
    let told: Vec<String> = lines.take(2).map(Result::unwrap).collect();
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(told[1].contains(" files may be open: 136 for the node itself, "), "{told:?}");
}

/// All that anybody can take is taken, and the log still opens its files.
#[test]
fn the_plan_for_descriptors_holds() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(directory.path(), vec![with_files(300)], Interrupt::default()).unwrap();
    cluster.form().unwrap();
    cluster.leader().unwrap();
    let node = cluster.node(1);
    let log = || std::fs::read_to_string(node.log()).unwrap();
    assert!(log().contains("300 files may be open: 136 for the node itself, "), "{}", log());
    let mut inside = node.client().unwrap();
    let crowd: Vec<_> =
        (0..250).flat_map(|_| [raw(&node.place.client_addr), raw(&node.place.peer_addr)]).collect();
    for _ in 0..3 {
        assert_eq!(ask(&mut inside, "SET k v"), Value::Simple("OK".into()));
        let taken = ask(&mut inside, "CORACLE SNAPSHOT");
        assert!(matches!(taken, Value::Bulk(_)), "{taken:?}");
    }
    assert!(!log().contains("cannot accept"), "{}", log());
    drop(crowd);
}

#[test]
fn an_operator_is_answered_when_clients_have_every_place() {
    let (cluster, _directory) = formed(1, &["--max-clients", "20", "--max-clients-per-address", "20"]);
    let node = cluster.node(1);
    let come_in = || {
        let mut client = node.client().unwrap();
        matches!(client.ask(&[b"SET", b"k", b"v"]), Ok(Value::Simple(_))).then_some(client)
    };
    let mut inside: Vec<_> = (0..20).map(|_| wait("coming in", come_in)).collect();
    // Silent ones on all seats of operators, too, and far more.
    let silent: Vec<_> = (0..100).map(|_| raw(&node.place.client_addr)).collect();
    for _ in 0..20 {
        wait("an operator's turn", || report(&node.place.client_addr, LONG).ok());
    }
    // Such a seat is none of a client's.
    let told = wait("a guest's turn", || {
        let mut guest = node.client().ok()?;
        match guest.ask(&[b"GET", b"k"]) {
            Ok(Value::Error(error)) => Some(error),
            _ => None,
        }
    });
    assert_eq!(told, "ERR max number of clients reached");
    assert_eq!(ask(&mut inside[0], "GET k"), Value::Bulk(b"v".to_vec()), "those inside are served");
    drop(silent);
}

/// The followers sleep, so nothing is done: what has no room is refused soon, says when to come again, and is not done. What
/// was taken is done when they wake up.
#[test]
fn what_has_no_room_is_busy_and_certainly_not_done() {
    let (cluster, _directory) = formed(3, STEADY);
    let (leader, _) = cluster.leader().unwrap();
    let node = cluster.node(leader);
    let mut counting = node.client().unwrap();
    assert_eq!(ask(&mut counting, "INCR n"), Value::Number(1));
    let others: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
    for id in &others {
        cluster.freeze(*id, true).unwrap();
    }
    // 32 of them are all that may be under way, their keys and what these take besides included.
    let value = vec![b'v'; (1 << 20) - 128];
    let before = node.report().unwrap().last_index;
    let mut under_way: Vec<Client> = (0..32)
        .map(|number: u32| {
            let mut client = node.client().unwrap();
            client.send(&[&[b"SET", number.to_string().as_bytes(), &value]]).unwrap();
            client
        })
        .collect();
    wait("all of them in the leader's log", || {
        (node.report().unwrap().last_index >= before + under_way.len() as u64).then_some(())
    });
    let busy = error(ask(&mut counting, "INCR refused"));
    assert!(busy.starts_with("BUSY "), "{busy}");
    let (_, after) = busy.rsplit_once("; this was not done; retry after ").unwrap();
    let after: u64 = after.strip_suffix(" ms").unwrap().parse().unwrap();
    assert!((10..=640).contains(&after), "{busy}");
    for id in &others {
        cluster.freeze(*id, false).unwrap();
    }
    for client in &mut under_way {
        assert_eq!(client.receive().unwrap(), Value::Simple("OK".into()));
    }
    assert_eq!(ask(&mut counting, "GET refused"), Value::Null, "it was certainly not done");
}

/// A long pipeline is carried out in turns of 512 commands, however many come at once, and everybody else has theirs between.
#[test]
fn a_pipeline_of_100_000_is_carried_out_in_turns() {
    const MANY: usize = 100_000;
    let (cluster, _directory) = formed(1, &[]);
    let node = cluster.node(1);
    let before = node.report().unwrap().last_index;
    let mut stream = raw(&node.place.client_addr);
    let mut reader = stream.try_clone().unwrap();
    let writer = std::thread::spawn(move || stream.write_all(&b"SET k v\r\n".repeat(MANY)).map(|()| stream));
    let mut answers = vec![0; MANY * 5];
    reader.read_exact(&mut answers).unwrap();
    assert!(answers.chunks(5).all(|answer| answer == b"+OK\r\n"));
    drop(writer.join().unwrap());
    let entries = node.report().unwrap().last_index - before;
    assert!(entries as usize >= MANY / 512, "{entries} entries");
}
