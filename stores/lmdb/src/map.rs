//! LMDB as an ordered map that grows.
//!
//! LMDB maps its whole file into memory, and the size of the map is chosen when it is opened. A commit that
//! does not fit is aborted, the map is doubled, and the commit is made again; nothing of the first try is
//! left. To change the map no transaction may be open, in this process: every transaction holds `moving` to
//! read, and who changes the map holds it to write. Readers wait for that (a few system calls), never for
//! a sync.

use crate::{Lmdb, size, sync_names};
use coracle::storage::StoreError;
use coracle::storage::disk::DirDisk;
use coracle::storage::keyed::{KeyValue, Operation, Visit};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, MdbError, WithoutTls};
use std::io;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// The name of LMDB's file.
pub(crate) const DATA: &str = "data.mdb";

/// Maps are multiples of this, in bytes: of every page size that there is.
const STEP: usize = 64 << 10;

/// A disk with fewer free bytes is full.
const FULL: u64 = 1 << 20;

/// Threads and tools that may read at a time.
const READERS: u32 = 1024;

/// The unnamed database of one LMDB environment.
pub(crate) struct Map {
    path: PathBuf,
    env: Env<WithoutTls>,
    pairs: Database<'static, Bytes, Bytes>,
    moving: RwLock<()>,
    max_bytes: usize,
    /// Holds the directory's lock, until the environment is closed.
    _disk: Option<DirDisk>,
}

impl Map {
    pub(crate) fn open(path: &Path, config: &Lmdb, disk: DirDisk) -> Result<Map, StoreError> {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        let max_bytes = round(config.max_map_bytes);
        options.map_size(round(config.map_bytes).min(max_bytes)).max_readers(READERS);
        let env = open(&options, path)?;
        let opened = || -> heed::Result<_> {
            // What a killed tool had locked is free again.
            env.clear_stale_readers()?;
            let create = env.write_txn()?;
            let created = env.create_databases_and_commit(create, |opener, txn| {
                opener.create_database(txn, None).map(CommitOrAbort::<_, ()>::Commit)
            })?;
            Ok(created.unwrap_commit())
        };
        let pairs = opened().map_err(failed("open", path))?;
        sync_names(&disk)?;
        let path = path.to_owned();
        Ok(Map { path, env, pairs, moving: RwLock::new(()), max_bytes, _disk: Some(disk) })
    }

    pub(crate) fn open_to_read(path: &Path) -> Result<Map, StoreError> {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        // SAFETY: to read only is the one flag, and it takes nothing from the safety of the others who use it.
        #[allow(unsafe_code)]
        unsafe {
            options.flags(EnvFlags::READ_ONLY)
        };
        let env = open(&options, path)?;
        let opened = || -> heed::Result<_> {
            let read = env.read_txn()?;
            let opened = env.open_databases_and_commit(read, |opener, txn| {
                opener.open_database(txn, None).map(CommitOrAbort::<_, ()>::Commit)
            })?;
            Ok(opened.unwrap_commit())
        };
        let Some(pairs) = opened().map_err(failed("open", path))? else {
            let source = io::Error::other("it has no unnamed database");
            return Err(StoreError::Io { action: "open", path: path.to_owned(), source });
        };
        let path = path.to_owned();
        Ok(Map { path, env, pairs, moving: RwLock::new(()), max_bytes: usize::MAX, _disk: None })
    }

    /// Held while a transaction is open.
    fn still(&self) -> RwLockReadGuard<'_, ()> {
        self.moving.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the map another size; 0 takes the one that another process gave it.
    fn resize(&self, bytes: usize) -> heed::Result<()> {
        let _moving = self.moving.write().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: whoever has a transaction open in this process holds `moving`, so there is none.
        #[allow(unsafe_code)]
        unsafe {
            self.env.resize(bytes)
        }
    }

    fn try_commit(&self, operations: &[Operation]) -> heed::Result<()> {
        let _still = self.still();
        let mut txn = self.env.write_txn()?;
        for operation in operations {
            match operation {
                Operation::Put { key, value } => self.pairs.put(&mut txn, key, value)?,
                Operation::Delete { first, last } => {
                    self.pairs.delete_range(&mut txn, &range(first, last))?;
                }
            }
        }
        txn.commit()
    }

    /// Refuses, with nothing begun, where a commit might fill the disk: a write that is cut short leaves LMDB in
    /// doubt.
    fn check_room(&self, operations: &[Operation]) -> Result<(), StoreError> {
        let bytes = |operation: &Operation| match operation {
            Operation::Put { value, .. } => value.len() as u64,
            Operation::Delete { .. } => 0,
        };
        // Pages are copied on their way, and those of the tree with them.
        let needed = FULL + 2 * operations.iter().map(bytes).sum::<u64>();
        let path = self.path.join(DATA);
        match free(&path) {
            Ok(free) if free < needed => {
                let detail =
                    format!("No space left on device: {free} bytes are free, and {needed} are needed");
                Err(StoreError::NoSpace { path, source: io::Error::new(io::ErrorKind::StorageFull, detail) })
            }
            Ok(_) => Ok(()),
            Err(source) => Err(StoreError::Io { action: "look at the room of", path, source }),
        }
    }

