//! A look at a log from outside: what a start would find, without changing a byte.
//!
//! The directory may be in use. What a survey of a log finds then is judged anew, by two rules, so that
//! reading ends however fast the log moves:
//!
//! - A segment that was there and is not any more was purged: its name is gone, or its file has another
//!   generation. No number is used twice. It and all before it are no part of the log; the log begins after it.
//! - A log that goes on in newer segments than were listed is read up to where the listed ones end.
//!
//! Only what is left must be found by two surveys, one after the other, at the same place: a batch that was being written
//! when it was read is whole the next time. The second reads the top again, and of the closed segments those that came
//! meanwhile. Each reads the newest first, and a purge begins with the oldest: a survey is in vain only if the log is
//! replaced whole while a single segment is read.
//!
//! A segment may name a cluster where the identity, read before, names none: the identity is read again.

use super::format::{BLOCK, Record};
use super::index::{Log, Shared};
use super::reader::WalReader;
use super::recovery::{self, Extent, Known, Survey, Visited};
use super::segment::{self, is_there};
use super::spares;
use crate::error::in_full;
use crate::storage::disk::{Disk, failed};
use crate::storage::{Identity, LogReader, Recovered, StoreError, identity};
use coracle_core::{Broken, Index, LogId};
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// How often a log is surveyed of which even the newest segment is purged before it is read, or whose damage is
/// never twice at the same place. Each survey reads what came since the one before.
const ATTEMPTS: usize = 20;

/// What a log holds, and what is wrong with it.
pub struct Inspection {
    /// Whose log it is, if that was known: as it was given, or newer where the node joined its cluster meanwhile.
    pub identity: Option<Identity>,
    /// What a start would go on with, including what is in doubt; of a damaged log, what is known of it.
    pub recovered: Recovered,
    /// The newest entry of the log that is certainly durable. Those after it are in doubt: whole, but
    /// perhaps in the page cache only, and perhaps never acknowledged. A start makes them durable.
    pub attested: LogId,
    /// Whether the hard state is in doubt in the same way.
    pub hard_state_in_doubt: bool,
    /// The segments that count, ascending.
    pub segments: Vec<SegmentFile>,
    /// The files of the log that do not count: spares, and what a crash or a purge left behind.
    pub others: Vec<String>,
    /// Everything that is wrong, in the order in which it was found.
    pub damage: Vec<Damage>,
    /// The entries that can be read, ascending: at most one stretch unless the log is damaged. Then one may end
    /// with entries that were truncated after the damage.
    pub stretches: Vec<Stretch>,
}

/// A segment and its batches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentFile {
    /// The file's name.
    pub name: String,
    /// Its number, greater than those of the segments before it.
    pub number: u64,
    /// Tells its bytes from older ones in the same file.
    pub generation: u64,
    /// The length of the file, in bytes.
    pub bytes: u64,
    /// The number of its first batch.
    pub first_batch: u64,
    /// How many batches are whole.
    pub batches: u64,
    /// The offset after the last of them, in bytes.
    pub end: u64,
}

/// Something that is wrong with a log.
#[derive(Debug)]
pub struct Damage {
    /// What, and where.
    pub error: StoreError,
    /// Whether a start goes on all the same: everything that it hit is purged.
    pub forgiven: bool,
}

/// Entries without a gap.
pub struct Stretch {
    /// The index of the first.
    pub first: Index,
    /// The index of the last.
    pub last: Index,
    /// Reads them, each verified. Where a process uses the log and purges it, a segment may be recycled under the
    /// reader: then it says that the log is damaged, and another inspection tells the truth.
    pub reader: Arc<dyn LogReader>,
}

