//! Openings: of a directory in use, by a stranger, after a kill, and of damaged files.

use super::case::{Case, IDENTITY, Verdict};
use super::files;
use super::model::{Step, append, changes, hard_state, read_all};
use crate::entry::{Entry, Kind, Stamp};
use crate::storage::{Change, Identity, ReadLogError, StoreError, WriteBatch};
use coracle_core::{Incarnation, Index, LogId, NodeId};

pub(super) fn exclusive(case: &mut Case<'_>) -> Verdict {
    case.open()?;
    case.run(changes(vec![append(1, 1..=3, 10)]))?;
    case.note("open it again, beside the first");
    match case.try_open(&case.dir, IDENTITY) {
        Err(StoreError::Locked { .. }) => {}
        Err(error) => return case.broken(format!("the second opening is not Locked, but fails: {error}")),
        Ok(_) => return case.broken("the second opening is not Locked, but succeeds"),
    }
    case.run(changes(vec![append(1, 4..=5, 10)]))?;
    let left_over = case.reader();
    case.reopen()?;
    // It may still read or say that the store is gone, but it has nothing wrong to give.
    if let Ok(entries) = left_over.entries(Index(1), Index(9), usize::MAX)
        && entries != case.model.entries
    {
        return case.broken("a reader of a store that was dropped gives other entries");
    }
    case.run(changes(vec![append(1, 6..=6, 10)]))?;
    drop(left_over);
    case.reopen()
}

pub(super) fn bound(case: &mut Case<'_>) -> Verdict {
    case.open()?;
    let batch = WriteBatch { hard_state: hard_state(2, Some(3)), changes: vec![append(1, 1..=3, 10)] };
    case.run(Step::Write(batch))?;
    case.close();
    for (who, stranger) in [
        ("another node", Identity { node: NodeId(4), ..IDENTITY }),
        ("another incarnation", Identity { incarnation: Incarnation(1), ..IDENTITY }),
    ] {
        case.note(format!("open it for {who}"));
        match case.try_open(&case.dir, stranger) {
            Err(StoreError::Identity { .. }) => {}
            Err(error) => return case.broken(format!("the opening fails, but not with Identity: {error}")),
            Ok(_) => return case.broken("the opening succeeds"),
        }
    }
    case.open()
}

/// What is in the files while the store is open is what a killed process leaves.
pub(super) fn killed(case: &mut Case<'_>) -> Verdict {
    case.open()?;
    let steps = [
        Step::Write(WriteBatch { hard_state: hard_state(1, Some(1)), changes: vec![append(1, 1..=9, 500)] }),
        changes(vec![append(1, 10..=30, 3000)]),
        Step::Write(WriteBatch { hard_state: hard_state(2, None), changes: vec![] }),
        changes(vec![Change::Truncate(Index(20)), append(2, 21..=22, 10)]),
        Step::Purge(LogId::new(1, 15)),
        changes(vec![append(2, 23..=23, 10)]),
        changes(vec![Change::Reset(LogId::new(3, 40)), append(3, 41..=41, 10)]),
        changes(vec![append(3, 42..=42, 10)]),
    ];
    for step in steps {
        case.run(step)?;
        in_copy(case, "copy the files of the open store, and open the copy", |case, copy| {
            match case.try_open(copy, IDENTITY) {
                Ok((store, recovered)) => case.compare(&recovered, &*store.reader()),
                Err(error) => case.broken(format!("the opening failed: {error}")),
            }
        })?;
    }
    Ok(())
}

/// Works on a copy of the store's files.
fn in_copy(
    case: &mut Case<'_>,
    what: &str,
    work: impl FnOnce(&mut Case<'_>, &std::path::Path) -> Verdict,
) -> Verdict {
    case.note(what);
    let copy = case.dir.with_extension("copy");
    let result = match files::copy(&case.dir, &copy) {
        Ok(()) => work(case, &copy),
        Err(error) => case.broken(format!("the files cannot be copied: {error}")),
    };
    files::remove(&copy);
    result
}

/// A bit of an entry flips in every file that holds its bytes as they are. A store that transforms them
/// (compresses, encrypts) shows nothing here.
pub(super) fn damage(case: &mut Case<'_>) -> Verdict {
    case.open()?;
    let mark: Vec<u8> = (0..200u8).map(|at| at.wrapping_mul(167) ^ 0x5a).collect();
    let marked = Entry::new(LogId::new(1, 6), Kind::Command, Stamp::default(), &mark);
    case.run(changes(vec![append(1, 1..=5, 300)]))?;
    case.run(changes(vec![Change::Append(vec![marked])]))?;
    case.run(changes(vec![append(1, 7..=12, 300)]))?;
    case.run(changes(vec![append(1, 13..=14, 300)]))?;
    case.run(Step::Idle)?;
    case.close();
    in_copy(case, "flip a bit of entry 6 in a copy of the files, and open that", |case, copy| {
        let files = files::list(copy).and_then(|files| {
            files.iter().try_fold(0, |sum, file| files::flip(file, &mark).map(|count| sum + count))
        });
        match files {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) => return case.broken(format!("the files cannot be changed: {error}")),
        }
        let Ok((store, _)) = case.try_open(copy, IDENTITY) else { return Ok(()) };
        match read_all(&*store.reader(), Index(1), 1 << 20) {
            Err(ReadLogError::Store(_)) => Ok(()),
            Err(error) => case.broken(format!("it opens, and reading says only: {error}")),
            Ok(entries) if entries == case.model.entries => Ok(()),
            Ok(entries) if entries.len() < case.model.entries.len() => {
                case.broken(format!("it opens as a log of {} entries instead of 14", entries.len()))
            }
            Ok(_) => case.broken("it opens, and the changed entry is given out"),
        }
    })
}
