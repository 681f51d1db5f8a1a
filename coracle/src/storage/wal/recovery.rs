//! Reads the log back after whatever happened, and tells a torn tail from damage.
//!
//! The idea: a batch that was acknowledged was synced, and what was written later says so. Every batch
//! and every segment names the newest batch whose sync had returned (it *attests* it). So when a batch is
//! not whole, recovery asks whether anything attests it. If so, bytes that were acknowledged are gone: the
//! start fails and names the place. If not, nobody was ever told of it: it is dropped with all after it.
//! A batch that is whole but that nothing attests is *in doubt*: it may live in the page cache only. It is
//! kept, and written again.
//!
//! Segments form a chain: the checkpoint at the start of each names the end of the batch that it
//! follows. The newest segment with a whole checkpoint is the top of the chain. A newer file without one
//! never counted; a file beside the chain does not count any more. Damage below the top is always damage,
//! since whatever the chain names was synced; it is forgiven only where everything up to the next
//! checkpoint is purged, since that restates the rest.
//!
//! The end of a chain cannot be seen from its other links, so it is told elsewhere. A segment that was left while
//! the log ran ends with the name of its *successor*; and the identity says what number the newest segment has
//! at least, since each start raises it. A log that ends before either is damaged.
//!
//! A top that holds little is *replaced*, so that starts leave no trail of files: the new segment follows the
//! batch that the top follows, and repeats what the top says, like what is in doubt.
//!
//! Nothing is written here. What comes out is the state at the last attested batch, what is in doubt
//! after it, and what may be cleaned up once a new segment says all this.

use super::batches::Batches;
use super::format::{BLOCK, BatchHeader, End, HEADER, OtherVersion, Record, SegmentHeader, Wrong};
use super::index::Log;
use super::places::{self, Places};
use super::segment::{self, Segment};
use super::spares;
use crate::storage::disk::{Disk, failed, read_full};
use crate::storage::shape::Shape;
use crate::storage::{Identity, StoreError, identity};
use coracle_core::{Broken, Index};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

/// What was found.
pub(super) struct Found {
    /// The log up to the last attested batch.
    pub(super) log: Log,
    /// The end of that batch.
    pub(super) end: End,
    /// The newest batch that is attested: that one, or one of a top that is to be replaced.
    pub(super) attested: u64,
    /// What the top says, attested or not, of a top that is to be replaced.
    pub(super) repeats: Vec<Record>,
    /// What the whole batches after it say; not durable yet.
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

impl Candidate {
    /// Where its first batch should be, or the header that should say so.
    fn first_offset(&self) -> u64 {
        if self.header.is_some() { BLOCK } else { 0 }
    }
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
    /// The number of the segment that should be there and is not.
    gone: Option<u64>,
}

/// All that is wrong with a log.
#[derive(Default)]
struct Debts(Vec<Debt>);

impl Debts {
    /// Notes damage that no purge up to less than `upto` makes up for. What is not damage ends the survey.
    fn add(&mut self, upto: Index, error: StoreError) -> Result<(), StoreError> {
        match error {
            StoreError::Damaged { .. } | StoreError::Identity { .. } => {
                self.0.push(Debt { upto, error, gone: None });
            }
            error => return Err(error),
        }
        Ok(())
    }

    /// Notes that a segment is gone, which a purge up to `upto` makes up for.
    fn add_gone(&mut self, upto: Index, number: u64, error: StoreError) {
        self.0.push(Debt { upto, error, gone: Some(number) });
    }

    /// Notes damage that nothing makes up for.
    fn add_hard(&mut self, error: StoreError) -> Result<(), StoreError> {
        self.add(Index(u64::MAX), error)
    }
}

/// How much is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// No segment of which it is known where its entries lie. A top that says no more than so many bytes is to
    /// be replaced.
    AsNeeded { little: u64 },
    /// Every byte that counts.
    All,
}

