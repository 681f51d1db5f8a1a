//! How long the parts of a node take, and how much they do at once: for metrics. Whoever is measured pays a few atomic
//! additions.

use crate::storage::{Change, LogReader, LogStore, Recovered, StoreError, WriteBatch};
use coracle_core::LogId;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Times, in microseconds: from a read that nobody else is asked for to the time limit of a request.
const TIMES: &[u64] = &[
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000,
];

/// How many entries are taken at once.
const COUNTS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];

/// How many bytes.
const SIZES: &[u64] = &[256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20];

/// Numbers that were observed, by size: how many there are between two bounds, and their sum.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// How many of each bucket; the last one has no bound.
    counts: Vec<AtomicU64>,
    sum: AtomicU64,
}

impl Histogram {
    /// One with these upper bounds, each of which belongs to the bucket below it.
    pub fn new(bounds: &'static [u64]) -> Histogram {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, counts, sum: AtomicU64::new(0) }
    }

    /// One of times, in microseconds, from 50 us to 2.5 s.
    pub fn of_times() -> Histogram {
        Histogram::new(TIMES)
    }

    /// One more number.
    pub fn observe(&self, number: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < number);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(number, Ordering::Relaxed);
    }

    /// One more time.
    pub fn took(&self, time: Duration) {
        self.observe(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// The sum of all, and how many there are in each bucket, by its upper bound; the last has none. They may differ by what
    /// comes meanwhile.
    pub fn seen(&self) -> (u64, Vec<(Option<u64>, u64)>) {
        let bounds = self.bounds.iter().copied().map(Some).chain([None]);
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        (self.sum.load(Ordering::Relaxed), bounds.zip(counts).collect())
    }
}

/// What is measured of a node: [`Node::timings`](crate::Node::timings).
#[derive(Debug)]
#[non_exhaustive]
pub struct Timings {
    /// How long a write to the log took until it was durable, in microseconds.
    pub log_write: Histogram,
    /// How many entries were written at once.
    pub log_write_entries: Histogram,
    /// How many bytes of entries.
    pub log_write_bytes: Histogram,
    /// How long the state machine worked on what there was for it, in microseconds: [`apply`](crate::StateMachine::apply),
    /// and reads between.
    pub apply: Histogram,
    /// How many entries it applied meanwhile.
    pub apply_entries: Histogram,
}

impl Default for Timings {
    fn default() -> Timings {
        Timings {
            log_write: Histogram::of_times(),
            log_write_entries: Histogram::new(COUNTS),
            log_write_bytes: Histogram::new(SIZES),
            apply: Histogram::of_times(),
            apply_entries: Histogram::new(COUNTS),
        }
    }
}

/// A store whose writes are measured.
pub(crate) struct Measured {
    pub(crate) store: Box<dyn LogStore>,
    pub(crate) timings: Arc<Timings>,
}

impl LogStore for Measured {
    fn load(&mut self, progress: &mut dyn FnMut(f32)) -> Result<Recovered, StoreError> {
        self.store.load(progress)
    }

    fn write(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        let began = Instant::now();
        self.store.write(batch)?;
        self.timings.log_write.took(began.elapsed());
        let entries = || {
            batch.changes.iter().flat_map(|change| match change {
                Change::Append(entries) => &entries[..],
                Change::Reset(_) | Change::Truncate(_) => &[],
            })
        };
        // A vote, say, brings none.
        if entries().next().is_some() {
            self.timings.log_write_entries.observe(entries().count() as u64);
            self.timings.log_write_bytes.observe(entries().map(|entry| entry.len() as u64).sum());
        }
        Ok(())
    }

    fn never_waits(&self) -> bool {
        self.store.never_waits()
    }

    fn purge(&mut self, upto: LogId) -> Result<(), StoreError> {
        self.store.purge(upto)
    }

    fn idle(&mut self) -> Result<(), StoreError> {
        self.store.idle()
    }

    fn reader(&self) -> Box<dyn LogReader> {
        self.store.reader()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Entry, Kind, Stamp};
    use crate::storage::memory::MemoryStore;

    #[test]
    fn each_number_falls_into_the_first_bucket_that_holds_it() {
        let times = Histogram::of_times();
        for micros in [0, 50, 51, 2_500_000, 2_500_001] {
            times.took(Duration::from_micros(micros));
        }
        let (sum, buckets) = times.seen();
        let full: Vec<_> = buckets.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(sum, 5_000_102);
        assert_eq!(full, [(Some(50), 2), (Some(100), 1), (Some(2_500_000), 1), (None, 1)]);
    }

    #[test]
    fn a_write_counts_with_its_entries_and_one_without_counts_alone() {
        let timings = Arc::new(Timings::default());
        let mut store = Measured { store: Box::new(MemoryStore::new()), timings: timings.clone() };
        store.load(&mut |_| {}).unwrap();
        let entry = |index| Entry::new(LogId::new(1, index), Kind::Command, Stamp::default(), &[0; 36]);
        let changes = vec![Change::Append(vec![entry(1), entry(2)]), Change::Append(vec![entry(3)])];
        store.write(&WriteBatch { hard_state: None, changes }).unwrap();
        store.write(&WriteBatch::default()).unwrap();
        let count = |of: &Histogram| of.seen().1.iter().map(|(_, count)| count).sum::<u64>();
        assert_eq!((count(&timings.log_write), count(&timings.log_write_entries)), (2, 1));
        assert_eq!((timings.log_write_entries.seen().0, timings.log_write_bytes.seen().0), (3, 300));
    }
}
