//! Random lives: steps of any kind in any order, with openings between them.

use super::case::{Case, Verdict};
use super::model::{Model, Step, changes, entry, hard_state, membership, promising};
use crate::storage::{Change, WriteBatch};
use coracle_core::{Index, LogId};

/// Steps in one life.
const STEPS: u32 = 30;

/// A small generator of random numbers (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

/// One life of a store.
pub(super) fn sequence(case: &mut Case<'_>, seed: u64) -> Verdict {
    case.note(format!("the random life of seed {seed}"));
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    case.open()?;
    for _ in 0..STEPS {
        let step = step(&mut dice, &case.model);
        case.run(step)?;
        if dice.below(6) == 0 {
            case.reopen()?;
        }
    }
    case.reopen()
}

/// A step that keeps the contract.
fn step(dice: &mut Dice, model: &Model) -> Step {
    let (last, count) = (model.last(), model.entries.len() as u64);
    match dice.below(10) {
        0 => Step::Idle,
        1 if count > 0 => Step::Purge(model.entries[dice.below(count) as usize].id()),
        2 => {
            let keep = model.purged.index.0 + dice.below(count + 1);
            let term = last.term.0 + 1;
            changes(vec![Change::Truncate(Index(keep)), next(dice, term, keep)])
        }
        3 if dice.below(3) == 0 => {
            let to = LogId::new(last.term.0 + 1, last.index.0 + dice.below(5));
            changes(vec![Change::Reset(to), next(dice, to.term.0, to.index.0)])
        }
        4 => {
            let vote = (dice.below(2) == 0).then(|| 1 + dice.below(5));
            let promised = if dice.below(2) == 0 { dice.below(u64::MAX) } else { 0 };
            let hard_state = promising(hard_state(last.term.0 + dice.below(4), vote), promised);
            let entries = next(dice, last.term.0.max(1), last.index.0);
            Step::Write(WriteBatch { hard_state, changes: vec![entries] })
        }
        _ => changes(vec![next(dice, last.term.0.max(1), last.index.0)]),
    }
}

/// Up to eight entries after `last`, of which the first may be a membership.
fn next(dice: &mut Dice, term: u64, last: u64) -> Change {
    let size = dice.below(3000) as usize;
    let mut entries: Vec<_> =
        (last + 1..=last + dice.below(9)).map(|index| entry(term, index, size)).collect();
    if dice.below(3) == 0
        && let Some(first) = entries.first_mut()
    {
        *first = membership(term, last + 1);
    }
    Change::Append(entries)
}
