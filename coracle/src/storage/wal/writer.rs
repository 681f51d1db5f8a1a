//! The writing end of the log: batches, the turn to a new segment, and the removal of old files.
//!
//! One batch is in flight at a time, so each header attests the batch before it. A file that is not needed
//! any more is recycled or removed only after a later batch has attested the batch that made it needless (a
//! checkpoint, a purge): as long as that one is the newest, nothing could tell its damage from a torn tail,
//! and the old files are what a start would fall back to.

use super::WalConfig;
use super::format::{BLOCK, Encoder, End, HEADER, RECORD_HEADER, Record, SegmentHeader, blocks, body_len};
use super::index::{Log, Shared};
use super::recovery::Found;
use super::segment::{self, Segment};
use super::spares::Spares;
use crate::storage::disk::{Disk, failed, for_want_of_room};
use crate::storage::{Change, Identity, StoreError, WriteBatch, identity};
use coracle_core::{Broken, LogId};
use std::sync::Arc;

/// The size of the segment that a start makes while everyone waits, in bytes: a few milliseconds of zeros.
const START_BYTES: u64 = 4 << 20;

/// The most that the newest segment says for a start to repeat all of it, in bytes: what is written and synced in
/// a few milliseconds. So many starts leave no more files than their records fill by this measure.
const LITTLE_BYTES: u64 = 1 << 20;

/// A start repeats the newest segment if that says less than this share of a segment.
const LITTLE: u64 = 4;

/// The next segment is made once this share of the current one is full: late enough that a log that
/// says little makes none, and early enough to be there in time.
const PREPARE_AT: u64 = 8;

/// What every segment keeps free for the name of the next one, in bytes.
const SUCCESSOR_ROOM: u64 = BLOCK;

/// What every segment keeps free, beside that, for what brings no entries, as a share of its size and at most in
/// bytes: some hundred votes, and the purge that frees others, while there is no room for the next segment.
const RESERVE: u64 = 16;
const RESERVE_BYTES: u64 = 1 << 20;

/// What one batch says.
#[derive(Clone, Copy)]
pub(super) enum Content<'a> {
    Batch(&'a WriteBatch),
    Purge(LogId),
    /// Nothing: it only attests the batch before.
    Seal,
}

/// The end of the stream, where the next batch goes.
pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    identity: Identity,
    config: WalConfig,
    /// Shared with the readers.
    log: Shared,
    segment: Arc<Segment>,
    /// The end of the newest batch, which is synced.
    end: End,
    /// Whether the newest batch is a seal.
    sealed: bool,
    encoder: Encoder,
    spares: Spares,
    /// What the newest batch made needless.
    needless: Needless,
    broken: Broken,
}

/// Files that a later batch may free.
#[derive(Default)]
struct Needless {
    /// Files that never counted, or do not any more.
    remove: Vec<String>,
    /// Segments that hold purged entries only.
    purged: Vec<Arc<Segment>>,
    /// A file that holds nothing from this offset on.
    shorten: Option<(Arc<Segment>, u64)>,
}

/// How little, in bytes, a segment may say to be repeated by a start.
pub(super) fn little(config: &WalConfig) -> u64 {
    LITTLE_BYTES.min(config.segment_bytes / LITTLE)
}

/// What a segment of this size keeps free for what brings no entries, in bytes. A very small one has no block for it.
fn reserve(size: u64) -> u64 {
    (size / RESERVE).min(RESERVE_BYTES) / BLOCK * BLOCK
}

impl Writer {
    /// Opens a new segment after what recovery found, and says there again what was in doubt. Durable on
    /// return, and published to the readers.
    pub(super) fn start(
        disk: Arc<dyn Disk>,
        identity: Identity,
        config: WalConfig,
        broken: Broken,
        log: Shared,
        found: Found,
    ) -> Result<Writer, StoreError> {
        let mut encoder = Encoder::new(broken);
        let WalConfig { segment_bytes, spares, prepare_ahead, .. } = config;
        let mut spares = Spares::open(disk.clone(), segment_bytes, spares, prepare_ahead)?;
        let Found { log: state, end, attested, mut repeats, mut doubtful, next, leftovers, ends_in } = found;
        let size = config.segment_bytes.min(START_BYTES);
        let site = Site { disk: &*disk, identity: &identity, draw: &*config.draw, broken };
        let sure = repeats.len();
        repeats.append(&mut doubtful);
        let written = if broken.is("unattested-tail-not-rewritten") { &repeats[..sure] } else { &repeats };
        let shorten = ends_in.map(|segment| (segment, end.offset));
        let mut needless = Needless { remove: leftovers, purged: Vec::new(), shorten };
        if broken.is("old-files-freed-early") {
            std::mem::take(&mut needless).free(&mut spares);
        }
        let synced = attested.max(end.batch);
        let opened = open(site, &mut encoder, &mut spares, &state, end, synced, next, written, 0, size)?;
        identity::raise_segment(&*disk, next)?;
        let closed = if end.segment == 0 { None } else { state.places(end) };
        *log.write() = state;
        let mut writer = Writer {
            segment: opened.segment,
            end: opened.end,
            sealed: false,
            needless,
            broken,
            disk,
            identity,
            config,
            log,
            encoder,
            spares,
        };
        writer.join(repeats)?;
        closed.iter().for_each(|places| writer.spares.keep_places(places));
        writer.measure();
        Ok(writer)
    }

