//! The files of a log, and which of them count: from the newest checkpoint down.

use super::super::batches::Batches;
use super::super::format::{BLOCK, BatchHeader, End, HEADER, OtherVersion, Record, SegmentHeader, Wrong};
use super::super::segment::{self, Segment};
use super::super::{places, spares};
use super::debts::{Debts, damaged};
use crate::storage::disk::{Disk, failed, read_full};
use crate::storage::shape::Shape;
use crate::storage::{Identity, StoreError};
use coracle_core::{Broken, Index};
use std::io;
use std::sync::Arc;

/// A file with the name of a segment.
pub(super) struct Candidate {
    pub(super) segment: Arc<Segment>,
    /// None if the first block is not a header.
    pub(super) header: Option<SegmentHeader>,
}

impl Candidate {
    /// Where its first batch should be, or the header that should say so.
    fn first_offset(&self) -> u64 {
        if self.header.is_some() { BLOCK } else { 0 }
    }
}

/// The first batch of a segment.
pub(super) struct Checkpoint {
    pub(super) header: BatchHeader,
    pub(super) identity: Identity,
    pub(super) follows: End,
    pub(super) shape: Shape,
    pub(super) repeats: Vec<Record>,
}

/// A segment that counts.
pub(super) struct Link {
    pub(super) segment: Arc<Segment>,
    pub(super) checkpoint: Checkpoint,
}

/// How much is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::storage::wal) enum Extent {
    /// No segment of which it is known where its entries lie. A top that says no more than so many bytes is to
    /// be replaced.
    AsNeeded { little: u64 },
    /// Every byte that counts.
    All,
}

/// The files that were found.
pub(super) struct Files {
    /// All that may be segments, ascending.
    pub(super) candidates: Vec<Candidate>,
    /// Those that certainly count for nothing.
    pub(super) leftovers: Vec<String>,
    /// See [`Survey::listed`](super::Survey::listed).
    pub(super) listed: Vec<(u64, Option<u64>)>,
}

impl Files {
    /// The number for the next segment: greater than all that are there.
    pub(super) fn next(&self) -> u64 {
        self.candidates.last().map_or(1, |candidate| candidate.segment.number + 1)
    }
}

/// Looks at every file of the directory.
pub(super) fn list(
    disk: &dyn Disk,
    extent: Extent,
    broken: Broken,
    debts: &mut Debts,
) -> Result<Files, StoreError> {
    let (mut candidates, mut listed) = (Vec::new(), Vec::new());
    let (mut leftovers, mut hints) = (Vec::new(), Vec::new());
    for name in disk.list().map_err(failed("list", disk.path()))? {
        if let Some(number) = places::number(&name) {
            hints.push((number, name));
            continue;
        }
        let Some(number) = segment::number(&name) else {
            if spares::is_unfinished(&name) {
                leftovers.push(name);
            }
            continue;
        };
        let path = disk.path().join(&name);
        let file = match disk.open(&name) {
            // Purged, where another process uses the log.
            Err(error) if extent == Extent::All && error.kind() == io::ErrorKind::NotFound => {
                listed.push((number, None));
                continue;
            }
            opened => opened.map_err(failed("open", &path))?,
        };
        let size = file.len().map_err(failed("read", &path))?;
        let mut block = [0; HEADER];
        let count = read_full(&*file, &mut block, 0).map_err(failed("read", &path))?;
        let header = SegmentHeader::decode(&block[..count]);
        listed.push((number, header.as_ref().ok().copied().flatten().map(|header| header.generation)));
        let header = header.map_err(|other| match other {
            OtherVersion::Older(version) => StoreError::Older { path: path.clone(), version },
            OtherVersion::Newer(detail) => StoreError::Newer { path: path.clone(), offset: 0, detail },
        })?;
        if header.is_some_and(|header| header.number > number) && !broken.is("old-name-refused") {
            // A recycled file whose old name came back: it is the name of a purged segment.
            leftovers.push(name);
            continue;
        }
        if let Some(other) = header.filter(|header| header.number != number) {
            let detail =
                format!("it says that it is segment {}; restore the names of the files", other.number);
            debts.add_hard(StoreError::Damaged { path, offset: 0, detail })?;
            continue;
        }
        let generation = header.map_or(0, |header| header.generation);
        candidates
            .push(Candidate { segment: Arc::new(Segment { number, generation, path, file, size }), header });
    }
    candidates.sort_by_key(|candidate| candidate.segment.number);
    hints.retain(|(number, _)| candidates.iter().all(|candidate| candidate.segment.number != *number));
    leftovers.extend(hints.into_iter().map(|(_, name)| name));
    listed.sort_unstable();
    Ok(Files { candidates, leftovers, listed })
}

