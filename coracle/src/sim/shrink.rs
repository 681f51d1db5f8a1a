//! Makes a failure small: the same broken invariant with as few things going wrong as possible.
//!
//! A run is a list of [`Decision`]s. The shrinker repeats it with fewer of them, over and over: first with
//! fewer nodes and steps, then without whole kinds (no drops, no freezes, ...) or those of one node or
//! client, then without halves, quarters and single ones (delta debugging). Whatever still breaks the same invariant is kept. What is left reads as a
//! conversation.

use super::chance::{Decision, Kind};
use super::{Options, Report, Violation, run};
use std::fmt;

/// Runs at most, so that it ends within seconds.
const PATIENCE: usize = 2500;

/// A failure, made small.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// What replays it: keep this as a regression test.
    pub options: Options,
    /// What it breaks.
    pub violation: Violation,
    /// How many things were decided in the run as it was found.
    pub before: usize,
    /// What is left, in the order in which it happens.
    pub decisions: Vec<Decision>,
    /// Everything that happens, a line each.
    pub story: Vec<String>,
    /// How many runs it took.
    pub runs: usize,
}

/// Shrinks the run of these options. None if it breaks nothing.
pub fn shrink(options: &Options) -> Option<Shrunk> {
    shrink_with(options, &run)
}

fn shrink_with(options: &Options, run: &dyn Fn(Options) -> Report) -> Option<Shrunk> {
    let options = Options { remember: true, story: false, ..options.clone() };
    let found = run(options.clone());
    let violation = found.violation.clone()?;
    let before = found.decisions.len();
    let mut search = Search { run, best: options, decisions: found.decisions, violation, runs: 1 };
    search.fewer_nodes();
    search.fewer_steps();
    search.fewer_kinds();
    search.fewer_decisions();
    let options =
        Options { only: Some(search.decisions.clone()), remember: false, story: false, ..search.best };
    let story = run(Options { story: true, ..options.clone() }).story;
    Some(Shrunk {
        options,
        violation: search.violation,
        before,
        decisions: search.decisions,
        story,
        runs: search.runs,
    })
}

struct Search<'a> {
    run: &'a dyn Fn(Options) -> Report,
    best: Options,
    /// What happens in the best run.
    decisions: Vec<Decision>,
    violation: Violation,
    runs: usize,
}

impl Search<'_> {
    /// Tries other options; keeps them if the same invariant breaks.
    fn attempt(&mut self, options: Options) -> bool {
        if self.runs >= PATIENCE {
            return false;
        }
        self.runs += 1;
        let Report { violation, decisions, .. } = (self.run)(options.clone());
        match violation {
            Some(violation) if violation.invariant == self.violation.invariant => {
                self.best = options;
                self.decisions = decisions;
                self.violation = violation;
                true
            }
            _ => false,
        }
    }

    fn with(&mut self, only: Vec<Decision>) -> bool {
        self.attempt(Options { only: Some(only), ..self.best.clone() })
    }

    fn fewer_nodes(&mut self) {
        for nodes in 3..=6 {
            let fewer = self.best.nodes.is_none_or(|now| nodes < now);
            if fewer && self.attempt(Options { nodes: Some(nodes), ..self.best.clone() }) {
                break;
            }
        }
    }

    /// An invariant of the end (liveness, the clients' history) may need a short life only.
    fn fewer_steps(&mut self) {
        let mut cut = self.best.steps / 2;
        while cut > 0 {
            let steps = self.best.steps.saturating_sub(cut);
            if steps == 0 || !self.attempt(Options { steps, ..self.best.clone() }) {
                cut /= 2;
            }
        }
    }

    fn fewer_kinds(&mut self) {
        for &kind in Kind::ALL {
            let without: Vec<_> = self.decisions.iter().copied().filter(|d| d.kind != kind).collect();
            if without.len() == self.decisions.len() || self.with(without) {
                continue;
            }
            // Not at all nodes, clients or links, then.
            for who in 0..=u8::MAX {
                let this = |d: &Decision| d.kind == kind && d.who == who;
                let without: Vec<_> = self.decisions.iter().copied().filter(|d| !this(d)).collect();
                if without.len() < self.decisions.len() {
                    self.with(without);
                }
            }
        }
    }

    fn fewer_decisions(&mut self) {
        let mut size = self.decisions.len().div_ceil(2);
        while size > 0 {
            let mut end = self.decisions.len();
            let mut removed = false;
            // From the end: what comes last is needed least.
            while end > 0 {
                let start = end.saturating_sub(size);
                let mut without = self.decisions.clone();
                without.drain(start..end.min(without.len()));
                removed |= self.with(without);
                end = start.min(self.decisions.len());
            }
            if self.runs >= PATIENCE || (size == 1 && !removed) {
                break;
            }
            size = if size == 1 { 1 } else { size / 2 };
        }
    }
}

/// Written as it is kept in a test: seed, nodes, steps, and what goes wrong.
impl fmt::Display for Shrunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { seed, nodes, steps, .. } = &self.options;
        let Violation { invariant, detail } = &self.violation;
        writeln!(f, "seed {seed} breaks {invariant}: {detail}")?;
        writeln!(
            f,
            "of {} decisions, {} are left after {} runs:",
            self.before,
            self.decisions.len(),
            self.runs
        )?;
        let only: Vec<String> = self.decisions.iter().map(Decision::to_string).collect();
        writeln!(f, "  seed {seed}, nodes {nodes:?}, steps {steps}, only \"{}\"", only.join(" "))?;
        for line in &self.story {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a run for broken if a client asked after a crash.
    fn asked_after_a_crash(options: Options) -> Report {
        let mut report = run(options);
        let crash = report.decisions.iter().position(|decision| decision.kind == Kind::Crash);
        let ask = report.decisions.iter().rposition(|decision| decision.kind == Kind::Ask);
        if crash.zip(ask).is_some_and(|(crash, ask)| crash < ask) {
            report.violation = Some(Violation { invariant: "test", detail: String::new() });
        }
        report
    }

    #[test]
    fn what_has_nothing_to_do_with_it_goes() {
        let broken = |seed: &u64| {
            let options = Options { remember: true, ..Options::new(*seed) };
            asked_after_a_crash(options).violation.is_some()
        };
        let seed = (0..).find(broken).unwrap();
        let options = Options { steps: 500, ..Options::new(seed) };
        let shrunk = shrink_with(&options, &asked_after_a_crash).unwrap();
        let kinds: Vec<Kind> = shrunk.decisions.iter().map(|decision| decision.kind).collect();
        assert_eq!(kinds, [Kind::Crash, Kind::Ask], "of {}", shrunk.before);
        assert!(shrunk.before > 100 && shrunk.options.steps < 500);
        assert!(shrunk.story.iter().any(|line| line.contains("asks node")), "{shrunk}");
        let again = asked_after_a_crash(Options { remember: true, ..shrunk.options });
        assert_eq!(again.violation, Some(shrunk.violation));
    }

    #[test]
    fn a_run_that_breaks_nothing_is_not_shrunk() {
        assert!(shrink(&Options { steps: 100, ..Options::new(1) }).is_none());
    }
}