    /// Whether the newest batch is a seal.
    pub(super) fn sealed(&self) -> bool {
        self.sealed
    }

    /// Makes one batch durable, and lets the readers see it. Where there is no room for the segment that it needs,
    /// nothing has changed.
    pub(super) fn commit(&mut self, content: Content<'_>) -> Result<(), StoreError> {
        let room = blocks(HEADER as u64 + content.len());
        let left = self.segment.size.saturating_sub(self.end.offset + SUCCESSOR_ROOM);
        let reserve = if matches!(content, Content::Seal) { 0 } else { reserve(self.segment.size) };
        if room + reserve > left {
            match self.turn(room) {
                // What brings no entries may still be written: votes go on, and a purge makes room.
                Err(StoreError::NoSpace { .. }) if room <= left && !content.has_entries() => {}
                turned => turned?,
            }
        }
        let (encoder, end, segment) = (&mut self.encoder, &mut self.end, &self.segment);
        encoder.begin(segment.generation, end.offset, end.batch + 1);
        match content {
            Content::Batch(batch) => encoder.batch(batch),
            Content::Purge(upto) => encoder.purge(upto),
            Content::Seal => {}
        }
        let synced = if self.broken.is("batch-attests-itself") { end.batch + 1 } else { end.batch };
        let (bytes, checksum) = encoder.finish(synced, end.checksum);
        debug_assert_eq!(bytes.len() as u64, room);
        segment.file.write_at(bytes, end.offset).map_err(failed("write to", &segment.path))?;
        let synced = if self.broken.is("batch-not-synced") { Ok(()) } else { segment.file.sync_data() };
        let synced = if self.broken.is("failed-sync-ignored") { Ok(()) } else { synced };
        synced.map_err(failed("sync", &segment.path))?;
        *end = End { offset: end.offset + room, batch: end.batch + 1, checksum, ..*end };
        self.sealed = matches!(content, Content::Seal);
        self.clean();
        self.publish(content)?;
        if self.end.offset > self.segment.size / PREPARE_AT {
            self.spares.prepare();
        }
        Ok(())
    }

    /// Tells the readers of a durable batch.
    fn publish(&mut self, content: Content<'_>) -> Result<(), StoreError> {
        let mut log = self.log.write();
        let result = match content {
            Content::Batch(batch) => log.apply(batch, self.encoder.places()),
            Content::Purge(upto) => {
                let result = log.shape.purge(upto);
                self.needless.purged.extend(log.take_purged());
                result
            }
            Content::Seal => Ok(()),
        };
        result.map_err(StoreError::Refused)
    }

    /// Goes on in a new segment, with room for a batch of this size.
    fn turn(&mut self, room: u64) -> Result<(), StoreError> {
        let (disk, identity, draw) = (&*self.disk, &self.identity, &*self.config.draw);
        let site = Site { disk, identity, draw, broken: self.broken };
        let opened = {
            // The writer alone changes the log, so to read it here is to hold up nobody.
            let log = self.log.read();
            let (encoder, spares) = (&mut self.encoder, &mut self.spares);
            let (end, next) = (self.end, self.segment.number + 1);
            let size = self.config.segment_bytes;
            open(site, encoder, spares, &log, end, end.batch, next, &[], room, size)?
        };
        self.name_successor(&opened)?;
        let closed = self.log.read().places(self.end);
        self.segment = opened.segment;
        self.end = opened.end;
        self.join(Vec::new())?;
        closed.iter().for_each(|places| self.spares.keep_places(places));
        self.measure();
        Ok(())
    }

    /// The last that is written to a segment: where the log goes on. That one has joined it, and nothing in it is
    /// acknowledged before this is durable; so it cannot be missing unnoticed.
    ///
    /// The batch is outside of the chain, with the number of the checkpoint that was synced before it, which
    /// it attests: only who finds no newer segment reads this far.
    fn name_successor(&mut self, opened: &Opened) -> Result<(), StoreError> {
        let Writer { encoder, segment, end, .. } = self;
        encoder.begin(segment.generation, end.offset, end.batch + 1);
        encoder.successor(opened.segment.number, opened.segment.generation);
        let (bytes, _) = encoder.finish(end.batch + 1, end.checksum);
        debug_assert!(bytes.len() as u64 <= SUCCESSOR_ROOM);
        segment.file.write_at(bytes, end.offset).map_err(failed("write to", &segment.path))?;
        segment.file.sync_data().map_err(failed("sync", &segment.path))
    }