/// Closed segments that were read whole: what is stable is not read twice, however often a log in use is surveyed.
#[derive(Default)]
pub(super) struct Known(BTreeMap<(u64, u64), Closed>);

/// What one of them says, up to this end: where its entries lie, and the shape of the log after it.
struct Closed {
    places: Places,
    shape: Shape,
}

impl Known {
    /// Reads what it does not know yet, the newest first: where another process purges the log meanwhile, that comes from
    /// the other end, and the newest segments are not gone before it is their turn. What cannot be read is left to whoever
    /// judges it; what is gone, with all before it, need not be read.
    fn read(&mut self, disk: &dyn Disk, links: &[Link]) -> Result<(), StoreError> {
        self.0.retain(|key, _| links.iter().any(|link| link.segment.key() == *key));
        for pair in links.windows(2).rev() {
            let [link, next] = pair else { continue };
            let (segment, limit) = (&link.segment, next.checkpoint.follows);
            if self.get(segment, limit).is_some() {
                continue;
            }
            match closed(link, limit)? {
                Some(closed) => drop(self.0.insert(segment.key(), closed)),
                None if !is_there(disk, segment.number, Some(segment.generation))? => break,
                None => {}
            }
        }
        Ok(())
    }

    /// A segment, if it was read up to here.
    fn get(&self, segment: &Segment, limit: End) -> Option<&Closed> {
        self.0.get(&segment.key()).filter(|closed| closed.places.end == limit)
    }
}

/// Reads a segment below the top, if it is whole up to this end.
fn closed(link: &Link, limit: End) -> Result<Option<Closed>, StoreError> {
    let Link { segment, checkpoint } = link;
    let mut log = Log::new(Broken::default());
    log.begin(checkpoint.shape.clone());
    log.join(segment.clone());
    let mut batches = Batches::new(segment, &checkpoint.header, Broken::default());
    let mut records = checkpoint.repeats.clone();
    loop {
        if records.iter().any(|record| log.replay(record).is_err()) || batches.end.offset > limit.offset {
            return Ok(None);
        }
        if batches.end == limit {
            let shape = log.shape.clone();
            return Ok(log.places(limit).map(|places| Closed { places, shape }));
        }
        records = match batches.next()? {
            Ok((_, records)) => records,
            Err(_) => return Ok(None),
        };
    }
}

/// Whether the file of a segment is the one that was listed.
pub(super) fn is_there(disk: &dyn Disk, number: u64, generation: Option<u64>) -> Result<bool, StoreError> {
    let name = segment::name(number);
    let path = disk.path().join(&name);
    let file = match disk.open(&name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened.map_err(failed("open", &path))?,
    };
    let mut block = [0; HEADER];
    let count = read_full(&*file, &mut block, 0).map_err(failed("read", &path))?;
    let header = SegmentHeader::decode(&block[..count]).ok().flatten();
    Ok(header.map(|header| header.generation) == generation)
}

/// A damage, and whether a start forgives it: everything that it hit is purged.
pub(super) struct Damage {
    pub(super) error: StoreError,
    pub(super) forgiven: bool,
    /// The number of the segment that should be there and is not, if it is that.
    pub(super) gone: Option<u64>,
}

/// A segment that counts, and how far its batches were read.
pub(super) struct Visited {
    pub(super) segment: Arc<Segment>,
    /// The number of its first batch.
    pub(super) first: u64,
    /// Behind the last batch that is whole.
    pub(super) end: End,
}

/// Everything that can be said about a log, whatever is wrong with it.
pub(super) struct Survey {
    /// As far as the damage lets it be known.
    pub(super) found: Found,
    pub(super) damage: Vec<Damage>,
    /// The segments that count, ascending.
    pub(super) visited: Vec<Visited>,
    /// What was read up to a damage, oldest first; the log begins anew after it.
    pub(super) lost: Vec<Log>,
    /// The files with the name of a segment, ascending: number, and generation if the header says one. One that was
    /// gone before it was opened has none.
    pub(super) listed: Vec<(u64, Option<u64>)>,
}