/// The segments that count, and what is known from the others.
pub(super) struct Chain {
    /// Ascending; the last is the top.
    pub(super) links: Vec<Link>,
    /// The newest batch that a header above the top attests.
    pub(super) attested: u64,
    /// The segments above the top, which never counted, newest first.
    pub(super) stale: Vec<u64>,
}

/// Finds the top, and from it the way down.
pub(super) fn chain(candidates: &[Candidate], debts: &mut Debts) -> Result<Chain, StoreError> {
    let mut chain = Chain { links: vec![], attested: 0, stale: vec![] };
    let mut rest = candidates;
    while let [below @ .., candidate] = rest {
        rest = below;
        match checkpoint(candidate)? {
            Ok(checkpoint) => {
                chain.links.push(Link { segment: candidate.segment.clone(), checkpoint });
                break;
            }
            Err(NoCheckpoint { wrong, torn }) => {
                // After a first batch that was never synced, there is no second one.
                if !torn || Batches::before(&candidate.segment).any_after(candidate.header.is_some())? {
                    debts.add_hard(damaged(&candidate.segment, candidate.first_offset(), wrong))?;
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
            debts.add_hard(damaged(&link.segment, BLOCK, "the checkpoint follows a later segment"))?;
            break;
        }
        let below = rest.iter().find(|c| c.segment.number == follows.segment);
        let below = below.filter(|c| c.header.is_none_or(|header| header.generation == follows.generation));
        let Some(below) = below else {
            let detail = format!("the log begins late: segment {} before it is gone", follows.segment);
            debts.add_gone(upto, follows.segment, damaged(&link.segment, BLOCK, detail));
            break;
        };
        match checkpoint(below)? {
            Ok(checkpoint) => chain.links.push(Link { segment: below.segment.clone(), checkpoint }),
            Err(NoCheckpoint { wrong, torn }) => {
                let upto = if torn { upto } else { Index(u64::MAX) };
                debts.add(upto, damaged(&below.segment, below.first_offset(), wrong))?;
                break;
            }
        }
    }
    chain.links.reverse();
    Ok(chain)
}

/// Why a segment has no checkpoint to go by.
struct NoCheckpoint {
    wrong: Wrong,
    /// Whether its bytes are not whole; otherwise they were written like that.
    torn: bool,
}

/// The first batch of a segment, or what is wrong with it.
fn checkpoint(candidate: &Candidate) -> Result<Result<Checkpoint, NoCheckpoint>, StoreError> {
    let segment = &candidate.segment;
    let refuse = |wrong: &str, torn| Ok(Err(NoCheckpoint { wrong: wrong.to_owned(), torn }));
    let Some(first) = candidate.header else { return refuse("the segment's header is not whole", true) };
    let (header, records) = match Batches::before(segment).read()? {
        Ok(batch) => batch,
        Err(wrong) => return refuse(&wrong, true),
    };
    let mut records = records.into_iter().peekable();
    let Some(Record::Origin { identity, end: follows }) = records.next() else {
        return refuse("the first batch is not a checkpoint", false);
    };
    let Some(Record::State(mut shape)) = records.next() else {
        return refuse("the checkpoint restates no log", false);
    };
    while let Some(Record::Membership(..)) = records.peek() {
        if let Some(Record::Membership(id, payload)) = records.next() {
            shape.memberships.push((id, payload));
        }
    }
    if header.number != first.first {
        return refuse("the segment's header and its first batch disagree", false);
    }
    Ok(Ok(Checkpoint { header, identity, follows, shape, repeats: records.collect() }))
}