/// Looks at the log in this directory, of which the identity is known or not. Every batch and entry that
/// counts is verified. Takes twice the memory of a start: 16 bytes for each entry, and the greatest batch twice.
///
/// Damage is part of the result. Errors are what is none: the system refuses, a newer version wrote the log, or
/// each of its segments is purged before a single one can be read (a whole log, in the time of one survey).
pub fn inspect(disk: &dyn Disk, identity: Option<&Identity>) -> Result<Inspection, StoreError> {
    let mut before: Vec<String> = Vec::new();
    let mut seen = Seen::default();
    let mut known = Known::default();
    let mut owner = identity.copied();
    for attempt in 0..ATTEMPTS {
        // The node may have joined its cluster since.
        if attempt > 0 && owner.is_some_and(|owner| owner.cluster.is_none()) {
            owner = Some(identity::inspect(disk)?.0);
        }
        let none = Broken::default();
        let mut survey = recovery::survey(disk, owner.as_ref(), Extent::All, &mut known, none, &mut |_| {})?;
        seen.add(&survey);
        let purged = seen.settle(disk, &mut survey)?;
        let damage: Vec<String> = survey.damage.iter().map(|damage| in_full(&damage.error)).collect();
        // Even the top is gone, and what follows it was not listed.
        let outrun = purged.is_some_and(|purged| survey.listed.last().is_some_and(|(top, _)| purged >= *top));
        if !outrun && damage.iter().all(|one| before.contains(one)) {
            return inspection(disk, owner, survey, purged.is_some());
        }
        before = damage;
    }
    let source = io::Error::other(format!(
        "it changed each of {ATTEMPTS} times while it was read: even its newest segment was purged meanwhile, or \
         was damaged in another place each time; try again later, or on a copy"
    ));
    Err(StoreError::Io { action: "read the log in", path: disk.path().to_owned(), source })
}

/// The segments that were seen so far.
#[derive(Default)]
struct Seen {
    numbers: BTreeSet<u64>,
    /// The newest of the first listing: greater ones came while the log was read.
    newest: Option<u64>,
}

impl Seen {
    fn add(&mut self, survey: &Survey) {
        self.numbers.extend(survey.listed.iter().map(|(number, _)| *number));
        self.newest = self.newest.or(survey.listed.last().map(|(number, _)| *number));
    }

    /// Drops of a survey what was purged while it was made; the newest segment that was.
    fn settle(&self, disk: &dyn Disk, survey: &mut Survey) -> Result<Option<u64>, StoreError> {
        let mut purged = None;
        let mut moved_on = Vec::new();
        for damage in &survey.damage {
            let number = match &damage.error {
                StoreError::Damaged { path, .. } => named(path),
                _ => None,
            };
            let listed = number.and_then(|number| survey.listed.iter().find(|(other, _)| *other == number));
            if let Some((number, generation)) = listed
                && !is_there(disk, *number, *generation)?
            {
                purged = purged.max(Some(*number));
            }
            if let Some(gone) = damage.gone
                && (self.numbers.contains(&gone) || self.newest.is_some_and(|newest| gone > newest))
                && !exists(disk, gone)?
            {
                purged = purged.max(Some(gone));
            }
            let after = number.filter(|_| listed.is_none() && damage.gone.is_none());
            moved_on.push(match after {
                Some(number) => reaches(disk, number)?,
                None => false,
            });
        }
        // Listed, and gone before it was opened.
        for (number, generation) in &survey.listed {
            if generation.is_none() && !is_there(disk, *number, None)? {
                purged = purged.max(Some(*number));
            }
        }
        let mut moved_on = moved_on.into_iter();
        survey.damage.retain(|damage| {
            let number = match &damage.error {
                StoreError::Damaged { path, .. } => damage.gone.or_else(|| named(path)),
                _ => None,
            };
            !moved_on.next().unwrap_or(false) && number.is_none_or(|number| Some(number) > purged)
        });
        if let Some(purged) = purged {
            survey.visited.retain(|visited| visited.segment.number > purged);
            survey.lost.retain(|log| log.segments().last().is_some_and(|last| last > purged));
        }
        Ok(purged)
    }
}

/// The number of the segment that has this path.
fn named(path: &Path) -> Option<u64> {
    segment::number(path.file_name()?.to_str()?)
}

