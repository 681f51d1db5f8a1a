//! Where new files come from: segments that the log has no more use for, and files of zeros.
//!
//! To overwrite blocks that were written before is about twice as fast to sync as to grow a file, so a segment
//! whose entries are purged is not removed but *recycled*: it becomes a spare, and a spare becomes the next
//! segment. Its old bytes need no zeros, since they belong to another generation. Where there is no
//! spare, one is filled with zeros. Both take longer than a leader may be silent, so a thread does them
//! ahead of need.
//!
//! A segment that a reader holds is *pinned*, and is never overwritten: [`Arc::into_inner`] is the judge, as
//! nobody can get hold of a segment that has left the log. A pinned one loses its name, and its bytes
//! live for as long as the reader wants them.
//!
//! At most [`WalConfig::spares`](super::WalConfig::spares) files are kept or under way. That, and the
//! segments of the log, is all the room that the log takes.

use super::places::{self, Places};
use super::segment::{Blank, Segment};
use crate::storage::StoreError;
use crate::storage::disk::{Disk, failed};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// A file of zeros under way, made by the writer itself.
const NEW: &str = "segment.tmp";
/// A file of zeros under way, made ahead of need.
const NEXT: &str = "spare.tmp";
/// What the name of a spare starts with; the number of its slot follows.
const SPARE: &str = "spare-";

/// How many zeros are written at once, in bytes. The page cache keeps together what was written together, and
/// every later sync of one batch in it looks at the whole piece: so pieces are small.
const PIECE: u64 = 64 << 10;

/// How many zeros are synced at once in the background, in bytes: large enough to be fast, small enough for
/// the log's own syncs not to wait for a long one.
const STRETCH: u64 = 1 << 20;

/// After a spare that could not be made, so many batches pass before the next is tried: a full disk is not kept busy.
const PAUSE: u32 = 1000;

/// Whether a file is half of a spare, which nobody finishes. ([`NEW`] is what every start makes anew.)
pub(super) fn is_unfinished(file: &str) -> bool {
    file == NEXT
}

/// Whether a file is under way. Nobody holds one when a process starts.
pub(super) fn is_temporary(file: &str) -> bool {
    file == NEW || file == NEXT
}

/// Whether a file is a spare, or will be one.
pub(super) fn is_spare(file: &str) -> bool {
    file.starts_with(SPARE) || file == NEW || file == NEXT
}

/// The spare files of one log.
pub(super) struct Spares {
    disk: Arc<dyn Disk>,
    /// The size of each, in bytes.
    size: u64,
    /// Which slots are taken: by a file, or by one under way.
    slots: Vec<bool>,
    /// Files that can be used at once.
    ready: VecDeque<Spare>,
    worker: Option<Worker>,
    /// Whether there may be a worker.
    ahead: bool,
    /// How often to let an occasion pass to make a spare, since the last one could not be made.
    pause: u32,
}

/// A file in its slot.
struct Spare {
    slot: usize,
    blank: Blank,
}

/// What the worker is to do.
enum Order {
    /// Fill a new file with zeros, for this slot.
    Fill(usize),
    /// Take over this segment's file, for this slot.
    Recycle(usize, Segment),
    /// Write the file that says where the entries of this segment lie.
    Places(u64, Vec<u8>),
}

struct Worker {
    orders: Option<Sender<Order>>,
    done: Receiver<Done>,
    /// How many spares are under way.
    open: usize,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A slot, and what came to be in it.
struct Done(usize, Result<Blank, StoreError>);

impl Spares {
    /// Takes over what earlier boots left: at most `count` files of `size` bytes; others are removed. With
    /// `ahead`, a thread does what takes time.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        size: u64,
        count: usize,
        ahead: bool,
    ) -> Result<Spares, StoreError> {
        let slots = vec![false; count];
        let mut spares = Spares { disk, size, slots, ready: VecDeque::new(), worker: None, ahead, pause: 0 };
        for name in spares.disk.list().map_err(failed("list", spares.disk.path()))? {
            let Some(slot) = name.strip_prefix(SPARE) else { continue };
            let path = spares.disk.path().join(&name);
            let file = spares.disk.open(&name).map_err(failed("open", &path))?;
            let slot = slot.parse().ok().filter(|slot| *slot < count && name == spare(*slot));
            match slot {
                Some(slot) if file.len().map_err(failed("read", &path))? == size => {
                    spares.slots[slot] = true;
                    spares.ready.push_back(Spare { slot, blank: Blank { file, name, size } });
                }
                _ => spares.remove(&name),
            }
        }
        Ok(spares)
    }

