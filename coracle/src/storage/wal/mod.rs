//! The write-ahead log: the default store, and the one that keeps its word.
//!
//! One ordered stream of batches on disk: each [`write`](LogStore::write) is one batch, one write of whole
//! blocks and one sync. Nothing is ever changed in place: a truncation, a purge and a new hard state are
//! records like entries, and so the stream can be cut at any byte and still be told apart from one that
//! was damaged (`recovery` says how). The stream runs through segments; each begins with a checkpoint
//! that restates everything except entries, so the oldest can be recycled once their entries are purged.
//! `docs/disk-format.md` has the bytes.
//!
//! Every start opens a new segment: what was in doubt is written again there, and the old files are
//! never written to. After any failure the log is finished: what the system may have dropped is found out
//! by the next start, from the disk, and never by trying again. That there is no room for the next segment is no
//! failure: nothing was written, and the log goes on when there is.

mod batches;
mod format;
mod index;
mod inspect;
mod places;
#[cfg(all(test, shuttle))]
mod race;
mod reader;
mod recovery;
mod segment;
mod spares;
mod writer;

pub use self::inspect::{Damage, Inspection, SegmentFile, Stretch, inspect};

use self::format::blocks;
use self::index::Shared;
#[cfg(feature = "sim")]
pub(crate) use self::reader::PlannedRead;
use self::reader::WalReader;
use self::writer::{Content, Writer};
use super::disk::{Disk, failed};
use super::shape::Shape;
use super::{
    Identity, LogReader, LogStore, Recovered, StoreError, WriteBatch, identity, met, moved, snapshots,
};
use crate::error::in_full;
use coracle_core::{Broken, LogId};
use std::sync::Arc;

/// The least size of a segment, in bytes: room for the header, a checkpoint and a few batches.
pub const MIN_SEGMENT_BYTES: u64 = 16 << 10;

/// The greatest size that a segment is made ahead, in bytes: a file that a start can read in a second.
pub const MAX_SEGMENT_BYTES: u64 = 1 << 30;

/// The greatest batch, in bytes of its entries and records: thirty of the largest entries. Keeps every
/// offset in a segment below 4 GiB, and the memory of a start in bounds.
pub const MAX_BATCH_BYTES: u64 = 1 << 30;

/// How the log uses its directory.
#[derive(Clone)]
pub struct WalConfig {
    /// The size of a segment, in bytes; rounded to blocks and kept between [`MIN_SEGMENT_BYTES`] and
    /// [`MAX_SEGMENT_BYTES`]. Space is freed in pieces of this size.
    pub segment_bytes: u64,
    /// The most files that are kept for segments to come: old segments whose entries are purged, or files of
    /// zeros. The log takes the room of its segments and of these, and no more. With 0, every new
    /// segment is a new file, filled while the write that needs it waits.
    pub spares: usize,
    /// Whether a thread makes the next segment ahead of need. Without it the log uses no thread, and
    /// the write that fills a segment takes as long as making one.
    pub prepare_ahead: bool,
    /// Draws the random generation of a segment. Never twice the same for one file.
    pub draw: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Default for WalConfig {
    /// 64 MiB, two spares, made ahead, random bits of the system.
    fn default() -> WalConfig {
        let draw = || getrandom::u64().expect("the system gives random bits");
        WalConfig { segment_bytes: 64 << 20, spares: 2, prepare_ahead: true, draw: Arc::new(draw) }
    }
}

impl std::fmt::Debug for WalConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let WalConfig { segment_bytes, spares, prepare_ahead, draw: _ } = self;
        f.debug_struct("WalConfig")
            .field("segment_bytes", segment_bytes)
            .field("spares", spares)
            .field("prepare_ahead", prepare_ahead)
            .finish_non_exhaustive()
    }
}

/// Whether the directory holds any log, whole or not: what
/// [`identity::open_or_create`] wants to know.
pub fn exists(disk: &dyn Disk) -> Result<bool, StoreError> {
    segment::any(disk)
}

/// Removes what a crash left half-made. First of all at a start: on a full disk, it makes the room that
/// everything else needs.
pub fn tidy(disk: &dyn Disk) -> Result<(), StoreError> {
    let names = disk.list().map_err(failed("list", disk.path()))?;
    for name in &names {
        if spares::is_temporary(name)
            || snapshots::is_left(name, &names)
            || name == identity::TEMPORARY
            || name == met::TEMPORARY
            || name == moved::TEMPORARY
        {
            disk.remove(name).map_err(failed("remove", disk.path().join(name)))?;
        }
    }
    Ok(())
}

