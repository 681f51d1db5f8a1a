//! Reads the log back after whatever happened, and tells a torn tail from damage.
//!
//! The idea: a batch that was acknowledged was synced, and what was written later says so. Every batch
//! and every segment names the newest batch whose sync had returned (it *attests* it). So when a batch is
//! not whole, recovery asks whether anything attests it. If so, bytes that were promised are gone: the
//! start fails and names the place. If not, nobody was ever told of it: it is dropped with all behind it.
//! A batch that is whole but that nothing attests is *in doubt*: it may live in the page cache only. It is
//! kept, and written again.
//!
//! Segments form a chain: the checkpoint at the start of each names the end of the batch that it
//! follows. The newest segment with a whole checkpoint is the top of the chain. A newer file without one
//! never counted; a file beside the chain does not count any more. Damage below the top is always damage,
//! since whatever the chain names was synced; it is forgiven only where everything up to the next
//! checkpoint is purged, since that restates the rest.
//!
//! Nothing is written here. What comes out is the state at the last attested batch, what is in doubt
//! behind it, and what may be cleaned up once a new segment says all this.

use super::format::{BLOCK, BatchHeader, BodyError, End, HEADER, Record, SegmentHeader, Wrong, decode_body};
use super::index::Log;
use super::segment::{self, Segment};
use super::spares;
use crate::storage::disk::{Disk, DiskFile, failed, read_full};
use crate::storage::shape::Shape;
use crate::storage::{Identity, StoreError};
use bytes::{Bytes, BytesMut};
use coracle_core::{Broken, Index};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// How much is read at once, in bytes.
const STRETCH: usize = 4 << 20;

/// What was found.
pub(super) struct Found {
    /// The log up to the last attested batch.
    pub(super) log: Log,
    /// The end of that batch.
    pub(super) end: End,
    /// What the whole batches behind it say; not durable yet.
    pub(super) doubtful: Vec<Record>,
    /// The number for the next segment: greater than all that are there.
    pub(super) next: u64,
    /// Files that do not count, once there is a new segment.
    pub(super) leftovers: Vec<String>,
    /// The segment in which the attested part ends.
    pub(super) ends_in: Option<Arc<Segment>>,
}

/// A file with the name of a segment.
struct Candidate {
    segment: Arc<Segment>,
    /// None if the first block is not a header.
    header: Option<SegmentHeader>,
}

/// The first batch of a segment.
struct Checkpoint {
    header: BatchHeader,
    identity: Identity,
    follows: End,
    shape: Shape,
    repeats: Vec<Record>,
}

/// A segment that counts.
struct Link {
    segment: Arc<Segment>,
    checkpoint: Checkpoint,
}

/// What must be purged in the end, or else this is the error.
struct Debt {
    upto: Index,
    error: StoreError,
}

