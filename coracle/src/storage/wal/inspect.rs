//! A look at a log from outside: what a start would find, without changing a byte.
//!
//! The directory may be in use. A log that is written to while it is read can look damaged where it is not:
//! a batch that is half there, a segment that was recycled under the reader's eyes. But then it looks
//! different the next time: batches are written one after the other, and no number of a segment is used
//! twice. So damage counts only if two surveys, one after the other, find it at the same place.

use super::format::{BLOCK, Record};
use super::index::{Log, Shared};
use super::reader::WalReader;
use super::recovery::{self, Extent, Survey, Visited};
use super::spares;
use crate::storage::disk::{Disk, failed};
use crate::storage::{Identity, LogReader, Recovered, StoreError};
use coracle_core::{Broken, Index, LogId};
use std::io;
use std::sync::Arc;

/// How often a log is surveyed that does not hold still.
const ATTEMPTS: usize = 20;

/// What a log holds, and what is wrong with it.
pub struct Inspection {
    /// What a start would go on with, including what is in doubt; of a damaged log, what is known of it.
    pub recovered: Recovered,
    /// The newest entry of the log that is certainly durable. Those behind it are in doubt: whole, but
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
    /// with entries that were truncated behind the damage.
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
    /// The offset behind the last of them, in bytes.
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
/// counts is verified. Takes the memory of a start: 8 bytes for each entry, and the greatest batch twice.
///
/// Damage is part of the result. Errors are what is none: the system refuses, a newer version wrote the log, or
/// it changes faster than it can be read.
pub fn inspect(disk: &dyn Disk, identity: Option<&Identity>) -> Result<Inspection, StoreError> {
    let mut before: Vec<String> = Vec::new();
    let mut moved = String::new();
    for _ in 0..ATTEMPTS {
        let survey = match recovery::survey(disk, identity, Extent::All, Broken::default(), &mut |_| {}) {
            Ok(survey) => survey,
            // Listed, and gone before it was opened.
            Err(StoreError::Io { source, path, .. }) if source.kind() == io::ErrorKind::NotFound => {
                moved = format!("{} came and went", path.display());
                continue;
            }
            Err(error) => return Err(error),
        };
        let damage: Vec<String> = survey.damage.iter().map(|damage| damage.error.to_string()).collect();
        if damage.iter().all(|one| before.contains(one)) {
            return inspection(disk, survey);
        }
        moved = damage.into_iter().find(|one| !before.contains(one)).unwrap_or_default();
        before = survey.damage.into_iter().map(|damage| damage.error.to_string()).collect();
    }
    let source = io::Error::other(format!(
        "it changed each of {ATTEMPTS} times while it was read (the last time, {moved}); try again later, or \
         on a copy"
    ));
    Err(StoreError::Io { action: "read the log in", path: disk.path().to_owned(), source })
}

fn inspection(disk: &dyn Disk, survey: Survey) -> Result<Inspection, StoreError> {
    let Survey { found, damage, visited, lost } = survey;
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
        hard_state_in_doubt: recovered.hard_state != durable,
        attested,
        segments,
        others,
        damage,
        stretches: stretches(lost, log, recovered.purged.index),
        recovered,
    })
}

/// What can be read behind `purged`, in each of these logs only what none of the later ones says.
fn stretches(lost: Vec<Log>, log: Log, purged: Index) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for log in lost.into_iter().chain([log]).rev() {
        let behind = stretches.last().map_or(u64::MAX, |next| next.first.0 - 1);
        let last = Index(log.shape.last.index.0.min(behind));
        let first = log.first().max(log.shape.purged.index.next()).max(purged.next());
        if first <= last {
            let reader = Arc::new(WalReader::new(Shared::new(log)));
            stretches.push(Stretch { first, last, reader });
        }
    }
    stretches.reverse();
    stretches
}
