//! Other engines: a log store of one's own, in a node's data directory.
//!
//! An [`Engine`] opens stores; [`Storage::Engine`](crate::Storage::Engine) gives one to a node. The data
//! directory stays the library's: it locks it, keeps the identity in it, and writes down there which engine
//! keeps the log, so that no other one is ever started on it. The engine gets a directory of its own in
//! it, `store-NAME`.
//!
//! ```
//! use coracle::storage::disk::{DirDisk, Disk};
//! use coracle::storage::wal::{self, Wal, WalConfig};
//! use coracle::storage::{Engine, Identity, LogStore, StoreError};
//! use coracle::{Config, Storage};
//! use std::path::Path;
//! use std::sync::Arc;
//!
//! /// The write-ahead log in small segments.
//! struct SmallSegments;
//!
//! impl Engine for SmallSegments {
//!     fn name(&self) -> &str {
//!         "small-segments"
//!     }
//!     fn exists(&self, dir: &Path) -> Result<bool, StoreError> {
//!         Ok(dir.exists() && wal::exists(&DirDisk::open(dir)?)?)
//!     }
//!     fn open(&self, dir: &Path, identity: Identity) -> Result<Box<dyn LogStore>, StoreError> {
//!         let disk: Arc<dyn Disk> = Arc::new(DirDisk::open(dir)?);
//!         let config = WalConfig { segment_bytes: 1 << 20, ..WalConfig::default() };
//!         Ok(Box::new(Wal::open(disk, identity, config)))
//!     }
//! }
//!
//! let storage = Storage::Engine { dir: "data/node-1".into(), engine: Arc::new(SmallSegments) };
//! let config = Config::new(1, "127.0.0.1:7101", storage);
//! config.validate().unwrap();
//! ```
//!
//! An ordered key-value store needs less than that: see [`keyed`](super::keyed). The contract of
//! [`LogStore`] comes with a suite that tests it, `coracle::storage::contract` (feature `contract`).

use super::{Identity, LogStore, StoreError};
use std::path::{Path, PathBuf};

/// What the name of every engine's own directory begins with.
pub const DIRECTORY: &str = "store-";

/// The longest name of an engine, in bytes: what the identity has room for.
pub const MAX_NAME: usize = 16;

/// The name of the write-ahead log, which no other engine may have.
pub const WAL: &str = "wal";

/// Opens log stores of one kind.
pub trait Engine: Send + Sync {
    /// What the engine is called: 1 to 16 lower-case letters, digits and hyphens, the same for ever. Names the
    /// engine's directory and, in the identity, the only engine that the data directory is ever opened with.
    fn name(&self) -> &str;

    /// Whether there is any log in the engine's directory, whole or not. The directory may be missing. An
    /// identity that names a cluster, without a log, is a wiped disk and never started.
    fn exists(&self, dir: &Path) -> Result<bool, StoreError>;

    /// The store in the engine's directory, which may be missing, for the node that the directory belongs
    /// to. A second opening, while the first store lives, fails with [`StoreError::Locked`]; one for
    /// another node or incarnation, here or in [`load`](LogStore::load), with [`StoreError::Identity`].
    fn open(&self, dir: &Path, identity: Identity) -> Result<Box<dyn LogStore>, StoreError>;
}

/// The directory of the engine of this name in a node's data directory.
pub fn directory(data_dir: &Path, name: &str) -> PathBuf {
    data_dir.join(format!("{DIRECTORY}{name}"))
}

/// Whether an engine may have this name.
pub fn is_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !name.is_empty() && name.len() <= MAX_NAME && name != WAL && name.bytes().all(legal)
}
