//! The smallest key-value store that keeps its word: a map in memory, and a file of all that was done to it.
//! [`Flaw`]s make it break its word.

use crate::wrong::Flaw;
use coracle::entry::Entry;
use coracle::storage::disk::{DirDisk, Disk, DiskFile};
use coracle::storage::keyed::{KeyValue, KeyedStore, Operation, Visit};
use coracle::storage::{Engine, Identity, LogStore, StoreError};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

const FILE: &str = "map";

/// A map on disk.
pub(crate) struct Map {
    path: PathBuf,
    /// Holds the directory's lock.
    _disk: Option<DirDisk>,
    file: Arc<dyn DiskFile>,
    pairs: RwLock<BTreeMap<Vec<u8>, Vec<u8>>>,
    end: Mutex<End>,
    flaw: Option<Flaw>,
}

/// The end of the file.
#[derive(Default)]
struct End {
    offset: u64,
    /// Commits since the opening.
    commits: u64,
    /// What was held back.
    kept_back: Vec<u8>,
}

impl Map {
    pub(crate) fn open(dir: &Path, flaw: Option<Flaw>) -> Result<Map, StoreError> {
        let failed = |source| StoreError::Io { action: "open", path: dir.join(FILE), source };
        let (disk, file): (_, Arc<dyn DiskFile>) = if flaw == Some(Flaw::NoLock) {
            std::fs::create_dir_all(dir).map_err(failed)?;
            let parent = DirDisk::open(dir.join(format!("lock-{}", rand())))
                .map_err(|_| StoreError::Locked { path: dir.to_owned() })?;
            let name = format!("../{FILE}");
            let file = parent.open(&name).or_else(|_| parent.create(&name)).map_err(failed)?;
            (None, file)
        } else {
            let disk = DirDisk::open(dir)?;
            let file = disk.open(FILE).or_else(|_| disk.create(FILE)).map_err(failed)?;
            disk.sync_dir().map_err(failed)?;
            (Some(disk), file)
        };
        let mut bytes = vec![0; file.len().map_err(failed)? as usize];
        let mut read = 0;
        while read < bytes.len() {
            read += file.read_at(&mut bytes[read..], read as u64).map_err(failed)?;
        }
        let mut pairs = BTreeMap::new();
        let offset = replay(&bytes, &mut pairs);
        if flaw == Some(Flaw::DamageIsTheEnd) {
            let bad = pairs.iter().find(|(key, value)| {
                key.len() == 9 && Entry::decode(bytes::Bytes::copy_from_slice(value)).is_err()
            });
            if let Some(bad) = bad.map(|(key, _)| key.clone()) {
                pairs.split_off(&bad);
            }
        }
        let end = Mutex::new(End { offset, ..End::default() });
        Ok(Map { path: dir.to_owned(), _disk: disk, file, pairs: RwLock::new(pairs), end, flaw })
    }

