//! Other stores than the default: the demo on each that this program was built with, directories that stay with
//! the store that made them, and logs that are looked at.

mod support;

use coracle_server::client::Client;
use coracle_server::cluster::{Cluster, Interrupt, Program, server_on};
use coracle_server::demo::Demo;
use coracle_server::store::Store;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use support::log::{dump, files, flip, log, of, said, verify};
use support::*;

/// The stores on disk beside the default that this program was built with.
fn engines() -> Vec<Store> {
    let mut engines = vec![];
    if cfg!(feature = "lmdb") {
        engines.push(Store::Lmdb);
    }
    if cfg!(feature = "rocksdb") {
        engines.push(Store::Rocksdb);
    }
    engines
}

/// A node that is all of its cluster, and the directory that it lives in.
fn alone(store: Store) -> (Cluster, tempfile::TempDir) {
    let home = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(home.path(), vec![server_on(CORACLE, store)], Interrupt::default()).unwrap();
    cluster.form().unwrap();
    cluster.leader().unwrap();
    (cluster, home)
}

#[test]
fn the_demo_passes_on_each_store() {
    for store in engines() {
        let programs = vec![server_on(CORACLE, store); 3];
        let demo =
            Demo { programs, while_dead: Box::new(|_| {}), keep: false, interrupt: Default::default() };
        let mut story = Vec::new();
        demo.run(&mut story).unwrap_or_else(|problem| panic!("{store:?}: {problem}"));
        assert!(String::from_utf8(story).unwrap().contains("Everything held"), "{store:?}");
    }
}

/// A store in memory cannot be started again, so the follower stands still instead of being away: on each store.
#[test]
fn a_follower_that_was_left_behind_catches_up_by_a_snapshot_on_each_store() {
    for store in [vec![Store::Memory, Store::Wal], engines()].concat() {
        let home = tempfile::tempdir().unwrap();
        let plain = server_on(CORACLE, store);
        let program: Program = Arc::new(move |place| {
            let mut command = plain(place);
            command.args(STEADY).args(["--snapshot-entries", "20"]);
            command
        });
        let cluster = Cluster::start(home.path(), vec![program; 3], Interrupt::default()).unwrap();
        cluster.form().unwrap();
        let (leader, _) = cluster.leader().unwrap();
        let (follower, before) = (leader % 3 + 1, cluster.agree().unwrap().0);
        cluster.freeze(follower, true).unwrap();
        let mut client = cluster.node(leader).client().unwrap();
        let mut number = 0;
        // What is under way to it is at most some dozens of messages.
        let left_behind = wait("the log to go", || {
            number += 1;
            ask(&mut client, &format!("SET k{} {number}", number % 100));
            let report = cluster.node(leader).report().unwrap();
            (report.first_index > before + 100).then_some(report)
        });
        assert!(left_behind.snapshot.is_some(), "{store:?}");
        cluster.freeze(follower, false).unwrap();
        let (applied, _) = cluster.agree().unwrap();
        let report = cluster.node(follower).report().unwrap();
        assert!(applied > before + 100 && report.first_index > before, "{store:?}: {report}");
    }
}

/// Starts a server that is expected to refuse; returns what it says.
fn refused(store: &str, data_dir: &std::path::Path) -> String {
    let mut command = Command::new(CORACLE);
    command.args(["serve", "--id", "1", "--peer-addr", "127.0.0.1:0", "--client-addr", "127.0.0.1:0"]);
    command.args(["--store", store, "--data-dir"]).arg(data_dir).arg("--parent-pipe");
    // Should it start after all, the end of its input stops it.
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{store} starts");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_directory_stays_with_the_store_that_made_it() {
    let all = [vec![Store::Wal], engines()].concat();
    for made_by in &all {
        let directory = tempfile::tempdir().unwrap();
        let place = coracle_server::cluster::Place {
            id: 1,
            directory: directory.path().join("node"),
            peer_addr: "127.0.0.1:0".into(),
            client_addr: "127.0.0.1:0".into(),
        };
        let start = || server_on(CORACLE, *made_by)(&place).stdin(Stdio::null()).output().unwrap().status;
        assert!(start().success(), "{made_by:?}");
        for other in all.iter().filter(|other| *other != made_by) {
            let said = refused(other.name(), &place.directory);
            let (kept, wanted) = (made_by.name(), other.name());
            let want = format!("is kept by the store {kept}, not by {wanted}; start the node with {kept}");
            assert!(said.contains(&want), "{said}");
        }
        assert!(start().success(), "a refusal changes nothing");
        // Without its identity the directory is nobody's, and not a new one.
        std::fs::remove_file(place.directory.join("identity")).unwrap();
        for store in &all {
            let said = refused(store.name(), &place.directory);
            assert!(said.contains("it is missing, but there is a log"), "{made_by:?}, {store:?}: {said}");
        }
    }
}

