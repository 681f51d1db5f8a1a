//! What clients of a machine ask, and what they are told.

use crate::sim::dice::Dice;
use crate::sim::history::History;
use crate::state_machine::StateMachine;
use std::fmt::Debug;

/// A machine whose calls can be shown. Every machine is one whose commands, replies, queries and answers are [`Debug`].
pub trait Shown: StateMachine<Command: Debug, Reply: Debug, Query: Debug, Answer: Debug> {}

impl<S: StateMachine<Command: Debug, Reply: Debug, Query: Debug, Answer: Debug>> Shown for S {}

/// What is asked: the input of a [`Model`](crate::sim::history::Model).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Input<C, Q> {
    /// As with [`Node::write`](crate::Node::write).
    Command(C),
    /// As with [`Node::read`](crate::Node::read).
    Query(Q),
}

/// What comes back: the output of a [`Model`](crate::sim::history::Model).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Output<R, A> {
    /// Of a command.
    Reply(R),
    /// Of a query.
    Answer(A),
}

/// What is asked of this machine.
pub type InputOf<S> = Input<<S as StateMachine>::Command, <S as StateMachine>::Query>;

/// What this machine says.
pub type OutputOf<S> = Output<<S as StateMachine>::Reply, <S as StateMachine>::Answer>;

/// What all clients of this machine saw.
pub type HistoryOf<S> = History<InputOf<S>, OutputOf<S>>;

/// What a client learns of what it asked, as a [`Node`](crate::Node) tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told<R, A> {
    /// Done, with this result.
    Done(Output<R, A>),
    /// Certainly not done.
    NotDone,
    /// It may be done, now or later, or never.
    Unknown,
}

/// Chance, as far as a client has it: all of it follows from the seed.
#[derive(Debug)]
pub struct Draw<'a>(pub(super) &'a mut Dice);

impl Draw<'_> {
    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.bits()
    }

    /// A number below `limit`; 0 if that is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0.below(limit)
    }

    /// True `permille` times in a thousand.
    pub fn chance(&mut self, permille: u64) -> bool {
        self.0.chance(permille)
    }

    /// One of these.
    ///
    /// # Panics
    /// If there is none.
    pub fn pick<'t, T>(&mut self, of: &'t [T]) -> &'t T {
        self.0.pick(of)
    }
}

/// A client of the machine: what it asks next, and what it makes of what it is told.
///
/// It never ends: whenever it is asked it has another question. It retries nothing by itself; what it is told is what
/// [`Node::write`](crate::Node::write) and [`Node::read`](crate::Node::read) would have told it. In some runs it has up to
/// four calls under way. A closure that draws a call is a client that remembers nothing.
pub trait Client<S: Shown> {
    /// What it asks next.
    fn ask(&mut self, draw: &mut Draw<'_>) -> InputOf<S>;

    /// What became of a call.
    fn told(&mut self, input: &InputOf<S>, told: Told<S::Reply, S::Answer>) {
        let _ = (input, told);
    }
}

impl<S: Shown, F: FnMut(&mut Draw<'_>) -> InputOf<S>> Client<S> for F {
    fn ask(&mut self, draw: &mut Draw<'_>) -> InputOf<S> {
        self(draw)
    }
}