    fn flawed(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    fn append(&self, end: &mut End, bytes: &[u8]) -> Result<(), StoreError> {
        let written = self.file.write_at(bytes, end.offset).and_then(|()| self.file.sync_data());
        end.offset += bytes.len() as u64;
        written.map_err(|source| StoreError::Io { action: "write to", path: self.path.join(FILE), source })
    }
}

/// A number that no other call in this process gets.
fn rand() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

impl Drop for Map {
    fn drop(&mut self) {
        let end = &mut *self.end.lock().unwrap();
        let kept_back = std::mem::take(&mut end.kept_back);
        self.append(end, &kept_back).unwrap();
    }
}

/// One commit, with its length in front; a torn one at the end of the file is none.
fn encode(operations: &[Operation]) -> Vec<u8> {
    let mut body = Vec::new();
    for operation in operations {
        let (kind, key, value) = match operation {
            Operation::Put { key, value } => (0u8, key, &value[..]),
            Operation::Delete { first, last } => (1, first, &last[..]),
        };
        body.push(kind);
        body.push(key.len() as u8);
        body.extend((value.len() as u32).to_le_bytes());
        body.extend(key);
        body.extend(value);
    }
    [&(body.len() as u32).to_le_bytes()[..], &body].concat()
}

/// Returns where the whole commits end.
fn replay(bytes: &[u8], pairs: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> u64 {
    let mut rest = bytes;
    while let Some((len, after)) = rest.split_first_chunk::<4>()
        && let Some((mut body, after)) = after.split_at_checked(u32::from_le_bytes(*len) as usize)
    {
        while let [kind, key, a, b, c, d, more @ ..] = body {
            let (key, more) = more.split_at(*key as usize);
            let (value, more) = more.split_at(u32::from_le_bytes([*a, *b, *c, *d]) as usize);
            match kind {
                0 => drop(pairs.insert(key.to_vec(), value.to_vec())),
                _ => delete(pairs, key, value),
            }
            body = more;
        }
        rest = after;
    }
    (bytes.len() - rest.len()) as u64
}

fn delete(pairs: &mut BTreeMap<Vec<u8>, Vec<u8>>, first: &[u8], last: &[u8]) {
    pairs.retain(|key, _| key.as_slice() < first || key.as_slice() > last);
}

impl KeyValue for Map {
    fn path(&self) -> &Path {
        &self.path
    }

    fn commit(&self, operations: &[Operation]) -> Result<(), StoreError> {
        let mut end = self.end.lock().unwrap();
        end.commits += 1;
        let is_entry = |key: &Vec<u8>| key.len() == 9;
        let durable = operations.iter().filter(|operation| match operation {
            Operation::Delete { first, .. } => !self.flawed(Flaw::DeletesForgotten) || !is_entry(first),
            Operation::Put { key, .. } => !self.flawed(Flaw::PurgeForgotten) || key[..] != [3],
        });
        let bytes = encode(&durable.cloned().collect::<Vec<_>>());
        if self.flawed(Flaw::WriteBehind) {
            let before = std::mem::replace(&mut end.kept_back, bytes);
            self.append(&mut end, &before)?;
        } else if !(self.flawed(Flaw::CommitLost) && end.commits == 25) {
            self.append(&mut end, &bytes)?;
        }
        let slow = self.flawed(Flaw::SeenInParts);
        let mut pairs = self.pairs.write().unwrap();
        for operation in operations {
            match operation {
                Operation::Put { key, value } => drop(pairs.insert(key.clone(), value.to_vec())),
                Operation::Delete { first, last } => delete(&mut pairs, first, last),
            }
            if slow {
                drop(pairs);
                std::thread::sleep(std::time::Duration::from_micros(200));
                pairs = self.pairs.write().unwrap();
            }
        }
        Ok(())
    }

    fn scan(&self, first: &[u8], last: &[u8], visit: Visit<'_>) -> Result<(), StoreError> {
        let pairs = self.pairs.read().unwrap();
        for (key, value) in pairs.range(first.to_vec()..=last.to_vec()) {
            if visit(key, value) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn greatest(&self, first: &[u8], last: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let pairs = self.pairs.read().unwrap();
        Ok(pairs.range(first.to_vec()..=last.to_vec()).next_back().map(|(key, _)| key.clone()))
    }

    fn disk_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.end.lock().unwrap().offset)
    }
}

/// Logs in such maps.
#[derive(Default)]
pub(crate) struct MapEngine {
    pub(crate) flaw: Option<Flaw>,
}

impl Engine for MapEngine {
    fn name(&self) -> &str {
        "map"
    }

    fn exists(&self, dir: &Path) -> Result<bool, StoreError> {
        Ok(dir.join(FILE).exists())
    }

    fn open(&self, dir: &Path, identity: Identity) -> Result<Box<dyn LogStore>, StoreError> {
        Ok(Box::new(KeyedStore::new(Map::open(dir, self.flaw)?, identity)))
    }
}

/// A tool looks at a log that moves between any two of its scans.
mod moving {
    use super::*;
    use coracle::entry::{Kind, Stamp};
    use coracle::raft::{Incarnation, LogId, NodeId};
    use coracle::storage::keyed::inspect;
    use coracle::storage::{Change, WriteBatch};

    /// What happens to the map between two scans.
    type Meanwhile = Box<dyn FnMut(&Map) + Send>;

    struct Moving {
        map: Map,
        writer: Mutex<Meanwhile>,
    }

    impl KeyValue for Moving {
        fn path(&self) -> &Path {
            self.map.path()
        }

        fn commit(&self, _: &[Operation]) -> Result<(), StoreError> {
            panic!("a tool writes nothing")
        }

        fn scan(&self, first: &[u8], last: &[u8], visit: Visit<'_>) -> Result<(), StoreError> {
            (self.writer.lock().unwrap())(&self.map);
            self.map.scan(first, last, visit)
        }

        fn greatest(&self, first: &[u8], last: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            (self.writer.lock().unwrap())(&self.map);
            self.map.greatest(first, last)
        }

        fn disk_bytes(&self) -> Result<u64, StoreError> {
            self.map.disk_bytes()
        }
    }

    #[test]
    fn a_keyed_log_that_is_purged_between_any_two_scans_is_read() {
        let (at_rest, in_use) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let identity = Identity { node: NodeId(1), incarnation: Incarnation(7), cluster: None };
        let mut store = KeyedStore::new(Map::open(at_rest.path(), None).unwrap(), identity);
        store.load(&mut |_| {}).unwrap();
        let append = |indexes: std::ops::RangeInclusive<u64>| {
            let entry = |index| Entry::new(LogId::new(1, index), Kind::Command, Stamp::default(), b"x");
            WriteBatch { hard_state: None, changes: vec![Change::Append(indexes.map(entry).collect())] }
        };
        store.write(&append(1..=10)).unwrap();
        drop(store);
        std::fs::copy(at_rest.path().join(FILE), in_use.path().join(FILE)).unwrap();
        // Another store does to its map what is then done to the one that is read, too.
        let map = Map::open(in_use.path(), None).unwrap();
        let mut store = KeyedStore::new(Map::open(at_rest.path(), None).unwrap(), identity);
        store.load(&mut |_| {}).unwrap();
        let mut last = 10;
        let path = at_rest.path().to_owned();
        let writer = move |map: &Map| {
            store.write(&append(last + 1..=last + 20)).unwrap();
            last += 20;
            store.purge(LogId::new(1, last - 5)).unwrap();
            let mut pairs = BTreeMap::new();
            replay(&std::fs::read(path.join(FILE)).unwrap(), &mut pairs);
            *map.pairs.write().unwrap() = pairs;
        };
        let found = inspect(Moving { map, writer: Mutex::new(Box::new(writer)) }).unwrap().unwrap();
        assert!(found.damage.is_empty(), "{:?}", found.damage);
        let [(first, last)] = found.stretches[..] else { panic!("{:?}", found.stretches) };
        assert_eq!((first.index, last), (found.recovered.purged.index.next(), found.recovered.last));
    }
}
