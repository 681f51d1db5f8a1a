//! Clients and the object that they talk to, one event at a time.
//!
//! A turn belongs to a client: it asks, or what it asked takes effect, or it is answered. So the instant of an
//! operation lies between its question and its answer, and between the two any number of others may have
//! theirs. The object is said again here in a few lines, not borrowed from the checker's models: two
//! statements that agree are worth more than one.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::kv::{Command, Output};
use super::{Object, Shape};

/// An operation of a play.
pub(super) struct Act {
    pub(super) client: u64,
    pub(super) key: Bytes,
    pub(super) command: Command,
    /// `None` as long as it has not taken effect.
    pub(super) effect: Option<Effect>,
}

/// What an operation did at its instant.
pub(super) struct Effect {
    pub(super) output: Output,
    /// What the key holds after it.
    pub(super) after: Option<Bytes>,
    /// Who made the key hold that; `None` if nobody wrote yet.
    pub(super) writer: Option<usize>,
}

/// What clients notice, by the number of the act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Invoke(usize),
    Return(usize),
}

/// All that happened.
pub(super) struct Play {
    pub(super) acts: Vec<Act>,
    pub(super) events: Vec<Event>,
    pub(super) dice: Dice,
    /// Values are numbers; this one has not been used.
    fresh: u64,
    unique: bool,
}

impl Play {
    /// Plays until every operation is over.
    pub(super) fn run(object: Object, shape: Shape, seed: u64, unique: bool) -> Self {
        let mut play = Play { acts: Vec::new(), events: Vec::new(), dice: Dice(seed), fresh: 0, unique };
        let mut cells: BTreeMap<Bytes, Cell> = BTreeMap::new();
        // What each client waits for, and the operations that nobody waits for any more.
        let mut open: Vec<Option<usize>> = vec![None; shape.clients.max(1) as usize];
        let mut abandoned: Vec<usize> = Vec::new();
        loop {
            if !abandoned.is_empty() && play.dice.percent(5) {
                let late = abandoned.swap_remove(play.dice.below(abandoned.len() as u64) as usize);
                play.take_effect(late, &mut cells);
            }
            let client = play.dice.below(open.len() as u64) as usize;
            match open[client] {
                None if play.acts.len() < shape.operations => {
                    let key = match object {
                        Object::Register => Bytes::from_static(b"register"),
                        Object::KeyValue => format!("k{}", play.dice.below(shape.keys.max(1))).into(),
                    };
                    let command = play.command(object, cells.entry(key.clone()).or_default());
                    play.events.push(Event::Invoke(play.acts.len()));
                    open[client] = Some(play.acts.len());
                    play.acts.push(Act { client: client as u64, key, command, effect: None });
                }
                None if open.iter().all(Option::is_none) => return play,
                None => {}
                Some(act) if play.acts[act].effect.is_some() => {
                    play.events.push(Event::Return(act));
                    open[client] = None;
                }
                Some(act) if play.dice.percent(shape.unknown) => {
                    open[client] = None;
                    if play.dice.percent(50) {
                        play.take_effect(act, &mut cells);
                    } else {
                        abandoned.push(act);
                    }
                }
                Some(act) => play.take_effect(act, &mut cells),
            }
        }
    }

    /// A value that was not used before, or one of few. It ends in a comma, so that values that are appended
    /// to each other can be told apart.
    pub(super) fn value(&mut self) -> Bytes {
        self.fresh += 1;
        let number = if self.unique { self.fresh } else { self.dice.below(4) };
        format!("{number},").into()
    }

    fn command(&mut self, object: Object, cell: &Cell) -> Command {
        let value = self.value();
        match (object, self.dice.below(100)) {
            (_, 0..40) => Command::Get,
            (Object::Register, 40..70) | (_, 40..50) => Command::Put(value),
            (Object::KeyValue, 50..75) => Command::Append(value),
            (Object::KeyValue, 75..80) => Command::Delete,
            _ => {
                // Mostly what the key holds, so that it has a chance.
                let recent = cell.past.len().saturating_sub(3) as u64;
                let guess = recent + self.dice.below(cell.past.len() as u64 - recent + 1);
                let mut from = cell.past.get(guess as usize).or(cell.held.as_ref()).cloned();
                if object == Object::Register && from.is_none() {
                    from = Some(Bytes::from_static(b"0,")); // a register's is always a number
                }
                Command::Cas { from, to: value }
            }
        }
    }

    fn take_effect(&mut self, at: usize, cells: &mut BTreeMap<Bytes, Cell>) {
        let act = &mut self.acts[at];
        let cell = cells.entry(act.key.clone()).or_default();
        let there = cell.held.is_some();
        let (writes, output) = match &act.command {
            Command::Get => (None, Output::Value(cell.held.clone())),
            Command::Put(value) => (Some(Some(value.clone())), Output::Done),
            Command::Append(tail) => {
                let mut value = cell.held.as_deref().unwrap_or_default().to_vec();
                value.extend_from_slice(tail);
                (Some(Some(value.into())), Output::Done)
            }
            Command::Delete => {
                (Some(None), if at.is_multiple_of(2) { Output::Done } else { Output::Deleted(there) })
            }
            Command::Cas { from, to } if *from == cell.held => {
                (Some(Some(to.clone())), Output::Swapped(true))
            }
            Command::Cas { .. } => (None, Output::Swapped(false)),
        };
        if let Some(held) = writes {
            cell.past.extend(held.clone());
            cell.held = held;
            cell.writer = Some(at);
        }
        act.effect = Some(Effect { output, after: cell.held.clone(), writer: cell.writer });
    }
}

/// What one key holds and has held.
#[derive(Default)]
struct Cell {
    held: Option<Bytes>,
    past: Vec<Bytes>,
    writer: Option<usize>,
}

/// Random numbers from a seed (SplitMix64).
pub(super) struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, or 0 if there is none.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// True so many times of a hundred.
    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}
