//! What a loss of power may leave of RocksDB's files that RocksDB refuses to start from, and what damage it does not
//! see.
//!
//! A file system may lose any unsynced sector, and of unsynced changes of names it may keep a later one and
//! lose an earlier one. RocksDB is written for file systems that keep more of an order:
//!
//! - A start makes a table, a manifest that lists it, and renames the file `CURRENT`, which names the manifest;
//!   only then it syncs the directory. If the last of these names survives without the others, nothing
//!   opens. So [`begin`] writes down which files there are before RocksDB starts, and [`end`] removes that note
//!   when the start has become durable. Where the note is found, nothing was acknowledged since; and as
//!   long as every file of it is there, the state before that start is, too: RocksDB changes no
//!   file in place, and removes none before that sync. [`begin`] goes back to it. If one is gone, the sync was done.
//! - What is missing at the unsynced end of its write-ahead log or its manifest it takes for damage, or, where a
//!   length is what is missing, any damage for the end. [`begin`] cuts off what is torn, and refuses what is damaged.
//!
//! What is what, is told by what follows. Every commit of ours to the write-ahead log is synced before the next begins, so
//! the beginning of a later one proves that the one before it was durable; the newest is proved by an empty one,
//! written when nothing comes and when the store is closed. In doubt it is damage: where a torn commit holds a value
//! that itself looks like a record, the start is refused, and nothing is lost. Commits are numbered by what they change,
//! so none is missing between two files of the log either. The manifest says with which file the log that counts
//! begins, or, after a start, after which change. RocksDB removes that file only when a later record of the
//! manifest is durable. So as long as the log begins there, it holds all that a cut manifest does not list.
//!
//! All of this can be cut short anywhere, and begun again.

use crate::records::{self, Ending};
use coracle::storage::StoreError;
use coracle::storage::disk::{Disk, DiskFile};
use std::io;
use std::sync::Arc;

const CURRENT: &str = "CURRENT";
const MANIFEST: &str = "MANIFEST-";
const LOG: &str = ".log";
const TABLE: &str = ".sst";

/// The note: a line for each file that was there before a start, the manifest that counts first, if there is one;
/// and how many these are.
const STARTING: &str = "starting";

/// RocksDB's notes of its options, and the version whose formats were tested, as `build.rs` has it too.
const OPTIONS: &str = "OPTIONS-";
const TESTED: &str = "7.8.";

/// What is written under this name becomes another file when it is whole.
const TEMPORARY: &str = "starting.tmp";

/// Brings the files of a database, if there are any, to a state that RocksDB starts from. Nobody else may have
/// the directory open. Fails with [`StoreError::Damaged`], and cuts nothing off, where what was acknowledged is not
/// there.
pub(crate) fn begin(disk: &dyn Disk) -> Result<(), StoreError> {
    check_version(disk)?;
    if was_cut_short(disk)? {
        go_back(disk)?;
    }
    let files = look(disk)?;
    for File { name, file, ending, .. } in &files.records {
        if ending.broken.is_some() {
            file.set_len(ending.end).map_err(failed("cut", disk, name))?;
        }
        // After a kill, what was read may live in the page cache only.
        file.sync_data().map_err(failed("sync", disk, name))?;
    }
    let mut note: Vec<String> = files.manifest.into_iter().collect();
    note.extend(list(disk)?.into_iter().filter(|name| name.ends_with(LOG) || name.ends_with(TABLE)));
    note.push(note.len().to_string());
    replace(disk, STARTING, &note.join("\n"))
}

/// To be called once RocksDB has started, and before anything is answered.
pub(crate) fn end(disk: &dyn Disk) -> Result<(), StoreError> {
    disk.sync_dir().map_err(failed("sync", disk, ""))?;
    disk.remove(STARTING).map_err(failed("remove", disk, STARTING))?;
    disk.sync_dir().map_err(failed("sync", disk, ""))
}

/// The files that may matter to a reader: if one is gone behind its back, it has to begin anew.
pub(crate) fn in_use(disk: &dyn Disk) -> Result<Vec<String>, StoreError> {
    let counts = |name: &String| name.starts_with(MANIFEST) || name.ends_with(LOG);
    Ok(list(disk)?.into_iter().filter(counts).collect())
}

/// What [`begin`] would do, without changing anything: true if it would mend something, an error if it would refuse.
pub(crate) fn needs_mending(disk: &dyn Disk) -> Result<bool, StoreError> {
    check_version(disk)?;
    Ok(was_cut_short(disk)? || look(disk)?.records.iter().any(|file| file.ending.broken.is_some()))
}

/// Refuses files that another version wrote than the one whose formats were tested here. RocksDB notes its version with
/// its options, at each start.
fn check_version(disk: &dyn Disk) -> Result<(), StoreError> {
    let number = |name: &String| name.strip_prefix(OPTIONS).and_then(|number| number.parse::<u64>().ok());
    let newest = list(disk)?.into_iter().filter(|name| number(name).is_some()).max_by_key(number);
    let Some(newest) = newest else { return Ok(()) };
    let text = text(disk, &newest)?;
    let version = text.lines().find_map(|line| line.trim().strip_prefix("rocksdb_version="));
    match version {
        Some(version) if !version.starts_with(TESTED) => Err(StoreError::Refused(format!(
            "{} says that RocksDB {version} wrote it, and this program is tested with {TESTED}x alone: go back to \
             the program that wrote it, or give the node an empty directory",
            disk.path().join(&newest).display()
        ))),
        _ => Ok(()),
    }
}