/// The write-ahead log of one directory.
pub struct Wal {
    disk: Arc<dyn Disk>,
    identity: Identity,
    config: WalConfig,
    /// All that is durable, shared with the readers.
    log: Shared,
    state: State,
    pub(crate) broken: Broken,
}

enum State {
    /// Not loaded yet.
    New,
    /// Reads and writes.
    Open(Box<Writer>),
    /// Something failed, and this is what.
    Finished(String),
}

impl Wal {
    /// The log in this directory, which belongs to this node. Touches nothing yet:
    /// [`load`](LogStore::load) does the work.
    pub fn open(disk: Arc<dyn Disk>, identity: Identity, mut config: WalConfig) -> Wal {
        config.segment_bytes = blocks(config.segment_bytes.clamp(MIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES));
        Wal { disk, identity, config, log: Shared::default(), state: State::New, broken: Broken::default() }
    }

    /// Plans a read of the log, to be done while the log goes on.
    #[cfg(feature = "sim")]
    pub(crate) fn plan_read(
        &self,
        first: coracle_core::Index,
        last: coracle_core::Index,
        max_bytes: usize,
    ) -> Result<PlannedRead, super::ReadLogError> {
        WalReader::new(self.log.clone()).planned(first, last, max_bytes)
    }

    /// From now on it breaks this rule.
    #[cfg(feature = "mutants")]
    #[doc(hidden)]
    pub fn break_rule(&mut self, broken: Broken) {
        self.broken = broken;
    }

    /// The writer, if there is one to write with.
    fn writer(&mut self) -> Result<&mut Writer, StoreError> {
        match &mut self.state {
            State::Open(writer) => Ok(writer),
            State::New => Err(StoreError::Refused("the log was not loaded".into())),
            State::Finished(reason) => {
                let source = std::io::Error::other(format!("finished by an earlier failure: {reason}"));
                Err(failed("write to the log in", self.disk.path())(source))
            }
        }
    }

    /// Writes a batch; the first failure is the last. That there is no room is none.
    fn commit(&mut self, content: Content<'_>) -> Result<(), StoreError> {
        let result = self.writer()?.commit(content);
        if let Err(error) = &result
            && !matches!(error, StoreError::NoSpace { .. })
        {
            self.state = State::Finished(in_full(&error));
        }
        result
    }

    /// Asks the outline of the log.
    fn check<T>(&self, question: impl FnOnce(&Shape) -> Result<T, String>) -> Result<T, StoreError> {
        question(&self.log.read().shape).map_err(StoreError::Refused)
    }
}

impl LogStore for Wal {
    fn load(&mut self, progress: &mut dyn FnMut(f32)) -> Result<Recovered, StoreError> {
        if !matches!(self.state, State::New) {
            return Err(StoreError::Refused("the log was loaded before".into()));
        }
        let broken = self.broken;
        let little = writer::little(&self.config);
        let found = recovery::recover(&*self.disk, &self.identity, little, broken, progress);
        let started = found.and_then(|found| {
            let (disk, config, log) = (self.disk.clone(), self.config.clone(), self.log.clone());
            Writer::start(disk, self.identity, config, broken, log, found)
        });
        match started {
            Ok(writer) => self.state = State::Open(Box::new(writer)),
            Err(error) => {
                self.state = State::Finished(in_full(&error));
                return Err(error);
            }
        }
        self.check(|shape| Ok(shape.recovered()))
    }

    fn write(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        self.writer()?;
        self.check(|shape| shape.check(batch))?;
        if *batch == WriteBatch::default() {
            return Ok(());
        }
        let len = format::body_len(batch);
        if len > MAX_BATCH_BYTES {
            return Err(StoreError::Refused(format!(
                "a batch of {len} bytes, over the limit of {MAX_BATCH_BYTES}"
            )));
        }
        self.commit(Content::Batch(batch))
    }

    fn purge(&mut self, upto: LogId) -> Result<(), StoreError> {
        self.writer()?;
        if !self.check(|shape| shape.check_purge(upto))? {
            return Ok(());
        }
        self.commit(Content::Purge(upto))
    }

    /// Writes a seal, unless the newest batch is one.
    fn idle(&mut self) -> Result<(), StoreError> {
        if self.writer()?.sealed() {
            return Ok(());
        }
        match self.commit(Content::Seal) {
            // Nothing waits for it, and the next batch does what it would have done.
            Err(StoreError::NoSpace { .. }) => Ok(()),
            sealed => sealed,
        }
    }

    fn reader(&self) -> Box<dyn LogReader> {
        Box::new(WalReader::new(self.log.clone()))
    }
}
