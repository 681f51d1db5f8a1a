//! Reads entries beside the writer.
//!
//! A scan is of one moment, in which the log has no gaps: the entries come one after the other, or
//! something is damaged. Only whether the first one is gone or has not come yet needs a second look.

use super::{KeyValue, damaged, layout as keys};
use crate::entry::Entry;
use crate::storage::{LogReader, ReadLogError, StoreError};
use coracle_core::Index;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// A reader of a map.
pub(super) struct KeyedReader<K> {
    map: Weak<K>,
    path: PathBuf,
    /// What the files take, as the store last measured it.
    disk_bytes: Arc<AtomicU64>,
    /// Held by a reader that is alone; one beside a store ends with the store.
    _alone: Option<Arc<K>>,
}

impl<K: KeyValue> KeyedReader<K> {
    /// A reader that does not keep the map open.
    pub(super) fn beside(map: &Arc<K>, disk_bytes: &Arc<AtomicU64>) -> KeyedReader<K> {
        let path = map.path().to_owned();
        KeyedReader { map: Arc::downgrade(map), path, disk_bytes: disk_bytes.clone(), _alone: None }
    }

    /// A reader that keeps the map open.
    pub(super) fn alone(map: Arc<K>) -> Result<KeyedReader<K>, StoreError> {
        let disk_bytes = Arc::new(AtomicU64::new(map.disk_bytes()?));
        let path = map.path().to_owned();
        Ok(KeyedReader { map: Arc::downgrade(&map), path, disk_bytes, _alone: Some(map) })
    }

    fn map(&self) -> Result<Arc<K>, StoreError> {
        self.map.upgrade().ok_or_else(|| StoreError::Io {
            action: "read the log in",
            path: self.path.clone(),
            source: std::io::Error::other("the store was closed"),
        })
    }
}

/// The newest entry that is gone.
fn purged(map: &dyn KeyValue) -> Result<Index, StoreError> {
    let mut found = Ok(Index::ZERO);
    map.scan(&[keys::PURGED], &[keys::PURGED], &mut |_, value| {
        found = keys::read_purged(value).map(|id| id.index);
        ControlFlow::Break(())
    })?;
    found.map_err(|detail| damaged(map, "the purged entry", &detail))
}

impl<K: KeyValue> LogReader for KeyedReader<K> {
    fn entries(&self, first: Index, last: Index, max_bytes: usize) -> Result<Vec<Entry>, ReadLogError> {
        let map = &*self.map()?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        let mut wrong: Option<(Index, String)> = None;
        let mut next = first;
        if first <= last {
            map.scan(&keys::key(first), &keys::key(last), &mut |key, value| {
                bytes += value.len();
                if bytes > max_bytes && !entries.is_empty() {
                    return ControlFlow::Break(());
                }
                let entry = match keys::read_entry(key, value) {
                    Ok(entry) if entry.index() != next => Err("it is missing, but the log goes on".into()),
                    Ok(entry) if entries.last().is_some_and(|before| before.term() > entry.term()) => {
                        Err(format!("its term {} descends", entry.term()))
                    }
                    other => other,
                };
                match entry {
                    Ok(entry) => entries.push(entry),
                    Err(detail) => {
                        wrong = Some((keys::index(key).unwrap_or(next).min(next), detail));
                        return ControlFlow::Break(());
                    }
                }
                next = next.next();
                ControlFlow::Continue(())
            })?;
        }
        if first <= purged(map)? {
            // Also where the scan found only later ones, or saw entries that were purged a moment later.
            return Err(ReadLogError::Purged);
        }
        if let Some((index, detail)) = wrong {
            return Err(damaged(map, &format!("entry {index}"), &detail).into());
        }
        if entries.is_empty() { Err(ReadLogError::Missing) } else { Ok(entries) }
    }

    fn disk_bytes(&self) -> u64 {
        self.disk_bytes.load(Ordering::Relaxed)
    }
}
