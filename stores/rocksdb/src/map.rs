//! RocksDB as an ordered map: its one column family, write batches with `sync`, iterators.

use crate::RocksDb;
use coracle::storage::StoreError;
use coracle::storage::disk::DirDisk;
use coracle::storage::keyed::{KeyValue, Operation, Visit};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, Error, ErrorKind, Options, ReadOptions,
    WriteBatch, WriteOptions,
};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A tool that looks at a database in use may find that a file is gone that was there a moment ago.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(50);

/// RocksDB's own log of messages, in bytes and files.
const MESSAGES: (usize, usize) = (1 << 20, 2);

/// One database.
pub(crate) struct Map {
    path: PathBuf,
    db: DB,
    /// Holds the directory's lock, until the database is closed.
    _disk: Option<DirDisk>,
}

impl Map {
    pub(crate) fn open(path: &Path, config: &RocksDb, disk: DirDisk) -> Result<Map, StoreError> {
        let db = DB::open(&options(config)?, path).map_err(failed("open", path))?;
        Ok(Map { path: path.to_owned(), db, _disk: Some(disk) })
    }

    pub(crate) fn open_to_read(path: &Path, config: &RocksDb) -> Result<Map, StoreError> {
        let mut options = options(config)?;
        options.create_if_missing(false);
        // Files that are open stay readable, also when the node that uses the database removes them.
        options.set_max_open_files(-1);
        let mut attempt = 1;
        loop {
            match DB::open_for_read_only(&options, path, false) {
                Ok(db) => return Ok(Map { path: path.to_owned(), db, _disk: None }),
                Err(error) if attempt == ATTEMPTS => return Err(failed("open", path)(error)),
                Err(_) => attempt += 1,
            }
            std::thread::sleep(PAUSE);
        }
    }
}

fn options(config: &RocksDb) -> Result<Options, StoreError> {
    let mut blocks = BlockBasedOptions::default();
    let cache = Cache::new_lru_cache(config.cache_bytes)
        .map_err(|error| StoreError::Refused(format!("a cache of {} bytes: {error}", config.cache_bytes)))?;
    blocks.set_block_cache(&cache);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.create_if_missing(true);
    options.set_compression_type(DBCompressionType::None);
    // A torn end was never acknowledged; anything else that is damaged was, and must stop the start.
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
        for operation in operations {
            match operation {
                Operation::Put { key, value } => batch.put(key, value),
                Operation::Delete { first, last } if first == last => batch.delete(first),
                Operation::Delete { first, last } => {
                    // RocksDB leaves the end of its ranges out; nothing lies between a key and this.
                    batch.delete_range(&first[..], &[&last[..], &[0]].concat()[..]);
                }
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db.write_opt(batch, &options).map_err(failed("write to", &self.path))
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
