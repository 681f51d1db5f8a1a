//! Inspections of a log in use: at each operation of the reader the writer goes on. No threads, no clock.

mod wal_support;

use coracle::raft::{ClusterId, Index, LogId};
use coracle::storage::disk::{Disk, DiskFile};
use coracle::storage::identity;
use coracle::storage::mem_disk::MemDisk;
use coracle::storage::wal::{self, Inspection, Wal, WalConfig};
use std::collections::BTreeMap;
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
    /// After how many operations of the reader, again and again, more entries come than a segment holds.
    burst: Option<u64>,
    /// How often the reader did something.
    operations: u64,
}

impl Writer {
    fn go_on(&mut self) {
        self.operations += 1;
        let burst =
            if self.burst.is_some_and(|every| self.operations.is_multiple_of(every)) { 30 } else { 0 };
        for _ in 0..self.pace + burst {
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
    reads: Arc<Mutex<Reads>>,
}

/// What the reader reads.
#[derive(Default)]
struct Reads {
    /// How often bytes after the checkpoint of each file.
    of: BTreeMap<String, u64>,
    /// Blocks of a file that read as zeros, so often.
    zeros: Option<(String, std::ops::Range<usize>, u64)>,
    /// How many bytes come at once.
    piece: usize,
}

impl Moving {
    /// A log of many segments, and its writer.
    fn start(keep: Option<u64>, pace: u64) -> Moving {
        let disk = MemDisk::new();
        let config = WalConfig { segment_bytes: 64 << 10, ..config() };
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let wal = start_with(&shared, config).unwrap().0;
        let mut writer = Writer { wal, last: 0, keep, pace: 1, burst: None, operations: 0 };
        (0..200).for_each(|_| writer.go_on());
        (writer.pace, writer.operations) = (pace, 0);
        // Small pieces, so that the log moves within a batch as well.
        let reads = Reads { piece: 30_000, ..Reads::default() };
        Moving { disk, writer: Arc::new(Mutex::new(writer)), reads: Arc::new(Mutex::new(reads)) }
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
        let (file, name) = (self.disk.open(name)?, name.to_owned());
        Ok(Arc::new(MovingFile { file, name, writer: self.writer.clone(), reads: self.reads.clone() }))
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

struct MovingFile {
    file: Arc<dyn DiskFile>,
    name: String,
    writer: Arc<Mutex<Writer>>,
    reads: Arc<Mutex<Reads>>,
}

impl DiskFile for MovingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.writer.lock().unwrap().go_on();
        let mut reads = self.reads.lock().unwrap();
        let len = buffer.len().min(reads.piece);
        let count = self.file.read_at(&mut buffer[..len], offset)?;
        if offset >= 8192 {
            *reads.of.entry(self.name.clone()).or_default() += 1;
        }
        if let Some((name, range, times)) = &mut reads.zeros
            && *name == self.name
            && (offset as usize..offset as usize + count).contains(&range.start)
            && *times > 0
        {
            *times -= 1;
            let from = range.start - offset as usize;
            buffer[from..count.min(from + range.len())].fill(0);
        }
        Ok(count)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn len(&self) -> io::Result<u64> {
        self.writer.lock().unwrap().go_on();
        self.file.len()
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

/// In the time that a survey takes from the oldest segment to the newest, the whole log is replaced.
#[test]
fn a_log_that_is_replaced_faster_than_it_is_read_is_read_all_the_same() {
    let moving = Moving::start(Some(190), 1);
    // A slow reader.
    moving.reads.lock().unwrap().piece = 3000;
    for round in 0..20 {
        let before = moving.writer.lock().unwrap().operations;
        let found = moving.inspect();
        let took = moving.writer.lock().unwrap().operations - before;
        assert_eq!(told(&found), [""; 0], "round {round}");
        assert!(took < 2000, "round {round}: {took} operations");
        let [stretch] = &found.stretches[..] else { panic!("{} stretches", found.stretches.len()) };
        assert_eq!(stretch.first, found.recovered.purged.index.next(), "what was purged is no gap");
    }
}

/// What is damaged must be found twice. The rest is not read twice for that.
#[test]
fn what_is_stable_is_read_once_however_often_the_log_is_surveyed() {
    let moving = Moving::start(None, 0);
    let names = moving.segments();
    let mut bytes = moving.disk.contents(&names[3]).unwrap();
    bytes[8192 + 1000] ^= 1;
    moving.disk.put(&names[3], &bytes);
    let found = moving.inspect();
    assert_eq!(told(&found).len(), 1);
    let reads = moving.reads.lock().unwrap();
    // A segment of 64 KiB takes three reads.
    for name in names.iter().filter(|name| ![&names[3], names.last().unwrap()].contains(name)) {
        assert!(reads.of[name] <= 3, "{name}: {} reads", reads.of[name]);
    }
    assert!(reads.of[&names[3]] > 3, "the damaged one is");
    // Whatever was not read again is there all the same.
    let entries = |at: usize| found.stretches[at].last.0 - found.stretches[at].first.0;
    assert!(found.stretches.len() == 2 && entries(0) + entries(1) > 150);
}

/// The identity was read before the node joined its cluster, and the segments after.
#[test]
fn a_node_that_joins_its_cluster_under_the_readers_eyes_is_no_stranger() {
    let moving = Moving::start(None, 0);
    let before = identity::inspect(&moving.disk).unwrap().0;
    assert_eq!(before.cluster, None);
    identity::set_cluster(&moving.disk, ClusterId(7)).unwrap();
    let shared: Arc<dyn Disk> = Arc::new(moving.disk.clone());
    drop(start_with(&shared, WalConfig { segment_bytes: 64 << 10, ..config() }).unwrap());
    let found = wal::inspect(&moving, Some(&before)).unwrap();
    assert_eq!(told(&found), [""; 0]);
    assert_eq!(found.identity.unwrap().cluster, Some(ClusterId(7)));
    // An identity that still names none is an older one than the log's.
    let disk = MemDisk::new();
    moving.segments().iter().for_each(|name| disk.put(name, &moving.disk.contents(name).unwrap()));
    identity::open_or_create(&disk, before.node, false, || before.incarnation).unwrap();
    let found = wal::inspect(&disk, Some(&before)).unwrap();
    assert!(told(&found)[0].contains("the segment belongs to"), "{:?}", told(&found));
}

/// D5.2.8: a segment that was left names the next one. It is missing if it is not there, and not if it came meanwhile.
#[test]
fn the_successor_of_the_newest_segment_is_missing_unless_the_log_moved_on() {
    let moving = Moving::start(None, 0);
    let newest = moving.segments().pop().unwrap();
    moving.disk.remove(&newest).unwrap();
    let found = moving.inspect();
    assert!(told(&found).iter().any(|damage| damage.contains(&newest)), "{:?}", told(&found));
    // It rolls on in each survey that the reader makes.
    for at in 20..=60 {
        let moving = Moving::start(None, 0);
        let listed = moving.segments();
        moving.writer.lock().unwrap().burst = Some(at);
        let found = moving.inspect();
        assert_eq!(told(&found), [""; 0], "operation {at}");
        let operations = moving.writer.lock().unwrap().operations;
        assert!(moving.segments().len() > listed.len() || operations < at);
    }
}

/// A batch that was being written when it was read, and later ones that attest it: the next survey finds it whole.
#[test]
fn damage_counts_where_two_surveys_find_it() {
    let moving = Moving::start(None, 0);
    let newest = moving.segments().pop().unwrap();
    let end = moving.inspect().segments.pop().unwrap().end as usize;
    // The last batch but two, of one entry of 3,000 bytes.
    for (times, damaged) in [(1, false), (u64::MAX, true)] {
        let zeros = (newest.clone(), end - 3 * 4096..end - 3 * 4096 + 100, times);
        moving.reads.lock().unwrap().zeros = Some(zeros);
        let found = moving.inspect();
        assert_eq!(!told(&found).is_empty(), damaged, "{times}: {:?}", told(&found));
        if !damaged {
            assert_eq!(found.segments.last().unwrap().end as usize, end);
        }
    }
}