    /// Makes the map larger, or says why not.
    fn grow(&self) -> Result<(), StoreError> {
        let bytes = self.env.info().map_size;
        let more = bytes.saturating_mul(2).min(self.max_bytes);
        if more <= bytes {
            let limit = format!("the map is full, and may not grow over {bytes} bytes (max_map_bytes)");
            let source = io::Error::new(io::ErrorKind::StorageFull, limit);
            return Err(StoreError::Io { action: "write to", path: self.path.join(DATA), source });
        }
        tracing::info!("the map of {} grows to {more} bytes", self.path.display());
        self.resize(more).map_err(failed("grow", &self.path))
    }

    /// Reads in one transaction, whatever size another process gave the map meanwhile.
    fn read<T>(
        &self,
        work: impl FnOnce(&heed::RoTxn<'_, WithoutTls>) -> heed::Result<T>,
    ) -> Result<T, StoreError> {
        let failed = failed("read", &self.path);
        loop {
            let still = self.still();
            match self.env.read_txn() {
                Ok(txn) => return work(&txn).map_err(failed),
                Err(heed::Error::Mdb(MdbError::MapResized)) => drop(still),
                Err(error) => return Err(failed(error)),
            }
            if let Err(error) = self.resize(0) {
                return Err(failed(error));
            }
        }
    }
}

impl KeyValue for Map {
    fn path(&self) -> &Path {
        &self.path
    }

    fn commit(&self, operations: &[Operation]) -> Result<(), StoreError> {
        self.check_room(operations)?;
        loop {
            match self.try_commit(operations) {
                Ok(()) => return Ok(()),
                Err(heed::Error::Mdb(MdbError::MapFull)) => self.grow()?,
                Err(error) => return Err(failed("write to", &self.path)(error)),
            }
        }
    }

    fn scan(&self, first: &[u8], last: &[u8], visit: Visit<'_>) -> Result<(), StoreError> {
        self.read(|txn| {
            for pair in self.pairs.range(txn, &range(first, last))? {
                let (key, value) = pair?;
                if visit(key, value) == ControlFlow::Break(()) {
                    break;
                }
            }
            Ok(())
        })
    }

    fn greatest(&self, first: &[u8], last: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|txn| {
            let greatest = self.pairs.rev_range(txn, &range(first, last))?.next().transpose()?;
            Ok(greatest.map(|(key, _)| key.to_vec()))
        })
    }

    fn disk_bytes(&self) -> Result<u64, StoreError> {
        self.env.real_disk_size().map_err(failed("look at", &self.path))
    }
}

fn open(options: &EnvOpenOptions<WithoutTls>, path: &Path) -> Result<Env<WithoutTls>, StoreError> {
    size::check(&path.join(DATA))?;
    // SAFETY: the file is changed by LMDB alone. Its directory is the engine's own, and locked against a
    // second writer; tools that read take part in LMDB's locking. It must not lie on a network's file
    // system, as the documentation says.
    #[allow(unsafe_code)]
    unsafe { options.open(path) }.map_err(failed("open", path))
}

/// Both ends included.
fn range<'a>(first: &'a [u8], last: &'a [u8]) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    (Bound::Included(first), Bound::Included(last))
}

fn round(bytes: usize) -> usize {
    (bytes.max(STEP) / STEP) * STEP
}

/// Says what was tried and on what, when LMDB refuses.
fn failed(action: &'static str, dir: &Path) -> impl Fn(heed::Error) -> StoreError {
    let path = dir.join(DATA);
    move |error| {
        let path = path.clone();
        match error {
            heed::Error::Io(source) => StoreError::Io { action, source: cause(source, &path), path },
            heed::Error::Mdb(MdbError::Corrupted | MdbError::PageNotFound | MdbError::Invalid) => {
                StoreError::Damaged { path, offset: 0, detail: error.to_string() }
            }
            other => StoreError::Io { action, path, source: io::Error::other(other.to_string()) },
        }
    }
}

/// LMDB says of a write for which there was room in part only that it was an I/O error.
fn cause(said: io::Error, path: &Path) -> io::Error {
    match free(path) {
        Ok(free) if free < FULL && said.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
            let detail = format!("No space left on device: {free} bytes are free, and LMDB says: {said}");
            io::Error::new(io::ErrorKind::StorageFull, detail)
        }
        _ => said,
    }
}

/// The bytes that are free where this file lies.
fn free(path: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(path)?;
    Ok(disk.f_bavail * disk.f_frsize)
}
