#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod map;
mod power;
mod records;

use coracle::storage::disk::DirDisk;
use coracle::storage::keyed::{Inspected, KeyedStore, inspect};
use coracle::storage::{Engine, Identity, LogStore, StoreError};
use map::Map;
use std::path::Path;

/// Opens logs in RocksDB.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RocksDb {
    /// The size of a write buffer, in bytes; there are two at most, and as much again in RocksDB's own
    /// write-ahead log. Default 32 MiB.
    pub write_buffer_bytes: usize,
    /// The block cache, in bytes. Default 16 MiB.
    pub cache_bytes: usize,
    /// How many files are kept open. Default 256.
    pub open_files: u16,
}

impl Default for RocksDb {
    fn default() -> RocksDb {
        RocksDb { write_buffer_bytes: 32 << 20, cache_bytes: 16 << 20, open_files: 256 }
    }
}

impl RocksDb {
    /// Reads and verifies the log in the engine's directory (`DIR/store-rocksdb`) without changing it, also while a
    /// node uses it; nothing if there is none. Sees what was written before the call.
    pub fn inspect(dir: &Path) -> Result<Option<Inspected>, StoreError> {
        let config = RocksDb::default();
        if !config.exists(dir)? {
            return Ok(None);
        }
        inspect(Map::open_to_read(dir, &config)?)
    }
}

impl Engine for RocksDb {
    fn name(&self) -> &str {
        "rocksdb"
    }

    fn exists(&self, dir: &Path) -> Result<bool, StoreError> {
        // The file that names the manifest; what comes before it in a new database is of no use without it.
        let path = dir.join("CURRENT");
        path.try_exists().map_err(|source| StoreError::Io { action: "look at", path, source })
    }

    fn open(&self, dir: &Path, identity: Identity) -> Result<Box<dyn LogStore>, StoreError> {
        let map = Map::open(dir, self, DirDisk::open(dir)?)?;
        Ok(Box::new(KeyedStore::new(map, identity)))
    }
}
