//! Directories as a loss of power or damage leaves them, and what a start makes of each.

use super::*;
use crate::RocksDb;
use coracle::raft::{Incarnation, Index, NodeId};
use coracle::storage::contract::model::{append, changes, hard_state};
use coracle::storage::disk::DirDisk;
use coracle::storage::{Engine, Identity, LogStore, WriteBatch};
use rocksdb::DB;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const IDENTITY: Identity = Identity { node: NodeId(1), incarnation: Incarnation(7), cluster: None };

/// Opens the store and says how many entries it holds.
fn open(dir: &Path) -> Result<(Box<dyn LogStore>, u64), StoreError> {
    let mut store = RocksDb::default().open(dir, IDENTITY)?;
    let last = store.load(&mut |_| {})?.last.index.0;
    Ok((store, last))
}

fn extend(store: &mut dyn LogStore, last: u64) {
    changes(vec![append(1, last + 1..=last + 10, 100)]).run(store).unwrap();
}

/// The names of all files, ascending.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|item| item.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn copy(from: &Path, to: &Path) {
    for name in names(from) {
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

/// The files that RocksDB itself made or changed.
fn of_rocksdb(dir: &Path) -> Vec<String> {
    let ours = |name: &String| name != STARTING && name != "lock" && !name.starts_with("LOG");
    names(dir).into_iter().filter(ours).collect()
}

fn subsets(names: &[String]) -> impl Iterator<Item = Vec<&String>> {
    let chosen = |set: usize| names.iter().enumerate().filter(move |(at, _)| set >> at & 1 == 1);
    (0..1usize << names.len()).map(move |set| chosen(set).map(|(_, name)| name).collect())
}

/// A start is cut short: of all that it did to names any part survives, in any order.
#[test]
fn st_1_a_start_that_lost_any_of_its_names() {
    let home = tempfile::tempdir().unwrap();
    let (before, after) = (home.path().join("before"), home.path().join("after"));
    // The database is made at the first start; the second finds entries; at the third tables, too.
    for (start, entries) in [(1, 0), (2, 10), (3, 20)] {
        if entries > 0 {
            let (mut store, last) = open(&before).unwrap();
            extend(&mut *store, last);
        }
        let disk = DirDisk::open(&before).unwrap();
        begin(&disk).unwrap();
        drop(disk);
        fs::create_dir_all(&after).unwrap();
        copy(&before, &after);
        drop(DB::open(&crate::map::options(&RocksDb::default()).unwrap(), &after).unwrap());
        let (old, new) = (of_rocksdb(&before), of_rocksdb(&after));
        let made: Vec<String> = new.iter().filter(|name| !old.contains(name)).cloned().collect();
        let gone: Vec<String> = old.iter().filter(|name| !new.contains(name)).cloned().collect();
        assert!(made.iter().any(|name| name.starts_with(MANIFEST)), "{made:?}");
        assert!(entries == 0 || gone.iter().any(|name| name.ends_with(LOG)), "{gone:?}");
        let check = |dir: &Path, what: &str, kept: &[&String]| {
            let holds = |entries| {
                let (mut store, last) = open(dir).unwrap_or_else(|error| panic!("{what}, {kept:?}: {error}"));
                assert_eq!(last, entries, "start {start}, {what}: {kept:?}");
                extend(&mut *store, last);
            };
            holds(entries);
            holds(entries + 10);
            assert!(!names(dir).iter().any(|name| name == STARTING));
            fs::remove_dir_all(dir).unwrap();
        };
        let cut = home.path().join("cut");
        let mut named = made.clone();
        named.push(CURRENT.into());
        for kept in subsets(&named) {
            fs::create_dir(&cut).unwrap();
            copy(&before, &cut);
            for name in &kept {
                fs::copy(after.join(name), cut.join(name)).unwrap();
            }
            check(&cut, "before RocksDB synced the directory", &kept);
        }
        for kept in subsets(&gone) {
            fs::create_dir(&cut).unwrap();
            copy(&after, &cut);
            for name in &kept {
                fs::copy(before.join(name), cut.join(name)).unwrap();
            }
            check(&cut, "after that, with what it removed", &kept);
        }
        fs::remove_dir_all(&after).unwrap();
    }
}

#[test]
fn files_of_a_version_that_was_not_tested_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    let note = dir.path().join("OPTIONS-999999");
    fs::write(&note, "[Version]\n  rocksdb_version=8.1.1\n").unwrap();
    let before = of_rocksdb(dir.path());
    let error = open(dir.path()).err().unwrap().to_string();
    assert!(error.contains("8.1.1") && error.contains("OPTIONS-999999"), "{error}");
    assert!(RocksDb::inspect(dir.path()).is_err());
    assert_eq!(of_rocksdb(dir.path()), before);
    fs::write(&note, "").unwrap();
    assert!(open(dir.path()).is_ok(), "one that was torn says nothing");
}

