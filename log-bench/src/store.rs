//! Coracle's own stores.

use crate::Failure;
use crate::contender::{Contender, MEMORY, OURS};
use coracle::raft::{Incarnation, LogId, NodeId};
use coracle::storage::disk::DirDisk;
use coracle::storage::memory::MemoryStore;
use coracle::storage::wal::{Wal, WalConfig};
use coracle::storage::{Engine, Identity, LogStore, WriteBatch};
use std::path::Path;
use std::sync::Arc;

/// Whose log it is does not matter here, only that it stays the same.
pub(crate) const IDENTITY: Identity =
    Identity { node: NodeId(1), incarnation: Incarnation(1), cluster: None };

/// A store behind the contract that all of them keep.
pub(crate) struct Store {
    name: &'static str,
    store: Box<dyn LogStore>,
}

impl Store {
    /// The write-ahead log with its defaults.
    pub(crate) fn wal(directory: &Path) -> Result<Store, Failure> {
        Store::load(
            OURS,
            Box::new(Wal::open(Arc::new(DirDisk::open(directory)?), IDENTITY, WalConfig::default())),
        )
    }

    /// Memory: what is left when nothing is durable.
    pub(crate) fn memory() -> Result<Store, Failure> {
        Store::load(MEMORY, Box::new(MemoryStore::new()))
    }

    /// A store of another engine.
    pub(crate) fn engine(
        name: &'static str,
        engine: &dyn Engine,
        directory: &Path,
    ) -> Result<Store, Failure> {
        Store::load(name, engine.open(&directory.join(name), IDENTITY)?)
    }

    fn load(name: &'static str, mut store: Box<dyn LogStore>) -> Result<Store, Failure> {
        store.load(&mut |_| {})?;
        Ok(Store { name, store })
    }
}

impl Contender for Store {
    fn name(&self) -> &'static str {
        self.name
    }

    fn write(&mut self, batch: &WriteBatch) -> Result<(), Failure> {
        Ok(self.store.write(batch)?)
    }

    fn forget(&mut self, upto: LogId) -> Result<(), Failure> {
        Ok(self.store.purge(upto)?)
    }
}
