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
mod tests;
