//! Histories of what clients saw, and the judge of them.
//!
//! A client knows three things of an operation: when it asked, when it was answered, and what it was told.
//! The object that it talks to is *linearizable* if every operation can be given one instant between the
//! two, at which it took effect at once, so that a single machine doing one thing at a time would have given
//! the same answers. Whether such instants exist is what a [`check`](checker::check) decides; it knows
//! nothing of replicas, terms or disks, and that is its worth: it believes the clients alone.
//!
//! - A [`History`] records operations as they are invoked and answered. An operation that is never answered
//!   may have taken effect at any later time, or never.
//! - A [`Model`] is the single machine: [`register`] (read, write, compare-and-set) and [`kv`] (get, put,
//!   append, delete, compare-and-set on many keys), or one of your own.
//! - [`checker`] searches for the instants. It has a [`Budget`], and says [`Verdict::Undecided`] when that is
//!   spent: the question is NP-complete, and some histories would take longer than anybody waits.
//! - [`parse`] reads two formats in which others publish histories; [`generate`] makes histories whose
//!   verdict is known by construction.
//!
//! ```
//! use coracle::sim::history::{Budget, History, Verdict, checker, register::{Input, Output, Register}};
//!
//! let mut history = History::new();
//! let write = history.invoke(1, Input::Write(7));
//! history.complete(write, Output::Done);
//! let read = history.invoke(2, Input::Read);
//! history.complete(read, Output::Value(None)); // stale: the write had returned
//! assert!(matches!(checker::check(&Register, &history, Budget::default()), Verdict::NotLinearizable(_)));
//! ```

mod budget;
pub mod checker;
mod command;
mod explain;
pub mod generate;
pub mod kv;
mod model;
mod operation;
pub mod parse;
mod prefixes;
pub mod register;
mod search;
mod seen;

pub use budget::Budget;
pub use checker::Verdict;
pub use explain::Explanation;
pub use model::Model;
pub use operation::{History, Operation, OperationId, Outcome};
pub use parse::{ParseError, Recorded};

/// Reads a history in either format of [`parse`] and judges it within the default [`Budget`].
///
/// # Errors
/// [`ParseError`] where the text is not a history, with the line that shows it.
pub fn check_text(text: &str) -> Result<Verdict, ParseError> {
    Ok(parse::parse(text)?.check(Budget::default()))
}
