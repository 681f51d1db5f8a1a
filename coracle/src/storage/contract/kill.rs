//! A life that is ended by `kill -9`, again and again: for a test with a process of its own.
//!
//! The child calls [`write_until_killed`] and is killed whenever the parent likes; the parent reads what it
//! printed and calls [`check_killed`]. Then the next child goes on in the same directory.

use super::case::{Case, IDENTITY};
use super::model::{Model, Step, append, hard_state, membership};
use super::{Clause, Violation};
use crate::storage::{Change, Engine, StoreError, WriteBatch};
use coracle_core::{Index, LogId};
use std::convert::Infallible;
use std::io::Write;
use std::path::Path;

/// Writes round after round, and prints the number of each once it is durable, a line each. Goes on where
/// the last run ended. Returns only what went wrong.
pub fn write_until_killed(
    engine: &dyn Engine,
    dir: &Path,
    out: &mut dyn Write,
) -> Result<Infallible, StoreError> {
    let mut store = engine.open(dir, IDENTITY)?;
    let recovered = store.load(&mut |_| {})?;
    let mut round = recovered.hard_state.term.0;
    let mut model = Model::default();
    (1..=round).for_each(|round| steps(&model, round).iter().for_each(|step| model.apply(step)));
    // The last round may have been cut before its purge; to purge again changes nothing.
    if model.purged != LogId::ZERO {
        store.purge(model.purged)?;
    }
    loop {
        round += 1;
        for step in steps(&model, round) {
            step.run(&mut *store)?;
            model.apply(&step);
        }
        let printed = writeln!(out, "{round}").and_then(|()| out.flush());
        printed.map_err(|source| StoreError::Io { action: "print to", path: "stdout".into(), source })?;
    }
}

/// Opens what a killed process left: everything up to the round that it acknowledged must be there, and of
/// later ones whole steps. Returns the round that the store is at.
pub fn check_killed(engine: &dyn Engine, dir: &Path, acknowledged: u64) -> Result<u64, Violation> {
    let mut case = Case::of(engine, dir, Clause::Killed);
    case.note(format!("rounds of writes, of which {acknowledged} were acknowledged, and a kill"));
    let (store, recovered) =
        case.try_open(dir, IDENTITY).or_else(|error| case.broken(format!("the opening failed: {error}")))?;
    let round = recovered.hard_state.term.0;
    if round < acknowledged || round > acknowledged + 1 {
        return case.broken(format!("the hard state is of round {round}"));
    }
    for round in 1..round {
        steps(&case.model, round).iter().for_each(|step| case.model.apply(step));
    }
    let mut verdict = Ok(());
    for step in steps(&case.model, round) {
        case.model.apply(&step);
        verdict = case.compare(&recovered, &*store.reader());
        if verdict.is_ok() && round > acknowledged {
            break;
        }
    }
    verdict.map(|()| round)
}

/// What is done in a round: a batch of everything, and now and then a purge. The round is the term of the
/// hard state and of the entries.
fn steps(model: &Model, round: u64) -> Vec<Step> {
    let last = model.last().index.0;
    let keep =
        if round.is_multiple_of(3) { last.saturating_sub(round % 4).max(model.purged.index.0) } else { last };
    let mut list = vec![];
    if keep < last {
        list.push(Change::Truncate(Index(keep)));
    }
    if round.is_multiple_of(7) {
        list.push(Change::Append(vec![membership(round, keep + 1)]));
    }
    let from = keep + 1 + u64::from(round.is_multiple_of(7));
    list.push(append(round, from..=from + round % 5, (round % 11 * 90) as usize));
    let batch = WriteBatch { hard_state: hard_state(round, Some(1 + round % 3)), changes: list };
    let mut steps = vec![Step::Write(batch)];
    // Fewer than come, so the log grows for as long as it is let live; and none that this round truncates.
    if round.is_multiple_of(10) && model.entries.len() > 40 {
        steps.push(Step::Purge(model.entries[4].id()));
    }
    steps
}
