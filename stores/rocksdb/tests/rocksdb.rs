//! RocksDB keeps the contract, fills up, survives kills, and can be looked at.

use coracle::raft::{Incarnation, Index, NodeId};
use coracle::storage::contract::model::{append, changes};
use coracle::storage::contract::{Victim, check, check_killed, write_until_killed};
use coracle::storage::{Engine, Identity};
use coracle_rocksdb::RocksDb;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Buffers that have to be written out many times.
fn small() -> RocksDb {
    RocksDb { write_buffer_bytes: 64 << 10, ..RocksDb::default() }
}

#[test]
fn rocksdb_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    check(&small(), dir.path()).unwrap_or_else(|broken| panic!("{broken}"));
}

#[test]
fn the_bytes_on_disk_are_those_of_all_files() {
    let dir = tempfile::tempdir().unwrap();
    let files = || contents(dir.path()).iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
    let identity = Identity { node: NodeId(1), incarnation: Incarnation(7), cluster: None };
    // The buffers are larger than what is written, so nothing happens in the background.
    let mut store = RocksDb::default().open(dir.path(), identity).unwrap();
    store.load(&mut |_| {}).unwrap();
    let reader = store.reader();
    assert_eq!(reader.disk_bytes(), files());
    changes(vec![append(1, 1..=300, 10_000)]).run(&mut *store).unwrap();
    assert!(reader.disk_bytes() > 3_000_000, "measured at once after a megabyte");
    assert_eq!(reader.disk_bytes(), files());
    changes(vec![append(1, 301..=301, 100_000)]).run(&mut *store).unwrap();
    store.idle().unwrap();
    assert_eq!(reader.disk_bytes(), files(), "and when nothing comes");
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
    assert!(error.contains("cannot write to"), "{error}");
    let acknowledged = child.kill().unwrap();
    assert!(acknowledged > 10, "{error}");
    check_killed(&small(), dir.path(), acknowledged).unwrap_or_else(|broken| panic!("{broken}"));
}

/// RocksDB is not let meet a full disk.
#[test]
fn st_5_where_too_little_is_free_nothing_is_begun() {
    let dir = tempfile::tempdir().unwrap();
    let greedy = RocksDb { write_buffer_bytes: 1 << 60, ..RocksDb::default() };
    let identity = Identity { node: NodeId(1), incarnation: Incarnation(7), cluster: None };
    let error = coracle::in_full(&greedy.open(dir.path(), identity).err().unwrap());
    assert!(error.contains("No space left on device") && error.contains("2305843009213693952"), "{error}");
    assert!(error.contains(&dir.path().display().to_string()), "{error}");
    assert!(!greedy.exists(dir.path()).unwrap());
}

#[test]
fn a_log_can_be_looked_at_by_another_process_while_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    assert!(RocksDb::inspect(dir.path()).unwrap().is_none());
    let mut child = start_child(dir.path(), "");
    child.wait_for(50).unwrap();
    let looked = RocksDb::inspect(dir.path()).unwrap().unwrap();
    assert_eq!((looked.node, looked.recovered.hard_state.term.0 >= 50), (NodeId(3), true));
    // Its files come and go meanwhile; what was open stays readable.
    child.wait_for(400).unwrap();
    let first = looked.recovered.last.index;
    assert_eq!(looked.reader.entries(first, Index(u64::MAX), 1000).unwrap()[0].id(), looked.recovered.last);
    drop(looked);
    // Again and again, while buffers become tables and tables are compacted.
    for round in (410..1000).step_by(10) {
        child.wait_for(round).unwrap();
        let looked = RocksDb::inspect(dir.path()).unwrap_or_else(|error| panic!("{round}: {error}")).unwrap();
        let term = looked.recovered.hard_state.term.0;
        assert!(looked.damage.is_empty() && term >= round, "{round}, {term}: {:?}", looked.damage);
    }
    child.kill().unwrap();
    let before = contents(dir.path());
    let looked = RocksDb::inspect(dir.path()).unwrap().unwrap();
    assert!(looked.recovered.hard_state.term.0 >= 400);
    drop(looked);
    assert_eq!(contents(dir.path()), before, "looking changes nothing");
}

/// All files and their bytes.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = std::fs::read_dir(dir).unwrap().map(|item| item.unwrap().path());
    let mut files: Vec<_> = paths.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    files.sort();
    files
}
