//! The stores that the command line knows, and what keeps the log in each.

use clap::ValueEnum;
use coracle::Storage;
use coracle::storage::StoreError;
use coracle::storage::keyed::Inspected;
use std::path::{Path, PathBuf};

/// What keeps a node's log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Store {
    /// The write-ahead log in the data directory
    Wal,
    /// Nothing: a node forgets everything when it stops
    Memory,
    /// LMDB in the data directory
    Lmdb,
    /// RocksDB in the data directory; only in a program that was built with it
    Rocksdb,
}

impl Store {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Store::Wal => "wal",
            Store::Memory => "memory",
            Store::Lmdb => "lmdb",
            Store::Rocksdb => "rocksdb",
        }
    }

    /// What a node in this directory is started with.
    pub fn storage(self, dir: Option<PathBuf>) -> Result<Storage, String> {
        match (self, dir) {
            (Store::Memory, _) => Ok(Storage::Memory),
            (_, None) => Err("--data-dir is missing; only --store memory does without".into()),
            (Store::Wal, Some(dir)) => Ok(Storage::Dir(dir)),
            (Store::Lmdb, Some(dir)) => lmdb(dir),
            (Store::Rocksdb, Some(dir)) => rocksdb(dir),
        }
    }
}

/// What an engine says of a log; nothing if there is none.
type Look = Result<Option<Inspected>, StoreError>;

/// Looks at the log that the engine of this name keeps in this directory, without changing it. The outer error is an engine that this program does not have.
pub fn inspect(name: &str, dir: &Path) -> Result<Look, String> {
    match name {
        "lmdb" => inspect_lmdb(dir),
        "rocksdb" => inspect_rocksdb(dir),
        other => Err(format!("{}: this program does not know the store {other}", dir.display())),
    }
}

#[cfg(feature = "lmdb")]
fn inspect_lmdb(dir: &Path) -> Result<Look, String> {
    Ok(coracle_lmdb::Lmdb::inspect(dir))
}

#[cfg(not(feature = "lmdb"))]
fn inspect_lmdb(_: &Path) -> Result<Look, String> {
    Err(not_built("lmdb"))
}

#[cfg(feature = "rocksdb")]
fn inspect_rocksdb(dir: &Path) -> Result<Look, String> {
    Ok(coracle_rocksdb::RocksDb::inspect(dir))
}

#[cfg(not(feature = "rocksdb"))]
fn inspect_rocksdb(_: &Path) -> Result<Look, String> {
    Err(not_built("rocksdb"))
}

#[cfg(feature = "lmdb")]
fn lmdb(dir: PathBuf) -> Result<Storage, String> {
    Ok(Storage::Engine { dir, engine: std::sync::Arc::new(coracle_lmdb::Lmdb::default()) })
}

#[cfg(not(feature = "lmdb"))]
fn lmdb(_: PathBuf) -> Result<Storage, String> {
    Err(not_built("lmdb"))
}

#[cfg(feature = "rocksdb")]
fn rocksdb(dir: PathBuf) -> Result<Storage, String> {
    Ok(Storage::Engine { dir, engine: std::sync::Arc::new(coracle_rocksdb::RocksDb::default()) })
}

#[cfg(not(feature = "rocksdb"))]
fn rocksdb(_: PathBuf) -> Result<Storage, String> {
    Err(not_built("rocksdb"))
}

#[cfg(not(all(feature = "lmdb", feature = "rocksdb")))]
fn not_built(feature: &str) -> String {
    format!(
        "this program was built without {feature}; build it with \
         cargo build --release -p coracle-server --features {feature} (stores/{feature}/README.md says what \
         that needs)"
    )
}
