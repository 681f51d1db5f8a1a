#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod map;
mod size;

use coracle::storage::disk::{DirDisk, Disk};
use coracle::storage::keyed::{Inspected, KeyedStore, inspect};
use coracle::storage::{Engine, Identity, LogStore, StoreError};
use map::{DATA, Map};
use std::path::Path;

/// Opens logs in LMDB.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lmdb {
    /// The address space that a new map takes, in bytes. The file grows with what is in it, not with this.
    /// Default 64 MiB.
    pub map_bytes: usize,
    /// How far the map may grow, in bytes; a write for which it is too small fails. Default 1 TiB.
    pub max_map_bytes: usize,
}

impl Default for Lmdb {
    fn default() -> Lmdb {
        Lmdb { map_bytes: 64 << 20, max_map_bytes: 1 << 40 }
    }
}

impl Lmdb {
    /// Reads and verifies the log in the engine's directory (`DIR/store-lmdb`) without changing it, also while a
    /// node uses it; nothing if there is none. Not for the process in which that node runs.
    pub fn inspect(dir: &Path) -> Result<Option<Inspected>, StoreError> {
        if !Lmdb::default().exists(dir)? {
            return Ok(None);
        }
        inspect(Map::open_to_read(dir)?)
    }
}

impl Engine for Lmdb {
    fn name(&self) -> &str {
        "lmdb"
    }

    fn exists(&self, dir: &Path) -> Result<bool, StoreError> {
        let path = dir.join(DATA);
        match std::fs::metadata(&path) {
            // A file without bytes is one that a crash left at the very first start.
            Ok(file) => Ok(file.len() > 0),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(StoreError::Io { action: "look at", path, source }),
        }
    }

    fn open(&self, dir: &Path, identity: Identity) -> Result<Box<dyn LogStore>, StoreError> {
        let disk = DirDisk::open(dir)?;
        let map = Map::open(dir, self, disk)?;
        Ok(Box::new(KeyedStore::new(map, identity)))
    }
}

/// Makes the names of new files durable, which LMDB leaves to others.
fn sync_names(disk: &DirDisk) -> Result<(), StoreError> {
    let failed = |source| StoreError::Io { action: "sync", path: disk.path().to_owned(), source };
    disk.sync_dir().map_err(failed)
}
