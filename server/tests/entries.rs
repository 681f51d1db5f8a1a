//! An entry that the servers cannot apply, and machines that are to be rebuilt, with the real program.

mod support;

use coracle_server::client::{Client, Value};
use std::process::Command;
use support::log::{log, said};
use support::*;

/// Their machines cannot apply a write of this value.
const FRAGILE: &[&str] = &["--fail-on", "bane", "--election-timeout", "60m-120m", "--timeout", "60m"];

fn coracle(words: &[&str]) -> (i32, String) {
    said(&Command::new(CORACLE).args(words).output().unwrap())
}

/// The nodes stay up and show which entry it is; it is skipped by one command, and the log shows that.
#[test]
fn an_entry_that_no_server_can_apply_is_shown_and_skipped_by_command() {
    let (cluster, directory) = formed(3, FRAGILE);
    let (leader, _) = cluster.leader().unwrap();
    let address = |id| cluster.node(id).place.client_addr.clone();
    let mut client = Client::connect(&address(leader), LONG).unwrap();
    set(&mut client, "k", "before");
    let refused = error(ask(&mut client, "SET k bane"));
    assert!(refused.starts_with("UNKNOWN ") && refused.contains("has stopped before entry"), "{refused}");
    let stopped = |id| {
        wait("its machine stops", || {
            let report = cluster.node(id).report().unwrap();
            report.machine_stopped.map(|stopped| stopped.entry)
        })
    };
    let entry = stopped(1);
    assert_eq!([stopped(2), stopped(3)], [entry.clone(), entry.clone()]);
    let (_, status) = coracle(&["status", "--to", &address(leader)]);
    let line = format!(
        "  stopped     its machine cannot apply entry {entry}, and answers nothing: the entry {entry} cannot"
    );
    assert!(status.contains(&line), "{status}");
    for request in ["GET k", "SET k after"] {
        let refused = error(ask(&mut client, request));
        assert!(refused.contains(&format!("has stopped before entry {entry}")), "{refused}");
    }
    let wrong = coracle(&["entry", "skip", "17", "--to", &address(1)]);
    assert!(wrong.0 == 2 && wrong.1.contains("index.term"), "{wrong:?}");

    // The leader may still wait for the word of the others.
    let told = wait("it is skipped", || {
        let told = coracle(&["entry", "skip", &entry, "--to", &address(1)]);
        (told.0 == 0 || !told.1.contains("are not known to have stopped")).then_some(told)
    });
    let expected = format!("done: entry {entry} is skipped, by entry ");
    assert!(told.0 == 0 && told.1.starts_with(&expected), "{told:?}");
    set(&mut client, "k2", "after");
    cluster.agree().unwrap();
    let mut other = Client::connect(&address(leader % 3 + 1), LONG).unwrap();
    assert_eq!(ask(&mut other, "GET k"), Value::Bulk("before".into()));
    let (code, text) = said(&log(&["dump"], &cluster.node(1).place.directory));
    assert!(code == 0 && text.contains(&format!("entry {entry} is skipped")), "{text}");
    drop(directory);
}

/// A node's machine is rebuilt by one command while writes go on: a follower's, a leader's, and that of one that was killed
/// meanwhile and is asked again.
#[test]
fn the_machine_of_a_node_is_rebuilt_by_command() {
    let (mut cluster, directory) = formed(3, &["--rebuild-diverged"]);
    let (leader, _) = cluster.leader().unwrap();
    let places: Vec<String> = (1..=3).map(|id| cluster.node(id).place.client_addr.clone()).collect();
    let address = |id: u64| places[id as usize - 1].as_str();
    let mut client = Client::connect(address(leader), LONG).unwrap();
    for number in 0..50 {
        set(&mut client, &format!("k{number}"), "v");
    }
    let follower = leader % 3 + 1;
    for id in [follower, leader] {
        let (code, told) = coracle(&["rebuild", "--to", address(id)]);
        assert!(
            code == 0
                && told.starts_with("done: the machine is rebuilt, and has applied everything up to entry "),
            "{told}"
        );
    }
    let (code, told) = coracle(&["rebuild", "--to", address(follower), "--json"]);
    let json: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert!(code == 0 && json["done"].as_str().unwrap().starts_with("the machine is rebuilt"), "{told}");

    // Alone it has nobody to be rebuilt from, and goes on as it is.
    let others: Vec<u64> = (1..=3).filter(|id| *id != follower).collect();
    for id in &others {
        cluster.kill(*id);
    }
    wait("it misses its leader", || cluster.node(follower).report().ok()?.leader.is_none().then_some(()));
    let (code, told) = coracle(&["rebuild", "--to", address(follower), "--wait", "1s"]);
    assert!(code == 1 && told.contains("there is no leader now"), "{told}");
    assert_eq!(cluster.node(follower).report().unwrap().fenced, None);
    for id in &others {
        cluster.restart(*id).unwrap();
    }
    cluster.agree().unwrap();
    for id in 1..=3 {
        let mut client = Client::connect(address(id), LONG).unwrap();
        let value = wait("it answers", || match ask(&mut client, "GET k49") {
            Value::Bulk(value) => Some(value),
            _ => None,
        });
        assert_eq!(value, b"v");
    }
    drop(directory);
}
