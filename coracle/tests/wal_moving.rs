//! Inspections of a log in use: at each operation of the reader the writer goes on. No threads, no clock.

mod wal_support;

use coracle::core::{Index, LogId};
use coracle::storage::disk::{Disk, DiskFile};
use coracle::storage::identity;
use coracle::storage::mem_disk::MemDisk;
use coracle::storage::wal::{self, Inspection, Wal, WalConfig};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use wal_support::*;

/// A log that is written to, rolled and purged without a pause.
struct Writer {
    wal: Wal,
    last: u64,
    /// How many entries a purge leaves; none: it does not purge.
    keep: Option<u64>,
    /// How many entries come at each operation of the reader.
    pace: u64,
    /// How often the reader did something.
    operations: u64,
}

impl Writer {
    fn go_on(&mut self) {
        self.operations += 1;
        for _ in 0..self.pace {
            self.last += 1;
            changes(vec![append(1, self.last..=self.last, 3000)]).run(&mut self.wal).unwrap();
        }
        if let Some(upto) = self.keep.and_then(|keep| self.last.checked_sub(keep)).filter(|upto| *upto > 0) {
            Step::Purge(LogId::new(1, upto)).run(&mut self.wal).unwrap();
        }
    }
}

/// The reader's view of the disk: nothing holds still between two of its operations.
struct Moving {
    disk: MemDisk,
    writer: Arc<Mutex<Writer>>,
}

impl Moving {
    /// A log of many segments, and its writer.
    fn start(keep: Option<u64>, pace: u64) -> Moving {
        let disk = MemDisk::new();
        let config = WalConfig { segment_bytes: 64 << 10, ..config() };
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let wal = start_with(&shared, config).unwrap().0;
        let mut writer = Writer { wal, last: 0, keep, pace: 1, operations: 0 };
        (0..200).for_each(|_| writer.go_on());
        (writer.pace, writer.operations) = (pace, 0);
        Moving { disk, writer: Arc::new(Mutex::new(writer)) }
    }

    fn last(&self) -> u64 {
        self.writer.lock().unwrap().last
    }

    fn inspect(&self) -> Inspection {
        let identity = identity::inspect(&self.disk).unwrap().0;
        wal::inspect(self, Some(&identity)).unwrap()
    }

    fn segments(&self) -> Vec<String> {
        self.disk.list().unwrap().into_iter().filter(|name| name.ends_with(".log")).collect()
    }
}

fn told(found: &Inspection) -> Vec<String> {
    found.damage.iter().filter(|damage| !damage.forgiven).map(|damage| damage.error.to_string()).collect()
}

impl Disk for Moving {
    fn path(&self) -> &Path {
        self.disk.path()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.writer.lock().unwrap().go_on();
        self.disk.list()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.writer.lock().unwrap().go_on();
        Ok(Arc::new(MovingFile(self.disk.open(name)?, self.writer.clone())))
    }

    fn create(&self, _: &str) -> io::Result<Arc<dyn DiskFile>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

struct MovingFile(Arc<dyn DiskFile>, Arc<Mutex<Writer>>);

impl DiskFile for MovingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.1.lock().unwrap().go_on();
        // In small pieces, so that the log moves within a batch as well.
        let len = buffer.len().min(30_000);
        self.0.read_at(&mut buffer[..len], offset)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn len(&self) -> io::Result<u64> {
        self.1.lock().unwrap().go_on();
        self.0.len()
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

/// Each survey loses segments to a purge, and must end all the same.
#[test]
fn a_log_that_is_purged_at_every_operation_of_the_reader_is_read_to_its_end() {
    for keep in [100, 150, 190] {
        let moving = Moving::start(Some(keep), 1);
        for round in 0..20 {
            let before = moving.last();
            let operations = moving.writer.lock().unwrap().operations;
            let found = moving.inspect();
            let took = moving.writer.lock().unwrap().operations - operations;
            assert_eq!(told(&found), [""; 0], "keep {keep}, round {round}");
            assert!(found.recovered.last.index.0 >= before, "keep {keep}, round {round}");
            assert!(took < 1000, "keep {keep}, round {round}: {took} operations");
            let [stretch] = &found.stretches[..] else { panic!("{} stretches", found.stretches.len()) };
            assert_eq!(stretch.first, found.recovered.purged.index.next(), "what was purged is no gap");
            assert_eq!(stretch.last, found.recovered.last.index);
        }
    }
}

/// A log that only grows: what is wrong with it stays wrong.
#[test]
fn damage_in_a_log_that_moves_is_still_damage() {
    let segments = Moving::start(None, 1).segments().len();
    for at in 0..segments {
        let moving = Moving::start(None, 1);
        let name = &moving.segments()[at];
        let mut bytes = moving.disk.contents(name).unwrap();
        // Within the first entry of the segment.
        bytes[8192 + 1000] ^= 1;
        moving.disk.put(name, &bytes);
        let found = moving.inspect();
        assert!(
            told(&found).iter().any(|damage| damage.contains(name.as_str())),
            "{name}: {:?}",
            told(&found)
        );
    }
    // A gap, at the beginning as well.
    for at in 0..segments - 1 {
        let moving = Moving::start(None, 1);
        let name = &moving.segments()[at];
        moving.disk.remove(name).unwrap();
        assert!(!told(&moving.inspect()).is_empty(), "{name}");
    }
}

/// The name is there, but it is another file's.
#[test]
fn a_segment_of_another_log_in_a_log_that_moves_is_damage() {
    let other = Moving::start(None, 1);
    let moving = Moving::start(None, 1);
    let name = &moving.segments()[2];
    moving.disk.put(name, &other.disk.contents(name).unwrap());
    let found = moving.inspect();
    assert!(!told(&found).is_empty());
    assert!(found.recovered.last > LogId { index: Index(1), ..LogId::ZERO });
}