    /// The bytes that the files take, those under way included.
    pub(super) fn bytes(&self) -> u64 {
        self.slots.iter().filter(|taken| **taken).count() as u64 * self.size
    }

    /// A new segment will be needed: sees to it that there is a file for it.
    pub(super) fn prepare(&mut self) {
        self.collect();
        if self.pause > 0 {
            self.pause -= 1;
        } else if self.ahead
            && self.ready.is_empty()
            && self.worker.as_ref().is_none_or(|worker| worker.open == 0)
            && let Some(slot) = self.free_slot()
        {
            self.order(Order::Fill(slot));
        }
    }

    /// The log has no more use for this segment.
    pub(super) fn recycle(&mut self, segment: Arc<Segment>) {
        self.collect();
        let name = segment.name();
        let number = segment.number;
        // One that a start has shortened has no room of its own after its end, and a spare must have it: on a disk that
        // is full by then, a batch in the middle of it would be in doubt (ST-5).
        let whole = segment.size == self.size && segment.file.len().is_ok_and(|len| len == self.size);
        let slot = self.free_slot().filter(|_| whole);
        // Once it is out of the log nobody gets hold of it any more: who has it now is all there is.
        match (slot, Arc::into_inner(segment)) {
            (Some(slot), Some(segment)) => self.order(Order::Recycle(slot, segment)),
            _ => {
                places::remove(&*self.disk, number);
                self.remove(&name);
            }
        }
    }

    /// Keeps for the next start where the entries of a closed segment lie. Without it, that start takes
    /// longer.
    pub(super) fn keep_places(&mut self, places: &Places) {
        self.order(Order::Places(places.end.segment, places.encode()));
    }

    /// Removes a file that nobody needs. A failure costs space and nothing else, and the next start tries
    /// again.
    pub(super) fn remove(&self, name: &str) {
        if let Err(error) = self.disk.remove(name) {
            tracing::warn!(
                "cannot remove {}, which is harmless but takes room: {error}",
                self.disk.path().join(name).display()
            );
        }
    }

    /// A file of at least this size.
    pub(super) fn take(&mut self, size: u64) -> Result<Blank, StoreError> {
        if size <= self.size {
            self.collect();
            while self.ready.is_empty() && self.await_one() {}
            if let Some(Spare { slot, blank }) = self.ready.pop_front() {
                self.slots[slot] = false;
                return Ok(blank);
            }
        }
        fill(&*self.disk, NEW, size, None)
    }

    fn free_slot(&self) -> Option<usize> {
        self.slots.iter().position(|taken| !taken)
    }

    fn order(&mut self, order: Order) {
        if let Order::Fill(slot) | Order::Recycle(slot, _) = &order {
            self.slots[*slot] = true;
        }
        if self.ahead && self.worker.is_none() {
            match Worker::start(self.disk.clone(), self.size) {
                Ok(worker) => self.worker = Some(worker),
                Err(error) => {
                    tracing::warn!("no thread for spare segments, so the next one takes longer: {error}");
                }
            }
        }
        match &mut self.worker {
            Some(worker) => worker.order(order),
            None => {
                let done = carry_out(&*self.disk, self.size, order, &AtomicBool::new(false));
                done.into_iter().for_each(|done| self.settle(done));
            }
        }
    }

    /// Takes what the worker has done by now.
    fn collect(&mut self) {
        while let Some(done) = self.worker.as_mut().and_then(Worker::poll) {
            self.settle(done);
        }
    }

    /// Waits for one file that is under way. False if there is none.
    fn await_one(&mut self) -> bool {
        let Some(done) = self.worker.as_mut().and_then(Worker::wait) else { return false };
        self.settle(done);
        true
    }

    /// A spare that could not be made is no failure of the log: the next segment is then filled when it is
    /// needed, and if the cause is still there, that fails.
    fn settle(&mut self, Done(slot, result): Done) {
        match result {
            Ok(blank) => self.ready.push_back(Spare { slot, blank }),
            Err(error) => {
                self.slots[slot] = false;
                self.pause = PAUSE;
                tracing::warn!("no spare segment could be prepared, so the next one takes longer: {error}");
            }
        }
    }
}