    /// Publishes the segment that was opened, and what its checkpoint repeats.
    fn join(&mut self, mut repeats: Vec<Record>) -> Result<(), StoreError> {
        let mut places = self.encoder.places().iter();
        for record in &mut repeats {
            if let Record::Append(entries) = record {
                entries.iter_mut().zip(places.by_ref()).for_each(|((_, place), new)| *place = *new);
            }
        }
        let mut log = self.log.write();
        log.join(self.segment.clone());
        for record in &repeats {
            log.replay(record).map_err(|detail| StoreError::Damaged {
                path: self.segment.path.clone(),
                offset: BLOCK,
                detail,
            })?;
        }
        self.needless.purged.extend(log.take_purged());
        Ok(())
    }

    /// Frees what the batch before the newest made needless.
    fn clean(&mut self) {
        if self.needless.is_empty() {
            return;
        }
        std::mem::take(&mut self.needless).free(&mut self.spares);
        self.measure();
    }

    /// Adds up what the log takes on disk. What is needless counts no more, as it is about to go.
    fn measure(&mut self) {
        let spares = self.spares.bytes();
        let mut log = self.log.write();
        log.disk_bytes = log.segment_bytes() + spares;
    }
}

impl Needless {
    fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.purged.is_empty() && self.shorten.is_none()
    }

    /// A failure costs space and nothing else, and the next start tries again.
    fn free(self, spares: &mut Spares) {
        let Needless { remove, purged, shorten } = self;
        let going = |name: &String| remove.contains(name) || purged.iter().any(|s| s.name() == *name);
        if let Some((segment, len)) = shorten
            && !going(&segment.name())
            && segment.size > len
            && let Err(error) = segment.file.set_len(len)
        {
            tracing::warn!(
                "cannot shorten {}, which is harmless but takes room: {error}",
                segment.path.display()
            );
        }
        remove.iter().for_each(|name| spares.remove(name));
        purged.into_iter().for_each(|segment| spares.recycle(segment));
    }
}

impl Content<'_> {
    fn has_entries(&self) -> bool {
        match self {
            Content::Batch(batch) => batch.changes.iter().any(|change| matches!(change, Change::Append(_))),
            Content::Purge(_) | Content::Seal => false,
        }
    }

    /// The length of the body that says it.
    fn len(&self) -> u64 {
        match self {
            Content::Batch(batch) => body_len(batch),
            Content::Purge(_) => RECORD_HEADER as u64 + 16,
            Content::Seal => 0,
        }
    }
}

/// Where a segment is opened, and whose it is.
#[derive(Clone, Copy)]
struct Site<'a> {
    disk: &'a dyn Disk,
    identity: &'a Identity,
    draw: &'a dyn Fn() -> u64,
    broken: Broken,
}

/// A segment that has joined the log, and the end of its checkpoint.
struct Opened {
    segment: Arc<Segment>,
    end: End,
}

/// Opens segment `number` of at least `size` bytes. Its checkpoint restates the log as it is at `end`,
/// repeats the records after, and leaves room for a batch of `room` bytes and for its successor's name. Its header
/// attests `synced`.
#[allow(clippy::too_many_arguments)]
fn open(
    site: Site<'_>,
    encoder: &mut Encoder,
    spares: &mut Spares,
    log: &Log,
    end: End,
    synced: u64,
    number: u64,
    repeats: &[Record],
    room: u64,
    size: u64,
) -> Result<Opened, StoreError> {
    let generation = (site.draw)();
    let first = end.batch + 1;
    encoder.begin(generation, BLOCK, first);
    encoder.restate(site.identity, &end, &log.shape);
    repeats.iter().for_each(|record| encoder.repeat(record));
    let (checkpoint, checksum) = encoder.finish(end.batch, end.checksum);
    let offset = BLOCK + checkpoint.len() as u64;
    let blank = spares.take(size.max(offset + room + SUCCESSOR_ROOM)).map_err(for_want_of_room)?;
    let header = SegmentHeader { number, generation, first, synced };
    let start = [&header.encode()[..], checkpoint];
    let segment = segment::join(site.disk, blank, number, generation, &start, site.broken)?;
    let end = End { segment: number, generation, offset, batch: first, checksum };
    Ok(Opened { segment: Arc::new(segment), end })
}
