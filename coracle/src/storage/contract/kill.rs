//! A life that is ended by `kill -9`, again and again: for a test with a process of its own.
//!
//! The child calls [`write_until_killed`]. The parent starts it as a [`Victim`], kills it when it likes, and calls
//! [`check_killed`]. Then the next child goes on in the same directory.

use super::case::{Case, IDENTITY};
use super::model::{Model, Step, append, hard_state, membership};
use super::{Clause, Violation};
use crate::storage::{Change, Engine, StoreError, WriteBatch};
use coracle_core::{Index, LogId};
use std::convert::Infallible;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

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

/// A process that runs [`write_until_killed`], as its parent sees it. Killed when dropped.
#[derive(Debug)]
pub struct Victim {
    process: Child,
    said: BufReader<ChildStdout>,
    /// The newest round that it printed.
    acknowledged: u64,
    /// The last line that was no round.
    words: String,
}

impl Victim {
    /// Starts it. Its standard output must be what `write_until_killed` prints; lines of its own, and words before a
    /// round in the same line, do no harm.
    pub fn start(command: &mut Command) -> io::Result<Victim> {
        let mut process =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let said = process.stdout.take().ok_or_else(|| io::Error::other("it has no standard output"))?;
        Ok(Victim { process, said: BufReader::new(said), acknowledged: 0, words: String::new() })
    }

    /// Waits until it has acknowledged this round. An error has its last words, if it ends before.
    pub fn wait_for(&mut self, round: u64) -> io::Result<()> {
        while self.acknowledged < round {
            if !self.listen()? {
                let Victim { acknowledged, words, .. } = self;
                return Err(io::Error::other(format!(
                    "it ended after round {acknowledged} and said: {words}"
                )));
            }
        }
        Ok(())
    }

    /// Kills it (SIGKILL), if it lives; returns the newest round that it acknowledged.
    pub fn kill(mut self) -> io::Result<u64> {
        self.process.kill()?;
        self.process.wait()?;
        while self.listen()? {}
        Ok(self.acknowledged)
    }

    /// Takes in a line. False after the last one; one that was cut short does not count.
    fn listen(&mut self) -> io::Result<bool> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        let Some(line) = line.strip_suffix('\n') else { return Ok(false) };
        match line.rsplit(' ').next().map(str::parse) {
            Some(Ok(round)) => self.acknowledged = round,
            _ if line.is_empty() => {}
            _ => line.clone_into(&mut self.words),
        }
        Ok(true)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
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
