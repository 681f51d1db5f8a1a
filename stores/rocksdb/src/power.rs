//! What a loss of power may leave of RocksDB's files that RocksDB refuses to start from, and how it is mended.
//!
//! A file system may lose any unsynced sector, and of unsynced changes of names it may keep a later one and
//! lose an earlier one. RocksDB is written for file systems that keep more of an order. Two things are missing:
//!
//! - A start makes a table, a manifest that lists it, and renames the file `CURRENT`, which names the manifest;
//!   only then it syncs the directory. If the last of these names survives without the others, nothing
//!   opens. So [`begin`] writes down which files there are before RocksDB starts, and [`end`] removes that note
//!   when the start has become durable. Where the note is found, nothing was acknowledged since; and as
//!   long as every file of it is there, the state before that start is, too: RocksDB changes no
//!   file in place, and removes none before that sync. [`begin`] goes back to it. If one is gone, the sync was done.
//! - RocksDB takes missing sectors of the last, unsynced write to its write-ahead log for damage. [`begin`] cuts off
//!   what [`tail`] finds torn there, and refuses what it finds damaged.
//!
//! All of this can be cut short anywhere, and begun again.

use crate::tail::{Tail, tail};
use coracle::storage::StoreError;
use coracle::storage::disk::{Disk, DiskFile};
use std::io;
use std::sync::Arc;

const CURRENT: &str = "CURRENT";
const MANIFEST: &str = "MANIFEST-";
const LOG: &str = ".log";
const TABLE: &str = ".sst";

/// The note: a line for each file that was there before a start, the manifest that counts first, if there is one.
const STARTING: &str = "starting";

/// What is written under this name becomes another file when it is whole.
const TEMPORARY: &str = "starting.tmp";

/// Brings the files of a database, if there are any, to a state that RocksDB starts from. Nobody else may have
/// the directory open. Fails with [`StoreError::Damaged`] where acknowledged writes are damaged at the end of the
/// write-ahead log.
pub(crate) fn begin(disk: &dyn Disk) -> Result<(), StoreError> {
    let names = list(disk)?;
    if names.iter().any(|name| name == STARTING) {
        let note = text(disk, STARTING)?;
        let before: Vec<&str> = note.lines().filter(|name| !name.is_empty()).collect();
        if before.iter().all(|file| names.iter().any(|name| name == file)) {
            go_back(disk, &names, &before)?;
        }
    }
    cut_torn_end(disk)?;
    let files = list(disk)?;
    let mut note = Vec::new();
    if files.iter().any(|name| name == CURRENT) {
        note.push(text(disk, CURRENT)?.trim_end().to_owned());
    }
    note.extend(files.into_iter().filter(|name| name.ends_with(LOG) || name.ends_with(TABLE)));
    replace(disk, STARTING, &note.join("\n"))
}

/// To be called once RocksDB has started, and before anything is answered.
pub(crate) fn end(disk: &dyn Disk) -> Result<(), StoreError> {
    disk.sync_dir().map_err(failed("sync", disk, ""))?;
    disk.remove(STARTING).map_err(failed("remove", disk, STARTING))?;
    disk.sync_dir().map_err(failed("sync", disk, ""))
}

/// Whether the last start was cut short, so that RocksDB may find no state that it can open. `begin` mends that.
pub(crate) fn was_cut_short(disk: &dyn Disk) -> Result<bool, StoreError> {
    Ok(list(disk)?.iter().any(|name| name == STARTING))
}

/// Refuses a write-ahead log whose end is damaged, and changes nothing.
pub(crate) fn check(disk: &dyn Disk) -> Result<(), StoreError> {
    newest_log(disk).map(|_| ())
}

/// Makes these files all there are, and the manifest among them the one that counts.
fn go_back(disk: &dyn Disk, names: &[String], before: &[&str]) -> Result<(), StoreError> {
    match before.first().filter(|name| name.starts_with(MANIFEST)) {
        Some(manifest) => replace(disk, CURRENT, manifest)?,
        None if names.iter().any(|name| name == CURRENT) => {
            disk.remove(CURRENT).map_err(failed("remove", disk, CURRENT))?;
            disk.sync_dir().map_err(failed("sync", disk, ""))?;
        }
        None => {}
    }
    let made = |name: &str| name.starts_with(MANIFEST) || name.ends_with(LOG) || name.ends_with(TABLE);
    for name in names.iter().filter(|name| made(name) && !before.contains(&name.as_str())) {
        disk.remove(name).map_err(failed("remove", disk, name))?;
    }
    disk.sync_dir().map_err(failed("sync", disk, ""))
}

/// Cuts off what is torn, and makes what is left durable: after a kill it may live in the page cache only.
fn cut_torn_end(disk: &dyn Disk) -> Result<(), StoreError> {
    let Some(Log { name, file, tail }) = newest_log(disk)? else { return Ok(()) };
    if let Tail::Torn(end) = tail {
        file.set_len(end).map_err(failed("cut", disk, &name))?;
    }
    file.sync_data().map_err(failed("sync", disk, &name))
}

/// A file of the write-ahead log.
struct Log {
    name: String,
    file: Arc<dyn DiskFile>,
    tail: Tail,
}

/// The newest file of the write-ahead log, the only one that may end torn: before a new one is begun, all
/// that was written to the one before is synced. Fails if it is damaged.
fn newest_log(disk: &dyn Disk) -> Result<Option<Log>, StoreError> {
    let number = |name: &str| name.strip_suffix(LOG)?.parse::<u64>().ok();
    let logs = list(disk)?.into_iter().filter_map(|name| Some((number(&name)?, name)));
    let Some((_, name)) = logs.max() else { return Ok(None) };
    let file = disk.open(&name).map_err(failed("open", disk, &name))?;
    match tail(&*file).map_err(failed("read", disk, &name))? {
        Tail::Damaged(offset) => Err(StoreError::Damaged {
            path: disk.path().join(name),
            offset,
            detail: "a record of RocksDB's write-ahead log is not whole, and later ones follow".into(),
        }),
        tail => Ok(Some(Log { name, file, tail })),
    }
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
        String::from_utf8(bytes[..n].to_vec()).map_err(io::Error::other)
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
    use coracle::storage::contract::model::{append, changes};
    use coracle::storage::disk::DirDisk;
    use coracle::storage::{Engine, Identity, LogStore};
    use rocksdb::DB;
    use std::fs;
    use std::path::Path;

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

    /// Where no start was cut short, a file that is missing is a loss.
    #[test]
    fn st_9_a_missing_file_is_not_mended() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = open(dir.path()).unwrap();
        extend(&mut *store, 0);
        drop(store);
        for name in names(dir.path()).iter().filter(|name| name.starts_with(MANIFEST)) {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        for _ in 0..2 {
            let error = open(dir.path()).err().unwrap().to_string();
            assert!(error.contains("MANIFEST"), "{error}");
        }
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
        // With the mark behind it the same is damage.
        let (path, mut bytes) = newest(dir.path());
        bytes[whole + 500] ^= 1;
        fs::write(&path, &bytes).unwrap();
        for error in [open(dir.path()).err().unwrap(), RocksDb::inspect(dir.path()).err().unwrap()] {
            let StoreError::Damaged { path: named, offset, .. } = &error else { panic!("{error}") };
            assert_eq!((named, *offset as usize), (&path, whole), "{error}");
        }
        assert_eq!(newest(dir.path()), (path, bytes));
    }
}
