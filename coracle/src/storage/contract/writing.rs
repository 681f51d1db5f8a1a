//! Writes: what they do, what they must not do, and how large they may be.

use super::case::{Case, Verdict};
use super::model::{Step, append, changes, entry, hard_state, membership, promising};
use crate::entry::MAX_PAYLOAD;
use crate::storage::{Change, ReadLogError, WriteBatch};
use coracle_core::{Index, LogId};

pub(super) fn empty(case: &mut Case<'_>) -> Verdict {
    if case.exists()? {
        return case.broken("a log exists before the first opening");
    }
    case.open()?;
    let reader = case.reader();
    if !matches!(reader.entries(Index(1), Index(9), 1), Err(ReadLogError::Missing)) {
        return case.broken("entry 1 of an empty log is not Missing");
    }
    case.run(Step::Write(WriteBatch::default()))?;
    case.run(Step::Idle)?;
    case.reopen()?;
    case.run(changes(vec![append(1, 1..=1, 10)]))?;
    case.reopen()?;
    case.close();
    if !case.exists()? {
        return case.broken("no log exists after a write");
    }
    Ok(())
}

pub(super) fn order(case: &mut Case<'_>) -> Verdict {
    case.open()?;
    case.run(changes(vec![append(1, 1..=3, 10), append(1, 4..=4, 0), append(2, 5..=9, 300)]))?;
    // Only in this order do the entries of term 3 stay, and those of term 4 not.
    case.run(changes(vec![
        Change::Truncate(Index(6)),
        append(3, 7..=9, 20),
        append(4, 10..=12, 20),
        Change::Truncate(Index(9)),
        append(5, 10..=10, 20),
    ]))?;
    case.reopen()?;
    case.run(changes(vec![Change::Reset(LogId::new(6, 20)), append(6, 21..=22, 5)]))?;
    // Entries that the same batch takes back.
    case.run(changes(vec![append(7, 23..=25, 5), Change::Reset(LogId::new(7, 25)), append(7, 26..=26, 5)]))?;
    case.reopen()
}

pub(super) fn durable(case: &mut Case<'_>) -> Verdict {
    case.open()?;
    for step in [
        Step::Write(WriteBatch { hard_state: hard_state(1, Some(1)), changes: vec![] }),
        changes(vec![Change::Append(vec![membership(1, 1)])]),
        changes(vec![append(1, 2..=5, 100)]),
        Step::Idle,
        Step::Write(WriteBatch {
            hard_state: promising(hard_state(2, None), 60),
            changes: vec![append(2, 6..=8, 5000)],
        }),
        Step::Write(WriteBatch { hard_state: hard_state(2, Some(u64::MAX / 100)), changes: vec![] }),
        changes(vec![append(2, 9..=9, 40_000)]),
        changes(vec![append(3, 10..=60, 7)]),
    ] {
        case.run(step)?;
        case.reopen()?;
    }
    // Many batches between two openings.
    for index in 61..=90 {
        case.run_unread(changes(vec![append(3, index..=index, 200)]))?;
    }
    case.reopen()
}

pub(super) fn refused(case: &mut Case<'_>) -> Verdict {
    case.open()?;
    case.run(changes(vec![append(2, 1..=9, 10)]))?;
    case.run(Step::Purge(LogId::new(2, 4)))?;
    for (step, why) in [
        (changes(vec![append(2, 11..=11, 1)]), "a gap"),
        (changes(vec![append(2, 9..=9, 1)]), "an overlap"),
        (changes(vec![append(1, 10..=10, 1)]), "a descending term"),
        (changes(vec![Change::Append(vec![entry(2, 10, 1), entry(2, 12, 1)])]), "a gap within"),
        (changes(vec![Change::Append(vec![entry(3, 10, 1), entry(2, 11, 1)])]), "a term descends within"),
        (changes(vec![Change::Truncate(Index(3))]), "a truncation of what was purged"),
        (changes(vec![Change::Reset(LogId::new(2, 3))]), "a reset to before what was purged"),
        (Step::Purge(LogId::new(2, 10)), "a purge after the end"),
        (Step::Purge(LogId::new(3, 8)), "a purge to an entry of another term"),
    ] {
        case.refuse(&step, why)?;
    }
    // A refusal is no failure: the store goes on.
    case.run(changes(vec![append(2, 10..=10, 10)]))?;
    case.reopen()?;
    case.run(changes(vec![Change::Truncate(Index(4)), append(3, 5..=6, 1)]))?;
    case.reopen()
}

pub(super) fn atomic(case: &mut Case<'_>) -> Verdict {
    case.open()?;
    case.run(Step::Write(WriteBatch {
        hard_state: hard_state(2, Some(1)),
        changes: vec![append(2, 1..=9, 10)],
    }))?;
    // Each begins with what could be done, and ends with what cannot.
    let gap = || append(4, 90..=90, 1);
    for (hard_state, list) in [
        (None, vec![append(2, 10..=12, 1), gap()]),
        (None, vec![Change::Truncate(Index(6)), append(2, 8..=8, 1)]),
        (None, vec![Change::Truncate(Index(5)), append(3, 6..=6, 1), gap()]),
        (None, vec![Change::Reset(LogId::new(3, 30)), gap()]),
        (hard_state(3, Some(2)), vec![gap()]),
        (hard_state(3, None), vec![append(3, 10..=10, 1), Change::Truncate(Index(2)), gap()]),
    ] {
        let step = Step::Write(WriteBatch { hard_state, changes: list });
        case.refuse(&step, "whose end is a gap")?;
        case.reopen()?;
    }
    case.run(changes(vec![append(2, 10..=10, 1)]))?;
    case.reopen()
}

pub(super) fn limits(case: &mut Case<'_>) -> Verdict {
    case.open()?;
    let large = |index| Change::Append(vec![entry(1, index, MAX_PAYLOAD)]);
    case.run(changes(vec![append(1, 1..=5000, 3)]))?;
    case.run(changes(vec![large(5001), append(1, 5002..=5002, 0), large(5003)]))?;
    case.reopen()?;
    case.run(Step::Purge(LogId::new(1, 5001)))?;
    case.run(changes(vec![Change::Truncate(Index(5002)), append(2, 5003..=5004, 1)]))?;
    case.reopen()
}
