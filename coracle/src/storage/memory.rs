//! The log in memory: for tests, and for clusters that may forget.
//!
//! It keeps the contract of [`LogStore`] in everything but durability, by the same bookkeeping as the
//! write-ahead log. What it holds is gone with the process, so a node on it must come back as another
//! incarnation.

use super::shape::Shape;
use super::{Change, LogReader, LogStore, ReadLogError, Recovered, StoreError, WriteBatch};
use crate::entry::Entry;
use coracle_core::{Index, LogId};
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

/// A log in memory. Clones share it, so that a test can "restart" on one.
#[derive(Clone, Default)]
pub struct MemoryStore {
    log: Arc<RwLock<Log>>,
}

#[derive(Default)]
struct Log {
    shape: Shape,
    /// The entries from after `shape.purged` to `shape.last`.
    entries: VecDeque<Entry>,
}

impl MemoryStore {
    /// An empty log.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    fn log(&self) -> RwLockWriteGuard<'_, Log> {
        self.log.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogStore for MemoryStore {
    fn load(&mut self, progress: &mut dyn FnMut(f32)) -> Result<Recovered, StoreError> {
        progress(1.0);
        Ok(self.log().shape.recovered())
    }

    fn write(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        let mut log = self.log();
        log.shape.check(batch).map_err(StoreError::Refused)?;
        if let Some(hard_state) = batch.hard_state {
            log.shape.hard_state = hard_state;
        }
        for change in &batch.changes {
            log.shape.change(change).map_err(StoreError::Refused)?;
            match change {
                Change::Reset(_) => log.entries.clear(),
                Change::Truncate(last) => {
                    let keep = last.0.saturating_sub(log.shape.purged.index.0) as usize;
                    log.entries.truncate(keep);
                }
                Change::Append(entries) => log.entries.extend(entries.iter().cloned()),
            }
        }
        Ok(())
    }

    fn purge(&mut self, upto: LogId) -> Result<(), StoreError> {
        let mut log = self.log();
        if log.shape.check_purge(upto).map_err(StoreError::Refused)? {
            let gone = (upto.index.0 - log.shape.purged.index.0) as usize;
            log.entries.drain(..gone);
            log.shape.purge(upto).map_err(StoreError::Refused)?;
        }
        Ok(())
    }

    fn never_waits(&self) -> bool {
        true
    }

    fn reader(&self) -> Box<dyn LogReader> {
        Box::new(MemoryReader { log: self.log.clone() })
    }
}

struct MemoryReader {
    log: Arc<RwLock<Log>>,
}

impl LogReader for MemoryReader {
    fn entries(&self, first: Index, last: Index, max_bytes: usize) -> Result<Vec<Entry>, ReadLogError> {
        let log = self.log.read().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = first.0.checked_sub(log.shape.purged.index.0 + 1) else {
            return Err(ReadLogError::Purged);
        };
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        for entry in log.entries.iter().skip(at as usize).take_while(|entry| entry.index() <= last) {
            bytes += entry.len();
            if bytes > max_bytes && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        if entries.is_empty() { Err(ReadLogError::Missing) } else { Ok(entries) }
    }
}
