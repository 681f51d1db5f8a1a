//! RocksDB as an ordered map: its one column family, write batches with `sync`, iterators.

use crate::{RocksDb, power};
use coracle::storage::StoreError;
use coracle::storage::disk::{DirDisk, ReadOnlyDir};
use coracle::storage::keyed::{KeyValue, Operation, Visit};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, Error, ErrorKind, Options, ReadOptions,
    WriteBatch, WriteOptions,
};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A tool that looks at a database in use may find that a file is gone that was there a moment ago, or is being
/// written to.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(50);

/// RocksDB's own log of messages, in bytes and files.
const MESSAGES: (usize, usize) = (1 << 20, 2);

/// One database.
pub(crate) struct Map {
    path: PathBuf,
    db: DB,
    /// How many bytes have to be free for a write.
    room: u64,
    /// Whether a commit was synced that no later one proves yet: see [`power`].
    unproved: AtomicBool,
    /// Holds the directory's lock, until the database is closed.
    _disk: Option<DirDisk>,
}

impl Map {
    pub(crate) fn open(path: &Path, config: &RocksDb, disk: DirDisk) -> Result<Map, StoreError> {
        check_room(path, room(config))?;
        power::begin(&disk)?;
        let db = DB::open(&options(config)?, path).map_err(failed("open", path))?;
        power::end(&disk)?;
        Ok(Map::new(path, db, room(config), Some(disk)))
    }

    fn new(path: &Path, db: DB, room: u64, disk: Option<DirDisk>) -> Map {
        Map { path: path.to_owned(), db, room, unproved: AtomicBool::new(false), _disk: disk }
    }

