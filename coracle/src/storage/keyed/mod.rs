//! The log in an ordered key-value store: what LMDB and RocksDB have in common.
//!
//! [`KeyValue`] is the little that an engine has to do: commit a list of operations, whole and durable, and
//! scan a range of one snapshot. [`KeyedStore`] makes a [`LogStore`] of it. An entry lies under its index, in
//! the encoding that it has everywhere, with its own checksum; the hard state, what was purged and whose
//! log it is lie under keys of one byte (`layout` has them, and `docs/disk-format.md` tells them). A batch
//! is one commit, so the engine's own atomicity is the batch's, and log maintenance never
//! touches the hard state's key.
//!
//! A start reads every entry and verifies it. Before anything is answered from what was found, one more
//! commit makes it durable: a process that was killed between its write and its sync may have left
//! bytes that only the page cache holds.

mod layout;
mod load;
mod reader;

pub use load::{Inspected, inspect};

use self::layout as keys;
use self::reader::KeyedReader;
use super::shape::Shape;
use super::{Change, Identity, LogReader, LogStore, Recovered, StoreError, WriteBatch};
use crate::entry::Entry;
use crate::error::in_full;
use bytes::Bytes;
use coracle_core::{Index, LogId};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The greatest batch, in bytes of its entries: what an engine has to hold in memory for one commit.
pub const MAX_BATCH_BYTES: usize = 256 << 20;

/// One change of a key-value store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Give the key this value, whether it had one or not.
    Put {
        /// The key, 1 to 9 bytes.
        key: Vec<u8>,
        /// The value, at most one largest entry.
        value: Bytes,
    },
    /// Remove all keys in the range, both ends included.
    Delete {
        /// The least key.
        first: Vec<u8>,
        /// The greatest key.
        last: Vec<u8>,
    },
}

/// A map of byte strings on disk, ordered by the bytes of its keys.
pub trait KeyValue: Send + Sync {
    /// Where it is, for messages.
    fn path(&self) -> &Path;

    /// Carries out the operations in their order, all or none. **Durable on return**: survives the loss of
    /// power. Called by one thread at a time, and never again after an error, with one exception:
    /// [`StoreError::NoSpace`] says that there is no room and that nothing was begun, and the same operations come again.
    fn commit(&self, operations: &[Operation]) -> Result<(), StoreError>;

