//! The log's readers against its recycler, under a scheduler that tries interleavings.
//!
//! Everything is the production code. The disk is slow to read, so that a reader that has decided where an
//! entry lies is overtaken by the writer, now and then until its segment is in use again. It runs with
//! `scripts/races`, in a build of its own, since the lock of the log is then the scheduler's.

use super::{Wal, WalConfig};
use crate::entry::{Entry, Kind, Stamp};
use crate::storage::disk::{Disk, DiskFile};
use crate::storage::mem_disk::MemDisk;
use crate::storage::{Change, Identity, LogReader, LogStore, ReadLogError, WriteBatch};
use coracle_core::{Incarnation, Index, LogId, NodeId};
use shuttle::rand::Rng;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A disk on which others get on with their work before anything is read.
struct Yielding<T>(T);

impl Disk for Yielding<MemDisk> {
    fn path(&self) -> &Path {
        self.0.path()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(Yielding(self.0.open(name)?)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(Yielding(self.0.create(name)?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }
}

impl DiskFile for Yielding<Arc<dyn DiskFile>> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let pause = shuttle::rand::thread_rng().gen_range(0..150);
        (0..pause).for_each(|_| shuttle::thread::yield_now());
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

/// How many entries the writer appends, one a batch: enough for every file to be used several times.
const ENTRIES: u64 = 24;

fn entry(index: u64) -> Entry {
    let payload = vec![index as u8; 5000];
    Entry::new(LogId::new(1, index), Kind::Command, Stamp::default(), &payload)
}

/// Appends and purges, so that each segment is recycled soon after it was left.
fn write(mut log: Wal) {
    for index in 1..=ENTRIES {
        let changes = vec![Change::Append(vec![entry(index)])];
        log.write(&WriteBatch { hard_state: None, changes }).unwrap();
        if index > 3 {
            log.purge(LogId::new(1, index - 2)).unwrap();
        }
    }
}

/// Reads whatever is there, from a place that is about to be purged.
fn read(reader: &dyn LogReader, next: &AtomicU64) {
    for _ in 0..12 {
        let first = Index(next.load(Ordering::Relaxed).max(1));
        match reader.entries(first, first.next(), usize::MAX) {
            Ok(entries) => {
                for (at, found) in (first.0..).zip(entries) {
                    assert_eq!(found, entry(at));
                }
                next.fetch_max(first.0, Ordering::Relaxed);
            }
            Err(ReadLogError::Purged) => {
                next.fetch_max(first.0 + 1, Ordering::Relaxed);
            }
            Err(ReadLogError::Missing) => shuttle::thread::yield_now(),
            Err(ReadLogError::Store(error)) => panic!("entry {first}: {error}"),
        }
    }
}

fn race() {
    let draws = AtomicU64::new(1);
    let draw = Arc::new(move || draws.fetch_add(1, Ordering::Relaxed));
    let config = WalConfig { segment_bytes: 32 << 10, spares: 2, prepare_ahead: false, draw };
    let identity = Identity { node: NodeId(1), incarnation: Incarnation(1), cluster: None };
    let mut log = Wal::open(Arc::new(Yielding(MemDisk::new())), identity, config);
    log.load(&mut |_| {}).unwrap();
    let next = Arc::new(AtomicU64::new(0));
    let readers = (0..2).map(|_| {
        let (reader, next) = (log.reader(), next.clone());
        shuttle::thread::spawn(move || read(&*reader, &next))
    });
    let readers: Vec<_> = readers.collect();
    write(log);
    readers.into_iter().for_each(|reader| reader.join().unwrap());
}

/// LG-10, D5.1.7: a segment that a reader holds is not overwritten.
#[test]
fn a_reader_never_sees_a_recycled_segment() {
    shuttle::check_random(race, 1000);
}
