//! The single machine that a linearizable object must look like.

use std::fmt::Debug;
use std::hash::Hash;

/// A sequential object: given a state and an operation, what it does next, or that it could not have given
/// that answer.
///
/// The search asks [`step`](Self::step) millions of times and remembers states by value, so keep a state
/// small: a few words, cheap to clone and to hash. Where the object falls apart into independent ones (the
/// keys of a store), check each on its own: a history is linearizable exactly if each part is (Herlihy and
/// Wing, section 3.3), and many small searches cost far less than one large one. [`kv`](super::kv) does that.
pub trait Model {
    /// What the object holds between two operations. Equal states must behave alike for ever.
    type State: Clone + Eq + Hash + Debug;
    /// What is asked. Operations with equal inputs are interchangeable, and the search uses that.
    type Input: Eq + Hash + Debug;
    /// What is answered.
    type Output: Eq + Hash + Debug;

    /// The state before the first operation.
    fn start(&self) -> Self::State;

    /// The state after `input` in `state`, or `None` if it could not have been answered with `output` there.
    /// `output` is `None` where the answer is unknown: then every answer is possible, and the result is the
    /// state that the operation leaves if it takes effect.
    fn step(
        &self,
        state: &Self::State,
        input: &Self::Input,
        output: Option<&Self::Output>,
    ) -> Option<Self::State>;

    /// Whether this operation with this answer leaves *every* state as it is that accepts it: a read, a
    /// compare-and-set that failed. A hint, but a large one: where such an operation fits, the search places
    /// it and looks at nothing else. `false` is always right.
    fn is_pure(&self, input: &Self::Input, output: &Self::Output) -> bool {
        let _ = (input, output);
        false
    }

    /// An operation in words, for explanations.
    fn describe(&self, input: &Self::Input, output: Option<&Self::Output>) -> String {
        match output {
            Some(output) => format!("{input:?} -> {output:?}"),
            None => format!("{input:?} -> unknown"),
        }
    }
}
