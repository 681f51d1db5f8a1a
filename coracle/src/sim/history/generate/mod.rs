//! Histories whose verdict is known before anybody checks them.
//!
//! A [`correct`] one is a recording: clients talk to an object that does one thing at a time, at an instant
//! between question and answer that the generator picks. Some answers are lost; then the operation has taken
//! effect, or does so much later, or never. Whatever comes out is linearizable, since the instants exist.
//!
//! A [`broken`] one is such a recording with one operation too many, whose answer no order explains. Each
//! written value is unique there, so each value that is seen tells who wrote it, and the [`Flaw`] comes with
//! a proof that needs no search.

mod flaw;
mod play;

use super::kv::{self, Command, KeyValue};
use super::operation::{History, OperationId};
use super::parse::Recorded;
use super::register;

pub use flaw::Flaw;
use play::{Event, Play};

/// Which object the clients talk to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object {
    /// One register.
    Register,
    /// A store of keys.
    KeyValue,
}

/// How much happens in a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// How many operations are invoked; a broken history has one more.
    pub operations: usize,
    /// How many clients there are, and so how many operations are open at once; at least 1.
    pub clients: u64,
    /// How many keys a store has; at least 1. A register is one.
    pub keys: u64,
    /// How many of a hundred operations lose their answer.
    pub unknown: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Shape { operations: 100, clients: 5, keys: 3, unknown: 5 }
    }
}

/// A linearizable history. The same arguments give the same one.
pub fn correct(object: Object, shape: Shape, seed: u64) -> Recorded {
    let unique = seed.is_multiple_of(2);
    record(object, &Play::run(object, shape, seed, unique))
}

/// A history that is not linearizable, and why. The same arguments give the same one.
pub fn broken(object: Object, shape: Shape, seed: u64) -> (Recorded, Flaw) {
    let mut play = Play::run(object, shape, seed, true);
    let flaw = flaw::inject(object, &mut play);
    (record(object, &play), flaw)
}

/// What the clients of a play know of it.
fn record(object: Object, play: &Play) -> Recorded {
    match object {
        Object::KeyValue => {
            let history =
                history(play, |act| kv::Input::new(act.key.clone(), act.command.clone()), kv::Output::clone);
            Recorded::KeyValue(KeyValue::new(), history)
        }
        Object::Register => Recorded::Register(history(
            play,
            |act| match &act.command {
                Command::Put(value) => register::Input::Write(number(value)),
                Command::Cas { from, to } => {
                    register::Input::Cas { from: from.as_deref().map_or(-1, number), to: number(to) }
                }
                Command::Get | Command::Append(_) | Command::Delete => register::Input::Read,
            },
            |output| match output {
                kv::Output::Value(value) => register::Output::Value(value.as_deref().map(number)),
                kv::Output::Swapped(held) => register::Output::Swapped(*held),
                kv::Output::Done | kv::Output::Deleted(_) => register::Output::Done,
            },
        )),
    }
}

fn history<I, O>(
    play: &Play,
    input: impl Fn(&play::Act) -> I,
    output: impl Fn(&kv::Output) -> O,
) -> History<I, O> {
    let mut history = History::new();
    let mut ids: Vec<Option<OperationId>> = vec![None; play.acts.len()];
    for event in &play.events {
        match *event {
            Event::Invoke(at) => {
                let act = &play.acts[at];
                ids[at] = Some(history.invoke(act.client, input(act)));
            }
            Event::Return(at) => {
                if let (Some(id), Some(effect)) = (ids[at], &play.acts[at].effect) {
                    history.complete(id, output(&effect.output));
                }
            }
        }
    }
    history
}

/// The number that a register's value stands for.
fn number(value: &[u8]) -> i64 {
    value.iter().filter(|byte| byte.is_ascii_digit()).fold(0, |n, digit| n * 10 + i64::from(digit - b'0'))
}
