//! The files of the log: their names, and how a new one comes to be.
//!
//! A segment is filled with zeros before it is used, so that a sync of a batch has no metadata to write.
//! It gets its header and its checkpoint, is synced, and only then gets the name of a segment, which is
//! synced in its turn. So a file with such a name is part of the log, and everything else (`*.tmp`,
//! `spare`) is not. [`Spares`] makes the next file ahead of need on a thread of its own, since zeroing
//! 64 MiB takes longer than a leader may be silent.

use super::format::BLOCK;
use crate::storage::StoreError;
use crate::storage::disk::{Disk, DiskFile, failed};
use coracle_core::Broken;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// A file of zeros under way, made by the writer itself.
const NEW: &str = "segment.tmp";
/// A file of zeros under way, made ahead of need.
const NEXT: &str = "spare.tmp";
/// A file of zeros, whole and synced.
const SPARE: &str = "spare";

/// How many zeros are written at once, in bytes: large enough to be fast, small enough to stop between.
const STRETCH: usize = 1 << 20;

const SUFFIX: &str = ".log";

/// One file of the log.
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) generation: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    /// The length that batches may fill, in bytes.
    pub(super) size: u64,
}

impl Segment {
    /// The file's name.
    pub(super) fn name(&self) -> String {
        name(self.number)
    }
}

/// The name of the segment with this number.
pub(super) fn name(number: u64) -> String {
    format!("{number:016x}{SUFFIX}")
}

/// The number of the segment with this name, if it is a segment's.
pub(super) fn number(file: &str) -> Option<u64> {
    let number = u64::from_str_radix(file.strip_suffix(SUFFIX)?, 16).ok()?;
    (name(number) == file).then_some(number)
}

/// Whether a file is half of a spare, which nobody finishes. ([`NEW`] is what every start makes anew.)
pub(super) fn is_unfinished(file: &str) -> bool {
    file == NEXT
}

/// A file of zeros that will be a segment, and the name that it has until then.
pub(super) struct Blank {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) name: &'static str,
    pub(super) size: u64,
}

/// Writes what a segment starts with, and lets it join the log: durable on return.
pub(super) fn join(
    disk: &dyn Disk,
    blank: Blank,
    number: u64,
    generation: u64,
    start: &[&[u8]],
    broken: Broken,
) -> Result<Segment, StoreError> {
    let old = disk.path().join(blank.name);
    let mut offset = 0;
    for bytes in start {
        blank.file.write_at(bytes, offset).map_err(failed("write to", &old))?;
        offset += BLOCK.max(bytes.len() as u64);
    }
    if !broken.is("checkpoint-not-synced") {
        blank.file.sync_data().map_err(failed("sync", &old))?;
    }
    let name = name(number);
    disk.rename(blank.name, &name).map_err(failed("rename", &old))?;
    if !broken.is("directory-not-synced") {
        disk.sync_dir().map_err(failed("sync", disk.path()))?;
    }
    Ok(Segment { number, generation, path: disk.path().join(name), file: blank.file, size: blank.size })
}

/// Where new files come from.
pub(super) struct Spares {
    disk: Arc<dyn Disk>,
    worker: Option<Worker>,
}

struct Worker {
    /// Ask for one more file of this size.
    wanted: Option<Sender<u64>>,
    made: Receiver<Result<Blank, StoreError>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// The size of the file that was asked for and not taken yet.
    under_way: Option<u64>,
}

impl Spares {
    /// Files are made when they are taken.
    pub(super) fn new(disk: Arc<dyn Disk>) -> Spares {
        Spares { disk, worker: None }
    }

    /// From now on, has a file of this size made ahead of need.
    pub(super) fn prepare(&mut self, size: u64) -> Result<(), StoreError> {
        if self.worker.is_none() {
            self.worker = Some(Worker::start(self.disk.clone())?);
        }
        if let Some(worker) = &mut self.worker
            && worker.under_way.is_none()
            && worker.wanted.as_ref().is_some_and(|wanted| wanted.send(size).is_ok())
        {
            worker.under_way = Some(size);
        }
        Ok(())
    }

