//! Truncation, purge and reset: what they take, and what they must leave.

use super::case::{Case, Verdict};
use super::model::{Step, append, changes, entry, hard_state as state, membership, promising};
use crate::storage::{Change, WriteBatch};
use coracle_core::{Index, LogId};

pub(super) fn truncation(case: &mut Case<'_>) -> Verdict {
    case.open()?;
    case.run(changes(vec![append(1, 1..=20, 3000)]))?;
    case.run(changes(vec![Change::Truncate(Index(20))]))?;
    case.run(changes(vec![Change::Truncate(Index(99))]))?;
    case.run(changes(vec![Change::Truncate(Index(15))]))?;
    case.reopen()?;
    // What was cut off must not come back under what is written over it.
    case.run(changes(vec![append(2, 16..=16, 9)]))?;
    case.reopen()?;
    case.run(changes(vec![Change::Truncate(Index(10))]))?;
    case.run(changes(vec![append(3, 11..=12, 10)]))?;
    case.run(changes(vec![Change::Truncate(Index(11))]))?;
    case.run(changes(vec![append(3, 12..=30, 100)]))?;
    case.reopen()?;
    case.run(changes(vec![Change::Truncate(Index(0))]))?;
    case.reopen()?;
    case.run(changes(vec![append(4, 1..=2, 10)]))?;
    case.reopen()
}

pub(super) fn purge(case: &mut Case<'_>) -> Verdict {
    case.open()?;
    for term in 1..=3 {
        let first = term * 10 - 9;
        case.run(changes(vec![append(term, first..=first + 9, 2000)]))?;
    }
    case.run(Step::Purge(LogId::new(1, 7)))?;
    case.reopen()?;
    case.run(Step::Purge(LogId::new(1, 3)))?;
    case.run(Step::Purge(LogId::new(1, 7)))?;
    case.reopen()?;
    case.run(Step::Purge(LogId::new(2, 20)))?;
    case.run(Step::Idle)?;
    case.reopen()?;
    // A truncation down to what was purged, and on from there.
    case.run(changes(vec![Change::Truncate(Index(20))]))?;
    case.run(changes(vec![append(4, 21..=25, 10)]))?;
    case.reopen()?;
    case.run(Step::Purge(LogId::new(4, 25)))?;
    case.reopen()?;
    case.run(changes(vec![append(4, 26..=26, 10)]))?;
    case.run(Step::Purge(LogId::new(4, 26)))?;
    case.run(changes(vec![append(5, 27..=28, 10)]))?;
    case.reopen()
}

pub(super) fn reset(case: &mut Case<'_>) -> Verdict {
    case.open()?;
    case.run(changes(vec![append(1, 1..=20, 1000)]))?;
    // To an index within the log, to one after it, to the same, and of an empty log.
    for to in [LogId::new(2, 10), LogId::new(3, 50), LogId::new(3, 50), LogId::new(4, 60)] {
        case.run(changes(vec![Change::Reset(to)]))?;
        case.reopen()?;
    }
    case.run(changes(vec![append(4, 61..=70, 1000)]))?;
    case.run(Step::Purge(LogId::new(4, 63)))?;
    case.run(changes(vec![Change::Reset(LogId::new(5, 65))]))?;
    case.run(changes(vec![append(5, 66..=67, 10)]))?;
    case.reopen()?;
    case.run(changes(vec![append(5, 68..=68, 10)]))?;
    case.reopen()
}

fn kept(case: &mut Case<'_>, step: Step) -> Verdict {
    case.run(step)?;
    case.reopen()
}

pub(super) fn hard_state(case: &mut Case<'_>) -> Verdict {
    case.open()?;
    case.run(Step::Write(WriteBatch {
        hard_state: promising(state(9, Some(2)), 30),
        changes: vec![append(1, 1..=40, 2000)],
    }))?;
    kept(case, changes(vec![Change::Truncate(Index(30))]))?;
    kept(case, Step::Purge(LogId::new(1, 10)))?;
    kept(case, Step::Purge(LogId::new(1, 30)))?;
    kept(case, changes(vec![Change::Reset(LogId::new(2, 50)), append(2, 51..=80, 2000)]))?;
    // A hard state of the same batch, and one that follows at once.
    let batch = WriteBatch {
        hard_state: promising(state(11, None), u64::MAX),
        changes: vec![Change::Truncate(Index(60))],
    };
    kept(case, Step::Write(batch))?;
    case.run_unread(Step::Write(WriteBatch { hard_state: state(12, Some(7)), changes: vec![] }))?;
    kept(case, Step::Purge(LogId::new(2, 60)))
}

pub(super) fn outline(case: &mut Case<'_>) -> Verdict {
    case.open()?;
    let entries = vec![membership(1, 1), entry(1, 2, 9), membership(2, 3), entry(4, 4, 9), membership(4, 5)];
    case.run(changes(vec![Change::Append(entries)]))?;
    case.reopen()?;
    for upto in [LogId::new(1, 2), LogId::new(2, 3), LogId::new(4, 4)] {
        case.run(Step::Purge(upto))?;
        case.reopen()?;
    }
    case.run(changes(vec![Change::Truncate(Index(4))]))?;
    case.reopen()?;
    case.run(changes(vec![append(6, 5..=6, 1), Change::Append(vec![membership(7, 7), membership(8, 8)])]))?;
    case.reopen()?;
    case.run(Step::Purge(LogId::new(8, 8)))?;
    case.reopen()?;
    case.run(changes(vec![append(8, 9..=9, 1), Change::Reset(LogId::new(9, 12)), append(9, 13..=13, 1)]))?;
    case.reopen()
}
