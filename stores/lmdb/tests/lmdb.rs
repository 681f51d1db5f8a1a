//! LMDB keeps the contract, grows, fills up, survives kills, and can be looked at.

use coracle::in_full;
use coracle::raft::{Incarnation, Index, NodeId};
use coracle::storage::contract::model::{append, changes};
use coracle::storage::contract::{Victim, check, check_killed, write_until_killed};
use coracle::storage::{Engine, Identity, StoreError};
use coracle_lmdb::Lmdb;
use std::path::Path;
use std::process::Command;

const IDENTITY: Identity = Identity { node: NodeId(1), incarnation: Incarnation(7), cluster: None };

/// A map that has to grow many times.
fn small() -> Lmdb {
    Lmdb { map_bytes: 64 << 10, ..Lmdb::default() }
}

#[test]
fn lmdb_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    check(&small(), dir.path()).unwrap_or_else(|broken| panic!("{broken}"));
}

#[test]
fn a_map_that_may_not_grow_is_told_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Lmdb { max_map_bytes: 1 << 20, ..small() };
    let mut store = engine.open(dir.path(), IDENTITY).unwrap();
    store.load(&mut |_| {}).unwrap();
    let (error, last) = (1..)
        .find_map(|at| changes(vec![append(1, at..=at, 10_000)]).run(&mut *store).err().map(|e| (e, at - 1)))
        .unwrap();
    assert!(
        matches!(&error, StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull)
    );
    assert!(in_full(&error).contains("max_map_bytes"), "{error}");
    let finished = changes(vec![append(1, last + 1..=last + 1, 0)]).run(&mut *store).unwrap_err();
    assert!(in_full(&finished).contains("finished by an earlier failure"), "{finished}");
    drop(store);
    let mut store = Lmdb::default().open(dir.path(), IDENTITY).unwrap();
    assert_eq!(store.load(&mut |_| {}).unwrap().last.index, Index(last));
    changes(vec![append(1, last + 1..=last + 9, 10_000)]).run(&mut *store).unwrap();
}

#[test]
fn the_bytes_on_disk_are_those_of_the_data_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Lmdb::default().open(dir.path(), IDENTITY).unwrap();
    store.load(&mut |_| {}).unwrap();
    let reader = store.reader();
    let told = || (reader.disk_bytes(), std::fs::metadata(dir.path().join("data.mdb")).unwrap().len());
    let (empty, file) = told();
    assert!(empty == file && empty > 0);
    changes(vec![append(1, 1..=300, 10_000)]).run(&mut *store).unwrap();
    let (full, file) = told();
    assert!(full == file && full > 3_000_000, "{full}, {file}: measured at once after a megabyte");
    changes(vec![append(1, 301..=301, 100_000)]).run(&mut *store).unwrap();
    store.idle().unwrap();
    let (idle, file) = told();
    assert!(idle == file && idle > full, "{idle}, {file}: and when nothing comes");
    drop((reader, store));
    let looked = Lmdb::inspect(dir.path()).unwrap().unwrap();
    assert_eq!(looked.reader.disk_bytes(), file);
}

/// Without a look at its length first, the system ends the process (SIGBUS).
#[test]
fn st_9_a_file_that_was_cut_is_damage_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data.mdb");
    let mut store = small().open(dir.path(), IDENTITY).unwrap();
    store.load(&mut |_| {}).unwrap();
    for at in 1..=300 {
        changes(vec![append(1, at..=at, if at % 3 == 0 { 10_000 } else { 100 })]).run(&mut *store).unwrap();
    }
    drop(store);
    let whole = std::fs::read(&data).unwrap();
    for share in [2, 4, 10, 100] {
        std::fs::write(&data, &whole[..whole.len() / share]).unwrap();
        for error in [small().open(dir.path(), IDENTITY).err(), Lmdb::inspect(dir.path()).err()] {
            let error = error.expect("it is not opened");
            let StoreError::Damaged { path, detail, .. } = &error else { panic!("{error}") };
            assert!(path.ends_with("data.mdb") && detail.contains("cut"), "{error}");
        }
    }
    std::fs::write(&data, &whole).unwrap();
    assert_eq!(small().open(dir.path(), IDENTITY).unwrap().load(&mut |_| {}).unwrap().last.index, Index(300));
}

/// What the tests below run as a child, again and again.
#[test]
#[ignore = "writes until it is killed; run by the other tests"]
fn child() {
    let dir = std::env::var("CORACLE_CHILD_DIR").unwrap();
    let error = write_until_killed(&small(), Path::new(&dir), &mut std::io::stdout()).unwrap_err();
    println!("{error}");
    // Before the harness has the last word.
    std::process::exit(1);
}

/// Runs [`child`] below a shell that sets limits first.
fn start_child(dir: &Path, shell: &str) -> Victim {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{shell} exec \"$0\" --exact child --ignored --nocapture"));
    command.arg(std::env::current_exe().unwrap()).env("CORACLE_CHILD_DIR", dir);
    Victim::start(&mut command).unwrap()
}

#[test]
fn rs_3_a_killed_process_leaves_all_that_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for rounds in [1, 40, 7, 150, 3] {
        let mut child = start_child(dir.path(), "");
        child.wait_for(acknowledged + rounds).unwrap();
        acknowledged = child.kill().unwrap();
        check_killed(&small(), dir.path(), acknowledged).unwrap_or_else(|broken| panic!("{broken}"));
    }
}

/// ST-5: a file that may not grow stands for a disk that is full.
#[test]
fn st_5_a_full_disk_is_told_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = start_child(dir.path(), "trap '' XFSZ; ulimit -f 400; ulimit -t 60;");
    let error = child.wait_for(u64::MAX).unwrap_err().to_string();
    assert!(error.contains("cannot write to") && error.contains("data.mdb"), "{error}");
    let acknowledged = child.kill().unwrap();
    assert!(acknowledged > 10, "{error}");
    check_killed(&small(), dir.path(), acknowledged).unwrap_or_else(|broken| panic!("{broken}"));
}

#[test]
fn a_log_can_be_looked_at_by_another_process_while_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Lmdb::inspect(dir.path()).unwrap().is_none());
    let mut child = start_child(dir.path(), "");
    child.wait_for(50).unwrap();
    let looked = Lmdb::inspect(dir.path()).unwrap().unwrap();
    assert_eq!((looked.node, looked.recovered.hard_state.term.0 >= 50), (NodeId(3), true));
    // The other process makes the map larger meanwhile.
    child.wait_for(400).unwrap();
    let first = looked.recovered.last.index;
    let found = looked.reader.entries(first, Index(u64::MAX), 1000);
    assert!(!matches!(found, Err(coracle::storage::ReadLogError::Store(_))), "{found:?}");
    child.kill().unwrap();
    drop(looked);
    let before = std::fs::read(dir.path().join("data.mdb")).unwrap();
    let looked = Lmdb::inspect(dir.path()).unwrap().unwrap();
    assert!(looked.recovered.hard_state.term.0 >= 400);
    drop(looked);
    assert_eq!(std::fs::read(dir.path().join("data.mdb")).unwrap(), before, "looking changes nothing");
}