/// Reads the log of this directory.
pub(super) fn recover(
    disk: &dyn Disk,
    identity: &Identity,
    broken: Broken,
    progress: &mut dyn FnMut(f32),
) -> Result<Found, StoreError> {
    let (candidates, mut leftovers) = list(disk, broken)?;
    let next = candidates.last().map_or(1, |c| c.segment.number + 1);
    let Chain { links, mut attested, mut debts, stale } = chain(&candidates)?;
    for link in &links {
        check_identity(identity, link)?;
    }
    let Some(top) = links.last().map(|link| link.segment.clone()) else {
        if attested > 0 {
            let stale =
                stale.first().and_then(|number| candidates.iter().find(|c| c.segment.number == *number));
            let path = stale.map_or_else(|| disk.path().to_owned(), |c| c.segment.path.clone());
            let detail =
                format!("batch {attested} was durable, but there is no whole segment; bring it back");
            return Err(StoreError::Damaged { path, offset: 0, detail });
        }
        refuse_missing_log(disk, identity)?;
        leftovers.extend(stale.into_iter().map(segment::name));
        let log = Log::default();
        return Ok(Found { log, end: End::NONE, doubtful: vec![], next, leftovers, ends_in: None });
    };

    let mut log = Log::new(broken);
    let mut end = End::NONE;
    let mut doubt = VecDeque::new();
    let mut replayed: Option<End> = None;
    let count = links.len();
    let mut links = links.into_iter().peekable();
    for at in 0.. {
        let Some(Link { segment, checkpoint }) = links.next() else { break };
        progress(at as f32 / count as f32);
        let follows = checkpoint.follows;
        let fits =
            checkpoint.header.number == follows.batch + 1 && checkpoint.header.previous == follows.checksum;
        if !fits {
            return Err(damaged(&segment, BLOCK, "the checkpoint does not follow the batch that it names"));
        }
        if replayed == Some(follows) && !broken.is("checkpoint-forgets-vote") {
            if log.shape != checkpoint.shape {
                return Err(damaged(&segment, BLOCK, "the checkpoint and the batches before it disagree"));
            }
        } else {
            log.begin(checkpoint.shape);
        }
        log.join(segment.clone());
        let limit = links.peek().map(|next| (next.checkpoint.follows, next.checkpoint.shape.last.index));
        let mut batches = Batches::new(&segment, &checkpoint.header, broken);
        if let Some((limit, last)) = limit {
            // Below the top: all of it was synced, up to where the next segment says.
            let result = (|| {
                replay(&mut log, &segment, BLOCK, &checkpoint.repeats)?;
                while batches.end != limit {
                    let offset = batches.end.offset;
                    match batches.next()? {
                        Ok((_, records)) if batches.end.offset <= limit.offset => {
                            replay(&mut log, &segment, offset, &records)?;
                        }
                        Ok(_) => return Err(damaged(&segment, offset, "the next segment begins elsewhere")),
                        Err(wrong) => return Err(damaged(&segment, offset, wrong)),
                    }
                }
                Ok(())
            })();
            match result {
                Ok(()) => replayed = Some(limit),
                Err(error @ StoreError::Damaged { .. }) => {
                    replayed = None;
                    debts.push(Debt { upto: last, error });
                }
                Err(error) => return Err(error),
            }
            continue;
        }
        // The top: what nothing attests waits, since the end may be torn.
        end = follows;
        attested = attested.max(checkpoint.header.synced);
        doubt.push_back((batches.end, BLOCK, checkpoint.repeats));
        let wrong = loop {
            let offset = batches.end.offset;
            match batches.next()? {
                Ok((header, records)) => {
                    attested = attested.max(header.synced);
                    doubt.push_back((batches.end, offset, records));
                    settle(&mut log, &segment, &mut end, &mut doubt, attested)?;
                }
                Err(wrong) => break wrong,
            }
        };
        attested = attested.max(batches.attested_behind()?);
        if attested > batches.end.batch && !broken.is("attestation-ignored") {
            return Err(damaged(&segment, batches.end.offset, wrong));
        }
        settle(&mut log, &segment, &mut end, &mut doubt, attested)?;
    }
    progress(1.0);

    if end.segment != top.number {
        log.leave();
    }
    if broken.is("unattested-tail-dropped") {
        doubt.clear();
    }
    let doubtful: Vec<Record> = doubt.into_iter().flat_map(|(_, _, records)| records).collect();
    pay(debts, &log, &doubtful)?;
    let kept: Vec<u64> = log.segments().collect();
    let dropped = candidates.iter().filter(|c| !kept.contains(&c.segment.number));
    leftovers.extend(dropped.map(|c| c.segment.name()));
    let ends_in = candidates.iter().find(|c| c.segment.number == end.segment && kept.contains(&end.segment));
    let ends_in = ends_in.map(|c| c.segment.clone());
    Ok(Found { log, end, doubtful, next, leftovers, ends_in })
}

/// All files that may be segments, ascending, and those that certainly count for nothing.
fn list(disk: &dyn Disk, broken: Broken) -> Result<(Vec<Candidate>, Vec<String>), StoreError> {
    let mut candidates = Vec::new();
    let mut leftovers = Vec::new();
    for name in disk.list().map_err(failed("list", disk.path()))? {
        let Some(number) = segment::number(&name) else {
            if spares::is_unfinished(&name) {
                leftovers.push(name);
            }
            continue;
        };
        let path = disk.path().join(&name);
        let file = disk.open(&name).map_err(failed("open", &path))?;
        let size = file.len().map_err(failed("read", &path))?;
        let mut block = [0; HEADER];
        let count = read_full(&*file, &mut block, 0).map_err(failed("read", &path))?;
        let header = SegmentHeader::decode(&block[..count]).map_err(|detail| StoreError::Damaged {
            path: path.clone(),
            offset: 0,
            detail,
        })?;
        if header.is_some_and(|header| header.number > number) && !broken.is("old-name-refused") {
            // A recycled file whose old name came back: it is the name of a purged segment.
            leftovers.push(name);
            continue;
        }
        if let Some(other) = header.filter(|header| header.number != number) {
            let detail =
                format!("it says that it is segment {}; restore the names of the files", other.number);
            return Err(StoreError::Damaged { path, offset: 0, detail });
        }
        let generation = header.map_or(0, |header| header.generation);
        candidates
            .push(Candidate { segment: Arc::new(Segment { number, generation, path, file, size }), header });
    }
    candidates.sort_by_key(|candidate| candidate.segment.number);
    Ok((candidates, leftovers))
}

