//! Makes a failure small: the same broken invariant with as few things going wrong as possible.
//!
//! A run is a list of [`Decision`]s. The shrinker repeats it with fewer of them, over and over. It shortens
//! the life and takes nodes away; tries a random few of the decisions; leaves out whole kinds (no drops, no
//! freezes, ...), or those of one node, client or link; and then halves, quarters and single ones (delta
//! debugging), until nothing more can go. Whatever still breaks the same invariant is kept. Where too much is
//! left, it tries the seeds nearby. The end reads as a conversation.

use super::chance::{Decision, Kind};
use super::dice::Dice;
use super::{Options, Report, Violation, run};
use std::collections::VecDeque;
use std::fmt;

/// Runs at most, so that it ends whoever watches.
const PATIENCE: usize = 3000;

/// So few decisions need no more guessing at which of them matter.
const FEW: usize = 12;

/// Random subsets tried of each size.
const GUESSES: usize = 16;

/// Other seeds tried.
const NEIGHBOURS: u64 = 100;

/// How many decisions of a thousand a guess keeps, the boldest first.
const BOLDNESS: [u64; 6] = [10, 40, 120, 300, 500, 750];

/// Lines of a story that are shown at most.
const LINES: usize = 60;

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

/// How far a shrinker has come.
#[derive(Clone, Copy, Debug)]
pub struct Shrinking {
    /// How many runs it took so far.
    pub runs: usize,
    /// How many decisions are left of the run as it was found.
    pub left: usize,
    /// How many those were.
    pub before: usize,
}

/// Shrinks the run of these options. None if it breaks nothing. `go_on` is asked before every run whether
/// there is time for it; the best that was found until then is the answer.
pub fn shrink(options: &Options, go_on: &mut dyn FnMut(Shrinking) -> bool) -> Option<Shrunk> {
    shrink_with(options, &run, go_on)
}

pub(super) fn shrink_with(
    options: &Options,
    run: &dyn Fn(Options) -> Report,
    go_on: &mut dyn FnMut(Shrinking) -> bool,
) -> Option<Shrunk> {
    let options = Options { remember: true, story: false, ..options.clone() };
    let found = run(options.clone());
    let violation = found.violation.clone()?;
    let before = found.decisions.len();
    let mut search = Search {
        run,
        go_on,
        best: options,
        decisions: found.decisions,
        violation,
        runs: 1,
        before,
        limit: PATIENCE / 2,
        over: false,
    };
    search.reduce(found.steps);
    search.neighbours();
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
    go_on: &'a mut dyn FnMut(Shrinking) -> bool,
    best: Options,
    /// What happens in the best run.
    decisions: Vec<Decision>,
    violation: Violation,
    runs: usize,
    before: usize,
    /// How many runs it may take.
    limit: usize,
    /// Whether there is no time for more.
    over: bool,
}

