//! What clients did, and in which order they saw it happen.
//!
//! Time is a count of events: every invocation and every answer takes the next number, so "before" is never
//! a matter of clocks. Operation `a` precedes `b` if `a` was answered before `b` was invoked; all else is
//! concurrent. A client is a name for the reader's benefit only: one that pipelines has several operations
//! open at once, and nothing here minds.

/// One client operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation<I, O> {
    /// Who asked. Used in explanations only.
    pub client: u64,
    /// What was asked.
    pub input: I,
    /// The number of the event at which it was asked.
    pub invoked: u64,
    /// How it ended.
    pub outcome: Outcome<O>,
}

/// How an operation ended, as its client knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<O> {
    /// No answer, or none that says what happened: it may take effect at any time after its invocation, or
    /// never. Every operation starts so.
    Unknown,
    /// It took effect, with this answer.
    Returned {
        /// The number of the event at which the answer came; greater than `invoked`.
        at: u64,
        /// The answer.
        output: O,
    },
    /// It certainly had no effect and never will: as if it had not been asked.
    Refused,
}

impl<I, O> Operation<I, O> {
    /// The answer, if there was one.
    pub fn output(&self) -> Option<&O> {
        match &self.outcome {
            Outcome::Returned { output, .. } => Some(output),
            Outcome::Unknown | Outcome::Refused => None,
        }
    }
}

/// Names an operation of the [`History`] that gave it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(usize);

/// The operations of all clients of one object, in the order of their invocations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History<I, O> {
    operations: Vec<Operation<I, O>>,
    /// The number of the next event.
    now: u64,
}

impl<I, O> Default for History<I, O> {
    fn default() -> Self {
        Self::new()
    }
}

impl<I, O> History<I, O> {
    /// A history in which nothing has happened.
    pub fn new() -> Self {
        History { operations: Vec::new(), now: 0 }
    }

    /// A client asks. Until [`complete`](Self::complete) or [`refuse`](Self::refuse) the outcome is unknown,
    /// which is also what a client that gives up leaves behind.
    pub fn invoke(&mut self, client: u64, input: I) -> OperationId {
        let invoked = self.tick();
        self.operations.push(Operation { client, input, invoked, outcome: Outcome::Unknown });
        OperationId(self.operations.len() - 1)
    }

    /// The answer comes. The first outcome of an operation stands; later ones are ignored.
    pub fn complete(&mut self, id: OperationId, output: O) {
        let at = self.tick();
        self.end(id, Outcome::Returned { at, output });
    }

    /// The client learns that the operation had no effect and never will.
    pub fn refuse(&mut self, id: OperationId) {
        self.end(id, Outcome::Refused);
    }

    /// All operations, in the order of their invocations.
    pub fn operations(&self) -> &[Operation<I, O>] {
        &self.operations
    }

    /// The number of operations.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether nothing was ever asked.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    fn end(&mut self, id: OperationId, outcome: Outcome<O>) {
        if let Some(operation) = self.operations.get_mut(id.0)
            && matches!(operation.outcome, Outcome::Unknown)
        {
            operation.outcome = outcome;
        }
    }
}

/// Rewriting for a search: the same events, with inputs and outputs that are cheaper to compare.
impl<I, O> History<I, O> {
    pub(in crate::sim) fn from_operations(operations: Vec<Operation<I, O>>) -> Self {
        History { operations, now: u64::MAX }
    }
}