#[test]
fn st_9_a_note_that_is_not_whole_says_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path()).unwrap();
    extend(&mut *store, 0);
    drop(store);
    begin(&DirDisk::open(dir.path()).unwrap()).unwrap();
    let note = fs::read(dir.path().join(STARTING)).unwrap();
    for cut in 0..note.len() {
        fs::write(dir.path().join(STARTING), &note[..cut]).unwrap();
        assert_eq!(open(dir.path()).unwrap().1, 10, "{cut}");
    }
}

/// Where no start was cut short, a file that is missing is a loss.
#[test]
fn st_9_a_missing_file_is_not_mended() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path()).unwrap();
    extend(&mut *store, 0);
    drop(store);
    let missing = |name: String, contents: Option<&str>| {
        let kept = tempfile::tempdir().unwrap();
        copy(dir.path(), kept.path());
        fs::remove_file(kept.path().join(&name)).unwrap();
        contents.into_iter().for_each(|text| fs::write(kept.path().join(&name), text).unwrap());
        let before = of_rocksdb(kept.path());
        for _ in 0..3 {
            let error = open(kept.path()).err().unwrap();
            assert!(matches!(&error, StoreError::Damaged { path, .. } if path.ends_with(CURRENT)), "{error}");
            assert_eq!(of_rocksdb(kept.path()), before);
        }
    };
    missing(manifest(dir.path()).file_name().unwrap().to_str().unwrap().to_owned(), None);
    missing(CURRENT.to_owned(), None);
    missing(CURRENT.to_owned(), Some(""));
    missing(CURRENT.to_owned(), Some("MANIFEST-000999\n"));
}

/// The log's file, and its bytes.
fn newest(dir: &Path) -> (std::path::PathBuf, Vec<u8>) {
    let name = names(dir).into_iter().rfind(|name| name.ends_with(LOG)).unwrap();
    (dir.join(&name), fs::read(dir.join(name)).unwrap())
}

#[test]
fn st_3_what_is_torn_is_cut_off_and_what_is_damaged_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path()).unwrap();
    extend(&mut *store, 0);
    let whole = newest(dir.path()).1.len();
    extend(&mut *store, 10);
    // As if it were killed here: no mark proves the second commit.
    let copied = tempfile::tempdir().unwrap();
    copy(dir.path(), copied.path());
    store.idle().unwrap();
    drop(store);
    let (path, mut bytes) = newest(copied.path());
    bytes[whole + 500] ^= 1;
    fs::write(&path, &bytes).unwrap();
    // A look changes nothing, and shows what is whole.
    let looked = RocksDb::inspect(copied.path()).unwrap().unwrap();
    assert_eq!(looked.recovered.last.index, Index(10));
    drop(looked);
    assert_eq!(newest(copied.path()), (path, bytes));
    assert_eq!(open(copied.path()).unwrap().1, 10);
    // With the mark after it the same is damage.
    let (path, mut bytes) = newest(dir.path());
    bytes[whole + 500] ^= 1;
    fs::write(&path, &bytes).unwrap();
    for error in [open(dir.path()).err().unwrap(), RocksDb::inspect(dir.path()).err().unwrap()] {
        let StoreError::Damaged { path: named, offset, .. } = &error else { panic!("{error}") };
        assert_eq!((named, *offset as usize), (&path, whole), "{error}");
    }
    assert_eq!(newest(dir.path()), (path, bytes));
}