impl Search<'_> {
    /// Makes the run of so many steps as small as it gets.
    fn reduce(&mut self, steps: u64) {
        // What broke while faults were still to come breaks in a life that ends there.
        if steps < self.best.steps {
            self.attempt(Options { steps, ..self.best.clone() });
        }
        self.fewer_nodes();
        self.fewer_steps();
        loop {
            let before = (self.decisions.len(), self.best.steps);
            self.fewer_kinds();
            self.guess();
            self.fewer_decisions();
            self.fewer_nodes();
            self.fewer_steps();
            if self.over || before == (self.decisions.len(), self.best.steps) {
                break;
            }
        }
    }

    /// A run can be so tangled that nothing can go: each message that is missing changes all that follows.
    /// Then the same invariant may break in a simpler way under a seed nearby.
    fn neighbours(&mut self) {
        for near in 1..=NEIGHBOURS {
            if self.decisions.len() <= FEW || self.runs >= PATIENCE {
                return;
            }
            let Search { ref best, ref decisions, ref violation, .. } = *self;
            let known = (best.clone(), decisions.clone(), violation.clone());
            let seed = best.seed.wrapping_add(near);
            self.limit = (self.runs + PATIENCE / 10).min(PATIENCE);
            self.over = false;
            if self.attempt(Options { seed, only: None, ..known.0.clone() }) {
                self.reduce(known.0.steps);
            }
            if self.decisions.len() >= known.1.len() {
                (self.best, self.decisions, self.violation) = known;
            }
        }
    }

    /// Tries other options; keeps them if the same invariant breaks.
    fn attempt(&mut self, options: Options) -> bool {
        let Search { runs, before, ref decisions, .. } = *self;
        self.over |= runs >= self.limit || !(self.go_on)(Shrinking { runs, left: decisions.len(), before });
        if self.over {
            return false;
        }
        self.runs += 1;
        let Report { violation, decisions, .. } = (self.run)(options.clone());
        match violation {
            Some(violation) if alike(violation.invariant, self.violation.invariant) => {
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

    fn with_those(&mut self, keep: impl FnMut(&Decision) -> bool) -> bool {
        let mut only = self.decisions.clone();
        only.retain(keep);
        only.len() < self.decisions.len() && self.with(only)
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

    /// Keeps a random few. What goes changes all that comes after it, so that of many decisions no
    /// single one can go; but often there are other ways to the same end, and short ones.
    fn guess(&mut self) {
        if !self.decisions.is_empty() && self.with(Vec::new()) {
            return;
        }
        let mut bold = 0;
        while bold < BOLDNESS.len() && self.decisions.len() > FEW && !self.over {
            let keeps = (0..GUESSES).any(|guess| {
                let mut dice = Dice::new(self.best.seed ^ (self.runs as u64) << 20);
                // Half of the guesses take whole groups, such as all drops of one link, or all of one kind.
                let salt = dice.bits();
                let group = |d: &Decision| Dice::new(salt ^ (d.kind as u64) << 8 ^ u64::from(d.who));
                let odds = BOLDNESS[bold];
                let before = self.decisions.len();
                self.with_those(|decision| match guess % 4 {
                    0 => group(decision).chance(odds.max(120)),
                    1 => group(decision).chance(odds.max(500)) && dice.chance(odds),
                    2 => !is_texture(decision.kind) && dice.chance(odds),
                    _ => dice.chance(odds),
                }) && self.decisions.len() < before
            });
            bold = if keeps { bold.saturating_sub(1) } else { bold + 1 };
        }
    }

    fn fewer_kinds(&mut self) {
        self.with_those(|decision| !is_texture(decision.kind));
        for &kind in Kind::ALL {
            if !self.decisions.iter().any(|decision| decision.kind == kind)
                || self.with_those(|decision| decision.kind != kind)
            {
                continue;
            }
            // Not at all nodes, clients or links, then.
            for who in 0..=u8::MAX {
                if self.over {
                    return;
                }
                self.with_those(|decision| decision.kind != kind || decision.who != who);
            }
        }
    }

    fn fewer_decisions(&mut self) {
        let mut size = self.decisions.len().div_ceil(2);
        while size > 0 && !self.over {
            let mut end = self.decisions.len();
            let mut removed = false;
            // From the end: what comes last is needed least.
            while end > 0 && !self.over {
                let start = end.saturating_sub(size);
                let mut without = self.decisions.clone();
                without.drain(start..end.min(without.len()));
                removed |= self.with(without);
                end = start.min(self.decisions.len());
            }
            if size == 1 && !removed {
                break;
            }
            size = if size == 1 { 1 } else { size / 2 };
        }
    }
}

/// L1 to L5 are all the same trouble, that nothing moves; the first of them that is looked at is told.
fn alike(one: &str, other: &str) -> bool {
    let stuck = |name| ["L1", "L2", "L3", "L4", "L5"].contains(&name);
    one == other || (stuck(one) && stuck(other))
}

/// How long things take: every message and every write has such a decision, and seldom does one matter.
fn is_texture(kind: Kind) -> bool {
    matches!(kind, Kind::Delay | Kind::SlowDisk | Kind::SlowRead | Kind::SlowApply)
}

impl Shrunk {
    /// The decisions as they are written in a test or at the command line.
    pub fn only(&self) -> String {
        let words: Vec<String> = self.decisions.iter().map(Decision::to_string).collect();
        words.join(" ")
    }

    /// The line to keep among the regression tests (`KEPT` in `coracle/tests/sim.rs`).
    pub fn to_keep(&self) -> String {
        let Options { seed, nodes, steps, .. } = &self.options;
        format!("({seed}, {nodes:?}, {steps}, Some(\"{}\")),", self.only())
    }

    /// The part of the story to read first, and in it how much is left out. An invariant of safety breaks
    /// at the end, for reasons that lie close before. One of liveness breaks because something goes on
    /// for ever: so what follows the last thing that went wrong is told too.
    pub fn conversation(&self) -> Vec<String> {
        let story = without_repetitions(&self.story);
        let lines = story.len();
        if lines <= LINES {
            return story;
        }
        let left_out = |lines: usize| (lines > 0).then(|| format!("            ... {lines} lines left out"));
        let ends = if self.violation.invariant.starts_with('L') { LINES / 4 } else { LINES };
        let end = lines - ends;
        let wrong = |line: &String| WRONG.iter().any(|word| line.contains(word));
        let from = story[..end].iter().rposition(wrong).unwrap_or(0).min(lines - LINES);
        let upto = from + LINES - ends;
        let from = if upto == from { end } else { from };
        let upto = upto.max(from);
        let first = left_out(from).into_iter().chain(story[from..upto].iter().cloned());
        first.chain(left_out(end - upto)).chain(story[end..].iter().cloned()).collect()
    }
}

/// Words of a story's lines that tell of something that goes wrong.
const WRONG: [&str; 7] = ["fault [", "lost: ", "partition", "hangs", "freezes", "crashes", "power"];

/// Where the same few lines come again and again, only the first of each and how many more.
fn without_repetitions(story: &[String]) -> Vec<String> {
    /// Lines that a repeated one may stand apart.
    const NEAR: usize = 6;
    let text = |line: &str| line.trim_start().split_once(' ').map_or("", |(_, text)| text).to_owned();
    let (mut told, mut recent, mut more) = (Vec::new(), VecDeque::new(), 0);
    let close = |told: &mut Vec<String>, more: usize| {
        if more > 0 {
            told.push(format!("            ... {more} more like these"));
        }
    };
    for line in story {
        let said = text(line);
        if recent.contains(&said) {
            more += 1;
            continue;
        }
        close(&mut told, std::mem::take(&mut more));
        recent.truncate(NEAR - 1);
        recent.push_front(said);
        told.push(line.clone());
    }
    close(&mut told, more);
    told
}

/// What is left, as a conversation, and the line to keep in a test.
impl fmt::Display for Shrunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { seed, nodes, steps, .. } = &self.options;
        let Violation { invariant, detail } = &self.violation;
        let (left, before, runs) = (self.decisions.len(), self.before, self.runs);
        let nodes = nodes.map_or(String::new(), |nodes| format!(" {nodes} nodes,"));
        writeln!(f, "shrunk, in {runs} runs:{nodes} {steps} steps, {left} decisions of {before}")?;
        for line in self.conversation() {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "seed {seed} breaks {invariant}: {detail}")?;
        writeln!(f, "to keep it, add this line to KEPT in coracle/tests/sim.rs:")?;
        writeln!(f, "    {}", self.to_keep())
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
            let options = Options { remember: true, steps: 500, ..Options::new(*seed) };
            let report = asked_after_a_crash(options);
            // Shrinking runs it hundreds of times, to its end where the violation is gone.
            let short = run(Options { steps: 500, ..Options::new(*seed) }).steps < 5000;
            report.violation.is_some() && short
        };
        let mut exact = 0;
        // Five, and as many more as it takes until one is shrunk to just that.
        for (number, seed) in (0..).filter(broken).take(20).enumerate() {
            if number >= 5 && exact > 0 {
                break;
            }
            let options = Options { steps: 500, ..Options::new(seed) };
            let shrunk = shrink_with(&options, &asked_after_a_crash, &mut |_| true).unwrap();
            let kinds: Vec<Kind> = shrunk.decisions.iter().map(|decision| decision.kind).collect();
            exact += u32::from(kinds == [Kind::Crash, Kind::Ask]);
            // What a decision leads to may hang on others that have nothing to do with it.
            assert!(kinds.len() <= 10 && shrunk.before > 100, "seed {seed}: {kinds:?} of {}", shrunk.before);
            assert!(shrunk.options.steps < 500);
            assert!(shrunk.story.iter().any(|line| line.contains("asks node")), "{shrunk}");
            let again = asked_after_a_crash(Options { remember: true, ..shrunk.options });
            assert_eq!(again.violation, Some(shrunk.violation));
        }
        assert!(exact >= 1, "each keeps something else");
    }

    #[test]
    fn a_run_that_breaks_nothing_is_not_shrunk() {
        assert!(shrink(&Options { steps: 100, ..Options::new(1) }, &mut |_| true).is_none());
    }
}