/// The segments that count, and what is known from the others.
struct Chain {
    /// Ascending; the last is the top.
    links: Vec<Link>,
    /// The newest batch that a header above the top attests.
    attested: u64,
    debts: Vec<Debt>,
    /// The segments above the top, which never counted, newest first.
    stale: Vec<u64>,
}

/// Finds the top, and from it the way down.
fn chain(candidates: &[Candidate]) -> Result<Chain, StoreError> {
    let mut chain = Chain { links: vec![], attested: 0, debts: vec![], stale: vec![] };
    let mut rest = candidates;
    while let [below @ .., candidate] = rest {
        rest = below;
        match checkpoint(candidate)? {
            Ok(checkpoint) => {
                chain.links.push(Link { segment: candidate.segment.clone(), checkpoint });
                break;
            }
            Err(wrong) => {
                // Behind a first batch that was never synced, there is no second one.
                let mut batches = Batches::before(&candidate.segment);
                if batches.any_behind(candidate.header.is_some())? {
                    let offset = if candidate.header.is_some() { BLOCK } else { 0 };
                    return Err(damaged(&candidate.segment, offset, wrong));
                }
                let header = candidate.header.map_or(0, |header| header.synced);
                chain.attested = chain.attested.max(header);
                chain.stale.push(candidate.segment.number);
            }
        }
    }
    while let Some(link) = chain.links.last() {
        let (follows, upto) = (link.checkpoint.follows, link.checkpoint.shape.last.index);
        if follows == End::NONE {
            break;
        }
        if follows.segment >= link.segment.number {
            return Err(damaged(&link.segment, BLOCK, "the checkpoint follows a later segment"));
        }
        let below = rest.iter().find(|c| c.segment.number == follows.segment);
        let below = below.filter(|c| c.header.is_none_or(|header| header.generation == follows.generation));
        let Some(below) = below else {
            let detail = format!("the log begins late: segment {} before it is gone", follows.segment);
            chain.debts.push(Debt { upto, error: damaged(&link.segment, BLOCK, detail) });
            break;
        };
        match checkpoint(below)? {
            Ok(checkpoint) => chain.links.push(Link { segment: below.segment.clone(), checkpoint }),
            Err(wrong) => {
                let offset = if below.header.is_some() { BLOCK } else { 0 };
                chain.debts.push(Debt { upto, error: damaged(&below.segment, offset, wrong) });
                break;
            }
        }
    }
    chain.links.reverse();
    Ok(chain)
}

/// The first batch of a segment, or what is wrong with it.
fn checkpoint(candidate: &Candidate) -> Result<Result<Checkpoint, Wrong>, StoreError> {
    let segment = &candidate.segment;
    let Some(first) = candidate.header else { return Ok(Err("the segment's header is not whole".into())) };
    let (header, records) = match Batches::before(segment).read()? {
        Ok(batch) => batch,
        Err(wrong) => return Ok(Err(wrong)),
    };
    let mut records = records.into_iter().peekable();
    let Some(Record::Origin { identity, end: follows }) = records.next() else {
        return Err(damaged(segment, BLOCK, "the first batch is not a checkpoint"));
    };
    let Some(Record::State(mut shape)) = records.next() else {
        return Err(damaged(segment, BLOCK, "the checkpoint restates no log"));
    };
    while let Some(Record::Membership(..)) = records.peek() {
        if let Some(Record::Membership(id, payload)) = records.next() {
            shape.memberships.push((id, payload));
        }
    }
    if header.number != first.first {
        return Err(damaged(segment, BLOCK, "the segment's header and its first batch disagree"));
    }
    Ok(Ok(Checkpoint { header, identity, follows, shape, repeats: records.collect() }))
}