/// A disk that fails for good after so many operations that change something.
struct Cut<'a>(&'a dyn Disk, AtomicUsize);

impl Cut<'_> {
    fn next(&self) -> io::Result<()> {
        let left = self.1.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
        left.map(|_| ()).map_err(|_| io::Error::other("cut"))
    }
}

impl Disk for Cut<'_> {
    fn path(&self) -> &Path {
        self.0.path()
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.0.open(name)
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.next().and_then(|()| self.0.create(name))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.next().and_then(|()| self.0.rename(from, to))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.next().and_then(|()| self.0.remove(name))
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.next().and_then(|()| self.0.sync_dir())
    }
}

/// Mending is cut short, too, at each of its operations.
#[test]
fn st_1_a_start_that_is_cut_short_again_and_again() {
    let home = tempfile::tempdir().unwrap();
    let (before, cut) = (home.path().join("before"), home.path().join("cut"));
    let (mut store, _) = open(&before).unwrap();
    extend(&mut *store, 0);
    drop(store);
    begin(&DirDisk::open(&before).unwrap()).unwrap();
    // What RocksDB's start made survived, and so did what it removed.
    let after = home.path().join("after");
    fs::create_dir(&after).unwrap();
    copy(&before, &after);
    drop(DB::open(&crate::map::options(&RocksDb::default()).unwrap(), &after).unwrap());
    copy(&after, &before);
    for operations in 0.. {
        fs::create_dir(&cut).unwrap();
        copy(&before, &cut);
        let disk = DirDisk::open(&cut).unwrap();
        let failing = Cut(&disk, AtomicUsize::new(operations));
        let done = begin(&failing).is_ok() && end(&failing).is_ok();
        drop(disk);
        let (mut store, last) = open(&cut).unwrap_or_else(|error| panic!("{operations}: {error}"));
        assert_eq!(last, 10, "{operations}");
        extend(&mut *store, 10);
        drop(store);
        assert_eq!(open(&cut).unwrap().1, 20, "{operations}");
        fs::remove_dir_all(&cut).unwrap();
        if done {
            assert!(operations > 12, "{operations}");
            break;
        }
    }
}

/// Where a buffer becomes a table: the state in which its log is still there, and is not any more. That log ends
/// with a vote, which no later one covers up.
struct Flushed {
    before: tempfile::TempDir,
    after: tempfile::TempDir,
    /// The last entry, and the term of the vote.
    holds: (u64, u64),
}

