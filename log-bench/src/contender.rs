//! Who takes part.

use crate::Failure;
use crate::raft_engine::RaftEngine;
use crate::raw::Raw;
use crate::store::Store;
use coracle::raft::LogId;
use coracle::storage::WriteBatch;
use std::path::Path;

/// What the others are measured against.
pub(crate) const BASELINE: &str = "raw, recycled";

/// The one that is ours by default.
pub(crate) const OURS: &str = "wal";

/// The one that is not durable: it shows what is left without a disk.
pub(crate) const MEMORY: &str = "memory";

/// Something that makes batches durable.
pub(crate) trait Contender {
    /// Its name in tables.
    fn name(&self) -> &'static str;

    /// Brings a batch, which appends entries and nothing else, into the form that it takes. Not measured.
    fn prepare(&mut self, _batch: &WriteBatch) {}

    /// Makes the batch that was prepared durable. Measured.
    fn write(&mut self, batch: &WriteBatch) -> Result<(), Failure>;

    /// Needs nothing up to here any more. Called now and then, which is measured, and after each turn, which is
    /// not.
    fn forget(&mut self, upto: LogId) -> Result<(), Failure>;
}

/// All of them, each with an empty directory. A new store is added here.
pub(crate) fn all(directory: &Path) -> Result<Vec<Box<dyn Contender>>, Failure> {
    Ok(vec![
        Box::new(Raw::recycled(&directory.join("raw-recycled"))?),
        Box::new(Raw::growing(&directory.join("raw-growing"))?),
        Box::new(Store::wal(&directory.join("wal"))?),
        Box::new(Store::memory()?),
        Box::new(RaftEngine::open(&directory.join("raft-engine"))?),
        Box::new(RaftEngine::prefilled(&directory.join("raft-engine-prefilled"))?),
        Box::new(Store::engine("lmdb", &coracle_lmdb::Lmdb::default(), directory)?),
        #[cfg(feature = "rocksdb")]
        Box::new(Store::engine("rocksdb", &coracle_rocksdb::RocksDb::default(), directory)?),
    ])
}
