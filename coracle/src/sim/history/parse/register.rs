//! The log of a test of one register, as Jepsen writes it.
//!
//! `INFO  jepsen.util - PROCESS TYPE OPERATION VALUE`, parted by tabs or blanks; the process is a number and
//! the type one of `:invoke`, `:ok`, `:fail`, `:info`. What has not this shape is noise, such as the lines of
//! Jepsen's other processes. A line of this shape that says something unheard of is an error.
//!
//! Edges: a compare-and-set that fails did so because the register held another value, which is an answer;
//! where it failed by `:timed-out`, nobody knows. A write that fails, unless by `:timed-out`, had no effect.

use super::super::operation::History;
use super::super::register::{Input, Output};
use super::{Event, ParseError, Recorder};

/// The parts of a line that belongs to the history.
pub(super) struct Line<'t> {
    process: u64,
    kind: &'t str,
    operation: &'t str,
    value: &'t str,
}

impl<'t> Line<'t> {
    /// The parts of `line`, if it is not noise.
    pub(super) fn of(line: &'t str) -> Option<Self> {
        let rest = word(word(word(line, "INFO")?, "jepsen.util")?, "-")?;
        let (process, rest) = split(rest);
        let (kind, rest) = split(rest);
        let (operation, value) = split(rest);
        let process = process.parse().ok()?;
        let known = matches!(kind, ":invoke" | ":ok" | ":fail" | ":info") && !operation.is_empty();
        known.then_some(Line { process, kind, operation, value: value.trim() })
    }

    /// What the line says happened; `asked` is what its process is waiting for.
    fn event(&self, asked: Result<&Input, String>) -> Result<Event<Input, Output>, String> {
        let timed_out = self.value == ":timed-out";
        if self.kind == ":info" || self.kind == ":fail" && timed_out {
            let asked = asked?;
            return match (self.operation, asked) {
                (":read", Input::Read) => Ok(Event::Refused(Input::Read)),
                (":write", Input::Write(_)) | (":cas", Input::Cas { .. }) => Ok(Event::Unknown),
                _ => Err(format!("process {} did not ask for this", self.process)),
            };
        }
        let input = match (self.operation, self.kind) {
            (":read", _) => Input::Read,
            (":write", _) => Input::Write(number(self.value)?),
            (":cas", _) => {
                let pair = self.value.strip_prefix('[').and_then(|pair| pair.strip_suffix(']'));
                let mut numbers = pair.into_iter().flat_map(str::split_whitespace);
                let (Some(from), Some(to), None) = (numbers.next(), numbers.next(), numbers.next()) else {
                    return Err(format!("{:?} is not a pair such as [1 2]", self.value));
                };
                Input::Cas { from: number(from)?, to: number(to)? }
            }
            (other, _) => return Err(format!("{other:?} is no operation of a register")),
        };
        Ok(match (self.kind, input) {
            (":invoke", _) => Event::Invoke(input),
            (":ok", Input::Read) if self.value == "nil" => Event::Ok(input, Output::Value(None)),
            (":ok", Input::Read) => Event::Ok(input, Output::Value(Some(number(self.value)?))),
            (":ok", Input::Write(_)) => Event::Ok(input, Output::Done),
            (":ok", Input::Cas { .. }) => Event::Ok(input, Output::Swapped(true)),
            (_, Input::Cas { .. }) => Event::Ok(input, Output::Swapped(false)),
            (_, Input::Read | Input::Write(_)) => Event::Refused(input),
        })
    }
}

/// Reads the whole log.
pub(super) fn parse(text: &str) -> Result<History<Input, Output>, ParseError> {
    let mut recorder = Recorder::new();
    for (number, line) in text.lines().enumerate() {
        let Some(line) = Line::of(line) else { continue };
        line.event(recorder.open(line.process))
            .and_then(|event| recorder.record(line.process, event))
            .map_err(|problem| ParseError { line: Some(number + 1), problem })?;
    }
    Ok(recorder.history)
}

fn number(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}

/// The first word of `text`, and what follows it.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()))
}

/// What follows `expected`, if that is the first word of `text`.
fn word<'t>(text: &'t str, expected: &str) -> Option<&'t str> {
    let (first, rest) = split(text);
    (first == expected).then_some(rest)
}
