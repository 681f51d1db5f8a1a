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

use super::explain::Explanation;
use super::model::Model;
use super::operation::History;
use super::search::{Found, search};

/// How much work a check may do, over all parts of a history. It counts work, not time, so that the same
/// history gets the same verdict on every computer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Calls of [`Model::step`] and comparisons of configurations. The default, 50 million, is a few seconds.
    pub steps: u64,
    /// Configurations remembered at a time. The default, 2 million, is some 100 to 200 MB.
    pub configurations: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { steps: 50_000_000, configurations: 2_000_000 }
    }
}

impl Budget {
    /// Takes `steps` off, or says that they are not there.
    pub(super) fn charge(&mut self, steps: u64) -> Option<()> {
        self.steps = self.steps.checked_sub(steps)?;
        Some(())
    }
}

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