    /// Called when no commit came for a while, and when the store is closed in order: time for what no commit
    /// waits for, such as a mark after the newest one that tells damage to it from a torn write.
    fn settle(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Shows the pairs in the range, both ends included, ascending, all of one moment, until `visit` breaks
    /// off. Any number of threads may scan, beside a commit and without waiting for its sync.
    fn scan(&self, first: &[u8], last: &[u8], visit: Visit<'_>) -> Result<(), StoreError>;

    /// The greatest key in the range, both ends included.
    fn greatest(&self, first: &[u8], last: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// How many bytes its files take. Asked now and then by the thread that commits; may look at the disk.
    fn disk_bytes(&self) -> Result<u64, StoreError>;
}

/// How many bytes are committed until the files are measured anew.
const MEASURE_BYTES: usize = 1 << 20;

/// Takes a key and its value.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// A log store over an ordered key-value store.
///
/// Dropping it drops the key-value store, so its directory can be opened again; a reader that is left over
/// then has nothing to read, and says so.
pub struct KeyedStore<K> {
    map: Arc<K>,
    identity: Identity,
    shape: Shape,
    state: State,
    /// What the files take, as last measured, for all readers.
    disk_bytes: Arc<AtomicU64>,
    /// Bytes that were committed since.
    unmeasured: usize,
}

enum State {
    /// Not loaded yet.
    New,
    /// Reads and writes.
    Open,
    /// Something failed, and this is what.
    Finished(String),
}

impl<K: KeyValue + 'static> KeyedStore<K> {
    /// The log of this node in this map. Touches nothing yet: [`load`](LogStore::load) does the work.
    pub fn new(map: K, identity: Identity) -> KeyedStore<K> {
        KeyedStore {
            map: Arc::new(map),
            identity,
            shape: Shape::default(),
            state: State::New,
            disk_bytes: Arc::default(),
            unmeasured: 0,
        }
    }

    fn check_open(&self) -> Result<(), StoreError> {
        match &self.state {
            State::Open => Ok(()),
            State::New => Err(StoreError::Refused("the log was not loaded".into())),
            State::Finished(reason) => Err(StoreError::Io {
                action: "write to the log in",
                path: self.map.path().to_owned(),
                source: std::io::Error::other(format!("finished by an earlier failure: {reason}")),
            }),
        }
    }

    /// Commits; the first failure is the last.
    fn commit(&mut self, operations: &[Operation]) -> Result<(), StoreError> {
        let result = self.map.commit(operations);
        self.unless_failed(result)
    }

    /// What fails once is not relied on again: that ends the store. Where nothing was begun, nothing has failed.
    fn unless_failed<T>(&mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        result.inspect_err(|error| {
            if !matches!(error, StoreError::NoSpace { .. }) {
                self.state = State::Finished(in_full(&error));
            }
        })
    }

    /// Looks how much the files take.
    fn measure(&mut self) -> Result<(), StoreError> {
        self.unmeasured = 0;
        let bytes = self.map.disk_bytes();
        let bytes = self.unless_failed(bytes)?;
        self.disk_bytes.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Reads and verifies everything, and makes it durable.
    fn start(&mut self, progress: &mut dyn FnMut(f32)) -> Result<(), StoreError> {
        let found = load::load(&*self.map, progress)?;
        let starts = match &found {
            Some(found) => {
                load::check_identity(&*self.map, found, &self.identity)?;
                found.starts + 1
            }
            None if self.identity.cluster.is_some() => {
                return Err(StoreError::Identity {
                    path: self.map.path().to_owned(),
                    detail: "the node has joined a cluster, but its log is gone; bring the log back, or \
                             remove this node from the cluster, empty the directory and add the node again"
                        .into(),
                });
            }
            None => 1,
        };
        let mut operations = vec![keys::starts(starts)];
        if found.is_none() {
            operations.extend([keys::format(), keys::identity(&self.identity)]);
        }
        self.commit(&operations)?;
        self.shape = found.map(|found| found.shape).unwrap_or_default();
        self.measure()
    }
}

impl<K: KeyValue + 'static> LogStore for KeyedStore<K> {
    fn load(&mut self, progress: &mut dyn FnMut(f32)) -> Result<Recovered, StoreError> {
        if !matches!(self.state, State::New) {
            return Err(StoreError::Refused("the log was loaded before".into()));
        }
        if let Err(error) = self.start(progress) {
            self.state = State::Finished(in_full(&error));
            return Err(error);
        }
        self.state = State::Open;
        progress(1.0);
        Ok(self.shape.recovered())
    }

    fn write(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        self.check_open()?;
        self.shape.check(batch).map_err(StoreError::Refused)?;
        let bytes = entries(batch).map(Entry::len).sum::<usize>();
        if bytes > MAX_BATCH_BYTES {
            let refused = format!("a batch of {bytes} bytes, over the limit of {MAX_BATCH_BYTES}");
            return Err(StoreError::Refused(refused));
        }
        let operations = operations(&self.shape, batch);
        if operations.is_empty() {
            return Ok(());
        }
        self.commit(&operations)?;
        self.shape.hard_state = batch.hard_state.unwrap_or(self.shape.hard_state);
        batch.changes.iter().try_for_each(|change| self.shape.change(change)).map_err(StoreError::Refused)?;
        self.unmeasured += bytes;
        if self.unmeasured >= MEASURE_BYTES { self.measure() } else { Ok(()) }
    }

    fn purge(&mut self, upto: LogId) -> Result<(), StoreError> {
        self.check_open()?;
        if !self.shape.check_purge(upto).map_err(StoreError::Refused)? {
            return Ok(());
        }
        let mut shape = self.shape.clone();
        shape.purge(upto).map_err(StoreError::Refused)?;
        let mut operations =
            vec![keys::purged(upto), keys::remove(self.shape.purged.index.next(), upto.index)];
        if let Some((id, payload)) = shape.memberships.first()
            && id.index <= upto.index
        {
            operations.push(keys::membership(*id, payload));
        }
        self.commit(&operations)?;
        self.shape = shape;
        self.measure()
    }

    fn idle(&mut self) -> Result<(), StoreError> {
        self.check_open()?;
        let settled = self.map.settle();
        self.unless_failed(settled)?;
        self.measure()
    }

    fn reader(&self) -> Box<dyn LogReader> {
        Box::new(KeyedReader::beside(&self.map, &self.disk_bytes))
    }
}

/// The entries that a batch appends.
fn entries(batch: &WriteBatch) -> impl Iterator<Item = &Entry> {
    batch.changes.iter().flat_map(|change| match change {
        Change::Append(entries) => &entries[..],
        Change::Reset(_) | Change::Truncate(_) => &[],
    })
}

/// What a batch does to the keys of a log of this shape.
fn operations(shape: &Shape, batch: &WriteBatch) -> Vec<Operation> {
    let mut operations: Vec<Operation> = batch.hard_state.iter().map(keys::hard_state).collect();
    let (mut purged, mut last) = (shape.purged.index, shape.last.index);
    let remove = |operations: &mut Vec<Operation>, first: Index, last: Index| {
        if first <= last {
            operations.push(keys::remove(first, last));
        }
    };
    for change in &batch.changes {
        match change {
            Change::Reset(to) => {
                remove(&mut operations, purged.next(), last);
                operations.extend([keys::purged(*to), keys::forget_membership()]);
                (purged, last) = (to.index, to.index);
            }
            Change::Truncate(keep) => {
                remove(&mut operations, keep.next(), last);
                last = last.min(*keep);
            }
            Change::Append(entries) => {
                operations.extend(entries.iter().map(keys::entry));
                last = entries.last().map_or(last, Entry::index);
            }
        }
    }
    operations
}

/// A damaged value; there are no offsets in a map, so the key is named.
fn damaged(map: &dyn KeyValue, what: &str, detail: &str) -> StoreError {
    StoreError::Damaged { path: map.path().to_owned(), offset: 0, detail: format!("{what}: {detail}") }
}
