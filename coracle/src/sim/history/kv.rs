//! A store of keys: get, put, append, delete, compare-and-set.
//!
//! The keys are independent, so each is judged on its own, as one [`Cell`]: that turns one search over
//! everything into many short ones. The cells are judged in the order of their keys, the budget is shared,
//! and one that is not linearizable decides the whole.
//!
//! A cell's value grows with every append. What the search keeps of it is three numbers (see `prefixes`).

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

pub use super::command::{Command, Output};

use super::budget::Budget;
use super::checker::Verdict;
use super::command::is_pure;
use super::explain::Explanation;
use super::model::Model;
use super::operation::{History, Operation, Outcome};
use super::prefixes::compile;
use super::search::{Found, search};

/// What is asked of a store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Input {
    /// The key that it is about.
    pub key: Bytes,
    /// What to do with it.
    pub command: Command,
}

impl Input {
    /// `command` on `key`.
    pub fn new(key: impl Into<Bytes>, command: Command) -> Self {
        Input { key: key.into(), command }
    }
}

/// The store that is judged by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyValue {
    /// What a key holds before anybody wrote it.
    start: Cell,
}

impl KeyValue {
    /// A store in which every key is absent at first.
    pub fn new() -> Self {
        KeyValue { start: Cell { empty: false } }
    }

    /// A store in which every key holds the empty string at first: one whose get cannot tell the two apart.
    pub fn empty() -> Self {
        KeyValue { start: Cell { empty: true } }
    }

    /// Judges a history.
    pub fn check(&self, history: &History<Input, Output>, mut budget: Budget) -> Verdict {
        let mut undecided = false;
        for (key, part) in parts(history) {
            let (prefixes, compiled) = compile(&part, self.start.empty);
            match search(&prefixes, &compiled, &mut budget) {
                Found::Order(_) => {}
                Found::Exhausted => undecided = true,
                Found::Stuck(stuck) => {
                    let key = Some(format!("{:?}", Text(key)));
                    let explanation = Explanation::new(&self.start, &part, &stuck, key);
                    return Verdict::NotLinearizable(Box::new(explanation));
                }
            }
        }
        if undecided { Verdict::Undecided } else { Verdict::Linearizable }
    }
}

/// The operations on each key. Unanswered gets tell nothing and are left out.
fn parts(history: &History<Input, Output>) -> BTreeMap<&Bytes, History<Command, Output>> {
    let mut parts: BTreeMap<&Bytes, Vec<_>> = BTreeMap::new();
    for operation in history.operations() {
        let Operation { client, input: Input { key, command }, invoked, outcome } = operation;
        let silent = *command == Command::Get && *outcome == Outcome::Unknown;
        if !silent && *outcome != Outcome::Refused {
            let (client, invoked, outcome) = (*client, *invoked, outcome.clone());
            parts.entry(key).or_default().push(Operation {
                client,
                input: command.clone(),
                invoked,
                outcome,
            });
        }
    }
    parts.into_iter().map(|(key, operations)| (key, History::from_operations(operations))).collect()
}

/// The model of one key, said plainly: its state is its value. [`KeyValue::check`] uses a faster one that
/// gives the same verdicts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cell {
    /// Whether it holds the empty string at first; otherwise it is absent.
    pub empty: bool,
}

impl Model for Cell {
    type State = Held;
    type Input = Command;
    type Output = Output;

    fn start(&self) -> Held {
        Held(self.empty.then(Bytes::new))
    }

    fn step(&self, state: &Held, input: &Command, output: Option<&Output>) -> Option<Held> {
        let next = match (input, output) {
            (Command::Get, None) => state.0.clone(),
            (Command::Get, Some(Output::Value(value))) if *value == state.0 => value.clone(),
            (Command::Put(value), None | Some(Output::Done)) => Some(value.clone()),
            (Command::Append(tail), None | Some(Output::Done)) => {
                Some([state.0.as_deref().unwrap_or_default(), tail].concat().into())
            }
            (Command::Delete, None | Some(Output::Done)) => None,
            (Command::Delete, Some(Output::Deleted(there))) if *there == state.0.is_some() => None,
            (Command::Cas { from, to }, None) if *from == state.0 => Some(to.clone()),
            (Command::Cas { .. }, None) => state.0.clone(),
            (Command::Cas { from, to }, Some(Output::Swapped(true))) if *from == state.0 => Some(to.clone()),
            (Command::Cas { from, .. }, Some(Output::Swapped(false))) if *from != state.0 => state.0.clone(),
            _ => return None, // another answer, or one to another question
        };
        Some(Held(next))
    }

    fn is_pure(&self, _: &Command, output: &Output) -> bool {
        is_pure(output)
    }

    fn describe(&self, input: &Command, output: Option<&Output>) -> String {
        let held = |value: &Option<Bytes>| format!("{:?}", Held(value.clone()));
        let asked = match input {
            Command::Get => "get".to_string(),
            Command::Put(value) => format!("put {:?}", Text(value)),
            Command::Append(tail) => format!("append {:?}", Text(tail)),
            Command::Delete => "delete".to_string(),
            Command::Cas { from, to } => format!("cas {} to {:?}", held(from), Text(to)),
        };
        let answered = match output {
            Some(Output::Value(value)) => held(value),
            Some(Output::Done | Output::Swapped(true)) => "ok".to_string(),
            Some(Output::Deleted(true)) => "deleted".to_string(),
            Some(Output::Deleted(false)) => "was absent".to_string(),
            Some(Output::Swapped(false)) => "another value".to_string(),
            None => "unknown".to_string(),
        };
        format!("{asked} -> {answered}")
    }
}

/// What one key holds: `None` if it is absent.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Held(pub Option<Bytes>);

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => Text(value).fmt(f),
            None => f.write_str("absent"),
        }
    }
}

/// Bytes as quoted text. Of a long one only the end: that is where the appends differ.
struct Text<'a>(&'a Bytes);

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 80;
        let hidden = self.0.len().saturating_sub(LONGEST);
        if hidden > 0 {
            write!(f, "({hidden} bytes)...")?;
        }
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0[hidden..]), f)
    }
}