fn was_cut_short(disk: &dyn Disk) -> Result<bool, StoreError> {
    Ok(list(disk)?.iter().any(|name| name == STARTING))
}

/// Makes the files of the note all there are, and the manifest among them the one that counts, unless one of them is
/// gone.
fn go_back(disk: &dyn Disk) -> Result<(), StoreError> {
    let (note, names) = (text(disk, STARTING)?, list(disk)?);
    let mut before: Vec<&str> = note.lines().collect();
    let whole = before.pop().and_then(|count| count.parse().ok()) == Some(before.len());
    if !whole || !before.iter().all(|file| names.iter().any(|name| name == file)) {
        return Ok(());
    }
    match before.first().filter(|name| name.starts_with(MANIFEST)) {
        Some(manifest) => replace(disk, CURRENT, manifest)?,
        None if names.iter().any(|name| name == CURRENT) => {
            disk.remove(CURRENT).map_err(failed("remove", disk, CURRENT))?;
            disk.sync_dir().map_err(failed("sync", disk, ""))?;
        }
        None => {}
    }
    for name in names.iter().filter(|name| is_rocksdbs(name) && !before.contains(&name.as_str())) {
        disk.remove(name).map_err(failed("remove", disk, name))?;
    }
    disk.sync_dir().map_err(failed("sync", disk, ""))
}

/// Whether a file of this name holds what was written.
fn is_rocksdbs(name: &str) -> bool {
    name.starts_with(MANIFEST) || name.ends_with(LOG) || name.ends_with(TABLE)
}

/// What is there, and how its files of records end.
#[derive(Default)]
struct Files {
    /// The manifest that counts; none if there is no database.
    manifest: Option<String>,
    /// It, and the files of the write-ahead log that count, ascending.
    records: Vec<File>,
}

struct File {
    name: String,
    file: Arc<dyn DiskFile>,
    ending: Ending,
}

/// Reads the manifest and the write-ahead log. Fails if they are damaged.
fn look(disk: &dyn Disk) -> Result<Files, StoreError> {
    let names = list(disk)?;
    if !names.iter().any(|name| name == CURRENT || is_rocksdbs(name)) {
        return Ok(Files::default());
    }
    let damaged = |name: &str, offset, detail: &str| StoreError::Damaged {
        path: disk.path().join(name),
        offset,
        detail: detail.into(),
    };
    if !names.iter().any(|name| name == CURRENT) {
        return Err(damaged(CURRENT, 0, "it is missing, but there are other files of RocksDB"));
    }
    let manifest = text(disk, CURRENT)?.trim_end().to_owned();
    if !(manifest.starts_with(MANIFEST) && names.contains(&manifest)) {
        return Err(damaged(
            CURRENT,
            0,
            &format!("it names {manifest:?}, which is no manifest that is here"),
        ));
    }
    let mut from = Beginning::default();
    let found = open(disk, &manifest, &mut |record| from.take(record))?;
    let manifest_is = if found.ending.broken.is_none() { "whole" } else { "damaged, too" };
    let mut files = Files { manifest: Some(manifest.clone()), records: vec![found] };

    let number = |name: &str| name.strip_suffix(LOG)?.parse::<u64>().ok();
    let logs = names.iter().filter_map(|name| Some((number(name)?, name)));
    let mut logs: Vec<(u64, &String)> = logs.filter(|(number, _)| *number >= from.log).collect();
    logs.sort_unstable();
    // Where the next commit has to go on.
    let named = logs.first().is_some_and(|(number, _)| *number == from.log);
    let mut next = if named { None } else { Some(from.change.unwrap_or(0) + 1) };
    for (_, name) in logs {
        let mut gap = false;
        let found = open(disk, name, &mut |record| {
            if let Some((first, count)) = changes(record) {
                gap |= next.is_some_and(|next| next != first);
                next = Some(first + u64::from(count));
            }
        })?;
        let ending = found.ending;
        if let Some(broken) = ending.broken.filter(|_| ending.followed) {
            return Err(damaged(
                name,
                broken,
                "a record of RocksDB's write-ahead log is not whole, and later ones follow",
            ));
        }
        if gap {
            let detail = format!(
                "RocksDB's write-ahead log does not go on here where the file before it ends, or where {manifest}, \
                 which is {manifest_is}, says that it begins"
            );
            return Err(damaged(name, 0, &detail));
        }
        files.records.push(found);
    }
    Ok(files)
}

/// Opens a file and shows its records.
fn open(disk: &dyn Disk, name: &str, each: &mut dyn FnMut(&[u8])) -> Result<File, StoreError> {
    let file = disk.open(name).map_err(failed("open", disk, name))?;
    let ending = records::read(&*file, each).map_err(failed("read", disk, name))?;
    Ok(File { name: name.into(), file, ending })
}

