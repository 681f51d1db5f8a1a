//! Histories as text: two formats in which others publish theirs.
//!
//! - `register`: the log of a Jepsen test of one register. Lines such as
//!   `INFO  jepsen.util - 3 :invoke :cas [1 4]`; all other lines are noise.
//! - `append`: a key-value store, one map a line, such as
//!   `{:process 3, :type :ok, :f :get, :key "k", :value "xy"}`.
//!
//! Which of the two a text is, its first line tells that is of either. In both, an operation that never
//! ends, or ends in `:info`, has an unknown outcome, and a read without a result is dropped.

mod append;
mod register;

use std::collections::BTreeMap;
use std::fmt;

use super::budget::Budget;
use super::checker::Verdict;
use super::operation::{History, OperationId};
use super::{kv, register as model};

/// A history of one of the objects that have a text format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// Of one register.
    Register(History<model::Input, model::Output>),
    /// Of a store of keys, which starts so.
    KeyValue(kv::KeyValue, History<kv::Input, kv::Output>),
}

impl Recorded {
    /// Judges the history.
    pub fn check(&self, budget: Budget) -> Verdict {
        match self {
            Recorded::Register(history) => model::check(history, budget),
            Recorded::KeyValue(store, history) => store.check(history, budget),
        }
    }

    /// The number of operations.
    pub fn len(&self) -> usize {
        match self {
            Recorded::Register(history) => history.len(),
            Recorded::KeyValue(_, history) => history.len(),
        }
    }

    /// Whether nothing was ever asked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why a text is not a history.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParseError {
    /// The line that shows it, from 1; `None` if it is the text as a whole.
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.problem),
            None => f.write_str(&self.problem),
        }
    }
}

impl std::error::Error for ParseError {}

/// Reads a history in either format.
///
/// # Errors
/// [`ParseError`] where the text is of neither format, or a line contradicts it or the lines before.
pub fn parse(text: &str) -> Result<Recorded, ParseError> {
    for line in text.lines() {
        if register::Line::of(line).is_some() {
            return register::parse(text).map(Recorded::Register);
        }
        if append::is_line(line) {
            return append::parse(text).map(|history| Recorded::KeyValue(kv::KeyValue::empty(), history));
        }
    }
    let problem = "not a history: no line is of a known format (a register's log, or maps of a store)";
    Err(ParseError { line: None, problem: problem.to_string() })
}

/// What a line of either format says happened.
enum Event<I, O> {
    /// The process asks.
    Invoke(I),
    /// It is answered, and this question must be the one it asked.
    Ok(I, O),
    /// It learns that nothing happened.
    Refused(I),
    /// It learns nothing.
    Unknown,
}

/// Makes a history of events, one process at a time in its own.
struct Recorder<I, O> {
    history: History<I, O>,
    /// What each process has asked last and not been told the end of.
    open: BTreeMap<u64, (OperationId, I)>,
}

impl<I: Clone + PartialEq, O> Recorder<I, O> {
    fn new() -> Self {
        Recorder { history: History::new(), open: BTreeMap::new() }
    }

    /// What `process` is waiting for.
    fn open(&self, process: u64) -> Result<&I, String> {
        let missing = || format!("process {process} has no operation open");
        self.open.get(&process).map(|(_, input)| input).ok_or_else(missing)
    }

    fn record(&mut self, process: u64, event: Event<I, O>) -> Result<(), String> {
        let (input, end) = match event {
            Event::Invoke(_) if self.open.contains_key(&process) => {
                return Err(format!("process {process} has an operation open already"));
            }
            Event::Invoke(input) => {
                let id = self.history.invoke(process, input.clone());
                self.open.insert(process, (id, input));
                return Ok(());
            }
            Event::Ok(input, output) => (Some(input), Some(Some(output))),
            Event::Refused(input) => (Some(input), Some(None)),
            Event::Unknown => (None, None),
        };
        let asked = self.open(process)?;
        if input.is_some_and(|input| input != *asked) {
            return Err(format!("process {process} did not ask for this"));
        }
        let Some((id, _)) = self.open.remove(&process) else { return Ok(()) };
        match end {
            Some(Some(output)) => self.history.complete(id, output),
            Some(None) => self.history.refuse(id),
            None => {}
        }
        Ok(())
    }
}
