//! The judge: is there an instant for every operation?
//!
//! ```
//! use coracle::sim::history::{Budget, History, Verdict, checker, kv::{Command, Input, KeyValue, Output}};
//!
//! let mut history = History::new();
//! let append = history.invoke(1, Input::new("k", Command::Append("a".into())));
//! let get = history.invoke(2, Input::new("k", Command::Get)); // concurrent with the append
//! history.complete(get, Output::Value(None));
//! history.complete(append, Output::Done);
//! assert_eq!(KeyValue::new().check(&history, Budget::default()), Verdict::Linearizable);
//! ```

use super::budget::Budget;
use super::explain::Explanation;
use super::model::Model;
use super::operation::History;
use super::search::{Found, search};

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every operation can be given an instant.
    Linearizable,
    /// No choice of instants explains all answers.
    NotLinearizable(Box<Explanation>),
    /// The [`Budget`] was spent before either was certain.
    Undecided,
}

/// Judges the history of one object. For a store of many keys, [`KeyValue`](super::kv::KeyValue) is faster.
pub fn check<M: Model>(model: &M, history: &History<M::Input, M::Output>, mut budget: Budget) -> Verdict {
    match search(model, history, &mut budget) {
        Found::Order(_) => Verdict::Linearizable,
        Found::Exhausted => Verdict::Undecided,
        Found::Stuck(stuck) => {
            Verdict::NotLinearizable(Box::new(Explanation::new(model, history, &stuck, None)))
        }
    }
}