    pub(crate) fn open_to_read(path: &Path, config: &RocksDb) -> Result<Map, StoreError> {
        let disk = ReadOnlyDir::open(path)?;
        let mut options = options(config)?;
        options.create_if_missing(false);
        // What is torn at the end cannot be cut off, and is left out.
        options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
        // Files that are open stay readable, also when the node that uses the database removes them.
        options.set_max_open_files(-1);
        let mut attempt = 1;
        loop {
            match Map::look(path, &options, &disk) {
                Ok(map) => return Ok(map),
                Err(error) if attempt == ATTEMPTS => return Err(error),
                Err(_) => attempt += 1,
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Opens it as it is now, unless it changes meanwhile.
    fn look(path: &Path, options: &Options, disk: &ReadOnlyDir) -> Result<Map, StoreError> {
        let files = power::in_use(disk)?;
        let mend = power::needs_mending(disk)?;
        let db =
            DB::open_for_read_only(options, path, false).map_err(failed("open", path)).map_err(|error| {
                let why = format!(
                    "a start of it is under way or was cut short, and the next one mends that: {error}"
                );
                if mend {
                    StoreError::Io { action: "read", path: path.into(), source: io::Error::other(why) }
                } else {
                    error
                }
            })?;
        let now = power::in_use(disk)?;
        if !files.iter().all(|file| now.contains(file)) {
            let source = io::Error::other("its files change faster than they can be read; try again later");
            return Err(StoreError::Io { action: "read", path: path.into(), source });
        }
        Ok(Map::new(path, db, 0, None))
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StoreError> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db.write_opt(batch, &options).map_err(failed("write to", &self.path))
    }
}

/// What has to be free for RocksDB to get through a write: each buffer may be written out as a table.
fn room(config: &RocksDb) -> u64 {
    (config.write_buffer_bytes as u64).saturating_mul(2)
}

/// Refuses, with nothing begun, where a write might fill the disk. RocksDB works in the background, and what it does where a
/// write fails halfway depends on where; Debian's build ends the process, without a word on the file.
fn check_room(path: &Path, room: u64) -> Result<(), StoreError> {
    let failed = |source| StoreError::Io { action: "look at the room of", path: path.to_owned(), source };
    let disk = rustix::fs::statvfs(path).map_err(|error| failed(error.into()))?;
    let free = disk.f_bavail * disk.f_frsize;
    if free < room {
        let detail = format!("No space left on device: {free} bytes are free, and {room} are needed");
        let source = io::Error::new(io::ErrorKind::StorageFull, detail);
        return Err(StoreError::NoSpace { path: path.to_owned(), source });
    }
    Ok(())
}

pub(crate) fn options(config: &RocksDb) -> Result<Options, StoreError> {
    let mut blocks = BlockBasedOptions::default();
    let cache = Cache::new_lru_cache(config.cache_bytes)
        .map_err(|error| StoreError::Refused(format!("a cache of {} bytes: {error}", config.cache_bytes)))?;
    blocks.set_block_cache(&cache);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.create_if_missing(true);
    options.set_compression_type(DBCompressionType::None);
    // A torn end is cut off before; anything else that is damaged was acknowledged, and must stop the start.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_paranoid_checks(true);
    options.set_write_buffer_size(config.write_buffer_bytes);
    options.set_max_write_buffer_number(2);
    options.set_max_total_wal_size(2 * config.write_buffer_bytes as u64);
    options.set_max_open_files(i32::from(config.open_files));
    options.set_max_log_file_size(MESSAGES.0);
    options.set_keep_log_file_num(MESSAGES.1);
    Ok(options)
}

impl KeyValue for Map {
    fn path(&self) -> &Path {
        &self.path
    }

    fn commit(&self, operations: &[Operation]) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        let mut bytes = 0;
        for operation in operations {
            match operation {
                Operation::Put { key, value } => {
                    bytes += value.len() as u64;
                    batch.put(key, value);
                }
                Operation::Delete { first, last } if first == last => batch.delete(first),
                Operation::Delete { first, last } => {
                    // RocksDB leaves the end of its ranges out; nothing lies between a key and this.
                    batch.delete_range(&first[..], &[&last[..], &[0]].concat()[..]);
                }
            }
        }
        check_room(&self.path, self.room.saturating_add(2 * bytes))?;
        self.unproved.store(true, Ordering::Relaxed);
        self.write(batch)
    }

    fn settle(&self) -> Result<(), StoreError> {
        // An empty batch is a record of the write-ahead log like any other.
        if self.unproved.swap(false, Ordering::Relaxed) { self.write(WriteBatch::default()) } else { Ok(()) }
    }

    fn scan(&self, first: &[u8], last: &[u8], visit: Visit<'_>) -> Result<(), StoreError> {
        let mut pairs = self.db.raw_iterator_opt(ReadOptions::default());
        pairs.seek(first);
        while let Some((key, value)) = pairs.item() {
            if key > last || visit(key, value) == ControlFlow::Break(()) {
                return Ok(());
            }
            pairs.next();
        }
        // The end, or an error.
        pairs.status().map_err(failed("read", &self.path))
    }

    fn greatest(&self, first: &[u8], last: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let mut pairs = self.db.raw_iterator_opt(ReadOptions::default());
        pairs.seek_for_prev(last);
        pairs.status().map_err(failed("read", &self.path))?;
        Ok(pairs.key().filter(|key| *key >= first).map(<[u8]>::to_vec))
    }

    fn disk_bytes(&self) -> Result<u64, StoreError> {
        let failed = |source| StoreError::Io { action: "look at", path: self.path.clone(), source };
        let mut bytes = 0;
        for file in std::fs::read_dir(&self.path).map_err(failed)? {
            match file.and_then(|file| file.metadata()) {
                Ok(file) => bytes += file.len(),
                // Removed meanwhile: RocksDB works in the background.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(bytes)
    }
}

/// Says what was tried and on what, when RocksDB refuses.
fn failed(action: &'static str, path: &Path) -> impl Fn(Error) -> StoreError {
    let path = path.to_owned();
    move |error| {
        let (path, kind, detail) = (path.clone(), error.kind(), error.into_string());
        match kind {
            ErrorKind::Corruption => StoreError::Damaged { path, offset: 0, detail },
            _ if detail.contains("No space left on device") => {
                let source = io::Error::new(io::ErrorKind::StorageFull, detail);
                StoreError::Io { action, path, source }
            }
            _ => StoreError::Io { action, path, source: io::Error::other(detail) },
        }
    }
}