/// Reads the log of this directory, or says what keeps a start from it.
pub(super) fn recover(
    disk: &dyn Disk,
    identity: &Identity,
    little: u64,
    broken: Broken,
    progress: &mut dyn FnMut(f32),
) -> Result<Found, StoreError> {
    let extent = Extent::AsNeeded { little };
    let known = &mut Known::default();
    let Survey { found, damage, .. } = survey(disk, Some(identity), extent, known, broken, progress)?;
    damage.into_iter().find(|damage| !damage.forgiven).map_or(Ok(found), |damage| Err(damage.error))
}

/// Reads the log of this directory as far as it can be read. An error is what is no damage: the system
/// refuses, or a newer version wrote it.
pub(super) fn survey(
    disk: &dyn Disk,
    identity: Option<&Identity>,
    extent: Extent,
    known: &mut Known,
    broken: Broken,
    progress: &mut dyn FnMut(f32),
) -> Result<Survey, StoreError> {
    let mut debts = Debts::default();
    // Before the segments are listed: another process may be just starting.
    let bounded = identity.is_some() && !broken.is("missing-segment-accepted");
    let least = if bounded { identity::least_segment(disk)? } else { 0 };
    let (candidates, mut leftovers, listed) = list(disk, extent, broken, &mut debts)?;
    let next = candidates.last().map_or(1, |c| c.segment.number + 1);
    let Chain { links, mut attested, stale } = chain(&candidates, &mut debts)?;
    if let Some(error) = identity.and_then(|id| links.iter().find_map(|link| check_identity(id, link).err()))
    {
        debts.add_hard(error)?;
    }
    if extent == Extent::All {
        known.read(disk, &links)?;
    }
    let mut log = Log::new(broken);
    let (mut visited, mut lost) = (Vec::new(), Vec::new());
    let Some(top) = links.last().map(|link| link.segment.clone()) else {
        if attested > 0 {
            let stale =
                stale.first().and_then(|number| candidates.iter().find(|c| c.segment.number == *number));
            let path = stale.map_or_else(|| disk.path().to_owned(), |c| c.segment.path.clone());
            let detail =
                format!("batch {attested} was durable, but there is no whole segment; bring it back");
            debts.add_hard(StoreError::Damaged { path, offset: 0, detail })?;
        } else if let Some(error) = identity.and_then(|id| refuse_missing_log(disk, id).err()) {
            debts.add_hard(error)?;
        } else if least > 0 {
            debts.add_hard(missing(disk, least, "the identity says that the log reached it"))?;
        }
        leftovers.extend(stale.into_iter().map(segment::name));
        let found = Found {
            log,
            end: End::NONE,
            attested: 0,
            repeats: vec![],
            doubtful: vec![],
            next: next.max(least + 1),
            leftovers,
            ends_in: None,
        };
        let damage = pay(debts, &found.log, [].iter());
        return Ok(Survey { found, damage, visited, lost, listed });
    };

    if top.number < least {
        debts.add_hard(missing(disk, least, "the identity says that the log reached it"))?;
    }

    let mut end = End::NONE;
    let mut doubt = VecDeque::new();
    let mut replayed: Option<End> = None;
    let count = links.len();
    let mut links = links.into_iter().peekable();
    for at in 0.. {
        let Some(Link { segment, checkpoint }) = links.next() else { break };
        progress(at as f32 / count as f32);
        let follows = checkpoint.follows;
        let disagree = replayed == Some(follows)
            && log.shape != checkpoint.shape
            && !broken.is("checkpoint-forgets-vote");
        if checkpoint.header.number != follows.batch + 1 || checkpoint.header.previous != follows.checksum {
            debts.add_hard(damaged(
                &segment,
                BLOCK,
                "the checkpoint does not follow the batch that it names",
            ))?;
        } else if disagree {
            let detail = "the checkpoint and the batches before it disagree";
            debts.add_hard(damaged(&segment, BLOCK, detail))?;
        }
        if replayed != Some(follows) || disagree || broken.is("checkpoint-forgets-vote") {
            let before = std::mem::replace(&mut log, Log::new(broken));
            if before.segments().count() > 0 {
                lost.push(before);
            }
            log.begin(checkpoint.shape);
        }
        log.join(segment.clone());
        let limit = links.peek().map(|next| (next.checkpoint.follows, next.checkpoint.shape.last.index));
        if let Some(next) = links.peek()
            && extent != Extent::All
            && let Some(places) =
                Places::read(disk, next.checkpoint.follows, next.checkpoint.shape.last.index)
        {
            replayed = Some(next.checkpoint.follows);
            log.adopt(places, next.checkpoint.shape.clone());
            continue;
        }
        let first = checkpoint.header.number;
        if let Some((limit, _)) = limit
            && let Some(Closed { places, shape }) = known.get(&segment, limit)
        {
            visited.push(Visited { first, end: limit, segment });
            replayed = Some(limit);
            log.adopt(places.clone(), shape.clone());
            continue;
        }
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
            replayed = result.is_ok().then_some(limit);
            visited.push(Visited { first, end: batches.end, segment: segment.clone() });
            result.or_else(|error| debts.add(last, error))?;
            continue;
        }
        // The top: what nothing attests waits, since the end may be torn. And all of it does, as long as it may be
        // replaced: that takes the batch that it follows.
        end = follows;
        attested = attested.max(checkpoint.header.synced);
        let mut little = match extent {
            Extent::AsNeeded { little } if follows == End::NONE || replayed == Some(follows) => Some(little),
            _ => None,
        };
        let mut weight = checkpoint.repeats.iter().map(Record::weight).sum::<u64>();
        doubt.push_back((batches.end, BLOCK, checkpoint.repeats));
        let result = (|| {
            let wrong = loop {
                let offset = batches.end.offset;
                match batches.next()? {
                    Ok((header, records)) => {
                        attested = attested.max(header.synced);
                        if let Some(Record::Successor { number, .. }) = records.first() {
                            settle(&mut log, &segment, &mut end, &mut doubt, attested)?;
                            let why = format!("{} says that the log goes on in it", segment.name());
                            return Err(missing(disk, *number, &why));
                        }
                        weight += records.iter().map(Record::weight).sum::<u64>();
                        little = little.filter(|little| weight <= *little);
                        doubt.push_back((batches.end, offset, records));
                        if little.is_none() {
                            settle(&mut log, &segment, &mut end, &mut doubt, attested)?;
                        }
                    }
                    Err(wrong) => {
                        attested = attested.max(batches.attested_after()?);
                        break wrong;
                    }
                }
            };
            if little.is_some_and(|little| weight <= little) {
                // It would be too late to find this out in the new segment.
                let mut trial = log.shape.clone();
                for (_, offset, records) in &doubt {
                    let fits = records.iter().try_for_each(|record| record.change(&mut trial));
                    fits.map_err(|wrong| damaged(&segment, *offset, wrong))?;
                }
            } else {
                settle(&mut log, &segment, &mut end, &mut doubt, attested)?;
            }
            if attested > batches.end.batch && !broken.is("attestation-ignored") {
                return Err(damaged(&segment, batches.end.offset, wrong));
            }
            Ok(())
        })();
        visited.push(Visited { first, end: batches.end, segment: segment.clone() });
        result.or_else(|error| debts.add_hard(error))?;
    }
    progress(1.0);

    if end.segment != top.number {
        log.leave();
    }
    let sure = doubt.partition_point(|(after, ..): &(End, u64, Vec<Record>)| after.batch <= attested);
    let unsure = doubt.split_off(sure);
    let said = |batches: VecDeque<(End, u64, Vec<Record>)>| -> Vec<Record> {
        batches.into_iter().flat_map(|(_, _, records)| records).collect()
    };
    let (repeats, mut doubtful) = (said(doubt), said(unsure));
    if broken.is("unattested-tail-dropped") {
        doubtful.clear();
    }
    let damage = pay(debts, &log, repeats.iter().chain(&doubtful));
    let kept: Vec<u64> = log.segments().collect();
    let dropped = candidates.iter().filter(|c| !kept.contains(&c.segment.number));
    leftovers.extend(dropped.map(|c| c.segment.name()));
    let ends_in = candidates.iter().find(|c| c.segment.number == end.segment && kept.contains(&end.segment));
    let ends_in = ends_in.map(|c| c.segment.clone());
    let found = Found { log, end, attested, repeats, doubtful, next, leftovers, ends_in };
    Ok(Survey { found, damage, visited, lost, listed })
}

