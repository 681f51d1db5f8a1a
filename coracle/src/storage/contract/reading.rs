//! Readers: alone, and beside the writer.

use super::case::{Case, Verdict};
use super::model::{Step, changes, entry};
use crate::entry::{Entry, Kind, Stamp};
use crate::storage::{Change, LogReader, ReadLogError};
use coracle_core::{Index, LogId};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Batches written beside readers.
const ROUNDS: u64 = 60;

/// Entries in each of these batches.
const GROUP: u64 = 6;

/// Whatever the limit, wherever the entries lie, and however the range falls.
pub(super) fn reading(case: &mut Case<'_>) -> Verdict {
    case.open()?;
    let sizes = [10, 5000, 0, 20_000, 64, 4032, 4096, 1, 1, 1, 9000, 70_000, 3];
    let entries: Vec<Entry> =
        (1..).zip(sizes).map(|(index, size)| entry(1 + index / 4, index, size)).collect();
    for some in entries.chunks(3) {
        case.run_unread(changes(vec![Change::Append(some.to_vec())]))?;
    }
    ranges(case)?;
    case.reopen()?;
    ranges(case)?;
    case.run(Step::Purge(entries[3].id()))?;
    ranges(case)
}

/// All ranges, also those that begin too early, end too late, or are empty.
fn ranges(case: &Case<'_>) -> Verdict {
    let reader = case.reader();
    let after = case.model.last().index.0 + 2;
    for max_bytes in [0, 1, 100, 200, 5064, 5138, 30_000, usize::MAX] {
        for first in 0..=after {
            for last in first.saturating_sub(1)..=after {
                let (from, to) = (Index(first), Index(last));
                let want = case.model.read(from, to, max_bytes);
                let have = reader.entries(from, to, max_bytes);
                let purged = from <= case.model.purged.index;
                match (&have, want) {
                    (Ok(have), Some(want)) if have == want => {}
                    (Err(ReadLogError::Purged), None) if purged => {}
                    (Err(ReadLogError::Missing), None) if !purged => {}
                    _ => {
                        let have = have.map(|entries| entries.iter().map(Entry::id).collect::<Vec<_>>());
                        let want = want.map(|entries| entries.iter().map(Entry::id).collect::<Vec<_>>());
                        return case.broken(format!(
                            "a read from {first} to {last} in {max_bytes} bytes gives {have:?} instead of {want:?}"
                        ));
                    }
                }
            }
        }
    }
    Ok(())
}

/// What readers may rely on while the writer works.
#[derive(Default)]
struct Board {
    done: AtomicBool,
    /// No entry up to this index is truncated any more.
    kept: AtomicU64,
    /// No entry after this index is purged yet.
    purging: AtomicU64,
}

/// Every batch cuts the one before in its middle and writes a whole group, so a log that does not end with
/// the last entry of a group is a batch seen in parts.
pub(super) fn beside(case: &mut Case<'_>) -> Verdict {
    case.open()?;
    case.run(changes(vec![group(1, 1)]))?;
    case.note(format!("{ROUNDS} batches of a truncation and an append, and purges, beside two readers"));
    let board = Board::default();
    let readers: Vec<_> = (0..2).map(|_| case.reader()).collect();
    let problem = std::thread::scope(|scope| {
        let watching: Vec<_> =
            readers.iter().map(|reader| scope.spawn(|| watch(&**reader, &board))).collect();
        let written = write(case, &board);
        board.done.store(true, Ordering::SeqCst);
        let seen = watching
            .into_iter()
            .filter_map(|thread| thread.join().unwrap_or_else(|_| Some("a reader panicked".into())));
        let seen: Vec<String> = seen.collect();
        written.err().map(Err).or(seen.into_iter().next().map(Ok))
    });
    match problem {
        None => case.reopen(),
        Some(Err(violation)) => Err(violation),
        Some(Ok(detail)) => case.broken(detail),
    }
}

fn write(case: &mut Case<'_>, board: &Board) -> Verdict {
    let reader = case.reader();
    for round in 2..ROUNDS {
        let keep = case.model.last().index.0 - GROUP / 2;
        board.kept.store(keep, Ordering::SeqCst);
        let step = changes(vec![Change::Truncate(Index(keep)), group(round, keep + 1)]);
        if let Err(error) = step.run(case.store()) {
            return case.broken(format!("{step} failed: {error}"));
        }
        case.model.apply(&step);
        let last = case.model.last();
        match reader.entries(last.index, last.index, 1) {
            Ok(entries) if entries.last().map(Entry::id) == Some(last) => {}
            other => return case.broken(format!("entry {last} was written, and the reader gives {other:?}")),
        }
        if round % 7 == 0 {
            let upto = case.model.entries[case.model.entries.len() / 2].id();
            board.purging.store(upto.index.0, Ordering::SeqCst);
            let step = Step::Purge(upto);
            if let Err(error) = step.run(case.store()) {
                return case.broken(format!("{step} failed: {error}"));
            }
            case.model.apply(&step);
        }
    }
    Ok(())
}

/// Entries of one batch; each says which one of the batch it is.
fn group(round: u64, first: u64) -> Change {
    let entry = |place: u64| {
        let stamp = Stamp { session: round, sequence: place, ..Stamp::default() };
        Entry::new(LogId::new(round, first + place), Kind::Command, stamp, &[round as u8; 700])
    };
    Change::Append((0..GROUP).map(entry).collect())
}

/// Reads again and again; says what it should not have seen.
fn watch(reader: &dyn LogReader, board: &Board) -> Option<String> {
    let mut first = 1;
    while !board.done.load(Ordering::SeqCst) {
        let kept = board.kept.load(Ordering::SeqCst);
        let read = reader.entries(Index(first), Index(u64::MAX), usize::MAX);
        let purging = board.purging.load(Ordering::SeqCst);
        match read {
            Ok(entries) => {
                if !(first..).zip(&entries).all(|(index, entry)| entry.index().0 == index) {
                    return Some(format!(
                        "a reader was given entries that are not contiguous from {first} on"
                    ));
                }
                let last = entries.last()?;
                if last.stamp().sequence != GROUP - 1 {
                    return Some(format!("a reader saw the log end with {}, amid a batch", last.id()));
                }
            }
            Err(ReadLogError::Purged) if first <= purging => first += 1,
            Err(ReadLogError::Missing) if first > kept => {}
            Err(error) => return Some(format!("a reader was told of entry {first}: {error}")),
        }
    }
    None
}