    /// A file of at least this size.
    pub(super) fn take(&mut self, size: u64) -> Result<Blank, StoreError> {
        if let Some(worker) = &mut self.worker
            && worker.under_way.is_some_and(|made| made >= size)
        {
            worker.under_way = None;
            if let Ok(made) = worker.made.recv() {
                return made;
            }
        }
        fill(&*self.disk, NEW, size, &AtomicBool::new(false))
    }
}

impl Worker {
    fn start(disk: Arc<dyn Disk>) -> Result<Worker, StoreError> {
        let path = disk.path().to_owned();
        let stop = Arc::new(AtomicBool::new(false));
        let (wanted, requests) = channel();
        let (replies, made) = channel();
        let stopped = stop.clone();
        let run = move || {
            for size in requests {
                if replies.send(spare(&*disk, size, &stopped)).is_err() {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name("coracle-spare".into()).spawn(run);
        let thread = thread.map_err(failed("start a thread for", path))?;
        Ok(Worker { wanted: Some(wanted), made, stop, thread: Some(thread), under_way: None })
    }
}

impl Drop for Worker {
    /// Waits for the thread, so that nobody uses the directory once the log is gone.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wanted = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A synced file of zeros: the one that an earlier run left, if it has the size, or a new one. What an
/// interrupted [`join`] wrote into it is of another generation, and so as good as zeros.
fn spare(disk: &dyn Disk, size: u64, stop: &AtomicBool) -> Result<Blank, StoreError> {
    let path = disk.path().join(SPARE);
    if disk.list().map_err(failed("list", disk.path()))?.iter().any(|name| name == SPARE) {
        let file = disk.open(SPARE).map_err(failed("open", &path))?;
        if file.len().map_err(failed("read", &path))? == size {
            return Ok(Blank { file, name: SPARE, size });
        }
    }
    let blank = fill(disk, NEXT, size, stop)?;
    blank.file.sync_data().map_err(failed("sync", disk.path().join(NEXT)))?;
    disk.rename(NEXT, SPARE).map_err(failed("rename", disk.path().join(NEXT)))?;
    disk.sync_dir().map_err(failed("sync", disk.path()))?;
    Ok(Blank { name: SPARE, ..blank })
}

/// A new file of zeros, not synced.
fn fill(disk: &dyn Disk, name: &'static str, size: u64, stop: &AtomicBool) -> Result<Blank, StoreError> {
    let path = disk.path().join(name);
    let file = disk.create(name).map_err(failed("create", &path))?;
    let zeros = vec![0; STRETCH.min(size as usize)];
    let mut done = 0;
    while done < size {
        if stop.load(Ordering::Relaxed) {
            let stopped = std::io::Error::new(std::io::ErrorKind::Interrupted, "the log is being closed");
            return Err(failed("fill", path)(stopped));
        }
        let stretch = (size - done).min(zeros.len() as u64);
        file.write_at(&zeros[..stretch as usize], done).map_err(failed("write to", &path))?;
        done += stretch;
    }
    Ok(Blank { file, name, size })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::mem_disk::MemDisk;

    #[test]
    fn names_and_numbers_belong_together() {
        assert_eq!(name(26), "000000000000001a.log");
        assert_eq!(number("000000000000001a.log"), Some(26));
        for other in ["1a.log", "000000000000001A.log", "000000000000001a", "spare", "+00000000000001a.log"] {
            assert_eq!(number(other), None, "{other}");
        }
    }

    #[test]
    fn a_spare_is_made_ahead_and_found_again() {
        let disk = MemDisk::new();
        let mut spares = Spares::new(Arc::new(disk.clone()));
        spares.prepare(8192).unwrap();
        let blank = spares.take(4096).unwrap();
        assert_eq!((blank.name, blank.size), (SPARE, 8192));
        assert_eq!(disk.power_cut(512, || false).contents(SPARE).unwrap(), [0; 8192]);
        blank.file.write_at(b"half a header", 0).unwrap();
        drop(spares);
        let mut spares = Spares::new(Arc::new(disk));
        spares.prepare(8192).unwrap();
        assert_eq!(spares.take(8192).unwrap().name, SPARE);
        assert_eq!(spares.take(8192).unwrap().name, NEW, "none was asked for");
    }
}