/// What [`list`] finds: candidates, leftovers, and [`Survey::listed`].
type Listed = (Vec<Candidate>, Vec<String>, Vec<(u64, Option<u64>)>);

/// All files that may be segments, ascending, and those that certainly count for nothing.
fn list(disk: &dyn Disk, extent: Extent, broken: Broken, debts: &mut Debts) -> Result<Listed, StoreError> {
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
    Ok((candidates, leftovers, listed))
}

/// The segments that count, and what is known from the others.
struct Chain {
    /// Ascending; the last is the top.
    links: Vec<Link>,
    /// The newest batch that a header above the top attests.
    attested: u64,
    /// The segments above the top, which never counted, newest first.
    stale: Vec<u64>,
}

/// Finds the top, and from it the way down.
fn chain(candidates: &[Candidate], debts: &mut Debts) -> Result<Chain, StoreError> {
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
                // Behind a first batch that was never synced, there is no second one.
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

/// Applies what is attested by now, and moves the end after it.
fn settle(
    log: &mut Log,
    segment: &Segment,
    end: &mut End,
    doubt: &mut VecDeque<(End, u64, Vec<Record>)>,
    attested: u64,
) -> Result<(), StoreError> {
    while doubt.front().is_some_and(|(after, ..)| after.batch <= attested) {
        if let Some((after, offset, records)) = doubt.pop_front() {
            replay(log, segment, offset, &records)?;
            *end = after;
        }
    }
    Ok(())
}

fn replay(log: &mut Log, segment: &Segment, offset: u64, records: &[Record]) -> Result<(), StoreError> {
    let mut records = records.iter();
    records.try_for_each(|record| log.replay(record)).map_err(|wrong| damaged(segment, offset, wrong))
}

/// Says of each damage whether what was purged covers it.
fn pay<'a>(debts: Debts, log: &Log, after: impl Iterator<Item = &'a Record>) -> Vec<Damage> {
    let purges = after.filter_map(|record| match record {
        Record::Purge(upto) | Record::Reset(upto) => Some(upto.index),
        _ => None,
    });
    let purged = purges.fold(log.shape.purged.index, Index::max);
    debts
        .0
        .into_iter()
        .map(|Debt { upto, error, gone }| Damage { forgiven: purged >= upto, error, gone })
        .collect()
}

/// The file of a segment that was there is not, or its first batch is not whole.
fn missing(disk: &dyn Disk, number: u64, why: &str) -> StoreError {
    let path = disk.path().join(segment::name(number));
    let detail = format!("{why}, but this segment, or a later one, is missing or not whole; bring it back");
    StoreError::Damaged { path, offset: 0, detail }
}

fn damaged(segment: &Segment, offset: u64, detail: impl Into<String>) -> StoreError {
    StoreError::Damaged { path: segment.path.clone(), offset, detail: detail.into() }
}

/// Whether there is any file of a log.
pub(super) fn any_segment(disk: &dyn Disk) -> Result<bool, StoreError> {
    let names = disk.list().map_err(failed("list", disk.path()))?;
    Ok(names.iter().any(|name| segment::number(name).is_some()))
}