#[test]
fn a_store_that_the_program_was_built_without_says_how_to_build_it() {
    let directory = tempfile::tempdir().unwrap();
    for (store, built) in [("lmdb", cfg!(feature = "lmdb")), ("rocksdb", cfg!(feature = "rocksdb"))] {
        if !built {
            let said = refused(store, directory.path());
            assert!(said.contains(&format!("--features {store}")), "{said}");
        }
    }
    let output = Command::new(CORACLE).args(["demo", "--store", "memory"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("choose a store on disk"));
}

/// In 21 steps about 25 MiB, where a snapshot is taken after 64.
const MORE_KEYS: u64 = 500;

#[test]
fn a_log_can_be_looked_at_while_its_server_runs() {
    for store in [vec![Store::Wal], engines()].concat() {
        let (cluster, _home) = alone(store);
        let dir = cluster.node(1).place.directory.clone();
        let address = cluster.node(1).place.client_addr.clone();
        // So many keys may be written by now: with each look some more, and never so many that the log is purged.
        let allowed = Arc::new(AtomicU64::new(MORE_KEYS));
        let (allows, stop) = (allowed.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let load = std::thread::spawn(move || {
            let mut client = Client::connect(&address, LONG).unwrap();
            for key in 0u64.. {
                ask(&mut client, &format!("SET key{key} {}", "v".repeat(key as usize % 5000)));
                while key + 1 >= allowed.load(Ordering::Relaxed) && !stopped.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                if stopped.load(Ordering::Relaxed) {
                    return key;
                }
            }
            unreachable!()
        });
        wait("some writes", || (dump(&dir).1.len() > 50).then_some(()));
        for _ in 0..20 {
            allows.fetch_add(MORE_KEYS, Ordering::Relaxed);
            let (code, text) = verify(&dir);
            assert_eq!(code, 0, "{}: {text}", store.name());
            assert_eq!(dump(&dir).0, 0);
        }
        stop.store(true, Ordering::Relaxed);
        let keys = load.join().unwrap();
        drop(cluster);
        let before = files(&dir);
        assert_eq!(verify(&dir).0, 0);
        let (code, all) = dump(&dir);
        assert_eq!(code, 0);
        let (_, text) = said(&log(&["dump"], &dir));
        assert!(text.contains("Set { key: b\"key7\", value: b\"vvvvvvv\""), "{text}");
        let commands = of(&all, "entry").filter(|entry| entry["kind"] == "command").count() as u64;
        assert_eq!(commands, keys + 1);
        assert_eq!(of(&all, "directory").next().unwrap()["store"], store.name());
        let changed: Vec<_> =
            files(&dir).into_iter().filter(|(name, bytes)| before.get(name) != Some(bytes)).collect();
        // LMDB's table of readers.
        let changed: Vec<_> =
            changed.iter().map(|(name, _)| name).filter(|name| !name.ends_with("lock.mdb")).collect();
        assert!(changed.is_empty(), "{changed:?}");
    }
}

/// Commands that no other bytes look like, two of three changed on disk by a bit.
#[test]
fn a_damaged_entry_is_told() {
    for store in engines() {
        let (cluster, _home) = alone(store);
        let dir = cluster.node(1).place.directory.clone();
        let mut client = Client::connect(&cluster.node(1).place.client_addr, LONG).unwrap();
        let marks = ["coracles-are-small", "coracles-are-round", "coracles-are-light"];
        for mark in marks {
            ask(&mut client, &format!("SET {mark} {mark}"));
        }
        drop(cluster);
        let (code, all) = dump(&dir);
        let commands: Vec<_> = of(&all, "entry").filter(|entry| entry["kind"] == "command").collect();
        assert_eq!((code, commands.len()), (0, 3), "{}", store.name());
        let index = |mark: usize| commands[mark]["index"].as_u64().unwrap();
        for mark in [marks[0], marks[2]] {
            let mut flipped = 0;
            for (name, bytes) in files(&dir) {
                for at in (0..bytes.len()).filter(|at| bytes[*at..].starts_with(mark.as_bytes())) {
                    flip(&dir, &name, at, 3);
                    flipped += 1;
                }
            }
            assert!(flipped >= 2, "{}: the key and the value", store.name());
        }
        let before = files(&dir);
        let (code, text) = verify(&dir);
        assert!(
            code == 1 && text.contains("damaged: ") && text.contains("store-"),
            "{}, {code}: {text}",
            store.name()
        );
        let (code, all) = dump(&dir);
        assert_eq!(code, 1, "{}", store.name());
        if store == Store::Lmdb {
            // Each damaged entry is named, and what is beside it can be read.
            assert_eq!(text.lines().filter(|line| line.starts_with("damaged: ")).count(), 2, "{text}");
            assert!([0, 2].iter().all(|mark| text.contains(&format!("entry {}: ", index(*mark)))), "{text}");
            let read: Vec<_> = of(&all, "entry").map(|entry| entry["index"].as_u64().unwrap()).collect();
            assert_eq!(read, (1..index(0)).chain([index(1)]).collect::<Vec<_>>());
            assert!(of(&all, "entry").all(|entry| entry["in_doubt"] != true), "{all:?}");
        }
        let said = refused(store.name(), &dir);
        assert!(said.contains("damaged"), "{}: {said}", store.name());
        let changed = |name: &str| !name.ends_with("lock.mdb") && !name.contains("LOG");
        let after = files(&dir);
        let stores = before.keys().filter(|name| changed(name) && before[*name] != after[*name]);
        assert_eq!(stores.count(), 0, "{}: what is damaged is left as it is", store.name());
    }
}