fn check_identity(identity: &Identity, link: &Link) -> Result<(), StoreError> {
    let found = &link.checkpoint.identity;
    let same_cluster = found.cluster.is_none() || found.cluster == identity.cluster;
    if found.node == identity.node && found.incarnation == identity.incarnation && same_cluster {
        return Ok(());
    }
    let path = link.segment.path.clone();
    let detail = format!(
        "the segment belongs to {found:?}, the directory to {identity:?}; bring back the files that belong together"
    );
    Err(StoreError::Identity { path, detail })
}

/// A node that has joined a cluster has a log, or its disk was wiped.
fn refuse_missing_log(disk: &dyn Disk, identity: &Identity) -> Result<(), StoreError> {
    let Some(cluster) = identity.cluster else { return Ok(()) };
    let detail = format!(
        "the node has joined cluster {cluster}, but its log is gone; bring the log back, or remove this node \
         from the cluster, empty the directory and add the node again"
    );
    Err(StoreError::Identity { path: disk.path().to_owned(), detail })
}

/// Applies what is attested by now, and moves the end behind it.
fn settle(
    log: &mut Log,
    segment: &Segment,
    end: &mut End,
    doubt: &mut VecDeque<(End, u64, Vec<Record>)>,
    attested: u64,
) -> Result<(), StoreError> {
    while doubt.front().is_some_and(|(behind, ..)| behind.batch <= attested) {
        if let Some((behind, offset, records)) = doubt.pop_front() {
            replay(log, segment, offset, &records)?;
            *end = behind;
        }
    }
    Ok(())
}

fn replay(log: &mut Log, segment: &Segment, offset: u64, records: &[Record]) -> Result<(), StoreError> {
    let mut records = records.iter();
    records.try_for_each(|record| log.replay(record)).map_err(|wrong| damaged(segment, offset, wrong))
}

/// Fails with the first damage that what was purged does not cover.
fn pay(debts: Vec<Debt>, log: &Log, doubtful: &[Record]) -> Result<(), StoreError> {
    let purges = doubtful.iter().filter_map(|record| match record {
        Record::Purge(upto) | Record::Reset(upto) => Some(upto.index),
        _ => None,
    });
    let purged = purges.fold(log.shape.purged.index, Index::max);
    debts.into_iter().find(|debt| purged < debt.upto).map_or(Ok(()), |debt| Err(debt.error))
}

fn damaged(segment: &Segment, offset: u64, detail: impl Into<String>) -> StoreError {
    StoreError::Damaged { path: segment.path.clone(), offset, detail: detail.into() }
}

/// A batch that is whole, or what is wrong with it.
type Batch = Result<(BatchHeader, Vec<Record>), Wrong>;

/// Walks the batches of one segment.
struct Batches<'a> {
    segment: &'a Segment,
    window: Window<'a>,
    /// Behind the newest whole batch.
    end: End,
    broken: Broken,
}

impl<'a> Batches<'a> {
    /// At the very first batch, of which nothing is known yet.
    fn before(segment: &'a Segment) -> Batches<'a> {
        let end = End { segment: segment.number, generation: segment.generation, offset: BLOCK, ..End::NONE };
        Batches { segment, window: Window::new(segment), end, broken: Broken::default() }
    }

    /// Behind the first batch.
    fn new(segment: &'a Segment, first: &BatchHeader, broken: Broken) -> Batches<'a> {
        let mut batches = Batches { broken, ..Batches::before(segment) };
        batches.step(first);
        batches
    }

    fn step(&mut self, header: &BatchHeader) {
        self.end.offset += header.padded();
        self.end.batch = header.number;
        self.end.checksum = header.checksum;
    }

    /// The next batch, if it is whole and follows the one before.
    fn next(&mut self) -> Result<Batch, StoreError> {
        Ok(match self.read()? {
            Ok((header, _))
                if (header.number != self.end.batch + 1 || header.previous != self.end.checksum)
                    && !self.broken.is("earlier-life-accepted") =>
            {
                Err(format!("batch {} does not follow batch {}", header.number, self.end.batch))
            }
            Ok((header, records)) => {
                self.step(&header);
                Ok((header, records))
            }
            wrong => wrong,
        })
    }

    /// The batch that starts at the end, if it is whole.
    fn read(&mut self) -> Result<Batch, StoreError> {
        let Some(header) = self.header(self.end.offset)? else {
            return Ok(Err("the header of the batch is not whole".into()));
        };
        let start = self.end.offset + HEADER as u64;
        if header.body > self.segment.size.saturating_sub(start) {
            return Ok(Err("the file ends within the batch".into()));
        }
        let body = self.window.get(start, header.body as usize);
        let body = body.map_err(failed("read", &self.segment.path))?;
        if body.len() as u64 != header.body {
            return Ok(Err("the file ends within the batch".into()));
        }
        match decode_body(&header, &body) {
            Ok(records) => Ok(Ok((header, records))),
            Err(BodyError::NotWhole(wrong)) => Ok(Err(wrong)),
            Err(BodyError::Unknown(detail)) => {
                let detail = format!("{detail}; start the version of the program that wrote it");
                Err(damaged(self.segment, self.end.offset, detail))
            }
        }
    }

    fn header(&mut self, offset: u64) -> Result<Option<BatchHeader>, StoreError> {
        let bytes = self.window.get(offset, HEADER).map_err(failed("read", &self.segment.path))?;
        let generation = match bytes.get(8..16).and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) if self.broken.is("earlier-life-accepted") => u64::from_le_bytes(bytes),
            _ => self.segment.generation,
        };
        Ok(BatchHeader::decode(&bytes, generation, offset))
    }

