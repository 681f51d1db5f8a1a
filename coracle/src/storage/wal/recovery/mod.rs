//! Reads the log back after whatever happened, and tells a torn tail from damage.
//!
//! The idea: a batch that was acknowledged was synced, and what was written later says so. Every batch
//! and every segment names the newest batch whose sync had returned (it *attests* it). So when a batch is
//! not whole, recovery asks whether anything attests it. If so, bytes that were promised are gone: the
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

mod chain;
mod debts;
mod known;
mod top;
mod walk;

pub(super) use self::chain::Extent;
pub(super) use self::debts::Damage;
pub(super) use self::known::Known;
pub(super) use self::walk::Visited;

use self::chain::{Candidate, Chain, Files, Link, chain, list};
use self::debts::{Debts, missing};
use self::top::Top;
use self::walk::Walk;
use super::format::{End, Record};
use super::index::Log;
use super::segment::{self, Segment};
use crate::storage::disk::Disk;
use crate::storage::{Identity, StoreError, identity};
use coracle_core::Broken;
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
    let files = list(disk, extent, broken, &mut debts)?;
    let mut chain = chain(&files.candidates, &mut debts)?;
    let strangers = |id| chain.links.iter().find_map(|link| check_identity(id, link).err());
    if let Some(error) = identity.and_then(strangers) {
        debts.add_hard(error)?;
    }
    if extent == Extent::All {
        known.read(disk, &chain.links)?;
    }
    let Some(top) = chain.links.pop() else {
        debts.add_hard_if(no_log(disk, identity, least, &files.candidates, &chain))?;
        return Ok(empty(files, &chain, least, debts, broken));
    };
    if top.segment.number < least {
        debts.add_hard(missing(disk, least, REACHED))?;
    }
    let mut walk = Walk::new(disk, extent, known, debts, broken);
    let below = &chain.links;
    for (at, link) in below.iter().enumerate() {
        progress(at as f32 / (below.len() + 1) as f32);
        walk.begin(link)?;
        walk.pass(link, below.get(at + 1).unwrap_or(&top))?;
    }
    progress(below.len() as f32 / (below.len() + 1) as f32);
    walk.begin(&top)?;
    let number = top.segment.number;
    let top = walk.arrive(top, chain.attested)?;
    progress(1.0);
    if top.end.segment != number {
        walk.log.leave();
    }
    Ok(conclude(files, walk, top, broken))
}

/// Why the identity's number says that there is a log.
const REACHED: &str = "the identity says that the log reached it";

/// What is wrong where no segment counts, if anything is.
fn no_log(
    disk: &dyn Disk,
    identity: Option<&Identity>,
    least: u64,
    candidates: &[Candidate],
    chain: &Chain,
) -> Option<StoreError> {
    if chain.attested > 0 {
        let newest = chain.stale.first();
        let stale = newest.and_then(|number| candidates.iter().find(|c| c.segment.number == *number));
        let path = stale.map_or_else(|| disk.path().to_owned(), |c| c.segment.path.clone());
        let batch = chain.attested;
        let detail = format!("batch {batch} was durable, but there is no whole segment; bring it back");
        return Some(StoreError::Damaged { path, offset: 0, detail });
    }
    let refused = identity.and_then(|id| refuse_missing_log(disk, id).err());
    refused.or_else(|| (least > 0).then(|| missing(disk, least, REACHED)))
}

/// The survey of a directory in which no segment counts.
fn empty(files: Files, chain: &Chain, least: u64, debts: Debts, broken: Broken) -> Survey {
    let next = files.next().max(least + 1);
    let Files { mut leftovers, listed, .. } = files;
    leftovers.extend(chain.stale.iter().map(|number| segment::name(*number)));
    let log = Log::new(broken);
    let damage = debts.pay(&log.shape, [].iter());
    let found = Found {
        log,
        end: End::NONE,
        attested: 0,
        repeats: vec![],
        doubtful: vec![],
        next,
        leftovers,
        ends_in: None,
    };
    Survey { found, damage, visited: vec![], lost: vec![], listed }
}

/// The survey of a log that was read up to the end of its top.
fn conclude(files: Files, walk: Walk<'_>, top: Top, broken: Broken) -> Survey {
    let next = files.next();
    let Files { candidates, mut leftovers, listed } = files;
    let Walk { log, debts, visited, lost, .. } = walk;
    let (end, attested) = (top.end, top.attested);
    let (repeats, mut doubtful) = top.waiting();
    if broken.is("unattested-tail-dropped") {
        doubtful.clear();
    }
    let damage = debts.pay(&log.shape, repeats.iter().chain(&doubtful));
    let kept: Vec<u64> = log.segments().collect();
    let dropped = candidates.iter().filter(|c| !kept.contains(&c.segment.number));
    leftovers.extend(dropped.map(|c| c.segment.name()));
    let ends_in = candidates.iter().find(|c| c.segment.number == end.segment && kept.contains(&end.segment));
    let ends_in = ends_in.map(|c| c.segment.clone());
    let found = Found { log, end, attested, repeats, doubtful, next, leftovers, ends_in };
    Survey { found, damage, visited, lost, listed }
}

/// Whether a segment is of the disk that the directory belongs to.
fn check_identity(identity: &Identity, link: &Link) -> Result<(), StoreError> {
    let found = &link.checkpoint.identity;
    let same_cluster = found.cluster.is_none() || found.cluster == identity.cluster;
    if found.node == identity.node && found.incarnation == identity.incarnation && same_cluster {
        return Ok(());
    }
    let path = link.segment.path.clone();
    let detail = format!(
        "the segment belongs to {found}, the directory to {identity}; bring back the files that belong together"
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