/// The number of a commit's first change, and how many it makes: the head of a write batch.
fn changes(record: &[u8]) -> Option<(u64, u32)> {
    let (first, rest) = record.split_first_chunk()?;
    let (count, _) = rest.split_first_chunk()?;
    Some((u64::from_le_bytes(*first), u32::from_le_bytes(*count)))
}

/// Where the write-ahead log that counts begins, as the manifest says.
#[derive(Default)]
struct Beginning {
    /// With the file of this number, or, after a start, with a greater one.
    log: u64,
    /// The newest change when that was written; after a start all up to it is in tables.
    change: Option<u64>,
}

impl Beginning {
    /// Takes in the next record of the manifest.
    fn take(&mut self, record: &[u8]) {
        let (log, change) = log_and_change(record);
        if let Some(log) = log {
            *self = Beginning { log, change };
        }
        self.change = self.change.or(change);
    }
}

/// The number of the first file of the log that counts, and the newest change, each where a record of the manifest says
/// it. It is a row of fields, each a tag and a value; these come before those that are not numbers or strings.
fn log_and_change(mut record: &[u8]) -> (Option<u64>, Option<u64>) {
    let (mut log, mut change) = (None, None);
    while let Some(tag) = varint(&mut record) {
        match tag {
            2 => log = varint(&mut record),
            4 => change = varint(&mut record),
            // Next file, previous log, least log, column families.
            3 | 9 | 10 | 200 | 203 => drop(varint(&mut record)),
            // The comparator's name, and those that a reader may skip.
            tag if tag == 1 || tag & 1 << 13 != 0 => {
                let len = varint(&mut record).and_then(|len| usize::try_from(len).ok());
                record = len.and_then(|len| record.get(len..)).unwrap_or_default();
            }
            _ => break,
        }
    }
    (log, change)
}

/// A number in groups of seven bits, the lowest first.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn list(disk: &dyn Disk) -> Result<Vec<String>, StoreError> {
    disk.list().map_err(failed("list", disk, ""))
}

/// A small file's contents.
fn text(disk: &dyn Disk, name: &str) -> Result<String, StoreError> {
    let read = || {
        let file = disk.open(name)?;
        let mut bytes = vec![0; file.len()? as usize];
        let n = file.read_at(&mut bytes, 0)?;
        Ok(String::from_utf8_lossy(&bytes[..n]).into_owned())
    };
    read().map_err(failed("read", disk, name))
}

/// Writes a small file with one more line end, whole or not at all, durably.
fn replace(disk: &dyn Disk, name: &str, text: &str) -> Result<(), StoreError> {
    let write = || {
        let file = disk.create(TEMPORARY)?;
        file.write_at(format!("{text}\n").as_bytes(), 0)?;
        file.sync_data()?;
        disk.rename(TEMPORARY, name)?;
        disk.sync_dir()
    };
    write().map_err(failed("write", disk, name))
}

fn failed<'a>(
    action: &'static str,
    disk: &'a dyn Disk,
    name: &'a str,
) -> impl FnOnce(io::Error) -> StoreError + use<'a> {
    move |source| StoreError::Io { action, path: disk.path().join(name), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RocksDb;
    use coracle::core::{Incarnation, Index, NodeId};
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
                    let (mut store, last) =
                        open(dir).unwrap_or_else(|error| panic!("{what}, {kept:?}: {error}"));
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
                assert!(
                    matches!(&error, StoreError::Damaged { path, .. } if path.ends_with(CURRENT)),
                    "{error}"
                );
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
            let logs =
                || names(home.path()).into_iter().filter(|name| name.ends_with(LOG)).collect::<Vec<_>>();
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
        let opened =
            RocksDb::default().open(dir.path(), IDENTITY).and_then(|mut store| store.load(&mut |_| {}));
        let opened = opened.map(|found| (found.last.index.0, found.hard_state.term.0));
        match (&looked, &opened) {
            (None, _) => {}
            (Some(Ok(Some(looked))), Ok(holds)) => assert_eq!(looked.recovered.last.index.0, holds.0),
            // What only a start can mend.
            (Some(Err(error)), Ok(_)) => assert!(error.to_string().contains("was cut short"), "{error}"),
            (Some(looked), Err(error)) => assert!(looked.is_err(), "a look sees nothing of: {error}"),
            (Some(Ok(None)), _) => panic!("a look sees no log"),
        }
        opened
    }

    /// The manifest's last records were written and not synced.
    #[test]
    fn st_3_a_manifest_that_lost_its_end() {
        let Flushed { before, after, holds } = flush();
        let (old, new) =
            (fs::read(manifest(before.path())).unwrap(), fs::read(manifest(after.path())).unwrap());
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
        let files: [(&Path, Of<'_>, usize); 3] = [
            (before.path(), &manifest, 0),
            (after.path(), &manifest, 0),
            (before.path(), &old_log, end - 300),
        ];
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
}