impl Worker {
    fn start(disk: Arc<dyn Disk>, size: u64) -> Result<Worker, StoreError> {
        let path = disk.path().to_owned();
        let stop = Arc::new(AtomicBool::new(false));
        let (orders, inbox) = channel();
        let (outbox, done) = channel();
        let stopped = stop.clone();
        let run = move || {
            for order in inbox {
                if let Some(done) = carry_out(&*disk, size, order, &stopped)
                    && outbox.send(done).is_err()
                {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name("coracle-spare".into()).spawn(run);
        let thread = thread.map_err(failed("start a thread for", path))?;
        Ok(Worker { orders: Some(orders), done, open: 0, stop, thread: Some(thread) })
    }

    fn order(&mut self, order: Order) {
        let spare = !matches!(order, Order::Places(..));
        let sent = self.orders.as_ref().is_some_and(|orders| orders.send(order).is_ok());
        self.open += usize::from(sent && spare);
    }

    fn poll(&mut self) -> Option<Done> {
        let done = self.done.try_recv().ok()?;
        self.open -= 1;
        Some(done)
    }

    fn wait(&mut self) -> Option<Done> {
        if self.open == 0 {
            return None;
        }
        let done = self.done.recv().ok()?;
        self.open -= 1;
        Some(done)
    }
}

impl Drop for Worker {
    /// Waits for the thread, so that nobody uses the directory once the log is gone.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn spare(slot: usize) -> String {
    format!("{SPARE}{slot}")
}

/// Does what was ordered, and says what came to be in a slot.
///
/// The name of a spare is durable only with the next sync of the directory, which is that of the segment
/// that the file becomes. Until then a loss of power may bring the old name back, and with it, under the
/// name of a purged segment, the header of the new one: recovery knows such a file for what it is.
fn carry_out(disk: &dyn Disk, size: u64, order: Order, stop: &AtomicBool) -> Option<Done> {
    let (slot, old) = match order {
        Order::Fill(slot) => (slot, zeros(disk, size, stop)),
        Order::Recycle(slot, segment) => {
            places::remove(disk, segment.number);
            let name = segment.name();
            (slot, Ok(Blank { file: segment.file, name, size: segment.size }))
        }
        Order::Places(number, bytes) => {
            places::write(disk, number, &bytes);
            return None;
        }
    };
    let name = spare(slot);
    let renamed = old.and_then(|blank| {
        let rename = disk.rename(&blank.name, &name);
        rename.map_err(failed("rename", disk.path().join(&blank.name)))?;
        Ok(Blank { name, ..blank })
    });
    Some(Done(slot, renamed))
}

/// A synced file of zeros, made in the background.
fn zeros(disk: &dyn Disk, size: u64, stop: &AtomicBool) -> Result<Blank, StoreError> {
    let blank = fill(disk, NEXT, size, Some(stop))?;
    blank.file.sync_data().map_err(failed("sync", disk.path().join(NEXT)))?;
    Ok(blank)
}

/// A new file of zeros, not synced. In the background it can be stopped, and every stretch is synced by
/// itself, so that no sync of the log waits for a long one.
///
/// What a failure leaves takes no room: others may need that.
fn fill(
    disk: &dyn Disk,
    name: &str,
    size: u64,
    background: Option<&AtomicBool>,
) -> Result<Blank, StoreError> {
    let filled = try_fill(disk, name, size, background);
    if filled.is_err() {
        // The error that counts is the first one; the next start removes what this leaves.
        let _ = disk.remove(name);
    }
    filled
}

fn try_fill(
    disk: &dyn Disk,
    name: &str,
    size: u64,
    background: Option<&AtomicBool>,
) -> Result<Blank, StoreError> {
    let path = disk.path().join(name);
    let file = disk.create(name).map_err(failed("create", &path))?;
    let zeros = vec![0; PIECE.min(size) as usize];
    let mut done = 0;
    while done < size {
        if background.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            let stopped = std::io::Error::new(std::io::ErrorKind::Interrupted, "the log is being closed");
            return Err(failed("fill", path)(stopped));
        }
        let piece = (size - done).min(PIECE);
        file.write_at(&zeros[..piece as usize], done).map_err(failed("write to", &path))?;
        done += piece;
        if background.is_some() && done % STRETCH == 0 {
            file.sync_data().map_err(failed("sync", &path))?;
        }
    }
    Ok(Blank { file, name: name.to_owned(), size })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::mem_disk::MemDisk;

    fn open(disk: &MemDisk, ahead: bool) -> Spares {
        Spares::open(Arc::new(disk.clone()), 8192, 2, ahead).unwrap()
    }

    fn segment(disk: &MemDisk, number: u64, size: u64) -> Arc<Segment> {
        let name = super::super::segment::name(number);
        let file = disk.create(&name).unwrap();
        file.set_len(size).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir().unwrap();
        Arc::new(Segment { number, generation: 1, path: disk.path().join(name), file, size })
    }

    #[test]
    fn a_spare_is_made_ahead_and_found_again() {
        let disk = MemDisk::new();
        let mut spares = open(&disk, true);
        spares.prepare();
        spares.prepare();
        let blank = spares.take(4096).unwrap();
        assert_eq!((&*blank.name, blank.size), ("spare-0", 8192));
        disk.sync_dir().unwrap();
        assert_eq!(disk.power_cut(512, || false).contents("spare-0").unwrap(), [0; 8192]);
        blank.file.write_at(b"half a header", 0).unwrap();
        drop(spares);
        let mut spares = open(&disk, true);
        assert_eq!(spares.bytes(), 8192);
        assert_eq!(spares.take(8192).unwrap().name, "spare-0");
        assert_eq!(spares.take(8192).unwrap().name, NEW, "none was asked for");
        assert_eq!(spares.bytes(), 0);
    }

    #[test]
    fn segments_become_spares_as_far_as_the_budget_goes() {
        for ahead in [false, true] {
            let disk = MemDisk::new();
            let mut spares = open(&disk, ahead);
            (1..=3).for_each(|number| spares.recycle(segment(&disk, number, 8192)));
            let names: Vec<String> = (0..3).map(|_| spares.take(8192).unwrap().name).collect();
            assert_eq!(names, ["spare-0", "spare-1", NEW]);
            assert_eq!(disk.list().unwrap(), [NEW, "spare-0", "spare-1"], "the third is removed");
        }
    }

    #[test]
    fn a_pinned_segment_is_removed_and_stays_readable() {
        let disk = MemDisk::new();
        let mut spares = open(&disk, false);
        let pinned = segment(&disk, 1, 8192);
        spares.recycle(pinned.clone());
        assert_eq!(spares.take(8192).unwrap().name, NEW);
        assert_eq!(disk.list().unwrap(), [NEW]);
        assert_eq!(pinned.file.len().unwrap(), 8192);
    }

    #[test]
    fn what_has_another_size_or_a_strange_name_is_removed() {
        let disk = MemDisk::new();
        for (name, size) in [("spare-0", 8192), ("spare-1", 4096), ("spare-2", 8192), ("spare-x", 8192)] {
            disk.put(name, &vec![0; size]);
        }
        let mut spares = open(&disk, false);
        assert_eq!(disk.list().unwrap(), ["spare-0"]);
        spares.recycle(segment(&disk, 1, 4096));
        assert_eq!(disk.list().unwrap(), ["spare-0"]);
    }

    #[test]
    fn st_5_a_segment_that_a_start_has_shortened_is_no_spare() {
        let disk = MemDisk::new();
        let mut spares = open(&disk, false);
        let shortened = segment(&disk, 1, 8192);
        shortened.file.set_len(4096).unwrap();
        spares.recycle(shortened);
        assert!(disk.list().unwrap().is_empty());
        spares.recycle(segment(&disk, 2, 8192));
        let blank = spares.take(8192).unwrap();
        disk.set_full(true);
        blank.file.write_at(&[1; 8192], 0).unwrap();
    }

    #[test]
    fn a_spare_that_cannot_be_made_is_missed_only_when_it_is_needed() {
        let disk = MemDisk::new();
        let mut spares = open(&disk, true);
        disk.set_full(true);
        spares.prepare();
        assert!(spares.take(8192).is_err_and(|error| error.to_string().contains(NEW)));
        disk.clear_faults();
        assert_eq!(spares.take(8192).unwrap().name, NEW);
        // Not at once: the disk may still be full.
        (0..=PAUSE).for_each(|_| spares.prepare());
        assert_eq!(spares.take(8192).unwrap().name, "spare-0");
    }
}
