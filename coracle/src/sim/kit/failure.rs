//! What is wrong with a machine, for people.

use super::small::Small;
use crate::sim::Violation;
use crate::sim::guest::{Call, Finding, Guests, Program, Replay, Step};
use crate::sim::shrink::Shrunk;
use coracle_core::LogId;
use std::fmt;

/// The rules that a machine may break, each with its meaning. What else a failure may name is an invariant of the library:
/// S1 to S30 and L1 to L11.
pub const RULES: &[(&str, &str)] = &[
    ("determinism", "two machines that were given the same commands differ"),
    ("processes", "in another process the machine does something else with the same commands"),
    ("snapshot", "a machine that was restored from a snapshot is not what the first one is"),
    ("encoding", "a command, a reply, a query or an answer does not survive being encoded"),
    ("panic", "the machine, or a client, panics"),
    ("always", "a condition that should hold after every entry does not"),
    ("end", "a condition that should hold at the end does not"),
    ("model", "what the clients saw is not linearizable: the model could not have said it"),
    ("idle", "no command was ever applied, so nothing was tested"),
];

/// A machine that breaks a rule: which one, at which entry, and the shortest way there that was found.
#[non_exhaustive]
pub struct Failure {
    /// The seed that shows it.
    pub seed: u64,
    /// One of [`RULES`], or an invariant of the library.
    pub rule: &'static str,
    /// What was seen.
    pub detail: String,
    /// The entry that shows it, if one does.
    pub entry: Option<LogId>,
    /// The command in that entry.
    pub command: Option<String>,
    /// The fewest calls that show it on machines without a cluster, in their order; the last one shows it. Empty if it takes
    /// a cluster.
    pub calls: Vec<String>,
    /// Otherwise, what happens in the cluster, with as few faults as were found to be enough.
    pub story: Vec<String>,
}

impl Failure {
    /// One without an entry.
    pub(super) fn new(seed: u64, rule: &'static str, detail: String) -> Failure {
        Failure { seed, rule, detail, entry: None, command: None, calls: Vec::new(), story: Vec::new() }
    }

    /// One that a run showed.
    pub(super) fn of(seed: u64, violation: Violation, guests: &Guests) -> Failure {
        let Violation { invariant, detail } = violation;
        let mut failure = Failure::new(seed, invariant, detail);
        if let Some(Finding { id, detail, .. }) = guests.finding() {
            // Of several timers that one entry has fire, the last one that did.
            let log = guests.with(|record| record.commands().into_iter().rfind(|it| it.id == id));
            failure.entry = Some(id).filter(|id| *id != LogId::ZERO);
            failure.detail = detail;
            failure.command = log.map(|it| guests.program.call(&it.call));
        }
        failure
    }

    /// It takes only these calls.
    pub(super) fn made_small(self, small: &Small, program: &dyn Program) -> Failure {
        let Small { steps, wrong } = small;
        let commands = steps.iter().rev().find_map(|step| match step {
            Step::Command(applied) => Some(applied),
            Step::Query(_) => None,
        });
        Failure {
            rule: wrong.rule,
            detail: wrong.detail.clone(),
            entry: commands.map(|applied| applied.id),
            command: commands.map(|it| program.call(&it.call)),
            calls: in_words(steps, program),
            ..self
        }
    }

    /// It takes this conversation.
    pub(super) fn told(self, shrunk: &Shrunk) -> Failure {
        let Violation { detail, .. } = &shrunk.violation;
        Failure { detail: detail.clone(), story: shrunk.conversation(), ..self }
    }

    fn meaning(&self) -> &'static str {
        RULES
            .iter()
            .find(|(rule, _)| *rule == self.rule)
            .map_or("the library is wrong", |(_, meaning)| meaning)
    }
}

/// The steps of one machine, with what it says to all but the last.
fn in_words(steps: &[Step], program: &dyn Program) -> Vec<String> {
    let mut machine = program.machine();
    let (mut now, mut replay) = (crate::QueryContext::new(LogId::ZERO, 0), Replay::default());
    let said = |said: Result<Vec<u8>, _>, call: &Call| said.map(|said| program.answer(call, &said)).ok();
    let mut lines = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let call = step.call();
        let (place, answer) = match step {
            Step::Command(applied) => {
                now = crate::QueryContext::new(applied.id, applied.cluster_time);
                let mut context = replay.context(applied);
                let reply = machine.apply(&mut context, &call);
                replay.took(context);
                (format!("entry {}", applied.id), said(reply, &call))
            }
            Step::Query(query) => ("then".to_owned(), said(machine.query(&now, query), &call)),
        };
        let words = program.call(&call);
        lines.push(match answer.filter(|_| number + 1 < steps.len()) {
            Some(answer) => format!("{place:>12}  {words}  ->  {answer}"),
            None => format!("{place:>12}  {words}"),
        });
    }
    lines
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} (seed {})", self.rule, self.meaning(), self.seed)?;
        match (&self.entry, &self.command) {
            (Some(entry), Some(command)) => writeln!(f, "At entry {entry}, {command}:")?,
            (Some(entry), None) => writeln!(f, "After entry {entry}:")?,
            _ => {}
        }
        writeln!(f, "    {}", self.detail.replace('\n', "\n    "))?;
        if !self.calls.is_empty() {
            let takes = match self.calls.len() {
                1 => "one call".to_owned(),
                calls => format!("{calls} calls, of which the last one shows it"),
            };
            writeln!(f, "No cluster is needed to see this, but {takes}:")?;
        } else if !self.story.is_empty() {
            writeln!(f, "This happens in the cluster, with as few faults as were found to be enough:")?;
        }
        self.calls.iter().chain(&self.story).try_for_each(|line| writeln!(f, "    {line}"))
    }
}

/// As it is displayed, since it is what `unwrap` shows.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{self}")
    }
}

impl std::error::Error for Failure {}
