//! What is checked beside what is always checked.

use super::calls::{HistoryOf, Input, InputOf, OutputOf, Shown};
use crate::sim::history::{Budget, Model, Outcome, Verdict, checker};
use coracle_core::Index;
use std::fmt;

/// A search that takes longer than this is given up, and counted in [`Passed::undecided`](super::Passed::undecided).
const BUDGET: Budget = Budget { steps: 5_000_000, configurations: 200_000 };

/// A condition on an answer, or on an answer and what the clients saw.
type Holds<S> = Box<dyn Fn(&<S as crate::StateMachine>::Answer) -> Result<(), String> + Send + Sync>;
type HoldsAtEnd<S> =
    Box<dyn Fn(&<S as crate::StateMachine>::Answer, &HistoryOf<S>) -> Result<(), String> + Send + Sync>;

/// What is to be checked of a machine. Determinism, snapshots, encodings and panics are always checked; the more of these
/// are given, the more is seen.
pub struct Checks<S: Shown> {
    pub(super) state: Option<Vec<u8>>,
    pub(super) always: Vec<(Vec<u8>, Holds<S>)>,
    pub(super) end: Vec<(Vec<u8>, HoldsAtEnd<S>)>,
    pub(super) model: Option<Box<dyn Modelled<S>>>,
    pub(super) again: Option<Vec<String>>,
}

impl<S: Shown> Default for Checks<S> {
    fn default() -> Checks<S> {
        Checks { state: None, always: Vec::new(), end: Vec::new(), model: None, again: None }
    }
}

impl<S: Shown> fmt::Debug for Checks<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checks").finish_non_exhaustive()
    }
}

impl<S: Shown> Checks<S> {
    /// Only what is always checked.
    pub fn new() -> Checks<S> {
        Checks::default()
    }

    /// The query whose answer shows the whole state. It is asked after every command, and the answers of all machines must
    /// be alike: so a difference is seen where it arises, and not only when it shows in a reply. Equal states must give equal
    /// answers: what comes out of a `HashMap` has to be sorted.
    ///
    /// # Panics
    /// If the query has no encoding.
    pub fn state(mut self, query: S::Query) -> Checks<S> {
        self.state = Some(encoded::<S>(&query));
        self
    }

    /// The sequential model of the machine. What the clients saw must be linearizable: it could have come from one model
    /// that does one thing at a time. The entries are first tried in the order of the log, which takes no search where
    /// the machine does what the model says.
    pub fn model<M>(mut self, model: M) -> Checks<S>
    where
        M: Model<Input = InputOf<S>, Output = OutputOf<S>> + Send + Sync + 'static,
    {
        self.model = Some(Box::new(model));
        self
    }

    /// What must hold of the answer to this query after every entry, on every node.
    ///
    /// # Panics
    /// If the query has no encoding.
    pub fn always(
        mut self,
        query: S::Query,
        holds: impl Fn(&S::Answer) -> Result<(), String> + Send + Sync + 'static,
    ) -> Checks<S> {
        self.always.push((encoded::<S>(&query), Box::new(holds)));
        self
    }

    /// What must hold at the end, when every client knows what it will ever know, of the answer to this query and what
    /// the clients saw.
    ///
    /// # Panics
    /// If the query has no encoding.
    pub fn at_the_end(
        mut self,
        query: S::Query,
        holds: impl Fn(&S::Answer, &HistoryOf<S>) -> Result<(), String> + Send + Sync + 'static,
    ) -> Checks<S> {
        self.end.push((encoded::<S>(&query), Box::new(holds)));
        self
    }

    /// The same log once more in another process: another hash seed, other addresses, another second of the clock. The program
    /// that runs now is started with these arguments, and must come to the same call of [`simulate`](super::simulate): for a
    /// test, its name and `--exact`; for an example nothing, or what it was started with. One log of all seeds, the longest,
    /// is applied so.
    pub fn in_another_process<A: Into<String>>(
        mut self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Checks<S> {
        self.again = Some(arguments.into_iter().map(Into::into).collect());
        self
    }
}

fn encoded<S: Shown>(query: &S::Query) -> Vec<u8> {
    match S::encode_query(query) {
        Ok(bytes) => bytes.to_vec(),
        Err(error) => panic!("the query {query:?} has no encoding: {error}"),
    }
}

/// A model, whatever its state is.
pub(super) trait Modelled<S: Shown>: Send + Sync {
    /// Whether what the clients saw is linearizable, each operation having its place in the log. False if that could not be
    /// decided.
    fn judge(&self, history: &HistoryOf<S>, at: &[Option<Index>]) -> Result<bool, String>;

    /// The first of these, done one after the other, that the model does not allow, and what it holds there.
    fn refuses(&self, calls: &[(InputOf<S>, OutputOf<S>)]) -> Option<(usize, String)>;
}

impl<S: Shown, M> Modelled<S> for M
where
    M: Model<Input = InputOf<S>, Output = OutputOf<S>> + Send + Sync,
{
    fn judge(&self, history: &HistoryOf<S>, at: &[Option<Index>]) -> Result<bool, String> {
        let Err(first) = in_order_of_the_log::<S, M>(self, history, at) else { return Ok(true) };
        match checker::check(self, history, BUDGET) {
            Verdict::Linearizable => Ok(true),
            Verdict::Undecided => Ok(false),
            Verdict::NotLinearizable(explanation) => Err(format!("{first}\n{explanation}")),
        }
    }

    fn refuses(&self, calls: &[(InputOf<S>, OutputOf<S>)]) -> Option<(usize, String)> {
        let mut state = self.start();
        for (at, (input, output)) in calls.iter().enumerate() {
            match self.step(&state, input, Some(output)) {
                Some(next) => state = next,
                None => return Some((at, format!("{state:?}"))),
            }
        }
        None
    }
}

/// Whether the order of the log explains what the clients saw, each read standing where its answer was true. If not, the
/// first operation that does not fit there.
fn in_order_of_the_log<S, M>(model: &M, history: &HistoryOf<S>, at: &[Option<Index>]) -> Result<(), String>
where
    S: Shown,
    M: Model<Input = InputOf<S>, Output = OutputOf<S>>,
{
    let placed = history.operations().iter().zip(at).filter_map(|(it, at)| Some(((*at)?, it)));
    let mut order: Vec<_> =
        placed.filter(|(_, it)| it.output().is_some() || matches!(it.input, Input::Command(_))).collect();
    order.sort_by_key(|(at, it)| (*at, matches!(it.input, Input::Query(_)), it.invoked));
    let (mut state, mut newest) = (model.start(), 0);
    for (at, it) in order {
        let said = || model.describe(&it.input, it.output());
        newest = newest.max(it.invoked);
        if matches!(it.outcome, Outcome::Returned { at, .. } if at < newest) {
            return Err(format!("at index {at}, out of time: {}", said()));
        }
        match model.step(&state, &it.input, it.output()) {
            Some(next) => state = next,
            None => {
                return Err(format!(
                    "at index {at} the model holds {state:?}, and does not allow {}",
                    said()
                ));
            }
        }
    }
    // What was answered has its place.
    let lost = history.operations().iter().zip(at).find(|(it, at)| it.output().is_some() && at.is_none());
    match lost {
        Some((it, _)) => Err(format!("answered, and nowhere in the log: {:?}", it.input)),
        None => Ok(()),
    }
}
