//! A register: one number, or nothing yet; read, write, compare-and-set.

use std::collections::HashSet;

use super::budget::Budget;
use super::checker::Verdict;
use super::explain::Explanation;
use super::model::Model;
use super::operation::{History, Operation, Outcome};
use super::search::{Found, search};

/// What is asked of a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Input {
    /// What does it hold?
    Read,
    /// Let it hold this.
    Write(i64),
    /// If it holds `from`, let it hold `to`.
    Cas {
        /// What it must hold.
        from: i64,
        /// What it then holds.
        to: i64,
    },
}

/// What a register answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Output {
    /// To a read: `None` before the first write.
    Value(Option<i64>),
    /// To a write.
    Done,
    /// To a compare-and-set: whether the register held `from`.
    Swapped(bool),
}

/// The model of a register that holds nothing at first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Register;

impl Model for Register {
    type State = Option<i64>;
    type Input = Input;
    type Output = Output;

    fn start(&self) -> Option<i64> {
        None
    }

    fn step(&self, state: &Option<i64>, input: &Input, output: Option<&Output>) -> Option<Option<i64>> {
        match (*input, output) {
            (Input::Read, None) => Some(*state),
            (Input::Read, Some(Output::Value(value))) => (value == state).then_some(*state),
            (Input::Write(value), None | Some(Output::Done)) => Some(Some(value)),
            (Input::Cas { from, to }, None | Some(Output::Swapped(_))) => {
                let holds = *state == Some(from);
                let possible = output.is_none_or(|output| *output == Output::Swapped(holds));
                possible.then_some(if holds { Some(to) } else { *state })
            }
            _ => None, // an answer to another question
        }
    }

    fn is_pure(&self, _: &Input, output: &Output) -> bool {
        matches!(output, Output::Value(_) | Output::Swapped(false))
    }

    fn describe(&self, input: &Input, output: Option<&Output>) -> String {
        let asked = match input {
            Input::Read => "read".to_string(),
            Input::Write(value) => format!("write {value}"),
            Input::Cas { from, to } => format!("cas {from} to {to}"),
        };
        let answered = match output {
            Some(Output::Value(Some(value))) => value.to_string(),
            Some(Output::Value(None)) => "nothing".to_string(),
            Some(Output::Done | Output::Swapped(true)) => "ok".to_string(),
            Some(Output::Swapped(false)) => "another value".to_string(),
            None => "unknown".to_string(),
        };
        format!("{asked} -> {answered}")
    }
}

/// Judges a history of one register.
///
/// The same verdict as [`checker::check`](super::checker::check), sooner: values that no read returned and
/// no compare-and-set asks for are all alike to everybody, so they are checked as one.
pub fn check(history: &History<Input, Output>, mut budget: Budget) -> Verdict {
    match search(&Register, &with_one_unseen(history), &mut budget) {
        Found::Order(_) => Verdict::Linearizable,
        Found::Exhausted => Verdict::Undecided,
        Found::Stuck(stuck) => {
            Verdict::NotLinearizable(Box::new(Explanation::new(&Register, history, &stuck, None)))
        }
    }
}

/// The history with all values that nobody looks for replaced by one of them.
fn with_one_unseen(history: &History<Input, Output>) -> History<Input, Output> {
    let mut seen = HashSet::new();
    for operation in history.operations() {
        match (operation.input, operation.output()) {
            (Input::Cas { from, .. }, _) => _ = seen.insert(from),
            (_, Some(Output::Value(Some(value)))) => _ = seen.insert(*value),
            _ => {}
        }
    }
    let mut unseen = None;
    let mut stand_in = |value: i64| if seen.contains(&value) { value } else { *unseen.get_or_insert(value) };
    let replace = |operation: &Operation<Input, Output>| {
        let input = match operation.input {
            Input::Read => Input::Read,
            Input::Write(value) => Input::Write(stand_in(value)),
            Input::Cas { from, to } => Input::Cas { from, to: stand_in(to) },
        };
        let outcome = match operation.outcome {
            // Unanswered reads tell nothing.
            Outcome::Unknown if input == Input::Read => Outcome::Refused,
            ref outcome => outcome.clone(),
        };
        Operation { client: operation.client, input, invoked: operation.invoked, outcome }
    };
    History::from_operations(history.operations().iter().map(replace).collect())
}
