//! The stores of the library: in memory, on the disk's twin in memory, on a real directory, and over a
//! key-value store.

use crate::map::MapEngine;
use coracle::storage::contract::{Clause, Contract, check};
use coracle::storage::disk::{DirDisk, Disk};
use coracle::storage::mem_disk::MemDisk;
use coracle::storage::memory::MemoryStore;
use coracle::storage::wal::{self, Wal, WalConfig};
use coracle::storage::{Engine, Identity, LogStore, StoreError};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Stores in memory, by the path that they would have.
#[derive(Default)]
struct InMemory(Mutex<BTreeMap<PathBuf, MemoryStore>>);

impl Engine for InMemory {
    fn name(&self) -> &str {
        "memory"
    }

    fn exists(&self, dir: &Path) -> Result<bool, StoreError> {
        Ok(self.0.lock().unwrap().contains_key(dir))
    }

    fn open(&self, dir: &Path, _: Identity) -> Result<Box<dyn LogStore>, StoreError> {
        Ok(Box::new(self.0.lock().unwrap().entry(dir.to_owned()).or_default().clone()))
    }
}

/// Small segments, no thread, and generations that are never the same; the rest by default, if there is any.
#[allow(clippy::needless_update)]
fn config() -> WalConfig {
    let next = AtomicU64::new(0x9e37_79b9_7f4a_7c15);
    let draw = move || next.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    WalConfig { segment_bytes: 16 << 10, prepare_ahead: false, draw: Arc::new(draw), ..WalConfig::default() }
}

/// The write-ahead log on disks in memory that lose all that was not synced at every opening.
#[derive(Default)]
struct Forgetful(Mutex<BTreeMap<PathBuf, MemDisk>>);

impl Engine for Forgetful {
    fn name(&self) -> &str {
        "wal-on-memdisk"
    }

    fn exists(&self, dir: &Path) -> Result<bool, StoreError> {
        self.0.lock().unwrap().get(dir).map_or(Ok(false), |disk| wal::exists(disk))
    }

    fn open(&self, dir: &Path, identity: Identity) -> Result<Box<dyn LogStore>, StoreError> {
        let mut disks = self.0.lock().unwrap();
        let disk = disks.entry(dir.to_owned()).or_default();
        *disk = disk.power_cut(512, || false);
        Ok(Box::new(Wal::open(Arc::new(disk.clone()), identity, config())))
    }
}

/// The write-ahead log in a directory.
struct InDirectory(fn() -> WalConfig);

impl Engine for InDirectory {
    fn name(&self) -> &str {
        "wal-in-directory"
    }

    fn exists(&self, dir: &Path) -> Result<bool, StoreError> {
        Ok(dir.exists() && wal::exists(&DirDisk::open(dir)?)?)
    }

    fn open(&self, dir: &Path, identity: Identity) -> Result<Box<dyn LogStore>, StoreError> {
        let disk: Arc<dyn Disk> = Arc::new(DirDisk::open(dir)?);
        Ok(Box::new(Wal::open(disk, identity, (self.0)())))
    }
}

#[test]
fn the_store_in_memory_keeps_what_memory_can_keep() {
    let dir = tempfile::tempdir().unwrap();
    let engine = InMemory::default();
    // It has no files to copy, and its clones share it.
    let contract = Contract::new(&engine, dir.path()).without(Clause::Exclusive).without(Clause::Bound);
    let contract = contract.without(Clause::Killed).without(Clause::Damage).sequences(300);
    contract.check().unwrap_or_else(|broken| panic!("{broken}"));
}

#[test]
fn the_log_keeps_the_contract_on_a_disk_that_forgets() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Forgetful::default();
    // Its files are elsewhere, and its lock is the directory's.
    let contract = Contract::new(&engine, dir.path()).without(Clause::Exclusive);
    let contract = contract.without(Clause::Killed).without(Clause::Damage).sequences(100);
    contract.check().unwrap_or_else(|broken| panic!("{broken}"));
}

#[test]
fn the_log_keeps_the_contract_in_a_directory() {
    for config in [config, WalConfig::default as fn() -> WalConfig] {
        let dir = tempfile::tempdir().unwrap();
        check(&InDirectory(config), dir.path()).unwrap_or_else(|broken| panic!("{broken}"));
    }
}

#[test]
fn a_log_in_a_key_value_store_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    check(&MapEngine::default(), dir.path()).unwrap_or_else(|broken| panic!("{broken}"));
}