    /// The newest batch that any header from the end on attests, whether its body is whole or not.
    fn attested_behind(&mut self) -> Result<u64, StoreError> {
        let mut attested = 0;
        let mut offset = self.end.offset;
        while offset < self.segment.size {
            attested = attested.max(self.header(offset)?.map_or(0, |header| header.synced));
            offset += BLOCK;
        }
        Ok(attested)
    }

    /// Whether there is any header behind the first block of the first batch; without a segment's header
    /// that says the generation, whether there is any at all.
    fn any_behind(&mut self, generation_known: bool) -> Result<bool, StoreError> {
        let mut offset = if generation_known { 2 * BLOCK } else { BLOCK };
        while offset < self.segment.size {
            let bytes = self.window.get(offset, HEADER).map_err(failed("read", &self.segment.path))?;
            let generation = match bytes.get(8..16).and_then(|bytes| bytes.try_into().ok()) {
                Some(bytes) if !generation_known => u64::from_le_bytes(bytes),
                _ => self.segment.generation,
            };
            if BatchHeader::decode(&bytes, generation, offset).is_some() {
                return Ok(true);
            }
            offset += BLOCK;
        }
        Ok(false)
    }
}

/// Reads a file in long stretches.
struct Window<'a> {
    file: &'a dyn DiskFile,
    size: u64,
    start: u64,
    bytes: Bytes,
}

impl<'a> Window<'a> {
    fn new(segment: &'a Segment) -> Window<'a> {
        Window { file: &*segment.file, size: segment.size, start: 0, bytes: Bytes::new() }
    }

    /// The bytes from `offset` on, fewer where the file ends. They keep their whole stretch in memory.
    fn get(&mut self, offset: u64, len: usize) -> io::Result<Bytes> {
        let at = offset.checked_sub(self.start).map(|at| at as usize);
        let at = match at.filter(|at| at + len <= self.bytes.len()) {
            Some(at) => at,
            None => {
                self.fill(offset, len)?;
                0
            }
        };
        Ok(self.bytes.slice(at..self.bytes.len().min(at + len)))
    }

    /// Takes the next stretch, in the memory of the last one if nobody else holds it.
    fn fill(&mut self, offset: u64, len: usize) -> io::Result<()> {
        let rest = self.size.saturating_sub(offset).min(len.max(STRETCH) as u64) as usize;
        let mut buffer = match std::mem::take(&mut self.bytes).try_into_mut() {
            Ok(mut old) if old.capacity() >= rest => {
                old.resize(rest, 0);
                old
            }
            _ => BytesMut::zeroed(rest),
        };
        let count = read_full(self.file, &mut buffer, offset)?;
        buffer.truncate(count);
        self.bytes = buffer.freeze();
        self.start = offset;
        Ok(())
    }
}

/// Whether there is any file of a log.
pub(super) fn any_segment(disk: &dyn Disk) -> Result<bool, StoreError> {
    let names = disk.list().map_err(failed("list", disk.path()))?;
    Ok(names.iter().any(|name| segment::number(name).is_some()))
}