fn flush() -> Flushed {
    loop {
        let small = RocksDb { write_buffer_bytes: 64 << 10, ..RocksDb::default() };
        let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let home = tempfile::tempdir().unwrap();
        let mut store = small.open(home.path(), IDENTITY).unwrap();
        store.load(&mut |_| {}).unwrap();
        copy(home.path(), before.path());
        let logs = || names(home.path()).into_iter().filter(|name| name.ends_with(LOG)).collect::<Vec<_>>();
        // The same file, which goes on growing, and stays when it is removed there.
        let old = logs().remove(0);
        fs::remove_file(before.path().join(&old)).unwrap();
        fs::hard_link(home.path().join(&old), before.path().join(&old)).unwrap();
        let mut last = 0;
        let begins_new = |store: &mut dyn LogStore, batch: WriteBatch| {
            store.write(&batch).unwrap();
            logs() != [old.clone()]
        };
        let by_entries = loop {
            let vote = WriteBatch { hard_state: hard_state(last + 2, Some(1)), changes: vec![] };
            if begins_new(&mut *store, vote) {
                break false;
            }
            last += 1;
            let entries = WriteBatch { hard_state: None, changes: vec![append(1, last..=last, 100)] };
            if begins_new(&mut *store, entries) {
                break true;
            }
        };
        let start = std::time::Instant::now();
        while logs().contains(&old) {
            assert!(start.elapsed().as_secs() < 30, "the table is not made");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        if !by_entries {
            continue;
        }
        extend(&mut *store, last);
        store.idle().unwrap();
        drop(store);
        copy(home.path(), after.path());
        fs::copy(after.path().join(&logs()[0]), before.path().join(&logs()[0])).unwrap();
        return Flushed { before, after, holds: (last + 10, last + 1) };
    }
}

fn manifest(dir: &Path) -> std::path::PathBuf {
    dir.join(fs::read_to_string(dir.join(CURRENT)).unwrap().trim_end())
}

/// Copies a directory, changes the copy somewhere, and opens it.
fn changed(at: usize, from: &Path, change: impl FnOnce(&Path)) -> Result<(u64, u64), StoreError> {
    let dir = tempfile::tempdir().unwrap();
    copy(from, dir.path());
    change(dir.path());
    // A look at what is damaged tries again, and takes its time.
    let looked = at.is_multiple_of(40).then(|| RocksDb::inspect(dir.path()));
    let opened = RocksDb::default().open(dir.path(), IDENTITY).and_then(|mut store| store.load(&mut |_| {}));
    let opened = opened.map(|found| (found.last.index.0, found.hard_state.term.0));
    match (&looked, &opened) {
        (None, _) => {}
        (Some(Ok(Some(looked))), Ok(holds)) => assert_eq!(looked.recovered.last.index.0, holds.0),
        // What only a start can mend.
        (Some(Err(error)), Ok(_)) => assert!(coracle::in_full(error).contains("was cut short"), "{error}"),
        (Some(looked), Err(error)) => assert!(looked.is_err(), "a look sees nothing of: {error}"),
        (Some(Ok(None)), _) => panic!("a look sees no log"),
    }
    opened
}

/// The manifest's last records were written and not synced.
#[test]
fn st_3_a_manifest_that_lost_its_end() {
    let Flushed { before, after, holds } = flush();
    let (old, new) = (fs::read(manifest(before.path())).unwrap(), fs::read(manifest(after.path())).unwrap());
    assert!(new.len() > old.len() && new.starts_with(&old));
    assert_eq!(changed(0, before.path(), |_| {}).unwrap(), holds);
    let mut refused = 0;
    for end in (old.len()..=new.len()).step_by(7) {
        for zeros in [0, 3, new.len() - end] {
            let torn = [&new[..end], &vec![0; zeros]].concat();
            let write = |dir: &Path| fs::write(manifest(dir), &torn).unwrap();
            let copy_tables = |dir: &Path| {
                for name in names(after.path()).iter().filter(|name| name.ends_with(TABLE)) {
                    fs::copy(after.path().join(name), dir.join(name)).unwrap();
                }
                write(dir);
            };
            let found = changed(end, before.path(), copy_tables);
            assert_eq!(found.unwrap_or_else(|error| panic!("{end}, {zeros}: {error}")), holds);
            // Where the log of what it does not list is gone, it was synced, and is damaged.
            match changed(end, after.path(), write) {
                Ok(found) => assert_eq!(found, holds, "{end}, {zeros}"),
                Err(StoreError::Damaged { .. }) => refused += 1,
                Err(error) => panic!("{end}, {zeros}: {error}"),
            }
        }
    }
    assert!(refused > 20, "{refused}");
}

#[test]
fn st_9_a_flipped_bit_in_the_manifest_or_between_two_logs() {
    let Flushed { before, after, holds } = flush();
    let old_log = |dir: &Path| dir.join(names(dir).into_iter().find(|name| name.ends_with(LOG)).unwrap());
    let end = fs::metadata(old_log(before.path())).unwrap().len() as usize;
    type Of<'a> = &'a dyn Fn(&Path) -> std::path::PathBuf;
    let files: [(&Path, Of<'_>, usize); 3] =
        [(before.path(), &manifest, 0), (after.path(), &manifest, 0), (before.path(), &old_log, end - 300)];
    for (dir, file, from) in files {
        let mut refused = 0;
        let len = fs::metadata(file(dir)).unwrap().len() as usize;
        for at in (from..len).step_by(3) {
            let flip = |dir: &Path| {
                let mut bytes = fs::read(file(dir)).unwrap();
                bytes[at] ^= 1 << (at % 8);
                fs::write(file(dir), bytes).unwrap();
            };
            match changed(at, dir, flip) {
                Ok(found) => assert_eq!(found, holds, "{at} of {len} in {:?}", file(dir)),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 0, "{:?}", file(dir));
    }
}