/// Whether there is a file with the name of this segment.
fn exists(disk: &dyn Disk, number: u64) -> Result<bool, StoreError> {
    Ok(numbers(disk)?.contains(&number))
}

/// Whether there is this segment by now, or a later one.
fn reaches(disk: &dyn Disk, number: u64) -> Result<bool, StoreError> {
    Ok(numbers(disk)?.last().is_some_and(|newest| *newest >= number))
}

/// The numbers of all files with the name of a segment.
fn numbers(disk: &dyn Disk) -> Result<BTreeSet<u64>, StoreError> {
    let names = disk.list().map_err(failed("list", disk.path()))?;
    Ok(names.iter().filter_map(|name| segment::number(name)).collect())
}

/// What a survey amounts to. `purged`: of the log, the beginning was purged while it was read.
fn inspection(
    disk: &dyn Disk,
    identity: Option<Identity>,
    survey: Survey,
    purged: bool,
) -> Result<Inspection, StoreError> {
    let Survey { found, damage, visited, lost, listed: _ } = survey;
    let mut damage: Vec<Damage> =
        damage.into_iter().map(|d| Damage { error: d.error, forgiven: d.forgiven }).collect();
    let mut log = found.log;
    let durable = log.shape.hard_state;
    let top = visited.last().map(|top| top.segment.clone());
    if let Some(top) = &top
        && log.segments().last() != Some(top.number)
    {
        log.join(top.clone());
    }
    let mut attested = log.shape.last.index;
    for record in &found.doubtful {
        match record {
            Record::Truncate(last) => attested = attested.min(*last),
            Record::Reset(to) => attested = attested.min(to.index),
            _ => {}
        }
        if let Err(detail) = log.replay(record) {
            let path = top.as_ref().map_or_else(|| disk.path().to_owned(), |top| top.path.clone());
            let error = StoreError::Damaged { path, offset: BLOCK, detail };
            damage.push(Damage { error, forgiven: false });
            break;
        }
    }
    let first = Index(log.first().0.saturating_sub(1)).min(log.shape.last.index);
    if purged && first > log.shape.purged.index {
        // The record that says so may be in a segment that came later.
        let upto = LogId { index: first, term: log.shape.term(first).unwrap_or_default() };
        let _ = log.replay(&Record::Purge(upto));
    }
    let recovered = log.shape.recovered();
    let index = attested.max(recovered.purged.index);
    let attested = LogId { index, term: log.shape.term(index).unwrap_or_default() };
    let segments = visited.into_iter().map(|Visited { segment, first, end }| SegmentFile {
        name: segment.name(),
        number: segment.number,
        generation: segment.generation,
        bytes: segment.size,
        first_batch: first,
        batches: end.batch + 1 - first,
        end: end.offset,
    });
    let segments: Vec<SegmentFile> = segments.collect();
    let mut others = disk.list().map_err(failed("list", disk.path()))?;
    others.retain(|name| spares::is_spare(name));
    others.extend(found.leftovers);
    others.retain(|name| segments.iter().all(|segment| segment.name != *name));
    others.sort();
    others.dedup();
    Ok(Inspection {
        identity,
        hard_state_in_doubt: recovered.hard_state != durable,
        attested,
        segments,
        others,
        damage,
        stretches: stretches(lost, log, recovered.purged.index),
        recovered,
    })
}

/// What can be read after `purged`, in each of these logs only what none of the later ones says.
fn stretches(lost: Vec<Log>, log: Log, purged: Index) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for log in lost.into_iter().chain([log]).rev() {
        let after = stretches.last().map_or(u64::MAX, |next| next.first.0 - 1);
        let last = Index(log.shape.last.index.0.min(after));
        let first = log.first().max(log.shape.purged.index.next()).max(purged.next());
        if first <= last {
            let reader = Arc::new(WalReader::new(Shared::new(log)));
            stretches.push(Stretch { first, last, reader });
        }
    }
    stretches.reverse();
    stretches
}
