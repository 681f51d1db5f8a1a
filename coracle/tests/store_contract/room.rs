//! A key-value store that has no room, for a while.

use crate::map::Map;
use coracle::entry::{Entry, Kind, Stamp};
use coracle::raft::{Incarnation, Index, LogId, NodeId};
use coracle::storage::keyed::{KeyValue, KeyedStore, Operation, Visit};
use coracle::storage::{Change, Identity, LogStore, StoreError, WriteBatch};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

struct Crowded {
    map: Map,
    full: Arc<AtomicBool>,
}

impl KeyValue for Crowded {
    fn path(&self) -> &Path {
        self.map.path()
    }

    fn commit(&self, operations: &[Operation]) -> Result<(), StoreError> {
        if self.full.load(Ordering::Relaxed) {
            let source = io::ErrorKind::StorageFull.into();
            return Err(StoreError::NoSpace { path: self.path().to_owned(), source });
        }
        self.map.commit(operations)
    }

    fn scan(&self, first: &[u8], last: &[u8], visit: Visit<'_>) -> Result<(), StoreError> {
        self.map.scan(first, last, visit)
    }

    fn greatest(&self, first: &[u8], last: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.map.greatest(first, last)
    }

    fn disk_bytes(&self) -> Result<u64, StoreError> {
        self.map.disk_bytes()
    }
}

fn append(index: u64) -> WriteBatch {
    let entry = Entry::new(LogId::new(1, index), Kind::Noop, Stamp::default(), &[]);
    WriteBatch { changes: vec![Change::Append(vec![entry])], ..WriteBatch::default() }
}

/// ST-5, D5.2.9: what was refused for want of room was not begun, and the same write goes through later.
#[test]
fn st_5_a_store_without_room_goes_on_when_there_is_some() {
    let dir = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let map = Map::open(dir.path(), None).unwrap();
    let identity = Identity { node: NodeId(1), incarnation: Incarnation(7), cluster: None };
    let mut store = KeyedStore::new(Crowded { map, full: full.clone() }, identity);
    store.load(&mut |_| ()).unwrap();
    store.write(&append(1)).unwrap();
    full.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        let refused = store.write(&append(2));
        assert!(matches!(refused, Err(StoreError::NoSpace { .. })), "{refused:?}");
    }
    assert_eq!(store.reader().entries(Index(1), Index(2), 1 << 20).unwrap().len(), 1, "reads go on");
    full.store(false, Ordering::Relaxed);
    store.write(&append(2)).unwrap();
    assert_eq!(store.reader().entries(Index(1), Index(2), 1 << 20).unwrap().len(), 2);
}
