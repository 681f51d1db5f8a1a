//! Why a history is not linearizable, for a reader.
//!
//! A proof that no order exists is the whole search. What helps instead is to see how far the best order
//! goes, what the object holds there, and who cannot follow. The culprit may be an earlier operation that
//! the search had to place where it did, so the last few placed operations are shown as well.

use std::fmt;

use super::model::Model;
use super::operation::{History, Operation, Outcome};
use super::search::Stuck;

/// How many of the placed operations are written out.
const SHOWN: usize = 12;

/// The longest prefix that can be explained, and what cannot be placed after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The key whose operations these are, if the history is that of a store.
    pub key: Option<String>,
    /// The operations that can be placed, in order, each in words.
    pub placed: Vec<String>,
    /// What the object holds after them.
    pub state: String,
    /// The operation that must come next, and cannot.
    pub stuck: String,
    /// The operations that are concurrent with it and might come before it; none of them helps.
    pub concurrent: Vec<String>,
}

impl Explanation {
    pub(super) fn new<M: Model>(
        model: &M,
        history: &History<M::Input, M::Output>,
        stuck: &Stuck,
        key: Option<String>,
    ) -> Self {
        let operations = history.operations();
        let words = |at: &usize| in_words(model, &operations[*at]);
        let state = stuck.placed.iter().try_fold(model.start(), |state, &at| {
            model.step(&state, &operations[at].input, operations[at].output())
        });
        Explanation {
            key,
            placed: stuck.placed.iter().map(words).collect(),
            state: state.map_or_else(|| "unknown".to_string(), |state| format!("{state:?}")),
            stuck: words(&stuck.stuck),
            concurrent: stuck.concurrent.iter().map(words).collect(),
        }
    }
}

fn in_words<M: Model>(model: &M, operation: &Operation<M::Input, M::Output>) -> String {
    let end = match &operation.outcome {
        Outcome::Returned { at, .. } => at.to_string(),
        Outcome::Unknown | Outcome::Refused => "?".to_string(),
    };
    let what = model.describe(&operation.input, operation.output());
    format!("client {}: {what}  [{}..{end}]", operation.client, operation.invoked)
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(key) = &self.key {
            writeln!(f, "Key {key}:")?;
        }
        let hidden = self.placed.len().saturating_sub(SHOWN);
        writeln!(f, "{} operations can be placed, in this order:", self.placed.len())?;
        if hidden > 0 {
            writeln!(f, "  ... {hidden} before these")?;
        }
        for operation in &self.placed[hidden..] {
            writeln!(f, "  {operation}")?;
        }
        writeln!(f, "Then the state is {}, and this one cannot be placed:", self.state)?;
        write!(f, "  {}", self.stuck)?;
        if !self.concurrent.is_empty() {
            write!(f, "\nnor does it help to place one of those concurrent with it:")?;
        }
        for operation in &self.concurrent {
            write!(f, "\n  {operation}")?;
        }
        Ok(())
    }
}
