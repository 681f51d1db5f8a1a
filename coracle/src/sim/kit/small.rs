//! Makes a failure of the machine itself small: the fewest calls that show it, on machines without a cluster.
//!
//! A machine that breaks a rule mostly breaks it alone. Then the faults of the cluster in which that was found are no part
//! of it, and a handful of calls says more than any story.

use crate::sim::guest::{Finding, Guests, Program, Replay, Step, Wrong};
use std::sync::Arc;

/// How often a case is tried before it counts as one that shows nothing: what depends on chance does not always show.
const TRIES: usize = 6;

/// Cases tried at most.
const PATIENCE: usize = 500;

/// When the second machines of a case are made again: machines that were restored long ago, or just now.
const RESTORED: [u64; 4] = [1, 2, 5, 0];
const NEVER: [u64; 4] = [0; 4];

/// The fewest calls that show what is wrong; the last of them does.
#[derive(Debug)]
pub(super) struct Small {
    pub(super) steps: Vec<Step>,
    pub(super) wrong: Wrong,
}

/// The fewest of these steps that break this rule on machines alone. None if they do not.
pub(super) fn smallest(program: &Arc<dyn Program>, steps: &[Step], rule: &str) -> Option<Small> {
    // A machine that is not deterministic may have been found by one that was restored.
    let rules = ["determinism", rule].into_iter();
    let mut found = rules.filter_map(|rule| Some((rule, show(program, steps, rule)?)));
    let (rule, (at, wrong)) = found.next()?;
    let mut small = Small { steps: steps[..=at].to_vec(), wrong };
    let (mut size, mut tried) = (small.steps.len() / 2, 0);
    while size > 0 && tried < PATIENCE {
        let (mut end, mut fewer) = (small.steps.len(), false);
        while end > 0 && tried < PATIENCE {
            let start = end.saturating_sub(size);
            let mut without = small.steps.clone();
            without.drain(start..end.min(without.len()));
            tried += 1;
            if let Some((at, wrong)) = show(program, &without, rule) {
                without.truncate(at + 1);
                small = Small { steps: without, wrong };
                fewer = true;
            }
            end = start.min(small.steps.len());
        }
        size = if size == 1 { usize::from(fewer) } else { size / 2 };
    }
    Some(small)
}

/// Which of the steps shows that this rule is broken, and how.
fn show(program: &Arc<dyn Program>, steps: &[Step], rule: &str) -> Option<(usize, Wrong)> {
    if rule == "model" {
        return program.refuses(steps);
    }
    let every = if rule == "determinism" { NEVER } else { RESTORED };
    (0..TRIES).find_map(|_| on_machines(program, steps, every)).filter(|(_, wrong)| wrong.rule == rule)
}

/// Gives all commands to a few machines, as nodes would.
fn on_machines(program: &Arc<dyn Program>, steps: &[Step], every: [u64; 4]) -> Option<(usize, Wrong)> {
    let guests = Guests::of(program.clone());
    let mut machines = every.map(|every| guests.machine(every));
    let mut replay = Replay::default();
    for (at, step) in steps.iter().enumerate() {
        let Step::Command(applied) = step else { continue };
        let context = replay.context(applied);
        let mut last = context.clone();
        for machine in &mut machines {
            last = context.clone();
            machine.apply(&mut last, &applied.call);
        }
        replay.took(last);
        if let Some(Finding { rule, detail, .. }) = guests.finding() {
            return Some((at, Wrong { rule, detail }));
        }
    }
    None
}
